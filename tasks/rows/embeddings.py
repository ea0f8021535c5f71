"""Embeddings: from an embedding model, or from a language model's own hidden states."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field

from llms import LLM, AnyEmbeddings, AnyLLM
from llms.parameters import short
from llms.typing import ChatItem, ChatType
from tasks.base import Answer, ModelStep, UnreadableAnswerError
from tasks.cells import prompt_chat_in, whole_text
from tasks.rows.columns import value_in, with_failure
from tasks.steps import Step, failure_in
from tasks.typing import Ask, Columns, Row, StepInput, StepOutput


class EmbeddingGeneration(ModelStep):
    """The embedding of a text, by an embedding model: of a service, online or in batch jobs, or of one's own.

    Input columns:
        text: a text that isn't empty.

    Output columns:
        embedding: a list of numbers, as many as the model's vectors have.
        model_name: the model that it is from.

    Example:
        >>> from llms import Embeddings
        >>> from tasks import EmbeddingGeneration
        >>> class Lengths(Embeddings):
        ...     @property
        ...     def model_name(self):
        ...         return "lengths"
        ...
        ...     def encode(self, inputs):
        ...         return [[len(text), 1.0] for text in inputs]
        >>> row = next(EmbeddingGeneration(embeddings=Lengths()).process([{"text": "high tide"}]))[0]
        >>> row["embedding"], row["model_name"]
        ([9.0, 1.0], 'lengths')
    """

    form_first = ("embeddings",)

    embeddings: Annotated[AnyEmbeddings, Field(title="Embedding model", description="Who makes the vectors.")]

    @property
    def inputs(self) -> Columns:
        return ["text"]

    @property
    def outputs(self) -> Columns:
        return ["embedding", "model_name"]

    @property
    def answerer(self) -> LLM:
        return self.embeddings

    def prompt(self, row: Row) -> str:
        return whole_text(value_in(row, "text"), "text")

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        output = await ask(self.prompt(row))
        vectors = output.get("embeddings", [])
        if not any(vectors):
            raise UnreadableAnswerError(f"{self.embeddings.model_name} gave no embedding")
        tokens = output["statistics"]["input_tokens"]
        return [Answer(columns={"embedding": vectors[0]}, input_tokens=sum(tokens))]


class GenerateEmbeddings(Step):
    """The embedding of a text or a chat: the LLM's last hidden state at the last token.

    It needs an LLM that gives its hidden states: one that runs the model itself.

    Input columns:
        text: a text, or a chat as a list of `{"role", "content"}`.

    Output columns:
        embedding: a list of numbers.
        model_name: the model that it is from.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in
    Instruction Tuning (https://arxiv.org/abs/2312.15685).

    Example:
        >>> from llms import LLM
        >>> from tasks import GenerateEmbeddings
        >>> class Lengths(LLM):
        ...     @property
        ...     def model_name(self):
        ...         return "lengths"
        ...
        ...     def get_last_hidden_state(self, inputs):
        ...         return [[[len(word), 1.0] for word in chat[-1]["content"].split()] for chat in inputs]
        >>> next(GenerateEmbeddings(llm=Lengths()).process([{"text": "high tide"}]))
        [{'text': 'high tide', 'embedding': [4.0, 1.0], 'model_name': 'lengths'}]
    """

    fails_rows = True
    takes_failed_rows = True

    form_first = ("llm",)

    llm: Annotated[AnyLLM, Field(title="LLM")]

    @property
    def inputs(self) -> Columns:
        return ["text"]

    @property
    def outputs(self) -> Columns:
        return ["embedding", "model_name"]

    def load(self) -> None:
        self.llm.load()

    def unload(self) -> None:
        self.llm.unload()

    def process(self, inputs: StepInput) -> StepOutput:
        made: list[Row] = [{**row, "embedding": None, "model_name": self.llm.model_name} for row in inputs]
        chats: dict[int, ChatType] = {}
        for place, row in enumerate(inputs):
            if failure_in(row) is None:
                try:
                    chats[place] = chat_of(row)
                except ValueError as error:
                    made[place] = with_failure(made[place], self.name, error)
        states = self.llm.get_last_hidden_state(list(chats.values())) if chats else []
        for place, state in zip(chats, states, strict=True):
            if len(state) == 0:
                error = ValueError(f"{self.llm.model_name} gave no hidden state for it: the text has no tokens")
                made[place] = with_failure(made[place], self.name, error)
            else:
                made[place]["embedding"] = [float(number) for number in state[-1]]
        yield made


def chat_of(row: Row) -> ChatType:
    """The row's text as a chat, or the chat that it is. Raises ValueError."""
    value = value_in(row, "text")
    if isinstance(value, list):
        return prompt_chat_in(row, "text")
    if not isinstance(value, str):
        raise ValueError(f"text: expected a text or a chat, got {short(cast('object', value))}")
    return [ChatItem(role="user", content=whole_text(value, "text"))]
