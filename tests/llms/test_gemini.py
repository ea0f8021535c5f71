"""What Google's models have beside what all adapters keep to: contents, candidates, thoughts, refusals, files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from llms import AuthenticationError, GeminiLLM
from llms.batch import BatchResult
from llms.errors import (
    BadRequestError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    RateLimitError,
)
from llms.loop import run_sync
from llms.providers.gemini import read_result
from llms.providers.google import as_completion, error_of, refusal_from, split_system
from llms.providers.openai import CHAT as COMPLETION
from llms.providers.openai import parse_answer
from tests.llms.batch_wires import GeminiStandIn, Reply
from tests.llms.wires import GEMINI, KEY, Fault, Saying, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(GEMINI) as running:
        yield running


def llm_at(server: StandIn, **fields: Any) -> GeminiLLM:
    return GeminiLLM(model="m", base_url=server.root, api_key=SecretStr(KEY), **fields)


def test_neighbours_of_one_role_are_one_content_and_system_messages_an_instruction() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    linked = {"type": "image_url", "image_url": {"url": "gs://bucket/a.jpg"}}

    system, contents = split_system(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Here:"}, image]},
            {"role": "user", "content": [linked]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "So?"},
        ]
    )

    assert system == ["Be brief.", "Be kind."]
    assert contents == [
        {
            "role": "user",
            "parts": [
                {"text": "Here:"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                {"fileData": {"fileUri": "gs://bucket/a.jpg", "mimeType": "image/jpeg"}},
            ],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Madrid"}}}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "sunny"}}},
                {"text": "So?"},
            ],
        },
    ]


ODD: list[Any] = [
    {"role": "user", "content": "hi", "name": "Ann"},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,AAAA"}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "["}}],
    },
    {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
]


@pytest.mark.parametrize("message", ODD)
def test_what_it_has_no_place_for_is_refused_before_it_is_sent(message: Any, server: StandIn) -> None:
    (output,) = llm_at(server).generate_outputs(inputs=[[message]])

    error = output.get("error")
    assert error is not None
    assert error["type"] == "BadRequestError"
    assert server.asked == []


def test_parameters_of_thinking_and_safety_are_where_it_looks_for_them(server: StandIn) -> None:
    llm_at(server).generate_outputs(
        inputs=[CHAT],
        thinking_level="low",
        include_thoughts=True,
        safety_settings={"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
        service_tier="flex",
        top_logprobs=2,
        extra_body={
            "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"},
            "cachedContent": "caches/c",
        },
    )

    assert server.body == {
        "contents": [{"role": "user", "parts": [{"text": "Tell me about the sea."}]}],
        "generationConfig": {
            "responseLogprobs": True,
            "logprobs": 2,
            "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "serviceTier": "flex",
        "cachedContent": "caches/c",
    }


def test_a_model_that_gives_one_candidate_is_asked_again_for_each(server: StandIn) -> None:
    server.faults = [Fault(400, "Multiple candidates is not enabled for this model")]
    llm = llm_at(server, generation_kwargs={"seed": 5})
    first = llm.generate_outputs(inputs=[CHAT], num_generations=3)
    asked = len(server.asked)
    llm.generate_outputs(inputs=[CHAT], num_generations=2)

    assert first[0]["generations"] == ["Fine."] * 3
    assert (asked, len(server.asked)) == (4, 6)
    assert sorted(each.body["generationConfig"]["seed"] for each in server.asked[1:4]) == [5, 6, 7]


def test_a_prompt_that_was_blocked_is_final_and_paid_for() -> None:
    answer = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}}

    with pytest.raises(LLMError, match="withheld the answer .*PROHIBITED_CONTENT") as raised:
        parse_answer(as_completion(answer), COMPLETION)
    assert [each["input_tokens"] for each in raised.value.usage] == [9]


def test_log_probabilities_of_tokens_are_read() -> None:
    chosen = [{"token": "Fine", "logProbability": -0.1}, {"token": "."}]
    tops = [{"candidates": [{"token": "Fine", "logProbability": -0.1}, {"token": "Bad", "logProbability": -3}]}]
    candidate = {"content": {"parts": [{"text": "Fine."}]}, "finishReason": "STOP"}

    one = parse_answer(
        as_completion({"candidates": [{**candidate, "logprobsResult": {"chosenCandidates": chosen}}]}), COMPLETION
    )
    two = parse_answer(
        as_completion({"candidates": [{**candidate, "logprobsResult": {"topCandidates": tops}}]}), COMPLETION
    )

    assert one.get("logprobs") == [[[{"token": "Fine", "logprob": -0.1}], [{"token": ".", "logprob": 0.0}]]]
    assert two.get("logprobs") == [[[{"token": "Fine", "logprob": -0.1}, {"token": "Bad", "logprob": -3.0}]]]


def test_the_tier_that_an_answer_was_given_at_is_its_own_word_or_the_asked_one(server: StandIn) -> None:
    (output,) = llm_at(server).generate_outputs(inputs=[CHAT], service_tier="flex")
    said = as_completion({"usageMetadata": {"trafficType": "ON_DEMAND_PRIORITY"}}, tier="flex")

    assert [each.get("tier") for each in output.get("usage", [])] == ["flex"]
    assert said["service_tier"] == "priority"


def test_a_key_that_is_none_is_told_as_such_though_it_comes_as_a_bad_request() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    body = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}}

    assert isinstance(refusal_from(400, {}, json.dumps(body).encode()), AuthenticationError)


def test_the_delay_that_a_refusal_names_in_its_details_is_waited_for() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}]
    body = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    error = refusal_from(429, {}, json.dumps(body).encode())

    assert isinstance(error, RateLimitError)
    assert error.retry_after == 13.5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "BadRequestError") for code in (3, 9, 11, 12, 400)),
        *((code, "OverloadedError") for code in (2, 4, 10, 13, 14, 15, 500)),
        *((7, "AuthenticationError"), (16, "AuthenticationError"), (5, "ModelNotFoundError")),
        *((8, "RateLimitError"), (1, "ExpiredError")),
    ],
)
def test_a_code_of_google_rpc_means(code: int, kind: str) -> None:
    assert type(error_of({"code": code, "message": "no"})).__name__ == kind


def test_an_answer_of_another_model_is_not_taken_from_a_batch() -> None:
    body = {**GEMINI.answer({}, Saying()), "modelVersion": "models/gemini-2.5-pro"}
    line = json.dumps({"key": "k_000000000000", "response": body}).encode()
    results: list[BatchResult | None] = [read_result(line, model) for model in ("gemini-2.5-flash", "gemini-2.5-pro")]

    assert [type(each.outcome).__name__ for each in results if each] == ["OtherModelError", "dict"]
    assert read_result(b'{"key": "k", "response": {"candi', "m") is None
    assert read_result(b'{"response": {}}', "m") is None


def job_of(llm: GeminiLLM) -> Any:
    with llm.job_writer() as writer:
        writer.add(llm.batch_request("0", CHAT, 1))
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, {}))


def results_of(llm: GeminiLLM, job_id: str) -> list[BatchResult]:
    async def read() -> list[BatchResult]:
        return [each async for each in llm.job_results(job_id)]

    return run_sync(read())


def test_an_upload_is_not_sent_to_another_server_than_the_keys_own() -> None:
    class Elsewhere(GeminiStandIn):
        def begin(self, headers: Any, given: dict[str, Any]) -> Reply:
            return 200, b"{}", {"X-Goog-Upload-URL": "http://127.0.0.1:9/upload"}

    with Elsewhere() as server, pytest.raises(InvalidResponseError, match="isn't at"):
        job_of(llm_at(server))


def test_a_file_of_a_job_that_was_refused_is_removed() -> None:
    class Refusing(GeminiStandIn):
        def create(self, given: dict[str, Any]) -> Reply:
            return self._refused(400, "that model has no batches")

    with Refusing() as server:
        with pytest.raises(BadRequestError, match="has no batches"):
            job_of(llm_at(server))

        assert server.files == {}


def test_results_that_were_removed_are_told_as_gone_and_cut_ones_as_incomplete() -> None:
    with GeminiStandIn() as server:
        llm = llm_at(server)
        job = server.job(job_of(llm).id)
        server.end(job, "BATCH_STATE_SUCCEEDED", answered=1)
        kept = server.files[job.output].content
        server.files[job.output].content = kept[: len(kept) // 2]
        with pytest.raises(IncompleteResultsError, match="of 1 result"):
            results_of(llm, job.id)
        del server.files[job.output]
        with pytest.raises(IncompleteResultsError) as raised:
            results_of(llm, job.id)

    assert isinstance(raised.value.gone, ModelNotFoundError)


def test_a_job_that_ended_early_without_a_file_has_no_results() -> None:
    with GeminiStandIn() as server:
        llm = llm_at(server)
        job = job_of(llm)
        server.job(job.id).status = "BATCH_STATE_CANCELLED"

        assert results_of(llm, job.id) == []
