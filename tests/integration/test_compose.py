"""compose.yaml, its image and its automations, against Prefect's settings, command lines and schemas."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.settings.models.root import Settings
from prefect_redis.client import RedisMessagingSettings
from pydantic import AliasChoices, BaseModel

from flows.cluster.clusters import ADDRESS_VARIABLE, RUNNER_VARIABLE
from flows.store.storage import STORAGE_VARIABLE
from llms import AnthropicLLM, InferenceEndpointsLLM, OpenAILLM
from llms.credentials import ADDRESSES_VARIABLE
from llms.variants import ALLOWED_VARIABLE
from tests.conftest import LONGEST, ROOT
from tests.warm import WarmPython

DEPLOYMENTS = ROOT / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BIN = Path(sys.executable).parent
OTHERS = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}


def names_of(model: type[BaseModel], prefix: str) -> set[str]:
    """The environment variables that set a model's fields."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= names_of(field.annotation, f"{prefix}{name}_")
            continue
        found.add(f"{prefix}{name}".upper())
        if isinstance(field.validation_alias, AliasChoices):
            found |= {each.upper() for each in field.validation_alias.choices if isinstance(each, str)}
    return found


def known_variables() -> set[str]:
    return {
        *names_of(Settings, "prefect_"),
        *names_of(RedisMessagingSettings, "prefect_redis_messaging_"),
        # Read from the environment alone: no setting of Prefect's names it.
        "PREFECT_SERVER_ENCRYPTION_KEY",
        *(name for llm in (OpenAILLM, AnthropicLLM, InferenceEndpointsLLM) for name in llm.key_variables),
        *(RUNNER_VARIABLE, ADDRESS_VARIABLE, STORAGE_VARIABLE, ADDRESSES_VARIABLE, ALLOWED_VARIABLE),
        *OTHERS,
        *AWS,
    }


@cache
def help_of(python: Path, *command: str) -> str:
    done = subprocess.run(
        [python, BIN / command[0], *command[1:], "--help"], capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def commands() -> list[tuple[str, list[str]]]:
    """Every command of ours, with the service that it's of."""
    found: list[tuple[str, list[str]]] = []
    for name, service in SERVICES.items():
        command = [str(each) for each in service.get("command", [])]
        if command[:1] == ["sh"]:
            lines = command[-1].replace("||", "\n").splitlines()
            found += [(name, line.split()) for line in lines if line.strip()]
        elif "dockerfile" in service.get("build", {}):
            found.append((name, command))
    return found


def test_every_variable_is_one_that_something_reads() -> None:
    known = known_variables()

    unknown = {
        (name, variable)
        for name, service in SERVICES.items()
        for variable in service.get("environment", {})
        if variable not in known
    }

    assert unknown == set()


def test_the_modules_that_variables_name_can_be_imported() -> None:
    import importlib

    modules = {
        value
        for service in SERVICES.values()
        for value in service.get("environment", {}).values()
        if re.fullmatch(r"prefect_redis(\.\w+)+", str(value))
    }

    assert len(modules) == 4
    for module in modules:
        importlib.import_module(module)


def test_prefect_takes_the_values_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if name.startswith("PREFECT_") and "$" not in str(value):
                monkeypatch.setenv(name, str(value))

    settings = Settings()

    assert settings.server.services.task_run_recorder.batch_size == 100
    assert settings.server.services.task_run_recorder.read_batch_size == 100
    assert settings.server.events.messaging_broker == "prefect_redis.messaging"
    assert settings.server.docket.url == "redis://redis:6379/0"
    assert settings.server.database.migrate_on_start is False
    assert settings.flows.heartbeat_frequency == 30


@pytest.mark.parametrize(("service", "command"), commands(), ids=lambda each: each if isinstance(each, str) else "")
def test_every_command_and_option_is_known_to_its_command_line(
    service: str, command: list[str], warm: WarmPython
) -> None:
    options = [each.partition("=")[0] for each in command if each.startswith("--")]
    words = [each for each in command if not each.startswith("-")]
    # What of the words are subcommands: as many as the command line takes.
    subcommand = next(
        words[:length]
        for length in range(len(words), 0, -1)
        if all(word.isidentifier() or "-" in word for word in words[:length])
        and is_command(warm.executable, words[:length])
    )

    text = re.sub(r"\s+", " ", help_of(warm.executable, *subcommand))
    for option in options:
        assert re.search(rf"{re.escape(option)}\b", text), f"{service}: {' '.join(subcommand)} has no {option}"


def test_a_wrong_command_or_variable_would_be_found(warm: WarmPython) -> None:
    assert not is_command(warm.executable, ["prefect", "server", "service"])
    assert not is_command(warm.executable, ["dask", "schedule"])
    assert "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCHSIZE" not in known_variables()


def is_command(python: Path, words: list[str]) -> bool:
    """Whether the help of what is before the last word names it as a command."""
    if len(words) == 1:
        return (BIN / words[0]).exists()
    return is_command(python, words[:-1]) and bool(
        re.search(rf"^[│ ]*{re.escape(words[-1])}\b", help_of(python, *words[:-1]), re.MULTILINE)
    )


def test_services_stand_on_services_and_volumes_that_are_there_and_wait_until_these_are_well() -> None:
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            assert other in SERVICES, f"{name} depends on {other}"
            how = service["depends_on"][other]["condition"] if isinstance(service["depends_on"], dict) else ""
            assert how != "service_healthy" or "healthcheck" in SERVICES[other], (
                f"{name} waits for the health of {other}"
            )
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"], f"{name} mounts {volume}"
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} >= {
        *("postgres", "redis", "server", "worker")
    }


