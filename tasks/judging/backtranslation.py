"""Instruction backtranslation: an LLM scores how well a text would do as an assistant's answer to an instruction."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task
from tasks.cells import text_in
from tasks.reading.labelled import reason_and_score
from tasks.reading.replies import closed_object
from tasks.templates import render
from tasks.typing import Columns, Row

LOWEST, HIGHEST = 1, 5


class InstructionBacktranslation(Task):
    """Scores from 1 to 5 how well a text would do as an AI assistant's answer to an instruction, and says why.

    It's the curation step of the paper: instructions are written for texts from the web, and the pairs
    with the best scores are kept for training.

    Input columns:
        instruction: the prompt.
        generation: the text that may answer it.

    Output columns:
        score: a whole number from 1 to 5.
        reason: what decided it.
        model_name: the model that scored.

    Source: Self-Alignment with Instruction Backtranslation (https://arxiv.org/abs/2308.06259).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import InstructionBacktranslation
        >>> task = InstructionBacktranslation(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"instruction": "How high is K2?", "generation": "It is 8,611 m high. More on my blog!"}
        >>> task.format_output("Reason: Right, but it advertises a blog.\\nScore: 3", row)
        {'score': 3, 'reason': 'Right, but it advertises a blog.'}
    """

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("backtranslation",)

    @property
    def inputs(self) -> Columns:
        return ["instruction", "generation"]

    @property
    def outputs(self) -> Columns:
        return ["score", "reason", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "backtranslation",
            instruction=text_in(input, "instruction"),
            generation=text_in(input, "generation"),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        score = {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))}
        return closed_object({"reason": {"type": "string"}, "score": score}, title="assessment")

    def format_output(self, output: str | None, input: Row) -> Row:
        reason, score = reason_and_score(output or "", LOWEST, HIGHEST)
        return {"score": score, "reason": reason}

    def format_example(self, example: Row) -> str:
        reason, score = example["reason"], example["score"]
        if self.wanted_schema() is not None:
            return json.dumps({"reason": reason, "score": score}, ensure_ascii=False)
        return f"Reason: {reason}\nScore: {score}"
