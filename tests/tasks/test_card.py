"""The dataset card, read as the Hub and as people read it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from typing import Any

import pytest
import yaml
from datasets import Dataset

import tasks
from tasks.targets.card import RunRecord, StepRecord, citations_in, dataset_card, duration, size_category
from tasks.targets.card_header import header_and_text
from tasks.targets.look import look_at

STEP = StepRecord(
    name="text_generation",
    kind="TextGeneration",
    model="gpt-4o-mini",
    parameters={"llm": {"provider": "openai", "model": "gpt-4o-mini"}, "template": "Write:\n{{ instruction }}"},
    version="2",
    templates={"ultrafeedback/honesty": "ab12"},
    rows_in=1200,
    rows_out=1199,
    failed=3,
    requests=2400,
    input_tokens=1_234_567,
    output_tokens=7,
    citations=["https://arxiv.org/abs/2310.01377", "@article{cui2023,\n  title={UltraFeedback}\n}"],
)
RUN = RunRecord(
    flow="stories",
    run_id="7f3a",
    run_url="http://127.0.0.1:4200/runs/flow-run/7f3a",
    started="2026-01-01 08:00:00 UTC",
    seconds=3723.0,
    source={"type": "tasks.sources.loaders:LoadDataFromHub", "repo_id": "me/rows"},
    steps=[STEP],
    failures=[("text_generation", "ContentFilterError", "refused", 3)],
    columns={"instruction": "Value('string')", "scores": "List(Value('float64'))"},
    rows=1199,
    software={"prefect": "3.8.8", "datasets": "5.2.0"},
)
ROW: dict[str, Any] = {"instruction": "Write a story.", "scores": [1.5, None]}


def card_of(**changes: Any) -> str:
    return dataset_card(dataclasses.replace(RUN, **changes), ROW)


def blocks_in(card: str, language: str) -> list[str]:
    return [match[1] for match in re.finditer(rf"^`{{3,}}{language}\n(.*?)\n`{{3,}}$", card, re.DOTALL | re.MULTILINE)]


def rows_of_table(card: str, first: str) -> list[list[str]]:
    """The cells of the table whose first header is `first`, the way a Markdown reader splits them."""
    lines = card[card.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_header_is_what_the_hub_reads() -> None:
    header, text = header_and_text(card_of())
    assert header == {
        "size_categories": ["1K<n<10K"],
        "library_name": "stillflow",
        "tags": ["synthetic", "stillflow"],
    }
    assert text.startswith("\n# stories\n")


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**12 - 1, "100B<n<1T"), (10**12, "n>1T")],
)
def test_the_size_category_is_the_hubs_word_for_the_rows(rows: int, category: str) -> None:
    assert size_category(rows) == category


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (65, "1 min 05 s"), (86_400, "24 h 00 min")]
)
def test_a_duration_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_run_is_told_in_a_sentence_with_its_address() -> None:
    card = card_of()
    assert "1,199 rows, made by the Prefect flow `stories` with Stillflow." in card
    assert (
        "[`7f3a`](http://127.0.0.1:4200/runs/flow-run/7f3a) started 2026-01-01 08:00:00 UTC and took 1 h 02 min" in card
    )
    assert "The run `7f3a` started" in card_of(run_url="")
    assert "a run outside of any flow" in card_of(flow="")


def test_the_steps_are_a_table_with_their_counts() -> None:
    header, _, row = rows_of_table(card_of(), "Step")
    told = dict(zip(header, row, strict=True))
    assert told == {
        "Step": "`text_generation`",
        "Task": "TextGeneration",
        "Model": "`gpt-4o-mini`",
        "Version": "2",
        "Rows in": "1,200",
        "Rows out": "1,199",
        "Failed": "3",
        "Requests": "2,400",
        "Input tokens": "1,234,567",
        "Output tokens": "7",
    }
    assert "| `text_generation` | `ultrafeedback/honesty` | `ab12` |" in card_of()


def test_costs_are_told_where_they_are_known() -> None:
    known = dataclasses.replace(STEP, dollars=14.2)
    card = card_of(steps=[known, STEP], cost="at least $14.20", spent="$0.30")
    header, _, *rows = rows_of_table(card, "Step")
    assert [(header[-1], row[-1]) for row in rows] == [("Cost", "$14.20"), ("Cost", "–")]
    assert "cost at least $14.20 at the list prices of their providers" in card
    assert "This run spent $0.30; the other answers were there from earlier runs." in card
    assert "This run spent" not in card_of(cost="$14.20", spent="$14.20")
    assert "cost" not in card_of().lower()


def test_the_parameters_are_yaml_that_can_be_read_back() -> None:
    card = card_of()
    (text,) = blocks_in(card, "yaml")
    assert yaml.safe_load(text) == {"source": RUN.source, "text_generation": STEP.parameters}
    assert "template: |-\n    Write:\n    {{ instruction }}" in text


def test_the_example_row_is_json_with_long_values_cut() -> None:
    row = {
        "text": "x" * 5000,
        "many": list(range(100)),
        "image": {"bytes": b"\x89PNG" * 100, "path": None},
        "when": datetime.date(2026, 1, 2),
        "score": math.nan,
    }
    (text,) = blocks_in(dataset_card(RUN, row), "json")
    shown = json.loads(text)
    assert shown["text"] == f"{'x' * 1000} … (4,000 more characters)"
    assert shown["many"] == [0, 1, 2, 3, 4, "… (95 more)"]
    assert shown["image"] == {"bytes": "<400 bytes>", "path": None}
    assert (shown["when"], shown["score"]) == ("2026-01-02", None)
    assert len(dataset_card(RUN, row)) < 6000


def test_failures_come_with_their_reasons_and_only_the_first_twenty() -> None:
    card = card_of(failures=[("step", "BadRequestError", f"reason {number}", 2) for number in range(25)])
    assert "50 rows failed in all" in card
    assert "| `step` | BadRequestError | reason 19 | 2 |" in card
    assert "reason 20" not in card
    assert "There are 5 further reasons." in card
    assert "Rows that failed" not in card_of(failures=[])


def test_one_row_and_one_reason_are_no_rows_and_no_reasons() -> None:
    card = card_of(rows=1, failures=[("step", "BadRequestError", f"reason {number}", 1) for number in range(21)])
    assert "\n1 row, made by " in card
    assert "There is 1 further reason." in card
    assert "1 row failed in all" in card_of(failures=[("step", "BadRequestError", "reason", 1)])


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "two\nlines\r\n\n# not a heading",
        "`code` and ``more``",
        "<script>alert(1)</script>",
        "back\\slash |",
        "[x](y) *z*",
    ],
)
def test_any_text_stays_in_its_cell(text: str) -> None:
    step = dataclasses.replace(STEP, name=text, kind=text, model=text)
    card = card_of(steps=[step], failures=[(text, text, text, 1)], columns={text: text}, flow=text)
    assert {len(row) for row in rows_of_table(card, "Step")} == {10}
    assert [len(row) for row in rows_of_table(card, "Column")] == [2, 2, 2]
    reasons = card[card.index("Rows that failed") :]
    assert {len(row) for row in rows_of_table(reasons, "Step")} == {4}
    assert "\n# not a heading" not in card
    assert "| <script>" not in card


def test_a_fence_in_a_row_or_a_prompt_does_not_end_the_block() -> None:
    step = dataclasses.replace(STEP, parameters={"template": "```python\ncode\n```"})
    card = dataset_card(dataclasses.replace(RUN, steps=[step]), {"text": "````\n# out"})
    assert json.loads(blocks_in(card, "json")[0]) == {"text": "````\n# out"}
    assert yaml.safe_load(blocks_in(card, "yaml")[0])["text_generation"] == step.parameters


def test_template_syntax_in_a_row_is_not_rendered() -> None:
    assert "{{ 7 * 7 }} {% raw %}" in dataset_card(RUN, {"text": "{{ 7 * 7 }} {% raw %}"})


def test_each_citation_is_given_once_as_a_link_or_bibtex() -> None:
    card = card_of(steps=[STEP, dataclasses.replace(STEP, name="again")])
    assert card.count("- https://arxiv.org/abs/2310.01377\n") == 1
    assert blocks_in(card, "bibtex") == ["@article{cui2023,\n  title={UltraFeedback}\n}"]
    assert "Citations" not in card_of(steps=[dataclasses.replace(STEP, citations=[])])


TEXT_EMBEDDINGS = "[Improving Text Embeddings with Large Language Models](https://arxiv.org/abs/2401.00368)"
ULTRAFEEDBACK = "[UltraFeedback: Boosting Language Models with Scaled AI Feedback](https://arxiv.org/abs/2310.01377)"


@pytest.mark.parametrize(
    ("step", "citation"),
    [
        (tasks.UltraFeedback, ULTRAFEEDBACK),
        (tasks.EmbeddingTaskGenerator, TEXT_EMBEDDINGS),
        (tasks.GenerateTextRetrievalData, TEXT_EMBEDDINGS),
        (tasks.GenerateShortTextMatchingData, TEXT_EMBEDDINGS),
        (tasks.GenerateLongTextMatchingData, TEXT_EMBEDDINGS),
        (tasks.GenerateTextClassificationData, TEXT_EMBEDDINGS),
        (tasks.MonolingualTripletGenerator, TEXT_EMBEDDINGS),
        (tasks.BitextRetrievalGenerator, TEXT_EMBEDDINGS),
    ],
)
def test_the_source_in_a_docstring_is_the_citation_of_its_class(step: type, citation: str) -> None:
    assert citations_in(step) == [citation]


def test_every_paper_in_the_docstring_of_a_step_is_cited() -> None:
    steps = [each for each in vars(tasks).values() if isinstance(each, type) and issubclass(each, tasks.Step)]
    papers = {step: set(re.findall(r"https://arxiv\.org/abs/[\w.]*\w", step.__doc__ or "")) for step in steps}
    uncited = {step.__name__: found for step, found in papers.items() if found - addresses_in(citations_in(step))}
    assert uncited == {}


def addresses_in(citations: list[str]) -> set[str]:
    return {each.rpartition("](")[2].removesuffix(")") for each in citations}


def test_a_class_cites_its_own_papers_or_else_those_of_its_base() -> None:
    class Plain(tasks.UltraFeedback):
        """Rates in some other way."""

    class Own(tasks.UltraFeedback):
        """Rates by two papers.

        Source: Rating [Well]: A Study (of sorts) (https://arxiv.org/abs/1), sections 2 and 3;
        and On Judges, and Juries (https://arxiv.org/abs/2).

        Example: none (https://example.org).
        """

    assert citations_in(Plain) == [ULTRAFEEDBACK]
    assert citations_in(Own) == [
        r"[Rating \[Well\]: A Study (of sorts)](https://arxiv.org/abs/1)",
        "[On Judges, and Juries](https://arxiv.org/abs/2)",
    ]
    assert citations_in(tasks.TextGeneration) == citations_in(int) == []


def test_a_paper_that_several_steps_come_from_is_cited_once() -> None:
    kinds = [tasks.EmbeddingTaskGenerator, tasks.UltraFeedback, tasks.GenerateTextRetrievalData]
    card = card_of(steps=[dataclasses.replace(STEP, citations=citations_in(kind)) for kind in kinds])
    assert card.endswith(
        f"## Citations\n\n- {TEXT_EMBEDDINGS}\n- {ULTRAFEEDBACK}\n\nMade with prefect 3.8.8, datasets 5.2.0.\n"
    )


def test_a_run_of_nothing_has_a_card_too() -> None:
    card = dataset_card(dataclasses.replace(RUN, steps=[], failures=[], columns={}, rows=0, software={}), None)
    assert "0 rows" in card
    assert not re.search(r"\n{3,}", card)
    assert card.endswith("```\n")


def test_the_same_run_gives_the_same_card_in_tidy_markdown() -> None:
    card = card_of()
    assert card == card_of()
    assert not re.search(r"\n{3,}", card)
    assert not re.search(r"[ \t]+$", card, re.MULTILINE)
    for code in blocks_in(card, "python"):
        compile(code, "card", "exec")


def test_what_was_seen_of_the_rows_stands_before_the_parameters() -> None:
    look = look_at(Dataset.from_list([{"instruction": f"Write story {number}.", "stars": 3} for number in range(20)]))

    card = dataset_card(RUN, ROW, look)

    assert card.index("## Distributions") < card.index("## Sample") < card.index("## Parameters")
    assert "10 rows, spread evenly over all 20." in card
    assert "| `stars` | `3` | 20 (100%) |" in card
    assert "## Sample" not in dataset_card(RUN, ROW)
