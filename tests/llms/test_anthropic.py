"""Anthropic's adapter, online and in batches, against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr, TypeAdapter

from llms import (
    AnthropicLLM,
    AnyLLM,
    AuthenticationError,
    LLMError,
    ModelNotFoundError,
    OfflineBatchGenerationNotFinishedError,
    ParameterError,
    QuotaExceededError,
)
from llms.batch import BatchLimits, JobStatus
from llms.credentials import Credentials, use_credentials_store
from llms.errors import UndecidedJobError
from llms.local_provider import LocalProvider, SpawnedProvider
from llms.loop import run_sync
from llms.providers.anthropic import error_from, parse_message, result_from, status_from
from llms.registry import LLM_VARIANTS
from llms.structured_output import constrainable_schema
from tests.conftest import wait_for

MODEL = "claude-sonnet-4-5"
CHAT: Any = [{"role": "user", "content": "What's the capital of Spain?"}]
KEY = "sk-ant-a-very-secret-key-0123456789"
ECHO = {r"number (?P<which>\d+)": "answer {which}"}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    with LocalProvider(batch_manual=True) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.anthropic_url)
        monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
        monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
        yield running


def anthropic(**fields: Any) -> AnthropicLLM:
    llm = AnthropicLLM(**{"model": MODEL, **fields})
    llm.load()
    return llm


def one(llm: AnthropicLLM, given: Any = CHAT, **kwargs: Any) -> Any:
    (output,) = llm.generate_outputs(inputs=[given], **kwargs)
    return output


def bodies(provider: LocalProvider) -> list[Any]:
    return [request.body for request in provider.requests if request.path == "/messages"]


def body_of(given: Any = CHAT, fields: Any = None, **kwargs: Any) -> Any:
    """The body of a request, without sending it."""
    llm = AnthropicLLM(**{"model": MODEL, "generation_kwargs": kwargs, **(fields or {})})
    return llm.batch_request("1", given, 1).body


def numbered(count: int) -> list[Any]:
    return [[{"role": "user", "content": f"number {number}"}] for number in range(count)]


# Requests and answers


def test_a_chat_goes_to_messages_with_key_and_version(provider: LocalProvider) -> None:
    provider.set(answers={"Spain": "The capital of Spain is Madrid."}, api_key=KEY)

    output = one(anthropic(api_key=KEY, default_headers={"x-team": "data"}))

    assert output["generations"] == ["The capital of Spain is Madrid."]
    assert bodies(provider) == [{"model": MODEL, "max_tokens": 8192, "messages": CHAT}]
    assert provider.requests[0].headers["anthropic-version"] == "2023-06-01"
    assert provider.requests[0].headers["x-team"] == "data"


def test_every_parameter_arrives_under_the_name_of_the_api(provider: LocalProvider) -> None:
    # One of which no table knows what it takes.
    one(
        anthropic(model="claude-next"),
        temperature="0.3",
        top_p=0.9,
        top_k=40,
        stop="END",
        max_new_tokens=12,
        reasoning_effort="low",
        thinking="adaptive",
        extra_body={"metadata": {"user_id": "7"}},
    )

    assert bodies(provider) == [
        {
            "model": "claude-next",
            "max_tokens": 12,
            "messages": CHAT,
            "temperature": 0.3,
            "top_p": 0.9,
            "top_k": 40,
            "stop_sequences": ["END"],
            "output_config": {"effort": "low"},
            "thinking": {"type": "adaptive"},
            "metadata": {"user_id": "7"},
        }
    ]


def test_tokens_to_think_come_besides_those_of_the_answer(provider: LocalProvider) -> None:
    assert one(anthropic(), thinking_budget=2048, max_new_tokens=100)["generations"][0]
    assert bodies(provider)[0]["max_tokens"] == 2148
    assert bodies(provider)[0]["thinking"] == {"type": "enabled", "budget_tokens": 2048}


@pytest.mark.parametrize("wrong", [{"temperature": 1.5}, {"thinking_budget": 3}, {"seed": 1}, {"thinking": "much"}])
def test_a_parameter_that_the_api_doesnt_take_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises((ParameterError, ValueError), match=next(iter(wrong))):
        AnthropicLLM(model=MODEL, generation_kwargs=wrong)


def test_system_messages_are_lifted_out_of_the_chat(provider: LocalProvider) -> None:
    provider.set(answers=[{"match": "Be brief", "on": "system", "answer": "Yes."}])
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": "It is."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Really?"},
    ]

    assert one(anthropic(), chat)["generations"] == ["Yes."]
    assert bodies(provider)[0]["system"] == "Be brief.\n\nBe kind."
    assert [message["role"] for message in bodies(provider)[0]["messages"]] == ["user", "assistant", "user"]


def test_images_of_a_chat_become_blocks(provider: LocalProvider) -> None:
    parts = [
        {"type": "text", "text": "What is on them?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]

    assert one(anthropic(), [{"role": "user", "content": parts}])["generations"][0]
    assert bodies(provider)[0]["messages"][0]["content"] == [
        {"type": "text", "text": "What is on them?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Once upon a time", "take chats, got a bare prompt"),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
            "got a part of type 'input_audio'",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}],
            "has to be in base64",
        ),
    ],
)
def test_what_cant_be_said_to_the_api_is_refused_in_its_row(provider: LocalProvider, given: Any, said: str) -> None:
    output = one(anthropic(), given)

    assert output["error"]["type"] == "BadRequestError"
    assert said in output["error"]["message"]
    assert bodies(provider) == []


def test_several_generations_are_requests_of_their_own(provider: LocalProvider) -> None:
    output = one(anthropic(), num_generations=3)

    assert len(output["generations"]) == 3
    assert len(bodies(provider)) == 3
    assert sum(output["statistics"]["input_tokens"]) == provider.stats.prompt_tokens
    assert sum(output["statistics"]["output_tokens"]) == provider.stats.completion_tokens > 0


def test_tokens_read_from_the_cache_count_as_the_prompts() -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 10,
        "output_tokens": 7,
    }
    message = {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": usage}

    assert parse_message(message)["statistics"] == {
        "input_tokens": [115],
        "output_tokens": [7],
        "cached_tokens": [100],
        "cache_write_tokens": [10],
    }


def test_thoughts_are_no_part_of_the_answer() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]

    assert parse_message({"content": blocks, "stop_reason": "end_turn"})["generations"] == ["AB"]


def test_an_answer_that_ends_before_it_begins_is_empty_text() -> None:
    assert parse_message({"content": [], "stop_reason": "stop_sequence"})["generations"] == [""]


def test_tokens_used_up_by_thinking_are_told_and_not_spent_again() -> None:
    with pytest.raises(LLMError, match=r"before the answer began .* give more `max_new_tokens`") as raised:
        parse_message({"content": [{"type": "thinking", "thinking": "Hm."}], "stop_reason": "max_tokens"})
    assert not raised.value.retryable


# Structured output


class City(BaseModel):
    name: str = Field(min_length=1)
    inhabitants: int = Field(ge=0, description="In people.")


class Node(BaseModel):
    name: str
    children: list[Node]


def test_answers_fit_the_class_given_by_structured_outputs(provider: LocalProvider) -> None:
    output = one(anthropic(structured_output=City))

    City.model_validate_json(output["generations"][0])
    sent = bodies(provider)[0]["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["additionalProperties"] is False
    assert sent["schema"]["required"] == ["name", "inhabitants"]
    assert sent["schema"]["properties"]["inhabitants"] == {
        "title": "Inhabitants",
        "type": "integer",
        "description": "In people. (minimum: 0)",
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"x": {"not": {"type": "string"}}}, "required": ["x"]},
        Node.model_json_schema(),
    ],
)
def test_a_schema_that_structured_outputs_dont_take_goes_by_a_tool(provider: LocalProvider, schema: Any) -> None:
    assert constrainable_schema(schema) is None

    output = one(anthropic(), (CHAT, schema))

    assert isinstance(json.loads(output["generations"][0]), dict)
    body = bodies(provider)[0]
    assert body["tools"][0]["input_schema"] == {"type": "object", **schema}
    assert body["tool_choice"] == {"type": "tool", "name": body["tools"][0]["name"]}
    assert "output_config" not in body


def test_effort_and_a_schema_go_together() -> None:
    config = body_of((CHAT, City), {"model": "claude-opus-4-5"}, reasoning_effort="high")["output_config"]

    assert config["effort"] == "high"
    assert config["format"]["type"] == "json_schema"


def test_a_schema_is_not_changed_by_its_use() -> None:
    schema = City.model_json_schema()
    body_of((CHAT, schema))

    assert schema == City.model_json_schema()


# Keys and addresses


def test_a_missing_key_is_told_at_load_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)

    with pytest.raises(AuthenticationError, match=r"has no key: set ANTHROPIC_API_KEY, or name a credentials block"):
        AnthropicLLM(model=MODEL).load()


def test_key_and_address_come_from_a_named_block(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.credentials._store", None)
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    provider.set(api_key=KEY)
    use_credentials_store({"claude": Credentials(SecretStr(KEY), provider.base_url)}.__getitem__)
    llm = anthropic(credentials="claude")

    assert one(llm)["generations"][0]
    assert llm.identity()["base_url"] == provider.anthropic_url


def test_the_key_comes_from_the_environment(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.set(api_key=KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

    assert one(anthropic())["generations"][0]


def test_a_wrong_key_ends_everything_in_one_message(provider: LocalProvider) -> None:
    provider.set(api_key=KEY)

    with pytest.raises(AuthenticationError, match="the provider refuses the key"):
        anthropic(api_key="wrong").generate_outputs(inputs=[CHAT] * 100)


@pytest.mark.usefixtures("provider")
def test_the_key_is_in_no_text_of_the_llm() -> None:
    llm = anthropic(api_key=KEY, default_headers={"x-key": KEY})

    for text in (repr(llm), str(llm), llm.model_dump_json(), json.dumps(llm.identity()), repr(llm.limit_key)):
        assert KEY not in text


def test_an_llm_travels_to_another_process(provider: LocalProvider) -> None:
    llm = anthropic()
    one(llm)

    assert one(pickle.loads(pickle.dumps(llm)))["generations"][0]
    assert provider.stats.count("/messages", 200) == 2


def test_a_form_tells_it_from_the_others_by_a_field_of_its_own() -> None:
    written = TypeAdapter(AnyLLM).dump_python(AnthropicLLM(model=MODEL), mode="json")

    tabs = {kind: len(set(written) & set(kind.model_json_schema()["properties"])) for kind in LLM_VARIANTS.tabs()}
    others = [shared for kind, shared in tabs.items() if kind is not AnthropicLLM]
    assert tabs[AnthropicLLM] > max(others)
    assert isinstance(TypeAdapter(AnyLLM).validate_python(written), AnthropicLLM)


# Failures


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 504, 529])
def test_failures_that_may_pass_are_retried(provider: LocalProvider, status: int) -> None:
    provider.set(faults=[{"times": 2, "status": status}])

    assert one(anthropic())["generations"][0]
    assert len(bodies(provider)) == 3


def test_an_overload_stays_in_the_row_when_retries_are_spent(provider: LocalProvider) -> None:
    provider.set(faults=[{"status": 529, "message": "Overloaded"}])

    output = one(anthropic(max_retries=1))

    assert output["error"]["type"] == "OverloadedError"
    assert output["error"]["message"] == "the provider failed (529): Overloaded (overloaded_error)"


def test_a_refused_request_waits_as_long_as_the_provider_asks(provider: LocalProvider, waits: list[float]) -> None:
    provider.set(faults=[{"times": 1, "status": 429, "retry_after": 1}])

    started = time.monotonic()
    assert one(anthropic())["generations"][0]

    assert time.monotonic() - started >= 1
    assert sum(waits) < 2.5


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 400}, "BadRequestError"),
        ({"status": 413}, "BadRequestError"),
        ({"status": 400, "message": "prompt is too long: 208310 tokens > 200000 maximum"}, "ContextLengthError"),
        (
            {"status": 400, "message": "input length and `max_tokens` exceed context limit: 190000 + 64000 > 200000"},
            "ContextLengthError",
        ),
        ({"status": 400, "message": "Output blocked by content filtering policy"}, "ContentFilterError"),
        ({"malformed": "refusal"}, "ContentFilterError"),
    ],
)
def test_final_failures_are_not_retried_and_stay_in_their_row(
    provider: LocalProvider, fault: dict[str, Any], kind: str
) -> None:
    provider.set(faults=[{"match": "Spain", **fault}])

    bad, good = anthropic().generate_outputs(inputs=[CHAT, *numbered(1)])

    assert bad["generations"] == [None]
    assert bad["error"]["type"] == kind
    assert not bad["error"]["retryable"]
    assert good["generations"][0]
    assert len(bodies(provider)) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 401}, AuthenticationError),
        ({"status": 403}, AuthenticationError),
        ({"status": 404, "message": "model: claude-none"}, ModelNotFoundError),
        ({"status": 402}, QuotaExceededError),
        ({"status": 400, "message": "Your credit balance is too low to access the API."}, QuotaExceededError),
    ],
)
def test_failures_that_no_request_can_escape_are_raised(
    provider: LocalProvider, fault: dict[str, Any], kind: type[LLMError]
) -> None:
    provider.set(faults=[fault])

    with pytest.raises(kind):
        one(anthropic())
    assert len(bodies(provider)) == 1


@pytest.mark.parametrize("how", ["truncated-json", "missing-choices", "null-content"])
def test_an_answer_that_is_paid_and_cannot_be_used_is_asked_for_once_more_at_most(
    provider: LocalProvider, how: str
) -> None:
    provider.set(faults=[{"malformed": how, "times": 1}])
    llm = anthropic(max_retries=6)
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    provider.clear()

    assert one(llm)["error"]["type"] == "InvalidResponseError"
    assert len(bodies(provider)) == 2


@pytest.mark.parametrize("how", ["not-json", "empty", "html"])
def test_an_answer_that_is_none_is_retried_then_told(provider: LocalProvider, how: str) -> None:
    provider.set(faults=[{"malformed": how, "times": 2}])
    llm = anthropic(max_retries=2)
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    assert one(llm)["error"]["type"] == "InvalidResponseError"


def test_a_proxys_page_is_told_as_it_is() -> None:
    error = error_from(502, {}, b"<html>Bad Gateway</html>")

    assert str(error) == "the provider failed (502): <html>Bad Gateway</html>"


def test_a_server_that_isnt_there_and_one_that_is_slow_are_told(provider: LocalProvider) -> None:
    provider.set(latency=1.0)
    assert one(anthropic(timeout=0.1, max_retries=0))["error"]["type"] == "RequestTimeoutError"

    provider.stop()
    with pytest.raises(LLMError, match=r"can't reach .*; check the address"):
        one(anthropic(max_retries=0))


# The life cycle of a batch


def batch_llm(**fields: Any) -> AnthropicLLM:
    return anthropic(use_offline_batch_generation=True, **fields)


def submitted(llm: AnthropicLLM, inputs: list[Any], **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        llm.generate_outputs(inputs=inputs, **kwargs)
    return raised.value.jobs_ids


def sent_requests(provider: LocalProvider) -> list[Any]:
    """The requests of the batches as the provider got them."""
    created = [each for each in provider.requests if (each.method, each.path) == ("POST", "/messages/batches")]
    return [request for each in created for request in each.body["requests"]]


def test_the_programs_of_the_seed_run_with_anthropic(provider: LocalProvider) -> None:
    provider.set(answers={"Spain": "The capital of Spain is Madrid."})
    llm = AnthropicLLM(model=MODEL, use_offline_batch_generation=True)
    llm.load()
    assert llm.jobs_ids is None

    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        llm.generate_outputs(inputs=[CHAT])

    assert llm.jobs_ids == raised.value.jobs_ids == (provider.batches[0]["id"],)
    with pytest.raises(OfflineBatchGenerationNotFinishedError):
        llm.generate_outputs(inputs=[CHAT])

    provider.end_batch(llm.jobs_ids[0])
    (output,) = llm.generate_outputs(inputs=[CHAT])

    assert output["generations"] == ["The capital of Spain is Madrid."]
    assert output["statistics"]["input_tokens"][0] > 0
    assert llm.generate_outputs(inputs=[CHAT]) == llm.generate_outputs(inputs=[CHAT]) == [output]
    assert llm.jobs_ids == raised.value.jobs_ids
    assert len(provider.batches) == 1
    assert provider.stats.count("/messages") == 0


def test_block_until_done_polls_in_the_call(provider: LocalProvider, waits: list[float]) -> None:
    def end() -> None:
        wait_for(lambda: waits, what="the first wait for the job")
        provider.end_batch(provider.batches[0]["id"])

    llm = batch_llm(offline_batch_generation_block_until_done=1)
    ending = threading.Thread(target=end)
    ending.start()
    assert one(llm)["generations"][0]
    ending.join()

    assert set(waits) == {1}


@pytest.mark.parametrize(
    ("prompt", "kwargs", "fields"),
    [
        (CHAT, {"temperature": "0.3", "max_new_tokens": 20, "stop": ["a", "b"]}, {}),
        ([{"role": "system", "content": "Be brief."}, *CHAT], {}, {"structured_output": City}),
        ((CHAT, Node), {"extra_body": {"service_tier": "auto"}}, {}),
    ],
)
def test_a_batch_sends_the_body_that_is_sent_online(
    provider: LocalProvider, prompt: Any, kwargs: dict[str, Any], fields: dict[str, Any]
) -> None:
    submitted(batch_llm(**fields), [prompt], **kwargs)
    one(anthropic(**fields), prompt, **kwargs)

    (request,) = sent_requests(provider)
    assert set(request) == {"custom_id", "params"}
    assert request["params"] == bodies(provider)[0]


def test_answers_are_joined_by_key_when_they_come_in_another_order(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    provider.end_batch(submitted(llm, numbered(40))[0], shuffle=True)

    outputs = llm.generate_outputs(inputs=numbered(40))

    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(40)]


def test_generations_are_requests_with_keys_of_their_own(provider: LocalProvider) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    inputs = [*numbered(2), *numbered(2)]
    provider.end_batch(submitted(llm, inputs, num_generations=3)[0], shuffle=True)

    outputs = llm.generate_outputs(inputs=inputs, num_generations=3)

    keys = [request["custom_id"] for request in sent_requests(provider)]
    assert len(set(keys)) == len(keys) == 12
    assert [output["generations"] for output in outputs] == [[f"answer {number % 2}"] * 3 for number in range(4)]
    assert all(len(output["statistics"]["output_tokens"]) == 3 for output in outputs)


@pytest.mark.parametrize(
    ("status", "message", "kind", "retryable"),
    [
        (500, "went wrong", "OverloadedError", True),
        (529, "went wrong", "OverloadedError", True),
        (429, "went wrong", "RateLimitError", True),
        (400, "went wrong", "BadRequestError", False),
        (413, "went wrong", "BadRequestError", False),
        (400, "prompt is too long: went wrong", "ContextLengthError", False),
    ],
)
def test_an_errored_request_fails_alone(
    provider: LocalProvider, status: int, message: str, kind: str, retryable: bool
) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    provider.end_batch(submitted(llm, numbered(4))[0], bad=[1], status=status, message=message)

    outputs = llm.generate_outputs(inputs=numbered(4))

    assert outputs[1]["error"]["type"] == kind
    assert "went wrong" in outputs[1]["error"]["message"]
    assert outputs[1]["error"]["retryable"] is retryable
    assert [outputs[number]["generations"][0] for number in (0, 2, 3)] == ["answer 0", "answer 2", "answer 3"]


def test_what_is_wrong_with_a_request_is_told_in_its_row(provider: LocalProvider) -> None:
    llm = batch_llm()
    inputs = [CHAT, [{"role": "narrator", "content": "It was night."}]]
    provider.end_batch(submitted(llm, inputs)[0])

    good, bad = llm.generate_outputs(inputs=inputs)

    assert good["generations"][0]
    assert bad["error"]["type"] == "BadRequestError"
    assert "narrator" in bad["error"]["message"]


@pytest.mark.parametrize("action", ["expire", "cancel"])
def test_a_batch_that_ends_early_gives_what_it_has_and_tells_what_it_has_not(
    provider: LocalProvider, action: Any
) -> None:
    provider.set(answers=ECHO)
    llm = batch_llm()
    provider.end_batch(submitted(llm, numbered(6))[0], action, done_fraction=0.5)

    outputs = llm.generate_outputs(inputs=numbered(6))

    assert [output["generations"][0] for output in outputs[:3]] == ["answer 0", "answer 1", "answer 2"]
    assert {output["error"]["type"] for output in outputs[3:]} == {"ExpiredError"}
    assert all(output["error"]["retryable"] for output in outputs[3:])


def test_more_requests_than_a_batch_takes_become_several(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnthropicLLM, "batch_limits", BatchLimits(requests=4, size=255_000_000))
    provider.set(answers=ECHO)
    llm = batch_llm()
    jobs = submitted(llm, numbered(10))
    for job in reversed(jobs):
        provider.end_batch(job, shuffle=True)

    assert len(jobs) == 3
    outputs = llm.generate_outputs(inputs=numbered(10))
    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(10)]


def test_looking_at_a_batch_survives_failures_that_pass(provider: LocalProvider) -> None:
    llm = batch_llm()
    (job,) = submitted(llm, [CHAT])
    provider.end_batch(job)
    provider.set(
        faults=[
            {"path": f"/messages/batches/{job}/results", "times": 1, "disconnect": True},
            {"path": f"/messages/batches/{job}", "times": 2, "status": 529},
        ]
    )

    assert one(llm)["generations"][0]


def test_results_that_were_removed_are_told_as_that(provider: LocalProvider) -> None:
    llm = batch_llm()
    (job,) = submitted(llm, [CHAT])
    provider.end_batch(job, archived=True)

    with pytest.raises(LLMError, match=rf"batch '{job}' has no results to read .*kept for 29 days") as raised:
        one(llm)
    assert not raised.value.retryable


def test_a_wrong_key_is_told_at_submission(provider: LocalProvider) -> None:
    provider.set(api_key=KEY)

    with pytest.raises(AuthenticationError):
        batch_llm(api_key="wrong").generate_outputs(inputs=[CHAT])


# Jobs at the provider


async def jobs_of(llm: AnthropicLLM) -> list[JobStatus]:
    return [status async for status in llm.list_jobs()]


def test_statuses_are_told_in_common_terms_with_counts(provider: LocalProvider) -> None:
    llm = batch_llm()
    before = time.time()
    (job,) = submitted(llm, numbered(8))
    open_status = run_sync(llm.job_status(job))
    provider.end_batch(job, "expire", done_fraction=0.5, bad=[0])
    status = run_sync(llm.job_status(job))

    assert (open_status.state, open_status.status, open_status.total) == ("waiting", "in_progress", 8)
    assert (status.state, status.status) == ("ended", "ended")
    assert (status.total, status.answered, status.refused) == (8, 3, 1)
    assert before - 1 <= status.created <= time.time() + 1


@pytest.mark.parametrize(("status", "state"), [("canceling", "waiting"), ("ended", "ended"), ("paused", "waiting")])
def test_a_state_that_isnt_known_is_waited_for(status: str, state: str) -> None:
    assert status_from({"id": "1", "processing_status": status}).state == state


def test_jobs_are_listed_newest_first_over_all_pages(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.providers.anthropic.JOBS_PER_PAGE", 2)
    llm = batch_llm()
    made: list[str] = []
    for number in range(5):
        llm.jobs_ids = None
        made += submitted(llm, numbered(number + 1))

    found = run_sync(jobs_of(llm))

    assert [status.id for status in found] == made[::-1]
    assert [status.total for status in found] == [5, 4, 3, 2, 1]
    assert provider.stats.count("/messages/batches") == 5 + 3


def test_a_cancelled_job_ends_and_a_deleted_one_is_gone(provider: LocalProvider) -> None:
    llm = batch_llm()
    (job,) = submitted(llm, numbered(2))
    run_sync(llm.cancel_job(job))
    while run_sync(llm.job_status(job)).state == "waiting":
        time.sleep(0.01)
    assert [output["error"]["type"] for output in llm.generate_outputs(inputs=numbered(2))] == ["ExpiredError"] * 2

    run_sync(llm.delete_job(job))
    run_sync(llm.delete_job(job))

    assert provider.batches == []


def test_an_open_job_is_none_of_ours_before_its_results_show_it(provider: LocalProvider) -> None:
    llm = batch_llm()
    since = time.time()
    job, intent = made(llm, numbered(3))
    made(llm, numbered(2))

    with pytest.raises(UndecidedJobError, match=job):
        found(llm, intent, since, {"requests": 3})
    assert found(llm, intent, since, {"requests": 4}) is None
    assert found(llm, intent, since, {"requests": 3, "taken": [job]}) is None
    assert found(llm, intent, since, {"requests": 3, "until": since - 60}) is None


def test_of_ended_jobs_the_one_with_our_mark_is_found(provider: LocalProvider) -> None:
    llm = batch_llm()
    jobs = [made(llm, numbered(3)) for _ in range(3)]
    for job, _ in jobs:
        provider.end_batch(job, shuffle=True)

    assert [found(llm, intent, time.time(), {"requests": 3}) for _, intent in jobs] == [job for job, _ in jobs]
    assert found(llm, "f" * 32, time.time(), {"requests": 3}) is None


def test_an_open_job_stays_a_possible_one_beside_ended_ones(provider: LocalProvider) -> None:
    llm = batch_llm()
    (ended, _), (open_one, _) = made(llm, numbered(3)), made(llm, numbered(3))
    provider.end_batch(ended)

    with pytest.raises(UndecidedJobError) as raised:
        found(llm, "f" * 32, time.time(), {"requests": 3})

    assert raised.value.jobs == (open_one,)


def test_a_job_whose_results_were_removed_is_of_no_use_whosever_it_is(provider: LocalProvider) -> None:
    llm = batch_llm()
    job, intent = made(llm, numbered(3))
    provider.end_batch(job, archived=True)

    assert found(llm, intent, time.time(), {"requests": 3}) is None


def test_a_job_from_before_is_not_found_but_the_clocks_may_differ(provider: LocalProvider) -> None:
    llm = batch_llm()
    job, intent = made(llm, numbered(3))
    provider.end_batch(job)

    assert found(llm, intent, time.time() + 60, {"requests": 3}) == job
    assert found(llm, intent, time.time() + 3600, {"requests": 3}) is None


def made(llm: AnthropicLLM, inputs: list[Any]) -> tuple[str, str]:
    """A job for inputs, and the intent it was made for."""
    with llm.job_writer() as writer:
        for keys, given in zip(llm.request_keys(inputs, 1), inputs, strict=True):
            writer.add(llm.batch_request(keys[0], given, 1))
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, {})).id, file.intent


def found(llm: AnthropicLLM, intent: str, since: float, file: dict[str, Any]) -> str | None:
    status = run_sync(llm.find_job(intent, since, file))
    return status.id if status else None


# Results and bodies as streams


def test_requests_and_results_pass_without_filling_the_memory() -> None:
    requests = 3_000

    async def pass_through(llm: AnthropicLLM, other: SpawnedProvider) -> tuple[int, int, int]:
        with llm.job_writer() as writer:
            for number in range(requests):
                writer.add(llm.batch_request(f"{number}", [{"role": "user", "content": f"{number} {'x' * 4000}"}], 1))
            (file,) = writer.rest()
            tracemalloc.start()
            job = await llm.create_job(file, {})
        await asyncio.to_thread(other.end_batch, job.id)
        read = len([None async for _ in llm.job_results(job.id)])
        return job.total, read, tracemalloc.get_traced_memory()[1]

    with LocalProvider.spawn(batch_manual=True, answer_tokens=1000) as other:
        try:
            total, read, peak = run_sync(pass_through(anthropic(base_url=other.anthropic_url), other))
        finally:
            tracemalloc.stop()

    assert total == read == requests
    assert peak < 6_000_000


def test_a_result_of_an_unknown_kind_may_be_asked_for_again() -> None:
    result = result_from({"custom_id": "1", "result": {"type": "paused"}})

    assert isinstance(result.outcome, LLMError)
    assert result.outcome.retryable
