"""Batches of rows, and which of their rows are wanted: by numbers, labels, words, and by what steps noted."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Row: TypeAlias = dict[str, Any]
Mask: TypeAlias = NDArray[np.bool_]
State = Literal["failed", "fine", "cut_off", "unfinished", "asked"]

# As in `tasks`, whose import would take longer than all that the first page needs besides.
METADATA = "distilabel_metadata"
"""The column of what steps noted about a row."""
NOTES: dict[State, str] = {
    "failed": "error_",
    "fine": "error_",
    "cut_off": "cut_off_",
    "unfinished": "unfinished_",
    "asked": "statistics_",
}
"""How the keys of metadata begin that tell a state. The rest of a key is the step's name."""
PLAIN = re.compile("[A-Za-z0-9 ]+")
"""What every writer of JSON spells as it is."""
DEEPEST_JSON = 100
"""Levels of lists and objects in JSON: what goes through values, and writes them again, bears no more than some 250."""
DEEPER = f"(nested more than {DEEPEST_JSON} deep, as it stands in the JSON) "
"""How the text begins that stands for what is deeper."""
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
"""What tells in JSON how deep one is: texts, also one that doesn't end, so that nothing in it counts, and brackets."""
LONGEST_INTEGER = 20
"""Characters of a whole number of 64 bits."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, such as a text has that was cut within an emoji. UTF-8 can't say it."""


