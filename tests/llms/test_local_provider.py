"""The local provider over a real socket, with OpenAI's own client."""

import asyncio
import base64
import json
import math
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

from llms.local_provider import ApiError, FaultRule, LocalProvider
from tests.conftest import LONGEST, free_port

SPAIN = [{"role": "user", "content": "What's the capital of Spain?"}]
FRANCE = [{"role": "user", "content": "Which river crosses Paris, the capital of France?"}]


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalProvider]:
    with LocalProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: LocalProvider) -> LocalProvider:
    shared.reset()
    return shared


@pytest.fixture
def client(provider: LocalProvider) -> Iterator[OpenAI]:
    with client_of(provider) as made:
        yield made


def client_of(provider: LocalProvider, key: str = "any") -> OpenAI:
    return OpenAI(base_url=provider.base_url, api_key=key, max_retries=0, timeout=LONGEST)


def ask(client: OpenAI, messages: list = SPAIN, **options: object):
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": messages, **options})


def text_of(answer) -> str:
    return answer.choices[0].message.content


def raw_post(provider: LocalProvider, path: str, data: bytes) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(provider.base_url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


class TestChat:
    def test_says_that_it_is_not_a_model(self, client: OpenAI) -> None:
        answer = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SPAIN)
        assert answer.headers["x-local-provider"] == "1"
        assert answer.parse().system_fingerprint == "local-provider"

    def test_equal_requests_get_equal_answers_and_others_other_answers(self, client: OpenAI) -> None:
        first = text_of(ask(client))
        assert first == text_of(ask(client))
        assert "Spain" in first
        assert (
            len({first, text_of(ask(client, FRANCE)), text_of(ask(client, model="x")), text_of(ask(client, seed=1))})
            == 4
        )

    def test_choices_differ_by_index_except_at_temperature_zero(self, client: OpenAI) -> None:
        warm, cold = ask(client, n=3), ask(client, n=3, temperature=0)
        assert len({choice.message.content for choice in warm.choices}) == 3
        assert len({choice.message.content for choice in cold.choices}) == 1
        assert [choice.index for choice in warm.choices] == [0, 1, 2]

    def test_max_tokens_cuts_and_says_so(self, client: OpenAI) -> None:
        cut = ask(client, max_tokens=5)
        assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 5)
        assert text_of(ask(client)).startswith(text_of(cut))
        assert ask(client).choices[0].finish_reason == "stop"

    def test_stop_sequences_end_the_answer_before_them(self, client: OpenAI) -> None:
        whole = text_of(ask(client))
        assert text_of(ask(client, stop=["Spain"])) == whole[: whole.index("Spain")]

    @pytest.mark.parametrize("model", ["o1", "o3-mini", "o4-mini", "gpt-5-mini"])
    def test_reasoning_models_refuse_max_tokens_as_openai_does(self, client: OpenAI, model: str) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, model=model, max_tokens=5)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "max_tokens")
        assert "max_completion_tokens" in caught.value.message
        assert ask(client, model=model, max_completion_tokens=5).choices[0].finish_reason == "length"

    def test_content_parts_with_pictures_are_read(self, client: OpenAI) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        parts = [{"type": "text", "text": "Describe the windmill"}, picture]
        assert "indmill" in text_of(ask(client, [{"role": "user", "content": parts}]))

    def test_logprobs_come_per_token_and_join_to_the_text(self, client: OpenAI) -> None:
        choice = ask(client, logprobs=True, top_logprobs=2).choices[0]
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content)

    def test_a_stream_brings_the_same_text_and_usage(self, client: OpenAI) -> None:
        chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        whole = ask(client)
        assert "".join(pieces) == text_of(whole)
        assert chunks[-1].usage == whole.usage
        assert chunks[-2].choices[0].finish_reason == "stop"

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
            ({"n": 0}, "n"),
            ({"temperature": 3}, "temperature"),
            ({"max_tokens": "5"}, "max_tokens"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"response_format": {"type": "xml"}}, "response_format"),
            ({"tool_choice": "required"}, "tool_choice"),
        ],
    )
    def test_wrong_requests_are_refused_by_name(self, client: OpenAI, change: dict, param: str) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **{"messages": SPAIN, **change})
        assert caught.value.param == param

    def test_a_body_that_is_no_json_gets_400(self, provider: LocalProvider) -> None:
        assert raw_post(provider, "/chat/completions", b"{")[0] == 400


