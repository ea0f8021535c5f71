"""A run counts the answers that the limit of tokens cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.engine.graph import Rows
from flows.engine.report import progress_line, report_markdown
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration

ROWS = [{"instruction": f"Tell me about number {number}."} for number in range(6)]


@pytest.fixture
def provider(provider: LocalProvider) -> LocalProvider:
    provider.set(answers={"number [24]": "a text that goes on and on for a good while", "number": "short"})
    return provider


def generated(**options: Any) -> Rows:
    llm = OpenAILLM(model="m", generation_kwargs={"max_new_tokens": 3}, **options)
    return TextGeneration(llm=llm).map(load(ROWS, shard_rows=4))


@pytest.mark.parametrize("batched", [False, True], ids=["online", "in a batch"])
def test_cut_answers_are_marked_and_counted(provider: LocalProvider, storage: Path, batched: bool) -> None:
    options = {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 1}

    rows = generated(**options if batched else {})
    dataset = collect(rows)

    marks = [row["distilabel_metadata"].get("cut_off_text_generation") for row in dataset]
    assert [place for place, mark in enumerate(marks) if mark] == [2, 4]
    (progress,) = (each for each in rows.node.run.progress.values() if each.work.all.requests)
    assert "2 answers cut off by the limit of tokens" in progress_line(progress)
    assert "## Answers cut off" in report_markdown(rows.node.run)


def test_those_of_an_earlier_run_count_too(provider: LocalProvider, storage: Path) -> None:
    collect(generated())
    provider.clear()

    rows = generated()
    collect(rows)

    assert not provider.requests
    assert "2 answers cut off" in progress_line(rows.node.run.progress["text_generation"])


def test_a_run_of_whole_answers_says_nothing_of_it(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers={"number": "short"})

    rows = generated()
    collect(rows)

    assert "cut off" not in progress_line(rows.node.run.progress["text_generation"])
    assert "cut off" not in report_markdown(rows.node.run)
