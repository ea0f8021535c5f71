"""A secret that this process knows stands in nothing that is kept, logged or shown, in whichever form it's written."""

from __future__ import annotations

import base64
import html
import json
import logging
import traceback
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from llms import AnthropicLLM, AsyncLLM, AzureOpenAILLM, InferenceEndpointsLLM, OpenAILLM
from llms.base import LLM
from llms.batch import BatchResult, JobStatus
from llms.errors import AuthenticationError, BadRequestError, InvalidResponseError, KeptError, failure_of
from llms.parameters import short
from llms.secrets import (
    MASK,
    forget,
    is_secret_name,
    know,
    know_address,
    know_named,
    masked,
    masked_values,
    without_secrets,
)
from llms.typing import GenerateOutput
from tasks import SaveToDisk, TextGeneration
from tasks.steps import failure_in
from tests.echoing import EchoServer, all_forms_in, answer, refusal

KEY = "sk-proj-Planted/Key+0123456789=abcdefSECRET&more"
CHAT: Any = [{"role": "user", "content": "Who am I?"}]


@pytest.fixture(autouse=True)
def known() -> None:
    know(KEY)


FORMS = {
    "as it is": KEY,
    "in JSON": json.dumps({"key": KEY}),
    "in JSON in JSON": json.dumps(json.dumps({"key": KEY})),
    "as Python has it": repr({"key": KEY, "bytes": KEY.encode()}),
    "percent-encoded": urllib.parse.quote(KEY, safe=""),
    "as a path": urllib.parse.quote(KEY),
    "as a form": urllib.parse.urlencode({"api_key": KEY}),
    "percent-encoded in small letters": urllib.parse.quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "as HTML": html.escape(KEY),
    "in base64": base64.b64encode(KEY.encode()).decode(),
    "in basic authorization": "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode(),
    "in basic authorization, of another name": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode(),
    "in basic authorization, without a name": "Basic " + base64.b64encode(f":{KEY}".encode()).decode(),
    "in base64 for addresses": base64.urlsafe_b64encode(f"{KEY}:".encode()).decode(),
    "cut off": f"{KEY[:34]}...",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_secret_is_masked_in_every_form(form: str) -> None:
    said = masked(f"before {form} after")

    assert all_forms_in(said, KEY) == []
    assert said.startswith("before ")
    assert said.endswith(" after")


@pytest.mark.parametrize("secret", ["", " ", "x", "key", "none", "\n", "EMPTY", None, "ollama"])
def test_a_short_or_empty_secret_masks_nothing(secret: str | None) -> None:
    know(secret)
    know(SecretStr(secret or ""))

    text = "none of the keys is EMPTY, \n and ollama has no x key "
    assert masked(text) == text


def test_of_a_password_that_begins_like_a_word_the_word_stays() -> None:
    know("production-2031")

    assert masked("in production, by production-2031") == f"in production, by {MASK}"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    know("key-of-team-1")
    know("key-of-team-1-and-more")

    assert masked("a key-of-team-1-and-more, a key-of-team-1") == f"a {MASK}, a {MASK}"


def test_what_was_forgotten_is_no_secret_any_more_and_what_it_shared_with_others_still_is() -> None:
    know("signed-for-a-while")
    know("signed-for-a-while-and-more")
    know("1-kept-key-of-mine")
    forget("signed-for-a-while-and-more")
    forget("never-known-at-all")

    text = "1-kept-key-of-mine, signed-for-a-while-and-more, never-known-at-all"
    assert masked(text) == f"{MASK}, {MASK}-and-more, never-known-at-all"
    forget("signed-for-a-while")
    assert masked(text) == f"{MASK}, signed-for-a-while-and-more, never-known-at-all"


def test_what_many_threads_know_and_forget_at_once_is_known_and_forgotten() -> None:
    names = [f"{number:02d}-{turn:02d}-of-thread" for number in range(8) for turn in range(10)]

    def work(name: str) -> None:
        know(f"{name}-signed")
        know(f"{name[::-1]}-key")
        forget(f"{name}-signed")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, names))

    assert [masked(f"{name}-signed") for name in names] == [f"{name}-signed" for name in names]
    assert {masked(f"{name[::-1]}-key") for name in names} == {MASK}
    for name in names:
        forget(f"{name[::-1]}-key")


