"""Annotation of Argilla's records: an LLM answers a question about a record, as a suggestion for annotators."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llms.parameters import check_whole, short
from llms.typing import ChatItem, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import optional_text_in, prompt_chat_in, whole_text
from tasks.judging.classification import labels_said
from tasks.reading.labelled import bare, fields_in, one_of
from tasks.reading.replies import closed_object, object_in, whole_number, without_fences, without_thoughts
from tasks.templates import render
from tasks.typing import Columns, Row

QuestionType: TypeAlias = Literal["text", "label_selection", "multi_label_selection", "rating"]

KEYS: dict[QuestionType, str] = {
    "text": "text",
    "label_selection": "label",
    "multi_label_selection": "labels",
    "rating": "rating",
}
"""What holds the answer in a reply."""


class ArgillaModel(BaseModel):
    """A part of what Argilla's API gives. What isn't of use here is left out."""

    model_config = ConfigDict(extra="ignore")


class FieldSettings(ArgillaModel):
    """The kind of a field."""

    type: Annotated[str, Field(title="Type")] = "text"


class ArgillaField(ArgillaModel):
    """A field of the records."""

    name: Annotated[str, Field(title="Name")]
    title: Annotated[str | None, Field(title="Title")] = None
    description: Annotated[str | None, Field(title="Description")] = None
    settings: Annotated[FieldSettings, Field(title="Settings")] = FieldSettings()

    @field_validator("settings")
    @classmethod
    def _check_it_can_be_read(cls, settings: FieldSettings) -> FieldSettings:
        if settings.type not in {"text", "chat"}:
            raise ValueError(f"expected a field of text or chat, got type {settings.type!r}; leave it out of `fields`")
        return settings


class Option(ArgillaModel):
    """A label or a rating to choose."""

    value: Annotated[str, Field(title="Value")]
    text: Annotated[str | None, Field(title="Text")] = None
    description: Annotated[str | None, Field(title="Description")] = None

    @field_validator("value", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


class QuestionSettings(ArgillaModel):
    """The kind of a question, and the options to choose from."""

    type: Annotated[QuestionType, Field(title="Type")]
    options: Annotated[list[Option], Field(title="Options", description="The labels, or the ratings.")] = []

    @field_validator("type", mode="before")
    @classmethod
    def _check_type(cls, value: Any) -> Any:
        if value not in get_args(QuestionType):
            raise ValueError(
                f"ArgillaLabeller answers questions of the types {list(get_args(QuestionType))!r}, got {value!r}"
            )
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _none_is_no_options(cls, value: Any) -> Any:
        return [] if value is None else value


class ArgillaQuestion(ArgillaModel):
    """A question about the records."""

    id: Annotated[str | None, Field(title="Id")] = None
    name: Annotated[str, Field(title="Name")]
    title: Annotated[str | None, Field(title="Title")] = None
    description: Annotated[str | None, Field(title="Description")] = None
    settings: Annotated[QuestionSettings, Field(title="Settings")]

    @field_validator("settings")
    @classmethod
    def _check_options(cls, settings: QuestionSettings) -> QuestionSettings:
        if settings.type != "text" and not settings.options:
            raise ValueError(f"a question of the type {settings.type!r} needs options to choose from")
        if settings.type == "rating" and not all(option.value.isdigit() for option in settings.options):
            values = [option.value for option in settings.options]
            raise ValueError(f"options: expected ratings that are whole numbers, got {short(values)}")
        return settings

    @property
    def type(self) -> QuestionType:
        return self.settings.type

    @property
    def key(self) -> str:
        """What holds the answer in a reply."""
        return KEYS[self.type]

    @property
    def values(self) -> list[str]:
        """What can be chosen."""
        return [option.value for option in self.settings.options]


class ArgillaLabeller(Task):
    """Answers a question about an Argilla record, as a suggestion for its annotators.

    Records, fields and questions are plain dicts as Argilla's API has them; of the SDK's objects give
    `record.to_dict()`, `field.serialize()` and `question.serialize()`. Argilla itself isn't needed. Questions of the
    types text, label_selection, multi_label_selection and rating are answered; others, spans among them, are refused.

    The columns besides `record` go before the options of the same names. Where rows have questions of different
    types, their values have different types too: give these rows to a step for each.

    Input columns:
        record: the record, `{"fields": {...}}` at least.
        fields (optional): the settings of the fields to show, in order; without them, all that the record has.
        question (optional): the settings of the question, if the option `question` doesn't give them.
        example_records (optional): records with responses; those with none to the question are passed over.
        guidelines (optional): for annotators.

    Output columns:
        suggestion: `{"question_name", "question_id", "value", "type": "model", "agent"}`; the value is a text, a label,
            a list of labels, or a whole number.
        model_name: the model that answered.

    Source: Argilla's suggestions (https://docs.argilla.io/latest/reference/argilla/records/suggestions/).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import ArgillaLabeller
        >>> options = [{"value": "positive"}, {"value": "negative"}]
        >>> question = {"name": "mood", "settings": {"type": "label_selection", "options": options}}
        >>> task = ArgillaLabeller(llm=OpenAILLM(model="gpt-4o-mini"), question=question)
        >>> row = {"record": {"fields": {"review": "I'd buy it again."}}}
        >>> task.format_output('{"label": "positive"}', row)["suggestion"]["value"]
        'positive'
    """

    form_first = ("llm", "question")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    fields: Annotated[
        list[ArgillaField], Field(title="Fields", description="To show, in this order. Empty: all that a record has.")
    ] = []
    question: Annotated[
        ArgillaQuestion | None, Field(title="Question", description="Where rows have no column `question`.")
    ] = None
    example_records: Annotated[
        list[dict[str, Any]], Field(title="Example records", description="Records with responses, to learn from.")
    ] = []
    guidelines: Annotated[str | None, Field(title="Guidelines", description="Those for annotators.")] = None

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("argilla_labeller",)

    @property
    def inputs(self) -> Columns:
        return {"record": True, "fields": False, "question": False, "example_records": False, "guidelines": False}

    @property
    def outputs(self) -> Columns:
        return ["suggestion", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        question = self.question_for(input)
        fields = [ArgillaField.model_validate(each) for each in input.get("fields") or self.fields]
        records = cast("list[Row]", input.get("example_records") or self.example_records)
        structured = self.wanted_schema() is not None
        answered = [(record, response_to(question, record)) for record in records]
        examples = [
            {"fields": shown_fields(record, fields), "answer": answer_as(question, value, structured)}
            for record, value in answered
            if value is not None
        ]
        prompt = render(
            "argilla_labeller",
            guidelines=optional_text_in(input, "guidelines") or self.guidelines,
            question=question,
            type=question.type,
            key=question.key,
            options=question.settings.options,
            examples=examples,
            fields=shown_fields(input["record"], fields),
            structured=structured,
        )
        chat = [ChatItem(role="user", content=prompt.strip())]
        return (chat, schema_for(question)) if structured else chat

    def get_structured_output(self) -> JSONSchema:
        """The schema for the option `question`, or for a text; a prompt's own is that of the row's question."""
        return schema_for(self.question) if self.question is not None else closed_object({"text": {"type": "string"}})

    def format_output(self, output: str | None, input: Row) -> Row:
        question = self.question_for(input)
        value = value_said(output or "", question, structured=self.wanted_schema() is not None)
        suggestion: Row = {
            "question_name": question.name,
            "question_id": question.id,
            "value": value,
            "type": "model",
            "agent": self.llm.model_name,
        }
        return {"suggestion": suggestion}

    def format_example(self, example: Row) -> str:
        structured = self.wanted_schema() is not None
        return answer_as(self.question_for(example), example["suggestion"]["value"], structured)

    def question_for(self, row: Row) -> ArgillaQuestion:
        """The row's question, or the step's. Raises ValueError where there's none that can be answered."""
        given = row.get("question")
        if given is None and self.question is None:
            raise ValueError("question: expected Argilla's settings of a question, in the row or in the step, got none")
        return self.question if given is None and self.question else ArgillaQuestion.model_validate(given)


