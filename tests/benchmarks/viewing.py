"""A million rows to look at: `python -m tests.benchmarks.viewing [ROWS] [FOLDER]`.

For files of Parquet, of Arrow and of JSON Lines: how long from the command to the first page, a page in the middle, the
first page of a search for a word that a thousandth of the rows has and its end, the failed rows, all rows in another
order; and how much memory that took, apart from what is mapped from files. Each in a process of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 1_000_000
RARE = 1000
"""One row of so many has the word that is looked for, and one of so many failed."""
ROWS_AT_ONCE = 10_000
STORY = "The keeper climbed the stairs, counted the ships on the horizon, and wrote each of them into the book. " * 4


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of about a kilobyte, as a Task makes them."""
    for number in range(count):
        prompt = f"Write about ship {number}, in a few sentences that a child understands."
        failed = number % RARE == 7
        text = None if failed else f"{STORY}Ship {number} was {'heliotrope' if number % RARE == 3 else 'blue'}."
        error = {"type": "ReadTimeoutError", "message": "no answer in time", "retryable": True} if failed else None
        yield {
            "id": f"s{number}",
            "instruction": prompt,
            "generation": text,
            "score": number * 7919 % 1000 / 100,
            "model_name": "m",
            "distilabel_metadata": {
                "raw_input_gen": [{"role": "user", "content": prompt}],
                "raw_output_gen": text,
                "statistics_gen": {"input_tokens": 20, "output_tokens": 100},
                "error_gen": error,
            },
        }


def write(count: int, folder: Path) -> None:
    import pyarrow as pa
    from datasets import Dataset, disable_progress_bars

    from tasks import SaveToDisk, SaveToFiles

    disable_progress_bars()
    every = rows(count)
    schema: Any = None
    with contextlib.ExitStack() as open_files:
        while some := list(itertools.islice(every, ROWS_AT_ONCE)):
            table = pa.Table.from_pylist(some, schema=schema)
            if schema is None:
                schema = table.schema
                file = open_files.enter_context(pa.ipc.new_stream(str(folder / "made.arrow"), schema))
            file.write_table(table, max_chunksize=1000)
    dataset = Dataset.from_file(str(folder / "made.arrow"))
    SaveToDisk(path=str(folder / "arrow")).save(dataset, "# Ships")
    for name in ("ships.parquet", "ships.jsonl"):
        SaveToFiles(path=str(folder / name)).save(dataset, "# Ships")


def view(path: Path, count: int) -> dict[str, float]:
    """The seconds that each page took, and the megabytes of memory at the end that aren't mapped from files."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "flows", "view", str(path), "--no-open", "--port", "8431"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        try:
            get(f"{address}/rows")
            taken = {"open": time.perf_counter() - start}
            for name, page in {
                "middle": f"/rows?from={count // 2}",
                "row": f"/row?at={count // 3}",
                "first found": "/rows?q=Heliotrope",
                "all found": "/rows?q=Heliotrope",
                "failed": "/rows?state=failed",
                "ordered": "/rows?sort=-score",
            }.items():
                begin = time.perf_counter()
                while name != "first found" and not is_whole(get(f"{address}{page}")):
                    pass
                if name == "first found":
                    get(f"{address}{page}")
                taken[name] = time.perf_counter() - begin
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            return {**taken, "MB": int(status.partition("RssAnon:")[2].split()[0]) / 1000}
        finally:
            process.terminate()


def get(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def is_whole(page: str) -> bool:
    return re.search("are being looked through", page) is None


def main() -> None:
    say = print
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        if not (folder / "ships.jsonl").exists():
            # In a process of its own: what it takes isn't what the pages take.
            subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.viewing", "--write", str(count), str(folder)], check=True
            )
        for name in ("ships.parquet", "arrow", "ships.jsonl"):
            taken = view(folder / name, count)
            say(json.dumps({"rows": count, "file": name, **{each: round(value, 2) for each, value in taken.items()}}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
