"""`approve_cost_above`: what a run may spend before a person has agreed, online as well as on batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import FlowPauseTimeout, Pause, PrefectHTTPStatusError
from prefect.flow_engine import run_flow
from prefect.input import keyset_from_paused_state
from prefect.states import AwaitingRetry

from flows import Rows, collect, flow, load
from flows.authoring.preview import dry_run
from flows.engine.costs import committed
from flows.engine.errors import CostNotApprovedError
from flows.engine.event_loops import setting
from flows.engine.run import FlowRunFacts, Run, run_started
from flows.ledger.records import JobRecord, Jobs, Wait
from flows.waiting.leaving import wake as wake_up
from llms import OpenAILLM
from llms.loop import run_sync
from tasks import CombineOutputs, TextGeneration
from tests.conftest import wait_for
from tests.flows.test_budget import BATCHES, PROMPTS, TOKENS, USAGE, side_by_side, task
from tests.scripted import Reply, Scripted, completion

WORTH = 0.4
"""Dollars of 40 answers of at most 1,000 tokens each, by gpt-4o, without their prompts."""


def cheap(body: dict[str, Any]) -> Reply:
    """An answer of a hundredth of what it may have."""
    return completion(usage={**USAGE, "completion_tokens": TOKENS // 100})


def one_after_the_other(server: Scripted) -> Rows:
    again = task(server).model_copy(update={"name": "again", "input_mappings": {"instruction": "generation"}})
    return load(PROMPTS, shard_rows=15).map(task(server)).map(again)


def test_a_run_that_costs_more_sends_nothing_before_somebody_agrees(storage: Path) -> None:
    with Scripted(cheap) as server:
        problem = r"would send, for about \$0\.40 altogether; it asks above \$0\.39:\n\n- text_generation: 40 requests"
        with pytest.raises(CostNotApprovedError, match=problem):
            collect(load(PROMPTS, shard_rows=15).map(task(server)), approve_cost_above=WORTH - 0.01)
        assert server.asked == []

        collect(load(PROMPTS, shard_rows=15).map(task(server)), approve_cost_above=WORTH + 0.01)
    assert len(server.asked) == 40


def test_what_the_ledger_has_is_not_counted(storage: Path) -> None:
    with Scripted(cheap) as server:
        # Of rows twice each, the second ones are other samples; of other shards, none is there as a whole.
        collect(task(server).map(load(PROMPTS[:30])))
        collect(task(server).map(load(PROMPTS * 2, shard_rows=7)), approve_cost_above=0.51)
        with pytest.raises(CostNotApprovedError, match="text_generation: 40 requests"):
            collect(task(server).map(load(PROMPTS * 3, shard_rows=7)), approve_cost_above=0.01)
    assert len(server.asked) == 80


def test_rows_that_failed_before_count_where_they_are_asked_again(storage: Path) -> None:
    def thoughts(body: dict[str, Any]) -> Reply:
        return completion("", "length", USAGE) if "number 7" in str(body) else cheap(body)

    with Scripted(thoughts) as server:
        collect(task(server).map(load(PROMPTS)))
        with pytest.raises(CostNotApprovedError, match="text_generation: 1 request,"):
            collect(task(server).map(load(PROMPTS)), approve_cost_above=0.001)


def test_a_later_step_is_estimated_once_its_rows_are_there_beside_what_was_spent(storage: Path) -> None:
    with Scripted(cheap) as server:
        # The first step might have cost as much, and took a hundredth of it.
        with pytest.raises(CostNotApprovedError, match=r"for about \$0\.40 altogether.*:\n\n- again: 40 requests"):
            collect(one_after_the_other(server), approve_cost_above=WORTH + 0.002)
        assert len(server.asked) == 40

        collect(one_after_the_other(server), approve_cost_above=WORTH + 0.01)


def test_steps_side_by_side_are_agreed_to_together(storage: Path) -> None:
    with Scripted(cheap) as server:
        rows = load(PROMPTS, shard_rows=15)
        beside = task(server).model_copy(update={"name": "beside", "output_mappings": {"generation": "other"}})
        both = rows.map(task(server)), rows.map(beside)
        with pytest.raises(CostNotApprovedError, match=r"(?s)text_generation: 40 requests.*beside: 40 requests"):
            collect(both[0].map(CombineOutputs(), both[1]), approve_cost_above=0.1)
    assert server.asked == []


def test_batch_jobs_side_by_side_are_agreed_to_beside_what_the_other_submits(storage: Path) -> None:
    with Scripted(cheap) as server:
        with pytest.raises(CostNotApprovedError, match=r"for about \$0\.41 altogether"):
            collect(side_by_side(server), approve_cost_above=0.3)
        assert len(server.batched) == 40


def test_all_batch_jobs_of_a_run_count_beside_what_was_agreed_to(storage: Path) -> None:
    """Also those that it submitted after it waited the last time, and those of an earlier attempt."""
    llm = OpenAILLM(model="gpt-4o", api_key="k", **BATCHES)
    node = TextGeneration(llm=llm).map(load(PROMPTS)).node
    run = node.run
    run.attempt, run.passes, run.flow_run = f"{run.id}:2", 1, FlowRunFacts(id="F", run_count=2, deployed=True)
    jobs = Jobs(run.storage)
    first = JobRecord(
        intent="first",
        run=run.id,
        attempt=f"{run.id}:1",
        flow_run="F",
        step=node.name,
        space=node.space(),
        llm=llm.model_dump(mode="json"),
        queue="q",
        requests=4,
        size=1,
        tokens=1,
        shards="0-0",
        sample=[],
        intended=time.time(),
        dollars=1.0,
        job="batch_1",
    )
    jobs.intend(first, [])
    jobs.write_wait(Wait(run.id, "F", [node.space()], ["first"], 0, time.time(), time.time()))
    jobs.end(replace(first, state="completed", answered=3))
    jobs.intend(replace(first, intent="second", attempt=run.attempt, dollars=5.0, job=""), [])

    run_sync(wake_up(run, [node]))

    # A quarter of the first wasn't answered, and is free.
    assert committed(run) == pytest.approx(5.75)


def test_a_small_rest_of_a_batch_is_agreed_to_at_the_online_price(storage: Path) -> None:
    with Scripted(cheap) as server:
        with pytest.raises(CostNotApprovedError, match=r"about \$0\.4\d at the online price"):
            collect(task(server, **BATCHES).map(load(PROMPTS)), approve_cost_above=0.3, finish_online_below=100)
        assert server.asked == []


@pytest.mark.usefixtures("prefect")
def test_a_look_at_a_few_rows_asks_nobody(storage: Path) -> None:
    with Scripted(cheap) as server:

        @flow
        def costly() -> Any:
            return collect(task(server).map(load(PROMPTS)), approve_cost_above=0.0)

        dry_run(costly, rows=2)
    assert len(server.asked) == 2


def answer_as_its_form_does(flow_name: str, **answer: Any) -> str:
    """Answer what a run of a flow asks, once it does. Returns what it asked."""
    with get_client(sync_client=True) as client:

        def paused() -> Any:
            found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow_name])))
            return next((each for each in found if each.state and each.state.is_paused()), None)

        run = wait_for(paused, what="a run that asks")
        keys = keyset_from_paused_state(run.state)
        described = wait_for(lambda: _input_of(client, run.id, keys["description"]), what="what it asks")
        client.resume_flow_run(run.id, run_input=answer)
    return described


def _input_of(client: SyncPrefectClient, run: UUID, key: str) -> str:
    # It's written down a moment after the state.
    with contextlib.suppress(PrefectHTTPStatusError):
        return client.read_flow_run_input(run, key)
    return ""


@pytest.mark.usefixtures("prefect")
def test_what_somebody_agreed_to_is_sent_and_a_retry_asks_nothing_again(storage: Path) -> None:
    refused: list[int] = []

    def breaking(body: dict[str, Any]) -> Reply:
        """The key is refused once, after half of the answers."""
        if len(server.asked) > 20 and not refused:
            refused.append(401)
            return 401, {"error": {"message": "wrong key"}}
        return cheap(body)

    # A run that was resumed was started once more, by Prefect's count.
    @flow(retries=2, retry_delay_seconds=0)
    def agreed_to() -> Any:
        return collect(load(PROMPTS, shard_rows=15).map(task(server)), approve_cost_above=0.1)

    with Scripted(breaking) as server, ThreadPoolExecutor() as people:
        asked = people.submit(copy_context().run, answer_as_its_form_does, "agreed-to", approve=True, limit=0)
        assert len(agreed_to()) == 40
        assert "text_generation: 40 requests, about" in asked.result()
    assert refused == [401]


@pytest.mark.usefixtures("prefect")
def test_a_run_whose_cost_is_declined_fails_and_sends_nothing(storage: Path) -> None:
    @flow
    def declined() -> Any:
        return collect(task(server).map(load(PROMPTS)), approve_cost_above=0.1)

    with Scripted(cheap) as server, ThreadPoolExecutor() as people:
        asked = people.submit(copy_context().run, answer_as_its_form_does, "declined", approve=False, limit=0)
        with pytest.raises(CostNotApprovedError, match="the cost was not approved: text_generation: 40 requests"):
            declined()
        assert "for about $0.40 altogether; it asks above $0.10" in asked.result()
    assert server.asked == []


@pytest.mark.usefixtures("prefect")
def test_a_run_whose_cost_nobody_looks_at_fails_sends_nothing_and_asks_again_when_it_is_started_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def unanswered() -> Any:
        return collect(task(server).map(load(PROMPTS)), approve_cost_above=0.1)

    with Scripted(cheap) as server, ThreadPoolExecutor() as people:
        with monkeypatch.context() as patch:
            patch.setattr("flows.waiting.leaving.APPROVAL_SECONDS", 1)
            with pytest.raises(FlowPauseTimeout, match="never resumed"):
                unanswered()
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["unanswered"])))
        assert run.state and run.state.is_failed() and "never resumed" in str(run.state.message)
        assert server.asked == []

        asked = people.submit(copy_context().run, answer_as_its_form_does, "unanswered", approve=True, limit=0)
        assert len(unanswered()) == 40
        assert "text_generation: 40 requests, about" in asked.result()
    assert len(server.asked) == 40


@pytest.mark.usefixtures("prefect")
def test_a_deployed_run_whose_cost_nobody_looks_at_is_failed_by_the_server_and_asks_again_when_it_is_retried(
    storage: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def left_alone() -> Any:
        return collect(task(server).map(load(PROMPTS)), approve_cost_above=0.1)

    def start(wanted: FlowRun) -> FlowRun:
        """Start a run as a worker does, in a process that knows nothing of it. Returns it as it is then."""
        monkeypatch.setattr("flows.engine.run._runs", WeakValueDictionary())
        with contextlib.suppress(Pause):
            run_flow(left_alone, flow_run=client.read_flow_run(wanted.id), return_type="state")
        return client.read_flow_run(wanted.id)

    def in_state(wanted: FlowRun, is_so: Callable[[State], bool], what: str) -> FlowRun:
        def seen() -> FlowRun | None:
            found = client.read_flow_run(wanted.id)
            return found if found.state and is_so(found.state) else None

        return wait_for(seen, what=what)

    with Scripted(cheap) as server, ThreadPoolExecutor() as people, get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(left_alone), "left alone")
        run = client.create_flow_run_from_deployment(deployment)
        with monkeypatch.context() as patch:
            patch.setattr("flows.waiting.leaving.APPROVAL_SECONDS", 1)
            start(run)
        failed = in_state(run, State.is_failed, "the failed run")
        assert failed.state and failed.state.message == "The flow was paused and never resumed."
        assert any("for 7 days the run fails, and asks again if it's retried" in each for each in caplog.messages)
        client.resume_flow_run(run.id, run_input={"approve": True, "limit": 0})
        assert in_state(run, State.is_failed, "the run that is resumed too late")
        assert server.asked == []

        client.set_flow_run_state(run.id, AwaitingRetry())
        asked = people.submit(copy_context().run, answer_as_its_form_does, "left-alone", approve=True, limit=0)
        start(run)
        in_state(run, State.is_scheduled, "the run that is resumed")
        assert "text_generation: 40 requests, about" in asked.result()
        assert server.asked == []
        done = start(run)
        assert done.state and done.state.is_completed()
    assert len(server.asked) == 40


def test_rows_that_failed_before_a_run_woke_up_are_reported_once(storage: Path) -> None:
    runs: list[Run] = []

    def wake(run: Run) -> None:
        """As in the second process of an attempt."""
        run.id, run.attempt, run.passes = "run", "run:1", len(runs)
        runs.append(run)

    def nothing_to_two(body: dict[str, Any]) -> Reply:
        return completion("", "length", USAGE) if "number 7" in str(body) else cheap(body)

    with Scripted(nothing_to_two) as server, setting(run_started, wake):
        for _ in range(2):
            collect(task(server).map(load(PROMPTS)), max_failed_rows=5, approve_cost_above=100)

    assert [each.progress["text_generation"].failed for each in runs] == [1, 1]
    assert len(server.asked) == len(PROMPTS)
