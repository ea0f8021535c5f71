"""A rehearsal costs nothing: while one is on, no request goes to anybody but the provider that stands in."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from flows.engine.errors import SetupError
from flows.engine.graph import Node
from llms.base import LLM, AsyncLLM
from llms.credentials import BoundKey, WithKey, is_local, origin
from llms.errors import LLMError
from llms.parameters import Configurable

_stand_ins: list[str] = []
"""Where the provider is that answers in the rehearsals of this process: environment variables lead there."""


@contextmanager
def rehearsed_at(url: str) -> Generator[None]:
    """Inside a `with` block, runs of this process may ask the provider at an address alone."""
    _stand_ins.append(url)
    try:
        yield
    finally:
        _stand_ins.remove(url)


def is_rehearsal() -> bool:
    return bool(_stand_ins)


def check_rehearsal(nodes: Iterable[Node]) -> None:
    """Nothing where no rehearsal is on. Raises SetupError where one is, and a step would ask somebody else."""
    if not is_rehearsal():
        return
    for node in nodes:
        for llm in _models_in(node.step):
            where = _elsewhere(llm)
            if where is not None:
                raise SetupError(
                    f"--rehearse can't answer for the {type(llm).__name__} of {node.name}: it would ask"
                    f" {where or 'who knows whom'}, perhaps for money. Nothing was sent. For the rehearsal take"
                    " OpenAILLM or AnthropicLLM in its place, without base_url and credentials; or leave out"
                    " --rehearse, and run for real on a few rows with --rows 3"
                )


def _models_in(value: Any) -> Generator[LLM]:
    """The models of a step, also those that another one asks."""
    if isinstance(value, Configurable):
        within = [each for name in type(value).model_fields for each in _models_in(getattr(value, name))]
        yield from within
        if isinstance(value, LLM) and not within:
            yield value
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _models_in(each)
    elif isinstance(value, Mapping):
        yield from _models_in(list(cast("Mapping[str, Any]", value).values()))


def _elsewhere(llm: LLM) -> str | None:
    """The address that a model is asked at, empty where it can't be told; None where it may be asked in a rehearsal.

    That's the stand-in, and what costs nothing: an engine in this process, a server of one's own.
    """
    if not isinstance(llm, BoundKey):
        return "" if isinstance(llm, AsyncLLM) else None
    if not isinstance(llm, WithKey):
        url = llm.base_url or ""
        return None if _is_stand_in(url) else url
    try:
        own = llm.own_url
        # Not `url()` where nobody gave one: it starts the engine of some.
        moved = llm.base_url or llm.credentials or os.environ.get(llm.url_variable)
        url = llm.url() if moved or not is_local(own) else own
    except LLMError:
        return ""
    return None if _is_stand_in(url) or (own and is_local(own) and is_local(url)) else url


def _is_stand_in(url: str) -> bool:
    return any(origin(url) == origin(each) for each in _stand_ins)
