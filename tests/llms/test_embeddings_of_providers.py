"""Embedding models of Gemini, Mistral, Cohere and Ollama, each against a stand-in of its wire, by the SDKs' types."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from llms import (
    AnyEmbeddings,
    CohereEmbeddings,
    GeminiEmbeddings,
    LLMError,
    MistralEmbeddings,
    OllamaEmbeddings,
    OllamaLLM,
)
from llms.parameters import import_path
from llms.registry import EMBEDDINGS_VARIANTS
from tests.llms.batch_wires import MistralStandIn
from tests.llms.wires import COHERE, GEMINI, KEY, MISTRAL, OLLAMA, Fault, StandIn, Wire

VECTOR = [0.25, -1.0, 0.5]


@dataclass(frozen=True)
class Api:
    kind: Any
    wire: Wire
    path: str
    answer: dict[str, Any]
    body: dict[str, Any]
    """What is sent for `ebb` with 3 dimensions."""
    given: dict[str, Any] = field(default_factory=dict[str, Any])
    base: str = ""


APIS = {
    "gemini": Api(
        GeminiEmbeddings,
        GEMINI,
        "/v1/models/m:embedContent",
        {"embedding": {"values": VECTOR}, "usageMetadata": {"promptTokenCount": 2}},
        {"content": {"parts": [{"text": "ebb"}]}, "outputDimensionality": 3, "taskType": "CLUSTERING"},
        {"task_type": "CLUSTERING"},
    ),
    "mistral": Api(
        MistralEmbeddings,
        MISTRAL,
        "/v1/embeddings",
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": VECTOR, "index": 0}],
            "usage": {"prompt_tokens": 2},
        },
        {"model": "m", "input": "ebb", "output_dimension": 3},
        base="/v1",
    ),
    "cohere": Api(
        CohereEmbeddings,
        COHERE,
        "/v2/embed",
        {
            "response_type": "embeddings_by_type",
            "embeddings": {"float": [VECTOR]},
            "meta": {"billed_units": {"input_tokens": 2.0}},
        },
        {
            "model": "m",
            "texts": ["ebb"],
            "input_type": "clustering",
            "embedding_types": ["float"],
            "truncate": "NONE",
            "output_dimension": 3,
        },
        {"input_type": "clustering"},
    ),
    "ollama": Api(
        OllamaEmbeddings,
        OLLAMA,
        "/api/embed",
        {"model": "m", "embeddings": [VECTOR], "prompt_eval_count": 2},
        {"model": "m", "input": "ebb", "truncate": False, "dimensions": 3, "options": {"num_ctx": 512}},
        {"num_ctx": 512},
    ),
}
apis = pytest.mark.parametrize("api", APIS.values(), ids=APIS)


class Embedding(StandIn):
    """Answers every request for an embedding with one answer."""

    def __init__(self, api: Api, answer: dict[str, Any] | None = None) -> None:
        super().__init__(api.wire)
        self.api, self.given = api, api.answer if answer is None else answer
        self.bodies: list[Any] = []

    def reply(self, path: str, headers: Any, content: bytes) -> Any:
        assert (path, self.wire.key_in(headers)) == (self.api.path, KEY)
        self.bodies.append(json.loads(content))
        if self.always is not None:
            return self._refused(self.always.status, self.always.said)
        return 200, json.dumps(self.given).encode(), {}

    def model(self, **fields: Any) -> Any:
        return self.api.kind(model="m", base_url=f"{self.root}{self.api.base}", api_key=SecretStr(KEY), **fields)


@apis
def test_a_text_gets_its_vector_with_what_it_took(api: Api) -> None:
    with Embedding(api) as server:
        model = server.model(generation_kwargs={"dimensions": 3, **api.given})
        (output,) = model.generate_outputs(["ebb"])

        assert model.encode(["ebb"]) == [VECTOR]
    assert output["embeddings"] == [VECTOR]
    assert output["statistics"] == {"input_tokens": [2], "output_tokens": [0]}
    assert server.bodies == [api.body] * 2


@apis
def test_an_answer_without_a_vector_is_none(api: Api) -> None:
    with Embedding(api, {"object": "list", "data": []}) as server:
        (output,) = server.model(max_retries=0).generate_outputs(["ebb"])

    assert output["error"]["type"] == "InvalidResponseError"


@apis
def test_a_text_that_is_too_long_fails_alone(api: Api) -> None:
    with Embedding(api) as server:
        server.always = Fault(400, api.wire.too_long)
        with pytest.raises(LLMError):
            server.model().encode(["ebb"])
        (output,) = server.model().generate_outputs(["ebb"])

    assert output["error"]["type"] == "ContextLengthError"


@apis
def test_a_chat_is_no_text(api: Api) -> None:
    with Embedding(api) as server:
        (output,) = server.model().generate_outputs([[{"role": "user", "content": "hi"}]])

    assert output["error"]["type"] == "BadRequestError"
    assert server.bodies == []


@apis
def test_it_is_found_by_its_name_and_has_no_tab_of_its_own(api: Api) -> None:
    model = api.kind(model="m")
    again = TypeAdapter(AnyEmbeddings).validate_python(TypeAdapter(AnyEmbeddings).dump_python(model, mode="json"))

    assert (type(again), again.identity()) == (api.kind, model.identity())
    assert EMBEDDINGS_VARIANTS.ours[model.provider] == import_path(api.kind)
    assert api.kind not in EMBEDDINGS_VARIANTS.tabs()


def test_mistrals_come_from_batches_too() -> None:
    answer = APIS["mistral"].answer

    class Embeddings(MistralStandIn):
        def check_job(self, given: dict[str, Any]) -> None:
            assert given["endpoint"] == "/v1/embeddings"

        def create(self, given: dict[str, Any]) -> Any:
            reply = super().create(given)
            self.end(self.batches[-1], "SUCCESS", answered=len(self.lines(given)))
            return reply

        def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
            body = {"id": "e", "model": "m", **answer}
            return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}

    with Embeddings() as server:
        batches: dict[str, Any] = {
            "use_offline_batch_generation": True,
            "offline_batch_generation_block_until_done": 1,
        }
        model = MistralEmbeddings(model="m", base_url=server.url, api_key=SecretStr(KEY), **batches)

        assert model.encode(["ebb", "flood"]) == [VECTOR] * 2


@pytest.mark.parametrize("kind", [OllamaLLM, OllamaEmbeddings])
def test_how_long_a_model_stays_in_memory_makes_no_other_question(kind: Any) -> None:
    given: Any = "ebb"

    assert kind(model="m", keep_alive="-1").question(given) == kind(model="m").question(given)
