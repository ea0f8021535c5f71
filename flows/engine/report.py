"""What people read about a run: progress lines, the table of steps, the failed rows with their reasons."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flows.engine.costs import UNKNOWN, cost_of_rows, cost_of_run
from flows.engine.pace import Pace, pace_of
from flows.engine.run import Run, StepProgress
from flows.ledger.records import JobRecord
from flows.store.shards import Tokens, Work
from llms.base import AsyncLLM
from llms.batch import OfflineBatchLLM
from llms.errors import (
    cut,
)
from llms.quantities import quantity
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
VIEW_NOTE = "All rows, whole and searchable, in a browser of the machine that has them:"
ASSUMED_NOTE = (
    "The price list has no price for the way that {0:,} of these requests were asked. Of batches, a share of the price"
    " online is taken for it ({1}), of other tiers the usual price."
)


def progress_line(progress: StepProgress, pace: Pace | None = None) -> str:
    """How far a step is, in one line.

    Args:
        pace: for how fast as well.
    """
    parts = [quantity(progress.rows_out, "row")]
    if pace is not None and pace.whole is not None:
        rows = f"{pace.rows:,} of {quantity(pace.whole, 'row')}"
        parts = [rows, *filter(None, [rate_of(pace), left_of(pace), pace.dollars])]
    if progress.answered:
        parts.append(f"{quantity(progress.answered, 'request')} answered")
    if progress.failed:
        parts.append(f"{quantity(progress.failed, 'row')} failed")
    if progress.work.all.cut_off:
        parts.append(f"{quantity(progress.work.all.cut_off, 'answer')} cut off by the limit of tokens")
    if unfinished := sum(progress.work.all.unfinished.values()):
        parts.append(f"{quantity(unfinished, 'answer')} that may not be whole")
    if progress.reused:
        parts.append(f"{progress.reused:,} of {quantity(progress.shards, 'shard')} from the cache")
    answerer = progress.step.answerer if isinstance(progress.step, ModelStep) else None
    if isinstance(answerer, AsyncLLM) and (trouble := answerer.trouble()):
        parts.append(trouble)
    return f"{progress.name}: {', '.join(parts)}"


@dataclass(frozen=True)
class StepBar:
    """How far a step is, as a progress bar shows it."""

    name: str
    done: int
    """Rows."""
    whole: int | None
    """Of so many, where that is known: a source gives rows until there are none."""
    said: str
    """How fast, how long still, dollars, and failures."""

    @property
    def counted(self) -> str:
        return f"{self.done:,}" if self.whole is None else f"{self.done:,} of {self.whole:,}"

    def __str__(self) -> str:
        last = self.done if self.whole is None else self.whole
        rows = f"{self.counted} {'row' if last == 1 else 'rows'}"
        return f"{self.name}: {', '.join(filter(None, [rows, self.said]))}"


def bar_of(run: Run, progress: StepProgress, *, ended: bool = False) -> StepBar:
    """A step's bar.

    Args:
        ended: whether the run has, so that nobody asks any more how fast it is.
    """
    pace = pace_of(run, progress)
    failed = f"{progress.failed:,} failed" if progress.failed else ""
    speed = [] if ended else [rate_of(pace), left_of(pace)]
    said = ", ".join(filter(None, [*speed, pace.spent.known if ended else pace.dollars, failed]))
    # A source has no rows to go through: it gives them.
    return StepBar(progress.name, pace.rows or progress.rows_out, pace.whole, said)


def total_work(run: Run) -> Work:
    return sum((progress.work for progress in run.progress.values()), Work())


def summary_lines(run: Run) -> list[str]:
    """The run in a few lines for a terminal: steps, what it sent and spent, what its rows took, failures."""
    lines = [progress_line(progress) for progress in run.progress.values()]
    return [*lines, *total_lines(run), *(f"failed: {line}" for line in failure_lines(run))]


def total_lines(run: Run) -> list[str]:
    """What a run sent and spent, and what its rows took where that is more."""
    steps, work = list(run.progress.values()), total_work(run)
    spent = _amounts(work.sent, cost_of_run(steps).known)
    lines = [f"{quantity(work.sent.requests, 'request')} sent, {spent}, {time.time() - run.times.started:.1f} s"]
    if work.all != work.sent:
        taken = _amounts(work.all, cost_of_rows(steps).known)
        lines.append(f"with the answers of earlier runs: {quantity(work.all.requests, 'request')}, {taken}")
    return lines


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
    outcome = outcome_markdown(run)
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
    if run.saved.places:
        parts += ["## Saved", "\n".join(f"- {code(place)}" for place in run.saved.places)]
    if commands := view_commands(run):
        parts += [VIEW_NOTE, "\n".join(f"- {code(command)}" for command in commands)]
    several = len(run.saved.looks) > 1
    for name, look in list(run.saved.looks.items())[:MOST_LOOKS]:
        parts.append(look_markdown(look, heading=code(name) if several else ""))
    return "\n\n".join(part for part in parts if part)


def view_commands(run: Run) -> list[str]:
    """How its rows are looked at on the machine that has them: each dataset, or all of the run."""
    local = [each.saved for each in run.saved.datasets.values() if each.saved and "://" not in each.saved]
    if local and len(local) == len(run.saved.datasets):
        return [f"python -m flows view {shlex.quote(place)}" for place in dict.fromkeys(local)]
    rows = sum(each.rows for each in run.saved.datasets.values())
    return [f"python -m flows view {run.flow_run.id}"] if rows and run.flow_run.id and not run.limits else []


def outcome_markdown(run: Run) -> str:
    """How long a run took, all its attempts and waits included, and why it ended, if it didn't come to its end."""
    now = time.time()
    whole = now - run.times.began
    still = whole - run.times.ran_before - (now - run.times.started)
    took = f"{whole:.1f} s" if whole < 60 else age(whole)
    waited = (
        f" For {age(still)} of it no process was at work: it waited."
        if (run.flow_run.run_count > 1 or run.passes) and still >= 1
        else ""
    )
    ended = f"**Ended after {took}.**{waited}\n\n{plain_lines(run.problem, LONGEST_PROBLEM)}"
    return ended if run.problem else f"Done in {took}.{waited}"


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


