"""Packages that only some need, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any


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
        >>> package("no_such_module", "dedup", "MinHashDedup")
        Traceback (most recent call last):
            ...
        llms.extras.MissingPackageError: MinHashDedup needs no_such_module: pip install 'stillflow[dedup]'
    """
    whole = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in {whole, name}:
            raise
        raise MissingPackageError(f"{user} needs {whole}: pip install 'stillflow[{extra}]'") from None
