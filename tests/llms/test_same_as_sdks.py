"""A second reading of the wires: what a provider's own SDK sends is what ours does, field by field.

The SDKs aren't among the tests' requirements. What they send is recorded in `sdk_requests.json`, which is checked
against them where STILLFLOW_TEST_SDKS is set. AWS's own is there.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from llms import (
    ZAILLM,
    AnthropicLLM,
    AzureOpenAILLM,
    BedrockLLM,
    CohereLLM,
    DashScopeLLM,
    GeminiLLM,
    InferenceEndpointsLLM,
    MoonshotLLM,
    NebiusLLM,
    OllamaLLM,
    OpenAILLM,
    VertexAILLM,
)
from llms.base import AsyncLLM
from llms.batch import MARK, split_custom_id
from llms.loop import run_sync
from llms.structured_output import constrainable_schema
from tests.llms import sdk_requests, wires
from tests.llms.batch_wires import BatchStandIn, DashScopeStandIn, MoonshotStandIn, NebiusStandIn, ZAIStandIn
from tests.llms.contract import Adapter
from tests.llms.sdk_requests import KEY, Recorder
from tests.llms.test_contract import ADAPTERS
from tests.llms.wires import BEDROCK, Fault, StandIn, Wire

CHAT, CALLS, SCHEMA = sdk_requests.CHAT, sdk_requests.CALLS, sdk_requests.SCHEMA
COMMON: dict[str, Any] = {"max_new_tokens": 64, "temperature": 0.5, "top_p": 0.75, "stop": ["END"]}


def converse(root: str, messages: list[Any], **given: Any) -> None:
    session: Any = importlib.import_module("botocore.session")
    client = session.Session().create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=root)
    client.converse(modelId="m", messages=messages, **given)


def converse_in_full(root: str) -> None:
    schema = json.dumps(SCHEMA, separators=(",", ":"))
    image = {"format": "png", "source": {"bytes": base64.b64decode(sdk_requests.DOT)}}
    structure = {"jsonSchema": {"schema": schema, "name": "answer"}}
    messages = [
        {"role": "user", "content": [{"text": "What is it?"}, {"image": image}]},
        {"role": "assistant", "content": [{"text": "A dot."}]},
        {"role": "user", "content": [{"text": "And now?"}]},
    ]
    converse(
        root,
        messages,
        system=[{"text": "Be brief."}],
        inferenceConfig={"maxTokens": 64, "temperature": 0.5, "topP": 0.75, "stopSequences": ["END"]},
        additionalModelRequestFields={"top_k": 5},
        serviceTier={"type": "flex"},
        performanceConfig={"latency": "optimized"},
        outputConfig={"effort": "low", "textFormat": {"type": "json_schema", "structure": structure}},
    )


def converse_of_calls(root: str) -> None:
    call = {"toolUseId": "call-1", "name": "weather", "input": sdk_requests.CITY}
    result = {"toolUseId": "call-1", "content": [{"text": "4 degrees"}]}
    messages = [
        {"role": "user", "content": [{"text": "How warm is it in Oslo?"}]},
        {"role": "assistant", "content": [{"text": "I'll look."}, {"toolUse": call}]},
        {"role": "user", "content": [{"toolResult": result}]},
    ]
    converse(root, messages)


@pytest.mark.parametrize(
    ("ask", "given", "parameters"),
    [
        (
            converse_in_full,
            (CHAT, SCHEMA),
            {
                **COMMON,
                "service_tier": "flex",
                "latency": "optimized",
                "reasoning_effort": "low",
                "additional_fields": {"top_k": 5},
            },
        ),
        (converse_of_calls, CALLS, {}),
    ],
)
def test_bedrock_is_sent_what_awss_own_client_sends(
    ask: Callable[[str], None], given: Any, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    with StandIn(BEDROCK) as server:
        ask(server.root)
        llm = BedrockLLM(model="m", base_url=server.root, api_key=SecretStr(KEY), region="us-east-1")
        (output,) = llm.generate_outputs(inputs=[given], **parameters)
        assert "error" not in output, output
        theirs, ours = server.asked

    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]


RECORDS: dict[str, Any] = json.loads(Path(sdk_requests.__file__).with_suffix(".json").read_text(encoding="utf-8"))
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.25, "presence_penalty": 0.5}
LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
SAMPLING: dict[str, Any] = {"top_k": 5, "min_p": 0.125, "repetition_penalty": 1.25}
OF_JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}
THINKING: dict[str, Any] = {"thinking": "enabled"}
TWICE: dict[str, Any] = {"num_generations": 2}
PARAMETERS: dict[str, dict[str, Any]] = {
    "openai": {**TWICE, **PENALTIES, **LOGPROBS, "seed": 7, "reasoning_effort": "low"},
    "mistral": {
        **TWICE,
        **PENALTIES,
        **LOGPROBS,
        "seed": 7,
        "reasoning_effort": "high",
        "prompt_mode": "reasoning",
        "safe_prompt": True,
        "service_tier": "auto",
    },
    "groq": {"seed": 7, "reasoning_effort": "low", "reasoning_format": "parsed", "service_tier": "flex"},
    "together": {**TWICE, **PENALTIES, **SAMPLING, "seed": 7, "reasoning_effort": "low"},
    "fireworks": {
        **TWICE,
        **PENALTIES,
        **SAMPLING,
        **LOGPROBS,
        "seed": 7,
        "reasoning_effort": "low",
        "service_tier": "priority",
    },
    "xai": {**TWICE, **PENALTIES, **LOGPROBS, "seed": 7, "reasoning_effort": "low", "service_tier": "priority"},
    "deepseek": {**PENALTIES, **LOGPROBS, **OF_JSON, **THINKING, "reasoning_effort": "high"},
    "openrouter": {
        **PENALTIES,
        **SAMPLING,
        **LOGPROBS,
        "seed": 7,
        "reasoning_effort": "low",
        "service_tier": "flex",
    },
    "cerebras": {
        **TWICE,
        **PENALTIES,
        **LOGPROBS,
        "seed": 7,
        "reasoning_effort": "low",
        "reasoning_format": "parsed",
        "service_tier": "flex",
    },
    "perplexity": {
        **PENALTIES,
        "top_k": 5,
        "reasoning_effort": "low",
        "disable_search": True,
        "search_mode": "academic",
        "search_domain_filter": ["arxiv.org"],
    },
    "dashscope": {
        **LOGPROBS,
        **THINKING,
        "top_k": 5,
        "repetition_penalty": 1.25,
        "presence_penalty": 0.5,
        "thinking_budget": 50,
        "seed": 7,
    },
    "moonshot": {**TWICE, **PENALTIES, **OF_JSON, **THINKING},
    "zai": {**OF_JSON, **THINKING, "seed": 7, "do_sample": "on", "reasoning_effort": "high"},
    "nebius": {**TWICE, **PENALTIES, **LOGPROBS, "seed": 7},
    "sambanova": {"top_k": 5},
    "deepinfra": {
        **TWICE,
        **PENALTIES,
        **SAMPLING,
        **OF_JSON,
        "seed": 7,
        "reasoning_effort": "low",
        "service_tier": "priority",
        "logprobs": True,
    },
}
"""What is asked of each in the records, by our names."""
FIELDS: dict[str, dict[str, Any]] = {"openrouter": {"routing": {"only": ["openai"]}}}
OPENAI = Adapter(
    OpenAILLM, Wire(fields=f"{wires.OPENAI} max_completion_tokens reasoning_effort"), "OPENAI_API_KEY", "/v1"
)


def without_defaults(value: Any) -> Any:
    """A body without what some SDKs write into it that is so without it too."""
    if isinstance(value, list):
        return [without_defaults(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    unsaid = [name for name in ("stream", "prefix") if given.get(name) is False]
    return {name: without_defaults(each) for name, each in given.items() if name not in unsaid}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_family_sends_what_the_sdk_of_each_provider_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record, parameters = RECORDS[name], PARAMETERS[name]
    adapter = ADAPTERS.get(name, OPENAI)
    given = CHAT if "response_format" in parameters else (CHAT, SCHEMA)
    with StandIn(adapter.wire) as server:
        llm = adapter.at(server, **FIELDS.get(name, {}))
        if adapter is OPENAI:
            # What OpenAI itself takes, and no other server surely does.
            monkeypatch.setattr(OpenAILLM, "own_url", f"{server.root}/v1")
        (output,) = llm.generate_outputs(inputs=[given], **COMMON, **parameters)
        assert "error" not in output, output
        (asked,) = server.asked

    assert asked.path == record["path"]
    assert asked.headers["Authorization"] == record["headers"]["Authorization"]
    assert asked.headers["Content-Type"] == record["headers"]["Content-Type"].partition(";")[0]
    assert asked.body == without_defaults(record["body"])


@dataclass(frozen=True)
class Ours:
    """What is asked of an adapter with a wire of its own, where its SDK is asked the same."""

    kind: type[AsyncLLM]
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    given: Any = (CHAT, SCHEMA)
    base: str = ""
    """The address below the recorder's root."""
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """What our body has besides, on purpose."""
    less: tuple[str, ...] = ()
    """What theirs has besides, which says nothing."""

    def made(self, **place: Any) -> AsyncLLM:
        kind: Any = self.kind
        given = {"api_key": sdk_requests.HUB_KEY} if self.is_of_hub() else {"api_key": KEY, "model": "m"}
        return kind(**{**given, **place, **self.fields})

    def is_of_hub(self) -> bool:
        return self.kind is InferenceEndpointsLLM

    def body(self, theirs: dict[str, Any]) -> dict[str, Any]:
        """What ours has to be."""
        return {name: value for name, value in theirs.items() if name not in self.less} | self.more


