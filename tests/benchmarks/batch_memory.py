"""The most memory that a large batch takes, from writing its requests to reading its results.

`python -m tests.benchmarks.batch_memory` prints one JSON object. The provider's stand-in runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from llms import OpenAILLM
from llms.batch import JobFile
from llms.local_provider import LocalProvider
from llms.loop import run_sync

REQUESTS = 50_000
PROMPT = 3_800
"""Bytes, which makes a line of 4 KB."""
ANSWER = 1_000
"""Tokens of four characters."""


def peak() -> float:
    """MB of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux's getrusage counts what the process was before it became this program.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


async def measure(llm: OpenAILLM) -> dict[str, float]:
    """MB at the end of each step, the bytes of the file, and how many results were read."""
    taken: dict[str, float] = {"start": peak()}
    with llm.job_writer() as writer:
        for number in range(REQUESTS):
            chat: Any = [{"role": "user", "content": f"{number} {'x' * PROMPT}"}]
            writer.add(llm.batch_request(str(number), chat, 1))
        files: list[JobFile] = writer.rest()
        assert [len(file.custom_ids) for file in files] == [REQUESTS]
        taken |= {"bytes": files[0].size, "written": peak()}
        job = await llm.create_job(files[0], {})
        taken["created"] = peak()
    while (await llm.job_status(job.id)).state == "waiting":
        await asyncio.sleep(0.2)
    read = 0
    async for result in llm.job_results(job.id):
        read += isinstance(result.outcome, dict)
    return {**taken, "read": peak(), "results": read}


def main() -> None:
    started = time.perf_counter()
    with LocalProvider.spawn(batch_seconds=0, answer_tokens=ANSWER) as provider:
        taken = run_sync(measure(OpenAILLM(model="m", base_url=provider.base_url)))
    seconds = time.perf_counter() - started
    print(json.dumps({name: round(value) for name, value in {**taken, "seconds": seconds}.items()}))  # noqa: T201 -- what the command is for


if __name__ == "__main__":
    main()
