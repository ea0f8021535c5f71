"""POST /v1/chat/completions: the request as a data class, its checks, and its answer. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from llms.local_provider import answers, schema
from llms.local_provider.options import ProviderOptions
from llms.local_provider.wire import (
    JsonObject,
    integer_field,
    invalid,
    is_list,
    is_object,
    missing,
    number_field,
    text_field,
    wrong_type,
)

FINGERPRINT = "local-provider"
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_COUNTS_REASONING = re.compile(r"(o1|o3|o4|gpt-5)")
_FORMAT_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """What chat and plain completions have in common."""

    model: str
    n: int
    max_tokens: int | None
    temperature: float
    seed: int | None
    stop: tuple[str, ...]

    def index(self, choice: int) -> int:
        """The number that tells a choice from its siblings; temperature 0 makes them all equal."""
        return 0 if self.temperature == 0 else choice


@dataclass(frozen=True, slots=True)
class Shape:
    """The form that the answer must have."""

    kind: Literal["text", "json", "tool"] = "text"
    schema: object = None
    """JSON schema, or None for any JSON object."""
    tool: str = ""
    """Name of the function to call."""
    finish: str = "stop"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    sampling: Sampling
    messages: list[object]
    user: str
    """Text of the last message of the user."""
    system: str
    prompt_tokens: int
    shape: Shape
    logprobs: bool
    top_logprobs: int
    stream: bool
    stream_usage: bool


def parse_chat(body: JsonObject) -> ChatRequest:
    """Raises `ApiError` 400 as OpenAI does."""
    sampling = parse_sampling(body, max_tokens=_max_tokens(body), temperature=1.0)
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not is_list(messages):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise invalid(
            "messages", "Invalid 'messages': empty array. Expected an array with minimum length 1.", "empty_array"
        )
    texts = [_message_text(message, number) for number, message in enumerate(messages)]
    logprobs, top_logprobs = body.get("logprobs") is True, integer_field(body, "top_logprobs", 0, 0, 20) or 0
    if top_logprobs and not logprobs:
        raise invalid("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
    options = body.get("stream_options")
    return ChatRequest(
        sampling=sampling,
        messages=messages,
        user=next((text for role, text in reversed(texts) if role == "user"), texts[-1][1]),
        system=next((text for role, text in texts if role in ("system", "developer")), ""),
        prompt_tokens=3 + sum(3 + answers.count_tokens(text) for _, text in texts),
        shape=_parse_shape(body, texts),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        stream=body.get("stream") is True,
        stream_usage=is_object(options) and options.get("include_usage") is True,
    )


def parse_sampling(body: JsonObject, *, max_tokens: int | None, temperature: float) -> Sampling:
    stop = body.get("stop")
    sequences = [stop] if isinstance(stop, str) else stop if is_list(stop) else []
    if len(sequences) > 4:
        raise invalid("stop", f"Invalid 'stop': array too long. Expected at most 4 items, but got {len(sequences)}.")
    return Sampling(
        model=text_field(body, "model"),
        n=integer_field(body, "n", 1, 1, 128) or 1,
        max_tokens=max_tokens,
        temperature=number_field(body, "temperature", temperature, 0, 2),
        seed=integer_field(body, "seed", None, -(1 << 63), (1 << 63) - 1),
        stop=tuple(sequence for sequence in sequences if isinstance(sequence, str) and sequence),
    )


def _max_tokens(body: JsonObject) -> int | None:
    if body.get("max_tokens") is not None and _COUNTS_REASONING.match(text_field(body, "model")):
        raise invalid(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "unsupported_parameter",
        )
    most = integer_field(body, "max_tokens", None, 1)
    return integer_field(body, "max_completion_tokens", most, 1)


def _message_text(message: object, number: int) -> tuple[str, str]:
    """Role and text of a message."""
    if not is_object(message):
        raise wrong_type(f"messages[{number}]", "an object", message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise missing(f"messages[{number}].role")
    if role not in _ROLES:
        raise invalid(
            f"messages[{number}].role",
            f"Invalid value: {role!r}. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', "
            "and 'developer'.",
            "invalid_value",
        )
    if isinstance(content, str):
        return role, content
    if is_list(content):
        return role, "\n".join(_part_text(part, number) for part in content)
    if content is None and role == "assistant":
        return role, ""
    raise wrong_type(f"messages[{number}].content", "one of a string or array of objects", content)


def _part_text(part: object, number: int) -> str:
    """The text of one part of a message's content; of a picture, its address shortened."""
    if is_object(part):
        match part.get("type"), part.get("text"), part.get("image_url"):
            case "text", str(text), _:
                return text
            case "image_url", _, {"url": str(url)}:
                return f"image {url[:40]}"
            case "input_audio" | "file" | "refusal", _, _:
                return ""
            case _:
                pass
    raise invalid(
        f"messages[{number}].content",
        f"Invalid content part: {part!r:.100}. Supported types are 'text' with 'text', and 'image_url' with "
        "'image_url': {'url': ...}.",
        "invalid_value",
    )


