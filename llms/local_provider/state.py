"""What one provider knows while it runs: its options, faults, limits, counts and recorded requests."""

import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import orjson

from llms.local_provider.faults import FaultDraw, Limits
from llms.local_provider.options import ProviderOptions
from llms.local_provider.wire import JsonObject

_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "cookie"})


@dataclass(slots=True)
class RecordedRequest:
    """One request as it came in, and what became of it."""

    method: str
    path: str
    url: str
    """The path and query as they came."""
    raw_headers: Mapping[str, str]
    started: float
    """Seconds since 1970."""
    raw_body: bytes = b""
    finished: float | None = None
    status: int | None = None
    """None while it is in flight, 0 where the connection was cut by order, 499 where the client left."""

    @property
    def body(self) -> object:
        """The body as JSON; None for an upload or an empty body, the text where it isn't JSON."""
        if not self.raw_body:
            return None
        try:
            return orjson.loads(self.raw_body)
        except orjson.JSONDecodeError:
            return self.raw_body.decode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case, without the key."""
        named = ((name.lower(), value) for name, value in self.raw_headers.items())
        return {name: value for name, value in named if name not in _SECRET_HEADERS}

    def as_json(self) -> JsonObject:
        return {
            "method": self.method,
            "path": self.path,
            "url": self.url,
            "headers": self.headers,
            "body": self.body,
            "started": self.started,
            "finished": self.finished,
            "status": self.status,
        }


@dataclass
class ProviderState:
    """Changed only by the event loop that serves it."""

    initial: ProviderOptions
    options: ProviderOptions = field(init=False)
    faults: FaultDraw = field(init=False)
    limits: Limits = field(init=False)
    latencies: random.Random = field(init=False)
    recorded: deque[RecordedRequest] = field(init=False)
    answered: Counter[tuple[str, int]] = field(init=False)
    """Answers by path (without `/v1`) and status."""
    in_flight: int = 0
    """Requests to models that were let in and have no answer yet."""
    max_in_flight: int = 0
    refused: int = 0
    """429s of the limits, not those of fault rules."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    numbers: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.options = self.initial
        self.refresh()
        self.clear()

    def clear(self) -> None:
        """Forgets what was observed; requests in flight stay counted."""
        self.recorded = deque(maxlen=self.options.recorded_requests)
        self.answered = Counter()
        self.max_in_flight = self.in_flight
        self.refused = self.prompt_tokens = self.completion_tokens = 0

    def refresh(self) -> None:
        """Starts faults, limits and draws anew from the options."""
        self.faults = FaultDraw(self.options.faults, self.options.seed)
        self.limits = Limits.of(self.options)
        self.latencies = random.Random(self.options.seed)

    def change(self, changes: Mapping[str, object]) -> None:
        """Replaces options; only the counts that a change concerns start anew. Raises pydantic's `ValidationError`."""
        self.options = self.options.changed(changes)
        if changes.keys() & {"faults", "seed"}:
            self.faults = FaultDraw(self.options.faults, self.options.seed)
        if changes.keys() & {"requests_per_minute", "tokens_per_minute", "burst_seconds"}:
            self.limits = Limits.of(self.options)
        if "seed" in changes:
            self.latencies = random.Random(self.options.seed)
        if "recorded_requests" in changes:
            self.recorded = deque(self.recorded, maxlen=self.options.recorded_requests)

    def latency(self) -> float:
        latency = self.options.latency
        return latency if isinstance(latency, float | int) else self.latencies.uniform(*latency)

    def record(self, method: str, path: str, url: str, headers: Mapping[str, str]) -> RecordedRequest:
        record = RecordedRequest(method, path, url, headers, time.time())
        self.recorded.append(record)
        return record

    def stats(self) -> JsonObject:
        paths: dict[str, dict[str, int]] = {}
        for (path, status), times in self.answered.items():
            paths.setdefault(path, {})[str(status)] = times
        return {
            "paths": paths,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "refused": self.refused,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
