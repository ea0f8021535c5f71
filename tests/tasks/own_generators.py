"""Tasks that start from nothing, as users write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from llms.parameters import Unasked
from llms.typing import ChatItem, ChatType
from tasks import Answer, Ask, GeneratorTask, Row, UnreadableAnswerError


class Riddles(GeneratorTask):
    """Riddles on things."""

    num_rows: Annotated[int, Field(ge=0, title="Rows", description="How many riddles."), Unasked()] = 4
    thing: Annotated[str, Field(title="Thing", description="What they are about.")] = "the sea"

    @property
    def outputs(self) -> list[str]:
        return ["riddle", "model_name"]

    def seed_rows(self) -> Iterator[Row]:
        return ({"number": number} for number in range(self.num_rows))

    def format_input(self, input: Row) -> ChatType:
        return [ChatItem(role="user", content=f"Write riddle number {input['number']} about {self.thing}.")]

    def format_output(self, output: str | None, input: Row) -> Row:
        if not output or "sorry" in output.lower():
            raise UnreadableAnswerError(f"expected a riddle, got {output!r}")
        return {"riddle": output}


class SolvedRiddles(Riddles):
    """Riddles in two rounds: the riddle, and its answer."""

    @property
    def outputs(self) -> list[str]:
        return ["riddle", "answer", "model_name"]

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        (first,) = await super().converse(row, ask)
        if first.failure is not None:
            return [first]
        question: ChatType = [ChatItem(role="user", content=f"Solve this riddle: {first.columns['riddle']}")]
        output = await ask(question)
        return [Answer(columns={**first.columns, "answer": output["generations"][0]})]
