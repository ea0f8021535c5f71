"""Files and batches of the local provider, with OpenAI's own client."""

import json
import time
from collections.abc import Iterator, Sequence

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from llms.local_provider import ApiError, LocalProvider
from tests.conftest import LONGEST, free_port


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalProvider]:
    with LocalProvider(port=free_port(), batch_seconds=0.05) as provider:
        yield provider


@pytest.fixture
def provider(shared: LocalProvider) -> LocalProvider:
    shared.reset()
    return shared


@pytest.fixture
def client(provider: LocalProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.base_url, api_key="any", max_retries=0, timeout=LONGEST) as made:
        yield made


def line(number: int, **changes: object) -> str:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Tell me about river {number}"}]}
    request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps({**request, **changes})


def upload(client: OpenAI, lines: Sequence[str]) -> str:
    data = "\n".join(lines).encode()
    return client.files.create(file=("input.jsonl", data), purpose="batch").id


def create(client: OpenAI, lines: Sequence[str], **options: object) -> Batch:
    wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **options}
    return client.batches.create(input_file_id=upload(client, lines), **wanted)


def wait(client: OpenAI, batch: Batch, *statuses: str) -> Batch:
    end = time.monotonic() + LONGEST
    while batch.status not in (statuses or ("completed", "failed", "expired", "cancelled")):
        assert time.monotonic() < end, batch
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(client: OpenAI, file_id: str | None) -> dict[str, dict]:
    if file_id is None:
        return {}
    found = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    return {result["custom_id"]: result for result in found}


class TestFiles:
    def test_a_file_is_kept_listed_read_and_deleted(self, client: OpenAI) -> None:
        made = client.files.create(file=("notes.jsonl", b"abc"), purpose="batch")
        assert (made.bytes, made.filename, made.purpose, made.status) == (3, "notes.jsonl", "batch", "processed")
        assert client.files.retrieve(made.id) == made
        assert [entry.id for entry in client.files.list()] == [made.id]
        assert client.files.content(made.id).read() == b"abc"
        assert client.files.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(made.id)

    def test_several_megabytes_come_back_as_they_went(self, client: OpenAI) -> None:
        data = bytes(range(256)) * 20_000
        made = client.files.create(file=("big.bin", data), purpose="user_data")
        assert client.files.content(made.id).read() == data

    def test_a_wrong_purpose_is_refused(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.files.create(file=("x", b"abc"), purpose="nothing")
        assert caught.value.param == "purpose"


class TestLifeOfABatch:
    def test_it_completes_with_an_answer_per_custom_id(self, client: OpenAI) -> None:
        made = create(client, [line(n) for n in range(5)], metadata={"digest": "abc"})
        assert (made.status, made.metadata, made.output_file_id) == ("validating", {"digest": "abc"}, None)
        batch = wait(client, made)
        assert batch.status == "completed"
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (5, 5, 0)
        assert batch.error_file_id is None
        found = results(client, batch.output_file_id)
        assert found.keys() == {f"r{n}" for n in range(5)}
        one = found["r3"]
        assert one.keys() == {"id", "custom_id", "response", "error"}
        assert one["error"] is None
        assert one["response"].keys() == {"status_code", "request_id", "body"}

    def test_its_answers_are_those_of_the_same_requests_online(self, client: OpenAI) -> None:
        batch = wait(client, create(client, [line(7)]))
        online = client.chat.completions.create(**json.loads(line(7))["body"])
        answer = results(client, batch.output_file_id)["r7"]["response"]["body"]
        assert answer["choices"][0]["message"]["content"] == online.choices[0].message.content
        assert answer["usage"]["total_tokens"] == online.usage.total_tokens == batch.usage.total_tokens

    def test_wrong_requests_end_in_the_error_file(self, client: OpenAI) -> None:
        batch = wait(client, create(client, [line(0), line(1, body={"model": "gpt-4o"})]))
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
        wrong = results(client, batch.error_file_id)["r1"]["response"]
        assert (wrong["status_code"], wrong["body"]["error"]["param"]) == (400, "messages")

    def test_embeddings_and_completions_have_batches_too(self, client: OpenAI) -> None:
        lines = [line(0, url="/v1/embeddings", body={"model": "e", "input": "x", "dimensions": 8})]
        batch = wait(client, create(client, lines, endpoint="/v1/embeddings"))
        answer = results(client, batch.output_file_id)["r0"]["response"]["body"]
        assert len(answer["data"][0]["embedding"]) == 8

    def test_the_input_can_be_deleted_while_it_runs(self, client: OpenAI) -> None:
        batch = create(client, [line(0)])
        client.files.delete(batch.input_file_id)
        assert wait(client, batch).request_counts.completed == 1

    def test_batches_are_listed_newest_first_in_pages(self, client: OpenAI) -> None:
        made = [create(client, [line(0)]).id for _ in range(3)]
        page = client.batches.list(limit=2)
        assert ([batch.id for batch in page.data], page.has_more) == ([made[2], made[1]], True)
        assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]

    def test_a_client_can_cancel_and_keeps_what_was_done(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(batch_seconds=10)
        batch = wait(client, create(client, [line(n) for n in range(30)]), "in_progress")
        while not client.batches.retrieve(batch.id).request_counts.completed:
            time.sleep(0.01)
        assert client.batches.cancel(batch.id).status == "cancelling"
        batch = wait(client, batch)
        assert batch.status == "cancelled"
        assert batch.cancelling_at <= batch.cancelled_at
        done, left = results(client, batch.output_file_id), results(client, batch.error_file_id)
        assert 0 < len(done) < 30
        assert len(done) + len(left) == 30
        assert {result["error"]["code"] for result in left.values()} == {"batch_cancelled"}
        with pytest.raises(openai.BadRequestError):
            client.batches.cancel(wait(client, create(client, [line(0)])).id)


class TestValidation:
    @pytest.mark.parametrize(
        ("lines", "code", "number"),
        [
            ([line(0), "{broken"], "invalid_json_line", 2),
            ([line(0), "", line(0)], "duplicate_custom_id", 3),
            ([line(0), line(1, body={"model": "other", "messages": []})], "mismatched_model", 2),
            ([line(0, url="/v1/embeddings")], "invalid_url", 1),
            ([line(0, custom_id=None)], "missing_required_parameter", 1),
            ([""], "empty_file", None),
            ([line(n) for n in range(5)], "too_many_tasks", None),
        ],
    )
    def test_a_wrong_file_fails_and_says_where(
        self, provider: LocalProvider, client: OpenAI, lines: list[str], code: str, number: int | None
    ) -> None:
        provider.set(batch_max_requests=4)
        batch = wait(client, create(client, lines))
        assert batch.status == "failed"
        assert batch.failed_at
        assert [(error.code, error.line) for error in batch.errors.data] == [(code, number)]
        assert batch.output_file_id is None

    def test_a_file_that_is_too_large_fails(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(batch_max_bytes=100)
        assert wait(client, create(client, [line(0)])).errors.data[0].code == "file_too_large"

    def test_a_batch_over_the_quota_of_enqueued_tokens_fails(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(batch_token_quota=80, batch_manual=True)
        first = wait(client, create(client, [line(0)]), "in_progress")
        second = wait(client, create(client, [line(1)]))
        assert second.errors.data[0].code == "token_limit_exceeded"
        provider.end_batch(first.id)
        assert wait(client, create(client, [line(1)]), "in_progress")

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"endpoint": "/v1/nothing"}, "endpoint"),
            ({"completion_window": "1h"}, "completion_window"),
            ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
            ({"metadata": {"k" * 65: "x"}}, "metadata"),
            ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ],
    )
    def test_wrong_orders_are_refused_at_once(self, client: OpenAI, options: dict, param: str) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            create(client, [line(0)], **options)
        assert caught.value.param is not None
        assert caught.value.param.startswith(param.partition(".")[0])

    def test_an_unknown_file_is_refused(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="file-none"):
            client.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")


