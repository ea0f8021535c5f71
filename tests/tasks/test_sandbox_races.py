"""A process that runs functions and is late, as on a machine that is busy: it isn't taken for one that ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from tasks.functions.sandbox import Limits, Outcome, Sandbox, SandboxError, SandboxLateError
from tasks.verifying.verdicts import Verdict, Verifier
from tests.conftest import LONGEST, ROOT

LIBRARY = str(ROOT / "tests" / "tasks" / "functions_to_run.py")
LIMITS = Limits(seconds=LONGEST, memory=64 * 2**20, result_length=1000)


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Functions that don't load in time."""
    path = tmp_path / "slow.py"
    path.write_text(f"import time\ntime.sleep({LONGEST})\n")
    monkeypatch.setattr("tasks.functions.sandbox.START_SECONDS", 0.1)
    return str(path)


class Slow(Verifier):
    """Has a process that doesn't start in time, or doesn't start at all."""

    libpath: str
    _sandbox: Sandbox | None = PrivateAttr(default=None)

    @property
    def reference(self) -> str:
        return "tests"

    def verdicts(self, reference: Any, solutions: Sequence[str]) -> list[Verdict]:
        self._sandbox = self._sandbox or Sandbox(self.libpath, LIMITS)
        self._sandbox.start()
        raise AssertionError("it started")


def test_a_call_whose_answer_is_late_says_nothing_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(LIBRARY, Limits(0.3, LIMITS.memory, LIMITS.result_length))
    sandbox.start()
    assert sandbox._process is not None
    os.kill(sandbox._process.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.functions.sandbox.GRACE_SECONDS", 0.0)
        patch.setattr("tasks.functions.sandbox.STARVED_TIMES", 1.0)
        patch.setattr("tasks.functions.sandbox.STARVED_SECONDS", 0.0)

        why = "the process that runs the functions didn't answer within 0.3 s"
        assert sandbox.call("add", {"a": 1}) == Outcome(False, why, late=True)

    sandbox.limits = LIMITS
    assert sandbox.call("add", {"a": 1}) == Outcome(True, "2")
    sandbox.stop()


def test_functions_that_dont_load_in_time_are_told_apart_from_a_process_that_ended(slow: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxLateError, match=r"libpath: the process .* took longer than 0\.1 s"):
        Sandbox(slow, LIMITS).start()


def test_a_process_that_ends_as_it_loads_the_functions_isnt_late(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)\n")

    with pytest.raises(SandboxError, match="the process that loads the functions ended") as raised:
        Sandbox(str(tmp_path / "ends.py"), LIMITS).start()

    assert not isinstance(raised.value, SandboxLateError)


def test_a_verifier_whose_process_is_slow_to_start_leaves_solutions_undecided_and_fails_no_row(slow: str) -> None:
    rows = [{"tests": "assert True", "generation": ["one", "two"]}, {"tests": "", "generation": ["three"]}]

    first, second = next(Slow(libpath=slow).process(rows))

    assert first["correct"] == [None, None] and first["verified_by"] == [None, None]
    assert all("took longer than 0.1 s" in why for why in first["verification"])
    assert second["verification"] == [None]


def test_a_verifier_whose_process_cant_be_started_at_all_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="there's no"):
        next(Slow(libpath=str(tmp_path / "nowhere.py")).process([{"tests": "assert True", "generation": "one"}]))


def test_a_verifier_whose_process_never_starts_in_time_ends_the_run_before_each_row_waits_for_it(slow: str) -> None:
    rows = [{"tests": "assert True", "generation": ["one"]} for _ in range(3)]

    verifier = Slow(libpath=slow)

    with pytest.raises(SandboxError, match="took longer than"):
        next(verifier.process(rows))
    # Nor does who tries again begin to wait for each.
    with pytest.raises(SandboxError, match="took longer than"):
        next(verifier.process(rows[:1]))
