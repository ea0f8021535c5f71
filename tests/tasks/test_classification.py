"""Text classification: labels given or free, one or several, and the replies that models really send."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import Label, TextClassification, UnreadableAnswerError
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"text": "The parcel came late, and it was the wrong one."}
CHOICES = ["complaint", "inquiry", "very good"]


def made(**options: Any) -> TextClassification:
    return TextClassification(llm=OneReplyLLM(reply="Label: complaint"), **options)


ONE_LABEL = {
    "the form that was asked for": "Label: complaint",
    "another case and a full stop": "label: Complaint.",
    "bold": "**Label:** complaint",
    "bold all over": "**Label: complaint**",
    "a sentence": "The label is complaint.",
    "another word": "Category: complaint",
    "the label alone": "complaint",
    "the label alone, in quotes": '"complaint"',
    "a bullet": "- complaint",
    "a preface": "Here is my answer:\n\nLabel: complaint",
    "a reason below": "complaint\n\nThe text says that something went wrong.",
    "thoughts": "<think>Label: inquiry?</think>Label: complaint",
    "a fence": "```\nLabel: complaint\n```",
    "JSON": '{"label": "complaint"}',
    "JSON as distilabel asks for it": '{"labels": "complaint"}',
    "JSON with a list": '```json\n{"labels": ["complaint"]}\n```',
    "JSON after a preface": 'Sure: {"label": "Complaint"} Anything else?',
    "a Python dict": "{'label': 'complaint'}",
}


@pytest.mark.parametrize("reply", ONE_LABEL.values(), ids=ONE_LABEL.keys())
def test_a_label_is_read_however_it_is_dressed(reply: str) -> None:
    assert made(available_labels=CHOICES).format_output(reply, ROW) == {"labels": "complaint"}


@pytest.mark.parametrize(
    "reply",
    [
        "Label: complaint (they are angry)",
        "Label: complaint, inquiry",
        '{"label": "a complaint"}',
        "The label is best described as complaint.",
        "Label: not a complaint",
    ],
)
def test_a_label_with_more_around_it_isnt_the_default_label(reply: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="expected one of"):
        made(available_labels=CHOICES, default_label="other").format_output(reply, ROW)


@pytest.mark.parametrize("reply", ["The category is not clear.", "Labels are hard to choose here."])
def test_a_sentence_isnt_a_label_of_the_models_own(reply: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="found none"):
        made().format_output(reply, ROW)


NO_LABEL = {
    "nothing": ("", "found none"),
    "a refusal": ("I'd rather not.", "found none"),
    "a label that isn't among them": ("Label: praise", "expected one of ['complaint'"),
    "the same in JSON": ('{"label": "praise"}', "expected one of ['complaint'"),
    "a label that begins like one": ("Label: complaints", "expected one of"),
    "two labels": ("Label: complaint\nLabel: inquiry", "expected 1 label, got 2"),
    "two labels on a line": ("Label: complaint, inquiry", "expected one of"),
    "two labels in JSON": ('{"labels": ["complaint", "inquiry"]}', "expected 1 label, got 2"),
    "an empty list": ('{"labels": []}', "found none"),
    "null": ('{"label": null}', "found none"),
    "a number": ('{"label": 1}', "expected one of"),
    "a word in a sentence": ("It may be a complaint or an inquiry.", "found none"),
    "JSON with a line in its text that is like a label": (
        '{"why": "x\nLabel: inquiry\ny", "label": "complaint"}',
        "found none",
    ),
    "JSON that is cut off": ('{"label": "compl', "found none"),
    "another key": ('{"answer": "complaint"}', "found none"),
}


@pytest.mark.parametrize(("reply", "problem"), NO_LABEL.values(), ids=NO_LABEL.keys())
def test_a_label_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        made(available_labels=CHOICES).format_output(reply, ROW)
    assert problem in str(raised.value)


SEVERAL_LABELS = {
    "the form that was asked for": "Label 1: very good\nLabel 2: inquiry",
    "another order": "Label 2: inquiry\nLabel 1: very good",
    "one line": "Labels: very good, inquiry",
    "a list": "Labels:\n1. very good\n2. inquiry",
    "bullets without a preface": "- Very_good\n- **inquiry**",
    "lines": "very good\ninquiry",
    "a bare line": "very good; inquiry",
    "JSON": '{"label_2": "inquiry", "label_1": "very good"}',
    "JSON with a list": '{"labels": ["very good", "inquiry"]}',
    "a JSON list": '["very good", "inquiry"]',
}


@pytest.mark.parametrize("reply", SEVERAL_LABELS.values(), ids=SEVERAL_LABELS.keys())
def test_several_labels_are_read_in_their_order(reply: str) -> None:
    assert made(available_labels=CHOICES, n=2).format_output(reply, ROW) == {"labels": ["very good", "inquiry"]}


@pytest.mark.parametrize(
    "reply",
    [
        "Labels: inquiry",
        "Labels: inquiry, complaint, very good",
        "Label 1: inquiry\nLabel 2: Inquiry",
        "Label 1: inquiry\nLabel 1: complaint",
        '{"labels": ["inquiry"]}',
        '{"label_1": "inquiry", "label_2": "praise"}',
        "inquiry",
    ],
)
def test_more_or_fewer_labels_than_n_or_one_twice_are_refused(reply: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        made(available_labels=CHOICES, n=2).format_output(reply, ROW)


def test_free_labels_are_taken_as_they_are_said_but_not_out_of_a_sentence() -> None:
    assert made().format_output("**Label:** Late delivery", ROW) == {"labels": "Late delivery"}
    assert made(n=2).format_output("1. Late delivery\n2. Parcels", ROW) == {"labels": ["Late delivery", "Parcels"]}
    with pytest.raises(UnreadableAnswerError, match="found none"):
        made().format_output("I can't label this [1].", ROW)


def test_with_a_default_label_what_fits_none_is_that_label() -> None:
    task = made(available_labels=CHOICES, default_label="other")
    assert task.format_output("Label: Other", ROW) == {"labels": "other"}
    assert task.format_output('{"label": "praise"}', ROW) == {"labels": "other"}
    assert task.format_output("Label: inquiry", ROW) == {"labels": "inquiry"}
    with pytest.raises(UnreadableAnswerError, match="found none"):
        task.format_output("I can't label this.", ROW)


def test_the_default_label_fills_up_several_labels() -> None:
    task = made(available_labels=CHOICES, default_label="other", n=3)
    assert task.format_output("Labels: inquiry, other, other", ROW) == {"labels": ["inquiry", "other", "other"]}


def test_labels_are_given_as_texts_as_descriptions_or_as_models() -> None:
    described = made(available_labels={"complaint": "It went wrong.", "inquiry": ""})
    models = [Label(name="complaint", description="It went wrong."), Label(name="inquiry")]
    assert described.available_labels == models == made(available_labels=models).available_labels
    assert "- complaint: It went wrong.\n- inquiry\n" in described.format_input(ROW)[0]["content"]
    assert made(available_labels=None).available_labels == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"available_labels": ["Spam", "spam"]}, "differ in more than case"),
        ({"available_labels": ["a", "b"], "n": 3}, "3 labels can't be chosen from 2"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"available_labels": [""]}, "at least 1 character"),
        ({"examples": ["complaint"]}, "examples"),
    ],
)
def test_settings_that_cant_work_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        made(**options)


def test_the_prompt_names_the_text_its_labels_and_the_default() -> None:
    task = made(available_labels=CHOICES, default_label="other", query_title="review", context="Of a shop.")
    prompt = task.format_input(ROW)[0]["content"]
    assert "Classify the review below" in prompt
    assert "Of a shop." in prompt
    assert 'Where no label fits, give "other".' in prompt
    assert "<text>\nThe parcel came late, and it was the wrong one.\n</text>" in prompt


@pytest.mark.parametrize("labels", [{}, {"available_labels": CHOICES}])
@pytest.mark.parametrize("number", [{}, {"n": 2}])
def test_structured_output_is_the_default_and_holds_exactly_n_labels(
    number: dict[str, Any], labels: dict[str, Any]
) -> None:
    options = {**number, **labels}
    task = TextClassification(llm=StructuredOneReplyLLM(reply=""), **options)
    chat, schema = task.prompt(ROW)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    assert len(schema["required"]) == options.get("n", 1)
    assert all(f'"{key}"' in chat[0]["content"] for key in schema["required"])
    assert next(iter(schema["properties"].values())).get("enum") == options.get("available_labels")


def test_few_shot_examples_are_rows_shown_in_the_form_that_is_asked_for() -> None:
    example = {"text": "Where is it?", "labels": ["inquiry", "complaint"]}
    plain, structured = OneReplyLLM(reply=""), StructuredOneReplyLLM(reply="")
    for llm in (plain, structured):
        next(TextClassification(llm=llm, n=2, available_labels=CHOICES, examples=[example]).process([ROW]))
    assert plain.asked[0][1] == {"role": "assistant", "content": "Label 1: inquiry\nLabel 2: complaint"}
    assert json.loads(structured.asked[0][1]["content"]) == {"label_1": "inquiry", "label_2": "complaint"}


def test_an_example_with_another_number_of_labels_says_so() -> None:
    task = made(n=2, examples=[{"text": "Where is it?", "labels": "inquiry"}])
    (row,) = next(task.process([ROW]))
    assert "each needs 2 labels" in row["distilabel_metadata"]["error_text_classification"]["message"]


@pytest.mark.parametrize(("n", "labels"), [(1, "complaint"), (2, ["complaint", "inquiry"])])
def test_it_keeps_to_the_contract(provider: LocalProvider, n: int, labels: Any) -> None:
    def classification(**more: Any) -> TextClassification:
        return TextClassification(n=n, available_labels=CHOICES, **more)

    keys = ["label"] if n == 1 else ["label_1", "label_2"]
    answer = json.dumps(dict(zip(keys, ["complaint", "inquiry"], strict=False)))
    check_contract(provider, classification, ROW, answer, {"labels": labels})
