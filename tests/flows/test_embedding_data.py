"""The flows that make training data for embedding models from nothing: tasks, an example of each, and their card."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flows import Flow, PipelineError, TooManyFailedRowsError
from flows.authoring.preview import preview
from flows.classification_data import classification_data
from flows.embedding_data import embedding_data
from llms import ParameterError
from llms.local_provider import LocalProvider
from tasks.steps import METADATA

TASKS = [f"Find texts on subject {number}." for number in range(4)]
KEYED = json.dumps({f"task_{number}": task for number, task in enumerate(TASKS, 1)})
TRIPLET = {
    "user_query": "query of {task}",
    "positive_document": "good document of {task}",
    "hard_negative_document": "bad document of {task}",
}
LABELLED = {"input_text": "text of {task}", "label": "right for {task}", "misleading_label": "wrong for {task}"}
READY_MADE = pytest.mark.parametrize(
    ("flow", "texts"),
    [(embedding_data, TRIPLET), (classification_data, LABELLED)],
    ids=lambda each: getattr(each, "name", ""),
)


pytestmark = pytest.mark.usefixtures("storage", "prefect")


def writer_of(flow: Flow[..., Any]) -> str:
    """The step that writes an example of each task."""
    return next(name for name in flow.parameters.properties if name.startswith("generate_"))


def script(provider: LocalProvider, texts: dict[str, str]) -> None:
    """Let the provider give `TASKS`, and for each of them `texts` with its number."""
    provider.set(answers={"Think of": KEYED, r"on subject (?P<task>\d)": json.dumps(texts)})


def run(
    flow: Flow[..., Any],
    provider: LocalProvider,
    folder: Path,
    *,
    offline: bool = False,
    use_cache: bool = True,
    **generator: Any,
) -> Any:
    """Run a flow with LLMs of its own: those of its defaults keep their connections for the whole process."""
    llm = {"base_url": provider.base_url, "use_offline_batch_generation": offline}
    parameters = {
        "embedding_task_generator": {"num_tasks": len(TASKS), **generator, "llm": llm},
        writer_of(flow): {"llm": llm},
        "target": {"path": str(folder)},
    }
    return asyncio.run(flow(**parameters, use_cache=use_cache))


@READY_MADE
def test_a_row_is_made_for_each_task_and_saved(
    flow: Flow[..., Any], texts: dict[str, str], provider: LocalProvider, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    script(provider, texts)

    dataset = run(flow, provider, tmp_path / "out")

    saved = load_from_disk(str(tmp_path / "out"))
    assert set(saved.column_names) == {"task", "task_model", *texts, "model_name", METADATA}
    assert saved.to_list() == dataset.to_list()
    assert list(saved["task"]) == TASKS
    for name, text in texts.items():
        assert list(saved[name]) == [text.replace("{task}", str(number)) for number in range(len(TASKS))]
    assert (saved[0]["task_model"], saved[0]["model_name"]) == ("gpt-4o", "gpt-4o-mini")
    assert {request.body["temperature"] for request in provider.requests} == {1.0}
    assert provider.stats.count("/chat/completions", 200) == 1 + len(TASKS)


@READY_MADE
def test_the_tokens_of_the_rows_add_up_to_those_of_the_requests(
    flow: Flow[..., Any], texts: dict[str, str], provider: LocalProvider, tmp_path: Path
) -> None:
    script(provider, texts)

    dataset = run(flow, provider, tmp_path / "out", num_rows=2)

    steps = ("embedding_task_generator", writer_of(flow))
    counts = [row[METADATA][f"statistics_{step}"] for row in dataset for step in steps]
    assert len(dataset) == 2 * len(TASKS)
    assert sum(each["input_tokens"] for each in counts) == provider.stats.prompt_tokens
    assert sum(each["output_tokens"] for each in counts) == provider.stats.completion_tokens


@READY_MADE
def test_the_card_cites_the_paper_once(
    flow: Flow[..., Any], texts: dict[str, str], provider: LocalProvider, tmp_path: Path
) -> None:
    script(provider, texts)

    run(flow, provider, tmp_path / "out")

    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    paper = "[Improving Text Embeddings with Large Language Models](https://arxiv.org/abs/2401.00368)"
    assert f"## Citations\n\n- {paper}\n" in card
    assert card.count("arxiv.org") == 1


@READY_MADE
def test_a_second_run_asks_nothing_and_a_fresh_one_asks_again(
    flow: Flow[..., Any], texts: dict[str, str], provider: LocalProvider, tmp_path: Path
) -> None:
    first = run(flow, provider, tmp_path / "out")
    second = run(flow, provider, tmp_path / "out")

    assert provider.stats.count("/chat/completions", 200) == 1 + len(TASKS)
    assert first.to_list() == second.to_list()

    run(flow, provider, tmp_path / "out", use_cache=False)
    assert provider.stats.count("/chat/completions", 200) == 2 * (1 + len(TASKS))


def test_offline_batches_give_the_same_triplets(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    script(provider, TRIPLET)
    provider.set(batch_seconds=0.0)

    online = run(embedding_data, provider, tmp_path / "online")
    batched = run(embedding_data, provider, tmp_path / "batched", offline=True, use_cache=False)

    assert len(provider.batches) == 2
    columns = ["task", *TRIPLET]
    assert batched.select_columns(columns).to_list() == online.select_columns(columns).to_list()


def test_tasks_that_cant_be_read_fail_the_run_with_the_reason(provider: LocalProvider, tmp_path: Path) -> None:
    provider.set(answers={"Think of": "No."})

    with pytest.raises(TooManyFailedRowsError, match="expected one JSON value, found none"):
        run(embedding_data, provider, tmp_path / "out", use_default_structured_output=False)

    assert provider.stats.count("/chat/completions") == 1


def test_tasks_that_stay_in_a_list_are_named_before_examples_are_asked_for(
    provider: LocalProvider, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match="needs the column 'task'; there are: .*tasks"):
        run(embedding_data, provider, tmp_path / "out", flatten_tasks=False)


@READY_MADE
def test_a_category_that_isnt_the_flows_is_refused_before_anything_is_sent(
    flow: Flow[..., Any], texts: dict[str, str]
) -> None:
    with pytest.raises(ParameterError, match="category: .*got 'text-matching-long'"):
        preview(flow, {"embedding_task_generator": {"category": "text-matching-long"}})


@READY_MADE
def test_a_preview_shows_the_prompts_of_both_steps(flow: Flow[..., Any], texts: dict[str, str]) -> None:
    prompts = preview(flow)

    assert list(prompts) == ["embedding_task_generator", writer_of(flow)]
    assert all(len(each) == 1 for each in prompts.values())
