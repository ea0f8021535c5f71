"""Every adapter of a provider keeps to the contract, on the provider's own wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llms
from llms.parameters import import_path
from llms.registry import IN_TABS, LLM_VARIANTS
from tests.llms import contract, wires
from tests.llms.contract import Adapter, Check
from tests.llms.wires import StandIn

ADAPTERS = {
    "openai responses": Adapter(llms.OpenAIResponsesLLM, wires.RESPONSES, "OPENAI_API_KEY", "/v1"),
    "mistral": Adapter(llms.MistralLLM, wires.MISTRAL, "MISTRAL_API_KEY", "/v1"),
    "groq": Adapter(llms.GroqLLM, wires.GROQ, "GROQ_API_KEY"),
    "together": Adapter(llms.TogetherLLM, wires.TOGETHER, "TOGETHER_API_KEY", "/v1"),
    "ollama": Adapter(llms.OllamaLLM, wires.OLLAMA),
    "openrouter": Adapter(llms.OpenRouterLLM, wires.OPENROUTER, "OPENROUTER_API_KEY", "/api/v1"),
    "deepseek": Adapter(llms.DeepSeekLLM, wires.DEEPSEEK, "DEEPSEEK_API_KEY"),
    "fireworks": Adapter(llms.FireworksLLM, wires.FIREWORKS, "FIREWORKS_API_KEY", "/inference"),
    "xai": Adapter(llms.XAILLM, wires.XAI, "XAI_API_KEY", "/v1"),
    "cerebras": Adapter(llms.CerebrasLLM, wires.CEREBRAS, "CEREBRAS_API_KEY"),
    "perplexity": Adapter(llms.PerplexityLLM, wires.PERPLEXITY, "PERPLEXITY_API_KEY"),
    "dashscope": Adapter(llms.DashScopeLLM, wires.DASHSCOPE, "DASHSCOPE_API_KEY", "/compatible-mode/v1"),
    "moonshot": Adapter(llms.MoonshotLLM, wires.MOONSHOT, "MOONSHOT_API_KEY", "/v1"),
    "zai": Adapter(llms.ZAILLM, wires.ZAI, "ZAI_API_KEY", "/api/paas/v4"),
    "nebius": Adapter(llms.NebiusLLM, wires.NEBIUS, "NEBIUS_API_KEY", "/v1"),
    "deepinfra": Adapter(llms.DeepInfraLLM, wires.DEEPINFRA, "DEEPINFRA_TOKEN", "/v1/openai"),
    "sambanova": Adapter(llms.SambaNovaLLM, wires.SAMBANOVA, "SAMBANOVA_API_KEY", "/v1"),
    "gemini": Adapter(llms.GeminiLLM, wires.GEMINI, "GOOGLE_API_KEY"),
    "vertexai": Adapter(llms.VertexAILLM, wires.VERTEX),
    "cohere": Adapter(llms.CohereLLM, wires.COHERE, "CO_API_KEY"),
    "bedrock": Adapter(llms.BedrockLLM, wires.BEDROCK, "AWS_BEARER_TOKEN_BEDROCK", fields={"region": "us-east-1"}),
    "litellm": Adapter(llms.LiteLLM, wires.LITELLM, base="/v1", fields={"model": "openai/m"}, needs="litellm"),
    "vllm server": Adapter(llms.ClientvLLM, wires.VLLM),
    "sglang server": Adapter(llms.ClientSGLang, wires.SGLANG),
    "llama server": Adapter(llms.ClientLlamaCpp, wires.LLAMA_SERVER),
    "lm studio": Adapter(llms.ClientLMStudio, wires.LM_STUDIO),
}
adapters = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


@pytest.fixture(autouse=True)
def no_account_at_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that of whoever runs the tests, nor the machine's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server(adapter: Adapter) -> Iterator[StandIn]:
    if adapter.needs:
        pytest.importorskip(adapter.needs)
    with StandIn(adapter.wire) as running:
        yield running


@adapters
@pytest.mark.parametrize("check", contract.CHECKS.values(), ids=contract.CHECKS)
def test_it_keeps_to(adapter: Adapter, check: Check, server: StandIn) -> None:
    check(adapter, server)


@adapters
def test_a_provider_that_says_how_long_to_wait_is_waited_for(
    adapter: Adapter, server: StandIn, waits: list[float]
) -> None:
    contract.check_waits(adapter, server, waits)


@adapters
def test_its_key_comes_from_the_providers_variable(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    contract.check_key(adapter, monkeypatch)


def test_every_adapter_that_goes_by_its_name_is_among_them() -> None:
    """Those with a tab of their own in forms have tests of their own, and engines on this machine have no wire."""
    engines = {"transformers", "vllm", "mlx", "llama-cpp"}
    named = {tag: path for tag, path in LLM_VARIANTS.ours.items() if tag not in {*IN_TABS, *engines}}

    assert {import_path(adapter.kind) for adapter in ADAPTERS.values()} == set(named.values())
