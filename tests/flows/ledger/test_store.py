"""The store, whoever writes to it in whatever order, and whatever becomes of its file."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.ledger import Store
from flows.ledger.lines import unsealed
from flows.ledger.store import answer_line, failure_line, useless_line
from flows.store.storage import Storage
from llms import OpenAILLM
from llms.errors import Failure
from llms.typing import Usage

bounded = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

KEYS = [f"{letter * 16}{'0' * 16}" for letter in "abcd"]
ATTEMPTS = ["run:1", "run:2"]
FAILURE = Failure(type="ExpiredError", message="", retryable=True)

keys, attempts, texts = st.sampled_from(KEYS), st.sampled_from(ATTEMPTS), st.text(max_size=8)


def output(text: str, **more: Any) -> Any:
    return {"generations": [text], "statistics": {"input_tokens": [1], "output_tokens": [2]}, **more}


lines = st.one_of(
    st.builds(lambda key, text, attempt: answer_line(key, output(text), attempt), keys, texts, attempts),
    st.builds(lambda key, text: answer_line(key, output(text), "run:1", job="job", limit=9), keys, texts),
    st.builds(useless_line, keys, attempts),
    st.builds(failure_line, keys, st.just(FAILURE), attempts),
)
written = st.lists(lines, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger")


class Writer:
    """A process with the store open; it may be ended in the middle of a line, and another takes its place."""

    def __init__(self, folder: Path, space: str) -> None:
        self.folder, self.space = folder, space
        self.store = self.opened()

    def opened(self) -> Store:
        return Store(Storage(str(self.folder)), self.space)

    def write(self, line: bytes) -> None:
        self.store.append([line])

    def end(self, line: bytes, cut: int) -> None:
        """The line that it was writing gets no further than this."""
        self.store.close()
        path = self.folder / "ledger" / self.space / "000000.answers"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line[:cut])
        self.store = self.opened()


def said(store: Store) -> list[Any]:
    """All that a run goes by."""
    store.refresh()
    return [
        (store.find(key), store.useless(key), [store.failure(key, attempt) for attempt in ATTEMPTS]) for key in KEYS
    ]


def meant(folder: Path, some: Sequence[bytes]) -> list[Any]:
    """What a store says to which these lines were written one after the other."""
    return said(store_of(folder, b"".join(some)))


def store_of(folder: Path, content: bytes) -> Store:
    store = Store(Storage(str(folder)), uuid.uuid4().hex)
    path = Path(store.folder) / "000000.answers"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return store


def damaged_in(store: Store) -> int:
    return store._damaged  # pyright: ignore[reportPrivateUsage] -- what the warning counts


@bounded
@given(st.lists(st.tuples(st.integers(0, 2), lines), max_size=15))
def test_lines_of_several_writers_are_all_there_in_the_order_they_were_written(
    folder: Path, steps: list[tuple[int, bytes]]
) -> None:
    space = uuid.uuid4().hex
    writers = [Writer(folder, space) for _ in range(3)]

    for number, line in steps:
        writers[number].write(line)

    for writer in writers:
        assert said(writer.store) == meant(folder, [line for _, line in steps])
        assert damaged_in(writer.store) == 0
        writer.store.close()


@bounded
@given(st.lists(st.tuples(st.booleans(), lines, st.integers(0, 60)), max_size=15))
def test_a_writer_that_is_ended_in_a_line_loses_that_line_alone(
    folder: Path, steps: list[tuple[bool, bytes, int]]
) -> None:
    writer, beside, whole = Writer(folder, uuid.uuid4().hex), Writer(folder, ""), list[bytes]()
    beside = Writer(folder, writer.space)

    for place, (ends, line, cut) in enumerate(steps):
        if ends:
            writer.end(line, min(cut, len(line) - 2))
        else:
            (writer, beside)[place % 2].write(line)
            whole.append(line)

    assert said(writer.store) == meant(folder, whole)
    writer.store.close()
    beside.store.close()


@bounded
@given(written, written)
def test_what_is_written_after_a_store_was_opened_is_found(folder: Path, first: list[bytes], then: list[bytes]) -> None:
    space = uuid.uuid4().hex
    reader, writer = Writer(folder, space), Writer(folder, space)
    for some, sofar in ((first, first), (then, [*first, *then])):
        for line in some:
            writer.write(line)
        assert said(reader.store) == meant(folder, sofar)
    reader.store.close()
    writer.store.close()


def test_threads_and_stores_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    shared = Store(storage, "space")

    def key(number: int, count: int) -> str:
        return f"{number * 1000 + count:016x}{'0' * 16}"

    def write(number: int, store: Store) -> None:
        for count in range(100):
            store.append([answer_line(key(number, count), output("x" * (count % 50)), "run:1")])
        store.close()

    threads = [
        threading.Thread(target=write, args=(number, shared if number % 2 else Store(storage, "space")))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    shared.refresh()
    assert damaged_in(shared) == 0
    assert all(shared.find(key(number, count)) for number in range(6) for count in range(100))


@bounded
@given(written, st.data())
def test_whatever_is_damaged_what_is_read_is_what_the_whole_lines_say(
    folder: Path, some: list[bytes], data: st.DataObject
) -> None:
    content = bytearray(b"".join(some))
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    damaged = bytes(content[start:end]) + data.draw(st.binary(max_size=30)) + b"\n"

    known = {line.rstrip(b"\n") for line in some}
    whole = [line + b"\n" for line in damaged.split(b"\n") if line in known]
    assert said(store_of(folder, damaged)) == meant(folder, whole)


@bounded
@given(st.binary(max_size=60))
def test_garbage_says_nothing(folder: Path, content: bytes) -> None:
    assert said(store_of(folder, content)) == meant(folder, [])


def test_no_byte_of_a_line_can_be_changed_without_its_being_left_out() -> None:
    line = answer_line(KEYS[0], output("text"), "run:1")
    chance = random.Random(1)

    for place in range(len(line) - 1):
        changed = bytearray(line)
        changed[place] ^= chance.randrange(1, 256)
        assert unsealed(bytes(changed)) is None


def test_a_line_of_nothing_with_the_checksum_of_nothing_is_damaged(tmp_path: Path) -> None:
    store = store_of(tmp_path, b"00000000 \n00000000 \n")
    store.refresh()

    assert damaged_in(store) == 2


def test_an_answer_damaged_after_it_was_found_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(tmp_path, answer_line(KEYS[0], output("text"), "run:1"))
    store.refresh()
    path = Path(store.folder) / "000000.answers"
    path.write_bytes(path.read_bytes().replace(b"text", b"best"))

    assert store.find(KEYS[0]) is None
    assert "cut or damaged" in caplog.text


def test_a_store_whose_files_were_removed_is_empty_and_is_written_anew(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)), "space")
    store.append([answer_line(KEYS[0], output("text"), "run:1")])
    store.refresh()
    assert store.find(KEYS[0]) is not None
    (tmp_path / "ledger" / "space" / "000000.answers").unlink()

    store.refresh()
    assert store.find(KEYS[0]) is None
    store.append([answer_line(KEYS[1], output("text"), "run:1")])
    store.refresh()
    assert store.find(KEYS[1]) is not None


def test_a_new_file_is_begun_where_the_last_one_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ledger.store.FILE_BYTES", 500)
    store = Store(Storage(str(tmp_path)), "space")
    known = [f"{number:016x}{'0' * 16}" for number in range(20)]
    for key in known:
        store.append([answer_line(key, output("x" * 100), "run:1")])

    store.refresh()
    assert len(list((tmp_path / "ledger" / "space").glob("*.answers"))) > 3
    assert all(store.find(key) for key in known)


def test_a_cut_off_answer_serves_no_larger_limit_and_a_whole_one_every(tmp_path: Path) -> None:
    cut = output("text", cut_off=[True])
    content = [answer_line(KEYS[0], cut, "run:1", limit=10), answer_line(KEYS[1], output("text"), "run:1", limit=10)]
    store = store_of(tmp_path, b"".join(content))
    store.refresh()
    found, whole = store.find(KEYS[0]), store.find(KEYS[1])

    assert found is not None and whole is not None
    assert [found.serves(limit) for limit in (5, 10, 11, None)] == [True, True, False, False]
    assert all(whole.serves(limit) for limit in (5, 10, 11, None))


def test_an_answer_with_numbers_that_json_readers_have_no_place_for_is_kept(tmp_path: Path) -> None:
    large = output("text")
    large["statistics"]["input_tokens"] = [2**70, 10**400, 7]
    store = store_of(tmp_path, answer_line(KEYS[0], large, "run:1"))
    store.refresh()
    found = store.find(KEYS[0])

    assert found is not None
    assert found.output["generations"] == ["text"]
    assert found.output["statistics"]["input_tokens"] == [float(2**70), str(10**400), 7]


def test_an_object_store_holds_parts_and_many_of_them_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.ledger.store.MANY_PARTS", 5)
    monkeypatch.setattr("flows.ledger.store.SETTLED_SECONDS", 0.0)
    storage = Storage(f"memory://ledger-{uuid.uuid4().hex}")
    known = [f"{number:016x}{'0' * 16}" for number in range(20)]
    for key in known:
        store = Store(storage, "space")
        store.append([answer_line(key, output("text"), "run:1")])
        store.close()

    first, second = Store(storage, "space"), Store(storage, "space")
    for store in (first, second):
        store.refresh()
        assert all(store.find(key) for key in known)

    assert len(storage.files(storage.path("ledger", "space"), ".part")) <= 2
    third = Store(storage, "space")
    third.refresh()
    assert all(third.find(key) for key in known)


@pytest.mark.parametrize("when", ["before", "between", "together", "anew"])
def test_what_was_paid_for_nothing_is_counted_once_however_its_objects_are_put_together(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("flows.ledger.store.MANY_PARTS", 5)
    monkeypatch.setattr("flows.ledger.store.SETTLED_SECONDS", 0.0)
    storage = Storage(f"memory://ledger-{uuid.uuid4().hex}")
    usage: list[Usage] = [{"input_tokens": 1, "output_tokens": 1}]
    removed = list[str]()

    def add(count: int) -> None:
        for _ in range(count):
            store = Store(storage, "space")
            store.append([failure_line(KEYS[0], FAILURE, "run:1", usage)])
            store.close()

    def later(_: Storage, paths: Sequence[str]) -> None:
        removed.extend(paths)

    def put_together() -> None:
        Store(storage, "space").refresh()

    if when == "together":
        # As one sees it who looks before those that were put together are gone.
        monkeypatch.setattr(Storage, "remove_all", later)
    reader = Store(storage, "space")
    add(8)
    if when == "before":
        reader.refresh()
    put_together()
    if when == "between":
        reader.refresh()
    add(8)
    # One object is of objects that were put together themselves.
    put_together()
    if when == "anew":
        reader = Store(storage, "space")
    reader.refresh()

    assert len(reader.spent(KEYS[0])) == 16
    assert bool(removed) == (when == "together")
    assert when == "together" or len(storage.files(storage.path("ledger", "space"), "")) == 2


def test_who_is_asked_is_noted_without_the_secrets_of_the_address(tmp_path: Path) -> None:
    store = Store(Storage(str(tmp_path)), "space")
    store.describe(OpenAILLM(model="m", base_url="https://me:Planted-Word-0123456789@gateway.example/v1"))

    noted = (tmp_path / "ledger" / "space" / "about.json").read_text()
    assert "https://me:***@gateway.example" in noted
    assert "Planted-Word" not in noted
