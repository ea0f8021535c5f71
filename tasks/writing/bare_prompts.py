"""Bare prompts, which go to completions: where an answer ends, and what the LLM has to be told for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llms.base import NOT_PARAMETERS, TOKEN_LIMIT
from llms.parameters import ParameterError, short, signature_model
from tasks.base import Task

logger = logging.getLogger(__name__)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))]


def warn_of_ends(task: Task, stops: Sequence[str]) -> None:
    """Warn where the parameters of the Task's LLM let its answers end too early, or go on for too long.

    Args:
        task: one that makes bare prompts.
        stops: the strings at which its answers end.
    """
    known = signature_model(task.llm.generating_function(), NOT_PARAMETERS).model_fields
    given = task.llm.generation_kwargs
    told: str | list[str] = given.get("stop") or ""
    if stops and "stop" in known and not set(stops) & ({told} if isinstance(told, str) else set(told)):
        logger.warning(
            "%s: its LLM isn't told where to stop, and writes on at your cost; give it generation_kwargs={'stop': %r}",
            task.name,
            list(stops),
        )
    limit = known.get(TOKEN_LIMIT)
    # An engine in this process has a default of its own, which is no provider's.
    if limit is not None and given.get(TOKEN_LIMIT, limit.default) is None and not task.llm.writes_on:
        logger.warning(
            "%s: completions are cut off early (after 16 tokens by OpenAI and vLLM) unless told otherwise;"
            " give its LLM generation_kwargs={'max_new_tokens': ...}",
            task.name,
        )


def refuse(task: Task, *names: str) -> None:
    """Raises ParameterError where one of the parameters is given: the Task's prompt has no place for it."""
    for name in names:
        value = getattr(task, name)
        if value:
            raise ParameterError(f"{task.name}: its prompt has no place for {name}, got {short(value)}; leave it empty")
