"""The flow that has three models answer, a judge rate the answers, and pairs made of the best and the worst."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.preview import preview
from flows.model_preference import model_preference
from llms import ParameterError
from llms.local_provider import LocalProvider
from tasks.steps import METADATA, failure_in
from tests.conftest import LONGEST
from tests.scripted import Reply, Scripted, completion

MODELS = ["gpt-4.1-mini", "gpt-4o-mini", "gpt-4.1-nano"]
ANSWERING = ("first", "second", "third")
TIDES, MOSS = "What are tides?", "What is moss?"

pytestmark = pytest.mark.usefixtures("storage", "prefect")


def ratings(*numbers: int) -> str:
    return json.dumps({f"answer_{place}": {"rationale": "R.", "rating": n} for place, n in enumerate(numbers, 1)})


def script(provider: LocalProvider, **more: Any) -> None:
    """Each model answers with its name. Of tides the second answers best; of moss the first two are equal."""
    provider.set(
        answers={
            r"(?s)Rate.*tides": ratings(1, 5, 3),
            r"(?s)Rate.*moss": ratings(4, 4, 2),
            r"(?P<asked>What .*\?)": "{model}: {asked}",
        },
        **more,
    )


def run(provider: LocalProvider | Scripted, folder: Path, *, offline: bool = False, **more: Any) -> Any:
    """LLMs of the run's own: those of the defaults keep their connections for the whole process."""
    url = provider.url if isinstance(provider, Scripted) else provider.base_url
    llm = {"base_url": url, "use_offline_batch_generation": offline, "max_retries": 0}
    prompts = folder / "prompts.jsonl"
    folder.mkdir(exist_ok=True)
    prompts.write_text("".join(json.dumps({"instruction": prompt}) + "\n" for prompt in (TIDES, MOSS)))
    given: dict[str, Any] = {name: {"llm": llm} for name in (*ANSWERING, "ultrafeedback")}
    given |= {"source": {"data_files": str(prompts)}, "target": {"path": str(folder / "out")}}
    merged = {name: {**given[name], **value} if name in given else value for name, value in more.items()}
    return asyncio.run(model_preference(**{**given, **merged}))


def asked(provider: LocalProvider) -> Counter[tuple[str, str]]:
    """How often each model was sent each prompt."""
    bodies: list[Any] = [request.body for request in provider.requests]
    return Counter((body["model"], body["messages"][-1]["content"]) for body in bodies)


