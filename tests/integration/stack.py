"""The project as its users run it: a server, a work pool, a worker, deployments, and a provider that answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, free_port
from tests.warm import WarmPython

ROOT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
"""The console script: unlike `python -m prefect`, it doesn't bring the working folder onto the path."""

POOL = "stillflow"
OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
MARK = "STILLFLOW_TEST_STACK"
"""An environment variable by which every process that a stack started is found again, whoever its parent is."""


def waits_for_batches(state: Mapping[str, Any]) -> bool:
    """Whether a run in this state waits without a process, under a name of Prefect's that keeps it in sight."""
    return state["name"] == "AwaitingRetry" and state["message"].startswith("waiting for batches: ")


def copy_of_the_clone(folder: Path) -> Path:
    """What a user clones, so that relative paths of runs stay out of this repository."""
    for package in ("llms", "tasks", "flows", "deployments"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def private_environment(folder: Path, api: str, **more: str) -> dict[str, str]:
    """An environment in which nothing of this machine's user is used: no home, no storage, no key, no profile."""
    foreign = ("PREFECT_", "STILLFLOW_", "OPENAI_", "HF_", "PYTHONPATH")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        "HOME": str(folder / "home"),
        "PREFECT_HOME": str(folder / "home" / ".prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_API_SSL_CERT_FILE": os.environ["PREFECT_API_SSL_CERT_FILE"],
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_COLORS": "false",
        # On a slow machine, a worker that asks each second is in the way of whoever starts a run: see `RunForm.submit`.
        "PREFECT_WORKER_QUERY_SECONDS": "3",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "STILLFLOW_STORAGE": str(folder / "storage"),
        "STILLFLOW_POLL_SECONDS": "2",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
        MARK: uuid.uuid4().hex,
        **more,
    }


class Process:
    """A process in a group of its own, with its output in a file. `with` it: the whole group ends at the end."""

    def __init__(self, name: str, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path):
        self.name, self.command, self.cwd, self.environment, self.log = name, command, cwd, environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Ignored by what a shell runs in the background, tests among it, and by all that is started there.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, seconds: float = 60) -> int | None:
        """Ask it to end, as a service manager does, then end what is left of its group. Returns its status."""
        if self._process is None:
            return None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def interrupt(self) -> None:
        """As Ctrl+C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def wait_for_output(self, text: str, *, seconds: float = LONGEST) -> None:
        """Wait until `text` is in its output."""
        end = time.monotonic() + seconds
        while text not in self.output():
            if not self.running:
                pytest.fail(f"the {self.name} ended before it said {text!r}:\n{self.tail()}")
            if time.monotonic() > end:
                pytest.fail(f"the {self.name} didn't say {text!r} in {seconds:g} s:\n{self.tail()}")
            time.sleep(0.1)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 40) -> str:
        return tail_of(self.log, lines)


def tail_of(log: Path, lines: int = 40) -> str:
    text = log.read_text(errors="replace") if log.exists() else "(no log)"
    return f"--- the end of {log}\n" + "\n".join(text.splitlines()[-lines:])


def processes_with(variable: str, value: str) -> list[int]:
    """The ids of running processes that have a variable in their environment."""
    wanted = f"{variable}={value}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while it's looked at; others' processes can't be looked at.
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill_all(variable: str, value: str) -> list[int]:
    """End every process that has a variable in its environment. Returns their ids."""
    found = processes_with(variable, value)
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return found


@dataclass
class Refused(Exception):
    """The server's answer to a call, where it's no success."""

    status: int
    body: str

    def __str__(self) -> str:
        return f"{self.status}: {self.body}"


@dataclass
class Server:
    """A running server's API, as any client sees it."""

    api: str
    log: Path
    """The server's own."""
    processes: list[Process] = field(default_factory=list[Process])
    """Whose logs are shown where a run doesn't end as it should."""

    @property
    def ui(self) -> str:
        return self.api.removesuffix("/api")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the API. Raises Refused. A 503 (SQLite is locked) is tried again, as Prefect's client does."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data, {"Content-Type": "application/json"}, method=method)
        for attempt in range(6):
            try:
                with urllib.request.urlopen(request, timeout=LONGEST) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or attempt == 5:
                    raise Refused(error.code, error.read().decode()) from None
            time.sleep(0.5)
        raise AssertionError("not reached")

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by `flow/deployment`."""
        flow, _, deployment = name.partition("/")
        return self.call("GET", f"/deployments/name/{flow}/{deployment}")

    def start(self, deployment: str, parameters: Mapping[str, Any], **environment: str) -> str:
        """Start a run as any client of the API does. Returns its id. Raises Refused.

        Args:
            environment: variables of the run's process.
        """
        body = {"parameters": parameters, **({"job_variables": {"env": environment}} if environment else {})}
        made = self.call("POST", f"/deployments/{self.deployment(deployment)['id']}/create_flow_run", body)
        return made["id"]

    def run(self, run: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run}")

    def runs(self, deployment: str | None = None) -> list[dict[str, Any]]:
        """The runs there are, of a deployment or all."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}}} if deployment else {}
        return self.call("POST", "/flow_runs/filter", wanted)

    def task_runs(self, run: str) -> list[dict[str, Any]]:
        return self.call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        return self.call("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})

    def logs(self, run: str) -> list[str]:
        found = self.call("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        return [each["message"] for each in found]

    def wait(
        self, run: str, wanted: str | Iterable[str] = "COMPLETED", *, seconds: float = LONGEST, past: str = ""
    ) -> dict[str, Any]:
        """Wait until a run's state is of a wanted type. Fails at once where it ends in another one.

        Args:
            past: the id of a state that doesn't count, such as that of a run's first attempt.
        """
        types = {wanted} if isinstance(wanted, str) else set(wanted)
        end = time.monotonic() + seconds
        while True:
            found = self.run(run)
            if found["state"]["type"] in types and found["state"]["id"] != past:
                return found
            over = found["state"]["type"] in OVER and found["state"]["id"] != past
            if over or time.monotonic() > end:
                pytest.fail(self.story(run, f"wasn't {' or '.join(sorted(types))} within {seconds:g} s"))
            time.sleep(0.4)

    def wait_for_end(self, run: str, *, seconds: float = LONGEST) -> dict[str, Any]:
        return self.wait(run, OVER, seconds=seconds)

    def story(self, run: str, problem: str) -> str:
        """What is known of a run that didn't do as it should."""
        state = self.run(run)["state"]
        logs = "\n".join(self.logs(run)[-30:])
        tails = "\n".join([*(each.tail() for each in self.processes), tail_of(self.log)])
        return f"run {run} {problem}: it's {state['name']}, {state['message']!r}\n--- its logs\n{logs}\n{tails}"


@dataclass
class Stack(Server):
    """A server with the project deployed to it, a worker that runs it, and the provider that the runs ask."""

    folder: Path = Path()
    provider: LocalProvider = field(default_factory=LocalProvider)
    environment: dict[str, str] = field(default_factory=dict[str, str])
    python: str = sys.executable
    """What is called for an interpreter: a warm one where the way of Prefect's processes isn't what is tested."""

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def storage(self) -> Path:
        return Path(self.environment["STILLFLOW_STORAGE"])

    def prefect(self, *arguments: str, seconds: float = LONGEST, status: int = 0) -> str:
        """Call Prefect's command line in the clone. Returns what it said."""
        # A server whose database is locked for a minute says 503, five times over where the machine is busy.
        patient = ["env", "PREFECT_CLIENT_MAX_RETRIES=20"]
        return self.command([*patient, self.python, PREFECT, *arguments], seconds=seconds, status=status)

    def deploy(self, *names: str) -> None:
        """Make deployments of prefect.yaml: every one, as its first lines say, or those that are named."""
        which = [part for name in names for part in ("--name", name)] or ["--all"]
        self.prefect("deploy", *which, "--prefect-file", "deployments/prefect.yaml", "--no-prompt")

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by `flow/deployment`. One of prefect.yaml is made when it's first asked for: all take long."""
        try:
            return super().deployment(name)
        except Refused as error:
            if error.status != 404:
                raise
        self.deploy(name.rpartition("/")[2])
        return super().deployment(name)

    def forget_served(self) -> None:
        """Remove what a process served: it took what was there already, so that no worker can run it any more."""
        made = yaml.safe_load((self.clone / "deployments" / "prefect.yaml").read_text())["deployments"]
        names = {"name": {"any_": [each["name"] for each in made]}}
        for each in self.call("POST", "/deployments/filter", {"deployments": names}):
            self.call("DELETE", f"/deployments/{each['id']}")

    def command(self, command: Sequence[str], *, seconds: float = LONGEST, status: int = 0) -> str:
        """Call a command in the clone, and check its status. Returns what it said."""
        try:
            done = subprocess.run(
                command,
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{' '.join(command)} took more than {seconds:g} s; it said:\n{error.output}")
        if done.returncode != status:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}, expected {status}:\n{done.stdout}")
        return done.stdout

    def process(self, name: str, command: Sequence[str], **more: str) -> Process:
        """A process in the clone, not yet started."""
        log = self.folder / f"{name.replace(' ', '-')}.log"
        return Process(name, command, cwd=self.clone, environment={**self.environment, **more}, log=log)

    def source(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A file of rows."""
        file = self.folder / "sources" / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def sent(self) -> list[Any]:
        """The requests with a body: no looks at the job of a run that another test left waiting."""
        return [request for request in self.provider.requests if request.body is not None]

    def asked(self, status: int | None = 200) -> list[str]:
        """The last message of every chat that the provider answered with a status."""
        return [
            request.body["messages"][-1]["content"]
            for request in self.provider.requests
            if request.path == "/chat/completions" and request.body and status in (None, request.status)
        ]


@contextlib.contextmanager
def stack_on(api: str, server_log: Path, folder: Path, *, warm: bool = False, **variables: str) -> Iterator[Stack]:
    """A stack on a running server: the pool made, a worker at work, deployments made as they are asked for.

    Args:
        warm: whether the worker's runs, and whatever `python` is called for, are forks of a process that has imported
            everything, in place of the two interpreters that Prefect's worker starts for each run.
    """
    copy_of_the_clone(folder / "clone")
    (folder / "home").mkdir()
    with LocalProvider(port=free_port()) as provider, contextlib.ExitStack() as forking:
        environment = private_environment(folder, api, OPENAI_BASE_URL=provider.base_url, **variables)
        stack = Stack(api, server_log, folder=folder, provider=provider, environment=environment)
        if warm:
            stack.python = str(forking.enter_context(WarmPython(stack.clone, environment)).executable)
        try:
            stack.prefect("work-pool", "create", POOL, "--type", "process")
            command = [stack.python, PREFECT, "worker", "start", "--pool", POOL]
            with stack.process("worker", command) as worker:
                stack.processes.append(worker)
                worker.wait_for_output("started!")
                yield stack
        finally:
            kill_all(MARK, environment[MARK])