def rate_of(pace: Pace) -> str:
    return f"{pace.per_second:,.1f} requests/s" if pace.per_second else ""


def left_of(pace: Pace) -> str:
    return f"{age(pace.seconds_left)} left" if pace.seconds_left is not None else ""


def progress_markdown(run: Run, status: str) -> str:
    """How far a run is, as a page for the Prefect UI.

    Args:
        status: what it does now, in Markdown.
    """
    rows: list[list[str]] = []
    for node in run.nodes:
        progress = run.progress.get(node.name, StepProgress(node.name, node.step))
        if not progress.rows_in and not isinstance(progress.step, ModelStep):
            continue
        pace = pace_of(run, progress)
        whole = f"{pace.rows:,} of {pace.whole:,}" if pace.whole is not None else f"{pace.rows:,}"
        numbers = [f"{progress.work.all.requests:,}", rate_of(pace), left_of(pace), pace.dollars]
        rows.append([plain(progress.name), whole, *(each or UNKNOWN for each in numbers), f"{progress.failed:,}"])
    header = ["Step", "Rows", "Requests", "Rate", "Time", "Spent by this run", "Failed rows"]
    jobs = ["## Batch jobs", jobs_markdown(run.jobs)] if run.jobs else []
    return "\n\n".join([status, table(header, rows), *jobs])


def waiting_line(
    records: Sequence[JobRecord],
    ended: Sequence[JobRecord],
    queued: int,
    next_poll: float | None,
    deadline: float | None = None,
) -> str:
    """What a run waits for, in one line: for the message of its state."""
    every = [*records, *ended]
    done, total = sum(each.answered + each.refused for each in every), sum(each.requests for each in every)
    jobs = f"{len(ended):,} of {quantity(len(every), 'job')} done"
    parts = [jobs, f"{done:,} of {quantity(total, 'request')}"]
    if queued:
        one, several = "request waits until the provider takes it", "requests wait until the provider takes them"
        parts.append(quantity(queued, one, several))
    if next_poll is not None:
        parts.append(f"next poll {time.strftime('%H:%M UTC', time.gmtime(next_poll))}")
    if deadline is not None:
        parts.append(f"what is missing at {time.strftime('%H:%M UTC', time.gmtime(deadline))} is asked online")
    return ", ".join(parts)


def jobs_markdown(jobs: Sequence[JobRecord]) -> str:
    """The jobs of a run for the Prefect UI: a table that fits beside what a page has at its right, and their names."""
    header = ["Job", "Step", "State", "Answered", "Failed", "Requests", "Age"]
    every = sorted(jobs, key=lambda each: each.intended)
    rows = [
        [
            f"{number}",
            plain(record.step),
            plain(record.status),
            f"{record.answered:,}",
            f"{record.refused:,}",
            f"{record.requests:,}",
            age((record.ended or time.time()) - record.intended),
        ]
        for number, record in enumerate(every, 1)
    ]
    return "\n\n".join([table(header, rows), "\n".join(f"1. {_job_line(record)}" for record in every)])


def _job_line(record: JobRecord) -> str:
    """Which job it is at the provider, since when, and what the provider says of it."""
    name = link(record.job, record.page) if record.page else code(record.job or record.intent)
    submitted = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.intended))
    return f"{name}, submitted {submitted}{f': {plain(record.message)}' if record.message else ''}"


def age(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3 h 20 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
