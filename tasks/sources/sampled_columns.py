"""The kinds of columns that `SampleColumns` can make."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from random import Random
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from jinja2 import TemplateError
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from llms.parameters import Configurable
from llms.quantities import quantity
from tasks.sources.personas import PersonChoices
from tasks.templates import HAS_VARIABLES, checked, taken_by_deploy, template_from, variables_of
from tasks.typing import Row

Unit = Literal["days", "hours", "minutes", "seconds"]

LEAST_SHARE = 1e-9
"""Of a distribution, that must lie within its bounds."""


class SampledColumn(Configurable, ABC):
    """A column whose values are drawn at random. Write `value`, and `reads` where it needs other columns."""

    form_first: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(min_length=1, title="Column", description="Its name in the rows.")]

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A form gives back what it's filled with, and an empty number would be refused.
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def reads(self) -> frozenset[str]:
        """The columns that have to be there before this one."""
        return frozenset()

    @abstractmethod
    def value(self, random: Random, row: Row) -> Any:
        """The value in one row, given the columns that are there. Raises ValueError."""


class CategoryColumn(SampledColumn):
    """One of several values."""

    form_title = "Category"

    values: Annotated[list[str], Field(min_length=1, title="Values")]
    weights: Annotated[
        list[float], Field(title="Weights", description="How frequent each value is. Empty: all of them the same.")
    ] = []

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights and len(self.weights) != len(self.values):
            values = quantity(len(self.values), "value needs", "values need")
            raise ValueError(f"{values} as many weights, got {len(self.weights)}")
        if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError(f"weights can't be negative, and one must be above 0, got {self.weights}")
        return self

    def value(self, random: Random, row: Row) -> str:
        return random.choices(self.values, self.weights or None)[0]


class CategoryChoices(Configurable):
    """The values that go with one value of another column."""

    form_title = "Choices"

    value: Annotated[str, Field(title="With", description="A value of the other column.")]
    choices: Annotated[list[str], Field(min_length=1, title="Values")]


class SubcategoryColumn(SampledColumn):
    """One of the values that go with the value of another column."""

    form_title = "Subcategory"

    category: Annotated[str, Field(title="Depends on", description="The name of the other column.")]
    groups: Annotated[
        list[CategoryChoices], Field(min_length=1, title="Groups", description="The values for each of its values.")
    ]

    @field_validator("groups", mode="before")
    @classmethod
    def _groups_of_mapping(cls, value: Any) -> Any:
        """Also as a dict: `{"sport": ["rowing", "judo"]}`."""
        if not isinstance(value, Mapping):
            return value
        return [{"value": name, "choices": choices} for name, choices in cast("Mapping[Any, Any]", value).items()]

    @field_validator("groups")
    @classmethod
    def _check_groups(cls, value: list[CategoryChoices]) -> list[CategoryChoices]:
        twice = repeated([each.value for each in value])
        if twice:
            raise ValueError(f"{twice} have more than one group")
        return value

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.category})

    def value(self, random: Random, row: Row) -> str:
        found = next((each.choices for each in self.groups if each.value == row[self.category]), None)
        if found is None:
            known = [each.value for each in self.groups]
            raise ValueError(f"there are groups for {known}, none for {row[self.category]!r} of {self.category!r}")
        return random.choice(found)


class UniformColumn(SampledColumn):
    """A number of a range, all of them equally likely."""

    form_title = "Uniform"

    low: Annotated[float, Field(allow_inf_nan=False, title="Lowest")]
    high: Annotated[float, Field(allow_inf_nan=False, title="Highest")]
    decimals: Annotated[int, Field(ge=0, le=15, title="Decimals", description="0: whole numbers.")] = 0

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        check_bounds(self.low, self.high, self.decimals)
        return self

    def value(self, random: Random, row: Row) -> float | int:
        step = random.randint(step_from(self.low, self.decimals), step_to(self.high, self.decimals))
        return number_of(step, self.decimals)


class GaussianColumn(SampledColumn):
    """A number near a mean: a normal distribution, cut off at bounds where there are any."""

    form_title = "Gaussian"

    mean: Annotated[float, Field(allow_inf_nan=False, title="Mean")]
    deviation: Annotated[float, Field(gt=0, allow_inf_nan=False, title="Standard deviation")]
    low: Annotated[float | None, Field(allow_inf_nan=False, title="Lowest", description="Empty: no bound.")] = None
    high: Annotated[float | None, Field(allow_inf_nan=False, title="Highest", description="Empty: no bound.")] = None
    decimals: Annotated[int, Field(ge=0, le=15, title="Decimals", description="0: whole numbers.")] = 0

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.low is not None and self.high is not None:
            check_bounds(self.low, self.high, self.decimals)
        below, above = self._shares()
        if above - below < LEAST_SHARE:
            raise ValueError(
                f"next to nothing of mean={self.mean:g}, deviation={self.deviation:g} lies"
                f" between low={self.low} and high={self.high}"
            )
        return self

    def _shares(self) -> tuple[float, float]:
        """The shares of the distribution that lie below its bounds."""
        normal = NormalDist(self.mean, self.deviation)
        below = 0.0 if self.low is None else normal.cdf(self.low)
        return below, 1.0 if self.high is None else normal.cdf(self.high)

    def value(self, random: Random, row: Row) -> float | int:
        below, above = self._shares()
        share = below + (above - below) * random.random()
        # Its ends lie at infinity.
        inner = min(max(share, LEAST_SHARE / 2), 1 - LEAST_SHARE / 2)
        step = round(NormalDist(self.mean, self.deviation).inv_cdf(inner) * 10**self.decimals)
        if self.low is not None:
            step = max(step, step_from(self.low, self.decimals))
        if self.high is not None:
            step = min(step, step_to(self.high, self.decimals))
        return number_of(step, self.decimals)


class PoissonColumn(SampledColumn):
    """How often something happens, given how often it does on average: a Poisson distribution."""

    form_title = "Poisson"

    mean: Annotated[float, Field(gt=0, le=1e6, title="Mean")]

    def value(self, random: Random, row: Row) -> int:
        return poisson(random, self.mean)


class BernoulliColumn(SampledColumn):
    """True or false."""

    form_title = "True or false"

    probability: Annotated[float, Field(ge=0, le=1, title="Probability", description="Of true.")] = 0.5

    def value(self, random: Random, row: Row) -> bool:
        return random.random() < self.probability


class DatetimeColumn(SampledColumn):
    """A date, or a date and a time of day in UTC, as text: 2026-03-05 or 2026-03-05T14:30:00 (ISO 8601)."""

    form_title = "Date and time"

    start: Annotated[datetime, Field(title="From", description="Without a time zone: in UTC.")]
    end: Annotated[datetime, Field(title="To", description="Without a time zone: in UTC.")]
    unit: Annotated[Unit, Field(title="Unit", description="How exact it is. Days: dates alone.")] = "days"

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"start={self.start.isoformat()} is after end={self.end.isoformat()}")
        return self

    def value(self, random: Random, row: Row) -> str:
        step = timedelta(**{self.unit: 1})
        moment = self.start + random.randint(0, (self.end - self.start) // step) * step
        return text_of(moment, dated=self.unit == "days")


class TimedeltaColumn(SampledColumn):
    """A moment some time after, or before, that of another column."""

    form_title = "Time after another"

    after: Annotated[str, Field(title="After", description="The name of the column with the other moment.")]
    least: Annotated[int, Field(title="Least", description="Below 0: before it.")] = 0
    most: Annotated[int, Field(title="Most")] = 30
    unit: Annotated[Unit, Field(title="Unit")] = "days"

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is above most={self.most}")
        return self

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.after})

    def value(self, random: Random, row: Row) -> str:
        other = str(row[self.after])
        moment = datetime.fromisoformat(other) + timedelta(**{self.unit: random.randint(self.least, self.most)})
        return text_of(moment, dated=self.unit == "days" and "T" not in other)


class TemplateColumn(SampledColumn):
    """A text with the values of other columns in it."""

    form_title = "Text of other columns"

    template: Annotated[
        str,
        Field(
            title="Template",
            description="Jinja2: A {{ tone }} letter on {{ topic }}.",
            json_schema_extra={"pattern": HAS_VARIABLES},
        ),
    ]

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        if not variables_of(checked(value)):
            raise ValueError(f"{value!r} reads no other column. {taken_by_deploy('topic')}")
        return value

    @property
    def reads(self) -> frozenset[str]:
        return variables_of(self.template)

    def value(self, random: Random, row: Row) -> str:
        try:
            return template_from(self.template).render(**row)
        except TemplateError as error:
            raise ValueError(f"template={self.template!r} can't be filled in: {error}") from None


class UuidColumn(SampledColumn):
    """An identifier: a random UUID, the same in every run."""

    form_title = "UUID"

    prefix: Annotated[str, Field(title="Prefix", description="Put before it.")] = ""

    def value(self, random: Random, row: Row) -> str:
        return f"{self.prefix}{uuid.UUID(int=random.getrandbits(128), version=4)}"


class PersonColumn(PersonChoices, SampledColumn):
    """A person: age, occupation, region, interests, trait and goal, as `{{ person.age }}` in a template."""

    form_title = "Person"

    def value(self, random: Random, row: Row) -> Row:
        return self.person(random)


def in_order(columns: Sequence[SampledColumn]) -> list[SampledColumn]:
    """The columns, each after those that it reads.

    Raises:
        ValueError: two have one name, one reads a column that isn't there, or they read one another.
    """
    names = [column.name for column in columns]
    if twice := repeated(names):
        raise ValueError(f"two columns are called {twice[0]!r}; give one of them another name")
    ordered: list[SampledColumn] = []
    left = list(columns)
    while left:
        there = {column.name for column in ordered}
        ready = [column for column in left if column.reads <= there]
        if not ready:
            raise ValueError(_what_is_missing(left, names))
        ordered += ready
        left = [column for column in left if column not in ready]
    return ordered


def _what_is_missing(left: Sequence[SampledColumn], names: Sequence[str]) -> str:
    for column in left:
        unknown = sorted(column.reads - set(names))
        if unknown:
            return f"column {column.name!r} reads {unknown[0]!r}, which isn't among the columns: {', '.join(names)}"
    return f"columns read one another in a circle: {', '.join(column.name for column in left)}"


def check_kinds(columns: Sequence[SampledColumn]) -> None:
    """Raises ValueError where a column can't do anything with the values of one that it reads."""
    known = {column.name: column for column in columns}
    for column in columns:
        if isinstance(column, SubcategoryColumn) and isinstance(of := known[column.category], CategoryColumn):
            grouped = {each.value for each in column.groups}
            missing = [value for value in of.values if value not in grouped]
            if missing:
                raise ValueError(f"column {column.name!r} has no group for {missing} of {of.name!r}")
        if isinstance(column, TimedeltaColumn):
            other = known[column.after]
            if not isinstance(other, DatetimeColumn | TimedeltaColumn):
                raise ValueError(f"column {column.name!r} needs a moment; {other.name!r} is a {type(other).__name__}")


