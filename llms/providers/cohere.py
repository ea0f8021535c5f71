"""Cohere's chats: https://docs.cohere.com/v2/reference/chat, and the types of cohere 7.3 (2026-11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.endings import COHERE as ENDS
from llms.errors import LLMError
from llms.providers.messages import refuse_names
from llms.providers.openai import CHAT, parse_answer
from llms.providers.parameters import ExtraBody, Logprobs, MaxNewTokens, Seed, Stop, keywords_in
from llms.reading import list_in, object_in, text_in
from llms.service import ServiceLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

PATH = "/v2/chat"
NAMES = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "logprobs": "logprobs",
    "safety_mode": "safety_mode",
    "priority": "priority",
}
"""By our name: its own."""
STATUSES = {498: 401, 499: 503}
"""Its own: for a token that is none, and for a connection that was closed."""


class CohereApi(ServiceLLM):
    """Where Cohere is, and how it refuses: of its chats and its embeddings."""

    key_variables: ClassVar[tuple[str, ...]] = ("CO_API_KEY", "COHERE_API_KEY")
    url_variable: ClassVar[str] = "CO_API_URL"
    own_url: ClassVar[str] = "https://api.cohere.com"

    def url(self) -> str:
        """The address that requests go to, without /v1 or /v2."""
        return super().url().removesuffix("/v1").removesuffix("/v2")

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return super().refusal(STATUSES.get(status, status), headers, content)


class CohereLLM(CohereApi):
    """A Command model of Cohere, with the key in CO_API_KEY.

    Example:
        >>> llm = CohereLLM(model="command-a-03-2025", generation_kwargs={"temperature": 0.7})
        >>> llm.url()
        'https://api.cohere.com'
    """

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "Cohere"

    provider: Annotated[Literal["cohere"], Field(title="Provider")] = "cohere"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Annotated[
            float | None, Field(ge=0, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: Annotated[
            float | None, Field(ge=0.01, le=0.99, description="Sample from this share of probability.")
        ] = None,
        top_k: Annotated[int | None, Field(ge=0, le=500, description="Sample from so many tokens. 0: all.")] = None,
        frequency_penalty: Annotated[float | None, Field(ge=0, le=1, description="Against repeated words.")] = None,
        presence_penalty: Annotated[float | None, Field(ge=0, le=1, description="Against words used before.")] = None,
        stop: Stop = None,
        seed: Seed = None,
        thinking: Annotated[
            Literal["enabled", "disabled"] | None, Field(description="Whether a thinking model thinks.")
        ] = None,
        thinking_budget: Annotated[int | None, Field(ge=1, description="Think in at most so many tokens.")] = None,
        safety_mode: Annotated[
            Literal["CONTEXTUAL", "STRICT", "OFF"] | None, Field(description="How strict its own instructions are.")
        ] = None,
        priority: Annotated[
            int | None, Field(ge=0, le=999, description="Requests with a lower one are served before others.")
        ] = None,
        logprobs: Logprobs = False,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        wanted = {name: value for name, value in keywords.items() if value is not None and value is not False}
        body: dict[str, Any] = {"model": self.model, "stream": False, "messages": messages_in(self.chat_in(given))}
        body |= {theirs: wanted[ours] for ours, theirs in NAMES.items() if ours in wanted}
        if "stop" in wanted:
            body["stop_sequences"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
        if "thinking" in wanted or "thinking_budget" in wanted:
            budget = {"token_budget": wanted["thinking_budget"]} if "thinking_budget" in wanted else {}
            body["thinking"] = {"type": wanted.get("thinking", "enabled"), **budget}
        if "structured_output" in wanted:
            body["response_format"] = {"type": "json_object", "json_schema": wanted["structured_output"]}
        return PATH, {**body, **wanted.get("extra_body", {})}

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        return parse_answer(as_completion(answer), CHAT, ENDS)


def messages_in(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chat as Cohere takes it: OpenAI's form, without names. Raises BadRequestError for those."""
    refuse_names(chat, "Cohere")
    return [_message(message) for message in chat]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = {"developer": "system"}.get(message["role"], message["role"])
    kept = ("content", "tool_calls", "tool_call_id")
    # What isn't said may not be null.
    return {"role": role, **{name: message[name] for name in kept if message.get(name) is not None}}


def as_completion(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a chat completion of one choice; of none, where it is no answer."""
    said = object_in(answer.get("message"))
    parts = [object_in(part) for part in list_in(said.get("content"))]
    texts = [text for part in parts if part.get("type") == "text" and isinstance(text := part.get("text"), str)]
    thoughts = [
        text for part in parts if part.get("type") == "thinking" and isinstance(text := part.get("thinking"), str)
    ]
    message = {
        "content": "".join(texts) if texts else None,
        "reasoning": "".join(thoughts),
        "tool_calls": said.get("tool_calls"),
    }
    choice = {
        "finish_reason": answer.get("finish_reason"),
        "message": message,
        "logprobs": _logprobs(list_in(answer.get("logprobs"))),
    }
    raw = object_in(answer.get("usage"))
    # What is paid for leaves out what Cohere itself puts before a chat.
    counts = object_in(raw.get("billed_units")) or object_in(raw.get("tokens"))
    usage = {
        "prompt_tokens": counts.get("input_tokens"),
        "completion_tokens": counts.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": raw.get("cached_tokens")},
    }
    return {"choices": [choice] if said else [], "usage": usage}


def _logprobs(chunks: Sequence[object]) -> dict[str, Any] | None:
    """By chunk of text: of several tokens, which have no texts of their own, it's the sum of theirs."""
    places: list[dict[str, Any]] = []
    for chunk in map(object_in, chunks):
        logs = [float(each) for each in list_in(chunk.get("logprobs")) if isinstance(each, int | float)]
        if logs:
            places.append({"token": text_in(chunk.get("text")), "logprob": sum(logs)})
    return {"content": places} if places else None
