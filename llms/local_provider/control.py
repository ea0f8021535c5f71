"""Handles on a provider: one that runs in a thread of this process, or one in a process of its own."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
from aiohttp import web
from pydantic import BaseModel

from llms.local_provider.app import CONTROL, App
from llms.local_provider.options import BatchAction, ProviderOptions
from llms.local_provider.wire import ApiError, JsonObject
from llms.root import with_project

logger = logging.getLogger(__name__)

_SECONDS_TO_START = 300.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request that the provider got."""

    method: str
    path: str
    """Without `/v1`."""
    url: str
    """The path and query as they came."""
    headers: dict[str, str]
    """Names in lower case, without the key."""
    body: Any
    """Parsed JSON; None for an upload or an empty body."""
    started: float
    finished: float | None
    """Seconds since 1970, as `started`; None while in flight."""
    status: int | None
    """0 where the connection was cut by order, 499 where the client left first, None while in flight."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start, the last reset or the last clear."""

    paths: dict[str, dict[str, int]]
    """Answers by path (such as `/chat/completions`, `/batches/{id}`) and status."""
    in_flight: int
    """Model requests without an answer yet."""
    max_in_flight: int
    refused: int
    """429s of `max_concurrency` and of the budgets per minute."""
    prompt_tokens: int
    completion_tokens: int

    def count(self, path: str | None = None, status: int | None = None) -> int:
        """Answers on a path with a status; None stands for all."""
        chosen = [counts for name, counts in self.paths.items() if path in (None, name)]
        return sum(times for counts in chosen for code, times in counts.items() if status in (None, int(code)))


class ProviderHandle(ABC):
    """What can be asked of and ordered from a provider that runs, wherever it runs."""

    @property
    @abstractmethod
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, for the clients of OpenAI."""

    @property
    def anthropic_url(self) -> str:
        """`http://127.0.0.1:PORT`, for the clients of Anthropic."""
        return self.base_url.removesuffix("/v1")

    @abstractmethod
    def start(self) -> Self: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _control(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The answer of a path under `/_local`. Raises `ApiError`."""

    @property
    def requests(self) -> list[SeenRequest]:
        """The latest requests, oldest first."""
        return [SeenRequest(**seen) for seen in self._control("GET", "/requests")["requests"]]

    @property
    def stats(self) -> Stats:
        return Stats(**self._control("GET", "/stats"))

    @property
    def options(self) -> ProviderOptions:
        return ProviderOptions.model_validate(self._control("GET", "/options"))

    @property
    def batches(self) -> list[JsonObject]:
        """All batches, oldest first, as `GET /v1/batches/{id}` or `/v1/messages/batches/{id}` shows them."""
        return self._control("GET", "/batches")["batches"]

    def set(self, **changes: object) -> None:
        """Changes options (see `ProviderOptions`) at once. Raises `ApiError` 400 on a wrong name or value."""
        self._control("POST", "/options", changes)

    def clear(self) -> None:
        """Forgets requests and stats."""
        self._control("GET", "/requests?clear=1")

    def reset(self) -> None:
        """As if just started: first options, no requests, no files, no batches."""
        self._control("POST", "/reset")

    def end_batch(self, batch_id: str, action: BatchAction = "complete", **order: object) -> JsonObject:
        """Ends a batch now (see `BatchOrder` for what can be ordered), and gives it as it is then.

        Raises `ApiError` 404 for a batch that isn't there and 409 for one that ends already.
        """
        return self._control("POST", f"/batches/{batch_id}", {"action": action, **order})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalProvider(ProviderHandle):
    """A provider on a real socket, served by a thread of this process.

    `with LocalProvider(latency=0.05) as provider:` starts and closes it. `stop()` closes the socket and cuts
    all connections, `start()` opens it again on the same port with everything that was known. Nobody else gets the port
    meanwhile.
    """

    def __init__(
        self, options: ProviderOptions | None = None, *, host: str = "127.0.0.1", port: int = 0, **changes: object
    ) -> None:
        """Options as one object, as keywords, or both (keywords win). Port 0 takes a free one."""
        self._app = App((options or ProviderOptions()).changed(changes))
        self._host, self._port = host, port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None
        self._held: socket.socket | None = None

    @staticmethod
    def spawn(options: ProviderOptions | None = None, *, port: int = 0, **changes: object) -> "SpawnedProvider":
        """The same as a process of its own, not yet started."""
        return SpawnedProvider(options, port=port, **changes)

    @property
    def base_url(self) -> str:
        if not self._port:
            raise RuntimeError("the provider has no port yet; start() it or use it in a with statement")
        return f"http://{self._host}:{self._port}/v1"

    def start(self) -> Self:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="local-provider", daemon=True)
            self._thread.start()
        if self._listener is None:
            self._release()
            self._listener = self._run(Listener.open(self._app, self._host, self._port))
            self._port = self._listener.port
        return self

    def stop(self) -> None:
        if self._listener is not None:
            self._held = self._run(self._listener.close_and_hold())
            self._listener = None

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        self.stop()
        self._release()
        self._run(_on_loop(self._app.close))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the provider isn't running; start() it or use it in a with statement")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _control(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        path, _, query = path.partition("?")
        return self._run(self._app.control(method, path, {"clear": "1"} if query else {}, dict(body or {})))


