"""`AnyLLM`: a field that takes any adapter, ours by its `provider` and a user's own by its import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from llms.base import LLM
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
        "inference-endpoints": "llms.inference_endpoints:InferenceEndpointsLLM",
    },
    title="LLM",
    own_tab=OWN_TAB,
)

if TYPE_CHECKING:
    AnyLLM = LLM
else:
    AnyLLM = Annotated[LLM, LLM_VARIANTS]
