"""Answers are believed as far as they go: why they ended is known, in every wire's words, and none that is half passes.

The words are those of the providers' documents and clients, written down here by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llms import AnthropicLLM, InferenceEndpointsLLM, LLMError, OpenAILLM, QuotaExceededError
from llms.base import AsyncLLM
from llms.providers.anthropic import parse_message
from llms.providers.inference_endpoints import parse_text
from llms.providers.openai import CHAT, COMPLETIONS, parse_answer
from llms.typing import GenerateOutput
from tests.scripted import Reply, Scripted, completion, message

PROMPT: Any = [{"role": "user", "content": "Tell me about the sea."}]
PAID = [{"input_tokens": 100, "output_tokens": 20}]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)


def openai(server: Scripted, **options: Any) -> OpenAILLM:
    return OpenAILLM(model="m", base_url=server.url, api_key="k", **options)


def anthropic(server: Scripted, **options: Any) -> AnthropicLLM:
    return AnthropicLLM(model="m", base_url=server.root, api_key="k", **options)


def outcome(llm: AsyncLLM, times: int = 1, prompt: Any = PROMPT, **parameters: Any) -> GenerateOutput:
    llm.load()
    (output,) = llm.generate_outputs(inputs=[prompt], num_generations=times, **parameters)
    return output


def answered(reply: Reply) -> tuple[GenerateOutput, int]:
    """What OpenAI's adapter makes of a reply that comes every time, and how often it asked."""
    with Scripted(lambda body: reply) as server:
        return outcome(openai(server)), len(server.asked)


@pytest.mark.parametrize("word", ["stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP"])
def test_an_answer_that_the_model_ended_is_whole(word: str) -> None:
    output, _ = answered(completion(reason=word))

    assert output["generations"] == ["Fine."]
    assert output.get("finish_reasons") == [word]
    assert not {"cut_off", "unfinished", "error"} & set(output)


@pytest.mark.parametrize(
    "word", ["length", "model_length", "max_tokens", "MAX_TOKENS", "model_context_window_exceeded"]
)
def test_an_answer_that_a_limit_of_tokens_ended_is_cut_off(word: str) -> None:
    output, _ = answered(completion(reason=word))

    assert output.get("cut_off") == [True]
    assert output.get("finish_reasons") == [word]


@pytest.mark.parametrize(
    "word",
    [
        "content_filter",
        "content_filter: RECITATION",
        "sensitive",
        "tool_calls",
        "repetition",
        "a-word-of-next-year",
        None,
        7,
    ],
)
def test_no_other_answer_passes_as_whole(word: Any) -> None:
    output, asked = answered(completion(reason=word))

    assert output["generations"] == ["Fine."]
    assert output.get("unfinished") == [True]
    assert output.get("finish_reasons") == [word if isinstance(word, str) else None]
    assert asked == 1


@pytest.mark.parametrize("word", ["error", "abort", "insufficient_system_resource", "network_error"])
def test_an_answer_that_the_provider_broke_off_is_asked_for_once_more_and_not_believed(word: str) -> None:
    replies = iter([completion("Half an ans", word), completion("A whole one.")])
    with Scripted(lambda body: next(replies)) as server:
        mended = outcome(openai(server))

    never, asked = answered(completion("Half an ans", word))

    assert mended["generations"] == ["A whole one."]
    assert mended.get("usage") == PAID * 2
    assert (never["generations"], never.get("usage"), asked) == ([None], PAID * 2, 2)
    assert word in never.get("error", {"message": ""})["message"]


def test_each_choice_is_marked_for_itself() -> None:
    reply = completion()
    words = ["stop", "length", "content_filter", "error"]
    reply["choices"] = [{"index": place, "finish_reason": word, "text": "x"} for place, word in enumerate(words)]

    output = parse_answer(reply, COMPLETIONS)

    assert output.get("cut_off") == [False, True, False, False]
    assert output.get("unfinished") == [False, False, True, True]
    assert output.get("finish_reasons") == words


