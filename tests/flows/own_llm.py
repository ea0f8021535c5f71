"""An adapter as a user writes one, outside of the project's packages."""

from __future__ import annotations

from typing import Any

from llms import AsyncLLM, ChatType, GenerateOutput


class OwnLLM(AsyncLLM):
    voice: str = "high"

    @property
    def model_name(self) -> str:
        return f"own-{self.voice}"

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        return {
            "generations": [f"{self.voice}: {input[-1]['content']}"] * num_generations,
            "statistics": {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations},
        }
