"""Tasks and Steps: rows in, rows out."""

from tasks.agreement import JudgeAgreement
from tasks.apigen import APIGenGenerator, APIGenSemanticChecker, PrepareExamples
from tasks.argilla import PreferenceToArgilla, TextGenerationToArgilla
from tasks.argilla_labeller import ArgillaLabeller
from tasks.backtranslation import InstructionBacktranslation
from tasks.base import Answer, ModelStep, Task, UnreadableAnswerError
from tasks.clair import CLAIR
from tasks.classification import Label, TextClassification
from tasks.clustering import ClusterSamples, JoinClusterLabels, TextClustering, label_clusters
from tasks.columns import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns, MergeColumns
from tasks.decorators import step, task
from tasks.deduplication import EmbeddingDedup, MinHashDedup
from tasks.deita import DeitaFiltering
from tasks.embedding_task_generator import EmbeddingTaskGenerator
from tasks.embeddings import EmbeddingGeneration, GenerateEmbeddings
from tasks.evol import EvolComplexity, EvolInstruct, EvolQuality
from tasks.evol_generators import EvolComplexityGenerator, EvolInstructGenerator
from tasks.filtering import FilterRows
from tasks.formatting import (
    ConversationTemplate,
    FormatChatGenerationDPO,
    FormatChatGenerationSFT,
    FormatTextGenerationDPO,
    FormatTextGenerationSFT,
)
from tasks.function_calls import APIGenExecutionChecker
from tasks.generators import GeneratorTask
from tasks.genstruct import Genstruct
from tasks.image_generation import ImageGeneration, SaveImages
from tasks.judges import Criterion, PairwiseJudge, RubricJudge
from tasks.loaders import (
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    LoadDataFromHub,
    Source,
    SourceError,
    make_generator_step,
)
from tasks.magpie import Magpie, MagpieGenerator
from tasks.math_shepherd import FormatPRM, MathShepherdCompleter, MathShepherdGenerator
from tasks.neighbours import FaissNearestNeighbour
from tasks.pair_rm import PairRM
from tasks.projection import DBSCAN, UMAP
from tasks.prometheus import PrometheusEval, Rubric
from tasks.reward import RewardModelScore
from tasks.sampled_columns import (
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
from tasks.samplers import DataSampler, SampleColumns, SamplePersonas
from tasks.savers import PushToHub, Saver, SaveToDisk, SaveToFiles, Target, TargetError
from tasks.scorers import ComplexityScorer, QualityScorer
from tasks.self_instruct import SelfInstruct
from tasks.sentence_pairs import GenerateSentencePair
from tasks.steps import GeneratorStep, GlobalStep, Step
from tasks.structured_generation import StructuredGeneration
from tasks.text_embedding_data import (
    GenerateLongTextMatchingData,
    GenerateShortTextMatchingData,
    GenerateTextClassificationData,
    GenerateTextRetrievalData,
)
from tasks.text_generation import ChatGeneration, TextGeneration, TextGenerationWithImage
from tasks.text_triplets import BitextRetrievalGenerator, MonolingualTripletGenerator
from tasks.truncation import TruncateTextColumn
from tasks.typing import Ask, ChatType, GeneratorStepOutput, Row, StepInput, StepOutput
from tasks.ultrafeedback import UltraFeedback
from tasks.urial import URIAL

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
    "label_clusters",
    "UuidColumn",
    "make_generator_step",
    "step",
    "task",
]
