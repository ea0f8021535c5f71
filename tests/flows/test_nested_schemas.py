"""Schemas with references: Prefect takes a `$ref` in a parameter for a block, and none of these is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import prefect as plain_prefect
import pytest
from prefect.blocks.system import Secret
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from flows import Pipeline, collect, flow, load
from flows.authoring.preview import checked
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from llms.references import hidden, plain
from llms.structured_output import strict_schema
from tasks import LoadDataFromDicts, StructuredGeneration, TextGeneration

ROWS = [{"instruction": "Describe a country."}]


class City(BaseModel):
    name: str


class Country(BaseModel):
    capital: City
    largest: City


class Node(BaseModel):
    """A class within itself."""

    value: int
    children: list[Node]


SCHEMAS = [Country, Node]


def task(model: type[BaseModel], **fields: Any) -> TextGeneration:
    return TextGeneration(name="answers", llm=OpenAILLM(model="m", structured_output=model, **fields))


def sent(provider: LocalProvider) -> Any:
    """The schema of the latest request."""
    return provider.requests[-1].body["response_format"]["json_schema"]["schema"]


@pytest.mark.parametrize("model", SCHEMAS)
def test_as_the_llm_of_a_pipeline_it_arrives_at_the_provider_as_it_was_given(
    model: type[BaseModel], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    with Pipeline("nested") as pipeline:
        LoadDataFromDicts(name="rows", data=ROWS) >> task(model)

    (text,) = pipeline.run()["generation"]

    assert sent(provider) == strict_schema(model.model_json_schema())
    model.model_validate_json(text)


@pytest.mark.parametrize("model", SCHEMAS)
def test_as_a_flows_default_the_form_starts_with_it_and_the_server_takes_it(model: type[BaseModel]) -> None:
    @flow
    def nested(answers: TextGeneration = task(model)) -> Any:
        return answers

    schema = nested.parameters.model_dump()
    shown = schema["properties"]["answers"]["default"]

    assert "$ref" not in json.dumps(shown)
    assert validate({"answers": shown}, schema) == []
    assert checked(nested, {"answers": shown})["answers"] == task(model)


@pytest.mark.parametrize("model", SCHEMAS)
@pytest.mark.parametrize(
    "give", [lambda model: model, lambda model: model.model_json_schema()], ids=["class", "schema"]
)
def test_as_a_parameter_of_a_run_it_arrives_at_the_provider(
    model: type[BaseModel], give: Any, provider: LocalProvider, storage: Path, prefect: str
) -> None:
    with Pipeline("nested") as pipeline:
        answers = TextGeneration(name="answers", llm=OpenAILLM(model="m"))
        LoadDataFromDicts(name="rows", data=ROWS) >> answers

    pipeline.run(parameters={"answers": {"llm": {"structured_output": give(model)}}})

    assert sent(provider) == strict_schema(model.model_json_schema())


@pytest.mark.parametrize("model", SCHEMAS)
def test_where_the_parameter_has_no_default_it_is_taken_as_well(
    model: type[BaseModel], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    @flow
    def needed(answers: TextGeneration) -> Any:
        return collect(answers.map(load(ROWS)))

    llm = {"provider": "openai", "model": "m", "structured_output": model.model_json_schema()}
    given = {"answers": {"llm": llm}}

    assert validate(given, needed.parameters.model_dump()) == []
    needed(**given)

    assert sent(provider) == strict_schema(model.model_json_schema())


@pytest.mark.parametrize("model", SCHEMAS)
@pytest.mark.parametrize("as_parameter", [False, True])
def test_in_rows_it_is_the_rows_schema_and_stays_in_the_dataset_as_it_is(
    model: type[BaseModel], as_parameter: bool, provider: LocalProvider, storage: Path, prefect: str
) -> None:
    schema = model.model_json_schema()
    rows = [{"instruction": "Describe it.", "structured_output": {"format": "json", "schema": json.dumps(schema)}}]
    rows[0]["note"] = {"$ref": "#/$defs/City"}
    with Pipeline("nested-rows") as pipeline:
        source = LoadDataFromDicts(name="rows", data=[{"instruction": "-"}] if as_parameter else rows)
        source >> StructuredGeneration(name="answers", llm=OpenAILLM(model="m"))

    (row,) = pipeline.run(parameters={"rows": {"data": rows}} if as_parameter else None).to_list()

    assert sent(provider) == strict_schema(schema)
    assert row["note"] == {"$ref": "#/$defs/City"}


def test_in_other_parameters_it_stays_as_it_is(provider: LocalProvider, storage: Path, prefect: str) -> None:
    body = {"guided_json": Node.model_json_schema()}
    examples = [{"instruction": "Which schema?", "generation": Country.model_json_schema()}]
    default = TextGeneration(
        name="answers", llm=OpenAILLM(model="m", generation_kwargs={"extra_body": body}), examples=examples
    )

    @flow
    def nested(answers: TextGeneration = default) -> Any:
        return collect(answers.map(load(ROWS)))

    schema = nested.parameters.model_dump()
    shown = schema["properties"]["answers"]["default"]
    assert validate({"answers": shown}, schema) == []
    nested(answers=shown)

    assert provider.requests[-1].body["guided_json"] == Node.model_json_schema()
    assert json.loads(provider.requests[-1].body["messages"][1]["content"]) == {
        "generation": Country.model_json_schema()
    }


@pytest.mark.parametrize("model", SCHEMAS)
def test_a_flow_of_prefects_own_decorator_takes_it_as_well(
    model: type[BaseModel], provider: LocalProvider, storage: Path, prefect: str
) -> None:
    rows = LoadDataFromDicts(data=[{**ROWS[0], "note": {"$ref": "#/$defs/City"}}])

    @plain_prefect.flow
    def ordinary(rows: LoadDataFromDicts, answers: TextGeneration) -> Any:
        return collect(answers.map(load(rows)))

    (row,) = ordinary(rows, task(model)).to_list()

    assert row["note"] == {"$ref": "#/$defs/City"}
    assert sent(provider) == strict_schema(model.model_json_schema())


def test_a_block_is_still_a_block(prefect: str) -> None:
    identifier = Secret(value="hush").save("nested-schemas-test", overwrite=True)
    by_id = {"$ref": {"block_document_id": str(identifier)}}

    @flow
    def with_block(secret: Secret, others: list[Any]) -> Any:
        return [secret.get(), *(each.get() if isinstance(each, Secret) else each for each in others)]

    place = {"$ref": "#/$defs/City"}
    assert with_block(secret=by_id, others=[{"$ref": str(identifier)}, place]) == ["hush", "hush", place]
    with pytest.raises(ParameterError, match=r"the block .* can't be loaded"):
        checked(with_block, {"secret": {"$ref": "00000000-0000-0000-0000-000000000000"}, "others": []})


@pytest.mark.parametrize(
    "schema",
    [
        Country.model_json_schema(),
        Node.model_json_schema(),
        {"properties": {"$ref": {"type": "string"}}, "items": [{"$ref": "#"}]},
        {"$ref": {"block_document_id": "x"}},
    ],
)
def test_hiding_references_loses_nothing(schema: dict[str, Any]) -> None:
    assert plain(hidden(schema)) == schema
