"""What a row holds in a column, checked before it becomes a prompt: never `None`, `nan` or half a character.

Every function raises ValueError with the column, what was expected and what was got, which fails the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Real
from string import Formatter
from typing import Any, cast

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context

from llms.parameters import check_whole, short
from llms.quantities import quantity
from llms.typing import ChatItem, ChatType, FormattedInput
from tasks.typing import Row

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CALLS = ("tool_calls", "function_call")
"""What an assistant's message may have in place of content."""


def text_in(row: Row, column: str) -> str:
    """The text in a column that goes into a prompt: whole characters, and not white space alone."""
    return whole_text(row.get(column), column)


def optional_text_in(row: Row, column: str) -> str | None:
    """The text in a column that may be missing. None, nothing and an empty text are the same: there's none."""
    value: Any = row.get(column)
    return None if value is None or value == "" else whole_text(value, column)


def any_text_in(row: Row, column: str) -> str:
    """The text in a column, also an empty one, for what doesn't go into a prompt."""
    return whole_text(row.get(column), column, blank=True)


def whole_text(value: Any, name: str, *, blank: bool = False) -> str:
    """`value`, which must be a text. `name` is what messages call it.

    Args:
        blank: whether it may be empty, or white space alone.
    """
    if not isinstance(value, str):
        hint = "; a row per item is made by `ExpandColumns`" if isinstance(value, list) else ""
        raise ValueError(f"{name}: expected a text, got {short(cast('object', value))}{hint}")
    if not (blank or value.strip()):
        raise ValueError(f"{name}: expected a text that isn't empty, got {short(value)}")
    check_whole(value, name)
    return value


def texts_in(row: Row, column: str, count: int | None = None) -> list[str]:
    """The list of texts in a column that go into a prompt: `count` of them, or one and more."""
    value: Any = row.get(column)
    texts = cast("list[Any]", value) if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) for text in texts) or (count is not None and len(texts) != count):
        wanted = "a list of texts" if count is None else f"a list of {quantity(count, 'text')}"
        raise ValueError(f"{column}: expected {wanted}, got {short(row.get(column))}")
    return [whole_text(text, f"{column}, number {place}") for place, text in enumerate(texts, 1)]


def list_in(row: Row, column: str) -> list[Any]:
    """The list in a column."""
    value = row.get(column)
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise ValueError(f"{column}: expected a list, got {short(value)}")


# Chats


def chat_in(row: Row, column: str = "messages") -> ChatType:
    """The chat in a column, with all that its messages have but the empty keys that a table adds to them."""
    messages = list_in(row, column)
    wrong = [each for each in messages if not is_message(each)]
    if wrong:
        raise ValueError(f"{column}: expected a list of {{'role', 'content'}}, got {short(wrong[0])} in it")
    return [cast("ChatItem", _without_padding(message)) for message in messages]


def _without_padding(message: Row) -> Row:
    """A message without the keys that are null, in its parts and calls too, and without an empty list of calls."""
    kept: Row = {}
    for name, value in message.items():
        if name == "content" or name in CALLS:
            value = _without_nulls(value)
        if name == "content" or not (value is None or (name in CALLS and value == [])):
            kept[name] = value
    return kept


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {
            # A null among a call's arguments is what the model said.
            name: each if name == "arguments" else _without_nulls(each)
            for name, each in cast("Row", value).items()
            if each is not None
        }
    return value


def is_message(value: Any) -> bool:
    message = cast("Row", value) if isinstance(value, dict) else {}
    if not isinstance(message.get("role"), str) or not {"content", *CALLS} & set(message):
        return False
    content: Any = message.get("content")
    # A call of a tool has no content.
    return content is None or isinstance(content, str) or is_list_of_dicts(content)


def is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in cast("list[Any]", value))


def prompt_chat_in(row: Row, column: str = "messages") -> ChatType:
    """The chat in a column that is sent: with tool calls, ids and names, and something in every message."""
    chat = chat_in(row, column)
    if not chat:
        raise ValueError(f"{column}: expected a chat with a message or more, got {short(row.get(column))}")
    for number, message in enumerate(chat, 1):
        check_message(message, f"{column}, message {number}")
    return [cast("ChatItem", {"role": message["role"], "content": None, **message}) for message in chat]


