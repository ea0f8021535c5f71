"""The flow that lets an open model make up instructions and answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import PipelineError
from flows.authoring.preview import preview
from flows.magpie import SYSTEM_PROMPTS, magpie
from llms.extras import MissingPackageError
from llms.local_provider import LocalProvider

USER, ASSISTANT = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))

pytestmark = pytest.mark.usefixtures("storage", "prefect")


def script(provider: LocalProvider) -> None:
    """An instruction per system prompt, and an answer that repeats it."""
    provider.set(
        answers={
            r"(?s)user<\|end_header_id\|>\s*(?P<asked>Do .*?)<\|eot_id\|>.*assistant": "Done: {asked}<|eot_id|>",
            r"You are (?P<who>[\w' ]+)[.,](?s:.*)user<\|end_header_id\|>\s*$": "Do what {who} does.<|eot_id|>more",
        }
    )


def run(provider: LocalProvider, folder: Path, *, offline: bool = False, **more: Any) -> Any:
    generator = {"llm": {"base_url": provider.base_url, "use_offline_batch_generation": offline}}
    generator |= more.pop("magpie_generator", {"num_rows": 40})
    return asyncio.run(magpie(magpie_generator=generator, target={"path": str(folder / "out")}, **more))


def test_different_instructions_are_saved_with_their_answers(provider: LocalProvider, tmp_path: Path) -> None:
    from datasets import load_from_disk

    script(provider)

    dataset = run(provider, tmp_path)

    saved = load_from_disk(str(tmp_path / "out"))
    assert saved.to_list() == dataset.to_list()
    assert {row["system_prompt_key"] for row in saved} == {each.name for each in SYSTEM_PROMPTS}
    assert len(saved) == len(SYSTEM_PROMPTS)
    assert {row["instruction"] for row in saved} >= {"Do what a helpful assistant does."}
    assert all(row["response"] == f"Done: {row['instruction']}" for row in saved)
    assert set(saved["model_name"]) == {"meta-llama/Llama-3.1-8B-Instruct"}


def test_the_server_is_told_where_turns_end_and_how_long_they_may_be(provider: LocalProvider, tmp_path: Path) -> None:
    run(provider, tmp_path, magpie_generator={"num_rows": 1})

    assert [request.path for request in provider.requests] == ["/completions", "/completions"]
    first, second = (request.body for request in provider.requests)
    assert first["prompt"].endswith(USER)
    assert second["prompt"].endswith(ASSISTANT)
    for body in (first, second):
        assert body["stop"] == ["<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>"]
        assert (body["temperature"], body["max_tokens"], body["skip_special_tokens"]) == (1.0, 2048, False)


def test_nothing_is_dropped_without_deduplication_and_no_package_is_needed(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(provider)
    monkeypatch.setitem(sys.modules, "datasketch", None)

    assert len(run(provider, tmp_path, deduplicate=False)) == 40


def test_a_missing_package_is_named_before_anything_is_asked(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)

    with pytest.raises(MissingPackageError, match=r"MinHashDedup needs datasketch: .* -m pip install 'datasketch>="):
        run(provider, tmp_path)
    assert provider.requests == []


def test_conversations_go_without_deduplication(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)
    several = {"num_rows": 2, "n_turns": 2}

    with pytest.raises(PipelineError, match="needs the column 'instruction'; there are: .*conversation"):
        run(provider, tmp_path, magpie_generator=several)
    assert provider.requests == []

    dataset = run(provider, tmp_path, magpie_generator=several, deduplicate=False)
    assert [turn["role"] for turn in dataset[0]["conversation"]] == ["user", "assistant"] * 2


def test_the_card_cites_the_papers(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    run(provider, tmp_path)

    cited = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").partition("## Citations")[2]
    assert cited.count("https://arxiv.org/abs/2406.08464") == 1
    assert "https://doi.org/10.1007/3-540-45123-4_1" in cited


def test_a_second_run_asks_nothing_and_a_fresh_one_asks_again(provider: LocalProvider, tmp_path: Path) -> None:
    script(provider)

    assert run(provider, tmp_path).to_list() == run(provider, tmp_path).to_list()
    assert provider.stats.count("/completions", 200) == 2 * 40

    run(provider, tmp_path, use_cache=False)
    assert provider.stats.count("/completions", 200) == 2 * 2 * 40


def test_offline_batches_give_the_same_rows(
    provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    script(provider)
    provider.set(batch_seconds=0.0)

    online = run(provider, tmp_path / "online")
    batched = run(provider, tmp_path / "batched", offline=True, use_cache=False)

    assert len(provider.batches) == 2
    columns = ["instruction", "response", "system_prompt_key"]
    assert batched.select_columns(columns).to_list() == online.select_columns(columns).to_list()


def test_a_preview_shows_the_bare_prompts() -> None:
    prompts = preview(magpie)["magpie_generator"]

    assert len(prompts) == 3
    assert all(isinstance(prompt, str) and prompt.endswith(USER) for prompt in prompts)
