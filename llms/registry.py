"""`AnyLLM`, `AnyEmbeddings`, `AnyImageModel`: fields for any adapter, ours by its `provider`, others by import path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from llms.base import LLM
from llms.embeddings import Embeddings
from llms.images import ImageGenerationModel
from llms.parameters import Configurable
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
        "deepinfra": "llms.providers.deepinfra:DeepInfraLLM",
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
        "llama-cpp": "llms.providers.llama_cpp:LlamaCppLLM",
        "transformers": "llms.providers.transformers:TransformersLLM",
        "vllm": "llms.providers.vllm:vLLM",
        "mlx": "llms.providers.mlx:MlxLLM",
    },
    title="LLM",
)
OTHERS = [tag for tag in _PROVIDERS.ours if tag not in IN_TABS]


class AllSettings(BaseModel):
    """The tab of a flow's form with what the providers' tabs have and hide, for any provider."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(core_schema)
        kinds = [LLM_VARIANTS.find(tag) for tag in IN_TABS]
        first = own_tab_with(list(_PROVIDERS.ours))["properties"]
        handler.resolve_ref_schema(reference).update(
            type="object",
            title="All settings, any provider",
            description="What is left empty stays as the flow, the deployment or the provider has it.",
            properties=fields_of_all(kinds, first),
        )
        return reference


def fields_of_all(kinds: Sequence[type[Configurable]], first: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of all `kinds` in a form, as JSON schemas without defaults; those in `first` as they are there."""
    several: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in kinds:
        for name, each in kind.model_json_schema()["properties"].items():
            several.setdefault(name, {})[kind.form_title] = each
    shown = dict(first)
    for name, by_kind in several.items():
        if name in first:
            continue
        (owner, one), *others = by_kind.items()
        taken = one["title"] in {each["title"] for each in shown.values()}
        alike = all(each.get("description") == one.get("description") for _, each in others)
        shown[name] = {
            "type": one["type"],
            "title": f"{one['title']} ({owner})" if taken else one["title"],
            **({"description": one["description"]} if alike and "description" in one else {}),
            # A switch is always on or off; among values none can be chosen.
            **({"enum": [True, False]} if one["type"] == "boolean" else {}),
            "position": len(shown),
        }
    return shown


LLM_VARIANTS = replace(
    _PROVIDERS,
    behind=frozenset(OTHERS),
    own_tab=own_tab_with(OTHERS),
    settings=AllSettings,
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
ALL_VARIANTS = replace(
    LLM_VARIANTS, settings=None, ours={**LLM_VARIANTS.ours, **EMBEDDINGS_VARIANTS.ours, **IMAGE_VARIANTS.ours}
)

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
