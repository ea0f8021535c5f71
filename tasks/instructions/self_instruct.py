"""Instructions that a text suggests."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, cast

from pydantic import Field

from llms.parameters import short
from llms.quantities import quantity
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.reading.replies import closed_object, list_in, object_in, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row

CRITERIA = """\
Let the queries differ in what they ask for, in their wording and in their length: questions and requests, plain ones
and ones that need thought. Write each as a person would who wants something from the application: to the point, and
with a verb that says what is to be done. Leave out anything that can't be answered with words alone."""

ITEM = re.compile(
    r"^\s*+(?:[-*•]\s++)?[*_#\s]*+(?:(?:instruction|query|question|prompt|task)\s*(?:no\.?\s*)?#?)?\s*\(?"
    r"(?P<number>\d{1,3})[*_]*\s*[.):\]]+(?:\s+|[*_]+\s*)(?P<text>.*)$",
    re.IGNORECASE,
)
JSON = re.compile(r"(?:[^\n]{0,200}\n\s*)?(?:```\w*\s*)?[{\[]\s*[\"'{\]]")
FENCE = re.compile(r"^\s*```\s*\w*\s*$")
BULLET = re.compile(r"^\s*[-*•–]\s+(?P<text>.*)$")


class SelfInstruct(Task):
    """Writes instructions that people could give to an application, about a text.

    They are texts without number, bullet or quotation marks: the first `num_instructions` of an answer. A whole JSON
    list may have fewer; a list in lines that has fewer may be cut off, and fails its row. So does a text twice.

    Input columns:
        input: the text that the instructions draw on.

    Output columns:
        instructions: a list of texts.
        model_name: the model that wrote them.

    Source: Self-Instruct: Aligning Language Models with Self-Generated Instructions
    (https://arxiv.org/abs/2212.10560).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import SelfInstruct
        >>> task = SelfInstruct(llm=OpenAILLM(model="gpt-4o-mini"), num_instructions=2)
        >>> task.format_output('''Here are two queries:
        ...
        ... 1. How high is K2?
        ... 2. Who climbed K2 first?''', {"input": "K2 is a mountain."})
        {'instructions': ['How high is K2?', 'Who climbed K2 first?']}
    """

    form_first = ("llm", "num_instructions")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    num_instructions: Annotated[int, Field(ge=1, title="Instructions", description="How many per row.")] = 5
    application_description: Annotated[
        str, Field(title="Application", description="What the instructions are given to, and what it's for.")
    ] = "An AI assistant that answers questions and helps with all kinds of work."
    criteria_for_query_generation: Annotated[
        str, Field(title="Criteria", description="What the instructions have to be like.")
    ] = CRITERIA

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("self_instruct",)

    @property
    def inputs(self) -> Columns:
        return ["input"]

    @property
    def outputs(self) -> Columns:
        return ["instructions", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "self_instruct",
            input=text_in(input, "input"),
            count=self.num_instructions,
            application_description=self.application_description,
            criteria=self.criteria_for_query_generation,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        """Each instruction has a key of its own, so that there are as many as were asked for."""
        keys = map(key_of, range(1, self.num_instructions + 1))
        return closed_object({key: {"type": "string"} for key in keys}, title="instructions")

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"instructions": parse_instructions(output or "", self.num_instructions)}

    def format_example(self, example: Row) -> str:
        instructions = cast("list[str]", example["instructions"])
        if self.wanted_schema() is not None:
            return json.dumps({key_of(n): text for n, text in enumerate(instructions, 1)}, ensure_ascii=False)
        return "\n".join(f"{number}. {text}" for number, text in enumerate(instructions, 1))


def key_of(number: int) -> str:
    """The key of an instruction in a reply in JSON."""
    return f"instruction_{number}"


