"""The Gemini API. Chats: https://ai.google.dev/api/generate-content. Batches: https://ai.google.dev/api/batch-api,
of files: https://ai.google.dev/api/files. Addresses and states as in google-genai 3.6 (2026-11).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from llms.batch import (
    MARK,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobStatus,
    lines_in,
    outcome_of,
    split_custom_id,
)
from llms.credentials import origin
from llms.endings import GEMINI as ENDS
from llms.errors import (
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
)
from llms.http import json_object, written
from llms.parameters import short
from llms.providers.google import GoogleLLM, as_completion, error_of, job_from, refusal_from
from llms.providers.openai import CHAT, file_name, parse_answer
from llms.quantities import quantity
from llms.reading import json_in, object_in, seconds_of, text_in
from llms.service import ServiceLLM
from llms.typing import GenerateOutput
from llms.uploads import expected_results, job_of_file

VERSION = "/v1"
JOBS_PER_PAGE = 100
SECONDS_PER_UPLOAD = 600.0
CHUNK = 1 << 20


class GeminiApi(ServiceLLM):
    """Where the Gemini API is, and how it's given a key: of its chats and its embeddings."""

    key_variables: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    url_variable: ClassVar[str] = "GOOGLE_GEMINI_BASE_URL"
    own_url: ClassVar[str] = "https://generativelanguage.googleapis.com"

    def url(self) -> str:
        """The address that requests go to, without /v1 or /v1beta."""
        return super().url().removesuffix("/v1beta").removesuffix(VERSION)

    def key_headers(self) -> dict[str, str]:
        return {"x-goog-api-key": self.key().get_secret_value()}

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        return refusal_from(status, headers, content)

    def model_path(self) -> str:
        """Below the address: where the model is."""
        return f"{VERSION}/{self.model if '/' in self.model else f'models/{self.model}'}"


