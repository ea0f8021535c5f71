"""How many requests are under way, and when one is sent again."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import statistics
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llms import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    LLMError,
    OpenAILLM,
    OverloadedError,
    ProviderAwayError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.concurrency import FIRST_ALLOWED, Concurrency
from llms.errors import error_for_status
from llms.limits import (
    LONGEST_DELAY,
    RETRIES_BEFORE_FIRST_CONTACT,
    Limiter,
    Ticket,
    delay,
    limiter_for,
    send,
)
from llms.local_provider import LocalProvider
from llms.outages import LONGEST_PAUSE, ROWS_OF_AN_OUTAGE
from tests.conftest import LONGEST, free_port, wait_for
from tests.virtual_time import in_virtual_time


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.001)


def chats(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"number {number}"}] for number in range(count)]


# A real server


@pytest.mark.parametrize("at_a_time", [1, 7, 30])
def test_a_server_that_refuses_above_its_limit_answers_all_in_order(at_a_time: int) -> None:
    count = 25 if at_a_time == 1 else 150
    options: dict[str, Any] = {"latency": 0.01, "max_concurrency": at_a_time, "concurrency_retry_after": 0.05}
    with LocalProvider(answers={r"number (?P<which>\d+)": "answer {which}"}, **options) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_retries=50)
        outputs = llm.generate_outputs(inputs=chats(count))

        assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(count)]
        assert provider.stats.count("/chat/completions", 200) == count
        assert provider.stats.refused < 4 * count


def test_a_tenth_of_refusals_slows_a_run_little(waits: list[float]) -> None:
    fault = {"probability": 0.1, "status": 429, "retry_after": 0.05}
    with LocalProvider(latency=0.02, faults=[fault]) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url)
        outputs = llm.generate_outputs(inputs=chats(200))

        assert all(output["generations"][0] for output in outputs)
        assert max(waits) < 0.5, "those that were refused come again soon"


class Provider:
    """One that takes 0.2 s for an answer, in virtual time, and refuses at once what is too much for it or by chance."""

    def __init__(self, *, most: int | None = None, refusals: float = 0.0, seed: int = 0) -> None:
        self.most, self.refusals, self.chance = most, refusals, random.Random(seed)
        self.in_flight = 0

    async def answer(self) -> None:
        if self.in_flight == self.most or self.chance.random() < self.refusals:
            await asyncio.sleep(0.005)
            raise RateLimitError("too many requests")
        self.in_flight += 1
        await asyncio.sleep(0.2)
        self.in_flight -= 1

    def seconds_for(self, rows: int, ceiling: int) -> float:
        """Virtual seconds until so many rows are answered, up to `ceiling` of them at a time."""
        return self.after(rows, ceiling)[0]

    def after(self, rows: int, ceiling: int) -> tuple[float, Limiter]:
        """Those seconds, and what the limiter knows then."""

        async def all_of_them() -> tuple[float, Limiter]:
            limiter = Limiter(ceiling)
            await asyncio.gather(*(send(self.answer, limiter, 50) for _ in range(rows)))
            return asyncio.get_running_loop().time(), limiter

        return in_virtual_time(all_of_them())


def test_a_provider_that_takes_30_at_a_time_is_used_to_the_full() -> None:
    ideal = 600 / 30 * 0.2

    assert Provider(most=30).seconds_for(600, ceiling=60) < 1.1 * ideal


def test_refusals_of_a_tenth_by_chance_cost_less_than_half_as_much_again() -> None:
    ideal = 500 / 50 * 0.2
    took = [Provider(refusals=0.1, seed=seed).seconds_for(500, ceiling=50) for seed in range(9)]

    assert statistics.median(took) < 1.5 * ideal


@pytest.mark.parametrize("seed", range(20))
def test_after_refusals_of_a_tenth_by_chance_no_fewer_than_at_the_start_are_under_way(seed: int) -> None:
    _, limiter = Provider(refusals=0.1, seed=seed).after(1000, ceiling=200)

    assert limiter.allowed >= FIRST_ALLOWED


def test_the_last_request_of_many_is_refused_and_the_next_many_are_as_many_as_before() -> None:
    concurrency = Concurrency(ceiling=50)
    for number in range(50):
        concurrency.answered(number, level=50 - number, wanted=False)
    concurrency.refused(50, level=1, retry_after=0.0, latest=50, in_flight=1)
    concurrency.returned(50)

    assert concurrency.allowed == 50


def test_answers_of_before_speak_only_once_for_a_provider_that_refuses_everything_now() -> None:
    concurrency = Concurrency(ceiling=50)
    for number in range(50):
        concurrency.answered(number, level=50, wanted=True)
    for number in range(50, 150):
        concurrency.refused(number, level=1, retry_after=0.0, latest=number, in_flight=1)
        concurrency.returned(number)

    assert concurrency.allowed < 2


def test_never_more_than_the_ceiling_are_under_way() -> None:
    with LocalProvider(port=free_port(), latency=LONGEST) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_concurrent_requests=5)
        asking = threading.Thread(target=llm.generate_outputs, args=[chats(60)])
        asking.start()
        wait_for(lambda: provider.stats.in_flight >= 5, what="as many as may be")
        # Those that are under way are cut off, and come again to a server that answers at once.
        provider.set(latency=0.0)
        provider.stop()
        provider.start()
        asking.join()

        assert provider.stats.max_in_flight == 5
        assert provider.stats.count("/chat/completions", 200) == 60


def test_a_server_that_allows_it_gets_the_ceiling() -> None:
    with LocalProvider(port=free_port()) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_concurrent_requests=80, max_retries=0)
        llm.generate_outputs(inputs=chats(200))
        provider.set(latency=LONGEST)
        rest = threading.Thread(target=llm.generate_outputs, args=[chats(200)])
        rest.start()
        wait_for(lambda: provider.stats.in_flight >= 80, what="as many as may be")
        most = provider.stats.max_in_flight
        # Those that are under way are cut off, and come again to a server that answers at once.
        provider.set(latency=0.0)
        provider.stop()
        provider.start()
        rest.join()

    assert FIRST_ALLOWED < most == 80


# The limiter


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def full_limiter(allowed: int) -> tuple[Limiter, list[Ticket]]:
    limiter = Limiter(ceiling=allowed)
    return limiter, [await limiter.acquire() for _ in range(allowed)]


def test_waiters_are_let_in_in_their_order() -> None:
    async def main() -> list[int]:
        limiter, (first,) = await full_limiter(1)
        entered: list[int] = []

        async def enter(number: int) -> None:
            ticket = await limiter.acquire()
            entered.append(number)
            limiter.failed(ticket)

        waiting = [asyncio.create_task(enter(number)) for number in range(20)]
        await settled()
        limiter.failed(first)
        await asyncio.gather(*waiting)
        assert limiter.in_flight == 0
        return entered

    assert asyncio.run(main()) == list(range(20))


@given(st.lists(st.sampled_from(["enter", "leave", "refuse", "succeed", "cancel", "settle"]), max_size=80))
@settings(deadline=None)
def test_places_are_never_lost_and_never_made(steps: list[str]) -> None:
    async def main() -> None:
        limiter, tasks = Limiter(ceiling=4), list[asyncio.Task[Ticket]]()
        inside = list[asyncio.Task[Ticket]]()

        def take() -> Ticket:
            """The request that leaves next."""
            task = inside.pop(0)
            tasks.remove(task)
            return task.result()

        def note_who_is_in() -> None:
            inside.extend(task for task in tasks if task.done() and not task.cancelled() and task not in inside)

        for step in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(limiter.acquire()))
            elif step == "cancel" and (waiting := [task for task in tasks if not task.done()]):
                waiting[0].cancel()
            elif step == "settle":
                await settled()
            elif step in {"leave", "refuse", "succeed"} and inside:
                actions = {"leave": limiter.failed, "succeed": limiter.succeeded, "refuse": limiter.refused}
                actions[step](take())
            note_who_is_in()
            assert 0 <= limiter.in_flight <= 4
            assert 1 <= limiter.allowed <= 4
        await settled()
        note_who_is_in()
        assert limiter.in_flight == len(inside)
        while any(not task.done() for task in tasks) or inside:
            assert inside, "somebody waits, and nobody is inside who could make place"
            limiter.failed(take())
            await settled()
            note_who_is_in()
        assert limiter.in_flight == 0

    asyncio.run(main())


def test_a_cancelled_request_gives_its_place_back() -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=1)
        request = asyncio.create_task(send(lambda: asyncio.sleep(LONGEST), limiter, 0))
        waiter = asyncio.create_task(send(lambda: asyncio.sleep(0, "answer"), limiter, 0))
        await settled()
        request.cancel()

        assert await asyncio.wait_for(waiter, LONGEST) == "answer"
        assert limiter.in_flight == 0

    asyncio.run(main())


def test_a_waiter_cancelled_just_when_its_place_came_gives_it_on() -> None:
    async def main() -> None:
        limiter, (inside,) = await full_limiter(1)
        first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
        await settled()
        limiter.failed(inside)
        first.cancel()
        await settled()

        assert first.cancelled()
        assert second.done()
        assert limiter.in_flight == 1

    asyncio.run(main())


def after(limiter: Limiter, tickets: Iterable[Ticket], taken: Callable[[Ticket], bool]) -> None:
    """The requests come back: those refused first, as a provider refuses at once."""
    for ticket in sorted(tickets, key=taken):
        (limiter.succeeded if taken(ticket) else limiter.refused)(ticket)


async def crowd(limiter: Limiter, count: int) -> list[Ticket]:
    """So many requests under way, and more that wait."""
    tickets = [await limiter.acquire() for _ in range(count)]
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(200)]
    _waiting.update(waiting)
    await settled()
    return tickets


_waiting: set[asyncio.Future[Ticket]] = set()


def test_an_episode_ends_with_what_the_provider_took_at_a_time() -> None:
    async def main() -> Limiter:
        limiter = Limiter(ceiling=50)
        after(limiter, await crowd(limiter, 50), lambda ticket: ticket.level <= 30)
        return limiter

    limiter = asyncio.run(main())

    assert limiter.refusals == 20
    assert limiter.allowed == 30


def test_refusals_at_random_leave_the_number_as_it_is() -> None:
    async def main() -> Limiter:
        limiter = Limiter(ceiling=50)
        after(limiter, await crowd(limiter, 50), lambda ticket: ticket.level % 10 != 5)
        return limiter

    limiter = asyncio.run(main())

    assert limiter.refusals == 5
    assert limiter.allowed == 50


def test_a_provider_that_takes_less_than_half_gets_half_at_most() -> None:
    async def main() -> Limiter:
        limiter = Limiter(ceiling=50)
        after(limiter, await crowd(limiter, 50), lambda ticket: ticket.level % 3 == 0)
        return limiter

    assert asyncio.run(main()).allowed == 16


def test_the_number_grows_only_while_requests_want_more() -> None:
    async def main() -> tuple[float, float]:
        busy, idle = Limiter(ceiling=200), Limiter(ceiling=200)
        after(busy, await crowd(busy, FIRST_ALLOWED), lambda _: True)
        for _ in range(100):
            idle.succeeded(await idle.acquire())
        return busy.allowed, idle.allowed

    busy, idle = asyncio.run(main())

    assert busy == 2 * FIRST_ALLOWED
    assert idle == FIRST_ALLOWED


def test_a_lease_holds_back_and_gives_back_at_once() -> None:
    async def main() -> list[int]:
        limiter, seen = Limiter(ceiling=10), list[int]()
        limiter.lease(2)
        await crowd(limiter, 2)
        for places in (2, 5, 3, None):
            limiter.lease(places)
            await settled()
            seen.append(limiter.in_flight)
        return seen

    assert asyncio.run(main()) == [2, 5, 5, 10]


@given(st.lists(st.booleans(), max_size=300))
@settings(deadline=None)
def test_the_limit_stays_between_one_and_the_ceiling(answers: list[bool]) -> None:
    async def main() -> None:
        limiter = Limiter(ceiling=50)
        for good in answers:
            ticket = await limiter.acquire()
            if good:
                limiter.succeeded(ticket)
            else:
                limiter.refused(ticket)
            assert 1 <= limiter.allowed <= 50
            assert limiter.in_flight == 0

    asyncio.run(main())


def test_each_loop_has_a_limiter_of_its_own_and_each_key() -> None:
    async def limiter(key: str, ceiling: int = 5) -> Limiter:
        return limiter_for(key, ceiling)

    async def twice() -> bool:
        return await limiter("a") is await limiter("a") and await limiter("a") is not await limiter("b")

    assert asyncio.run(twice())
    assert asyncio.run(limiter("a")) is not asyncio.run(limiter("a"))


# Sending again


class Requests:
    """Fails with the errors given, one a try, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.parametrize("error", [RateLimitError("x"), OverloadedError("x"), RequestTimeoutError("x")])
