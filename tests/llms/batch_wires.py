"""Stand-ins for batch APIs on loopback, each as the provider's SDK has it: paths, words of states, files and lines."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from tests.llms.wires import (
    BEDROCK,
    DASHSCOPE,
    FIREWORKS,
    GEMINI,
    GROQ,
    KEY,
    MISTRAL,
    MOONSHOT,
    NEBIUS,
    OPENROUTER,
    RESPONSES,
    TOGETHER,
    VERTEX,
    XAI,
    ZAI,
    StandIn,
    Wire,
)

Reply = tuple[int, bytes, Mapping[str, str]]


@dataclass
class Job:
    id: str
    created: int
    given: dict[str, Any]
    status: str
    output: str = ""
    errors: str = ""
    failed: str = ""
    """Why it failed as a whole."""
    counts: tuple[int, int, int] = (0, 0, 0)
    """Total, answered, refused."""


@dataclass
class File:
    name: str
    content: bytes
    fields: dict[str, str] = field(default_factory=dict[str, str])


class BatchStandIn(StandIn):
    """OpenAI's file-based batches, as Groq has them."""

    wire_of_chats: Wire = GROQ
    prefix = "/openai/v1"
    jobs = "/batches"
    first = "validating"
    fields: ClassVar[dict[str, Any]] = {}
    """What an adapter is given beside the address and the key."""

    def __init__(self) -> None:
        super().__init__(self.wire_of_chats)
        self.files: dict[str, File] = {}
        self.batches: list[Job] = []
        """The oldest first."""
        self.cancelled: list[str] = []

    @property
    def url(self) -> str:
        return f"{self.root}{self.prefix}"

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if headers.get("Authorization") != f"Bearer {KEY}":
            return self._refused(401, "Incorrect API key provided.")
        path = path.removeprefix(self.prefix)
        if path == "/files":
            return self.upload(multipart(headers["Content-Type"], content))
        if path == self.jobs:
            return self.create(json.loads(content))
        if path.startswith(f"{self.jobs}/") and path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[-2])
            return self.said(self.shown(self.job(path.split("/")[-2])))
        return self.more(path, headers, content)

    def more(self, path: str, headers: Any, content: bytes) -> Reply:
        return self._refused(404, f"no such address: {path}")

    def upload(self, parts: dict[str, tuple[str, bytes]]) -> Reply:
        name, content = parts["file"]
        fields = {key: value.decode() for key, (_, value) in parts.items() if key != "file"}
        assert fields == {"purpose": "batch"}, fields
        return self.said({"id": self.keep(name, content, fields), "object": "file"})

    def keep(self, name: str, content: bytes, fields: dict[str, str] | None = None) -> str:
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = File(name, content, fields or {})
        return file_id

    def create(self, given: dict[str, Any]) -> Reply:
        self.check_job(given)
        job = Job(f"job-{len(self.batches)}", 1_700_000_000 + len(self.batches), given, self.first)
        job.counts = (len(self.lines(given)), 0, 0)
        self.batches.append(job)
        return self.said(self.created(job))

    def check_job(self, given: dict[str, Any]) -> None:
        """Groq: types/batch_create_params.py."""
        assert set(given) <= {"completion_window", "endpoint", "input_file_id", "metadata"}, given
        assert given["endpoint"] == "/v1/chat/completions"
        for line in self.lines(given):
            assert set(line) == {"custom_id", "method", "url", "body"}
            assert line["body"].get("n", 1) == 1

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[given["input_file_id"]].content.splitlines()]

    def created(self, job: Job) -> dict[str, Any]:
        return self.shown(job)

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        return {
            "id": job.id,
            "object": "batch",
            "status": job.status,
            "created_at": job.created,
            "endpoint": job.given["endpoint"],
            "input_file_id": job.given["input_file_id"],
            "output_file_id": job.output or None,
            "error_file_id": job.errors or None,
            "errors": {"object": "list", "data": [{"code": None, "message": job.failed}]} if job.failed else None,
            "metadata": job.given.get("metadata"),
            "request_counts": {"total": total, "completed": answered, "failed": refused},
        }

    def got(self, path: str, headers: Any) -> Reply:
        split = urlsplit(path.removeprefix(self.prefix))
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == self.jobs:
            return self.said(self.listed(query))
        if match := re.fullmatch(rf"{self.jobs}/([^/]+)", split.path):
            return self.said(self.shown(self.job(match[1])))
        if (match := re.fullmatch(r"/files/([^/]+)/content", split.path)) and match[1] in self.files:
            return 200, self.files[match[1]].content, {}
        if (match := re.fullmatch(r"/files/([^/]+)", split.path)) and match[1] in self.files:
            return self.said({"id": match[1], "object": "file", "filename": self.files[match[1]].name})
        return self._refused(404, f"no such file: {path}")

    def listed(self, query: dict[str, str]) -> Any:
        newest = list(reversed(self.batches))
        ids = [job.id for job in newest]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        page = newest[start : start + int(query["limit"])]
        return {"object": "list", "data": [self.shown(job) for job in page], "has_more": start + len(page) < len(ids)}

    def deleted(self, path: str, headers: Any) -> Reply:
        file_id = path.rpartition("/")[2]
        if file_id not in self.files:
            return self._refused(404, "no such file")
        del self.files[file_id]
        return self.said({"id": file_id, "deleted": True})

    def job(self, job_id: str) -> Job:
        return next(job for job in self.batches if job.id == job_id)

    def said(self, value: Any) -> Reply:
        return 200, json.dumps(value).encode(), {}

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        """The first requests are answered, the next ones refused, the next ones lapsed, and the rest is nowhere."""
        lines = self.lines(job.given)
        errors = [self.refused_line(each) for each in lines[answered : answered + refused]]
        errors += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        job.output = self.keep("output", jsonl([self.answered_line(each) for each in lines[:answered]]))
        job.errors = self.keep("errors", jsonl(errors)) if errors else ""
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = self.wire.answer({"model": "m", **line["body"]}, self.saying)
        return {
            "id": "r",
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "request_id": "q", "body": body},
            "error": None,
        }

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = {"error": {"message": "that is no temperature", "type": "invalid_request_error"}}
        return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": body}, "error": None}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
        return {"custom_id": line["custom_id"], "response": None, "error": error}