class GeminiLLM(GeminiApi, GoogleLLM):  # pyright: ignore[reportIncompatibleMethodOverride] -- see `GoogleLLM.agenerate`
    """A Gemini model of Google's Gemini API, with the key in GOOGLE_API_KEY or GEMINI_API_KEY.

    Example:
        >>> llm = GeminiLLM(model="gemini-2.5-flash", generation_kwargs={"thinking_budget": 0})
        >>> llm.url()
        'https://generativelanguage.googleapis.com'
    """

    # https://ai.google.dev/gemini-api/docs/batch-api: files of 2 GB, as many requests as fit into one.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, size=2_000_000_000)

    form_title = "Gemini API"

    provider: Annotated[Literal["gemini"], Field(title="Provider")] = "gemini"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def path_to(self, method: str) -> str:
        return f"{self.model_path()}:{method}"

    def batch_line(self, request: BatchRequest) -> bytes:
        return written({"key": request.custom_id, "request": request.body})

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Upload the file and create a batch from it, with its mark as the name. Raises LLMError."""
        name = file_name(metadata.get(MARK))
        uploaded = await self._upload(file, name)
        batch = {"displayName": name, "inputConfig": {"fileName": uploaded}}
        path = await self.path_to("batchGenerateContent")
        made = await job_of_file(lambda: self.call("POST", path, {"batch": batch}), lambda: self._delete(uploaded))
        return status_from(made)

    async def _upload(self, file: JobFile, name: str) -> str:
        """The name of the uploaded file: `files/...`."""
        import aiohttp

        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(file.size),
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        described = orjson.dumps({"file": {"displayName": name, "mimeType": "application/jsonl"}})
        async with self.sending("POST", f"/upload{VERSION}/files", described, start) as response:
            place = response.headers.get("X-Goog-Upload-URL", "")
        if origin(place) != origin(self.url()):
            # The key goes along.
            raise InvalidResponseError(f"the provider's place for an upload isn't at {self.url()}: {short(place)}")
        finish = {
            "Content-Length": str(file.size),
            "X-Goog-Upload-Offset": "0",
            "X-Goog-Upload-Command": "upload, finalize",
        }
        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        async with self.sending("POST", place, file.parts(), finish, timeout) as response:
            answer = json_object(await response.read())
        uploaded = text_in(object_in(answer.get("file")).get("name"))
        if not uploaded:
            raise InvalidResponseError(f"the provider's answer to an upload has no name: {short(answer)}")
        return uploaded

    async def job_status(self, job_id: str) -> JobStatus:
        return status_from(await self.call("GET", f"{VERSION}/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        async for job in self.pages(f"{VERSION}/batches?pageSize={JOBS_PER_PAGE}", "operations"):
            # One that can't be told what it is isn't ours.
            with suppress(InvalidResponseError):
                yield status_from(job)

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The lines of an ended job's file, in any order."""
        import aiohttp

        job = await self.call("GET", f"{VERSION}/{job_id}")
        status, details = status_from(job), object_in(job.get("metadata"))
        ended = seconds_of(details.get("endTime"))
        place = result_file(job)
        if not place:
            if status.status == "succeeded":
                raise IncompleteResultsError(f"batch {job_id!r} has no results yet", ended=ended)
            return
        lines, line = 0, b"\n"
        # However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        path = f"/download{VERSION}/{place}:download?alt=media"
        said = f"the file {place!r} of batch {job_id!r} isn't found; such files are kept for two days"
        with expected_results(said, ended):
            async with self.sending("GET", path, timeout=timeout) as response:
                async for line in lines_in(response.content.iter_chunked(CHUNK)):
                    if not line.strip():
                        continue
                    lines += 1
                    result = read_result(line, self.model)
                    if result is not None:
                        yield result
        counted = status.total if status.status == "succeeded" else 0
        if lines < counted or (not line.endswith(b"\n") and not object_in(line.decode("utf-8", "replace"))):
            said = f"batch {job_id!r} has {lines:,} of {quantity(counted, 'result')}"
            raise IncompleteResultsError(said, ended=ended)

    async def cancel_job(self, job_id: str) -> None:
        await self.call("POST", f"{VERSION}/{job_id}:cancel", {})

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended job with its files."""
        try:
            job = await self.call("GET", f"{VERSION}/{job_id}")
        except ModelNotFoundError:
            return
        given = object_in(object_in(job.get("metadata")).get("inputConfig"))
        for name in (text_in(given.get("fileName")), result_file(job), job_id):
            if name:
                await self._delete(name)

    async def _delete(self, name: str) -> None:
        """Delete what may be gone by now. Raises LLMError."""
        with suppress(ModelNotFoundError):
            await self.call("DELETE", f"{VERSION}/{name}")


def status_from(job: Mapping[str, Any]) -> JobStatus:
    """How a job stands, from the operation that it is. Raises InvalidResponseError where it's none."""
    details = object_in(job.get("metadata"))
    stats = object_in(details.get("batchStats"))
    counts = (stats.get("requestCount"), stats.get("successfulRequestCount"), stats.get("failedRequestCount"))
    return job_from(job.get("name"), details, counts, job.get("error"), answered=bool(result_file(job)))


def result_file(job: Mapping[str, Any]) -> str:
    """The name of the file with a job's results; empty where there is none."""
    answered = object_in(job.get("response"))
    output = object_in(object_in(job.get("metadata")).get("output")) or object_in(answered.get("output")) or answered
    return text_in(output.get("responsesFile"))


def read_result(line: bytes, asked: str) -> BatchResult | None:
    """The outcome from one line of a job's results. None for one that names no request."""
    try:
        found = object_in(json_in(line))
    except ValueError:
        return None
    key, mark = split_custom_id(text_in(found.get("key")))
    return BatchResult(key, _outcome_in(found, asked.rpartition("/")[2]), mark) if key else None


def _outcome_in(line: Mapping[str, Any], asked: str) -> GenerateOutput | LLMError:
    problem, answer = object_in(line.get("error")), object_in(line.get("response"))
    if problem:
        return error_of(problem)
    if not answer:
        return InvalidResponseError(f"the provider gave no answer to it: {short(line)}")
    completion = as_completion(answer)
    return outcome_of(lambda: parse_answer(completion, CHAT, ENDS), asked, completion["model"])