def schema_for(question: ArgillaQuestion) -> JSONSchema:
    """The JSON schema of an answer to a question."""
    value: JSONSchema = {"type": "string"}
    if question.type == "rating":
        value = {"type": "integer", "enum": list(map(int, question.values))}
    elif question.type != "text":
        value = {"type": "string", "enum": question.values}
    if question.type == "multi_label_selection":
        value = {"type": "array", "items": value}
    return closed_object({question.key: value}, title="answer")


def answer_as(question: ArgillaQuestion, value: Any, structured: bool) -> str:
    """An answer in the form that the prompt asks for."""
    if structured:
        return json.dumps({question.key: value}, ensure_ascii=False)
    if question.type == "text":
        return str(value)
    said = (", ".join(map(str, cast("list[Any]", value))) or "none") if isinstance(value, list) else value
    return f"{question.key.capitalize()}: {said}"


def shown_fields(record: Any, fields: list[ArgillaField]) -> list[Row]:
    """The fields of a record to show, with their texts. Raises ValueError."""
    values = cast("Row", record).get("fields") if isinstance(record, dict) else None
    if not isinstance(values, dict):
        raise ValueError(
            f"record: expected one of Argilla's API, a dict with its 'fields', got {short(cast('object', record))};"
            " of the SDK's records give `record.to_dict()`"
        )
    held = {name: value for name, value in cast("Row", values).items() if value is not None}
    wanted = fields or [ArgillaField(name=name) for name in held]
    shown = [
        {
            "name": field.title or field.name,
            "description": field.description,
            "value": text_of(held[field.name], f"record: {field.name}"),
        }
        for field in wanted
        if field.name in held
    ]
    if not shown:
        names = [field.name for field in wanted]
        raise ValueError(f"record: expected one of the fields {names!r}, it has {list(held)!r}")
    return shown


