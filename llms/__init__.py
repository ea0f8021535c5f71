"""LLMs: one adapter per provider.

Use one alone (`llm.load()`, `llm.generate_outputs(...)`) or give it to a Task.
"""

from llms.base import LLM, AsyncLLM
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ContentFilterError,
    ContextLengthError,
    ExpiredError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OfflineBatchGenerationNotFinishedError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.inference_endpoints import InferenceEndpointsLLM
from llms.openai import OpenAILLM
from llms.parameters import ParameterError, RuntimeParameter
from llms.registry import AnyLLM
from llms.typing import ChatType, FormattedInput, GenerateOutput, HiddenState

__all__ = [
    "LLM",
    "AnyLLM",
    "AsyncLLM",
    "AuthenticationError",
    "BadRequestError",
    "ChatType",
    "ConnectionFailedError",
    "ContentFilterError",
    "ContextLengthError",
    "ExpiredError",
    "FormattedInput",
    "GenerateOutput",
    "HiddenState",
    "InferenceEndpointsLLM",
    "InvalidResponseError",
    "LLMError",
    "ModelNotFoundError",
    "OfflineBatchGenerationNotFinishedError",
    "OpenAILLM",
    "OverloadedError",
    "ParameterError",
    "QuotaExceededError",
    "RateLimitError",
    "RequestTimeoutError",
    "RuntimeParameter",
]