class DashScopeStandIn(BatchStandIn):
    """https://help.aliyun.com/zh/model-studio/batch-interfaces-compatible-with-openai: names of its own in metadata,
    and no file can be read but those of results. Codes of failed lines are of
    https://help.aliyun.com/en/model-studio/error-code-start; that they have a status as well isn't documented.
    """

    wire_of_chats = DASHSCOPE
    prefix = "/compatible-mode/v1"

    def keep(self, name: str, content: bytes, fields: dict[str, str] | None = None) -> str:
        file_id = f"file-batch{'_output' if name in {'output', 'errors'} else ''}-{len(self.files)}"
        self.files[file_id] = File(name, content, fields or {})
        return file_id

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"input_file_id", "endpoint", "completion_window", "metadata"}, given
        assert set(given.get("metadata", {})) <= {"ds_name", "ds_description", "ds_batch_finish_callback"}, given
        assert len(given.get("metadata", {}).get("ds_name", "")) <= 100
        assert re.fullmatch(r"\d+[hd]", given["completion_window"])
        check_lines(self.wire, self.lines(given), given["endpoint"], "/v1/chat/completions")

    def got(self, path: str, headers: Any) -> Reply:
        if path.endswith("/content") and "/file-batch_output-" not in path:
            return self._refused(400, "Only results of batches can be read.")
        return super().got(path, headers)

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return self.failed_line(line, 400, "InvalidParameter", "that is no temperature")

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return self.failed_line(line, 429, "Throttling.RateQuota", "Requests rate limit exceeded.")

    def failed_line(self, line: dict[str, Any], status: int, code: str, said: str) -> dict[str, Any]:
        response = {"status_code": status, "request_id": "q", "body": None}
        error = {"code": code, "message": said}
        return {"id": "r", "custom_id": line["custom_id"], "response": response, "error": error}


class MoonshotStandIn(BatchStandIn):
    """https://platform.kimi.ai/docs/api/batch-create and https://platform.kimi.com/docs/guide/use-batch-api.

    What a line of the error file is isn't documented: it's as at OpenAI.
    """

    wire_of_chats = MOONSHOT
    prefix = "/v1"

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"input_file_id", "endpoint", "completion_window", "metadata"}, given
        assert given["completion_window"] in {"12h", "24h", "1d", "3d", "7d"}
        assert all(len(name) <= 64 and len(value) <= 512 for name, value in given.get("metadata", {}).items())
        lines = self.lines(given)
        check_lines(self.wire, lines, given["endpoint"], "/v1/chat/completions")
        assert not any("n" in line["body"] for line in lines)


class ZAIStandIn(BatchStandIn):
    """zai-sdk 0.2, api_resource/batch/batches.py, and what the API answered to its tests: times in milliseconds, no
    counts at first. https://docs.bigmodel.cn/cn/guide/tools/batch has the lines. No file's name is shown.
    """

    wire_of_chats = ZAI
    prefix = "/api/paas/v4"

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"input_file_id", "endpoint", "metadata", "auto_delete_input_file"}, given
        assert given["auto_delete_input_file"] is False
        check_lines(self.wire, self.lines(given), given["endpoint"], "/v4/chat/completions")

    def shown(self, job: Job) -> dict[str, Any]:
        waits = job.status in {"validating", "in_progress"} and not job.output
        counts = {"request_counts": dict.fromkeys(("total", "completed", "failed"))} if waits else {}
        return {
            **super().shown(job),
            "created_at": 1000 * job.created,
            "completed_at": 1000 * (job.created + 60) if job.output else None,
            "output_file_id": job.output,
            "error_file_id": job.errors,
            **counts,
        }

    def got(self, path: str, headers: Any) -> Reply:
        if re.search(r"/files/[^/]+$", path):
            return self._refused(404, f"no such address: {path}")
        return super().got(path, headers)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = self.wire.answer(line["body"], self.saying)
        del body["object"]
        return {"response": {"status_code": 200, "body": body}, "custom_id": line["custom_id"], "id": "batch_1"}

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = {"error": {"code": "1210", "message": "that is no temperature"}}
        return {"response": {"status_code": 400, "body": body}, "custom_id": line["custom_id"], "id": "batch_1"}


class NebiusStandIn(BatchStandIn):
    """https://docs.tokenfactory.nebius.com/ai-models-inference/batch-inference, and its reference of batches."""

    wire_of_chats = NEBIUS
    prefix = "/v1"

    def check_job(self, given: dict[str, Any]) -> None:
        known = {"endpoint", "input_file_id", "completion_window", "override_settings", "metadata"}
        assert set(given) <= known, given
        assert given["completion_window"] == "24h"
        check_lines(self.wire, self.lines(given), given["endpoint"], "/v1/chat/completions")


def check_lines(wire: Wire, lines: list[dict[str, Any]], endpoint: str, place: str) -> None:
    """Of lines in OpenAI's form: all go to the one place, with one model, each with an id of its own."""
    assert {endpoint, *(line["url"] for line in lines)} == {place}
    assert len({line["custom_id"] for line in lines}) == len(lines)
    assert len({line["body"]["model"] for line in lines}) == 1
    for line in lines:
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert line["method"] == "POST"
        wire.check(line["body"])


class ResponsesStandIn(BatchStandIn):
    """openai 3.57: the same batches, of responses."""

    wire_of_chats = RESPONSES
    prefix = "/v1"

    def check_job(self, given: dict[str, Any]) -> None:
        assert given["endpoint"] == "/v1/responses"
        for line in self.lines(given):
            assert line["url"] == "/v1/responses"
            self.wire.check(line["body"])

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = {"error": {"message": "that is no temperature", "type": "invalid_request_error", "param": None}}
        return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": body}, "error": None}


