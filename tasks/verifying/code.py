"""Solutions in Python verified by tests, run in a process of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, PrivateAttr

from llms.parameters import short
from tasks.base import UnreadableAnswerError
from tasks.functions.sandbox import Limits, Sandbox
from tasks.reading.replies import without_thoughts
from tasks.typing import Row
from tasks.verifying.verdicts import Verdict, Verifier

TESTED_CODE = str(Path(__file__).with_name("tested_code.py"))
LONGEST_TEST = 1_000_000
"""In bytes: of what a program reads, and of what it may print."""
RESULT_LENGTH = 2_000


@dataclass(frozen=True)
class CodeTest:
    """One test: a function of `tested_code`, and what it's called with besides the code."""

    kind: str
    arguments: Row


class VerifyCode(Verifier):
    """Decides by tests whether solutions in Python are right: those that pass all of them are.

    The code of a solution is its last block of Python, or its last one without a language. A solution without one stays
    undecided, and so do all of a row whose tests can't be read or assert nothing. Code that fails a test isn't put to
    the others.

    Tests are

    - Python, as a text or a list of texts: `assert add(1, 2) == 3`, functions `test_...`, or both. They see the names
      of the code, and may import them from `solution`.
    - pairs, `{"input": ..., "output": ...}`: what a program reads from standard input, and what it should print. How
      much space is between words is all one. With `fn_name`, input is the list of a function's arguments, and output
      what it should return, as JSON has it.
    - the same as lists, `{"inputs": [...], "outputs": [...], "fn_name": ...}`, as datasets of competitions have them.

    Each as it is or as JSON text.

    **It runs what a model wrote**: in a process of its own, each test in a fork of it, with an empty working folder,
    none of this one's environment variables, no network, no other programs, no files but those of Python, and limits
    on time, memory and output. That stops accidents and common mischief; it is no jail. Run it where a program that
    gets around Python can do no harm: in a container without secrets. Linux and macOS.

    The limit on time counts how long a test runs and sleeps; on Linux, not how long it waits for a processor, so that
    no code is wrong because the machine is busy. Where a test isn't let run for its time in ten times the limit, or a
    minute more where that's longer, the solution stays undecided.

    Input columns:
        generation: a solution, or a list of them.
        tests (optional): the tests. Without any, nothing is decided.
        correct, verified_by, verification (optional): what verifiers before it decided. It stays.

    Output columns:
        correct: whether the solution passes all tests; None for undecided. Of a list of solutions, a list, as below.
        verified_by: `tests`, where they decided.
        verification: why it isn't right, or isn't decided.

    Example:
        >>> from tasks import VerifyCode
        >>> verifier = VerifyCode()
        >>> row = {"tests": "assert double(4) == 8", "generation": "```python\\ndef double(x): return x + x\\n```"}
        >>> (made,) = next(verifier.process([row]))
        >>> verifier.unload()
        >>> made["correct"], made["verified_by"]
        (True, 'tests')
    """

    form_first = ("timeout", "memory_mb")
    timeout: Annotated[float, Field(gt=0, title="Seconds", description="How long a test may take.")] = 10.0
    memory_mb: Annotated[int, Field(ge=1, title="Memory", description="In MiB, for a test. On Linux.")] = 512

    _sandbox: Sandbox | None = PrivateAttr(default=None)

    @property
    def reference(self) -> str:
        return "tests"

    def load(self) -> None:
        """Start the process. Raises SandboxError where it can't be."""
        self._started()

    def _started(self) -> Sandbox:
        limits = Limits(self.timeout, self.memory_mb * 2**20, RESULT_LENGTH, untrusted=True)
        self._sandbox = sandbox = self._sandbox or Sandbox(TESTED_CODE, limits)
        sandbox.start()
        return sandbox

    def unload(self) -> None:
        if self._sandbox is not None:
            self._sandbox.stop()
        self._sandbox = None

    def verdicts(self, reference: Any, solutions: Sequence[str]) -> list[Verdict]:
        tests = tests_in(reference)
        sandbox = self._started()
        codes = [code_in(solution) for solution in solutions]
        known = {code: verdict_on(code, tests, sandbox) for code in dict.fromkeys(codes) if code is not None}
        return [Verdict(why="it has no Python code") if code is None else known[code] for code in codes]


