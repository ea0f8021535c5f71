"""A Python that has imported everything already: programs start in it as forks, in milliseconds instead of seconds.

`with WarmPython(...) as warm:` starts the process that forks. Whoever takes `warm.executable` for an interpreter starts
programs in it: `-m module`, `-c code` and scripts. They do what they would in a Python that was just started: the
environment, the working folder, the import path, the standard streams, signals and the exit status are their own. Only
what modules did when they were imported is done already, and only where the import path leads to the very same files.
Anything else is started cold.

A program that is to be killed from outside is started by `warm.start` instead: what stands for the interpreter
otherwise is a process of its own, and may be outlived by the program for a moment.

Run by its path, this file is the process that forks.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.abc
import importlib.machinery
import json
import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self

PROJECT = ("llms", "tasks", "flows", "deployments")
LIBRARIES = (
    *("aiohttp", "datasets", "fsspec", "openai", "prefect", "prefect.engine", "prefect.flow_engine", "pyarrow.parquet"),
    *("prefect.cli._app", "prefect.runner._workspace_supervisor", "prefect.runner._workspace_resolver"),
    *("prefect.runner._workspace_runtime_bootstrap", "prefect.workers.process", "prefect.deployments.runner"),
)
AT_IMPORT = ("HF_", "HOME", "HUGGING", "PYTHONHASHSEED", "XDG_")
"""Variables that libraries read when they are imported: with other values, a program is started cold."""
LONGEST_ORDER = 1 << 20


class WarmPython:
    """The process that forks, as a context manager.

    Args:
        folder: where the project is; its packages are imported from there.
        environment: what the process that forks has; its programs have their own.
        modules: what is imported ahead, besides the libraries; without those that aren't there.
        path: a folder that is on its import path, for a `sitecustomize` that holds for all its programs.
        python: the interpreter, where it isn't the one that runs this.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        modules: Sequence[str] = PROJECT,
        *,
        path: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        self._folder, self._environment, self._modules = folder, dict(environment), modules
        self._path, self._python = str(path or ""), python
        self._home = tempfile.TemporaryDirectory(prefix="warm-")
        self._address = Path(self._home.name) / "socket"
        self.executable = Path(self._home.name) / "python"

    def __enter__(self) -> Self:
        self.executable.write_text(LAUNCHER.format(python=self._python, address=str(self._address)))
        self.executable.chmod(self.executable.stat().st_mode | stat.S_IXUSR)
        order = {"address": str(self._address), "executable": str(self.executable), "modules": list(self._modules)}
        self._process = subprocess.Popen(
            [self._python, __file__, json.dumps(order)],
            cwd=self._folder,
            # No thread of a library's must be there when it forks.
            env={**self._environment, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": self._path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            raise RuntimeError("the process that forks didn't start; what it said is above")
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with all its programs when its input does.
        self._process.communicate()
        self._home.cleanup()

    def start(self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, output: Path) -> Program:
        """Start a program, `command` being what follows `python`, that says what it says to a file."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self._address))
        # What libraries read when they are imported is read already: a test before may have left another value.
        own = {name: value for name, value in self._environment.items() if name.startswith(AT_IMPORT)}
        given = {name: value for name, value in environment.items() if not name.startswith(AT_IMPORT)}
        order = {"argv": list(command), "environment": {**given, **own}, "cwd": str(cwd)}
        with Path(os.devnull).open("rb") as nothing, output.open("wb") as file:
            descriptors = [nothing.fileno(), file.fileno(), file.fileno()]
            socket.send_fds(connection, [json.dumps(order).encode()], descriptors)
        pid = json.loads(connection.recv(LONGEST_ORDER))["pid"]
        return Program(list(command), pid, connection)


@dataclass
class Program:
    """A program that was started warm."""

    command: list[str]
    pid: int
    _connection: socket.socket
    status: int | None = None

    def kill(self) -> None:
        """End it as a machine that loses its power does, if it's still there."""
        # By its parent: to anybody else, its id may be another's by now.
        with contextlib.suppress(OSError):
            self._connection.send(b"kill")

    def wait(self) -> int:
        """Wait until it has ended. Returns its exit status, or minus the signal that ended it."""
        if self.status is None:
            try:
                told = self._connection.recv(LONGEST_ORDER)
            except ConnectionResetError:
                # It had ended before it was told to. Its status was sent all the same.
                told = self._connection.recv(LONGEST_ORDER)
            assert told, "the process that forks has ended"
            self.status = json.loads(told)["status"]
            self._connection.close()
        assert self.status is not None
        return self.status


# What is taken for the interpreter: a program that hands over to the process that forks.

LAUNCHER = """#!{python} -IS
import os, sys
REAL = {python!r}
argv = sys.argv[1:]
if not argv or argv[0].startswith("-") and argv[0] not in ("-m", "-c"):
    os.execv(REAL, [REAL, *argv])
import json, signal, socket
PASSED_ON = {{signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}}
def cold():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os.execv(REAL, [REAL, *argv])
signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    connection.connect({address!r})
except OSError:
    cold()
order = {{"argv": argv, "environment": dict(os.environ), "cwd": os.getcwd()}}
socket.send_fds(connection, [json.dumps(order).encode()], [0, 1, 2])
told = json.loads(connection.recv({longest}))
if "cold" in told:
    cold()
def pass_on(number, frame):
    try:
        os.kill(told["pid"], number)
    except ProcessLookupError:
        pass
for number in PASSED_ON:
    signal.signal(number, pass_on)
signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
end = connection.recv({longest})
status = json.loads(end)["status"] if end else -signal.SIGKILL
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), -status)
os._exit(status)
""".replace("{longest}", str(LONGEST_ORDER))


# The process that forks.


@dataclass
class Order:
    """A program to be started, as it was sent."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str
    descriptors: list[int] = field(default_factory=list[int])


@dataclass
class Kept:
    """A module of the project that was imported ahead, and the file that it was then."""

    module: ModuleType
    file: str
    stat: tuple[int, int]


class Keeper(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module that was imported ahead where the import path leads to the same file as then."""

    def __init__(self, kept: dict[str, Kept]) -> None:
        self.kept = kept

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        kept = self.kept.get(name)
        found = importlib.machinery.PathFinder.find_spec(name, path) if kept else None
        if kept is None or found is None or found.origin != kept.file or stat_of(kept.file) != kept.stat:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        spec.has_location, spec.cached = True, found.cached
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self.kept[spec.name].module

    def exec_module(self, module: ModuleType) -> None:
        """It was run when it was imported ahead. What it imported then, it imports now: it's there by its name."""
        owners = {str(getattr(each, "__module__", "")) for each in list(vars(module).values())}
        for name in sorted(owners & self.kept.keys() - sys.modules.keys()):
            importlib.import_module(name)


def stat_of(file: str) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        found = Path(file).stat()
        return found.st_mtime_ns, found.st_size
    return 0, 0


def import_ahead(modules: Sequence[str]) -> dict[str, Kept]:
    """Import modules. Returns those of the project, which aren't among the imported ones any more."""
    for name in (*LIBRARIES, *modules):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    for name in modules:
        # Every module of a package: those that are imported only when they are needed, too.
        for place in getattr(sys.modules.get(name), "__path__", ()):
            for file in sorted(Path(place).rglob("*.py")):
                if file.stem not in ("__main__", "__init__"):
                    with contextlib.suppress(ImportError):
                        below = file.relative_to(place).with_suffix("").parts
                        importlib.import_module(".".join((name, *below)))
    roots = {name.partition(".")[0] for name in modules}
    kept: dict[str, Kept] = {}
    for name in [each for each in sys.modules if each.partition(".")[0] in roots]:
        module = sys.modules.pop(name)
        if module.__spec__ and module.__spec__.origin:
            kept[name] = Kept(module, module.__spec__.origin, stat_of(module.__spec__.origin))
    return kept


class Forker:
    """Takes orders at a socket, until the standard input ends."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(address)
        self._listener.listen(64)
        self._connections: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._bell, ringing = socket.socketpair()
        for each in (self._bell, ringing):
            each.setblocking(False)
        self._ringing = ringing
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ringing.fileno())
        for source, act in ((self._listener, self._accept), (self._bell, self._reap), (0, self._end)):
            self._selector.register(source, selectors.EVENT_READ, act)

    def next_program(self) -> Order:
        """Returns once for each order, each time in a new process."""
        while True:
            for key, _ in self._selector.select():
                order = key.data()
                if order is not None:
                    return order

    def _accept(self) -> Order | None:
        connection, _ = self._listener.accept()
        content, descriptors, _, _ = socket.recv_fds(connection, LONGEST_ORDER, 3)
        if not content:
            connection.close()
            return None
        order = Order(**json.loads(content), descriptors=descriptors)
        if self._is_cold(order):
            # Who sent the order may have been killed meanwhile.
            with contextlib.suppress(OSError):
                connection.send(b'{"cold": true}')
            pid = -1
        else:
            pid = os.fork()
        if pid == 0:
            self._leave(connection)
            return order
        # The program does so itself as well: whoever comes first.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        for each in descriptors:
            os.close(each)
        if pid == -1:
            connection.close()
            return None
        self._connections[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._kill(pid))
        self._tell(pid, {"pid": pid})
        return None

    def _is_cold(self, order: Order) -> bool:
        def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
            return {name: value for name, value in environment.items() if name.startswith(AT_IMPORT)}

        return read_at_import(order.environment) != read_at_import(self._environment)

    def _leave(self, connection: socket.socket) -> None:
        """Have nothing of the process that forks, in the one that was forked."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for each in (connection, self._listener, self._bell, self._ringing, *self._connections.values()):
            each.close()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)

    def _tell(self, pid: int, what: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._connections[pid].send(json.dumps(what).encode())

    def _kill(self, pid: int) -> None:
        """Who ordered the program wants so, or is gone, which is so when it was killed itself."""
        if pid in self._connections:
            # What was sent must have been read: the status couldn't be told otherwise.
            with contextlib.suppress(OSError):
                self._connections[pid].recv(LONGEST_ORDER)
            self._selector.unregister(self._connections[pid])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(1024)
        while self._connections:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._tell(pid, {"status": os.waitstatus_to_exitcode(status)})
            connection = self._connections.pop(pid)
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection)
            connection.close()

    def _end(self) -> NoReturn:
        for pid in self._connections:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(0)


def become(order: Order, executable: str, imported: dict[str, Kept], path: list[str]) -> None:
    """Do in this process what a Python does that was started for the order."""
    for number, descriptor in enumerate(order.descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(order.cwd)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.executable = executable
    sys.path[:] = [*filter(None, order.environment.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.meta_path.insert(0, Keeper(imported))
    read_settings_anew(before)
    run(order.argv)


def read_settings_anew(before: Mapping[str, str]) -> None:
    """Prefect read the environment when it was imported."""
    import prefect.context
    from prefect.logging import configuration

    def of_logging(environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name.startswith("PREFECT_LOGGING_")}

    prefect.context.refresh_global_settings_context()
    if of_logging(before) != of_logging(os.environ):
        configuration.setup_logging(incremental=False)


def run(argv: list[str]) -> None:
    """Run a module, code or a script as `__main__`."""
    import runpy

    main = sys.modules["__main__"] = ModuleType("__main__")
    if argv[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = argv[1:]
        runpy._run_module_as_main(argv[1])  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    elif argv[0] == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *argv[2:]]
        exec(compile(argv[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(argv[0]).resolve().parent))
        sys.argv = argv
        main.__file__ = argv[0]
        exec(compile(Path(argv[0]).read_bytes(), argv[0], "exec"), main.__dict__)


def main() -> None:
    order = json.loads(sys.argv[1])
    path = sys.path[1:]
    sys.path[:] = [str(Path.cwd()), *path]
    imported = import_ahead(order["modules"])
    environment = dict(os.environ)
    forker = Forker(order["address"], environment)
    # What is there is for all programs: a collector that goes through it copies every page, and the memory with it.
    gc.collect()
    gc.freeze()
    os.write(1, b"ready\n")
    os.dup2(2, 1)
    program = forker.next_program()
    end_with(status_of(lambda: become(program, order["executable"], imported, path)))


def status_of(program: Callable[[], None]) -> int:
    """Run a program to its end, its threads' and what it registered for its end included. Returns its exit status."""
    status = 0
    try:
        try:
            program()
        finally:
            threading._shutdown()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    except SystemExit as end:
        status = end.code or 0 if isinstance(end.code, int | None) else 1
        if not isinstance(end.code, int | None):
            sys.stderr.write(f"{end.code}\n")
    except BaseException as error:  # noqa: BLE001 -- the last that sees it: whatever ended the program is told, and its status
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    atexit._run_exitfuncs()
    return status


def end_with(status: int) -> NoReturn:
    """End this process without taking down what was imported ahead, which costs more than most programs."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
