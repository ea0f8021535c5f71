"""What a row, a shard and a task run cost: the measured numbers of docs/guides/scale.md.

`python -m tests.benchmarks.scale`, with PostgreSQL and Redis on their usual ports of this machine. The model answers
at once and in the process, so that nothing but the engine is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import dask
from distributed import LocalCluster
from pydantic import validate_call

from flows import collect, flow, load
from llms import AsyncLLM, ChatType, GenerateOutput
from tasks import TextGeneration
from tasks.steps import GeneratorStep
from tests.conftest import ROOT, prefect_server, wait_for
from tests.integration.services import fresh_database, fresh_redis
from tests.object_store import BUCKET, object_store

PROMPTS = (ROOT / "flows" / "data" / "instructions.jsonl").read_text(encoding="utf-8")
WORDS = sorted(set(re.findall(r"[a-z]+", PROMPTS.lower())))
FEW, MANY = 50_000, 200_000


def text(words: int, seed: str) -> str:
    """Words in no order: it compresses worse than what a model writes."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


class AtOnceLLM(AsyncLLM):
    """Answers at once, with some 75 words."""

    @property
    def model_name(self) -> str:
        return "at-once"

    @validate_call
    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        return {
            "generations": [text(75, input[-1]["content"]) for _ in range(num_generations)],
            "statistics": {"input_tokens": [40] * num_generations, "output_tokens": [100] * num_generations},
        }


