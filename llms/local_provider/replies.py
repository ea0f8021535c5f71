"""The other answers of models (completions, embeddings, images, lists of models), and which path gives which. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llms.local_provider import answers, dialects
from llms.local_provider.chat import FINGERPRINT, Sampling, chat_completion, parse_chat, parse_sampling, usage
from llms.local_provider.messages import PATH as MESSAGES_PATH
from llms.local_provider.messages import message, parse_messages
from llms.local_provider.options import ProviderOptions
from llms.local_provider.wire import (
    ApiError,
    JsonObject,
    integer_field,
    invalid,
    is_integer,
    is_list,
    missing,
    model_not_found,
    text_field,
    wrong_type,
)

_KNOWN_MODELS = (
    "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4", "gpt-5", "gpt-5-mini", "o3", "o4-mini", "gpt-3.5-turbo-instruct",
    "text-embedding-3-small", "text-embedding-3-large", "dall-e-3", "gpt-image-1",
)  # fmt: skip
_STARTED = 1_700_000_000
_MOST_EMBEDDED = 8192


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer has besides its request."""

    options: ProviderOptions
    request_id: str
    created: int
    """Seconds since 1970."""
    origin: str = ""
    """`http://host:port` of the provider, for the addresses of pictures."""


Reply: TypeAlias = Callable[[JsonObject, Context], JsonObject]


def reply_to(path: str, body: JsonObject, context: Context) -> JsonObject:
    """The answer of a model; `path` is one of `MODEL_PATHS`. Raises `ApiError`."""
    check_model(body, context.options)
    dialects.check_generations(body, context.options.batch_dialect)
    return MODEL_PATHS[path](body, context)


def check_model(body: JsonObject, options: ProviderOptions) -> None:
    if options.models is not None and (model := text_field(body, "model")) not in options.models:
        raise model_not_found(model)


def chat_reply(body: JsonObject, context: Context) -> JsonObject:
    request = parse_chat(body)
    return chat_completion(request, context.options, request_id=context.request_id, created=context.created)


def message_reply(body: JsonObject, context: Context) -> JsonObject:
    return message(parse_messages(body), context.options, request_id=context.request_id)


