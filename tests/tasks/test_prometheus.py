"""Prometheus: the prompt that the models were trained on, rubrics, and the replies that models really send."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llms.local_provider import LocalProvider
from tasks import PrometheusEval, Rubric, UnreadableAnswerError
from tasks.judging.prometheus import RUBRICS
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ABSOLUTE = {"instruction": "How high is K2?", "generation": "8,611 m.", "reference": "K2 is 8,611 m high."}
RELATIVE = {"instruction": "How high is K2?", "generations": ["8,611 m.", "High."], "reference": "8,611 m."}
AS_ASKED = "Feedback: Right and short. [RESULT] 4"

POLITE = """[Is it polite?]
Score 1: Rude.
Score 2: Curt.
Score 3: Neutral.
Score 4: Friendly.
Score 5: Kind throughout."""


def made(**options: Any) -> PrometheusEval:
    return PrometheusEval(llm=OneReplyLLM(reply=AS_ASKED), **options)


GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "as the models send it": "Right and short. [RESULT] 4",
    "on lines of its own": "Feedback:\nRight and short.\n\n[RESULT] 4",
    "bold": "**Feedback:** Right and short.\n\n**[RESULT]** **4**",
    "a colon, another case": "Feedback: Right and short. [Result]: 4",
    "brackets and a scale": "Feedback: Right and short. [RESULT] (4/5)",
    "an afterword": AS_ASKED + "\n\nLet me know if there are others.",
    "a reason beside it": AS_ASKED + " (good)",
    "a decimal": AS_ASKED + ".0",
    "thoughts": f"<think>[RESULT] 1?</think>{AS_ASKED}",
    "a code fence": f"```\n{AS_ASKED}\n```",
    "a line without brackets": "Feedback: Right and short.\nResult: 4",
    "a line with the score": "Feedback: Right and short.\n**Score:** 4",
    "JSON": '{"feedback": "Right and short.", "result": 4}',
    "JSON that names the form": '{"feedback": "Right and short.", "note": "[RESULT] 1 to 5", "result": 4}',
    "JSON in a fence": '```json\n{"feedback": "Right and short.", "result": "4"}\n```',
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_score_is_read_however_it_is_dressed(reply: str) -> None:
    assert made().format_output(reply, ABSOLUTE) == {"feedback": "Right and short.", "result": 4}


BROKEN_ANSWERS = {
    "nothing": ("", "found 0"),
    "a refusal": ("I'd rather not.", "found 0"),
    "two results": (AS_ASKED + " [RESULT] 3", "found 2"),
    "no feedback": ("[RESULT] 4", "expected feedback"),
    "an empty result": ("Feedback: Right. [RESULT]", "got ''"),
    "ten": (AS_ASKED.replace("4", "10"), "expected 1 to 5, got '10'"),
    "zero": (AS_ASKED.replace("4", "0"), "expected 1 to 5"),
    "half a point": (AS_ASKED.replace("4", "3.5"), "got '3.5'"),
    "a letter": (AS_ASKED.replace("4", "A"), "got 'A'"),
    "a range": (AS_ASKED.replace("4", "3 or 4"), "got '3 or 4'"),
    "cut off": ("Feedback: Right and sho", "found 0"),
    "JSON that isn't whole, with a result in its text": ('{"feedback": "Right. [RESULT] 4", "resu', "found none"),
    "JSON that lacks the result": ('{"feedback": "Right."}', "lacks ['result']"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_score_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        made().format_output(reply, ABSOLUTE)
    assert problem in str(raised.value)


CHOICES = [
    "B",
    "(B)",
    "**B**",
    "Response B",
    "b",
    "B.",
    "[B]",
    "B is better",
    "B is clearly the best",
    "B, clearly",
    "B, as it says more than A",
]
NO_CHOICES = [
    "C",
    "A or B",
    "A, B",
    "A/B",
    "AB",
    "2",
    "both",
    "tie",
    "a better one is B",
    "A is worse",
    "A is not better",
    "A is no better than B",
    "A is never better",
    "A is hardly better",
    "A is less preferred",
    "A is far from best",
    "A: 3, B: 5",
    "A: weak; B: strong",
    "A (B is better)",
    "A (tie)",
]


@pytest.mark.parametrize("said", CHOICES)
def test_a_choice_is_read_however_it_is_dressed(said: str) -> None:
    read = made(mode="relative").format_output(f"Only one is right. [RESULT] {said}", RELATIVE)
    assert read == {"feedback": "Only one is right.", "result": "B"}


@pytest.mark.parametrize("said", NO_CHOICES)
def test_a_choice_that_isnt_certain_is_refused(said: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="expected A or B"):
        made(mode="relative").format_output(f"Only one is right. [RESULT] {said}", RELATIVE)


def test_the_absolute_prompt_is_the_one_that_the_models_were_trained_on() -> None:
    task = made(rubric="polite", rubrics={"polite": POLITE}, reference=True)
    (message,) = task.format_input(ABSOLUTE)
    assert (
        message["content"]
        == f"""\
