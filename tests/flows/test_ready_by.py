"""A deadline for batches: what no job has answered by then is asked online, and nothing is asked twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.engine.errors import CostLimitError
from flows.engine.graph import Rows
from flows.engine.report import waiting_line
from flows.waiting.leaving import delays_between_polls, seconds_to_next_poll
from llms import AnthropicLLM, OpenAILLM, PriceSource
from llms.batch import OfflineBatchLLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tests.conftest import wait_for

ROWS = [{"instruction": f"Tell me about number {number}."} for number in range(12)]
BATCHES: dict[str, Any] = {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 1}
LLMS: dict[str, Callable[..., OfflineBatchLLM]] = {
    "openai": lambda **options: OpenAILLM(model="gpt-4o-mini", **options),
    "anthropic": lambda **options: AnthropicLLM(model="claude-3-haiku-20240307", **options),
}


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", 0.3)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{provider.base_url}")
    provider.set(batch_manual=True, answers={r"number (?P<number>\d+)": "All about {number}."})
    return provider


def generated(wire: str = "openai", **options: Any) -> Rows:
    llm = LLMS[wire](**BATCHES, **options)
    return load(ROWS, shard_rows=4).map(TextGeneration(name="told", llm=llm))


def online(provider: LocalProvider) -> int:
    return provider.stats.count("/chat/completions") + provider.stats.count("/messages")


def cancelled(provider: LocalProvider) -> int:
    return sum(provider.stats.count(f"{path}/{{id}}/cancel") for path in ("/batches", "/messages/batches"))


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["generation"] for row in rows]


@pytest.fixture
def overnight(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two hours pass once a job was looked at; jobs take longer, and give half of their answers when cancelled."""
    provider.set(batch_seconds=1e6, batch_manual=False, batch_order={"done_fraction": 0.5})
    over, clock = threading.Event(), time.time

    def pass_hours() -> None:
        while not over.wait(0.01):
            if any(provider.stats.count(f"{path}/{{id}}") for path in ("/batches", "/messages/batches")):
                monkeypatch.setattr("time.time", lambda: clock() + 7200)
                return

    thread = threading.Thread(target=pass_hours)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("wire", LLMS)
def test_what_a_job_hasnt_answered_by_its_deadline_is_asked_online_and_the_rest_of_it_is_cancelled(
    provider: LocalProvider, overnight: None, storage: Path, wire: str
) -> None:
    made = list(collect(generated(wire, ready_by=1)))

    assert texts(made) == [f"All about {number}." for number in range(12)]
    (job,) = provider.batches
    assert job.get("cancelled_at") or job["cancel_initiated_at"]
    assert online(provider) == 6
    assert cancelled(provider) == 1


def test_a_job_that_ends_in_time_is_the_only_one_to_answer(provider: LocalProvider, storage: Path) -> None:
    provider.set(batch_manual=False, batch_seconds=0.0)

    made = list(collect(generated(ready_by=1)))

    assert texts(made) == [f"All about {number}." for number in range(12)]
    assert online(provider) == cancelled(provider) == 0


def test_a_step_that_begins_after_the_deadline_submits_no_job(provider: LocalProvider, storage: Path) -> None:
    made = list(collect(generated(ready_by=0)))

    assert texts(made) == [f"All about {number}." for number in range(12)]
    assert not provider.batches
    assert online(provider) == 12


def test_rows_whose_jobs_had_all_their_tries_are_asked_online_after_the_deadline(
    provider: LocalProvider, overnight: None, storage: Path
) -> None:
    made = list(collect(generated(ready_by=1, batch_tries=1)))

    assert texts(made) == [f"All about {number}." for number in range(12)]
    assert len(provider.batches) == 1


class Priced(OpenAILLM):
    """Asks here, at OpenAI's prices."""

    def price_source(self) -> PriceSource | None:
        return PriceSource("https://api.openai.com/v1", "gpt-4o")


def test_a_run_asks_no_more_online_than_its_max_cost_allows(
    provider: LocalProvider, overnight: None, storage: Path
) -> None:
    # Half of the job counts, of $0.024 as it is estimated, and $0.0125 for each answer online.
    provider.set(answers={"": "word " * 1000})

    def made(**options: Any) -> Rows:
        llm = Priced(model="gpt-4o", max_concurrent_requests=1, **BATCHES, **options)
        return load(ROWS, shard_rows=4).map(TextGeneration(name="told", llm=llm))

    with pytest.raises(CostLimitError, match=r"spent \$0\.050 of max_cost=0.06"):
        list(collect(made(ready_by=1), max_cost=0.06))

    assert 1 <= online(provider) <= 3
    list(collect(made(ready_by=0), max_cost=1))
    assert online(provider) == 6


def test_what_another_runs_job_holds_is_waited_for_after_the_deadline(provider: LocalProvider, storage: Path) -> None:
    others = threading.Thread(target=lambda: list(collect(generated())))
    others.start()
    wait_for(lambda: len(provider.batches) == 1, what="a job")
    made: list[dict[str, Any]] = []
    mine = threading.Thread(target=lambda: made.extend(collect(generated(ready_by=0))))
    mine.start()
    looks = provider.stats.count("/batches/{id}")
    wait_for(lambda: provider.stats.count("/batches/{id}") > looks + 5, what="a look by each run")

    provider.end_batch(provider.batches[0]["id"])
    mine.join()
    others.join()

    assert texts(made) == [f"All about {number}." for number in range(12)]
    assert online(provider) == cancelled(provider) == 0


def test_a_waiting_run_says_when_the_rest_will_be_asked_online() -> None:
    assert "what is missing at 06:30 UTC is asked online" in waiting_line([], [], 0, None, 6.5 * 3600)


def test_the_run_looks_at_the_deadline_and_often_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)

    delays = delays_between_polls(age=3600.0, blocking=None, deadline=1700.0)

    assert delays[:4] == [700.0, *[seconds_to_next_poll(0)] * 3]
    assert delays_between_polls(age=3600.0, blocking=None, deadline=2000.0)[:3] == [
        720.0,
        280.0,
        seconds_to_next_poll(0),
    ]
