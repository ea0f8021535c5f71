"""Offline Tasks in flows: which requests go into which job, and what becomes of every row."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pydantic import SecretStr

from flows.authoring.saving import collect, finish
from flows.engine.errors import TooManyFailedRowsError
from flows.engine.graph import Rows, load
from flows.ledger.records import JobGoneError, Jobs
from flows.store.storage import Storage
from llms import AnthropicLLM, ModelNotFoundError, OpenAILLM, OverloadedError, QuotaExceededError
from llms.batch import BatchLimits, JobStatus
from llms.local_provider import LocalProvider
from llms.local_provider.batches import ENDED, Batch, BatchStore
from llms.providers.batch_dialects import BatchDialect
from llms.typing import ChatType
from tasks import Task, TextGeneration
from tasks.base import Answer
from tasks.steps import failure_in
from tasks.typing import Ask, Row

EVERY = {r"number (?P<number>\d+)": "All about {number}."}


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    # It knows a job at once.
    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", 0.3)
    provider.set(batch_manual=True, answers=EVERY)
    return provider


def status_of(job: dict[str, Any]) -> str:
    """The status of a job of OpenAI's or of Anthropic's."""
    return job.get("status") or job["processing_status"]


@contextmanager
def ending(provider: LocalProvider, *orders: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """End every job as soon as it's there: as the orders say, one after the other, the others whole. Gives the jobs."""
    stopped = threading.Event()
    ended: list[dict[str, Any]] = []

    def end_all() -> None:
        while not stopped.is_set():
            for job in provider.batches[len(ended) :]:
                order = orders[len(ended)] if len(ended) < len(orders) else {}
                while status_of(provider.batches[len(ended)]) == "validating":
                    time.sleep(0.005)
                ended.append(job)
                if status_of(provider.batches[len(ended) - 1]) == "in_progress":
                    provider.end_batch(job["id"], **order)
            time.sleep(0.01)

    thread = threading.Thread(target=end_all)
    thread.start()
    try:
        yield ended
    finally:
        stopped.set()
        thread.join()


def prompts(count: int, start: int = 0) -> list[Row]:
    return [{"instruction": f"Tell me about number {number}."} for number in range(start, start + count)]


def generation(name: str = "text_generation", **options: Any) -> TextGeneration:
    llm_options = {"use_offline_batch_generation": True, **options.pop("llm_options", {})}
    return TextGeneration(name=name, llm=OpenAILLM(model="gpt-4o", **llm_options), **options)


def generated(count: int = 20, *, shard_rows: int = 4, task: Task | None = None, **options: Any) -> Rows:
    return load(prompts(count), shard_rows=shard_rows, **options).map(task or generation())


def asked(provider: LocalProvider, job: int) -> list[str]:
    """The prompts of a job, in the order of its file."""
    file = provider.batches[job]["input_file_id"]
    with urllib.request.urlopen(f"{provider.base_url}/files/{file}/content") as answer:
        lines = [json.loads(line) for line in answer.read().splitlines()]
    return [line["body"]["messages"][-1]["content"] for line in lines]


def is_right(row: Row) -> bool:
    """Whether the row has its own answer."""
    return row["generation"] == row["instruction"].replace("Tell me about number ", "All about ")


def online(provider: LocalProvider) -> int:
    return provider.stats.count("/chat/completions")


# Jobs


def test_all_shards_of_a_step_go_into_one_job_and_every_row_gets_its_own_answer(
    provider: LocalProvider, storage: Path
) -> None:
    with ending(provider, {"shuffle": True}):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert asked(provider, 0) == [row["instruction"] for row in prompts(20)]
    assert [row["instruction"] for row in dataset] == [row["instruction"] for row in prompts(20)]
    assert all(map(is_right, dataset))
    assert online(provider) == 0


def test_a_step_makes_as_few_jobs_as_the_limits_allow(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAILLM, "batch_limits", BatchLimits(requests=50, size=10**9))
    with ending(provider):
        dataset = collect(generated(120, shard_rows=7))

    assert [job["request_counts"]["total"] for job in provider.batches] == [50, 50, 20]
    assert all(map(is_right, dataset))


