"""Hugging Face's embeddings against servers on real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from llms import AnyEmbeddings, ConnectionFailedError, InferenceEndpointsEmbeddings, LLMError
from tasks import EmbeddingGeneration
from tasks.steps import failure_in
from tests.llms.test_inference_endpoints import KEY, Server


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the machine, quick retries."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def embedder(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
    """As Text Embeddings Inference answers: a list with the vector of the one text, which tells its length."""
    if body is None:
        return 404, b"not found", {}
    text = body["inputs"]
    match text:
        case "busy":
            return 429, {"error": "Model is overloaded", "error_type": "overloaded"}, {}
        case "long":
            return (
                413,
                {"error": "Input validation error: `inputs` must have less than 512 tokens", "error_type": "x"},
                {},
            )
        case "tokens":
            return 200, [[[0.1, 0.2], [0.3, 0.4]]], {}
        case "prose":
            return 200, b"no numbers", {"Content-Type": "text/plain"}
        case "bare":
            return 200, [4.0, 1.0], {}
        case _:
            return 200, [[float(len(text)), 1.0]], {}


def model(url: str, **fields: Any) -> InferenceEndpointsEmbeddings:
    made = InferenceEndpointsEmbeddings(**{"base_url": url, "max_retries": 1, **fields})
    made.load()
    return made


def test_every_text_gets_its_own_vector_with_one_request_each() -> None:
    with Server(embedder) as server:
        embeddings = model(f"{server.url}/embed", api_key=KEY)
        vectors = embeddings.encode(["ebb", "high tide", "bare"], normalize="true", prompt_name="query")

    assert vectors == [[3.0, 1.0], [9.0, 1.0], [4.0, 1.0]]
    assert {post.path for post in server.posts()} == {"/embed"}
    first = next(post for post in server.posts() if post.body["inputs"] == "ebb")
    assert first.body == {"inputs": "ebb", "normalize": True, "prompt_name": "query"}
    assert first.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("text", "kind", "said", "requests"),
    [
        ("busy", "RateLimitError", "overloaded", 2),
        ("long", "ContextLengthError", "must have less than 512 tokens", 1),
        ("tokens", "InvalidResponseError", r"got numbers of shape \(1, 2, 2\)", 2),
        ("prose", "InvalidResponseError", "can't be read as embeddings", 2),
    ],
)
def test_a_failure_is_one_of_ours_and_tried_again_where_it_may_pass(
    text: str, kind: str, said: str, requests: int
) -> None:
    with Server(embedder) as server, pytest.raises(LLMError, match=said):
        model(server.url).encode([text])
    with Server(embedder) as other:
        (output,) = model(other.url).generate_outputs([text])

    assert (output.get("error", {}).get("type"), len(other.posts())) == (kind, requests)


def test_a_step_keeps_the_good_rows_beside_a_failed_one() -> None:
    with Server(embedder) as server:
        step = EmbeddingGeneration(embeddings=model(server.url))
        good, bad = step.apply([{"text": "ebb"}, {"text": "long"}])

    assert (good["embedding"], failure_in(good)) == ([3.0, 1.0], None)
    assert bad["embedding"] is None
    assert "ContextLengthError" in str(failure_in(bad))


def test_a_server_that_isnt_there_ends_the_run() -> None:
    with pytest.raises(ConnectionFailedError, match=r"can't reach http://127.0.0.1:9/ .*check the address"):
        model("http://127.0.0.1:9/").encode(["ebb"])


def test_a_provider_without_embeddings_is_named() -> None:
    nowhere = InferenceEndpointsEmbeddings.model_validate(
        {"model_id": "a/b", "inference_provider": "nobody", "api_key": KEY}
    )

    with pytest.raises(LLMError, match="a/b can't be asked for embeddings: Provider 'nobody' not supported"):
        nowhere.encode(["ebb"])


def test_a_chat_is_refused_unsent() -> None:
    with Server(embedder) as server:
        (output,) = model(server.url).generate_outputs([[{"role": "user", "content": "ebb"}]])

    assert output.get("error", {}).get("type") == "BadRequestError"
    assert server.posts() == []


def test_it_has_a_tab_of_its_own_among_embedding_models() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyEmbeddings)
    shown = adapter.json_schema()["$defs"]["InferenceEndpointsEmbeddings"]["properties"]

    read = adapter.validate_python({"provider": "inference-endpoints-embeddings", "model_id": "a/b"})
    assert isinstance(read, InferenceEndpointsEmbeddings)
    assert {"normalize", "prompt_name", "truncate", "dimensions"} < set(shown["generation_kwargs"]["properties"])
    assert not {"structured_output", "api_key"} & set(shown)
