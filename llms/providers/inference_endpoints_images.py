"""Images of Hugging Face: a model behind Inference Providers, an Inference Endpoint, or any server like it.

https://huggingface.co/docs/inference-providers/tasks/text-to-image. Every provider has a protocol of its own, so the
requests are those of `huggingface_hub`, which knows them all.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from llms.base import side_by_side
from llms.errors import BadRequestError, LLMError
from llms.extras import how_to_install
from llms.images import ImageGenerationModel, image_output, images_in
from llms.parameters import Unasked, short
from llms.providers.hub_client import HubClientModel
from llms.typing import FormattedInput, GenerateOutput

if TYPE_CHECKING:
    from PIL.Image import Image


class InferenceEndpointsImageGeneration(HubClientModel, ImageGenerationModel):
    """An image model on Hugging Face's infrastructure. Its images are PNG files. It needs Pillow (the extra `images`).

    Example:
        >>> model = InferenceEndpointsImageGeneration(model_id="black-forest-labs/FLUX.1-schnell")
        >>> model.model_name
        'black-forest-labs/FLUX.1-schnell'
    """

    provider: Annotated[Literal["inference-endpoints-images"], Field(title="Provider")] = "inference-endpoints-images"  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 300.0

    def load(self) -> None:
        """As `InferenceEndpointsLLM.load`. Raises LLMError also where Pillow isn't installed."""
        if importlib.util.find_spec("PIL") is None:
            raise LLMError(f"{type(self).__name__} needs Pillow: {how_to_install('images')}")
        super().load()

    def generate_images(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[list[bytes]]:
        return images_in(self.generate_outputs(inputs, num_generations, **kwargs))

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        negative_prompt: Annotated[str | None, Field(description="What should not be in the image.")] = None,
        width: Annotated[int | None, Field(ge=1, description="In pixels.")] = None,
        height: Annotated[int | None, Field(ge=1, description="In pixels.")] = None,
        num_inference_steps: Annotated[int | None, Field(ge=1, description="More: finer and slower.")] = None,
        guidance_scale: Annotated[float | None, Field(ge=0, description="How closely to keep to the prompt.")] = None,
        seed: Annotated[int | None, Field(description="For repeatable images; counted on for further ones.")] = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further parameters of the model.")] = None,
    ) -> GenerateOutput:
        """Images for one prompt, in base64, with one request for each.

        Raises:
            LLMError: one of its kinds, by the server's answer.
        """
        if not isinstance(input, str):
            raise BadRequestError(f"an image is made from a bare text, got {short(input)}")
        wanted: dict[str, Any] = {
            "negative_prompt": negative_prompt,
            "width": width,
            "height": height,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "extra_body": extra_body,
        }
        await self._load_once()
        seeds = [None if seed is None else seed + number for number in range(num_generations)]
        return await side_by_side(self._image(input, {**wanted, "seed": each}) for each in seeds)

    async def _image(self, prompt: str, wanted: dict[str, Any]) -> GenerateOutput:
        with self._errors_of_the_client("images"):
            image = await self._client().text_to_image(prompt, model=self._model(), **wanted)
            data = await asyncio.to_thread(png_of, image)
        return image_output([base64.b64encode(data).decode()])


def png_of(image: Image) -> bytes:
    """An image as a PNG file. Raises OSError."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
