"""Structured output: what a user gives (a pydantic class, a JSON schema, distilabel's dicts) as one JSON schema."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from llms.parameters import short
from llms.typing import JSONSchema


def json_schema_of(value: Any) -> JSONSchema:
    """The JSON schema of `value`.

    Args:
        value: a pydantic class, a JSON schema, or `{"format": "json", "schema": <either>}`.

    Raises:
        ValueError: it's none of these.
    """
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        if given.get("format", "json") == "json" and "schema" in given and "type" not in given:
            return json_schema_of(given["schema"])
        if {"type", "properties", "$ref", "anyOf", "allOf", "oneOf", "enum"} & set(given):
            return copy.deepcopy(dict(given))
        if "format" in given:
            raise ValueError(
                f"structured_output: format {given['format']!r} isn't offered by providers' APIs; give a JSON schema"
            )
    raise ValueError(
        f"structured_output: expected a pydantic class or a JSON schema, got {short(cast('object', value))}"
    )


def schema_name(schema: JSONSchema) -> str:
    """A name for the schema in a request: letters, digits, `_` and `-`, at most 64."""
    title = str(schema.get("title") or "answer")
    return (
        "".join(character if character.isalnum() else "_" for character in title if character.isascii())[:64]
        or "answer"
    )


def strict_schema(schema: JSONSchema) -> JSONSchema | None:
    """The schema in the form that OpenAI's strict mode takes, or None where it can't be had.

    Strict mode wants every object closed and every property required
    (https://platform.openai.com/docs/guides/structured-outputs). A schema with optional properties,
    or with objects of free keys, would change its meaning, so it is sent as it is, without strict mode.
    """
    closed = copy.deepcopy(schema)
    return closed if _close(closed) else None


def _close(node: Any) -> bool:
    if isinstance(node, list):
        return all(_close(item) for item in cast("list[Any]", node))
    if not isinstance(node, dict):
        return True
    schema = cast("dict[str, Any]", node)
    schema.pop("default", None)
    if "properties" in schema or schema.get("type") == "object":
        properties = cast("dict[str, Any]", schema.get("properties", {}))
        free = schema.get("additionalProperties", False)
        if free not in (False, None) or not properties or set(properties) != set(schema.get("required", [])):
            return False
        schema["additionalProperties"] = False
    children = [value for key, value in schema.items() if key not in {"enum", "const", "required", "properties"}]
    named = list(cast("dict[str, Any]", schema.get("properties", {})).values())
    return all(_close(child) for child in [*children, *named])
