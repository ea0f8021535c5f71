"""Instructions from nothing: as many rows as were asked for, of the right length, and always an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from tasks import EvolComplexityGenerator, EvolInstructGenerator
from tasks.instructions.evol import IN_DEPTH
from tasks.steps import METADATA, failure_in
from tasks.templates import template_source
from tasks.typing import Row
from tests.tasks.scripted import ScriptedLLM

GENERATORS = [EvolInstructGenerator, EvolComplexityGenerator]
SHORT, LONGER, LONG = "How high is K2?", "How high is K2 in feet, and why?", "How high is K2? " * 10


def made_by(task: Any) -> list[Row]:
    task.load()
    return [row for some in task.process(list(task.seed_rows())) for row in some]


@pytest.mark.parametrize("make", GENERATORS)
def test_the_number_of_rows_is_the_one_that_was_asked_for(make: Any) -> None:
    rows = made_by(make(llm=ScriptedLLM(replies=[LONGER]), num_instructions=120, min_length=20, max_length=60))

    assert len(rows) == 120
    assert set(rows[0]) == {"instruction", "model_name", METADATA}
    assert all(row["instruction"] == LONGER for row in rows)


def test_topics_differ_and_are_the_same_every_time_for_a_seed() -> None:
    def seeds(seed: int) -> list[Row]:
        task = EvolInstructGenerator(llm=ScriptedLLM(replies=[]), num_instructions=200, seed=seed)
        return list(task.seed_rows())

    assert seeds(0) == seeds(0) != seeds(1)
    assert len({tuple(row["topics"]) for row in seeds(0)}) > 190
    assert len(set(template_source("evol_instruct/topics").splitlines())) > 150


def test_the_first_prompt_has_the_topics_and_the_length() -> None:
    task = EvolInstructGenerator(llm=ScriptedLLM(replies=[]), num_instructions=1, min_length=20, max_length=60)
    content = task.format_input({"number": 0, "topics": ["bees", "rust"]})[0]["content"]

    assert "to do with bees and rust." in content
    assert "20 to 60 characters" in content


def test_an_instruction_is_evolved_until_it_is_long_enough() -> None:
    asked = ScriptedLLM(replies=[SHORT, LONGER])
    (row,) = made_by(EvolInstructGenerator(llm=asked, num_instructions=1, min_length=30, max_length=60))

    assert row["instruction"] == LONGER
    assert f"<instruction>\n{SHORT}\n</instruction>" in asked.asked[1][0]["content"]
    assert "30 to 60 characters" in asked.asked[1][0]["content"]


def test_one_that_is_too_long_or_has_failed_is_tried_again() -> None:
    asked = ScriptedLLM(replies=[LONG, "I'm sorry, I can't help with that.", SHORT, SHORT, LONG, LONGER])
    (row,) = made_by(EvolInstructGenerator(llm=asked, num_instructions=1, min_length=30, max_length=60))

    assert row["instruction"] == LONGER
    assert row[METADATA]["statistics_evol_instruct_generator"]["input_tokens"] == 60


@pytest.mark.parametrize(
    ("replies", "requests", "problem"),
    [
        ([LONG], 3, "the instruction failed 3 times. fresh start: expected at most 60 characters, got 159"),
        ([SHORT], 4, "evolution 1 failed 3 times."),
        (["K2?", "How, K2?", "Why, K2?", "Who, K2?"], 4, "after 3 evolutions the instruction has 8 characters"),
        ([None], 3, "the instruction failed 3 times. fresh start: the model's answer is empty"),
    ],
)
def test_what_never_gets_there_is_a_failed_row_and_not_an_endless_loop(
    replies: list[str | None], requests: int, problem: str
) -> None:
    asked = ScriptedLLM(replies=replies)
    task = EvolInstructGenerator(llm=asked, num_instructions=1, min_length=30, max_length=60, max_evolutions=3)
    (row,) = made_by(task)

    assert row["instruction"] is None
    assert problem in (failure_in(row) or {})["message"]
    assert len(asked.asked) == requests


def test_only_what_is_done_is_answered_and_a_refusal_sends_it_back() -> None:
    refusal = "Sorry, I can't."
    asked = ScriptedLLM(replies=[SHORT, LONGER, refusal, f"{LONGER} And when?", "28,251 feet."])
    task = EvolInstructGenerator(llm=asked, num_instructions=1, min_length=30, max_length=60, generate_answers=True)
    (row,) = made_by(task)

    assert task.outputs == ["instruction", "answer", "model_name"]
    assert (row["instruction"], row["answer"]) == (f"{LONGER} And when?", "28,251 feet.")


def test_lengths_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ParameterError, match="min_length 60 is above max_length 30"):
        EvolInstructGenerator(llm=ScriptedLLM(replies=[]), num_instructions=1, min_length=60, max_length=30).load()


def test_the_generator_of_complex_ones_uses_the_mutations_in_depth() -> None:
    task = EvolComplexityGenerator(llm=ScriptedLLM(replies=[]), num_instructions=1)

    assert task.mutations == IN_DEPTH
    assert "evol_instruct/breadth" not in task.template_names


def test_in_a_flow_rounds_are_batch_jobs_and_the_seeds_leave_no_column(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.02")
    evolving = {
        r"<instruction>\n(?P<was>[^<]*)\n</instruction>": '{"new_instruction": "{was} And why?"}',
        r"to do with (?P<topics>[^\n]*)\.": '{"new_instruction": "What of {topics}?"}',
    }
    provider.set(answers=evolving, batch_seconds=0.0)
    llm = OpenAILLM(model="evolver", max_retries=0, use_offline_batch_generation=True)
    task = EvolInstructGenerator(name="made", llm=llm, num_instructions=5, min_length=50, max_length=200)

    dataset = collect(load(task))

    assert provider.batches[0]["request_counts"]["total"] == 5
    assert len(provider.batches) >= 2
    assert set(dataset.column_names) == {"instruction", "model_name", METADATA}
    assert len(set(dataset["instruction"])) == 5
    assert all(50 <= len(each) <= 200 for each in dataset["instruction"])
