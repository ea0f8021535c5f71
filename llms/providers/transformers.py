"""Language models of the library Transformers, run by this process: https://huggingface.co/docs/transformers."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field

from llms.base import TOKEN_LIMIT
from llms.errors import ContextLengthError, LLMError, ModelNotFoundError
from llms.extras import package
from llms.parameters import Unasked
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
from llms.typing import ChatType, FormattedInput, GenerateOutput, HiddenState, JSONSchema

logger = logging.getLogger(__name__)

EXTRA = "transformers"
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
"""What torch says of it on GPUs, CPUs and Macs."""
TINY = 1e-20

Row = TypeVar("Row")
Result = TypeVar("Result")


class TransformersLLM(EngineLLM):
    """A model that the library Transformers runs here.

    It needs the extra `transformers`. Where the GPU's memory isn't enough for `input_batch_size` inputs at once, it
    takes half of them from then on.

    Sampling parameters that aren't given are those of the model's `generation_config.json`, as far as it samples by
    it; the temperature is 1 otherwise. Each answer is drawn for itself: with a `seed` it doesn't depend on which
    others are asked together with it, but for the rounding of what is computed.

    Example:
        >>> llm = TransformersLLM(
        ...     model="Qwen/Qwen3-0.6B", dtype="bfloat16", generation_kwargs={"max_new_tokens": 256, "temperature": 0.6}
        ... )
        >>> llm.model_name
        'Qwen/Qwen3-0.6B'
    """

    form_title = "Transformers, in this process"
    form_first = ("model", "device")

    provider: Annotated[Literal["transformers"], Field(title="Provider")] = "transformers"  # pyright: ignore[reportIncompatibleVariableOverride]
    tokenizer: Annotated[
        str | None, Field(title="Tokenizer", description="Another than the model's: of the Hub, or a folder.")
    ] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Field(title="Numbers", description="Of the weights. auto: as they are kept."),
    ] = "auto"
    device: Annotated[
        str | None,
        Field(title="Device", description="Such as cpu, cuda, cuda:1, mps. Empty: the best there is."),
        Unasked(),
    ] = None
    device_map: Annotated[
        str | dict[str, Any] | None,
        Field(title="Device map", description="For several devices, such as auto. In place of a device."),
        Unasked(),
    ] = None
    model_kwargs: Annotated[
        dict[str, Any],
        Field(title="Further arguments", description="Of from_pretrained, such as quantization_config."),
    ] = {}

    def make(self) -> Engine:
        torch, library = self._libraries()
        where = {"revision": self.revision or "main", "token": self.token.get_secret_value() if self.token else None}
        trust = {"trust_remote_code": self.trust_remote_code}
        more = {"device_map": self.device_map} if self.device_map else {}
        try:
            model = library.AutoModelForCausalLM.from_pretrained(
                self.model, dtype=self.dtype, **where, **trust, **more, **self.model_kwargs
            )
            tokenizer = library.AutoTokenizer.from_pretrained(
                self.tokenizer or self.model, **({} if self.tokenizer else where), **trust
            )
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(f"model={self.model!r} can't be loaded: {error}") from error
        if not self.device_map:
            model = model.to(self.device or _best_device(torch))
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return Engine(model.eval(), tokenizer, context)

    def _libraries(self) -> tuple[Any, Any]:
        """torch and Transformers. Raises MissingPackageError."""
        return package("torch", EXTRA, type(self).__name__), package("transformers", EXTRA, type(self).__name__)

    def let_go(self) -> None:
        torch, _ = self._libraries()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

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

    def get_last_hidden_state(self, inputs: list[ChatType]) -> list[HiddenState]:
        """The last hidden state of each chat, up to where its answer would begin: tokens by dimensions.

        Raises:
            ContextLengthError: a chat is longer than the model takes.
            BadRequestError: the chat template can't take a chat.
            LLMError: the memory isn't enough for one of them.
        """
        engine = self.loaded()
        torch, _ = self._libraries()
        chats = [self.tokens_of(engine, each) for each in inputs]
        longest = max(map(len, chats), default=0)
        if engine.context is not None and longest > engine.context:
            raise ContextLengthError(f"a chat has {longest:,} tokens; {self.model} takes {engine.context:,}")

        def states(part: Sequence[list[int]]) -> list[HiddenState]:
            tokens, mask = _batch(torch, engine, part)
            with torch.inference_mode():
                states = engine.model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
            return [state[-len(each) :].float().tolist() for state, each in zip(states, part, strict=True)]

        found: list[HiddenState] = []
        with engine.lock:
            for start in range(0, len(chats), self.input_batch_size):
                for each in _in_memory(engine, chats[start : start + self.input_batch_size], states):
                    if isinstance(each, LLMError):
                        raise each
                    found.append(each)
        return found

    def check(self, engine: Engine, constraint: Constraint) -> None:
        self._grammars(engine).check(constraint)

    def _grammars(self, engine: Engine) -> Grammars:
        if "grammars" not in engine.more:
            size = engine.model.config.get_text_config().vocab_size
            ends = _ends(engine)
            engine.more["grammars"] = Grammars(engine.tokenizer, size, ends, EXTRA, type(self).__name__)
        return engine.more["grammars"]

    def write(
        self, engine: Engine, prompts: Sequence[Prompt], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[list[Written] | LLMError]:
        rows = [_Row(prompt, number) for prompt in prompts for number in range(num_generations)]
        # A text that has ended is gone on with as long as those beside it, and must not leave the model's context.
        roomy = [place for place, row in enumerate(rows) if row.prompt.limit == keywords[TOKEN_LIMIT]]
        tight = [[place] for place in sorted(set(range(len(rows))) - set(roomy))]
        written: dict[int, Written | LLMError] = {}
        for places in [roomy, *tight]:
            part = [rows[place] for place in places]
            found = _in_memory(engine, part, lambda some: self._write(engine, some, keywords))
            written |= zip(places, found, strict=True)
        return grouped([written[place] for place in range(len(rows))], num_generations)

    def _write(self, engine: Engine, rows: Sequence[_Row], keywords: Mapping[str, Any]) -> list[Written | LLMError]:
        torch, library = self._libraries()
        tokens, mask = _batch(torch, engine, [row.prompt.tokens for row in rows])
        matchers = [
            self._grammars(engine).matcher(row.prompt.constraint) if row.prompt.constraint else None for row in rows
        ]
        writing = _Writing(torch, library, engine, rows, mask, matchers, keywords)
        engine.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            # What is drawn is the likeliest of the scores that `choose` gives, so nothing else is to change them.
            generation_config=library.GenerationConfig(
                do_sample=False,
                repetition_penalty=1.0,
                max_new_tokens=max(row.prompt.limit for row in rows),
                eos_token_id=_ends(engine),
                pad_token_id=_padding(engine),
            ),
            logits_processor=library.LogitsProcessorList([writing.choose]),
            stopping_criteria=library.StoppingCriteriaList([writing.ended]),
        )
        return writing.written()


class _Row(NamedTuple):
    """One of the texts that are asked for."""

    prompt: Prompt
    number: int
    """Which of the generations of its prompt."""


class _Writing:
    """Texts that are written side by side: which token follows, and where each of them ends."""

    def __init__(
        self,
        torch: Any,
        library: Any,
        engine: Engine,
        rows: Sequence[_Row],
        mask: Any,
        matchers: Sequence[Any],
        keywords: Mapping[str, Any],
    ) -> None:
        self._torch, self._mask, self._matchers = torch, mask, matchers
        ends = frozenset(_ends(engine))
        self._texts = [Text(engine.tokenizer, row.prompt, ends, keywords) for row in rows]
        own = engine.model.generation_config

        def said(name: str) -> Any:
            given = keywords[name]
            return given if given is not None else getattr(own, name, None) if own.do_sample else None

        temperature = said("temperature")
        self._temperature: float = 1.0 if temperature is None else temperature
        self._penalty: float = keywords["repetition_penalty"] or getattr(own, "repetition_penalty", None) or 1.0
        warpers = {
            "top_k": library.TopKLogitsWarper,
            "top_p": library.TopPLogitsWarper,
            "min_p": library.MinPLogitsWarper,
        }
        self._warpers = [kind(said(name)) for name, kind in warpers.items() if said(name) is not None]
        seed = keywords["seed"]
        self._generators: list[Any] = (
            []
            if seed is None
            else [torch.Generator(device=mask.device).manual_seed((seed + row.number) % 2**63) for row in rows]
        )

    def choose(self, tokens: Any, scores: Any) -> Any:
        """Scores of which the highest is that of the token which follows."""
        torch = self._torch
        if self._penalty != 1:
            scores = self._penalized(tokens, scores)
        for row, matcher in enumerate(self._matchers):
            if matcher is not None and self._texts[row].finish_reason is None:
                allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8) > 0
                size = min(len(allowed), scores.shape[1])
                scores[row, :size].masked_fill_(~allowed[:size].to(scores.device), -torch.inf)
                scores[row, size:] = -torch.inf
        if self._temperature == 0:
            return scores
        scores = scores / self._temperature
        for warper in self._warpers:
            scores = warper(tokens, scores)
        # The highest of log-probabilities with Gumbel noise is a draw by these probabilities.
        noise = torch.empty_like(scores)
        if self._generators:
            for each, generator in zip(noise, self._generators, strict=True):
                each.exponential_(generator=generator)
        else:
            noise.exponential_()
        return scores - noise.clamp_min_(TINY).log()

    def _penalized(self, tokens: Any, scores: Any) -> Any:
        torch, start = self._torch, self._mask.shape[1]
        # What was put before a shorter prompt isn't part of it.
        prompt = torch.where(self._mask.bool(), tokens[:, :start], tokens[:, start - 1 : start])
        seen = torch.cat([prompt, tokens[:, start:]], dim=1)
        found = torch.gather(scores, 1, seen)
        found = torch.where(found < 0, found * self._penalty, found / self._penalty)
        return scores.scatter(1, seen, found)

    def ended(self, tokens: Any, scores: Any, **_: Any) -> Any:
        """By text, whether it has ended."""
        for text, matcher, token in zip(self._texts, self._matchers, tokens[:, -1].tolist(), strict=True):
            if text.finish_reason is None:
                text.add(token)
                if matcher is not None and text.finish_reason is None:
                    matcher.consume_token(token)
        return self._torch.tensor([text.finish_reason is not None for text in self._texts], device=tokens.device)

    def written(self) -> list[Written | LLMError]:
        return [
            LLMError(f"the answer left its form: {matcher.get_error()}")
            if matcher is not None and matcher.is_error()
            else text.written()
            for text, matcher in zip(self._texts, self._matchers, strict=True)
        ]


def _best_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _ends(engine: Engine) -> list[int]:
    """The tokens that end an answer."""
    own = engine.model.generation_config.eos_token_id
    ends: list[int | None] = [*(own if isinstance(own, list) else [own]), engine.tokenizer.eos_token_id]
    return sorted({each for each in ends if each is not None})


def _padding(engine: Engine) -> int:
    """The token that is put before shorter prompts. It's masked, so that any would do."""
    return next((each for each in (engine.tokenizer.pad_token_id, *_ends(engine)) if each is not None), 0)


