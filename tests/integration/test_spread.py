"""A run's shards on other processes: what goes out, what comes back, and what a death on either side costs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster
from pydantic import SecretStr

from flows import collect, flow, load
from flows.cluster.clusters import chosen_cluster
from flows.cluster.dispatch import Spread
from flows.cluster.messages import packed
from flows.cluster.worker import unpacked
from flows.engine.errors import CostLimitError, SpreadError
from flows.engine.event_loops import setting
from flows.engine.graph import Rows
from flows.engine.run import Run, run_started
from llms import AuthenticationError, OpenAILLM, PriceSource
from llms.credentials import Credentials
from llms.local_provider import FaultRule, LocalProvider
from tasks import TextGeneration, step
from tests.conftest import LONGEST, ROOT, wait_for
from tests.scripted import Reply, Scripted, completion
from tests.warm import Program, WarmPython

AT_ONCE = 5


@step(inputs=["generation"], outputs=["worker"])
def note_worker(inputs: list[dict[str, Any]], folder: str = "", others: int = 0) -> Iterator[list[dict[str, Any]]]:
    """Note the process that has the rows.

    Args:
        folder: where each process leaves its id.
        others: how many more processes are to have rows before this one gets on.
    """
    if folder:
        (Path(folder) / str(os.getpid())).touch()
        wait_for(lambda: len(list(Path(folder).iterdir())) > others, what="the other processes")
    yield [{**row, "worker": os.getpid()} for row in inputs]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes, which start anew where they die."""
    with pytest.MonkeyPatch.context() as environment:
        # What this test pickles is found by its name there.
        environment.setenv("PYTHONPATH", str(ROOT))
        environment.setenv("PYTHONHASHSEED", "0")
        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as running:
            # Dask sets its workers' and leaves it here, where no program would be started warm any more.
            os.environ.pop("PYTHONHASHSEED")
            yield running


