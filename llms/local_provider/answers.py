"""Made-up answers: pure functions of the model, the conversation, the index of the choice and the seed.

Equal requests get equal answers, at any time and in any order. With temperature 0 all choices of
a request are equal; otherwise choice i differs from choice j, but choice i is the same every time.
"""

import base64
import math
import re
import struct
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, shake_128

import orjson

from llms.local_provider.options import AnswerRule

CHARACTERS_PER_TOKEN = 4

_WORD = re.compile(r"[^\W\d_]{4,}")
_STOP_TEXT = (
    "about after again also answer because been before being between both could describe does each explain "
    "following from give given have here into just like list make more most much name only other over please "
    "same should some such tell than that their them then there these they this those very want were what "
    "when where which while will with would write your"
)
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_OPENINGS = (
    "In short, {a} comes first and {b} follows from it.",
    "There are two sides to this: {a} and {b}.",
    "The question turns on {a}, and on what it does to {b}.",
    "Start with {a}; {b} is easier to see from there.",
    "Most people meet {a} long before they think of {b}.",
    "It helps to keep {a} apart from {b}.",
)
_SENTENCES = (
    "A good example of {a} shows how much depends on {b}.",
    "Where {a} is scarce, {b} tends to take its place.",
    "Take {a} slowly, and check {b} as you go.",
    "Few would call {a} simple, yet {b} makes it plain.",
    "What is said of {a} holds for {b} as well.",
    "Without {b}, {a} would be hard to explain.",
    "The link from {a} to {b} is older than it looks.",
    "Seen from the side of {b}, {a} is a detail.",
)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    cut: bool
    """Whether max tokens ended it (`finish_reason` is `length`)."""


def count_tokens(text: str) -> int:
    """Tokens of a text, as this provider counts: characters / 4, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def split_tokens(text: str) -> list[str]:
    return [text[start : start + CHARACTERS_PER_TOKEN] for start in range(0, len(text), CHARACTERS_PER_TOKEN)]


def digest_of(*parts: object) -> bytes:
    """16 bytes that stand for JSON-like values."""
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def choice_number(digest: bytes, index: int) -> int:
    """A number of 64 bits for choice `index` of the request with this digest."""
    return int.from_bytes(blake2b(digest + index.to_bytes(4), digest_size=8).digest())


def topic_words(prompt: str) -> list[str]:
    """The words of a prompt that an answer can take up, in order of appearance; never empty."""
    found = dict.fromkeys(word for word in _WORD.findall(prompt[:4000]) if word.lower() not in _STOP_WORDS)
    return list(found) or ["the matter", "its context"]


def prose(prompt: str, number: int, tokens: int) -> str:
    """A few readable sentences, about `tokens` long, on the words of the prompt; `number` decides which."""
    words = topic_words(prompt)
    sentences: list[str] = []
    length, templates = 0, _OPENINGS
    while length < tokens * CHARACTERS_PER_TOKEN:
        number, pick = _next(number, len(templates))
        number, first = _next(number, len(words))
        number, step = _next(number, max(1, len(words) - 1))
        second = words[(first + 1 + step) % len(words)]
        sentence = templates[pick].format(a=words[first], b=second)
        sentences.append(sentence[0].upper() + sentence[1:])
        length += len(sentence) + 1
        templates = _SENTENCES
    return " ".join(sentences)


def _next(number: int, size: int) -> tuple[int, int]:
    number = (number * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    return number, (number >> 33) % size


def ordered_answer(rules: Sequence[AnswerRule], *, user: str, system: str, model: str, index: int) -> str | None:
    """The answer of the first rule that matches, its template filled in; None when none does."""
    for rule in rules:
        found = re.search(rule.match, system if rule.on == "system" else user)
        if found is not None:
            text = rule.answer if isinstance(rule.answer, str) else rule.answer[index % len(rule.answer)]
            groups = {name: value or "" for name, value in found.groupdict().items()}
            return _fill(text, {**groups, "n": str(index), "model": model, "prompt": user})
    return None


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda field: values.get(field[1], field[0]), text) if "{" in text else text


def finish(text: str, max_tokens: int | None, stop: Sequence[str]) -> Answer:
    """The text up to the first stop sequence and within max tokens."""
    ends = [end for sequence in stop if (end := text.find(sequence)) >= 0]
    if ends:
        text = text[: min(ends)]
    if max_tokens is not None and count_tokens(text) > max_tokens:
        return Answer(text[: max_tokens * CHARACTERS_PER_TOKEN], cut=True)
    return Answer(text, cut=False)


def token_logprob(token: str, rank: int = 0) -> float:
    """A made-up log probability, lower with every rank."""
    return -(zlib.crc32(token.encode("utf-8", "surrogatepass")) % 1000) / 1000 - 1.5 * rank


def alternatives(token: str, count: int) -> list[str]:
    """`count` candidates for a place in an answer, the token that was taken first."""
    return [token, *(f"{token[::-1]}{rank}" for rank in range(1, count))][:count]


def embedding(model: str, text: str, dimensions: int) -> "array[float]":
    """A unit vector of `dimensions` 32-bit floats, decided by model and text."""
    numbers = array("h", shake_128(f"{model}\0{text}".encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    norm = math.hypot(*numbers)
    return array("f", [number / norm for number in numbers] if norm else [1.0] + [0.0] * (dimensions - 1))


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(digest: bytes, side: int = 16) -> bytes:
    """A small valid PNG, side by side pixels of RGB: a symmetric pattern in two colours."""
    colours = digest[0:3], digest[3:6]
    bits = int.from_bytes(shake_128(digest).digest(side * side // 8))
    rows = bytearray()
    for row in range(side):
        rows.append(0)
        for column in range(side):
            rows += colours[bits >> (row * side // 2 + min(column, side - 1 - column)) & 1]
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in chunks)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
