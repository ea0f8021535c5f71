"""The batch APIs of the providers: every state of a job, every outcome of a request, and how a job is found again."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from llms.batch import MARK, BatchResult, JobStatus, OfflineBatchLLM, mark_of
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    IncompleteResultsError,
    LLMError,
    ModelNotFoundError,
    OfflineBatchGenerationNotFinishedError,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    UndecidedJobError,
)
from llms.loop import run_sync
from llms.providers.batch_dialects import dialect_of
from llms.providers.bedrock import BedrockLLM
from llms.providers.dashscope import DashScopeLLM
from llms.providers.fireworks import FireworksLLM
from llms.providers.gemini import GeminiLLM
from llms.providers.google import GoogleLLM
from llms.providers.groq import GroqLLM
from llms.providers.mistral import MistralLLM
from llms.providers.moonshot import MoonshotLLM
from llms.providers.nebius import NebiusLLM
from llms.providers.openai_responses import OpenAIResponsesLLM
from llms.providers.openrouter import OpenRouterLLM
from llms.providers.together import TogetherLLM
from llms.providers.vertexai import VertexAILLM
from llms.providers.xai import XAILLM
from llms.providers.zai import ZAILLM
from llms.secrets import MASK, masked
from tests.llms import contract
from tests.llms.batch_wires import (
    BatchStandIn,
    BedrockStandIn,
    DashScopeStandIn,
    FireworksStandIn,
    GeminiStandIn,
    Job,
    MistralStandIn,
    MoonshotStandIn,
    NebiusStandIn,
    OpenRouterStandIn,
    ResponsesStandIn,
    TogetherStandIn,
    VertexStandIn,
    XAIStandIn,
    ZAIStandIn,
)
from tests.llms.test_contract import ADAPTERS
from tests.llms.wires import KEY, StandIn


@dataclass(frozen=True)
class Api:
    kind: type[OfflineBatchLLM]
    stand_in: type[BatchStandIn]
    states: dict[str, str]
    """The provider's words, as its SDK lists them: what they mean to us."""
    done: str
    lapsed: str
    """The state of a job that ran out of time, and of its requests that nobody worked on."""
    kind_of_lapsed: str = "ExpiredError"