def check_message(message: Mapping[str, Any], name: str) -> None:
    """Raises ValueError where a message holds nothing that could be sent."""
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise ValueError(f"{name}: expected a role among {', '.join(ROLES)}, got {short(role)}")
    if not is_list_of_dicts(message.get("tool_calls", [])):
        raise ValueError(f"{name}: expected a list of dicts in 'tool_calls', got {short(message['tool_calls'])}")
    has_calls = any(message.get(each) for each in CALLS)
    # What a tool or an assistant with calls says may be nothing.
    may_be_blank = has_calls or role in {"tool", "function"}
    if content is None and not has_calls:
        raise ValueError(f"{name}: expected a content, got {short(message)}")
    if isinstance(content, str):
        whole_text(content, name, blank=may_be_blank)
    elif content == [] and not may_be_blank:
        raise ValueError(f"{name}: expected a content that isn't empty, got {short(message)}")
    parts = cast("list[Row]", content) if isinstance(content, list) else []
    for number, part in enumerate(parts, 1):
        if part.get("type") == "text":
            whole_text(part.get("text"), f"{name}, part {number}", blank=may_be_blank)
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise ValueError(f"{name}: a tool's message needs the id of its call in 'tool_call_id', got {short(message)}")
    check_whole({key: value for key, value in message.items() if key != "content" or not isinstance(value, str)}, name)


# Prompts


def check_prompt(prompt: FormattedInput) -> None:
    """Raises ValueError where a prompt, of a Task of a user's own perhaps, holds what can't be sent as it is meant."""
    chat: Any = cast("Any", prompt[0]) if isinstance(prompt, tuple) else prompt
    if isinstance(chat, str):
        whole_text(chat, "the prompt")
        return
    messages = cast("list[Any]", chat) if isinstance(chat, list) else []
    if not messages or not all(isinstance(each, dict) for each in messages):
        raise ValueError(
            f"the prompt: expected a text or a chat with a message or more, got {short(cast('object', chat))}"
        )
    for number, message in enumerate(cast("list[Row]", messages), 1):
        content = message.get("content")
        if not isinstance(content, str | list) and not any(message.get(each) for each in CALLS):
            raise ValueError(f"the prompt, message {number}: expected a text as its content, got {short(message)}")
        check_whole(message, f"the prompt, message {number}")


# Templates


class Blank(str):
    """A text of a cell that is empty or white space alone: a template may look at it, and not print it."""

    __slots__ = ()


def cells_for(row: Row, columns: list[str]) -> Row:
    """The cells that a template may use, checked when they are printed."""
    cells: Row = {}
    for column in columns:
        value: Any = row.get(column)
        check_whole(value, column, numbers=False)
        cells[column] = Blank(value) if isinstance(value, str) and not value.strip() else value
    return cells


@pass_context
def printed(context: Context, value: Any) -> Any:
    """`value` as a template may print it: texts, numbers and dates. Raises ValueError for anything else."""
    # A name that isn't there says so itself.
    if is_printable(value) or isinstance(value, Undefined):
        return value
    names = [name for name, each in context.parent.items() if each is value and name not in context.environment.globals]
    raise ValueError(f"{names[0] if names else 'the template'}: {said_of(value)}")


class PromptFormatter(Formatter):
    """`str.format`, with the values checked as those of a template are. Those of `optional` columns may be empty."""

    def __init__(self, optional: Iterable[str] = ()) -> None:
        super().__init__()
        self.optional = frozenset(optional)

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, name = super().get_field(field_name, args, kwargs)
        if name in self.optional and (value is None or value == ""):
            return "", name
        if not is_printable(value) or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{field_name}: {said_of(value)}")
        check_whole(value, field_name)
        return value, name


def is_printable(value: Any) -> bool:
    if isinstance(value, Real | Decimal):
        return math.isfinite(value)
    return isinstance(value, str | date | time | timedelta) and not isinstance(value, Blank)


def said_of(value: Any) -> str:
    """Why a value isn't printed."""
    if isinstance(value, str):
        return f"expected a text that isn't empty, got {short(str(value))}"
    hint = ""
    if isinstance(value, list | tuple | dict):
        hint = "; a template puts a list into words by a loop or by `| join(', ')`"
    return f"expected a text, got {short(cast('object', value))}{hint}"