CALL = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]}
WITHOUT_TEXT: dict[str, tuple[dict[str, Any], str, str]] = {
    "thoughts took all tokens": (
        completion(None, "length", message={"reasoning_content": "Hm."}),
        "EmptyAnswerError",
        "max_new_tokens",
    ),
    "so at OpenAI": (completion("", "length"), "EmptyAnswerError", "max_new_tokens"),
    "thoughts alone": (completion(None, "stop", message={"reasoning": "Hm."}), "EmptyAnswerError", "reasoning_effort"),
    "thoughts beside an empty text": (
        completion("", "stop", message={"reasoning_content": "Hm."}),
        "EmptyAnswerError",
        "reasoning_effort",
    ),
    "thoughts in parts": (
        completion(None, "length", message={})
        | {"choices": [{"index": 0, "finish_reason": "model_length", "message": {"content": [{"type": "thinking"}]}}]},
        "EmptyAnswerError",
        "max_new_tokens",
    ),
    "a tool call": (completion(None, "tool_calls", message=CALL), "EmptyAnswerError", "look_up"),
    "a tool call that says stop": (completion(None, "stop", message=CALL), "EmptyAnswerError", "tool_choice"),
    "a refusal": (completion(None, "stop", message={"refusal": "I can't."}), "ContentFilterError", "I can't."),
    "a filter": (completion(None, "content_filter"), "ContentFilterError", "content_filter"),
    "a filter with an empty text": (completion("", "content_filter"), "ContentFilterError", "content_filter"),
}


@pytest.mark.parametrize("case", WITHOUT_TEXT)
def test_what_would_end_the_same_way_is_asked_once_with_the_way_out_and_what_it_cost(case: str) -> None:
    reply, kind, said = WITHOUT_TEXT[case]

    output, asked = answered(reply)

    failure = output.get("error")
    assert failure is not None
    assert (failure["type"], failure["retryable"]) == (kind, False)
    assert said in failure["message"]
    assert asked == 1
    assert output.get("usage") == PAID
    assert output["statistics"] == {"input_tokens": [100], "output_tokens": [20]}


def test_an_empty_text_that_the_model_ended_is_its_answer_and_its_tokens_count() -> None:
    output, _ = answered(completion("", "stop"))

    assert output["generations"] == [""]
    assert output["statistics"]["output_tokens"] == [20]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda body: body.replace(b"Fine.", rb"half \ud83d a smile"), "half \N{REPLACEMENT CHARACTER} a smile"),
        (lambda body: body.replace(b"Fine.", rb"a \ud83d\ude00 whole one"), "a \N{GRINNING FACE} whole one"),
        (lambda body: body.replace(b"Fine.", b"no \xff UTF-8"), "no \N{REPLACEMENT CHARACTER} UTF-8"),
        (lambda body: body.replace(b"Fine.", b"a\ttab\nand a line"), "a\ttab\nand a line"),
        (lambda body: body.replace(b'"created": 1', b'"created": NaN'), "Fine."),
        (lambda body: body.replace(b'"created": 1', b'"created": Infinity'), "Fine."),
        (lambda body: b"\xef\xbb\xbf" + body, "Fine."),
        (lambda body: body.replace(b'"completion_tokens": 20', b'"completion_tokens": NaN'), "Fine."),
    ],
)
def test_what_isnt_strict_json_is_read_as_far_as_it_can_be(spoil: Callable[[bytes], bytes], text: str) -> None:
    output, asked = answered(spoil(json.dumps(completion()).encode()))

    assert (output["generations"], asked) == ([text], 1)


def test_a_log_probability_of_minus_infinity_is_a_number_that_can_be_kept() -> None:
    reply = completion()
    place = {"token": "b", "logprob": float("-inf")}
    reply["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": [place]}]}

    output, _ = answered(json.dumps(reply).encode())

    assert output.get("logprobs") == [[[{"token": "b", "logprob": -9999.0}]]]


@pytest.mark.parametrize("within", [{"choices": None}, {"choices": []}, {}])
def test_a_200_that_holds_an_error_is_that_error(within: dict[str, Any]) -> None:
    said = "This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens"
    problem = {"error": {"code": 402, "message": said}}
    with (
        Scripted(lambda body: {**problem, **within}) as server,
        pytest.raises(QuotaExceededError, match="fewer max_tokens.*lower `max_new_tokens`"),
    ):
        outcome(openai(server))

    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("problem", "kind", "asked"),
    [
        ({"code": 400, "message": "Provider returned error"}, "BadRequestError", 1),
        ({"code": 400, "message": "maximum context length is 4096"}, "ContextLengthError", 1),
        ({"code": "content_filter", "message": "no"}, "ContentFilterError", 1),
        ({"message": "something else"}, "LLMError", 1),
        ("in words alone", "LLMError", 1),
        ({"code": 429, "message": "slow down"}, "RateLimitError", 3),
        ({"code": "502", "message": "Provider returned error"}, "OverloadedError", 3),
    ],
)
def test_an_error_in_a_200_is_retried_as_that_status_would_be(problem: Any, kind: str, asked: int) -> None:
    with Scripted(lambda body: {"id": "gen-1", "error": problem}) as server:
        output = outcome(openai(server, max_retries=2))

    assert output.get("error", {"type": None})["type"] == kind
    assert len(server.asked) == asked


