"""The end of a graph of rows: datasets, opened from files, and saved where a target says."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flows.authoring.notebook import run_shown
from flows.cluster.dispatch import opened_spread
from flows.engine.artifacts import publish_failed_rows, publish_progress, publish_report
from flows.engine.batching import WaitingForBatches, is_offline
from flows.engine.budget import Budget
from flows.engine.datasets import known_of, open_dataset
from flows.engine.errors import TooManyFailedRowsError, masked_errors
from flows.engine.event_loops import await_or_run
from flows.engine.execution import execute
from flows.engine.graph import Node, Rows
from flows.engine.outcome import note_outcome
from flows.engine.ownership import while_held
from flows.engine.rehearsing import check_rehearsal, is_rehearsal
from flows.engine.report import failure_lines, outcome_markdown, summary_lines
from flows.engine.result import dataset_result, keep_result, saved_before
from flows.engine.run import Run, Spending
from flows.engine.run_record import first_row, run_record
from flows.store.context import run_logger
from flows.store.digest import digest
from flows.store.shards import ShardRef
from flows.waiting.leaving import done_waiting, wait_for, wake
from llms.quantities import quantity
from llms.secrets import masked
from tasks.targets.card import dataset_card
from tasks.targets.look import Look, look_at
from tasks.targets.places import TargetError
from tasks.targets.savers import Saver

if TYPE_CHECKING:
    from datasets import Dataset

MAX_FAILED_ROWS = 0.05
FEW_REASONS = 5
"""Reasons of failed rows that go into an error's message."""
OBJECTS_PER_SEARCH = 50_000
"""How many new ones Python lets come, while rows are made, before it searches for garbage. By itself, it's 700."""

_at_ease = 0
"""How many runs of this process make rows."""
_usual_threshold = 0
_easing = threading.Lock()


def save(
    rows: Rows,
    target: Saver,
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    approve_cost_above: float | None = None,
    finish_online_below: int = 0,
    max_cost: float | None = None,
) -> Any:
    """Run everything that `rows` need and save them. In an async flow: `await save(...)`.

    Args:
        rows: what `load` and `map` made.
        target: where to, and in which form.
        max_failed_rows: how many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: dollars. A run that would cost more is suspended, until a person agrees in the Prefect UI:
            each step is estimated before it sends anything, online or in batches, once all its rows are there.
        finish_online_below: of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: dollars, at list prices. The run fails before it spends more, online or on batches, over all of its
            attempts; what was answered is kept, and isn't paid for again by a run with a higher one.

    Returns:
        The saved rows as a `datasets.Dataset`, failed ones included, with their reason in their metadata.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        CostLimitError: `max_cost` isn't enough. Nothing is saved.
        CostNotApprovedError: a person said no to the cost, or nobody can be asked.
        prefect.exceptions.FlowPauseTimeout: nobody answered for 7 days.
    """
    name = rows.node.name
    spending = Spending(approve_cost_above, finish_online_below, max_cost)
    return await_or_run(_only(finish({name: rows}, {name: target}, max_failed_rows=max_failed_rows, spending=spending)))


def collect(
    rows: Rows,
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    approve_cost_above: float | None = None,
    finish_online_below: int = 0,
    max_cost: float | None = None,
) -> Any:
    """`save`, without a target: run everything that `rows` need, and open them as a `datasets.Dataset`."""
    spending = Spending(approve_cost_above, finish_online_below, max_cost)
    return await_or_run(_only(finish({rows.node.name: rows}, {}, max_failed_rows=max_failed_rows, spending=spending)))


async def _only(work: Coroutine[Any, Any, dict[str, Dataset]]) -> Dataset:
    return next(iter((await work).values()))


async def finish(
    leaves: Mapping[str, Rows],
    targets: Mapping[str, Saver | Sequence[Saver]],
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    spending: Spending | None = None,
) -> dict[str, Dataset]:
    """Run everything that `leaves` need, and save those that have a target. Returns the datasets by leaf.

    A deployed run that has to wait for batches leaves here, and comes by again from its start.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        TargetError: a target can't be written to; raised before anything is sent.
        CostNotApprovedError: a person looked at the cost, and said no.
        CostLimitError: its `max_cost` isn't enough.
    """
    run = next(iter(leaves.values())).node.run
    async with run.turn:
        run.money.spending = spending or Spending()
        if run.money.spending.max_cost is not None or run.money.budget is not None:
            run.money.budget = run.money.budget or Budget(began_before=run.began_before)
            run.money.budget.max_cost = math.inf if run.money.spending.max_cost is None else run.money.spending.max_cost
        looks_only = run.limits is not None and not run.limits.ask
        with masked_errors(), contextlib.nullcontext() if looks_only else run_shown():
            return await _finish(run, leaves, targets, max_failed_rows)