class TogetherStandIn(BatchStandIn):
    """together 3.1: an upload is sent on to a store, jobs have no metadata and no counts, times are texts."""

    wire_of_chats = TOGETHER
    prefix = "/v1"
    first = "VALIDATING"

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, dict[str, str]] = {}
        self.processed: list[str] = []

    def upload(self, parts: dict[str, tuple[str, bytes]]) -> Reply:
        fields = {name: value.decode() for name, (_, value) in parts.items()}
        assert set(fields) == {"purpose", "file_name", "file_type", "checksum"}, fields
        assert (fields["purpose"], fields["file_type"]) == ("batch-api", "jsonl")
        for file_id, file in self.files.items():
            if file.fields["checksum"] == fields["checksum"]:
                return 409, json.dumps({"file_id": file_id}).encode(), {}
        file_id = f"file-{len(self.places) + len(self.files)}"
        self.places[file_id] = fields
        return 302, b"", {"Location": f"{self.root}/store/{file_id}?signature=s", "X-Together-File-Id": file_id}

    def put(self, path: str, headers: Any, content: bytes) -> Reply:
        assert "Authorization" not in headers, "the store was sent the key"
        file_id = urlsplit(path).path.rpartition("/")[2]
        fields = self.places.pop(file_id)
        assert hashlib.sha256(content).hexdigest() == fields["checksum"]
        self.files[file_id] = File(fields["file_name"], content, fields)
        return 200, b"", {}

    def more(self, path: str, headers: Any, content: bytes) -> Reply:
        if (match := re.fullmatch(r"/files/([^/]+)/preprocess", path)) and match[1] in self.files:
            self.processed.append(match[1])
            return self.said({"id": match[1], "object": "file", "filename": self.files[match[1]].name})
        return super().more(path, headers, content)

    def keep(self, name: str, content: bytes, fields: dict[str, str] | None = None) -> str:
        return super().keep(name, content, fields or {"checksum": name})

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"endpoint", "input_file_id", "completion_window", "model_id", "priority"}, given
        assert given["input_file_id"] in self.processed
        assert all(set(line) == {"custom_id", "body"} for line in self.lines(given))

    def created(self, job: Job) -> dict[str, Any]:
        return {"job": self.shown(job), "warning": ""}

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        return {
            "id": job.id,
            "status": job.status,
            "created_at": f"2023-11-14T22:{job.created - 1_700_000_000:02d}:00Z",
            "endpoint": job.given["endpoint"],
            "input_file_id": job.given["input_file_id"],
            "output_file_id": job.output,
            "error_file_id": job.errors,
            "error": job.failed or None,
            "progress": 100 * (answered + refused) / max(1, total),
        }

    def listed(self, query: dict[str, str]) -> Any:
        return [self.shown(job) for job in self.batches]

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": line["custom_id"], "error": {"message": "that is no temperature", "code": "400"}}


class MistralStandIn(BatchStandIn):
    """mistralai 3.7: jobs at an address of their own, with the model, by pages; errors beside the response."""

    wire_of_chats = MISTRAL
    prefix = "/v1"
    jobs = "/batch/jobs"
    first = "QUEUED"

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[str] = []

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"input_files", "requests", "endpoint", "model", "agent_id", "metadata", "timeout_hours"}
        assert given["model"] == "m"
        assert given["endpoint"] == "/v1/chat/completions"
        for line in self.lines(given):
            assert set(line) == {"custom_id", "body"}
            self.wire.check(line["body"])

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        (file_id,) = given["input_files"]
        return super().lines({"input_file_id": file_id})

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        return {
            "id": job.id,
            "object": "batch",
            "input_files": job.given["input_files"],
            "endpoint": job.given["endpoint"],
            "model": job.given["model"],
            "metadata": job.given.get("metadata"),
            "errors": [{"message": job.failed, "count": 1}] if job.failed else [],
            "status": job.status,
            "created_at": job.created,
            "total_requests": total,
            "completed_requests": answered + refused,
            "succeeded_requests": answered,
            "failed_requests": refused,
            "output_file": job.output or None,
            "error_file": job.errors or None,
        }

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"page", "page_size", "order_by", "metadata", "created_after", "status"}, query
        newest = list(reversed(self.batches)) if query.get("order_by", "-created") == "-created" else self.batches
        size = int(query.get("page_size", 100))
        page = newest[int(query.get("page", 0)) * size :][:size]
        return {"object": "list", "total": len(newest), "data": [self.shown(job) for job in page]}

    def deleted(self, path: str, headers: Any) -> Reply:
        if path.startswith(f"{self.prefix}{self.jobs}/"):
            self.gone.append(path.rpartition("/")[2])
            return self.said({"id": self.gone[-1], "object": "batch", "deleted": True})
        return super().deleted(path, headers)

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"message": "that is no temperature", "type": "invalid_request_error"}
        return {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": None}, "error": error}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": line["custom_id"], "response": {"status_code": 503, "body": None}, "error": "overloaded"}


