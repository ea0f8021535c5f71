"""What the local provider's side of Anthropic's API takes and refuses, seen as plain HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from llms.local_provider import LocalProvider

MESSAGE: Any = {"model": "claude", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def provider() -> Iterator[LocalProvider]:
    with LocalProvider(batch_manual=True) as running:
        yield running


def ask(provider: LocalProvider, method: str, path: str, body: Any = None, headers: Any = VERSION) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{provider.anthropic_url}/v1{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def requests_of(*custom_ids: str) -> Any:
    return {"requests": [{"custom_id": custom_id, "params": MESSAGE} for custom_id in custom_ids]}


def create(provider: LocalProvider, *custom_ids: str) -> str:
    status, batch = ask(provider, "POST", "/messages/batches", requests_of(*custom_ids))
    assert status == 200
    return batch["id"]


def test_a_message_has_the_shape_of_anthropics(provider: LocalProvider) -> None:
    status, answer = ask(provider, "POST", "/messages", MESSAGE)

    assert status == 200
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "claude")
    assert answer["content"][0]["type"] == "text"
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "Input should be 'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no block of type text or image"),
        ({"temperature": 1.5}, "temperature"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "must be greater than"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
    ],
)
def test_what_anthropic_refuses_is_refused_in_its_words(provider: LocalProvider, change: Any, said: str) -> None:
    status, answer = ask(provider, "POST", "/messages", {**MESSAGE, **change})

    assert status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert said in answer["error"]["message"]


def test_the_header_with_the_version_is_required(provider: LocalProvider) -> None:
    status, answer = ask(provider, "POST", "/messages", MESSAGE, headers={})

    assert status == 400
    assert "anthropic-version" in answer["error"]["message"]


def test_the_key_goes_by_its_own_header(provider: LocalProvider) -> None:
    provider.set(api_key="right")

    assert ask(provider, "POST", "/messages", MESSAGE, {**VERSION, "x-api-key": "right"})[0] == 200
    status, answer = ask(provider, "POST", "/messages", MESSAGE, {**VERSION, "x-api-key": "wrong"})
    assert (status, answer["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    "custom_ids",
    [("a b",), ("a" * 65,), ("a", "a"), ()],
)
def test_requests_of_a_batch_need_proper_ids_of_their_own(provider: LocalProvider, custom_ids: Any) -> None:
    status, answer = ask(provider, "POST", "/messages/batches", requests_of(*custom_ids))

    assert status == 400
    assert answer["error"]["message"].startswith("requests")
    assert provider.batches == []


def test_pages_go_both_ways(provider: LocalProvider) -> None:
    made = [create(provider, "a") for _ in range(4)]

    def ids(query: str) -> tuple[list[str], bool]:
        _, page = ask(provider, "GET", f"/messages/batches?{query}")
        return [batch["id"] for batch in page["data"]], page["has_more"]

    assert ids("limit=3") == ([made[3], made[2], made[1]], True)
    assert ids(f"after_id={made[2]}") == ([made[1], made[0]], False)
    assert ids(f"before_id={made[1]}") == ([made[3], made[2]], False)


def test_the_batches_of_the_two_apis_dont_mix(provider: LocalProvider) -> None:
    batch_id = create(provider, "a")

    assert ask(provider, "GET", "/batches")[1]["data"] == []
    assert ask(provider, "GET", f"/messages/batches/{batch_id}")[1]["processing_status"] == "in_progress"
    assert ask(provider, "GET", "/messages/batches/msgbatch_none")[0] == 404


def test_an_open_batch_has_no_results_and_cant_be_deleted(provider: LocalProvider) -> None:
    batch_id = create(provider, "a")

    assert ask(provider, "GET", f"/messages/batches/{batch_id}/results")[0] == 404
    assert ask(provider, "DELETE", f"/messages/batches/{batch_id}")[0] == 400


def test_an_order_to_fail_makes_every_request_fail(provider: LocalProvider) -> None:
    ended = provider.end_batch(create(provider, "a", "b"), "fail")

    assert ended["processing_status"] == "ended"
    assert ended["request_counts"] == {"processing": 0, "succeeded": 0, "errored": 2, "canceled": 0, "expired": 0}


def test_a_cancelled_batch_says_when_it_was_and_counts_what_it_left(provider: LocalProvider) -> None:
    batch_id = create(provider, "a", "b")
    ended = provider.end_batch(batch_id, "cancel", done_fraction=0.5)

    assert ended["cancel_initiated_at"]
    assert ended["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 1, "expired": 0}
