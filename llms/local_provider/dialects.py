"""What batch APIs made after OpenAI's show in another way, as far as adapters have to know. Pure."""

from datetime import UTC, datetime

from llms.local_provider.options import BatchDialectName
from llms.local_provider.wire import JsonObject, invalid, is_integer, is_object

PURPOSES: dict[BatchDialectName, str] = {"openai": "batch", "groq": "batch", "together": "batch-api"}


def check_generations(body: JsonObject, dialect: BatchDialectName) -> None:
    """Groq gives one answer per request. Raises `ApiError` 400."""
    if dialect == "groq" and body.get("n", 1) != 1:
        raise invalid("n", "'n' : number must be at most 1")


def input_line(line: JsonObject, endpoint: str, dialect: BatchDialectName) -> JsonObject:
    """A line of an input file, with what Together's leaves to the batch."""
    return {"method": "POST", "url": endpoint, **line} if dialect == "together" else line


def result_line(line: JsonObject, dialect: BatchDialectName) -> JsonObject:
    """A line of an output or error file. Together's errors have no response."""
    if dialect != "together":
        return line
    response, error = line["response"], line["error"]
    if not is_object(response):
        return {"custom_id": line["custom_id"], "error": error}
    if response["status_code"] == 200:
        return {"custom_id": line["custom_id"], "response": response}
    body = response["body"]
    told = body["error"] if is_object(body) else None
    message = told["message"] if is_object(told) else ""
    return {"custom_id": line["custom_id"], "error": {"message": message, "code": str(response["status_code"])}}


def batch(job: JsonObject, dialect: BatchDialectName) -> JsonObject:
    """A batch as it is shown. Together's has no metadata and no counts, times as texts and statuses in capitals."""
    if dialect != "together":
        return job
    errors = job["errors"]
    status = str(job["status"])
    return {
        "id": job["id"],
        "input_file_id": job["input_file_id"],
        "output_file_id": job["output_file_id"] or "",
        "error_file_id": job["error_file_id"] or "",
        "endpoint": job["endpoint"],
        "status": {"finalizing": "IN_PROGRESS", "cancelling": "IN_PROGRESS"}.get(status, status.upper()),
        "progress": _progress(job),
        "error": str(errors["data"]) if is_object(errors) else None,
        "created_at": _iso(job["created_at"]),
        "job_deadline": _iso(job["expires_at"]),
    }


def created(job: JsonObject, dialect: BatchDialectName) -> JsonObject:
    return {"job": batch(job, dialect), "warning": ""} if dialect == "together" else job


def batches(page: JsonObject, jobs: list[JsonObject], dialect: BatchDialectName) -> object:
    """The list of batches: in pages at OpenAI, all at once at Groq, and without an object around it at Together."""
    shown = [batch(job, dialect) for job in jobs]
    return {"openai": page, "groq": {"object": "list", "data": shown}, "together": shown}[dialect]


def _progress(job: JsonObject) -> float:
    counts = job["request_counts"]
    total, done, failed = (_count(counts, name) for name in ("total", "completed", "failed"))
    return 100 * (done + failed) / total if total else 0.0


def _count(counts: object, name: str) -> int:
    number = counts.get(name) if is_object(counts) else None
    return number if is_integer(number) else 0


def _iso(seconds: object) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if is_integer(seconds) else None
