"""Answers that the limit of tokens cut off are told from whole ones, by every adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llms import AnthropicLLM, AzureOpenAILLM, InferenceEndpointsLLM, OpenAILLM
from llms.base import AsyncLLM
from llms.local_provider import LocalProvider
from llms.providers.anthropic import parse_message
from llms.providers.inference_endpoints import parse_text

CHAT = [{"role": "user", "content": "Tell me about the sea."}]

ADAPTERS: dict[str, Callable[[LocalProvider], AsyncLLM]] = {
    "openai": lambda provider: OpenAILLM(model="m", base_url=provider.base_url),
    "openai in batches": lambda provider: OpenAILLM(
        model="m",
        base_url=provider.base_url,
        use_offline_batch_generation=True,
        offline_batch_generation_block_until_done=1,
    ),
    "azure": lambda provider: AzureOpenAILLM(model="m", base_url=f"{provider.anthropic_url}/openai", api_key="k"),
    "anthropic": lambda provider: AnthropicLLM(model="m", base_url=provider.anthropic_url, api_key="k"),
    "inference endpoints": lambda provider: InferenceEndpointsLLM(base_url=provider.base_url),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_cut_answer_is_marked_and_a_whole_one_is_not(provider: LocalProvider, adapter: str) -> None:
    llm = ADAPTERS[adapter](provider)
    llm.load()

    (cut,) = llm.generate_outputs(inputs=[CHAT], max_new_tokens=2)
    (whole,) = llm.generate_outputs(inputs=[CHAT], max_new_tokens=1000)

    assert cut["cut_off"] == [True]
    assert "cut_off" not in whole


def test_each_of_several_generations_is_marked_for_itself(provider: LocalProvider) -> None:
    provider.set(answers={".*": ["short", "a text that goes on for a good while", "brief"]})
    llm = OpenAILLM(model="m")
    llm.load()

    (output,) = llm.generate_outputs(inputs=[CHAT], num_generations=3, max_new_tokens=3)

    assert output["cut_off"] == [False, True, False]


def test_generations_from_requests_of_their_own_keep_their_marks(provider: LocalProvider) -> None:
    llm = ADAPTERS["anthropic"](provider)
    llm.load()

    (output,) = llm.generate_outputs(inputs=[CHAT], num_generations=2, max_new_tokens=2)

    assert output["cut_off"] == [True, True]


def test_a_bare_prompt_is_marked_as_a_chat_is(provider: LocalProvider) -> None:
    llm = OpenAILLM(model="m")
    llm.load()

    (output,) = llm.generate_outputs(inputs=["Once upon"], max_new_tokens=2)

    assert output["cut_off"] == [True]


@pytest.mark.parametrize(("reason", "is_cut"), [("length", True), ("eos_token", False), ("stop_sequence", False)])
def test_a_text_generation_inference_server_says_why_it_ended(reason: str, is_cut: bool) -> None:
    answer = {"generated_text": "Once", "details": {"finish_reason": reason, "generated_tokens": 1}}

    assert parse_text(answer, {}, with_logprobs=False).get("cut_off", [False]) == [is_cut]


@pytest.mark.parametrize(
    ("reason", "is_cut"),
    [("max_tokens", True), ("model_context_window_exceeded", True), ("end_turn", False), ("stop_sequence", False)],
)
def test_a_message_says_why_it_ended(reason: str, is_cut: bool) -> None:
    message: dict[str, Any] = {"content": [{"type": "text", "text": "Once"}], "stop_reason": reason}

    assert parse_message(message).get("cut_off", [False]) == [is_cut]