OPENAI_STATES = {
    "validating": "waiting",
    "in_progress": "waiting",
    "finalizing": "waiting",
    "cancelling": "waiting",
    "completed": "ended",
    "expired": "ended",
    "cancelled": "ended",
    "failed": "failed",
    "a-state-of-next-year": "waiting",
}
TOGETHER_STATES = {
    "VALIDATING": "waiting",
    "IN_PROGRESS": "waiting",
    "COMPLETED": "ended",
    "EXPIRED": "ended",
    "CANCELLED": "ended",
    "FAILED": "failed",
}
MISTRAL_STATES = {
    "QUEUED": "waiting",
    "RUNNING": "waiting",
    "CANCELLATION_REQUESTED": "waiting",
    "SUCCESS": "ended",
    "TIMEOUT_EXCEEDED": "ended",
    "CANCELLED": "ended",
    "FAILED": "failed",
    "A_STATE_OF_NEXT_YEAR": "waiting",
}
GEMINI_STATES = {
    "BATCH_STATE_UNSPECIFIED": "waiting",
    "BATCH_STATE_PENDING": "waiting",
    "BATCH_STATE_RUNNING": "waiting",
    "BATCH_STATE_SUCCEEDED": "ended",
    "BATCH_STATE_CANCELLED": "ended",
    "BATCH_STATE_EXPIRED": "ended",
    "BATCH_STATE_FAILED": "failed",
    "BATCH_STATE_OF_NEXT_YEAR": "waiting",
}
VERTEX_STATES = {
    **{f"JOB_STATE_{word}": "waiting" for word in ("UNSPECIFIED", "QUEUED", "PENDING", "RUNNING", "PAUSED")},
    **{f"JOB_STATE_{word}": "waiting" for word in ("UPDATING", "CANCELLING", "OF_NEXT_YEAR")},
    **{f"JOB_STATE_{word}": "ended" for word in ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "CANCELLED", "EXPIRED")},
    "JOB_STATE_FAILED": "failed",
}
BEDROCK_STATES = {
    **dict.fromkeys(("Submitted", "Validating", "Scheduled", "InProgress", "Stopping"), "waiting"),
    **dict.fromkeys(("Completed", "PartiallyCompleted", "Stopped"), "ended"),
    **dict.fromkeys(("Failed", "Expired"), "failed"),
    "OfNextYear": "waiting",
}
XAI_STATES = {
    **dict.fromkeys(("validating", "in_progress", "cancelling"), "waiting"),
    **dict.fromkeys(("completed", "cancelled"), "ended"),
    "failed": "failed",
}
FIREWORKS_WAITING = (
    *("UNSPECIFIED", "CREATING", "RUNNING", "DELETING", "WRITING_RESULTS", "VALIDATING", "DELETING_CLEANING_UP"),
    *("PENDING", "RE_QUEUEING", "CREATING_INPUT_DATASET", "IDLE", "CANCELLING", "PAUSED", "OF_NEXT_YEAR"),
)
FIREWORKS_STATES = {
    **{f"JOB_STATE_{word}": "waiting" for word in FIREWORKS_WAITING},
    **{f"JOB_STATE_{word}": "ended" for word in ("COMPLETED", "CANCELLED", "EXPIRED", "EARLY_STOPPED")},
    "JOB_STATE_FAILED": "failed",
}
APIS = {
    "openai responses": Api(OpenAIResponsesLLM, ResponsesStandIn, OPENAI_STATES, "completed", "expired"),
    "groq": Api(GroqLLM, BatchStandIn, OPENAI_STATES, "completed", "expired"),
    "together": Api(TogetherLLM, TogetherStandIn, TOGETHER_STATES, "COMPLETED", "EXPIRED"),
    "mistral": Api(MistralLLM, MistralStandIn, MISTRAL_STATES, "SUCCESS", "TIMEOUT_EXCEEDED", "OverloadedError"),
    "gemini": Api(
        GeminiLLM, GeminiStandIn, GEMINI_STATES, "BATCH_STATE_SUCCEEDED", "BATCH_STATE_EXPIRED", "OverloadedError"
    ),
    "bedrock": Api(BedrockLLM, BedrockStandIn, BEDROCK_STATES, "Completed", "PartiallyCompleted", "OverloadedError"),
    "fireworks": Api(
        FireworksLLM,
        FireworksStandIn,
        FIREWORKS_STATES,
        "JOB_STATE_COMPLETED",
        "JOB_STATE_EXPIRED",
        "OverloadedError",
    ),
    "openrouter": Api(OpenRouterLLM, OpenRouterStandIn, OPENAI_STATES, "completed", "expired", "OverloadedError"),
    "xai": Api(XAILLM, XAIStandIn, XAI_STATES, "completed", "cancelled"),
    "dashscope": Api(DashScopeLLM, DashScopeStandIn, OPENAI_STATES, "completed", "expired", "RateLimitError"),
    "moonshot": Api(MoonshotLLM, MoonshotStandIn, OPENAI_STATES, "completed", "expired"),
    "zai": Api(ZAILLM, ZAIStandIn, OPENAI_STATES, "completed", "expired"),
    "nebius": Api(NebiusLLM, NebiusStandIn, OPENAI_STATES, "completed", "expired"),
    "vertexai": Api(
        VertexAILLM, VertexStandIn, VERTEX_STATES, "JOB_STATE_SUCCEEDED", "JOB_STATE_EXPIRED", "OverloadedError"
    ),
}
STATES = [(name, word) for name, api in APIS.items() for word in api.states]


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Api:
    return APIS[request.param]


@pytest.fixture
def server(api: Api) -> Iterator[BatchStandIn]:
    with api.stand_in() as running:
        yield running


def llm_at(api: Api, server: BatchStandIn, **fields: Any) -> OfflineBatchLLM:
    key = SecretStr(KEY)
    kind: Any = api.kind
    given = {"base_url": server.url, "api_key": key, **server.fields, **fields}
    return kind(model="m", use_offline_batch_generation=True, **given)


