"""Answers held to a schema: which of its objects take no further properties."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llms.providers.grammars import closed

RADIUS: dict[str, Any] = {"properties": {"radius": {"type": "number"}}, "required": ["radius"]}
SIDE: dict[str, Any] = {"properties": {"side": {"type": "number"}}, "required": ["side"]}
KIND: dict[str, Any] = {
    "type": "object",
    "properties": {"kind": {"enum": ["circle", "square"]}},
    "required": ["kind"],
}
DEFINED = {"$defs": {"Round": RADIUS, "Any": {"oneOf": [{"$ref": "#/$defs/Round"}, SIDE]}}}
OPEN = {
    "anyOf": {**KIND, "anyOf": [RADIUS, SIDE]},
    "oneOf": {**KIND, "oneOf": [RADIUS, SIDE]},
    "one in another": {**KIND, "anyOf": [{"oneOf": [RADIUS, SIDE]}]},
    "allOf": {"allOf": [KIND, RADIUS]},
    "allOf of definitions": {"allOf": [KIND, {"$ref": "#/$defs/Round"}], **DEFINED},
    "$ref": {**KIND, "$ref": "#/$defs/Round", **DEFINED},
    "$ref in an alternative": {**KIND, "anyOf": [{"$ref": "#/$defs/Round"}, SIDE], **DEFINED},
    "$ref to alternatives": {**KIND, "$ref": "#/$defs/Any", **DEFINED},
    "if": {**KIND, "if": {"properties": {"kind": {"const": "circle"}}}, "then": RADIUS, "else": SIDE},
    "dependentSchemas": {**KIND, "dependentSchemas": {"kind": RADIUS}},
}


def fits(schema: Any, answer: Any) -> bool:
    return Draft202012Validator(schema).is_valid(answer)


@pytest.mark.parametrize("schema", OPEN.values(), ids=OPEN)
def test_what_several_schemas_say_of_one_object_can_be_answered(schema: Any) -> None:
    answer = {"kind": "circle", "radius": 2}

    assert fits(schema, answer)
    assert fits(closed(schema), answer)
    assert not fits(closed(schema), {"kind": "circle"})


CLOSED = {
    "an object": KIND,
    "alternatives": {"anyOf": [KIND, RADIUS]},
    "a list": {"type": "array", "items": KIND},
    "a definition": {"$ref": "#/$defs/Kind", "$defs": {"Kind": KIND}},
    "an object in an open one": {**KIND, "anyOf": [RADIUS, SIDE], "properties": {"of": RADIUS, "kind": True}},
}
FURTHER = [
    ({"kind": "circle"}, {"kind": "circle", "more": 1}),
    ({"radius": 1}, {"radius": 1, "more": 1}),
    ([{"kind": "circle"}], [{"kind": "circle", "more": 1}]),
    ({"kind": "circle"}, {"kind": "circle", "more": 1}),
    ({"kind": 1, "side": 1, "of": {"radius": 1}}, {"kind": 1, "side": 1, "of": {"radius": 1, "more": 1}}),
]


@pytest.mark.parametrize(("schema", "answers"), list(zip(CLOSED.values(), FURTHER, strict=True)), ids=CLOSED)
def test_an_object_that_one_schema_tells_of_has_no_further_properties(schema: Any, answers: Any) -> None:
    answer, further = answers

    assert fits(schema, further) and fits(closed(schema), answer)
    assert not fits(closed(schema), further)