async def _on_loop(act: Callable[[], None]) -> None:
    act()


class SpawnedProvider(ProviderHandle):
    """A provider in a process of its own, which ends with this one. `stop()` ends the process and everything it
    knew; `start()` begins another on the same port. To refuse everything for a while, `set(up=False)`."""

    def __init__(self, options: ProviderOptions | None = None, *, port: int = 0, **changes: object) -> None:
        self._options = (options or ProviderOptions()).changed(changes)
        self._port = port
        self._process: subprocess.Popen[str] | None = None

    @property
    def base_url(self) -> str:
        if not self._port:
            raise RuntimeError("the provider has no port yet; start() it or use it in a with statement")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Self:
        if self._process is not None:
            return self
        options = self._options.model_dump_json(exclude_unset=True)
        command = [sys.executable, "-m", "llms.local_provider", "--port", str(self._port), "--options", options]
        self._process = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=with_project(os.environ),
        )
        self._port = self._read_port(self._process)
        return self

    def _read_port(self, process: "subprocess.Popen[str]") -> int:
        assert process.stdout is not None
        watchdog = threading.Timer(_SECONDS_TO_START, process.kill)
        watchdog.start()
        line = process.stdout.readline().strip()
        watchdog.cancel()
        if not line.startswith("http://"):
            self.stop()
            raise RuntimeError(f"the local provider didn't start: its first line was {line!r}; see its stderr")
        return int(line.removesuffix("/v1").rpartition(":")[2])

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def close(self) -> None:
        self.stop()

    def _control(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        address = self.base_url.removesuffix("/v1") + CONTROL + path
        data = orjson.dumps(body, default=_plain) if body is not None else None
        try:
            with urlopen(Request(address, data, {"Content-Type": "application/json"}, method=method)) as answer:
                return orjson.loads(answer.read())
        except HTTPError as error:
            told = orjson.loads(error.read())["error"]
            raise ApiError(error.code, told["message"], code=told["code"], param=told["param"]) from None


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} is no JSON")


@dataclass
class Listener:
    """An open socket with its connections."""

    protocol: web.Server
    server: asyncio.Server

    @classmethod
    async def open(cls, app: App, host: str, port: int) -> "Listener":
        """Raises `OSError` where the port is taken."""
        protocol = app.server()
        server = await asyncio.get_running_loop().create_server(protocol, host, port, backlog=2048)
        listener = cls(protocol, server)
        logger.warning("LOCAL PROVIDER on port %s: NOT A MODEL, its answers are made up by rules", listener.port)
        return listener

    @property
    def port(self) -> int:
        return int(self.server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and cuts all connections, also those with a request in flight."""
        self.server.close()
        for connection in self.protocol.connections:
            if connection.transport is not None:
                connection.transport.abort()
            connection.force_close()
        await self.protocol.shutdown(0)
        await self.server.wait_closed()

    async def close_and_hold(self) -> socket.socket | None:
        """Closes, and gives a socket that has its port and doesn't listen; None where another one was quicker."""
        listening = self.server.sockets[0]
        family, address = listening.family, listening.getsockname()
        held = socket.socket(family)
        # Connections of before, which take a while to end, may have it too.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server.close()
        try:
            held.bind(address)
        except OSError:
            held.close()
            held = None
        await self.close()
        return held
