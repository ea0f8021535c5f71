"""Annotation of Argilla's records: every type of question, and the replies that models really send."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import ArgillaLabeller, UnreadableAnswerError
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM


def question(kind: str, *values: Any, **more: Any) -> dict[str, Any]:
    """As Argilla's API gives it."""
    options = [{"value": value, "text": str(value).title(), "description": None} for value in values]
    settings = {"type": kind, "visible_options": 3, **({"options": options} if values else {})}
    about = {"id": "0b1c", "name": "mood", "title": "Which mood is it?", "description": "Of the writer."}
    return {**about, "required": True, "settings": settings, "inserted_at": "2025-01-01", **more}


TEXT = question("text")
LABEL = question("label_selection", "positive", "negative", "very mixed")
LABELS = question("multi_label_selection", "positive", "negative", "very mixed")
RATING = question("rating", 1, 2, 3, 4, 5)

RECORD = {
    "id": "7",
    "fields": {"review": "I'd buy it again.", "product": "A kettle."},
    "metadata": {},
    "responses": [],
    "suggestions": [],
    "status": "pending",
}
ROW = {"record": RECORD}


def made(question: dict[str, Any] | None, **options: Any) -> ArgillaLabeller:
    return ArgillaLabeller(llm=OneReplyLLM(reply=""), question=question, **options)


def value(question: dict[str, Any], reply: str) -> Any:
    return made(question).format_output(reply, ROW)["suggestion"]["value"]


GOOD_ANSWERS = [
    (LABEL, "Label: positive", "positive"),
    (LABEL, "**Label:** Positive.", "positive"),
    (LABEL, "positive", "positive"),
    (LABEL, '{"label": "positive"}', "positive"),
    (LABEL, '```json\n{"label": "Very_Mixed"}\n```', "very mixed"),
    (LABEL, "<think>Label: negative?</think>Label: positive", "positive"),
    (LABELS, "Labels: positive, very mixed", ["positive", "very mixed"]),
    (LABELS, "Labels: positive", ["positive"]),
    (LABELS, "- positive\n- very mixed", ["positive", "very mixed"]),
    (LABELS, '{"labels": ["very mixed", "positive"]}', ["very mixed", "positive"]),
    (LABELS, '{"labels": []}', []),
    (LABELS, "Labels: none", []),
    (RATING, "Rating: 4", 4),
    (RATING, "**Rating:** 4/5 (good)", 4),
    (RATING, "4", 4),
    (RATING, 'Sure: {"rating": 4}', 4),
    (RATING, "{'rating': '4'}", 4),
    (TEXT, "Pleased.", "Pleased."),
    (TEXT, "<think>Hm.</think>\nPleased.", "Pleased."),
    (TEXT, '{"text": "Pleased."}', "Pleased."),
]


@pytest.mark.parametrize(("question", "reply", "expected"), GOOD_ANSWERS)
def test_an_answer_is_read_however_it_is_dressed(question: dict[str, Any], reply: str, expected: Any) -> None:
    assert value(question, reply) == expected


BROKEN_ANSWERS = [
    (LABEL, "", "found none"),
    (LABEL, "I'd rather not.", "found none"),
    (LABEL, "Label: happy", "expected one of ['positive'"),
    (LABEL, '{"label": "happy"}', "expected one of ['positive'"),
    (LABEL, "Label: positive\nLabel: negative", "expected one label"),
    (LABELS, "", "found none"),
    (LABELS, "Labels: positive, happy", "expected one of"),
    (LABELS, '{"labels": ["positive", "positive"]}', "at most once"),
    (LABELS, '{"labels": ["positive", null]}', "expected one of"),
    (LABELS, '{"labels": ["posit', "found none"),
    (RATING, "", "expected a whole number from 1 to 5"),
    (RATING, "Rating: 6", "expected 1 to 5"),
    (RATING, "Rating: 3.5", "got '3.5'"),
    (RATING, "Rating: 3\nRating: 4", "expected one rating"),
    (RATING, '{"score": 4}', "lacks ['rating']"),
    (question("rating", 0, 5, 10), "Rating: 7", "expected one of [0, 5, 10]"),
    (TEXT, "", "expected a text"),
    (TEXT, '{"text": null}', "expected a text"),
]


@pytest.mark.parametrize(("question", "reply", "problem"), BROKEN_ANSWERS)
def test_an_answer_that_isnt_certain_is_refused_with_the_reason(
    question: dict[str, Any], reply: str, problem: str
) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        value(question, reply)
    assert problem in str(raised.value)


def test_a_text_asked_for_as_json_and_cut_off_is_refused() -> None:
    task = ArgillaLabeller(llm=StructuredOneReplyLLM(reply=""), question=TEXT)
    with pytest.raises(UnreadableAnswerError, match="as JSON"):
        task.format_output('{"text": "Plea', ROW)


@pytest.mark.parametrize("kind", ["span", "ranking", "image_annotation", None])
def test_a_question_of_another_type_is_refused_before_it_costs_anything(kind: Any) -> None:
    llm = OneReplyLLM(reply="")
    asked = question(kind, "positive")
    (row,) = next(ArgillaLabeller(llm=llm).process([{**ROW, "question": asked}]))
    message = row["distilabel_metadata"]["error_argilla_labeller"]["message"]
    assert "ArgillaLabeller answers questions of the types ['text', 'label_selection'" in message
    assert repr(kind) in message
    assert llm.asked == []
    with pytest.raises(ValidationError, match="ArgillaLabeller answers questions of the types"):
        made(asked)


