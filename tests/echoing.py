"""A server that repeats, in what it answers, the key that it was sent: as a gateway's errors do."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

Reply = Callable[[str, dict[str, Any]], tuple[int, Any]]
"""Of the key and the request's body: the status, and the answer's body."""


def key_in(headers: Any) -> str:
    """The key of a request, from whichever header has it."""
    given = headers.get("x-api-key") or headers.get("api-key") or headers.get("Authorization") or ""
    return given.removeprefix("Bearer ")


def refusal(words: str) -> Reply:
    """Refuse every request in `words`, with the key in place of `{key}`, and in other forms in place of `{url}` ..."""

    def reply(key: str, body: dict[str, Any]) -> tuple[int, Any]:
        basic = base64.b64encode(f"user:{key}".encode()).decode()
        said = words.format(key=key, url=quote(key, safe=""), basic=basic, half=key[: len(key) * 2 // 3])
        return 400, {"error": {"message": said, "type": "invalid_request_error"}}

    return reply


def answer(key: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Answer with the key, in the form of OpenAI's or of Anthropic's API."""
    text = f"You are {key}, aren't you?"
    if "max_tokens" in body and "claude" in body["model"]:
        content = [{"type": "text", "text": text}]
        usage = {"input_tokens": 1, "output_tokens": 1}
        return 200, {"type": "message", "content": content, "stop_reason": "end_turn", "usage": usage}
    message = {"role": "assistant", "content": text}
    return 200, {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": {}}


class Server(ThreadingHTTPServer):
    request_queue_size = 512
    """How many connections may come at once: one that finds no room is tried again a second later, or refused."""


@dataclass
class EchoServer:
    """`with EchoServer(refusal("wrong: {key}")) as server:` on loopback. `server.keys` are those that it was sent."""

    reply: Reply
    keys: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def __enter__(self) -> Self:
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                echo.headers.append(dict(self.headers))
                echo.keys.append(key_in(self.headers))
                status, answered = echo.reply(echo.keys[-1], body)
                content = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                echo.keys.append(key_in(self.headers))
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


def all_forms_in(text: str, key: str) -> list[str]:
    """Whatever of `key` can be read in `text`: as it is, percent-encoded, in base64, in JSON's escapes; half of it too.

    Written without a look at how the project finds it.
    """
    found: list[str] = []
    readings = {"plain": text, "percent": unquote(text), "escapes": text.encode().decode("unicode_escape", "ignore")}
    for name, reading in readings.items():
        if key in reading or key[: len(key) // 2 + 1] in reading:
            found.append(name)
    for start in range(len(text)):
        for length in range(16, min(400, len(text) - start), 4):
            piece = text[start : start + length]
            if not piece.replace("+", "").replace("/", "").replace("=", "").isalnum():
                break
            try:
                decoded = base64.b64decode(piece, validate=True).decode("utf-8", "ignore")
            except ValueError:
                continue
            if key[: len(key) // 2] in decoded:
                found.append("base64")
                return found
    return found
