"""Parameters of flows: given in part, by every way in, merged onto the defaults; mistakes are refused by name."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.utilities.schema_tools.validation import ValidationError as RefusedParametersError
from prefect.utilities.schema_tools.validation import validate

from flows.authoring.parameters import Flow, flow, merge_parameters, over_mapping
from flows.authoring.preview import checked
from flows.cli import READY_MADE, given_parameters
from flows.preference import preference
from flows.text_generation import text_generation
from llms import OpenAILLM, ParameterError
from tasks import LoadDataFromDisk, LoadDataFromFileSystem, SaveToFiles, TextGeneration

PART = {"text_generation": {"llm": {"generation_kwargs": {"temperature": 0.3}}}}


@flow
async def small(
    text_generation: TextGeneration = TextGeneration(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"max_new_tokens": 9}),
        system_prompt="Be brief.",
    ),
    count: int = 1,
) -> Any:
    """A flow that returns its parameters."""
    return text_generation, count


def task_of(**parameters: Any) -> TextGeneration:
    return checked(small, parameters)["text_generation"]


def test_a_part_is_merged_onto_the_default() -> None:
    task = task_of(**PART)

    assert task.llm.generation_kwargs == {"max_new_tokens": 9, "temperature": 0.3}
    assert task.llm.model == "gpt-4o-mini"
    assert task.system_prompt == "Be brief."


def test_text_from_a_command_line_is_coerced() -> None:
    parameters = given_parameters(
        None, ("text_generation.llm.generation_kwargs.temperature=0.3", "text_generation.num_generations=2", "count=4")
    )

    values = checked(small, parameters)

    assert values["text_generation"].llm.generation_kwargs["temperature"] == 0.3
    assert values["text_generation"].num_generations == 2
    assert values["count"] == 4


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_file_and_a_command_line_go_together_and_the_command_line_wins(tmp_path: Path, ending: str) -> None:
    import yaml

    path = tmp_path / f"parameters.{ending}"
    whole = {"text_generation": {"system_prompt": "From a file.", "llm": {"generation_kwargs": {"temperature": 0.9}}}}
    path.write_text(json.dumps(whole) if ending == "json" else yaml.safe_dump(whole))

    task = task_of(**given_parameters(str(path), ("text_generation.llm.generation_kwargs.temperature=0.3",)))

    assert task.system_prompt == "From a file."
    assert task.llm.generation_kwargs["temperature"] == 0.3


TAKEN_BACK = {"text_generation": {"system_prompt": None, "llm": {"generation_kwargs": {"max_new_tokens": None}}}}
ON_THE_COMMAND_LINE = (
    "text_generation.system_prompt=null",
    "text_generation.llm.generation_kwargs.max_new_tokens=null",
)


def check_that_it_is_taken_back(task: TextGeneration) -> None:
    assert task.system_prompt is None
    assert task.llm.generation_kwargs == {}
    assert [message["role"] for message in task.prompt({"instruction": "Hello"})] == ["user"]


def test_none_takes_back_what_the_default_says_in_python() -> None:
    check_that_it_is_taken_back(task_of(**TAKEN_BACK))


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_none_takes_back_what_the_default_says_in_a_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"parameters.{ending}"
    empty = "text_generation:\n  system_prompt:\n  llm: {generation_kwargs: {max_new_tokens: ~}}"
    path.write_text(json.dumps(TAKEN_BACK) if ending == "json" else empty)

    check_that_it_is_taken_back(task_of(**given_parameters(str(path), ())))


def test_none_takes_back_on_the_command_line_what_the_default_or_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps({"text_generation": {"system_prompt": "From a file."}}))

    check_that_it_is_taken_back(task_of(**given_parameters(None, ON_THE_COMMAND_LINE)))
    check_that_it_is_taken_back(task_of(**given_parameters(str(path), ON_THE_COMMAND_LINE)))


def test_none_takes_back_what_a_deployment_says() -> None:
    deployed = {"text_generation": {"system_prompt": "Deployed.", "llm": {"generation_kwargs": {"max_new_tokens": 5}}}}

    check_that_it_is_taken_back(merge_parameters(small.fn, deployed, TAKEN_BACK)["text_generation"])


def test_the_form_has_a_tab_for_none_where_the_default_is_something_else_and_the_server_takes_it() -> None:
    schema = small.parameters.model_dump()
    task = schema["definitions"]["TextGeneration_text_generation"]["properties"]
    words = schema["definitions"]["OpenAILLM_text_generation"]["properties"]["generation_kwargs"]["properties"]

    for field in (task["system_prompt"], words["max_new_tokens"]):
        assert [tab["title"] for tab in field["anyOf"]] == ["Value", "None"]
    assert "(at least 1)" in words["max_new_tokens"]["description"]
    assert "anyOf" not in words["temperature"]
    assert validate(TAKEN_BACK, schema, ignore_required=True) == []
    assert validate({"text_generation": {"num_generations": None}}, schema, ignore_required=True) != []


def test_a_whole_instance_is_taken_as_it_is() -> None:
    mine = TextGeneration(llm=OpenAILLM(model="mine", api_key="sk-1"))

    assert task_of(text_generation=mine) is mine


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text_generation": {"llm": {"generation_kwargs": {"temprature": 1}}}}, "Did you mean 'temperature'"),
        ({"text_generation": {"llm": {"generation_kwargs": {"temperature": "hot"}}}}, "valid number.*'hot'"),
        ({"text_generation": {"llm": {"generation_kwargs": {"temperature": 3}}}}, "less than or equal to 2.*got 3"),
        ({"text_generation": {"llm": {"modle": "x"}}}, r"text_generation\.llm\.modle.*Did you mean 'model'"),
        ({"text_generation": {"num_generation": 2}}, "Did you mean 'num_generations'"),
        ({"text_generation": {"num_generations": 0}}, "greater than or equal to 1, got 0"),
        ({"text_generation": {"template": "{{ oops"}}, "not a Jinja2 template"),
        ({"text_generation": {"llm": {"provider": "opnai", "model": "x"}}}, "Did you mean 'openai'"),
        ({"text_generaton": {}}, "Did you mean 'text_generation'"),
    ],
)
def test_a_mistake_is_refused_with_where_what_and_the_way_out(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        checked(small, given)


def test_another_provider_starts_from_nothing_of_the_old_one() -> None:
    task = task_of(text_generation={"llm": {"provider": "inference-endpoints", "model_id": "org/model"}})

    assert type(task.llm).__name__ == "InferenceEndpointsLLM"
    assert task.llm.generation_kwargs == {}


def test_an_adapter_of_ones_own_is_taken_by_its_import_path() -> None:
    task = task_of(text_generation={"llm": {"provider": "tests.flows.own_llm:OwnLLM", "voice": "low"}})

    assert type(task.llm).__name__ == "OwnLLM"
    assert task.llm.voice == "low"


def test_sources_and_targets_change_by_kind_or_in_part() -> None:
    values = checked(
        text_generation, {"source": {"data_files": "other.jsonl"}, "target": {"kind": "files", "path": "o.csv"}}
    )

    assert isinstance(values["source"], LoadDataFromFileSystem)
    assert values["source"].data_files == "other.jsonl"
    assert isinstance(values["target"], SaveToFiles)
    other = checked(text_generation, {"source": {"kind": "disk", "dataset_path": "somewhere"}})["source"]
    assert isinstance(other, LoadDataFromDisk)


def test_a_deployments_parameters_lie_between_the_defaults_and_the_runs() -> None:
    deployed = {"text_generation": {"llm": {"model": "from-the-deployment"}, "system_prompt": "Deployed."}}

    task = merge_parameters(small.fn, deployed, PART)["text_generation"]

    assert (task.llm.model, task.system_prompt) == ("from-the-deployment", "Deployed.")
    assert task.llm.generation_kwargs == {"max_new_tokens": 9, "temperature": 0.3}


def test_a_changed_tag_drops_what_a_deployment_said_of_the_old_variant() -> None:
    below = {"provider": "openai", "model": "x"}

    assert over_mapping(below, {"provider": "inference-endpoints", "model_id": "y"}) == {
        "provider": "inference-endpoints",
        "model_id": "y",
    }


@pytest.mark.parametrize("ready_made", [text_generation, preference], ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        (PART, True),
        ({"source": {"data_files": "x.jsonl"}}, True),
        ({"target": {"path": "x"}}, True),
        ({"text_generation": {"llm": {"generation_kwargs": {"temperature": "hot"}}}}, False),
        ({"text_generation": {"llm": {"generation_kwargs": {"temprature": 0.3}}}}, False),
        ({"text_generation": {"llm": {"modle": "x"}}}, False),
        ({"text_generation": {"llm": {"model": 3}}}, False),
        ({"text_generation": {"num_generations": "2"}}, False),
        ({"text_generation": {"nonsense": 1}}, False),
        ({"use_cache": "sometimes"}, False),
    ],
)
def test_the_server_takes_parts_and_refuses_mistakes(
    ready_made: Flow[..., Any], given: dict[str, Any], fits: bool
) -> None:
    schema = ready_made.parameters.model_dump()

    assert (validate(given, schema, ignore_required=True) == []) is fits


def llm(**given: Any) -> dict[str, Any]:
    return {"text_generation": {"llm": given}}


def keys_by_length(value: Any) -> Any:
    """`value` as a jsonb column keeps it: keys by length, then by their bytes."""
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        return {key: keys_by_length(known[key]) for key in sorted(known, key=lambda key: (len(key), key.encode()))}
    return [keys_by_length(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"text_generation": {"nmu_generations": 2}},
            "'nmu_generations' is not one of ['llm', 'template', 'columns', ",
        ),
        (llm(modle="gpt-4o"), "llm'. Failure reason: 'modle' is not one of ['model', "),
        (llm(provider="openai", modle="m"), "llm'. Failure reason: 'modle' is not one of ['model', "),
        (llm(generation_kwargs={"temprature": 1}), "generation_kwargs'. Failure reason: 'temprature' is not one of ["),
        (
            llm(provider="anthropic", generation_kwargs={"seed": 1}),
            "generation_kwargs'. Failure reason: 'seed' is not one of ['max_new_tokens', 'temperature', 'top_p', ",
        ),
        (
            llm(provider="anthropic", generation_kwargs={"temperature": "hot"}),
            "generation_kwargs.temperature'. Failure reason: 'hot' is not ",
        ),
        (llm(provider="openai", max_retries="six"), "llm.max_retries'. Failure reason: 'six' is not "),
        (llm(provider="opnai"), "llm.provider'. Failure reason: 'opnai' is not one of ['openai', "),
        ({"source": {"data_file": "x.jsonl"}}, "'data_file' is not one of ["),
    ],
    ids=[
        "a step's",
        "an LLM's",
        "a named LLM's",
        "a generation parameter's",
        "another LLM's generation parameter's",
        "a value of another type",
        "a field of another type",
        "a provider's",
        "a source's",
    ],
)
@pytest.mark.parametrize("kept", ["as written", "as PostgreSQL keeps it"])
def test_a_server_that_refuses_something_says_where_and_which_names_there_are(
    given: dict[str, Any], said: str, kept: str
) -> None:
    schema = text_generation.parameters.model_dump()
    if kept == "as PostgreSQL keeps it":
        schema = keys_by_length(schema)

    with pytest.raises(RefusedParametersError) as refused:
        validate(given, schema, raise_on_error=True, ignore_required=True)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"provider": "ollama", "model": "m", "keep_alive": "5m", "generation_kwargs": {"temperature": 1, "min_p": 0.1}},
        {"provider": "vertexai", "model": "m", "project": "p", "location": "l"},
        {"provider": "bedrock", "model": "m", "region": "us-east-1", "role_arn": "r"},
        {"provider": "my.module:OwnLLM", "anything": 3, "generation_kwargs": {"of its own": 1}},
        {"provider": "anthropic", "model": "m", "generation_kwargs": {"top_k": 5}},
        {"generation_kwargs": {"temperature": None}},
    ],
    ids=["ollama", "vertexai", "bedrock", "one's own", "another one's", "a value taken back"],
)
def test_the_server_takes_what_each_provider_alone_has(given: dict[str, Any]) -> None:
    schema = text_generation.parameters.model_dump()

    assert validate(llm(**given), schema, ignore_required=True) == []


@pytest.mark.parametrize("name", [name for name in READY_MADE if name not in {"watch_batches", "resubmit_failed_rows"}])
def test_forms_have_titles_descriptions_and_an_order_at_every_level_and_no_secrets(name: str) -> None:
    module, _, attribute = READY_MADE[name][0].partition(":")
    ready_made: Flow[..., Any] = getattr(import_module(module), attribute)
    schema = ready_made.parameters.model_dump()

    for name, definition in schema["definitions"].items():
        properties = definition["properties"]
        assert [each["position"] for each in properties.values()].count(0) == 1, name
        assert sorted(each["position"] for each in properties.values()) == list(range(len(properties))), name
        assert all(each.get("title") for each in properties.values()), name
        assert not {"api_key", "default_headers", "token"} & set(properties), name
    assert all(each.get("description") for each in schema["properties"].values())


def test_a_form_shows_the_values_of_the_flows_own_default() -> None:
    schema = small.parameters.model_dump()

    llm = schema["definitions"]["OpenAILLM_text_generation"]["properties"]
    assert llm["model"]["default"] == "gpt-4o-mini"
    assert llm["generation_kwargs"]["properties"]["max_new_tokens"]["default"] == 9
    assert (
        schema["definitions"]["TextGeneration_text_generation"]["properties"]["system_prompt"]["default"] == "Be brief."
    )


def test_the_plain_decorator_of_prefect_works_with_whole_parameters(prefect: str) -> None:
    import prefect as plain

    @plain.flow
    async def ordinary(task: TextGeneration = TextGeneration(llm=OpenAILLM(model="m"))) -> str:
        return task.llm.model_name

    assert asyncio.run(ordinary()) == "m"
    whole = TextGeneration(llm=OpenAILLM(model="other")).model_dump(mode="json")
    assert asyncio.run(ordinary(task=whole)) == "other"


def test_an_async_and_a_sync_flow_both_load_map_and_collect(provider, storage: Path, prefect: str) -> None:
    from flows import collect, load

    rows = [{"instruction": "Say hi."}]

    @flow
    async def in_async(task: TextGeneration = TextGeneration(llm=OpenAILLM(model="m"))) -> Any:
        return await collect(task.map(load(rows)))

    @flow
    def in_sync(task: TextGeneration = TextGeneration(llm=OpenAILLM(model="m"))) -> Any:
        return collect(task.map(load(rows)))

    assert len(asyncio.run(in_async())) == len(in_sync()) == 1


def test_the_form_of_a_ready_made_flow_refuses_a_template_that_prefect_deploy_ate() -> None:
    schema = text_generation.parameters.model_dump()

    (error,) = validate({"text_generation": {"template": "Translate into German: "}}, schema)
    assert "there prefect deploy takes the first for a value of its own" in error.message
    assert not validate({"text_generation": {"template": "Translate into German: {{ instruction }}"}}, schema)
