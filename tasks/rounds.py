"""Tasks of several rounds: what is asked next depends on the answers so far."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from llms import LLMError
from llms.parameters import ParameterError
from llms.quantities import quantity
from llms.typing import FormattedInput, GenerateOutput
from tasks.base import Answer, Task, UnreadableAnswerError, all_taken, failed, summed, with_tokens
from tasks.typing import Ask, Row

T = TypeVar("T")

Asking: TypeAlias = Generator[FormattedInput, str | None, T]
"""Yields prompts, one after another, is sent the text that answers each, and returns something."""

Talk: TypeAlias = Asking[Row]
"""The rounds of one generation. It returns the columns."""


class RoundsTask(Task):
    """A Task that asks several times per row.

    Write `inputs`, `outputs`, `format_input` and `talk`. The generations of a row are talks of their own, held side
    by side: a round of all of them is asked for at once. In the metadata, `raw_input_<task>` and `raw_output_<task>`
    are lists with an entry per round, and the statistics are sums over the rounds.
    """

    @abstractmethod
    def talk(self, row: Row, generation: int) -> Talk:
        """Yield each prompt, whole; get its answer; return the columns.

        Raises:
            UnreadableAnswerError: an answer is of no use, and so the generation fails.
        """

    def prompt(self, row: Row) -> FormattedInput:
        """The prompt of the first round."""
        return next(self.talk(row, 0))

    def format_output(self, output: str | None, input: Row) -> Row:
        """The columns, where the first answer is all that is asked for. Raises ValueError where it isn't."""
        talk = self.talk(input, 0)
        next(talk)
        try:
            talk.send(output)
        except StopIteration as end:
            return end.value
        raise ValueError(f"{self.name} asks again after this answer; `process` and flows ask in all rounds")

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        return await hold([self.talk(row, generation) for generation in range(self.num_generations)], ask)

    def _offline_asks(self, rows: Sequence[Row]) -> dict[int, Ask]:
        raise ParameterError(
            f"{self.name} asks in several rounds, each of them a batch job, and that needs a flow:"
            " use `collect(load(rows).map(task))` from `flows`, or set use_offline_batch_generation=False"
        )


async def hold(talks: Sequence[Talk], ask: Ask) -> list[Answer]:
    """Hold talks side by side, in rounds, so that the order of asking depends on the answers alone.

    Raises:
        LLMError: a fatal one.
    """
    held = [HeldTalk(talk) for talk in talks]
    while open_ones := [each for each in held if each.answer is None]:
        asked = (ask(each.pending, 1) for each in open_ones)
        outputs = await asyncio.gather(*asked, return_exceptions=True)
        for each, output in zip(open_ones, outputs, strict=True):
            each.hear(output)
    return [each.answer for each in held if each.answer is not None]


class HeldTalk:
    """A talk under way: what was asked and said in it so far, and what that cost."""

    def __init__(self, talk: Talk) -> None:
        self.pending: FormattedInput = ""
        """What is to be asked next."""
        self.answer: Answer | None = None
        """What became of it, once it has ended."""
        self._talk = talk
        self._prompts: list[Any] = []
        self._texts: list[str | None] = []
        self._taken: list[Answer] = []
        self._go_on(None)

    def hear(self, output: GenerateOutput | BaseException) -> None:
        """Take the output of the pending prompt, or why there's none. Raises what isn't this talk's failure alone."""
        if isinstance(output, BaseException):
            if not isinstance(output, LLMError) or output.fatal:
                raise output
            self.answer = failed(with_tokens(self._so_far(), output), output)
            return
        self._texts.append(output["generations"][0])
        self._taken += all_taken(output)
        self._go_on(self._texts[-1])

    def _go_on(self, text: str | None) -> None:
        try:
            self.pending = self._talk.send(text)
        except StopIteration as end:
            self.answer = self._so_far(end.value)
        except Exception as error:  # noqa: BLE001 -- a prompt or a parser, perhaps a user's: it is this generation's failure
            self.answer = failed(self._so_far(), error)
        else:
            self._prompts.append(self.pending[0] if isinstance(self.pending, tuple) else self.pending)

    def _so_far(self, columns: Row | None = None) -> Answer:
        return replace(
            summed(self._taken),
            columns=columns or {},
            raw_input=self._prompts or None,
            raw_output=self._texts or None,
        )


def tried(ways: Iterable[str], attempt: Callable[[str], Asking[T]], what: str) -> Asking[T]:
    """What the first attempt gives whose answers are of use.

    Raises:
        UnreadableAnswerError: none was; the message says `what` was tried, in which ways, and why each failed.
    """
    problems: list[str] = []
    for way in ways:
        try:
            return (yield from attempt(way))
        except UnreadableAnswerError as error:
            problems.append(f"{way}: {error}")
    times = quantity(len(problems), "time")
    raise UnreadableAnswerError(f"{what} failed {times}. {'; '.join(dict.fromkeys(problems))}")
