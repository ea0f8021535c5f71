"""The table of failed rows: which rows, how much of them, and how much is read for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.engine.failures import MOST_BYTES, MOST_ROWS, failed_rows
from flows.engine.graph import Node
from flows.engine.run import Run
from flows.store.shards import ShardRef, write_shard
from flows.store.storage import Storage
from tasks import LoadDataFromDicts, TextGeneration
from tests.tasks.one_reply import OneReplyLLM


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("run", "run:1", Storage(str(tmp_path)))


def row_of(number: int, *, message: str = "", **more: Any) -> dict[str, Any]:
    error = {"type": "BadRequestError", "message": message, "retryable": False}
    metadata = {"error_ask": error if message else None}
    return {"id": f"r{number}", "instruction": f"Say {number}.", "distilabel_metadata": metadata, **more}


def leaf_of(run: Run, name: str = "ask") -> Node:
    source = Node(run, "source", LoadDataFromDicts(name="source", data=[{"instruction": "x"}]))
    ask = Node(run, "ask", TextGeneration(name="ask", llm=OneReplyLLM(reply="Yes.")), (source,))
    return ask if name == "ask" else Node(run, name, TextGeneration(name=name, llm=OneReplyLLM(reply="Yes.")), (ask,))


def shards_of(run: Run, rows: list[dict[str, Any]], length: int = 10) -> list[ShardRef]:
    parts = [rows[start : start + length] for start in range(0, len(rows), length)]
    return [write_shard(run.storage, run.storage.path(f"{place}.parquet"), part) for place, part in enumerate(parts)]


def test_a_row_is_told_by_its_place_its_text_and_why_it_failed(run: Run) -> None:
    rows = [row_of(number, message="no\n  way" if number in {4, 13, 27} else "") for number in range(30)]

    table, total = failed_rows(run.storage, [leaf_of(run)], [shards_of(run, rows)])

    assert total == 3
    assert table == [
        {"step": "ask", "row": number, "text": f"Say {number}.", "error": "BadRequestError", "message": "no way"}
        for number in (4, 13, 27)
    ]


def test_shards_without_failed_rows_are_not_read(run: Run) -> None:
    refs = shards_of(run, [row_of(number, message="no" if number == 25 else "") for number in range(30)])
    for ref in refs[:2]:
        Path(ref.uri).unlink()

    table, _ = failed_rows(run.storage, [leaf_of(run)], [refs])

    assert [line["row"] for line in table] == [25]


def test_of_several_datasets_it_says_which(run: Run) -> None:
    refs = shards_of(run, [row_of(0), row_of(1, message="no")])

    table, total = failed_rows(run.storage, [leaf_of(run), leaf_of(run, "judge")], [refs, refs])

    assert total == 2
    assert [(line["dataset"], line["step"], line["row"]) for line in table] == [("ask", "ask", 1), ("judge", "ask", 1)]


def test_a_chat_is_shown_by_what_was_asked_last(run: Run) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
    refs = shards_of(run, [{**row_of(0, message="no"), "id": None, "instruction": None, "messages": chat}])

    (line,), _ = failed_rows(run.storage, [leaf_of(run)], [refs])

    assert line["text"] == "Why is the sky blue?"


def test_a_table_of_very_many_rows_ends_at_five_hundred(run: Run) -> None:
    refs = shards_of(run, [row_of(number, message="no") for number in range(1200)], length=100)

    table, total = failed_rows(run.storage, [leaf_of(run)], [refs])

    assert (len(table), total) == (MOST_ROWS, 1200)
    assert table[-1]["row"] == 499


def test_long_texts_of_any_script_stay_under_a_megabyte_and_without_nul(run: Run) -> None:
    rows = [row_of(number, message="𠮷\0" * 5000, instruction="語" * 50_000) for number in range(500)]

    table, total = failed_rows(run.storage, [leaf_of(run)], [shards_of(run, rows, length=100)])

    text = json.dumps(table)
    assert 0 < len(table) < total == 500
    assert len(text) < MOST_BYTES * 1.01
    assert "\\u0000" not in text
