"""LiteLLM: what is sent where with which key, and what its exceptions mean. Few of these need LiteLLM itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from llms import AuthenticationError, LiteLLM
from llms.errors import BadRequestError
from llms.providers.litellm import error_from, with_own_words
from tests.llms.wires import KEY, LITELLM, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


def test_no_key_of_the_environment_goes_to_an_address_that_came_with_a_runs_parameters() -> None:
    away = LiteLLM.model_validate({"model": "openai/m", "base_url": "https://litellm.example"})
    near = LiteLLM.model_validate({"model": "openai/m", "base_url": "http://127.0.0.1:14711"})
    given = LiteLLM.model_validate({"model": "openai/m", "base_url": "https://litellm.example", "api_key": KEY})

    with pytest.raises(AuthenticationError, match="no key of this machine is sent to https://litellm.example"):
        away.load()
    # Without any it would find one in the environment.
    assert near.key().get_secret_value() == "none"
    assert given.key().get_secret_value() == KEY
    assert LiteLLM(model="openai/m").key().get_secret_value() == ""


def test_an_address_in_a_models_name_is_refused() -> None:
    with pytest.raises(BadRequestError, match="give the address by base_url"):
        LiteLLM(model="huggingface/https://endpoint.example").key()


def test_further_fields_of_a_body_are_no_parameters_of_litellm() -> None:
    llm = LiteLLM(model="openai/m", generation_kwargs={"extra_body": {"base_url": "https://evil.example", "top_k": 3}})

    _, body = llm.question(CHAT)[:2]
    assert body == {
        "model": "openai/m",
        "messages": CHAT,
        "extra_body": {"base_url": "https://evil.example", "top_k": 3},
    }


def test_the_providers_own_word_for_the_end_goes_before_litellms() -> None:
    choices = [
        {"finish_reason": "stop", "provider_specific_fields": {"native_finish_reason": "ERROR"}},
        {"finish_reason": "length", "provider_specific_fields": None},
    ]

    assert [each["finish_reason"] for each in with_own_words({"choices": choices})["choices"]] == ["ERROR", "length"]


def raised(name: str, status: int | None = None) -> Exception:
    error = type(name, (Exception,), {})("it said so")
    if status is not None:
        vars(error)["status_code"] = status
    return error


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("ContextWindowExceededError", 400, "ContextLengthError"),
        ("ContentPolicyViolationError", 400, "ContentFilterError"),
        ("BudgetExceededError", None, "QuotaExceededError"),
        ("UnsupportedParamsError", 400, "BadRequestError"),
        ("Timeout", 408, "RequestTimeoutError"),
        ("AuthenticationError", 401, "AuthenticationError"),
        ("PermissionDeniedError", 403, "AuthenticationError"),
        ("NotFoundError", 404, "ModelNotFoundError"),
        ("RateLimitError", 429, "RateLimitError"),
        ("ServiceUnavailableError", 503, "OverloadedError"),
        ("BadRequestError", 400, "BadRequestError"),
        ("APIConnectionError", 500, "InvalidResponseError"),
        ("ConnectError", None, "ConnectionFailedError"),
        ("SomethingElse", None, "InvalidResponseError"),
    ],
)
def test_an_exception_means(name: str, status: int | None, kind: str) -> None:
    error = error_from(raised(name, status), "https://litellm.example")

    assert type(error).__name__ == kind
    assert "it said so" in str(error)


def test_a_server_that_is_not_there_is_told() -> None:
    pytest.importorskip("litellm")
    llm = LiteLLM(model="openai/m", base_url="http://127.0.0.1:9/v1", api_key=SecretStr(KEY), max_retries=0)

    with pytest.raises(Exception, match="can't reach http://127.0.0.1:9/v1"):
        llm.generate_outputs(inputs=[CHAT])


def test_further_fields_come_into_the_body() -> None:
    pytest.importorskip("litellm")
    with StandIn(LITELLM) as server:
        llm = LiteLLM(model="openai/m", base_url=f"{server.root}/v1", api_key=SecretStr(KEY))
        llm.generate_outputs(inputs=[CHAT], extra_body={"user": "u"})

        assert server.body["user"] == "u"
