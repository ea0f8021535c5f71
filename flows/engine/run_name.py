"""The name of a flow run: what runs, in place of the two random words that Prefect gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from flows.engine.artifacts import no_need_of_the_server
from flows.engine.graph import Node
from flows.engine.run import Run
from llms.errors import cut
from llms.quantities import quantity
from llms.secrets import masked
from tasks.base import ModelStep
from tasks.markdown import inert

MOST_MODELS = 3
LONGEST_NAME = 120
"""Characters of a name: lists show no more."""
FORM_ADJECTIVES = frozenset(
    [
        *("Awesome", "Ergonomic", "Fantastic", "Generic", "Gorgeous", "Handcrafted", "Handmade", "Incredible"),
        *("Intelligent", "Licensed", "Practical", "Refined", "Rustic", "Sleek", "Small", "Tasty", "Unbranded"),
    ]
)
"""What a name begins with that the run form of Prefect's UI (V2) fills in."""
LONGEST_FORM_WORD = 6
"""Characters of the word after it."""


async def name_run(run: Run, nodes: Sequence[Node], rows: int | None = None) -> None:
    """Give the flow run its name, if nobody gave it one. It keeps that through retries and wake-ups.

    Args:
        nodes: its steps.
        rows: how many its source gave, once that is known.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or run.flow_run.in_task or not _names_itself(context.flow):
        return
    if run.limits is not None and not run.limits.ask:
        return
    models = list(dict.fromkeys(node.step.answerer.model_name for node in nodes if isinstance(node.step, ModelStep)))
    first = name_of(run.flow_name, models)
    wanted = name_of(run.flow_name, models, rows)
    now = context.flow_run.name
    if now == wanted or not (now == first or is_generated(now)):
        return
    with no_need_of_the_server("the run's name"):
        async with get_client() as client:
            await client.set_flow_run_name(UUID(run.flow_run.id), wanted)
        context.flow_run.name = wanted


def _names_itself(flow: Any) -> bool:
    """Whether it's one of ours, without a template of its own for the names of its runs."""
    return bool(getattr(getattr(flow, "fn", None), "__stillflow__", False)) and flow.flow_run_name is None


def name_of(flow: str, models: Sequence[str], rows: int | None = None) -> str:
    """What runs, in a few words.

    Example:
        >>> name_of("text-generation", ["gpt-4o-mini"], 2000)
        'text-generation, 2,000 rows, gpt-4o-mini'
    """
    counted = [] if rows is None else [quantity(rows, "row")]
    more = [quantity(len(models) - MOST_MODELS, "more model")] if len(models) > MOST_MODELS else []
    return cut(inert(masked(", ".join([flow, *counted, *models[:MOST_MODELS], *more])), LONGEST_NAME), LONGEST_NAME)


def is_generated(name: str) -> bool:
    """Whether it's a name that Prefect made up: `auburn-monkey`, or `Rustic-pizza` in the form of its UI."""
    first, _, second = name.partition("-")
    if first in FORM_ADJECTIVES:
        return len(second) <= LONGEST_FORM_WORD
    adjectives, nouns = _prefects_words()
    return first in adjectives and second in nouns


@cache
def _prefects_words() -> tuple[frozenset[str], frozenset[str]]:
    """The adjectives and the nouns of Prefect's names; none, where the library that it makes them by has others."""
    import coolname
    from coolname.loader import load_config

    try:
        lists = cast("Mapping[str, Any]", load_config(Path(coolname.__file__).parent / "data"))
        adjectives, nouns = lists[lists["2"]["lists"][0]]["lists"]
        return _words(lists, adjectives), _words(lists, nouns)
    except (coolname.InitializationError, KeyError, ValueError, OSError):
        return frozenset(), frozenset()


def _words(lists: Mapping[str, Any], name: str) -> frozenset[str]:
    inner = lists[name].get("lists", ())
    return frozenset[str](lists[name].get("words", ())).union(*(_words(lists, each) for each in inner))
