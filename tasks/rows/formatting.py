"""Steps that write rows in the formats that training tools read."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import Field

from llms.parameters import short
from llms.typing import ChatItem, ChatType
from tasks.cells import any_text_in, chat_in, list_in
from tasks.rows.columns import with_failure
from tasks.steps import Step, failure_in
from tasks.typing import Columns, Row, StepInput, StepOutput

DropTies: TypeAlias = Annotated[
    bool, Field(title="Drop ties", description="Leave out rows without a preference, which hold None otherwise.")
]

PREFERENCE = ("chosen", "chosen_rating", "chosen_model", "rejected", "rejected_rating", "rejected_model")


class Format(Step):
    """A step that adds columns to each row alone.

    A row that failed before gets None in the new columns. A row that can't be formatted fails, with the reason.
    """

    fails_rows = True
    takes_failed_rows = True

    @abstractmethod
    def format_row(self, row: Row) -> Row | None:
        """The columns to add; None leaves the row out.

        Raises:
            ValueError: the row's columns don't hold what is needed.
        """

    def process(self, inputs: StepInput) -> StepOutput:
        yield [formatted for row in inputs if (formatted := self._formatted(row)) is not None]

    def _formatted(self, row: Row) -> Row | None:
        empty = {name: None for name in self.outputs if name not in self.inputs or name in self.output_mappings}
        if failure_in(row) is not None:
            return {**row, **empty}
        try:
            columns = self.format_row(row)
        except ValueError as error:
            return with_failure({**row, **empty}, self.name, error)
        return None if columns is None else {**row, **empty, **columns}


class FormatTextGenerationSFT(Format):
    """An instruction and its answer as a chat, for supervised fine-tuning.

    Input columns:
        instruction: the prompt.
        generation: the answer.
        system_prompt (optional): the chat begins with it.

    Output columns:
        prompt: the instruction.
        prompt_id: the SHA-256 of the prompt.
        messages: the chat, with the answer as its last message.

    Example:
        >>> from tasks import FormatTextGenerationSFT
        >>> step = FormatTextGenerationSFT()
        >>> (row,) = next(step.process([{"instruction": "How high is K2?", "generation": "8,611 m."}]))
        >>> row["messages"]
        [{'role': 'user', 'content': 'How high is K2?'}, {'role': 'assistant', 'content': '8,611 m.'}]
    """

    @property
    def inputs(self) -> Columns:
        return {"instruction": True, "generation": True, "system_prompt": False}

    @property
    def outputs(self) -> Columns:
        return ["prompt", "prompt_id", "messages"]

    def format_row(self, row: Row) -> Row:
        chat = chat_of_instruction(row)
        return {**prompt_columns(chat), "messages": [*chat, answer(any_text_in(row, "generation"))]}


class FormatChatGenerationSFT(Format):
    """A chat and its answer as one chat, for supervised fine-tuning.

    Input columns:
        messages: the chat up to the answer.
        generation: the answer.

    Output columns:
        prompt: the user's first message.
        prompt_id: the SHA-256 of the prompt.
        messages: the chat, with the answer as its last message.

    Example:
        >>> from tasks import FormatChatGenerationSFT
        >>> chat = [{"role": "user", "content": "How high is K2?"}]
        >>> (row,) = next(FormatChatGenerationSFT().process([{"messages": chat, "generation": "8,611 m."}]))
        >>> row["messages"]
        [{'role': 'user', 'content': 'How high is K2?'}, {'role': 'assistant', 'content': '8,611 m.'}]
    """

    @property
    def inputs(self) -> Columns:
        return ["messages", "generation"]

    @property
    def outputs(self) -> Columns:
        return ["prompt", "prompt_id", "messages"]

    def format_row(self, row: Row) -> Row:
        chat = chat_in(row)
        return {**prompt_columns(chat), "messages": [*chat, answer(any_text_in(row, "generation"))]}


class FormatTextGenerationDPO(Format):
    """The best and the worst answer to an instruction as two chats, for preference tuning.

    Generations without a rating are left out. Where fewer than two are rated, or all ratings are
    equal, there's no preference: the columns of `chosen` and `rejected` are None, or the row is left
    out (`drop_ties`). Among equal ratings, the first generation counts.

    Input columns:
        instruction: the prompt.
        generations: the answers.
        ratings: a number per answer; more is better.
        generation_models (optional): the model of each answer, or one for all.
        system_prompt (optional): the chats begin with it.

    Output columns:
        prompt: the instruction.
        prompt_id: the SHA-256 of the prompt.
        chosen, rejected: the chat with the best and with the worst answer.
        chosen_rating, rejected_rating: their ratings.
        chosen_model, rejected_model: their models, or None.

    Example:
        >>> from tasks import FormatTextGenerationDPO
        >>> rated = {"instruction": "How high is K2?", "generations": ["High.", "8,611 m."], "ratings": [2, 5]}
        >>> (row,) = next(FormatTextGenerationDPO().process([rated]))
        >>> row["chosen"][-1], row["rejected_rating"]
        ({'role': 'assistant', 'content': '8,611 m.'}, 2)
    """

    drop_ties: DropTies = False

    @property
    def inputs(self) -> Columns:
        optional = {"generation_models": False, "system_prompt": False}
        return {"instruction": True, "generations": True, "ratings": True, **optional}

    @property
    def outputs(self) -> Columns:
        return ["prompt", "prompt_id", *PREFERENCE]

    def format_row(self, row: Row) -> Row | None:
        return preference_columns(chat_of_instruction(row), row, self.drop_ties)


class FormatChatGenerationDPO(Format):
    """The best and the worst answer to a chat as two chats, for preference tuning.

    Which they are is decided as in `FormatTextGenerationDPO`.

    Input columns:
        messages: the chat up to the answer.
        generations: the answers.
        ratings: a number per answer; more is better.
        generation_models (optional): the model of each answer, or one for all.

    Output columns:
        prompt: the user's first message.
        prompt_id: the SHA-256 of the prompt.
        chosen, rejected: the chat with the best and with the worst answer.
        chosen_rating, rejected_rating: their ratings.
        chosen_model, rejected_model: their models, or None.

    Example:
        >>> from tasks import FormatChatGenerationDPO
        >>> chat = [{"role": "user", "content": "How high is K2?"}]
        >>> rated = {"messages": chat, "generations": ["High.", "8,611 m."], "ratings": [2, 5]}
        >>> (row,) = next(FormatChatGenerationDPO().process([rated]))
        >>> row["chosen"][-1], row["rejected_rating"]
        ({'role': 'assistant', 'content': '8,611 m.'}, 2)
    """

    drop_ties: DropTies = False

    @property
    def inputs(self) -> Columns:
        return {"messages": True, "generations": True, "ratings": True, "generation_models": False}

    @property
    def outputs(self) -> Columns:
        return ["prompt", "prompt_id", *PREFERENCE]

    def format_row(self, row: Row) -> Row | None:
        return preference_columns(chat_in(row), row, self.drop_ties)


class ConversationTemplate(Format):
    """An instruction and its response as a chat.

    Input columns:
        instruction: what the user says.
        response: what the assistant says.

    Output columns:
        conversation: both, as a list of `{"role", "content"}`.

    Example:
        >>> from tasks import ConversationTemplate
        >>> (row,) = next(ConversationTemplate().process([{"instruction": "How high is K2?", "response": "8,611 m."}]))
        >>> row["conversation"]
        [{'role': 'user', 'content': 'How high is K2?'}, {'role': 'assistant', 'content': '8,611 m.'}]
    """

    @property
    def inputs(self) -> Columns:
        return ["instruction", "response"]

    @property
    def outputs(self) -> Columns:
        return ["conversation"]

    def format_row(self, row: Row) -> Row:
        said = ChatItem(role="user", content=any_text_in(row, "instruction"))
        return {"conversation": [said, answer(any_text_in(row, "response"))]}


class Rated(NamedTuple):
    """A generation with its rating."""

    text: str
    rating: float
    model: str | None


def preference_columns(chat: ChatType, row: Row, drop_ties: bool) -> Row | None:
    """The columns of a preference row; None for a row without a preference that is to be left out."""
    pair = best_and_worst(rated_generations(row))
    if pair is None:
        return None if drop_ties else prompt_columns(chat)
    columns = prompt_columns(chat)
    for side, rated in zip(("chosen", "rejected"), pair, strict=True):
        columns |= {side: [*chat, answer(rated.text)], f"{side}_rating": rated.rating, f"{side}_model": rated.model}
    return columns


def best_and_worst(rated: Sequence[Rated]) -> tuple[Rated, Rated] | None:
    """The first of the best and the first of the worst, or None where none is better than another."""
    if not rated:
        return None
    best = max(rated, key=lambda each: each.rating)
    worst = min(rated, key=lambda each: each.rating)
    return None if best.rating == worst.rating else (best, worst)


def rated_generations(row: Row) -> list[Rated]:
    """The generations that have a rating. Raises ValueError where the lists don't fit each other."""
    texts, ratings = list_in(row, "generations"), list_in(row, "ratings")
    models = models_in(row, len(texts))
    if not len(texts) == len(ratings) == len(models):
        raise ValueError(
            "a rating (and a model) per generation: got"
            f" {len(texts)} generations, {len(ratings)} ratings, {len(models)} generation_models"
        )
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"generations: expected texts, got {short(texts)}")
    for rating in ratings:
        if rating is not None and (isinstance(rating, bool) or not isinstance(rating, int | float)):
            raise ValueError(f"ratings: expected numbers, got {short(ratings)}")
    return [
        Rated(text, rating, model)
        for text, rating, model in zip(texts, ratings, models, strict=True)
        if text is not None and rating is not None and rating == rating  # not NaN
    ]


def models_in(row: Row, count: int) -> list[Any]:
    """The model of each generation: given one by one, once for all, or not at all."""
    given = row.get("generation_models")
    return [given] * count if given is None or isinstance(given, str) else list_in(row, "generation_models")


def prompt_columns(chat: ChatType) -> Row:
    """`prompt`, the user's first message, and `prompt_id`, its SHA-256. Raises ValueError where there is none."""
    content = next((message["content"] for message in chat if message["role"] == "user"), None)
    if content is None:
        raise ValueError(f"messages: expected one of the user, got {short(chat)}")
    parts = [content] if isinstance(content, str) else [str(part["text"]) for part in content if part.get("text")]
    prompt = "\n".join(parts)
    return {"prompt": prompt, "prompt_id": hashlib.sha256(prompt.encode()).hexdigest()}


def chat_of_instruction(row: Row) -> ChatType:
    """The row's system prompt, if it has one, and its instruction. Raises ValueError."""
    system = [ChatItem(role="system", content=any_text_in(row, "system_prompt"))] if row.get("system_prompt") else []
    return [*system, ChatItem(role="user", content=any_text_in(row, "instruction"))]


def answer(text: str) -> ChatItem:
    return ChatItem(role="assistant", content=text)
