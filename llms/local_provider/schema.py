"""An instance that fits a JSON schema, decided by the schema, a digest and the words of a prompt.

Understood: type (one or several), properties, required, additionalProperties, patternProperties, propertyNames,
minProperties, maxProperties, items, prefixItems, contains, minItems, maxItems, uniqueItems, enum, const, anyOf,
oneOf, allOf, $ref (inside the document; recursive ones end), minimum, maximum, exclusive*, multipleOf, minLength,
maxLength, pattern (the common cases), format, nullable. Not understood, and passed over: not, if/then/else,
dependent*, unevaluated*. A text that is described as "a JSON object ..." is an empty one. Of `oneOf` one branch is
met, without a check that no other is.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import UUID

import orjson

from llms.local_provider.answers import choice_number, prose, topic_words
from llms.local_provider.patterns import UnsupportedPattern, matching_text
from llms.local_provider.wire import JsonObject, is_list, is_number, is_object

_DEEPEST = 100
_ATTEMPTS = 40
_NAMES = ("alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "juniper", "larch", "maple", "oak")
_STRING_WORDS = ("minLength", "maxLength", "pattern", "format")
_NUMBER_WORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ARRAY_WORDS = ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems")
_OBJECT_WORDS = ("properties", "required", "additionalProperties", "patternProperties", "minProperties")


class SchemaError(ValueError):
    """The schema is malformed, has no instance, or asks for what this module doesn't understand."""


def instance(schema: object, digest: bytes, prompt: str = "") -> object:
    """A JSON value that fits the schema; equal arguments give equal values. Raises `SchemaError`."""
    return _Generator(schema, digest, prompt).value(schema, _Place())


