"""What the site makes of the pages, beyond what mkdocs does: links into the clone, and fields of classes.

A page is read in two places. In a clone its links lead to files, those of the code too; on the site the link of a class
leads to its reference, and any other file of the repository becomes a page.
"""

from __future__ import annotations

import inspect
import posixpath
import re
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import flows
import llms
import tasks
from flows.cli import READY_MADE
from llms.base import NOT_PARAMETERS
from llms.parameters import short, signature_model
from tasks.markdown import table

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
OUTSIDE = "repository/"
"""Where on the site the pages are that are made of files from elsewhere in the repository."""

LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>(?!\w+:|[#<])[^()#\s]+)(?P<heading>#[^()\s]*)?\)")
DIRECTIVE = re.compile(r"^::: ([\w.]+)$((?:\n {4}.*)*)", re.MULTILINE)
COLUMNS = re.compile(r"^((?:Input|Output) columns):\n((?: {4}.*\n?)+)", re.MULTILINE)
LANGUAGES = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".env": "bash"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the repository that pages link, and those that these link."""
    looked_through = {path_of(file.src_uri): file.content_string for file in files.documentation_pages()}
    open_ends = list(looked_through)
    while open_ends:
        page = open_ends.pop()
        for match in LINK.finditer(looked_through[page]):
            linked = file_linked(page, match["target"])
            if (
                linked is None
                or linked.startswith(DOCS)
                or linked in looked_through
                or reference_of(match["text"], linked)
            ):
                continue
            looked_through[linked] = as_page(linked)
            open_ends.append(linked)
            made = File.generated(
                config, uri_of(linked), content=looked_through[linked], inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(made)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are on the site, and beneath each class of the reference its fields."""
    source = path_of(page.file.src_uri)
    markdown = LINK.sub(lambda match: link_on_site(match, source), markdown)
    return DIRECTIVE.sub(lambda match: f"{match[0]}\n\n{fields_of(match[1])}", markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """The sources of the pages beside them, which llms.txt leads to: models read Markdown."""
    for path in (ROOT / "docs").rglob("*.md"):
        shutil.copy(path, Path(config.site_dir, path.relative_to(ROOT / "docs")))


def path_of(uri: str) -> str:
    """Where in the repository a page's source is."""
    if not uri.startswith(OUTSIDE):
        return DOCS + uri
    path = uri.removeprefix(OUTSIDE).replace("readme.md", "README.md")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def uri_of(path: str) -> str:
    """Where a file of the repository is among the sources of the site."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    # By that name it would be the first page of its section, whatever stands before it.
    return OUTSIDE + (path if path.endswith(".md") else f"{path}.md").replace("README.md", "readme.md")


def file_linked(source: str, target: str) -> str | None:
    """The file of the repository that a link leads to, of a folder its README. None where there's nothing to show."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if (ROOT / path).is_dir():
        path = "docs/index.md" if path == "docs" else f"{path}/README.md"
    return path if not path.startswith("..") and (ROOT / path).is_file() else None


def reference_of(text: str, path: str) -> str | None:
    """Where the reference has what a link to code names: a class or a function that is exported, or a flow."""
    name = text.strip("`")
    if not path.endswith(".py") or name == text:
        return None
    exported = (f"{package.__name__}.{name}" for package in (llms, tasks, flows) if name in package.__all__)
    entry, _ = READY_MADE.get(name, ("", ""))
    return next(exported, None) or entry.replace(":", ".") or None


def as_page(path: str) -> str:
    """A file of the repository as Markdown."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{LANGUAGES.get(PurePosixPath(path).suffix, 'text')}\n{text}````\n"


def link_on_site(match: re.Match[str], source: str) -> str:
    text, heading = match["text"], match["heading"] or ""
    path = file_linked(source, match["target"])
    if path is None:
        # A folder, which a clone shows and a site doesn't; or none of ours, which mkdocs complains of.
        return text if (ROOT / posixpath.dirname(source) / match["target"]).is_dir() else match[0]
    reference = reference_of(text, path)
    if reference:
        return f"[{text}][{reference}]"
    return f"[{text}]({posixpath.relpath(uri_of(path), posixpath.dirname(uri_of(source)) or '.')}{heading})"


def fields_of(name: str) -> str:
    """The fields of a class that is exported, and its generation parameters, in Markdown; empty for anything else."""
    package, _, name = name.partition(".")
    kind = getattr(import_module(package), name, None) if "." not in name else None
    if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        return ""
    exported = {*llms.__all__, *tasks.__all__}
    bases = [each for each in kind.__mro__[1:] if issubclass(each, BaseModel) and each.__name__ in exported]
    described = {field for base in bases for field in base.model_fields}
    fields = {field: each for field, each in kind.model_fields.items() if field not in described and not each.exclude}
    parts = [f"**Fields of `{name}`**", fields_table("Field", fields)] if fields else []
    if bases:
        parts.append(f"And the fields of {', '.join(f'[`{base.__name__}`][{home_of(base)}]' for base in bases)}.")
    if issubclass(kind, llms.LLM):
        parameters = signature_model(kind.generating_function(), NOT_PARAMETERS).model_fields
        parts += [fields_table("Generation parameter", parameters)] if parameters else []
    return "\n\n".join(parts)


def home_of(kind: type) -> str:
    return f"{'llms' if kind.__name__ in llms.__all__ else 'tasks'}.{kind.__name__}"


def fields_table(heading: str, fields: Mapping[str, FieldInfo]) -> str:
    return table([heading, "Default", "What it is"], [field_cells(name, field) for name, field in fields.items()])


def field_cells(name: str, field: FieldInfo) -> list[str]:
    default = "required" if field.is_required() else f"`{short(field.get_default(call_default_factory=True), 60)}`"
    return [f"`{name}`", default, field.description or field.title or ""]


class Docstrings(Extension):
    """Docstrings as the reference shows them: columns as lists, an example as one that can be copied."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = COLUMNS.sub(lambda match: columns_listed(match[1], match[2]), text)


def columns_listed(title: str, entries: str) -> str:
    """A docstring's section of columns as a list in Markdown. An entry may go on in lines that are further in."""
    lines = [line.removeprefix("    ") for line in entries.splitlines()]
    items = [f"    {line.strip()}" if line.startswith(" ") else f"- {line}" for line in lines if line.strip()]
    return "\n".join([f"**{title}**", "", *items, "", ""])
