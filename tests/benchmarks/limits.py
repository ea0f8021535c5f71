"""A provider that refuses, side by side with the time it would take at best: `python -m tests.benchmarks.limits`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llms import OpenAILLM
from llms.local_provider import LocalProvider

RUNS = 5


@dataclass(frozen=True)
class Case:
    """A provider, and what is asked of it."""

    name: str
    rows: int
    options: Mapping[str, Any]
    llm: Mapping[str, Any]
    ideal: float
    """Seconds, where no request is refused and none waits without need."""


CASES = [
    Case(
        "refuses above 30 at a time",
        600,
        {"latency": 0.2, "max_concurrency": 30},
        {"max_concurrent_requests": 100},
        4.0,
    ),
    Case(
        "refuses a tenth at random",
        500,
        {"latency": 0.2, "faults": [{"probability": 0.1, "status": 429}]},
        {"max_concurrent_requests": 50},
        2.0,
    ),
    Case(
        "takes 3,000 requests a minute",
        600,
        {"latency": 0.2, "requests_per_minute": 3_000, "burst_seconds": 2.0},
        {"max_concurrent_requests": 100},
        10.2,
    ),
    Case(
        "a hundredth fails, and one always",
        500,
        {
            "latency": 0.2,
            "faults": [{"match": "number 77\\.", "status": 500}, {"probability": 0.01, "status": 500}],
        },
        {"max_concurrent_requests": 50, "max_retries": 4},
        2.0,
    ),
]


def once(case: Case) -> tuple[float, int, int]:
    """Seconds, refusals and rows without an answer."""
    with LocalProvider.spawn(**case.options) as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url, **case.llm)
        llm.load()
        # Connections and imports aren't what is measured.
        llm.generate_outputs([[{"role": "user", "content": "Hello."}]])
        started = time.perf_counter()
        outputs = llm.generate_outputs(
            [[{"role": "user", "content": f"Tell me about number {number}."}] for number in range(case.rows)]
        )
        seconds = time.perf_counter() - started
        return seconds, provider.stats.refused, sum(each["generations"] == [None] for each in outputs)


def main() -> None:
    lines = [
        "| the provider                      | rows | ideal s | seconds | refused | failed |",
        "|-----------------------------------|-----:|--------:|--------:|--------:|-------:|",
    ]
    for case in CASES:
        runs = [once(case) for _ in range(RUNS)]
        seconds, refused, failed = (statistics.median(each) for each in zip(*runs, strict=True))
        measured = f"{case.ideal:7.1f} | {seconds:7.2f} | {refused:7.0f} | {failed:6.0f}"
        lines.append(f"| {case.name:<33} | {case.rows:>4} | {measured} |")
    print("\n".join(lines))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
