"""Whether two final answers are equal, by math-verify. The sandbox loads it: it imports nothing of the project.

math-verify ends what takes too long by a signal, which works in the main thread alone. Here it has no time limit of its
own: the sandbox ends the process of a call, whatever hangs in it.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["equal"]


def equal(right: str, answer: str) -> bool | None:
    """Whether two answers in LaTeX are equal; None where one of them can't be read as mathematics."""
    # By its name: it's of an extra, and has no types.
    math_verify: Any = importlib.import_module("math_verify")
    boxed = math_verify.LatexExtractionConfig(boxed_match_priority=0)
    read: list[list[Any]] = [
        math_verify.parse(f"\\boxed{{{each}}}", [boxed], parsing_timeout=0) for each in (right, answer)
    ]
    if any(not found or isinstance(found[0], str) for found in read):
        return None
    one, other = (found[0] for found in read)
    settings = {"allow_set_relation_comp": True, "timeout_seconds": 0, "raise_on_error": True}
    return bool(math_verify.verify(one, other, **settings))


# The parser learns as it reads. What it has learned in the sandbox, the fork of a call doesn't have to.
if not __package__:
    for example in (r"\frac{1}{2}", r"x=2\sqrt{3}", r"\{1,2\}", r"(-\infty, 3]", "x^2+2x+1", r"30^\circ"):
        equal(example, "0.5")
