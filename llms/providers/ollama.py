"""Ollama by its own API, which its compatible one is less than: https://docs.ollama.com/api/chat.

There, a prompt longer than the context (`num_ctx`, a few thousand tokens where nothing sets it) is cut in silence.
The server is asked not to, and an answer to a prompt that filled the context is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from llms.errors import BadRequestError, ContextLengthError
from llms.parameters import Unasked, short
from llms.providers.openai import CHAT, parse_answer
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.reading import count_in, list_in, object_in
from llms.service import ServiceLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

PORT = 11434
CLOUD = "https://ollama.com"

OPTIONS = {
    "max_new_tokens": "num_predict",
    "repetition_penalty": "repeat_penalty",
    **{
        name: name
        for name in ("num_ctx", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty")
    },
    "seed": "seed",
}
"""By our name: its own, among the `options`."""


class OllamaApi(ServiceLLM):
    """Where an Ollama server is: for its chats and its embeddings."""

    key_variables: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    url_variable: ClassVar[str] = "OLLAMA_HOST"
    own_url: ClassVar[str] = f"http://127.0.0.1:{PORT}"

    base_url: Annotated[
        str | None, Field(title="Address", description="Of the server. Empty: OLLAMA_HOST, or this machine.")
    ] = None
    keep_alive: Annotated[
        str, Field(title="Keep alive", description="How long the model stays in memory: 10m, -1 for ever."), Unasked()
    ] = ""
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 600.0

    def url(self) -> str:
        """The address that requests go to. As Ollama has it, `host:port` is one, and a host alone."""
        given = super().url()
        address = given if "://" in given else f"http://{given}"
        parts = urlsplit(address)
        # Also what a server listens on may stand in the variable.
        host = {"0.0.0.0": "127.0.0.1", None: "127.0.0.1"}.get(parts.hostname, parts.hostname)
        if "://" in given and parts.hostname != "0.0.0.0":
            return given
        return f"{parts.scheme}://{host}:{parts.port or PORT}{parts.path}"

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        path, body, times = super().question(given, num_generations)
        # How long the model stays in memory changes no answer.
        return [path, {name: value for name, value in body.items() if name != "keep_alive"}, times]

    def own_addresses(self) -> tuple[str, ...]:
        return (self.own_url, CLOUD)

    def key(self) -> SecretStr:
        """The key. A server of one's own needs none."""
        return self.bound_key(self.url()) or SecretStr("none")


class OllamaLLM(OllamaApi):
    """A model of an Ollama server, on this machine where nothing else is said; of its cloud with OLLAMA_API_KEY.

    Bare prompts go to the model as they are, without its template.

    Example:
        >>> llm = OllamaLLM(model="qwen3:8b", generation_kwargs={"num_ctx": 8192})
        >>> llm.url()
        'http://127.0.0.1:11434'
    """

    answers_several: ClassVar[bool] = False

    form_title = "Ollama"

    provider: Annotated[Literal["ollama"], Field(title="Provider")] = "ollama"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        num_ctx: Annotated[
            int | None, Field(ge=1, description="Tokens of the context, prompt and answer. Empty: the server's.")
        ] = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        repetition_penalty: RepetitionPenalty = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        think: Annotated[
            Literal["off", "on", "low", "medium", "high"] | None,
            Field(description="Whether, or how much, a thinking model thinks. Empty: as the model does."),
        ] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        options: Annotated[
            dict[str, Any] | None, Field(description="Further options, as Ollama has them: mirostat, num_gpu.")
        ] = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        wanted = {name: value for name, value in keywords.items() if value is not None and value is not False}
        options = {theirs: wanted[ours] for ours, theirs in OPTIONS.items() if ours in wanted}
        if "stop" in wanted:
            options["stop"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
        body: dict[str, Any] = {"model": self.model, "stream": False, "truncate": False, "shift": False}
        body |= {"options": options | wanted.get("options", {})}
        body |= {name: wanted[name] for name in ("logprobs", "top_logprobs") if name in wanted}
        if "think" in wanted:
            body["think"] = {"off": False, "on": True}.get(wanted["think"], wanted["think"])
        if "structured_output" in wanted:
            body["format"] = wanted["structured_output"]
        if self.keep_alive:
            body["keep_alive"] = self.keep_alive
        body |= wanted.get("extra_body", {})
        if isinstance(given, str):
            return "/api/generate", {**body, "prompt": given, "raw": True}
        return "/api/chat", {**body, "messages": messages_in(cast("Sequence[Mapping[str, Any]]", given))}

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        context, read = count_in(body["options"].get("num_ctx")), count_in(answer.get("prompt_eval_count"))
        if context and read >= context:
            raise ContextLengthError(
                f"the prompt filled the context (num_ctx={context}): what was too much of it was cut off in silence;"
                " give more num_ctx"
            )
        return parse_answer(in_openais_form(answer), CHAT)


def in_openais_form(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer of Ollama's, as OpenAI's protocol has it."""
    if answer.get("error"):
        return dict(answer)
    message = object_in(answer.get("message")) or {
        "content": answer.get("response"),
        "thinking": answer.get("thinking"),
    }
    choice = {
        "finish_reason": answer.get("done_reason"),
        "message": message,
        "logprobs": {"content": answer["logprobs"]} if answer.get("logprobs") else None,
    }
    usage = {"prompt_tokens": answer.get("prompt_eval_count"), "completion_tokens": answer.get("eval_count")}
    return {"choices": [choice] if answer.get("done") else [], "usage": usage, "model": answer.get("model")}


def messages_in(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chat as Ollama takes it. Raises BadRequestError for what it has no place for."""
    return [_message(each) for each in chat]


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    role = {"developer": "system"}.get(given["role"], given["role"])
    content = given.get("content")
    message: dict[str, Any] = {"role": role, "content": content or ""}
    if isinstance(content, list):
        parts = [object_in(part) for part in cast("list[object]", content)]
        message["content"] = "\n".join(part["text"] for part in parts if part.get("type") == "text")
        message["images"] = [_image(part) for part in parts if part.get("type") != "text"]
    if calls := list_in(given.get("tool_calls")):
        message["tool_calls"] = [{"function": _function(object_in(call))} for call in calls]
    if role == "tool" and given.get("name"):
        message["tool_name"] = given["name"]
    return message


def _image(part: Mapping[str, Any]) -> str:
    address = object_in(part.get("image_url")).get("url")
    head, comma, data = address.partition(";base64,") if isinstance(address, str) else ("", "", "")
    if not (head.startswith("data:") and comma):
        raise BadRequestError(f"Ollama takes images as data:image/...;base64,..., got {short(part)}")
    return data


def _function(call: Mapping[str, Any]) -> dict[str, Any]:
    function = object_in(call.get("function"))
    return {"name": function.get("name"), "arguments": object_in(function.get("arguments"))}
