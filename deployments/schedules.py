"""Schedules as people left them: on or off as it was switched on a deployment's page, over further deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule

# The types of Prefect's client leave it out.
SCHEDULE: Any = "/deployments/{id}/schedules/{schedule_id}"


def left_as(deployment: str, slug: str, *, active: bool = False) -> dict[str, bool]:
    """Whether a schedule is on at the server, as `{"active": ...}`: a build step of prefect.yaml.

    Schedules that people added get slugs of their own: without one, Prefect deletes all that it isn't told of.

    Args:
        deployment: as flow/deployment.
        slug: of the schedule.
        active: whether it's on where the deployment is new.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return {"active": active}
        schedules = sorted(found.schedules, key=lambda each: str(each.created))
        ours = next((each for each in schedules if each.slug == slug), None)
        nameless = [each for each in schedules if each.slug is None]
        if ours is None and nameless:
            # From before it had one: the first was deployed, those after it were added.
            ours = nameless.pop(0)
            _name(client, ours, slug)
        for each in nameless:
            _name(client, each, f"added-{each.id}")
    return {"active": active if ours is None else bool(ours.active)}


def _name(client: SyncPrefectClient, schedule: DeploymentSchedule, slug: str) -> None:
    where = {"id": schedule.deployment_id, "schedule_id": schedule.id}
    client.request("PATCH", SCHEDULE, path_params=where, json={"slug": slug})
