"""Azure OpenAI's adapter against a server on a real socket, which knows Azure's paths."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from llms import AuthenticationError, AzureOpenAILLM, ConnectionFailedError, OpenAILLM
from llms.batch import MARK, JobStatus
from llms.errors import QueueFullError
from llms.local_provider import LocalProvider
from llms.loop import run_sync
from llms.providers.azure import _token_provider
from llms.registry import LLM_VARIANTS

CHAT: Any = [{"role": "user", "content": "What's the capital of Spain?"}]
DATED = "2024-10-21"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    with LocalProvider(batch_manual=True, api_key="azure-key") as running:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", running.base_url.removesuffix("/v1"))
        yield running


@pytest.fixture
def key(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")


def azure_llm(**fields: Any) -> AzureOpenAILLM:
    llm = AzureOpenAILLM(**{"model": "my-gpt", **fields})
    llm.load()
    return llm


def submitted(llm: AzureOpenAILLM, metadata: dict[str, str] | None = None) -> JobStatus:
    with llm.job_writer() as writer:
        writer.add(llm.batch_request("first", CHAT, 1))
        (file,) = writer.rest()
        return run_sync(llm.create_job(file, metadata or {}))


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("version", "url"),
    [
        ("", "/openai/v1/chat/completions"),
        ("preview", "/openai/v1/chat/completions?api-version=preview"),
        (DATED, f"/openai/deployments/my-gpt/chat/completions?api-version={DATED}"),
    ],
)
def test_a_chat_goes_to_the_deployment_by_the_version_of_the_api(
    provider: LocalProvider, version: str, url: str
) -> None:
    (output,) = azure_llm(api_version=version).generate_outputs(inputs=[CHAT])

    assert output["generations"][0]
    assert provider.requests[-1].url == url


@pytest.mark.usefixtures("key")
def test_the_version_comes_from_the_environment_and_is_part_of_the_identity(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = azure_llm().identity()
    monkeypatch.setenv("OPENAI_API_VERSION", DATED)

    assert azure_llm().url() == f"{provider.base_url.removesuffix('/v1')}/openai"
    assert azure_llm().identity() == {**without, "base_url": azure_llm().url(), "api_version": DATED}


@pytest.mark.parametrize("given", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
def test_the_endpoint_may_be_given_with_or_without_its_path(given: str) -> None:
    llm = AzureOpenAILLM(model="m", base_url=f"https://r.openai.azure.com{given}")

    assert llm.url() == "https://r.openai.azure.com/openai/v1"
    llm.api_version = DATED
    assert llm.url() == "https://r.openai.azure.com/openai"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("version", "path", "expires"),
    [
        ("", "/v1/chat/completions", True),
        ("2025-03-01-preview", "/chat/completions", True),
        (DATED, "/chat/completions", False),
    ],
)
def test_a_batch_job_lives_on_azure_from_its_upload_to_its_end(
    provider: LocalProvider, version: str, path: str, expires: bool
) -> None:
    llm = azure_llm(api_version=version)
    job = submitted(llm, {MARK: "mine"})

    created = next(each for each in provider.requests if (each.method, each.path) == ("POST", "/batches"))
    assert created.body["endpoint"] == path
    assert ("output_expires_after" in created.body) is expires
    assert run_sync(llm.find_job("mine", job.created - 60, {})) is not None
    provider.end_batch(job.id)
    assert run_sync(llm.job_status(job.id)).state == "ended"
    (result,) = run_sync(_all(llm, job.id))
    assert result.custom_id == "first"
    assert result.outcome["generations"][0]
    prefix = "/openai/v1/" if not version else "/openai/"
    assert all(each.url.startswith(prefix) and "deployments" not in each.url for each in provider.requests)
    assert all((f"api-version={version}" in each.url) is bool(version) for each in provider.requests)


async def _all(llm: OpenAILLM, job_id: str) -> list[Any]:
    return [each async for each in llm.job_results(job_id)]


@pytest.mark.usefixtures("key")
def test_a_job_over_the_quota_that_is_refused_at_once_tells_that_the_queue_is_full(provider: LocalProvider) -> None:
    said = "Enqueued token limit reached. Limit: 90,000 enqueued tokens."
    provider.set(faults=[{"path": "/batches", "status": 400, "code": "token_limit_exceeded", "message": said}])

    with pytest.raises(QueueFullError, match="Enqueued token limit") as raised:
        submitted(azure_llm())

    assert raised.value.limit == 90_000
    assert [(each.method, each.path.split("/")[1]) for each in provider.requests][-1] == ("DELETE", "files")


def test_a_job_takes_100_000_requests() -> None:
    assert AzureOpenAILLM.batch_limits.requests == 100_000


@pytest.mark.usefixtures("key")
def test_what_the_content_filter_refuses_is_told_as_such(provider: LocalProvider) -> None:
    said = "The response was filtered due to the prompt triggering the content management policy."
    provider.set(faults=[{"path": "/chat", "status": 400, "code": "content_filter", "message": said}])

    (output,) = azure_llm(api_version=DATED).generate_outputs(inputs=[CHAT])

    assert output["error"]["type"] == "ContentFilterError"


def test_a_missing_endpoint_is_told_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)

    with pytest.raises(ConnectionFailedError, match=r"has no endpoint: set AZURE_OPENAI_ENDPOINT"):
        AzureOpenAILLM(model="m").load()


@pytest.mark.usefixtures("provider")
def test_a_missing_key_is_told_at_load_with_all_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.providers.azure._has_azure_identity", lambda: False)

    with pytest.raises(AuthenticationError, match=r"set AZURE_OPENAI_API_KEY, .*-m pip install 'azure-identity>="):
        AzureOpenAILLM(model="m").load()


@pytest.mark.parametrize("version", ["", DATED])
def test_without_a_key_a_token_of_entra_id_is_sent(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    scopes = sign_in_gives("azure-key", monkeypatch)

    outputs = azure_llm(api_version=version).generate_outputs(inputs=[CHAT] * 30)

    assert all(output["generations"][0] for output in outputs)
    assert scopes == ["https://cognitiveservices.azure.com/.default"]
    assert provider.stats.count("/chat/completions", 200) == 30


def test_a_failed_sign_in_says_why(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in_gives(None, monkeypatch)

    with pytest.raises(AuthenticationError, match="can't sign in with Entra ID: no managed identity here"):
        azure_llm().generate_outputs(inputs=[CHAT])
    assert provider.requests == []


def sign_in_gives(token: str | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a stand-in with the two names that are used in place of `azure.identity`. Returns the scopes asked for."""
    package: Any = ModuleType("azure.identity")
    asked: list[str] = []

    def get_bearer_token_provider(credential: object, *scopes: str) -> Any:
        asked.extend(scopes)

        one_at_a_time = threading.Lock()

        def token_or_error() -> str:
            if token is None:
                raise RuntimeError("no managed identity here")
            assert one_at_a_time.acquire(blocking=False)
            time.sleep(0.01)
            one_at_a_time.release()
            return token

        return token_or_error

    package.DefaultAzureCredential = object
    package.get_bearer_token_provider = get_bearer_token_provider
    monkeypatch.setitem(sys.modules, "azure", ModuleType("azure"))
    monkeypatch.setitem(sys.modules, "azure.identity", package)
    monkeypatch.setattr("llms.providers.azure._has_azure_identity", lambda: True)
    monkeypatch.setattr("llms.providers.azure._token_provider", cache(_token_provider.__wrapped__))
    return asked


# Forms


def test_a_form_with_a_default_on_azure_keeps_the_tab_of_openai_and_shows_its_own_first() -> None:
    variants = LLM_VARIANTS.special(AzureOpenAILLM(model="mine"), "x")

    assert [tab.form_title for tab in variants.tabs()][:2] == ["Azure OpenAI", "OpenAI or compatible"]


@pytest.mark.parametrize("llm", [AzureOpenAILLM(model="m"), OpenAILLM(model="m")])
def test_the_values_of_one_share_most_keys_with_its_own_tab(llm: OpenAILLM) -> None:
    """By which Prefect's form chooses the tab."""
    keys = set(LLM_VARIANTS.write(llm))
    shared = {
        tab.form_title: len(keys & set(tab.model_json_schema()["properties"])) for tab in (OpenAILLM, AzureOpenAILLM)
    }

    assert max(shared, key=lambda title: shared[title]) == type(llm).form_title
    assert len(set(shared.values())) == 2
