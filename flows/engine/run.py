"""The state of one run in this process: its settings, its steps and how far they are."""

from __future__ import annotations

import datetime
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from flows.engine.budget import Budget
from flows.engine.event_loops import Turn
from flows.engine.window import Window
from flows.ledger import Claims
from flows.ledger.records import JobRecord, Jobs
from flows.store.results import DatasetResult
from flows.store.shards import ShardRef, Work
from flows.store.storage import STORAGE_VARIABLE, Storage, StorageError, storage_at
from llms.parameters import Configurable, set_quietly
from tasks.steps import Step
from tasks.targets.look import Look

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
    run_id: str = ""
    requests: int = 0
    """Of finished shards, whoever asked them."""
    seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    """How many requests were answered at which times of late, see `flows.engine.pace`."""

    def add(self, ref: ShardRef, rows_in: int, *, reused: bool, known: bool = False) -> None:
        """Count a finished shard. What it took to make it in this pass is counted as it goes.

        Args:
            reused: it was there before this attempt.
            known: an earlier pass of this attempt made it.
        """
        self.rows_in += rows_in
        self.rows_out += ref.rows
        self.shards += 1
        self.requests += ref.work.all.requests
        self.reused += reused
        if reused or known:
            # An earlier attempt of this run may have made it, and this run paid for it then.
            self.work += ref.work if is_of_run(ref.attempt, self.run_id) else ref.work.of_another_run()


@dataclass(frozen=True)
class Limits:
    """A look at a few rows in place of a whole run."""

    rows: int
    ask: bool
    """Whether the LLMs are asked; otherwise only the prompts are shown."""


@dataclass(frozen=True)
class Spending:
    """What a run may spend, and how it goes about its batch jobs."""

    approve_cost_above: float | None = None
    """Dollars. Above, the run is suspended before it sends anything for a step, until a person agrees."""
    finish_online_below: int = 0
    """Fewer requests than this are sent online, in place of a job."""
    max_cost: float | None = None
    """Dollars that it never exceeds."""


limits_of_run: ContextVar[Limits | None] = ContextVar("limits_of_run", default=None)
progress_listener: ContextVar[Callable[[Run], None] | None] = ContextVar("progress_listener", default=None)
"""Called a few times a second with the run: for a progress bar."""
run_started: ContextVar[Callable[[Run], None] | None] = ContextVar("run_started", default=None)
"""Called once with every run that starts."""


class Elsewhere(Protocol):
    """Where a run's shards are worked on, if not in its own process: see `flows.cluster.dispatch`."""

    def window(self) -> Window:
        """Lets as many shards of a step out as suits it."""
        ...

    async def shard_of(
        self, node: Any, place: int, refs: Sequence[ShardRef], count: Callable[..., Any]
    ) -> tuple[ShardRef, bool]:
        """A step's shard from its inputs' shards, and whether it was there before."""
        ...

    async def missing_of(self, node: Any, place: int, refs: Sequence[ShardRef], count: Callable[..., Any]) -> Any:
        """What is missing of a shard's answers, see `flows.engine.answering`."""
        ...


@dataclass(frozen=True)
class FlowRunFacts:
    """What Prefect says of a run's flow run."""

    id: str = ""
    """Empty outside of any flow run."""
    run_count: int = 0
    """How often Prefect started it."""
    deployed: bool = False
    """Whether Prefect can start it again, in another process."""
    child: bool = False
    """Whether another flow run started it: Prefect suspends no such run."""
    in_task: bool = False
    """Whether a Prefect task of its flow is what runs here: Prefect suspends no such task."""
    url: str = ""
    """Its page in the Prefect UI."""
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    """The day that it was due, in UTC: the same however often it waits or is retried."""


@dataclass(frozen=True)
class Times:
    """When a run began, in seconds since 1970."""

    started: float = field(default_factory=time.time)
    """When this process began with it."""
    began: float = field(default_factory=time.time)
    """When the first process did."""
    attempt_began: float = field(default_factory=time.time)
    """When the first process of this attempt did."""
    ran_before: float = 0.0
    """Seconds that earlier processes were at it."""


@dataclass
class Money:
    """What a run may spend, what it is about to spend, and what a person agreed to. In dollars."""

    spending: Spending = field(default_factory=Spending)
    budget: Budget | None = None
    """What is left of `max_cost`, if there is one."""
    submitted: float = 0.0
    """The estimates of what it submitted to batch jobs."""
    expected: dict[str, float] = field(default_factory=dict[str, float])
    """The estimates of its steps that are asking online now, by step."""
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a person was asked when the run was suspended, see `flows.waiting.leaving`."""
    approved: float = 0.0
    """What a person agreed to."""
    approved_unpriced: bool = False
    """Whether a person agreed to requests whose price isn't known."""
    turn: Turn = field(default_factory=Turn)
    """Held by one step at a time, from its look at what may be spent until what it spends is counted."""


