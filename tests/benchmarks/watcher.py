"""What a pass of the watcher over many waiting runs takes, on a real server: SQLite, or PostgreSQL with an address.

`python -m tests.benchmarks.watcher [postgresql+asyncpg://...]` prints one JSON object: seconds and calls of a pass
where no job has ended, of one where all have, and of one more.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.ledger.records import Jobs
from flows.store.storage import Storage
from flows.waiting.watching import watch
from llms import OpenAILLM
from llms.local_provider import LocalProvider, ProviderHandle
from tests.conftest import prefect_server
from tests.integration.waiting_runs import WaitingRuns

RUNS = 1_000


async def measure(folder: Path, provider: ProviderHandle) -> dict[str, float]:
    jobs = Jobs(Storage(str(folder / "storage")))
    llm = OpenAILLM(model="m", base_url=provider.base_url)
    taken: dict[str, float] = {"runs": RUNS}

    async with get_client() as client:

        async def one_pass(name: str, expected: int) -> None:
            provider.clear()
            start = time.perf_counter()
            watched = await watch(jobs, client)
            taken[f"seconds_{name}"] = round(time.perf_counter() - start, 1)
            taken[f"calls_{name}"] = provider.stats.count()
            assert (len(watched.woken), watched.problems) == (expected, [])

        start = time.perf_counter()
        made = await WaitingRuns.make(jobs, client, llm, RUNS, folder)
        taken["seconds_to_prepare"] = round(time.perf_counter() - start)
        await one_pass("none_ended", 0)
        for job in made.job_ids:
            await asyncio.to_thread(provider.end_batch, job)
        await one_pass("all_ended", RUNS)
        await one_pass("again", 0)
    return taken


def main() -> None:
    database = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as home, LocalProvider.spawn(batch_manual=True) as provider:
        server = Path(home) / "server"
        server.mkdir()
        os.environ["OPENAI_API_KEY"] = "none"
        with (
            prefect_server(server, database=database) as api,
            temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: Path(home)}),
        ):
            print(json.dumps(asyncio.run(measure(Path(home), provider))))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
