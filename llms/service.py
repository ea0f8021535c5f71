"""The room that adapters of services share which are asked by HTTP: key, address, session, sending, rates, errors.

A provider writes what a request's body is, how an answer is read, and how a refusal.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import urljoin

from pydantic import Field, PrivateAttr, SecretStr

from llms.base import TOKEN_LIMIT, AsyncLLM, combined, side_by_side, split_input
from llms.credentials import Credentials, WithKey, origin
from llms.errors import BadRequestError, InvalidResponseError, LLMError, error_for_status
from llms.http import json_object, new_session, paid_object, plain_refusal, request_errors, written
from llms.limits import hear
from llms.loop import PerLoop
from llms.parameters import Unasked, short
from llms.rates import rates_in
from llms.reading import number_in, seconds_to_wait, words_in
from llms.typing import FormattedInput, GenerateOutput, PriceSource

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientTimeout

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5


class ServiceLLM(WithKey, AsyncLLM):
    """A model behind a service's HTTP API. A provider writes `_body` and `output_from`, and what else differs."""

    answers_several: ClassVar[bool] = True
    """Whether one request can ask for several answers."""
    takes_prompts: ClassVar[bool] = True
    """Whether bare prompts have a place."""

    form_first = ("model", "credentials", "generation_kwargs")
    form_more = ("timeout",)

    model: Annotated[str, Field(title="Model", description="The model's name at the provider.")]
    base_url: Annotated[
        str | None, Field(title="Address", description="Of a gateway or another server. Empty: the provider's own.")
    ] = None
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: the key in the environment."),
        Unasked(),
    ] = None
    api_key: Annotated[
        SecretStr | None,
        Field(exclude=True, description="The key itself; better by `credentials` or environment."),
        Unasked(),
    ] = None
    default_headers: Annotated[
        dict[str, str] | None, Field(exclude=True, repr=False, description="Headers for every request."), Unasked()
    ] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 120.0

    _sessions: PerLoop[ClientSession] = PrivateAttr(default_factory=PerLoop)
    _repeats: bool = PrivateAttr(default=False)
    """Whether it was found not to take several answers in one request."""
    _found_credentials: tuple[str, Credentials] | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    @property
    def limit_key(self) -> Hashable:
        return (self.provider, self.url(), self.model, hash(self.key().get_secret_value()))

    @property
    def account(self) -> Hashable:
        """Whose jobs are in one list at the provider, and are read with the same key."""
        return (self.provider, self.url(), hash(self.key().get_secret_value()))

    def price_source(self) -> PriceSource | None:
        return PriceSource(self.url(), self.model)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "base_url": self.url()}

    def addressee(self) -> dict[str, Any]:
        return self.service_at(url=self.url(), model=self.model)

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        prompt, schema = split_input(given)
        keywords = self.keywords(schema or self.structured_output)
        keywords.pop(TOKEN_LIMIT, None)
        # What the server has refused makes no other question: how many requests it's sent as, or a parameter's name.
        path, body = self._body(prompt, 1, keywords)
        return [path, body, num_generations]

    def token_limit(self) -> int | None:
        return self.generation_kwargs.get(TOKEN_LIMIT)

    async def generated(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        """`times` generations, in as few requests as the server can do with. Raises LLMError."""
        if times > 1 and (self._repeats or not self.answers_several):
            return await self._repeated(given, range(times), keywords)
        output = await self._asked(given, times, keywords)
        got = len(output["generations"])
        if got == 1 < times:
            # It doesn't know of several, or it would have given more: whoever gives some of them is asked for the rest.
            self._repeats = True
        if got < times:
            try:
                return combined([output, await self._repeated(given, range(got, times), keywords)])
            except LLMError as error:
                error.beside.append(output)
                raise
        return output

    async def _repeated(self, given: FormattedInput, numbers: range, keywords: Mapping[str, Any]) -> GenerateOutput:
        """One request per generation. A seed is counted on, or all of them would be the same."""
        return await side_by_side(self.generated(given, 1, counted_on(keywords, number)) for number in numbers)

    async def _asked(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        """The output of one request, or of those that a refusal taught to send in its place. Raises LLMError."""
        try:
            return await self._request(given, times, keywords)
        except BadRequestError as error:
            if times == 1 or not self._refuses_several(error):
                raise
            self._repeats = True
            return await self._repeated(given, range(times), keywords)

    def _refuses_several(self, error: BadRequestError) -> bool:
        """Whether a refusal is of the number of answers."""
        return False

    async def _request(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        path, body = self._body(given, times, keywords)
        return self.output_from(await self._send(path, body), path, body)

    def _body(
        self, given: FormattedInput, num_generations: int, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The API's path and the request's body. Raises LLMError for what it has no place for."""
        raise NotImplementedError(f"{type(self).__name__} has to define `_body`")

    def output_from(self, answer: dict[str, Any], path: str, body: Mapping[str, Any]) -> GenerateOutput:
        """The output from an answer to `body`. Raises LLMError where there is none in it."""
        raise NotImplementedError(f"{type(self).__name__} has to define `output_from`")

    def refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> LLMError:
        """The error for an answer with an HTTP status of 400 or more."""
        said, code = refusal_words(content)
        return error_for_status(status, said, code=code, retry_after=retry_after_in(headers))

    async def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request of a row."""
        async with self.sending("POST", path, written(body)) as response:
            return paid_object(await response.read())

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the API answers to a request that is no row's; empty where that is nothing. Raises LLMError."""
        async with self.sending(method, path, None if body is None else written(body)) as response:
            content = await response.read()
        return json_object(content) if content.strip() else {}

    @asynccontextmanager
    async def sending(
        self,
        method: str,
        path: str,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: ClientTimeout | None = None,
    ) -> AsyncGenerator[ClientResponse]:
        """The answer, its body not yet read. Raises LLMError, also for what goes wrong inside.

        Args:
            method: of HTTP.
            path: below the address; or a whole address, of the same server.
            data: the body.
            headers: beside those of every request. With an `Authorization`, it isn't signed.
            timeout: in place of `timeout` seconds for the whole request.
        """
        url = self.url()
        session = self._sessions.get(self._new_session)
        limits = timeout or session.timeout
        with request_errors(url, limits.total or self.timeout, f"base_url or {self.url_variable}"):
            address = path if "://" in path else f"{url}{path}"
            for _ in range(MOST_REDIRECTS):
                signed = headers or {}
                if "Authorization" not in signed:
                    signed = {**signed, **await self.signature(method, address, data)}
                async with session.request(
                    method, address, data=data, headers=signed, timeout=limits, allow_redirects=False
                ) as response:
                    hear(rates_in(response.headers))
                    if response.status in REDIRECTS:
                        address = self._redirected(method, response)
                        continue
                    if response.status >= 400:
                        raise self.refusal(response.status, response.headers, await response.read())
                    yield response
                    return
            raise BadRequestError(f"{url} redirects again and again, at last to {short(address)}")

    def _redirected(self, method: str, response: ClientResponse) -> str:
        """Where a redirect leads: only at the same server, for the key goes along. Raises BadRequestError."""
        target = urljoin(str(response.url), response.headers.get("Location", ""))
        if method != "GET" or origin(target) != origin(str(response.url)):
            raise BadRequestError(
                f"{self.url()} redirects to {short(target)} (status {response.status}), where the key isn't sent:"
                " if that is the provider's address, set it as `base_url`"
            )
        return target

    def _new_session(self) -> ClientSession:
        return new_session(self.url(), self.headers(), self.timeout)

    def headers(self) -> dict[str, str]:
        """What goes along with every request: the key, and headers of one's own."""
        return {"Accept": "application/json", **self.key_headers(), **(self.default_headers or {})}

    def key_headers(self) -> dict[str, str]:
        """The key, where the provider looks for it."""
        return {"Authorization": f"Bearer {self.key().get_secret_value()}"}

    async def signature(
        self, method: str, address: str, data: bytes | AsyncIterator[bytes] | None
    ) -> Mapping[str, str]:
        """Headers that are made for one request, where a key alone isn't enough. Raises LLMError."""
        return {}

    def chat_in(self, given: FormattedInput) -> list[dict[str, Any]]:
        """The chat that was given. Raises BadRequestError for a bare prompt."""
        if isinstance(given, str):
            raise BadRequestError(
                f"{type(self).__name__} takes chats, got a bare prompt for model={self.model!r}: its API has no"
                " completions"
            )
        return [dict(message) for message in split_input(given)[0]]


def counted_on(keywords: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """The keywords of the request for one of several generations: its own seed, where there is one."""
    seed = keywords.get("seed")
    return {**keywords, "seed": seed + number} if number and isinstance(seed, int) else keywords


def refusal_words(content: bytes) -> tuple[str, str]:
    """What a refusal says, and its code: a provider's, or that of a proxy on the way."""
    try:
        body = json_object(content)
    except InvalidResponseError:
        return plain_refusal(content) or "no further words", ""
    said, code = words_in(body)
    return said or (short(body) if content else "no further words"), code


def retry_after_in(headers: Mapping[str, str]) -> float | None:
    """The seconds that a refusal's headers ask to wait for."""
    milliseconds = number_in(headers.get("retry-after-ms"))
    return milliseconds / 1000 if milliseconds is not None else seconds_to_wait(headers.get("retry-after"))
