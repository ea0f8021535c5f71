"""`max_cost`: what a run may spend, online and on batches, over all of its attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect.cache_policies import NO_CACHE

from flows import Pipeline, Rows, collect, flow, load
from flows.engine.budget import Budget
from flows.engine.errors import CostLimitError, failed_state
from llms import AuthenticationError, OpenAILLM, PriceSource
from tasks import CombineOutputs, LoadDataFromDicts, TextGeneration
from tests.conftest import LONGEST
from tests.scripted import Reply, Scripted, completion

PROMPTS = [{"instruction": f"Tell me of number {number}."} for number in range(40)]
TOKENS = 1000
"""Of an answer: $0.01 with gpt-4o."""
USAGE = {"prompt_tokens": 0, "completion_tokens": TOKENS, "total_tokens": TOKENS}
ANOTHER = "gpt-4o-2024-11-20"
BATCHES = {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 1}


class Priced(OpenAILLM):
    """Asks here, at OpenAI's prices."""

    def price_source(self) -> PriceSource | None:
        return PriceSource("https://api.openai.com/v1", "gpt-4o")


def dear(body: dict[str, Any]) -> Reply:
    """An answer for a cent, which takes a moment."""
    time.sleep(0.01)
    return completion(usage=USAGE)


def task(server: Scripted, llm: type[OpenAILLM] = Priced, *, model: str = "gpt-4o", **options: Any) -> TextGeneration:
    kwargs = {"max_new_tokens": TOKENS}
    made = llm(model=model, base_url=server.url, api_key="k", max_concurrent_requests=30, **options)
    return TextGeneration(llm=made.merged({"generation_kwargs": kwargs}))


def test_a_run_stops_before_it_spends_more_and_another_with_a_higher_limit_asks_only_the_rest(storage: Path) -> None:
    with Scripted(dear) as server:
        with pytest.raises(CostLimitError, match=r"spent \$0\.2\d of max_cost=0.25, .* higher max_cost: .* is kept"):
            collect(task(server).map(load(PROMPTS, shard_rows=15)), max_cost=0.25)
        asked = len(server.asked)

        dataset = collect(task(server).map(load(PROMPTS, shard_rows=15)), max_cost=0.25)

    assert 20 <= asked <= 25
    assert dataset["generation"][:] == ["Fine."] * 40
    assert len(server.asked) == 40


def test_requests_under_way_count_as_400_tokens_each_where_nothing_limits_an_answer_and_none_is_known(
    storage: Path,
) -> None:
    all_that_fit = threading.Event()

    def together(body: dict[str, Any]) -> Reply:
        """An answer, once as many are under way as fit."""
        if len(server.asked) >= 25:
            all_that_fit.set()
        all_that_fit.wait(LONGEST)
        return dear(body)

    with Scripted(together) as server:
        unlimited = TextGeneration(llm=Priced(model="gpt-4o", base_url=server.url, api_key="k"))
        with pytest.raises(CostLimitError):
            collect(unlimited.map(load(PROMPTS)), max_cost=0.102)

    assert len(server.asked) == 25


def test_a_request_under_way_counts_as_the_dearest_that_was_answered_and_before_as_its_estimate() -> None:
    async def with_room(budget: Budget) -> int:
        """How many of 40 requests have room beside each other."""
        entered = 0

        async def ask() -> None:
            nonlocal entered
            async with budget.room_for("step", lambda: 0.004):
                entered += 1
                await asyncio.Event().wait()

        asking = [asyncio.ensure_future(ask()) for _ in range(40)]
        await asyncio.sleep(0)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return entered

    async def main() -> list[int]:
        budget = Budget(began_before=False)
        budget.max_cost = 0.101
        rooms: list[int] = []
        for dollars in (0.0, 0.01, 0.005, 0.02):
            budget.spend("step", dollars or None)
            rooms.append(await with_room(budget))
        return rooms

    # 0.101 / 0.004, then 0.091 / 0.01, 0.086 / 0.01 and 0.066 / 0.02.
    assert asyncio.run(main()) == [25, 9, 8, 3]


def test_what_was_paid_for_nothing_counts(storage: Path) -> None:
    def thoughts(body: dict[str, Any]) -> Reply:
        return completion("", "length", USAGE)

    with Scripted(thoughts) as server, pytest.raises(CostLimitError):
        collect(task(server).map(load(PROMPTS)), max_cost=0.1, max_failed_rows=100)

    assert len(server.asked) <= 10


