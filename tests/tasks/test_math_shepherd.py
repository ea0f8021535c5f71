"""Math-Shepherd: solutions in steps, labels by completions, and the formats of process reward models."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import jsonschema
import pytest

from llms import GenerateOutput
from llms.errors import ContentFilterError
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from llms.structured_output import strict_schema
from tasks import FormatPRM, MathShepherdCompleter, MathShepherdGenerator
from tasks.base import UnreadableAnswerError
from tasks.math.math_solutions import read_solutions
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.tasks.contract import check_contract, llm, rows_of
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

PROBLEM = {"instruction": "A crate holds 12 bottles. How many are in 3 crates, if 2 are missing?"}
GOLDEN = ["Step 1: The crates have room for 3 * 12 = 36 bottles.", "Step 2: 36 - 2 = 34 are left.", "The answer is: 34"]

AS_ASKED = "\n".join(GOLDEN)
IN_JSON = json.dumps(
    {"steps": ["The crates have room for 3 * 12 = 36 bottles.", "36 - 2 = 34 are left."], "answer": "34"}
)

GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "JSON of the schema": IN_JSON,
    "JSON, fenced, with a preface": f"Here it is:\n```json\n{IN_JSON}\n```",
    "JSON with a number as the answer": IN_JSON.replace('"34"', "34"),
    "JSON with numbered steps": json.dumps({"steps": GOLDEN[:2], "answer": "The answer is: 34"}),
    "JSON with the whole solution as text": json.dumps({"solution": AS_ASKED}),
    "JSON with the steps as text": json.dumps({"steps": "\n".join(GOLDEN[:2]), "answer": "34"}),
    "JSON with a list of one": json.dumps({"solutions": [{"solution": AS_ASKED}]}),
    "a JSON list of steps": json.dumps(GOLDEN),
    "thoughts before": f"<think>\nStep 1: no.\nThe answer is: 3\n</think>\n{AS_ASKED}",
    "a preface and an afterword": f"Let's solve it.\n\n{AS_ASKED}\n\nI hope this helps!",
    "a code fence": f"```text\n{AS_ASKED}\n```",
    "Markdown": """### **Step 1:** The crates have room for 3 * 12 = 36 bottles.

**Step 2:** 36 - 2 = 34 are left.

**The answer is: 34**""",
    "headings with text below": """## Step 1

The crates have room for
3 * 12 = 36 bottles.

## Step 2
36 - 2 = 34 are left.