def test_an_error_within_a_choice_is_seen_beside_its_half_of_a_text() -> None:
    reply = completion("Half an ans", "error")
    reply["choices"][0]["error"] = {"code": 502, "message": "Upstream idle timeout"}

    output, asked = answered(reply)

    assert output.get("error", {"message": ""})["message"].endswith("Upstream idle timeout")
    assert (output.get("usage"), asked) == (PAID * 2, 2)


# Several generations


def choices(*texts: str) -> dict[str, Any]:
    reply = completion()
    first = reply["choices"][0]
    reply["choices"] = [
        {**first, "index": place, "message": {"role": "assistant", "content": text}} for place, text in enumerate(texts)
    ]
    return reply


def test_fewer_generations_than_asked_for_are_completed_by_one_more_request() -> None:
    with Scripted(lambda body: choices("a", "b") if body.get("n") == 3 else choices("c")) as server:
        llm = openai(server)
        first, second = outcome(llm, 3), outcome(llm, 3)

    assert first["generations"] == second["generations"] == ["a", "b", "c"]
    assert [body.get("n", 1) for body in server.asked] == [3, 1, 3, 1]
    assert first.get("usage") == PAID * 2


def test_a_server_that_knows_no_n_is_asked_for_each_from_then_on() -> None:
    with Scripted(lambda body: choices("a")) as server:
        llm = openai(server)
        outcome(llm, 3)
        again = outcome(llm, 3)

    assert len(again["generations"]) == 3
    assert [body.get("n", 1) for body in server.asked] == [3, 1, 1, 1, 1, 1]


def test_more_generations_than_asked_for_are_paid_and_left_out() -> None:
    with Scripted(lambda body: choices("a", "b", "c")) as server:
        output = outcome(openai(server), 2)

    assert output["generations"] == ["a", "b"]
    assert {name: len(counts) for name, counts in output["statistics"].items()} == {
        "input_tokens": 2,
        "output_tokens": 2,
    }
    assert output.get("usage") == PAID


class Stingy(AsyncLLM):
    """Gives one generation, whatever it's asked for, and each time fewer than it should."""

    asked: list[int] = []

    @property
    def model_name(self) -> str:
        return "stingy"

    async def agenerate(self, input: Any, num_generations: int = 1, seed: int | None = None) -> GenerateOutput:
        self.asked.append(num_generations)
        texts: list[str | None] = [f"{seed}"] if num_generations > 1 or not self.asked[:-1] else []
        return GenerateOutput(generations=texts, statistics={"input_tokens": [5] * len(texts), "output_tokens": [7]})


def test_what_still_isnt_there_after_one_more_request_fails_the_row_with_what_it_cost() -> None:
    llm = Stingy()

    (output,) = llm.generate_outputs([PROMPT], num_generations=4, seed=1)

    assert output["generations"] == [None] * 4
    assert "asked for 4 generations and gave 2" in output.get("error", {"message": ""})["message"]
    assert llm.asked == [4, 3]
    assert sum(each["input_tokens"] for each in output.get("usage", [])) == 10


@pytest.mark.parametrize("status", [529, 429])
def test_of_several_requests_only_the_ones_that_failed_are_sent_again(status: int) -> None:
    failures = iter([True])

    def reply(body: dict[str, Any]) -> Reply:
        return (
            (status, {"error": {"type": "overloaded_error", "message": "no"}}) if next(failures, False) else message()
        )

    with Scripted(reply) as server:
        output = outcome(anthropic(server), 4)

    assert output["generations"] == ["Fine."] * 4
    assert len(server.asked) == 5


def test_of_several_requests_one_that_is_refused_fails_the_row_with_what_all_of_them_cost() -> None:
    replies = iter([message(), message([], "refusal"), message()])
    with Scripted(lambda body: next(replies)) as server:
        output = outcome(anthropic(server), 3)

    assert output.get("error", {"type": ""})["type"] == "ContentFilterError"
    assert len(output.get("usage", [])) == 3
    assert len(server.asked) == 3


def test_generations_that_are_asked_for_again_have_seeds_of_their_own() -> None:
    failed: list[int] = []

    def reply(body: dict[str, Any]) -> Reply:
        if body["seed"] == 11 and not failed:
            failed.append(1)
            return 503, {"error": {"message": "no capacity"}}
        return completion(f"{body['seed']}")

    with Scripted(reply) as server:
        output = outcome(InferenceEndpointsLLM(base_url=server.url), 3, seed=10)

    assert len(set(output["generations"])) == 3
    assert len(server.asked) == 4


