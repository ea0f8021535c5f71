"""Reading what models send: thoughts, fences, prefaces and odd spacing are taken off; what isn't certain is an error.

Of use to every Task's `format_output`. Nothing here runs what a model wrote.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from llms.parameters import short
from llms.typing import JSONSchema
from tasks.base import UnreadableAnswerError
from tasks.typing import Row

NUMBER = re.compile(
    r"^[\s*_`(\[\"'<]*(?P<number>\d+)(?:\.0+)?[*_`]*"
    r"(?:\s*\(?\s*(?:/|out\s+of|of)\s*[*_`]*(?P<scale>\d+)(?:\.0+)?)?\s*(?:points?|stars?)?[\s*_`)\]\"'>]*"
    r"(?:$|[(\[:,.;|–—★-](?P<rest>.*)$)",
    re.IGNORECASE,
)
ANOTHER_NUMBER = re.compile(
    r"^\W*+(?:or\b|to\b|and\b)?\W*+(?:maybe|perhaps|possibly)?\W*+\d"
    r"|\b(?:chang|revis|correct|rais|lower|updat|adjust)ed\s+to\W*\d",
    re.IGNORECASE,
)
SCALE = re.compile(r"\bscale\b\D*\d+(?:\s*(?:-|–|to)\s*(?P<highest>\d+))?", re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """The text after a reasoning model's thoughts. Raises UnreadableAnswerError where there's nothing else."""
    said = text.rpartition("</think>")[2]
    if said.lstrip().startswith("<think>"):
        raise UnreadableAnswerError(f"the answer ends in its thoughts (cut off?): {short(text)}")
    return said


def without_fences(text: str) -> str:
    """The text without the lines that open or close a code block, or close a tag."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"^\s*(?:```\s*\w*|</\w+>)\s*$", line)).strip()


def tagged(text: str, tag: str) -> str | None:
    """What stands between `<tag>` and `</tag>`; None where neither is there.

    Raises:
        UnreadableAnswerError: one of the two is missing, or there are several such parts.
    """
    opened, closed = (len(re.findall(each, text, re.IGNORECASE)) for each in (f"<{tag}>", f"</{tag}>"))
    if not opened and not closed:
        return None
    if max(opened, closed) > 1:
        raise UnreadableAnswerError(f"expected <{tag}> once, found it {max(opened, closed)} times in {short(text)}")
    part = re.search(rf"<{tag}>(.*)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    if part is None:
        raise UnreadableAnswerError(f"expected <{tag}> and </{tag}>, one is missing (cut off?) in {short(text)}")
    return part[1].strip()


def whole_number(value: Any, lowest: int, highest: int, name: str) -> int:
    """The number that a value says, in digits and alone. Raises UnreadableAnswerError."""
    first_line = str(value).strip().partition("\n")[0]
    found = None if isinstance(value, bool) else NUMBER.match(first_line)
    if found is None or (found["rest"] and ANOTHER_NUMBER.search(found["rest"])):
        raise UnreadableAnswerError(f"{name}: expected a whole number from {lowest} to {highest}, got {short(value)}")
    scale = SCALE.search(found["rest"] or "")
    said_highest = found["scale"] or (scale and scale["highest"])
    if said_highest is not None and int(said_highest) != highest:
        raise UnreadableAnswerError(f"{name}: expected it out of {highest}, got {short(value)}")
    if not lowest <= int(found["number"]) <= highest:
        raise UnreadableAnswerError(f"{name}: expected {lowest} to {highest}, got {short(value)}")
    return int(found["number"])


def closed_object(properties: dict[str, JSONSchema], **more: Any) -> JSONSchema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def texts_schema(keys: Sequence[str], title: str) -> JSONSchema:
    """The JSON schema of an object with a text under each key; `texts_in` reads what fits it."""
    return closed_object({key: {"type": "string"} for key in keys}, title=title)


def json_in(output: str) -> tuple[str, Any]:
    """The JSON in an answer, as it was written and as a value, without what stands around it.

    Raises:
        UnreadableAnswerError: there's none, or more than one, or it isn't certain what one holds.
    """
    said = without_thoughts(output)
    for text in (output.strip(), said.strip()):
        with suppress(json.JSONDecodeError):
            return text, json_of(text)
    found = list(json_parts(said))
    if len(found) != 1:
        problem = "none" if not found else f"{len(found)} of them"
        raise UnreadableAnswerError(f"expected one JSON value, found {problem} in {short(output)}")
    return found[0]


def json_parts(text: str) -> Iterator[tuple[str, Any]]:
    """The JSON objects and lists in a text, as they were written and as values."""
    position = 0
    while position < len(text):
        start = min((place for bracket in "{[" if (place := text.find(bracket, position)) >= 0), default=len(text))
        try:
            value, position = DECODER.raw_decode(text, start)
        except json.JSONDecodeError:
            return
        yield text[start:position], whole(value, text[start:position])


def json_of(text: str) -> Any:
    """The value of a text that is JSON and nothing else.

    Raises:
        json.JSONDecodeError: it isn't.
        UnreadableAnswerError: a key is in an object twice, or it has what Python reads and JSON hasn't.
    """
    return whole(DECODER.decode(text), text)


def whole(value: Any, written: str) -> Any:
    """The value. Raises UnreadableAnswerError where it has half of a character, which no file can keep."""
    if "\\u" in written:
        try:
            json.dumps(value, ensure_ascii=False, skipkeys=True, default=str).encode()
        except UnicodeEncodeError:
            raise UnreadableAnswerError(
                f"expected whole characters, got half of a character in {short(written)}"
            ) from None
    return value


def each_once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The object of such keys and values. Raises UnreadableAnswerError where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise UnreadableAnswerError(
            f"expected each key once, {next(key for key in keys if keys.count(key) > 1)!r} is there twice"
        )
    return found


def no_json(constant: str) -> None:
    """Raises UnreadableAnswerError: Python reads NaN and Infinity, JSON doesn't."""
    raise UnreadableAnswerError(f"expected JSON, which has no {constant}")


DECODER = json.JSONDecoder(parse_constant=no_json, object_pairs_hook=each_once)
LEFT_IN = re.compile(r"(?<!\\)(?:\\\\)*\\/")
"""JSON's escape for a slash. Python doesn't know it, and leaves the backslash in the text."""


def object_in(output: str, *keys: str) -> Row:
    """The JSON object in an answer, which must have `keys` and may have more.

    Beside JSON it takes a Python dict (`{'score': 4}`), which models that were trained on code send.

    Raises:
        UnreadableAnswerError: there's no object or more than one, or it lacks a key.
    """
    try:
        value: Any = json_in(output)[1]
    except UnreadableAnswerError:
        value = _literal_in(without_thoughts(output))
        if value is None:
            raise
    several: list[Any] = cast("list[Any]", value) if isinstance(value, list) else []
    if len(several) == 1:
        value = several[0]
    if not isinstance(value, dict):
        raise UnreadableAnswerError(f"expected a JSON object, got {short(output)}")
    found = cast("Row", value)
    missing = [key for key in keys if key not in found]
    if missing:
        raise UnreadableAnswerError(f"expected an object with {list(keys)!r}, it lacks {missing!r}: {short(output)}")
    return found


def texts_in(output: str, *keys: str) -> dict[str, str]:
    """The texts under `keys` in the JSON object of an answer, however the keys are spelt: `User Query` is `user_query`.

    A number or a truth value is taken as it's written in JSON.

    Raises:
        UnreadableAnswerError: there's no object or more than one, or a key is missing, doubled or without a text.
    """
    found = object_in(output)
    texts: dict[str, str] = {}
    for key in keys:
        values = [value for name, value in found.items() if _letters(name) == _letters(key)]
        if len(values) != 1:
            problem = f"{len(values)} times" if values else "not there"
            raise UnreadableAnswerError(
                f"expected an object with {list(keys)!r}, {key!r} is {problem}: {short(output)}"
            )
        text = values[0] if not isinstance(values[0], int | float) else json.dumps(values[0])
        if not isinstance(text, str) or not text.strip():
            raise UnreadableAnswerError(f"{key}: expected a text, got {short(values[0])}")
        texts[key] = text.strip()
    return texts


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name)).lower()


def check_opposed(texts: dict[str, str], positive: str, negative: str) -> None:
    """Raises UnreadableAnswerError where two texts that should differ are the same."""
    if texts[positive].split() == texts[negative].split():
        raise UnreadableAnswerError(f"{positive} and {negative} are the same text: {short(texts[positive])}")


def list_in(output: str) -> list[Any]:
    """The JSON list in an answer: alone, or as the only list in an object.

    Raises:
        UnreadableAnswerError: there's none, or more than one.
    """
    try:
        value: Any = json_in(output)[1]
    except UnreadableAnswerError:
        value = _literal_in(without_thoughts(output))
        if value is None:
            raise
    if isinstance(value, dict):
        lists: list[Any] = [each for each in cast("Row", value).values() if isinstance(each, list)]
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list):
        raise UnreadableAnswerError(f"expected a JSON list, got {short(output)}")
    return cast("list[Any]", value)


def _literal_in(text: str) -> Any:
    """The dict or list that a text is, fences and words around it aside, in Python's writing; None for any other."""
    starts = [place for bracket in "{[" if (place := text.find(bracket)) >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    if not starts or end < 0:
        return None
    written = text[min(starts) : end + 1]
    if LEFT_IN.search(written):
        return None
    try:
        tree = ast.parse(written, mode="eval")
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            each_once([(key.value, None) for key in node.keys if isinstance(key, ast.Constant)])
    return whole(value, written)
