"""Where an adapter's key comes from (the adapter, named credentials, or the environment), and where it may go to.

A key goes to the addresses that it's for. That of the environment: the provider's own address, the one in the
provider's variable, those that STILLFLOW_KEY_ADDRESSES lists, and those that code gives. Not one that came as data,
such as a parameter of a run: whoever may start a run would have the key sent to a server of their own.

This package knows no secret store. One that does (the flows, for Prefect blocks) registers itself
with `use_credentials_store`.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from llms.errors import AuthenticationError
from llms.parameters import ParameterError
from llms.secrets import is_secret_name, know

logger = logging.getLogger(__name__)

ADDRESSES_VARIABLE = "STILLFLOW_KEY_ADDRESSES"
"""The environment variable that lists further addresses which the keys of this machine may go to."""
LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Credentials:
    """A key, and the address it is for, if it's for one."""

    api_key: SecretStr
    base_url: str | None = None


CredentialsStore = Callable[[str], Credentials]
"""Finds credentials by name. Raises LookupError with a message that says where it looked."""

_store: CredentialsStore | None = None


def use_credentials_store(store: CredentialsStore) -> None:
    """Let adapters find credentials by name in `store`."""
    global _store
    _store = store


def credentials_named(name: str) -> Credentials:
    """The credentials called `name`. Raises AuthenticationError where there are none."""
    if _store is None:
        raise AuthenticationError(
            f"credentials={name!r}: credentials are found by name in flows alone; give `api_key` here,"
            " or leave credentials empty and set the provider's environment variable"
        )
    try:
        found = _store(name)
    except LookupError as error:
        raise AuthenticationError(f"credentials={name!r}: {error}") from None
    return Credentials(clean_key(found.api_key, f"credentials={name!r}"), found.base_url)


def clean_key(key: SecretStr, where: str) -> SecretStr:
    """The key without white space around it, as files and forms add it. From now on it's masked.

    Raises:
        AuthenticationError: it holds what no header can.
    """
    know(key)
    text = key.get_secret_value()
    clean = text.strip()
    if not (clean.isascii() and clean.isprintable()):
        raise AuthenticationError(
            f"the key in {where} holds a line break or another character that no key has: see that nothing but the key"
            " was copied"
        )
    return key if clean == text else SecretStr(clean)


def key_from_environment(*variables: str) -> SecretStr | None:
    """The first of the environment variables that is set. Raises AuthenticationError where that holds no key."""
    name = next((name for name in variables if os.environ.get(name, "").strip()), None)
    return None if name is None else clean_key(SecretStr(os.environ[name]), name)


# Addresses

_in_code: set[str] = set()


@cache
def origin(url: str) -> str:
    """Scheme, host and port of an address: what a key is for. One that can be read in two ways is like no other."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return url
    if "\\" in url or not (url.isascii() and url.isprintable()):
        return url
    return f"{parts.scheme}://{parts.hostname}:{port}"


def given_in_code(url: str) -> None:
    """Let the keys of this machine go to `url`, as its own code says so."""
    _in_code.add(origin(url))


def is_given_in_code(url: str) -> bool:
    return origin(url) in _in_code


def may_have_keys(url: str, own: Iterable[str]) -> bool:
    """Whether the keys of this machine may go to `url`. `own` are the addresses that the key is for in any case."""
    listed = os.environ.get(ADDRESSES_VARIABLE, "").replace(",", " ").split()
    return is_given_in_code(url) or origin(url) in {origin(each) for each in (*own, *listed) if each}


def is_local(url: str) -> bool:
    """Whether an address is of this machine or of a network of one's own, where servers often take no key."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(LOCAL_NAMES)
    return address.is_private or address.is_loopback or address.is_link_local


@cache
def _say_withheld(variable: str, url: str) -> None:
    logger.warning(
        "%s is sent no key: its address came with the run's parameters. If it is to have the one in %s, list it in %s",
        url,
        variable,
        ADDRESSES_VARIABLE,
    )


