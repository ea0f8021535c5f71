"""A provider on loopback whose every answer a test writes down: for what ours never says."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Reply: TypeAlias = "dict[str, Any] | bytes | tuple[int, dict[str, Any]]"
"""The body of a 200, or a status and a body."""


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    """How many connections may come at once: one that finds no room is tried again a second later, or refused."""


class Scripted:
    """`with Scripted(reply) as server:` answers every chat, prompt and message by `reply(body)`.

    Batches, of OpenAI's protocol and of Anthropic's, have ended when they're created: `reply` answers their requests.
    """

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply = reply
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests online, in their order."""
        self.batched: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Scripted:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.say(script.post(self.path.split("?")[0].removeprefix("/v1"), self.body(), self.headers))

            def do_GET(self) -> None:
                self.say(script.get(self.path.split("?")[0].removeprefix("/v1")))

            def do_DELETE(self) -> None:
                self.say({"deleted": True})

            def body(self) -> bytes:
                if (length := self.headers.get("Content-Length")) is not None:
                    return self.rfile.read(int(length))
                parts: list[bytes] = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def say(self, reply: Reply) -> None:
                status, body = reply if isinstance(reply, tuple) else (200, reply)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        """For Anthropic's adapter and for bare prompts of TGI."""
        self.url = f"{self.root}/v1"
        """For OpenAI's."""
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, content: bytes, headers: Any) -> Reply:
        with self._lock:
            if path == "/files":
                return self._upload(content, headers["Content-Type"])
            body = json.loads(content)
            if path == "/batches":
                return self._create(body)
            if path == "/messages/batches":
                return self._create_messages(body)
            self.asked.append(body)
        return self.reply(body)

    def get(self, path: str) -> Reply:
        if path in {"/batches", "/messages/batches"}:
            return {"data": list(reversed(self._jobs.values())), "has_more": False}
        name = path.removesuffix("/content").removesuffix("/results").rpartition("/")[2]
        if path.endswith(("/content", "/results")):
            return self._files[name]
        return self._jobs.get(name, {"id": name, "object": "file", "filename": "f"})

    def _upload(self, content: bytes, kind: str) -> Reply:
        mark = b"--" + kind.split("boundary=")[1].strip('"').encode()
        part = next(part for part in content.split(mark) if b'name="file"' in part)
        name = f"file-{uuid.uuid4().hex}"
        self._files[name] = part.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n", 1)[0]
        return {"id": name, "object": "file"}

    def _create(self, given: dict[str, Any]) -> Reply:
        requests = [json.loads(line) for line in self._files[given["input_file_id"]].splitlines()]
        self.batched += [request["body"] for request in requests]
        output = f"file-{uuid.uuid4().hex}"
        lines = [
            {"custom_id": request["custom_id"], "error": None, "response": self._response(request["body"])}
            for request in requests
        ]
        self._files[output] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        job = {
            "id": f"batch_{uuid.uuid4().hex}",
            "object": "batch",
            "endpoint": given["endpoint"],
            "status": "completed",
            "created_at": int(time.time()),
            "metadata": given.get("metadata"),
            "input_file_id": given["input_file_id"],
            "output_file_id": output,
            "request_counts": {"total": len(lines), "completed": len(lines), "failed": 0},
        }
        self._jobs[job["id"]] = job
        return job

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.reply(body)
        status, said = reply if isinstance(reply, tuple) else (200, reply)
        return {"status_code": status, "request_id": "r", "body": said}

    def _create_messages(self, given: dict[str, Any]) -> Reply:
        name = f"msgbatch_{uuid.uuid4().hex}"
        self.batched += [request["params"] for request in given["requests"]]
        results = [
            {
                "custom_id": request["custom_id"],
                "result": {"type": "succeeded", "message": self.reply(request["params"])},
            }
            for request in given["requests"]
        ]
        self._files[name] = b"".join(json.dumps(result).encode() + b"\n" for result in results)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._jobs[name] = {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {"succeeded": len(results), "errored": 0, "processing": 0, "canceled": 0, "expired": 0},
            "created_at": now,
            "results_url": f"{self.url}/messages/batches/{name}/results",
        }
        return self._jobs[name]


def completion(
    text: str | None = "Fine.", reason: str | None = "stop", usage: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A chat completion of one choice, as OpenAI's SDK declares it. What is in `more` goes beside the choices.

    `message` in it goes into the message.
    """
    from openai.types.chat import ChatCompletion

    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": reason, "message": message, "logprobs": None}],
        "usage": usage or {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        **more,
    }
    # Reasons that OpenAI itself doesn't give aside.
    known = {**answer, "choices": [{**each, "finish_reason": "stop"} for each in answer["choices"]]}
    ChatCompletion.model_validate(known)
    return answer


def message(
    content: list[dict[str, Any]] | str = "Fine.", reason: str | None = "end_turn", **usage: Any
) -> dict[str, Any]:
    """A message as Anthropic's API reference has it."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": content}] if isinstance(content, str) else content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20, "service_tier": "standard", **usage},
    }
