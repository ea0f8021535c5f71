"""A key goes to the addresses that it's for, and to no other that comes as data: a parameter of a run, a record."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from llms import (
    AnthropicLLM,
    AzureOpenAILLM,
    BadRequestError,
    ConnectionFailedError,
    InferenceEndpointsLLM,
    OpenAILLM,
    ParameterError,
)
from llms.base import LLM
from llms.credentials import (
    ADDRESSES_VARIABLE,
    Credentials,
    _say_withheld,
    is_local,
    origin,
    use_credentials_store,
)
from llms.errors import AuthenticationError
from llms.loop import run_sync
from llms.providers.gemini import GeminiLLM
from llms.providers.openai_embeddings import OpenAIEmbeddings
from llms.registry import AnyLLM
from tests.echoing import EchoServer, answer

KEY = "sk-of-this-machine-0123456789"
CHAT: Any = [{"role": "user", "content": "Hi."}]
GATEWAY = "https://gateway.example/v1"
ELSEWHERE = "https://elsewhere.example/v1"

read: Callable[[Any], Any] = TypeAdapter(AnyLLM).validate_python


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, KEY)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "AZURE_OPENAI_ENDPOINT", ADDRESSES_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("llms.credentials._in_code", set())
    monkeypatch.setattr("llms.credentials._store", None)
    # It's said once of each address, and a server may have one of an earlier test's.
    _say_withheld.cache_clear()
    yield


def key_of(llm: Any) -> str:
    return llm.key().get_secret_value()


# Addresses that come as data


@pytest.mark.parametrize(
    ("provider", "fields"),
    [
        ("openai", {"model": "m"}),
        ("anthropic", {"model": "m"}),
        ("azure-openai", {"model": "m"}),
        ("inference-endpoints", {}),
    ],
)
def test_the_environments_key_isnt_sent_to_an_address_that_came_as_data(provider: str, fields: dict[str, Any]) -> None:
    llm = read({"provider": provider, "base_url": ELSEWHERE, **fields})

    with pytest.raises(
        AuthenticationError, match=rf"isn't sent to {ELSEWHERE[:20]}.*list it in STILLFLOW_KEY_ADDRESSES"
    ):
        llm.load()


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com.evil.example/v1",
        "https://api.openai.com@evil.example/v1",
        "http://api.openai.com/v1",
        "https://api.openai.com:8443/v1",
        "https://evil.example/https://api.openai.com/v1",
        "https://evil.example?https://api.openai.com/v1",
        "https://evil.example#api.openai.com",
        "https://evil.example\\@api.openai.com/v1",
        "https://EVIL.example",
        "//api.openai.com/v1",
    ],
)
def test_nor_to_one_that_only_looks_like_the_providers(url: str) -> None:
    with pytest.raises(AuthenticationError):
        read({"provider": "openai", "model": "m", "base_url": url}).load()


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "https://api.openai.com/v1/", "https://API.openai.com:443/v1", None]
)
def test_it_is_sent_to_the_providers_own(url: str | None) -> None:
    assert key_of(read({"provider": "openai", "model": "m", "base_url": url})) == KEY


def test_it_is_sent_to_the_one_in_the_providers_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", GATEWAY)

    assert key_of(read({"provider": "openai", "model": "m"})) == KEY
    assert key_of(read({"provider": "openai", "model": "m", "base_url": f"{GATEWAY}/team"})) == KEY
    # That of another provider's isn't its.
    with pytest.raises(AuthenticationError):
        read({"provider": "anthropic", "model": "m", "base_url": GATEWAY}).load()


def test_it_is_sent_to_those_that_the_operator_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESSES_VARIABLE, f"https://other.example, {GATEWAY}")
    llm = read({"provider": "openai", "model": "m", "base_url": GATEWAY})

    assert key_of(llm) == KEY
    monkeypatch.setenv(ADDRESSES_VARIABLE, "")
    with pytest.raises(AuthenticationError):
        llm.load()


@pytest.mark.parametrize("make", [OpenAILLM, OpenAIEmbeddings, AnthropicLLM, AzureOpenAILLM])
def test_code_says_where_its_key_goes(make: Callable[..., Any]) -> None:
    llm = make(model="m", base_url=GATEWAY)

    assert key_of(llm) == KEY
    assert key_of(deepcopy(llm)) == KEY
    assert key_of(llm.merged({"generation_kwargs": {}, "max_retries": 1, "base_url": GATEWAY})) == KEY
    # A form submits all that it shows.
    assert key_of(type(llm).model_validate(llm.model_dump(mode="json"))) == KEY
    with pytest.raises(AuthenticationError):
        llm.merged({"base_url": ELSEWHERE}).load()


def test_a_class_as_the_type_of_a_parameter_is_no_way_around_it() -> None:
    with pytest.raises(AuthenticationError):
        TypeAdapter(OpenAILLM).validate_python({"model": "m", "base_url": ELSEWHERE}).load()
    with pytest.raises(AuthenticationError):
        OpenAILLM.model_validate_json(f'{{"model": "m", "base_url": "{ELSEWHERE}"}}').load()
    llm = OpenAILLM(model="m")
    llm.set_runtime_parameters({"base_url": ELSEWHERE})
    with pytest.raises(AuthenticationError):
        llm.load()


def test_what_code_said_travels_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    by_code = pickle.dumps(OpenAILLM(model="m", base_url=GATEWAY))
    by_data = pickle.dumps(read({"provider": "openai", "model": "m", "base_url": ELSEWHERE}))
    monkeypatch.setattr("llms.credentials._in_code", set())

    assert key_of(pickle.loads(by_code)) == KEY
    with pytest.raises(AuthenticationError):
        pickle.loads(by_data).load()


def test_a_server_of_ones_own_gets_no_key_and_works_without(caplog: pytest.LogCaptureFixture) -> None:
    with EchoServer(answer) as server:
        llm = read({"provider": "openai", "model": "m", "base_url": f"{server.url}/v1"})
        llm.load()
        (output,) = llm.generate_outputs([CHAT])

    assert output["generations"]
    assert set(server.keys) == {"none"}
    assert f"{server.url}/v1 is sent no key: its address came with the run's parameters" in caplog.text


def test_nor_does_one_that_speaks_another_protocol() -> None:
    with EchoServer(answer) as server:
        read({"provider": "anthropic", "model": "claude", "base_url": server.url}).generate_outputs([CHAT])
        read({"provider": "inference-endpoints", "base_url": f"{server.url}/v1"}).generate_outputs([CHAT])

    assert set(server.keys) <= {"none", ""}
    assert all(KEY not in str(headers) for headers in server.headers)


def test_azure_gets_no_token_of_entra_id_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setattr("llms.providers.azure._has_azure_identity", lambda: True)
    monkeypatch.setattr("llms.providers.azure._entra_id_token", lambda: KEY)
    with EchoServer(answer) as server:
        for url in (server.url, ELSEWHERE):
            llm = read({"provider": "azure-openai", "model": "m", "base_url": url})
            with pytest.raises(AuthenticationError, match="isn't sent to"):
                llm.load()
            with pytest.raises(AuthenticationError, match="isn't sent to"):
                llm.generate_outputs([CHAT])

    assert server.keys == []


def test_the_login_of_hugging_face_isnt_sent_to_whoever_has_an_endpoint_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: KEY)
    url = "https://xyz.us-east-1.aws.endpoints.huggingface.cloud"

    with pytest.raises(AuthenticationError, match="isn't sent to"):
        read({"provider": "inference-endpoints", "base_url": url}).load()
    monkeypatch.setattr("llms.providers.inference_endpoints.served_model", lambda url, key: key.get_secret_value())
    for llm in (InferenceEndpointsLLM(base_url=url), read({"provider": "inference-endpoints", "base_url": url})):
        llm.load()
        assert llm._found_server().model == KEY


def test_where_there_is_no_key_any_address_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")

    assert key_of(read({"provider": "openai", "model": "m", "base_url": ELSEWHERE})) == "none"


# Keys that code or a run gives


def test_a_key_that_is_given_with_an_address_goes_there() -> None:
    assert key_of(OpenAILLM(model="m", base_url=ELSEWHERE, api_key=SecretStr("mine"))) == "mine"
    assert key_of(read({"provider": "openai", "model": "m", "base_url": ELSEWHERE, "api_key": "mine"})) == "mine"
    given = OpenAILLM(model="m", api_key=SecretStr("code's")).merged({"base_url": ELSEWHERE, "api_key": "mine"})
    assert key_of(given) == "mine"


@pytest.mark.parametrize("secret", [{"api_key": SecretStr(KEY)}, {"default_headers": {"Authorization": KEY}}])
@pytest.mark.parametrize("url", [ELSEWHERE, "http://127.0.0.1:1/v1"])
def test_a_key_in_code_isnt_sent_where_a_parameter_says(secret: dict[str, Any], url: str) -> None:
    llm = OpenAILLM(model="m", base_url=GATEWAY, **secret)

    with pytest.raises(ParameterError, match=rf"base_url: the key that code gives OpenAILLM is for {GATEWAY}, got"):
        llm.merged({"base_url": url})
    assert llm.merged({"base_url": f"{GATEWAY}/", "max_retries": 1}).max_retries == 1


def test_headers_without_a_secret_stand_in_no_ones_way() -> None:
    llm = OpenAILLM(model="m", default_headers={"X-Title": "Mine"})

    assert llm.merged({"base_url": ELSEWHERE}).base_url == ELSEWHERE


# Credentials blocks


@pytest.fixture
def blocks() -> dict[str, Credentials]:
    found = {"bound": Credentials(SecretStr(f"{KEY}\n"), GATEWAY), "unbound": Credentials(SecretStr(KEY))}
    use_credentials_store(found.__getitem__)
    return found


@pytest.mark.usefixtures("blocks")
def test_a_blocks_key_goes_to_the_blocks_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(read({"provider": "openai", "model": "m", "credentials": "bound"})) == KEY
    assert key_of(OpenAILLM(model="m", credentials="bound", base_url=f"{GATEWAY}/team")) == KEY
    monkeypatch.setenv(ADDRESSES_VARIABLE, ELSEWHERE)
    for llm in (
        read({"provider": "openai", "model": "m", "credentials": "bound", "base_url": ELSEWHERE}),
        OpenAILLM(model="m", credentials="bound", base_url=ELSEWHERE),
        OpenAILLM(model="m", credentials="bound").merged({"base_url": "http://127.0.0.1:1/v1"}),
    ):
        with pytest.raises(
            AuthenticationError, match=r"credentials='bound' isn't sent to .*: it's for https://gateway"
        ):
            llm.load()


@pytest.mark.usefixtures("blocks")
def test_the_key_of_a_block_without_an_address_is_bound_as_the_environments() -> None:
    assert key_of(read({"provider": "openai", "model": "m", "credentials": "unbound"})) == KEY
    assert key_of(OpenAILLM(model="m", credentials="unbound", base_url=GATEWAY)) == KEY
    for url in (ELSEWHERE, "http://127.0.0.1:1/v1"):
        with pytest.raises(AuthenticationError, match="give the block that address, or list it in STILLFLOW_KEY_AD"):
            read({"provider": "openai", "model": "m", "credentials": "unbound", "base_url": url}).load()


# Where is what


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1:11434", True),
        ("http://[::1]:8000", True),
        ("http://10.1.2.3", True),
        ("http://192.168.0.7:8080/v1", True),
        ("http://vllm:8000/v1", True),
        ("http://vllm.team.internal/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://8.8.8.8", False),
        ("https://localhost.evil.example", False),
        ("http://[::ffff:8.8.8.8]/", False),
    ],
)
def test_a_network_of_ones_own_is_told_from_the_rest(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_an_address_is_its_scheme_host_and_port() -> None:
    assert origin("https://Gateway.example/v1?x=1") == origin("https://me:word@gateway.example:443")
    assert len({origin(url) for url in ("http://a", "https://a", "https://a:8443", "https://b", "http://[a")}) == 5


def test_every_adapter_whose_address_can_be_given_binds_its_key() -> None:
    import llms
    from llms.credentials import BoundKey

    adapters = [
        each
        for each in vars(llms).values()
        if isinstance(each, type) and issubclass(each, LLM) and "base_url" in each.model_fields
    ]
    assert len(adapters) >= 8
    assert [each for each in adapters if not issubclass(each, BoundKey)] == []
    assert ConnectionFailedError.fatal


class Redirecting:
    """`with Redirecting(to) as server:` it answers everything with a redirect to the address `to`, or to itself."""

    def __init__(self, to: str = "") -> None:
        self.to = to
        self.seen: list[dict[str, str]] = []
        """The headers of every request."""

    def __enter__(self) -> Redirecting:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.seen.append(dict(self.headers))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(307)
                self.send_header("Location", f"{outer.to}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("kind", [AnthropicLLM, GeminiLLM])
def test_a_key_follows_no_redirect_to_another_server(kind: Any) -> None:
    with Redirecting() as elsewhere, Redirecting(elsewhere.url) as server:
        llm = kind(model="m", base_url=server.url, api_key="k", max_retries=0)
        (output,) = llm.generate_outputs(inputs=[[{"role": "user", "content": "Hi"}]])

    assert "where the key isn't sent" in output["error"]["message"]
    assert len(server.seen) == 1
    assert elsewhere.seen == []


def test_redirects_within_a_server_end_at_some_point() -> None:
    async def read(llm: AnthropicLLM) -> None:
        await llm.find_job("0" * 32, 0.0, {"requests": 1})

    with Redirecting() as server:
        llm = AnthropicLLM(model="m", base_url=server.url, api_key="k", max_retries=0)
        with pytest.raises(BadRequestError, match="redirects again and again"):
            run_sync(read(llm))

    assert len(server.seen) <= 10
