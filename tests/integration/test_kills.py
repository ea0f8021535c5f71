"""A run that is killed again and again, at random moments, until it is done."""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from llms.local_provider import LocalProvider
from llms.local_provider.control import ProviderHandle, SeenRequest
from tests.conftest import wait_for
from tests.integration.mortal import AT_A_TIME, POINTS, Ancestor, Order, kill, order_in

logger = logging.getLogger(__name__)

ROWS = 2000
ANSWERS = {r"about number (?P<number>\d+)": "All about {number}.", r"Shorten: (?P<what>.*)": "Short: {what}"}


@dataclass
class Life:
    """A process of the run."""

    started: float
    cpu: float
    lost: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """The requests that it sent and that were sent again later, by model and prompt."""


@pytest.fixture(scope="module")
def ancestor() -> Iterator[Ancestor]:
    with Ancestor() as running:
        yield running


@pytest.fixture
def provider() -> Iterator[ProviderHandle]:
    """A provider in a process of its own, so that what it counts owes nothing to those that are killed."""
    with LocalProvider.spawn(answers=ANSWERS, latency=(0.01, 0.05), recorded_requests=100_000) as running:
        yield running


def live_on(ancestor: Ancestor, order: Order) -> tuple[Life, bytes]:
    """A life that ends by itself, and the dataset that it leaves."""
    started = time.time()
    end = ancestor.wait(ancestor.start(order))
    assert end.status == 0, Path(order.log).read_text()
    return Life(started, end.cpu), Path(order.target).read_bytes()


def answered(provider: ProviderHandle) -> int:
    return provider.stats.count("/chat/completions", 200)


def moments(count: int, requests: int, seed: int) -> list[tuple[int, float]]:
    """When to kill: so many requests are answered, and so many seconds later. Every fourth just after the start."""
    chance = random.Random(seed)
    counts = sorted(chance.sample(range(requests), count))
    return [
        (0, chance.uniform(0, 0.5)) if place % 4 == 3 else (number, chance.uniform(0, 0.1))
        for place, number in enumerate(counts)
    ]


def die_at(ancestor: Ancestor, order: Order, provider: ProviderHandle, answers: int, seconds: float) -> Life | None:
    """A life that is killed when the provider has answered so many requests, and some seconds later."""
    started = time.time()
    pid = ancestor.start(order)
    wait_for(lambda: answered(provider) >= answers or ancestor.has_ended(pid), what="answers", pause=0.01)
    time.sleep(seconds)
    kill(pid)
    end = ancestor.wait(pid)
    # An answer comes after all that the dead had sent: the provider has noted that before the next life begins.
    answered(provider)
    if end.status == 0:
        return None
    assert end.status == -signal.SIGKILL, Path(order.log).read_text()
    return Life(started, end.cpu)


def asked(provider: ProviderHandle) -> dict[tuple[str, str], list[SeenRequest]]:
    """What the provider was asked, by model and prompt."""
    found: defaultdict[tuple[str, str], list[SeenRequest]] = defaultdict(list)
    for request in sorted(provider.requests, key=lambda each: each.started):
        found[request.body["model"], request.body["messages"][-1]["content"]].append(request)
    return found


def charge(lives: list[Life], seen: dict[tuple[str, str], list[SeenRequest]]) -> None:
    """Note with each life what it sent in vain: no more than it may have under way at a time, however slow it is."""
    for key, requests in seen.items():
        for request in requests[:-1]:
            # The provider may read the last ones only after their sender's death.
            life = max((each for each in lives if each.started <= request.started), key=lambda each: each.started)
            life.lost[key] += 1


# With --log-cli-level=INFO they are counted out.
@pytest.mark.slow
@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.full)])
def test_a_run_killed_at_many_random_moments_gives_the_same_dataset_and_pays_twice_for_no_more_than_was_under_way(
    ancestor: Ancestor, provider: ProviderHandle, tmp_path: Path, kills: int
) -> None:
    whole, undisturbed = live_on(ancestor, order_in(tmp_path / "undisturbed", provider.base_url, ROWS))
    provider.clear()
    order = order_in(tmp_path / "killed", provider.base_url, ROWS)
    began = time.time()

    lives = [
        life
        for answers, seconds in moments(kills, 2 * ROWS, seed=kills)
        if (life := die_at(ancestor, order, provider, answers, seconds)) is not None
    ]
    last, dataset = live_on(ancestor, order)

    seen = asked(provider)
    charge([*lives, last], seen)
    lost = [life.lost.total() for life in lives]
    logger.info(
        f"{len(lives)} kills, {sum(lost)} requests of {2 * ROWS} paid twice, at most {max(lost)} a kill;"
        f" {time.time() - began:.0f} s, {sum(each.cpu for each in [*lives, last]):.0f} s of processor,"
        f" undisturbed {whole.cpu:.1f} s",
    )
    assert len(lives) >= 0.9 * kills
    assert dataset == undisturbed
    assert len(seen) == 2 * ROWS
    assert all(set(life.lost.values()) <= {1} for life in lives)
    assert max(lost) <= 2 * AT_A_TIME
    assert last.lost.total() == 0


@pytest.mark.slow
def test_flow_runs_that_are_killed_are_gone_on_with_by_the_next(
    ancestor: Ancestor, provider: ProviderHandle, prefect_api: str, tmp_path: Path
) -> None:
    _, undisturbed = live_on(ancestor, order_in(tmp_path / "undisturbed", provider.base_url, 600))
    provider.clear()
    order = order_in(tmp_path / "killed", provider.base_url, 600, prefect_api=prefect_api)

    lives = [
        life
        for answers, seconds in moments(5, 1000, seed=1)
        if (life := die_at(ancestor, order, provider, answers, seconds)) is not None
    ]
    last, dataset = live_on(ancestor, order)

    seen = asked(provider)
    charge([*lives, last], seen)
    assert len(lives) == 5
    assert dataset == undisturbed
    assert len(seen) == 1200
    assert max(life.lost.total() for life in lives) <= 2 * AT_A_TIME


@pytest.mark.parametrize("times", [(0, 11), pytest.param((0, 1, 5, 11, 18, 100), marks=pytest.mark.full)])
@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_ends_where_files_are_written_loses_nothing_and_passes_on_nothing_that_is_half_there(
    ancestor: Ancestor, provider: ProviderHandle, tmp_path: Path, point: str, times: tuple[int, ...]
) -> None:
    provider.set(latency=0)
    _, undisturbed = live_on(ancestor, order_in(tmp_path / "undisturbed", provider.base_url, 120, shard_rows=20))
    ends = 0

    for after in times:
        provider.clear()
        order = order_in(tmp_path / f"killed-{after}", provider.base_url, 120, shard_rows=20)
        end = ancestor.wait(ancestor.start(replace(order, dies=point, dies_after=after)))
        assert end.status in {0, -signal.SIGKILL}, Path(order.log).read_text()
        ends += end.status != 0
        _, dataset = live_on(ancestor, order)

        assert dataset == undisturbed
        seen = asked(provider)
        assert len(seen) == 240
        assert sum(len(requests) - 1 for requests in seen.values()) <= 2 * AT_A_TIME

    assert ends >= 1
