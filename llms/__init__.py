"""LLMs: one adapter per provider.

Use one alone (`llm.load()`, `llm.generate_outputs(...)`) or give it to a Task.
"""

from llms.anthropic import AnthropicLLM
from llms.azure import AzureOpenAILLM
from llms.base import LLM, AsyncLLM
from llms.embeddings import Embeddings
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
    ProviderAwayError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.images import ImageGenerationModel
from llms.inference_endpoints import InferenceEndpointsLLM
from llms.inference_endpoints_embeddings import InferenceEndpointsEmbeddings
from llms.inference_endpoints_images import InferenceEndpointsImageGeneration
from llms.openai import OpenAILLM
from llms.openai_embeddings import OpenAIEmbeddings
from llms.openai_images import OpenAIImageGeneration
from llms.parameters import ParameterError, RuntimeParameter
from llms.registry import AnyEmbeddings, AnyImageModel, AnyLLM
from llms.sentence_transformers import SentenceTransformerEmbeddings
from llms.typing import ChatType, FormattedInput, GenerateOutput, HiddenState, PriceSource

__all__ = [
    "LLM",
    "AnthropicLLM",
    "AnyEmbeddings",
    "AnyImageModel",
    "AnyLLM",
    "AsyncLLM",
    "AuthenticationError",
    "AzureOpenAILLM",
    "BadRequestError",
    "ChatType",
    "ConnectionFailedError",
    "ContentFilterError",
    "ContextLengthError",
    "Embeddings",
    "ExpiredError",
    "FormattedInput",
    "GenerateOutput",
    "HiddenState",
    "ImageGenerationModel",
    "InferenceEndpointsEmbeddings",
    "InferenceEndpointsImageGeneration",
    "InferenceEndpointsLLM",
    "InvalidResponseError",
    "LLMError",
    "ModelNotFoundError",
    "OfflineBatchGenerationNotFinishedError",
    "OpenAIEmbeddings",
    "OpenAIImageGeneration",
    "OpenAILLM",
    "OverloadedError",
    "ProviderAwayError",
    "ParameterError",
    "PriceSource",
    "QuotaExceededError",
    "RateLimitError",
    "RequestTimeoutError",
    "RuntimeParameter",
    "SentenceTransformerEmbeddings",
]
