"""Structured output: what a user gives (a pydantic class, a JSON schema, distilabel's dicts) as one JSON schema."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from pydantic import BaseModel

from llms.parameters import short
from llms.typing import JSONSchema

# What Anthropic's structured outputs don't take.
CONSTRAINTS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
BEYOND = frozenset({"patternProperties", "prefixItems", "contains", "not", "if", "dependentSchemas", "propertyNames"})


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


def constrainable_schema(schema: JSONSchema) -> JSONSchema | None:
    """The schema in the form that Anthropic's structured outputs take, or None where it can't be had.

    They want every object closed and no recursion
    (https://docs.claude.com/en/docs/build-with-claude/structured-outputs). Constraints that they don't take become
    part of the description.
    """
    taken = copy.deepcopy(schema)
    return taken if _adapt(taken) and not _is_recursive(taken) else None


def _adapt(node: Any) -> bool:
    """Change a schema and what's in it to the form. Returns whether that was possible."""
    if not isinstance(node, dict):
        return False
    schema = cast("dict[str, Any]", node)
    if BEYOND & set(schema):
        return False
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    _describe_constraints(schema)
    if "properties" in schema or schema.get("type") == "object":
        if schema.get("additionalProperties", False) is not False or not schema.get("properties"):
            return False
        schema["additionalProperties"] = False
    inner = [each for name in ("properties", "$defs", "definitions") for each in dict(schema.get(name, {})).values()]
    inner += [each for name in ("anyOf", "allOf") for each in schema.get(name, [])]
    inner += [schema["items"]] if "items" in schema else []
    return all(map(_adapt, inner))


def _describe_constraints(schema: dict[str, Any]) -> None:
    names = CONSTRAINTS & set(schema)
    if schema.get("minItems", 0) > 1:
        names |= {"minItems"}
    if schema.get("format") not in {None, *FORMATS}:
        names |= {"format"}
    if names:
        said = ", ".join(f"{name}: {schema.pop(name)}" for name in sorted(names))
        schema["description"] = f"{schema.get('description', '')} ({said})".strip()


def _is_recursive(schema: JSONSchema) -> bool:
    definitions = {
        f"#/{name}/{key}": each for name in ("$defs", "definitions") for key, each in schema.get(name, {}).items()
    }
    graph = {"#": set(_references(schema)), **{name: set(_references(each)) for name, each in definitions.items()}}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        inner = cast("dict[str, Any]", node)
        if isinstance(inner.get("$ref"), str):
            yield inner["$ref"]
        node = list(inner.values())
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from _references(each)
