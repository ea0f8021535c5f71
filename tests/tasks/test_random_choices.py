"""Random choices for a row are the same wherever and whenever they are made."""

from __future__ import annotations

import pytest

from tasks import APIGenGenerator, EvolInstruct, EvolQuality, GenerateTextRetrievalData, Task
from tasks.random_choices import random_for, read_by
from tasks.steps import METADATA
from tests.tasks.one_reply import OneReplyLLM

ROW = {"instruction": "How high is K2?", "level": 3}


def test_a_choice_depends_on_the_row_the_seed_and_the_round_alone() -> None:
    first = random_for(ROW, 7, 1).random()

    assert first == 0.27857856685006044
    assert random_for({"level": 3, "instruction": "How high is K2?"}, 7, 1).random() == first
    assert random_for({**ROW, "distilabel_metadata": {"raw_input_a": "x"}}, 7, 1).random() == first


def test_another_row_seed_or_round_makes_another_choice() -> None:
    others = [random_for({**ROW, "level": 4}, 7, 1), random_for(ROW, 8, 1), random_for(ROW, 7, 2)]

    assert len({each.random() for each in [random_for(ROW, 7, 1), *others]}) == 4


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (EvolInstruct, {}),
        (EvolQuality, {}),
        (GenerateTextRetrievalData, {"language": "any"}),
        (APIGenGenerator, {"number": {1: 1, 2: 1, 3: 1, 4: 1}, "use_default_structured_output": True}),
    ],
)
def test_a_column_that_the_task_does_not_read_changes_no_prompt(kind: type[Task], options: dict[str, object]) -> None:
    task = kind(llm=OneReplyLLM(reply=""), **options)
    rows = [{name: f"{name} {number}" for name in task.inputs if name != "tools"} for number in range(12)]
    renamed = [{f"my_{name}": value for name, value in row.items()} for row in rows]
    mapped = kind(llm=OneReplyLLM(reply=""), input_mappings={name: f"my_{name}" for name in rows[0]}, **options)

    prompts = [task.prompt(row) for row in rows]

    assert prompts == [task.prompt({**row, "id": number, "unread": 1}) for number, row in enumerate(rows)]
    assert prompts == [task.prompt({**row, "id": str(number), METADATA: {}}) for number, row in enumerate(rows)]
    assert prompts == [mapped.prompt(mapped.seen(row)) for row in renamed]


def test_rows_of_which_nothing_is_read_are_told_apart_by_all_of_their_columns() -> None:
    task = APIGenGenerator(llm=OneReplyLLM(reply=""))

    assert read_by(task, {"id": 1, "tools": None}) == {"id": 1, "tools": None}
    assert read_by(task, {"id": 1, "func_name": "area"}) == {"func_name": "area"}


def test_a_number_tells_rows_of_one_embedding_task_apart() -> None:
    task = GenerateTextRetrievalData(llm=OneReplyLLM(reply=""))
    prompts = [str(task.prompt({"task": "Find a recipe.", "number": number})) for number in range(12)]

    assert len(set(prompts)) > 6