def submitted(llm: OfflineBatchLLM, count: int = 1, mark: str = "", first: int = 0) -> JobStatus:
    with llm.job_writer() as writer:
        for number in range(first, first + count):
            chat: Any = [{"role": "user", "content": f"number {number}"}]
            assert writer.add(llm.batch_request(str(number), chat, 1)) is None
        (file,) = writer.rest()
        if mark:
            # As if it had been begun with this one, which every `custom_id` carries a part of.
            written = file.path.read_bytes()
            file.path.write_bytes(written.replace(mark_of(file.intent).encode(), mark_of(mark).encode()))
            file.intent = mark
        return run_sync(llm.create_job(file, {MARK: mark} if mark else {}))


def ended_where_results_show_whose_they_are(server: BatchStandIn) -> None:
    """OpenRouter's jobs show it by these alone."""
    if isinstance(server, OpenRouterStandIn):
        for job in server.batches:
            server.end(job, "completed", answered=len(server.lines(job.given)))


def results_of(llm: OfflineBatchLLM, job_id: str) -> dict[str, BatchResult]:
    async def read() -> list[BatchResult]:
        return [each async for each in llm.job_results(job_id)]

    return {each.custom_id: each for each in run_sync(read())}


def test_every_request_of_a_job_is_answered_refused_lapsed_or_missing(api: Api, server: BatchStandIn) -> None:
    llm = llm_at(api, server)
    job = submitted(llm, 5)
    assert job.state == "waiting"

    server.end(server.job(job.id), api.lapsed, answered=2, refused=1, lapsed=1)
    results = results_of(llm, job.id)

    assert run_sync(llm.job_status(job.id)).state == "ended"
    kinds = {key: type(each.outcome).__name__ for key, each in results.items()}
    assert kinds == {"0": "dict", "1": "dict", "2": "BadRequestError", "3": api.kind_of_lapsed}
    assert "that is no temperature" in str(results["2"].outcome)
    answer: Any = results["0"].outcome
    assert answer["generations"] == ["Fine."]
    assert [(each["input_tokens"], each["output_tokens"]) for each in answer["usage"]] == [(100, 20)]


@pytest.mark.parametrize(("name", "word"), STATES)
def test_a_state_means(name: str, word: str) -> None:
    api = APIS[name]
    with api.stand_in() as server:
        llm = llm_at(api, server)
        job = submitted(llm)
        server.job(job.id).status = word

        status = run_sync(llm.job_status(job.id))

    assert status.state == api.states[word]
    assert word.lower().endswith(status.status)
    assert status.unknown is ("next" in word.lower())
    assert (status.error is not None) is (status.state == "failed")


def test_a_job_that_failed_says_why_and_one_that_answered_something_has_ended(api: Api, server: BatchStandIn) -> None:
    llm = llm_at(api, server)
    first, second = submitted(llm), submitted(llm, 2, first=1)
    word = next(word for word, state in api.states.items() if state == "failed")
    server.job(first.id).status, server.job(first.id).failed = word, "no such model for batches"
    server.end(server.job(second.id), word, answered=1)

    failed, partly = run_sync(llm.job_status(first.id)), run_sync(llm.job_status(second.id))

    assert failed.state == "failed"
    assert "no such model for batches" in failed.message
    assert partly.state == "ended"
    assert set(results_of(llm, second.id)) == {"1"}


def test_a_job_is_found_by_its_mark_and_no_other_one(api: Api, server: BatchStandIn) -> None:
    llm = llm_at(api, server)
    marks = [f"{letter * 32}" for letter in "abc"]
    jobs = {mark: submitted(llm, 1, mark, number).id for number, mark in enumerate(marks)}
    ended_where_results_show_whose_they_are(server)

    for mark, job_id in jobs.items():
        found = run_sync(llm.find_job(mark, 0, {}))
        assert found is not None
        assert found.id == job_id
    assert run_sync(llm.find_job("d" * 32, 0, {})) is None