@pytest.mark.usefixtures("quick_retries")
def test_a_failure_that_may_pass_is_tried_as_often_as_allowed(error: LLMError) -> None:
    enough, short = Requests(*[error] * 3), Requests(*[error] * 4)

    assert asyncio.run(send(enough, Limiter(10), max_retries=3)) == "answer"
    with pytest.raises(type(error)):
        asyncio.run(send(short, Limiter(10), max_retries=3))
    assert short.tries == 4


@pytest.mark.parametrize("error", [BadRequestError("x"), AuthenticationError("x"), LLMError("x"), KeyError("x")])
def test_a_final_failure_is_raised_at_once(error: Exception) -> None:
    requests, limiter = Requests(error), Limiter(10)

    with pytest.raises(type(error)):
        asyncio.run(send(requests, limiter, max_retries=5))
    assert requests.tries == 1
    assert limiter.in_flight == 0


@pytest.mark.usefixtures("quick_retries")
def test_an_address_that_never_answered_is_tried_a_few_times_only() -> None:
    never = Requests(*[ConnectionFailedError("x")] * 10)

    with pytest.raises(ConnectionFailedError):
        asyncio.run(send(never, Limiter(10), max_retries=6))

    assert never.tries == 1 + RETRIES_BEFORE_FIRST_CONTACT


