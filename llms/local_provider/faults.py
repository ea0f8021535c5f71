"""Faults to order: which request fails and how, how fast models answer, and what the budgets let through."""

import math
import random
import re
from dataclasses import dataclass, field

import orjson

from llms.local_provider.messages import spoiled_message
from llms.local_provider.options import FaultRule, Malformed, ProviderOptions
from llms.local_provider.wire import ApiError, JsonObject, is_list, is_object

_MESSAGES = {
    400: "The request was refused.",
    401: "Incorrect API key provided.",
    403: "You are not allowed to sample from this model.",
    404: "Not found.",
    429: "Rate limit reached. Please try again later.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The engine is currently overloaded, please try again later.",
}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


@dataclass
class FaultDraw:
    """The fault rules with their counts of matches. The same sequence of requests meets the same faults."""

    rules: tuple[FaultRule, ...]
    seed: int
    counts: list[int] = field(init=False)
    draws: list[random.Random] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.rules)
        self.draws = [random.Random(f"{self.seed}/{number}") for number in range(len(self.rules))]

    def next(self, path: str, body: bytes) -> FaultRule | None:
        """The rule that decides this request, if any; the rules up to it count the match."""
        return next((rule for number, rule in enumerate(self.rules) if self._fires(number, rule, path, body)), None)

    def _fires(self, number: int, rule: FaultRule, path: str, body: bytes) -> bool:
        if rule.path is not None and not path.startswith(rule.path):
            return False
        if rule.match is not None and not re.search(rule.match, body.decode("utf-8", "replace")):
            return False
        count = self.counts[number] - rule.after
        self.counts[number] += 1
        within = count >= 0 and (rule.times is None or count < rule.times)
        return within and (rule.probability >= 1 or self.draws[number].random() < rule.probability)


def is_refusal(rule: FaultRule) -> bool:
    """Whether the rule answers with an error, rather than late, spoiled or not at all."""
    return rule.status is not None or not (rule.malformed or rule.disconnect or rule.hang is not None)


def refusal(rule: FaultRule) -> ApiError:
    status = rule.status or 500
    return ApiError(
        status,
        rule.message or _MESSAGES.get(status, f"Ordered to answer with status {status}."),
        code=rule.code or _CODES.get(status),
        retry_after=rule.retry_after,
    )


def spoiled(body: bytes, how: Malformed) -> tuple[bytes, str]:
    """Body and content type of an answer after it was spoiled."""
    match how:
        case "not-json":
            return b"upstream request failed", "application/json"
        case "truncated-json":
            return body[: len(body) // 2], "application/json"
        case "empty":
            return b"", "application/json"
        case "html":
            return b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>", "text/html"
        case "missing-choices" | "null-content" | "content-filter" | "refusal":
            answer = orjson.loads(body)
            return orjson.dumps(_spoil_choices(answer, how) if is_object(answer) else answer), "application/json"


def _spoil_choices(answer: JsonObject, how: str) -> JsonObject:
    if answer.get("type") == "message":
        return spoiled_message(answer, how)
    if how == "missing-choices":
        return {name: value for name, value in answer.items() if name not in ("choices", "data")}
    choices = answer.get("choices")
    return {**answer, "choices": [_spoil_choice(choice, how) for choice in choices]} if is_list(choices) else answer


def _spoil_choice(choice: object, how: str) -> object:
    if not is_object(choice) or not is_object(message := choice.get("message")):
        return choice
    if how == "refusal":
        return {**choice, "message": {**message, "content": None, "refusal": "I'm sorry, I can't assist with that."}}
    finish = "content_filter" if how == "content-filter" else choice.get("finish_reason")
    return {**choice, "message": {**message, "content": None}, "finish_reason": finish}


@dataclass
class Budget:
    """A bucket that fills at `per_minute` / 60 a second and holds what `burst_seconds` bring."""

    per_minute: float
    burst_seconds: float
    level: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_minute / 60 * self.burst_seconds)

    def refill(self, now: float) -> None:
        passed = now - self.at if self.at is not None else 0.0
        self.level = min(self.capacity, self.level + passed * self.per_minute / 60)
        self.at = now

    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` can be taken; 0 when it can be now. What is more than the bucket holds costs all."""
        return max(0.0, (min(amount, self.capacity) - self.level) / self.per_minute * 60)

    def take(self, amount: float) -> None:
        self.level -= min(amount, self.capacity)


@dataclass
class Limits:
    """The budgets of requests and of tokens, both None by default."""

    requests: Budget | None
    tokens: Budget | None

    @classmethod
    def of(cls, options: ProviderOptions) -> "Limits":
        burst = options.burst_seconds
        return cls(
            requests=Budget(options.requests_per_minute, burst) if options.requests_per_minute else None,
            tokens=Budget(options.tokens_per_minute, burst) if options.tokens_per_minute else None,
        )

    @property
    def budgets(self) -> list[tuple[str, Budget]]:
        named = (("requests", self.requests), ("tokens", self.tokens))
        return [(name, budget) for name, budget in named if budget is not None]

    def admit(self, tokens: int, now: float) -> ApiError | None:
        """Takes one request of so many tokens from the budgets, or gives the 429 that refuses it."""
        costs = {"requests": 1, "tokens": tokens}
        for name, budget in self.budgets:
            budget.refill(now)
            if (wait := budget.wait_for(costs[name])) > 0:
                return _over_budget(name, budget, costs[name], wait)
        for name, budget in self.budgets:
            budget.take(costs[name])
        return None

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, budget in self.budgets:
            found[f"x-ratelimit-limit-{name}"] = f"{budget.per_minute:.0f}"
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(budget.level)))
            found[f"x-ratelimit-reset-{name}"] = _duration((budget.capacity - budget.level) / budget.per_minute * 60)
        return found


def _over_budget(name: str, budget: Budget, cost: int, wait: float) -> ApiError:
    short = "RPM" if name == "requests" else "TPM"
    used = budget.capacity - budget.level
    message = (
        f"Rate limit reached in organization org-local on {name} per min ({short}): Limit {budget.per_minute:.0f}, "
        f"Used {used:.0f}, Requested {cost}. Please try again in {_duration(wait)}."
    )
    return ApiError(429, message, kind=name, code="rate_limit_exceeded", retry_after=wait)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


def retry_headers(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def too_many_at_once(limit: int, wait: float) -> ApiError:
    message = f"Too many concurrent requests: at most {limit} at a time. Please try again in {_duration(wait)}."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", retry_after=wait)