class TestOrderedEnds:
    @pytest.fixture
    def batch(self, provider: LocalProvider, client: OpenAI) -> Batch:
        provider.set(batch_manual=True)
        return wait(client, create(client, [line(n) for n in range(20)]), "in_progress")

    def test_a_manual_batch_waits_to_be_told(self, provider: LocalProvider, client: OpenAI, batch: Batch) -> None:
        time.sleep(0.15)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        ended = provider.end_batch(batch.id, bad=["r3", 5], bad_every=10, status=429, message="slow", shuffle=True)
        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 20, "completed": 16, "failed": 4}
        bad = results(client, ended["error_file_id"])
        assert bad.keys() == {"r3", "r5", "r9", "r19"}
        assert bad["r3"]["response"]["status_code"] == 429
        assert bad["r3"]["response"]["body"]["error"]["message"] == "slow"
        done = list(results(client, ended["output_file_id"]))
        assert done != sorted(done, key=lambda name: int(name[1:]))

    def test_an_expired_batch_has_partial_results(self, provider: LocalProvider, client: OpenAI, batch: Batch) -> None:
        ended = provider.end_batch(batch.id, "expire", done_fraction=0.25)
        assert (ended["status"], len(results(client, ended["output_file_id"]))) == ("expired", 5)
        left = results(client, ended["error_file_id"])
        assert len(left) == 15
        assert left["r19"]["response"] is None
        assert left["r19"]["error"]["code"] == "batch_expired"

    def test_a_failed_batch_has_a_message_and_no_files(self, provider: LocalProvider, batch: Batch) -> None:
        ended = provider.end_batch(batch.id, "fail", message="no more quota")
        assert (ended["status"], ended["output_file_id"], ended["error_file_id"]) == ("failed", None, None)
        assert ended["errors"]["data"][0]["message"] == "no more quota"

    def test_a_batch_cancelled_before_anything_was_done_has_no_output(
        self, provider: LocalProvider, batch: Batch
    ) -> None:
        ended = provider.end_batch(batch.id, "cancel")
        assert (ended["status"], ended["output_file_id"]) == ("cancelled", None)
        assert [made["status"] for made in provider.batches] == ["cancelled"]

    def test_an_ended_batch_cannot_be_ended_again(self, provider: LocalProvider, batch: Batch) -> None:
        provider.end_batch(batch.id)
        with pytest.raises(ApiError, match="can't be ended again"):
            provider.end_batch(batch.id)

    def test_batches_outlive_a_closed_socket(self, provider: LocalProvider, client: OpenAI, batch: Batch) -> None:
        provider.stop()
        provider.start()
        assert client.batches.retrieve(batch.id).status == "in_progress"


def test_thousands_of_requests_pass_while_other_requests_are_answered(client: OpenAI) -> None:
    batch = create(client, [line(n) for n in range(20_000)])
    answered = 0
    while batch.status != "completed":
        batch = client.batches.retrieve(batch.id)
        answered += batch.status != "completed"
        time.sleep(0.01)
    assert batch.request_counts.completed == 20_000
    assert answered > 3
