"""Who answers where there's no key: a small real model on this machine, or, where it can't run, the local provider."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.authoring.parameters import over_mapping
from flows.engine.errors import SetupError
from flows.engine.rehearsing import rehearsed_at
from llms import LLM, ParameterError
from llms.local_model import MODEL, LocalModel, LocalModelError
from llms.local_provider import LocalProvider
from llms.quantities import quantity

if TYPE_CHECKING:
    from flows.authoring.parameters import Flow

T = TypeVar("T")

FIRST_FLOW = "text_generation"
PROMPTS = "flows/data/short_instructions.jsonl"
"""Which a small model can do something with, on two cores in a minute."""
MODEL_PORT, PROVIDER_PORT = 8398, 8399
GENERATION = {"max_new_tokens": 200, "temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.05, "seed": 42}
"""As on the model's card; so small a model says the same over and over where nothing speaks against it."""


def is_first_run(flow_name: str, given: Mapping[str, Any]) -> bool:
    """Whether a run has neither a key nor anything of its own: no prompts and no model.

    What is anybody's own is never answered by another model than the one that was meant.
    """
    task = given.get(FIRST_FLOW)
    its_own = "source" in given or (task is not None and not isinstance(task, Mapping)) or "llm" in (task or {})
    has_way = any(os.environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"))
    return flow_name == FIRST_FLOW and not its_own and not has_way


@dataclass(frozen=True, slots=True)
class Answers:
    """The parameters of a run, and the name of the local model where that's who answers."""

    parameters: dict[str, Any]
    model: str = ""


@contextmanager
def answers_for(
    flow_name: str, flow: Flow[..., Any], given: Mapping[str, Any], *, rehearse: bool = False, local_model: bool = False
) -> Generator[Answers]:
    """Whoever has to answer is there meanwhile: the local provider, the model on this machine, or nobody of ours.

    Args:
        flow_name: the flow as it was asked for.
        given: its parameters.
        rehearse: the local provider answers.
        local_model: the model on this machine does, in every Task that `given` names no other for.

    Raises:
        SetupError: the model is wanted, and can't be served here.
        ParameterError: it's wanted, and no Task of the flow asks a model.
    """
    first = not rehearse and not local_model and is_first_run(flow_name, given)
    with ExitStack() as stack:
        if rehearse:
            stack.enter_context(rehearsal())
        if local_model or first:
            try:
                model = stack.enter_context(started(lambda port: LocalModel(port=port), MODEL_PORT))
            except LocalModelError as error:
                if local_model:
                    raise SetupError(f"there's no model on this machine to answer: {error}") from None
                click.secho(f"No real model: {error}.", fg="yellow", err=True)
                stack.enter_context(rehearsal())
            else:
                mine = over_mapping({"source": {"data_files": PROMPTS}}, given) if first else given
                yield Answers(answered_by(model, flow, mine), MODEL)
                return
        yield Answers(dict(given))


def answered_by(model: LocalModel, flow: Flow[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with the model as the LLM of every Task among the parameters, where `given` names no other.

    Raises:
        ParameterError: there's no such Task.
    """
    llm = {
        "provider": "llama-server",
        "model": model.name,
        "base_url": model.base_url,
        "max_concurrent_requests": 1,
        "generation_kwargs": GENERATION,
    }
    known = inspect.signature(flow.fn).parameters
    asking = [name for name, each in known.items() if isinstance(getattr(each.default, "llm", None), LLM)]
    if not asking:
        raise ParameterError(f"flow {flow.name!r} has no parameter that is a Task with an LLM; leave out --local-model")
    click.secho(
        f"No key: {MODEL} answers, a real but very small model, on this machine.", fg="yellow", bold=True, err=True
    )
    return over_mapping({name: {"llm": llm} for name in asking}, given)


def closing_words(model: str, rows: int, places: Sequence[str]) -> str:
    """After a run that the local model answered: who wrote the rows, where they are, and how a provider would."""
    where = f", in {', '.join(places)}" if places else ""
    return (
        f"{quantity(rows, 'row')} written by {model}{where}."
        " It has 135 million parameters: don't believe what it says.\n"
        "For rows by OpenAI's gpt-4o-mini, to the 80 prompts of the project: OPENAI_API_KEY=... make run"
    )


@contextmanager
def rehearsal() -> Generator[None]:
    """Requests go to the local provider, in a process of its own, or nowhere."""
    with (
        started(lambda port: LocalProvider.spawn(port=port, latency=0.1), PROVIDER_PORT) as provider,
        environment("OPENAI_BASE_URL", provider.base_url),
        environment("ANTHROPIC_BASE_URL", provider.base_url.removesuffix("/v1")),
        rehearsed_at(provider.base_url),
    ):
        click.secho(
            f"REHEARSAL: no model answers. The local provider at {provider.base_url} makes up its texts;"
            " set OPENAI_API_KEY and leave out --rehearse for real ones.",
            fg="yellow",
            bold=True,
            err=True,
        )
        yield


@contextmanager
def environment(name: str, value: str) -> Generator[None]:
    """An environment variable with another value inside a `with` block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def started(server: Callable[[int], AbstractContextManager[T]], usual: int) -> Generator[T]:
    """A server at its usual port, or at any other where that is taken."""
    port = free_port(usual)
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server(port))
        except RuntimeError:
            if not port:
                raise
            # Another run may have taken it since it was looked at.
            running = stack.enter_context(server(0))
        yield running


def free_port(wanted: int) -> int:
    """`wanted`, if it's free; else 0, for any. The same address every time lets the cache recognise its answers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted
