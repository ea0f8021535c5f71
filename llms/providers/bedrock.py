"""Amazon Bedrock's models by Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.

Batches, of files in S3: https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference.html. Requests and states
as in the models of botocore 1.43 (2026-11). Requests go by HTTP; botocore finds the credentials and signs.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Annotated, Any, ClassVar, Literal, cast
from urllib.parse import quote

import orjson
from pydantic import Field, SecretStr

from llms.base import split_input
from llms.batch import (
    MARK,
    BatchLimits,
    BatchRequest,
    BatchResult,
    JobFile,
    JobState,
    JobStatus,
    OfflineBatchLLM,
    lines_in,
    outcome_of,
    split_custom_id,
)
from llms.credentials import may_have_keys, origin
from llms.endings import BEDROCK as ENDS
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ExpiredError,
    IncompleteResultsError,
    InvalidResponseError,
    LLMError,
    ModelNotFoundError,
    OverloadedError,
    error_for_status,
)
from llms.extras import MissingPackageError
from llms.http import written
from llms.parameters import Unasked, short
from llms.providers import aws
from llms.providers.aws import frozen_credentials, region_of
from llms.providers.messages import SYSTEM_ROLES, Image, as_call, calls_of, parts_of, refuse_names, text_of
from llms.providers.openai import CHAT, parse_answer
from llms.providers.parameters import ExtraBody, MaxNewTokens, ReasoningEffort, Stop, TopP, keywords_in
from llms.quantities import quantity
from llms.reading import count_in, json_in, list_in, object_in, seconds_of, text_in
from llms.service import ServiceLLM, refusal_words, retry_after_in
from llms.structured_output import constrainable_schema, schema_name
from llms.typing import FormattedInput, GenerateOutput, JSONSchema
from llms.uploads import REFUSALS, is_not_there, job_of_file

CONVERSE = "converse"
JOBS = "/model-invocation-job"
SERVICE = "Bedrock"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
CONFIG = {"max_new_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
"""By our name: the name in `inferenceConfig`."""
FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
STATUSES = {424: 500}
"""Its own: for a model that failed."""
STATUS_OF_KIND = {
    "ExpiredTokenException": 401,
    "UnrecognizedClientException": 401,
    "InvalidSignatureException": 401,
    "ServiceQuotaExceededException": 429,
    "ConflictException": 409,
}
"""By the name of an error that comes with another status: what it means elsewhere."""
JOBS_PER_PAGE = 100
SECONDS_PER_UPLOAD = 600.0
CHUNK = 1 << 20

JOB_STATES: dict[str, JobState] = {
    "submitted": "waiting",
    "validating": "waiting",
    "scheduled": "waiting",
    "inprogress": "waiting",
    "stopping": "waiting",
    "completed": "ended",
    "partiallycompleted": "ended",
    "stopped": "ended",
    "failed": "failed",
    # It never began.
    "expired": "failed",
}
"""By the word in small letters: bedrock, ModelInvocationJobStatus."""


class BedrockLLM(ServiceLLM, OfflineBatchLLM):
    """A model of Amazon Bedrock, with the credentials that AWS's own tools find (the extra `aws`).

    An API key of Bedrock in AWS_BEARER_TOKEN_BEDROCK does as well, but for batches: their files are in S3.

    Example:
        >>> llm = BedrockLLM(model="us.anthropic.claude-sonnet-4-5-20250929-v1:0", region="us-east-1")
        >>> llm.url()
        'https://bedrock-runtime.us-east-1.amazonaws.com'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("AWS_BEARER_TOKEN_BEDROCK",)
    url_variable: ClassVar[str] = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"
    # https://docs.aws.amazon.com/general/latest/gr/bedrock.html: 50,000 records, 1 GB a file, where it isn't raised.
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, size=1_000_000_000)

    answers_several: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False

    form_title = "Amazon Bedrock"

    provider: Annotated[Literal["bedrock"], Field(title="Provider")] = "bedrock"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Model", description="Its id, or that of an inference profile, or an ARN.")]
    # It's a part of the address: letters, digits and dashes make no other server's.
    region: Annotated[
        str,
        Field(title="Region", pattern=r"^[a-z0-9-]*$", description="Empty: AWS_REGION, or the profile's."),
    ] = ""
    profile: Annotated[
        str,
        Field(title="Profile", description="Of AWS's configuration. Empty: AWS_PROFILE, or the default."),
        Unasked(),
    ] = ""
    bucket: Annotated[
        str,
        Field(
            title="Bucket",
            pattern=r"^(s3://)?[a-z0-9._/-]*$",
            description="For batches: s3://bucket/folder, where their files are written. In the same region.",
        ),
        Unasked(),
    ] = ""
    role_arn: Annotated[
        str,
        Field(title="Role", description="For batches: the ARN of the role by which Bedrock reads and writes there."),
        Unasked(),
    ] = ""

    @property
    def own_url(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] -- it depends on a field
        return self._service_url("bedrock-runtime", "")

    def own_addresses(self) -> tuple[str, ...]:
        return (*super().own_addresses(), self.jobs_url(), self.storage_url())

    def jobs_url(self) -> str:
        """The address where jobs are created."""
        return self._service_url("bedrock", "AWS_ENDPOINT_URL_BEDROCK")

    def storage_url(self) -> str:
        """The address of S3."""
        return self._service_url("s3", "AWS_ENDPOINT_URL_S3")

    def _service_url(self, service: str, variable: str) -> str:
        """Empty where no region is named."""
        if given := os.environ.get(variable, "") if variable else "":
            return given.rstrip("/")
        place = self.place()
        ending = "amazonaws.com.cn" if place.startswith("cn-") else "amazonaws.com"
        return f"https://{service}.{place}.{ending}" if place else ""

    def place(self) -> str:
        """The region; empty where none is named, as before a run."""
        place = self.region or next((found for name in REGION_VARIABLES if (found := os.environ.get(name))), "")
        if not place:
            with suppress(MissingPackageError, AuthenticationError):
                place = region_of(self.profile, type(self).__name__)
        return place if re.fullmatch(r"[a-z0-9-]+", place) else ""

    def check_place(self) -> None:
        """Raises ConnectionFailedError without a region, and AuthenticationError without the profile."""
        if not self.place():
            with suppress(MissingPackageError):
                region_of(self.profile, type(self).__name__)
            raise ConnectionFailedError(
                f"{type(self).__name__}(model={self.model!r}) has no region: set AWS_REGION, or give `region`, such as"
                " us-east-1"
            )

    def identity(self) -> dict[str, Any]:
        """The address says where it is."""
        return {name: value for name, value in super().identity().items() if name != "region"}

    @property
    def limit_key(self) -> Hashable:
        return (*cast("tuple[Hashable, ...]", super().limit_key), self.profile)

    @property
    def account(self) -> Hashable:
        return (*cast("tuple[Hashable, ...]", super().account), self.profile)

    def load(self) -> None:
        """Find the key, or the credentials to sign with.

        Raises:
            ConnectionFailedError: no region is named.
            AuthenticationError: there are none, or none for the address.
            BadRequestError: there's no bucket or no role for batches.
            llms.extras.MissingPackageError: there's no key, and not the extra `aws`.
        """
        self.check_place()
        if self.use_offline_batch_generation:
            self._bucket()
        if not self.key().get_secret_value() or self.use_offline_batch_generation:
            self._check_sign_in(self.url())
            frozen_credentials(self.profile, type(self).__name__)

    def key(self) -> SecretStr:
        """The API key. Empty where requests are signed."""
        return self.bound_key(self.url()) or SecretStr("")

    def key_headers(self) -> dict[str, str]:
        key = self.key().get_secret_value()
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def signature(
        self, method: str, address: str, data: bytes | AsyncIterator[bytes] | None
    ) -> Mapping[str, str]:
        if self.key().get_secret_value():
            if origin(address) != origin(self.url()) and self.url() not in self.own_addresses():
                # The key is a gateway's, and the jobs are AWS's.
                raise self.refused(address)
            return {}
        return await self._signed("bedrock", method, address, data if isinstance(data, bytes) else None)

    async def _signed(
        self, service: str, method: str, address: str, data: bytes | IO[bytes] | None = None
    ) -> dict[str, str]:
        """The headers that sign a request. Raises AuthenticationError, also where the address may have no signature."""
        self.check_place()
        self._check_sign_in(address)

        def sign() -> dict[str, str]:
            credentials = frozen_credentials(self.profile, type(self).__name__)
            return aws.signature(credentials, service, self.place(), method, address, data)

        return await asyncio.to_thread(sign)

    def _check_sign_in(self, address: str) -> None:
        """Raises AuthenticationError where a server may have no signature: it's as good as a key for some minutes."""
        if not may_have_keys(address, self.own_addresses()):
            raise self.refused(address)

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Annotated[
            float | None, Field(ge=0, le=1, description="0: the likeliest answer; higher: more varied ones.")
        ] = None,
        top_p: TopP = None,
        stop: Stop = None,
        reasoning_effort: ReasoningEffort = None,
        service_tier: Annotated[
            Literal["default", "priority", "flex", "reserved"] | None,
            Field(description="How a request is served and billed."),
        ] = None,
        latency: Annotated[
            Literal["standard", "optimized"] | None, Field(description="optimized: faster, where the model can be.")
        ] = None,
        additional_fields: Annotated[
            dict[str, Any] | None,
            Field(description="The model's own parameters: top_k, thinking (additionalModelRequestFields)."),
        ] = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat, with one request per generation. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        return CONVERSE, body_of(self.chat_in(given), keywords)

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        self.check_place()
        operation, body = self._body(given, times, keywords)
        path = f"/model/{quote(self.model, safe=':')}/{operation}"
        return self.output_from(await self._send(path, body), operation, body)

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        return parse_answer(as_completion(answer), CHAT, ENDS)

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        said, _ = refusal_words(content)
        kind = headers.get("x-amzn-ErrorType", "").partition(":")[0]
        status = STATUS_OF_KIND.get(kind) or STATUSES.get(status, status)
        return error_for_status(status, f"{said} ({kind})" if kind else said, retry_after=retry_after_in(headers))

    def requests_per_input(self, num_generations: int) -> int:
        return num_generations

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        prompt, schema = split_input(given)
        operation, body = self._body(prompt, 1, self.keywords(schema or self.structured_output))
        # A batch has a tier of its own.
        body.pop("serviceTier", None)
        return BatchRequest(custom_id, operation, body)

    def batch_line(self, request: BatchRequest) -> bytes:
        return written({"recordId": request.custom_id, "modelInput": request.body})

    async def create_job(self, file: JobFile, metadata: Mapping[str, str]) -> JobStatus:
        """Write the file into the bucket and create a job from it. Raises LLMError.

        The same intent again is the same job: its mark is the name and the token that the API knows a request by.
        """
        import aiohttp

        mark, (bucket, folder) = metadata.get(MARK) or file.intent, self._bucket()
        name = f"{MARK}-{mark}"
        place = self._object(f"s3://{bucket}/{folder}{name}.jsonl")
        with file.path.open("rb") as stream:
            headers = await self._signed("s3", "PUT", place, stream)
        headers |= {"Content-Type": "application/jsonl", "Content-Length": str(file.size)}
        timeout = aiohttp.ClientTimeout(total=max(self.timeout, SECONDS_PER_UPLOAD))
        async with self.sending("PUT", place, file.parts(), headers, timeout):
            pass
        body = {
            "jobName": name,
            "clientRequestToken": mark,
            "roleArn": self.role_arn,
            "modelId": self.model,
            "modelInvocationType": "Converse",
            "inputDataConfig": {
                "s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"s3://{bucket}/{folder}{name}.jsonl"}
            },
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{bucket}/{folder}"}},
        }
        made = await job_of_file(lambda: self.call("POST", self._jobs(), body))
        arn = text_in(made.get("jobArn"))
        if not arn:
            raise InvalidResponseError(f"the provider's answer is no job: {short(made)}")
        return JobStatus(id=arn, state="waiting", status="submitted", total=len(file.custom_ids), metadata={MARK: mark})

    def _jobs(self, job_id: str = "") -> str:
        """The address of the jobs, or of one."""
        return f"{self.jobs_url()}{JOBS}{'/' if job_id else ''}{quote(job_id, safe=':')}"

    def _bucket(self) -> tuple[str, str]:
        """The bucket for the files of batches, and the folder in it with a slash at its end. Raises BadRequestError."""
        bucket, _, folder = self.bucket.removeprefix("s3://").partition("/")
        if not bucket or not self.role_arn:
            raise BadRequestError(
                "a batch at Bedrock needs a bucket for its files and a role to read them by: give `bucket`,"
                f" s3://name/folder, and `role_arn`; got {self.bucket!r} and {self.role_arn!r}"
            )
        return bucket, f"{folder.strip('/')}/" if folder.strip("/") else ""

    def _object(self, uri: str) -> str:
        """The address of an object, `s3://bucket/name`."""
        return f"{self.storage_url()}/{quote(uri.removeprefix('s3://'))}"

    async def job_status(self, job_id: str) -> JobStatus:
        return status_from(await self.call("GET", self._jobs(job_id)))

    async def list_jobs(self) -> AsyncIterator[JobStatus]:
        async for status in self._listed(""):
            yield status

    async def find_job(self, mark: str, since: float, file: Mapping[str, Any]) -> JobStatus | None:
        """The job whose name holds `mark`."""
        async for status in self._listed(f"&nameContains={mark}"):
            if status.metadata.get(MARK) == mark:
                return status
        return None

    async def _listed(self, query: str) -> AsyncIterator[JobStatus]:
        after = ""
        while True:
            place = (
                f"{self.jobs_url()}{JOBS}s?maxResults={JOBS_PER_PAGE}{query}&sortBy=CreationTime&sortOrder=Descending"
            )
            page = await self.call("GET", f"{place}{after}")
            for job in list_in(page.get("invocationJobSummaries")):
                # One that can't be told what it is isn't ours.
                with suppress(InvalidResponseError):
                    yield status_from(object_in(job))
            token = quote(text_in(page.get("nextToken")), safe="")
            if not token or after.endswith(f"={token}"):
                return
            after = f"&nextToken={token}"

    async def job_results(self, job_id: str) -> AsyncGenerator[BatchResult]:
        """The lines of an ended job's file."""
        import aiohttp

        job = await self.call("GET", self._jobs(job_id))
        status, ended = status_from(job), seconds_of(job.get("endTime"))
        counted, lines = status.answered + status.refused, 0
        # However long it takes, as long as something comes.
        timeout = aiohttp.ClientTimeout(sock_connect=self.timeout, sock_read=self.timeout)
        place = self._object(files_of(job)[1])
        try:
            async with self.sending(
                "GET", place, headers=await self._signed("s3", "GET", place), timeout=timeout
            ) as response:
                async for line in lines_in(response.content.iter_chunked(CHUNK)):
                    lines += bool(line.strip())
                    result = read_result(line)
                    if result is not None:
                        yield result
        except REFUSALS as error:
            if not is_not_there(error):
                raise
            # One that was stopped may have written nothing.
            if counted or status.status == "completed":
                said = f"the results of batch {job_id!r} aren't found at {place}"
                raise IncompleteResultsError(said, ended=ended, gone=error) from None
        if lines < counted:
            said = f"batch {job_id!r} has {lines:,} of {quantity(counted, 'result')}"
            raise IncompleteResultsError(said, ended=ended)

    async def cancel_job(self, job_id: str) -> None:
        await self.call("POST", f"{self._jobs(job_id)}/stop")

    async def delete_job(self, job_id: str) -> None:
        """Delete the files of an ended job; the API keeps its entry."""
        try:
            job = await self.call("GET", self._jobs(job_id))
        except ModelNotFoundError:
            return
        for place in map(self._object, files_of(job)):
            with suppress(ModelNotFoundError):
                async with self.sending("DELETE", place, headers=await self._signed("s3", "DELETE", place)):
                    pass