def test_steps_that_dont_depend_on_each_other_are_submitted_before_any_waits(
    provider: LocalProvider, storage: Path
) -> None:
    source = load(prompts(10), shard_rows=3)
    first = source.map(generation("first"))
    second = first.map(generation("second", output_mappings={"generation": "again"}))
    beside = source.map(generation("beside"))

    async def both() -> Any:
        return await finish({"second": second, "beside": beside}, {})

    with ending(provider, {"shuffle": True}, {"shuffle": True}):
        datasets = asyncio.run(both())

    steps = [job["metadata"]["step"] for job in provider.batches]
    assert sorted(steps[:2]) == ["beside", "first"]
    assert steps[2:] == ["second"]
    assert all(map(is_right, datasets["second"]))
    assert all(map(is_right, datasets["beside"]))


def test_a_job_says_where_it_comes_from(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(generated(10, shard_rows=4))

    metadata = provider.batches[0]["metadata"]
    assert (metadata["step"], metadata["shards"], metadata["requests"]) == ("text_generation", "0-2", "10")
    assert len(metadata["stillflow"]) == 32


def test_an_unchanged_rerun_and_one_online_submit_nothing(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(generated())
    again = collect(generated())
    task = generation(llm_options={"use_offline_batch_generation": False})
    collect(generated(task=task))

    assert len(provider.batches) == 1
    assert all(map(is_right, again))
    assert online(provider) == 0


def test_a_grown_source_submits_only_what_is_new(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(generated(18))
        dataset = collect(generated(30))

    assert sorted(asked(provider, 1)) == sorted(row["instruction"] for row in prompts(12, start=18))
    assert all(map(is_right, dataset))


def test_a_fresh_run_submits_everything_anew(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        collect(generated(8, use_cache=False))
        collect(generated(8, use_cache=False))

    assert [job["request_counts"]["total"] for job in provider.batches] == [8, 8]


def test_equal_rows_are_asked_as_often_as_they_are_there(provider: LocalProvider, storage: Path) -> None:
    with ending(provider):
        dataset = collect(load(prompts(1) * 6, shard_rows=4).map(generation()))

    assert provider.batches[0]["request_counts"]["total"] == 6
    assert all(map(is_right, dataset))


def test_several_generations_come_in_one_request_where_the_api_can(provider: LocalProvider, storage: Path) -> None:
    task = generation(num_generations=3, group_generations=True)
    with ending(provider):
        dataset = collect(generated(4, task=task))

    assert provider.batches[0]["request_counts"]["total"] == 4
    assert all(len(row["generation"]) == 3 for row in dataset)


class OneAnswerLLM(OpenAILLM):
    """For servers that give one answer per request."""

    def requests_per_input(self, num_generations: int) -> int:
        return num_generations


def test_where_the_api_gives_one_answer_per_request_only_the_missing_one_is_asked_again(
    provider: LocalProvider, storage: Path
) -> None:
    llm = OneAnswerLLM(model="gpt-4o", use_offline_batch_generation=True)
    task = TextGeneration(name="several", llm=llm, num_generations=3, group_generations=True)
    with ending(provider, {"bad": [4]}):
        dataset = collect(load(prompts(4)).map(task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [12, 1]
    assert all(len(row["generation"]) == 3 and all(row["generation"]) for row in dataset)


class Twice(TextGeneration):
    """Asks, and asks again about the answer; and for a title at the same time."""

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        def chat(text: str) -> ChatType:
            return [{"role": "user", "content": text}]

        first, title = await asyncio.gather(ask(chat(row["instruction"])), ask(chat(f"Title: {row['instruction']}")))
        second = await ask(chat(f"{first['generations'][0]} Again, {title['generations'][0]}: {row['instruction']}"))
        return [Answer(columns={"generation": second["generations"][0]})]


def test_a_round_of_a_task_that_asks_several_times_is_a_job(provider: LocalProvider, storage: Path) -> None:
    task = Twice(name="twice", llm=OpenAILLM(model="gpt-4o", use_offline_batch_generation=True))
    with ending(provider, {"shuffle": True}, {"shuffle": True}):
        dataset = collect(generated(10, task=task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [20, 10]
    assert all(map(is_right, dataset))


# Failures


def test_the_requests_of_a_failed_job_are_submitted_again(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"action": "fail", "message": "Something went wrong."}):
        dataset = collect(generated())

    assert len(asked(provider, 0)) == len(asked(provider, 1)) == 20
    assert all(map(is_right, dataset))


@pytest.mark.parametrize("action", ["expire", "cancel"])
def test_of_a_job_that_ended_early_only_what_is_missing_is_submitted_again(
    provider: LocalProvider, storage: Path, action: str
) -> None:
    with ending(provider, {"action": action, "done_fraction": 0.5, "shuffle": True}):
        dataset = collect(generated())

    first, second = asked(provider, 0), asked(provider, 1)
    assert len(first) == 20
    assert len(second) == 10
    assert set(second) < set(first)
    assert all(map(is_right, dataset))


def test_requests_that_failed_and_may_pass_go_alone_into_the_next_job(provider: LocalProvider, storage: Path) -> None:
    bad = [1, 2, 3, 5, 8, 13, 19]
    with ending(provider, {"bad": bad, "status": 500, "shuffle": True}):
        dataset = collect(generated())

    assert asked(provider, 1) == [prompts(20)[number]["instruction"] for number in bad]
    assert all(map(is_right, dataset))


def test_requests_that_failed_for_good_fail_their_rows_with_the_providers_own_words(
    provider: LocalProvider, storage: Path
) -> None:
    order = {"bad": [2, 7], "status": 400, "message": "Your prompt was flagged.", "code": "content_policy_violation"}
    with ending(provider, order):
        dataset = collect(generated(), max_failed_rows=2)

    assert len(provider.batches) == 1
    failures = [failure_in(row) for row in dataset]
    assert [place for place, failure in enumerate(failures) if failure] == [2, 7]
    assert failures[2] is not None
    assert (failures[2]["type"], failures[2]["message"]) == ("ContentFilterError", "Your prompt was flagged.")
    assert all(is_right(row) for place, row in enumerate(dataset) if place not in {2, 7})


def test_a_request_that_no_job_answers_is_given_up_after_its_tries(provider: LocalProvider, storage: Path) -> None:
    order = {"bad": ["x"], "bad_every": 20, "status": 500, "message": "Broken."}
    task = generation(llm_options={"batch_tries": 3})
    with ending(provider, order, {"bad": [0], "message": "Broken."}, {"bad": [0], "message": "Broken."}):
        dataset = collect(generated(task=task), max_failed_rows=1)

    assert [job["request_counts"]["total"] for job in provider.batches] == [20, 1, 1]
    failure = failure_in(dataset[19])
    assert failure is not None
    assert "Broken." in failure["message"]


def test_requests_that_always_expire_are_given_up_after_their_tries(provider: LocalProvider, storage: Path) -> None:
    expire = {"action": "expire", "done_fraction": 0.0}
    task = generation(llm_options={"batch_tries": 2})
    with ending(provider, *[expire] * 5), pytest.raises(TooManyFailedRowsError, match="20 × text_generation: Expired"):
        collect(generated(task=task))

    assert len(provider.batches) == 2


def test_a_run_that_failed_is_retried_with_the_failed_rows_alone(provider: LocalProvider, storage: Path) -> None:
    order = {"bad": [0, 4, 9], "status": 400, "message": "Not today."}
    with ending(provider, order):
        with pytest.raises(TooManyFailedRowsError, match="3 × text_generation: BadRequestError: .*Not today"):
            collect(generated(10))
        dataset = collect(generated(10))

    assert asked(provider, 1) == [prompts(10)[number]["instruction"] for number in (0, 4, 9)]
    assert all(map(is_right, dataset))


@pytest.mark.parametrize(
    ("code", "error"), [("model_not_found", ModelNotFoundError), ("billing_hard_limit_reached", QuotaExceededError)]
)
def test_a_job_that_nothing_can_help_ends_the_run_with_the_reason(
    provider: LocalProvider, storage: Path, code: str, error: type[Exception]
) -> None:
    order = {"action": "fail", "code": code, "message": "No way."}
    with ending(provider, order), pytest.raises(error, match="No way"):
        collect(generated())

    assert len(provider.batches) == 1
    assert Jobs(Storage(str(storage))).all_open() == []


def test_answers_that_cant_be_read_fail_their_rows_and_are_not_asked_again_in_the_run(
    provider: LocalProvider, storage: Path
) -> None:
    class Picky(TextGeneration):
        def format_output(self, output: str | None, input: Row) -> Row:
            if input["instruction"].endswith("number 3."):
                raise ValueError("not that one")
            return super().format_output(output, input)

    task = Picky(name="picky", llm=OpenAILLM(model="gpt-4o", use_offline_batch_generation=True))
    second = generation("second", output_mappings={"generation": "more"})
    with ending(provider):
        dataset = collect(generated(10, task=task).map(second), max_failed_rows=1)

    assert [job["request_counts"]["total"] for job in provider.batches] == [10, 9]
    assert failure_in(dataset[3]) is not None


def test_a_step_online_goes_on_behind_a_step_offline(provider: LocalProvider, storage: Path) -> None:
    after = generation(
        "after", llm_options={"use_offline_batch_generation": False}, output_mappings={"generation": "b"}
    )
    with ending(provider):
        dataset = collect(generated(10).map(after))

    assert len(provider.batches) == 1
    assert online(provider) == 10
    assert all(row["b"] for row in dataset)


# Quotas, remainders, interruptions


def test_jobs_wait_for_room_in_the_providers_queue(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = generation(llm_options={"batch_token_quota": 400})
    begin, status, beside = BatchStore.begin, OpenAILLM.job_status, list[int]()

    def begin_counted(self: BatchStore, *given: Any, **options: Any) -> Batch:
        beside.append(sum(batch.status not in ENDED for batch in self.batches.values()))
        return begin(self, *given, **options)

    async def ends_when_looked_at(self: OpenAILLM, job_id: str) -> JobStatus:
        """A run looks at its jobs when it has submitted all that it may."""
        while (job := next(each for each in provider.batches if each["id"] == job_id))["status"] == "validating":
            await asyncio.sleep(0.005)
        if job["status"] == "in_progress":
            provider.end_batch(job_id)
        return await status(self, job_id)

    monkeypatch.setattr(BatchStore, "begin", begin_counted)
    monkeypatch.setattr(OpenAILLM, "job_status", ends_when_looked_at)
    dataset = collect(generated(40, task=task))

    assert len(provider.batches) > 3
    assert beside == [0] * len(provider.batches)
    assert sum(job["request_counts"]["total"] for job in provider.batches) == 40
    assert all(map(is_right, dataset))


def test_a_quota_that_nobody_told_of_is_learned_from_the_provider(provider: LocalProvider, storage: Path) -> None:
    provider.set(batch_token_quota=500)
    with ending(provider):
        dataset = collect(generated(40))

    (refused,) = (place for place, job in enumerate(provider.batches) if job["status"] == "failed")
    with pytest.raises(HTTPError, match="404"):
        asked(provider, refused)
    assert sum(job["request_counts"]["total"] for job in provider.batches) == 40
    assert all(map(is_right, dataset))


def test_a_small_remainder_is_finished_online(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"action": "expire", "done_fraction": 0.9}):
        dataset = collect(generated(), finish_online_below=5)

    assert len(provider.batches) == 1
    assert online(provider) == 2
    assert all(map(is_right, dataset))


def test_a_job_that_was_created_but_not_noted_is_found_again(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    _forget_the_job(storage)

    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_an_intent_that_became_no_job_is_forgotten_after_a_while(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    _forget_the_job(storage)
    provider.reset()
    provider.set(batch_manual=True, answers=EVERY)

    monkeypatch.setattr("flows.engine.batching.INTENT_SECONDS", 0.3)
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def _forget_the_job(storage: Path) -> None:
    """As if the run had been interrupted before it noted the job that was created."""
    jobs = Jobs(Storage(str(storage)))
    (record,) = jobs.all_open()
    jobs.write(replace(record, job="", status="submitting"))


class Left(Exception):
    """The run was interrupted where it waits."""


def _leave_after(provider: LocalProvider, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until its jobs are submitted and no further."""

    async def leave(*_: Any) -> None:
        raise Left

    with monkeypatch.context() as patch, pytest.raises(Left):
        patch.setattr("flows.authoring.saving.wait_for", leave)
        work()
    assert provider.batches


def test_another_run_with_the_same_requests_waits_for_the_jobs_of_the_first(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_a_create_that_seemed_to_fail_is_looked_up_before_it_is_tried_again(
    provider: LocalProvider, storage: Path
) -> None:
    provider.set(faults=[{"path": "/batches", "times": 1, "status": 503}])
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_the_records_of_a_run_that_is_over_say_how_its_jobs_ended(provider: LocalProvider, storage: Path) -> None:
    with ending(provider, {"action": "expire", "done_fraction": 0.5}):
        collect(generated())

    jobs = Jobs(Storage(str(storage)))
    (run,) = {path.parent.name for path in (storage / "jobs" / "ended").glob("*/*.json")}
    ended = sorted(jobs.ended_of(run), key=lambda record: record.intended)
    assert jobs.all_open() == []
    assert [(record.status, record.answered, record.requests) for record in ended] == [
        ("expired", 10, 20),
        ("completed", 10, 10),
    ]


def test_a_provider_that_is_away_for_a_while_doesnt_fail_a_run_that_waits(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    task = generation(llm_options={"max_retries": 0})
    provider.set(up=False)
    back = threading.Timer(0.5, lambda: provider.set(up=True))
    back.start()
    with ending(provider):
        dataset = collect(generated(task=task))

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_a_job_that_the_provider_lost_is_said_once_and_submitted_again_by_a_retry(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    provider.reset()
    provider.set(batch_manual=True, answers=EVERY)

    with pytest.raises(JobGoneError, match="doesn't have batch job 'batch_.* retry the run"):
        collect(generated())
    assert provider.batches == []
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 1
    assert all(map(is_right, dataset))


def test_another_runs_lost_job_is_no_hindrance(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    provider.reset()
    provider.set(batch_manual=True, answers=EVERY)

    with ending(provider):
        dataset = collect(load(prompts(8, start=100), shard_rows=4).map(generation()))

    assert all(map(is_right, dataset))


def test_results_that_the_provider_deleted_are_said_once_and_asked_again_by_a_retry(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_after(provider, lambda: collect(generated()), monkeypatch)
    provider.end_batch(provider.batches[0]["id"])
    results = f"{provider.base_url}/files/{provider.batches[0]['output_file_id']}"
    urllib.request.urlopen(urllib.request.Request(results, method="DELETE")).close()
    # As if the minutes had passed in which a file may still come.
    monkeypatch.setattr("llms.batch.SECONDS_FOR_RESULTS", 0.0)

    with pytest.raises(JobGoneError, match="or its results"):
        collect(generated())
    with ending(provider):
        dataset = collect(generated())

    assert len(provider.batches) == 2
    assert all(map(is_right, dataset))


def test_a_job_keeps_the_limits_of_the_server_that_it_goes_to(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = BatchDialect(limits=BatchLimits(requests=8, size=10**9), several_answers=False)
    monkeypatch.setattr(OpenAILLM, "batch_dialect", lambda self: dialect)
    task = generation(num_generations=2, group_generations=True)
    with ending(provider):
        dataset = collect(generated(10, task=task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [8, 8, 4]
    assert all(len(row["generation"]) == 2 for row in dataset)


def test_another_kind_of_batch_api_goes_through_the_same_life(provider: LocalProvider, storage: Path) -> None:
    llm = AnthropicLLM(
        model="claude-sonnet-4-5",
        base_url=provider.anthropic_url,
        api_key=SecretStr("local"),
        use_offline_batch_generation=True,
    )
    task = TextGeneration(name="claude", llm=llm, num_generations=2, group_generations=True)
    orders = ({"action": "expire", "done_fraction": 0.5, "shuffle": True}, {"bad": [0], "status": 529}, {})
    with ending(provider, *orders):
        dataset = collect(load(prompts(10), shard_rows=4).map(task))

    assert [sum(job["request_counts"].values()) for job in provider.batches] == [20, 10, 1]
    assert [row["generation"] for row in dataset] == [[f"All about {number}."] * 2 for number in range(10)]


def test_a_provider_that_is_away_between_two_steps_doesnt_fail_a_run_that_it_took_jobs_of(
    provider: LocalProvider, storage: Path
) -> None:
    second = generation("second", output_mappings={"generation": "more"}, llm_options={"max_retries": 0})
    provider.set(faults=[{"path": "/files", "after": 2, "times": 3, "status": 503}])
    with ending(provider):
        dataset = collect(generated(10).map(second))

    assert [job["metadata"]["step"] for job in provider.batches] == ["text_generation", "second"]
    assert all(row["more"] for row in dataset)


def test_a_provider_that_is_away_from_the_start_fails_the_run_at_once(provider: LocalProvider, storage: Path) -> None:
    provider.set(up=False)

    with pytest.raises(OverloadedError):
        collect(generated(10, task=generation(llm_options={"max_retries": 0})))
