"""Batch APIs made after OpenAI's: each by what it does differently, against a server on a real socket."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from llms import OpenAILLM
from llms.batch import MARK, BatchResult, JobStatus
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from llms.providers.batch_dialects import ANY, GROQ, NEBIUS, OPENAI, TOGETHER, ZAI, BatchDialect, dialect_of
from llms.providers.openai import seconds_of

BY_NAME = {"openai": OPENAI, "groq": GROQ, "together": TOGETHER}


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(batch_manual=True, answers={r"number (?P<which>\d+)": "answer {which}"}) as running:
        yield running


@pytest.fixture(params=["openai", "groq", "together"])
def dialect(request: pytest.FixtureRequest, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> str:
    return speaks(request.param, provider, monkeypatch)


def speaks(name: str, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> str:
    provider.set(batch_dialect=name)
    monkeypatch.setattr("llms.providers.openai.dialect_of", lambda url: BY_NAME[name])
    return name


def llm_at(provider: LocalProvider, **fields: Any) -> OpenAILLM:
    return OpenAILLM(model="m", base_url=provider.base_url, use_offline_batch_generation=True, **fields)


def submitted(llm: OpenAILLM, count: int, metadata: dict[str, str] | None = None) -> JobStatus:
    with llm.job_writer() as writer:
        for number in range(count):
            chat: Any = [{"role": "user", "content": f"number {number}"}]
            assert writer.add(llm.batch_request(str(number), chat, 1)) is None
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, metadata or {}))


def results_of(llm: OpenAILLM, job_id: str) -> dict[str, BatchResult]:
    async def read() -> list[BatchResult]:
        return [each async for each in llm.job_results(job_id)]

    return {each.custom_id: each for each in run_sync(read())}


def test_a_job_lives_from_its_upload_to_its_deletion(provider: LocalProvider, dialect: str) -> None:
    llm = llm_at(provider)
    job = submitted(llm, 4, {MARK: "mine"})
    assert (job.state, job.status) == ("waiting", "validating")
    assert abs(job.created - time.time()) < 60

    provider.end_batch(job.id, bad=[1], status=429, message="slow down")
    status = run_sync(llm.job_status(job.id))
    results = results_of(llm, job.id)

    assert (status.state, status.status) == ("ended", "completed")
    assert {key: type(each.outcome).__name__ for key, each in results.items()} == {
        "0": "dict",
        "1": "RateLimitError",
        "2": "dict",
        "3": "dict",
    }
    assert results["2"].outcome["generations"] == ["answer 2"]  # pyright: ignore[reportIndexIssue]
    assert str(results["1"].outcome) == "slow down"
    run_sync(llm.delete_job(job.id))
    assert files_of(provider) == []


def test_a_job_without_errors_has_no_error_file(provider: LocalProvider, dialect: str) -> None:
    llm = llm_at(provider)
    job = submitted(llm, 2)
    provider.end_batch(job.id)

    assert set(results_of(llm, job.id)) == {"0", "1"}


def test_what_expired_is_told_as_such(provider: LocalProvider, dialect: str) -> None:
    llm = llm_at(provider)
    job = submitted(llm, 4)
    provider.end_batch(job.id, "expire", done_fraction=0.5)

    kinds = [type(each.outcome).__name__ for _, each in sorted(results_of(llm, job.id).items())]

    assert run_sync(llm.job_status(job.id)).state == "ended"
    assert kinds == ["dict", "dict", "ExpiredError", "ExpiredError"]


def test_a_job_is_found_by_its_mark_and_no_other_one(provider: LocalProvider, dialect: str) -> None:
    llm = llm_at(provider)
    began = time.time() - 60
    jobs = {mark: submitted(llm, 1, {MARK: mark}).id for mark in ("a", "b", "c")}

    for mark, job_id in jobs.items():
        found = run_sync(llm.find_job(mark, began, {}))
        assert found is not None
        assert found.id == job_id
    assert run_sync(llm.find_job("d", began, {})) is None


def test_a_job_whose_metadata_a_server_drops_is_found_by_the_name_of_its_file(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.set(batch_dialect="openai")
    # As a server does that doesn't know the field.
    monkeypatch.setattr("llms.providers.openai.dialect_of", lambda url: BatchDialect(takes_metadata=False))
    llm = llm_at(provider)
    job = submitted(llm, 1, {MARK: "mine"})
    monkeypatch.setattr("llms.providers.openai.dialect_of", lambda url: ANY)

    found = run_sync(llm.find_job("mine", job.created - 60, {}))

    assert found is not None
    assert found.id == job.id


def test_where_jobs_may_come_in_any_order_one_is_found_behind_older_ones(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ids are listed as the provider pleases; these are the oldest first.
    jobs = [
        {"id": "old", "status": "completed", "created_at": 1_000},
        {"id": "new", "status": "in_progress", "created_at": 2_000, "metadata": {MARK: "mine"}},
    ]
    pages = iter([{"data": jobs[:1], "has_more": True}, {"data": jobs[1:], "has_more": False}])

    async def page(self: OpenAILLM, path: str, **query: object) -> Any:
        return next(pages)

    monkeypatch.setattr(OpenAILLM, "_get", page)

    found = run_sync(llm_at(provider).find_job("mine", 1_500, {}))

    assert found is not None
    assert found.id == "new"


def test_groq_gets_a_request_for_each_generation(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks("groq", provider, monkeypatch)
    provider.set(batch_manual=False, batch_seconds=0)
    llm = llm_at(provider, offline_batch_generation_block_until_done=1)
    chats: Any = [[{"role": "user", "content": f"number {number}"}] for number in range(2)]

    outputs = llm.generate_outputs(inputs=chats, num_generations=3)

    assert [output["generations"] for output in outputs] == [["answer 0"] * 3, ["answer 1"] * 3]
    assert provider.batches[0]["request_counts"] == {"total": 6, "completed": 6, "failed": 0}


def test_together_gets_short_lines_and_no_metadata(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks("together", provider, monkeypatch)
    submitted(llm_at(provider), 1, {MARK: "mine"})

    (file,) = files_of(provider)
    with urllib.request.urlopen(f"{provider.base_url}/files/{file['id']}/content") as answer:
        assert set(json.loads(answer.read())) == {"custom_id", "body"}
    assert (file["filename"], file["purpose"]) == (f"{MARK}-mine.jsonl", "batch-api")
    created = next(each.body for each in provider.requests if (each.method, each.path) == ("POST", "/batches"))
    assert set(created) == {"input_file_id", "endpoint", "completion_window"}


def test_together_says_why_a_job_failed(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks("together", provider, monkeypatch)
    llm = llm_at(provider)
    job = submitted(llm, 1)
    provider.end_batch(job.id, "fail", message="no such model for batches")

    status = run_sync(llm.job_status(job.id))

    assert status.state == "failed"
    assert "no such model for batches" in status.message
    assert status.error is not None


def test_where_requests_are_not_counted_the_share_that_is_done_is_told(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks("together", provider, monkeypatch)
    llm = llm_at(provider)

    assert run_sync(llm.job_status(submitted(llm, 1).id)).message == "0 % done"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://eu.api.openai.com/v1", OPENAI),
        ("https://api.groq.com/openai/v1", GROQ),
        ("https://api.together.xyz/v1", TOGETHER),
        ("https://api.together.ai/v1", TOGETHER),
        ("https://api.z.ai/api/paas/v4", ZAI),
        ("https://api.studio.nebius.ai/v1", NEBIUS),
        ("https://api.tokenfactory.nebius.com/v1", NEBIUS),
        ("https://notopenai.com/v1", ANY),
        ("https://openai.com.example.org/v1", ANY),
        ("http://127.0.0.1:8000/v1", ANY),
        ("", ANY),
    ],
)
def test_a_dialect_is_found_by_the_host(url: str, expected: BatchDialect) -> None:
    assert dialect_of(url) is expected


def test_a_file_is_as_large_as_the_provider_takes_it() -> None:
    llm = OpenAILLM(model="m", base_url="https://api.groq.com/openai/v1")
    chat: Any = [{"role": "user", "content": "x" * 40_000_000}]
    with llm.job_writer() as writer:
        full = [writer.add(llm.batch_request(str(number), chat, 1)) for number in range(3)]

        assert [file is not None for file in full] == [False, False, True]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (1_722_476_583, 1_722_476_583.0),
        (12.5, 12.5),
        ("2024-01-15T14:30:00Z", 1_705_329_000.0),
        ("2024-01-15T14:30:00.123456789Z", 1_705_329_000.123456),
        ("2024-01-15T15:30:00+01:00", 1_705_329_000.0),
        ("2024-01-15T14:30:00", 1_705_329_000.0),
        ("yesterday", 0.0),
        (None, 0.0),
        ("", 0.0),
    ],
)
def test_times_are_read_as_numbers_and_as_texts(time: object, seconds: float) -> None:
    assert seconds_of(time) == pytest.approx(seconds)


def files_of(provider: LocalProvider) -> list[Any]:
    with urllib.request.urlopen(f"{provider.base_url}/files") as answer:
        return json.loads(answer.read())["data"]
