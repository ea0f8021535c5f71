"""Rows as a person reads them: chats as chats, answers to choose from side by side, reasoning folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from llms.errors import cut
from llms.quantities import quantity
from tasks.markdown import code, plain, plain_lines, table
from tasks.steps import METADATA, failure_in
from tasks.targets.distributions import is_chat, is_vector, text_of
from tasks.typing import Row

LONGEST_TEXT = 1000
"""Characters of a text."""
LONGEST_FACT = 80
"""Characters of a text that stands in a line with others."""
MOST_ITEMS = 4
"""Texts of a list, and messages of a chat at its end."""
MOST_COLUMNS = 20
LONGEST_SAMPLE = 100_000
"""Characters of all rows together: Prefect's UI is slow with much more."""
PAIRS = (("chosen", "rejected"),)
REASONING = "reasoning"


def sample_markdown(rows: Sequence[tuple[int, Row]]) -> str:
    """Rows, each with its place in the dataset, as Markdown. Words of models do nothing in it."""
    parts: list[str] = []
    size = 0
    for place, row in rows:
        shown = f"### Row {place:,}\n\n{row_markdown(row)}"
        size += len(shown)
        if size > LONGEST_SAMPLE:
            parts.append("The other rows of the sample are too long to be shown here.")
            break
        parts.append(shown)
    return "\n\n".join(parts)


def row_markdown(row: Row) -> str:
    """A row, why it failed first, and short values in one line."""
    columns = {name: value for name, value in row.items() if name != METADATA and value is not None}
    shown = dict(list(columns.items())[:MOST_COLUMNS])
    sides = [pair for pair in PAIRS if all(name in shown for name in pair)]
    paired = {name for pair in sides for name in pair}
    facts = {name: fact for name, value in shown.items() if (fact := _fact(value)) and name not in paired}
    parts = [_failure(row), " · ".join(f"{code(name)} {fact}" for name, fact in facts.items())]
    parts += [_long(name, value) for name, value in shown.items() if name not in facts and name not in paired]
    parts += [_side_by_side(row, pair) for pair in sides]
    if len(columns) > len(shown):
        parts.append(quantity(len(columns) - len(shown), "more column"))
    return "\n\n".join(part for part in parts if part)


def _failure(row: Row) -> str:
    failure = failure_in(row)
    if failure is None:
        return ""
    why = f"{plain(str(failure.get('type')))}: {plain(str(failure.get('message')))}"
    return f"**Failed** in {code(failure['step'])}: {why}"


def _fact(value: Any) -> str:
    """A value that is short enough for a line with others; empty for one that isn't."""
    if isinstance(value, bool | int | float):
        return code(str(value))
    if isinstance(value, str):
        return plain(value) if len(value) <= LONGEST_FACT and "\n" not in value.strip() else ""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if not isinstance(value, list):
        return ""
    items = cast("list[Any]", value)
    if is_vector(items):
        return quantity(len(items), "number")
    plainly = all(isinstance(each, bool | int | float | None) for each in items)
    return code(", ".join("–" if each is None else str(each) for each in items)) or "empty" if plainly else ""


def _long(name: str, value: Any) -> str:
    if isinstance(value, str):
        text = _lines(value)
        if name == REASONING or name.startswith(f"{REASONING}_"):
            return f"<details>\n<summary>{REASONING}</summary>\n\n{text}\n\n</details>"
        return f"**{code(name)}**\n\n{text}"
    if is_chat(value):
        return f"**{code(name)}**\n\n{_chat(cast('list[Row]', value))}"
    if isinstance(value, list) and all(isinstance(each, str | None) for each in cast("list[Any]", value)):
        texts = cast("list[str | None]", value)
        items = [f"{number}. {plain(text or '–', LONGEST_TEXT // 2)}" for number, text in enumerate(texts, 1)]
        return f"**{code(name)}**\n\n" + "\n".join([*items[:MOST_ITEMS], *_more(items, "text")])
    return f"**{code(name)}** {code(cut(_json(value), LONGEST_TEXT))}"


def _side_by_side(row: Row, pair: tuple[str, ...]) -> str:
    """Columns beside each other. Of chats what they end with: they begin alike."""
    ends = [text_of(row[name][-1]) if is_chat(row[name]) else _text(row[name]) for name in pair]
    return table([code(name) for name in pair], [[plain(end, LONGEST_TEXT) for end in ends]])


def _chat(messages: Sequence[Row]) -> str:
    left_out = [f"- … ({quantity(len(messages) - MOST_ITEMS, 'message')} before)"] if len(messages) > MOST_ITEMS else []
    return "\n".join([*left_out, *map(_message, messages[-MOST_ITEMS:])])


def _message(message: Row) -> str:
    text = _lines(text_of(message) or _json(dict(message)))
    return f"- **{plain(str(message['role']))}:** " + text.replace("\n", "\n  ")


def _lines(text: str) -> str:
    return plain_lines(cut(text, LONGEST_TEXT), 2 * LONGEST_TEXT) or "–"


def _more(items: Sequence[object], what: str) -> list[str]:
    return [f"\n… ({quantity(len(items) - MOST_ITEMS, f'more {what}')})"] if len(items) > MOST_ITEMS else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    known = dict(cast("Mapping[Any, Any]", value)) if isinstance(value, Mapping) else value
    return orjson.dumps(known, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
