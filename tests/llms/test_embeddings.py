"""Embedding models against a server on a real socket: online, in batches, and models of one's own."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from llms import (
    AnyEmbeddings,
    AnyLLM,
    BadRequestError,
    ContextLengthError,
    Embeddings,
    InvalidResponseError,
    LLMError,
    OfflineBatchGenerationNotFinishedError,
    OpenAIEmbeddings,
    OpenAILLM,
    ParameterError,
)
from llms.base import combined
from llms.local_provider import LocalProvider
from llms.prices import cost
from llms.providers.openai import EMBEDDINGS, OPENAI_URL, parse_answer, result_from
from llms.registry import AnyModel

TEXTS = ["ebb", "flood", "high tide", "sluice – ça coule"]
TOO_LONG = "tide " * 10_000


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    provider.set(batch_manual=True)
    return provider


def model(**fields: Any) -> OpenAIEmbeddings:
    made = OpenAIEmbeddings(**{"model": "text-embedding-3-small", **fields})
    made.load()
    return made


def sent(provider: LocalProvider) -> list[dict[str, Any]]:
    """The bodies of the requests for embeddings."""
    return [each.body for each in provider.requests if each.path.endswith("/embeddings")]


def test_every_text_gets_its_own_vector_online(provider: LocalProvider) -> None:
    outputs = model().generate_outputs(TEXTS, dimensions=8)

    assert [output.get("embeddings") for output in outputs] == [
        [model().encode([text], dimensions=8)[0]] for text in TEXTS
    ]
    assert len({tuple(vector) for vector in model().encode(TEXTS, dimensions=8)}) == len(TEXTS)
    assert all(output["generations"] == [] for output in outputs)
    assert all(output["statistics"]["input_tokens"][0] > 0 for output in outputs)
    assert all(output["statistics"]["output_tokens"] == [0] for output in outputs)


@pytest.mark.parametrize("dimensions", [1, 256, 1536])
def test_vectors_have_the_dimensions_that_were_asked_for(provider: LocalProvider, dimensions: int) -> None:
    assert [len(vector) for vector in model().encode(TEXTS, dimensions=str(dimensions))] == [dimensions] * len(TEXTS)
    assert {body["dimensions"] for body in sent(provider)} == {dimensions}


def test_without_parameters_nothing_but_model_and_text_is_sent_to_a_server_of_ones_own(provider: LocalProvider) -> None:
    (vector,) = model().encode(["ebb"])

    assert len(vector) == 1536
    assert sent(provider) == [{"model": "text-embedding-3-small", "input": "ebb"}]


def test_openai_itself_is_asked_for_base64() -> None:
    request = model(base_url=OPENAI_URL, api_key="x").batch_request("a", "ebb", 1)

    assert (request.url, request.body["encoding_format"]) == ("/v1/embeddings", "base64")


def test_vectors_are_equal_as_base64_and_as_numbers(provider: LocalProvider) -> None:
    coded = model().encode(TEXTS, encoding_format="base64")
    plain = model().encode(TEXTS, encoding_format="float")

    assert [body["encoding_format"] for body in sent(provider)] == ["base64"] * 4 + ["float"] * 4
    assert coded == plain


def test_further_parameters_are_sent_as_they_are(provider: LocalProvider) -> None:
    model().encode(["ebb"], user="u", extra_body={"input_type": "query"})

    assert sent(provider)[0]["user"] == "u"
    assert sent(provider)[0]["input_type"] == "query"


def test_an_unknown_parameter_is_refused_before_anything_is_sent(provider: LocalProvider) -> None:
    with pytest.raises(ParameterError, match="temperature"):
        model().encode(["ebb"], temperature=1)
    assert sent(provider) == []


def test_an_empty_and_a_too_long_text_fail_alone(provider: LocalProvider) -> None:
    empty, good, long = model().generate_outputs(["", "ebb", TOO_LONG], dimensions=4)

    assert empty.get("error", {}).get("type") == "BadRequestError"
    assert "empty string" in empty.get("error", {}).get("message", "")
    assert long.get("error", {}).get("type") == "ContextLengthError"
    assert len(good.get("embeddings", [[]])[0]) == 4


def test_encode_raises_what_failed(provider: LocalProvider) -> None:
    with pytest.raises(LLMError, match="maximum context length is 8192 tokens"):
        model().encode(["ebb", TOO_LONG])


@pytest.mark.parametrize(("given", "n"), [([{"role": "user", "content": "ebb"}], 1), ("ebb", 2)])
def test_what_no_embedding_is_made_of_is_refused_unsent(provider: LocalProvider, given: Any, n: int) -> None:
    (output,) = model().generate_outputs([given], num_generations=n)

    assert output.get("error", {}).get("type") == "BadRequestError"
    assert sent(provider) == []
    with pytest.raises(BadRequestError):
        model(use_offline_batch_generation=True).generate_outputs([given], num_generations=n)


def test_a_failure_that_passes_is_tried_again(provider: LocalProvider) -> None:
    provider.set(faults=[{"path": "/embeddings", "times": 2, "status": 503}])

    assert len(model().encode(["ebb"], dimensions=4)[0]) == 4
    assert len(sent(provider)) == 3


# Batches


def test_a_batch_gives_what_online_gives_also_in_another_order(provider: LocalProvider) -> None:
    batch = model(use_offline_batch_generation=True, generation_kwargs={"dimensions": 16})
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        batch.encode(TEXTS)
    with pytest.raises(OfflineBatchGenerationNotFinishedError):
        batch.encode(TEXTS)
    provider.end_batch(raised.value.jobs_ids[0], shuffle=True)
    found = batch.encode(TEXTS)

    assert sent(provider) == []
    assert [job["endpoint"] for job in provider.batches] == ["/v1/embeddings"]
    assert found == model(generation_kwargs={"dimensions": 16}).encode(TEXTS)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_batch_fails_its_bad_texts_alone(provider: LocalProvider, encoding: str) -> None:
    batch = model(use_offline_batch_generation=True)
    texts = ["ebb", "", TOO_LONG, "flood"]
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        batch.generate_outputs(texts, dimensions=4, encoding_format=encoding)
    provider.end_batch(raised.value.jobs_ids[0])
    outputs = batch.generate_outputs(texts, dimensions=4, encoding_format=encoding)

    assert [output.get("error", {}).get("type") for output in outputs] == [
        None,
        "BadRequestError",
        "ContextLengthError",
        None,
    ]
    assert [len(output.get("embeddings", [[]])[0]) for output in outputs if "error" not in output] == [4, 4]


# Answers


def floats(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize("embedding", [[0.5, -2, 1e-8], floats(0.5, -2, 0.25)])
def test_a_vector_is_read_in_either_form(embedding: Any) -> None:
    output = parse_answer(
        {"object": "list", "data": [{"embedding": embedding}], "usage": {"prompt_tokens": 3}}, EMBEDDINGS
    )

    assert output.get("embeddings") == [[0.5, -2.0, 1e-8 if isinstance(embedding, list) else 0.25]]
    assert all(isinstance(number, float) for number in output.get("embeddings", [[]])[0])
    assert output["statistics"] == {"input_tokens": [3], "output_tokens": [0]}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        ["x"],
        [{"embedding": None}],
        [{"embedding": []}],
        [{"embedding": [0.5, None]}],
        [{"embedding": ["x"]}],
        [{"embedding": 5}],
        [{"embedding": "no base64!"}],
        [{"embedding": "AAA="}],
        [{"embedding": ""}],
        [{"embedding": floats(float("nan"))}],
        [{"embedding": [float("inf")]}],
        [{"embedding": [0.5]}, {"embedding": [0.5]}],
    ],
)
def test_what_is_no_vector_is_never_taken_for_one(data: Any) -> None:
    with pytest.raises(InvalidResponseError):
        parse_answer({"object": "list", "data": data}, EMBEDDINGS)
    line = {"custom_id": "a", "response": {"status_code": 200, "body": {"object": "list", "data": data}}}
    assert isinstance(result_from(line).outcome, InvalidResponseError)


def test_outputs_put_together_keep_their_vectors(provider: LocalProvider) -> None:
    (output,) = model().generate_outputs(["ebb"], dimensions=4)

    assert combined([output]) == output


# Models


def test_an_embedding_model_shares_no_identity_with_a_chat_model_of_the_same_name() -> None:
    assert OpenAIEmbeddings(model="m").identity() != OpenAILLM(model="m").identity()
    shorter = OpenAIEmbeddings(model="m", generation_kwargs={"dimensions": 4})
    assert OpenAIEmbeddings(model="m").identity() != shorter.identity()


def test_forms_and_files_keep_llms_and_embedding_models_apart() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyEmbeddings)
    written = adapter.dump_python(OpenAIEmbeddings(model="m"), mode="json")

    assert written["provider"] == "openai-embeddings"
    assert isinstance(adapter.validate_python(written), OpenAIEmbeddings)
    assert isinstance(TypeAdapter[Any](AnyModel).validate_python(written), OpenAIEmbeddings)
    with pytest.raises(ValueError, match="no parameter 'openai-embeddings'"):
        TypeAdapter[Any](AnyLLM).validate_python(written)
    with pytest.raises(ValueError, match="no parameter 'openai'"):
        adapter.validate_python({"provider": "openai", "model": "m"})


def test_the_form_shows_the_parameters_of_vectors_and_none_of_texts() -> None:
    schema = TypeAdapter(AnyEmbeddings).json_schema()

    tabs = [tab.get("$ref", tab.get("title")).rpartition("/")[2] for tab in schema["anyOf"]]
    assert tabs == [
        "OpenAIEmbeddings",
        "InferenceEndpointsEmbeddings",
        "SentenceTransformerEmbeddings",
        "Your own",
    ]
    shown = schema["$defs"]["OpenAIEmbeddings"]["properties"]
    assert {"model", "base_url", "credentials", "use_offline_batch_generation"} < set(shown)
    assert not {"structured_output", "api_key"} & set(shown)
    assert list(shown["generation_kwargs"]["properties"]) == ["dimensions", "encoding_format", "user", "extra_body"]


@pytest.mark.parametrize(("name", "dollars"), [("text-embedding-3-small", 0.02), ("text-embedding-3-large", 0.13)])
def test_embeddings_cost_their_input_tokens_and_half_of_that_in_batches(name: str, dollars: float) -> None:
    priced = OpenAIEmbeddings(model=name, base_url=OPENAI_URL)

    assert cost(priced, 1_000_000, 0) == pytest.approx(dollars)
    assert cost(priced, 1_000_000, 0, batch=True) == pytest.approx(dollars / 2)


class Lengths(Embeddings):
    """A local model."""

    calls: list[list[str]] = []

    @property
    def model_name(self) -> str:
        return "lengths"

    def encode(self, inputs: list[str], scale: float = 1.0) -> list[list[float]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.calls.append(inputs)
        return [[scale * len(text), 1] for text in inputs]


def test_a_model_of_ones_own_writes_encode_alone_and_its_keywords_are_parameters() -> None:
    own = Lengths(generation_kwargs={"scale": "2"})
    outputs = own.generate_outputs(TEXTS)

    assert [output.get("embeddings") for output in outputs] == [[[2.0 * len(text), 1.0]] for text in TEXTS]
    assert own.calls == [TEXTS]
    with pytest.raises(ParameterError, match="dimensions"):
        own.generate_outputs(TEXTS, dimensions=4)


def test_a_model_of_ones_own_gets_no_chats() -> None:
    with pytest.raises(TypeError, match="takes bare texts, got a chat"):
        Lengths().generate_outputs([[{"role": "user", "content": "ebb"}]])


def test_the_error_of_a_too_long_text_is_the_same_with_and_without_a_code() -> None:
    outcome = result_from(refused("This model's maximum context length is 8192 tokens, you asked 9000.")).outcome
    assert type(outcome) is ContextLengthError


def refused(message: str) -> dict[str, Any]:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": None}}
    return {"custom_id": "a", "response": {"status_code": 400, "body": body}}
