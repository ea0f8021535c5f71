"""What the adapters of all engines do the same: here an engine that writes one answer to everything."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from flows.ledger import space_of
from llms import ParameterError
from llms.errors import LLMError
from llms.providers.engines import Engine, EngineLLM, Prompt, Written
from llms.providers.parameters import Temperature, keywords_in
from llms.typing import GenerateOutput
from tests.conftest import wait_for

CHAT: Any = [{"role": "user", "content": "Hi."}]


class Tokenizer:
    bos_token = None

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1, 2]}

    def apply_chat_template(self, chat: Any, **options: Any) -> str:
        return "Hi."


class Model:
    """What weighs much."""


class OwnEngineLLM(EngineLLM):
    loads: ClassVar[list[str]] = []

    def make(self) -> Engine:
        self.loads.append(self.model)
        return Engine(Model(), Tokenizer(), context=100)

    def write(
        self, engine: Engine, prompts: Sequence[Prompt], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[list[Written] | LLMError]:
        return [[Written("Hello.", 1, "stop")] * num_generations for _ in prompts]

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        inputs: list[Any],
        num_generations: int = 1,
        max_new_tokens: int = 10,
        temperature: Temperature = None,
        structured_output: Any = None,
    ) -> list[GenerateOutput]:
        return self.generated(inputs, num_generations, keywords_in(locals()))


@pytest.fixture(autouse=True)
def loads() -> list[str]:
    OwnEngineLLM.loads.clear()
    return OwnEngineLLM.loads


def test_calls_with_parameters_of_their_own_load_the_weights_once(loads: list[str]) -> None:
    llm = OwnEngineLLM(model="m")
    for temperature in (0.1, 0.2, 0.3):
        (output,) = llm.generate_outputs([CHAT], temperature=temperature)
        assert output["generations"] == ["Hello."]
    llm.generate_outputs([CHAT])

    assert loads == ["m"]


def test_weights_that_a_call_with_parameters_loaded_are_given_back_by_unload(loads: list[str]) -> None:
    # Of this name nobody else has any, who might not have let go yet.
    llm = OwnEngineLLM(model="given back")
    llm.generate_outputs([CHAT], temperature=0.1)
    weights = weakref.ref(llm.loaded().model)
    assert loads == ["given back"]
    llm.unload()

    # The thread that answered may not have let go yet.
    wait_for(lambda: weights() is None, what="the end of the weights")


def test_nothing_is_loaded_for_a_key_or_a_wrong_parameter_or_without_inputs(loads: list[str]) -> None:
    llm = OwnEngineLLM(model="m")
    space_of(llm.with_generation_kwargs({"temperature": 0.1}))
    with pytest.raises(ParameterError):
        llm.generate_outputs([CHAT], temperatur=0.1)
    assert llm.generate_outputs([], temperature=0.1) == []

    assert loads == []
