"""Fields that take one of several models, told apart by a literal: one tab each in a form.

Unlike pydantic's discriminated unions, the JSON schema accepts a part of a variant, which a flow
merges onto its default, and a class of the user's own can take part by its import path.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain
from types import ModuleType
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llms.errors import cut
from llms.parameters import (
    OURS,
    Configurable,
    import_path,
    says_something,
    short,
    shown_fields,
    special_model,
    unknown_name_message,
    written,
)
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

    def special(self, value: Configurable, suffix: str) -> Variants:
        """The same variants for a form whose default is `value`: its tab first, filled with its values.

        The form chooses the tab that shares most keys with the value, and the first among equals.
        """
        return replace(self, first=special_model(value, suffix))

    def tabs(self) -> list[type[Configurable]]:
        """The classes of the tabs, in order."""
        ours = [self.find(tag) for tag in self.ours if tag not in self.behind]
        if self.first is None:
            return ours
        # One of ours may be a kind of another.
        special = next((each for each in self.first.__mro__ if each in ours), None)
        return [self.first, *(each for each in ours if each is not special)]

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
        return core_schema.no_info_plain_validator_function(
            self.read,
            json_schema_input_schema=core_schema.union_schema([handler.generate_schema(tab) for tab in self.tabs()]),
            serialization=core_schema.plain_serializer_function_ser_schema(self._serialize, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(schema)
        tabs = whole.get("anyOf", [whole])
        own = [dict(self.own_tab)] if self.own_tab else []
        return {"anyOf": [*tabs, *own], "title": self.title, **self._checks(tabs, handler)}

    def _checks(self, tabs: list[dict[str, Any]], handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """What makes a server say what is wrong, and where, in place of "not valid under any of the given schemas".

        It holds a value against the tab that is meant alone; the tag is found by patterns, for the server takes
        `properties` for those of a form wherever they stand. `OWN_TAB` accepts whatever another tab would.
        """
        fields: list[dict[str, Any]] = [handler.resolve_ref_schema(tab).get("properties", {}) for tab in tabs]
        tags = [each.get(self.tag, {}).get("const") for each in fields]
        part = tabs[0] if self.first else {"propertyNames": {"enum": list(dict.fromkeys(chain(*fields)))}}

        def tagged(schema: dict[str, Any]) -> dict[str, Any]:
            return {"patternProperties": {f"^{self.tag}$": schema}}

        known = {"then": tagged({"enum": list(self.ours)})}
        path = {"if": tagged({"not": {"pattern": ":"}})} if self.own_tab else {"if": True}
        of_tabs = [{"if": tagged({"const": tag}), "then": tab} for tag, tab in zip(tags, tabs, strict=True) if tag]
        return {
            "if": {"propertyNames": {"not": {"const": self.tag}}},
            "then": part,
            "else": {"allOf": [{**path, **known}, *of_tabs]},
        }


def is_allowed(path: str) -> bool:
    """Whether the class at `module:Class` may be used on this machine: ours, and those that its operator lists."""
    listed = os.environ.get(ALLOWED_VARIABLE, "").replace(",", " ").split()
    module = path.partition(":")[0]
    if not listed or module.partition(".")[0] in OURS:
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
