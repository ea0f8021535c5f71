"""Answers that would do something, or turn into something else, if a Task ran what a model wrote."""

from __future__ import annotations

from pathlib import Path


def dangerous_values(marker: Path) -> list[str]:
    """Python expressions, of which the first two would make the file `marker`."""
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return [touch, f"[{touch} for _ in 'x']", "str(6*7)", "'a' * 3", "(lambda: 'x')()"]