# A provider that is away


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.outages.FIRST_PROBE", 0.01)
    monkeypatch.setattr("llms.outages.LONGEST_PROBE", 0.05)
    monkeypatch.setattr("llms.outages.SECONDS_BEFORE_A_WORD", 0.0)
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.001)


@pytest.mark.usefixtures("quick_probes")
@pytest.mark.parametrize("how", ["stopped", "down"])
def test_a_provider_that_goes_away_is_waited_for_and_no_row_is_lost(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with LocalProvider(port=free_port(), latency=0.01) as provider, caplog.at_level(logging.WARNING, "llms.outages"):
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_retries=3, max_concurrent_requests=20)
        llm.generate_outputs(chats(1))
        provider.stop() if how == "stopped" else provider.set(up=False)

        def come_back() -> None:
            wait_for(lambda: "doesn't answer" in caplog.text, what="the word that it's away")
            provider.start() if how == "stopped" else provider.set(up=True)

        back = threading.Thread(target=come_back)
        back.start()
        outputs = llm.generate_outputs(chats(100))
        back.join()

        assert all(output["generations"][0] for output in outputs)
        # One at a time found out, once the first ones had failed.
        assert provider.stats.count("/chat/completions", 503) <= 60
    assert "doesn't answer" in caplog.text
    assert re.search(r"answers again, after \d+ s", caplog.text)


