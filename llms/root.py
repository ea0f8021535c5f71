"""Where the project's packages stand: at the top in a clone, under `stillflow` where they are installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("llms", "tasks", "flows")
ROOT = (__package__ or "").removesuffix("llms")
"""What the names of modules begin with: nothing in a clone, `stillflow.` installed. Nothing that is kept has it."""
FOLDER = Path(__file__).resolve().parents[1 + ROOT.count(".")]
"""Where the names begin: the clone, or the folder that packages are installed in."""


def is_of_project(module: str) -> bool:
    """Whether a module is one of this project's, and not of a team that has packages of these names itself."""
    return module.startswith(ROOT) and module.removeprefix(ROOT).partition(".")[0] in PACKAGES


def package_of(module: str) -> str:
    """The package of a module that is one of this project's, or the first part of another's name."""
    start = ROOT if is_of_project(module) else ""
    return start + module.removeprefix(start).partition(".")[0]


def with_project(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables with which another process of this Python finds the project: a clone isn't where packages are."""
    paths = [*([] if ROOT else [str(FOLDER)]), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def file_of_project(path: str) -> str:
    """Where a file of the ready-made flows is, which they name from the folder above the packages.

    What stands there from the working folder comes first, and so does any other path.

    Example:
        >>> file_of_project("no/such/file.jsonl")
        'no/such/file.jsonl'
    """
    ours = FOLDER / path
    is_data = path.startswith(f"{ROOT.replace('.', '/')}flows/data/")
    return str(ours) if is_data and not Path(path).exists() and ours.exists() else path
