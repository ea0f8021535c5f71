"""What every step does with the names of columns."""

from __future__ import annotations

from typing import Any

import pytest

from llms import OpenAILLM, ParameterError
from tasks import (
    ExpandColumns,
    FormatTextGenerationSFT,
    JudgeAgreement,
    KeepColumns,
    Step,
    TextGeneration,
    TruncateTextColumn,
)

TEXT: dict[str, Any] = {"generation": "High tide.", "text": "mine"}


@pytest.mark.parametrize(
    ("step", "row", "expected"),
    [
        (
            TruncateTextColumn(max_length=4, output_mappings={"text": "short"}),
            TEXT,
            {**TEXT, "short": "mine"},
        ),
        (
            TruncateTextColumn(max_length=4, input_mappings={"text": "generation"}, output_mappings={"text": "short"}),
            TEXT,
            {**TEXT, "short": "High"},
        ),
        (
            TruncateTextColumn(max_length=4, input_mappings={"text": "generation"}),
            TEXT,
            {**TEXT, "generation": "High"},
        ),
        (
            ExpandColumns(columns=["q"], output_mappings={"q": "item"}),
            {"q": [1], "item": 2},
            {"item": 1},
        ),
        (
            KeepColumns(columns=["text"], output_mappings={"text": "kept"}),
            TEXT,
            {"kept": "mine"},
        ),
    ],
)
def test_an_output_under_another_name_leaves_the_column_of_its_own_name_as_it_was(
    step: Step, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert step.apply([row]) == [expected]
    assert step.added_columns(frozenset(row)) == set(expected)


def test_output_mappings_that_make_one_column_of_two_are_refused_where_the_step_is_made() -> None:
    names = {"generation": "x", "model_name": "x"}

    with pytest.raises(ValueError, match=r"a name of its own.* got 'x' for \['generation', 'model_name'\]"):
        JudgeAgreement(columns=["a", "b"], output_mappings=names)
    step = JudgeAgreement(columns=["a", "b"], output_mappings={"mean": "spread", "spread": "mean"})
    with pytest.raises(ValueError, match="one of them would be lost"):
        step.output_mappings = names


def test_a_step_that_is_used_twice_writes_over_nothing_of_its_first_use() -> None:
    first = JudgeAgreement(columns=["a", "b"]).apply([{"a": [1, 2], "b": [1, 3]}])
    names = {"mean": "mean_2", "spread": "spread_2", "majority": "majority_2", "agreement": "alpha"}
    (row,) = JudgeAgreement(columns=["a", "b"], measure="alpha-nominal", output_mappings=names).apply(first)
    assert {name: row[name] for name in first[0]} == first[0]
    assert row["agreement"] == 0.5 and row["alpha"] != 0.5

    mine: dict[str, Any] = {"instruction": "x", "generation": "y", "prompt": "mine"}
    (made,) = FormatTextGenerationSFT(output_mappings={"prompt": "asked"}).apply([mine])
    assert (made["prompt"], made["asked"]) == ("mine", "x")


class Doubling(Step):
    """A step of one's own."""

    @property
    def inputs(self) -> list[str]:
        return ["number"]

    @property
    def outputs(self) -> list[str]:
        return ["double"]

    def process(self, inputs: Any) -> Any:
        yield from ({**row, "double": 2 * row["number"]} for row in inputs)


class Returning(Doubling):
    def process(self, inputs: Any) -> Any:
        return list(super().process(inputs))


@pytest.mark.parametrize("step", [Doubling(), Returning()], ids=["rows one by one", "a returned list"])
def test_rows_that_a_step_gives_without_a_list_around_them_are_taken(step: Step) -> None:
    rows = [{"number": 1}, {"number": 2}]

    assert step.apply(rows) == [{"number": 1, "double": 2}, {"number": 2, "double": 4}]


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("name", "half \ud83d", "character 5 of 'half"),
        ("system_prompt", "x" * 500 + "\ud83d", "character 500 of 'xxx"),
        ("template", "{{ instruction }} \udc00", "character 18 of"),
        ("input_mappings", {"instruction": "half \ud83d"}, "character 5 of 'half"),
        ("examples", [{"instruction": "half \ud83d", "generation": "x"}], "character 5 of 'half"),
    ],
    ids=["name", "system_prompt", "template", "input_mappings", "examples"],
)
def test_half_a_character_in_a_parameter_is_refused_with_its_place(field: str, value: Any, place: str) -> None:
    said = f"{field}: expected whole characters, got half of one at {place}"
    llm = OpenAILLM(model="m", api_key="a-key")

    with pytest.raises(ValueError, match=said):
        TextGeneration(llm=llm, **{field: value})
    if field != "name":
        with pytest.raises(ParameterError, match=said):
            TextGeneration(llm=llm).merged({field: value})
