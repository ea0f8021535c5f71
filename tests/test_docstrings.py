"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from llms.root import FOLDER, PACKAGES, ROOT
from tasks.functions.sandbox import Limits
from tests.conftest import LONGEST

MODULES = [
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((FOLDER / ROOT.replace(".", "/") / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module(module)
    if module.endswith(".verifying.answers"):
        # Its example has the time limit of users, which a slow machine may need for the first comparison.
        monkeypatch.setattr(found, "Limits", lambda _, *rest, **named: Limits(LONGEST, *rest, **named))

    result = doctest.testmod(found, optionflags=doctest.NORMALIZE_WHITESPACE)

    assert result.attempted > 0
    assert result.failed == 0


def test_every_task_has_an_example() -> None:
    import tasks

    tasks_without = [
        name
        for name, kind in vars(tasks).items()
        if isinstance(kind, type)
        and issubclass(kind, tasks.Step)
        and not kind.__abstractmethods__
        and ">>> " not in (kind.__doc__ or "")
    ]

    assert tasks_without == []
