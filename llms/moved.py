"""Modules by the names that they had before they stood in folders: imports of then go on, with a word of warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType


def find_moved(package: str, renamed: Mapping[str, str] | None = None) -> None:
    """Let a package's modules be imported by their names of before.

    A module that isn't directly in the package is looked for in its folders.

    Args:
        package: the whole name of an imported package.
        renamed: by the name of before, below the package: the whole name of now, where more than the folder changed.
    """
    sys.meta_path.append(_Finder(package, renamed or {}))


class _Finder(MetaPathFinder):
    def __init__(self, package: str, renamed: Mapping[str, str]) -> None:
        self._package, self._renamed = package, renamed
        self._folders = sys.modules[package].__path__

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        now = (self._renamed.get(name) or self._in_folder(name)) if package == self._package else None
        if now is None:
            return None
        warnings.warn(f"{fullname} is {now} now", DeprecationWarning, stacklevel=2)
        return spec_from_loader(fullname, _Found(now))

    def _in_folder(self, name: str) -> str | None:
        found = (file for folder in self._folders for file in sorted(Path(folder).glob(f"*/{name}.py")))
        return next((f"{self._package}.{file.parent.name}.{name}" for file in found), None)


class _Found(Loader):
    def __init__(self, now: str) -> None:
        self._now = now

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what stands there after this: the same module under both names, and not made twice.
        sys.modules[module.__name__] = import_module(self._now)
