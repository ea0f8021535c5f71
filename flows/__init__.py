"""Flows: rows through steps, as Prefect flows.

In a flow of one's own: `flow`, `load`, `save`, and `task.map(rows)`. For a pipeline in distilabel's
manner: `Pipeline`. Everything is imported when it is first used, so that this package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llms.moved import find_moved

if TYPE_CHECKING:
    from flows.authoring.parameters import Flow, flow
    from flows.authoring.pipeline import Pipeline
    from flows.authoring.preview import dry_run, preview
    from flows.authoring.routing import RoutingBatchFunction, routing_batch_function, sample_n_steps
    from flows.authoring.saving import collect, save
    from flows.credentials import LLMCredentials
    from flows.engine.errors import PipelineError, TooManyFailedRowsError
    from flows.engine.graph import Rows, load
    from flows.store.shards import ShardError
    from flows.store.storage import StorageError
    from flows.viewing.inline import ShownRows, show
    from tasks.registry import Source, Target

_homes = {
    "Flow": "flows.authoring.parameters",
    "LLMCredentials": "flows.credentials",
    "Pipeline": "flows.authoring.pipeline",
    "PipelineError": "flows.engine.errors",
    "RoutingBatchFunction": "flows.authoring.routing",
    "Rows": "flows.engine.graph",
    "ShardError": "flows.store.shards",
    "ShownRows": "flows.viewing.inline",
    "Source": "tasks.registry",
    "StorageError": "flows.store.storage",
    "Target": "tasks.registry",
    "TooManyFailedRowsError": "flows.engine.errors",
    "collect": "flows.authoring.saving",
    "dry_run": "flows.authoring.preview",
    "flow": "flows.authoring.parameters",
    "load": "flows.engine.graph",
    "preview": "flows.authoring.preview",
    "routing_batch_function": "flows.authoring.routing",
    "sample_n_steps": "flows.authoring.routing",
    "save": "flows.authoring.saving",
    "show": "flows.viewing.inline",
}

find_moved(
    __name__,
    {
        "hold": "flows.engine.ownership",
        "legacy": "flows.ledger.earlier_layout",
        "log": "flows.store.context",
        "markdown": "tasks.markdown",
        "orders": "flows.cluster.messages",
        "remote": "flows.cluster.worker",
        "results": "flows.authoring.saving",
        "rows": "flows.engine.graph",
        "running": "flows.engine.event_loops",
        "shares": "flows.limits.policy",
        "spread": "flows.cluster.dispatch",
        "waking": "flows.waiting.wake",
    },
)

__all__ = [
    "Flow",
    "LLMCredentials",
    "Pipeline",
    "PipelineError",
    "RoutingBatchFunction",
    "Rows",
    "ShardError",
    "ShownRows",
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
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_homes[name]), name)
