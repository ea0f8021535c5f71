"""`add_reasoning`: what a model thought before its answer, as a column beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from llms import AsyncLLM, ParameterError
from llms.typing import FormattedInput, GenerateOutput
from tasks import EvolQuality, Task, TextGeneration
from tasks.typing import Row

ROWS = [{"instruction": f"What is {number} + 1?"} for number in range(5)]


class Thinker(AsyncLLM):
    """Adds one, and says how it came to that; of 3 it shows no thoughts."""

    asked: int = 0

    @property
    def model_name(self) -> str:
        return "thinker"

    def identity(self) -> dict[str, Any]:
        return {"model": "thinker"}

    async def agenerate(self, input: FormattedInput, num_generations: int = 1, **_: Any) -> GenerateOutput:
        self.asked += 1
        said = str(input)
        thoughts = None if "What is 3" in said else f"Thought {self.asked}."
        return {
            "generations": [f"Answer {self.asked}.{number}" for number in range(num_generations)],
            "reasoning": [thoughts] * num_generations,
            "statistics": {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations},
        }


def made(task: Task, storage: Path, rows: list[Row] = ROWS) -> list[Row]:
    return collect(load(rows, storage=str(storage)).map(task)).to_list()


def test_it_stands_beside_the_answer_and_is_none_where_the_provider_shows_none(storage: Path) -> None:
    rows = made(TextGeneration(llm=Thinker(), add_reasoning=True), storage)

    assert list(rows[0]) == ["instruction", "generation", "reasoning", "model_name", "distilabel_metadata"]
    assert [row["reasoning"] is None for row in rows] == [False, False, False, True, False]
    assert all(row["reasoning"].startswith("Thought ") for row in rows if row["reasoning"])


def test_without_the_switch_there_is_no_such_column(storage: Path) -> None:
    assert "reasoning" not in made(TextGeneration(llm=Thinker()), storage)[0]


def test_grouped_answers_have_a_list_of_it(storage: Path) -> None:
    task = TextGeneration(llm=Thinker(), add_reasoning=True, num_generations=2, group_generations=True)

    assert [len(row["reasoning"]) for row in made(task, storage)] == [2] * 5


def test_switched_on_later_it_is_taken_from_the_kept_answers_and_nothing_is_asked(storage: Path) -> None:
    first, later = Thinker(), Thinker()
    made(TextGeneration(llm=first), storage)
    rows = made(TextGeneration(llm=later, add_reasoning=True), storage)

    assert (first.asked, later.asked) == (5, 0)
    assert rows[0]["reasoning"] is not None


def test_its_column_can_be_renamed_as_any_other(storage: Path) -> None:
    task = TextGeneration(llm=Thinker(), add_reasoning=True, output_mappings={"reasoning": "thoughts"})
    (row, *_) = made(task, storage, [{"instruction": "Hi", "reasoning": "the source's own"}])

    assert row["reasoning"] == "the source's own"
    assert row["thoughts"].startswith("Thought ")


def test_a_task_of_several_rounds_has_all_thoughts_in_their_order(storage: Path) -> None:
    task = EvolQuality(llm=Thinker(), num_evolutions=2, add_reasoning=True)
    (row,) = made(task, storage, [{"instruction": "Hi", "response": "Hello"}])

    assert row["reasoning"].split("\n\n") == ["Thought 1.", "Thought 2."]


def test_thoughts_that_no_table_can_keep_fail_no_row(storage: Path) -> None:
    class Half(Thinker):
        async def agenerate(self, input: FormattedInput, num_generations: int = 1, **_: Any) -> GenerateOutput:
            return {**await super().agenerate(input, num_generations), "reasoning": ["half \ud83d"]}

    (row,) = made(TextGeneration(llm=Half(), add_reasoning=True), storage, [{"instruction": "Hi"}])

    assert row["generation"] == "Answer 1.0"
    assert row["reasoning"] == "half \ufffd"


def test_a_task_that_has_such_a_column_itself_says_so() -> None:
    class Own(TextGeneration):
        @property
        def outputs(self) -> list[str]:
            return ["reasoning", "generation", "model_name"]

    with pytest.raises(ParameterError, match="adds the column 'reasoning', which is one of the Task's own"):
        Own(llm=Thinker(), add_reasoning=True).load()


def test_the_column_is_known_before_anything_is_asked(storage: Path) -> None:
    llm = Thinker()
    writer = TextGeneration(name="writer", llm=llm, add_reasoning=True)
    reader = TextGeneration(name="reader", llm=llm, template="{{ reasoning }}", columns=["reasoning"])

    rows = load([{"instruction": "Hi"}], storage=str(storage)).map(writer).map(reader)

    assert len(collect(rows).to_list()) == 1
