"""The end of a graph of rows: datasets, opened from files, and saved where a target says."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import shutil
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.digest import digest
from flows.engine import execute
from flows.errors import TooManyFailedRowsError
from flows.log import run_logger
from flows.report import failure_lines, failures, report_markdown, summary_lines
from flows.rows import Node, Rows
from flows.run import Run, parameters_of
from flows.running import await_or_run
from flows.shards import ShardRef, read_table, unified_schema
from flows.storage import Storage
from llms.code import digest_of_text
from llms.parameters import import_path
from tasks.base import Task
from tasks.card import RunRecord, StepRecord, dataset_card
from tasks.savers import Saver
from tasks.steps import Step
from tasks.templates import template_source

if TYPE_CHECKING:
    from datasets import Dataset

MAX_FAILED_ROWS = 0.05
ROWS_PER_FILE = 100_000
FEW_REASONS = 5
"""Reasons of failed rows that go into an error's message."""


def save(rows: Rows, target: Saver, *, max_failed_rows: float = MAX_FAILED_ROWS) -> Any:
    """Run everything that `rows` need and save them. In an async flow: `await save(...)`.

    Args:
        rows: what `load` and `map` made.
        target: where to, and in which form.
        max_failed_rows: how many rows may fail before the run does: below 1 a share, else a count.

    Returns:
        The saved rows as a `datasets.Dataset`, failed ones included, with their reason in their metadata.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
    """
    return await_or_run(
        _only(finish({rows.node.name: rows}, {rows.node.name: target}, max_failed_rows=max_failed_rows))
    )


def collect(rows: Rows, *, max_failed_rows: float = MAX_FAILED_ROWS) -> Any:
    """`save`, without a target: run everything that `rows` need, and open them as a `datasets.Dataset`."""
    return await_or_run(_only(finish({rows.node.name: rows}, {}, max_failed_rows=max_failed_rows)))


async def _only(work: Coroutine[Any, Any, dict[str, Dataset]]) -> Dataset:
    return next(iter((await work).values()))


async def finish(
    leaves: Mapping[str, Rows], targets: Mapping[str, Saver], *, max_failed_rows: float = MAX_FAILED_ROWS
) -> dict[str, Dataset]:
    """Run everything that `leaves` need, and save those that have a target. Returns the datasets by leaf.

    Raises:
        TooManyFailedRowsError: nothing is saved; a retry sends only what is missing.
        TargetError: a target can't be written to; raised before anything is sent.
    """
    run = next(iter(leaves.values())).node.run
    wanted = {} if run.limits else targets
    for target in wanted.values():
        await asyncio.to_thread(target.check)
    nodes = [rows.node for rows in leaves.values()]
    try:
        refs = await execute(nodes)
        opened = [await asyncio.to_thread(open_dataset, run.storage, shards) for shards in refs]
        datasets = dict(zip(leaves, opened, strict=True))
        _check_failures(run, refs, datasets, max_failed_rows)
        for name, target in wanted.items():
            only = {name: datasets[name]}
            card = dataset_card(await run_record(run, [leaves[name].node], only), _first_row(only))
            run.saved.append(await asyncio.to_thread(target.save, datasets[name], card))
            run_logger().info("saved %s rows to %s", f"{len(datasets[name]):,}", run.saved[-1])
    except Exception as error:
        run.problem = str(error)
        raise
    finally:
        for line in summary_lines(run):
            run_logger().info(line)
        await _publish(run)
    return datasets


def _check_failures(
    run: Run, refs: Sequence[Sequence[ShardRef]], datasets: Mapping[str, Dataset], max_failed_rows: float
) -> None:
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

    folder = Path(_local_folder(storage)) / digest([ref.digest for ref in refs])
    if not folder.exists():
        schema = unified_schema(read_table(storage, ref).schema for ref in refs)
        fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        fresh.mkdir(parents=True)
        _write_arrow(storage, refs, schema, fresh)
        # Another run may have been quicker with the same rows: a folder that isn't empty can't be replaced.
        with contextlib.suppress(OSError):
            fresh.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
    parts = [Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))]
    return concatenate_datasets(parts) if parts else Dataset(pa.table({}))


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


def _local_folder(storage: Storage) -> str:
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
    dataset = next(iter(datasets.values()))
    return RunRecord(
        flow=run.flow_name,
        run_id=run.id,
        run_url=_run_url(run),
        started=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started)),
        seconds=round(time.time() - run.started, 1),
        source={"type": import_path(type(sources[0])), **parameters_of(sources[0])},
        steps=[step_record(run, name, node.step) for name, node in nodes.items() if node.upstream],
        failures=failures(run),
        columns={name: str(feature) for name, feature in dataset.features.items()},
        rows=sum(len(each) for each in datasets.values()),
        software=_versions(),
    )


def step_record(run: Run, name: str, step: Step) -> StepRecord:
    """What a dataset card tells of a step."""
    progress = run.progress_of(name, step)
    return StepRecord(
        name=name,
        kind=type(step).__name__,
        model=step.llm.model_name if isinstance(step, Task) else "",
        parameters=parameters_of(step),
        version=step.version,
        templates={each: digest_of_text(template_source(each)) for each in step.template_names},
        rows_in=progress.rows_in,
        rows_out=progress.rows_out,
        failed=progress.failed,
        requests=progress.work.requests,
        input_tokens=progress.work.input_tokens,
        output_tokens=progress.work.output_tokens,
        citations=[],
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
        await acreate_markdown_artifact(report_markdown(run), key="run-report", description="Steps, tokens, failures")
