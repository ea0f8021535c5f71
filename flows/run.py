"""The state of one run in this process: its settings, its steps and how far they are."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from flows.shards import ShardRef, Work
from flows.storage import Storage, storage_at
from llms.parameters import Configurable, set_quietly
from tasks.steps import Step

SHARD_ROWS = 500


@dataclass
class StepProgress:
    """How far a step is."""

    name: str
    step: Step
    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0
    shards: int = 0
    reused: int = 0
    """Shards taken from the cache."""
    answered: int = 0
    """Requests answered in this run so far, those of unfinished shards included."""
    work: Work = field(default_factory=Work)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Rows that failed here, by error type and message."""

    def add(self, ref: ShardRef, rows_in: int, *, reused: bool) -> None:
        """Count a finished shard. What it took to make it now is counted as it goes."""
        self.rows_in += rows_in
        self.rows_out += ref.rows
        self.shards += 1
        self.reused += reused
        if reused:
            self.work += Work(ref.work.requests, 0, ref.work.input_tokens, ref.work.output_tokens)


@dataclass(frozen=True)
class Limits:
    """A look at a few rows in place of a whole run."""

    rows: int
    ask: bool
    """Whether the LLMs are asked; otherwise only the prompts are shown."""


limits_of_run: ContextVar[Limits | None] = ContextVar("limits_of_run", default=None)
progress_listener: ContextVar[Callable[[Run], None] | None] = ContextVar("progress_listener", default=None)
"""Called a few times a second with the run: for a progress bar."""
run_started: ContextVar[Callable[[Run], None] | None] = ContextVar("run_started", default=None)
"""Called once with every run that starts."""


@dataclass(eq=False)
class Run:
    """One run of a flow, or of a graph of rows outside of any flow."""

    id: str
    attempt: str
    storage: Storage
    flow_name: str = ""
    started: float = field(default_factory=time.time)
    names: Counter[str] = field(default_factory=Counter[str])
    _kept: list[object] = field(default_factory=list[object])
    progress: dict[str, StepProgress] = field(default_factory=dict[str, StepProgress])
    prompts: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """What would be asked, by step, where only the prompts are shown."""
    limits: Limits | None = None
    saved: list[str] = field(default_factory=list[str])
    """Where its datasets were saved."""
    problem: str = ""
    """Why it ended without them."""

    def keep(self, node: object) -> None:
        """Hold a node of the graph, which holds this run: they live as long as any of them is in use."""
        self._kept.append(node)

    def name_for(self, name: str) -> str:
        """`name`, or `name-2` and so on where a step of this run has it already."""
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}-{self.names[name]}"

    def progress_of(self, name: str, step: Step) -> StepProgress:
        return self.progress.setdefault(name, StepProgress(name, step))


_runs: WeakValueDictionary[str, Run] = WeakValueDictionary()


def current_run(storage: str | None) -> Run:
    """The run that this code is part of: the flow run's, or a new one outside of any."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    new = uuid.uuid4().hex
    limits = limits_of_run.get()
    attempt = f"{flow_run.id}:{flow_run.run_count}" if flow_run else new
    known = _runs.get(attempt)
    if known is not None:
        return known
    run = Run(
        id=str(flow_run.id) if flow_run else new,
        attempt=attempt,
        storage=storage_at(storage) if limits is None or limits.ask else Storage(f"memory://preview-{new}"),
        flow_name=context.flow.name if context and context.flow else "",
        limits=limits,
    )
    if flow_run:
        _runs[attempt] = run
    listener = run_started.get()
    if listener is not None:
        listener(run)
    return run


def named(step: Step, name: str) -> Step:
    """The step under another name. It shares the LLM and its connections."""
    if step.name == name:
        return step
    renamed = step.model_copy()
    set_quietly(renamed, "name", name)
    return renamed


def parameters_of(step: Configurable) -> dict[str, Any]:
    """A step's settings for people to read: no secrets, nothing that says nothing."""
    return step.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
