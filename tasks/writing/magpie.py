"""Magpie: instructions that an aligned model makes up when it's given nothing but the opening of a user's turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import Field, model_validator

from llms.parameters import Configurable, ParameterError, Unasked, short
from llms.typing import ChatItem, ChatType
from tasks.base import UnreadableAnswerError
from tasks.cells import optional_text_in
from tasks.random_choices import random_for
from tasks.reading.replies import without_thoughts
from tasks.rounds import RoundsTask, Talk
from tasks.sources.generators import GeneratorTask
from tasks.typing import Columns, Row
from tasks.writing.bare_prompts import cut_at, refuse, warn_of_ends
from tasks.writing.chat_templates import CHAT_TEMPLATES, ChatTemplate, Family

TemplateName: TypeAlias = Literal[Family, "own"]

MULTI_TURN = (
    "You are a helpful assistant. A user talks with you over several turns: they begin with a question or a request,"
    " and each of their next messages takes up what you have said, with a further question or a wish about the same"
    " matter. You answer each with care and in full."
)
"""The system prompt for several turns, where none is given, as in the paper: it keeps the user to the matter."""


class SystemPrompt(Configurable):
    """One of several system prompts."""

    name: Annotated[str, Field(title="Name", description="Goes into the column system_prompt_key.")] = ""
    text: Annotated[str, Field(min_length=1, title="Text")]
    weight: Annotated[float, Field(gt=0, title="Weight", description="How often, beside the others.")] = 1.0


class Magpie(RoundsTask):
    """Has an aligned model make up an instruction, and answer it: alone, or in a conversation of several turns.

    The model's chat template is written up to the opening of the user's turn, and the model goes on with what a user
    would write. No chat API takes that, so the prompt is bare text and goes to completions: use an open model on vLLM
    or another server with OpenAI's API, online or in batch. `chat_template` names the model's family. For another one
    write `own_template`; where its `user_start`, the pre-query text, is all that is known, ask for `only_instruction`.

    The LLM has to be told where a turn ends and how long it may be, and to leave special tokens in the text, as it
    can't stop at one that it doesn't see. `stop_strings` has the right strings: `generation_kwargs={"temperature": 1.0,
    "max_new_tokens": 1024, "stop": [...], "extra_body": {"skip_special_tokens": False}}`. Text after a stop string is
    cut off here in any case. Rows are asked for with the same prompt, so a fixed `seed` or temperature 0 of the LLM
    would make them all alike.

    `system_prompt` stands before the conversation; of several `system_prompts` each generation draws one, by its
    weight. They can be given as distilabel takes them too: `system_prompt=[text, ...]`, `{name: text}` or
    `{name: (text, weight)}`. No template's own default is put in. There is no place for `examples`.

    Input columns:
        system_prompt (optional): goes before the Task's own.

    Output columns:
        instruction: what the user says.
        response: the answer; not with `only_instruction`.
        conversation (n_turns above 1): in place of these a list of `{"role", "content"}`, which ends with the user's
            message with `end_with_user`, and begins with the system prompt with `include_system_prompt`.
        system_prompt_key (system_prompts with names): the name of the one that was drawn; None for a row's own.
        model_name: the model that made it up.

    Source: Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing
    (https://arxiv.org/abs/2406.08464).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import Magpie
        >>> task = Magpie(llm=OpenAILLM(model="Qwen/Qwen2.5-7B-Instruct"), chat_template="qwen2", only_instruction=True)
        >>> task.format_input({"system_prompt": "You are a mountain guide."})
        '<|im_start|>system\\nYou are a mountain guide.<|im_end|>\\n<|im_start|>user\\n'
        >>> task.stop_strings
        ['<|im_end|>', '<|endoftext|>', '<|im_start|>']
        >>> task.format_output("How high is K2?<|im_end|>", {})
        {'instruction': 'How high is K2?'}
    """

    form_first = ("llm", "chat_template")
    form_more = ("own_template", "end_with_user", "include_system_prompt", "only_instruction", "seed")
    chat_template: Annotated[TemplateName, Field(title="Chat template", description="The family of the LLM's model.")]
    own_template: Annotated[ChatTemplate, Field(title="Own template", description="For the chat template `own`.")] = (
        ChatTemplate()
    )
    n_turns: Annotated[int, Field(ge=1, title="Turns", description="Of the user. Above 1: conversations.")] = 1
    end_with_user: Annotated[
        bool, Field(title="End with the user", description="Leave a conversation's last message unanswered.")
    ] = False
    include_system_prompt: Annotated[
        bool, Field(title="Keep the system prompt", description="As the first message of a conversation.")
    ] = False
    only_instruction: Annotated[bool, Field(title="Instructions only", description="Without responses.")] = False
    system_prompts: Annotated[
        list[SystemPrompt], Field(title="System prompts", description="Several, of which one is drawn each time.")
    ] = []
    seed: Annotated[int, Field(title="Seed", description="Decides which system prompts are drawn.")] = 0

    @model_validator(mode="before")
    @classmethod
    def _take_several_system_prompts(cls, data: Any) -> Any:
        return with_several(cast("Row", data)) if isinstance(data, Mapping) else data

    def merged(self, overrides: Mapping[str, Any]) -> Self:
        return super().merged(with_several(overrides))

    def set_runtime_parameters(self, runtime_parameters: Mapping[str, Any]) -> None:
        super().set_runtime_parameters(with_several(runtime_parameters))

    @property
    def template(self) -> ChatTemplate:
        """The chat template in use."""
        return self.own_template if self.chat_template == "own" else CHAT_TEMPLATES[self.chat_template]

    @property
    def stop_strings(self) -> list[str]:
        """Where a turn ends: the `stop` of the LLM's `generation_kwargs`. What comes after is cut off anyway."""
        return self.template.stop

    @property
    def inputs(self) -> Columns:
        return {"system_prompt": False}

    @property
    def outputs(self) -> Columns:
        said = ["conversation"] if self.n_turns > 1 else ["instruction"]
        if self.n_turns == 1 and not self.only_instruction:
            said.append("response")
        return [*said, *(["system_prompt_key"] if self._named else []), "model_name"]

    @property
    def _named(self) -> bool:
        return any(each.name for each in self.system_prompts)

    def load(self) -> None:
        """Raises ParameterError where parameters don't fit each other."""
        refuse(self, "examples")
        self._check_turns()
        template = self.template
        if not template.user_start:
            raise ParameterError(f"{self.name}: own_template needs user_start, the text that a user's turn begins with")
        if not self.only_instruction and not template.stop:
            raise ParameterError(f"{self.name}: own_template has no stop, so no turn would end before the next one")
        if self.system_prompt and self.system_prompts:
            raise ParameterError(f"{self.name}: give system_prompt or system_prompts, not both")
        warn_of_ends(self, self.stop_strings)
        super().load()

    def _check_turns(self) -> None:
        if self.n_turns > 1 and self.only_instruction:
            raise ParameterError(f"{self.name}: only_instruction is for n_turns=1, got n_turns={self.n_turns}")
        for name in ("end_with_user", "include_system_prompt"):
            if self.n_turns == 1 and getattr(self, name):
                raise ParameterError(f"{self.name}: {name} is for conversations, set n_turns above 1 with it")

    def format_input(self, input: Row) -> str:
        return self.template.opened([], "user", self._system_prompt(input, 0)[1])

    def talk(self, row: Row, generation: int) -> Talk:
        key, system = self._system_prompt(row, generation)
        turns: ChatType = []
        for number in range(1, self.n_turns + 1):
            turns.append(self._turn("user", (yield self.template.opened(turns, "user", system))))
            if self.only_instruction or (self.end_with_user and number == self.n_turns):
                break
            turns.append(self._turn("assistant", (yield self.template.opened(turns, "assistant", system))))
        return {**self._columns(turns, system), **({"system_prompt_key": key} if self._named else {})}

    def _turn(self, role: Literal["user", "assistant"], output: str | None) -> ChatItem:
        """A turn as the model wrote it, up to its end. Raises UnreadableAnswerError where it's empty."""
        text = ""
        with suppress(UnreadableAnswerError):
            text = without_thoughts(cut_at(output or "", self.stop_strings)).strip()
        if not text:
            raise UnreadableAnswerError(f"the {role}'s turn is empty, or thoughts alone: got {short(output)}")
        return ChatItem(role=role, content=text)

    def _columns(self, turns: ChatType, system: str | None) -> Row:
        if self.n_turns > 1:
            first = [ChatItem(role="system", content=system)] if system and self.include_system_prompt else []
            return {"conversation": [*first, *turns]}
        return dict(zip(("instruction", "response"), (turn["content"] for turn in turns), strict=False))

    def _system_prompt(self, row: Row, generation: int) -> tuple[str | None, str | None]:
        """The name and the text of the system prompt: the row's own, one that is drawn, or the Task's."""
        own = optional_text_in(row, "system_prompt")
        if own is not None:
            return None, own
        if self.system_prompts:
            weights = [each.weight for each in self.system_prompts]
            drawn = random_for(row, self.seed, generation).choices(self.system_prompts, weights)[0]
            return drawn.name or None, drawn.text
        return None, self.system_prompt or (MULTI_TURN if self.n_turns > 1 else None)


class MagpieGenerator(Magpie, GeneratorTask):
    """Has an aligned model make up `num_rows` instructions or conversations, from nothing: `Magpie` without rows.

    Output columns:
        instruction, response, conversation, system_prompt_key: as `Magpie` gives them.
        model_name: the model that made them up.

    Source: Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing
    (https://arxiv.org/abs/2406.08464).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import MagpieGenerator
        >>> llm = OpenAILLM(model="meta-llama/Llama-3.1-8B-Instruct")
        >>> task = MagpieGenerator(llm=llm, chat_template="llama3", num_rows=120)
        >>> len(list(task.seed_rows()))
        120
        >>> task.format_input({"number": 0})
        '<|start_header_id|>user<|end_header_id|>\\n\\n'
    """

    form_first = ("llm", "chat_template", "num_rows")
    num_rows: Annotated[int, Field(ge=1, title="Rows", description="How many to make up."), Unasked()]

    @property
    def inputs(self) -> Columns:
        return []

    def seed_rows(self) -> Iterator[Row]:
        return ({"number": number} for number in range(self.num_rows))


def with_several(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with a `system_prompt` that holds several, as distilabel takes them, in `system_prompts`."""
    given = parameters.get("system_prompt")
    if isinstance(given, str) or not isinstance(given, (Sequence, Mapping)):
        return dict(parameters)
    if parameters.get("system_prompts"):
        raise ParameterError("system_prompt: give several system prompts here or in system_prompts, not in both")
    if isinstance(given, Mapping):
        several = [named(name, value) for name, value in cast("Mapping[str, Any]", given).items()]
    else:
        several = [{"text": text} for text in cast("Sequence[Any]", given)]
    return {**parameters, "system_prompt": None, "system_prompts": several}


def named(name: str, value: Any) -> dict[str, Any]:
    """A system prompt from its text, or from its text and its weight. Raises ParameterError."""
    if isinstance(value, str):
        return {"name": name, "text": value}
    if not isinstance(value, (list, tuple)) or len(parts := list(cast("Sequence[Any]", value))) != 2:
        raise ParameterError(f"system_prompt: expected a text, or text and weight, for {name!r}, got {value!r}")
    return {"name": name, "text": parts[0], "weight": parts[1]}
