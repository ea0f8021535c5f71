"""The program that runs a user's functions: it loads them once, and forks for every call, with limits on the fork.

`tasks.functions.sandbox` starts it and talks to it in lines of JSON. It imports nothing of the project.
"""

# Of functions that nobody knows, as of their arguments and results, there are no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import _posixsubprocess
import asyncio
import ctypes
import importlib.util
import inspect
import io
import json
import math
import numbers
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import typing
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
FILE_BYTES, OPEN_FILES, MOST_FILES = 1_000_000, 64, 100
REASON_LENGTH = 500
LOOK_SECONDS = 0.02
"""How often it's looked how long a call was let run."""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Load the functions that the first line names, and answer every further line, a call, with a line."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    limits = Limits(**json.loads(requests.readline()))
    try:
        isolated = limits.network_namespace and leave_network()
        functions, problem = functions_in(Path(limits.libpath))
        reply(replies, {"functions": sorted(functions), "problem": problem, "isolated": isolated})
        for line in requests:
            call = json.loads(line)
            streams = (requests.fileno(), replies.fileno())
            reply(replies, run(functions.get(call["name"]), call["arguments"], limits, streams))
    finally:
        shutil.rmtree(limits.folder, ignore_errors=True)


class Limits(NamedTuple):
    """What a call may take."""

    libpath: str
    folder: str
    """Where each call gets a folder of its own."""
    seconds: float
    longest: float
    """Seconds on the clock, however little of it a call was let run."""
    memory: int
    result_length: int
    network_namespace: bool
    untrusted: bool


Outcome: TypeAlias = dict[str, Any]
"""`kept`, and the `result`: as JSON, or the reason why it isn't kept; `late` where the machine was too busy to tell."""


def reply(replies: io.BufferedWriter, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value).encode() + b"\n")
    replies.flush()


def outcome(kept: bool, result: str) -> Outcome:
    # What UTF-8 can't write, no file can keep.
    return {"kept": kept, "result": result.encode("utf-8", "replace").decode()}


def leave_network() -> bool:
    """Move to a network namespace without a network. Says whether that's permitted."""
    if not hasattr(libc, "unshare"):
        return False
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return True
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with suppress(OSError):
            Path("/proc/self", name).write_text(text)
    return True


# The functions.


class Function(NamedTuple):
    """A function with what its arguments must be."""

    call: Callable[..., Any]
    parameters: dict[str, inspect.Parameter]
    types: dict[str, TypeAdapter[Any]]
    """By parameter. One without an annotation that JSON could fit takes anything."""


def functions_in(libpath: Path) -> tuple[dict[str, Function], str]:
    """The public functions of a Python file, or of those in a folder; and why there are none."""
    files = sorted(libpath.glob("[!_]*.py")) if libpath.is_dir() else [libpath]
    sys.path.insert(0, str(files[0].parent if files else libpath))
    found: dict[str, Function] = {}
    for file in files:
        try:
            own = public_functions(file)
        except Exception as error:  # noqa: BLE001 -- a user's module: whatever it raises is told
            return {}, f"{file} can't be imported: {type(error).__name__}: {error}"
        doubled = sorted(set(own) & set(found))
        if doubled:
            return {}, f"{file} defines {doubled[0]!r}, and so does another file; functions are called by their names"
        found.update(own)
    return found, "" if found else f"{libpath} has no functions"


