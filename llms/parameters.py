"""Configurable models: the base of every LLM and Step.

Each field is a parameter of the flow that uses the model. Parameters arrive as partial, nested
dicts (from Python, a file, a command line, a deployment or a form) and are merged onto the values
the model already has: a name that doesn't exist or a value of a wrong type is an error that says
where, what was got and what is near it.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticSerializationError, PydanticUndefined

from llms.code import code_digest
from llms.markup import Facts, facts_html, framed
from llms.references import hidden
from llms.root import ROOT, is_of_project, package_of
from llms.scripts import portable_name
from llms.secrets import know, know_address, know_named, masked

T = TypeVar("T")

RuntimeParameter: TypeAlias = Annotated[T | None, Field(default=None)]
"""An optional field, as the steps of distilabel declare it."""


class Unasked:
    """Marks a field that is no part of what a model is asked: speed, secrets, bookkeeping.

    It takes no part in the keys of the ledger: whoever changes it is asked for nothing again.

    Example:
        >>> class Polite(Configurable):
        ...     manners: str = "best"
        ...     verbose: Annotated[bool, Unasked()] = False
        >>> sorted({"manners", "verbose"} & set(Polite(verbose=True).identity()))
        ['manners']
    """


class ParameterError(ValueError):
    """A parameter that doesn't exist or doesn't fit. The message names it, the value got, and the way out."""


class Configurable(BaseModel):
    """A model whose fields are parameters."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    form_first: ClassVar[tuple[str, ...]] = ()
    """The fields that a form shows first. The others follow, those of the most special class first."""
    form_last: ClassVar[tuple[str, ...]] = ()
    """The fields that a form shows at its end."""
    form_title: ClassVar[str] = ""
    """The label of the model in a form. Empty: the class's name."""
    form_more: ClassVar[tuple[str, ...]] = ()
    """The fields that few change: a flow's form shows them in a tab with all settings alone, unless the flow sets them.
    Those of all classes that it's made of, but for those in `form_first`."""
    form_hidden: ClassVar[frozenset[str]] = frozenset()
    """The fields that the form of this very class doesn't show, but takes; see `without`."""
    form_special: ClassVar[bool] = False
    """Whether it has the values of a flow's default; see `special_model`."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        given = cast("Mapping[str, Any]", data)
        known = field_names(cls)
        for name, value in given.items():
            if name not in known and not cls.is_needless(name, value):
                raise ValueError(unknown_name_message(name, known, cls.__name__))
        return {name: value for name, value in given.items() if name in known}

    @classmethod
    def is_needless(cls, name: str, value: Any) -> bool:
        """Whether a value is passed over though there's no field of its name: it says what holds without one."""
        return False

    @model_validator(mode="after")
    def _refuse_halves_of_characters(self) -> Self:
        for name, field in type(self).model_fields.items():
            value = self.__dict__[name]
            # Rows given in Python are checked when they are read, each with its place.
            if isinstance(value, str) or not field.exclude:
                check_whole(value, name, numbers=False)
        return self

    @model_validator(mode="after")
    def _make_secrets_known(self) -> Self:
        for name, field in type(self).model_fields.items():
            value = self.__dict__[name]
            if isinstance(value, SecretStr):
                know(value)
            elif isinstance(value, str):
                know_address(value)
            elif isinstance(value, Mapping) and field.exclude:
                know_named(cast("Mapping[str, Any]", value))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        # A part of a model must be accepted as an override, so nothing is required.
        schema.pop("required", None)
        schema["title"] = cls.form_title or cls.__name__
        if "description" in schema:
            # The form shows it as one paragraph of Markdown: the first, without the docstring's code.
            schema["description"] = schema["description"].partition("\n\n")[0]
        properties = cast("dict[str, dict[str, Any]]", schema.get("properties", {}))
        for name, field in cls.model_fields.items():
            if name not in shown_fields(cls):
                properties.pop(name, None)
            elif "default" in properties.get(name, {}) and isinstance(field.default, Configurable):
                variants = variants_in(field.metadata)
                if variants and variants.folded:
                    # Its tabs have it, see `ONLY_TABS`.
                    del properties[name]["default"]
                    continue
                shown = shown_fields(type(field.default))
                if variants and variants.usual_first:
                    shown -= rarely_set(field.default) | variants.hidden_tag(field.default)
                properties[name]["default"] = (
                    {name: each for name, each in variants.write(field.default).items() if name in shown}
                    if variants
                    else written(field.default, include=shown, exclude_none=True)
                )
        if cls.form_hidden:
            cls.fold_form(properties, handler)
        else:
            cls.edit_form(properties)
        order = sorted(properties, key=form_order(cls).index)
        hidden_ones = {f"^{name}$": bare(for_form(properties.pop(name))) for name in order if name in cls.form_hidden}
        for position, name in enumerate(sorted(properties, key=form_order(cls).index)):
            properties[name] = {**for_form(properties[name]), "position": position}
            _hide_references(properties[name])
        named = names_told(schema, order)
        if hidden_ones:
            # A form shows what is in `properties` alone.
            named["patternProperties"] = hidden_ones
        schema.clear()
        schema.update(named)
        return reference

    @classmethod
    def edit_form(cls, properties: dict[str, dict[str, Any]]) -> None:
        """Change how the fields are shown in a form. `properties` are their JSON schemas, in order."""

    @classmethod
    def fold_form(cls, properties: dict[str, dict[str, Any]], handler: GetJsonSchemaHandler) -> None:
        """`edit_form` for one that hides fields, whose types are those of `folded_types` where there are some."""
        cls.edit_form(properties)

    @classmethod
    def folded_types(cls) -> dict[str, type[BaseModel]]:
        """The fields that a form that hides some takes for models: by their names, these. `fold_form` shows them."""
        return {}

    def merged(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with `overrides` merged in, nested models and `generation_kwargs` key by key.

        What isn't in it stays. `None` is a value: it takes back what a default or a deployment gave.

        Raises:
            ParameterError: a name doesn't exist or a value doesn't fit.
        """
        return merge(self, overrides)

    def check_changes(self, changes: Mapping[str, Any]) -> None:
        """Raises ParameterError where fields may not be set to the new values together."""

    def merge_field(self, name: str, value: Any) -> Any:
        """The new value of one field, given what came in for it."""
        current = getattr(self, name)
        return merged_value(current, value, type(self).model_fields[name].metadata)

    def identity(self) -> dict[str, Any]:
        """What of this model decides its answers, as JSON values. No secrets, nothing of speed.

        Of a class that isn't ours its code is part of it.
        """
        fields = type(self).model_fields
        values = {
            name: getattr(self, name)
            for name in shown_fields(type(self))
            if not any(isinstance(mark, Unasked) for mark in fields[name].metadata)
        }
        nested = {name: value.identity() for name, value in values.items() if isinstance(value, Configurable)}
        plain = written(self, include=set(values) - set(nested))
        ours = is_ours(type(self))
        return {
            "type": public_path(type(self)).removeprefix(ROOT) if ours else import_path(type(self)),
            **plain,
            **nested,
            **({} if ours else {"code": code_digest(type(self))}),
        }

    def _repr_html_(self) -> str:
        """In a notebook: what it is, and which of its settings aren't at their defaults. No secrets."""
        return framed(facts_html(self._facts()))

    def _facts(self) -> Facts:
        """What people see of it in a notebook."""
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in form_order(type(self)) if name in shown_fields(type(self))}
        changed = {
            name: self._fact(value)
            for name, value in values.items()
            if value != fields[name].get_default(call_default_factory=True)
        }
        return Facts(type(self).__name__, facts=changed)

    @classmethod
    def _fact(cls, value: Any) -> Any:
        """A value with the models in it as their facts."""
        if isinstance(value, Configurable):
            return value._facts()
        return [cls._fact(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Connections and the pipeline aren't part of the value: the copy shares them.
        copied = self.model_copy()
        for name, value in self.__dict__.items():
            set_quietly(copied, name, copy.deepcopy(value, memo))
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        # Connections stay in their process.
        fresh = {
            name: attribute.get_default(call_default_factory=True)
            for name, attribute in type(self).__private_attributes__.items()
        }
        return {**super().__getstate__(), "__pydantic_private__": fresh}

    @property
    def runtime_parameters_names(self) -> dict[str, Any]:
        """Parameter names: to whether it's optional, or to the names of a nested model."""
        names: dict[str, Any] = {}
        for name, field in form_fields(type(self)):
            value = getattr(self, name)
            names[name] = value.runtime_parameters_names if isinstance(value, Configurable) else not field.is_required()
        return names

    def get_runtime_parameters_info(self) -> list[dict[str, Any]]:
        """Name, description and whether it's optional of each parameter; nested models as lists."""
        info: list[dict[str, Any]] = []
        for name, field in form_fields(type(self)):
            value = getattr(self, name)
            if isinstance(value, Configurable):
                info.append({"name": name, "runtime_parameters_info": value.get_runtime_parameters_info()})
            else:
                info.append({"name": name, "optional": not field.is_required(), "description": field.description})
        return info

    def set_runtime_parameters(self, runtime_parameters: Mapping[str, Any]) -> None:
        """Merge parameters into this model in place. Raises ParameterError."""
        updated = self.merged(runtime_parameters)
        for name in runtime_parameters:
            if name in type(self).model_fields:
                setattr(self, name, getattr(updated, name))


def is_ours(kind: object) -> bool:
    """Whether a class or a function is one of this project's: those say by a version of their own when they change."""
    return is_of_project(str(getattr(kind, "__module__", "")))


def set_quietly(model: BaseModel, name: str, value: Any) -> None:
    """Set a field without validating the model again, which a validator of the model must not."""
    cast("dict[str, Any]", model.__dict__)[name] = value


def merge(model: Configurable, overrides: Mapping[str, Any], path: str = "") -> Any:
    """`model.merged(overrides)`, with `path` in front of the names in error messages."""
    known = field_names(type(model))
    changes: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise ParameterError(unknown_name_message(joined(path, name), known, type(model).__name__))
        if value is None:
            _check_none(type(model), name, joined(path, name))
        try:
            changes[name] = model.merge_field(name, value)
        except ParameterError as error:
            raise ParameterError(f"{joined(path, name)}.{error}") from None
        except ValidationError as error:
            raise ParameterError(explain(error, joined(path, name))) from None
        except ValueError as error:
            raise ParameterError(f"{joined(path, name)}: {error}") from None
    if not changes:
        return model
    try:
        model.check_changes(changes)
    except ParameterError as error:
        raise ParameterError(joined(path, str(error))) from None
    values = {name: getattr(model, name) for name in type(model).model_fields}
    return validated(type(model), {**values, **changes}, path)


def _check_none(model: type[BaseModel], name: str, where: str) -> None:
    if not takes_none(model.model_fields[name].annotation):
        raise ParameterError(f"{where}: got None, which it can't be; leave it out to keep it as it is")


def takes_none(annotation: Any) -> bool:
    """Whether None is among the values of an annotation."""
    if annotation in (None, type(None), Any, object):
        return True
    if typing.get_origin(annotation) is Annotated:
        return takes_none(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(map(takes_none, typing.get_args(annotation)))
    return False


def merged_value(current: Any, value: Any, marks: Iterable[Any]) -> Any:
    """`value` merged onto `current`, where that's a model; `marks` are those of the field's annotation."""
    if not (isinstance(current, Configurable) and isinstance(value, Mapping)):
        return value
    overrides = cast("Mapping[str, Any]", value)
    variants = variants_in(marks)
    return current.merged(overrides) if variants is None else variants.merged(current, overrides)


def validated(model: type[BaseModel], values: Mapping[str, Any], path: str = "") -> Any:
    """`model` made from `values`. Raises ParameterError in one readable line per mistake."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ParameterError(explain(error, path)) from None


def explain(error: ValidationError, path: str = "") -> str:
    """A validation error as a user should read it: where, what's wrong, what was got."""
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        where = joined(path, ".".join(str(part) for part in detail["loc"] if not str(part).startswith("function-")))
        message = detail["msg"].removeprefix("Value error, ")
        got = "" if detail["type"] in {"value_error", "missing"} else f", got {short(detail['input'])}"
        lines.append(f"{where}: {message}{got}" if where else f"{message}{got}")
    return "\n".join(lines)


def short(value: object, length: int = 120) -> str:
    """`repr(value)` in at most `length` characters, without secrets: half of one would not be known any more."""
    text = masked(repr(value))
    return text if len(text) <= length else f"{text[: length - 3]}..."


def check_whole(value: Any, name: str, *, numbers: bool = True) -> None:
    """Raises ValueError for half a character anywhere in a JSON value, or for a number that is none."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{name}: expected whole characters, got half of one at character {error.start} of"
                    f" {short(value[max(0, error.start - 20) : error.start + 20])}"
                ) from None
    elif isinstance(value, dict):
        for key, each in cast("dict[Any, Any]", value).items():
            check_whole(key, name)
            check_whole(each, name, numbers=numbers)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            check_whole(each, name, numbers=numbers)
    elif numbers and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a number, got {value!r}")


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


OTHER_NAMES = {
    "api_base": "base_url",
    "host": "base_url",
    "k": "top_k",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "max_tokens": "max_new_tokens",
    "model_id": "model",
    "model_kwargs": "extra_body",
    "n": "num_generations",
    "num_predict": "max_new_tokens",
    "p": "top_p",
    "path_or_hf_repo": "model",
    "random_seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "stop_words": "stop",
    "temp": "temperature",
    "torch_dtype": "dtype",
}
"""What other libraries and providers call a parameter: to its name here."""
NOT_NEEDED = {
    "tokenizer_id": "It isn't needed: the provider puts the chat into the model's own form; leave it out.",
    "use_magpie_template": "It isn't needed: the family is an option of the Task, Magpie(chat_template=...).",
    "magpie_pre_query_template": "The family is an option of the Task: Magpie(chat_template=...).",
    "num_gpus": "It isn't needed: vLLM has tensor_parallel_size, a server places the model itself.",
    "cuda_devices": "It isn't needed: set CUDA_VISIBLE_DEVICES of the server or the worker.",
    "do_sample": "It isn't needed: temperature=0 takes the likeliest token, any other samples.",
    "use_system_prompt": "It isn't needed: a row's `system_prompt` is used where there is one.",
}
"""Parameters that distilabel has: to why there is none here."""


def unknown_name_message(name: str, known: Iterable[str], owner: str) -> str:
    """Says that a name doesn't exist, and which ones are near it."""
    choices = sorted(known)
    last = name.rpartition(".")[2]
    if last in NOT_NEEDED:
        return f"{name}: {owner} has no parameter {last!r}. {NOT_NEEDED[last]}"
    if OTHER_NAMES.get(last) in choices:
        return f"{name}: {owner} has no parameter {last!r}. Here it is {OTHER_NAMES[last]!r}."
    near = difflib.get_close_matches(last, choices, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are: {', '.join(choices)}."
    return f"{name}: {owner} has no parameter {last!r}. {hint}"


def field_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model.model_fields)


def form_order(model: type[Configurable]) -> list[str]:
    """All fields in the order that a form shows them."""
    own_first = [name for name in model.form_first if name in model.model_fields]
    last = [name for name in model.form_last if name in model.model_fields]
    for ancestor in model.__mro__:
        declared = inspect.get_annotations(ancestor)
        own_first += [name for name in declared if name in model.model_fields and name not in [*own_first, *last]]
    return [*own_first, *last]


def for_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a field as Prefect's form shows it best.

    An optional value as the value itself, not required and without a default: an empty input is then
    left out. One with a default has a tab more, by which it's taken back: an emptied input is left out too, and the
    default stands again. Bounds are neither shown nor checked by the form, so they go into the description.
    """
    shown = dict(schema)
    every = cast("list[dict[str, Any]]", shown.get("anyOf", []))
    variants = [each for each in every if each.get("type") != "null"]
    bounded = {**variants[0], **shown} if len(variants) == 1 else shown
    # A switch without a default would be sent as off.
    if variants and [each.get("type") for each in variants] != ["boolean"]:
        shown["anyOf"] = [{**tab_title(each), **each} for each in variants]
        if len(variants) < len(every) and shown.get("default") is not None:
            if len(variants) == 1 and "$ref" not in variants[0]:
                shown["anyOf"] = [{**variants[0], "title": "Value"}]
            shown["anyOf"].append({"type": "null", "title": "None"})
        elif len(variants) == 1:
            shown = {name: each for name, each in bounded.items() if name != "anyOf"}
        if shown.get("default", ...) is None:
            del shown["default"]
    if shown.get("additionalProperties") is True:
        # It says nothing, and a server checks the whole schema at every run.
        del shown["additionalProperties"]
    if shown.get("type") == "object" and not {"properties", "anyOf"} & set(shown):
        # The form sends an empty object for a dict without a default, and so does it with one.
        shown.setdefault("default", {})
    bounds = [
        f"{word} {bounded[key]:g}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in bounded
    ]
    if bounds and "(at " not in shown.get("description", ""):
        shown["description"] = f"{shown.get('description', '')} ({', '.join(bounds)})".strip()
    return shown


def _hide_references(schema: dict[str, Any]) -> None:
    """A default may be a JSON schema: its references aren't those of the form's own schema."""
    if "default" in schema:
        schema["default"] = hidden(schema["default"])
    for each in cast("dict[str, dict[str, Any]]", schema.get("properties", {})).values():
        _hide_references(each)


TAB_TITLES = {"string": "One", "array": "Several"}


def tab_title(variant: Mapping[str, Any]) -> dict[str, str]:
    """The title of a variant's tab, where it has none. A model's own must not be covered, not even by an empty one."""
    title = TAB_TITLES.get(variant.get("type", ""))
    return {"title": title} if title else {}


def special_model(model: Configurable, suffix: str, *, folded: bool = False) -> type[Configurable]:
    """The class of `model` with the values of `model` as defaults, for the form of a flow that has it as default.

    Args:
        folded: whether what few change is hidden in the models that it has.
    """
    fields: dict[str, Any] = {}
    # The new class declares them all: in the order of the form, which goes by declarations.
    for name in form_order(type(model)):
        field = type(model).model_fields[name]
        if name not in shown_fields(type(model)):
            continue
        value = getattr(model, name)
        annotation = field.rebuild_annotation()
        variants = variants_in(field.metadata)
        if variants is not None and isinstance(value, Configurable):
            annotation = Annotated[field.annotation, variants.special(value, suffix, folded=folded)]
        fields[name] = (
            annotation,
            Field(
                default=value,
                title=field.title,
                description=field.description,
                json_schema_extra=field.json_schema_extra,
            ),
        )
    made = create_model(f"{type(model).__name__}_{suffix}", __base__=type(model), **fields)
    made.form_title = type(model).form_title or type(model).__name__
    made.form_special = True
    return made


def rare_fields(kind: type[Configurable]) -> frozenset[str]:
    """The fields that few change: not those that the class names first."""
    named = (name for each in kind.__mro__ for name in vars(each).get("form_more", ()))
    return frozenset(named) & shown_fields(kind) - frozenset(kind.form_first)


def rarely_set(model: Configurable) -> frozenset[str]:
    """The fields that few change, and that `model` has at their defaults as well."""
    fields = type(model).model_fields
    return frozenset(
        name
        for name in rare_fields(type(model))
        if getattr(model, name) == fields[name].get_default(call_default_factory=True)
    )


def without(kind: type[Configurable], hidden_ones: frozenset[str], ending: str = "") -> type[Configurable]:
    """`kind` for a form that hides some fields. It takes them all the same; another tab shows them.

    Args:
        ending: of its name, where both stand in one form.
    """
    if not hidden_ones:
        return kind
    fields: dict[str, Any] = {}
    for name, model in kind.folded_types().items():
        field = kind.model_fields[name]
        fields[name] = (model, Field(default=field.default, title=field.title, description=field.description))
    made = create_model(f"{kind.__name__}{ending}", __base__=kind, __module__=kind.__module__, **fields)
    made.form_hidden = hidden_ones
    made.form_title = kind.form_title or kind.__name__
    return made


def form_values(model: Configurable) -> dict[str, Any]:
    """The values that a form starts with: those of the fields that it shows in the first tabs."""
    names = shown_fields(type(model)) - rarely_set(model)
    nested: dict[str, Any] = {}
    for name in names:
        value, variants = getattr(model, name), variants_in(type(model).model_fields[name].metadata)
        if variants is not None and isinstance(value, Configurable):
            values = {variants.tag: variants.tag_of(value), **form_values(value)}
            nested[name] = without_keys(values, variants.hidden_tag(value))
    return {**written(model, include=names - set(nested), exclude_none=True), **nested}


def without_keys(values: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in keys}


ONLY_TABS: dict[str, Any] = {"type": "object"}
"""Beside an `anyOf`: a server puts it in its place where a property has no default, so that it means the tabs alone."""
DISPLAYED = frozenset({"title", "description", "position", "default"})
BOUNDS = frozenset(
    {"pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems"}
)
"""What a form shows of a field, and what it doesn't hold a value against."""


def bare(field: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a form's field for a place that Prefect takes for none: it checks the same, and shows nothing."""
    checked = {word: each for word, each in field.items() if word not in DISPLAYED}
    if "anyOf" in checked:
        checked["anyOf"] = [
            {word: part for word, part in each.items() if word not in DISPLAYED} for each in checked["anyOf"]
        ]
    if "default" not in field and isinstance(checked.get("type"), str) and checked["type"] != "null":
        # As Prefect does in `properties`.
        checked["type"] = [checked["type"], "null"]
    return checked


def names_told(schema: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`schema` with these `names` alone, in words of which a server says what there is in place of what is refused."""
    rest = {word: value for word, value in schema.items() if word != "additionalProperties"}
    return {**rest, "propertyNames": {"enum": list(names)}}


def variants_in(marks: Iterable[Any]) -> Any:
    """The `Variants` among the marks of an annotation, or None."""
    return next((mark for mark in marks if hasattr(mark, "tag_of")), None)


def form_fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(name, field) for name, field in model.model_fields.items() if name in shown_fields(model)]


@cache
def shown_fields(model: type[BaseModel]) -> frozenset[str]:
    """The fields that a form shows, and that are written down: all but those excluded, and those of secrets."""
    return frozenset(
        name
        for name, field in model.model_fields.items()
        if not field.exclude and not _holds_secret(field.rebuild_annotation())
    )


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        return True
    return any(map(_holds_secret, typing.get_args(annotation)))


def written(
    model: BaseModel, *, mode: str = "json", include: Iterable[str], exclude_none: bool = False
) -> dict[str, Any]:
    """The values of fields, as JSON has them. Raises ParameterError where one has no JSON form."""
    names = set(include)
    try:
        return model.model_dump(mode=mode, include=names, exclude_none=exclude_none)
    except PydanticSerializationError:
        for name in sorted(names):
            _check_written(model, name, mode)
        raise


def says_something(model: BaseModel, name: str) -> bool:
    """Whether a field has a value, or None in place of a default that it had otherwise."""
    return getattr(model, name) is not None or type(model).model_fields[name].get_default() is not None


def _check_written(model: BaseModel, name: str, mode: str) -> None:
    try:
        model.model_dump(mode=mode, include={name})
    except PydanticSerializationError:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            written(value, mode=mode, include=shown_fields(type(value)))
        raise ParameterError(
            f"{type(model).__name__}.{name} is {short(value)}, which can't be written down: make it a PrivateAttr that"
            " `load` fills, or give its Field exclude=True"
        ) from None


def import_path(kind: type) -> str:
    """`module:Name`, by which a class is found again, in a program's other processes as well."""
    return f"{portable_name(kind.__module__)}:{kind.__qualname__}"


def public_path(kind: type) -> str:
    """The import path of a class: by its package where that exports it, so that its module may move."""
    package = package_of(kind.__module__)
    exported = getattr(sys.modules.get(package), kind.__name__, None) is kind
    return f"{package}:{kind.__name__}" if exported else import_path(kind)


@cache
def signature_model(function: Callable[..., Any], passed_over: frozenset[str]) -> type[BaseModel]:
    """A model of a function's keyword arguments, for coercion, forms and descriptions.

    Descriptions come from `Annotated[..., Field(description=...)]` or from the docstring's `Args:`.
    A function that takes `**kwargs` accepts any further name.
    """
    descriptions = argument_descriptions(function)
    hints = resolved_hints(function)
    signature = inspect.signature(function)
    fields: dict[str, Any] = {}
    takes_any = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_any = True
        if name in passed_over or parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            continue
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        field: Any = Field(default=default)
        if name in descriptions and not has_description(hints.get(name)):
            field = Field(default=default, description=descriptions[name])
        fields[name] = (hints.get(name, Any), field)
    config = ConfigDict(extra="allow" if takes_any else "forbid", protected_namespaces=())
    return create_model(f"{function.__qualname__.replace('.', '_')}_arguments", __config__=config, **fields)


def resolved_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; those that can't be resolved are left out."""
    target = inspect.unwrap(function)
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {name: hint for name, hint in target.__annotations__.items() if not isinstance(hint, str)}


def has_description(hint: Any) -> bool:
    return any(isinstance(mark, FieldInfo) and mark.description for mark in getattr(hint, "__metadata__", ()))


def argument_descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """Argument texts from the `Args:` section of a Google-style docstring."""
    document = inspect.getdoc(inspect.unwrap(function)) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", document, re.MULTILINE)
    if section is None:
        return {}
    indent = re.match(r"[ \t]+", section[1])
    entries = re.findall(
        rf"^{indent[0] if indent else ''}(\w+)(?: \([^)]*\))?: (.+(?:\n{indent[0] if indent else ''}[ \t]+.+)*)",
        section[1],
        re.MULTILINE,
    )
    return {name: " ".join(text.split()) for name, text in entries}
