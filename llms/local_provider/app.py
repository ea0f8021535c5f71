"""The HTTP server: one handler for all paths, so that a request costs little more than its answer."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import orjson
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from pydantic import ValidationError

from llms.local_provider import dialects, faults, message_batches, messages, replies
from llms.local_provider.answers import png
from llms.local_provider.batches import Batch, BatchStore, short_path, usage_of
from llms.local_provider.chat import chat_chunks, parse_chat
from llms.local_provider.files import FileStore
from llms.local_provider.options import BatchOrder, FaultRule, ProviderOptions
from llms.local_provider.state import ProviderState, RecordedRequest
from llms.local_provider.wire import ApiError, JsonObject, is_integer, is_object

CONTROL = "/_local"
_LARGEST_BODY = 256 * 1024 * 1024
_LARGEST_RECORDED = 1024 * 1024
_CUT, _LEFT = 0, 499
_JSON_HEADERS = {"Content-Type": "application/json", "x-local-provider": "1"}


class _Disconnect(Exception):
    """The connection is to be cut without an answer."""


class App:
    """One provider: its state, and the handler for its requests. Lives in one event loop."""

    def __init__(self, options: ProviderOptions) -> None:
        self.state = ProviderState(options)
        self.files = FileStore()
        self.batches = BatchStore(self.state, self.files)

    def server(self) -> web.Server:
        """The protocol factory for `loop.create_server`."""
        return web.Server(self.handle, request_factory=_make_request, handler_cancellation=True, access_log=None)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith(CONTROL):
            return await self._control_response(request)
        path = short_path(path)
        record = self.state.record(request.method, path, request.path_qs, request.headers)
        status = 500
        try:
            response = await self._answer(request, path, record)
            status = response.status
        except asyncio.CancelledError:
            status = _LEFT
            raise
        except _Disconnect:
            status = _CUT
            if request.transport is not None:
                request.transport.abort()
            response = web.Response(status=500)
        finally:
            record.status, record.finished = status, time.time()
            self.state.answered[_stats_path(path), status] += 1
        return response

    async def _answer(self, request: web.BaseRequest, path: str, record: RecordedRequest) -> web.StreamResponse:
        try:
            _check_up(self.state.options)
            _check_key(request.headers, self.state.options)
            if _is_anthropic(path):
                _check_version(request.headers)
            if path in replies.MODEL_PATHS:
                return await self._model_answer(request, path, record)
            return await self._other_answer(request, path, record)
        except ApiError as error:
            headers = self.state.limits.headers() if path in replies.MODEL_PATHS else {}
            if error.retry_after is not None:
                headers |= faults.retry_headers(error.retry_after)
            body = messages.error_body(error.status, error.message) if _is_anthropic(path) else error.body()
            return _json(body, error.status, headers)

    async def _model_answer(self, request: web.BaseRequest, path: str, record: RecordedRequest) -> web.StreamResponse:
        _only(request, "POST", path)
        raw = record.raw_body = await request.read()
        fields = parse_body(raw)
        state = self.state
        self._admit(fields, raw)
        state.in_flight += 1
        state.max_in_flight = max(state.max_in_flight, state.in_flight)
        try:
            fault = await self._meet_fault(path, raw)
            if latency := state.latency():
                await asyncio.sleep(latency)
            return await self._reply(request, path, fields, fault)
        finally:
            state.in_flight -= 1

    def _admit(self, fields: JsonObject, raw: bytes) -> None:
        """Raises the 429 of the first limit that the request goes over."""
        state = self.state
        limit = state.options.max_concurrency
        refusal: ApiError | None = None
        if limit is not None and state.in_flight >= limit:
            refusal = faults.too_many_at_once(limit, state.options.concurrency_retry_after)
        elif state.limits.budgets:
            refusal = state.limits.admit(_estimated_tokens(fields, raw), time.monotonic())
        if refusal is not None:
            state.refused += 1
            raise refusal

    async def _meet_fault(self, path: str, raw: bytes) -> FaultRule | None:
        """Waits, fails or cuts the connection as the rules order; gives the rule, for what is left to spoil."""
        if not self.state.faults.rules:
            return None
        fault = self.state.faults.next(path, raw)
        if fault is None:
            return None
        if fault.hang is not None:
            await asyncio.sleep(fault.hang)
        if fault.disconnect:
            raise _Disconnect
        if faults.is_refusal(fault) and not fault.malformed:
            raise faults.refusal(fault)
        return fault

    async def _reply(
        self, request: web.BaseRequest, path: str, fields: JsonObject, fault: FaultRule | None
    ) -> web.StreamResponse:
        state = self.state
        context = replies.Context(
            state.options, f"local-{next(state.numbers)}", int(time.time()), f"http://{request.host}"
        )
        headers = {"x-request-id": f"req_{context.request_id}", **state.limits.headers()}
        if path == "/chat/completions" and fields.get("stream") is True:
            return await self._stream(request, fields, context, headers, fault)
        body = replies.reply_to(path, fields, context)
        prompt, completion = usage_of(body)
        state.prompt_tokens += prompt
        state.completion_tokens += completion
        if fault is None or fault.malformed is None:
            return _json(body, 200, headers)
        spoiled, kind = faults.spoiled(orjson.dumps(body), fault.malformed)
        headers = {**_JSON_HEADERS, **headers, "Content-Type": kind}
        return web.Response(body=spoiled, status=fault.status or 200, headers=headers)

    async def _stream(
        self,
        request: web.BaseRequest,
        fields: JsonObject,
        context: replies.Context,
        headers: dict[str, str],
        fault: FaultRule | None,
    ) -> web.StreamResponse:
        """Server-sent events; a malformed stream breaks off in the middle."""
        replies.check_model(fields, context.options)
        chat = parse_chat(fields)
        chunks = list(chat_chunks(chat, context.options, request_id=context.request_id, created=context.created))
        spoiled = fault is not None and fault.malformed is not None
        response = web.StreamResponse(headers={**_JSON_HEADERS, **headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks[: len(chunks) // 2] if spoiled else chunks:
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        if not spoiled:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _other_answer(self, request: web.BaseRequest, path: str, record: RecordedRequest) -> web.StreamResponse:
        is_upload = request.content_type.startswith("multipart/")
        raw = b"" if is_upload else await request.read()
        record.raw_body = raw if len(raw) <= _LARGEST_RECORDED else b""
        fault = await self._meet_fault(path, raw)
        response = await self._route(request, path, raw)
        if fault is None or fault.malformed is None or not isinstance(response, web.Response):
            return response
        body = response.body if isinstance(response.body, bytes) else b"{}"
        spoiled, kind = faults.spoiled(body, fault.malformed)
        return web.Response(body=spoiled, status=fault.status or 200, headers={**_JSON_HEADERS, "Content-Type": kind})

    async def _route(self, request: web.BaseRequest, path: str, raw: bytes) -> web.StreamResponse:
        parts = path.strip("/").split("/")
        if _is_anthropic(path):
            return await self._route_anthropic(request, parts[2:], raw)
        dialect = self.state.options.batch_dialect
        match request.method, parts:
            case "GET", ["models"]:
                return _json(replies.model_list(self.state.options))
            case "GET", ["models", *name]:
                return _json(replies.model_reply("/".join(name), self.state.options))
            case "POST", ["files"] if dialect != "together":
                return _json((await self.files.upload(request)).as_json())
            case "POST", ["files", "upload"] if dialect == "together":
                return _json((await self.files.upload(request, [dialects.PURPOSES[dialect]])).as_json())
            case "GET", ["files"]:
                return _json(self.files.listed(request.query))
            case "GET", ["files", file_id]:
                return _json(self.files.get(file_id).as_json())
            case "DELETE", ["files", file_id]:
                return _json(self.files.delete(file_id))
            case "GET", ["files", file_id, "content"]:
                headers = {"Content-Type": "application/octet-stream", "x-local-provider": "1"}
                return web.FileResponse(self.files.get(file_id).path, headers=headers)
            case "POST", ["batches"]:
                self.batches.origin = f"http://{request.host}"
                return _json(dialects.created(self.batches.create(parse_body(raw)).as_json(), dialect))
            case "GET", ["batches"]:
                return _json(self.batches.listed(request.query))
            case "GET", ["batches", batch_id]:
                return _json(dialects.batch(self.batches.get(batch_id).as_json(), dialect))
            case "POST", ["batches", batch_id, "cancel"]:
                return _json(dialects.batch(self.batches.cancel(batch_id).as_json(), dialect))
            case method, _:
                raise ApiError(404, f"Invalid URL ({method} {request.path})", code="unknown_url")

    async def _route_anthropic(self, request: web.BaseRequest, parts: list[str], raw: bytes) -> web.StreamResponse:
        """What is under /v1/messages/batches."""
        store, origin = self.batches, f"http://{request.host}"
        match request.method, parts:
            case "POST", []:
                return _json(message_batches.as_json(message_batches.create(store, parse_body(raw)), origin))
            case "GET", []:
                return _json(message_batches.listed(store, request.query, origin))
            case "GET", [batch_id]:
                return _json(message_batches.as_json(message_batches.get(store, batch_id), origin))
            case "DELETE", [batch_id]:
                return _json(message_batches.delete(store, batch_id))
            case "POST", [batch_id, "cancel"]:
                return _json(message_batches.as_json(message_batches.cancel(store, batch_id), origin))
            case "GET", [batch_id, "results"]:
                return await _lines(request, message_batches.results(store, batch_id))
            case method, _:
                raise ApiError(404, f"Not found: {method} {request.path}")

    async def _control_response(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.path.startswith(f"{CONTROL}/images/"):
                return _image(request.path.rpartition("/")[2])
            raw = await request.read()
            body = parse_body(raw) if raw else {}
            return _json(await self.control(request.method, request.path, request.query, body))
        except ApiError as error:
            return _json(error.body(), error.status)

    async def control(self, method: str, path: str, query: Mapping[str, str], body: JsonObject) -> object:
        """Observes or changes the provider; what HTTP gets under `/_local`. Raises `ApiError`."""
        match method, path.removeprefix(CONTROL).strip("/").split("/"):
            case "GET", ["requests"]:
                found = [record.as_json() for record in self.state.recorded]
                if query.get("clear") == "1":
                    self.state.clear()
                return {"requests": found}
            case "GET", ["stats"]:
                return self.state.stats()
            case "POST", ["options"]:
                _validated(lambda: self.state.change(body))
                return self.state.options.model_dump(mode="json")
            case "GET", ["options"]:
                return self.state.options.model_dump(mode="json")
            case "POST", ["reset"]:
                self.reset()
                return {}
            case "GET", ["batches"]:
                return {"batches": [_batch_json(batch) for batch in self.batches.batches.values()]}
            case "POST", ["batches", batch_id]:
                order = _validated(lambda: BatchOrder.model_validate(body))
                if message_batches.is_message_batch(self.batches.get(batch_id)):
                    order = message_batches.order_for(order)
                return _batch_json(await self.batches.end(batch_id, order))
            case _:
                known = "requests, stats, options, reset, batches, batches/{id}"
                raise ApiError(404, f"no control {method} {path!r}; there are {CONTROL}/ {known}")

    def reset(self) -> None:
        """As if just started: first options, nothing recorded, no files, no batches."""
        self.batches.clear()
        self.files.clear()
        self.state.reset()

    def close(self) -> None:
        """Forgets everything and leaves no file behind."""
        self.reset()
        self.files.close()


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_LARGEST_BODY)


T = TypeVar("T")


def _validated(act: Callable[[], T]) -> T:
    try:
        return act()
    except ValidationError as error:
        raise ApiError(400, str(error), code="invalid_option") from error


def parse_body(raw: bytes) -> JsonObject:
    """Raises `ApiError` 400."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        fields = None
    if not is_object(fields):
        raise ApiError(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    return fields


def _check_up(options: ProviderOptions) -> None:
    if not options.up:
        raise ApiError(503, "The engine is currently overloaded, please try again later.")


def _check_key(headers: Mapping[str, str], options: ProviderOptions) -> None:
    if options.api_key is None:
        return
    given = headers.get("Authorization", "").removeprefix("Bearer ").strip()
    given = given or headers.get("api-key", "") or headers.get("x-api-key", "")
    if not given:
        raise ApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    if given != options.api_key:
        shown = f"{given[:4]}{'*' * max(4, len(given) - 8)}{given[-4:]}" if len(given) > 8 else "*" * len(given)
        raise ApiError(
            401,
            f"Incorrect API key provided: {shown}. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
        )


def _is_anthropic(path: str) -> bool:
    return path == messages.PATH or path.startswith(f"{messages.PATH}/batches")


def _check_version(headers: Mapping[str, str]) -> None:
    if not headers.get("anthropic-version"):
        raise ApiError(400, "anthropic-version: header is required")


def _batch_json(batch: Batch) -> JsonObject:
    return message_batches.as_json(batch) if message_batches.is_message_batch(batch) else batch.as_json()


def _only(request: web.BaseRequest, method: str, path: str) -> None:
    if request.method != method:
        raise ApiError(405, f"Not allowed to {request.method} on /v1{path}.", code="method_not_supported")


def _estimated_tokens(fields: JsonObject, raw: bytes) -> int:
    limits = (fields.get("max_completion_tokens"), fields.get("max_tokens"), 0)
    return max(len(raw) // 4, next(limit for limit in limits if is_integer(limit)))


def _stats_path(path: str) -> str:
    """The path with `{id}` in the place of an id."""
    parts = path.split("/")
    place = 3 if _is_anthropic(path) else 2
    if len(parts) > place and parts[place - 1] in ("files", "batches", "models"):
        parts[place] = "{id}"
    return "/".join(parts)


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers={**_JSON_HEADERS, **(headers or {})})


async def _lines(request: web.BaseRequest, lines: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl", "x-local-provider": "1"})
    await response.prepare(request)
    for line in lines:
        await response.write(line)
    await response.write_eof()
    return response


def _image(name: str) -> web.Response:
    try:
        digest = bytes.fromhex(name.removesuffix(".png"))
    except ValueError:
        raise ApiError(404, f"no picture {name!r}") from None
    return web.Response(body=png(digest), headers={"Content-Type": "image/png", "x-local-provider": "1"})
