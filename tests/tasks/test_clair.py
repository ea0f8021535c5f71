"""CLAIR: the prompt, and the revisions that models really send."""

from __future__ import annotations

import json

import jsonschema
import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import CLAIR
from tasks.base import UnreadableAnswerError
from tasks.writing.clair import SYSTEM_PROMPT, parse_revision
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"task": "How high is K2?", "student_solution": "8,600 metres."}
WHY, REVISED = "The number is rounded.", "8,611 metres."
AS_ASKED = f"<reasoning>\n{WHY}\n</reasoning>\n\n<corrected_solution>\n{REVISED}\n</corrected_solution>"
JSON = json.dumps({"reasoning": WHY, "corrected_solution": REVISED})

GOOD_ANSWERS = {
    "as asked": AS_ASKED,
    "a preface and an afterword": f"Let me look at it.\n\n{AS_ASKED}\n\nI hope this helps.",
    "a fence around it": f"```xml\n{AS_ASKED}\n```",
    "on single lines": f"<reasoning>{WHY}</reasoning><corrected_solution>{REVISED}</corrected_solution>",
    "the reasoning without tags": f"{WHY}\n<corrected_solution>{REVISED}</corrected_solution>",
    "tags in capitals": f"{WHY}\n<CORRECTED_SOLUTION>{REVISED}</CORRECTED_SOLUTION>",
    "the other way round": (f"<corrected_solution>{REVISED}</corrected_solution>\n<reasoning>{WHY}</reasoning>"),
    "thoughts before": f"<think><reasoning>Hm.</reasoning></think>{AS_ASKED}",
    "JSON": JSON,
    "JSON in a fence with a preface": f"Sure:\n```json\n{JSON}\n```",
    "JSON in another order": json.dumps({"corrected_solution": REVISED, "reasoning": WHY}),
    "a Python dict": str({"reasoning": WHY, "corrected_solution": REVISED}),
    "the labels of the reference": f"{WHY}\n\n**Corrected Student Solution:** {REVISED}",
    "Markdown headings": f"## Reasoning\n\n{WHY}\n\n## Corrected Solution\n\n{REVISED}",
    "plain labels": f"Teacher reasoning: {WHY}\n\nCorrected student solution: {REVISED}",
    "bold labels on lines of their own": f"**Reasoning:**\n{WHY}\n\n**Revised solution:**\n{REVISED}",
    "another title": f"Reasoning: {WHY}\n\nImproved answer:\n{REVISED}",
}


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_revision_is_read_however_it_is_dressed(answer: str) -> None:
    assert parse_revision(answer) == (WHY, REVISED)


BROKEN_ANSWERS = {
    "a refusal": ("I'd rather not answer that, sorry.", "found 0 solutions"),
    "no solution": (f"<reasoning>{WHY}</reasoning>", "found 0 solutions"),
    "an empty solution": (f"{WHY}<corrected_solution>\n</corrected_solution>", "corrected_solution: expected a text"),
    "no reasoning": (f"<corrected_solution>{REVISED}</corrected_solution>", "reasoning: expected a text"),
    "cut off": (AS_ASKED[:-10], "one is missing"),
    "two solutions": (f"{AS_ASKED}\n<corrected_solution>8,612 m.</corrected_solution>", "2 times"),
    "two titles": (f"{WHY}\nCorrected solution: a\nCorrected solution: b", "found 2 solutions"),
    "JSON without the solution": ('{"reasoning": "Rounded."}', "it lacks"),
    "JSON that is cut off": (JSON[:-5], "expected one JSON value"),
    "JSON with a number": ('{"reasoning": "Rounded.", "corrected_solution": 8611}', "expected a text, got 8611"),
    "a title without reasons": (f"Corrected solution: {REVISED}", "reasoning: expected a text"),
}


@pytest.mark.parametrize(("answer", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_what_lacks_a_part_is_refused_with_the_reason(answer: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        parse_revision(answer)
    assert problem in str(raised.value)


def test_code_in_a_revision_stays_as_it_is() -> None:
    code = "```python\nprint({'corrected': 1})\n```\n\nThe reasoning: it prints."
    assert parse_revision(f"<reasoning>{WHY}</reasoning><corrected_solution>\n{code}\n</corrected_solution>")[1] == code


def test_both_forms_are_asked_for_and_shown() -> None:
    example = {**ROW, "revision": REVISED, "rational": WHY}
    for llm in (OneReplyLLM(reply=""), StructuredOneReplyLLM(reply="")):
        task = CLAIR(llm=llm)
        llm.reply = task.format_example(example)
        (row,) = next(task.process([ROW]))
        assert (row["revision"], row["rational"]) == (REVISED, WHY)
        assert llm.asked[0][0] == {"role": "system", "content": SYSTEM_PROMPT}
        assert "<student_solution>\n8,600 metres.\n</student_solution>" in llm.asked[0][1]["content"]


def test_the_schema_fits_strict_mode_as_it_is() -> None:
    schema = CLAIR(llm=OneReplyLLM(reply="")).get_structured_output()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema


def test_clair_keeps_to_the_contract(provider: LocalProvider) -> None:
    check_contract(provider, CLAIR, ROW, JSON, {"revision": REVISED, "rational": WHY})
