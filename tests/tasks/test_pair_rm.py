"""Answers compared in pairs, by a model with random weights: how good PairRM's own are is known from its paper."""

from __future__ import annotations

import json
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from llms.extras import MissingPackageError
from tasks.judging.pair_rm import FIRST, PROMPT, SECOND, PairRM
from tasks.steps import METADATA, failure_in

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", PROMPT, FIRST, SECOND, "high", "tide", "low", "now", "soon", "later", "?"]
ROWS: list[dict[str, Any]] = [
    {"input": "high tide ?", "candidates": ["now", "soon soon", "later later later"]},
    {"input": "low tide now ?", "candidates": ["later", "now"]},
    {"input": "?", "candidates": ["tide", "tide", "low", "high"]},
]


def test_without_the_packages_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"PairRM needs torch: .* -m pip install .*\btorch>="):
        PairRM().load()


def make_model(folder: Path, **changes: Any) -> str:
    """A model of the kind, small and with random weights, and a tokenizer of a few words."""
    torch = pytest.importorskip("torch", reason="needs the extra `local`, which tests don't install: torch is large")
    pytest.importorskip("transformers", reason="needs the extra `local`")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DebertaV2Config, PreTrainedTokenizerFast

    from tasks.judging.pair_rm import network

    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, additional_special_tokens=[PROMPT, FIRST, SECOND], **special
    )
    tokenizer.save_pretrained(folder)
    config = DebertaV2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        initializer_range=0.5,
        n_tasks=1,
        drop_out=0.05,
        source_prefix_id=4,
        cand1_prefix_id=5,
        cand2_prefix_id=6,
        **changes,
    )
    network()(config).save_pretrained(folder)
    return str(folder)


def ranked(step: PairRM, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{column: row[column] for column in ("ranks", "ranked_candidates", "scores")} for row in step.apply(rows)]


def test_the_ranks_are_those_of_the_scores(tmp_path: Path) -> None:
    path = make_model(tmp_path)
    rows = PairRM(model=path, device="cpu").apply(ROWS)
    for row in rows:
        assert sorted(row["ranks"]) == list(range(1, len(row["candidates"]) + 1))
        best_first = sorted(zip(row["ranks"], row["candidates"], row["scores"], strict=True))
        assert row["ranked_candidates"] == [candidate for _, candidate, _ in best_first]
        assert [score for *_, score in best_first] == sorted(row["scores"], reverse=True)
        assert sum(row["scores"]) == pytest.approx(0, abs=1e-5)
        assert row["model_name"] == path
    assert len(set(rows[0]["scores"])) == 3


def test_the_order_of_the_answers_doesnt_count(tmp_path: Path) -> None:
    step = PairRM(model=make_model(tmp_path), device="cpu")
    (row,) = ranked(step, ROWS[:1])
    scores = dict(zip(ROWS[0]["candidates"], row["scores"], strict=True))
    for order in permutations(ROWS[0]["candidates"]):
        (other,) = ranked(step, [{**ROWS[0], "candidates": list(order)}])
        assert other["ranked_candidates"] == row["ranked_candidates"]
        assert other["scores"] == pytest.approx([scores[candidate] for candidate in order], abs=1e-5)


def test_of_equal_answers_the_first_is_better(tmp_path: Path) -> None:
    (row,) = PairRM(model=make_model(tmp_path), device="cpu").apply([{"input": "?", "candidates": ["low", "low"]}])
    assert (row["ranks"], row["scores"]) == ([1, 2], pytest.approx([0, 0], abs=1e-6))


@pytest.mark.parametrize("pairs", [1, 5])
def test_a_row_is_ranked_as_it_is_alone(tmp_path: Path, pairs: int) -> None:
    step = PairRM(model=make_model(tmp_path), device="cpu", pairs_per_call=pairs)
    for together, row in zip(ranked(step, ROWS), ROWS, strict=True):
        (alone,) = ranked(step, [row])
        assert alone["ranks"] == together["ranks"]
        assert alone["scores"] == pytest.approx(together["scores"], abs=1e-5)


def test_instructions_stand_before_each_prompt(tmp_path: Path) -> None:
    path = make_model(tmp_path)
    (with_them,) = ranked(PairRM(model=path, device="cpu", instructions="tell low or "), ROWS[:1])
    (written_out,) = ranked(PairRM(model=path, device="cpu"), [{**ROWS[0], "input": "tell low or high tide ?"}])
    (without,) = ranked(PairRM(model=path, device="cpu"), ROWS[:1])
    assert with_them == written_out
    assert with_them["scores"] != without["scores"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"input": "tide " * 9, "candidates": ["now", "soon"]},
            "the prompt has 12 tokens, at most 10 are taken; `trunc",
        ),
        (
            {"input": "?", "candidates": ["now", "soon " * 9]},
            "answer 2 has 12 tokens, at most 11 are taken; `truncation`",
        ),
        ({"input": "?", "candidates": ["now"]}, "candidates: expected two texts or more to compare, got one"),
        ({"input": "?", "candidates": "now"}, "candidates: expected a list of texts, got 'now'"),
        ({"input": None, "candidates": ["now", "soon"]}, "input: expected a text, got None"),
    ],
)
def test_a_row_that_cant_be_compared_fails_alone(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    step = PairRM(model=make_model(tmp_path), device="cpu", max_input_length=10, max_length=26)
    good, bad = step.apply([ROWS[1], row])
    assert failure_in(good) is None
    failure = failure_in(bad)
    assert failure is not None
    assert problem in failure["message"]
    assert (bad["ranks"], bad["ranked_candidates"], bad["scores"]) == (None, None, None)


def test_a_prompt_that_may_leave_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length=100 leaves no room for two answers beside a prompt of max_input"):
        PairRM(max_input_length=90, max_length=100)


def test_what_is_too_long_is_cut_where_that_is_wanted(tmp_path: Path) -> None:
    step = PairRM(model=make_model(tmp_path), device="cpu", max_input_length=10, max_length=26, truncation=True)
    long = {"input": "?", "candidates": ["now", "soon " * 50]}
    cut = {"input": "?", "candidates": ["now", "soon " * 8]}
    assert ranked(step, [long])[0]["scores"] == pytest.approx(ranked(step, [cut])[0]["scores"], abs=1e-5)


def test_rows_that_failed_before_arent_compared(tmp_path: Path) -> None:
    step = PairRM(model=make_model(tmp_path), device="cpu")
    failed = {"input": None, METADATA: {"error_x": {"type": "E", "message": "no", "retryable": False}}}
    assert [row["ranks"] is None for row in step.apply([failed, *ROWS])] == [True, False, False, False]


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "cand1_prefix_id": 7}))
    with pytest.raises(ValueError, match=r"has a tokenizer without <\|source\|>, "):
        PairRM(model=path, device="cpu").load()
    del config["cand1_prefix_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is none that compares pairs, such as llm-blender/PairRM-hf"):
        PairRM(model=path, device="cpu").load()


def test_a_model_without_the_weights_of_its_head_is_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: each for name, each in weights.items() if not name.startswith("head_layer.4")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for \['head_layer.4.bias', 'head_layer.4.weight'\]"):
        PairRM(model=path, device="cpu").load()
