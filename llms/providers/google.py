"""What the Gemini API and Vertex AI have in common: chats as contents, candidates as answers, errors of google.rpc.

https://ai.google.dev/api/generate-content, and the types of google-genai 3.6.
"""

from __future__ import annotations

import mimetypes
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field

from llms.base import split_input
from llms.batch import MARK, BatchRequest, JobState, JobStatus, OfflineBatchLLM
from llms.endings import GEMINI as ENDS
from llms.errors import (
    BadRequestError,
    ExpiredError,
    InvalidResponseError,
    LLMError,
    OverloadedError,
    error_for_status,
)
from llms.http import json_object
from llms.parameters import short
from llms.providers.messages import (
    SYSTEM_ROLES,
    Image,
    as_call,
    calls_of,
    names_of_calls,
    parts_of,
    refuse_names,
    text_of,
)
from llms.providers.openai import CHAT, parse_answer
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    PresencePenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.rates import seconds_in
from llms.reading import count_in, list_in, object_in, seconds_of, text_in
from llms.service import ServiceLLM, counted_on, refusal_words, retry_after_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

GENERATE = "generateContent"
SERVICE = "Gemini"
CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_new_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
"""By our name: the name in `generationConfig`."""
THINKING = {"thinking_budget": "thinkingBudget", "include_thoughts": "includeThoughts"}
BAD_KEY = "API_KEY_INVALID"
TIERS = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority", "ON_DEMAND": "standard"}
"""By Vertex AI's `trafficType`."""

STATUS_OF_CODE = {
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 400,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}
"""HTTP statuses by google.rpc.Code, but for 1, cancelled: google/rpc/code.proto."""


JOB_STATES: dict[str, JobState] = {
    "unspecified": "waiting",
    "queued": "waiting",
    "pending": "waiting",
    "running": "waiting",
    "paused": "waiting",
    "updating": "waiting",
    "cancelling": "waiting",
    "succeeded": "ended",
    "partially_succeeded": "ended",
    "cancelled": "ended",
    "expired": "ended",
    "failed": "failed",
}
"""By the word after JOB_STATE_, or BATCH_STATE_, in small letters: google-genai 3.6, types.JobState."""


