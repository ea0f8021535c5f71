"""The flow that makes instructions for topics, makes them harder, has them answered, and keeps the good ones."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import TooManyFailedRowsError
from flows.authoring.preview import preview
from flows.instruction_data import instruction_data
from llms import ParameterError
from llms.extras import MissingPackageError
from llms.local_provider import LocalProvider
from tasks.steps import METADATA

STEPS = ("self_instruct", "evol_instruct", "text_generation", "quality_scorer")
KEYED = json.dumps({"instruction_1": "Explain {topic}.", "instruction_2": "Draw {topic}."})
ANSWERS = {
    r"(?s)Score how good.*Answer: (Plan|Sketch) tides": '{"response_1": 3}',
    "Score how good": '{"response_1": 5}',
    r"(?s)different queries.*<text>\s*About (?P<topic>\w+)": KEYED,
    r"^(?P<asked>\w+ \w+ in three steps)": "Answer: {asked}",
}
TOPICS = ["kites", "tides", "moss"]

pytestmark = pytest.mark.usefixtures("storage", "prefect")


def evolving(before: str, after: str) -> dict[str, str]:
    return {
        rf"(?s)<instruction>\s*{before}\.\s*</instruction>.*new_instruction": json.dumps({"new_instruction": after})
    }


def script(provider: LocalProvider, first: dict[str, Any] | None = None) -> None:
    """Two instructions per topic. Those about kites evolve into one; those about tides get poor answers."""
    evolved = {
        **evolving("Explain kites", "Plan kites in three steps"),
        **evolving("Draw kites", "plan KITES in three  steps."),
        **evolving(r"Explain (?P<topic>\w+)", "Plan {topic} in three steps"),
        **evolving(r"Draw (?P<topic>\w+)", "Sketch {topic} in three steps"),
    }
    provider.set(answers={**(first or {}), **evolved, **ANSWERS})


def parameters(provider: LocalProvider, folder: Path, *, offline: bool = False) -> dict[str, Any]:
    """LLMs of the run's own: those of the defaults keep their connections for the whole process."""
    llm = {"base_url": provider.base_url, "use_offline_batch_generation": offline}
    topics = folder / "topics.jsonl"
    folder.mkdir(exist_ok=True)
    topics.write_text("".join(json.dumps({"input": f"About {topic}"}) + "\n" for topic in TOPICS))
    return {
        "source": {"data_files": str(topics)},
        **{step: {"llm": llm} for step in STEPS},
        "self_instruct": {"llm": llm, "num_instructions": 2},
        "target": {"path": str(folder / "out")},
    }


def run(provider: LocalProvider, folder: Path, *, offline: bool = False, **more: Any) -> Any:
    given = parameters(provider, folder, offline=offline)
    merged = {name: {**given[name], **value} if name in given else value for name, value in more.items()}
    return asyncio.run(instruction_data(**{**given, **merged}))


def test_good_answers_to_different_instructions_are_saved(provider: LocalProvider, tmp_path: Path) -> None:
    from datasets import load_from_disk

    script(provider)

    dataset = run(provider, tmp_path / "run")

    saved = load_from_disk(str(tmp_path / "run" / "out"))
    assert saved.to_list() == dataset.to_list()
    seen = saved.select_columns(["input", "seed_instruction", "instruction", "generation", "score"])
    assert [tuple(row.values()) for row in seen.to_list()] == [
        ("About kites", "Explain kites.", "Plan kites in three steps", "Answer: Plan kites in three steps", 5),
        ("About moss", "Explain moss.", "Plan moss in three steps", "Answer: Plan moss in three steps", 5),
        ("About moss", "Draw moss.", "Sketch moss in three steps", "Answer: Sketch moss in three steps", 5),
    ]
    models = ["seed_model", "instruction_model", "generation_model", "score_model"]
    assert [saved[0][name] for name in models] == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4o-mini", "gpt-4o"]


