"""UltraFeedback: an LLM rates several answers to an instruction, each from 1 to 5, and says why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Field

from llms.parameters import short
from llms.quantities import quantity
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in, texts_in
from tasks.reading.labelled import LABEL, Fields, fields_in, fields_of, label_of
from tasks.reading.replies import closed_object, whole_number, without_fences, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row

Aspect: TypeAlias = Literal["helpfulness", "honesty", "instruction-following", "truthfulness", "overall-rating"]

QUALITIES: dict[Aspect, str] = {
    "helpfulness": "how helpful it is",
    "honesty": "how honest it is about what it knows",
    "instruction-following": "how well it follows the instruction",
    "truthfulness": "how truthful it is",
    "overall-rating": "how good it is, all in all",
}

WITH_TYPES: frozenset[Aspect] = frozenset({"helpfulness", "truthfulness"})
"""The aspects that ask for a type too, of informativeness or of hallucination."""

LOWEST, HIGHEST, TYPES = 1, 5, 3


class UltraFeedback(Task):
    """Rates several answers to an instruction from 1 to 5 in one aspect, with reasons, all in one request.

    Ask for one aspect per step; steps with different aspects can run side by side.

    Input columns:
        instruction: the prompt that was answered.
        generations: the answers, a list of texts.

    Output columns:
        ratings: a whole number from 1 to 5 per answer.
        rationales: the reason for each rating; of helpfulness and truthfulness, the reason for each type.
        types (helpfulness, truthfulness): the number of the type per answer, or None. Of informativeness: 1 clear
            and relevant, 2 useful and comprehensive, 3 concise. Of hallucination: 1 against the facts, 2 against
            the instruction, 3 against itself.
        rationales-for-ratings (helpfulness, truthfulness): the reason for each rating.
        model_name: the model that rated.

    Source: UltraFeedback: Boosting Language Models with Scaled AI Feedback (https://arxiv.org/abs/2310.01377).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import UltraFeedback
        >>> task = UltraFeedback(llm=OpenAILLM(model="gpt-4o-mini"), aspect="honesty")
        >>> task.outputs
        ['ratings', 'rationales', 'model_name']
        >>> row = {"instruction": "How high is K2?", "generations": ["8,611 m.", "I can't know."]}
        >>> task.format_output('''Answer 1
        ... Rationale: Right, and rightly sure.
        ... Rating: 5
        ...
        ... Answer 2
        ... Rationale: It refuses what could be answered.
        ... Rating: 3''', row)
        {'ratings': [5, 3], 'rationales': ['Right, and rightly sure.', 'It refuses what could be answered.']}
    """

    form_first = ("llm", "aspect")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    aspect: Annotated[Aspect, Field(title="Aspect", description="What the answers are rated for.")] = "overall-rating"

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("ultrafeedback/request", f"ultrafeedback/{self.aspect}")

    @property
    def inputs(self) -> Columns:
        return ["instruction", "generations"]

    @property
    def outputs(self) -> Columns:
        if self.asks_for_types:
            return ["types", "rationales", "ratings", "rationales-for-ratings", "model_name"]
        return ["ratings", "rationales", "model_name"]

    @property
    def asks_for_types(self) -> bool:
        """Whether the aspect asks for the type of each answer too."""
        return self.aspect in WITH_TYPES

    def format_input(self, input: Row) -> FormattedInput:
        answers = texts_in(input, "generations")
        structured = self.wanted_schema() is not None
        prompt = render(
            "ultrafeedback/request",
            quality=QUALITIES[self.aspect],
            criteria=render(f"ultrafeedback/{self.aspect}"),
            instruction=text_in(input, "instruction"),
            answers=answers,
            count=len(answers),
            types=self.asks_for_types,
            structured=structured,
        )
        chat = [ChatItem(role="user", content=prompt.strip())]
        return (chat, evaluations_schema(len(answers), self.asks_for_types)) if structured else chat

    def get_structured_output(self) -> JSONSchema:
        """The schema for two answers; a prompt's own has as many as the row."""
        return evaluations_schema(2, self.asks_for_types)

    def format_output(self, output: str | None, input: Row) -> Row:
        found = parse_evaluations(output or "", len(texts_in(input, "generations")), self.asks_for_types)
        ratings, rationales = [each.rating for each in found], [each.rationale for each in found]
        if not self.asks_for_types:
            return {"ratings": ratings, "rationales": rationales}
        return {
            "types": [each.type for each in found],
            "rationales": rationales,
            "ratings": ratings,
            "rationales-for-ratings": [each.rationale_for_rating for each in found],
        }

    def format_example(self, example: Row) -> str:
        evaluations = evaluations_in(example, self.asks_for_types)
        if self.wanted_schema() is not None:
            return json.dumps({key_of(each.pop("answer")): each for each in evaluations}, ensure_ascii=False)
        return "\n\n".join(map(block, evaluations))


@dataclass(frozen=True)
class Evaluation:
    """What was said of one answer."""

    rating: int
    rationale: str
    type: int | None = None
    rationale_for_rating: str | None = None


def evaluations_schema(count: int, types: bool) -> JSONSchema:
    """The JSON schema of a reply, in the form that strict modes take: everything required, nothing more.

    Each answer has a key of its own, so that none can be left out, doubled or taken for another.
    """
    fields: dict[str, JSONSchema] = {}
    if types:
        fields["type"] = {"type": "integer", "enum": list(range(TYPES + 1))}
    fields["rationale"] = {"type": "string"}
    if types:
        fields["rationale_for_rating"] = {"type": "string"}
    fields["rating"] = {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))}
    return closed_object({key_of(number): closed_object(fields) for number in range(1, count + 1)}, title="evaluations")


