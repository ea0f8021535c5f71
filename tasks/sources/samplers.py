"""Samplers: rows without a dataset, drawn at random by a seed. Row i is the same however many rows there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SkipValidation, field_validator, model_validator

from llms.quantities import quantity
from tasks.random_choices import random_for
from tasks.sources.errors import SourceError
from tasks.sources.loaders import checked_rows
from tasks.sources.personas import PERSON_COLUMNS, PersonChoices, persona
from tasks.sources.sampled_columns import (
    BernoulliColumn,
    CategoryColumn,
    DatetimeColumn,
    GaussianColumn,
    PersonColumn,
    PoissonColumn,
    SampledColumn,
    SubcategoryColumn,
    TemplateColumn,
    TimedeltaColumn,
    UniformColumn,
    UuidColumn,
    check_kinds,
    in_order,
)
from tasks.steps import GeneratorStep
from tasks.typing import Columns, GeneratorStepOutput, Row


class Sampler(GeneratorStep):
    """A generator step that draws its rows. Write `total`, `columns` and `rows`."""

    form_last: ClassVar[tuple[str, ...]] = ("kind",)

    seed: Annotated[int, Field(title="Seed", description="Another one gives other rows.")] = 0

    @property
    @abstractmethod
    def total(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The rows with these numbers. What is in a row depends on its number and the seed. Raises SourceError."""

    @property
    def outputs(self) -> Columns:
        return sorted(self.columns() or ())

    def process(self, offset: int = 0) -> GeneratorStepOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield `(rows, last)`, leaving out the first `offset` rows.

        Raises:
            SourceError: a row can't be made.
        """
        for start in range(offset, max(self.total, offset + 1), self.batch_size):
            end = min(start + self.batch_size, self.total)
            yield list(self.rows(range(start, end))), end == self.total


class SampleColumns(Sampler):
    """Rows of random values: categories, numbers, dates, persons, and texts made of them.

    A column's values don't change when other columns are added, taken away or put in another order.

    Output columns:
        those that are given, in the order in which their kinds stand here.

    Example:
        >>> from tasks import CategoryColumn, SampleColumns, SubcategoryColumn, TemplateColumn, UniformColumn
        >>> sampler = SampleColumns(
        ...     num_rows=2,
        ...     categories=[CategoryColumn(name="field", values=["sport", "music"], weights=[1, 3])],
        ...     subcategories=[
        ...         SubcategoryColumn(
        ...             name="topic", category="field", groups={"sport": ["rowing", "judo"], "music": ["jazz", "opera"]}
        ...         )
        ...     ],
        ...     uniforms=[UniformColumn(name="words", low=50, high=200)],
        ...     templates=[TemplateColumn(name="instruction", template="Explain {{ topic }} in {{ words }} words.")],
        ... )
        >>> rows, last = next(sampler.process())
        >>> [row["instruction"] for row in rows]
        ['Explain opera in 77 words.', 'Explain jazz in 163 words.']
    """

    form_title = "Random columns"
    form_first = ("num_rows", "seed")

    kind: Annotated[Literal["columns"], Field(title="Source")] = "columns"
    num_rows: Annotated[int, Field(ge=1, title="Number of rows")] = 100
    categories: Annotated[list[CategoryColumn], Field(title="Categories", description="One of several values.")] = []
    subcategories: Annotated[
        list[SubcategoryColumn],
        Field(title="Subcategories", description="One of the values that go with that of another column."),
    ] = []
    uniforms: Annotated[
        list[UniformColumn], Field(title="Numbers of a range", description="All of them equally likely.")
    ] = []
    gaussians: Annotated[
        list[GaussianColumn], Field(title="Numbers near a mean", description="In a normal distribution.")
    ] = []
    poissons: Annotated[
        list[PoissonColumn], Field(title="Counts", description="How often something happens: a Poisson distribution.")
    ] = []
    bernoullis: Annotated[list[BernoulliColumn], Field(title="True or false")] = []
    datetimes: Annotated[list[DatetimeColumn], Field(title="Dates and times", description="From one to another.")] = []
    timedeltas: Annotated[
        list[TimedeltaColumn], Field(title="Later dates and times", description="Some time after another column's.")
    ] = []
    uuids: Annotated[list[UuidColumn], Field(title="Identifiers", description="Random UUIDs.")] = []
    persons: Annotated[
        list[PersonColumn], Field(title="Persons", description="Age, occupation, region, interests, trait and goal.")
    ] = []
    templates: Annotated[
        list[TemplateColumn], Field(title="Texts", description="With the values of other columns in them.")
    ] = []

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        check_kinds(in_order(self.sampled()))
        return self

    @property
    def total(self) -> int:
        return self.num_rows

    def columns(self) -> frozenset[str] | None:
        return frozenset(column.name for column in self.sampled()) or None

    def sampled(self) -> list[SampledColumn]:
        """The columns, in their order in the rows."""
        return [
            *(*self.categories, *self.subcategories, *self.uniforms, *self.gaussians, *self.poissons),
            *(*self.bernoullis, *self.datetimes, *self.timedeltas, *self.uuids, *self.persons, *self.templates),
        ]

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        columns = self.sampled()
        if not columns:
            raise SourceError(f"{self.name!r} has no columns; give it some, such as categories=[CategoryColumn(...)]")
        ordered = in_order(columns)
        for number in numbers:
            row: Row = {}
            for column in ordered:
                try:
                    row[column.name] = column.value(random_for({}, self.seed, column.name, number), row)
                except (ValueError, OverflowError) as error:
                    raise SourceError(f"column {column.name!r} of {self.name!r}, row {number}: {error}") from error
            yield {column.name: row[column.name] for column in columns}


class SamplePersonas(PersonChoices, Sampler):
    """Persons in a sentence, put together at random from lists: ours, or your own.

    A prompt that is to be answered, asked or judged by many different people gets many different answers.

    Output columns:
        persona: a sentence with all of the other columns.
        age: in years.
        occupation, region, trait, goal: a text each.
        interests: a list of texts.

    Source: Scaling Synthetic Data Creation with 1,000,000,000 Personas (https://arxiv.org/abs/2406.20094), which
    had a model write them; here they are combined from lists.

    Example:
        >>> from tasks import SamplePersonas
        >>> rows, last = next(SamplePersonas(num_rows=1, regions=["the Azores"], traits=["tidy"]).process())
        >>> print(rows[0]["persona"])
        A 47-year-old civil engineer from the Azores, tidy and keen on quiz nights and marathon training,
        who wants to keep in touch with friends abroad.
    """

    form_title = "Personas"
    form_first = ("num_rows", "seed")

    kind: Annotated[Literal["personas"], Field(title="Source")] = "personas"
    num_rows: Annotated[int, Field(ge=1, title="Number of rows")] = 100

    @property
    def total(self) -> int:
        return self.num_rows

    def columns(self) -> frozenset[str] | None:
        return frozenset({"persona", *PERSON_COLUMNS})

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        for number in numbers:
            person = self.person(random_for({}, self.seed, number))
            yield {"persona": persona(person), **person}


class DataSampler(Sampler):
    """Rows with lists: some rows of given data in each, drawn at random. For few-shot prompts.

    No row of the data is twice in one list.

    Output columns:
        those of the data, a list each.

    Example:
        >>> from tasks import DataSampler
        >>> data = [{"word": "ebb"}, {"word": "tide"}, {"word": "surf"}]
        >>> next(DataSampler(data=data, size=2, samples=2).process())
        ([{'word': ['tide', 'ebb']}, {'word': ['ebb', 'surf']}], True)
    """

    data: Annotated[SkipValidation[list[Row]], Field(exclude=True, description="The rows to draw from, as dicts.")] = []
    size: Annotated[int, Field(ge=1, title="Rows per list", description="How many rows are drawn for each.")] = 2
    samples: Annotated[int, Field(ge=1, title="Number of rows")] = 100

    @field_validator("data", mode="before")
    @classmethod
    def _check_data(cls, value: Any) -> Any:
        return checked_rows(value)

    @property
    def total(self) -> int:
        return self.samples

    def columns(self) -> frozenset[str] | None:
        return frozenset(chain.from_iterable(self.data)) or None

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        if self.size > len(self.data):
            rows = quantity(len(self.data), "row")
            raise SourceError(f"size={self.size} of {self.name!r}: `data` has {rows}; draw no more")
        names = list(dict.fromkeys(chain.from_iterable(self.data)))
        for number in numbers:
            drawn = random_for({}, self.seed, number).sample(self.data, self.size)
            yield {name: [row.get(name) for row in drawn] for name in names}
