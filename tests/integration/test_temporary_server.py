"""`python -m flows run` where no Prefect server is configured: it has one of its own, and leaves none behind."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from flows import temporary_server
from flows.temporary_server import server_where_none_is_configured
from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, ROOT, wait_for
from tests.integration.stack import processes_with

MARK = "STILLFLOW_TEST_RUN"


class RunAlone:
    """A run without a server, started as a user does it. Its processes are known by a mark in their environment."""

    def __init__(self, folder: Path, *parameters: str) -> None:
        (folder / "prompts.jsonl").write_text('{"instruction": "Say one."}\n')
        self.mark = uuid.uuid4().hex
        self.out = folder / "out"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flows", "run", "text_generation", *parameters),
                *(f"source.data_files={folder / 'prompts.jsonl'}", f"target.path={self.out}"),
            ],
            cwd=ROOT,
            env={
                **environment,
                "PREFECT_HOME": str(folder / "home"),
                "STILLFLOW_STORAGE": str(folder / "storage"),
                MARK: self.mark,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[int]:
        return processes_with(MARK, self.mark)


def test_a_run_without_a_server_has_one_of_its_own_that_ends_with_it(provider: LocalProvider, tmp_path: Path) -> None:
    run = RunAlone(tmp_path)
    stdout, stderr = run.process.communicate(timeout=LONGEST)

    assert run.process.returncode == 0, stderr
    assert "starting a Prefect server for this run alone" in stderr
    assert "Beginning flow run" in stderr
    # Nobody is sent to a page that isn't there.
    assert "View at" not in stderr
    assert "Error logging" not in stderr
    assert f"saved to {run.out}" in stdout
    assert (tmp_path / "home" / "prefect.db").exists()
    assert run.processes() == []


def test_a_run_that_is_killed_leaves_no_server_behind(provider: LocalProvider, tmp_path: Path) -> None:
    provider.set(latency=120.0)
    run = RunAlone(tmp_path)
    wait_for(lambda: provider.stats.in_flight == 1, what="the request")
    assert len(run.processes()) == 2

    run.process.kill()
    run.process.wait()

    wait_for(lambda: not run.processes(), what="the end of the run's server")


def test_a_wrong_parameter_is_told_without_a_server_and_without_its_database(
    provider: LocalProvider, tmp_path: Path
) -> None:
    run = RunAlone(tmp_path, "text_generation.num_generation=2")
    _, stderr = run.process.communicate(timeout=LONGEST)

    assert run.process.returncode == 1
    assert "Did you mean 'num_generations'" in stderr
    assert "starting a Prefect server" not in stderr
    assert not (tmp_path / "home" / "prefect.db").exists()
    assert run.processes() == []


def test_a_server_that_is_never_told_to_serve_makes_no_database(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    done = subprocess.run(
        [sys.executable, "-m", "flows.temporary_server", str(temporary_server.free_port())],
        cwd=ROOT,
        env={**environment, "PREFECT_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        timeout=LONGEST,
    )

    assert done.returncode == 0
    assert not (tmp_path / "home" / "prefect.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["show", "text_generation"],
        ["check"],
        ["run", "text_generaton"],
        ["run", "text_generation", "source.data_files"],
        ["run", "nowhere.py:flow"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_are_shown_without_a_server(arguments: list[str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home, storage = tmp_path / "home", tmp_path / "storage"

    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=ROOT,
        env={**environment, "PREFECT_HOME": str(home), "STILLFLOW_STORAGE": str(storage), MARK: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )

    assert "starting a Prefect server" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "prefect.db").exists()
    assert processes_with(MARK, str(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("home/profiles.toml", '[profiles.cloud]\nPREFECT_API_URL = "https://example.org/api"\n'),
        ("prefect.toml", '[api]\nurl = "https://example.org/api"\n'),
        (".env", "PREFECT_API_URL=https://example.org/api\n"),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "https://example.org/api"\n'),
    ],
)
def test_no_server_is_started_where_one_may_be_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)

    assert server_where_none_is_configured() is None


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_SERVER_EPHEMERAL_ENABLED"])
def test_nor_where_a_variable_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(variable, "something")

    assert server_where_none_is_configured() is None


def test_a_server_that_cant_start_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.engine.errors import SetupError

    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    server = temporary_server.TemporaryServer.start()

    with pytest.raises(SetupError, match="ended with status .* use one of your own, by PREFECT_API_URL"):
        server.wait_until_ready()
