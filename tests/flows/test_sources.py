"""Sources that were the results of other runs: rows that failed there are new rows here, and no error gets lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, concatenate_datasets

from flows.authoring.saving import collect, save
from flows.engine.errors import PipelineError
from flows.engine.graph import load
from tasks import (
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    SaveToDisk,
    SaveToFiles,
    TextGeneration,
)
from tasks.sources.loaders import Loader
from tasks.steps import METADATA, GeneratorStep, failure_in
from tasks.typing import GeneratorStepOutput, Row
from tests.flows.test_types import Echo

ROWS = [{"instruction": "a"}, {"instruction": "refuse b"}, {"instruction": "c"}]


class Willing(Echo):
    """Refuses nothing."""

    async def agenerate(self, input: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        self.asked.append(input[-1]["content"])
        counts = [1] * num_generations
        return {
            "generations": ["fine"] * num_generations,
            "statistics": {"input_tokens": counts, "output_tokens": counts},
        }


ERROR = {"type": "LLMError", "message": "no answer today", "retryable": False}


@pytest.fixture(params=["disk", "parquet", "jsonl", "csv", "dataset"])
def saved(request: pytest.FixtureRequest, storage: Path, tmp_path: Path) -> Any:
    """A dataset with a failed row, as a source."""
    kind: str = request.param
    path = str(tmp_path / f"saved.{kind}")
    target = SaveToDisk(path=path) if kind in ("disk", "dataset") else SaveToFiles(path=path)
    made = save(load(ROWS).map(TextGeneration(llm=Echo())), target, max_failed_rows=1)
    assert [failure_in(row) is None for row in made] == [True, False, True]
    if kind == "dataset":
        return Dataset.load_from_disk(path)
    return LoadDataFromDisk(dataset_path=path) if kind == "disk" else LoadDataFromFileSystem(data_files=path)


def test_a_row_that_failed_in_an_earlier_run_is_asked_again(
    saved: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    llm = Willing()

    made = collect(load(saved).map(TextGeneration(llm=llm)), max_failed_rows=0)

    assert sorted(llm.asked) == sorted(row["instruction"] for row in ROWS)
    assert made["generation"][:] == ["fine"] * 3
    assert [failure_in(row) for row in made] == [None] * 3
    assert "rows of it that failed in text_generation in an earlier run, and are new rows now: 1" in caplog.text


def test_the_repaired_rows_go_beside_those_of_the_first_run(storage: Path, tmp_path: Path) -> None:
    first = save(load(ROWS).map(TextGeneration(llm=Echo())), SaveToDisk(path=f"{tmp_path}/first"), max_failed_rows=1)

    again = collect(load(LoadDataFromDisk(dataset_path=f"{tmp_path}/first")).map(TextGeneration(llm=Willing())))

    assert again.features == first.features
    assert len(concatenate_datasets([first, again])) == 6


def test_a_row_that_failed_in_a_step_that_isnt_there_is_asked_and_keeps_its_error(
    saved: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    llm = Willing()
    task = TextGeneration(llm=llm, name="second", output_mappings={"generation": "again"})

    made = collect(load(saved).map(task), max_failed_rows=0)

    assert len(llm.asked) == 3
    assert made["again"][:] == ["fine"] * 3
    assert made["generation"][1] is None
    assert [row[METADATA]["earlier_error_text_generation"] for row in made] == [None, ERROR, None]
    assert all(failure_in(row) is None for row in made)
    assert "Their metadata keeps the old error as earlier_error_text_generation" in caplog.text


def test_a_row_that_fails_again_says_so(saved: Any) -> None:
    made = collect(load(saved).map(TextGeneration(llm=Echo())), max_failed_rows=1)

    assert [row[METADATA]["error_text_generation"] for row in made] == [None, ERROR, None]


@pytest.mark.parametrize("late", [False, True])
def test_a_column_of_a_source_that_gets_the_name_of_another_is_refused_before_anything_is_asked(
    storage: Path, tmp_path: Path, late: bool
) -> None:
    llm = Willing()
    rows: list[Row] = [*[{"a": "1"}] * (1200 * late), {"a": "1", "instruction": "i"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl", output_mappings={"a": "instruction"})

    for source in (file, LoadDataFromDicts(data=rows, output_mappings={"a": "instruction"})):
        with pytest.raises(PipelineError, match="'a' and 'instruction' would both be 'instruction'.*another name"):
            collect(load(source).map(TextGeneration(llm=llm)))
    assert llm.asked == []
    swapped = LoadDataFromDicts(data=[{"a": "1", "b": "2"}], output_mappings={"a": "b", "b": "a"})
    assert collect(load(swapped)).to_list() == [{"b": "1", "a": "2"}]


def test_a_row_of_a_source_that_tells_no_columns_keeps_all_of_its_own(storage: Path) -> None:
    class Made(GeneratorStep):
        def process(self, offset: int = 0) -> GeneratorStepOutput:
            yield [{"a": "1"}, {"a": "1", "b": "2"}], True

    with pytest.raises(PipelineError, match="'a' and 'b' would both be 'b'"):
        collect(load(Made(output_mappings={"a": "b"})))


def test_a_generation_that_gets_the_name_of_another_output_is_refused_unasked(storage: Path) -> None:
    llm = Willing()

    with pytest.raises(PipelineError, match="'generation' and 'model_name' would both be 'model_name'"):
        collect(load(ROWS).map(TextGeneration(llm=llm, output_mappings={"generation": "model_name"})))
    assert llm.asked == []


@pytest.mark.parametrize("other", ["no JSON", "[1]", [1], 5])
def test_what_isnt_metadata_is_kept_in_it_and_said(
    storage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: Any
) -> None:
    rows = [{"instruction": "a", METADATA: ""}, {"instruction": "b", METADATA: other}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl")

    made = collect(load(source).map(TextGeneration(llm=Echo())))

    assert [row[METADATA]["earlier_metadata"] for row in made] == [None, other]
    assert "in 1 row distilabel_metadata isn't an object" in caplog.text
    source = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl", output_mappings={METADATA: "metadata"})
    assert collect(load(source))["metadata"][:] == ["", other]


def test_a_task_alone_asks_again_what_failed_in_it_and_passes_over_what_failed_elsewhere() -> None:
    own = {"instruction": "a", METADATA: {"error_text_generation": ERROR, "raw_output_text_generation": None}}
    other = {"instruction": "b", METADATA: {"error_other": ERROR}}
    llm = Willing()

    made = next(TextGeneration(llm=llm).process([own, other]))

    assert llm.asked == ["a"]
    assert [row["generation"] for row in made] == ["fine", None]
    assert made[0][METADATA]["error_text_generation"] is None
    assert made[1][METADATA]["error_other"] == ERROR


def test_the_types_of_an_own_source_are_those_of_its_values(storage: Path) -> None:
    class Numbers(Loader):
        """Doesn't tell its types."""

        def rows(self, offset: int) -> Any:
            return iter([{"n": number} if number < 300 else {"n": str(number)} for number in range(offset, 301)])

        def columns(self) -> frozenset[str]:
            return frozenset({"n"})

        def __str__(self) -> str:
            return "numbers"

    assert collect(load(Numbers()))["n"][:] == [*range(300), "300"]
