"""What people read about a run: progress lines, the table of steps, the failed rows with their reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flows.engine.costs import UNKNOWN, cost_of_rows, cost_of_run
from flows.engine.run import Run, StepProgress
from flows.ledger.records import JobRecord
from flows.store.shards import Tokens, Work
from llms.base import AsyncLLM
from llms.batch import OfflineBatchLLM
from llms.errors import (
    cut,
)
from tasks.base import ModelStep
from tasks.markdown import code, link, plain, plain_lines, table
from tasks.targets.look import look_markdown

MOST_REASONS = 20
MOST_LOOKS = 4
"""Datasets that are looked at on a page."""
LONGEST_PROBLEM = 1000
"""Characters of a line of why a run ended."""
COST_NOTE = (
    "Requests, tokens and cost are those of all answers in the rows; in brackets what this run itself sent and spent."
    f" Cost is in US dollars, at the provider's list price, {UNKNOWN} where that isn't known."
)

CUT_OFF_NOTE = (
    "The limit of tokens ended these answers before the model did. Their rows have `cut_off_<step>` in"
    " `distilabel_metadata`. More `max_new_tokens`, in the LLM's `generation_kwargs`, lets answers end by themselves."
)
UNFINISHED_NOTE = (
    "A filter, a failure or something that isn't known ended these answers, by the provider's word"
    " (`finish_reason_<step>` in `distilabel_metadata`). Their rows have `unfinished_<step>` there: leave them out, or"
    " look at them."
)
ASSUMED_NOTE = (
    "The price list has no price for the way that {0:,} of these requests were asked. Of batches, a share of the price"
    " online is taken for it ({1}), of other tiers the usual price."
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
    if unfinished := sum(progress.work.all.unfinished.values()):
        parts.append(f"{unfinished:,} answers that may not be whole")
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
    found = failures(run)[:MOST_REASONS]
    return [f"{count:,} × {step}: {kind}: {cut(message, LONGEST_PROBLEM)}" for step, kind, message, count in found]


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
    ended = f"**Ended after {seconds}:**\n\n{plain_lines(run.problem, LONGEST_PROBLEM)}"
    outcome = ended if run.problem else f"Done in {seconds}."
    rows = [[plain(progress.name), *numbers_of(progress)] for progress in run.progress.values()]
    total = StepProgress("", next(iter(run.progress.values())).step) if run.progress else None
    if total is not None:
        total.work = total_work(run)
        rows.append(["**all**", "–", "–", *numbers_of(total)[2:4], cost_cell(list(run.progress.values())), "–"])
    header = ["Step", "Rows", "Failed", "Requests (sent now)", "Tokens in / out", "Cost (spent now)", "Shards (cached)"]
    parts = [outcome, "## Steps", table(header, rows), COST_NOTE]
    if assumed := total_work(run).all.assumed:
        parts.append(ASSUMED_NOTE.format(assumed, _shares(run)))
    if any(progress.work.all.cut_off for progress in run.progress.values()):
        parts += ["## Answers cut off", _cut_off_table(run), CUT_OFF_NOTE]
    if any(progress.work.all.unfinished for progress in run.progress.values()):
        parts += ["## Answers that may not be whole", _unfinished_table(run), UNFINISHED_NOTE]
    reasons = [
        [plain(step), plain(kind), plain(message), f"{count:,}"]
        for step, kind, message, count in failures(run)[:MOST_REASONS]
    ]
    if reasons:
        parts += ["## Failed rows", table(["Step", "Error", "Reason", "Rows"], reasons)]
    if run.saved:
        parts += ["## Saved", "\n".join(f"- {code(place)}" for place in run.saved)]
    several = len(run.looks) > 1
    for name, look in list(run.looks.items())[:MOST_LOOKS]:
        parts.append(look_markdown(look, heading=code(name) if several else ""))
    return "\n\n".join(part for part in parts if part)


def _cut_off_table(run: Run) -> str:
    counts = [(progress.name, progress.work.all) for progress in run.progress.values()]
    rows = [
        [plain(name), f"{answers.cut_off:,}", f"{answers.requests:,}"] for name, answers in counts if answers.cut_off
    ]
    return table(["Step", "Answers cut off", "Requests"], rows)


def _unfinished_table(run: Run) -> str:
    counts = [
        (progress.name, word, count)
        for progress in run.progress.values()
        for word, count in progress.work.all.unfinished.items()
    ]
    rows = [[plain(name), plain(word), f"{count:,}"] for name, word, count in sorted(counts, key=lambda each: -each[2])]
    return table(["Step", "Why it ended", "Answers"], rows)


def _shares(run: Run) -> str:
    """What batches are taken to cost, by step."""
    steps = [each.step for each in run.progress.values() if each.work.all.assumed]
    llms = {step.name: step.answerer for step in steps if isinstance(step, ModelStep)}
    return ", ".join(f"{name}: {llm.batch_price:g} ×" for name, llm in llms.items() if isinstance(llm, OfflineBatchLLM))


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


def waiting_line(records: Sequence[JobRecord], ended: Sequence[JobRecord], queued: int, next_look: float | None) -> str:
    """What a run waits for, in one line: for the message of its state."""
    every = [*records, *ended]
    done, total = sum(each.answered + each.refused for each in every), sum(each.requests for each in every)
    parts = [f"{len(ended):,} of {len(every):,} jobs done", f"{done:,} of {total:,} requests"]
    if queued:
        parts.append(f"{queued:,} requests wait until the provider takes them")
    if next_look is not None:
        parts.append(f"next look {time.strftime('%H:%M UTC', time.gmtime(next_look))}")
    return ", ".join(parts)


def jobs_markdown(open_jobs: Sequence[JobRecord], ended: Sequence[JobRecord]) -> str:
    """The jobs of a run as a table, for the Prefect UI."""
    header = ["Step", "State", "Answered", "Failed", "Requests", "Age", "Job", "Submitted", "Message"]
    rows = [
        [
            plain(record.step),
            plain(record.status),
            f"{record.answered:,}",
            f"{record.refused:,}",
            f"{record.requests:,}",
            age((record.ended or time.time()) - record.intended),
            link(record.job, record.page) if record.page else code(record.job or record.intent),
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.intended)),
            plain(record.message),
        ]
        for record in sorted([*open_jobs, *ended], key=lambda each: each.intended)
    ]
    return table(header, rows)


def age(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3 h 20 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
