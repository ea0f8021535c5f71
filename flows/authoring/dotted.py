"""Parameters as people type them: `step.llm.generation_kwargs.temperature=1`, or as much of the name as is enough."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from flows.authoring.parameters import TAGS, marks_of, merge_parameters, over_mapping
from llms.base import LLM, NOT_PARAMETERS
from llms.parameters import Configurable, ParameterError, short, signature_model, variants_in

if TYPE_CHECKING:
    from prefect import Flow as PrefectFlow

GENERATION = "generation_kwargs"
REQUIRED = "<required>"
"""Stands for a value that somebody has to give."""

Argument: TypeAlias = tuple[tuple[str, ...], Any]
"""The names of an argument such as `step.name=value`, and its value."""
Making: TypeAlias = Callable[[type[Configurable], dict[str, Any]], Any]


def given_parameters(
    config: str | None,
    arguments: Sequence[str],
    flow: PrefectFlow[..., Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Parameters from a file, with those of the command line on top.

    Args:
        config: a JSON or YAML file, whose names are whole.
        arguments: as `name.name=value`.
        flow: whose they are: a name that it doesn't have stands for the one parameter of that name within another.
        say: told which parameter was taken for such a name.

    Raises:
        ParameterError: a file or an argument that can't be read, or a name that could be several parameters.
    """
    given = read_config(config) if config else {}
    typed = [split_argument(each) for each in arguments]
    if flow is not None:
        typed = _in_whole(flow, given, typed, say)
    for names, value in typed:
        given = over_mapping(given, _nested(names, value))
    return given


def _in_whole(
    flow: PrefectFlow[..., Any], given: Mapping[str, Any], typed: Sequence[Argument], say: Callable[[str], None]
) -> list[Argument]:
    """Arguments with whole names. Raises ParameterError for a name that could be several."""
    known = dict(given)
    # What chooses a variant first: the other names may be those of its fields.
    for names, value in typed:
        if names[-1] in TAGS:
            known = over_mapping(known, _nested(whole_name(flow, known, names), value))
    whole = [(whole_name(flow, known, names), value) for names, value in typed]
    for (names, _), (taken, _) in zip(typed, whole, strict=True):
        if names != taken:
            say(f"{'.'.join(names)} is {'.'.join(taken)}")
    return whole


def _nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = names
    return {first: _nested(rest, value) if rest else value}


def split_argument(argument: str) -> Argument:
    """The names and the value of `name.name=value`. Raises ParameterError."""
    path, equals, value = argument.partition("=")
    if not equals:
        raise ParameterError(f"expected step.name=value, got {argument!r}")
    return tuple(path.split(".")), read_value(value)


def read_config(path: str) -> dict[str, Any]:
    """Parameters from a JSON or YAML file. Raises ParameterError."""
    try:
        read = values_in(Path(path))
    except ValueError as error:
        kind = "is no JSON" if is_json_file(Path(path)) else "is neither JSON nor YAML"
        raise ParameterError(f"{path} {kind}: {error}") from None
    if not isinstance(read, Mapping):
        raise ParameterError(f"{path}: expected the parameters by name, got {short(read)}")
    return dict(cast("Mapping[str, Any]", read))


