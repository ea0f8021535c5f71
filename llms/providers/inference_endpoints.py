"""Hugging Face: a model behind Inference Providers, an Inference Endpoint, or any server like it.

Chats go by OpenAI's protocol, which the router
(https://huggingface.co/docs/inference-providers/tasks/chat-completion) and today's servers speak. Bare
prompts go by that of Text Generation Inference
(https://huggingface.co/docs/text-generation-inference/reference/api_reference).

`huggingface_hub` finds the key and the endpoint. The requests are sent without its client, which turns a
JSON schema for a server's address into `json_object` with a value: only TGI heeds that, vLLM and SGLang
answer with any JSON at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import orjson
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from llms.base import TOKEN_LIMIT, AsyncLLM, side_by_side, split_input
from llms.credentials import BoundKey, clean_key, may_have_keys
from llms.endings import MORE_TOKENS, NO_TOKENS_LEFT, TGI, end_of, mark
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    EmptyAnswerError,
    InvalidResponseError,
    LLMError,
    error_for_status,
)
from llms.http import (
    json_object,
    logprobs_in,
    new_session,
    paid_object,
    plain_refusal,
    request_errors,
    trusted_certificates,
)
from llms.loop import PerLoop
from llms.parameters import Unasked, short
from llms.providers.openai import CHAT, parse_answer, response_format
from llms.providers.parameters import (
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.reading import count_in, list_in, number_in, object_in, seconds_to_wait
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, PriceSource, Usage
from llms.usage import token_counts

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from huggingface_hub import InferenceEndpoint

CHAT_ONLY = frozenset({"presence_penalty", "logit_bias", "extra_body"})
TEXT_ONLY = frozenset(
    {"top_k", "repetition_penalty", "typical_p", "do_sample", "return_full_text", "watermark", "truncation"}
)
NAMES_IN_CHATS = {"max_new_tokens": "max_tokens"}
NAMES_IN_TEXTS = {"truncation": "truncate", "top_logprobs": "top_n_tokens"}
HOSTS_OF_HUGGING_FACE = ("huggingface.co", "huggingface.cloud", "hf.space")
PROVIDER_PRICES = "https://router.huggingface.co"
"""With a provider's name behind it: where the router itself would send requests to that provider."""
ANY_MODEL = "tgi"
STARTING = frozenset({"pending", "initializing", "updating", "scaledToZero"})


@dataclass(frozen=True)
class Server:
    """Where requests go, under which model name, and with which key."""

    url: str
    model: str
    key: SecretStr | None