class GeminiStandIn(BatchStandIn):
    """google-genai 3.6, batches.py and files.py: resumable uploads, operations with the job in `metadata`, one file."""

    wire_of_chats = GEMINI
    prefix = "/v1"
    first = "BATCH_STATE_PENDING"

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[str] = []
        self.begun: dict[str, dict[str, Any]] = {}

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if headers.get("x-goog-api-key") != KEY:
            return self._refused(400, "API key not valid. Please pass a valid API key.")
        if path == "/upload/v1/files":
            return self.begin(headers, json.loads(content))
        if path.startswith("/upload/v1/files?upload_id="):
            return self.finish(path.partition("=")[2], headers, content)
        if path == "/v1/models/m:batchGenerateContent":
            return self.create(json.loads(content)["batch"])
        if match := re.fullmatch(r"/v1/(batches/[^/:]+):cancel", path):
            self.cancelled.append(match[1])
            return self.said({})
        return self._refused(404, f"no such address: {path}")

    def begin(self, headers: Any, given: dict[str, Any]) -> Reply:
        assert headers["X-Goog-Upload-Protocol"] == "resumable"
        assert headers["X-Goog-Upload-Command"] == "start"
        upload_id = f"u{len(self.begun)}"
        self.begun[upload_id] = {**given["file"], "size": int(headers["X-Goog-Upload-Header-Content-Length"])}
        return 200, b"{}", {"X-Goog-Upload-URL": f"{self.root}/upload/v1/files?upload_id={upload_id}"}

    def finish(self, upload_id: str, headers: Any, content: bytes) -> Reply:
        assert (headers["X-Goog-Upload-Command"], headers["X-Goog-Upload-Offset"]) == ("upload, finalize", "0")
        given = self.begun.pop(upload_id)
        assert len(content) == given["size"]
        name = self.keep(given["displayName"], content)
        status, said, _ = self.said({"file": {"name": name, "mimeType": given["mimeType"]}})
        return status, said, {"X-Goog-Upload-Status": "final"}

    def keep(self, name: str, content: bytes, fields: dict[str, str] | None = None) -> str:
        file_id = f"files/{len(self.files)}{len(content)}"
        self.files[file_id] = File(name, content, fields or {})
        return file_id

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"displayName", "inputConfig", "webhookConfig"}, given
        for line in self.lines(given):
            assert set(line) == {"key", "request"}
            self.wire.check(line["request"])
            assert "serviceTier" not in line["request"]

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return super().lines({"input_file_id": given["inputConfig"]["fileName"]})

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        # Numbers of 64 bits are texts, and what is 0 isn't there.
        counts = {"requestCount": total, "successfulRequestCount": answered, "failedRequestCount": refused}
        details = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/m",
            "displayName": job.given["displayName"],
            "inputConfig": job.given["inputConfig"],
            "state": job.status,
            "createTime": f"2023-11-14T22:{(job.created - 1_700_000_000) % 60:02d}:00.123456789Z",
            "batchStats": {name: str(count) for name, count in counts.items() if count},
            "name": job.id,
            **({"output": {"responsesFile": job.output}} if job.output else {}),
        }
        failed = {"error": {"code": 3, "message": job.failed}} if job.failed else {}
        return {"name": job.id, "metadata": details, **failed}

    def create(self, given: dict[str, Any]) -> Reply:
        self.check_job(given)
        job = Job(f"batches/j{len(self.batches)}", 1_700_000_000 + len(self.batches), given, self.first)
        job.counts = (len(self.lines(given)), 0, 0)
        self.batches.append(job)
        return self.said(self.shown(job))

    def got(self, path: str, headers: Any) -> Reply:
        split = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == "/v1/batches":
            return self.said(self.listed(query))
        if match := re.fullmatch(r"/v1/(batches/[^/]+)", split.path):
            return self.said(self.shown(self.job(match[1])))
        match = re.fullmatch(r"/download/v1/(files/[^/]+):download", split.path)
        if match and query == {"alt": "media"} and match[1] in self.files:
            return 200, self.files[match[1]].content, {}
        return self._refused(404, f"no such file: {path}")

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"pageSize", "pageToken"}, query
        start = int(query.get("pageToken", 0))
        end = start + int(query.get("pageSize", 10))
        page = self.batches[start:end]
        more = {"nextPageToken": str(end)} if end < len(self.batches) else {}
        return {"operations": [self.shown(job) for job in page], **more}

    def deleted(self, path: str, headers: Any) -> Reply:
        name = path.removeprefix("/v1/")
        if name.startswith("batches/"):
            self.gone.append(name)
            return self.said({})
        return self.said({}) if self.files.pop(name, None) else self._refused(404, "no such file")

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        lines = self.lines(job.given)
        results = [self.answered_line(each) for each in lines[:answered]]
        results += [self.refused_line(each) for each in lines[answered : answered + refused]]
        results += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        job.output = self.keep("output", jsonl(results))
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"key": line["key"], "response": self.wire.answer(line["request"], self.saying)}

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"key": line["key"], "error": {"code": 3, "message": "that is no temperature"}}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"key": line["key"], "error": {"code": 4, "message": "The deadline expired."}}


TOKEN = "token-of-a-login"
PARENT = "/v1beta1/projects/my-project/locations/global"


