"""Fixtures: a provider on loopback, a storage of the test's own, a real Prefect server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import itertools
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

import certifi
import hypothesis
import pytest
from filelock import FileLock
from fsspec.implementations.memory import MemoryFileSystem

import llms
from llms.local_provider import LocalProvider
from tests import quick, resting

if TYPE_CHECKING:
    from tests.integration.stack import Stack
    from tests.warm import WarmPython

_memory = threading.RLock()


def _one_at_a_time(method: Any) -> Any:
    @functools.wraps(method)
    def locked(*args: Any, **options: Any) -> Any:
        with _memory:
            return method(*args, **options)

    return locked


# What stands for an object store in memory: a real one carries out each call as a whole, whoever else calls.
for _name in ("_open", "_rm", "cat_file", "exists", "find", "info", "ls", "pipe_file", "rm"):
    setattr(MemoryFileSystem, _name, _one_at_a_time(getattr(MemoryFileSystem, _name)))

pytest.register_assert_rewrite("tests.tasks.contract", "tests.llms.contract")

hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same every time")

ROOT = Path(__file__).parent.parent
DATA = Path(llms.__file__).parents[1] / "flows" / "data"
"""The files that come with the ready-made flows, a clone's or those of what is installed."""

# Of garbage that is collected asyncio logs whatever an earlier test has left in it: that is in no later test's log.
logging.getLogger("asyncio").propagate = False

