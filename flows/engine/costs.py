"""Money: what a run's requests cost, and what requests that aren't sent yet are likely to cost.

In US dollars at the provider's list price, as far as `llms.prices` knows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flows.engine.run import Run, StepProgress
from flows.store.shards import Tokens
from llms.base import LLM, NOT_PARAMETERS, cut_off_in, finish_reasons_in, unfinished_in
from llms.batch import OfflineBatchLLM
from llms.embeddings import Embeddings
from llms.images import ImageGenerationModel
from llms.parameters import signature_model
from llms.prices import cost, money, price_of
from llms.quantities import quantity
from llms.typing import GenerateOutput, Usage
from llms.usage import usage_of
from tasks.base import ModelStep

UNKNOWN = "–"
NO_REASON = "no reason given"
OUTPUT_TOKENS = 400
"""Tokens of an answer where nothing tells its length: about 300 English words."""
IMAGE_TOKENS = 1056
"""Of an image of 1024 x 1024 pixels in medium quality, by OpenAI's table for its first image model."""


@dataclass(frozen=True)
class Cost:
    """What some work cost: the part of it whose price is known, and whether there's another part."""

    dollars: float | None = None
    """None where no price is known."""
    partial: bool = False
    """Whether some of the work has no known price."""

    @property
    def known(self) -> str:
        """In words; empty where no price is known."""
        if self.dollars is None:
            return ""
        return f"at least {money(self.dollars)}" if self.partial else money(self.dollars)

    def __str__(self) -> str:
        return self.known or UNKNOWN


def total(costs: Iterable[float | None]) -> Cost:
    """The sum of several costs, of which some may be unknown."""
    return together(Cost(each, partial=each is None) for each in costs)


def together(costs: Iterable[Cost]) -> Cost:
    every = list(costs)
    known = [each.dollars for each in every if each.dollars is not None]
    return Cost(sum(known) if known else None, partial=any(each.partial for each in every))


def tokens_of(llm: LLM, output: GenerateOutput, *, batched: bool) -> Tokens:
    """What an answer took, cost, and how its texts ended."""
    tokens = tokens_spent(llm, usage_of(output), batched=batched)
    ends = zip(finish_reasons_in(output), unfinished_in(output), strict=True)
    words = Counter(word or NO_REASON for word, unfinished in ends if unfinished)
    cut_off = sum(cut_off_in(output))
    return replace(tokens, cut_off=cut_off, unfinished=dict(words)) if cut_off or words else tokens


def tokens_spent(llm: LLM, usage: Sequence[Usage], *, batched: bool) -> Tokens:
    """What the requests for one answer took and cost, whatever came of them."""
    prices = [price_of(llm, each, batch=batched) for each in usage]
    known = [each for each in prices if each is not None]
    priced = len(known) == len(prices)
    return Tokens(
        requests=1,
        input_tokens=sum(each["input_tokens"] for each in usage),
        output_tokens=sum(each["output_tokens"] for each in usage),
        cached_tokens=sum(each.get("cached_tokens", 0) for each in usage),
        cache_write_tokens=sum(each.get("cache_write_tokens", 0) for each in usage),
        reasoning_tokens=sum(each.get("reasoning_tokens", 0) for each in usage),
        dollars=sum(each.dollars for each in known) if priced else 0.0,
        priced=int(priced),
        assumed=int(priced and any(each.assumed for each in known)),
    )


def cost_of_rows(steps: Iterable[StepProgress]) -> Cost:
    """What all answers in the rows cost, in whichever run they were asked for."""
    return together(_cost(step, step.work.online, step.work.batched) for step in steps if step.work.all.requests)


def cost_of_run(steps: Iterable[StepProgress]) -> Cost:
    """What the answers cost that this run asked for itself."""
    # A step whose answers were all there spent nothing, at whichever price.
    asked = (step for step in steps if step.work.all.requests)
    return together(_cost(step, step.work.sent_online, step.work.sent_batched) for step in asked)


def _cost(progress: StepProgress, online: Tokens, batched: Tokens) -> Cost:
    if not isinstance(progress.step, ModelStep):
        return Cost(partial=True)
    llm = progress.step.answerer
    parts = [_cost_of_tokens(llm, online, batch=False), _cost_of_tokens(llm, batched, batch=True)]
    return together(parts) if all(each.dollars is not None for each in parts) else Cost(partial=True)


def _cost_of_tokens(llm: LLM, tokens: Tokens, *, batch: bool) -> Cost:
    if not tokens.requests:
        return Cost(0.0)
    if tokens.priced:
        return Cost(tokens.dollars, partial=tokens.priced < tokens.requests)
    # Of before there were prices by request.
    dollars = cost(llm, tokens.input_tokens, tokens.output_tokens, requests=tokens.requests, batch=batch)
    return Cost(dollars, partial=dollars is None)