class Batch(ABC):
    """Some rows of a table, of the columns that are looked through."""

    start: int
    """The place of the first one."""

    columns: Sequence[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self) -> list[Row]:
        """As plain Python values."""

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """Of a column, as plain Python values; None for each row where there's no such column."""

    def numbers(self, column: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The numbers in a column or in its lists, each with the number of its row."""
        found = [
            (float(number), row)
            for row, value in enumerate(self.values(column))
            for number in (cast("list[Any]", value) if isinstance(value, list) else [value])
            if is_number(number)
        ]
        return np.array([each for each, _ in found], np.float64), np.array([row for _, row in found], np.int64)

    def having(self, column: str, label: str) -> Mask:
        """The rows whose value is that one, as `label_of` tells it."""
        return np.array([label_of(value) == label for value in self.values(column)], np.bool_)

    def saying(self, words: str) -> Mask:
        """The rows that have these words in a text of any column but the metadata, in capitals or not."""
        wanted = words.lower()
        found = np.zeros(len(self), np.bool_)
        for column in self._texts():
            found |= np.array([says(value, wanted) for value in self.values(column)], np.bool_)
        return found

    def _texts(self) -> list[str]:
        return [name for name in self.columns if name != METADATA]

    def being(self, state: State, step: str = "") -> Mask:
        """The rows that are in a state, by what a step noted, or any of them."""
        noted = [is_noted(json_of(value), NOTES[state], step) for value in self.values(METADATA)]
        found = np.array(noted, np.bool_)
        return ~found if state == "fine" else found


class RowBatch(Batch):
    """Rows that are Python values already."""

    def __init__(self, start: int, rows: list[Row]) -> None:
        self.start = start
        self.columns = list(dict.fromkeys(chain.from_iterable(rows)))
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[Row]:
        return self._rows

    def values(self, column: str) -> list[Any]:
        return [row.get(column) for row in self._rows]


class ArrowBatch(Batch):
    """Rows as columns of Arrow, which are looked through as such where that can be."""

    def __init__(self, start: int, batch: pa.RecordBatch) -> None:
        self.start = start
        self.columns = batch.schema.names
        self._batch = batch

    def __len__(self) -> int:
        return self._batch.num_rows

    def rows(self) -> list[Row]:
        return decoded(self._batch)

    def values(self, column: str) -> list[Any]:
        array = self._column(column)
        return [None] * len(self) if array is None else python_values(array)

    def numbers(self, column: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        array = self._column(column)
        if array is None or not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
            return super().numbers(column)
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        there = np.flatnonzero(~np.isnan(values))
        return values[there], there

    def having(self, column: str, label: str) -> Mask:
        array = self._column(column)
        if array is None or not is_text(array.type):
            return super().having(column, label)
        return as_mask(pc.call_function("equal", [array, pa.scalar(label, array.type)]))

    def saying(self, words: str) -> Mask:
        found = np.zeros(len(self), np.bool_)
        for column in self._texts():
            array = self._column(column)
            if array is not None:
                found |= array_says(array, words)
        return found

    def being(self, state: State, step: str = "") -> Mask:
        array = self._column(METADATA)
        if array is None or not pa.types.is_struct(array.type):
            return super().being(state, step)
        found = np.zeros(len(self), np.bool_)
        names = [each.name for each in array.type]
        for name, noted in zip(names, array.flatten(), strict=True):
            if name.startswith(NOTES[state]) and step in {"", name.removeprefix(NOTES[state])}:
                found |= is_true(noted)
        return ~found if state == "fine" else found

    def _column(self, name: str) -> Any:
        place = self._batch.schema.get_field_index(name)
        if place < 0:
            return None
        array = self._batch.column(place)
        return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


# Values of Python


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def label_of(value: Any) -> str | None:
    """A value as it's chosen by; None for one that isn't short."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else None


def says(value: Any, wanted: str) -> bool:
    """Whether any text in a value has words, given in small letters."""
    return any(wanted in text.lower() for text in texts_in(value))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(texts_in, cast("Mapping[Any, Any]", value).values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(texts_in, cast("list[Any]", value)))


def is_noted(metadata: Any, note: str, step: str = "") -> bool:
    """Whether a step, or any, noted something in a row's metadata."""
    if not isinstance(metadata, Mapping):
        return False
    notes = cast("Mapping[str, Any]", metadata)
    if step:
        return holds(notes.get(f"{note}{step}"))
    return any(holds(value) for key, value in notes.items() if key.startswith(note))


def holds(value: Any) -> bool:
    """Whether a note says something: of several answers to a row, any of them."""
    if isinstance(value, list):
        return any(map(holds, cast("list[Any]", value)))
    return value is not None and value is not False


def json_value(text: str | bytes) -> Any:
    """What JSON stands for, which can be written again. Raises ValueError.

    Whole numbers of more than 64 bits become floating-point ones, or texts if they are larger than any; halves of
    characters U+FFFD; and what is nested more than `DEEPEST_JSON` deep a text that says so.
    """
    flat = _flattened(text)
    try:
        return orjson.loads(flat)
    except orjson.JSONDecodeError:
        return _writable(json.loads(flat, parse_int=integer_of))


def integer_of(digits: str) -> int | float | str:
    """A whole number: as a floating-point one where it has more than 64 bits, and as it is where none is that large.

    Example:
        >>> [integer_of(digits) for digits in ("-7", "1" + 20 * "0", 400 * "9")] == [-7, 1e20, 400 * "9"]
        True
    """
    if len(digits) <= LONGEST_INTEGER and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    return near if math.isfinite(near := float(digits)) else digits


def _flattened(text: str | bytes) -> str | bytes:
    """JSON with texts in place of what is nested too deep."""
    opened = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if opened <= DEEPEST_JSON:
        return text
    whole = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
    parts: list[str] = []
    depth = start = end = 0
    for token in TOKEN.finditer(whole):
        if token[0] in {"[", "{"}:
            depth += 1
            if depth == DEEPEST_JSON + 1:
                start = token.start()
        elif token[0] in {"]", "}"}:
            if depth == DEEPEST_JSON + 1:
                parts += [whole[end:start], json.dumps(f"{DEEPER}{whole[start : token.end()]}")]
                end = token.end()
            depth -= 1
    if depth > DEEPEST_JSON:
        # It's no JSON, which is found out without going down there.
        return "".join([*parts, whole[end:start]])
    return "".join([*parts, whole[end:]]) if parts else text


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_writable(key): _writable(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_writable(each) for each in cast("list[Any]", value)]
    return value


def json_of(value: Any) -> Any:
    """What a text stands for that is JSON of a list or an object, as tables of CSV have them; else the value."""
    if not (isinstance(value, str) and value[:1] in {"{", "["}):
        return value
    try:
        return json_value(value)
    except ValueError:
        return value


# Arrays of Arrow


def decoded(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch as plain Python values; JSON as what it stands for."""
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    columns = [python_values(batch.column(place)) for place in range(batch.num_columns)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def python_values(array: Any) -> list[Any]:
    values: list[Any] = array.to_pylist(maps_as_pydicts="lossy")
    return [without_json(value, array.type) for value in values] if holds_json(array.type) else values


def without_json(value: Any, kind: Any) -> Any:
    """A value whose texts of JSON, which its type tells, are what they stand for."""
    if value is None or not holds_json(kind):
        return value
    if is_json(kind):
        return json_value(value) if isinstance(value, str) else value
    if pa.types.is_struct(kind):
        return {each.name: without_json(value[each.name], each.type) for each in kind}
    return [without_json(each, kind.value_type) for each in value]


def is_json(kind: Any) -> bool:
    return getattr(kind, "extension_name", "") == "arrow.json"


def is_any_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def holds_json(kind: Any) -> bool:
    """Whether it's JSON, or has it somewhere inside."""
    if pa.types.is_struct(kind):
        return any(holds_json(each.type) for each in kind)
    return holds_json(kind.value_type) if is_any_list(kind) else is_json(kind)


def is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def as_mask(array: Any) -> Mask:
    return pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(np.bool_)


def array_says(array: Any, words: str) -> Mask:
    """The rows of an array that have words in any of their texts, in capitals or not."""
    kind: Any = array.type
    if is_text(kind):
        texts = array.cast(pa.large_string()) if pa.types.is_string_view(kind) else array
        return matching(texts, words)
    if is_json(kind):
        return json_says(array, words)
    found = np.zeros(len(array), np.bool_)
    if pa.types.is_struct(kind):
        for each in array.flatten():
            found |= array_says(each, words)
    elif is_any_list(kind):
        found[rows_of_items(array)[array_says(array.flatten(), words)]] = True
    elif pa.types.is_map(kind) or pa.types.is_dictionary(kind):
        found |= np.array([says(value, words.lower()) for value in python_values(array)], np.bool_)
    return found


def matching(texts: Any, words: str) -> Mask:
    """The texts that have words in them, in capitals or not."""
    options = pc.MatchSubstringOptions(words, ignore_case=True)
    return as_mask(pc.call_function("match_substring", [texts], options))


def json_says(array: Any, words: str) -> Mask:
    """The same of texts that are JSON: keys, and how it spells a text, aren't looked at."""
    # Writers spell é and / in several ways: only those rows are left out that lack what has one spelling.
    found = matching(array.storage, max(PLAIN.findall(words), key=len, default=""))
    wanted = words.lower()
    for place in np.flatnonzero(found):
        found[place] = says(json_value(array.storage[int(place)].as_py()), wanted)
    return found


def rows_of_items(array: Any) -> NDArray[np.int64]:
    """The number of the list that each item of a flattened array of lists is in."""
    lengths = pc.fill_null(pc.call_function("list_value_length", [array]), 0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(array)), lengths)


def is_true(array: Any) -> Mask:
    """The rows of an array in which something is noted, as `holds` tells it of values."""
    if pa.types.is_boolean(array.type):
        return as_mask(array)
    if is_any_list(array.type):
        found = np.zeros(len(array), np.bool_)
        found[rows_of_items(array)[is_true(array.flatten())]] = True
        return found
    return array.is_valid().to_numpy(zero_copy_only=False)
