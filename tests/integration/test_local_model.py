"""From a flow to a real model and back: SmolLM2 on this machine writes the rows. Its answers are short, thus cheap."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flows import Pipeline
from flows.text_generation import text_generation
from llms import OpenAILLM
from llms.local_model import MODEL, LocalModel, LocalModelError
from llms.local_model.server import weights
from tasks import LoadDataFromDicts, SaveToDisk, TextGeneration
from tests.conftest import LONGEST, ROOT, free_port, is_up, wait_for

CONTEXT = 256


def what_is_missing() -> str:
    try:
        weights()
    except LocalModelError as error:
        return str(error)
    return ""


MISSING = what_is_missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"the model has wheels for Linux and macOS alone: {MISSING}"),
]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with LocalModel(slots=2, context=CONTEXT) as running:
        yield running


def llm(model: LocalModel, max_new_tokens: int = 12, **fields: Any) -> OpenAILLM:
    return OpenAILLM(
        model=model.name,
        base_url=model.base_url,
        api_key="none",
        max_concurrent_requests=1,
        generation_kwargs={"max_new_tokens": max_new_tokens, "temperature": 0.8, "seed": 1},
        **fields,
    )


def rows(*instructions: str) -> LoadDataFromDicts:
    return LoadDataFromDicts(name="source", data=[{"instruction": each} for each in instructions])


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_flow_has_its_rows_from_the_model_and_a_second_run_needs_it_no_more(
    model: LocalModel, prefect: str, storage: Path, tmp_path: Path
) -> None:
    def run(path: str) -> list[dict[str, Any]]:
        source = rows("Name a colour.", "Say good morning.")
        target = SaveToDisk(name="target", path=str(tmp_path / path))
        task = TextGeneration(llm=llm(model))
        return asyncio.run(text_generation(source=source, text_generation=task, target=target)).to_list()

    first = run("first")
    model.stop()
    try:
        second = run("second")
    finally:
        model.start()

    assert [row["model_name"] for row in first] == [MODEL] * 2
    assert all(row["generation"].strip() for row in first)
    assert first[0]["generation"] != first[1]["generation"]
    statistics = first[0]["distilabel_metadata"]["statistics_text_generation"]
    assert 0 < statistics["output_tokens"] <= 12 < statistics["input_tokens"]
    assert second == first


def test_two_tasks_follow_each_other_in_a_pipeline_and_the_second_fits_a_schema(
    model: LocalModel, prefect: str, storage: Path
) -> None:
    with Pipeline("two-tasks") as pipeline:
        source = rows("Write one sentence about Anna, who is 30 years old.")
        write = TextGeneration(name="write", llm=llm(model, 24), output_mappings={"generation": "sentence"})
        read = TextGeneration(
            name="read",
            llm=llm(model, 40, structured_output=Person),
            template="Who is this, and how old? {{ sentence }}",
            columns=["sentence"],
            add_raw_input=True,
        )
        source >> write >> read

    dataset = pipeline.run()

    row = dataset[0]
    asked = row["distilabel_metadata"]["raw_input_read"][-1]["content"]
    assert row["sentence"].strip()
    assert asked == f"Who is this, and how old? {row['sentence']}"
    assert Person.model_validate_json(row["generation"]).name
    assert set(json.loads(row["generation"])) == {"name", "age"}


def test_several_generations_differ_though_they_are_more_than_it_takes_at_a_time(model: LocalModel) -> None:
    task = TextGeneration(llm=llm(model, 8), num_generations=3, group_generations=True)
    task.load()

    row = next(task.process(inputs=[{"instruction": "Write a word."}]))[0]

    assert len(set(row["generation"])) == 3


def test_one_request_at_a_time_is_answered_alike_by_another_process(model: LocalModel) -> None:
    inputs = [chat("Name three animals."), chat("Write the first line of a story.")]

    before = llm(model, 16).generate_outputs(inputs)
    model.stop()
    model.start()
    after = llm(model, 16).generate_outputs(inputs[::-1])[::-1]

    assert [each["generations"] for each in after] == [each["generations"] for each in before]


def test_a_prompt_over_the_context_fails_its_row_alone_and_says_so(
    model: LocalModel, prefect: str, storage: Path, tmp_path: Path
) -> None:
    running = text_generation(
        source=rows("Name a colour. " * CONTEXT, "Name a colour."),
        text_generation=TextGeneration(llm=llm(model)),
        target=SaveToDisk(name="target", path=str(tmp_path / "out")),
        max_failed_rows=1,
    )
    dataset = asyncio.run(running)

    too_long, fine = dataset.to_list()
    assert too_long["generation"] is None
    assert "ContextLengthError" in str(too_long["distilabel_metadata"]["error_text_generation"])
    assert f"({CONTEXT} tokens)" in str(too_long["distilabel_metadata"]["error_text_generation"])
    assert fine["generation"].strip()


def test_it_ends_with_the_process_that_started_it(model: LocalModel) -> None:
    port = free_port()
    program = f"from llms.local_model import LocalModel as L; L(port={port}).start(); print('up', flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    health = f"http://127.0.0.1:{port}/health"
    wait_for(lambda: is_up(health), what="the model's server")

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    wait_for(lambda: refuses(port), what="the end of the model's server")


def refuses(port: int) -> bool:
    """Whether nobody listens at a port: one that is only slow takes the connection."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def run(api: str, storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", "run", *arguments],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": api, "STILLFLOW_STORAGE": str(storage)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


def test_a_first_run_without_a_key_is_answered_by_the_model_and_says_by_whom(
    model: LocalModel, prefect_api: str, storage: Path
) -> None:
    done = run(prefect_api, storage, "text_generation", "--rows", "1")

    assert done.returncode == 0, done.stderr
    assert f"No key: {MODEL} answers" in done.stderr
    assert f'"model_name": "{MODEL}"' in done.stdout
    assert f"1 row written by {MODEL}" in done.stdout
    assert "OPENAI_API_KEY=" in done.stdout


def test_own_prompts_are_answered_by_it_where_it_is_asked_for(
    model: LocalModel, prefect_api: str, storage: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.jsonl").write_text('{"instruction": "Say good evening."}\n')
    mine = [f"source.data_files={tmp_path / 'mine.jsonl'}", f"target.path={tmp_path / 'out'}"]

    done = run(
        prefect_api, storage, "text_generation", "--local-model", *mine,
        "text_generation.llm.generation_kwargs.max_new_tokens=8",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "Say good evening." in done.stdout
    assert f"1 row written by {MODEL}, in {tmp_path / 'out'}" in done.stdout