def is_json_file(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def values_in(path: Path) -> object:
    """What stands in a file: of one that ends in .json as JSON, which YAML takes numbers and texts of for others.

    Raises:
        ValueError: it can't be read as such.
        OSError: it can't be read at all.
    """
    if is_json_file(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def read_value(text: str) -> Any:
    """A value of the command line: lists and objects as JSON, anything else as text to be coerced."""
    if text[:1] in "[{" or text in {"true", "false", "null"}:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def whole_name(flow: PrefectFlow[..., Any], given: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """The whole name of the parameter that `names` say, as they are where there's no such one.

    Args:
        flow: whose parameter it is.
        given: the parameters so far, which say of which variant the fields are.
        names: of a field and, in their order, of some that it is in: `llm`, `temperature`.

    Raises:
        ParameterError: it could be several, or there is none and the names of some are near.
    """
    values = values_with(flow, given)
    if is_parameter(values, names):
        return names
    every = list(paths_in(values))
    found = [path for path in every if path[-1] == names[-1] and is_within(names, path)]
    if len(found) == 1:
        return found[0]
    said = ".".join(names)
    if found:
        raise ParameterError(f"{said} could be {_listed(found)}: write which")
    if names[0] not in values:
        lasts = difflib.get_close_matches(names[-1], {path[-1] for path in every}, n=1, cutoff=0.8)
        near = [path for path in every if path[-1] in lasts and is_within(names[:-1], path)]
        if near:
            raise ParameterError(f"{said}: flow {flow.name!r} has no such parameter. Did you mean {_listed(near)}?")
    return names


def _listed(paths: Iterable[tuple[str, ...]]) -> str:
    return " or ".join(".".join(path) for path in paths)


def is_within(names: Sequence[str], path: Sequence[str]) -> bool:
    """Whether all of `names` stand in `path`, in their order.

    Example:
        >>> is_within(["llm", "temperature"], ["step", "llm", "generation_kwargs", "temperature"])
        True
    """
    left = iter(path)
    return all(name in left for name in names)


def values_with(flow: PrefectFlow[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a flow's parameters, with those given on top where they fit: who checks them tells of mistakes."""
    signature = inspect.signature(flow.fn, eval_str=True)
    values: dict[str, Any] = {name: each.default for name, each in signature.parameters.items()}
    for name, value in given.items():
        # Of a variant that was chosen a part may be given so far, which is no whole one.
        with suppress(ParameterError):
            whole = filled_in(signature, {name: value}, lambda kind, fields: kind.model_construct(**fields))
            values |= {each: merged for each, merged in merge_parameters(flow.fn, {}, whole).items() if each in values}
    return values


def filled_in(
    signature: inspect.Signature,
    parameters: Mapping[str, Any],
    made: Making = lambda _, fields: fields,
) -> dict[str, Any]:
    """Parameters with `REQUIRED` for what the variants that they choose have no default for: a model's name, mostly.

    Args:
        signature: of the function that they are for.
        parameters: by name, in part or whole.
        made: what stands for a variant, from its class and its fields.
    """
    known = signature.parameters
    return {
        name: _filled_in(known[name].default, value, variants_in(marks_of(known[name].annotation)), made)
        if name in known
        else value
        for name, value in parameters.items()
    }


def _filled_in(current: Any, value: Any, variants: Any, made: Making) -> Any:
    if not isinstance(value, Mapping) or not isinstance(current, Configurable):
        return cast("Any", value)
    given = dict(cast("Mapping[str, Any]", value))
    tag = None if variants is None else given.get(variants.tag)
    if variants is not None and tag is not None and tag != variants.tag_of(current):
        try:
            kind: type[Configurable] = variants.find(str(tag))
        except ValueError:
            # Who checks the values says which there are.
            return given
        needed = [name for name, field in kind.model_fields.items() if field.is_required() and name not in given]
        return made(kind, {**given, **dict.fromkeys(needed, REQUIRED)})
    fields = type(current).model_fields
    return {
        name: _filled_in(getattr(current, name), each, variants_in(fields[name].metadata), made)
        if name in fields
        else each
        for name, each in given.items()
    }


def is_parameter(values: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a flow with these values has a parameter of that whole name. What stands in a dict may have any."""
    first, *rest = names
    return first in values and _has(values[first], rest)


def _has(value: Any, names: Sequence[str]) -> bool:
    if not names or not isinstance(value, Configurable):
        return True
    first, *rest = names
    if isinstance(value, LLM) and first == GENERATION:
        return not rest or rest[0] in _generation_names(value) or _takes_any(value)
    return first in type(value).model_fields and _has(getattr(value, first), rest)


def paths_in(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The whole names of all parameters that a form would show."""
    for name, value in values.items():
        if isinstance(value, Configurable):
            yield from ((name, *rest) for rest in _paths_of(value))
        else:
            yield (name,)


def _paths_of(value: Configurable) -> Iterator[tuple[str, ...]]:
    for name in value.runtime_parameters_names:
        within = getattr(value, name)
        if isinstance(value, LLM) and name == GENERATION:
            yield from ((name, each) for each in _generation_names(value))
        elif isinstance(within, Configurable):
            yield from ((name, *rest) for rest in _paths_of(within))
        else:
            yield (name,)


def _generation_names(llm: LLM) -> list[str]:
    return list(signature_model(llm.generating_function(), NOT_PARAMETERS).model_fields)


def _takes_any(llm: LLM) -> bool:
    return signature_model(llm.generating_function(), NOT_PARAMETERS).model_config.get("extra") == "allow"