def test_secrets_in_headers_options_and_addresses_are_known_by_their_names() -> None:
    know_named(
        {
            "Authorization": "Bearer header-key-1",
            "x-api-key": "header-key-2",
            "Cookie": "session=header-key-3",
            "X-Title": "My application",
            "client": {"aws_secret_access_key": "storage-key-1", "region_name": "eu-central-1"},
            "SOME_PROVIDER_API_KEY": "variable-key-1",
            "max_tokens": 10,
        }
    )
    know_address("postgresql+asyncpg://prefect:password-1@db:5432/prefect")
    know_address("https://gateway.example/v1?api-key=query-key-1&version=2024-10-21")
    know_address("http://[broken")

    text = "header-key-1 header-key-2 session=header-key-3 storage-key-1 variable-key-1 password-1 query-key-1"
    assert masked(text) == " ".join([MASK] * 7)
    rest = "My application in eu-central-1, prefect@db, 2024-10-21"
    assert masked(rest) == rest


def test_a_secret_field_is_known_as_soon_as_its_model_is_made() -> None:
    OpenAILLM(model="m", api_key=SecretStr("field-of-an-llm"), default_headers={"X-Key": "header-of-an-llm"})
    SaveToDisk(path="s3://bucket/x", storage_options={"key": "AKIA", "secret": "option-of-a-saver"})
    OpenAILLM(model="m", base_url="https://me:word-in-an-address@gateway.example/v1")

    assert masked("field-of-an-llm header-of-an-llm option-of-a-saver word-in-an-address") == " ".join([MASK] * 4)


def test_errors_quotations_and_answers_have_no_secrets() -> None:
    assert str(BadRequestError(f"wrong: {KEY}")) == f"wrong: {MASK}"
    assert failure_of(ValueError(f"wrong: {KEY}"))["message"] == f"wrong: {MASK}"
    old = KeptError({"type": "X", "message": f"kept before it was masked: {KEY}", "retryable": False})
    assert failure_of(old)["message"] == f"kept before it was masked: {MASK}"
    # A quotation ends in the middle of the key.
    assert KEY[:8] not in short({"x" * 80: KEY})
    assert JobStatus("j", "failed", "failed", message=f"wrong: {KEY}").message == f"wrong: {MASK}"
    output: Any = {"generations": [KEY, None], "statistics": {"input_tokens": [1]}, "embeddings": [[0.5]]}
    outcome: Any = BatchResult("id", output).outcome
    assert outcome == {**output, "generations": [MASK, None]}
    assert masked_values(outcome) is outcome


def test_an_error_of_any_kind_is_without_secrets_and_its_causes_too() -> None:
    try:
        try:
            raise KeyError(KEY)
        except KeyError as cause:
            raise ValueError(f"wrong: {KEY}", 3) from cause
    except ValueError as error:
        shown = without_secrets(error)
        assert shown is error
        assert KEY not in "".join(traceback.format_exception(shown))

    class Own(Exception):
        def __str__(self) -> str:
            return f"own: {KEY}"

    assert str(without_secrets(Own())) == f"Own: own: {MASK}"


