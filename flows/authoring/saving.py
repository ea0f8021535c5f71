"""The end of a graph of rows: datasets, opened from files, and saved where a target says."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections.abc import Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.cluster.dispatch import opened_spread
from flows.engine.artifacts import publish_failed_rows, publish_report
from flows.engine.batching import WaitingForBatches, is_offline
from flows.engine.budget import Budget
from flows.engine.datasets import known_of, open_dataset
from flows.engine.errors import TooManyFailedRowsError, masked_errors
from flows.engine.event_loops import await_or_run
from flows.engine.execution import execute
from flows.engine.graph import Node, Rows
from flows.engine.outcome import note_outcome
from flows.engine.ownership import while_held
from flows.engine.report import failure_lines, summary_lines
from flows.engine.run import Run, Spending
from flows.engine.run_record import first_row, run_record
from flows.store.context import run_logger
from flows.store.digest import digest
from flows.store.shards import ShardRef
from flows.waiting.leaving import done_waiting, wait_for, wake
from llms.secrets import masked
from tasks.targets.card import dataset_card
from tasks.targets.look import Look, look_at
from tasks.targets.savers import Saver

if TYPE_CHECKING:
    from datasets import Dataset

MAX_FAILED_ROWS = 0.05
FEW_REASONS = 5
"""Reasons of failed rows that go into an error's message."""


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
        approve_cost_above: of offline batches: dollars. A run that would cost more is suspended before it
            submits, until a person agrees in the Prefect UI.
        finish_online_below: of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: dollars, at list prices. The run fails before it spends more, online or on batches, over all of its
            attempts; what was answered is kept, and isn't paid for again by a run with a higher one.

    Returns:
        The saved rows as a `datasets.Dataset`, failed ones included, with their reason in their metadata.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        CostLimitError: `max_cost` isn't enough. Nothing is saved.
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
    targets: Mapping[str, Saver],
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    spending: Spending | None = None,
) -> dict[str, Dataset]:
    """Run everything that `leaves` need, and save those that have a target. Returns the datasets by leaf.

    A deployed run that has to wait for batches leaves here, and comes by again from its start.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        TargetError: a target can't be written to; raised before anything is sent.
        CostNotApprovedError: a person looked at the cost of the batches, and said no.
        CostLimitError: its `max_cost` isn't enough.
    """
    run = next(iter(leaves.values())).node.run
    async with run.turn:
        run.spending = spending or Spending()
        if run.spending.max_cost is not None or run.budget is not None:
            run.budget = run.budget or Budget(began_before=run.run_count > 1 or run.passes > 0)
            run.budget.max_cost = math.inf if run.spending.max_cost is None else run.spending.max_cost
        with masked_errors():
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


async def _finish(
    run: Run, leaves: Mapping[str, Rows], targets: Mapping[str, Saver], max_failed_rows: float
) -> dict[str, Dataset]:
    wanted = {} if run.limits else {name: each.of_run(date=run.date, run=run.id[:8]) for name, each in targets.items()}
    for target in wanted.values():
        await asyncio.to_thread(target.check)
    nodes = [rows.node for rows in leaves.values()]
    refs: list[list[ShardRef]] = []
    try:
        with _collector_at_ease():
            refs = await _through_all(run, nodes)
        opened = [
            await asyncio.to_thread(open_dataset, run.storage, shards, known_of(node))
            for shards, node in zip(refs, nodes, strict=True)
        ]
        datasets = dict(zip(leaves, opened, strict=True))
        if run.limits is None or run.limits.ask:
            run.looks = await asyncio.to_thread(_looks, datasets)
        _check_failures(run, refs, datasets, max_failed_rows)
        shards_of = dict(zip(leaves, refs, strict=True))
        for name, target in wanted.items():
            rows = digest([target.model_dump(mode="json"), [ref.digest for ref in shards_of[name]]])
            if run.saved_before.get(name) == rows:
                continue
            only = {name: datasets[name]}
            card = masked(
                dataset_card(await run_record(run, [leaves[name].node], only), first_row(only), run.looks.get(name))
            )
            run.saved.append(await asyncio.to_thread(target.save, datasets[name], card))
            run.saved_before[name] = rows
            run_logger().info("saved %s rows to %s", f"{len(datasets[name]):,}", run.saved[-1])
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
    """Spare Python the search for garbage in all that is there already: libraries above all.

    Rows make it search often: that took 3 of 8 processor seconds of a step of 30,000 rows.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _through_all(run: Run, leaves: Sequence[Node]) -> list[list[ShardRef]]:
    """Run everything that `leaves` need, waiting for batches in between. Returns the shards of each leaf."""
    nodes = list({id(node): node for leaf in leaves for node in leaf.ancestry()}.values())
    if not any(is_offline(node) for node in nodes):
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
    async with opened_spread() as run.spread:
        try:
            return await while_held(run, execute(leaves))
        finally:
            run.spread = None


async def _conclude(run: Run, nodes: Sequence[Node], refs: Sequence[Sequence[ShardRef]]) -> None:
    for line in summary_lines(run):
        run_logger().info(line)
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
        more = [f"and {len(lines) - FEW_REASONS} more reasons, in the run's report"] if len(lines) > FEW_REASONS else []
        reasons = "\n".join(f"  {line}" for line in [*lines[:FEW_REASONS], *more])
        raise TooManyFailedRowsError(
            f"{failed:,} of {rows:,} rows failed, max_failed_rows={max_failed_rows:g} allows {int(allowed):,}."
            f" What was answered is kept: retry the run to send only the failed rows again.\n{reasons}",
            datasets,
        )
