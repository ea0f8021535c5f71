"""Batches: the check of an input file and the writing of results are plain functions over files, run in a thread;
`BatchStore` moves the batches through OpenAI's statuses."""

import asyncio
import random
import re
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import uuid4

import orjson

from llms.local_provider import dialects, messages
from llms.local_provider.files import FileStore, StoredFile, page
from llms.local_provider.options import BatchDialectName, BatchOrder, ProviderOptions
from llms.local_provider.replies import MODEL_PATHS, Context, reply_to
from llms.local_provider.state import ProviderState
from llms.local_provider.wire import ApiError, JsonObject, invalid, is_integer, is_object, text_field, wrong_type

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
ENDED: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})
_ENDS: dict[str, Status] = {"complete": "completed", "fail": "failed", "expire": "expired", "cancel": "cancelled"}
_LEFT_OVER = {
    "expire": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancel": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
_AZURE = re.compile(r"^/openai/(deployments/[^/]+/)?")
_WINDOW = 24 * 3600
_CANCELLING_SECONDS = 0.02
_MOST_ERRORS = 100


@dataclass(frozen=True, slots=True)
class InputCheck:
    """What an input file holds, or why it is refused."""

    offsets: "array[int]"
    """Where each request's line starts."""
    model: str | None
    errors: list[JsonObject]


@dataclass(frozen=True, slots=True)
class Results:
    output: Path
    errors: Path
    completed: int = 0
    failed: int = 0
    left_over: int = 0
    """Those of the failed that expired or were cancelled."""
    input_tokens: int = 0
    output_tokens: int = 0


def line_error(code: str, message: str, line: int | None = None, param: str | None = None) -> JsonObject:
    return {"code": code, "message": message, "line": line, "param": param}


def check_input(path: Path, endpoint: str, options: ProviderOptions) -> InputCheck:
    """Reads the file once, line by line; at most 100 errors are told."""
    offsets, errors, seen = array("Q"), list[JsonObject](), set[str]()
    size = path.stat().st_size
    if size > options.batch_max_bytes:
        message = f"The batch input file has {size} bytes; at most {options.batch_max_bytes} are allowed. Split it."
        return InputCheck(offsets, None, [line_error("file_too_large", message)])
    model: str | None = None
    with path.open("rb") as file:
        start = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                offsets.append(start)
                model, error = _check_line(line, number, endpoint, seen, model, options.batch_dialect)
                errors += [error] if error and len(errors) < _MOST_ERRORS else []
            start += len(line)
    if not offsets:
        errors.append(
            line_error("empty_file", "The input file is empty. Please ensure that it has at least one request.")
        )
    if len(offsets) > options.batch_max_requests:
        message = (
            f"The batch input file has {len(offsets)} requests; at most {options.batch_max_requests} are allowed. "
            "Split it."
        )
        errors.insert(0, line_error("too_many_tasks", message))
    if model is not None and options.models is not None and model not in options.models:
        errors.append(line_error("model_not_found", f"The provided model '{model}' is not supported by the Batch API."))
    return InputCheck(offsets, model, errors)


def _check_line(
    line: bytes, number: int, endpoint: str, seen: set[str], model: str | None, dialect: BatchDialectName
) -> tuple[str | None, JsonObject | None]:
    """The model of the file so far, and what is wrong with the line."""
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        return model, line_error("invalid_json_line", "This line is not parseable as valid JSON.", number)
    if not is_object(request):
        return model, line_error("invalid_json_line", "This line is not a JSON object.", number)
    request = dialects.input_line(request, endpoint, dialect)
    custom_id, body = request.get("custom_id"), request.get("body")
    for name in ("custom_id", "method", "url", "body"):
        if not request.get(name):
            return model, line_error(
                "missing_required_parameter", f"Missing required parameter: '{name}'.", number, name
            )
    if not isinstance(custom_id, str):
        return model, line_error("invalid_type", "The custom_id must be a string.", number, "custom_id")
    if custom_id in seen:
        message = (
            f"The custom_id '{custom_id}' for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch."
        )
        return model, line_error("duplicate_custom_id", message, number, "custom_id")
    seen.add(custom_id)
    if request["method"] != "POST":
        return model, line_error("invalid_method", "The method of every request must be POST.", number, "method")
    if request["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        return model, line_error("invalid_url", message, number, "url")
    if not is_object(body):
        return model, line_error("invalid_type", "The body must be an object.", number, "body")
    named = body.get("model")
    if not isinstance(named, str):
        return model, line_error(
            "missing_required_parameter", "Missing required parameter: 'model'.", number, "body.model"
        )
    if model is not None and named != model:
        message = (
            f"The provided model '{named}' for this request does not match the rest of the batch. "
            "Each batch must contain requests for a single model."
        )
        return model, line_error("mismatched_model", message, number, "body.model")
    return named, None


def write_results(
    source: Path, results: Results, offsets: "array[int]", order: BatchOrder, context: Context
) -> Results:
    """Answers the requests one at a time into the output file and the error file."""
    places = list(range(len(offsets)))
    if order.shuffle:
        random.Random(context.options.seed).shuffle(places)
    fraction = 1.0 if order.done_fraction is None else order.done_fraction
    done = round(len(places) * fraction)
    bad, dialect = set(order.bad), context.options.batch_dialect
    with source.open("rb") as file, results.output.open("wb") as output, results.errors.open("wb") as errors:
        for rank, place in enumerate(places):
            file.seek(offsets[place])
            request = dialects.input_line(orjson.loads(file.readline()), "/v1/chat/completions", dialect)
            is_bad = bool(bad) and (place in bad or request["custom_id"] in bad)
            is_bad = is_bad or (order.bad_every is not None and (place + 1) % order.bad_every == 0)
            line = _result_line(request, order, context, left_over=rank >= done, bad=is_bad)
            results = _counted(results, line)
            _write_line(output if _is_good(line) else errors, dialects.result_line(line, dialect))
    return results


def _result_line(request: JsonObject, order: BatchOrder, context: Context, *, left_over: bool, bad: bool) -> JsonObject:
    request_id = uuid4().hex
    line: JsonObject = {
        "id": f"batch_req_{request_id}",
        "custom_id": request["custom_id"],
        "response": None,
        "error": None,
    }
    if left_over:
        code, message = _LEFT_OVER.get(order.action, _LEFT_OVER["expire"])
        return {**line, "error": {"code": code, "message": message}}
    try:
        if bad:
            raise ApiError(order.status, order.message, code=order.code)
        fields, url = request["body"], request["url"]
        body = reply_to(
            short_path(str(url)), fields if is_object(fields) else {}, replace(context, request_id=request_id)
        )
        status = 200
    except ApiError as error:
        body, status = error.body(), error.status
    return {**line, "response": {"status_code": status, "request_id": request_id, "body": body}}


def _is_good(line: JsonObject) -> bool:
    response = line["response"]
    return is_object(response) and response["status_code"] == 200


def _counted(results: Results, line: JsonObject) -> Results:
    response = line["response"]
    if not is_object(response) or response["status_code"] != 200:
        left_over = results.left_over + (line["error"] is not None)
        return replace(results, failed=results.failed + 1, left_over=left_over)
    tokens = usage_of(response["body"])
    return replace(
        results,
        completed=results.completed + 1,
        input_tokens=results.input_tokens + tokens[0],
        output_tokens=results.output_tokens + tokens[1],
    )


def usage_of(body: object) -> tuple[int, int]:
    """Prompt and completion tokens of an answer."""
    usage = body.get("usage") if is_object(body) else None
    if not is_object(usage):
        return 0, 0
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    return prompt if is_integer(prompt) else 0, completion if is_integer(completion) else 0


def _write_line(file: BinaryIO, line: JsonObject) -> None:
    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def short_path(path: str) -> str:
    """The path without `/v1`, and without what Azure puts before it (`/openai`, `/openai/deployments/NAME`)."""
    if path.startswith("/openai/"):
        path = _AZURE.sub("/", path)
    return path[3:] if path.startswith("/v1/") else path


@dataclass(eq=False)
class Batch:
    """One batch. The times are seconds since 1970, under OpenAI's names (`in_progress_at`, ...)."""

    id: str
    endpoint: str
    input_file_id: str
    metadata: JsonObject | None
    created: float
    source: Path
    size: int
    """Bytes of the input."""
    order: "asyncio.Future[BatchOrder]"
    """Resolved once it is decided how the batch ends."""
    seconds: float | None
    """Age at which it ends by itself; None: when told."""
    status: Status = "validating"
    times: dict[str, int] = field(default_factory=dict[str, int])
    errors: list[JsonObject] = field(default_factory=list[JsonObject])
    check: InputCheck | None = None
    results: Results | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    archived: bool = False
    """Whether its results are gone. Anthropic's batches only."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def move(self, status: Status) -> None:
        self.status = status
        self.times[f"{status}_at"] = int(time.time())

    def share_done(self) -> float:
        """The part of its time that has passed, 0 to 1."""
        if self.seconds is None:
            return 0.0
        return min(1.0, (time.time() - self.created) / self.seconds) if self.seconds else 1.0

    def counts(self) -> JsonObject:
        total = len(self.check.offsets) if self.check and not self.check.errors else 0
        if self.results is not None:
            return {"total": total, "completed": self.results.completed, "failed": self.results.failed}
        done = int(total * self.share_done()) if self.status in ("in_progress", "finalizing", "cancelling") else 0
        return {"total": total, "completed": done, "failed": 0}

    def usage(self) -> JsonObject:
        spent = (self.results.input_tokens, self.results.output_tokens) if self.results else (0, 0)
        return {
            "input_tokens": spent[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": spent[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(spent),
        }

    def as_json(self) -> JsonObject:
        names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.check.model if self.check else None,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created),
            "expires_at": int(self.created) + _WINDOW,
            **{f"{name}_at": self.times.get(f"{name}_at") for name in names},
            "request_counts": self.counts(),
            "usage": self.usage(),
            "metadata": self.metadata,
        }


@dataclass
class BatchStore:
    state: ProviderState
    files: FileStore
    batches: dict[str, Batch] = field(default_factory=dict[str, Batch])
    lives: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    origin: str = ""
    """`http://host:port` of the provider, for the addresses of pictures."""

    def create(self, body: JsonObject) -> Batch:
        """Raises `ApiError` 400."""
        stored, endpoint, metadata = self._input_file(body), _endpoint(body), check_metadata(body.get("metadata"))
        return self.begin("batch", endpoint, self.files.keep(stored), input_file_id=stored.id, metadata=metadata)

    def begin(
        self,
        prefix: str,
        endpoint: str,
        source: Path,
        *,
        input_file_id: str = "",
        metadata: JsonObject | None = None,
        check: InputCheck | None = None,
    ) -> Batch:
        """A batch of the lines of `source`, which is removed at its end; with `check` they need no validation."""
        options = self.state.options
        batch = Batch(
            id=f"{prefix}_{uuid4().hex}",
            endpoint=endpoint,
            input_file_id=input_file_id,
            metadata=metadata,
            created=time.time(),
            source=source,
            size=source.stat().st_size,
            order=asyncio.get_running_loop().create_future(),
            seconds=None if options.batch_manual else options.batch_seconds,
            check=check,
        )
        self.batches[batch.id] = batch
        life = asyncio.create_task(self._live(batch))
        self.lives.add(life)
        life.add_done_callback(self.lives.discard)
        return batch

    def _input_file(self, body: JsonObject) -> StoredFile:
        if body.get("completion_window") != "24h":
            got = body.get("completion_window")
            raise invalid("completion_window", f"Invalid value: {got!r}. Supported values are: '24h'.", "invalid_value")
        file_id = text_field(body, "input_file_id")
        stored = self.files.files.get(file_id)
        purpose = dialects.PURPOSES[self.state.options.batch_dialect]
        if stored is None or stored.purpose != purpose:
            raise invalid("input_file_id", f"Invalid 'input_file_id': no file {file_id!r} with purpose {purpose!r}.")
        return stored

    def get(self, batch_id: str) -> Batch:
        """Raises `ApiError` 404."""
        if batch_id not in self.batches:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return self.batches[batch_id]

    def listed(self, query: Mapping[str, str]) -> object:
        ours = [batch for batch in reversed(self.batches.values()) if short_path(batch.endpoint) != messages.PATH]
        shown = page(ours, query, default=20, most=100)
        return dialects.batches(shown, [batch.as_json() for batch in ours], self.state.options.batch_dialect)

    def cancel(self, batch_id: str) -> Batch:
        """A batch that is cancelled keeps the results it would have had by now. Raises `ApiError` 400 or 404."""
        batch = self.get(batch_id)
        if batch.status in ("cancelling", "cancelled"):
            return batch
        if batch.order.done() or batch.status in ENDED:
            raise invalid("batch_id", f"Cannot cancel a batch with status '{batch.status}'.")
        batch.move("cancelling")
        batch.order.set_result(self.state.options.batch_order.model_copy(update={"action": "cancel"}))
        return batch

    async def end(self, batch_id: str, order: BatchOrder) -> Batch:
        """Ends a batch as ordered and waits for its end. Raises `ApiError` 404 or, if it ends already, 409."""
        batch = self.get(batch_id)
        if batch.order.done() or batch.status in ENDED:
            raise ApiError(409, f"batch {batch_id} is {batch.status!r} and can't be ended again; create another")
        batch.order.set_result(order)
        await batch.ended.wait()
        batch.archived = order.archived
        return batch

    def clear(self) -> None:
        for life in self.lives:
            life.cancel()
        for batch in self.batches.values():
            batch.source.unlink(missing_ok=True)
        self.batches.clear()

    async def _live(self, batch: Batch) -> None:
        try:
            await self._validate(batch)
            if batch.status != "failed":
                await self._finish(batch, await self._decided(batch))
        finally:
            batch.source.unlink(missing_ok=True)
            batch.ended.set()

    async def _validate(self, batch: Batch) -> None:
        if batch.check is not None:
            if batch.status == "validating":
                batch.move("in_progress")
            return
        check = await asyncio.to_thread(check_input, batch.source, batch.endpoint, self.state.options)
        batch.check, batch.errors = check, check.errors or self._over_quota(batch)
        if batch.errors:
            batch.check = replace(check, errors=batch.errors, offsets=array("Q"))
            batch.move("failed")
        elif batch.status == "validating":
            batch.move("in_progress")

    def _over_quota(self, batch: Batch) -> list[JsonObject]:
        quota = self.state.options.batch_token_quota
        enqueued = sum(other.size for other in self.batches.values() if other.status not in ENDED) // 4
        if quota is None or enqueued <= quota:
            return []
        model = batch.check.model if batch.check else None
        message = (
            f"Enqueued token limit reached for {model} in organization org-local. Limit: {quota:,} enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )
        return [line_error("token_limit_exceeded", message)]

    async def _decided(self, batch: Batch) -> BatchOrder:
        """How the batch ends, once it is time."""
        if batch.seconds is not None:
            left = batch.created + batch.seconds - time.time()
            await asyncio.wait([batch.order], timeout=max(0.0, left))
            if not batch.order.done():
                batch.order.set_result(self.state.options.batch_order)
        return await batch.order

    async def _finish(self, batch: Batch, order: BatchOrder) -> None:
        if order.action == "fail":
            batch.errors = [line_error(order.code or "batch_failed", order.message)]
            batch.move("failed")
            return
        if order.done_fraction is None and order.action != "complete":
            order = order.model_copy(update={"done_fraction": batch.share_done()})
        if order.action == "cancel":
            if batch.status != "cancelling":
                batch.move("cancelling")
            await asyncio.sleep(_CANCELLING_SECONDS)
        else:
            batch.move("finalizing")
        await self._write(batch, order)
        batch.move(_ENDS[order.action])

    async def _write(self, batch: Batch, order: BatchOrder) -> None:
        offsets = batch.check.offsets if batch.check else array("Q")
        context = Context(self.state.options, batch.id, int(time.time()), self.origin)
        empty = Results(self.files.new_path(), self.files.new_path())
        batch.results = await asyncio.to_thread(write_results, batch.source, empty, offsets, order, context)
        batch.output_file_id = self._keep_result(batch, batch.results.output, "output")
        batch.error_file_id = self._keep_result(batch, batch.results.errors, "error")

    def _keep_result(self, batch: Batch, path: Path, kind: str) -> str | None:
        if path.stat().st_size == 0:
            path.unlink()
            return None
        return self.files.add(path, f"{batch.id}_{kind}.jsonl", "batch_output").id


def _endpoint(body: JsonObject) -> str:
    endpoint = text_field(body, "endpoint")
    known = [f"/v1{path}" for path in MODEL_PATHS if path != messages.PATH]
    if f"/v1{short_path(endpoint)}" not in known:
        raise invalid("endpoint", f"Invalid value: {endpoint!r}. Supported values are: {known}.", "invalid_value")
    return endpoint


def check_metadata(metadata: object) -> JsonObject | None:
    """Raises `ApiError` 400 unless there are at most 16 pairs, keys up to 64 and values up to 512 characters."""
    if metadata is None:
        return None
    if not is_object(metadata):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > 16:
        raise invalid(
            "metadata", f"Invalid 'metadata': too many properties. Expected at most 16, but got {len(metadata)}."
        )
    for name, value in metadata.items():
        if len(name) > 64:
            raise invalid("metadata", f"Invalid 'metadata': the key {name!r} is longer than 64 characters.")
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{name}", "a string", value)
        if len(value) > 512:
            raise invalid("metadata", f"Invalid 'metadata.{name}': the value is longer than 512 characters.")
    return metadata
