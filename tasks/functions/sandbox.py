"""Calls of a user's Python functions in a process of their own, with limits on time, memory, files and the network."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

CHILD = Path(__file__).with_name("sandbox_child.py")
START_SECONDS, GRACE_SECONDS = 300.0, 30.0
"""How long the functions may take to load, and how much longer than its time on the clock it may take to end a call."""
MOST_LATE = 3
STARVED_TIMES, STARVED_SECONDS = 10.0, 60.0
"""What a call that waits for a processor gets on the clock: so many times its limit, or so many seconds more."""


class SandboxError(RuntimeError):
    """The functions can't be loaded. The message says why."""


class SandboxLateError(SandboxError):
    """The functions took too long to load, as they may on a machine that is busy for a while."""


class Outcome(NamedTuple):
    """What came of a call."""

    kept: bool
    result: str
    """The result as JSON, or the reason why the call isn't kept."""
    late: bool = False
    """Whether that says nothing of the call: the machine was too busy for it."""


@dataclass(frozen=True)
class Limits:
    """What a call may take."""

    seconds: float
    """How long it's let run. On Linux, what it waits for a processor isn't counted."""
    memory: int
    """Bytes, beyond what the functions take when they are loaded."""
    result_length: int
    network_namespace: bool = True
    """Whether to try for a network namespace of its own. Where there's none, Python's sockets are refused."""
    untrusted: bool = False
    """Whether they run code that nobody has looked at: it may read what Python itself needs, and no other file."""

    @property
    def longest(self) -> float:
        """Seconds on the clock, however little of it a call was let run."""
        return max(STARVED_TIMES * self.seconds, self.seconds + STARVED_SECONDS)


class Sandbox:
    """A process that has a user's functions loaded, and calls each of them in a fork.

    A call starts with what was there when the functions were loaded, in an empty folder. It can't change what
    another call sees. One that hangs, crashes or takes too much ends alone; if it takes the process with it, the
    next call starts another.

    The limits are against accidents, and against arguments that a model made up. They are no jail for hostile code:
    the functions are the user's own, and may read every file that the user may read, unless they are `untrusted`.
    """

    def __init__(self, libpath: str, limits: Limits) -> None:
        self.libpath = libpath
        self.limits = limits
        self.functions: list[str] = []
        self.isolated = False
        """Whether the process has a network namespace of its own."""
        self._process: subprocess.Popen[bytes] | None = None
        self._late = 0
        """How often in a row the functions took too long to load."""
        self._one_at_a_time = threading.RLock()

    def __reduce__(self) -> tuple[type[Sandbox], tuple[str, Limits]]:
        """Elsewhere it starts a process of its own."""
        return type(self), (self.libpath, self.limits)

    def start(self) -> None:
        """Load the functions, unless they are. Raises SandboxError."""
        with self._one_at_a_time:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        if not hasattr(os, "fork"):
            raise SandboxError("functions can be run on Linux and macOS, not on this system")
        if not Path(self.libpath).exists():
            raise SandboxError(f"libpath: expected a Python file or a folder of them, there's no {self.libpath!r}")
        folder = tempfile.mkdtemp(prefix="functions-")
        self._process = process = subprocess.Popen(
            # Without -P, the modules beside the program would be taken for those of the standard library.
            [sys.executable, "-P", "-s", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment(folder),
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, end, process, folder)
        paths = {"libpath": str(Path(self.libpath).resolve()), "folder": folder}
        settings = {**paths, **asdict(self.limits), "longest": self.limits.longest}
        try:
            said = self._answer(settings, START_SECONDS)
        except TimeoutError:
            self.stop()
            self._late += 1
            # Where it's for good, each row would wait as long.
            kind = SandboxLateError if self._late < MOST_LATE else SandboxError
            raise kind(f"libpath: the process that loads the functions took longer than {START_SECONDS:g} s") from None
        if said is None or said["problem"]:
            self.stop()
            raise SandboxError(f"libpath: {said['problem'] if said else 'the process that loads the functions ended'}")
        self.functions, self.isolated, self._late = said["functions"], said["isolated"], 0

    def stop(self) -> None:
        with self._one_at_a_time:
            if self._process is not None:
                self._finalizer()
                self._process = None

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """Call a function; calls of several threads wait for each other.

        Raises:
            SandboxError: the process has to be started, and can't be.
        """
        with self._one_at_a_time:
            return self._call(name, arguments)

    def _call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        if name not in self.functions:
            return Outcome(False, f"there is no function {name!r:.100}; there are {', '.join(self.functions)}")
        longest = self.limits.longest + GRACE_SECONDS
        try:
            said = self._answer({"name": name, "arguments": arguments}, longest)
        except TimeoutError:
            self.stop()
            return Outcome(False, f"the process that runs the functions didn't answer within {longest:g} s", late=True)
        if said is None:
            self.stop()
            return Outcome(False, "it ended the process that runs the functions")
        return Outcome(said["kept"], said["result"], said.get("late", False))

    def _answer(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """What the process answers; None where it ended. Raises TimeoutError where it's late."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        deadline, line = time.monotonic() + seconds, b""
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return None
        # Not `select.select`, which takes no file number above 1023: a process with many connections has such.
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not waiting.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(process.stdout.fileno(), 1 << 20)
                if not part:
                    return None
                line += part
        return json.loads(line)


def environment(folder: str) -> dict[str, str]:
    """What the process sees of this one's environment: nothing that could be a secret, and the same every time."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    fixed = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC", "HOME": folder, "TMPDIR": folder}
    return {**fixed, **threads, **libraries, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def end(process: subprocess.Popen[bytes], folder: str) -> None:
    """End the process with all that it started, and take its folder away."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    shutil.rmtree(folder, ignore_errors=True)
