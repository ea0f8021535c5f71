"""Verdicts on solutions: right, wrong or undecided, who decided, and why; and the step that verifiers are made from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from llms.parameters import short
from tasks.functions.sandbox import SandboxLateError
from tasks.steps import Step, failure_in
from tasks.typing import Columns, Row, StepInput, StepOutput

VERDICT_COLUMNS = ("correct", "verified_by", "verification")
NO_SOLUTION = "there is no solution"


class Verdict(NamedTuple):
    """What is known of a solution."""

    correct: bool | None = None
    """None: nobody has decided it."""
    by: str | None = None
    """Who decided."""
    why: str | None = None
    """Why it isn't right, or isn't decided."""


class Verifier(Step):
    """A step that decides whether solutions are right, where no verifier before it has.

    It takes one solution, or a list of them, for which its columns are lists as well. It fails no row: a solution
    that it can't decide stays undecided, and the next verifier has its turn. Write `reference` and `verdicts`.
    """

    takes_failed_rows = True

    @property
    @abstractmethod
    def reference(self) -> str:
        """The column that it decides by. A row without a value there isn't decided here."""

    @abstractmethod
    def verdicts(self, reference: Any, solutions: Sequence[str]) -> list[Verdict]:
        """The verdicts on solutions that aren't decided. Raises ValueError where the reference is of no use."""

    @property
    def inputs(self) -> Columns:
        return {"generation": True, self.reference: False, **dict.fromkeys(VERDICT_COLUMNS, False)}

    @property
    def outputs(self) -> Columns:
        return list(VERDICT_COLUMNS)

    def process(self, inputs: StepInput) -> StepOutput:
        yield [self._verified(row) for row in inputs]

    def _verified(self, row: Row) -> Row:
        if failure_in(row) is not None:
            return {**dict.fromkeys(VERDICT_COLUMNS), **row}
        solutions, verdicts = solutions_in(row), verdicts_in(row)
        reference, places = row.get(self.reference), undecided(solutions, verdicts)
        if places and reference is not None and reference != "":
            try:
                found = self.verdicts(reference, [cast("str", solutions[place]) for place in places])
            except ValueError as error:
                found = [Verdict(why=f"{self.reference}: {error}")] * len(places)
            except SandboxLateError as error:
                found = [Verdict(why=str(error))] * len(places)
            for place, verdict in zip(places, found, strict=True):
                verdicts[place] = verdict
        return {**row, **columns_of(verdicts, row)}


def solutions_in(row: Row) -> list[str | None]:
    """The solutions in a row's `generation`; None for one without a text."""
    value: Any = row.get("generation")
    given = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [each if isinstance(each, str) and each.strip() else None for each in given]


def verdicts_in(row: Row) -> list[Verdict]:
    """What the verifiers before have decided of each solution."""
    solutions = solutions_in(row)
    columns = [_listed(row.get(name), len(solutions)) for name in VERDICT_COLUMNS]
    known = [Verdict(*each) for each in zip(*columns, strict=True)]
    return [
        verdict if solution is not None else Verdict(why=NO_SOLUTION)
        for solution, verdict in zip(solutions, known, strict=True)
    ]


def _listed(value: Any, count: int) -> list[Any]:
    given = cast("list[Any]", value) if isinstance(value, list) else [value]
    return given if len(given) == count else [None] * count


def undecided(solutions: Sequence[str | None], verdicts: Sequence[Verdict]) -> list[int]:
    """The places of the solutions that nobody has decided."""
    both = enumerate(zip(solutions, verdicts, strict=True))
    return [place for place, (solution, verdict) in both if solution is not None and verdict.correct is None]


def columns_of(verdicts: Sequence[Verdict], row: Row) -> Row:
    """Verdicts as columns: lists where the row's `generation` is one."""
    lists = [[verdict[number] for verdict in verdicts] for number in range(len(VERDICT_COLUMNS))]
    grouped = isinstance(row.get("generation"), list)
    return {name: each if grouped else each[0] for name, each in zip(VERDICT_COLUMNS, lists, strict=True)}


class PassRate(Step):
    """How many of a problem's solutions are right: its difficulty, for the model that wrote them.

    Those that no verifier could decide don't count, and are counted in a column of their own.

    Input columns:
        correct: a list with True, False or None for each solution.

    Output columns:
        pass_rate: of the solutions that are decided, the share that is right; None where none is.
        undecided: how many aren't.

    Example:
        >>> from tasks import PassRate
        >>> next(PassRate().process([{"correct": [True, False, None, True, True]}]))
        [{'correct': [True, False, None, True, True], 'pass_rate': 0.75, 'undecided': 1}]
    """

    takes_failed_rows = True

    @property
    def inputs(self) -> Columns:
        return ["correct"]

    @property
    def outputs(self) -> Columns:
        return ["pass_rate", "undecided"]

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, **dict.fromkeys(self.outputs), **self._counted(row)} for row in inputs]

    def _counted(self, row: Row) -> Row:
        if failure_in(row) is not None:
            return {}
        value: Any = row.get("correct")
        if not isinstance(value, list):
            raise ValueError(
                f"correct: expected a list of verdicts, got {short(value)}; have the solutions of a problem in one row,"
                " by group_generations=True"
            )
        decided = [each for each in cast("list[bool | None]", value) if each is not None]
        return {
            "pass_rate": sum(decided) / len(decided) if decided else None,
            "undecided": len(cast("list[Any]", value)) - len(decided),
        }
