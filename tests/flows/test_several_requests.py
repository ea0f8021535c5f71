"""Rows whose answers come in several requests: a retry asks again what a failed row is to blame on, and no more."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flows.authoring.saving import collect
from flows.engine.errors import TooManyFailedRowsError
from flows.engine.graph import Rows, load
from flows.engine.report import total_work
from llms import AnthropicLLM, InferenceEndpointsLLM, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import PairwiseJudge, TextGeneration
from tests.conftest import LONGEST
from tests.scripted import Reply, Scripted, completion, message

ROWS = [{"instruction": "How high is K2?", "generations": ["8,611 m.", "High."]}]
FIRST, SECOND = r'name="A">\n8,611', r'name="A">\nHigh'
FOR_A, FOR_B = "Rationale: Exact.\nVerdict: A", "Rationale: Exact.\nVerdict: B"


def judged(task: PairwiseJudge) -> list[Any]:
    return list(collect(load(ROWS).map(task)))


@pytest.mark.parametrize("unreadable", [FIRST, SECOND])
def test_of_two_requests_asked_together_both_are_asked_again(
    provider: LocalProvider, storage: Path, unreadable: str
) -> None:
    good = [{"match": FIRST, "answer": FOR_A}, {"match": "", "answer": FOR_B}]
    task = PairwiseJudge(llm=OpenAILLM(model="m"), use_default_structured_output=False)
    provider.set(answers=[{"match": unreadable, "answer": "Hard to say."}, *good])
    with pytest.raises(TooManyFailedRowsError):
        judged(task)
    provider.set(answers=good)

    # The second try finds the answers in the ledger, and fails nothing by them.
    (row,) = judged(task)

    assert row["preferred"] == "A"
    assert provider.stats.count("/chat/completions") == 4


REFUSED = (400, {"error": {"type": "invalid_request_error", "message": "no"}})
AWAY = (503, {"error": {"message": "no capacity"}})


def numbered_messages(*others: Reply) -> Callable[[dict[str, Any]], Reply]:
    """Messages with a number each, after those that stand in the place of the first ones."""
    numbers, first = itertools.count(1), iter(others)
    return lambda body: next(first, None) or message(f"{next(numbers)}")


def claude(server: Scripted, **options: Any) -> AnthropicLLM:
    return AnthropicLLM(model="claude-3-haiku-20240307", base_url=server.url, api_key=SecretStr("k"), **options)


def generated(server: Scripted, times: int, **options: Any) -> Rows:
    task = TextGeneration(name="told", llm=claude(server, **options), num_generations=times, group_generations=True)
    return load([{"instruction": "Tell me."}]).map(task)


def test_of_the_requests_for_one_row_those_that_were_answered_are_asked_once_however_often_it_fails(
    storage: Path,
) -> None:
    with Scripted(numbered_messages(message("first"), REFUSED, REFUSED)) as server:
        with pytest.raises(TooManyFailedRowsError):
            list(collect(generated(server, 3)))
        failed = len(server.asked)

        rows = generated(server, 3)
        (row,) = collect(rows)

    assert sorted(row["generation"]) == ["1", "2", "first"]
    assert failed == 3
    assert len(server.asked) == 5
    assert total_work(rows.node.run).all.requests == 1


def test_what_a_row_cost_that_got_some_of_its_answers_is_in_the_totals(storage: Path) -> None:
    with Scripted(numbered_messages(message("first"), REFUSED)) as server:
        rows = generated(server, 2)
        list(collect(rows, max_failed_rows=1))

    usage = message("first")["usage"]
    work = total_work(rows.node.run)
    assert (work.all.input_tokens, work.all.output_tokens) == (usage["input_tokens"], usage["output_tokens"])


def test_an_answer_is_kept_while_another_of_its_row_waits_to_be_asked_again(storage: Path) -> None:
    """As a killed process finds it: the run is looked at from beside, and its answers are taken as they lie there."""
    waits, ends = threading.Event(), threading.Event()

    def reply(body: dict[str, Any]) -> Reply:
        number = next(asked)
        if number == 1:
            return AWAY
        if number > 1:
            waits.set()
            ends.wait(LONGEST)
        return message(f"{number}")

    asked = itertools.count()
    with Scripted(reply) as server:
        first = threading.Thread(target=lambda: list(collect(generated(server, 2))))
        first.start()
        assert waits.wait(LONGEST)
        kept = [path for path in (storage / "ledger").rglob("*") if path.is_file() and b'"0"' in path.read_bytes()]
        ends.set()
        first.join()

    assert kept
    assert len(server.asked) == 3


def test_generations_that_are_asked_for_by_a_later_run_have_seeds_of_their_own(storage: Path) -> None:
    refused = iter([False, True, False])

    def reply(body: dict[str, Any]) -> Reply:
        return REFUSED if next(refused, False) else completion(f"{body['seed']}")

    with Scripted(reply) as server:
        llm = InferenceEndpointsLLM(base_url=server.url, generation_kwargs={"seed": 10})
        task = TextGeneration(name="told", llm=llm, num_generations=3, group_generations=True)
        with pytest.raises(TooManyFailedRowsError):
            list(collect(load([{"instruction": "Tell me."}]).map(task)))
        (row,) = collect(load([{"instruction": "Tell me."}]).map(task))

    assert len({*row["generation"]}) == 3
    assert len(server.asked) == 4


def test_what_was_answered_online_is_left_out_of_a_batch(storage: Path) -> None:
    with Scripted(numbered_messages(message("first"), REFUSED, REFUSED)) as server:
        with pytest.raises(TooManyFailedRowsError):
            list(collect(generated(server, 3)))

        (row,) = collect(
            generated(server, 3, use_offline_batch_generation=True, offline_batch_generation_block_until_done=1)
        )

    assert sorted(row["generation"]) == ["1", "2", "first"]
    assert len(server.batched) == 2


def test_an_unusable_answer_in_parts_is_asked_again_as_a_whole(storage: Path) -> None:
    class Numbers(TextGeneration):
        def format_output(self, output: str | None, input: dict[str, Any]) -> dict[str, Any]:
            return {"generation": int(output or "")}

    with Scripted(numbered_messages(message("first"), REFUSED, REFUSED)) as server:

        def made() -> list[dict[str, Any]]:
            task = Numbers(name="told", llm=claude(server), num_generations=3, group_generations=True)
            return list(collect(load([{"instruction": "Tell me."}]).map(task), max_failed_rows=1))

        for _ in range(2):
            made()
        assert len(server.asked) == 5
        (row,) = made()

    assert sorted(row["generation"]) == [3, 4, 5]
    assert len(server.asked) == 8
