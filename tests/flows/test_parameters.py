"""Parameters of flows: given in part, by every way in, merged onto the defaults; mistakes are refused by name."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import cloudpickle
import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError as RefusedParametersError
from prefect.utilities.schema_tools.validation import validate
from pydantic import Field

from flows.authoring.dotted import read_config
from flows.authoring.parameters import Flow, flow, merge_parameters, over_mapping
from flows.authoring.preview import checked
from flows.cli import READY_MADE, given_parameters
from flows.preference import preference
from flows.text_generation import text_generation
from llms import LLM, AnthropicLLM, AzureOpenAILLM, InferenceEndpointsLLM, OpenAILLM, ParameterError
from llms.parameters import form_values
from llms.registry import LLM_VARIANTS
from tasks import LoadDataFromDisk, LoadDataFromFileSystem, SaveToFiles, TextGeneration
from tests.checked_once import check_schemas_once
from tests.conftest import ROOT

check_schemas_once()

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
    tabs = schema["definitions"]["OpenAILLM_text_generation"]["properties"]["generation_kwargs"]["anyOf"]
    words = tabs[0]["properties"]

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
            "'nmu_generations' is not one of ['llm', 'system_prompt', 'template', 'columns', ",
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
        (llm(model=3), "llm.model'. Failure reason: 3 is not of type 'string'"),
        (llm(provider="anthropic", model=3), "llm.model'. Failure reason: 3 is not of type 'string'"),
        (llm(provider=3), "llm.provider'. Failure reason: 3 is not of type 'string'"),
        (llm(generation_kwargs=3), "llm.generation_kwargs'. Failure reason: 3 is not of type 'object'"),
        ({"source": {"data_file": "x.jsonl"}}, "'data_file' is not one of ["),
        ({"source": {"data_file": "x.jsonl", "repoid": "x"}}, "'data_file' is not one of ["),
        ({"source": {"kind": "flies"}}, "source'. Failure reason: 'kind: one of files, hub, "),
        ({"source": {"kind": 3}}, "source'. Failure reason: 'kind: one of files, hub, "),
        ({"source": {"kind": "hub", "repo_id": 3}}, "source.repo_id'. Failure reason: 3 is not of type 'string'"),
        ({"source": {"kind": "hub", "repoid": "x"}}, "source'. Failure reason: 'repoid' is not one of ["),
        ({"target": {"kind": "disc"}}, "target'. Failure reason: 'kind: one of files, disk, "),
        ({"target": {"path": 3}}, "target.path'. Failure reason: 3 is not of type 'string'"),
        ({"target": {"kind": "disk", "path": 3}}, "target.path'. Failure reason: 3 is not of type 'string'"),
        (
            {"text_generation": {"num_generations": "2"}},
            "num_generations'. Failure reason: '2' is not of type 'integer'",
        ),
        (
            {"text_generation": {"system_prompt": 3}},
            "system_prompt'. Failure reason: 3 is not of type 'string', 'null'",
        ),
        ({"text_generation": {"num_generations": 0}}, "num_generations'. Failure reason: 0 is less than the minimum"),
        ({"text_generation": {"add_raw_input": "no"}}, "add_raw_input'. Failure reason: 'no' is not of type 'boolean'"),
        (
            llm(use_offline_batch_generation="yes"),
            "use_offline_batch_generation'. Failure reason: 'yes' is not of type",
        ),
        (llm(provider="mistral", model=3), "llm.model'. Failure reason: 3 is not of type 'string'"),
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
        "a model's of another type",
        "a named LLM's model's of another type",
        "a provider's of another type",
        "generation parameters' of another type",
        "a source's",
        "two of a source's",
        "a source's kind",
        "a source's kind of another type",
        "a source's field of another type",
        "a field of a source's kind",
        "a target's kind",
        "a target's field of another type",
        "a field of a target's kind, of another type",
        "a step's of another type",
        "a step's text's of another type",
        "a step's out of bounds",
        "a step's that the form hides",
        "an LLM's of another type",
        "another provider's model's of another type",
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


@pytest.mark.parametrize(
    "given",
    [
        {"provider": "inference-endpoints", "base_url": "http://127.0.0.1:1/v1"},
        {"provider": "perplexity", "model": "m"},
        {"provider": "ollama", "model": "m"},
    ],
    ids=lambda each: each["provider"],
)
def test_batches_that_are_off_are_taken_where_there_are_none_and_those_that_are_on_are_refused(
    given: dict[str, Any],
) -> None:
    """V1's form, in which another provider is chosen, keeps the switch of the one before."""
    schema = text_generation.parameters.model_dump()
    off, on = (llm(**given, use_offline_batch_generation=switched) for switched in (False, True))

    assert validate(off, schema, ignore_required=True) == []
    assert task_of(**off).llm.addressee() == task_of(**llm(**given)).llm.addressee()
    with pytest.raises(ParameterError, match="has no parameter 'use_offline_batch_generation'"):
        task_of(**on)


