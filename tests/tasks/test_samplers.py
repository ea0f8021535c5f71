"""Rows drawn at random: the same every time, the same whatever stands around them, and as they were ordered."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import datetime
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from flows import Source, collect, flow, load
from flows.authoring.preview import checked
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from tasks import (
    BernoulliColumn,
    CategoryColumn,
    DataSampler,
    DatetimeColumn,
    GaussianColumn,
    PersonColumn,
    PoissonColumn,
    SampleColumns,
    SampledColumn,
    SamplePersonas,
    SourceError,
    SubcategoryColumn,
    TemplateColumn,
    TextGeneration,
    TimedeltaColumn,
    UniformColumn,
    UuidColumn,
)
from tasks.sources.personas import OLDEST, PERSON_COLUMNS, YOUNGEST, article, our_lists
from tasks.sources.sampled_columns import in_order
from tasks.sources.samplers import Sampler
from tasks.typing import Row

FIELD = CategoryColumn(name="field", values=["sport", "music"], weights=[1, 3])
TOPIC = SubcategoryColumn(name="topic", category="field", groups={"sport": ["rowing", "judo"], "music": ["jazz"]})
DATA = [{"word": word, "length": len(word)} for word in ("ebb", "tide", "surf", "swell", "foam")]

EVERY_KIND: dict[str, list[SampledColumn]] = {
    "categories": [FIELD],
    "subcategories": [TOPIC],
    "uniforms": [UniformColumn(name="words", low=50, high=200)],
    "gaussians": [GaussianColumn(name="height", mean=170, deviation=10, decimals=1)],
    "poissons": [PoissonColumn(name="visits", mean=3)],
    "bernoullis": [BernoulliColumn(name="urgent", probability=0.25)],
    "datetimes": [DatetimeColumn(name="ordered", start="2026-01-01", end="2026-12-31")],
    "timedeltas": [TimedeltaColumn(name="delivered", after="ordered", least=1, most=9)],
    "uuids": [UuidColumn(name="id", prefix="order-")],
    "persons": [PersonColumn(name="customer", youngest=30, oldest=40)],
    "templates": [TemplateColumn(name="instruction", template="{{ topic }} for {{ customer.occupation }}")],
}


def sampler(num_rows: int = 20, **options: Any) -> SampleColumns:
    return SampleColumns(num_rows=num_rows, **(options or EVERY_KIND))


def rows_of(step: Sampler, offset: int = 0) -> list[Row]:
    return [row for rows, _ in step.process(offset) for row in rows]


def values(column: SampledColumn, count: int = 4000) -> list[Any]:
    kind = next(name for name, columns in EVERY_KIND.items() if type(columns[0]) is type(column))
    return [row[column.name] for row in rows_of(sampler(count, **{kind: [column]}))]


SAMPLERS = [
    lambda count, **more: SampleColumns(num_rows=count, **EVERY_KIND, **more),
    lambda count, **more: SamplePersonas(num_rows=count, **more),
    lambda count, **more: DataSampler(data=DATA, size=3, samples=count, **more),
]
EACH = pytest.mark.parametrize("make", SAMPLERS, ids=["columns", "personas", "data"])


@EACH
def test_rows_are_the_same_every_time_and_others_with_another_seed(make: Any) -> None:
    assert rows_of(make(30)) == rows_of(make(30))
    assert rows_of(make(30)) != rows_of(make(30, seed=1))


@EACH
def test_a_row_does_not_depend_on_how_many_there_are_nor_on_batches(make: Any) -> None:
    whole = rows_of(make(60))

    assert rows_of(make(7)) == whole[:7]
    assert rows_of(make(60, batch_size=11)) == whole
    assert rows_of(make(60), offset=25) == whole[25:]


@EACH
def test_batches_tell_which_is_the_last(make: Any) -> None:
    sizes = [(len(rows), last) for rows, last in make(5, batch_size=2).process()]

    assert sizes == [(2, False), (2, False), (1, True)]
    assert list(make(5).process(offset=5)) == [([], True)]


@EACH
def test_the_columns_are_known_before_any_row_is_made(make: Any) -> None:
    step = make(2)

    assert all(set(row) == step.columns() == set(step.outputs) for row in rows_of(step))


@EACH
def test_rows_are_plain_values(make: Any) -> None:
    rows = rows_of(make(3))

    assert json.loads(json.dumps(rows)) == rows


# Columns


def test_a_column_does_not_change_with_those_around_it() -> None:
    alone = [row["words"] for row in rows_of(sampler(uniforms=EVERY_KIND["uniforms"]))]

    assert [row["words"] for row in rows_of(sampler())] == alone


def test_the_columns_of_a_row_have_a_fixed_order() -> None:
    assert [list(row) for row in rows_of(sampler(2))] == [[columns[0].name for columns in EVERY_KIND.values()]] * 2


def test_two_columns_of_one_kind_have_values_of_their_own() -> None:
    columns = [UniformColumn(name=name, low=0, high=10**9) for name in "ab"]

    assert all(row["a"] != row["b"] for row in rows_of(sampler(uniforms=columns)))


def test_categories_come_as_often_as_their_weights_say() -> None:
    counts = Counter(values(CategoryColumn(name="c", values=["a", "b", "never"], weights=[1, 3, 0])))
    alike = Counter(values(CategoryColumn(name="c", values=["a", "b"])))

    assert set(counts) == {"a", "b"}
    assert counts["b"] / counts["a"] == pytest.approx(3, rel=0.15)
    assert alike["a"] / alike["b"] == pytest.approx(1, rel=0.1)


def test_a_subcategory_fits_its_category() -> None:
    rows = rows_of(sampler(200, categories=[FIELD], subcategories=[TOPIC]))

    assert {(row["field"], row["topic"]) for row in rows} == {
        ("sport", "rowing"),
        ("sport", "judo"),
        ("music", "jazz"),
    }


def test_a_subcategory_can_go_on_from_a_subcategory() -> None:
    style = SubcategoryColumn(name="style", category="topic", groups={t: [f"{t}!"] for t in ("rowing", "judo", "jazz")})

    rows = rows_of(sampler(50, categories=[FIELD], subcategories=[style, TOPIC]))

    assert all(row["style"] == f"{row['topic']}!" for row in rows)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"low": 1, "high": 3}, {1, 2, 3}),
        ({"low": -1.5, "high": 1.2}, {-1, 0, 1}),
        ({"low": 1.1, "high": 1.3, "decimals": 1}, {1.1, 1.2, 1.3}),
        ({"low": 7, "high": 7}, {7}),
        ({"low": 0.29, "high": 0.29, "decimals": 2}, {0.29}),
    ],
)
def test_numbers_of_a_range_include_its_ends_and_nothing_outside(options: Row, expected: set[float]) -> None:
    found = values(UniformColumn(name="n", **options), 300)

    assert set(found) == expected
    assert all(isinstance(number, float if options.get("decimals") else int) for number in found)


def test_numbers_near_a_mean_have_their_mean_and_deviation() -> None:
    found = values(GaussianColumn(name="n", mean=50, deviation=5, decimals=3))

    assert fmean(found) == pytest.approx(50, abs=0.4)
    assert pstdev(found) == pytest.approx(5, rel=0.05)


def test_numbers_near_a_mean_keep_to_their_bounds() -> None:
    found = values(GaussianColumn(name="n", mean=0, deviation=10, low=-0.4, high=3.6, decimals=0), 500)

    assert set(found) == {0, 1, 2, 3}
    assert all(isinstance(number, int) for number in found)
    assert min(values(GaussianColumn(name="n", mean=-30, deviation=10, low=0, decimals=2), 300)) >= 0


@pytest.mark.parametrize("mean", [0.3, 4.0, 30.0, 400.0])
def test_counts_have_the_mean_and_the_spread_of_a_poisson_distribution(mean: float) -> None:
    found = values(PoissonColumn(name="n", mean=mean))

    assert fmean(found) == pytest.approx(mean, rel=0.06)
    assert pstdev(found) == pytest.approx(mean**0.5, rel=0.06)
    assert min(found) >= 0


def test_true_comes_as_often_as_its_probability_says() -> None:
    found = values(BernoulliColumn(name="n", probability=0.2))

    assert set(found) == {True, False}
    assert fmean(found) == pytest.approx(0.2, abs=0.02)
    assert set(values(BernoulliColumn(name="n", probability=1), 50)) == {True}


@pytest.mark.parametrize(
    ("start", "end", "unit", "expected"),
    [
        ("2026-02-27", "2026-03-01", "days", {"2026-02-27", "2026-02-28", "2026-03-01"}),
        ("2026-01-01T22:30", "2026-01-02T00:00", "hours", {"2026-01-01T22:30:00", "2026-01-01T23:30:00"}),
        ("2026-01-01T00:00+02:00", "2025-12-31T22:01Z", "minutes", {"2025-12-31T22:00:00", "2025-12-31T22:01:00"}),
    ],
)
def test_moments_lie_in_their_range(start: str, end: str, unit: str, expected: set[str]) -> None:
    column = DatetimeColumn.model_validate({"name": "d", "start": start, "end": end, "unit": unit})

    assert set(values(column, 200)) == expected


@pytest.mark.parametrize(("unit", "form"), [("days", "%Y-%m-%d"), ("hours", "%Y-%m-%dT%H:%M:%S")])
def test_a_later_moment_comes_after_the_other_one(unit: str, form: str) -> None:
    column = TimedeltaColumn.model_validate({"name": "t", "after": "ordered", "least": 2, "most": 4, "unit": unit})
    rows = rows_of(sampler(200, datetimes=EVERY_KIND["datetimes"], timedeltas=[column]))

    later = {datetime.strptime(row["t"], form) - datetime.fromisoformat(row["ordered"]) for row in rows}
    assert {each.total_seconds() / (86400 if unit == "days" else 3600) for each in later} == {2, 3, 4}


def test_a_text_is_made_of_the_other_columns() -> None:
    again = TemplateColumn(name="again", template="({{ instruction }})")
    rows = rows_of(sampler(**{**EVERY_KIND, "templates": [again, *EVERY_KIND["templates"]]}))

    assert all(row["instruction"] == f"{row['topic']} for {row['customer']['occupation']}" for row in rows)
    assert all(row["again"] == f"({row['instruction']})" for row in rows)


def test_identifiers_are_uuids_and_no_two_are_the_same() -> None:
    found = values(UuidColumn(name="id", prefix="order-"), 500)

    assert len(set(found)) == 500
    assert all(uuid.UUID(each.removeprefix("order-")).version == 4 for each in found)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"categories": [{"name": "c", "values": ["a", "b"], "weights": [1]}]}, "2 values need as many weights"),
    "negative weight": (
        {"categories": [{"name": "c", "values": ["a", "b"], "weights": [1, -1]}]},
        "weights can't be negative",
    ),
    "no values": ({"categories": [{"name": "c", "values": []}]}, "categories.0.values: .*at least 1 item"),
    "no group": (
        {"categories": [FIELD], "subcategories": [{"name": "t", "category": "field", "groups": {"sport": ["a"]}}]},
        r"column 't' has no group for \['music'\] of 'field'",
    ),
    "two groups": (
        {
            "subcategories": [
                {
                    "name": "t",
                    "category": "f",
                    "groups": [{"value": "a", "choices": ["x"]}, {"value": "a", "choices": ["y"]}],
                }
            ]
        },
        r"\['a'\] have more than one group",
    ),
    "unknown column": (
        {"templates": [{"name": "t", "template": "{{ topc }}"}], "uuids": [{"name": "id"}]},
        "column 't' reads 'topc', which isn't among the columns: id, t",
    ),
    "circle": (
        {"templates": [{"name": "a", "template": "{{ b }}"}, {"name": "b", "template": "{{ a }}"}]},
        "columns read one another in a circle: a, b",
    ),
    "one name": ({"uuids": [{"name": "id"}, {"name": "id"}]}, "two columns are called 'id'"),
    "no number": ({"uniforms": [{"name": "n", "low": 1.2, "high": 1.8}]}, "no number with 0 decimals lies between"),
    "order": ({"uniforms": [{"name": "n", "low": 2, "high": 1}]}, "lies between low=2 and high=1"),
    "far bounds": (
        {"gaussians": [{"name": "n", "mean": 0, "deviation": 1, "low": 50}]},
        "next to nothing of mean=0, deviation=1 lies",
    ),
    "dates": (
        {"datetimes": [{"name": "d", "start": "2026-02-01", "end": "2026-01-01"}]},
        "start=2026-02-01T00:00:00.00:00 is after end=",
    ),
    "no moment": (
        {"uuids": [{"name": "id"}], "timedeltas": [{"name": "t", "after": "id"}]},
        "column 't' needs a moment; 'id' is a UuidColumn",
    ),
    "delays": ({"timedeltas": [{"name": "t", "after": "d", "least": 3, "most": 1}]}, "least=3 is above most=1"),
    "template": ({"templates": [{"name": "t", "template": "{{ oops"}]}, "not a Jinja2 template"),
    "ages": ({"persons": [{"name": "p", "youngest": 50, "oldest": 40}]}, "youngest=50 is above oldest=40"),
    "misspelt": ({"uuids": [{"name": "id", "prefx": "a"}]}, "Did you mean 'prefix'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cant_be_made_is_refused_when_it_is_ordered(case: str) -> None:
    options, said = WRONG[case]

    with pytest.raises(ParameterError, match=said):
        SampleColumns().merged(options)
    with pytest.raises(ValidationError):
        SampleColumns(**options)


def test_what_can_be_seen_in_a_row_alone_is_told_with_its_place() -> None:
    beyond = {"datetimes": [DatetimeColumn(name="d", start="9999-12-30", end="9999-12-31")]}
    step = SampleColumns(**beyond, timedeltas=[TimedeltaColumn(name="t", after="d", least=5, most=9)])
    fails = SampleColumns(
        uuids=[UuidColumn(name="id")], templates=[TemplateColumn(name="x", template="{{ id.nope.x }}")]
    )

    with pytest.raises(SourceError, match="column 't' of 'sample_columns', row 0: date value out of range"):
        rows_of(step)
    with pytest.raises(SourceError, match="column 'x' of 'sample_columns', row 0: .*can't be filled in"):
        rows_of(fails)


def test_a_sampler_without_columns_says_so() -> None:
    with pytest.raises(SourceError, match="'sample_columns' has no columns; give it some, such as categories"):
        rows_of(SampleColumns())


def test_columns_stand_after_those_that_they_read() -> None:
    columns = [
        TemplateColumn(name="a", template="{{ b }}"),
        TemplateColumn(name="b", template="{{ c }}"),
        UuidColumn(name="c"),
    ]

    assert [column.name for column in in_order(columns)] == ["c", "b", "a"]


# Persons


def test_a_persona_is_a_sentence_of_all_of_its_parts() -> None:
    for row in rows_of(SamplePersonas(num_rows=200)):
        assert list(row) == ["persona", *PERSON_COLUMNS]
        parts = [
            row["occupation"],
            row["region"],
            row["trait"],
            *row["interests"],
            row["goal"],
            f" {row['age']}-year-old ",
        ]
        assert all(part in row["persona"] for part in parts), row


def test_persons_have_ages_that_fit_their_occupations() -> None:
    ages = {each.name: range(each.youngest, each.oldest + 1) for each in our_lists().occupations}
    rows = rows_of(SamplePersonas(num_rows=500, youngest=18, oldest=100))

    assert all(row["age"] in ages[row["occupation"]] for row in rows)
    assert {row["age"] for row in rows_of(SamplePersonas(num_rows=200, youngest=30, oldest=32))} == {30, 31, 32}


def test_lists_of_ones_own_take_the_place_of_ours() -> None:
    own = {
        "occupations": ["diver"],
        "regions": ["the coast"],
        "traits": ["calm"],
        "goals": ["rest"],
        "interests": ["chess"],
    }

    (row,) = rows_of(SamplePersonas(num_rows=1, youngest=18, oldest=18, **own))

    assert row["persona"] == "An 18-year-old diver from the coast, calm and keen on chess, who wants to rest."


def test_hardly_two_of_many_personas_are_the_same() -> None:
    rows = rows_of(SamplePersonas(num_rows=2000))

    assert len({row["persona"] for row in rows}) == 2000
    assert len({row["occupation"] for row in rows}) > 200


def test_our_lists_are_long_name_nothing_twice_and_have_an_occupation_for_every_age() -> None:
    lists = our_lists()

    assert all(len(each) >= 60 and len(set(each)) == len(each) for each in lists)
    assert all(text == text.strip() and text for each in lists[1:] for text in each)
    for age in range(YOUNGEST, OLDEST + 1):
        assert any(each.youngest <= age <= each.oldest for each in lists.occupations), age


@pytest.mark.parametrize(
    ("number", "said"), [(8, "An"), (11, "An"), (18, "An"), (80, "An"), (89, "An"), (19, "A"), (100, "A")]
)
def test_the_article_is_the_spoken_one(number: int, said: str) -> None:
    assert article(number) == said


# Data


def test_a_list_holds_whole_rows_and_none_twice() -> None:
    rows = rows_of(DataSampler(data=DATA, size=3, samples=50))

    for row in rows:
        drawn = list(zip(row["word"], row["length"], strict=True))
        assert len(set(drawn)) == 3
        assert all(length == len(word) for word, length in drawn)
    assert len({tuple(row["word"]) for row in rows}) > 20


def test_a_column_that_a_row_lacks_is_none_there() -> None:
    (row,) = rows_of(DataSampler(data=[{"a": 1}, {"b": 2}], size=2, samples=1))

    assert sorted(zip(row["a"], row["b"], strict=True), key=str) == [(1, None), (None, 2)]


def test_more_than_there_is_cant_be_drawn() -> None:
    with pytest.raises(SourceError, match="size=6 of 'data_sampler': `data` has 5 rows; draw no more"):
        rows_of(DataSampler(data=DATA, size=6))
    with pytest.raises(SourceError, match="`data` has 0 rows"):
        rows_of(DataSampler())
    with pytest.raises(ValidationError, match="row 0 is no dict, got 3"):
        DataSampler(data=[3])


# In flows


def test_a_sample_that_grew_is_paid_only_for_what_is_new(provider: LocalProvider, storage: Path) -> None:
    def run(num_rows: int) -> Any:
        source = load(sampler(num_rows), shard_rows=4)
        return collect(TextGeneration(llm=OpenAILLM(model="m")).map(source))

    run(6)
    provider.clear()
    dataset = run(9)

    assert len(dataset) == 9
    assert len(provider.requests) == 3
    assert dataset[0]["customer"]["age"] in range(30, 41)


@flow
async def sampled(source: Source = SampleColumns(num_rows=2, **EVERY_KIND)) -> Any:
    """Random rows.

    Args:
        source: Where they come from.
    """
    return await collect(load(source))


def test_a_form_shows_columns_as_lists_of_typed_parts_that_are_accepted_as_they_are() -> None:
    schema = sampled.parameters.model_dump()
    section = schema["definitions"]["SampleColumns_source"]["properties"]

    for name in EVERY_KIND:
        # A list of a union would be shown as raw JSON.
        assert set(section[name]["items"]) == {"$ref"}, name
        definition = schema["definitions"][section[name]["items"]["$ref"].rpartition("/")[2]]["properties"]
        assert definition["name"]["position"] == 0
        assert all(each.get("title") for each in definition.values())
    assert [name for name in section if section[name]["position"] < 2] == ["seed", "num_rows"]
    assert validate({"source": schema["properties"]["source"]["default"]}, schema, ignore_required=True) == []
    filled = {name: section[name]["default"] for name in EVERY_KIND}
    assert validate({"source": filled}, schema, ignore_required=True) == []


def test_samplers_are_sources_by_their_kind() -> None:
    personas = checked(sampled, {"source": {"kind": "personas", "num_rows": "3", "regions": ["Fiji"]}})["source"]
    part = checked(sampled, {"source": {"num_rows": 3, "uuids": [{"name": "key"}]}})["source"]

    assert isinstance(personas, SamplePersonas)
    assert (personas.num_rows, personas.regions) == (3, ["Fiji"])
    assert isinstance(part, SampleColumns)
    assert (part.num_rows, part.uuids, part.categories) == (3, [UuidColumn(name="key")], [FIELD])
