"""The wheel of this clone in an environment of its own, beside a team's packages of the same names as ours.

`python -m tests.installed -m quick`, which is `make test-wheel`, passes the quick tests on it: they are put under its
root as its own sources are. What follows is for pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.one_root import move

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
PREFECT = "#!{python}\nimport sys\n\nfrom prefect.cli import app\n\nsys.exit(app())\n"
"""Its console script, which isn't there where Prefect is found in another environment."""
_PAGES, _SOURCES = "the pages of a clone", "the sources of a clone, its locks, or what makes a wheel of them"
_WAY_OUT = "the way out is the extra's name, where a clone's is that of its packages"
OF_CLONES = {
    **dict.fromkeys(("tests/integration", "tests/ui"), "a clone is deployed; test_own_repository.py deploys the wheel"),
    **dict.fromkeys(("tests/test_readme.py", "tests/test_guides.py", "tests/test_gallery.py"), _PAGES),
    "tests/test_site.py": _PAGES,
    **dict.fromkeys(("tests/test_structure.py", "tests/test_dependencies.py"), _SOURCES),
    **dict.fromkeys(("tests/test_locks.py", "tests/test_one_root.py"), _SOURCES),
    "tests/test_moved.py": "names of modules that aren't there any more",
    "tests/flows/test_ledger.py::test_a_version_whose_modules_are_renamed": "a changed copy of a clone's sources",
    "tests/llms/test_azure.py::test_a_missing_key_is_told": _WAY_OUT,
    "tests/llms/test_sentence_transformers.py::test_without_the_package": _WAY_OUT,
    "tests/tasks/test_argilla.py::test_without_the_package": _WAY_OUT,
    "tests/tasks/test_extras.py::test_what_misses_its_package": _WAY_OUT,
    "tests/tasks/test_extras.py::test_the_command_is_short": _WAY_OUT,
    "tests/tasks/test_pair_rm.py::test_without_the_packages": _WAY_OUT,
    "tests/tasks/test_reward.py::test_without_the_packages": _WAY_OUT,
}
"""Tests of what a clone alone has, by the beginning of their names, and why."""


@dataclass(frozen=True)
class Repository:
    """A team's repository, and the environment that the wheel is installed in."""

    folder: Path
    bin: Path
    wheel: Path

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def copy_tests(self) -> None:
        """Its own copy of the tests, which import what is installed."""
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests", self.folder / "tests", ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        move(ROOT, self.folder / "tests")

    def passes(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run its tests, without those of what a clone alone has."""
        left_out = [word for name in OF_CLONES for word in ("--deselect" if "::" in name else "--ignore", name)]
        command = [self.python, "-m", "pytest", "-p", "no:cacheprovider", *left_out, *arguments]
        return subprocess.run(command, cwd=self.folder, check=False)


def called(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """What came of a command, which has to end with a status."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


def installed(folder: Path) -> Repository:
    """Build the wheel, and install it into an environment that has what it requires from the one of the tests."""
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    called([*PIP, *build], folder, os.environ)
    (wheel,) = folder.glob("*.whl")
    called([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder, os.environ)
    made = Repository(folder / "team", folder / "venv" / "bin", wheel)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    # Nothing is downloaded: what it requires must be there, in the versions that it wants.
    called([*PIP, "--python", made.python, "install", "--no-index", str(wheel)], folder, os.environ)
    script = made.bin / "prefect"
    script.write_text(PREFECT.format(python=made.python))
    script.chmod(0o755)
    for name in ("flows", "tasks", "llms", "deployments"):
        made.write(f"{name}/__init__.py", f"WHOSE = 'the {name} of a team'\n")
    return made


def main(arguments: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="stillflow-wheel-") as folder:
        repository = installed(Path(folder))
        repository.copy_tests()
        return repository.passes(arguments).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