class Numbers(GeneratorStep):
    """As many prompts as ordered, made as they are wanted."""

    rows: int

    @property
    def outputs(self) -> list[str]:
        return ["instruction"]

    def process(self, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        for start in range(offset, self.rows, 1000):
            numbers = range(start, min(start + 1000, self.rows))
            yield [{"instruction": f"{number}: {text(25, str(number))}"} for number in numbers], False
        yield [], True


@flow
async def numbers(rows: int, shard_rows: int, storage: str) -> int:
    source = load(Numbers(rows=rows), shard_rows=shard_rows, storage=storage)
    return len(await collect(TextGeneration(llm=AtOnceLLM()).map(source)))


def run(rows: int, shard_rows: int, storage: str) -> dict[str, float]:
    """One run in a process of its own: its seconds, processor seconds and most memory."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "run", str(rows), str(shard_rows), storage]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def run_here(rows: int, shard_rows: int, storage: str) -> None:
    start, cpu, before = time.perf_counter(), time.process_time(), most_memory()
    assert asyncio.run(numbers(rows, shard_rows, storage)) == rows
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    say(json.dumps({**taken, "memory": most_memory(), "before": before}))


def most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bytes_below(folder: Path) -> tuple[int, int]:
    """Bytes and files."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files), len(files)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- what the command is for


def rows_and_shards() -> None:
    """In a folder: bytes, files, processor time and memory, per row and per shard."""
    with served(), tempfile.TemporaryDirectory() as folder:
        taken: dict[int, dict[str, float]] = {}
        for rows in (FEW, MANY):
            taken[rows] = run(rows, 500, f"{folder}/{rows}")
            say(f"{rows:,} rows in shards of 500: {taken[rows]}")
        again = run(MANY, 500, f"{folder}/{MANY}")
        say(f"the same again, from the cache: {again}")
        for kind in ("sources", "steps", "datasets"):
            size, files = bytes_below(Path(folder) / f"{MANY}" / kind)
            say(f"{kind}: {size / MANY:.0f} bytes a row, {files / (MANY / 500):.2f} files a shard")
        few, many = taken[FEW], taken[MANY]
        say(f"a row more: {(many['cpu'] - few['cpu']) / (MANY - FEW) * 1000:.2f} ms of processor")
        say(f"a row more: {(many['memory'] - few['memory']) / (MANY - FEW) * 1024 * 1024:.0f} bytes of memory")


def task_runs() -> None:
    """In shards of one row: what a shard costs the flow's process, and the database."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = run(200, 1, f"{folder}/few"), run(1_700, 1, f"{folder}/many")
    say(f"200 shards of a row: {few}\n1,700 shards of a row: {many}")
    say(f"a shard more: {(many['cpu'] - few['cpu']) / 1_500 * 1000:.1f} ms of processor")
    say(f"a shard more: {(many['memory'] - few['memory']) / 1_500 * 1024:.1f} KB of memory")


@contextmanager
def served() -> Iterator[str]:
    """A server on PostgreSQL and Redis, with its recorder as in compose.yaml. Yields the database's address."""
    recorder = {
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
    with (
        fresh_database() as database,
        fresh_redis() as messages,
        tempfile.TemporaryDirectory() as home,
        prefect_server(Path(home), database=database, **messages, **recorder) as api,
    ):
        os.environ.update(PREFECT_API_URL=api, PREFECT_LOGGING_LEVEL="WARNING")
        yield database.replace("+asyncpg", "")


async def ask(database: str, query: str) -> Any:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def tables(database: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(database)
    try:
        query = (
            "SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 6"
        )
        return [(each["relname"], each["bytes"]) for each in await connection.fetch(query)]
    finally:
        await connection.close()


def in_a_database() -> None:
    with served() as database:
        with tempfile.TemporaryDirectory() as folder:
            run(20, 1, f"{folder}/warm")
        before = asyncio.run(ask(database, "SELECT pg_database_size(current_database())"))
        recorded = asyncio.run(ask(database, "SELECT count(*) FROM task_run"))
        task_runs()
        wait_for(
            lambda: asyncio.run(ask(database, "SELECT count(*) FROM task_run")) >= recorded + 1_900,
            seconds=120,
            what="the records of all task runs",
        )
        time.sleep(10)
        after = asyncio.run(ask(database, "SELECT pg_database_size(current_database())"))
        events = asyncio.run(ask(database, "SELECT count(*) FROM events"))
        say(f"a task run: {(after - before) / 1_902 / 1024:.1f} KB of database; {events:,} events in all")
        for name, size in asyncio.run(tables(database)):
            say(f"  {name}: {size / 1024 / 1024:.1f} MB")


def in_an_object_store() -> None:
    """How many calls a shard takes."""
    with tempfile.TemporaryDirectory() as folder, object_store(Path(folder)) as store:
        os.environ.update(store)
        log = Path(folder) / "object-store.log"
        calls: dict[str, int] = {}
        for shards in (4, 24):
            seen = len(log.read_text().splitlines())
            run(100 * shards, 100, f"s3://{BUCKET}/{shards}")
            calls[f"{shards}"] = sum('"' in line for line in log.read_text().splitlines()[seen:])
        say(f"calls: {calls}; a shard more, from source to dataset: {(calls['24'] - calls['4']) / 20:.1f}")
        kinds = [line.split('"')[1].split()[0] for line in log.read_text().splitlines() if line.count('"') >= 2]
        say(f"of which { ({kind: round(kinds.count(kind) / 28, 1) for kind in set(kinds)}) }")


def on_a_cluster() -> None:
    """What a shard costs the flow's process when another one works on it."""
    environ = {"distributed.nanny.pre-spawn-environ.PYTHONPATH": str(ROOT)}
    with (
        served(),
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(environ),
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
    ):
        os.environ.update(STILLFLOW_RUNNER="dask", STILLFLOW_RUNNER_ADDRESS=cluster.scheduler_address)
        run(20, 1, f"{folder}/warm")
        few, many = run(100, 1, f"{folder}/few"), run(700, 1, f"{folder}/many")
        say(f"100 shards of a row: {few}\n700 shards of a row: {many}")
        say(f"a shard more: {(many['cpu'] - few['cpu']) / 600 * 1000:.1f} ms of the flow's processor")
        say(f"a shard more: {(many['seconds'] - few['seconds']) / 600 * 1000:.1f} ms")


PARTS = {"rows": rows_and_shards, "database": in_a_database, "store": in_an_object_store, "cluster": on_a_cluster}


def main() -> None:
    if sys.argv[1:2] == ["run"]:
        run_here(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        return
    for name in sys.argv[1:] or PARTS:
        say(f"\n{name}")
        PARTS[name]()


if __name__ == "__main__":
    main()
