"""Tasks and Steps: rows in, rows out."""

from llms.moved import find_moved
from tasks.base import Answer, ModelStep, Task, UnreadableAnswerError
from tasks.decorators import step, task
from tasks.functions.apigen import APIGenGenerator, APIGenSemanticChecker, PrepareExamples
from tasks.functions.function_calls import APIGenExecutionChecker
from tasks.instructions.evol import EvolComplexity, EvolInstruct, EvolQuality
from tasks.instructions.evol_generators import EvolComplexityGenerator, EvolInstructGenerator
from tasks.instructions.self_instruct import SelfInstruct
from tasks.judging.agreement import JudgeAgreement
from tasks.judging.argilla_labeller import ArgillaLabeller
from tasks.judging.backtranslation import InstructionBacktranslation
from tasks.judging.classification import Label, TextClassification
from tasks.judging.judges import Criterion, PairwiseJudge, RubricJudge
from tasks.judging.pair_rm import PairRM
from tasks.judging.prometheus import PrometheusEval, Rubric
from tasks.judging.reward import RewardModelScore
from tasks.judging.scorers import ComplexityScorer, QualityScorer
from tasks.judging.ultrafeedback import UltraFeedback
from tasks.math.math_shepherd import FormatPRM, MathShepherdCompleter, MathShepherdGenerator
from tasks.registry import Source, Target
from tasks.retrieval.embedding_task_generator import EmbeddingTaskGenerator
from tasks.retrieval.sentence_pairs import GenerateSentencePair
from tasks.retrieval.text_embedding_data import (
    GenerateLongTextMatchingData,
    GenerateShortTextMatchingData,
    GenerateTextClassificationData,
    GenerateTextRetrievalData,
)
from tasks.retrieval.text_triplets import BitextRetrievalGenerator, MonolingualTripletGenerator
from tasks.rows.clustering import ClusterSamples, JoinClusterLabels, TextClustering, label_clusters
from tasks.rows.columns import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns, MergeColumns
from tasks.rows.deduplication import EmbeddingDedup, MinHashDedup
from tasks.rows.deita import DeitaFiltering
from tasks.rows.embeddings import EmbeddingGeneration, GenerateEmbeddings
from tasks.rows.filtering import FilterRows
from tasks.rows.formatting import (
    ConversationTemplate,
    FormatChatGenerationDPO,
    FormatChatGenerationSFT,
    FormatTextGenerationDPO,
    FormatTextGenerationSFT,
)
from tasks.rows.neighbours import FaissNearestNeighbour
from tasks.rows.projection import DBSCAN, UMAP
from tasks.rows.truncation import TruncateTextColumn
from tasks.sources.errors import SourceError
from tasks.sources.generators import GeneratorTask
from tasks.sources.loaders import (
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    LoadDataFromHub,
    make_generator_step,
)
from tasks.sources.sampled_columns import (
    BernoulliColumn,
    CategoryColumn,
    DatetimeColumn,
    GaussianColumn,
    PersonColumn,
    PoissonColumn,
    SampledColumn,
    SubcategoryColumn,
    TemplateColumn,
    TimedeltaColumn,
    UniformColumn,
    UuidColumn,
)
from tasks.sources.samplers import DataSampler, SampleColumns, SamplePersonas
from tasks.steps import GeneratorStep, GlobalStep, Step
from tasks.targets.argilla import PreferenceToArgilla, TextGenerationToArgilla
from tasks.targets.places import TargetError
from tasks.targets.savers import PushToHub, Saver, SaveToDisk, SaveToFiles
from tasks.typing import Ask, ChatType, GeneratorStepOutput, Row, StepInput, StepOutput
from tasks.verifying.answers import VerifyAnswer
from tasks.verifying.code import VerifyCode
from tasks.verifying.judge import JudgeSolution
from tasks.verifying.solving import SolveProblem
from tasks.verifying.verdicts import PassRate
from tasks.writing.clair import CLAIR
from tasks.writing.genstruct import Genstruct
from tasks.writing.image_generation import ImageGeneration, SaveImages
from tasks.writing.magpie import Magpie, MagpieGenerator
from tasks.writing.structured_generation import StructuredGeneration
from tasks.writing.text_generation import ChatGeneration, TextGeneration, TextGenerationWithImage
from tasks.writing.urial import URIAL

