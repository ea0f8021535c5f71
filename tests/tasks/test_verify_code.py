"""Code, put to tests: every form of them, code that is right and wrong, and code that does what it may not."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks import APIGenExecutionChecker, VerifyAnswer, VerifyCode
from tasks.typing import Row
from tests.conftest import DATA, LONGEST, wait_for

waits_are_told = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system doesn't tell waits")


@pytest.fixture(scope="module")
def verifier() -> Iterator[VerifyCode]:
    """Patient: the machine may be busy."""
    step = VerifyCode(timeout=LONGEST)
    yield step
    step.unload()


def verified(step: VerifyCode, tests: Any, generation: Any, **more: Any) -> Row:
    (row,) = next(step.process([{"tests": tests, "generation": generation, **more}]))
    return row


def fenced(code: str, language: str = "python") -> str:
    return f"This is how:\n\n```{language}\n{code}\n```\nThat's it."


LIBRARY = str(DATA / "everyday_functions.py")
ADD = "def add(a, b):\n    return a + b"
SUM = "print(sum(map(int, input().split())))"
PAIRS = [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5", "output": "9"}]

FORMS: dict[str, tuple[Any, str]] = {
    "asserts": ("assert add(1, 2) == 3\nassert add(0, 0) == 0", ADD),
    "a list of asserts": (["x = add(1, 2)", "assert x == 3"], ADD),
    "the same as JSON": (json.dumps(["assert add(1, 2) == 3"]), ADD),
    "functions": ("def test_it():\n    assert add(1, 2) == 3", ADD),
    "an import": ("from solution import add\n\ndef test_it():\n    assert add(1, 2) == 3", ADD),
    "pairs": (PAIRS, SUM),
    "a pair": (PAIRS[0], SUM),
    "pairs as JSON": (json.dumps(PAIRS), SUM),
    "inputs and outputs": ({"inputs": ["1 2", "4 5"], "outputs": ["3", "9"]}, SUM),
    "lists of lines": ({"inputs": [["1 2", "9"]], "outputs": [["3"]], "fn_name": None}, SUM),
    "calls": ({"inputs": [[1, 2], [4, 5]], "outputs": [3, 9], "fn_name": "add"}, ADD),
    "calls of a class": (
        {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"},
        "class Solution:\n    def add(self, a, b):\n        return a + b",
    ),
    "calls whose results are in lists": ({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}, ADD),
    "a tuple for a list": ([{"input": [1], "output": [1, 1], "fn_name": "two"}], "def two(x):\n    return x, x"),
}


@pytest.mark.parametrize(("tests", "code"), FORMS.values(), ids=FORMS)
def test_tests_are_taken_in_every_form(verifier: VerifyCode, tests: Any, code: str) -> None:
    right, wrong = verified(verifier, tests, fenced(code)), verified(verifier, tests, fenced("add = two = None"))

    assert (right["correct"], right["verified_by"], right["verification"]) == (True, "tests", None)
    assert (wrong["correct"], wrong["verified_by"]) == (False, "tests")


PROGRAMS = {
    "a main function": "def main():\n    print(*input().split())\nif __name__ == '__main__':\n    main()",
    "an exit": "print(input())\nexit()",
    "the file 0": "print(open(0).read())",
    "bytes": "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())",
    "the system's calls": "import os\nos.write(1, os.read(0, 100))",
    "other spaces": "print('  1   2  \\n\\n')",
    "a thread": "import threading\nthreading.Thread(target=lambda: print(input())).start()",
    "what is left for the end": "import atexit\natexit.register(print, 1, 2)",
    "a data class": "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\nprint(A(1).x, 2)",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_may_read_and_print_in_every_way(verifier: VerifyCode, code: str) -> None:
    assert verified(verifier, {"input": "1 2\n", "output": "1 2"}, fenced(code))["correct"] is True


WRONG = {
    "another result": ("def add(a, b):\n    return a - b", "test 1 of 1: assert add(1, 2) == 3"),
    "no such name": ("x = 1", "NameError: name 'add' is not defined"),
    "no Python": ("def add(a, b:", "SyntaxError: "),
    "an error": ("def add(a, b):\n    raise KeyError('a')", "KeyError: 'a'"),
    "an exit at once": ("raise SystemExit", "SystemExit"),
    "an exit past Python": ("import os\nos._exit(0)", "its process ended without a result"),
    "a crash": ("import ctypes\nctypes.string_at(0)", ""),
    "endless recursion": ("def add(a, b):\n    return add(a, b)", "RecursionError"),
    "too much memory": ("x = 'a' * 10**10", "MemoryError"),
    "a fork": ("import os\nos.fork()", "it tried to start a process"),
    "a fork that is hidden": (
        "import os\ntry:\n    os.fork()\nexcept BaseException:\n    pass\n" + ADD,
        "to start a process",
    ),
    "processes": ("import multiprocessing\nmultiprocessing.Pool(2)", "it tried to start a process"),
    "a program": ("import subprocess\nsubprocess.run('ls')", "it tried to start a process"),
    "a connection": ("import socket\nsocket.create_connection(('127.0.0.1', 1))", "it tried to use the network"),
    "a look around": ("import os\nos.listdir('/')", "it tried to read '/'"),
    "a database": ("import sqlite3\nsqlite3.connect(':memory:')", "it tried to get around Python"),
    "a way past Python": ("import ctypes\nctypes.CDLL(None).system(b'ls')", "it tried to get around Python"),
}


@pytest.mark.parametrize(("code", "why"), WRONG.values(), ids=WRONG)
def test_code_that_fails_or_does_what_it_may_not_is_wrong_and_says_why(
    verifier: VerifyCode, code: str, why: str
) -> None:
    row = verified(verifier, "assert add(1, 2) == 3", fenced(code))

    assert (row["correct"], row["verified_by"]) == (False, "tests")
    assert why in row["verification"]


def test_a_users_files_are_neither_read_nor_written(verifier: VerifyCode, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("sk-1234")
    codes = [f"raise ValueError(open({str(secret)!r}).read())", f"open({str(secret)!r}, 'w').write('gone')"]

    row = verified(verifier, "assert True", [fenced(code) for code in codes])

    assert row["correct"] == [False, False]
    assert "sk-1234" not in str(row["verification"])
    assert secret.read_text() == "sk-1234"


def test_code_that_never_ends_is_stopped_and_costs_only_itself() -> None:
    hasty = VerifyCode(timeout=0.5)
    endless = ["while True:\n    pass", "import time\ntime.sleep(1000)", "while True:\n    print('x' * 1000)"]

    def correct(*solutions: str) -> list[bool]:
        row = verified(hasty, {"input": "", "output": "1"}, list(map(fenced, solutions)))
        assert row["correct"][0] or row["verification"][0] == "test 1 of 1: it took longer than 0.5 s"
        return row["correct"]

    assert correct(*endless, "print(1)")[:3] == [False] * 3
    # A slow machine may need longer for any program.
    wait_for(lambda: correct("print(1)") == [True], what="a program in time", pause=0.02)
    hasty.unload()


@contextmanager
def starved(step: VerifyCode) -> Iterator[None]:
    """Has eight others busy on the one processor that a step's process may use."""
    step.load()
    assert step._sandbox is not None and step._sandbox._process is not None
    processor = min(os.sched_getaffinity(0))
    os.sched_setaffinity(step._sandbox._process.pid, {processor})
    busy = f"import os\nos.sched_setaffinity(0, {{{processor}}})\nprint(flush=True)\nwhile True: pass"
    # In a session each: the scheduler may divide time by sessions.
    others = [
        subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, start_new_session=True) for _ in range(8)
    ]
    try:
        for each in others:
            assert each.stdout is not None and each.stdout.readline()
        yield
    finally:
        for each in others:
            each.kill()
            each.communicate()


