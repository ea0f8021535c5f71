"""Instructions from nothing: made up about a few topics, then evolved until they're long enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from llms.parameters import ParameterError, Unasked
from llms.quantities import quantity
from llms.typing import ChatItem, ChatType, FormattedInput, JSONSchema
from tasks.base import UnreadableAnswerError
from tasks.instructions.elimination import check_answer, check_evolution, rewritten_in
from tasks.instructions.evol import (
    IN_DEPTH,
    MUTATIONS,
    NEW_INSTRUCTION,
    Drawn,
    InDepth,
    Mutation,
    Seed,
    Tries,
    answer_in,
    draws,
    form_of,
    instruction_templates,
    question,
    rewriting_chat,
)
from tasks.random_choices import random_for
from tasks.reading.replies import texts_schema
from tasks.rounds import Asking, RoundsTask, Talk, tried
from tasks.sources.generators import GeneratorTask
from tasks.templates import render, template_source
from tasks.typing import Columns, Row

TOPICS_PER_INSTRUCTION = 2
FRESH_START = "fresh start"


class EvolInstructGenerator(GeneratorTask, RoundsTask):
    """Makes up instructions, each from a few topics drawn at random, and evolves them until they're long enough.

    Every row is a seed of its own: an instruction is asked for, and while it is shorter than `min_length` it is
    evolved, at most `max_evolutions` times. One that is longer than `max_length`, or has failed by the rules of
    `EvolInstruct`, is tried again, `max_tries` times in all. What doesn't get there is a failed row, so that there are
    always `num_instructions` rows, and an end.

    Output columns:
        instruction: what was made up, of `min_length` to `max_length` characters.
        answer (generate_answers): the same model's answer to it.
        model_name: the model that made it up.

    Source: WizardLM: Empowering Large Language Models to Follow Complex Instructions
    (https://arxiv.org/abs/2304.12244).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EvolInstructGenerator
        >>> task = EvolInstructGenerator(llm=OpenAILLM(model="gpt-4o-mini"), num_instructions=2, min_length=20)
        >>> next(task.seed_rows())
        {'number': 0, 'topics': ['a toddler', 'binary numbers']}
        >>> task.format_output('{"new_instruction": "Can a toddler count in binary?"}', next(task.seed_rows()))
        {'instruction': 'Can a toddler count in binary?'}
    """

    form_first = ("llm", "num_instructions")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    num_instructions: Annotated[int, Field(ge=1, title="Instructions", description="How many to make up."), Unasked()]
    min_length: Annotated[int, Field(ge=1, title="Shortest", description="In characters.")] = 512
    max_length: Annotated[int, Field(ge=1, title="Longest", description="In characters.")] = 1024
    generate_answers: Annotated[bool, Field(title="Answer", description="Have the instructions answered too.")] = False
    mutations: Annotated[list[Mutation], Drawn] = MUTATIONS
    max_evolutions: Annotated[
        int, Field(ge=0, title="Evolutions", description="The most rounds to get an instruction to its length.")
    ] = 4
    max_tries: Tries = 3
    seed: Seed = 0

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("evol_instruct/topics", "evol_instruct/fresh", *instruction_templates(self.mutations))

    @property
    def outputs(self) -> Columns:
        return ["instruction", *(["answer"] if self.generate_answers else []), "model_name"]

    def load(self) -> None:
        """Raises ParameterError where `min_length` is above `max_length`."""
        if self.min_length > self.max_length:
            raise ParameterError(
                f"{self.name}: min_length {self.min_length} is above max_length {self.max_length}; swap or widen them"
            )
        super().load()

    def seed_rows(self) -> Iterator[Row]:
        topics = template_source("evol_instruct/topics").splitlines()
        for number in range(self.num_instructions):
            chosen = random_for({"number": number}, self.seed, "topics").sample(topics, TOPICS_PER_INSTRUCTION)
            yield {"number": number, "topics": chosen}

    def format_input(self, input: Row) -> ChatType:
        prompt = render(
            "evol_instruct/fresh",
            topics=input["topics"],
            shortest=self.min_length,
            longest=self.max_length,
            form=form_of(NEW_INSTRUCTION, "instruction", structured=self.wanted_schema() is not None),
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return texts_schema([NEW_INSTRUCTION], NEW_INSTRUCTION)

    def talk(self, row: Row, generation: int) -> Talk:
        ways = [FRESH_START] * self.max_tries
        instruction, answer = yield from tried(ways, lambda _: self._asked(self.format_input(row)), "the instruction")
        for number in range(1, self.max_evolutions + 1):
            if len(instruction) >= self.min_length:
                break
            ways = draws(self.mutations, row, self.seed, number, generation, self.max_tries)
            instruction, answer = yield from self._evolved(ways, instruction, number)
        if len(instruction) < self.min_length:
            raise UnreadableAnswerError(
                f"after {quantity(self.max_evolutions, 'evolution')} the instruction has {len(instruction)} characters,"
                f" expected at least {self.min_length}; raise max_evolutions or lower min_length"
            )
        return {"instruction": instruction, **({"answer": answer} if self.generate_answers else {})}

    def _evolved(self, ways: list[str], before: str, number: int) -> Asking[tuple[str, str]]:
        """The instruction after a round, and the answer to it where it's done and an answer is wanted."""

        def attempt(mutation: str) -> Asking[tuple[str, str]]:
            structured = self.wanted_schema() is not None
            lengths = (self.min_length, self.max_length)
            return self._asked(rewriting_chat(mutation, before, structured=structured, lengths=lengths), before)

        return (yield from tried(ways, attempt, f"evolution {number}"))

    def _asked(self, prompt: FormattedInput, before: str = "") -> Asking[tuple[str, str]]:
        """What comes of a request: an instruction, and the answer to it."""
        instruction = rewritten_in((yield self.dressed(prompt)), NEW_INSTRUCTION)
        check_evolution(instruction, before)
        if len(instruction) > self.max_length:
            raise UnreadableAnswerError(f"expected at most {self.max_length} characters, got {len(instruction)}")
        if not self.generate_answers or len(instruction) < self.min_length:
            return instruction, ""
        answer = answer_in((yield question(instruction)))
        check_answer(answer)
        return instruction, answer


class EvolComplexityGenerator(EvolInstructGenerator):
    """Makes up instructions and evolves them into harder ones: the generator with the mutations in depth alone.

    Output columns:
        instruction: what was made up, of `min_length` to `max_length` characters.
        answer (generate_answers): the same model's answer to it.
        model_name: the model that made it up.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in Instruction Tuning
    (https://arxiv.org/abs/2312.15685); WizardLM (https://arxiv.org/abs/2304.12244).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EvolComplexityGenerator
        >>> task = EvolComplexityGenerator(llm=OpenAILLM(model="gpt-4o-mini"), num_instructions=100)
        >>> len(list(task.seed_rows()))
        100
    """

    mutations: Annotated[list[InDepth], Drawn] = IN_DEPTH  # pyright: ignore[reportIncompatibleVariableOverride] -- fewer
