"""A disk that gets full in the middle of a run. Needs the right to mount a small one."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.answering import Batch, begun, made_from_batches
from flows.engine.graph import Rows, load
from flows.ledger import Store, opened
from flows.ledger.jobs import split_custom_id
from flows.ledger.lines import unsealed
from flows.ledger.store import answer_line
from flows.store.shards import write_shard
from flows.store.storage import Storage, StorageError
from llms import AnthropicLLM, OpenAILLM
from llms.batch import BatchRequest
from llms.local_provider import LocalProvider
from tasks import TextGeneration

ROWS = 400
AT_A_TIME = 10
PROMPTS = [{"instruction": f"Tell me about number {number}."} for number in range(ROWS)]
OUTPUT: Any = {"generations": ["text"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}


class SmallDisk:
    """A folder that is a disk of its own, of eight megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes."""
        with self.ballast.open("wb", buffering=0) as file:
            known = os.statvfs(self.folder)
            left = known.f_bavail * known.f_frsize - free
            while left > 0 and (written := self._write(file, min(left, 2**16))):
                left -= written

    def _write(self, file: Any, length: int) -> int:
        try:
            return file.write(bytes(length))
        except OSError:
            return 0

    def free(self) -> None:
        self.ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def no_error_is_left_to_the_event_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Who sees one message of a full disk wants no page of `Task exception was never retrieved` beside it."""
    gc.collect()  # what earlier tests left
    logger = logging.getLogger("asyncio")
    logger.addHandler(caplog.handler)
    yield
    gc.collect()
    logger.removeHandler(caplog.handler)
    logged = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [record.getMessage() for record in logged if record.name == "asyncio"] == []


@pytest.fixture
def provider(provider: LocalProvider) -> LocalProvider:
    answers = {r"Shorten: (?P<what>.*)": "Short: {what}", r"about (?P<what>number \d+)": "All about {what}."}
    provider.set(latency=0.02, answers=answers)
    return provider


def two_steps(disk: SmallDisk, shard_rows: int = 100) -> Rows:
    first = TextGeneration(name="first", llm=OpenAILLM(model="first", max_concurrent_requests=AT_A_TIME))
    second = TextGeneration(
        name="second",
        llm=OpenAILLM(model="second", max_concurrent_requests=AT_A_TIME),
        template="Shorten: {{ generation }}",
        columns=["generation"],
        output_mappings={"generation": "short"},
    )
    return load(PROMPTS, shard_rows=shard_rows, storage=str(disk.folder / "storage")).map(first).map(second)


def check(rows: list[dict[str, Any]]) -> None:
    assert [row["short"] for row in rows] == [f"Short: All about number {number}." for number in range(ROWS)]


def asked(provider: LocalProvider) -> Counter[tuple[str, str]]:
    return Counter((each.body["model"], each.body["messages"][-1]["content"]) for each in provider.requests)


@pytest.mark.parametrize(("answered", "shard_rows"), [(30, 50), (250, ROWS), (500, 50)])
def test_a_run_stops_where_answers_cant_be_kept_and_goes_on_without_a_loss(
    provider: LocalProvider, disk: SmallDisk, answered: int, shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    append = Store.append

    def fill_and_append(self: Store, lines: Iterable[bytes]) -> None:
        if not counts and provider.stats.count(status=200) >= answered:
            disk.fill()
            counts.append(provider.stats.count(status=200))
        append(self, lines)

    monkeypatch.setattr(Store, "append", fill_and_append)

    with pytest.raises(StorageError, match="No space left on device. Free some space"):
        collect(two_steps(disk, shard_rows))

    asked_until_then = len(provider.requests)
    # What was under way when the disk got full; the rest of what is written fits into the last page of a file.
    assert asked_until_then <= counts[0] + 8 * AT_A_TIME
    disk.free()
    check(collect(two_steps(disk, shard_rows)).to_list())
    every = asked(provider)
    assert len(every) == 2 * ROWS
    assert every.total() - 2 * ROWS <= 2 * AT_A_TIME
    assert max(every.values()) <= 2


def test_a_dataset_that_finds_no_room_is_said_leaves_nothing_behind_and_costs_nothing(
    provider: LocalProvider, disk: SmallDisk
) -> None:
    (disk.folder / "storage").mkdir()
    elsewhere = disk.folder / "storage" / "datasets"
    check(collect(two_steps(disk)).to_list())
    for file in elsewhere.glob("*/*"):
        file.unlink()
    for folder in elsewhere.iterdir():
        folder.rmdir()
    provider.clear()
    disk.fill(free=50_000)

    with pytest.raises(StorageError, match="can't write the dataset to .* Free some space"):
        collect(two_steps(disk))

    assert list(elsewhere.iterdir()) == []
    disk.free()
    check(collect(two_steps(disk)).to_list())
    assert provider.requests == []


def test_answers_of_a_batch_job_that_cant_be_written_down_fail_no_row(disk: SmallDisk) -> None:
    # Its two answers to a row are two requests of a job, and are written down together as well.
    llm = AnthropicLLM(model="m", api_key="none", use_offline_batch_generation=True)
    task = TextGeneration(llm=llm, num_generations=2)
    node = load(PROMPTS, storage=str(disk.folder / "storage"), shard_rows=ROWS).map(task).node
    source = write_shard(node.run.storage, node.run.storage.path("rows.parquet"), PROMPTS)

    async def bring(batch: Batch) -> list[dict[str, Any]] | None:
        return await made_from_batches(await begun(node, 0, [source], batch), [])

    def made(put: Callable[[BatchRequest], None]) -> list[dict[str, Any]] | None:
        return asyncio.run(bring(Batch(put)))

    requests: list[BatchRequest] = []
    assert made(requests.append) is None
    keys = [split_custom_id(request.custom_id) for request in requests]
    store = opened(node.run.storage, node.space())
    store.append(answer_line(key[1], OUTPUT, "run:1", job="job") for key in keys if key is not None)
    disk.fill()

    with pytest.raises(StorageError, match="No space left on device"):
        made(requests.append)
    disk.free()
    rows = made(requests.append)

    assert len(requests) == 2 * ROWS
    assert rows is not None
    assert [row["generation"] for row in rows] == ["text"] * 2 * ROWS


def test_what_is_written_after_a_line_that_was_cut_stands_on_a_line_of_its_own(disk: SmallDisk) -> None:
    def key(number: int) -> str:
        return f"{number:016x}".ljust(32, "0")

    def line(number: int) -> bytes:
        return answer_line(key(number), OUTPUT, "run:1")

    store = Store(Storage(str(disk.folder)), "space")
    store.append([line(1)])
    disk.fill()
    with pytest.raises(StorageError):
        for number in range(1000, 2000):
            store.append([line(number)])
    disk.free()

    store.append([line(2)])
    store.refresh()

    # Less than a line was lost.
    content = Path(store.folder, "000000.answers").read_bytes()
    assert len(max((each for each in content.split(b"\n") if unsealed(each) is None), key=len)) < len(line(1999))
    assert store.find(key(1)) is not None
    assert store.find(key(2)) is not None