class TestStructuredOutput:
    SCHEMA = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "rating": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["city", "rating"],
        "additionalProperties": False,
    }

    def described(self, **changes: object) -> dict:
        return {"type": "json_schema", "json_schema": {"name": "city", "schema": self.SCHEMA, **changes}}

    def test_answers_fit_the_schema(self, client: OpenAI) -> None:
        for choice in ask(client, n=5, response_format=self.described(strict=True)).choices:
            answer = json.loads(choice.message.content)
            assert answer.keys() == {"city", "rating"}
            assert 1 <= answer["rating"] <= 5

    def test_strict_refuses_an_open_object(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="additionalProperties"):
            ask(client, response_format=self.described(strict=True, schema={"type": "object", "properties": {}}))

    def test_a_schema_without_an_instance_is_refused(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="points to nothing"):
            ask(client, response_format=self.described(schema={"$ref": "#/$defs/nowhere"}))

    def test_json_object_needs_the_word_json(self, client: OpenAI) -> None:
        wanted = {"type": "json_object"}
        with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
            ask(client, response_format=wanted)
        answer = ask(client, [{"role": "user", "content": "Answer in JSON"}], response_format=wanted)
        assert isinstance(json.loads(text_of(answer)), dict)

    def test_max_tokens_cuts_json_too(self, client: OpenAI) -> None:
        cut = ask(client, response_format=self.described(), max_tokens=3)
        assert cut.choices[0].finish_reason == "length"
        with pytest.raises(json.JSONDecodeError):
            json.loads(text_of(cut))

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_forced_tool_is_called_with_fitting_arguments(self, client: OpenAI, stream: bool) -> None:
        tools = [{"type": "function", "function": {"name": "rate", "parameters": self.SCHEMA}}]
        choice = {"type": "function", "function": {"name": "rate"}}
        answer = ask(client, tools=tools, tool_choice=choice, stream=stream)
        if stream:
            calls = [chunk.choices[0].delta.tool_calls[0] for chunk in answer if chunk.choices[0].delta.tool_calls]
            name, arguments = calls[0].function.name, "".join(call.function.arguments for call in calls)
        else:
            call = answer.choices[0].message.tool_calls[0]
            name, arguments = call.function.name, call.function.arguments
        assert (name, json.loads(arguments).keys()) == ("rate", {"city", "rating"})
        assert ask(client, tools=tools, tool_choice="required").choices[0].finish_reason == "tool_calls"
        assert ask(client, tools=tools, tool_choice="auto").choices[0].message.tool_calls is None


class TestOrderedAnswers:
    def test_the_first_matching_rule_answers_with_its_template_filled(
        self, provider: LocalProvider, client: OpenAI
    ) -> None:
        rules = [
            {"match": "capital of (?P<country>\\w+)", "answer": "{country}: choice {n} of {model}"},
            {"match": "judge", "on": "system", "answer": ["Rating: 1", "Rating: 5"]},
        ]
        provider.set(answers=rules)
        assert [choice.message.content for choice in ask(client, n=2).choices] == [
            "Spain: choice 0 of gpt-4o",
            "Spain: choice 1 of gpt-4o",
        ]
        judged = ask(client, [{"role": "system", "content": "You judge."}, {"role": "user", "content": "x"}], n=3)
        assert [choice.message.content for choice in judged.choices] == ["Rating: 1", "Rating: 5", "Rating: 1"]
        assert "Rating" not in text_of(ask(client, [{"role": "user", "content": "judge"}]))

    def test_a_mapping_is_short_for_rules_on_the_user(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(answers={"Spain": "Madrid {not a field}"})
        assert text_of(ask(client)) == "Madrid {not a field}"

    def test_json_requests_take_only_ordered_objects(self, provider: LocalProvider, client: OpenAI) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}
        provider.set(answers={"Spain": "Madrid"})
        assert isinstance(json.loads(text_of(ask(client, response_format=wanted))), int)
        provider.set(answers={"Spain": '{"city": "Madrid"}'})
        assert json.loads(text_of(ask(client, response_format=wanted))) == {"city": "Madrid"}


