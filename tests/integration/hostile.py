"""A provider that plays every fault it can, and a judge that knows only the questions and the final dataset.

Nothing here is shared with `llms.local_provider` or with the adapters: the wires are written from the public API
references of OpenAI and Anthropic. Every text that the provider sells says for which model and which prompt it is, and
has a serial number. So the judge sees a row that is lost, doubled or swapped, and an answer that was paid twice.

As a program, it plays with one seed after another, and prints what it saw:

    python -m tests.integration.hostile --minutes 60 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from aiohttp import web

Wire = Literal["openai", "anthropic"]
Fate = Literal["answered", "cut off", "filtered", "refused", "all thoughts", "too long"]

FATES: dict[Fate, int] = {"answered": 88, "cut off": 3, "filtered": 2, "refused": 3, "all thoughts": 2, "too long": 2}
"""What comes of a prompt whenever it is asked, and how often of a hundred."""
AT_A_TIME = 8
"""Requests that one step has under way online."""
MOST_LIVES = 14
"""Processes that a run may take; after that it is called stuck."""
KEY = "sk-hostile-0123456789abcdefghij"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Game:
    """All that a seed decides."""

    seed: int
    wire: Wire
    offline: bool
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    """One per row; some are equal."""
    generations: int
    kills: tuple[float, ...]
    """Seconds after the start of a life, one for each life that is killed."""
    fault_rate: float
    """How likely a request, a line or a look meets a fault."""
    jobs_at_most: int
    """Requests of a job, so that there are several."""

    @property
    def needed(self) -> Counter[tuple[str, str]]:
        """How many texts each question is worth, by model and prompt."""
        counts = Counter(self.prompts)
        return Counter(
            {(model, prompt): counts[prompt] * self.generations for model in self.models for prompt in counts}
        )


def game_of(seed: int) -> Game:
    chance = random.Random(seed)
    wire: Wire = chance.choice(["openai", "openai", "anthropic"])
    count = chance.randint(20, 90)
    fates = chance.choices(list(FATES), weights=list(FATES.values()), k=count)
    prompts = [f"[{fate}] Say something about number {number} of game {seed}." for number, fate in enumerate(fates)]
    prompts += chance.choices(prompts, k=count // 8)
    chance.shuffle(prompts)
    offline = chance.random() < 0.7
    names = (
        ["gpt-4o-mini", "gpt-4o", "gpt-4.1"]
        if wire == "openai"
        else ["claude-3-haiku", "claude-3-sonnet", "claude-3-opus"]
    )
    return Game(
        seed=seed,
        wire=wire,
        offline=offline,
        models=tuple(names[: chance.choice([1, 1, 2, 3])]),
        prompts=tuple(prompts),
        generations=chance.choice([1, 1, 2]),
        kills=tuple(sorted(chance.uniform(0.1, 2.5) for _ in range(chance.randint(0, 3)))),
        fault_rate=chance.choice([0.02, 0.1, 0.2]),
        jobs_at_most=chance.choice([15, 1000]),
    )


def fate_of(prompt: str) -> Fate:
    return cast("Fate", prompt[1 : prompt.index("]")])


@dataclass
class Job:
    """A batch at the provider."""

    id: str
    requests: list[dict[str, Any]]
    metadata: dict[str, str] | None
    created: float
    ends: float
    ending: str
    """Its last state, in the words of the wire."""
    foreign: bool = False
    """Somebody else's, in the same account."""
    cancelled: bool = False
    lines: list[bytes] | None = None
    errors: list[bytes] = field(default_factory=list[bytes])
    completed: int = 0
    looks: int = 0
    downloads: int = 0


