"""The prompts: Jinja2 templates, one file each, beside this one."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.nodes import For, Name, Node, Output, TemplateData
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
    for loop in _environment.parse(source).find_all(For):
        if all(map(_is_blank, loop.body)):
            name = loop.target.name if isinstance(loop.target, Name) else "name"
            raise ValueError(f"a loop of the template {source!r} prints nothing. {taken_by_deploy(name)}")
    texts = [text for _, kind, text in _environment.lex(source) if kind == "data"]
    other = next(filter(None, map(OTHER_SYNTAX.search, texts)), None)
    if other is not None:
        raise ValueError(
            f"{other['whole']!r} would be sent as it stands: templates are Jinja2, and a variable is"
            f" {{{{ {other['name'] or other['named']} }}}} there. If it's meant, write {{{{ {other['whole']!r} }}}}"
        )
    return source


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
