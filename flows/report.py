"""What people read about a run: progress lines, the table of steps, the failed rows with their reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flows.run import Run, StepProgress
from flows.shards import Work

MOST_REASONS = 20


def progress_line(progress: StepProgress) -> str:
    """How far a step is, in one line."""
    parts = [f"{progress.rows_out:,} rows"]
    if progress.answered:
        parts.append(f"{progress.answered:,} requests answered")
    if progress.failed:
        parts.append(f"{progress.failed:,} rows failed")
    if progress.reused:
        parts.append(f"{progress.reused:,} of {progress.shards:,} shards from the cache")
    return f"{progress.name}: {', '.join(parts)}"


def total_work(run: Run) -> Work:
    return sum((progress.work for progress in run.progress.values()), Work())


def summary_lines(run: Run) -> list[str]:
    """The run in a few lines for a terminal: steps, requests, tokens, time, failures."""
    work = total_work(run)
    lines = [progress_line(progress) for progress in run.progress.values()]
    lines.append(
        f"{work.sent:,} requests sent, {work.input_tokens:,} input and {work.output_tokens:,} output tokens,"
        f" {time.time() - run.started:.1f} s"
    )
    return [*lines, *(f"failed: {line}" for line in failure_lines(run))]


def failure_lines(run: Run) -> list[str]:
    """The reasons why rows failed, the most frequent first."""
    return [f"{count:,} × {step}: {kind}: {message}" for step, kind, message, count in failures(run)[:MOST_REASONS]]


def failures(run: Run) -> list[tuple[str, str, str, int]]:
    """`(step, error type, message, rows)`, the most frequent first."""
    counted = [
        (progress.name, kind, message, count)
        for progress in run.progress.values()
        for (kind, message), count in progress.reasons.items()
    ]
    return sorted(counted, key=lambda each: -each[3])


def report_markdown(run: Run) -> str:
    """The run as a page for the Prefect UI."""
    seconds = f"{time.time() - run.started:.1f} s"
    outcome = f"**Ended after {seconds}:** {run.problem}" if run.problem else f"Done in {seconds}."
    rows = [[progress.name, *numbers_of(progress)] for progress in run.progress.values()]
    total = StepProgress("", next(iter(run.progress.values())).step) if run.progress else None
    if total is not None:
        total.work = total_work(run)
        rows.append(["**all**", "–", "–", *numbers_of(total)[2:4], "–"])
    header = ["Step", "Rows", "Failed", "Requests (sent now)", "Tokens in / out", "Shards (cached)"]
    parts = [outcome, "## Steps", markdown_table(header, rows)]
    reasons = [[step, kind, message, f"{count:,}"] for step, kind, message, count in failures(run)[:MOST_REASONS]]
    if reasons:
        parts += ["## Failed rows", markdown_table(["Step", "Error", "Reason", "Rows"], reasons)]
    if run.saved:
        parts += ["## Saved", "\n".join(f"- `{place}`" for place in run.saved)]
    return "\n\n".join(parts)


def numbers_of(progress: StepProgress) -> list[str]:
    """A step's numbers for the report's table."""
    work = progress.work
    return [
        f"{progress.rows_out:,}",
        f"{progress.failed:,}" if progress.failed else "–",
        f"{work.requests:,} ({work.sent:,})" if work.requests else "–",
        f"{work.input_tokens:,} / {work.output_tokens:,}" if work.requests else "–",
        f"{progress.shards:,} ({progress.reused:,})",
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