@pytest.mark.usefixtures("quick_probes")
def test_a_provider_that_stays_away_ends_the_run_with_the_way_out() -> None:
    with LocalProvider() as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, outage_timeout=0.3, max_retries=3)
        llm.generate_outputs(chats(1))
        provider.set(up=False)

        with pytest.raises(ProviderAwayError, match="hasn't answered for \\d+ s .*OverloadedError.*outage_timeout"):
            llm.generate_outputs(chats(50))


class Away:
    """Is away for as long as it's told to be."""

    def __init__(self, failure: LLMError) -> None:
        self.failure: LLMError | None = failure
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        return "answer"


def away(failure: LLMError, outage_timeout: float = 3600.0) -> tuple[Away, Limiter]:
    limiter = Limiter(10, outage_timeout=outage_timeout)
    limiter.heard()
    return Away(failure), limiter


@pytest.mark.parametrize("ends", ["is cancelled", "gives up"])
@pytest.mark.parametrize("failure", [ConnectionFailedError("x"), OverloadedError("x", retry_after=LONGEST_PAUSE)])
def test_a_run_after_one_that_met_an_outage_finds_out_at_once_that_the_provider_is_back(
    failure: LLMError, ends: str
) -> None:
    async def main() -> float:
        provider, limiter = away(failure, 3600.0 if ends == "is cancelled" else 100.0)
        first = [asyncio.create_task(send(provider, limiter, 1)) for _ in range(10)]
        if ends == "is cancelled":
            await asyncio.sleep(LONGEST_PAUSE / 2)
            assert limiter.circuit.is_open
            for each in first:
                each.cancel()
        ended = await asyncio.gather(*first, return_exceptions=True)
        kind = asyncio.CancelledError if ends == "is cancelled" else ProviderAwayError
        assert {type(each) for each in ended} == {kind}
        provider.failure = None
        began = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(send(provider, limiter, 1) for _ in range(10))) == ["answer"] * 10
        return asyncio.get_running_loop().time() - began

    assert in_virtual_time(main()) < 0.1


