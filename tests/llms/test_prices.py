"""What requests cost: which adapter and address get which price, and which get none."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

import pytest

from llms import InferenceEndpointsLLM, OpenAILLM, PriceSource
from llms.local_provider import LocalProvider
from llms.prices import cost, is_own_server, money
from tests.conftest import ROOT
from tests.flows.own_llm import OwnLLM

MILLION = 1_000_000
OPENAI = "https://api.openai.com/v1"


def price_of(model: str, base_url: str | None = None, **options: Any) -> float | None:
    """Of a million input and a million output tokens in short prompts."""
    return cost(OpenAILLM(model=model, base_url=base_url), MILLION, MILLION, **options)


@pytest.mark.parametrize(
    ("model", "base_url", "dollars"),
    [
        ("gpt-4o", None, 2.5 + 10),
        ("gpt-4o-mini-2024-07-18", OPENAI, 0.15 + 0.6),
        ("gpt-4o", "https://ours.openai.azure.com/openai/v1", 2.5 + 10),
        ("claude-sonnet-4-5", "https://api.anthropic.com", 3 + 15),
        ("llama-3.3-70b-versatile", "https://api.groq.com/openai/v1/", 0.59 + 0.79),
        ("openai/gpt-4o", "https://openrouter.ai/api/v1", 2.5 + 10),
    ],
)
def test_a_price_is_that_of_the_model_at_its_address(model: str, base_url: str | None, dollars: float) -> None:
    assert price_of(model, base_url) == pytest.approx(dollars)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000/v1",
        "http://[::1]:8000/v1",
        "http://10.0.0.7/v1",
        "http://vllm:8000/v1",
        "http://gpu.local/v1",
        "http://localhost:8000/x.openai.azure.com/v1",
        "https://api.openai.com.example.org/v1",
        "https://llm.example.org/v1",
        "not an address",
    ],
)
def test_a_server_of_ones_own_never_gets_a_providers_price(base_url: str) -> None:
    assert price_of("gpt-4o", base_url) is None
    assert price_of("gpt-4o", base_url, batch=True) is None


def test_the_local_provider_has_no_price(provider: LocalProvider) -> None:
    assert price_of("gpt-4o") is None


@pytest.mark.parametrize("host", ["api.openai.com", "router.huggingface.co"])
def test_an_address_on_the_internet_is_not_ones_own(host: str) -> None:
    assert not is_own_server(f"https://{host}/v1")


@pytest.mark.parametrize("model", ["test-model", "gpt-99", "whisper-1"])
def test_a_model_that_is_unknown_or_not_sold_by_the_token_has_no_price(model: str) -> None:
    assert price_of(model, OPENAI) is None


def test_a_batch_costs_the_adapters_share_of_the_price_online_where_the_list_has_no_price_for_it() -> None:
    class Cheap(OpenAILLM):
        batch_price: ClassVar[float] = 0.25

    known, unknown = (
        Cheap(model=model, base_url=url)
        for model, url in (("gpt-4o", OPENAI), ("openai/gpt-4o", "https://openrouter.ai/api/v1"))
    )

    assert cost(known, MILLION, MILLION, batch=True) == pytest.approx(12.5 / 2)
    assert cost(unknown, MILLION, MILLION, batch=True) == pytest.approx(12.5 / 4)


def test_many_short_prompts_are_not_charged_as_one_long_one() -> None:
    url = "https://api.anthropic.com"

    assert price_of("claude-sonnet-4-5", url) == price_of("claude-sonnet-4-5", url, requests=1000)
    assert price_of("claude-sonnet-4-5", url, requests=1) == pytest.approx(6 + 22.5)


def test_the_price_of_an_inference_provider_is_known_where_it_is_named() -> None:
    model = "meta-llama/Llama-3.3-70B-Instruct"
    named = InferenceEndpointsLLM(model_id=model, inference_provider="novita", model_display_name="ours")

    assert cost(named, MILLION, MILLION) == pytest.approx(0.135 + 0.4)
    assert cost(InferenceEndpointsLLM(model_id=model), MILLION, MILLION) is None
    assert cost(InferenceEndpointsLLM(endpoint_name="mine"), MILLION, MILLION) is None
    assert cost(InferenceEndpointsLLM(base_url="http://127.0.0.1:1"), MILLION, MILLION) is None
    assert cost(named, MILLION, MILLION, batch=True) is None


def test_an_llm_of_ones_own_has_no_price_until_it_says_where_it_is_found() -> None:
    class Told(OwnLLM):
        def price_source(self) -> PriceSource:
            return PriceSource("https://api.mistral.ai", "mistral-small-latest")

    assert cost(OwnLLM(), MILLION, MILLION) is None
    assert cost(Told(), MILLION, MILLION) == pytest.approx(0.15 + 0.6)


def test_credentials_that_cannot_be_found_mean_no_price_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.credentials._store", None)
    assert cost(OpenAILLM(model="gpt-4o", credentials="gone"), 1, 1) is None


def test_no_tokens_cost_nothing() -> None:
    assert cost(OpenAILLM(model="gpt-4o", base_url=OPENAI), 0, 0) == 0.0


def test_a_price_is_found_without_a_connection() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from llms import OpenAILLM\n"
        "from llms.prices import cost\n"
        "assert 'genai_prices' not in sys.modules\n"
        f"print(cost(OpenAILLM(model='gpt-4o', base_url={OPENAI!r}), 1000, 1000))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "0.0125"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0, "$0.00"),
        (0.014, "$0.014"),
        (0.42, "$0.42"),
        (0.0042, "$0.0042"),
        (1.2e-7, "$0.00000012"),
        (14.2, "$14.20"),
        (12345, "$12,345.00"),
    ],
)
def test_an_amount_shows_cents_and_more_places_only_where_it_is_a_few_of_them(dollars: float, text: str) -> None:
    assert money(dollars) == text
