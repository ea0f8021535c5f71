"""A provider on loopback that does what it's told to, odd as it may be: OpenAI's files and batches, and Anthropic's.

It shares no code with the local provider, which does what providers should.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Lines = list[bytes]


def chat(body: dict[str, Any], text: str | None = None, **more: Any) -> dict[str, Any]:
    """OpenAI's answer: `answer to PROMPT`."""
    said = text if text is not None else f"answer to {body['messages'][-1]['content']}"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**answer, "choices": [choice], "usage": usage, **more}


def message(params: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Anthropic's answer: `MODEL: answer to PROMPT`."""
    said = f"{params['model']}: answer to {params['messages'][-1]['content']}"
    answer = {"id": "m", "type": "message", "role": "assistant", "model": params["model"]}
    content = [{"type": "text", "text": said}]
    usage = {"input_tokens": 3, "output_tokens": 2}
    return {**answer, "content": content, "stop_reason": "end_turn", "usage": usage, **more}


def line(request: dict[str, Any], **body: Any) -> bytes:
    """A line of results that answers the request."""
    if "params" in request:
        result = {"type": "succeeded", "message": message(request["params"], **body)}
        return json.dumps({"custom_id": request["custom_id"], "result": result}).encode()
    response = {"status_code": 200, "request_id": "q", "body": chat(request["body"], **body)}
    return json.dumps({"id": "r", "custom_id": request["custom_id"], "error": None, "response": response}).encode()


def error_line(request: dict[str, Any], code: str, said: str = "no") -> bytes:
    """A line of OpenAI's error file."""
    error = {"code": code, "message": said}
    return json.dumps({"custom_id": request["custom_id"], "response": None, "error": error}).encode()


def answered(job: Job) -> tuple[Lines, Lines]:
    return [line(each) for each in job.requests], []


@dataclass
class Job:
    """A batch at the provider."""

    id: str
    number: int
    """0 for the first that was created."""
    requests: list[dict[str, Any]]
    asked: dict[str, Any]
    """The body it was created with."""
    looks: int = 0
    downloads: int = 0
    output: Lines = field(default_factory=list[bytes])
    errors: Lines = field(default_factory=list[bytes])


@dataclass
class OddProvider:
    """`with OddProvider(...) as provider:` it answers at `url`. Every job has ended when it is first looked at."""

    results: Callable[[Job], tuple[Lines, Lines]] = answered
    """The lines of a job's output file and of its error file."""
    shown: Callable[[Job, dict[str, Any]], Any] = lambda job, as_it_is: as_it_is
    """What is said of a job when it is looked at."""
    sent: Callable[[Job, bytes], bytes | int] = lambda job, content: content
    """What is sent of a file of results, or the status in place of it."""
    cuts: bool = False
    """Whether what isn't sent was announced, so that the connection seems to be cut."""
    refuses: Callable[[int], tuple[int, Any] | None] = lambda number: None
    """What is answered to the so manieth try to create a job, in place of one."""
    loses: Callable[[int], bool] = lambda number: False
    """Whether the connection breaks after the so manieth try to create a job, which is there all the same."""
    jobs: list[Job] = field(default_factory=list[Job])
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    """Name and content, by id."""
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    tries: int = 0

    def __enter__(self) -> OddProvider:
        provider = self

        class Handler(_Handler):
            odd = provider

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, requests: list[dict[str, Any]], asked: dict[str, Any], prefix: str) -> Job:
        """A job, also of somebody else who has the same account."""
        job = Job(f"{prefix}{uuid.uuid4().hex}", len(self.jobs), requests, asked)
        job.output, job.errors = self.results(job)
        for name, lines in (("output", job.output), ("errors", job.errors)):
            self.files[f"{name}-{job.id}"] = (name, b"".join(each + b"\n" for each in lines))
        self.jobs.append(job)
        return job

    def as_it_is(self, job: Job) -> dict[str, Any]:
        counts = {"total": len(job.requests), "completed": len(job.output), "failed": len(job.errors)}
        return {
            "id": job.id,
            "object": "batch",
            "status": "completed",
            "created_at": int(time.time()),
            "metadata": job.asked.get("metadata"),
            "input_file_id": job.asked.get("input_file_id"),
            "output_file_id": f"output-{job.id}" if job.output else None,
            "error_file_id": f"errors-{job.id}" if job.errors else None,
            "request_counts": counts,
        }

    def as_anthropics(self, job: Job) -> dict[str, Any]:
        counts = {
            "processing": 0,
            "succeeded": len(job.output),
            "errored": len(job.errors),
            "canceled": 0,
            "expired": 0,
        }
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended",
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_counts": counts,
            "results_url": f"{self.url}/messages/batches/{job.id}/results",
        }

    def sizes(self) -> list[int]:
        """How many requests each job has."""
        return [len(job.requests) for job in self.jobs]


