"""Which tests are quick: what one runs between two edits. Such a test starts no server, no browser and no cluster."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

SLOW_FOLDERS = {"integration", "ui"}
SLOW_FIXTURES = {"prefect_api", "stack_of_session", "browser", "warm"}
SLOW_MARKS = {"slow", "full"}
SLOW_PROGRAMS = {
    *("prefect", "uvicorn", "moto.server", "raylet", "gcs_server", "dask"),
    *("chromium", "chromium-headless-shell", "chrome"),
}
"""Words by which a command is known that starts a server, a worker, a browser or a cluster."""

_running: pytest.Item | None = None
"""The quick test that runs now."""
_listening = False


def is_quick(item: pytest.Item) -> bool:
    """Whether a test is quick: by its folder, by the fixtures that it asks for, and by its marks."""
    folders = set(Path(item.nodeid.partition("::")[0]).parts)
    fixtures = set(getattr(item, "fixturenames", ()))
    marks = {mark.name for mark in item.iter_markers()}
    return not (folders & SLOW_FOLDERS or fixtures & SLOW_FIXTURES or marks & SLOW_MARKS)


@contextlib.contextmanager
def kept(item: pytest.Item) -> Iterator[None]:
    """Meanwhile a test that is quick by its place fails where it starts what is slow."""
    global _running, _listening
    if not _listening:
        _listening = True
        sys.addaudithook(_listen)
    _running = item if is_quick(item) else None
    try:
        yield
    finally:
        _running = None


def slow_program(command: Sequence[Any] | str) -> str:
    """The word by which a command is known to start what is slow; empty where it isn't."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    names = {Path(word).name for word in words[:4] if not word.startswith("-")}
    return min(SLOW_PROGRAMS & names, default="")


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _running is None or event != "subprocess.Popen":
        return
    found = slow_program(arguments[1])
    if found:
        pytest.fail(
            f"{_running.nodeid} is among the quick tests and starts {found!r}: {arguments[1]!r}. It belongs into"
            " tests/integration, or takes its server from the fixture `prefect`."
        )