GOOGLES: dict[str, Any] = {
    **COMMON,
    **TWICE,
    **PENALTIES,
    "top_k": 5,
    "seed": 7,
    "top_logprobs": 2,
    "thinking_level": "low",
    "include_thoughts": True,
    "service_tier": "flex",
    "safety_settings": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
}
COHERES: dict[str, Any] = {
    **COMMON,
    **PENALTIES,
    "top_k": 5,
    "seed": 7,
    "logprobs": True,
    "safety_mode": "STRICT",
    "priority": 3,
    "thinking_budget": 50,
}
OLLAMAS: dict[str, Any] = {
    **COMMON,
    **PENALTIES,
    **LOGPROBS,
    "top_k": 5,
    "repetition_penalty": 1.25,
    "seed": 7,
    "num_ctx": 512,
    "think": "low",
}
HUBS: dict[str, Any] = {**COMMON, **PENALTIES, **LOGPROBS, "seed": 7}
NOT_CUT: dict[str, Any] = {"truncate": False, "shift": False}
"""Its server knows them, its client doesn't: a prompt that is too long is refused, and not cut in silence."""
OWN_WIRES: dict[str, Ours] = {
    "anthropic": Ours(AnthropicLLM, {**COMMON, "top_k": 5, "thinking": "adaptive", "reasoning_effort": "low"}),
    "anthropic_calls": Ours(
        AnthropicLLM,
        {"max_new_tokens": 64, "thinking_budget": 1024},
        {"model": "claude-sonnet-4-0"},
        given=(CALLS, SCHEMA),
    ),
    "gemini": Ours(GeminiLLM, GOOGLES),
    "gemini_calls": Ours(GeminiLLM, {"thinking_budget": 0}, given=CALLS),
    "vertex": Ours(VertexAILLM, GOOGLES),
    "vertex_project": Ours(
        VertexAILLM, GOOGLES, {"api_key": None, "project": "my-project", "location": "europe-west4"}
    ),
    "cohere": Ours(CohereLLM, COHERES),
    "cohere_calls": Ours(CohereLLM, given=CALLS),
    "ollama": Ours(OllamaLLM, OLLAMAS, {"keep_alive": "10m"}, more=NOT_CUT, less=("tools",)),
    "ollama_calls": Ours(OllamaLLM, {"think": "off"}, given=CALLS, more={**NOT_CUT, "options": {}}, less=("tools",)),
    "azure": Ours(AzureOpenAILLM, {**COMMON, **PARAMETERS["openai"]}),
    "azure_dated": Ours(
        AzureOpenAILLM, {**COMMON, **TWICE, **PENALTIES, **LOGPROBS, "seed": 7}, {"api_version": "2024-10-21"}
    ),
    # Its client gives a server at an address the schema as TGI alone heeds it.
    "hugging_face": Ours(InferenceEndpointsLLM, HUBS, base="/v1", more=sdk_requests.OF_SCHEMA, less=("stream",)),
    "hugging_face_router": Ours(InferenceEndpointsLLM, HUBS, {"model_id": "m"}, less=("stream",)),
}
"""By the name of the record."""
OF_THE_FIRST_API = {"anthropic-version": "2023-06-01", "x-api-key": KEY}
"""Of Anthropic. In the version of its SDK there's no temperature, top_p and top_k any more, which older models take."""


