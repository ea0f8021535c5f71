"""A mixture of models: what each of them is asked, what it costs, and what becomes of those that fail."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from llms import AnyLLM, LLMError, MixtureOfAgentsLLM, OpenAILLM
from tests.scripted import Scripted, completion

CHAT: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How high is K2?"}]
SCHEMA: Any = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def model(server: Scripted, name: str, **fields: Any) -> OpenAILLM:
    return OpenAILLM(model=name, base_url=server.url, api_key=SecretStr("key-of-a-test"), max_retries=0, **fields)


def mixture(server: Scripted, **fields: Any) -> MixtureOfAgentsLLM:
    proposers: list[AnyLLM] = [model(server, "first"), model(server, "second")]
    return MixtureOfAgentsLLM(aggregator_llm=model(server, "last"), proposers_llms=proposers, **fields)


def reply(body: dict[str, Any]) -> Any:
    return completion(f"by {body['model']}")


def systems(server: Scripted, name: str) -> list[str]:
    return [body["messages"][0]["content"] for body in server.asked if body["model"] == name]


def test_the_aggregator_is_shown_the_proposers_answers_and_the_chat_stays_as_it_was() -> None:
    given = copy.deepcopy(CHAT)
    with Scripted(reply) as server:
        (output,) = mixture(server).generate_outputs(inputs=[given])

    assert output["generations"] == ["by last"]
    assert given == CHAT
    assert systems(server, "first") == systems(server, "second") == ["Be brief."]
    (shown,) = systems(server, "last")
    assert shown.startswith("Be brief.\n\n")
    assert "Answer 1:\nby first\n\nAnswer 2:\nby second" in shown
    assert "statistics" not in shown


def test_in_a_further_round_the_proposers_see_all_answers_once() -> None:
    with Scripted(reply) as server:
        mixture(server, rounds=3).generate_outputs(inputs=[CHAT])

    first, second, third = systems(server, "first")
    assert first == "Be brief."
    assert second == third
    assert second.count("Answer 1:") == second.count("by second") == 1


def test_all_requests_are_counted() -> None:
    with Scripted(reply) as server:
        (output,) = mixture(server, rounds=2).generate_outputs(inputs=[CHAT], num_generations=2)

    # Four of the proposers, and the aggregator's, which is asked again for the answer that it didn't give.
    assert len(server.asked) == 6
    assert len(output.get("usage", [])) == 6
    assert sum(output["statistics"]["input_tokens"]) == 600
    assert sum(output["statistics"]["output_tokens"]) == 120


def test_a_schema_is_the_aggregators_alone() -> None:
    with Scripted(reply) as server:
        mixture(server).generate_outputs(inputs=[(CHAT, SCHEMA)])

    assert [body["model"] for body in server.asked if "response_format" in body] == ["last"]


def test_a_proposer_that_fails_is_left_out() -> None:
    def first_refuses(body: dict[str, Any]) -> Any:
        return (400, {"error": {"message": "no"}}) if body["model"] == "first" else reply(body)

    with Scripted(first_refuses) as server:
        (output,) = mixture(server).generate_outputs(inputs=[CHAT])

    assert output["generations"] == ["by last"]
    assert "Answer 1:\nby second" in systems(server, "last")[0]


@pytest.mark.parametrize(("refusing", "paid"), [(("first", "second"), 0), (("last",), 2)])
def test_where_nobody_answers_the_row_fails_with_what_was_paid(refusing: tuple[str, ...], paid: int) -> None:
    def some_refuse(body: dict[str, Any]) -> Any:
        return (400, {"error": {"message": "not with me"}}) if body["model"] in refusing else reply(body)

    with Scripted(some_refuse) as server:
        (output,) = mixture(server).generate_outputs(inputs=[CHAT])

    error = output.get("error")
    assert error is not None
    assert (error["type"], "not with me" in error["message"]) == ("BadRequestError", True)
    assert len(output.get("usage", [])) == paid


def test_a_wrong_key_of_one_of_them_stops_the_run() -> None:
    def second_refuses(body: dict[str, Any]) -> Any:
        return (401, {"error": {"message": "wrong key"}}) if body["model"] == "second" else reply(body)

    with Scripted(second_refuses) as server, pytest.raises(LLMError, match="wrong key"):
        mixture(server).generate_outputs(inputs=[CHAT])


def test_it_is_written_down_without_keys_and_read_again() -> None:
    with Scripted(reply) as server:
        llm = mixture(server)
        written = TypeAdapter(AnyLLM).dump_python(llm, mode="json")
        again = TypeAdapter(AnyLLM).validate_python(written)

        assert type(again) is MixtureOfAgentsLLM
        assert again.identity() == llm.identity()
        assert "key-of-a-test" not in json.dumps(written)
        assert llm.identity() != mixture(server, rounds=2).identity()
        # How fast they may be asked is no part of the question.
        quick = MixtureOfAgentsLLM(
            aggregator_llm=model(server, "last", timeout=5.0),
            proposers_llms=[model(server, "first", timeout=5.0), model(server, "second")],
        )
        assert quick.identity() == llm.identity()


def test_a_model_of_it_that_waits_for_batches_is_refused() -> None:
    with Scripted(reply) as server, pytest.raises(ValueError, match="set use_offline_batch_generation=False for first"):
        MixtureOfAgentsLLM(
            aggregator_llm=model(server, "last"),
            proposers_llms=[model(server, "first", use_offline_batch_generation=True)],
        )
