"""Steps: rows in, rows out. The base of everything in a pipeline."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, cast

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from llms.code import digest_of_text
from llms.markup import Facts, Folded
from llms.parameters import Configurable, Unasked, is_ours, set_quietly
from tasks.own_code import own_code
from tasks.templates import template_source
from tasks.typing import Columns, GeneratorStepOutput, Row, StepInput

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

METADATA = "distilabel_metadata"
SHADOWED = "\x00shadowed"


class PipelineLike(Protocol):
    """What a step needs of a pipeline: to be in it, and to be connected."""

    def add_step(self, step: Step) -> str: ...

    def connect(self, before: Step, after: Any) -> None: ...


class MappableRows(Protocol[T_co]):
    """What a step needs of the rows of a flow."""

    def map(self, step: Step, *others: Any) -> T_co: ...


current_pipeline: ContextVar[PipelineLike | None] = ContextVar("current_pipeline", default=None)
"""The pipeline whose `with` block is open: steps made there belong to it."""


class Step(Configurable, ABC):
    """Rows in, rows out.

    Write `inputs`, `outputs` and `process`. In a pipeline, `process` gets a shard's rows in batches
    of `input_batch_size`, one argument per step before this one.
    """

    version: ClassVar[str] = "1"
    """Raise it when a change of the code changes the rows: it's part of the cache key."""

    fails_rows: ClassVar[bool] = False
    """Whether it notes in the metadata of rows why they fail. A Task does."""

    takes_failed_rows: ClassVar[bool] = False
    """Whether `process` knows what to do with rows that failed before; otherwise it isn't shown them."""

    joins_rows: ClassVar[bool] = False
    """Whether it makes one row of a row of every step before it, with the columns of all."""

    moves_columns: ClassVar[bool] = False
    """Whether it writes what it reads to columns that its options name: no other one may be lost by it."""

    form_more = ("input_mappings", "output_mappings", "input_batch_size")

    name: Annotated[str, Field(exclude=True, description="Unique in a pipeline. Empty: from the class.")] = ""
    input_mappings: Annotated[
        dict[str, str],
        Field(title="Input columns", description='{"instruction": "prompt"} reads it from the column `prompt`.'),
    ] = {}
    output_mappings: Annotated[
        dict[str, str],
        Field(title="Output columns", description='{"generation": "answer"} writes it to the column `answer`.'),
    ] = {}
    input_batch_size: Annotated[
        int, Field(ge=1, title="Rows per call", description="How many rows `process` gets at a time."), Unasked()
    ] = 50

    _pipeline: PipelineLike | None = PrivateAttr(default=None)

    def __init_subclass__(cls, **options: Any) -> None:
        # `inputs: StepColumns = ["text"]`, as in distilabel, is no parameter: it becomes the property that it means.
        for name in ("inputs", "outputs"):
            columns = vars(cls).get(name)
            if isinstance(columns, list | dict):
                vars(cls).get("__annotations__", {})[name] = ClassVar[Columns]
                setattr(cls, name, property(partial(_columns_of_class, cast("Columns", columns))))
        super().__init_subclass__(**options)

    @field_validator("output_mappings")
    @classmethod
    def _check_targets(cls, mappings: dict[str, str]) -> dict[str, str]:
        targets = list(mappings.values())
        twice = next((target for target in targets if targets.count(target) > 1), None)
        if twice is not None:
            names = [name for name, target in mappings.items() if target == twice]
            raise ValueError(
                f"expected a name of its own for each column, got {twice!r} for {names}: one of them would be lost;"
                " give them different names"
            )
        return mappings

    @model_validator(mode="wrap")
    @classmethod
    def _made_in(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Take `pipeline=...`, which isn't a parameter, as if the step were made in that pipeline's `with` block."""
        # By a function: pydantic keeps this method in the class, and a program's classes are pickled whole.
        return _made_in_pipeline(data, handler)

    def model_post_init(self, context: Any, /) -> None:
        pipeline = current_pipeline.get()
        if pipeline is not None:
            self._pipeline = pipeline
            set_quietly(self, "name", pipeline.add_step(self))
        elif not self.name:
            set_quietly(self, "name", snake_case(type(self).__name__))

    @property
    def pipeline(self) -> PipelineLike | None:
        """The pipeline that the step was made in."""
        return self._pipeline

    @property
    def _logger(self) -> logging.Logger:
        """For the code of a step of one's own, as in distilabel."""
        return logging.getLogger(f"{__package__}.{self.name}")

    @property
    def template_names(self) -> tuple[str, ...]:
        """The prompt templates in use; their text is part of the cache key."""
        return ()

    @property
    def inputs(self) -> Columns:
        """The columns that the step reads, by its own names."""
        return []

    @property
    def outputs(self) -> Columns:
        """The columns that the step adds, by its own names."""
        return []

    @property
    def metadata_keys(self) -> list[str]:
        """What it notes in the metadata of rows, of any of them or all."""
        return [f"error_{self.name}"] if self.fails_rows else []

    def load(self) -> None:
        """Get ready. Called once before the first `process`."""

    def unload(self) -> None:
        """Give back what `load` took."""

    @abstractmethod
    def process(self, *args: Any, **kwargs: Any) -> Any:
        """Yield lists of rows. Takes a list of rows for each step before this one: `process(self, inputs)`."""

    def apply(self, *inputs: StepInput) -> list[Row]:
        """All rows that `process` makes, with the column mappings applied. The rows given stay as they are."""
        made: list[Row] = []
        untouched = self._untouched_columns()
        for start in range(0, max(map(len, inputs), default=0), self.batch_length(inputs)):
            end = start + self.batch_length(inputs)
            batches = [[shadowing(row, self.input_mappings, untouched) for row in rows[start:end]] for rows in inputs]
            for given in self.process(*batches):
                # A row, where a list was meant: it was yielded alone, or the list was returned.
                rows = [cast("Row", given)] if isinstance(given, Mapping) else cast("list[Row]", given)
                made += [restored(row, self.input_mappings, self.output_mappings) for row in rows]
        return made

    def _untouched_columns(self) -> list[str]:
        """The dataset's columns that stay as they are, as the output of that name is written elsewhere."""
        if not self.output_mappings:
            return []
        own = self.own_columns()
        written = {self.output_mappings.get(name, name) for name in own}
        read = {self.input_mappings.get(name, name) for name in self.output_mappings if name in own}
        return sorted((read & self.added_columns(frozenset(read))) - written)

    def batch_length(self, inputs: Sequence[StepInput]) -> int:
        """How many rows of `inputs` go into one call of `process`."""
        return self.input_batch_size

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        """The dataset's columns after this step, given those before it."""
        return available | {self.output_mappings.get(name, name) for name in self.own_columns()}

    def own_columns(self) -> list[str]:
        """The columns that it gives, by its own names: `outputs`, and what an option adds."""
        return list(self.outputs)

    def required_columns(self) -> list[str]:
        """The dataset's columns that must be there, by the dataset's names."""
        columns = self.inputs
        required = [name for name in columns if not isinstance(columns, dict) or columns[name]]
        return [self.input_mappings.get(name, name) for name in required]

    def identity(self) -> dict[str, Any]:
        """What decides this step's rows: settings, version, templates; and, of a class that isn't ours, its code.

        That is all code of the user's own which it needs, and the constants which that reads.
        """
        templates = {name: digest_of_text(template_source(name)) for name in self.template_names}
        code = {} if is_ours(type(self)) else own_code(type(self))
        return {**super().identity(), "version": self.version, "templates": templates, **code}

    def _facts(self) -> Facts:
        columns = {"columns in": columns_told(self.columns_read()), "columns out": columns_told(self.columns_written())}
        prompts = [Folded(name, template_source(name)) for name in self.template_names]
        told = {name: each for name, each in columns.items() if each} | ({"prompts": prompts} if prompts else {})
        settings = super()._facts()
        return Facts(settings.kind, self.name, {**told, **settings.facts})

    def columns_read(self) -> dict[str, bool]:
        """The columns that it reads, by the dataset's names: to whether they must be there."""
        columns = self.inputs
        required = columns if isinstance(columns, dict) else dict.fromkeys(columns, True)
        return {self.input_mappings.get(name, name): needed for name, needed in required.items()}

    def columns_written(self) -> dict[str, bool]:
        """The columns that it adds, by the dataset's names, as far as they are known without reading anything."""
        return dict.fromkeys((self.output_mappings.get(name, name) for name in self.own_columns()), True)

    def map(self, rows: MappableRows[T], *others: Any) -> T:
        """This step over the rows of a flow, lazily, shard by shard."""
        return rows.map(self, *others)

    def connect(self, *steps: Step, routing_batch_function: Any = None) -> None:
        """`self >> [*steps]`; with a routing function, `self >> routing_batch_function >> [*steps]`."""
        if routing_batch_function is None:
            self.__rshift__(list(steps))
        else:
            self.__rshift__(routing_batch_function).__rshift__(list(steps))

    def __rshift__(self, after: Any) -> Any:
        if self._pipeline is None:
            raise ValueError(f"{self.name!r} is in no pipeline: connect steps inside `with Pipeline(...):`")
        self._pipeline.connect(self, after)
        return after

    def __rrshift__(self, before: Iterable[Step]) -> Step:
        for step in before:
            step.__rshift__(self)
        return self


@dataclass(frozen=True)
class SourceTypes:
    """What is known of a source's columns, all of them, before its rows are used."""

    features: dict[str, Any]
    """By column: as in `datasets.Features`; None where only the values tell."""
    notes: tuple[str, ...] = ()
    """What a person should know of the columns."""


class GeneratorStep(Step):
    """A step that makes rows from nothing or from outside: the root of a pipeline."""

    batch_size: Annotated[
        int, Field(ge=1, exclude=True, description="How many rows are made at a time."), Unasked()
    ] = 50
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Unasked()] = 50
    input_mappings: Annotated[dict[str, str], Field(exclude=True)] = {}

    @abstractmethod
    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yield `(rows, last)`, leaving out the first `offset` rows."""

    def columns(self) -> frozenset[str] | None:
        """The columns of the rows, where they can be known without making rows."""
        return frozenset(self.outputs) or None

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        """All columns and their types, where they are told or can be found out by reading; None where they can't.

        A flow calls it before anything is asked, so here is the place to refuse what can't be used.

        Args:
            rows: only the first ones matter. None: all.
        """
        return None


class GlobalStep(Step):
    """A step that needs all rows at once."""

    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Unasked()] = 50

    def batch_length(self, inputs: Sequence[StepInput]) -> int:
        return max(map(len, inputs), default=1) or 1


def _made_in_pipeline(data: Any, make: Callable[[Any], T]) -> T:
    given = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    pipeline = given.get("pipeline")
    if not hasattr(pipeline, "add_step"):
        return make(data)
    token = current_pipeline.set(pipeline)
    try:
        return make({name: value for name, value in given.items() if name != "pipeline"})
    finally:
        current_pipeline.reset(token)


def _columns_of_class(columns: Columns, step: Step) -> Columns:
    return columns


def shadowing(row: Row, input_mappings: Mapping[str, str], untouched: Iterable[str] = ()) -> Row:
    """A copy of `row` as the step sees it: the mapped columns under the step's names.

    A column whose name the step uses for another one, or that is to stay `untouched`, is put aside in the row
    itself, so that it goes wherever the row goes.
    """
    aside = {name: row[name] for name in untouched if name in row}
    if not input_mappings:
        return {**row, SHADOWED: aside} if aside else dict(row)
    seen = {name: value for name, value in row.items() if name not in input_mappings.values()}
    aside.update({name: seen[name] for name in input_mappings if name in seen})
    seen.update({name: row[column] for name, column in input_mappings.items() if column in row})
    return {**seen, SHADOWED: aside} if aside else seen


def restored(row: Row, input_mappings: Mapping[str, str], output_mappings: Mapping[str, str]) -> Row:
    """The row under the dataset's names again."""
    if not input_mappings and not output_mappings:
        return row
    aside: Row = row.get(SHADOWED, {})
    names = {**input_mappings, **output_mappings}
    return {**{names.get(name, name): value for name, value in row.items() if name != SHADOWED}, **aside}


def failure_in(row: Row) -> dict[str, Any] | None:
    """Why a row failed in some step before, or None: `{"step", "type", "message", "retryable"}`."""
    metadata: Row = row.get(METADATA) or {}
    for key, value in metadata.items():
        if value is not None and key.startswith("error_"):
            return {"step": key.removeprefix("error_"), **value}
    return None


def failed_elsewhere(row: Row, step: str) -> bool:
    """Whether a row failed in another step than this one."""
    metadata: Row = row.get(METADATA) or {}
    return any(
        value is not None and key.startswith("error_") and key != f"error_{step}" for key, value in metadata.items()
    )


def columns_told(columns: Mapping[str, bool]) -> str:
    """Columns in a line, with a mark on those that may be missing."""
    return ", ".join(name if needed else f"{name} (optional)" for name, needed in columns.items())


def snake_case(name: str) -> str:
    """`TextGeneration` as `text_generation`, `vLLMStep` as `v_llm_step`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
