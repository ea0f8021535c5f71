"""A thousand answers of each provider, as its documentation shows them, against the invoice made for them by hand.

The prices beside each are those of the provider's page, in dollars for a million tokens.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from flows.engine.costs import cost_of_run, tokens_of
from flows.engine.report import report_markdown
from flows.engine.run import Run
from flows.store.shards import Work, work_of
from flows.store.storage import Storage
from llms import (
    XAILLM,
    ZAILLM,
    AnthropicLLM,
    AzureOpenAILLM,
    BedrockLLM,
    CerebrasLLM,
    CohereLLM,
    DeepSeekLLM,
    GeminiLLM,
    GroqLLM,
    MistralLLM,
    MoonshotLLM,
    OpenAILLM,
    OpenAIResponsesLLM,
    OpenRouterLLM,
    PerplexityLLM,
    TogetherLLM,
    VertexAILLM,
)
from llms.prices import money
from llms.providers.openai import CHAT, RESPONSES
from llms.service import ServiceLLM
from tasks import TextGeneration

TIMES = 1000


def chat(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer of OpenAI's protocol."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer."}}
    return {"object": "chat.completion", "choices": [choice], "usage": usage, **more}


def response(usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    text = {"type": "output_text", "text": "An answer.", "annotations": []}
    output = [{"type": "message", "role": "assistant", "status": "completed", "content": [text]}]
    return {"object": "response", "status": "completed", "output": output, "usage": usage, **more}


def message(usage: dict[str, Any]) -> dict[str, Any]:
    """An answer of Anthropic's."""
    content = [{"type": "text", "text": "An answer."}]
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn", "usage": usage}


def candidate(usage: dict[str, Any]) -> dict[str, Any]:
    """An answer of Gemini's."""
    content = {"role": "model", "parts": [{"text": "An answer."}]}
    return {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}