def test_a_job_that_is_not_on_the_first_page_is_found(api: Api, server: BatchStandIn) -> None:
    llm = llm_at(api, server)
    job = submitted(llm, 1, "a" * 32)
    if api.kind is TogetherLLM:
        # Its list has no pages.
        return
    foreign = server.keep("foreign", b'{"custom_id": "of-another-program", "body": {}}\n')
    requests: list[Any] = [{"custom_id": "of-another-program", "body": {}}]
    unnamed: dict[str, Any] = {"metadata": {}, "input_file_id": foreign, "name": "another's", "requests": requests}
    given = {**server.job(job.id).given, **unnamed, "displayName": "another's", "jobName": f"another-{'a' * 32}"}
    others = [Job(f"other-{number}", 1_700_000_001, given, "x") for number in range(150)]
    in_order = api.kind is XAILLM or issubclass(api.kind, GoogleLLM)
    # Whichever end its list begins at, the job is at the other one.
    server.batches[:] = [*others, *server.batches] if in_order else [*server.batches, *others]
    ended_where_results_show_whose_they_are(server)

    found = run_sync(llm.find_job("a" * 32, 0, {}))

    assert found is not None
    assert found.id == job.id


def test_results_that_were_counted_and_are_not_there_yet_are_waited_for(api: Api, server: BatchStandIn) -> None:
    if api.kind is TogetherLLM:
        # It counts nothing.
        return
    llm = llm_at(api, server)
    job = submitted(llm, 2)
    kept = server.job(job.id)
    kept.status, kept.counts = api.done, (2, 2, 0)

    with pytest.raises(IncompleteResultsError):
        results_of(llm, job.id)


NOT_FOUND = {"error": {"code": 404, "message": "File not found: file-1", "status": "NOT_FOUND", "type": "x"}}


@pytest.mark.parametrize("status", [404, 400])
def test_results_that_are_not_found_yet_are_waited_for(api: Api, status: int) -> None:
    if api.kind is OpenRouterLLM:
        # They come with the job.
        return
    stand_in: Any = api.stand_in

    class Late(stand_in):
        """Its jobs have ended before their results are found."""

        is_late = False

        def got(self, path: str, headers: Any) -> Any:
            of_results = re.search(r"/content|/results|:download|alt=media|\.jsonl|/outputs?|\.out", path)
            if self.is_late and of_results:
                return status, json.dumps(NOT_FOUND).encode(), {}
            return super().got(path, headers)

    with Late() as server:
        llm = llm_at(api, server)
        job = submitted(llm, 2)
        server.end(server.job(job.id), api.done, answered=2)
        server.is_late = True
        with pytest.raises(IncompleteResultsError):
            results_of(llm, job.id)

        server.is_late = False
        assert len(results_of(llm, job.id)) == 2


