"""Language models of Apple's library MLX, run by this process: https://github.com/ml-explore/mlx-lm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from llms.errors import LLMError, ModelNotFoundError
from llms.extras import package
from llms.providers.engines import (
    MAX_NEW_TOKENS,
    Choice,
    Constraint,
    Engine,
    EngineLLM,
    Lark,
    Prompt,
    SkipSpecialTokens,
    Text,
    TokensOfAnswer,
    Written,
    grouped,
)
from llms.providers.grammars import Grammars
from llms.providers.parameters import (
    ChatTemplateKwargs,
    MinP,
    Regex,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    keywords_in,
)
from llms.typing import FormattedInput, GenerateOutput, JSONSchema

EXTRA = "mlx"
TINY = 1e-6
REPETITION_CONTEXT = 1 << 30
"""Tokens that the penalty for repetitions looks back on: all, as other engines do."""


class MlxLLM(EngineLLM):
    """A model that Apple's library MLX runs here, on a Mac's GPU.

    It needs the extra `mlx`. A quantized model is one of the Hub's: `mlx-community` has many. Sampling parameters that
    aren't given leave the probabilities as the model has them.

    Example:
        >>> llm = MlxLLM(model="mlx-community/Qwen3-4B-4bit", generation_kwargs={"temperature": 0.6, "top_p": 0.95})
        >>> llm.model_name
        'mlx-community/Qwen3-4B-4bit'
    """

    form_title = "MLX, in this process"
    form_first = ("model",)

    provider: Annotated[Literal["mlx"], Field(title="Provider")] = "mlx"  # pyright: ignore[reportIncompatibleVariableOverride]
    adapter_path: Annotated[
        str | None, Field(title="Adapter", description="The folder of a LoRA adapter, which is laid over the model.")
    ] = None

    def make(self) -> Engine:
        library = package("mlx_lm", EXTRA, type(self).__name__)
        try:
            model, tokenizer = library.load(
                self._folder(),
                tokenizer_config={"trust_remote_code": self.trust_remote_code},
                adapter_path=self.adapter_path,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
            )
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"model={self.model!r} can't be loaded: {error}") from error
        context = getattr(model.args, "max_position_embeddings", None)
        # Transformers' own, without what MLX puts around it.
        engine = Engine(model, tokenizer._tokenizer, context)
        engine.more["ends"] = frozenset(tokenizer.eos_token_ids)
        return engine

    def _folder(self) -> str:
        """The model, downloaded with a key of its own, where there is one: MLX takes none."""
        if self.token is None:
            return self.model
        import huggingface_hub

        hub: Any = huggingface_hub
        return hub.snapshot_download(self.model, revision=self.revision, token=self.token.get_secret_value())

    def let_go(self) -> None:
        package("mlx.core", EXTRA, type(self).__name__).clear_cache()

    def generate(  # pyright: ignore[reportIncompatibleMethodOverride] -- its keywords are the runtime parameters
        self,
        inputs: list[FormattedInput],
        num_generations: int = 1,
        max_new_tokens: TokensOfAnswer = MAX_NEW_TOKENS,
        temperature: Temperature = None,
        top_p: TopP = None,
        top_k: TopK = None,
        min_p: MinP = None,
        repetition_penalty: RepetitionPenalty = None,
        stop: Stop = None,
        seed: Seed = None,
        skip_special_tokens: SkipSpecialTokens = True,
        chat_template_kwargs: ChatTemplateKwargs = None,
        regex: Regex = None,
        choice: Choice = None,
        grammar: Lark = None,
        structured_output: JSONSchema | None = None,
    ) -> list[GenerateOutput]:
        """Answer chats and bare prompts, in their order, with `num_generations` texts each."""
        return self.generated(inputs, num_generations, keywords_in(locals()))

    def check(self, engine: Engine, constraint: Constraint) -> None:
        self._grammars(engine).check(constraint)

    def _grammars(self, engine: Engine) -> Grammars:
        if "grammars" not in engine.more:
            ends, size = sorted(engine.more["ends"]), engine.model.args.vocab_size
            engine.more["grammars"] = Grammars(engine.tokenizer, size, ends, EXTRA, type(self).__name__)
        return engine.more["grammars"]

    def write(
        self, engine: Engine, prompts: Sequence[Prompt], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[list[Written] | LLMError]:
        user = type(self).__name__
        core, sampling = package("mlx.core", EXTRA, user), package("mlx_lm.sample_utils", EXTRA, user)
        ends = engine.more["ends"]
        rows = [(prompt, number) for prompt in prompts for number in range(num_generations)]
        texts = [Text(engine.tokenizer, prompt, ends, keywords) for prompt, _ in rows]
        penalty = sampling.make_logits_processors(
            repetition_penalty=keywords["repetition_penalty"], repetition_context_size=REPETITION_CONTEXT
        )
        held = [
            [_Held(core, self._grammars(engine).matcher(prompt.constraint))] if prompt.constraint else []
            for prompt, _ in rows
        ]
        shared = _Sampler(core, sampling, keywords, None)
        seed = keywords["seed"]
        generator = package("mlx_lm.generate", EXTRA, user).BatchGenerator(
            engine.model, stop_tokens=[[each] for each in ends]
        )
        numbers = generator.insert(
            [prompt.tokens for prompt, _ in rows],
            [prompt.limit for prompt, _ in rows],
            samplers=[
                shared if seed is None else _Sampler(core, sampling, keywords, seed + number) for _, number in rows
            ],
            logits_processors=[[*penalty, *each] for each in held],
        )
        writing = dict(zip(numbers, texts, strict=True))
        try:
            while responses := generator.next_generated():
                for response in responses:
                    text = writing[response.uid]
                    text.add(response.token)
                    if text.finish_reason is not None and response.finish_reason is None:
                        generator.remove([response.uid])
        finally:
            generator.close()
        return grouped([text.written() for text in texts], num_generations)


class _Held:
    """Leaves the tokens by which one answer keeps to its form."""

    def __init__(self, core: Any, matcher: Any) -> None:
        self._core, self._matcher, self._begun = core, matcher, False

    def __call__(self, tokens: Any, scores: Any) -> Any:
        import numpy

        if self._begun:
            self._matcher.consume_token(int(tokens[-1]))
        self._begun = True
        allowed = numpy.zeros(scores.shape[-1], dtype=bool)
        fits = numpy.frombuffer(self._matcher.compute_logit_bias(), dtype=numpy.uint8)[: len(allowed)]
        allowed[: len(fits)] = fits > 0
        return self._core.where(self._core.array(allowed), scores, -self._core.inf)


class _Sampler:
    """Draws tokens by their log-probabilities: with a seed, those of one text, whatever is written beside it."""

    def __init__(self, core: Any, sampling: Any, keywords: Mapping[str, Any], seed: int | None) -> None:
        self._core, self._sampling, self._keywords = core, sampling, keywords
        self._key = None if seed is None else core.random.key(seed % 2**64)

    def __call__(self, logprobs: Any) -> Any:
        core, wanted = self._core, self._keywords
        temperature = 1.0 if wanted["temperature"] is None else wanted["temperature"]
        if temperature == 0:
            return core.argmax(logprobs, axis=-1)
        logprobs = logprobs / temperature
        logprobs = logprobs - core.logsumexp(logprobs, axis=-1, keepdims=True)
        if wanted["top_k"] is not None and wanted["top_k"] < logprobs.shape[-1]:
            logprobs = self._sampling.apply_top_k(logprobs, wanted["top_k"])
        if wanted["top_p"] is not None and wanted["top_p"] < 1:
            logprobs = self._sampling.apply_top_p(logprobs, max(wanted["top_p"], TINY))
        if wanted["min_p"]:
            logprobs = self._sampling.apply_min_p(logprobs, wanted["min_p"])
        key = None
        if self._key is not None:
            self._key, key = core.random.split(self._key)
        return core.random.categorical(logprobs, key=key)
