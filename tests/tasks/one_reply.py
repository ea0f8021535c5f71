"""LLMs as users write them, that give one reply to everything and keep what they were asked."""

from __future__ import annotations

from typing import Any

from llms import LLM, GenerateOutput


class OneReplyLLM(LLM):
    """Takes no schemas."""

    reply: str
    asked: list[Any] = []

    @property
    def model_name(self) -> str:
        return "one-reply"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        self.asked.extend(inputs)
        counts = [1] * num_generations
        statistics = {"input_tokens": counts, "output_tokens": counts}
        return [{"generations": [self.reply] * num_generations, "statistics": statistics} for _ in inputs]


class StructuredOneReplyLLM(OneReplyLLM):
    """Takes schemas, and keeps them."""

    schemas: list[Any] = []

    def generate(
        self, inputs: list[Any], num_generations: int = 1, structured_output: dict[str, Any] | None = None
    ) -> list[GenerateOutput]:
        self.schemas.append(structured_output)
        return super().generate(inputs, num_generations)
