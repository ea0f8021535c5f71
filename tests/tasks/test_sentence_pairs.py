"""Sentence pairs: the prompts of each action, and the pairs that models really send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import GenerateSentencePair, UnreadableAnswerError
from tasks.retrieval.sentence_pairs import HARD_NEGATIVES, NEGATIVE, POSITIVES, Action
from tasks.steps import METADATA
from tests.tasks.contract import check_contract
from tests.tasks.dangerous import dangerous_values
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"anchor": "K2 rises to 8,611 m."}
PAIR = {"positive": "How high is K2?", "negative": "When does the zoo open?"}
ACTIONS: tuple[Action, ...] = get_args(Action)
AS_ASKED = "Positive: How high is K2?\nNegative: When does the zoo open?"


def task_of(llm: Any = None, **options: Any) -> GenerateSentencePair:
    return GenerateSentencePair(llm=llm or OneReplyLLM(reply=AS_ASKED), **options)


def prompt_of(**options: Any) -> str:
    return task_of(**options).format_input(ROW)[0]["content"]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("triplet", [False, True])
def test_it_keeps_to_the_contract(provider: LocalProvider, action: Action, triplet: bool) -> None:
    columns = PAIR if triplet else {"positive": PAIR["positive"]}

    def make(**more: Any) -> GenerateSentencePair:
        return GenerateSentencePair(action=action, triplet=triplet, **more)

    check_contract(provider, make, ROW, json.dumps(columns), columns)


GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "a preface": f"Here are the two texts:\n\n{AS_ASKED}",
    "bold labels": "**Positive:** How high is K2?\n\n**Negative:** When does the zoo open?",
    "colons outside the bold": "**Positive**: How high is K2?\n**Negative**: When does the zoo open?",
    "headings, as distilabel asks for": "## Positive\n\nHow high is K2?\n\n## Negative\n\nWhen does the zoo open?\n",
    "labels with a noun, and a rule between": (
        "Positive sentence: How high is K2?\n---\nHard negative sentence: When does the zoo open?"
    ),
    "quotation marks": 'Positive: "How high is K2?"\nNegative: "When does the zoo open?"',
    "numbered, in bold": "1. **Positive**: How high is K2?\n2. **Negative**: When does the zoo open?",
    "numbered": "1. Positive: How high is K2?\n2. Negative: When does the zoo open?",
    "the negative first": "Negative: When does the zoo open?\nPositive: How high is K2?",
    "a fence around each": "Positive:\n```\nHow high is K2?\n```\nNegative:\n```text\nWhen does the zoo open?\n```",
    "a fence": f"```text\n{AS_ASKED}\n```",
    "after thoughts": f"<think>\nPositive: K2?\n</think>\n{AS_ASKED}",
    "small letters and Windows line ends": "positive: How high is K2?\r\nnegative: When does the zoo open?\r\n",
    "JSON": json.dumps(PAIR),
    "JSON in a fence, with a preface": f"Sure:\n```json\n{json.dumps(PAIR, indent=2)}\n```",
    "a Python dict": str(PAIR),
    "JSON with capitals, in another order": json.dumps({name.title(): PAIR[name] for name in ("negative", "positive")}),
    "JSON with null and true": json.dumps({**PAIR, "remark": None, "hard": True}),
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_pair_is_read_however_it_is_dressed(reply: str) -> None:
    assert task_of(triplet=True).format_output(reply, ROW) == PAIR
    assert task_of().format_output(reply, ROW) == {"positive": PAIR["positive"]}


BROKEN_ANSWERS = {
    "nothing": ("", "found none"),
    "a text without a label": ("How high is K2?", "found none"),
    "no negative": ("Positive: How high is K2?", "expected one negative text, it is there 0 times"),
    "no positive": ("Negative: When does the zoo open?", "expected one positive text, it is there 0 times"),
    "two positives": (f"{AS_ASKED}\nPositive: Another.", "expected one positive text, it is there 2 times"),
    "an empty negative": ("Positive: How high is K2?\nNegative:", "expected one negative text, it is empty"),
    "an empty bold positive": ("**Positive:**\n**Negative:** Rain.", "expected one positive text, it is empty"),
    "cut off": ('{"positive": "How high is K2?", "neg', "found none"),
    "JSON with lines in its text that are like labels": (
        '{"positive": "a\nPositive: b\nNegative: c", "negative": "d"}',
        "found none",
    ),
    "cut off in its code": ("Negative: Rain.\nPositive: So:\n```\nprint(8", "a code fence isn't closed"),
    "JSON without a negative": ('{"positive": "How high is K2?"}', "'negative' is not there"),
    "JSON with null": ('{"positive": "How high is K2?", "negative": null}', "negative: expected a text, got None"),
    "two pairs in JSON": (f"{json.dumps(PAIR)}\n{json.dumps(PAIR)}", "found 2"),
    "the same twice": ("Positive: K2's height\nNegative: K2's  height", "positive and negative are the same"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_pair_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        task_of(triplet=True).format_output(reply, ROW)
    assert problem in str(raised.value)


def test_quotation_marks_inside_a_text_stay() -> None:
    columns = task_of().format_output('Positive: "K2" or "the Savage Mountain"', ROW)
    assert columns == {"positive": '"K2" or "the Savage Mountain"'}


def test_a_text_keeps_its_paragraphs_and_its_mentions_of_the_labels() -> None:
    positive = "Positive reviews came first.\n\nNegative ones (few): they came later.\n\n- *K2* is high."
    columns = task_of(triplet=True).format_output(f"Positive: {positive}\n\nNegative: Rain.", ROW)
    assert columns == {"positive": positive, "negative": "Rain."}


@pytest.mark.parametrize(
    "positive",
    [
        "So:\n\n```python\nprint(8611)\n```",
        "```python\nprint(8611)\n```",
        "So:\n```\n8611\n```\n\nOr:\n```\n8612\n```",
        "<p>\n8,611 m\n</p>",
    ],
)
@pytest.mark.parametrize("reply", ["Positive: {}\nNegative: Rain.", "```\nPositive: {}\nNegative: Rain.\n```"])
def test_the_code_in_a_text_stays_whole(reply: str, positive: str) -> None:
    columns = task_of(triplet=True).format_output(reply.format(positive), ROW)
    assert columns == {"positive": positive, "negative": "Rain."}


@pytest.mark.parametrize("output", [None, "", "Sorry."])
@pytest.mark.parametrize("triplet", [False, True])
def test_without_a_readable_answer_a_row_has_the_columns_that_were_asked_for_and_no_other(
    output: str | None, triplet: bool
) -> None:
    task = task_of(OneReplyLLM(reply=output or ""), triplet=triplet)
    with pytest.raises(UnreadableAnswerError):
        task.format_output(output, ROW)
    (row,) = next(task.process([ROW]))
    assert set(row) == {"anchor", *task.outputs, METADATA}
    assert ("negative" in row) is triplet
    assert row["positive"] is None


def test_nothing_that_a_model_writes_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    task = task_of(triplet=True)
    for value in dangerous_values(marker):
        with pytest.raises(UnreadableAnswerError):
            task.format_output(f"{{'positive': {value}, 'negative': 'b'}}", ROW)
        assert task.format_output(f"Positive: {value}\nNegative: b", ROW)["positive"] == value
    assert not marker.exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_has_a_prompt_of_its_own(action: Action) -> None:
    pair, triplet = prompt_of(action=action), prompt_of(action=action, triplet=True)
    hard = prompt_of(action=action, triplet=True, hard_negative=True)
    assert f"- Positive: {POSITIVES[action]}." in pair
    assert "egative" not in pair
    assert f"- Negative: {NEGATIVE}." in triplet
    assert f"- Negative: {HARD_NEGATIVES[action]}." in hard
    assert all("<anchor>\nK2 rises to 8,611 m.\n</anchor>" in prompt for prompt in (pair, triplet, hard))


def test_the_context_is_in_the_prompt_where_there_is_one() -> None:
    assert "<context>\nFor climbers.\n</context>" in prompt_of(context="For climbers.")
    assert "context" not in prompt_of()


def test_a_hard_negative_needs_a_triplet() -> None:
    with pytest.raises(ValueError, match="hard_negative needs triplet=True"):
        task_of(hard_negative=True)


def test_an_llm_that_takes_schemas_is_asked_for_json_and_another_for_text() -> None:
    plain, structured = OneReplyLLM(reply=AS_ASKED), StructuredOneReplyLLM(reply=json.dumps(PAIR))
    for llm in (plain, structured):
        (row,) = next(task_of(llm, triplet=True).process([ROW]))
        assert {name: row[name] for name in PAIR} == PAIR
    assert "JSON" not in plain.asked[0][0]["content"]
    assert "Positive: <the positive text>\nNegative: <the negative text>" in plain.asked[0][0]["content"]
    assert 'JSON object with the keys "positive" and "negative"' in structured.asked[0][0]["content"]
    schema = task_of(triplet=True).get_structured_output()
    assert structured.schemas == [schema]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema


@pytest.mark.parametrize("triplet", [False, True])
def test_few_shot_examples_are_shown_in_the_form_that_is_asked_for(triplet: bool) -> None:
    for llm in (OneReplyLLM(reply=AS_ASKED), StructuredOneReplyLLM(reply=json.dumps(PAIR))):
        task = task_of(llm, triplet=triplet, examples=[{**ROW, **PAIR}])
        next(task.process([ROW]))
        shown = llm.asked[0][1]["content"]
        assert shown.startswith("{") is isinstance(llm, StructuredOneReplyLLM)
        assert task.format_output(shown, ROW) == {name: PAIR[name] for name in task.texts}


@pytest.mark.parametrize("anchor", [None, ["a"], 3])
def test_a_row_without_an_anchor_fails_and_costs_nothing(anchor: Any) -> None:
    llm = OneReplyLLM(reply=AS_ASKED)
    (row,) = next(task_of(llm).process([{"anchor": anchor}]))
    assert row[METADATA]["error_generate_sentence_pair"]["message"].startswith("anchor: expected a text, got")
    assert llm.asked == []
