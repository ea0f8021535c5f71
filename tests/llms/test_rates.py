"""Requests and tokens per minute: what headers say, and how long to wait."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llms import AnthropicLLM, OpenAILLM
from llms.limits import Limiter
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from llms.rates import Budget, Rate, rates_in, seconds_in
from tests.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("text", "seconds"), [("6m0s", 360.0), ("120ms", 0.12), ("1.5s", 1.5), ("1h2m3s", 3723.0), ("7", 7.0), ("0s", 0.0)]
)
def test_a_time_until_full_is_read_in_every_writing(text: str, seconds: float) -> None:
    assert seconds_in(text) == pytest.approx(seconds)


def test_a_time_of_day_is_read_as_the_seconds_until_then() -> None:
    then = datetime.now(UTC) + timedelta(seconds=30)

    assert seconds_in(then.isoformat().replace("+00:00", "Z")) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("text", ["soon", "", "6 minutes", "1x"])
def test_what_is_no_time_says_nothing(text: str) -> None:
    assert seconds_in(text) is None


def test_headers_of_openai_and_of_anthropic_are_read_alike() -> None:
    openai = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "300",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "60000",
    }
    in_30_seconds = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    anthropic = {
        "anthropic-ratelimit-requests-limit": "600",
        "anthropic-ratelimit-requests-remaining": "300",
        "anthropic-ratelimit-requests-reset": in_30_seconds,
    }

    assert rates_in(openai) == {"requests": Rate(600, 300, 10), "tokens": Rate(60_000, 60_000, 1_000)}
    assert rates_in(anthropic)["requests"].per_second == pytest.approx(10, rel=0.05)


def test_a_limit_per_day_fills_as_slowly_as_its_headers_say() -> None:
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "5000",
        "x-ratelimit-reset-requests": "12h0m0s",
    }

    assert rates_in(headers)["requests"].per_second == pytest.approx(5000 / 43200)


@pytest.mark.parametrize("bad", [{"limit": "many"}, {"limit": "0"}, {"remaining": "-1"}, {"limit": "nan"}])
def test_headers_that_make_no_sense_are_passed_over(bad: dict[str, str]) -> None:
    given = {"limit": "600", "remaining": "300", "reset": "1s", **bad}

    assert rates_in({f"x-ratelimit-{name}-requests": value for name, value in given.items()}) == {}


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), max_size=50))
def test_no_more_is_spent_than_the_rate_and_one_burst_bring(requests: list[tuple[float, float]]) -> None:
    budget, now, spent = Budget.per_minute(600, 0.0), 0.0, 0.0
    for pause, cost in requests:
        now += pause
        now += budget.wait_for(cost, now)
        budget.take(cost, now)
        spent += min(cost, budget.capacity)
        assert spent <= budget.capacity + now * 10 + 1e-6


def chats(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"number {number}"}] for number in range(count)]


def test_a_provider_that_tells_its_rate_refuses_hardly_any_request() -> None:
    with LocalProvider(requests_per_minute=3_000, burst_seconds=1.0, latency=0.01) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url)
        llm.generate_outputs(chats(1))
        llm.generate_outputs(chats(100))

        assert provider.stats.count("/chat/completions", 200) == 101
        assert provider.stats.count("/chat/completions", 429) <= 10


@pytest.mark.parametrize("unit", ["requests_per_minute", "tokens_per_minute"])
def test_a_rate_of_ones_own_is_kept_to(unit: str) -> None:
    # 50 requests a second, or as many tokens as they have.
    tokens = 2.25
    llm = OpenAILLM(
        model="m", base_url="http://nobody", **{unit: 3_000 * (1.0 if unit == "requests_per_minute" else tokens)}
    )

    async def ask(limiter: Limiter) -> float:
        limiter.succeeded(await limiter.acquire(tokens))
        return asyncio.get_running_loop().time()

    async def all_of_them() -> list[float]:
        limiter = llm.limiter()
        return await asyncio.gather(*(ask(limiter) for _ in range(75)))

    times = in_virtual_time(all_of_them())

    # A burst of 50 at once, and the others at 50 a second.
    assert times[:50] == pytest.approx([0.0] * 50, abs=1e-3)
    assert times[50:] == pytest.approx([number / 50 for number in range(1, 26)], abs=1e-3)


def test_requests_are_told_how_many_tokens_they_are_about_to_cost() -> None:
    with LocalProvider() as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, tokens_per_minute=6_000)
        before = run_sync(budget_of(llm))
        llm.generate_outputs(chats(1))

        assert run_sync(budget_of(llm)) < before


async def budget_of(llm: OpenAILLM) -> float:
    """What is left of the tokens of a minute, as of the last request."""
    return llm.limiter().pace.budgets["tokens"].level


def test_anthropics_headers_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalProvider(requests_per_minute=600) as provider:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        llm = AnthropicLLM(model="m", base_url=provider.base_url.removesuffix("/v1"))
        llm.generate_outputs(chats(1))

        assert provider.stats.count("/messages", 200) == 1
