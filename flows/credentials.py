"""Keys in Prefect blocks: an adapter's `credentials` names one, and no run, form or log holds more than the name."""

from __future__ import annotations

from typing import Any, cast

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from pydantic import Field, SecretStr

from llms.credentials import Credentials


class LLMCredentials(Block):
    """The key for a provider, and its address where it isn't the usual one."""

    _block_type_name = "LLM Credentials"
    _block_type_slug = "llm-credentials"
    _description = "A key for a language model provider, named in the `credentials` of an LLM."

    api_key: SecretStr = Field(title="Key", description="The provider's API key.")
    base_url: str | None = Field(default=None, title="Address", description="Of a compatible server, with its /v1.")


def find_credentials(name: str) -> Credentials:
    """The credentials in a block: an LLM Credentials block, or a Secret.

    Args:
        name: a block's name, or `type/name` (`secret/openai`).

    Raises:
        LookupError: there is no such block.
    """
    kind, slash, short_name = name.rpartition("/")
    if not slash or kind == "llm-credentials":
        try:
            block = cast("LLMCredentials", LLMCredentials.load(short_name, _sync=True))  # pyright: ignore[reportCallIssue]
            return Credentials(block.api_key, block.base_url)
        except ValueError:
            if slash:
                raise LookupError(missing(name)) from None
    try:
        secret = cast("Secret[Any]", Secret.load(short_name, _sync=True))  # pyright: ignore[reportCallIssue]
    except ValueError:
        raise LookupError(missing(name)) from None
    return Credentials(SecretStr(str(secret.get())))


def missing(name: str) -> str:
    return (
        f"Prefect has no block of type 'llm-credentials' or 'secret' named {name.rpartition('/')[2]!r}; make one on the"
        " UI's Blocks page (`prefect block register -m flows.credentials` brings the type), or leave credentials empty"
    )