def test_a_run_after_a_cancelled_one_waits_for_a_provider_that_is_still_away_as_long_as_any() -> None:
    async def main() -> list[str]:
        provider, limiter = away(ConnectionFailedError("x"), outage_timeout=100.0)
        first = [asyncio.create_task(send(provider, limiter, 1)) for _ in range(10)]
        await asyncio.sleep(50)
        for each in first:
            each.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        await asyncio.sleep(1000)
        second = asyncio.gather(*(send(provider, limiter, 1) for _ in range(10)))
        await asyncio.sleep(50)
        provider.failure = None
        return await second

    assert in_virtual_time(main()) == ["answer"] * 10


def test_who_joins_those_that_wait_for_a_provider_sends_nothing_before_they_would() -> None:
    async def main() -> int:
        provider, limiter = away(ConnectionFailedError("x"))
        rows = [asyncio.create_task(send(provider, limiter, 1))]
        await asyncio.sleep(60)
        before = provider.tries
        rows += [asyncio.create_task(send(provider, limiter, 1)) for _ in range(50)]
        await asyncio.sleep(1)
        tries = provider.tries - before
        provider.failure = None
        await asyncio.gather(*rows)
        return tries

    assert in_virtual_time(main()) <= 1


@pytest.mark.usefixtures("quick_probes")
def test_where_outages_are_not_waited_for_the_last_failure_is_raised_after_the_retries() -> None:
    down = Requests(*[ConnectionFailedError("x")] * 10)
    reached_before = Limiter(10, outage_timeout=0.0)
    reached_before.circuit.reached = True

    with pytest.raises(ConnectionFailedError):
        asyncio.run(send(down, reached_before, max_retries=2))

    assert down.tries == 3