def check_bounds(low: float, high: float, decimals: int) -> None:
    """Raises ValueError where no number with so many decimals lies in between."""
    if step_from(low, decimals) > step_to(high, decimals):
        raise ValueError(f"no number with {decimals} decimals lies between low={low:g} and high={high:g}")


def step_from(low: float, decimals: int) -> int:
    """The lowest number from `low` on, in units of the last decimal."""
    return int(Decimal(repr(low)).scaleb(decimals).to_integral_value(ROUND_CEILING))


def step_to(high: float, decimals: int) -> int:
    """The highest number up to `high`, in units of the last decimal."""
    return int(Decimal(repr(high)).scaleb(decimals).to_integral_value(ROUND_FLOOR))


def number_of(step: int, decimals: int) -> float | int:
    """The number that has `step` units of its last decimal."""
    return step / 10**decimals if decimals else step


def poisson(random: Random, rate: float) -> int:
    """A number from a Poisson distribution. Large rates are split by the time of their middle arrival."""
    count = 0
    while rate > 16:
        # The time until arrival number `step` has a gamma distribution.
        step = int(rate * 7 / 8)
        time = random.gammavariate(step, 1)
        if time > rate:
            return count + sum(random.random() < rate / time for _ in range(step - 1))
        count, rate = count + step, rate - time
    passed = random.expovariate(1)
    while passed <= rate:
        count, passed = count + 1, passed + random.expovariate(1)
    return count


def text_of(moment: datetime, *, dated: bool) -> str:
    """A moment in ISO 8601, or its date alone."""
    return moment.date().isoformat() if dated else moment.replace(tzinfo=None).isoformat(timespec="seconds")


def repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
