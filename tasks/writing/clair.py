"""CLAIR: a solution revised with as few changes as it takes, for preference pairs that differ in what counts."""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import Field

from llms.parameters import short
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.reading.replies import closed_object, object_in, tagged, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row
from tasks.writing.text_generation import text_of

SYSTEM_PROMPT = (
    "You are an experienced teacher. You improve what students hand in with a light hand: you mend what matters, and"
    " leave the rest as it is."
)
REASONING, SOLUTION = "reasoning", "corrected_solution"
TITLE = re.compile(
    r"^[#*_ \t>]*(?:(?:the\s+)?(?:corrected|revised|improved)\s+(?:student(?:['’]s)?\s+)?(?:solution|answer|version))"
    r"[*_\s]*(?::[*_]*[^\S\n]*|$)",
    re.IGNORECASE | re.MULTILINE,
)
REASONING_TITLE = re.compile(
    r"^[#*_ \t>]*(?:(?:teacher(?:['’]s)?\s+)?(?:reasoning|rationale|thoughts|analysis))[*_\s]*(?::[*_]*|$)",
    re.IGNORECASE | re.MULTILINE,
)


class CLAIR(Task):
    """Revises a student's solution with as few changes as it takes to make it clearly better, and says why.

    The pair of the solution and its revision is a contrastive one: little but what counts tells them apart.

    Input columns:
        task: what was to be done.
        student_solution: how it was done.

    Output columns:
        revision: the solution revised.
        rational: the thoughts behind the changes.
        model_name: the model that revised.

    Source: Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment
    (https://arxiv.org/abs/2408.06266).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import CLAIR
        >>> task = CLAIR(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"task": "How high is K2?", "student_solution": "8,600 metres."}
        >>> task.format_output('''<reasoning>
        ... The number is rounded.
        ... </reasoning>
        ... <corrected_solution>
        ... 8,611 metres.
        ... </corrected_solution>''', row)
        {'revision': '8,611 metres.', 'rational': 'The number is rounded.'}
    """

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    system_prompt: Annotated[
        str | None, Field(title="System prompt", description="Put before the prompt, where the prompt has none.")
    ] = SYSTEM_PROMPT

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("clair",)

    @property
    def inputs(self) -> Columns:
        return ["task", "student_solution"]

    @property
    def outputs(self) -> Columns:
        return ["revision", "rational", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "clair",
            task=text_in(input, "task"),
            student_solution=text_in(input, "student_solution"),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return closed_object({REASONING: {"type": "string"}, SOLUTION: {"type": "string"}}, title="revision")

    def format_output(self, output: str | None, input: Row) -> Row:
        rational, revision = parse_revision(text_of(output))
        return {"revision": revision, "rational": rational}

    def format_example(self, example: Row) -> str:
        if self.wanted_schema() is not None:
            shown = {REASONING: example["rational"], SOLUTION: example["revision"]}
            return json.dumps(shown, ensure_ascii=False)
        return (
            f"<{REASONING}>\n{example['rational']}\n</{REASONING}>\n\n"
            f"<{SOLUTION}>\n{example['revision']}\n</{SOLUTION}>"
        )


def parse_revision(text: str) -> tuple[str, str]:
    """The thoughts and the revised solution in a reply: between tags, in JSON, or below titles.

    Raises:
        UnreadableAnswerError: one of the two is missing or there twice.
    """
    said = without_thoughts(text).strip()
    solution = tagged(said, SOLUTION)
    if solution is not None:
        thoughts = tagged(said, REASONING)
        reasoning = re.split(f"<{SOLUTION}>", said, flags=re.IGNORECASE)[0] if thoughts is None else thoughts
    elif re.search(rf"\{{\s*[\"'](?:{REASONING}|{SOLUTION})[\"']\s*:", said):
        found = object_in(said, REASONING, SOLUTION)
        reasoning, solution = found[REASONING], found[SOLUTION]
    else:
        reasoning, solution = below_titles(said)
    for name, value in ((REASONING, reasoning), (SOLUTION, solution)):
        if not isinstance(value, str) or not value.strip():
            raise UnreadableAnswerError(f"{name}: expected a text, got {short(value)} in {short(said)}")
    return reasoning.strip(), solution.strip()


def below_titles(text: str) -> tuple[str, str]:
    """The thoughts and the solution of a reply with a title line, or a label, before the solution."""
    titles = list(TITLE.finditer(text))
    if len(titles) != 1:
        raise UnreadableAnswerError(
            f"expected the reasoning and a corrected solution, found {len(titles)} solutions in {short(text)}"
        )
    before = text[: titles[0].start()].strip()
    return REASONING_TITLE.sub("", before, count=1), text[titles[0].end() :]
