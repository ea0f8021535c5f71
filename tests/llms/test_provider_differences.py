"""What single providers have beside what all of them keep to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from llms import (
    XAILLM,
    ZAILLM,
    AsyncLLM,
    AuthenticationError,
    CerebrasLLM,
    DashScopeLLM,
    DeepSeekLLM,
    FireworksLLM,
    GroqLLM,
    MoonshotLLM,
    OpenRouterLLM,
    PerplexityLLM,
    TogetherLLM,
)
from llms.prices import cost
from llms.typing import GenerateOutput
from tests.llms import wires
from tests.llms.batch_wires import BatchStandIn
from tests.llms.wires import KEY, Fault, Saying, StandIn, Wire

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]
SCHEMA: Any = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def asked(
    kind: Callable[..., AsyncLLM],
    wire: Wire,
    given: Any = CHAT,
    fields: dict[str, Any] | None = None,
    **parameters: Any,
) -> tuple[dict[str, Any], GenerateOutput]:
    """The body of the only request, and the output."""
    with StandIn(wire) as server:
        url = server.root + wire.path.removesuffix("/chat/completions")
        llm = kind(model="m", base_url=url, api_key=SecretStr(KEY), **(fields or {}))
        (output,) = llm.generate_outputs(inputs=[given], **parameters)
        return server.body, output


def test_groq_without_room_in_its_flexible_tier_is_asked_again() -> None:
    with StandIn(wires.GROQ) as server:
        server.faults = [Fault(498, "Flex tier capacity exceeded")]
        llm = GroqLLM(model="m", base_url=server.root, api_key=SecretStr(KEY))

        assert llm.generate_outputs(inputs=[CHAT])[0]["generations"] == ["Fine."]
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("kind", "variable", "given", "url"),
    [
        (GroqLLM, "GROQ_BASE_URL", "https://api.groq.com", "https://api.groq.com/openai/v1"),
        (FireworksLLM, "FIREWORKS_BASE_URL", "https://api.fireworks.ai", "https://api.fireworks.ai/inference/v1"),
        (
            FireworksLLM,
            "FIREWORKS_BASE_URL",
            "https://api.fireworks.ai/inference",
            "https://api.fireworks.ai/inference/v1",
        ),
        (FireworksLLM, "FIREWORKS_BASE_URL", "https://gateway.example.com", "https://gateway.example.com/v1"),
        (TogetherLLM, "TOGETHER_BASE_URL", "https://api.together.ai", "https://api.together.ai/v1"),
        (TogetherLLM, "TOGETHER_BASE_URL", "https://api.together.xyz/v1", "https://api.together.xyz/v1"),
        (CerebrasLLM, "CEREBRAS_BASE_URL", "https://api.cerebras.ai", "https://api.cerebras.ai/v1"),
    ],
)
def test_the_variable_of_an_sdk_may_hold_its_address_without_a_path(
    kind: Any, variable: str, given: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, given)

    assert kind(model="m").url() == url


def test_a_large_image_goes_to_zai_whole_and_without_its_type() -> None:
    data = "iVBORw0KGgo" * 10_000
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    address = {"type": "image_url", "image_url": {"url": "https://example.com/sea.png"}}
    body, _ = asked(ZAILLM, wires.ZAI, [{"role": "user", "content": [image, address]}])

    sent = [part["image_url"]["url"] for part in body["messages"][0]["content"]]
    assert sent == [data, "https://example.com/sea.png"]


def test_openais_organization_is_named_to_no_other_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    seen: list[dict[str, str]] = []

    class Noting(BatchStandIn):
        def reply(self, path: str, headers: Any, content: bytes) -> Any:
            seen.append(dict(headers))
            return super().reply(path, headers, content)

    with Noting() as server:
        llm = GroqLLM(model="m", base_url=server.url, api_key=SecretStr(KEY), use_offline_batch_generation=True)
        with pytest.raises(Exception, match="not finished"):
            llm.generate_outputs(inputs=[CHAT])

    assert len(seen) == 2
    assert all("mine" not in str(headers) for headers in seen)


@pytest.mark.parametrize(("kind", "wire"), [(TogetherLLM, wires.TOGETHER), (FireworksLLM, wires.FIREWORKS)])
def test_what_does_not_fit_is_refused_unless_one_says_otherwise(kind: Any, wire: Wire) -> None:
    name = "context_length_exceeded_behavior"

    assert asked(kind, wire)[0][name] == "error"
    assert asked(kind, wire, extra_body={name: "truncate"})[0][name] == "truncate"


def test_openrouter_asks_those_providers_for_a_schema_that_hold_to_one() -> None:
    routing = {"only": ["fireworks"]}

    assert "provider" not in asked(OpenRouterLLM, wires.OPENROUTER)[0]
    assert asked(OpenRouterLLM, wires.OPENROUTER, fields={"routing": routing})[0]["provider"] == routing
    body, _ = asked(OpenRouterLLM, wires.OPENROUTER, (CHAT, SCHEMA), {"routing": routing})
    assert body["provider"] == {"only": ["fireworks"], "require_parameters": True}


@pytest.mark.parametrize(
    ("kind", "wire", "usage", "dollars"),
    [
        (OpenRouterLLM, wires.OPENROUTER, {"cost": 0.25}, 0.25),
        (XAILLM, wires.XAI, {"cost_in_usd_ticks": 2_500_000_000}, 0.25),
        (PerplexityLLM, wires.PERPLEXITY, {"cost": {"input_tokens_cost": 0.05, "total_cost": 0.25}}, 0.25),
    ],
)
def test_what_a_request_cost_is_what_the_provider_says(kind: Any, wire: Wire, usage: Any, dollars: float) -> None:
    class Billing(type(wire)):
        def usage(self, saying: Saying) -> dict[str, Any]:
            return {**super().usage(saying), **usage}

    _, output = asked(kind, Billing(**vars(wire)))

    assert [each.get("dollars") for each in output.get("usage", [])] == [dollars]


def test_an_error_of_openrouters_within_an_answer_is_asked_again() -> None:
    with StandIn(wires.OPENROUTER) as server:
        error = b'{"error": {"code": 502, "message": "Provider returned error"}, "user_id": "u"}'
        server.faults = [Fault(200, content=error)]
        url = f"{server.root}/api/v1"
        (output,) = OpenRouterLLM(model="m", base_url=url, api_key=SecretStr(KEY)).generate_outputs(inputs=[CHAT])

        assert (output["generations"], len(server.asked)) == (["Fine."], 2)


def test_together_has_its_price_by_the_address_it_had_and_a_server_of_ones_own_has_none() -> None:
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"

    assert cost(TogetherLLM(model=model), 1_000_000, 1_000_000) == pytest.approx(1.76)
    assert cost(TogetherLLM(model=model, base_url="http://127.0.0.1:8000/v1"), 1_000_000, 1_000_000) is None


THINKING: list[Any] = [
    (DeepSeekLLM, wires.DEEPSEEK, {"thinking": {"type": "disabled"}}),
    (MoonshotLLM, wires.MOONSHOT, {"thinking": {"type": "disabled"}}),
    (ZAILLM, wires.ZAI, {"thinking": {"type": "disabled"}}),
    (DashScopeLLM, wires.DASHSCOPE, {"enable_thinking": False}),
]


@pytest.mark.parametrize(("kind", "wire", "sent"), THINKING)
def test_thinking_is_turned_off_in_the_providers_form(kind: Any, wire: Wire, sent: dict[str, Any]) -> None:
    body, _ = asked(kind, wire, thinking="disabled")

    assert sent.items() <= body.items()
    assert "thinking" in sent or "thinking" not in body


def test_sampling_is_turned_off_at_zai() -> None:
    assert asked(ZAILLM, wires.ZAI, do_sample="off")[0]["do_sample"] is False


def test_an_answer_that_deepseek_broke_off_for_want_of_machines_is_asked_for_once_more() -> None:
    with StandIn(wires.DEEPSEEK) as server:
        server.saying = Saying("Half an", end="insufficient_system_resource")
        llm = DeepSeekLLM(model="m", base_url=server.root, api_key=SecretStr(KEY))
        (output,) = llm.generate_outputs(inputs=[CHAT])

        assert (output["generations"], len(server.asked)) == ([None], 2)


def test_a_schema_goes_behind_the_system_prompt_or_in_its_place() -> None:
    chat = [{"role": "system", "content": "Be brief."}, *CHAT]
    with_prompt, _ = asked(DeepSeekLLM, wires.DEEPSEEK, (chat, SCHEMA))
    without, _ = asked(DeepSeekLLM, wires.DEEPSEEK, (CHAT, SCHEMA))

    assert with_prompt["messages"][0]["content"].startswith("Be brief.\n\n")
    assert [message["role"] for message in without["messages"]] == ["system", "user"]


REGIONS = [
    (DashScopeLLM, "DASHSCOPE", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    (MoonshotLLM, "MOONSHOT", "https://api.moonshot.cn/v1"),
    (ZAILLM, "ZAI", "https://open.bigmodel.cn/api/paas/v4"),
]


@pytest.mark.parametrize(("kind", "name", "url"), REGIONS)
def test_a_region_has_its_address_which_the_key_is_for(
    kind: Any, name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    there = kind(model="m", region="china")

    assert there.url() == url != kind(model="m").url()
    assert there.identity() != kind(model="m").identity()
    with pytest.raises(AuthenticationError, match=f"set {name}_API_KEY"):
        there.load()
    monkeypatch.setenv(f"{name}_API_KEY", "key-of-a-region")
    assert there.key().get_secret_value() == "key-of-a-region"
