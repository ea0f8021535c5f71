"""Fields that take one of several models, told apart by a literal: one tab each in a form.

Unlike pydantic's discriminated unions, the JSON schema accepts a part of a variant, which a flow
merges onto its default, and a class of the user's own can take part by its import path.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from types import ModuleType
from typing import Any, cast

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llms.errors import cut
from llms.parameters import (
    BOUNDS,
    ONLY_TABS,
    Configurable,
    bare,
    import_path,
    rare_fields,
    rarely_set,
    says_something,
    short,
    shown_fields,
    special_model,
    unknown_name_message,
    without,
    written,
)
from llms.references import hidden
from llms.root import is_of_project
from llms.scripts import MAIN, scripts_called
from llms.secrets import masked

ALLOWED_VARIABLE = "STILLFLOW_ALLOWED_CLASSES"
"""The environment variable that lists packages, modules or classes: an operator's limit on what may be imported."""
LONGEST_REASON = 300
# Not what runs when it's imported, such as `flows.__main__`, but a class of the program itself.
PATH = re.compile(r"(__main__|__mp_main__|(?!__)[\w-]+(\.(?!__)[\w-]+)*):(?!__)[^\W\d]\w*(\.(?!__)[^\W\d]\w*)*")


@dataclass(frozen=True)
class Variants:
    """The variants of a field of type `base`, as a mark in its `Annotated`.

    Args:
        base: import path of the class that every variant is a kind of, or several.
        tag: the field by which they are told apart.
        ours: tag to import path, in the order of the tabs.
        title: of the field in a form.
        own_tab: the JSON schema of a tab for a class of the user's own, if there is one; for those `behind` it as well.
    """

    base: str | tuple[str, ...]
    tag: str
    ours: Mapping[str, str]
    title: str
    own_tab: Mapping[str, Any] | None = field(default=None)
    behind: frozenset[str] = field(default=frozenset())
    """Tags without a tab: they are given in the own tab, for a form with tabs of all would be too large to fill in."""
    first: type[Configurable] | None = field(default=None)
    """The class of the first tab, with a default's values; see `special`."""
    settings: type[BaseModel] | None = field(default=None)
    """The tab of a flow's form, in place of `own_tab`, with all fields of all tabs, where these hide some."""
    folded: bool = field(default=False)
    """Whether the tabs hide what few change, and `settings` has it."""
    usual_first: type[Configurable] | None = field(default=None)
    """The first tab of a form that hides what few change of it; `first`, with all of it, is then the second."""

    def find(self, tag: str) -> type[Configurable]:
        """The class behind a tag or an import path.

        Raises:
            ValueError: there's none.
        """
        if tag in self.ours:
            return imported(self.ours[tag])
        if ":" not in tag:
            own = " A class of your own goes by 'module:Class'." if self.own_tab else ""
            raise ValueError(f"{unknown_name_message(tag, self.ours, self.tag)}{own}")
        if not is_allowed(tag):
            raise ValueError(
                f"{self.tag}={tag!r} isn't among the classes that may be used here: add it, or its package, to"
                f" {ALLOWED_VARIABLE} on the machine that works on the run"
            )
        try:
            found = class_at(tag)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- importing a module of the user's may raise anything
            kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
            why = f"{kind}{cut(masked(str(error)), LONGEST_REASON)}"
            raise ValueError(f"{self.tag}={tag!r} can't be imported: {why}. {_way_out(tag)}") from None
        # What else is there is nobody's business: the message goes to whoever gave the path.
        if found is None or not issubclass(found, self._bases()):
            wanted = " or ".join(base.__name__ for base in self._bases())
            raise ValueError(f"{self.tag}={tag!r} is no kind of {wanted}" + ("" if found else ": it's no class"))
        return found

    def _bases(self) -> tuple[type[Configurable], ...]:
        paths = (self.base,) if isinstance(self.base, str) else self.base
        return tuple(map(imported, paths))

    def tag_of(self, value: Configurable) -> str:
        """The tag or import path by which `find` finds the class of `value`."""
        path = import_path(type(value))
        return next((tag for tag, ours in self.ours.items() if ours == path), path)

    def special(self, value: Configurable, suffix: str, *, folded: bool = False) -> Variants:
        """The same variants for a form whose default is `value`: its tab first, filled with its values.

        The form chooses the tab that shares most keys with the value, and the first among equals: one with all
        settings where the value has a field that the others hide. The first tab hides the tag too, which its name
        says: the tab of all settings is the second, so that a value with a tag of its own is shown with it.

        Args:
            folded: hide what few change in a tab of its own.
        """
        first = special_model(value, suffix)
        rare = rarely_set(value)
        if folded and self.settings is not None and rare:
            return replace(self, first=without(first, rare), folded=True)
        hidden_ones = rare | self.hidden_tag(value)
        if not folded or self.settings is not None or not hidden_ones:
            return replace(self, first=first)
        usual_first = without(first, hidden_ones, ending="_usual")
        first.form_title = f"{first.form_title}, all settings"
        return replace(self, first=first, usual_first=usual_first)

    def hidden_tag(self, value: Configurable) -> frozenset[str]:
        """The tag, where the first tab of a form whose default is `value` hides it: the name of one of ours says it."""
        says_it = self.settings is None and self.tag_of(value) in self.ours
        return frozenset({self.tag} if says_it else ())

    def tabs(self) -> list[type[Configurable]]:
        """The classes of the tabs, in order."""
        ours = [self.find(tag) for tag in self.ours if tag not in self.behind]
        if self.first is None:
            return ours
        # One of ours may be a kind of another.
        special = next((each for each in self.first.__mro__ if each in ours), None)
        rest = [each for each in ours if each is not special]
        return [self.first, *(map(usual, rest) if self.folded else rest)]

    def read(self, value: Any) -> Configurable:
        """The variant from an instance or from its fields. Raises ValueError."""
        if isinstance(value, self._bases()):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected one of {', '.join(self.ours)} as its fields, got {short(value)}")
        fields = dict(cast("Mapping[str, Any]", value))
        tag = str(fields.pop(self.tag, None) or "")
        if not tag:
            raise ValueError(
                f"`{self.tag}` is missing: one of {', '.join(self.ours)}, got {short(fields)}."
                " To change only a part of a flow's default, declare the flow with `from flows import flow`"
            )
        return self.find(tag).model_validate(fields)

    def write(self, value: Configurable, mode: str = "json") -> dict[str, Any]:
        """The fields of a variant, without those that say nothing."""
        fields = {name for name in shown_fields(type(value)) - {self.tag} if says_something(value, name)}
        return {self.tag: self.tag_of(value), **written(value, mode=mode, include=fields)}

    def _serialize(self, value: Configurable, info: core_schema.SerializationInfo) -> dict[str, Any]:
        return self.write(value, info.mode)

    def merged(self, current: Configurable, overrides: Mapping[str, Any]) -> Configurable:
        """`current` with overrides; a new variant from them alone where the tag changes."""
        tag = overrides.get(self.tag) or self.tag_of(current)
        rest = {name: value for name, value in overrides.items() if name != self.tag}
        if tag == self.tag_of(current):
            return current.merged(rest)
        return self.read({self.tag: tag, **rest})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        more = self.settings if self.folded else self.usual_first
        shown = [*self.tabs(), *([more] if more else [])]
        return core_schema.no_info_plain_validator_function(
            self.read,
            json_schema_input_schema=core_schema.union_schema([handler.generate_schema(each) for each in shown]),
            serialization=core_schema.plain_serializer_function_ser_schema(self._serialize, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(schema)
        tabs = whole.get("anyOf", [whole])
        if self.folded:
            *tabs, settings = tabs
            shown = [*tabs, self._filled_in(settings, handler)]
        else:
            if self.usual_first:
                whole_first, *rest, usual_first = tabs
                tabs = [whole_first, *rest]
                if self.tag in self.usual_first.form_hidden:
                    # What V2 begins with where this tab is chosen in place of another. V1 doesn't look here; in the
                    # definition it would begin every form with it.
                    tag = self.usual_first.model_fields[self.tag].default
                    usual_first = {**usual_first, "default": {self.tag: tag}}
                shown = [usual_first, whole_first, *rest]
            else:
                shown = tabs
            shown = [*shown, *([dict(self.own_tab)] if self.own_tab else [])]
        return {"anyOf": shown, "title": self.title, **self._checks(tabs, handler)}

    def _filled_in(self, settings: Mapping[str, Any], handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The tab with what the default has of a model's first fields: V2 takes them from beside the reference."""
        fields = self.first.model_fields if self.first else {}
        places = handler.resolve_ref_schema(dict(settings))["properties"]
        known = {
            name: {"default": hidden(fields[name].default), "position": places[name]["position"]}
            for name in (self.tag, "model", "generation_kwargs")
            if name in fields
        }
        return {**settings, "properties": known}

    def _checks(self, tabs: list[dict[str, Any]], handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """What makes a server say what is wrong, and where, in place of "not valid under any of the given schemas".

        It holds a value against the tab that is meant alone; the tag is found by patterns, for the server takes
        `properties` for those of a form wherever they stand. A tab for classes of the user's own accepts whatever
        another one would, but for the types of its own fields. Where all tabs refuse a value the server tells no error
        inside of it, but what is wrong with the whole; or the errors of another `anyOf`, see `told`.
        """
        of_tabs = [handler.resolve_ref_schema(tab) for tab in tabs]
        fields: list[dict[str, Any]] = [tab.get("properties", {}) for tab in of_tabs]
        tags = [each.get(self.tag, {}).get("const") for each in fields]
        part = tabs[0] if self.first else {"propertyNames": {"enum": list(dict.fromkeys(chain(*fields)))}}

        def tagged(schema: Mapping[str, Any]) -> dict[str, Any]:
            return {"patternProperties": {f"^{self.tag}$": schema}}

        if self.own_tab:
            one_of = {"if": tagged({"not": {"pattern": ":"}}), "then": tagged({"enum": list(self.ours)})}
            own = self.own_tab["properties"]
            if self.folded:
                same = [{"patternProperties": {f"^{name}$": bare(each) for name, each in own.items()}}]
            else:
                text = {"if": tagged({"type": "string"}), "else": {"const": f"{self.tag}: a text"}}
                same = [text, *typed(_types(self.own_tab), self.tag)]
            of_tab: list[list[dict[str, Any]]] = [[] for _ in fields]
        else:
            wanted = f"{self.tag}: one of {', '.join(self.ours)}"
            one_of = {"if": tagged({"enum": list(self.ours)}), "else": {"const": wanted}}
            known = [{name: bare(each) for name, each in some.items() if name != self.tag} for some in fields]
            # A server checks the whole schema at every run: what is the same in all tabs is said once.
            by_name = {name: [some[name] for some in known if name in some] for name in dict.fromkeys(chain(*known))}
            alike = {
                name: several[0] for name, several in by_name.items() if all(each == several[0] for each in several)
            }
            same = told(alike)
            of_tab = [told({name: each for name, each in some.items() if name not in alike}) for some in known]
        if_tagged = [
            {"if": tagged({"const": tag}), "then": {"allOf": [tab, *more]} if more else tab}
            for tag, tab, more in zip(tags, tabs, of_tab, strict=True)
            if tag
        ]
        by_tag = {
            "if": {"propertyNames": {"not": {"const": self.tag}}},
            "then": {"allOf": [part, *(of_tab[0] if self.first else [])]},
            "else": {"allOf": [one_of, *if_tagged]},
        }
        return {
            "if": True,
            "then": {"allOf": [*same, by_tag]},
            **(ONLY_TABS if self.folded or not self.own_tab else {}),
        }


def told(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What holds a value's fields against their schemas, so that a server says where it's wrong, beside other tabs.

    Of several errors it tells one that is nearest to the top, and of an `anyOf` the innermost in it; among equals an
    `anyOf` goes first that has no type beside it that fits, and this one's.
    """
    return [{"anyOf": [{"patternProperties": {f"^{name}$": each for name, each in fields.items()}}]}] if fields else []


def typed(known: Iterable[_Typed], tag: str) -> list[dict[str, Any]]:
    """What says of a value's fields which types they have, but for its tag."""
    return [
        {"if": {"patternProperties": {f"^{each.name}$": {"type": list(each.types)}}}, "else": {"const": says}}
        for each, says in ((each, f"{each.name}: {each.words}") for each in known if each.name != tag)
    ]


@cache
def usual(kind: type[Configurable]) -> type[Configurable]:
    """`kind` for a form that hides what few change of it."""
    return without(kind, rare_fields(kind))


@dataclass(frozen=True)
class TwoTabs:
    """A model in two tabs, as a mark in its `Annotated`: the marked one, which hides fields, and the `whole` one.

    Args:
        closed: whether there's a tab before them that shows nothing. As long as it isn't left, a form sends nothing.
    """

    whole: type[Configurable]
    closed: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        tabs = core_schema.union_schema([handler(source), handler.generate_schema(self.whole)])
        return without_default(tabs) if self.closed else tabs

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The tabs, and what says where a mistake is.

        A value is held against the whole model, and passes the tab that hides fields but for mistakes in the types of
        what that shows. Of these the second `anyOf` tells the place: an error validated beside a type that fits goes
        behind it.
        """
        usual, whole = handler(schema)["anyOf"]
        shown = handler.resolve_ref_schema(usual)
        for word in ("propertyNames", "patternProperties"):
            shown.pop(word, None)
        checked: dict[str, Any] = {}
        for name, each in shown["properties"].items():
            for word in (*BOUNDS, "if", "then"):
                each.pop(word, None)
            if not ("anyOf" in each and "type" in each):
                checked[name] = bare(each)
        tabs = [CLOSED, usual, whole] if self.closed else [usual, whole]
        return {"anyOf": tabs, **ONLY_TABS, "if": True, "then": {"allOf": [dict(whole), *told(checked)]}}


# Not of the type null: of such a tab V2 says so.
CLOSED: dict[str, Any] = {"type": "object", "properties": {}, "title": "As it is"}


def without_default(schema: CoreSchema) -> CoreSchema:
    """For a field that isn't required, and has no default in the JSON schema: a form would send it."""
    return core_schema.with_default_schema(schema, default_factory=lambda: None)


@dataclass(frozen=True)
class _Typed:
    """A field that is told by its types alone."""

    name: str
    types: tuple[str, ...]
    words: str


def _types(schema: Mapping[str, Any]) -> list[_Typed]:
    """The fields of a model's schema that are told by their types alone."""
    found: list[_Typed] = []
    for name, each in schema.get("properties", {}).items():
        types, words = in_words(each)
        # As Prefect does in `properties`, but for those that have a default.
        free = [] if "default" in each or name in schema.get("required", ()) else ["null"]
        if words:
            found.append(_Typed(name, tuple(dict.fromkeys([*types, *free])), words))
    return found


WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing",
}
"""What JSON's types are called in messages."""


def in_words(field: Mapping[str, Any]) -> tuple[list[str], str]:
    """The types that a field's schema has, and those in words; empty where it isn't told by types alone."""
    types = [each.get("type") for each in field.get("anyOf", [field])]
    if not all(isinstance(each, str) for each in types):
        return [], ""
    return types, " or ".join(WORDS[each] for each in types)


def is_allowed(path: str) -> bool:
    """Whether the class at `module:Class` may be used on this machine: ours, and those that its operator lists."""
    listed = os.environ.get(ALLOWED_VARIABLE, "").replace(",", " ").split()
    module = path.partition(":")[0]
    if not listed or is_of_project(module):
        return True
    return any(path == each or fnmatchcase(module, each) or fnmatchcase(module, f"{each}.*") for each in listed)


def class_at(path: str) -> type[Any] | None:
    """The class at `module:Class` or `module:Outer.Inner`; None for anything else, which isn't looked into.

    Raises:
        ImportError, AttributeError: it isn't there. Whatever else the module raises when it's imported.
    """
    module, _, name = path.partition(":")
    if not PATH.fullmatch(path):
        raise ImportError(f"expected 'module:Class', got {path!r}")
    for script in scripts_called(module):
        # Not imported by its name: the program would run a second time, and make second classes.
        with suppress(AttributeError):
            return _class_in(script, name)
    return _class_in(importlib.import_module(module), name)


def _class_in(module: ModuleType, name: str) -> type[Any] | None:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
        if not isinstance(found, type):
            return None
    return cast("type[Any]", found)


def imported(path: str) -> Any:
    """The class of ours at `module:Class`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _way_out(path: str) -> str:
    module, _, name = path.partition(":")
    if "<locals>" in name:
        return "A class made inside a function is found nowhere else: define it at the top of a module."
    if module in MAIN:
        return "What is defined in a notebook is found in its own process alone: define it in a module."
    return "The module must be importable where the flow runs."
