"""Chats with tool calls, ids and names reach every provider whole, or are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, validate_call

from llms import AnthropicLLM, AsyncLLM, AzureOpenAILLM, InferenceEndpointsLLM, OpenAILLM
from llms.errors import BadRequestError
from llms.providers.anthropic import split_system
from llms.typing import ChatType, GenerateOutput
from tests.echoing import EchoServer, answer

CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}},
    {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]
CHAT: Any = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Weather and time?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
    {"role": "assistant", "content": "Sunny, at noon."},
    {"role": "user", "content": "Thanks. And tomorrow?"},
]


@pytest.fixture
def server() -> Iterator[tuple[EchoServer, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []

    def reply(key: str, body: dict[str, Any]) -> tuple[int, Any]:
        bodies.append(body)
        return answer("nobody", body)

    with EchoServer(reply) as running:
        yield running, bodies


def test_openais_protocol_takes_all_of_them(server: tuple[EchoServer, list[dict[str, Any]]]) -> None:
    running, bodies = server
    named = [{"role": "user", "name": "Ada", "content": "Hi."}, *CHAT[2:]]
    adapters = [
        OpenAILLM(model="m", base_url=f"{running.url}/v1"),
        AzureOpenAILLM(model="m", base_url=running.url, api_key=SecretStr("a-key-of-azure")),
        InferenceEndpointsLLM(base_url=f"{running.url}/v1"),
    ]

    for llm in adapters:
        llm.generate_outputs([CHAT, named])

    assert len(bodies) == 2 * len(adapters)
    assert all(body["messages"] in (CHAT, named) for body in bodies)


def test_they_go_into_batches_as_well() -> None:
    line = json.loads(OpenAILLM(model="m").batch_line(OpenAILLM(model="m").batch_request("id", CHAT, 1)))

    assert line["body"]["messages"] == CHAT


def test_anthropic_gets_them_in_its_own_form(server: tuple[EchoServer, list[dict[str, Any]]]) -> None:
    running, bodies = server

    AnthropicLLM(model="claude", base_url=running.url, api_key=SecretStr("a-key")).generate_outputs([CHAT])

    (body,) = bodies
    assert body["system"] == "Be brief."
    assert body["messages"] == [
        {"role": "user", "content": "Weather and time?"},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Madrid"}},
                {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "noon"}]},
            ],
        },
        {"role": "assistant", "content": "Sunny, at noon."},
        {"role": "user", "content": "Thanks. And tomorrow?"},
    ]


def test_words_beside_a_call_and_arguments_as_an_object_are_kept() -> None:
    call = {"id": "c1", "function": {"name": "weather", "arguments": {"city": None}}}

    _, turns = split_system([{"role": "assistant", "content": "Let me see.", "tool_calls": [call]}])

    assert turns[0]["content"] == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": None}},
    ]


def test_results_of_calls_that_were_made_one_after_another_stay_apart() -> None:
    first, second = ({"role": "assistant", "content": None, "tool_calls": [call]} for call in CALLS)
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "x"} for each in CALLS]

    _, turns = split_system([first, results[0], second, results[1]])

    assert [len(turn["content"]) for turn in turns] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user", "name": "Ada", "content": "Hi."}, "no names, got one of the user named 'Ada'"),
        ({"role": "system", "name": "rules", "content": "Hi."}, "no names"),
        ({"role": "function", "name": "f", "content": "x"}, "no names|the older form"),
        ({"role": "function", "content": "x"}, "the older form"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "the older form"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]},
            "a tool call",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[]"}}]},
            "a tool call",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            "a tool call with an id",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]},
            "a tool call with an id, a function's name",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "take text and images"),
    ],
)
def test_what_anthropic_has_no_place_for_is_refused_before_it_is_sent(
    message: Any, said: str, server: tuple[EchoServer, list[dict[str, Any]]]
) -> None:
    running, bodies = server
    llm = AnthropicLLM(model="claude", base_url=running.url, api_key=SecretStr("a-key"))
    chat: Any = [message, {"role": "user", "content": "Hi."}]

    (output,) = llm.generate_outputs([chat])

    problem = output.get("error")
    assert problem is not None
    assert problem["type"] == "BadRequestError"
    assert bodies == []
    with pytest.raises(BadRequestError, match=said):
        llm.batch_request("id", chat, 1)


class Own(AsyncLLM):
    """As the guide of distilabel writes one: its input is validated."""

    @property
    def model_name(self) -> str:
        return "own"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1) -> GenerateOutput:
        return {"generations": [json.dumps(input)], "statistics": {"input_tokens": [1], "output_tokens": [1]}}


def test_a_validated_chat_of_an_own_llm_loses_nothing() -> None:
    (output,) = Own().generate_outputs([CHAT])

    assert json.loads(output["generations"][0] or "") == CHAT
    assert TypeAdapter(ChatType).validate_python(CHAT) == CHAT
