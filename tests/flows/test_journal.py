"""The journal, whatever happens to its lines."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.journal import Entries, Journal, encode_line, read_lines
from flows.storage import Storage, storage_at

OUTPUT = {"generations": ["text"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}

texts = st.text(max_size=30)
records = st.lists(st.tuples(st.sampled_from("abcdef"), texts), max_size=12)


def output(text: str) -> dict:
    return {**OUTPUT, "generations": [text]}


@given(records)
def test_of_several_answers_to_a_request_the_latest_holds(lines: list[tuple[str, str]]) -> None:
    entries = Entries()

    read_lines(b"".join(encode_line({"k": key, "o": output(text)}) for key, text in lines), entries)

    assert entries.damaged == 0
    assert {key: found["generations"][0] for key, found in entries.outputs.items()} == dict(lines)


@given(records, st.data())
def test_a_cut_loses_no_line_before_it_and_makes_up_none(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    whole = b"".join(encode_line({"k": f"{place}{key}", "o": output(text)}) for place, (key, text) in enumerate(lines))
    cut = data.draw(st.integers(0, len(whole)))
    complete = whole[:cut].count(b"\n")
    entries = Entries()

    read_lines(whole[:cut], entries)

    found = [each["generations"][0] for each in entries.outputs.values()]
    # A line that lacks only its end is whole.
    assert found in ([text for _, text in lines[:complete]], [text for _, text in lines[: complete + 1]])


@given(records.filter(bool), st.data())
def test_a_changed_byte_costs_at_most_two_lines_and_never_passes_as_an_answer(
    lines: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole = bytearray(
        b"".join(encode_line({"k": f"{place}", "o": output(text)}) for place, (_, text) in enumerate(lines))
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    entries = Entries()

    read_lines(bytes(whole), entries)

    true = {f"{number}": text for number, (_, text) in enumerate(lines)}
    assert all(true[key] == found["generations"][0] for key, found in entries.outputs.items())
    assert len(entries.outputs) >= len(lines) - 2


def test_an_answer_of_no_use_is_kept_within_its_attempt_and_asked_again_in_the_next() -> None:
    entries = Entries()

    read_lines(encode_line({"k": "a", "o": OUTPUT}) + encode_line({"k": "a", "x": "first"}), entries)

    assert entries.answer("a", "first") == OUTPUT
    assert entries.answer("a", "second") is None


def test_an_answer_says_which_way_it_came_and_which_attempt_asked_for_it() -> None:
    entries = Entries()

    read_lines(
        encode_line({"k": "a", "o": OUTPUT, "x": "run:1"}) + encode_line({"k": "b", "o": OUTPUT, "b": 1}), entries
    )

    assert (entries.batched, entries.asked["a"]) == ({"b"}, "run:1")
    # Asked again online, it is an answer that came online; lines of before there were batches say nothing.
    read_lines(encode_line({"k": "b", "o": OUTPUT}), entries)
    assert (entries.batched, entries.asked["b"]) == (set(), "")
    assert entries.answer("a", "run:2") == OUTPUT


@settings(max_examples=20)
@given(st.binary(max_size=40).filter(lambda junk: b"\n" not in junk))
def test_a_journal_goes_on_after_a_cut_last_line(tmp_path_factory, junk: bytes) -> None:
    storage = storage_at(str(tmp_path_factory.mktemp("journal")))
    path = storage.path("a.journal")
    Path(path).write_bytes(encode_line({"k": "before", "o": OUTPUT}) + junk)

    journal = Journal(storage, path)
    journal.append({"k": "after", "o": OUTPUT})
    journal.close()

    assert set(journal.load().outputs) == {"before", "after"}


def test_a_journal_in_an_object_store_is_written_in_parts_and_read_whole() -> None:
    storage = Storage("memory://journals")
    journal = Journal(storage, storage.path("one.journal"))
    for number in range(5):
        journal.append({"k": f"{number}", "o": OUTPUT})
    journal.close()

    assert set(Journal(storage, journal.path).load().outputs) == {"0", "1", "2", "3", "4"}
    journal.remove()
    assert Journal(storage, journal.path).load().outputs == {}
