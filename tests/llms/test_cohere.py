"""What Cohere has beside what all adapters keep to: messages, thinking, log probabilities, statuses of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from llms import AuthenticationError, CohereLLM
from llms.errors import BadRequestError
from llms.providers.cohere import as_completion, messages_in
from llms.providers.openai import CHAT as COMPLETION
from llms.providers.openai import parse_answer
from tests.llms.wires import COHERE, KEY, Fault, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(COHERE) as running:
        yield running


def llm_at(server: StandIn, **fields: Any) -> CohereLLM:
    return CohereLLM(model="m", base_url=server.root, api_key=SecretStr(KEY), **fields)


def test_messages_are_as_they_were_without_what_is_null() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    assert messages_in(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Here:"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "name": "weather", "content": "sunny"},
        ]
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Here:"}, image]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    with pytest.raises(BadRequestError, match="named 'Ann'"):
        messages_in([{"role": "user", "content": "hi", "name": "Ann"}])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"thinking": "disabled"}, {"type": "disabled"}),
        ({"thinking_budget": 500}, {"type": "enabled", "token_budget": 500}),
    ],
)
def test_thinking_is_turned_off_and_bounded(server: StandIn, given: dict[str, Any], sent: dict[str, Any]) -> None:
    llm_at(server, generation_kwargs=given).generate_outputs(inputs=[CHAT])

    assert server.body["thinking"] == sent


def test_log_probabilities_are_those_of_its_chunks() -> None:
    chunks = [{"text": "Fine", "token_ids": [1, 2], "logprobs": [-0.25, -0.5]}, {"text": ".", "token_ids": [3]}]
    message = {"role": "assistant", "content": [{"type": "text", "text": "Fine."}]}
    answer = {"finish_reason": "COMPLETE", "message": message, "logprobs": chunks}

    output = parse_answer(as_completion(answer), COMPLETION)
    assert output.get("logprobs") == [[[{"token": "Fine", "logprob": -0.75}]]]


def test_what_is_paid_is_counted_where_it_is_said_and_all_tokens_elsewhere() -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Fine."}]}
    usage = {"billed_units": {"input_tokens": 9.0, "output_tokens": 2.0}, "tokens": {"input_tokens": 505.0}}

    billed = parse_answer(as_completion({"message": message, "usage": usage}), COMPLETION)
    plain = parse_answer(as_completion({"message": message, "usage": {"tokens": {"input_tokens": 505.0}}}), COMPLETION)
    assert billed["statistics"] == {"input_tokens": [9], "output_tokens": [2]}
    assert plain["statistics"]["input_tokens"] == [505]


def test_a_token_that_is_none_stops_a_run_and_a_closed_connection_is_tried_again(server: StandIn) -> None:
    server.faults = [Fault(499, "client closed request")]
    (output,) = llm_at(server).generate_outputs(inputs=[CHAT])
    server.always = Fault(498, "invalid token")

    assert output["generations"] == ["Fine."]
    with pytest.raises(AuthenticationError, match="invalid token"):
        llm_at(server).generate_outputs(inputs=[CHAT])


def test_the_names_of_its_own_client_are_told_with_ours() -> None:
    for theirs, ours in {"k": "top_k", "p": "top_p", "stop_sequences": "stop"}.items():
        with pytest.raises(ValueError, match=f"Here it is '{ours}'"):
            CohereLLM(model="m", generation_kwargs={theirs: 1})
