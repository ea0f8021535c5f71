"""The prompts: Jinja2 templates, one file each, beside this one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

_environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)


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


def checked(source: str) -> str:
    """`source`, which must be the text of a template. Raises ValueError."""
    try:
        template_from(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"not a Jinja2 template (line {error.lineno}: {error.message})") from None
    return source


def render(name: str, /, **values: Any) -> str:
    """The template `name` with `values`. Raises jinja2.UndefinedError where one is missing."""
    return template_from(template_source(name)).render(**values)


def variables_of(source: str) -> frozenset[str]:
    """The names that a template's text reads."""
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_environment.parse(source)))
