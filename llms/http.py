"""What the adapters share that send their requests with aiohttp: a session, its errors, and how answers are read."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from llms.errors import BadRequestError, ConnectionFailedError, InvalidResponseError, RequestTimeoutError
from llms.parameters import short
from llms.reading import json_in, list_in, object_in
from llms.secrets import know_named, masked
from llms.typing import Logprob

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientSession

USER_AGENT = "stillflow"
NEVER = -9999.0
"""The log probability of a token that can't come, as OpenAI and vLLM have it."""


@cache
def trusted_certificates() -> ssl.SSLContext:
    """One for the process: reading the certificates takes 30 ms, on the loop of all requests."""
    import httpx2

    return httpx2.create_ssl_context()


def new_session(url: str, headers: Mapping[str, str], timeout: float) -> ClientSession:
    """A session for requests to `url`; `timeout` in seconds for a whole request. Limits are ours: see `llms.limits`."""
    import aiohttp

    know_named(headers)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trusted_certificates()),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={"Content-Type": "application/json", "User-Agent": USER_AGENT, **headers},
        # No API needs cookies, and keeping them takes a tenth of a request's processor time.
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy_for(url),
    )


@contextmanager
def request_errors(url: str, timeout: float, setting: str = "") -> Generator[None]:
    """Raise what aiohttp raises for a request without an answer as an error of ours.

    Args:
        url: where the request goes, as messages have it.
        timeout: seconds that it had.
        setting: what the address is set by.

    Raises:
        ConnectionFailedError: `url` can't be reached.
        RequestTimeoutError: no answer within `timeout` seconds.
        InvalidResponseError: the connection was cut.
    """
    import aiohttp

    try:
        yield
    except (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.InvalidURL,
        aiohttp.NonHttpUrlClientError,
    ) as error:
        where = f"the address ({setting})" if setting else "the address"
        raise ConnectionFailedError(f"can't reach {url}; check {where} and the network ({why(error)})") from None
    except TimeoutError:
        raise RequestTimeoutError(f"no answer from {url} in {timeout:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise InvalidResponseError(f"the connection to {url} was cut before the answer was there ({error!r})") from None


def why(error: BaseException) -> str:
    """What kept aiohttp from connecting, without the address: "Connection refused"."""
    cause = getattr(error, "os_error", None)
    return os.strerror(cause.errno) if isinstance(cause, ConnectionError) and cause.errno else str(error)


def proxy_for(url: str) -> str | None:
    """The environment's proxy, looked up once: aiohttp's `trust_env` asks two threads for every request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def written(body: object) -> bytes:
    """A request's body as JSON. Raises BadRequestError for what has no place in it."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise BadRequestError(
            f"the request can't be written as JSON ({error}): give whole numbers beyond 64 bits as text, and so what"
            " else JSON has no place for"
        ) from None


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object of an answer; the first of a list, as TGI sends it. Raises InvalidResponseError."""
    try:
        answer = json_in(content)
    except ValueError:
        raise InvalidResponseError(f"the server's answer isn't JSON: {short(content)}") from None
    if isinstance(answer, list) and answer:
        answer = cast("list[Any]", answer)[0]
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the server's answer isn't a JSON object: {short(content)}")
    return cast("dict[str, Any]", answer)


def plain_refusal(content: bytes) -> str:
    """The words of a refusal that isn't JSON, as far as they go."""
    return masked(content.decode("utf-8", "replace").strip())[:500]


def paid_object(content: bytes) -> dict[str, Any]:
    """`json_object` of a model's answer. Raises InvalidResponseError, as paid where that began as an answer."""
    try:
        return json_object(content)
    except InvalidResponseError as error:
        # A page of a proxy costs nothing.
        error.paid = content.lstrip()[:1] in {b"{", b"["}
        raise


def logprobs_in(places: object, name: str = "token") -> list[Logprob]:
    """The likeliest tokens of one place, their texts under `name`.

    The logarithm of 0 is no number in JSON; where a server gives it all the same, it becomes `NEVER`.
    """
    tokens = [(object_in(each).get(name), object_in(each).get("logprob")) for each in list_in(places)]
    return [
        Logprob(token=token, logprob=float(logprob) if isinstance(logprob, int | float) else NEVER)
        for token, logprob in tokens
        if isinstance(token, str)
    ]
