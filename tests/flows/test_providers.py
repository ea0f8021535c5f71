"""The LLM of every provider can be the default of a flow, and take another one's place."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate

from flows.authoring.parameters import flow
from flows.authoring.preview import checked
from llms import OpenAILLM
from llms.base import LLM
from llms.parameters import import_path
from llms.registry import LLM_VARIANTS
from tasks import TextGeneration

FIELDS: dict[str, dict[str, Any]] = {"inference-endpoints": {"model_id": "m"}, "llama-cpp": {"model_path": "m.gguf"}}
"""Of providers that need other fields than the model's name."""
PROVIDERS = list(LLM_VARIANTS.ours)


def flow_with(llm: LLM) -> Any:
    @flow
    async def answers(text_generation: TextGeneration = TextGeneration(llm=llm)) -> Any:
        """A flow that returns its parameter."""
        return text_generation

    return answers


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_is_the_default_of_a_flow_and_the_first_tab_of_its_form(provider: str) -> None:
    kind: Any = LLM_VARIANTS.find(provider)
    made = flow_with(kind(**FIELDS.get(provider, {"model": "m"}), generation_kwargs={"max_new_tokens": 9}))
    schema = made.parameters.model_dump()

    task = checked(made, {"text_generation": {"llm": {"generation_kwargs": {"temperature": 0.5}}}})["text_generation"]

    assert type(task.llm) is kind
    assert task.llm.generation_kwargs == {"max_new_tokens": 9, "temperature": 0.5}
    assert validate({}, schema) == []
    field = schema["definitions"][schema["properties"]["text_generation"]["anyOf"][0]["$ref"].rpartition("/")[2]]
    first = field["properties"]["llm"]["anyOf"][0]["$ref"].rpartition("/")[2]
    assert schema["definitions"][first]["title"] == kind.form_title


@pytest.fixture(scope="module")
def with_openai() -> Any:
    return flow_with(OpenAILLM(model="gpt-4o"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_it_takes_the_place_of_another_one(provider: str, with_openai: Any) -> None:
    given = {"provider": provider, **FIELDS.get(provider, {"model": "m"})}

    llm: Any = checked(with_openai, {"text_generation": {"llm": given}})["text_generation"].llm

    assert isinstance(llm, LLM)
    assert import_path(type(llm)) == LLM_VARIANTS.ours[provider]
    assert llm.generation_kwargs == {}
