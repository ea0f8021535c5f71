"""Fixtures of the tests of models."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def fresh_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of earlier tests' jobs: a provider may have got the port that one of theirs had."""
    monkeypatch.setattr("llms.submissions._by_account", {})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the code under test waits, as it asks for them: a slow machine makes them no longer."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def noting(delay: float, *arguments: Any) -> Any:
        caller = str(sys._getframe(1).f_globals["__name__"])
        if caller.startswith("llms.") and not caller.startswith("llms.local_provider"):
            asked.append(delay)
        return await sleep(delay, *arguments)

    monkeypatch.setattr(asyncio, "sleep", noting)
    return asked
