"""What each Claude takes of the parameters of a request, so that none is refused for them: a batch would tell in a day.

The tables name by family the first version for which a line holds; later ones do as well. As of November 2026, from
https://platform.claude.com/docs/en/about-claude/models/migration-guide,
https://docs.claude.com/en/docs/build-with-claude/extended-thinking (and adaptive-thinking, effort, structured-outputs),
and the profiles of https://github.com/pydantic/pydantic-ai (pydantic_ai/profiles/anthropic.py), which were tried there.
A model that no table names gets what it's asked with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Version: TypeAlias = tuple[int, int]
Since: TypeAlias = Mapping[str, Version]

FAMILY = re.compile(r"claude-(?:v?\d[\d.-]*-)?(?P<family>[a-z]+)")
NUMBERS = re.compile(r"(?<![\d])(\d{1,2})(?:[.-](\d{1,2}))?(?!\d)")

NO_SAMPLING: Since = {"opus": (4, 7), "sonnet": (5, 0), "haiku": (5, 5), "fable": (5, 0), "mythos": (5, 0)}
"""Takes no temperature, top_p and top_k."""
NO_BUDGET: Since = NO_SAMPLING
"""Decides by itself how much it thinks."""
TEMPERATURE_OR_TOP_P: Since = {"opus": (4, 1), "sonnet": (4, 5), "haiku": (4, 5)}
"""Takes one of the two."""
ADAPTIVE: Since = {"opus": (4, 6), "sonnet": (4, 6), "haiku": (5, 5), "fable": (5, 0), "mythos": (5, 0)}
"""Can be let decide how much it thinks."""
THINKS_IN_ANY_CASE: Since = {"opus": (5, 5), "fable": (5, 0), "mythos": (5, 0)}
THINKS_BETWEEN_TOOLS: Since = {"sonnet": (5, 5)}
"""Thinks no less than that."""
EFFORT: Since = {"opus": (4, 5), "sonnet": (4, 6), "haiku": (5, 5), "fable": (5, 0), "mythos": (5, 0)}
MORE_EFFORT: Since = {"opus": (4, 7), "sonnet": (5, 0), "haiku": (5, 5), "fable": (5, 0), "mythos": (5, 0)}
"""Knows `xhigh`."""
NO_EFFORT_WITHOUT_THOUGHTS: Since = {"opus": (5, 0)}
"""Takes no more effort than `high` where it isn't to think."""
SCHEMAS: Since = {"opus": (4, 1), "sonnet": (4, 5), "haiku": (4, 5), "fable": (5, 0), "mythos": (5, 0)}
"""Can be held to a schema."""
NO_FORCED_TOOL: Since = {"fable": (5, 1), "mythos": (5, 1)}

LOWEST_TOP_P = 0.95
"""While it thinks."""


def version_of(model: str) -> tuple[str, Version] | None:
    """Family and version of a model, at Anthropic or as a gateway names it; None where the name tells none.

    Example:
        >>> version_of("claude-opus-4-7"), version_of("claude-3-7-sonnet-20250219"), version_of("claude-opus-4")
        (('opus', (4, 7)), ('sonnet', (3, 7)), ('opus', (4, 0)))
    """
    name = model.lower()
    start = name.find("claude-")
    family, numbers = FAMILY.search(name), NUMBERS.search(name, max(0, start))
    if family is None or numbers is None:
        return None
    return family["family"], (int(numbers[1]), int(numbers[2] or 0))


def holds(since: Since, model: str) -> bool:
    """Whether a table's line holds for a model.

    Example:
        >>> holds(NO_SAMPLING, "claude-opus-4-6"), holds(NO_SAMPLING, "claude-opus-5"), holds(NO_SAMPLING, "gpt-4o")
        (False, True, False)
    """
    found = version_of(model)
    return found is not None and found[0] in since and found[1] >= since[found[0]]


def is_before(since: Since, model: str) -> bool:
    """Whether a model is an earlier one than those for which a line holds. False where that isn't known."""
    found = version_of(model)
    return found is not None and found[0] in since and found[1] < since[found[0]]


