"""Anthropic's Message Batches, made of OpenAI's: a body becomes an input file, two files of results one stream."""

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from llms.local_provider.batches import ENDED, Batch, BatchStore, InputCheck
from llms.local_provider.files import page
from llms.local_provider.messages import PATH, error_body
from llms.local_provider.options import BatchOrder
from llms.local_provider.wire import ApiError, JsonObject, is_list, is_object

ENDPOINT = f"/v1{PATH}"
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST = 100_000
_LEFT_OVER = {"batch_expired": "expired", "batch_cancelled": "canceled"}


def is_message_batch(batch: Batch) -> bool:
    return batch.endpoint == ENDPOINT


def create(store: BatchStore, body: JsonObject) -> Batch:
    """Raises `ApiError` 400. What is wrong with a request's `params` is told in its result."""
    requests = body.get("requests")
    if not is_list(requests) or not requests:
        raise ApiError(400, "requests: at least one request is required")
    if len(requests) > _MOST:
        raise ApiError(400, f"requests: List should have at most {_MOST} items, not {len(requests)}")
    path = store.files.new_path()
    try:
        offsets = _write_input(path, requests)
    except ApiError:
        path.unlink()
        raise
    return store.begin("msgbatch", ENDPOINT, path, check=InputCheck(offsets, None, []))


def _write_input(path: Path, requests: list[object]) -> "array[int]":
    """The lines of an input file, and where each starts."""
    offsets, seen = array("Q"), set[str]()
    with path.open("wb") as file:
        for number, request in enumerate(requests):
            custom_id, params = _checked(request, number, seen)
            line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": params}
            offsets.append(file.tell())
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    return offsets


def _checked(request: object, number: int, seen: set[str]) -> tuple[str, JsonObject]:
    if not is_object(request) or set(request) != {"custom_id", "params"}:
        raise ApiError(400, f"requests.{number}: expected the fields custom_id and params, got {request!r:.100}")
    custom_id, params = request["custom_id"], request["params"]
    if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
        raise ApiError(
            400,
            f"requests.{number}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$', got {custom_id!r}",
        )
    if custom_id in seen:
        raise ApiError(400, f"requests.{number}.custom_id: {custom_id!r} is that of another request, too")
    seen.add(custom_id)
    if not is_object(params):
        raise ApiError(400, f"requests.{number}.params: Input should be an object")
    return custom_id, params


def get(store: BatchStore, batch_id: str) -> Batch:
    """Raises `ApiError` 404."""
    batch = store.get(batch_id)
    if not is_message_batch(batch):
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return batch


def cancel(store: BatchStore, batch_id: str) -> Batch:
    """Raises `ApiError` 400 or 404."""
    get(store, batch_id)
    return store.cancel(batch_id)


def delete(store: BatchStore, batch_id: str) -> JsonObject:
    """Raises `ApiError` 400 or 404."""
    batch = get(store, batch_id)
    if batch.status not in ENDED:
        raise ApiError(400, f"The batch {batch_id} is still processing and can't be deleted; cancel it first.")
    for file_id in _result_files(batch):
        store.files.delete(file_id)
    del store.batches[batch_id]
    return {"id": batch_id, "type": "message_batch_deleted"}


def order_for(order: BatchOrder) -> BatchOrder:
    """An order to fail makes all requests fail: a batch as a whole has no such end."""
    return order.model_copy(update={"action": "complete", "bad_every": 1}) if order.action == "fail" else order


@dataclass(frozen=True, slots=True)
class _Shown:
    batch: Batch
    origin: str

    @property
    def id(self) -> str:
        return self.batch.id

    def as_json(self) -> JsonObject:
        return as_json(self.batch, self.origin)


def listed(store: BatchStore, query: Mapping[str, str], origin: str) -> JsonObject:
    """The newest first, by `limit`, `after_id` and `before_id`. Raises `ApiError` 400."""
    found = [_Shown(batch, origin) for batch in reversed(store.batches.values()) if is_message_batch(batch)]
    if "before_id" in query:
        found = found[: next((place for place, shown in enumerate(found) if shown.id == query["before_id"]), 0)]
    asked = {name: query[key] for name, key in (("limit", "limit"), ("after", "after_id")) if key in query}
    return {name: value for name, value in page(found, asked, default=20, most=1000).items() if name != "object"}


def as_json(batch: Batch, origin: str = "") -> JsonObject:
    """As `GET /v1/messages/batches/{id}` shows it."""
    ended = batch.status in ENDED
    status = "ended" if ended else "canceling" if batch.status == "cancelling" else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": _counts(batch, ended=ended),
        "created_at": _time(batch.created),
        "expires_at": _time(batch.created + 24 * 3600),
        "ended_at": _time(max(batch.times.values())) if ended else None,
        "cancel_initiated_at": _time(batch.times["cancelling_at"]) if "cancelling_at" in batch.times else None,
        "archived_at": _time(max(batch.times.values())) if batch.archived else None,
        "results_url": f"{origin}{ENDPOINT}/batches/{batch.id}/results" if ended and not batch.archived else None,
    }


def _counts(batch: Batch, *, ended: bool) -> JsonObject:
    """All requests are processing until the whole batch has ended."""
    total = len(batch.check.offsets) if batch.check else 0
    counts: JsonObject = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    if not ended or batch.results is None:
        return {**counts, "processing": total}
    results = batch.results
    left_over = "canceled" if batch.status == "cancelled" else "expired"
    return {
        **counts,
        "succeeded": results.completed,
        "errored": results.failed - results.left_over,
        left_over: results.left_over,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _result_files(batch: Batch) -> list[str]:
    return [each for each in (batch.output_file_id, batch.error_file_id) if each is not None]


def results(store: BatchStore, batch_id: str) -> Iterator[bytes]:
    """The lines of the results. Raises `ApiError` 404."""
    batch = get(store, batch_id)
    if batch.status not in ENDED or batch.archived:
        raise ApiError(404, f"The batch {batch_id} has no available results.")
    return _result_lines([store.files.get(file_id).path for file_id in _result_files(batch)])


def _result_lines(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                yield orjson.dumps(_result(orjson.loads(line)), option=orjson.OPT_APPEND_NEWLINE)


def _result(line: JsonObject) -> JsonObject:
    """A line of a batch's output or error file, as Anthropic writes it."""
    response, error = line["response"], line["error"]
    if is_object(error):
        result: JsonObject = {"type": _LEFT_OVER[str(error["code"])]}
    elif is_object(response) and response["status_code"] == 200:
        result = {"type": "succeeded", "message": response["body"]}
    else:
        result = {"type": "errored", "error": _error(response)}
    return {"custom_id": line["custom_id"], "result": result}


def _error(response: object) -> JsonObject:
    match response:
        case {"status_code": int(status), "body": {"error": {"message": str(message)}}}:
            return error_body(status, message)
        case _:
            return error_body(500, "Internal server error")
