"""Several models answer, and one makes one answer of theirs.

Source: Mixture-of-Agents Enhances Large Language Model Capabilities, https://arxiv.org/abs/2406.04692.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, cast

from pydantic import Field, model_validator

from llms.base import AsyncLLM
from llms.errors import BadRequestError, LLMError
from llms.parameters import Unasked
from llms.registry import AnyLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema, TokenCounts, Usage
from llms.usage import usage_of

WISH = (
    "Other assistants have answered the latest message of this conversation. Their answers follow. Some of what they"
    " say may be wrong or one-sided: weigh it, keep what is right, and write one answer of your own that is better than"
    " each of them. Don't mention the other answers."
)


class MixtureOfAgentsLLM(AsyncLLM):
    """A mixture of models: `proposers_llms` answer, in each further round with all answers of the one before it, and
    `aggregator_llm` writes the final one. Each model keeps its own parameters, limits and retries.

    A proposer that fails is left out, as long as another one answers. A schema is the aggregator's alone. In forms and
    files it goes by `llms.providers.mixture_of_agents:MixtureOfAgentsLLM`.

    Example:
        >>> from llms import MistralLLM, OpenAILLM
        >>> llm = MixtureOfAgentsLLM(
        ...     aggregator_llm=OpenAILLM(model="gpt-4o"),
        ...     proposers_llms=[OpenAILLM(model="gpt-4o-mini"), MistralLLM(model="mistral-small-latest")],
        ... )
        >>> llm.model_name
        'moa-gpt-4o-gpt-4o-mini-mistral-small-latest'
    """

    form_first = ("aggregator_llm", "proposers_llms", "rounds")
    form_title = "Mixture of agents"

    aggregator_llm: Annotated[AnyLLM, Field(title="Aggregator", description="Writes the final answer.")]
    proposers_llms: Annotated[
        list[AnyLLM], Field(min_length=1, title="Proposers", description="Their answers are what it's made of.")
    ]
    rounds: Annotated[int, Field(ge=1, title="Rounds", description="How often the proposers answer.")] = 1
    # Each model has its own: more would pay for all of them again.
    max_retries: Annotated[int, Field(ge=0, title="Retries", description="Of the whole mixture."), Unasked()] = 0

    @model_validator(mode="after")
    def _check_all_are_online(self) -> Self:
        waiting = [each.model_name for each in self._models() if getattr(each, "use_offline_batch_generation", False)]
        if waiting:
            raise ValueError(
                f"the models of a mixture answer one after another, online: set use_offline_batch_generation=False for"
                f" {', '.join(waiting)}"
            )
        return self

    def _models(self) -> list[Any]:
        return [self.aggregator_llm, *self.proposers_llms]

    @property
    def model_name(self) -> str:
        return "-".join(["moa", *(each.model_name for each in self._models())])

    def load(self) -> None:
        """Get all models ready. Raises LLMError where one of them isn't."""
        for each in self._models():
            each.load()

    def unload(self) -> None:
        for each in self._models():
            each.unload()

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "proposers_llms": [each.identity() for each in self.proposers_llms]}

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- the models have parameters of their own
        self, input: FormattedInput, num_generations: int = 1, structured_output: JSONSchema | None = None
    ) -> GenerateOutput:
        """Answer one chat. Raises LLMError where no proposer answers, or the aggregator doesn't."""
        if isinstance(input, str):
            raise BadRequestError("a mixture of models takes chats, got a bare prompt")
        chat = cast("Sequence[Mapping[str, Any]]", input)
        answers: list[str] = []
        spent: list[Usage] = []
        for _ in range(self.rounds):
            answers = await self._proposed(with_answers(chat, answers), spent)
        final = with_answers(chat, answers)
        try:
            given: Any = final if structured_output is None else (final, structured_output)
            output = await self.aggregator_llm.answer(given, num_generations)
        except LLMError as error:
            error.usage = [*spent, *error.usage]
            raise
        return with_spent(output, spent)

    async def _proposed(self, chat: Any, spent: list[Usage]) -> list[str]:
        """The proposers' answers. What they cost is added to `spent`, whatever came of them."""
        done = await asyncio.gather(*(each.answer(chat) for each in self.proposers_llms), return_exceptions=True)
        texts: list[str] = []
        failures: list[BaseException] = []
        for each in done:
            if isinstance(each, BaseException):
                failures.append(each)
                spent += each.usage if isinstance(each, LLMError) else []
            else:
                spent += usage_of(each)
                texts += [text for text in each["generations"] if text]
        fatal = next((each for each in failures if not isinstance(each, LLMError) or each.fatal), None)
        if failures and (fatal or not texts):
            error = fatal or failures[0]
            if isinstance(error, LLMError):
                error.usage = list(spent)
            raise error
        return texts


def with_answers(chat: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> Any:
    """The chat with others' answers in its system prompt, as a new one. As it is where there are none."""
    if not answers:
        return list(chat)
    listed = "\n\n".join(f"Answer {number}:\n{answer}" for number, answer in enumerate(answers, 1))
    wish = f"{WISH}\n\n{listed}"
    if chat and chat[0]["role"] == "system" and isinstance(said := chat[0].get("content"), str):
        return [{**chat[0], "content": f"{said}\n\n{wish}"}, *chat[1:]]
    return [{"role": "system", "content": wish}, *chat]


def with_spent(output: GenerateOutput, spent: Sequence[Usage]) -> GenerateOutput:
    """The output with what others took for it: in its usage, and in the counts of its first generation."""
    counts = output["statistics"]
    statistics = TokenCounts(input_tokens=[*counts["input_tokens"]], output_tokens=[*counts["output_tokens"]])
    statistics["input_tokens"][0] += sum(each["input_tokens"] for each in spent)
    statistics["output_tokens"][0] += sum(each["output_tokens"] for each in spent)
    return {**output, "statistics": statistics, "usage": [*spent, *usage_of(output)]}
