"""Scores by a reward model, with a tiny one that is made here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llms.extras import MissingPackageError
from tasks.judging.reward import RewardModelScore, chat_of
from tasks.steps import METADATA, failure_in

WORDS = ["[PAD]", "[UNK]", "[EOS]", "high", "tide", "low", "now", "user", "assistant", "?"]
TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}[EOS]"
ROWS: list[dict[str, Any]] = [
    {"instruction": "high tide ?", "response": "now"},
    {"instruction": "low tide ?", "response": "high tide now now now"},
    {"instruction": "?", "response": "low"},
]


def test_without_the_packages_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"RewardModelScore needs torch: .* -m pip install .*\btorch>="):
        RewardModelScore(model="some/model").load()


def test_the_chat_is_the_rows_or_made_of_its_instruction_and_response() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert chat_of({"instruction": "a", "response": "b"}) == chat
    assert chat_of({"conversation": chat, "instruction": "x", "response": "y"}) == chat
    assert chat_of({"conversation": None, "instruction": "a", "response": "b"}) == chat


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "instruction: expected a text, got None"),
        ({"instruction": "a", "response": None}, "response: expected a text"),
        ({"conversation": "a"}, "conversation: expected a list"),
        ({"conversation": [5]}, "conversation: expected a list of .* got 5 in it"),
    ],
)
def test_a_row_without_a_chat_is_told(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        chat_of(row)


def make_model(folder: Path, *, labels: int = 1, pad: bool = True, template: str | None = TEMPLATE) -> str:
    """A decoder of one layer with random weights and a tokenizer of a few words."""
    pytest.importorskip("torch", reason="needs the extra `local`, which tests don't install: torch is large")
    pytest.importorskip("transformers", reason="needs the extra `local`")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]"} if pad else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[EOS]", **special)
    tokenizer.chat_template = template
    tokenizer.model_max_length = 12
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=labels,
        pad_token_id=0 if pad else None,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def scores(step: RewardModelScore, rows: list[dict[str, Any]]) -> list[float]:
    return [row["score"] for row in step.apply(rows)]


@pytest.mark.parametrize("pad", [True, False], ids=["with a filler", "without"])
def test_a_score_doesnt_depend_on_the_rows_beside_it(tmp_path: Path, pad: bool) -> None:
    step = RewardModelScore(model=make_model(tmp_path, pad=pad), device="cpu")
    together = scores(step, ROWS)
    alone = [scores(step, [row])[0] for row in ROWS]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 3
    assert all(isinstance(score, float) for score in together)


def test_a_conversation_scores_as_its_parts_do(tmp_path: Path) -> None:
    step = RewardModelScore(model=make_model(tmp_path), device="cpu")
    assert scores(step, [{"conversation": chat_of(ROWS[0])}]) == pytest.approx(scores(step, ROWS[:1]))


def test_a_chat_that_is_too_long_fails_alone_unless_it_may_be_cut(tmp_path: Path) -> None:
    path = make_model(tmp_path)
    long = {"instruction": "high tide ?", "response": "now " * 20}
    good, bad = RewardModelScore(model=path, device="cpu").apply([ROWS[0], long])
    failure = failure_in(bad)
    assert failure is not None
    assert "tokens, at most 12 are taken; `truncation` would cut it" in failure["message"]
    assert (bad["score"], failure_in(good)) == (None, None)
    cut = RewardModelScore(model=path, device="cpu", truncation=True).apply([long])
    assert isinstance(cut[0]["score"], float)


def test_rows_that_failed_before_arent_scored(tmp_path: Path) -> None:
    step = RewardModelScore(model=make_model(tmp_path), device="cpu")
    failed = {"instruction": None, METADATA: {"error_x": {"type": "E", "message": "no", "retryable": False}}}
    assert [row["score"] is None for row in step.apply([failed, *ROWS])] == [True, False, False, False]


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"labels": 3}, "gives 3 numbers, a reward model gives one"), ({"template": None}, "has no chat template")],
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RewardModelScore(model=make_model(tmp_path, **options), device="cpu").load()
