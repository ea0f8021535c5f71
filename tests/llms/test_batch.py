"""Offline batches against a server on a real socket: the life cycle from submission to outputs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llms import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ExpiredError,
    GenerateOutput,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OfflineBatchGenerationNotFinishedError,
    OpenAILLM,
    OverloadedError,
    RateLimitError,
    RequestTimeoutError,
)
from llms.batch import (
    MARK,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobStatus,
    JobWriter,
    mark_of,
    request_keys,
    split_custom_id,
)
from llms.errors import QueueFullError
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from llms.providers.batch_dialects import OPENAI
from llms.providers.openai import CHAT, result_from
from tests.conftest import LONGEST, ROOT, wait_for

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


def test_block_until_done_polls_in_the_call(provider: LocalProvider, waits: list[float]) -> None:
    def end() -> None:
        wait_for(lambda: waits, what="the first wait for the job")
        provider.end_batch(provider.batches[0]["id"])

    llm = OpenAILLM(
        model="gpt-4o",
        use_offline_batch_generation=True,
        offline_batch_generation_block_until_done=1,  # poll for results every second
    )
    llm.load()
    ending = threading.Thread(target=end)
    ending.start()
    (output,) = llm.generate_outputs(inputs=[CAPITAL])
    ending.join()

    assert output["generations"][0]
    assert set(waits) == {1}


def test_all_later_calls_give_the_same_outputs_and_submit_nothing(provider: LocalProvider) -> None:
    llm = batch_llm()
    jobs = submitted(llm, [CAPITAL])
    provider.end_batch(jobs[0])

    first = llm.generate_outputs(inputs=[CAPITAL])

    assert [llm.generate_outputs(inputs=[CAPITAL]) for _ in range(3)] == [first] * 3
    assert llm.jobs_ids == jobs
    assert len(provider.batches) == 1


def test_a_notebooks_cell_that_is_run_again_pays_nothing(provider: LocalProvider) -> None:
    def cell() -> Any:
        llm = OpenAILLM(model="gpt-4o", use_offline_batch_generation=True)
        llm.load()
        return llm.generate_outputs(inputs=[CAPITAL])

    for _ in range(2):
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            cell()
    provider.end_batch(provider.batches[0]["id"])

    assert cell() == cell()
    assert len(provider.batches) == 1


def test_other_inputs_get_jobs_of_their_own_and_those_of_the_first_are_kept(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    first = submitted(llm, numbered(2))
    second = submitted(llm, numbered(4)[2:])

    assert second != first
    assert llm.jobs_ids == second
    assert submitted(llm, numbered(2)) == first
    for (job,) in (first, second):
        provider.end_batch(job)
    texts = [llm.generate_outputs(inputs=inputs) for inputs in (numbered(2), numbered(4)[2:])]
    assert [[each["generations"] for each in some] for some in texts] == [
        [["answer 0"], ["answer 1"]],
        [["answer 2"], ["answer 3"]],
    ]
    assert len(provider.batches) == 2


def test_of_inputs_that_are_submitted_in_part_only_the_others_are(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    first = submitted(llm, numbered(3))
    both = submitted(llm, numbered(5)[::-1])

    assert set(both) > set(first)
    assert len(lines_of(provider, 0)) == 3
    assert len(lines_of(provider, 1)) == 2
    for job in both:
        provider.end_batch(job)
    outputs = llm.generate_outputs(inputs=numbered(5)[::-1])
    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in (4, 3, 2, 1, 0)]


def test_the_same_inputs_with_other_parameters_are_other_requests(provider: LocalProvider) -> None:
    llm = batch_llm()
    jobs = [submitted(llm, [CAPITAL], **kwargs) for kwargs in ({}, {"temperature": 0.3}, {"num_generations": 2}, {})]

    assert len(set(jobs)) == 3
    assert jobs[3] == jobs[0]


def test_jobs_ids_set_to_none_make_the_next_call_submit_anew(provider: LocalProvider) -> None:
    llm = batch_llm()
    first = submitted(llm, [CAPITAL])
    provider.end_batch(first[0])
    llm.generate_outputs(inputs=[CAPITAL])

    llm.jobs_ids = None
    second = submitted(llm, [CAPITAL])

    assert second != first
    assert submitted(llm, [CAPITAL]) == second
    assert len(provider.batches) == 2


def test_jobs_of_another_process_answer_their_inputs_and_other_inputs_get_their_own(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    jobs = submitted(batch_llm(api_key="of-the-other-process"), numbered(1))
    provider.end_batch(jobs[0])
    llm = batch_llm(jobs_ids=jobs)

    texts = [llm.generate_outputs(inputs=numbered(1)) for _ in range(2)]
    other = submitted(llm, numbered(2)[1:])

    assert [output["generations"] for (output,) in texts] == [["answer 0"]] * 2
    assert other != jobs
    assert llm.generate_outputs(inputs=numbered(1)) == texts[0]
    assert len(provider.batches) == 2


INTERRUPTED = """
import signal, threading, sys
from llms import OfflineBatchGenerationNotFinishedError, OpenAILLM

