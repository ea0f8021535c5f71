"""Hugging Face's adapter against servers on real sockets: the local provider, and one that speaks TGI's protocol."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import BaseModel

from llms import (
    AuthenticationError,
    ConnectionFailedError,
    InferenceEndpointsLLM,
    LLMError,
    ModelNotFoundError,
    ParameterError,
)
from llms.concurrency import FIRST_ALLOWED
from llms.http import proxy_for
from llms.local_provider import LocalProvider
from llms.providers.inference_endpoints import chat_url, error_from, is_of_hugging_face, text_url

CHAT: Any = [{"role": "user", "content": "What's the capital of Spain?"}]
KEY = "hf_a-very-secret-token-0123456789"


class City(BaseModel):
    name: str


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No key of the machine, quick retries."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider() as running:
        yield running


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """Answers each request by `reply(path, body)`: status, JSON or bytes, headers."""

    reply: Callable[[str, Any], tuple[int, Any, dict[str, str]]]
    seen: list[Seen] = field(default_factory=list[Seen])

    def __enter__(self) -> Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append(Seen(self.path, headers, body))
                status, answer, further = outer.reply(self.path, body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **further}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def posts(self) -> list[Seen]:
        return [each for each in self.seen if each.body is not None]


def tgi(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
    """A Text Generation Inference server: the text is the prompt's echo."""
    if body is None:
        return 200, {"data": [{"id": "my/model"}]}, {}
    if path == "/v1/chat/completions":
        message = {"role": "assistant", "content": f"{body['messages'][-1]['content']}!"}
        usage = {"prompt_tokens": 4, "completion_tokens": 2}
        return 200, {"choices": [{"index": 0, "message": message}], "usage": usage}, {}
    tokens = [{"id": 1, "text": "a", "logprob": -0.5, "special": False}]
    details = {"finish_reason": "length", "generated_tokens": 3, "prefill": [], "tokens": tokens}
    return 200, [{"generated_text": f"{body['inputs']}...", "details": details}], {"x-prompt-tokens": "5"}


def llm_at(url: str, **fields: Any) -> InferenceEndpointsLLM:
    llm = InferenceEndpointsLLM(**{"base_url": url, **fields})
    llm.load()
    return llm


def one(llm: InferenceEndpointsLLM, given: Any = CHAT, **kwargs: Any) -> Any:
    (output,) = llm.generate_outputs(inputs=[given], **kwargs)
    return output


def bodies(provider: LocalProvider) -> list[Any]:
    return [request.body for request in provider.requests if request.path == "/chat/completions"]


# Places


def test_exactly_one_place_is_given() -> None:
    for fields in ({}, {"model_id": "a/b", "base_url": "http://x"}, {"model_id": "a/b", "endpoint_name": "e"}):
        with pytest.raises(ValueError, match="give exactly one of model_id"):
            InferenceEndpointsLLM(**fields)


def test_model_is_read_as_the_guide_writes_it() -> None:
    assert InferenceEndpointsLLM.model_validate({"model": "meta-llama/Meta-Llama-3.1-70B-Instruct"}).model_name == (
        "meta-llama/Meta-Llama-3.1-70B-Instruct"
    )


def test_the_place_is_switched_by_emptying_the_other() -> None:
    llm = InferenceEndpointsLLM(model_id="a/b").merged({"model_id": "", "base_url": "http://x"})

    assert llm.model_name == "http://x"


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"base_url has to begin with http.*'localhost:8080'"):
        InferenceEndpointsLLM(base_url="localhost:8080")


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/chat/completions"])
def test_addresses_are_found_from_any_part_of_them(url: str) -> None:
    assert chat_url(url) == "http://h:1/v1/chat/completions"
    assert text_url(url) == "http://h:1/"


@pytest.mark.parametrize(
    ("inference_provider", "model"), [("auto", "a/b"), ("together", "a/b:together"), ("cheapest", "a/b:cheapest")]
)
def test_a_model_goes_through_the_router_with_the_provider_in_its_name(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, inference_provider: str, model: str
) -> None:
    monkeypatch.setattr(InferenceEndpointsLLM, "router_url", provider.base_url)
    provider.set(api_key=KEY)
    llm = InferenceEndpointsLLM(model_id="a/b", inference_provider=inference_provider, api_key=KEY)  # pyright: ignore[reportArgumentType]
    llm.load()

    assert one(llm)["generations"][0]
    assert bodies(provider) == [{"model": model, "messages": CHAT}]
    assert llm.model_name == "a/b"


