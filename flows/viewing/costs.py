"""What a row cost, at list price: by the tokens that its steps noted, and whom they asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.store.results import AskedModel
from flows.viewing.values import StepNotes


@dataclass(frozen=True)
class RowCost:
    """What a row took and cost."""

    steps: Mapping[str, str]
    """Dollars in words, by step; those whose price isn't known are left out."""
    whole: str
    """Of all steps; empty where no price is known."""
    input_tokens: int
    output_tokens: int


def cost_of_row(steps: Sequence[StepNotes], models: Mapping[str, AskedModel]) -> RowCost:
    """What a row took and cost.

    Args:
        steps: what they noted of its answers.
        models: whom they asked, as far as that is known.
    """
    from llms.prices import money

    dollars = {each.step: known for each in steps if (known := _dollars(each, models.get(each.step))) is not None}
    partial = any(each.usage and each.step not in dollars for each in steps)
    whole = money(sum(dollars.values())) if dollars else ""
    return RowCost(
        {step: money(each) for step, each in dollars.items()},
        f"at least {whole}" if whole and partial else whole,
        sum(each.tokens("input_tokens") for each in steps),
        sum(each.tokens("output_tokens") for each in steps),
    )


def _dollars(step: StepNotes, model: AskedModel | None) -> float | None:
    from llms.prices import price_at
    from llms.typing import PriceSource, Usage

    if model is None or not model.url or not step.usage:
        return None
    source = PriceSource(model.url, model.model)
    known: list[float] = []
    for each in step.usage:
        usage = Usage(
            input_tokens=each.get("input_tokens", 0),
            output_tokens=each.get("output_tokens", 0),
            cached_tokens=each.get("cached_tokens", 0),
            cache_write_tokens=each.get("cache_write_tokens", 0),
            reasoning_tokens=each.get("reasoning_tokens", 0),
        )
        price = price_at(source, usage, batch_share=model.batch_share)
        if price is None:
            return None
        known.append(price.dollars)
    return sum(known)
