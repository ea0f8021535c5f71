"""OpenAI's adapter against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from llms import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OpenAILLM,
    ParameterError,
    QuotaExceededError,
    RequestTimeoutError,
)
from llms.concurrency import FIRST_ALLOWED
from llms.limits import RETRIES_BEFORE_FIRST_CONTACT
from llms.local_provider import LocalProvider
from llms.providers.openai import refusal_from
from tests.conftest import LONGEST

CHAT: Any = [{"role": "user", "content": "What's the capital of Spain?"}]
KEY = "sk-a-very-secret-key-0123456789"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with LocalProvider() as running:
        yield running


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def llm_at(provider: LocalProvider, **fields: Any) -> OpenAILLM:
    llm = OpenAILLM(**{"model": "gpt-4o-mini", "base_url": provider.base_url, **fields})
    llm.load()
    return llm


def one(llm: OpenAILLM, given: Any = CHAT, **kwargs: Any) -> Any:
    (output,) = llm.generate_outputs(inputs=[given], **kwargs)
    return output


def bodies(provider: LocalProvider, path: str = "/chat/completions") -> list[Any]:
    return [request.body for request in provider.requests if request.path == path]


# Requests and answers


def test_a_chat_goes_to_chat_completions(provider: LocalProvider) -> None:
    provider.set(answers={"Spain": "The capital of Spain is Madrid."})

    output = one(llm_at(provider))

    assert output["generations"] == ["The capital of Spain is Madrid."]
    assert bodies(provider) == [{"model": "gpt-4o-mini", "messages": CHAT}]


def test_a_bare_prompt_goes_to_completions(provider: LocalProvider) -> None:
    provider.set(answers={"Once": " upon a time"})
    llm = llm_at(provider, generation_kwargs={"max_new_tokens": 50, "echo": True, "stop": "END"})

    assert one(llm, "Once")["generations"] == ["Once upon a time"]
    assert bodies(provider, "/completions") == [
        {"model": "gpt-4o-mini", "prompt": "Once", "max_tokens": 50, "echo": True, "stop": "END"}
    ]


def test_the_address_comes_from_the_environment_where_none_is_given(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.base_url}/")
    llm = OpenAILLM(model="m")
    llm.load()

    assert one(llm)["generations"][0]
    assert llm.identity()["base_url"] == provider.base_url


def test_every_parameter_arrives_under_the_name_of_the_api(provider: LocalProvider) -> None:
    llm = llm_at(provider, default_headers={"x-team": "data"})
    one(
        llm,
        temperature=0.3,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        stop=["a", "b"],
        seed=7,
        max_new_tokens=12,
        extra_body={"top_k": 40},
    )

    assert bodies(provider) == [
        {
            "model": "gpt-4o-mini",
            "messages": CHAT,
            "temperature": 0.3,
            "top_p": 0.9,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "stop": ["a", "b"],
            "seed": 7,
            "max_tokens": 12,
            "top_k": 40,
        }
    ]
    assert provider.requests[-1].headers["x-team"] == "data"


def test_messages_with_images_pass_as_they_are_with_a_stop(provider: LocalProvider) -> None:
    parts = [
        {"type": "text", "text": "What is on it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    chat = [{"role": "user", "content": parts}]

    assert one(llm_at(provider), chat, stop="END")["generations"][0]
    assert bodies(provider)[0]["messages"] == chat
    assert bodies(provider)[0]["stop"] == "END"


def test_tokens_are_counted_per_generation_and_the_prompt_once(provider: LocalProvider) -> None:
    output = one(llm_at(provider), num_generations=3)

    assert output["statistics"]["input_tokens"] == [provider.stats.prompt_tokens, 0, 0]
    assert sum(output["statistics"]["output_tokens"]) == provider.stats.completion_tokens
    assert all(count > 0 for count in output["statistics"]["output_tokens"])


def test_outputs_come_in_the_order_of_the_inputs(provider: LocalProvider) -> None:
    provider.set(latency=(0.0, 0.05), answers={r"number (?P<n_th>\d+)": "answer {n_th}"})
    inputs: Any = [[{"role": "user", "content": f"number {number}"}] for number in range(60)]

    outputs = llm_at(provider).generate_outputs(inputs=inputs)

    assert [output["generations"] for output in outputs] == [[f"answer {number}"] for number in range(60)]


def test_logprobs_of_chats_and_of_completions_have_one_shape(provider: LocalProvider) -> None:
    llm = llm_at(provider)

    for given in (CHAT, "Once upon"):
        (places,) = one(llm, given, logprobs=True, top_logprobs=2)["logprobs"]
        assert all(len(place) == 2 and set(place[0]) == {"token", "logprob"} for place in places)
        assert all(place[0]["logprob"] >= place[1]["logprob"] for place in places)


def test_logprobs_without_alternatives_are_those_of_the_tokens(provider: LocalProvider) -> None:
    output = one(llm_at(provider), logprobs=True)

    assert "".join(place[0]["token"] for place in output["logprobs"][0]) == output["generations"][0]


# The parameter for the tokens


@pytest.mark.parametrize("model", ["o3", "o4-mini", "gpt-5", "gpt-5-mini", "openai/gpt-5", "openai/o1"])
def test_reasoning_models_get_max_completion_tokens_everywhere(provider: LocalProvider, model: str) -> None:
    one(llm_at(provider, model=model), max_new_tokens=9)

    assert bodies(provider)[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in bodies(provider)[0]


@pytest.mark.parametrize("model", ["gpt-4o", "llama-o3x", "demo1", "mistral"])
def test_other_models_of_compatible_servers_get_max_tokens(provider: LocalProvider, model: str) -> None:
    one(llm_at(provider, model=model), max_new_tokens=9)

    assert bodies(provider)[0]["max_tokens"] == 9


def test_openai_itself_gets_max_completion_tokens() -> None:
    request = OpenAILLM(model="gpt-4o", base_url="https://api.openai.com/v1/", api_key=SecretStr("k"))

    assert request.batch_request("1", CHAT, 1).body == {"model": "gpt-4o", "messages": CHAT}
    request.generation_kwargs = {"max_new_tokens": 5}
    assert request.batch_request("1", CHAT, 1).body["max_completion_tokens"] == 5


@pytest.mark.parametrize(
    ("model", "refused", "wanted"),
    [("llama", "max_tokens", "max_completion_tokens"), ("org/gpt-5", "max_completion_tokens", "max_tokens")],
)
def test_the_name_of_the_tokens_parameter_is_learned_from_a_refusal(
    provider: LocalProvider, model: str, refused: str, wanted: str
) -> None:
    message = f"Unsupported parameter: '{refused}' is not supported with this model. Use '{wanted}' instead."
    rule = {"match": f'"{refused}"', "status": 400, "message": message}
    # Requests that are under way when the first refusal comes must learn as well.
    provider.set(faults=[rule], latency=0.02)
    llm = llm_at(provider, model=model, generation_kwargs={"max_new_tokens": 9})

    outputs = llm.generate_outputs(inputs=[CHAT] * 40)

    assert all(output["generations"][0] for output in outputs)
    provider.clear()
    one(llm)
    assert [body[wanted] for body in bodies(provider)] == [9]


def test_a_server_that_takes_neither_name_gets_no_third_try(provider: LocalProvider) -> None:
    provider.set(
        faults=[
            {"match": '"max_tokens"', "status": 400, "message": "unknown field 'max_tokens'"},
            {"match": '"max_completion_tokens"', "status": 400, "message": "unknown field 'max_completion_tokens'"},
        ]
    )

    output = one(llm_at(provider), max_new_tokens=9)

    assert output["error"]["type"] == "BadRequestError"
    assert len(bodies(provider)) == 2


# Several generations


def test_several_generations_are_one_request(provider: LocalProvider) -> None:
    output = one(llm_at(provider), num_generations=4)

    assert len(set(output["generations"])) == 4
    assert [body["n"] for body in bodies(provider)] == [4]


@pytest.mark.parametrize("message", ["'n' must be 1", 'Unsupported parameter: "n"', "only one completion: `n` > 1"])
def test_a_server_that_refuses_n_is_asked_once_per_generation(provider: LocalProvider, message: str) -> None:
    provider.set(faults=[{"match": '"n":', "status": 400, "message": message}], latency=0.02)
    llm = llm_at(provider)

    outputs = llm.generate_outputs(inputs=[CHAT] * 10, num_generations=3)

    assert all(len(output["generations"]) == 3 and all(output["generations"]) for output in outputs)
    assert all(len(output["statistics"]["output_tokens"]) == 3 for output in outputs)
    provider.clear()
    one(llm, num_generations=3)
    assert len(bodies(provider)) == 3


def test_a_seed_is_counted_on_when_generations_are_repeated(provider: LocalProvider) -> None:
    provider.set(faults=[{"match": '"n":', "status": 400, "message": "'n' is not supported"}])

    output = one(llm_at(provider), num_generations=3, seed=5)

    assert sorted(body["seed"] for body in bodies(provider) if "n" not in body) == [5, 6, 7]
    assert len(set(output["generations"])) == 3


def test_a_server_that_gives_fewer_generations_is_asked_for_the_rest() -> None:
    with AnswersOnce() as url:
        llm = OpenAILLM(model="m", base_url=url)
        llm.load()
        output = one(llm, num_generations=3)

    assert sorted(output["generations"]) == ["1", "2", "3"]
    assert output["statistics"] == {"input_tokens": [2, 2, 2], "output_tokens": [1, 1, 1]}


class AnswersOnce:
    """A server that knows no `n`: every answer has one choice, the number of the request. It keeps the headers."""

    headers: list[dict[str, str]]

    def __enter__(self) -> str:
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from itertools import count

        numbers = count(1)
        headers = self.headers = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                headers.append({name.lower(): value for name, value in self.headers.items()})
                self.rfile.read(int(self.headers["Content-Length"]))
                choice = {"index": 0, "message": {"role": "assistant", "content": str(next(numbers))}}
                usage = {"prompt_tokens": 2, "completion_tokens": 1}
                answer = json.dumps({"choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_request_carries_what_the_sdk_sends_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_1")
    own = {"X-Team": "data"}
    server = AnswersOnce()
    with server as url:
        one(OpenAILLM(model="m", base_url=url, organization="org_1", default_headers=own))
        sdk = openai.OpenAI(base_url=url, organization="org_1", default_headers=own)
        sdk.chat.completions.create(model="m", messages=CHAT)
    ours, theirs = server.headers

    for name in ("authorization", "openai-organization", "openai-project", "x-team", "accept", "content-type"):
        assert ours[name] == theirs[name] != ""


@pytest.mark.parametrize("exempt", ["", "nobody.invalid"])
def test_the_environments_proxy_is_used(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    monkeypatch.setenv("http_proxy", provider.base_url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", exempt)
    llm = OpenAILLM(model=f"by-proxy-{exempt}", base_url="http://nobody.invalid:1/v1", max_retries=0)

    if exempt:
        with pytest.raises(ConnectionFailedError):
            one(llm)
    else:
        assert one(llm)["generations"]


# Structured output


class City(BaseModel):
    name: str
    inhabitants: int


class CityWithRemark(BaseModel):
    name: str
    remark: str = ""


def test_answers_fit_the_pydantic_class_given_in_strict_mode(provider: LocalProvider) -> None:
    llm = llm_at(provider, structured_output=City)

    City.model_validate_json(one(llm)["generations"][0])
    assert bodies(provider)[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "City",
            "strict": True,
            "schema": {**City.model_json_schema(), "additionalProperties": False},
        },
    }


def test_a_schema_with_optional_properties_is_sent_as_it_is_without_strict_mode(provider: LocalProvider) -> None:
    schema = CityWithRemark.model_json_schema()

    output = one(llm_at(provider), (CHAT, schema))

    CityWithRemark.model_validate_json(output["generations"][0])
    assert bodies(provider)[0]["response_format"]["json_schema"] == {
        "name": "CityWithRemark",
        "strict": False,
        "schema": schema,
    }


def test_the_schema_of_an_input_goes_before_that_of_the_llm(provider: LocalProvider) -> None:
    llm = llm_at(provider, structured_output=City)

    output = one(llm, (CHAT, {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}))

    assert set(json.loads(output["generations"][0])) == {"x"}


def test_structured_output_of_a_bare_prompt_is_refused_not_dropped(provider: LocalProvider) -> None:
    output = one(llm_at(provider, structured_output=City), "Madrid is")

    assert output["error"]["type"] == "BadRequestError"
    assert "needs a chat" in output["error"]["message"]
    assert not bodies(provider, "/completions")


# Keys


def test_a_server_of_ones_own_needs_no_key(provider: LocalProvider) -> None:
    assert one(llm_at(provider))["generations"][0]


def test_the_key_comes_from_the_argument_before_the_environment(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.set(api_key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "another")

    assert one(llm_at(provider, api_key=KEY))["generations"][0]


def test_the_key_comes_from_the_environment(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.set(api_key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    assert one(llm_at(provider))["generations"][0]


@pytest.mark.usefixtures("provider")
def test_a_missing_key_is_told_at_load_with_what_to_do() -> None:
    with pytest.raises(AuthenticationError, match=r"gpt-4.*has no key: set OPENAI_API_KEY, or name a credentials"):
        OpenAILLM(model="gpt-4").load()


def test_a_wrong_key_ends_everything_at_once_in_one_message(provider: LocalProvider, waits: list[float]) -> None:
    provider.set(api_key=KEY, latency=0.02)
    llm = llm_at(provider, api_key="sk-a-wrong-key-that-nobody-may-see")

    with pytest.raises(AuthenticationError, match="the provider refuses the key") as raised:
        llm.generate_outputs(inputs=[CHAT] * 500)

    assert waits == []
    assert "wrong-key-that-nobody" not in str(raised.value)
    assert provider.stats.count("/chat/completions") <= FIRST_ALLOWED


@pytest.mark.parametrize("code", ["insufficient_quota", "context_length_exceeded", "content_filter"])
def test_a_refusal_in_a_list_is_the_same_as_alone(code: str) -> None:
    alone = {"error": {"code": code, "message": "No more of this."}}

    said = [refusal_from(429, {}, json.dumps(body).encode()) for body in (alone, [alone])]

    assert type(said[0]) is type(said[1])
    assert str(said[0]) == str(said[1])
    assert "No more of this" in str(said[1])


def test_a_wrong_key_doesnt_stop_another_one_for_the_same_model(provider: LocalProvider) -> None:
    provider.set(api_key=KEY)
    with pytest.raises(AuthenticationError):
        one(llm_at(provider, api_key="wrong"))

    assert one(llm_at(provider, api_key=KEY))["generations"][0]


def test_the_key_is_in_no_text_of_the_llm(provider: LocalProvider) -> None:
    llm = llm_at(provider, api_key=KEY, default_headers={"x-key": KEY})

    for text in (repr(llm), str(llm), llm.model_dump_json(), json.dumps(llm.identity()), repr(llm.limit_key)):
        assert KEY not in text


# Failures


def test_a_refused_request_waits_as_long_as_the_provider_asks(provider: LocalProvider, waits: list[float]) -> None:
    provider.set(faults=[{"times": 2, "status": 429, "retry_after": 0.2}])

    started = time.monotonic()
    assert one(llm_at(provider))["generations"][0]

    assert time.monotonic() - started >= 0.4
    assert sum(waits) < 1.5
    assert len(bodies(provider)) == 3


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
@pytest.mark.usefixtures("quick_retries")
def test_failures_that_may_pass_are_retried(provider: LocalProvider, status: int) -> None:
    provider.set(faults=[{"times": 2, "status": status}])

    assert one(llm_at(provider))["generations"][0]
    assert len(bodies(provider)) == 3


@pytest.mark.usefixtures("quick_retries")
def test_retries_end_with_the_last_failure_in_the_row(provider: LocalProvider) -> None:
    provider.set(faults=[{"match": "Spain", "status": 503, "message": "no capacity"}])

    bad, good = llm_at(provider, max_retries=2).generate_outputs(inputs=[CHAT, [{"role": "user", "content": "Hi"}]])

    assert bad["generations"] == [None]
    assert bad["error"] == {
        "type": "OverloadedError",
        "message": "the provider failed (503): no capacity",
        "retryable": True,
    }
    assert good["generations"][0]
    assert len(bodies(provider)) == 4


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 400}, "BadRequestError"),
        ({"status": 422}, "BadRequestError"),
        ({"status": 400, "code": "context_length_exceeded"}, "ContextLengthError"),
        ({"status": 400, "code": "content_policy_violation"}, "ContentFilterError"),
        ({"malformed": "content-filter"}, "ContentFilterError"),
        ({"malformed": "refusal"}, "ContentFilterError"),
    ],
)
def test_final_failures_are_not_retried_and_stay_in_their_row(
    provider: LocalProvider, fault: dict[str, Any], kind: str
) -> None:
    provider.set(faults=[{"match": "Spain", **fault}])

    bad, good = llm_at(provider).generate_outputs(inputs=[CHAT, [{"role": "user", "content": "Hi"}]], num_generations=2)

    assert bad["generations"] == [None, None]
    assert bad["error"]["type"] == kind
    assert not bad["error"]["retryable"]
    assert all(good["generations"])
    assert len(bodies(provider)) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 403}, AuthenticationError),
        ({"status": 404}, ModelNotFoundError),
        ({"status": 402}, QuotaExceededError),
        ({"status": 429, "code": "insufficient_quota"}, QuotaExceededError),
    ],
)
def test_failures_that_no_request_can_escape_are_raised(
    provider: LocalProvider, fault: dict[str, Any], kind: type[LLMError]
) -> None:
    provider.set(faults=[fault])

    with pytest.raises(kind):
        one(llm_at(provider))
    assert len(bodies(provider)) == 1


def test_an_unknown_model_is_told_by_name(provider: LocalProvider) -> None:
    provider.set(models=["gpt-4o"])

    with pytest.raises(ModelNotFoundError, match="gpt-4o-mini"):
        one(llm_at(provider))


@pytest.mark.parametrize("how", ["truncated-json", "missing-choices", "null-content"])
@pytest.mark.usefixtures("quick_retries")
def test_an_answer_that_is_paid_and_cannot_be_used_is_asked_for_once_more_at_most(
    provider: LocalProvider, how: str
) -> None:
    provider.set(faults=[{"malformed": how, "times": 1}])
    llm = llm_at(provider, max_retries=6)
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    provider.clear()
    output = one(llm)

    assert output["error"]["type"] == InvalidResponseError.__name__
    assert output["generations"] == [None]
    assert len(bodies(provider)) == 2


@pytest.mark.parametrize("how", ["not-json", "empty", "html"])
@pytest.mark.usefixtures("quick_retries")
def test_an_answer_that_is_none_is_retried_then_told(provider: LocalProvider, how: str) -> None:
    provider.set(faults=[{"malformed": how, "times": 2}])
    llm = llm_at(provider, max_retries=2)
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    provider.clear()
    output = one(llm)

    assert output["error"]["type"] == InvalidResponseError.__name__
    assert output["generations"] == [None]
    assert len(bodies(provider)) == 3


@pytest.mark.usefixtures("quick_retries")
def test_connections_that_are_cut_are_retried(provider: LocalProvider) -> None:
    provider.set(faults=[{"disconnect": True, "times": 3}])

    assert one(llm_at(provider))["generations"][0]
    assert len(bodies(provider)) == 4


@pytest.mark.usefixtures("quick_retries")
def test_a_request_without_an_answer_in_time_is_retried_then_told(provider: LocalProvider, waits: list[float]) -> None:
    provider.set(faults=[{"hang": LONGEST}])

    output = one(llm_at(provider, timeout=0.1, max_retries=1))

    assert output["error"] == {
        "type": RequestTimeoutError.__name__,
        "message": f"no answer from {provider.base_url} in 0.1 s",
        "retryable": True,
    }
    assert len(waits) == 1, "one before the one retry"


def test_a_server_that_isnt_there_ends_all_requests_within_seconds_in_one_error(
    provider: LocalProvider, waits: list[float]
) -> None:
    with socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{not_listening.getsockname()[1]}/v1"
        llm = llm_at(provider, base_url=url)

        with pytest.raises(ConnectionFailedError) as raised:
            llm.generate_outputs(inputs=[CHAT] * 200)

    # They wait side by side, each at most so often.
    assert max(waits) * RETRIES_BEFORE_FIRST_CONTACT < 5
    assert url in str(raised.value)
    assert "base_url or OPENAI_BASE_URL" in str(raised.value)


def test_an_address_without_a_scheme_is_told() -> None:
    llm = OpenAILLM(model="m", base_url="localhost:8000/v1", max_retries=0)

    with pytest.raises(ConnectionFailedError, match="localhost:8000"):
        one(llm)


# Runtime parameters


def test_strings_are_coerced_where_the_values_arrive(provider: LocalProvider) -> None:
    llm = llm_at(provider, generation_kwargs={"temperature": "0.3", "max_new_tokens": "20", "logprobs": "true"})

    one(llm, top_p="0.5")

    sent = bodies(provider)[0]
    assert (sent["temperature"], sent["max_tokens"], sent["logprobs"], sent["top_p"]) == (0.3, 20, True, 0.5)


def test_what_says_no_more_than_the_default_is_neither_kept_nor_sent(provider: LocalProvider) -> None:
    llm = llm_at(provider, generation_kwargs={"logprobs": False, "echo": "false", "extra_body": {}, "seed": None})

    one(llm)

    assert llm.generation_kwargs == {}
    assert llm.identity() == llm_at(provider).identity()
    assert set(bodies(provider)[0]) == {"model", "messages"}


def test_an_unknown_parameter_names_the_close_match(provider: LocalProvider) -> None:
    with pytest.raises(ParameterError, match=r"temperatur.*Did you mean 'temperature'"):
        one(llm_at(provider), temperatur=0.3)


def test_a_value_out_of_range_is_told_with_what_was_got() -> None:
    with pytest.raises(ValueError, match=r"temperature.*less than or equal to 2, got 3"):
        OpenAILLM(model="m", generation_kwargs={"temperature": 3})


def test_runtime_parameters_are_listed_described_and_set() -> None:
    llm = OpenAILLM(model="m")

    names = llm.runtime_parameters_names
    described = {entry["name"]: entry for entry in llm.get_runtime_parameters_info()}
    llm.set_runtime_parameters({"generation_kwargs": {"temperature": "0.5"}, "max_retries": "2"})
    llm.set_runtime_parameters({"generation_kwargs": {"top_p": 0.1}})

    assert names["generation_kwargs"]["temperature"] is True
    assert "input" not in names["generation_kwargs"]
    assert "api_key" not in names
    keys = {key["name"]: key for key in described["generation_kwargs"]["keys"]}
    assert keys["max_new_tokens"] == {
        "name": "max_new_tokens",
        "optional": True,
        "description": "The most tokens of one answer.",
    }
    assert llm.generation_kwargs == {"temperature": 0.5, "top_p": 0.1}
    assert llm.max_retries == 2


def test_keywords_of_a_call_leave_the_llm_as_it_is(provider: LocalProvider) -> None:
    llm = llm_at(provider, generation_kwargs={"temperature": 0.1})

    one(llm, temperature=0.9)

    assert bodies(provider)[0]["temperature"] == 0.9
    assert llm.generation_kwargs == {"temperature": 0.1}


def test_identity_has_what_decides_the_answers_and_nothing_of_speed(provider: LocalProvider) -> None:
    slow, fast = (llm_at(provider, timeout=each, max_retries=int(each), api_key=f"k{each}") for each in (1.0, 2.0))

    assert slow.identity() == fast.identity()
    assert slow.identity() != llm_at(provider, generation_kwargs={"seed": 1}).identity()
    assert slow.identity() != llm_at(provider, base_url="http://elsewhere/v1").identity()


def test_what_an_llm_was_used_for_makes_no_difference(provider: LocalProvider) -> None:
    fresh, used = llm_at(provider), llm_at(provider)
    one(used, temperature=0.5)

    assert used == fresh
    assert pickle.loads(pickle.dumps(used)) == fresh
    assert one(pickle.loads(pickle.dumps(used)))["generations"][0]


# Loops


def test_generate_outputs_works_inside_a_running_loop(provider: LocalProvider) -> None:
    llm = llm_at(provider)

    async def cell_of_a_notebook() -> Any:
        return one(llm)

    assert asyncio.run(cell_of_a_notebook())["generations"][0]
    assert asyncio.run(cell_of_a_notebook())["generations"][0]


def test_answers_can_be_awaited_on_several_loops_one_after_the_other(provider: LocalProvider) -> None:
    llm = llm_at(provider)

    for _ in range(3):
        assert asyncio.run(llm.answer(CHAT))["generations"][0]


def test_a_program_ends_without_a_word_about_its_connections(provider: LocalProvider) -> None:
    import subprocess
    import sys

    program = f"""
from llms import OpenAILLM
llm = OpenAILLM(model="m", base_url={provider.base_url!r})
llm.load()
llm.generate_outputs(inputs=[[{{"role": "user", "content": "Hi"}}]])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stderr == ""