@pytest.mark.usefixtures("prefect")
def test_a_retry_of_a_run_has_what_the_first_attempt_left(storage: Path) -> None:
    with Scripted(dear) as server:

        @flow(retries=1, retry_delay_seconds=0)
        def limited() -> Any:
            return collect(task(server).map(load(PROMPTS, shard_rows=15)), max_cost=0.25)

        with pytest.raises(CostLimitError):
            limited()

    assert 20 <= len(server.asked) <= 25


def in_two_steps(server: Scripted) -> Rows:
    """A step that costs $0.20, and one by another model that costs as much again."""
    changes = {"name": "second", "input_mappings": {"instruction": "generation"}}
    second = task(server, model=ANOTHER).model_copy(update=changes)
    return second.map(task(server).map(load(PROMPTS[:20])))


@pytest.mark.usefixtures("prefect")
def test_a_retry_counts_steps_that_have_all_their_answers_before_another_one_goes_on(storage: Path) -> None:
    with Scripted(dear) as server:

        @flow(retries=2, retry_delay_seconds=0)
        def limited() -> Any:
            return collect(in_two_steps(server), max_cost=0.25)

        with pytest.raises(CostLimitError):
            limited()

    assert 20 <= len(server.asked) <= 25


@pytest.mark.usefixtures("prefect")
def test_a_retry_of_a_prefect_task_counts_what_its_first_try_spent(storage: Path) -> None:
    with Scripted(dear) as server:

        @prefect.task(retries=2, retry_delay_seconds=0, cache_policy=NO_CACHE)
        def part() -> Any:
            return len(collect(in_two_steps(server), max_cost=0.25))

        @flow
        def limited() -> int:
            return part()

        with pytest.raises(CostLimitError):
            limited()

    assert 20 <= len(server.asked) <= 25


def test_offline_steps_side_by_side_have_the_limit_together(storage: Path) -> None:
    with Scripted(dear) as server, pytest.raises(CostLimitError, match="its batch jobs may cost"):
        collect(side_by_side(server), max_cost=0.3)

    assert len(server.batched) == 40


def side_by_side(server: Scripted) -> Rows:
    """Two steps with batch jobs of $0.20 each, which nothing keeps from being submitted in the same moment."""
    rows = load(PROMPTS)
    renamed = {"name": "second", "output_mappings": {"generation": "other", "model_name": "other_model"}}
    second = task(server, model=ANOTHER, **BATCHES).model_copy(update=renamed)
    return rows.map(task(server, **BATCHES)).map(CombineOutputs(), rows.map(second))


def test_a_job_that_may_cost_more_is_not_submitted(storage: Path) -> None:
    with Scripted(dear) as server:
        # At half the price: $0.20 and the prompts.
        with pytest.raises(CostLimitError, match=r"may cost \$0\.20.* Nothing of them is submitted"):
            collect(task(server, **BATCHES).map(load(PROMPTS)), max_cost=0.2)
        assert server.batched == []

        collect(task(server, **BATCHES).map(load(PROMPTS)), max_cost=0.25)

    assert len(server.batched) == 40


def test_a_second_step_has_what_the_first_ones_job_left(storage: Path) -> None:
    with Scripted(dear) as server, pytest.raises(CostLimitError, match=r"second: its batch jobs may cost"):
        first = task(server, **BATCHES).map(load(PROMPTS))
        second = task(server, **BATCHES).model_copy(
            update={"name": "second", "input_mappings": {"instruction": "generation"}}
        )
        collect(second.map(first), max_cost=0.3)

    assert len(server.batched) == 40


def test_a_model_without_a_known_price_counts_as_free_and_that_is_said(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Scripted(dear) as server:
        collect(task(server, OpenAILLM).map(load(PROMPTS)), max_cost=0.01)

    assert [record.message for record in caplog.records if "max_cost" in record.message] == [
        "text_generation: no price is known of its model: max_cost=0.01 counts it as free"
    ]


@pytest.mark.usefixtures("prefect")
def test_a_pipeline_takes_it_as_a_parameter(storage: Path) -> None:
    with Scripted(dear) as server:
        with Pipeline(name="limited") as pipeline:
            LoadDataFromDicts(data=PROMPTS) >> task(server)
        with pytest.raises(CostLimitError):
            pipeline.run(parameters={"max_cost": 0.05})

    assert len(server.asked) <= 5


def test_the_state_doesnt_say_that_a_retry_would_send_the_rest() -> None:
    assert failed_state(CostLimitError("too dear.")).message == "CostLimitError: too dear."
    assert failed_state(AuthenticationError("a wrong key.")).message == (
        "AuthenticationError: a wrong key. What was answered is kept: a retry sends the rest"
    )
