"""Fixtures: a provider on loopback, a storage of the test's own, a real Prefect server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from llms.local_provider import LocalProvider

if TYPE_CHECKING:
    from tests.integration.stack import Stack

pytest.register_assert_rewrite("tests.tasks.contract")

hypothesis.settings.register_profile("same every time", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same every time")

ROOT = Path(__file__).parent.parent

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


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    """A provider whose address is in OPENAI_BASE_URL. Its answers come at once."""
    with LocalProvider() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage of the test's own, in STILLFLOW_STORAGE."""
    folder = tmp_path / "storage"
    monkeypatch.setenv("STILLFLOW_STORAGE", str(folder))
    return folder


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server's API, one for the whole session."""
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home) as api:
        yield api


@pytest.fixture
def prefect(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Flows of this test run against the session's server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api, PREFECT_HOME: tmp_path_factory.mktemp("home")}):
        yield prefect_api


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
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_up(f"{self.api}/health"), seconds=90, what="the Prefect server")
        except BaseException:
            self.process.kill()
            raise
        return self.api

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition, *, seconds: float, what: str, pause: float = 0.2):
    """Wait until `condition()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(pause)
    pytest.fail(f"{what} wasn't there after {seconds} s")


@pytest.fixture(scope="session")
def stack_of_session(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project deployed from a copy of the clone, a worker and a provider: one for the integration and UI tests."""
    from tests.integration.stack import stack_on

    server_log = next(tmp_path_factory.getbasetemp().glob("prefect*/server.log"))
    with stack_on(prefect_api, server_log, tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def stack(stack_of_session: Stack) -> Stack:
    """The session's stack, with a provider that is healthy and has seen nothing."""
    stack_of_session.provider.start()
    stack_of_session.provider.reset()
    return stack_of_session