def verdict_on(code: str, tests: Sequence[CodeTest], sandbox: Sandbox) -> Verdict:
    """The verdict of tests on code. What ends the process of a test doesn't pass it; a busy machine decides nothing."""
    for number, test in enumerate(tests, 1):
        outcome = sandbox.call(test.kind, {"code": code, **test.arguments})
        ended = None if outcome.late else False
        passed, why = json.loads(outcome.result) if outcome.kept else (ended, outcome.result)
        if not passed:
            return Verdict(passed, None if passed is None else "tests", f"test {number} of {len(tests)}: {why}")
    return Verdict(True, "tests")


FENCED = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
PYTHON = frozenset({"python", "python3", "py"})


def code_in(solution: str) -> str | None:
    """The last block of Python in a solution, or the last one without a language; None where it has none."""
    try:
        said = without_thoughts(solution)
    except UnreadableAnswerError:
        return None
    blocks = [(found["language"].lower(), found["code"]) for found in FENCED.finditer(said)]
    codes = [code for language, code in blocks if language in PYTHON]
    codes = codes or [code for language, code in blocks if not language]
    return codes[-1] if codes else None


def tests_in(value: Any) -> list[CodeTest]:
    """The tests in a column. Raises ValueError where there are none, or one can't be read."""
    given = decoded(value)
    if isinstance(given, str):
        tests = [asserting(given)]
    elif isinstance(given, list):
        items = cast("list[Any]", given)
        # Statements one by one, of which later ones may need earlier ones.
        texts = all(isinstance(each, str) for each in items)
        tests = [asserting("\n".join(items))] if texts and items else [pair_in(each) for each in items]
    elif isinstance(given, Mapping):
        tests = list(pairs_in(cast("Row", given)))
    else:
        raise ValueError(f"expected tests, as a text, a list or inputs and outputs, got {short(cast('object', value))}")
    if not tests:
        raise ValueError(f"expected a test or more, got {short(cast('object', value))}")
    return tests


def decoded(value: Any) -> Any:
    """What a column holds, as JSON text or as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def asserting(text: str) -> CodeTest:
    if not text.strip():
        raise ValueError(f"expected a test or more, got {text!r}")
    return CodeTest("asserts", {"test": text})


def pairs_in(fields: Row) -> Iterable[CodeTest]:
    """The tests in inputs and outputs that are listed side by side, or in one pair. Raises ValueError."""
    if not ("inputs" in fields and "outputs" in fields):
        yield pair_in(fields)
        return
    inputs, outputs = (decoded(fields[name]) for name in ("inputs", "outputs"))
    if not (isinstance(inputs, list) and isinstance(outputs, list)):
        raise ValueError(f"expected inputs and outputs as lists, got {short(fields)}")
    given, expected = cast("list[Any]", inputs), cast("list[Any]", outputs)
    if len(given) != len(expected):
        raise ValueError(f"expected as many outputs as inputs, got {len(given)} inputs, {len(expected)} outputs")
    for each, output in zip(given, expected, strict=True):
        yield pair_in({"input": each, "output": output, "fn_name": fields.get("fn_name")}, listed=True)


def pair_in(value: Any, *, listed: bool = False) -> CodeTest:
    """The test that an input and its output are. Raises ValueError.

    Args:
        listed: whether they come from lists, where datasets of competitions put what a function returns into one more.
    """
    fields = cast("Row", value) if isinstance(value, Mapping) else {}
    if not ("input" in fields and "output" in fields):
        raise ValueError(f"expected a test as a text, or with 'input' and 'output', got {short(cast('object', value))}")
    given, expected, function = fields["input"], fields["output"], fields.get("fn_name")
    if function:
        arguments = decoded(given)
        if not isinstance(arguments, list):
            raise ValueError(f"expected the arguments of {function} as a list, got {short(given)}")
        try:
            json.dumps([arguments, expected])
        except (TypeError, ValueError):
            raise ValueError(f"expected arguments and output as JSON has them, got {short(fields)}") from None
        options = {"listed": True} if listed else {}
        return CodeTest("returns", {"function": function, "arguments": arguments, "expected": expected, **options})
    texts = ["\n".join(cast("list[str]", each)) if is_lines(each) else each for each in (given, expected)]
    if not all(isinstance(each, str) and len(each.encode()) < LONGEST_TEST for each in texts):
        raise ValueError(f"expected input and output as texts of less than {LONGEST_TEST:,} bytes, got {short(fields)}")
    return CodeTest("prints", {"given": texts[0], "expected": texts[1]})


def is_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in cast("list[Any]", value))
