"""Texts cut to a number of characters or tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tasks.rows.truncation import TruncateTextColumn, end_of_tokens
from tasks.steps import METADATA, failure_in

TEXTS = ["High tide comes twice a day. 🌊🌊", "  Façade, 日本語 and  spaces\n\n", "tides, tidal, tide"]


def trained() -> Tokenizer:
    """Byte pairs, as most language models have them: a rare character takes several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


TOKENIZER = trained()


def tokens_in(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


def cut(text: str, max_length: int, **options: Any) -> str:
    (row,) = TruncateTextColumn(max_length=max_length, **options).apply([{"text": text}])
    return row["text"]


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("High tide", 4, "High"), ("High tide", 9, "High tide"), ("High tide", 50, "High tide"), ("🌊🌊", 1, "🌊")],
)
def test_without_a_tokenizer_characters_are_counted(text: str, length: int, expected: str) -> None:
    assert cut(text, length) == expected


def test_the_default_is_long() -> None:
    assert len(TruncateTextColumn().apply([{"text": "a" * 10_000}])[0]["text"]) == 8192


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("length", [0, 1, 2, 5, 9])
def test_with_a_tokenizer_the_text_has_at_most_so_many_tokens_and_is_a_beginning_as_it_was_written(
    tmp_path: Path, text: str, length: int
) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))

    made = cut(text, length, tokenizer=str(tmp_path / "tokenizer.json"))

    assert text.startswith(made)
    assert tokens_in(made) <= length


@given(st.text(alphabet="tide hgH.🌊日é\n ", max_size=30), st.integers(0, 12))
# The two ends of lines are one token at the end of a text, and two before a letter.
@example("Hé\n\nH", 4)
@example("日日", 4)
def test_a_cut_leaves_the_first_tokens_but_no_part_of_a_character(text: str, length: int) -> None:
    end = end_of_tokens(TOKENIZER, text, length)

    assert tokens_in(text[:end]) <= length
    offsets = TOKENIZER.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= length:
        assert end == len(text)
        return
    first_that_goes = offsets[length][0]
    assert end <= first_that_goes
    assert all(stop <= end or stop > first_that_goes for _, stop in offsets[:length])


def test_a_folder_with_a_tokenizer_will_do(tmp_path: Path) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    assert tokens_in(cut(TEXTS[0], 3, tokenizer=str(tmp_path))) == 3


def test_a_file_that_cuts_and_fills_up_for_its_model_only_counts_here(tmp_path: Path) -> None:
    other = trained()
    other.enable_truncation(2)
    other.enable_padding(length=40)
    other.save(str(tmp_path / "tokenizer.json"))
    assert tokens_in(cut(TEXTS[0], 5, tokenizer=str(tmp_path / "tokenizer.json"))) == 5


def test_a_tokenizer_that_cant_be_loaded_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    step = TruncateTextColumn(tokenizer=str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer='.*' can't be loaded: .* the path of such a file"):
        step.load()


def test_another_column_is_cut_and_the_rest_stays() -> None:
    step = TruncateTextColumn(column="instruction", max_length=2)
    row = {"instruction": "abc", "text": "abc"}
    assert step.apply([row]) == [{"instruction": "ab", "text": "abc"}]
    assert row == {"instruction": "abc", "text": "abc"}
    assert (step.inputs, step.outputs) == (["instruction"], ["instruction"])


@pytest.mark.parametrize("value", [None, 5, ["abc"]])
def test_a_row_without_a_text_fails_alone(value: Any) -> None:
    bad, good = TruncateTextColumn(max_length=2).apply([{"text": value}, {"text": "abc"}])
    failure = failure_in(bad)
    assert failure is not None
    assert failure["message"].startswith("text: expected a text, got ")
    assert bad["text"] == value
    assert good == {"text": "ab"}


def test_metadata_stays() -> None:
    (row,) = TruncateTextColumn(max_length=1).apply([{"text": "ab", METADATA: {"raw_output_x": "ab"}}])
    assert row == {"text": "a", METADATA: {"raw_output_x": "ab"}}
