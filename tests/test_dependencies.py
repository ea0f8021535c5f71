"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PACKAGES = ("llms", "tasks", "flows", "deployments")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_IMPORTED = {
    # They bound what Prefect brings along: beside them stands why.
    *("sqlalchemy", "whenever"),
    # fsspec, Prefect and processes of our own look for them by their names.
    *("s3fs", "prefect-dask", "prefect-redis", "azure-identity", "math-verify", "xllamacpp"),
    # Transformers spreads a model by it.
    "accelerate",
}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


NEEDED = names(PROJECT["dependencies"])
EXTRAS = {extra: names(requirements) for extra, requirements in PROJECT["optional-dependencies"].items()}


# Each process of the tests imports this file, and one of them runs it: what takes long is made when it's asked for.
distributions = cache(packages_distributions)


@cache
def distributions_of(module: str) -> set[str]:
    """The packages that a module may come from; of one that isn't installed, that of its name."""
    top = module.partition(".")[0]
    found = {canonicalize_name(each) for each in distributions().get(top, [top])}
    # A namespace of several packages.
    return found & (NEEDED | set().union(*EXTRAS.values())) or found


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def imports_in(tree: ast.AST, *, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """The modules from elsewhere that are imported, and whether only when it comes to it."""
    for node in ast.iter_child_nodes(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        for module in modules:
            if module.partition(".")[0] not in {*sys.stdlib_module_names, *PACKAGES}:
                yield module, inside
        yield from imports_in(node, inside=inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If))


@cache
def imports() -> list[tuple[Path, str, bool]]:
    return [(path, module, lazy) for path, tree in trees() for module, lazy in imports_in(tree)]


def texts_of(tree: ast.Module) -> dict[str, Any]:
    """The values of a module's own constants."""
    made = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {target.id: node.value.value for node in made for target in node.targets if isinstance(target, ast.Name)}


def said(argument: ast.expr, texts: Mapping[str, Any]) -> Any:
    return argument.value if isinstance(argument, ast.Constant) else texts.get(getattr(argument, "id", ""))


@cache
def asked_for() -> list[tuple[Path, Any, Any]]:
    """What `llms.extras.package` imports: the file, the module and its extra; None where the caller says that."""
    return [
        (path, *(said(argument, texts_of(tree)) for argument in node.args[:2]))
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "package"
    ]


def test_what_is_imported_with_a_module_is_installed_with_the_project() -> None:
    at_once = {(path, module) for path, module, lazy in imports() if not lazy}
    lost = {f"{path}: {module}" for path, module in at_once if not distributions_of(module) & NEEDED}

    assert lost == set()


def test_what_is_imported_when_it_comes_to_it_is_in_an_extra_at_least() -> None:
    declared = NEEDED.union(*EXTRAS.values())
    lost = {f"{path}: {module}" for path, module, _ in imports() if not distributions_of(module) & declared}

    assert lost == set()


def test_what_asks_for_an_extra_names_the_one_that_has_it() -> None:
    assert len(asked_for()) > 15
    known = [(path, str(module), EXTRAS[extra]) for path, module, extra in asked_for() if extra is not None]
    assert [(path, module) for path, module, extra in known if not distributions_of(module) & extra] == []


def test_what_is_declared_is_imported() -> None:
    used = set().union(*(distributions_of(module) for _, module, _ in imports()))
    used |= set().union(*(distributions_of(str(each[1])) for each in asked_for()))

    assert NEEDED.union(*EXTRAS.values()) - used == NOT_IMPORTED