find_moved(__name__)

__all__ = [
    "DBSCAN",
    "UMAP",
    "APIGenExecutionChecker",
    "APIGenGenerator",
    "APIGenSemanticChecker",
    "Answer",
    "ArgillaLabeller",
    "Ask",
    "BitextRetrievalGenerator",
    "CLAIR",
    "BernoulliColumn",
    "CategoryColumn",
    "ChatGeneration",
    "ChatType",
    "ClusterSamples",
    "CombineOutputs",
    "ComplexityScorer",
    "ConversationTemplate",
    "Criterion",
    "DeitaFiltering",
    "EmbeddingDedup",
    "DataSampler",
    "DatetimeColumn",
    "EmbeddingGeneration",
    "EmbeddingTaskGenerator",
    "EvolComplexity",
    "EvolComplexityGenerator",
    "EvolInstruct",
    "EvolInstructGenerator",
    "EvolQuality",
    "ExpandColumns",
    "FaissNearestNeighbour",
    "FilterRows",
    "FormatChatGenerationDPO",
    "FormatChatGenerationSFT",
    "FormatPRM",
    "FormatTextGenerationDPO",
    "FormatTextGenerationSFT",
    "GaussianColumn",
    "GenerateEmbeddings",
    "GenerateLongTextMatchingData",
    "GenerateSentencePair",
    "GenerateShortTextMatchingData",
    "GenerateTextClassificationData",
    "GenerateTextRetrievalData",
    "GeneratorStep",
    "GeneratorStepOutput",
    "GeneratorTask",
    "Genstruct",
    "GlobalStep",
    "GroupColumns",
    "InstructionBacktranslation",
    "JudgeAgreement",
    "JudgeSolution",
    "JoinClusterLabels",
    "ImageGeneration",
    "KeepColumns",
    "Label",
    "LoadDataFromDicts",
    "LoadDataFromDisk",
    "LoadDataFromFileSystem",
    "LoadDataFromHub",
    "Magpie",
    "MagpieGenerator",
    "MathShepherdCompleter",
    "MathShepherdGenerator",
    "MergeColumns",
    "MinHashDedup",
    "ModelStep",
    "MonolingualTripletGenerator",
    "PairRM",
    "PassRate",
    "PairwiseJudge",
    "PrometheusEval",
    "PrepareExamples",
    "PersonColumn",
    "PoissonColumn",
    "PushToHub",
    "QualityScorer",
    "PreferenceToArgilla",
    "RewardModelScore",
    "Row",
    "Rubric",
    "RubricJudge",
    "SampleColumns",
    "SamplePersonas",
    "SampledColumn",
    "SaveImages",
    "SaveToDisk",
    "SaveToFiles",
    "Saver",
    "SelfInstruct",
    "SolveProblem",
    "Source",
    "SourceError",
    "Step",
    "StepInput",
    "StepOutput",
    "StructuredGeneration",
    "SubcategoryColumn",
    "Target",
    "TargetError",
    "Task",
    "TextClassification",
    "TextClustering",
    "TemplateColumn",
    "TextGeneration",
    "TextGenerationToArgilla",
    "TextGenerationWithImage",
    "URIAL",
    "TruncateTextColumn",
    "TimedeltaColumn",
    "UltraFeedback",
    "UniformColumn",
    "UnreadableAnswerError",
    "VerifyAnswer",
    "VerifyCode",
    "label_clusters",
    "UuidColumn",
    "make_generator_step",
    "step",
    "task",
]