def _parse_shape(body: JsonObject, texts: Sequence[tuple[str, str]]) -> Shape:
    if tool := _forced_tool(body):
        return tool
    wanted = body.get("response_format")
    if wanted is None:
        return Shape()
    match wanted:
        case {"type": "text"}:
            return Shape()
        case {"type": "json_object"}:
            if not any("json" in text.lower() for _, text in texts):
                raise invalid(
                    "messages",
                    "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                    "'json_object'.",
                )
            return Shape("json")
        case {"type": "json_schema", "json_schema": {}} if is_object(wanted):
            return Shape("json", _described_schema(wanted["json_schema"]))
        case _:
            raise invalid(
                "response_format",
                f"Invalid value for 'response_format': {wanted!r:.100}. Use {{'type': 'text'}}, 'json_object', or "
                "'json_schema' with 'json_schema': {'name': ..., 'schema': ...}.",
                "invalid_value",
            )


def _described_schema(described: object) -> object:
    if not is_object(described):
        raise missing("response_format.json_schema")
    name = described.get("name")
    if name is None:
        raise missing("response_format.json_schema.name")
    if not isinstance(name, str) or not _FORMAT_NAME.fullmatch(name):
        raise invalid(
            "response_format.json_schema.name",
            f"Invalid 'response_format.json_schema.name': {name!r} does not match '^[a-zA-Z0-9_-]{{1,64}}$'.",
            "invalid_value",
        )
    wanted = described.get("schema")
    if described.get("strict") is True and (problem := schema.strict_violation(wanted)):
        raise invalid("response_format", f"Invalid schema for response_format '{name}': {problem}")
    return {} if wanted is None else wanted