@dataclass(frozen=True)
class Estimate:
    """What requests are likely to take, before they are sent."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None
    """None where the price isn't known."""
    batch: bool
    guess: str
    """Where the number of output tokens is from."""

    def __str__(self) -> str:
        """In one line: `12,000 requests, about 3.1 M input and 4.8 M output tokens, about $14.20 at batch price`."""
        where = "at batch price" if self.batch else "at the online price"
        price = "price unknown" if self.dollars is None else f"about {money(self.dollars)} {where}"
        return (
            f"{quantity(self.requests, 'request')}, about {rounded(self.input_tokens)} input and"
            f" {rounded(self.output_tokens)} output tokens, {price} (output tokens: {self.guess})"
        )


def estimate(
    llm: LLM,
    requests: int,
    input_tokens: int,
    output_tokens_each: float | None = None,
    batch: bool = False,
    num_generations: int = 1,
) -> Estimate:
    """What requests are likely to take.

    Args:
        llm: who is asked. Its `max_new_tokens`, where it has one, is taken for the length of every answer: an
            estimate that isn't exceeded.
        requests: how many.
        input_tokens: of all requests together.
        output_tokens_each: tokens of one answer, as earlier ones had on average. Without it and without
            `max_new_tokens`: `OUTPUT_TOKENS`.
        batch: whether they go into batch jobs.
        num_generations: answers per request.
    """
    each, guess = _output_guess(llm, output_tokens_each)
    output_tokens = round(requests * num_generations * each)
    dollars = cost(llm, input_tokens, output_tokens, requests=requests, batch=batch) if requests else 0.0
    return Estimate(requests, input_tokens, output_tokens, dollars, batch, guess)


def estimate_of_step(step: ModelStep, requests: int, input_tokens: int, *, batch: bool) -> Estimate:
    """What requests are likely to take that a step sends for its rows.

    Args:
        requests: how many, of `requests_per_row(step)` for each row.
        input_tokens: of all requests together.
    """
    each = step.answers_per_row // requests_per_row(step)
    return estimate(step.answerer, requests, input_tokens, batch=batch, num_generations=max(1, each))


def requests_per_row(step: ModelStep) -> int:
    """Into how many requests a provider has a row's answers split."""
    llm = step.answerer
    return llm.requests_per_input(step.answers_per_row) if isinstance(llm, OfflineBatchLLM) else 1


def committed(run: Run) -> float:
    """The dollars that a run has spent online, or is about to, and those that its batch jobs were estimated at."""
    spent = {name: each.work.sent_online.dollars for name, each in run.progress.items()}
    expected = run.money.expected
    return run.money.submitted + sum(
        max(expected.get(name, 0.0), spent.get(name, 0.0)) for name in spent.keys() | expected.keys()
    )


def needs_approval(run: Run, estimates: Iterable[Estimate]) -> bool:
    """Whether a person has to agree before what was estimated is sent, beside what the run sends already."""
    limit, dollars = run.money.spending.approve_cost_above, [each.dollars for each in estimates]
    if limit is None:
        return False
    whole = committed(run) + sum(each or 0.0 for each in dollars)
    # What was agreed to was added up in another order.
    return (None in dollars and not run.money.approved_unpriced) or whole > max(limit, run.money.approved) * (1 + 1e-9)


def _output_guess(llm: LLM, average: float | None) -> tuple[float, str]:
    """The likely tokens of an answer, and in words where the number is from."""
    if isinstance(llm, Embeddings):
        return 0, "none, it gives vectors"
    if isinstance(llm, ImageGenerationModel) and average is None:
        return IMAGE_TOKENS, f"{IMAGE_TOKENS:,} an image, a guess"
    most = _max_new_tokens(llm)
    if most is not None:
        return most, f"at most max_new_tokens={most:,} an answer"
    if average is not None:
        return average, f"{average:,.0f} an answer, the average so far"
    return OUTPUT_TOKENS, f"{OUTPUT_TOKENS} an answer, a guess; set max_new_tokens for a limit"


def _max_new_tokens(llm: LLM) -> int | None:
    """The limit that is set, or the adapter's own."""
    field = signature_model(llm.generating_function(), NOT_PARAMETERS).model_fields.get("max_new_tokens")
    found = llm.generation_kwargs.get("max_new_tokens", field.default if field else None)
    return found if isinstance(found, int) else None


def estimates_line(estimates: Mapping[str, Estimate]) -> str:
    """The estimates of all steps in one line."""
    lines = "; ".join(f"{name}: {each}" for name, each in estimates.items())
    whole = total(each.dollars for each in estimates.values())
    return f"{lines}; {whole} in all" if len(estimates) > 1 and whole.dollars is not None else lines


def rounded(count: int) -> str:
    """A number that is only about right.

    Example:
        >>> rounded(812), rounded(4_840), rounded(3_149_000), rounded(999_960)
        ('812', '4.8 k', '3.1 M', '1.0 M')
    """
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.99995 * size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,}"