def test_the_best_and_the_worst_answer_of_three_models_are_saved_as_a_pair_with_their_models(
    provider: LocalProvider, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    script(provider)

    dataset = run(provider, tmp_path)

    rows = load_from_disk(str(tmp_path / "out")).to_list()
    assert rows == dataset.to_list()
    for row, prompt in zip(rows, (TIDES, MOSS), strict=True):
        assert row["generation_models"] == MODELS
        assert row["generations"] == [f"{model}: {prompt}" for model in MODELS]
        assert row["chosen"] == [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": f"{row['chosen_model']}: {prompt}"},
        ]
        assert row["rejected"][-1]["content"] == f"{row['rejected_model']}: {prompt}"
    assert [row["ratings"] for row in rows] == [[1, 5, 3], [4, 4, 2]]
    assert [(row["chosen_model"], row["rejected_model"]) for row in rows] == [
        ("gpt-4o-mini", "gpt-4.1-mini"),
        ("gpt-4.1-mini", "gpt-4.1-nano"),
    ]
    assert {row["model_name"] for row in rows} == {"gpt-4o"}


def test_each_prompt_goes_to_each_model_once_and_to_the_judge_with_all_answers(
    provider: LocalProvider, tmp_path: Path
) -> None:
    script(provider)

    run(provider, tmp_path)

    sent = asked(provider)
    assert [sent[model, prompt] for model in MODELS for prompt in (TIDES, MOSS)] == [1] * 6
    judged = [request for model, request in sent.elements() if model == "gpt-4o"]
    for prompt in (TIDES, MOSS):
        assert [all(f"{model}: {prompt}" in request for model in MODELS) for request in judged].count(True) == 1
    assert sent.total() == 8


def test_three_models_answer_side_by_side(tmp_path: Path) -> None:
    together = threading.Barrier(len(MODELS) * 2)

    def reply(body: dict[str, Any]) -> Reply:
        """Of the three models, once all of them were sent both prompts."""
        if body["model"] in MODELS:
            together.wait(LONGEST)
            return completion()
        return completion(ratings(1, 5, 3))

    with Scripted(reply) as server:
        rows = run(server, tmp_path)

    assert not together.broken
    assert [row["generations"] for row in rows] == [["Fine."] * len(MODELS)] * 2


def test_the_same_model_can_answer_under_several_system_prompts(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)
    prompts = {"first": "Be brief.", "second": "Give an example.", "third": "Be honest about what you don't know."}
    llm = {"base_url": provider.base_url, "model": "gpt-4o-mini"}

    (row, _) = run(provider, tmp_path, **{name: {"llm": llm, "system_prompt": text} for name, text in prompts.items()})

    assert row["generation_models"] == ["gpt-4o-mini"] * 3
    assert [row[METADATA][f"raw_input_{name}"][0]["content"] for name in ANSWERING] == list(prompts.values())
    assert provider.stats.count("/chat/completions", 200) == 8


def test_a_row_that_one_model_fails_isnt_judged_and_says_which_model_and_why(
    provider: LocalProvider, tmp_path: Path
) -> None:
    refused = {"match": r"gpt-4o-mini.*moss", "status": 400, "message": "We don't talk about moss."}
    script(provider, faults=[refused])

    good, bad = run(provider, tmp_path, max_failed_rows=1)

    assert failure_in(good) is None
    failure = failure_in(bad)
    assert failure is not None
    assert failure["step"] == "second"
    assert "We don't talk about moss." in failure["message"]
    assert bad["generations"] == [f"gpt-4.1-mini: {MOSS}", None, f"gpt-4.1-nano: {MOSS}"]
    assert (bad["ratings"], bad["chosen"], bad["rejected"]) == (None, None, None)
    assert [model for model, _ in asked(provider).elements()].count("gpt-4o") == 1


def test_a_second_run_asks_only_what_failed_and_the_judge(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider, faults=[{"match": r"gpt-4o-mini.*moss", "status": 503}])
    run(provider, tmp_path, max_failed_rows=1)
    provider.set(faults=[])
    provider.clear()

    _, row = run(provider, tmp_path)

    assert row["generations"] == [f"{model}: {MOSS}" for model in MODELS]
    assert Counter(model for model, _ in asked(provider).elements()) == {"gpt-4o-mini": 1, "gpt-4o": 1}


def test_the_card_cites_the_paper(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    run(provider, tmp_path)

    cited = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").partition("## Citations")[2]
    assert cited.count("https://arxiv.org/abs/2310.01377") == 1


def test_offline_batches_give_the_same_rows_in_a_job_for_each_model(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    script(provider, batch_seconds=0.0)

    online = run(provider, tmp_path / "online")
    batched = run(provider, tmp_path / "batched", offline=True, use_cache=False)

    assert len(provider.batches) == 4
    assert [{**row, METADATA: None} for row in batched] == [{**row, METADATA: None} for row in online]


@pytest.mark.parametrize("several", [{"num_generations": 2}, {"group_generations": True}])
def test_several_answers_of_a_model_are_refused_before_anything_is_asked(
    provider: LocalProvider, tmp_path: Path, several: dict[str, Any]
) -> None:
    with pytest.raises(ParameterError, match="second: one answer of each"):
        run(provider, tmp_path, second=several)
    assert provider.requests == []


def test_a_preview_shows_the_prompts_of_all_steps() -> None:
    prompts = preview(model_preference, rows=1)

    assert list(prompts) == [*ANSWERING, "ultrafeedback"]
    assert "<generation of second>" in str(prompts["ultrafeedback"])
