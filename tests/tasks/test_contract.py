"""The Tasks of text and of ratings keep to the contract."""

from __future__ import annotations

import json

import pytest

from llms.local_provider import LocalProvider
from tasks import ChatGeneration, StructuredGeneration, TextGeneration, TextGenerationWithImage, UltraFeedback
from tasks.base import Answer
from tasks.steps import failure_in
from tasks.typing import Ask, Row
from tests.tasks.contract import check_contract, llm, made_offline, rows_of


def test_text_generation_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"instruction": "How high is K2?"}
    check_contract(provider, TextGeneration, row, "8,611 m.", {"generation": "8,611 m."}, broken=None)


def test_ultrafeedback_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"instruction": "How high is K2?", "generations": ["8,611 m."]}
    answer = json.dumps({"answer_1": {"rationale": "Right.", "rating": 5}})
    check_contract(provider, UltraFeedback, row, answer, {"ratings": [5], "rationales": ["Right."]})


def test_chat_generation_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"messages": [{"role": "user", "content": "How high is K2?"}]}
    check_contract(provider, ChatGeneration, row, "8,611 m.", {"generation": "8,611 m."}, broken=None)


def test_text_generation_with_image_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"instruction": "What is this?", "image": "https://example.org/k2.png"}
    check_contract(provider, TextGenerationWithImage, row, "A mountain.", {"generation": "A mountain."}, broken=None)


def test_structured_generation_keeps_to_the_contract(provider: LocalProvider) -> None:
    schema = {"type": "object", "properties": {"metres": {"type": "integer"}}, "required": ["metres"]}
    row = {"instruction": "How high is K2?", "structured_output": json.dumps(schema)}
    check_contract(provider, StructuredGeneration, row, '{"metres": 8611}', {"generation": '{"metres": 8611}'})


class AsksTwice(TextGeneration):
    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        first = await ask(self.prompt(row), 1)
        return await super().converse({**row, "instruction": f"Shorter: {first['generations'][0]}"}, ask)


def test_a_task_that_asks_again_isnt_given_its_first_answer_twice_out_of_a_batch(provider: LocalProvider) -> None:
    task = AsksTwice(llm=llm(use_offline_batch_generation=True))
    provider.set(batch_seconds=0.0)

    row = made_offline(task, {"instruction": "How high is K2?"})

    failure = failure_in(row)
    assert failure is not None
    assert "a Task that asks for more than its `prompt` needs a flow" in failure["message"]
    assert row["generation"] is None


class Reads(TextGeneration):
    """Makes of an answer whatever JSON is in it, as a parser of a user's own may."""

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": json.loads(output or "")}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('"half of one: \\ud83d"', "got half of one"),
        ('{"a": ["\\udc00"]}', "got half of one"),
    ],
)
def test_what_no_table_can_keep_fails_its_row_alone(provider: LocalProvider, answer: str, problem: str) -> None:
    provider.set(answers=[{"match": "bad", "answer": answer}, {"match": "", "answer": "9223372036854775807"}])

    good, bad = rows_of(Reads(llm=llm()), [{"instruction": "good"}, {"instruction": "bad"}])

    assert (good["generation"], failure_in(good)) == (9223372036854775807, None)
    failure = failure_in(bad)
    assert failure is not None
    assert failure["type"] == "UnreadableAnswerError"
    assert problem in failure["message"]
    assert bad["generation"] is None
    assert bad["distilabel_metadata"]["raw_output_reads"] == answer


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_a_number_of_more_than_64_bits_is_kept_with_every_digit(provider: LocalProvider, number: int) -> None:
    provider.set(answers=[{"match": "", "answer": f'[{{"n": {number}}}]'}])

    (row,) = rows_of(Reads(llm=llm()), [{"instruction": "How many?"}])

    assert (row["generation"], failure_in(row)) == ([{"n": number}], None)
