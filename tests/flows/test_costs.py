"""Costs of runs, as sums and as texts, and estimates of what isn't sent yet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.authoring.saving import save
from flows.engine.costs import OUTPUT_TOKENS, Cost, cost_of_rows, cost_of_run, estimate, estimates_line, total
from flows.engine.graph import load
from flows.engine.report import report_markdown, summary_lines, total_work
from flows.engine.run import Run, StepProgress
from flows.store.shards import ShardRef, Tokens, Work, find_shard, work_in, work_of, write_shard
from flows.store.storage import Storage
from llms import LLM, OpenAILLM, PriceSource
from llms.local_provider import LocalProvider
from tasks import SaveToDisk, TextGeneration
from tests.flows.own_llm import OwnLLM

URL = "https://api.openai.com/v1"
MILLION = Tokens(1000, 1_000_000, 1_000_000)
"""$12.50 with gpt-4o."""


def gpt(**options: Any) -> OpenAILLM:
    return OpenAILLM(model="gpt-4o", base_url=URL, **options)


def run_with(*steps: tuple[LLM, Work]) -> Run:
    run = Run("run", "run:1", Storage("memory://costs"))
    for number, (llm, work) in enumerate(steps):
        name = f"step-{number}"
        run.progress_of(name, TextGeneration(name=name, llm=llm)).work = work
    return run


def costs(*steps: tuple[LLM, Work]) -> tuple[str, str]:
    """What the rows cost, and what the run spent."""
    progress = run_with(*steps).progress.values()
    return str(cost_of_rows(progress)), str(cost_of_run(progress))


def test_what_batches_answered_costs_less_than_what_was_answered_online() -> None:
    online = work_of(MILLION, sent=True, batched=False)
    batched = work_of(MILLION, sent=True, batched=True)

    assert costs((gpt(), online)) == ("$12.50", "$12.50")
    assert costs((gpt(), batched)) == ("$6.25", "$6.25")
    assert costs((gpt(), online + batched)) == ("$18.75", "$18.75")


def test_answers_of_earlier_runs_are_part_of_what_the_rows_cost_and_not_of_what_the_run_spent() -> None:
    found = work_of(MILLION, sent=False, batched=True)
    asked = work_of(MILLION, sent=True, batched=False)

    assert costs((gpt(), found)) == ("$6.25", "$0.00")
    assert costs((gpt(), found + asked)) == ("$18.75", "$12.50")


def test_a_sum_says_that_a_part_of_it_has_no_known_price() -> None:
    work = work_of(MILLION, sent=True, batched=False)

    assert costs((OwnLLM(), work)) == ("–", "–")
    assert costs((gpt(), work), (OwnLLM(), work)) == ("at least $12.50", "at least $12.50")
    # Where nothing was asked, nothing was spent, at whichever price.
    assert costs((gpt(), work), (OwnLLM(), work.of_another_run())) == ("at least $12.50", "$12.50")
    assert total([]) == Cost(None)


def test_the_terminal_says_what_was_spent_and_what_the_rows_took_only_where_that_differs() -> None:
    asked = work_of(MILLION, sent=True, batched=False)
    found = work_of(MILLION, sent=False, batched=False)

    alone = summary_lines(run_with((gpt(), asked)))
    both = summary_lines(run_with((gpt(), asked + found)))

    (line,) = [line for line in alone if "requests sent" in line]
    assert line.startswith("1,000 requests sent, 1,000,000 input and 1,000,000 output tokens, $12.50, ")
    assert not any("earlier" in line for line in alone)
    assert (
        "with the answers of earlier runs: 2,000 requests, 2,000,000 input and 2,000,000 output tokens, $25.00" in both
    )
    assert "$" not in "".join(summary_lines(run_with((OwnLLM(), asked + found))))


def test_the_report_has_the_cost_of_each_step_and_of_all() -> None:
    asked = work_of(MILLION, sent=True, batched=False)
    found = work_of(MILLION, sent=False, batched=False)

    report = report_markdown(run_with((gpt(), asked), (gpt(), asked + found), (OwnLLM(), asked)))

    header, _, *rows = [[cell.strip() for cell in line.split("|")] for line in report.splitlines() if "|" in line]
    place = header.index("Cost (spent now)")
    assert [row[place] for row in rows] == ["$12.50", "$25.00 ($12.50)", "–", "at least $37.50 (at least $25.00)"]
    assert "in brackets what this run itself sent and spent" in report


class Priced(OpenAILLM):
    """Asks any server at the price of OpenAI."""

    def price_source(self) -> PriceSource:
        return PriceSource(URL, self.model)


def test_a_rerun_with_more_rows_tells_its_own_cost_from_that_of_all_rows(
    provider: LocalProvider, storage: Path, tmp_path: Path
) -> None:
    def run(rows: int) -> tuple[Run, str]:
        source = load([{"instruction": f"Tell me about number {number}."} for number in range(rows)])
        save(TextGeneration(llm=Priced(model="gpt-4o")).map(source), SaveToDisk(path=str(tmp_path / f"{rows}")))
        return source.node.run, (tmp_path / f"{rows}" / "README.md").read_text()

    first, first_card = run(10)
    second, card = run(30)

    rows, spent = (str(of(second.progress.values())) for of in (cost_of_rows, cost_of_run))
    spent_before = cost_of_run(first.progress.values()).dollars
    assert cost_of_rows(first.progress.values()).dollars == spent_before
    assert (total_work(second).all.requests, total_work(second).sent.requests) == (30, 20)
    assert cost_of_rows(second.progress.values()).dollars == pytest.approx(
        spent_before + cost_of_run(second.progress.values()).dollars
    )
    assert f"All answers in these rows cost {rows} at the list prices" in card
    assert f"This run spent {spent}; the other answers were there from earlier runs." in card
    assert "This run spent" not in first_card


def test_the_work_of_a_shard_is_kept_in_its_file() -> None:
    storage = Storage("memory://work-kept")
    work = work_of(MILLION, sent=True, batched=True) + work_of(Tokens(1, 2, 3), sent=False, batched=False)

    ref = write_shard(storage, storage.path("a.parquet"), [{"a": 1}], attempt="run:1", work=work)

    assert find_shard(storage, ref.uri) == ref
    assert ref.work.all == Tokens(1001, 1_000_002, 1_000_003)
    assert ref.work.sent == MILLION


def test_a_shard_of_before_there_were_batches_is_read() -> None:
    work = work_in({"requests": 5, "sent": 3, "input_tokens": 70, "output_tokens": 90})

    assert work == Work(online=Tokens(5, 70, 90))
    assert work_in(orjson.loads(orjson.dumps(asdict(work)))) == work


@pytest.mark.parametrize(
    ("attempt", "sent"),
    [("run:1", 1000), ("run:2", 1000), ("runner:1", 0), ("", 0)],
    ids=["same", "retry", "other", "no"],
)
def test_a_shard_that_an_earlier_attempt_of_the_run_made_is_what_the_run_spent(attempt: str, sent: int) -> None:
    progress = StepProgress("step", TextGeneration(llm=gpt()), run_id="run")
    work = work_of(MILLION, sent=True, batched=True)

    progress.add(ShardRef("a", 500, "digest", attempt=attempt, work=work), 500, reused=True)

    assert progress.work.all.requests == 1000
    assert progress.work.sent.requests == sent


def test_an_estimate_reads_as_one_line() -> None:
    text = str(estimate(gpt(), 12_000, 3_100_000, 400.4, batch=True))

    assert text == (
        "12,000 requests, about 3.1 M input and 4.8 M output tokens, about $27.90 at batch price"
        " (output tokens: 400 an answer, the average so far)"
    )


@pytest.mark.parametrize(
    ("llm", "average", "tokens", "words"),
    [
        (gpt(generation_kwargs={"max_new_tokens": 50}), 30.0, 50, "at most max_new_tokens=50 an answer"),
        (gpt(), 30.6, 31, "the average so far"),
        (gpt(), None, OUTPUT_TOKENS, "a guess; set max_new_tokens"),
        (OwnLLM(), None, OUTPUT_TOKENS, "a guess"),
    ],
    ids=["limit", "average", "constant", "own llm"],
)
def test_output_tokens_are_guessed_from_the_limit_then_the_average_then_a_constant(
    llm: LLM, average: float | None, tokens: int, words: str
) -> None:
    guessed = estimate(llm, 10, 100, average)

    assert guessed.output_tokens == pytest.approx(10 * tokens, abs=5)
    assert words in guessed.guess
    assert words in str(guessed)


def test_the_limit_that_an_adapter_sets_itself_counts() -> None:
    class Brief(OwnLLM):
        async def agenerate(self, input: Any, num_generations: int = 1, max_new_tokens: int = 7) -> Any: ...

    assert estimate(Brief(), 2, 10).output_tokens == 14


def test_several_answers_to_a_request_are_several_times_its_output() -> None:
    once, thrice = (estimate(gpt(), 10, 100, 40, num_generations=times) for times in (1, 3))

    assert (once.output_tokens, thrice.output_tokens) == (400, 1200)
    assert once.input_tokens == thrice.input_tokens


def test_an_estimate_without_a_price_says_so() -> None:
    guessed = estimate(gpt(max_retries=1).merged({"base_url": "http://127.0.0.1:1"}), 10, 100, batch=True)

    assert guessed.dollars is None
    assert "price unknown" in str(guessed)
    assert estimate(OwnLLM(), 0, 0).dollars == 0.0


def test_estimates_of_several_steps_are_one_line_with_their_sum() -> None:
    estimates = {
        "write": estimate(gpt(), 1000, 1_000_000, 1000, batch=True),
        "judge": estimate(gpt(), 2000, 1_000_000, 500),
        "own": estimate(OwnLLM(), 10, 100),
    }

    assert estimates_line(estimates).endswith("; at least $18.75 in all")
