"""Which of equal questions each is, and what tells keys apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.ledger.questions import key_of, later_key, part_keys
from flows.ledger.samples import BEYOND, NOTHING, Claims, Samples, numbered
from flows.ledger.table import RECENT, AnyKey, KeySet, Table

questions = st.lists(st.integers(0, 4), max_size=30)


def told_apart(shards: list[list[int]]) -> list[tuple[int, int]]:
    """Each question with its number, shard after shard."""
    samples = Samples()
    found: list[tuple[int, int]] = []
    for some in shards:
        found += [each for each in zip(some, numbered(some, samples.count_on(some)), strict=True) if each[0] != NOTHING]
    return found


@given(questions, st.integers(1, 7), st.integers(1, 7))
def test_equal_questions_are_numbered_in_their_order_however_they_are_cut_into_shards(
    some: list[int], one: int, other: int
) -> None:
    def cut(length: int) -> list[list[int]]:
        return [some[start : start + length] for start in range(0, len(some), length)]

    found = told_apart(cut(one))

    assert found == told_apart(cut(other))
    assert len(set(found)) == len(found)
    assert all(set(range(found.count(each) or 1)) for each in found)


@given(questions, st.integers(1, 4), st.data())
def test_one_more_of_a_question_takes_no_sample_from_any(some: list[int], more: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(some)))
    before, after = told_apart([some]), told_apart([[*some[:place], more, *some[place:]]])

    assert set(before) < set(after)
    assert len(after) == len(before) + 1


def test_shards_whose_questions_are_all_new_have_no_numbers_to_depend_on() -> None:
    samples = Samples()

    assert samples.count_on([1, 2, 2]) == []
    assert samples.count_on([3, NOTHING]) == []
    assert samples.count_on([2, 4]) == [2, 0]


def test_steps_that_happen_to_ask_the_same_have_samples_of_their_own_whoever_comes_first() -> None:
    def run(order: str) -> set[int]:
        claims = Claims()
        steps = {name: Samples(claims, place) for place, name in enumerate("ab")}
        return {number for name in order for number in numbered([7], steps[name].count_on([7]))}

    assert run("ab") == run("ba") == {0, BEYOND}


def test_keys_differ_in_the_question_the_lane_the_number_and_what_was_asked_before() -> None:
    keys = [key_of("q", 0, 0), key_of("q", 0, 1), key_of("q", 1, 0), key_of("r", 0, 0)]
    keys += [later_key(keys[0], "q", 0), later_key(keys[0], "q", 1), later_key(keys[1], "q", 0), *part_keys(keys[0], 3)]

    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}
    assert part_keys("key", 1) == ["key"]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 9), st.integers(0, 2**63)), max_size=200))
def test_a_table_finds_the_latest_value_of_every_key(entries: list[tuple[int, int]]) -> None:
    table = Table()
    for key, value in entries:
        table.put(key, value)
        if value % 5 == 0:
            table._sort_in()  # pyright: ignore[reportPrivateUsage] -- as it does when there are many

    assert {key: table.get(key) for key, _ in entries} == dict(entries)
    assert table.get(2**64 - 2) in {None, dict(entries).get(2**64 - 2)}


def test_a_large_table_sorts_itself_in() -> None:
    table = Table()
    for number in range(5 * RECENT):
        table.put(number * 7919, number)
    table.put(7919, 42)

    assert [table.get(number * 7919) for number in (0, 1, 2, 5 * RECENT - 1)] == [0, 42, 2, 5 * RECENT - 1]
    assert table.get(1) is None


def test_a_set_of_keys_has_those_it_was_made_of() -> None:
    keys = [key_of("q", 0, number) for number in range(1000)]
    known = KeySet(keys)

    assert all(key in known for key in keys)
    assert not any(key_of("q", 1, number) in known for number in range(1000))
    assert keys[0] not in KeySet([])
    assert keys[0] in AnyKey()
