"""`flow`: Prefect's decorator, for flows whose parameters are Steps, sources and targets.

A parameter may be given in part, by every way that Prefect offers: what is given is merged onto the
deployment's parameters, and these onto the default in the function's signature.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Self, TypeVar, cast, get_args, get_origin, overload

from prefect import Flow as PrefectFlow
from prefect.flow_engine import BaseFlowRunEngine
from prefect.utilities.callables import parameter_docstrings, parameter_schema, raise_for_reserved_arguments
from pydantic import (
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from flows.authoring.attempts import attempt, called, called_async
from flows.authoring.notebook import awaited_shown, run_shown
from flows.engine.errors import CLEAR_ERRORS, failed_state, masked_errors
from flows.engine.outcome import outcomes_noted, told_of_run
from llms.base import BATCHES, LLM
from llms.parameters import (
    Configurable,
    ParameterError,
    explain,
    for_form,
    form_values,
    merged_value,
    rarely_set,
    short,
    special_model,
    unknown_name_message,
    variants_in,
    without,
    without_keys,
    written,
)
from llms.references import hidden, is_block, plain
from llms.variants import TwoTabs, without_default

P = ParamSpec("P")
R = TypeVar("R")

TAGS = ("provider", "kind")
"""The fields that tell variants apart: where one changes, nothing of the old variant is kept."""


class Flow(PrefectFlow[P, R]):
    """A Prefect flow that takes parts of its parameters, and fails in one readable line."""

    def __init__(self, fn: Callable[P, R], *args: Any, **kwargs: Any) -> None:
        # Deployments read their schema off this signature. The function keeps its own, for validation.
        form = signature_for_form(fn)
        raise_for_reserved_arguments(fn, ["return_state", "wait_for"])
        with signed(fn, inspect.Signature()):
            super().__init__(fn, *args, **kwargs)
        self._have_form(form)
        self.fn = clear_failures(fn)

    def __getattr__(self, name: str) -> Any:
        """The form and its schema, made when asked for: it takes long, and a process that runs a flow has none.

        A flow has its form from the start, but for one that was pickled.
        """
        if name == "__signature__":
            self.__signature__ = signature_for_form(self.fn)
            return self.__signature__
        if name != "parameters":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.parameters = parameter_schema(self)
        return self.parameters

    def _have_form(self, form: inspect.Signature) -> None:
        """Take the place of what Prefect made of a function whose parameters it wasn't told."""
        self.__signature__ = form
        self.__dict__.pop("parameters", None)

    if not TYPE_CHECKING:
        # To type checkers it stays Prefect's, whose overloads tell what comes of which function.
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run the flow, as Prefect does; in a notebook with a bar per step in place of log lines."""
            if self.isgenerator:
                return super().__call__(*args, **kwargs)
            run = super().__call__
            if self.isasync:
                return called_async(awaited_shown(run(*args, **kwargs)))
            with run_shown():
                return called(lambda: run(*args, **kwargs))

    def __getstate__(self) -> dict[str, Any]:
        """Without the classes of its form, which are made here: a process that runs a flow shows none."""
        return {name: value for name, value in self.__dict__.items() if name not in ("__signature__", "parameters")}

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def with_options(self, *args: Any, **kwargs: Any) -> Flow[P, R]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with signed(self.fn, inspect.Signature()):
            changed = cast("Flow[P, R]", super().with_options(*args, **kwargs))
        changed.__class__ = type(self)
        changed._have_form(self.__signature__)
        changed._entrypoint = self._entrypoint
        changed.version = kwargs.get("version") or self.version
        return changed

    def validate_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters as typed values, with parts merged onto their defaults. Raises ParameterError.

        Not as Prefect does it: it takes every `$ref` for a block, also those in rows and in JSON schemas, and its
        messages name no near name.
        """
        deployed, given = map(with_blocks, map(plain, (deployed_parameters(), parameters)))
        return typed(self.fn, merge_parameters(self.fn, deployed, given), f"flow {self.name!r}")


