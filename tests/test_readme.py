"""The README and the pages of docs/: their programs run and print what they say, their commands and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from flows.authoring.preview import checked
from flows.cli import flow_named, given_parameters
from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, ROOT
from tests.warm import WarmPython

OWN_REPOSITORY = ROOT / "docs" / "guides" / "own-repository.md"
"""Its programs are run where the project is installed: tests/integration/test_own_repository.py."""
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page != OWN_REPOSITORY]
PAGES = [ROOT / "README.md", *DOCS]
LINKED = [*PAGES, OWN_REPOSITORY, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
PROGRAMS = [
    (code, BLOCKS[place + 1][1] if place + 1 < len(BLOCKS) and not BLOCKS[place + 1][0] else None)
    for place, (language, code) in enumerate(BLOCKS)
    if language == "python"
]
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, code in BLOCKS
    if language == "bash"
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip()
]


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=[f"program {n}" for n in range(1, len(PROGRAMS) + 1)])
def test_a_program_runs_and_prints_what_the_page_says(
    program: str,
    printed: str | None,
    warm: WarmPython,
    provider: LocalProvider,
    storage: Path,
    prefect_api: str,
    tmp_path: Path,
) -> None:
    provider.set(answers={"Is this review": "Positive."})
    path = tmp_path / "program.py"
    path.write_text(program)
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "PYTHONPATH": str(ROOT),
        "STILLFLOW_STORAGE": str(storage),
    }

    done = subprocess.run(
        [warm.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LONGEST
    )

    assert done.returncode == 0, done.stderr
    if printed is not None:
        assert done.stdout == printed


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make ")])
def test_a_target_of_make_exists(command: str) -> None:
    assert subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("command", [each for each in COMMANDS if " preview " in each])
def test_a_preview_runs_as_written(command: str, warm: WarmPython, storage: Path) -> None:
    words = [warm.executable, *shlex.split(command)[1:]]

    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST)

    assert done.returncode == 0, done.stderr
    assert "user: " in done.stdout
    assert "Be brief." not in command or "system: Be brief." in done.stdout


@pytest.mark.parametrize("command", [each for each in COMMANDS if " -m flows run " in each])
def test_the_parameters_of_a_run_fit_its_flow(command: str) -> None:
    name, *words = shlex.split(command.partition(" -m flows run ")[2])
    given = tuple(word for word in words if "=" in word and not word.startswith("-"))

    flow = flow_named(name)
    checked(flow, given_parameters(None, given, flow))


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith(("prefect ", "python "))])
def test_the_options_of_a_command_exist(command: str, warm: WarmPython) -> None:
    words = shlex.split(command)
    program = [warm.executable, "-m", "prefect" if words[0] == "prefect" else words[2]]
    rest = words[1:] if words[0] == "prefect" else words[3:]
    options = [word for word in rest if word.startswith("-")]
    commands = [word for word in rest[:2] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]

    done = subprocess.run([*program, *commands, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST)

    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in options if option != "-m"), done.stdout


@pytest.mark.parametrize("page", LINKED, ids=[str(page.relative_to(ROOT)) for page in LINKED])
def test_a_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading else [""]
        assert heading in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}, target
