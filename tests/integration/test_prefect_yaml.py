"""prefect.yaml, without a server: Prefect drops misspelt keys in silence, and the rest shows only in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from pydantic import BaseModel

from deployments.serve import deployments as served_deployments
from flows.cli import READY_MADE

FILE = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
WHOLE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = WHOLE["deployments"]
REQUIRED: dict[str, dict[str, Any]] = {"resubmit-failed-rows": {"run_id": "of any run"}}
"""The parameters that have no default: each run gives them."""


def unknown_keys(given: dict[str, Any], model: type[BaseModel], where: str) -> list[str]:
    """The keys that Prefect doesn't know, and so passes over."""
    known = {name for field, info in model.model_fields.items() for name in (field, info.alias)}
    return [f"{where}.{name}" for name in given if name not in known]


def unknown_keys_of_deployment(given: dict[str, Any]) -> list[str]:
    name = given.get("name", "?")
    found = unknown_keys(given, DeploymentConfig, name)
    found += unknown_keys(given.get("work_pool") or {}, WorkPoolConfig, f"{name}.work_pool")
    for schedule in given.get("schedules") or []:
        found += unknown_keys(schedule, RawScheduleConfig, f"{name}.schedules")
    for trigger in given.get("triggers") or []:
        found += unknown_keys(trigger, DeploymentEventTrigger, f"{name}.triggers")
    limit = given.get("concurrency_limit")
    return found + (unknown_keys(limit, ConcurrencyLimitSpec, name) if isinstance(limit, dict) else [])


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


def named(deployment: dict[str, Any]) -> str:
    return deployment["name"]


def test_every_key_is_one_that_prefect_reads() -> None:
    found = unknown_keys(WHOLE, PrefectYamlModel, "prefect.yaml")

    assert found + [each for deployment in DEPLOYMENTS for each in unknown_keys_of_deployment(deployment)] == []


def test_a_misspelt_key_would_be_found() -> None:
    misspelt = {"name": "a", "tag": [], "work_pool": {"nam": "p"}, "schedules": [{"cron": "0 0 * * *", "timzone": "X"}]}

    assert unknown_keys_of_deployment(misspelt) == ["a.tag", "a.work_pool.nam", "a.schedules.timzone"]


def test_every_ready_made_flow_is_deployed() -> None:
    assert {each["entrypoint"] for each in DEPLOYMENTS} == {entrypoint for entrypoint, _ in READY_MADE.values()}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_the_entrypoint_is_a_flow_and_takes_the_parameters(deployment: dict[str, Any]) -> None:
    given = {**deployment.get("parameters", {}), **REQUIRED.get(deployment["name"], {})}

    values = flow_of(deployment).validate_parameters(given)

    for name, value in given.items():
        if isinstance(value, dict):
            assert {part: getattr(values[name], part) for part in value} == value
        else:
            assert values[name] == value


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_the_parameters_fit_the_schema_that_the_server_enforces(deployment: dict[str, Any]) -> None:
    from prefect.utilities.schema_tools.validation import validate

    schema = flow_of(deployment).parameters.model_dump_for_openapi()

    assert validate(deployment.get("parameters", {}), schema, ignore_required=True) == []


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_the_defaults_that_a_form_submits_fit_the_schema_that_the_server_enforces(deployment: dict[str, Any]) -> None:
    from prefect.utilities.schema_tools.validation import validate

    schema = flow_of(deployment).parameters.model_dump_for_openapi()
    defaults = {name: each["default"] for name, each in schema["properties"].items() if "default" in each}

    problems = validate({**defaults, **REQUIRED.get(deployment["name"], {})}, schema, allow_none_with_default=True)

    assert [f"{'.'.join(map(str, each.path))}: {each.message}" for each in problems] == []


def test_serve_makes_the_same_deployments() -> None:
    served = {each.name: each for each in served_deployments()}

    assert list(served) == [each["name"] for each in DEPLOYMENTS]
    for deployment in DEPLOYMENTS:
        made = served[deployment["name"]]
        assert made.flow_name == flow_of(deployment).name
        assert made.entrypoint.replace(":", ".") == deployment["entrypoint"].replace(":", ".")
        assert made.tags == deployment.get("tags", [])
        assert (made.parameters or {}) == deployment.get("parameters", {})
        assert made.work_pool_name is None
        schedules = [
            {"slug": each.slug, "cron": each.schedule.cron, "timezone": each.schedule.timezone}
            for each in made.schedules or []
        ]
        switches = [f"{{{{ {step['id']}.active }}}}" for step in left_as_steps(deployment)]
        given = [{**each, "active": switch} for each, switch in zip(schedules, switches, strict=True)]
        assert given == deployment.get("schedules", [])
        triggers = [DeploymentEventTrigger.model_validate(each) for each in deployment.get("triggers", [])]
        assert made.triggers == triggers
        limit = deployment.get("concurrency_limit", {})
        assert made.concurrency_limit == limit.get("limit")
        strategy = made.concurrency_options and made.concurrency_options.collision_strategy
        assert strategy == limit.get("collision_strategy")


def left_as_steps(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """What the build steps of a deployment give to the function that knows how people left its schedules."""
    return [step["deployments.schedules.left_as"] for step in deployment.get("build", [])]


def test_what_costs_money_by_the_clock_is_switched_off_and_stays_as_people_left_it() -> None:
    scheduled = [deployment for deployment in DEPLOYMENTS if "schedules" in deployment]

    assert scheduled
    for deployment in scheduled:
        steps = left_as_steps(deployment)
        name = f"{flow_of(deployment).name}/{deployment['name']}"
        slugs = [each["slug"] for each in deployment["schedules"]]
        assert [(step["deployment"], step["slug"], step.get("active", False)) for step in steps] == [
            (name, slug, False) for slug in slugs
        ]
    for made in served_deployments():
        assert not any(each.active for each in made.schedules or [])
