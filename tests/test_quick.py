"""The quick tests are quick: none of them starts a server, a browser or a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import quick
from tests.conftest import ROOT

TEST = """
import subprocess

def test_it({fixture}):
    subprocess.Popen({command!r})
"""


def ended(tmp_path: Path, command: list[str], fixture: str = "") -> str:
    """What pytest says of a test with this project's conftest.py that starts a command."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *")
    (tmp_path / "test_it.py").write_text(TEST.format(command=command, fixture=fixture))
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
        str(tmp_path),
    ]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True).stdout


def test_a_quick_test_that_starts_a_server_fails_and_says_where_it_belongs(tmp_path: Path) -> None:
    said = ended(tmp_path, [sys.executable, "-m", "prefect", "server", "start"])

    assert "1 failed" in said
    assert "is among the quick tests and starts 'prefect'" in said


def test_a_quick_test_may_start_any_other_program(tmp_path: Path) -> None:
    assert "1 passed" in ended(tmp_path, [sys.executable, "-c", "pass"])


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (["/usr/bin/chromium", "--headless"], "chromium"),
        ([sys.executable, "-m", "uvicorn", "prefect.server.api.server:create_app"], "uvicorn"),
        ("/venv/bin/prefect worker start", "prefect"),
        ([sys.executable, "-c", "import prefect"], ""),
    ],
)
def test_what_is_slow_is_known_by_its_command(command: list[str] | str, found: str) -> None:
    assert quick.slow_program(command) == found


def test_a_test_of_a_server_or_of_another_folder_is_not_quick(request: pytest.FixtureRequest) -> None:
    def of(folder: str) -> bool:
        return any(folder in item.nodeid and quick.is_quick(item) for item in request.session.items)

    assert quick.is_quick(request.node)
    assert not of("tests/integration/")
    assert not of("tests/ui/")
    assert not any(
        quick.is_quick(item) for item in request.session.items if "prefect" in getattr(item, "fixturenames", ())
    )


def test_the_tests_of_a_file_stay_together_in_one_process(tmp_path: Path) -> None:
    """Its fixtures of the session are made once then. Under pytest 9.2 pytest-xdist 3.8 divides them in silence."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *")
    for name in ("one", "two", "three"):
        (tmp_path / f"test_{name}.py").write_text(
            "import os\nimport pathlib\nimport pytest\n\n"
            "@pytest.mark.parametrize('number', range(8))\n"
            "def test_it(number):\n"
            f"    with pathlib.Path({str(tmp_path / name)!r}).open('a') as file:\n"
            "        file.write(os.environ['PYTEST_XDIST_WORKER'] + '\\n')\n"
        )
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--numprocesses=3",
        "--dist=loadgroup",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    subprocess.run([*run, "--rootdir", str(ROOT), str(tmp_path)], cwd=ROOT, capture_output=True, check=True)

    processes = [set((tmp_path / name).read_text().split()) for name in ("one", "two", "three")]
    assert [len(of_a_file) for of_a_file in processes] == [1, 1, 1], processes
