"""What a run made, kept in the storage for those who look at its rows later."""

# datasets has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.graph import Node
from flows.engine.run import Run
from flows.store.context import run_logger
from flows.store.results import AskedModel, DatasetResult, RunResult, result_of, write_result
from flows.store.storage import StorageError
from llms.batch import OfflineBatchLLM
from llms.errors import LLMError
from llms.secrets import masked
from tasks.base import ModelStep
from tasks.steps import METADATA

if TYPE_CHECKING:
    from datasets import Dataset


def dataset_result(name: str, dataset: Dataset, leaf: Node) -> DatasetResult:
    """A dataset of a leaf, before it's saved."""
    files = [Path(each["filename"]) for each in dataset.cache_files]
    steps = [node.step for node in leaf.ancestry() if node.upstream]
    written = {step.output_mappings.get(each, each) for step in steps for each in [*step.own_columns(), "model_name"]}
    prompts = [each for each in dataset.column_names if each not in written and each != METADATA]
    return DatasetResult(name, len(dataset), folder=str(files[0].parent) if files else "", prompts=prompts)


def keep_result(run: Run) -> None:
    """Write down what a flow run made. Where that can't be, its rows are saved all the same."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if (
        not run.saved.datasets
        or not run.flow_run.id
        or run.limits is not None
        or context is None
        or context.flow_run is None
    ):
        return
    models = {name: asked for name, each in run.progress.items() if (asked := asked_model(each.step)) is not None}
    name = masked(context.flow_run.name)
    try:
        write_result(
            run.storage,
            RunResult(
                run.flow_run.id,
                name,
                run.flow_name,
                datasets=list(run.saved.datasets.values()),
                models=models,
                saves=run.saved.digests,
            ),
        )
    except StorageError as error:
        run_logger().warning("`python -m flows view` won't find this run by its name: %s", error)


def saved_before(run: Run) -> dict[str, str]:
    """What earlier attempts of its flow run gave to which targets, see `flows.authoring.saving`."""
    kept = result_of(run.storage, run.flow_run.id) if run.flow_run.id else None
    return kept.saves if kept is not None else {}


def asked_model(step: object) -> AskedModel | None:
    """Whom a step asks; None for one that asks no model."""
    if not isinstance(step, ModelStep):
        return None
    llm = step.answerer
    try:
        source = llm.price_source()
    except LLMError:
        # Its address can't be found out, in credentials that are gone.
        source = None
    share = llm.batch_price if isinstance(llm, OfflineBatchLLM) and llm.use_offline_batch_generation else None
    if source is None:
        return AskedModel(llm.model_name, batch_share=share)
    return AskedModel(source.model, masked(source.url), share)