@pytest.mark.slow
@waits_are_told
def test_right_code_that_is_starved_of_the_processor_is_right() -> None:
    step = VerifyCode(timeout=1.0)
    needs_half = "import time\nwhile time.process_time() < 0.5:\n    pass\nprint(1)"
    in_a_thread = "import threading\ndef main():\n    " + needs_half.replace("\n", "\n    ")
    in_a_thread += "\nthreading.Thread(target=main).start()"

    with starved(step):
        row = verified(step, {"input": "", "output": "1"}, [fenced(needs_half), fenced(in_a_thread)])
    step.unload()

    assert row["verification"] == [None, None]
    assert row["correct"] == [True, True]


@waits_are_told
def test_code_that_never_ends_is_wrong_also_where_it_is_starved_of_the_processor() -> None:
    step = VerifyCode(timeout=0.3)
    endless = ["while True:\n    pass", "import time\ntime.sleep(1000)"]

    with starved(step):
        row = verified(step, {"input": "", "output": "1"}, list(map(fenced, endless)))
    step.unload()

    assert row["verification"] == ["test 1 of 1: it took longer than 0.3 s"] * 2
    assert row["correct"] == [False, False]


@waits_are_told
def test_code_that_isnt_let_run_for_its_time_stays_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.functions.sandbox.STARVED_TIMES", 1.0)
    monkeypatch.setattr("tasks.functions.sandbox.STARVED_SECONDS", 0.0)
    step = VerifyCode(timeout=1.0)

    with starved(step):
        row = verified(step, {"input": "", "output": "1"}, fenced("while True:\n    pass"))
    step.unload()

    assert (row["correct"], row["verified_by"]) == (None, None)
    assert row["verification"] == "test 1 of 1: in 1 s it wasn't let run for 1 s: the machine is too busy"


