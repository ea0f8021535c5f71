"""Images of OpenAI, and of every server that speaks its protocol.

https://platform.openai.com/docs/api-reference/images/create. Batches of them:
https://platform.openai.com/docs/guides/batch.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.base import side_by_side
from llms.batch import BatchResult
from llms.errors import BadRequestError, LLMError, error_for_status
from llms.http import new_session, request_errors
from llms.images import ImageGenerationModel, image_type, images_in, is_address
from llms.parameters import Unasked, short
from llms.providers.openai import IMAGES, OpenAILLM
from llms.providers.parameters import keywords_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, PriceSource

MOST_IMAGES = 10
"""Of one request."""


class OpenAIImageGeneration(OpenAILLM, ImageGenerationModel):
    """An image model of OpenAI, or of any server with its API.

    Images come in base64, also from servers that answer with addresses: those are fetched at once.

    Example:
        >>> model = OpenAIImageGeneration(model="gpt-image-2", generation_kwargs={"size": "1024x1024"})
        >>> model.model_name
        'gpt-image-2'
    """

    provider: Annotated[Literal["openai-images"], Field(title="Provider")] = "openai-images"  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 300.0
    structured_output: Annotated[JSONSchema | None, Field(exclude=True), Unasked()] = None

    def price_source(self) -> PriceSource | None:
        return PriceSource(self.url(), self.model, images=True)

    def generate_images(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[list[bytes]]:
        """The images for each prompt, online or from batch jobs, as the bytes of their files.

        Args:
            inputs: prompts.
            num_generations: images per prompt.
            kwargs: runtime parameters, over `generation_kwargs`.

        Raises:
            LLMError: one of the prompts got none.
            OfflineBatchGenerationNotFinishedError: as by `generate_outputs`.
        """
        return images_in(self.generate_outputs(inputs, num_generations, **kwargs))

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        size: Annotated[
            str | None, Field(description="Width and height in pixels, such as 1024x1024 or 1536x1024; or auto.")
        ] = None,
        quality: Annotated[str | None, Field(description="Such as low, medium, high or auto.")] = None,
        style: Annotated[str | None, Field(description="Such as vivid or natural, where the model has styles.")] = None,
        background: Annotated[
            Literal["transparent", "opaque", "auto"] | None, Field(description="Transparent: with PNG and WebP.")
        ] = None,
        output_format: Annotated[
            Literal["png", "jpeg", "webp", "gif", "svg"] | None, Field(description="Of the images' files.")
        ] = None,
        output_compression: Annotated[
            int | None, Field(ge=0, le=100, description="Per cent, of JPEG and WebP. 100: the best quality.")
        ] = None,
        moderation: Annotated[Literal["low", "auto"] | None, Field(description="How strict the filter is.")] = None,
        response_format: Annotated[
            Literal["b64_json", "url"] | None,
            Field(description="How images travel, where the server lets one choose. OpenAI's newer models don't."),
        ] = None,
        user: Annotated[str | None, Field(description="An id of your end user, for the provider.")] = None,
        extra_body: Annotated[dict[str, Any] | None, Field(description="Further fields of the request's body.")] = None,
    ) -> GenerateOutput:
        """Images for one prompt, in base64, as the generations.

        Raises:
            LLMError: one of its kinds, by the provider's answer.
        """
        keywords = keywords_in(locals())
        parts = self.requests_per_input(num_generations)
        asked = [self.generated(input, num_generations // parts, keywords) for _ in range(parts)]
        return await side_by_side(asked)

    def requests_per_input(self, num_generations: int) -> int:
        """As few equal parts as fit into requests."""
        fewest = super().requests_per_input(num_generations)
        parts = range(fewest, num_generations + 1)
        return next(each for each in parts if num_generations % each == 0 and num_generations // each <= MOST_IMAGES)

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        if not isinstance(given, str):
            raise BadRequestError(f"an image is made from a bare text, got {short(given)}")
        wanted = {name: value for name, value in keywords.items() if value is not None}
        extra = wanted.pop("extra_body", {})
        several = {"n": num_generations} if num_generations > 1 else {}
        return IMAGES, {"model": self.model, "prompt": given, **several, **wanted, **extra}

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        return await self._fetched(await super()._request(given, times, keywords))

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        async for result in super().job_results(job_id):
            if isinstance(result.outcome, LLMError):
                yield result
                continue
            try:
                yield replace(result, outcome=await self._fetched(result.outcome))
            except LLMError as error:
                yield replace(result, outcome=error)

    async def _fetched(self, output: GenerateOutput) -> GenerateOutput:
        """The output with the images in the place of their addresses."""
        images = await asyncio.gather(*(self._image(each) for each in output["generations"] if each is not None))
        fetched = output.copy()
        fetched["generations"] = list(images)
        return fetched

    async def _image(self, answer: str) -> str:
        """The image of an answer in base64. Raises LLMError, a final one: the image is paid for."""
        if not is_address(answer):
            return answer
        try:
            data = await self.call_briefly(partial(self._content, answer))
            image_type(data)
        except (LLMError, ValueError) as error:
            raise LLMError(f"an image was made, but isn't at its address {short(answer)}: {error}") from None
        return base64.b64encode(data).decode()

    async def _content(self, address: str) -> bytes:
        with request_errors(address, self.timeout):
            # Without the key: it may be anybody's server.
            async with new_session(address, {}, self.timeout) as session, session.get(address) as response:
                content = await response.read()
        if response.status >= 400:
            raise error_for_status(response.status, f"got {short(content)}")
        return content
