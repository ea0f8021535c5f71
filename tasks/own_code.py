"""What decides the rows of a class that isn't ours: its code, and what that reads of the user's other code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache, cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from llms.code import changed_names, code_digest, digest_of_text, function_digest
from llms.parameters import is_ours
from llms.root import is_of_project

PLAIN = (str, bytes, int, float, complex, bool, type(None))


def own_code(kind: type) -> dict[str, str]:
    """The digest of its code, and that of the constants which that reads, where it reads any."""
    reading = _Reading(kind)
    reading.read_class(kind)
    code = sorted(reading.code)
    constants = sorted(f"{name} = {text}" for name, text in reading.constants if name not in reading.changed)
    return {
        "code": code[0] if len(code) == 1 else digest_of_text("\n".join(code)),
        **({"constants": digest_of_text("\n".join(constants))} if constants else {}),
    }


class _Reading:
    """Goes from a class to all classes, functions and constants in reach that are the user's own.

    A name that some of the code changes, such as that of a counter or a cache, stands for no constant.
    """

    def __init__(self, kind: type) -> None:
        self.code: set[str] = set()
        self.constants: set[tuple[str, str]] = set()
        self.changed: set[str] = set()
        self._home = kind.__module__.partition(".")[0]
        self._sources: set[str] = set()
        self._seen: set[int] = set()

    def read_class(self, kind: type) -> None:
        for each in kind.__mro__:
            if self._is_followed(each.__module__) and self._is_new(each):
                self.code.add(code_digest(each))
                self._sources.add(each.__qualname__)
                members = vars(each)
                if "function" in members:
                    members = {"function": members["function"]}
                for name, value in members.items():
                    if not name.startswith(("__", "model_", "_abc_")):
                        self._read(name, value)

    def _read(self, name: str, value: Any) -> None:
        text = self._text(value)
        if text:
            self.constants.add((name, text))

    def _text(self, value: Any) -> str:
        """A constant as text; empty for anything else. Code in it is read."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, re.Pattern):
            pattern = cast("re.Pattern[str]", value)
            return repr((pattern.pattern, pattern.flags))
        if isinstance(value, dict | list | tuple | set | frozenset):
            items = cast("Any", value)
            return self._text_of_items(items) if self._is_new(items) else ""
        if isinstance(value, type):
            self.read_class(value)
        elif isinstance(value, FunctionType):
            self._read_function(value)
        elif isinstance(value, partial):
            made = cast("partial[Any]", value)
            return "" if is_ours(made.func) else "".join(map(self._text, (made.func, made.args, made.keywords)))
        else:
            return self._text(inner) if (inner := wrapped_in(value)) is not None else ""
        return ""

    def _text_of_items(self, value: Any) -> str:
        kind = type(value).__name__
        if isinstance(value, dict):
            pairs = cast("dict[Any, Any]", value).items()
            return f"{kind}({', '.join(f'{self._text(key)}: {self._text(each)}' for key, each in pairs)})"
        texts = [self._text(each) for each in cast("Iterable[Any]", value)]
        return f"{kind}({', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)})"

    def _read_function(self, function: FunctionType) -> None:
        inner = vars(function).get("__wrapped__")
        if inner is not None:
            self._text(inner)
        variables, code = function.__globals__, function.__code__
        if not (self._is_followed(str(variables.get("__name__", ""))) and self._is_new(function)):
            return
        # The source of a class has that of its methods.
        if self._sources.isdisjoint({function.__qualname__, function.__qualname__.rpartition(".")[0]}):
            self.code.add(function_digest(code))
        self.changed |= changed_names(code)
        for name, value in self._outside(function):
            self._read(name, value)

    def _outside(self, function: FunctionType) -> Iterable[tuple[str, Any]]:
        """The names that a function reads and doesn't make, with what they stand for."""
        names, variables = names_in(function.__code__), function.__globals__
        for name in sorted(names & variables.keys()):
            value = variables[name]
            if name.startswith("__"):
                continue
            if not isinstance(value, ModuleType):
                yield name, value
            elif self._is_followed(value.__name__):
                yield from ((each, vars(value)[each]) for each in sorted(names & vars(value).keys()))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:
                # It isn't set yet.
                continue
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield "default", default

    def _is_followed(self, module: str) -> bool:
        """Whether code of a module is the user's own: not ours, Python's, or of a package that is installed."""
        top = module.partition(".")[0]
        if is_of_project(module) or top == self._home:
            return not is_of_project(module)
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        return top not in sys.stdlib_module_names and not is_installed(file)

    def _is_new(self, value: object) -> bool:
        new = id(value) not in self._seen
        self._seen.add(id(value))
        return new


def wrapped_in(value: Any) -> Any:
    """The function within a method, a property or a decorated function; None in anything else."""
    if isinstance(value, staticmethod | classmethod | MethodType):
        return cast("Any", value).__func__
    if isinstance(value, property):
        return value.fget
    if isinstance(value, cached_property):
        return cast("Any", value).func
    inside: dict[str, Any] = getattr(value, "__dict__", {})
    return inside.get("__wrapped__")


def names_in(code: CodeType) -> set[str]:
    """The names that code looks up, those of attributes among them, within inner functions too."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


@cache
def is_installed(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