def _forced_tool(body: JsonObject) -> Shape | None:
    """The call that `tool_choice` forces; None where the model would be free to answer with text."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if choice is None:
        return None
    if not is_list(tools) or not tools:
        raise invalid(
            "tool_choice", "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        )
    functions = [tool["function"] for tool in tools if is_object(tool) and is_object(tool.get("function"))]
    match choice:
        case "none" | "auto":
            return None
        case "required":
            name, finish = None, "tool_calls"
        case {"type": "function", "function": {"name": str(name)}}:
            finish = "stop"
        case _:
            raise invalid("tool_choice", f"Invalid value for 'tool_choice': {choice!r:.100}.", "invalid_value")
    for function in functions:
        if is_object(function) and (name is None or function.get("name") == name):
            return Shape("tool", function.get("parameters") or {"type": "object"}, str(function.get("name")), finish)
    raise invalid("tool_choice", f"Invalid value for 'tool_choice': no function {name!r} found in 'tools'.")


def chat_answers(request: ChatRequest, options: ProviderOptions) -> list[answers.Answer]:
    """The texts of all choices (for a tool call, its arguments). Raises `ApiError` 400 for an impossible schema."""
    sampling = request.sampling
    digest = answers.digest_of(sampling.model, request.messages, sampling.seed)
    if sampling.temperature == 0:
        return [_one_answer(request, options, digest, 0)] * sampling.n
    return [_one_answer(request, options, digest, index) for index in range(sampling.n)]


def _one_answer(request: ChatRequest, options: ProviderOptions, digest: bytes, index: int) -> answers.Answer:
    sampling, shape = request.sampling, request.shape
    ordered = answers.ordered_answer(
        options.answers, user=request.user, system=request.system, model=sampling.model, index=index
    )
    number = answers.choice_number(digest, index)
    if shape.kind == "text":
        text = answers.prose(request.user, number, options.answer_tokens) if ordered is None else ordered
        return answers.finish(text, sampling.max_tokens, sampling.stop)
    if ordered is not None and _is_json_object(ordered):
        return answers.finish(ordered, sampling.max_tokens, ())
    wanted = shape.schema if shape.schema is not None else _ANY_OBJECT
    try:
        made = schema.instance(wanted, number.to_bytes(8), request.user)
    except schema.SchemaError as error:
        raise invalid("response_format", f"Invalid schema for response_format: {error}") from error
    return answers.finish(orjson.dumps(made).decode(), sampling.max_tokens, ())


_ANY_OBJECT: JsonObject = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "topics": {"type": "array", "items": {"type": "string", "maxLength": 20}},
    },
}


def _is_json_object(text: str) -> bool:
    try:
        return is_object(orjson.loads(text))
    except orjson.JSONDecodeError:
        return False


def chat_completion(request: ChatRequest, options: ProviderOptions, *, request_id: str, created: int) -> JsonObject:
    """The whole answer, `object: chat.completion`."""
    made = chat_answers(request, options)
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": created,
        "model": request.sampling.model,
        "choices": [_choice(request, answer, index) for index, answer in enumerate(made)],
        "usage": usage(request.prompt_tokens, made),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def usage(prompt_tokens: int, made: Sequence[answers.Answer]) -> JsonObject:
    completion = sum(answers.count_tokens(answer.text) for answer in made)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _choice(request: ChatRequest, answer: answers.Answer, index: int) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if request.shape.kind == "tool":
        message |= {"content": None, "tool_calls": [_tool_call(request, answer, index)]}
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(request, answer) if request.logprobs else None,
        "finish_reason": _finish_reason(request, answer),
    }


def _finish_reason(request: ChatRequest, answer: answers.Answer) -> str:
    return "length" if answer.cut else request.shape.finish


def _tool_call(request: ChatRequest, answer: answers.Answer, index: int) -> JsonObject:
    function = {"name": request.shape.tool, "arguments": answer.text}
    name = answers.digest_of(request.shape.tool, answer.text, index).hex()[:24]
    return {"id": f"call_{name}", "type": "function", "function": function}


def _logprobs(request: ChatRequest, answer: answers.Answer) -> JsonObject:
    content: list[JsonObject] = []
    for token in answers.split_tokens(answer.text):
        candidates = answers.alternatives(token, request.top_logprobs)
        top = [_logprob(other, answers.token_logprob(token, rank)) for rank, other in enumerate(candidates)]
        content.append({**_logprob(token, answers.token_logprob(token)), "top_logprobs": top})
    return {"content": content, "refusal": None}


def _logprob(token: str, value: float) -> JsonObject:
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "surrogatepass"))}


def chat_chunks(
    request: ChatRequest, options: ProviderOptions, *, request_id: str, created: int
) -> Iterator[JsonObject]:
    """The answer as the chunks of a stream, choice after choice, four tokens at a time."""
    head: JsonObject = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": request.sampling.model,
        "system_fingerprint": FINGERPRINT,
    }
    made = chat_answers(request, options)
    for index, answer in enumerate(made):
        for delta in _deltas(request, answer, index):
            yield {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]}
        reason = _finish_reason(request, answer)
        yield {**head, "choices": [{"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}]}
    if request.stream_usage:
        yield {**head, "choices": [], "usage": usage(request.prompt_tokens, made)}


def _deltas(request: ChatRequest, answer: answers.Answer, index: int) -> Iterator[JsonObject]:
    size = 4 * answers.CHARACTERS_PER_TOKEN
    pieces = [answer.text[start : start + size] for start in range(0, len(answer.text), size)]
    if request.shape.kind != "tool":
        yield {"role": "assistant", "content": "", "refusal": None}
        for piece in pieces:
            yield {"content": piece}
        return
    call = _tool_call(request, answers.Answer("", cut=False), index)
    yield {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}
    for piece in pieces:
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
