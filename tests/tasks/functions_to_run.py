"""Functions as a user writes them, and functions that go wrong in every way, for `tests/tasks/test_sandbox.py`."""

from __future__ import annotations

import ctypes
import datetime
import decimal
import enum
import gc
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from os import system  # noqa: F401 -- not the file's own, so it can't be called
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

CALLS: list[int] = []
libc = ctypes.CDLL(None, use_errno=True)


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: float
    y: float


def add(a: int, b: int = 1) -> int:
    return a + b


def scaled(values: list[float], factor: float | None = None) -> list[float]:
    return [value * (factor or 1.0) for value in values]


def days_until(day: datetime.date, unit: Literal["days", "weeks"] = "days") -> int:
    days = (day - datetime.date(2024, 1, 1)).days
    return days if unit == "days" else days // 7


def moved(point: Point, /, *, colour: Colour = Colour.RED, **rest: Any) -> dict[str, Any]:
    return {"point": Point(x=point.x + 1, y=point.y), "colour": colour, **rest}


def untyped(value):
    return value


def unresolvable(value: NoSuchType) -> Any:  # noqa: F821
    return value


async def slowly(value: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return value


def of_every_type() -> list[Any]:
    return [decimal.Decimal("1.5"), datetime.date(2024, 2, 29), {"a"}, (1, None), Colour.RED, float("inf"), b"x", 1j]


def opaque() -> object:
    return object()


def endless() -> Iterator[int]:
    while True:
        yield 1


def long(count: int) -> str:
    return "x" * count


def remember() -> int:
    CALLS.append(1)
    return len(CALLS)


def drawn() -> float:
    return random.random()


def letters() -> list[str]:
    return list({"a", "b", "c", "d"})


def environment() -> dict[str, str]:
    return dict(os.environ)


def fails() -> None:
    raise ValueError("no such city")


def leaves() -> None:
    sys.exit(2)


def recurses() -> int:
    return 1 + recurses()


def hangs() -> None:
    time.sleep(86_400)


def spins() -> None:
    while True:
        pass


def prints_without_end() -> None:
    while True:
        print("x" * 1000)  # noqa: T201


def takes_memory(count: int) -> int:
    return len(bytearray(count))


def crashes() -> None:
    ctypes.string_at(0)


def ends_at_once() -> None:
    os._exit(3)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kills_its_parent() -> None:
    libc.kill(os.getppid(), signal.SIGKILL)


def signals_its_parent() -> None:
    os.kill(os.getppid(), signal.SIGTERM)


def closes_everything() -> None:
    os.closerange(3, 256)
    time.sleep(86_400)


def writes(path: str) -> None:
    Path(path).write_text("x")


def writes_unseen(path: str) -> str:
    try:
        Path(path).write_text("x")
    except OSError:
        return "nothing happened"
    return "written"


def removes(path: str) -> None:
    Path(path).unlink()


def renames(path: str) -> None:
    Path(path).rename(f"{path}.moved")


def removes_a_tree(path: str) -> None:
    shutil.rmtree(Path(path).parent)


def copies(path: str) -> None:
    shutil.copy(__file__, path)


def links_here(path: str) -> None:
    os.link(path, "link")
    Path("link").write_text("x")


def links_there(path: str) -> None:
    Path(f"{path}.link").symlink_to("nowhere")


def links_and_writes(path: str) -> None:
    Path("link").symlink_to(path)
    Path("link").write_text("x")


def writes_here(count: int) -> list[str]:
    Path("mine.txt").write_text("x" * count)
    return sorted(each.name for each in Path().iterdir())


def clears_up() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").mkdir()
        Path(folder, "a", "b").write_text("x")
    return [each.name for each in Path().iterdir()]


def fails_oddly() -> None:
    raise ValueError("\ud800")


def moves_away() -> None:
    os.setsid() if os.getpid() != os.getpgid(0) else os.setpgid(0, os.getpgid(os.getppid()))
    time.sleep(86_400)


def opens_many() -> int:
    return len([open(os.devnull) for _ in range(1000)])  # noqa: PTH123


def connects(port: int) -> None:
    socket.create_connection(("127.0.0.1", port))


def connects_by_number(port: int) -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))


def connects_in_c(port: int) -> list[Any]:
    address = (2).to_bytes(2, "little") + port.to_bytes(2) + bytes([127, 0, 0, 1]) + bytes(8)
    done = libc.connect(libc.socket(2, 1, 0), address, len(address))
    return [done, os.strerror(ctypes.get_errno())]


def spawns() -> None:
    multiprocessing.get_context("spawn").Process(target=print).start()


def writes_many(count: int) -> int:
    for number in range(count):
        Path(f"{number}.txt").write_text("mine")
    return count


def starts_a_program() -> int:
    return subprocess.run(["true"], check=False).returncode


def uses_a_shell() -> int:
    return os.system("true")


def reads_its_parent() -> str:
    return Path(f"/proc/{os.getppid()}/environ").read_text()


def reads(path: str) -> str:
    return Path(path).read_text()


def lists(path: str) -> list[str]:
    return [each.name for each in Path(path).parent.iterdir()]


def links_and_reads(path: str) -> str:
    Path("link").symlink_to(path)
    return Path("link").read_text()


def looks_up_in_c() -> int:
    return ctypes.CDLL(None).getpid()


def loads_c() -> str:
    return str(ctypes.CDLL("libm.so.6"))


def finds_the_guard() -> int:
    return sum(type(each).__name__ == "Guard" for each in gc.get_objects())


def imports() -> str:
    return importlib.import_module("zoneinfo").ZoneInfo("Europe/Berlin").key


def _private() -> int:
    return 1
