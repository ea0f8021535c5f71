"""Random choices for a row are the same wherever and whenever they are made."""

from __future__ import annotations

from tasks.random_choices import random_for

ROW = {"instruction": "How high is K2?", "level": 3}


def test_a_choice_depends_on_the_row_the_seed_and_the_round_alone() -> None:
    first = random_for(ROW, 7, 1).random()

    assert first == 0.27857856685006044
    assert random_for({"level": 3, "instruction": "How high is K2?"}, 7, 1).random() == first
    assert random_for({**ROW, "distilabel_metadata": {"raw_input_a": "x"}}, 7, 1).random() == first


def test_another_row_seed_or_round_makes_another_choice() -> None:
    others = [random_for({**ROW, "level": 4}, 7, 1), random_for(ROW, 8, 1), random_for(ROW, 7, 2)]

    assert len({each.random() for each in [random_for(ROW, 7, 1), *others]}) == 4