def fitted(model: str, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters that a model takes, by our names, and in words what was changed.

    Args:
        model: its name.
        wanted: the parameters of a request. What is in `extra_body` is sent as it is.
    """
    taken = dict(wanted)
    changes: list[str] = []
    found = version_of(model)
    if found is None or found[0] not in NO_SAMPLING:
        return taken, changes

    def leave_out(names: tuple[str, ...], why: str) -> None:
        there = [name for name in names if taken.pop(name, None) is not None]
        if there:
            changes.append(f"{' and '.join(there)} left out: {why}")

    if holds(NO_BUDGET, model) and "thinking_budget" in taken:
        taken["thinking"] = "adaptive"
        # As much room as it would have had.
        taken["more_tokens"] = taken.pop("thinking_budget")
        changes.append(
            "thinking_budget left out, thinking=adaptive in its place: it decides by itself how much to think"
        )
    if taken.get("thinking") == "adaptive" and is_before(ADAPTIVE, model):
        leave_out(("thinking",), "it can't decide how much to think; give thinking_budget")
    if taken.get("thinking") == "disabled":
        if holds(THINKS_IN_ANY_CASE, model):
            leave_out(("thinking",), "it thinks in any case, within max_new_tokens")
        elif holds(THINKS_BETWEEN_TOOLS, model):
            taken["thinking"] = "between_tools"
            changes.append("thinking=disabled became between_tools: it thinks no less")
    thinks = "thinking_budget" in taken or taken.get("thinking") == "adaptive"
    if holds(NO_SAMPLING, model):
        leave_out(("temperature", "top_p", "top_k"), "it takes no sampling parameters")
    if thinks:
        leave_out(("temperature", "top_k"), "they don't go with thinking")
        if taken.get("top_p", 1) < LOWEST_TOP_P:
            leave_out(("top_p",), f"with thinking it has to be at least {LOWEST_TOP_P}")
    if holds(TEMPERATURE_OR_TOP_P, model) and {"temperature", "top_p"} <= set(taken):
        leave_out(("top_p",), "it takes temperature or top_p")
    _fit_effort(model, taken, changes)
    return taken, changes


def _fit_effort(model: str, taken: dict[str, Any], changes: list[str]) -> None:
    effort = taken.get("reasoning_effort")
    if effort is None:
        return
    if is_before(EFFORT, model):
        del taken["reasoning_effort"]
        changes.append("reasoning_effort left out: it doesn't know it")
        return
    quiet = taken.get("thinking") in {"disabled", "between_tools"}
    too_much = (effort == "xhigh" and is_before(MORE_EFFORT, model)) or (
        effort in {"xhigh", "max"} and quiet and holds(NO_EFFORT_WITHOUT_THOUGHTS, model)
    )
    if too_much:
        taken["reasoning_effort"] = "high"
        changes.append(f"reasoning_effort={effort} became high: it takes no more")


def takes_schemas(model: str) -> bool:
    """Whether the model can be held to a schema. Where not, a tool takes the answer."""
    return not is_before(SCHEMAS, model)


def forces_tool(model: str, body: Mapping[str, Any]) -> bool:
    """Whether it can be made to call a tool. Thinking to a budget, it decides for itself."""
    return not holds(NO_FORCED_TOOL, model) and "budget_tokens" not in body.get("thinking", {})


# How the API refuses a parameter, by our name of it: for models that no table knows.
REFUSALS: Mapping[str, re.Pattern[str]] = {
    "top_p": re.compile(
        r"`?temperature`? and `?top_p`? cannot both be specified|`?top_p`? (is|are) (deprecated|not)", re.I
    ),
    "temperature": re.compile(r"`?temperature`? (is|may|can) (deprecated|not|only)", re.I),
    "top_k": re.compile(r"`?top_k`? (is|may|must|can) (deprecated|not|only|be unset)", re.I),
    "thinking_budget": re.compile(
        r"thinking\.type\.enabled.? is not supported|budget_tokens.{0,40}not (supported|permitted)", re.I
    ),
    "thinking": re.compile(r"adaptive thinking is not supported|thinking\.type\.disabled.? is not supported", re.I),
    "reasoning_effort": re.compile(r"effort.{0,40}not (supported|permitted)|does not support the effort", re.I),
}


def refused_in(said: str) -> str | None:
    """The parameter, by our name, that a refusal is about; None where it's about something else.

    Example:
        >>> refused_in("`temperature` is deprecated for this model."), refused_in("messages: at least one is required")
        ('temperature', None)
    """
    return next((name for name, pattern in REFUSALS.items() if pattern.search(said)), None)
