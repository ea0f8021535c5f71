"""The scorers of complexity and quality: the prompts, and the replies that models really send."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import ComplexityScorer, QualityScorer, Task, UnreadableAnswerError
from tasks.judging.scorers import parse_scores
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

INSTRUCTIONS = {"instructions": ["How high is K2?", "Plan an ascent of K2 in winter."]}
RESPONSES = {"instruction": "How high is K2?", "responses": ["8,611 m.", "High."]}

AS_ASKED = "[1] Score: 2\n[2] Score: 5"

GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "a preface on lines of its own": f"Here are my scores.\n\nI compared them first.\n\n{AS_ASKED}",
    "a preface and an afterword": f"Scores below:\n{AS_ASKED}\n\nOverall, the 2nd is 3 points above the 1st.",
    "thoughts before the reply": f"<think>\n[1] Score: 6? No.\n</think>\n{AS_ASKED}",
    "a code fence": f"```text\n{AS_ASKED}\n```",
    "another order": "[2] Score: 5\n[1] Score: 2",
    "a ranking with places in front": "1. [2] Score: 5\n2. [1] Score: 2",
    "names and bold": "**Instruction 1:** 2\n**Instruction 2:** 5",
    "bold around label and number": "**[1]** Score: **2**\n**[2]** Score: **5**",
    "scales and words": "[1] Score: 2/6 (simple)\n[2] Score: 5 out of 6",
    "a numbered list": "1. Score: 2\n2. Score: 5",
    "a plain numbered list": "1. 2\n2. 5",
    "bare pairs": "1: 2\n2: 5",
    "a table": "| Instruction | Score |\n|---|---|\n| 1 | 2 |\n| 2 | 5 |",
    "headings with reasons between": "### Instruction 1\nA fact.\n\nScore: 2\n\n### Instruction 2\nA plan.\nScore: 5",
    "reasons on the line": "Instruction 1: a known fact. Score: 2\nInstruction 2 - many steps. Score: 5",
    "the score in brackets": "Instruction 1 (score: 2)\nInstruction 2 (score: 5)",
    "score of": "Score of instruction #1: 2\nScore of instruction #2: 5",
    "numbered scores": "Score 1: 2\nScore 2: 5",
    "bullets and dashes": "- Instruction 1 - 2\n- Instruction 2 \u2013 5",
    "a label with an adjective": "[1] Complexity score: 2\n[2] Complexity score: 5",
    "Windows line ends": AS_ASKED.replace("\n", "\r\n"),
    "JSON of the schema": '{"instruction_2": 5, "instruction_1": 2}',
    "JSON in a fence, with a preface": 'Sure:\n```json\n{"instruction_1": "2/6", "instruction_2": 5.0}\n```',
    "JSON with objects": '{"1": {"reason": "a fact", "score": 2}, "2": {"score": 5}}',
    "JSON with a list of scores": '{"scores": [2, 5]}',
    "JSON with a nested object": '{"scores": {"Instruction 1": 2, "Instruction 2": 5}}',
    "a list of objects": '[{"instruction": 2, "score": 5}, {"instruction": 1, "score": 2}]',
    "a Python dict": "{'instruction_1': 2, 'instruction_2': 5}",
    "a bare list": "[2, 5]",
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_reply_is_read_by_the_numbers_of_the_items(reply: str) -> None:
    assert parse_scores(reply, "instruction", 2) == [2, 5]


BROKEN_ANSWERS = {
    "nothing": ("", "instruction 1, 2 not scored"),
    "a refusal": ("I'm sorry, I can't score these 2 instructions.", "not scored"),
    "a missing line": ("[1] Score: 2", "instruction 2 not scored"),
    "a doubled line": (AS_ASKED + "\n[2] Score: 3", "instruction 2 scored more than once"),
    "a line too many": (AS_ASKED + "\n[3] Score: 3", "instruction 3 not among them"),
    "counted from zero": ("[0] Score: 2\n[1] Score: 5", "instruction 0 not among them"),
    "no numbers": ("Score: 2\nScore: 5", "a score without a number"),
    "seven": ("[1] Score: 2\n[2] Score: 7", "instruction 2: score: expected 1 to 6, got '7'"),
    "zero": ("[1] Score: 0\n[2] Score: 5", "expected 1 to 6, got '0'"),
    "half a point": ("[1] Score: 2.5\n[2] Score: 5", "got '2.5'"),
    "a range": ("[1] Score: 2-3\n[2] Score: 5", "got '2-3'"),
    "a scale of ten": ("[1] Score: 2/10\n[2] Score: 5", "out of 6"),
    "in words": ("[1] Score: two\n[2] Score: 5", "got 'two'"),
    "not available": ("[1] N/A\n[2] 5", "instruction 1 not scored"),
    "negative": ("[1] -2\n[2] 5", "instruction 1 not scored"),
    "cut off": ("[1] Score: 2\n[2] Sco", "instruction 2 not scored"),
    "JSON that is cut off": ('{"instruction_1": 2, "instr', "found none"),
    "JSON with one too few": ("[2]", "instruction 2 not scored"),
    "a JSON list with one too many": ('{"scores": [2, 5, 1]}', "instruction 3 not among them"),
    "JSON with null": ('{"instruction_1": 2, "instruction_2": null}', "instruction 2: score"),
    "JSON with true": ('{"instruction_1": true, "instruction_2": 3}', "instruction 1: score"),
    "JSON that repeats the items": (
        '[{"instruction": "How high is K2?", "score": 2}, {"instruction": 2, "score": 5}]',
        "a score without a number",
    ),
    "prose with a comparison": ("Instruction 2 is harder than 1, and so its score: 5", "not scored"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_reply_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        parse_scores(reply, "instruction", 2)
    assert problem in str(raised.value)


def test_a_single_item_needs_no_number() -> None:
    assert parse_scores("Score: 4", "response", 1) == [4]
    assert parse_scores('{"score": 4}', "response", 1) == [4]


def test_twelve_items_keep_their_numbers() -> None:
    reply = "\n".join(f"[{number}] Score: {number % 6 + 1}" for number in range(12, 0, -1))
    assert parse_scores(reply, "response", 12) == [number % 6 + 1 for number in range(1, 13)]


def test_complexity_keeps_to_the_contract(provider: LocalProvider) -> None:
    answer = '{"instruction_1": 2, "instruction_2": 5}'
    check_contract(provider, ComplexityScorer, INSTRUCTIONS, answer, {"scores": [2, 5]})


def test_quality_keeps_to_the_contract(provider: LocalProvider) -> None:
    check_contract(provider, QualityScorer, RESPONSES, '{"response_1": 6, "response_2": 2}', {"scores": [6, 2]})


@pytest.mark.parametrize(("kind", "row"), [(ComplexityScorer, INSTRUCTIONS), (QualityScorer, RESPONSES)])
def test_the_prompt_holds_the_items_with_their_numbers_and_asks_for_the_form_that_the_llm_takes(
    kind: type[Task], row: dict[str, Any]
) -> None:
    plain = kind(llm=OneReplyLLM(reply="")).format_input(row)[0]["content"]
    chat, schema = kind(llm=StructuredOneReplyLLM(reply="")).format_input(row)
    noun = "instruction" if kind is ComplexityScorer else "response"

    assert f'<{noun} number="2">\n{row[f"{noun}s"][1]}\n</{noun}>' in plain
    assert "[2] Score: <a whole number from 1 to 6>" in plain
    assert f'"{noun}_1", "{noun}_2"' in chat[0]["content"]
    assert schema["required"] == [f"{noun}_1", f"{noun}_2"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema


def test_the_instruction_is_told_for_quality() -> None:
    prompt = QualityScorer(llm=OneReplyLLM(reply="")).format_input(RESPONSES)[0]["content"]
    assert "<instruction>\nHow high is K2?\n</instruction>" in prompt


@pytest.mark.parametrize("instructions", [None, [], ["a", None], "text"])
def test_a_row_without_texts_to_score_fails_and_costs_nothing(instructions: Any) -> None:
    llm = OneReplyLLM(reply=AS_ASKED)
    (row,) = next(ComplexityScorer(llm=llm).process([{"instructions": instructions}]))
    assert "expected a list of texts" in row["distilabel_metadata"]["error_complexity_scorer"]["message"]
    assert llm.asked == []


def test_few_shot_examples_are_shown_in_the_form_that_is_asked_for() -> None:
    example = {**INSTRUCTIONS, "scores": [2, 5]}
    plain, structured = OneReplyLLM(reply=AS_ASKED), StructuredOneReplyLLM(reply='{"scores": [1, 1]}')
    next(ComplexityScorer(llm=plain, examples=[example]).process([INSTRUCTIONS]))
    next(ComplexityScorer(llm=structured, examples=[example]).process([INSTRUCTIONS]))
    assert plain.asked[0][1] == {"role": "assistant", "content": AS_ASKED}
    assert json.loads(structured.asked[0][1]["content"]) == {"instruction_1": 2, "instruction_2": 5}
