"""Providers with an address in China and one for the rest of the world, whose keys aren't the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.openai import ChatBatchesLLM


class RegionalLLM(ChatBatchesLLM):
    """A model behind OpenAI's protocol with its batches, at an address by region."""

    regions: ClassVar[Mapping[str, str]]
    """Addresses by region."""

    region: Annotated[
        Literal["international", "china"], Field(title="Region", description="Where the key was made.")
    ] = "international"

    @property
    def own_url(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] -- it depends on a field
        return self.regions[self.region]

    def identity(self) -> dict[str, Any]:
        """The address says it all."""
        return {name: value for name, value in super().identity().items() if name != "region"}