def _looks(datasets: Mapping[str, Dataset]) -> dict[str, Look]:
    """A look at each dataset. What can't be looked at is no reason to lose rows that are paid for."""
    looks: dict[str, Look] = {}
    for name, dataset in datasets.items():
        # Shown to people alone: an odd value in one of a thousand rows must not keep rows that are paid for unsaved.
        try:
            looks[name] = look_at(dataset)
        except Exception as error:  # noqa: BLE001 -- a user's Task made the values: anything may be wrong; it's warned of
            run_logger().warning("no sample is shown of %s: %s: %s", name, type(error).__name__, error)
    return looks


@dataclass(frozen=True)
class _Save:
    """A dataset that is to go to a target.

    What a run saved stands in its notes by step and target, as a digest of the rows and the place: `6f... data/odes`.
    """

    name: str
    """Of the step whose rows it has."""
    target: Saver
    refusal: TargetError | None = None
    """Why the target takes nothing, where an earlier attempt of this run saved to it: perhaps it's that dataset."""
    earlier: str = ""
    """The note of that attempt."""

    @property
    def key(self) -> str:
        return f"{self.name}:{digest(self.target.model_dump(mode='json'))}"

    def place_of(self, notes: Mapping[str, str], shards: Sequence[str]) -> str | None:
        """Where this run has saved these very rows; None where it hasn't."""
        rows, _, place = notes.get(self.key, self.earlier).partition(" ")
        return place if rows == digest(shards) else None

    def is_old_note(self, notes: Mapping[str, str], shards: Sequence[str]) -> bool:
        """Whether an earlier version of this program noted that it saved these rows: by step alone, without a place."""
        return notes.get(self.name) == digest([self.target.model_dump(mode="json"), list(shards)])


def _checked(run: Run, targets: Mapping[str, Saver | Sequence[Saver]]) -> list[_Save]:
    """What is to be saved, where each target will take it. Raises TargetError.

    A target that has its rows already, from this attempt, isn't checked: it may refuse to be written to again.
    """
    earlier: dict[str, str] | None = None
    saves: list[_Save] = []
    for name, of_step in targets.items():
        for target in [of_step] if isinstance(of_step, Saver) else of_step:
            save = _Save(name, target.of_run(date=run.flow_run.date, run=run.id[:8]))
            if not {save.key, name} & run.saved.digests.keys():
                try:
                    save.target.check()
                except TargetError as error:
                    earlier = saved_before(run) if earlier is None else earlier
                    if save.key not in earlier:
                        raise
                    save = replace(save, refusal=error, earlier=earlier[save.key])
            saves.append(save)
    return saves


async def _finish(
    run: Run, leaves: Mapping[str, Rows], targets: Mapping[str, Saver | Sequence[Saver]], max_failed_rows: float
) -> dict[str, Dataset]:
    nodes = [rows.node for rows in leaves.values()]
    if run.limits is None or run.limits.ask:
        check_rehearsal(node for leaf in nodes for node in leaf.ancestry())
    saves = await asyncio.to_thread(_checked, run, {} if run.limits else targets)
    refs: list[list[ShardRef]] = []
    try:
        with _collector_at_ease():
            refs = await _through_all(run, nodes)
        opened = [
            await asyncio.to_thread(open_dataset, run.storage, shards, known_of(node))
            for shards, node in zip(refs, nodes, strict=True)
        ]
        datasets = dict(zip(leaves, opened, strict=True))
        for name, rows in leaves.items():
            known = run.saved.datasets.get(name)
            made = dataset_result(name, datasets[name], rows.node)
            run.saved.datasets[name] = made if known is None else replace(made, saved=known.saved)
        if run.limits is None or run.limits.ask:
            run.saved.looks = await asyncio.to_thread(_looks, datasets)
        _check_failures(run, refs, datasets, max_failed_rows)
        shards_of = dict(zip(leaves, refs, strict=True))
        for each in saves:
            name, shards = each.name, [ref.digest for ref in shards_of[each.name]]
            if each.is_old_note(run.saved.digests, shards):
                continue
            place = each.place_of(run.saved.digests, shards)
            if place is None:
                if each.refusal is not None:
                    raise each.refusal
                only = {name: datasets[name]}
                card = masked(
                    dataset_card(
                        await run_record(run, [leaves[name].node], only), first_row(only), run.saved.looks.get(name)
                    )
                )
                place = await asyncio.to_thread(each.target.save, datasets[name], card)
                run_logger().info("saved %s to %s", quantity(len(datasets[name]), "row"), place)
            if place not in run.saved.places:
                run.saved.places.append(place)
            run.saved.digests[each.key] = f"{digest(shards)} {place}"
            run.saved.datasets[name] = replace(run.saved.datasets[name], saved=place)
    except Exception as error:
        run.problem = masked(str(error))
        await _conclude(run, nodes, refs)
        raise
    await _conclude(run, nodes, refs)
    if run.limits is None or run.limits.ask:
        every = [ref for shards in refs for ref in shards]
        note_outcome(run, sum(ref.rows for ref in every), sum(ref.failed for ref in every))
    return datasets


