"""Solutions verified by their final answers: compared with the one that is known to be right, by their values."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, PrivateAttr

from llms.extras import MissingPackageError, how_to_install
from llms.parameters import short
from tasks.base import UnreadableAnswerError
from tasks.functions.sandbox import Limits, Sandbox
from tasks.math.math_answers import DISPLAY, boxed_in, plain, read_answer, same_answer, split_answer
from tasks.math.math_solutions import final_answer
from tasks.reading.replies import without_thoughts
from tasks.verifying.verdicts import Verdict, Verifier

EQUAL_ANSWERS = str(Path(__file__).with_name("equal_answers.py"))
LONGEST_ANSWER = 1000
"""In characters. What is longer isn't compared as mathematics."""


class VerifyAnswer(Verifier):
    """Decides by final answers whether solutions are right, with math-verify.

    The final answer of a solution is what its last `\\boxed{}` holds, or what it announces (`The answer is: 18`,
    `#### 18`). `1/2`, `0.5`, `\\frac{1}{2}` and `50%` are the same, and so are `2\\sqrt{3}` and `\\sqrt{12}`, sets
    in any order, `x < 3` and `(-\\infty, 3)`. Units don't count, unless both answers have one and they differ.

    Undecided stays a solution without a final answer; answers in words that aren't the same words; measures in
    different units (`3 hours` and `180 minutes`); and what takes longer than `timeout` (`9^{9^{9^9}}`): answers are
    compared in a process of their own, with limits on time and memory, and nothing that a model wrote is run as code.
    Give these to a judge: `JudgeSolution`.

    It needs the extra `math`.

    Input columns:
        generation: a solution, or a list of them.
        answer (optional): the right answer, or a solution that ends in it. Without one, nothing is decided.
        correct, verified_by, verification (optional): what verifiers before it decided. It stays.

    Output columns:
        correct: whether the solution is right; None for undecided. Of a list of solutions, a list, as below.
        verified_by: `answer`, where it decided.
        verification: why it isn't right, or isn't decided.

    Source: https://github.com/huggingface/Math-Verify.

    Example:
        >>> from tasks import VerifyAnswer
        >>> verifier = VerifyAnswer()
        >>> row = {"answer": "1/2", "generation": ["So it is \\\\boxed{0.5}.", "The answer is: 2", "No idea."]}
        >>> (made,) = next(verifier.process([row]))
        >>> verifier.unload()
        >>> made["correct"]
        [True, False, None]
        >>> made["verification"]
        [None, "the answer is '2', expected '1/2'", 'it has no final answer']
    """

    form_first = ("timeout",)
    timeout: Annotated[
        float, Field(gt=0, title="Seconds", description="How long the comparison of an answer may take.")
    ] = 5.0
    memory_mb: Annotated[
        int, Field(ge=1, title="Memory", description="In MiB, for a comparison, beyond what math-verify holds.")
    ] = 512

    _sandbox: Sandbox | None = PrivateAttr(default=None)

    @property
    def reference(self) -> str:
        return "answer"

    def load(self) -> None:
        """Raises MissingPackageError, with the command that installs it. The process starts when it's needed."""
        if importlib.util.find_spec("math_verify") is None:
            raise MissingPackageError(f"VerifyAnswer needs math_verify: {how_to_install('math')}")

    def unload(self) -> None:
        if self._sandbox is not None:
            self._sandbox.stop()
        self._sandbox = None

    def verdicts(self, reference: Any, solutions: Sequence[str]) -> list[Verdict]:
        right = reference_in(reference)
        answers = [answer_in(solution) for solution in solutions]
        known: dict[str, Verdict] = {
            answer: self._verdict(right, answer) for answer in dict.fromkeys(answers) if answer is not None
        }
        return [Verdict(why="it has no final answer") if answer is None else known[answer] for answer in answers]

    def _verdict(self, right: str, answer: str) -> Verdict:
        """The verdict on an answer."""
        if same_answer(right, answer):
            return self._decided(True)
        wrong = f"the answer is {short(answer)}, expected {short(right)}"
        one, other = read_answer(right), read_answer(answer)
        if one.value is not None and other.value is not None and one.unit and other.unit and one.unit != other.unit:
            return Verdict(why=f"{wrong}: in another unit")
        choices = choice_of(right), choice_of(answer)
        if None not in choices:
            same = choices[0] == choices[1]
            return self._decided(same, None if same else wrong)
        if in_words(right) or in_words(answer):
            return Verdict(why=f"{wrong}: in words")
        equal, why = self._equal(as_latex(right), as_latex(answer))
        return Verdict(why=f"{wrong}: {why}") if equal is None else self._decided(equal, None if equal else wrong)

    def _decided(self, correct: bool, why: str | None = None) -> Verdict:
        return Verdict(correct, "answer", why)

    def _equal(self, right: str, answer: str) -> tuple[bool | None, str]:
        """Whether two answers are equal; None, with the reason, where that can't be told. Raises SandboxError."""
        if self._sandbox is None:
            self.load()
            limits = Limits(self.timeout, self.memory_mb * 2**20, LONGEST_ANSWER, untrusted=True)
            self._sandbox = Sandbox(EQUAL_ANSWERS, limits)
        outcome = self._sandbox.call("equal", {"right": right, "answer": answer})
        if not outcome.kept:
            return None, f"comparing them failed ({outcome.result})"
        return cast("bool | None", json.loads(outcome.result)), "one of them isn't mathematics"


