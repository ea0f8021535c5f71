"""Serve every ready-made flow from one process, without a work pool: `python -m deployments.serve`."""

from __future__ import annotations

from typing import Any

from prefect import serve
from prefect.deployments.runner import EntrypointType  # pyright: ignore[reportPrivateImportUsage]
from prefect.schedules import Cron

from flows.preference import preference
from flows.text_generation import text_generation

WEEKLY = "0 6 * * 1"


def deployments() -> list[Any]:
    """The same deployments as in prefect.yaml."""
    module = EntrypointType.MODULE_PATH
    return [
        text_generation.to_deployment("text-generation", tags=["stillflow"], entrypoint_type=module),
        preference.to_deployment("preference", tags=["stillflow"], entrypoint_type=module),
        preference.to_deployment(
            "preference-weekly",
            tags=["stillflow", "weekly"],
            parameters={"use_cache": False, "target": {"path": "data/preference-weekly"}},
            # Off until someone wants to pay for it: switch it on here, or on the deployment's page.
            schedule=Cron(WEEKLY, timezone="Etc/UTC", active=False),
            entrypoint_type=module,
        ),
    ]


# Each run is a process of its own that imports this module: without the guard it would serve again.
if __name__ == "__main__":
    serve(*deployments())
