"""Tasks and Steps: rows in, rows out."""

from tasks.base import Answer, Task, UnreadableAnswerError
from tasks.columns import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns, MergeColumns
from tasks.decorators import step, task
from tasks.embeddings import GenerateEmbeddings
from tasks.formatting import (
    ConversationTemplate,
    FormatChatGenerationDPO,
    FormatChatGenerationSFT,
    FormatTextGenerationDPO,
    FormatTextGenerationSFT,
)
from tasks.loaders import (
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    LoadDataFromHub,
    Source,
    SourceError,
    make_generator_step,
)
from tasks.savers import PushToHub, Saver, SaveToDisk, SaveToFiles, Target, TargetError
from tasks.steps import GeneratorStep, GlobalStep, Step
from tasks.structured_generation import StructuredGeneration
from tasks.text_generation import ChatGeneration, TextGeneration, TextGenerationWithImage
from tasks.typing import Ask, ChatType, GeneratorStepOutput, Row, StepInput, StepOutput
from tasks.ultrafeedback import UltraFeedback

__all__ = [
    "Answer",
    "Ask",
    "ChatGeneration",
    "ChatType",
    "CombineOutputs",
    "ConversationTemplate",
    "ExpandColumns",
    "FormatChatGenerationDPO",
    "FormatChatGenerationSFT",
    "FormatTextGenerationDPO",
    "FormatTextGenerationSFT",
    "GenerateEmbeddings",
    "GeneratorStep",
    "GeneratorStepOutput",
    "GlobalStep",
    "GroupColumns",
    "KeepColumns",
    "LoadDataFromDicts",
    "LoadDataFromDisk",
    "LoadDataFromFileSystem",
    "LoadDataFromHub",
    "MergeColumns",
    "PushToHub",
    "Row",
    "SaveToDisk",
    "SaveToFiles",
    "Saver",
    "Source",
    "SourceError",
    "Step",
    "StepInput",
    "StepOutput",
    "StructuredGeneration",
    "Target",
    "TargetError",
    "Task",
    "TextGeneration",
    "TextGenerationWithImage",
    "UltraFeedback",
    "UnreadableAnswerError",
    "make_generator_step",
    "step",
    "task",
]
