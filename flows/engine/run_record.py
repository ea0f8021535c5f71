"""What a run was, for the card of its dataset."""

# pyarrow, datasets and fsspec have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.engine.costs import cost_of_rows, cost_of_run
from flows.engine.graph import Node
from flows.engine.report import failures
from flows.engine.run import Run, parameters_of
from llms.code import digest_of_text
from llms.parameters import import_path
from tasks.base import ModelStep
from tasks.sources.generators import SeedRows
from tasks.sources.tables import rows_of_dataset
from tasks.steps import Step
from tasks.targets.card import RunRecord, StepRecord, citations_in
from tasks.templates import template_source

if TYPE_CHECKING:
    from datasets import Dataset


def first_row(datasets: Mapping[str, Dataset]) -> dict[str, Any] | None:
    # As it's kept: images and sounds stay bytes.
    return next(rows_of_dataset(next(iter(datasets.values())), 0), None)


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
        started=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.times.began)),
        seconds=round(time.time() - run.times.began, 1),
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
