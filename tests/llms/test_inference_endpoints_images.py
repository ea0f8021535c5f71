"""Hugging Face's images against servers on real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from llms import AnyImageModel, ConnectionFailedError, InferenceEndpointsImageGeneration, LLMError
from llms.local_provider.answers import digest_of, png
from tests.llms.test_inference_endpoints import KEY, Server


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the machine, quick retries."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def painter(path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
    """A text-to-image server: its picture goes by the prompt and the parameters."""
    if body is None:
        return 404, b"not found", {}
    said = body["inputs"]
    if "busy" in said:
        return 503, {"error": "loading", "estimated_time": 0.01}, {}
    if "bad" in said:
        return 422, {"error": "width must be a multiple of 8"}, {}
    if "text" in said:
        return 200, b"no picture", {"Content-Type": "text/plain"}
    return 200, png(digest_of(body)), {"Content-Type": "image/png"}


def model(url: str, **fields: Any) -> InferenceEndpointsImageGeneration:
    made = InferenceEndpointsImageGeneration(**{"base_url": url, "max_retries": 1, **fields})
    made.load()
    return made


def failure(server: Server, prompt: str) -> dict[str, Any]:
    (output,) = model(server.url).generate_outputs([prompt])
    return dict(output.get("error") or {})


def test_every_prompt_gets_its_own_images_with_one_request_each() -> None:
    with Server(painter) as server:
        painted = model(f"{server.url}/paint", api_key=KEY)
        images = painted.generate_images(["A mill.", "A lighthouse."], 2, seed=3, width="64", extra_body={"style": 1})

    assert [len(each) for each in images] == [2, 2]
    assert len({image for each in images for image in each}) == 4
    assert all(image.startswith(b"\x89PNG") for each in images for image in each)
    assert {post.path for post in server.posts()} == {"/paint"}
    assert sorted(post.body["parameters"]["seed"] for post in server.posts()) == [3, 3, 4, 4]
    assert server.posts()[0].body["parameters"] | {"seed": 3} == {"width": 64, "seed": 3, "style": 1}
    assert server.posts()[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("prompt", "kind", "said", "requests"),
    [
        ("bad", "BadRequestError", "width must be a multiple of 8", 1),
        ("busy", "OverloadedError", "loading", 2),
        ("text", "InvalidResponseError", "can't be read as images", 2),
    ],
)
def test_a_failure_is_one_of_ours_and_tried_again_where_it_may_pass(
    prompt: str, kind: str, said: str, requests: int
) -> None:
    with Server(painter) as server:
        found = failure(server, prompt)

    assert (found["type"], len(server.posts())) == (kind, requests)
    assert said in found["message"]


def test_a_server_that_isnt_there_ends_the_run() -> None:
    with pytest.raises(ConnectionFailedError, match=r"can't reach http://127.0.0.1:9/ .*check the address"):
        model("http://127.0.0.1:9/").generate_images(["A mill."])


def test_a_provider_without_images_is_named() -> None:
    nowhere = InferenceEndpointsImageGeneration.model_validate(
        {"model_id": "a/b", "inference_provider": "nobody", "api_key": KEY}
    )

    with pytest.raises(LLMError, match="a/b can't be asked for images: Provider 'nobody' not supported"):
        nowhere.generate_images(["A mill."])


def test_a_chat_is_refused_unsent() -> None:
    with Server(painter) as server:
        (output,) = model(server.url).generate_outputs([[{"role": "user", "content": "A mill."}]])

    assert output.get("error", {}).get("type") == "BadRequestError"
    assert server.posts() == []


def test_it_has_a_tab_of_its_own_among_image_models() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyImageModel)
    shown = adapter.json_schema()["$defs"]["InferenceEndpointsImageGeneration"]["properties"]

    read = adapter.validate_python({"provider": "inference-endpoints-images", "model_id": "a/b"})
    assert isinstance(read, InferenceEndpointsImageGeneration)
    assert {"negative_prompt", "width", "height", "guidance_scale"} < set(shown["generation_kwargs"]["properties"])
    assert not {"structured_output", "api_key"} & set(shown)
