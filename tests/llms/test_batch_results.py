"""Results of batches as providers may send them: whatever is wrong with one, the others are read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llms import (
    AnthropicLLM,
    BadRequestError,
    LLMError,
    ModelNotFoundError,
    OfflineBatchGenerationNotFinishedError,
    OpenAILLM,
    RateLimitError,
)
from llms.batch import RESULTS_WITH_MARKS, BatchResult, JobStatus, custom_id, lines_in, mark_of, split_custom_id
from llms.errors import (
    IncompleteResultsError,
    InvalidResponseError,
    OtherModelError,
    OverloadedError,
    QueueFullError,
    UndecidedJobError,
    failure_of,
)
from llms.loop import run_sync
from llms.model_names import is_other_model
from llms.providers import anthropic as anthropic_adapter
from llms.providers import openai as openai_adapter
from llms.providers.openai import limit_in, result_from
from llms.reading import json_in, seconds_to_wait
from llms.uploads import is_not_there, is_unknown_file
from tests.odd_provider import Job, Lines, OddProvider, chat, error_line, line

INTENT = "0123456789abcdef0123456789abcdef"

# The shapes of lines


def openai_line(body: Any, status: Any = 200, error: Any = None) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "q", "body": body}
    return {"id": "r", "custom_id": custom_id("k", INTENT), "response": response, "error": error}


def anthropic_line(result: Any) -> dict[str, Any]:
    return {"custom_id": custom_id("k", INTENT), "result": result}


LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]}]}
CHAT = chat({"model": "gpt-4o", "messages": [{"content": "q"}]})
WITH_LOGPROBS = {**CHAT, "choices": [{**CHAT["choices"][0], "logprobs": LOGPROBS}]}
COMPLETION = {**CHAT, "object": "text_completion", "choices": [{"index": 0, "text": "t", "finish_reason": "stop"}]}
VECTOR = {
    "object": "list",
    "model": "e",
    "data": [{"index": 0, "embedding": [0.5, 1.0]}],
    "usage": {"prompt_tokens": 1},
}
IMAGE = {"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}], "usage": {"input_tokens": 1, "output_tokens": 2}}
MESSAGE = {
    "id": "m",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "t"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 0},
}
TOOL = {**MESSAGE, "content": [{"type": "tool_use", "name": "a", "input": {"name": "x"}}], "stop_reason": "tool_use"}

OPENAI_LINES = [
    openai_line(CHAT),
    openai_line(WITH_LOGPROBS),
    openai_line({**CHAT, "choices": [*CHAT["choices"], {**CHAT["choices"][0], "index": 1}]}),
    openai_line(COMPLETION),
    openai_line(VECTOR),
    openai_line(IMAGE),
    openai_line({"error": {"message": "no", "type": "invalid_request_error", "code": "content_filter"}}, 400),
    openai_line(None, 429, {"error": {"message": "slow down", "code": 429}}),
    {"custom_id": custom_id("k", INTENT), "response": None, "error": {"code": "batch_expired", "message": "late"}},
]
ANTHROPIC_LINES = [
    anthropic_line({"type": "succeeded", "message": MESSAGE}),
    anthropic_line({"type": "succeeded", "message": TOOL}),
    anthropic_line({"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "no"}}}),
    anthropic_line({"type": "expired"}),
]
OPENAI_JOB = {
    "id": "batch_1",
    "status": "completed",
    "created_at": 1_700_000_000,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "output_file_id": "file-1",
    "error_file_id": "file-2",
    "metadata": {"stillflow": INTENT},
    "errors": {"object": "list", "data": [{"code": "x", "message": "m", "line": 3, "param": None}]},
    "progress": 12.5,
}
ANTHROPIC_JOB = {
    "id": "msgbatch_1",
    "processing_status": "ended",
    "created_at": "2026-01-01T00:00:00Z",
    "request_counts": {"processing": 0, "succeeded": 2, "errored": 1},
    "results_url": "x",
}

ODD: list[Any] = [
    *(None, True, False, 0, -1, 3, 2.5, 10**30, -(10**400), 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "text", "n/a", "429", '{"a": [1]}', "half \ud83d", "\x00", "a" * 3_000),
    *([], [None], [[]], [1, "a", {}], ["text"], {}, {"a": None}, {"message": 3, "code": []}, {"error": {"error": []}}),
]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that stands in a JSON value, itself last."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*(found for name, each in inner for found in places_in(each, (*path, name))), path]


def with_odd(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """The value with what stands at `path` replaced; left out, where `odd` is an ellipsis."""
    if not path:
        return {} if odd is ... else odd
    changed = deepcopy(value)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if odd is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = odd
    return changed


def odd_forms(values: list[Any]) -> st.SearchStrategy[Any]:
    """One of the values, with one or two things in it that have no business there."""

    @st.composite
    def odd(draw: st.DrawFn) -> Any:
        value = draw(st.sampled_from(values))
        for _ in range(draw(st.integers(1, 2))):
            value = with_odd(value, draw(st.sampled_from(places_in(value))), draw(st.sampled_from([..., *ODD])))
        return value

    return odd()


def is_sound(outcome: Any) -> bool:
    """Whether an outcome is a whole answer, or an error that can be kept."""
    if isinstance(outcome, LLMError):
        return bool(orjson.dumps(failure_of(outcome)))
    texts, counts = outcome["generations"], outcome["statistics"]
    assert all(text is None or isinstance(text, str) for text in texts)
    assert outcome.get("embeddings") or any(text is not None for text in texts)
    assert all(isinstance(count, int) and count >= 0 for each in counts.values() for count in each)
    for generation in outcome.get("logprobs") or []:
        assert all(isinstance(each["logprob"], float | int) for place in generation for each in place)
    return orjson.loads(orjson.dumps(outcome)) == outcome


@pytest.mark.parametrize(
    ("read", "lines"),
    [(openai_adapter.read_result, OPENAI_LINES), (anthropic_adapter.read_result, ANTHROPIC_LINES)],
    ids=["openai", "anthropic"],
)
def test_a_line_with_fields_of_odd_types_is_an_answer_or_an_error(
    read: Callable[..., BatchResult | None], lines: list[Any]
) -> None:
    @settings(max_examples=300)
    @given(odd_forms(lines))
    def holds(value: Any) -> None:
        result = read(json.dumps(value).encode(), "gpt-4o")
        assert result is None or (isinstance(result.custom_id, str) and is_sound(result.outcome))

    holds()
    for value in lines:
        result = read(json.dumps(value).encode())
        assert result is not None
        assert (result.custom_id, result.mark) == ("k", INTENT[:12])
        assert is_sound(result.outcome)


@settings(max_examples=150)
@given(odd_forms([OPENAI_JOB]))
def test_a_job_of_openais_with_fields_of_odd_types_is_a_job_or_none(value: Any) -> None:
    try:
        status = OpenAILLM(model="m")._status_from(value if isinstance(value, dict) else {})
    except InvalidResponseError:
        return
    assert_sound_status(status)


@settings(max_examples=150)
@given(odd_forms([ANTHROPIC_JOB]))
def test_a_job_of_anthropics_with_fields_of_odd_types_is_a_job_or_none(value: Any) -> None:
    try:
        status = anthropic_adapter.status_from(value if isinstance(value, dict) else {})
    except InvalidResponseError:
        return
    assert_sound_status(status)


def assert_sound_status(status: JobStatus) -> None:
    assert status.id
    assert status.state in {"waiting", "ended", "failed"}
    assert min(status.total, status.answered, status.refused, status.created) >= 0
    assert all(isinstance(each, str) for pair in status.metadata.items() for each in pair)
    assert isinstance(status.status, str)
    assert status.unknown <= (status.state == "waiting")


@pytest.mark.parametrize("status", [None, 7, [], {"a": 1}, "hibernating"])
def test_a_job_in_a_state_that_isnt_known_is_waited_for_and_that_is_told(status: Any) -> None:
    for read in (
        OpenAILLM(model="m")._status_from({**OPENAI_JOB, "status": status}),
        anthropic_adapter.status_from({**ANTHROPIC_JOB, "processing_status": status}),
    ):
        assert (read.state, read.unknown) == ("waiting", True)
        assert str(status) in read.status


# Lines that are no JSON


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b'{"a": "half \\ud83d"}', {"a": "half \ufffd"}),
        (b'{"a": "\\ud83d\\ude00 whole"}', {"a": "\U0001f600 whole"}),
        (b'{"a": NaN, "b": [Infinity, -Infinity]}', {"a": None, "b": [None, None]}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": 1e999, "b": NaN}', {"a": None, "b": None}),
    ],
)
def test_what_strict_json_doesnt_know_is_read_all_the_same(given: bytes, read: Any) -> None:
    assert json_in(given) == read
    assert orjson.loads(orjson.dumps(json_in(given))) == read


@pytest.mark.parametrize("given", [b"", b"{", b"nonsense", b"[" * 100_000, b'{"a": 1} more', b"9" * 10_000 + b"x"])
def test_what_is_no_json_at_all_is_told(given: bytes) -> None:
    with pytest.raises(ValueError):
        json_in(given)


@given(st.lists(st.binary(max_size=30)), st.integers(1, 7))
def test_lines_are_the_same_however_a_stream_is_cut(lines: list[bytes], size: int) -> None:
    whole = b"\n".join(lines)

    read = collected(whole, size)

    assert b"".join(read) == whole
    assert all(b"\n" not in each[:-1] for each in read)
    assert all(each.endswith(b"\n") for each in read[:-1])


def test_a_line_of_many_megabytes_is_read_in_one_go() -> None:
    # 32 MB in 64,000 pieces: whoever copied the line for each would copy 1 TB.
    whole = b"a" * 32_000_000 + b"\n" + b"b"

    assert [len(each) for each in collected(whole, 500)] == [32_000_001, 1]


def collected(whole: bytes, size: int) -> list[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    async def read() -> list[bytes]:
        return [each async for each in lines_in(chunks())]

    return asyncio.run(read())


# The name of a request


@given(st.from_regex(r"[a-z0-9][a-zA-Z0-9_-]{0,50}", fullmatch=True), st.uuids())
def test_a_custom_id_gives_back_its_key_and_the_mark_of_its_intent(key: str, intent: Any) -> None:
    name = custom_id(key, intent.hex)

    assert split_custom_id(name) == (key, intent.hex[:12])
    assert len(name) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@pytest.mark.parametrize("name", ["", "a", "request-1", "my_request", "_0123456789ab", "a_0123456789AB", "a_123"])
def test_a_name_of_another_program_has_no_mark(name: str) -> None:
    assert split_custom_id(name) == (name, "")


def test_a_custom_id_that_providers_refuse_is_never_made() -> None:
    with pytest.raises(ValueError, match="at most 64 characters"):
        custom_id("k" * 52, INTENT)


# What a line says


def test_a_line_without_a_status_or_a_body_is_missing() -> None:
    for one in (
        openai_line({}, 0),
        openai_line(None, 0),
        openai_line(CHAT, 0),
        openai_line({}),
        openai_line(None, None),
        {"custom_id": "k"},
    ):
        outcome = result_from(one).outcome
        assert isinstance(outcome, LLMError)
        assert outcome.retryable, one


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (None, {"error": {"message": "too long for me", "code": 400}}, "too long for me"),
        (None, {"message": "too long for me"}, "too long for me"),
        (None, "too long for me", "too long for me"),
        ({"detail": [{"loc": ["body"], "msg": "too long for me"}]}, None, "too long for me"),
        ({"object": "error", "message": "too long for me", "code": 400}, None, "too long for me"),
        ({"error": "too long for me"}, None, "too long for me"),
        ('{"error": {"message": "too long for me"}}', None, "too long for me"),
        ("too long for me", None, "too long for me"),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (429, RateLimitError), (500, OverloadedError)])
def test_an_error_in_a_line_keeps_its_words(
    body: Any, error: Any, said: str, status: int, kind: type[LLMError]
) -> None:
    outcome = result_from(openai_line(body, status, error)).outcome

    assert type(outcome) is kind
    assert said in str(outcome)


def test_an_answer_with_a_status_in_words_is_an_answer() -> None:
    assert result_from(openai_line(CHAT, "OK")).outcome["generations"] == ["answer to q"]  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-opus-4-0", "claude-opus-4-20250514"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("claude-sonnet-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
        ("openai/gpt-4o", "gpt-4o-2024-11-20"),
        ("gemini-flash-latest", "gemini-3-flash-preview"),
        ("gemini-2.5-pro", "models/gemini-2.5-pro-preview-05-06"),
        ("ft:gpt-4o-mini:org::abc", "ft:gpt-4o-mini-2024-07-18:org::abc"),
        ("our-model", "gpt-4o"),
        ("gpt-4o", "/models/weights.gguf"),
        ("gpt-4o", ""),
        ("gpt-4o", None),
        ("gpt-4o", 4),
    ],
)
def test_a_model_may_go_by_another_name(asked: str, answered: Any) -> None:
    assert not is_other_model(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("claude-sonnet-4-5", "claude-haiku-4-5-20251001"),
        ("claude-opus-4-1", "claude-opus-4-20250514"),
        ("claude-sonnet-4-5", "gpt-4o"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("gpt-4", "gpt-4-32k"),
        ("o3", "o1-2024-12-17"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-70B-Instruct"),
        ("text-embedding-3-small", "text-embedding-3-large"),
    ],
)
def test_the_answer_of_another_model_is_refused(asked: str, answered: str) -> None:
    assert is_other_model(asked, answered)
    of_openai = openai_adapter.result_from(openai_line({**CHAT, "model": answered}), asked)
    message = {"type": "succeeded", "message": {**MESSAGE, "model": answered}}
    of_anthropic = anthropic_adapter.result_from(anthropic_line(message), asked)

    for result in (of_openai, of_anthropic):
        assert isinstance(result.outcome, OtherModelError)
        assert answered in str(result.outcome)
        assert not result.outcome.retryable


# Limits of queues, and times to wait


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("Enqueued token limit reached for gpt-4o in organization org-1. Limit: 90,000 enqueued tokens. Try", 90_000),
        ("Enqueued token limit reached for gpt-4 in organization org-1. Limit: 2000000 enqueued tokens.", 2_000_000),
        ("The number of enqueued tokens has surpassed the configured limit of 30K for the deployment", 30_000),
        ("enqueued tokens surpass the limit (2.5M)", 2_500_000),
        ("limit is 5.000.000 tokens", 5_000_000),
        ("limit of 3 000 000 enqueued tokens", 3_000_000),
        ("quota 1 million tokens", 1_000_000),
        ("the maximum number of enqueued tokens for this model is 100000", 100_000),
        ("Requested 120,000 tokens, limit 90,000", 90_000),
        ("Enqueued token limit reached for gpt-4-turbo", None),
        ("The number of enqueued tokens has surpassed the quota.", None),
    ],
)
def test_the_limit_of_a_queue_is_read_in_every_wording(said: str, limit: int | None) -> None:
    assert limit_in(said) == limit
    coded = {**OPENAI_JOB, "status": "failed", "request_counts": None, "output_file_id": None}
    problems = {"data": [{"code": "token_limit_exceeded", "message": said}]}
    error = OpenAILLM(model="m")._status_from({**coded, "errors": problems}).error

    assert isinstance(error, QueueFullError)
    assert error.limit == limit


def test_a_time_to_wait_may_be_a_date() -> None:
    later = seconds_to_wait(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))

    assert later is not None
    assert 60 < later <= 90
    assert seconds_to_wait(format_datetime(datetime.now(UTC) - timedelta(seconds=90), usegmt=True)) == 0
    assert seconds_to_wait("12") == 12
    assert [seconds_to_wait(each) for each in ("soon", "", None, "-1", "nan")] == [None] * 5
    headers = {"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)}
    error = openai_adapter.refusal_from(429, headers, b"{}")
    assert error.retry_after is not None
    assert error.retry_after > 3_000


# Whole jobs


def llm_at(provider: OddProvider, **fields: Any) -> OpenAILLM:
    return OpenAILLM(model="gpt-4o", base_url=provider.url, api_key="k", use_offline_batch_generation=True, **fields)


def claude_at(provider: OddProvider, **fields: Any) -> AnthropicLLM:
    given = {"model": "claude-sonnet-4-5", "base_url": provider.origin, "api_key": "k", **fields}
    return AnthropicLLM(use_offline_batch_generation=True, **given)


def numbered(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"{number}"}] for number in range(count)]


def answers_of(llm: OpenAILLM | AnthropicLLM, count: int) -> list[Any]:
    """The texts of so many numbered requests; None for one without an answer."""
    return [output["generations"][0] for output in llm.generate_outputs(inputs=numbered(count))]


def listed(llm: OpenAILLM | AnthropicLLM) -> list[str]:
    async def read() -> list[str]:
        return [status.id async for status in llm.list_jobs()]

    return run_sync(read())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:60],
        lambda line: b"\x00\x01\xff",
        lambda line: b"null",
        lambda line: b"[1, 2]",
        lambda line: line.replace(b'"custom_id"', b'"name"'),
        lambda line: line + b"}",
        lambda line: b"<html>502</html>",
    ],
)
@pytest.mark.parametrize("of", [llm_at, claude_at])
def test_one_unreadable_line_costs_no_other_its_answer(spoil: Callable[[bytes], bytes], of: Any) -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        lines = [line(each) for each in job.requests]
        return [*lines[:2], spoil(lines[2]), *lines[3:]], []

    with OddProvider(results) as provider:
        outputs = of(provider).generate_outputs(inputs=numbered(5))

    texts = [output["generations"][0] for output in outputs]
    assert texts[2] is None
    assert outputs[2]["error"]["retryable"]
    assert all(text.endswith(f"answer to {number}") for number, text in enumerate(texts) if number != 2)


def test_half_a_character_and_numbers_that_are_none_stand_in_an_answer_that_is_read() -> None:
    nothing = {"content": [{"token": "a", "logprob": float("-inf"), "top_logprobs": []}]}

    def results(job: Job) -> tuple[Lines, Lines]:
        half, none, whole = job.requests
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "text"}, "logprobs": nothing}
        return [line(half, text="half \ud83d"), line(none, choices=[choice]), line(whole)], []

    with OddProvider(results) as provider:
        assert answers_of(llm_at(provider), 3) == ["half \ufffd", "text", "answer to 2"]


def test_an_answer_holds_against_an_error_for_the_same_request() -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        return [line(each) for each in job.requests], [error_line(each, "batch_cancelled") for each in job.requests]

    with OddProvider(results) as provider:
        assert answers_of(llm_at(provider), 2) == ["answer to 0", "answer to 1"]


# Results that aren't whole yet


def without_output(job: Job, shown: Any) -> Any:
    return {**shown, "output_file_id": None, "results_url": None} if job.looks <= 5 else shown


LATE: dict[str, dict[str, Any]] = {
    "no file is named yet": {"shown": without_output},
    "the file isn't found yet": {"sent": lambda job, content: 404 if job.downloads <= 2 else content},
    "the file isn't found yet, in words": {"sent": lambda job, content: 400 if job.downloads <= 2 else content},
    "lines are missing": {
        "sent": lambda job, content: content if job.downloads > 2 else content.splitlines(keepends=True)[0],
    },
    "the last line is cut": {"sent": lambda job, content: content if job.downloads > 2 else content[:-40]},
}


@pytest.mark.parametrize("how", LATE)
@pytest.mark.parametrize("of", [llm_at, claude_at])
def test_results_that_were_counted_are_waited_for(how: str, of: Any) -> None:
    with OddProvider(**LATE[how]) as provider:
        llm = of(provider)
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            llm.generate_outputs(inputs=numbered(3))
        jobs = llm.jobs_ids
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            of(provider, jobs_ids=jobs).generate_outputs(inputs=numbered(3))
        while True:
            try:
                outputs = llm.generate_outputs(inputs=numbered(3))
                break
            except OfflineBatchGenerationNotFinishedError:
                assert llm.jobs_ids == jobs

        assert [output["generations"][0].rpartition(": ")[2] for output in outputs] == [
            f"answer to {number}" for number in range(3)
        ]
        assert provider.sizes() == [3]


def test_a_call_that_blocks_waits_for_them_itself() -> None:
    with OddProvider(shown=without_output) as provider:
        llm = llm_at(provider, offline_batch_generation_block_until_done=1)

        assert answers_of(llm, 2) == ["answer to 0", "answer to 1"]


def test_after_some_minutes_what_doesnt_come_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with OddProvider(sent=lambda job, content: content.splitlines(keepends=True)[0]) as provider:
        llm = llm_at(provider)
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            llm.generate_outputs(inputs=numbered(2))
        later = time.time() + 301
        monkeypatch.setattr("llms.batch.time.time", lambda: later)
        first, second = llm.generate_outputs(inputs=numbered(2))

    assert first["generations"] == ["answer to 0"]
    assert second["error"]["type"] == "ExpiredError"


def test_results_of_a_job_that_ended_long_ago_are_not_waited_for() -> None:
    def long_ago(job: Job, shown: Any) -> Any:
        return {**shown, "completed_at": int(time.time()) - 7_200}

    with OddProvider(shown=long_ago, sent=lambda job, content: 404) as provider, pytest.raises(ModelNotFoundError):
        llm_at(provider).generate_outputs(inputs=numbered(2))


def test_servers_that_count_what_failed_as_completed_are_understood() -> None:
    def results(job: Job) -> tuple[Lines, Lines]:
        return [line(each) for each in job.requests[:2]], [error_line(job.requests[2], "server_error")]

    def counts(job: Job, shown: Any) -> Any:
        return {**shown, "request_counts": {"total": 3, "completed": 3, "failed": 1}}

    with OddProvider(results, counts) as provider:
        assert answers_of(llm_at(provider), 3) == ["answer to 0", "answer to 1", None]


@pytest.mark.parametrize("counts", [{}, {"request_counts": {"total": 0, "completed": 0, "failed": 0}}])
def test_a_job_without_counts_and_files_is_looked_at_again(counts: dict[str, Any]) -> None:
    def nothing(job: Job, shown: Any) -> Any:
        return {"id": shown["id"], "status": "COMPLETED", **counts}

    async def results(llm: OpenAILLM, job: str) -> list[BatchResult]:
        return [each async for each in llm.job_results(job)]

    with OddProvider(shown=nothing) as provider:
        llm = llm_at(provider)
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            llm.generate_outputs(inputs=numbered(1))
        with pytest.raises(IncompleteResultsError, match="has no results yet"):
            run_sync(results(llm, provider.jobs[0].id))


@pytest.mark.parametrize(
    "line",
    [
        openai_line({**CHAT, "model": "gpt-3.5-turbo"}),
        openai_line({**CHAT, "choices": []}),
        openai_line({**CHAT, "choices": ["no choice"]}),
        openai_line({**CHAT, "choices": [], "error": {"message": "no"}}),
        openai_line({"object": "response", "output": [], "usage": {"input_tokens": 3, "output_tokens": 2}}),
        openai_line({"usage": CHAT["usage"]}, 0),
    ],
    ids=["another model's", "no choices", "no choice", "an error", "no output", "status 0"],
)
def test_what_was_paid_is_known_of_an_answer_that_isnt_taken(line: dict[str, Any]) -> None:
    outcome = result_from(line, "gpt-4o").outcome

    assert isinstance(outcome, LLMError)
    assert [(each["input_tokens"], each["output_tokens"]) for each in outcome.usage] == [(3, 2)]


def test_what_was_paid_is_known_of_a_message_that_isnt_taken() -> None:
    paid = {"type": "succeeded", "message": {**MESSAGE, "model": "claude-2"}}
    outcome = anthropic_adapter.result_from(anthropic_line(paid), "claude-sonnet-4-5").outcome

    assert isinstance(outcome, OtherModelError)
    assert [(each["input_tokens"], each["output_tokens"]) for each in outcome.usage] == [(3, 2)]


@pytest.mark.parametrize("text", [42, {"a": 1}, ["t"], None])
def test_a_text_that_is_none_is_no_answer(text: Any) -> None:
    message = {**MESSAGE, "content": [{"type": "text", "text": "Half"}, {"type": "text", "text": text}]}
    response = {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}
    bodies = [
        {**CHAT, "choices": [{**CHAT["choices"][0], "message": {"content": [{"type": "text", "text": text}]}}]},
        {**COMPLETION, "choices": [{"index": 0, "text": text, "finish_reason": "stop"}]},
        {"object": "response", "model": "gpt-4o", "status": "completed", **response},
    ]

    outcomes = [anthropic_adapter.result_from(anthropic_line({"type": "succeeded", "message": message})).outcome]
    outcomes += [result_from(openai_line(body)).outcome for body in bodies]

    assert [type(each).__name__ for each in outcomes if not isinstance(each, LLMError)] == []


@pytest.mark.parametrize(
    "code",
    [
        *("internal_server_error", "Server_Error", "InternalServerError", "service_unavailable", "overloaded_error"),
        *("engine_overloaded", "api_error", "batch_canceled", "cancelled", "expired", "gateway_timeout"),
        *("rate_limit_error", "too_many_requests", "server_error", "batch_expired"),
    ],
)
def test_a_line_whose_code_tells_that_nobody_answered_is_asked_again(code: str) -> None:
    outcome = result_from({"custom_id": "k", "response": None, "error": {"code": code, "message": "no"}}).outcome

    assert isinstance(outcome, LLMError)
    assert outcome.retryable


@pytest.mark.parametrize(("status", "said"), [(0, "Bad gateway"), (None, "Internal server error"), (None, "timed out")])
def test_a_line_without_an_answer_is_asked_again_whatever_its_words(status: Any, said: str) -> None:
    outcome = result_from(openai_line({"error": said}, status)).outcome

    assert isinstance(outcome, LLMError)
    assert outcome.retryable


# Files that aren't known yet


@pytest.mark.parametrize(
    "said",
    [
        "Cannot find file file-1, or project p does not have access to it.",
        "No such File object: file-1",
        "File 'file-1' could not be found",
        "The specified file could not be located.",
        "couldn't find any file with id file-1",
        "Unable to locate file file-1",
        "Invalid file ID: file-1",
        "The input file is still being processed.",
        "input_file_id: file file-1 is not ready yet",
        "The file file-1 is not in a terminal state: pending",
        "The object gs://bucket/name.jsonl doesn't exist",
    ],
)
def test_a_file_that_isnt_known_is_told_of_in_many_words(said: str) -> None:
    assert is_unknown_file(BadRequestError(said))
    assert is_not_there(ModelNotFoundError(said))


@pytest.mark.parametrize("said", ["Invalid type for 'profile'", "max_tokens is too large", "The model doesn't exist"])
def test_another_refusal_isnt_taken_for_that(said: str) -> None:
    assert not is_unknown_file(BadRequestError(said))


UNKNOWN_FILE = {"error": {"message": "Cannot find file file-1, or project p does not have access to it.", "code": None}}


def test_a_file_that_isnt_known_right_after_its_upload_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.uploads.FILE_DELAYS", (0.01, 0.01, 0.01))
    with OddProvider(refuses=lambda tries: (400, UNKNOWN_FILE) if tries <= 3 else None) as provider:
        assert answers_of(llm_at(provider), 1) == ["answer to 0"]

    assert len([path for method, path in provider.calls if (method, path) == ("POST", "files")]) == 1
    assert provider.tries == 4


def test_a_file_that_is_never_known_can_be_uploaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.uploads.FILE_DELAYS", (0.01,))
    with (
        OddProvider(refuses=lambda tries: (404, {"error": {"message": "No such File object: file-1"}})) as provider,
        pytest.raises(OverloadedError, match="doesn't find the file that was just uploaded"),
    ):
        llm_at(provider).generate_outputs(inputs=numbered(1))

    assert ("DELETE", "files/file-0") in provider.calls


# Whose a job is


def submitted(llm: OpenAILLM | AnthropicLLM, count: int) -> tuple[JobStatus, str]:
    """A job of so many requests, and its intent."""
    with llm.job_writer() as writer:
        for key, chat in zip(llm.request_keys(numbered(count), 1), numbered(count), strict=True):
            writer.add(llm.batch_request(key[0], chat, 1))
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, {})), file.intent


def found(llm: OpenAILLM | AnthropicLLM, intent: str, **file: Any) -> str | None:
    status = run_sync(llm.find_job(intent, time.time() - 60, {"requests": 2, **file}))
    return status.id if status else None


def under_way(job: Job, shown: Any) -> Any:
    return {**shown, "processing_status": "in_progress", "results_url": None}


def test_jobs_of_anthropics_with_the_same_prompts_are_told_apart_by_their_results() -> None:
    with OddProvider() as provider:
        llms = [claude_at(provider, model=model) for model in ("claude-sonnet-4-5", "claude-opus-4-1")]
        made = [submitted(llm, 2) for llm in llms for _ in range(2)]
        # A colleague's, with names of their own, and with ours from before.
        theirs = [{**each, "custom_id": name} for each, name in zip(provider.jobs[0].requests, "ab", strict=True)]
        provider.add(theirs, {}, "msgbatch_")

        for number, (job, intent) in enumerate(made):
            for llm in llms:
                assert found(llm, intent) == job.id, number
        assert found(llms[0], "f" * 32) is None


def test_a_job_under_way_is_never_taken_for_ours_by_its_size() -> None:
    with OddProvider(shown=under_way) as provider:
        llm = claude_at(provider)
        job, intent = submitted(llm, 2)

        with pytest.raises(UndecidedJobError) as raised:
            found(llm, intent)
        assert raised.value.jobs == (job.id,)
        assert not raised.value.retryable
        assert found(llm, intent, requests=3) is None
        assert found(llm, intent, taken=[job.id]) is None
        assert found(llm, intent, until=time.time() - 30) is None


def test_where_neither_metadata_nor_a_files_name_is_shown_its_first_line_tells_whose_a_job_is() -> None:
    with OddProvider() as provider:
        llm = llm_at(provider)
        job, intent = submitted(llm, 2)
        other, _ = submitted(llm, 2)
        for name, (_, content) in list(provider.files.items()):
            provider.files[name] = ("requests.jsonl", content)

        assert found(llm, intent) == job.id
        assert found(llm, "f" * 32) is None
        # The server has removed the files of requests: the results tell.
        for each in provider.jobs:
            del provider.files[each.asked["input_file_id"]]
        assert found(llm, intent) == job.id
        # And before there are any, nothing does.
        provider.shown = lambda job, shown: {**shown, "status": "in_progress"}
        with pytest.raises(UndecidedJobError) as raised:
            found(llm, intent)
        assert set(raised.value.jobs) == {job.id, other.id}


def test_one_job_that_cant_be_read_hides_no_other_of_the_list() -> None:
    with OddProvider() as provider:
        made = [submitted(llm_at(provider), 1)[0].id for _ in range(3)]
        odd = {made[0]: {"id": None}, made[1]: "text"}
        provider.shown = lambda job, shown: odd.get(job.id, shown)

        assert listed(llm_at(provider)) == [made[2]]


@pytest.mark.parametrize(("strangers", "ours"), [(1, True), (RESULTS_WITH_MARKS, False)])
def test_a_job_is_known_by_its_mark_also_behind_a_line_of_nobodys(strangers: int, ours: bool) -> None:
    class Shown(AnthropicLLM):
        async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
            for _ in range(strangers):
                yield BatchResult("nobody", LLMError("of no known form"))
            yield BatchResult("p0-key", LLMError("refused"), mark_of("0123456789abcdef"))

    status = JobStatus("batch_1", "ended", "ended")
    llm = Shown(model="claude-sonnet-4-5")

    for _ in range(2):
        assert asyncio.run(llm.shows_mark(status, "0123456789abcdef")) is ours
        assert asyncio.run(llm.shows_mark(status, "fedcba9876543210")) is False
