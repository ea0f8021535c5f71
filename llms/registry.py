"""`AnyLLM`, `AnyEmbeddings`, `AnyImageModel`: fields for any adapter, ours by its `provider`, others by import path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from llms.base import LLM
from llms.embeddings import Embeddings
from llms.images import ImageGenerationModel
from llms.variants import Variants

OWN_TAB: dict[str, Any] = {
    "type": "object",
    "title": "Your own",
    "properties": {
        "provider": {
            "type": "string",
            "title": "Provider",
            "description": "Import path of your adapter, as module:Class.",
            "position": 0,
        },
        "generation_kwargs": {"type": "object", "title": "Generation parameters", "position": 1},
    },
}


def own_tab_with(others: Sequence[str]) -> dict[str, Any]:
    """The tab for a class of the user's own, and for ours without one."""
    return {
        **OWN_TAB,
        "properties": {
            "provider": {
                **OWN_TAB["properties"]["provider"],
                "description": f"One of {', '.join(others)}; or the import path of your adapter, as module:Class.",
            },
            "model": {
                "type": "string",
                "title": "Model",
                "description": "The model's name at the provider, where it takes one.",
                "position": 1,
            },
            "generation_kwargs": {"type": "object", "title": "Generation parameters", "position": 2},
        },
    }


IN_TABS = ("openai", "azure-openai", "anthropic", "inference-endpoints")
"""The providers that have a tab of their own in forms."""

_PROVIDERS = Variants(
    base="llms.base:LLM",
    tag="provider",
    ours={
        "openai": "llms.providers.openai:OpenAILLM",
        "azure-openai": "llms.providers.azure:AzureOpenAILLM",
        "anthropic": "llms.providers.anthropic:AnthropicLLM",
        "inference-endpoints": "llms.providers.inference_endpoints:InferenceEndpointsLLM",
        "openai-responses": "llms.providers.openai_responses:OpenAIResponsesLLM",
        "mistral": "llms.providers.mistral:MistralLLM",
        "groq": "llms.providers.groq:GroqLLM",
        "together": "llms.providers.together:TogetherLLM",
        "ollama": "llms.providers.ollama:OllamaLLM",
        "openrouter": "llms.providers.openrouter:OpenRouterLLM",
        "deepseek": "llms.providers.deepseek:DeepSeekLLM",
        "fireworks": "llms.providers.fireworks:FireworksLLM",
        "xai": "llms.providers.xai:XAILLM",
        "cerebras": "llms.providers.cerebras:CerebrasLLM",
        "perplexity": "llms.providers.perplexity:PerplexityLLM",
        "dashscope": "llms.providers.dashscope:DashScopeLLM",
        "moonshot": "llms.providers.moonshot:MoonshotLLM",
        "zai": "llms.providers.zai:ZAILLM",
        "nebius": "llms.providers.nebius:NebiusLLM",
        "sambanova": "llms.providers.sambanova:SambaNovaLLM",
        "gemini": "llms.providers.gemini:GeminiLLM",
        "vertexai": "llms.providers.vertexai:VertexAILLM",
        "cohere": "llms.providers.cohere:CohereLLM",
        "bedrock": "llms.providers.bedrock:BedrockLLM",
        "litellm": "llms.providers.litellm:LiteLLM",
        "vllm-server": "llms.providers.vllm_server:ClientvLLM",
        "sglang-server": "llms.providers.sglang_server:ClientSGLang",
        "llama-server": "llms.providers.llama_server:ClientLlamaCpp",
        "lm-studio": "llms.providers.lm_studio:ClientLMStudio",
    },
    title="LLM",
)
OTHERS = [tag for tag in _PROVIDERS.ours if tag not in IN_TABS]
LLM_VARIANTS = replace(
    _PROVIDERS,
    behind=frozenset(OTHERS),
    own_tab=own_tab_with(OTHERS),
)

EMBEDDINGS_IN_TABS = ("openai-embeddings", "inference-endpoints-embeddings", "sentence-transformers")
_EMBEDDINGS = Variants(
    base="llms.embeddings:Embeddings",
    tag="provider",
    ours={
        "openai-embeddings": "llms.providers.openai_embeddings:OpenAIEmbeddings",
        "inference-endpoints-embeddings": "llms.providers.inference_endpoints_embeddings:InferenceEndpointsEmbeddings",
        "sentence-transformers": "llms.providers.sentence_transformers:SentenceTransformerEmbeddings",
        "gemini-embeddings": "llms.providers.gemini_embeddings:GeminiEmbeddings",
        "mistral-embeddings": "llms.providers.mistral_embeddings:MistralEmbeddings",
        "cohere-embeddings": "llms.providers.cohere_embeddings:CohereEmbeddings",
        "ollama-embeddings": "llms.providers.ollama_embeddings:OllamaEmbeddings",
    },
    title="Embedding model",
)
OTHER_EMBEDDINGS = [tag for tag in _EMBEDDINGS.ours if tag not in EMBEDDINGS_IN_TABS]
EMBEDDINGS_VARIANTS = replace(_EMBEDDINGS, behind=frozenset(OTHER_EMBEDDINGS), own_tab=own_tab_with(OTHER_EMBEDDINGS))

IMAGE_VARIANTS = Variants(
    base="llms.images:ImageGenerationModel",
    tag="provider",
    ours={
        "openai-images": "llms.providers.openai_images:OpenAIImageGeneration",
        "inference-endpoints-images": "llms.providers.inference_endpoints_images:InferenceEndpointsImageGeneration",
    },
    title="Image model",
    own_tab=OWN_TAB,
)

# What can be written down in a job's record. In a form the kinds never stand together.
ALL_VARIANTS = replace(LLM_VARIANTS, ours={**LLM_VARIANTS.ours, **EMBEDDINGS_VARIANTS.ours, **IMAGE_VARIANTS.ours})

if TYPE_CHECKING:
    AnyLLM = LLM
    AnyEmbeddings = Embeddings
    AnyImageModel = ImageGenerationModel
    AnyModel = LLM
else:
    AnyLLM = Annotated[LLM, LLM_VARIANTS]
    AnyEmbeddings = Annotated[Embeddings, EMBEDDINGS_VARIANTS]
    AnyImageModel = Annotated[ImageGenerationModel, IMAGE_VARIANTS]
    AnyModel = Annotated[LLM, ALL_VARIANTS]
