"""The steps that keep, expand, group and join columns."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from llms import LLM, GenerateOutput
from tasks.rows.columns import CombineOutputs, ExpandColumns, GroupColumns, KeepColumns, MergeColumns
from tasks.steps import METADATA, Step, failure_in
from tasks.writing.text_generation import TextGeneration

FAILURE = {"type": "LLMError", "message": "no", "retryable": False}


class Echo(LLM):
    """Repeats the prompt, in the voice it was given."""

    voice: str = ""

    @property
    def model_name(self) -> str:
        return f"echo{self.voice}"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        counts = [3] * num_generations
        return [
            {
                "generations": [f"{chat[-1]['content']}{self.voice}"] * num_generations,
                "statistics": {"input_tokens": counts, "output_tokens": counts},
            }
            for chat in inputs
        ]


STEPS: list[tuple[Step, list[list[dict[str, Any]]]]] = [
    (KeepColumns(columns=["a"]), [[{"a": [1], "b": 2, METADATA: {"k": 1}}]]),
    (ExpandColumns(columns=["a"], split_statistics=True), [[{"a": [[1], 2], METADATA: {"statistics_x": {"n": 3}}}]]),
    (ExpandColumns(columns=["a"]), [[{"a": 1, METADATA: {"k": 1}}]]),
    (GroupColumns(columns=["a"]), [[{"a": [1], METADATA: {"k": 1}}], [{"a": 2, METADATA: {"j": 1}}]]),
    (CombineOutputs(), [[{"a": [1], METADATA: {"k": 1}}], [{"b": 2, METADATA: {"j": 1}}]]),
    (MergeColumns(columns=["a", "b"], output_column="a"), [[{"a": [1], "b": 2}]]),
]


@pytest.mark.parametrize(("step", "inputs"), STEPS, ids=[type(each).__name__ for each, _ in STEPS])
def test_no_step_changes_the_rows_it_was_given(step: Step, inputs: list[list[dict[str, Any]]]) -> None:
    before = copy.deepcopy(inputs)
    made = step.apply(*inputs)
    for row in made:
        row.clear()
    assert inputs == before


def test_keep_columns_keeps_exactly_the_columns_named_in_their_order() -> None:
    row = {"a": 1, "b": 2, "c": 3}
    assert [list(kept.items()) for kept in KeepColumns(columns=["c", "a"]).apply([row])] == [[("c", 3), ("a", 1)]]


def test_keep_columns_keeps_failures_unless_told_otherwise() -> None:
    row = {"a": None, METADATA: {"error_x": FAILURE}}
    assert failure_in(KeepColumns(columns=["a"]).apply([row])[0]) is not None
    assert KeepColumns(columns=["a"], keep_metadata=False).apply([row]) == [{"a": None}]


def test_keep_columns_knows_renamed_columns() -> None:
    step = KeepColumns(columns=["a"], input_mappings={"a": "text"})
    assert step.apply([{"text": 1, "a": 2}]) == [{"text": 1}]
    assert step.added_columns(frozenset({"text", "a"})) == {"text"}


def test_a_column_that_isnt_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(ValueError, match="no column 'x'; the rows have 'a', 'b'"):
        KeepColumns(columns=["x"]).apply([{"a": 1, "b": 2}])


def test_expand_columns_makes_a_row_per_item_and_repeats_the_rest() -> None:
    rows = [{"topic": "t", "q": ["a", "b"], "score": [1, 2]}, {"topic": "u", "q": [], "score": []}]
    assert ExpandColumns(columns=["q", "score"]).apply(rows) == [
        {"topic": "t", "q": "a", "score": 1},
        {"topic": "t", "q": "b", "score": 2},
    ]


def test_expand_columns_renames() -> None:
    step = ExpandColumns(columns={"questions": "question"})
    assert step.apply([{"questions": ["a"]}]) == [{"question": "a"}]
    assert step.added_columns(frozenset({"questions", "topic"})) == {"question", "topic"}
    assert step.required_columns() == ["questions"]


def test_expand_columns_with_renamed_columns_of_the_dataset() -> None:
    step = ExpandColumns(columns=["q"], input_mappings={"q": "list"}, output_mappings={"q": "item"})
    assert step.apply([{"list": ["a"], "q": "mine"}]) == [{"item": "a", "q": "mine"}]
    assert step.added_columns(frozenset({"list", "q"})) == {"item", "q"}


@pytest.mark.parametrize("encoded", [True, ["q"]])
def test_expand_columns_reads_lists_in_json(encoded: Any) -> None:
    rows = ExpandColumns(columns=["q", "n"] if encoded is not True else ["q"], encoded=encoded).apply(
        [{"q": '["a", {"b": 1}]', "n": [1, 2]}]
    )
    assert [row["q"] for row in rows] == ["a", {"b": 1}]


def test_encoded_columns_must_be_among_the_columns() -> None:
    with pytest.raises(ValueError, match=r"\['n'\] aren't among"):
        ExpandColumns(columns=["q"], encoded=["n"])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"q": '["a"', "n": [1]}, "expected a list as JSON"),
        ({"q": "{}", "n": [1]}, "expected a list, got {}"),
        ({"q": '["a", "b"]', "n": [1]}, "equally long, got 'q': 2, 'n': 1"),
        ({"q": '["a"]', "n": "[1]"}, "a list as JSON text needs `encoded`"),
    ],
)
def test_a_row_that_cant_be_expanded_fails_alone(row: dict[str, Any], problem: str) -> None:
    step = ExpandColumns(columns=["q", "n"], encoded=["q"])
    bad, good = step.apply([row, {"q": '["a"]', "n": [1]}])
    assert good == {"q": "a", "n": 1}
    assert (bad["q"], bad["n"]) == (None, None)
    failure = failure_in(bad)
    assert failure is not None
    assert failure["step"] == "expand_columns"
    assert problem in failure["message"]


def test_expanding_a_failed_row_keeps_it_with_its_failure() -> None:
    row = {"q": None, METADATA: {"error_x": FAILURE}}
    assert ExpandColumns(columns={"q": "question"}).apply([row]) == [{"question": None, METADATA: {"error_x": FAILURE}}]


def test_a_failed_row_isnt_lost_with_its_empty_list() -> None:
    row = {"q": [], METADATA: {"error_x": FAILURE}}
    assert ExpandColumns(columns={"q": "question"}).apply([row]) == [{"question": None, METADATA: {"error_x": FAILURE}}]


def test_columns_that_would_get_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns: .*'b' twice"):
        ExpandColumns(columns={"a": "b", "c": "b"})
    with pytest.raises(ValueError, match=r"output_columns: .*'x' twice"):
        GroupColumns(columns=["a", "b"], output_columns=["x", "x"])


def test_split_statistics_shares_tokens_out_without_losing_any() -> None:
    metadata = {"statistics_x": {"input_tokens": 10, "output_tokens": 2}, "raw_output_x": "abc"}
    rows = ExpandColumns(columns=["q"], split_statistics=True).apply([{"q": [1, 2, 3], METADATA: metadata}])
    shares = [row[METADATA]["statistics_x"] for row in rows]
    assert [each["input_tokens"] for each in shares] == [4, 3, 3]
    assert [each["output_tokens"] for each in shares] == [1, 1, 0]
    assert all(row[METADATA]["raw_output_x"] == "abc" for row in rows)


def test_split_statistics_gives_each_generation_its_own() -> None:
    task = TextGeneration(llm=Echo(), num_generations=2, group_generations=True)
    step = ExpandColumns(columns=["generation"], split_statistics=True)
    rows = step.apply(task.apply([{"instruction": "hi"}]))
    assert [row["generation"] for row in rows] == ["hi", "hi"]
    assert [row[METADATA]["statistics_text_generation"]["output_tokens"] for row in rows] == [3, 3]


def test_split_statistics_of_grouped_generations_keep_their_sum_over_other_lists() -> None:
    metadata = {"statistics_x": [{"output_tokens": 7}, {"output_tokens": 4}]}
    rows = ExpandColumns(columns=["q"], split_statistics=True).apply([{"q": [1, 2, 3], METADATA: metadata}])
    shares = [[each["output_tokens"] for each in row[METADATA]["statistics_x"]] for row in rows]
    assert shares == [[3, 2], [2, 1], [2, 1]]


def test_group_columns_joins_the_rows_of_two_tasks_with_the_metadata_of_both() -> None:
    rows = [{"instruction": "hi"}, {"instruction": "ho"}]
    first = TextGeneration(name="first", llm=Echo(voice="?")).apply(rows)
    second = TextGeneration(name="second", llm=Echo(voice="!")).apply(rows)
    step = GroupColumns(columns=["generation", "model_name"], output_columns=["generations", "generation_models"])
    made = step.apply(first, second)
    assert [row["generations"] for row in made] == [["hi?", "hi!"], ["ho?", "ho!"]]
    assert made[0]["generation_models"] == ["echo?", "echo!"]
    assert {"raw_output_first", "raw_output_second"} <= set(made[0][METADATA])
    assert "generation" not in made[0]


def test_grouped_columns_have_names_by_default_and_replace_the_old() -> None:
    step = GroupColumns(columns=["a", "b"], input_mappings={"b": "text"}, output_mappings={"grouped_a": "all"})
    assert step.outputs == ["grouped_a", "grouped_b"]
    assert step.added_columns(frozenset({"a", "text", "c"})) == {"all", "grouped_b", "c"}
    assert step.apply([{"a": 1, "text": 2, "c": 3}], [{"a": 4, "text": 5, "c": 3}]) == [
        {"all": [1, 4], "grouped_b": [2, 5], "c": 3}
    ]


def test_grouping_a_branch_that_failed_keeps_its_place_and_its_failure() -> None:
    (row,) = GroupColumns(columns=["a"]).apply(
        [{"a": "x", METADATA: {"error_up": None, "error_first": None}}],
        [{"a": None, METADATA: {"error_up": None, "error_second": FAILURE}}],
    )
    assert row["grouped_a"] == ["x", None]
    assert failure_in(row) == {"step": "second", **FAILURE}


def test_equal_keys_of_the_metadata_with_different_values_become_lists() -> None:
    (row,) = GroupColumns(columns=["a"]).apply(
        [{"a": 1, METADATA: {"same": 1, "other": 1, "mine": 1}}], [{"a": 2, METADATA: {"same": 1, "other": 2}}]
    )
    assert row[METADATA] == {"same": 1, "other": [1, 2], "mine": 1}


def test_grouping_keeps_the_other_columns_of_all_branches() -> None:
    (row,) = GroupColumns(columns=["a"]).apply([{"id": 1, "a": "x", "b": 2}], [{"id": 1, "a": "y", "c": 3}])
    assert row == {"id": 1, "b": 2, "c": 3, "grouped_a": ["x", "y"]}


def test_grouping_refuses_different_values_of_a_column_that_is_not_grouped() -> None:
    with pytest.raises(ValueError, match=r"different values of 'id', 1 and 2 .*GroupColumns\(columns=\['id'\]\)"):
        GroupColumns(columns=["a"]).apply([{"id": 1, "a": "x"}], [{"id": 2, "a": "y"}])


@pytest.mark.parametrize("step", [CombineOutputs(), GroupColumns(columns=["a"])])
def test_rows_of_different_models_keep_the_last_ones_name_and_all_names_in_the_metadata(step: Any) -> None:
    (row,) = step.apply([{"a": 1, "model_name": "small"}], [{"a": 1, "model_name": "large"}])
    assert row["model_name"] == "large"
    assert row[METADATA]["model_names"] == ["small", "large"]
    (alike,) = step.apply([{"a": 1, "model_name": "one"}], [{"a": 1, "model_name": "one"}])
    assert METADATA not in alike


def test_grouping_needs_equally_many_rows_and_names() -> None:
    with pytest.raises(ValueError, match=r"equally many rows .* got 2 and 1"):
        GroupColumns(columns=["a"]).apply([{"a": 1}, {"a": 2}], [{"a": 3}])
    with pytest.raises(ValueError, match="expected a name for each"):
        GroupColumns(columns=["a", "b"], output_columns=["x"])


def test_grouping_a_column_that_no_branch_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="no column 'x'"):
        GroupColumns(columns=["x"]).apply([{"a": 1}], [{"a": 2}])


def test_combine_outputs_joins_the_columns_of_all() -> None:
    nan = math.nan
    first = [{"id": 1, "a": "x", "n": nan, METADATA: {"k": 1}}]
    second = [{"id": 1, "b": "y", "n": float("nan"), METADATA: {"j": 2}}]
    (row,) = CombineOutputs().apply(first, second, [{"c": "z"}])
    assert {name: row[name] for name in ("id", "a", "b", "c")} == {"id": 1, "a": "x", "b": "y", "c": "z"}
    assert row[METADATA] == {"k": 1, "j": 2}


def test_combine_outputs_refuses_different_values_and_says_where() -> None:
    with pytest.raises(ValueError, match=r"different values of 'id', 2 and 3 \(row 1"):
        CombineOutputs().apply([{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 3}])


def test_combine_outputs_refuses_different_numbers_of_rows() -> None:
    with pytest.raises(ValueError, match=r"equally many rows .* got 1 and 2"):
        CombineOutputs().apply([{"a": 1}], [{"b": 1}, {"b": 2}])


def test_merge_columns_makes_one_list_and_drops_the_columns() -> None:
    step = MergeColumns(columns=["q", "more", "last"], output_column="q")
    assert step.apply([{"q": "a", "more": ["b", "c"], "last": None, "t": 1}]) == [{"t": 1, "q": ["a", "b", "c", None]}]
    assert step.added_columns(frozenset({"q", "more", "last", "t"})) == {"q", "t"}
    assert MergeColumns(columns=["q"]).outputs == ["merged_column"]


@pytest.mark.parametrize(
    ("step", "branches"),
    [
        (ExpandColumns(columns={"q": "text"}, output_mappings={"text": "new"}), 1),
        (GroupColumns(columns=["q"], output_columns=["text"], output_mappings={"text": "new"}), 2),
        (MergeColumns(columns=["q"], output_column="text", output_mappings={"text": "new"}), 1),
    ],
)
def test_a_column_of_the_name_that_moved_ones_get_stays_where_theirs_is_another(step: Any, branches: int) -> None:
    (row,) = step.apply(*[[{"q": ["a"], "text": "old"}]] * branches)
    assert row["text"] == "old"
    assert row["new"] in ("a", ["a"], [["a"], ["a"]])
