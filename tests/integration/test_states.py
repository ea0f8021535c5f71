"""The states of runs have Prefect's own names: automations hear of them, and lists filtered by name have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, wait_for
from tests.integration.stack import POOL, Stack

TEXT_GENERATION = "text-generation/text-generation"
GUIDE = ROOT / "docs" / "guides" / "when-a-batch-fails.md"
TELLING = f'''
from prefect import flow


@flow
def tell_the_team(what: str):
    with open("told.txt", "a") as file:
        file.write(what)


if __name__ == "__main__":
    tell_the_team.from_source(source=".", entrypoint="telling.py:tell_the_team").deploy(
        "tell-the-team", work_pool_name="{POOL}"
    )
'''


def automations_in(guide: Path) -> str:
    """The file of automations that a guide shows."""
    (found,) = re.findall(r"```yaml\n(automations:\n.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    return found


@pytest.fixture
def told(stack: Stack) -> Iterator[Path]:
    """What the guide's automation, which starts a deployment for every run that failed, has told so far."""
    (stack.clone / "telling.py").write_text(TELLING)
    stack.command([stack.python, "telling.py"])
    deployment = stack.deployment("tell-the-team/tell-the-team")["id"]
    file = stack.folder / "failed-runs.yaml"
    file.write_text(automations_in(GUIDE).replace("00000000-0000-0000-0000-000000000000", deployment))
    stack.prefect("automation", "create", "--from-file", str(file))
    try:
        yield stack.clone / "told.txt"
    finally:
        for each in yaml.safe_load(file.read_text())["automations"]:
            stack.prefect("automation", "delete", each["name"])
        # Other tests of the stack look at every deployment there is.
        stack.call("DELETE", f"/deployments/{deployment}")


def test_the_guides_automation_is_fired_by_a_run_that_fails_with_an_error_of_ours(stack: Stack, told: Path) -> None:
    fine = stack.start(TEXT_GENERATION, parameters_for(stack, "a run that doesn't fail"))
    stack.wait(fine)
    run = stack.start(TEXT_GENERATION, {"source": {"data_files": "nowhere.jsonl"}})
    state = stack.wait(run, "FAILED")["state"]

    assert state["name"] == "Failed"
    assert state["message"].startswith("SourceError: data_files='nowhere.jsonl'")
    said = wait_for(lambda: told.exists() and told.read_text(), what="what the automation tells")
    assert said == f"{stack.run(run)['name']}: {state['message']}"


def test_a_list_of_failed_runs_has_it(stack: Stack) -> None:
    run = stack.start(TEXT_GENERATION, {"source": {"data_files": "nowhere-else.jsonl"}})
    stack.wait(run, "FAILED")

    named = stack.call("POST", "/flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": ["Failed"]}}}})

    assert run in {each["id"] for each in named}


def parameters_for(stack: Stack, subject: str) -> dict[str, object]:
    rows = [{"instruction": f"Say something of {subject}."}]
    out = stack.folder / subject.replace(" ", "-")
    return {"source": {"data_files": str(stack.source(subject, rows))}, "target": {"path": str(out)}}