def chosen_tab(value: dict[str, Any]) -> str:
    """The tab that Prefect's forms choose for an LLM: that which shares most keys with it, the first among equals."""
    schema = text_generation.parameters.model_dump()
    step = schema["definitions"]["TextGeneration_text_generation_usual"]["properties"]
    tabs = [schema["definitions"][each["$ref"].rpartition("/")[2]] for each in step["llm"]["anyOf"]]
    return max(tabs, key=lambda tab: len(set(value) & set(tab["properties"])))["title"]


@pytest.mark.parametrize(
    "model",
    [OpenAILLM(model="m"), AzureOpenAILLM(model="m"), AnthropicLLM(model="m"), InferenceEndpointsLLM(model_id="m")],
    ids=lambda model: model.provider,
)
def test_a_form_opens_the_providers_tab_and_that_of_all_settings_where_a_hidden_one_is_set(model: LLM) -> None:
    hidden = LLM_VARIANTS.write(model).keys() - form_values(model).keys()

    assert {"max_retries", "timeout", "outage_timeout"} <= hidden
    assert chosen_tab(form_values(model)) == type(model).form_title
    for name in hidden:
        assert chosen_tab({**form_values(model), name: 1}) == "All settings, any provider", name


@pytest.mark.parametrize(
    "given",
    [
        {"source": {"num_examples": None}},
        {"source": {"kind": "files", "data_files": "x.jsonl", "num_examples": None}},
        {"source": {"kind": "hub", "repo_id": "x", "config": None, "revision": None}},
        {"target": {"kind": "hub", "repo_id": "x", "private": None}},
    ],
    ids=["a part", "files", "hub", "a target"],
)
def test_the_server_takes_none_where_a_source_or_a_target_can_do_without(given: dict[str, Any]) -> None:
    schema = text_generation.parameters.model_dump()

    assert validate(given, schema, ignore_required=True) == []
    checked(text_generation, given)


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


def test_a_form_of_several_steps_begins_with_all_of_them_closed_and_says_which_models_they_ask() -> None:
    several, one = (each.parameters.model_dump() for each in (preference, text_generation))

    for name, asked in {
        "text_generation": "By default gpt-4o-mini, temperature 1.",
        "ultrafeedback": "By default gpt-4o.",
    }.items():
        step = several["properties"][name]
        # An object without fields is shown as nothing; a type `null` would be called one.
        assert step["anyOf"][0] == {"type": "object", "properties": {}, "title": "As it is"}
        tabs = [several["definitions"][each["$ref"].rpartition("/")[2]]["title"] for each in step["anyOf"][1:]]
        assert tabs == ["Usual settings", "All settings"]
        assert "default" not in step
        assert step["description"].endswith(asked)
    assert not several.get("required")
    assert len(one["properties"]["text_generation"]["anyOf"]) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"aspect": "beauty"}, "ultrafeedback.aspect'. Failure reason: 'beauty' is not one of ['helpfulness', "),
        ({"aspekt": "honesty"}, "ultrafeedback'. Failure reason: 'aspekt' is not one of ["),
        ({"num_generations": 0}, "num_generations'. Failure reason: 0 is less than the minimum"),
        ({"llm": {"model": 3}}, "llm.model'. Failure reason: 3 is not of type 'string'"),
        ({"llm": {"modle": "m"}}, "llm'. Failure reason: 'modle' is not one of ['model', "),
        (3, "ultrafeedback'. Failure reason: 3 is not of type 'object'"),
    ],
    ids=["a value", "a name", "a hidden one", "a model's of another type", "a model's name", "no object"],
)
@pytest.mark.parametrize("kept", ["as written", "as PostgreSQL keeps it"])
def test_a_server_says_where_a_closed_step_is_wrong(given: Any, said: str, kept: str) -> None:
    schema = preference.parameters.model_dump()
    if kept == "as PostgreSQL keeps it":
        schema = keys_by_length(schema)

    with pytest.raises(RefusedParametersError) as refused:
        validate({"ultrafeedback": given}, schema, raise_on_error=True, ignore_required=True)

    assert said in str(refused.value)
    for right in ({}, {"aspect": "honesty"}, {"llm": {"model": "m"}}, {"num_generations": 2}):
        assert validate({"ultrafeedback": right}, schema, ignore_required=True) == []


def test_a_form_shows_the_values_of_the_flows_own_default() -> None:
    schema = small.parameters.model_dump()

    llm = schema["definitions"]["OpenAILLM_text_generation"]["properties"]
    assert llm["model"]["default"] == "gpt-4o-mini"
    assert llm["generation_kwargs"]["anyOf"][0]["properties"]["max_new_tokens"]["default"] == 9
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


@flow
async def with_optional_ones(
    limit: Annotated[float | None, Field(ge=0)] = None,
    label: str | None = None,
    switch: bool | None = None,
    count: int | None = 3,
) -> None:
    """A flow with what may be left empty.

    Args:
        limit: How much.
        label: What it's called.
        switch: Whether.
        count: How many.
    """


