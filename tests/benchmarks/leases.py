"""What it costs to share a limit, and how well processes keep to it: `python -m tests.benchmarks.leases`.

A run alone with a limit that it has for itself, beside one without any; then two that want more than there is. The
provider's stand-in, the server (on SQLite) and every run are processes of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import collect, flow, load
from llms import OpenAILLM
from llms.local_provider import LocalProvider, SeenRequest, SpawnedProvider
from tasks import TextGeneration
from tests.integration.stack import ROOT, Server

LIMIT = 20
LATENCY = 0.5
SECONDS = 20.0
ROWS = int(LIMIT * SECONDS / LATENCY)
CALLS_TO_WEIGH = 100


@flow
async def sharing(name: str, limit: str, rows: int, at_once: int) -> None:
    llm = OpenAILLM(model="m", shared_limit=limit, max_concurrent_requests=at_once)
    given = load([{"instruction": f"{name} {number}"} for number in range(rows)], shard_rows=200)
    await collect(TextGeneration(llm=llm).map(given))


class Calls:
    """The calls about limits that this process makes."""

    def __init__(self) -> None:
        import httpx

        self.count, self.seconds = 0, 0.0
        send = httpx.AsyncClient.send

        async def noting(client: httpx.AsyncClient, request: httpx.Request, **more: Any) -> httpx.Response:
            begin = time.perf_counter()
            try:
                return await send(client, request, **more)
            finally:
                if "concurrency_limits" in request.url.path:
                    self.count += 1
                    self.seconds += time.perf_counter() - begin

        httpx.AsyncClient.send = noting


async def processor_seconds_per_call(limit: str) -> float:
    """Of this process, for calls one after the other and nothing beside them."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        await client.read_global_concurrency_limit_by_name(limit)
        begin = time.process_time()
        for _ in range(CALLS_TO_WEIGH):
            await client.read_global_concurrency_limit_by_name(limit)
        return (time.process_time() - begin) / CALLS_TO_WEIGH


def run(name: str, limit: str, rows: str, at_once: str, known: str) -> None:
    """One process: prints what its run took."""
    calls, begin, cpu = Calls(), time.perf_counter(), time.process_time()
    asyncio.run(sharing(name, limit, int(rows), int(at_once)))
    taken = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    taken |= {"calls": calls.count, "in_calls": calls.seconds}
    taken["per_call"] = asyncio.run(processor_seconds_per_call(known))
    print(json.dumps(taken))  # noqa: T201 -- read by the process that started it


def start(name: str, limit: str, at_once: int, rows: int, known: str, environment: Mapping[str, str]) -> Any:
    command = [sys.executable, "-m", "tests.benchmarks.leases", name, limit, str(rows), str(at_once), known]
    own = {**environment, "STILLFLOW_STORAGE": f"{environment['STILLFLOW_STORAGE']}/{name}"}
    return subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(process: Any) -> dict[str, float]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output.splitlines()[-1])


def of(name: str, requests: Sequence[SeenRequest]) -> list[SeenRequest]:
    return [each for each in requests if each.body and each.body["messages"][-1]["content"].startswith(f"{name} ")]


def span(requests: Sequence[SeenRequest]) -> tuple[float, float]:
    """From the first request to the last answer."""
    return min(each.started for each in requests), max(each.finished or 0.0 for each in requests)


def under_way(requests: Sequence[SeenRequest], begin: float, end: float) -> float:
    """How many there were on average."""
    within = (min(each.finished or end, end) - max(each.started, begin) for each in requests)
    return sum(max(0.0, seconds) for seconds in within) / (end - begin)


def costs(provider: SpawnedProvider, server: Server, environment: Mapping[str, str]) -> list[str]:
    """One run with a limit of its own, and one without, at the same time."""
    server.call("POST", "/v2/concurrency_limits/", {"name": "alone", "limit": LIMIT})
    processes = {
        name: start(name, limit, LIMIT, ROWS, "alone", environment)
        for name, limit in (("with", "alone"), ("without", "none"))
    }
    taken = {name: result(process) for name, process in processes.items()}
    lines = [
        f"{ROWS} requests, {LIMIT} at a time, answers after {LATENCY:g} s: ideal {SECONDS:.1f} s",
        "",
        "| a limit in Prefect | first request to last answer | calls about it | s in them | their processor time, s |",
        "|--------------------|-----------------------------:|---------------:|----------:|------------------------:|",
    ]
    for name, each in taken.items():
        begin, end = span(of(name, provider.requests))
        cpu = each["calls"] * each["per_call"]
        share = f"{cpu:.2f} ({cpu / each['seconds']:.2%} of the run)"
        lines.append(
            f"| {name:<18} | {end - begin:26.2f} s | {each['calls']:14.0f} | {each['in_calls']:9.2f} | {share:>23} |"
        )
    return lines


def together(provider: SpawnedProvider, server: Server, environment: Mapping[str, str]) -> list[str]:
    """Two runs that want three times the limit each."""
    provider.clear()
    server.call("POST", "/v2/concurrency_limits/", {"name": "both", "limit": LIMIT})
    processes = [start(name, "both", 3 * LIMIT, ROWS // 2, "both", environment) for name in ("one", "two")]
    for process in processes:
        result(process)
    requests = provider.requests
    spans = [span(of(name, requests)) for name in ("one", "two")]
    begin, end = max(first for first, _ in spans), min(last for _, last in spans) - LATENCY
    each = [under_way(of(name, requests), begin, end) for name in ("one", "two")]
    most = provider.stats.max_in_flight
    left = [server.call("GET", f"/v2/concurrency_limits/{name}") for name in ("both", "both.processes")]
    return [
        "",
        f"Two processes, each wants {3 * LIMIT} of {LIMIT} places; {end - begin:.1f} s in which both worked",
        "",
        "| at most under way | of the limit | on average | of the limit | of one | of the other | left taken |",
        "|------------------:|-------------:|-----------:|-------------:|-------:|-------------:|-----------:|",
        f"| {most:17} | {most / LIMIT:12.0%} | {sum(each):10.1f} | {sum(each) / LIMIT:12.1%} | {each[0]:6.1f} |"
        f" {each[1]:12.1f} | {sum(limit['active_slots'] for limit in left):10} |",
    ]


def main() -> None:
    # Not where the runs are: it takes their addresses out of the environment.
    from tests.conftest import prefect_server

    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_server(Path(folder)) as api,
        LocalProvider.spawn(latency=LATENCY) as provider,
    ):
        environment = {
            **os.environ,
            "PREFECT_API_URL": api,
            "OPENAI_BASE_URL": provider.base_url,
            "STILLFLOW_STORAGE": f"{folder}/storage",
        }
        server = Server(api, Path(folder) / "server.log")
        lines = [*costs(provider, server, environment), *together(provider, server, environment)]
    print("\n".join(lines))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    if sys.argv[1:]:
        run(*sys.argv[1:])
    else:
        main()
