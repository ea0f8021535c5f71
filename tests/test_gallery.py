"""The gallery is what the docstrings say now, and has everything that is exported."""

from __future__ import annotations

import re

import pytest

import llms
import tasks
from deployments import gallery
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


class Sorting:
    """Sorts | things.

    More of it.

    Input columns:
        first, second: two texts,
            which are: long.
        third (optional): a number.
        fourth (with `options`, where wanted): a list.
        those of `columns`, in order.

    Output columns:
        one: what came of it; or
        many (several): a list of it.
        model_name: the model.

    Example:
        >>> None
    """


def test_the_page_is_up_to_date() -> None:
    assert gallery.page() == TEXT, "docs/gallery.md is stale: python -m deployments.gallery"


def test_columns_are_read_from_a_docstring() -> None:
    read = gallery.columns_in(Sorting, "Input columns:")
    written = gallery.columns_in(Sorting, "Output columns:")

    assert read == "`first`, `second`, (`third`), (`fourth`), those of `columns`"
    assert written == "`one` or (`many`)"
    assert gallery.columns_in(Sorting, "Source:") == ""


def test_a_summary_can_stand_in_a_table() -> None:
    assert gallery.summary(Sorting) == "Sorts \\| things."


@pytest.mark.parametrize("package", ["llms", "tasks"])
def test_every_class_that_answers_or_makes_rows_is_on_the_page(package: str) -> None:
    kinds = [kind for kind in vars({"llms": llms, "tasks": tasks}[package]).values() if isinstance(kind, type)]
    wanted = {
        kind.__name__
        for kind in kinds
        if issubclass(kind, llms.LLM | tasks.Step) and not getattr(kind, "__abstractmethods__", None)
    }

    assert wanted
    assert wanted <= set(re.findall(r"^\| \[`(\w+)`\]", TEXT, re.MULTILINE))


def test_every_task_says_in_its_docstring_which_columns_it_writes() -> None:
    without = [
        kind.__name__
        for kind in gallery.exported(tasks)
        if issubclass(kind, tasks.ModelStep) and not gallery.columns_in(kind, "Output columns:")
    ]

    assert without == []


def test_a_group_is_on_the_page_once() -> None:
    headings = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)

    assert len(headings) == len(set(headings))
    assert headings[0] == "LLMs"
