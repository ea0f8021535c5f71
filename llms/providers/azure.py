"""Azure OpenAI: OpenAI's models on a resource of one's own.

The API with versions by date (https://learn.microsoft.com/azure/ai-foundry/openai/reference) and the v1 API
(https://learn.microsoft.com/azure/ai-foundry/openai/latest). Batches, which need a deployment of a batch type:
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, cast

from pydantic import Field, SecretStr

from llms.batch import BatchLimits, BatchRequest
from llms.credentials import may_have_keys
from llms.errors import AuthenticationError, ConnectionFailedError
from llms.extras import how_to_install
from llms.http import paid_object, trusted_certificates
from llms.parameters import Unasked
from llms.providers.batch_dialects import OPENAI, BatchDialect
from llms.providers.openai import OpenAILLM
from llms.secrets import know
from llms.typing import FormattedInput

if TYPE_CHECKING:
    from openai import AsyncOpenAI

VERSION_VARIABLE = "OPENAI_API_VERSION"
UNDATED_VERSIONS = frozenset({"", "v1", "latest", "preview"})
# The first version by date whose files can be given the time of their end.
FILES_EXPIRE_SINCE = "2025-03-01"
TOKEN_SCOPE = "https://cognitiveservices.azure.com/.default"

_signing_in = threading.Lock()


class AzureOpenAILLM(OpenAILLM):
    """A model deployed on an Azure OpenAI resource.

    Without a key it signs in with Entra ID, as `azure.identity.DefaultAzureCredential` finds it (the extra `azure`).

    Example:
        >>> llm = AzureOpenAILLM(model="my-deployment", base_url="https://my-resource.openai.azure.com")
        >>> llm.url()
        'https://my-resource.openai.azure.com/openai/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("AZURE_OPENAI_API_KEY",)
    url_variable: ClassVar[str] = "AZURE_OPENAI_ENDPOINT"
    own_url: ClassVar[str] = ""
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, size=200_000_000)

    form_title = "Azure OpenAI"

    provider: Annotated[Literal["azure-openai"], Field(title="Provider")] = "azure-openai"  # pyright: ignore[reportIncompatibleVariableOverride]
    model: Annotated[str, Field(title="Deployment", description="Its name. For batches, one of a batch type.")]
    base_url: Annotated[
        str | None,
        Field(title="Endpoint", description="Of the resource. Empty: AZURE_OPENAI_ENDPOINT."),
    ] = None
    api_version: Annotated[
        str, Field(title="API version", description=f"Like 2024-10-21. Empty: {VERSION_VARIABLE}, or the v1 API.")
    ] = ""
    credentials: Annotated[
        str | None,
        Field(title="Credentials", description="Name of an LLM credentials block. Empty: AZURE_OPENAI_API_KEY."),
        Unasked(),
    ] = None
    organization: Annotated[str, Field(exclude=True), Unasked()] = ""

    def load(self) -> None:
        """Find the endpoint and the key.

        Raises:
            ConnectionFailedError: there's no endpoint.
            AuthenticationError: there's no key, and no `azure-identity` to sign in with.
        """
        if not super().url():
            raise ConnectionFailedError(
                f"{type(self).__name__}(model={self.model!r}) has no endpoint: set {self.url_variable}, or give"
                " base_url, such as https://my-resource.openai.azure.com"
            )
        if self.bound_key(self.url()) is not None:
            return
        self._check_sign_in()
        if not _has_azure_identity():
            raise AuthenticationError(
                f"{type(self).__name__}(model={self.model!r}) has no key: set {' or '.join(self.key_variables)}, name a"
                f" credentials block in `credentials`, or sign in with Entra ID: {how_to_install('azure')}"
            )

    def url(self) -> str:
        endpoint = super().url().removesuffix("/v1").removesuffix("/openai")
        if not endpoint:
            return ""
        return f"{endpoint}/openai" if self._dated_version() else f"{endpoint}/openai/v1"

    def key(self) -> SecretStr:
        """The key. Empty where a token of Entra ID takes its place."""
        return self.bound_key(self.url()) or SecretStr("")

    def version(self) -> str:
        """The API's version; empty for the v1 API as it is."""
        return self.api_version or os.environ.get(VERSION_VARIABLE) or ""

    def _dated_version(self) -> str:
        return "" if self.version() in UNDATED_VERSIONS else self.version()

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "api_version": self.version()}

    def addressee(self) -> dict[str, Any]:
        return {**super().addressee(), "version": self.version()}

    def _is_newest(self) -> bool:
        return not self._dated_version()

    def _new_client(self) -> AsyncOpenAI:
        import openai

        key = self.key().get_secret_value()
        common: dict[str, Any] = {
            "timeout": self.timeout,
            "max_retries": 0,
            "default_headers": self.default_headers,
            "http_client": openai.DefaultAioHttpClient(timeout=self.timeout, verify=trusted_certificates()),
        }
        dated = self._dated_version()
        if dated:
            signed = {"api_key": key} if key else {"azure_ad_token_provider": self._token}
            return openai.AsyncAzureOpenAI(base_url=self.url(), api_version=dated, **signed, **common)
        version = {"default_query": {"api-version": self.version()}} if self.version() else {}
        return openai.AsyncOpenAI(base_url=self.url(), api_key=key or self._token, **version, **common)

    async def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        # The SDK knows each version's addresses, and when a token of Entra ID is to be renewed.
        return paid_object(await self.posted(path, body))

    def _check_sign_in(self) -> None:
        """Raises AuthenticationError where the endpoint may have no token: it's as good as a key."""
        if not may_have_keys(self.url(), self.own_addresses()):
            raise self.refused(self.url())

    def answering_model(self) -> str:
        # A deployment's name is its owner's, answers name the model.
        return ""

    async def _token(self) -> str:
        """A token of Entra ID, a kept one while it lasts. Raises AuthenticationError."""
        self._check_sign_in()
        try:
            token = await asyncio.to_thread(_entra_id_token)
        except Exception as error:  # noqa: BLE001 -- each way to sign in fails in its own way
            raise AuthenticationError(f"can't sign in with Entra ID: {error}") from None
        know(token)
        return token

    def batch_dialect(self) -> BatchDialect:
        dated = self._dated_version()
        return replace(OPENAI, newest_first=False, expires_files=not dated or dated >= FILES_EXPIRE_SINCE)

    def batch_request(
        self, custom_id: str, given: FormattedInput, num_generations: int, number: int = 0
    ) -> BatchRequest:
        request = super().batch_request(custom_id, given, num_generations, number)
        return replace(request, url=request.url.removeprefix("/v1")) if self._dated_version() else request


class _AzureIdentity(Protocol):
    """What is used of the package `azure.identity`."""

    def DefaultAzureCredential(self) -> object: ...
    def get_bearer_token_provider(self, credential: object, *scopes: str) -> Callable[[], str]: ...


def _has_azure_identity() -> bool:
    try:
        return importlib.util.find_spec("azure.identity") is not None
    except ModuleNotFoundError:
        return False


def _entra_id_token() -> str:
    # One at a time: a hundred requests that start together sign in once.
    with _signing_in:
        return _token_provider()()


@cache
def _token_provider() -> Callable[[], str]:
    """A function that gives a token, the same one while it lasts."""
    package = cast("_AzureIdentity", importlib.import_module("azure.identity"))
    return package.get_bearer_token_provider(package.DefaultAzureCredential(), TOKEN_SCOPE)