@overload
def flow(function: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(**options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """`prefect.flow`, taking the same options, for flows that load, map and save rows.

    What it adds: a parameter that is a Step, a source or a target may be given in part; a form shows
    its default's values; a failure that has a clear message is shown by that message alone.
    """
    return functools.partial(flow, **options) if function is None else Flow(function, **options)


def merge_parameters(
    function: Callable[..., Any], deployed: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """`given` on top of `deployed` on top of the defaults of `function`.

    Raises:
        ParameterError: a name that doesn't exist, or a value that doesn't fit.
    """
    merged = dict(given)
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        value = given.get(name)
        if not isinstance(value, Mapping):
            continue
        over = cast("Mapping[str, Any]", value)
        below = deployed.get(name)
        if isinstance(below, Mapping):
            over = over_mapping(cast("Mapping[str, Any]", below), over)
        try:
            merged[name] = merged_value(parameter.default, over, marks_of(parameter.annotation))
        except ParameterError as error:
            raise ParameterError(f"{name}.{error}") from None
        except ValidationError as error:
            raise ParameterError(explain(error, name)) from None
        except ValueError as error:
            raise ParameterError(f"{name}: {error}") from None
    return merged


def typed(function: Callable[..., Any], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Values for the arguments of a function, as its annotations want them.

    Raises:
        ParameterError: a value doesn't fit, one is missing, or there's no argument of a name.
    """
    known = inspect.signature(function, eval_str=True).parameters
    for name in values:
        if name not in known:
            raise ParameterError(unknown_name_message(name, known, owner))
    for name, parameter in known.items():
        needed = parameter.default is parameter.empty and parameter.kind not in COLLECTING
        if needed and name not in values:
            raise ParameterError(f"{name}: {owner} has no default for it; give it a value")
    return {name: fitted(name, value, known[name]) for name, value in values.items()}


COLLECTING = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def fitted(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """A value as the annotation of an argument wants it. Raises ParameterError."""
    if parameter.annotation is parameter.empty or parameter.kind in COLLECTING:
        return value
    try:
        return adapter_of(parameter.annotation).validate_python(value)
    except ValidationError as error:
        raise ParameterError(explain(error, name)) from None


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        # A model, which has a configuration of its own.
        return TypeAdapter(annotation)


def with_blocks(value: Any) -> Any:
    """A copy with the blocks that it refers to. Raises ParameterError where one can't be loaded."""
    if isinstance(value, list):
        return [with_blocks(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, Any]", value)
    if not is_block(items):
        return {name: with_blocks(each) for name, each in items.items()}
    from prefect.blocks.core import Block

    try:
        return cast("Block", Block.load_from_ref(items["$ref"], _sync=True))  # pyright: ignore[reportCallIssue]
    except (ValueError, RuntimeError) as error:
        raise ParameterError(f"the block {short(items)} can't be loaded: {error}") from None


def over_mapping(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dicts as one; `None` in `over` takes back what is below."""
    if any(over.get(tag) not in (None, below.get(tag, over.get(tag))) for tag in TAGS):
        return dict(over)
    whole = dict(below)
    for name, value in over.items():
        under = whole.get(name)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            whole[name] = over_mapping(cast("Mapping[str, Any]", under), cast("Mapping[str, Any]", value))
        else:
            whole[name] = value
    return whole


@contextmanager
def signed(function: Any, signature: inspect.Signature) -> Generator[None]:
    """The function with another signature inside a `with` block."""
    own = getattr(function, "__dict__", {}).get("__signature__")
    function.__signature__ = signature
    try:
        yield
    finally:
        if own is None:
            del function.__signature__
        else:
            function.__signature__ = own


def marks_of(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def signature_for_form(function: Callable[..., Any], *, folded: bool = True) -> inspect.Signature:
    """The signature of `function` with types whose forms show the values of its defaults.

    Args:
        folded: whether the form shows first what one changes, and the rest in tabs of their own. Several steps are all
            closed at first: each may take a screen.
    """
    signature = inspect.signature(function, eval_str=True)
    several = sum(map(is_step, signature.parameters.values())) > 1
    closed = parameter_docstrings(inspect.getdoc(function)) if folded and several else None
    shown = [parameter_for_form(parameter, folded, closed) for parameter in signature.parameters.values()]
    return signature.replace(parameters=shown)


def is_step(parameter: inspect.Parameter) -> bool:
    """Whether it's a step of the flow, and no source and no target."""
    return isinstance(parameter.default, Configurable) and variants_in(marks_of(parameter.annotation)) is None


def models_of(step: Configurable) -> list[LLM]:
    """The models that a step asks."""
    values = (getattr(step, name) for name in type(step).model_fields)
    return [value for value in values if isinstance(value, LLM)]


def in_short(step: Configurable) -> str:
    """What a form says of a step's models where it shows nothing else of the step."""
    said = list[str]()
    for model in models_of(step):
        numbers = {name: each for name, each in model.generation_kwargs.items() if isinstance(each, int | float)}
        said += [model.model_name, *(f"{name} {each:g}" for name, each in numbers.items())]
        if getattr(model, BATCHES, False):
            said.append("in offline batches")
    return f"By default {', '.join(said)}." if said else ""


def parameter_for_form(
    parameter: inspect.Parameter, folded: bool, closed: Mapping[str, str] | None
) -> inspect.Parameter:
    """
    Args:
        closed: what describes the parameters, where those that are steps are closed at first.
    """
    default: Any = parameter.default
    if not isinstance(default, Configurable):
        return left_empty(parameter) if folded else parameter
    variants = variants_in(marks_of(parameter.annotation))
    if variants is not None:
        base = get_args(parameter.annotation)[0]
        # The tab of all settings would refuse too, where the default stands beside the tabs.
        folded = folded and variants.settings is None
        shown = Annotated[base, variants.special(default, parameter.name, folded=folded)]
        # The tag is in the name of the tab that such a form begins with.
        without_tag = without_keys(form_values(default), variants.hidden_tag(default))
        values = hidden(without_tag) if folded else shown_values(default)
        return parameter.replace(default=values, annotation=shown)
    if not folded:
        return parameter.replace(default=shown_values(default), annotation=special_model(default, parameter.name))
    whole = special_model(default, parameter.name, folded=True)
    usual = without(whole, rarely_set(default), ending="_usual")
    if usual is whole:
        return parameter.replace(default=hidden(form_values(default)), annotation=whole)
    usual.form_title, whole.form_title = "Usual settings", "All settings"
    if closed is None:
        return parameter.replace(default=hidden(form_values(default)), annotation=Annotated[usual, TwoTabs(whole)])
    description = f"{closed.get(parameter.name, '')} {in_short(default)}".strip()
    left_out = FieldInfo(description=description)
    return parameter.replace(default=left_out, annotation=Annotated[usual, TwoTabs(whole, closed=True)])


@dataclass(frozen=True)
class LeftEmpty:
    """An optional number or text as one input, which may be left empty, as a mark in its `Annotated`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A form would show a tab for it.
        return without_default(handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return for_form(handler(schema))


def left_empty(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter as one input in place of two tabs, where it's None by default and otherwise a number or a text."""
    annotation = parameter.annotation
    plain_type = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    types = set(get_args(plain_type))
    if parameter.default is not None or len(types) != 2 or not types < {int, float, str, NoneType}:
        return parameter
    return parameter.replace(default=FieldInfo(), annotation=Annotated[annotation, LeftEmpty()])


def shown_values(model: Configurable) -> dict[str, Any]:
    """The values of the fields that a form shows. It submits what it starts with, and others would be refused."""
    return hidden(written(model, include=type(model).model_json_schema()["properties"], exclude_none=True))


def deployed_parameters() -> dict[str, Any]:
    """The parameters of the deployment that the flow run being started belongs to.

    A run's own parameters replace those of its deployment one by one, whole: the parts that a run
    leaves out are found here.
    """
    from prefect.client.orchestration import get_client

    run = _starting_flow_run()
    if run is None or run.deployment_id is None:
        return {}
    with get_client(sync_client=True) as client:
        return client.read_deployment(run.deployment_id).parameters


def _starting_flow_run() -> Any:
    # Parameters are validated before there is a run context, and a served flow has no run id in its
    # environment either: the engine that is validating is the one place that knows.
    frame = inspect.currentframe()
    while frame is not None:
        engine = frame.f_locals.get("self")
        if isinstance(engine, BaseFlowRunEngine):
            return engine.flow_run
        frame = frame.f_back
    return None


def clear_failures(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with errors whose message says it all returned as a failed state, and its rows told in the last."""
    if hasattr(function, "__stillflow__"):
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                with attempt() as came_to, masked_errors(), outcomes_noted() as outcomes:
                    return came_to(told_of_run(await function(*args, **kwargs), list(outcomes.values())))
            except CLEAR_ERRORS as error:
                return failed_state(error)

        return cast("Callable[P, R]", resolved(run_async, function))

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            with attempt() as came_to, masked_errors(), outcomes_noted() as outcomes:
                return came_to(told_of_run(function(*args, **kwargs), list(outcomes.values())))
        except CLEAR_ERRORS as error:
            return failed_state(error)

    return cast("Callable[P, R]", resolved(run, function))


def resolved(wrapper: Any, function: Callable[..., Any]) -> Any:
    """The wrapper with the annotations of `function` as types: their names are known to its module alone."""
    signature = inspect.signature(function, eval_str=True)
    wrapper.__signature__ = signature
    wrapper.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    wrapper.__stillflow__ = True
    return wrapper