@contextlib.contextmanager
def _collector_at_ease() -> Generator[None]:
    """Spare Python the search for garbage in all that is there already, libraries above all, and let it search rarely.

    Rows make it search often, and through all rows that are under way: that took 3 of 8 processor seconds of a step of
    30,000 rows. Of several runs in a process, the last one to end sets it back.
    """
    global _at_ease, _usual_threshold
    with _easing:
        if not _at_ease:
            _usual_threshold, *_ = gc.get_threshold()
            # 0: it's switched off.
            gc.set_threshold(_usual_threshold and max(_usual_threshold, OBJECTS_PER_SEARCH))
        _at_ease += 1
        gc.freeze()
    try:
        yield
    finally:
        with _easing:
            _at_ease -= 1
            if not _at_ease:
                gc.set_threshold(_usual_threshold)
                gc.unfreeze()


async def _through_all(run: Run, leaves: Sequence[Node]) -> list[list[ShardRef]]:
    """Run everything that `leaves` need, waiting for batches and people in between. Returns each leaf's shards."""
    nodes = list({id(node): node for leaf in leaves for node in leaf.ancestry()}.values())
    if run.money.spending.approve_cost_above is None and not any(is_offline(node) for node in nodes):
        return await _execute(run, leaves)
    while True:
        await wake(run, nodes)
        try:
            refs = await _execute(run, leaves)
        except WaitingForBatches as waiting:
            await wait_for(run, nodes, waiting)
        else:
            await done_waiting(run)
            return refs


async def _execute(run: Run, leaves: Sequence[Node]) -> list[list[ShardRef]]:
    """Run everything that `leaves` need, in this process or on the cluster that the run is to be spread over."""
    if run.limits:
        return await execute(leaves)
    # What leads the requests of a rehearsal is known to this process alone.
    async with contextlib.nullcontext() if is_rehearsal() else opened_spread() as run.spread:
        try:
            return await while_held(run, execute(leaves))
        finally:
            run.spread = None


async def _conclude(run: Run, nodes: Sequence[Node], refs: Sequence[Sequence[ShardRef]]) -> None:
    for line in summary_lines(run):
        run_logger().info(line)
    await publish_progress(run, outcome_markdown(run), begin=False)
    await asyncio.to_thread(keep_result, run)
    await publish_report(run)
    if refs:
        await publish_failed_rows(run, nodes, refs)


def _check_failures(
    run: Run, refs: Sequence[Sequence[ShardRef]], datasets: Mapping[str, Dataset], max_failed_rows: float
) -> None:
    if run.limits is not None and not run.limits.ask:
        # A step may not take a text that stands for an answer.
        return
    failed = sum(ref.failed for shards in refs for ref in shards)
    rows = sum(ref.rows for shards in refs for ref in shards)
    allowed = max_failed_rows * rows if max_failed_rows < 1 else max_failed_rows
    if failed > allowed:
        lines = failure_lines(run)
        whole, left = quantity(rows, "row"), len(lines) - FEW_REASONS
        more = [f"and {quantity(left, 'more reason')}, in the run's report"] if left > 0 else []
        reasons = "\n".join(f"  {line}" for line in [*lines[:FEW_REASONS], *more])
        raise TooManyFailedRowsError(
            f"{failed:,} of {whole} failed, max_failed_rows={max_failed_rows:g} allows {int(allowed):,}."
            f" What was answered is kept: retry the run to send only the failed rows again.\n{reasons}",
            datasets,
        )
