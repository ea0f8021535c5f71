"""A key that a provider repeats stands nowhere after a run: not in its files, and not at the Prefect server."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prefect as prefect_package
import pytest

from flows import collect, load
from flows.authoring.parameters import flow
from flows.authoring.saving import save
from flows.text_generation import text_generation
from llms import AuthenticationError, OpenAILLM
from llms.credentials import ADDRESSES_VARIABLE
from tasks import LoadDataFromDicts, SaveToDisk, Step, StepInput, StepOutput, TextGeneration
from tests.conftest import LONGEST
from tests.echoing import EchoServer, answer, refusal
from tests.flows.test_cli import call
from tests.warm import WarmPython

KEY = "sk-Planted-Key-0123456789abcdef-SECRET"
ROWS = [{"instruction": f"Tell me about number {number}."} for number in range(4)]
WORDS = "Invalid proxy server token passed. Received API Key = {key}, as {url}, as Basic {basic}"


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[EchoServer]:
    """A gateway that repeats the key: it refuses the first row, answers the second with the key, the others plainly."""

    def reply(key: str, body: dict[str, Any]) -> tuple[int, Any]:
        asked = body["messages"][-1]["content"]
        if "number 0" in asked:
            return refusal(WORDS)(key, body)
        return answer(key if "number 1" in asked else "nobody", body)

    monkeypatch.setattr("llms.credentials._in_code", set())
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with EchoServer(reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        yield server


def asked(api: str, path: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(
        f"{api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request) as reply:
        return reply.read().decode()


def files_with(text: str, *folders: Path) -> list[str]:
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path.name for path in found if text.encode() in path.read_bytes()]


async def logged(api: str, flow_run: str, wanted: str) -> str:
    """The log of a run at the server, once `wanted` is in it: lines go there a little later."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        log = asked(api, "logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
        if wanted in log:
            return log
        await asyncio.sleep(0.2)
    pytest.fail(f"{wanted!r} never stood in the log")


def test_after_a_run_it_stands_in_no_file_no_artifact_and_no_log(
    echo: EchoServer, prefect: str, storage: Path, tmp_path: Path
) -> None:
    target = SaveToDisk(path=str(tmp_path / "out"))

    @flow(name="keys")
    async def keys(task: TextGeneration = TextGeneration(name="gen", llm=OpenAILLM(model="m", max_retries=0))) -> Any:
        rows = await save(task.map(load(ROWS)), target, max_failed_rows=1)
        prefect_package.get_run_logger().info("the first row: %s, with %s", rows[0], KEY)
        return rows, prefect_package.runtime.flow_run.id

    rows, run = asyncio.run(keys())

    assert set(echo.keys) == {KEY}
    assert "Received API Key = ***, as ***" in str(rows[0]["distilabel_metadata"])
    assert rows[1]["generation"] == "You are ***, aren't you?"
    assert files_with(KEY, storage, tmp_path / "out") == []
    artifacts = asked(prefect, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert "Received API Key" in artifacts
    assert KEY not in artifacts
    log = asyncio.run(logged(prefect, run, "the first row"))
    assert "Received API Key = ***" in log
    assert KEY not in log


class Tells(Step):
    """A step of a user's own that fails with too many words."""

    def process(self, inputs: StepInput) -> StepOutput:
        raise RuntimeError(f"can't reach https://me:{KEY}@db.example")


def test_nor_does_it_stand_in_the_state_of_a_run_that_failed(
    echo: EchoServer, prefect: str, storage: Path, tmp_path: Path
) -> None:
    llm = OpenAILLM(model="m", max_retries=0)
    llm.load()

    @flow(name="refused")
    async def refused(step: TextGeneration = TextGeneration(llm=llm)) -> Any:
        return await save(step.map(load(ROWS)), SaveToDisk(path=str(tmp_path / "out")), max_failed_rows=0)

    @flow(name="broken")
    async def broken() -> Any:
        return await save(Tells().map(load(ROWS)), SaveToDisk(path=str(tmp_path / "out")))

    @flow(name="own-words")
    def own_words() -> Any:
        raise ValueError(f"I was given {KEY}")

    for each, said in ((refused, "Received API Key = ***"), (broken, "me:***@db"), (own_words, "I was given ***")):
        state: Any = each(return_state=True)
        state = asyncio.run(state) if asyncio.iscoroutine(state) else state
        assert state.is_failed()
        assert said in state.message
        assert KEY not in state.message
        runs = asked(prefect, "flow_runs/filter", {"flows": {"name": {"any_": [each.name]}}})
        assert said in runs
        assert KEY not in runs
        tasks = asked(prefect, "task_runs/filter", {"flows": {"name": {"any_": [each.name]}}})
        assert KEY not in tasks
    assert files_with(KEY, storage) == []


def test_the_command_line_doesnt_show_it(
    echo: EchoServer, warm: WarmPython, prefect_api: str, storage: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    done = call(
        warm.executable, "run", "text_generation", f"source.data_files={prompts}", f"target.path={tmp_path / 'out'}",
        "max_failed_rows=0", api=prefect_api, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=f"{echo.url}/v1",
    )  # fmt: skip

    assert done.returncode == 1
    assert "Received API Key = ***" in done.stderr
    assert KEY not in done.stdout + done.stderr


# Addresses that come with a run's parameters


def run_with(url: str, prefect: str, tmp_path: Path) -> Any:
    source = LoadDataFromDicts(data=ROWS[2:])
    parameters: dict[str, Any] = {
        "source": source,
        "target": {"path": str(tmp_path / "out")},
        "text_generation": {"llm": {"base_url": url, "max_retries": 0}},
    }
    return asyncio.run(text_generation(**parameters))


def test_an_address_that_comes_as_a_parameter_doesnt_get_the_workers_key(
    echo: EchoServer, prefect: str, storage: Path, tmp_path: Path
) -> None:
    with EchoServer(answer) as other:
        made = run_with(f"{other.url}/v1", prefect, tmp_path)

    assert len(made) == 2
    assert set(other.keys) == {"none"}
    assert KEY not in json.dumps(other.headers)


def test_one_beyond_the_own_network_is_refused_with_the_way_out(
    echo: EchoServer, prefect: str, storage: Path, tmp_path: Path
) -> None:
    with pytest.raises(AuthenticationError, match=r"isn't sent to https://elsewhere\.example.*STILLFLOW_KEY_ADDRESSES"):
        run_with("https://elsewhere.example/v1", prefect, tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_operators_list_lets_it_have_the_key(
    echo: EchoServer, prefect: str, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EchoServer(answer) as other:
        monkeypatch.setenv(ADDRESSES_VARIABLE, other.url)
        run_with(f"{other.url}/v1", prefect, tmp_path)

    assert set(other.keys) == {KEY}


def test_an_address_in_code_gets_it_without_further_ado(echo: EchoServer, storage: Path) -> None:
    with EchoServer(answer) as other:
        rows = load(ROWS[2:]).map(TextGeneration(llm=OpenAILLM(model="m", base_url=f"{other.url}/v1")))
        collect(rows)

    assert set(other.keys) == {KEY}
