"""Text classification: an LLM gives a text one label or several, given ones or its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llms.parameters import short
from llms.quantities import quantity
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.reading.labelled import bare, one_of
from tasks.reading.replies import closed_object, list_in, object_in, without_fences, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row


class Label(BaseModel):
    """A label to choose, and when it applies."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, title="Label")]
    description: Annotated[str, Field(title="Description", description="When it applies.")] = ""


class TextClassification(Task):
    """Gives a text one label or several, chosen from given ones or found by the model.

    With `available_labels`, an answer that isn't one of them fails its row. With `default_label`, the model may
    say that none fits, by this label; a label that isn't among those given then counts as this one too. A given label
    with other words around it fails its row.

    Few-shot examples are rows with `text` and `labels`, in `examples`.

    Input columns:
        text: what is classified.

    Output columns:
        labels: the label, a text (n=1); or exactly `n` labels, a list, the best one first.
        model_name: the model that classified.

    It answers as JSON by default, where the LLM takes it: the paper found that this helps in classification.

    Source: Let Me Speak Freely? A Study on the Impact of Format Restrictions on Performance of Large Language
    Models (https://arxiv.org/abs/2408.02442).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import TextClassification
        >>> task = TextClassification(
        ...     llm=OpenAILLM(model="gpt-4o-mini"),
        ...     query_title="customer's message",
        ...     available_labels={"complaint": "Something went wrong.", "inquiry": "They ask for information."},
        ... )
        >>> row = {"text": "Where is my parcel?"}
        >>> task.format_output('{"label": "Inquiry"}', row)
        {'labels': 'inquiry'}
    """

    form_first = ("llm", "available_labels", "n")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    n: Annotated[int, Field(ge=1, title="Labels per text")] = 1
    context: Annotated[str, Field(title="Context", description="What the labels are for, and what to look at.")] = (
        "The labels say what the text is about: its topics, themes or kind."
    )
    available_labels: Annotated[
        list[Label], Field(title="Labels", description="To choose from. Empty: the model finds its own.")
    ] = []
    default_label: Annotated[
        str | None, Field(min_length=1, title="Label where none fits", description="Empty: one must be chosen.")
    ] = None
    query_title: Annotated[
        str, Field(min_length=1, title="Name of the text", description="What the prompt calls it: `review`, `query`.")
    ] = "text"

    @field_validator("available_labels", mode="before")
    @classmethod
    def _read_labels(cls, value: Any) -> Any:
        if value is None:
            return []
        if isinstance(value, Mapping):
            texts = cast("Mapping[str, Any]", value)
            return [{"name": name, "description": text} for name, text in texts.items()]
        if not isinstance(value, list):
            return value
        return [{"name": each} if isinstance(each, str) else each for each in cast("list[Any]", value)]

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        names = [label.name for label in self.available_labels]
        if len({bare(name) for name in names}) < len(names):
            raise ValueError(f"available_labels: expected labels that differ in more than case, got {names!r}")
        if names and self.default_label is None and self.n > len(names):
            raise ValueError(
                f"n: {self.n} labels can't be chosen from {len(names)}; give more of them, or a `default_label`"
            )
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_classification",)

    @property
    def inputs(self) -> Columns:
        return ["text"]

    @property
    def outputs(self) -> Columns:
        return ["labels", "model_name"]

    @property
    def choices(self) -> list[str]:
        """The labels that an answer may have; none where the model finds its own."""
        names = [label.name for label in self.available_labels]
        extra = [self.default_label] if self.default_label is not None and self.default_label not in names else []
        return [*names, *extra] if names else []

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "text_classification",
            text=text_in(input, "text"),
            n=self.n,
            context=self.context,
            labels=self.available_labels,
            default_label=self.default_label,
            query_title=self.query_title,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        label = {"type": "string", **({"enum": self.choices} if self.choices else {})}
        return closed_object(dict.fromkeys(self._keys, label), title="labels")

    def format_output(self, output: str | None, input: Row) -> Row:
        labels = [self._label(said) for said in labels_said(output or "", self.n, self.choices)]
        if len(labels) != self.n:
            raise UnreadableAnswerError(f"expected {quantity(self.n, 'label')}, got {len(labels)}: {short(labels)}")
        chosen = [bare(label) for label in labels if label != self.default_label]
        if len(set(chosen)) < len(chosen):
            raise UnreadableAnswerError(f"expected {self.n} different labels, got {short(labels)}")
        return {"labels": labels[0] if self.n == 1 else labels}

    def format_example(self, example: Row) -> str:
        value: Any = example["labels"]
        labels = cast("list[str]", value) if isinstance(value, list) else [str(value)]
        if len(labels) != self.n:
            raise ValueError(f"examples: each needs {quantity(self.n, 'label')}, one has {short(example['labels'])}")
        if self.wanted_schema() is not None:
            return json.dumps(dict(zip(self._keys, labels, strict=True)), ensure_ascii=False)
        return "\n".join(
            f"{key.replace('_', ' ').capitalize()}: {label}" for key, label in zip(self._keys, labels, strict=True)
        )

    @property
    def _keys(self) -> list[str]:
        return ["label"] if self.n == 1 else [f"label_{number}" for number in range(1, self.n + 1)]

    def _label(self, said: Any) -> str:
        """The label that was said. Raises UnreadableAnswerError."""
        if not isinstance(said, str | int) or isinstance(said, bool) or not bare(str(said)):
            raise UnreadableAnswerError(f"expected a label, got {short(said)}")
        if self.default_label is not None and bare(str(said)) == bare(self.default_label):
            return self.default_label
        if not self.choices:
            return str(said).strip(" \t\r\n*_`\"'")
        if self.default_label is not None and not any(within(bare(each), bare(str(said))) for each in self.choices):
            return self.default_label
        return one_of(said, self.choices, "label")


