"""What people read about a run: progress lines, the table of steps, the failed rows with their reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flows.costs import UNKNOWN, cost_of_rows, cost_of_run
from flows.markdown import markdown_table
from flows.run import Run, StepProgress
from flows.shards import Tokens, Work
from llms.base import AsyncLLM
from tasks.base import ModelStep

MOST_REASONS = 20
COST_NOTE = (
    "Requests, tokens and cost are those of all answers in the rows; in brackets what this run itself sent and spent."
    f" Cost is in US dollars, at the provider's list price, {UNKNOWN} where that isn't known."
)

CUT_OFF_NOTE = (
    "The limit of tokens ended these answers before the model did. Their rows have `cut_off_<step>` in"
    " `distilabel_metadata`. More `max_new_tokens`, in the LLM's `generation_kwargs`, lets answers end by themselves."
)


def progress_line(progress: StepProgress) -> str:
    """How far a step is, in one line."""
    parts = [f"{progress.rows_out:,} rows"]
    if progress.answered:
        parts.append(f"{progress.answered:,} requests answered")
    if progress.failed:
        parts.append(f"{progress.failed:,} rows failed")
    if progress.work.all.cut_off:
        parts.append(f"{progress.work.all.cut_off:,} answers cut off by the limit of tokens")
    if progress.reused:
        parts.append(f"{progress.reused:,} of {progress.shards:,} shards from the cache")
    answerer = progress.step.answerer if isinstance(progress.step, ModelStep) else None
    if isinstance(answerer, AsyncLLM) and (trouble := answerer.trouble()):
        parts.append(trouble)
    return f"{progress.name}: {', '.join(parts)}"


def total_work(run: Run) -> Work:
    return sum((progress.work for progress in run.progress.values()), Work())


def summary_lines(run: Run) -> list[str]:
    """The run in a few lines for a terminal: steps, what it sent and spent, what its rows took, failures."""
    steps = list(run.progress.values())
    lines = [progress_line(progress) for progress in steps]
    work = total_work(run)
    spent = _amounts(work.sent, cost_of_run(steps).known)
    lines.append(f"{work.sent.requests:,} requests sent, {spent}, {time.time() - run.started:.1f} s")
    if work.all != work.sent:
        taken = _amounts(work.all, cost_of_rows(steps).known)
        lines.append(f"with the answers of earlier runs: {work.all.requests:,} requests, {taken}")
    return [*lines, *(f"failed: {line}" for line in failure_lines(run))]


def _amounts(tokens: Tokens, cost: str) -> str:
    text = f"{tokens.input_tokens:,} input and {tokens.output_tokens:,} output tokens"
    return f"{text}, {cost}" if cost else text


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
        rows.append(["**all**", "–", "–", *numbers_of(total)[2:4], cost_cell(list(run.progress.values())), "–"])
    header = ["Step", "Rows", "Failed", "Requests (sent now)", "Tokens in / out", "Cost (spent now)", "Shards (cached)"]
    parts = [outcome, "## Steps", markdown_table(header, rows), COST_NOTE]
    if any(progress.work.all.cut_off for progress in run.progress.values()):
        parts += ["## Answers cut off", _cut_off_table(run), CUT_OFF_NOTE]
    reasons = [[step, kind, message, f"{count:,}"] for step, kind, message, count in failures(run)[:MOST_REASONS]]
    if reasons:
        parts += ["## Failed rows", markdown_table(["Step", "Error", "Reason", "Rows"], reasons)]
    if run.saved:
        parts += ["## Saved", "\n".join(f"- `{place}`" for place in run.saved)]
    return "\n\n".join(parts)


def _cut_off_table(run: Run) -> str:
    counts = [(progress.name, progress.work.all) for progress in run.progress.values()]
    rows = [[name, f"{answers.cut_off:,}", f"{answers.requests:,}"] for name, answers in counts if answers.cut_off]
    return markdown_table(["Step", "Answers cut off", "Requests"], rows)


def cost_cell(steps: Sequence[StepProgress]) -> str:
    """What the rows of steps cost, and what this run spent on them where that's another amount."""
    rows, spent = str(cost_of_rows(steps)), str(cost_of_run(steps))
    return rows if rows in {spent, UNKNOWN} else f"{rows} ({spent})"


def numbers_of(progress: StepProgress) -> list[str]:
    """A step's numbers for the report's table."""
    work = progress.work
    return [
        f"{progress.rows_out:,}",
        f"{progress.failed:,}" if progress.failed else "–",
        f"{work.all.requests:,} ({work.sent.requests:,})" if work.all.requests else "–",
        f"{work.all.input_tokens:,} / {work.all.output_tokens:,}" if work.all.requests else "–",
        cost_cell([progress]),
        f"{progress.shards:,} ({progress.reused:,})",
    ]