def public_functions(file: Path) -> dict[str, Function]:
    """The functions that a module lists in `__all__`, or else those that it defines itself."""
    spec = importlib.util.spec_from_file_location(f"functions_of_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    members = vars(module)
    named: list[str] = members.get("__all__") or [
        name
        for name, value in members.items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    return {name: function_of(members[name]) for name in named}


def function_of(function: Callable[..., Any]) -> Function:
    parameters = dict(inspect.signature(function).parameters)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        hints = {}
    types: dict[str, TypeAdapter[Any]] = {}
    for name in set(hints) & set(parameters):
        with suppress(PydanticSchemaGenerationError, PydanticUserError):
            types[name] = TypeAdapter(hints[name])
    return Function(function, parameters, types)


def checked(function: Function, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments by position and by name, as the annotations want them. Raises TypeError."""
    kinds = inspect.Parameter
    named = {
        name: each
        for name, each in function.parameters.items()
        if each.kind not in {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD}
    }
    takes_any = any(each.kind is kinds.VAR_KEYWORD for each in function.parameters.values())
    unknown = [name for name in arguments if name not in named and not takes_any]
    missing = [name for name, each in named.items() if each.default is each.empty and name not in arguments]
    if unknown or missing:
        problem = f"unknown argument {unknown[0]!r}" if unknown else f"no argument {missing[0]!r}"
        raise TypeError(f"{problem}; the function takes {list(named)!r}")
    values = {name: of_type(name, value, function) for name, value in arguments.items()}
    by_position = [name for name, each in named.items() if each.kind is kinds.POSITIONAL_ONLY and name in values]
    return [values.pop(name) for name in by_position], values


def of_type(name: str, value: Any, function: Function) -> Any:
    """A value of JSON as the annotation of a parameter wants it. Raises TypeError."""
    known = function.types.get(name)
    if known is None or (value is None and function.parameters[name].default is None):
        return value
    try:
        return known.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise TypeError(f"argument {where}: {first['msg']}, got {first['input']!r:.100}") from None


# A call, seen from outside of its fork.


def run(function: Function | None, arguments: dict[str, Any], limits: Limits, streams: tuple[int, int]) -> Outcome:
    """What came of a call."""
    if function is None:
        return outcome(False, "there is no such function")
    folder = tempfile.mkdtemp(dir=limits.folder)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for each in (reader, *streams):
            os.close(each)
        run_in_fork(function, arguments, limits, folder, writer)
    os.close(writer)
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, child)
    stopwatch = Stopwatch(child, limits)
    said = said_in_time(reader, stopwatch, 10 * limits.result_length + 10 * REASON_LENGTH)
    os.close(reader)
    status = status_at_end(child, stopwatch if said is not None else None)
    shutil.rmtree(folder, ignore_errors=True)
    if (said is None or status is None) and stopwatch.is_late:
        why = f"in {limits.longest:g} s it wasn't let run for {limits.seconds:g} s: the machine is too busy"
        return {**outcome(False, why), "late": True}
    if said is None or status is None:
        return outcome(False, f"it took longer than {limits.seconds:g} s")
    with suppress(ValueError):
        return json.loads(said)
    if os.WIFSIGNALED(status):
        return outcome(False, f"its process was killed by {signal.Signals(os.WTERMSIG(status)).name}")
    return outcome(False, f"its process ended without a result (exit status {os.WEXITSTATUS(status)})")


class Thread(NamedTuple):
    """What the system says of a thread."""

    runnable: bool
    """Whether it runs, or waits for a processor."""
    ran: int
    waited: int
    """Nanoseconds, for a processor. A wait is added when it's over."""


def threads_of(process: int | str) -> dict[str, Thread]:
    """The threads of a process by their numbers; none where the system doesn't tell."""
    found: dict[str, Thread] = {}
    with suppress(OSError):
        for each in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                ran, waited, _ = map(int, (each / "schedstat").read_text().split())
                state = (each / "stat").read_text().rpartition(")")[2].split()[0]
                found[each.name] = Thread(state == "R", ran, waited)
    return found


WAITS_ARE_TOLD = any(each.ran for each in threads_of("self").values())


class Stopwatch:
    """How long a fork was let run: the time on the clock, less what its threads waited for a processor.

    How busy the machine is isn't its fault. Where the system doesn't tell, all time counts.
    """

    def __init__(self, child: int, limits: Limits) -> None:
        self.child, self.limits = child, limits
        self.began = self.looked = time.monotonic()
        self.next_look = self.began + LOOK_SECONDS
        self.threads: dict[str, Thread] = {}
        self.waited = self.let_run = 0.0
        self.is_late = False
        """Whether there's no time left on the clock, though it wasn't let run for as long as it may."""

    def next(self) -> float:
        """Seconds until it's to be asked again; 0 where the time is over."""
        now = time.monotonic()
        if now >= self.next_look:
            self._look(now)
            self.next_look = now + LOOK_SECONDS
        if self.let_run >= self.limits.seconds:
            return 0.0
        self.is_late = now - self.began >= self.limits.longest
        return 0.0 if self.is_late else self.next_look - now

    def _look(self, now: float) -> None:
        before, self.threads = self.threads, threads_of(self.child) if WAITS_ARE_TOLD else {}
        none = Thread(runnable=False, ran=0, waited=0)
        waits = [each.waited - before.get(name, none).waited for name, each in self.threads.items()]
        self.waited += max(waits, default=0) / 1e9
        # While a thread waits on, it isn't known how long it has. Once none does, all is known up to the look before.
        if not any(each.runnable and each == before.get(name) for name, each in self.threads.items()):
            self.let_run = self.looked - self.began - self.waited
            self.looked = now


def said_in_time(reader: int, stopwatch: Stopwatch, most: int) -> bytes | None:
    """All that a fork writes; None where it's not done in its time, or writes too much."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= most:
        left = stopwatch.next()
        # What it wrote in its time may be seen later.
        if not select.select([reader], [], [], left)[0]:
            if not left:
                return None
            continue
        part = os.read(reader, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return None


def status_at_end(child: int, stopwatch: Stopwatch | None) -> int | None:
    """How a fork ended; None where it had to be ended: without a stopwatch, at once. Nothing of its group is left."""
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and stopwatch is not None and stopwatch.next():
        time.sleep(0.0005)
        ended, status = os.waitpid(child, os.WNOHANG)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return status if ended else None


# A call, seen from inside of its fork.


def run_in_fork(function: Function, arguments: dict[str, Any], limits: Limits, folder: str, writer: int) -> NoReturn:
    """Call a function under limits, write what came of it, and end the process."""
    try:
        set_limits(limits, folder)
        guard = Guard(folder, readable_by_all() if limits.untrusted else None)
        sys.addaudithook(guard)
        # `multiprocessing` starts processes by it, and there's no audit event for that.
        _posixsubprocess.fork_exec = guard.refuse_process
        said = json.dumps(called(function, arguments, limits, guard), ensure_ascii=False).encode()
        while said:
            said = said[os.write(writer, said) :]
    finally:
        os._exit(1)


def set_limits(limits: Limits, folder: str) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limited = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(limits.seconds) + 1,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
    }
    if in_use := memory_in_use():
        limited[resource.RLIMIT_AS] = in_use + limits.memory
    for name, limit in limited.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(name, (limit, limit))
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    tempfile.tempdir = folder
    random.seed(0)


def memory_in_use() -> int:
    """The size of the process's address space; 0 where the system doesn't say it."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


class Guard:
    """An audit hook that refuses what a function may not do, and remembers it: it counts even if it's caught.

    It sees what Python's own functions do, not what a library does in C.
    """

    def __init__(self, folder: str, readable: frozenset[str] | None = None) -> None:
        self.folder = os.path.realpath(folder)
        self.readable = readable
        """The files and folders that may be read besides; None where all may be."""
        self.refused: list[str] = []
        self.files = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self.check_open(*args)
        elif event in CHANGES_FILES:
            for path, folder in CHANGES_FILES[event]:
                self.check_inside(args[path], args[folder] if folder is not None else -1)
        elif event in USES_NETWORK or (event == "socket.__new__" and args[1] != socket.AF_UNIX):
            self.refuse(f"it tried to use the network ({event})")
        elif event in STARTS_PROCESSES:
            self.refuse(f"it tried to start a process ({event})")
        elif event in {"os.kill", "os.killpg"} and args[0] != os.getpid():
            self.refuse("it tried to send a signal to another process")
        elif self.readable is not None and event in {"os.listdir", "os.scandir"}:
            self.check_readable(args[0])
        elif self.readable is not None and (event in LEADS_OUT or (event == "ctypes.dlopen" and args[0])):
            self.refuse(f"it tried to get around Python ({event})")

    def refuse(self, what: str) -> NoReturn:
        self.refused.append(what)
        raise PermissionError(what)

    def refuse_process(self, *_: Any) -> NoReturn:
        self.refuse("it tried to start a process (fork_exec)")

    def check_open(self, path: Any, _mode: Any, flags: int) -> None:
        if isinstance(path, int) or path is None:
            return
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            self.check_inside(path)
            self.files += not Path(os.fsdecode(path)).exists()
            if self.files > MOST_FILES:
                self.refuse(f"it made more than {MOST_FILES} files")
        elif re.match(rf"/proc/(?!{os.getpid()}/)\d+/", os.path.realpath(os.fsdecode(path))):
            self.refuse(f"it tried to read {os.fsdecode(path)!r:.100}, of another process")
        else:
            self.check_readable(path)

    def check_readable(self, path: Any) -> None:
        if self.readable is None or isinstance(path, int) or path is None:
            return
        real = os.path.realpath(os.fsdecode(path))
        if not any(is_within(real, each) for each in (self.folder, *self.readable)):
            self.refuse(f"it tried to read {os.fsdecode(path)!r:.100}")

    def check_inside(self, path: Any, folder: int = -1) -> None:
        """Check a path that is changed, relative to an open folder where there's one."""
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        elif folder != -1:
            path = str(Path(f"/proc/self/fd/{folder}", os.fsdecode(path)))
        real = os.path.realpath(os.fsdecode(path))
        if real != os.devnull and not is_within(real, self.folder):
            self.refuse(f"it tried to write to {os.fsdecode(path)!r:.100}, outside of its working folder")


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it; both without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def readable_by_all() -> frozenset[str]:
    """What Python needs for its imports, and what nobody would keep to himself."""
    own = {sys.prefix, sys.base_prefix, *filter(os.path.exists, sys.path)}
    return frozenset(map(os.path.realpath, own | {os.devnull, "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime"}))


CHANGES_FILES: dict[str, tuple[tuple[int, int | None], ...]] = {
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("os.mkdir", "os.chmod"), ((0, 2),)),
    **dict.fromkeys(("os.chown", "os.utime"), ((0, 3),)),
    **dict.fromkeys(("os.rename", "os.link"), ((0, 2), (1, 3))),
    **dict.fromkeys(("os.truncate", "os.setxattr", "os.removexattr"), ((0, None),)),
    "os.symlink": ((1, 2),),
}
"""Events that change files, and which of their arguments are paths, each with the open folder that it's relative to."""

USES_NETWORK = {
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"),
    *("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
}
STARTS_PROCESSES = {
    *("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"),
}


LEADS_OUT = {"ctypes.dlsym", "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sqlite3.connect"}
"""What leads past the functions of Python that are watched. A database in memory takes in any file, unseen."""


class Printed(io.TextIOBase):
    """Where a function prints to. It keeps nothing, and takes only so much."""

    def __init__(self, guard: Guard, most: int) -> None:
        self.guard, self.left, self.most = guard, most, most

    def write(self, text: str, /) -> int:
        self.left -= len(text)
        if self.left < 0:
            self.guard.refuse(f"it printed more than {self.most} characters")
        return len(text)


def called(function: Function, arguments: dict[str, Any], limits: Limits, guard: Guard) -> Outcome:
    """What came of a call. Whatever it raises is the reason not to keep it, and so is what it was refused."""
    sys.stdout = sys.stderr = Printed(guard, FILE_BYTES)
    try:
        by_position, by_name = checked(function, arguments)
        value = function.call(*by_position, **by_name)
        if inspect.isawaitable(value):
            value = asyncio.run(awaited(value))
        made = as_json(value, limits.result_length)
    except MemoryError:
        made = outcome(False, f"it needed more than {limits.memory // 2**20} MiB of memory")
    except BaseException as error:  # noqa: BLE001 -- a user's function: whatever it raises, an exit too, is the outcome
        made = outcome(False, f"{type(error).__name__}: {error}"[:REASON_LENGTH])
    return outcome(False, guard.refused[0]) if guard.refused else made


async def awaited(value: Awaitable[Any]) -> Any:
    return await value


def as_json(value: Any, most: int) -> Outcome:
    """A result as JSON, or why it can't be kept."""
    if isinstance(value, Iterator):
        return outcome(False, f"the result can't be written as JSON: {type(value).__name__}")
    try:
        text = to_json(value, fallback=plain, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValueError, TypeError) as error:
        return outcome(False, f"the result can't be written as JSON: {error}"[:REASON_LENGTH])
    if len(text) > most:
        return outcome(False, f"the result has {len(text)} characters, more than {most}")
    return outcome(True, text)


def plain(value: Any) -> Any:
    """What JSON has no form for: arrays as lists, odd numbers as text. Raises TypeError."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, numbers.Number):
        return str(value)
    raise TypeError(f"it holds a {type(value).__name__}")


if __name__ == "__main__":
    main()
