"""The judge of solutions: whom it is asked about, the replies that models send, and what it can't decide."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llms import AuthenticationError, RateLimitError
from llms.local_provider import LocalProvider
from tasks import JudgeSolution, UnreadableAnswerError
from tasks.steps import METADATA, failure_in
from tasks.verifying.judge import read_verdict
from tests.tasks.contract import check_contract, llm, made_offline, rows_of
from tests.tasks.one_reply import OneReplyLLM

CITY = {"problem": "Where does the Seine end?", "answer": "Le Havre", "generation": "In the harbour of Le Havre."}
AS_ASKED = "Rationale: It's the same city.\nVerdict: right"
REASON = "It's the same city."

REPLIES = {
    "the form that was asked for": AS_ASKED,
    "bold": f"**Rationale:** {REASON}\n\n**Verdict:** **Right**",
    "another order": f"Verdict: right\nRationale: {REASON}",
    "no label on the rationale": f"{REASON}\n\nFinal verdict: right.",
    "thoughts": f"<think>Verdict: wrong?</think>{AS_ASKED}",
    "a fence": f"```\n{AS_ASKED}\n```",
    "JSON": json.dumps({"rationale": REASON, "verdict": "right"}),
    "JSON in a fence, with a preface": f"Sure:\n```json\n{json.dumps({'Verdict': 'RIGHT', 'rationale': REASON})}\n```",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_verdict_is_read_however_it_is_dressed(reply: str) -> None:
    assert read_verdict(reply) == (True, "judge", REASON)


@pytest.mark.parametrize(("said", "verdict"), [("wrong", (False, "judge", REASON)), ("Unsure", (None, None, REASON))])
def test_it_may_find_it_wrong_or_be_unsure(said: str, verdict: Any) -> None:
    assert read_verdict(f"Rationale: {REASON}\nVerdict: {said}") == verdict


@pytest.mark.parametrize(
    "reply", ["", "I'd rather not.", "Verdict: right or wrong", f"{AS_ASKED}\nVerdict: wrong", '{"rationale": "x"}']
)
def test_a_reply_that_doesnt_say_one_verdict_is_none(reply: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_verdict(reply)


def test_it_keeps_to_the_contract_of_tasks(provider: LocalProvider) -> None:
    columns = {"correct": True, "verified_by": "judge", "verification": REASON}
    reply = json.dumps({"rationale": REASON, "verdict": "right"})

    check_contract(provider, JudgeSolution, CITY, reply, columns, broken=None)


@pytest.mark.parametrize("offline", [False, True])
def test_it_is_asked_about_undecided_solutions_alone(provider: LocalProvider, offline: bool) -> None:
    provider.set(
        answers=[
            {"match": "harbour", "answer": json.dumps({"rationale": REASON, "verdict": "right"})},
            {"match": "Rouen", "answer": json.dumps({"rationale": "Another city.", "verdict": "wrong"})},
        ],
        batch_seconds=0.0,
    )
    row = {
        **CITY,
        "generation": ["Le Havre", "In Rouen.", None, "In the harbour of Le Havre."],
        "correct": [True, None, None, None],
        "verified_by": ["answer", None, None, None],
        "verification": [None, "in words", "there is no solution", "in words"],
    }

    made = made_offline(JudgeSolution(llm=llm(use_offline_batch_generation=offline)), row)

    assert made["correct"] == [True, False, None, True]
    assert made["verified_by"] == ["answer", "judge", None, "judge"]
    assert made["verification"] == [None, "Another city.", "there is no solution", REASON]
    assert len(made[METADATA]["raw_output_judge_solution"]) == 2
    assert made[METADATA]["statistics_judge_solution"]["output_tokens"] > 0


def test_it_isnt_asked_where_all_is_decided() -> None:
    model = OneReplyLLM(reply=AS_ASKED)
    row = {**CITY, "generation": ["a", None], "correct": [False, None], "verified_by": ["answer", None]}

    (made,) = rows_of(JudgeSolution(llm=model), [row])

    assert model.asked == []
    assert made["correct"] == [False, None]


def test_it_sees_the_right_answer_and_not_the_solution_that_leads_there() -> None:
    row = {**CITY, "answer": "It begins in Burgundy, and so on.\n#### Le Havre"}

    ((message,), schema) = JudgeSolution(llm=llm()).prompt(row)

    assert "<right_answer>\nLe Havre\n</right_answer>" in message["content"]
    assert "Burgundy" not in message["content"]
    assert schema["properties"]["verdict"]["enum"] == ["right", "wrong", "unsure"]
    ((alone,), _) = JudgeSolution(llm=llm()).prompt({**row, "answer": None})
    assert "right_answer" not in alone["content"]
    assert "Solve the problem yourself first" in alone["content"]


def test_a_reply_that_cant_be_read_leaves_its_solution_undecided_and_fails_no_row() -> None:
    (made,) = rows_of(JudgeSolution(llm=OneReplyLLM(reply="Hm.")), [CITY])

    assert failure_in(made) is None
    assert (made["correct"], made["verified_by"]) == (None, None)
    assert made["verification"].startswith("the judge gave no verdict: expected ")


def test_a_solution_that_the_provider_refuses_stays_undecided_and_the_others_are_judged(
    provider: LocalProvider,
) -> None:
    provider.set(
        answers=[{"match": "", "answer": json.dumps({"rationale": REASON, "verdict": "right"})}],
        faults=[{"match": "Rouen", "status": 400, "message": "no such city"}],
    )

    (made,) = rows_of(JudgeSolution(llm=llm()), [{**CITY, "generation": ["In Rouen.", "In Le Havre."]}])

    assert failure_in(made) is None
    assert made["correct"] == [None, True]
    assert "no such city" in made["verification"][0]


def test_what_may_pass_fails_the_row_so_that_a_retry_asks_again(provider: LocalProvider) -> None:
    provider.set(faults=[{"match": "Rouen", "status": 429}])

    (made,) = rows_of(JudgeSolution(llm=llm()), [{**CITY, "generation": ["In Rouen.", "In Le Havre."]}])

    failure = failure_in(made)
    assert failure is not None
    assert failure["type"] == RateLimitError.__name__


def test_a_key_that_isnt_taken_stops_all(provider: LocalProvider) -> None:
    provider.set(api_key="another")

    with pytest.raises(AuthenticationError):
        rows_of(JudgeSolution(llm=llm()), [CITY])


def test_examples_are_shown_as_judgements() -> None:
    example = {**CITY, "correct": False, "verified_by": "judge", "verification": "Another city."}
    task = JudgeSolution(llm=llm(), examples=[example], use_default_structured_output=False)

    asked, said, _ = task.prompt(CITY)

    assert "harbour" in asked["content"]
    assert said == {"role": "assistant", "content": "Rationale: Another city.\nVerdict: wrong"}


def test_an_answer_that_is_no_number_is_not_compared_with(provider: LocalProvider) -> None:
    (made,) = rows_of(JudgeSolution(llm=llm()), [{**CITY, "answer": float("nan")}])

    assert failure_in(made) is not None
    assert provider.stats.count("/chat/completions") == 0
