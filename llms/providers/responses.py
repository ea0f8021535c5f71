"""OpenAI's Responses in terms of its chat completions, in both directions.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llms.reading import list_in, object_in, text_in

PARTS = {"text": "input_text", "image_url": "input_image"}
"""Of a message's content."""


def input_items(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chat as the input of a response. The calls of tools and their results are items of their own."""
    return [item for message in chat for item in _items(message)]


def _items(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": content or ""}]
    items: list[dict[str, Any]] = []
    if content:
        parts = list_in(cast("object", content))
        whole = [_part(object_in(part)) for part in parts] or content
        items.append({"role": message["role"], "content": whole})
    for call in map(object_in, list_in(message.get("tool_calls"))):
        function = object_in(call.get("function"))
        named = {"name": function.get("name"), "arguments": function.get("arguments")}
        items.append({"type": "function_call", "call_id": call.get("id"), **named})
    return items


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") == "image_url":
        image = object_in(part.get("image_url"))
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
    return {**part, "type": PARTS.get(str(part.get("type")), part.get("type"))}


def as_completion(response: Mapping[str, Any]) -> dict[str, Any]:
    """A response as a chat completion of one choice; of none, where it is no response."""
    items = [object_in(item) for item in list_in(response.get("output"))]
    messages = [item for item in items if item.get("type") == "message"]
    # What is said on the way to it is no part of the answer.
    final = [item for item in messages if item.get("phase") == "final_answer"] or messages
    parts = [object_in(part) for item in final for part in list_in(item.get("content"))]
    texts = [part.get("text") for part in parts if part.get("type") == "output_text"]
    said = "".join(map(text_in, texts)) if texts and all(isinstance(text, str) for text in texts) else None
    refusals = [str(part.get("refusal") or "") for part in parts if part.get("type") == "refusal"]
    thoughts = [
        str(object_in(each).get("text") or "")
        for item in items
        if item.get("type") == "reasoning"
        for each in (list_in(item.get("content")) or list_in(item.get("summary")))
    ]
    places = [place for part in parts for place in list_in(part.get("logprobs"))]
    choice = {
        "finish_reason": _reason(response),
        "message": {
            "content": said,
            "refusal": " ".join(refusals),
            "reasoning": "\n\n".join(filter(None, thoughts)),
            "tool_calls": [item for item in items if item.get("type") == "function_call"],
        },
        "logprobs": {"content": places} if places else None,
    }
    kept = {name: response.get(name) for name in ("model", "usage", "service_tier", "error")}
    return {**kept, "choices": [choice] if response.get("status") else []}


def _reason(response: Mapping[str, Any]) -> object:
    """Why it ended, in the words of completions where they have one."""
    status = response.get("status")
    if status == "incomplete":
        return object_in(response.get("incomplete_details")).get("reason")
    return "stop" if status == "completed" else cast("object", status)
