"""SelfInstruct: the prompt, and the lists that models really send."""

from __future__ import annotations

import json

import jsonschema
import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import SelfInstruct
from tasks.base import UnreadableAnswerError
from tasks.instructions.self_instruct import parse_instructions
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"input": "K2 is a mountain of 8,611 metres."}
EXPECTED = ["How high is K2?", "Who climbed K2 first?", "Write a poem on K2."]
AS_ASKED = "1. How high is K2?\n2. Who climbed K2 first?\n3. Write a poem on K2."

GOOD_ANSWERS = {
    "the list that was asked for": AS_ASKED,
    "a preface and an afterword": f"Here are three queries:\n\n{AS_ASKED}\n\nLet me know if you need more!",
    "blank lines between": AS_ASKED.replace("\n", "\n\n"),
    "brackets after the numbers": AS_ASKED.replace(". ", ") ", 3),
    "numbers in brackets": "(1) How high is K2?\n(2) Who climbed K2 first?\n(3) Write a poem on K2.",
    "bold numbers": "**1.** How high is K2?\n**2.** Who climbed K2 first?\n**3.** Write a poem on K2.",
    "bold texts": "1. **How high is K2?**\n2. **Who climbed K2 first?**\n3. **Write a poem on K2.**",
    "labels": "Query 1: How high is K2?\nQuery 2: Who climbed K2 first?\nQuery 3: Write a poem on K2.",
    "bold labels": "**Instruction 1:** How high is K2?\n**Instruction 2:** Who climbed K2 first?\n"
    "**Instruction 3:** Write a poem on K2.",
    "quotation marks": '1. "How high is K2?"\n2. "Who climbed K2 first?"\n3. "Write a poem on K2."',
    "hyphens": "- How high is K2?\n- Who climbed K2 first?\n- Write a poem on K2.",
    "bullets and a preface": "Sure:\n• How high is K2?\n• Who climbed K2 first?\n• Write a poem on K2.",
    "bare lines": "How high is K2?\nWho climbed K2 first?\n\nWrite a poem on K2.",
    "bare lines below a preface": "Three queries:\nHow high is K2?\nWho climbed K2 first?\nWrite a poem on K2.",
    "a fence": f"```\n{AS_ASKED}\n```",
    "thoughts": f"<think>\n1. Too easy\n2. Hm\n</think>\n{AS_ASKED}",
    "Windows line ends": AS_ASKED.replace("\n", "\r\n"),
    "JSON of the schema": json.dumps({f"instruction_{n}": text for n, text in enumerate(EXPECTED, 1)}),
    "JSON of the schema in another order": json.dumps(
        {f"instruction_{n}": text for n, text in reversed(list(enumerate(EXPECTED, 1)))}
    ),
    "a JSON list": json.dumps(EXPECTED),
    "a list in an object, fenced": f"```json\n{json.dumps({'instructions': EXPECTED}, indent=2)}\n```",
    "JSON in a fence below a preface": f"Sure:\n\n```json\n{json.dumps(EXPECTED)}\n```",
    "JSON below a preface": f"Sure:\n{json.dumps(EXPECTED)}",
    "a list of objects": json.dumps([{"id": n, "query": text} for n, text in enumerate(EXPECTED, 1)]),
    "a Python list": str(EXPECTED),
}


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_list_is_read_however_it_is_dressed(answer: str) -> None:
    assert parse_instructions(answer, 3) == EXPECTED


BROKEN_ANSWERS = {
    "nothing": ("", "got 0"),
    "a refusal": ("I'd rather not answer that, sorry.", "expected 3 instructions, got 1"),
    "one too few": (AS_ASKED.rpartition("\n")[0], "got 2"),
    "cut off in its code": (f"{AS_ASKED}\n```python\nprint(", "a code fence isn't closed"),
    "an empty one": (AS_ASKED.replace("Write a poem on K2.", ""), "got 2"),
    "one twice": (AS_ASKED.replace("Who climbed K2 first?", "How high is K2?"), "3 different"),
    "one twice but for its case": (AS_ASKED.replace("Who climbed K2 first?", "how high is k2?"), "3 different"),
    "JSON that is cut off": ('{"instruction_1": "How high', "expected one JSON value"),
    "JSON with numbers for texts": ("[1, 2, 3]", "got"),
    "JSON with null": ('["How high is K2?", null, "Write a poem on K2."]', "a list of texts"),
    "an object without numbers": ('{"query": "How high is K2?"}', "expected a JSON list"),
}