def parse_instructions(text: str, count: int) -> list[str]:
    """The instructions in a reply: a list with numbers or bullets, a line each, or JSON.

    Of more than `count` the first ones. Fewer are whole only where JSON says that no more were to come.

    Raises:
        UnreadableAnswerError: there are too few, or one of them is empty or there twice.
    """
    said = without_thoughts(text).strip()
    first = said.partition("\n")[0]
    is_list = ITEM.match(first) or BULLET.match(first)
    as_json = bool(JSON.match(said)) and not is_list
    instructions = [bare(each) for each in (in_json(said) if as_json else in_lines(said))][:count]
    if len(instructions) < (1 if as_json else count) or not all(instructions):
        wanted, got = quantity(count, "instruction"), sum(map(bool, instructions))
        raise UnreadableAnswerError(f"expected {wanted}, got {got}: {short(said)}")
    if len({each.casefold() for each in instructions}) < len(instructions):
        raise UnreadableAnswerError(f"expected {count} different instructions, some are there twice: {short(said)}")
    return instructions


def in_json(text: str) -> list[str]:
    """The texts of a JSON list, or of an object with a key for each or with one list."""
    try:
        values: Sequence[Any] = list_in(text)
    except UnreadableAnswerError:
        found = object_in(text)
        numbers = {name: re.search(r"\d+$", name) for name in found}
        if not all(numbers.values()):
            raise
        values = [found[name] for name in sorted(found, key=lambda name: int(re.findall(r"\d+$", name)[0]))]
    texts = [each for each in map(text_of_entry, values) if each is not None]
    if len(texts) < len(values):
        raise UnreadableAnswerError(f"expected a list of texts, got {short(text)}")
    return texts


def text_of_entry(value: Any) -> str | None:
    """An entry of a list: a text, or an object with a text alone."""
    if isinstance(value, dict):
        texts = [each for each in cast("Row", value).values() if isinstance(each, str)]
        return texts[0] if len(texts) == 1 else None
    return value if isinstance(value, str) else None


def in_lines(text: str) -> list[str]:
    """The entries of a list in plain text.

    Lines below a numbered entry belong to it. After the last entry, what follows a blank line is an afterword, unless
    other entries have several paragraphs too.
    """
    lines = text.splitlines()
    if text.count("```") % 2:
        raise UnreadableAnswerError(f"a code fence isn't closed (cut off?): {short(text)}")
    marker = next((each for line in lines for each in (ITEM, BULLET) if each.match(line)), None)
    starts = entry_lines(lines, marker) if marker else []
    if marker and starts:
        return entries(lines, starts, marker)
    plain = [line.strip() for line in lines if line.strip() and not FENCE.match(line)]
    return plain[1:] if plain and plain[0].endswith(":") else plain


def entry_lines(lines: Sequence[str], marker: re.Pattern[str]) -> list[int]:
    """The places of the lines that begin an entry: those that count on from 1, or all that have a bullet.

    Lines that stand further in are of a list inside an entry.

    Raises:
        UnreadableAnswerError: the numbers don't count on.
    """
    places: list[int] = []
    for place, line in enumerate(lines):
        found = marker.match(line)
        if found is None or (places and indent(line) > indent(lines[places[0]]) + 1):
            continue
        number = int(found.groupdict().get("number", len(places) + 1))
        if number == len(places) + 1:
            places.append(place)
        elif places:
            raise UnreadableAnswerError(f"expected instruction {len(places) + 1}, got number {number}: {short(line)}")
    return places


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def entries(lines: Sequence[str], starts: Sequence[int], marker: re.Pattern[str]) -> list[str]:
    bodies: list[str] = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found = marker.match(lines[start])
        bodies.append(whole_fences([found["text"] if found else "", *lines[start + 1 : end]]))
    if not any("\n\n" in re.sub(r"\n\s*\n", "\n\n", body) for body in bodies[:-1]):
        bodies[-1] = re.split(r"\n\s*\n", bodies[-1], maxsplit=1)[0]
    return bodies


def whole_fences(lines: Sequence[str]) -> str:
    """The text of an entry without the fence that closes around the whole list. Code of its own has two."""
    fences = [place for place, line in enumerate(lines) if FENCE.match(line)]
    return "\n".join(lines[: fences[-1]] if len(fences) % 2 else lines).strip()


def bare(text: str) -> str:
    """An entry without the emphasis and the quotation marks around all of it."""
    text = text.strip()
    for opening, closing in (("**", "**"), ('"', '"'), ("“", "”"), ("`", "`")):
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text == opening + inner + closing and closing not in inner:
            text = inner.strip()
    return text