**Final answer:** 34""",
    "the answer in the last step": f"{GOLDEN[0]}\n{GOLDEN[1]} The answer is: 34",
    "all on one line": " ".join(GOLDEN),
    "said twice": f"{GOLDEN[0]}\n{GOLDEN[1]} So the answer is 34.\nThe answer is: 34",
    "the answer in a step of its own": f"{GOLDEN[0]}\n{GOLDEN[1]}\nStep 3: The answer is: 34",
    "a numbered list": AS_ASKED.replace("Step 1:", "1.").replace("Step 2:", "2)"),
    "GSM8K's mark": AS_ASKED.replace("The answer is:", "####"),
    "Windows line ends": AS_ASKED.replace("\n", "\r\n"),
    "other marks": AS_ASKED.replace("Step 1:", "step 1 -").replace("Step 2:", "- Step 2)"),
}

BROKEN_ANSWERS = {
    "nothing": ("", "got 0"),
    "a refusal": ("I can't solve that.", "got 0"),
    "no steps": ("The answer is: 34", "got 0"),
    "no answer": ("\n".join(GOLDEN[:2]), "expected a final answer"),
    "cut off": (IN_JSON[:-10], "got 0"),
    "the answer before the last step": (f"{GOLDEN[0]} The answer is: 36\n{GOLDEN[1]}", "expected a final answer"),
    "a step missing": (AS_ASKED.replace("Step 2", "Step 3"), "expected step 2, got step 3"),
    "two solutions": (f"{AS_ASKED}\n\n{AS_ASKED}", "expected one solution, got 2"),
    "nothing but an answer in the only step": ("Step 1: The answer is: 34", "expected steps before the answer"),
    "JSON without steps": ('{"steps": [], "answer": "34"}', "expected steps before the answer"),
    "JSON with something else": ('{"steps": [1, 2], "answer": "34"}', "expected a solution's steps as texts"),
    "JSON without an answer": (json.dumps({"steps": GOLDEN[:2]}), "expected a final answer"),
    "an empty answer": (json.dumps({"steps": GOLDEN[:2], "answer": " "}), "expected a final answer"),
}


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS)
def test_a_solution_is_read_from_whatever_stands_around_it(answer: str) -> None:
    (solution,) = read_solutions(answer, 1)

    assert solution.items() == GOLDEN


@pytest.mark.parametrize(("answer", "reason"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS)
def test_a_solution_that_cant_be_read_says_why(answer: str, reason: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=reason):
        read_solutions(answer, 1)


def test_latex_with_single_backslashes_in_json_is_put_right() -> None:
    answer = r'{"steps": ["\(\frac{1}{2} \times 4 = 2\)", "So \boxed{2} and \sqrt{4}."], "answer": "\frac{4}{2}"}'

    (solution,) = read_solutions(answer, 1)

    assert solution.items() == [
        r"Step 1: \(\frac{1}{2} \times 4 = 2\)",
        r"Step 2: So \boxed{2} and \sqrt{4}.",
        r"The answer is: \frac{4}{2}",
    ]


OTHER = ["Step 1: 3 * 12 = 36.", "Step 2: 36 + 2 = 38.", "The answer is: 38"]
TWO_IN_JSON = {
    "solution_1": {"steps": ["3 * 12 = 36.", "36 + 2 = 38."], "answer": "38"},
    "solution_2": json.loads(IN_JSON),
}

SEVERAL = {
    "the form that was asked for": "Solution 1\n" + "\n".join(OTHER) + f"\n\nSolution 2\n{AS_ASKED}",
    "rules between": "\n".join(OTHER) + f"\n\n---\n\n{AS_ASKED}\n\n---",
    "headings between": "### Solution 1:\n" + "\n".join(OTHER) + f"\n\n### Solution 2:\n{AS_ASKED}",
    "nothing between": "\n".join([*OTHER, *GOLDEN]),
    "JSON of the schema": json.dumps(TWO_IN_JSON),
    "a list in JSON": json.dumps(list(TWO_IN_JSON.values())),
    "distilabel's schema": json.dumps({"solutions": [{"solution": "\n".join(OTHER)}, {"solution": AS_ASKED}]}),
}


@pytest.mark.parametrize("answer", SEVERAL.values(), ids=SEVERAL)
def test_several_solutions_are_read_in_every_form(answer: str) -> None:
    task = MathShepherdGenerator(llm=OneReplyLLM(reply=""), M=2)

    assert task.format_output(answer, PROBLEM) == {"solutions": [OTHER, GOLDEN]}


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_solutions_is_an_error(count: int) -> None:
    task = MathShepherdGenerator(llm=OneReplyLLM(reply=""), M=count)

    with pytest.raises(UnreadableAnswerError, match="got 2"):
        task.format_output(SEVERAL["rules between"], PROBLEM)


def test_the_generator_keeps_to_the_contract(provider: LocalProvider) -> None:
    check_contract(provider, MathShepherdGenerator, PROBLEM, IN_JSON, {"golden_solution": GOLDEN})


def test_the_generator_of_several_solutions_keeps_to_the_contract(provider: LocalProvider) -> None:
    def make(**more: Any) -> MathShepherdGenerator:
        return MathShepherdGenerator(M=2, **more)

    check_contract(provider, make, PROBLEM, json.dumps(TWO_IN_JSON), {"solutions": [OTHER, GOLDEN]})


@pytest.mark.parametrize("count", [None, 1, 2])
def test_structured_output_works_with_and_without_a_number_of_solutions(count: int | None) -> None:
    reply = (
        IN_JSON if count is None else json.dumps({f"solution_{n}": json.loads(IN_JSON) for n in range(1, count + 1)})
    )
    task = MathShepherdGenerator(llm=StructuredOneReplyLLM(reply=reply), M=count)

    (made,) = rows_of(task, [PROBLEM])

    schema = task.get_structured_output()
    assert strict_schema(schema) == schema
    jsonschema.validate(json.loads(reply), schema)
    assert task.llm.schemas[-1] == schema
    assert made.get("golden_solution" if count is None else "solutions") == (
        GOLDEN if count is None else [GOLDEN] * count
    )


def test_the_prompt_says_which_form_is_wanted_and_holds_the_rules() -> None:
    plain = MathShepherdGenerator(llm=OneReplyLLM(reply=""), M=2, extra_rules="Write calculations as <<2*3=6>>6.")
    structured = MathShepherdGenerator(llm=StructuredOneReplyLLM(reply=""), system_prompt="You are a tutor.")

    text = plain.prompt(PROBLEM)[0]["content"]
    chat, _ = structured.prompt(PROBLEM)

    assert "<<2*3=6>>6" in text
    assert "The answer is:" in text
    assert "JSON" not in text
    assert [message["role"] for message in chat] == ["system", "user"]
    assert "JSON" in chat[1]["content"]
    assert "The answer is:" not in chat[1]["content"]


@pytest.mark.parametrize("kind", [OneReplyLLM, StructuredOneReplyLLM])
@pytest.mark.parametrize("count", [None, 2])
def test_examples_are_answers_that_the_task_reads(kind: type[OneReplyLLM], count: int | None) -> None:
    example = {**PROBLEM, "golden_solution": GOLDEN, "solutions": [OTHER, GOLDEN]}
    task = MathShepherdGenerator(llm=kind(reply=""), M=count, examples=[example])

    prompt = task.prompt({"instruction": "How many legs have 4 cats?"})
    chat = prompt[0] if isinstance(prompt, tuple) else prompt

    assert [message["role"] for message in chat] == ["user", "assistant", "user"]
    column = "golden_solution" if count is None else "solutions"
    assert task.format_output(chat[1]["content"], PROBLEM) == {column: example[column]}


# The completer.

WRONG = ["Step 1: 3 * 12 = 36.", "Step 2: 36 + 2 = 38.", "Step 3: It is 38.", "The answer is: 38"]
RIGHT = ["Step 1: 3 * 12 = 36.", "Step 2: 36 - 2 = 34.", "The answer is: 34 bottles"]
TO_LABEL: Row = {**PROBLEM, "solutions": [WRONG, RIGHT], "golden_solution": GOLDEN}


class Completing:
    """An `ask` that answers what it's asked by the last step that it's shown, and keeps the order of asking."""

    def __init__(self, answers: dict[str, list[str | None]]) -> None:
        self.answers = {step: list(texts) for step, texts in answers.items()}
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, prompt: Any, num_generations: int = 1) -> GenerateOutput:
        chat = prompt[0] if isinstance(prompt, tuple) else prompt
        steps = chat[-1]["content"].partition("<steps>")[2].partition("</steps>")[0].strip().splitlines()
        self.asked.append((steps[-1], num_generations))
        await asyncio.sleep(0)
        texts = [self.answers[steps[-1]].pop(0) for _ in range(num_generations)]
        ones = [1] * num_generations
        return {"generations": texts, "statistics": {"input_tokens": ones, "output_tokens": ones}}


def completer(**options: Any) -> MathShepherdCompleter:
    options = {"llm": OneReplyLLM(reply=""), "N": 3, **options}
    return MathShepherdCompleter(**options)


def labelled(ask: Any, row: Row = TO_LABEL, **options: Any) -> Row:
    (made,) = asyncio.run(completer(**options).answer_row(row, ask))
    return made


REACHES, FAILS = "Step 9: So.\nThe answer is: 34 bottles", "Step 9: So.\nThe answer is: 35"
MIXED: dict[str, list[str | None]] = {
    WRONG[0]: [FAILS, REACHES, FAILS],
    WRONG[1]: [FAILS] * 3,
}
LABELS = [
    ["Step 1: 3 * 12 = 36. +", "Step 2: 36 + 2 = 38. -", "Step 3: It is 38. The answer is: 38 -"],
    ["Step 1: 3 * 12 = 36. +", "Step 2: 36 - 2 = 34. The answer is: 34 bottles +"],
]


def test_a_step_is_good_if_any_completion_reaches_the_golden_answer() -> None:
    ask = Completing(MIXED)

    made = labelled(ask)

    assert made["solutions"] == LABELS
    assert failure_in(made) is None


def test_each_beginning_is_asked_for_once_in_order_and_never_the_last_step() -> None:
    ask = Completing(MIXED)

    labelled(ask)

    assert ask.asked == [(WRONG[0], 3), (WRONG[1], 3)]


def test_soft_estimation_adds_the_share_of_completions_that_reach_the_answer() -> None:
    made = labelled(Completing(MIXED), soft_estimation=True)

    assert made["solutions"] == LABELS
    assert made["scores"] == [[1 / 3, 0.0, 0.0], [1 / 3, 1.0]]


def test_tags_are_the_users_own() -> None:
    made = labelled(Completing(MIXED), tags=["good", "bad"])

    assert [step.split()[-1] for step in made["solutions"][0]] == ["good", "bad", "bad"]


@pytest.mark.parametrize("tags", [["+"], ["+", "+"], ["", "-"], ["+ ", "-"], ["+", "-", "0"]])
def test_tags_that_cant_be_told_apart_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValueError, match="tags"):
        completer(tags=tags)


def test_a_completion_without_an_answer_is_asked_for_again_and_only_that() -> None:
    answers = {WRONG[0]: [FAILS, None, "Cut off", FAILS, "Again", REACHES], WRONG[1]: [FAILS] * 3}
    ask = Completing(answers)

    made = labelled(ask, soft_estimation=True)

    assert made["scores"][0] == [1 / 3, 0.0, 0.0]
    assert [number for step, number in ask.asked if step == WRONG[0]] == [3, 2, 1]


def test_a_step_that_is_known_to_be_good_isnt_asked_for_again() -> None:
    ask = Completing({WRONG[0]: [REACHES, None, None], WRONG[1]: [FAILS] * 3})

    made = labelled(ask)

    assert made["solutions"] == LABELS
    assert len(ask.asked) == 2


def test_a_row_fails_where_completions_stay_without_an_answer() -> None:
    ask = Completing({WRONG[0]: [FAILS] * 3, WRONG[1]: [FAILS, FAILS, *["..."] * 3]})

    made = labelled(ask)

    assert made["solutions"] is None
    assert made[METADATA]["error_math_shepherd_completer"]["message"].startswith(
        "expected 3 final answers after 'Step 2: 36 + 2 = 38.', got 2 of 5 completions"
    )
    assert len(ask.asked) == 4
    assert made[METADATA]["raw_output_math_shepherd_completer"][1][:2] == [FAILS, FAILS]
    assert made[METADATA]["statistics_math_shepherd_completer"]["output_tokens"] == 8


def test_prompts_completions_and_tokens_are_kept_by_beginning() -> None:
    made = labelled(Completing(MIXED))

    metadata = made[METADATA]
    assert metadata["raw_output_math_shepherd_completer"] == list(MIXED.values())
    assert len(metadata["raw_input_math_shepherd_completer"]) == 2
    assert WRONG[1] in metadata["raw_input_math_shepherd_completer"][1][0]["content"]
    assert metadata["statistics_math_shepherd_completer"] == {"input_tokens": 6, "output_tokens": 6}


def test_generations_have_completions_of_their_own() -> None:
    answers = {WRONG[0]: [*MIXED[WRONG[0]], *[FAILS] * 3], WRONG[1]: [*[FAILS] * 3, *[REACHES] * 3]}
    task = completer(num_generations=2)

    first, second = asyncio.run(task.answer_row(TO_LABEL, Completing(answers)))

    assert first["solutions"] == LABELS
    assert [step[-1] for step in second["solutions"][0]] == ["-", "+", "-"]


def test_the_row_that_was_given_stays_as_it_is() -> None:
    before = copy.deepcopy(TO_LABEL)

    labelled(Completing(MIXED))

    assert before == TO_LABEL


def test_an_error_of_the_provider_fails_the_row_with_its_reason() -> None:
    async def refusing(prompt: Any, num_generations: int = 1) -> GenerateOutput:
        raise ContentFilterError("not this one")

    made = labelled(refusing)

    assert made[METADATA]["error_math_shepherd_completer"]["type"] == "ContentFilterError"
    assert isinstance(made[METADATA]["raw_input_math_shepherd_completer"][0], list)


COMPLETIONS = {
    "the form that was asked for": REACHES,
    "JSON of the schema": '{"steps": ["So."], "answer": "34"}',
    "JSON with a number, fenced": '```json\n{"steps": ["So."], "answer": 34}\n```',
    "JSON with a unit in LaTeX": r'{"steps": ["So."], "answer": "34 \text{ bottles}"}',
    "JSON below a preface": 'Here it is:\n{"steps": ["So. The answer is: 34"], "answer": "34"}',
    "JSON with another key": '{"solution": "Step 3: So. The answer is: 34"}',
    "thoughts before": "<think>The answer is: 1</think>\nThe answer is: 34",
    "a box alone": "So there are $\\boxed{34}$ bottles.",
    "a fraction": "The answer is: $\\frac{68}{2}$",
    "Markdown": "**Step 3:** So.\n\n**The answer is:** 34.",
    "the whole solution anew": AS_ASKED,
    "GSM8K's mark": "So.\n#### 34",
}


@pytest.mark.parametrize("completion", COMPLETIONS.values(), ids=COMPLETIONS)
def test_the_answer_of_a_completion_is_read_in_every_form(completion: str) -> None:
    made = completer().format_output(completion, TO_LABEL)

    assert [step[-1] for step in made["solutions"][0]] == ["+", "+", "-"]


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I don't know.",
        "Step 3: So.",
        "<think>The answer is: 34. Or",
        'By $3^{2}$: {"steps": ["The answer is: 34"], "answer": "34"}',
        '{"steps": ["The answer is: 34"], "ans',
        "{}",
    ],
)
def test_a_completion_without_an_answer_is_unreadable(completion: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="at the end"):
        completer().format_output(completion, TO_LABEL)


@pytest.mark.parametrize("reply", [IN_JSON, AS_ASKED])
@pytest.mark.parametrize("kind", [OneReplyLLM, StructuredOneReplyLLM])
def test_the_structured_path_gives_the_same_labels(kind: type[OneReplyLLM], reply: str) -> None:
    task = completer(llm=kind(reply=reply))

    (made,) = rows_of(task, [TO_LABEL])

    assert [step[-1] for step in made["solutions"][0]] == ["+", "+", "-"]
    schema = task.get_structured_output()
    assert strict_schema(schema) == schema
    assert getattr(task.llm, "schemas", [schema])[-1] == schema


@pytest.mark.parametrize(
    ("golden", "tag"),
    [(GOLDEN, "+"), ("34", "+"), ("$34", "+"), (json.dumps(GOLDEN), "+"), ("36 - 2 = 34\n#### 34", "+"), ("35", "-")],
)
def test_the_golden_solution_may_be_its_answer_alone(golden: Any, tag: str) -> None:
    row = {**TO_LABEL, "golden_solution": golden, "solutions": [RIGHT]}

    assert completer().format_output("The answer is: 34", row)["solutions"][0][-1][-1] == tag


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"solutions": None}, "solutions: expected a list of solutions"),
        ({"solutions": []}, "solutions: expected a list of solutions"),
        ({"solutions": [WRONG, ["Step 1: It is 34."]]}, "solutions: number 2: expected steps and, at the end"),
        ({"solutions": [[1, 2]]}, "solutions: number 1: expected a list of texts"),
        ({"golden_solution": GOLDEN[:2]}, "golden_solution: expected 'The answer is: '"),
        ({"golden_solution": None}, "golden_solution: expected a list of texts"),
        ({"instruction": None}, "instruction: expected a text"),
    ],
)
def test_a_row_that_cant_be_labelled_fails_with_the_reason(change: Row, reason: str) -> None:
    ask = Completing({})

    made = labelled(ask, {**TO_LABEL, **change})

    assert reason in made[METADATA]["error_math_shepherd_completer"]["message"]
    assert ask.asked == []


def test_a_golden_answer_may_look_like_a_list() -> None:
    row = {**TO_LABEL, "golden_solution": "[1, 2]", "solutions": [["Step 1: So.", "The answer is: $[1,2]$"]]}

    assert labelled(Completing({}), row)["solutions"] == [["Step 1: So. The answer is: $[1,2]$ +"]]


def test_solutions_may_be_json_and_hold_none_for_one_that_failed() -> None:
    made = labelled(Completing(MIXED), {**TO_LABEL, "solutions": json.dumps([WRONG, None, RIGHT])})

    assert made["solutions"] == LABELS


def test_grouped_golden_solutions_are_solutions_to_label() -> None:
    generator = MathShepherdGenerator(
        llm=OneReplyLLM(reply="\n".join(RIGHT)),
        num_generations=2,
        group_generations=True,
        output_mappings={"golden_solution": "solutions"},
    )

    (written,) = rows_of(generator, [PROBLEM])
    made = completer().format_output(REACHES, {**written, "golden_solution": GOLDEN})

    assert made["solutions"] == [LABELS[1]] * 2


def test_a_solution_of_one_step_asks_for_nothing() -> None:
    made = labelled(Completing({}), {**TO_LABEL, "solutions": [["Step 1: 3 * 12 - 2 = 34.", "The answer is: 34"]]})

    assert made["solutions"] == [["Step 1: 3 * 12 - 2 = 34. The answer is: 34 +"]]


def test_examples_of_the_completer_show_how_a_first_step_goes_on() -> None:
    task = completer(examples=[{**PROBLEM, "golden_solution": GOLDEN}])

    example, answer, asked = task.prompt(TO_LABEL)

    assert GOLDEN[0] in example["content"]
    assert GOLDEN[1] not in example["content"]
    assert answer["content"] == "\n".join(GOLDEN[1:])
    assert "Carry it on from step 2" in asked["content"]


def test_columns_can_have_other_names() -> None:
    task = completer(
        llm=OneReplyLLM(reply="The answer is: 34"),
        input_mappings={"solutions": "tries", "golden_solution": "gold"},
        output_mappings={"solutions": "labels"},
    )
    row = {**PROBLEM, "tries": [RIGHT], "gold": "34"}

    (made,) = rows_of(task, [row])

    assert made["tries"] == [RIGHT]
    assert made["labels"][0][0][-1] == "+"


def test_offline_batches_without_a_flow_are_refused_before_anything_is_sent(provider: LocalProvider) -> None:
    task = completer(llm=llm(use_offline_batch_generation=True))

    with pytest.raises(ParameterError, match="needs a flow"):
        rows_of(task, [TO_LABEL])

    assert provider.requests == []


# The formats.


def formatted(row: Row, **options: Any) -> Row:
    (made,) = next(FormatPRM(**options).process([row]))
    return made


ONE_LABELLED: Row = {"instruction": "How many are left?", "solutions": LABELS[0]}


def test_the_math_shepherd_format_is_that_of_the_dataset() -> None:
    made = formatted(ONE_LABELLED)

    assert made["input"] == (
        "How many are left? Step 1: 3 * 12 = 36. ки\nStep 2: 36 + 2 = 38. ки\nStep 3: It is 38. The answer is: 38 ки"
    )
    assert made["label"] == (
        "How many are left? Step 1: 3 * 12 = 36. +\nStep 2: 36 + 2 = 38. -\nStep 3: It is 38. The answer is: 38 -"
    )


def test_a_label_stands_where_the_token_does() -> None:
    made = formatted(ONE_LABELLED, step_token="§")

    places = [place for place, sign in enumerate(made["input"]) if sign == "§"]
    assert [made["label"][place] for place in places] == ["+", "-", "-"]


@pytest.mark.parametrize(
    "row",
    [
        {**ONE_LABELLED, "instruction": "У Маши 3 ручки и 2 тетради. Сколько всего?"},
        {**ONE_LABELLED, "solutions": ["Step 1: 3 ручки. +", "Step 2: The answer is: 5 -"]},
    ],
    ids=["in the problem", "in a step"],
)
def test_a_row_that_holds_the_step_token_already_fails_and_says_what_to_do(row: Row) -> None:
    problem = (failure_in(formatted(row)) or {})["message"]

    assert "'ки'" in problem and "step_token" in problem
    assert formatted(row, step_token="<step>")["input"].count("<step>") == len(row["solutions"])
    assert formatted(row, format="trl")["prompt"] == row["instruction"]


def test_the_trl_format_has_a_label_for_each_completion() -> None:
    made = formatted(ONE_LABELLED, format="trl")

    assert {name: made[name] for name in ("prompt", "completions", "labels")} == {
        "prompt": "How many are left?",
        "completions": ["Step 1: 3 * 12 = 36.", "Step 2: 36 + 2 = 38.", "Step 3: It is 38. The answer is: 38"],
        "labels": [True, False, False],
    }
    assert "input" not in made


def test_tags_of_several_letters_are_taken_off_whole() -> None:
    row = {**ONE_LABELLED, "solutions": ["Step 1: 1 + 1 = 2. good", "Step 2: Done. bad"]}

    made = formatted(row, format="trl", tags=["good", "bad"])

    assert made["completions"] == ["Step 1: 1 + 1 = 2.", "Step 2: Done."]
    assert made["labels"] == [True, False]


@pytest.mark.parametrize(
    ("solutions", "reason"),
    [
        (LABELS, "ExpandColumns"),
        ([], "a list of steps"),
        (GOLDEN, "'+' or '-' at each step's end"),
        (["Step 1: 1-"], "'+' or '-' at each step's end"),
        (None, "expected a list"),
    ],
)
def test_a_row_that_cant_be_formatted_fails_with_the_reason(solutions: Any, reason: str) -> None:
    made = formatted({**ONE_LABELLED, "solutions": solutions})

    failure = failure_in(made)
    assert failure is not None
    assert reason in failure["message"]
    assert made["input"] is None
