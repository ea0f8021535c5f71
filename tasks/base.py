"""Tasks: a prompt from a row, columns from the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, cast

from pydantic import Field, field_validator

from llms import LLM, AnyLLM, LLMError
from llms.base import cut_off_in, finish_reasons_in, unfinished_in
from llms.embeddings import Embeddings
from llms.errors import Failure, KeptError, failure_of
from llms.images import ImageGenerationModel
from llms.loop import run_sync
from llms.parameters import ParameterError, Unasked, short
from llms.quantities import quantity
from llms.typing import PARTS_OF_TOKENS, ChatItem, ChatType, FormattedInput, GenerateOutput, JSONSchema, Logprob
from tasks.arrow import cleaned, unkeepable
from tasks.cells import check_prompt
from tasks.steps import METADATA, Step, failed_elsewhere
from tasks.templates import taken_by_deploy
from tasks.typing import Ask, Columns, Row, StepInput, StepOutput

NOT_ASKED = frozenset(
    {
        "code",
        "constants",
        "version",
        "output_mappings",
        "num_generations",
        "group_generations",
        "add_raw_input",
        "add_raw_output",
        "add_reasoning",
    }
)
"""What of a step's identity says nothing of what it asks."""
REASONING = "reasoning"
"""The column of `add_reasoning`."""
CUT_OFF = "; the limit of tokens cut the answer off: give more `max_new_tokens` (in llm.generation_kwargs)"

NOT_WHOLE = "; the provider doesn't say that the answer is whole (finish_reason {0.finish_reason!r})"


class UnreadableAnswerError(ValueError):
    """The model's answer isn't in the form that was asked for. The message says what is wrong with it."""


@dataclass(frozen=True)
class Answer:
    """What one generation became: columns, or the reason why there are none."""

    columns: Row = field(default_factory=dict[str, Any])
    raw_input: Any = None
    raw_output: Any = None
    input_tokens: int = 0
    output_tokens: int = 0
    token_parts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of these tokens: `cached_tokens`, `cache_write_tokens` and `reasoning_tokens`, where there are any."""
    logprobs: list[list[Logprob]] | None = None
    """By token: the most likely ones, where the LLM was asked for them."""
    reasoning: str | None = None
    """What the model thought before it, where the provider shows it; of several texts, all thoughts in their order."""
    cut_off: bool = False
    """Whether the limit of tokens ended it, or one of the texts it's made from."""
    unfinished: bool = False
    """Whether one of them isn't known to be whole, for another reason."""
    finish_reason: str | None = None
    """Why it ended, in the provider's word; of several texts, the first one that isn't whole tells."""
    failure: Failure | None = None


