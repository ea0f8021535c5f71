"""The project on many machines: PostgreSQL, Redis, the server's services apart, four workers, Dask, object storage."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, free_port, is_up, wait_for
from tests.integration.services import fresh_database, fresh_redis
from tests.integration.stack import (
    MARK,
    POOL,
    PREFECT,
    ROOT,
    Process,
    Stack,
    copy_of_the_clone,
    kill_all,
    private_environment,
)
from tests.object_store import BUCKET, object_store
from tests.warm import WarmPython

pytestmark = pytest.mark.slow

WORKERS = 4
RUNS = 20
DEPLOYMENT = "text-generation/text-generation"
WORKER_VARIABLE = "STILLFLOW_TEST_WORKER"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server as it stands in compose.yaml, and four workers of one pool that share a folder."""
    folder = tmp_path_factory.mktemp("scaled-out")
    copy_of_the_clone(folder / "clone")
    (folder / "home").mkdir()
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with (
        fresh_database() as database,
        fresh_redis() as messages,
        LocalProvider(port=free_port()) as provider,
        ExitStack() as running,
    ):
        environment = private_environment(
            folder, api, OPENAI_BASE_URL=provider.base_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30"
        )
        python = running.enter_context(WarmPython(folder / "clone", environment)).executable
        stack = Stack(
            api,
            folder / "server.log",
            folder=folder,
            provider=provider,
            environment=environment,
            python=str(python),
        )
        server = {**messages, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database, **recorder_of_compose()}
        running.callback(kill_all, MARK, environment[MARK])

        def start(name: str, *command: str, **more: str) -> Process:
            process = stack.process(name, command, **more)
            stack.processes.append(running.enter_context(process))
            return process

        start("server", PREFECT, "server", "start", "--no-services", "--port", str(port), **server)
        wait_for(lambda: is_up(f"{api}/health"), what="the server")
        start("services", PREFECT, "server", "services", "start", **server)
        stack.prefect("work-pool", "create", POOL, "--type", "process")
        workers = [
            start(f"worker {number}", stack.python, PREFECT, "worker", "start", "--pool", POOL, "--name",
                  f"worker-{number}", "--limit", str(RUNS // WORKERS), **{WORKER_VARIABLE: str(number)})
            for number in range(WORKERS)
        ]  # fmt: skip
        for worker in workers:
            worker.wait_for_output("started!")
        yield stack


def recorder_of_compose() -> dict[str, str]:
    """The settings of the service that records task runs, as they are in compose.yaml."""
    services = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())["services"]
    return {
        name: str(value) for name, value in services["services"]["environment"].items() if "_TASK_RUN_RECORDER_" in name
    }


@pytest.fixture(autouse=True)
def fresh_provider(scaled: Stack) -> None:
    scaled.provider.reset()


def prompts(name: str, count: int) -> list[dict[str, str]]:
    return [{"instruction": f"Tell me of {name} number {number}."} for number in range(count)]


def parameters_of(stack: Stack, name: str, count: int, **llm: Any) -> dict[str, Any]:
    return {
        "source": {"data_files": str(stack.source(name, prompts(name, count)))},
        "text_generation": {"llm": llm},
        "target": {"path": str(stack.folder / "out" / name)},
    }


def rows_of(stack: Stack, name: str) -> list[tuple[str, str]]:
    dataset = load_from_disk(str(stack.folder / "out" / name))
    return list(zip(dataset["instruction"], dataset["generation"], strict=True))


def expected(name: str, count: int) -> list[tuple[str, str]]:
    return [(row["instruction"], f"All about {name} {number}.") for number, row in enumerate(prompts(name, count))]


def shards_of(stack: Stack, run: str) -> list[str]:
    return [each["name"] for each in stack.task_runs(run) if each["name"].startswith("text_generation-")]


ANSWERS = {r"of (?P<name>[\w-]+) number (?P<number>\d+)": "All about {name} {number}."}


def test_one_run_is_spread_over_the_processes_of_a_dask_cluster_with_its_shards_in_an_object_store(
    scaled: Stack, tmp_path: Path
) -> None:
    scaled.provider.set(latency=0.3, answers=ANSWERS)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = str(Path(sys.executable).with_name("dask"))
    with object_store(tmp_path) as store:
        # The workers are another machine: they have the storage's keys, the project and nothing else.
        there = {**store, "PYTHONPATH": str(scaled.clone), "STILLFLOW_STORAGE": ""}
        scheduler = scaled.process("scheduler", [dask, "scheduler", "--port", str(port), "--no-dashboard"], **there)
        nodes = scaled.process(
            "dask workers",
            [dask, "worker", address, "--nworkers", str(WORKERS), "--nthreads", "1", "--no-dashboard",
             "--preload", "flows.cluster.worker"],
            **there,
        )  # fmt: skip
        with scheduler, nodes:
            scheduler.wait_for_output("Scheduler at:")
            wait_for(lambda: nodes.output().count("Starting established connection") >= WORKERS, what="workers")
            run = scaled.start(
                DEPLOYMENT,
                parameters_of(scaled, "spread", 2_000, max_concurrent_requests=2, generation_kwargs={"seed": 1}),
                **store,
                STILLFLOW_STORAGE=f"s3://{BUCKET}/spread",
                STILLFLOW_RUNNER="dask",
                STILLFLOW_RUNNER_ADDRESS=address,
            )
            # Two at a time in each process: more than six are under way only where all four have shards.
            wait_for(lambda: scaled.provider.stats.max_in_flight > 2 * (WORKERS - 1), what="four at work")
            scaled.provider.set(latency=0)
            scaled.wait(run)

    assert rows_of(scaled, "spread") == expected("spread", 2_000)
    assert len(scaled.asked()) == len(set(scaled.asked())) == 2_000
    # Another process records them, and may be behind.
    wait_for(lambda: len(shards_of(scaled, run)) > WORKERS, what="the task runs of the shards")
    assert not list(scaled.storage.rglob("*.parquet"))


def test_twenty_runs_at_once_over_four_workers_all_complete_with_their_own_rows(scaled: Stack) -> None:
    scaled.provider.set(latency=0.05, answers=ANSWERS)
    names = [f"run-{number}" for number in range(RUNS)]

    runs = [scaled.start(DEPLOYMENT, parameters_of(scaled, name, 40, max_concurrent_requests=10)) for name in names]
    for run in runs:
        scaled.wait(run)

    for name in names:
        assert rows_of(scaled, name) == expected(name, 40)
    assert Counter(scaled.asked()) == Counter(row["instruction"] for name in names for row in prompts(name, 40))
    workers = Counter(scaled.run(run)["labels"]["prefect.worker.name"] for run in runs)
    assert set(workers) == {f"worker-{number}" for number in range(WORKERS)}


def test_a_run_whose_machine_is_gone_goes_on_at_another_and_pays_for_nothing_but_what_was_under_way_again(
    scaled: Stack,
) -> None:
    # Not before: a run of the tests above may be slow, and this would call it lost.
    scaled.prefect("automation", "create", "--from-file", str(ROOT / "deployments" / "automations.yaml"))
    at_once, count = 3, 240
    scaled.provider.set(latency=0.3, answers=ANSWERS)
    run = scaled.start(DEPLOYMENT, parameters_of(scaled, "lost", count, max_concurrent_requests=at_once))
    wait_for(lambda: len(scaled.asked()) >= 60, what="answers")
    worker = scaled.run(run)["labels"]["prefect.worker.name"]

    # The worker and all that it started, at once: nobody is left to tell the server.
    kill_all(WORKER_VARIABLE, worker.removeprefix("worker-"))
    answered = len(scaled.asked())
    assert answered < count
    scaled.provider.set(latency=0.05)
    scaled.wait(run, "CRASHED", seconds=LONGEST)
    scaled.wait(run, past=scaled.run(run)["state"]["id"])

    assert rows_of(scaled, "lost") == expected("lost", count)
    states = [each["name"] for each in scaled.call("GET", f"/flow_run_states/?flow_run_id={run}")]
    assert states[-6:] == ["Crashed", "AwaitingRetry", "Pending", "Submitting", "Running", "Completed"]
    assert scaled.run(run)["labels"]["prefect.worker.name"] != worker
    asked = Counter(scaled.asked(status=None))
    assert len(asked) == count
    assert sum(asked.values()) - count <= at_once