def _batch(torch: Any, engine: Engine, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Rows of tokens as long as the longest, filled up on the left, and where they are tokens of their own."""
    longest = max(map(len, rows))
    padding = _padding(engine)
    tokens = [[*[padding] * (longest - len(row)), *row] for row in rows]
    mask = [[*[0] * (longest - len(row)), *[1] * len(row)] for row in rows]
    device = engine.model.device
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _in_memory(
    engine: Engine, rows: Sequence[Row], work: Callable[[Sequence[Row]], Sequence[Result | LLMError]]
) -> list[Result | LLMError]:
    """What `work` gives for `rows`, so many at a time that the memory is enough; an error where it isn't for one."""
    results: list[Result | LLMError] = []
    while len(results) < len(rows):
        part = rows[len(results) :][: engine.more.get("at_once", len(rows))]
        try:
            results += work(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
                raise
            problem = str(error) or "out of memory"
        # Not while the error is there, which holds what it was computed with.
        gc.collect()
        if engine.model.device.type == "cuda":
            package("torch", EXTRA, "").cuda.empty_cache()
        if len(part) == 1:
            results.append(LLMError(f"the memory isn't enough for this prompt alone: {problem}"))
        else:
            engine.more["at_once"] = len(part) // 2
            logger.warning(
                "The memory isn't enough for %d texts at once; %d from now on (input_batch_size says how many inputs"
                " are tried): %s",
                len(part),
                len(part) // 2,
                problem,
            )
    return results
