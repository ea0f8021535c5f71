"""Offline batches of many rows, side by side with a bare script: `make bench-batches`, or
`python -m tests.benchmarks.batches [ROWS] [CHARACTERS OF A PROMPT] [RUNS]`.

Every run is a process of its own; what its imports take isn't counted. The provider's stand-in is another process
and answers at once, so that what is left is the work of the client: the seconds include waiting for it, the
processor seconds don't.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from openai import OpenAI

from flows import collect, flow, load
from flows.ledger.records import Jobs
from flows.store.storage import storage_at
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from tasks import LoadDataFromFileSystem, TextGeneration
from tests.benchmarks.batch_memory import peak

ROWS = 120_000
PROMPT = 300
RUNS = 3
LOOK = 1.0
JOB_REQUESTS = 50_000
JOB_BYTES = 200_000_000
NAME = "text-generation-batches"


def write_source(path: Path, rows: int, characters: int) -> None:
    words = ["the", "a", "river", "small", "moves", "under", "old", "light", "with", "many", "stones", "slowly"]
    drawn = random.Random(0)
    with path.open("wb") as file:
        for number in range(rows):
            text = " ".join([f"Write about number {number}:", *drawn.choices(words, k=characters // 4)])[:characters]
            file.write(orjson.dumps({"instruction": text}, option=orjson.OPT_APPEND_NEWLINE))


def bare_script(source: Path, folder: Path) -> int:
    """What someone writes without any framework. Nothing survives a crash, and all rows are in memory."""
    client = OpenAI(api_key="none")
    rows = _rows_of(source)
    waiting = [_created(client, path) for path in _job_files(rows, folder)]
    answers: dict[str, str] = {}
    while waiting:
        batch = client.batches.retrieve(waiting[0])
        if batch.status != "completed" or batch.output_file_id is None:
            time.sleep(LOOK)
            continue
        for line in client.files.content(batch.output_file_id).content.splitlines():
            result = orjson.loads(line)
            answers[result["custom_id"]] = result["response"]["body"]["choices"][0]["message"]["content"]
        waiting.pop(0)
    _write_answered(rows, answers, folder)
    return len(list(folder.glob("*.jsonl")))


def _rows_of(source: Path) -> list[dict[str, str]]:
    return [orjson.loads(line) for line in source.read_bytes().splitlines()]


def _write_answered(rows: list[dict[str, str]], answers: dict[str, str], folder: Path) -> None:
    answered = [{**row, "generation": answers[str(number)]} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(answered), folder / "rows.parquet", compression="zstd")


def _job_files(rows: list[dict[str, str]], folder: Path) -> Iterator[Path]:
    number, size, requests = 0, 0, 0
    path = folder / "0.jsonl"
    file = path.open("wb")
    for place, row in enumerate(rows):
        body = {"model": "m", "messages": [{"role": "user", "content": row["instruction"]}]}
        line = orjson.dumps(
            {"custom_id": str(place), "method": "POST", "url": "/v1/chat/completions", "body": body},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        if requests == JOB_REQUESTS or size + len(line) > JOB_BYTES:
            file.close()
            yield path
            number, size, requests = number + 1, 0, 0
            path = folder / f"{number}.jsonl"
            file = path.open("wb")
        file.write(line)
        size, requests = size + len(line), requests + 1
    file.close()
    yield path


def _created(client: OpenAI, path: Path) -> str:
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h").id


def adapter_alone(source: Path, folder: Path) -> int:
    """The same script, with our writing of requests, submitting and reading back."""
    llm = OpenAILLM(model="m")
    rows = _rows_of(source)
    answers: dict[str, str] = {}

    async def ask() -> int:
        with llm.job_writer() as writer:
            chats: Any = ([{"role": "user", "content": row["instruction"]}] for row in rows)
            requests = (llm.batch_request(str(number), chat, 1) for number, chat in enumerate(chats))
            full = [file for file in map(writer.add, requests) if file is not None]
            jobs = [await llm.create_job(file, {}) for file in [*full, *writer.rest()]]
        for job in jobs:
            while (await llm.job_status(job.id)).state == "waiting":
                await asyncio.sleep(LOOK)
            async for result in llm.job_results(job.id):
                outcome: Any = result.outcome
                answers[result.custom_id] = outcome["generations"][0]
        return len(jobs)

    jobs = run_sync(ask())
    _write_answered(rows, answers, folder)
    return jobs


def dataset_of(source: str, storage: str) -> Any:
    llm = OpenAILLM(model="m", use_offline_batch_generation=True)
    rows = load(LoadDataFromFileSystem(data_files=source), storage=storage)
    return collect(TextGeneration(llm=llm).map(rows))


def engine_alone(source: Path, folder: Path) -> int:
    dataset_of(str(source), str(folder))
    return _jobs_in(folder)


def _jobs_in(folder: Path) -> int:
    ended = storage_at(str(folder)).path("jobs", "ended")
    return sum(len(Jobs(storage_at(str(folder))).ended_of(run.name)) for run in Path(ended).iterdir())


@flow(name=NAME)
async def text_generation(source: str, storage: str) -> int:
    made: Dataset = await dataset_of(source, storage)
    return len(made)


def as_a_flow(source: Path, folder: Path) -> int:
    asyncio.run(text_generation(str(source), str(folder)))
    return _jobs_in(folder)


CASES: dict[str, Callable[[Path, Path], int]] = {
    "bare script": bare_script,
    "OpenAILLM in such a script": adapter_alone,
    "load, map, collect": engine_alone,
    "the same as a Prefect flow": as_a_flow,
}


def run_case(name: str, source: Path) -> dict[str, float]:
    """Seconds, processor seconds and MB that a case takes in this process, and how many jobs it made."""
    with tempfile.TemporaryDirectory() as folder:
        start, seconds, cpu = peak(), time.perf_counter(), processor_seconds()
        jobs = CASES[name](source, Path(folder))
        return {
            "seconds": time.perf_counter() - seconds,
            "cpu": processor_seconds() - cpu,
            "start": start,
            "peak": peak(),
            "jobs": jobs,
        }


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def task_runs(api: str) -> int:
    """How many task runs there are on the server."""
    request = urllib.request.Request(f"{api}/task_runs/count", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def measure(source: Path, api: str, runs: int) -> dict[str, list[dict[str, float]]]:
    """Every case `runs` times in turn."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "STILLFLOW_POLL_SECONDS": str(LOOK),
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for _ in range(runs):
        for name, each in taken.items():
            with LocalProvider.spawn(batch_seconds=0, recorded_requests=0) as provider:
                command = [sys.executable, "-m", "tests.benchmarks.batches", "case", name, str(source)]
                own = {**environment, "OPENAI_BASE_URL": provider.base_url}
                before = task_runs(api)
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=own).stdout
                known = json.loads(printed.splitlines()[-1])
                each.append({**known, "task runs": task_runs(api) - before})
    return taken


