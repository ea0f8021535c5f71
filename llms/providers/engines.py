"""Language models that this process runs itself: what their adapters have in common, whatever engine runs them.

An adapter loads a model (`make`) and writes on after prompts that are tokens by then (`write`). What is here makes
tokens of chats, keeps what is too long from the others, and makes outputs of what was written.
"""

from __future__ import annotations

import gc
import threading
from abc import abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, cast
from weakref import WeakValueDictionary

from pydantic import Field, PrivateAttr, SecretStr

from llms.base import LLM, TOKEN_LIMIT, failed_output, split_input
from llms.errors import BadRequestError, ContextLengthError, LLMError
from llms.fingerprints import fingerprint
from llms.loop import run_sync
from llms.parameters import Unasked, import_path, short
from llms.providers.messages import calls_of, text_of
from llms.providers.openai import CHAT, parse_answer
from llms.references import plain
from llms.typing import FormattedInput, GenerateOutput

MAX_NEW_TOKENS = 1024
"""Where nothing is said: an engine would go on to the end of its context."""
NOT_LOADED = frozenset({"generation_kwargs", "structured_output", "input_batch_size", "chat_template"})
"""The fields that make no other model of what is loaded."""
FROM_A_FOLDER = ("model", "tokenizer", "adapter_path")
"""The fields, as far as an adapter has them, that name something of the Hub or of this machine."""

TokensOfAnswer: TypeAlias = Annotated[int, Field(ge=1, description="The most tokens of one answer.")]
SkipSpecialTokens: TypeAlias = Annotated[bool, Field(description="Leave the model's special tokens out of the text.")]
Lark: TypeAlias = Annotated[str | None, Field(description="A grammar that every answer fits, in llguidance's Lark.")]
Choice: TypeAlias = Annotated[list[str] | None, Field(description="One of these texts is the answer.")]


class Constraint(NamedTuple):
    """What an answer is held to."""

    kind: Literal["structured_output", "regex", "choice", "grammar"]
    value: Any


class Prompt(NamedTuple):
    """An input, as an engine is given it."""

    tokens: list[int]
    limit: int
    """The most tokens that may follow: what was asked for, or what the context has room for."""
    constraint: Constraint | None
    thinks: bool
    """Whether it ends in the opening of the model's thoughts, as the chat templates of some models do."""


class Written(NamedTuple):
    """What an engine wrote after a prompt, once."""

    text: str
    tokens: int
    finish_reason: str
    """`stop` or `length`."""


class Text:
    """A text that an engine writes token by token: where it ends, and what it says."""

    def __init__(self, tokenizer: Any, prompt: Prompt, ends: Container[int], keywords: Mapping[str, Any]) -> None:
        """
        Args:
            tokenizer: Transformers' own.
            prompt: what it follows.
            ends: the tokens that end an answer.
            keywords: `stop` and `skip_special_tokens`.
        """
        self._tokenizer, self._prompt, self._ends = tokenizer, prompt, ends
        stop: str | list[str] = keywords["stop"] or []
        self._stops = [stop] if isinstance(stop, str) else stop
        self._skips: bool = keywords["skip_special_tokens"]
        self._tokens: list[int] = []
        self.finish_reason: str | None = None
        """None where it goes on."""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        if token in self._ends or (self._stops and self._stopped()):
            self.finish_reason = "stop"
        elif len(self._tokens) >= self._prompt.limit:
            self.finish_reason = "length"

    def _stopped(self) -> bool:
        # A character may be four tokens.
        last = self._tokens[-(4 * max(map(len, self._stops)) + 8) :]
        # A stop string may be a special token.
        text = self._tokenizer.decode(last, skip_special_tokens=False)
        return any(stop in text for stop in self._stops)

    def written(self) -> Written:
        ended = bool(self._tokens) and self._tokens[-1] in self._ends
        said, before = self._tokens[:-1] if ended else self._tokens, self._prompt.tokens[-1:]
        # Some tokenizers take the space off the first token of all.
        whole, begun = (self._decoded(tokens) for tokens in (before + said, before))
        text = whole.removeprefix(begun) if whole.startswith(begun) else self._decoded(said)
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return Written(text[: min(places, default=len(text))], len(self._tokens), self.finish_reason or "length")

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=self._skips)


def grouped(written: Sequence[Written | LLMError], num_generations: int) -> list[list[Written] | LLMError]:
    """What was written, by prompt; an error where one of its texts failed."""
    groups = [written[start : start + num_generations] for start in range(0, len(written), num_generations)]
    return [
        next((each for each in group if isinstance(each, LLMError)), None)
        or [each for each in group if isinstance(each, Written)]
        for group in groups
    ]


