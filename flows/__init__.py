"""Flows: rows through steps, as Prefect flows.

In a flow of one's own: `flow`, `load`, `save`, and `task.map(rows)`. For a pipeline in distilabel's
manner: `Pipeline`. Everything is imported when it is first used, so that this package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.credentials import LLMCredentials
    from flows.errors import PipelineError, TooManyFailedRowsError
    from flows.parameters import Flow, flow
    from flows.pipeline import Pipeline
    from flows.preview import dry_run, preview
    from flows.results import collect, save
    from flows.routing import RoutingBatchFunction, routing_batch_function, sample_n_steps
    from flows.rows import Rows, load
    from flows.shards import ShardError
    from flows.storage import StorageError
    from tasks.loaders import Source
    from tasks.savers import Target

_homes = {
    "Flow": "flows.parameters",
    "LLMCredentials": "flows.credentials",
    "Pipeline": "flows.pipeline",
    "PipelineError": "flows.errors",
    "RoutingBatchFunction": "flows.routing",
    "Rows": "flows.rows",
    "ShardError": "flows.shards",
    "Source": "tasks.loaders",
    "StorageError": "flows.storage",
    "Target": "tasks.savers",
    "TooManyFailedRowsError": "flows.errors",
    "collect": "flows.results",
    "dry_run": "flows.preview",
    "flow": "flows.parameters",
    "load": "flows.rows",
    "preview": "flows.preview",
    "routing_batch_function": "flows.routing",
    "sample_n_steps": "flows.routing",
    "save": "flows.results",
}

__all__ = [
    "Flow",
    "LLMCredentials",
    "Pipeline",
    "PipelineError",
    "RoutingBatchFunction",
    "Rows",
    "ShardError",
    "Source",
    "StorageError",
    "Target",
    "TooManyFailedRowsError",
    "collect",
    "dry_run",
    "flow",
    "load",
    "preview",
    "routing_batch_function",
    "sample_n_steps",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module 'flows' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_homes[name]), name)
