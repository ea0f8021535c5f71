"""OpenAI's Responses: items in both directions, and every way in which one ends."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from llms import LLMError
from llms.providers.openai import RESPONSES, parse_answer
from llms.providers.responses import input_items
from llms.typing import GenerateOutput
from tests.llms import wires
from tests.llms.wires import Saying


def response(*output: Any, **more: Any) -> dict[str, Any]:
    """One that the SDK's own types take."""
    made: dict[str, Any] = {
        **wires.RESPONSES.answer({"model": "m"}, Saying(None)),
        "tools": [],
        "tool_choice": "auto",
        **more,
    }
    made["output"] = list(output)
    Response.model_validate(made)
    return made


def said(words: str, phase: str | None = None, **content: Any) -> dict[str, Any]:
    part = content or {"type": "output_text", "text": words, "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    return {**message, **({"phase": phase} if phase else {})}


def parsed(given: dict[str, Any]) -> GenerateOutput:
    return parse_answer(given, RESPONSES)


def test_what_is_said_on_the_way_is_no_part_of_the_answer() -> None:
    output = parsed(response(said("Let me see. ", "commentary"), said("8,611 m.", "final_answer")))

    assert output["generations"] == ["8,611 m."]


def test_a_refusal_is_told_with_its_words() -> None:
    refusal = said("", type="refusal", refusal="I can't help with that.")

    with pytest.raises(LLMError, match="the model refused: I can't help with that"):
        parsed(response(refusal))


def test_the_call_of_a_tool_without_text_is_told() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}

    with pytest.raises(LLMError, match="the model called a tool"):
        parsed(response(call))


@pytest.mark.parametrize(
    ("code", "kind", "again"),
    [
        ("server_error", "OverloadedError", True),
        ("rate_limit_exceeded", "RateLimitError", True),
        ("invalid_prompt", "LLMError", False),
        ("bio_policy", "LLMError", False),
    ],
)
def test_a_response_that_failed_says_why(code: str, kind: str, again: bool) -> None:
    with pytest.raises(LLMError, match="it went wrong") as raised:
        parsed(response(status="failed", error={"code": code, "message": "it went wrong"}))

    assert (type(raised.value).__name__, raised.value.retryable) == (kind, again)


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled"])
def test_a_response_that_has_not_ended_is_no_whole_answer(status: str) -> None:
    assert parsed(response(said("8,6"), status=status)).get("unfinished") == [True]


def test_log_probabilities_are_read() -> None:
    token = {"token": "8", "bytes": [56], "logprob": -0.5, "top_logprobs": []}
    part: dict[str, Any] = {"type": "output_text", "text": "8", "annotations": [], "logprobs": [token]}

    assert parsed(response(said("8", **part))).get("logprobs") == [[[{"token": "8", "logprob": -0.5}]]]


def test_images_and_tools_are_items_and_parts_of_their_own() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}

    items = input_items(
        [
            {"role": "user", "content": [{"type": "text", "text": "Here:"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ]
    )

    assert items == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Here:"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
            ],
        },
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city": "Madrid"}'},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ]
