"""What a request costs the processor at each provider of OpenAI's protocol, side by side in one run with OpenAI's own.

`python -m tests.benchmarks.family [ROUNDS]`. The stand-in for all of them runs in a process of its own. In each round
every adapter sends as many requests as OpenAI's does right before or after it; the median of these ratios counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from llms import OpenAILLM
from llms.base import AsyncLLM
from llms.providers.openai import ChatCompletionsLLM
from tests.llms.test_contract import ADAPTERS

ROUNDS = 61
REQUESTS = 50
AT_ONCE = 20
PARAMETERS: dict[str, Any] = {"max_new_tokens": 64, "temperature": 0.5, "top_p": 0.75, "stop": ["END"]}
ANSWER = json.dumps(
    {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Fine."}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
).encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()
LENGTH = re.compile(rb"content-length: (\d+)", re.I)


def serve(address: Any) -> None:
    """Answer every request with `ANSWER`, whatever it asks."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(HEAD + ANSWER)
                await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(run())


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of the stand-in."""
    context = multiprocessing.get_context("spawn")
    address = context.Queue()
    process = context.Process(target=serve, args=(address,), daemon=True)
    process.start()
    try:
        yield address.get(timeout=60)
    finally:
        process.terminate()
        process.join()


def members(root: str) -> dict[str, AsyncLLM]:
    """OpenAI's adapter and those of its family, at an address."""
    given: dict[str, Any] = {"model": "m", "api_key": "none", "max_concurrent_requests": AT_ONCE}
    made: dict[str, AsyncLLM] = {"openai": OpenAILLM(base_url=f"{root}/v1", **given)}
    for name, adapter in ADAPTERS.items():
        kind: Any = adapter.kind
        if issubclass(kind, ChatCompletionsLLM) and adapter.key and not issubclass(kind, OpenAILLM):
            made[name] = kind(base_url=f"{root}{adapter.base}", **given)
    return made


def processor_seconds(llm: AsyncLLM) -> float:
    """Of this process, for a request."""
    chats: Any = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Tell me about the sea {number}."}]
        for number in range(REQUESTS)
    ]
    before = time.process_time()
    outputs = llm.generate_outputs(inputs=chats, **PARAMETERS)
    taken = time.process_time() - before
    assert all(output["generations"] == ["Fine."] for output in outputs)
    return taken / REQUESTS


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with served() as root:
        llms = members(root)
        for llm in llms.values():
            processor_seconds(llm)
        taken: dict[str, list[float]] = {name: [] for name in llms}
        ratios: dict[str, list[float]] = {name: [] for name in llms if name != "openai"}
        for _ in range(rounds):
            for name in random.sample(list(ratios), len(ratios)):
                pair = {each: processor_seconds(llms[each]) for each in random.sample(["openai", name], 2)}
                for each, seconds in pair.items():
                    taken[each].append(seconds)
                ratios[name].append(pair[name] / pair["openai"])
    lines = [
        f"{rounds} rounds of {REQUESTS} requests each",
        "| | ms of processor a request | to OpenAI's |",
        "|---|---|---|",
    ]
    for name, each in taken.items():
        ratio = statistics.median(ratios.get(name, [1.0]))
        lines.append(f"| {name} | {1000 * statistics.median(each):.2f} | {ratio:.2f} |")
    print("\n".join(lines))  # noqa: T201 -- a benchmark's report goes to standard output


if __name__ == "__main__":
    main()
