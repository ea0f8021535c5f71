"""Memory and rows per second, whatever the number of rows: `python -m tests.benchmarks.memory [ROWS ...]`.

Rows go through a source, a step without an LLM, an LLM that answers at once, and a saver, each number of them in a
process of its own. What is mapped from files counts apart: the system takes it back as it needs it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = (100_000, 1_000_000)


def run(rows: int) -> dict[str, float]:
    from flows import load, save
    from flows.engine.run import Run, progress_listener
    from llms import AsyncLLM, GenerateOutput
    from tasks import SaveToDisk, TextGeneration
    from tasks.sources.loaders import Loader
    from tasks.steps import Step

    class Numbers(Loader):
        """So many rows, made one by one."""

        def rows(self, offset: int) -> Iterator[dict[str, Any]]:
            return ({"instruction": f"Write a sentence about the number {number}."} for number in range(offset, rows))

        def columns(self) -> frozenset[str]:
            return frozenset({"instruction"})

        def __str__(self) -> str:
            return f"{rows:,} numbers"

    class Lengths(Step):
        """Adds the length of the prompt."""

        @property
        def inputs(self) -> list[str]:
            return ["instruction"]

        @property
        def outputs(self) -> list[str]:
            return ["length"]

        def process(self, inputs: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
            yield [{**row, "length": len(row["instruction"])} for row in inputs]

    class Instant(AsyncLLM):
        """Answers at once, without a network."""

        @property
        def model_name(self) -> str:
            return "instant"

        async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
            if "first" not in times:
                times["first"] = time.perf_counter()
            counts = [12] * num_generations
            text = f"{input[-1]['content']} It is a number like any other, and yet it has its place."
            return GenerateOutput(
                generations=[text] * num_generations,
                statistics={"input_tokens": counts, "output_tokens": counts},
            )

    times: dict[str, float] = {}
    ends: dict[str, float] = {}

    def note(state: Run) -> None:
        now = time.perf_counter()
        for name, progress in state.progress.items():
            if progress.rows_out:
                times.setdefault(f"first row of {name}", now)
            if progress.rows_out >= rows:
                ends.setdefault(name, now)

    before = anonymous()
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        token = progress_listener.set(note)
        data = load(Numbers(name="source"), storage=f"{folder}/storage")
        data = Lengths(name="lengths").map(data)
        data = TextGeneration(name="generation", llm=Instant(max_concurrent_requests=500)).map(data)
        saved = save(data, SaveToDisk(path=f"{folder}/dataset"))
        progress_listener.reset(token)
        end = time.perf_counter()
        assert len(saved) == rows
    return {
        "rows": rows,
        "seconds": end - start,
        "imports": before,
        "peak": watch.ended(),
        "with_files": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "first_row": times["first row of generation"] - times["first"],
        **{name: rows / (ends[name] - start) for name in ends},
        "save": rows / (end - ends["generation"]),
    }


def anonymous() -> float:
    """Memory of this process that isn't mapped from files, in megabytes. Linux alone tells."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


class Watch(threading.Thread):
    """Looks at the process's memory ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.1):
            self.most = max(self.most, anonymous())

    def ended(self) -> float:
        """The most that was seen."""
        self._end.set()
        self.join()
        return self.most


def in_a_process(rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--one", str(rows)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    say = print
    if sys.argv[1:2] == ["--one"]:
        say(json.dumps(run(int(sys.argv[2]))))
        return
    numbers = [int(each) for each in sys.argv[1:]] or ROWS
    say("| rows | seconds | rows/s | peak MB | before, MB | with files, MB | first row, s | rows/s to a stage's end |")
    say("|-----:|--------:|-------:|--------:|-----------:|---------------:|-------------:|-------------------------|")
    for rows in numbers:
        taken = in_a_process(rows)
        stages = ", ".join(
            f"{name} {taken[name]:,.0f}" for name in ("source", "lengths", "generation", "save") if name in taken
        )
        say(
            f"| {rows:,} | {taken['seconds']:.1f} | {rows / taken['seconds']:,.0f} | {taken['peak']:.0f} |"
            f" {taken['imports']:.0f} | {taken['with_files']:.0f} | {taken['first_row']:.2f} | {stages} |"
        )


if __name__ == "__main__":
    main()
