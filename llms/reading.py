"""What a provider sent, read as far as it goes: an odd field, or half a character, takes nothing else with it."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import orjson

LARGEST = 2**53
"""Of a count: larger ones are none, and not every JSON writer takes them."""
MOST_WORDS = 2_000
"""Characters of a provider's words that are kept."""


def json_in(content: bytes) -> Any:
    """The JSON value of `content`.

    What JSON doesn't know, and models and servers write, is read all the same: half of a surrogate pair, and bytes that
    are no UTF-8, become U+FFFD; NaN and the infinities None; control characters stay in their texts.

    Raises:
        ValueError: it's no JSON.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        return _cleaned(json.loads(content.decode("utf-8-sig", "replace"), strict=False, parse_constant=lambda _: None))
    except RecursionError:
        raise ValueError("its objects or lists lie too deep in each other") from None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, dict):
        return {_cleaned(name): _cleaned(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_cleaned(each) for each in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole_text(text: str) -> str:
    """The text with its surrogate pairs as characters, and U+FFFD for each half of one."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def object_in(value: object) -> dict[str, Any]:
    """A JSON object, also one that came as its text. Empty where there is none."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json_in(value.encode("utf-8", "replace"))
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def list_in(value: object) -> list[object]:
    """A JSON list. Empty where there is none."""
    return cast("list[object]", value) if isinstance(value, list) else []


def text_in(value: object) -> str:
    """A text of at most `MOST_WORDS` characters. Empty where there is none."""
    return value[:MOST_WORDS] if isinstance(value, str) else ""


def number_in(value: object) -> float | None:
    """The number that a header or a field holds, if it holds one that can be a count or a time."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def count_in(value: object) -> int:
    """A count. 0 where there is none."""
    number = number_in(value)
    return int(number) if number is not None and number <= LARGEST else 0


def seconds_of(time: object) -> float:
    """Seconds since 1970, of a number or an ISO 8601 text. 0 where it is neither."""
    if isinstance(time, str):
        with contextlib.suppress(ValueError, OverflowError):
            read = datetime.fromisoformat(time)
            return max(0.0, (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp())
    number = number_in(time)
    return number if number is not None and number <= LARGEST else 0.0


def seconds_to_wait(header: object) -> float | None:
    """The seconds that a `Retry-After` asks for: it holds them, or the time they end at."""
    number = number_in(header)
    if number is not None or not isinstance(header, str):
        return number
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        end = parsedate_to_datetime(header)
        return max(0.0, ((end if end.tzinfo else end.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
    return None


def words_in(*places: object) -> tuple[str, str]:
    """The message and the code of an error, from the first of `places` that has words.

    Servers write `{"message": ...}`, that in `error` once or twice, a list of problems in `detail`, or bare words.
    """
    found_code = ""
    for place in places:
        message, code = _words_of(place)
        found_code = found_code or code
        if message:
            return message[:MOST_WORDS], found_code
    return "", found_code


def _words_of(place: object, depth: int = 0) -> tuple[str, str]:
    problem = object_in(place)
    if not problem:
        return (place if isinstance(place, str) else ""), ""
    code = problem.get("code") or problem.get("type")
    own = str(code) if isinstance(code, str | int) and not isinstance(code, bool) else ""
    inner = next((problem[name] for name in ("error", "errors", "detail") if problem.get(name)), None)
    if inner is not None and depth < 4:
        listed = list_in(inner)
        message, deeper = _words_of(listed[0] if listed else inner, depth + 1)
        if message or deeper:
            return message or _message_of(problem), deeper or own
    return _message_of(problem), own


def _message_of(problem: dict[str, Any]) -> str:
    return next((problem[name] for name in ("message", "msg", "detail") if isinstance(problem.get(name), str)), "")