def report(taken: dict[str, list[dict[str, float]]], rows: int, characters: int, size: int) -> str:
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in taken.items()
    }
    base = middle["bare script"]
    runs = len(next(iter(taken.values())))
    lines = [
        f"{rows:,} rows with prompts of {characters:,} characters, {size / 1e6:.0f} MB; medians of {runs}",
        "",
        f"| {'':<26} | jobs | task runs | seconds | ratio | processor seconds | ratio | MB at most (at the start) |",
        f"|{'-' * 28}|-----:|----------:|--------:|------:|------------------:|------:|--------------------------:|",
    ]
    for name, each in middle.items():
        lines.append(
            f"| {name:<26} | {each['jobs']:4.0f} | {each['task runs']:9.0f} | {each['seconds']:7.1f}"
            f" | {each['seconds'] / base['seconds']:5.2f} | {each['cpu']:17.1f} | {each['cpu'] / base['cpu']:5.2f}"
            f" | {each['peak']:18.0f} ({each['start']:.0f}) |"
        )
    return "\n".join(lines)


def main(rows: int = ROWS, characters: int = PROMPT, runs: int = RUNS) -> None:
    # Not in the cases: it takes the addresses out of their environment.
    from tests.conftest import prefect_server

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        source = Path(folder) / "source.jsonl"
        write_source(source, rows, characters)
        api = stack.enter_context(prefect_server(Path(folder)))
        taken = measure(source, api, runs)
        print(report(taken, rows, characters, source.stat().st_size))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(run_case(sys.argv[2], Path(sys.argv[3]))))  # noqa: T201 -- what the command is for
    else:
        main(*map(int, sys.argv[1:]))
