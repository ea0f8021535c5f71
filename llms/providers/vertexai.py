"""Vertex AI, Google Cloud's API of Gemini models.

Chats: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference. Batches, of files in a bucket:
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini. Addresses and states as in
google-genai 3.6 (2026-11); the bucket's: https://cloud.google.com/storage/docs/json_api/v1/objects.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast
from urllib.parse import quote

from pydantic import Field, SecretStr

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
from llms.credentials import may_have_keys
from llms.endings import GEMINI as ENDS
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
)
from llms.extras import package
from llms.http import written
from llms.parameters import Unasked, short
from llms.providers.google import GoogleLLM, as_completion, error_of, job_from
from llms.providers.openai import CHAT, file_name, parse_answer
from llms.quantities import quantity
from llms.reading import json_in, object_in, seconds_of, text_in
from llms.secrets import know
from llms.typing import GenerateOutput
from llms.uploads import expected_results, job_of_file

VERSION = "/v1beta1"
PROJECT_VARIABLE, LOCATION_VARIABLE = "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STORAGE, STORAGE_VARIABLE = "https://storage.googleapis.com", "STORAGE_EMULATOR_HOST"
MULTI_REGIONS = frozenset({"us", "eu"})
JOBS_PER_PAGE = 100
SECONDS_PER_UPLOAD = 600.0
CHUNK = 1 << 20
LABEL = MARK
"""Of a request in a batch, whose results say by it whose they are."""

_signing_in = threading.Lock()


class VertexAILLM(GoogleLLM):
    """A Gemini model on Vertex AI, signed in as Google Cloud's own tools are (the extra `google`).

    With `gcloud auth application-default login`, a service account's file in GOOGLE_APPLICATION_CREDENTIALS, or on a
    machine of Google Cloud there is no key. One of Vertex AI's express mode goes by `api_key`, `credentials` or
    GOOGLE_API_KEY; it has no batches.

    Example:
        >>> llm = VertexAILLM(model="gemini-2.5-flash", project="my-project", location="europe-west4")
        >>> llm.url()
        'https://europe-west4-aiplatform.googleapis.com'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY",)
    url_variable: ClassVar[str] = "GOOGLE_VERTEX_BASE_URL"
    # https://cloud.google.com/vertex-ai/generative-ai/docs/quotas: 200,000 requests, files of 1 GB.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=200_000, size=1_000_000_000)

    form_title = "Vertex AI"

    provider: Annotated[Literal["vertexai"], Field(title="Provider")] = "vertexai"  # pyright: ignore[reportIncompatibleVariableOverride]
    project: Annotated[
        str,
        Field(
            title="Project",
            pattern=r"^[a-z0-9.:-]*$",
            description=f"Empty: {PROJECT_VARIABLE}, or the signed-in one's.",
        ),
        Unasked(),
    ] = ""
    # It's a part of the address: letters, digits and dashes make no other server's.
    location: Annotated[
        str,
        Field(title="Location", pattern=r"^[a-z0-9-]*$", description=f"Empty: {LOCATION_VARIABLE}, or global."),
    ] = ""
    bucket: Annotated[
        str,
        Field(
            title="Bucket",
            pattern=r"^(gs://)?[a-z0-9._/-]*$",
            description="For batches: gs://bucket/folder, where their files are written.",
        ),
        Unasked(),
    ] = ""

    @property
    def own_url(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] -- it depends on a field
        place = self.place()
        if place == "global":
            return "https://aiplatform.googleapis.com"
        if place in MULTI_REGIONS:
            return f"https://aiplatform.{place}.rep.googleapis.com"
        return f"https://{place}-aiplatform.googleapis.com"

    def place(self) -> str:
        """The location. Raises BadRequestError for a variable that holds none."""
        place = self.location or os.environ.get(LOCATION_VARIABLE) or "global"
        if not re.fullmatch(r"[a-z0-9-]+", place):
            raise BadRequestError(f"{LOCATION_VARIABLE} holds no location: {place!r}")
        return place

    def url(self) -> str:
        """The address that requests go to, without /v1beta1."""
        return super().url().removesuffix(VERSION)

    def own_addresses(self) -> tuple[str, ...]:
        return (*super().own_addresses(), storage_url())

    def identity(self) -> dict[str, Any]:
        """The address says where it is."""
        return {name: value for name, value in super().identity().items() if name != "location"}

    @property
    def limit_key(self) -> Hashable:
        return (*cast("tuple[Hashable, ...]", super().limit_key), self._given_project())

    @property
    def account(self) -> Hashable:
        return (*cast("tuple[Hashable, ...]", super().account), self._given_project())

    def load(self) -> None:
        """Find the key of the express mode, or the package to sign in with.

        Raises:
            AuthenticationError: the key, or a token in its place, isn't for the address.
            BadRequestError: there's no bucket for batches.
            llms.extras.MissingPackageError: there's neither a key nor the extra `google`.
        """
        if self.use_offline_batch_generation:
            self._bucket()
        if not self.key().get_secret_value():
            self._check_sign_in(self.url())
            package("google.auth", "google", type(self).__name__)

    def key(self) -> SecretStr:
        """The key of the express mode. Empty where one is signed in."""
        if self.api_key or self.credentials or not self._given_project():
            return self.bound_key(self.url()) or SecretStr("")
        return SecretStr("")

    def key_headers(self) -> dict[str, str]:
        key = self.key().get_secret_value()
        return {"x-goog-api-key": key} if key else {}

    async def signature(
        self, method: str, address: str, data: bytes | AsyncIterator[bytes] | None
    ) -> Mapping[str, str]:
        if self.key().get_secret_value():
            return {}
        self._check_sign_in(address)
        return {"Authorization": f"Bearer {(await self._signed_in())[0]}"}

    def _check_sign_in(self, address: str) -> None:
        """Raises AuthenticationError where a server may have no token: it's as good as a key."""
        if not may_have_keys(address, self.own_addresses()):
            raise self.refused(address)

    async def _signed_in(self) -> tuple[str, str]:
        """A token, a kept one while it lasts, and the project of who is signed in.

        Raises:
            AuthenticationError: nobody is, or who is gets no token.
            ConnectionFailedError: the server that gives tokens can't be reached, or is away.
        """
        google = cast("_GoogleAuth", package("google.auth", "google", type(self).__name__))
        kinds = cast("_Kinds", package("google.auth.exceptions", "google", type(self).__name__))
        try:
            token, project = await asyncio.to_thread(_token, google)
        except (kinds.GoogleAuthError, OSError) as error:
            if isinstance(error, kinds.TransportError) or getattr(error, "retryable", False):
                raise ConnectionFailedError(f"can't reach the server that signs in to Google Cloud: {error}") from None
            raise AuthenticationError(
                f"can't sign in to Google Cloud: {error} (try `gcloud auth application-default login`, or set"
                " GOOGLE_APPLICATION_CREDENTIALS to a service account's file)"
            ) from None
        return token, project

    def _given_project(self) -> str:
        return self.project or os.environ.get(PROJECT_VARIABLE, "")

    async def parent(self) -> str:
        """`projects/.../locations/...`; empty in the express mode. Raises AuthenticationError without a project."""
        if self.key().get_secret_value():
            return ""
        project = self._given_project() or (await self._signed_in())[1]
        if not project:
            raise AuthenticationError(
                f"{type(self).__name__}(model={self.model!r}) has no project: set {PROJECT_VARIABLE}, or give `project`"
            )
        return f"projects/{quote(project, safe=':')}/locations/{self.place()}"

    async def path_to(self, method: str) -> str:
        name = self.full_model()
        parent = "" if name.startswith("projects/") else await self.parent()
        return f"{VERSION}/{parent}{'/' if parent else ''}{name}:{method}"

    def full_model(self) -> str:
        """The model with its publisher: `google` where the name has none."""
        if self.model.startswith(("projects/", "publishers/")):
            return self.model
        publisher, _, name = self.model.rpartition("/")
        return f"publishers/{publisher or 'google'}/models/{name}"

    def batch_line(self, request: BatchRequest) -> bytes:
        # Results don't come in order, and hold nothing else of ours than the request.
        labels = {**object_in(request.body.get("labels")), LABEL: request.custom_id}
        return written({"request": {**request.body, "labels": labels}})

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Write the file into the bucket and create a job from it, with its mark as the name. Raises LLMError."""
        import aiohttp

        parent, bucket, folder = await self._jobs_at(), *self._bucket()
        name = file_name(metadata.get(MARK) or file.intent)
        source = f"{folder}{name}"
        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        headers = {"Content-Type": "application/jsonl", "Content-Length": str(file.size)}
        place = f"{storage_url()}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(source, safe='')}"
        async with self.sending("POST", place, file.parts(), headers, timeout):
            pass
        body = {
            "displayName": name,
            "model": self.full_model(),
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"gs://{bucket}/{source}"]}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": f"gs://{bucket}/{source.removesuffix('.jsonl')}"},
            },
        }
        return status_from(await job_of_file(lambda: self.call("POST", parent, body)))

    async def _jobs_at(self) -> str:
        parent = await self.parent()
        if not parent:
            raise BadRequestError("Vertex AI's express mode has no batches: sign in, and give `project`, without a key")
        return f"{VERSION}/{parent}/batchPredictionJobs"

    def _bucket(self) -> tuple[str, str]:
        """The bucket for the files of batches, and the folder in it, with a slash at its end."""
        bucket, _, folder = self.bucket.removeprefix("gs://").partition("/")
        if not bucket:
            raise BadRequestError("a batch at Vertex AI needs a bucket for its files: give `bucket`, gs://name/folder")
        return bucket, f"{folder.strip('/')}/" if folder.strip("/") else ""

    async def job_status(self, job_id: str) -> JobStatus:
        return status_from(await self.call("GET", f"{VERSION}/{job_id}"))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        async for job in self.pages(f"{await self._jobs_at()}?pageSize={JOBS_PER_PAGE}", "batchPredictionJobs"):
            # One that can't be told what it is isn't ours.
            with suppress(InvalidResponseError):
                yield status_from(job)

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The lines of an ended job's files, in any order."""
        job = await self.call("GET", f"{VERSION}/{job_id}")
        ended, status = seconds_of(job.get("endTime")), status_from(job)
        folder = output_folder(job)
        lines = 0
        if folder:
            with expected_results(f"the results of batch {job_id!r} aren't found in {folder!r}", ended):
                async for name in self._files_in(folder):
                    async for line in self._lines(name):
                        lines += bool(line.strip())
                        result = read_result(line, self.model)
                        if result is not None:
                            yield result
        counted = status.answered + status.refused
        if lines < counted or (not folder and status.status in {"succeeded", "partially_succeeded"}):
            gone = ModelNotFoundError(f"there are no results of batch {job_id!r} in {folder!r}") if not lines else None
            said = f"batch {job_id!r} has {lines:,} of {quantity(counted, 'result')}"
            raise IncompleteResultsError(said, ended=ended, gone=gone)

    async def _files_in(self, folder: str) -> AsyncIterator[str]:
        """The files of results in a folder, as `gs://bucket/name`."""
        bucket, _, prefix = folder.removeprefix("gs://").partition("/")
        place = f"{storage_url()}/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}"
        async for each in self.pages(place, "items"):
            name = text_in(each.get("name"))
            if name.endswith(".jsonl"):
                yield f"gs://{bucket}/{name}"

    async def _lines(self, file: str) -> AsyncIterator[bytes]:
        import aiohttp

        # However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        async with self.sending("GET", f"{place_of(file)}?alt=media", timeout=timeout) as response:
            async for line in lines_in(response.content.iter_chunked(CHUNK)):
                yield line

    async def cancel_job(self, job_id: str) -> None:
        await self.call("POST", f"{VERSION}/{job_id}:cancel", {})

    async def delete_job(self, job_id: str) -> None:
        """Delete an ended job with its files."""
        try:
            job = await self.call("GET", f"{VERSION}/{job_id}")
        except ModelNotFoundError:
            return
        sources = object_in(object_in(job.get("inputConfig")).get("gcsSource")).get("uris")
        files = [text_in(each) for each in cast("list[object]", sources or [])]
        if folder := output_folder(job):
            files += [name async for name in self._files_in(folder)]
        for place in (*map(place_of, filter(None, files)), f"{VERSION}/{job_id}"):
            with suppress(ModelNotFoundError):
                await self.call("DELETE", place)


