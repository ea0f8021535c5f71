"""Together AI. Chats: https://docs.together.ai/reference/chat-completions-1.

Batches: https://docs.together.ai/docs/inference/batch/overview. Their files go to where the API points, as its
own client does since version 3.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.batch import JobFile
from llms.errors import InvalidResponseError, OverloadedError
from llms.http import new_session, plain_refusal, request_errors
from llms.providers.batch_dialects import TOGETHER, BatchDialect
from llms.providers.openai import SECONDS_PER_UPLOAD, ChatBatchesLLM
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    MaxNewTokens,
    MinP,
    PresencePenalty,
    ReasoningEffort,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.reading import object_in
from llms.secrets import forget, know
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, PriceSource

LISTED = "https://api.together.xyz/v1"


class TogetherLLM(ChatBatchesLLM):
    """A model of Together AI, with the key in TOGETHER_API_KEY.

    What doesn't fit into the model's context is refused: the API's own way is to allow fewer tokens for the answer.

    Example:
        >>> llm = TogetherLLM(model="meta-llama/Llama-3.3-70B-Instruct-Turbo")
        >>> llm.url()
        'https://api.together.ai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("TOGETHER_API_KEY",)
    url_variable: ClassVar[str] = "TOGETHER_BASE_URL"
    own_url: ClassVar[str] = "https://api.together.ai/v1"

    sends: ClassVar[Mapping[str, Any]] = {"context_length_exceeded_behavior": "error"}

    form_title = "Together AI"

    provider: Annotated[Literal["together"], Field(title="Provider")] = "together"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        repetition_penalty: RepetitionPenalty = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def url(self) -> str:
        """The address that requests go to. The SDK's variable holds it without its path since version 3."""
        url = super().url()
        return url if url.endswith("/v1") else f"{url}/v1"

    def price_source(self) -> PriceSource | None:
        """At the address that it had before, which price lists go by."""
        url = self.url()
        return PriceSource(LISTED if url == self.own_url else url, self.model)

    def batch_dialect(self) -> BatchDialect:
        return TOGETHER

    async def _upload(self, file: JobFile, name: str) -> str:
        """The id of the uploaded file. The API says where its bytes go, and is told when they're there."""
        checksum = await asyncio.to_thread(_sha256, file.path)
        fields = {"purpose": "batch-api", "file_name": name, "file_type": "jsonl", "checksum": checksum}
        file_id, address = await self._place_for(fields)
        if address:
            know(address)
            try:
                await self._put(file, address)
            finally:
                forget(address)
            await self._post(f"/files/{file_id}/preprocess", {})
        return file_id

    async def _place_for(self, fields: dict[str, str]) -> tuple[str, str]:
        """The id of a file, and the address that takes its bytes; empty where they are there already."""
        import httpx2
        import openai

        options: Any = {"headers": {"Content-Type": "multipart/form-data"}, "follow_redirects": False}
        try:
            await self._client().post("/files", body=fields, cast_to=httpx2.Response, options=options)
        except openai.APIStatusError as error:
            response = error.response
            if response.status_code == HTTPStatus.CONFLICT and (
                known := object_in(response.text).get("file_id") or object_in(error.body).get("file_id")
            ):
                return str(known), ""
            file_id, address = response.headers.get("X-Together-File-Id"), response.headers.get("Location")
            if response.status_code == HTTPStatus.FOUND and file_id and address:
                return file_id, address
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                raise self._error_from(error) from None
        except openai.OpenAIError as error:
            raise self._error_from(error) from None
        raise InvalidResponseError("the provider's answer to an upload names no place for the file")

    async def _put(self, file: JobFile, address: str) -> None:
        """Send the bytes to the provider's store, which isn't sent the key: the address itself is the permission."""
        timeout = max(self.timeout, SECONDS_PER_UPLOAD)
        with request_errors(f"the store of {self.url()}", timeout), file.path.open("rb") as stream:
            async with (
                new_session(address, {"Content-Type": "application/octet-stream"}, timeout) as session,
                session.put(address, data=stream) as response,
            ):
                content = await response.read()
        if response.status != HTTPStatus.OK:
            said = f"the provider's store didn't take the file ({response.status}): {plain_refusal(content)}"
            raise OverloadedError(said)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
