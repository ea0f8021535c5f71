"""Anthropic's Messages API: the request as a chat, its answer, and the errors. Pure."""

import orjson

from llms.local_provider.answers import count_tokens
from llms.local_provider.chat import ChatRequest, Sampling, Shape, chat_answers
from llms.local_provider.options import ProviderOptions
from llms.local_provider.wire import (
    ApiError,
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

PATH = "/messages"
_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(status: int, message: str, request_id: str = "req_local") -> JsonObject:
    """A refusal in Anthropic's shape."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def parse_messages(body: JsonObject) -> ChatRequest:
    """Raises `ApiError` 400 for what Anthropic refuses."""
    most = integer_field(body, "max_tokens", None, 1)
    if most is None:
        raise ApiError(400, "max_tokens: Field required")
    if body.get("stream") is True:
        raise invalid("stream", "stream: the local provider doesn't stream messages")
    stop = body.get("stop_sequences")
    sampling = Sampling(
        model=text_field(body, "model"),
        n=1,
        max_tokens=most,
        temperature=number_field(body, "temperature", 1.0, 0, 1),
        seed=None,
        stop=tuple(each for each in stop if isinstance(each, str) and each) if is_list(stop) else (),
    )
    _check_thinking(body, most)
    messages = body.get("messages")
    if not is_list(messages) or not messages:
        raise ApiError(400, "messages: at least one message is required")
    texts = [_role_and_text(message, number) for number, message in enumerate(messages)]
    system = _text(body.get("system", ""), "system")
    return ChatRequest(
        sampling=sampling,
        messages=[system, *messages],
        user=next((text for role, text in reversed(texts) if role == "user"), texts[-1][1]),
        system=system,
        prompt_tokens=3 + sum(3 + count_tokens(text) for text in (system, *(text for _, text in texts))),
        shape=_shape(body),
        logprobs=False,
        top_logprobs=0,
        stream=False,
        stream_usage=False,
    )


def _check_thinking(body: JsonObject, most: int) -> None:
    thinking = body.get("thinking")
    if is_object(thinking) and thinking.get("type") == "enabled":
        budget = integer_field(thinking, "budget_tokens", None, 1024)
        if budget is None or budget >= most:
            raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`")


def _role_and_text(message: object, number: int) -> tuple[str, str]:
    if not is_object(message):
        raise wrong_type(f"messages.{number}", "an object", message)
    role = message.get("role")
    if role not in ("user", "assistant"):
        raise ApiError(400, f"messages.{number}.role: Input should be 'user' or 'assistant', got {role!r}")
    return role, _text(message.get("content"), f"messages.{number}.content")


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not is_list(content):
        raise wrong_type(where, "a string or an array of blocks", content)
    return "\n".join(_block_text(block, where) for block in content)


def _block_text(block: object, where: str) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image", "source": {"type": "base64", "media_type": str(), "data": str(data)}}:
            return f"image {data[:40]}"
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return f"image {url[:40]}"
        case _:
            raise ApiError(400, f"{where}: {block!r:.100} is no block of type text or image")


def _shape(body: JsonObject) -> Shape:
    match body.get("tool_choice"):
        case {"type": "tool", "name": str(name)}:
            return Shape("tool", _tool_schema(body, name), name, "tool_use")
        case _:
            pass
    config = body.get("output_config")
    wanted = config.get("format") if is_object(config) else None
    if wanted is None:
        return Shape()
    if not is_object(wanted) or wanted.get("type") != "json_schema" or not is_object(wanted.get("schema")):
        raise ApiError(400, f"output_config.format: {wanted!r:.100} has to be of type json_schema with a schema")
    _check_closed(wanted["schema"])
    return Shape("json", wanted["schema"])


def _tool_schema(body: JsonObject, name: str) -> object:
    tools = body.get("tools")
    for tool in tools if is_list(tools) else []:
        if is_object(tool) and tool.get("name") == name:
            schema = tool.get("input_schema")
            if not is_object(schema) or schema.get("type") != "object":
                raise ApiError(400, "tools.0.custom.input_schema.type: Field required")
            return schema
    raise missing(f"tools with a tool {name!r}")


def _check_closed(schema: object) -> None:
    """As Anthropic, structured outputs take no open object."""
    if is_list(schema):
        for each in schema:
            _check_closed(each)
    if is_object(schema):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise ApiError(
                400, "output_config.format.schema: every object must have 'additionalProperties' set to false"
            )
        for each in schema.values():
            _check_closed(each)


def message(request: ChatRequest, options: ProviderOptions, *, request_id: str) -> JsonObject:
    """The whole answer, `type: message`."""
    (answer,) = chat_answers(request, options)
    tool = request.shape.kind == "tool"
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "model": request.sampling.model,
        "content": [_tool_use(request, answer.text, request_id) if tool else {"type": "text", "text": answer.text}],
        "stop_reason": "max_tokens" if answer.cut else "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": request.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": count_tokens(answer.text),
        },
    }


def _tool_use(request: ChatRequest, text: str, request_id: str) -> JsonObject:
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        given = {}
    return {"type": "tool_use", "id": f"toolu_{request_id}", "name": request.shape.tool, "input": given}


def spoiled_message(answer: JsonObject, how: str) -> JsonObject:
    """A message that refuses, or that lacks its content."""
    if how in ("refusal", "content-filter"):
        return {**answer, "content": [], "stop_reason": "refusal"}
    if how == "null-content":
        return {**answer, "content": None}
    return {name: value for name, value in answer.items() if name != "content"}