def in_camels(value: Any) -> Any:
    """JSON of Google's with the names as documents have them: theirs has some as in Python, which mean the same."""
    if isinstance(value, list):
        return [in_camels(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    return {re.sub(r"_(\w)", lambda found: found[1].upper(), name): in_camels(each) for name, each in given.items()}


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google Cloud's own library finds a token, and no other project, key or version is named."""
    for name in ("GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    account = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    file = tmp_path / "account.json"
    file.write_text(json.dumps({**account, "token": KEY, "expiry": "2999-01-01T00:00:00Z"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


@pytest.mark.usefixtures("signed_in")
@pytest.mark.parametrize("name", OWN_WIRES)
def test_a_provider_with_a_wire_of_its_own_is_sent_what_its_sdk_sends(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, ours = RECORDS[name], OWN_WIRES[name]
    with Recorder() as recorder:
        monkeypatch.setattr(InferenceEndpointsLLM, "router_url", f"{recorder.root}/v1")
        place = {} if "model_id" in ours.fields else {"base_url": f"{recorder.root}{ours.base}"}
        llm = ours.made(**place)
        (output,) = llm.generate_outputs(inputs=[ours.given], **ours.parameters)
        assert output["generations"][0] == "Fine.", output
        sent = recorder.requests[0]

    assert sent["path"] == record["path"]
    assert read(sent["body"]) == ours.body(read(record["body"]))
    keys = OF_THE_FIRST_API if ours.kind is AnthropicLLM else without_type(record["headers"])
    assert without_type(sent["headers"]) == keys


def test_a_server_that_knows_only_the_form_of_hugging_faces_client_gets_it() -> None:
    with StandIn(Wire(fields="")) as server:
        server.faults = [Fault(422, "missing field `value`")]
        llm = InferenceEndpointsLLM(base_url=server.root, api_key=SecretStr(KEY))
        (output,) = llm.generate_outputs(inputs=[(CHAT, SCHEMA)])
        assert "error" not in output, output
        first, second = server.asked

    assert first.body["response_format"] == sdk_requests.OF_SCHEMA["response_format"]
    assert second.body["response_format"] == RECORDS["hugging_face"]["body"]["response_format"]


def test_a_batch_of_anthropics_holds_what_its_sdk_puts_into_one() -> None:
    record = RECORDS["anthropic_batch"]
    kwargs = {"max_new_tokens": 64, "stop": ["END"], "thinking": "disabled", "reasoning_effort": "max"}
    with Recorder() as recorder:
        llm = AnthropicLLM(
            model="claude-sonnet-5-5", base_url=recorder.root, api_key=SecretStr(KEY), generation_kwargs=kwargs
        )
        with llm.job_writer() as writer:
            for custom_id in ("first", "second"):
                writer.add(llm.batch_request(custom_id, CHAT, 1))
            (file,) = writer.rest()
            run_sync(llm.create_job(file, {}))
        (sent,) = recorder.requests

    for request in sent["body"]["requests"]:
        # With what our own are known by again.
        request["custom_id"], _ = split_custom_id(request["custom_id"])
    assert (sent["path"], sent["body"]) == (record["path"], record["body"])
    assert without_type(sent["headers"]) == OF_THE_FIRST_API


JOBS: dict[str, tuple[Any, type[BatchStandIn]]] = {
    "dashscope_job": (DashScopeLLM, DashScopeStandIn),
    "moonshot_job": (MoonshotLLM, MoonshotStandIn),
    "nebius_job": (NebiusLLM, NebiusStandIn),
    "zai_job": (ZAILLM, ZAIStandIn),
}
"""By the name of the record."""


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_created_as_the_sdk_of_the_provider_does(name: str) -> None:
    record, (kind, stand_in) = RECORDS[name], JOBS[name]
    with stand_in() as server:
        llm = kind(model="m", base_url=server.url, api_key=SecretStr(KEY))
        with llm.job_writer() as writer:
            writer.add(llm.batch_request("first", CHAT, 1))
            (file,) = writer.rest()
            run_sync(llm.create_job(file, {MARK: sdk_requests.MARK}))
        (job,) = server.batches

    theirs = {name: value for name, value in record["body"].items() if value is not None}
    assert f"{server.prefix}{server.jobs}" == record["path"]
    assert {**job.given, "input_file_id": "file-1"} == theirs


def test_a_schema_loses_to_anthropics_api_what_its_sdk_takes_out_of_it() -> None:
    theirs = RECORDS["anthropic_schema"]["body"]["output_config"]["format"]["schema"]
    ours = constrainable_schema(sdk_requests.CONSTRAINED)
    assert ours is not None

    assert without_words(ours) == without_words(theirs)
    for name, each in theirs["properties"].items():
        # The same constraints are told in words, in another order and in other brackets.
        said = ours["properties"][name].get("description", "")
        assert sorted(re.findall(r"[\w.-]+", said)) == sorted(re.findall(r"[\w.-]+", each.get("description", "")))


def read(body: Any) -> Any:
    """A body that means the same as another one where it is the same."""
    return in_camels(body) if "contents" in body else body


def without_type(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a request in JSON, but for the one that says so."""
    assert headers["Content-Type"].partition(";")[0] == "application/json"
    return {name: value for name, value in headers.items() if name != "Content-Type"}


def without_words(schema: Any) -> Any:
    """A schema without its descriptions."""
    if isinstance(schema, list):
        return [without_words(each) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    given = cast("dict[str, Any]", schema)
    return {name: without_words(each) for name, each in given.items() if name != "description"}


def test_every_sdk_that_is_recorded_is_at_the_version_that_is_named() -> None:
    named = {f"{package} {version}" for package, version in sdk_requests.SDKS.items()}

    assert {record["sdk"] for record in RECORDS.values()} == named


@pytest.mark.full
@pytest.mark.skipif(
    not os.environ.get("STILLFLOW_TEST_SDKS"),
    reason="installs the SDKs from a package index; set STILLFLOW_TEST_SDKS=1",
)
def test_the_sdks_send_what_is_recorded(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "sdks"], check=True)
    python = tmp_path / "sdks" / "bin" / "python"
    packages = [f"{name}=={version}" for name, version in sdk_requests.SDKS.items()]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    sent = subprocess.run([python, sdk_requests.__file__], check=True, stdout=subprocess.PIPE)

    assert json.loads(sent.stdout) == RECORDS
