"""What a run has saved it knows when it wakes up or is retried: it isn't saved anew, nor refused to itself."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType

from flows import Rows, collect, flow, load, save
from flows.engine.event_loops import setting
from flows.engine.report import report_markdown
from flows.engine.run import Run, run_started
from flows.store.digest import digest
from flows.store.results import DatasetResult, RunResult, result_of, write_result
from flows.store.storage import Storage
from tasks import KeepColumns, SaveToDisk, SaveToFiles
from tasks.targets.places import TargetError

ROWS = [{"instruction": "How high is K2?"}]


def kept(rows: list[dict[str, Any]] = ROWS) -> Rows:
    return load(rows).map(KeepColumns(name="kept", columns=["instruction"]))


def in_processes(work: Callable[[], None], count: int = 2, **notes: str) -> list[Run]:
    """The runs of the processes of one attempt, each of which is told what those before it saved."""
    runs: list[Run] = []

    def started(run: Run) -> None:
        run.id, run.attempt, run.passes = "run", "run:1", len(runs)
        run.saved.digests = dict(runs[-1].saved.digests if runs else notes)
        runs.append(run)

    for _ in range(count):
        with setting(run_started, started):
            work()
    return runs


def written(path: Path) -> int:
    return path.stat().st_ino


def test_a_run_that_wakes_up_is_not_refused_by_a_target_that_has_its_rows(storage: Path, tmp_path: Path) -> None:
    target = SaveToDisk(path=str(tmp_path / "out"), overwrite=False)

    first, woken = in_processes(lambda: save(kept(), target))

    assert woken.saved.places == first.saved.places == [str(tmp_path / "out")]
    assert woken.saved.datasets["kept"].saved == str(tmp_path / "out")
    assert f"- `{tmp_path / 'out'}`" in report_markdown(woken)
    with pytest.raises(TargetError, match="is there already and overwrite=False"):
        save(kept(), target)


def test_each_of_two_targets_of_a_step_gets_its_rows_once(storage: Path, tmp_path: Path) -> None:
    places = [tmp_path / "rows.jsonl", tmp_path / "rows.csv"]
    times: list[list[int]] = []

    def save_both() -> None:
        rows = kept()
        for place in places:
            save(rows, SaveToFiles(path=str(place)))
        times.append([written(place) for place in places])

    _, woken = in_processes(save_both)

    assert times[0] == times[1]
    assert woken.saved.places == [str(place) for place in places]


def test_other_rows_are_saved_to_a_target_again(storage: Path, tmp_path: Path) -> None:
    target = SaveToFiles(path=str(tmp_path / "rows.jsonl"))
    several = iter([ROWS, ROWS * 2])

    in_processes(lambda: save(kept(next(several)), target))

    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_a_note_of_an_earlier_version_is_understood(storage: Path, tmp_path: Path) -> None:
    target = SaveToFiles(path=str(tmp_path / "rows.jsonl"), overwrite=False)
    (first,) = in_processes(lambda: save(kept(), target), count=1)
    before = written(tmp_path / "rows.jsonl")
    shards = [ref.digest for _, ref in first.nodes[-1].stream.items]
    old = digest([target.model_dump(mode="json"), shards])

    in_processes(lambda: save(kept(), target), count=1, kept=old)

    assert written(tmp_path / "rows.jsonl") == before


def test_a_look_at_rows_that_were_saved_leaves_their_place_known(storage: Path, tmp_path: Path) -> None:
    def save_and_look() -> None:
        rows = kept()
        save(rows, SaveToFiles(path=str(tmp_path / "rows.jsonl")))
        collect(rows)

    (run,) = in_processes(save_and_look, count=1)

    assert run.saved.datasets["kept"].saved == str(tmp_path / "rows.jsonl")


def test_the_place_of_a_dataset_stays_in_what_is_kept_of_a_run(tmp_path: Path) -> None:
    storage, made = Storage(str(tmp_path)), DatasetResult("kept", 1, saved="data/rows", prompts=["a"])
    write_result(storage, RunResult("run", "n", "f", datasets=[made], saves={"a": "1 data/rows"}))
    write_result(storage, RunResult("run", "n", "f", datasets=[dataclasses.replace(made, rows=2, saved="")]))

    result = result_of(storage, "run")

    assert result is not None
    assert result.datasets == [dataclasses.replace(made, rows=2)]
    assert result.saves == {"a": "1 data/rows"}


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("is_async", [False, True])
def test_whoever_calls_a_flow_gets_what_its_last_attempt_gave(storage: Path, is_async: bool) -> None:
    attempts: list[int] = []

    def made() -> int:
        rows = len(collect(load(ROWS)))
        attempts.append(rows)
        if len(attempts) == 1:
            raise ConnectionError("the network was away for a moment")
        return rows

    async def made_async() -> int:
        return await asyncio.to_thread(copy_context().run, made)

    retried = flow(retries=1, retry_delay_seconds=0)(made_async if is_async else made)

    given: Any = retried()

    assert (asyncio.run(given) if is_async else given) == len(ROWS)
    assert len(attempts) == 2


@pytest.mark.usefixtures("prefect")
def test_whoever_calls_a_flow_gets_the_error_of_its_last_attempt(storage: Path) -> None:
    attempts: list[str] = []

    @flow(retries=1, retry_delay_seconds=0)
    def failing() -> None:
        collect(load(ROWS))
        attempts.append(f"attempt {len(attempts) + 1}")
        raise ConnectionError(attempts[-1])

    with pytest.raises(ConnectionError, match="attempt 2"):
        failing()


def test_a_retry_after_a_later_failure_is_not_refused_by_a_target_that_has_its_rows(
    storage: Path, prefect: str, tmp_path: Path
) -> None:
    tries: list[int] = []

    @flow(retries=1)
    def twice() -> int:
        tries.append(len(save(kept(), SaveToDisk(path=str(tmp_path / "out"), overwrite=False))))
        if len(tries) == 1:
            raise ConnectionError("later")
        return len(tries)

    state = twice(return_state=True)

    assert (state.type, len(tries)) == (StateType.COMPLETED, 2)
    assert f"saved to {tmp_path / 'out'}" in str(state.message)
    with pytest.raises(TargetError, match="is there already and overwrite=False"):
        twice()
