"""Labels for clusters: samples, the question, and the labels joined to the rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llms.local_provider import LocalProvider
from tasks.base import UnreadableAnswerError
from tasks.rows.clustering import ClusterSamples, JoinClusterLabels, TextClustering, label_in
from tasks.steps import METADATA, failure_in
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}
ROWS: list[dict[str, Any]] = [
    {"text": "Ebb at six.", "cluster_label": 0},
    {"text": "Two spoons of tea.", "cluster_label": 1},
    {"text": "???", "cluster_label": -1},
    {"text": "Flood at noon.", "cluster_label": 0},
    {"text": "A pot of coffee.", "cluster_label": 1},
]


# Samples


def samples(rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    return ClusterSamples(**options).apply(rows)


def test_every_cluster_is_one_row_and_noise_is_none() -> None:
    assert samples(ROWS) == [
        {"cluster_label": 0, "texts": ["Ebb at six.", "Flood at noon."], "cluster_size": 2},
        {"cluster_label": 1, "texts": ["Two spoons of tea.", "A pot of coffee."], "cluster_size": 2},
    ]


def test_without_noise_no_cluster_is_forgotten() -> None:
    assert [row["cluster_label"] for row in samples([row for row in ROWS if row["cluster_label"] >= 0])] == [0, 1]
    assert samples([row for row in ROWS if row["cluster_label"] < 0]) == []


def test_samples_are_some_of_the_texts_each_once_and_the_same_ones_each_time() -> None:
    rows = [{"text": f"text {number % 50}", "cluster_label": 3} for number in range(200)]
    (made,) = samples(rows, samples_per_cluster=10)
    assert len(set(made["texts"])) == 10 and made["cluster_size"] == 200
    assert samples(rows, samples_per_cluster=10) == [made]
    assert samples(rows, samples_per_cluster=10, seed=1) != [made]


def test_rows_that_failed_arent_shown() -> None:
    rows = [{"text": None, "cluster_label": None, METADATA: {"error_x": FAILURE}}, *ROWS[:1]]
    assert [row["texts"] for row in samples(rows)] == [["Ebb at six."]]


@pytest.mark.parametrize("missing", [None, float("nan"), 5])
def test_a_row_without_a_text_is_counted_and_not_shown(missing: Any) -> None:
    rows = [{"text": missing, "cluster_label": 0}, *ROWS[:1], {"text": missing, "cluster_label": 1}]
    assert samples(rows) == [
        {"cluster_label": 0, "texts": ["Ebb at six."], "cluster_size": 2},
        {"cluster_label": 1, "texts": [], "cluster_size": 1},
    ]


def test_the_columns_of_the_samples_are_known_before_with_their_names_in_the_dataset() -> None:
    step = ClusterSamples(input_mappings={"text": "persona", "cluster_label": "group"})
    assert step.added_columns(frozenset({"persona", "group", "x"})) == {"group", "texts", "cluster_size"}
    assert set(step.apply([{"persona": "a", "group": 0}])[0]) == {"group", "texts", "cluster_size"}


# The question


def test_the_prompt_has_the_texts_the_context_and_the_form_that_is_wanted() -> None:
    row = {"texts": ["Ebb at six.", "Flood at noon."]}
    plain = TextClustering(llm=OneReplyLLM(reply=""), context="They are from a log.", query_title="Entries")
    (message,) = plain.format_input(row)
    content = str(message["content"])
    for part in ("Here are 2 texts", "They are from a log.", "Entries:", "Ebb at six.", "Label: <the label>"):
        assert part in content
    structured = str(TextClustering(llm=StructuredOneReplyLLM(reply="")).format_input(row)[0]["content"])
    assert '"label"' in structured and "Label: <" not in structured and "log" not in structured


@pytest.mark.parametrize("texts", [None, [], [1], "abc"])
def test_a_row_without_texts_fails(texts: Any) -> None:
    with pytest.raises(ValueError, match="texts: expected a list"):
        TextClustering(llm=OneReplyLLM(reply="")).format_input({"texts": texts})


@pytest.mark.parametrize(
    "output",
    [
        '{"label": "Times of the tide"}',
        "Label: Times of the tide",
        "label : times of the tide".replace("times", "Times"),
        "**Label:** Times of the tide.",
        "- **Label**: *Times of the tide*",
        'Label: "Times of the tide."',
        "Label:\n\n“Times of the tide”",
        "Sure, here it is.\n\nLabel: Times of the tide\n\nAll of them tell when the tide turns.",
        "<think>Label: Boats? No.\n</think>\nLabel: Times of the tide",
        "```\nLabel: Times of the tide\n```",
        '```json\n{"Label": "Times of the tide"}\n```',
        "{'label': 'Times of the tide'}",
        '[{"label": "Times of the tide", "reason": "They tell when."}]',
        "Label: Times of the tide\nLabel: Times of the tide",
        "### Label: Times of the tide",
    ],
)
def test_an_answer_is_read_however_it_is_written(output: str) -> None:
    assert label_in(output) == "Times of the tide"


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("", "found none"),
        ("Times of the tide", "found none"),
        ("I can't label these.", "found none"),
        ("Label: Tides\nLabel: Boats", "found 2"),
        ("Label: ", "expected a few words, got ''"),
        ('{"label": ""}', "expected a few words, got ''"),
        ('{"label": ["Tides", "Boats"]}', "expected a few words"),
        ('{"name": "Tides"}', "expected a few words, got None"),
        ('{"label": "Tides"', "found none"),
        (f"Label: {'tide ' * 60}", "expected a few words"),
    ],
)
def test_an_answer_without_one_label_is_told(output: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=problem):
        label_in(output)


def test_a_label_in_another_language_and_with_a_colon_is_whole() -> None:
    assert label_in("Label: Gezeiten: Ebbe und Flut") == "Gezeiten: Ebbe und Flut"
    assert label_in("Label： 潮汐") == "潮汐"


def test_text_clustering_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"texts": ["Ebb at six.", "Flood at noon."]}
    check_contract(provider, TextClustering, row, json.dumps({"label": "Tides"}), {"summary_label": "Tides"})


def test_the_text_form_keeps_to_the_contract_too(provider: LocalProvider) -> None:
    def make(**options: Any) -> TextClustering:
        return TextClustering(**{"use_default_structured_output": False, **options})

    check_contract(provider, make, {"texts": ["Ebb at six."]}, "Label: Tides", {"summary_label": "Tides"})


def test_an_example_is_in_the_form_that_is_wanted() -> None:
    example = {"texts": ["Ebb."], "summary_label": "Tides"}
    assert TextClustering(llm=OneReplyLLM(reply="")).format_example(example) == "Label: Tides"
    assert TextClustering(llm=StructuredOneReplyLLM(reply="")).format_example(example) == '{"label": "Tides"}'


# Rows and labels


LABELS: list[dict[str, Any]] = [
    {"cluster_label": 0, "summary_label": "Tides", "model_name": "m"},
    {"cluster_label": 1, "summary_label": None, "model_name": "m", METADATA: {"error_text_clustering": FAILURE}},
]


def test_each_row_gets_the_label_of_its_cluster_or_the_reason_why_there_is_none() -> None:
    made = JoinClusterLabels(noise_label="Other").apply(ROWS, LABELS)
    assert [row["summary_label"] for row in made] == ["Tides", None, "Other", "Tides", None]
    assert [row["model_name"] for row in made] == ["m", None, None, "m", None]
    failures = [failure["message"] if (failure := failure_in(row)) else None for row in made]
    assert failures == [None, "cluster 1 got no label: no", None, None, "cluster 1 got no label: no"]


def test_a_cluster_that_wasnt_asked_about_fails_its_rows() -> None:
    (row,) = JoinClusterLabels().apply([{"cluster_label": 7}], LABELS)
    failure = failure_in(row)
    assert failure is not None and failure["message"] == "cluster 7 isn't among the 2 that were labelled"
    (row,) = JoinClusterLabels().apply([{"cluster_label": "x"}], LABELS)
    failure = failure_in(row)
    assert failure is not None and "expected the number of a cluster, got 'x'" in failure["message"]


def test_several_labels_of_a_cluster_and_a_missing_input_are_told() -> None:
    with pytest.raises(ValueError, match="cluster 0 has several labels"):
        JoinClusterLabels().apply(ROWS, [LABELS[0], LABELS[0]])
    with pytest.raises(ValueError, match="takes two inputs"):
        JoinClusterLabels().apply(ROWS)
