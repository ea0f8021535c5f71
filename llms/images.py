"""The contract of an image model: prompts in, images out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, cast

from pydantic import Field

from llms.base import LLM, bare_texts
from llms.errors import KeptError, LLMError, failure_of
from llms.outputs import outputs_in
from llms.parameters import Unasked, short
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, TokenCounts

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"<svg": "svg",
    b"<?xml": "svg",
}
"""What the files of each type begin with. WebP's begins after four bytes of length."""


class ImageGenerationModel(LLM):
    """A model that turns prompts into images. They are the generations of its outputs, in base64.

    A local engine writes `model_name` and `generate_images`, whose keywords are its runtime parameters. An adapter
    of a service is a kind of `AsyncLLM` as well, and writes `agenerate`.

    Example:
        >>> class Dots(ImageGenerationModel):
        ...     @property
        ...     def model_name(self):
        ...         return "dots"
        ...
        ...     def generate_images(self, inputs, num_generations=1, colour: str = "red"):
        ...         dot = f"<svg><circle r='9' fill='{colour}'/></svg>".encode()
        ...         return [[dot] * num_generations for _ in inputs]
        >>> Dots().generate_outputs(["A dot."], colour="blue")[0]["generations"]
        ['PHN2Zz48Y2lyY2xlIHI9JzknIGZpbGw9J2JsdWUnLz48L3N2Zz4=']
    """

    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    def generate_images(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[list[bytes]]:
        """The images for each prompt, as the bytes of their files.

        Raises:
            LLMError: one of the prompts got none.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define `generate_images`")

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        prompts = bare_texts(inputs, type(self).__name__)
        owner = f"{type(self).__name__}.generate_images"
        made = outputs_in(self.generate_images(prompts, num_generations, **kwargs), owner, len(prompts))
        return [_encoded(images, owner) for images in made]

    @classmethod
    def generating_function(cls) -> Callable[..., Any]:
        return cls.generate_images


def _encoded(images: object, owner: str) -> GenerateOutput:
    """The output for one prompt of an engine. Where it's none, it says why, so that its row fails alone."""
    listed = cast("list[object]", [images] if isinstance(images, bytes) else images)
    if isinstance(images, bytes | list | tuple) and all(isinstance(each, bytes) for each in listed):
        return image_output([base64.b64encode(each).decode() for each in cast("list[bytes]", listed)])
    problem = LLMError(
        f"{owner} gave {short(cast('object', images))} for a prompt; expected a list of images as the bytes of a file"
    )
    return GenerateOutput(
        generations=[], statistics=TokenCounts(input_tokens=[], output_tokens=[]), error=failure_of(problem)
    )


def image_output(images: Iterable[str], input_tokens: int = 0, output_tokens: int = 0) -> GenerateOutput:
    """The output for one prompt: images in base64. The tokens are those of all of them."""
    generations: list[str | None] = list(images)
    count = len(generations)
    ends = [output_tokens * (place + 1) // count for place in range(count)]
    statistics = TokenCounts(
        input_tokens=[input_tokens, *([0] * (count - 1))],
        output_tokens=[end - start for start, end in zip([0, *ends], ends, strict=False)],
    )
    return GenerateOutput(generations=generations, statistics=statistics)


def images_in(outputs: Sequence[GenerateOutput]) -> list[list[bytes]]:
    """The images of outputs, as the bytes of their files. Raises LLMError for the first output that failed."""
    images: list[list[bytes]] = []
    for output in outputs:
        problem = output.get("error")
        if problem is not None:
            raise KeptError(problem)
        images.append([image_bytes(text) for text in output["generations"] if text is not None])
    return images


def image_bytes(text: str) -> bytes:
    """The bytes of an image in base64. Raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"expected an image in base64, got {short(text)}") from None
    image_type(data)
    return data


def image_type(data: bytes) -> str:
    """png, jpeg, webp, gif or svg. Raises ValueError."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    found = next((name for signature, name in SIGNATURES.items() if data.startswith(signature)), None)
    if found is None:
        raise ValueError(f"expected an image (PNG, JPEG, WebP, GIF or SVG), got bytes that begin with {data[:16]!r}")
    return found


def is_address(answer: str) -> bool:
    """Whether an answer is the address of an image, and not the image itself."""
    return answer.startswith(("http://", "https://"))
