"""Online generation, side by side in one run with the bare loops: `python -m tests.benchmarks.online [RUNS]`.

Ratios count; seconds depend on the machine. The provider's stand-in runs in a process of its own. The bare loops keep
nothing; a flow keeps every answer in the ledger, writes shards and a dataset, and is recorded by a Prefect server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import flow, load, save
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import SaveToDisk, TextGeneration
from tests.conftest import prefect_server

RUNS = 5


@dataclass
class Taken:
    """What one run of a case took."""

    seconds: float
    """From its first request to its last row, on disk where the case keeps rows."""
    cpu: float
    """Processor seconds of this process, in the whole run."""
    whole: float
    """Seconds from the call on: the start of a flow run included."""


def prompts(count: int) -> list[str]:
    return [f"Write a sentence about the number {number}." for number in range(count)]


def body(prompt: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}]}


@contextmanager
def first_request() -> Iterator[list[float]]:
    """The time of the first request of an `OpenAILLM`."""
    times: list[float] = []
    send = OpenAILLM._send

    async def noting(self: OpenAILLM, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if not times:
            times.append(time.perf_counter())
        return await send(self, path, body)

    OpenAILLM._send = noting
    try:
        yield times
    finally:
        OpenAILLM._send = send


def timed(work: Callable[[], Any]) -> Taken:
    start, cpu = time.perf_counter(), time.process_time()
    with first_request() as first:
        work()
    end = time.perf_counter()
    return Taken(end - (first[0] if first else start), time.process_time() - cpu, end - start)


async def bare_aiohttp(url: str, rows: int, at_once: int, steps: int = 1) -> None:
    """Every row goes on to the next step as soon as it has its answer: a pipeline that waits for nothing."""
    import aiohttp

    async with contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)))
            for _ in range(steps)
        ]

        async def ask(text: str) -> str:
            for session in sessions:
                async with session.post(f"{url}/chat/completions", json=body(text)) as answer:
                    text = (await answer.json())["choices"][0]["message"]["content"]
            return text

        assert len(await asyncio.gather(*map(ask, prompts(rows)))) == rows


async def bare_openai(url: str, rows: int, at_once: int) -> None:
    import openai

    places = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def ask(prompt: str) -> str | None:
            async with places:
                answer = await client.chat.completions.create(**body(prompt))
                return answer.choices[0].message.content

        assert len(await asyncio.gather(*map(ask, prompts(rows)))) == rows


def task(at_once: int, model: str = "m", **options: Any) -> TextGeneration:
    return TextGeneration(llm=OpenAILLM(model=model, max_concurrent_requests=at_once), **options)


def engine_alone(rows: int, at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = load([{"instruction": prompt} for prompt in prompts(rows)], storage=f"{folder}/storage")
        saved = save(task(at_once).map(given), SaveToDisk(path=f"{folder}/dataset"))
        assert len(saved) == rows


@flow
async def one_step(folder: str, rows: int, at_once: int) -> int:
    given = load([{"instruction": prompt} for prompt in prompts(rows)], storage=f"{folder}/storage")
    return len(await save(task(at_once).map(given), SaveToDisk(path=f"{folder}/dataset")))


@flow
async def two_steps(folder: str, rows: int, at_once: int) -> int:
    given = load([{"instruction": prompt} for prompt in prompts(rows)], storage=f"{folder}/storage")
    written = task(at_once, "writer", output_mappings={"generation": "draft"}).map(given)
    edited = task(at_once, "editor", input_mappings={"instruction": "draft"}, name="editing").map(written)
    return len(await save(edited, SaveToDisk(path=f"{folder}/dataset")))


def as_a_flow(of: Any, rows: int, at_once: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(of(folder, rows, at_once)) == rows


Cases = Mapping[str, tuple[int, Callable[[str], Any]]]
"""By name: how many requests a case sends, and the case."""


def waiting_cases(rows: int, at_once: int) -> Cases:
    """Where the provider's latency is the limit."""
    return {
        "bare aiohttp": (rows, lambda url: asyncio.run(bare_aiohttp(url, rows, at_once))),
        "bare AsyncOpenAI": (rows, lambda url: asyncio.run(bare_openai(url, rows, at_once))),
        "load, map, save": (rows, lambda url: engine_alone(rows, at_once)),
        "the same as a Prefect flow": (rows, lambda url: as_a_flow(one_step, rows, at_once)),
        "bare aiohttp, two steps": (2 * rows, lambda url: asyncio.run(bare_aiohttp(url, rows, at_once, steps=2))),
        "a flow of two such steps": (2 * rows, lambda url: as_a_flow(two_steps, rows, at_once)),
    }


def busy_cases(rows: int, at_once: int) -> Cases:
    """Where the processor is the limit. AsyncOpenAI gets fewer rows, as it takes so long."""
    few = rows // 5
    return {
        "bare aiohttp": (rows, lambda url: asyncio.run(bare_aiohttp(url, rows, at_once))),
        "bare AsyncOpenAI": (few, lambda url: asyncio.run(bare_openai(url, few, at_once))),
        "load, map, save": (rows, lambda url: engine_alone(rows, at_once)),
        "the same as a Prefect flow": (rows, lambda url: as_a_flow(one_step, rows, at_once)),
    }


def measure(cases: Cases, latency: float, runs: int) -> dict[str, list[Taken]]:
    """Every case `runs` times in turn, after one round to warm up."""
    taken: dict[str, list[Taken]] = {name: [] for name in cases}
    with LocalProvider.spawn(latency=latency, recorded_requests=0) as provider:
        os.environ["OPENAI_BASE_URL"] = provider.base_url
        for turn in range(runs + 1):
            for name, (_, case) in cases.items():
                once = timed(lambda case=case: case(provider.base_url))
                if turn:
                    taken[name].append(once)
    return taken


def table(cases: Cases, taken: Mapping[str, list[Taken]]) -> str:
    def median(name: str, what: str) -> float:
        return statistics.median(getattr(each, what) for each in taken[name])

    bases = {requests: median(name, "seconds") for name, (requests, _) in cases.items() if "aiohttp" in name}
    lines = [
        f"| {'':<26} | seconds | to bare aiohttp | with its start | requests/s | processor ms per request |",
        f"|{'-' * 28}|--------:|----------------:|---------------:|-----------:|-------------------------:|",
    ]
    for name, (requests, _) in cases.items():
        seconds = median(name, "seconds")
        cpu = median(name, "cpu") / requests * 1000
        ratio = f"{seconds / bases[requests]:15.2f}" if requests in bases else " " * 15
        lines.append(
            f"| {name:<26} | {seconds:7.2f} | {ratio} | {median(name, 'whole'):14.2f} | {requests / seconds:10,.0f} |"
            f" {cpu:24.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

    # A run's own words aren't what the command is for.
    logging.disable(logging.INFO)
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    say = print
    with (
        tempfile.TemporaryDirectory() as home,
        prefect_server(Path(home)) as api,
        temporary_settings({PREFECT_API_URL: api, PREFECT_LOGGING_LEVEL: "WARNING"}),
    ):
        cases = waiting_cases(2_000, 100)
        say(f"2,000 rows, 100 requests at a time, answers after 0.2 s: ideal 4.0 s; medians of {runs}\n")
        say(table(cases, measure(cases, 0.2, runs)))
        cases = busy_cases(20_000, 500)
        say(f"\n20,000 rows, 500 requests at a time, answers at once; medians of {runs}\n")
        say(table(cases, measure(cases, 0.0, runs)))


if __name__ == "__main__":
    main()
