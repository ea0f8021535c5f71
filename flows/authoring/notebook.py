"""Runs in a notebook: one display for each, kept up to date in place, where a log would be a flood of lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from flows.engine.event_loops import setting
from flows.engine.report import StepBar, age, bar_of, failure_lines, total_lines, waiting_line
from flows.engine.run import Run, progress_listener
from llms.markup import framed, text
from llms.quantities import quantity
from llms.root import FOLDER, PACKAGES, ROOT

T = TypeVar("T")

MOST_BARS = 40
"""Steps that have a bar, of all runs of a flow together."""
FEW_REASONS = 5
"""Reasons of failed rows."""


def notebook_shell() -> Any:
    """IPython's shell where this code runs in a notebook's kernel; None anywhere else, IPython's terminal included."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


@contextmanager
def run_shown() -> Generator[None]:
    """In a notebook, show how far the runs inside of a `with` block are, in place of their log lines.

    Nothing happens elsewhere, nor where somebody listens already: a flow shows the runs of its subflows too.
    """
    shell = notebook_shell()
    if shell is None or progress_listener.get() is not None:
        yield
        return
    show_datasets(shell)
    display = RunDisplay(shell)
    with quiet_console(), setting(progress_listener, display.listen):
        display.update("Starting")
        try:
            yield
        except BaseException:
            display.update(f"Ended after {display.took}", ended=True)
            raise
        display.update(f"Done in {display.took}", ended=True)


async def awaited_shown(work: Awaitable[T]) -> T:
    """What comes of `work`, shown meanwhile."""
    with run_shown():
        return await work


class RunDisplay:
    """An output of a cell with a bar for each step of a run. Listens to runs in any thread."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._id = uuid.uuid4().hex
        self._began = time.monotonic()
        self._runs: list[Run] = []
        self._last = ""
        self._changing = threading.Lock()

    @property
    def took(self) -> str:
        seconds = time.monotonic() - self._began
        return f"{seconds:.1f} s" if seconds < 60 else age(seconds)

    def listen(self, run: Run) -> None:
        """How far `run` is, which may be one of several."""
        if run not in self._runs:
            self._runs.append(run)
        self.update(waits_for(self._runs) or f"Running for {age(time.monotonic() - self._began)}")

    def update(self, status: str, *, ended: bool = False) -> None:
        with self._changing:
            bars = [bar_of(run, each, ended=ended) for run in self._runs for each in list(run.progress.values())]
            said = [line for run in self._runs for line in closing_lines(run)] if ended else []
            html = display_html(status, self._runs, bars, said)
            if html == self._last:
                return
            plain = "\n".join([status, *map(str, bars), *said])
            self._shell.display_pub.publish(
                data={"text/html": html, "text/plain": plain},
                metadata={},
                transient={"display_id": self._id},
                update=bool(self._last),
            )
            self._last = html


def waits_for(runs: list[Run]) -> str:
    """Which batch jobs are waited for, in a line; empty where none is."""
    jobs = [job for run in runs for job in run.jobs]
    waiting = [job for job in jobs if job.state == "waiting"]
    if not waiting:
        return ""
    return f"Waiting for batches: {waiting_line(waiting, [job for job in jobs if job not in waiting], 0, None)}"


def closing_lines(run: Run) -> list[str]:
    """What is to be said of a run that has ended."""
    failures = [f"failed: {line}" for line in failure_lines(run)]
    more = [quantity(len(failures) - FEW_REASONS, "more reason")] if len(failures) > FEW_REASONS else []
    saved = [f"saved to {place}" for place in run.saved.places]
    return [*total_lines(run), *failures[:FEW_REASONS], *more, *saved]


def display_html(status: str, runs: list[Run], bars: list[StepBar], said: list[str]) -> str:
    pages = dict.fromkeys(run.flow_run.url for run in runs if run.flow_run.url.startswith(("http://", "https://")))
    links = "".join(f' <a href="{text(page)}" target="_blank" rel="noopener">In Prefect</a>' for page in pages)
    rows = "".join(map(bar_html, bars[:MOST_BARS]))
    more = [quantity(len(bars) - MOST_BARS, "more step")] if len(bars) > MOST_BARS else []
    lines = "".join(f"<div>{text(line)}</div>" for line in [*more, *said])
    return framed(
        f"<p><strong>{text(status)}</strong>{links}</p>",
        f"<table><tbody>{rows}</tbody></table>" if rows else "",
        f"<p>{lines}</p>" if lines else "",
    )


def bar_html(bar: StepBar) -> str:
    picture = "" if bar.whole is None else f'<progress max="{max(bar.whole, 1)}" value="{bar.done}"></progress>'
    return f"<tr><th>{text(bar.name)}</th><td>{picture}</td><td>{text(bar.counted)}</td><td>{text(bar.said)}</td></tr>"


# What a notebook shows otherwise


def show_datasets(shell: Any) -> None:
    """Have the notebook show a `datasets.Dataset` at a cell's end as `flows.show` does, unless it has a way already."""
    html = shell.display_formatter.formatters["text/html"]
    name = ("datasets.arrow_dataset", "Dataset")
    if html.for_type_by_name(*name) is None:
        html.for_type_by_name(*name, dataset_html)


def dataset_html(dataset: Any) -> str:
    from flows.viewing.inline import rows_html

    return rows_html({"": dataset})


@contextmanager
def quiet_console() -> Generator[None]:
    """Keep log lines of Prefect and of ours that warn of nothing off the console, unless its level was set by hand.

    What a flow logs or prints itself is shown, and Prefect's UI has all lines.
    """
    from prefect.logging.handlers import PrefectConsoleHandler
    from prefect.settings import get_current_settings

    by_hand = "level" in get_current_settings().logging.model_fields_set
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    every = dict.fromkeys(each for logger in loggers if isinstance(logger, logging.Logger) for each in logger.handlers)
    handlers = [each for each in every if isinstance(each, PrefectConsoleHandler) and not by_hand]
    wanted = _Wanted()
    for each in handlers:
        each.addFilter(wanted)
    try:
        yield
    finally:
        for each in handlers:
            each.removeFilter(wanted)


class _Wanted(logging.Filter):
    """Lets through what warns, and what was logged by code that is neither Prefect's nor ours."""

    def __init__(self) -> None:
        import prefect

        super().__init__()
        ours = (FOLDER / ROOT.replace(".", "/") / package for package in PACKAGES)
        self._folders = tuple(f"{folder}/" for folder in (Path(prefect.__file__).parent, *ours))

    def filter(self, record: logging.LogRecord) -> bool:
        theirs = not Path(record.pathname).as_posix().startswith(self._folders)
        return record.levelno >= logging.WARNING or theirs
