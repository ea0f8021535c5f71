"""The dataset card: what a run did, as the README.md of its dataset."""

# yaml has types for a part of what it does.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import yaml

from llms.errors import cut
from llms.prices import money
from llms.quantities import quantity
from tasks.markdown import block, code, link, one_line, plain, table
from tasks.targets.look import Look, look_markdown
from tasks.templates import render

LONGEST_TEXT = 1000
"""Characters of a text in the example row."""
LONGEST_REASON = 300
"""Characters of a failure's message."""
MOST_FAILURES = 20
MOST_ITEMS = 5
"""Items of a list in the example row."""
SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
    100_000_000: "10M<n<100M",
    1_000_000_000: "100M<n<1B",
    10_000_000_000: "1B<n<10B",
    100_000_000_000: "10B<n<100B",
    1_000_000_000_000: "100B<n<1T",
}
"""The Hub's size categories: below how many rows each one ends."""
PAPER = re.compile(r"(?:^|(?<=\))(?:[^();]*;|[,.]?) (?:and )?)(.+?) \((https?://[^\s()]+)\)")
"""A title with its address, at the start of a line or after another one."""


@dataclass(frozen=True)
class StepRecord:
    """What a card tells of a step."""

    name: str
    kind: str
    model: str
    """Empty for a step that asks no model."""
    parameters: dict[str, Any]
    """No secrets: they are printed."""
    version: str
    templates: dict[str, str]
    """The digests of its prompt templates, by name."""
    rows_in: int
    rows_out: int
    failed: int
    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float | None = None
    """What its answers cost, in US dollars; None where that isn't known."""
    citations: list[str] = field(default_factory=list[str])
    """Papers as links or addresses in Markdown, or BibTeX entries."""


@dataclass(frozen=True)
class RunRecord:
    """What a card tells of a run."""

    flow: str
    run_id: str
    run_url: str
    """Empty where there is none."""
    started: str
    seconds: float
    source: dict[str, Any]
    steps: list[StepRecord]
    failures: list[tuple[str, str, str, int]]
    """`(step, error type, message, rows)`, the most frequent first."""
    columns: dict[str, str]
    rows: int
    software: dict[str, str]
    cost: str = ""
    """What all answers in the rows cost, in whichever run they were asked for. Empty where that isn't known."""
    spent: str = ""
    """What this run spent of it."""


def dataset_card(run: RunRecord, first_row: Mapping[str, Any] | None, look: Look | None = None) -> str:
    """The text of the README.md of a run's dataset.

    Args:
        run: what it was.
        first_row: of the dataset, if it has any.
        look: what was seen of the rows.

    Example:
        >>> from tasks.targets.card import RunRecord, dataset_card
        >>> run = RunRecord(
        ...     flow="stories", run_id="7f", run_url="", started="2026-01-01 08:00:00 UTC", seconds=75.0,
        ...     source={"type": "tasks.sources.loaders:LoadDataFromDicts"}, steps=[], failures=[],
        ...     columns={"story": "string"}, rows=1200, software={"datasets": "5.2.0"},
        ... )
        >>> card = dataset_card(run, {"story": "Once."})
        >>> print(card[: card.index("## ")])
        ---
        size_categories:
        - 1K<n<10K
        library_name: stillflow
        tags:
        - synthetic
        - stillflow
        ---
        <BLANKLINE>
        # stories
        <BLANKLINE>
        1,200 rows, made by the Prefect flow `stories` with Stillflow.
        The run `7f` started 2026-01-01 08:00:00 UTC and took 1 min 15 s.
        <BLANKLINE>
        <BLANKLINE>
    """
    header = {
        "size_categories": [size_category(run.rows)],
        "library_name": "stillflow",
        "tags": ["synthetic", "stillflow"],
    }
    addresses, entries = citations_of(run.steps)
    card = render(
        "dataset_card",
        header=yaml.safe_dump(header, sort_keys=False).strip(),
        title=plain(run.flow) or "Synthetic dataset",
        flow=code(run.flow),
        run=link(run.run_id, run.run_url),
        started=run.started,
        duration=duration(run.seconds),
        rows=quantity(run.rows, "row"),
        columns=table(["Column", "Type"], [[code(name), code(kind)] for name, kind in run.columns.items()]),
        steps=steps_table(run.steps),
        cost=run.cost,
        spent=run.spent if run.spent != run.cost else "",
        prompts=prompts_table(run.steps),
        failed=quantity(sum(count for *_, count in run.failures), "row"),
        failures=failures_table(run.failures),
        more_failures=max(0, len(run.failures) - MOST_FAILURES),
        example=block(still_json(shortened(first_row)), "json") if first_row is not None else "",
        look=look_markdown(look) if look is not None else "",
        parameters=block(yaml_of(parameters_of(run)), "yaml"),
        addresses=addresses,
        entries=block("\n\n".join(entries), "bibtex") if entries else "",
        software=", ".join(f"{name} {version}" for name, version in run.software.items()),
    )
    return f"{card.rstrip()}\n"


