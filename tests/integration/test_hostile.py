"""Runs against a provider that plays every fault, and proofs that their judge sees what it is there for."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hostile import Game, Verdict, game_of, judge, play, report, short_hash, warm_processes

SEEDS = range(1, 13)
SAMPLE = {3, 5, 6, 8, 20261210}
"""Those that `make test` plays: both wires, online and in batches."""
SEEDS_VARIABLE = "STILLFLOW_TEST_HOSTILE_SEEDS"
"""How many seeds more, for a night."""
# In the first, several models were asked the same, and were in each other's way. In the second, kills lost answers of
# rows that waited for another one.
MORE_SEEDS = (20261134, 20261210, *range(100, 100 + int(os.environ.get(SEEDS_VARIABLE, "0"))))


@pytest.fixture(scope="module")
def processes() -> Any:
    return warm_processes()


@pytest.mark.parametrize(
    "seed", [seed if seed in SAMPLE else pytest.param(seed, marks=pytest.mark.full) for seed in [*SEEDS, *MORE_SEEDS]]
)
def test_no_row_is_lost_doubled_or_swapped_and_no_answer_paid_twice_whatever_the_provider_does(
    seed: int, processes: Any, tmp_path: Path
) -> None:
    outcome = play(game_of(seed), tmp_path, processes)

    assert outcome.faultless, f"{outcome.verdict}, stuck: {outcome.stuck}\n{report([outcome])}\n{outcome.log}"


def test_the_seeds_play_on_both_wires_online_and_in_batches_with_and_without_kills() -> None:
    games = [game_of(seed) for seed in SEEDS]

    assert {(game.wire, game.offline) for game in games} == {
        ("openai", True),
        ("openai", False),
        ("anthropic", True),
        ("anthropic", False),
    }
    assert {bool(game.kills) for game in games} == {True, False}
    assert {len(game.models) > 1 for game in games} == {True, False}


GAME = Game(
    seed=0,
    wire="openai",
    offline=True,
    models=("one", "two"),
    prompts=("[answered] a", "[answered] b", "[answered] a", "[refused] c", "[filtered] d"),
    generations=1,
    kills=(),
    fault_rate=0,
    jobs_at_most=10,
)


def right_rows(model: str, first: int) -> list[dict[str, Any]]:
    """What a dataset has to look like, its texts numbered from `first` on."""
    made: list[dict[str, Any]] = []
    for place, prompt in enumerate(GAME.prompts):
        text = f"{model}|{short_hash(prompt)}|{first + place}" if prompt.startswith("[answered]") else None
        metadata = {"error_step": None if text else {"type": "ContentFilterError"}}
        made.append({"id": place, "instruction": prompt, "generation": text, "distilabel_metadata": metadata})
    return made


def right() -> dict[str, list[dict[str, Any]]]:
    return {"one": right_rows("one", 0), "two": right_rows("two", 100)}


def sold() -> dict[tuple[str, str], list[int]]:
    return {(model, prompt): [1] * GAME.needed[model, prompt] for model in GAME.models for prompt in GAME.prompts}


def test_the_judge_finds_nothing_in_a_dataset_that_is_right() -> None:
    assert judge(GAME, right(), sold()) == Verdict(rows=10)


def test_the_judge_sees_a_row_that_is_not_there_and_one_without_the_answer_that_was_to_be_had() -> None:
    missing, empty = right(), right()
    del missing["one"][1]
    empty["two"][0]["generation"] = None

    assert judge(GAME, missing, sold()).lost == 1
    assert judge(GAME, empty, sold()).lost == 1
    assert judge(GAME, {"one": right()["one"]}, sold()).lost == 5


def test_the_judge_sees_a_row_twice_and_two_rows_with_one_answer() -> None:
    twice, shared = right(), right()
    twice["one"].append(twice["one"][0])
    shared["one"][2]["generation"] = shared["one"][0]["generation"]

    assert judge(GAME, twice, sold()).doubled >= 1
    assert judge(GAME, shared, sold()).doubled == 1


def test_the_judge_sees_the_answers_of_another_row_and_of_another_model() -> None:
    rows, models = right(), right()
    rows["one"][0]["generation"], rows["one"][1]["generation"] = (
        rows["one"][1]["generation"],
        rows["one"][0]["generation"],
    )
    models["one"][0]["generation"] = models["one"][0]["generation"].replace("one|", "two|")

    assert judge(GAME, rows, sold()).swapped == 2
    assert judge(GAME, models, sold()).swapped == 1


def test_the_judge_sees_half_an_answer_that_looks_whole() -> None:
    seen = right()
    seen["one"][4] |= {"generation": f"one|{short_hash(GAME.prompts[4])}|9", "distilabel_metadata": {}}

    assert judge(GAME, seen, sold()).believed == 1


def test_the_judge_sees_an_answer_that_was_paid_twice_unless_a_kill_online_may_have_taken_it() -> None:
    again = sold()
    again["one", "[answered] b"] = [1, 2]

    assert judge(GAME, right(), again).paid_twice == 1
    assert judge(replace(GAME, kills=(0.1,)), right(), again).paid_twice == 1
    assert judge(replace(GAME, kills=(0.1,), offline=False), right(), again).paid_twice == 0
    assert judge(replace(GAME, offline=False), right(), again).paid_twice == 1


def test_the_judge_sees_that_what_always_ends_the_same_way_is_asked_again_and_again() -> None:
    asked = Counter({("one", "[refused] c"): 8})

    assert judge(GAME, right(), sold(), asked, lives=1).asked_again == 1
    assert judge(GAME, right(), sold(), asked, lives=2).asked_again == 0
