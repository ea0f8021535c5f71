"""Instruction backtranslation: the prompt, and the replies that models really send."""

from __future__ import annotations

import json

import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import InstructionBacktranslation, UnreadableAnswerError
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"instruction": "How high is K2?", "generation": "It is 8,611 m high."}
AS_ASKED = "Reason: Right and short.\nScore: 4"

GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "the score first": "Score: 4\nReason: Right and short.",
    "a preface": f"Here is my assessment:\n\n{AS_ASKED}",
    "the reason without a label, as the paper has it": "Right and short.\n\nScore: 4",
    "all on one line": "Right and short. Score: 4",
    "the reason below the score": "Score: 4\n\nRight and short.",
    "bold labels and a scale": "**Reason:** Right and short.\n**Score:** 4/5",
    "headings": "### Reason\nRight and short.\n\n### Score\n4",
    "other words": "Reasoning: Right and short.\nFinal score: 4 out of 5",
    "a scale in words": "Reason: Right and short.\nScore: 4 (on a scale from 1 to 5)",
    "bold numbers": "Reason: Right and short.\n**Final rating**: **4**",
    "a code fence": f"```\n{AS_ASKED}\n```",
    "thoughts": f"<think>Score: 1?\nScore: 2?</think>{AS_ASKED}",
    "decimals": AS_ASKED.replace("4", "4.0"),
    "JSON": '{"reason": "Right and short.", "score": 4}',
    "JSON with other words, fenced": '```json\n{"rating": "4/5", "explanation": "Right and short."}\n```',
    "a Python dict": "{'reason': 'Right and short.', 'score': 4}",
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_reply_is_read_however_it_is_dressed(reply: str) -> None:
    read = InstructionBacktranslation(llm=OneReplyLLM(reply="")).format_output(reply, ROW)
    assert read == {"score": 4, "reason": "Right and short."}


BROKEN_ANSWERS = {
    "nothing": ("", "found 0"),
    "a refusal": ("I'd rather not.", "found 0"),
    "ten, which isn't one": ("Right and short.\nScore: 10", "expected 1 to 5, got '10'"),
    "zero": (AS_ASKED.replace("4", "0"), "expected 1 to 5"),
    "another scale": (AS_ASKED.replace("4", "4/10"), "out of 5"),
    "half a point": (AS_ASKED.replace("4", "3.5"), "got '3.5'"),
    "a score that is taken back": (AS_ASKED + ", revised to 5", "got '4, revised to 5'"),
    "a score that is taken back in brackets": (AS_ASKED + " (changed to 3)", "got '4 (changed to 3)'"),
    "a scale in words": (AS_ASKED + " (on a scale of 1 to 10)", "out of 5"),
    "a scale of its own": (AS_ASKED + " - scale 1-10", "out of 5"),
    "a range": (AS_ASKED.replace("4", "3-4"), "got '3-4'"),
    "in words": (AS_ASKED.replace("4", "four"), "got 'four'"),
    "two scores": (AS_ASKED + "\nScore: 3", "found 2"),
    "no reason": ("Score: 4", "expected a reason"),
    "no score": ("Reason: Right and short.", "found 0"),
    "thoughts that are cut off": (f"<think>\n{AS_ASKED}\nOr is it", "ends in its thoughts"),
    "cut off": ("Reason: Right and short.\nSco", "found 0"),
    "JSON that is cut off": ('{"reason": "Right and sho', "found none"),
    "JSON with a line in its text that is like a score": (
        '{"reason": "It says:\nRating: 5\nwhich", "score": 1}',
        "found none",
    ),
    "JSON without a score": ('{"reason": "Right and short."}', "found 0"),
    "JSON with ten": ('{"reason": "Right and short.", "score": 10}', "expected 1 to 5"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_reply_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        InstructionBacktranslation(llm=OneReplyLLM(reply="")).format_output(reply, ROW)
    assert problem in str(raised.value)


def test_it_keeps_to_the_contract(provider: LocalProvider) -> None:
    answer = json.dumps({"reason": "Right.", "score": 5})
    check_contract(provider, InstructionBacktranslation, ROW, answer, {"score": 5, "reason": "Right."})


def test_the_prompt_holds_both_texts_and_asks_for_the_form_that_the_llm_takes() -> None:
    plain = InstructionBacktranslation(llm=OneReplyLLM(reply="")).prompt(ROW)
    task = InstructionBacktranslation(llm=StructuredOneReplyLLM(reply=""))
    chat, schema = task.prompt(ROW)
    assert "<text>\nIt is 8,611 m high.\n</text>" in plain[0]["content"]
    assert "Score: <a whole number from 1 to 5>" in plain[0]["content"]
    assert '- "score"' in chat[0]["content"]
    assert strict_schema(schema) == schema == task.get_structured_output()


def test_an_unreadable_reply_keeps_the_token_counts() -> None:
    (row,) = next(InstructionBacktranslation(llm=OneReplyLLM(reply="no match")).process([ROW]))
    assert row["distilabel_metadata"]["statistics_instruction_backtranslation"] == {
        "input_tokens": 1,
        "output_tokens": 1,
    }


def test_few_shot_examples_are_shown_in_the_form_that_is_asked_for() -> None:
    example = {**ROW, "reason": "Right and short.", "score": 4}
    llm = OneReplyLLM(reply=AS_ASKED)
    next(InstructionBacktranslation(llm=llm, examples=[example]).process([ROW]))
    assert llm.asked[0][1] == {"role": "assistant", "content": AS_ASKED}