# Anthropic's messages


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        (message(reason="end_turn"), {}),
        (message(reason="stop_sequence"), {}),
        (message(reason="max_tokens"), {"cut_off": [True]}),
        (message(reason="model_context_window_exceeded"), {"cut_off": [True]}),
        (message(reason="pause_turn"), {"unfinished": [True]}),
        (message(reason="next-years-reason"), {"unfinished": [True]}),
        (message(reason=None), {"unfinished": [True]}),
    ],
)
def test_a_message_is_marked_by_why_it_ended(reply: dict[str, Any], marks: dict[str, Any]) -> None:
    with Scripted(lambda body: reply) as server:
        output = outcome(anthropic(server))

    assert {name: each for name, each in output.items() if name in {"cut_off", "unfinished"}} == marks
    assert output.get("finish_reasons") == [reply["stop_reason"]]


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (message([{"type": "thinking", "thinking": "Hm."}], "max_tokens"), "EmptyAnswerError", "max_new_tokens"),
        (message("", "max_tokens"), "EmptyAnswerError", "max_new_tokens"),
        (message([{"type": "redacted_thinking"}], "end_turn"), "EmptyAnswerError", "reasoning_effort"),
        (message([], "refusal") | {"stop_details": {"category": "cyber"}}, "ContentFilterError", "cyber"),
    ],
)
def test_a_message_without_a_text_is_paid_once(reply: dict[str, Any], kind: str, said: str) -> None:
    with Scripted(lambda body: reply) as server:
        output = outcome(anthropic(server))

    failure = output.get("error", {"type": "", "message": ""})
    assert (failure["type"], len(server.asked)) == (kind, 1)
    assert said in failure["message"]
    assert [each["output_tokens"] for each in output.get("usage", [])] == [20]


def test_a_200_that_holds_anthropics_error_is_that_error() -> None:
    reply: Reply = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too large"}}
    with Scripted(lambda body: reply) as server:
        output = outcome(anthropic(server))

    assert output.get("error", {"type": ""})["type"] == "BadRequestError"
    assert len(server.asked) == 1


# Texts of TGI


@pytest.mark.parametrize(
    ("reason", "marks"),
    [
        ("eos_token", {}),
        ("stop_sequence", {}),
        ("length", {"cut_off": [True]}),
        ("next-years-reason", {"unfinished": [True]}),
        (None, {"unfinished": [True]}),
    ],
)
def test_a_text_of_tgi_is_marked_by_why_it_ended(reason: str | None, marks: dict[str, Any]) -> None:
    answer = {"generated_text": "Once", "details": {"finish_reason": reason, "generated_tokens": 9}}
    with Scripted(lambda body: answer) as server:
        output = outcome(InferenceEndpointsLLM(base_url=server.root), prompt="Once")

    assert {name: each for name, each in output.items() if name in {"cut_off", "unfinished"}} == marks


# Whatever comes

ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def with_odd_fields(answer: dict[str, Any], spoil: Callable[[], bool], odd: Callable[[], Any]) -> Any:
    """The answer, with some of its fields replaced at every depth."""
    if spoil():
        return odd()
    if isinstance(answer, dict):
        return {name: with_odd_fields(each, spoil, odd) for name, each in answer.items()}
    if isinstance(answer, list):
        return [with_odd_fields(each, spoil, odd) for each in answer]
    return answer


@given(st.data())
def test_fields_of_any_type_give_an_output_or_an_error_of_the_row(data: st.DataObject) -> None:
    usage = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    chat = completion(usage=usage, service_tier="default", message={"reasoning_content": "Hm."})
    chat["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]}
    text = {"generated_text": "a", "details": {"finish_reason": "length", "tokens": [{"text": "a", "logprob": -1}]}}
    readers: list[tuple[dict[str, Any], Callable[[Any], Any]]] = [
        (chat, lambda body: parse_answer(body, CHAT)),
        (message(cache_creation={"ephemeral_1h_input_tokens": 1}), parse_message),
        (text, lambda body: parse_text(body, {}, with_logprobs=True)),
    ]
    answer, read = data.draw(st.sampled_from(readers))
    spoil = st.sampled_from([True, False, False, False, False])
    fields = {
        name: with_odd_fields(each, lambda: data.draw(spoil), lambda: data.draw(ODD)) for name, each in answer.items()
    }

    try:
        output = read(fields)
    except LLMError:
        return
    assert all(each is None or isinstance(each, str) for each in output["generations"])
    assert len(output["finish_reasons"]) == len(output["statistics"]["output_tokens"]) == len(output["generations"])
