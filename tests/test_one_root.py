"""The sources of a wheel: what names a module or a file of the project is put under its root, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.one_root import CannotMoveError, moved, write_package
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("source", "under_the_root"),
    [
        ("from flows import save", "from stillflow.flows import save"),
        (
            "from tasks.rows.columns import (\n    KeepColumns,\n)",
            "from stillflow.tasks.rows.columns import (\n    KeepColumns,\n)",
        ),
        ("def f():\n    from llms import LLM; x = 1", "def f():\n    from stillflow.llms import LLM; x = 1"),
        ("if x: from llms import LLM", "if x: from stillflow.llms import LLM"),
        ("import llms", "import stillflow.llms as llms"),
        ("import os, llms, tasks as t", "import os, stillflow.llms as llms, stillflow.tasks as t"),
        ("import flows.engine.run as run", "import stillflow.flows.engine.run as run"),
        ("é = 'ä'; import llms  # ü", "é = 'ä'; import stillflow.llms as llms  # ü"),
        ("import importlib.util, tasksets", "import importlib.util, tasksets"),
        ("from .flows import save", "from .flows import save"),
        ("from os import flows", "from os import flows"),
        ("def f():\n    yield from flows", "def f():\n    yield from flows"),
        ("flows.engine.run(tasks.rows)", "flows.engine.run(tasks.rows)"),
    ],
)
def test_imports_are_put_under_the_root(source: str, under_the_root: str) -> None:
    assert moved(ROOT, source, "a.py") == under_the_root


@pytest.mark.parametrize(
    ("text", "under_the_root"),
    [
        ('"llms.providers.openai:OpenAILLM"', '"stillflow.llms.providers.openai:OpenAILLM"'),
        ('"llms.providers."', '"stillflow.llms.providers."'),
        ('"tasks:TextGeneration"', '"stillflow.tasks:TextGeneration"'),
        ('f"see {name} in flows.engine.run, {x!r}"', 'f"see {name} in stillflow.flows.engine.run, {x!r}"'),
        ('f"{{}} {x[-1]} `from flows import flow`"', 'f"{{}} {x[-1]} `from stillflow.flows import flow`"'),
        ('[python, "-m", "flows", "run"]', '[python, "-m", "stillflow.flows", "run"]'),
        ('["-m", "flows.temporary_server"]', '["-m", "stillflow.flows.temporary_server"]'),
        ('"python -m flows clean"', '"stillflow clean"'),
        ('"python -m llms.local_provider"', '"python -m stillflow.llms.local_provider"'),
        ('"register -m flows.credentials"', '"register -m stillflow.flows.credentials"'),
        ('"start it: make ui"', '"start it: python -m stillflow.deployments.ui"'),
        ('"flows/data/topics.jsonl"', '"stillflow/flows/data/topics.jsonl"'),
        ('"a path, flows/data/topics.jsonl."', '"a path, stillflow/flows/data/topics.jsonl."'),
        ("'''\n>>> from tasks import step\n'''", "'''\n>>> from stillflow.tasks import step\n'''"),
        ("r'llms.\\d flows.engine'", "r'llms.\\d stillflow.flows.engine'"),
    ],
)
def test_names_of_modules_and_files_in_texts_are_put_under_the_root(text: str, under_the_root: str) -> None:
    assert moved(ROOT, f"said({text})", "a.py") == f"said({under_the_root})"


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"tasks"',
            '"flows"',
            '{"tasks": "a column"}',
            '"columns of tasks: one"',
            '"tasks.no_such"',
            '"flows/no_such.py"',
        ),
        *('"my/flows/data/topics.jsonl"', '"my.llms.base"', '"stillflow.llms.base"', '"docs/guides/keys.md"'),
        *('"tasks:topic"', '"to make runs cheap"', '"deployments/prefect.yaml"'),
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert moved(ROOT, f"said({text})", "a.py") == f"said({text})"


def test_an_import_whose_name_would_be_lost_is_refused_with_its_place() -> None:
    with pytest.raises(
        CannotMoveError, match=r"flows/x\.py, line 2: 'import flows\.engine\.run' makes the name 'flows'"
    ):
        moved(ROOT, "import os\nimport flows.engine.run\n", "flows/x.py")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "stillflow"
    write_package(ROOT, folder)
    return folder


def test_no_module_of_the_package_imports_one_that_isnt_under_the_root(package: Path) -> None:
    outside = {
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] in {"llms", "tasks", "flows", "deployments"}
    }

    assert outside == set()


def test_every_module_and_every_file_that_it_reads_is_in_the_package(package: Path) -> None:
    read_in_clones = {"gallery.py", "one_root.py"}
    here = {
        str(path.relative_to(ROOT))
        for each in ("llms", "tasks", "flows", "deployments")
        for path in (ROOT / each).rglob("*")
        if path.suffix in {".py", ".jinja2", ".css", ".json", ".jsonl"} and path.name not in read_in_clones
    }

    assert {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()} == {
        *here,
        "__init__.py",
        "py.typed",
    }


def test_templates_and_data_which_decide_keys_are_the_very_same(package: Path) -> None:
    kept = [
        path for path in package.rglob("*") if path.suffix in {".jinja2", ".json", ".jsonl"} or "data" in path.parts
    ]

    assert len(kept) > 40
    assert all(path.read_bytes() == (ROOT / path.relative_to(package)).read_bytes() for path in kept if path.is_file())


def test_every_module_is_imported_beside_a_team_that_has_packages_of_these_names(package: Path, tmp_path: Path) -> None:
    for name in ("llms", "tasks", "flows", "deployments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('a module of ours imports {name}')")
    modules = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if path.stem not in {"__main__", "sandbox_child"} and "data" not in path.parts
    ]
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(package.parent)!r}]\n"
    program += "\n".join(f"import {each}" for each in modules)

    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)

    assert len(modules) > 200
    assert done.returncode == 0, done.stderr[-2000:]