class GoogleLLM(ServiceLLM, OfflineBatchLLM):  # pyright: ignore[reportIncompatibleMethodOverride] -- see `agenerate`
    """A Gemini model. What follows is the same by both of Google's services."""

    takes_prompts: ClassVar[bool] = False

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        thinking_budget: Annotated[
            int | None, Field(ge=-1, description="The most tokens of thoughts. 0: none; -1: as the model decides.")
        ] = None,
        thinking_level: Annotated[
            Literal["minimal", "low", "medium", "high", "xhigh"] | None,
            Field(description="How much a newer model thinks, in place of a budget."),
        ] = None,
        include_thoughts: Annotated[bool, Field(description="Tell in brief what the model thought.")] = False,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        safety_settings: Annotated[
            dict[str, str] | None,
            Field(description="Thresholds by category: HARM_CATEGORY_HARASSMENT to BLOCK_NONE."),
        ] = None,
        service_tier: Annotated[
            Literal["flex", "standard", "priority"] | None, Field(description="How a request is served and billed.")
        ] = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        several = {"candidateCount": num_generations} if num_generations > 1 else {}
        return GENERATE, body_of(self.chat_in(given), keywords, several)

    @abstractmethod
    async def path_to(self, method: str) -> str:
        """Below the address: where a method of the model is called. Raises LLMError."""

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        method, body = self._body(given, times, keywords)
        return self.output_from(await self._send(await self.path_to(method), body), method, body)

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        return parse_answer(as_completion(answer, tier=text_in(body.get("serviceTier"))), CHAT, ENDS)

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return refusal_from(status, headers, content)

    def _refuses_several(self, error: BadRequestError) -> bool:
        # "Multiple candidates is not enabled for this model", or a range for `candidateCount`.
        return re.search(r"candidate", str(error), re.I) is not None

    def requests_per_input(self, num_generations: int) -> int:
        # Which models give several candidates isn't known before a batch is paid for.
        return num_generations

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        method, body = self._body(prompt, num_generations, counted_on(keywords, number))
        # A batch has a tier of its own.
        body.pop("serviceTier", None)
        return BatchRequest(custom_id, method, body)

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job whose name holds `mark`, wherever in the list: no order of it is documented."""
        async for status in self.list_jobs():
            if status.metadata.get(MARK) == mark:
                return status
        return None

    async def pages(self, path: str, name: str) -> AsyncIterator[dict[str, Any]]:
        """The objects under `name` of a list in pages, at a path with a query. Raises LLMError."""
        after = ""
        while True:
            page = await self.call("GET", f"{path}{after}")
            for each in list_in(page.get(name)):
                yield object_in(each)
            token = text_in(page.get("nextPageToken"))
            if not token or after.endswith(f"={quote(token, safe='')}"):
                return
            after = f"&pageToken={quote(token, safe='')}"


def body_of(
    chat: Sequence[Mapping[str, Any]], keywords: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a request for content.

    Args:
        chat: in OpenAI's form.
        keywords: runtime parameters, by our names.
        config: what goes into `generationConfig` besides.

    Raises:
        BadRequestError: a message holds what the API has no place for.
    """
    wanted = {name: value for name, value in keywords.items() if value is not None and value is not False}
    if "top_logprobs" in wanted:
        wanted["logprobs"] = True
    settings = {theirs: wanted[ours] for ours, theirs in CONFIG.items() if ours in wanted} | dict(config)
    if "stop" in wanted:
        settings["stopSequences"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
    thinking = {theirs: wanted[ours] for ours, theirs in THINKING.items() if ours in wanted}
    if "thinking_level" in wanted:
        thinking["thinkingLevel"] = wanted["thinking_level"].upper()
    if thinking:
        settings["thinkingConfig"] = thinking
    if "structured_output" in wanted:
        settings |= {"responseMimeType": "application/json", "responseJsonSchema": wanted["structured_output"]}
    extra = dict(wanted.get("extra_body", {}))
    settings |= object_in(extra.pop("generationConfig", None))
    system, contents = split_system(chat)
    body: dict[str, Any] = {"contents": contents}
    body |= {"systemInstruction": {"parts": [{"text": text} for text in system]}} if system else {}
    body |= {"generationConfig": settings} if settings else {}
    if "safety_settings" in wanted:
        thresholds = wanted["safety_settings"].items()
        body["safetySettings"] = [{"category": name, "threshold": threshold} for name, threshold in thresholds]
    if "service_tier" in wanted:
        body["serviceTier"] = wanted["service_tier"]
    return {**body, **extra}


def split_system(chat: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts of the system messages, and the other messages as contents, neighbours of one role as one."""
    refuse_names(chat, SERVICE)
    names = names_of_calls(chat)
    system = [text_of(message, SERVICE) for message in chat if message.get("role") in SYSTEM_ROLES]
    contents: list[dict[str, Any]] = []
    for message in chat:
        if message.get("role") in SYSTEM_ROLES:
            continue
        role = "model" if message.get("role") == "assistant" else "user"
        parts = _parts(message, names)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return system, contents


def _parts(message: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.get("role") == "tool":
        call = str(message.get("tool_call_id") or "")
        name = names.get(call) or message.get("name")
        said = text_of(message, SERVICE)
        # It has to be an object: what is none stands in one.
        return [{"functionResponse": {"name": name, "response": object_in(said) or {"output": said}}}]
    parts = [_image_part(part) if isinstance(part, Image) else {"text": part} for part in parts_of(message, SERVICE)]
    calls = [{"functionCall": {"name": call.name, "args": call.arguments}} for call in calls_of(message)]
    return [*parts, *calls] or [{"text": ""}]


def _image_part(image: Image) -> dict[str, Any]:
    if image.data:
        return {"inlineData": {"mimeType": image.kind, "data": image.data}}
    kind = mimetypes.guess_type(image.url.partition("?")[0])[0]
    return {"fileData": {"fileUri": image.url, **({"mimeType": kind} if kind else {})}}


def as_completion(answer: Mapping[str, Any], tier: str = "") -> dict[str, Any]:
    """A response as a chat completion; of no choices, where it is no response.

    Args:
        answer: with `candidates`; with `promptFeedback` alone, where the prompt was blocked.
        tier: that was asked for. The answer's own word goes before it.
    """
    choices = [_choice(object_in(each)) for each in list_in(answer.get("candidates"))]
    blocked = object_in(answer.get("promptFeedback"))
    if not choices and (reason := blocked.get("blockReason")):
        choices = [{"finish_reason": f"content_filter: {reason}", "message": {"content": None}}]
    raw = object_in(answer.get("usageMetadata"))
    thought = count_in(raw.get("thoughtsTokenCount"))
    usage = {
        "prompt_tokens": count_in(raw.get("promptTokenCount")) + count_in(raw.get("toolUsePromptTokenCount")),
        "completion_tokens": count_in(raw.get("candidatesTokenCount")) + thought,
        "prompt_tokens_details": {"cached_tokens": count_in(raw.get("cachedContentTokenCount"))},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    served = text_in(raw.get("serviceTier")) or TIERS.get(text_in(raw.get("trafficType")), "") or tier
    return {
        "choices": choices,
        "usage": usage,
        "model": text_in(answer.get("modelVersion")).rpartition("/")[2] or None,
        **({"service_tier": served.lower()} if served else {}),
        **({"error": answer["error"]} if answer.get("error") else {}),
    }


def _choice(candidate: Mapping[str, Any]) -> dict[str, Any]:
    parts = [object_in(part) for part in list_in(object_in(candidate.get("content")).get("parts"))]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought")]
    thoughts = [part["text"] for part in parts if isinstance(part.get("text"), str) and part.get("thought")]
    calls = [object_in(part.get("functionCall")) for part in parts if part.get("functionCall")]
    message = {
        "content": "".join(texts) if texts else None,
        "reasoning": "".join(thoughts),
        "tool_calls": [as_call(call.get("name"), call.get("args"), call.get("id")) for call in calls],
    }
    return {
        "index": candidate.get("index"),
        "finish_reason": candidate.get("finishReason"),
        "message": message,
        "logprobs": _logprobs(object_in(candidate.get("logprobsResult"))),
    }


def _logprobs(result: Mapping[str, Any]) -> dict[str, Any] | None:
    chosen = [_token(object_in(each)) for each in list_in(result.get("chosenCandidates"))]
    tops = [
        [_token(object_in(each)) for each in list_in(object_in(place).get("candidates"))]
        for place in list_in(result.get("topCandidates"))
    ]
    places = [{"top_logprobs": top} for top in tops] or chosen
    return {"content": places} if places else None


def _token(given: Mapping[str, Any]) -> dict[str, Any]:
    # What is 0 is left out of an answer.
    return {"token": given.get("token") or "", "logprob": given.get("logProbability", 0.0)}


def refusal_from(status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
    """The error for a refusal: `{"error": {"code": ..., "message": ..., "status": ..., "details": [...]}}`."""
    said, _ = refusal_words(content)
    details = _details_in(content)
    if any(each.get("reason") == BAD_KEY for each in details):
        status = 401
    wait = next((seconds_in(delay) for each in details if (delay := text_in(each.get("retryDelay")))), None)
    return error_for_status(status, said, retry_after=retry_after_in(headers) or wait)


def _details_in(content: bytes) -> list[dict[str, Any]]:
    try:
        problem = object_in(json_object(content).get("error"))
    except InvalidResponseError:
        return []
    return [object_in(each) for each in list_in(problem.get("details"))]


def error_of(problem: Mapping[str, Any]) -> LLMError:
    """The error for a `google.rpc.Status`: of a job, or of a request in it."""
    code = count_in(problem.get("code"))
    said = text_in(problem.get("message")) or short(problem)
    if code == 1:
        return ExpiredError(f"the batch ended without an answer to it: {said}")
    return error_for_status(code if code >= 400 else STATUS_OF_CODE.get(code, 500), said)


def job_from(
    name: object,
    described: Mapping[str, Any],
    counts: tuple[object, object, object],
    problem: object,
    *,
    answered: bool,
) -> JobStatus:
    """How a job stands. Raises InvalidResponseError where it has neither a name nor a state.

    Args:
        name: the job's own.
        described: with `displayName`, `state` and `createTime`.
        counts: how many requests it has, how many are answered, and how many refused.
        problem: a `google.rpc.Status`, of one that failed.
        answered: whether there are results, whatever the state says.
    """
    if not isinstance(name, str) or not name or not described:
        raise InvalidResponseError(f"the provider's answer is no batch: {short(described)}")
    word = text_in(described.get("state")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_").lower()
    word = word or "unspecified"
    # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
    state = JOB_STATES.get(word, "waiting")
    if state == "failed" and answered:
        state = "ended"
    said = object_in(problem)
    failed = error_of(said) if said else OverloadedError("the batch failed, the provider gave no reason")
    total, done, refused = map(count_in, counts)
    return JobStatus(
        id=name,
        state=state,
        status=word,
        total=total,
        answered=done,
        refused=refused,
        message=str(failed) if state == "failed" else "",
        error=failed if state == "failed" else None,
        metadata={MARK: mark_in(text_in(described.get("displayName")))},
        created=seconds_of(described.get("createTime")),
        unknown=word not in JOB_STATES,
    )


def mark_in(name: str) -> str:
    """What a job can be found by, of its name by `file_name`; empty for another program's."""
    return name.removeprefix(f"{MARK}-").removesuffix(".jsonl") if name.startswith(f"{MARK}-") else ""