def test_a_server_is_asked_for_the_name_of_its_model() -> None:
    with Server(tgi) as server:
        one(llm_at(server.url))

        assert server.posts()[0].body["model"] == "my/model"


def test_a_server_that_lists_no_models_gets_any_name() -> None:
    def silent(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        return tgi(path, body) if body is not None else (404, b"not found", {})

    with Server(silent) as server:
        one(llm_at(server.url))

        assert server.posts()[0].body["model"] == "tgi"


def test_it_works_without_load() -> None:
    with Server(tgi) as server:
        llm = InferenceEndpointsLLM(base_url=server.url)

        assert [each["generations"] for each in llm.generate_outputs(inputs=[CHAT, "Hi"])] == [
            ["What's the capital of Spain?!"],
            ["Hi..."],
        ]


# Endpoints


def endpoint(state: str, url: str | None) -> dict[str, Any]:
    return {
        "name": "mine",
        "status": {
            "state": state,
            "url": url,
            "createdAt": "2025-01-01T00:00:00Z",
            "updatedAt": "2025-01-01T00:00:00Z",
        },
        "type": "protected",
        "healthRoute": "/health",
        "model": {"repository": "a/b", "framework": "pytorch", "revision": "1", "task": "text-generation"},
    }


@dataclass
class Endpoints:
    """Hugging Face's API of endpoints and an endpoint, on one server. Its state is the next one at each look."""

    states: list[str]

    def __call__(self, path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/endpoint/"):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if state == "missing":
                return 404, {"error": "Endpoint not found"}, {}
            return 200, endpoint(state, self.url if state in {"running", "scaledToZero"} else None), {}
        return tgi(path, body)

    url: str = ""


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(*states: str) -> Server:
        reply = Endpoints(list(states))
        server = Server(reply).__enter__()
        running.append(server)
        reply.url = server.url
        monkeypatch.setattr("huggingface_hub.constants.INFERENCE_ENDPOINTS_ENDPOINT", server.url)
        return server

    yield start
    for server in running:
        server.__exit__()


def endpoint_llm(**fields: Any) -> InferenceEndpointsLLM:
    return InferenceEndpointsLLM(**{"endpoint_name": "mine", "endpoint_namespace": "me", "api_key": KEY, **fields})


def test_an_endpoint_is_found_by_its_name(endpoints: Callable[..., Server]) -> None:
    server = endpoints("running")
    llm = endpoint_llm()
    llm.load()

    assert one(llm)["generations"] == ["What's the capital of Spain?!"]
    assert server.seen[0].path == "/endpoint/me/mine"
    assert {each.headers["authorization"] for each in server.seen} == {f"Bearer {KEY}"}
    assert llm.model_name == "mine"


def test_an_endpoint_that_starts_is_waited_for(
    endpoints: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub._inference_endpoints.time.sleep", lambda seconds: None)
    endpoints("scaledToZero", "initializing", "running")
    llm = endpoint_llm()
    llm.load()

    assert one(llm)["generations"][0]


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        ("paused", LLMError, r"endpoint 'mine' is 'paused': start it at https://endpoints\.huggingface\.co"),
        ("failed", LLMError, "endpoint 'mine' is 'failed'"),
        ("pending", LLMError, r"endpoint 'mine' didn't start \(start_timeout=0\)"),
        ("missing", ModelNotFoundError, "endpoint 'mine'"),
    ],
)
def test_an_endpoint_that_cant_answer_is_told(
    endpoints: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, state: str, kind: type[LLMError], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub._inference_endpoints.time.sleep", lambda seconds: None)
    endpoints(state)

    with pytest.raises(kind, match=message) as raised:
        endpoint_llm(start_timeout=0).load()
    assert KEY not in str(raised.value)


# Keys


def test_a_missing_key_is_told_at_load_with_what_to_do() -> None:
    with pytest.raises(AuthenticationError, match=r"'a/b' has no key: set HF_TOKEN, log in with `hf auth login`"):
        InferenceEndpointsLLM(model_id="a/b").load()


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_the_key_comes_from_the_argument_or_the_environment(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    provider.set(api_key=KEY)
    if source == "environment":
        monkeypatch.setenv("HF_TOKEN", KEY)

    assert one(llm_at(provider.base_url, **({"api_key": KEY} if source == "argument" else {})))["generations"][0]


def test_the_key_of_a_login_goes_to_hugging_face_only(tmp_path: Any) -> None:
    (tmp_path / "token").write_text(KEY)
    with Server(tgi) as server:
        one(llm_at(server.url))

        assert all("authorization" not in each.headers for each in server.seen)
    llm = InferenceEndpointsLLM(model_id="a/b")
    llm.load()
    assert llm._server is not None
    assert llm._server.key is not None
    assert llm._server.key.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://x.us-east-1.aws.endpoints.huggingface.cloud", True),
        ("https://router.huggingface.co/v1", True),
        ("https://me-space.hf.space/v1", True),
        ("https://huggingface.co.evil.com", False),
        ("https://nothuggingface.co", False),
        ("http://127.0.0.1:8080", False),
    ],
)
def test_hosts_of_hugging_face_are_known_by_their_end(url: str, own: bool) -> None:
    assert is_of_hugging_face(url) is own


def test_a_wrong_key_ends_everything_at_once(provider: LocalProvider) -> None:
    provider.set(api_key=KEY, latency=0.02)
    llm = llm_at(provider.base_url, api_key="hf_wrong-and-nobody-may-see-it")

    with pytest.raises(AuthenticationError, match="refuses the key") as raised:
        llm.generate_outputs(inputs=[CHAT] * 300)

    assert "nobody-may-see" not in str(raised.value)
    assert provider.stats.count("/chat/completions") <= FIRST_ALLOWED


def test_the_key_is_in_no_text_and_no_log(provider: LocalProvider, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        llm = llm_at(provider.base_url, api_key=KEY)
        one(llm)

    texts = [
        repr(llm),
        str(llm),
        llm.model_dump_json(),
        json.dumps(llm.identity()),
        repr(llm.limit_key),
        repr(llm._server),
    ]
    assert not [text for text in [*texts, caplog.text] if KEY in text]


# Chats


def test_a_chats_parameters_arrive_under_the_names_of_the_api(provider: LocalProvider) -> None:
    output = one(
        llm_at(provider.base_url, generation_kwargs={"temperature": "0.3"}),
        max_new_tokens=7,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        seed=3,
        stop="a",
        stop_sequences=["b"],
        logit_bias={"5": -100},
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 4},
    )

    assert bodies(provider)[0] == {
        "model": bodies(provider)[0]["model"],
        "messages": CHAT,
        "temperature": 0.3,
        "max_tokens": 7,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "seed": 3,
        "stop": ["a", "b"],
        "logit_bias": {"5": -100},
        "logprobs": True,
        "top_logprobs": 2,
        "top_k": 4,
    }
    assert len(output["logprobs"][0][0]) == 2


def test_tokens_of_a_chat_are_counted(provider: LocalProvider) -> None:
    statistics = one(llm_at(provider.base_url))["statistics"]

    assert statistics == {
        "input_tokens": [provider.stats.prompt_tokens],
        "output_tokens": [provider.stats.completion_tokens],
    }


def test_generations_are_requests_of_their_own_with_seeds_that_are_counted_on(provider: LocalProvider) -> None:
    output = one(llm_at(provider.base_url), num_generations=3, seed=10)

    assert sorted(body["seed"] for body in bodies(provider)) == [10, 11, 12]
    assert len(set(output["generations"])) == 3
    assert len(output["statistics"]["input_tokens"]) == 3


def test_generations_without_a_seed_send_none(provider: LocalProvider) -> None:
    one(llm_at(provider.base_url), num_generations=2)

    assert [set(body) for body in bodies(provider)] == [{"model", "messages"}] * 2


def test_answers_of_chats_fit_the_schema(provider: LocalProvider) -> None:
    output = one(llm_at(provider.base_url, structured_output=City))

    City.model_validate_json(output["generations"][0])
    assert bodies(provider)[0]["response_format"]["type"] == "json_schema"


def test_an_older_tgi_gets_the_schema_in_its_own_form() -> None:
    def older(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        if body and body.get("response_format", {}).get("type") == "json_schema":
            return 422, b"Failed to deserialize the JSON body: response_format: missing field `value` at line 1", {}
        return tgi(path, body)

    with Server(older) as server:
        llm = llm_at(server.url, structured_output=City)
        outputs = [*llm.generate_outputs(inputs=[CHAT] * 5), one(llm)]

        assert all(output["generations"][0] for output in outputs)
        assert server.posts()[-1].body["response_format"] == {"type": "json_object", "value": City.model_json_schema()}


# Bare prompts


def test_a_bare_prompt_goes_to_text_generation() -> None:
    with Server(tgi) as server:
        output = one(
            llm_at(f"{server.url}/v1"),
            "Once",
            max_new_tokens=9,
            top_k=4,
            repetition_penalty=1.1,
            typical_p=0.9,
            do_sample=True,
            return_full_text=True,
            watermark=True,
            truncation=100,
            stop="END",
            seed=1,
        )

        assert output["generations"] == ["Once..."]
        assert output["statistics"] == {"input_tokens": [5], "output_tokens": [3]}
        assert "logprobs" not in output
        assert server.posts()[0].path == "/"
        assert server.posts()[0].body == {
            "inputs": "Once",
            "parameters": {
                "max_new_tokens": 9,
                "top_k": 4,
                "repetition_penalty": 1.1,
                "typical_p": 0.9,
                "do_sample": True,
                "return_full_text": True,
                "watermark": True,
                "truncate": 100,
                "stop": ["END"],
                "seed": 1,
                "details": True,
            },
            "stream": False,
        }


def test_a_schema_of_a_bare_prompt_is_its_grammar() -> None:
    with Server(tgi) as server:
        one(llm_at(server.url, structured_output=City), "Once")

        assert server.posts()[0].body["parameters"]["grammar"] == {"type": "json", "value": City.model_json_schema()}


def test_logprobs_of_a_bare_prompt_have_the_shape_of_a_chats() -> None:
    with Server(tgi) as server:
        output = one(llm_at(server.url), "Once", logprobs=True)

        assert output["logprobs"] == [[[{"token": "a", "logprob": -0.5}]]]


def test_inference_providers_refuse_a_bare_prompt_with_the_way_out() -> None:
    output = one(InferenceEndpointsLLM(model_id="a/b", api_key=KEY), "Once")  # pyright: ignore[reportArgumentType]

    assert output["error"]["type"] == "BadRequestError"
    assert "give a chat, or deploy the model" in output["error"]["message"]


@pytest.mark.parametrize(
    ("given", "kwargs", "message"),
    [
        (CHAT, {"top_k": 3, "watermark": True}, "top_k, watermark: not for a chat, only for a bare prompt"),
        (
            "Once",
            {"logit_bias": {"1": 1}, "presence_penalty": 1},
            "logit_bias, presence_penalty: not for a bare prompt",
        ),
    ],
)
def test_a_parameter_of_the_other_kind_of_prompt_is_refused_not_dropped(
    given: Any, kwargs: dict[str, Any], message: str
) -> None:
    with Server(tgi) as server:
        output = one(llm_at(server.url), given, **kwargs)

        assert output["error"]["type"] == "BadRequestError"
        assert message in output["error"]["message"]
        assert server.posts() == []


def test_an_unknown_parameter_names_the_close_match() -> None:
    with pytest.raises(ParameterError, match="Did you mean 'repetition_penalty'"):
        InferenceEndpointsLLM(base_url="http://x").merged({"generation_kwargs": {"repetition_penaltiy": 1}})


# Failures


def test_a_model_that_loads_is_waited_for_as_long_as_it_says(waits: list[float]) -> None:
    answers = [(503, {"error": "Model a/b is currently loading", "estimated_time": 0.2}, {})] * 2

    def loading(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        return answers.pop() if body and answers else tgi(path, body)

    with Server(loading) as server:
        llm = llm_at(server.url)
        started = time.monotonic()
        assert one(llm)["generations"][0]

        assert time.monotonic() - started >= 0.4
        assert sum(waits) < 1.5
        assert len(server.posts()) == 3


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            422,
            {"error": "Input validation error: x", "error_type": "validation"},
            "BadRequestError",
            "Input validation",
        ),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 10"}, "ContextLengthError", "must be <= 10"),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 9 tokens.", "code": 400},
            "ContextLengthError",
            "9 tokens",
        ),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, "RateLimitError", "overloaded"),
        (424, {"error": "Request failed", "error_type": "generation"}, "OverloadedError", "Request failed"),
        (503, b"Service Unavailable", "OverloadedError", "Service Unavailable"),
        (502, b"<html>Bad Gateway</html>", "OverloadedError", "Bad Gateway"),
        (402, {"error": "You have exceeded your monthly included credits"}, "QuotaExceededError", "monthly"),
        (401, {"error": {"message": "Invalid token", "code": "x"}}, "AuthenticationError", "Invalid token"),
        (404, {"detail": "Not Found"}, "ModelNotFoundError", "Not Found"),
        (400, [], "BadRequestError", "[]"),
    ],
)
def test_refusals_of_all_shapes_become_typed_errors(status: int, body: Any, kind: str, said: str) -> None:
    error = error_from(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())

    assert type(error).__name__ == kind
    assert said in str(error)


