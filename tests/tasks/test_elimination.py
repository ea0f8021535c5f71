"""Evolutions are read however they're dressed, and the ones that failed are told by the paper's rules."""

from __future__ import annotations

import pytest

from tasks.base import UnreadableAnswerError
from tasks.instructions.elimination import check_answer, check_evolution, rewritten_in

KEY = "new_instruction"
NEW = "How high is K2, to the foot?"

GOOD_ANSWERS = {
    "between tags, as asked": f"<new_instruction>{NEW}</new_instruction>",
    "between tags on lines of their own": f"Sure:\n\n<new_instruction>\n{NEW}\n</new_instruction>\nDone.",
    "tags in capitals": f"<NEW_INSTRUCTION>{NEW}</NEW_INSTRUCTION>",
    "JSON, as asked": f'{{"new_instruction": "{NEW}"}}',
    "JSON in a fence with a preface": f'Here it is:\n```json\n{{"new_instruction": "{NEW}"}}\n```',
    "a Python dict": f"{{'new_instruction': '{NEW}'}}",
    "JSON after thoughts": f'<think>\n{{"new_instruction": "harder"}}?\n</think>\n{{"new_instruction": "{NEW}"}}',
    "the text alone": NEW,
    "the text in quotation marks": f'"{NEW}"',
    "the text in a fence": f"```text\n{NEW}\n```",
    "a preface that says what it is": f"Sure, here is the rewritten instruction:\n\n{NEW}",
    "a label": f"Rewritten instruction: {NEW}",
    "a Markdown heading": f"### New Instruction\n\n{NEW}",
    "a bold label": f"**Evolved prompt:**\n{NEW}",
    "the label of the paper": f"#Rewritten Prompt#:\n{NEW}",
    "thoughts before the text": f"<think>Harder...</think>\n\n{NEW}",
}


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_an_evolution_is_read_however_it_is_dressed(answer: str) -> None:
    assert rewritten_in(answer, KEY) == NEW


@pytest.mark.parametrize(
    "text",
    [
        "Write a new answer to the following question:\nHow high is K2?",
        "Create an improved version of this text:\n\nThe cat sat.",
        "Improve the new version of the response:\n'a'",
    ],
)
def test_a_first_line_that_is_a_request_isnt_a_preface(text: str) -> None:
    assert rewritten_in(text, KEY) == text


BROKEN_ANSWERS = {
    "nothing": (None, "empty"),
    "blanks": (" \n", "empty"),
    "thoughts alone": ("<think>Let me see.</think>", "content"),
    "thoughts that are cut off": ("<think>Let me see.", "ends in its thoughts"),
    "a tag that is never closed": (f"<new_instruction>{NEW}", "one is missing"),
    "two of them": (f"<new_instruction>{NEW}</new_instruction><new_instruction>x</new_instruction>", "2 times"),
    "JSON that is cut off": (f'{{"new_instruction": "{NEW}', "expected one JSON value"),
    "JSON with something else than a text": ('{"new_instruction": ["a", "b"]}', "expected a text"),
    "an empty text in JSON": ('{"new_instruction": ""}', "content"),
    "the same again": (" how high is K2", "the same as before"),
    "stop words alone": ("<new_instruction>And what of it?</new_instruction>", "content"),
    "punctuation alone": ("---", "content"),
    "a refusal": ("I'm sorry, but I can't help with rewriting this.", "the model refused"),
    "another refusal": ("I'd rather not answer that, sorry.", "the model refused"),
    "a refusal in the name of an AI": ("As an AI, I am unable to provide that.", "the model refused"),
    "the prompt's words": ("Make the given prompt harder by one condition.", "copies 'given prompt'"),
    "the prompt's tags": ("<instruction>\nHow high?\n</instruction>", "copies '<instruction>'"),
}


@pytest.mark.parametrize(("answer", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_failed_evolution_is_refused_with_the_reason(answer: str | None, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        check_evolution(rewritten_in(answer, KEY), "How high is K2?")
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "Here is a list of heights:\n\n8611, 8586, 8516\n\nSort it.",
        "I can't log in to my account since Monday. Write to the support in my name, and name three things I tried.",
        "Sorry to bother you, but how high is K2, to the foot?",
        "```python\nprint(1)\n```\nWhat does this print, and why?",
        'What does {"a": 1} mean in JSON?',
        "Wie hoch ist der K2 in Fuß?",
        "乔戈里峰有多高?",
    ],
)
def test_an_instruction_that_only_looks_odd_is_kept_whole(text: str) -> None:
    evolved = rewritten_in(text, KEY)
    check_evolution(evolved, "How high is K2?")
    assert evolved == text


def test_words_that_the_earlier_text_has_too_are_no_copy_and_no_refusal() -> None:
    check_evolution("Explain the given prompt to a child.", "Explain the given prompt.")
    check_evolution("I'm sorry, I can't do that today; tell him kindly.", "I'm sorry, I can't do that.")


def test_an_answer_that_is_a_short_apology_shows_an_instruction_that_cannot_be_answered() -> None:
    with pytest.raises(UnreadableAnswerError, match="refused"):
        check_answer("Sorry, I don't have that table.")
    with pytest.raises(UnreadableAnswerError, match="content"):
        check_answer("...")
    check_answer("Sorry is what she said first. " + "And then they talked for long. " * 20)