You are a fair judge assistant tasked with providing clear, objective feedback based on specific criteria, \
ensuring each assessment reflects the absolute standards set for performance.

###Task Description:
An instruction (might include an Input inside it), a response to evaluate, a reference answer that gets a score of 5, \
and a score rubric representing a evaluation criteria are given.
1. Write a detailed feedback that assess the quality of the response strictly based on the given score rubric, \
not evaluating in general.
2. After writing a feedback, write a score that is an integer between 1 and 5. You should refer to the score rubric.
3. The output format should look as follows: "Feedback: (write a feedback for criteria) [RESULT] \
(an integer number between 1 and 5)"
4. Please do not generate any other opening, closing, and explanations.

###The instruction to evaluate:
How high is K2?

###Response to evaluate:
8,611 m.

###Reference Answer (Score 5):
K2 is 8,611 m high.

###Score Rubrics:
{POLITE}

###Feedback: """
    )


def test_the_relative_prompt_has_the_trained_sections_in_their_order_and_the_criterion_alone() -> None:
    (message,) = made(mode="relative", rubrics={"polite": POLITE}, rubric="polite", reference=True).format_input(
        RELATIVE
    )
    start = message["content"].index("###Instruction:")
    assert (
        message["content"][start:]
        == """\
###Instruction:
How high is K2?

###Response A:
8,611 m.

###Response B:
High.

###Reference Answer:
8,611 m.

###Score Rubric:
Is it polite?

###Feedback: """
    )


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_without_reference_its_section_is_left_out(mode: Any) -> None:
    task = made(mode=mode)
    (message,) = task.format_input({**ABSOLUTE, **RELATIVE})
    assert "reference" not in task.inputs
    assert "eference" not in message["content"]
    assert "\n\n\n" not in message["content"]


def test_a_model_that_takes_schemas_is_asked_in_the_trained_form_all_the_same() -> None:
    llm = StructuredOneReplyLLM(reply=AS_ASKED)
    next(PrometheusEval(llm=llm, use_default_structured_output=True).process([ABSOLUTE]))
    assert llm.schemas == [None]


def test_there_are_five_rubrics_and_each_has_five_scores_of_its_own() -> None:
    names = ["helpfulness", "harmlessness", "honesty", "factual-validity", "reasoning"]
    assert [rubric.name for rubric in RUBRICS] == names
    texts = [text for rubric in RUBRICS for text in list(rubric.model_dump().values())[1:]]
    assert len(set(texts)) == 5 * 6


def test_rubrics_are_given_as_models_or_as_texts() -> None:
    scores = {"score_1": "Rude.", "score_2": "Curt.", "score_3": "Neutral.", "score_4": "Friendly."}
    model = Rubric(name="polite", criterion="Is it polite?", **scores, score_5="Kind throughout.")
    by_text = made(rubric="polite", rubrics={"polite": POLITE})
    assert by_text.rubrics == [model]
    assert made(rubric="polite", rubrics=[model]).identity() == by_text.identity()


def test_a_rubric_of_ones_own_goes_before_ours() -> None:
    assert made(rubric="honesty", rubrics={"honesty": POLITE}).chosen_rubric().criterion == "Is it polite?"


def test_a_rubric_that_doesnt_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValidationError, match=r"expected one of \['helpfulness'.*got 'politeness'"):
        made(rubric="politeness")


@pytest.mark.parametrize(
    "text", ["Is it polite?", POLITE.replace("Score 3", "Score 9"), POLITE.partition("\n")[2], "[a]\nScore 1: b"]
)
def test_a_rubric_without_a_criterion_or_a_score_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected a line `\\[criterion\\]` and five lines"):
        made(rubric="polite", rubrics={"polite": text})


@pytest.mark.parametrize("generations", [None, [], ["one"], ["one", "two", "three"], ["one", None], "text"])
def test_a_row_without_two_texts_to_compare_fails_and_costs_nothing(generations: Any) -> None:
    llm = OneReplyLLM(reply=AS_ASKED)
    (row,) = next(PrometheusEval(llm=llm, mode="relative").process([{**RELATIVE, "generations": generations}]))
    assert "expected a list of 2 texts" in row["distilabel_metadata"]["error_prometheus_eval"]["message"]
    assert llm.asked == []


def test_a_few_shot_example_ends_as_the_models_learned_it() -> None:
    task = made(examples=[{**ABSOLUTE, "feedback": "Right.", "result": 5}])
    assert task.prompt(ABSOLUTE)[1] == {"role": "assistant", "content": "Right. [RESULT] 5"}


def test_the_absolute_mode_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {name: ABSOLUTE[name] for name in ("instruction", "generation")}
    check_contract(provider, PrometheusEval, row, AS_ASKED, {"feedback": "Right and short.", "result": 4})


def test_the_relative_mode_keeps_to_the_contract(provider: LocalProvider) -> None:
    def relative(**more: Any) -> PrometheusEval:
        return PrometheusEval(mode="relative", reference=True, **more)

    check_contract(provider, relative, RELATIVE, "Short. [RESULT] A", {"feedback": "Short.", "result": "A"})