class TestOtherModels:
    def test_completions_answer_every_prompt_n_times(self, client: OpenAI) -> None:
        made = client.completions.create(model="gpt-4", prompt=["The river", "The bridge"], n=2, echo=True, logprobs=1)
        assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
        assert made.choices[3].text.startswith("The bridge")
        assert made.choices[0].finish_reason == "length"
        assert made.usage.completion_tokens == 4 * 16
        assert "".join(made.choices[0].logprobs.tokens) == made.choices[0].text

    def test_embeddings_are_unit_vectors_that_depend_on_the_text(self, client: OpenAI) -> None:
        made = client.embeddings.create(model="text-embedding-3-small", input=["a", "b", "a"], dimensions=64)
        a, b, again = (entry.embedding for entry in made.data)
        assert a == again != b
        assert math.isclose(math.hypot(*a), 1, abs_tol=1e-5)
        plain = client.embeddings.create(
            model="text-embedding-3-small", input="a", dimensions=64, encoding_format="float"
        )
        assert plain.data[0].embedding == pytest.approx(a)
        assert (
            len(client.embeddings.create(model="text-embedding-3-large", input=[[1, 2, 3]]).data[0].embedding) == 3072
        )

    def test_pictures_are_valid_png_decided_by_the_prompt(self, client: OpenAI) -> None:
        def picture(prompt: str) -> bytes:
            made = client.images.generate(prompt=prompt, model="gpt-image-1")
            return base64.b64decode(made.data[0].b64_json)

        image = pytest.importorskip("PIL.Image")
        import io

        assert image.open(io.BytesIO(picture("a mill"))).convert("RGB").size == (16, 16)
        assert picture("a mill") == picture("a mill") != picture("a bridge")

    def test_a_picture_by_address_can_be_fetched(self, client: OpenAI) -> None:
        made = client.images.generate(prompt="a mill", model="dall-e-3", response_format="url")
        with urllib.request.urlopen(made.data[0].url) as answer:
            assert answer.read().startswith(b"\x89PNG")

    def test_models_are_listed_and_unknown_ones_not_found(self, provider: LocalProvider, client: OpenAI) -> None:
        assert client.models.retrieve("anything").id == "anything"
        provider.set(models=["mine"])
        assert [model.id for model in client.models.list()] == ["mine"]
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client)
        assert caught.value.code == "model_not_found"

    def test_paths_work_without_v1_and_unknown_ones_get_404(self, provider: LocalProvider) -> None:
        body = json.dumps({"model": "gpt-4o", "messages": SPAIN}).encode()
        short = urllib.request.Request(provider.base_url.removesuffix("/v1") + "/chat/completions", body)
        with urllib.request.urlopen(short) as answer:
            assert json.loads(answer.read())["object"] == "chat.completion"
        assert raw_post(provider, "/nowhere", b"{}")[0] == 404

    def test_azure_clients_find_their_paths(self, provider: LocalProvider) -> None:
        provider.set(api_key="right")
        origin = provider.base_url.removesuffix("/v1")
        with AzureOpenAI(azure_endpoint=origin, api_key="right", api_version="2024-10-21", max_retries=0) as client:
            assert text_of(ask(client))
            assert client.files.list().data == []
        assert provider.stats.count("/chat/completions", 200) == 1


