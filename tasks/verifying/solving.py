"""Problems solved by a model, with what it thought on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from llms.typing import ChatItem, ChatType, FormattedInput, GenerateOutput
from tasks.base import Answer, Task
from tasks.cells import text_in
from tasks.reading.replies import without_thoughts
from tasks.templates import render
from tasks.typing import Ask, Columns, Row
from tasks.verifying.code import tests_in
from tasks.writing.text_generation import text_of


class SolveProblem(Task):
    """Solves a problem, in a form that can be verified, and keeps the reasoning apart from the solution.

    A problem with tests is to be solved in Python, in a code block; one with an answer is to end in `\\boxed{}`.
    Neither the answer nor the tests are shown.

    Reasoning is what the provider shows of it (`reasoning_content`, thinking blocks), or what stands between `<think>`
    and `</think>`. A model that shows none can be asked to think in these tags: `think_aloud`.

    Of grouped solutions, one without a text (cut off in its thoughts, or withheld) is None, and fails its row only
    where all are.

    Input columns:
        problem: the problem.
        answer (optional): its right answer.
        tests (optional): its tests, as `VerifyCode` takes them.

    Output columns:
        solution: what the model answered, without its thoughts.
        reasoning (with `add_reasoning`): what it thought before; None where that isn't known.
        model_name: the model that solved it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import SolveProblem
        >>> task = SolveProblem(llm=OpenAILLM(model="gpt-4o-mini"), think_aloud=True)
        >>> task.format_output("<think>3 * 12 = 36.</think>\\n36 - 2 = 34: \\\\boxed{34}", {})
        {'solution': '36 - 2 = 34: \\\\boxed{34}'}
    """

    form_first = ("llm", "num_generations", "think_aloud")
    add_reasoning: Annotated[
        bool, Field(title="Keep reasoning", description="In the column `reasoning`: what the model thought before.")
    ] = True
    think_aloud: Annotated[
        bool,
        Field(
            title="Think aloud",
            description="Ask for thoughts between <think> and </think>: for models that show none by themselves.",
        ),
    ] = False

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("verifying/solve",)

    @property
    def inputs(self) -> Columns:
        return {"problem": True, "answer": False, "tests": False}

    @property
    def outputs(self) -> Columns:
        return ["solution", "model_name"]

    def format_input(self, input: Row) -> ChatType:
        kind, function = form_of(input)
        prompt = render(
            "verifying/solve",
            problem=text_in(input, "problem"),
            kind=kind,
            function=function,
            think_aloud=self.think_aloud,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"solution": text_of(without_thoughts(output or "")).strip()}

    def read(self, text: str | None, row: Row, prompt: FormattedInput, output: GenerateOutput, place: int) -> Answer:
        answer = super().read(text, row, prompt, output, place)
        return answer if answer.reasoning else replace(answer, reasoning=thoughts_in(text or ""))

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        answers = await super().converse(row, ask)
        if not self.group_generations or all(answer.failure is not None for answer in answers):
            return answers
        return [answer if answer.failure is None else without_solution(answer) for answer in answers]


def without_solution(answer: Answer) -> Answer:
    """An answer that failed, as one without a solution: those beside it have one."""
    return replace(answer, columns={"solution": None}, unfinished=not answer.cut_off, failure=None)


def thoughts_in(text: str) -> str | None:
    """What stands in a text between `<think>`, which may be missing, and `</think>`; None where that's nothing."""
    return text.rpartition("</think>")[0].replace("<think>", "").strip() or None


def form_of(row: Row) -> tuple[str, str]:
    """The form that a solution needs to be verified: `program`, `code`, `answer` or `text`; and a function's name."""
    if row.get("tests") not in (None, "", []):
        try:
            first = tests_in(row["tests"])[0]
        except ValueError:
            return "code", ""
        return "program" if first.kind == "prints" else "code", first.arguments.get("function", "")
    return "text" if row.get("answer") in (None, "") else "answer", ""
