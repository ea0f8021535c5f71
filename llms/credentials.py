"""Where an adapter's key comes from: the adapter, named credentials, or the environment.

This package knows no secret store. One that does (the flows, for Prefect blocks) registers itself
with `use_credentials_store`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

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
