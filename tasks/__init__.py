"""Tasks and Steps: rows in, rows out."""

from tasks.step import GeneratorStep, GlobalStep, Step
from tasks.task import Task, UnreadableAnswerError
from tasks.text_generation import ChatGeneration, TextGeneration, TextGenerationWithImage
from tasks.typing import ChatType, GeneratorStepOutput, Row, StepInput, StepOutput

__all__ = [
    "ChatGeneration",
    "ChatType",
    "GeneratorStep",
    "GeneratorStepOutput",
    "GlobalStep",
    "Row",
    "Step",
    "StepInput",
    "StepOutput",
    "Task",
    "TextGeneration",
    "TextGenerationWithImage",
    "UnreadableAnswerError",
]