def key_of(number: int) -> str:
    """The key of an answer in a reply in JSON."""
    return f"answer_{number}"


def evaluations_in(example: Row, types: bool) -> list[Row]:
    """The evaluations that an example shows, in the fields of the schema. Raises ValueError."""
    columns = {"rationale": "rationales", "rating": "ratings"}
    if types:
        columns = {
            "type": "types",
            "rationale": "rationales",
            "rationale_for_rating": "rationales-for-ratings",
            "rating": "ratings",
        }
    missing = [column for column in columns.values() if column not in example]
    if missing:
        raise ValueError(f"examples: each needs the columns {list(columns.values())!r}, one lacks {missing!r}")
    lists = [cast("list[Any]", example[column]) for column in columns.values()]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]
    return [
        {"answer": number, **row, **({"type": row["type"] or 0} if types else {})} for number, row in enumerate(rows, 1)
    ]


def block(evaluation: Row) -> str:
    """An evaluation in the text form that the prompt asks for."""
    lines = [f"Answer {evaluation['answer']}"]
    if "type" in evaluation:
        lines.append(f"Type: {evaluation['type'] or 'None'}")
    lines.append(f"Rationale: {evaluation['rationale']}")
    if "rationale_for_rating" in evaluation:
        lines.append(f"Rationale for rating: {evaluation['rationale_for_rating']}")
    return "\n".join([*lines, f"Rating: {evaluation['rating']}"])


# Reading a reply. A reply becomes blocks, one per answer: its number, if it was given, and its fields.
# Blocks are joined to answers by their numbers. What isn't certain is an error, never a guess.

Block: TypeAlias = tuple[int | None, Fields]

NOUN = r"(?:answer|text|output|response|generation|completion|candidate|evaluation|assessment)"
HEADER = re.compile(
    r"^[\W_]*+(?:\d+[.)]\s*+)?[\W_]*+(?:(?:output|evaluation|feedback|assessment|review|rating|judge?ment)s?\s+(?:for|of)\s+)?"
    rf"(?:the\s+)?{NOUN}(?:\s+(?:number|no\.?)\s*=?\s*[\"']?)?[\s_]*#?\s*(?P<number>\d+)\b(?:[\"']\s*>)?"
    rf"(?:\s+{NOUN})?(?P<rest>.*)$",
    re.IGNORECASE,
)
NOTHING = re.compile(r"^\W*(?:none|no type|n/?a|null|0)\b", re.IGNORECASE)


