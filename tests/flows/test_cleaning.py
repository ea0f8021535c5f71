"""What `clean` removes from a storage, and what it leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import collect, load
from flows.cleaning import unused
from flows.cli import main
from flows.engine.event_loops import setting
from flows.engine.run import run_started
from flows.ledger.records import JobRecord, Jobs, RunNote, Wait
from flows.store.results import RunResult, write_result
from flows.store.storage import Storage
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration

ROWS = [{"instruction": f"Tell me about number {number}."} for number in range(6)]


def generate(model: str = "m", *, use_cache: bool = True) -> Any:
    return collect(TextGeneration(llm=OpenAILLM(model=model)).map(load(ROWS, shard_rows=4, use_cache=use_cache)))


def grow_old(folder: Path, days: float) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, times=(time.time() - days * 86_400,) * 2)


def clean(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["clean", *arguments])


def names(storage: Path, days: float = 30) -> list[str]:
    return [each.name.partition("/")[0] for each in unused(Storage(str(storage)), days)]


def test_what_no_run_used_for_a_while_is_listed_and_removed_when_that_is_agreed_to(
    provider: LocalProvider, storage: Path
) -> None:
    generate()
    grow_old(storage, 40)
    before = sorted(storage.rglob("*"))

    listed = clean()
    assert sorted(storage.rglob("*")) == before
    removed = clean("--yes")

    assert "nothing is removed without --yes" in listed.output
    assert "   40 days  steps/text_generation/" in listed.output
    assert removed.exit_code == 0
    assert not [path for path in storage.rglob("*") if path.is_file()]
    assert "0.0 MB in 0 places" in clean().output


def test_what_is_younger_stays(provider: LocalProvider, storage: Path) -> None:
    generate()
    grow_old(storage, 29)

    assert names(storage) == []
    assert sorted(set(names(storage, 28))) == ["datasets", "ledger", "sources", "steps"]


def test_rows_that_a_run_used_again_are_as_if_new_and_those_of_another_model_go(
    provider: LocalProvider, storage: Path
) -> None:
    generate("used")
    generate("left")
    grow_old(storage, 40)
    generate("used")
    provider.clear()

    assert sorted(names(storage)) == ["datasets", "ledger", "steps"]
    assert clean("--yes").exit_code == 0
    generate("used")
    assert not provider.requests
    generate("left")
    assert len(provider.requests) == len(ROWS)


def test_runs_without_a_cache_go_one_by_one(provider: LocalProvider, storage: Path) -> None:
    generate(use_cache=False)
    grow_old(storage, 40)
    generate(use_cache=False)

    (old,) = (each for each in unused(Storage(str(storage)), 30) if each.name.startswith("steps/"))

    old.remove()
    assert old.name.split("/")[3].startswith("run-")
    assert len(list(storage.glob("steps/*/*/run-*"))) == 1


def job_of(space: str) -> JobRecord:
    return JobRecord(
        intent="intent",
        run="run",
        attempt="run:1",
        flow_run="",
        step="text_generation",
        space=space,
        llm={},
        queue="queue",
        requests=1,
        size=1,
        tokens=1,
        shards="0-0",
        sample=[],
        intended=0.0,
    )


def test_what_open_jobs_and_waiting_runs_need_stays(provider: LocalProvider, storage: Path) -> None:
    jobs = Jobs(Storage(str(storage)))
    for model in ("asked in a batch", "waited for", "left"):
        generate(model)
    one, two, left = (path.name for path in (storage / "ledger").iterdir())
    jobs.write(job_of(one))
    jobs.write_wait(Wait("run", "flow-run", [two], [], 1, 0.0, 0.0))
    jobs.write_note("flow-run", RunNote("run:1", 1))
    jobs.write_note("ended", RunNote("ended:1", 1))
    grow_old(storage, 400)

    assert clean("--yes").exit_code == 0

    assert sorted(path.name for path in (storage / "ledger").iterdir()) == sorted([one, two])
    assert not (storage / "ledger" / left).exists()
    assert [record.intent for record in jobs.all_open()] == ["intent"]
    assert [wait.flow_run for wait in jobs.waits()] == ["flow-run"]
    assert jobs.note_of("flow-run") == RunNote("run:1", 1)
    assert jobs.note_of("ended") is None


def test_answers_go_by_their_model_and_by_the_flow_that_alone_used_them(provider: LocalProvider, storage: Path) -> None:
    generate("one")
    generate("two")
    by_flow(lambda: generate("two"), "mine")
    by_flow(lambda: generate("three"), "mine")
    grow_old(storage, 40)

    def models(**wanted: str) -> list[str]:
        found = unused(Storage(str(storage)), 30, **wanted)
        return sorted(json.loads((storage / each.name / "about.json").read_text())["model"] for each in found)

    assert models(model="one") == ["one"]
    assert models(flow="mine") == ["three"]
    assert models(flow="another") == []


def by_flow(work: Callable[[], Any], name: str) -> None:
    """Do it in a flow of that name, without a server."""
    with setting(run_started, lambda run: setattr(run, "flow_name", name)):
        work()


def test_what_a_process_that_died_had_begun_to_write_goes_after_a_day(provider: LocalProvider, storage: Path) -> None:
    generate()
    shard = next(storage.rglob("*.parquet"))
    begun = shard.with_name(f".{shard.name}.0123abcd")
    begun.write_bytes(b"half")

    assert names(storage) == []
    grow_old(begun, 1.1)
    (found,) = unused(Storage(str(storage)), 30)
    found.remove()

    assert not begun.exists()
    assert shard.exists()


def test_of_an_object_store_the_datasets_opened_here_are_cleaned(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STILLFLOW_STORAGE", "memory://cleaning")
    generate()
    grow_old(tmp_path / ".stillflow", 40)

    output = clean("--yes").output

    assert "memory://cleaning has to be cleaned by a lifecycle rule" in output
    assert not (tmp_path / ".stillflow" / "datasets").exists()


def test_what_a_run_made_is_forgotten_when_nobody_looked_at_it_for_a_while(storage: Path) -> None:
    write_result(Storage(str(storage)), RunResult("old", "old", "flow"))
    grow_old(storage, 40)
    write_result(Storage(str(storage)), RunResult("new", "new", "flow"))

    assert clean("--yes").exit_code == 0
    assert [path.name for path in (storage / "results").iterdir()] == ["new.json"]
