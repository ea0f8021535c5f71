"""Replies of a model that repeats itself to its limit: they are read, or not, in no time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import LONGEST, ROOT

READERS = {
    "a final answer": "tasks.verifying.answers:answer_in",
    "a verdict on a solution": "tasks.verifying.judge:read_verdict",
    "scores": "tasks.judging.scorers:said_in_lines",
    "evaluations": "tasks.judging.ultrafeedback:blocks_in_text",
    "a letter": "tasks.reading.labelled:letter_of",
    "a number": "tasks.reading.replies:whole_number",
    "steps": "tasks.math.math_solutions:read_solutions",
}
READ = """
import importlib, sys
module, _, name = sys.argv[1].partition(":")
read = getattr(importlib.import_module(module), name)
more = {"letter_of": ("it",), "whole_number": (1, 5, "it"), "read_solutions": (1,)}.get(name, ())
for sign in ("\\n", " ", "-", "#", "*", "_", "`", "* ", "1. ", "\\n- "):
    for text in (sign * (8_000 // len(sign)), "2 " + sign * (8_000 // len(sign)) + "x"):
        try:
            read(text, *more)
        except ValueError:
            pass
"""


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_reply_of_one_sign_thousands_of_times_is_read_before_long(reader: str) -> None:
    subprocess.run([sys.executable, "-c", READ, reader], cwd=ROOT, timeout=LONGEST, check=True)
