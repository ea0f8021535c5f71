"""The parameters of a flow for people and programs to read: dotted names with types, defaults and texts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect.utilities.callables import parameter_schema

from flows.authoring.dotted import REQUIRED, filled_in
from flows.authoring.parameters import signature_for_form, signed
from flows.authoring.preview import checked

if TYPE_CHECKING:
    from prefect import Flow as PrefectFlow

    from flows.authoring.parameters import Flow


def form_with(flow: PrefectFlow[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a flow's form with these parameters as defaults: of each variant that they choose, its fields.

    Raises:
        ParameterError: a name that doesn't exist, or a value that doesn't fit.
    """
    function = flow.fn
    signature = inspect.signature(function, eval_str=True)
    if parameters:
        values = checked(_ours(flow), filled_in(signature, parameters))
        changed = [
            each.replace(default=values[name]) if name in values else each
            for name, each in signature.parameters.items()
        ]
        signature = signature.replace(parameters=changed)
    with signed(function, signature):
        form = signature_for_form(function, folded=False)
    with signed(function, form):
        return parameter_schema(function).model_dump()


def _ours(flow: Any) -> Flow[..., Any]:
    return flow


def parameter_entries(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters in a flow's schema, one by one.

    Returns:
        Of each its `name`, dotted; its `type`; where it has them its `default`, `description` and `choices`; and
        `required` where a variant that was chosen needs one. A field that takes one of several models is followed by
        those of the one it has.
    """
    definitions: Mapping[str, Any] = schema.get("definitions") or {}
    entries: list[dict[str, Any]] = []

    def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = node.get("$ref")
        return {**definitions[reference.rpartition("/")[2]], **node} if reference else node

    def describe(path: str, node: Mapping[str, Any]) -> None:
        node = resolved(node)
        tabs = [resolved({"$ref": each["$ref"]}) for each in node.get("anyOf", []) if "$ref" in each]
        properties = (tabs[0] if tabs else node).get("properties")
        if tabs and len(tabs) > 1:
            entries.append({"name": path, "type": "variant", "choices": [str(tab.get("title")) for tab in tabs]})
        if properties:
            for name, each in sorted(properties.items(), key=lambda item: item[1].get("position", 0)):
                describe(f"{path}.{name}", each)
            return
        kind = node.get("type") or "/".join(str(each.get("type")) for each in node.get("anyOf", []))
        known = {"default": "default", "description": "description", "enum": "choices"}
        entry = {"name": path, "type": kind or "any", **{word: node[key] for key, word in known.items() if key in node}}
        if entry.get("default") == REQUIRED:
            del entry["default"]
            entry["required"] = True
        entries.append(entry)

    for name, node in schema["properties"].items():
        describe(name, node)
    return entries


def parameter_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters as a person reads them, a line each."""
    return [_line(each) for each in entries]


def _line(entry: Mapping[str, Any]) -> str:
    choices = ", ".join(map(str, entry.get("choices", [])))
    if entry["type"] == "variant":
        return f"  {entry['name']}: one of {choices}"
    default = f" = {json.dumps(entry['default'], ensure_ascii=False)}" if "default" in entry else ""
    text = " ".join(filter(None, [entry.get("description"), f"(one of {choices})" if choices else ""]))
    required = ", required" if entry.get("required") else ""
    return f"  {entry['name']}: {entry['type']}{required}{default}  {text}".rstrip()
