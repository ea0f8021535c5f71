"""Tasks of several rounds, and those that start from nothing, get the same columns by every adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from llms.base import AsyncLLM
from llms.local_provider import LocalProvider
from tasks import (
    BitextRetrievalGenerator,
    EmbeddingTaskGenerator,
    EvolComplexity,
    EvolComplexityGenerator,
    EvolInstruct,
    EvolInstructGenerator,
    EvolQuality,
    MonolingualTripletGenerator,
    PairwiseJudge,
    Task,
)
from tasks.sources.generators import GeneratorTask
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.tasks.contract import adapters, llm

QUESTION = {"instruction": "How high is K2?"}
TRIPLET = {"S1": "A ship sails.", "S2": "A vessel is under way.", "S3": "A sheep bleats."}
TASKS = {"task_1": "Match a tool to its trade.", "task_2": "Match a riddle to its answer."}
VERDICT = {"rationale": "It is the clearer one.", "verdict": "A"}
REWRITTEN = (
    {"new_instruction": "How high is K2 in feet, all told?"},
    {"new_instruction": "How high is K2 in miles, and who measured it first?"},
)
BETTER = ({"new_response": "8,611 m, in feet 28,251."}, {"new_response": "8,611 m, and second to Everest alone."})
MAKERS: dict[str, tuple[Callable[..., Task], Row, Row, Row]] = {
    "evolved": (partial(EvolInstruct, num_evolutions=2), QUESTION, *REWRITTEN),
    "made more complex": (partial(EvolComplexity, num_evolutions=2), QUESTION, *REWRITTEN),
    "made better": (partial(EvolQuality, num_evolutions=2), {**QUESTION, "response": "8,611 m."}, *BETTER),
    "judged in both orders": (PairwiseJudge, {**QUESTION, "generations": ["A", "B"]}, VERDICT, VERDICT),
    "from topics": (partial(EvolInstructGenerator, num_instructions=2, min_length=45), {}, *REWRITTEN),
    "from topics, harder": (partial(EvolComplexityGenerator, num_instructions=2, min_length=45), {}, *REWRITTEN),
    "tasks": (partial(EmbeddingTaskGenerator, num_tasks=2), {}, TASKS, TASKS),
    "two languages": (partial(BitextRetrievalGenerator, num_rows=2), {}, TRIPLET, TRIPLET),
    "triplets": (partial(MonolingualTripletGenerator, num_rows=2), {}, TRIPLET, TRIPLET),
}
"""By what it does: a Task, a row that it takes, its model's first answer, and what the model says to that."""


def made(make: Callable[..., Task], row: Row, model: AsyncLLM) -> list[Row]:
    task = make(llm=model)
    task.load()
    given = list(task.seed_rows()) if isinstance(task, GeneratorTask) else [row]
    rows = [row for some in task.process(given) for row in some]
    assert [failure_in(row) for row in rows] == [None] * len(rows)
    return [{name: value for name, value in row.items() if name != METADATA} for row in rows]


@pytest.mark.parametrize(("make", "row", "first", "second"), MAKERS.values(), ids=MAKERS)
def test_rows_are_the_same_by_every_adapter(
    provider: LocalProvider, make: Any, row: Row, first: Row, second: Row
) -> None:
    matches = {"in feet": second, "": first}
    provider.set(answers=[{"match": match, "answer": json.dumps(answer)} for match, answer in matches.items()])
    expected = made(make, row, llm())

    assert expected
    for adapter in adapters(provider):
        if not getattr(adapter, "use_offline_batch_generation", False):
            assert made(make, row, adapter) == expected, adapter
