"""The shape of the project: imports run one way, packages are quick to import, locks hold no addresses."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAY_IMPORT = {"llms": {"llms"}, "tasks": {"llms", "tasks"}, "flows": {"llms", "tasks", "flows"}}
LOCKS = ["requirements.lock", "requirements-machines.lock", "requirements-dev.lock"]
HEAVY = [
    *("prefect", "datasets", "pyarrow", "pandas", "openai", "huggingface_hub", "aiohttp", "fsspec", "genai_prices"),
    *("numpy", "scipy", "sklearn", "umap", "numba", "faiss", "datasketch", "tokenizers", "argilla"),
    *("torch", "transformers", "sentence_transformers"),
]


def imported_packages(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    climbing = {
        str(path.relative_to(ROOT)): sorted(wrong)
        for path in (ROOT / package).rglob("*.py")
        if (wrong := imported_packages(path) & set(MAY_IMPORT) - MAY_IMPORT[package])
    }

    assert climbing == {}


@pytest.mark.parametrize("package", ["llms", "tasks"])
def test_a_package_imports_no_sdk_and_no_server(package: str) -> None:
    code = f"import sys, {package}; print([name for name in {HEAVY!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_prefect_is_known_to_flows_and_deployments_alone() -> None:
    users = [
        path
        for package in ("llms", "tasks")
        for path in (ROOT / package).rglob("*.py")
        if "prefect" in imported_packages(path)
    ]

    assert users == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_exact_versions_with_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    requirements = re.split(r"\n(?=\S)", text.strip())

    assert "://" not in text
    assert all(re.match(r"[a-zA-Z0-9._-]+(\[[a-z,]+\])?==\S+", each) for each in requirements)
    assert all("--hash=sha256:" in each for each in requirements)


def test_the_locks_hold_every_dependency_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert re.search(rf"^{name[0].replace('_', '-')}==", locked, re.MULTILINE), requirement


def test_what_is_in_several_locks_has_one_version_in_all_of_them() -> None:
    pinned = [
        dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in LOCKS
    ]

    for smaller, larger in itertools.pairwise(pinned):
        assert {name: larger.get(name) for name in smaller} == smaller


def test_the_prompts_that_come_with_the_project_are_many_and_varied() -> None:
    import json

    lines = (ROOT / "flows" / "data" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    assert len(rows) >= 50
    assert len({row["instruction"] for row in rows}) == len(rows)
    assert len({row["category"] for row in rows}) >= 15
