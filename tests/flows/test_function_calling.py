"""The ready-made flow for function calls, and the functions that come with it."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from flows.data import everyday_functions
from flows.function_calling import function_calling
from llms.local_provider import LocalProvider
from llms.root import FOLDER
from tasks import APIGenExecutionChecker, LoadDataFromDicts, SaveToDisk
from tasks.functions.apigen import read_pair
from tasks.functions.function_calls import written_calls
from tasks.functions.sandbox import Limits, Sandbox, SandboxError
from tests.conftest import LONGEST

DATA = (FOLDER / "flows/data/functions.jsonl").parent
LIBRARY = str(DATA / "everyday_functions.py")
SEEDS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "functions.jsonl").read_text(encoding="utf-8").splitlines()
]
CHOSEN = [row for row in SEEDS if row["func_name"] in {"weekday_of", "split_bill", "running_pace"}]

ANSWERS = {
    "weekday_of": ("Which weekday was it on 20 July 1969?", {"day": "1969-07-20"}),
    "split_bill": ("Four of us share a bill of 100, with 10% tip. What does each pay?", {"total": 100, "people": 0}),
    "running_pace": ("I ran 10 km in 50 minutes. How fast is that?", {"distance_km": 50, "minutes": 10}),
}


def test_requests_are_written_run_and_judged(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    written = [
        {
            "match": f'<function name="{name}">',
            "answer": json.dumps({"query": query, "call_1": {"name": name, "arguments": json.dumps(arguments)}}),
        }
        for name, (query, arguments) in ANSWERS.items()
    ]
    judged = [
        {"match": "20 July", "answer": json.dumps({"thought": "The date is right.", "passes": "yes"})},
        {"match": "I ran", "answer": json.dumps({"thought": "Distance and time are mixed up.", "passes": "no"})},
    ]
    provider.set(answers=[*written, *judged])
    target = tmp_path / "calls"

    asyncio.run(
        function_calling(
            source=LoadDataFromDicts(name="source", data=CHOSEN),
            generator={"number": 1, "num_generations": 1},
            execution_checker={"timeout": LONGEST},
            target=SaveToDisk(name="target", path=str(target)),
        )
    )

    rows = {row["func_name"]: row for row in load_from_disk(str(target)).to_list()}
    columns = ("keep_row_after_execution_check", "keep_row_after_semantic_check", "execution_result", "thought")
    found = {name: tuple(row[column] for column in columns) for name, row in rows.items()}
    assert found == {
        "weekday_of": (True, True, ['"Sunday"'], "The date is right."),
        "split_bill": (
            False,
            False,
            ["TypeError: argument people: Input should be greater than or equal to 1, got 0"],
            None,
        ),
        "running_pace": (True, False, ['"0:12 min/km"'], "Distance and time are mixed up."),
    }
    assert json.loads(rows["weekday_of"]["answers"]) == [{"name": "weekday_of", "arguments": {"day": "1969-07-20"}}]
    assert provider.stats.count("/chat/completions") == 5


def test_functions_that_cant_be_loaded_stop_the_run_before_anything_is_sent(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    with pytest.raises(SandboxError, match="there's no '.*nowhere.py'"):
        asyncio.run(function_calling(execution_checker={"libpath": str(tmp_path / "nowhere.py")}))

    assert provider.requests == []


@pytest.mark.parametrize("row", SEEDS, ids=[row["func_name"] for row in SEEDS])
def test_a_description_names_the_parameters_that_the_function_has(row: dict[str, Any]) -> None:
    described = json.loads(row["func_desc"])
    parameters = inspect.signature(getattr(everyday_functions, row["func_name"])).parameters

    assert described["name"] == row["func_name"]
    assert list(described["parameters"]["properties"]) == list(parameters)
    required = [name for name, each in parameters.items() if each.default is each.empty]
    assert described["parameters"]["required"] == required
    assert described in json.loads(row["tools"])


def test_every_function_has_a_description() -> None:
    sandbox = Sandbox(LIBRARY, Limits(seconds=LONGEST, memory=2**28, result_length=1000))
    sandbox.start()

    assert sorted(row["func_name"] for row in SEEDS) == sandbox.functions
    sandbox.stop()


def test_the_examples_that_come_with_the_functions_work() -> None:
    examples = sorted({example for row in SEEDS for example in row["examples"].split("\n\n")})
    checker = APIGenExecutionChecker(libpath=LIBRARY, timeout=LONGEST)

    made = checker.apply([{"answers": written_calls(read_pair(example)[1])} for example in examples])

    assert [row["execution_result"] for row in made if not row["keep_row_after_execution_check"]] == []
    assert len(made) == 6
    checker.unload()
