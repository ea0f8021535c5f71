"""Tasks that ask several times for a row: a retry asks again what a failed row is to blame on, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.errors import TooManyFailedRowsError
from flows.engine.graph import load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import PairwiseJudge

ROWS = [{"instruction": "How high is K2?", "generations": ["8,611 m.", "High."]}]
FIRST, SECOND = r'name="A">\n8,611', r'name="A">\nHigh'
FOR_A, FOR_B = "Rationale: Exact.\nVerdict: A", "Rationale: Exact.\nVerdict: B"


def judged(task: PairwiseJudge) -> list[Any]:
    return list(collect(load(ROWS).map(task)))


@pytest.mark.parametrize("unreadable", [FIRST, SECOND])
def test_of_two_requests_asked_together_both_are_asked_again(
    provider: LocalProvider, storage: Path, unreadable: str
) -> None:
    good = [{"match": FIRST, "answer": FOR_A}, {"match": "", "answer": FOR_B}]
    task = PairwiseJudge(llm=OpenAILLM(model="m"), use_default_structured_output=False)
    provider.set(answers=[{"match": unreadable, "answer": "Hard to say."}, *good])
    with pytest.raises(TooManyFailedRowsError):
        judged(task)
    provider.set(answers=good)

    # The second try finds the answers in the ledger, and fails nothing by them.
    (row,) = judged(task)

    assert row["preferred"] == "A"
    assert provider.stats.count("/chat/completions") == 4
