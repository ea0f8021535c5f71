"""The journal, whoever writes to it in whatever order, and whatever becomes of its file."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.journal import Entries, Journal, encode_line, read_line, read_lines
from flows.storage import Storage

bounded = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

keys = st.sampled_from("abcd")
attempts = st.sampled_from(["run:1", "run:2"])
texts = st.text(max_size=8)
FAILURE = {"type": "ExpiredError", "message": "", "retryable": True}


def output(text: str) -> dict[str, Any]:
    return {"generations": [text], "statistics": {"input_tokens": [1], "output_tokens": [2]}}


records = st.one_of(
    st.builds(lambda key, text, attempt: {"k": key, "o": output(text), "x": attempt}, keys, texts, attempts),
    st.builds(lambda key, text: {"k": key, "o": output(text), "b": 1}, keys, texts),
    st.builds(lambda key, attempt: {"k": key, "x": attempt}, keys, attempts),
    st.builds(lambda key, attempt: {"k": key, "x": attempt, "e": FAILURE}, keys, attempts),
    st.builds(lambda some, attempt: {"j": "job", "x": attempt, "ks": some}, st.lists(keys, max_size=3), attempts),
)
written = st.lists(records, max_size=12)


def lines_of(some: Sequence[dict[str, Any]]) -> list[bytes]:
    return [encode_line(each) for each in some]


def entries_of(content: bytes) -> Entries:
    entries = Entries()
    read_lines(content, entries)
    return entries


def said(entries: Entries) -> tuple[Any, ...]:
    """All that a run goes by; how often a job is named makes no difference to it."""
    jobs = {key: set(some) for key, some in entries.jobs.items()}
    return entries.outputs, entries.batched, entries.asked, entries.useless, entries.failures, jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


def fresh(folder: Path) -> Path:
    """The path of a journal that isn't there."""
    path = folder / "a.journal"
    path.unlink(missing_ok=True)
    return path


class Writer:
    """A process with the journal open; it may be ended in the middle of a line, and another takes its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = self.opened()

    def opened(self) -> Journal:
        return Journal(Storage(str(self.path.parent)), str(self.path))

    def write(self, record: dict[str, Any]) -> None:
        self.journal.append(record)

    def end(self, line: bytes, cut: int) -> None:
        """The line that it was writing gets no further than this."""
        self.journal.close()
        with self.path.open("ab") as file:
            file.write(line[:cut])
        self.journal = self.opened()


@bounded
@given(st.lists(st.tuples(st.integers(0, 2), records), max_size=15))
def test_lines_of_several_writers_are_all_there_in_the_order_they_were_written(
    folder: Path, steps: list[tuple[int, dict[str, Any]]]
) -> None:
    path = fresh(folder)
    writers = [Writer(path) for _ in range(3)]

    for number, record in steps:
        writers[number].write(record)

    found = writers[0].journal.load()
    assert found.damaged == 0
    assert said(found) == said(entries_of(b"".join(lines_of([record for _, record in steps]))))


@bounded
@given(st.lists(st.tuples(st.booleans(), records, st.integers(0, 60)), max_size=15))
def test_a_writer_that_is_ended_in_a_line_loses_that_line_alone(
    folder: Path, steps: list[tuple[bool, dict[str, Any], int]]
) -> None:
    path = fresh(folder)
    writer, whole = Writer(path), list[dict[str, Any]]()

    for ends, record, cut in steps:
        if ends:
            writer.end(encode_line(record), min(cut, len(encode_line(record)) - 2))
        else:
            writer.write(record)
            whole.append(record)

    assert said(writer.journal.load()) == said(entries_of(b"".join(lines_of(whole))))


def test_threads_and_journals_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    storage = Storage(str(tmp_path))
    shared = Journal(storage, str(path))

    def write(number: int, journal: Journal) -> None:
        for count in range(100):
            journal.append({"k": f"{number}-{count}", "o": output("x" * (count % 50))})

    threads = [
        threading.Thread(target=write, args=(number, shared if number % 2 else Journal(storage, str(path))))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = shared.load()
    assert found.damaged == 0
    assert len(found.outputs) == 600


@bounded
@given(written)
def test_the_same_lines_twice_say_the_same(some: list[dict[str, Any]]) -> None:
    lines = lines_of(some)

    assert said(entries_of(b"".join(lines * 2))) == said(entries_of(b"".join(lines)))
    assert said(entries_of(b"".join(each * 2 for each in lines))) == said(entries_of(b"".join(lines)))


@bounded
@given(written, st.data())
def test_whatever_is_damaged_what_is_read_is_what_the_whole_lines_say(
    some: list[dict[str, Any]], data: st.DataObject
) -> None:
    content = bytearray(b"".join(lines_of(some)))
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    damaged = bytes(content[start:end]) + data.draw(st.binary(max_size=30))

    lines = {line.rstrip(b"\n") for line in lines_of(some)}
    whole = [line for line in damaged.split(b"\n") if line in lines]
    assert said(entries_of(damaged)) == said(entries_of(b"\n".join(whole)))


@bounded
@given(st.binary(max_size=60))
def test_garbage_says_nothing(content: bytes) -> None:
    assert said(entries_of(content)) == said(Entries())


def test_no_byte_of_a_line_can_be_changed_without_its_being_left_out() -> None:
    line = encode_line({"k": "key", "o": output("text"), "x": "run:1"})
    chance = random.Random(1)

    for place in range(len(line) - 1):
        changed = bytearray(line)
        changed[place] ^= chance.randrange(1, 256)
        assert read_line(bytes(changed)) is None


def test_a_line_of_nothing_with_the_checksum_of_nothing_is_damaged() -> None:
    assert entries_of(b"00000000 \n00000000 ").damaged == 2
