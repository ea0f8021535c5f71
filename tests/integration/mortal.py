"""Runs that are made to be killed, as processes forked from one that has imported everything already.

A start from nothing takes two seconds of a processor, a fork a few milliseconds. As a program, this is the process that
forks: it reads orders from its standard input, a JSON object a line.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "first-model", "second-model"
AT_A_TIME = 20
"""Requests of each of the two steps."""


@dataclass(frozen=True)
class Order:
    """A run to be made: where its rows, its dataset and its output go, and whether it's a flow run of a server."""

    storage: str
    target: str
    log: str
    base_url: str
    rows: int
    shard_rows: int = 100
    prefect_api: str = ""
    client_retries: int = 5
    """How often Prefect's client asks again, after 2 seconds, 4, 8 and so on."""
    dies: str = ""
    """Where it ends itself, a key of `POINTS`; empty: nowhere."""
    dies_after: int = 0
    """How often it comes by there before."""


def order_in(folder: Path, base_url: str, rows: int, **more: Any) -> Order:
    """The order for a run that has all its files in a new folder."""
    folder.mkdir()
    return Order(str(folder / "storage"), str(folder / "dataset.jsonl"), str(folder / "log"), base_url, rows, **more)


@dataclass(frozen=True)
class End:
    """How a life ended: an exit status, or minus the signal; and the seconds of processor that it took."""

    status: int
    cpu: float


class Ancestor:
    """`with Ancestor() as ancestor:` the process that forks."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        # It ends when its input does.
        self._process.communicate()

    def start(self, order: Order) -> int:
        """Begin a run. Returns the id of its process, of which `wait` has to be told the end."""
        return self._ask(asdict(order))

    def wait(self, pid: int) -> End:
        """Wait until a process has ended."""
        return End(**self._ask({"wait": pid}))

    def has_ended(self, pid: int) -> bool:
        """Whether a process has ended. Its id isn't given to another before `wait`."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or "null")


def live(order: Order) -> None:
    """One run, from its first line to its last."""
    from flows import load, save
    from llms import OpenAILLM
    from tasks import SaveToFiles, TextGeneration

    first = TextGeneration(name="first", llm=OpenAILLM(model=FIRST, max_concurrent_requests=AT_A_TIME))
    second = TextGeneration(
        name="second",
        llm=OpenAILLM(model=SECOND, max_concurrent_requests=AT_A_TIME),
        template="Shorten: {{ generation }}",
        columns=["generation"],
        output_mappings={"generation": "short"},
    )
    rows = [{"instruction": f"Tell me about number {number}."} for number in range(order.rows)]

    def all_of_it() -> Any:
        source = load(rows, shard_rows=order.shard_rows, storage=order.storage)
        return save(second.map(first.map(source)), SaveToFiles(path=order.target))

    if not order.prefect_api:
        all_of_it()
        return

    import asyncio

    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings

    from flows import flow

    @flow(name="mortal")
    async def mortal() -> None:
        await all_of_it()

    # Prefect read its environment when it was imported.
    own = {
        PREFECT_API_URL: order.prefect_api,
        PREFECT_HOME: Path(order.storage).parent / "home",
        PREFECT_CLIENT_MAX_RETRIES: order.client_retries,
    }
    with temporary_settings(own):
        asyncio.run(mortal())


def before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Have `act` called before each call of a function, with the same arguments."""
    function = getattr(owner, name)

    def changed(*args: Any, **kwargs: Any) -> Any:
        act(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, changed)


def write_half_a_line(store: Any, lines: Any) -> None:
    line = next(iter(lines))
    file = Path(store.folder) / "000000.answers"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as half:
        half.write(line[: len(line) // 2])


POINTS: dict[str, tuple[str, str, Callable[..., None] | None]] = {
    "before a file takes its place": ("pathlib:Path", "replace", None),
    "in a line of the ledger": ("flows.ledger.store:Store", "append", write_half_a_line),
    "before the ledger is synced": ("flows.ledger.store:Store", "flush", None),
    "in the files of the dataset": ("flows.engine.datasets:", "fitted", None),
    "before the dataset takes its place": ("pathlib:Path", "rename", None),
}
"""A function of a module or a class before which a run can end, and what it does there at the last."""


def arrange_the_end(point: str, after: int) -> None:
    """Have this process kill itself when it comes by a point once more than `after` times."""
    place, name, last_act = POINTS[point]
    module, _, owner = place.partition(":")
    found = importlib.import_module(module)
    left = after

    def come_by(*args: Any, **kwargs: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            if last_act is not None:
                last_act(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

    before(getattr(found, owner) if owner else found, name, come_by)


def fork(order: Order) -> int:
    """Live in a process of its own. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["OPENAI_BASE_URL"] = order.base_url
        if order.dies:
            arrange_the_end(order.dies, order.dies_after)
        live(order)
        status = 0
    except BaseException:  # noqa: BLE001 -- nothing of the process that forked may go on in this one
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    import aiohttp  # noqa: F401
    import datasets  # noqa: F401
    import openai  # noqa: F401
    import prefect  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import flows  # noqa: F401
    import tasks  # noqa: F401

    answer("ready")
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" not in order:
            answer(fork(Order(**order)))
            continue
        _, status, usage = os.wait4(order["wait"], 0)
        answer({"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime})


def answer(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def kill(pid: int) -> float:
    """End a process as a machine that loses its power does. Returns when."""
    os.kill(pid, signal.SIGKILL)
    return time.time()


if __name__ == "__main__":
    main()
