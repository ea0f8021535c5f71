"""Tasks that start from nothing, outside of any flow: rows, metadata, failures, batches, what a form shows."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llms import OfflineBatchGenerationNotFinishedError, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import SourceError
from tasks.sources.generators import SeedRows, makes_rows
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.tasks.one_reply import OneReplyLLM
from tests.tasks.own_generators import Riddles, SolvedRiddles

EVERY = {r"riddle number (?P<number>\d+)": "What is {number}?"}


@pytest.fixture
def provider(provider: LocalProvider) -> LocalProvider:
    provider.set(answers=EVERY)
    return provider


def riddles(**options: Any) -> Riddles:
    return Riddles(llm=OpenAILLM(model="m", **options.pop("llm_options", {})), **options)


def rows_of(task: Riddles) -> list[Row]:
    task.load()
    return next(task.process())


def test_the_rows_are_there_without_a_flow(provider: LocalProvider) -> None:
    rows = rows_of(riddles())

    assert [row["riddle"] for row in rows] == [f"What is {number}?" for number in range(4)]
    assert set(rows[0]) == {"riddle", "model_name", METADATA}
    assert rows[0]["model_name"] == "m"
    assert rows[2][METADATA]["raw_input_riddles"][0]["content"] == "Write riddle number 2 about the sea."
    assert rows[2][METADATA]["raw_output_riddles"] == "What is 2?"
    assert rows[2][METADATA]["statistics_riddles"]["output_tokens"] > 0
    assert failure_in(rows[2]) is None


def test_seeds_of_ones_own_take_the_place_of_the_tasks(provider: LocalProvider) -> None:
    (row,) = next(riddles().process([{"number": 77}]))

    assert row["riddle"] == "What is 77?"
    assert len(provider.requests) == 1


def test_an_answer_of_no_use_is_a_failed_row_and_no_other_is_asked_for(provider: LocalProvider) -> None:
    provider.set(answers={"number 1 ": "Sorry, no.", **EVERY})

    rows = rows_of(riddles())

    assert [failure_in(row) is not None for row in rows] == [False, True, False, False]
    assert rows[1]["riddle"] is None
    assert rows[1][METADATA]["raw_output_riddles"] == "Sorry, no."
    assert len(provider.requests) == 4


def test_several_answers_per_seed_and_groups_of_them(provider: LocalProvider) -> None:
    single = rows_of(riddles(num_rows=2, num_generations=2))
    grouped = rows_of(riddles(num_rows=2, num_generations=2, group_generations=True))

    assert [row["riddle"] for row in single] == ["What is 0?", "What is 0?", "What is 1?", "What is 1?"]
    assert [row["riddle"] for row in grouped] == [["What is 0?"] * 2, ["What is 1?"] * 2]


def test_columns_are_written_under_other_names(provider: LocalProvider) -> None:
    (row,) = rows_of(riddles(num_rows=1, output_mappings={"riddle": "question"}))

    assert set(row) == {"question", "model_name", METADATA}


def test_offline_all_seeds_go_into_one_job(provider: LocalProvider) -> None:
    provider.set(batch_manual=True)
    task = riddles(llm_options={"use_offline_batch_generation": True})
    with pytest.raises(OfflineBatchGenerationNotFinishedError):
        rows_of(task)
    (job,) = provider.batches
    while provider.batches[0]["status"] == "validating":
        time.sleep(0.005)
    provider.end_batch(job["id"], shuffle=True)

    rows = rows_of(task)

    assert [row["riddle"] for row in rows] == [f"What is {number}?" for number in range(4)]
    assert len(provider.batches) == 1
    assert provider.stats.count("/chat/completions") == 0


def test_several_rounds_per_seed(provider: LocalProvider) -> None:
    provider.set(answers={r"Solve this riddle: What is (?P<number>\d)": "It is {number}.", **EVERY})

    rows = rows_of(SolvedRiddles(llm=OpenAILLM(model="m"), num_rows=2))

    assert [(row["riddle"], row["answer"]) for row in rows] == [("What is 0?", "It is 0."), ("What is 1?", "It is 1.")]


def test_how_many_rows_there_are_does_not_decide_what_they_are() -> None:
    llm = OneReplyLLM(reply="What is it?")

    assert Riddles(llm=llm, num_rows=3).identity() == Riddles(llm=llm, num_rows=9).identity()
    assert Riddles(llm=llm, thing="fog").identity() != Riddles(llm=llm).identity()


def test_the_seeds_tell_their_columns_and_go_on_where_they_are_asked_to() -> None:
    seeds = SeedRows(task=riddles(num_rows=3), batch_size=2)

    assert seeds.name == "riddles-seeds"
    assert seeds.columns() == {"number"}
    assert list(seeds.process()) == [([{"number": 0}, {"number": 1}], False), ([{"number": 2}], True)]
    assert list(seeds.process(offset=2)) == [([{"number": 2}], True)]


def test_a_task_without_seeds_says_so() -> None:
    with pytest.raises(SourceError, match="seed_rows of 'riddles' has no rows; a source needs at least one"):
        next(SeedRows(task=riddles(num_rows=0)).process())


def test_it_is_a_root_and_takes_no_column() -> None:
    task = riddles()

    assert makes_rows(task)
    assert task.required_columns() == []
    assert task.added_columns(frozenset({"number"})) == {"riddle", "model_name"}


def test_a_form_shows_its_options_and_no_input_columns() -> None:
    properties = Riddles.model_json_schema()["properties"]

    assert {"llm", "num_rows", "thing", "num_generations", "output_mappings"} <= set(properties)
    assert "input_mappings" not in properties
    assert properties["llm"]["position"] == 0
