"""The ready-made flow for process reward models, and the labels in flows, online and in batches."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from flows.authoring.preview import preview
from flows.authoring.saving import collect
from flows.engine.graph import load
from flows.process_rewards import process_rewards
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from llms.root import FOLDER
from tasks import LoadDataFromDicts, MathShepherdCompleter, SaveToDisk
from tasks.steps import METADATA

CRATES = "A crate holds 12 bottles. How many are in 3 crates, if 2 are missing?"
CATS = "How many legs have 5 cats?"


def solution(answer: Any, *steps: str) -> dict[str, Any]:
    return {"steps": list(steps), "answer": answer}


def rule(pattern: str, *answers: Any) -> dict[str, Any]:
    return {"match": pattern, "answer": [json.dumps(answer) for answer in answers]}


ANSWERS = [
    rule(
        r"Carry it on from step 2[\s\S]*crate[\s\S]*36\.",
        solution("34 bottles", "36 - 2 = 34."),
        solution("38", "36 + 2 = 38."),
    ),
    rule(r"Carry it on from step 2[\s\S]*crate[\s\S]*14\.", solution("42", "14 * 3 = 42.")),
    rule(r"Carry it on from step 2[\s\S]*cats", solution("20", "That's 20.")),
    rule(
        r"Write 2 solutions[\s\S]*crate",
        {
            "solution_1": solution("34", "3 * 12 = 36.", "36 - 2 = 34."),
            "solution_2": solution("42", "12 + 2 = 14.", "14 * 3 = 42."),
        },
    ),
    rule(
        r"Write 2 solutions[\s\S]*cats",
        {"solution_1": solution("20", "5 * 4 = 20."), "solution_2": solution("20", "A cat has 4.", "5 * 4 = 20.")},
    ),
    rule(r"crate", solution("$34$", "3 * 12 - 2 = 34.")),
    rule(r"cats", solution("20", "5 * 4 = 20.")),
]

LABELS = [
    ["Step 1: 3 * 12 = 36. +", "Step 2: 36 - 2 = 34. The answer is: 34 +"],
    ["Step 1: 12 + 2 = 14. -", "Step 2: 14 * 3 = 42. The answer is: 42 -"],
    ["Step 1: 5 * 4 = 20. The answer is: 20 +"],
    ["Step 1: A cat has 4. +", "Step 2: 5 * 4 = 20. The answer is: 20 +"],
]


def test_problems_become_labelled_solutions_in_the_format_for_training(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    provider.set(answers=ANSWERS)
    target = tmp_path / "rewards"

    asyncio.run(
        process_rewards(
            source=LoadDataFromDicts(name="source", data=[{"instruction": CRATES}, {"instruction": CATS}]),
            solutions={"M": 2},
            completer={"N": 2, "soft_estimation": True},
            target=SaveToDisk(name="target", path=str(target)),
        )
    )

    rows = load_from_disk(str(target)).to_list()
    assert [row["solutions"] for row in rows] == LABELS
    assert [row["scores"] for row in rows] == [[0.5, 1.0], [0.0, 0.0], [1.0], [1.0, 1.0]]
    assert [row["prompt"] for row in rows] == [CRATES, CRATES, CATS, CATS]
    assert rows[1]["completions"] == ["Step 1: 12 + 2 = 14.", "Step 2: 14 * 3 = 42. The answer is: 42"]
    assert [row["labels"] for row in rows] == [[True, True], [False, False], [True], [True, True]]
    assert rows[0]["golden_solution"][-1] == "The answer is: $34$"
    assert {rows[0][name] for name in ("golden_model", "solution_model", "model_name")} == {"gpt-4o", "gpt-4o-mini"}
    assert sum(row[METADATA]["statistics_completer"]["output_tokens"] for row in rows) > 0


@pytest.mark.parametrize("offline", [False, True])
def test_the_labels_are_the_same_online_and_in_batches_and_arent_asked_for_again(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    provider.set(answers=ANSWERS, batch_seconds=0.0)
    solutions = [[re.sub(r" [+-]$", "", step) for step in each] for each in LABELS[:2]]
    row = {"instruction": CRATES, "golden_solution": "34", "solutions": solutions}
    llm = OpenAILLM(model="judge", max_retries=0, use_offline_batch_generation=offline)

    def labels() -> list[Any]:
        return collect(MathShepherdCompleter(llm=llm, N=2).map(load([row, row])))["solutions"][:]

    assert labels() == [LABELS[:2]] * 2
    assert bool(provider.batches) is offline
    provider.clear()
    assert labels() == [LABELS[:2]] * 2
    assert provider.requests == []


def test_a_format_with_other_tags_than_the_completers_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ParameterError, match=r"format_prm.tags: .*\['yes', 'no'\], got \['\+', '-'\]"):
        preview(process_rewards, {"completer": {"tags": ["yes", "no"]}})


def test_solutions_one_by_one_are_samples_of_their_own(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    provider.set(answers=[rule("Write 1 solution", {"solution_1": solution("20", "5 * 4 = 20.")}), *ANSWERS])

    dataset = asyncio.run(
        process_rewards(
            source=LoadDataFromDicts(name="source", data=[{"instruction": CATS}]),
            solutions={"M": 1, "num_generations": 3},
            target=SaveToDisk(name="target", path=str(tmp_path / "out")),
        )
    )

    assert dataset["completions"][:] == [["Step 1: 5 * 4 = 20. The answer is: 20"]] * 3
    assert [request.body.get("n") for request in provider.requests] == [None, 3]


def test_the_problems_that_come_with_the_project_are_all_different() -> None:
    lines = (FOLDER / "flows/data/math_problems.jsonl").read_text(encoding="utf-8").splitlines()
    problems = [json.loads(line)["instruction"] for line in lines]

    assert len(set(problems)) == len(problems) >= 20
