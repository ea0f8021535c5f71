"""Final answers, compared with the right one: what is the same, what isn't, what can't be told, and what would hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tasks import VerifyAnswer
from tasks.typing import Row
from tests.conftest import LONGEST, wait_for
from tests.tasks.dangerous import dangerous_values


@pytest.fixture(scope="module")
def verifier() -> Iterator[VerifyAnswer]:
    """Patient: the machine may be busy."""
    step = VerifyAnswer(timeout=LONGEST)
    yield step
    step.unload()


def verified(step: VerifyAnswer, answer: Any, generation: Any, **more: Any) -> Row:
    (row,) = next(step.process([{"answer": answer, "generation": generation, **more}]))
    return row


SAME = [
    ("34", "34"),
    ("1/2", r"\frac{1}{2}"),
    ("0.5", r"50\%"),
    ("50%", "0.5"),
    ("1/3", "0.333333"),
    ("2 1/2", "2.5"),
    ("1,000", "1000"),
    ("1e6", "1000000"),
    ("0.001", "10^{-3}"),
    ("143/155", r"\dfrac{143}{155}"),
    ("x = 5", "5"),
    ("5", "x=5"),
    ("y=2x+1", "2x+1"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("√2", r"\sqrt{2}"),
    ("18√13/13", r"\frac{18}{\sqrt{13}}"),
    ("pi/2", r"\frac{\pi}{2}"),
    ("2π", r"2\pi"),
    ("10!", "3628800"),
    (r"\binom{5}{2}", "10"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1, 2", "2, 1"),
    ("3, -3", r"\pm 3"),
    (r"\{3-\sqrt{5}, 3+\sqrt{5}\}", r"3\pm\sqrt5"),
    ("x=1 or x=2", r"\{1,2\}"),
    ("(2, 5), (5, 2)", "(5,2),(2,5)"),
    ("x<3", "3>x"),
    (r"(-\infty, 3)", "x<3"),
    ("(-1, 6)", "-1 < x < 6"),
    ("3x-7", "-7+3x"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (r"90^\circ", "90"),
    ("3 hours", r"3\text{ h}"),
    ("12 apples", "12"),
    ("$4.50", "4.5 dollars"),
    ("Monday", r"\text{monday}"),
    ("(A)", "A"),
    ("yes", "True"),
    (r"\frac{1}{2x}", r"\frac{0.5}{x}"),
    (5, "5.0"),
    (0.1, r"\frac{1}{10}"),
    ("3 * 12 = 36, and 36 - 2 = 34.\n#### 34", "34"),
    (r"Then it is \boxed{\frac{3}{4}}.", "0.75"),
]


@pytest.mark.parametrize(("answer", "said"), SAME)
def test_what_is_the_same_is_right(verifier: VerifyAnswer, answer: Any, said: str) -> None:
    row = verified(verifier, answer, rf"First this, then that. So it is \boxed{{{said}}}.")

    assert (row["correct"], row["verified_by"], row["verification"]) == (True, "answer", None)


WRONG = [
    ("34", "35"),
    ("1/3", "0.33"),
    ("-5", "5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("x^2+2x+1", "(y+1)^2"),
    ("3 hours", "4"),
    ("10%", "12%"),
    ("A", "C"),
    ("yes", "No"),
    ("no", "True"),
    (r"\frac{1}{2x}", r"\frac{1}{2}x"),
    (r"\sqrt{2x}", r"\sqrt{2}x"),
    ("e^{2x}", "e^{2}x"),
    ("x<3", r"x \le 3"),
    ("1000000000000000000000000000001", "1000000000000000000000000000002"),
]


@pytest.mark.parametrize(("answer", "said"), WRONG)
def test_what_is_something_else_is_wrong_and_says_what_was_expected(
    verifier: VerifyAnswer, answer: str, said: str
) -> None:
    row = verified(verifier, answer, rf"\boxed{{{said}}}")

    assert (row["correct"], row["verified_by"]) == (False, "answer")
    assert row["verification"] == f"the answer is {said!r}, expected {answer!r}"


UNDECIDED = {
    "other words": ("Paris", r"\boxed{the city of Paris}", "in words"),
    "words for a set": ("no solution", r"\boxed{\emptyset}", "in words"),
    "another unit": ("3 hours", r"\boxed{180 minutes}", "in another unit"),
    "no final answer": ("34", "Let us count the bottles first.", "no final answer"),
    "an empty box": ("34", r"It is \boxed{}.", "no final answer"),
    "a box that is cut off": ("34", r"It is \boxed{3", "no final answer"),
    "thoughts without an end": ("34", r"<think>34? No, wait", "no final answer"),
    "a box in thoughts without an end": ("34", r"<think>Try \boxed{34}. No, wait", "no final answer"),
    "nothing": ("34", "", "there is no solution"),
    "None": ("34", None, "there is no solution"),
    "a number": ("34", 34, "there is no solution"),
    "what is no mathematics": ("5", r"\boxed{-}", "isn't mathematics"),
    "a list as the right answer": (["34"], r"\boxed{34}", "expected the right answer as a text or a number"),
    "a text that is too long": ("5", r"\boxed{" + "1+" * 1000 + "1}", "in words"),
}


@pytest.mark.parametrize(("answer", "generation", "why"), UNDECIDED.values(), ids=UNDECIDED)
def test_what_cant_be_told_stays_undecided_and_says_why(
    verifier: VerifyAnswer, answer: Any, generation: Any, why: str
) -> None:
    row = verified(verifier, answer, generation)

    assert (row["correct"], row["verified_by"]) == (None, None)
    assert why in row["verification"]


def test_an_answer_that_was_only_thought_of_is_not_the_final_one(verifier: VerifyAnswer) -> None:
    row = verified(verifier, "4", r"<think>First guess: \boxed{3}.</think>The answer is: 4")

    assert row["correct"] is True


ENDLESS = ["9^{9^{9^{9}}}", "10!!!!!", "10^{10^{10}}", r"\prod_{k=1}^{10^{8}} k", "(" * 900, r"2^{2^{2^{2^{2^{2}}}}}"]


def test_what_would_take_forever_ends_at_its_limit_and_costs_only_itself() -> None:
    hasty = VerifyAnswer(timeout=1.0)

    def correct() -> bool | None:
        row = verified(hasty, "5", [*(rf"\boxed{{{each}}}" for each in ENDLESS), r"\boxed{5}"])
        assert row["correct"][:-1] == [None] * len(ENDLESS)
        assert all("comparing them failed" in why for why in row["verification"][:-1])
        return row["correct"][-1]

    # A slow machine may need longer for any answer.
    wait_for(correct, what="an answer in time", pause=0.02)
    hasty.unload()


def test_nothing_of_an_answer_is_run(verifier: VerifyAnswer, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    row = verified(verifier, "5", [rf"\boxed{{{value}}}" for value in dangerous_values(marker)])

    assert True not in row["correct"]
    assert not marker.exists()


def test_what_was_decided_before_stays_and_a_row_without_an_answer_is_left_alone(verifier: VerifyAnswer) -> None:
    solutions = [r"\boxed{1}", r"\boxed{2}", r"\boxed{3}"]
    before = {"correct": [False, None, True], "verified_by": ["tests", None, "x"], "verification": ["slow", "?", None]}

    assert verified(verifier, None, solutions, **before) == {"answer": None, "generation": solutions, **before}
    row = verified(verifier, "2", solutions, **before)
    assert row["correct"] == [False, True, True]
    assert row["verified_by"] == ["tests", "answer", "x"]


def test_it_works_in_threads_side_by_side(verifier: VerifyAnswer) -> None:
    found: dict[int, Any] = {}

    def verify(number: int) -> None:
        found[number] = verified(verifier, rf"\sqrt{{{number}}}", rf"\boxed{{{number}^{{1/2}}}}")["correct"]

    threads = [threading.Thread(target=verify, args=(number,)) for number in (2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {2: True, 3: True, 5: True}


def test_a_comparison_cant_read_the_users_files_nor_use_the_network(verifier: VerifyAnswer) -> None:
    verified(verifier, r"\sqrt{2}", r"\boxed{2^{1/2}}")

    assert verifier._sandbox is not None
    assert asdict(verifier._sandbox.limits)["untrusted"]
