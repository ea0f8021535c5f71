"""Offline batches against a server on a real socket: the life cycle from submission to outputs."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llms import AuthenticationError, LLMError, OfflineBatchGenerationNotFinishedError, OpenAILLM
from llms.batch import BatchRequest, request_keys
from llms.local_provider import LocalProvider
from llms.openai import CHAT, jobs_of

CAPITAL: Any = [{"role": "user", "content": "What's the capital of Spain?"}]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    with LocalProvider(batch_manual=True) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "local")
        monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
        yield running


def batch_llm(**fields: Any) -> OpenAILLM:
    llm = OpenAILLM(**{"model": "gpt-4o", "use_offline_batch_generation": True, **fields})
    llm.load()
    return llm


def submitted(llm: OpenAILLM, inputs: list[Any], **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        llm.generate_outputs(inputs=inputs, **kwargs)
    return raised.value.jobs_ids


def lines_of(provider: LocalProvider, batch: int = 0) -> list[Any]:
    """The lines that the provider got as the input of a batch."""
    file_id = provider.batches[batch]["input_file_id"]
    with urllib.request.urlopen(f"{provider.base_url}/files/{file_id}/content") as answer:
        return [json.loads(line) for line in answer.read().splitlines()]


def numbered(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"number {number}"}] for number in range(count)]


ECHO = {r"number (?P<which>\d+)": "answer {which}"}


# The life cycle


def test_the_programs_of_the_seed_run_as_they_stand(provider: LocalProvider) -> None:
    provider.set(answers={"Spain": "The capital of Spain is Madrid."})

    llm = OpenAILLM(
        model="gpt-4o",
        use_offline_batch_generation=True,
    )

    llm.load()

    assert llm.jobs_ids is None

    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        llm.generate_outputs(
            inputs=[
                [{"role": "user", "content": "What's the capital of Spain?"}],
            ],
        )

    assert llm.jobs_ids is not None
    assert llm.jobs_ids == raised.value.jobs_ids == (provider.batches[0]["id"],)
    assert str(raised.value) == f"Batch generation with jobs_ids={llm.jobs_ids!r} is not finished"

    with pytest.raises(OfflineBatchGenerationNotFinishedError):
        llm.generate_outputs(inputs=[[{"role": "user", "content": "What's the capital of Spain?"}]])

    provider.end_batch(llm.jobs_ids[0])
    (output,) = llm.generate_outputs(inputs=[[{"role": "user", "content": "What's the capital of Spain?"}]])

    assert output["generations"] == ["The capital of Spain is Madrid."]
    assert output["statistics"]["input_tokens"][0] > 0
    assert len(provider.batches) == 1
    assert provider.stats.count("/chat/completions") == 0


def test_block_until_done_polls_in_the_call(provider: LocalProvider) -> None:
    provider.set(batch_manual=False, batch_seconds=0.3)

    llm = OpenAILLM(
        model="gpt-4o",
        use_offline_batch_generation=True,
        offline_batch_generation_block_until_done=1,  # poll for results every second
    )
    llm.load()
    started = time.monotonic()
    (output,) = llm.generate_outputs(inputs=[CAPITAL])

    assert output["generations"][0]
    assert 0.3 < time.monotonic() - started < 2.5


def test_after_the_outputs_a_call_submits_anew(provider: LocalProvider) -> None:
    llm = batch_llm()
    first = submitted(llm, [CAPITAL])
    provider.end_batch(first[0])
    llm.generate_outputs(inputs=[CAPITAL])

    assert llm.jobs_ids is None
    assert submitted(llm, [CAPITAL]) != first


def test_another_process_collects_by_the_ids_of_the_jobs(provider: LocalProvider) -> None:
    jobs = submitted(batch_llm(), [CAPITAL])
    provider.end_batch(jobs[0])

    (output,) = batch_llm(jobs_ids=jobs).generate_outputs(inputs=[CAPITAL])

    assert output["generations"][0]


def test_answers_to_other_inputs_are_never_given(provider: LocalProvider) -> None:
    llm = batch_llm()
    provider.end_batch(submitted(llm, [CAPITAL])[0])

    with pytest.raises(LLMError, match="answer other inputs than those given"):
        llm.generate_outputs(inputs=numbered(1))


def test_no_inputs_make_no_job(provider: LocalProvider) -> None:
    assert batch_llm().generate_outputs(inputs=[]) == []
    assert provider.batches == []


def test_a_wrong_key_is_told_at_submission(provider: LocalProvider) -> None:
    provider.set(api_key="right")

    with pytest.raises(AuthenticationError):
        batch_llm().generate_outputs(inputs=[CAPITAL])


# Requests


class City(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("prompt", "kwargs", "fields"),
    [
        (CAPITAL, {"temperature": "0.3", "max_new_tokens": 20, "seed": 7}, {}),
        (CAPITAL, {}, {"structured_output": City, "model": "gpt-5"}),
        (CAPITAL, {"max_new_tokens": 9}, {"model": "o3"}),
        ((CAPITAL, City), {"logprobs": True}, {}),
        ("Once upon", {"max_new_tokens": 5, "extra_body": {"top_k": 3}}, {}),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_sends_the_body_that_is_sent_online(
    provider: LocalProvider, prompt: Any, kwargs: dict[str, Any], fields: dict[str, Any], n: int
) -> None:
    submitted(batch_llm(**fields), [prompt], num_generations=n, **kwargs)
    online = batch_llm(**fields, use_offline_batch_generation=False)
    online.generate_outputs(inputs=[prompt], num_generations=n, **kwargs)

    (line,) = lines_of(provider)
    request = provider.requests[-2]
    assert line["body"] == request.body
    assert line["url"] == f"/v1{request.path}"
    assert line["method"] == "POST"


def test_structured_output_and_several_generations_come_back_from_a_batch(provider: LocalProvider) -> None:
    llm = batch_llm(structured_output=City)
    provider.end_batch(submitted(llm, [CAPITAL], num_generations=3)[0])

    (output,) = llm.generate_outputs(inputs=[CAPITAL], num_generations=3)

    assert len([City.model_validate_json(text or "") for text in output["generations"]]) == 3
    assert len(output["statistics"]["output_tokens"]) == 3


def test_chats_and_bare_prompts_go_into_jobs_of_their_own(provider: LocalProvider) -> None:
    llm = batch_llm()
    jobs = submitted(llm, [CAPITAL, "Once upon", CAPITAL])
    for job in jobs:
        provider.end_batch(job)

    assert [batch["endpoint"] for batch in provider.batches] == ["/v1/chat/completions", "/v1/completions"]
    outputs = llm.generate_outputs(inputs=[CAPITAL, "Once upon", CAPITAL])
    assert all(output["generations"][0] for output in outputs)


def test_equal_inputs_are_requests_of_their_own(provider: LocalProvider) -> None:
    llm = batch_llm()
    provider.end_batch(submitted(llm, [CAPITAL, CAPITAL])[0])

    assert len({line["custom_id"] for line in lines_of(provider)}) == 2
    assert all(output["generations"][0] for output in llm.generate_outputs(inputs=[CAPITAL, CAPITAL]))


@given(st.lists(st.sampled_from(["a", "b", "c"])))
def test_keys_differ_and_stay_the_same_when_inputs_are_added(contents: list[str]) -> None:
    keys = request_keys(contents)

    assert len(set(keys)) == len(contents)
    assert request_keys([*contents, "d", "a"])[: len(keys)] == keys


@given(st.lists(st.integers(1, 60), max_size=40))
def test_jobs_keep_the_limits_of_size_and_number_and_lose_nothing(sizes: list[int]) -> None:
    requests = [BatchRequest(str(number), CHAT, {"x": "y" * size}) for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llms.openai.MOST_REQUESTS_PER_JOB", 7)
        patch.setattr("llms.openai.MOST_BYTES_PER_JOB", 500)
        jobs = jobs_of(requests)

    assert [json.loads(line)["custom_id"] for _, lines in jobs for line in lines] == [
        each.custom_id for each in requests
    ]
    assert all(0 < len(lines) <= 7 and sum(len(line) + 1 for line in lines) <= 500 for _, lines in jobs)


def test_more_requests_than_a_job_takes_become_several_jobs(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.openai.MOST_REQUESTS_PER_JOB", 4)
    provider.set(answers=ECHO, batch_max_requests=4)
    llm = batch_llm()
    jobs = submitted(llm, numbered(10))
    for job in reversed(jobs):
        provider.end_batch(job, shuffle=True)

    assert len(jobs) == 3
    outputs = llm.generate_outputs(inputs=numbered(10))
    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(10)]


def test_where_one_of_several_jobs_cant_be_made_none_stays(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.openai.MOST_REQUESTS_PER_JOB", 4)
    provider.set(faults=[{"path": "/batches", "after": 1, "times": 1, "status": 500}])
    llm = batch_llm()

    with pytest.raises(LLMError):
        llm.generate_outputs(inputs=numbered(8))

    assert llm.jobs_ids is None
    assert [batch["status"] for batch in provider.batches] in (["cancelling"], ["cancelled"])


# Results


def test_answers_are_joined_by_key_when_they_come_in_another_order(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    provider.end_batch(submitted(llm, numbered(40))[0], shuffle=True)

    outputs = llm.generate_outputs(inputs=numbered(40))

    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(40)]


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (500, None, "OverloadedError", True),
        (429, "rate_limit_exceeded", "RateLimitError", True),
        (400, None, "BadRequestError", False),
        (400, "context_length_exceeded", "ContextLengthError", False),
    ],
)
def test_a_row_of_the_error_file_fails_alone(
    provider: LocalProvider, status: int, code: str | None, kind: str, retryable: bool
) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    jobs = submitted(llm, numbered(4), num_generations=2)
    provider.end_batch(jobs[0], bad=[1], status=status, code=code, message="went wrong", shuffle=True)

    outputs = llm.generate_outputs(inputs=numbered(4), num_generations=2)

    assert outputs[1]["generations"] == [None, None]
    assert outputs[1]["error"]["type"] == kind
    assert "went wrong" in outputs[1]["error"]["message"]
    assert outputs[1]["error"]["retryable"] is retryable
    assert [outputs[number]["generations"][0] for number in (0, 2, 3)] == ["answer 0", "answer 2", "answer 3"]


@pytest.mark.parametrize("action", ["expire", "cancel"])
def test_a_job_that_ends_early_gives_what_it_has_and_tells_what_it_has_not(
    provider: LocalProvider, action: Any
) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    provider.end_batch(submitted(llm, numbered(6))[0], action, done_fraction=0.5)

    outputs = llm.generate_outputs(inputs=numbered(6))

    assert [output["generations"][0] for output in outputs[:3]] == ["answer 0", "answer 1", "answer 2"]
    assert [output["generations"] for output in outputs[3:]] == [[None]] * 3
    assert {output["error"]["type"] for output in outputs[3:]} == {"ExpiredError"}
    assert all(output["error"]["retryable"] for output in outputs[3:])


def test_a_failed_job_is_told_with_the_providers_reason(provider: LocalProvider) -> None:
    provider.set(batch_token_quota=1)
    llm = batch_llm()

    with pytest.raises(LLMError, match=r"batch job 'batch_\w+' failed: Enqueued token limit reached"):
        while True:
            with contextlib.suppress(OfflineBatchGenerationNotFinishedError):
                llm.generate_outputs(inputs=[CAPITAL])
    assert llm.jobs_ids is None


def test_rows_of_a_failed_job_say_why_beside_those_of_a_finished_one(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.openai.MOST_REQUESTS_PER_JOB", 2)
    llm = batch_llm()
    first, second = submitted(llm, numbered(4))
    provider.end_batch(first)
    provider.end_batch(second, "fail", message="no capacity today")

    outputs = llm.generate_outputs(inputs=numbered(4))

    assert all(output["generations"][0] for output in outputs[:2])
    assert all("no capacity today" in output["error"]["message"] for output in outputs[2:])


def test_looking_at_a_job_survives_failures_that_pass(provider: LocalProvider) -> None:
    llm = batch_llm()
    (job,) = submitted(llm, [CAPITAL])
    provider.end_batch(job)
    provider.set(
        faults=[
            {"path": f"/batches/{job}", "times": 2, "status": 503},
            {"path": "/files", "times": 1, "disconnect": True},
        ]
    )

    assert llm.generate_outputs(inputs=[CAPITAL])[0]["generations"][0]


def test_a_cancelled_job_stops_at_the_provider(provider: LocalProvider) -> None:
    from llms.loop import run_sync

    llm = batch_llm()
    (job,) = submitted(llm, [CAPITAL])
    run_sync(llm.cancel_job(job))

    assert provider.batches[0]["status"] in {"cancelling", "cancelled"}