def within(label: str, text: str) -> bool:
    """Whether a label stands in a text, as words of it."""
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None


LABELLED = re.compile(
    r"^[\s>#*_`•+-]*+(?:\d+[.)]\s*+)?[*_`]*+(?:(?:the|my|final|best)\s+)*(?:labels?|categor(?:y|ies)|class(?:es)?)"
    r"[\s_]*#?\s*(?P<number>\d*)[*_`]*\s*(?::|=|(?P<sentence>\b(?:is|are)\b))[\s*_`:]*(?P<text>.*?)[\s*_`]*$",
    re.IGNORECASE,
)
LISTED = re.compile(r"^\s*(?:[-*•+]|\d+[.)])\s+(?P<text>.+?)\s*$")
KEY = re.compile(r"(?:labels?|categor(?:y|ies)|class(?:es)?)_?(?P<number>\d*)", re.IGNORECASE)


def labels_said(text: str, n: int, choices: Sequence[str]) -> list[Any]:
    """The labels in a reply, as they were said.

    It takes JSON, labelled lines, a list, and lines that hold nothing but one of the choices.

    Args:
        text: the reply.
        n: how many labels were asked for.
        choices: the labels that can be chosen; none where they are free.

    Raises:
        UnreadableAnswerError: there's no label in it.
    """
    said = without_fences(without_thoughts(text))
    lines = [line for line in said.splitlines() if line.strip()]
    labelled = [found for line in lines if (found := LABELLED.match(line)) and found["text"]]
    if said.startswith("{"):
        labelled = []
    if not choices:
        # A sentence could say anything of the label.
        labelled = [found for found in labelled if not found["sentence"]]
    if labelled:
        numbers = [found["number"] for found in labelled if found["number"]]
        if len(set(numbers)) < len(numbers):
            raise UnreadableAnswerError(f"expected each label once by its number, got {short(text)}")
        texts = [found["text"] for found in sorted(labelled, key=lambda found: int(found["number"] or 0))]
        return texts if len(texts) > 1 else parts_of(texts[0], n)
    if "{" in said or (said.startswith("[") and said.endswith("]")):
        with suppress(UnreadableAnswerError):
            return labels_in_json(said)
    listed = [found["text"] for line in lines if (found := LISTED.match(line))]
    if len(listed) == n and (n > 1 or not choices):
        return listed
    alone = [line for line in (listed or lines) if bare(line) in map(bare, choices)]
    if not alone and len(lines) == 1 and n > 1:
        alone = parts_of(lines[0], n)
        alone = alone if len(alone) == n else []
    if not alone:
        raise UnreadableAnswerError(f"expected {'a label' if n == 1 else f'{n} labels'}, found none in {short(text)}")
    return alone


def parts_of(text: str, n: int) -> list[str]:
    """The labels on one line, with commas or semicolons between them where there are several."""
    return [text] if n == 1 else [part.strip() for part in re.split(r"\s*[,;|]\s*", text) if part.strip()]


def labels_in_json(text: str) -> list[Any]:
    """The labels in a reply in JSON: under `label`, `labels`, or `label_1` and so on, or in a list.

    Raises:
        UnreadableAnswerError: it isn't JSON, or has none of these.
    """
    value: Any = object_in(text) if "{" in text else list_in(text)
    if isinstance(value, dict):
        keys = [found for key in cast("Row", value) if (found := KEY.fullmatch(key))]
        found = [cast("Row", value)[key[0]] for key in sorted(keys, key=lambda key: int(key["number"] or 0))]
        value = found[0] if len(found) == 1 else found
    if value is None or value == []:
        raise UnreadableAnswerError(f"expected labels in JSON, got {short(text)}")
    return cast("list[Any]", value) if isinstance(value, list) else [value]
