"""Times, side by side in one run: `make bench`. Ratios count; seconds depend on the machine.

The provider's stand-in runs in a process of its own and answers after `LATENCY` seconds. The bare loops
keep nothing; a flow keeps every answer in a journal, writes shards and a dataset, and is recorded by a
Prefect server.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import collect, flow, load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tests.conftest import prefect_server

ROWS = 2_000
AT_ONCE = 100
LATENCY = 0.2
RUNS = 5
PROMPTS = [f"Write a sentence about the number {number}." for number in range(ROWS)]


def body(prompt: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}]}


async def bare_aiohttp(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def ask(prompt: str) -> None:
            async with session.post(f"{url}/chat/completions", json=body(prompt)) as answer:
                (await answer.json())["choices"][0]["message"]["content"]

        await asyncio.gather(*map(ask, PROMPTS))


async def bare_openai(url: str) -> None:
    import openai

    places = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def ask(prompt: str) -> None:
            async with places:
                answer = await client.chat.completions.create(**body(prompt))
                _ = answer.choices[0].message.content

        await asyncio.gather(*map(ask, PROMPTS))


def task() -> TextGeneration:
    return TextGeneration(llm=OpenAILLM(model="m", max_concurrent_requests=AT_ONCE))


def engine_alone(url: str) -> None:
    with tempfile.TemporaryDirectory() as storage:
        rows = load([{"instruction": prompt} for prompt in PROMPTS], storage=storage)
        assert len(collect(task().map(rows))) == ROWS


@flow
async def text_generation(storage: str) -> int:
    rows = load([{"instruction": prompt} for prompt in PROMPTS], storage=storage)
    return len(await collect(task().map(rows)))


def as_a_flow(url: str) -> None:
    with tempfile.TemporaryDirectory() as storage:
        assert asyncio.run(text_generation(storage)) == ROWS


CASES: dict[str, Callable[[str], Any]] = {
    "bare aiohttp": lambda url: asyncio.run(bare_aiohttp(url)),
    "bare AsyncOpenAI": lambda url: asyncio.run(bare_openai(url)),
    "load, map, collect": engine_alone,
    "the same as a Prefect flow": as_a_flow,
}


def measure(url: str) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of every case, `RUNS` times in turn, after one round to warm up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for turn in range(RUNS + 1):
        for name, case in CASES.items():
            start, cpu = time.perf_counter(), time.process_time()
            case(url)
            if turn:
                taken[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return taken


def report(taken: dict[str, list[tuple[float, float]]]) -> str:
    base = statistics.median(seconds for seconds, _ in taken["bare aiohttp"])
    ideal = ROWS * LATENCY / AT_ONCE
    lines = [
        f"{ROWS:,} requests, {AT_ONCE} at a time, answers after {LATENCY:g} s: ideal {ideal:.1f} s; medians of {RUNS}",
        "",
        f"| {'':<27} | seconds | to bare aiohttp | processor ms per request |",
        f"|{'-' * 29}|--------:|----------------:|-------------------------:|",
    ]
    for name, runs in taken.items():
        seconds = statistics.median(each for each, _ in runs)
        cpu = statistics.median(each for _, each in runs) / ROWS * 1000
        lines.append(f"| {name:<27} | {seconds:7.2f} | {seconds / base:15.2f} | {cpu:24.2f} |")
    return "\n".join(lines)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        prefect_server(Path(home)) as api,
        LocalProvider.spawn(latency=LATENCY) as provider,
    ):
        os.environ["OPENAI_BASE_URL"] = provider.base_url
        from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_LEVEL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api, PREFECT_LOGGING_LEVEL: "WARNING"}):
            print(report(measure(provider.base_url)))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
