"""Digests of code: a class of the user's own answers otherwise when its code changes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
import types
from functools import cache


def digest_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def code_digest(kind: type) -> str:
    """A digest of a class's code, whatever its comments, docstrings and layout.

    Where the source isn't at hand (a notebook's cell that is gone, `python -c`), of its bytecode.
    """
    function = getattr(kind, "function", None)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function or kind)))
    except (OSError, TypeError, SyntaxError):
        functions = [function] if function else [each for each in vars(kind).values() if inspect.isfunction(each)]
        return digest_of_text("".join(bytecode_text(each.__code__) for each in functions))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            # The docstring of a function made into a Task holds its prompt.
            node.body = node.body if function else node.body[1:]
    # Not `ast.dump`, which looks otherwise in each version of Python.
    return digest_of_text(ast.unparse(tree))


def bytecode_text(code: types.CodeType) -> str:
    """Bytecode, names and constants as text that is the same in every process of one Python version."""
    constants = [bytecode_text(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
