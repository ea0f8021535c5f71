"""Two runs that come to the same questions at the same time: one asks them, the other waits for its answers."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.engine.run import is_same_work
from flows.ledger import Store
from flows.ledger.asking import Asking, Claims
from flows.ledger.store import answer_line
from flows.store.storage import Storage
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tests.conftest import LONGEST

KEYS = [f"{number:016x}{'0' * 16}" for number in range(1, 9)]
OUTPUT: Any = {"generations": ["text"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "folder" else f"memory://asking-{uuid.uuid4().hex}")


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(latency=0.05) as running:
        yield running


def asking(storage: Storage, owner: str) -> Asking:
    return Asking(Store(storage, "space"), claims(storage, owner))


def claims(storage: Storage, owner: str) -> Claims:
    return Claims(storage, "space", owner, lambda other: other == owner)


async def known_to_wait(run: Asking) -> None:
    async with asyncio.timeout(LONGEST):
        while not run.waiting:
            await asyncio.sleep(0.01)


def left(storage: Storage) -> list[str]:
    """The claims that somebody holds."""
    seen = claims(storage, "nobody")
    return [
        each for each in storage.files(storage.path("ledger", "space", "asking"), ".claim") if seen.content_of(each)
    ]


def test_two_runs_at_once_pay_once_and_have_the_same_rows(storage: Storage, provider: LocalProvider) -> None:
    prompts = [{"instruction": f"Tell me about number {number}."} for number in range(60)]
    made: dict[int, list[Any]] = {}
    together = threading.Barrier(3)

    def run(number: int) -> None:
        together.wait()
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_concurrent_requests=10)
        order = prompts[:: -1 if number else 1]
        rows = load(order, shard_rows=7, storage=storage.root).map(TextGeneration(name=f"step{number}", llm=llm))
        made[number] = [row["generation"] for row in collect(rows)]

    threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert provider.stats.count("/chat/completions", 200) == len(prompts)
    assert made[0] == made[1][::-1] == made[2][::-1]
    assert all(made[0])


def test_what_another_run_asks_is_waited_for_until_it_is_answered(storage: Storage) -> None:
    async def main() -> None:
        first, second = asking(storage, "one"), asking(storage, "two")
        assert await first.is_ours(0, KEYS[0], KEYS[0])
        held = asyncio.ensure_future(second.is_ours(0, KEYS[0], KEYS[0]))
        assert await second.is_ours(1, KEYS[1], KEYS[1])
        assert not held.done()
        store = Store(storage, "space")
        store.append([answer_line(KEYS[0], OUTPUT, "one")])
        store.close()
        async with asyncio.timeout(LONGEST):
            assert not await held
        await first.close()
        await second.close()

    asyncio.run(main())
    assert left(storage) == []


def test_what_another_run_gave_up_is_asked(storage: Storage) -> None:
    async def main() -> None:
        first, second = asking(storage, "one"), asking(storage, "two")
        assert await first.is_ours(0, KEYS[0], KEYS[0])
        held = asyncio.ensure_future(second.is_ours(0, KEYS[0], KEYS[0]))
        await known_to_wait(second)
        first.done(0)
        async with asyncio.timeout(LONGEST):
            assert not await held
            assert await second.is_ours(0, KEYS[0], KEYS[0])
        await first.close()
        await second.close()

    asyncio.run(main())


def test_what_was_answered_and_given_back_before_the_claim_is_not_asked(storage: Storage) -> None:
    async def main() -> None:
        first, second = asking(storage, "one"), asking(storage, "two")
        assert await first.is_ours(0, KEYS[0], KEYS[0])
        store = Store(storage, "space")
        store.append([answer_line(KEYS[0], OUTPUT, "one")])
        store.close()
        await first.close()
        # Its ledger was read before.
        assert not await second.is_ours(0, KEYS[0], KEYS[0])
        assert await second.is_ours(0, KEYS[0], KEYS[0])
        await second.close()

    asyncio.run(main())


def test_two_that_wait_for_each_other_both_come_to_their_end(storage: Storage) -> None:
    async def ask(mine: Asking, row: int, key: str) -> None:
        while not await mine.is_ours(row, key, key):
            pass
        mine.done(row)

    async def main() -> None:
        first, second = asking(storage, "one"), asking(storage, "two")
        assert await first.is_ours(0, KEYS[0], KEYS[0])
        assert await second.is_ours(1, KEYS[1], KEYS[1])
        crossed = [asyncio.ensure_future(ask(first, 1, KEYS[1])), asyncio.ensure_future(ask(second, 0, KEYS[0]))]
        await known_to_wait(first)
        await known_to_wait(second)
        # Neither answered anything: both rows failed.
        first.done(0)
        second.done(1)
        async with asyncio.timeout(LONGEST):
            await asyncio.gather(*crossed)
        await first.close()
        await second.close()

    asyncio.run(main())


def test_a_claim_of_an_earlier_try_of_the_same_work_is_no_hindrance(storage: Storage) -> None:
    async def main() -> None:
        first, again = asking(storage, "one"), asking(storage, "one")
        assert await first.is_ours(0, KEYS[0], KEYS[0])
        async with asyncio.timeout(LONGEST):
            assert await again.is_ours(0, KEYS[0], KEYS[0])

    asyncio.run(main())


def test_of_many_who_claim_at_once_each_question_goes_to_one(storage: Storage) -> None:
    taken: list[tuple[str, str]] = []
    together = threading.Barrier(8)

    def take(owner: str) -> None:
        together.wait()
        claim, held = claims(storage, owner).take(KEYS)
        assert claim is not None
        kept.append(claim)
        taken.extend((key, owner) for key in KEYS if key not in held)

    kept: list[Any] = []
    threads = [threading.Thread(target=take, args=[f"run{number}"]) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(key for key, _ in taken) == KEYS
    assert len({owner for _, owner in taken}) == 1


def test_claims_leave_one_name_behind_so_that_no_number_comes_twice(storage: Storage) -> None:
    names = list[str]()
    for number in range(5):
        claim, held = claims(storage, f"run{number}").take(KEYS)
        assert claim is not None
        assert not held
        names.append(claim.path)
        claim.release()

    assert len(set(names)) == 5
    assert storage.files(storage.path("ledger", "space", "asking"), ".claim") == names[-1:]


@pytest.mark.parametrize(
    ("attempt", "other", "same"),
    [
        ("run", "run", True),
        ("run", "another", False),
        ("run:1", "run:2", True),
        ("run:1", "another:1", False),
        ("run:1:task:1", "run:1:task:2", True),
        ("run:1:task:1", "run:2:task:1", True),
        ("run:1:task:1", "run:1:beside:1", False),
    ],
)
def test_tries_of_one_run_or_task_are_the_same_work_and_tasks_beside_each_other_not(
    attempt: str, other: str, same: bool
) -> None:
    assert is_same_work(attempt, other) is same