def test_a_duplicate_is_never_answered(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    run(provider, tmp_path / "run")

    # 3 topics, 6 instructions, of which 5 are different: each answered and scored.
    assert provider.stats.count("/chat/completions", 200) == 3 + 6 + 5 + 5


def test_several_answers_to_an_instruction_are_judged_together_and_kept_one_by_one(
    provider: LocalProvider, tmp_path: Path
) -> None:
    several = {
        "Score how good each": '{"response_1": 6, "response_2": 2, "response_3": 4}',
        r"^\w+ \w+ in three": ["first", "second", "third"],
    }
    script(provider, several)

    dataset = run(provider, tmp_path / "run", text_generation={"num_generations": 3})

    assert list(dataset["generation"]) == ["first", "third"] * 5
    assert list(dataset["score"]) == [6, 4] * 5


def test_every_row_is_kept_from_score_1_and_without_deduplication(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    dataset = run(provider, tmp_path / "run", deduplicate=False, filter_rows={"lowest": 1})

    assert len(dataset) == 6
    counts = [row[METADATA][f"statistics_{step}"] for row in dataset for step in STEPS]
    assert sum(flat(each["input_tokens"] for each in counts)) == provider.stats.prompt_tokens
    assert sum(flat(each["output_tokens"] for each in counts)) == provider.stats.completion_tokens


def test_the_card_cites_the_papers(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    run(provider, tmp_path / "run")

    card = (tmp_path / "run" / "out" / "README.md").read_text(encoding="utf-8")
    cited = card.partition("## Citations")[2]
    for paper in ("2212.10560", "2304.12244", "2312.15685"):
        assert cited.count(f"https://arxiv.org/abs/{paper}") == 1
    assert "https://doi.org/10.1007/3-540-45123-4_1" in cited


def test_a_second_run_asks_nothing(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    first = run(provider, tmp_path / "run")
    second = run(provider, tmp_path / "run")

    assert first.to_list() == second.to_list()
    assert provider.stats.count("/chat/completions", 200) == 3 + 6 + 5 + 5


def test_offline_batches_give_the_same_rows(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    script(provider)
    provider.set(batch_seconds=0.0)

    online = run(provider, tmp_path / "online")
    batched = run(provider, tmp_path / "batched", offline=True, use_cache=False)

    assert len(provider.batches) == len(STEPS)
    columns = ["input", "seed_instruction", "instruction", "generation", "score"]
    assert batched.select_columns(columns).to_list() == online.select_columns(columns).to_list()


def test_a_dataset_may_turn_out_empty(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    assert len(run(provider, tmp_path / "run", filter_rows={"lowest": 6})) == 0
    assert (tmp_path / "run" / "out" / "README.md").exists()


def test_topics_whose_instructions_cant_be_read_fail_the_run_with_the_reason(
    provider: LocalProvider, tmp_path: Path
) -> None:
    provider.set(answers={"different queries": "No."})

    with pytest.raises(TooManyFailedRowsError, match="3 of 3 rows failed(.|\n)*expected 2 instructions"):
        run(provider, tmp_path / "run", self_instruct={"use_default_structured_output": False, "num_instructions": 2})

    assert provider.stats.count("/chat/completions", 200) == 3


def test_a_missing_package_is_named_before_anything_is_asked(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(provider)
    monkeypatch.setitem(sys.modules, "datasketch", None)

    with pytest.raises(MissingPackageError, match=r"MinHashDedup needs datasketch: .* -m pip install 'datasketch>="):
        run(provider, tmp_path / "run")
    assert provider.requests == []

    assert len(run(provider, tmp_path / "run", deduplicate=False)) == 4


def test_answers_that_arent_grouped_are_refused_before_anything_is_asked(
    provider: LocalProvider, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="set group_generations=True"):
        run(provider, tmp_path / "run", text_generation={"group_generations": False})
    assert provider.requests == []


def test_a_preview_shows_the_prompts_of_all_steps_and_needs_no_answers() -> None:
    prompts = preview(instruction_data, rows=1)

    assert list(prompts) == list(STEPS)
    assert all(prompt is not None for each in prompts.values() for prompt in each)
    assert "bakery" in str(prompts["self_instruct"])
    assert "<seed_instruction of expand_columns>" in str(prompts["evol_instruct"])
    assert "<generation of text_generation, 1>" in str(prompts["quality_scorer"])


def flat(counts: Any) -> list[int]:
    return [one for each in counts for one in (each if isinstance(each, list) else [each])]