@dataclass
class HostileProvider:
    """`with HostileProvider(game) as provider:` a server on loopback, in a thread of its own."""

    game: Game
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    files: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    sold: dict[tuple[str, str], list[int]] = field(default_factory=dict[tuple[str, str], list[int]])
    """The serial numbers of the texts that got out whole, by model and prompt."""
    asked: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    faults: Counter[str] = field(default_factory=Counter[str])
    """What was played, and how often."""
    url: str = ""
    _rolls: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    _serial: int = 0

    def __enter__(self) -> Self:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(600)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=2**30)
        routes = self._openai() if self.game.wire == "openai" else self._anthropic()
        app.add_routes([web.route(method, path, act) for (method, path), act in routes.items()])
        runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    # --- chance

    def roll(self, what: str, key: str = "") -> float:
        """A number from 0 to 1 that depends on the seed, the thing, and how often it came up: not on the time."""
        self._rolls[what, key] += 1
        text = f"{self.game.seed}/{what}/{key}/{self._rolls[what, key]}"
        return int(short_hash(text), 16) / 16**16

    def plays(self, fault: str, key: str = "", weight: float = 1.0) -> bool:
        """Whether a fault happens now. It's counted."""
        played = self.roll(fault, key) < self.game.fault_rate * weight
        self.faults[fault] += played
        return played

    def one_of(self, faults: Sequence[str], what: str, key: str, weight: float = 1.0) -> str:
        """The one of several faults that happens now; empty: none."""
        if self.roll(what, key) >= self.game.fault_rate * weight:
            return ""
        fault = faults[int(self.roll(f"{what}: which", key) * len(faults))]
        self.faults[fault] += 1
        return fault

    # --- answers

    def text_for(self, model: str, prompt: str, sold: bool) -> str:
        self._serial += 1
        if sold:
            self.sold.setdefault((model, prompt), []).append(self._serial)
        return f"{model}|{short_hash(prompt)}|{self._serial}"

    def answer(self, body: dict[str, Any], sold: bool = True, fewer: bool = False) -> dict[str, Any]:
        """The answer to a request that ends well, or as its prompt always does."""
        model, prompt = str(body["model"]), prompt_of(body)
        fate = fate_of(prompt)
        count = max(1, int(body.get("n") or 1) - fewer)
        sells = sold and fate in {"answered", "cut off"}
        texts = [self.text_for(model, prompt, sells) for _ in range(count)]
        if self.game.wire == "anthropic":
            return anthropic_message(model, texts[0], fate)
        return openai_completion(model, texts, fate)

    def refusal_status(self, prompt: str) -> tuple[int, str, str] | None:
        """The status, code and words for a prompt that is never taken."""
        if fate_of(prompt) == "too long":
            if self.game.wire == "anthropic":
                return 400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"
            return 400, "context_length_exceeded", "This model's maximum context length is 128000 tokens."
        if fate_of(prompt) == "refused" and self.game.wire == "openai":
            return 400, "content_filter", "The response was filtered."
        return None

    def problem(self, status: int, kind: str, said: str) -> dict[str, Any]:
        if self.game.wire == "anthropic":
            return {"type": "error", "error": {"type": kind, "message": said}}
        return {"error": {"message": said, "type": kind, "param": None, "code": kind if status == 400 else None}}

    # --- online

    async def online(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = prompt_of(body)
        key = f"{body['model']}/{prompt}"
        self.asked[body["model"], prompt] += 1
        fault = self.one_of(ONLINE_FAULTS, "online", key)
        await asyncio.sleep(0.02 + 0.1 * self.roll("latency", key))
        match fault:
            case "429 with seconds":
                return self._refused(429, "rate_limit_error", "slow down", {"Retry-After": "1"})
            case "429 with a date":
                date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1))
                return self._refused(429, "rate_limit_error", "slow down", {"Retry-After": date})
            case "429 without a hint":
                return self._refused(429, "rate_limit_error", "slow down")
            case "500" | "503" | "529":
                return self._refused(int(fault), "api_error", "it's us")
            case "a proxy's page":
                return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
            case "no answer":
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            case "an answer cut in its middle":
                return await self._cut(request, json.dumps(self.answer(body, sold=False)).encode())
            case "a 200 that is no JSON":
                return web.Response(text='{"id": "x", "choi', content_type="application/json")
            case "a 200 that holds an error":
                return web.json_response(
                    self.problem(200, "server_error", "upstream is overloaded") | {"choices": None}
                )
            case _:
                pass
        refused = self.refusal_status(prompt)
        if refused is not None:
            return self._refused(*refused)
        fewer = int(body.get("n") or 1) > 1 and self.plays("fewer choices than asked for", key)
        return await self._send_whole(request, body, fewer)

    async def _send_whole(self, request: web.Request, body: dict[str, Any], fewer: bool) -> web.StreamResponse:
        """Send an answer; it's sold only if somebody was there to take it."""
        answer = json.dumps(self.answer(body, fewer=fewer)).encode()
        if request.transport is None or request.transport.is_closing():
            return web.Response()
        return web.Response(body=answer, content_type="application/json")

    def _refused(self, status: int, kind: str, said: str, headers: dict[str, str] | None = None) -> web.Response:
        return web.json_response(self.problem(status, kind, said), status=status, headers=headers)

    async def _cut(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content)), "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    # --- jobs

    def new_job(self, requests: list[dict[str, Any]], metadata: dict[str, str] | None) -> Job:
        name = "batch" if self.game.wire == "openai" else "msgbatch"
        number = len(self.jobs)
        now = time.time()
        job = Job(
            f"{name}_{self.game.seed}x{number}",
            requests,
            metadata,
            now,
            now + 0.3 + self.roll("duration", str(number)),
            self._ending(number),
        )
        for each in requests:
            body = body_of(each)
            self.asked[body["model"], prompt_of(body)] += 1
        self.jobs[job.id] = job
        if self.plays("a colleague's job just like it", str(number)):
            other = self.new_foreign(requests, number)
            self.jobs[other.id] = other
        return job

    def new_foreign(self, requests: list[dict[str, Any]], number: int) -> Job:
        """A job that somebody else made of the same prompts, with another model."""
        copied = [json.loads(json.dumps(each).replace(str(body_of(each)["model"]), "other-model")) for each in requests]
        for place, each in enumerate(copied):
            each["custom_id"] = f"request-{place}"
        now = time.time()
        return Job(f"foreign_{self.game.seed}x{number}", copied, None, now, now + 0.2, "completed", foreign=True)

    def _ending(self, number: int) -> str:
        if self.game.wire == "anthropic":
            return "ended"
        return self.one_of(["expired", "cancelled", "failed"], "ending", str(number)) or "completed"

    def settle(self, job: Job) -> None:
        """Decide, once, what a job gave."""
        if job.lines is not None or time.time() < job.ends:
            return
        job.lines = []
        if job.ending == "failed":
            return
        for place, request in enumerate(job.requests):
            partly = job.ending in {"expired", "cancelled"} or job.cancelled
            if partly and self.roll("partial", f"{job.id}/{place}") < 0.5:
                self._not_done(job, request)
                continue
            self._line(job, request, f"{job.id}/{place}")
        random.Random(self.game.seed).shuffle(job.lines)
        if self.plays("a line of nobody's", job.id):
            job.lines.insert(0, json.dumps({"custom_id": "nobody", "response": 7, "result": [], "error": {}}).encode())

    def _not_done(self, job: Job, request: dict[str, Any]) -> None:
        name = request["custom_id"]
        if self.game.wire == "anthropic":
            cast("list[bytes]", job.lines).append(
                json.dumps({"custom_id": name, "result": {"type": "canceled"}}).encode()
            )
            return
        code = "batch_expired" if job.ending == "expired" else "batch_cancelled"
        if self.roll("no line at all", name) < 0.5:
            job.errors.append(
                json.dumps({"custom_id": name, "response": None, "error": {"code": code, "message": code}}).encode()
            )

    def _line(self, job: Job, request: dict[str, Any], key: str) -> None:
        """Write what a request of a job came to, with or without a fault."""
        name, body = request["custom_id"], body_of(request)
        lines = cast("list[bytes]", job.lines)
        refused = self.refusal_status(prompt_of(body))
        fault = self.one_of(LINE_FAULTS[self.game.wire], "line", key, 0.5)
        if refused is not None:
            job.errors.append(self._refused_line(name, *refused))
            return
        if fault:
            whole = self._answered_line(name, self.answer(body, sold=False))
            broken = self._broken(fault, name, whole)
            (job.errors if fault in IN_ERROR_FILE else lines).append(broken)
            return
        job.completed += 1
        # What a colleague pays for is no concern of ours.
        lines.append(json.dumps(self._answered_line(name, self.answer(body, sold=not job.foreign))).encode())
        if self.game.wire == "openai" and self.plays("an error beside the answer", key, 0.3):
            error = {"code": "batch_cancelled", "message": "cancelled"}
            job.errors.append(json.dumps({"custom_id": name, "response": None, "error": error}).encode())

    def _answered_line(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        if self.game.wire == "anthropic":
            return {"custom_id": name, "result": {"type": "succeeded", "message": answer}}
        return {
            "id": "x",
            "custom_id": name,
            "response": {"status_code": 200, "request_id": "r", "body": answer},
            "error": None,
        }

    def _refused_line(self, name: str, status: int, kind: str, said: str) -> bytes:
        problem = self.problem(status, kind, said)
        if self.game.wire == "anthropic":
            return json.dumps({"custom_id": name, "result": {"type": "errored", "error": problem}}).encode()
        return json.dumps(
            {"custom_id": name, "response": {"status_code": status, "body": problem}, "error": None}
        ).encode()

    def _broken(self, fault: str, name: str, whole: dict[str, Any]) -> bytes:
        text = json.dumps(whole)
        match fault:
            case "half a character in a line":
                return text.replace("|", "\\ud83d|", 1).encode()
            case "NaN in a line":
                return text.replace('"usage": {', '"usage": {"x": NaN, ', 1).encode()
            case "a line that is cut":
                return text[: len(text) // 2].encode()
            case "a status that is no number":
                return text.replace('"status_code": 200', '"status_code": "none"', 1).encode()
            case "a status of 0":
                return json.dumps(
                    {"custom_id": name, "response": {"status_code": 0, "body": {}}, "error": None}
                ).encode()
            case "an empty body":
                return json.dumps(
                    {"custom_id": name, "response": {"status_code": 200, "body": None}, "error": None}
                ).encode()
            case "a nested error":
                error = {"error": {"message": "overloaded", "code": 503}}
                return json.dumps(
                    {"custom_id": name, "response": {"status_code": 503, "body": None}, "error": error}
                ).encode()
            case "500 in the error file":
                return self._refused_line(name, 500, "server_error", "it's us")
            case "fields of odd types":
                for key, value in {
                    "content": 7,
                    "choices": {"a": 1},
                    "usage": [],
                    "message": "text",
                    "result": 3,
                }.items():
                    text = text.replace(f'"{key}": ', f'"{key}": {json.dumps(value)}, "was_{key}": ', 1)
                return text.encode()
            case "a result of a kind that isn't known":
                return json.dumps({"custom_id": name, "result": {"type": "postponed"}}).encode()
            case "expired" | "canceled":
                return json.dumps({"custom_id": name, "result": {"type": fault}}).encode()
            case "overloaded":
                return self._refused_line(name, 529, "overloaded_error", "overloaded")
            case _:
                raise AssertionError(fault)

    async def create(
        self, request: web.Request, make: Callable[[], Job], show: Callable[[Job], dict[str, Any]]
    ) -> web.StreamResponse:
        number = str(len(self.jobs))
        match self.one_of(CREATE_FAULTS, "create", number):
            case "429 at a job's creation":
                return self._refused(429, "rate_limit_error", "too many batches", {"Retry-After": "1"})
            case "500 before a job is created":
                return self._refused(500, "api_error", "it's us")
            case "500 after a job was created":
                make()
                return self._refused(500, "api_error", "it's us")
            case "cut after a job was created":
                make()
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            case _:
                return web.json_response(show(make()))

    def known(self, request: web.Request) -> Job | None:
        job = self.jobs.get(request.match_info["job"])
        if job is not None:
            job.looks += 1
            self.settle(job)
        return job

    def looked_at(self, job: Job) -> web.Response | None:
        """The refusal of a look at a job, if there is one."""
        if self.plays("500 at a look", f"{job.id}/{job.looks}"):
            return self._refused(500, "api_error", "it's us")
        return None

    # --- OpenAI: https://platform.openai.com/docs/api-reference/batch

    def _openai(self) -> dict[tuple[str, str], Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        return {
            ("POST", "/v1/chat/completions"): self.online,
            ("POST", "/v1/files"): self._upload,
            ("GET", "/v1/files"): self._list_files,
            ("GET", "/v1/files/{file}"): self._file,
            ("DELETE", "/v1/files/{file}"): self._delete_file,
            ("GET", "/v1/files/{file}/content"): self._content,
            ("POST", "/v1/batches"): self._create_batch,
            ("GET", "/v1/batches"): self._list_batches,
            ("GET", "/v1/batches/{job}"): self._batch,
            ("POST", "/v1/batches/{job}/cancel"): self._cancel,
        }

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        upload = cast("web.FileField", form["file"])
        name = f"file-{self.game.seed}x{len(self.files)}"
        if self.plays("500 at an upload", name):
            return self._refused(500, "server_error", "it's us")
        self.files[name] = upload.file.read().splitlines()
        return web.json_response(self._file_object(name))

    def _file_object(self, name: str) -> dict[str, Any]:
        size = sum(map(len, self.files[name]))
        return {
            "id": name,
            "object": "file",
            "bytes": size,
            "created_at": int(time.time()),
            "filename": "requests.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    async def _list_files(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"object": "list", "data": [self._file_object(name) for name in self.files], "has_more": False}
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        return web.json_response(self._file_object(name)) if name in self.files else self._no_such("File")

    async def _delete_file(self, request: web.Request) -> web.StreamResponse:
        self.files.pop(request.match_info["file"], None)
        return web.json_response({"id": request.match_info["file"], "object": "file", "deleted": True})

    def _no_such(self, what: str) -> web.Response:
        return self._refused(404, "invalid_request_error", f"No such {what} object")

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        file = given["input_file_id"]
        if file not in self.files or self.plays("a file that isn't found right after its upload", file):
            return self._refused(
                400, "invalid_request_error", f"Cannot find file {file}, or organization does not have access to it."
            )
        requests = [json.loads(line) for line in self.files[file] if line.strip()]
        return await self.create(request, lambda: self.new_job(requests, given.get("metadata")), self._batch_object)

    def _batch_object(self, job: Job) -> dict[str, Any]:
        self.settle(job)
        over = job.lines is not None
        status = job.ending if over else "in_progress"
        late = over and job.looks <= 3 and self.plays("no output file yet", job.id)
        if over and job.looks <= 2 and self.plays("a state that isn't known", job.id):
            status = "reticulating"
        files = {
            "output_file_id": f"{job.id}-out" if over and job.lines and not late else None,
            "error_file_id": f"{job.id}-err" if over and job.errors else None,
        }
        failed = {"object": "list", "data": [{"code": "server_error", "message": "the batch failed"}]}
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": failed if status == "failed" else None,
            "input_file_id": "file-in",
            "completion_window": "24h",
            "status": status,
            **files,
            "created_at": int(job.created),
            "request_counts": {
                "total": len(job.requests),
                "completed": job.completed if over else 0,
                "failed": len(job.errors),
            },
            "metadata": job.metadata,
        }

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        job = self.known(request)
        if job is None:
            return self._no_such("Batch")
        return self.looked_at(job) or web.json_response(self._batch_object(job))

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        page = self._page(request.query.get("after"), int(request.query.get("limit", 20)))
        data = [self._batch_object(job) for job in page[0]]
        return web.json_response(
            {"object": "list", "data": data, "has_more": page[1], "last_id": data[-1]["id"] if data else None}
        )

    def _page(self, after: str | None, limit: int) -> tuple[list[Job], bool]:
        """A page of the jobs, the newest first; one that was just made may not be in it yet."""
        lag = 1.0 if self.roll("list lag") < self.game.fault_rate else 0.0
        listed = [job for job in reversed(self.jobs.values()) if time.time() - job.created >= lag]
        names = [job.id for job in listed]
        start = names.index(after) + 1 if after in names else 0
        size = min(limit, 3)
        return listed[start : start + size], start + size < len(listed)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        job = self.known(request)
        if job is None:
            return self._no_such("Batch")
        if job.lines is None:
            job.cancelled, job.ends = True, 0.0
            job.ending = "cancelled" if self.game.wire == "openai" else "ended"
            self.settle(job)
        return web.json_response(self._batch_object(job) if self.game.wire == "openai" else self._message_batch(job))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        job = self.jobs.get(name[:-4])
        if job is None or job.lines is None:
            return self._no_such("File")
        if self.plays("an output file that isn't found yet", f"{name}/{job.downloads // 2}"):
            return self._no_such("File")
        return await self._lines(request, job, job.errors if name.endswith("-err") else job.lines)

    async def _lines(self, request: web.Request, job: Job, lines: Sequence[bytes]) -> web.StreamResponse:
        job.downloads += 1
        content = b"".join(line + b"\n" for line in lines)
        match self.one_of(DOWNLOAD_FAULTS, "download", f"{job.id}/{job.downloads}"):
            case "results cut in their middle":
                return await self._cut(request, content)
            case "results that lack their end" if self.game.wire == "openai":
                return web.Response(body=content[: len(content) * 2 // 3])
            case "500 at a download":
                return self._refused(500, "api_error", "it's us")
            case _:
                return web.Response(body=content)

    # --- Anthropic: https://docs.claude.com/en/api/creating-message-batches

    def _anthropic(self) -> dict[tuple[str, str], Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        return {
            ("POST", "/v1/messages"): self.online,
            ("POST", "/v1/messages/batches"): self._create_message_batch,
            ("GET", "/v1/messages/batches"): self._list_message_batches,
            ("GET", "/v1/messages/batches/{job}"): self._get_message_batch,
            ("DELETE", "/v1/messages/batches/{job}"): self._delete_message_batch,
            ("POST", "/v1/messages/batches/{job}/cancel"): self._cancel,
            ("GET", "/v1/messages/batches/{job}/results"): self._results,
        }

    async def _create_message_batch(self, request: web.Request) -> web.StreamResponse:
        given = await request.json()
        return await self.create(request, lambda: self.new_job(given["requests"], None), self._message_batch)

    def _message_batch(self, job: Job) -> dict[str, Any]:
        self.settle(job)
        over = job.lines is not None
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created))
        odd = over and job.looks <= 2 and self.plays("a state that isn't known", job.id)
        counts = {
            "processing": 0 if over else len(job.requests),
            "succeeded": job.completed if over else 0,
            "errored": len(job.errors),
            "canceled": 0,
            "expired": 0,
        }
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "reticulating" if odd else "ended" if over else "in_progress",
            "request_counts": counts,
            "created_at": when,
            "expires_at": when,
            "ended_at": when if over else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{job.id}/results" if over else None,
        }

    async def _list_message_batches(self, request: web.Request) -> web.StreamResponse:
        jobs, more = self._page(request.query.get("after_id"), int(request.query.get("limit", 20)))
        data = [self._message_batch(job) for job in jobs]
        return web.json_response(
            {"data": data, "has_more": more, "first_id": None, "last_id": data[-1]["id"] if data else None}
        )

    async def _get_message_batch(self, request: web.Request) -> web.StreamResponse:
        job = self.known(request)
        if job is None:
            return self._refused(404, "not_found_error", "no such batch")
        return self.looked_at(job) or web.json_response(self._message_batch(job))

    async def _delete_message_batch(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": request.match_info["job"], "type": "message_batch_deleted"})

    async def _results(self, request: web.Request) -> web.StreamResponse:
        job = self.known(request)
        if job is None or job.lines is None:
            return self._refused(404, "not_found_error", "no results")
        return await self._lines(request, job, [*job.lines, *job.errors])


ONLINE_FAULTS = (
    "429 with seconds",
    "429 with a date",
    "429 without a hint",
    "500",
    "503",
    "529",
    "a proxy's page",
    "no answer",
    "an answer cut in its middle",
    "a 200 that is no JSON",
    "a 200 that holds an error",
)
LINE_FAULTS: dict[Wire, tuple[str, ...]] = {
    "openai": (
        "half a character in a line",
        "NaN in a line",
        "a line that is cut",
        "a status that is no number",
        "a status of 0",
        "an empty body",
        "a nested error",
        "500 in the error file",
        "fields of odd types",
    ),
    "anthropic": (
        "half a character in a line",
        "NaN in a line",
        "a line that is cut",
        "fields of odd types",
        "a result of a kind that isn't known",
        "expired",
        "canceled",
        "overloaded",
    ),
}
IN_ERROR_FILE = {"a status of 0", "a nested error", "500 in the error file"}
CREATE_FAULTS = (
    "429 at a job's creation",
    "500 before a job is created",
    "500 after a job was created",
    "cut after a job was created",
)
DOWNLOAD_FAULTS = ("results cut in their middle", "results that lack their end", "500 at a download")


def body_of(request: dict[str, Any]) -> dict[str, Any]:
    """The body of a request in a job, of either wire."""
    return request.get("body") or request["params"]


def prompt_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def openai_completion(model: str, texts: Sequence[str], fate: Fate) -> dict[str, Any]:
    reason = {"cut off": "length", "filtered": "content_filter", "all thoughts": "length"}.get(fate, "stop")
    contents = [None if fate == "all thoughts" else text for text in texts]
    choices = [
        {"index": place, "finish_reason": reason, "message": {"role": "assistant", "content": text, "refusal": None}}
        for place, text in enumerate(contents)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 7 * len(texts), "total_tokens": 10 + 7 * len(texts)}
    return {
        "id": "chatcmpl-x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def anthropic_message(model: str, text: str, fate: Fate) -> dict[str, Any]:
    reasons = {"cut off": "max_tokens", "filtered": "refusal", "refused": "refusal", "all thoughts": "max_tokens"}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    return {
        "id": "msg_x",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [thinking]
        if fate == "all thoughts"
        else []
        if fate == "refused"
        else [{"type": "text", "text": text}],
        "stop_reason": reasons.get(fate, "end_turn"),
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 7},
    }


# --- the run that is played with


@dataclass(frozen=True)
class Play:
    """What a life has to know."""

    game: Game
    url: str
    folder: str


def live(play: Play) -> None:
    """One process of the run, from its first line to its last. Its exit status says whether it came through."""
    log = os.open(f"{play.folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(
        STILLFLOW_STORAGE=f"{play.folder}/storage",
        STILLFLOW_POLL_SECONDS="1",
        OPENAI_API_KEY=KEY,
        ANTHROPIC_API_KEY=KEY,
        OPENAI_BASE_URL=f"{play.url}/v1",
        ANTHROPIC_BASE_URL=play.url,
    )
    asyncio.run(_make_datasets(play))


async def _make_datasets(play: Play) -> None:
    from flows import load, save
    from llms import AnthropicLLM, OpenAILLM
    from tasks import SaveToFiles, TextGeneration

    game = play.game
    rows = [{"id": place, "instruction": prompt} for place, prompt in enumerate(game.prompts)]
    adapter = OpenAILLM if game.wire == "openai" else AnthropicLLM
    # A provider that takes few requests in a job.
    adapter.batch_limits = replace(adapter.batch_limits, requests=game.jobs_at_most)

    async def one(model: str) -> None:
        llm = adapter(model=model, use_offline_batch_generation=game.offline, max_concurrent_requests=AT_A_TIME)
        task = TextGeneration(name="step", llm=llm, num_generations=game.generations, group_generations=True)
        await save(
            task.map(load(rows, shard_rows=25)),
            SaveToFiles(path=f"{play.folder}/{model}.jsonl"),
            max_failed_rows=len(rows),
        )

    # Flows of one storage that ask several models the same questions at the same time.
    await asyncio.gather(*map(one, game.models))


# --- the judge


@dataclass(frozen=True)
class Verdict:
    """What became of the rows and of the money."""

    rows: int = 0
    lost: int = 0
    """Rows that aren't there, or have no answer although the provider has one for them."""
    doubled: int = 0
    """Rows that are there twice, or share a text that was sold once."""
    swapped: int = 0
    """Rows with the answer to another prompt, or another model's."""
    believed: int = 0
    """Rows that show half an answer, or none, as if it were whole."""
    paid_twice: int = 0
    """Texts that were sold beyond what the rows need, and beyond what was under way at a kill."""
    asked_again: int = 0
    """Requests whose end is always the same, sent more than once in a life."""

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def faultless(self) -> bool:
        return not any(value for name, value in asdict(self).items() if name != "rows")


def judge(
    game: Game,
    saved: dict[str, list[dict[str, Any]]],
    sold: dict[tuple[str, str], list[int]],
    asked: Counter[tuple[str, str]] | None = None,
    lives: int = 1,
) -> Verdict:
    """The verdict on a game, from its questions, the rows of its final datasets by model, and what was sold.

    Args:
        asked: how often each question was asked, where that is to be judged too.
        lives: how many processes the run took.
    """
    verdict = sum((judge_rows(game, model, saved.get(model, [])) for model in game.models), Verdict())
    texts = Counter(text for rows in saved.values() for row in rows for text in texts_of(row))
    doubled = sum(count - 1 for count in texts.values())
    # What is on its way at the moment of a kill can't be known online; a job can.
    under_way = 0 if game.offline else len(game.kills) * AT_A_TIME * game.generations * len(game.models)
    spare = sum(max(0, len(numbers) - game.needed[question]) for question, numbers in sold.items())
    hopeless = [question for question in asked or () if fate_of(question[1]) in {"all thoughts", "too long", "refused"}]
    rows_of = Counter(game.prompts)
    again = sum(
        max(0, (asked or Counter())[each] - lives * rows_of[each[1]] * tries_per_row(game)) for each in hopeless
    )
    return verdict + Verdict(doubled=doubled, paid_twice=max(0, spare - under_way), asked_again=again)


def tries_per_row(game: Game) -> int:
    """How often a row may ask what always ends the same way: once a generation, and again after transient faults."""
    return game.generations * 7


def judge_rows(game: Game, model: str, rows: list[dict[str, Any]]) -> Verdict:
    by_place: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_place.setdefault(row["id"], []).append(row)
    lost = swapped = believed = 0
    for place, prompt in enumerate(game.prompts):
        row = by_place.get(place, [{}])[0]
        texts, fate = texts_of(row), fate_of(prompt)
        metadata = row.get("distilabel_metadata") or {}
        marked = any(name.startswith(("error", "cut_off", "finish_reason")) and metadata[name] for name in metadata)
        swapped += row.get("instruction", prompt) != prompt
        swapped += any(text.split("|")[:2] != [model, short_hash(prompt)] for text in texts)
        complete = len(texts) == game.generations
        lost += not row or (fate in {"answered", "cut off"} and not complete)
        believed += bool(row) and fate != "answered" and not marked
        believed += bool(row) and not complete and not metadata.get("error_step")
    return Verdict(
        rows=len(game.prompts),
        lost=lost,
        doubled=sum(len(each) - 1 for each in by_place.values()),
        swapped=swapped,
        believed=believed,
    )


def texts_of(row: dict[str, Any]) -> list[str]:
    """What was sold for a row. Half a character, read as the sign for it, isn't a part of that."""
    found = row.get("generation")
    return [text.replace("\ufffd", "") for text in (found if isinstance(found, list) else [found]) if text]


# --- the play


@dataclass(frozen=True)
class Outcome:
    """How a game went."""

    game: Game
    verdict: Verdict
    lives: int
    stuck: bool
    faults: Counter[str]
    log: str

    @property
    def faultless(self) -> bool:
        return self.verdict.faultless and not self.stuck


def warm_processes() -> Any:
    """Where processes are forked from: one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "flows",
            "tasks",
            "llms.providers.openai",
            "llms.providers.anthropic",
            "datasets",
            "openai",
            "aiohttp",
            "prefect",
            "pyarrow.parquet",
            __name__,
        ]
    )
    return context


def play(game: Game, folder: Path, context: Any, seconds_per_life: float = 300) -> Outcome:
    """Start the run, kill it where the game says so, and start it again until every row that can be answered is."""
    kills, killed = list(game.kills), list[float]()
    lives = 0
    with HostileProvider(game) as provider:
        came_through = False
        while lives < MOST_LIVES and not (came_through and not _lacks_rows(game, folder)):
            lives += 1
            process = context.Process(target=live, args=(Play(game, provider.url, str(folder)),), daemon=True)
            process.start()
            seconds = kills.pop(0) if kills else seconds_per_life
            process.join(seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.exitcode == -signal.SIGKILL:
                killed.append(seconds)
            came_through = process.exitcode == 0
        saved = {model: rows_in(folder / f"{model}.jsonl") for model in game.models}
        # Those that came too late took nothing, and a life that took too long was killed as well.
        verdict = judge(replace(game, kills=tuple(killed)), saved, provider.sold, provider.asked, lives)
        log = (folder / "log").read_text(errors="replace")[-4000:] if (folder / "log").exists() else ""
        return Outcome(game, verdict, lives, not came_through, provider.faults, log)


def _lacks_rows(game: Game, folder: Path) -> bool:
    """Whether a person would press Retry once more: rows failed that the provider has answers for."""
    saved = {model: rows_in(folder / f"{model}.jsonl") for model in game.models}
    return any(judge_rows(game, model, rows).lost for model, rows in saved.items())


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(outcomes: Iterable[Outcome]) -> str:
    """What was played and seen, for people."""
    listed = list(outcomes)
    total = sum((each.verdict for each in listed), Verdict())
    faults = sum((each.faults for each in listed), Counter[str]())
    lines = [
        f"{len(listed)} games, {sum(each.lives for each in listed)} lives, {sum(faults.values())} faults played of"
        f" {len([name for name in faults if faults[name]])} kinds, {sum(each.stuck for each in listed)} stuck",
        ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in asdict(total).items()),
        *(f"  {count:6} {name}" for name, count in sorted(faults.items(), key=lambda each: -each[1]) if count),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Play with a hostile provider, one seed after another.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1, help="The first one.")
    parser.add_argument("--games", type=int, default=0, help="At most so many; 0: as many as the minutes allow.")
    given = parser.parse_args()
    context = warm_processes()
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60 * given.minutes
    seed = given.seed
    while time.monotonic() < end and not (given.games and len(outcomes) >= given.games):
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            outcome = play(game_of(seed), Path(folder), context)
        outcomes.append(outcome)
        said = "ok" if outcome.faultless else f"WRONG {outcome.verdict} stuck={outcome.stuck}\n{outcome.log}"
        game = outcome.game
        how = f"{game.wire}, {'batch' if game.offline else 'online'}, {len(game.prompts)} rows x {len(game.models)}"
        sys.stdout.write(f"seed {seed} ({how}, {outcome.lives} lives): {said}\n")
        sys.stdout.flush()
        seed += 1
    sys.stdout.write(report(outcomes) + "\n")
    return 0 if all(each.faultless for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
