"""What Ollama's own API has beside what all adapters keep to: addresses, contexts, images, thoughts, bare prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from llms import OllamaLLM
from llms.errors import BadRequestError
from llms.providers.ollama import messages_in
from tests.llms.wires import KEY, OLLAMA, Saying, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(OLLAMA) as running:
        yield running


def llm_at(server: StandIn, **fields: Any) -> OllamaLLM:
    return OllamaLLM(model="m", base_url=server.root, api_key=SecretStr(KEY), **fields)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("1.2.3.4:56789", "http://1.2.3.4:56789"),
        (":56789", "http://127.0.0.1:56789"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("https://example.com", "https://example.com"),
        ("https://example.com:56789/path/", "https://example.com:56789/path"),
        ("example.com:56789/path", "http://example.com:56789/path"),
    ],
)
def test_its_variable_is_read_as_its_own_client_reads_it(given: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", given)

    assert OllamaLLM(model="m").url() == url


def test_it_needs_no_key_and_its_cloud_gets_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    OllamaLLM(model="m").load()
    monkeypatch.setenv("OLLAMA_API_KEY", "key-of-the-cloud")

    assert OllamaLLM(model="m", base_url="https://ollama.com").key().get_secret_value() == "key-of-the-cloud"


def test_a_prompt_is_not_to_be_cut(server: StandIn) -> None:
    llm_at(server).generate_outputs(inputs=[CHAT], num_ctx=512)

    assert (server.body["truncate"], server.body["shift"]) == (False, False)
    assert server.body["options"] == {"num_ctx": 512}


@pytest.mark.parametrize(("read", "kind"), [(511, None), (512, "ContextLengthError")])
def test_a_prompt_that_was_cut_all_the_same_is_told(server: StandIn, read: int, kind: str | None) -> None:
    server.saying = Saying(prompt=read)
    (output,) = llm_at(server).generate_outputs(inputs=[CHAT], num_ctx=512)

    error = output.get("error")
    assert (error and error["type"]) == kind
    assert error is None or "num_ctx=512" in error["message"]


@pytest.mark.parametrize(("think", "sent"), [("off", False), ("on", True), ("low", "low")])
def test_thinking_is_turned_off_and_on_and_down(server: StandIn, think: str, sent: Any) -> None:
    llm_at(server).generate_outputs(inputs=[CHAT], think=think)

    assert server.body["think"] == sent


def test_how_long_the_model_stays_is_no_part_of_the_question(server: StandIn) -> None:
    llm = llm_at(server, keep_alive="-1")
    llm.generate_outputs(inputs=[CHAT])

    assert server.body["keep_alive"] == "-1"
    assert llm.identity() == llm_at(server).identity()


def test_images_and_tools_are_in_its_own_form() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

    messages = messages_in(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Here:"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "name": "weather", "content": "sunny"},
        ]
    )

    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Here:", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Madrid"}}}],
        },
        {"role": "tool", "content": "sunny", "tool_name": "weather"},
    ]


def test_an_image_by_its_address_is_refused_with_the_way_out() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    with pytest.raises(BadRequestError, match="takes images as data:image"):
        messages_in([{"role": "user", "content": [part]}])


def test_a_bare_prompt_goes_to_the_model_as_it_is() -> None:
    class Raw(StandIn):
        def reply(self, path: str, headers: Any, content: bytes) -> Any:
            assert path == "/api/generate"
            answer = b'{"model": "m", "response": " a time", "done": true, "done_reason": "stop", "eval_count": 2}'
            self.raw = content
            return 200, answer, {}

    with Raw(OLLAMA) as server:
        (output,) = llm_at(server).generate_outputs(inputs=["Once upon"])

        assert output["generations"] == [" a time"]
        assert b'"raw":true' in server.raw
        assert b'"prompt":"Once upon"' in server.raw


def test_the_names_of_its_own_client_are_told_with_ours() -> None:
    with pytest.raises(ValueError, match="Here it is 'base_url'"):
        OllamaLLM(model="m", host="http://localhost")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="Here it is 'max_new_tokens'"):
        OllamaLLM(model="m", generation_kwargs={"num_predict": 5})
