"""How far several judges agree, row by row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, pstdev
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import Field

from llms.parameters import short
from tasks.rows.columns import value_in
from tasks.rows.formatting import Format
from tasks.typing import Columns, Row

Measure: TypeAlias = Literal["percent", "alpha-nominal", "alpha-ordinal", "alpha-interval"]

Ratings: TypeAlias = list[Any]
"""What the judges said of one item; those who said nothing are left out."""


class JudgeAgreement(Format):
    """Sums up the ratings of several judges, and says how far they agree.

    A judge rates one item per row (a number, a text), or several (a list, with an item for each answer). Give one
    column per judge; or a single column that holds a list with the ratings of each judge, as `GroupColumns` and
    `group_generations` make it. None and NaN mean that a judge gave no rating.

    Input columns:
        those of `columns`.

    Output columns:
        mean: the mean rating of each item; None where ratings aren't numbers.
        spread: the standard deviation of an item's ratings (that of a population); None where they aren't numbers.
        majority: what more than half of an item's judges said, or None.
        agreement: one figure per row, by `measure`; None where it has no value.

    All but `agreement` are lists where the ratings are. `measure` is one of:

    - `percent`: the share of pairs of judges that say the same, from 0 to 1, as the mean of the items' shares
      (Fleiss 1971, https://doi.org/10.1037/h0031619, without the correction for chance).
    - `alpha-nominal`, `alpha-ordinal`, `alpha-interval`: Krippendorff's alpha over the row's items: 1 is full
      agreement, 0 is what chance gives, below 0 is worse (https://repository.upenn.edu/asc_papers/43). It has no value
      where there are fewer than two items with two ratings, or where all ratings are equal.

    Example:
        >>> from tasks import JudgeAgreement
        >>> step = JudgeAgreement(columns=["ratings_a", "ratings_b", "ratings_c"])
        >>> row = {"ratings_a": [5, 2], "ratings_b": [5, 3], "ratings_c": [5, 4]}
        >>> (row,) = next(step.process([row]))
        >>> row["mean"], row["majority"], row["agreement"]
        ([5.0, 3.0], [5, None], 0.5)
    """

    columns: Annotated[
        list[str], Field(min_length=1, title="Columns", description="The ratings, one column for each judge.")
    ]
    measure: Annotated[
        Measure,
        Field(title="Agreement", description="Share of equal pairs, or Krippendorff's alpha."),
    ] = "percent"

    @property
    def inputs(self) -> Columns:
        return list(self.columns)

    @property
    def outputs(self) -> Columns:
        return ["mean", "spread", "majority", "agreement"]

    def format_row(self, row: Row) -> Row:
        items, several = items_of(judges_of(row, self.columns))
        columns: dict[str, list[Any]] = {
            "mean": [fmean(ratings) if are_numbers(ratings) else None for ratings in items],
            "spread": [pstdev(ratings) if are_numbers(ratings) else None for ratings in items],
            "majority": list(map(majority, items)),
        }
        summed_up: Row = {name: values if several else values[0] for name, values in columns.items()}
        return {**summed_up, "agreement": agreement(items, self.measure)}


def judges_of(row: Row, columns: Sequence[str]) -> list[Any]:
    """The ratings of each judge. Raises ValueError where there's only one judge."""
    values = [value_in(row, column) for column in columns]
    if len(values) == 1:
        if not isinstance(values[0], list):
            raise ValueError(
                f"{columns[0]}: expected a list with the ratings of each judge, as there's one column,"
                f" got {short(values[0])}"
            )
        values = cast("list[Any]", values[0])
    if len(values) < 2:
        raise ValueError(f"expected the ratings of two judges or more, got {short(values)}")
    return values


def items_of(judges: Sequence[Any]) -> tuple[list[Ratings], bool]:
    """What was said of each item, and whether there are several. Raises ValueError where judges rated other things."""
    lists = [cast("list[Any]", ratings) for ratings in judges if isinstance(ratings, list)]
    singles = [rating for rating in judges if not isinstance(rating, list) and rating is not None]
    lengths = {len(ratings) for ratings in lists}
    if (lists and singles) or len(lengths) > 1:
        raise ValueError(f"expected as many ratings from each judge, got {short(list(judges))}")
    items = [list(item) for item in zip(*lists, strict=True)] if lists else [singles]
    wrong = next((rating for item in items for rating in item if not is_rating(rating)), None)
    if wrong is not None:
        raise ValueError(f"expected ratings that are finite numbers or texts, got {short(wrong)}")
    return [[rating for rating in item if not is_missing(rating)] for item in items], bool(lists)


def is_rating(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and value not in {math.inf, -math.inf})


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def are_numbers(ratings: Ratings) -> bool:
    """Whether there are ratings, and all are numbers."""
    return bool(ratings) and all(isinstance(each, int | float) and not isinstance(each, bool) for each in ratings)


def majority(ratings: Ratings) -> Any:
    """What more than half said, or None."""
    most = Counter(ratings).most_common(1)
    return most[0][0] if most and most[0][1] * 2 > len(ratings) else None


def agreement(items: Sequence[Ratings], measure: Measure) -> float | None:
    """How far the judges agree over the items that two or more of them rated; None where that has no value.

    Raises:
        ValueError: the measure needs numbers, and the ratings are texts.
    """
    paired = [ratings for ratings in items if len(ratings) > 1]
    if not paired:
        return None
    if measure == "percent":
        return fmean(share_of_equal_pairs(ratings) for ratings in paired)
    if measure != "alpha-nominal" and not all(map(are_numbers, paired)):
        raise ValueError(f"{measure} needs ratings that are numbers, got {short(paired)}; texts take 'alpha-nominal'")
    return krippendorff_alpha(paired, measure) if len(paired) > 1 else None


def share_of_equal_pairs(ratings: Ratings) -> float:
    pairs = list(combinations(ratings, 2))
    return sum(one == other for one, other in pairs) / len(pairs)


def krippendorff_alpha(items: Sequence[Ratings], measure: Measure) -> float | None:
    """1 - observed disagreement / expected disagreement, over items with two ratings or more each.

    Pairs within an item of `m` ratings weigh `1 / (m - 1)`. None where all ratings are equal.
    """
    counts = Counter(rating for ratings in items for rating in ratings)
    total = sum(counts.values())
    distance = distance_by(measure, counts)
    observed = sum(
        2 * sum(distance(one, other) for one, other in combinations(ratings, 2)) / (len(ratings) - 1)
        for ratings in items
    )
    expected = 2 * sum(counts[one] * counts[other] * distance(one, other) for one, other in combinations(counts, 2))
    return None if expected == 0 else 1 - (total - 1) * observed / expected


def distance_by(measure: Measure, counts: Mapping[Any, int]) -> Callable[[Any, Any], float]:
    """The squared distance between two ratings: of names, of ranks, or of numbers."""

    def nominal(one: Hashable, other: Hashable) -> float:
        return float(one != other)

    def ordinal(one: float, other: float) -> float:
        if one == other:
            return 0.0
        low, high = min(one, other), max(one, other)
        between = sum(count for rating, count in counts.items() if low <= rating <= high)
        return (between - (counts[one] + counts[other]) / 2) ** 2

    def interval(one: float, other: float) -> float:
        return float(one - other) ** 2

    return {"alpha-ordinal": ordinal, "alpha-interval": interval}.get(measure, nominal)
