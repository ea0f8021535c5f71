"""Requests hold what a Claude takes: the stand-in refuses the others, by Anthropic's documents and in its words."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llms import AnthropicLLM
from llms.providers.claude import version_of
from tests.conftest import said
from tests.scripted import Reply, Scripted, message

CHAT: Any = [{"role": "user", "content": "What's the capital of Spain?"}]
ALL = {"temperature": 0.3, "top_p": 0.9, "top_k": 40}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

# What each model refuses, written down from the migration guide, model by model.
WITHOUT_SAMPLING = ("claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5", "claude-sonnet-5")
WITHOUT_SAMPLING += ("claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5", "claude-fable-5-1", "claude-mythos-5-2")
ONE_OF_TWO = ("claude-opus-4-1-20250805", "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-5-20250929")
ONE_OF_TWO += ("claude-sonnet-4-6", "claude-haiku-4-5")
OLDER = ("claude-3-haiku-20240307", "claude-3-7-sonnet-20250219", "claude-sonnet-4-20250514", "claude-opus-4-20250514")
WITH_ADAPTIVE = (*WITHOUT_SAMPLING, "claude-opus-4-6", "claude-sonnet-4-6")
WITH_EFFORT = (*WITH_ADAPTIVE, "claude-opus-4-5")
WITH_SCHEMAS = (*WITHOUT_SAMPLING, *ONE_OF_TWO)
EVERY = (*WITHOUT_SAMPLING, *ONE_OF_TWO, *OLDER)


def refusal(body: dict[str, Any]) -> str:
    """What the API says of a request that it doesn't take."""
    model, thinking, config = body["model"], body.get("thinking", {}), body.get("output_config", {})
    kind = thinking.get("type")
    sampling = [name for name in ALL if name in body]
    if model in WITHOUT_SAMPLING and sampling:
        return f"`{sampling[0]}` is deprecated for this model."
    if model in ONE_OF_TWO and {"temperature", "top_p"} <= set(body):
        return "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    if model in WITHOUT_SAMPLING and kind == "enabled":
        return '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".'
    if kind == "adaptive" and model not in WITH_ADAPTIVE:
        return "adaptive thinking is not supported on this model"
    if kind == "disabled" and (
        model in ("claude-opus-5-5", "claude-sonnet-5-5") or "fable" in model or "mythos" in model
    ):
        return '"thinking.type.disabled" is not supported for this model.'
    if kind in ("enabled", "adaptive"):
        if body.get("temperature", 1) != 1:
            return "`temperature` may only be set to 1 when thinking is enabled."
        if "top_k" in body:
            return "`top_k` must be unset when thinking is enabled."
        if body.get("top_p", 1) < 0.95:
            return "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled."
    if kind == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        return "`max_tokens` must be greater than `thinking.budget_tokens`."
    if kind == "enabled" and body.get("tool_choice", {}).get("type") == "tool":
        return "Thinking may not be enabled when tool_choice forces tool use."
    if body.get("tool_choice", {}).get("type") == "tool" and model in ("claude-fable-5-1", "claude-mythos-5-2"):
        return "tool_choice: this model doesn't take a forced tool."
    if "effort" in config and model not in WITH_EFFORT:
        return "This model does not support the effort parameter."
    if config.get("effort") == "xhigh" and model not in WITHOUT_SAMPLING:
        return "output_config.effort: 'xhigh' is not supported on this model"
    if config.get("effort") in ("xhigh", "max") and kind == "disabled" and "opus-5" in model:
        return "output_config.effort: must be at most 'high' while thinking is disabled"
    if "format" in config and model not in WITH_SCHEMAS:
        return "output_config.format: not supported on this model"
    return ""


def api(body: dict[str, Any]) -> Reply:
    said = refusal(body)
    if said:
        return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    if "tools" in body:
        return message(
            [{"type": "tool_use", "id": "t", "name": body["tools"][0]["name"], "input": {"a": "x"}}], "tool_use"
        )
    return message('{"a": "x"}')


PARAMETERS: dict[str, dict[str, Any]] = {
    "sampling": ALL,
    "temperature": {"temperature": 0.3},
    "a budget": {"thinking_budget": 2048, "max_new_tokens": 100},
    "a budget and sampling": {"thinking_budget": 2048, **ALL},
    "adaptive and sampling": {"thinking": "adaptive", **ALL},
    "no thoughts": {"thinking": "disabled", "temperature": 0.5},
    "effort": {"reasoning_effort": "xhigh"},
    "effort without thoughts": {"reasoning_effort": "max", "thinking": "disabled"},
    "a schema": {"structured_output": SCHEMA},
    "a schema and a budget": {"structured_output": SCHEMA, "thinking_budget": 2048},
}


