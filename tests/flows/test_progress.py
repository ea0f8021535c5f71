"""How far a run is: its page in Prefect's UI, kept up to date, and the lines of its log."""

from __future__ import annotations

import asyncio
import re
import threading
from contextvars import copy_context
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

from flows import collect, flow, load
from flows.engine.artifacts import publish_progress
from flows.engine.event_loops import setting
from flows.engine.pace import pace_of
from flows.engine.report import progress_line, progress_markdown, summary_lines, waiting_line
from flows.engine.run import Run, current_run, progress_listener, run_started
from flows.ledger.records import JobRecord
from flows.waiting.watching import Watched
from tests.conftest import LONGEST, said, wait_for
from tests.flows.test_budget import PROMPTS, USAGE, task
from tests.scripted import Reply, Scripted, completion

HELD_UP = "| text_generation | 30 of 40 | 30 |"
HELD_UP_LINE = "text_generation: 30 of 40 rows, "


def cent(body: dict[str, Any]) -> Reply:
    """A cent's answer; none to number 7."""
    return completion("" if "number 7" in str(body) else "Fine.", usage=USAGE)


def test_it_says_rows_of_how_many_dollars_spent_and_expected_and_failures_also_of_a_step_that_hasnt_all_its_rows(
    storage: Path,
) -> None:
    pages: list[str] = []
    lines: list[str] = []

    def listen(run: Run) -> None:
        pages.append(progress_markdown(run, "Running."))
        lines.extend(progress_line(each, pace_of(run, each)) for each in run.progress.values())
        if any(HELD_UP in page for page in pages) and any(line.startswith(HELD_UP_LINE) for line in lines):
            held.set()

    held = threading.Event()

    def hold(body: dict[str, Any]) -> Reply:
        """Answers the first 30 prompts, and the last 10 when that was seen."""
        if re.search(r"number 3\d", str(body)):
            held.wait(LONGEST)
        return cent(body)

    with Scripted(hold) as server, setting(progress_listener, listen):
        again = task(server).model_copy(update={"name": "again", "input_mappings": {"instruction": "generation"}})
        collect(load(PROMPTS, shard_rows=10).map(task(server)).map(again), max_failed_rows=0.9)

    held_up = next(page for page in pages if HELD_UP in page)
    assert "| $0.30 of about $0.40 |" in held_up
    assert any(line.startswith(HELD_UP_LINE) and "$0.30 of about $0.40" in line for line in lines)
    # A row that failed isn't asked for in the next step, which has gone through it all the same.
    assert re.search(r"\| text_generation \| 40 of 40 \| 40 \|.*\| \$0\.40 \| 1 \|", pages[-1])
    assert re.search(r"\| again \| 40 of 40 \| 39 \|.*\| \$0\.39 \| 0 \|", pages[-1])


def test_a_run_of_one_row_speaks_of_one_row_one_request_and_one_shard(storage: Path) -> None:
    runs: list[Run] = []
    replies = iter(["", "Fine."])
    with (
        Scripted(lambda body: completion(next(replies), usage=USAGE)) as server,
        setting(run_started, runs.append),
    ):
        for _ in range(3):
            collect(load(PROMPTS[:1]).map(task(server)), max_failed_rows=1)

    lines = [line for run in runs for line in summary_lines(run)]
    assert [line for line in lines if line.startswith("text_generation: ")] == [
        "text_generation: 1 row, 1 request answered, 1 row failed",
        "text_generation: 1 row, 2 requests answered",
        "text_generation: 1 row, 1 of 1 shard from the cache",
    ]
    assert not any(re.search(r"\b1 (rows|requests|shards)", line) for line in lines)


def test_a_run_that_waits_for_one_job_and_one_request_says_so() -> None:
    job = JobRecord(
        intent="i", run="r", attempt="r:1", flow_run="f", step="ask", space="s", llm={}, queue="q", requests=1, size=1,
        tokens=1, shards="0-0", sample=[], intended=0.0,
    )  # fmt: skip

    line = waiting_line([job], [], 1, None)

    assert line == "0 of 1 job done, 0 of 1 request, 1 request waits until the provider takes it"
    assert Watched(runs=1, asked=1, woken=["a"]).line() == "1 run waits, 1 job asked for, 1 run woken"


@pytest.mark.usefixtures("prefect")
def test_a_run_has_one_page_that_its_log_names_once_and_its_retry_brings_up_to_date(
    storage: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flows.engine.execution.PROGRESS_SECONDS", 0.2)
    runs: list[Run] = []
    seen: list[Any] = []

    def artifacts() -> list[Any]:
        if not runs:
            return []
        own = ArtifactFilterFlowRunId(any_=[UUID(runs[0].flow_run.id)])
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=own))
        return [each for each in found if (each.key or "").startswith("progress-")]

    def breaking(body: dict[str, Any]) -> Reply:
        """The key is refused once, after half of the answers, when the page is there."""
        if len(server.asked) > 20 and not seen:
            seen.extend(wait_for(artifacts, what="the page of the run"))
            return 401, {"error": {"message": "wrong key"}}
        return completion("Fine.", usage=USAGE)

    @flow(retries=1, retry_delay_seconds=0)
    def retried() -> Any:
        return collect(load(PROMPTS, shard_rows=10).map(task(server)), max_failed_rows=0.9)

    with Scripted(breaking) as server, setting(run_started, runs.append):
        # Answers are given in threads, which know no settings of this one.
        context = copy_context()
        server.reply = lambda body: context.copy().run(breaking, body)
        retried()

    (page,) = artifacts()
    assert {each.id for each in seen} == {page.id}
    assert page.data.startswith("Done in ")
    assert "| text_generation | 40 of 40 | 40 |" in page.data
    assert page.task_run_id is None
    named = [record.getMessage() for record in caplog.records if str(page.id) in record.getMessage()]
    assert len(named) == len(runs) == 2
    assert all(re.fullmatch(rf"how far it is: http://[^/]+/v2/artifacts/artifact/{page.id}", each) for each in named)


@pytest.mark.usefixtures("prefect")
def test_a_page_that_a_run_ends_in_the_making_of_is_named_and_says_how_it_ended(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def pages() -> list[Artifact]:
        """Asked for in the event loop's thread: whatever is under way there waits."""
        own = ArtifactFilterFlowRunId(any_=[UUID(run.flow_run.id)])
        with get_client(sync_client=True) as client:
            return client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=own))

    @flow
    async def ending() -> None:
        nonlocal run
        run = current_run(str(storage))
        showing = asyncio.create_task(publish_progress(run, "Running."))
        while not pages():
            await asyncio.sleep(0)
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        assert showing.cancelled()
        await publish_progress(run, "Ended.", begin=False)

    run = cast("Run", None)
    asyncio.run(ending())

    (page,) = pages()
    assert page.data.startswith("Ended.")
    (named,) = [each for each in said(caplog, "") if str(page.id) in each]
    assert named.startswith("how far it is: http")
