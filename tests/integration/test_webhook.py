"""Webhooks as a deployment has them: the receiver beside a server, a worker, and runs that sleep for an hour."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from tests.conftest import LONGEST, free_port, is_up, wait_for
from tests.integration.stack import Process, Stack, processes_with, waits_for_batches
from tests.signing import SECRET, event_of, signed

TEXT_GENERATION = "text-generation/text-generation"
AN_HOUR = "3600"


@dataclass
class Receiver:
    """`python -m flows webhook`, running."""

    url: str
    process: Process

    def post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """The status and the text of its answer."""
        request = urllib.request.Request(f"{self.url}/openai", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=LONGEST) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def receiver(stack_of_session: Stack) -> Iterator[Receiver]:
    port = free_port()
    command = [stack_of_session.python, "-m", "flows", "webhook", "--port", str(port)]
    with stack_of_session.process("webhook", command, OPENAI_WEBHOOK_SECRET=SECRET) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: is_up(f"{url}/health"), what=f"the receiver; {process.tail()}")
        yield Receiver(url, process)


def sleeping(stack: Stack, run: str) -> dict[str, Any]:
    """Wait until the run has left to wait for its batch. Returns its state."""

    def look() -> Any:
        found = stack.run(run)["state"]
        return found if waits_for_batches(found) else None

    return wait_for(look, what=f"the sleep of {run}")


def parameters_for(stack: Stack, subject: str, out: Path, rows: int = 5) -> dict[str, Any]:
    prompts = [{"instruction": f"Tell {subject} number {number}."} for number in range(rows)]
    return {
        "source": {"data_files": str(stack.source(subject.replace(" ", "-"), prompts))},
        "text_generation": {"llm": {"use_offline_batch_generation": True}},
        "target": {"path": str(out)},
    }


def test_a_run_that_would_look_in_an_hour_completes_by_the_webhook(
    stack: Stack, receiver: Receiver, tmp_path: Path
) -> None:
    stack.provider.set(batch_manual=True)
    parameters = parameters_for(stack, "a story for a webhook", tmp_path / "out")
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS=AN_HOUR)
    state = sleeping(stack, run)
    wait_for(lambda: not processes_with("PREFECT__FLOW_RUN_ID", run), what="the end of the process")
    (job,) = stack.provider.batches
    stack.provider.end_batch(job["id"])
    forged = event_of(job["id"])
    assert receiver.post(forged, signed(forged, key=b"guessed"))[0] == 400
    time.sleep(3)
    assert stack.run(run)["state"]["id"] == state["id"]
    body = event_of(job["id"])

    answer = receiver.post(body, signed(body))
    stack.wait(run)

    assert answer == (200, '{"message":"woke 1 run"}')
    assert len(load_from_disk(str(tmp_path / "out"))) == 5
    assert len(stack.provider.batches) == 1
    assert f"batch.completed {job['id']}: woke 1 run: {run}" in receiver.process.output()
    assert "refused a webhook" in receiver.process.output()


def test_a_job_that_ends_before_its_run_sleeps_wakes_it_as_soon_as_it_does(
    stack: Stack, receiver: Receiver, tmp_path: Path
) -> None:
    stack.provider.set(batch_manual=True)
    parameters = parameters_for(stack, "a job that ends at once", tmp_path / "out")
    run = stack.start(TEXT_GENERATION, parameters, STILLFLOW_POLL_SECONDS=AN_HOUR)
    (job,) = wait_for(lambda: stack.provider.batches, what="the job", pause=0.02)
    body = event_of(job["id"])

    # Between the submission and the sleep no run looks at a job.
    stack.provider.end_batch(job["id"])
    status, _ = receiver.post(body, signed(body))
    done = stack.wait(run)

    assert status == 200
    assert done["run_count"] == 2
    assert len(load_from_disk(str(tmp_path / "out"))) == 5


def test_one_event_wakes_every_run_that_waits_for_the_job(stack: Stack, receiver: Receiver, tmp_path: Path) -> None:
    stack.provider.set(batch_manual=True)
    first = stack.start(
        TEXT_GENERATION, parameters_for(stack, "a shared job", tmp_path / "first"), STILLFLOW_POLL_SECONDS=AN_HOUR
    )
    sleeping(stack, first)
    second = stack.start(
        TEXT_GENERATION, parameters_for(stack, "a shared job", tmp_path / "second"), STILLFLOW_POLL_SECONDS=AN_HOUR
    )
    sleeping(stack, second)
    (job,) = stack.provider.batches
    stack.provider.end_batch(job["id"])
    body = event_of(job["id"])

    answer = receiver.post(body, signed(body))
    for run in (first, second):
        stack.wait(run)

    assert answer == (200, '{"message":"woke 2 runs"}')
    assert len(stack.provider.batches) == 1
    one, other = (load_from_disk(str(tmp_path / name))["generation"][:] for name in ("first", "second"))
    assert one == other
