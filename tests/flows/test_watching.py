"""What a pass of the watcher says of a job that its provider doesn't stop."""

from __future__ import annotations

import asyncio

from pydantic import SecretStr

from flows.ledger import space_of
from flows.ledger.records import JobRecord, queue_of
from flows.waiting.watching import Account, Watched, cancel
from llms import OpenRouterLLM


def test_a_batch_that_goes_on_and_is_paid_is_among_the_problems_of_a_pass() -> None:
    llm = OpenRouterLLM(model="m/x", api_key=SecretStr("key-of-openrouter"), use_offline_batch_generation=True)
    record = JobRecord(
        intent="i",
        run="r",
        attempt="r:1",
        flow_run="",
        step="text_generation",
        space=space_of(llm),
        llm=llm.model_dump(mode="json"),
        queue=queue_of(llm),
        requests=1,
        size=1,
        tokens=1,
        shards="0",
        sample=[],
        intended=0.0,
        job="batch_1",
    )
    watched = Watched()

    asyncio.run(cancel(Account(llm, [record]), record, watched))

    assert watched.cancelled == []
    (problem,) = watched.problems
    assert "the cancellation of job batch_1" in problem
    assert "It ends by itself, within 24 hours" in problem and "paid" in problem
