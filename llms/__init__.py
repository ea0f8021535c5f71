"""LLMs: one adapter per provider.

Use one alone (`llm.load()`, `llm.generate_outputs(...)`) or give it to a Task.
"""

from typing import TYPE_CHECKING, Any

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
from llms.moved import find_moved
from llms.parameters import ParameterError, RuntimeParameter, Unasked
from llms.providers.anthropic import AnthropicLLM
from llms.providers.azure import AzureOpenAILLM
from llms.providers.inference_endpoints import InferenceEndpointsLLM
from llms.providers.inference_endpoints_embeddings import InferenceEndpointsEmbeddings
from llms.providers.inference_endpoints_images import InferenceEndpointsImageGeneration
from llms.providers.openai import OpenAILLM
from llms.providers.openai_embeddings import OpenAIEmbeddings
from llms.providers.openai_images import OpenAIImageGeneration
from llms.providers.sentence_transformers import SentenceTransformerEmbeddings
from llms.registry import EMBEDDINGS_VARIANTS, LLM_VARIANTS, AnyEmbeddings, AnyImageModel, AnyLLM
from llms.typing import ChatType, FormattedInput, GenerateOutput, HiddenState, PriceSource
from llms.variants import imported

if TYPE_CHECKING:
    from llms.providers.bedrock import BedrockLLM
    from llms.providers.cerebras import CerebrasLLM
    from llms.providers.cohere import CohereLLM
    from llms.providers.cohere_embeddings import CohereEmbeddings
    from llms.providers.dashscope import DashScopeLLM
    from llms.providers.deepinfra import DeepInfraLLM
    from llms.providers.deepseek import DeepSeekLLM
    from llms.providers.fireworks import FireworksLLM
    from llms.providers.gemini import GeminiLLM
    from llms.providers.gemini_embeddings import GeminiEmbeddings
    from llms.providers.groq import GroqLLM
    from llms.providers.litellm import LiteLLM
    from llms.providers.llama_cpp import LlamaCppLLM
    from llms.providers.llama_server import ClientLlamaCpp
    from llms.providers.lm_studio import ClientLMStudio
    from llms.providers.mistral import MistralLLM
    from llms.providers.mistral_embeddings import MistralEmbeddings
    from llms.providers.mixture_of_agents import MixtureOfAgentsLLM
    from llms.providers.mlx import MlxLLM
    from llms.providers.moonshot import MoonshotLLM
    from llms.providers.nebius import NebiusLLM
    from llms.providers.ollama import OllamaLLM
    from llms.providers.ollama_embeddings import OllamaEmbeddings
    from llms.providers.openai_responses import OpenAIResponsesLLM
    from llms.providers.openrouter import OpenRouterLLM
    from llms.providers.perplexity import PerplexityLLM
    from llms.providers.sambanova import SambaNovaLLM
    from llms.providers.sglang_server import ClientSGLang
    from llms.providers.together import TogetherLLM
    from llms.providers.transformers import TransformersLLM
    from llms.providers.vertexai import VertexAILLM
    from llms.providers.vllm import vLLM
    from llms.providers.vllm_server import ClientvLLM
    from llms.providers.xai import XAILLM
    from llms.providers.zai import ZAILLM

find_moved(__name__)

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
    "BedrockLLM",
    "CerebrasLLM",
    "ChatType",
    "ClientLMStudio",
    "ClientLlamaCpp",
    "ClientSGLang",
    "ClientvLLM",
    "CohereEmbeddings",
    "CohereLLM",
    "ConnectionFailedError",
    "ContentFilterError",
    "ContextLengthError",
    "DashScopeLLM",
    "DeepInfraLLM",
    "DeepSeekLLM",
    "Embeddings",
    "ExpiredError",
    "FireworksLLM",
    "FormattedInput",
    "GeminiEmbeddings",
    "GeminiLLM",
    "GenerateOutput",
    "GroqLLM",
    "HiddenState",
    "ImageGenerationModel",
    "InferenceEndpointsEmbeddings",
    "InferenceEndpointsImageGeneration",
    "InferenceEndpointsLLM",
    "InvalidResponseError",
    "LLMError",
    "LiteLLM",
    "LlamaCppLLM",
    "MistralEmbeddings",
    "MistralLLM",
    "MixtureOfAgentsLLM",
    "ModelNotFoundError",
    "MlxLLM",
    "MoonshotLLM",
    "NebiusLLM",
    "OfflineBatchGenerationNotFinishedError",
    "OllamaEmbeddings",
    "OllamaLLM",
    "OpenAIEmbeddings",
    "OpenAIImageGeneration",
    "OpenAILLM",
    "OpenAIResponsesLLM",
    "OpenRouterLLM",
    "OverloadedError",
    "ParameterError",
    "PerplexityLLM",
    "PriceSource",
    "ProviderAwayError",
    "QuotaExceededError",
    "RateLimitError",
    "RequestTimeoutError",
    "RuntimeParameter",
    "SambaNovaLLM",
    "SentenceTransformerEmbeddings",
    "TogetherLLM",
    "TransformersLLM",
    "Unasked",
    "VertexAILLM",
    "XAILLM",
    "ZAILLM",
    "vLLM",
]


# distilabel's classes of these names, as text: nothing of a server or a package is looked for.
_elsewhere = {
    **dict.fromkeys(
        ("vLLMEmbeddings", "LlamaCppEmbeddings"),
        "serve the model and speak to the server, OpenAIEmbeddings(model=..., base_url='{address}')",
    ),
    "AnyscaleLLM": "Anyscale's service has ended; TogetherLLM and FireworksLLM serve what it did",
}
_addresses = {
    "LlamaCppEmbeddings": "http://localhost:8080/v1",
}


# The providers' classes, by their names: imported when they're asked for.
_providers = {
    path.partition(":")[2]: path
    for path in (*LLM_VARIANTS.ours.values(), *EMBEDDINGS_VARIANTS.ours.values())
    if path.startswith("llms.providers.")
}
_providers["MixtureOfAgentsLLM"] = "llms.providers.mixture_of_agents:MixtureOfAgentsLLM"


def __getattr__(name: str) -> Any:
    if name in _providers:
        return imported(_providers[name])
    if name not in _elsewhere:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    way = _elsewhere[name].format(address=_addresses.get(name, "http://localhost:8000/v1"))
    raise ImportError(f"there is no {name} here: {way}. docs/coming-from-distilabel.md has every class")
