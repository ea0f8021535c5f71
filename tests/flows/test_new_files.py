"""`new` writes files of one's own that pass their tests, and changes none that is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from llms.root import with_project
from tests.conftest import LONGEST, ROOT
from tests.warm import WarmPython


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, in which the commands are given."""
    made = tmp_path / "empty"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def new(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["new", *arguments])


def called(command: list[str], **variables: str) -> str:
    """What a command prints, which must succeed, with nothing but the project on its path."""
    environment = {**with_project(os.environ), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def test_each_written_file_passes_its_test_in_a_folder_of_its_own_and_in_a_package(folder: Path) -> None:
    (folder / "team" / "models").mkdir(parents=True)
    for package in ("team", "team/models"):
        (folder / package / "__init__.py").touch()

    for arguments in (
        ["flow", "reviews"],
        ["task", "rate_reviews"],
        ["llm", "our_llm"],
        ["flow", "answers", "no_package/answers_of_ours.py"],
        ["task", "sum_up", "no-name/sum_up.py"],
        ["task", "judge", "team/judge.py"],
        ["llm", "gpt_9", "team/models/gpt_9.py"],
    ):
        done = new(*arguments)
        assert done.exit_code == 0, done.output
    said = called([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"])

    assert {name for name in files_in(folder) if name.startswith("test_")} == {
        "test_our_llm.py",
        "test_rate_reviews.py",
        "test_reviews.py",
    }
    assert "class RateReviews(Task)" in (folder / "rate_reviews.py").read_text()
    assert "class OurLLM(AsyncLLM)" in (folder / "our_llm.py").read_text()
    assert "from team.models.gpt_9 import Gpt9" in (folder / "team/models/test_gpt_9.py").read_text()
    assert (
        "from no_package.answers_of_ours import answers" in (folder / "no_package/test_answers_of_ours.py").read_text()
    )
    assert "passed" in said


@pytest.mark.slow
def test_a_written_test_fails_where_its_file_doesnt_do_what_it_says(folder: Path) -> None:
    for kind, name, right, wrong in (
        ("flow", "reviews", "text_generation.map(rows)", "rows"),
        ("task", "rate_reviews", "if not sentence", "if False"),
        ("llm", "our_llm", ", Unasked()]", ', "asked"]'),
    ):
        new(kind, name)
        file = folder / f"{name}.py"
        assert right in file.read_text()
        file.write_text(file.read_text().replace(right, wrong))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]

    done = subprocess.run(command, env=with_project(os.environ), capture_output=True, text=True, timeout=LONGEST)

    assert done.returncode == 1, done.stdout
    for test in ("test_reviews.py::", "test_rate_reviews.py::", "test_our_llm.py::"):
        assert f"FAILED {test}" in done.stdout


def test_it_says_what_is_written_and_what_comes_next() -> None:
    done = new("task", "rate_reviews", "ours/rate.py")

    first, *commands = done.stdout.splitlines()
    assert first == "ours/rate.py has the Task RateReviews, ours/test_rate.py its test. Next:"
    assert commands == ["  python -m pytest ours/test_rate.py", "  python -m flows new flow rate_reviews_flow"]


def test_json_has_the_files_and_what_comes_next() -> None:
    said = json.loads(new("flow", "reviews", "--json").stdout)

    assert said["files"] == ["reviews.py", "test_reviews.py"]
    assert said["defines"] == "reviews"
    assert said["next"] == [
        "python -m pytest test_reviews.py",
        "python -m flows run reviews.py:reviews --rehearse",
        "python -m flows show reviews.py:reviews",
    ]


@pytest.mark.parametrize("there", ["reviews.py", "test_reviews.py"])
@pytest.mark.parametrize("kind", ["flow", "task", "llm"])
def test_a_file_that_is_there_stays_and_nothing_is_written_beside_it(folder: Path, kind: str, there: str) -> None:
    (folder / there).write_text("mine")

    done = new(kind, "reviews")

    assert done.exit_code == 1
    assert f"'{there}' is there already" in done.output
    assert f"python -m flows new {kind} reviews other_reviews.py" in done.output
    assert files_in(folder) == {there: "mine"}


REFUSED = {
    "camel case": (["task", "RateReviews"], "must be in snake case, got 'RateReviews': 'rate_reviews'?"),
    "a dash": (["task", "rate-reviews"], "must be in snake case, got 'rate-reviews': 'rate_reviews'?"),
    "no letters": (["task", "42"], "must be in snake case, got '42', such as 'rate_reviews'"),
    "a keyword": (
        ["flow", "import"],
        "'import' is one of Python's own names: choose another NAME, such as 'my_import'",
    ),
    "a built-in": (["flow", "print"], "'print' is one of Python's own names"),
    "the class of a built-in": (["task", "value_error"], "'ValueError' is one of Python's own names"),
    "a keyword as a class": (["task", "none"], "'None' is one of Python's own names"),
    "a module of Python's": (["task", "json"], "finds a module of Python's.* new task json my_json.py"),
    "an installed package": (["flow", "pydantic"], "finds '.*pydantic.*', and can't find 'pydantic.py' as well"),
    "flows": (["flow", "flows"], "finds a package of this project"),
    "tasks": (["task", "tasks"], "finds a package of this project.* new task tasks my_tasks.py"),
    "llms": (["llm", "llms"], "finds a package of this project"),
    "the root": (["llm", "stillflow"], "finds a package of this project"),
    "a module by its file": (["task", "rate", "json.py"], "an import of 'json' finds a module of Python's"),
    "a folder by its file": (["task", "rate", "json/rate.py"], "finds a module of Python's.* rate my_json/rate.py"),
    "a package elsewhere": (
        ["task", "rate", "pydantic/rate.py"],
        "finds '.*pydantic.*', and can't find 'pydantic/rate",
    ),
    "a module of one's own": (["task", "mine"], "finds '.*mine/__init__.py'"),
    "a function of the file's": (["flow", "save"], "uses 'save' for something else.*, such as 'my_save'"),
    "a parameter of the file's": (["flow", "source"], "uses 'source' for something else"),
    "a class of the file's": (["task", "task"], "uses 'Task' for something else"),
    "a name of the test's": (["flow", "provider"], "uses 'provider' for something else"),
    "a folder": (["task", "rate", "mine"], "must end in .py, got 'mine': 'mine/rate.py'?"),
    "a file that no import finds": (["task", "rate", "rate-1.py"], "no module can be called 'rate-1'"),
    "a file of pytest's": (["task", "rate", "test_rate.py"], "pytest would take 'test_rate.py'"),
    "no kind": (["step", "rate"], "'step' is not one of 'flow', 'task', 'llm'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_would_be_in_the_way_is_refused_with_the_way_out(folder: Path, case: str) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    arguments, said = REFUSED[case]

    done = new(*arguments)

    assert done.exit_code != 0
    assert re.search(said, " ".join(done.output.split())), done.output
    assert set(files_in(folder)) == {"mine/__init__.py"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["task", "rate", "rate/rate.py"],
        ["task", "notes"],
        ["task", "json", "my_json.py"],
        ["llm", "tasks", "mine/tasks.py"],
        ["flow", "rate", "../rate.py"],
    ],
    ids=" ".join,
)
def test_a_name_that_is_in_nobodys_way_is_taken(folder: Path, arguments: list[str]) -> None:
    for name in ("rate", "notes", "mine"):
        (folder / name).mkdir()
    (folder / "mine" / "__init__.py").touch()

    done = new(*arguments)

    assert done.exit_code == 0, done.output


def test_a_folder_that_cant_be_written_to_is_told(folder: Path) -> None:
    (folder / "taken").touch()

    done = new("task", "rate", "taken/rate.py")

    assert done.exit_code == 1
    assert "'taken/rate.py' can't be written: " in done.output


def test_the_commands_that_come_next_run(folder: Path, warm: WarmPython, prefect_api: str, storage: Path) -> None:
    said = [new("flow", "reviews"), new("task", "rate_reviews"), new("llm", "our_llm", "ours/our_llm.py")]
    commands = [line.split()[1:] for each in said for line in each.stdout.splitlines()[1:] if " pytest " not in line]

    printed = {
        " ".join(command): called([warm.executable, *command], PREFECT_API_URL=prefect_api) for command in commands
    }

    assert "reviews.py:reviews" in " ".join(printed)
    assert "1 row, 1 request answered" in printed["-m flows run reviews.py:reviews --rehearse"]
    assert "text_generation.llm.model: string" in printed["-m flows show reviews.py:reviews"]
    assert (folder / "data" / "reviews").is_dir()
    assert (folder / "test_rate_reviews_flow.py").exists()
    *_, with_llm = printed.values()
    assert '"generation": "You said: ' in with_llm


@pytest.mark.slow
def test_a_written_flow_is_deployed_as_it_stands(prefect_api: str) -> None:
    new("flow", "reviews")
    prefect = [sys.executable, "-m", "prefect"]

    called([*prefect, "work-pool", "create", "of-new-files", "--type", "process"], PREFECT_API_URL=prefect_api)
    deploy = ["deploy", "reviews.py:reviews", "--name", "mine", "--pool", "of-new-files"]
    called([*prefect, "--no-prompt", *deploy], PREFECT_API_URL=prefect_api)

    assert "reviews.py:reviews" in called(
        [*prefect, "deployment", "inspect", "reviews/mine"], PREFECT_API_URL=prefect_api
    )


@pytest.mark.slow
def test_the_written_files_satisfy_strict_types_and_the_linter(folder: Path) -> None:
    for kind, name in (("flow", "reviews"), ("task", "rate_reviews"), ("llm", "our_llm")):
        new(kind, name)
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    ruff = ["--isolated", "--line-length", "120"]

    called([sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable])
    called([sys.executable, "-m", "ruff", "check", *ruff, "--select", "E,F,I,UP,B,SIM,RUF", "--ignore", "B008"])
    called([sys.executable, "-m", "ruff", "format", "--check", *ruff])