@pytest.mark.parametrize("status", [404, 400])
def test_a_file_that_isnt_known_right_after_its_upload_is_tried_again(
    api: Api, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llms.uploads.FILE_DELAYS", (0.01, 0.01))

    stand_in: Any = api.stand_in

    class Slow(stand_in):
        """Doesn't know a file at first."""

        refusals = 0

        def create(self, given: Any) -> Any:
            if api.kind not in {XAILLM, OpenRouterLLM} and self.refusals < 2:
                self.refusals += 1
                return status, json.dumps(NOT_FOUND).encode(), {}
            return super().create(given)

    with Slow() as server:
        assert submitted(llm_at(api, server)).state == "waiting"
        assert len(server.batches) == 1


def test_a_job_is_cancelled_and_its_files_are_deleted(api: Api, server: BatchStandIn) -> None:
    llm = llm_at(api, server)
    job = submitted(llm, 2)

    if api.kind is OpenRouterLLM:
        with pytest.raises(LLMError, match="ends by itself, within 24 hours") as caught:
            run_sync(llm.cancel_job(job.id))
        # Another refusal says that a job has ended meanwhile.
        assert type(caught.value) is LLMError
    else:
        run_sync(llm.cancel_job(job.id))
    server.end(server.job(job.id), api.done, answered=1, refused=1)
    run_sync(llm.delete_job(job.id))

    assert server.cancelled == ([] if api.kind is OpenRouterLLM else [job.id])
    assert server.files == {}


def test_inputs_are_answered_by_a_job_as_they_are_online(api: Api, server: BatchStandIn) -> None:
    class Quick(api.stand_in):
        def create(self, given: dict[str, Any]) -> Any:
            reply = super().create(given)
            self.end(self.batches[-1], api.done, answered=len(self.lines(given)))
            return reply

    chats: Any = [[{"role": "user", "content": f"number {number}"}] for number in range(2)]
    with Quick() as running:
        llm = llm_at(api, running, offline_batch_generation_block_until_done=1)
        outputs = llm.generate_outputs(inputs=chats, num_generations=2)

    assert [output["generations"] for output in outputs] == [["Fine.", "Fine."]] * 2


def test_together_is_not_sent_the_same_file_twice() -> None:
    with TogetherStandIn() as server:
        llm = llm_at(APIS["together"], server)
        with llm.job_writer() as writer:
            writer.add(llm.batch_request("0", [{"role": "user", "content": "hi"}], 1))
            (file,) = writer.rest()
            first, second = (run_sync(llm.create_job(file, {})) for _ in range(2))

        assert len(server.files) == 1
        assert server.job(first.id).given["input_file_id"] == server.job(second.id).given["input_file_id"]


def test_mistral_forgets_a_job_that_is_deleted() -> None:
    with MistralStandIn() as server:
        llm = llm_at(APIS["mistral"], server)
        job = submitted(llm)
        server.end(server.job(job.id), "SUCCESS", answered=1)
        run_sync(llm.delete_job(job.id))

        assert server.gone == [job.id]


def test_fireworks_has_cancelled_a_job_that_is_gone_while_its_input_is_there_and_no_other_one() -> None:
    with FireworksStandIn() as server:
        llm = llm_at(APIS["fireworks"], server)
        job = submitted(llm, 2)
        server.end(server.job(job.id), FireworksStandIn.first, answered=1)
        run_sync(llm.cancel_job(job.id))

        status = run_sync(llm.job_status(job.id))
        assert (status.state, status.status) == ("ended", "cancelled")
        assert set(results_of(llm, job.id)) == {"0"}
        run_sync(llm.delete_job(job.id))
        with pytest.raises(ModelNotFoundError):
            run_sync(llm.job_status(job.id))


@pytest.mark.parametrize("made_here", [True, False])
def test_fireworks_has_not_cancelled_a_new_job_that_is_not_found_yet(made_here: bool) -> None:
    with FireworksStandIn() as server:
        llm = llm_at(APIS["fireworks"], server)
        job = submitted(llm)
        if not made_here:
            llm = llm_at(APIS["fireworks"], server)
            server.files[job.id].fields["createTime"] = datetime.now(UTC).isoformat()
        server.gone.add(job.id)

        with pytest.raises(OverloadedError, match="isn't found, and may be yet"):
            run_sync(llm.job_status(job.id))
        with pytest.raises(OverloadedError, match="isn't found, and may be yet"):
            results_of(llm, job.id)
        server.gone.clear()
        assert run_sync(llm.job_status(job.id)).state == "waiting"


def test_an_old_job_at_fireworks_that_is_not_found_is_looked_for_again() -> None:
    with FireworksStandIn() as server:
        job = submitted(llm_at(APIS["fireworks"], server), 2)
        # To another process it's as old as the stand-in says.
        llm = llm_at(APIS["fireworks"], server)
        server.end(server.job(job.id), FireworksStandIn.first, answered=1)
        server.gone.add(job.id)

        assert run_sync(llm.job_status(job.id)).status == "cancelled"
        with pytest.raises(IncompleteResultsError, match="isn't found, while its dataset is there"):
            results_of(llm, job.id)
        server.gone.clear()
        with pytest.raises(IncompleteResultsError, match="is 'creating': a moment ago it wasn't found"):
            results_of(llm, job.id)


def test_a_job_at_fireworks_is_not_gone_where_its_dataset_cannot_be_asked_for() -> None:
    class Away(FireworksStandIn):
        def got(self, path: str, headers: Any) -> Any:
            return (503, b"", {}) if "/datasets/" in path else super().got(path, headers)

    with Away() as server:
        llm = llm_at(APIS["fireworks"], server)
        with pytest.raises(OverloadedError):
            run_sync(llm.job_status("stillflow-1"))


def test_inputs_of_a_job_at_fireworks_that_was_not_found_once_are_waited_for() -> None:
    chats: Any = [[{"role": "user", "content": f"number {number}"}] for number in range(2)]
    with FireworksStandIn() as server:
        made = llm_at(APIS["fireworks"], server)
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            made.generate_outputs(inputs=chats)
        llm = llm_at(APIS["fireworks"], server, jobs_ids=made.jobs_ids)
        (job,) = server.batches
        server.gone.add(job.id)
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            llm.generate_outputs(inputs=chats)
        assert llm._incomplete

        # What comes later is told from it.
        server.gone.clear()
        with pytest.raises(OfflineBatchGenerationNotFinishedError):
            llm.generate_outputs(inputs=chats)
        assert not llm._incomplete

        server.end(job, "JOB_STATE_COMPLETED", answered=2)
        assert [output["generations"] for output in llm.generate_outputs(inputs=chats)] == [["Fine."]] * 2


def test_fireworks_has_cancelled_a_new_job_that_this_process_told_to_stop() -> None:
    with FireworksStandIn() as server:
        llm = llm_at(APIS["fireworks"], server)
        job = submitted(llm)
        server.files[job.id].fields["createTime"] = datetime.now(UTC).isoformat()
        run_sync(llm.cancel_job(job.id))

        assert run_sync(llm.job_status(job.id)).status == "cancelled"


@pytest.mark.parametrize("name", ["fireworks", "together"])
def test_the_address_of_a_file_in_a_store_is_masked_as_long_as_it_is_used(name: str) -> None:
    api = APIS[name]
    used: dict[str, str] = {}

    class Noting(api.stand_in):
        def note(self, path: str) -> None:
            if "/store/" in path:
                used[f"{self.root}{path}"] = masked(f"{self.root}{path}")

        def got(self, path: str, headers: Any) -> Any:
            self.note(path)
            return super().got(path, headers)

        def put(self, path: str, headers: Any, content: bytes) -> Any:
            self.note(path)
            return super().put(path, headers, content)

    with Noting() as server:
        llm = llm_at(api, server)
        job = submitted(llm)
        server.end(server.job(job.id), api.done, answered=1)
        assert set(results_of(llm, job.id)) == {"0"}

    assert used and set(used.values()) == {MASK}
    # A process that reads many of them doesn't look for each in all that is written from then on.
    assert [masked(address) for address in used] == list(used)


def test_fireworks_takes_a_cancelled_job_that_left_nothing_for_one_without_answers() -> None:
    with FireworksStandIn() as server:
        llm = llm_at(APIS["fireworks"], server)
        job = submitted(llm)
        run_sync(llm.cancel_job(job.id))

        assert results_of(llm, job.id) == {}


def test_fireworks_makes_one_job_of_a_file_however_often_it_is_told_to() -> None:
    with FireworksStandIn() as server:
        llm = llm_at(APIS["fireworks"], server)
        with llm.job_writer() as writer:
            writer.add(llm.batch_request("0", [{"role": "user", "content": "hi"}], 1))
            (file,) = writer.rest()
            first, second = (run_sync(llm.create_job(file, {})) for _ in range(2))

        assert first.id == second.id
        assert len(server.batches) == len(server.files) == 1


def test_fireworks_batches_need_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FireworksLLM(model="m", api_key=SecretStr(KEY), use_offline_batch_generation=True)
    monkeypatch.delenv("FIREWORKS_ACCOUNT_ID", raising=False)
    with pytest.raises(AuthenticationError, match="set FIREWORKS_ACCOUNT_ID"):
        llm.load()

    monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "mine")
    llm.load()


