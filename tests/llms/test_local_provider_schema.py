"""Instances made from JSON schemas fit them, whatever the schema; jsonschema is the judge."""

import re
from typing import Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llms.local_provider.patterns import UnsupportedPattern, matching_text
from llms.local_provider.schema import SchemaError, instance, strict_violation


def check(schema: object, digest: bytes = b"digest") -> object:
    made = instance(schema, digest, "What's the capital of Spain?")
    judge = jsonschema.Draft202012Validator
    judge(schema, format_checker=judge.FORMAT_CHECKER).validate(made)
    assert made == instance(schema, digest, "What's the capital of Spain?")
    return made


NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "left": {"$ref": "#/$defs/node"}, "more": {"$ref": "#/$defs/list"}},
    "required": ["value"],
    "additionalProperties": False,
}
TREE = {"$defs": {"node": NODE, "list": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "$ref": "#/$defs/node"}
ENDLESS_BUT_FOR_NULL = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["next"],
}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "null"},
        {"const": {"a": 1}},
        {"enum": ["x", None, 3]},
        {"type": ["string", "null"], "maxLength": 3},
        {"type": "string", "minLength": 300, "maxLength": 310},
        {"type": "string", "pattern": "^[A-Z]{3}-\\d{2,4}(foo|bar)?$"},
        {"type": "string", "pattern": "^\\S+$", "minLength": 12, "maxLength": 15},
        {"type": "string", "pattern": "[aeiou]", "minLength": 5},
        *(
            {"type": "string", "format": shape}
            for shape in ("date", "date-time", "email", "uri", "uuid", "ipv4", "time")
        ),
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "integer", "maximum": -7, "multipleOf": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "multipleOf": 0.01, "minimum": 1, "maximum": 2},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
        {"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 50}},
        {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 4},
        {"type": "object", "patternProperties": {"^x_[a-z]+$": {"type": "integer"}}, "additionalProperties": False},
        {"type": "object", "propertyNames": {"pattern": "^[a-c]{3}$"}, "minProperties": 2},
        {"type": "object", "required": ["unlisted"]},
        {"allOf": [{"type": "number", "minimum": 3}, {"type": "integer", "maximum": 4}]},
        {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}]},
        {"oneOf": [{"enum": ["a"]}, {"enum": ["b"]}], "type": "string"},
        {"type": "object", "properties": {"a": True}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        TREE,
        ENDLESS_BUT_FOR_NULL,
    ],
    ids=str,
)
def test_an_instance_fits_its_schema(schema: object) -> None:
    for number in range(10):
        check(schema, bytes([number]))


def test_a_text_that_is_to_be_an_object_is_one() -> None:
    assert instance({"type": "string", "description": "A JSON object: the arguments."}, b"1") == "{}"


class Paragraph(BaseModel):
    kind: Literal["paragraph"]
    text: str = Field(min_length=3, max_length=50)
    children: "list[Paragraph | Figure]"


class Figure(BaseModel):
    kind: Literal["figure"]
    score: float = Field(gt=0, le=1)
    caption: str | None
    labels: dict[str, int]
    pair: tuple[int, str]


def test_pydantic_reads_what_was_made_from_its_own_schema() -> None:
    for number in range(20):
        Paragraph.model_validate(check(Paragraph.model_json_schema(), bytes([number])), strict=False)


def schemas() -> st.SearchStrategy[dict]:
    bounds = st.tuples(st.integers(-50, 50), st.integers(0, 30)).map(lambda pair: (pair[0], sum(pair)))
    numbers = st.builds(
        lambda kind, pair: {"type": kind, "minimum": pair[0], "maximum": pair[1]},
        st.sampled_from(["integer", "number"]),
        bounds.filter(lambda pair: pair[0] < pair[1]),
    )
    strings = st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 40),
        st.integers(0, 100),
    )
    leaves = st.one_of(
        numbers,
        strings,
        st.just({"type": "boolean"}),
        st.lists(st.integers() | st.text(), min_size=1).map(lambda e: {"enum": e}),
    )
    return st.recursive(leaves, _nested, max_leaves=8)


def _nested(children: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
    names = st.sampled_from(["a", "b", "c", "d"])
    objects = st.builds(
        lambda properties, required, closed: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            "additionalProperties": not closed,
        },
        st.dictionaries(names, children, max_size=4),
        st.sets(names),
        st.booleans(),
    )
    arrays = st.builds(
        lambda items, least, more: {"type": "array", "items": items, "minItems": least, "maxItems": least + more},
        children,
        st.integers(0, 4),
        st.integers(0, 3),
    )
    return st.one_of(objects, arrays, st.lists(children, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}))


@settings(max_examples=120, deadline=None)
@given(schemas(), st.binary(min_size=1, max_size=8))
def test_any_common_schema_gets_a_fitting_instance(schema: dict, digest: bytes) -> None:
    check(schema, digest)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [
            "a|bc|",
            "(ab)+c?",
            "[^a-z]{2}",
            r"\d{4}-\d\d",
            r"^\w+@\w+\.com$",
            "x{2,}",
            "(?:a|(?P<n>b))*",
            "[]a]",
            "[a-]",
            r"\u0041\.",
            ".{3}",
        ]
    ),
    st.integers(0, 1 << 30),
)
def test_a_text_matches_the_pattern_it_was_made_from(pattern: str, number: int) -> None:
    assert re.search(pattern, matching_text(pattern, lambda size: (number * 7919) % size))


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(a", "a)", "+a"])
def test_what_a_pattern_cannot_is_said(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        matching_text(pattern, lambda _: 0)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "no instance"),
        ({"$ref": "#/$defs/none"}, "points to nothing"),
        ({"$ref": "http://example.com/x"}, "outside"),
        ({"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}, "recursion"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no multiple"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "can't both hold"),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True}, "differ"),
    ],
    ids=str,
)
def test_a_schema_without_an_instance_is_refused_with_the_reason(schema: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        instance(schema, b"x")


def test_strict_mode_wants_closed_objects_with_everything_required() -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert strict_violation(closed) is None
    assert "'required'" in (strict_violation({**closed, "required": []}) or "")
    nested = {**closed, "properties": {"a": {"type": "object"}}}
    assert "('properties', 'a')" in (strict_violation(nested) or "")
