"""The same on PostgreSQL, which stores a form's schema without the order of its keys."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from flows.cli import READY_MADE, flow_named
from llms import InferenceEndpointsLLM, OpenAILLM
from llms.base import LLM, NOT_PARAMETERS
from llms.local_provider import LocalProvider
from llms.parameters import Configurable, form_order
from tests.conftest import free_port, prefect_server
from tests.integration.services import fresh_database
from tests.integration.stack import MARK, Stack, copy_of_the_clone, kill_all, private_environment
from tests.integration.test_schedules import check_that_a_cron_makes_a_run_that_completes

DEPLOYED = {name: f"{name.replace('_', '-')}/{name.replace('_', '-')}" for name in READY_MADE}
WITH_LLMS = sorted({*READY_MADE} - {"watch_batches", "resubmit_failed_rows"})


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with fresh_database() as address:
        yield address


@pytest.fixture(scope="module")
def served(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server on PostgreSQL, with the project served to it."""
    folder = tmp_path_factory.mktemp("postgres")
    home = tmp_path_factory.mktemp("postgres-server")
    copy_of_the_clone(folder / "clone")
    (folder / "home").mkdir()
    with prefect_server(home, database=database) as api, LocalProvider(port=free_port()) as provider:
        environment = private_environment(folder, api, OPENAI_BASE_URL=provider.base_url)
        stack = Stack(api, home / "server.log", folder=folder, provider=provider, environment=environment)
        try:
            with stack.process("serve", [sys.executable, "-m", "deployments.serve"]) as serving:
                stack.processes.append(serving)
                serving.wait_for_output("Your deployments are being served")
                yield stack
        finally:
            kill_all(MARK, environment[MARK])


def objects_in(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a schema that has properties, with its path."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield path, schema["properties"]
        for name, value in schema.items():
            yield from objects_in(value, f"{path}/{name}")
    elif isinstance(schema, list):
        for place, value in enumerate(schema):
            yield from objects_in(value, f"{path}/{place}")


def defined(schema: dict[str, Any], tab: dict[str, Any]) -> dict[str, Any]:
    """What a tab refers to, or itself."""
    return schema["definitions"][tab["$ref"].rpartition("/")[2]] if "$ref" in tab else tab


def in_order(properties: dict[str, dict[str, Any]]) -> list[str]:
    """The names as Prefect's form shows them."""
    return sorted(properties, key=lambda name: properties[name]["position"])


@pytest.mark.parametrize("name", sorted(READY_MADE))
def test_every_level_of_a_form_keeps_the_declared_order(served: Stack, name: str) -> None:
    flow = flow_named(name)
    schema = served.deployment(DEPLOYED[name])["parameter_openapi_schema"]
    declared = dict(objects_in(flow.parameters.model_dump()))

    stored = dict(objects_in(schema))

    assert set(stored) == set(declared)
    assert in_order(stored[""]) == list(inspect.signature(flow.fn).parameters)
    for path, properties in stored.items():
        positions = sorted(each.get("position", -1) for each in properties.values())
        assert positions[:1] != [-1], f"{path} has fields without a place"
        assert len(set(positions)) == len(positions), f"{path} has two fields at one place"
        assert in_order(properties) == in_order(declared[path]), path
    for title, properties in ((each["title"], each["properties"]) for each in schema.get("definitions", {}).values()):
        model = MODELS.get(title)
        if model is not None:
            assert in_order(properties) == [field for field in form_order(model) if field in properties]


MODELS: dict[str, type[Configurable]] = {
    model.form_title or model.__name__: model for model in (OpenAILLM, InferenceEndpointsLLM)
}


@pytest.mark.parametrize("name", WITH_LLMS)
def test_generation_parameters_are_in_the_order_of_the_adapters_signature(served: Stack, name: str) -> None:
    schema = served.deployment(DEPLOYED[name])["parameter_openapi_schema"]
    found = 0

    for definition in schema["definitions"].values():
        model = MODELS.get(definition["title"])
        if model is not None and issubclass(model, LLM):
            field = definition["properties"]["generation_kwargs"]
            tabs = [{**defined(schema, each), **each} for each in field.get("anyOf", [field])]
            *usual, whole = [in_order(defined(schema, each)["properties"]) for each in tabs]
            signature = inspect.signature(model.generating_function()).parameters
            assert whole == [each for each in signature if each not in NOT_PARAMETERS]
            assert all(some == [each for each in whole if each in some] for some in usual)
            # What stands beside a reference has the place that it has there.
            assert all(in_order(each["properties"]) == [n for n in whole if n in each["properties"]] for each in tabs)
            found += 1
    assert found >= 2


def test_the_database_has_lost_the_order_of_the_keys_so_that_these_tests_prove_something(served: Stack) -> None:
    schema = served.deployment(DEPLOYED["text_generation"])["parameter_openapi_schema"]

    assert any(list(properties) != in_order(properties) for _, properties in objects_in(schema))
    assert all(
        list(properties) == sorted(properties, key=lambda n: (len(n), n)) for _, properties in objects_in(schema)
    )


def test_a_run_with_a_part_of_a_parameter_completes(served: Stack, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say something of PostgreSQL number {number}."} for number in range(6)]
    parameters = {
        "source": {"data_files": str(served.source("postgres", rows))},
        "text_generation": {"llm": {"generation_kwargs": {"temperature": 0.2}}},
        "target": {"path": str(tmp_path / "out")},
    }

    run = served.start(DEPLOYED["text_generation"], parameters)
    served.wait(run)

    assert load_from_disk(str(tmp_path / "out"))["instruction"][:] == [row["instruction"] for row in rows]
    assert {request.body["temperature"] for request in served.provider.requests} == {0.2}
    # A run that takes long shows its progress, too.
    keys = [artifact["key"] for artifact in served.artifacts(run)]
    assert [key for key in keys if not key.startswith("progress-")] == ["run-report"]


def test_a_cron_that_is_switched_on_makes_a_run_that_completes(served: Stack, tmp_path: Path) -> None:
    check_that_a_cron_makes_a_run_that_completes(served, tmp_path / "out")
