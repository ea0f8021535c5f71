"""A pipeline of a user's own, deployed to a worker and served from its script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.integration.stack import POOL, Stack, kill_all

PROGRAM = """
from flows import Pipeline
from llms import OpenAILLM
from tasks import LoadDataFromDicts, TextGeneration

with Pipeline(name="{name}") as pipeline:
    rows = LoadDataFromDicts(name="rows", data=[{{"instruction": "Tell me about {name} " + str(n)}} for n in range(4)])
    llm = OpenAILLM(model="gpt-4o-mini", generation_kwargs={{"max_new_tokens": 30}})
    answers = TextGeneration(name="answers", llm=llm)
    rows >> answers

if __name__ == "__main__":
    {action}
"""
PART = {"answers": {"llm": {"generation_kwargs": {"temperature": 0.7}}}}


@pytest.fixture
def script(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a script in the clone that makes a pipeline called as its test's parameter, and acts."""
    name, action = request.param
    file = stack.clone / f"{name.replace('-', '_')}.py"
    file.write_text(PROGRAM.format(name=name, action=action))
    yield file.name
    file.unlink()


def bodies(stack: Stack) -> set[tuple[float, int]]:
    return {(request.body["temperature"], request.body["max_tokens"]) for request in stack.sent()}


@pytest.mark.parametrize("script", [("own-deployed", f"pipeline.deploy('mine', '{POOL}')")], indirect=True)
def test_a_deployed_pipeline_is_found_by_the_worker_and_takes_a_part_of_its_parameters(
    stack: Stack, script: str
) -> None:
    stack.command([stack.python, script])

    run = stack.start("own-deployed/mine", PART)
    stack.wait(run)

    assert stack.deployment("own-deployed/mine")["entrypoint"] == "own_deployed.py:pipeline.flow"
    assert bodies(stack) == {(0.7, 30)}
    assert len(stack.asked()) == 4


@pytest.mark.parametrize("script", [("own-served", "pipeline.serve('mine')")], indirect=True)
def test_a_served_pipeline_runs_from_its_script(stack: Stack, script: str) -> None:
    mark = uuid4().hex
    process = stack.process("served pipeline", [sys.executable, script], SERVED_BY=mark)
    try:
        with process:
            process.wait_for_output("is being served")
            run = stack.start("own-served/mine", PART)
            stack.wait(run)
    finally:
        kill_all("SERVED_BY", mark)

    assert bodies(stack) == {(0.7, 30)}
    assert len(stack.asked()) == 4
