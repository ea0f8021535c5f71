"""DEITA's scorers: an LLM scores several instructions for complexity, or several responses for quality."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import Field

from llms.parameters import short
from llms.quantities import quantity
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in, texts_in
from tasks.reading.replies import closed_object, json_in, object_in, whole_number, without_fences, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row

LOWEST, HIGHEST = 1, 6

Noun: TypeAlias = Literal["instruction", "response"]


class Scorer(Task):
    """Scores several items side by side, from 1 to 6, in one request. An item is joined to its score by its number."""

    noun: ClassVar[Noun]
    """What is scored. The column has its plural for a name."""

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True

    @property
    @abstractmethod
    def criteria(self) -> str:
        """The template that says what is scored."""

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("scorers/request", self.criteria)

    @property
    def outputs(self) -> Columns:
        return ["scores", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        items = texts_in(input, f"{self.noun}s")
        structured = self.wanted_schema() is not None
        prompt = render(
            "scorers/request",
            noun=self.noun,
            criteria=render(self.criteria),
            instruction=text_in(input, "instruction") if "instruction" in self.inputs else None,
            items=items,
            count=len(items),
            lowest=LOWEST,
            highest=HIGHEST,
            structured=structured,
        )
        chat = [ChatItem(role="user", content=prompt.strip())]
        return (chat, scores_schema(self.noun, len(items))) if structured else chat

    def get_structured_output(self) -> JSONSchema:
        """The schema for two items; a prompt's own has as many as the row."""
        return scores_schema(self.noun, 2)

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"scores": parse_scores(output or "", self.noun, len(texts_in(input, f"{self.noun}s")))}

    def format_example(self, example: Row) -> str:
        scores = list(enumerate(cast("list[Any]", example["scores"]), 1))
        if self.wanted_schema() is not None:
            return json.dumps({f"{self.noun}_{number}": score for number, score in scores})
        return "\n".join(f"[{number}] Score: {score}" for number, score in scores)


class ComplexityScorer(Scorer):
    """Scores how complex each of several instructions is, from 1 to 6, all in one request.

    The paper gives it an instruction with its evolved variants, so that small differences show.

    Input columns:
        instructions: a list of texts.

    Output columns:
        scores: a whole number from 1 to 6 per instruction; 6 is the most complex.
        model_name: the model that scored.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in
    Instruction Tuning (https://arxiv.org/abs/2312.15685).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import ComplexityScorer
        >>> task = ComplexityScorer(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"instructions": ["How high is K2?", "Plan an ascent of K2 in winter for two."]}
        >>> task.format_output("Here are the scores:\\n[2] Score: 5\\n[1] Score: 1", row)
        {'scores': [1, 5]}
    """

    noun: ClassVar[Noun] = "instruction"

    @property
    def criteria(self) -> str:
        return "scorers/complexity"

    @property
    def inputs(self) -> Columns:
        return ["instructions"]


class QualityScorer(Scorer):
    """Scores how good each of several responses to an instruction is, from 1 to 6, all in one request.

    The paper gives it a response with its evolved variants, so that small differences show.

    Input columns:
        instruction: the prompt.
        responses: the responses to it, a list of texts.

    Output columns:
        scores: a whole number from 1 to 6 per response; 6 is the best.
        model_name: the model that scored.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in
    Instruction Tuning (https://arxiv.org/abs/2312.15685).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import QualityScorer
        >>> task = QualityScorer(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"instruction": "How high is K2?", "responses": ["High.", "8,611 m."]}
        >>> task.format_output('{"response_1": 2, "response_2": 6}', row)
        {'scores': [2, 6]}
    """

    noun: ClassVar[Noun] = "response"

    @property
    def criteria(self) -> str:
        return "scorers/quality"

    @property
    def inputs(self) -> Columns:
        return ["instruction", "responses"]


def scores_schema(noun: Noun, count: int) -> JSONSchema:
    """The JSON schema of a reply: a key for each item, so that none can be left out, doubled or taken for another."""
    score = {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))}
    return closed_object({f"{noun}_{number}": score for number in range(1, count + 1)}, title="scores")


# Reading a reply. It becomes pairs: the number of an item, if it was given, and what was said to be its score.

Said: TypeAlias = list[tuple[int | None, Any]]

MARKUP = r"[\s>*_`#|•+-]*+"
ITEM = r"(?:instruction|question|prompt|response|answer|item|text)s?"
HEADER = re.compile(
    # `Instruction 1`, `Score 1`, `2. **Score of response #1**`; `[1]`, `2. [1]`; `1.`, `1:`, `| 1 |`, `1 - `
    rf"^{MARKUP}(?:(?:\d+[.)]\s+)?{MARKUP}(?:(?:score|rating)s?\s+(?:of|for)\s+)?(?:the\s+)?(?:{ITEM}|score|rating)"
    r"[\s_]*(?:number|no\.?)?[\s#\[(*_`]*(?P<named>\d+)[\])]*"
    rf"|(?:\d+[.)]\s+)?{MARKUP}[\[(](?P<bracketed>\d+)[\])]"
    r"|(?P<alone>\d+)(?=[.)]\s|\s*[:|=]|\s+[–—-]\s))(?P<rest>(?!\d).*)$",
    re.IGNORECASE,
)
SCORE = (
    r"(?:(?:complexity|quality|overall|final)\s+)?(?:score|rating)s?[*_`]*\s*(?:[:=]|\bis\b|[–—-]\s)\s*(?P<score>\S.*)$"
)
SCORE_FIRST = re.compile(rf"^{MARKUP}[(\[,;:.–—→>=]*+{MARKUP}{SCORE}", re.IGNORECASE)
SCORE_LATER = re.compile(rf"[\s(\[,;]{MARKUP}{SCORE}", re.IGNORECASE)
NAME = re.compile(rf"(?:(?:score|rating)[\s_]*(?:of|for)?[\s_]*)?(?:{ITEM})?[\s_#\[]*(?P<number>\d+)\]?", re.IGNORECASE)
SEPARATOR = re.compile(r"^[\s*_`]*(?:[.:|=)→]|->|=>|[–—-]\s|\s)[\s*_`:|]*")


