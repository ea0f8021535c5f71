"""The prompts: Jinja2 templates, one file each, beside this one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.nodes import For, If, Name, Node, Output, TemplateData
from jinja2.sandbox import SandboxedEnvironment

from tasks.cells import printed

_environment = SandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=printed
)

HAS_VARIABLES = (
    r"\{[{%]|^a variable is \{\{ name \}\}, in a prefect\.yaml \{\{ \(name\) \}\}:"
    r" there prefect deploy takes the first for a value of its own$"
)
"""What a template must match as a parameter: Prefect's server refuses a deployment whose text has no variable left.

It says so by this pattern, whose second half, which no template is, is the way out.
"""


@cache
def template_source(name: str) -> str:
    """The text of the template `name`, which may hold a folder: `ultrafeedback/honesty`."""
    return (Path(__file__).parent / f"{name}.jinja2").read_text(encoding="utf-8")


@cache
def template_from(source: str) -> Template:
    """A template from its text. Raises jinja2.TemplateSyntaxError."""
    template = _environment.from_string(source)
    # They are copied for every rendering: of the chain of dicts that they are at first, that takes longest of all.
    template.globals = dict(template.globals)
    return template


OTHER_SYNTAX = re.compile(r"(?<![\\\w{}$])(?P<whole>\$?\{(?P<name>[a-z_][a-z0-9_]{2,})\}|%\((?P<named>\w+)\)s)(?!\})")
"""`{query}`, `${query}` and `%(query)s`, as other libraries write variables; not `\\frac{query}`, nor JSON."""


def checked(source: str) -> str:
    """`source`, which must be the text of a template. Raises ValueError."""
    try:
        template_from(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"not a Jinja2 template (line {error.lineno}: {error.message})") from None
    _check_loops(source)
    _check_conditions(source)
    texts = [text for _, kind, text in _environment.lex(source) if kind == "data"]
    other = next(filter(None, map(OTHER_SYNTAX.search, texts)), None)
    if other is not None:
        raise ValueError(
            f"{other['whole']!r} would be sent as it stands: templates are Jinja2, and a variable is"
            f" {{{{ {other['name'] or other['named']} }}}} there. If it's meant, write {{{{ {other['whole']!r} }}}}"
        )
    return source


LEFT_OF_A_HOLE = re.compile(r"""(:(\s+[.,;!?])?|\w\W*((?<=[\s(\[])["'`]|[“„‘«(\[]))\s*$""")
"""How a text ends where a variable is gone: in a colon, or one and a full stop, or in an opening quote or bracket."""


def _check_loops(source: str) -> None:
    """Raises ValueError for a loop that prints nothing, or doesn't read what it goes through."""
    for loop in _environment.parse(source).find_all(For):
        targets = _names_in(loop.target)
        name = next(iter(targets), "name")
        if all(map(_is_blank, loop.body)):
            raise ValueError(f"a loop of the template {source!r} prints nothing. {taken_by_deploy(name)}")
        read = {each for node in loop.body for each in _names_in(node)}
        if not any(each in read or each.startswith("_") for each in targets):
            raise ValueError(
                f"a loop of the template {source!r} doesn't read {name!r}, and says the same each time."
                f" {taken_by_deploy(name)}. If it's meant, call it _"
            )


def _check_conditions(source: str) -> None:
    """Raises ValueError where a text seems to wait for what is looked at, which is never read."""
    tree = _environment.parse(source)
    conditions = list(tree.find_all(If))
    everywhere = Counter(_names_in(tree))
    looked_at = Counter(name for each in conditions for name in _names_in(each.test))
    for each in conditions:
        unread = [name for name in _names_in(each.test) if everywhere[name] == looked_at[name]]
        text = _text_of(each.body).rstrip()
        # Where both ways end so, what they wait for comes after them.
        if unread and LEFT_OF_A_HOLE.search(text) and not LEFT_OF_A_HOLE.search(_text_of(each.else_)):
            raise ValueError(
                f"the template {source!r} says {text!r} where there is {unread[0]!r}, and reads that nowhere."
                f" {taken_by_deploy(unread[0])}. If it's meant, write {{{{ {text[-1]!r} }}}} for its last {text[-1]}"
            )


def _names_in(node: Node) -> list[str]:
    """The names in a part of a template, each as often as it's there."""
    return [each.name for each in ([node] if isinstance(node, Name) else node.find_all(Name))]


def _text_of(nodes: Sequence[Node]) -> str:
    """The text that a block of a template is; empty where it holds anything else."""
    parts = [part for node in nodes for part in (node.nodes if isinstance(node, Output) else [node])]
    texts = [part.data for part in parts if isinstance(part, TemplateData)]
    return "".join(texts) if len(texts) == len(parts) else ""


def _is_blank(node: Node) -> bool:
    return isinstance(node, Output) and all(
        isinstance(each, TemplateData) and not each.data.strip() for each in node.nodes
    )


def render(name: str, /, **values: Any) -> str:
    """The template `name` with `values`. Raises jinja2.UndefinedError where one is missing."""
    return template_from(template_source(name)).render(**values)


def variables_of(source: str) -> frozenset[str]:
    """The names that a template's text reads."""
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_environment.parse(source)))


def taken_by_deploy(name: str) -> str:
    """Why a template from a deployment may lack a variable, and the way out: for the message of an error."""
    return (
        f"Does it come from a prefect.yaml? There `prefect deploy` takes {{{{ {name} }}}} for a value of its own, and"
        f" leaves nothing of it: write {{{{ ({name}) }}}}"
    )