@dataclass(eq=False)
class Engine:
    """A loaded model, and its tokenizer as Transformers has it."""

    model: Any
    tokenizer: Any
    context: int | None
    """The most tokens of a prompt and its answer, where it's known."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """What an adapter keeps with it."""


_engines: WeakValueDictionary[str, Engine] = WeakValueDictionary()
_loading = threading.Lock()


class EngineLLM(LLM):
    """A model from the Hugging Face Hub or from a folder, run by this process.

    LLMs of a process with the same settings share what is loaded.
    """

    mixes_schemas: ClassVar[bool] = True

    model: Annotated[str, Field(title="Model", description="Of the Hugging Face Hub, or the path of a folder.")]
    revision: Annotated[str | None, Field(title="Revision", description="A branch, tag or commit. Empty: main.")] = None
    chat_template: Annotated[
        str | None, Field(title="Chat template", description="In Jinja, as Transformers has it. Empty: the model's.")
    ] = None
    trust_remote_code: Annotated[
        bool, Field(title="Run the model's code", description="Code that comes with the model. It can do anything.")
    ] = False
    token: Annotated[
        SecretStr | None, Field(exclude=True, description="The Hub's key itself; better by HF_TOKEN."), Unasked()
    ] = None

    _engine: Engine | None = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return self.model

    @abstractmethod
    def make(self) -> Engine:
        """Load the model. Raises MissingPackageError or ModelNotFoundError."""

    @abstractmethod
    def write(
        self, engine: Engine, prompts: Sequence[Prompt], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[list[Written] | LLMError]:
        """By prompt, what was written after it `num_generations` times, or why nothing was."""

    def check(self, engine: Engine, constraint: Constraint) -> None:
        """Raises BadRequestError for a constraint that can't be held."""

    def generate_outputs(
        self, inputs: Sequence[FormattedInput], num_generations: int = 1, **kwargs: Any
    ) -> list[GenerateOutput]:
        """As `LLM.generate_outputs`. What is loaded for a call stays loaded, with runtime parameters too."""
        asked = self.with_generation_kwargs(kwargs)
        if asked is not self and inputs:
            # By this one: what is loaded ends with the last LLM that has it, and the other is for this call alone.
            asked._engine = self.loaded()
        return run_sync(asked.answer_all(inputs, num_generations))

    def load(self) -> None:
        """Load the weights, or share those that another LLM of the process has loaded.

        Raises:
            MissingPackageError: the engine's package isn't installed.
            ModelNotFoundError: there's no such model, or it can't be loaded.
        """
        self.loaded()

    def loaded(self) -> Engine:
        """What is loaded, by now."""
        if self._engine is None:
            key = f"{import_path(type(self))} {self.model_dump_json(exclude=set(NOT_LOADED))}"
            with _loading:
                self._engine = _engines.get(key) or self.make()
                _engines[key] = self._engine
        return self._engine

    def unload(self) -> None:
        """Give the memory back, where no other LLM of the process shares it."""
        if self._engine is not None:
            self._engine = None
            gc.collect()
            self.let_go()

    def let_go(self) -> None:
        """Give back what the engine's library keeps for itself."""

    def addressee(self) -> dict[str, Any]:
        said = super().addressee()
        known = {name: each for name, each in said.items() if name not in NOT_LOADED}
        files = self.fingerprints()
        return self.service_at(**known, **self._form(), **({"files": files} if files else {}))

    def _form(self) -> dict[str, Any]:
        return {"chat_template": self.chat_template} if self.chat_template else {}

    def fingerprints(self) -> dict[str, str]:
        paths = {name: Path(path) for name in FROM_A_FOLDER if (path := getattr(self, name, None))}
        return {name: fingerprint(path) for name, path in paths.items() if path.exists()}

    def question(self, given: FormattedInput, num_generations: int = 1) -> Any:
        prompt, schema = split_input(given)
        return [prompt, plain(schema or self.structured_output), num_generations]

    def token_limit(self) -> int | None:
        return self.generation_kwargs.get(TOKEN_LIMIT, MAX_NEW_TOKENS)

    def generated(
        self, inputs: Sequence[FormattedInput], num_generations: int, keywords: Mapping[str, Any]
    ) -> list[GenerateOutput]:
        """Answer `inputs`. What can't be asked fails alone."""
        engine = self.loaded()
        outputs: dict[int, GenerateOutput] = {}
        prompts: dict[int, Prompt] = {}
        with engine.lock:
            for place, given in enumerate(inputs):
                try:
                    prompts[place] = self._prompt(engine, given, keywords)
                except LLMError as error:
                    outputs[place] = failed_output(error, num_generations)
            written = self.write(engine, list(prompts.values()), num_generations, keywords) if prompts else []
        for (place, prompt), texts in zip(prompts.items(), written, strict=True):
            try:
                if isinstance(texts, LLMError):
                    raise texts
                outputs[place] = output_of(prompt, texts)
            except LLMError as error:
                outputs[place] = failed_output(error, num_generations)
        return [outputs[place] for place in range(len(inputs))]

    def _prompt(self, engine: Engine, given: FormattedInput, keywords: Mapping[str, Any]) -> Prompt:
        prompt, schema = split_input(given)
        constraint = constraint_in({**keywords, **({"structured_output": schema} if schema else {})})
        if constraint is not None:
            self.check(engine, constraint)
        text, tokens = self._tokens(engine, prompt, keywords.get("chat_template_kwargs") or {})
        room = keywords[TOKEN_LIMIT] if engine.context is None else engine.context - len(tokens)
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {len(tokens):,} tokens; {self.model} takes {engine.context:,} with its answer"
            )
        return Prompt(tokens, min(room, keywords[TOKEN_LIMIT]), constraint, text.rstrip().endswith("<think>"))

    def tokens_of(self, engine: Engine, chat: Any) -> list[int]:
        """The tokens of a chat or a bare prompt. Raises BadRequestError."""
        return self._tokens(engine, chat, {})[1]

    def _tokens(self, engine: Engine, prompt: Any, kwargs: Mapping[str, Any]) -> tuple[str, list[int]]:
        tokenizer = engine.tokenizer
        text: str = prompt if isinstance(prompt, str) else self._rendered(tokenizer, prompt, kwargs)
        # A chat template writes the token of the beginning itself; a bare prompt may.
        begun = not isinstance(prompt, str) or (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
        tokens = cast("list[int]", tokenizer(text, add_special_tokens=not begun)["input_ids"])
        if not tokens:
            raise BadRequestError(f"the prompt has no tokens: got {short(prompt)}")
        return text, tokens

    def _rendered(self, tokenizer: Any, chat: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        if not chat:
            raise BadRequestError("the chat has no messages")
        # The model goes on with what an assistant has begun.
        begun = chat[-1].get("role") == "assistant"
        try:
            return tokenizer.apply_chat_template(
                [_message(message, type(self).__name__) for message in chat],
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=not begun,
                continue_final_message=begun,
                **kwargs,
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise BadRequestError(
                f"the chat template of {self.model} can't take this chat: {error} (give another `chat_template`,"
                " or a bare prompt)"
            ) from error


def _message(message: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """A message as chat templates take it: its content is text, and the arguments of calls are objects."""
    calls = [
        {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls_of(message)
    ]
    return {**message, "content": text_of(message, owner), **({"tool_calls": calls} if calls else {})}


def constraint_in(keywords: Mapping[str, Any]) -> Constraint | None:
    """What the keywords hold an answer to. Raises BadRequestError where there are two such things."""
    kinds: tuple[Any, ...] = ("structured_output", "regex", "choice", "grammar")
    given = [Constraint(kind, keywords[kind]) for kind in kinds if keywords.get(kind)]
    if len(given) > 1:
        raise BadRequestError(f"an answer is held to one of {', '.join(each.kind for each in given)}; leave one out")
    return given[0] if given else None


def output_of(prompt: Prompt, written: Sequence[Written]) -> GenerateOutput:
    """The output of one prompt. Raises EmptyAnswerError where it holds no text."""
    parts = [(None, each.text) if prompt.constraint else parted(each.text, prompt.thinks) for each in written]
    output = parse_answer(
        {
            "choices": [
                {"index": n, "finish_reason": each.finish_reason, "message": {"content": text, "reasoning": thoughts}}
                for n, (each, (thoughts, text)) in enumerate(zip(written, parts, strict=True))
            ],
            "usage": {"prompt_tokens": len(prompt.tokens), "completion_tokens": sum(each.tokens for each in written)},
        },
        CHAT,
    )
    output["statistics"]["output_tokens"] = [each.tokens for each in written]
    return output


def parted(text: str, thinks: bool = False) -> tuple[str | None, str]:
    """What was thought, and the answer after it.

    Args:
        text: as the model wrote it.
        thinks: whether it began within its thoughts.

    Example:
        >>> parted("<think>Madrid?</think>Madrid."), parted("Is it?</think>Yes.", thinks=True), parted("Yes.")
        (('Madrid?', 'Madrid.'), ('Is it?', 'Yes.'), (None, 'Yes.'))
    """
    begun = text.lstrip()
    if not thinks and not begun.startswith("<think>"):
        return None, text
    thoughts, _, answer = begun.removeprefix("<think>").partition("</think>")
    return thoughts.strip() or None, answer.lstrip()