@pytest.mark.parametrize("asked", [question("label_selection"), question("rating"), question("rating", "good")])
def test_a_question_without_options_to_choose_from_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="options"):
        made(asked)


def test_without_a_question_the_row_fails_with_the_way_out() -> None:
    (row,) = next(made(None).process([ROW]))
    assert "in the row or in the step" in row["distilabel_metadata"]["error_argilla_labeller"]["message"]


@pytest.mark.parametrize("record", [None, "text", {}, {"fields": None}, {"fields": {"review": None}}])
def test_a_record_without_fields_fails(record: Any) -> None:
    (row,) = next(made(TEXT).process([{"record": record}]))
    assert "record: expected one of" in row["distilabel_metadata"]["error_argilla_labeller"]["message"]


def test_the_suggestion_has_the_shape_of_argillas_api() -> None:
    assert made(LABEL).format_output("Label: positive", ROW)["suggestion"] == {
        "question_name": "mood",
        "question_id": "0b1c",
        "value": "positive",
        "type": "model",
        "agent": "one-reply",
    }


def test_the_prompt_holds_fields_question_options_and_guidelines() -> None:
    fields = [{"name": "review", "title": "Review", "description": "By a buyer.", "settings": {"type": "text"}}]
    prompt = made(LABEL, fields=fields, guidelines="Take your time.").format_input(ROW)[0]["content"]
    assert '<field name="Review" about="By a buyer.">\nI\'d buy it again.\n</field>' in prompt
    assert "A kettle." not in prompt
    assert "Which mood is it?\nOf the writer." in prompt
    assert "- very mixed (Very Mixed)" in prompt
    assert "Take your time." in prompt


def test_without_field_settings_all_fields_are_shown_and_a_chat_is_written_out() -> None:
    chat = [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "It is."}]
    row = {"record": {"fields": {"review": "Fine.", "talk": chat}}}
    prompt = made(TEXT).format_input(row)[0]["content"]
    assert '<field name="review">\nFine.\n</field>' in prompt
    assert "user: Is it good?\n\nassistant: It is." in prompt


def test_an_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="text or chat"):
        made(TEXT, fields=[{"name": "photo", "settings": {"type": "image"}}])


def test_columns_go_before_options() -> None:
    row = {**ROW, "question": RATING, "guidelines": "By the row."}
    task = made(LABEL, guidelines="By the step.")
    prompt = task.format_input(row)[0]["content"]
    assert "one of these ratings: 1, 2, 3, 4, 5" in prompt
    assert "By the row." in prompt
    assert "By the step." not in prompt
    assert task.format_output("Rating: 2", row)["suggestion"]["value"] == 2


@pytest.mark.parametrize(
    "responses",
    [
        [{"values": {"mood": {"value": "negative"}}, "status": "submitted", "user_id": "1"}],
        [{"values": None, "status": "discarded"}, {"values": {"mood": {"value": "negative"}}, "status": "submitted"}],
        {"mood": [{"value": "negative", "user_id": "1"}]},
    ],
)
def test_examples_are_records_with_a_submitted_response_as_the_api_or_the_sdk_gives_it(responses: Any) -> None:
    answered = {"fields": {"review": "Broken."}, "responses": responses}
    draft = {"fields": {"review": "No idea."}, "responses": [{"values": {}, "status": "draft"}]}
    plain = made(LABEL, example_records=[answered, draft]).format_input(ROW)[0]["content"]
    structured = ArgillaLabeller(llm=StructuredOneReplyLLM(reply=""), question=LABEL, example_records=[answered])
    assert "Broken.\n</field>\nLabel: negative\n</example>" in plain
    assert "No idea." not in plain
    assert '{"label": "negative"}\n</example>' in structured.prompt(ROW)[0][0]["content"]


@pytest.mark.parametrize("asked", [TEXT, LABEL, LABELS, RATING], ids=["text", "label", "labels", "rating"])
def test_the_schema_is_that_of_the_rows_question_and_fits_strict_mode(asked: dict[str, Any]) -> None:
    chat, schema = ArgillaLabeller(llm=StructuredOneReplyLLM(reply="")).prompt({**ROW, "question": asked})
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    assert f'the key "{schema["required"][0]}"' in chat[0]["content"]


def test_few_shot_rows_are_shown_in_the_form_that_is_asked_for() -> None:
    example = {**ROW, "suggestion": {"value": ["positive", "negative"]}}
    plain = made(LABELS, examples=[example]).prompt(ROW)
    chat, _ = ArgillaLabeller(llm=StructuredOneReplyLLM(reply=""), question=LABELS, examples=[example]).prompt(ROW)
    assert plain[1] == {"role": "assistant", "content": "Labels: positive, negative"}
    assert json.loads(chat[1]["content"]) == {"labels": ["positive", "negative"]}


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (LABEL, '{"label": "positive"}', "positive"),
        (LABELS, '{"labels": ["positive"]}', ["positive"]),
        (RATING, '{"rating": 4}', 4),
    ],
)
def test_it_keeps_to_the_contract(provider: LocalProvider, asked: dict[str, Any], answer: str, expected: Any) -> None:
    def labeller(**more: Any) -> ArgillaLabeller:
        return ArgillaLabeller(question=asked, **more)

    about = {"question_name": "mood", "question_id": "0b1c", "type": "model", "agent": "judge"}
    check_contract(provider, labeller, ROW, answer, {"suggestion": {**about, "value": expected}})
