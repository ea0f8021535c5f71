"""The end of a graph of rows: datasets, opened from files, and saved where a target says."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
import gc
import posixpath
import shutil
import time
import uuid
import zlib
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from flows.batching import WaitingForBatches, is_offline
from flows.costs import cost_of_rows, cost_of_run
from flows.digest import digest
from flows.engine import execute
from flows.errors import TooManyFailedRowsError
from flows.failures import failed_rows
from flows.hold import while_held
from flows.log import run_logger
from flows.report import failure_lines, failures, report_markdown, summary_lines
from flows.rows import Node, Rows
from flows.run import BatchSettings, Run, parameters_of
from flows.running import await_or_run
from flows.shards import ShardRef, read_schema, read_table, unified_schema
from flows.spread import opened_spread
from flows.storage import STORAGE_VARIABLE, Storage, StorageError, mark_used
from flows.waiting import done_waiting, wait_for, wake
from llms.code import digest_of_text
from llms.parameters import import_path
from tasks.base import ModelStep
from tasks.card import RunRecord, StepRecord, citations_in, dataset_card
from tasks.generators import SeedRows
from tasks.savers import Saver
from tasks.steps import Step
from tasks.templates import template_source

if TYPE_CHECKING:
    from datasets import Dataset

MAX_FAILED_ROWS = 0.05
ROWS_PER_FILE = 100_000
CHECKSUMS = "crc32.json"
BYTES_AT_A_TIME = 2**20
FEW_REASONS = 5
"""Reasons of failed rows that go into an error's message."""


def save(
    rows: Rows,
    target: Saver,
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    approve_cost_above: float | None = None,
    finish_online_below: int = 0,
) -> Any:
    """Run everything that `rows` need and save them. In an async flow: `await save(...)`.

    Args:
        rows: what `load` and `map` made.
        target: where to, and in which form.
        max_failed_rows: how many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: of offline batches: dollars. A run that would cost more is suspended before it
            submits, until a person agrees in the Prefect UI.
        finish_online_below: of offline batches: fewer requests than this are sent online, in place of a job.

    Returns:
        The saved rows as a `datasets.Dataset`, failed ones included, with their reason in their metadata.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
    """
    name = rows.node.name
    batches = BatchSettings(approve_cost_above, finish_online_below)
    return await_or_run(_only(finish({name: rows}, {name: target}, max_failed_rows=max_failed_rows, batches=batches)))


def collect(
    rows: Rows,
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    approve_cost_above: float | None = None,
    finish_online_below: int = 0,
) -> Any:
    """`save`, without a target: run everything that `rows` need, and open them as a `datasets.Dataset`."""
    batches = BatchSettings(approve_cost_above, finish_online_below)
    return await_or_run(_only(finish({rows.node.name: rows}, {}, max_failed_rows=max_failed_rows, batches=batches)))


async def _only(work: Coroutine[Any, Any, dict[str, Dataset]]) -> Dataset:
    return next(iter((await work).values()))


async def finish(
    leaves: Mapping[str, Rows],
    targets: Mapping[str, Saver],
    *,
    max_failed_rows: float = MAX_FAILED_ROWS,
    batches: BatchSettings | None = None,
) -> dict[str, Dataset]:
    """Run everything that `leaves` need, and save those that have a target. Returns the datasets by leaf.

    A deployed run that has to wait for batches leaves here, and comes by again from its start.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        TargetError: a target can't be written to; raised before anything is sent.
        CostNotApprovedError: a person looked at the cost of the batches, and said no.
    """
    run = next(iter(leaves.values())).node.run
    async with run.turn:
        run.batches = batches or BatchSettings()
        return await _finish(run, leaves, targets, max_failed_rows)


