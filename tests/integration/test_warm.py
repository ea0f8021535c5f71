"""A warm Python does what one does that was just started: the tests that stand on it prove what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_for
from tests.warm import WarmPython

TELL = """
import json, os, signal, sys
print(json.dumps([
    os.getcwd(), sys.argv[1:], sys.path[:2], os.environ.get("ITS_OWN"), os.environ.get("OPENBLAS_NUM_THREADS"),
    __name__, sys.stdin.read(), signal.getsignal(signal.SIGINT) is signal.default_int_handler, "flows" in sys.modules,
]))
sys.exit(7)
"""


def both(
    warm: WarmPython, command: list[str], cwd: Path, given: str = "", **variables: str
) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """What a cold and a warm Python do with the same command."""

    def run(python: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": "", **variables}
        return subprocess.run([python, *command], cwd=cwd, env=environment, input=given, capture_output=True, text=True)

    return run(sys.executable), run(str(warm.executable))


@pytest.mark.parametrize("way", ["code", "module", "script"])
def test_a_program_has_the_same_around_it_as_in_a_cold_one(warm: WarmPython, tmp_path: Path, way: str) -> None:
    (tmp_path / "tell.py").write_text(TELL)
    start = {"code": ["-c", TELL], "module": ["-m", "tell"], "script": [str(tmp_path / "tell.py")]}[way]

    cold, hot = both(warm, [*start, "one", "-two"], tmp_path, "given", ITS_OWN="value", PYTHONPATH="/nowhere/at/all")

    assert (hot.returncode, hot.stdout, hot.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert cold.returncode == 7
    assert '"given", true, false' in cold.stdout


def test_a_module_that_was_imported_ahead_is_found_only_by_the_import_path(warm: WarmPython, tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("print('another')")
    where = ["-c", "import flows, tasks; print(flows.__file__, tasks.__file__)"]

    ours = both(warm, where, ROOT)
    neither = both(warm, where, tmp_path)
    another = both(warm, where, tmp_path, PYTHONPATH=str(ROOT))

    assert ours[0].stdout == ours[1].stdout == f"{ROOT}/flows/__init__.py {ROOT}/tasks/__init__.py\n"
    assert [each.returncode for each in neither] == [1, 1]
    assert "another" in neither[0].stdout
    assert another[0].stdout == another[1].stdout
    assert f"{tmp_path}/flows/__init__.py {ROOT}/tasks/__init__.py" in another[0].stdout


def test_what_is_imported_is_pickled_by_its_name(warm: WarmPython) -> None:
    code = "import cloudpickle, sys; from tasks import TextGeneration; print(len(cloudpickle.dumps(TextGeneration)))"

    cold, hot = both(warm, ["-c", code], ROOT)

    assert hot.stdout == cold.stdout


def test_prefect_has_the_settings_of_the_programs_own_environment(warm: WarmPython, tmp_path: Path) -> None:
    tell = "from prefect.settings import get_current_settings as s; print(s().home, s().api.url, s().logging.level)"
    own = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:1/api", "PREFECT_LOGGING_LEVEL": "ERROR"}

    cold, hot = both(warm, ["-c", tell], ROOT, **own)

    assert hot.stdout == cold.stdout == f"{tmp_path} http://127.0.0.1:1/api ERROR\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_the_program_and_its_end_is_told(warm: WarmPython, tmp_path: Path, number: int) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
def end(*_):
    sys.exit(5)
signal.signal(signal.SIGTERM, end)
Path("pid").write_text(str(os.getpid()))
while True:
    time.sleep(0.01)
"""
    with subprocess.Popen([warm.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        pid = int(wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), what="its id"))
        process.send_signal(number)

    assert process.returncode == {signal.SIGTERM: 5}.get(number, -number)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the program")


def test_a_program_that_was_started_here_is_gone_when_its_end_is_told(warm: WarmPython, tmp_path: Path) -> None:
    output = tmp_path / "output"
    forever = ["-c", "import time; print('here', flush=True); time.sleep(1000)"]
    program = warm.start(forever, environment=os.environ, cwd=tmp_path, output=output)
    wait_for(lambda: output.read_text() == "here\n", what="the program")

    program.kill()

    assert program.wait() == -signal.SIGKILL
    assert not Path(f"/proc/{program.pid}").exists()


def test_a_program_that_kills_itself_is_told_to_have_been_killed(warm: WarmPython, tmp_path: Path) -> None:
    deadly = ["-c", "import os; os.kill(os.getpid(), 9)"]

    program = warm.start(deadly, environment=os.environ, cwd=tmp_path, output=tmp_path / "output")

    assert program.wait() == -signal.SIGKILL
    assert [each.returncode for each in both(warm, deadly, tmp_path)] == [-signal.SIGKILL] * 2
