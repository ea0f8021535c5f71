"""Solutions verified by a judge: an LLM, for what no answer and no test decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from llms import LLMError
from llms.parameters import short
from llms.typing import ChatItem, ChatType, FormattedInput, JSONSchema
from tasks.base import Answer, Task, UnreadableAnswerError, answered_by, failed, summed, with_tokens
from tasks.cells import text_in, whole_text
from tasks.judging.judges import answered_in_turn
from tasks.reading.labelled import one_of, tidy, without_opening
from tasks.reading.replies import closed_object, object_in, without_fences, without_thoughts
from tasks.steps import failure_in
from tasks.templates import render
from tasks.typing import Ask, Columns, Row
from tasks.verifying.answers import reference_in
from tasks.verifying.verdicts import (
    VERDICT_COLUMNS,
    Verdict,
    columns_of,
    solutions_in,
    undecided,
    verdicts_in,
)

VERDICTS = {"right": True, "wrong": False, "unsure": None}
VERDICT = re.compile(r"^[ \t>#*_`•+-]*(?:final\s+)?verdict[\s*_`]*[:=](?P<said>[^\n]*)", re.IGNORECASE | re.MULTILINE)


class JudgeSolution(Task):
    """Decides whether solutions are right, where no verifier before it has: compared with the answer, or by itself.

    It asks once for each solution that isn't decided, and for a row whose solutions all are not at all. One that it is
    unsure of, whose request is refused, or of which its reply can't be read, stays undecided, and the row doesn't fail.

    Input columns:
        problem: the problem.
        generation: a solution, or a list of them.
        answer (optional): the right answer, to compare with.
        correct, verified_by, verification (optional): what verifiers before it decided. It stays.

    Output columns:
        correct: whether the solution is right; None for undecided. Of a list of solutions, a list, as below.
        verified_by: `judge`, where it decided.
        verification: what decided it, or why it isn't decided.
        model_name: the model that judged.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import JudgeSolution
        >>> task = JudgeSolution(llm=OpenAILLM(model="gpt-4o"))
        >>> task.format_output("Rationale: It's the same city.\\nVerdict: right", {})
        {'correct': True, 'verified_by': 'judge', 'verification': "It's the same city."}
    """

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("verifying/judge",)

    @property
    def inputs(self) -> Columns:
        return {"problem": True, "generation": True, "answer": False, **dict.fromkeys(VERDICT_COLUMNS, False)}

    @property
    def outputs(self) -> Columns:
        return [*VERDICT_COLUMNS, "model_name"]

    def format_input(self, input: Row) -> ChatType:
        """The prompt for a solution; of several, for the first."""
        solution = next(filter(None, solutions_in(input)), None)
        answer = input.get("answer")
        prompt = render(
            "verifying/judge",
            problem=text_in(input, "problem"),
            answer=None if answer is None or answer == "" else reference_in(answer),
            solution=whole_text(solution, "generation"),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        verdict = {"type": "string", "enum": list(VERDICTS)}
        return closed_object({"rationale": {"type": "string"}, "verdict": verdict}, title="judgement")

    def format_output(self, output: str | None, input: Row) -> Row:
        """The columns for one solution."""
        return columns_of([read_verdict(output or "")], {})

    def format_example(self, example: Row) -> str:
        verdict = next(name for name, correct in VERDICTS.items() if correct is example["correct"])
        if self.wanted_schema() is not None:
            return json.dumps({"rationale": example["verification"], "verdict": verdict}, ensure_ascii=False)
        return f"Rationale: {example['verification']}\nVerdict: {verdict}"

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        alone = self._alone(row)
        prompts = {place: self.prompt(each) for place, each in alone.items()}
        replies = await asyncio.gather(*(self._judged(alone[place], prompts[place], ask) for place in prompts))
        return [
            of_all(row, dict(zip(prompts, answers, strict=True)))
            for answers in (zip(*replies, strict=True) if replies else [()] * self.num_generations)
        ]

    def _alone(self, row: Row) -> dict[int, Row]:
        """By their places, the row for each solution that isn't decided."""
        solutions = solutions_in(row)
        places = undecided(solutions, verdicts_in(row))
        rest = {name: value for name, value in row.items() if name not in VERDICT_COLUMNS}
        return {place: {**rest, "generation": solutions[place]} for place in places}

    async def _judged(self, row: Row, prompt: FormattedInput, ask: Ask) -> list[Answer]:
        """What the judge says of a solution. Raises LLMError where another try may end otherwise."""
        try:
            output = await ask(prompt, self.num_generations)
        except LLMError as error:
            if error.fatal or error.retryable:
                raise
            unanswered = failed(Answer(raw_input=prompt[0] if isinstance(prompt, tuple) else prompt), error)
            return [with_tokens(unanswered, error), *[unanswered] * (self.num_generations - 1)]
        return [self.read(text, row, prompt, output, place) for place, text in enumerate(output["generations"])]

    def _offline_asks(self, rows: Sequence[Row]) -> dict[int, Ask]:
        # Whatever is to be judged of all rows goes into the same batch jobs.
        prompts: list[tuple[int, FormattedInput]] = []
        for place, row in enumerate(rows):
            # A row without a prompt fails when it's answered.
            with contextlib.suppress(Exception):
                if failure_in(row) is None:
                    prompts += [(place, self.prompt(each)) for each in self._alone(self.seen(row)).values()]
        outputs = self.llm.generate_outputs([prompt for _, prompt in prompts], self.num_generations)
        by_row: dict[int, list[Ask]] = {}
        for (place, prompt), output in zip(prompts, outputs, strict=True):
            by_row.setdefault(place, []).append(answered_by(prompt, output))
        return {place: answered_in_turn(those) for place, those in by_row.items()}


def of_all(row: Row, answers: dict[int, Answer]) -> Answer:
    """One answer from those about a row's solutions, by their places. The others are decided, and stay as they are."""
    verdicts = verdicts_in(row)
    for place, answer in answers.items():
        if answer.failure is None:
            verdicts[place] = Verdict(*(answer.columns[name] for name in VERDICT_COLUMNS))
        else:
            verdicts[place] = Verdict(why=f"the judge gave no verdict: {answer.failure['message']}")
    several = isinstance(row.get("generation"), list)
    prompts: list[Any] = [answer.raw_input for answer in answers.values()]
    texts: list[Any] = [answer.raw_output for answer in answers.values()]
    return replace(
        summed(list(answers.values())),
        columns=columns_of(verdicts, row),
        raw_input=prompts if several else next(iter(prompts), None),
        raw_output=texts if several else next(iter(texts), None),
    )


def read_verdict(output: str) -> Verdict:
    """The verdict in a reply, as JSON or in the form with labels. Raises UnreadableAnswerError."""
    said = without_fences(without_thoughts(output))
    labels = [] if said.startswith("{") else list(VERDICT.finditer(said))
    if len(labels) == 1:
        verdict = labels[0]["said"]
        rationale = said[: labels[0].start()].strip() or said[labels[0].end() :]
    else:
        found = {name.lower(): value for name, value in object_in(said).items()}
        if "verdict" not in found:
            raise UnreadableAnswerError(f"expected 'rationale' and 'verdict', got {short(output)}")
        verdict, rationale = found["verdict"], str(found.get("rationale") or "")
    correct = VERDICTS[one_of(verdict, list(VERDICTS), "verdict")]
    return Verdict(correct, None if correct is None else "judge", tidy(without_opening(rationale)) or None)
