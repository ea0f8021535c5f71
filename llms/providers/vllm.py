"""Language models of the engine vLLM, run by this process: https://docs.vllm.ai/en/latest/api/vllm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.errors import BadRequestError, LLMError, ModelNotFoundError
from llms.extras import package
from llms.parameters import Unasked
from llms.providers.engines import (
    MAX_NEW_TOKENS,
    Choice,
    Constraint,
    Engine,
    EngineLLM,
    Prompt,
    SkipSpecialTokens,
    TokensOfAnswer,
    Written,
    grouped,
)
from llms.providers.grammars import closed
from llms.providers.parameters import (
    ChatTemplateKwargs,
    Ebnf,
    FrequencyPenalty,
    MinP,
    MinTokens,
    PresencePenalty,
    Regex,
    RepetitionPenalty,
    Seed,
    Stop,
    StopTokenIds,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.service import counted_on
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

EXTRA = "vllm"
SAMPLING = (
    *("min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "skip_special_tokens"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)
"""The parameters that vLLM has by the same names."""


class vLLM(EngineLLM):
    """A model that the engine vLLM runs here, over one GPU or several.

    It needs the extra `vllm`. Sampling parameters that aren't given are those of the model's `generation_config.json`,
    as vLLM takes them. What is too long, or has a schema that can't be held, fails its row alone.

    Example:
        >>> llm = vLLM(model="Qwen/Qwen3-8B", tensor_parallel_size=2, generation_kwargs={"temperature": 0.6})
        >>> llm.model_name
        'Qwen/Qwen3-8B'
    """

    form_title = "vLLM, in this process"
    form_first = ("model",)

    provider: Annotated[Literal["vllm"], Field(title="Provider")] = "vllm"  # pyright: ignore[reportIncompatibleVariableOverride]
    tokenizer: Annotated[
        str | None, Field(title="Tokenizer", description="Another than the model's: of the Hub, or a folder.")
    ] = None
    dtype: Annotated[
        Literal["auto", "half", "float16", "bfloat16", "float", "float32"],
        Field(title="Numbers", description="Of the weights. auto: as they are kept."),
    ] = "auto"
    quantization: Annotated[
        str | None, Field(title="Quantization", description="Such as fp8 or bitsandbytes. Empty: as the model says.")
    ] = None
    tensor_parallel_size: Annotated[
        int, Field(ge=1, title="GPUs", description="Over which the model is spread."), Unasked()
    ] = 1
    gpu_memory_utilization: Annotated[
        float | None,
        Field(gt=0, le=1, title="GPU memory", description="The share that vLLM takes. Empty: its own default."),
        Unasked(),
    ] = None
    max_model_len: Annotated[
        int | None,
        Field(ge=1, title="Context", description="Tokens of a prompt and its answer. Empty: the model's."),
        Unasked(),
    ] = None
    extra_kwargs: Annotated[
        dict[str, Any], Field(title="Further arguments", description="Of vLLM's LLM, such as enforce_eager.")
    ] = {}

    def make(self) -> Engine:
        library = package("vllm", EXTRA, type(self).__name__)
        given = {
            "revision": self.revision,
            "tokenizer": self.tokenizer,
            "tokenizer_revision": None if self.tokenizer else self.revision,
            "quantization": self.quantization,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "max_model_len": self.max_model_len,
            "hf_token": self.token.get_secret_value() if self.token else None,
        }
        try:
            model = library.LLM(
                model=self.model,
                dtype=self.dtype,
                trust_remote_code=self.trust_remote_code,
                tensor_parallel_size=self.tensor_parallel_size,
                **{name: value for name, value in given.items() if value is not None},
                **self.extra_kwargs,
            )
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"model={self.model!r} can't be loaded: {error}") from error
        return Engine(model, model.get_tokenizer(), model.model_config.max_model_len)

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        inputs: list[FormattedInput],
        num_generations: int = 1,
        max_new_tokens: TokensOfAnswer = MAX_NEW_TOKENS,
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
        skip_special_tokens: SkipSpecialTokens = True,
        chat_template_kwargs: ChatTemplateKwargs = None,
        regex: Regex = None,
        choice: Choice = None,
        grammar: Ebnf = None,
        structured_output: JSONSchema | None = None,
    ) -> list[GenerateOutput]:
        """Answer chats and bare prompts, in their order, with `num_generations` texts each."""
        return self.generated(inputs, num_generations, keywords_in(locals()))

    def write(
        self, engine: Engine, prompts: Sequence[Prompt], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[list[Written] | LLMError]:
        # Not several of one request: vLLM refuses them at temperature 0, and what it has computed of a prompt it keeps.
        rows = [(prompt, number) for prompt in prompts for number in range(num_generations)]
        return grouped(self._write(engine, rows, keywords), num_generations)

    def _write(
        self, engine: Engine, rows: Sequence[tuple[Prompt, int]], keywords: Mapping[str, Any]
    ) -> list[Written | LLMError]:
        library = package("vllm", EXTRA, type(self).__name__)
        given = {
            **engine.model.model_config.get_diff_sampling_param(),
            **{name: keywords[name] for name in SAMPLING if keywords[name] is not None},
            "stop_token_ids": _stop_tokens(engine.tokenizer, keywords),
        }
        try:
            sampling = [
                library.SamplingParams(
                    **{
                        **counted_on(given, number),
                        "max_tokens": prompt.limit,
                        "structured_outputs": _structured(prompt.constraint),
                    }
                )
                for prompt, number in rows
            ]
            asked = [{"prompt_token_ids": prompt.tokens} for prompt, _ in rows]
            answers = engine.model.generate(asked, sampling, use_tqdm=False)
        except (ValueError, package("vllm.exceptions", EXTRA, type(self).__name__).VLLMClientError) as error:
            # vLLM refuses all for one that it can't answer.
            if len(rows) > 1:
                return [each for row in rows for each in self._write(engine, [row], keywords)]
            return [BadRequestError(f"vLLM refuses the request: {error}")]
        written = [answer.outputs[0] for answer in answers]
        return [Written(each.text, len(each.token_ids), each.finish_reason) for each in written]


def _stop_tokens(tokenizer: Any, keywords: Mapping[str, Any]) -> list[int]:
    """The tokens at which an answer ends: stop strings that are special tokens too, which the text doesn't show."""
    stop: str | list[str] = keywords["stop"] or []
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    named = [special[each] for each in ([stop] if isinstance(stop, str) else stop) if each in special]
    return [*(keywords["stop_token_ids"] or []), *named]


def _structured(constraint: Constraint | None) -> Any:
    if constraint is None:
        return None
    kinds = package("vllm.sampling_params", EXTRA, "vLLM").StructuredOutputsParams
    if constraint.kind == "structured_output":
        return kinds(json=closed(constraint.value))
    return kinds(**{constraint.kind: constraint.value})
