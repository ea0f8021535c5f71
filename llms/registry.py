"""`AnyLLM`, `AnyEmbeddings`, `AnyImageModel`: fields for any adapter, ours by its `provider`, others by import path."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from llms.base import LLM
from llms.embeddings import Embeddings
from llms.images import ImageGenerationModel
from llms.variants import Variants

OWN_TAB = {
    "type": "object",
    "title": "Your own",
    "required": ["provider"],
    "properties": {
        "provider": {
            "type": "string",
            "title": "Provider",
            "description": "Import path of your adapter, as module:Class.",
            "pattern": ":",
            "position": 0,
        },
        "generation_kwargs": {"type": "object", "title": "Generation parameters", "position": 1},
    },
}

LLM_VARIANTS = Variants(
    base="llms.base:LLM",
    tag="provider",
    ours={
        "openai": "llms.openai:OpenAILLM",
        "azure-openai": "llms.azure:AzureOpenAILLM",
        "anthropic": "llms.anthropic:AnthropicLLM",
        "inference-endpoints": "llms.inference_endpoints:InferenceEndpointsLLM",
    },
    title="LLM",
    own_tab=OWN_TAB,
)

EMBEDDINGS_VARIANTS = Variants(
    base="llms.embeddings:Embeddings",
    tag="provider",
    ours={
        "openai-embeddings": "llms.openai_embeddings:OpenAIEmbeddings",
        "inference-endpoints-embeddings": "llms.inference_endpoints_embeddings:InferenceEndpointsEmbeddings",
        "sentence-transformers": "llms.sentence_transformers:SentenceTransformerEmbeddings",
    },
    title="Embedding model",
    own_tab=OWN_TAB,
)

IMAGE_VARIANTS = Variants(
    base="llms.images:ImageGenerationModel",
    tag="provider",
    ours={
        "openai-images": "llms.openai_images:OpenAIImageGeneration",
        "inference-endpoints-images": "llms.inference_endpoints_images:InferenceEndpointsImageGeneration",
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