def reference_in(value: Any) -> str:
    """The right answer in a column, which may hold a number, the answer, or a solution that ends in it.

    Raises:
        ValueError: it holds none.
    """
    if isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected the right answer as a text or a number, got {short(value)}")
    return boxed_in(value) or split_answer(value)[1] or value.strip()


def answer_in(solution: str) -> str | None:
    """The final answer of a solution; None where it has none. What a model only thought isn't part of it."""
    try:
        said = without_thoughts(solution)
    except UnreadableAnswerError:
        return None
    return boxed_in(said) or final_answer(said)


COMMAND = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}|\\[A-Za-z]+")
WORD = re.compile(r"[^\W\d_]{3,}")
FUNCTIONS = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh", "cosh"),
    *("tanh", "log", "exp", "sqrt", "lim", "max", "min", "gcd", "lcm", "mod", "det", "infty", "infinity", "deg"),
}
CHOICE = re.compile(r"[a-z]|yes|no|true|false")


def in_words(answer: str) -> bool:
    """Whether an answer is, at least in part, in words, which math-verify would take for products of letters."""
    if read_answer(answer).value is not None:
        return False
    return len(answer) > LONGEST_ANSWER or any(
        word.lower() not in FUNCTIONS for word in WORD.findall(COMMAND.sub(" ", plain(answer)))
    )


def choice_of(answer: str) -> str | None:
    """Which of the few words and letters it is that choices are made of: two that differ don't mean the same."""
    said = plain(answer).strip("()").lower()
    return {"yes": "true", "no": "false"}.get(said, said) if CHOICE.fullmatch(said) else None


SIGNS = (
    (r"√\s*\(", "sqrt("),
    (r"√\s*(\d+|\w)", r"\\sqrt{\1}"),
    (r"(?<![\\A-Za-z])(?:pi\b|π)|π", r"\\pi "),
    (r"(?<![\\A-Za-z])inf(?:inity|ty)?\b|∞", r"\\infty "),
    (r"≤|<=", r"\\le "),
    (r"≥|>=", r"\\ge "),
    (r"[−–]", "-"),
    ("×", r"\\times "),
    ("·", r"\\cdot "),
    ("∪", r"\\cup "),
    ("∅", r"\\emptyset "),
    ("°", r"^\\circ "),
    (r"(?<!\\)\$", ""),
)


def as_latex(answer: str) -> str:
    """An answer as math-verify reads it; of a number, its value alone, so that no unit is taken for letters."""
    number = read_answer(answer)
    if number.value is not None:
        top, bottom = number.value.as_integer_ratio()
        # A decimal may be a rounded fraction.
        value = f"{Decimal(top) / bottom:f}" if "." in plain(answer) else str(number.value)
        return f"{value}\\%" if number.unit == "percent" else value
    text = DISPLAY.sub(" ", answer)
    for pattern, replacement in SIGNS:
        text = re.sub(pattern, replacement, text)
    return text.strip()
