"""One run over one and over four processes of a Dask cluster: `python -m tests.benchmarks.machines`.

The provider takes `LATENCY` seconds for an answer, and each process may ask `AT_ONCE` at a time: it's the provider
that limits, as in life. Every run is a Prefect flow, recorded by a server, with its shards in a folder.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import LocalCluster

from flows import collect, flow, load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tests.conftest import prefect_server

LATENCY = 0.5
AT_ONCE = 4
ROWS = 320
SHARD_ROWS = 20
PROCESSES = (1, 4)
WANTED = 3.5


@flow
async def spread(name: str, rows: int, storage: str, url: str) -> int:
    prompts = [{"instruction": f"Write a sentence about {name} {number}."} for number in range(rows)]
    task = TextGeneration(llm=OpenAILLM(model="m", base_url=url, max_concurrent_requests=AT_ONCE))
    return len(await collect(task.map(load(prompts, shard_rows=SHARD_ROWS, storage=storage))))


def seconds_with(processes: int, storage: str, url: str) -> float:
    """How long a run takes, on processes that have worked before."""
    # Two shards at a time in a process: when one ends, the next has begun.
    with LocalCluster(n_workers=processes, threads_per_worker=2, dashboard_address=None) as cluster:
        os.environ["STILLFLOW_RUNNER_ADDRESS"] = cluster.scheduler_address
        asyncio.run(spread(f"warm-{processes}", 2 * processes * SHARD_ROWS, storage, url))
        start = time.perf_counter()
        assert asyncio.run(spread(f"timed-{processes}", ROWS, storage, url)) == ROWS
        return time.perf_counter() - start


def report(taken: dict[int, float]) -> str:
    base = taken[PROCESSES[0]]
    lines = [
        f"{ROWS} requests of {LATENCY:g} s, {AT_ONCE} at a time in each process, {SHARD_ROWS} rows a shard",
        "",
        "| processes | seconds | ideal | requests a second | to one process |",
        "|----------:|--------:|------:|------------------:|---------------:|",
    ]
    for processes, seconds in taken.items():
        ideal = ROWS * LATENCY / AT_ONCE / processes
        lines.append(
            f"| {processes:9} | {seconds:7.1f} | {ideal:5.1f} | {ROWS / seconds:17.1f} | {base / seconds:14.2f} |"
        )
    ratio = base / taken[PROCESSES[-1]]
    verdict = "as wanted" if ratio >= WANTED else "TOO LITTLE"
    return "\n".join([*lines, "", f"{PROCESSES[-1]} processes: {ratio:.2f} times one, wanted {WANTED:g}: {verdict}"])


def main() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as storage,
        prefect_server(Path(home)) as api,
        LocalProvider.spawn(latency=LATENCY) as provider,
    ):
        os.environ.update(STILLFLOW_RUNNER="dask", PREFECT_LOGGING_LEVEL="WARNING")
        settings: dict[Any, Any] = {PREFECT_API_URL: api, PREFECT_LOGGING_LEVEL: "WARNING"}
        with temporary_settings(settings):
            taken = {number: seconds_with(number, storage, provider.base_url) for number in PROCESSES}
        print(report(taken))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
