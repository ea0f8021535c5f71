"""Runs whose provider or whose Prefect server goes away in the middle, and comes back."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.event_loops import setting
from flows.engine.graph import load
from flows.engine.report import progress_line
from flows.engine.run import progress_listener
from llms import OpenAILLM
from llms.local_provider import FaultRule, LocalProvider
from llms.local_provider.control import ProviderHandle
from tasks import TextGeneration
from tests.conftest import prefect_server, wait_for
from tests.integration.mortal import AT_A_TIME, Ancestor, kill, order_in

AWAY_VARIABLE = "STILLFLOW_TEST_SECONDS_AWAY"
ROWS = 600
HOW_LONG = "openai first hasn't answered for"
ANSWERS = {r"Shorten: (?P<what>.*)": "Short: {what}", r"about number (?P<number>\d+)": "All about {number}."}


def away(default: float) -> float:
    """How many seconds something stays away; a real minute takes the variable."""
    return float(os.environ.get(AWAY_VARIABLE, default))


def asked(provider: ProviderHandle) -> Counter[tuple[str, str]]:
    """What the provider answered, by model and prompt."""
    return Counter(
        (each.body["model"], each.body["messages"][-1]["content"])
        for each in provider.requests
        if each.path == "/chat/completions" and each.status not in {503, None}
    )


def wait_for_answers(provider: ProviderHandle, count: int) -> None:
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= count, what="answers", pause=0.01)


# The provider


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is said of the limits. Not by caplog: Prefect sets logging up anew when it's first used."""
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listening = Listening(logging.WARNING)
    logger = logging.getLogger("llms.outages")
    logger.addHandler(listening)
    yield said
    logger.removeHandler(listening)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["refuses connections", "answers 503"])
def test_a_run_whose_provider_is_away_for_a_while_waits_says_so_and_loses_no_row(
    provider: LocalProvider, storage: Path, logged: list[str], way: str
) -> None:
    provider.set(answers=ANSWERS, latency=0.05, recorded_requests=100_000)

    def go_away() -> None:
        wait_for_answers(provider, ROWS // 2)
        if way == "refuses connections":
            provider.stop()
        else:
            provider.set(up=False)
        wait_for(lambda: any("doesn't answer" in line for line in logged), what="the word in the log")
        wait_for(lambda: any(HOW_LONG in line for line in list(said)), what="the word in the progress")
        time.sleep(away(0))
        provider.set(up=True)
        provider.start()

    # With one retry, which an outage must not use up.
    llms = [OpenAILLM(model=model, max_concurrent_requests=AT_A_TIME, max_retries=1) for model in ("first", "second")]
    first = TextGeneration(name="first", llm=llms[0])
    second = TextGeneration(
        name="second",
        llm=llms[1],
        template="Shorten: {{ generation }}",
        columns=["generation"],
        output_mappings={"generation": "short"},
    )
    rows: list[Any] = [{"instruction": f"Tell me about number {number}."} for number in range(ROWS)]
    said: set[str] = set()
    leaving = threading.Thread(target=go_away)
    leaving.start()

    with setting(progress_listener, lambda run: said.update(map(progress_line, run.progress.values()))):
        dataset = collect(load(rows, shard_rows=100).map(first).map(second))

    leaving.join()
    assert dataset["short"][:] == [f"Short: All about {number}." for number in range(ROWS)]
    seen = asked(provider)
    assert len(seen) == 2 * ROWS
    assert seen.total() - 2 * ROWS <= 2 * AT_A_TIME
    # Each of the two models has limits of its own.
    ends = ["answers again" in line for line in logged]
    assert 1 <= ends.count(True) == sum("doesn't answer" in line for line in logged) <= 2
    assert ends == sorted(ends)
    assert any(HOW_LONG in line for line in said)


# Prefect's server


@pytest.fixture
def spawned() -> Iterator[ProviderHandle]:
    with LocalProvider.spawn(answers=ANSWERS, latency=0.1, recorded_requests=100_000) as running:
        yield running


def states(api: str) -> list[str]:
    """The states of the server's flow runs, the first one's first."""
    import json
    import urllib.request

    body = json.dumps({"sort": "START_TIME_ASC"}).encode()
    request = urllib.request.Request(f"{api}/flow_runs/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return [each["state"]["type"] for each in json.loads(answer.read())]


@pytest.mark.slow
def test_runs_outlive_a_server_that_is_restarted_and_one_that_is_away_for_long(
    spawned: ProviderHandle, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    server = prefect_server(tmp_path / "server")

    def stop() -> None:
        kill(server.process.pid)
        server.process.wait()

    with server as api, Ancestor() as ancestor:
        undisturbed = order_in(tmp_path / "undisturbed", spawned.base_url, ROWS)
        assert ancestor.wait(ancestor.start(undisturbed)).status == 0
        expected = Path(undisturbed.target).read_bytes()

        spawned.clear()
        # Its client is patient, however long a server takes to start.
        restarted = order_in(tmp_path / "restarted", spawned.base_url, ROWS, prefect_api=api, client_retries=8)
        run = ancestor.start(restarted)
        wait_for_answers(spawned, ROWS // 2)
        stop()
        time.sleep(away(0))
        server.__enter__()
        assert ancestor.wait(run).status == 0, Path(restarted.log).read_text()
        assert Path(restarted.target).read_bytes() == expected
        assert set(asked(spawned).values()) == {1}
        assert states(api) == ["COMPLETED"]

        spawned.clear()
        # Its client soon gives up; but not where the server's database is locked for a moment.
        alone = order_in(tmp_path / "alone", spawned.base_url, ROWS, prefect_api=api, client_retries=1)
        # What is asked after that is answered so late that the run isn't done when the server goes.
        spawned.set(faults=[FaultRule(after=ROWS // 2, hang=5.0)])
        run = ancestor.start(alone)
        wait_for_answers(spawned, ROWS // 2)
        stop()
        spawned.set(faults=[])
        # What it makes is there; that it's done, it can tell nobody.
        assert ancestor.wait(run).status == 1
        assert Path(alone.target).read_bytes() == expected
        assert "Prefect's server doesn't take the run's report" in Path(alone.log).read_text()
        server.__enter__()
        again = replace(alone, client_retries=8)
        assert ancestor.wait(ancestor.start(again)).status == 0, Path(alone.log).read_text()
        assert Path(alone.target).read_bytes() == expected
        assert set(asked(spawned).values()) == {1}
        assert len(asked(spawned)) == 2 * ROWS
        assert states(api)[-1] == "COMPLETED"
