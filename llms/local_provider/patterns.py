"""A text that matches a regular expression, for the common cases.

Understood: literals, escapes, classes, groups, `|`, quantifiers, and anchors at the ends.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Pick: TypeAlias = Callable[[int], int]
"""Gives a number in [0, size)."""

_CLASSES = {"d": string.digits, "w": string.ascii_lowercase + string.digits, "s": " "}
_NEGATED = {"D": string.digits, "W": string.ascii_letters + string.digits + "_", "S": string.whitespace}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_PRINTABLE = string.ascii_lowercase + string.digits + string.ascii_uppercase + " -_.,:;/+*=!?#%&@()[]{}<>'\"\\|~^$`"


class UnsupportedPattern(ValueError):
    """The pattern uses something else than the common cases (look-around, references, ...)."""


def matching_text(pattern: str, pick: Pick, extra: int = 2) -> str:
    """A text that the pattern matches from start to end; open quantifiers repeat up to `extra` times more
    than they must. Raises `UnsupportedPattern`."""
    reader = _Reader(pattern, pick, extra)
    text = reader.alternatives()
    if reader.at < len(pattern):
        raise UnsupportedPattern(f"unbalanced ')' in {pattern!r}")
    return text


@dataclass
class _Reader:
    """Reads the pattern once from left to right and writes the text on the way."""

    pattern: str
    pick: Pick
    extra: int
    at: int = 0

    def alternatives(self) -> str:
        texts = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            texts.append(self.sequence())
        return texts[self.pick(len(texts))]

    def sequence(self) -> str:
        parts: list[str] = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeated())
        return "".join(parts)

    def repeated(self) -> str:
        start = self.at
        text = self.atom()
        low, high = self.quantifier()
        end, count = self.at, low + self.pick(high - low + 1)
        if count == 0:
            return ""
        texts = [text]
        for _ in range(count - 1):
            self.at = start
            texts.append(self.atom())
        self.at = end
        return "".join(texts)

    def atom(self) -> str:
        character = self.take()
        if character == "(":
            return self.group()
        if character == "[":
            return self.one_of(self.character_class())
        if character == ".":
            return self.one_of(string.ascii_lowercase)
        if character == "\\":
            return self.escape()
        if character in "^$":
            return ""
        if character in "*+?":
            raise UnsupportedPattern(f"nothing to repeat at {self.at - 1} in {self.pattern!r}")
        return character

    def group(self) -> str:
        if self.peek() == "?":
            self.skip_group_head()
        text = self.alternatives()
        if self.take() != ")":
            raise UnsupportedPattern(f"unbalanced '(' in {self.pattern!r}")
        return text

    def skip_group_head(self) -> None:
        head = self.pattern[self.at :]
        if head.startswith("?:"):
            self.at += 2
        elif head.startswith(("?P<", "?<")) and not head.startswith(("?<=", "?<!")):
            self.at = self.pattern.index(">", self.at) + 1
        else:
            raise UnsupportedPattern(f"look-around or reference at {self.at} in {self.pattern!r}")

    def escape(self) -> str:
        character = self.take()
        if character in "bBAZ":
            return ""
        return self.one_of(self.escaped_class(character))

    def escaped_class(self, character: str) -> str:
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _NEGATED:
            return _without(_NEGATED[character])
        if character in "xu":
            width = 2 if character == "x" else 4
            self.at += width
            return chr(int(self.pattern[self.at - width : self.at], 16))
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise UnsupportedPattern(f"escape \\{character} in {self.pattern!r}")
        return character

    def character_class(self) -> str:
        negated = self.peek() == "^"
        self.at += negated
        members = ""
        while self.peek() != "]" or not members:
            first = self.class_member()
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                members += _between(first, self.class_member())
            else:
                members += first
        self.at += 1
        return _without(members) if negated else members

    def class_member(self) -> str:
        character = self.take()
        return self.escaped_class(self.take()) if character == "\\" else character

    def quantifier(self) -> tuple[int, int]:
        low, high = self.counts()
        if self.peek() in ("?", "+") and (low, high) != (1, 1):
            self.at += 1
        return low, high

    def counts(self) -> tuple[int, int]:
        mark = self.peek()
        if mark in ("*", "+", "?") and mark:
            self.at += 1
            low = 1 if mark == "+" else 0
            return low, 1 if mark == "?" else low + self.extra
        end = self.pattern.find("}", self.at)
        if mark != "{" or end < 0 or not self.pattern[self.at + 1 : end].replace(",", "").isdigit():
            return 1, 1
        least, comma, most = self.pattern[self.at + 1 : end].partition(",")
        self.at = end + 1
        low = int(least or 0)
        if not comma:
            return low, low
        return low, min(int(most), low + self.extra) if most else low + self.extra

    def one_of(self, characters: str) -> str:
        if not characters:
            raise UnsupportedPattern(f"a class without printable members in {self.pattern!r}")
        return characters[self.pick(len(characters))]

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        if self.at >= len(self.pattern):
            raise UnsupportedPattern(f"{self.pattern!r} ends too soon")
        self.at += 1
        return self.pattern[self.at - 1]


def _between(first: str, last: str) -> str:
    return "".join(map(chr, range(ord(first), min(ord(last), ord(first) + 255) + 1)))


def _without(members: str) -> str:
    return "".join(character for character in _PRINTABLE if character not in members)