class _Handler(BaseHTTPRequestHandler):
    odd: OddProvider
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def say(self, content: Any, status: int = 200, length: int | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length if length is not None else len(body)))
        self.end_headers()
        self.wfile.write(body)
        # A body that is shorter than was announced is cut.
        self.close_connection = length is not None and length != len(body)

    def say_created(self, job: dict[str, Any]) -> None:
        if self.odd.loses(self.odd.tries):
            self.close_connection = True
            self.connection.close()
        else:
            self.say(job)

    def body(self) -> bytes:
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def path_of(self) -> list[str]:
        path = self.path.partition("?")[0].removeprefix("/v1/")
        self.odd.calls.append((self.command, path))
        return path.split("/")

    def do_POST(self) -> None:
        odd, content = self.odd, self.body()
        match self.path_of():
            case ["files"]:
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                parts = BytesParser().parsebytes(head + content).get_payload()
                part = next(each for each in parts if each.get_filename())
                name = f"file-{len(odd.files)}"
                odd.files[name] = (str(part.get_filename()), part.get_payload(decode=True))
                self.say({"id": name, "object": "file"})
            case ["batches"]:
                odd.tries += 1
                if refused := odd.refuses(odd.tries):
                    self.say(refused[1], refused[0])
                    return
                asked = json.loads(content)
                requests = [json.loads(each) for each in odd.files[asked["input_file_id"]][1].splitlines()]
                job = odd.add(requests, asked, "batch_")
                self.say_created(
                    {**odd.as_it_is(job), "status": "validating", "output_file_id": None, "error_file_id": None}
                )
            case ["messages", "batches"]:
                odd.tries += 1
                job = odd.add(json.loads(content)["requests"], {}, "msgbatch_")
                self.say_created({**odd.as_anthropics(job), "processing_status": "in_progress", "results_url": None})
            case _:
                self.say({})

    def do_GET(self) -> None:
        odd = self.odd
        jobs = {job.id: job for job in odd.jobs}
        match self.path_of():
            case ["batches"]:
                self.say({"data": [odd.shown(each, odd.as_it_is(each)) for each in reversed(odd.jobs)]})
            case ["messages", "batches"]:
                self.say({"data": [odd.shown(each, odd.as_anthropics(each)) for each in reversed(odd.jobs)]})
            case ["batches", name] if name in jobs:
                jobs[name].looks += 1
                self.say(odd.shown(jobs[name], odd.as_it_is(jobs[name])))
            case ["messages", "batches", name] if name in jobs:
                jobs[name].looks += 1
                self.say(odd.shown(jobs[name], odd.as_anthropics(jobs[name])))
            case ["messages", "batches", name, "results"]:
                self.send_file(jobs[name], f"output-{name}")
            case ["files", name, "content"] if name in odd.files:
                job = jobs.get(name.partition("-")[2])
                self.send_file(job, name)
            case ["files", name] if name in odd.files:
                self.say({"id": name, "filename": odd.files[name][0]})
            case _:
                self.say({"error": {"message": f"No such object: {self.path}", "type": "not_found_error"}}, 404)

    def do_DELETE(self) -> None:
        self.path_of()
        self.say({"deleted": True})

    def send_file(self, job: Job | None, name: str) -> None:
        content = self.odd.files[name][1]
        if job is not None:
            job.downloads += 1
        given = self.odd.sent(job, content) if job is not None else content
        if isinstance(given, int):
            self.say({"error": {"message": f"No such File object: {name}"}}, given)
        else:
            self.say(given, length=len(content) if self.odd.cuts else None)