# In the background, and under nohup, a shell has these ignored, and so has every program that is started from here.
for _number, _default in {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

for _name in (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "HF_TOKEN",
    "PREFECT_API_URL",
    "STILLFLOW_STORAGE",
):
    os.environ.pop(_name, None)
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["HF_HUB_OFFLINE"] = "0"
# Nobody's own: what a process of the tests keeps in Prefect's home is gone with it, and no other process is in its way.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="stillflow-tests-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
if "STILLFLOW_TESTS_SHARED" not in os.environ:
    os.environ["STILLFLOW_TESTS_SHARED"] = tempfile.mkdtemp(prefix="stillflow-tests-")
    atexit.register(shutil.rmtree, os.environ["STILLFLOW_TESTS_SHARED"], ignore_errors=True)
SHARED = Path(os.environ["STILLFLOW_TESTS_SHARED"])
"""A folder that all processes which share the tests have, as long as they run."""

# Each of Prefect's clients reads all certificates that there are, for 20 ms of processor; a flow run has ten of them,
# and no server of these tests has any.
os.environ["PREFECT_API_SSL_CERT_FILE"] = str(SHARED / "certificates.pem")
if not (SHARED / "certificates.pem").exists():
    _text, _end, _others = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
    (SHARED / "certificates.pem").write_text(_text + _end, encoding="utf-8")

LONGEST = 600.0
"""Seconds that what comes for sure is waited for. A machine may be slow: only what never comes is a failure."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST = 12_000 + 2_000 * (_WORKER % 10)
PORTS = itertools.cycle(range(_FIRST + os.getpid() % 1_000, _FIRST + 2_000))
"""The ports for servers of this process: each of the processes that share the tests has its own."""


STACKS = 2
"""How many stacks there are at a time where several processes share the tests: they are long, and wait for them."""

SECONDS = {
    "tests/integration/test_scaled_out.py": 300,
    "tests/integration/test_batches.py": 250,
    "tests/integration/test_own_repository.py": 150,
    "tests/integration/test_outages.py": 130,
    "tests/integration/test_schedules.py": 130,
    "tests/flows/test_several_loops.py": 120,
    "tests/integration/test_postgres.py": 120,
    "tests/integration/test_resubmit.py": 110,
    "tests/llms/test_provider_batches.py": 110,
    "tests/ui/test_ui.py": 105,
    "tests/integration/test_spread.py": 90,
    "tests/integration/test_watcher.py": 90,
    "tests/ui/test_journeys.py": 90,
    "tests/integration/test_deployments.py": 85,
    "tests/integration/test_hostile.py": 75,
    "tests/integration/test_kills.py": 70,
    "tests/integration/test_temporary_server.py": 70,
    "tests/flows/test_terminal.py": 65,
    "tests/integration/test_object_storage.py": 65,
    "tests/flows/test_approval.py": 55,
    "tests/integration/test_runtime_lock.py": 55,
    "tests/llms/test_contract.py": 50,
}
"""About how long the tests of a file take, where that is long: so that none of them is left over at the end."""
OTHERS = 30


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests are quick, which stay together in one process where several share the work, and what comes first."""
    on_stacks = {file_of(item) for item in items if needs_stack(item)}
    seconds = dict.fromkeys((f"stack {number}" for number in range(STACKS)), 0)
    groups = dict[str, str]()
    for file in sorted(on_stacks, key=lambda file: (-SECONDS.get(file, OTHERS), file)):
        group = groups[file] = min(seconds, key=lambda name: seconds[name])
        seconds[group] += SECONDS.get(file, OTHERS)
    for item in items:
        if quick.is_quick(item):
            item.add_marker("quick")
        item.add_marker(pytest.mark.xdist_group(groups[file_of(item)] if needs_stack(item) else file_of(item)))
    # The long ones first, so that none is left to be waited for at the end.
    items.sort(
        key=lambda item: (
            quick.is_quick(item),
            groups[file_of(item)] if needs_stack(item) else "without",
            -SECONDS.get(file_of(item), OTHERS),
        )
    )


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def needs_stack(item: pytest.Item) -> bool:
    return "stack_of_session" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    if quick.is_quick(item) and nextitem is not None:
        resting.stand_still()
    else:
        resting.go_on()
    with quick.kept(item):
        return (yield)


@pytest.fixture(autouse=True)
def nothing_known_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider may have the port that one of an earlier test had, whose jobs and limits are none of its."""
    monkeypatch.setattr("llms.submissions._by_account", {})
    monkeypatch.setattr("llms.limits._limiters", WeakKeyDictionary())


@pytest.fixture(autouse=True, scope="session")
def functions_load_however_long_it_takes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.functions.sandbox.START_SECONDS", LONGEST)
        patched.setattr("tasks.functions.sandbox.GRACE_SECONDS", LONGEST)
        yield


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    """A provider whose address is in OPENAI_BASE_URL. Its answers come at once."""
    with LocalProvider(port=free_port()) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage of the test's own, in STILLFLOW_STORAGE."""
    folder = tmp_path / "storage"
    monkeypatch.setenv("STILLFLOW_STORAGE", str(folder))
    return folder


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """A Python that has imported the project already, in which programs start in milliseconds."""
    from tests.warm import WarmPython

    with WarmPython(ROOT, os.environ) as running:
        yield running


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server's API, one for the whole session."""
    server = prefect_server(tmp_path_factory.mktemp("prefect"))
    with server as api, resting.between_uses(lambda: [server.process.pid]):
        yield api


@pytest.fixture
def prefect(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Flows of this test run against the session's server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api, PREFECT_HOME: tmp_path_factory.mktemp("home")}):
        yield prefect_api


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The runs that this process has read from the server, each as often as it did."""
    from prefect.client.orchestration import PrefectClient

    read, seen = PrefectClient.read_flow_run, list[UUID]()

    async def noting(self: PrefectClient, flow_run_id: UUID) -> Any:
        found = await read(self, flow_run_id)
        seen.append(flow_run_id)
        return found

    monkeypatch.setattr(PrefectClient, "read_flow_run", noting)
    return seen


class prefect_server:
    """`with prefect_server(home) as api:` a server as a process of its own, on SQLite or `database`."""

    def __init__(self, home: Path, *, database: str | None = None, port: int | None = None, **variables: str) -> None:
        self.home = home
        self.port = port or free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_UI_API_URL": self.api,
            "PREFECT_API_URL": self.api,
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            **variables,
        }
        if database:
            self.environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database

    def __enter__(self) -> str:
        log = (self.home / "server.log").open("ab")
        command = [sys.executable, "-m", "tests.prefect_server", "server", "start", "--port", str(self.port)]
        with first_start(self.home, self.environment):
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
            try:
                wait_for(self._is_up, what="the Prefect server")
                assert self.process.poll() is None, "another one is at its port"
            except BaseException:
                self.process.kill()
                raise
        return self.api

    def _is_up(self) -> bool:
        assert self.process.poll() is None, (self.home / "server.log").read_text()[-2000:]
        return is_up(f"{self.api}/health")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextlib.contextmanager
def first_start(home: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile a Prefect server starts, which may have nothing at home yet.

    It then makes its database, which takes as much as all else of its start: the first one of the tests does, and
    whoever comes later has a copy. Who comes at the same time waits for it.
    """
    database, memo = "prefect.db", "memo_store.toml"
    if "PREFECT_API_DATABASE_CONNECTION_URL" in environment or (home / database).exists():
        yield
        return
    made = SHARED / "server"
    with FileLock(SHARED / "server.lock"):
        if not made.exists():
            yield
            being_made = SHARED / "server-being-made"
            being_made.mkdir()
            source, copy = (sqlite3.connect(each / database) for each in (home, being_made))
            with contextlib.closing(source), contextlib.closing(copy):
                source.backup(copy)
            shutil.copy(home / memo, being_made)
            being_made.rename(made)
            return
    shutil.copytree(made, home, dirs_exist_ok=True)
    yield


def free_port() -> int:
    """A port that is free, and that nobody is given meanwhile who asks the system for any: those begin at 32768."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports come again and again")


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False


def wait_for(condition, *, seconds: float = LONGEST, what: str, pause: float = 0.2):
    """Wait until `condition()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    pytest.fail(f"{what} wasn't there after {seconds} s")


def said(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    """What a logger, or one below it, has logged. Others may log for what an earlier test has left to a thread."""
    return [record.getMessage() for record in caplog.records if record.name.startswith(logger)]


@pytest.fixture(scope="session")
def stack_of_session(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project deployed from a copy of the clone, a worker and a provider: one for the integration and UI tests."""
    from tests.integration.stack import MARK, processes_with, stack_on

    server_log = next(tmp_path_factory.getbasetemp().glob("prefect*/server.log"))
    with (
        stack_on(prefect_api, server_log, tmp_path_factory.mktemp("stack"), warm=True) as running,
        resting.between_uses(lambda: processes_with(MARK, running.environment[MARK])),
    ):
        yield running


@pytest.fixture
def stack(stack_of_session: Stack) -> Stack:
    """The session's stack, with a provider that is healthy and has seen nothing, and no answers of other tests."""
    shutil.rmtree(stack_of_session.storage / "ledger", ignore_errors=True)
    stack_of_session.provider.start()
    stack_of_session.provider.reset()
    return stack_of_session