async def _finish(
    run: Run, leaves: Mapping[str, Rows], targets: Mapping[str, Saver], max_failed_rows: float
) -> dict[str, Dataset]:
    wanted = {} if run.limits else targets
    for target in wanted.values():
        await asyncio.to_thread(target.check)
    nodes = [rows.node for rows in leaves.values()]
    refs: list[list[ShardRef]] = []
    try:
        with _collector_at_ease():
            refs = await _through_all(run, nodes)
        opened = [await asyncio.to_thread(open_dataset, run.storage, shards) for shards in refs]
        datasets = dict(zip(leaves, opened, strict=True))
        _check_failures(run, refs, datasets, max_failed_rows)
        shards_of = dict(zip(leaves, refs, strict=True))
        for name, target in wanted.items():
            rows = digest([target.model_dump(mode="json"), [ref.digest for ref in shards_of[name]]])
            if run.saved_before.get(name) == rows:
                continue
            only = {name: datasets[name]}
            card = dataset_card(await run_record(run, [leaves[name].node], only), _first_row(only))
            run.saved.append(await asyncio.to_thread(target.save, datasets[name], card))
            run.saved_before[name] = rows
            run_logger().info("saved %s rows to %s", f"{len(datasets[name]):,}", run.saved[-1])
    except Exception as error:
        run.problem = str(error)
        await _conclude(run, nodes, refs)
        raise
    await _conclude(run, nodes, refs)
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
    await _publish(run)
    if refs:
        await _publish_failed_rows(run, nodes, refs)


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


