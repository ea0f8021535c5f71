"""Words of others in Markdown: those of models, providers and datasets are shown as they are, and do nothing.

A page that an operator opens must fetch no image and lead to no address that somebody else wrote into an answer or an
error. Renderers differ: many make links of bare addresses too, escaped or not, but none does inside of code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from llms.errors import cut
from llms.secrets import masked

LONGEST = 600
"""Characters of a text in a line or a cell."""
LONGEST_CODE = 2000
LOADED = re.compile(r"<(?=/?(?:a|audio|embed|iframe|img|link|object|script|style|svg|video)\b)", re.I)
"""What begins an element that a page would load or run something for."""
MOST_TICKS = 8
"""Backticks in a row: with more than 80, some renderers know no code any more."""
# What can't be seen, or turns the direction of what can.
UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
LIVE = re.compile(
    r"""
    `(?P<code>[^`]+)`
    | (?P<address>
        (?: [A-Za-z][A-Za-z0-9+.-]*: )? // [^\s<>()\[\]"'`|\\]*   # an address, with or without its scheme
        | (?: www\. | mailto: | xmpp: ) [^\s<>()\[\]"'`|\\]*
        | [\w.+-]+ @ [\w-]+ (?: \.[\w-]+ )*                       # a mail address, or a name to be called by
        | @ [\w-]+
        | (?: \w[\w-]* \. )+ [A-Za-z]{2,} (?! [\w] ) (?: [:/?\#] [^\s<>()\[\]"'`|\\]* )?   # a host's name
    )
    """,
    re.VERBOSE,
)
SPECIAL = re.compile(r"([\\`*\[\]~$]|!(?=\[)|(?<![^\W_])_|_(?![^\W_]))")
"""An underscore inside of a word means nothing."""
ADDRESS_CHARACTERS = ":/?#@!$&*+,;=%~-._"
FIRST = re.compile(r"^(\d*)([-+=#.)])")


def plain(words: str, longest: int = LONGEST) -> str:
    """Any text as Markdown that shows it as it is, in one line. Addresses and `code` are shown as code.

    Example:
        >>> print(plain("<img src=x> ![x](https://example.org/x.png) and *more*"))
        &lt;img src=x&gt; \\!\\[x\\](`https://example.org/x.png`) and \\*more\\*
    """
    text = cut(one_line(masked(words)), longest)
    parts: list[str] = []
    start = 0
    for found in LIVE.finditer(text):
        parts += [_escaped(text[start : found.start()]), _ticked(found["code"] or found["address"])]
        start = found.end()
    return FIRST.sub(r"\1\\\2", "".join([*parts, _escaped(text[start:])]))


def plain_lines(words: str, longest: int = LONGEST) -> str:
    """Any text of several lines as Markdown that shows it so; each line as `plain` has it."""
    return "\\\n".join(plain(line, longest) for line in words.splitlines() if line.strip())


def code(words: str, longest: int = LONGEST_CODE) -> str:
    """Any text as a code span."""
    return _ticked(cut(one_line(masked(words)), longest))


def block(words: str, language: str) -> str:
    """Any text as a fenced block."""
    fence = "`" * max(3, longest_run(words) + 1)
    return f"{fence}{language}\n{masked(words).strip()}\n{fence}"


def link(words: str, address: str) -> str:
    """`words` as a link to a page on the web; as they are, where `address` is anything else."""
    if urlsplit(address).scheme not in {"http", "https"}:
        return code(words)
    return f"[{code(words)}]({quote(address, safe=ADDRESS_CHARACTERS)})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already, as what `plain` and `code` give. Empty where there are no rows."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) if rows else ""


def inert(words: str, longest: int = LONGEST) -> str:
    r"""Any text for a place that shows plain text, so that it does nothing either where somebody takes it for Markdown.

    Example:
        >>> print(ascii(inert("<img src=x> ![x](https://example.org/x.png), if 1 < 2")))
        '\u2039img src=x> ![x] (https://example.org/x.png), if 1 < 2'
    """
    text = re.sub(r"<(?=[A-Za-z/!?])", "\u2039", cut(masked(words), longest))
    return re.sub(r"\](?=[(:\[])", "] ", text)


def one_line(words: str) -> str:
    return " ".join(UNSEEN.sub("", words).split())


def longest_run(words: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall(r"`+", words)), default=0)


def _escaped(text: str) -> str:
    shown = SPECIAL.sub(r"\\\1", text).replace("&", "&amp;")
    return shown.replace("<", "&lt;").replace(">", "&gt;")


def _ticked(text: str) -> str:
    # Nothing is live in a code span; but not everything that shows Markdown knows where one ends.
    dull = LOADED.sub("\u2039", text.replace("](", "] ("))
    inner = re.sub(rf"`{{{MOST_TICKS},}}", "`" * MOST_TICKS, dull)
    ticks = "`" * (longest_run(inner) + 1)
    pad = " " if inner.startswith("`") or inner.endswith("`") else ""
    return f"{ticks}{pad}{inner}{pad}{ticks}" if inner.strip() else ""


def _cell(shown: str) -> str:
    return " ".join(shown.split()).replace("|", "\\|")
