"""How far a step is of how much, how fast, and what it costs until it's done."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flows.engine.costs import Cost, cost_of_run
from flows.engine.graph import Node
from flows.engine.run import Run, StepProgress
from llms.prices import money

SECONDS_SEEN = 60.0
"""The rate is that of so many seconds."""
SECONDS_APART = 1.0


@dataclass(frozen=True)
class Pace:
    """Where a step is now."""

    rows: int
    """Those that it has gone through."""
    whole: int | None
    """All rows that come to it, as far as the steps before let it be known; None where they don't yet."""
    per_second: float
    """Requests that were answered, of late."""
    seconds_left: float | None
    spent: Cost
    """By this run."""
    expected: float | None
    """Dollars in the end, where as much is asked for the other rows. None where nothing tells."""

    @property
    def dollars(self) -> str:
        """`$0.12 of about $0.50`."""
        if self.expected is None:
            return self.spent.known
        return f"{self.spent.known or money(0.0)} of about {money(self.expected)}"


def pace_of(run: Run, progress: StepProgress) -> Pace:
    """A step's pace. Called now and then, it knows the rate between the calls."""
    node = next((each for each in run.nodes if each.name == progress.name), None)
    whole = _rows_into(node) if node is not None else None
    requests = progress.work.all.requests
    per_row = progress.requests / progress.rows_in if progress.requests else 1.0
    rows = progress.rows_in + round(max(0, requests - progress.requests) / per_row)
    left = max(0, whole - rows) if whole is not None else None
    per_second = _rate(progress, requests)
    spent, sent = cost_of_run([progress]), progress.work.sent.requests
    waits = [each.dollars or 0.0 for each in run.jobs if each.step == progress.name and each.state == "waiting"]
    expected = None if sent else run.money.expected.get(progress.name)
    if waits:
        expected = (spent.dollars or 0.0) + sum(waits)
    elif left and sent and spent.dollars is not None:
        expected = spent.dollars * (1 + left * per_row / sent)
    return Pace(
        rows=rows if whole is None else min(rows, whole),
        whole=whole,
        per_second=per_second,
        seconds_left=left * per_row / per_second if left and per_second else None,
        spent=spent,
        expected=expected,
    )


def _rate(progress: StepProgress, requests: int) -> float:
    now, seen = time.monotonic(), progress.seen
    if not seen or now - seen[-1][0] >= SECONDS_APART:
        seen.append((now, requests))
    while len(seen) > 2 and now - seen[1][0] >= SECONDS_SEEN:
        seen.popleft()
    then, before = seen[0]
    return (requests - before) / (now - then) if now - then >= SECONDS_APART else 0.0


def _rows_into(node: Node) -> int | None:
    known = [_rows_out_of(each) for each in node.upstream]
    if node.route is not None or not known:
        return None
    return None if None in known else max(each or 0 for each in known)


def _rows_out_of(node: Node) -> int | None:
    progress = node.run.progress.get(node.name)
    if progress is not None and node.stream is not None and node.stream.finished and node.stream.error is None:
        return progress.rows_out
    whole = _rows_into(node)
    if whole is None or progress is None or not progress.rows_in:
        return whole
    return round(whole * progress.rows_out / progress.rows_in)
