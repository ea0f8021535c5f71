"""Servers of one's own: no key, addresses with and without /v1, what they serve, what they hold an answer to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llms import ClientLlamaCpp, ClientSGLang, ClientvLLM
from tests.llms import wires
from tests.llms.wires import Fault, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


class Server(StandIn):
    """It takes any key, and lists a model."""

    def reply(self, path: str, headers: Any, content: bytes) -> Any:
        return super().reply(path, {"Authorization": f"Bearer {wires.KEY}"}, content)

    def got(self, path: str, headers: Any) -> Any:
        if path != "/v1/models":
            return super().got(path, headers)
        return 200, json.dumps({"object": "list", "data": [{"id": "served-model"}]}).encode(), {}


@pytest.mark.parametrize("loaded", [True, False])
def test_without_a_name_the_model_is_the_one_that_the_server_lists(loaded: bool) -> None:
    with Server(wires.VLLM) as server:
        llm = ClientvLLM(base_url=server.root)
        if loaded:
            llm.load()
            assert llm.model_name == "served-model"
        llm.generate_outputs(inputs=[CHAT])

        assert (server.body["model"], llm.model_name) == ("served-model", "served-model")


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_its_address_may_be_given_with_and_without_its_path(ending: str) -> None:
    assert ClientvLLM(model="m", base_url=f"http://gpu:8000{ending}").url() == "http://gpu:8000/v1"


def test_it_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)

    ClientvLLM(model="m").load()


HELD: list[Any] = [
    (ClientvLLM, wires.VLLM, {"regex": "[a-z]+"}, {"structured_outputs": {"regex": "[a-z]+"}}),
    (ClientvLLM, wires.VLLM, {"choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}),
    (ClientvLLM, wires.VLLM, {"grammar": 'root ::= "a"'}, {"structured_outputs": {"grammar": 'root ::= "a"'}}),
    (ClientSGLang, wires.SGLANG, {"regex": "[a-z]+"}, {"regex": "[a-z]+"}),
    (ClientSGLang, wires.SGLANG, {"ebnf": 'root ::= "a"'}, {"ebnf": 'root ::= "a"'}),
    (ClientLlamaCpp, wires.LLAMA_SERVER, {"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
]


@pytest.mark.parametrize(("kind", "wire", "given", "sent"), HELD)
def test_an_answer_can_be_held_to(kind: Any, wire: Any, given: dict[str, Any], sent: dict[str, Any]) -> None:
    with Server(wire) as server:
        kind(model="m", base_url=server.root).generate_outputs(inputs=[CHAT], **given)

        assert sent.items() <= server.body.items()


def test_more_answers_than_llama_cpp_has_slots_are_asked_for_one_by_one() -> None:
    with Server(wires.LLAMA_SERVER) as server:
        server.faults = [Fault(400, "Field 'n': Value must be between 1 <= value <= 2")]
        (output,) = ClientLlamaCpp(model="m", base_url=server.root).generate_outputs(inputs=[CHAT], num_generations=3)

        assert output["generations"] == ["Fine."] * 3
        assert [each.body.get("n", 1) for each in server.asked] == [3, 1, 1, 1]


def test_a_bare_prompt_goes_to_the_completions_of_the_server() -> None:
    class Completing(Server):
        def reply(self, path: str, headers: Any, content: bytes) -> Any:
            assert path == "/v1/completions"
            choice = {"index": 0, "text": " a time", "finish_reason": "stop"}
            return 200, json.dumps({"object": "text_completion", "choices": [choice], "usage": {}}).encode(), {}

    with Completing(wires.VLLM) as server:
        (output,) = ClientvLLM(model="m", base_url=server.root).generate_outputs(inputs=["Once upon"])

        assert output["generations"] == [" a time"]
