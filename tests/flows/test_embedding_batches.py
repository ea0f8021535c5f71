"""Embeddings in flows: online and offline, what becomes of every row, and of every number."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.authoring.parameters import flow
from flows.authoring.pipeline import Pipeline
from flows.authoring.preview import preview
from flows.authoring.saving import collect
from flows.engine.costs import estimate
from flows.engine.graph import Rows, load
from flows.ledger import Store
from flows.ledger.records import Jobs, llm_of
from flows.store.storage import Storage
from llms import OpenAIEmbeddings, OpenAILLM
from llms.local_provider import LocalProvider
from llms.providers.openai import OPENAI_URL
from tasks import EmbeddingGeneration, LoadDataFromDicts, TextGeneration
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.flows.test_batching import ending

MODEL = "text-embedding-3-small"
TOO_LONG = "tide " * 10_000


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    provider.set(batch_manual=True)
    return provider


def texts(count: int) -> list[Row]:
    return [{"text": f"Tide number {number} – à marée haute."} for number in range(count)]


def embedding(*, offline: bool = False, dimensions: int = 16, **options: Any) -> EmbeddingGeneration:
    generation_kwargs = {"dimensions": dimensions, **options.pop("generation_kwargs", {})}
    model = OpenAIEmbeddings(model=MODEL, use_offline_batch_generation=offline, generation_kwargs=generation_kwargs)
    return EmbeddingGeneration(name="embed", embeddings=model, **options)


def embedded(rows: list[Row], step: EmbeddingGeneration) -> Rows:
    return load(rows, shard_rows=4).map(step)


def asked(provider: LocalProvider) -> int:
    return provider.stats.count("/embeddings")


def vector_of(text: str, dimensions: int = 16) -> list[float]:
    """The vector as the server gives it to one who asks for it alone."""
    return OpenAIEmbeddings(model=MODEL).encode([text], dimensions=dimensions)[0]


def are_right(dataset: Any, dimensions: int = 16) -> bool:
    return all(row["embedding"] == vector_of(row["text"], dimensions) for row in dataset)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_every_row_online_gets_the_vector_of_its_own_text(
    provider: LocalProvider, storage: Path, encoding: str
) -> None:
    dataset = collect(embedded(texts(10), embedding(generation_kwargs={"encoding_format": encoding})))

    assert asked(provider) == 10
    assert [row["text"] for row in dataset] == [row["text"] for row in texts(10)]
    assert are_right(dataset)
    assert {row["model_name"] for row in dataset} == {MODEL}


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_all_shards_go_into_one_job_and_every_row_gets_the_vector_of_its_own_text(
    provider: LocalProvider, storage: Path, encoding: str
) -> None:
    step = embedding(offline=True, generation_kwargs={"encoding_format": encoding})
    with ending(provider, {"shuffle": True}):
        dataset = collect(embedded(texts(10), step))

    assert [job["endpoint"] for job in provider.batches] == ["/v1/embeddings"]
    assert asked(provider) == 0
    assert are_right(dataset)


@pytest.mark.parametrize("offline", [False, True])
def test_bad_texts_fail_their_rows_alone_each_with_its_reason(
    provider: LocalProvider, storage: Path, offline: bool
) -> None:
    rows = texts(10)
    rows[2] = {"text": ""}
    rows[5] = {"text": TOO_LONG}
    rows[7] = {"text": None}
    with ending(provider, {"shuffle": True}):
        dataset = collect(embedded(rows, embedding(offline=offline)), max_failed_rows=3)

    # What can't be embedded isn't sent.
    assert (provider.batches[0]["request_counts"]["total"] if offline else asked(provider)) == 8
    failures = {place: failure["type"] for place, row in enumerate(dataset) if (failure := failure_in(row))}
    assert failures == {2: "ValueError", 5: "ContextLengthError", 7: "ValueError"}
    assert [place for place, row in enumerate(dataset) if row["embedding"] is None] == [2, 5, 7]
    assert are_right(row for place, row in enumerate(dataset) if place not in failures)


def test_vectors_are_written_before_they_fill_the_memory(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    monkeypatch.setattr("flows.ledger.jobs.NUMBERS_AT_A_TIME", 48)
    append = Store.append
    monkeypatch.setattr(Store, "append", lambda store, lines: held.append(len(lines)) or append(store, lines))
    with ending(provider, {"shuffle": True}):
        dataset = collect(embedded(texts(10), embedding(offline=True)))

    assert held == [3, 3, 3, 1]
    assert are_right(dataset)


def test_what_failed_in_passing_goes_alone_into_the_next_job(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"bad": [1, 6], "status": 500, "shuffle": True}):
        dataset = collect(embedded(texts(10), embedding(offline=True)))

    assert [job["request_counts"]["total"] for job in provider.batches] == [10, 2]
    assert are_right(dataset)


def test_a_job_that_expired_is_completed_by_another(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"action": "expire", "done_fraction": 0.3, "shuffle": True}):
        dataset = collect(embedded(texts(10), embedding(offline=True)))

    assert [job["request_counts"]["total"] for job in provider.batches] == [10, 7]
    assert are_right(dataset)


def test_an_unchanged_rerun_asks_nothing_by_either_way(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        first = collect(embedded(texts(10), embedding(offline=True)))
    again = collect(embedded(texts(10), embedding(offline=True)))
    online = collect(embedded(texts(10), embedding()))

    assert first.to_list() == again.to_list() == online.to_list()
    assert (len(provider.batches), asked(provider)) == (1, 0)


def test_other_dimensions_and_a_chat_model_of_the_same_name_share_no_answers(
    provider: LocalProvider, storage: Path
) -> None:
    collect(embedded(texts(4), embedding()))
    longer = collect(embedded(texts(4), embedding(dimensions=32)))
    chat = TextGeneration(name="embed", llm=OpenAILLM(model=MODEL), input_mappings={"instruction": "text"})
    written = collect(load(texts(4), shard_rows=4).map(chat))

    assert asked(provider) == 8
    assert are_right(longer, 32)
    assert all(isinstance(row["generation"], str) for row in written)


def test_equal_texts_get_equal_vectors(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"shuffle": True}):
        dataset = collect(embedded(texts(1) * 6, embedding(offline=True)))

    assert provider.batches[0]["request_counts"]["total"] == 6
    assert are_right(dataset)


def test_vectors_are_kept_as_lists_of_floats_to_the_last_digit(provider: LocalProvider, storage: Path) -> None:
    dataset = collect(embedded(texts(4), embedding(dimensions=1536)))

    assert pa.types.is_list(dataset.data.schema.field("embedding").type)
    assert pa.types.is_floating(dataset.data.schema.field("embedding").type.value_type)
    assert are_right(dataset, 1536)


def test_rows_tell_the_input_tokens_and_hold_the_vector_once(provider: LocalProvider, storage: Path) -> None:
    (row,) = collect(embedded(texts(1), embedding()))

    counts = {name: count for name, count in row[METADATA]["statistics_embed"].items() if count is not None}
    assert counts == {"input_tokens": 8, "output_tokens": 0}
    assert row[METADATA].keys() == {"statistics_embed", "error_embed"}


def test_columns_go_by_the_datasets_names(provider: LocalProvider, storage: Path) -> None:
    step = embedding(input_mappings={"text": "answer"}, output_mappings={"embedding": "vector"})
    (row,) = collect(load([{"answer": "ebb", "text": "flood"}]).map(step))

    assert (row["vector"], row["text"]) == (vector_of("ebb"), "flood")


def test_texts_of_a_task_are_embedded_behind_it(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers={r"number (?P<number>\d+)": "All about {number}."})
    write = TextGeneration(
        name="write", llm=OpenAILLM(model="gpt-4o"), input_mappings={"instruction": "text"}, add_raw_input=False
    )
    embed = embedding(offline=True, input_mappings={"text": "generation"})
    with ending(provider, {"shuffle": True}):
        dataset = collect(load(texts(6), shard_rows=4).map(write).map(embed))

    assert all(row["embedding"] == vector_of(row["generation"]) for row in dataset)


def test_the_record_of_a_job_leads_back_to_its_model(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(embedded(texts(2), embedding(offline=True)))

    jobs = Jobs(Storage(str(storage)))
    (record,) = [record for run in jobs.storage.folders(str(storage / "jobs" / "ended")) for record in jobs._read(run)]
    assert llm_of(record).identity() == embedding(offline=True).embeddings.identity()


def test_a_pipeline_takes_parameters_of_its_embedding_model(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    with Pipeline(name="vectors") as pipeline:
        LoadDataFromDicts(name="load", data=texts(3)) >> EmbeddingGeneration(
            name="embed", embeddings=OpenAIEmbeddings(model=MODEL)
        )
    dataset = pipeline.run(parameters={"embed": {"embeddings": {"generation_kwargs": {"dimensions": 4}}}})

    assert are_right(dataset, 4)


def test_the_form_of_a_flow_shows_the_embedding_model_and_nothing_of_llms() -> None:
    @flow
    async def vectors(embed: EmbeddingGeneration = embedding()) -> None: ...

    definitions = vectors.parameters.definitions or {}
    step = next(each for name, each in definitions.items() if name.startswith("EmbeddingGeneration"))
    assert step["properties"]["embeddings"]["position"] == 0
    assert not {"llm", "num_generations", "system_prompt", "examples"} & set(step["properties"])
    tabs = [tab.get("$ref", tab.get("title")).rpartition("/")[2] for tab in step["properties"]["embeddings"]["anyOf"]]
    assert tabs[-1] == "Your own"
    assert tabs[0].startswith("OpenAIEmbeddings")


def test_a_preview_shows_the_texts_and_sends_nothing(provider: LocalProvider, storage: Path) -> None:
    @flow
    async def vectors(embed: EmbeddingGeneration = embedding()) -> None:
        await asyncio.to_thread(collect, load(texts(3)).map(embed))

    assert preview(vectors, rows=2) == {"embed": [row["text"] for row in texts(2)]}
    assert provider.requests == []


def test_an_estimate_counts_no_output_tokens() -> None:
    guess = estimate(OpenAIEmbeddings(model=MODEL, base_url=OPENAI_URL), 1000, 1_000_000, batch=True)

    assert (guess.output_tokens, guess.dollars) == (0, pytest.approx(0.01))
