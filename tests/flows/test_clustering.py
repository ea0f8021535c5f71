"""Clusters that are labelled in a flow and in a pipeline: one question per cluster, a label for every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.authoring.parameters import flow
from flows.authoring.pipeline import Pipeline
from flows.authoring.preview import preview
from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import ClusterSamples, JoinClusterLabels, LoadDataFromDicts, TextClustering, label_clusters

ROWS: list[dict[str, Any]] = [
    {"text": "Ebb at six.", "cluster_label": 0},
    {"text": "Two spoons of tea.", "cluster_label": 1},
    {"text": "???", "cluster_label": -1},
    {"text": "Flood at noon.", "cluster_label": 0},
    {"text": "A pot of coffee.", "cluster_label": 1},
]
ANSWERS = {"Ebb at six": '{"label": "Tides"}', "spoons of tea": '{"label": "Hot drinks"}'}


def clustering(**options: Any) -> TextClustering:
    return TextClustering(llm=OpenAILLM(model="m", max_retries=0), **options)


def test_in_a_flow_the_llm_is_asked_once_per_cluster(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers=ANSWERS)
    dataset = collect(label_clusters(load(ROWS, shard_rows=2), clustering(), noise_label="Other"))
    assert dataset["text"][:] == [row["text"] for row in ROWS]
    assert dataset["summary_label"][:] == ["Tides", "Hot drinks", "Other", "Tides", "Hot drinks"]
    assert len(provider.requests) == 2


def test_a_flow_may_have_other_names_for_all_columns(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers=ANSWERS)
    rows = [{"entry": row["text"], "cluster_label": row["cluster_label"], "text": "mine"} for row in ROWS]
    task = clustering(output_mappings={"summary_label": "topic", "model_name": "labeller"})
    (first, *_) = collect(label_clusters(load(rows), task, text="entry")).to_list()
    assert first == {"entry": "Ebb at six.", "cluster_label": 0, "text": "mine", "topic": "Tides", "labeller": "m"}


def test_several_answers_per_cluster_are_refused_before_any_is_asked_for(storage: Path) -> None:
    with pytest.raises(ValueError, match=r"one label per cluster, got num_generations=2"):
        label_clusters(load(ROWS), clustering(num_generations=2))


def test_rows_that_are_all_noise_ask_nothing(provider: LocalProvider, storage: Path) -> None:
    rows = [{"text": "a", "cluster_label": -1}, {"text": "b", "cluster_label": -1}]
    dataset = collect(label_clusters(load(rows), clustering()))
    assert dataset["summary_label"][:] == [None, None]
    assert provider.requests == []


def test_an_answer_that_cant_be_read_fails_the_rows_of_its_cluster_and_is_asked_again(
    provider: LocalProvider, storage: Path
) -> None:
    provider.set(answers={**ANSWERS, "spoons of tea": "no idea"})
    task = clustering(use_default_structured_output=False)
    dataset = collect(label_clusters(load(ROWS), task), max_failed_rows=2)
    assert dataset["summary_label"][:] == ["Tides", None, None, "Tides", None]
    provider.clear()
    provider.set(answers=ANSWERS)
    dataset = collect(label_clusters(load(ROWS), task))
    assert dataset["summary_label"][:] == ["Tides", "Hot drinks", None, "Tides", "Hot drinks"]
    assert len(provider.requests) == 1


def test_in_a_pipeline_the_three_steps_are_connected(provider: LocalProvider, storage: Path, prefect: str) -> None:
    provider.set(answers=ANSWERS)
    with Pipeline(name="clusters") as pipeline:
        rows = LoadDataFromDicts(name="rows", data=ROWS)
        labels = clustering(name="labels")
        rows >> ClusterSamples() >> labels
        [rows, labels] >> JoinClusterLabels(name="join")
    assert pipeline.run()["summary_label"][:] == ["Tides", "Hot drinks", None, "Tides", "Hot drinks"]


def test_a_preview_shows_a_prompt_per_cluster(storage: Path) -> None:
    @flow
    async def labelled(labels: TextClustering = clustering(name="labels")) -> Any:
        return await collect(label_clusters(load(ROWS), labels))

    prompts = preview(labelled, rows=5)
    assert len(prompts["labels"]) == 2
