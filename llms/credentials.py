"""Where an adapter's key comes from: the adapter, named credentials, or the environment.

This package knows no secret store. One that does (the flows, for Prefect blocks) registers itself
with `use_credentials_store`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import SecretStr

from llms.errors import AuthenticationError


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
        return _store(name)
    except LookupError as error:
        raise AuthenticationError(f"credentials={name!r}: {error}") from None


def key_from_environment(*variables: str) -> SecretStr | None:
    """The first of the environment variables that is set."""
    return next((SecretStr(os.environ[name]) for name in variables if os.environ.get(name)), None)


class WithKey:
    """An adapter of a service that takes a key, at an address that may be another than the provider's own.

    It has the fields `model`, `base_url`, `credentials` and `api_key`, and a place for `_found_credentials`.
    """

    key_variables: ClassVar[tuple[str, ...]]
    """Environment variables that may hold the key."""
    url_variable: ClassVar[str]
    """The environment variable that may hold another address."""
    own_url: ClassVar[str]
    """The provider's own address."""

    if TYPE_CHECKING:
        model: str
        base_url: str | None
        credentials: str | None
        api_key: SecretStr | None
        _found_credentials: tuple[str, Credentials] | None

    def load(self) -> None:
        """Find the key. Raises AuthenticationError where there is none."""
        self.key()

    def url(self) -> str:
        """The address that requests go to, without a slash at its end."""
        named = self._named_credentials()
        return (
            self.base_url or (named.base_url if named else None) or os.environ.get(self.url_variable) or self.own_url
        ).rstrip("/")

    def key(self) -> SecretStr:
        """The key. A server of one's own needs none."""
        key = self._own_key()
        if key is not None:
            return key
        if self.url() != self.own_url:
            return SecretStr("none")
        raise AuthenticationError(
            f"{type(self).__name__}(model={self.model!r}) has no key: set {' or '.join(self.key_variables)},"
            " or name a credentials block in `credentials`"
        )

    def _own_key(self) -> SecretStr | None:
        named = self._named_credentials()
        return self.api_key or (named.api_key if named else None) or key_from_environment(*self.key_variables)

    def _named_credentials(self) -> Credentials | None:
        """Looked up once: a store may be a server."""
        if not self.credentials:
            return None
        if self._found_credentials is None or self._found_credentials[0] != self.credentials:
            self._found_credentials = (self.credentials, credentials_named(self.credentials))
        return self._found_credentials[1]
