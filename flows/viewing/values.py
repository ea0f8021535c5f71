"""Values as pages show them: texts, chats, answers beside each other, images, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson

from flows.viewing.batches import METADATA, Row, holds, is_noted, is_number, json_of
from flows.viewing.queries import notes_of

Kind = Literal["nothing", "fact", "text", "long", "chat", "beside", "list", "fields", "image", "bytes", "vector"]

LONGEST_FACT = 80
"""Characters of a text that stands in a line with others."""
LONGEST_TEXT = 6000
"""Characters of a text that is shown unfolded."""
MOST_BESIDE = 4
"""Texts of a list that stand beside each other."""
MOST_ITEMS = 20
"""Numbers of a list; more are a vector. Items that are shown unfolded."""
DEEPEST = 6
"""Levels of lists and dicts within a value; what is deeper is shown as JSON."""
LARGEST_IMAGE = 4_000_000
"""Bytes of an image that is shown."""
PAIRS = (("chosen", "rejected"),)
IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
"""How images begin that are shown, and their types. Nothing among them can hold a program."""
NOTE_WORDS = {"finish_reason": "ended by", "cut_off": "cut off", "unfinished": "not whole"}
"""What a step may note about how an answer ended, in words."""
STATE_WORDS = {"cut_off_": "cut off", "unfinished_": "not whole"}
KNOWN_NOTES = frozenset({*NOTE_WORDS, "raw_input", "raw_output", "statistics", "logprobs", "error", "earlier_error"})


@dataclass(frozen=True)
class Shown:
    """A value, and how it's shown."""

    kind: Kind
    text: str = ""
    items: Sequence[Shown] = ()
    name: str = ""
    """Of a column or a field; the role of a message."""
    path: str = ""
    """Where in the row it is, for an image."""
    size: int = 0
    """In characters, bytes, or items."""


def shown(value: Any, name: str = "", path: str = "", depth: int = 0) -> Shown:
    """How a value is shown."""
    if value is None:
        return Shown("nothing", name=name)
    if isinstance(value, str):
        fact = len(value) <= LONGEST_FACT and "\n" not in value.strip()
        kind: Kind = "fact" if fact else "text" if len(value) <= LONGEST_TEXT else "long"
        return Shown(kind, value, name=name, size=len(value))
    if isinstance(value, bool | int | float):
        return Shown("fact", str(value), name=name)
    if isinstance(value, bytes):
        return _of_bytes(value, name, path)
    if depth >= DEEPEST:
        return Shown("text", json_text(value), name=name)
    if isinstance(value, list):
        return _of_list(cast("list[Any]", value), name, path, depth)
    if isinstance(value, Mapping):
        return _of_fields(cast("Mapping[Any, Any]", value), name, path, depth)
    return Shown("fact", str(value), name=name)


def _of_bytes(value: bytes, name: str, path: str) -> Shown:
    kind: Kind = "image" if image_type(value) and len(value) <= LARGEST_IMAGE else "bytes"
    return Shown(kind, name=name, path=path, size=len(value))


def _of_list(items: list[Any], name: str, path: str, depth: int) -> Shown:
    if items and all(map(_is_message, items)):
        return Shown("chat", name=name, items=_messages(items, path, depth), size=len(items))
    if items and all(isinstance(each, bool | int | float | None) for each in items):
        text = ", ".join("–" if each is None else str(each) for each in items)
        return Shown("fact" if len(items) <= MOST_ITEMS else "vector", text, name=name, size=len(items))
    within = [shown(each, str(place), f"{path}.{place}", depth + 1) for place, each in enumerate(items)]
    beside = len(items) <= MOST_BESIDE and all(each.kind in {"fact", "text", "nothing", "chat"} for each in within)
    return Shown("beside" if beside and len(items) > 1 else "list", name=name, items=within, size=len(items))


def _of_fields(fields: Mapping[Any, Any], name: str, path: str, depth: int) -> Shown:
    content = fields.get("bytes")
    if isinstance(content, bytes) and image_type(content):
        return _of_bytes(content, name, f"{path}.bytes")
    within = [shown(each, str(key), f"{path}.{key}", depth + 1) for key, each in fields.items()]
    return Shown("fields", name=name, items=within, size=len(within))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def _messages(items: list[Any], path: str, depth: int) -> list[Shown]:
    return [_message(each, f"{path}.{place}", depth) for place, each in enumerate(items)]


def _message(message: Mapping[str, Any], path: str, depth: int) -> Shown:
    """A message: what it says, and what it has besides, such as calls of tools."""
    content = message["content"]
    rest = {name: each for name, each in message.items() if name not in {"role", "content"} and each is not None}
    parts = _placed(content, f"{path}.content")
    said = [_part(each, place, depth) for place, each in parts if each not in (None, "")]
    said += [shown(each, name, f"{path}.{name}", depth + 1) for name, each in rest.items()]
    return Shown("list", name=str(message["role"]), items=said)


def _part(part: Any, path: str, depth: int) -> Shown:
    if isinstance(part, Mapping):
        fields = cast("Mapping[str, Any]", part)
        if isinstance(fields.get("text"), str):
            return Shown("text", fields["text"])
        # The parts of a table's column have the fields of all of them.
        return shown({name: each for name, each in fields.items() if each is not None}, "", path, depth + 1)
    return Shown("text", part) if isinstance(part, str) else shown(part, "", path, depth + 1)


