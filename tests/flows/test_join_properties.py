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

from flows.answering import Batch, answer_from_batches, answer_shard
from flows.jobs import split_custom_id
from flows.journal import Journal
from flows.rows import Node, load
from flows.shards import read_shard
from llms import AsyncLLM, BadRequestError, ChatType, GenerateOutput, OpenAILLM
from llms.batch import BatchRequest
from tasks import TextGeneration
from tasks.steps import failure_in
from tasks.typing import Row

bounded = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

prompts = st.lists(
    st.sampled_from(["one", "two", "three", "bad"]) | st.text("xyz", min_size=1, max_size=3), max_size=12
)


def output(text: str) -> GenerateOutput:
    return {"generations": [text], "statistics": {"input_tokens": [1], "output_tokens": [1]}}


def node_for(rows: list[Row], task: TextGeneration) -> tuple[Node, str]:
    """A step over rows, in a storage in memory, and where its first shard goes."""
    node = load(rows, storage=f"memory://join-{uuid.uuid4().hex}").map(task).node
    return node, f"{node.folder('00000000')}/inputs.parquet"


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
    node, path = node_for(rows, task)

    ref = asyncio.run(answer_shard(node, task, path, rows, 0))

    check(rows, read_shard(node.run.storage, ref))


@bounded
@given(prompts, st.data())
def test_results_of_batch_jobs_in_any_order_doubled_or_late_go_to_their_rows(
    texts: list[str], data: st.DataObject
) -> None:
    rows: list[Row] = [{"place": place, "instruction": text} for place, text in enumerate(texts)]
    task = TextGeneration(llm=OpenAILLM(model="m", api_key="none", use_offline_batch_generation=True))
    node, path = node_for(rows, task)

    requests, made = asyncio.run(one_pass(node, task, path, rows))
    assert len({each.custom_id for each in requests}) == len(rows)
    results = data.draw(st.permutations(requests))
    first = data.draw(st.integers(0, len(results)))
    for some in (results[:first], results[first:] + results[:1]):
        take(node, path, some)
        _, made = asyncio.run(one_pass(node, task, path, rows))

    assert made is not None
    check(rows, made)


async def one_pass(
    node: Node, task: TextGeneration, path: str, rows: list[Row]
) -> tuple[list[BatchRequest], list[Row] | None]:
    """What has to be asked, and the rows, if all is answered."""
    requests: list[BatchRequest] = []
    _, made = await answer_from_batches(node, task, path, rows, 0, Batch(requests.append))
    return requests, made


def take(node: Node, path: str, requests: list[BatchRequest]) -> None:
    """Write the results of requests down as they come out of a job."""
    journal = Journal(node.run.storage, path.removesuffix(".parquet") + ".journal")
    for request in requests:
        named = split_custom_id(request.custom_id)
        assert named is not None
        text = request.body["messages"][-1]["content"]
        failure = {"type": "BadRequestError", "message": "a bad one", "retryable": False}
        line = {"e": failure, "x": node.run.attempt} if text == "bad" else {"o": output(f"{text} {named[1]}"), "b": 1}
        journal.append({"k": named[1], **line})
    journal.close()
