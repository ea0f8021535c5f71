"""Which of equal questions each is: k equal questions of a step are k samples, numbered in the order of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flows.ledger.table import Table

NOTHING = 0
"""Stands for a row that asks nothing."""


BEYOND = 1 << 32
"""More than there are equal questions of a step."""


class Claims:
    """Which askers ask each question: those that happen to ask the same have their samples beyond each other's."""

    def __init__(self) -> None:
        self._first = Table()
        self._others: dict[int, list[int]] = {}

    def offset(self, question: int, asker: int) -> int:
        """Where the samples of an asker begin. 0 for the first that comes."""
        first = self._first.get(question)
        if first is None:
            self._first.put(question, asker)
        if first is None or first == asker:
            return 0
        others = self._others.setdefault(question, [])
        if asker not in others:
            others.append(asker)
        return BEYOND * (others.index(asker) + 1)


class Samples:
    """Counts an asker's questions, shard after shard, in 16 bytes each.

    Args:
        claims: of all askers that may ask the same.
        asker: which of them it is.
    """

    def __init__(self, claims: Claims | None = None, asker: int = 0) -> None:
        self._counts = Table()
        self._claims = claims
        self._asker = asker

    def anew(self) -> Samples:
        """The same asker's, with nothing counted."""
        return Samples(self._claims, self._asker)

    def count_on(self, questions: Sequence[int]) -> list[int]:
        """How often each of a shard's questions was asked in the shards before; empty where none was."""
        times = Counter(each for each in questions if each != NOTHING)
        before: dict[int, int] = {}
        for question, more in times.items():
            known = self._counts.get(question) or 0
            self._counts.put(question, known + more)
            before[question] = known + (self._claims.offset(question, self._asker) if self._claims is not None else 0)
        return [before.get(each, 0) for each in questions] if any(before.values()) else []


def numbered(questions: Sequence[int], before: Sequence[int]) -> list[int]:
    """The number of each of a shard's questions, on top of those of the shards before."""
    seen: Counter[int] = Counter()
    numbers: list[int] = []
    for place, question in enumerate(questions):
        numbers.append((before[place] if before else 0) + seen[question])
        seen[question] += 1
    return numbers