def parse_evaluations(text: str, count: int, types: bool = False) -> list[Evaluation]:
    """The evaluations in a model's reply, in the order of the answers.

    It takes the text form and the JSON form, with what models put around and into them: thoughts, a
    preface, code fences, Markdown, `4/5`, `4.0`, `4 (good)`.

    Args:
        text: the reply.
        count: how many answers were to be rated.
        types: whether types were asked for too.

    Raises:
        UnreadableAnswerError: an answer has no evaluation or two, or a rating isn't a whole number from 1 to 5.
    """
    said = without_fences(without_thoughts(text))
    blocks = blocks_in_text(said) or blocks_in_json(said)
    if not blocks:
        cut = " (JSON that is cut off or not valid)" if said.startswith(("{", "[")) else ""
        answers = quantity(count, "answer")
        raise UnreadableAnswerError(f"expected the ratings of {answers}, found none{cut}, got {short(text)}")
    return [evaluation(number, fields, types) for number, fields in enumerate(in_order(blocks, count), 1)]


def blocks_in_text(text: str) -> list[Block]:
    """The blocks of a reply in the text form; none where it isn't in this form."""
    blocks: list[tuple[int | None, list[str]]] = [(None, [])]
    for line in text.splitlines():
        header = HEADER.match(line)
        rest = header["rest"].lstrip(" \t*_:)]>.|–—-#") if header else ""
        if header and (not rest or LABEL.match(rest)):
            blocks.append((int(header["number"]), [rest]))
        else:
            blocks[-1][1].append(line)
    read = [(number, fields_in(lines)) for number, lines in blocks]
    if len(read) == 1:
        return [(None, fields) for fields in repeated(read[0][1])]
    numbered = [each for each in read if each[0] is not None]
    return numbered or [each for each in read if any(label == "rating" for label, _ in each[1])]


def repeated(fields: Fields) -> list[Fields]:
    """The evaluations in fields without headers between them: equally many, in the same order, each time."""
    ratings = [label for label, _ in fields].count("rating")
    if not ratings:
        return []
    length = len(fields) // ratings
    parts = [fields[start : start + length] for start in range(0, length * ratings, length)]
    alike = len({tuple(label for label, _ in part) for part in parts}) == 1 and length * ratings == len(fields)
    return parts if alike else [fields]


