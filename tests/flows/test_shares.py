"""What processes take of a limit that they share, and what they give back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.limits.policy import LimitSnapshot, change_of, parts, some_of


def seen(
    wanted: int, held: int, taken: int, *, limit: int = 100, processes: int = 2, needed: int = -1
) -> LimitSnapshot:
    return LimitSnapshot(wanted, max(wanted, needed), held, limit, taken, processes)


@pytest.mark.parametrize(
    ("sight", "change"),
    [
        # Alone, it takes what it can use.
        (seen(30, 0, 0, processes=1), 30),
        (seen(300, 0, 0, processes=1), 100),
        (seen(300, 60, 60, processes=1), 40),
        (seen(300, 100, 100, processes=1), 0),
        # Up to a share whatever is free, more only of what isn't kept for others.
        (seen(300, 0, 0), 98),
        (seen(300, 0, 99), 1),
        (seen(300, 0, 100), 0),
        (seen(300, 40, 90), 10),
        (seen(300, 50, 90), 8),
        (seen(300, 60, 98), 0),
        # What isn't needed goes back, but not for every small change.
        (seen(0, 10, 10, processes=1), -10),
        (seen(0, 1, 1, processes=1), -1),
        (seen(70, 100, 100, processes=1), -30),
        (seen(80, 100, 100, processes=1), 0),
        (seen(10, 100, 100, processes=1, needed=90), 0),
        # Who has more than a share refills what stays free, and gives half of it where nothing is.
        (seen(300, 70, 99), -1),
        (seen(300, 90, 100), -20),
        (seen(300, 51, 100), -1),
        (seen(300, 50, 100), 0),
        # The limit was lowered.
        (seen(300, 40, 40, limit=20, processes=1), -20),
        (seen(300, 20, 40, limit=20), -10),
        (seen(300, 40, 40, limit=0, processes=1), -40),
        # Places that are left over are nobody's for good.
        (seen(9, 3, 9, limit=10, processes=3), 1),
        (seen(9, 4, 10, limit=10, processes=3), 0),
        # More processes than places.
        (seen(9, 0, 1, limit=2, processes=5), 1),
        (seen(9, 1, 2, limit=2, processes=5), 0),
        (seen(9, 0, 2, limit=2, processes=5), 0),
    ],
)
def test_what_a_process_takes_and_gives_back(sight: LimitSnapshot, change: int) -> None:
    assert change_of(sight) == change


@pytest.mark.parametrize(
    ("sight", "change"),
    [
        (seen(9, 4, 10, limit=10, processes=3), -1),
        (seen(9, 3, 10, limit=10, processes=3), 0),
        (seen(9, 1, 2, limit=2, processes=5), -1),
        (seen(9, 4, 9, limit=10, processes=3), 0),
    ],
)
def test_places_beyond_equal_shares_go_round(sight: LimitSnapshot, change: int) -> None:
    assert change_of(sight, in_turn=True) == change


@given(
    st.builds(
        LimitSnapshot,
        wanted=st.integers(0, 300),
        needed=st.integers(300, 300),
        held=st.integers(0, 300),
        limit=st.integers(0, 300),
        taken=st.integers(0, 300),
        processes=st.integers(1, 50),
    ),
    st.booleans(),
)
def test_nothing_is_taken_that_is_not_free_and_nothing_given_that_is_not_held(
    sight: LimitSnapshot, in_turn: bool
) -> None:
    change = change_of(sight, in_turn=in_turn)

    assert -sight.held <= change <= max(0, sight.free)
    assert change <= max(0, sight.wanted - sight.held)


@given(st.integers(0, 3_000), st.integers(0, 3_000))
def test_any_number_of_places_can_be_given_back_with_few_leases(whole: int, part: int) -> None:
    sizes = parts(whole)
    chosen = some_of(sizes, min(part, whole))

    assert sum(sizes) == whole
    assert max(sizes, default=0) <= whole / 4 + 1
    assert len(sizes) <= 13
    assert sum(sizes[position] for position in chosen) == min(part, whole)


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(0, 300))
def test_where_the_leases_do_not_fit_as_few_places_too_many_as_can_be_go_back(sizes: list[int], places: int) -> None:
    places = min(places, sum(sizes))
    chosen = some_of(sizes, places)

    sums = sum(sizes[position] for position in chosen)
    assert len(set(chosen)) == len(chosen)
    assert places <= sums
    assert all(sums - sizes[position] < places for position in chosen)


Demand = Callable[[float], int]


def always(places: int) -> Demand:
    return lambda _: places


def simulate(limit: int, demands: Sequence[Demand], *, request_seconds: float) -> tuple[float, list[float]]:
    """Two minutes of processes that look once a second, or oftener in need. Returns which part of the limit was
    used after the first 20 s, and how many places each had on average.
    """
    step, count = 0.1, len(demands)
    chance = random.Random(limit)
    held, told, busy = [0] * count, [0] * count, [0.0] * count
    before = [0] * count
    looks, turns = [chance.random() for _ in demands], [chance.uniform(0, 20) for _ in demands]
    used: list[float] = []
    had: list[list[int]] = []
    for now in (number * step for number in range(1_200)):
        for process, demand in enumerate(demands):
            goal = min(demand(now), told[process])
            ended = max(busy[process] * step / request_seconds, 0.5)
            busy[process] = goal if goal >= busy[process] else max(goal, busy[process] - ended)
            if now < looks[process]:
                continue
            sight = LimitSnapshot(demand(now), demand(now), held[process], limit, sum(held), count)
            change = before[process] = change_of(sight, again=before[process] < 0, in_turn=now >= turns[process])
            told[process] = sight.held + change
            held[process] = max(told[process], math.ceil(busy[process]))
            if held[process] == told[process] and now >= turns[process]:
                turns[process] = now + 20
            looks[process] = now + (0.4 if sight.is_short or held[process] != told[process] else 1.0) * chance.uniform(
                0.9, 1.1
            )
        assert sum(busy) <= sum(held) <= limit
        if now >= 20:
            used.append(sum(busy))
            had.append(held.copy())
    return sum(used) / len(used) / limit, [sum(each) / len(had) for each in zip(*had, strict=True)]


@pytest.mark.parametrize("request_seconds", [0.2, 8.0])
@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        (200, [300, 300]),
        (200, [300, 10]),
        (200, [120, 120, 120]),
        (200, [300] * 20),
        (200, [300, 300, 20]),
        (50, [60, 60, 60]),
        (10, [20, 20, 20]),
        (10, [20] * 7),
        (3, [9, 9]),
    ],
)
def test_processes_use_a_limit_together_and_each_gets_its_share(
    limit: int, wanted: list[int], request_seconds: float
) -> None:
    used, held = simulate(limit, [always(each) for each in wanted], request_seconds=request_seconds)

    assert used > 0.95
    assert all(has >= min(wants, limit // len(wanted)) - 1 for has, wants in zip(held, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "demand"),
    [
        ("grows slowly", lambda now: int(10 + now)),
        ("comes and goes", lambda now: 100 if now % 40 < 20 else 0),
        ("goes up and down", lambda now: 100 if now % 6 < 3 else 60),
    ],
)
def test_what_one_does_not_need_another_uses(name: str, demand: Demand) -> None:
    used, _ = simulate(200, [always(300), demand], request_seconds=0.5)

    assert used > 0.9


def test_with_more_processes_than_places_each_gets_one_in_turn() -> None:
    used, held = simulate(5, [always(9)] * 8, request_seconds=0.5)

    assert used > 0.9
    assert min(held) > 0.1