def strict_violation(schema: object, context: tuple[str, ...] = ()) -> str | None:
    """What OpenAI's strict mode would refuse in the schema: an object that is open or leaves a property optional."""
    if is_list(schema):
        return next((found for item in schema if (found := strict_violation(item, context))), None)
    if not is_object(schema):
        return None
    properties = schema.get("properties")
    if is_object(properties) or schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return f"In context={context!r}, 'additionalProperties' is required to be supplied and to be false."
        names, required = set(_as_object(properties)), schema.get("required")
        absent = names.difference(map(str, required) if is_list(required) else ())
        if absent:
            return (
                f"In context={context!r}, 'required' is required to be supplied and to be an array including every key "
                f"in properties. Missing '{min(absent)}'."
            )
    for word in ("properties", "$defs", "definitions"):
        for name, child in _as_object(schema.get(word)).items():
            if found := strict_violation(child, (*context, word, name)):
                return found
    for word in ("items", "anyOf", "allOf", "prefixItems"):
        if found := strict_violation(schema.get(word), (*context, word)):
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the instance a value is made: how deep, and through which references."""

    depth: int = 0
    references: tuple[str, ...] = ()
    minimal: bool = False
    """Inside a reference that was entered again: only what is required, so that recursion ends."""

    def below(self) -> "_Place":
        if self.depth > _DEEPEST:
            raise SchemaError(f"the schema needs more than {_DEEPEST} levels; give its recursion a way to end")
        return _Place(self.depth + 1, self.references, self.minimal)

    def through(self, reference: str) -> "_Place":
        references = (*self.references, reference)
        return _Place(self.depth + 1, references, self.minimal or reference in self.references)


@dataclass
class _Generator:
    root: object
    digest: bytes
    prompt: str
    drawn: int = 0
    words: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.words = topic_words(self.prompt)

    def pick(self, size: int) -> int:
        self.drawn += 1
        return choice_number(self.digest, self.drawn) % size

    def value(self, schema: object, place: _Place) -> object:
        flat, place = self.flatten(schema, place.below())
        if "const" in flat:
            return flat["const"]
        if is_list(options := flat.get("enum")):
            return options[self.pick(len(options))]
        match self.kind(flat, place):
            case "object":
                return self.object_value(flat, place)
            case "array":
                return self.array_value(flat, place)
            case "integer" | "number" as kind:
                return self.number_value(flat, whole=kind == "integer")
            case "boolean":
                return self.pick(2) == 0
            case "null":
                return None
            case _:
                return self.string_value(flat)

    def kind(self, flat: JsonObject, place: _Place) -> str:
        kinds = _kinds(flat)
        if place.minimal and ("null" in kinds or flat.get("nullable") is True):
            return "null"
        solid = [kind for kind in kinds if kind != "null"]
        if not solid:
            return "null" if kinds else _kind_by_words(flat)
        return solid[self.pick(len(solid))] if not place.minimal else min(solid, key=_KIND_WEIGHT.index)

    def flatten(self, schema: object, place: _Place) -> tuple[JsonObject, _Place]:
        """The schema with its references, allOf, anyOf and oneOf replaced by what was chosen of them."""
        if schema is True:
            return {}, place
        if not is_object(schema):
            raise SchemaError(f"{schema!r} allows no instance; expected a schema object or true")
        flat = {word: rule for word, rule in schema.items() if word not in ("$ref", "allOf", "anyOf", "oneOf")}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            target, place = self.flatten(self.resolve(reference), place.through(reference).below())
            flat = _merged(target, flat)
        for part in _as_list(schema.get("allOf")):
            other, place = self.flatten(part, place.below())
            flat = _merged(flat, other)
        for word in ("anyOf", "oneOf"):
            if is_list(branches := schema.get(word)):
                flat, place = self.branch(flat, branches, place)
        return flat, place

    def branch(self, flat: JsonObject, branches: list[object], place: _Place) -> tuple[JsonObject, _Place]:
        heights = [self.height(branch) for branch in branches]
        order = sorted(range(len(branches)), key=heights.__getitem__)
        if not place.minimal:
            open_ones = [number for number in range(len(branches)) if heights[number] < math.inf]
            solid = [number for number in open_ones if branches[number] != {"type": "null"}] or open_ones
            if solid:
                first = solid[self.pick(len(solid))]
                order = [first, *(number for number in order if number != first)]
        problem: SchemaError | None = None
        for number in order:
            try:
                other, there = self.flatten(branches[number], place.below())
                return _merged(flat, other), there
            except SchemaError as error:
                problem = error
        raise problem or SchemaError("anyOf and oneOf need at least one branch")

    def resolve(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise SchemaError(f"$ref {reference!r} points outside of the document; put its target under $defs")
        target = self.root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if is_object(target) and name in target:
                target = target[name]
            elif is_list(target) and name.isdigit() and int(name) < len(target):
                target = target[int(name)]
            else:
                raise SchemaError(f"$ref {reference!r} points to nothing; no {name!r} there")
        return target

    def height(self, schema: object, seen: frozenset[str] = frozenset()) -> float:
        """How many levels the smallest instance has; infinite if it never ends."""
        if not is_object(schema):
            return math.inf if schema is False else 0
        parts: list[float] = [0]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in seen:
                return math.inf
            parts.append(self.height(self.resolve(reference), seen | {reference}))
        if "const" in schema or "enum" in schema or "null" in _kinds(schema) or schema.get("nullable") is True:
            return max(parts)
        properties = _as_object(schema.get("properties"))
        children = [properties[name] for name in _names(schema.get("required")) if name in properties]
        if _whole(schema.get("minItems"), 0) > 0:
            children += [schema.get("items", True), *_as_list(schema.get("prefixItems"))]
        parts += [1 + self.height(child, seen) for child in children]
        parts += [self.height(part, seen) for part in _as_list(schema.get("allOf"))]
        for word in ("anyOf", "oneOf"):
            if branches := _as_list(schema.get(word)):
                parts.append(min(self.height(branch, seen) for branch in branches))
        return max(parts)

    def object_value(self, flat: JsonObject, place: _Place) -> JsonObject:
        properties, required = _as_object(flat.get("properties")), _names(flat.get("required"))
        most = _whole(flat.get("maxProperties"), 1 << 30)
        made: JsonObject = {}
        room = most - len(required)
        for name, schema in properties.items():
            if name in required:
                made[name] = self.value(schema, place)
            elif room > 0 and not place.minimal and self.height(schema) < math.inf:
                made[name] = self.value(schema, place)
                room -= 1
        for name in required:
            if name not in made:
                made[name] = self.value(self.schema_of(name, flat), place)
        return self.with_free_names(made, flat, place, most)

    def schema_of(self, name: str, flat: JsonObject) -> object:
        for pattern, schema in _as_object(flat.get("patternProperties")).items():
            if re.search(pattern, name):
                return schema
        return flat.get("additionalProperties", True)

    def with_free_names(self, made: JsonObject, flat: JsonObject, place: _Place, most: int) -> JsonObject:
        """The object with properties whose names the schema leaves open: as many as it must, or two in a plain map."""
        free = flat.get("additionalProperties", True)
        patterns = _as_object(flat.get("patternProperties"))
        least = _whole(flat.get("minProperties"), 0)
        plain_map = (
            not made and not place.minimal and (bool(patterns) or (is_object(free) and self.height(free) < math.inf))
        )
        wanted = min(most, max(least, len(made) + 2 if plain_map else 0))
        for attempt in range(_ATTEMPTS + wanted):
            if len(made) >= wanted:
                break
            if patterns and (free is False or plain_map):
                pattern = list(patterns)[attempt % len(patterns)]
                made[self.by_pattern(pattern, {})] = self.value(patterns[pattern], place)
            elif free is not False:
                made.setdefault(self.free_name(flat, attempt), self.value(free, place))
        if len(made) < least:
            raise SchemaError(f"the schema asks for {least} properties and allows {len(made)}")
        return made

    def free_name(self, flat: JsonObject, attempt: int) -> str:
        if "propertyNames" in flat:
            names = flat["propertyNames"]
            return str(self.value({"type": "string", **names} if is_object(names) else names, _Place()))
        word = (
            self.words[attempt % len(self.words)] if attempt < len(self.words) else f"{_NAMES[attempt % 12]}_{attempt}"
        )
        return word.lower().replace(" ", "_")

    def array_value(self, flat: JsonObject, place: _Place) -> list[object]:
        first, rest = _item_schemas(flat)
        least, most = _whole(flat.get("minItems"), 0), _whole(flat.get("maxItems"), 1 << 30)
        needed = ["contains"] if "contains" in flat else []
        usual = 0 if place.minimal or self.height(rest) == math.inf else 2
        count = min(most, max(least, len(first) if not place.minimal else least, usual, len(needed)))
        if rest is False:
            count = min(count, len(first))
        made: list[object] = []
        for number in range(count):
            schema = first[number] if number < len(first) else rest
            if needed and number == count - 1:
                schema = {"allOf": [schema, flat["contains"]]}
            item = self.value(schema, place)
            if flat.get("uniqueItems") is True:
                found = self.unlike(made, item, schema, place)
                if found is _NOTHING:
                    break
                item = found
            made.append(item)
        if len(made) < least:
            raise SchemaError(f"the schema asks for {least} items and allows {len(made)} that differ")
        return made

    def unlike(self, made: Sequence[object], item: object, schema: object, place: _Place) -> object:
        """An item that none of `made` equals: the given one, or another."""
        taken = {_canonical(other) for other in made}
        for _ in range(_ATTEMPTS * (1 + len(made))):
            if _canonical(item) not in taken:
                return item
            item = self.value(schema, place)
        return _NOTHING

    def number_value(self, flat: JsonObject, *, whole: bool) -> int | float:
        low, high = _bounds(flat)
        step = flat.get("multipleOf")
        if is_number(step) and step > 0:
            return self.multiple(Fraction(str(step)), low, high, whole=whole)
        if whole:
            return int(self.multiple(Fraction(1), low, high, whole=True))
        start, end = _range_of(low, high)
        for digits in (2, 6):
            value = round(float(start + (end - start) * Fraction(1 + self.pick(98), 100)), digits)
            if _inside(Fraction(value), low, high):
                return value
        middle = float((start + end) / 2)
        if not _inside(Fraction(middle), low, high):
            raise SchemaError(f"no number between {float(start)} and {float(end)}")
        return middle

    def multiple(self, step: Fraction, low: "_Bound", high: "_Bound", *, whole: bool) -> int | float:
        if whole:
            step = Fraction(step.numerator)
        start, end = _range_of(low, high, step * 9)
        least = math.ceil(start / step) if low.value is not None or high.value is not None else 1
        most = max(least, math.floor(end / step)) if low.value is None or high.value is None else math.floor(end / step)
        least += low.open and least * step == low.value
        most -= high.open and most * step == high.value
        if most < least:
            raise SchemaError(f"no multiple of {float(step):g} between {float(start):g} and {float(end):g}")
        first = self.pick(most - least + 1)
        for offset in range(min(_ATTEMPTS, most - least + 1)):
            value = (least + (first + offset) % (most - least + 1)) * step
            if value.denominator == 1:
                return int(value)
            if (float(value) / float(step)).is_integer():
                return float(value)
        return float((least + first) * step)

    def string_value(self, flat: JsonObject) -> str:
        shape = flat.get("format")
        if isinstance(pattern := flat.get("pattern"), str):
            return self.by_pattern(pattern, flat)
        if isinstance(shape, str) and (made := self.by_format(shape)) is not None:
            return made
        if str(flat.get("description", "")).lower().startswith("a json object"):
            return "{}"
        least, most = _whole(flat.get("minLength"), 0), _whole(flat.get("maxLength"), 1 << 30)
        if most >= 80:
            text = prose(self.prompt, self.pick(1 << 60), 8)
        else:
            text = f"{self.words[self.pick(len(self.words))]} {_NAMES[self.pick(12)]} {self.pick(100)}"
        while len(text) < least:
            text += f" {_NAMES[self.pick(12)]}"
        text = text[:most]
        return text if len(text.rstrip()) < least else text.rstrip()

    def by_pattern(self, pattern: str, flat: JsonObject) -> str:
        least, most = _whole(flat.get("minLength"), 0), _whole(flat.get("maxLength"), 1 << 30)
        extras = (2, least, max(0, most) if most < 1000 else 8, 0)
        try:
            for attempt in range(_ATTEMPTS):
                text = matching_text(pattern, self.pick, extras[attempt % len(extras)])
                text = text + self.padding(least - len(text)) if not pattern.endswith("$") else text
                if least <= len(text) <= most and re.search(pattern, text):
                    return text
        except (UnsupportedPattern, re.error) as error:
            raise SchemaError(f"the pattern {pattern!r} is beyond the local provider: {error}") from error
        raise SchemaError(f"no text of {least} to {most} characters found for the pattern {pattern!r}")

    def padding(self, length: int) -> str:
        return "".join("abcdefghijklmnopqrstuvwxyz"[self.pick(26)] for _ in range(length))

    def by_format(self, shape: str) -> str | None:
        name, number = _NAMES[self.pick(12)], self.pick(1 << 40)
        moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number % (3 * 365 * 86400))
        made: Mapping[str, str] = {
            "date-time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "date": moment.strftime("%Y-%m-%d"),
            "time": moment.strftime("%H:%M:%SZ"),
            "duration": f"P{1 + number % 30}D",
            "email": f"{name}.{number % 1000}@example.com",
            "idn-email": f"{name}.{number % 1000}@example.com",
            "hostname": f"{name}.example.com",
            "ipv4": f"192.0.2.{number % 256}",
            "ipv6": f"2001:db8::{number % 65536:x}",
            "uri": f"https://example.com/{name}/{number % 1000}",
            "url": f"https://example.com/{name}/{number % 1000}",
            "uri-reference": f"/{name}/{number % 1000}",
            "uuid": str(UUID(int=(number << 80) | number, version=4)),
            "json-pointer": f"/{name}",
            "regex": f"{name}+",
        }
        return made.get(shape)


_NOTHING = object()
_KIND_WEIGHT = ("null", "boolean", "integer", "number", "string", "array", "object")


@dataclass(frozen=True, slots=True)
class _Bound:
    value: Fraction | None
    open: bool = False


def _bounds(flat: JsonObject) -> tuple[_Bound, _Bound]:
    low, high = _bound(flat, "minimum", "exclusiveMinimum"), _bound(flat, "maximum", "exclusiveMaximum")
    negative = [_Bound(-bound.value if bound.value is not None else None, bound.open) for bound in high]
    highest = _tightest(negative)
    return _tightest(low), _Bound(-highest.value if highest.value is not None else None, highest.open)


def _bound(flat: JsonObject, closed: str, opened: str) -> list[_Bound]:
    bounds = [_Bound(Fraction(str(value))) for value in [flat.get(closed)] if is_number(value)]
    strict = flat.get(opened)
    if strict is True:
        return [_Bound(bound.value, open=True) for bound in bounds]
    return bounds + [_Bound(Fraction(str(value)), open=True) for value in [strict] if is_number(value)]


def _tightest(bounds: list[_Bound]) -> _Bound:
    return max(bounds, key=lambda bound: (bound.value or Fraction(0), bound.open), default=_Bound(None))


def _range_of(low: _Bound, high: _Bound, width: Fraction = Fraction(9)) -> tuple[Fraction, Fraction]:
    if low.value is not None and high.value is not None:
        return low.value, high.value
    if low.value is not None:
        return low.value, low.value + width
    if high.value is not None:
        return high.value - width, high.value
    return Fraction(1), 1 + width


def _inside(value: Fraction, low: _Bound, high: _Bound) -> bool:
    above = low.value is None or value > low.value or (value == low.value and not low.open)
    return above and (high.value is None or value < high.value or (value == high.value and not high.open))


def _kinds(flat: JsonObject) -> list[str]:
    kinds = flat.get("type")
    return [kinds] if isinstance(kinds, str) else [str(kind) for kind in _as_list(kinds)]


def _kind_by_words(flat: JsonObject) -> str:
    groups = {"object": _OBJECT_WORDS, "array": _ARRAY_WORDS, "string": _STRING_WORDS, "number": _NUMBER_WORDS}
    return next((kind for kind, words in groups.items() if any(word in flat for word in words)), "string")


def _item_schemas(flat: JsonObject) -> tuple[list[object], object]:
    """The schemas of the first items, and that of all others."""
    items = flat.get("items", True)
    if is_list(items):
        return items, flat.get("additionalItems", True)
    return _as_list(flat.get("prefixItems")), items


def _merged(one: JsonObject, two: JsonObject) -> JsonObject:
    """A schema that asks for what both ask for. Raises `SchemaError` where nothing can fit both."""
    merged = {**one, **two}
    for word in one.keys() & two.keys():
        merged[word] = _both(word, one[word], two[word])
    if is_list(options := merged.get("enum")):
        merged["enum"] = [option for option in options if _has_kind(option, merged)]
        if not merged["enum"] or ("const" in merged and merged["const"] not in merged["enum"]):
            raise SchemaError(f"no value of the enum {options!r} fits the rest of its schema")
    return merged


def _both(word: str, one: object, two: object) -> object:
    if word in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        return max(one, two) if is_number(one) and is_number(two) else two
    if word in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        return min(one, two) if is_number(one) and is_number(two) else two
    if word == "properties":
        first, second = _as_object(one), _as_object(two)
        shared = {name: {"allOf": [first[name], second[name]]} for name in first.keys() & second.keys()}
        return {**first, **second, **shared}
    if word == "required":
        return list(dict.fromkeys((*_names(one), *_names(two))))
    if word == "enum":
        return [option for option in _as_list(one) if option in _as_list(two)]
    if word == "type":
        return _common_kinds(one, two)
    if word in ("items", "additionalProperties"):
        return two if one is True else one if two is True else False if False in (one, two) else {"allOf": [one, two]}
    if word == "const" and one != two:
        raise SchemaError(f"the constants {one!r} and {two!r} can't both hold")
    return two


def _common_kinds(one: object, two: object) -> list[str]:
    first, second = _kinds({"type": one}), _kinds({"type": two})
    common = [kind for kind in first if kind in second]
    if "integer" not in common and {"integer", "number"} <= {*first, *second}:
        common.append("integer")
    if not common:
        raise SchemaError(f"the types {one!r} and {two!r} can't both hold")
    return common


def _has_kind(value: object, flat: JsonObject) -> bool:
    kinds = _kinds(flat)
    names: dict[type, tuple[str, ...]] = {
        bool: ("boolean",), int: ("integer", "number"), float: ("number",), str: ("string",), list: ("array",),
        dict: ("object",), type(None): ("null",),
    }  # fmt: skip
    return not kinds or any(name in kinds for name in names.get(type(value), ()))


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _names(value: object) -> list[str]:
    return list(Counter(str(name) for name in _as_list(value)))


def _as_list(value: object) -> list[object]:
    return value if is_list(value) else []


def _as_object(value: object) -> JsonObject:
    return value if is_object(value) else {}


def _whole(value: object, default: int) -> int:
    return int(value) if is_number(value) else default
