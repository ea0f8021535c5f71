"""APIGen: requests with calls, the judgement of them, and examples."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jsonschema
import pytest

from llms import OfflineBatchGenerationNotFinishedError
from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import APIGenGenerator, APIGenSemanticChecker, PrepareExamples
from tasks.base import UnreadableAnswerError
from tasks.functions.apigen import WeightedNumber, names_in, read_judgement, read_pair
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.conftest import wait_for
from tests.tasks.contract import check_contract, llm, rows_of
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

FUNCTION: Row = {
    "examples": 'Query: What is 2 plus 3?\nAnswers: [{"name": "add", "arguments": {"a": 2, "b": 3}}]',
    "func_name": "area",
    "func_desc": "The area of a rectangle. width (number), height (number): in metres.",
}
TOOLS = json.dumps([{"name": "area", "description": "..."}, {"type": "function", "function": {"name": "volume"}}])

QUERY = "How big is a room of 4 by 2.5 metres?"
CALL = {"name": "area", "arguments": {"width": 4, "height": 2.5}}
ANSWERS = json.dumps([CALL])
PAIR = json.dumps({"query": QUERY, "answers": [CALL]})
STRICT = json.dumps({"query": QUERY, "call_1": {"name": "area", "arguments": json.dumps(CALL["arguments"])}})

GOOD_ANSWERS = {
    "the form that was asked for": PAIR,
    "JSON of the schema": STRICT,
    "a fence that says json": f"```json\n{PAIR}\n```",
    "a fence that says JSON, in capitals": f"```JSON\n{PAIR}\n```",
    "a fence without a language": f"```\n{PAIR}\n```",
    "a fence with another language": f"```python\n{PAIR}\n```",
    "a fence of tildes": f"~~~json\n{PAIR}\n~~~",
    "a fence on one line": f"```json {PAIR} ```",
    "a preface and an afterword": f"Here you are:\n\n{PAIR}\n\nLet me know if you need more.",
    "thoughts before": f'<think>{{"query": "x", "answers": []}}</think>{PAIR}',
    "a list of one": f"[{PAIR}]",
    "an object around it, as distilabel asks for": json.dumps({"pairs": [json.loads(PAIR)]}),
    "one call without a list": json.dumps({"query": QUERY, "answers": CALL}),
    "answers as text": json.dumps({"query": QUERY, "answers": ANSWERS}),
    "capitals": json.dumps({"Query": QUERY, "Answers": [CALL]}),
    "OpenAI's calls": json.dumps(
        {
            "query": QUERY,
            "answers": [{"type": "function", "function": {"name": "area", "arguments": json.dumps(CALL["arguments"])}}],
        }
    ),
    "parameters in place of arguments": PAIR.replace("arguments", "parameters"),
    "a Python dict": str(json.loads(PAIR)),
    "the form of the examples": f"Query: {QUERY}\nAnswers: {ANSWERS}",
    "the form of the examples, in bold and fenced": f"**Query:** {QUERY}\n\n**Answers:**\n```json\n{ANSWERS}\n```",
}


def test_calls_are_in_the_order_of_their_numbers() -> None:
    keyed = {f"call_{number}": {"name": f"f{number}", "arguments": "{}"} for number in (10, 2, 1)}

    assert [call.name for call in read_pair(json.dumps({**keyed, "query": QUERY}))[1]] == ["f1", "f2", "f10"]


BROKEN_ANSWERS = {
    "nothing": ("", "expected one JSON value"),
    "a refusal": ("I can't do that.", "expected one JSON value"),
    "cut off": (PAIR[:-20], "expected one JSON value"),
    "two pairs": (f"{PAIR}\n{PAIR}", "2 of them"),
    "a list of two": (f"[{PAIR}, {PAIR}]", "expected a JSON object"),
    "no query": (json.dumps({"answers": [CALL]}), "expected an object with 'query'"),
    "an empty query": (json.dumps({"query": " ", "answers": [CALL]}), "expected an object with 'query'"),
    "no calls": (json.dumps({"query": QUERY, "answers": []}), "expected 1 call, got 0"),
    "no answers": (json.dumps({"query": QUERY}), "expected 1 call, got 0"),
    "too many calls": (json.dumps({"query": QUERY, "answers": [CALL, CALL]}), "expected 1 call, got 2"),
    "calls that are text": (json.dumps({"query": QUERY, "answers": ["area(4, 2.5)"]}), "answers: expected a call"),
    "code in place of JSON": (
        json.dumps({"query": QUERY, "answers": "[dict(name='area', arguments=__import__('os').environ)]"}),
        "answers: expected calls as JSON",
    ),
    "arguments that are a list": (
        json.dumps({"query": QUERY, "answers": [{"name": "area", "arguments": [4, 2.5]}]}),
        "expected the arguments of 'area' as an object",
    ),
    "no arguments": (json.dumps({"query": QUERY, "answers": [{"name": "area"}]}), "answers: expected a call"),
    "another function": (PAIR.replace('"area"', '"volume"'), "expected calls of area, got one of 'volume'"),
}


def generator(**options: Any) -> APIGenGenerator:
    return APIGenGenerator(**{"llm": OneReplyLLM(reply=""), **options})


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS)
def test_a_request_and_its_calls_are_read_from_whatever_stands_around_them(answer: str) -> None:
    assert generator().format_output(answer, FUNCTION) == {"query": QUERY, "answers": ANSWERS}


@pytest.mark.parametrize(("answer", "reason"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
def test_a_request_that_cant_be_read_says_why(answer: str, reason: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=reason):
        generator().format_output(answer, FUNCTION)


def test_the_generator_keeps_to_the_contract(provider: LocalProvider) -> None:
    check_contract(provider, APIGenGenerator, FUNCTION, PAIR, {"query": QUERY, "answers": ANSWERS})


@pytest.mark.parametrize(
    ("number", "numbers"),
    [
        ([1, 2, 3], [WeightedNumber(number=each) for each in (1, 2, 3)]),
        ((2,), [WeightedNumber(number=2)]),
        ({1: 0.5, 2: 0.25}, [WeightedNumber(number=1, weight=0.5), WeightedNumber(number=2, weight=0.25)]),
        ({"1": 1}, [WeightedNumber(number=1)]),
        (4, []),
    ],
)
def test_the_number_may_be_given_as_the_reference_takes_it(number: Any, numbers: list[WeightedNumber]) -> None:
    task = generator(number=number)

    assert task.numbers == numbers
    assert task.number == (4 if number == 4 else 1)


@pytest.mark.parametrize("number", [0, -1, [], {}, [0], {1: 0}, {1: -1}, [1.5], "two", None])
def test_a_number_that_is_none_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="number"):
        generator(number=number)


def test_numbers_are_drawn_by_row_by_weight_and_the_same_in_every_run() -> None:
    rows = [{**FUNCTION, "func_name": f"area_{number}"} for number in range(400)]
    task, other, reseeded = (generator(number={1: 3, 2: 1}, seed=seed) for seed in (0, 0, 1))

    drawn = [task.number_for(row) for row in rows]

    assert drawn == [other.number_for({**row, METADATA: {"x": 1}}) for row in rows]
    assert drawn != [reseeded.number_for(row) for row in rows]
    assert 250 < drawn.count(1) < 350
    assert set(drawn) == {1, 2}


def test_a_plain_number_of_a_run_takes_the_place_of_numbers_that_are_drawn() -> None:
    task = generator(number=[1, 2])

    assert task.merged({"number": 3}).number_for(FUNCTION) == 3
    assert task.merged({"use_tools": False}).numbers == task.numbers
    assert generator(number=3).merged({"number": [1, 2]}).numbers == task.numbers


def test_several_calls_are_asked_for_and_counted() -> None:
    task = generator(llm=StructuredOneReplyLLM(reply=""), number=2)
    answer = {"query": QUERY, **{f"call_{place}": {"name": "area", "arguments": '{"width": 1}'} for place in (1, 2)}}

    chat, schema = task.prompt(FUNCTION)

    assert "exactly 2 calls" in chat[0]["content"]
    assert schema["required"] == ["query", "call_1", "call_2"]
    assert strict_schema(schema) == schema
    jsonschema.validate(answer, schema)
    assert len(json.loads(task.format_output(json.dumps(answer), FUNCTION)["answers"])) == 2
    with pytest.raises(UnreadableAnswerError, match="expected 2 calls, got 1"):
        task.format_output(STRICT, FUNCTION)


def names_of_calls(schema: dict[str, Any]) -> list[list[str]]:
    """The functions that each call may be of."""
    calls = [value for key, value in schema["properties"].items() if key.startswith("call_")]
    return [call["properties"]["name"]["enum"] for call in calls]


def test_the_schema_makes_sure_of_a_call_of_the_rows_function_in_any_place() -> None:
    task = generator(llm=StructuredOneReplyLLM(reply=""), number=2)
    rows = [{**FUNCTION, "tools": TOOLS, "examples": f"example {number}"} for number in range(20)]
    places = [names_of_calls(task.prompt(row)[1]).index(["area"]) for row in rows]
    assert set(places) == {0, 1}
    assert places == [names_of_calls(task.prompt(row)[1]).index(["area"]) for row in rows]


def test_tools_are_shown_and_their_functions_may_be_called() -> None:
    task = generator(llm=StructuredOneReplyLLM(reply=""), number=2)
    row = {**FUNCTION, "tools": TOOLS}
    calls = [CALL, {"name": "volume", "arguments": {}}]

    chat, schema = task.prompt(row)

    assert TOOLS in chat[0]["content"]
    assert sorted(names_of_calls(schema)) == [["area"], ["area", "volume"]]
    assert task.format_output(json.dumps({"query": QUERY, "answers": calls}), row)["answers"] == json.dumps(calls)
    with pytest.raises(UnreadableAnswerError, match="expected a call of 'area'"):
        task.format_output(json.dumps({"query": QUERY, "answers": [calls[1], calls[1]]}), row)


def test_tools_can_be_left_out_of_the_prompt() -> None:
    task = generator(use_tools=False)
    row = {**FUNCTION, "tools": TOOLS}

    assert "volume" not in task.prompt(row)[0]["content"]
    with pytest.raises(UnreadableAnswerError, match="got one of 'volume'"):
        task.format_output(json.dumps({"query": QUERY, "answers": [{"name": "volume", "arguments": {}}]}), row)


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        (TOOLS, ["area", "volume"]),
        (json.loads(TOOLS), ["area", "volume"]),
        ("area: the area", []),
        ('{"name": "area"}', []),
        ("[1, null, {}]", []),
        (None, []),
    ],
)
def test_the_names_of_tools_are_read_from_json(tools: Any, names: list[str]) -> None:
    assert names_in(tools) == names


def test_the_prompt_holds_the_function_and_the_examples_and_the_form() -> None:
    plain = generator().prompt(FUNCTION)[0]["content"]
    structured = generator(llm=StructuredOneReplyLLM(reply="")).prompt({**FUNCTION, "examples": ""})[0][0]["content"]

    assert FUNCTION["examples"] in plain
    assert FUNCTION["func_desc"] in plain
    assert '"answers"' in plain
    assert "<examples>" not in structured
    assert '"call_1"' in structured
    assert '"answers"' not in structured


@pytest.mark.parametrize("kind", [OneReplyLLM, StructuredOneReplyLLM])
def test_examples_of_the_generator_are_answers_that_it_reads(kind: type[OneReplyLLM]) -> None:
    task = generator(llm=kind(reply=""), examples=[{**FUNCTION, "query": QUERY, "answers": ANSWERS}])

    prompt = task.prompt(FUNCTION)
    chat = prompt[0] if isinstance(prompt, tuple) else prompt

    assert task.format_output(chat[1]["content"], FUNCTION) == {"query": QUERY, "answers": ANSWERS}


# The semantic checker.

JUDGED: Row = {
    "func_desc": FUNCTION["func_desc"],
    "query": QUERY,
    "answers": ANSWERS,
    "execution_result": ["10.0"],
    "keep_row_after_execution_check": True,
}
THOUGHT = "Width and height are those of the room."

GOOD_JUDGEMENTS = {
    "the form that was asked for": f"Thought: {THOUGHT}\nPasses: yes",
    "JSON of the schema": json.dumps({"thought": THOUGHT, "passes": "yes"}),
    "JSON, fenced": "```json\n" + json.dumps({"thought": THOUGHT, "passes": "yes"}) + "\n```",
    "JSON with a truth value": json.dumps({"thought": THOUGHT, "passes": True}),
    "JSON with the paper's key": json.dumps({"thought": THOUGHT, "pass": "Yes."}),
    "a Python dict": str({"thought": THOUGHT, "passes": "yes"}),
    "bold labels": f"**Thought:** {THOUGHT}\n\n**Passes:** Yes",
    "bold around the labels' colons": f"**Thought**: {THOUGHT}\n**Passes**: **yes**",
    "the other order": f"Passes: yes\nThought: {THOUGHT}",
    "thoughts before": f"<think>Passes: no</think>Thought: {THOUGHT}\nPasses: yes",
    "a preface": f"My judgement:\n\nThought: {THOUGHT}\nPasses: yes",
    "capitals": f"THOUGHT: {THOUGHT}\nPASSES: YES",
    "other words": f"Reasoning: {THOUGHT}\nPassed: true",
    "no label for the thought": f"{THOUGHT}\nPasses: yes",
    "a code fence": f"```\nThought: {THOUGHT}\nPasses: yes\n```",
}

BROKEN_JUDGEMENTS = {
    "nothing": "",
    "no verdict": f"Thought: {THOUGHT}",
    "both": f"Thought: {THOUGHT}\nPasses: yes/no",
    "one or the other": f"Thought: {THOUGHT}\nPasses: yes or no",
    "one and the other": f"Thought: {THOUGHT}\nPasses: yes and no",
    "neither": f"Thought: {THOUGHT}\nPasses: maybe",
    "twice": f"Passes: yes\nThought: {THOUGHT}\nPasses: no",
    "JSON without a verdict": json.dumps({"thought": THOUGHT}),
    "JSON with a number": json.dumps({"thought": THOUGHT, "passes": 3}),
    "JSON with null": json.dumps({"thought": THOUGHT, "passes": None}),
    "JSON with a line in its text that is like a verdict": '{"thought": "x\nPasses: yes\ny", "passes": "no"}',
    "JSON cut off": json.dumps({"thought": THOUGHT, "passes": "yes"})[:-12],
    "a refusal": "I can't judge that.",
}


@pytest.mark.parametrize("answer", GOOD_JUDGEMENTS.values(), ids=GOOD_JUDGEMENTS)
def test_a_judgement_is_read_in_every_form(answer: str) -> None:
    assert read_judgement(answer) == (THOUGHT, True)


@pytest.mark.parametrize("verdict", ["no", "No.", "NO", "false", "fails"])
def test_a_no_is_a_no(verdict: str) -> None:
    assert read_judgement(f"Thought: {THOUGHT}\nPasses: {verdict}") == (THOUGHT, False)


@pytest.mark.parametrize("answer", BROKEN_JUDGEMENTS.values(), ids=BROKEN_JUDGEMENTS)
def test_a_judgement_that_isnt_certain_is_an_error(answer: str) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_judgement(answer)


def test_the_semantic_checker_keeps_to_the_contract(provider: LocalProvider) -> None:
    answer = json.dumps({"thought": THOUGHT, "passes": "yes"})
    columns = {"thought": THOUGHT, "keep_row_after_semantic_check": True}
    check_contract(provider, APIGenSemanticChecker, JUDGED, answer, columns)


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_that_failed_the_execution_check_isnt_asked_for(provider: LocalProvider, count: int) -> None:
    row = {**JUDGED, "keep_row_after_execution_check": False}
    task = APIGenSemanticChecker(llm=llm(), num_generations=count)

    made = rows_of(task, [row])

    assert provider.requests == []
    assert [(each["thought"], each["keep_row_after_semantic_check"]) for each in made] == [(None, False)] * count
    assert all(failure_in(each) is None for each in made)


def test_such_rows_are_asked_for_where_the_option_is_off_and_others_always(provider: LocalProvider) -> None:
    provider.set(answers=[{"match": "", "answer": json.dumps({"thought": THOUGHT, "passes": "yes"})}])
    failed_row = {**JUDGED, "keep_row_after_execution_check": False}
    unknown = {name: value for name, value in JUDGED.items() if name != "keep_row_after_execution_check"}

    (judged,) = rows_of(APIGenSemanticChecker(llm=llm(), exclude_failed_execution=False), [failed_row])
    (also,) = rows_of(APIGenSemanticChecker(llm=llm()), [unknown])

    assert judged["keep_row_after_semantic_check"] is also["keep_row_after_semantic_check"] is True


def test_a_failed_row_has_no_request_in_an_offline_batch(provider: LocalProvider) -> None:
    answer = json.dumps({"thought": THOUGHT, "passes": "yes"})
    provider.set(answers=[{"match": "", "answer": answer}], batch_seconds=0.0)
    task = APIGenSemanticChecker(llm=llm(use_offline_batch_generation=True))
    failed_row = {**JUDGED, "keep_row_after_execution_check": False}

    def finished() -> list[Row] | None:
        with suppress(OfflineBatchGenerationNotFinishedError):
            return rows_of(task, [JUDGED, failed_row])
        return None

    made = wait_for(finished, what="the end of the batch", pause=0.02)

    assert [row["keep_row_after_semantic_check"] for row in made] == [True, False]
    assert provider.batches[0]["request_counts"]["total"] == 1


@pytest.mark.parametrize("result", [["10.0", "12.0"], "10.0\n12.0"])
def test_results_stand_in_the_prompt_one_by_one(result: Any) -> None:
    task = APIGenSemanticChecker(llm=OneReplyLLM(reply=""))

    prompt = task.prompt({**JUDGED, "execution_result": result})[0]["content"]

    assert "<results>\n10.0\n12.0\n</results>" in prompt
    assert ANSWERS in prompt


@pytest.mark.parametrize("kind", [OneReplyLLM, StructuredOneReplyLLM])
@pytest.mark.parametrize("passes", [True, False])
def test_examples_of_the_checker_are_answers_that_it_reads(kind: type[OneReplyLLM], passes: bool) -> None:
    columns = {"thought": THOUGHT, "keep_row_after_semantic_check": passes}
    task = APIGenSemanticChecker(llm=kind(reply=""), examples=[{**JUDGED, **columns}])

    prompt = task.prompt(JUDGED)
    chat = prompt[0] if isinstance(prompt, tuple) else prompt

    assert task.format_output(chat[1]["content"], JUDGED) == columns


# Examples.


def prepared(row: Row, **options: Any) -> Row:
    (made,) = next(PrepareExamples(**options).process([row]))
    return made


def test_examples_are_written_one_after_another_and_the_row_keeps_its_columns() -> None:
    row = {"id": 1, "query": ["One?", "Two?"], "answers": ["[1]", "[2]"]}

    assert prepared(row) == {**row, "examples": "Query: One?\nAnswers: [1]\n\nQuery: Two?\nAnswers: [2]"}


def test_one_example_needs_no_list_and_the_template_is_the_users_own() -> None:
    row = {"query": "One?", "answers": ANSWERS}

    assert prepared(row, template="Q {{ query }} A {{ answers }}")["examples"] == f"Q One? A {ANSWERS}"


def test_examples_are_what_the_generator_reads_as_well() -> None:
    text = prepared({"query": QUERY, "answers": ANSWERS})["examples"]

    assert read_pair(text)[0] == QUERY


@pytest.mark.parametrize("template", ["{{ query", "{{ question }}"])
def test_a_template_that_cant_be_used_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        PrepareExamples(template=template)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": ["One?"], "answers": []}, "as many answers as queries, got 1 queries, 0 answers"),
        ({"query": None, "answers": []}, "expected a text or a list"),
    ],
)
def test_examples_that_dont_fit_each_other_fail_their_row(row: Row, reason: str) -> None:
    failure = failure_in(prepared(row))

    assert failure is not None
    assert reason in failure["message"]
