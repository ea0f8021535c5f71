"""Evolving instructions and responses: rounds, mutations, failed evolutions, answers, and batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import AuthenticationError, OpenAILLM
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from llms.structured_output import strict_schema
from tasks import EvolComplexity, EvolInstruct, EvolQuality, Task
from tasks.instructions.evol import IN_DEPTH, MUTATIONS, QUALITY_MUTATIONS
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.tasks.contract import check_determinism, check_earlier_metadata, check_mappings
from tests.tasks.one_reply import StructuredOneReplyLLM
from tests.tasks.scripted import ScriptedLLM

ROW = {"instruction": "How high is K2?"}
PAIR = {"instruction": "How high is K2?", "response": "8,611 m."}
REFUSAL = "I'm sorry, but I can't help with that."

EVOLVING = {
    r"<response>\n(?P<was>[^<]*)\n</response>": '{"new_response": "{was} Indeed."}',
    r"<instruction>\n(?P<was>[^<]*)\n</instruction>": '{"new_instruction": "{was} And why?"}',
    r"^(?P<asked>How high[^\n]*)$": "The answer to: {asked}",
}
"""Answers of the provider: each evolution adds a few words."""


def llm(**options: Any) -> OpenAILLM:
    return OpenAILLM(model="evolver", max_retries=0, **options)


def rows_of(task: Task, *rows: Row) -> list[Row]:
    task.load()
    return [row for some in task.process(list(rows)) for row in some]


def test_each_round_goes_on_from_the_last_and_the_last_is_kept(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    (row,) = rows_of(EvolInstruct(llm=llm(), num_evolutions=3), ROW)

    assert row["evolved_instruction"] == "How high is K2? And why? And why? And why?"
    assert row["model_name"] == "evolver"
    assert row["instruction"] == ROW["instruction"]
    assert len(row[METADATA]["raw_output_evol_instruct"]) == 3


def test_every_round_is_kept_with_the_original_and_all_their_answers(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    task = EvolInstruct(
        llm=llm(),
        num_evolutions=2,
        store_evolutions=True,
        include_original_instruction=True,
        generate_answers=True,
    )
    (row,) = rows_of(task, ROW)

    assert task.outputs == ["evolved_instructions", "answers", "model_name"]
    assert row["evolved_instructions"] == [
        "How high is K2?",
        "How high is K2? And why?",
        "How high is K2? And why? And why?",
    ]
    assert row["answers"] == [f"The answer to: {each}" for each in row["evolved_instructions"]]


def test_without_the_original_there_are_as_many_as_rounds(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    (row,) = rows_of(EvolInstruct(llm=llm(), num_evolutions=2, store_evolutions=True), ROW)

    assert row["evolved_instructions"] == ["How high is K2? And why?", "How high is K2? And why? And why?"]


def test_only_the_last_round_is_answered_where_it_alone_is_kept(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    (row,) = rows_of(EvolInstruct(llm=llm(), num_evolutions=2, generate_answers=True), ROW)

    assert row["answer"] == "The answer to: How high is K2? And why? And why?"
    assert len(row[METADATA]["raw_input_evol_instruct"]) == 3
    assert row[METADATA]["raw_input_evol_instruct"][-1] == [
        {"role": "user", "content": "How high is K2? And why? And why?"}
    ]


def test_a_response_is_evolved_beside_its_instruction(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    one = EvolQuality(llm=llm(), num_evolutions=2)
    all_of_them = EvolQuality(llm=llm(), num_evolutions=2, store_evolutions=True, include_original_response=True)

    (row,) = rows_of(one, PAIR)
    assert row["evolved_response"] == "8,611 m. Indeed. Indeed."
    (row,) = rows_of(all_of_them, PAIR)
    assert row["evolved_responses"] == ["8,611 m.", "8,611 m. Indeed.", "8,611 m. Indeed. Indeed."]


@pytest.mark.parametrize("task", [EvolInstruct, EvolComplexity, EvolQuality])
def test_an_option_that_needs_another_says_so(task: type[Task]) -> None:
    option = "include_original_response" if task is EvolQuality else "include_original_instruction"

    with pytest.raises(ParameterError, match="store_evolutions=True"):
        task(llm=ScriptedLLM(replies=[]), **{option: True}).load()


# Mutations


def methods_in(task: Any, rows: list[Row]) -> list[str]:
    """The ways to change the instruction that the requests for rows ask for."""
    asked = [prompt for row in rows_of(task, *rows) for prompt in row[METADATA][f"raw_input_{task.name}"]]
    return [prompt[0]["content"].split("How to")[1].splitlines()[1] for prompt in asked]


def test_every_round_of_every_generation_draws_a_mutation_that_the_seed_decides(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    rows = [{"instruction": f"How high is number {number}?"} for number in range(10)]

    def drawn(seed: int) -> list[str]:
        task = EvolInstruct(llm=llm(), num_evolutions=2, num_generations=2, group_generations=False, seed=seed)
        return methods_in(task, rows)

    assert len(drawn(1)) == 40
    assert len(set(drawn(1))) == len(MUTATIONS)
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_preview_shows_the_prompt_that_is_asked_first(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    for seed in range(5):
        task = EvolInstruct(llm=llm(), seed=seed)
        (row,) = rows_of(task, ROW)
        assert task.prompt(ROW)[0] == row[METADATA]["raw_input_evol_instruct"][0]


def test_only_the_mutations_that_are_listed_are_in_use(provider: LocalProvider) -> None:
    provider.set(answers=EVOLVING)
    task = EvolInstruct(llm=llm(), num_evolutions=4, mutations=["breadth"])
    rows = [{"instruction": f"How high is number {number}?"} for number in range(3)]

    assert {method.split()[0] for method in methods_in(task, rows)} == {"Stay"}
    assert task.template_names == ("evol_instruct/form", "evol_instruct/create", "evol_instruct/breadth")
    with pytest.raises(ValueError, match="at least 1 item"):
        EvolInstruct(llm=llm(), mutations=[])
    with pytest.raises(ValueError, match="breadth"):
        EvolComplexity(llm=llm(), mutations=["breadth"])
    assert EvolComplexity(llm=llm()).mutations == IN_DEPTH


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("structured", [True, False])
def test_every_prompt_to_evolve_an_instruction_holds_it_and_says_the_form(mutation: Any, structured: bool) -> None:
    task = EvolInstruct(llm=llm(), mutations=[mutation], use_default_structured_output=structured)
    content = task.format_input(ROW)[0]["content"]

    assert "<instruction>\nHow high is K2?\n</instruction>" in content
    assert ('"new_instruction"' in content) == structured
    assert ("</new_instruction>" in content) != structured
    assert "characters" not in content


@pytest.mark.parametrize("mutation", QUALITY_MUTATIONS)
def test_every_prompt_to_evolve_a_response_holds_both_texts(mutation: Any) -> None:
    content = EvolQuality(llm=llm(), mutations=[mutation]).format_input(PAIR)[0]["content"]

    assert "<instruction>\nHow high is K2?\n</instruction>" in content
    assert "<response>\n8,611 m.\n</response>" in content


def test_the_schema_fits_strict_mode_as_it_is() -> None:
    for task in (EvolInstruct(llm=llm()), EvolQuality(llm=llm())):
        schema = task.get_structured_output()
        jsonschema.Draft202012Validator.check_schema(schema)
        assert strict_schema(schema) == schema


def test_a_schema_goes_with_evolutions_and_not_with_answers() -> None:
    asked = StructuredOneReplyLLM(reply='{"new_instruction": "How high is K2 in feet?"}')
    (row,) = rows_of(EvolInstruct(llm=asked, generate_answers=True), ROW)

    assert [schema is not None for schema in asked.schemas] == [True, False]
    assert row["evolved_instruction"] == "How high is K2 in feet?"


# Evolutions that fail


def test_a_failed_evolution_is_tried_again_from_the_earlier_instruction_by_another_mutation() -> None:
    asked = ScriptedLLM(replies=["How high is K2?", REFUSAL, "How high is K2 in feet?", "And in miles, K2?"])
    (row,) = rows_of(EvolInstruct(llm=asked, num_evolutions=2, store_evolutions=True), ROW)

    assert row["evolved_instructions"] == ["How high is K2 in feet?", "And in miles, K2?"]
    contents = [chat[0]["content"] for chat in asked.asked]
    assert ["<instruction>\nHow high is K2?\n" in content for content in contents] == [True, True, True, False]
    assert len({content.split("How to")[1].splitlines()[1] for content in contents[:3]}) == 3
    assert row[METADATA]["statistics_evol_instruct"] == {"input_tokens": 40, "output_tokens": 4}


def test_a_row_whose_tries_are_used_up_fails_and_says_why() -> None:
    asked = ScriptedLLM(replies=[REFUSAL, "", "How high is K2?"])
    (row,) = rows_of(EvolInstruct(llm=asked, max_tries=3), ROW)

    failure = failure_in(row)
    assert failure is not None
    assert failure["type"] == "UnreadableAnswerError"
    assert failure["message"].startswith("evolution 1 of 1 failed 3 times. ")
    assert all(reason in failure["message"] for reason in ("the model refused", "is empty", "the same as before"))
    assert row["evolved_instruction"] is None
    assert row[METADATA]["raw_output_evol_instruct"] == [REFUSAL, "", "How high is K2?"]
    assert len(asked.asked) == 3


def test_an_answer_that_is_none_fails_its_row_alone() -> None:
    rows = rows_of(
        EvolInstruct(llm=ScriptedLLM(replies=["How high is K2 in feet?", None])), ROW, {"instruction": "Why?"}
    )

    assert [row["evolved_instruction"] for row in rows] == ["How high is K2 in feet?", None]
    assert failure_in(rows[0]) is None
    assert [row[METADATA]["statistics_evol_instruct"]["input_tokens"] for row in rows] == [10, 30]


def test_an_evolved_instruction_whose_answer_is_a_refusal_is_tried_again() -> None:
    asked = ScriptedLLM(replies=["Draw K2.", REFUSAL, "How high is K2 in feet?", "28,251 feet."])
    (row,) = rows_of(EvolInstruct(llm=asked, generate_answers=True), ROW)

    assert (row["evolved_instruction"], row["answer"]) == ("How high is K2 in feet?", "28,251 feet.")


def test_a_response_that_stays_as_it_is_was_not_evolved() -> None:
    asked = ScriptedLLM(replies=["8,611 m", "<new_response>8,611 m, second to Everest.</new_response>"])
    (row,) = rows_of(EvolQuality(llm=asked), PAIR)

    assert row["evolved_response"] == "8,611 m, second to Everest."
    assert len(asked.asked) == 2


@pytest.mark.parametrize("instruction", [None, "", " ", 7])
def test_a_row_without_an_instruction_fails_and_costs_nothing(instruction: Any) -> None:
    asked = ScriptedLLM(replies=["How high is K2 in feet?"])
    (row,) = rows_of(EvolInstruct(llm=asked), {"instruction": instruction})

    assert "instruction: expected a text" in (failure_in(row) or {})["message"]
    assert asked.asked == []


# The contract


@pytest.mark.parametrize(
    ("make", "row", "column"),
    [
        (EvolInstruct, ROW, "evolved_instruction"),
        (EvolComplexity, ROW, "evolved_instruction"),
        (EvolQuality, PAIR, "evolved_response"),
    ],
)
def test_mappings_metadata_and_choices_keep_to_the_contract(
    provider: LocalProvider, make: Any, row: Row, column: str
) -> None:
    provider.set(answers=EVOLVING)
    expected = {column: "8,611 m. Indeed." if make is EvolQuality else "How high is K2? And why?"}

    check_mappings(make, row, expected)
    check_earlier_metadata(make, row)
    check_determinism(make, row)


def test_generations_are_rows_or_lists_each_evolved_alone(provider: LocalProvider) -> None:
    first = {**EVOLVING, r"<instruction>\n(?P<was>[^<]*)\n</instruction>": '{"new_instruction": "{was} Why? {n}"}'}
    provider.set(answers=first)
    apart = rows_of(EvolInstruct(llm=llm(), num_generations=2, num_evolutions=2), ROW)
    (together,) = rows_of(EvolInstruct(llm=llm(), num_generations=2, group_generations=True), ROW)

    assert [row["evolved_instruction"] for row in apart] == ["How high is K2? Why? 0 Why? 0"] * 2
    assert together["evolved_instruction"] == ["How high is K2? Why? 0"] * 2
    assert [len(each) for each in together[METADATA]["raw_output_evol_instruct"]] == [1, 1]


def test_examples_are_shown_in_the_form_that_is_asked_for() -> None:
    example = {**ROW, "evolved_instruction": "How high is K2 in feet?"}
    asked = ScriptedLLM(replies=["How high is K2 in miles?"])
    rows_of(EvolInstruct(llm=asked, examples=[example], system_prompt="Be brief."), ROW)

    roles = [message["role"] for message in asked.asked[0]]
    assert roles == ["system", "user", "assistant", "user"]
    assert asked.asked[0][2]["content"] == "<new_instruction>How high is K2 in feet?</new_instruction>"
    task = EvolInstruct(llm=StructuredOneReplyLLM(reply=""))
    assert json.loads(task.format_example(example)) == {"new_instruction": "How high is K2 in feet?"}


def test_in_a_flow_each_round_of_all_rows_is_a_batch_job(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.02")
    provider.set(answers=EVOLVING, batch_seconds=0.0)
    task = EvolInstruct(
        name="evolving", llm=llm(use_offline_batch_generation=True), num_evolutions=2, num_generations=2, seed=3
    )
    rows = [{"instruction": f"How high is number {number}?"} for number in range(3)]

    dataset = collect(load(rows).map(task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [6, 6]
    assert [row["evolved_instruction"] for row in dataset] == [
        f"How high is number {number}? And why? And why?" for number in (0, 0, 1, 1, 2, 2)
    ]
    online = rows_of(EvolInstruct(name="evolving", llm=llm(), num_evolutions=2, num_generations=2, seed=3), *rows)
    prompts = [row[METADATA]["raw_input_evolving"] for row in online]
    assert [row[METADATA]["raw_input_evolving"] for row in dataset] == prompts


def test_a_run_that_broke_off_in_the_second_round_does_not_ask_the_first_again(
    provider: LocalProvider, storage: Path
) -> None:
    provider.set(answers=EVOLVING, faults=[{"match": "And why", "status": 401}])
    task = EvolInstruct(name="evolving", llm=llm(), num_evolutions=2)
    rows = [{"instruction": f"How high is number {number}?"} for number in range(3)]
    with pytest.raises(AuthenticationError):
        collect(load(rows).map(task))
    provider.set(faults=[])
    provider.clear()

    dataset = collect(load(rows).map(task))

    assert all(instruction.endswith("? And why? And why?") for instruction in dataset["evolved_instruction"])
    assert len(provider.requests) == 3