def open_dataset(storage: Storage, refs: Sequence[ShardRef]) -> Dataset:
    """The rows of shards as one memory-mapped dataset. Its files stay in the storage's folder of this machine."""
    import pyarrow as pa
    from datasets import Dataset, concatenate_datasets

    folder = Path(local_datasets(storage)) / digest([ref.digest for ref in refs])
    if not _is_whole(folder):
        if folder.exists():
            run_logger().warning("the dataset in %s is damaged: it's made anew from its shards", folder)
            shutil.rmtree(folder, ignore_errors=True)
        _write_dataset(storage, refs, folder)
    mark_used(folder)
    parts = [Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
    return concatenate_datasets(parts) if parts else Dataset(pa.table({}))


def _is_whole(folder: Path) -> bool:
    """Whether a dataset's files are as they were written: Arrow's files have no checksums of their own."""
    try:
        return orjson.loads((folder / CHECKSUMS).read_bytes()) == _checksums(folder)
    except (OSError, orjson.JSONDecodeError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.arrow")):
        checksum = 0
        with path.open("rb") as file:
            while some := file.read(BYTES_AT_A_TIME):
                checksum = zlib.crc32(some, checksum)
        found[path.name] = checksum
    return found


def _write_dataset(storage: Storage, refs: Sequence[ShardRef], folder: Path) -> None:
    """Write all files of a dataset or none. Raises StorageError."""
    schema = unified_schema(read_schema(storage, ref) for ref in refs)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        _write_arrow(storage, refs, schema, fresh)
        (fresh / CHECKSUMS).write_bytes(orjson.dumps(_checksums(fresh)))
        # Another run may have been quicker with the same rows: a folder that isn't empty can't be replaced.
        with contextlib.suppress(OSError):
            fresh.rename(folder)
    except OSError as error:
        raise StorageError(
            f"can't write the dataset to {str(folder)!r}: {error}. Free some space, or set {STORAGE_VARIABLE} to a"
            " folder that has it; what is done so far is kept"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_arrow(storage: Storage, refs: Sequence[ShardRef], schema: Any, folder: Path) -> None:
    import pyarrow as pa

    for number, some in enumerate(files_of(refs)):
        with pa.ipc.new_stream(str(folder / f"data-{number:05d}.arrow"), schema) as writer:
            for ref in some:
                writer.write_table(fitted(read_table(storage, ref), schema))


def files_of(refs: Sequence[ShardRef]) -> Iterator[list[ShardRef]]:
    """The shards in groups that make a file each, of `ROWS_PER_FILE` rows or a little more."""
    group: list[ShardRef] = []
    for ref in refs:
        group.append(ref)
        if sum(each.rows for each in group) >= ROWS_PER_FILE:
            yield group
            group = []
    if group:
        yield group


def fitted(table: Any, schema: Any) -> Any:
    """The table with the columns and types of `schema`; columns that it lacks are null."""
    import pyarrow as pa

    columns = [
        table.column(each.name).cast(each.type)
        if each.name in table.column_names
        else pa.nulls(table.num_rows, each.type)
        for each in schema
    ]
    return pa.table(columns, schema=schema)


def local_datasets(storage: Storage) -> str:
    """The folder of the datasets that were opened on this machine."""
    if storage.is_local:
        return storage.path("datasets")
    return posixpath.join(str(Path("~/.stillflow").expanduser()), "datasets")


def _first_row(datasets: Mapping[str, Dataset]) -> dict[str, Any] | None:
    dataset = next(iter(datasets.values()))
    return cast("dict[str, Any]", dataset[0]) if len(dataset) else None


async def run_record(run: Run, leaves: Sequence[Node], datasets: Mapping[str, Dataset]) -> RunRecord:
    """What a dataset card tells of a run."""
    nodes = {node.name: node for leaf in leaves for node in leaf.ancestry()}
    sources = [node.step for node in nodes.values() if not node.upstream]
    progress = [run.progress_of(name, node.step) for name, node in nodes.items()]
    dataset = next(iter(datasets.values()))
    return RunRecord(
        flow=run.flow_name,
        run_id=run.id,
        run_url=_run_url(run),
        started=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started)),
        seconds=round(time.time() - run.started, 1),
        source=source_record(sources[0]),
        steps=[step_record(run, name, node.step) for name, node in nodes.items() if node.upstream],
        failures=failures(run),
        columns={name: str(feature) for name, feature in dataset.features.items()},
        rows=sum(len(each) for each in datasets.values()),
        software=_versions(),
        cost=cost_of_rows(progress).known,
        spent=cost_of_run(progress).known,
    )


def source_record(source: Step) -> dict[str, Any]:
    """What a dataset card tells of where the rows come from."""
    of = {"task": source.task.name} if isinstance(source, SeedRows) else {}
    return {"type": import_path(type(source)), **of, **parameters_of(source)}


def step_record(run: Run, name: str, step: Step) -> StepRecord:
    """What a dataset card tells of a step."""
    progress = run.progress_of(name, step)
    return StepRecord(
        name=name,
        kind=type(step).__name__,
        model=step.answerer.model_name if isinstance(step, ModelStep) else "",
        parameters=parameters_of(step),
        version=step.version,
        templates={each: digest_of_text(template_source(each)) for each in step.template_names},
        rows_in=progress.rows_in,
        rows_out=progress.rows_out,
        failed=progress.failed,
        requests=progress.work.all.requests,
        input_tokens=progress.work.all.input_tokens,
        output_tokens=progress.work.all.output_tokens,
        dollars=cost_of_rows([progress]).dollars,
        citations=citations_in(type(step)),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for package in ("prefect", "datasets", "openai", "huggingface_hub"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _run_url(run: Run) -> str:
    from prefect.context import FlowRunContext
    from prefect.utilities.urls import url_for

    context = FlowRunContext.get()
    return (url_for(context.flow_run) or "") if context and context.flow_run and run.flow_name else ""


async def _publish(run: Run) -> None:
    """The run's report as an artifact, where there's a flow run to show it in."""
    from prefect.artifacts import acreate_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is not None:
        with _no_need_of_the_server("the run's report"):
            await acreate_markdown_artifact(
                report_markdown(run), key="run-report", description="Steps, tokens, failures"
            )


async def _publish_failed_rows(run: Run, nodes: Sequence[Node], refs: Sequence[Sequence[ShardRef]]) -> None:
    """The failed rows of the datasets as an artifact, where there's a flow run to show it in."""
    from prefect.artifacts import acreate_table_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return
    table, total = await asyncio.to_thread(failed_rows, run.storage, nodes, refs)
    if table:
        shown = f"the first {len(table):,} of {total:,}" if len(table) < total else f"all {total:,}"
        with _no_need_of_the_server("the failed rows"):
            await acreate_table_artifact(table, key="failed-rows", description=f"Rows that failed: {shown}")


@contextlib.contextmanager
def _no_need_of_the_server(what: str) -> Generator[None]:
    """What can't be shown because Prefect's server is away is no reason to fail: the rows are saved."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        run_logger().warning("Prefect's server doesn't take %s: %s", what, error or type(error).__name__)