def converse(usage: dict[str, Any]) -> dict[str, Any]:
    """An answer of Bedrock's."""
    content = [{"text": "An answer."}]
    return {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn", "usage": usage}


def cohere(usage: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": "An answer."}]
    return {"message": {"role": "assistant", "content": content}, "finish_reason": "COMPLETE", "usage": usage}


def plain(prompt: int, answer: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer, **more}


CACHED = plain(2006, 300, prompt_tokens_details={"cached_tokens": 1920})
THOUGHT = plain(1000, 400, completion_tokens_details={"reasoning_tokens": 192})
OF_CLAUDE = {
    "input_tokens": 2048,
    "cache_read_input_tokens": 1800,
    "cache_creation_input_tokens": 248,
    "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 503,
}
OF_GEMINI = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 200,
    "thoughtsTokenCount": 300,
    "totalTokenCount": 1500,
}
OF_RESPONSES = {
    "input_tokens": 2006,
    "input_tokens_details": {"cached_tokens": 1920},
    "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 200},
    "total_tokens": 2306,
}
CLAUDE = "claude-sonnet-4-5"
LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"

# (name, LLM, answer, in a batch, invoice of a thousand in dollars, whether a part of the price is assumed)
INVOICES: list[tuple[str, ServiceLLM, dict[str, Any], bool, float, bool]] = [
    # 0.15, of the cache 0.075, 0.60
    ("OpenAI", OpenAILLM(model="gpt-4o-mini"), chat(CACHED), False, 0.0129 + 0.144 + 0.18, False),
    # Half, but for what is read from the cache.
    ("OpenAI, batch", OpenAILLM(model="gpt-4o-mini"), chat(CACHED), True, 0.00645 + 0.144 + 0.09, False),
    # 0.25 and 2.00; half of that where the answer says that it was flex, whatever was asked for.
    ("OpenAI, flex", OpenAILLM(model="gpt-5-mini"), chat(THOUGHT, service_tier="flex"), False, 0.125 + 0.4, False),
    ("OpenAI, not flex", OpenAILLM(model="gpt-5-mini"), chat(THOUGHT, service_tier="default"), False, 1.05, False),
    # 0.25, 0.025, 2.00
    ("Responses", OpenAIResponsesLLM(model="gpt-5-mini"), response(OF_RESPONSES), False, 0.0215 + 0.048 + 0.6, False),
    (
        "Azure",
        AzureOpenAILLM(model="gpt-4o-mini", base_url="https://ours.openai.azure.com/openai/v1"),
        chat(CACHED),
        False,
        0.0129 + 0.144 + 0.18,
        False,
    ),
    # 3.00, of the cache 0.30, into it 3.75 for five minutes and 6.00 for an hour, 15.00
    ("Anthropic", AnthropicLLM(model=CLAUDE), message(OF_CLAUDE), False, 6.144 + 0.54 + 0.555 + 0.6 + 7.545, False),
    (
        "Anthropic, batch",
        AnthropicLLM(model=CLAUDE),
        message({**OF_CLAUDE, "service_tier": "batch"}),
        True,
        15.384 / 2,
        False,
    ),
    # Above 200,000 tokens of a prompt 6.00 and 22.50, from the first one on.
    (
        "Anthropic, long",
        AnthropicLLM(model=CLAUDE),
        message({"input_tokens": 250_000, "output_tokens": 1000}),
        False,
        1500 + 22.5,
        False,
    ),
    # 0.30, 0.03, 2.50; thoughts are paid as answers.
    ("Gemini", GeminiLLM(model="gemini-2.5-flash"), candidate(OF_GEMINI), False, 0.18 + 0.012 + 1.25, False),
    ("Gemini, batch", GeminiLLM(model="gemini-2.5-flash"), candidate(OF_GEMINI), True, 0.09 + 0.012 + 0.625, False),
    (
        "Vertex AI",
        VertexAILLM(model="gemini-2.5-flash", project="ours"),
        candidate(OF_GEMINI),
        False,
        0.18 + 0.012 + 1.25,
        False,
    ),
    # 3.30, 0.33, 4.125, 16.50 in a region; the list has no batches of it, half is assumed.
    (
        "Bedrock",
        BedrockLLM(model="us.anthropic.claude-sonnet-4-5-20250929-v1:0", region="us-east-1"),
        converse({"inputTokens": 1000, "cacheReadInputTokens": 500, "outputTokens": 200, "totalTokens": 1700}),
        False,
        3.3 + 0.165 + 3.3,
        False,
    ),
    (
        "Bedrock, batch",
        BedrockLLM(model="us.anthropic.claude-sonnet-4-5-20250929-v1:0", region="us-east-1"),
        converse({"inputTokens": 1000, "outputTokens": 200, "totalTokens": 1200}),
        True,
        (3.3 + 3.3) / 2,
        True,
    ),
    # 0.15, 0.015, 0.60
    (
        "Mistral",
        MistralLLM(model="mistral-small-latest"),
        chat(plain(1000, 200, prompt_tokens_details={"cached_tokens": 400})),
        False,
        0.09 + 0.006 + 0.12,
        False,
    ),
    ("Mistral, batch", MistralLLM(model="mistral-small-latest"), chat(plain(1000, 200)), True, 0.075 + 0.06, False),
    # 0.59 and 0.79; of batches the list knows nothing.
    ("Groq", GroqLLM(model="llama-3.3-70b-versatile"), chat(plain(1000, 200)), False, 0.59 + 0.158, False),
    ("Groq, batch", GroqLLM(model="llama-3.3-70b-versatile"), chat(plain(1000, 200)), True, 0.374, True),
    ("Together", TogetherLLM(model=LLAMA), chat(plain(1000, 200)), False, 0.88 + 0.176, False),
    ("Together, batch", TogetherLLM(model=LLAMA), chat(plain(1000, 200)), True, 0.528, True),
    # It says in dollars what a request cost, of which ten billion ticks are one.
    ("xAI", XAILLM(model="grok-4-0709"), chat(plain(32, 9, cost_in_usd_ticks=2_310_000)), False, 0.231, False),
    # Where it doesn't: 3.00, 0.75, 15.00, thoughts beside the answer; in a batch, four fifths are assumed.
    (
        "xAI by the list",
        XAILLM(model="grok-4-0709"),
        chat({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1400}),
        False,
        3.0 + 6.0,
        False,
    ),
    ("xAI, batch", XAILLM(model="grok-4-0709"), chat(plain(1000, 200)), True, 0.8 * 6.0, True),
    ("OpenRouter", OpenRouterLLM(model="openai/gpt-4o-mini"), chat(plain(194, 2, cost=0.00095)), False, 0.95, False),
    (
        "OpenRouter, own key",
        OpenRouterLLM(model="openai/gpt-4o-mini"),
        chat(plain(194, 2, cost=0.00005, is_byok=True, cost_details={"upstream_inference_cost": 0.0009})),
        False,
        0.95,
        False,
    ),
    (
        "Cohere",
        CohereLLM(model="command-r-08-2024"),
        cohere({"billed_units": {"input_tokens": 100, "output_tokens": 50}, "tokens": {"input_tokens": 5000}}),
        False,
        0.015 + 0.03,
        False,
    ),
    ("Cerebras", CerebrasLLM(model="llama-3.3-70b"), chat(plain(1000, 200)), False, 0.85 + 0.24, False),
    # 0.60, 0.15, 2.50
    (
        "Moonshot",
        MoonshotLLM(model="kimi-k2-0905-preview"),
        chat(plain(1000, 200, cached_tokens=400)),
        False,
        0.36 + 0.06 + 0.5,
        False,
    ),
    # 0.95 and 4.00, of which a batch costs three fifths.
    ("Moonshot, batch", MoonshotLLM(model="kimi-k2.6"), chat(plain(1000, 200)), True, 0.6 * (0.95 + 0.8), True),
    # 0.69 for both
    ("Z.ai, batch", ZAILLM(model="glm-4-plus", region="china"), chat(plain(1000, 200)), True, 0.5 * 0.828, True),
    # Its fee for a search is in what it says.
    (
        "Perplexity",
        PerplexityLLM(model="sonar"),
        chat(plain(14, 100, cost={"input_tokens_cost": 0.00001, "request_cost": 0.005, "total_cost": 0.00511})),
        False,
        5.11,
        False,
    ),
    # 0.27, of the cache 0.07, 1.10
    (
        "DeepSeek",
        DeepSeekLLM(model="deepseek-chat"),
        chat(plain(1000, 200, prompt_cache_hit_tokens=600, prompt_cache_miss_tokens=400)),
        False,
        0.108 + 0.042 + 0.22,
        False,
    ),
]


@pytest.mark.parametrize(
    ("llm", "answer", "batch", "dollars", "assumed"), [pytest.param(*rest, id=name) for name, *rest in INVOICES]
)
def test_the_reports_dollars_are_those_of_the_invoice(
    llm: ServiceLLM,
    answer: dict[str, Any],
    batch: bool,
    dollars: float,
    assumed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At eight in the morning, UTC: DeepSeek's nights are cheaper.
    today = time.time() // 86_400 * 86_400
    monkeypatch.setattr("time.time", lambda: today + 8 * 3600)
    path = RESPONSES if isinstance(llm, OpenAIResponsesLLM) else CHAT
    tokens = tokens_of(llm, llm.output_from(answer, path, {}), batched=batch)
    run = Run("run", "run:1", Storage("memory://invoices"))
    progress = run.progress_of("asking", TextGeneration(name="asking", llm=llm))
    progress.work = sum((work_of(tokens, sent=True, batched=batch) for _ in range(TIMES)), Work())

    spent = cost_of_run(run.progress.values())
    report = report_markdown(run)

    assert spent.dollars == pytest.approx(dollars, rel=1e-9)
    assert money(spent.dollars) in report
    assert ("the price online is taken" in report) == assumed
