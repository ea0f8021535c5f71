"""A second reading of the wires: what a provider's own SDK sends is what ours does, field by field.

The SDKs aren't among the tests' requirements. Where one isn't installed, its test says so.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, cast

import pytest

from llms import BedrockLLM, CohereLLM, GeminiLLM, VertexAILLM
from llms.service import ServiceLLM
from tests.llms.wires import BEDROCK, COHERE, GEMINI, KEY, VERTEX, StandIn, Wire

DOT = b"\x89PNG\r\n\x1a\n"
IMAGE = base64.b64encode(DOT).decode()
CHAT: Any = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ],
    },
    {"role": "assistant", "content": "A dot."},
    {"role": "user", "content": "And now?"},
]
SCHEMA: Any = {
    "type": "object",
    "properties": {"height": {"type": "integer"}},
    "required": ["height"],
    "additionalProperties": False,
}
COMMON: dict[str, Any] = {"max_new_tokens": 64, "temperature": 0.5, "top_p": 0.75, "stop": ["END"]}


def theirs_of(wire: Wire, ask: Callable[[str], Any]) -> Any:
    """The path and the body that `ask` sends to an address, whatever it makes of the answer."""
    with StandIn(wire) as server:
        ask(server.root)
        (asked,) = server.asked
        return asked.path, asked.body


def ours_of(wire: Wire, kind: type[ServiceLLM], parameters: dict[str, Any], **fields: Any) -> Any:
    with StandIn(wire) as server:
        given: dict[str, Any] = {"model": "m", "base_url": server.root, "api_key": KEY, **fields}
        (output,) = kind(**given).generate_outputs(inputs=[(CHAT, SCHEMA)], **parameters)
        assert output["generations"] == ["Fine."]
        (asked,) = server.asked
        return asked.path, asked.body


def in_camels(value: Any) -> Any:
    """JSON of Google's with the names as documents have them: theirs has some as in Python, which mean the same."""
    if isinstance(value, list):
        return [in_camels(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    return {re.sub(r"_(\w)", lambda found: found[1].upper(), name): in_camels(each) for name, each in given.items()}


@pytest.mark.parametrize("vertex", [False, True])
def test_gemini(vertex: bool) -> None:
    genai: Any = pytest.importorskip("google.genai")

    def ask(root: str) -> Any:
        types = genai.types
        client = genai.Client(vertexai=vertex, api_key=KEY, http_options=types.HttpOptions(base_url=root))
        contents = [
            types.Content(
                role="user",
                parts=[
                    types.Part(text="What is it?"),
                    types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n", mime_type="image/png"),
                ],
            ),
            types.Content(role="model", parts=[types.Part(text="A dot.")]),
            types.Content(role="user", parts=[types.Part(text="And now?")]),
        ]
        config = types.GenerateContentConfig(
            system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
            max_output_tokens=64,
            temperature=0.5,
            top_p=0.75,
            top_k=5,
            stop_sequences=["END"],
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            response_mime_type="application/json",
            response_json_schema=SCHEMA,
            response_logprobs=True,
            logprobs=2,
            thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level="LOW"),
            safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
            service_tier="flex",
        )
        return client.models.generate_content(model="m", contents=contents, config=config)

    parameters = {
        **COMMON,
        "top_k": 5,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "top_logprobs": 2,
        "thinking_level": "low",
        "include_thoughts": True,
        "service_tier": "flex",
        "safety_settings": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
    }
    wire, kind = (VERTEX, VertexAILLM) if vertex else (GEMINI, GeminiLLM)
    path, body = theirs_of(wire, ask)

    assert ours_of(wire, kind, parameters) == (path, in_camels(body))


def test_cohere() -> None:
    cohere: Any = pytest.importorskip("cohere")

    def ask(root: str) -> Any:
        client = cohere.ClientV2(api_key=KEY, base_url=root)
        return client.chat(
            model="m",
            messages=CHAT,
            max_tokens=64,
            temperature=0.5,
            p=0.75,
            k=5,
            stop_sequences=["END"],
            seed=7,
            frequency_penalty=0.25,
            presence_penalty=0.5,
            logprobs=True,
            safety_mode="STRICT",
            priority=3,
            thinking=cohere.Thinking(type="enabled", token_budget=50),
            response_format=cohere.JsonObjectResponseFormatV2(json_schema=SCHEMA),
        )

    parameters = {
        **COMMON,
        "top_k": 5,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logprobs": True,
        "safety_mode": "STRICT",
        "priority": 3,
        "thinking_budget": 50,
    }
    assert ours_of(COHERE, CohereLLM, parameters) == theirs_of(COHERE, ask)


def test_bedrock(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = pytest.importorskip("botocore.session")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)

    def ask(root: str) -> Any:
        client = session.Session().create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=root)
        schema = json.dumps(SCHEMA, separators=(",", ":"))
        image = {"format": "png", "source": {"bytes": DOT}}
        return client.converse(
            modelId="m",
            system=[{"text": "Be brief."}],
            messages=[
                {"role": "user", "content": [{"text": "What is it?"}, {"image": image}]},
                {"role": "assistant", "content": [{"text": "A dot."}]},
                {"role": "user", "content": [{"text": "And now?"}]},
            ],
            inferenceConfig={"maxTokens": 64, "temperature": 0.5, "topP": 0.75, "stopSequences": ["END"]},
            additionalModelRequestFields={"top_k": 5},
            serviceTier={"type": "flex"},
            performanceConfig={"latency": "optimized"},
            outputConfig={
                "effort": "low",
                "textFormat": {
                    "type": "json_schema",
                    "structure": {"jsonSchema": {"schema": schema, "name": "answer"}},
                },
            },
        )

    parameters = {
        **COMMON,
        "service_tier": "flex",
        "latency": "optimized",
        "reasoning_effort": "low",
        "additional_fields": {"top_k": 5},
    }
    assert ours_of(BEDROCK, BedrockLLM, parameters, region="us-east-1") == theirs_of(BEDROCK, ask)