@pytest.fixture
def spread(cluster: LocalCluster, storage: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """Runs of this test go to the cluster."""
    monkeypatch.setenv("STILLFLOW_RUNNER", "dask")
    monkeypatch.setenv("STILLFLOW_RUNNER_ADDRESS", cluster.scheduler_address)
    return cluster


def prompts(count: int) -> list[dict[str, str]]:
    return [{"instruction": f"Tell me about number {number}."} for number in range(count)]


def generation(provider: LocalProvider, **fields: Any) -> TextGeneration:
    # The workers are older than the test's environment: they get the address in the model.
    llm = OpenAILLM(model="m", base_url=provider.base_url, max_concurrent_requests=AT_ONCE, max_retries=0)
    return TextGeneration(llm=llm, **fields)


def sent(provider: LocalProvider) -> Counter[str]:
    return Counter(each.body["messages"][-1]["content"] for each in provider.requests if each.body)


def test_a_spread_run_makes_the_rows_and_the_counts_of_one_in_a_single_process(
    provider: LocalProvider, spread: LocalCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    provider.set(
        answers={r"number (?P<number>\d+)": "All about {number}."}, faults=[FaultRule(match=r"number 7\.", status=400)]
    )
    started: list[Run] = []

    def run(folder: Path, processes: int) -> list[dict[str, Any]]:
        (seen := folder / "processes").mkdir(parents=True)
        noting = note_worker(folder=str(seen), others=processes - 1)
        with setting(run_started, started.append):
            rows = generation(provider).map(load(prompts(60), shard_rows=10, storage=str(folder)))
            return collect(noting.map(rows), max_failed_rows=1).to_list()

    there = run(tmp_path / "there", 2)
    monkeypatch.setenv("STILLFLOW_RUNNER", "local")
    here = run(tmp_path / "here", 1)

    workers = {row.pop("worker") for row in there}
    assert {row.pop("worker") for row in here} == {os.getpid(), None}
    assert os.getpid() not in workers
    assert len(workers - {None}) == 2
    assert there == here

    def counts(run: Run) -> list[Any]:
        return [
            [each.name, each.rows_in, each.rows_out, each.failed, each.shards, each.answered, each.work, each.reasons]
            for each in run.progress.values()
        ]

    assert counts(started[0]) == counts(started[1])
    assert started[0].progress["text_generation"].answered == 59
    assert started[0].progress["text_generation"].failed == 1


class Priced(OpenAILLM):
    """Asks here, at OpenAI's prices."""

    def price_source(self) -> PriceSource | None:
        return PriceSource("https://api.openai.com/v1", "gpt-4o")


def test_a_limit_of_what_a_run_may_spend_holds_for_the_shards_of_a_cluster(spread: LocalCluster) -> None:
    def for_a_cent(body: dict[str, Any]) -> Reply:
        return completion(usage={"prompt_tokens": 0, "completion_tokens": 1000, "total_tokens": 1000})

    def rows(server: Scripted) -> Rows:
        llm = Priced(model="m", base_url=server.url, generation_kwargs={"max_new_tokens": 1000})
        return TextGeneration(llm=llm).map(load(prompts(120), shard_rows=10))

    with Scripted(for_a_cent) as server:
        with pytest.raises(CostLimitError, match=r"spent \$0\.\d+ of max_cost=0.55"):
            collect(rows(server), max_cost=0.55)
        asked = len(server.asked)
        collect(rows(server), max_cost=2)

    assert 40 <= asked <= 55
    assert len(server.asked) == 120


def test_what_is_there_already_is_not_sent_out_again(provider: LocalProvider, spread: LocalCluster) -> None:
    first = collect(generation(provider).map(load(prompts(20), shard_rows=10)))
    provider.clear()

    # Nobody is asked: not even a connection is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLFLOW_RUNNER_ADDRESS", "tcp://127.0.0.1:1")
        again = collect(generation(provider).map(load(prompts(20), shard_rows=10)))

    assert again.to_list() == first.to_list()
    assert not provider.requests


def test_an_order_holds_the_name_of_credentials_and_no_secret(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setattr("llms.credentials._store", lambda name: Credentials(SecretStr("sk-from-a-block")))
    keyed = TextGeneration(llm=OpenAILLM(model="m", api_key="sk-in-code"))
    with_headers = TextGeneration(llm=OpenAILLM(model="m", default_headers={"X-Team": "secret"}))

    def order_of(rows: Rows) -> bytes:
        return pickle.dumps(Spread(lambda: pytest.fail("no cluster"))._order(rows.node, "path", 0, [], []))

    order = order_of(TextGeneration(llm=OpenAILLM(model="m", credentials="openai-team")).map(load(prompts(1))))
    assert b"openai-team" in order
    assert b"sk-" not in order
    assert len(order) < 4_000
    for step_with_secret, field in ((keyed, "api_key"), (with_headers, "default_headers")):
        with pytest.raises(SpreadError, match=f"`{field}` of OpenAILLM was given in code"):
            order_of(step_with_secret.map(load(prompts(1))))


def test_a_worker_with_other_code_says_so_and_makes_nothing(storage: Path) -> None:
    node = TextGeneration(llm=OpenAILLM(model="m")).map(load(prompts(1))).node
    order = Spread(lambda: pytest.fail("no cluster"))._order(node, "path", 0, [], [])

    assert unpacked(order).name == "text_generation"
    with pytest.raises(SpreadError, match="what decides the rows of TextGeneration is different at this worker"):
        unpacked(replace(order, decides="of other templates"))
    assert packed(node)[1] == order.decides


def test_a_refused_key_ends_the_run_with_the_providers_words(provider: LocalProvider, spread: LocalCluster) -> None:
    provider.set(faults=[FaultRule(status=401, message="no such key")])

    with pytest.raises(AuthenticationError, match="no such key"):
        collect(generation(provider).map(load(prompts(40), shard_rows=10)))


def test_a_cluster_that_does_not_answer_and_a_name_that_is_none_are_said(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = generation(provider).map(load(prompts(4)))
    monkeypatch.setenv("STILLFLOW_RUNNER", "dusk")
    with pytest.raises(SpreadError, match="'dusk': expected 'dask', 'ray' or 'local'"):
        collect(rows)

    monkeypatch.setenv("STILLFLOW_RUNNER", "dask")
    monkeypatch.setenv("STILLFLOW_RUNNER_ADDRESS", "tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(SpreadError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
    ):
        collect(generation(provider).map(load(prompts(4))))


def start(warm: WarmPython, output: Path) -> Program:
    """A run of 300 rows in a process of its own."""
    return warm.start(["-c", PROGRAM], environment=os.environ, cwd=ROOT, output=output)


def test_a_worker_that_dies_costs_no_more_than_what_it_had_under_way(
    warm: WarmPython, provider: LocalProvider, spread: LocalCluster, tmp_path: Path
) -> None:
    provider.set(latency=0.05)
    run = start(warm, tmp_path / "output")
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= 100, what="answers", pause=0.01)
    victim = next(iter(spread.workers.values())).pid
    os.kill(victim, signal.SIGKILL)

    assert run.wait() == 0, (tmp_path / "output").read_text()
    rows = json.loads((tmp_path / "output").read_text().splitlines()[-1])
    assert [row["instruction"] for row in rows] == [each["instruction"] for each in prompts(300)]
    asked = sent(provider)
    assert len(asked) == 300
    # Its two shards share a limit of `AT_ONCE`.
    assert sum(asked.values()) - 300 <= AT_ONCE


PROGRAM = f"""
import json, os
from flows import collect, load
from llms import OpenAILLM
from tasks import TextGeneration

rows = [{{"instruction": f"Tell me about number {{number}}."}} for number in range(300)]
llm = OpenAILLM(model="m", base_url=os.environ["OPENAI_BASE_URL"], max_concurrent_requests={AT_ONCE})
print(json.dumps(collect(TextGeneration(llm=llm).map(load(rows, shard_rows=30))).to_list()))
"""


SLOW = 2.0
"""Seconds of an answer, so that a run takes longer than the cluster needs to hear of a death."""


def quiet(provider: LocalProvider) -> int:
    """How many requests there were, where none is under way and none comes for as long as two answers take."""
    before = len(provider.requests)
    time.sleep(2 * SLOW)
    return before if len(provider.requests) == before and provider.stats.in_flight == 0 else 0


def test_when_the_flow_dies_its_shards_stop_asking_and_the_next_run_goes_on(
    warm: WarmPython, provider: LocalProvider, spread: LocalCluster, tmp_path: Path
) -> None:
    provider.set(latency=0.05)

    killed = start(warm, tmp_path / "killed")
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= 60, what="answers", pause=0.01)
    provider.set(latency=SLOW)
    killed.kill()
    killed.wait()
    asked_before = wait_for(lambda: quiet(provider), what="the end of its shards")
    provider.set(latency=0.05)

    assert asked_before < 300
    assert start(warm, tmp_path / "again").wait() == 0, (tmp_path / "again").read_text()
    asked = sent(provider)
    assert len(asked) == 300
    # Those that were under way when the four shards stopped: as a rule together, five in each of two processes.
    assert sum(asked.values()) - 300 <= 4 * AT_ONCE


def test_a_flows_own_task_runner_is_used(
    provider: LocalProvider, cluster: LocalCluster, storage: Path, prefect: str
) -> None:
    from prefect_dask import DaskTaskRunner

    @flow(task_runner=DaskTaskRunner(address=cluster.scheduler_address))
    def spread_flow() -> list[Any]:
        rows = generation(provider).map(load(prompts(20), shard_rows=10))
        return collect(note_worker().map(rows))["worker"][:]

    workers = set(spread_flow())

    assert workers <= {worker.pid for worker in cluster.workers.values()}
    assert os.getpid() not in workers


SCRIPT = """
import json, os
from pydantic import validate_call
from llms import AsyncLLM, ChatType, GenerateOutput
from flows import collect, load
from tasks import TextGeneration, step


class OwnLLM(AsyncLLM):
    greeting: str = "You said"

    @property
    def model_name(self):
        return "own"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs) -> GenerateOutput:
        text = f"{self.greeting}: {input[-1]['content']}"
        return {"generations": [text], "statistics": {"input_tokens": [1], "output_tokens": [1]}}


@step(inputs=["generation"], outputs=["worker"])
def note_worker(inputs):
    yield [{**row, "worker": os.getpid()} for row in inputs]


def main():
    rows = TextGeneration(llm=OwnLLM()).map(load([{"instruction": str(n)} for n in range(40)], shard_rows=10))
    rows = collect(note_worker().map(rows)).to_list()
    print(json.dumps([[row["generation"] for row in rows], [row["worker"] for row in rows], os.getpid()]))


if __name__ == "__main__":
    main()
"""


# As Prefect loads the file of an entrypoint; but from a folder that isn't on the path of anybody.
LOADED = """
from prefect.utilities.importtools import load_script_as_module

if __name__ == "__main__":
    import sys

    module = load_script_as_module("elsewhere/own_flow.py")
    sys.path[:] = [each for each in sys.path if not each.endswith("elsewhere")]
    module.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runner", "program"),
    [
        pytest.param("dask", SCRIPT, id="dask"),
        pytest.param("ray", SCRIPT, id="ray"),
        pytest.param("dask", LOADED, id="a file that Prefect loads", marks=pytest.mark.full),
    ],
)
def test_steps_and_models_of_a_scripts_own_travel_to_a_cluster_started_for_it(
    runner: str, program: str, storage: Path, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own_flow.py").write_text(SCRIPT)
    environment = {**os.environ, "STILLFLOW_RUNNER": runner, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}

    def ended() -> subprocess.CompletedProcess[str] | None:
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
        # Ray gives a node half a minute, however busy the machine is.
        is_late = done.returncode != 0 and "timed out during startup" in done.stderr
        return None if is_late else done

    done = wait_for(ended, what="a run on a cluster that starts in time")

    assert done.returncode == 0, done.stderr
    generations, workers, own = json.loads(done.stdout.splitlines()[-1])
    assert generations == [f"You said: {number}" for number in range(40)]
    assert own not in workers


def test_no_setting_and_no_such_task_runner_keep_shards_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.task_runners import ThreadPoolTaskRunner

    monkeypatch.delenv("STILLFLOW_RUNNER", raising=False)

    assert chosen_cluster(None) is None
    assert chosen_cluster(ThreadPoolTaskRunner()) is None
