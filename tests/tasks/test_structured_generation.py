"""JSON that fits the row's own schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.base import UnreadableAnswerError
from tasks.writing.structured_generation import StructuredGeneration, json_in
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

HEIGHT = {"type": "object", "properties": {"metres": {"type": "integer"}}, "required": ["metres"]}
ROW = {"instruction": "How high is K2?", "structured_output": {"format": "json", "schema": HEIGHT}}


REPLY = '{"metres": 8611}'


class Height(BaseModel):
    metres: int


@pytest.mark.parametrize(
    "given",
    [
        {"format": "json", "schema": HEIGHT},
        HEIGHT,
        json.dumps(HEIGHT),
        json.dumps({"format": "json", "schema": HEIGHT}),
        {"format": "json", "schema": json.dumps(HEIGHT)},
        {"schema": Height},
    ],
    ids=["distilabel's dict", "a schema", "JSON text", "the dict as JSON text", "a dict with JSON text", "a class"],
)
def test_a_schema_can_be_given_in_any_of_its_forms(given: Any) -> None:
    llm = StructuredOneReplyLLM(reply=REPLY)
    (row,) = next(StructuredGeneration(llm=llm).process([{**ROW, "structured_output": given}]))
    assert row["generation"] == '{"metres": 8611}'
    assert llm.schemas[0]["properties"]["metres"]["type"] == "integer"


def test_rows_with_different_schemas_are_each_asked_with_their_own() -> None:
    other = {"type": "array", "items": {"type": "string"}}
    llm = StructuredOneReplyLLM(reply=REPLY)
    rows = [ROW, {**ROW, "structured_output": other}]
    first, second = next(StructuredGeneration(llm=llm).process(rows))
    assert llm.schemas == [HEIGHT, other]
    assert first["generation"] is not None
    assert "fit the schema" in second["distilabel_metadata"]["error_structured_generation"]["message"]


def test_an_llm_that_takes_no_schemas_is_told_the_schema_in_words() -> None:
    llm = OneReplyLLM(reply=REPLY)
    (row,) = next(StructuredGeneration(llm=llm).process([ROW]))
    assert row["generation"] == '{"metres": 8611}'
    prompt = llm.asked[0][0]["content"]
    assert prompt.startswith("How high is K2?")
    assert '"metres"' in prompt


def test_so_is_one_that_takes_them_where_structured_output_is_turned_off() -> None:
    llm = StructuredOneReplyLLM(reply=REPLY)
    next(StructuredGeneration(llm=llm, use_default_structured_output=False).process([ROW]))
    assert llm.schemas == [None]
    assert '"metres"' in llm.asked[0][0]["content"]


@pytest.mark.parametrize("use", [True, False])
def test_the_rows_system_prompt_is_used_unless_told_otherwise(use: bool) -> None:
    llm = StructuredOneReplyLLM(reply=REPLY)
    task = StructuredGeneration(llm=llm, use_system_prompt=use, system_prompt="Mine.")
    next(task.process([{**ROW, "system_prompt": "The row's."}]))
    assert llm.asked[0][0] == {"role": "system", "content": "The row's." if use else "Mine."}


@pytest.mark.parametrize(
    "reply",
    [
        '{"metres": 8611}',
        '```json\n{"metres": 8611}\n```',
        'Here it is:\n\n{"metres": 8611}\n\nAnything else?',
        '<think>{"metres": 1}?</think>{"metres": 8611}',
    ],
)
def test_json_is_found_in_what_models_put_around_it(reply: str) -> None:
    assert json_in(reply) == ('{"metres": 8611}', {"metres": 8611})


def test_a_value_that_is_no_object_is_json_too() -> None:
    assert json_in(' "high" ') == ('"high"', "high")
    assert json_in("<think>High.</think>\n8611") == ("8611", 8611)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("", "found none"),
        ("About 8,611 metres.", "found none"),
        ('{"metres": 8611', "found none"),
        ('{"a": {"metres": 8611}, "b": ', "found none"),
        ('{"metres": 1} or {"metres": 2}', "found 2 of them"),
        ('{"metres": NaN}', "has no NaN"),
    ],
)
def test_what_isnt_one_json_value_is_refused(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=problem):
        json_in(reply)


@pytest.mark.parametrize(
    ("reply", "problem"),
    [('{"metres": "high"}', r"\$\.metres: 'high' is not of type 'integer'"), ("{}", "'metres' is a required property")],
)
def test_json_that_doesnt_fit_is_refused_with_the_place(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=problem):
        StructuredGeneration(llm=OneReplyLLM(reply=REPLY)).format_output(reply, ROW)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"type": "objekt"}, "not a JSON schema"),
        ({"format": "regex", "schema": "a+"}, "structured_output"),
        ("{", "expected a JSON schema"),
        (None, "expected a pydantic class or a JSON schema"),
    ],
)
def test_a_wrong_schema_fails_its_row_before_anything_is_asked(given: Any, problem: str) -> None:
    llm = StructuredOneReplyLLM(reply=REPLY)
    (row,) = next(StructuredGeneration(llm=llm).process([{**ROW, "structured_output": given}]))
    assert problem in row["distilabel_metadata"]["error_structured_generation"]["message"]
    assert llm.asked == []


def test_a_schema_that_points_elsewhere_isnt_followed() -> None:
    given = {"type": "object", "properties": {"metres": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    (row,) = next(
        StructuredGeneration(llm=StructuredOneReplyLLM(reply=REPLY)).process([{**ROW, "structured_output": given}])
    )
    assert "Unresolvable" in str(row["distilabel_metadata"]["error_structured_generation"])


def test_keys_that_a_table_filled_with_none_are_no_part_of_the_schema() -> None:
    mixed = {**HEIGHT, "items": None, "properties": {**HEIGHT["properties"], "name": None}}
    llm = StructuredOneReplyLLM(reply=REPLY)
    next(StructuredGeneration(llm=llm).process([{**ROW, "structured_output": mixed}]))
    assert llm.schemas == [HEIGHT]
