"""Evolving what there is: instructions that become harder, and responses that become better, round by round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from llms.parameters import ParameterError
from llms.typing import ChatItem, ChatType, FormattedInput, JSONSchema
from tasks.cells import text_in
from tasks.instructions.elimination import check_answer, check_evolution, rewritten_in
from tasks.random_choices import random_for, read_by
from tasks.reading.replies import texts_schema, without_thoughts
from tasks.rounds import Asking, RoundsTask, Talk, tried
from tasks.templates import render
from tasks.typing import Columns, Row
from tasks.writing.text_generation import text_of

InDepth: TypeAlias = Literal["constraints", "deepening", "concretizing", "reasoning"]
Mutation: TypeAlias = Literal["constraints", "deepening", "concretizing", "reasoning", "breadth"]
QualityMutation: TypeAlias = Literal["helpfulness", "relevance", "deepening", "creativity", "details"]

Evolutions: TypeAlias = Annotated[int, Field(ge=1, title="Evolutions", description="Rounds, each upon the last.")]
Stored: TypeAlias = Annotated[
    bool, Field(title="Keep every round", description="As a list, in place of the last round's alone.")
]
Original: TypeAlias = Annotated[
    bool, Field(title="Keep the original", description="As the first of the list of all rounds.")
]
Drawn = Field(min_length=1, title="Mutations", description="Drawn from at random. One listed twice is likelier.")
Tries: TypeAlias = Annotated[
    int, Field(ge=1, title="Tries per round", description="Where an evolution failed, each by another mutation.")
]
Seed: TypeAlias = Annotated[int, Field(title="Seed", description="Decides what is drawn at random.")]

IN_DEPTH: list[InDepth] = ["constraints", "deepening", "concretizing", "reasoning"]
MUTATIONS: list[Mutation] = [*IN_DEPTH, "breadth"]
QUALITY_MUTATIONS: list[QualityMutation] = ["helpfulness", "relevance", "deepening", "creativity", "details"]

NEW_INSTRUCTION, NEW_RESPONSE = "new_instruction", "new_response"
"""The keys, or the tags, of what is asked for."""


class EvolInstruct(RoundsTask):
    """Evolves an instruction: each round makes it harder, or another one, by a mutation drawn at random.

    An evolution has failed where it is the same as before, copies words from the prompt that asked for it, has no
    content or is a refusal; with `generate_answers` also where its answer has no content or is a short apology. Then
    the earlier instruction stays, and the round is tried again by another mutation, `max_tries` times in all. A row
    none of whose tries succeeds fails, and says why: no instruction passes for evolved that isn't.

    `system_prompt` and `examples` go to the evolutions, not to the answers.

    Input columns:
        instruction: what is evolved.

    Output columns:
        evolved_instruction: what it has become after `num_evolutions` rounds.
        evolved_instructions (store_evolutions): in its place the outcome of every round, a list; the first one is the
            original with `include_original_instruction`.
        answer, answers (generate_answers): the same model's answer to it, or to each of them.
        model_name: the model that evolved.

    Source: WizardLM: Empowering Large Language Models to Follow Complex Instructions
    (https://arxiv.org/abs/2304.12244).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EvolInstruct
        >>> task = EvolInstruct(llm=OpenAILLM(model="gpt-4o-mini"), mutations=["constraints"], seed=7)
        >>> row = {"instruction": "How high is K2?"}
        >>> print(task.format_input(row)[0]["content"].split("How to change it:")[1].strip().partition("\\n")[0])
        Add one more condition or requirement that the answer has to meet.
        >>> task.format_output('{"new_instruction": "How high is K2, to the foot?"}', row)
        {'evolved_instruction': 'How high is K2, to the foot?'}
    """

    form_first = ("llm", "num_evolutions")
    form_more = ("store_evolutions", "include_original_instruction", "max_tries", "seed")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    num_evolutions: Evolutions = 1
    store_evolutions: Stored = False
    include_original_instruction: Original = False
    generate_answers: Annotated[bool, Field(title="Answer", description="Have what was evolved answered too.")] = False
    mutations: Annotated[list[Mutation], Drawn] = MUTATIONS
    max_tries: Tries = 3
    seed: Seed = 0

    @property
    def template_names(self) -> tuple[str, ...]:
        return instruction_templates(self.mutations)

    @property
    def inputs(self) -> Columns:
        return ["instruction"]

    @property
    def outputs(self) -> Columns:
        plural = "s" if self.store_evolutions else ""
        answers = [f"answer{plural}"] if self.generate_answers else []
        return [f"evolved_instruction{plural}", *answers, "model_name"]

    def load(self) -> None:
        """Raises ParameterError where `include_original_instruction` comes without `store_evolutions`."""
        check_stored(self, "include_original_instruction")
        super().load()

    def format_input(self, input: Row) -> FormattedInput:
        mutation = draws(self.mutations, read_by(self, input), self.seed, 1, 0, 1)[0]
        return self.rewriting(mutation, text_in(input, "instruction"))

    def rewriting(self, mutation: str, instruction: str) -> ChatType:
        """The request to evolve an instruction."""
        return rewriting_chat(mutation, instruction, structured=self.wanted_schema() is not None)

    def get_structured_output(self) -> JSONSchema:
        return texts_schema([NEW_INSTRUCTION], NEW_INSTRUCTION)

    def format_example(self, example: Row) -> str:
        return shown(NEW_INSTRUCTION, text_in(example, "evolved_instruction"), self.wanted_schema() is not None)

    def talk(self, row: Row, generation: int) -> Talk:
        original = text_in(row, "instruction")
        evolved, answers = [original], [""]
        for number in range(1, self.num_evolutions + 1):
            answered = self.generate_answers and (self.store_evolutions or number == self.num_evolutions)
            ways = draws(self.mutations, read_by(self, row), self.seed, number, generation, self.max_tries)
            instruction, answer = yield from self._evolved(ways, evolved[-1], number, answered=answered)
            evolved.append(instruction)
            answers.append(answer)
        if self.generate_answers and self.include_original_instruction:
            answers[0] = answer_in((yield question(original)))
        return self._columns(evolved, answers)

    def _evolved(self, ways: Sequence[str], before: str, number: int, *, answered: bool) -> Asking[tuple[str, str]]:
        """The instruction after a round, and the answer to it where it's wanted."""

        def attempt(mutation: str) -> Asking[tuple[str, str]]:
            text = yield self.dressed(self.rewriting(mutation, before))
            evolved = rewritten_in(text, NEW_INSTRUCTION)
            check_evolution(evolved, before)
            if not answered:
                return evolved, ""
            answer = answer_in((yield question(evolved)))
            check_answer(answer)
            return evolved, answer

        return (yield from tried(ways, attempt, f"evolution {number} of {self.num_evolutions}"))

    def _columns(self, evolved: list[str], answers: list[str]) -> Row:
        """The columns, given the original and what it has become in each round, with the answers to them."""
        if not self.store_evolutions:
            return {
                "evolved_instruction": evolved[-1],
                **({"answer": answers[-1]} if self.generate_answers else {}),
            }
        first = 0 if self.include_original_instruction else 1
        return {
            "evolved_instructions": evolved[first:],
            **({"answers": answers[first:]} if self.generate_answers else {}),
        }


class EvolComplexity(EvolInstruct):
    """Evolves an instruction into harder ones: `EvolInstruct` with the mutations in depth alone.

    With `store_evolutions` and `include_original_instruction` a row holds instructions of rising complexity, for
    `ComplexityScorer` to rank.

    Input columns:
        instruction: what is evolved.

    Output columns:
        evolved_instruction: what it has become after `num_evolutions` rounds.
        evolved_instructions (store_evolutions): in its place the outcome of every round, a list.
        answer, answers (generate_answers): the same model's answer to it, or to each of them.
        model_name: the model that evolved.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in Instruction Tuning
    (https://arxiv.org/abs/2312.15685); WizardLM (https://arxiv.org/abs/2304.12244).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EvolComplexity
        >>> EvolComplexity(llm=OpenAILLM(model="gpt-4o-mini"), store_evolutions=True, num_evolutions=4).outputs
        ['evolved_instructions', 'model_name']
    """

    mutations: Annotated[list[InDepth], Drawn] = IN_DEPTH  # pyright: ignore[reportIncompatibleVariableOverride] -- fewer


class EvolQuality(RoundsTask):
    """Evolves a response: each round rewrites it into a better one, by a mutation drawn at random.

    An evolution that is the same as before, copies words from its prompt, has no content or is a refusal has failed.
    Then the earlier response stays, and the round is tried again by another mutation, `max_tries` times in all. A row
    none of whose tries succeeds fails, and says why.

    Input columns:
        instruction: what was asked for.
        response: the answer to it, which is evolved.

    Output columns:
        evolved_response: what it has become after `num_evolutions` rounds.
        evolved_responses (store_evolutions): in its place the outcome of every round, a list; the first one is the
            original with `include_original_response`.
        model_name: the model that evolved.

    Source: What Makes Good Data for Alignment? A Comprehensive Study of Automatic Data Selection in Instruction Tuning
    (https://arxiv.org/abs/2312.15685).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EvolQuality
        >>> task = EvolQuality(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"instruction": "How high is K2?", "response": "8,611 m."}
        >>> task.format_output("<new_response>8,611 m, second to Everest.</new_response>", row)
        {'evolved_response': '8,611 m, second to Everest.'}
    """

    form_first = ("llm", "num_evolutions")
    form_more = ("store_evolutions", "include_original_response", "max_tries", "seed")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    num_evolutions: Evolutions = 1
    store_evolutions: Stored = False
    include_original_response: Original = False
    mutations: Annotated[list[QualityMutation], Drawn] = QUALITY_MUTATIONS
    max_tries: Tries = 3
    seed: Seed = 0

    @property
    def template_names(self) -> tuple[str, ...]:
        methods = [f"evol_quality/{mutation}" for mutation in sorted(set(self.mutations))]
        return ("evol_quality/rewrite", "evol_instruct/form", *methods)

    @property
    def inputs(self) -> Columns:
        return ["instruction", "response"]

    @property
    def outputs(self) -> Columns:
        return ["evolved_responses" if self.store_evolutions else "evolved_response", "model_name"]

    def load(self) -> None:
        """Raises ParameterError where `include_original_response` comes without `store_evolutions`."""
        check_stored(self, "include_original_response")
        super().load()

    def format_input(self, input: Row) -> FormattedInput:
        mutation = draws(self.mutations, read_by(self, input), self.seed, 1, 0, 1)[0]
        return self.rewriting(mutation, text_in(input, "instruction"), text_in(input, "response"))

    def rewriting(self, mutation: str, instruction: str, response: str) -> ChatType:
        """The request to evolve a response."""
        prompt = render(
            "evol_quality/rewrite",
            method=render(f"evol_quality/{mutation}"),
            instruction=instruction,
            response=response,
            form=form_of(NEW_RESPONSE, "new answer", structured=self.wanted_schema() is not None),
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return texts_schema([NEW_RESPONSE], NEW_RESPONSE)

    def format_example(self, example: Row) -> str:
        return shown(NEW_RESPONSE, text_in(example, "evolved_response"), self.wanted_schema() is not None)

    def talk(self, row: Row, generation: int) -> Talk:
        instruction, evolved = text_in(row, "instruction"), [text_in(row, "response")]

        def attempt(mutation: str) -> Asking[str]:
            text = yield self.dressed(self.rewriting(mutation, instruction, evolved[-1]))
            response = rewritten_in(text, NEW_RESPONSE)
            check_evolution(response, evolved[-1])
            return response

        for number in range(1, self.num_evolutions + 1):
            ways = draws(self.mutations, read_by(self, row), self.seed, number, generation, self.max_tries)
            evolved.append((yield from tried(ways, attempt, f"evolution {number} of {self.num_evolutions}")))
        if not self.store_evolutions:
            return {"evolved_response": evolved[-1]}
        return {"evolved_responses": evolved if self.include_original_response else evolved[1:]}


def check_stored(task: EvolInstruct | EvolQuality, option: str) -> None:
    """Raises ParameterError where the option is on and there's no list for the original to stand in."""
    if getattr(task, option) and not task.store_evolutions:
        raise ParameterError(
            f"{task.name}: {option} puts the original before the stored evolutions; set store_evolutions=True with it"
        )


def instruction_templates(mutations: Sequence[str]) -> tuple[str, ...]:
    """The templates that evolving instructions takes."""
    frames = {"create" if mutation == "breadth" else "rewrite" for mutation in mutations}
    return tuple(f"evol_instruct/{name}" for name in ("form", *sorted(frames), *sorted(set(mutations))))


def draws(mutations: Sequence[str], row: Row, seed: int, number: int, generation: int, tries: int) -> list[str]:
    """The mutations to try in a round: one drawn at random, then others, over again where there are too few."""
    order = random_for(row, seed, number, generation).sample(mutations, len(mutations))
    return list(islice(cycle(order), tries))


def rewriting_chat(
    mutation: str, instruction: str, *, structured: bool, lengths: tuple[int, int] | None = None
) -> ChatType:
    """The request to evolve an instruction by a mutation, into one with at least and at most so many characters."""
    shortest, longest = lengths or (None, None)
    prompt = render(
        "evol_instruct/create" if mutation == "breadth" else "evol_instruct/rewrite",
        method=render(f"evol_instruct/{mutation}"),
        instruction=instruction,
        shortest=shortest,
        longest=longest,
        form=form_of(NEW_INSTRUCTION, "new instruction", structured=structured),
    )
    return [ChatItem(role="user", content=prompt.strip())]


def form_of(key: str, what: str, *, structured: bool) -> str:
    """How a text is to be given."""
    return render("evol_instruct/form", key=key, what=what, structured=structured)


def shown(key: str, text: str, structured: bool) -> str:
    """A text as an answer in the form that is asked for."""
    return json.dumps({key: text}, ensure_ascii=False) if structured else f"<{key}>{text}</{key}>"


def question(instruction: str) -> ChatType:
    """The request to answer an instruction."""
    return [ChatItem(role="user", content=instruction)]


def answer_in(output: str | None) -> str:
    """The text of an answer, without the model's thoughts. Raises UnreadableAnswerError where there's none."""
    return text_of(without_thoughts(text_of(output))).strip()