class VertexStandIn(GeminiStandIn):
    """google-genai 3.6, batches.py: jobs of files in a bucket, for whoever is signed in by a service account.

    It's the place that gives tokens, the storage and the API in one.
    """

    wire_of_chats = VERTEX
    prefix = "/v1beta1"
    first = "JOB_STATE_PENDING"
    fields: ClassVar[dict[str, Any]] = {"bucket": "gs://rows/of/batches", "api_key": None}

    def __init__(self) -> None:
        super().__init__()
        self.logins = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self._folder = tempfile.TemporaryDirectory()
        account = Path(self._folder.name) / "account.json"
        account.write_text(json.dumps(service_account(f"{self.root}/token")))
        self._environment = pytest.MonkeyPatch()
        self._environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        self._environment.setenv("STORAGE_EMULATOR_HOST", self.root)
        return self

    def __exit__(self, *error: object) -> None:
        self._environment.undo()
        self._folder.cleanup()
        super().__exit__(*error)

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if path == "/token":
            self.logins += 1
            return self.said({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        if headers.get("Authorization") != f"Bearer {TOKEN}" or "x-goog-api-key" in headers:
            return self._refused(401, "Request had invalid authentication credentials.")
        split = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == "/upload/storage/v1/b/rows/o":
            assert query["uploadType"] == "media"
            self.files[query["name"]] = File(query["name"], content)
            return self.said({"kind": "storage#object", "name": query["name"]})
        if split.path == f"{PARENT}/batchPredictionJobs":
            return self.create(json.loads(content))
        if match := re.fullmatch(rf"{PARENT}/batchPredictionJobs/([^/:]+):cancel", split.path):
            self.cancelled.append(self.job_named(match[1]).id)
            return self.said({})
        if split.path == f"{PARENT}/publishers/google/models/m:generateContent":
            return self.said(self.wire.answer(json.loads(content), self.saying))
        return self._refused(404, f"no such address: {path}")

    def job_named(self, number: str) -> Job:
        return self.job(f"{PARENT.removeprefix('/v1beta1/')}/batchPredictionJobs/{number}")

    def keep(self, name: str, content: bytes, fields: dict[str, str] | None = None) -> str:
        self.files[name] = File(name, content, fields or {})
        return name

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) <= {"displayName", "model", "inputConfig", "outputConfig", "labels"}, given
        assert given["model"] == "publishers/google/models/m"
        assert given["inputConfig"]["instancesFormat"] == given["outputConfig"]["predictionsFormat"] == "jsonl"
        for line in self.lines(given):
            assert set(line) == {"request"}
            self.wire.check(line["request"])
            (label,) = line["request"]["labels"].values()
            assert re.fullmatch(r"[a-z0-9_-]{1,63}", label)

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        (uri,) = given["inputConfig"]["gcsSource"]["uris"]
        return BatchStandIn.lines(self, {"input_file_id": uri.removeprefix("gs://rows/")})

    def create(self, given: dict[str, Any]) -> Reply:
        self.check_job(given)
        name = f"{PARENT.removeprefix('/v1beta1/')}/batchPredictionJobs/{len(self.batches)}"
        self.batches.append(Job(name, 1_700_000_000 + len(self.batches), given, self.first))
        return self.said(self.shown(self.batches[-1]))

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        stats = {"successfulCount": answered, "failedCount": refused, "incompleteCount": total - answered - refused}
        known = {"completionStats": {name: str(count) for name, count in stats.items()}} if any(job.counts) else {}
        return {
            "name": job.id,
            **job.given,
            "state": job.status,
            "createTime": f"2023-11-14T22:{(job.created - 1_700_000_000) % 60:02d}:00.123456Z",
            **({"error": {"code": 3, "message": job.failed}} if job.failed else {}),
            **({"outputInfo": {"gcsOutputDirectory": f"gs://rows/{job.output}"}} if job.output else {}),
            **known,
        }

    def got(self, path: str, headers: Any) -> Reply:
        split = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == f"{PARENT}/batchPredictionJobs":
            return self.said(self.listed(query))
        if match := re.fullmatch(rf"{PARENT}/batchPredictionJobs/([^/]+)", split.path):
            return self.said(self.shown(self.job_named(match[1])))
        if split.path == "/storage/v1/b/rows/o":
            names = sorted(name for name in self.files if name.startswith(query["prefix"]))
            return self.said({"kind": "storage#objects", "items": [{"name": name} for name in names]})
        name = unquote(split.path.removeprefix("/storage/v1/b/rows/o/"))
        if name in self.files and query == {"alt": "media"}:
            return 200, self.files[name].content, {}
        return self._refused(404, f"no such object: {path}")

    def listed(self, query: dict[str, str]) -> Any:
        page = super().listed(query)
        return {"batchPredictionJobs": page.pop("operations"), **page}

    def deleted(self, path: str, headers: Any) -> Reply:
        if path.startswith(f"{PARENT}/batchPredictionJobs/"):
            self.gone.append(path)
            return self.said({})
        name = unquote(path.removeprefix("/storage/v1/b/rows/o/"))
        return self.said({}) if self.files.pop(name, None) else self._refused(404, "no such object")

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        super().end(job, status, answered=answered, refused=refused, lapsed=lapsed)
        results = self.files.pop(job.output)
        job.output = f"{job.given['outputConfig']['gcsDestination']['outputUriPrefix'].removeprefix('gs://rows/')}/p"
        self.files[f"{job.output}/predictions.jsonl"] = results

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        answer = self.wire.answer(line["request"], self.saying)
        return {**line, "status": "", "response": answer, "processed_time": "2026-01-01T00:00:00Z"}

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        problem = {"error": {"code": 400, "message": "that is no temperature", "status": "INVALID_ARGUMENT"}}
        return {**line, "status": f"Bad Request: {json.dumps(problem)}", "response": {}}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "status": "The request could not be processed in time.", "response": {}}


class XAIStandIn(BatchStandIn):
    """xai-sdk 1.21, proto/v6/batch.proto, by REST as litellm 1.110 has it: counts and no state, results in pages.

    A job's `status` here is what a test calls it; what is shown is what that means in counts.
    """

    wire_of_chats = XAI
    prefix = "/v1"
    first = "validating"
    results_a_page = 2

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, list[dict[str, Any]]] = {}

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if match := re.fullmatch(r"/v1/batches/([^/:]+):cancel", path):
            self.cancelled.append(match[1])
            return self.said(self.shown(self.job(match[1])))
        return super().reply(path, headers, content)

    def check_job(self, given: dict[str, Any]) -> None:
        assert set(given) == {"name", "input_file_id"}, given
        for line in self.lines(given):
            assert set(line) == {"custom_id", "method", "url", "body"}
            self.wire.check(line["body"])

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        waiting = total - answered - refused
        waiting = {"in_progress": waiting or 1, "cancelling": waiting or 1}.get(job.status, 0)
        counts = {"num_requests": 0 if job.status == "validating" else total, "num_pending": waiting}
        over = job.status in {"cancelling", "cancelled", "failed"}
        return {
            "batch_id": job.id,
            "name": job.given["name"],
            "create_time": "2023-11-14",
            "expire_time": "2023-11-15",
            "cancel_time": "2023-11-14" if over else None,
            "cancel_by_xai_message": (job.failed or "The file is no JSON.") if job.status == "failed" else None,
            "input_file_id": job.given["input_file_id"],
            "state": {**counts, "num_success": answered, "num_error": refused, "num_cancelled": 0},
        }

    def got(self, path: str, headers: Any) -> Reply:
        split = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if match := re.fullmatch(r"/v1/batches/([^/]+)/results", split.path):
            assert int(query["limit"]) <= 1000
            start = int(query.get("pagination_token", 0))
            every = self.results.get(match[1], [])
            more = start + self.results_a_page
            token = str(more) if more < len(every) else None
            return self.said({"results": every[start:more], "pagination_token": token})
        return super().got(path, headers)

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"limit", "pagination_token"}, query
        start = int(query.get("pagination_token", 0))
        end = start + int(query["limit"])
        token = str(end) if end < len(self.batches) else None
        return {"batches": [self.shown(job) for job in self.batches[start:end]], "pagination_token": token}

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        lines = self.lines(job.given)
        results = [self.answered_line(each) for each in lines[:answered]]
        results += [self.refused_line(each) for each in lines[answered : answered + refused]]
        results += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        self.results[job.id] = results
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        body = self.wire.answer(line["body"], self.saying)
        return {
            "batch_request_id": line["custom_id"],
            "batch_result": {"response": {"chat_get_completion": body}, "error": None},
        }

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"code": 3, "message": "that is no temperature"}
        return {"batch_request_id": line["custom_id"], "batch_result": {"response": None, "error": error}}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"code": 1, "message": "The batch was cancelled."}
        return {"batch_request_id": line["custom_id"], "batch_result": {"response": None, "error": error}}


