"""How the values of a dataset are spread: lengths, numbers, labels, tokens, and texts that are worth a look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, cast

from llms.quantities import quantity
from tasks.markdown import code, plain, table
from tasks.steps import METADATA, failure_in
from tasks.typing import Row

MOST_LABELS = 12
"""Values of a column, beyond which they are no labels but texts or numbers."""
SHOWN_LABELS = 8
LONGEST_LABEL = 40
MOST_NAMES = 40
"""Lines of a table."""
LARGEST = 1e300
"""Of the numbers that are counted: no NaN, nothing infinite."""
BARS = "▁▂▃▄▅▆▇█"
BINS = 12
WIDTH = 20
"""Characters of the longest bar."""
REFUSAL = re.compile(
    r"""^\W*(?:
        (?:i['’]?m\ |i\ am\ |we['’]?re\ )?(?:very\ |really\ |so\ )?(?:sorry|afraid)\b.{0,60}?\b
            (?:can(?:['’]?t|not)|unable|won['’]?t|not\ able)
        | i\ (?:can(?:['’]?t|not)|won['’]?t|must\ decline|am\ unable|am\ not\ able)\b
        | i['’]?m\ (?:unable|not\ able)\b
        | as\ an?\ (?:ai|large\ language|language)\b
        | unfortunately,?\ i\ (?:can(?:['’]?t|not)|am\ unable)
    )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
FIRST_WORDS = 200
"""Characters of a text that are looked at for a refusal."""


@dataclass
class Values:
    """What was seen of one thing, such as a column."""

    numbers: list[float] = field(default_factory=list[float])
    """Its numbers, or its lengths."""
    labels: Counter[str] = field(default_factory=Counter[str])
    """Short values; more than `MOST_LABELS` kinds of them are none."""
    texts: set[bytes] = field(default_factory=set[bytes])
    """Digests of its texts."""
    repeated: int = 0
    """Texts that were there before."""
    refusals: int = 0

    def add_text(self, text: str) -> None:
        self.numbers.append(len(text))
        seen = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self.repeated += seen in self.texts
        self.texts.add(seen)
        self.refusals += REFUSAL.match(text[:FIRST_WORDS]) is not None
        self.add_label(text if len(text) <= LONGEST_LABEL else "")

    def add_number(self, number: float) -> None:
        if not abs(number) <= LARGEST:
            return
        self.numbers.append(number)
        self.add_label(f"{number:g}")

    def add_label(self, label: str) -> None:
        if label in self.labels or len(self.labels) <= MOST_LABELS:
            self.labels[label] += 1

    @property
    def is_labels(self) -> bool:
        """Whether its values are few, and come again."""
        count = self.labels.total()
        return 0 < len(self.labels) <= MOST_LABELS and "" not in self.labels and count >= 2 * len(self.labels)


@dataclass
class Distributions:
    """What was seen of some rows."""

    rows: int = 0
    failed: int = 0
    values: dict[tuple[str, str], Values] = field(default_factory=dict[tuple[str, str], Values])
    """By a column or a step, and what of it: empty for its values themselves."""

    def add(self, row: Row) -> None:
        self.rows += 1
        self.failed += failure_in(row) is not None
        for name, value in row.items():
            if name == METADATA:
                self._add_notes(cast("Row", value or {}))
            else:
                self._add(name, value)

    def _of(self, name: str, what: str = "") -> Values:
        return self.values.setdefault((name, what), Values())

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, bool):
            self._of(name).add_label(str(value).lower())
        elif isinstance(value, int | float):
            self._of(name).add_number(value)
        elif isinstance(value, str):
            self._of(name, "characters").add_text(value)
        elif isinstance(value, list):
            self._add_list(name, cast("list[Any]", value))

    def _add_list(self, name: str, items: list[Any]) -> None:
        if is_chat(items):
            self._of(name, "messages").numbers.append(len(items))
            self._of(name, "characters").numbers.append(sum(len(text_of(each)) for each in items))
        elif is_vector(items):
            self._of(name, "numbers").numbers.append(len(items))
        elif all(isinstance(each, str | int | float | None) for each in items):
            for each in items:
                self._add(name, each)
        else:
            self._of(name, "items").numbers.append(len(items))

    def _add_notes(self, notes: Row) -> None:
        for key, value in notes.items():
            kind, step = next(((kind, key.removeprefix(kind)) for kind in NOTED if key.startswith(kind)), ("", ""))
            for each in cast("list[Any]", value if isinstance(value, list) else [value]):
                if kind == "statistics_" and isinstance(each, Mapping):
                    self._add_tokens(step, cast("Mapping[str, Any]", each))
                elif kind == "finish_reason_" and isinstance(each, str):
                    self._of(step, "finish reason").add_label(each[:LONGEST_LABEL])

    def _add_tokens(self, step: str, counts: Mapping[str, Any]) -> None:
        for name in ("input_tokens", "output_tokens", "reasoning_tokens"):
            if isinstance(counts.get(name), int):
                self._of(step, name.replace("_", " ")).numbers.append(counts[name])


NOTED = ("statistics_", "finish_reason_")


def is_chat(value: Any) -> bool:
    """Whether it's a list of messages."""
    messages = cast("list[Any]", value)
    return isinstance(value, list) and bool(messages) and all(map(_is_message, messages))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value and "content" in value


def is_vector(items: Sequence[Any]) -> bool:
    """Whether it's many numbers."""
    return len(items) > MOST_LABELS and all(isinstance(each, int | float) for each in items)


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message; of its parts, where it has some."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [cast("Row", each) for each in cast("list[Any]", content) if isinstance(each, Mapping)]
        return " ".join(str(each.get("text") or f"({each.get('type')})") for each in parts)
    return content if isinstance(content, str) else ""


def distributions_markdown(seen: Distributions) -> str:
    """The distributions as compact tables. Empty where there's nothing to tell."""
    parts = [_numbers_table(seen), _labels_table(seen), _odd_table(seen)]
    return "\n\n".join(part for part in parts if part)


def _numbers_table(seen: Distributions) -> str:
    rows = [
        [_named(*name), f"{len(each.numbers):,}", *_quantiles(each.numbers), bars(each.numbers)]
        for name, each in seen.values.items()
        if each.numbers and not each.is_labels
    ]
    return table(["Of", "Values", "Least", "Median", "95 %", "Most", "From least to most"], rows[:MOST_NAMES])


def _labels_table(seen: Distributions) -> str:
    rows = [line for name, each in seen.values.items() if each.is_labels for line in _label_lines(name, each.labels)]
    return table(["Of", "Value", "How often", ""], rows[: MOST_NAMES * 2])


def _label_lines(name: tuple[str, str], labels: Counter[str]) -> Iterator[list[str]]:
    total, most = labels.total(), labels.most_common(1)[0][1]
    shown = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    what = _named(name[0], "" if name[1] == "characters" else name[1])
    for place, (label, count) in enumerate(shown[:SHOWN_LABELS]):
        bar = "█" * max(1, round(WIDTH * count / most))
        yield ["" if place else what, code(label), f"{count:,} ({count / total:.0%})", bar]
    if rest := shown[SHOWN_LABELS:]:
        yield ["", quantity(len(rest), "other"), f"{sum(count for _, count in rest):,}", ""]


def _odd_table(seen: Distributions) -> str:
    rows = [
        [_named(name, ""), f"{each.repeated:,}", f"{each.refusals:,}", f"{len(each.numbers):,}"]
        for (name, what), each in seen.values.items()
        if what == "characters" and not each.is_labels and (each.repeated or each.refusals)
    ]
    header = ["Texts of", "The same as an earlier one", "Begin as refusals do", "Texts"]
    return table(header, rows[:MOST_NAMES])


def _named(name: str, what: str) -> str:
    return f"{code(name)}, {plain(what)}" if what else code(name)


def _quantiles(numbers: Sequence[float]) -> list[str]:
    ordered = sorted(numbers)
    last = len(ordered) - 1
    return [f"{ordered[round(share * last)]:,.6g}" for share in (0, 0.5, 0.95, 1)]


def bars(numbers: Sequence[float]) -> str:
    """A histogram of a few characters.

    Example:
        >>> bars([1, 2, 2, 3, 3, 3, 3, 12])
        '▃▅█▁▁▁▁▁▁▁▁▃'
    """
    least, most = min(numbers), max(numbers)
    if least == most:
        return ""
    counts = Counter(min(BINS - 1, int(BINS * (each - least) / (most - least))) for each in numbers)
    highest = max(counts.values())
    return "".join(BARS[-(-counts[place] * (len(BARS) - 1) // highest)] for place in range(BINS))