class InferenceEndpointsLLM(BoundKey, AsyncLLM):
    """A model on Hugging Face's infrastructure: exactly one of `model_id`, `endpoint_name` and `base_url`.

    Example:
        >>> llm = InferenceEndpointsLLM(model_id="meta-llama/Llama-3.3-70B-Instruct")
        >>> llm.model_name
        'meta-llama/Llama-3.3-70B-Instruct'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("HF_TOKEN",)
    router_url: ClassVar[str] = "https://router.huggingface.co/v1"

    form_title = "Hugging Face"
    form_first = ("model_id", "credentials", "generation_kwargs")
    form_more = ("endpoint_namespace", "model_display_name", "timeout", "start_timeout")

    provider: Annotated[Literal["inference-endpoints"], Field(title="Provider")] = "inference-endpoints"  # pyright: ignore[reportIncompatibleVariableOverride]
    model_id: Annotated[
        str | None, Field(title="Model", description="On the Hub, answered by Inference Providers.")
    ] = None
    inference_provider: Annotated[
        str,
        Field(title="Inference provider", description="Its name, or auto, fastest or cheapest. With a model only."),
    ] = "auto"
    endpoint_name: Annotated[str | None, Field(title="Endpoint", description="An Inference Endpoint, by its name.")] = (
        None
    )
    endpoint_namespace: Annotated[
        str | None, Field(title="Endpoint's namespace", description="User or organisation. Empty: the key's user.")
    ] = None
    base_url: Annotated[
        str | None, Field(title="Address", description="Of an endpoint or of another TGI, vLLM or SGLang server.")
    ] = None
    model_display_name: Annotated[
        str | None, Field(title="Name in the rows", description="Empty: the model, the endpoint or the address.")
    ] = None
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: HF_TOKEN or `hf auth login`."),
        Unasked(),
    ] = None
    api_key: Annotated[
        SecretStr | None,
        Field(exclude=True, description="The key itself; better by `credentials` or environment."),
        Unasked(),
    ] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 120.0
    start_timeout: Annotated[
        int, Field(ge=0, title="Start timeout", description="Seconds to wait for an endpoint that starts."), Unasked()
    ] = 900

    _server: Server | None = PrivateAttr(default=None)
    _sessions: PerLoop[ClientSession] = PrivateAttr(default_factory=PerLoop)
    _wants_grammar: bool = PrivateAttr(default=False)

    @model_validator(mode="before")
    @classmethod
    def _read_model_as_model_id(cls, data: Any) -> Any:
        """`model` is how distilabel's guide has it."""
        if not (isinstance(data, Mapping) and "model" in data):
            return cast("Any", data)
        given = dict(cast("Mapping[str, Any]", data))
        return {"model_id": given.pop("model"), **given}

    @model_validator(mode="after")
    def _check_there_is_one_place(self) -> Self:
        given = [name for name in ("model_id", "endpoint_name", "base_url") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of model_id (Inference Providers), endpoint_name and base_url,"
                f" got {' and '.join(given) or 'none'} (an empty text counts as not given)"
            )
        if self.base_url and urlsplit(self.base_url).scheme not in {"http", "https"}:
            raise ValueError(f"base_url has to begin with http:// or https://, got {self.base_url!r}")
        return self

    @property
    def model_name(self) -> str:
        return self.model_display_name or self._place()

    @property
    def limit_key(self) -> Hashable:
        key = self._server.key.get_secret_value() if self._server and self._server.key else None
        return (self.provider, self._place(), self.inference_provider, self.endpoint_namespace, hash(key))

    def load(self) -> None:
        """Find the key and the server; wait for an endpoint that starts.

        Raises:
            AuthenticationError: there's no key.
            LLMError: the endpoint doesn't exist, stands still, or doesn't start in time.
        """
        self._server = self._find_server()

    def price_source(self) -> PriceSource | None:
        """That of the provider, where one is named. An endpoint is paid by the hour."""
        if self.base_url:
            return PriceSource(self.base_url, self._server.model if self._server else "")
        if self.model_id is None or self.inference_provider in {"auto", "fastest", "cheapest"}:
            return None
        return PriceSource(f"{PROVIDER_PRICES}/{self.inference_provider}", self.model_id)

    def addressee(self) -> dict[str, Any]:
        place = {"model": self.model_id, "endpoint": self.endpoint_name, "url": self.base_url}
        more = {"inference_provider": self.inference_provider, "namespace": self.endpoint_namespace}
        return self.service_at(service=self.provider, **place, **more)

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        # The keywords are the body's fields, and the same whatever the server turns out to be.
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        keywords.pop(TOKEN_LIMIT, None)
        return [prompt, keywords, num_generations]

    def token_limit(self) -> int | None:
        return self.generation_kwargs.get(TOKEN_LIMIT)

    def _place(self) -> str:
        return self.model_id or self.endpoint_name or self.base_url or ""

    def _find_server(self) -> Server:
        if self.base_url:
            key = self._key(self.base_url)
            return Server(self.base_url, served_model(self.base_url, key), key)
        key = self._key(self.router_url)
        if key is None:
            raise AuthenticationError(
                f"{type(self).__name__} for {self._place()!r} has no key: set {' or '.join(self.key_variables)}, log in"
                " with `hf auth login`, or name a credentials block in `credentials`"
            )
        if self.endpoint_name:
            url = self._endpoint_url(self.endpoint_name, key)
            return Server(url, served_model(url, key), key)
        chosen = "" if self.inference_provider == "auto" else f":{self.inference_provider}"
        return Server(self.router_url, f"{self.model_id}{chosen}", key)

    def _key(self, url: str) -> SecretStr | None:
        """The key. That of a login goes to Hugging Face only, not to any server."""
        key = self.bound_key(url)
        if key is not None or not is_of_hugging_face(url):
            return key
        from huggingface_hub import get_token

        token = get_token()
        if not token or may_have_keys(url, self.own_addresses()):
            return clean_key(SecretStr(token), "the login of `hf auth login`") if token else None
        return self.withheld(url)

    def own_addresses(self) -> tuple[str, ...]:
        return (self.router_url, "https://huggingface.co")

    def _endpoint_url(self, name: str, key: SecretStr) -> str:
        import httpx2
        from huggingface_hub import get_inference_endpoint
        from huggingface_hub.errors import HfHubHTTPError, InferenceEndpointError

        try:
            token = key.get_secret_value()
            endpoint = get_inference_endpoint(name, namespace=self.endpoint_namespace, token=token)
            if state_of(endpoint) in STARTING:
                wake(endpoint, token)
                endpoint.wait(timeout=self.start_timeout)
        except InferenceEndpointError as error:
            raise LLMError(f"endpoint {name!r} didn't start (start_timeout={self.start_timeout}): {error}") from None
        except HfHubHTTPError as error:
            said = error.server_message or str(error).strip()
            raise error_for_status(error.response.status_code, f"endpoint {name!r}: {said}") from None
        except httpx2.HTTPError as error:
            raise ConnectionFailedError(f"can't look up endpoint {name!r}: {type(error).__name__}: {error}") from None
        if endpoint.url is None or state_of(endpoint) != "running":
            raise LLMError(
                f"endpoint {name!r} is {state_of(endpoint)!r}: start it at https://endpoints.huggingface.co"
                " (it costs from then on), or name another one"
            )
        return endpoint.url

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: Annotated[
            float | None, Field(ge=-2, le=2, description="Against words used before. Chats only.")
        ] = None,
        seed: Annotated[int | None, Field(description="For repeatable answers; counted on for further ones.")] = None,
        stop: Stop = None,
        stop_sequences: Annotated[list[str] | None, Field(description="The same, by distilabel's name.")] = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        logit_bias: Annotated[
            dict[str, float] | None, Field(description="Token id to what is added to its logit. Chats only.")
        ] = None,
        top_k: Annotated[int | None, Field(ge=1, description="Sample from so many tokens. Bare prompts only.")] = None,
        repetition_penalty: Annotated[float | None, Field(gt=0, description="1: none. Bare prompts only.")] = None,
        typical_p: Annotated[
            float | None, Field(gt=0, le=1, description="Typical decoding. Bare prompts only.")
        ] = None,
        do_sample: Annotated[bool, Field(description="Sample at all. Bare prompts only.")] = False,
        return_full_text: Annotated[bool, Field(description="With the prompt. Bare prompts only.")] = False,
        watermark: Annotated[bool, Field(description="Mark the text as made up. Bare prompts only.")] = False,
        truncation: Annotated[
            int | None, Field(ge=1, description="Cut the prompt to so many tokens. Bare prompts only.")
        ] = None,
        extra_body: Annotated[
            dict[str, Any] | None, Field(description="Further fields of the request's body. Chats only.")
        ] = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt, with one request per generation.

        Raises:
            LLMError: one of its kinds, by the server's answer.
        """
        given = keywords_in(locals())
        wanted = {name: value for name, value in given.items() if value is not None and value is not False}
        if "stop_sequences" in wanted:
            wanted["stop"] = [*as_list(wanted.get("stop")), *wanted.pop("stop_sequences")]
        seeds = [{} if seed is None else {"seed": seed + number} for number in range(num_generations)]
        await self._load_once()
        return await side_by_side(self._answer(input, {**wanted, **each}) for each in seeds)

    async def _answer(self, given: FormattedInput, wanted: Mapping[str, Any]) -> GenerateOutput:
        if isinstance(given, str):
            return await self._answer_text(given, wanted)
        return await self._answer_chat(cast("list[Any]", given), wanted)

    async def _answer_chat(self, chat: list[Any], wanted: Mapping[str, Any]) -> GenerateOutput:
        refuse(TEXT_ONLY, wanted, "a chat", "a bare prompt (or in extra_body, where the server takes it)")
        server = self._found_server()
        wants_grammar = self._wants_grammar
        try:
            answer, _ = await self._post(chat_url(server.url), self._chat_body(chat, wanted))
            return parse_answer(answer, CHAT)
        except BadRequestError as error:
            # TGI before 3.3.5: https://github.com/huggingface/text-generation-inference/pull/3276
            if wants_grammar or "missing field `value`" not in str(error):
                raise
            self._wants_grammar = True
            return await self._answer_chat(chat, wanted)

    def _chat_body(self, chat: list[Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        body = {NAMES_IN_CHATS.get(name, name): value for name, value in wanted.items()}
        extra = cast("dict[str, Any]", body.pop("extra_body", {}))
        if (schema := body.pop("structured_output", None)) is not None:
            grammar = {"type": "json_object", "value": schema}
            body["response_format"] = grammar if self._wants_grammar else response_format(schema)
        return {"model": self._found_server().model, "messages": chat, **body, **extra}

    async def _answer_text(self, prompt: str, wanted: Mapping[str, Any]) -> GenerateOutput:
        refuse(CHAT_ONLY, wanted, "a bare prompt", "a chat")
        if self.model_id:
            raise BadRequestError(
                f"Inference Providers take chats, got a bare prompt for model_id={self.model_id!r};"
                " give a chat, or deploy the model and give endpoint_name or base_url"
            )
        parameters = {NAMES_IN_TEXTS.get(name, name): value for name, value in wanted.items() if name != "logprobs"}
        if "stop" in parameters:
            parameters["stop"] = as_list(parameters["stop"])
        if (schema := parameters.pop("structured_output", None)) is not None:
            parameters["grammar"] = {"type": "json", "value": schema}
        body = {"inputs": prompt, "parameters": {**parameters, "details": True}, "stream": False}
        answer, headers = await self._post(text_url(self._found_server().url), body)
        return parse_text(answer, headers, with_logprobs=bool(wanted.get("logprobs")))

    async def _load_once(self) -> None:
        """Load it where its user didn't. Requests that come meanwhile wait for the same load."""
        if self._server is None:
            loads = _loads.setdefault(asyncio.get_running_loop(), {})
            load = loads.get(id(self))
            if load is None:
                load = loads[id(self)] = asyncio.ensure_future(asyncio.to_thread(self.load))
                load.add_done_callback(lambda _: loads.pop(id(self)))
            await asyncio.shield(load)

    def _found_server(self) -> Server:
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} isn't loaded; call load() first")
        return self._server

    async def _post(self, url: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The answer and its headers."""
        session = self._sessions.get(self._new_session)
        with request_errors(url, self.timeout):
            async with session.post(url, data=orjson.dumps(body)) as response:
                content = await response.read()
        if response.status >= 400:
            raise error_from(response.status, response.headers, content)
        return paid_object(content), response.headers

    def _new_session(self) -> ClientSession:
        server = self._found_server()
        return new_session(server.url, key_header(server.key), self.timeout)


_loads: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, asyncio.Future[None]]] = WeakKeyDictionary()
"""Those under way on each event loop, by the model: as long as one is, no other model has its id."""


def as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def refuse(names: frozenset[str], wanted: Mapping[str, Any], kind: str, other: str) -> None:
    """Raise BadRequestError where a parameter doesn't go with this kind of prompt."""
    wrong = sorted(names & set(wanted))
    if wrong:
        raise BadRequestError(f"{', '.join(wrong)}: not for {kind}, only for {other}")


def is_of_hugging_face(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return any(host == own or host.endswith(f".{own}") for own in HOSTS_OF_HUGGING_FACE)


def key_header(key: SecretStr | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}


def chat_url(url: str) -> str:
    """The address of chats: below /v1, whether or not `url` ends with it."""
    root = url.rstrip("/")
    if root.endswith("/chat/completions"):
        return root
    return f"{root}/chat/completions" if root.endswith("/v1") else f"{root}/v1/chat/completions"


def text_url(url: str) -> str:
    """The address of bare prompts: the server's root."""
    return f"{chat_url(url).removesuffix('/v1/chat/completions')}/"


def served_model(url: str, key: SecretStr | None) -> str:
    """The model that a server lists first. TGI takes any name, others only their own."""
    import httpx2

    try:
        listed = chat_url(url).replace("/chat/completions", "/models")
        response = httpx2.get(listed, headers=key_header(key), timeout=10, verify=trusted_certificates())
        return str(response.json()["data"][0]["id"])
    except (httpx2.HTTPError, ValueError, LookupError, TypeError):
        return ANY_MODEL


def state_of(endpoint: InferenceEndpoint) -> str:
    """As the API names it. `huggingface_hub` declares an enum there and gives plain text."""
    return str(getattr(endpoint.status, "value", endpoint.status))


def wake(endpoint: InferenceEndpoint, token: str) -> None:
    """An endpoint that was scaled to zero starts at the first request that comes in."""
    import httpx2

    if endpoint.url is not None:
        with contextlib.suppress(httpx2.HTTPError):
            headers = {"Authorization": f"Bearer {token}"}
            httpx2.get(endpoint.url, headers=headers, timeout=10, verify=trusted_certificates())


def parse_text(answer: Mapping[str, Any], headers: Mapping[str, str], *, with_logprobs: bool) -> GenerateOutput:
    """The output from a TGI server's answer to a bare prompt.

    Raises:
        EmptyAnswerError: the tokens were used up before it began.
        InvalidResponseError: it's no answer.
    """
    text = answer.get("generated_text")
    details = object_in(answer.get("details"))
    usage = Usage(
        input_tokens=int(number_in(headers.get("x-prompt-tokens")) or 0),
        output_tokens=count_in(details.get("generated_tokens")),
    )
    if not isinstance(text, str):
        raise InvalidResponseError(f"the server's answer has no `generated_text`: {short(answer)}", paid=True)
    reason = details.get("finish_reason")
    end = end_of(reason, TGI)
    if not text and end == "cut off":
        raise EmptyAnswerError(f"{NO_TOKENS_LEFT} (finish_reason {reason!r}); {MORE_TOKENS}", usage=[usage])
    output = GenerateOutput(generations=[text], statistics=token_counts(usage, [text]), usage=[usage])
    mark(output, [reason], [end])
    if with_logprobs:
        places = list_in(details.get("top_tokens")) or [[token] for token in list_in(details.get("tokens"))]
        output["logprobs"] = [[logprobs_in(place, name="text") for place in places]]
    return output


def error_from(status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
    """The error for a refusal, in any of the shapes that the router, TGI, vLLM and the proxies give it."""
    try:
        body = json_object(content)
    except InvalidResponseError:
        body = {"error": plain_refusal(content)}
    problem = body.get("error")
    inner = cast("dict[str, Any]", problem) if isinstance(problem, dict) else body
    said = str(inner.get("message") or cast("object", problem) or body.get("detail") or short(body))
    # A generation that failed on the server's side has 424 at TGI.
    status = 500 if body.get("error_type") == "generation" else status
    wait = seconds_to_wait(headers.get("Retry-After")) or number_in(body.get("estimated_time"))
    return error_for_status(status, said, code=str(inner.get("code") or ""), retry_after=wait)
