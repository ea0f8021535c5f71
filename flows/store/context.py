"""Where flows log to: the run's page in the UI, or the module's logger outside of any run."""

from __future__ import annotations

import logging
from typing import Any


def run_logger() -> Any:
    """The logger of the Prefect run that this code is part of, or this module's."""
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.logging import get_run_logger

    inside = FlowRunContext.get() is not None or TaskRunContext.get() is not None
    return get_run_logger() if inside else logging.getLogger(__name__)


def in_flow_run() -> bool:
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None
