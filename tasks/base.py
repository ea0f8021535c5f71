"""Tasks: a prompt from a row, columns from the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, cast

from pydantic import Field, field_validator

from llms import LLM, AnyLLM, LLMError
from llms.base import cut_off_in
from llms.embeddings import Embeddings
from llms.errors import Failure, KeptError, failure_of
from llms.images import ImageGenerationModel
from llms.loop import run_sync
from llms.parameters import Aside, ParameterError, short
from llms.typing import ChatItem, ChatType, FormattedInput, GenerateOutput, JSONSchema, Logprob
from tasks.steps import METADATA, Step, failure_in
from tasks.typing import Ask, Columns, Row, StepInput, StepOutput

CUT_OFF = "; the limit of tokens cut the answer off: give more `max_new_tokens` (in llm.generation_kwargs)"


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
    logprobs: list[list[Logprob]] | None = None
    """By token: the most likely ones, where the LLM was asked for them."""
    cut_off: bool = False
    """Whether the limit of tokens ended it, or one of the texts it's made from."""
    failure: Failure | None = None


class ModelStep(Step):
    """A step that asks a model for every row: online, or in batch jobs where the model has them.

    Write `inputs`, `outputs`, `answerer`, `prompt` and `converse`. The rest is here: metadata, and rows that
    fail, each with its reason.
    """

    # All rows of a shard are asked for at once.
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Aside()] = 50

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

    @abstractmethod
    def prompt(self, row: Row) -> FormattedInput:
        """What is asked for a row. Whatever it raises is the row's failure."""

    @abstractmethod
    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        """Ask what has to be asked for a row: `answers_per_row` answers.

        A step that needs several rounds asks several times here. Ask in an order that depends on the row
        and the answers alone, so that a run that was interrupted finds its answers again.
        """

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
        """The rows that `row` becomes: one per generation, or one with all of them."""
        if failure_in(row) is not None:
            return self.assemble(row, [Answer()] * self.answers_per_row)
        try:
            answers = await self.converse(self.seen(row), ask)
        except LLMError as error:
            if error.fatal:
                raise
            answers = [failed(Answer(raw_input=self._raw_input(row)), error)] * self.answers_per_row
        except Exception as error:  # noqa: BLE001 -- a prompt, perhaps a user's: whatever it raises is this row's failure
            answers = [failed(Answer(), error)] * self.answers_per_row
        if len(answers) != self.answers_per_row:
            problem = UnreadableAnswerError(f"asked for {self.answers_per_row} answers, got {len(answers)}")
            answers = ([*answers, *[failed(Answer(), problem)] * self.answers_per_row])[: self.answers_per_row]
        return self.assemble(row, list(map(fit_for_a_table, answers)))

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        """`row` with the columns and the metadata of `answers`."""
        return [self._with_columns(row, answer.columns, self._metadata(answer)) for answer in answers]

    def _own_columns(self) -> list[str]:
        return [name for name in self.outputs if name != "model_name"]

    def _with_columns(self, row: Row, columns: Row, metadata: Row) -> Row:
        empty = dict.fromkeys(self._own_columns())
        own = {**empty, **columns, "model_name": self.answerer.model_name}
        renamed = {self.output_mappings.get(name, name): value for name, value in own.items()}
        return {**row, **renamed, METADATA: {**(row.get(METADATA) or {}), **metadata}}

    def _metadata(self, answer: Answer) -> Row:
        counts = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
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
                if failure_in(row) is None:
                    prompts[place] = self.prompt(self.seen(row))
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
        statistics, logprobs = output["statistics"], output.get("logprobs")
        known = partial(
            Answer,
            raw_input=prompt[0] if isinstance(prompt, tuple) else prompt,
            raw_output=text,
            input_tokens=statistics["input_tokens"][place],
            output_tokens=statistics["output_tokens"][place],
            logprobs=logprobs[place] if logprobs else None,
            cut_off=cut_off_in(output)[place],
        )
        try:
            columns = self.format_output(text, row)
        except Exception as error:  # noqa: BLE001 -- a parser, perhaps a user's: whatever it raises is this row's failure
            return failed(known(), error)
        return known(columns=columns)

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        if not self.group_generations:
            return super().assemble(row, answers)
        names = self._own_columns()
        columns = {name: [answer.columns.get(name) for answer in answers] for name in names}
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
        if answer.cut_off:
            metadata[f"cut_off_{self.name}"] = True
        return metadata | super()._metadata(answer)


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


def fit_for_a_table(answer: Answer) -> Answer:
    """The answer, as a failure where its columns hold what no table can keep: the rows beside it would fail as well."""
    problem = next((problem for value in answer.columns.values() if (problem := unkeepable(value))), "")
    return failed(answer, UnreadableAnswerError(problem)) if problem else answer


def unkeepable(value: Any) -> str:
    """Why a value fits into no table; empty where nothing speaks against it."""
    if isinstance(value, str):
        return "" if is_whole(value) else f"expected whole characters, got half of one in {short(value)}"
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else f"expected a number of at most 64 bits, got {short(value)}"
    if isinstance(value, dict):
        return next((found for each in cast("Row", value).values() if (found := unkeepable(each))), "")
    # Long lists of numbers are vectors.
    if isinstance(value, list) and not isinstance(next(iter(cast("list[Any]", value)), None), float):
        return next((found for each in cast("list[Any]", value) if (found := unkeepable(each))), "")
    return ""


def is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def failed(answer: Answer, error: Exception) -> Answer:
    """The same answer, as a failure."""
    failure = failure_of(error)
    if answer.cut_off and not isinstance(error, LLMError):
        failure["message"] += CUT_OFF
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