@pytest.mark.parametrize("max_retries", [1, 3])
@pytest.mark.parametrize("seconds", [0.2, 30.0])
def test_rows_refused_while_those_sent_before_are_still_answered_are_not_lost(seconds: float, max_retries: int) -> None:
    async def main() -> list[str]:
        limiter, loop = Limiter(20), asyncio.get_running_loop()

        async def sent_before(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "answer"

        async def sent_while_away() -> str:
            await asyncio.sleep(0.01)
            if loop.time() < 4 * seconds:
                raise error_for_status(503, "away")
            return "answer"

        # One after the other they give their places to those that are refused.
        before = [partial(sent_before, seconds * (1 + number / 15)) for number in range(15)]
        return await asyncio.gather(
            *(send(each, limiter, max_retries) for each in (*before, *[sent_while_away] * ROWS_OF_AN_OUTAGE))
        )

    assert in_virtual_time(main()) == ["answer"] * (15 + ROWS_OF_AN_OUTAGE)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("seconds", [0.01, 30.0])
def test_a_row_that_is_refused_while_those_sent_after_it_are_answered_fails_after_its_retries(
    seconds: float, status: int
) -> None:
    async def main() -> list[str | BaseException]:
        limiter, refused = Limiter(20), Requests(*[error_for_status(status, "refused")] * 1000)

        async def request() -> str:
            await asyncio.sleep(seconds)
            return "answer"

        rows = [request] * 10 + [refused] + [request] * 200
        ended = await asyncio.gather(*(send(each, limiter, 3) for each in rows), return_exceptions=True)
        assert refused.tries <= 12
        return ended

    ended = in_virtual_time(main())

    assert "refused" in str(ended.pop(10))
    assert ended == ["answer"] * 210


@pytest.mark.usefixtures("quick_probes")
def test_a_row_that_alone_fails_is_no_outage() -> None:
    poison = {"match": "number 7\\D", "status": 500, "message": "Poison."}
    with LocalProvider(faults=[poison]) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, max_retries=3)
        outputs = llm.generate_outputs(chats(60))

        assert [number for number, output in enumerate(outputs) if output["generations"] == [None]] == [7]
        assert "Poison" in outputs[7]["error"]["message"]


def test_a_fatal_failure_ends_those_that_wait_but_not_those_that_come_later() -> None:
    async def main() -> list[str]:
        limiter = Limiter(ceiling=1)
        requests = [Requests(AuthenticationError("wrong key")), Requests(), Requests()]
        ended = await asyncio.gather(*(send(each, limiter, 0) for each in requests), return_exceptions=True)
        assert [each.tries for each in requests] == [1, 0, 0]
        assert limiter.in_flight == 0
        return [*map(str, ended), await send(Requests(), limiter, 0)]

    assert asyncio.run(main()) == ["wrong key", "wrong key", "wrong key", "answer"]


@pytest.mark.usefixtures("quick_retries")
def test_a_fatal_failure_ends_those_that_would_be_sent_again() -> None:
    async def main() -> list[str]:
        limiter = Limiter(ceiling=2)
        again, wrong = Requests(*[OverloadedError("later", retry_after=0.05)] * 3), Requests(AuthenticationError("no"))
        ended = await asyncio.gather(send(again, limiter, 6), send(wrong, limiter, 6), return_exceptions=True)
        assert again.tries == 1
        return [str(error) for error in ended]

    assert asyncio.run(main()) == ["no", "no"]


def test_a_place_is_free_while_a_request_waits_for_its_next_try() -> None:
    async def main() -> list[str]:
        limiter, order = Limiter(ceiling=1), list[str]()

        async def run(name: str, requests: Requests) -> None:
            await send(requests, limiter, 3)
            order.append(name)

        await asyncio.gather(run("slow", Requests(RateLimitError("x", retry_after=0.1))), run("quick", Requests()))
        return order

    assert asyncio.run(main()) == ["quick", "slow"]


@given(st.integers(0, 60), st.one_of(st.none(), st.floats(0, 1e6)))
def test_the_wait_is_what_was_asked_for_or_grows_up_to_a_bound(retries: int, retry_after: float | None) -> None:
    wait = delay(retries, retry_after)

    if retry_after is None:
        assert 0 < wait <= LONGEST_DELAY
    else:
        assert min(retry_after, LONGEST_PAUSE) <= wait <= min(retry_after, LONGEST_PAUSE) + 0.1
