"""The process that runs a user's functions: what a call may do, what ends it, and that it ends alone."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.functions.sandbox import Limits, Outcome, Sandbox, SandboxError
from tests.conftest import ROOT, wait_for

LIBRARY = str(ROOT / "tests" / "tasks" / "functions_to_run.py")
LIMITS = Limits(seconds=30.0, memory=64 * 2**20, result_length=1000)
HASTY = replace(LIMITS, seconds=0.3)


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "sk-1234")
        started = Sandbox(LIBRARY, LIMITS)
        yield started
        started.stop()


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    """A sandbox that is as good as new after whatever a test did with it."""
    yield running
    assert running.call("add", {"a": 1}) == Outcome(True, "2")


@pytest.fixture(params=[True, False], ids=["own network namespace", "no network namespace"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with and without the kernel's help against connections."""
    started = Sandbox(LIBRARY, replace(LIMITS, network_namespace=request.param))
    started.start()
    if request.param and not started.isolated:
        started.stop()
        pytest.skip("this system permits no network namespace")
    yield started
    started.stop()


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("add", {"a": 1}, 2),
        ("add", {"a": 1, "b": 10**30}, 10**30 + 1),
        ("scaled", {"values": [1, 2.5], "factor": None}, [1.0, 2.5]),
        ("scaled", {"values": [], "factor": 2}, []),
        ("days_until", {"day": "2024-02-29", "unit": "weeks"}, 8),
        (
            "moved",
            {"point": {"x": 1, "y": 2}, "note": "ü"},
            {"point": {"x": 2.0, "y": 2.0}, "colour": "red", "note": "ü"},
        ),
        ("untyped", {"value": {"any": ["thing"]}}, {"any": ["thing"]}),
        ("unresolvable", {"value": 1}, 1),
        ("slowly", {"value": 7}, 7),
    ],
)
def test_a_function_gets_its_arguments_as_its_annotations_say(
    sandbox: Sandbox, name: str, arguments: dict[str, Any], result: Any
) -> None:
    outcome = sandbox.call(name, arguments)

    assert outcome.kept, outcome.result
    assert json.loads(outcome.result) == result


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("add", {"a": "1"}, "TypeError: argument a: Input should be a valid integer, got '1'"),
        ("add", {"a": 1.5}, "TypeError: argument a: Input should be a valid integer, got 1.5"),
        ("add", {"a": True}, "TypeError: argument a: Input should be a valid integer, got True"),
        ("add", {"a": None}, "TypeError: argument a: Input should be a valid integer, got None"),
        ("add", {"a": "__import__('os').system('true')"}, "TypeError: argument a: Input should be a valid integer"),
        ("add", {}, "TypeError: no argument 'a'; the function takes ['a', 'b']"),
        ("add", {"a": 1, "c": 2}, "TypeError: unknown argument 'c'; the function takes ['a', 'b']"),
        ("scaled", {"values": [1, "x"]}, "TypeError: argument values.1: Input should be a valid number, got 'x'"),
        ("days_until", {"day": "2024-02-30"}, "TypeError: argument day: Input should be a valid date"),
        ("days_until", {"day": "2024-02-29", "unit": "years"}, "TypeError: argument unit: Input should be 'days' or"),
        ("moved", {"point": {"x": 1}}, "TypeError: argument point.y: Field required"),
    ],
)
def test_arguments_that_dont_fit_are_told_and_the_function_isnt_called(
    sandbox: Sandbox, name: str, arguments: dict[str, Any], reason: str
) -> None:
    outcome = sandbox.call(name, arguments)

    assert not outcome.kept
    assert outcome.result.startswith(reason)


