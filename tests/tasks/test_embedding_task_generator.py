"""Tasks for embedding models: the requests, the lists that models send, and the rows that they become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from flows import collect, load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks.base import UnreadableAnswerError
from tasks.retrieval.embedding_task_generator import EXAMPLES, Category, EmbeddingTaskGenerator, tasks_in
from tasks.steps import METADATA, failure_in
from tests.tasks.contract import made_offline
from tests.tasks.dangerous import dangerous_values
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

THREE = ["Match a riddle to its answer.", "Match a tool to its trade.", "Match a title to its tagline."]
KEYED = json.dumps({f"task_{number}": task for number, task in enumerate(THREE, 1)})
CATEGORIES: tuple[Category, ...] = get_args(Category)


def generator(llm: Any = None, **options: Any) -> EmbeddingTaskGenerator:
    return EmbeddingTaskGenerator(llm=llm or OneReplyLLM(reply=json.dumps(THREE)), **{"num_tasks": 3, **options})


def rows_of(task: EmbeddingTaskGenerator) -> list[dict[str, Any]]:
    return [row for rows in task.process(list(task.seed_rows())) for row in rows]


GOOD_ANSWERS = {
    "a JSON list": json.dumps(THREE),
    "a list on several lines, in a fence": f"```json\n{json.dumps(THREE, indent=2)}\n```",
    "a fence without a language, a preface and an afterword": f"Sure!\n```\n{json.dumps(THREE)}\n```\nMore?",
    "a Python list": str(THREE),
    "after thoughts that hold a list": f'<think>["A", "B", "C"]? No.</think>\n{json.dumps(THREE)}',
    "a key for each": KEYED,
    "keys in another order and spelling": json.dumps({"Task 3": THREE[2], "Task 1": THREE[0], "Task 2": THREE[1]}),
    "under one key": json.dumps({"tasks": THREE, "count": 3, "done": True, "note": None}),
    "objects": json.dumps([{"task": task} for task in THREE]),
    "numbered lines": "Here are three tasks:\n\n" + "\n".join(f"{n}. {task}" for n, task in enumerate(THREE, 1)),
    "numbered lines between blank ones, in a fence": "Sure:\n```\n"
    + "\n\n".join(f"{n}. {task}" for n, task in enumerate(THREE, 1))
    + "\n```\nMore?",
    "numbered lines in bold": "\n".join(f"**{n}.** **{task}**" for n, task in enumerate(THREE, 1)),
    "a list after numbered thoughts": f"1. Think.\n2. Write.\n{json.dumps(THREE)}",
    "numbers as the keys of a Python dict": str(dict(enumerate(THREE, 1))),
    "numbers inside the texts": json.dumps([f"{number}) {task}" for number, task in enumerate(THREE, 1)]),
    "spaces around": json.dumps([f"  {task}\n" for task in THREE]),
    "more than were asked for": json.dumps([*THREE, "Match a flag to its country."]),
    "one of them twice, and enough of them": json.dumps([THREE[0], *THREE]),
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_tasks_are_read_however_they_are_dressed(reply: str) -> None:
    assert tasks_in(reply, 3) == THREE


BROKEN_ANSWERS = {
    "nothing": ("", "found none"),
    "a refusal": ("I'd rather not.", "found none"),
    "too few lines": ("1. " + THREE[0] + "\n2. " + THREE[1], "expected one JSON value"),
    "an empty list": ("[]", "found 0"),
    "a number among them": (json.dumps([*THREE[:2], 3]), "expected each task as a text, got"),
    "null among them": (json.dumps([*THREE[:2], None]), "expected each task as a text, got"),
    "an empty one": (json.dumps([*THREE[:2], " "]), "expected each task as a text, got"),
    "objects with several texts": (json.dumps([{"task": "a", "why": "b"}] * 3), "expected each task as a text, got"),
    "two lists": (f"{THREE}\n{THREE}", "expected one JSON value"),
    "two lists under keys": (json.dumps({"a": THREE, "b": THREE}), "expected a JSON list"),
    "cut off": (json.dumps(THREE)[:-9], "found none"),
    "a number left out": ("1. Match this.\n3. Match that.\n4. Match both.", "found none"),
    "texts that go on below their numbers": (
        "1. Given a riddle\n   in verse, find it.\n2. Match b.\n3. Match c.",
        "a line each",
    ),
    "lists below their numbers": ("1. Law\n   - Query: a\n2. Medicine\n   - Query: b\n3. Match c.", "a line each"),
    "a text that goes on below the last number": (
        "1. Match a.\n2. Match b.\n3. Given a riddle\n   find it.",
        "a line each",
    ),
    "a key left out": (json.dumps({"task_1": "a", "task_3": "c", "task_4": "d"}), "expected a JSON list"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_what_are_no_tasks_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        tasks_in(reply, 3)
    assert problem in str(raised.value)


def test_nothing_that_a_model_writes_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for value in dangerous_values(marker):
        with pytest.raises(UnreadableAnswerError):
            tasks_in(f"[{value}]", 1)
        assert tasks_in(json.dumps([value]), 1) == [value]
    assert not marker.exists()


def test_json_with_null_and_true_makes_a_row() -> None:
    reply = '{"tasks": ["a", "b", "c"], "complete": true, "remark": null}'
    (row,) = rows_of(generator(OneReplyLLM(reply=reply)))
    assert row["tasks"] == ["a", "b", "c"]


def test_a_request_makes_one_row_with_its_list() -> None:
    rows = rows_of(generator(num_rows=2))
    assert [row["tasks"] for row in rows] == [THREE, THREE]
    assert all(set(row) == {"tasks", "model_name", METADATA} for row in rows)
    assert rows[0][METADATA]["raw_output_embedding_task_generator"] == json.dumps(THREE)


def test_flattened_a_request_makes_a_row_per_task_and_its_tokens_are_counted_once(provider: LocalProvider) -> None:
    provider.set(answers={"": KEYED})
    options = {"llm": OpenAILLM(model="m"), "num_generations": 2}
    whole, parts = rows_of(generator(**options)), rows_of(generator(**options, flatten_tasks=True))

    assert [row["task"] for row in parts] == [*THREE, *THREE]
    assert all(set(row) == {"task", "model_name", METADATA} for row in parts)
    for count in ("input_tokens", "output_tokens"):
        sums = [
            sum(row[METADATA]["statistics_embedding_task_generator"][count] for row in rows) for rows in (whole, parts)
        ]
        assert sums[0] == sums[1] > 0
    assert {row[METADATA]["raw_output_embedding_task_generator"] for row in parts} == {KEYED}


def test_flattened_a_failed_answer_is_one_failed_row_beside_the_rows_of_others(provider: LocalProvider) -> None:
    provider.set(answers=[{"match": "", "answer": [json.dumps(THREE), "No."]}])
    options = {"num_generations": 2, "flatten_tasks": True, "use_default_structured_output": False}
    rows = rows_of(generator(OpenAILLM(model="m"), **options))
    assert [row["task"] for row in rows] == [*THREE, None]
    assert [failure_in(row) is None for row in rows] == [True, True, True, False]
    assert rows[-1][METADATA]["raw_output_embedding_task_generator"] == "No."


def test_several_answers_may_be_grouped_but_not_flattened_as_well() -> None:
    (row,) = rows_of(generator(num_generations=2, group_generations=True))
    assert row["tasks"] == [THREE, THREE]
    with pytest.raises(ValueError, match="choose one"):
        generator(flatten_tasks=True, group_generations=True)


def test_columns_may_have_other_names() -> None:
    rows = rows_of(generator(flatten_tasks=True, output_mappings={"task": "idea", "model_name": "author"}))
    assert [(row["idea"], row["author"]) for row in rows] == [(task, "one-reply") for task in THREE]


def test_a_whole_json_list_of_fewer_tasks_is_kept() -> None:
    (row,) = rows_of(generator(num_tasks=4))
    assert row["tasks"] == THREE
    assert tasks_in(json.dumps([*THREE[:2], THREE[0].upper()]), 3) == [THREE[0].upper(), THREE[1]]


def test_an_unreadable_answer_fails_the_row() -> None:
    (row,) = rows_of(generator(num_tasks=4, llm=OneReplyLLM(reply="I can't.")))
    assert row["tasks"] is None
    assert row[METADATA]["error_embedding_task_generator"]["type"] == "UnreadableAnswerError"


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_request_shows_other_examples_of_its_category_and_the_same_ones_every_time(category: Category) -> None:
    def prompts(**options: Any) -> list[str]:
        task = generator(category=category, num_rows=6, **options)
        return [task.format_input(seed)[0]["content"] for seed in task.seed_rows()]

    assert prompts() == prompts()
    assert len(set(prompts())) > 3
    assert prompts() != prompts(seed=1)
    assert all(sum(example in prompt for example in EXAMPLES[category]) == 3 for prompt in prompts())
    others = [example for each in CATEGORIES if each != category for example in EXAMPLES[each]]
    assert not any(example in prompt for example in others for prompt in prompts())


def test_more_requests_leave_the_first_ones_as_they_were() -> None:
    few, many = generator(num_rows=2), generator(num_rows=5)
    assert list(many.seed_rows())[:2] == list(few.seed_rows())


def test_an_llm_that_takes_schemas_is_asked_for_keys_and_another_for_a_list() -> None:
    plain, structured = OneReplyLLM(reply=json.dumps(THREE)), StructuredOneReplyLLM(reply=KEYED)
    assert [row["tasks"] for llm in (plain, structured) for row in rows_of(generator(llm))] == [THREE, THREE]
    assert "JSON list of exactly 3 texts" in plain.asked[0][0]["content"]
    assert 'keys "task_1" to "task_3"' in structured.asked[0][0]["content"]
    assert structured.schemas == [generator().get_structured_output()]


def test_the_schema_fits_strict_mode_and_has_a_key_for_each_task() -> None:
    schema = generator(num_tasks=5).get_structured_output()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    assert schema["required"] == ["task_1", "task_2", "task_3", "task_4", "task_5"]


def test_few_shot_examples_are_shown_in_the_form_that_is_asked_for() -> None:
    for llm in (OneReplyLLM(reply=json.dumps(THREE)), StructuredOneReplyLLM(reply=json.dumps(THREE))):
        rows_of(generator(llm, examples=[{"tasks": THREE}]))
        assert tasks_in(llm.asked[0][1]["content"], 3) == THREE
    (row,) = rows_of(generator(examples=[{"task": "a"}]))
    assert "tasks: expected a list" in row[METADATA]["error_embedding_task_generator"]["message"]


def test_offline_batches_give_the_same_rows(provider: LocalProvider) -> None:
    provider.set(answers={"": KEYED}, batch_seconds=0.0)
    task = generator(OpenAILLM(model="m", use_offline_batch_generation=True), num_rows=1)
    assert made_offline(task, next(task.seed_rows()))["tasks"] == THREE
    assert provider.batches


def test_load_makes_the_rows_in_a_flow(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers={"": KEYED})
    dataset = collect(load(generator(OpenAILLM(model="m"), num_rows=2, flatten_tasks=True)))
    assert list(dataset["task"]) == [*THREE, *THREE]
    assert "number" not in dataset.column_names
