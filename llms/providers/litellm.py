"""Models of any provider by LiteLLM in this process (the extra `litellm`): https://docs.litellm.ai/docs/completion/input.

For what has no adapter of its own here. Parameters, answers and errors as in litellm 1.110 (2026-11).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Hashable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast

from pydantic import Field, SecretStr

from llms.credentials import is_local, may_have_keys
from llms.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailedError,
    ContentFilterError,
    ContextLengthError,
    InvalidResponseError,
    LLMError,
    QuotaExceededError,
    RequestTimeoutError,
    error_for_status,
)
from llms.extras import package
from llms.parameters import short
from llms.providers.openai import ChatCompletionsLLM
from llms.providers.parameters import (
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    PresencePenalty,
    ReasoningEffort,
    ResponseFormat,
    Seed,
    ServiceTier,
    Stop,
    Temperature,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.reading import list_in, object_in
from llms.service import retry_after_in
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, PriceSource

QUIETLY = {
    # What it knows of models comes with it: it isn't fetched anew at every start.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # It would read a .env file into the environment.
    "LITELLM_MODE": "PRODUCTION",
}
KINDS: dict[str, type[LLMError]] = {
    "ContextWindowExceededError": ContextLengthError,
    "ContentPolicyViolationError": ContentFilterError,
    "BudgetExceededError": QuotaExceededError,
    "UnsupportedParamsError": BadRequestError,
    "LiteLLMUnknownProvider": BadRequestError,
    "Timeout": RequestTimeoutError,
}
"""Of its exceptions, by their names."""
NOT_CONNECTED = frozenset(
    {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError", "gaierror"}
)


class LiteLLM(ChatCompletionsLLM):
    """A model by LiteLLM, as `provider/model`, with the key in the variable that LiteLLM has for its provider.

    Its own retries are switched off. What a request costs isn't known.

    Example:
        >>> llm = LiteLLM(model="replicate/meta/meta-llama-3-8b-instruct")
        >>> llm.model_name
        'replicate/meta/meta-llama-3-8b-instruct'
    """

    key_variables: ClassVar[tuple[str, ...]] = ()
    url_variable: ClassVar[str] = ""
    own_url: ClassVar[str] = ""

    takes_prompts: ClassVar[bool] = False

    form_title = "LiteLLM"

    provider: Annotated[Literal["litellm"], Field(title="Provider")] = "litellm"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Model", description="As provider/model, by LiteLLM's names.")]
    base_url: Annotated[
        str | None, Field(title="Address", description="Of a server of your own. Empty: the provider's.")
    ] = None
    drop_params: Annotated[
        bool, Field(title="Drop parameters", description="Leave out parameters that the model doesn't take.")
    ] = False

    def load(self) -> None:
        """Import LiteLLM, which takes seconds, and see that the address may have the key.

        Raises:
            AuthenticationError: the key isn't for the address.
            BadRequestError: the model's name holds an address.
            llms.extras.MissingPackageError: the extra isn't installed.
        """
        self.key()
        _litellm()

    def url(self) -> str:
        """The address that requests go to; empty where LiteLLM knows it."""
        return super().url()

    def key(self) -> SecretStr:
        """The key that is given. Empty where LiteLLM finds it, for the provider's own address alone."""
        if "://" in self.model:
            raise BadRequestError(f"give the address by base_url, and not in the model's name: {self.model!r}")
        if self.api_key or self.credentials:
            return self.bound_key(self.url()) or SecretStr("")
        url = self.url()
        if not url or may_have_keys(url, ()):
            return SecretStr("")
        if is_local(url):
            return SecretStr("none")
        raise AuthenticationError(
            f"no key of this machine is sent to {url}: it came with the run's parameters. If it may have one, list it"
            " in STILLFLOW_KEY_ADDRESSES on the machine that works on the run, or name a credentials block"
        )

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self.url(), self.model, hash(self.key().get_secret_value()))

    def price_source(self) -> PriceSource | None:
        return None

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        service_tier: ServiceTier = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        wanted = dict(keywords)
        # Beside the body LiteLLM takes addresses and keys: what comes with a run's parameters has a place of its own.
        extra = wanted.pop("extra_body", None)
        path, body = super()._body(given, num_generations, wanted)
        return path, {**body, **({"extra_body": extra} if extra else {})}

    async def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        litellm = await asyncio.to_thread(_litellm)
        key, url = self.key().get_secret_value(), self.url()
        place = {**({"api_key": key} if key else {}), **({"base_url": url} if url else {})}
        headers = {"extra_headers": self.default_headers} if self.default_headers else {}
        try:
            answer = await litellm.acompletion(
                **body,
                **place,
                **headers,
                timeout=self.timeout,
                num_retries=0,
                max_retries=0,
                drop_params=self.drop_params,
            )
        except Exception as error:  # noqa: BLE001 -- it passes on whatever a provider's module raises, beside OpenAI's kinds and its own
            raise error_from(error, url or self.model) from None
        return with_own_words(object_in(answer.model_dump()))


class _Answer(Protocol):
    """What is used of `litellm.ModelResponse`."""

    def model_dump(self) -> dict[str, Any]: ...


class _LiteLLM(Protocol):
    """What is used of the package `litellm`."""

    suppress_debug_info: bool

    async def acompletion(self, **parameters: Any) -> _Answer: ...


def _litellm() -> _LiteLLM:
    for name, value in QUIETLY.items():
        os.environ.setdefault(name, value)
    module = cast("_LiteLLM", package("litellm", "litellm", "LiteLLM"))
    module.suppress_debug_info = True
    return module


def with_own_words(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with the providers' words for why it ended: LiteLLM calls all that it doesn't know `stop`."""
    choices = [object_in(each) for each in list_in(answer.get("choices"))]
    natives = [object_in(each.get("provider_specific_fields")).get("native_finish_reason") for each in choices]
    named = [
        {**each, "finish_reason": native} if native else each for each, native in zip(choices, natives, strict=True)
    ]
    return {**answer, "choices": named}


def error_from(error: Exception, where: str) -> LLMError:
    """The error for one of LiteLLM's, which have OpenAI's kinds.

    Args:
        error: what was raised.
        where: the request went, for the message.
    """
    said = str(error)
    kind = next((KINDS[each.__name__] for each in type(error).__mro__ if each.__name__ in KINDS), None)
    if kind is not None:
        return kind(said)
    if any(type(each).__name__ in NOT_CONNECTED for each in _causes(error)):
        return ConnectionFailedError(f"can't reach {where}; check the address and the network ({said})")
    name, status = type(error).__name__, getattr(error, "status_code", None)
    if name in {"APIConnectionError", "APIResponseValidationError"} or not isinstance(status, int) or status < 400:
        return InvalidResponseError(f"the request to {where} got no answer: {said or short(error)}")
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    return error_for_status(
        status, said, code=str(getattr(error, "code", "") or ""), retry_after=retry_after_in(headers)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came of."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
