"""From a run to its rows: the command in its report, and two runs side by side that saved to the same place."""

from __future__ import annotations

import asyncio
import re
import shlex
import urllib.request
from pathlib import Path
from typing import Any

from prefect import Flow as PrefectFlow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.flow_engine import run_flow

from flows import flow, load, save
from llms import OpenAILLM, PriceSource
from llms.local_provider import LocalProvider
from tasks import SaveToFiles, TextGeneration
from tests.conftest import wait_for
from tests.viewing import viewed


class Priced(OpenAILLM):
    """Asks any server at the price of OpenAI."""

    def price_source(self) -> PriceSource:
        return PriceSource("https://api.openai.com/v1", self.model)


def started(of: PrefectFlow[..., Any], model: str) -> str:
    """A run of a flow, by its id."""
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(of, parameters={"model": model})
        begun: Any = run_flow(of, flow_run=made, parameters={"model": model}, return_type="state")
        assert asyncio.run(begun).is_completed()
    return str(made.id)


def report_of(run: str) -> str:
    with get_client(sync_client=True) as client:
        own = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=["run-report"])
        )
        return str(client.read_artifacts(artifact_filter=own)[0].data)


def get(address: str) -> str:
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def test_the_command_in_a_report_opens_the_runs_rows_and_two_runs_are_compared_though_they_saved_to_one_place(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "my answers.jsonl")

    @flow(name="answering")
    async def answering(model: str) -> Any:
        rows = load([{"instruction": f"What is {number}?"} for number in range(20)])
        rows = rows.map(TextGeneration(name="answer", llm=Priced(model=model, max_retries=0)))
        return await save(rows, SaveToFiles(path=target))

    provider.set(answers={"What is 7?": "Seven, as ever."})
    one = started(answering, "gpt-4o-mini")
    provider.set(answers={"What is 7?": "Seven, as never."})
    started(answering, "gpt-4o")
    command = re.search(r"`python -m flows (view [^`]+)`", report_of(one))

    assert command is not None
    with viewed(*shlex.split(command[1])[1:]) as address:
        assert '<a href="/row">Row 0</a>' in get(f"{address}/")
        page = get(f"{address}/row?at=7")
        assert "What is 7?" in page and re.search(r'<span class="label">cost</span> \$0\.', page)
    with viewed(one[:8], "answering, 20 rows, gpt-4o") as address:
        wait_for(lambda: "changed</a>" in get(f"{address}/compare"), what="the comparison")
        page = get(f"{address}/compare")
        assert "Rows of the same instruction." in page
        assert "<del>ever</del>" in page and "<ins>never</ins>" in page
        assert "Seven, as ever." in get(f"{address}/row?at=7")
        assert "Seven, as never." in get(f"{address}/row?data=1&at=7")