def test_the_image_is_built_from_files_of_the_clone() -> None:
    builds = {str(service["build"]) for service in SERVICES.values() if "build" in service}
    dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
    kept = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert builds == {str({"context": "..", "dockerfile": "deployments/Dockerfile"})}
    copied = re.findall(r"^COPY (?:--\S+ )?(\S+) \S+$", dockerfile, re.MULTILINE)
    assert (
        sorted(copied)
        == sorted(kept)
        == sorted(["requirements-machines.lock", *("llms", "tasks", "flows", "deployments")])
    )
    assert all((ROOT / each).exists() for each in copied)
    assert "--require-hashes" in dockerfile


def test_every_variable_to_fill_in_is_in_the_example_and_the_other_way_round() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOYMENTS / "compose.yaml").read_text()))
    shown = set(re.findall(r"^(\w+)=", (DEPLOYMENTS / "example.env").read_text(), re.MULTILINE))

    assert shown == wanted
    secrets = {"POSTGRES_PASSWORD", "PREFECT_AUTH_STRING", "PREFECT_ENCRYPTION_KEY"}
    # Compose refuses to start without them.
    text = (DEPLOYMENTS / "compose.yaml").read_text()
    assert {name for name in wanted if f"${{{name}:?" in text} == secrets
    assert ".env" in (ROOT / ".gitignore").read_text()


def test_the_work_pool_is_that_of_the_deployments() -> None:
    deployed = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    pools = {each["work_pool"]["name"] for each in deployed}

    assert pools == {"stillflow"}
    assert "stillflow" in SERVICES["worker"]["command"]
    assert "work-pool create stillflow --type process" in SERVICES["setup"]["command"][-1]
    assert "process" in SERVICES["worker"]["command"]


def test_the_automations_are_prefects_and_see_the_runs_of_the_deployments() -> None:
    automations = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())["automations"]
    deployed = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    heartbeat = int(SERVICES["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])

    for automation in automations:
        AutomationCore.model_validate(automation)
        assert automation["trigger"]["match_related"] == {"prefect.resource.id": "prefect.tag.stillflow"}
    assert all("stillflow" in deployment["tags"] for deployment in deployed)
    lost, goes_on = automations
    assert lost["trigger"]["within"] >= 3 * heartbeat
    from flows.engine.ownership import POLL_SECONDS

    assert goes_on["trigger"]["within"] >= 1.5 * POLL_SECONDS
