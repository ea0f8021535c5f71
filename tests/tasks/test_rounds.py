"""Tasks of several rounds: talks side by side, what they cost, and what fails alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from llms import AuthenticationError, BadRequestError, OpenAILLM
from llms.parameters import ParameterError
from llms.typing import FormattedInput, GenerateOutput
from tasks.base import UnreadableAnswerError
from tasks.rounds import RoundsTask, Talk, hold, tried
from tasks.typing import Columns, Row
from tests.tasks.scripted import ScriptedLLM


class Count(RoundsTask):
    """Asks on until it hears the end."""

    @property
    def inputs(self) -> Columns:
        return ["start"]

    @property
    def outputs(self) -> Columns:
        return ["heard", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        return input["start"]

    def talk(self, row: Row, generation: int) -> Talk:
        heard: list[str | None] = []
        while not heard or heard[-1] != "end":
            heard.append((yield f"{row['start']} {generation} {len(heard)}"))
            if heard[-1] == "fail":
                raise UnreadableAnswerError("no end")
        return {"heard": heard}


class Answers:
    """An `Ask` that answers from a table, and notes the order."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.asked: list[Any] = []

    async def __call__(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        assert isinstance(prompt, str)
        self.asked.append(prompt)
        # The later it is asked, the sooner it answers.
        await asyncio.sleep(0.02 / len(self.asked))
        found = self.table[prompt]
        if isinstance(found, Exception):
            raise found
        return {"generations": [found], "statistics": {"input_tokens": [3], "output_tokens": [2]}}


def test_rounds_are_asked_in_an_order_that_depends_on_the_answers_alone() -> None:
    table = {"a 0 0": "more", "a 1 0": "more", "a 2 0": "end", "a 0 1": "more", "a 1 1": "end", "a 0 2": "end"}
    ask = Answers(table)
    task = Count(llm=ScriptedLLM(replies=[]), num_generations=3)

    answers = asyncio.run(task.converse({"start": "a"}, ask))

    assert ask.asked == ["a 0 0", "a 1 0", "a 2 0", "a 0 1", "a 1 1", "a 0 2"]
    assert [len(answer.columns["heard"]) for answer in answers] == [3, 2, 1]


def test_statistics_are_summed_over_the_rounds_of_a_generation_and_texts_are_kept_in_order() -> None:
    task = Count(llm=ScriptedLLM(replies=["one", "two", "end"]))
    (row,) = next(task.process([{"start": "a"}]))

    metadata = row["distilabel_metadata"]
    assert row["heard"] == ["one", "two", "end"]
    assert metadata["statistics_count"] == {"input_tokens": 30, "output_tokens": 3}
    assert metadata["raw_input_count"] == ["a 0 0", "a 0 1", "a 0 2"]
    assert metadata["raw_output_count"] == ["one", "two", "end"]


def test_a_generation_that_fails_leaves_the_others_and_keeps_what_it_has_cost() -> None:
    refused = BadRequestError("too long")
    ask = Answers({"a 0 0": "more", "a 1 0": "fail", "a 2 0": "end", "a 0 1": refused})
    task = Count(llm=ScriptedLLM(replies=[]), num_generations=3)

    first, second, third = asyncio.run(task.converse({"start": "a"}, ask))

    assert first.failure is not None and first.failure["message"] == "too long"
    assert second.failure is not None and second.failure["type"] == "UnreadableAnswerError"
    assert third.columns == {"heard": ["end"]}
    assert [each.input_tokens for each in (first, second, third)] == [3, 3, 3]


def test_what_no_other_request_can_mend_stops_everything() -> None:
    ask = Answers({"a 0 0": AuthenticationError("wrong key"), "a 1 0": "end"})
    task = Count(llm=ScriptedLLM(replies=[]), num_generations=2)

    with pytest.raises(AuthenticationError):
        asyncio.run(task.converse({"start": "a"}, ask))


def test_the_first_answer_alone_is_read_where_it_is_all_that_is_asked_for() -> None:
    task = Count(llm=ScriptedLLM(replies=[]))

    assert task.prompt({"start": "a"}) == "a 0 0"
    assert task.format_output("end", {"start": "a"}) == {"heard": ["end"]}
    with pytest.raises(ValueError, match="asks again"):
        task.format_output("more", {"start": "a"})


def test_offline_batches_outside_of_a_flow_are_refused_before_any_job_is_made() -> None:
    task = Count(llm=OpenAILLM(model="gpt-4o", use_offline_batch_generation=True))

    with pytest.raises(ParameterError, match=r"collect\(load\(rows\)\.map\(task\)\)"):
        next(task.process([{"start": "a"}]))


def test_ways_are_tried_until_one_is_of_use() -> None:
    tries: Counter[str] = Counter()

    def attempt(way: str) -> Any:
        tries[way] += 1
        text = yield way
        if text != "good":
            raise UnreadableAnswerError(f"{text} is no good")
        return way

    def talk() -> Talk:
        return {"way": (yield from tried(["a", "b", "c"], attempt, "it"))}

    ask = Answers({"a": "bad", "b": "good"})
    (answer,) = asyncio.run(hold([talk()], ask))
    assert answer.columns == {"way": "b"}
    assert tries == {"a": 1, "b": 1}

    (answer,) = asyncio.run(hold([talk()], Answers({"a": "bad", "b": "worse", "c": None})))
    assert answer.failure is not None
    assert answer.failure["message"] == (
        "it failed 3 times. a: bad is no good; b: worse is no good; c: None is no good"
    )