class _Signed(Protocol):
    """What is used of `google.auth.credentials.Credentials`."""

    valid: bool
    token: str

    def refresh(self, request: object) -> None: ...


class _GoogleAuth(Protocol):
    """What is used of the package `google.auth`."""

    def default(self, scopes: list[str]) -> tuple[_Signed, str | None]: ...


class _Kinds(Protocol):
    """What is used of `google.auth.exceptions`: the base of all, and that of a connection."""

    GoogleAuthError: type[Exception]
    TransportError: type[Exception]


def _token(google: _GoogleAuth) -> tuple[str, str]:
    # One at a time: a hundred requests that start together sign in once.
    with _signing_in:
        signed, project = _found(google, os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", ""))
        if not signed.valid:
            signed.refresh(package("google.auth.transport.requests", "google", "VertexAILLM").Request())
            know(signed.token)
        return signed.token, project or ""


@cache
def _found(google: _GoogleAuth, file: str) -> tuple[_Signed, str | None]:
    """Who is signed in, by a file or otherwise, and the project."""
    return google.default([SCOPE])


def storage_url() -> str:
    """The address of Cloud Storage; that of an emulator where one is set, as Google's own libraries have it."""
    given = os.environ.get(STORAGE_VARIABLE, "").rstrip("/")
    return (given if "://" in given else f"http://{given}") if given else STORAGE


def place_of(file: str) -> str:
    """The address of a file in a bucket, `gs://bucket/name`."""
    bucket, _, name = file.removeprefix("gs://").partition("/")
    return f"{storage_url()}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"


def status_from(job: Mapping[str, Any]) -> JobStatus:
    """How a job stands. Raises InvalidResponseError where it's none."""
    stats = object_in(job.get("completionStats"))
    done, refused = _number(stats.get("successfulCount")), _number(stats.get("failedCount"))
    counts = (done + refused + _number(stats.get("incompleteCount")), done, refused)
    name = job.get("name") if job.get("state") else None
    return job_from(name, job, counts, job.get("error"), answered=bool(done or output_folder(job)))


def _number(value: object) -> int:
    # -1 stands for a number that isn't known.
    return max(0, int(value)) if isinstance(value, int | str) and re.fullmatch(r"-?\d+", str(value)) else 0


def output_folder(job: Mapping[str, Any]) -> str:
    """Where a job's results are: `gs://bucket/folder`; empty where there are none."""
    return text_in(object_in(job.get("outputInfo")).get("gcsOutputDirectory"))


def read_result(line: bytes, asked: str) -> BatchResult | None:
    """The outcome from one line of a job's results. None for one that names no request of ours."""
    try:
        found = object_in(json_in(line))
    except ValueError:
        return None
    labels = object_in(object_in(found.get("request")).get("labels"))
    key, mark = split_custom_id(text_in(labels.get(LABEL)))
    return BatchResult(key, _outcome_in(found, asked.rpartition("/")[2]), mark) if key else None


def _outcome_in(line: Mapping[str, Any], asked: str) -> GenerateOutput | LLMError:
    answer, said = object_in(line.get("response")), text_in(line.get("status"))
    if answer.get("candidates") or answer.get("promptFeedback"):
        completion = as_completion(answer)
        return outcome_of(lambda: parse_answer(completion, CHAT, ENDS), asked, completion["model"])
    if not said:
        return InvalidResponseError(f"the provider gave no answer to it: {short(line)}")
    # "Bad Request: {"error": {"code": 400, ...}}", or words alone.
    problem = object_in(object_in(said[said.find("{") :] if "{" in said else "").get("error"))
    if problem:
        return error_of(problem)
    if said.lower().startswith(("bad request", "invalid")):
        return BadRequestError(f"the provider refuses the request: {said}")
    return OverloadedError(f"the provider failed: {said}")
