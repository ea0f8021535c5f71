"""Function calls in JSON: reading them, and running them against a user's functions to see which of them work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, PrivateAttr

from llms.parameters import short
from llms.root import file_of_project
from tasks.functions.sandbox import Limits, Outcome, Sandbox
from tasks.reading.replies import json_of
from tasks.rows.formatting import Format
from tasks.typing import Columns, Row

MOST_CALLS = 100
"""A row with more calls isn't run: at the time limit for each, it would hold up all others."""


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


def calls_in(value: Any) -> list[Call]:
    """The calls in a list, which may be JSON text: each an object with `name` and `arguments`.

    It takes OpenAI's form as well (`{"type": "function", "function": {"name", "arguments"}}`, with the arguments as
    JSON text), and a single call without a list.

    Raises:
        ValueError: it isn't a list of calls.
    """
    given = json_value(value, "calls") if isinstance(value, str) else value
    items = cast("list[Any]", given) if isinstance(given, list) else [given]
    return [call_in(item) for item in items]


def call_in(value: Any) -> Call:
    """A call, from one of the forms that `calls_in` takes. Raises ValueError."""
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    inner = fields.get("function")
    if isinstance(inner, dict):
        return call_in(inner)
    name = fields.get("name")
    keys = [key for key in ("arguments", "parameters", "args") if key in fields]
    if not isinstance(name, str) or not name or len(keys) != 1:
        raise ValueError(f"expected a call, an object with 'name' and 'arguments', got {short(cast('object', value))}")
    arguments = fields[keys[0]]
    if isinstance(arguments, str):
        arguments = json_value(arguments, f"the arguments of {name!r}")
    if not isinstance(arguments, dict):
        raise ValueError(f"expected the arguments of {name!r} as an object, got {short(cast('object', arguments))}")
    return Call(name, cast("dict[str, Any]", arguments))


def json_value(text: str, what: str) -> Any:
    """Raises ValueError where the text isn't JSON, or has a key twice."""
    try:
        return json_of(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected {what} as JSON ({error}), got {short(text)}") from None


def written_calls(calls: Iterable[Call]) -> str:
    """Calls as rows hold them: JSON text, as a table would give every call the arguments of all. Raises ValueError."""
    plain = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


class APIGenExecutionChecker(Format):
    """Runs the function calls of a row, and marks the row by whether all of them work.

    The functions are your own, in a Python file or a folder of them. Callable are those that a file defines itself
    and whose names have no underscore in front, or those in its `__all__`. A call's arguments are passed as data, after
    a check against the function's signature and annotations. Nothing that a model wrote is run as code.

    The functions run in a process of their own, each call in a fork of it: an empty working folder, an environment
    without this one's variables, no network, no other programs, limits on time, memory, results and files. A call
    that raises, hangs, crashes, takes too much or tries what it may not isn't kept, and its result says why. These are
    limits against accidents and made-up arguments, no jail: offer only functions that a model's arguments can't turn
    against you. A function can still read your files.

    The limit on time counts how long a call runs and sleeps; on Linux, not how long it waits for a processor.

    Rows are marked, not dropped. A function that needs a service or other state can't be checked this way.

    Input columns:
        answers: a list of calls, `{"name": ..., "arguments": {...}}`, as JSON text.

    Output columns:
        keep_row_after_execution_check: whether there are calls, and all of them gave a result.
        execution_result: per call, its result as JSON, or the reason why there's none.

    Source: APIGen: Automated Pipeline for Generating Verifiable and Diverse Function-Calling Datasets
    (https://arxiv.org/abs/2406.18518).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tasks import APIGenExecutionChecker
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "areas.py")
        >>> _ = path.write_text("def area(width: float, height: float) -> float: return width * height")
        >>> checker = APIGenExecutionChecker(libpath=str(path))
        >>> checker.load()
        >>> answers = '[{"name": "area", "arguments": {"width": 2.5, "height": 4}}, {"name": "area", "arguments": {}}]'
        >>> (row,) = next(checker.process([{"answers": answers}]))
        >>> checker.unload()
        >>> folder.cleanup()
        >>> row["keep_row_after_execution_check"]
        False
        >>> row["execution_result"]
        ['10.0', "TypeError: no argument 'width'; the function takes ['width', 'height']"]
    """

    form_first = ("libpath",)
    libpath: Annotated[
        str, Field(min_length=1, title="Functions", description="A Python file, or a folder of Python files.")
    ]
    timeout: Annotated[float, Field(gt=0, title="Seconds", description="How long a call may take.")] = 5.0
    memory_mb: Annotated[
        int, Field(ge=1, title="Memory", description="In MiB, for a call, beyond what the functions hold. On Linux.")
    ] = 512
    max_result_length: Annotated[
        int, Field(ge=1, title="Length of results", description="In characters. A call with a longer one isn't kept.")
    ] = 20_000

    _sandbox: Sandbox | None = PrivateAttr(default=None)

    @property
    def inputs(self) -> Columns:
        return ["answers"]

    @property
    def outputs(self) -> Columns:
        return ["keep_row_after_execution_check", "execution_result"]

    def identity(self) -> dict[str, Any]:
        """With the code of the functions: other functions give other results."""
        return {**super().identity(), "functions": digest_of_files(Path(file_of_project(self.libpath)))}

    def load(self) -> None:
        """Load the functions. Raises SandboxError where they can't be."""
        self._started()

    def _started(self) -> Sandbox:
        limits = Limits(self.timeout, self.memory_mb * 2**20, self.max_result_length)
        sandbox = self._sandbox or Sandbox(file_of_project(self.libpath), limits)
        sandbox.start()
        self._sandbox = sandbox
        return sandbox

    def unload(self) -> None:
        if self._sandbox is not None:
            self._sandbox.stop()
        self._sandbox = None

    def format_row(self, row: Row) -> Row:
        outcomes = self._outcomes(row.get("answers"))
        kept = bool(outcomes) and all(outcome.kept for outcome in outcomes)
        results = [outcome.result for outcome in outcomes] or ["there are no calls"]
        return {"keep_row_after_execution_check": kept, "execution_result": results}

    def _outcomes(self, answers: Any) -> list[Outcome]:
        """What came of a row's calls, or why none was run."""
        try:
            calls = calls_in(answers)
        except ValueError as error:
            return [Outcome(False, f"answers: {error}")]
        if len(calls) > MOST_CALLS:
            return [Outcome(False, f"there are {len(calls)} calls, more than {MOST_CALLS}")]
        sandbox = self._started()
        return [sandbox.call(call.name, call.arguments) for call in calls]


def digest_of_files(path: Path) -> str:
    """A digest of a Python file, or of all in a folder; of none, where there's none."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.is_file() else []
    whole = hashlib.blake2b(digest_size=16)
    for file in files:
        whole.update(f"{file.relative_to(path)}\n".encode() + file.read_bytes())
    return whole.hexdigest()
