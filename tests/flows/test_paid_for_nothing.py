"""What was paid and gave nothing is in a run's totals; what may not be whole is told of, in the row and the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.engine.graph import Rows
from flows.engine.report import progress_line, report_markdown, total_work
from flows.engine.run import Run
from llms import AnthropicLLM, OpenAILLM
from llms.batch import OfflineBatchLLM
from tasks import EvolInstruct, TextGeneration
from tasks.base import UnreadableAnswerError
from tests.scripted import Reply, Scripted, completion, message

BATCHES = {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 1}
WAYS = ["online", "in a batch"]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def asked(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def run_of(rows: Rows) -> Run:
    return rows.node.run


def collected(rows: Rows) -> list[dict[str, Any]]:
    return list(collect(rows, max_failed_rows=100))


def told(counts: dict[str, int | None]) -> dict[str, int]:
    """The counts that the provider told."""
    return {name: count for name, count in counts.items() if count is not None}


def openai(server: Scripted, **options: Any) -> OpenAILLM:
    return OpenAILLM(model="m", base_url=server.url, api_key="k", **options)


def source(*instructions: str) -> Rows:
    return load([{"instruction": each} for each in instructions])


class Shouted(TextGeneration):
    """Takes answers in capitals only."""

    def format_output(self, output: str | None, input: dict[str, Any]) -> dict[str, Any]:
        if output is None or not output.isupper():
            raise UnreadableAnswerError(f"expected capitals, got {output!r}")
        return {"generation": output}


NOTHING: dict[str, Reply] = {
    "refused": completion(None, "stop", message={"refusal": "I can't."}),
    "filtered": completion(None, "content_filter"),
    "thought": completion(None, "length", message={"reasoning_content": "Hm."}),
    "empty": completion("", "stop"),
    "unreadable": completion("not in capitals", "stop"),
    "fine": completion("FINE", "stop"),
}


@pytest.mark.parametrize("way", WAYS)
def test_tokens_that_gave_nothing_are_in_the_totals_and_in_their_rows(storage: Path, way: str) -> None:
    with Scripted(lambda body: NOTHING[asked(body)]) as server:
        llm = openai(server, **(BATCHES if way == "in a batch" else {}))
        rows = Shouted(name="shouted", llm=llm).map(source(*NOTHING))
        made = collected(rows)

        assert len(server.asked) + len(server.batched) == len(NOTHING)
    work = total_work(run_of(rows))
    assert (work.sent.input_tokens, work.sent.output_tokens) == (100 * len(NOTHING), 20 * len(NOTHING))
    assert work.all == work.sent
    counts = [told(row["distilabel_metadata"]["statistics_shouted"]) for row in made]
    assert counts == [{"input_tokens": 100, "output_tokens": 20}] * len(NOTHING)
    failed = [row["instruction"] for row in made if row["distilabel_metadata"]["error_shouted"]]
    assert failed == ["refused", "filtered", "thought", "empty", "unreadable"]


@pytest.fixture
def replies() -> Iterator[dict[str, list[Reply]]]:
    """What comes for a question, one after the other; the last one stays."""
    yield {}


def in_turn(replies: dict[str, list[Reply]]) -> Callable[[dict[str, Any]], Reply]:
    def reply(body: dict[str, Any]) -> Reply:
        left = replies[asked(body)]
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


def test_tries_that_were_paid_before_the_answer_are_in_the_totals_and_not_in_its_row(
    storage: Path, replies: dict[str, list[Reply]]
) -> None:
    replies["q"] = [completion("Half an", "error"), completion("Whole.")]
    with Scripted(in_turn(replies)) as server:
        rows = TextGeneration(llm=openai(server)).map(source("q"))
        (row,) = collected(rows)

    counts = told(row["distilabel_metadata"]["statistics_text_generation"])
    assert counts == {"input_tokens": 100, "output_tokens": 20}
    assert total_work(run_of(rows)).sent.output_tokens == 40


@pytest.mark.parametrize("way", WAYS)
def test_what_failed_and_was_paid_counts_for_the_rows_when_a_later_run_gets_an_answer(
    storage: Path, replies: dict[str, list[Reply]], way: str
) -> None:
    replies |= {
        "refused": [NOTHING["refused"], completion("NOW")],
        "unreadable": [NOTHING["unreadable"], completion("NOW")],
    }
    with Scripted(in_turn(replies)) as server:

        def run() -> Rows:
            llm = openai(server, **(BATCHES if way == "in a batch" else {}))
            rows = Shouted(name="shouted", llm=llm).map(source(*replies))
            collected(rows)
            return rows

        first, second, third = (total_work(run_of(run())) for _ in range(3))

    assert (first.all.output_tokens, first.sent.output_tokens) == (40, 40)
    assert (second.all.output_tokens, second.sent.output_tokens) == (80, 40)
    assert (third.all.output_tokens, third.sent.output_tokens) == (80, 0)


def test_a_refusal_is_not_asked_again_when_a_run_goes_on_after_a_crash(
    storage: Path, replies: dict[str, list[Reply]]
) -> None:
    replies |= {"refused": [NOTHING["refused"]], "stops": [(401, {"error": {"message": "no key"}}), completion("YES")]}
    with Scripted(in_turn(replies)) as server:
        rows = TextGeneration(llm=openai(server)).map(source("refused", "stops"))
        with pytest.raises(Exception, match="no key"):
            collected(rows)
        # The same attempt of the same run, as after a wait for batches.
        made = collected(rows)

        count = sum(asked(body) == "refused" for body in server.asked)
    assert [row["distilabel_metadata"]["error_text_generation"] is None for row in made] == [False, True]
    assert count == 1
    assert total_work(run_of(rows)).sent.output_tokens == 40


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_may_be_half_says_so_in_its_row_and_in_the_runs_report(storage: Path, way: str) -> None:
    with Scripted(lambda body: completion("Half an", asked(body))) as server:
        llm = openai(server, **(BATCHES if way == "in a batch" else {}))
        rows = TextGeneration(llm=llm).map(source("stop", "content_filter", "length", "repetition"))
        made = [row["distilabel_metadata"] for row in collected(rows)]

    known = ("finish_reason_text_generation", "cut_off_text_generation", "unfinished_text_generation")
    assert [tuple(metadata.get(name) for name in known) for metadata in made] == [
        ("stop", None, None),
        ("content_filter", None, True),
        ("length", True, None),
        ("repetition", None, True),
    ]
    (progress,) = (each for each in run_of(rows).progress.values() if each.work.all.requests)
    assert "1 answer cut off by the limit of tokens, 2 answers that may not be whole" in progress_line(progress)
    report = report_markdown(run_of(rows))
    for word in ("content_filter", "repetition"):
        assert f"| text_generation | {word} | 1 |" in report
    assert "| stop |" not in report


def test_a_provider_that_never_says_why_answers_end_is_told_of(storage: Path) -> None:
    with Scripted(lambda body: completion("Fine.", None)) as server:
        rows = TextGeneration(llm=openai(server)).map(source("a", "b"))
        (metadata, _) = (row["distilabel_metadata"] for row in collected(rows))

    assert metadata["unfinished_text_generation"] is True
    assert "| text_generation | no reason given | 2 |" in report_markdown(run_of(rows))


def test_a_row_that_fails_for_a_half_answer_says_what_ended_it(storage: Path) -> None:
    with Scripted(lambda body: completion("half", "content_filter")) as server:
        (row,) = collected(Shouted(name="shouted", llm=openai(server)).map(source("a")))

    assert "finish_reason 'content_filter'" in row["distilabel_metadata"]["error_shouted"]["message"]


def test_of_several_rounds_the_one_that_isnt_whole_tells(storage: Path, replies: dict[str, list[Reply]]) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    left = [completion("First.", "content_filter", usage), completion("Second."), completion("Third.", usage=usage)]
    with Scripted(lambda body: left.pop(0)) as server:
        llm = openai(server)
        (row,) = collected(EvolInstruct(llm=llm, num_evolutions=2, generate_answers=True).map(source("q")))

    metadata = row["distilabel_metadata"]
    assert metadata["finish_reason_evol_instruct"] == "content_filter"
    assert metadata["unfinished_evol_instruct"] is True
    assert told(metadata["statistics_evol_instruct"]) == {
        "input_tokens": 300,
        "output_tokens": 60,
        "cached_tokens": 128,
        "reasoning_tokens": 16,
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_row_gets_all_its_generations_or_fails_with_a_sentence(storage: Path, way: str, wire: str) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        if wire == "anthropic":
            return message()
        answer = completion()
        first = answer["choices"][0]
        count = min(2, body.get("n", 1))
        return answer | {"choices": [{**first, "index": place} for place in range(count)]}

    with Scripted(reply) as server:
        options: dict[str, Any] = {"model": "m", "api_key": "k", **(BATCHES if way == "in a batch" else {})}
        llm: OfflineBatchLLM = (
            OpenAILLM(base_url=server.url, **options)
            if wire == "openai"
            else AnthropicLLM(base_url=server.root, **options)
        )
        rows = TextGeneration(llm=llm, num_generations=3).map(source("q"))
        made = collected(rows)

    failures = [row["distilabel_metadata"]["error_text_generation"] for row in made]
    if (wire, way) == ("openai", "in a batch"):
        # No more can be asked of a job.
        assert any(failure and "asked for 3" in failure["message"] for failure in failures)
        assert all(failure or row["generation"] == "Fine." for failure, row in zip(failures, made, strict=True))
    else:
        assert [row["generation"] for row in made] == ["Fine."] * 3
    assert len(made) == 3
    assert total_work(run_of(rows)).sent.input_tokens == 100 * (len(server.asked) + len(server.batched))


def test_the_metadatas_type_is_the_same_whatever_providers_tell(storage: Path) -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 9,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    replies = {
        "whole": completion(),
        "half": completion("Half", "content_filter", usage),
        "no word": completion("x", None),
    }
    with Scripted(lambda body: replies[asked(body)]) as server:
        made = [collect(TextGeneration(llm=openai(server)).map(source(each))) for each in replies]

    assert made[0].features == made[1].features == made[2].features
