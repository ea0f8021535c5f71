"""A vLLM server: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llms.providers.parameters import (
    ChatTemplateKwargs,
    Ebnf,
    ExtraBody,
    FrequencyPenalty,
    Logprobs,
    MaxNewTokens,
    MinP,
    MinTokens,
    PresencePenalty,
    ReasoningEffort,
    Regex,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    Stop,
    StopTokenIds,
    Temperature,
    TopK,
    TopLogprobs,
    TopP,
    keywords_in,
)
from llms.providers.servers import ServerLLM
from llms.typing import FormattedInput, GenerateOutput, JSONSchema


class ClientvLLM(ServerLLM):
    """A model that `vllm serve` serves. Without a name it's the one that the server lists first.

    An answer can be held to a schema, a regular expression, a choice of texts or a grammar.

    Example:
        >>> llm = ClientvLLM(model="Qwen/Qwen3-8B")
        >>> llm.url()
        'http://127.0.0.1:8000/v1'
    """

    key_variables: ClassVar[tuple[str, ...]] = ("VLLM_API_KEY",)
    url_variable: ClassVar[str] = "VLLM_BASE_URL"
    own_url: ClassVar[str] = "http://127.0.0.1:8000/v1"

    form_title = "vLLM server"

    provider: Annotated[Literal["vllm-server"], Field(title="Provider")] = "vllm-server"  # pyright: ignore[reportIncompatibleVariableOverride]

    async def agenerate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: MaxNewTokens = None,
        min_tokens: MinTokens = None,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        repetition_penalty: RepetitionPenalty = None,
        frequency_penalty: FrequencyPenalty = None,
        presence_penalty: PresencePenalty = None,
        stop: Stop = None,
        stop_token_ids: StopTokenIds = None,
        seed: Seed = None,
        reasoning_effort: ReasoningEffort = None,
        thinking_token_budget: Annotated[
            int | None, Field(ge=0, description="Think in at most so many tokens.")
        ] = None,
        chat_template_kwargs: ChatTemplateKwargs = None,
        regex: Regex = None,
        choice: Annotated[list[str] | None, Field(description="One of these texts is the answer.")] = None,
        grammar: Ebnf = None,
        logprobs: Logprobs = False,
        top_logprobs: TopLogprobs = None,
        response_format: ResponseFormat = None,
        extra_body: ExtraBody = None,
        structured_output: JSONSchema | None = None,
    ) -> GenerateOutput:
        """Answer one chat or bare prompt. Raises LLMError."""
        return await self.generated(input, num_generations, keywords_in(locals()))

    def chat_body(self, body: dict[str, Any]) -> dict[str, Any]:
        held = {name: body.pop(name) for name in ("regex", "choice", "grammar") if name in body}
        return {**body, "structured_outputs": held} if held else body
