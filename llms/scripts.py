"""Programs: modules run or loaded as a file, which no other process imports by the name they have in this one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MAIN = frozenset({"__main__", "__mp_main__"})
"""The names of the program that a process runs, in itself and in those that `multiprocessing` starts."""


def is_script(module: str) -> bool:
    """Whether a module is a program, or a flow's file: no other process can import it by its name."""
    if module in MAIN:
        return True
    # Prefect loads the file of `flow.py:flow` as if it were a package.
    known: dict[str, Any] = getattr(sys.modules.get(module), "__dict__", {})
    return "__path__" in known and Path(known.get("__file__") or "__init__.py").name != "__init__.py"


def portable_name(module: str) -> str:
    """The name that a module has in every process: a program's is that of its file, as a worker loads it.

    A notebook has no file: its name stays `__main__`.
    """
    known = sys.modules.get(module)
    if known is None or not is_script(module):
        return module
    spec = getattr(known, "__spec__", None)
    if module in MAIN and spec is not None:
        # `python -m package.module`.
        return str(spec.name)
    file = getattr(known, "__file__", None)
    return Path(file).stem if file else module


def scripts_called(name: str) -> list[ModuleType]:
    """The programs of this process with that portable name."""
    # A file's name has no dots, and there are thousands of modules.
    candidates = MAIN & sys.modules.keys() if "." in name else list(sys.modules)
    return [sys.modules[each] for each in candidates if is_script(each) and portable_name(each) == name]
