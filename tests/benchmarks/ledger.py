"""What keeping and finding answers takes, beside SQLite and LMDB: `python -m tests.benchmarks.ledger [ANSWERS]`.

Each is given the same lines, one after another as answers come, in a process of its own; then another process opens
what was kept, and looks for some of the keys. SQLite commits a hundred at a time, which the ledger needn't. LMDB is
left out where its package isn't installed.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWERS = 1_000_000
SOUGHT = 100_000
AT_A_TIME = 100
KINDS = ("ledger", "sqlite", "lmdb")
TEXT = "An answer of about a hundred and fifty tokens, as instruction models give them. " * 8
MAP_SIZE = 1 << 36
"""Bytes that LMDB may grow to."""


def key_of(number: int) -> str:
    """Keys are digests: spread evenly, in no order."""
    return f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128):032x}"


def lines(answers: int) -> Iterator[tuple[str, bytes]]:
    from flows.ledger.store import answer_line

    counts = {"input_tokens": [20], "output_tokens": [150]}
    for number in range(answers):
        key = key_of(number)
        yield key, answer_line(key, {"generations": [f"{number} {TEXT}"], "statistics": counts}, "run:1")  # pyright: ignore[reportArgumentType]


class Ledger:
    def __init__(self, folder: str) -> None:
        from flows.ledger.store import Store
        from flows.store.storage import Storage

        self._store = Store(Storage(folder), "space")

    def put(self, given: Iterator[tuple[str, bytes]]) -> None:
        for _, line in given:
            self._store.append([line])
        self._store.close()

    def open(self) -> None:
        self._store.refresh()

    def has(self, key: str) -> bool:
        return self._store.find(key) is not None


class Sqlite:
    def __init__(self, folder: str) -> None:
        self._base = sqlite3.connect(f"{folder}/answers.sqlite")
        self._base.execute("pragma journal_mode=wal")
        self._base.execute("pragma synchronous=normal")

    def put(self, given: Iterator[tuple[str, bytes]]) -> None:
        self._base.execute("create table answers (key blob primary key, line blob) without rowid")
        for number, (key, line) in enumerate(given, 1):
            self._base.execute("insert or replace into answers values (?, ?)", (bytes.fromhex(key), line))
            if number % AT_A_TIME == 0:
                self._base.commit()
        self._base.commit()
        self._base.close()

    def open(self) -> None:
        self._base.execute("select 1 from answers limit 1").fetchone()

    def has(self, key: str) -> bool:
        found = self._base.execute("select line from answers where key = ?", (bytes.fromhex(key),)).fetchone()
        return json.loads(found[0][found[0].index(b"{") :]) is not None


class Lmdb:
    def __init__(self, folder: str) -> None:
        import lmdb  # pyright: ignore[reportMissingImports] -- only compared with, where it is

        self._base: Any = lmdb.open(folder, map_size=MAP_SIZE, sync=False)  # pyright: ignore[reportUnknownMemberType]

    def put(self, given: Iterator[tuple[str, bytes]]) -> None:
        group: list[tuple[bytes, bytes]] = []
        for key, line in given:
            group.append((bytes.fromhex(key), line))
            if len(group) == AT_A_TIME:
                self._write(group)
                group = []
        self._write(group)
        self._base.sync(True)
        self._base.close()

    def _write(self, group: list[tuple[bytes, bytes]]) -> None:
        with self._base.begin(write=True) as transaction:
            for key, line in group:
                transaction.put(key, line)

    def open(self) -> None:
        self.has(key_of(0))

    def has(self, key: str) -> bool:
        with self._base.begin() as transaction:
            line = transaction.get(bytes.fromhex(key))
        return json.loads(line[line.index(b"{") :]) is not None


def opened(kind: str, folder: str) -> Ledger | Sqlite | Lmdb:
    return {"ledger": Ledger, "sqlite": Sqlite, "lmdb": Lmdb}[kind](folder)


def measured(kind: str, folder: str, work: str, answers: int) -> dict[str, float]:
    list(lines(1000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    seconds: dict[str, float] = {}
    if work == "put":
        for _ in lines(answers):
            pass
        seconds["lines"] = time.perf_counter() - started
        started = time.perf_counter()
        opened(kind, folder).put(lines(answers))
        # What the lines themselves take is in each of them.
        seconds["put"] = time.perf_counter() - started - seconds["lines"]
    else:
        base = opened(kind, folder)
        base.open()
        seconds["open"] = time.perf_counter() - started
        sought = [key_of(number) for number in random.Random(1).sample(range(answers), min(SOUGHT, answers))]
        started = time.perf_counter()
        assert all(map(base.has, sought))
        seconds["find"] = time.perf_counter() - started
        seconds["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return seconds


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 -- what the command is for


def main(answers: int) -> None:
    say(f"{answers:,} answers, {min(SOUGHT, answers):,} of them looked for\n")
    say("| | put s | open s | find s | memory MB | on disk MB |\n|---|---|---|---|---|---|")
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="stillflow-") as folder:
            found: dict[str, float] = {}
            for work in ("put", "find"):
                command = [sys.executable, "-m", "tests.benchmarks.ledger", kind, folder, work, str(answers)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    say(f"| {kind} | – {done.stderr.splitlines()[-1]} |")
                    break
                found |= json.loads(done.stdout)
            else:
                size = sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file()) / 1e6
                cells = [f"{found[name]:.1f}" for name in ("put", "open", "find")]
                say(f"| {kind} | {' | '.join(cells)} | {found['memory']:.0f} | {size:.0f} |")
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        say(json.dumps(measured(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else ANSWERS)
