"""Problems solved by a model: the form that is asked for, thoughts and solutions apart, and what has no text."""

from __future__ import annotations

from typing import Any

import pytest

from llms import LLM, GenerateOutput
from llms.local_provider import LocalProvider
from tasks import FilterRows, PassRate, SolveProblem
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.tasks.contract import check_contract, llm, rows_of

PROBLEM = "A crate holds 12 bottles. How many are in 3 crates, if 2 are missing?"
SOLVED = r"36 - 2 = 34: \boxed{34}"


class Says(LLM):
    """Gives its generations, each with the thoughts beside it."""

    generations: list[str | None]
    reasoning: list[str | None] | None = None

    @property
    def model_name(self) -> str:
        return "says"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        counts = [1] * num_generations
        output: GenerateOutput = {
            "generations": self.generations[:num_generations],
            "statistics": {"input_tokens": counts, "output_tokens": counts},
        }
        if self.reasoning is not None:
            output["reasoning"] = self.reasoning[:num_generations]
        return [output for _ in inputs]


def solved(generations: list[str | None], reasoning: list[str | None] | None = None, **options: Any) -> list[Row]:
    model = Says(generations=generations, reasoning=reasoning)
    return rows_of(SolveProblem(llm=model, num_generations=len(generations), **options), [{"problem": PROBLEM}])


def test_it_keeps_to_the_contract_of_tasks(provider: LocalProvider) -> None:
    def make(**options: Any) -> SolveProblem:
        return SolveProblem(add_reasoning=False, **options)

    check_contract(provider, make, {"problem": PROBLEM}, SOLVED, {"solution": SOLVED}, broken="  ")


@pytest.mark.parametrize(
    ("generation", "beside", "solution", "reasoning"),
    [
        (SOLVED, "3 * 12 is 36.", SOLVED, "3 * 12 is 36."),
        (f"<think>\n3 * 12 is 36.\n</think>\n\n{SOLVED}", None, SOLVED, "3 * 12 is 36."),
        (f"3 * 12 is 36.</think>{SOLVED}", None, SOLVED, "3 * 12 is 36."),
        (f"<think></think>{SOLVED}", None, SOLVED, None),
        (SOLVED, None, SOLVED, None),
    ],
    ids=["beside", "in tags", "without the first tag", "empty", "none"],
)
def test_thoughts_stand_beside_the_solution_wherever_they_came(
    generation: str, beside: str | None, solution: str, reasoning: str | None
) -> None:
    (row,) = solved([generation], [beside])

    assert (row["solution"], row["reasoning"]) == (solution, reasoning)


def test_of_several_solutions_one_without_a_text_is_none_and_the_others_stay() -> None:
    (row,) = solved([SOLVED, None, "<think>Let me see", " "], group_generations=True)

    assert failure_in(row) is None
    assert row["solution"] == [SOLVED, None, None, None]
    assert row[METADATA]["unfinished_solve_problem"] == [None, True, True, True]


def test_a_row_fails_where_no_solution_has_a_text() -> None:
    (row,) = solved([None, "<think>Let me see"], group_generations=True)

    failure = failure_in(row)
    assert failure is not None
    assert failure["type"] == "UnreadableAnswerError"
    assert row["solution"] is None


PROGRAM = [{"input": "1 2", "output": "3"}]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"answer": "34"}, r"in its simplest form, in \boxed{}."),
        ({"answer": 34}, r"in its simplest form, in \boxed{}."),
        ({}, "End with the conclusion."),
        ({"answer": "", "tests": []}, "End with the conclusion."),
        ({"tests": "assert add(1, 2) == 3"}, "The solution is code in Python, which uses"),
        ({"tests": "assert add(1,"}, "The solution is code in Python, which uses"),
        ({"tests": PROGRAM, "answer": "34"}, "It reads from standard input, prints to standard output"),
        ({"tests": {"inputs": [[1]], "outputs": [2], "fn_name": "double"}}, "with the function `double`, which uses"),
    ],
)
def test_the_form_is_asked_for_that_can_be_verified_and_nothing_is_given_away(columns: Row, wanted: str) -> None:
    (message,) = SolveProblem(llm=llm()).prompt({"problem": PROBLEM, **columns})

    assert PROBLEM in message["content"]
    assert wanted in message["content"]
    assert "34" not in message["content"]
    assert "1, 2" not in message["content"]


def test_a_model_is_asked_to_think_aloud_where_that_is_wanted() -> None:
    row = {"problem": PROBLEM}

    assert "<think>" in SolveProblem(llm=llm(), think_aloud=True).prompt(row)[0]["content"]
    assert "<think>" not in SolveProblem(llm=llm()).prompt(row)[0]["content"]


@pytest.mark.parametrize(
    ("correct", "rate", "undecided"),
    [
        ([True, False, None, True, True], 0.75, 1),
        ([False, False], 0.0, 0),
        ([True], 1.0, 0),
        ([None, None], None, 2),
        ([], None, 0),
    ],
)
def test_the_pass_rate_is_of_the_solutions_that_are_decided(
    correct: list[bool | None], rate: float | None, undecided: int
) -> None:
    (row,) = next(PassRate().process([{"correct": correct}]))

    assert (row["pass_rate"], row["undecided"]) == (rate, undecided)


def test_a_row_that_failed_before_has_no_pass_rate_and_solutions_one_by_one_are_refused() -> None:
    failed = {"correct": None, METADATA: {"error_solve_problem": {"type": "x", "message": "y"}}}

    assert next(PassRate().process([failed]))[0]["pass_rate"] is None
    assert next(FilterRows(column="correct", lowest=1).process([failed])) == [failed]
    with pytest.raises(ValueError, match="expected a list of verdicts, got True; .* group_generations=True"):
        next(PassRate().process([{"correct": True}]))
