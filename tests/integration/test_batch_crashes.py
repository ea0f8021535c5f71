"""A run with offline batches that is killed at every point where it matters, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from llms.local_provider import LocalProvider
from tests.conftest import ROOT
from tests.warm import WarmPython

ROWS = 100
PROGRAM = """
import json, os, signal

import flows.engine.batching
from flows import collect, load
from flows.ledger.jobs import Jobs
from llms import OpenAILLM
from llms.batch import BatchLimits
from tasks import TextGeneration

# A provider on this machine knows a job at once.
flows.engine.batching.INTENT_SECONDS = 1.0
point, _, number = os.environ["KILL_AT"].partition(":")
passed = 0


def here(name):
    global passed
    if name == point:
        if passed == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1


class MortalLLM(OpenAILLM):
    batch_limits = BatchLimits(requests=40, size=10**9)

    async def create_job(self, file, metadata):
        here("before create")
        status = await super().create_job(file, metadata)
        here("between create and record")
        return status

    async def job_status(self, job_id):
        status = await super().job_status(job_id)
        here("polling")
        return status

    async def job_results(self, job_id):
        async for result in super().job_results(job_id):
            here("downloading")
            yield result


end = Jobs.end


def mortal_end(self, record):
    here("between download and record")
    end(self, record)


Jobs.end = mortal_end
rows = [{"instruction": f"Tell me about number {number}."} for number in range(100)]
llm = MortalLLM(model="gpt-4o", use_offline_batch_generation=True)
first = TextGeneration(name="first", llm=llm)
second = TextGeneration(
    name="second",
    llm=llm,
    template="Shorten {{ generation }}",
    columns=["generation"],
    output_mappings={"generation": "short"},
)
dataset = collect(second.map(first.map(load(rows, shard_rows=15))))
print(json.dumps([[row["instruction"], row["generation"], row["short"]] for row in dataset]))
"""
POINTS = {
    "before create": [0, 1, 2, 3, 5],
    "between create and record": [0, 1, 2, 3, 5],
    # A job is looked at once at least: of six jobs, six times.
    "polling": [0, 1, 3, 4, 5],
    "downloading": [0, 17, 40, 99, 150],
    "between download and record": [0, 1, 2, 3, 5],
}


def run(
    warm: WarmPython, storage: Path, provider: LocalProvider, kill_at: str = ""
) -> subprocess.CompletedProcess[bytes]:
    environment = {
        **os.environ,
        "STILLFLOW_STORAGE": str(storage),
        "STILLFLOW_POLL_SECONDS": "0.1",
        "OPENAI_BASE_URL": provider.base_url,
        "KILL_AT": kill_at,
    }
    return subprocess.run([warm.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, check=False)


def submitted(provider: LocalProvider) -> Counter[tuple[str, str]]:
    """How often each request went into a job: by step and prompt."""
    every: Counter[tuple[str, str]] = Counter()
    for job in provider.batches:
        address = f"{provider.base_url}/files/{job['input_file_id']}/content"
        with urllib.request.urlopen(address) as answer:
            for line in answer.read().splitlines():
                every[job["metadata"]["step"], json.loads(line)["body"]["messages"][-1]["content"]] += 1
    return every


# At each point once, the more of the run behind it the better; in full, five times.
CASES = [
    pytest.param(point, number, marks=[] if place == 2 else pytest.mark.full)
    for point, some in POINTS.items()
    for place, number in enumerate(some)
]


@pytest.mark.parametrize(("point", "number"), CASES)
def test_after_a_kill_no_request_is_submitted_twice_and_no_row_is_lost_doubled_or_mixed_up(
    warm: WarmPython, provider: LocalProvider, tmp_path: Path, point: str, number: int
) -> None:
    provider.set(
        batch_seconds=0.2,
        batch_order={"shuffle": True},
        answers={r"about number (?P<number>\d+)": "About {number}.", r"Shorten (?P<what>.*)": "Short: {what}"},
    )

    killed = run(warm, tmp_path, provider, f"{point}:{number}")
    again = run(warm, tmp_path, provider)

    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert again.returncode == 0, again.stderr.decode()
    assert json.loads(again.stdout) == [
        [f"Tell me about number {number}.", f"About {number}.", f"Short: About {number}."] for number in range(ROWS)
    ]
    assert len(provider.batches) == 6
    assert set(submitted(provider).values()) == {1}
    assert len(submitted(provider)) == 2 * ROWS
