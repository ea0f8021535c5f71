"""A look at a dataset: rows as people read them, how values are spread, and nothing that words in it could do."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, Features, List, Value

from tasks.steps import METADATA
from tasks.targets.distributions import REFUSAL, Distributions, distributions_markdown
from tasks.targets.look import LOOKED_AT, look_at, look_markdown
from tasks.targets.sample import LONGEST_SAMPLE, row_markdown, sample_markdown
from tests.rendering import EVIL, check_inert


def failure(number: int) -> dict[str, Any]:
    return {METADATA: {"error_gen": {"type": "Refused", "message": f"no {number}", "retryable": False}}}


def spread_of(*rows: dict[str, Any]) -> str:
    seen = Distributions()
    for row in rows:
        seen.add(row)
    return distributions_markdown(seen)


def chat(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


def test_ten_rows_spread_over_all_of_them_are_shown_the_same_ones_each_time() -> None:
    dataset = Dataset.from_dict({"n": list(range(300))})

    look = look_at(dataset)

    assert [place for place, _ in look.sample] == list(range(0, 300, 30))
    assert [row["n"] for _, row in look.sample] == list(range(0, 300, 30))
    assert look_markdown(look) == look_markdown(look_at(dataset))
    assert "10 rows, spread evenly over all 300." in look_markdown(look)


def test_of_a_million_rows_only_so_many_are_looked_at_and_that_is_said() -> None:
    dataset = Dataset.from_dict({"n": range(1_000_000)}, features=Features({"n": Value("int64")}))

    look = look_at(dataset)

    assert look.seen.rows == LOOKED_AT
    assert look.sample[-1] == (900_000, {"n": 900_000})
    assert "Of 2,000 rows, spread evenly." in look_markdown(look)
    assert "10 rows, spread evenly over all 1,000,000." in look_markdown(look)


def test_failed_rows_stand_first_with_their_reason() -> None:
    rows = [
        {"text": f"t {number}", **(failure(number) if number % 50 == 49 else {METADATA: {}})} for number in range(300)
    ]

    look = look_at(Dataset.from_list(rows))

    assert [place for place, _ in look.sample] == [49, 99, 149, 0, 30, 60, 90, 120, 150, 180]
    assert "### Row 49\n\n**Failed** in `gen`: Refused: no 49" in look_markdown(look)
    assert "failed ones first" in look_markdown(look)


def test_a_dataset_without_rows_has_nothing_to_look_at() -> None:
    assert look_markdown(look_at(Dataset.from_dict({"n": []}))) == ""


def test_a_chat_is_shown_message_by_message() -> None:
    shown = row_markdown({"conversation": chat("Hi\nthere", "Hello", "And?", "Well.", "So?")})

    assert shown == (
        "**`conversation`**\n\n- … (1 message before)\n- **assistant:** Hello\n- **user:** And?\n"
        "- **assistant:** Well.\n- **user:** So?"
    )
    assert "- **user:** Hi\\\n  there" in row_markdown({"messages": chat("Hi\nthere")})


def test_what_is_chosen_and_what_is_rejected_stand_side_by_side() -> None:
    row = {"chosen": chat("Which?", "This\none"), "rejected": chat("Which?", "That | one")}

    expected = "| `chosen` | `rejected` |\n| --- | --- |\n| This one | That \\| one |"
    assert row_markdown(row) == expected
    assert row_markdown({"chosen": "This one", "rejected": "That | one"}) == expected
    assert "| 1 " not in row_markdown({"chosen": "This one"})


def test_reasoning_is_folded_and_short_values_share_a_line() -> None:
    shown = row_markdown(
        {"label": "good", "reasoning": "Let me think. " * 20, "rating": 4, "scores": [1, None], "v": [0.5] * 64}
    )

    facts, _, folded = shown.partition("\n\n")
    assert folded.startswith("<details>\n<summary>reasoning</summary>\n\nLet me think. ")
    assert folded.endswith("\n\n</details>")
    assert facts == "`label` good · `rating` `4` · `scores` `1, –` · `v` 64 numbers"


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    assert "(4,000 more characters)" in row_markdown({"text": "x" * 5000})
    whole = sample_markdown([(n, {f"c{each}": "word " * 2000 for each in range(30)}) for n in range(10)])
    assert len(whole) < LONGEST_SAMPLE + 200
    assert "10 more columns" in whole
    assert whole.endswith("The other rows of the sample are too long to be shown here.")


def test_any_value_can_be_shown_and_counted() -> None:
    row: dict[str, Any] = {
        "none": None,
        "empty": "",
        "nothing": [],
        "bytes": b"abc",
        "nested": {"a": [{"b": 1}]},
        "mixed": [{"a": 1}, {"b": "c"}],
        "nan": float("nan"),
        "huge": 10**400,
        "odd chat": [{"role": "user", "content": None}, {"role": "user", "content": [{"type": "image_url"}]}],
        METADATA: {"statistics_gen": [{"input_tokens": 3, "output_tokens": None}], "finish_reason_gen": ["stop", None]},
    }

    assert "`bytes` 3 bytes" in row_markdown(row)
    assert "| `gen`, input tokens | 1 | 3 | 3 | 3 | 3 |  |" in spread_of(row)


def test_lengths_labels_ratings_tokens_and_finish_reasons_are_counted() -> None:
    rows = [
        {
            "generation": "word " * (number + 10),
            "label": "good" if number % 4 else "bad",
            "ratings": [number % 5, 3],
            "conversation": chat("a", "b"),
            METADATA: {
                "statistics_gen": {"input_tokens": number, "output_tokens": 2 * number},
                "finish_reason_gen": "stop" if number else "length",
            },
        }
        for number in range(40)
    ]

    shown = spread_of(*rows)

    assert "| `generation`, characters | 40 | 50 | 150 | 235 | 245 |" in shown
    assert "| `gen`, output tokens | 40 | 0 | 40 | 74 | 78 |" in shown
    assert "| `conversation`, messages | 40 | 2 | 2 | 2 | 2 |  |" in shown
    assert "| `label` | `good` | 30 (75%) | ████████████████████ |\n|  | `bad` | 10 (25%) | ███████ |" in shown
    assert "| `ratings` | `3` | 48 (60%) |" in shown
    assert "| `gen`, finish reason | `stop` | 39 (98%) |" in shown
    assert "`gen`, input tokens" in shown


def test_repeated_texts_and_refusals_are_counted() -> None:
    texts = [f"A long answer, number {number}, of which there is only one." for number in range(8)]

    shown = spread_of(
        *({"generation": text} for text in [*texts, texts[0], texts[0], "I'm sorry, but I can't do that."])
    )

    assert "| `generation` | 2 | 1 | 11 |" in shown
    assert "refusals" not in spread_of(*({"generation": text} for text in texts))


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I am really sorry, I cannot do it", True),
        ("As an AI language model, I have no feelings.", True),
        ("I cannot assist with this request.", True),
        ("I\u2019m unable to answer.", True),
        ("Unfortunately, I can't say.", True),
        ("Sorry seems to be the hardest word, said the singer.", False),
        ("As an aid to memory, write it down.", False),
        ("He said: I'm sorry, but I can't.", False),
        ("I can do that.", False),
    ],
)
def test_a_refusal_is_known_by_its_first_words(text: str, refused: bool) -> None:
    assert (REFUSAL.match(text) is not None) is refused


@pytest.mark.parametrize("words", EVIL)
def test_words_do_nothing_wherever_they_stand(words: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": words,
            "long": f"{words}\n{words} " * 3,
            "reasoning": words * 9,
            "conversation": [{"role": words, "content": f"{words}\n\n{words}"}, {"role": "user", "content": words}],
            "chosen": words,
            "rejected": [{"role": "user", "content": words}],
            "options": [words, words],
            "other": {words: words},
            words: words,
            METADATA: {
                "error_gen": {"type": words, "message": words, "retryable": False},
                f"finish_reason_{words}": words,
                f"statistics_{words}": {"input_tokens": 1},
            },
        }
        for _ in range(3)
    ]

    check_inert(sample_markdown(list(enumerate(rows))))
    check_inert(spread_of(*rows))


def test_lists_of_many_rows_in_one_column_are_no_labels() -> None:
    features = Features({"vector": List(Value("float32"))})
    dataset = Dataset.from_dict({"vector": [[0.1] * 64] * 20}, features=features)

    assert "`vector`, numbers | 20 | 64 |" in look_markdown(look_at(dataset))
