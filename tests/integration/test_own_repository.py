"""The wheel, in a repository that has packages called `flows`, `tasks` and `llms` of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deployments.one_root import moved
from llms.local_provider import LocalProvider
from tests.conftest import ROOT
from tests.installed import OF_CLONES, PIP, Repository, called, installed
from tests.integration.stack import Process, Server, kill_all, private_environment
from tests.test_readme import OWN_REPOSITORY
from tests.warm import WarmPython

GUIDE = OWN_REPOSITORY.read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_PROGRAMS = re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```$)?", README, re.MULTILINE | re.DOTALL)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OWN = """
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llms import AsyncLLM, ChatType, GenerateOutput
from tasks import Task


class OwnLLM(AsyncLLM):
    voice: str = "high"

    @property
    def model_name(self) -> str:
        return "own"

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        from llms.typing import Usage

        with Path(os.environ["CALLS"]).open("a") as file:
            file.write("called\\n")
        counts = [1] * num_generations
        said = [self.voice + str(input[-1]["content"])] * num_generations
        return {"generations": said, "statistics": {"input_tokens": counts, "output_tokens": counts}}


class OwnTask(Task):
    @property
    def inputs(self):
        return ["instruction"]

    @property
    def outputs(self):
        return ["answer", "model_name"]

    def format_input(self, input):
        return [{"role": "user", "content": f"In short: {input['instruction']}"}]

    def format_output(self, output, input):
        from tasks import UnreadableAnswerError

        if not output:
            raise UnreadableAnswerError("there's nothing")
        return {"answer": output}
"""
PIPELINE = """
import json

from flows import Pipeline
from llms import MixtureOfAgentsLLM, OpenAILLM
from own import OwnLLM, OwnTask
from tasks import EvolInstruct, LoadDataFromDicts, TextGeneration

llm = OpenAILLM(model="gpt-4o-mini", generation_kwargs={"max_new_tokens": 30})
batch = OpenAILLM(model="gpt-4o-mini", use_offline_batch_generation=True)
agents = MixtureOfAgentsLLM(aggregator_llm=llm, proposers_llms=[OpenAILLM(model="gpt-4o")])
with Pipeline(name="same") as pipeline:
    rows = LoadDataFromDicts(name="rows", data=[{"instruction": f"Tell me about number {n}."} for n in range(4)])
    rows >> [
        TextGeneration(name="online", llm=llm, num_generations=2),
        TextGeneration(name="batch", llm=batch),
        TextGeneration(name="agents", llm=agents),
        TextGeneration(name="own_llm", llm=OwnLLM()),
        EvolInstruct(name="evolved", llm=llm, num_evolutions=2),
        OwnTask(name="own_task", llm=llm),
    ]

if __name__ == "__main__":
    print(json.dumps({name: list(each) for name, each in sorted(pipeline.run().items())}))
"""


def environment_of(repository: Repository, api: str, **more: str) -> dict[str, str]:
    """Of this machine's user nothing, and the commands of what is installed."""
    found = private_environment(repository.folder.parent, api, **more)
    return {**found, "PATH": f"{repository.bin}{os.pathsep}{found['PATH']}"}


@pytest.fixture(scope="module")
def as_installed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A team's, with what the guide writes into it."""
    made = installed(tmp_path_factory.mktemp("own-repository"))
    for name, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL):
        made.write(name, text)
    (made.folder.parent / "home").mkdir()
    return made