class ModelStep(Step):
    """A step that asks a model for every row: online, or in batch jobs where the model has them.

    Write `inputs`, `outputs`, `answerer`, `prompt` and `converse`. The rest is here: metadata, and rows that
    fail, each with its reason.
    """

    fails_rows = True

    # All rows of a shard are asked for at once.
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Unasked()] = 50

    @property
    @abstractmethod
    def inputs(self) -> Columns: ...

    @property
    @abstractmethod
    def outputs(self) -> Columns: ...

    @property
    @abstractmethod
    def answerer(self) -> LLM:
        """The model that is asked."""

    @property
    def answers_per_row(self) -> int:
        """How many answers are asked for at a time."""
        return 1

    def asking(self) -> dict[str, Any]:
        """Which of its settings shape its questions, as JSON values: steps of a run that are equal in it ask alike.

        They are numbered, and share no answers. It's in no key of an answer.
        """
        return {
            name: value
            for name, value in self.identity().items()
            if name not in NOT_ASKED and getattr(self, name, None) is not self.answerer
        }

    @abstractmethod
    def prompt(self, row: Row) -> FormattedInput:
        """What is asked for a row. Whatever it raises is the row's failure."""

    @abstractmethod
    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        """Ask what has to be asked for a row: `answers_per_row` answers.

        A step that needs several rounds asks several times here. Ask in an order that depends on the row
        and the answers alone, so that a run that was interrupted finds its answers again.
        """

    @property
    def metadata_keys(self) -> list[str]:
        return [f"statistics_{self.name}", f"error_{self.name}"]

    def load(self) -> None:
        self.answerer.load()

    def unload(self) -> None:
        self.answerer.unload()

    def process(self, inputs: StepInput) -> StepOutput:
        """Answer rows now, outside of any flow.

        Yields:
            The rows with this step's columns, `model_name` and `distilabel_metadata` added.
        """
        asks = self._offline_asks(inputs) if getattr(self.answerer, "use_offline_batch_generation", False) else {}
        answered = run_sync(self.answer_rows(inputs, lambda place: asks.get(place, self._ask)))
        yield [row for group in answered for row in group]

    def apply(self, *inputs: StepInput) -> list[Row]:
        return [row for rows in self.process(*inputs) for row in rows]

    async def answer_rows(self, rows: Sequence[Row], ask_for: Callable[[int], Ask]) -> list[list[Row]]:
        """The rows that each of `rows` becomes. `ask_for(i)` asks for row `i`.

        Raises:
            LLMError: a fatal one: no other request can succeed either.
        """
        work = (self.answer_row(row, ask_for(place)) for place, row in enumerate(rows))
        made = await asyncio.gather(*work, return_exceptions=True)
        for each in made:
            if isinstance(each, BaseException):
                raise each
        return cast("list[list[Row]]", made)

    async def answer_row(self, row: Row, ask: Ask) -> list[Row]:
        """The rows that `row` becomes: one per generation, or one with all of them.

        A row that failed in another step is passed over. One that failed in this one, in an earlier attempt, is asked.
        """
        if failed_elsewhere(row, self.name):
            return self.assemble(row, [Answer()] * self.answers_per_row)
        try:
            answers = await self.converse(self.seen(row), checked(ask))
        except LLMError as error:
            if error.fatal:
                raise
            answer = failed(Answer(raw_input=self._raw_input(row)), error)
            answers = [with_tokens(answer, error), *[answer] * (self.answers_per_row - 1)]
        except Exception as error:  # noqa: BLE001 -- a prompt, perhaps a user's: whatever it raises is this row's failure
            answers = [failed(Answer(), error)] * self.answers_per_row
        if len(answers) != self.answers_per_row:
            wanted = quantity(self.answers_per_row, "answer")
            problem = UnreadableAnswerError(f"asked for {wanted}, got {len(answers)}")
            answers = ([*answers, *[failed(Answer(), problem)] * self.answers_per_row])[: self.answers_per_row]
        return self.assemble(row, list(map(fit_for_a_table, answers)))

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        """`row` with the columns and the metadata of `answers`."""
        return [self._with_columns(row, self._own(answer), self._metadata(answer)) for answer in answers]

    def _own(self, answer: Answer) -> Row:
        return dict(answer.columns)

    def _with_columns(self, row: Row, columns: Row, metadata: Row) -> Row:
        empty = dict.fromkeys(name for name in self.own_columns() if name != "model_name")
        own = {**empty, **columns, "model_name": self.answerer.model_name}
        renamed = {self.output_mappings.get(name, name): value for name, value in own.items()}
        return {**row, **renamed, METADATA: {**(row.get(METADATA) or {}), **metadata}}

    def _metadata(self, answer: Answer) -> Row:
        counts = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens, **answer.token_parts}
        return {f"statistics_{self.name}": counts, f"error_{self.name}": answer.failure}

    def seen(self, row: Row) -> Row:
        """The row under this step's own column names."""
        return {**row, **{name: row[column] for name, column in self.input_mappings.items() if column in row}}

    def _raw_input(self, row: Row) -> Any:
        prompt = self.prompt(self.seen(row))
        return prompt[0] if isinstance(prompt, tuple) else prompt

    async def _ask(self, prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return await self.answerer.answer(prompt, num_generations)

    def _offline_asks(self, rows: Sequence[Row]) -> dict[int, Ask]:
        """Answers from the model's batch jobs, by the place of the row.

        Raises:
            OfflineBatchGenerationNotFinishedError: they aren't there yet.
        """
        prompts: dict[int, FormattedInput] = {}
        for place, row in enumerate(rows):
            # A row without a prompt fails when it's answered.
            with contextlib.suppress(Exception):
                if not failed_elsewhere(row, self.name):
                    prompt = self.prompt(self.seen(row))
                    check_prompt(prompt)
                    prompts[place] = prompt
        outputs = self.answerer.generate_outputs(list(prompts.values()), self.answers_per_row)
        return {
            place: answered_by(prompt, output) for (place, prompt), output in zip(prompts.items(), outputs, strict=True)
        }


class Task(ModelStep):
    """A step that asks an LLM.

    Write `inputs`, `outputs`, `format_input` and `format_output`. The rest is here: several
    generations, metadata, few-shot examples, structured output, and rows that fail, each with its reason.
    """

    form_first = ("llm",)
    form_more = (
        "system_prompt",
        "examples",
        "num_generations",
        "group_generations",
        "use_default_structured_output",
        "add_reasoning",
        "add_raw_input",
        "add_raw_output",
    )

    llm: Annotated[AnyLLM, Field(title="LLM", description="Who answers.")]
    system_prompt: Annotated[
        str | None, Field(title="System prompt", description="Put before the prompt, where the prompt has none.")
    ] = None
    examples: Annotated[
        list[dict[str, Any]],
        Field(title="Examples", description="Few-shot: rows with the input and the output columns of this Task."),
    ] = []
    num_generations: Annotated[int, Field(ge=1, title="Answers per row")] = 1
    group_generations: Annotated[
        bool, Field(title="Group answers", description="In one row with lists, in place of a row per answer.")
    ] = False
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = False
    add_reasoning: Annotated[
        bool,
        Field(
            title="Keep reasoning",
            description="In the column `reasoning`: what the model thought before its answer, where it shows that.",
        ),
    ] = False
    add_raw_input: Annotated[bool, Field(title="Keep prompts", description="In the row's metadata.")] = True
    add_raw_output: Annotated[bool, Field(title="Keep raw answers", description="In the row's metadata.")] = True

    @field_validator("llm")
    @classmethod
    def _check_it_writes(cls, llm: LLM) -> LLM:
        if isinstance(llm, Embeddings):
            raise ValueError(f"{type(llm).__name__} gives vectors, no text; give it to EmbeddingGeneration")
        if isinstance(llm, ImageGenerationModel):
            raise ValueError(f"{type(llm).__name__} makes images, no text; give it to ImageGeneration")
        return llm

    @property
    def answerer(self) -> LLM:
        return self.llm

    @property
    def answers_per_row(self) -> int:
        return self.num_generations

    @property
    def metadata_keys(self) -> list[str]:
        prompts = [f"raw_input_{self.name}"] if self.add_raw_input else []
        # Of a row that fails, the raw output is kept in any case.
        ends = [f"{kind}_{self.name}" for kind in ("finish_reason", "cut_off", "unfinished")]
        return [*prompts, f"raw_output_{self.name}", *ends, *super().metadata_keys]

    def load(self) -> None:
        """Raises ParameterError for an example that lacks a column, or a column that is there twice."""
        if self.add_reasoning and REASONING in self.outputs:
            raise ParameterError(
                f"{self.name}: `add_reasoning` adds the column {REASONING!r}, which is one of the Task's own, got"
                f" outputs={self.outputs!r}: leave it off"
            )
        for number, example in enumerate(self.examples):
            self._check_example(number, example)
        super().load()

    def own_columns(self) -> list[str]:
        names = list(self.outputs)
        if self.add_reasoning:
            names.insert(names.index("model_name") if "model_name" in names else len(names), REASONING)
        return names

    def _own(self, answer: Answer) -> Row:
        return {**answer.columns, **({REASONING: answer.reasoning} if self.add_reasoning else {})}

    def _check_example(self, number: int, example: Row) -> None:
        answers = [name for name in self.outputs if name != "model_name"]
        columns = self.inputs
        missing = [name for name in columns if name not in example and (not isinstance(columns, dict) or columns[name])]
        if missing or not any(name in example for name in answers):
            lacks = repr(missing[0]) if missing else f"any of {answers!r}"
            raise ParameterError(
                f"{self.name}: examples are rows with the input and the output columns of the Task, and example"
                f" {number} lacks {lacks}: {short(example)}. {taken_by_deploy((missing or answers)[0])}"
            )

    @abstractmethod
    def format_input(self, input: Row) -> FormattedInput:
        """The prompt for a row: a chat, a bare prompt, or a chat with the JSON schema of the answer."""

    @abstractmethod
    def format_output(self, output: str | None, input: Row) -> Row:
        """The columns from one generation.

        Raises:
            UnreadableAnswerError: the answer can't be read; any other exception fails the row as well.
        """

    def get_structured_output(self) -> JSONSchema | None:
        """The JSON schema that an answer should fit, for a Task that can ask for one."""
        return None

    def prompt(self, row: Row) -> FormattedInput:
        """The whole prompt: `format_input` with the system prompt, the examples and the schema added."""
        return self.dressed(self.format_input(row))

    def dressed(self, given: FormattedInput) -> FormattedInput:
        """A prompt with the system prompt, the examples and the schema added. A bare prompt stays as it is."""
        if isinstance(given, str):
            return given
        chat, schema = given if isinstance(given, tuple) else (given, None)
        chat = with_examples(with_system_prompt(chat, self.system_prompt), self._example_turns())
        schema = schema or self.wanted_schema()
        return chat if schema is None else (chat, schema)

    def wanted_schema(self) -> JSONSchema | None:
        """The Task's schema, where structured output is wanted and the LLM takes it."""
        wanted = self.use_default_structured_output and self.llm.takes_structured_output()
        return self.get_structured_output() if wanted else None

    def format_example(self, example: Row) -> str:
        """The answer that an example shows: its only output column as text, or all of them as JSON."""
        outputs = [name for name in self.outputs if name != "model_name" and name in example]
        if len(outputs) == 1 and isinstance(example[outputs[0]], str) and self.wanted_schema() is None:
            return example[outputs[0]]
        return json.dumps({name: example[name] for name in outputs}, ensure_ascii=False)

    def _example_turns(self) -> ChatType:
        turns: ChatType = []
        for example in self.examples:
            given = self.format_input(example)
            chat = given[0] if isinstance(given, tuple) else given
            if isinstance(chat, str):
                raise ValueError(f"{self.name}: examples need a chat prompt, and this Task makes a bare prompt")
            turns += [message for message in chat if message["role"] != "system"]
            turns.append(ChatItem(role="assistant", content=self.format_example(example)))
        return turns

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        """Ask what has to be asked for a row: `num_generations` answers.

        A Task that needs several rounds asks several times here. Ask in an order that depends on the row
        and the answers alone, so that a run that was interrupted finds its answers again.
        """
        prompt = self.prompt(row)
        output = await ask(prompt, self.num_generations)
        return [self.read(text, row, prompt, output, place) for place, text in enumerate(output["generations"])]

    def read(self, text: str | None, row: Row, prompt: FormattedInput, output: GenerateOutput, place: int) -> Answer:
        """The answer made from generation `place` of `output`."""
        logprobs = output.get("logprobs")
        known = partial(
            replace,
            taken(output, place),
            raw_input=prompt[0] if isinstance(prompt, tuple) else prompt,
            raw_output=text,
            logprobs=logprobs[place] if logprobs else None,
        )
        try:
            columns = self.format_output(text, row)
        except Exception as error:  # noqa: BLE001 -- a parser, perhaps a user's: whatever it raises is this row's failure
            return failed(known(), error)
        return known(columns=columns)

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        if not self.group_generations:
            return super().assemble(row, answers)
        names = [name for name in self.own_columns() if name != "model_name"]
        given = list(map(self._own, answers))
        columns = {name: [each.get(name) for each in given] for name in names}
        if all(answer.failure is not None or not answer.columns for answer in answers):
            columns = {}
        return [self._with_columns(row, columns, grouped([self._metadata(answer) for answer in answers]))]

    def _metadata(self, answer: Answer) -> Row:
        metadata: Row = {}
        if self.add_raw_input:
            metadata[f"raw_input_{self.name}"] = answer.raw_input
        if self.add_raw_output or answer.failure is not None:
            metadata[f"raw_output_{self.name}"] = answer.raw_output
        if answer.logprobs is not None:
            metadata[f"logprobs_{self.name}"] = answer.logprobs
        if answer.finish_reason is not None:
            metadata[f"finish_reason_{self.name}"] = answer.finish_reason
        if answer.cut_off:
            metadata[f"cut_off_{self.name}"] = True
        if answer.unfinished:
            metadata[f"unfinished_{self.name}"] = True
        return metadata | super()._metadata(answer)


def checked(ask: Ask) -> Ask:
    """The same, but what can't be sent as it is meant fails its row, and isn't sent."""

    async def ask_checked(prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        check_prompt(prompt)
        return await ask(prompt, num_generations)

    return ask_checked


def answered_by(expected: FormattedInput, output: GenerateOutput) -> Ask:
    """An `Ask` that has the answer to a prompt already, and to no other one."""

    async def ask(prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        if prompt != expected:
            raise ParameterError(
                f"no batch job has an answer to {short(prompt)}: a Task that asks for more than its `prompt` needs a"
                " flow for offline batches. Use `collect(load(rows).map(task))` from `flows`"
            )
        problem = output.get("error")
        if problem is not None:
            raise KeptError(problem)
        return output

    return ask


def taken(output: GenerateOutput, place: int) -> Answer:
    """What generation `place` took and how it ended, as an answer without columns."""
    statistics = output["statistics"]
    parts = {name: statistics.get(name) for name in PARTS_OF_TOKENS}
    reasoning = output.get("reasoning")
    return Answer(
        reasoning=reasoning[place] if reasoning else None,
        input_tokens=statistics["input_tokens"][place],
        output_tokens=statistics["output_tokens"][place],
        token_parts={name: counts[place] for name, counts in parts.items() if counts},
        cut_off=cut_off_in(output)[place],
        unfinished=unfinished_in(output)[place],
        finish_reason=finish_reasons_in(output)[place],
    )


def all_taken(output: GenerateOutput) -> list[Answer]:
    """`taken` of every generation."""
    return [taken(output, place) for place in range(len(output["generations"]))]


def summed(answers: Sequence[Answer]) -> Answer:
    """What several answers took and how they ended, as one answer without columns."""
    names = dict.fromkeys(name for answer in answers for name in answer.token_parts)
    not_whole = [answer for answer in answers if answer.cut_off or answer.unfinished]
    telling = [*not_whole, *reversed(answers)]
    return Answer(
        reasoning="\n\n".join(answer.reasoning for answer in answers if answer.reasoning) or None,
        input_tokens=sum(answer.input_tokens for answer in answers),
        output_tokens=sum(answer.output_tokens for answer in answers),
        token_parts={name: sum(answer.token_parts.get(name, 0) for answer in answers) for name in names},
        cut_off=any(answer.cut_off for answer in answers),
        unfinished=any(answer.unfinished for answer in answers),
        finish_reason=telling[0].finish_reason if telling else None,
    )


def with_tokens(answer: Answer, error: LLMError) -> Answer:
    """The answer with the tokens that a failed request is billed for."""
    spent = [usage for usage in error.usage if usage["input_tokens"] or usage["output_tokens"]]
    return replace(
        answer,
        input_tokens=answer.input_tokens + sum(usage["input_tokens"] for usage in spent),
        output_tokens=answer.output_tokens + sum(usage["output_tokens"] for usage in spent),
    )


def fit_for_a_table(answer: Answer) -> Answer:
    """The answer, as a failure where it holds what no table can keep: the rows beside it would fail as well."""
    problem = unkeepable([answer.columns, answer.raw_input, answer.raw_output, answer.logprobs])
    if not problem:
        return answer
    kept = replace(answer, raw_input=cleaned(answer.raw_input), raw_output=cleaned(answer.raw_output))
    return failed(kept, UnreadableAnswerError(problem))


def failed(answer: Answer, error: Exception) -> Answer:
    """The same answer, as a failure."""
    failure = failure_of(error)
    if not isinstance(error, LLMError):
        failure["message"] += CUT_OFF if answer.cut_off else NOT_WHOLE.format(answer) if answer.unfinished else ""
    return replace(answer, columns={}, failure=failure)


def grouped(metadata: Sequence[Row]) -> Row:
    """The metadata of several answers in one: lists, but one prompt where all had the same, and the first failure."""
    whole: Row = {}
    for key in dict.fromkeys(key for each in metadata for key in each):
        values = [each.get(key) for each in metadata]
        if key.startswith("error_"):
            whole[key] = next((value for value in values if value is not None), None)
        elif key.startswith("raw_input_") and all(value == values[0] for value in values):
            whole[key] = values[0]
        else:
            whole[key] = values
    return whole


def with_system_prompt(chat: ChatType, system_prompt: str | None) -> ChatType:
    """The chat with a system message in front, unless it has one."""
    if not system_prompt or any(message["role"] == "system" for message in chat):
        return chat
    return [ChatItem(role="system", content=system_prompt), *chat]


def with_examples(chat: ChatType, turns: ChatType) -> ChatType:
    """The chat with example turns after its system messages."""
    if not turns:
        return chat
    systems = [message for message in chat if message["role"] == "system"]
    return [*systems, *turns, *(message for message in chat if message["role"] != "system")]
