"""Servers of one's own that speak OpenAI's protocol: they need no key, and know what they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, SecretStr

from llms.parameters import Unasked
from llms.providers.inference_endpoints import served_model
from llms.providers.openai import ChatCompletionsLLM
from llms.typing import FormattedInput, GenerateOutput


class ServerLLM(ChatCompletionsLLM):
    """A model behind a server of one's own, on this machine where nothing else is said."""

    model: Annotated[str, Field(title="Model", description="Empty: the one that the server lists first.")] = ""
    base_url: Annotated[
        str | None, Field(title="Address", description="Of the server, with its port. Empty: this machine.")
    ] = None
    timeout: Annotated[float, Field(gt=0, title="Timeout", description="Seconds for one request."), Unasked()] = 600.0

    _served: str = PrivateAttr(default="")

    @property
    def model_name(self) -> str:
        return self.model or self._served

    def load(self) -> None:
        """Find the key, and the model where none is named. Raises AuthenticationError."""
        key = self.key()
        if not self.model:
            self._served = served_model(self.url(), key)

    def url(self) -> str:
        """The address that requests go to, with its /v1."""
        url = super().url()
        return url if url.endswith("/v1") else f"{url}/v1"

    def key(self) -> SecretStr:
        """The key. Such a server needs none."""
        return self.bound_key(self.url()) or SecretStr("none")

    async def generated(self, given: FormattedInput, times: int, keywords: Mapping[str, Any]) -> GenerateOutput:
        if not self.model_name:
            await asyncio.to_thread(self.load)
        return await super().generated(given, times, keywords)
