"""What Bedrock has beside what all adapters keep to: signatures, regions, blocks, errors of AWS, idempotent jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from llms import AuthenticationError, BedrockLLM
from llms.batch import MARK, JobFile
from llms.errors import BadRequestError, ConnectionFailedError, ExpiredError, LLMError
from llms.extras import MissingPackageError
from llms.loop import run_sync
from llms.providers import aws
from llms.providers.bedrock import as_completion, body_of, split_system, status_from
from llms.providers.openai import CHAT as COMPLETION
from llms.providers.openai import parse_answer
from llms.secrets import masked
from tests.conftest import free_port
from tests.llms.batch_wires import SECRET, BedrockStandIn, Reply
from tests.llms.wires import BEDROCK, KEY, Fault, StandIn

CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]
REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    aws._session.cache_clear()  # pyright: ignore[reportPrivateUsage] -- who was signed in for an earlier test


@pytest.fixture
def server() -> Iterator[BedrockStandIn]:
    with BedrockStandIn() as running:
        yield running


def test_requests_are_signed_by_the_credentials_that_are_found(server: BedrockStandIn) -> None:
    (output,) = BedrockLLM(model="m", region=REGION, base_url=server.root).generate_outputs(inputs=[CHAT])

    assert output["generations"] == ["Fine."]
    assert masked(f"it was {SECRET}") == "it was ***"


def test_the_address_of_a_profile_s_arn_is_signed_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"

    class ByArn(BedrockStandIn):
        def reply(self, path: str, headers: Any, content: bytes) -> Reply:
            assert path == f"/model/{arn.replace('/', '%2F')}/converse"
            assert headers["X-Amz-Security-Token"] == "token-of-a-session"
            return self.unsigned("POST", path, headers, content) or self.said(self.wire.answer({}, self.saying))

    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-a-session")
    with ByArn() as server:
        (output,) = BedrockLLM(model=arn, region=REGION, base_url=server.root).generate_outputs(inputs=[CHAT])

    assert output["generations"] == ["Fine."]


def test_a_signature_that_is_of_something_else_stops_the_run(server: BedrockStandIn) -> None:
    server._environment.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-than-the-accounts")  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(AuthenticationError, match="InvalidSignatureException"):
        BedrockLLM(model="m", region=REGION, base_url=server.root, profile="").generate_outputs(inputs=[CHAT])


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ("cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_region_has_an_address_of_its_own(region: str, url: str) -> None:
    assert BedrockLLM(model="m", region=region).url() == url


def test_the_region_comes_from_the_environment_and_from_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert BedrockLLM(model="m").url() == ""
    with pytest.raises(ConnectionFailedError, match="set AWS_REGION"):
        BedrockLLM(model="m").load()
    with pytest.raises(ConnectionFailedError, match="set AWS_REGION"):
        BedrockLLM(model="m", api_key=SecretStr(KEY), outage_timeout=0, max_retries=0).generate_outputs(inputs=[CHAT])
    (tmp_path / "config").write_text("[profile rows]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert BedrockLLM(model="m", profile="rows").url() == "https://bedrock-runtime.eu-west-3.amazonaws.com"
    with pytest.raises(AuthenticationError, match="nobody"):
        BedrockLLM(model="m", profile="nobody").load()
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert BedrockLLM(model="m").url() == "https://bedrock-runtime.eu-west-1.amazonaws.com"


def test_a_region_that_came_as_data_leads_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        BedrockLLM(model="m", region="evil.example/#")
    monkeypatch.setenv("AWS_REGION", "evil.example/#")
    assert BedrockLLM(model="m").url() == ""


def test_nothing_is_signed_for_an_address_that_came_with_a_runs_parameters(server: BedrockStandIn) -> None:
    llm = BedrockLLM.model_validate({"model": "m", "region": REGION, "base_url": "https://bedrock.example"})

    with pytest.raises(AuthenticationError, match="isn't sent to https://bedrock.example"):
        llm.load()
    with pytest.raises(AuthenticationError, match="isn't sent to https://bedrock.example"):
        llm.generate_outputs(inputs=[CHAT])


def test_a_gateways_key_goes_to_no_job_at_aws() -> None:
    llm = BedrockLLM(model="m", region=REGION, base_url="https://gateway.example", api_key=SecretStr(KEY))

    with pytest.raises(AuthenticationError, match=r"isn't sent to https://bedrock\.eu-central-1"):
        run_sync(llm.job_status("arn:aws:bedrock:eu-central-1:1:model-invocation-job/j"))


def test_where_a_role_is_taken_is_waited_for_when_it_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    keys = "aws_access_key_id = AKIA\naws_secret_access_key = none\n"
    role = "[profile role]\nsource_profile = base\nrole_arn = arn:aws:iam::123456789012:role/rows\n"
    (tmp_path / "config").write_text(f"[profile base]\n{keys}{role}region = {REGION}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    llm = BedrockLLM(model="m", region=REGION, profile="role", outage_timeout=0, max_retries=0)

    with pytest.raises(ConnectionFailedError, match="can't reach the server that signs in to AWS"):
        llm.generate_outputs(inputs=[CHAT])


def test_a_configuration_that_cant_be_read_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "config").write_text("[profile rows\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    with pytest.raises(AuthenticationError, match="can't read AWS's configuration"):
        BedrockLLM(model="m", profile="rows").load()


def test_without_credentials_or_the_package_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationError, match="set AWS_BEARER_TOKEN_BEDROCK"):
        BedrockLLM(model="m", region=REGION, profile="").load()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    aws._session.cache_clear()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(MissingPackageError, match="BedrockLLM needs botocore"):
        BedrockLLM(model="m", region=REGION).load()


def test_messages_are_blocks_and_neighbours_of_one_role_are_one() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    stored = {"type": "image_url", "image_url": {"url": "s3://bucket/a.jpg"}}

    system, messages = split_system(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Here:"}, image, stored]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
            {"role": "user", "content": "So?"},
        ]
    )

    assert system == ["Be brief."]
    assert messages == [
        {
            "role": "user",
            "content": [
                {"text": "Here:"},
                {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
                {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.jpg"}}}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "c", "name": "weather", "input": {"city": "Madrid"}}}],
        },
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "sunny"}]}}, {"text": "So?"}],
        },
    ]
    with pytest.raises(BadRequestError, match="takes images as"):
        split_system(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.com/a.png"}}]}]
        )


def test_parameters_are_where_the_api_looks_for_them() -> None:
    keywords = {
        "additional_fields": {"top_k": 5},
        "service_tier": "flex",
        "latency": "optimized",
        "reasoning_effort": "low",
        "extra_body": {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
    }

    assert body_of(CHAT, keywords) == {
        "messages": [{"role": "user", "content": [{"text": "Tell me about the sea."}]}],
        "outputConfig": {"effort": "low"},
        "additionalModelRequestFields": {"top_k": 5},
        "serviceTier": {"type": "flex"},
        "performanceConfig": {"latency": "optimized"},
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
    }


def test_thoughts_that_are_hidden_and_nothing_else_are_no_answer() -> None:
    content = [{"reasoningContent": {"redactedContent": "AAAA"}}]
    answer = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn"}

    with pytest.raises(LLMError, match="thought and wrote no text"):
        parse_answer(as_completion(answer), COMPLETION)


def test_tokens_of_the_cache_are_a_part_of_the_prompt_and_the_tier_is_the_answers() -> None:
    counts = {"inputTokens": 10, "outputTokens": 2, "cacheReadInputTokens": 60, "cacheWriteInputTokens": 30}
    message = {"role": "assistant", "content": [{"text": "Fine."}]}
    answer = {"output": {"message": message}, "usage": counts, "serviceTier": {"type": "flex"}}

    assert parse_answer(as_completion(answer), COMPLETION).get("usage") == [
        {"input_tokens": 100, "output_tokens": 2, "cached_tokens": 60, "cache_write_tokens": 30, "tier": "flex"}
    ]


@pytest.mark.parametrize("status", [408, 424, 429])
def test_a_model_that_failed_or_is_not_ready_is_asked_again(status: int) -> None:
    with StandIn(BEDROCK) as server:
        server.faults = [Fault(status, "The model errored while processing.")]
        llm = BedrockLLM(model="m", region=REGION, base_url=server.root, api_key=SecretStr(KEY))
        (output,) = llm.generate_outputs(inputs=[CHAT])

    assert output["generations"] == ["Fine."]


def test_credentials_that_ran_out_stop_the_run_though_they_come_as_a_bad_request() -> None:
    with StandIn(BEDROCK) as server:
        said = b'{"message": "The security token included in the request is expired"}'
        server.always = Fault(400, content=said, headers={"x-amzn-ErrorType": "ExpiredTokenException:http://x/"})
        llm = BedrockLLM(model="m", region=REGION, base_url=server.root, api_key=SecretStr(KEY))
        with pytest.raises(AuthenticationError, match="is expired"):
            llm.generate_outputs(inputs=[CHAT])


def test_a_quota_that_comes_as_a_bad_request_is_waited_for() -> None:
    headers = {"x-amzn-ErrorType": "ServiceQuotaExceededException"}
    error = BedrockLLM(model="m", region=REGION).refusal(400, headers, b'{"message": "too many jobs"}')

    assert error.retryable
    assert "too many jobs" in str(error)


def file_for(llm: BedrockLLM, writer: Any) -> JobFile:
    writer.add(llm.batch_request("0", CHAT, 1))
    (file,) = writer.rest()
    return file


def test_the_same_intent_twice_is_one_job(server: BedrockStandIn) -> None:
    given: dict[str, Any] = server.fields
    llm = BedrockLLM(model="m", base_url=server.root, **given)
    with llm.job_writer() as writer:
        file = file_for(llm, writer)
        first, second = (run_sync(llm.create_job(file, {MARK: "a" * 32})) for _ in range(2))

    assert first.id == second.id
    assert len(server.batches) == 1


def test_a_job_that_never_began_may_be_submitted_again() -> None:
    expired = status_from({"jobArn": "arn", "status": "Expired", "message": "no capacity"})

    assert expired.state == "failed"
    assert isinstance(expired.error, ExpiredError)
    assert expired.error.retryable


def test_batches_need_a_bucket_and_a_role() -> None:
    with pytest.raises(BadRequestError, match="give `bucket`"):
        BedrockLLM(model="m", region=REGION, bucket="s3://rows", use_offline_batch_generation=True).load()


def test_the_profile_and_the_bucket_are_no_part_of_the_question() -> None:
    one = BedrockLLM(model="m", region=REGION, bucket="s3://rows", role_arn="arn", profile="")

    assert one.identity() == BedrockLLM(model="m", region=REGION).identity()
    assert one.addressee() != BedrockLLM(model="m", region="us-east-1").addressee()
