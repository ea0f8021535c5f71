"""Shards and the ledger in an S3-compatible store: a run that is killed there goes on in another process."""

from __future__ import annotations

import json
import os
import posixpath
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from flows.ledger import Store
from flows.ledger.store import answer_line
from flows.store.storage import Storage, StorageError
from llms.local_provider import FaultRule, LocalProvider
from tests.conftest import LONGEST, ROOT, free_port, wait_for
from tests.object_store import BUCKET, object_store

AT_ONCE = 5
ROWS = 120
PROGRAM = f"""
import json
from flows import collect, load
from llms import OpenAILLM
from tasks import TextGeneration

rows = [{{"instruction": f"Tell me about number {{number}}."}} for number in range({ROWS})]
first = TextGeneration(name="first", llm=OpenAILLM(model="first", max_concurrent_requests={AT_ONCE}))
second = TextGeneration(
    name="second",
    llm=OpenAILLM(model="second", max_concurrent_requests={AT_ONCE}),
    template="Shorten: {{{{ generation }}}}",
    columns=["generation"],
    output_mappings={{"generation": "short"}},
)
dataset = collect(second.map(first.map(load(rows, shard_rows=30))))
print(json.dumps(dataset.to_list()))
"""
OUTPUT: Any = {"generations": ["text"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("store")) as environment:
        yield environment


@pytest.fixture(autouse=True)
def no_connections_of_before() -> Iterator[None]:
    """s3fs keeps a connection for every program's life, wherever the environment points since."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(store: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    """A folder of the test's own in the store."""
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    return Storage(f"s3://{BUCKET}/{request.node.name}")


def start(storage: str, provider: LocalProvider, home: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "STILLFLOW_STORAGE": storage,
        "OPENAI_BASE_URL": provider.base_url,
        "HOME": str(home),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_after_a_kill_another_machine_sends_only_what_the_store_does_not_have(
    provider: LocalProvider, s3: Storage, tmp_path: Path
) -> None:
    provider.set(latency=0.1, answers={r"number (?P<number>\d+)": "All about {number}."})
    # Nobody is told to stop before: half of the answers is all that the first process gets.
    provider.set(faults=[FaultRule(after=ROWS, hang=LONGEST)])

    killed = start(s3.root, provider, tmp_path / "one")
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= ROWS, what="answers", pause=0.005)
    wait_for(lambda: answers_in(s3), what="the first answers in the store", pause=0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    # Nothing that it sent comes later than this.
    provider.stop()
    sent_before, there = len(provider.requests), len(answers_in(s3))
    provider.set(faults=[])
    provider.start()
    # Another home: nothing of the first process is on this machine.
    output, errors = start(s3.root, provider, tmp_path / "two").communicate(timeout=LONGEST)

    assert output, errors.decode()
    rows = json.loads(output)
    assert [row["instruction"] for row in rows] == [f"Tell me about number {number}." for number in range(ROWS)]
    assert [row["generation"] for row in rows] == [f"All about {number}." for number in range(ROWS)]
    assert all(row["short"] for row in rows)
    sent = Counter(seen.body["model"] + seen.body["messages"][0]["content"] for seen in provider.requests)
    assert len(sent) == 2 * ROWS
    assert max(sent.values()) <= 2
    # An object may have been on its way into the store at the kill.
    assert len(provider.requests) - sent_before <= 2 * ROWS - there


def answers_in(storage: Storage) -> set[str]:
    """The keys of all answers in the store."""
    spaces = map(posixpath.basename, storage.folders(storage.path("ledger")))
    return {key for space in spaces for _, letter, key, _ in Store(storage, space).lines() if letter == "o"}


def test_a_storage_does_the_same_in_a_store_as_in_a_folder(s3: Storage, tmp_path: Path) -> None:
    for storage in (s3, Storage(str(tmp_path))):
        assert not storage.exists(storage.path("a", "one.bin"))
        assert storage.files(storage.path("a"), ".bin") == []
        for name in ("a/one.bin", "a/two.bin", "a/b/three.bin", "a/four.txt"):
            storage.write(storage.path(name), name.encode())

        assert storage.read(storage.path("a", "one.bin")) == b"a/one.bin"
        assert storage.files(storage.path("a"), ".bin") == [storage.path("a/one.bin"), storage.path("a/two.bin")]
        assert storage.folders(storage.path("a")) == [storage.path("a/b")]
        assert storage.files_below(storage.path("a"), ".bin") == sorted(
            storage.path(each) for each in ("a/one.bin", "a/two.bin", "a/b/three.bin")
        )

        storage.remove(storage.path("a/one.bin"))
        storage.remove(storage.path("a/never.bin"))
        storage.remove_all([storage.path("a/two.bin"), storage.path("a/b/three.bin")])
        assert storage.files_below(storage.path("a"), ".bin") == []
        with pytest.raises(FileNotFoundError):
            storage.read(storage.path("a/one.bin"))


def test_a_store_that_is_not_there_or_refuses_is_named_in_the_error(s3: Storage) -> None:
    nowhere = Storage("s3://no-such-bucket/runs")

    with pytest.raises(StorageError, match="s3://no-such-bucket/runs"):
        nowhere.write(nowhere.path("a"), b"1")


def test_a_store_without_a_way_to_it_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    gone = Storage("s3://gone/runs")

    with pytest.raises(StorageError, match="STILLFLOW_STORAGE"):
        gone.exists(gone.path("a"))


def line(key: str) -> bytes:
    return answer_line(full(key), OUTPUT, "run:1")


def full(key: str) -> str:
    return key.encode().hex().ljust(32, "0")


def kept(storage: Storage, keys: Iterable[str], space: str = "space") -> set[str]:
    """Those of the keys that a process that opens the store now finds."""
    store = Store(storage, space)
    store.refresh()
    return {key for key in keys if store.find(full(key)) is not None}


def test_answers_reach_the_store_while_the_shard_is_still_under_way(s3: Storage) -> None:
    store = Store(s3, "space")
    store.append([line("a")])

    wait_for(lambda: kept(s3, "a"), what="the first answer in the store")
    store.append([line("b")])
    store.close()

    assert kept(s3, "abc") == {"a", "b"}


def test_of_several_who_make_an_object_at_a_time_one_does(s3: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: s3.create(s3.path("claim"), str(number).encode()), range(8)))

    assert made.count(True) == 1
    assert s3.read(s3.path("claim")) == str(made.index(True)).encode()


class SlowStorage(Storage):
    """A store whose writes wait for their way, and fail as often as ordered."""

    failures: list[str]
    writing: threading.Event
    way: threading.Event

    def write(self, path: str, content: bytes) -> None:
        self.writing.set()
        assert self.way.wait(LONGEST)
        if self.failures:
            raise StorageError(self.failures.pop())
        super().write(path, content)


def slow_storage(failures: list[str]) -> SlowStorage:
    storage = SlowStorage(f"memory://slow-{time.time_ns()}")
    for name, value in {"failures": failures, "writing": threading.Event(), "way": threading.Event()}.items():
        object.__setattr__(storage, name, value)
    storage.way.set()
    return storage


def test_nobody_who_appends_waits_for_the_store() -> None:
    storage = slow_storage([])
    store = Store(storage, "space")
    storage.way.clear()
    store.append([line("0")])
    wait_for(storage.writing.is_set, what="a write of the store")

    for number in range(1, 1000):
        store.append([line(f"{number}")])

    assert not storage.way.is_set()
    storage.way.set()
    store.close()
    assert len(kept(store.storage, map(str, range(1000)))) == 1000


def test_a_write_that_failed_is_told_at_the_next_answer_and_made_up_for_at_the_end() -> None:
    storage = slow_storage(["the store is away"])
    store = Store(storage, "space")
    store.append([line("a")])
    wait_for(lambda: store._problem is not None, what="the failure")

    with pytest.raises(StorageError, match="the store is away"):
        store.append([line("b")])
    store.close()

    assert kept(storage, "abc") == {"a", "b"}
    timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
    assert not [each for each in timers if each.function == store._flush_in_time]