class BoundKey:
    """An adapter whose key is bound to addresses.

    It has the fields `base_url`, `credentials` and `api_key`.
    """

    key_variables: ClassVar[tuple[str, ...]]
    """Environment variables that may hold the key."""

    if TYPE_CHECKING:
        base_url: str | None
        credentials: str | None
        api_key: SecretStr | None
    else:
        # Fields that come as data (parameters, records) are validated without a call of it.
        def __init__(self, /, **data: Any) -> None:
            super().__init__(**data)
            if self.base_url:
                given_in_code(self.base_url)

        __init__.__pydantic_base_init__ = True

        def __getstate__(self) -> dict[Any, Any]:
            known = bool(self.base_url) and is_given_in_code(self.base_url)
            return {**super().__getstate__(), "address_given_in_code": known}

        def __setstate__(self, state: dict[Any, Any]) -> None:
            super().__setstate__(state)
            if state.get("address_given_in_code"):
                given_in_code(self.base_url)

    def own_addresses(self) -> tuple[str, ...]:
        """The addresses that the key in the environment is for."""
        return ()

    def check_changes(self, changes: Mapping[str, Any]) -> None:
        """Raises ParameterError where a new address would get the key that code gave for another one."""
        url, before = changes.get("base_url"), self.base_url or next(iter(self.own_addresses()), "")
        has_secrets = self.api_key or any(map(is_secret_name, getattr(self, "default_headers", None) or ()))
        if not isinstance(url, str) or not has_secrets or "api_key" in changes:
            return
        if origin(url) != origin(before) and not may_have_keys(url, self.own_addresses()):
            raise ParameterError(
                f"base_url: the key that code gives {type(self).__name__} is for {before}, got {url!r}; list that"
                f" address in {ADDRESSES_VARIABLE} on the machine that works on the run, or give a key by `credentials`"
            )

    def bound_key(self, url: str) -> SecretStr | None:
        """The key for requests to `url`. None: there's none, or it's withheld from a server of one's own.

        Raises:
            AuthenticationError: the key is for other addresses.
        """
        if self.api_key:
            return clean_key(self.api_key, "api_key")
        named = self._named_credentials()
        if named is not None:
            self._check_named(named, url)
            return named.api_key
        key = key_from_environment(*self.key_variables)
        if key is None or may_have_keys(url, self.own_addresses()):
            return key
        return self.withheld(url)

    def withheld(self, url: str) -> None:
        """Send no key to a server of one's own. Raises AuthenticationError for any other."""
        if not is_local(url):
            raise self.refused(url)
        _say_withheld(self.key_variables[0], url)

    def refused(self, url: str) -> AuthenticationError:
        """Why `url` doesn't get the key of this machine."""
        own = " and ".join(filter(None, self.own_addresses()))
        return AuthenticationError(
            f"the key in {self.key_variables[0]} isn't sent to {url}: it's for {own or 'no address'}, and the other one"
            f" came with the run's parameters. If it may have the key, list it in {ADDRESSES_VARIABLE} on the machine"
            " that works on the run, or name a credentials block with that address in `credentials`"
        )

    def _check_named(self, named: Credentials, url: str) -> None:
        """Raises AuthenticationError where the key of named credentials is for other addresses."""
        if named.base_url:
            if origin(url) == origin(named.base_url):
                return
            wanted, way_out = named.base_url, "give the block that address"
        else:
            if may_have_keys(url, self.own_addresses()):
                return
            wanted = " and ".join(filter(None, self.own_addresses())) or "none"
            way_out = f"give the block that address, or list it in {ADDRESSES_VARIABLE} on the machine that works on it"
        raise AuthenticationError(
            f"the key of credentials={self.credentials!r} isn't sent to {url}: it's for {wanted}. If it may have the"
            f" key, {way_out}"
        )

    def _named_credentials(self) -> Credentials | None:
        return credentials_named(self.credentials) if self.credentials else None


class WithKey(BoundKey):
    """An adapter of a service that takes a key, at an address that may be another than the provider's own.

    It has the fields `model`, `base_url`, `credentials` and `api_key`, and a place for `_found_credentials`.
    """

    url_variable: ClassVar[str]
    """The environment variable that may hold another address."""
    own_url: ClassVar[str]
    """The provider's own address."""

    if TYPE_CHECKING:
        model: str
        _found_credentials: tuple[str, Credentials] | None

    def load(self) -> None:
        """Find the key. Raises AuthenticationError where there is none, or none for the address."""
        self.key()

    def url(self) -> str:
        """The address that requests go to, without a slash at its end."""
        named = self._named_credentials()
        return (
            self.base_url or (named.base_url if named else None) or os.environ.get(self.url_variable) or self.own_url
        ).rstrip("/")

    def own_addresses(self) -> tuple[str, ...]:
        return (self.own_url, os.environ.get(self.url_variable, ""))

    def key(self) -> SecretStr:
        """The key. A server of one's own needs none."""
        key = self.bound_key(self.url())
        if key is not None:
            return key
        if self.url() != self.own_url:
            return SecretStr("none")
        raise AuthenticationError(
            f"{type(self).__name__}(model={self.model!r}) has no key: set {' or '.join(self.key_variables)},"
            " or name a credentials block in `credentials`"
        )

    def _named_credentials(self) -> Credentials | None:
        """Looked up once: a store may be a server."""
        if not self.credentials:
            return None
        if self._found_credentials is None or self._found_credentials[0] != self.credentials:
            self._found_credentials = (self.credentials, credentials_named(self.credentials))
        return self._found_credentials[1]
