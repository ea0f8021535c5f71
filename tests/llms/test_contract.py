"""Every adapter of a provider keeps to the contract, on the provider's own wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llms.parameters import import_path
from llms.providers.bedrock import BedrockLLM
from llms.providers.cerebras import CerebrasLLM
from llms.providers.cohere import CohereLLM
from llms.providers.dashscope import DashScopeLLM
from llms.providers.deepseek import DeepSeekLLM
from llms.providers.fireworks import FireworksLLM
from llms.providers.gemini import GeminiLLM
from llms.providers.groq import GroqLLM
from llms.providers.litellm import LiteLLM
from llms.providers.llama_server import ClientLlamaCpp
from llms.providers.lm_studio import ClientLMStudio
from llms.providers.mistral import MistralLLM
from llms.providers.moonshot import MoonshotLLM
from llms.providers.nebius import NebiusLLM
from llms.providers.ollama import OllamaLLM
from llms.providers.openai_responses import OpenAIResponsesLLM
from llms.providers.openrouter import OpenRouterLLM
from llms.providers.perplexity import PerplexityLLM
from llms.providers.sambanova import SambaNovaLLM
from llms.providers.sglang_server import ClientSGLang
from llms.providers.together import TogetherLLM
from llms.providers.vertexai import VertexAILLM
from llms.providers.vllm_server import ClientvLLM
from llms.providers.xai import XAILLM
from llms.providers.zai import ZAILLM
from llms.registry import IN_TABS, LLM_VARIANTS
from tests.llms import contract, wires
from tests.llms.contract import Adapter, Check
from tests.llms.wires import StandIn

ADAPTERS = {
    "openai responses": Adapter(OpenAIResponsesLLM, wires.RESPONSES, "OPENAI_API_KEY", "/v1"),
    "mistral": Adapter(MistralLLM, wires.MISTRAL, "MISTRAL_API_KEY", "/v1"),
    "groq": Adapter(GroqLLM, wires.GROQ, "GROQ_API_KEY"),
    "together": Adapter(TogetherLLM, wires.TOGETHER, "TOGETHER_API_KEY", "/v1"),
    "ollama": Adapter(OllamaLLM, wires.OLLAMA),
    "openrouter": Adapter(OpenRouterLLM, wires.OPENROUTER, "OPENROUTER_API_KEY", "/api/v1"),
    "deepseek": Adapter(DeepSeekLLM, wires.DEEPSEEK, "DEEPSEEK_API_KEY"),
    "fireworks": Adapter(FireworksLLM, wires.FIREWORKS, "FIREWORKS_API_KEY"),
    "xai": Adapter(XAILLM, wires.XAI, "XAI_API_KEY", "/v1"),
    "cerebras": Adapter(CerebrasLLM, wires.CEREBRAS, "CEREBRAS_API_KEY"),
    "perplexity": Adapter(PerplexityLLM, wires.PERPLEXITY, "PERPLEXITY_API_KEY"),
    "dashscope": Adapter(DashScopeLLM, wires.DASHSCOPE, "DASHSCOPE_API_KEY", "/compatible-mode/v1"),
    "moonshot": Adapter(MoonshotLLM, wires.MOONSHOT, "MOONSHOT_API_KEY", "/v1"),
    "zai": Adapter(ZAILLM, wires.ZAI, "ZAI_API_KEY", "/api/paas/v4"),
    "nebius": Adapter(NebiusLLM, wires.NEBIUS, "NEBIUS_API_KEY", "/v1"),
    "sambanova": Adapter(SambaNovaLLM, wires.SAMBANOVA, "SAMBANOVA_API_KEY", "/v1"),
    "gemini": Adapter(GeminiLLM, wires.GEMINI, "GOOGLE_API_KEY"),
    "vertexai": Adapter(VertexAILLM, wires.VERTEX),
    "cohere": Adapter(CohereLLM, wires.COHERE, "CO_API_KEY"),
    "bedrock": Adapter(BedrockLLM, wires.BEDROCK, "AWS_BEARER_TOKEN_BEDROCK", fields={"region": "us-east-1"}),
    "litellm": Adapter(LiteLLM, wires.LITELLM, base="/v1", fields={"model": "openai/m"}, needs="litellm"),
    "vllm server": Adapter(ClientvLLM, wires.VLLM),
    "sglang server": Adapter(ClientSGLang, wires.SGLANG),
    "llama server": Adapter(ClientLlamaCpp, wires.LLAMA_SERVER),
    "lm studio": Adapter(ClientLMStudio, wires.LM_STUDIO),
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
    """Those with a tab of their own in forms have tests of their own."""
    named = {tag: path for tag, path in LLM_VARIANTS.ours.items() if tag not in IN_TABS}

    assert {import_path(adapter.kind) for adapter in ADAPTERS.values()} == set(named.values())