def test_an_open_batch_at_openrouter_may_be_the_one_that_is_looked_for() -> None:
    with OpenRouterStandIn() as server:
        llm = llm_at(APIS["openrouter"], server)
        job = submitted(llm, 1, "a" * 32)
        with pytest.raises(UndecidedJobError, match=job.id):
            run_sync(llm.find_job("a" * 32, 0, {"requests": 1}))

        # One with another number of requests can't be it.
        assert run_sync(llm.find_job("a" * 32, 0, {"requests": 2})) is None


def test_a_batch_at_openrouter_goes_to_the_providers_that_may_answer() -> None:
    with OpenRouterStandIn() as server:
        job = submitted(llm_at(APIS["openrouter"], server, routing={"only": ["openai"]}))

        assert server.job(job.id).given["provider"] == {"only": ["openai"]}


def test_a_batch_at_openrouter_refuses_what_goes_online_alone_before_it_is_sent() -> None:
    with OpenRouterStandIn() as server:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        chat: Any = [{"role": "user", "content": [image]}]
        with pytest.raises(BadRequestError, match="images by their http address"):
            llm_at(APIS["openrouter"], server).batch_request("0", chat, 1)
        with pytest.raises(BadRequestError, match="got \\['sort'\\] too"):
            submitted(llm_at(APIS["openrouter"], server, routing={"sort": "price"}))

        assert server.batches == []