@pytest.fixture(scope="module")
def repository(as_installed: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """The same, with commands that have imported already what is installed."""
    made = replace(as_installed, bin=tmp_path_factory.mktemp("bin"))
    environment = environment_of(as_installed, "")
    with WarmPython(made.folder, environment, ["stillflow"], python=as_installed.python) as running:
        shutil.copy(running.executable, made.python)
        for name in ("stillflow", "prefect"):
            script = made.bin / name
            _, code = (as_installed.bin / name).read_text().split("\n", 1)
            script.write_text(f"#!{made.python}\n{code}")
            script.chmod(0o755)
        yield made


def test_the_wheels_metadata_has_the_version_each_extra_and_every_bound(as_installed: Repository) -> None:
    with zipfile.ZipFile(as_installed.wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata: Message = Parser().parsestr(file.read(name).decode())
    wanted = {
        (extra, str(Requirement(each).specifier), Requirement(each).name.replace("_", "-"))
        for extra, requirements in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
        for each in requirements
    }
    found = {
        (str(each.marker or "").removeprefix("extra == ").strip('"'), str(each.specifier), each.name)
        for each in map(Requirement, metadata.get_all("Requires-Dist", []))
    }

    assert metadata["Version"] == PROJECT["version"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert found == wanted


@pytest.mark.parametrize("extra", ["s3", pytest.param("dask,dedup,redis", marks=pytest.mark.full)])
def test_an_extra_installs_by_its_name(as_installed: Repository, extra: str) -> None:
    pip = [*PIP, "--python", as_installed.python, "install", "--no-index"]

    done = called([*pip, f"stillflow[{extra}]"], as_installed.folder, os.environ)

    assert "does not provide the extra" not in done.stderr
    wanted = [each for name in extra.split(",") for each in PROJECT["optional-dependencies"][name]]
    assert [each for each in wanted if Requirement(each).name not in done.stdout] == []


def test_an_editable_install_is_refused_with_the_way_out(tmp_path: Path, as_installed: Repository) -> None:
    pip = [*PIP, "install", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]

    done = called([*pip, "--editable", str(ROOT)], tmp_path, os.environ, status=1)

    assert "work in the clone" in done.stdout + done.stderr


def test_the_console_script_says_the_version_and_shows_its_own_name(as_installed: Repository) -> None:
    environment = environment_of(as_installed, "")

    said = called(["stillflow", "--version"], as_installed.folder, environment).stdout
    shown = called(["stillflow", "run", "--help"], as_installed.folder, environment).stdout

    assert said == f"stillflow {PROJECT['version']}\n"
    assert "  stillflow run text_generation" in shown
    assert "python -m" not in shown


def test_the_check_finds_what_is_required_and_the_extras(as_installed: Repository, prefect_api: str) -> None:
    done = called(["stillflow", "check", "--json"], as_installed.folder, environment_of(as_installed, prefect_api))

    found = {each["about"]: each["state"] for each in json.loads(done.stdout)}
    assert found["packages"] == "ok"
    assert {f"extra: {extra}" for extra in PROJECT["optional-dependencies"]} <= found.keys()


def test_a_ready_made_flow_rehearses_with_the_prompts_that_came_with_it(
    as_installed: Repository, prefect_api: str
) -> None:
    command = ["stillflow", "run", "text_generation", "--rehearse", "--rows", "3"]

    done = called(command, as_installed.folder, environment_of(as_installed, prefect_api))

    assert "text_generation: 3 rows, 3 requests answered" in done.stdout
    assert not (as_installed.folder / "stillflow").exists()


def test_functions_that_came_with_the_project_are_run(repository: Repository, prefect_api: str, tmp_path: Path) -> None:
    command = ["stillflow", "run", "function_calling", "--rehearse", f"target.path={tmp_path / 'out'}"]

    done = called(command, repository.folder, environment_of(repository, prefect_api))

    assert f"saved to {tmp_path / 'out'}" in done.stdout


@pytest.mark.parametrize("number", range(len(README_PROGRAMS)))
def test_a_program_of_the_readme_runs_under_the_root_beside_a_teams_own_packages(
    repository: Repository, prefect_api: str, provider: LocalProvider, number: int
) -> None:
    provider.set(answers={"Is this review": "Positive."})
    program, printed = README_PROGRAMS[number]
    repository.write("program.py", f"import flows, tasks, llms\n{moved(ROOT, program, 'program.py')}")
    environment = environment_of(repository, prefect_api, OPENAI_BASE_URL=provider.base_url)

    done = called([repository.python, "program.py"], repository.folder, environment)

    assert not printed or done.stdout == printed


def test_the_guides_flow_with_a_task_of_the_teams_own_is_previewed_and_run(
    repository: Repository, prefect_api: str, provider: LocalProvider
) -> None:
    provider.set(answers={"Is this review": "Positive."})
    environment = environment_of(repository, prefect_api, OPENAI_BASE_URL=provider.base_url)
    commands = re.findall(r"^stillflow (.*)$", GUIDE, re.MULTILINE)

    preview, run = (called(["stillflow", *each.split()], repository.folder, environment).stdout for each in commands)

    assert "Is this review positive or negative? One word." in preview
    assert '"sentiment": "positive"' in run
    assert [each.body["temperature"] for each in provider.requests if each.body] == [0]


@pytest.mark.slow
def test_new_files_of_the_teams_own_pass_their_tests_and_the_commands_that_come_next_run(
    repository: Repository, prefect_api: str
) -> None:
    environment = environment_of(repository, prefect_api)
    names = {"flow": "flows/answers.py", "task": "tasks/rate.py", "llm": "our_llm.py"}

    for kind, file in names.items():
        written = called(["stillflow", "new", kind, Path(file).stem, file, "--json"], repository.folder, environment)
        for command in json.loads(written.stdout)["next"]:
            called(command.split(), repository.folder, environment)

    texts = {file: (repository.folder / file).read_text() for file in names.values()}
    assert all("from stillflow." in text and "python -m flows" not in text for text in texts.values())
    assert "from tasks.rate import Rate" in (repository.folder / "tasks/test_rate.py").read_text()
    assert (repository.folder / "rate_flow.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["the clone", pytest.param("the wheel", marks=pytest.mark.full)])
def test_answers_that_one_has_paid_for_are_served_to_the_other_without_a_request(
    repository: Repository, prefect_api: str, provider: LocalProvider, tmp_path: Path, first: str
) -> None:
    places = {"the clone": tmp_path, "the wheel": repository.folder}
    for place, folder in places.items():
        for name, text in {"own.py": OWN, "same.py": PIPELINE}.items():
            (folder / name).write_text(text if place == "the clone" else moved(ROOT, text, name))
    shared = {
        "OPENAI_BASE_URL": provider.base_url,
        "STILLFLOW_STORAGE": str(tmp_path / "storage"),
        "CALLS": str(tmp_path / "calls"),
    }
    environment = environment_of(repository, prefect_api, **shared)

    def rows_of(place: str) -> dict[str, list[object]]:
        python = repository.python if place == "the wheel" else sys.executable
        path = {"PYTHONPATH": str(ROOT)} if place == "the clone" else {}
        return json.loads(called([python, "same.py"], places[place], {**environment, **path}).stdout.splitlines()[-1])

    paid = rows_of(first)
    sent, calls = len(provider.requests), (tmp_path / "calls").read_text().count("called")
    spaces = sorted(path.name for path in (tmp_path / "storage" / "ledger").iterdir())
    served = rows_of(next(place for place in places if place != first))

    assert set(paid) == {"agents", "batch", "evolved", "online", "own_llm", "own_task"}
    assert (sent > 4 * 6, calls) == (True, 4)
    assert len(provider.requests) == sent
    assert (tmp_path / "calls").read_text().count("called") == calls
    assert sorted(path.name for path in (tmp_path / "storage" / "ledger").iterdir()) == spaces
    assert served == paid


@pytest.fixture
def worker(repository: Repository, prefect_api: str, provider: LocalProvider) -> Iterator[Process]:
    """A worker of the team's pool, to which the guide's prefect.yaml is deployed."""
    environment = environment_of(repository, prefect_api, OPENAI_BASE_URL=provider.base_url, OF_THE_TEAM="yes")
    prefect = [line.split() for line in re.findall(r"^(prefect (?:work-pool|deploy|worker) .*)$", GUIDE, re.MULTILINE)]
    for command in prefect[:2]:
        called(command, repository.folder, environment)
    log = repository.folder.parent / "worker.log"
    try:
        with Process("worker", prefect[2], cwd=repository.folder, environment=environment, log=log) as running:
            running.wait_for_output("started!")
            yield running
    finally:
        kill_all("OF_THE_TEAM", "yes")


@pytest.mark.slow
def test_deployments_of_a_teams_flow_and_of_a_ready_made_one_run_under_a_worker(
    repository: Repository, prefect_api: str, provider: LocalProvider, worker: Process, tmp_path: Path
) -> None:
    provider.set(answers={"Is this review": "Negative."})
    server = Server(prefect_api, worker.log, [worker])
    ready_made = {"target": {"path": str(tmp_path / "out")}, "text_generation": {"llm": {"model": "of-the-run"}}}

    runs = [server.start("reviews/reviews", {}), server.start("text-generation/text-generation", ready_made)]
    for run in runs:
        server.wait(run)

    assert server.deployment("reviews/reviews")["entrypoint"] == "flows.reviews:pipeline.flow"
    asked = [each.body for each in provider.requests if each.body]
    assert sum("Is this review" in each["messages"][-1]["content"] for each in asked) == 1
    assert {each["model"] for each in asked} == {"gpt-4o-mini", "of-the-run"}
    assert (tmp_path / "out" / "README.md").exists()


@pytest.fixture(scope="module")
def with_tests(as_installed: Repository) -> Repository:
    as_installed.copy_tests()
    return as_installed


@pytest.mark.slow
def test_tests_of_keys_own_code_and_examples_pass_on_the_wheel(with_tests: Repository) -> None:
    files = (
        "llms/test_questions.py",
        "tasks/test_own_code.py",
        "flows/test_digest_properties.py",
        "test_docstrings.py",
    )

    assert with_tests.passes(["-q", "-n", "0", *(f"tests/{each}" for each in files)]).returncode == 0


@pytest.mark.full
def test_the_quick_tests_pass_on_the_wheel(with_tests: Repository) -> None:
    assert with_tests.passes(["-q", "-m", "quick"]).returncode == 0


def test_every_test_that_is_left_out_on_the_wheel_exists() -> None:
    for name in OF_CLONES:
        file, _, function = name.partition("::")
        assert (ROOT / file).exists(), name
        assert f"def {function}" in (ROOT / file).read_text() if function else True, name
