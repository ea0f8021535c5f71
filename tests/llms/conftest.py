"""Fixtures of the tests of models."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from llms.root import package_of
from tests.llms.tiny_model import make

LLMS = package_of(package_of.__module__)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which models wait, as they ask for them: a slow machine makes them no longer."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def noting(delay: float, *arguments: Any) -> Any:
        caller = str(sys._getframe(1).f_globals["__name__"])
        if package_of(caller) == LLMS and not caller.startswith("llms.local_provider"):
            asked.append(delay)
        return await sleep(delay, *arguments)

    monkeypatch.setattr(asyncio, "sleep", noting)
    return asked


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny language model."""
    return make(tmp_path_factory.mktemp("tiny"))
