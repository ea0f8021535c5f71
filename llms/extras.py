"""Packages that only some need, imported when they are used."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
"""Of a clone, which isn't installed: what an extra needs is read here."""

OPENED_WITH = {"s3fs": "s3", "Pillow": "images"}
"""Packages that fsspec and datasets ask for: to the extra that has them."""


class MissingPackageError(ImportError):
    """A package that is needed isn't installed. The message says how to install it."""


def package(name: str, extra: str, user: str) -> Any:
    """The module `name`.

    Args:
        name: of the module, as it is imported.
        extra: that of the project which installs it.
        user: who needs it, for the error's message.

    Raises:
        MissingPackageError: it isn't installed.

    Example:
        >>> package("json", "none", "This").dumps([1])
        '[1]'
        >>> package("no_such_module", "dedup", "MinHashDedup")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        llms.extras.MissingPackageError: MinHashDedup needs no_such_module: ...
    """
    whole = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in {whole, name}:
            raise
        raise MissingPackageError(f"{user} needs {whole}: {how_to_install(extra)}") from None


def how_to_install(extra: str) -> str:
    """The command that installs what an extra of the project has, for the Python that runs.

    In a clone there's no package `stillflow` to install it with: there it names the extra's packages.
    """
    return pip_install(*(declared()[extra] if PROJECT.exists() else [f"stillflow[{extra}]"]))


def declared() -> dict[str, list[str]]:
    """What the project requires, under "", and what each of its extras does: of a clone, or of what is installed."""
    if PROJECT.exists():
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        return {"": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, list[str]] = {}
    for each in importlib.metadata.requires("stillflow") or []:
        requirement, _, extra = each.partition("; extra == ")
        found.setdefault(extra.strip("'"), []).append(requirement)
    return found


def opened_with(error: Exception) -> str:
    """The command that installs what fsspec or datasets asks for, in brackets; empty where something else is wrong."""
    wanted = re.search(r"\b[Ii]nstall '?(\w+fs|Pillow)\b", str(error)) if isinstance(error, ImportError) else None
    if wanted is None:
        return ""
    extra = OPENED_WITH.get(wanted[1])
    return f" ({how_to_install(extra) if extra else pip_install(wanted[1])})"


def pip_install(*requirements: str) -> str:
    """The command that installs packages, for the Python that runs."""
    here, python = Path.cwd(), Path(sys.executable)
    shown = os.path.relpath(python, here) if python.is_relative_to(here) else str(python)
    return shlex.join([shown, "-m", "pip", "install", *requirements])