def test_no_log_line_holds_a_secret_whoever_writes_it(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("a.library.of.others")

    logger.warning("sent %s to %s", {"Authorization": f"Bearer {KEY}"}, "https://gateway.example")
    try:
        raise ValueError(f"Illegal header value {KEY}")
    except ValueError:
        logger.exception("it failed")

    assert KEY not in caplog.text
    assert "https://gateway.example" in caplog.text
    assert f"ValueError: Illegal header value {MASK}" in caplog.text


WORDS = (
    "Authentication Error, Invalid proxy server token passed. Received API Key = {key}. Also as {url} and Basic"
    " {basic}, beginning with {half}"
)


def adapters(url: str) -> list[AsyncLLM]:
    key: dict[str, Any] = {"api_key": SecretStr(KEY), "max_retries": 0}
    return [
        OpenAILLM(model="m", base_url=f"{url}/v1", **key),
        AnthropicLLM(model="claude", base_url=url, **key),
        AzureOpenAILLM(model="m", base_url=url, **key),
        AzureOpenAILLM(model="m", base_url=url, api_version="2024-10-21", **key),
        InferenceEndpointsLLM(base_url=f"{url}/v1", **key),
    ]


@pytest.mark.parametrize("place", range(5))
def test_a_provider_that_repeats_the_key_in_a_refusal_gets_it_into_no_row(
    place: int, caplog: pytest.LogCaptureFixture
) -> None:
    with EchoServer(refusal(WORDS)) as server:
        llm = adapters(server.url)[place]
        task = TextGeneration(llm=llm)
        task.load()
        (rows,) = task.process([{"instruction": "Who am I?"}])

    assert server.keys[-1] == KEY
    failure = failure_in(rows[0])
    assert failure is not None
    assert "Received API Key = ***" in failure["message"]
    assert all_forms_in(json.dumps(rows), KEY) == []
    assert KEY not in caplog.text


@pytest.mark.parametrize("content", [f"Bad key {KEY}", "x" * 470 + KEY], ids=["short", "cut off"])
@pytest.mark.parametrize("place", range(5))
def test_nor_does_one_that_refuses_in_plain_text(place: int, content: str) -> None:
    with EchoServer(lambda key, body: (400, content.encode())) as server:
        (output,) = adapters(server.url)[place].generate_outputs([CHAT])

    problem = output.get("error")
    assert problem is not None
    assert all_forms_in(problem["message"], KEY) == []


@pytest.mark.parametrize("place", range(5))
def test_nor_does_one_that_answers_with_it(place: int) -> None:
    with EchoServer(answer) as server:
        (output,) = adapters(server.url)[place].generate_outputs([CHAT])

    assert output["generations"] == [f"You are {MASK}, aren't you?"]


def test_nor_does_one_whose_answer_is_none_and_is_quoted() -> None:
    with EchoServer(lambda key, body: (200, {"choices": [], "debug": f"{'x' * 70} {key}"})) as server:
        (output,) = OpenAILLM(model="m", base_url=server.url, api_key=SecretStr(KEY), max_retries=0).generate_outputs(
            [CHAT]
        )

    problem = output.get("error")
    assert problem is not None
    assert problem["type"] == InvalidResponseError.__name__
    assert all_forms_in(problem["message"], KEY) == []


class OwnLLM(LLM):
    """One of a user's own, whose client tells too much."""

    token: SecretStr

    @property
    def model_name(self) -> str:
        return "own"

    def generate(self, inputs: list[Any], num_generations: int = 1, **kwargs: Any) -> list[GenerateOutput]:
        raise RuntimeError(f"401 for https://own.example?token={self.token.get_secret_value()}")


def test_the_secret_fields_of_an_own_llm_are_masked_too() -> None:
    (rows,) = TextGeneration(llm=OwnLLM(token=SecretStr("own-secret-of-mine"))).process([{"instruction": "Hi."}])

    failure = failure_in(rows[0])
    assert failure is not None
    assert failure["message"] == f"401 for https://own.example?token={MASK}"


@pytest.mark.parametrize("key", [f"{KEY}\n", f"  {KEY}\r\n", f"{KEY}\t"])
def test_white_space_around_a_key_isnt_sent(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with EchoServer(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        OpenAILLM(model="m").generate_outputs([CHAT])
        OpenAILLM(model="m", api_key=SecretStr(key)).generate_outputs([CHAT])

    assert server.keys == [KEY, KEY]


@pytest.mark.parametrize("key", ["sk-first-half\nsk-second-half", "sk-kéy-with-an-accent", "sk-a-key-with\x00-in-it"])
def test_what_no_header_can_carry_is_refused_without_showing_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\0" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(AuthenticationError, match="the key in OPENAI_API_KEY holds a line break or another"):
            OpenAILLM(model="m").load()
    with pytest.raises(AuthenticationError, match="the key in api_key holds") as caught:
        AnthropicLLM(model="m", api_key=SecretStr(key)).load()
    assert key[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("AWS_BEARER_TOKEN_BEDROCK", True), ("x-goog-api-key", True), ("AWS_REGION", False), ("CO_API_URL", False)],
)
def test_the_names_of_secrets_at_the_clouds_are_known(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
