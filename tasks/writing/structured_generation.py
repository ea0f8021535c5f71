"""JSON that fits a schema of the row's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from textwrap import shorten
from typing import Annotated, Any, cast

from pydantic import Field

from llms.parameters import short
from llms.structured_output import json_schema_of
from llms.typing import ChatItem, ChatType, FormattedInput, JSONSchema
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.reading.replies import json_in
from tasks.templates import render
from tasks.typing import Columns, Row
from tasks.writing.text_generation import system_message


class StructuredGeneration(Task):
    """JSON from an instruction, fitting a schema that each row brings along.

    Where the LLM takes structured output, the provider makes sure of the form; to any other LLM, the
    schema is told in the prompt. Either way an answer that isn't JSON, or doesn't fit, fails its row.

    Where rows have different schemas, give them as JSON text: a table's columns have one type, and
    would fill the schemas with each other's keys.

    Input columns:
        instruction: the prompt.
        structured_output: `{"format": "json", "schema": ...}` or a JSON schema, as a dict or as JSON text.
        system_prompt (optional): goes before the Task's own.

    Output columns:
        generation: the answer, JSON as text.
        model_name: the model that gave it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import StructuredGeneration
        >>> task = StructuredGeneration(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> schema = {"type": "object", "properties": {"metres": {"type": "integer"}}, "required": ["metres"]}
        >>> row = {"instruction": "How high is K2?", "structured_output": {"format": "json", "schema": schema}}
        >>> chat, asked_for = task.format_input(row)
        >>> chat
        [{'role': 'user', 'content': 'How high is K2?'}]
        >>> asked_for == schema
        True
        >>> task.format_output('{"metres": 8611}', row)
        {'generation': '{"metres": 8611}'}
    """

    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    use_system_prompt: Annotated[
        bool, Field(title="Rows' system prompts", description="Use the column `system_prompt`, where there is one.")
    ] = True

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("structured_generation",)

    @property
    def inputs(self) -> Columns:
        return {"instruction": True, "structured_output": True, "system_prompt": False}

    @property
    def outputs(self) -> Columns:
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        schema = schema_in(input)
        system = system_message(input) if self.use_system_prompt else []
        if self.use_default_structured_output and self.llm.takes_structured_output():
            return [*system, ChatItem(role="user", content=text_in(input, "instruction"))], schema
        return [*system, *asking_for(text_in(input, "instruction"), schema)]

    def format_output(self, output: str | None, input: Row) -> Row:
        text, value = json_in(output or "")
        check_fits(value, schema_in(input))
        return {"generation": text}


def asking_for(instruction: str, schema: JSONSchema) -> ChatType:
    """The instruction with the schema in words."""
    written = json.dumps(schema, ensure_ascii=False, indent=2)
    return [ChatItem(role="user", content=render("structured_generation", instruction=instruction, schema=written))]


def schema_in(row: Row) -> JSONSchema:
    """The JSON schema in the row's `structured_output`. Raises ValueError where there's no valid one."""
    value = row["structured_output"]
    if isinstance(value, Mapping) and isinstance(cast("Row", value).get("schema"), str):
        value = {**cast("Row", value), "schema": decoded(cast("Row", value)["schema"])}
    schema = json_schema_of(without_nulls(decoded(value) if isinstance(value, str) else value))
    validator_for(json.dumps(schema))
    return schema


def decoded(text: str) -> Any:
    """A schema given as JSON text. Raises ValueError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"structured_output: expected a JSON schema ({error}), got {short(text)}") from None


def without_nulls(value: Any) -> Any:
    """A schema without the keys that hold None: a table adds them to a row that lacks what others have."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in cast("Row", value).items() if each is not None}
    return [without_nulls(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


@lru_cache(maxsize=256)
def validator_for(schema: str) -> Any:
    """The validator of a schema given as JSON. It looks nothing up elsewhere. Raises ValueError."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator
    from jsonschema.validators import validator_for as validator_class_for
    from referencing import Registry

    given = json.loads(schema)
    kind = validator_class_for(given, default=Draft202012Validator)
    try:
        kind.check_schema(given)
    except SchemaError as error:
        raise ValueError(f"structured_output: not a JSON schema ({error.json_path}: {error.message})") from None
    return kind(given, registry=Registry())


def check_fits(value: Any, schema: JSONSchema) -> None:
    """Raises UnreadableAnswerError where the value doesn't fit the schema; it names the first misfit."""
    misfit = next(validator_for(json.dumps(schema)).iter_errors(value), None)
    if misfit is not None:
        problem = shorten(misfit.message, width=300, placeholder="...")
        raise UnreadableAnswerError(f"the answer doesn't fit the schema at {misfit.json_path}: {problem}")