def body_of(chat: Sequence[Mapping[str, Any]], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request. Raises BadRequestError for what it has no place for."""
    wanted = {name: value for name, value in keywords.items() if value is not None}
    system, messages = split_system(chat)
    config = {theirs: wanted[ours] for ours, theirs in CONFIG.items() if ours in wanted}
    if "stop" in wanted:
        config["stopSequences"] = [wanted["stop"]] if isinstance(wanted["stop"], str) else wanted["stop"]
    output: dict[str, Any] = {"effort": wanted["reasoning_effort"]} if "reasoning_effort" in wanted else {}
    if "structured_output" in wanted:
        output["textFormat"] = text_format(wanted["structured_output"])
    body: dict[str, Any] = {"messages": messages}
    body |= {"system": [{"text": text} for text in system]} if system else {}
    body |= {"inferenceConfig": config} if config else {}
    body |= {"outputConfig": output} if output else {}
    if "additional_fields" in wanted:
        body["additionalModelRequestFields"] = wanted["additional_fields"]
    if "service_tier" in wanted:
        body["serviceTier"] = {"type": wanted["service_tier"]}
    if "latency" in wanted:
        body["performanceConfig"] = {"latency": wanted["latency"]}
    return {**body, **wanted.get("extra_body", {})}


def text_format(schema: JSONSchema) -> dict[str, Any]:
    """What an answer has to fit: the schema is a text."""
    taken = orjson.dumps(constrainable_schema(schema) or schema).decode()
    return {"type": "json_schema", "structure": {"jsonSchema": {"schema": taken, "name": schema_name(schema)}}}


def split_system(chat: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts of the system messages, and the other messages, neighbours of one role as one."""
    refuse_names(chat, SERVICE)
    system = [text_of(message, SERVICE) for message in chat if message.get("role") in SYSTEM_ROLES]
    messages: list[dict[str, Any]] = []
    for message in chat:
        if message.get("role") in SYSTEM_ROLES:
            continue
        role = "assistant" if message.get("role") == "assistant" else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += _content(message)
        else:
            messages.append({"role": role, "content": _content(message)})
    return [text for text in system if text], messages


def _content(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = [_image(part) if isinstance(part, Image) else {"text": part} for part in parts_of(message, SERVICE)]
    if message.get("role") == "tool":
        return [{"toolResult": {"toolUseId": message.get("tool_call_id"), "content": parts or [{"text": " "}]}}]
    calls = [{"toolUseId": call.id, "name": call.name, "input": call.arguments} for call in calls_of(message)]
    return [*parts, *({"toolUse": call} for call in calls)]


def _image(image: Image) -> dict[str, Any]:
    kind = FORMATS.get(image.kind)
    if image.url.startswith("s3://"):
        ending = image.url.rpartition(".")[2].lower()
        form = {"jpg": "jpeg"}.get(ending, ending)
        return {"image": {"format": form, "source": {"s3Location": {"uri": image.url}}}}
    if kind is None:
        raise BadRequestError(
            "Bedrock takes images as data:image/png;base64,... (or jpeg, gif, webp) and s3://..., got"
            f" {short(image.url)}"
        )
    return {"image": {"format": kind, "source": {"bytes": image.data}}}


def as_completion(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a chat completion of one choice; of none, where it is no answer."""
    said = object_in(object_in(answer.get("output")).get("message"))
    blocks = [object_in(block) for block in list_in(said.get("content"))]
    texts = [block["text"] for block in blocks if isinstance(block.get("text"), str)]
    thoughts = [object_in(block.get("reasoningContent")) for block in blocks if block.get("reasoningContent")]
    calls = [object_in(block.get("toolUse")) for block in blocks if block.get("toolUse")]
    message = {
        "content": "".join(texts) if texts else None,
        "reasoning": "".join(text_of_thought for each in thoughts if (text_of_thought := _thought(each))),
        "reasoning_details": thoughts,
        "tool_calls": [as_call(call.get("name"), call.get("input"), call.get("toolUseId")) for call in calls],
    }
    raw = object_in(answer.get("usage"))
    cached, written = count_in(raw.get("cacheReadInputTokens")), count_in(raw.get("cacheWriteInputTokens"))
    usage = {
        # Its input tokens are those beside the cache's.
        "prompt_tokens": count_in(raw.get("inputTokens")) + cached + written,
        "completion_tokens": raw.get("outputTokens"),
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
    tier = object_in(answer.get("serviceTier")).get("type")
    return {
        "choices": [{"finish_reason": answer.get("stopReason"), "message": message}] if said else [],
        "usage": usage,
        **({"service_tier": tier} if tier else {}),
    }


def _thought(block: Mapping[str, Any]) -> str:
    """What was thought; empty where that is hidden."""
    said = object_in(block.get("reasoningText")).get("text")
    return said if isinstance(said, str) else ""


def status_from(job: Mapping[str, Any]) -> JobStatus:
    """How a job stands. Raises InvalidResponseError where it's none."""
    arn, word = text_in(job.get("jobArn")), text_in(job.get("status")).lower()
    if not arn or not word:
        raise InvalidResponseError(f"the provider's answer is no job: {short(job)}")
    # A state that isn't known yet is waited for: it costs nothing, and the job's answers are paid.
    state = JOB_STATES.get(word, "waiting")
    done, refused = count_in(job.get("successRecordCount")), count_in(job.get("errorRecordCount"))
    if state == "failed" and done:
        state = "ended"
    said, name = text_in(job.get("message")), text_in(job.get("jobName"))
    why = said or "the provider gave no reason"
    error: LLMError = OverloadedError(f"the batch failed: {why}")
    if word == "expired":
        error = ExpiredError(f"the batch ran out of time before it began: {why}")
    return JobStatus(
        id=arn,
        state=state,
        status=word,
        total=count_in(job.get("totalRecordCount")),
        answered=done,
        refused=refused,
        message=said,
        error=error if state == "failed" else None,
        metadata={MARK: name.removeprefix(f"{MARK}-")} if name.startswith(f"{MARK}-") else {},
        created=seconds_of(job.get("submitTime")),
        unknown=word not in JOB_STATES,
    )


def files_of(job: Mapping[str, Any]) -> tuple[str, str, str]:
    """The files of a job: its requests, its results, and what Bedrock counted; each as `s3://bucket/name`."""
    source = text_in(object_in(object_in(job.get("inputDataConfig")).get("s3InputDataConfig")).get("s3Uri"))
    target = text_in(object_in(object_in(job.get("outputDataConfig")).get("s3OutputDataConfig")).get("s3Uri"))
    folder = f"{target.rstrip('/')}/{text_in(job.get('jobArn')).rpartition('/')[2]}"
    return source, f"{folder}/{source.rpartition('/')[2]}.out", f"{folder}/manifest.json.out"


def read_result(line: bytes) -> BatchResult | None:
    """The outcome from one line of a job's results. None for one that names no request."""
    try:
        found = object_in(json_in(line))
    except ValueError:
        return None
    key, mark = split_custom_id(text_in(found.get("recordId")))
    return BatchResult(key, _outcome_in(found), mark) if key else None


def _outcome_in(line: Mapping[str, Any]) -> GenerateOutput | LLMError:
    problem, answer = object_in(line.get("error")), object_in(line.get("modelOutput"))
    if problem:
        code, said = count_in(problem.get("errorCode")), text_in(problem.get("errorMessage")) or short(problem)
        return error_for_status(STATUSES.get(code, code), said) if code >= 400 else OverloadedError(said)
    if not answer:
        return InvalidResponseError(f"the provider gave no answer to it: {short(line)}")
    return outcome_of(lambda: parse_answer(as_completion(answer), CHAT, ENDS))