def text_of(value: Any, name: str) -> str:
    """A field's value as text: a text, a chat, or anything else as JSON. Raises ValueError."""
    if isinstance(value, str):
        return whole_text(value, name)
    if isinstance(value, list):
        messages = prompt_chat_in({name: value}, name)
        return "\n\n".join(f"{message['role']}: {whole_text(message['content'], name)}" for message in messages)
    check_whole(value, name)
    return json.dumps(value, ensure_ascii=False)


def response_to(question: ArgillaQuestion, record: Row) -> Any:
    """The first submitted response to a question, as the API or the SDK has it; None where there's none."""
    given: Any = record.get("responses") or []
    if isinstance(given, dict):
        said = cast("list[Row]", cast("Row", given).get(question.name) or [])
    else:
        submitted = [each for each in cast("list[Row]", given) if each.get("status", "submitted") == "submitted"]
        answers = [cast("Row", each.get("values") or {}) for each in submitted]
        said = [cast("Row", each.get(question.name) or {}) for each in answers]
    return next((each["value"] for each in said if each.get("value") is not None), None)


def value_said(text: str, question: ArgillaQuestion, structured: bool) -> Any:
    """The answer to a question in a reply, in JSON or in words. Raises UnreadableAnswerError."""
    if question.type == "text":
        return text_said(text, structured)
    if question.type == "rating":
        return rating_said(text, question)
    if question.type == "multi_label_selection":
        return several_labels_said(text, question)
    said = labels_said(text, 1, question.values)
    if len(said) != 1:
        raise UnreadableAnswerError(f"expected one label, got {short(said)}")
    return one_of(said[0], question.values, "label")


def text_said(text: str, structured: bool) -> str:
    said: Any = without_thoughts(text).strip()
    with suppress(UnreadableAnswerError):
        record = object_in(text, "text")
        if len(record) == 1:
            said, structured = record["text"], False
    if structured or not isinstance(said, str) or not said:
        raise UnreadableAnswerError(f"expected a text{' as JSON' if structured else ''}, got {short(text)}")
    return said


def rating_said(text: str, question: ArgillaQuestion) -> int:
    said = without_fences(without_thoughts(text))
    ratings: list[Any] = [value for label, value in fields_in(said.splitlines()) if label == "rating"]
    if not ratings:
        ratings = [object_in(said, "rating")["rating"]] if "{" in said else [said]
    values = list(map(int, question.values))
    if len(ratings) != 1:
        raise UnreadableAnswerError(f"expected one rating, got {short(ratings)}")
    rating = whole_number(ratings[0], min(values), max(values), "rating")
    if rating not in values:
        raise UnreadableAnswerError(f"rating: expected one of {values!r}, got {rating}")
    return rating


def several_labels_said(text: str, question: ArgillaQuestion) -> list[str]:
    said: Any = None
    with suppress(UnreadableAnswerError):
        said = object_in(text, "labels")["labels"]
    if said is None:
        said = labels_said(text, max(2, len(question.values)), question.values)
    items = cast("list[Any]", said) if isinstance(said, list) else [said]
    if len(items) == 1 and bare(str(items[0])) in {"none", "no label", "no labels"} - set(map(bare, question.values)):
        return []
    labels = [one_of(item, question.values, "labels") for item in items]
    if len(set(labels)) < len(labels):
        raise UnreadableAnswerError(f"labels: expected each at most once, got {short(labels)}")
    return labels