@pytest.mark.parametrize("name", ["system", "_private", "Path", "NoSuchType", "", "os.system", "__import__"])
def test_only_the_public_functions_of_the_file_can_be_called(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.call(name, {})

    assert not outcome.kept
    assert outcome.result.startswith(f"there is no function {name!r}; there are add,")


def test_results_come_back_as_json(sandbox: Sandbox) -> None:
    assert sandbox.call("of_every_type", {}) == Outcome(
        True, '["1.5","2024-02-29",["a"],[1,null],"red",Infinity,"x","1j"]'
    )


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("fails", {}, "ValueError: no such city"),
        ("fails_oddly", {}, "ValueError: ?"),
        ("leaves", {}, "SystemExit: 2"),
        ("recurses", {}, "RecursionError: maximum recursion depth exceeded"),
        ("opaque", {}, "the result can't be written as JSON"),
        ("endless", {}, "the result can't be written as JSON: generator"),
        ("long", {"count": 1000}, "the result has 1002 characters, more than 1000"),
        ("long", {"count": 10_000_000}, "the result has 10000002 characters, more than 1000"),
        ("prints_without_end", {}, "it printed more than 1000000 characters"),
        ("takes_memory", {"count": 10**9}, "it needed more than 64 MiB of memory"),
        ("crashes", {}, "its process was killed by SIGSEGV"),
        ("ends_at_once", {}, "its process ended without a result (exit status 3)"),
        ("kills_itself", {}, "its process was killed by SIGKILL"),
        ("kills_its_parent", {}, "it ended the process that runs the functions"),
        ("signals_its_parent", {}, "it tried to send a signal to another process"),
        ("writes_here", {"count": 2_000_000}, "OSError: [Errno 27] File too large"),
        ("opens_many", {}, "OSError: [Errno 24] Too many open files"),
        ("starts_a_program", {}, "it tried to start a process (subprocess.Popen)"),
        ("spawns", {}, "it tried to start a process (fork_exec)"),
        ("writes_many", {"count": 101}, "it made more than 100 files"),
        ("uses_a_shell", {}, "it tried to start a process (os.system)"),
        ("reads_its_parent", {}, "it tried to read"),
    ],
)
def test_a_call_that_goes_wrong_isnt_kept_and_says_why(
    sandbox: Sandbox, name: str, arguments: dict[str, Any], reason: str
) -> None:
    outcome = sandbox.call(name, arguments)

    assert not outcome.kept
    assert outcome.result.startswith(reason)


def test_a_call_that_hangs_ends_at_its_limit_and_costs_only_itself() -> None:
    hasty = Sandbox(LIBRARY, HASTY)
    hasty.start()
    for name in ("hangs", "spins", "closes_everything", "moves_away"):
        assert hasty.call(name, {}) == Outcome(False, "it took longer than 0.3 s")

    hasty.stop()


def test_what_a_call_may_take_it_gets(sandbox: Sandbox) -> None:
    assert sandbox.call("takes_memory", {"count": 10**7}).kept
    assert sandbox.call("long", {"count": 998}).kept
    assert sandbox.call("writes_here", {"count": 10}) == Outcome(True, '["mine.txt"]')
    assert sandbox.call("writes_many", {"count": 100}).kept
    assert sandbox.call("clears_up", {}) == Outcome(True, "[]")


