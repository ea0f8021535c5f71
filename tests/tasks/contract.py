"""What every Task keeps to, seen from outside: `check_contract` with an answer as the Task's model would give it.

It goes through the local provider, online and in offline batch, so that a Task is proven on the way its users take.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from llms import (
    AnthropicLLM,
    AzureOpenAILLM,
    ClientvLLM,
    InferenceEndpointsLLM,
    OfflineBatchGenerationNotFinishedError,
    OpenAILLM,
)
from llms.base import AsyncLLM
from llms.local_provider import LocalProvider
from tasks.base import Task
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.conftest import LONGEST

BROKEN = "I'd rather not answer that, sorry."


def llm(**options: Any) -> OpenAILLM:
    """A model whose requests go to the provider in OPENAI_BASE_URL."""
    return OpenAILLM(model="judge", max_retries=0, **options)


def rows_of(task: Task, rows: list[Row]) -> list[Row]:
    """All rows that a Task makes of `rows`, outside of any flow."""
    task.load()
    return [row for some in task.process(rows) for row in some]


def check_contract(
    provider: LocalProvider,
    make: Callable[..., Task],
    row: Row,
    answer: str,
    columns: Row,
    *,
    broken: str | None = BROKEN,
) -> None:
    """Check columns, metadata, generations, grouping, mappings, failures, determinism, and offline batches.

    Args:
        provider: one whose address is in OPENAI_BASE_URL.
        make: the Task, of keyword arguments: `lambda **more: UltraFeedback(aspect="honesty", **more)`.
        row: one that it takes.
        answer: what the model says to it.
        columns: what the Task makes of that, all its columns but `model_name`.
        broken: an answer that it can't read; None for a Task that takes any.
    """
    provider.set(answers=[{"match": "", "answer": answer}])
    before = copy.deepcopy(row)
    task = make(llm=llm())
    name = task.name

    (made,) = rows_of(task, [row])
    assert {each: made[each] for each in columns} == columns
    assert set(made) == {*row, *task.outputs, METADATA}
    assert set(task.outputs) == {*columns, "model_name"}
    assert made["model_name"] == "judge"
    assert row == before, "the row that was given is another one now"
    assert failure_in(made) is None
    assert made[METADATA][f"raw_output_{name}"] == answer
    assert made[METADATA][f"raw_input_{name}"] == plain_prompt(task, row)
    assert made[METADATA][f"statistics_{name}"]["output_tokens"] > 0

    check_generations(make, row, columns)
    check_mappings(make, row, columns)
    check_earlier_metadata(make, row)
    check_determinism(make, row)
    if broken is not None:
        check_unreadable(provider, make, row, columns, broken)
    provider.set(answers=[{"match": "", "answer": answer}])
    check_offline(provider, make, row, columns)
    check_adapters(provider, make, row, columns)


def plain_prompt(task: Task, row: Row) -> Any:
    prompt = task.prompt(task.seen(row))
    return prompt[0] if isinstance(prompt, tuple) else prompt


def check_generations(make: Callable[..., Task], row: Row, columns: Row) -> None:
    several = rows_of(make(llm=llm(), num_generations=2), [row])
    assert [{each: made[each] for each in columns} for made in several] == [columns, columns]
    (grouped,) = rows_of(make(llm=llm(), num_generations=2, group_generations=True), [row])
    assert {each: grouped[each] for each in columns} == {each: [value, value] for each, value in columns.items()}


def check_mappings(make: Callable[..., Task], row: Row, columns: Row) -> None:
    task = make(llm=llm())
    inputs = [each for each in task.inputs if each in row]
    renamed = {f"my_{each}" if each in inputs else each: value for each, value in row.items()}
    mapped = make(
        llm=llm(),
        input_mappings={each: f"my_{each}" for each in inputs},
        output_mappings={each: f"new_{each}" for each in columns},
    )
    (made,) = rows_of(mapped, [renamed])
    assert {each: made[f"new_{each}"] for each in columns} == columns
    assert {each: made[each] for each in renamed} == renamed


def check_earlier_metadata(make: Callable[..., Task], row: Row) -> None:
    (made,) = rows_of(make(llm=llm()), [{**row, METADATA: {"raw_output_earlier": "kept"}}])
    assert made[METADATA]["raw_output_earlier"] == "kept"


def check_determinism(make: Callable[..., Task], row: Row) -> None:
    one, other = make(llm=llm()), make(llm=llm())
    assert one.prompt(row) == other.prompt(copy.deepcopy(row)), "another instance asks something else"
    assert one.identity() == other.identity()


def check_unreadable(provider: LocalProvider, make: Callable[..., Task], row: Row, columns: Row, broken: str) -> None:
    provider.set(answers=[{"match": "", "answer": broken}])
    # In structured output the provider makes sure of the form.
    task = make(llm=llm(), use_default_structured_output=False)
    (made,) = rows_of(task, [row])
    assert {each: made[each] for each in columns} == dict.fromkeys(columns)
    assert made[METADATA][f"error_{task.name}"]["type"] == "UnreadableAnswerError"
    assert made[METADATA][f"raw_output_{task.name}"] == broken


def check_offline(provider: LocalProvider, make: Callable[..., Task], row: Row, columns: Row) -> None:
    provider.set(batch_seconds=0.0, batch_manual=False)
    task = make(llm=llm(use_offline_batch_generation=True))
    made = made_offline(task, row)
    assert provider.batches, "no batch job was made"
    assert {each: made[each] for each in columns} == columns


def adapters(provider: LocalProvider) -> list[AsyncLLM]:
    """A model of every adapter besides OpenAI's, online, and offline where it has batches."""
    host = provider.base_url.removesuffix("/v1")
    offline: dict[str, Any] = {"use_offline_batch_generation": True}
    return [
        InferenceEndpointsLLM(base_url=provider.base_url, model_display_name="judge"),
        ClientvLLM(model="judge", base_url=provider.base_url),
        *(AnthropicLLM(model="judge", base_url=host, api_key=SecretStr("k"), **way) for way in ({}, offline)),
        *(
            AzureOpenAILLM(model="judge", base_url=f"{host}/openai", api_key=SecretStr("k"), **way)
            for way in ({}, offline)
        ),
    ]


def check_adapters(provider: LocalProvider, make: Callable[..., Task], row: Row, columns: Row) -> None:
    """The same answer makes the same columns, whichever way it comes."""
    is_bare = isinstance(make(llm=llm()).prompt(row), str)
    for adapter in adapters(provider):
        # Messages are chats, and bare prompts go to a server of Hugging Face's own.
        if is_bare and not isinstance(adapter, AzureOpenAILLM):
            continue
        made = made_offline(make(llm=adapter), row)
        assert {each: made[each] for each in columns} == columns, adapter
        assert failure_in(made) is None, adapter


def made_offline(task: Task, row: Row) -> Row:
    """The row, as soon as the provider's job has ended."""
    end = time.monotonic() + LONGEST
    while True:
        try:
            (made,) = rows_of(task, [row])
        except OfflineBatchGenerationNotFinishedError:
            assert time.monotonic() < end, "the job never ended"
            time.sleep(0.01)
        else:
            return made
