"""What the adapters share that send their requests with aiohttp: a session, its errors, and how answers are read."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson

from llms.errors import ConnectionFailedError, InvalidResponseError, RequestTimeoutError
from llms.parameters import short

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientSession

USER_AGENT = "stillflow"


@cache
def trusted_certificates() -> ssl.SSLContext:
    """One for the process: reading the certificates takes 30 ms, on the loop of all requests."""
    import httpx2

    return httpx2.create_ssl_context()


def new_session(url: str, headers: Mapping[str, str], timeout: float) -> ClientSession:
    """A session for requests to `url`; `timeout` in seconds for a whole request. Limits are ours: see `llms.limits`."""
    import aiohttp

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


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object of an answer; the first of a list, as TGI sends it. Raises InvalidResponseError."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise InvalidResponseError(f"the server's answer isn't JSON: {short(content)}") from None
    if isinstance(answer, list) and answer:
        answer = cast("list[Any]", answer)[0]
    if not isinstance(answer, dict):
        raise InvalidResponseError(f"the server's answer isn't a JSON object: {short(content)}")
    return cast("dict[str, Any]", answer)


def number_in(value: object) -> float | None:
    """The number that a header or a field holds, if it holds one that can be a count or a time."""
    try:
        number = float(cast("Any", value))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
