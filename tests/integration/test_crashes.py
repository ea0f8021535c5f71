"""A run that is killed in the middle, and started again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llms.local_provider import LocalProvider
from tests.conftest import ROOT, wait_for
from tests.warm import Program, WarmPython

PROGRAM = """
import json, sys
from flows import collect, load
from llms import OpenAILLM
from tasks import TextGeneration

rows = [{"instruction": f"Tell me about number {number}."} for number in range(300)]
first = TextGeneration(name="first", llm=OpenAILLM(model="first", max_concurrent_requests=20))
second = TextGeneration(
    name="second",
    llm=OpenAILLM(model="second", max_concurrent_requests=20),
    template="Shorten: {{ generation }}",
    columns=["generation"],
    output_mappings={"generation": "short"},
)
dataset = collect(second.map(first.map(load(rows, shard_rows=40))))
print(json.dumps(dataset.to_list()))
"""


def start(warm: WarmPython, folder: Path, provider: LocalProvider) -> Program:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "STILLFLOW_STORAGE": str(folder / "storage"), "OPENAI_BASE_URL": provider.base_url}
    return warm.start(["-c", PROGRAM], cwd=ROOT, environment=environment, output=folder / "output")


def finish(warm: WarmPython, folder: Path, provider: LocalProvider) -> str:
    """A run to its end, and the last line of what it said."""
    assert start(warm, folder, provider).wait() == 0, (folder / "output").read_text()
    return (folder / "output").read_text().splitlines()[-1]


@pytest.mark.parametrize("answered", [5, 130, 320])
def test_after_a_kill_only_what_is_missing_is_sent_and_the_dataset_is_the_same(
    warm: WarmPython, provider: LocalProvider, tmp_path: Path, answered: int
) -> None:
    provider.set(latency=0.02, answers={r"number (?P<number>\d+)": "All about {number}."})
    undisturbed = finish(warm, tmp_path / "undisturbed", provider)
    provider.clear()

    killed = start(warm, tmp_path / "killed", provider)
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= answered, what="answers", pause=0.005)
    killed.kill()
    killed.wait()
    again = finish(warm, tmp_path / "killed", provider)

    sent = [request.body["messages"][0]["content"] + request.body["model"] for request in provider.requests]
    assert again == undisturbed
    assert len(set(sent)) == 600
    # At most those that were under way at the kill, 20 per step, are paid for twice.
    assert len(sent) - 600 <= 40