@dataclass
class Saved:
    """What a run saved of its datasets."""

    places: list[str] = field(default_factory=list[str])
    digests: dict[str, str] = field(default_factory=dict[str, str])
    """Of the rows that each target got, and its place, by step and target; an earlier process may have saved them."""
    datasets: dict[str, DatasetResult] = field(default_factory=dict[str, DatasetResult])
    """By the last step: for `python -m flows view`."""
    looks: dict[str, Look] = field(default_factory=dict[str, Look])
    """What was seen of its datasets, by the last step."""


@dataclass(eq=False)
class Run:
    """One run of a flow, or of a graph of rows outside of any flow."""

    id: str
    attempt: str
    storage: Storage
    flow_name: str = ""
    flow_run: FlowRunFacts = field(default_factory=FlowRunFacts)
    times: Times = field(default_factory=Times)
    money: Money = field(default_factory=Money)
    saved: Saved = field(default_factory=Saved)
    passes: int = 0
    """How often this attempt went through its steps before: it waited for batches in between."""
    limits: Limits | None = None
    spread: Elsewhere | None = None
    """The cluster that its shards are worked on by; None: this process."""
    progress: dict[str, StepProgress] = field(default_factory=dict[str, StepProgress])
    prompts: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """What would be asked, by step, where only the prompts are shown."""
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    """The ids of those that are kept up to date, by key."""
    has_page: bool = False
    """Whether the one with its progress was made in this process, or was about to be."""
    jobs: Sequence[JobRecord] = ()
    """The batch jobs that it waits for, or waited for, as they were last seen."""
    problem: str = ""
    """Why it ended without its datasets."""
    turn: Turn = field(default_factory=Turn)
    """Held by one `save` or `collect` at a time: they may have steps in common."""
    asking: set[Callable[[StorageError], None]] = field(default_factory=set[Callable[[StorageError], None]])
    """Of each shard whose rows are being asked for: how to stop that."""
    unkept: StorageError | None = None
    """Why answers can't be written down any more: shards that come after are not asked for."""
    claims: dict[str, Claims] = field(default_factory=dict[str, Claims])
    """Of its steps that ask the same model with the same parameters, by the ledger's space."""
    _names: Counter[str] = field(default_factory=Counter[str])
    _nodes: list[object] = field(default_factory=list[object])

    @property
    def own_id(self) -> str:
        """What its attempts begin with: its id, unless it completes another run's rows."""
        return self.attempt.partition(":")[0]

    @property
    def began_before(self) -> bool:
        """Whether there was an earlier attempt, of its flow run or of its Prefect task, or it waited for batches."""
        tries_of_task = self.attempt.split(":")[3:]
        return self.flow_run.run_count > 1 or self.passes > 0 or tries_of_task not in ([], ["1"])

    def keep(self, node: object) -> None:
        """Hold a node of the graph, which holds this run: they live as long as any of them is in use."""
        self._nodes.append(node)

    @property
    def nodes(self) -> Sequence[Any]:
        """The nodes of its graphs, in the order in which they were made."""
        return self._nodes

    def name_for(self, name: str) -> str:
        """`name`, or `name-2` and so on where a step of this run has it already."""
        with _naming:
            self._names[name] += 1
            return name if self._names[name] == 1 else f"{name}-{self._names[name]}"

    def progress_of(self, name: str, step: Step) -> StepProgress:
        known = self.progress.get(name)
        return known or self.progress.setdefault(name, StepProgress(name, step, run_id=self.own_id))


def is_of_run(attempt: str, run_id: str) -> bool:
    """Whether an attempt is one of that run."""
    return attempt.partition(":")[0] == run_id


def is_same_work(attempt: str, other: str) -> bool:
    """Whether two attempts are tries of the same: not two runs, nor two tasks of one that run beside each other."""
    (run, *count_and_task), (other_run, *other_count_and_task) = attempt.split(":"), other.split(":")
    beside = count_and_task[:1] == other_count_and_task[:1] and count_and_task[1:2] != other_count_and_task[1:2]
    return run == other_run and not beside


