"""What an answer says it took, by every wire's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llms.reading import count_in, number_in, object_in
from llms.typing import PARTS_OF_TOKENS, GenerateOutput, TokenCounts, Usage

TICKS_PER_DOLLAR = 10**10
"""In which xAI says what a request cost: https://docs.x.ai/developers/cost-tracking."""


def openai_usage(answer: Mapping[str, Any]) -> Usage:
    """What an answer of OpenAI's protocol took, whichever server gave it."""
    raw = object_in(answer.get("usage"))
    prompt = _first(raw, "prompt_tokens", "input_tokens", "promptTokens")
    answered = _first(raw, "completion_tokens", "output_tokens", "completionTokens")
    of_prompt = object_in(raw.get("prompt_tokens_details") or raw.get("input_tokens_details"))
    of_answer = object_in(raw.get("completion_tokens_details") or raw.get("output_tokens_details"))
    # xAI and Gemini have what was thought in the total alone.
    beside = _first(raw, "total_tokens", "totalTokens") - prompt - answered if prompt else 0
    output = answered + max(0, beside)
    # Of DeepSeek, and of Moonshot.
    cached = _first(of_prompt, "cached_tokens") or _first(raw, "prompt_cache_hit_tokens", "cached_tokens")
    written = _first(of_prompt, "cache_write_tokens", "cache_creation_input_tokens")
    reasoning = max(_first(of_answer, "reasoning_tokens") or _first(raw, "reasoning_tokens"), beside)
    usage = Usage(input_tokens=prompt, output_tokens=output)
    _note_parts(usage, cached, written, reasoning)
    if isinstance(tier := answer.get("service_tier"), str):
        usage["tier"] = tier
    if (dollars := _dollars_in(raw)) is not None:
        usage["dollars"] = dollars
    return usage


def anthropic_usage(message: Mapping[str, Any]) -> Usage:
    """What a message of Anthropic's took. Its input tokens are those beside the cache's; ours are all of them."""
    raw = object_in(message.get("usage"))
    cached, written = _first(raw, "cache_read_input_tokens"), _first(raw, "cache_creation_input_tokens")
    usage = Usage(
        input_tokens=_first(raw, "input_tokens") + cached + written, output_tokens=_first(raw, "output_tokens")
    )
    thought = _first(object_in(raw.get("output_tokens_details")), "thinking_tokens", "reasoning_tokens")
    _note_parts(usage, cached, written, thought)
    long = min(written, _first(object_in(raw.get("cache_creation")), "ephemeral_1h_input_tokens"))
    if long:
        usage["cache_write_1h_tokens"] = long
    tier = "fast" if raw.get("speed") == "fast" else raw.get("service_tier")
    if isinstance(tier, str):
        usage["tier"] = tier
    return usage


def _note_parts(usage: Usage, cached: int, written: int, reasoning: int) -> None:
    """Parts are never more than the whole: some servers count them another way."""
    cached = min(cached, usage["input_tokens"])
    written = min(written, usage["input_tokens"] - cached)
    reasoning = min(reasoning, usage["output_tokens"])
    if cached:
        usage["cached_tokens"] = cached
    if written:
        usage["cache_write_tokens"] = written
    if reasoning:
        usage["reasoning_tokens"] = reasoning


def _dollars_in(raw: Mapping[str, Any]) -> float | None:
    """What the provider says that the request cost (xAI, OpenRouter, Perplexity)."""
    ticks = number_in(raw.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / TICKS_PER_DOLLAR
    cost = raw.get("cost")
    if total := object_in(cost).get("total_cost"):
        return number_in(total)
    if not isinstance(cost, int | float):
        return None
    # With a key of one's own, the model's provider sends a bill of its own.
    upstream = object_in(raw.get("cost_details")).get("upstream_inference_cost") if raw.get("is_byok") else 0
    dollars = number_in(cost)
    return dollars + (number_in(upstream) or 0.0) if dollars is not None else None


def _first(given: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if number := count_in(given.get(name)):
            return number
    return 0


def token_counts(usage: Usage, texts: Sequence[str | None]) -> TokenCounts:
    """The usage of one request by generation: the prompt at the first, the answers' tokens by their length."""
    rest = [0] * (len(texts) - 1)
    weights = [len(text or "") for text in texts]
    counts = TokenCounts(
        input_tokens=[usage["input_tokens"], *rest], output_tokens=shares(usage["output_tokens"], weights)
    )
    if (cached := usage.get("cached_tokens")) is not None:
        counts["cached_tokens"] = [cached, *rest]
    if (written := usage.get("cache_write_tokens")) is not None:
        counts["cache_write_tokens"] = [written, *rest]
    if (reasoning := usage.get("reasoning_tokens")) is not None:
        counts["reasoning_tokens"] = shares(reasoning, weights)
    return counts


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole parts after `weights`; in equal ones where all of them are 0.

    Example:
        >>> shares(10, [1, 3]), shares(9, [0]), shares(5, [0, 0])
        ([2, 8], [9], [2, 3])
    """
    weights = weights if any(weights) else [1] * len(weights)
    whole, before, given = sum(weights), 0, 0
    parts: list[int] = []
    for weight in weights:
        before += weight
        end = round(total * before / whole)
        parts.append(end - given)
        given = end
    return parts


def billed(usage: Usage) -> list[Usage]:
    """The usage, where there is any."""
    return [usage] if usage["input_tokens"] or usage["output_tokens"] else []


def usage_of(output: GenerateOutput) -> list[Usage]:
    """What an output is billed for, by request; of an adapter that says no more than its statistics, as one."""
    known = output.get("usage")
    if known is not None:
        return known
    counts = output["statistics"]
    usage = Usage(input_tokens=sum(counts["input_tokens"]), output_tokens=sum(counts["output_tokens"]))
    for name in PARTS_OF_TOKENS:
        if part := sum(counts.get(name) or ()):
            usage[name] = part
    return [usage]