class FireworksStandIn(BatchStandIn):
    """fireworks-ai 1.2, resources/datasets.py and batch_inference_jobs.py: names that the client chooses, datasets in
    place of files, results in a store, and no call to cancel. What a line of `error-data` is isn't documented.
    """

    wire_of_chats = FIREWORKS
    prefix = "/inference/v1"
    account = "/v1/accounts/mine"
    first = "JOB_STATE_CREATING"
    fields: ClassVar[dict[str, Any]] = {"account_id": "mine"}

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()
        self.failures: dict[str, bytes] = {}

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if headers.get("Authorization") != f"Bearer {KEY}":
            return self._refused(403, "The API key you provided is invalid.")
        split = urlsplit(path.removeprefix(self.account))
        if split.path == "/datasets":
            return self.make_dataset(json.loads(content))
        if match := re.fullmatch(r"/datasets/([^/:]+):upload", split.path):
            parts = multipart(headers["Content-Type"], content)
            assert set(parts) == {"file"}
            self.files[match[1]].content, self.files[match[1]].fields["state"] = parts["file"][1], "READY"
            return self.said({"id": match[1], "filename": parts["file"][0], "object": "file"})
        if split.path == "/batchInferenceJobs":
            (job_id,) = parse_qs(split.query)["batchInferenceJobId"]
            if any(job.id == job_id for job in self.batches):
                return self._refused(409, f"batch inference job {job_id} already exists")
            return self.create({**json.loads(content), "id": job_id})
        return self._refused(404, f"no such address: {path}")

    @property
    def store(self) -> str:
        return f"{self.root}/store"

    def make_dataset(self, given: dict[str, Any]) -> Reply:
        assert set(given) <= {"dataset", "datasetId", "sourceDatasetId"}, given
        assert set(given["dataset"]) <= {"displayName", "exampleCount", "format", "userUploaded"}, given
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,62}", given["datasetId"])
        if given["datasetId"] in self.files:
            return self._refused(409, "dataset already exists")
        created = {"createTime": "2023-11-14T22:00:00.123456Z"}
        self.files[given["datasetId"]] = File("", b"", {**given["dataset"], **created, "state": "UPLOADING"})
        return self.said(self.dataset(given["datasetId"]))

    def dataset(self, dataset: str) -> dict[str, Any]:
        fields = self.files[dataset].fields
        return {"name": f"accounts/mine/datasets/{dataset}", "state": fields.get("state", "READY"), **fields}

    def create(self, given: dict[str, Any]) -> Reply:
        self.check_job(given)
        job = Job(given["id"], 1_700_000_000 + len(self.batches), given, self.first)
        job.counts = (len(self.lines(given)), 0, 0)
        self.batches.append(job)
        return self.said(self.shown(job))

    def check_job(self, given: dict[str, Any]) -> None:
        known = {"continuedFromJobName", "displayName", "inferenceParameters", "inputDatasetId", "model"}
        assert set(given) <= known | {"outputDatasetId", "precision", "id"}, given
        assert given["model"] == "m"
        dataset = self.files[given["inputDatasetId"].rpartition("/")[2]]
        assert dataset.fields["exampleCount"] == str(len(self.lines(given)))
        for line in self.lines(given):
            assert set(line) == {"custom_id", "body"}
            assert "model" not in line["body"]
            self.wire.check(line["body"])

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return super().lines({"input_file_id": given["inputDatasetId"].rpartition("/")[2]})

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        code = "INVALID_ARGUMENT" if job.failed else "OK"
        return {
            "name": f"accounts/mine/batchInferenceJobs/{job.id}",
            "createTime": f"2023-11-14T22:{(job.created - 1_700_000_000) % 60:02d}:00.123456Z",
            "state": job.status,
            "status": {"code": code, "message": job.failed},
            **{name: job.given.get(name) for name in ("model", "inputDatasetId", "outputDatasetId")},
            "jobProgress": {
                "totalInputRequests": total,
                "totalProcessedRequests": answered + refused,
                "successfullyProcessedRequests": answered,
                "failedRequests": refused,
            },
        }

    def got(self, path: str, headers: Any) -> Reply:
        split = urlsplit(path.removeprefix(self.account))
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if match := re.fullmatch(r"/store/([^/]+)/(BIJOutputSet.jsonl|error-data)", split.path):
            assert "Authorization" not in headers, "the store was sent the key"
            assert query["X-Goog-Signature"] == "s"
            of_errors = match[2] == "error-data"
            return 200, self.failures[match[1]] if of_errors else self.files[match[1]].content, {}
        if headers.get("Authorization") != f"Bearer {KEY}":
            return self._refused(403, "The API key you provided is invalid.")
        if split.path == "/batchInferenceJobs":
            return self.said(self.listed(query))
        if match := re.fullmatch(r"/batchInferenceJobs/([^/]+)", split.path):
            known = [job for job in self.batches if job.id == match[1] and job.id not in self.gone]
            return self.said(self.shown(known[0])) if known else self._refused(404, "resource not found")
        if match := re.fullmatch(r"/datasets/([^/:]+)(:getDownloadEndpoint)?", split.path):
            if match[1] not in self.files:
                return self._refused(404, "resource not found")
            if not match[2]:
                return self.said(self.dataset(match[1]))
            names = {
                name: f"{self.root}/store/{match[1]}/{name}?X-Goog-Signature=s"
                for name in ("BIJOutputSet.jsonl", "error-data")
            }
            return self.said(
                {"filenameToSignedUrls": {f"dataset/{match[1]}/{name}": url for name, url in names.items()}}
            )
        return self._refused(404, f"no such address: {path}")

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"filter", "orderBy", "pageSize", "pageToken", "readMask"}, query
        there = [job for job in self.batches if job.id not in self.gone]
        start = int(query.get("pageToken", 0))
        end = start + min(200, int(query.get("pageSize", 50)))
        token = {"nextPageToken": str(end)} if end < len(there) else {}
        return {"batchInferenceJobs": [self.shown(job) for job in there[start:end]], "totalSize": len(there), **token}

    def deleted(self, path: str, headers: Any) -> Reply:
        kind, _, name = path.removeprefix(f"{self.account}/").partition("/")
        if kind == "datasets" and name in self.files:
            del self.files[name]
            return self.said({})
        if kind == "batchInferenceJobs" and name not in self.gone and any(job.id == name for job in self.batches):
            self.gone.add(name)
            self.cancelled += [name] if self.job(name).status == self.first else []
            return self.said({})
        return self._refused(404, "resource not found")

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        lines = self.lines(job.given)
        errors = [self.refused_line(each) for each in lines[answered : answered + refused]]
        errors += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        dataset = job.given["outputDatasetId"].rpartition("/")[2]
        self.files[dataset] = File("", jsonl([self.answered_line(each) for each in lines[:answered]]))
        self.failures[dataset] = jsonl(errors)
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {
            "custom_id": line["custom_id"],
            "response": self.wire.answer({"model": "m", **line["body"]}, self.saying),
        }

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": line["custom_id"], "error": {"code": 400, "message": "that is no temperature"}}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": line["custom_id"], "error": {"code": 503, "message": "The service is busy."}}


