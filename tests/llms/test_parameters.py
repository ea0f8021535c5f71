"""Configurable models: merging, messages, signatures and identities."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel, Field, SecretStr, TypeAdapter, create_model, validate_call

from llms import (
    AnthropicLLM,
    AnyEmbeddings,
    AnyImageModel,
    AnyLLM,
    AsyncLLM,
    InferenceEndpointsLLM,
    OpenAILLM,
    ParameterError,
    RuntimeParameter,
)
from llms.parameters import Configurable, Unasked, argument_descriptions, short, signature_model
from llms.registry import IN_TABS, LLM_VARIANTS
from llms.typing import GenerateOutput


class Inner(Configurable):
    size: int = 1
    name: str = "inner"


class Outer(Configurable):
    inner: Inner = Inner()
    llm: AnyLLM = OpenAILLM(model="m", generation_kwargs={"temperature": 0.1})
    share: Annotated[float, Field(ge=0, le=1, description="Of all.")] = 0.5
    note: RuntimeParameter[str]
    items: list[int] = []
    speed: Annotated[int, Unasked()] = 3
    key: Annotated[SecretStr | None, Field(exclude=True)] = None


# Merging


def test_overrides_are_merged_key_by_key_and_the_rest_stays() -> None:
    merged = Outer().merged({"inner": {"size": "5"}, "llm": {"generation_kwargs": {"top_p": "0.5"}}})

    assert merged.inner == Inner(size=5)
    assert merged.llm.generation_kwargs == {"temperature": 0.1, "top_p": 0.5}
    assert merged.share == 0.5


def test_merging_leaves_the_model_as_it_is() -> None:
    outer = Outer()
    before = outer.model_dump_json()

    outer.merged({"inner": {"size": 9}, "llm": {"model": "other", "generation_kwargs": {"temperature": 1}}})

    assert outer.model_dump_json() == before


def test_none_takes_a_value_back_and_what_is_left_out_stays() -> None:
    outer = Outer(note="given", llm=OpenAILLM(model="m", generation_kwargs={"temperature": 0.1, "top_p": 0.5}))

    merged = outer.merged({"note": None, "llm": {"generation_kwargs": {"temperature": None}}})

    assert merged.note is None
    assert merged.llm.generation_kwargs == {"top_p": 0.5}
    assert merged.inner == outer.inner


@pytest.mark.parametrize(
    ("overrides", "where"),
    [({"inner": {"size": None}}, "inner.size"), ({"llm": None}, "llm"), ({"llm": {"model": None}}, "llm.model")],
)
def test_none_is_refused_where_it_cant_be_the_value(overrides: dict[str, Any], where: str) -> None:
    with pytest.raises(ParameterError, match=f"^{where}: got None, which it can't be; leave it out to keep it"):
        Outer().merged(overrides)


class Talkative(AsyncLLM):
    """A keyword has a default, and may be None."""

    voice: str | None = "loud"

    @property
    def model_name(self) -> str:
        return "talkative"

    async def agenerate(
        self, input: Any, num_generations: int = 1, most: int | None = 128, least: int = 1
    ) -> GenerateOutput:
        return {"generations": [f"{most} {least}"] * num_generations, "statistics": {}}


def test_none_takes_back_the_default_that_a_keyword_of_an_own_model_has() -> None:
    llm = Talkative(generation_kwargs={"most": 5, "least": 2})

    merged = llm.merged({"generation_kwargs": {"most": None, "least": None}})

    assert merged.generation_kwargs == {"most": None}
    assert merged.generate_outputs(["hello"])[0]["generations"] == ["None 1"]


def test_a_model_that_is_written_down_and_read_has_none_where_it_had() -> None:
    llm = Talkative(voice=None, generation_kwargs={"most": None})
    adapter = TypeAdapter(AnyLLM)

    assert adapter.validate_json(adapter.dump_json(llm)) == llm


def test_another_provider_begins_with_its_own_defaults() -> None:
    merged = Outer().merged({"llm": {"provider": "inference-endpoints", "model_id": "a/b"}})

    assert isinstance(merged.llm, InferenceEndpointsLLM)
    assert merged.llm.generation_kwargs == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"shre": 1}, "shre: Outer has no parameter 'shre'. Did you mean 'share'?"),
        ({"inner": {"sise": 1}}, "inner.sise: Inner has no parameter 'sise'. Did you mean 'size'?"),
        ({"zzz": 1}, "There are: inner, items, key, llm, note, share, speed."),
        ({"share": 2}, "share: Input should be less than or equal to 1, got 2"),
        ({"inner": {"size": "many"}}, "got 'many'"),
        ({"llm": {"generation_kwargs": {"temperatur": 1}}}, "Did you mean 'temperature'"),
        ({"llm": {"provider": "opnai"}}, "Did you mean 'openai'"),
        ({"llm": {"model_idd": "x"}}, "OpenAILLM has no parameter 'model_idd'"),
        (
            {"llm": {"tokenizer_id": "x"}},
            "llm.tokenizer_id: OpenAILLM has no parameter 'tokenizer_id'. It isn't needed",
        ),
        ({"llm": {"generation_kwargs": {"stop_sequences": ["x"]}}}, "Here it is 'stop'."),
        ({"llm": {"generation_kwargs": {"max_tokens": 5}}}, "Here it is 'max_new_tokens'."),
    ],
)
def test_a_mistake_says_where_it_is_what_was_got_and_what_is_near(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Outer().merged(overrides)

    assert message in str(raised.value)
    assert "pydantic" not in str(raised.value)


def test_unknown_names_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="Did you mean 'share'"):
        Outer.model_validate({"shares": 1})


@given(
    st.fixed_dictionaries({}, optional={"size": st.integers(-5, 5), "name": st.text(max_size=3)}),
    st.fixed_dictionaries({}, optional={"size": st.integers(-5, 5), "name": st.text(max_size=3)}),
)
def test_merging_twice_is_merging_both(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert Inner().merged(first).merged(second) == Inner().merged({**first, **second})


# Runtime parameters


def test_names_tell_what_is_optional_and_nest() -> None:
    names = Outer().runtime_parameters_names

    assert names["inner"] == {"size": True, "name": True}
    assert names["llm"]["model"] is False
    assert names["llm"]["generation_kwargs"]["temperature"] is True
    assert "key" not in names


def test_infos_tell_the_descriptions_and_nest() -> None:
    infos = {info["name"]: info for info in Outer().get_runtime_parameters_info()}

    assert infos["share"] == {"name": "share", "optional": True, "description": "Of all."}
    assert [each["name"] for each in infos["inner"]["runtime_parameters_info"]] == ["size", "name"]
    assert infos["items"] == {"name": "items", "optional": True, "description": None}
    assert "generation_kwargs" in [each["name"] for each in infos["llm"]["runtime_parameters_info"]]


def test_parameters_are_set_in_place() -> None:
    outer = Outer()
    outer.set_runtime_parameters({"inner": {"size": "7"}, "items": [], "note": "x"})

    assert (outer.inner.size, outer.items, outer.note) == (7, [], "x")


def test_where_one_parameter_is_wrong_none_is_set() -> None:
    outer = Outer()
    with pytest.raises(ParameterError):
        outer.set_runtime_parameters({"note": "x", "share": 7})

    assert outer.note is None


def test_a_runtime_parameter_is_optional_without_a_default_of_its_own() -> None:
    assert Outer().note is None
    assert not Outer.model_fields["note"].is_required()


# Identity


def test_identity_is_json_without_secrets_and_speed() -> None:
    identity = Outer(key=SecretStr("secret"), speed=9).identity()

    assert json.loads(json.dumps(identity)) == identity
    assert identity == Outer().identity()
    assert identity["type"].endswith(":Outer")
    assert identity["llm"]["model"] == "m"
    assert "secret" not in json.dumps(identity)


@pytest.mark.parametrize(
    "change", [{"share": 0.1}, {"inner": {"size": 2}}, {"llm": {"generation_kwargs": {"seed": 1}}}, {"items": [1]}]
)
def test_identity_changes_with_what_decides_the_answers(change: dict[str, Any]) -> None:
    assert Outer().merged(change).identity() != Outer().identity()


# Signatures


def annotated(
    self: object,
    input: str,
    needed: str,
    number: int = 1,
    share: Annotated[float | None, Field(ge=0, description="Annotated.")] = None,
) -> None:
    """Do it.

    Args:
        number (int): how many,
            over two lines.
        share: not this one.

    Returns:
        nothing: at all.
    """


def test_a_function_becomes_a_model_of_its_keywords() -> None:
    model = signature_model(annotated, frozenset({"self", "input"}))

    assert list(model.model_fields) == ["needed", "number", "share"]
    assert model.model_fields["number"].description == "how many, over two lines."
    assert model.model_fields["share"].description == "Annotated."
    assert model.model_validate({"number": "3", "needed": "x"}).model_dump()["number"] == 3


def test_a_validated_function_has_the_signature_of_what_it_wraps() -> None:
    model = signature_model(validate_call(annotated), frozenset({"self", "input"}))

    assert list(model.model_fields) == ["needed", "number", "share"]


def test_descriptions_end_with_their_section() -> None:
    assert set(argument_descriptions(annotated)) == {"number", "share"}


def test_a_function_without_a_docstring_has_no_descriptions() -> None:
    assert argument_descriptions(lambda x: x) == {}


@given(st.text(max_size=400), st.integers(10, 200))
def test_a_shortened_value_keeps_its_bound(text: str, length: int) -> None:
    assert len(short(text, length)) <= max(length, 3)


# Forms


def test_the_form_of_a_field_shows_tabs_of_the_first_providers_and_takes_the_others_by_name() -> None:
    schema = TypeAdapter(AnyLLM).json_schema()

    tabs = [tab.get("$ref", tab.get("title")) for tab in schema["anyOf"]]
    assert [tab.rpartition("/")[2] for tab in tabs] == [
        *(LLM_VARIANTS.ours[provider].partition(":")[2] for provider in IN_TABS),
        "Your own",
    ]
    other = {"model": "m", "generation_kwargs": {"temperature": 1.0}}
    for provider in LLM_VARIANTS.behind:
        given = {"provider": provider, **other, **({"model_path": "m.gguf"} if provider == "llama-cpp" else {})}
        assert not validate(given, schema)
        assert TypeAdapter(AnyLLM).validate_python(given).model_name == "m"
    assert validate({"provider": "mistrall", **other}, schema)


def titles_of_tabs(schema: Any, definitions: dict[str, Any]) -> list[str]:
    """The names of all tabs in a schema, as Prefect's forms show them: a title beside a reference goes first."""
    if isinstance(schema, list):
        return [title for each in schema for title in titles_of_tabs(each, definitions)]
    if not isinstance(schema, dict):
        return []
    here = [{**definitions.get(tab.get("$ref", "").rpartition("/")[2], {}), **tab} for tab in schema.get("anyOf", [])]
    return [tab["title"] for tab in here if "title" in tab] + titles_of_tabs(list(schema.values()), definitions)


@pytest.mark.parametrize("field", [AnyLLM, AnyEmbeddings, AnyImageModel])
def test_no_tab_of_a_models_field_has_an_empty_name_in_the_form_of_a_step(field: Any) -> None:
    step = create_model("step", __base__=Configurable, model=(field, ...))
    schema = step.model_json_schema()

    titles = titles_of_tabs(schema, schema["$defs"])

    assert "Your own" in titles
    assert all(titles)


@pytest.mark.parametrize("kind", [OpenAILLM, AnthropicLLM, InferenceEndpointsLLM])
def test_a_form_asks_for_no_secret_and_requires_nothing(kind: type[BaseModel]) -> None:
    schema = kind.model_json_schema()

    assert "api_key" not in schema["properties"]
    assert "required" not in schema
    assert all("position" in field for field in schema["properties"].values())
    assert schema["properties"]["generation_kwargs"]["properties"]["temperature"]["description"]
