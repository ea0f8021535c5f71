"""An LLM that says what a script says, and keeps what it was asked."""

from __future__ import annotations

from typing import Any

from llms import LLM, GenerateOutput


class ScriptedLLM(LLM):
    """Gives its replies in their order, the last one over and over. Takes no schemas."""

    replies: list[str | None]
    asked: list[Any] = []

    @property
    def model_name(self) -> str:
        return "scripted"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        outputs: list[GenerateOutput] = []
        for each in inputs:
            reply = self.replies[min(len(self.asked), len(self.replies) - 1)]
            self.asked.append(each)
            statistics = {"input_tokens": [10] * num_generations, "output_tokens": [1] * num_generations}
            outputs.append({"generations": [reply] * num_generations, "statistics": statistics})
        return outputs
