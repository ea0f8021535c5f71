"""A look before a run: the prompts of the first rows without a call, or a few rows for real."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.engine.event_loops import run_anywhere, setting
from flows.engine.run import Limits, Run, limits_of_run, run_started
from llms.typing import FormattedInput

if TYPE_CHECKING:
    from flows.authoring.parameters import Flow


def preview(
    flow: Flow[..., Any], parameters: Mapping[str, Any] | None = None, *, rows: int = 3
) -> dict[str, list[FormattedInput | None]]:
    """The prompts that a flow would send for its first rows. Nothing is sent, and no server is needed.

    Args:
        flow: a flow made with `flows.flow`, or a pipeline's `flow`.
        parameters: by name, in part or whole.
        rows: how many.

    Returns:
        By step, a prompt per row. Where a prompt holds an answer of a step before it, a text stands for
        it; None where no prompt can be made without the real answer.

    Raises:
        ParameterError, PipelineError: as a run would.
    """
    runs = previewed(flow, parameters or {}, rows=rows)
    return {name: run.prompts[name] for run in runs for name in run.progress if name in run.prompts}


def previewed(flow: Flow[..., Any], parameters: Mapping[str, Any], *, rows: int) -> list[Run]:
    """The runs of a flow that made the prompts of its first rows, and sent nothing."""
    started: list[Run] = []
    with setting(limits_of_run, Limits(rows, ask=False)), setting(run_started, started.append):
        values = checked(flow, parameters)
        call = getattr(flow.fn, "__wrapped__", flow.fn)
        outcome = call(**values)
        if inspect.iscoroutine(outcome):
            run_anywhere(outcome)
    return started


def dry_run(flow: Flow[..., Any], parameters: Mapping[str, Any] | None = None, *, rows: int = 2) -> Any:
    """Run a flow for real on its first rows, saving nothing to its target. Returns what the flow returns."""
    with setting(limits_of_run, Limits(rows, ask=True)):
        outcome = flow(**checked(flow, parameters or {}))
        return run_anywhere(outcome) if inspect.iscoroutine(outcome) else outcome


def checked(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as typed values. Raises ParameterError for a name that the flow doesn't have."""
    known = inspect.signature(flow.fn).parameters
    defaults = {name: each.default for name, each in known.items() if each.default is not each.empty}
    return {**defaults, **flow.validate_parameters(dict(parameters))}