STORAGE_LABEL = "stillflow.storage"
"""On a flow run that waited: where it left its rows."""
RESUBMITS = "resubmits:"
"""In a flow run's tag: the run whose rows it completes."""
LEFT_BY_LABEL = "stillflow.left_by"
"""On such a flow run: the one that left its rows in the storage, if it waited."""
DATE_LABEL = "stillflow.date"
"""On such a flow run: the day that the one was due whose rows it completes."""


def date_of(flow_run: Any) -> str:
    """The day, in UTC, that a flow run was due, or the one whose rows it completes."""
    due = flow_run.expected_start_time or datetime.datetime.now(datetime.UTC)
    return flow_run.labels.get(DATE_LABEL) or due.astimezone(datetime.UTC).date().isoformat()


def completed_by(flow_run: Any) -> str | None:
    """The id of the run whose rows a flow run completes; None for one that completes none but its own."""
    return next((tag.removeprefix(RESUBMITS) for tag in flow_run.tags if tag.startswith(RESUBMITS)), None)


def resume(run: Run, flow_run: Any) -> None:
    """Make `run` go on where its flow run left to wait, or where the run did that it completes.

    Raises:
        StorageError: this machine doesn't see what it left.
    """
    from prefect.utilities.urls import url_for

    run.id = completed_by(flow_run) or run.id
    run.flow_run = FlowRunFacts(
        id=str(flow_run.id),
        run_count=flow_run.run_count,
        deployed=flow_run.deployment_id is not None and not run.flow_run.in_task,
        child=flow_run.parent_task_run_id is not None,
        in_task=run.flow_run.in_task,
        url=url_for(flow_run) or "",
        date=date_of(flow_run),
    )
    began = flow_run.start_time.timestamp() if flow_run.start_time else run.times.began
    run.times = replace(run.times, began=began, ran_before=flow_run.total_run_time.total_seconds())
    note = Jobs(run.storage).note_of(str(flow_run.id))
    left, left_by = flow_run.labels.get(STORAGE_LABEL), flow_run.labels.get(LEFT_BY_LABEL)
    if note is None and left is not None and (left_by is None or Jobs(run.storage).note_of(left_by) is None):
        raise StorageError(
            f"this run waited for batches and left its rows in {left!r}, which isn't what this machine has at"
            f" {run.storage.root!r}; set {STORAGE_VARIABLE} to the same storage on every machine, and retry the run"
        )
    if note is None or run.flow_run.in_task:
        return
    run.money = Money(approved=note.approved, approved_unpriced=note.approved_unpriced)
    run.artifacts = note.artifacts
    # Prefect counts no start of a run that a person resumed.
    if flow_run.run_count == note.run_count + (0 if note.asked else 1):
        run.attempt = note.attempt
        run.times = replace(run.times, attempt_began=note.attempt_began or run.times.attempt_began)
        run.saved.digests = note.saved
        run.money.asked = note.asked
        run.passes = 1


_runs: WeakValueDictionary[str, Run] = WeakValueDictionary()
_making, _naming = threading.Lock(), threading.Lock()


def current_run(storage: str | None) -> Run:
    """The run that this code is part of: the flow run's, or a new one outside of any.

    A Prefect task has a run of its own within that of its flow, so that several go on side by side, and name
    their steps the same however they overtake each other.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if flow_run is None:
        return _new_run(uuid.uuid4().hex, storage)
    this = f"{flow_run.id}:{flow_run.run_count}"
    task_run = _task_run_in(flow_run)
    if task_run is not None:
        this = f"{this}:{task_run.id}:{task_run.run_count}"
    # Threads of the same flow run may ask at the same time.
    with _making:
        run = _runs.get(this)
        if run is None:
            run = _runs[this] = _new_run(this, storage, context, in_task=task_run is not None)
    return run


def _task_run_in(flow_run: Any) -> Any:
    """The run of the Prefect task that this code is part of, in a flow run; None where it's the flow itself."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return context.task_run if context and context.task_run.flow_run_id == flow_run.id else None


def _new_run(this: str, storage: str | None, context: Any = None, *, in_task: bool = False) -> Run:
    flow_run = context.flow_run if context else None
    limits = limits_of_run.get()
    run = Run(
        id=str(flow_run.id) if flow_run else this,
        attempt=this,
        storage=storage_at(storage)
        if limits is None or limits.ask
        else Storage(f"memory://preview-{uuid.uuid4().hex}"),
        flow_name=context.flow.name if context and context.flow else "",
        flow_run=FlowRunFacts(in_task=in_task),
        limits=limits,
    )
    if flow_run:
        resume(run, flow_run)
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
    return step.model_dump(mode="json", exclude_defaults=True)
