"""Answers and the rows that they belong to, in whatever order they come."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr

from flows.engine.answering import Batch, Located, begun, made_from_batches, made_online
from flows.engine.graph import Node, load
from flows.ledger import opened
from flows.ledger.jobs import split_custom_id
from flows.ledger.store import answer_line, failure_line
from flows.store.shards import ShardRef, read_shard, write_shard
from llms import AsyncLLM, BadRequestError, ChatType, GenerateOutput, OpenAILLM
from llms.batch import BatchRequest
from llms.errors import failure_of
from tasks import TextGeneration
from tasks.steps import failure_in
from tasks.typing import Row

bounded = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

prompts = st.lists(
    st.sampled_from(["one", "two", "three", "bad"]) | st.text("xyz", min_size=1, max_size=3), max_size=12
)


def output(text: str) -> GenerateOutput:
    return {"generations": [text], "statistics": {"input_tokens": [1], "output_tokens": [1]}}


def node_for(rows: list[Row], task: TextGeneration) -> tuple[Node, ShardRef]:
    """A step over rows, in a storage in memory, and the shard of these rows."""
    node = load(rows, storage=f"memory://join-{uuid.uuid4().hex}").map(task).node
    return node, write_shard(node.run.storage, node.run.storage.path("rows.parquet"), rows)


class Shuffling(AsyncLLM):
    """Answers its requests in an order that is given beforehand: by the number of the request."""

    order: list[int] = []
    _numbers: Any = PrivateAttr(default_factory=count)

    @property
    def model_name(self) -> str:
        return "shuffling"

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        number = next(self._numbers)
        for _ in range(3 * self.order[number]):
            await asyncio.sleep(0)
        if input[-1]["content"] == "bad":
            raise BadRequestError("a bad one")
        return output(f"{input[-1]['content']} {number}")


def check(rows: list[Row], made: list[Row]) -> None:
    """Every row is there once, in its place, with an answer to its own prompt, or with its own failure."""
    assert [row["place"] for row in made] == [row["place"] for row in rows]
    for row in made:
        if row["instruction"] == "bad":
            assert (failure_in(row) or {})["message"] == "a bad one"
            assert row["generation"] is None
        else:
            assert failure_in(row) is None
            assert row["generation"].rpartition(" ")[0] == row["instruction"]
    given = Counter(row["generation"] for row in made if row["generation"] is not None)
    assert set(given.values()) <= {1}, "two rows have the same answer"


@bounded
@given(prompts, st.data())
def test_answers_that_come_in_any_order_go_to_their_rows(texts: list[str], data: st.DataObject) -> None:
    rows: list[Row] = [{"place": place, "instruction": text} for place, text in enumerate(texts)]
    order = data.draw(st.permutations(range(len(rows))))
    task = TextGeneration(llm=Shuffling(order=list(order), max_retries=0))
    node, source = node_for(rows, task)

    made = Located(node.shard_path(0, [source]), None, None, [])
    ref = asyncio.run(made_online(made, node, 0, [source]))

    check(rows, read_shard(node.run.storage, ref))


@bounded
@given(prompts, st.data())
def test_results_of_batch_jobs_in_any_order_doubled_or_late_go_to_their_rows(
    texts: list[str], data: st.DataObject
) -> None:
    rows: list[Row] = [{"place": place, "instruction": text} for place, text in enumerate(texts)]
    task = TextGeneration(llm=OpenAILLM(model="m", api_key="none", use_offline_batch_generation=True))
    node, source = node_for(rows, task)

    requests, made = asyncio.run(one_pass(node, source))
    assert len({each.custom_id for each in requests}) == len(rows)
    results = data.draw(st.permutations(requests))
    first = data.draw(st.integers(0, len(results)))
    for some in (results[:first], results[first:] + results[:1]):
        take(node, some)
        _, made = asyncio.run(one_pass(node, source))

    assert made is not None
    check(rows, made)


async def one_pass(node: Node, source: ShardRef) -> tuple[list[BatchRequest], list[Row] | None]:
    """What has to be asked, and the rows, if all is answered."""
    requests: list[BatchRequest] = []
    session = await begun(node, 0, [source], Batch(requests.append))
    return requests, await made_from_batches(session, [])


def take(node: Node, requests: list[BatchRequest]) -> None:
    """Write the results of requests down as they come out of a job."""
    store = opened(node.run.storage, node.space())
    for request in requests:
        named = split_custom_id(request.custom_id)
        assert named is not None
        text = request.body["messages"][-1]["content"]
        if text == "bad":
            store.append([failure_line(named[1], failure_of(BadRequestError("a bad one")), node.run.attempt)])
        else:
            store.append([answer_line(named[1], output(f"{text} {named[1]}"), node.run.attempt, job="job")])
    store.flush()