def test_of_more_instructions_than_asked_for_the_first_ones_are_kept() -> None:
    assert parse_instructions(AS_ASKED + "\n4. And who else?", 3) == EXPECTED
    assert parse_instructions(json.dumps([*EXPECTED, "And who else?"]), 3) == EXPECTED


def test_of_fewer_only_a_whole_json_list_is_believed() -> None:
    assert parse_instructions(json.dumps(EXPECTED[:2]), 3) == EXPECTED[:2]
    with pytest.raises(UnreadableAnswerError, match="got 0"):
        parse_instructions("[]", 3)


@pytest.mark.parametrize(("answer", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_list_that_isnt_what_was_asked_for_is_refused_with_the_reason(answer: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        parse_instructions(answer, 3)
    assert problem in str(raised.value)


def test_an_instruction_may_have_several_lines_and_numbers_of_its_own() -> None:
    code = "What does this print?\n\n```python\nprint(1)\n```"
    answer = f"```\n1. {code}\n\n2. Sort these:\n   2. b\n   1. a\n\n3. Convert 1.5 litres to pints.\n```"
    found = parse_instructions(answer, 3)

    assert found[0] == code
    assert found[2] == "Convert 1.5 litres to pints."


@pytest.mark.parametrize("inner", ["1. b\n   2. a", "- b\n   - a", '["b", "a"]'], ids=["numbers", "bullets", "JSON"])
@pytest.mark.parametrize("marker", ["{}. ", "- "], ids=["numbered", "with bullets"])
def test_a_list_inside_an_instruction_is_a_part_of_it(inner: str, marker: str) -> None:
    answer = f"{marker.format(1)}Sort these:\n   {inner}\n{marker.format(2)}How high is K2?"

    assert parse_instructions(answer, 2) == [f"Sort these:\n   {inner}", "How high is K2?"]


def test_json_in_a_line_isnt_the_list() -> None:
    assert parse_instructions('Sort this: ["b", "a"]\nWho?', 2) == ['Sort this: ["b", "a"]', "Who?"]
    assert parse_instructions('1. Sort this: ["b", "a"]\n2. Who?', 2) == ['Sort this: ["b", "a"]', "Who?"]


def test_numbers_that_are_aligned_to_the_right_belong_to_one_list() -> None:
    texts = [f"How high is mountain {number}?" for number in range(1, 11)]
    answer = "\n".join(f"{number:2}. {text}" for number, text in enumerate(texts, 1))

    assert parse_instructions(answer, 10) == texts


@pytest.mark.parametrize(
    "answer",
    ["1. Sort these:\n1. b\n2. a\n\n2. How high is K2?", "Here is one:\nHow high is K2?"],
    ids=["a list inside without an indent", "a preface in place of the second one"],
)
def test_a_list_that_could_be_read_in_two_ways_is_refused(answer: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        parse_instructions(answer, 2)


def test_a_single_instruction_is_read() -> None:
    assert parse_instructions("1. How high is K2?", 1) == ["How high is K2?"]
    assert parse_instructions("How high is K2?", 1) == ["How high is K2?"]


def test_the_prompt_has_the_text_the_application_the_criteria_and_the_number() -> None:
    task = SelfInstruct(
        llm=OneReplyLLM(reply=""),
        num_instructions=3,
        application_description="A mountain guide.",
        criteria_for_query_generation="Short ones.",
    )
    content = task.format_input(ROW)[0]["content"]

    assert "Write 3 different queries" in content
    assert all(text in content for text in (ROW["input"], "A mountain guide.", "Short ones.", "from 1 to 3"))
    assert "JSON" not in content


def test_the_schema_has_a_key_per_instruction_and_fits_strict_mode() -> None:
    task = SelfInstruct(llm=StructuredOneReplyLLM(reply=""), num_instructions=3)
    schema = task.get_structured_output()

    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    assert schema["required"] == ["instruction_1", "instruction_2", "instruction_3"]
    assert '"instruction_1", "instruction_2", "instruction_3"' in task.format_input(ROW)[0]["content"]


def test_text_and_json_give_the_same_columns() -> None:
    for llm in (OneReplyLLM(reply=""), StructuredOneReplyLLM(reply="")):
        task = SelfInstruct(llm=llm, num_instructions=3)
        llm.reply = task.format_example({**ROW, "instructions": EXPECTED})
        (row,) = next(task.process([ROW]))
        assert row["instructions"] == EXPECTED


def test_self_instruct_keeps_to_the_contract(provider: LocalProvider) -> None:
    answer = json.dumps({f"instruction_{n}": text for n, text in enumerate(EXPECTED, 1)})
    check_contract(
        provider, lambda **more: SelfInstruct(num_instructions=3, **more), ROW, answer, {"instructions": EXPECTED}
    )