def parse_scores(text: str, noun: Noun, count: int) -> list[int]:
    """The scores in a reply, in the order of the items.

    It takes lines with the items' numbers, wherever they stand and however they are dressed, and JSON.

    Args:
        text: the reply.
        noun: what was scored.
        count: how many were.

    Raises:
        UnreadableAnswerError: an item has no score or two, or one isn't a whole number from 1 to 6.
    """
    said = without_fences(without_thoughts(text))
    found = said_in_lines(said)
    if not found and re.search(r"[{\[]", said):
        found = said_in_json(value_in(said))
    if count == 1 and len(found) == 1 and found[0][0] is None:
        found = [(1, found[0][1])]
    check_numbers([number for number, _ in found], noun, count, text)
    by_number = dict(found)
    return [
        whole_number(by_number[number], LOWEST, HIGHEST, f"{noun} {number}: score") for number in range(1, count + 1)
    ]


def check_numbers(numbers: Sequence[int | None], noun: Noun, count: int, text: str) -> None:
    """Raises UnreadableAnswerError where the numbers aren't those of the items, each once."""
    times = Counter(numbers)
    problems = {
        "scored more than once": [number for number in times if number is not None and times[number] > 1],
        "not scored": [number for number in range(1, count + 1) if number not in times],
        "not among them": [number for number in times if number is not None and not 1 <= number <= count],
    }
    wrong = [f"{noun} {', '.join(map(str, those))} {problem}" for problem, those in problems.items() if those]
    if None in times:
        wrong.insert(0, "a score without a number")
    if wrong:
        raise UnreadableAnswerError(
            f"expected one score for each of {quantity(count, noun)}, by its number; got {'; '.join(wrong)}:"
            f" {short(text)}"
        )


def said_in_lines(text: str) -> Said:
    """Numbers and scores in a text, where a score stands beside its item's number or on a line of its own below."""
    found: Said = []
    current: int | None = None
    for line in text.splitlines():
        header = HEADER.match(line)
        if header is None:
            score = SCORE_FIRST.match(line)
            if score is not None:
                found.append((current, score["score"]))
                current = None
            continue
        number, rest = int(header["named"] or header["bracketed"] or header["alone"]), header["rest"]
        score = score_beside(rest)
        if score is not None:
            found.append((number, score))
            current = None
        elif SEPARATOR.match(rest) or not rest.strip(" *_`#:|"):
            current = number
    return found


def score_beside(rest: str) -> str | None:
    """The score in what follows an item's number on its line."""
    first = SCORE_FIRST.match(rest)
    if first is not None:
        return first["score"]
    separator = SEPARATOR.match(rest)
    if separator is None:
        return None
    after = rest[separator.end() :]
    later = SCORE_LATER.search(after) if separator[0].strip() else None
    if later is not None:
        return later["score"]
    return after if after[:1].isdigit() else None


def value_in(text: str) -> Any:
    """The JSON value in a reply, or the Python dict. Raises UnreadableAnswerError where there's none."""
    try:
        return json_in(text)[1]
    except UnreadableAnswerError:
        return object_in(text)


def said_in_json(value: Any) -> Said:
    """Numbers and scores in a reply in JSON: a key for each item, an object for each, or a list of the scores."""
    if isinstance(value, list):
        return said_in_list(cast("list[Any]", value))
    if not isinstance(value, dict):
        return [(None, value)]
    record = cast("Row", value)
    numbers = [number_in(key) for key in record]
    if all(number is not None for number in numbers):
        return [(number, score_of(each)) for number, each in zip(numbers, record.values(), strict=True)]
    inner: list[Any] = [each for each in record.values() if isinstance(each, dict | list)]
    return said_in_json(inner[0] if len(inner) == 1 else score_of(record))


def said_in_list(items: Sequence[Any]) -> Said:
    """Objects with their items' numbers; or scores in the order of the items."""
    numbers = [number_of(item) for item in items]
    if all(number is None for number in numbers):
        numbers = list(range(1, len(items) + 1))
    return [(number, score_of(item)) for number, item in zip(numbers, items, strict=True)]


def score_of(value: Any) -> Any:
    """The score in an object about one item; any other value is the score itself."""
    if not isinstance(value, dict):
        return value
    scores = [each for key, each in cast("Row", value).items() if re.search(r"(?:score|rating)$", key, re.IGNORECASE)]
    return scores[0] if len(scores) == 1 else cast("Row", value)


def number_of(value: Any) -> int | None:
    """The number of the item that an object is about, if it says so."""
    if not isinstance(value, dict):
        return None
    keys = rf"(?:{ITEM}[\s_]*)?(?:number|no|id|index)|{ITEM}"
    said = [each for key, each in cast("Row", value).items() if re.fullmatch(keys, key, re.IGNORECASE)]
    if len(said) != 1 or isinstance(said[0], bool):
        return None
    if isinstance(said[0], int):
        return said[0]
    # A bare number as text may be the item itself, repeated.
    return number_in(str(said[0])) if not str(said[0]).isdigit() else None


def number_in(name: str) -> int | None:
    """The number in the name of an item, such as `instruction_1`, `1` or `[1]`."""
    found = NAME.fullmatch(name)
    return int(found["number"]) if found else None