@pytest.mark.parametrize("name", ["writes", "writes_unseen", "links_and_writes", "links_there", "copies"])
def test_writing_outside_of_the_working_folder_is_refused_also_if_the_function_hides_it(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "written.txt"

    outcome = sandbox.call(name, {"path": str(path)})

    assert not outcome.kept
    assert "outside of its working folder" in outcome.result
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["writes", "removes", "renames", "removes_a_tree", "copies", "links_here"])
def test_a_file_of_the_users_stays_as_it_is(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("kept")

    outcome = sandbox.call(name, {"path": str(path)})

    assert not outcome.kept
    assert path.read_text() == "kept"


@pytest.mark.parametrize("name", ["connects", "connects_by_number"])
def test_a_connection_is_refused_with_and_without_a_network_namespace(either: Sandbox, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        outcome = either.call(name, {"port": server.getsockname()[1]})

        assert not outcome.kept
        assert outcome.result.startswith("it tried to use the network")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("name", ["reads", "lists", "links_and_reads"])
def test_untrusted_functions_cant_read_the_users_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("sk-1234")
    trusted, untrusted = (Sandbox(LIBRARY, replace(LIMITS, untrusted=each)) for each in (False, True))

    assert "s" in trusted.call(name, {"path": str(path)}).result
    outcome = untrusted.call(name, {"path": str(path)})

    assert not outcome.kept
    assert outcome.result.startswith("it tried to read '")
    trusted.stop()
    untrusted.stop()


@pytest.mark.parametrize("name", ["looks_up_in_c", "loads_c", "finds_the_guard"])
def test_untrusted_functions_cant_get_around_python(name: str) -> None:
    untrusted = Sandbox(LIBRARY, replace(LIMITS, untrusted=True))

    outcome = untrusted.call(name, {})

    assert not outcome.kept
    assert outcome.result.startswith("it tried to get around Python (")
    untrusted.stop()


def test_untrusted_functions_can_use_the_standard_library_and_their_own_files() -> None:
    untrusted = Sandbox(LIBRARY, replace(LIMITS, untrusted=True))

    assert untrusted.call("imports", {}) == Outcome(True, '"Europe/Berlin"')
    assert untrusted.call("writes_here", {"count": 10}) == Outcome(True, '["mine.txt"]')
    untrusted.stop()


def test_a_library_in_c_finds_no_network_where_there_is_a_namespace(sandbox: Sandbox) -> None:
    sandbox.call("add", {"a": 1})
    if not sandbox.isolated:
        pytest.skip("this system permits no network namespace")
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = sandbox.call("connects_in_c", {"port": server.getsockname()[1]})

    assert json.loads(outcome.result) == [-1, "Network is unreachable"]


def test_a_process_that_ended_between_calls_costs_no_call() -> None:
    sandbox = Sandbox(LIBRARY, LIMITS)
    sandbox.start()
    assert sandbox._process is not None
    sandbox._process.kill()
    sandbox._process.wait()

    assert sandbox.call("add", {"a": 1}) == Outcome(True, "2")
    sandbox.stop()


def test_a_sandbox_that_travels_starts_a_process_of_its_own(sandbox: Sandbox) -> None:
    sandbox.call("add", {"a": 1})

    other = pickle.loads(pickle.dumps(sandbox))

    assert other.call("add", {"a": 2}) == Outcome(True, "3")
    other.stop()


def test_nothing_of_this_environment_is_seen(sandbox: Sandbox) -> None:
    seen = json.loads(sandbox.call("environment", {}).result)

    assert "A_SECRET" not in seen
    assert not any("KEY" in name or "TOKEN" in name for name in seen)


@pytest.mark.parametrize("name", ["remember", "drawn", "letters"])
def test_a_call_starts_from_the_same_state_every_time(sandbox: Sandbox, name: str) -> None:
    first = sandbox.call(name, {})
    other = Sandbox(LIBRARY, LIMITS)

    assert sandbox.call(name, {}) == other.call(name, {}) == first
    other.stop()


def test_nothing_is_left_of_a_call_or_of_the_process() -> None:
    hasty = Sandbox(LIBRARY, HASTY)
    hasty.start()
    started = hasty._finalizer.peek()  # pyright: ignore[reportPrivateUsage] -- it knows the folder
    assert started is not None
    folder = Path(started[2][1])
    hasty.call("hangs", {})
    hasty.call("writes_here", {"count": 1})

    assert folder.exists()
    assert list(folder.iterdir()) == []
    hasty.stop()
    assert not folder.exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_the_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import os, sys; from tasks.functions.sandbox import Limits, Sandbox\n"
        f"sandbox = Sandbox({LIBRARY!r}, Limits(30.0, 2**26, 1000)); sandbox.start()\n"
        "print(sandbox._process.pid, flush=True); sys.stdin.read()"
    )
    started = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout is not None
    process = Path("/proc", started.stdout.readline().decode().strip())
    assert process.exists()

    started.kill()
    started.wait()

    wait_for(lambda: not is_running(process), what="the end of the process", pause=0.02)


def is_running(process: Path) -> bool:
    """Whether a process is there and no zombie, which is what it stays where nobody waits for it."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("files", "functions"),
    [
        ({"one.py": "def f(): return 1\ndef g(): return 2"}, ["f", "g"]),
        (
            {
                "f.py": "def f(): return 1",
                "g.py": "from _help import two\ndef g(): return two()",
                "_help.py": "def two(): return 2",
            },
            ["f", "g"],
        ),
        ({"one.py": "from json import loads\n__all__ = ['loads']\ndef f(): ..."}, ["loads"]),
        ({"math.py": "def sqrt(x: float): return x ** 0.5", "random.py": "def f(): ..."}, ["f", "sqrt"]),
        ({"one.py": "print('x' * 100_000)\ndef f(): ..."}, ["f"]),
    ],
    ids=["a file", "a folder", "__all__", "names of the standard library", "printing when it's loaded"],
)
def test_functions_are_those_of_a_file_or_of_a_folder(
    tmp_path: Path, files: dict[str, str], functions: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    sandbox = Sandbox(str(tmp_path / "one.py" if "one.py" in files else tmp_path), LIMITS)

    sandbox.start()

    assert sandbox.functions == functions
    assert sandbox.call(
        functions[0], {"x": 4} if functions[0] == "sqrt" else {"s": "1"} if functions[0] == "loads" else {}
    ).kept
    sandbox.stop()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has no functions"),
        ({"one.py": "x = 1"}, "has no functions"),
        ({"one.py": "def f(:"}, "one.py can't be imported: SyntaxError"),
        ({"one.py": "import no_such_module"}, "one.py can't be imported: ModuleNotFoundError"),
        ({"one.py": "def f(): ...", "two.py": "def f(): ..."}, "two.py defines 'f', and so does another file"),
        ({"one.py": "import os; os._exit(1)"}, "the process that loads the functions ended"),
        ({"one.py": "raise SystemExit"}, "the process that loads the functions ended"),
    ],
    ids=["an empty folder", "no functions", "not Python", "a module missing", "doubled", "an exit", "SystemExit"],
)
def test_functions_that_cant_be_loaded_are_an_error_at_the_start(
    tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(SandboxError, match=f"libpath: .*{reason}"):
        Sandbox(str(tmp_path), LIMITS).start()


def test_a_path_where_nothing_is_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="there's no '.*nowhere.py'"):
        Sandbox(str(tmp_path / "nowhere.py"), LIMITS).start()
