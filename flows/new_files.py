"""Starting files of one's own: a flow, a Task or an LLM, each with a test beside it that passes at once."""

from __future__ import annotations

import ast
import builtins
import keyword
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from llms.root import PACKAGES, ROOT

Kind: TypeAlias = Literal["flow", "task", "llm"]

COMMAND = "python -m flows"
TEMPLATES = Path(__file__).parent / "templates"
OF_PROJECT = {*PACKAGES, "stillflow"}
"""Modules of the project, where it's cloned and where it's installed: a file may be moved from one to the other."""
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
ACRONYMS = {"llm": "LLM"}
"""Words that a class's name has in capitals."""


class NewFileError(ValueError):
    """A file that can't be written. The message says why, and the way out."""


@dataclass(frozen=True)
class NewFile:
    """A starting file that is about to be, with its test."""

    kind: Kind
    name: str
    """In snake case, as it's given."""
    file: Path

    @property
    def test(self) -> Path:
        return self.file.with_name(f"test_{self.file.name}")

    @property
    def called(self) -> str:
        """What the file defines: a function of the name, or a class of the name in camel case."""
        words = self.name.split("_")
        return self.name if self.kind == "flow" else "".join(ACRONYMS.get(word, word.capitalize()) for word in words)

    @cached_property
    def above(self) -> Path:
        """Where the name of its module begins: the working folder, as `python -m pytest` and flows have it.

        Where that's not above it, or no name can be made of the way there: as pytest has it, above the outermost
        folder that is a package.
        """
        folder, here = self.file.absolute().parent, Path.cwd()
        if folder.is_relative_to(here) and all(map(str.isidentifier, folder.relative_to(here).parts)):
            return here
        while (folder / "__init__.py").exists():
            folder = folder.parent
        return folder

    @property
    def module(self) -> str:
        """What imports it."""
        return ".".join(self.file.absolute().relative_to(self.above).with_suffix("").parts)

    def texts(self) -> dict[Path, str]:
        """The files and what's in them."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        templates = Environment(
            loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        values = {"name": self.name, "called": self.called, "module": self.module}
        return {
            path: templates.get_template(f"{start}{self.kind}.py.jinja2").render(values, root=ROOT, command=COMMAND)
            for path, start in ((self.file, ""), (self.test, "test_"))
        }

    def next_commands(self) -> list[str]:
        """What to run now: the test, and what comes after it."""
        file, test = shlex.quote(str(self.file)), shlex.quote(str(self.test))
        after: dict[Kind, list[str]] = {
            "flow": [f"run {file}:{self.called} --rehearse", f"show {file}:{self.called}"],
            "task": [f"new flow {self.name}_flow"],
            "llm": [f"run text_generation --rows 3 text_generation.llm.provider={self.module}:{self.called}"],
        }
        pytest = [] if find_spec("pytest") else ["python -m pip install pytest"]
        return [*pytest, f"python -m pytest {test}", *(f"{COMMAND} {each}" for each in after[self.kind])]


def write(kind: Kind, name: str, file: Path | None = None) -> NewFile:
    """Write a starting file and its test, which aren't there yet.

    Args:
        kind: what it's to be.
        name: of the flow, or in snake case that of the class.
        file: where to; `NAME.py` in the working folder unless it's given.

    Raises:
        NewFileError: the name can't be that of a module or of what is in it, or one of the two files is there.
    """
    new = NewFile(kind, name, Path(f"{name}.py") if file is None else file)
    _check_name(new)
    _check_module(new)
    texts = new.texts()
    _check_uses(new)
    for path in texts:
        if os.path.lexists(path):
            other = new.file.with_name(f"other_{new.file.name}")
            raise NewFileError(
                f"{str(path)!r} is there already, and stays as it is: choose another NAME, or give a FILE after it:"
                f" {COMMAND} new {kind} {name} {other}"
            )
    try:
        new.file.parent.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise NewFileError(f"{str(new.file)!r} can't be written: {error}") from None
    return new


def _check_name(new: NewFile) -> None:
    if not SNAKE_CASE.fullmatch(new.name):
        near = "_".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", new.name)).lower()
        hint = f": {near!r}?" if SNAKE_CASE.fullmatch(near) else ", such as 'rate_reviews'"
        raise NewFileError(f"NAME must be in snake case, got {new.name!r}{hint}")
    for each in (new.name, new.called):
        if keyword.iskeyword(each) or hasattr(builtins, each):
            raise NewFileError(f"{each!r} is one of Python's own names: choose another NAME, such as 'my_{new.name}'")


def _check_module(new: NewFile) -> None:
    """Whether an import of the file finds it, and takes nothing else's place."""
    if new.file.suffix != ".py":
        raise NewFileError(f"FILE must end in .py, got {str(new.file)!r}: {str(new.file / f'{new.name}.py')!r}?")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in new.module.split(".")):
        raise NewFileError(
            f"no module can be called {new.module!r}: give a FILE that can be imported, as its test does"
        )
    if new.file.stem.startswith("test_") or new.file.stem == "conftest":
        raise NewFileError(f"pytest would take {new.file.name!r} for one of its own: choose another NAME or FILE")
    first, _, rest = new.module.partition(".")
    taken = _taken_by(new, first)
    if taken:
        other = "/".join([f"my_{first}", *filter(None, rest.split("."))])
        raise NewFileError(
            f"an import of {first!r} finds {taken}, and can't find {str(new.file)!r} as well: choose another NAME, or"
            f" give a FILE after it: {COMMAND} new {new.kind} {new.name} {other}.py"
        )


def _taken_by(new: NewFile, first: str) -> str:
    """What the first part of a module's name stands for already; empty where for nothing, or for what it's to be."""
    if first in sys.stdlib_module_names:
        return "a module of Python's"
    if first == new.module and first in OF_PROJECT:
        return "a package of this project"
    found = PathFinder.find_spec(first, [str(new.above), *sys.path])
    if found is None:
        return ""
    places = list(found.submodule_search_locations or ())
    if first != new.module:
        return "" if str(new.above / first) in places else repr(found.origin or places[0])
    if found.origin is not None:
        return "" if Path(found.origin) == new.file.absolute() else repr(found.origin)
    # Folders without a module: what stands beside the file is any folder, others are a package's.
    return next((repr(each) for each in places if Path(each).parent != new.above), "")


def _check_uses(new: NewFile) -> None:
    """Whether the name is one that the written files use for something else."""
    neutral = NewFile(new.kind, "name_of_ones_own", Path("name_of_ones_own.py"))
    if new.called in {name for text in neutral.texts().values() for name in _names_in(text)}:
        raise NewFileError(
            f"the file uses {new.called!r} for something else: choose another NAME, such as 'my_{new.name}'"
        )


def _names_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
