"""Steps that need all rows at once, in flows: what comes back from the store is what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import OpenAIEmbeddings
from llms.local_provider import LocalProvider
from tasks import (
    DBSCAN,
    DeitaFiltering,
    EmbeddingDedup,
    EmbeddingGeneration,
    FaissNearestNeighbour,
    MinHashDedup,
    TruncateTextColumn,
)
from tasks.steps import METADATA, failure_in

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}
TEXTS = ["Ebb at six.", "Flood at noon.", "EBB  at six", "Tea at four.", "Flood at noon."]


def rows(**more: Any) -> list[dict[str, Any]]:
    return [{"text": text, **more} for text in TEXTS]


def test_duplicates_in_different_shards_are_found_and_failed_rows_keep_their_places(storage: Path) -> None:
    failed = {"text": None, METADATA: {"error_before": FAILURE}}
    given = [*({**row, METADATA: None} for row in rows()[:2]), failed, *rows()[2:]]
    made = collect(
        MinHashDedup(drop_duplicates=True).map(load(given, shard_rows=2)),
        max_failed_rows=1,
    ).to_list()
    assert [row["text"] for row in made] == ["Ebb at six.", "Flood at noon.", None, "Tea at four."]
    assert [failure_in(row) is not None for row in made] == [False, False, True, False]


def test_neighbours_are_found_and_compared_over_all_shards(provider: LocalProvider, storage: Path) -> None:
    embed = EmbeddingGeneration(embeddings=OpenAIEmbeddings(model="m", generation_kwargs={"dimensions": 8}))
    found = FaissNearestNeighbour(k=2).map(embed.map(load(rows(), shard_rows=2)))
    plain = collect(EmbeddingDedup(threshold=0.999).map(found)).to_list()
    near = collect(EmbeddingDedup(threshold=0.999, compare="neighbours").map(found)).to_list()
    assert [row["keep_row_after_embedding_filtering"] for row in plain] == [True, True, True, True, False]
    # The metadata has a key for each step that can fail rows, and theirs differ in name.
    assert [{**row, METADATA: None} for row in near] == [{**row, METADATA: None} for row in plain]
    assert all(len(row["nn_indices"]) == 2 for row in near)


def test_a_selection_and_clusters_of_rows_from_the_store(storage: Path) -> None:
    given = [
        {
            "text": text,
            "evol_instruction_score": place + 1,
            "evol_response_score": 2.0,
            "embedding": [1.0, float(place % 2)],
        }
        for place, text in enumerate(TEXTS)
    ]
    chosen = DeitaFiltering(data_budget=3).map(TruncateTextColumn(max_length=5).map(load(given, shard_rows=2)))
    clusters = DBSCAN(min_samples=1, input_mappings={"projection": "embedding"}).map(chosen)
    made = collect(clusters).to_list()
    assert [(row["text"], row["deita_score"], row["cluster_label"]) for row in made] == [
        ("Tea a", 8.0, 0),
        ("Flood", 10.0, 1),
    ]
    assert [row["nearest_neighbor_distance"] is None for row in made] == [False, True]
