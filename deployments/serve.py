"""Serve every ready-made flow from one process, without a work pool: `python -m deployments.serve`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType  # pyright: ignore[reportPrivateImportUsage]
from prefect.events import DeploymentEventTrigger, ResourceSpecification
from prefect.schedules import Cron

from deployments.schedules import left_as
from flows.classification_data import classification_data
from flows.embedding_data import embedding_data
from flows.function_calling import function_calling
from flows.instruction_data import instruction_data
from flows.magpie import magpie
from flows.model_preference import model_preference
from flows.preference import preference
from flows.process_rewards import process_rewards
from flows.reasoning_data import reasoning_data
from flows.resubmit import resubmit_failed_rows
from flows.text_generation import text_generation
from flows.watcher import watch_batches

WEEKLY = "0 6 * * 1"
EVERY_FIVE_MINUTES = "*/5 * * * *"
# A run that is cancelled while it waits has no process that could cancel its jobs.
CANCELLED_RUNS = DeploymentEventTrigger(
    name="cancel-batches-of-cancelled-runs",
    description="Cancels the batch jobs of a run that was cancelled.",
    expect={"prefect.flow-run.Cancelled"},
    match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
    match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": "!watch-batches"}),
    # Those that are cancelled together are seen to together.
    schedule_after=timedelta(seconds=10),
)


def deployments() -> list[Any]:
    """The same deployments as in prefect.yaml."""
    module = EntrypointType.MODULE_PATH
    return [
        text_generation.to_deployment("text-generation", tags=["stillflow"], entrypoint_type=module),
        preference.to_deployment("preference", tags=["stillflow"], entrypoint_type=module),
        preference.to_deployment(
            "preference-weekly",
            tags=["stillflow", "weekly"],
            parameters={"use_cache": False, "target": {"path": "data/preference-weekly/{date}"}},
            # Off until someone wants to pay for it: switch it on on the deployment's page.
            schedule=Cron(WEEKLY, timezone="Etc/UTC", slug="weekly", active=False),
            entrypoint_type=module,
        ),
        model_preference.to_deployment("model-preference", tags=["stillflow"], entrypoint_type=module),
        embedding_data.to_deployment("embedding-data", tags=["stillflow"], entrypoint_type=module),
        classification_data.to_deployment("classification-data", tags=["stillflow"], entrypoint_type=module),
        process_rewards.to_deployment("process-rewards", tags=["stillflow"], entrypoint_type=module),
        reasoning_data.to_deployment("reasoning-data", tags=["stillflow"], entrypoint_type=module),
        function_calling.to_deployment("function-calling", tags=["stillflow"], entrypoint_type=module),
        instruction_data.to_deployment("instruction-data", tags=["stillflow"], entrypoint_type=module),
        magpie.to_deployment("magpie", tags=["stillflow"], entrypoint_type=module),
        watch_batches.to_deployment(
            "watch-batches",
            tags=["stillflow"],
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            # Off, for it starts a process each time, and runs look after their own jobs.
            schedule=Cron(EVERY_FIVE_MINUTES, timezone="Etc/UTC", slug="every-five-minutes", active=False),
            triggers=[CANCELLED_RUNS],
            entrypoint_type=module,
        ),
        resubmit_failed_rows.to_deployment("resubmit-failed-rows", tags=["stillflow"], entrypoint_type=module),
    ]


def as_people_left_them(made: list[Any]) -> list[Any]:
    """The deployments, with their schedules on or off as they are at the server."""
    for deployment in made:
        schedules: list[Any] = deployment.schedules or []
        for schedule in schedules:
            name = f"{deployment.flow_name}/{deployment.name}"
            schedule.active = left_as(name, schedule.slug, active=schedule.active)["active"]
    return made


# Each run is a process of its own that imports this module: without the guard it would serve again.
if __name__ == "__main__":
    serve(*as_people_left_them(deployments()))
