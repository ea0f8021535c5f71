"""Vertex AI: who is signed in, where requests go, and what may not have a token."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from llms import AuthenticationError, VertexAILLM
from llms.errors import BadRequestError, ConnectionFailedError
from llms.extras import MissingPackageError
from llms.loop import run_sync
from llms.parameters import ParameterError
from llms.providers.vertexai import read_result
from tests.conftest import free_port
from tests.llms.batch_wires import TOKEN, VertexStandIn, service_account
from tests.llms.wires import KEY

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_VERTEX_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # No machine of Google Cloud is asked who it is.
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def server() -> Iterator[VertexStandIn]:
    with VertexStandIn() as running:
        yield running


def test_a_service_account_is_signed_in_once_and_says_the_project(server: VertexStandIn) -> None:
    outputs = VertexAILLM(model="m", base_url=server.root).generate_outputs(inputs=[CHAT] * 5)

    assert [output["generations"] for output in outputs] == [["Fine."]] * 5
    assert server.logins == 1


def test_a_token_is_masked() -> None:
    from llms.secrets import masked

    with VertexStandIn() as server:
        VertexAILLM(model="m", base_url=server.root).generate_outputs(inputs=[CHAT])

    assert masked(f"it was {TOKEN}") == "it was ***"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("", "https://aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
    ],
)
def test_a_location_has_an_address_of_its_own(location: str, url: str) -> None:
    assert VertexAILLM(model="m", location=location).url() == url


def test_a_location_that_came_as_data_leads_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        VertexAILLM(model="m", location="evil.example/#")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "evil.example/#")
    with pytest.raises(BadRequestError, match="holds no location"):
        VertexAILLM(model="m").url()


def test_no_token_goes_to_an_address_that_came_with_a_runs_parameters(server: VertexStandIn) -> None:
    llm = VertexAILLM.model_validate({"model": "m", "project": "p", "base_url": "https://vertex.example"})

    with pytest.raises(AuthenticationError, match="isn't sent to https://vertex.example"):
        llm.load()
    with pytest.raises(AuthenticationError, match="isn't sent to https://vertex.example"):
        llm.generate_outputs(inputs=[CHAT])
    assert server.logins == 0


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:f"),
        ("meta/llama-4", "/v1beta1/projects/p/locations/global/publishers/meta/models/llama-4:f"),
        ("publishers/google/models/g", "/v1beta1/projects/p/locations/global/publishers/google/models/g:f"),
        ("projects/q/locations/us-central1/endpoints/7", "/v1beta1/projects/q/locations/us-central1/endpoints/7:f"),
    ],
)
def test_a_model_is_where_its_name_says(model: str, path: str) -> None:
    assert run_sync(VertexAILLM(model=model, project="p").path_to("f")) == path


def test_a_key_goes_to_the_express_mode_unless_a_project_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)

    assert VertexAILLM(model="m").key_headers() == {"x-goog-api-key": KEY}
    assert VertexAILLM(model="m", project="p").key_headers() == {}
    assert VertexAILLM(model="m", project="p", api_key=SecretStr(KEY)).key_headers() == {"x-goog-api-key": KEY}


def test_the_project_and_the_bucket_are_no_part_of_the_question() -> None:
    one = VertexAILLM(model="m", project="p", bucket="gs://rows")

    assert one.identity() == VertexAILLM(model="m").identity()
    assert one.addressee() != VertexAILLM(model="m", location="eu").addressee()


def test_who_can_not_sign_in_is_told_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))

    with pytest.raises(AuthenticationError, match="gcloud auth application-default login"):
        VertexAILLM(model="m", project="p").generate_outputs(inputs=[CHAT])


def test_where_tokens_come_from_is_waited_for_when_it_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    account = tmp_path / "account.json"
    account.write_text(json.dumps(service_account(f"http://127.0.0.1:{free_port()}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    llm = VertexAILLM(model="m", project="p", outage_timeout=0, max_retries=0)

    with pytest.raises(ConnectionFailedError, match="can't reach the server that signs in to Google Cloud"):
        llm.generate_outputs(inputs=[CHAT])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)

    with pytest.raises(MissingPackageError, match="VertexAILLM needs google"):
        VertexAILLM(model="m", project="p").load()


def test_batches_need_a_bucket_and_a_login(server: VertexStandIn) -> None:
    with pytest.raises(BadRequestError, match="give `bucket`"):
        VertexAILLM(model="m", use_offline_batch_generation=True).load()
    llm = VertexAILLM(model="m", api_key=SecretStr(KEY), bucket="rows", use_offline_batch_generation=True)
    with pytest.raises(BadRequestError, match="express mode has no batches"):
        llm.generate_outputs(inputs=[CHAT])


def test_a_bucket_of_another_name_than_it_can_have_is_refused() -> None:
    with pytest.raises(ParameterError, match="bucket"):
        VertexAILLM(model="m").merged({"bucket": "gs://rows/../o?x="})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("", "InvalidResponseError"),
        ("Bad Request: no such field", "BadRequestError"),
        ('Error: {"error": {"code": 429, "message": "quota"}}', "RateLimitError"),
        ("Internal error encountered.", "OverloadedError"),
    ],
)
def test_a_line_without_an_answer_says_why(status: str, kind: str) -> None:
    line = {"request": {"labels": {"stillflow": "k_000000000000"}}, "status": status, "response": {}}
    result = read_result(json.dumps(line).encode(), "m")

    assert result is not None
    assert (result.custom_id, result.mark, type(result.outcome).__name__) == ("k", "000000000000", kind)