@pytest.mark.parametrize(("given", "wait"), [("2", 2.0), ("0.5", 0.5), ("nan", None), ("-1", None), ("tomorrow", None)])
def test_the_wait_is_a_number_that_can_be_waited(given: str, wait: float | None) -> None:
    assert error_from(429, {"Retry-After": given}, b"{}").retry_after == wait


@pytest.mark.parametrize("how", ["truncated-json", "missing-choices", "null-content"])
def test_an_answer_that_is_paid_and_cannot_be_used_is_asked_for_once_more_at_most(
    provider: LocalProvider, how: str
) -> None:
    provider.set(faults=[{"malformed": how, "times": 1}])
    llm = llm_at(provider.base_url, max_retries=6)
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    provider.clear()

    assert one(llm)["error"]["type"] == "InvalidResponseError"
    assert len(bodies(provider)) == 2


@pytest.mark.parametrize("how", ["not-json", "empty", "html"])
def test_an_answer_that_is_none_is_retried_then_told(provider: LocalProvider, how: str) -> None:
    llm = llm_at(provider.base_url, max_retries=2)
    provider.set(faults=[{"malformed": how, "times": 2}])
    assert one(llm)["generations"][0]

    provider.set(faults=[{"malformed": how}])
    provider.clear()

    assert one(llm)["error"]["type"] == "InvalidResponseError"
    assert len(bodies(provider)) == 3


