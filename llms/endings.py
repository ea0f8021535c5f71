"""Why an answer ended: the words of every wire, and what each of them means.

An answer that isn't whole never passes as one. What becomes of it:

| End | With a text | Without |
|---|---|---|
| whole | believed | asked for once more |
| cut off: the limit of tokens ended it | marked in `cut_off` | fails: more `max_new_tokens` |
| withheld: a filter or the model itself did | marked in `unfinished` | fails: refused |
| tools: the model called one | marked in `unfinished` | fails: leave tools out |
| broken: the provider failed within it | asked for once more | asked for once more |
| unknown: any other word, or none | marked in `unfinished` | asked for once more |

The word itself stands in `finish_reasons`, whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from llms.typing import GenerateOutput

End: TypeAlias = Literal["whole", "cut off", "withheld", "tools", "broken", "unknown"]

NO_TOKENS_LEFT = "the limit of tokens was reached before the answer began"
MORE_TOKENS = (
    "give more `max_new_tokens` (in llm.generation_kwargs), or less thinking (`reasoning_effort`): thoughts count in it"
)

OPENAI: Mapping[str, End] = {
    "stop": "whole",  # all of the family
    "eos": "whole",  # Together
    "eos_token": "whole",  # TGI
    "stop_sequence": "whole",  # TGI, and gateways to Claude
    "end_turn": "whole",  # gateways to Claude
    "complete": "whole",  # gateways to Cohere
    "length": "cut off",  # all of the family
    "model_length": "cut off",  # Mistral: the model's own limit
    "max_tokens": "cut off",  # gateways to Claude and Gemini
    "max_output_tokens": "cut off",  # gateways to OpenAI's Responses
    "context_length_exceeded": "cut off",
    "model_context_window_exceeded": "cut off",  # Z.ai, gateways to Claude
    "content_filter": "withheld",  # OpenAI, Azure, DeepSeek, Moonshot, OpenRouter
    "content_filtered": "withheld",  # gateways to Bedrock
    "guardrail_intervened": "withheld",  # gateways to Bedrock
    "refusal": "withheld",  # gateways to Claude
    "safety": "withheld",  # gateways to Gemini, with the next four
    "recitation": "withheld",
    "prohibited_content": "withheld",
    "blocklist": "withheld",
    "spii": "withheld",
    "sensitive": "withheld",  # Z.ai
    "tool_calls": "tools",  # all of the family
    "function_call": "tools",  # OpenAI's older form
    "tool_use": "tools",  # gateways to Claude
    "error": "broken",  # OpenRouter, Mistral, vLLM
    "abort": "broken",  # vLLM, SGLang
    "insufficient_system_resource": "broken",  # DeepSeek
    "network_error": "broken",  # Z.ai
    "timeout": "broken",  # gateways to Cohere
    # vLLM's `repetition`, a text that it stopped for repeating itself, is neither whole nor cut by a limit.
}
"""`finish_reason` of OpenAI's protocol, as its many servers have it."""

ANTHROPIC: Mapping[str, End] = {
    "end_turn": "whole",
    "stop_sequence": "whole",
    "tool_use": "whole",  # a tool is called only where it takes the answer, or one's own `extra_body` has some
    "max_tokens": "cut off",
    "model_context_window_exceeded": "cut off",
    "refusal": "withheld",
    # `pause_turn`: a tool of the provider's takes long, and the turn could be continued.
}
"""`stop_reason` of Anthropic's messages: https://docs.claude.com/en/api/handling-stop-reasons."""

GEMINI: Mapping[str, End] = {
    "stop": "whole",
    "max_tokens": "cut off",
    # Of the prompt (`blockReason`), by a word of OpenAI's.
    "content_filter": "withheld",
    **dict.fromkeys(
        (
            *("safety", "recitation", "language", "blocklist", "prohibited_content", "spii", "model_armor"),
            *("escalation", "pup_limited_disabled", "image_safety", "image_prohibited_content", "image_recitation"),
        ),
        "withheld",
    ),
    "unexpected_tool_call": "tools",
    "too_many_tool_calls": "tools",
    **dict.fromkeys(("other", "malformed_function_call", "malformed_response", "image_other", "no_image"), "broken"),
    # `CONTINUATION`: the most of one request is reached, and the answer isn't whole: more tokens don't help.
}
"""`finishReason` of Gemini's candidates: google-genai 3.6, types.FinishReason."""

BEDROCK: Mapping[str, End] = {
    "end_turn": "whole",
    "stop_sequence": "whole",
    "max_tokens": "cut off",
    "model_context_window_exceeded": "cut off",
    "guardrail_intervened": "withheld",
    "content_filtered": "withheld",
    "tool_use": "tools",
    "malformed_model_output": "broken",
    "malformed_tool_use": "broken",
}
"""`stopReason` of Bedrock's Converse: botocore 1.43, bedrock-runtime, StopReason."""

COHERE: Mapping[str, End] = {
    "complete": "whole",
    "stop_sequence": "whole",
    "max_tokens": "cut off",
    "error_toxic": "withheld",
    "tool_call": "tools",
    "error": "broken",
    "timeout": "broken",
}
"""`finish_reason` of Cohere's chats: cohere 7.3, types.ChatFinishReason; `ERROR_TOXIC` is that of its first API."""

TGI: Mapping[str, End] = {"eos_token": "whole", "stop_sequence": "whole", "length": "cut off"}
"""`details.finish_reason` of a text of Text Generation Inference."""


def end_of(word: object, words: Mapping[str, End]) -> End:
    """What a finish reason means.

    Example:
        >>> end_of("model_length", OPENAI), end_of("content_filter: SAFETY", OPENAI), end_of(None, OPENAI)
        ('cut off', 'withheld', 'unknown')
    """
    if not isinstance(word, str):
        return "unknown"
    # Gemini's own reason follows after a colon.
    return words.get(word.partition(":")[0].strip().lower(), "unknown")


def mark(output: GenerateOutput, reasons: Sequence[object], ends: Sequence[End]) -> None:
    """Note by generation why it ended, in the provider's words and in ours."""
    output["finish_reasons"] = [word if isinstance(word, str) else None for word in reasons]
    if "cut off" in ends:
        output["cut_off"] = [end == "cut off" for end in ends]
    unfinished = [end not in {"whole", "cut off"} for end in ends]
    if any(unfinished):
        output["unfinished"] = unfinished