class TestFaults:
    def test_another_key_gets_401_and_is_never_recorded(self, provider: LocalProvider) -> None:
        provider.set(api_key="right")
        with client_of(provider, "wrong-key-1234") as wrong, pytest.raises(openai.AuthenticationError) as caught:
            ask(wrong)
        assert caught.value.code == "invalid_api_key"
        with client_of(provider, "right") as right:
            assert text_of(ask(right))
        assert "authorization" not in str(provider.requests)
        assert [seen.status for seen in provider.requests] == [401, 200]

    def test_a_provider_that_is_down_answers_503_but_obeys(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(up=False)
        with pytest.raises(openai.InternalServerError) as caught:
            client.models.list()
        assert caught.value.status_code == 503
        provider.set(up=True)
        assert text_of(ask(client))

    def test_latency_is_waited(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(latency=(0.1, 0.15))
        started = time.perf_counter()
        ask(client)
        assert time.perf_counter() - started >= 0.1

    def test_more_than_max_concurrency_gets_429_with_both_headers(self, provider: LocalProvider) -> None:
        provider.set(latency=LONGEST, max_concurrency=3, concurrency_retry_after=0.25)

        async def all_at_once() -> list[BaseException | None]:
            """What became of those that were answered while the others were under way."""
            async with AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0, timeout=LONGEST) as client:
                ask = client.chat.completions.create
                calls = [asyncio.create_task(ask(model="gpt-4o", messages=SPAIN)) for _ in range(8)]
                left = set(calls)
                while len(left) > 3:
                    _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                stats = provider.stats
                assert (stats.refused, stats.max_in_flight, stats.in_flight) == (5, 3, 3)
                for call in left:
                    call.cancel()
                await asyncio.wait(left)
                return [call.exception() for call in calls if not call.cancelled()]

        ended = asyncio.run(all_at_once())
        assert len(ended) == 5
        for refused in ended:
            assert isinstance(refused, openai.RateLimitError)
            assert refused.response.headers["retry-after"] == "1"
            assert refused.response.headers["retry-after-ms"] == "250"
        _wait_until(lambda: provider.stats.in_flight == 0)

    def test_requests_over_the_budget_get_429_and_every_answer_tells_the_rest(
        self, provider: LocalProvider, client: OpenAI
    ) -> None:
        provider.set(requests_per_minute=1, burst_seconds=120, tokens_per_minute=100_000)
        headers = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=SPAIN).headers
        assert headers["x-ratelimit-limit-requests"] == "1"
        assert headers["x-ratelimit-remaining-requests"] == "1"
        assert "x-ratelimit-reset-tokens" in headers
        ask(client)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 60_000
        assert caught.value.type == "requests"

    def test_tokens_over_the_budget_get_429(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(tokens_per_minute=600)
        ask(client, max_tokens=590)
        with pytest.raises(openai.RateLimitError, match="tokens per min"):
            ask(client, max_tokens=590)

    def test_a_rule_fails_the_ordered_matches_only(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(
            faults=[
                FaultRule(match="Spain", after=1, times=2, status=400, message="No.", code="context_length_exceeded")
            ]
        )
        ask(client)
        for _ in range(2):
            ask(client, FRANCE)
            with pytest.raises(openai.BadRequestError) as caught:
                ask(client)
            assert caught.value.code == "context_length_exceeded"
        assert text_of(ask(client))

    def test_a_chance_is_drawn_the_same_from_the_same_seed(self, provider: LocalProvider) -> None:
        def pattern() -> list[int]:
            provider.clear()
            provider.set(faults=[{"probability": 0.5, "status": 500, "path": "/chat"}])
            for _ in range(20):
                raw_post(provider, "/chat/completions", json.dumps({"model": "m", "messages": SPAIN}).encode())
            return [seen.status for seen in provider.requests]

        first = pattern()
        assert set(first) == {200, 500}
        assert pattern() == first

    def test_a_429_carries_its_retry_after(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(faults=[{"status": 429, "retry_after": 0.3, "code": "insufficient_quota", "times": 1}])
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert caught.value.response.headers["retry-after-ms"] == "300"
        assert caught.value.code == "insufficient_quota"

    @pytest.mark.parametrize("how", ["not-json", "truncated-json", "empty", "html"])
    def test_spoiled_bodies_are_no_json(self, provider: LocalProvider, how: str) -> None:
        provider.set(faults=[{"malformed": how}])
        status, headers, body = raw_post(
            provider, "/chat/completions", json.dumps({"model": "m", "messages": SPAIN}).encode()
        )
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert status == 200
        assert headers["Content-Type"] == ("text/html" if how == "html" else "application/json")

    def test_spoiled_answers_lack_what_was_ordered(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(faults=[{"malformed": "missing-choices"}])
        assert ask(client).choices is None
        provider.set(faults=[{"malformed": "null-content"}])
        assert text_of(ask(client)) is None
        provider.set(faults=[{"malformed": "content-filter"}])
        assert ask(client).choices[0].finish_reason == "content_filter"
        provider.set(faults=[{"malformed": "refusal"}])
        assert ask(client).choices[0].message.refusal

    def test_a_cut_connection_is_an_error_of_the_connection(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(faults=[{"disconnect": True, "times": 1}])
        with pytest.raises(openai.APIConnectionError):
            ask(client)
        assert text_of(ask(client))
        assert [seen.status for seen in provider.requests] == [0, 200]

    def test_a_hanging_answer_times_the_client_out_and_frees_its_place(self, provider: LocalProvider) -> None:
        provider.set(faults=[{"hang": 30, "times": 1}])
        with client_of(provider) as client, pytest.raises(openai.APITimeoutError):
            ask(client, timeout=0.1)
        _wait_until(lambda: [seen.status for seen in provider.requests] == [499])
        _wait_until(lambda: provider.stats.in_flight == 0)

    def test_faults_reach_files_and_batches_too(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(faults=[{"path": "/files", "status": 500, "times": 1}])
        with pytest.raises(openai.InternalServerError):
            client.files.create(file=("x.jsonl", b"{}\n"), purpose="batch")
        assert client.files.create(file=("x.jsonl", b"{}\n"), purpose="batch").bytes == 3


def _wait_until(holds, seconds: float = LONGEST) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.01)


class TestControl:
    def test_requests_are_seen_with_their_parsed_body_until_cleared(
        self, provider: LocalProvider, client: OpenAI
    ) -> None:
        ask(client, temperature=0)
        (seen,) = provider.requests
        assert (seen.method, seen.path, seen.status) == ("POST", "/chat/completions", 200)
        assert seen.body == {"model": "gpt-4o", "messages": SPAIN, "temperature": 0}
        assert seen.started <= seen.finished
        provider.clear()
        assert provider.requests == []
        assert provider.stats.count() == 0

    def test_the_ring_keeps_the_latest(self, provider: LocalProvider, client: OpenAI) -> None:
        provider.set(recorded_requests=2)
        for number in range(4):
            ask(client, seed=number)
        assert [seen.body["seed"] for seen in provider.requests] == [2, 3]

    def test_the_same_over_http(self, provider: LocalProvider, client: OpenAI) -> None:
        control = provider.base_url.replace("/v1", "/_local")
        ask(client)

        async def walk() -> None:
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{control}/requests?clear=1") as answer:
                    assert (await answer.json())["requests"][0]["path"] == "/chat/completions"
                async with session.get(f"{control}/stats") as answer:
                    assert (await answer.json())["paths"] == {}
                async with session.post(f"{control}/options", json={"latency": 0.01}) as answer:
                    assert (await answer.json())["latency"] == 0.01
                async with session.post(f"{control}/options", json={"latancy": 1}) as answer:
                    assert answer.status == 400
                async with session.post(f"{control}/reset") as answer:
                    assert answer.status == 200

        asyncio.run(walk())
        assert provider.options.latency == 0

    def test_a_wrong_option_is_refused_and_changes_nothing(self, provider: LocalProvider) -> None:
        with pytest.raises(ApiError, match="max_concurrency"):
            provider.set(max_concurrency=0, latency=9)
        with pytest.raises(ApiError, match="no regular expression"):
            provider.set(faults=[{"match": "("}])
        assert provider.options.latency == 0

    def test_stop_closes_the_socket_and_start_opens_it_on_the_same_port(self) -> None:
        with LocalProvider(port=free_port(), latency=0.0) as provider, client_of(provider) as client:
            address = provider.base_url
            ask(client)
            provider.stop()
            with pytest.raises(openai.APIConnectionError):
                ask(client)
            assert len(provider.requests) == 1
            provider.start()
            assert provider.base_url == address
            assert text_of(ask(client))
            assert provider.stats.count(status=200) == 2

    def test_nobody_else_gets_the_port_of_one_that_is_stopped_until_it_is_closed(self) -> None:
        place = ("127.0.0.1", free_port())
        with LocalProvider(port=place[1]) as provider:
            # Without any connection before: one that has just ended keeps others out as well.
            for _ in range(2):
                provider.stop()
                with socket.socket() as other, pytest.raises(OSError, match="in use"):
                    other.bind(place)
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(place)
                provider.start()
            provider.stop()
        with socket.socket() as other:
            other.bind(place)

    def test_stop_cuts_requests_in_flight(self) -> None:
        async def call(provider: LocalProvider) -> None:
            async with AsyncOpenAI(base_url=provider.base_url, api_key="x", max_retries=0) as client:
                pending = asyncio.create_task(client.chat.completions.create(model="m", messages=SPAIN))
                while not provider.stats.in_flight:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(provider.stop)
                with pytest.raises(openai.APIConnectionError):
                    await pending

        with LocalProvider(latency=30) as provider:
            asyncio.run(call(provider))

    def test_a_provider_in_a_process_of_its_own_has_the_same_handle(self) -> None:
        with LocalProvider.spawn(answers={"Spain": "Madrid"}) as provider, client_of(provider) as client:
            assert text_of(ask(client)) == "Madrid"
            provider.set(faults=[FaultRule(status=400)])
            with pytest.raises(openai.BadRequestError):
                ask(client)
            assert [seen.status for seen in provider.requests] == [200, 400]
            with pytest.raises(ApiError, match="seed"):
                provider.set(seed="x")