@pytest.mark.parametrize("answer", [[], [3], {"text": "x"}, {"generated_text": None}])
def test_a_text_answer_that_is_none_is_told(answer: Any) -> None:
    with Server(lambda path, body: (200, answer, {}) if body else tgi(path, body)) as server:
        assert one(llm_at(server.url, max_retries=0), "Once")["error"]["type"] == "InvalidResponseError"


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"disconnect": True}])
def test_failures_that_may_pass_are_retried_by_us_alone(provider: LocalProvider, fault: dict[str, Any]) -> None:
    llm = llm_at(provider.base_url, max_retries=3)
    provider.set(faults=[{"times": 3, **fault}])

    assert one(llm)["generations"][0]
    assert len(bodies(provider)) == 4


def test_a_request_without_an_answer_in_time_is_told(provider: LocalProvider) -> None:
    llm = llm_at(provider.base_url, timeout=0.1, max_retries=0)
    provider.set(faults=[{"hang": 5.0}])

    assert one(llm)["error"]["type"] == "RequestTimeoutError"


def test_a_server_that_isnt_there_is_told_with_its_address() -> None:
    with socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{not_listening.getsockname()[1]}"
        llm = llm_at(url, max_retries=1)

        with pytest.raises(ConnectionFailedError, match=url):
            llm.generate_outputs(inputs=[CHAT] * 20)


