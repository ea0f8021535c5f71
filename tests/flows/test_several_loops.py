"""Runs side by side in one process: in mapped Prefect tasks, in threads, in several event loops. All complete."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect import flow as prefect_flow
from prefect import task

from flows import collect, flow, load
from flows.engine.errors import CostNotApprovedError
from flows.engine.event_loops import Turn
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tasks.steps import Step
from tasks.typing import StepInput, StepOutput
from tests.conftest import LONGEST

TOPICS = ["tides", "locks", "moss", "salt"]
MINUTES = 300.0
"""Within which a hang is a hang, however slow the machine."""


def prompts(topic: str) -> list[dict[str, str]]:
    return [{"instruction": f"Say something of {topic}, number {number}."} for number in range(3)]


def rows_about(topic: str) -> Any:
    return load(prompts(topic)).map(TextGeneration(llm=OpenAILLM(model="gpt-4o-mini", max_concurrent_requests=2)))


def answers(topic: str) -> list[str]:
    return collect(rows_about(topic))["generation"][:]


@task
def in_a_task(topic: str) -> list[str]:
    return answers(topic)


@task
async def in_an_async_task(topic: str) -> list[str]:
    return (await collect(rows_about(topic)))["generation"][:]


@flow
def a_flow(topic: str) -> list[str]:
    return answers(topic)


@flow
async def an_async_flow(topic: str) -> list[str]:
    return (await collect(rows_about(topic)))["generation"][:]


@prefect_flow
def mapped_in_a_flow() -> list[list[str]]:
    return in_a_task.map(TOPICS).result()


@prefect_flow
async def mapped_in_an_async_flow() -> list[list[str]]:
    return in_a_task.map(TOPICS).result()


@prefect_flow
def async_tasks_mapped_in_a_flow() -> list[list[str]]:
    return in_an_async_task.map(TOPICS).result()


@prefect_flow
async def async_tasks_gathered() -> list[list[str]]:
    return await asyncio.gather(*(in_an_async_task(topic) for topic in TOPICS))


@prefect_flow
async def plain_tasks_called_in_an_async_flow() -> list[list[str]]:
    return [in_a_task(topic) for topic in TOPICS]


@prefect_flow
async def plain_flows_called_in_an_async_flow() -> list[list[str]]:
    return [a_flow(topic) for topic in TOPICS]


@prefect_flow
async def async_flows_gathered_in_a_flow() -> list[list[str]]:
    return await asyncio.gather(*(an_async_flow(topic) for topic in TOPICS))


async def gathered() -> list[list[str]]:
    return await asyncio.gather(*(an_async_flow(topic) for topic in TOPICS))


def async_flows_gathered() -> list[list[str]]:
    return asyncio.run(gathered())


def in_threads(work: Callable[[str], list[str]]) -> list[list[str]]:
    # With a copy of the context, which says where the server is, and in a flow which run it is.
    contexts = [contextvars.copy_context() for _ in TOPICS]
    with ThreadPoolExecutor(len(TOPICS)) as threads:
        return list(threads.map(lambda context, topic: context.run(work, topic), contexts, TOPICS))


def flows_in_threads() -> list[list[str]]:
    return in_threads(a_flow)


def loops_in_threads() -> list[list[str]]:
    return in_threads(lambda topic: asyncio.run(an_async_flow(topic)))


def without_a_flow_in_threads() -> list[list[str]]:
    return in_threads(answers)


@flow
def threads_of_a_flow() -> list[list[str]]:
    return in_threads(answers)


EVERY = [
    mapped_in_a_flow,
    mapped_in_an_async_flow,
    async_tasks_mapped_in_a_flow,
    async_tasks_gathered,
    plain_tasks_called_in_an_async_flow,
    plain_flows_called_in_an_async_flow,
    async_flows_gathered_in_a_flow,
    async_flows_gathered,
    flows_in_threads,
    loops_in_threads,
    without_a_flow_in_threads,
    threads_of_a_flow,
]


def ended(work: Callable[[], Any]) -> Any:
    """What `work` returns, in a thread of its own: the test goes on where it hangs."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            made = work()
            outcome.append(asyncio.run(made) if asyncio.iscoroutine(made) else made)
        except BaseException as error:  # noqa: BLE001 -- raised in the test's thread
            outcome.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True)
    thread.start()
    thread.join(MINUTES)
    assert outcome, "it hangs"
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


