"""What is newer than the locks, and whether it works: `make check-locks`, for once a day.

The newest releases within the bounds of pyproject.toml are tried together, and each bound is lifted alone. To try is to
install into an environment of its own, to have a server's schedule make a run that completes, and to pass the quick
tests. Ends with 1 where something within the bounds is broken: bound it, and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-dev.lock"
UV = str(Path(sys.executable).with_name("uv"))
CHECKS: dict[str, list[str]] = {
    "a server starts, a schedule fires, its run completes": [
        "tests/integration/test_schedules.py::test_a_cron_that_is_switched_on_makes_a_run_that_completes"
    ],
    "the quick tests": ["-m", "quick"],
}
FEW_LINES = 12


def main(extras: Sequence[str]) -> int:
    locked = versions_in(LOCK.read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    newest = resolved(project, extras)
    newer = news(locked, newest)
    say(f"Newer within our bounds: {told(newer) or 'nothing'}")
    broken = tried("all of them", newest) if newer else []
    for requirement in bounded_in(project):
        lifted = resolved(project.replace(f'"{requirement[0]}"', f'"{requirement[1]}"'), extras)
        beyond = {name: each for name, each in news(newest, lifted).items() if name == requirement[2]}
        if beyond:
            say(f"Newer beyond our bounds: {told(beyond)}")
            if not tried(f"{requirement[2]} without its bound", lifted):
                say(f"  {requirement[0]!r} can be let out")
    return 1 if broken else 0


def versions_in(requirements: str) -> dict[str, str]:
    """The versions of a lock or of a resolution, as far as they are for this machine and this Python."""
    found: dict[str, str] = {}
    for line in requirements.splitlines():
        text = line.removesuffix("\\").strip()
        if "==" not in text or text.startswith(("#", "--hash")):
            continue
        pinned = Requirement(text)
        if pinned.marker is None or pinned.marker.evaluate():
            found[canonicalize_name(pinned.name)] = str(pinned.specifier).removeprefix("==")
    return found


def bounded_in(project: str) -> list[tuple[str, str, str]]:
    """The requirements with an upper bound: as they stand, without it, and the name of each."""
    read = tomllib.loads(project)
    lists = [read["project"]["dependencies"], *read["project"]["optional-dependencies"].values()]
    bounded = [each for some in lists for each in some if ",<" in each]
    return [(each, each.partition(",<")[0], canonicalize_name(Requirement(each).name)) for each in bounded]


def resolved(project: str, extras: Sequence[str]) -> dict[str, str]:
    """The newest versions that fit each other and this Python."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(project, encoding="utf-8")
        wanted = ["--group", "dev", *(f"--extra={extra}" for extra in extras)]
        options = ["--upgrade", "--quiet", "--no-header", "--no-annotate", *wanted]
        command = [UV, "pip", "compile", "pyproject.toml", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"  can't be resolved:\n{done.stderr}")
        return {}
    return versions_in(done.stdout)


def news(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (before[name], now[name]) for name in sorted(now) if before.get(name, now[name]) != now[name]}


def told(newer: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in newer.items())


def tried(what: str, versions: Mapping[str, str]) -> list[str]:
    """Install and check. Returns the checks that failed, and says what they said."""
    folder = Path(tempfile.mkdtemp(prefix="stillflow-locks-"))
    python = folder / "venv" / "bin" / "python"
    try:
        pins = folder / "requirements.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
        install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "--requirement", str(pins)]
        steps = [[UV, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], install]
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                say(f"  {what}: can't be installed:\n{done.stderr}")
                return ["the installation"]
        return [name for name, tests in CHECKS.items() if not passes(what, name, [str(python), "-m", "pytest", *tests])]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def passes(what: str, check: str, command: Sequence[str]) -> bool:
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    options = ["-q", "--tb=line", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        say(f"  {what}: works: {check}")
        return True
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
    lines = failed[:FEW_LINES] or done.stdout.splitlines()[-FEW_LINES:]
    say("\n".join([f"  {what}: BROKEN: {check}", *(f"    {line}" for line in lines)]))
    return False


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