def test_a_filtered_answer_is_final(provider: LocalProvider) -> None:
    llm = llm_at(provider.base_url)
    provider.set(faults=[{"malformed": "content-filter"}])

    assert one(llm)["error"]["type"] == "ContentFilterError"
    assert len(bodies(provider)) == 1


@pytest.mark.parametrize(("exempt", "through"), [("", True), ("example.com", False)])
def test_the_environments_proxy_is_used(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, exempt: str, through: bool
) -> None:
    root = provider.base_url.removesuffix("/v1")
    monkeypatch.setenv("http_proxy", root)
    monkeypatch.setenv("no_proxy", exempt)

    assert proxy_for("http://example.com/v1") == (root if through else None)
    if through:
        llm = llm_at("http://example.com", max_retries=0)
        one(llm, extra_body={"model": "by-proxy"})
        assert "by-proxy" in [request.body["model"] for request in provider.requests if request.body]


# Bearing


def test_identity_has_what_decides_the_answers_and_nothing_of_speed() -> None:
    def identity(**fields: Any) -> dict[str, Any]:
        return InferenceEndpointsLLM(**{"model_id": "a/b", **fields}).identity()

    assert identity(timeout=1, api_key=KEY, credentials="x", start_timeout=3, max_retries=1) == identity()
    for change in ({"inference_provider": "groq"}, {"model_id": "c"}, {"generation_kwargs": {"seed": 1}}):
        assert identity(**change) != identity()


def test_it_works_inside_a_running_loop_and_on_several(provider: LocalProvider) -> None:
    llm = llm_at(provider.base_url)

    async def cell_of_a_notebook() -> Any:
        return one(llm), await llm.answer(CHAT)

    for _ in range(2):
        assert all(output["generations"][0] for output in asyncio.run(cell_of_a_notebook()))


def test_importing_llms_imports_no_sdk() -> None:
    import subprocess
    import sys

    program = (
        "import sys, llms; print([name for name in ('openai', 'huggingface_hub', 'aiohttp') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