@pytest.mark.parametrize(
    ("schema", "routing", "told"),
    [
        (contract.SCHEMA, {}, 1),
        (contract.SCHEMA, {"allow_fallbacks": False}, 1),
        (contract.SCHEMA, {"only": ["openai"]}, 0),
        (None, {}, 0),
    ],
)
def test_that_no_provider_of_a_batch_at_openrouter_is_held_to_a_schema_is_told_before_it_is_sent(
    schema: Any, routing: dict[str, Any], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> int:
        return sum("takes no `require_parameters`" in record.getMessage() for record in caplog.records)

    class Noting(OpenRouterStandIn):
        told_before: int | None = None

        def create(self, given: dict[str, Any]) -> Any:
            self.told_before = said()
            return super().create(given)

    with Noting() as server, caplog.at_level(logging.WARNING, "llms.providers.openrouter"):
        submitted(llm_at(APIS["openrouter"], server, routing=routing, structured_output=schema), 2)

        assert server.told_before == said() == told


@pytest.mark.parametrize("extra", [{"provider": {"data_collection": "deny"}}, {"model": "another"}])
def test_a_batch_at_openrouter_refuses_another_provider_or_model_for_single_requests(extra: dict[str, Any]) -> None:
    with OpenRouterStandIn() as server:
        with pytest.raises(BadRequestError, match=r"is sent to one model and by one `routing`, got \['\w+'\] in"):
            submitted(llm_at(APIS["openrouter"], server, generation_kwargs={"extra_body": extra}))

        assert server.batches == []


@pytest.mark.parametrize("name", ["dashscope", "moonshot", "zai", "nebius"])
def test_a_line_holds_what_is_sent_online(name: str) -> None:
    adapter = ADAPTERS[name]
    with StandIn(adapter.wire) as server:
        for parameter in contract.known_parameters(adapter):
            given = {parameter: contract.sample(adapter, parameter)}
            server.asked.clear()
            contract.answered(adapter, server, given=(contract.CHAT, contract.SCHEMA), **given)
            llm: Any = adapter.at(server, use_offline_batch_generation=True, generation_kwargs=given)
            request = llm.batch_request("0", (contract.CHAT, contract.SCHEMA), 1)

            assert request.body == server.body, parameter
            assert json.loads(llm.batch_line(request))["body"] == server.body


def test_a_job_at_dashscope_is_found_by_its_file_where_lists_show_no_metadata() -> None:
    class Short(DashScopeStandIn):
        def listed(self, query: dict[str, str]) -> Any:
            page = super().listed(query)
            return {**page, "data": [{**each, "metadata": {}} for each in page["data"]]}

    with Short() as server:
        llm = llm_at(APIS["dashscope"], server)
        job = submitted(llm, 1, "a" * 32)
        submitted(llm, 1, "b" * 32, 1)

        found = run_sync(llm.find_job("a" * 32, 0, {}))
        assert found is not None
        assert found.id == job.id
        assert run_sync(llm.find_job("d" * 32, 0, {})) is None


def test_lines_that_a_job_at_dashscope_failed_for_cannot_be_read_and_are_missing() -> None:
    class Strict(DashScopeStandIn):
        def shown(self, job: Job) -> dict[str, Any]:
            errors = [{"code": "invalid_json_line", "message": "no JSON", "line": 1}] if job.failed else []
            return {**super().shown(job), "errors": {"object": "list", "data": errors}}

    with Strict() as server:
        llm = llm_at(APIS["dashscope"], server)
        job = submitted(llm, 2)
        server.job(job.id).status, server.job(job.id).failed = "failed", "no JSON"

        assert "no JSON (line 1)" in run_sync(llm.job_status(job.id)).message
        assert results_of(llm, job.id) == {}


def test_what_is_too_long_for_a_line_at_dashscope_is_refused_before_it_is_sent() -> None:
    llm = DashScopeLLM(model="m", api_key=SecretStr(KEY))

    llm.batch_request("0", [{"role": "user", "content": "x" * 5_900_000}], 1)
    with pytest.raises(BadRequestError, match="a request of 5,999,000 bytes at most, got one of 6,000,"):
        llm.batch_request("0", [{"role": "user", "content": "x" * 6_000_000}], 1)


def test_a_bare_prompt_has_no_place_in_a_batch_at_nebius() -> None:
    llm = NebiusLLM(model="m", api_key=SecretStr(KEY))

    with pytest.raises(BadRequestError, match="take chats, got a bare prompt"):
        llm.batch_request("0", "Once upon", 1)


def test_kimi_is_asked_for_one_answer_per_line() -> None:
    assert MoonshotLLM(model="m", api_key=SecretStr(KEY)).requests_per_input(3) == 3


def test_times_and_counts_of_a_job_at_zai_are_read_as_they_come() -> None:
    class Flat(ZAIStandIn):
        def shown(self, job: Job) -> dict[str, Any]:
            return {**super().shown(job), "request_counts": 3, "total": 3, "completed": 2, "failed": 1}

    with Flat() as server:
        llm = llm_at(APIS["zai"], server)
        status = run_sync(llm.job_status(submitted(llm, 3).id))

    assert (status.total, status.answered, status.refused) == (3, 2, 1)
    assert status.created == 1_700_000_000


@pytest.mark.parametrize("status", [200, 400, 429, None])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1302", RateLimitError),
        (1113, QuotaExceededError),
        ("1210", BadRequestError),
        ("1211", ModelNotFoundError),
        ("1234", OverloadedError),
        ("1261", ContextLengthError),
        ("1301", ContentFilterError),
        ("1002", AuthenticationError),
    ],
)
def test_a_code_of_zai_says_what_became_of_a_request_whatever_the_status_beside_it(
    code: str | int, kind: type[LLMError], status: int | None
) -> None:
    class Refusing(ZAIStandIn):
        def refused_line(self, line: dict[str, Any]) -> dict[str, Any]:
            response = {"status_code": status, "body": {"error": {"code": code, "message": "in words"}}}
            return {"response": response, "custom_id": line["custom_id"], "id": "batch_1"}

    with Refusing() as server:
        llm = llm_at(APIS["zai"], server)
        job = submitted(llm, 2)
        server.end(server.job(job.id), "completed", answered=1, refused=1)
        results = results_of(llm, job.id)

    assert isinstance(results["0"].outcome, dict)
    assert type(results["1"].outcome) is kind
    assert "in words" in str(results["1"].outcome)


def test_an_empty_account_at_zai_is_not_told_to_wait() -> None:
    class Empty(ZAIStandIn):
        def reply(self, path: str, headers: Any, content: bytes) -> Any:
            said = {"error": {"code": "1113", "message": "Insufficient balance or no resource package."}}
            return 429, json.dumps(said).encode(), {}

    with Empty() as server:
        with pytest.raises(QuotaExceededError, match="Insufficient balance"):
            ZAILLM(model="m", base_url=server.url, api_key=SecretStr(KEY)).generate_outputs(inputs=[contract.CHAT])
        with pytest.raises(QuotaExceededError, match="Insufficient balance"):
            submitted(llm_at(APIS["zai"], server))


@pytest.mark.parametrize("name", ["dashscope", "moonshot", "zai"])
def test_the_batches_of_a_region_are_at_its_address(name: str) -> None:
    kind: Any = APIS[name].kind

    one, other = (kind(model="m", api_key=SecretStr(KEY), region=region) for region in ("international", "china"))
    assert one.account != other.account
    assert one.batch_dialect() is other.batch_dialect() is dialect_of(one.url()) is dialect_of(other.url())