def test_code_that_fails_a_test_isnt_put_to_the_others(verifier: VerifyCode) -> None:
    row = verified(verifier, PAIRS, fenced("print(3)"))

    assert row["verification"] == "test 2 of 2: expected '9', it printed '3'"


UNDECIDED: dict[str, tuple[Any, Any, str]] = {
    "no code": ("assert True", "Add them, that's all.", "it has no Python code"),
    "another language": ("assert True", fenced("int main() {}", "cpp"), "it has no Python code"),
    "a block that is cut off": ("assert True", "```python\nprint(1)", "it has no Python code"),
    "no solution": ("assert True", None, "there is no solution"),
    "tests that are no Python": ("assert add(1, 2", fenced(ADD), "the test is no Python"),
    "tests that assert nothing": (
        "def check(f):\n    assert f(1, 2) == 3",
        fenced(ADD),
        "no assert of the test was run",
    ),
    "blank tests": ("  ", fenced(ADD), "expected a test or more"),
    "no tests in a list": ([], fenced(ADD), "expected a test or more"),
    "a number": (3, fenced(ADD), "expected tests, as a text, a list or inputs and outputs, got 3"),
    "tests that can't be compiled": ("return add(1, 2) == 3", fenced(ADD), "the test is no Python"),
    "tests that need what isn't here": ("import no_such_thing\nassert True", fenced(ADD), "can't be run here"),
    "tests that pytest gives arguments": ("def test_it(case):\n    assert case", fenced(ADD), "takes arguments"),
    "a result that JSON hasn't": (
        {"input": [1, 2], "output": date(2026, 1, 1), "fn_name": "add"},
        fenced(ADD),
        "as JSON has them",
    ),
    "a test without output": ([{"input": "1"}], fenced(ADD), "expected a test as a text, or with 'input' and 'output'"),
    "lists that don't fit": ({"inputs": ["1"], "outputs": []}, fenced(ADD), "as many outputs as inputs"),
    "a test that is too long": ({"input": "1" * 2_000_000, "output": ""}, fenced(SUM), "less than 1,000,000 bytes"),
}


@pytest.mark.parametrize(("tests", "generation", "why"), UNDECIDED.values(), ids=UNDECIDED)
def test_what_tests_cant_tell_stays_undecided_and_says_why(
    verifier: VerifyCode, tests: Any, generation: Any, why: str
) -> None:
    row = verified(verifier, tests, generation)

    assert (row["correct"], row["verified_by"]) == (None, None)
    assert why in row["verification"]


CHOSEN = {
    "the last block of Python": f"{fenced('add = None')}\nBetter:\n{fenced(ADD)}",
    "Python rather than output": f"{fenced(ADD)}\nIt prints:\n{fenced('3', '')}",
    "a block without a language": fenced(ADD, ""),
    "a language by another name": fenced(ADD, "py"),
    "a block with a title": fenced(ADD, "python title=add.py"),
    "tildes": fenced(ADD).replace("```", "~~~"),
    "a block with a fence in it": f"````python\nTEXT = '''\n```\n'''\n{ADD}\n````",
    "what comes after the thoughts": f"<think>{fenced('add = None')}</think>{fenced(ADD)}",
}


@pytest.mark.parametrize("generation", CHOSEN.values(), ids=CHOSEN)
def test_the_code_of_a_solution_is_found(verifier: VerifyCode, generation: str) -> None:
    assert verified(verifier, "assert add(1, 2) == 3", generation)["correct"] is True


@pytest.mark.parametrize("step", [VerifyCode(), VerifyAnswer(), APIGenExecutionChecker(libpath=LIBRARY)])
def test_a_step_with_a_sandbox_can_be_sent_to_another_process(step: Any) -> None:
    step.load()

    other = pickle.loads(pickle.dumps(step))

    assert other.identity() == step.identity()
    step.unload()
    other.unload()


def test_what_was_decided_before_stays_and_a_row_without_tests_is_left_alone(verifier: VerifyCode) -> None:
    before = {"correct": [True, None], "verified_by": ["answer", None], "verification": [None, "in words"]}
    codes = [fenced("add = None"), fenced(ADD)]

    assert verified(verifier, "", codes, **before) == {"tests": "", "generation": codes, **before}
    assert verified(verifier, "assert add(1, 2) == 3", codes, **before)["verified_by"] == ["answer", "tests"]
