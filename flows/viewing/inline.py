"""The first rows of a dataset in a notebook, by the templates of `python -m flows view`."""

# datasets and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, cast

from flows.viewing.batches import METADATA, NOTES, is_true
from flows.viewing.rendering import TEMPLATES, pieces_of, templates
from flows.viewing.values import Shown, image_type, row_shown, value_at
from llms.markup import framed
from llms.parameters import short
from llms.quantities import quantity
from tasks.sources.tables import rows_of_dataset
from tasks.targets.sample import sample_markdown
from tasks.typing import Row

FIRST_ROWS = 5
LONGEST_TEXT = 1000
"""Characters of a text."""
MOST_LINES = 15
"""Of a text."""
LONGEST_IN_A_LINE = 40
MOST_ITEMS = 8
"""Items of a list, messages of a chat, fields of a dict."""
MOST_COLUMNS = 30
LARGEST_IMAGE = 500_000
"""Bytes of an image that is put into the notebook, which keeps it."""
COUNTED_ROWS = 20_000
"""The most rows whose failures are counted."""
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, repr=False)
class ShownRows:
    """The first rows of one or several datasets: as HTML in a notebook, as Markdown elsewhere. `show` makes it."""

    datasets: Mapping[str, Any]
    """By name; a single one has none."""
    rows: int
    """How many of each."""

    def _repr_html_(self) -> str:
        return rows_html(self.datasets, self.rows)

    def __repr__(self) -> str:
        parts: list[str] = []
        for name, dataset in self.datasets.items():
            title = ", ".join(filter(None, [name, _counted(dataset), f"columns {', '.join(_columns(dataset))}"]))
            parts += [title, sample_markdown(list(enumerate(_first(dataset, self.rows))))]
        return "\n\n".join(parts)


def show(dataset: Any, rows: int = FIRST_ROWS) -> ShownRows:
    """The first rows of a dataset, for the end of a notebook's cell: chats as chats, long texts cut, failures said.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset`, a dict of these by name, or rows as a list of dicts.
        rows: how many, of each.

    Raises:
        TypeError: it's something else.
        ValueError: `rows` is less than 0.

    Example:
        >>> show([{"instruction": "How high is K2?", "generation": "8,611 m."}])
        1 row, columns instruction, generation
        <BLANKLINE>
        ### Row 0
        <BLANKLINE>
        `instruction` How high is K2? · `generation` 8,611 m.
    """
    if rows < 0:
        raise ValueError(f"rows: expected how many rows to show, 0 or more, got {rows!r}")
    several = cast("dict[str, Any]", dataset) if isinstance(dataset, dict) else {"": dataset}
    for each in several.values():
        is_list = isinstance(each, list) and all(isinstance(row, dict) for row in cast("list[Any]", each))
        if not is_list and not hasattr(each, "features"):
            raise TypeError(
                "expected a datasets.Dataset, a dict of them, or rows as a list of dicts, got"
                f" {type(each).__name__}: {short(each)}"
            )
    return ShownRows(several, rows)


def rows_html(datasets: Mapping[str, Any], rows: int = FIRST_ROWS) -> str:
    """The first rows of datasets, each under its name."""
    style = (TEMPLATES / "notebook.css").read_text(encoding="utf-8")
    return framed(f"<style>{style}</style>", *(_html(name, dataset, rows) for name, dataset in datasets.items()))


def _html(name: str, dataset: Any, count: int) -> str:
    rows = _first(dataset, count)
    page = templates().get_template("notebook.jinja2")
    return page.render(
        name=name,
        counted=_counted(dataset),
        columns=_columns(dataset),
        rows=[(row_shown(place, _narrow(row)), row) for place, row in enumerate(rows)],
        more=max(0, len(_columns(dataset)) - MOST_COLUMNS),
        shortened=shortened,
        in_a_line=LONGEST_IN_A_LINE,
        pieces_of=partial(pieces_of, words=""),
        image_at=image_data,
    )


def _first(dataset: Any, count: int) -> list[Row]:
    if isinstance(dataset, list):
        return cast("list[Row]", dataset)[:count]
    return list(islice(rows_of_dataset(dataset.take(count), 0), count)) if count else []


def _columns(dataset: Any) -> list[str]:
    if isinstance(dataset, list):
        return list(dict.fromkeys(name for row in cast("list[Row]", dataset) for name in row))
    return list(dataset.features or ())


def _narrow(row: Row) -> Row:
    names = [name for name in row if name != METADATA][:MOST_COLUMNS]
    return {name: row[name] for name in row if name in {*names, METADATA}}


def _counted(dataset: Any) -> str:
    """`80 rows, 3 of them failed`; nothing of a stream, whose rows nobody has counted."""
    if not hasattr(dataset, "__len__"):
        return ""
    rows, failed = len(dataset), _failed_among_first(dataset)
    words = quantity(rows, "row")
    of = "of them" if rows <= COUNTED_ROWS else f"of the first {COUNTED_ROWS:,}"
    return f"{words}, {failed:,} {of} failed" if failed else words


def _failed_among_first(dataset: Any) -> int:
    if isinstance(dataset, list):
        notes = [cast("Row", row.get(METADATA) or {}) for row in cast("list[Row]", dataset)[:COUNTED_ROWS]]
        return sum(any(key.startswith(NOTES["failed"]) and each for key, each in note.items()) for note in notes)
    if METADATA not in dataset.column_names:
        return 0
    failed = 0
    for table in dataset.take(COUNTED_ROWS).select_columns([METADATA]).with_format("arrow").iter(ROWS_AT_ONCE):
        column = table.column(METADATA).combine_chunks()
        fields = [each.name for each in column.type] if hasattr(column.type, "num_fields") else []
        marks = [is_true(column.field(each)) for each in fields if each.startswith(NOTES["failed"])]
        failed += int(sum(marks, start=marks[0] & False).astype(bool).sum()) if marks else 0
    return failed


# Values, cut


def shortened(value: Shown) -> Shown:
    """A value of which no more is shown than a cell has room for."""
    if value.kind in {"text", "long"}:
        kept = "".join(value.text[:LONGEST_TEXT].splitlines(keepends=True)[:MOST_LINES])
        left_out = len(value.text) - len(kept)
        text = f"{kept.rstrip()}… ({quantity(left_out, 'more character')})" if left_out else value.text
        return replace(value, kind="text", text=text)
    if value.kind == "vector":
        return replace(value, kind="fact", text=quantity(value.size, "number"))
    if value.kind == "image" and value.size > LARGEST_IMAGE:
        return replace(value, kind="bytes")
    items = [shortened(each) for each in value.items[:MOST_ITEMS]]
    left_out = len(value.items) - len(items)
    return replace(value, items=[*items, _rest(value, left_out)] if left_out > 0 else items)


def _rest(value: Shown, left_out: int) -> Shown:
    said = Shown("fact", f"{left_out:,} more", name="…")
    return Shown("list", name="…", items=[said]) if value.kind == "chat" else said


def image_data(row: Row, path: str) -> str:
    """An image of a row as an address that holds it: a notebook loads nothing."""
    content = value_at(row, path)
    if not isinstance(content, bytes):
        return ""
    return f"data:{image_type(content)};base64,{base64.b64encode(content).decode()}"