class OpenRouterStandIn(BatchStandIn):
    """openrouter 1.3, components/batchsubmitbody.py and batchobject.py: no files, no metadata, no call to cancel."""

    wire_of_chats = OPENROUTER
    prefix = "/api/v1"

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, list[dict[str, Any]]] = {}

    def create(self, given: dict[str, Any]) -> Reply:
        status, said, headers = super().create(given)
        return 202 if status == 200 else status, said, headers

    def check_job(self, given: dict[str, Any]) -> None:
        # It's read as it comes.
        assert list(given)[-1] == "requests"
        assert set(given) <= {"endpoint", "model", "completion_window", "provider", "callback_url", "requests"}, given
        assert (given["endpoint"], given["model"]) == ("/v1/chat/completions", "m")
        assert set(given.get("provider", {})) <= {"only", "allow_fallbacks"}
        assert len({line["custom_id"] for line in given["requests"]}) == len(given["requests"])
        for line in given["requests"]:
            assert set(line) == {"custom_id", "body"}
            assert "provider" not in line["body"]
            self.wire.check(line["body"])

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return given["requests"]

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        ended = job.status in {"completed", "failed", "expired", "cancelled"}
        return {
            "id": job.id,
            "object": "batch",
            "status": job.status,
            "created_at": job.created,
            "endpoint": job.given["endpoint"],
            "model": job.given["model"],
            "provider": "OpenAI",
            "completion_window": "24h",
            "expires_at": None,
            "finalized_at": job.created + 60 if ended else None,
            "error": {"message": job.failed} if job.failed else None,
            "request_counts": {"total": total, "completed": answered, "failed": refused},
            "results": self.results.get(job.id) if ended else None,
            "usage": None,
        }

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"limit", "after", "status", "created_after", "created_before"}, query
        page = super().listed(query)
        data = [{**each, "results": None} for each in page["data"]]
        return {**page, "data": data, "first_id": data and data[0]["id"], "last_id": data and data[-1]["id"]}

    def deleted(self, path: str, headers: Any) -> Reply:
        job = self.job(path.rpartition("/")[2])
        if job.status not in {"completed", "failed", "expired", "cancelled"}:
            return self._refused(409, "The batch has not reached a terminal status.")
        self.results.pop(job.id, None)
        return self.said({"id": job.id, "object": "batch", "deletion": {"openrouter": "deleted"}})

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        lines = self.lines(job.given)
        results = [self.answered_line(each) for each in lines[:answered]]
        results += [self.refused_line(each) for each in lines[answered : answered + refused]]
        results += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        self.results[job.id] = results
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"message": "that is no temperature", "type": "invalid_request_error", "param": "temperature"}
        return self.failed_line(line, {**error, "error_type": "invalid_request"})

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        error = {"message": "Provider returned error", "type": "api_error", "param": None}
        return self.failed_line(line, {**error, "error_type": "provider_unavailable"})

    def failed_line(self, line: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
        return {"id": "r", "custom_id": line["custom_id"], "response": None, "error": error}


SECRET = "secret-of-an-account-that-is-none"
ACCESS = "AKIDOFATEST"
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8}/([a-z0-9-]+)/(\w+)/aws4_request), SignedHeaders=([a-z0-9;-]+),"
    r" Signature=([0-9a-f]{64})"
)


