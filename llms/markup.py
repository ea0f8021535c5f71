"""What notebooks show of our objects: HTML without scripts, which loads nothing, and in which every value is text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, cast

from llms.references import plain
from llms.secrets import MASK, is_secret_name, masked

LONGEST_VALUE = 600
"""Characters of a value; what is longer is cut."""
MOST_FIELDS = 12
"""Of a dict that is shown as a table; one of more stands in a line."""

# Notebooks are light or dark whatever the browser prefers: their own ink on greys. They align tables by rules that none
# of ours outweighs.
STYLE = """
.stillflow{max-width:64rem;line-height:1.5;overflow-wrap:break-word;overflow-x:auto}
.stillflow table{border-collapse:collapse;border:0;margin:.2em 0 .4em;font-size:inherit;background:none;width:auto}
.stillflow thead,.stillflow thead tr,.stillflow tbody tr:nth-child(n),.stillflow tbody tr:nth-child(n):hover{
background:none;border:0}
.stillflow td,.stillflow th{text-align:left!important;vertical-align:top;
border:0;border-top:1px solid rgba(128,128,128,.25);padding:.2em 1.2em .2em 0;
font-weight:400;max-width:none;white-space:normal;color:inherit}
.stillflow thead th,.stillflow tbody th,.stillflow .quiet,.stillflow summary{color:inherit;opacity:.72}
.stillflow thead th{border-top:0}
.stillflow thead th,.stillflow tbody th{white-space:nowrap}
.stillflow td table{margin:0}
.stillflow td table tr:first-child>*{border-top:0;padding-top:0}
.stillflow p{margin:.3em 0}
.stillflow .value{white-space:pre-wrap}
.stillflow summary{cursor:pointer}
.stillflow pre{white-space:pre-wrap;font-size:.9em;margin:.3em 0;padding:.4em .7em;background:rgba(128,128,128,.12);
border:0;border-radius:6px;color:inherit}
"""


@dataclass(frozen=True)
class Facts:
    """A thing with a name, and what is to be said of it."""

    kind: str
    """Its class."""
    name: str = ""
    """Its own name, where it has one."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Folded:
    """A long text that is shown when somebody wants it."""

    summary: str
    text: str


def framed(*parts: str) -> str:
    """HTML of ours with its style, as one output of a cell."""
    return f'<div class="stillflow"><style>{STYLE}</style>{"".join(parts)}</div>'


def facts_html(thing: Facts) -> str:
    """A thing as a headline and a table."""
    return headline(thing.name or thing.kind, thing.kind if thing.name else "") + facts_table(thing.facts)


def headline(title: str, beside: str = "") -> str:
    quiet = f' <span class="quiet">{text(beside)}</span>' if beside else ""
    return f"<p><strong>{text(title)}</strong>{quiet}</p>"


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values below each other; nothing where there are none."""
    rows = "".join(f"<tr><th>{text(name)}</th><td>{cell(value)}</td></tr>" for name, value in facts.items())
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of values under a header."""
    head = "".join(f"<th>{text(each)}</th>" for each in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell(each)}</td>' for each in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(value: str) -> str:
    """Words as HTML that shows just them, secrets masked."""
    return escape(masked(value))


def cell(value: Any, depth: int = 0) -> str:
    """A value as HTML: its words in it, and nothing live."""
    if isinstance(value, Facts):
        return text(value.kind) + facts_table(value.facts)
    if isinstance(value, Folded):
        return f"<details><summary>{text(value.summary)}</summary><pre>{text(value.text)}</pre></details>"
    if isinstance(value, list | tuple) and any(isinstance(each, Facts | Folded) for each in cast("list[Any]", value)):
        return "".join(f"<div>{cell(each, depth)}</div>" for each in cast("list[Any]", value))
    if isinstance(value, str):
        return f'<span class="value">{_cut(masked(value))}</span>'
    if isinstance(value, Mapping) and depth == 0 and 0 < len(cast("Mapping[Any, Any]", value)) <= MOST_FIELDS:
        fields = cast("Mapping[Any, Any]", _without_secrets(value))
        rows = "".join(f"<tr><th>{text(str(name))}</th><td>{cell(each, 1)}</td></tr>" for name, each in fields.items())
        return f"<table><tbody>{rows}</tbody></table>"
    return f'<span class="value">{_cut(masked(repr(_without_secrets(value))))}</span>'


def _cut(words: str) -> str:
    """Masked words as HTML, at most so many of them: half a secret wouldn't be known any more."""
    if len(words) <= LONGEST_VALUE:
        return escape(words)
    return f'{escape(words[:LONGEST_VALUE])}… <span class="quiet">({len(words):,} characters)</span>'


def _without_secrets(value: Any) -> Any:
    """JSON values without those whose names say that they are secret."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", plain(dict(cast("Mapping[str, Any]", value))))
        return {
            name: MASK if is_secret_name(str(name)) and isinstance(each, str) else _without_secrets(each)
            for name, each in fields.items()
        }
    return [_without_secrets(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value
