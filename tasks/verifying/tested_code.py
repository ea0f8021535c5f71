"""A solution's code, put to a test. The sandbox loads it: it imports nothing of the project.

Each function gives whether the code passes, and why it doesn't; None for whether, where the test itself says nothing.
"""

from __future__ import annotations

import ast
import atexit
import io
import json
import os
import sys
import tempfile
import threading
import traceback
from types import ModuleType
from typing import Any, TypeAlias

__all__ = ["asserts", "prints", "returns"]

Result: TypeAlias = tuple[bool | None, str]

LONGEST = 200
"""Characters that are shown of a value."""
RUN = "_assert_is_run"


def asserts(code: str, test: str) -> Result:
    """Whether code passes a test in Python: statements with `assert`, and functions `test_...`.

    The test sees the names of the code, and can import them from `solution`.
    """
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, f"the test is no Python ({error})"
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]
    fixtures = [each.name for each in functions if takes_arguments(each.args)]
    if fixtures:
        return None, f"the test's {fixtures[0]} takes arguments, which only pytest would give it"
    asserted = Asserted()
    try:
        whole = compile(ast.fix_missing_locations(asserted.visit(tree)), "<test>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, f"the test is no Python ({error})"
    try:
        names: dict[str, Any] = {**vars(module_of(code, "solution")), "__name__": "test", RUN: asserted.note}
        exec(whole, names)
        for function in functions:
            names[function.name]()
    except BaseException as error:  # noqa: BLE001 -- a model wrote it: an exit or an interrupt that it raises fails the test as well
        if isinstance(error, ModuleNotFoundError) and imported_by(error) == "<test>":
            return None, f"the test can't be run here: {error}"
        return False, told(error, test)
    return (True, "") if asserted.run else (None, "no assert of the test was run")


def takes_arguments(arguments: ast.arguments) -> bool:
    """Whether a function can't be called without any."""
    by_position = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return by_position > 0 or None in arguments.kw_defaults


def imported_by(error: ImportError) -> str:
    """The file whose `import` failed."""
    files = [each.filename for each in traceback.extract_tb(error.__traceback__)]
    return next((each for each in reversed(files) if not each.startswith("<frozen importlib")), "")


class Asserted(ast.NodeTransformer):
    """Has every `assert` say that it's run: a test that asserts nothing says nothing."""

    run = False

    def note(self) -> None:
        self.run = True

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        return [ast.copy_location(ast.parse(f"{RUN}()").body[0], node), node]


def prints(code: str, given: str, expected: str) -> Result:
    """Whether code, as a program that reads `given`, prints `expected`. How much space is between words is all one."""
    with tempfile.TemporaryFile() as read, tempfile.TemporaryFile() as written:
        try:
            read.write(given.encode())
            read.seek(0)
        except OSError as error:
            return None, f"the test's input can't be given ({error})"
        os.dup2(read.fileno(), 0)
        os.dup2(written.fileno(), 1)
        sys.stdin, sys.stdout = io.TextIOWrapper(io.FileIO(0)), io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
        # What was registered before isn't the program's.
        atexit._clear()  # pyright: ignore[reportPrivateUsage] -- nothing public does it
        try:
            try:
                module_of(code, "__main__")
            finally:
                # As at the end of any program: threads are waited for, and what it registered is done.
                end_of_process()
                sys.stdout.flush()
        except SystemExit as end:
            if end.code not in {None, 0}:
                return False, f"it ended with the exit status {end.code!r:.{LONGEST}}"
        except BaseException as error:  # noqa: BLE001 -- a model wrote it: what it raises fails the test
            return False, told(error)
        written.seek(0)
        said = written.read().decode("utf-8", "replace")
    if words(said) == words(expected):
        return True, ""
    return False, f"expected {expected.strip()!r:.{LONGEST}}, it printed {said.strip()!r:.{LONGEST}}"


def end_of_process() -> None:
    """What Python does when a program is through: nothing public does that, and ends no process."""
    threading._shutdown()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]


def words(text: str) -> list[list[str]]:
    """The words by lines; lines without any at the end don't count."""
    return [line.split() for line in text.rstrip().splitlines()]


def returns(code: str, function: str, arguments: list[Any], expected: Any, *, listed: bool = False) -> Result:
    """Whether a function of the code, or of its class `Solution`, returns `expected`, as JSON has it.

    Args:
        listed: whether `expected` may be a list of the one value that is returned.
    """
    try:
        module = module_of(code, "solution")
        owner = module.Solution() if hasattr(module, "Solution") and not hasattr(module, function) else module
        value = getattr(owner, function)(*arguments)
        said = json.dumps(value)
    except BaseException as error:  # noqa: BLE001 -- a model wrote it: what it raises fails the test
        return False, told(error)
    returned = json.loads(said)
    if returned == expected or (listed and [returned] == expected):
        return True, ""
    return False, f"expected {function} to return {json.dumps(expected):.{LONGEST}}, it returned {said:.{LONGEST}}"


def module_of(code: str, name: str) -> ModuleType:
    """The module that the code makes, by which it's known to its own imports. Raises whatever the code does."""
    sys.modules[name] = module = ModuleType(name)
    exec(compile(code, "<solution>", "exec"), vars(module))
    return module


def told(error: BaseException, test: str = "") -> str:
    """What an error says; of a failed `assert` without a message, the line."""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == "<test>"]
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, AssertionError) and not str(error) and lines and lines[-1]:
        text = test.splitlines()[lines[-1] - 1].strip()
    return text[:LONGEST]
