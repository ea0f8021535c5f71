"""The gallery: every LLM, Task and Step on one page, made from their docstrings: `python -m deployments.gallery`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import llms
import tasks
from flows.cli import READY_MADE
from tasks.targets.card import citations_in, one_line, table

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"
COMMAND = "python -m deployments.gallery"

GROUPS = {
    "Embeddings": "Embedding models",
    "ImageGenerationModel": "Image models",
    "LLM": "LLMs",
    "GeneratorTask": "Tasks that start from nothing",
    "ModelStep": "Tasks",
    "Saver": "Targets",
    "GeneratorStep": "Sources",
    "GlobalStep": "Steps that need all rows at once",
    "Step": "Steps",
}
"""A base class: the heading of what is derived from it. The first that fits counts."""

ORDER = ["LLMs", "Embedding models", "Image models", "Tasks", "Tasks that start from nothing"]
"""The groups that come first. The others follow by name."""

INTRODUCTION = f"""\
# Gallery

What `llms` and `tasks` export to ask models with, and to make rows with. This page is made from the docstrings, which
have more: options, examples, what an answer must look like. After a change of them: `make gallery`, or
`{COMMAND}`.

A Task also writes `model_name` and `distilabel_metadata`. Columns in brackets are there under a condition. `@task` and
`@step` make a Task or a Step of a function: see [decorators.py](../tasks/decorators.py).
"""

NAMES = re.compile(r"([\w-]+(?:, [\w-]+)*)(?: \((.+)\))?")


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of the page."""
    groups: dict[str, list[type]] = {}
    for kind in [*exported(llms), *exported(tasks)]:
        groups.setdefault(group_of(kind), []).append(kind)
    headings = sorted(groups, key=lambda each: (ORDER.index(each) if each in ORDER else len(ORDER), each))
    sections = [section(heading, groups[heading]) for heading in headings]
    return "\n".join([INTRODUCTION, *sections, ready_made()])


def exported(package: ModuleType) -> list[type]:
    """The classes among what a package exports that a user can make: LLMs, models, Tasks and Steps."""
    kinds = [getattr(package, name) for name in sorted(package.__all__, key=str.lower)]
    return [kind for kind in kinds if inspect.isclass(kind) and group_of(kind) and not inspect.isabstract(kind)]


def group_of(kind: type) -> str:
    """The heading that a class belongs under, or nothing."""
    bases = {each.__name__ for each in kind.__mro__}
    return next((heading for base, heading in GROUPS.items() if base in bases), "")


def section(heading: str, kinds: Iterable[type]) -> str:
    """A group: first the classes that are alone in their module, then each module that has several."""
    modules: dict[str, list[type]] = {}
    for kind in kinds:
        modules.setdefault(kind.__module__, []).append(kind)
    alone = [kind for together in modules.values() if len(together) == 1 for kind in together]
    several = {module_title(each[0]): each for each in modules.values() if len(each) > 1}
    parts = [f"## {heading}", kinds_table(alone)]
    for title, together in sorted(several.items()):
        parts += [f"### {title}" if alone or len(several) > 1 else "", kinds_table(together)]
    return "\n\n".join(filter(None, parts)) + "\n"


def module_title(kind: type) -> str:
    """The first line of the docstring of a class's module, up to its colon."""
    line = (inspect.getmodule(kind).__doc__ or "").partition("\n")[0]
    return line.partition(":")[0].rstrip(".")


def kinds_table(kinds: list[type]) -> str:
    models = [kind for kind in kinds if issubclass(kind, llms.LLM)]
    if models:
        return table(["Class", "What it is", "`provider`", "Offline batches"], list(map(model_cells, models)))
    return filled_table(["Class", "What it does", "Columns", "Source"], list(map(step_cells, kinds)))


def filled_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in all rows."""
    filled = [place for place in range(len(header)) if any(row[place] for row in rows)]
    return table([header[place] for place in filled], [[row[place] for place in filled] for row in rows])


def model_cells(kind: type[llms.LLM]) -> list[str]:
    batches = "yes" if "use_offline_batch_generation" in kind.model_fields else "no"
    return [link(kind), summary(kind), f"`{kind.model_fields['provider'].default}`", batches]


def step_cells(kind: type) -> list[str]:
    read, written = columns_in(kind, "Input columns:"), columns_in(kind, "Output columns:")
    arrow = f"{read} → {written}".strip() if read or written else ""
    return [link(kind), summary(kind), arrow, "; ".join(citations_in(kind))]


def link(kind: type) -> str:
    return f"[`{kind.__name__}`](../{kind.__module__.replace('.', '/')}.py)"


def summary(kind: type) -> str:
    """The first paragraph of a class's docstring."""
    return one_line(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]).replace("|", "\\|")


def columns_in(kind: type, title: str) -> str:
    """The columns that a section of a class's docstring names, in Markdown."""
    found = re.search(rf"^{title}\n((?:    .+\n?)+)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE)
    entries: list[str] = re.findall(r"^    (\S.*)$", found[1], re.MULTILINE) if found else []
    parts = [(", ".join(columns_of(entry)), " or " if entry.endswith("; or") else ", ") for entry in entries]
    return "".join(f"{columns}{joint}" for columns, joint in parts if columns).removesuffix(", ")


def columns_of(entry: str) -> list[str]:
    """The columns of one entry: its names, or what it says in place of them."""
    head, colon, _ = entry.partition(": ")
    named = NAMES.fullmatch(head) if colon else None
    if named is None:
        return [re.split(r"[;,.]", head)[0]]
    shown = [f"`{name}`" for name in named[1].split(", ") if name != "model_name"]
    return [f"({name})" for name in shown] if named[2] else shown


def ready_made() -> str:
    """The flows that come with the project."""
    rows = [[f"[`{name}`](../{path_of(entry)})", text] for name, (entry, text) in READY_MADE.items()]
    return f"## Flows\n\nRun one with `python -m flows run NAME`.\n\n{table(['Flow', 'What it does'], rows)}\n"


def path_of(entry: str) -> str:
    return f"{entry.partition(':')[0].replace('.', '/')}.py"


if __name__ == "__main__":
    main()
