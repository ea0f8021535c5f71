"""Digests of code: a class of the user's own answers otherwise when its code changes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
import types
from functools import cache

from llms.root import ROOT


def digest_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def code_digest(kind: type) -> str:
    """A digest of a class's code, whatever its comments, docstrings and layout.

    Where the source isn't at hand (a notebook's cell that is gone, `python -c`), of its bytecode.
    """
    function = getattr(kind, "function", None)
    tree = _tree(function or kind)
    if tree is None:
        functions = [function] if function else [each for each in vars(kind).values() if inspect.isfunction(each)]
        return digest_of_text("".join(bytecode_text(each.__code__) for each in functions))
    # The docstring of a function made into a Task holds its prompt.
    return digest_of_text(_text(tree, docstrings=bool(function)))


@cache
def function_digest(code: types.CodeType) -> str:
    """The same of a function."""
    tree = _tree(code)
    return digest_of_text(bytecode_text(code) if tree is None else _text(tree, docstrings=False))


CHANGING = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popleft", "remove", "reverse"}
    | {"setdefault", "sort", "update"}
)
"""The methods that change a list, a set or a dict."""


@cache
def changed_names(code: types.CodeType) -> frozenset[str]:
    """The names outside of a function, and the attributes, that it changes, as far as its source shows it."""
    names: set[str] = set()
    for node in ast.walk(_tree(code) or ast.Module([], [])):
        changed: ast.expr | None = None
        if isinstance(node, ast.Global | ast.Nonlocal):
            names.update(node.names)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed = node.value
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            changed = node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            changed = node.func.value
        if isinstance(changed, ast.Name):
            names.add(changed.id)
        elif isinstance(changed, ast.Attribute):
            names.add(changed.attr)
    return frozenset(names)


def _tree(code: type | types.FunctionType | types.CodeType) -> ast.Module | None:
    """The source, where it's at hand and stands for itself."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return None


def _text(tree: ast.Module, *, docstrings: bool) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body if docstrings else node.body[1:]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # The same code, whether it's written for a clone or for what is installed.
            node.module = node.module.removeprefix(ROOT)
    # Not `ast.dump`, which looks otherwise in each version of Python.
    return ast.unparse(tree)


def bytecode_text(code: types.CodeType) -> str:
    """Bytecode, names and constants as text that is the same in every process of one Python version."""
    constants = [bytecode_text(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
