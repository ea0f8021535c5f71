"""Modules that moved into folders are found by their names of before."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT

NAMES = {
    "flows.batching": "flows.engine.batching",
    "flows.results": "flows.authoring.saving",
    "llms.anthropic": "llms.providers.anthropic",
    "llms.openai": "llms.providers.openai",
    "tasks.ultrafeedback": "tasks.judging.ultrafeedback",
}


@pytest.mark.parametrize(("before", "now"), NAMES.items())
def test_it_is_the_same_module_and_says_where_it_is(before: str, now: str) -> None:
    sys.modules.pop(before, None)
    module = importlib.import_module(now)
    spec = module.__spec__

    with pytest.warns(DeprecationWarning, match=rf"{before} is {now} now"):
        found = importlib.import_module(before)

    assert found is module
    assert (module.__name__, module.__spec__) == (now, spec)


def test_in_a_fresh_program_the_old_name_may_come_first() -> None:
    program = "from llms.openai import OpenAILLM; import llms; assert OpenAILLM is llms.OpenAILLM"

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_this_project_itself_uses_the_names_of_now() -> None:
    old = {
        f"{path.relative_to(ROOT)}: {node.module}"
        for package in ("llms", "tasks", "flows", "deployments", "tests")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("llms.", "tasks.", "flows."))
        if not (place := ROOT / (node.module or "").replace(".", "/")).is_dir()
        and not place.with_suffix(".py").exists()
    }

    assert old == set()


@pytest.mark.parametrize("name", ["flows.no_such", "tasks.no_such", "llms.no_such", "tasks.judging.no_such"])
def test_what_never_was_is_missing(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)