class BedrockStandIn(BatchStandIn):
    """botocore 1.43, bedrock: jobs by idempotent tokens, of files in S3. Every request has to be signed.

    It's the storage and the API in one.
    """

    wire_of_chats = BEDROCK
    prefix = ""
    first = "Submitted"
    fields: ClassVar[dict[str, Any]] = {
        "bucket": "s3://rows/of/batches",
        "role_arn": "arn:aws:iam::123456789012:role/rows",
        "region": "eu-central-1",
        "api_key": None,
    }

    def __enter__(self) -> Self:
        super().__enter__()
        self._environment = pytest.MonkeyPatch()
        for name in ("AWS_ENDPOINT_URL_BEDROCK", "AWS_ENDPOINT_URL_S3"):
            self._environment.setenv(name, self.root)
        self._environment.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        self._environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        return self

    def __exit__(self, *error: object) -> None:
        self._environment.undo()
        super().__exit__(*error)

    def unsigned(self, method: str, path: str, headers: Any, content: bytes) -> Reply | None:
        """A refusal of a request whose signature isn't that of what was sent, made here from the specification."""
        found = SIGNATURE.fullmatch(headers.get("Authorization", ""))
        if found is None or found[1] != ACCESS:
            return 403, b'{"message": "The security token included in the request is invalid."}', {}
        _, scope, _, service, names, signature = found.groups()
        split = urlsplit(path)
        # S3 takes a path as it is; others encode what is encoded already.
        place = split.path if service == "s3" else quote(split.path, safe="/~-._")
        query = "&".join(sorted(each if "=" in each else f"{each}=" for each in split.query.split("&") if each))
        lines = [f"{name}:{headers[name].strip()}\n" for name in names.split(";")]
        digest = hashlib.sha256(content).hexdigest()
        if service == "s3" and headers["X-Amz-Content-SHA256"] != digest:
            return 400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>", {}
        canonical = "\n".join([method, place, query, "".join(lines), names, digest])
        what = ["AWS4-HMAC-SHA256", headers["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
        key = f"AWS4{SECRET}".encode()
        for each in (*scope.split("/"), "\n".join(what)):
            key = hmac.digest(key, each.encode(), "sha256")
        assert service == ("s3" if split.path.startswith("/rows/") else "bedrock")
        if key.hex() != signature:
            said = "The request signature we calculated does not match the signature you provided."
            return 403, json.dumps({"message": said}).encode(), {"x-amzn-ErrorType": "InvalidSignatureException"}
        return None

    def reply(self, path: str, headers: Any, content: bytes) -> Reply:
        if refused := self.unsigned("POST", path, headers, content):
            return refused
        if path == "/model-invocation-job":
            return self.create(json.loads(content))
        if match := re.fullmatch(r"/model-invocation-job/([^/]+)/stop", path):
            self.cancelled.append(self.job(unquote(match[1])).id)
            return self.said({})
        return super(BatchStandIn, self).reply(path, {"Authorization": f"Bearer {KEY}"}, content)

    def put(self, path: str, headers: Any, content: bytes) -> Reply:
        if refused := self.unsigned("PUT", path, headers, content):
            return refused
        self.files[unquote(path.removeprefix("/rows/"))] = File(path, content)
        return 200, b"", {}

    def check_job(self, given: dict[str, Any]) -> None:
        known = {"jobName", "roleArn", "clientRequestToken", "modelId", "inputDataConfig", "outputDataConfig"}
        assert set(given) <= known | {"modelInvocationType", "timeoutDurationInHours", "tags", "vpcConfig"}, given
        assert given["modelInvocationType"] == "Converse"
        assert re.fullmatch(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}", given["jobName"])
        assert len(given["jobName"]) <= 63
        assert re.fullmatch(r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}", given["clientRequestToken"])
        for line in self.lines(given):
            assert set(line) == {"recordId", "modelInput"}
            self.wire.check(line["modelInput"])

    def lines(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        uri = given["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        return super().lines({"input_file_id": uri.removeprefix("s3://rows/")})

    def create(self, given: dict[str, Any]) -> Reply:
        known = [job for job in self.batches if job.given["clientRequestToken"] == given["clientRequestToken"]]
        if not known:
            self.check_job(given)
            arn = f"arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/j{len(self.batches)}"
            known = [Job(arn, 1_700_000_000 + len(self.batches), given, self.first)]
            self.batches += known
        return self.said({"jobArn": known[0].id})

    def shown(self, job: Job) -> dict[str, Any]:
        total, answered, refused = job.counts
        return {
            "jobArn": job.id,
            **job.given,
            "status": job.status,
            "submitTime": f"2023-11-14T22:{(job.created - 1_700_000_000) % 60:02d}:00.123456Z",
            "totalRecordCount": total,
            "processedRecordCount": answered + refused,
            "successRecordCount": answered,
            "errorRecordCount": refused,
            **({"message": job.failed} if job.failed else {}),
        }

    def got(self, path: str, headers: Any) -> Reply:
        if refused := self.unsigned("GET", path, headers, b""):
            return refused
        split = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if split.path == "/model-invocation-jobs":
            return self.said(self.listed(query))
        if match := re.fullmatch(r"/model-invocation-job/([^/]+)", split.path):
            return self.said(self.shown(self.job(unquote(match[1]))))
        name = unquote(split.path.removeprefix("/rows/"))
        if name in self.files:
            return 200, self.files[name].content, {"Content-Type": "application/x-ndjson"}
        return 404, b"<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"}

    def listed(self, query: dict[str, str]) -> Any:
        assert set(query) <= {"maxResults", "nextToken", "nameContains", "sortBy", "sortOrder", "statusEquals"}, query
        assert (query["sortBy"], query["sortOrder"]) == ("CreationTime", "Descending")
        named = [job for job in reversed(self.batches) if query.get("nameContains", "") in job.given["jobName"]]
        start = int(query.get("nextToken", 0))
        end = start + int(query["maxResults"])
        more = {"nextToken": str(end)} if end < len(named) else {}
        return {"invocationJobSummaries": [self.shown(job) for job in named[start:end]], **more}

    def deleted(self, path: str, headers: Any) -> Reply:
        if refused := self.unsigned("DELETE", path, headers, b""):
            return refused
        self.files.pop(unquote(path.removeprefix("/rows/")), None)
        return 204, b"", {}

    def end(self, job: Job, status: str, *, answered: int, refused: int = 0, lapsed: int = 0) -> None:
        lines = self.lines(job.given)
        results = [self.answered_line(each) for each in lines[:answered]]
        results += [self.refused_line(each) for each in lines[answered : answered + refused]]
        results += [self.lapsed_line(each) for each in lines[answered + refused : answered + refused + lapsed]]
        uri = job.given["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        folder = job.given["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].removeprefix("s3://rows/")
        folder = f"{folder}{job.id.rpartition('/')[2]}"
        self.files[f"{folder}/{uri.rpartition('/')[2]}.out"] = File("output", jsonl(results))
        self.files[f"{folder}/manifest.json.out"] = File("manifest", b"{}")
        job.status, job.counts = status, (len(lines), answered, refused + lapsed)

    def answered_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "modelOutput": self.wire.answer(line["modelInput"], self.saying)}

    def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "error": {"errorCode": 400, "errorMessage": "that is no temperature"}}

    def lapsed_line(self, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "error": {"errorCode": 503, "errorMessage": "The service is busy."}}


@cache
def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def service_account(token_uri: str) -> dict[str, str]:
    """The file of a service account, as Google Cloud gives it, whose tokens come from `token_uri`."""
    return {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "k",
        "private_key": private_key(),
        "client_email": "rows@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def multipart(kind: str, content: bytes) -> dict[str, tuple[str, bytes]]:
    """By the name of a field: the name of its file, and its content."""
    whole: Any = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + content)
    return {
        part.get_param("name", header="content-disposition"): (part.get_filename() or "", part.get_payload(decode=True))
        for part in whole.get_payload()
    }