CHAT = [{"role": "user", "content": "What's the capital of Spain?"}]

def cell():
    llm = OpenAILLM(model="gpt-4o", use_offline_batch_generation=True)
    return llm.generate_outputs(inputs=[CHAT])

print("calls", flush=True)
try:
    cell()
except KeyboardInterrupt:
    print("interrupted", flush=True)
try:
    cell()
except OfflineBatchGenerationNotFinishedError as error:
    print(*error.jobs_ids, flush=True)
"""


def test_a_cell_that_is_interrupted_while_its_job_is_created_and_run_again_pays_once(provider: LocalProvider) -> None:
    provider.set(faults=[{"path": "/batches", "times": 1, "hang": 15}])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(
        program,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        wait_for(lambda: provider.stats.count("/files"), what="the file of a job")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=LONGEST)

    assert said.splitlines() == ["calls", "interrupted", provider.batches[0]["id"]]
    assert len(provider.batches) == 1


def test_another_process_collects_by_the_ids_of_the_jobs(provider: LocalProvider) -> None:
    jobs = submitted(batch_llm(), [CAPITAL])
    provider.end_batch(jobs[0])

    (output,) = batch_llm(jobs_ids=jobs).generate_outputs(inputs=[CAPITAL])

    assert output["generations"][0]


def test_answers_to_other_inputs_are_never_given(provider: LocalProvider) -> None:
    (job,) = submitted(batch_llm(api_key="of-another-process"), [CAPITAL])
    provider.end_batch(job)

    with pytest.raises(LLMError, match="answer other inputs than those given"):
        batch_llm(jobs_ids=(job,)).generate_outputs(inputs=numbered(1))
    assert len(provider.batches) == 1


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
    llm = OpenAILLM(model="gpt-4o")
    with JobWriter(BatchLimits(requests=7, size=500), llm.batch_line) as writer:
        files = [file for file in map(writer.add, requests) if file is not None] + writer.rest()
        contents = [file.path.read_bytes() for file in files]

    keys = [each.custom_id for each in requests]
    names = [json.loads(line)["custom_id"] for content in contents for line in content.splitlines()]
    assert [split_custom_id(name)[0] for name in names] == keys
    assert {split_custom_id(name)[1] for name in names} == {mark_of(file.intent) for file in files}
    assert [key for file in files for key in file.custom_ids] == keys
    assert all(0 < content.count(b"\n") <= 7 and len(content) <= 500 for content in contents)


def test_more_requests_than_a_job_takes_become_several_jobs(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAILLM, "batch_limits", BatchLimits(requests=4, size=200_000_000))
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
    monkeypatch.setattr(OpenAILLM, "batch_limits", BatchLimits(requests=4, size=200_000_000))
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
    monkeypatch.setattr(OpenAILLM, "batch_limits", BatchLimits(requests=2, size=200_000_000))
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
    llm = batch_llm()
    (job,) = submitted(llm, [CAPITAL])
    run_sync(llm.cancel_job(job))

    assert provider.batches[0]["status"] in {"cancelling", "cancelled"}


# The adapter: OpenAI's jobs in the terms that hold for every provider


def job_of(llm: OpenAILLM, count: int = 1, metadata: dict[str, str] | None = None) -> JobStatus:
    with llm.job_writer() as writer:
        for number, chat in enumerate(numbered(count)):
            writer.add(llm.batch_request(f"key-{number}", chat, 1))
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, metadata or {}))


def results_of(llm: OpenAILLM, job_id: str) -> dict[str, GenerateOutput | LLMError]:
    async def read() -> list[BatchResult]:
        return [each async for each in llm.job_results(job_id)]

    return {each.custom_id: each.outcome for each in run_sync(read())}


def ended(llm: OpenAILLM, job_id: str) -> JobStatus:
    while True:
        status = run_sync(llm.job_status(job_id))
        if status.state != "waiting":
            return status
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("validating", "waiting"),
        ("in_progress", "waiting"),
        ("finalizing", "waiting"),
        ("cancelling", "waiting"),
        ("completed", "ended"),
        ("expired", "ended"),
        ("cancelled", "ended"),
        ("failed", "failed"),
        # As others write them.
        ("COMPLETED", "ended"),
        ("Completed", "ended"),
        ("canceled", "ended"),
        # Words that aren't known are waited for.
        ("PROGRESS", "waiting"),
        ("in_queue", "waiting"),
        ("resting", "waiting"),
    ],
)
def test_every_status_of_a_job_has_its_state(status: str, state: str) -> None:
    job = {"id": "batch_1", "status": status, "request_counts": {"total": 3, "completed": None, "failed": None}}

    read = OpenAILLM(model="m")._status_from(job)

    assert (read.state, read.status, read.total, read.answered) == (state, status.lower(), 3, 0)


def test_a_job_that_failed_after_some_answers_has_results() -> None:
    counts = {"total": 3, "completed": 2, "failed": 0}

    assert OpenAILLM(model="m")._status_from({"id": "b", "status": "failed", "request_counts": counts}).state == "ended"


def test_a_job_over_the_quota_of_tokens_may_be_submitted_again_and_tells_the_limit(provider: LocalProvider) -> None:
    provider.set(batch_token_quota=7)
    llm = batch_llm()

    status = ended(llm, job_of(llm).id)

    assert status.state == "failed"
    assert isinstance(status.error, QueueFullError)
    assert (status.error.limit, status.error.retryable, status.error.fatal) == (7, True, False)


def test_a_job_for_a_model_that_isnt_there_ends_the_run(provider: LocalProvider) -> None:
    provider.set(models=["another"])
    llm = batch_llm()
    job = job_of(llm)

    status = ended(llm, job.id)

    assert isinstance(status.error, ModelNotFoundError)
    assert status.error.fatal
    assert results_of(llm, job.id) == {}


def test_of_a_job_that_failed_for_some_lines_these_alone_are_refused(provider: LocalProvider, tmp_path: Path) -> None:
    llm = batch_llm()
    body = {"model": "gpt-4o", "messages": CAPITAL}
    without_model = {"messages": CAPITAL}
    requests = [
        BatchRequest("good", CHAT, body),
        BatchRequest("without-model", CHAT, without_model),
        BatchRequest("another-url", "/v1/embeddings", body),
        BatchRequest("good-too", CHAT, body),
    ]
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"\n".join(map(llm.batch_line, requests)))
    job = run_sync(llm.create_job(JobFile(path, CHAT), {}))

    status = ended(llm, job.id)
    results = results_of(llm, job.id)

    assert status.state == "failed"
    assert "(line 2)" in status.message
    assert {key: type(outcome).__name__ for key, outcome in results.items()} == {
        "without-model": "BadRequestError",
        "another-url": "BadRequestError",
    }
    assert "'model'" in str(results["without-model"])


def test_jobs_are_listed_newest_first_beyond_the_first_page(provider: LocalProvider) -> None:
    llm = batch_llm()
    first = job_of(llm)
    body = json.dumps(
        {
            "input_file_id": provider.batches[0]["input_file_id"],
            "endpoint": CHAT,
            "completion_window": "24h",
        }
    ).encode()
    request = urllib.request.Request(f"{provider.base_url}/batches", body, {"Content-Type": "application/json"})
    made = [first.id]
    for _ in range(204):
        with urllib.request.urlopen(request) as answer:
            made.append(json.loads(answer.read())["id"])

    async def listed() -> list[str]:
        return [job.id async for job in llm.list_jobs()]

    provider.clear()
    assert run_sync(listed()) == made[::-1]
    assert provider.stats.count("/batches") == 3


def test_a_job_is_found_by_the_mark_in_its_metadata(provider: LocalProvider) -> None:
    llm = batch_llm()
    job = job_of(llm, metadata={MARK: "mine", "step": "text_generation"})
    job_of(llm, metadata={MARK: "another"})

    found = run_sync(llm.find_job("mine", job.created - 60, {}))

    assert found is not None
    assert found.id == job.id
    assert found.metadata == {MARK: "mine", "step": "text_generation"}
    assert run_sync(llm.find_job("none", job.created - 60, {})) is None


def test_jobs_of_openai_from_before_the_time_given_arent_searched(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.providers.openai.dialect_of", lambda url: OPENAI)
    llm = batch_llm()
    job = job_of(llm, metadata={MARK: "mine"})
    job_of(llm)

    assert run_sync(llm.find_job("mine", job.created + 3600, {})) is None


def test_a_job_made_in_the_second_of_the_time_given_is_found(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.providers.openai.dialect_of", lambda url: OPENAI)
    llm = batch_llm()
    job = job_of(llm, metadata={MARK: "mine"})
    job_of(llm)

    assert run_sync(llm.find_job("mine", job.created + 0.9, {})) is not None


def test_deleting_a_job_removes_all_its_files_and_may_be_repeated(provider: LocalProvider) -> None:
    llm = batch_llm()
    job = job_of(llm, 4)
    provider.end_batch(job.id, bad=[1])
    names = ("input_file_id", "output_file_id", "error_file_id")
    files = [provider.batches[0][name] for name in names]
    assert all(files)

    # One of them is gone already.
    urllib.request.urlopen(urllib.request.Request(f"{provider.base_url}/files/{files[0]}", method="DELETE")).close()
    run_sync(llm.delete_job(job.id))
    run_sync(llm.delete_job(job.id))

    with urllib.request.urlopen(f"{provider.base_url}/files") as answer:
        assert json.loads(answer.read())["data"] == []


@pytest.mark.parametrize("action", ["expire", "cancel"])
def test_results_of_a_job_that_ended_early_are_in_both_files(provider: LocalProvider, action: Any) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    job = job_of(llm, 10)
    provider.end_batch(job.id, action, done_fraction=0.4)

    results = results_of(llm, job.id)

    answered = {key for key, outcome in results.items() if not isinstance(outcome, LLMError)}
    assert answered == {f"key-{number}" for number in range(4)}
    assert {type(results[f"key-{number}"]) for number in range(4, 10)} == {ExpiredError}


def test_the_file_of_a_job_that_was_refused_isnt_left_behind(provider: LocalProvider) -> None:
    provider.set(faults=[{"path": "/batches", "status": 400, "message": "no"}])

    with pytest.raises(BadRequestError):
        job_of(batch_llm())

    assert provider.stats.count("/files/{id}", 200) == 1


def test_the_file_stays_where_a_job_may_have_been_made(provider: LocalProvider) -> None:
    provider.set(faults=[{"path": "/batches", "disconnect": True}])

    with pytest.raises(InvalidResponseError):
        job_of(batch_llm())

    assert provider.stats.count("/files/{id}") == 0


def test_answers_may_hold_characters_that_end_lines_elsewhere(provider: LocalProvider) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x1csix\r\nseven"
    provider.set(answers={"": text})
    llm = batch_llm()
    job = job_of(llm, 3)
    provider.end_batch(job.id)

    assert [outcome["generations"] for outcome in results_of(llm, job.id).values()] == [[text]] * 3  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ({}, InvalidResponseError),
        ({"response": None, "error": None}, InvalidResponseError),
        ({"response": {"status_code": 200, "body": {}}, "error": None}, InvalidResponseError),
        ({"response": {"status_code": 200, "body": None}}, InvalidResponseError),
        ({"response": {"status_code": 200, "body": {"object": "chat.completion"}}}, InvalidResponseError),
        ({"response": {"status_code": 500, "body": "upstream failed"}}, OverloadedError),
        ({"response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}}, ContentFilterError),
        ({"response": {"status_code": 400, "body": '{"error": {"code": "content_filter"}}'}}, ContentFilterError),
        ({"response": None, "error": {"code": "batch_expired", "message": "late"}}, ExpiredError),
        ({"error": {"code": "timeout", "message": "Request timeout"}}, RequestTimeoutError),
        ({"error": {"code": 429, "message": "slow down"}}, RateLimitError),
        ({"error": {"code": "invalid_model", "message": "no"}}, LLMError),
        ({"error": "in words alone"}, LLMError),
        (
            {"response": {"status_code": 200, "body": {"object": "list", "data": [{"embedding": [None]}]}}},
            InvalidResponseError,
        ),
    ],
)
def test_a_line_without_an_answer_is_a_failure_of_its_row_alone(line: dict[str, Any], kind: type[LLMError]) -> None:
    result = result_from({"custom_id": "a", **line})

    assert result.custom_id == "a"
    assert type(result.outcome) is kind


def test_results_that_are_cut_off_can_be_asked_for_again() -> None:
    with CutsFiles() as url:
        llm = OpenAILLM(model="m", base_url=url)
        with pytest.raises(InvalidResponseError, match="was cut before the answer was there"):
            results_of(llm, "batch_1")


@pytest.mark.slow
def test_a_batch_of_50_000_requests_takes_less_than_300_mb() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.batch_memory"]

    taken = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)

    assert taken["results"] == 50_000
    assert taken["bytes"] > 190_000_000
    assert taken["read"] < 300


class CutsFiles:
    """A server that has one finished batch, and closes the connection within its results."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_file = self.path.endswith("/content")
                job = {"id": "batch_1", "status": "completed", "output_file_id": "file-1"}
                body = b'{"custom_id": "a", "resp' if is_file else json.dumps(job).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + 1000 * is_file))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