def completion_reply(body: JsonObject, context: Context) -> JsonObject:
    """`n` choices per prompt, in the order of the prompts; without `max_tokens` they end after 16, as OpenAI's."""
    sampling = parse_sampling(body, max_tokens=integer_field(body, "max_tokens", 16, 0), temperature=1.0)
    prompts = _texts(body, "prompt", "<|endoftext|>")
    top = integer_field(body, "logprobs", None, 0, 5)
    made = [_completion(prompt, sampling, context.options, index) for prompt in prompts for index in range(sampling.n)]
    echo = body.get("echo") is True
    choices: list[JsonObject] = []
    for index, answer in enumerate(made):
        text = prompts[index // sampling.n] + answer.text if echo else answer.text
        choices.append(
            {
                "index": index,
                "text": text,
                "logprobs": None if top is None else _plain_logprobs(text, top),
                "finish_reason": "length" if answer.cut else "stop",
            }
        )
    return {
        "id": f"cmpl-{context.request_id}",
        "object": "text_completion",
        "created": context.created,
        "model": sampling.model,
        "choices": choices,
        "usage": usage(sum(map(answers.count_tokens, prompts)), made),
        "system_fingerprint": FINGERPRINT,
    }


def _completion(prompt: str, sampling: Sampling, options: ProviderOptions, choice: int) -> answers.Answer:
    index = sampling.index(choice)
    text = answers.ordered_answer(options.answers, user=prompt, system="", model=sampling.model, index=index)
    if text is None:
        number = answers.choice_number(answers.digest_of(sampling.model, prompt, sampling.seed), index)
        text = answers.prose(prompt, number, options.answer_tokens)
    return answers.finish(text, sampling.max_tokens, sampling.stop)


def _plain_logprobs(text: str, top: int) -> JsonObject:
    tokens = answers.split_tokens(text)
    return {
        "tokens": tokens,
        "token_logprobs": [answers.token_logprob(token) for token in tokens],
        "top_logprobs": [_ranked(token, top) for token in tokens],
        "text_offset": [number * answers.CHARACTERS_PER_TOKEN for number in range(len(tokens))],
    }


def _ranked(token: str, top: int) -> dict[str, float]:
    return {other: answers.token_logprob(token, rank) for rank, other in enumerate(answers.alternatives(token, top))}


def _texts(body: JsonObject, name: str, default: str | None = None) -> list[str]:
    """The texts of `prompt` or `input`: one, several, one list of tokens, or several of them."""
    value = body.get(name, default)
    if value is None:
        raise missing(name)
    if isinstance(value, str):
        return [value]
    if not is_list(value):
        raise wrong_type(name, "a string or an array", value)
    if not value:
        raise invalid(name, f"Invalid '{name}': empty array. Expected at least one item.", "empty_array")
    if all(map(is_integer, value)):
        return [_untokenized(value)]
    return [_text(item, name) for item in value]


def _text(item: object, name: str) -> str:
    if isinstance(item, str):
        return item
    if is_list(item) and item and all(map(is_integer, item)):
        return _untokenized(item)
    raise wrong_type(name, "strings or arrays of tokens", item)


def _untokenized(tokens: Sequence[object]) -> str:
    """A text that stands for a list of tokens and counts as many."""
    return "".join(f"{token!s:.4}".ljust(4) for token in tokens)


def embedding_reply(body: JsonObject, _: Context) -> JsonObject:
    model, texts = text_field(body, "model"), _texts(body, "input")
    if len(texts) > 2048:
        raise invalid("input", f"Invalid 'input': array too long. Expected at most 2048 items, but got {len(texts)}.")
    if "" in texts:
        raise invalid("input", "Invalid 'input': input cannot be an empty string.")
    for text in texts:
        if (tokens := answers.count_tokens(text)) > _MOST_EMBEDDED:
            raise ApiError(
                400,
                f"This model's maximum context length is {_MOST_EMBEDDED} tokens, however you requested {tokens} tokens"
                f" ({tokens} in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
            )
    largest = 3072 if model.endswith("-large") else 1536
    dimensions = integer_field(body, "dimensions", largest, 1, 3072) or largest
    vectors = [answers.embedding(model, text, dimensions) for text in texts]
    in_base64 = _encoding(body) == "base64"
    data: list[JsonObject] = [
        {
            "object": "embedding",
            "index": index,
            "embedding": answers.as_base64(vector.tobytes()) if in_base64 else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(map(answers.count_tokens, texts))
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _encoding(body: JsonObject) -> str:
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format", f"Invalid value: {encoding!r}. Supported values are: 'float' and 'base64'.")
    return str(encoding)


def image_reply(body: JsonObject, context: Context) -> JsonObject:
    """Base64 PNGs. As at OpenAI, the models of the dall-e family give addresses unless told otherwise, and the
    gpt-image family refuses `response_format`."""
    prompt, model = text_field(body, "prompt"), str(body.get("model") or "dall-e-2")
    count = integer_field(body, "n", 1, 1, 10) or 1
    wanted = body.get("response_format")
    if wanted is not None and model.startswith("gpt-image"):
        raise invalid("response_format", "Unknown parameter: 'response_format'.", "unknown_parameter")
    if wanted not in (None, "url", "b64_json"):
        raise invalid("response_format", f"Invalid value: {wanted!r}. Supported values are: 'url' and 'b64_json'.")
    as_address = wanted == "url" or (wanted is None and model.startswith("dall-e"))
    digests = [answers.digest_of(model, prompt, body.get("size"), index) for index in range(count)]
    return {
        "created": context.created,
        "data": [_image(digest, context.origin, as_address=as_address) for digest in digests],
        "usage": _image_usage(prompt, count),
    }


def _image(digest: bytes, origin: str, *, as_address: bool) -> JsonObject:
    if as_address:
        return {"url": f"{origin}/_local/images/{digest.hex()}.png"}
    return {"b64_json": answers.as_base64(answers.png(digest))}


def _image_usage(prompt: str, count: int) -> JsonObject:
    tokens = answers.count_tokens(prompt)
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"text_tokens": tokens, "image_tokens": 0},
        "output_tokens": 256 * count,
        "total_tokens": tokens + 256 * count,
    }


def model_list(options: ProviderOptions) -> JsonObject:
    models = _KNOWN_MODELS if options.models is None else options.models
    return {"object": "list", "data": [_model(name) for name in models]}


def model_reply(name: str, options: ProviderOptions) -> JsonObject:
    """Raises `ApiError` 404 where `options.models` lacks the name."""
    if options.models is not None and name not in options.models:
        raise model_not_found(name)
    return _model(name)


def _model(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": FINGERPRINT}


MODEL_PATHS: dict[str, Reply] = {
    "/chat/completions": chat_reply,
    "/completions": completion_reply,
    "/embeddings": embedding_reply,
    "/images/generations": image_reply,
    MESSAGES_PATH: message_reply,
}
