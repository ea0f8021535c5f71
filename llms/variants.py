"""Fields that take one of several models, told apart by a literal: one tab each in a form.

Unlike pydantic's discriminated unions, the JSON schema accepts a part of a variant, which a flow
merges onto its default, and a class of the user's own can take part by its import path.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from llms.parameters import Configurable, import_path, short, special_model, unknown_name_message


@dataclass(frozen=True)
class Variants:
    """The variants of a field of type `base`, as a mark in its `Annotated`.

    Args:
        base: import path of the class that every variant is a kind of, or several.
        tag: the field by which they are told apart.
        ours: tag to import path, in the order of the tabs.
        title: of the field in a form.
        own_tab: the JSON schema of a tab for a class of the user's own, if there is one.
    """

    base: str | tuple[str, ...]
    tag: str
    ours: Mapping[str, str]
    title: str
    own_tab: Mapping[str, Any] | None = field(default=None)
    first: type[Configurable] | None = field(default=None)
    """The class of the first tab, with a default's values; see `special`."""

    def find(self, tag: str) -> type[Configurable]:
        """The class behind a tag or an import path.

        Raises:
            ValueError: there's none.
        """
        path = self.ours.get(tag, tag)
        if ":" not in path:
            own = " A class of your own goes by 'module:Class'." if self.own_tab else ""
            raise ValueError(f"{unknown_name_message(tag, self.ours, self.tag)}{own}")
        try:
            found = imported(path)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{self.tag}={tag!r} can't be imported: {error}. The module must be importable where the flow runs."
            ) from None
        if not (isinstance(found, type) and issubclass(found, self._bases())):
            wanted = " or ".join(base.__name__ for base in self._bases())
            raise ValueError(f"{self.tag}={tag!r} is no kind of {wanted}, but {short(cast('object', found))}")
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
        ours = [self.find(tag) for tag in self.ours]
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

    def write(self, value: Configurable, info: core_schema.SerializationInfo) -> dict[str, Any]:
        """The fields of a variant, without those that say nothing."""
        return {self.tag: self.tag_of(value), **value.model_dump(mode=info.mode, exclude_none=True, exclude={self.tag})}

    def merged(self, current: Configurable, overrides: Mapping[str, Any]) -> Configurable:
        """`current` with overrides; a new variant from them alone where the tag changes."""
        tag = overrides.get(self.tag) or self.tag_of(current)
        rest = {name: value for name, value in overrides.items() if name != self.tag}
        if tag == self.tag_of(current):
            return current.merged(rest)
        return self.read({self.tag: tag, **{name: value for name, value in rest.items() if value is not None}})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            json_schema_input_schema=core_schema.union_schema([handler.generate_schema(tab) for tab in self.tabs()]),
            serialization=core_schema.plain_serializer_function_ser_schema(self.write, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(schema)
        tabs = whole.get("anyOf", [whole])
        own = [dict(self.own_tab)] if self.own_tab else []
        return {"anyOf": [*tabs, *own], "title": self.title}


def imported(path: str) -> Any:
    """The object at `module:name.name`. Raises ImportError or AttributeError."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
