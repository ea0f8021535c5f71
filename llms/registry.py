"""`AnyLLM`: a field that takes any adapter, ours by its `provider` and a user's by its import path.

A form shows one tab per adapter. A user's own class takes part as `{"provider": "module:Class", ...}`
with no change here; it must be a subclass of `LLM`, and importable where the flow runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llms.base import LLM
from llms.parameters import ParameterError, field_names, import_path, short, unknown_name_message

ADAPTERS = {
    "openai": "llms.openai:OpenAILLM",
    # "inference-endpoints": "llms.inference_endpoints:InferenceEndpointsLLM",
}
"""Our adapters by their `provider`. The order is that of the tabs in a form."""


def adapter_class(provider: str) -> type[LLM]:
    """The class behind a `provider`.

    Raises:
        ValueError: there's no adapter of this name, or the import path leads to no LLM.
    """
    path = ADAPTERS.get(provider, provider)
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(
            unknown_name_message(provider, ADAPTERS, "provider") + " A class of your own goes by 'module:Class'."
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"provider={provider!r} can't be imported: {error}. The module must be importable where the flow runs."
        ) from None
    if not (isinstance(found, type) and issubclass(found, LLM)):
        raise ValueError(f"provider={provider!r} is no subclass of llms.LLM, but {short(found)}")
    return found


def provider_of(llm: LLM) -> str:
    """The name by which `adapter_class` finds the adapter's class again."""
    path = import_path(type(llm))
    return next((provider for provider, ours in ADAPTERS.items() if ours == path), path)


def llm_from(value: Any) -> LLM:
    """An adapter from an instance or from its fields. Raises ValueError."""
    if isinstance(value, LLM):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an LLM or its fields, got {short(value)}")
    fields = dict(cast("Mapping[str, Any]", value))
    provider = str(fields.pop("provider", None) or "")
    if not provider:
        raise ValueError(
            f"an LLM needs its `provider` ({', '.join(ADAPTERS)}, or 'module:Class'), got {short(fields)}."
            " To change part of a flow's LLM, declare the flow with `from flows import flow`"
        )
    return adapter_class(provider).model_validate(fields)


def llm_to_dict(llm: LLM, info: core_schema.SerializationInfo) -> dict[str, Any]:
    return {**llm.model_dump(mode=info.mode, exclude_none=True), "provider": provider_of(llm)}


class _AnyLLM:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            llm_from,
            serialization=core_schema.plain_serializer_function_ser_schema(llm_to_dict, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        ours = [adapter_class(provider) for provider in ADAPTERS]
        tabs = [handler(cast("CoreSchema", adapter.__pydantic_core_schema__)) for adapter in ours]
        return {"anyOf": [*tabs, custom_tab()], "title": "LLM"}


def custom_tab() -> dict[str, Any]:
    """The form of an adapter of the user's own."""
    properties: dict[str, Any] = {
        "provider": {
            "type": "string",
            "title": "Provider",
            "description": "Import path of your own adapter, as module:Class.",
            "pattern": ":",
            "position": 0,
        },
        "generation_kwargs": {"type": "object", "title": "Generation parameters", "position": 1},
    }
    return {"type": "object", "title": "Your own", "properties": properties}


@cache
def names_in_any_adapter() -> frozenset[str]:
    """The fields of all adapters: a form that was switched to another tab sends them along."""
    return frozenset().union(*(field_names(adapter_class(provider)) for provider in ADAPTERS))


if TYPE_CHECKING:
    AnyLLM = LLM
else:
    AnyLLM = Annotated[LLM, _AnyLLM]
