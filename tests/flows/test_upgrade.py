"""A storage of the version before the ledger: its jobs are read, its answers taken over, nothing is paid twice."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import prefect.main  # noqa: F401 -- sets logging up, which would take caplog's handler away in a test
import pytest

from flows import collect, load
from flows.engine.graph import Node
from flows.ledger.records import Jobs, Wait
from flows.store.digest import digest
from flows.store.storage import Storage
from flows.waiting.leaving import seconds_to_next_poll
from llms import OpenAILLM
from llms.batch import MARK, JobFile
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from tasks import TextGeneration
from tasks.typing import Row
from tests.flows import test_batching
from tests.flows.test_batching import (
    _leave_after,  # pyright: ignore[reportPrivateUsage]
    ending,
    is_right,
)
from tests.flows.test_cleaning import job_of

provider = test_batching.provider

INTENT = "0123456789abcdef0123456789abcdef"
ROWS: list[Row] = [{"instruction": f"Tell me about number {number}."} for number in (1, 2, 3, 2, 2)]


def line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def old_keys(rows: list[Row]) -> list[str]:
    """The keys of a shard's requests: digests of the prompt, and which of equal ones of the shard each is."""
    seen: Counter[str] = Counter()
    keys: list[str] = []
    for row in rows:
        content = digest([[{"role": "user", "content": row["instruction"]}], 1])
        keys.append(f"{content}-{seen[content]}")
        seen[content] += 1
    return keys


def journal(storage: Path, folder: str, place: int, records: list[dict[str, Any]]) -> None:
    path = storage / folder / f"{place:08d}" / "inputs.journal"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(map(line, records)))


def submitted_before(storage: Path, llm: OpenAILLM, *, whole: bool = True) -> None:
    """A job as the version before submitted it, for shards of three rows, and as it noted it."""
    folder = "steps/text_generation/another-digest-than-todays"
    shards = [ROWS[:3], ROWS[3:]]
    file = JobFile(storage.parent / "job.jsonl", "/v1/chat/completions")
    with file.path.open("wb") as stream:
        for place, rows in enumerate(shards):
            for row, key in zip(rows, old_keys(rows), strict=True):
                chat: Any = [{"role": "user", "content": row["instruction"]}]
                request = llm.batch_line(llm.batch_request(f"p{place}-{key}", chat, 1)) + b"\n"
                file.custom_ids.append(f"p{place}-{key}")
                file.size += stream.write(request)
    status = run_sync(llm.create_job(file, {MARK: INTENT, "step": "text_generation"}))
    for place, rows in enumerate(shards):
        keys = old_keys(rows)[0 if whole else 1 :]
        journal(storage, folder, place, [{"j": INTENT, "x": "before:1", "ks": keys}])
    record = {
        "intent": INTENT,
        "run": "before",
        "attempt": "before:1",
        "flow_run": "",
        "step": "text_generation",
        "folder": folder,
        "llm": llm.model_dump(mode="json"),
        "queue": "queue",
        "requests": len(ROWS),
        "size": file.size,
        "tokens": file.tokens,
        "shards": {"0": "inputs", "1": "inputs"},
        "sample": file.custom_ids,
        "intended": time.time(),
        "dollars": None,
        "job": status.id,
        "state": "waiting",
        "status": "validating",
    }
    path = storage / "jobs" / "open" / digest(folder) / f"{INTENT}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("whole", [True, False])
def test_a_job_that_was_submitted_before_is_waited_for_and_read_and_nothing_is_submitted_again(
    provider: LocalProvider,
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    whole: bool,
) -> None:
    llm = OpenAILLM(model="gpt-4o", use_offline_batch_generation=True)
    submitted_before(storage, llm, whole=whole)

    _leave_after(provider, lambda: collect(load(ROWS, shard_rows=3).map(TextGeneration(llm=llm))), monkeypatch)
    with ending(provider, {"shuffle": True}):
        dataset = collect(load(ROWS, shard_rows=3).map(TextGeneration(llm=llm)))
        again = collect(load(ROWS[::-1], shard_rows=2).map(TextGeneration(name="renamed", llm=llm)))

    assert len(provider.batches) == 1
    assert all(map(is_right, [*dataset, *again]))
    # What its journals don't say any more, its results may still answer.
    assert ("can't be read any more" in caplog.text) == (not whole)
    assert not list((storage / "jobs" / "open").rglob("*.json"))


def test_answers_of_unfinished_shards_are_taken_over(provider: LocalProvider, storage: Path) -> None:
    task = TextGeneration(llm=OpenAILLM(model="gpt-4o"))
    node: Node = load(ROWS, shard_rows=3).map(task).node
    folder = node.run.storage.inside(node.folder())
    answers: list[dict[str, Any]] = [
        {
            "k": key,
            "o": {"generations": [f"Kept {place}."], "statistics": {"input_tokens": [1], "output_tokens": [1]}},
            "x": "before:1",
        }
        for place, key in enumerate(old_keys(ROWS[:3]))
    ]
    journal(storage, folder, 0, [*answers, {"k": answers[2]["k"], "x": "before:1"}])

    dataset = collect(load(ROWS, shard_rows=3).map(task))

    # The third had failed its row.
    assert dataset["generation"][:] == ["Kept 0.", "Kept 1.", "All about 3.", "All about 2.", "All about 2."]
    assert provider.stats.count("/chat/completions", 200) == 3


def test_jobs_and_waits_are_read_whose_fields_have_another_name_now(storage: Path) -> None:
    jobs = Jobs(Storage(str(storage)))
    jobs.write(replace(job_of("space"), polled=5.0))
    jobs.write_wait(Wait("run", "flow-run", ["space"], [], 1, 2.0, 3.0))
    for path in storage.rglob("*.json"):
        path.write_text(path.read_text().replace('"polled"', '"looked"').replace('"next_poll"', '"next_look"'))

    assert '"looked"' in "".join(path.read_text() for path in storage.rglob("*.json"))
    assert [record.polled for record in jobs.all_open()] == [5.0]
    assert [wait.next_poll for wait in jobs.waits()] == [3.0]


def test_the_shortest_time_between_polls_is_also_taken_by_the_name_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLFLOW_LOOK_SECONDS", "3")
    assert seconds_to_next_poll(0) == 3

    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "2")
    assert seconds_to_next_poll(0) == 2
