"""Image models against a server on a real socket: online, in batches, by address, and models of one's own."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from flows.engine.costs import IMAGE_TOKENS, estimate
from llms import (
    AnyImageModel,
    AnyLLM,
    BadRequestError,
    ContentFilterError,
    ImageGenerationModel,
    InvalidResponseError,
    LLMError,
    OfflineBatchGenerationNotFinishedError,
    OpenAIImageGeneration,
    OpenAILLM,
    ParameterError,
)
from llms.errors import error_for_status
from llms.images import image_bytes, image_type
from llms.local_provider import LocalProvider
from llms.local_provider.wire import ApiError
from llms.prices import cost
from llms.providers.openai import IMAGES, OPENAI_URL, parse_answer, result_from
from llms.registry import AnyModel

PROMPTS = ["A mill by the sea.", "A lighthouse.", "Ebb – à marée basse."]
PNG = b"\x89PNG\r\n\x1a\n"
BY_ADDRESS = "dall-e-3"
"""The provider answers with addresses where a model of this family is asked."""


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    provider.set(batch_manual=True)
    return provider


def model(**fields: Any) -> OpenAIImageGeneration:
    made = OpenAIImageGeneration(**{"model": "gpt-image-2", **fields})
    made.load()
    return made


def sent(provider: LocalProvider) -> list[dict[str, Any]]:
    """The bodies of the requests for images."""
    return [each.body for each in provider.requests if each.path.endswith("/images/generations")]


def images_of(offline: OpenAIImageGeneration, provider: LocalProvider, count: int = 1) -> list[list[bytes]]:
    """The images that a batch gives, ended in another order."""
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        offline.generate_images(PROMPTS, count)
    provider.end_batch(raised.value.jobs_ids[0], shuffle=True)
    return offline.generate_images(PROMPTS, count)


def test_every_prompt_gets_its_own_images_online(provider: LocalProvider) -> None:
    images = model().generate_images(PROMPTS, 2)

    assert [len(each) for each in images] == [2, 2, 2]
    assert all(image.startswith(PNG) for each in images for image in each)
    assert len({image for each in images for image in each}) == 6
    assert images == [model().generate_images([prompt], 2)[0] for prompt in PROMPTS]


def test_the_generations_are_images_in_base64_with_their_tokens(provider: LocalProvider) -> None:
    (output,) = model().generate_outputs(PROMPTS[:1], num_generations=2)

    assert [image_type(image_bytes(each or "")) for each in output["generations"]] == ["png", "png"]
    assert output["statistics"] == {"input_tokens": [5, 0], "output_tokens": [256, 256]}


def test_a_request_holds_what_was_asked_for_and_nothing_else(provider: LocalProvider) -> None:
    model().generate_images(PROMPTS[:1])
    options = {"size": "1024x1024", "quality": "low", "style": "vivid", "output_format": "webp"}
    model(generation_kwargs=options).generate_images(PROMPTS[:1], 3, extra_body={"seed": 4}, output_compression="80")

    assert sent(provider)[0] == {"model": "gpt-image-2", "prompt": PROMPTS[0]}
    assert sent(provider)[1] == {**sent(provider)[0], **options, "n": 3, "seed": 4, "output_compression": 80}


def test_more_images_than_a_request_can_ask_for_are_asked_in_equal_parts(provider: LocalProvider) -> None:
    (output,) = model().generate_outputs(PROMPTS[:1], num_generations=24)

    assert [body["n"] for body in sent(provider)] == [8, 8, 8]
    assert len(output["generations"]) == 24


def test_a_model_that_makes_one_image_at_a_time_is_asked_several_times(provider: LocalProvider) -> None:
    refused = "Invalid value for 'n': this model takes 1."
    provider.set(faults=[{"match": '"n":', "status": 400, "message": refused}])
    one = model()

    assert len(one.generate_images(PROMPTS[:1], 3)[0]) == 3
    assert [body.get("n") for body in sent(provider)] == [3, None, None, None]
    one.generate_images(PROMPTS[:1], 2)
    assert len(sent(provider)) == 6


def test_images_are_fetched_from_their_addresses(provider: LocalProvider) -> None:
    images = model(model=BY_ADDRESS).generate_images(PROMPTS)

    assert images == model(model=BY_ADDRESS).generate_images(PROMPTS, response_format="b64_json")


def test_an_image_that_is_not_at_its_address_is_not_paid_for_again(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.local_provider.app._image", gone)
    (output,) = model(model=BY_ADDRESS).generate_outputs(PROMPTS[:1])

    assert output.get("error", {}).get("type") == "LLMError"
    assert "an image was made, but isn't at its address" in output.get("error", {}).get("message", "")
    assert not output.get("error", {}).get("retryable")
    assert len(sent(provider)) == 1


def gone(name: str) -> Any:
    raise ApiError(410, f"no picture {name!r} any more")


def test_a_chat_is_refused_unsent(provider: LocalProvider) -> None:
    given: Any = [{"role": "user", "content": "A mill."}]
    (output,) = model().generate_outputs([given])

    assert output.get("error", {}).get("type") == "BadRequestError"
    assert sent(provider) == []
    with pytest.raises(BadRequestError, match="an image is made from a bare text"):
        model(use_offline_batch_generation=True).generate_outputs([given])


def test_an_unknown_parameter_is_refused_before_anything_is_sent(provider: LocalProvider) -> None:
    with pytest.raises(ParameterError, match="temperature"):
        model().generate_images(PROMPTS, temperature=1)
    with pytest.raises(ParameterError, match="output_compression.*less than or equal to 100"):
        model().generate_images(PROMPTS, output_compression=101)
    assert sent(provider) == []


def test_a_failure_that_passes_is_tried_again_and_one_that_lasts_fails_its_prompt_alone(
    provider: LocalProvider,
) -> None:
    provider.set(
        faults=[
            {"match": "lighthouse", "status": 400, "message": "Not allowed.", "code": "moderation_blocked"},
            {"path": "/images", "times": 2, "status": 503},
        ]
    )
    first, second, third = model().generate_outputs(PROMPTS)

    assert second.get("error", {}).get("type") == "ContentFilterError"
    assert "error" not in first and "error" not in third
    with pytest.raises(LLMError, match="Not allowed."):
        model().generate_images(PROMPTS)


def test_what_the_filter_blocks_is_not_tried_again() -> None:
    assert isinstance(error_for_status(400, "no", code="moderation_blocked"), ContentFilterError)


# Batches


@pytest.mark.parametrize("name", ["gpt-image-2", BY_ADDRESS])
def test_a_batch_gives_what_online_gives_also_in_another_order(provider: LocalProvider, name: str) -> None:
    options = {"model": name, "generation_kwargs": {"size": "1024x1024"}}
    found = images_of(model(use_offline_batch_generation=True, **options), provider, 2)

    assert sent(provider) == []
    assert [job["endpoint"] for job in provider.batches] == ["/v1/images/generations"]
    assert found == model(**options).generate_images(PROMPTS, 2)


def test_a_batch_splits_what_is_too_much_for_a_request(provider: LocalProvider) -> None:
    found = images_of(model(use_offline_batch_generation=True), provider, 15)

    assert provider.batches[0]["request_counts"]["total"] == 3 * len(PROMPTS)
    assert [len(each) for each in found] == [15, 15, 15]


# Answers


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        ["x"],
        [{}],
        [{"b64_json": None}],
        [{"b64_json": ""}],
        [{"b64_json": "no base64!"}],
        [{"b64_json": b64encode(b"plain text").decode()}],
        [{"b64_json": b64encode(PNG).decode()}, {"b64_json": None}],
        [{"url": "ftp://somewhere/x.png"}],
        [{"url": 5}],
    ],
)
def test_what_is_no_image_is_never_taken_for_one(data: Any) -> None:
    with pytest.raises(InvalidResponseError):
        parse_answer({"created": 1, "data": data}, IMAGES)
    line = {"custom_id": "a", "response": {"status_code": 200, "body": {"created": 1, "data": data}}}
    assert isinstance(result_from(line).outcome, InvalidResponseError)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"GIF89a", "gif"),
        (b"<svg xmlns='x'/>", "svg"),
        (b"<?xml version='1.0'?><svg/>", "svg"),
    ],
)
def test_the_type_of_an_image_is_told_by_its_beginning(data: bytes, kind: str) -> None:
    assert image_type(data) == kind


def test_other_bytes_are_no_image() -> None:
    with pytest.raises(ValueError, match="bytes that begin with b'RIFF"):
        image_type(b"RIFF\x10\0\0\0WAVEfmt ")
    with pytest.raises(ValueError, match="expected an image in base64, got 'x!'"):
        image_bytes("x!")


# Models


def test_forms_and_files_keep_image_models_apart() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyImageModel)
    written = adapter.dump_python(OpenAIImageGeneration(model="m"), mode="json")

    assert written["provider"] == "openai-images"
    assert isinstance(adapter.validate_python(written), OpenAIImageGeneration)
    assert isinstance(TypeAdapter[Any](AnyModel).validate_python(written), OpenAIImageGeneration)
    with pytest.raises(ValueError, match="no parameter 'openai-images'"):
        TypeAdapter[Any](AnyLLM).validate_python(written)
    assert OpenAIImageGeneration(model="m").identity() != OpenAILLM(model="m").identity()


def test_the_form_shows_the_parameters_of_images_and_none_of_texts() -> None:
    schema = TypeAdapter(AnyImageModel).json_schema()

    shown = schema["$defs"]["OpenAIImageGeneration"]["properties"]
    assert {"model", "base_url", "credentials", "use_offline_batch_generation"} < set(shown)
    assert not {"structured_output", "api_key"} & set(shown)
    assert {"size", "quality", "style", "output_format"} < set(shown["generation_kwargs"]["properties"])
    assert "temperature" not in shown["generation_kwargs"]["properties"]


@pytest.mark.parametrize(("name", "dollars"), [("gpt-image-1.5", 32.0), ("gpt-image-1", 40.0)])
def test_images_cost_what_their_tokens_cost_and_not_what_texts_do(name: str, dollars: float) -> None:
    priced = OpenAIImageGeneration(model=name, base_url=OPENAI_URL)

    assert cost(priced, 0, 1_000_000) == pytest.approx(dollars)
    assert cost(priced, 0, 1_000_000, batch=True) == pytest.approx(dollars / 2)


def test_an_estimate_goes_by_images() -> None:
    guess = estimate(OpenAIImageGeneration(model="gpt-image-1", base_url=OPENAI_URL), 10, 100, num_generations=2)

    assert guess.output_tokens == 20 * IMAGE_TOKENS
    assert "an image, a guess" in guess.guess


class Dots(ImageGenerationModel):
    """A local model."""

    calls: list[list[str]] = []

    @property
    def model_name(self) -> str:
        return "dots"

    def generate_images(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: list[str], num_generations: int = 1, radius: int = 9
    ) -> list[list[bytes]]:
        self.calls.append(inputs)
        return [[f"<svg><circle r='{radius}'/></svg>".encode()] * num_generations for _ in inputs]


def test_a_model_of_ones_own_writes_generate_images_alone_and_its_keywords_are_parameters() -> None:
    own = Dots(generation_kwargs={"radius": "3"})
    outputs = own.generate_outputs(PROMPTS, num_generations=2)

    assert [[image_bytes(each or "") for each in output["generations"]] for output in outputs] == [
        [b"<svg><circle r='3'/></svg>"] * 2
    ] * 3
    assert own.calls == [PROMPTS]
    with pytest.raises(ParameterError, match="colour"):
        own.generate_outputs(PROMPTS, colour="red")
    with pytest.raises(TypeError, match="takes bare texts, got a chat"):
        own.generate_outputs([[{"role": "user", "content": "A dot."}]])
