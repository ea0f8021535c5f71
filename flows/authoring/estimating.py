"""What a flow is likely to take, before anything is sent: requests, tokens and dollars per step, by ways to ask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flows.authoring.preview import previewed
from flows.engine.costs import Estimate, estimate_of_step, requests_per_row
from flows.engine.graph import Node
from flows.engine.run import Run
from llms.base import estimated_tokens
from llms.batch import OfflineBatchLLM
from llms.parameters import is_ours
from llms.prices import cost
from llms.typing import FormattedInput
from tasks.base import ModelStep, Task
from tasks.sources.loaders import LoadDataFromHub
from tasks.steps import GeneratorStep

if TYPE_CHECKING:
    from flows.authoring.parameters import Flow

SAMPLE_ROWS = 200
"""Rows whose prompts are made, for the tokens of the others."""
MOST_ROWS_COUNTED = 1_000_000


@dataclass(frozen=True)
class StepEstimate:
    """What one step is likely to take for all rows of its source."""

    step: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    online: float | None
    """Dollars; None where the price isn't known, or there's no such way to ask."""
    flex: float | None
    batch: float | None
    guess: str
    """Where the number of output tokens is from."""
    uncounted: bool = False
    """Whether there are others: the step asks in rounds, or its rows are made of answers, or weren't all counted."""


@dataclass(frozen=True)
class Look:
    """The prompts of a flow's first rows by step, and what all rows are likely to take."""

    prompts: dict[str, list[FormattedInput | None]]
    estimates: list[StepEstimate]


def look(flow: Flow[..., Any], parameters: Mapping[str, Any] | None = None, *, rows: int = 3) -> Look:
    """What a flow would send for its first rows, and what it would take for all of them. Nothing is sent.

    Raises:
        ParameterError, PipelineError, SourceError: as a run would.
    """
    runs = previewed(flow, parameters or {}, rows=max(rows, SAMPLE_ROWS))
    known = {name: prompts for run in runs for name, prompts in run.prompts.items()}
    ordered = {name: known[name] for run in runs for name in run.progress if name in known}
    estimates = [each for run in runs for each in estimates_of(run)]
    return Look({name: prompts[:rows] for name, prompts in ordered.items()}, estimates)


def estimates_of(run: Run) -> list[StepEstimate]:
    """What the steps of a run that made prompts alone would take for all rows of their sources."""
    counted: dict[int, tuple[int, bool]] = {}
    made: list[StepEstimate] = []
    tokens_each: dict[str, float] = {}
    for node in run.nodes:
        if isinstance(node.step, ModelStep) and node.name in run.prompts:
            source = next(each for each in node.ancestry() if isinstance(each.step, GeneratorStep))
            if id(source) not in counted:
                counted[id(source)] = _rows_of(source)
            whole, more = counted[id(source)]
            share = whole / max(1, source.run.progress[source.name].rows_out)
            guessed = _estimate_of(node, node.step, run.prompts[node.name], share, tokens_each, more)
            answers = len(run.prompts[node.name]) * share * node.step.answers_per_row
            tokens_each[node.name] = guessed.output_tokens / max(1.0, answers)
            made.append(guessed)
    return made


def _rows_of(source: Node) -> tuple[int, bool]:
    """How many rows a source has, and whether there are more than were counted."""
    if isinstance(source.step, LoadDataFromHub) or not is_ours(type(source.step)):
        # It may have to be fetched whole, or who knows what.
        found = source.run.progress[source.name].rows_out
        return found, found >= SAMPLE_ROWS
    count = 0
    for rows, last in cast("GeneratorStep", source.step).process():
        count += len(rows)
        if last:
            return count, False
        if count >= MOST_ROWS_COUNTED:
            break
    return count, True


def _estimate_of(
    node: Node,
    task: ModelStep,
    prompts: Sequence[FormattedInput | None],
    share: float,
    tokens_each: Mapping[str, float],
    more: bool,
) -> StepEstimate:
    llm = task.answerer
    requests = round(len(prompts) * share * requests_per_row(task))
    known = [_tokens_in(prompt, tokens_each) for prompt in prompts if prompt is not None]
    average = sum(known) / len(known) if known else sum(tokens_each.values())
    whole = estimate_of_step(task, requests, round(average * requests), batch=False)
    return StepEstimate(
        step=node.name,
        model=llm.model_name,
        requests=requests,
        input_tokens=whole.input_tokens,
        output_tokens=whole.output_tokens,
        online=whole.dollars,
        flex=_dollars(task, whole, tier="flex"),
        batch=_dollars(task, whole, batch=True) if isinstance(llm, OfflineBatchLLM) else None,
        guess=whole.guess,
        uncounted=more or _rows_depend(node) or (isinstance(task, Task) and type(task).converse is not Task.converse),
    )


def _rows_depend(node: Node) -> bool:
    """Whether a step before it, that is no Task, makes the rows of answers: more of them, or fewer."""
    return any(
        not isinstance(each.step, ModelStep | GeneratorStep)
        and any(isinstance(before.step, ModelStep) for before in each.ancestry())
        for each in node.ancestry()
    )


def _dollars(task: ModelStep, whole: Estimate, *, batch: bool = False, tier: str = "") -> float | None:
    if not whole.requests:
        return 0.0
    return cost(task.answerer, whole.input_tokens, whole.output_tokens, requests=whole.requests, batch=batch, tier=tier)


def _tokens_in(prompt: FormattedInput, tokens_each: Mapping[str, float]) -> float:
    """About the tokens of a prompt, with an answer's where a text stands for one."""
    chat = prompt[0] if isinstance(prompt, tuple) else prompt
    text = chat if isinstance(chat, str) else " ".join(str(each.get("content") or "") for each in chat)
    stand_ins = re.findall(r"<[^<>]+ of ([^<>,]+)(?:, \d+)?>", text)
    return estimated_tokens(chat, 1, {}) + sum(tokens_each.get(name, 0.0) for name in stand_ins)
