"""The deployments of prefect.yaml and serve.py, run by real servers and workers."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from datasets import load_from_disk

from tests.conftest import LONGEST, wait_for
from tests.integration.stack import POOL, Refused, Stack, kill_all, processes_with

TEXT_GENERATION = "text-generation/text-generation"
NAMES = [TEXT_GENERATION, "preference/preference", "preference/preference-weekly"]
KEY = "sk-only-in-the-block-4711"


def prompts(subject: str, count: int = 6) -> list[dict[str, str]]:
    """Prompts that no other test asks: answers are kept, and shared between runs."""
    return [{"instruction": f"Tell me about {subject} number {number}."} for number in range(count)]


def texts(rows: list[dict[str, str]]) -> list[str]:
    return sorted(row["instruction"] for row in rows)


def temperature(value: object) -> dict[str, Any]:
    return {"llm": {"generation_kwargs": {"temperature": value}}}


def test_prefect_deploy_makes_every_deployment_with_its_schedule(stack: Stack) -> None:
    stack.deploy()

    made = {each["name"] for each in stack.call("POST", "/deployments/filter", {})}
    file = yaml.safe_load((stack.clone / "deployments" / "prefect.yaml").read_text())
    assert made >= {each["name"] for each in file["deployments"]}
    text_generation, preference, weekly_preference = (stack.deployment(name) for name in NAMES)

    assert {each["work_pool_name"] for each in (text_generation, preference, weekly_preference)} == {POOL}
    assert text_generation["schedules"] == preference["schedules"] == []
    (weekly,) = weekly_preference["schedules"]
    assert weekly["schedule"]["cron"] == "0 6 * * 1"
    assert weekly["schedule"]["timezone"] == "Etc/UTC"
    assert weekly["active"] is False
    assert weekly_preference["parameters"] == {"use_cache": False, "target": {"path": "data/preference-weekly/{date}"}}


def test_a_run_with_a_part_of_a_parameter_makes_the_dataset_its_card_and_its_report(
    stack: Stack, tmp_path: Path
) -> None:
    rows = prompts("a run from the API")
    parameters = {
        "source": {"data_files": str(stack.source("api", rows))},
        "text_generation": temperature(0.3),
        "target": {"path": str(tmp_path / "out")},
    }

    run = stack.start(TEXT_GENERATION, parameters)
    stack.wait(run)

    dataset = load_from_disk(str(tmp_path / "out"))
    assert dataset["instruction"][:] == [row["instruction"] for row in rows]
    assert all(dataset["generation"][:])
    card = (tmp_path / "out" / "README.md").read_text()
    assert run in card
    assert "temperature" in card
    assert sorted(stack.asked()) == texts(rows)
    assert {(each.body["model"], each.body["temperature"]) for each in stack.sent()} == {("gpt-4o-mini", 0.3)}
    # Where the machine is slow there's one that said how far it was, too.
    (report,) = [each for each in stack.artifacts(run) if not each["key"].startswith("progress-")]
    assert report["key"] == "run-report"
    assert re.search(r"\| text_generation \| 6 \| – \| 6 \(6\) \|", report["data"])
    assert str(tmp_path / "out") in report["data"]
    # The server takes them from events, which it may be behind with.
    wait_for(
        lambda: {each["name"] for each in stack.task_runs(run)} == {"source", "text_generation-0"},
        what="the task runs of the two steps and no other",
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"text_generation": temperature("hot")}, "text_generation.llm.generation_kwargs.temperature"),
        ({"text_generation": temperature(9)}, "text_generation.llm.generation_kwargs.temperature"),
        (
            {"text_generation": {"llm": {"generation_kwargs": {"temprature": 0.3}}}},
            "text_generation.llm.generation_kwargs",
        ),
        ({"text_generation": {"llm": {"modle": "gpt-4o"}}}, "text_generation.llm"),
        ({"text_generation": {"num_generations": "two"}}, "text_generation.num_generations"),
        ({"text_generation": {"nmu_generations": 2}}, "text_generation"),
        ({"source": {"data_file": "x.jsonl"}}, "source"),
        ({"max_failed_rows": -1}, "max_failed_rows"),
    ],
    ids=[
        "a text for a number",
        "a number out of bounds",
        "an unknown generation parameter",
        "an unknown name of the LLM",
        "a text for a number of the step",
        "an unknown name of the step",
        "an unknown name of the source",
        "a negative share",
    ],
)
def test_a_wrong_parameter_is_refused_by_the_server_before_there_is_a_run(
    stack: Stack, given: dict[str, Any], field: str
) -> None:
    before = len(stack.runs(TEXT_GENERATION))

    with pytest.raises(Refused) as refused:
        stack.start(TEXT_GENERATION, given)

    assert refused.value.status == 409
    assert f"Validation failed for field '{field}'" in refused.value.body
    assert len(stack.runs(TEXT_GENERATION)) == before
    assert stack.sent() == []


def test_the_same_part_of_a_parameter_from_prefects_command_line(stack: Stack, tmp_path: Path) -> None:
    rows = prompts("a run from the command line")
    parameters = {
        "source": {"data_files": str(stack.source("cli", rows))},
        "text_generation": temperature(0.7),
        "target": {"path": str(tmp_path / "out")},
    }

    said = stack.prefect("deployment", "run", TEXT_GENERATION, "--params", json.dumps(parameters))
    stack.wait(run_in(said))

    assert len(load_from_disk(str(tmp_path / "out"))) == len(rows)
    assert {request.body["temperature"] for request in stack.sent()} == {0.7}


def run_in(said: str) -> str:
    """The run's id in what `prefect deployment run` said."""
    found = re.search(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", said)
    assert found, f"no run's id in:\n{said}"
    return found[0]


def test_a_wrong_parameter_on_prefects_command_line_is_refused_with_a_message(stack: Stack) -> None:
    said = stack.prefect(
        "deployment", "run", TEXT_GENERATION, "--params", '{"text_generation": {"num_generations": "two"}}', status=1
    )

    assert "Validation failed for field 'text_generation.num_generations'" in " ".join(said.split())
    assert "'two' is not of type 'integer'" in " ".join(said.split())


def test_a_wrong_name_on_prefects_command_line_is_refused_with_the_names_that_there_are(stack: Stack) -> None:
    said = stack.prefect(
        "deployment", "run", TEXT_GENERATION, "--params", '{"text_generation": {"llm": {"modle": "m"}}}', status=1
    )

    assert "Validation failed for field 'text_generation.llm'" in " ".join(said.split())
    assert "'modle' is not one of ['model', " in " ".join(said.split())


def test_a_wrong_generation_parameter_is_refused_with_those_of_the_provider_that_was_named(stack: Stack) -> None:
    given = '{"text_generation": {"llm": {"provider": "anthropic", "generation_kwargs": {"temprature": 1}}}}'

    said = stack.prefect("deployment", "run", TEXT_GENERATION, "--params", given, status=1)

    assert "Validation failed for field 'text_generation.llm.generation_kwargs'" in " ".join(said.split())
    assert "'temprature' is not one of ['max_new_tokens', 'temperature', " in " ".join(said.split())


@pytest.mark.parametrize(
    ("given", "where", "said"),
    [
        ({"source": {"kind": "flies"}}, "source", "'kind: one of files, hub, "),
        ({"target": {"kind": "disk", "path": 3}}, "target.path", "3 is not of type 'string'"),
        ({"text_generation": {"llm": {"model": 3}}}, "text_generation.llm.model", "3 is not of type 'string'"),
    ],
)
def test_a_wrong_kind_or_type_is_refused_where_it_stands(
    stack: Stack, given: dict[str, Any], where: str, said: str
) -> None:
    told = " ".join(
        stack.prefect("deployment", "run", TEXT_GENERATION, "--params", json.dumps(given), status=1).split()
    )

    assert f"Validation failed for field '{where}'" in told
    assert said in told


def test_parts_given_in_prefect_yaml_and_parts_given_to_the_run_are_merged_deeply(stack: Stack) -> None:
    rows = prompts("the weekly run", 4)
    parameters = {
        "source": {"data_files": str(stack.source("weekly", rows))},
        "target": {"overwrite": True},
        "ultrafeedback": {"llm": {"model": "judge-of-this-run"}},
    }

    run = stack.start("preference/preference-weekly", parameters)
    stack.wait(run)

    # Prefect's own merge is shallow: of the run's `target` and that of prefect.yaml only one is in the run.
    assert stack.run(run)["parameters"]["target"] == {"overwrite": True}
    day = stack.run(run)["expected_start_time"].partition("T")[0]
    folder = stack.clone / "data" / "preference-weekly" / day
    dataset = load_from_disk(str(folder))
    assert sorted(set(dataset["prompt"])) == texts(rows)
    assert (folder / "README.md").exists()
    assert {request.body["model"] for request in stack.sent()} == {"gpt-4o-mini", "judge-of-this-run"}
    generated = [each.body for each in stack.sent() if each.body["model"] == "gpt-4o-mini"]
    assert {(body["temperature"], body["n"]) for body in generated} == {(1.0, 2)}


def test_a_key_from_a_credentials_block_reaches_the_provider_and_nothing_else(
    stack: Stack, prefect: str, tmp_path: Path
) -> None:
    from pydantic import SecretStr

    from flows.credentials import LLMCredentials

    stack.provider.set(api_key=KEY)
    assert status_without_a_key(stack.provider.base_url) == 401
    LLMCredentials(api_key=SecretStr(KEY)).save("local-provider", overwrite=True, _sync=True)
    parameters = {
        "source": {"data_files": str(stack.source("credentials", prompts("a key")))},
        "text_generation": {"llm": {"credentials": "local-provider"}},
        "target": {"path": str(tmp_path / "out")},
    }

    run = stack.start(TEXT_GENERATION, parameters)
    stack.wait(run)

    assert stack.provider.stats.count("/chat/completions", 200) == 6
    assert "local-provider" in json.dumps(stack.run(run)["parameters"])
    wait_for(lambda: any("requests sent" in line for line in stack.logs(run)), what="the run's log")
    # What it writes as it ends is there, and none of it goes away while it's read.
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of the run's processes")
    shown = [stack.run(run), stack.task_runs(run), stack.logs(run), stack.artifacts(run)]
    assert KEY not in json.dumps(shown)
    # The database holds the block encrypted, and everything else that the server was ever told.
    files = [*files_in(stack.folder), *files_in(tmp_path / "out"), *stack.log.parent.glob("prefect.db*")]
    assert any(str(stack.storage) in str(each) for each in files)
    assert any(each.name == "prefect.db" for each in files)
    assert [str(each) for each in files if KEY.encode() in content(each)] == []


def files_in(folder: Path) -> list[Path]:
    """Every file below a folder of which others may remove parts meanwhile."""
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return [each for each in found if each.is_file()]


def content(file: Path) -> bytes:
    """What is in a file; nothing where it has been removed."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def status_without_a_key(base_url: str) -> int:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=LONGEST) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_credentials_that_are_not_there_fail_the_run_with_their_name_and_the_way_out(stack: Stack) -> None:
    parameters = {
        "source": {"data_files": str(stack.source("no-credentials", prompts("no key")))},
        "text_generation": {"llm": {"credentials": "nobody-made-this"}},
    }

    run = stack.start(TEXT_GENERATION, parameters)
    state = stack.wait(run, "FAILED")["state"]

    assert state["name"] == "Failed"
    assert state["message"].startswith("AuthenticationError: ")
    assert "no block of type 'llm-credentials' or 'secret' named 'nobody-made-this'" in state["message"]
    assert "prefect block register -m flows.credentials" in state["message"]
    assert stack.sent() == []


def test_a_cancelled_run_ends_with_its_process_and_its_requests(stack: Stack, tmp_path: Path) -> None:
    stack.provider.set(latency=120.0)
    parameters = {
        "source": {"data_files": str(stack.source("cancelled", prompts("a cancelled run")))},
        "target": {"path": str(tmp_path / "out")},
    }
    run = stack.start(TEXT_GENERATION, parameters)
    poll(stack, run, lambda: stack.provider.stats.in_flight == 6, "had not sent its requests")
    assert processes_with("PREFECT__FLOW_RUN_ID", run)

    stack.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    stack.wait(run, "CANCELLED")
    poll(stack, run, lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), "has processes left")
    poll(stack, run, lambda: stack.provider.stats.in_flight == 0, "left requests under way")
    assert not (tmp_path / "out").exists()


def poll(stack: Stack, run: str, condition: Callable[[], object], problem: str, *, seconds: float = LONGEST) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(stack.story(run, f"{problem} after {seconds:g} s"))
        time.sleep(0.2)


def test_serve_runs_the_same_deployments_without_a_work_pool(stack: Stack, tmp_path: Path) -> None:
    rows = prompts("a served run")
    parameters = {
        "source": {"data_files": str(stack.source("served", rows))},
        "text_generation": temperature(0.9),
        "target": {"path": str(tmp_path / "out")},
    }
    # Deployments that are there would keep their work pool, and its worker might be quicker.
    for name in NAMES:
        stack.call("DELETE", f"/deployments/{stack.deployment(name)['id']}")
    mark = uuid4().hex
    server = stack.process("serve", [sys.executable, "-m", "deployments.serve"], SERVED_BY=mark)
    stack.processes.append(server)
    try:
        with server:
            server.wait_for_output("Your deployments are being served")
            served = [stack.deployment(name) for name in NAMES]
            run = stack.start(TEXT_GENERATION, parameters)
            stack.wait(run)
    finally:
        stack.processes.remove(server)
        kill_all("SERVED_BY", mark)
        stack.forget_served()

    assert [each["work_pool_name"] for each in served] == [None, None, None]
    assert served[2]["schedules"][0]["schedule"]["cron"] == "0 6 * * 1"
    assert len(load_from_disk(str(tmp_path / "out"))) == len(rows)
    assert {request.body["temperature"] for request in stack.sent()} == {0.9}
    assert len(stack.asked()) == len(rows)