@pytest.mark.parametrize("wanted", PARAMETERS)
def test_each_claude_gets_what_it_takes_at_once_and_each_change_is_told_once(
    wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    for model in EVERY:
        caplog.clear()
        with Scripted(api) as server, caplog.at_level(logging.WARNING, "llms.providers.anthropic"):
            parameters = dict(PARAMETERS[wanted])
            schema = parameters.pop("structured_output", None)
            llm = AnthropicLLM(model=model, base_url=server.root, api_key="k", structured_output=schema)
            outputs = llm.generate_outputs(inputs=[CHAT] * 3, **parameters)

            assert all(
                output["generations"] == ['{"a": "x"}'] or output["generations"] == ['{"a":"x"}'] for output in outputs
            ), (
                model,
                outputs,
            )
            assert len(server.asked) == 3
        told = said(caplog, "llms.providers.anthropic")
        assert len(told) == len(set(told))
        as_given = refusal({**server.asked[0], **sent_as_given(parameters)}) == ""
        assert bool(told) != as_given, (model, told)


def sent_as_given(parameters: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body with all of the parameters, as they were given."""
    fields: dict[str, Any] = {name: parameters[name] for name in ALL if name in parameters}
    if "thinking" in parameters:
        fields["thinking"] = {"type": parameters["thinking"]}
    if "thinking_budget" in parameters:
        fields["thinking"] = {"type": "enabled", "budget_tokens": parameters["thinking_budget"]}
        fields["max_tokens"] = 10_000
    if "reasoning_effort" in parameters:
        fields["output_config"] = {"effort": parameters["reasoning_effort"]}
    return fields


def test_a_budget_becomes_room_for_thoughts_where_the_model_decides_by_itself() -> None:
    with Scripted(api) as server:
        llm = AnthropicLLM(model="claude-opus-5", base_url=server.root, api_key="k")
        llm.generate_outputs(inputs=[CHAT], thinking_budget=2048, max_new_tokens=100)

    (body,) = server.asked
    assert (body["thinking"], body["max_tokens"]) == ({"type": "adaptive"}, 2148)


@pytest.mark.parametrize("wanted", ["sampling", "a budget and sampling", "effort", "a schema and a budget"])
def test_a_batch_is_fit_before_it_is_sent_and_told_of_before(wanted: str, caplog: pytest.LogCaptureFixture) -> None:
    models = [model for model in EVERY if model in WITHOUT_SAMPLING or "3-7" in model or "4-5" in model]
    for model in models:
        with Scripted(api) as server, caplog.at_level(logging.WARNING, "llms.providers.anthropic"):
            parameters = dict(PARAMETERS[wanted])
            schema = parameters.pop("structured_output", None)
            llm = AnthropicLLM(
                model=model,
                base_url=server.root,
                api_key="k",
                structured_output=schema,
                use_offline_batch_generation=True,
                generation_kwargs=parameters,
            )
            outputs = llm.generate_outputs(inputs=[CHAT])

            assert [refusal(body) for body in server.batched] == [""]
            assert not any("error" in output for output in outputs)
    assert any("left out" in record.getMessage() or "became" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("said", "parameters"),
    [
        ("`temperature` is deprecated for this model.", {"temperature": 0.5}),
        ("`temperature` and `top_p` cannot both be specified for this model.", {"temperature": 0.5, "top_p": 0.9}),
        ('"thinking.type.enabled" is not supported for this model.', {"thinking_budget": 2048}),
        ("adaptive thinking is not supported on this model", {"thinking": "adaptive"}),
        ("This model does not support the effort parameter.", {"reasoning_effort": "high"}),
    ],
)
def test_what_a_model_refuses_that_no_table_knows_is_left_out_from_then_on_and_told_once(
    said: str, parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"thinking_budget": "thinking", "reasoning_effort": "output_config"}
    ours = [fields.get(name, name) for name in parameters]

    def reply(body: dict[str, Any]) -> Reply:
        if set(ours) <= set(body):
            return 400, {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
        return message()

    with Scripted(reply) as server, caplog.at_level(logging.WARNING, "llms.providers.anthropic"):
        llm = AnthropicLLM(model="claude-saga-7", base_url=server.root, api_key="k")
        (first,) = llm.generate_outputs(inputs=[CHAT], **parameters)
        asked = len(server.asked)
        (second,) = llm.generate_outputs(inputs=[CHAT], **parameters)

    assert first["generations"] == second["generations"] == ["Fine."]
    assert (asked, len(server.asked)) == (2, 3)
    assert len([record for record in caplog.records if said in record.getMessage()]) == 1


def test_another_refusal_stays_one() -> None:
    reply: Reply = (400, {"error": {"type": "invalid_request_error", "message": "messages.0: no text"}})
    with Scripted(lambda body: reply) as server:
        llm = AnthropicLLM(model="claude-saga-7", base_url=server.root, api_key="k")
        (output,) = llm.generate_outputs(inputs=[CHAT], temperature=0.5)

    assert output.get("error", {"type": ""})["type"] == "BadRequestError"
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("claude-opus-4-7", ("opus", (4, 7))),
        ("claude-sonnet-4-5-20250929", ("sonnet", (4, 5))),
        ("claude-opus-4-20250514", ("opus", (4, 0))),
        ("claude-3-5-haiku-latest", ("haiku", (3, 5))),
        ("claude-sonnet-5", ("sonnet", (5, 0))),
        ("anthropic/claude-opus-4.7", ("opus", (4, 7))),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", ("sonnet", (4, 5))),
        ("claude-mythos-preview", None),
        ("claude-2.1", None),
        ("gpt-4o", None),
    ],
)
def test_a_name_tells_family_and_version(name: str, version: Any) -> None:
    assert version_of(name) == version
