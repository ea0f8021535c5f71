"""What a list of runs tells: a name that says what runs, and a last message that says what came of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow as PrefectFlow
from prefect import flow as prefects_flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Completed
from prefect.utilities.names import generate_slug

from flows import Pipeline, flow, load, save
from flows.engine.costs import Cost
from flows.engine.outcome import Outcome
from flows.engine.run_name import is_generated, name_of
from flows.text_generation import text_generation
from llms import OpenAILLM, PriceSource
from llms.local_provider import FaultRule, LocalProvider
from tasks import LoadDataFromDicts, SaveToDisk, TextGeneration
from tests.conftest import LONGEST

ROWS = [{"instruction": f"What is {number}?"} for number in range(20)]


class Priced(OpenAILLM):
    """Asks any server at the price of OpenAI."""

    def price_source(self) -> PriceSource:
        return PriceSource("https://api.openai.com/v1", self.model)


def started(of: PrefectFlow[..., Any], parameters: dict[str, Any], name: str | None = None) -> Any:
    """A run of a flow as Prefect has it after its end, started under a name as a deployment starts one."""
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(of, name=name, parameters=parameters)
        go(of, parameters, made)
        return client.read_flow_run(made.id)


def go(of: PrefectFlow[..., Any], parameters: dict[str, Any], flow_run: Any = None) -> Any:
    """Run a flow in this process. Returns its last state."""
    begun: Any = run_flow(of, flow_run=flow_run, parameters=parameters, return_type="state")
    return asyncio.run(begun)


def of_text_generation(target: Path, **more: Any) -> dict[str, Any]:
    source = {"kind": "dicts", "data": ROWS}
    return {"source": source, "target": {"path": str(target)}, **more}


@pytest.fixture
def answering(tmp_path: Path) -> PrefectFlow[..., Any]:
    @flow(name="answering")
    async def answering(number: int = 20, max_failed_rows: float = 0.05) -> Any:
        rows = load(ROWS[:number]).map(TextGeneration(llm=Priced(model="gpt-4o-mini", max_retries=0)))
        return await save(rows, SaveToDisk(path=str(tmp_path / "out")), max_failed_rows=max_failed_rows)

    return answering


def test_a_name_that_prefect_made_up_becomes_what_runs(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    run = started(answering, {})

    assert run.name == "answering, 20 rows, gpt-4o-mini"


def test_a_ready_made_flow_says_what_runs_and_what_came_of_it(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    run = started(text_generation, of_text_generation(tmp_path / "out"), "Rustic-pizza")

    assert run.name == "text-generation, 20 rows, gpt-4o-mini"
    assert run.state.message == f"20 rows, none failed, saved to {tmp_path / 'out'}"


def test_a_pipelines_run_says_both_as_well(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    with Pipeline(name="stories") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> TextGeneration(name="write", llm=OpenAILLM(model="own-model")) >> SaveToDisk(path=str(tmp_path / "o"))

    run = started(pipeline.flow, {})

    assert run.name == "stories, 20 rows, own-model"
    assert run.state.message == f"20 rows, none failed, saved to {tmp_path / 'o'}"


def test_a_name_that_a_person_gave_stays(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    assert started(answering, {}, "nightly-eval").name == "nightly-eval"


def test_a_name_from_a_template_stays(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    named = answering.with_options(flow_run_name="amber-{number}")

    assert started(named, {"number": 3}).name == "amber-3"


def test_a_flow_of_prefects_own_keeps_its_names(provider: LocalProvider, storage: Path, prefect: str) -> None:
    @prefects_flow
    async def plain() -> None:
        await save(load(ROWS).map(TextGeneration(llm=OpenAILLM(model="m"))), SaveToDisk(path=str(storage / "out")))

    assert is_generated(started(plain, {}).name)


def test_a_retry_keeps_the_name_also_where_it_has_other_rows(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    provider.set(faults=[FaultRule(status=400, times=1)])
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(answering, parameters={"max_failed_rows": 0})
        first = go(answering, {"max_failed_rows": 0}, made)
        again = client.read_flow_run(made.id)
        client.set_flow_run_state(made.id, AwaitingRetry(), force=True)
        go(answering, {"number": 7}, again)
        last = client.read_flow_run(made.id)

    assert first.is_failed()
    assert again.name == last.name == "answering, 20 rows, gpt-4o-mini"
    assert last.state is not None
    assert last.state.message is not None
    assert last.state.message.startswith("7 rows, none failed, ")


def test_failed_rows_are_told_in_the_last_message(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    provider.set(faults=[FaultRule(status=400, times=2)])

    run = started(answering, {"max_failed_rows": 0.5})

    assert run.state.is_completed()
    assert run.state.message.startswith("20 rows, 2 of them failed, $")


def test_what_is_there_from_earlier_runs_is_told_apart(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    started(answering, {"number": 10})

    assert started(answering, {"number": 10}).state.message.count(" ($0.00 of it now)") == 1


def test_a_state_that_a_flow_returns_and_the_value_of_one_are_left_alone(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    @flow
    async def own_end(state: bool) -> Any:
        await save(load(ROWS[:2]).map(TextGeneration(llm=OpenAILLM(model="m"))), SaveToDisk(path=str(storage / "out")))
        return Completed(message="as I say", data=1) if state else [1, 2]

    assert started(own_end, {"state": True}).state.message == "as I say"
    assert go(own_end, {"state": False}).message is None


def test_several_datasets_are_told_together(provider: LocalProvider, storage: Path, prefect: str) -> None:
    @flow
    async def both() -> int:
        asked = load(ROWS[:3]).map(TextGeneration(llm=OpenAILLM(model="m")))
        one = await save(asked, SaveToDisk(path=str(storage / "one")))
        two = await save(asked, SaveToDisk(path=str(storage / "two")))
        return len(one) + len(two)

    run = started(both, {})

    assert run.state.message == f"6 rows, none failed, saved to {storage / 'one'} and {storage / 'two'}"


def test_every_name_that_prefect_makes_up_is_known_and_none_of_a_persons() -> None:
    assert all(is_generated(generate_slug(2)) for _ in range(2000))
    assert is_generated("Handcrafted-tuna")
    others = ["nightly-eval", "run-1", "panda", "amber", "Small-", "the Practical-run", "a-b-c", "", "Small-experiment"]
    assert [name for name in others if is_generated(name)] == ["Small-"]


def test_many_or_long_names_of_models_are_cut() -> None:
    assert name_of("f", ["a", "b", "c", "d", "e"], 1) == "f, 1 row, a, b, c, 2 more models"
    assert len(name_of("f", ["m" * 500], 1)) < 160


def test_an_outcome_in_words() -> None:
    assert str(Outcome(1)) == "1 row, none failed"
    whole = Outcome(2000, 3, Cost(1.2), Cost(0.4, partial=True), ("a", "b"))
    assert str(whole) == "2,000 rows, 3 of them failed, $1.20 (at least $0.40 of it now), saved to a and b"


def artifacts_of(run: Any) -> dict[str, list[Any]]:
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found: dict[str, list[Any]] = {}
    with get_client(sync_client=True) as client:
        for each in client.read_artifacts(artifact_filter=own):
            found.setdefault(str(each.key), []).append(each.data)
    return found


def test_a_retrys_report_takes_the_place_of_the_failed_attempts(
    answering: PrefectFlow[..., Any],
    provider: LocalProvider,
    storage: Path,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A run that takes longer has a page of its progress beside its report.
    monkeypatch.setattr("flows.engine.execution.PROGRESS_SECONDS", LONGEST)
    provider.set(faults=[FaultRule(status=400, message="not now", times=2)])
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(answering, parameters={"max_failed_rows": 0})
        go(answering, {"max_failed_rows": 0}, made)
        failed = artifacts_of(made)
        client.set_flow_run_state(made.id, AwaitingRetry(), force=True)
        go(answering, {"max_failed_rows": 0}, client.read_flow_run(made.id))
        done = artifacts_of(made)

    assert sorted(failed) == ["failed-rows", "run-report"]
    assert "**Ended after" in failed["run-report"][0]
    assert "not now" in failed["run-report"][0]
    (report,) = done.pop("run-report")
    assert report.startswith("Done in ")
    assert "## Sample" in report
    assert "not now" not in report
    assert done == {}


def test_failed_rows_of_a_retry_take_the_place_of_those_before(
    answering: PrefectFlow[..., Any], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    provider.set(faults=[FaultRule(status=400, message="not now", times=3)])
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(answering, parameters={"max_failed_rows": 0})
        go(answering, {"max_failed_rows": 0}, made)
        provider.set(faults=[FaultRule(status=400, message="never", times=1)])
        client.set_flow_run_state(made.id, AwaitingRetry(), force=True)
        go(answering, {"max_failed_rows": 0.5}, client.read_flow_run(made.id))
        (table,) = artifacts_of(made)["failed-rows"]

    assert ["never" in row["message"] for row in json.loads(table)] == [True]