def test_an_optional_number_or_text_is_one_input_that_may_be_left_empty() -> None:
    schema = with_optional_ones.parameters.model_dump()
    limit, label = schema["properties"]["limit"], schema["properties"]["label"]

    assert limit == {"title": "limit", "description": "How much.", "type": "number", "minimum": 0, "position": 0}
    assert label == {"title": "label", "description": "What it's called.", "type": "string", "position": 1}
    assert not schema.get("required")
    # A switch has no third state, and an emptied input can't take back a default.
    assert all("anyOf" in schema["properties"][name] for name in ("switch", "count"))
    assert validate({"limit": None, "label": None}, schema, ignore_required=True) == []
    assert validate({}, schema) == validate({"limit": 2.5, "label": "x"}, schema) == []
    for wrong in ("much", -1):
        with pytest.raises(RefusedParametersError, match="limit"):
            validate({"limit": wrong}, schema, raise_on_error=True, ignore_required=True)
    assert checked(with_optional_ones, {"limit": None}) == {
        **checked(with_optional_ones, {}),
        "limit": None,
    }


def tab_of(parameter: str, value: dict[str, Any]) -> str:
    """The tab that Prefect's forms choose for the value of a parameter of `text_generation`."""
    schema = text_generation.parameters.model_dump()
    every = [each["$ref"].rpartition("/")[2] for each in schema["properties"][parameter]["anyOf"]]
    tabs = [schema["definitions"][each] for each in every]
    return max(tabs, key=lambda tab: len(set(value) & set(tab["properties"])))["title"]


@pytest.mark.parametrize(
    ("parameter", "value", "tab"),
    [
        ("source", {"data_files": "x.jsonl"}, "Files"),
        ("source", {"kind": "files", "data_files": "x.jsonl"}, "Files, all settings"),
        ("source", {"filetype": "csv"}, "Files, all settings"),
        ("source", {"kind": "hub", "repo_id": "a/b"}, "Hugging Face Hub"),
        ("source", {"kind": "disk", "dataset_path": "x"}, "Dataset on disk"),
        ("target", {"path": "x"}, "Dataset on disk"),
        ("target", {"kind": "disk", "path": "x"}, "Dataset on disk, all settings"),
        ("target", {"path": "x", "overwrite": False}, "Dataset on disk, all settings"),
        ("target", {"kind": "files", "path": "x.csv", "file_format": "csv"}, "Files"),
        ("target", {"kind": "hub", "repo_id": "a/b"}, "Hugging Face Hub"),
    ],
)
def test_a_form_opens_a_tab_that_shows_all_that_a_deployment_sets_of_a_source_or_a_target(
    parameter: str, value: dict[str, Any], tab: str
) -> None:
    assert tab_of(parameter, value) == tab
    assert validate({parameter: value}, text_generation.parameters.model_dump(), ignore_required=True) == []


def test_the_form_of_a_ready_made_flow_refuses_a_template_that_prefect_deploy_ate() -> None:
    schema = text_generation.parameters.model_dump()

    (error,) = validate({"text_generation": {"template": "Translate into German: "}}, schema)
    assert "there prefect deploy takes the first for a value of its own" in error.message
    assert not validate({"text_generation": {"template": "Translate into German: {{ instruction }}"}}, schema)


@pytest.mark.parametrize("kept", [small, text_generation, preference], ids=lambda each: each.name)
def test_a_flow_goes_to_another_process_without_its_forms_classes_and_keeps_them_in_a_copy(
    kept: Flow[..., Any], tmp_path: Path
) -> None:
    """As `serve` sends it, where the flow is in a script of its own."""
    sent, told = tmp_path / "flow", "import cloudpickle, sys; print(cloudpickle.load(open(sys.argv[1], 'rb')).name)"
    # By value, as of a script.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        sent.write_bytes(cloudpickle.dumps(kept))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    done = subprocess.run([sys.executable, "-c", told, str(sent)], capture_output=True, text=True, cwd=ROOT)

    assert (done.stdout.strip(), done.returncode) == (kept.name, 0), done.stderr
    assert parameter_schema(copy.copy(kept)) == parameter_schema(kept) == kept.parameters


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: cloudpickle.loads(cloudpickle.dumps(each))])
def test_a_flow_that_was_copied_or_sent_takes_other_options_and_keeps_its_form(
    copied: Callable[[Flow[..., Any]], Flow[..., Any]],
) -> None:
    renamed = copied(text_generation).with_options(name="renamed")

    assert renamed.name == "renamed"
    assert renamed.parameters == text_generation.parameters


def test_numbers_of_a_json_file_are_read_as_json_has_them_and_a_mistake_is_placed(tmp_path: Path) -> None:
    path = tmp_path / "parameters.json"
    path.write_text('\ufeff{"text_generation": {"llm": {"generation_kwargs": {"temperature": 1e-05}}}}')

    assert task_of(**given_parameters(str(path), ())).llm.generation_kwargs["temperature"] == 1e-05
    assert read_config(str(path))["text_generation"]["llm"]["generation_kwargs"]["temperature"] == 1e-05

    path.write_text("{count: 4}")
    with pytest.raises(ParameterError, match=r"parameters\.json is no JSON: .* line 1 column 2"):
        read_config(str(path))
