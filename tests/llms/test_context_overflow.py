"""A prompt that is longer than the model takes is told as that, in every provider's words, online and in batches."""

from __future__ import annotations

from typing import Any

import pytest

from llms import AnthropicLLM, InferenceEndpointsLLM, OpenAILLM
from llms.providers.openai import result_from
from tests.scripted import Reply, Scripted

CHAT: Any = [{"role": "user", "content": "A very long text."}]

# As the providers' documents, clients and users' reports have them.
WORDS = {
    "OpenAI": (400, "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001."),
    "OpenAI, by code": (400, "Your input exceeds the context window of this model. Please adjust your input."),
    "vLLM": (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
    "vLLM, later": (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
    "llama.cpp": (400, "request (6009 tokens) exceeds the available context size (512 tokens), try increasing it"),
    "Bedrock": (400, "Input is too long for requested model."),
    "Anthropic": (400, "prompt is too long: 208310 tokens > 200000 maximum"),
    "Anthropic, with max_tokens": (
        400,
        "input length and `max_tokens` exceed context limit: 190000 + 64000 > 200000, decrease input length",
    ),
    "Gemini": (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    "Cerebras": (
        400,
        "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
    ),
    "Groq": (400, "Please reduce the length of the messages or completion."),
    "TGI": (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens",
    ),
    "TGI, the prompt alone": (422, "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"),
    "SGLang": (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    "Mistral": (
        400,
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    ),
    "xAI": (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    "DashScope": (400, "Range of input length should be [1, 30720]"),
    "Moonshot": (400, "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)"),
    "Together": (422, "`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 100"),
    "Fireworks": (400, "The prompt is too long: 140000, model maximum context length: 131071"),
    "LM Studio": (400, "The number of tokens to keep from the initial prompt is greater than the context length"),
}

OTHERS = {
    "too many to answer": (400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens"),
    "so at Anthropic": (400, "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens"),
    "a wrong parameter": (400, "Unsupported parameter: 'max_tokens' is not supported with this model."),
    "a long name": (400, "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64"),
}


def outcome(llm: Any) -> str:
    llm.load()
    (output,) = llm.generate_outputs(inputs=[CHAT])
    return output["error"]["type"]


@pytest.mark.parametrize("provider", WORDS)
def test_a_prompt_that_is_too_long_is_told_as_that(provider: str) -> None:
    status, said = WORDS[provider]
    reply: Reply = (status, {"error": {"message": said, "type": "invalid_request_error", "code": None}})
    with Scripted(lambda body: reply) as server:
        llms = [
            OpenAILLM(model="m", base_url=server.url, api_key="k"),
            AnthropicLLM(model="m", base_url=server.root, api_key="k"),
            InferenceEndpointsLLM(base_url=server.url),
        ]
        told = [outcome(llm) for llm in llms]
        asked = len(server.asked)

    line = {"custom_id": "1", "response": {"status_code": status, "body": reply[1]}}
    assert [*told, type(result_from(line).outcome).__name__] == ["ContextLengthError"] * 4
    assert asked == 3


@pytest.mark.parametrize("case", OTHERS)
def test_another_refusal_is_not(case: str) -> None:
    status, said = OTHERS[case]
    with Scripted(lambda body: (status, {"error": {"message": said, "code": None}})) as server:
        assert outcome(OpenAILLM(model="m", base_url=server.url, api_key="k")) == "BadRequestError"


def test_a_limit_of_tokens_per_minute_is_not() -> None:
    said = "Request too large for model on tokens per minute (TPM): Limit 6000, please reduce your message size"
    with Scripted(lambda body: (429, {"error": {"message": said, "code": "rate_limit_exceeded"}})) as server:
        assert outcome(OpenAILLM(model="m", base_url=server.url, api_key="k", max_retries=0)) == "RateLimitError"