def blocks_in_json(text: str) -> list[Block]:
    """The blocks of a reply in JSON, of the shape that was asked for or of another plain one."""
    found = list(json_values(text))
    records = found[0] if len(found) == 1 else found
    if isinstance(records, dict):
        return blocks_in_object(cast("Row", records))
    return blocks_in_list(cast("list[Any]", records))


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and lists of objects that begin on a line of their own."""
    decoder, position = json.JSONDecoder(strict=False), 0
    while start := re.compile(r"^[ \t]*(?=[{\[])", re.MULTILINE).search(text, position):
        try:
            value, position = decoder.raw_decode(text, start.end())
        except json.JSONDecodeError:
            position = start.end() + 1
            continue
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield value


def blocks_in_object(found: Row) -> list[Block]:
    labels = {label_of(name): value for name, value in found.items() if label_of(name)}
    if isinstance(labels.get("rating"), list):
        return blocks_in_columns(labels)
    if "rating" in labels:
        return blocks_in_list([found])
    lists = [cast("list[Any]", value) for value in found.values() if isinstance(value, list)]
    if len(lists) == 1:
        return blocks_in_list(lists[0])
    headers = {name: HEADER.match(name) for name in found}
    return [
        (int(header["number"]), fields_of(cast("Row", found[name])))
        for name, header in headers.items()
        if header is not None and not header["rest"] and isinstance(found[name], dict)
    ]


def blocks_in_columns(labels: Mapping[str, Any]) -> list[Block]:
    """One list per field, with an item per answer."""
    lists = {label: cast("list[Any]", value) for label, value in labels.items() if isinstance(value, list)}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1:
        raise UnreadableAnswerError(f"the lists of ratings and rationales have different lengths: {short(lists)}")
    return [(place + 1, [(label, values[place]) for label, values in lists.items()]) for place in range(lengths.pop())]


def blocks_in_list(records: Sequence[Any]) -> list[Block]:
    """One object per answer. Where none says of which answer it is, they are in the order of the answers."""
    objects = [cast("Row", record) for record in records if isinstance(record, dict)]
    numbers = [number_of(each) for each in objects]
    if all(number is None for number in numbers):
        numbers = list(range(1, len(objects) + 1))
    return [(number, fields_of(each)) for number, each in zip(numbers, objects, strict=True)]


def number_of(record: Row) -> int | None:
    """The number of the answer that an object is about, if it says so."""
    for name, value in record.items():
        words = re.sub(r"[^a-z]+", " ", name.lower()).strip()
        if not re.fullmatch(rf"(?:{NOUN} )?(?:number|no|id|index)|{NOUN}", words):
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        # A bare number as text may be the answer itself, repeated.
        given = re.fullmatch(rf"{NOUN}\s*#?\s*(\d+)", str(value).strip(), re.IGNORECASE)
        if given:
            return int(given[1])
    return None


def in_order(blocks: Sequence[Block], count: int) -> list[Fields]:
    """The fields of each answer, by the blocks' numbers. Raises UnreadableAnswerError where they don't fit."""
    if len(blocks) == count and all(number is None for number, _ in blocks):
        # As many as were asked for, without any number: they are in the order of the answers.
        return [fields for _, fields in blocks]
    times = Counter(number for number, _ in blocks)
    if None in times:
        answers = quantity(count, "answer")
        raise UnreadableAnswerError(f"expected the ratings of {answers}, each with its number: some have none")
    wanted = range(1, count + 1)
    problems = {
        "rated more than once": [number for number in times if times[number] > 1],
        "not rated": [number for number in wanted if number not in times],
        "not among them": [number for number in times if number not in wanted],
    }
    found = [f"{', '.join(map(str, numbers))} {problem}" for problem, numbers in problems.items() if numbers]
    if found:
        answers = quantity(count, "answer")
        raise UnreadableAnswerError(f"expected one rating of each of {answers}, got answer {'; '.join(found)}")
    by_number = dict(blocks)
    return [by_number[number] for number in wanted]


def evaluation(number: int, fields: Fields, types: bool) -> Evaluation:
    """The evaluation in a block's fields. Raises UnreadableAnswerError, naming the answer and the field."""
    labels = [label for label, _ in fields]
    if types and labels.count("rationale") == 2 and "rationale_for_rating" not in labels:
        fields = second_rationale_named(fields)
    rating = whole_number(only(number, fields, "rating"), LOWEST, HIGHEST, f"answer {number}: rating")
    if not types:
        # A reason for the rating is what "rationale" means here.
        fields = [("rationale" if label == "rationale_for_rating" else label, value) for label, value in fields]
        return Evaluation(rating, str(only(number, fields, "rationale")))
    return Evaluation(
        rating,
        str(only(number, fields, "rationale")),
        type_in(only(number, fields, "type"), number),
        str(only(number, fields, "rationale_for_rating")),
    )


def second_rationale_named(fields: Fields) -> Fields:
    """Two rationales, one beside the type and one beside the rating: the later one is the rating's."""
    last = max(place for place, (label, _) in enumerate(fields) if label == "rationale")
    return [("rationale_for_rating" if place == last else label, value) for place, (label, value) in enumerate(fields)]


def only(number: int, fields: Fields, label: str) -> Any:
    """The one field with a label. Raises UnreadableAnswerError where there's none, an empty one, or several."""
    values = [value for name, value in fields if name == label]
    if label == "type" and values == [None]:
        return "none"
    if len(values) != 1 or values[0] is None or values[0] == "":
        name = label.replace("_", " ")
        problem = f"{len(values)} times a {name}" if len(values) > 1 else f"no {name}"
        raise UnreadableAnswerError(f"answer {number}: {problem}")
    return values[0]


def type_in(value: Any, number: int) -> int | None:
    """The number of a type, or None where there's said to be none. Raises UnreadableAnswerError."""
    if isinstance(value, list):
        several = cast("list[Any]", value)
        value = several[0] if len(several) == 1 else "none" if not several else ", ".join(map(str, several))
    if NOTHING.match(str(value)):
        return None
    return whole_number(re.sub(r"^\W*type\s+", "", str(value), flags=re.IGNORECASE), 1, TYPES, f"answer {number}: type")
