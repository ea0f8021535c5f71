"""Sentence pairs: an LLM writes a text that goes with an anchor and, if wanted, one that doesn't."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from llms.parameters import short
from llms.typing import ChatItem, ChatType, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.reading.replies import check_opposed, texts_in, texts_schema, without_fences, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row

Action: TypeAlias = Literal["paraphrase", "semantically-similar", "query", "answer"]

POSITIVES: dict[Action, str] = {
    "paraphrase": "a paraphrase, which says just what the anchor says, in other words",
    "semantically-similar": "a text that is close to the anchor in meaning, without having to say the same",
    "query": "a query, which somebody might type into a search field and be well served by the anchor",
    "answer": "an answer to the anchor",
}
NEGATIVE = "a text of the same kind that isn't related to the anchor, though it may have some words in common with it"
HARD_NEGATIVES: dict[Action, str] = {
    "paraphrase": "a text that could be taken for a paraphrase, since its words and its build are much like the"
    " anchor's, but that says something else",
    "semantically-similar": "a text that could be taken for similar, since its words and its build are much like the"
    " anchor's, but that is about something else",
    "query": "a query that could be taken for the positive one, since its words and its build are much like that one's,"
    " but that the anchor doesn't serve",
    "answer": "a text that could be taken for an answer, since its words and its build are much like those of the"
    " positive one, but that doesn't answer the anchor",
}

LABEL = re.compile(
    r"^[\s>#*_`•+-]*+(?:\d+[.)][\s*_`]*+)?(?:hard[\s_-]+)?(?P<label>positive|negative)"
    r"(?:\s+(?:text|sentence|example|paraphrase|query|answer))?[*_`\s]*(?:[:：](?P<text>.*)|)$",
    re.IGNORECASE,
)
FENCE = re.compile(r"^\s*```\s*\w*\s*$")
FENCED = re.compile(r"```(?:text|plaintext|markdown|md)?\n(?P<text>(?:(?!^```).)*)\n```", re.DOTALL | re.MULTILINE)
RULE = re.compile(r"^\s*[-*_=]{3,}\s*$")


class GenerateSentencePair(Task):
    """Writes a text that goes with an anchor and, for a triplet, one that doesn't.

    Input columns:
        anchor: the text that the others are written for.

    Output columns:
        positive: a paraphrase of the anchor, a text that is similar in meaning, a query that the anchor serves, or an
            answer to it, as `action` says.
        negative (triplet): a text that isn't related to the anchor; of `hard_negative`, one that only seems to be.
        model_name: the model that wrote them.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import GenerateSentencePair
        >>> task = GenerateSentencePair(llm=OpenAILLM(model="gpt-4o-mini"), action="query", triplet=True)
        >>> task.outputs
        ['positive', 'negative', 'model_name']
        >>> task.format_output('''Positive: height of K2
        ... Negative: opening hours of the zoo''', {"anchor": "K2 rises to 8,611 m."})
        {'positive': 'height of K2', 'negative': 'opening hours of the zoo'}
    """

    form_first = ("llm", "action", "triplet", "hard_negative")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    action: Annotated[Action, Field(title="Action", description="What the positive text is to the anchor.")] = (
        "paraphrase"
    )
    triplet: Annotated[bool, Field(title="Triplet", description="Ask for a negative text as well.")] = False
    hard_negative: Annotated[
        bool, Field(title="Hard negative", description="Of a triplet: a negative that is easily taken for a positive.")
    ] = False
    context: Annotated[
        str, Field(title="Context", description="What else the model should know: the field, the purpose, the style.")
    ] = ""

    @model_validator(mode="after")
    def _check_negative(self) -> Self:
        if self.hard_negative and not self.triplet:
            raise ValueError("hard_negative needs triplet=True: without it no negative is asked for")
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("sentence_pair",)

    @property
    def inputs(self) -> Columns:
        return ["anchor"]

    @property
    def outputs(self) -> Columns:
        return [*self.texts, "model_name"]

    @property
    def texts(self) -> list[str]:
        """The texts that are asked for."""
        return ["positive", "negative"] if self.triplet else ["positive"]

    def format_input(self, input: Row) -> ChatType:
        prompt = render(
            "sentence_pair",
            triplet=self.triplet,
            positive=POSITIVES[self.action],
            negative=HARD_NEGATIVES[self.action] if self.hard_negative else NEGATIVE,
            answers=self.action == "answer",
            context=self.context,
            anchor=text_in(input, "anchor"),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return texts_schema(self.texts, "sentence_pair")

    def format_output(self, output: str | None, input: Row) -> Row:
        text = output or ""
        found = labelled_texts(text, *self.texts) or texts_in(text, *self.texts)
        if self.triplet:
            check_opposed(found, "positive", "negative")
        return dict(found)

    def format_example(self, example: Row) -> str:
        texts = {name: text_in(example, name) for name in self.texts}
        if self.wanted_schema() is not None:
            return json.dumps(texts, ensure_ascii=False)
        return "\n".join(f"{name.capitalize()}: {text}" for name, text in texts.items())


def labelled_texts(output: str, *names: str) -> dict[str, str]:
    """The texts after the labels `names` in an answer; none where no line begins with a label.

    Raises:
        UnreadableAnswerError: a label is missing, doubled or without a text.
    """
    parts: list[tuple[str, list[str]]] = []
    said = without_thoughts(output).strip()
    for line in said.splitlines() if not without_fences(said).startswith("{") else ():
        found = LABEL.match(line)
        if found:
            parts.append((found["label"].lower(), [found["text"] or ""]))
        elif parts and not RULE.match(line):
            parts[-1][1].append(line)
    if not parts:
        return {}
    if said.count("```") % 2:
        raise UnreadableAnswerError(f"a code fence isn't closed (cut off?): {short(output)}")
    texts: dict[str, str] = {}
    for name in names:
        given = [tidy("\n".join(lines)) for label, lines in parts if label == name]
        if len(given) != 1 or not given[0]:
            problem = "is empty" if len(given) == 1 else f"is there {len(given)} times"
            raise UnreadableAnswerError(f"expected one {name} text, it {problem}: {short(output)}")
        texts[name] = given[0]
    return texts


def tidy(text: str) -> str:
    """A text without the rest of a bold label at its start, and without quotation marks or a fence around all of it.

    Nor has it the fence that closes around the whole reply: code of its own has two.
    """
    lines = re.sub(r"^(?:[*_]+|`{1,2})(?=\s|$)", "", text.strip()).strip().splitlines()
    fences = [place for place, line in enumerate(lines) if FENCE.match(line)]
    text = "\n".join(lines[: fences[-1]] if len(fences) % 2 else lines).strip()
    fenced = FENCED.fullmatch(text)
    text = fenced["text"].strip() if fenced else text
    return text[1:-1].strip() if re.fullmatch(r'"[^"]*"', text) else text