def image_type(content: bytes) -> str:
    """The type of an image that may be shown; empty for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in IMAGES.items() if content.startswith(start)), "")


def value_at(row: Row, path: str) -> Any:
    """The value in a row at a path of names and numbers with dots between them; None where there's none."""
    value: Any = row
    names = path.split(".")
    while names:
        if isinstance(value, list):
            items, place = cast("list[Any]", value), names.pop(0)
            value = items[int(place)] if place.isdecimal() and int(place) < len(items) else None
        elif isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            # A name may have dots itself.
            count = next((n for n in range(len(names), 0, -1) if ".".join(names[:n]) in fields), 0)
            value = fields[".".join(names[:count])] if count else None
            names = names[count:] if count else []
        else:
            return None
    return value


def json_text(value: Any) -> str:
    """A value as JSON for people, whatever it holds."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2
    return orjson.dumps(value, default=_described, option=options).decode()


def _described(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else str(value)


# Rows


@dataclass(frozen=True)
class StepNotes:
    """What a step noted about a row."""

    step: str
    prompts: Sequence[Shown] = ()
    """What was sent."""
    answers: Sequence[Shown] = ()
    """What came back, as it came."""
    facts: Sequence[tuple[str, str]] = ()
    error: str = ""
    """Why it failed; empty where it didn't."""
    earlier_error: str = ""
    others: Sequence[Shown] = ()
    usage: Sequence[Mapping[str, int]] = ()
    """The tokens of each answer."""

    def tokens(self, kind: str) -> int:
        """Of all answers, `input_tokens` or `output_tokens`; those that weren't noted as none."""
        return sum(each.get(kind, 0) for each in self.usage)


@dataclass(frozen=True)
class RowShown:
    """A row, and how it's shown."""

    place: int
    facts: Sequence[Shown]
    """Short values, for one line."""
    values: Sequence[Shown]
    pairs: Sequence[Sequence[Shown]]
    """Values to choose from, which stand beside each other."""
    steps: Sequence[StepNotes]
    states: Sequence[str] = field(default_factory=list[str])
    """What is to be said of it first: that it failed, or was cut off."""

    @property
    def failures(self) -> list[StepNotes]:
        return [each for each in self.steps if each.error]


def row_shown(place: int, row: Row) -> RowShown:
    """How a row is shown."""
    every = {name: shown(value, name, name) for name, value in row.items() if name != METADATA}
    pairs = [[every[name] for name in pair] for pair in PAIRS if all(row.get(name) for name in pair)]
    paired = {each.name for pair in pairs for each in pair}
    single = [each for each in every.values() if each.name not in paired]
    notes = notes_of(row)
    steps = [step_notes(name, notes) for name in steps_in(notes)]
    return RowShown(
        place,
        [each for each in single if each.kind == "fact"],
        [each for each in single if each.kind != "fact"],
        pairs,
        steps,
        [word for note, word in STATE_WORDS.items() if is_noted(notes, note)],
    )


def steps_in(notes: Mapping[str, Any]) -> list[str]:
    starts = ("error_", "statistics_", "raw_input_", "raw_output_")
    return list(dict.fromkeys(key.removeprefix(start) for start in starts for key in notes if key.startswith(start)))


def step_notes(step: str, notes: Mapping[str, Any]) -> StepNotes:
    """What a step noted about a row, from the row's metadata."""
    own = {name: value for name in KNOWN_NOTES if (value := notes.get(f"{name}_{step}")) is not None}
    paths = {name: f"{METADATA}.{name}_{step}" for name in own}
    answers = _placed(own["raw_output"], paths["raw_output"]) if "raw_output" in own else []
    return StepNotes(
        step,
        prompts=_prompts(own["raw_input"], paths["raw_input"]) if "raw_input" in own else [],
        answers=[shown(each, path=path) for path, each in answers],
        facts=[
            (NOTE_WORDS[name], ", ".join(str(each) for each in _listed(own[name]) if each is not None))
            for name in NOTE_WORDS
            if holds(own.get(name))
        ],
        error=failure_text(own.get("error")),
        earlier_error=failure_text(own.get("earlier_error")),
        others=[shown(own["logprobs"], "logprobs")] if "logprobs" in own else [],
        usage=[
            {name: number for name, number in cast("Mapping[str, Any]", each).items() if is_number(number)}
            for each in _listed(own.get("statistics"))
            if isinstance(each, Mapping)
        ],
    )


def failure_text(note: Any) -> str:
    """Why a step failed at a row, as it noted that: by type and message, or as somebody else's step has it."""
    if not holds(note):
        return ""
    if isinstance(note, Mapping) and {"type", "message"} <= cast("Mapping[str, Any]", note).keys():
        return f"{note['type']}: {note['message']}"
    return note if isinstance(note, str) else json_text(note)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _placed(value: Any, path: str) -> list[tuple[str, Any]]:
    """The items of a list, or what is one itself, each with where it is."""
    if not isinstance(value, list):
        return [(path, value)]
    return [(f"{path}.{place}", each) for place, each in enumerate(cast("list[Any]", value))]


def _prompts(value: Any, path: str) -> list[Shown]:
    """A prompt, or one for each answer."""
    value = json_of(value)
    one = not isinstance(value, list) or all(map(_is_message, cast("list[Any]", value)))
    if one and value:
        return [shown(value, path=path)]
    return [shown(json_of(each), path=place) for place, each in _placed(value, path)]