@pytest.mark.parametrize("work", EVERY, ids=lambda work: getattr(work, "name", None) or work.__name__)
def test_all_complete_each_with_its_own_answers_within_one_limit_and_a_second_time_without_asking(
    provider: LocalProvider, storage: Path, prefect: str, work: Callable[[], Any]
) -> None:
    provider.set(answers={r"something of (?P<topic>\w+), number (?P<number>\d)": "{topic} {number}"}, latency=0.02)

    found = ended(work)

    assert found == [[f"{topic} {number}" for number in range(3)] for topic in TOPICS]
    asked = [request.body["messages"][-1]["content"] for request in provider.requests]
    assert sorted(asked) == sorted(row["instruction"] for topic in TOPICS for row in prompts(topic))
    assert provider.stats.max_in_flight <= 2
    # Threads of one flow run name their steps as they come.
    if work is not threads_of_a_flow:
        provider.clear()
        assert ended(work) == found
        assert provider.requests == []


@task
def offline_in_a_task(topic: str, limit: float | None = None) -> list[str]:
    llm = OpenAILLM(model="gpt-4o-mini", use_offline_batch_generation=True)
    rows = load(prompts(topic)).map(TextGeneration(llm=llm))
    return collect(rows, approve_cost_above=limit)["generation"][:]


def test_batches_of_mapped_tasks_are_waited_for_by_each(
    provider: LocalProvider, storage: Path, prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "1")
    provider.set(answers={r"something of (?P<topic>\w+), number (?P<number>\d)": "{topic} {number}"})

    @prefect_flow
    def mapped() -> list[list[str]]:
        return offline_in_a_task.map(TOPICS).result()

    assert ended(mapped) == [[f"{topic} {number}" for number in range(3)] for topic in TOPICS]
    assert len(provider.batches) == len(TOPICS)


def test_a_cost_that_somebody_has_to_approve_is_refused_in_a_task_which_prefect_cant_suspend(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    @prefect_flow
    def costly() -> list[str]:
        return offline_in_a_task("tides", limit=0.0)

    with pytest.raises(CostNotApprovedError, match="In a Prefect task nobody can approve"):
        ended(costly)
    assert provider.batches == []


def test_a_turn_goes_from_loop_to_loop_in_the_order_of_asking() -> None:
    turn, order = Turn(), list[int]()
    asked = [threading.Event() for _ in range(5)]

    async def take(number: int) -> None:
        asking = asyncio.ensure_future(turn.__aenter__())
        await asyncio.sleep(0)
        asked[number].set()
        await asking
        order.append(number)
        if number == 0:
            await asyncio.to_thread(asked[4].wait, MINUTES)
        await turn.__aexit__()

    threads = [threading.Thread(target=asyncio.run, args=(take(number),)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        assert asked[number].wait(MINUTES)
    for thread in threads:
        thread.join(MINUTES)

    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("given_first", [False, True], ids=["before it is given", "in the moment it is given"])
def test_a_turn_that_is_no_longer_wanted_goes_to_the_next(given_first: bool) -> None:
    async def work() -> None:
        turn = Turn()
        await turn.__aenter__()
        second, third = (asyncio.ensure_future(turn.__aenter__()) for _ in range(2))
        await asyncio.sleep(0)
        if given_first:
            await turn.__aexit__()
            second.cancel()
        else:
            second.cancel()
            await asyncio.sleep(0)
            await turn.__aexit__()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.wait_for(third, MINUTES)

    asyncio.run(work())


in_step, other_ended = threading.Event(), threading.Event()


class ObjectsPerSearch(Step):
    """Notes how many new objects Python lets come before it searches them for garbage."""

    waits: bool = False

    @property
    def outputs(self) -> list[str]:
        return ["objects"]

    def process(self, inputs: StepInput) -> StepOutput:
        if self.waits:
            in_step.set()
            assert other_ended.wait(LONGEST)
        yield [{**row, "objects": gc.get_threshold()[0]} for row in inputs]


def objects_per_search(*, waits: bool) -> int:
    return collect(load([{"text": "Ebb at six."}]).map(ObjectsPerSearch(waits=waits)))["objects"][0]


def test_garbage_is_searched_for_rarely_until_the_last_of_several_runs_has_ended(storage: Path) -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(objects_per_search, waits=True)
        assert in_step.wait(LONGEST)
        others = objects_per_search(waits=False)
        still_frozen = gc.get_freeze_count()
        other_ended.set()

        assert others == first.result(LONGEST) > before[0]
    assert still_frozen > frozen
    assert gc.get_threshold() == before