def size_category(rows: int) -> str:
    return next((name for end, name in SIZES.items() if rows < end), "n>1T")


def duration(seconds: float) -> str:
    """`1 h 02 min`, `2 min 05 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


# Tables


def steps_table(steps: Sequence[StepRecord]) -> str:
    header = ["Step", "Task", "Model", "Version", "Rows in", "Rows out", "Failed", "Requests", "Input tokens"]
    rows = list(map(step_cells, steps))
    if all(step.dollars is None for step in steps):
        return table([*header, "Output tokens"], rows)
    costs = ["–" if step.dollars is None else money(step.dollars) for step in steps]
    return table([*header, "Output tokens", "Cost"], [[*row, cost] for row, cost in zip(rows, costs, strict=True)])


def step_cells(step: StepRecord) -> list[str]:
    counts = (step.rows_in, step.rows_out, step.failed, step.requests, step.input_tokens, step.output_tokens)
    named = [code(step.name), plain(step.kind), code(step.model), plain(step.version)]
    return [*named, *(f"{count:,}" for count in counts)]


def prompts_table(steps: Sequence[StepRecord]) -> str:
    """Which prompt templates were used, in which state."""
    rows = [[code(step.name), code(name), code(digest)] for step in steps for name, digest in step.templates.items()]
    return table(["Step", "Prompt template", "Digest"], rows)


def failures_table(failures: Sequence[tuple[str, str, str, int]]) -> str:
    rows = [
        [code(step), plain(kind), plain(message, LONGEST_REASON), f"{count:,}"]
        for step, kind, message, count in failures[:MOST_FAILURES]
    ]
    return table(["Step", "Error", "Reason", "Rows"], rows)


# Blocks


def parameters_of(run: RunRecord) -> dict[str, Any]:
    return {"source": run.source, **{step.name: step.parameters for step in run.steps if step.parameters}}


class ReadableDumper(yaml.SafeDumper):
    """Writes texts of several lines, such as prompts, line by line."""


def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


ReadableDumper.add_representer(str, write_text)


def yaml_of(value: Any) -> str:
    # Through JSON: YAML would write Python's own types as tags.
    plain = orjson.loads(json_of(value))
    return yaml.dump(plain, Dumper=ReadableDumper, sort_keys=False, allow_unicode=True, width=100)


def json_of(value: Any) -> str:
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=described, option=options).decode()


def still_json(value: Any) -> str:
    """The same JSON, with images and HTML spelled so that they are none: not every reader of a card knows code."""
    text = re.sub(r"<(?=[A-Za-z/!?])", r"\\u003c", json_of(value))
    return text.replace("![", "!\\u005b")


def described(value: Any) -> str:
    """A value that JSON has no form for."""
    return f"<{len(value):,} bytes>" if isinstance(value, bytes | bytearray) else cut(str(value), LONGEST_TEXT)


def shortened(value: Any) -> Any:
    """A row's value with long texts cut and long lists ended early."""
    if isinstance(value, str):
        return cut(value, LONGEST_TEXT)
    if isinstance(value, Mapping):
        return {name: shortened(each) for name, each in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        items = list(cast("Sequence[Any]", value))
        more = [f"… ({len(items) - MOST_ITEMS:,} more)"] if len(items) > MOST_ITEMS else []
        return [*map(shortened, items[:MOST_ITEMS]), *more]
    return value


def citations_in(step: type) -> list[str]:
    """The papers under "Source:" in the docstring of a step's class, as links in Markdown: `title (address)` each.

    A class whose docstring has none cites those of the class that it's derived from.

    Example:
        >>> from tasks import UltraFeedback
        >>> from tasks.targets.card import citations_in
        >>> citations_in(UltraFeedback)
        ['[UltraFeedback: Boosting Language Models with Scaled AI Feedback](https://arxiv.org/abs/2310.01377)']
    """
    for each in step.__mro__:
        paragraph = re.search(r"^Source:\s(.+?)(?:\n\s*\n|\Z)", inspect.cleandoc(each.__doc__ or ""), re.M | re.S)
        if paragraph:
            found = PAPER.findall(one_line(paragraph[1]))
            return [f"[{plain(title)}]({address})" for title, address in found]
    return []


def citations_of(steps: Sequence[StepRecord]) -> tuple[list[str], list[str]]:
    """The links and the BibTeX entries that the steps cite, each once."""
    every = list(dict.fromkeys(each.strip() for step in steps for each in step.citations if each.strip()))
    entries = [each for each in every if each.startswith("@")]
    return [one_line(each) for each in every if each not in entries], entries
