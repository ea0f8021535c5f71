"""Types before money: whatever values rows have, they reach Tasks as they were given, and a run ends with a dataset."""

from __future__ import annotations

import base64
import datetime
import json
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import (
    Array2D,
    Audio,
    ClassLabel,
    Dataset,
    Features,
    Image,
    Json,
    List,
    Translation,
    Value,
    concatenate_datasets,
)
from pydantic import PrivateAttr

from flows.authoring.parameters import flow
from flows.authoring.preview import preview
from flows.authoring.saving import collect, save
from flows.engine.datasets import ROWS_PER_FILE, _same_numbers  # pyright: ignore[reportPrivateUsage]
from flows.engine.graph import load
from llms import AsyncLLM, ChatType, GenerateOutput, LLMError
from tasks import (
    GroupColumns,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    SaveToDisk,
    SourceError,
    Step,
    StepInput,
    StepOutput,
    Task,
    TextGeneration,
    UnreadableAnswerError,
)
from tasks.steps import METADATA
from tasks.typing import FormattedInput, Row


class Echo(AsyncLLM):
    """Answers with the last message, and notes what it was asked. It refuses what has "refuse" in it."""

    _asked: list[Any] = PrivateAttr(default_factory=list[Any])

    @property
    def model_name(self) -> str:
        return "echo"

    @property
    def asked(self) -> list[Any]:
        return self._asked

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        content = input[-1]["content"]
        self._asked.append(content)
        if "refuse" in content:
            raise LLMError("no answer today")
        text = content if isinstance(content, str) else json.dumps(content)
        return {
            "generations": [text] * num_generations,
            "statistics": {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations},
        }


class Show(Task):
    """Asks for a column as JSON, and reads JSON from the answer."""

    column: str = "value"

    @property
    def inputs(self) -> list[str]:
        return [self.column]

    @property
    def outputs(self) -> list[str]:
        return ["read", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        return [{"role": "user", "content": json.dumps(input[self.column])}]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"read": json.loads(output or "")}


class Look(Task):
    """Shows the model an image where the row has one."""

    @property
    def inputs(self) -> dict[str, bool]:
        return {"text": True, "image": False}

    @property
    def outputs(self) -> list[str]:
        return ["seen", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        if not input["image"]:
            return [{"role": "user", "content": input["text"]}]
        parts = [{"type": "text", "text": input["text"]}, {"type": "image_url", "image_url": {"url": input["image"]}}]
        return [{"role": "user", "content": parts}]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"seen": output}


DICTS: list[Any] = [{"a": 1}, {"b": [1, "x"]}, {}, [{"a": None}]]
MIXED: list[Any] = [1, 2.5, "1", True, None, *DICTS, [], [1, "x"], 2**70, math.inf]


@pytest.mark.parametrize("shard_rows", [1, 500])
def test_a_value_reaches_a_task_as_it_was_given_whatever_the_rows_beside_it_have(
    storage: Path, shard_rows: int
) -> None:
    llm = Echo()

    made = collect(load([{"value": value} for value in MIXED], shard_rows=shard_rows).map(Show(llm=llm)))

    assert sorted(llm.asked) == sorted(map(json.dumps, MIXED))
    # A number of more than 64 bits is text in a dataset: readers of JSON take it for another one.
    assert made["value"][:] == made["read"][:] == [str(each) if each == 2**70 else each for each in MIXED]
    assert made.features["value"] == Json()


def test_a_column_that_turns_to_text_after_a_hundred_rows_is_json_in_the_dataset(storage: Path) -> None:
    rows = [{"instruction": f"q{number}", "id": number if number < 100 else f"{number}a"} for number in range(105)]

    made = collect(load(rows).map(TextGeneration(llm=Echo())))

    assert made["id"][:] == [row["id"] for row in rows]


def test_numbers_of_several_types_are_numbers_unless_they_are_too_long_for_that(storage: Path) -> None:
    made = collect(load([{"a": 1, "b": 1}, {"a": 2.5, "b": 2**53 + 1}, {"a": None, "b": 0.5}], shard_rows=1))

    assert (made.features["a"], made["a"][:]) == (Value("float64"), [1.0, 2.5, None])
    assert (made.features["b"], made["b"][:]) == (Json(), [1, 2**53 + 1, 0.5])


def test_hashes_of_64_bits_are_numbers_also_beside_a_shard_with_negative_ones(storage: Path) -> None:
    made = collect(load([{"a": 2**64 - 1, "b": 2**64 - 1}, {"a": 1, "b": -1}], shard_rows=1))

    assert (made.features["a"], made["a"][:]) == (Value("uint64"), [2**64 - 1, 1])
    assert (made.features["b"], made["b"][:]) == (Json(), [2**64 - 1, -1])


def test_dicts_are_structs_where_all_have_the_same_keys_and_json_at_the_place_where_they_dont(storage: Path) -> None:
    tools = [
        {"name": "f", "parameters": {"x": {"type": "integer"}}, "tags": [{"a": 1}]},
        {"name": "g", "parameters": {"y": {"type": "string", "enum": ["p"]}}, "tags": [{"b": 1}, {}]},
        {"name": "h", "parameters": {}, "tags": []},
    ]

    made = collect(load([{"tool": tool} for tool in tools]))

    assert made["tool"][:] == tools
    assert made.features["tool"] == {"name": Value("string"), "parameters": Json(), "tags": List(Json())}


def test_an_answer_of_another_type_than_those_before_it_costs_no_dataset(storage: Path) -> None:
    rows = [{"value": number} for number in range(99)] + [{"value": "N/A"}, {"value": [1]}]

    made = collect(load(rows, shard_rows=10).map(Show(llm=Echo())))

    assert made["read"][:] == [row["value"] for row in rows]


def metadata_of(rows: list[Row], task: Task) -> Dataset:
    return collect(load(rows).map(task), max_failed_rows=2 * len(rows)).select_columns([METADATA])


@pytest.mark.parametrize("grouped", [False, True])
def test_the_metadata_of_a_step_has_one_type_whatever_the_rows_are(storage: Path, grouped: bool) -> None:
    image = "https://example.org/y.png"
    sources: list[list[Row]] = [
        [{"text": "x", "image": None}],
        [{"text": "x", "image": image}],
        [{"text": "x", "image": None}, {"text": "y", "image": image}],
        [{"text": "refuse", "image": None}],
        [{"text": "x", "image": None}, {"text": "refuse", "image": None}],
    ]
    look = Look(llm=Echo(), num_generations=2, group_generations=grouped)

    made = [metadata_of(rows, look) for rows in sources]

    assert all(each.features == made[0].features for each in made)
    whole = concatenate_datasets(made)
    assert whole[0][METADATA]["raw_input_look"] == [{"role": "user", "content": "x"}]
    parts = whole[1 if grouped else 2][METADATA]["raw_input_look"][0]["content"]
    assert parts[1] == {"type": "image_url", "image_url": {"url": image}}
    assert whole[-1][METADATA]["error_look"] == {"type": "LLMError", "message": "no answer today", "retryable": False}


def test_json_of_a_dataset_comes_through(storage: Path) -> None:
    rows = [{"instruction": "a", "default": {"v": 5}}, {"instruction": "b", "default": {"v": "x"}}]
    given = Dataset.from_list(rows, features=Features(instruction=Value("string"), default=Json()))

    made = collect(load(given).map(TextGeneration(llm=Echo())))

    assert made["default"][:] == [{"v": 5}, {"v": "x"}]


class Odd(Step):
    """Gives what can't be kept where a row asks for it."""

    @property
    def outputs(self) -> list[str]:
        return ["odd"]

    def process(self, *inputs: StepInput) -> StepOutput:
        odd = {"object": object(), "half": "\ud83d", "fine": "fine"}
        yield [{**row, "odd": odd[row["ask"]]} for row in inputs[0]]


def test_what_a_step_gives_that_cant_be_kept_fails_its_row_and_no_other(storage: Path) -> None:
    llm = Echo()
    rows = [{"ask": "fine"}, {"ask": "object"}, {"ask": "half"}]

    made = collect(load(rows).map(Odd()).map(Show(llm=llm, column="ask")), max_failed_rows=2)

    assert llm.asked == ['"fine"']
    assert made["odd"][:] == ["fine", None, None]
    errors = [row[METADATA]["error_odd"] for row in made]
    assert errors[0] is None
    assert errors[1]["message"].startswith("odd: a value of type object can't be kept in a row: <object object")
    assert "odd: expected whole characters, got half of one" in errors[2]["message"]


class HalfSaid(Echo):
    """Refuses a row in half a character, by an error of the kind that it has."""

    _error: type[Exception] = PrivateAttr(default=LLMError)

    def __init__(self, error: type[Exception], **fields: Any) -> None:
        super().__init__(**fields)
        self._error = error

    async def agenerate(self, input: Any, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        if input[-1]["content"] == "half":
            raise self._error("no answer to half \ud83d")
        return await super().agenerate(input, num_generations)


class HalfRead(TextGeneration):
    """Says in half a character what it can't read."""

    def format_output(self, output: str | None, input: Row) -> Row:
        if output == "half":
            raise UnreadableAnswerError(f"no answer to {output} \ud83d")
        return super().format_output(output, input)


@pytest.mark.parametrize(
    "task",
    [
        TextGeneration(name="ask", llm=HalfSaid(LLMError)),
        TextGeneration(name="ask", llm=HalfSaid(ValueError)),
        HalfRead(name="ask", llm=Echo()),
    ],
    ids=["the model's error", "another error", "the parser's error"],
)
def test_half_a_character_in_an_error_fails_its_row_and_no_other(storage: Path, task: TextGeneration) -> None:
    rows = [{"instruction": text} for text in ("a", "half", "b")]

    made = collect(load(rows).map(task), max_failed_rows=1)

    assert made["generation"][:] == ["a", None, "b"]
    assert made[1][METADATA]["error_ask"]["message"].startswith("no answer to half \N{REPLACEMENT CHARACTER}")


# What the source says of its columns


def typed() -> Dataset:
    """Rows of every type that a source may have, beside a prompt."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
    features = Features(
        instruction=Value("string"),
        label=ClassLabel(names=["bad", "good"]),
        labels=List(ClassLabel(names=["a", "b"])),
        image=Image(),
        audio={"bytes": Value("binary"), "path": Value("string")},
        json=Json(),
        jsons=List(Json()),
        half=Value("float16"),
        single=Value("float32"),
        singles=List(Value("float32")),
        vector=List(Value("float32"), length=3),
        matrix=Array2D((2, 2), "float32"),
        tiny=Value("int8"),
        hash=Value("uint64"),
        large=Value("large_string"),
        binary=Value("binary"),
        day=Value("date32"),
        at=Value("timestamp[ms, tz=Europe/Berlin]"),
        time=Value("time64[us]"),
        span=Value("duration[s]"),
        price=Value("decimal128(10, 2)"),
        nested={"ids": List(Value("int32")), "ratio": Value("float32")},
        nothing=Value("null"),
    )
    row: Row = {
        "instruction": "x",
        "label": 1,
        "labels": [0, 1],
        "image": {"bytes": PNG, "path": "a.png"},
        "audio": {"bytes": b"RIFF", "path": "a.wav"},
        "json": {"v": 5},
        "jsons": [{"a": 1}, "x"],
        "half": 0.5,
        "single": 0.1,
        "singles": [0.1, None, math.nan],
        "vector": [0.1, 0.2, 0.3],
        "matrix": [[0.1, 0.2], [0.3, 0.4]],
        "tiny": -1,
        "hash": 1,
        "large": "long",
        "binary": b"\x00\xff",
        "day": datetime.date(2026, 1, 2),
        "at": moment.replace(microsecond=0, tzinfo=datetime.UTC),
        "time": datetime.time(1, 2, 3, 4),
        "span": datetime.timedelta(days=1),
        "price": Decimal("1.50"),
        "nested": {"ids": [1, 2], "ratio": 0.1},
        "nothing": None,
    }
    empty: Row = {**dict.fromkeys(row), "instruction": "y"}
    json_rows = [{**row, "json": {"v": 5}}, empty, {**row, "json": "text"}]
    # To make sounds, datasets would need a library that isn't needed to pass them on.
    made = Dataset.from_list(json_rows, features=features).cast_column("audio", Audio())
    # It makes no numbers of this size of Python's either.
    table, place = made.data.table, made.column_names.index("hash")
    return Dataset(table.set_column(place, table.field(place), [pa.array([2**64 - 1, None, 2**63], pa.uint64())]))


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize("kind", ["dataset", "disk", "parquet"])
def test_columns_that_pass_through_have_the_types_of_the_source_and_its_values(
    storage: Path, tmp_path: Path, kind: str
) -> None:
    given = typed()
    if kind == "disk":
        given.save_to_disk(tmp_path / "given")
    elif kind == "parquet":
        given.to_parquet(tmp_path / "given.parquet")
    sources: dict[str, Any] = {
        "dataset": given,
        "disk": LoadDataFromDisk(dataset_path=str(tmp_path / "given")),
        "parquet": LoadDataFromFileSystem(data_files=str(tmp_path / "given.parquet")),
    }
    target = SaveToDisk(path=str(tmp_path / "made"))

    save(load(sources[kind]).map(TextGeneration(llm=Echo())), target)

    made = Dataset.load_from_disk(target.path)
    assert {name: made.features[name] for name in given.features} == dict(given.features)
    through = made.select_columns(given.column_names).data.table
    assert through.to_pylist() == given.data.table.to_pylist() or repr(through.to_pylist()) == repr(
        given.data.table.to_pylist()
    )


def test_a_translation_comes_through_as_one(storage: Path) -> None:
    features = Features(translation=Translation(languages=["de", "en"]))
    given = Dataset.from_list([{"translation": {"de": "Hallo", "en": "Hello"}}], features=features)

    assert collect(load(given)).features == features


def test_types_that_datasets_lacks_come_through_as_the_nearest_that_it_has(storage: Path, tmp_path: Path) -> None:
    tags = pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64()))
    kinds = pa.array(["a", "b", "a"]).dictionary_encode()
    columns = {"instruction": ["x", "y", "z"], "tags": tags, "kind": kinds}
    pq.write_table(pa.table(columns), tmp_path / "given.parquet")

    made = collect(load(LoadDataFromFileSystem(data_files=f"{tmp_path}/given.parquet")).map(TextGeneration(llm=Echo())))

    assert made["tags"][:] == [{"k": 1}, {}, None]
    assert (made.features["tags"], made.features["kind"]) == (Json(), Value("string"))


MAP = pa.map_(pa.string(), pa.int64())


@pytest.mark.parametrize(
    "kind", [pa.list_(MAP), pa.large_list(MAP), pa.list_(MAP, 1), pa.list_(pa.struct([("m", MAP)]), 1)], ids=str
)
def test_maps_in_lists_of_any_kind_come_through_as_json(storage: Path, tmp_path: Path, kind: pa.DataType) -> None:
    inner: Any = {"m": [("k", 1)]} if pa.types.is_struct(kind.value_type) else [("k", 1)]
    tags = pa.array([[inner], None], kind)
    pq.write_table(pa.table({"instruction": ["x", "y"], "tags": tags}), tmp_path / "given.parquet")

    made = collect(load(LoadDataFromFileSystem(data_files=f"{tmp_path}/given.parquet")).map(TextGeneration(llm=Echo())))

    assert made["tags"][:] == [[{"m": {"k": 1}} if isinstance(inner, dict) else {"k": 1}], None]
    there: Any = made.features["tags"]
    assert there.feature == ({"m": Json()} if isinstance(inner, dict) else Json())
    assert getattr(there, "length", -1) == getattr(kind, "list_size", -1)


def test_a_cast_to_another_structure_is_told_apart_and_fails_nothing() -> None:
    struct, text = pa.array([{"a": 1.5}]), pa.array(["x"])

    assert not _same_numbers(struct, text)
    assert not _same_numbers(pa.array([[1.5]], pa.large_list(pa.float64())), text)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_deep_dicts_make_a_dataset_of_several_files_at_once_still_on_disk(storage: Path) -> None:
    given = Dataset.from_list([{"deep": None}, {"deep": nested(40)}])
    rows = 2 * ROWS_PER_FILE

    made = collect(load(given.select([0] * (rows - 1) + [1])))

    assert len(made) == rows
    assert len(made.cache_files) > 1
    assert made.features == given.features
    assert made[rows - 1] == {"deep": nested(40)}
    assert len(pickle.dumps(made)) < rows


KINDS_OF_TIME: dict[str, tuple[Callable[[str], pa.DataType], Callable[[int], Any]]] = {
    "timestamp": (lambda unit: pa.timestamp(unit, "Europe/Berlin"), lambda value: value),
    "duration": (pa.duration, lambda value: value),
    "time": (pa.time64, lambda value: value),
    "struct": (lambda unit: pa.struct([("t", pa.timestamp(unit))]), lambda value: {"t": value}),
    "list": (lambda unit: pa.list_(pa.time64(unit)), lambda value: [value, None]),
    "large list": (lambda unit: pa.large_list(pa.duration(unit)), lambda value: [value]),
    "fixed list": (lambda unit: pa.list_(pa.duration(unit), 1), lambda value: [value]),
}


def parquet_of(table: pa.Table, folder: Path) -> Any:
    pq.write_table(table, folder / "given.parquet")
    return LoadDataFromFileSystem(data_files=f"{folder}/given.parquet")


def disk_of(table: pa.Table, folder: Path) -> Any:
    Dataset(table).save_to_disk(folder / "given")
    return LoadDataFromDisk(dataset_path=f"{folder}/given")


SOURCES_OF_TABLES: dict[str, Callable[[pa.Table, Path], Any]] = {
    "parquet": parquet_of,
    "disk": disk_of,
    "dataset": lambda table, _: Dataset(table),
}


@pytest.mark.parametrize("source", SOURCES_OF_TABLES)
@pytest.mark.parametrize("kind", KINDS_OF_TIME)
def test_times_of_whole_microseconds_come_through_as_such_and_others_are_refused_before_anything_is_asked(
    storage: Path, tmp_path: Path, kind: str, source: str
) -> None:
    type_of, value_of = KINDS_OF_TIME[kind]
    questions = [f"q{place}" for place in range(201)]
    llm = Echo()

    def made_of(last: int) -> Dataset:
        at = pa.array([value_of(each) for each in [None, *[5_000] * 199, last]], type_of("ns"))
        table = pa.table({"instruction": questions, "at": at})
        return collect(load(SOURCES_OF_TABLES[source](table, tmp_path)).map(TextGeneration(llm=llm)))

    with pytest.raises(SourceError, match=r", column 'at': times end at microseconds here.* 5001\)\. Round them"):
        made_of(5_001)
    assert llm.asked == []

    made = made_of(7_000)
    expected = pa.array([value_of(each) for each in [None, *[5] * 199, 7]], type_of("us"))
    assert made.data["at"].type == expected.type
    assert made.data["at"].to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "object"])
def test_a_frames_time_with_nanoseconds_is_refused_and_one_without_comes_through(storage: Path, dtype: str) -> None:
    llm = Echo()

    def made_of(moment: str) -> Dataset:
        frame = pd.DataFrame({"instruction": ["q"], "at": pd.Series([pd.Timestamp(moment)], dtype=dtype)})
        return collect(load(frame).map(TextGeneration(llm=llm)))

    with pytest.raises(SourceError, match=r"column 'at'.* microseconds.* [Rr]ound"):
        made_of("2026-01-02 03:04:05.123456789")
    assert llm.asked == []
    made = made_of("2026-01-02 03:04:05.123456000")
    assert made.features["at"] == Value("timestamp[us]")
    assert made["at"][0] == datetime.datetime(2026, 1, 2, 3, 4, 5, 123456)


@pytest.mark.parametrize("value", [pd.Timestamp("2026-01-02 03:04:05.123456789"), {"n": [pd.Timedelta(1500)]}], ids=str)
def test_nanoseconds_of_rows_given_in_python_are_refused(storage: Path, value: Any) -> None:
    with pytest.raises(SourceError, match=r"row 0 .*, column 'at': expected a time that ends at microseconds"):
        collect(load([{"instruction": "q", "at": value}]).map(TextGeneration(llm=Echo())))


@pytest.mark.parametrize("source", SOURCES_OF_TABLES)
def test_a_preview_looks_at_the_times_of_its_rows_alone(storage: Path, tmp_path: Path, source: str) -> None:
    at = pa.array([5_000] * 10 + [5_001], pa.duration("ns"))
    table = pa.table({"instruction": [f"q{place}" for place in range(11)], "at": at})
    given = SOURCES_OF_TABLES[source](table, tmp_path)

    assert load(given).node.step.read_types(10) is not None
    with pytest.raises(SourceError, match="column 'at'"):
        load(given).node.step.read_types(11)


class Relabel(Step):
    """Writes over columns of the source what they can't hold."""

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{**row, "label": 7, "single": 0.1, "tiny": 1000, "text": 5} for row in inputs[0]]


def test_a_column_that_a_step_wrote_over_has_the_type_of_what_it_wrote(storage: Path) -> None:
    features = Features(
        label=ClassLabel(names=["bad", "good"]), single=Value("float32"), tiny=Value("int8"), text=Value("string")
    )
    given = Dataset.from_list([{"label": 1, "single": 0.5, "tiny": 1, "text": "x"}], features=features)

    made = collect(load(given).map(Relabel()))

    assert made.to_list() == [{"label": 7, "single": 0.1, "tiny": 1000, "text": 5}]
    assert made.features == Features(
        label=Value("int64"), single=Value("float64"), tiny=Value("int64"), text=Value("int64")
    )


# Sources that are read through


def test_a_bad_row_at_the_end_of_a_file_is_found_before_anything_is_asked(storage: Path, tmp_path: Path) -> None:
    bad = ['{"instruction": "half \\ud83d"}', '{"instruction": "a", "instruction": "b"}', '{"a": 1e999}', "{"]
    for number, line in enumerate(bad):
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(f'{{"instruction": "q{row}"}}\n' for row in range(300)) + line + "\n")
        llm = Echo()

        with pytest.raises(SourceError, match=rf"{number}\.jsonl', line 301: "):
            collect(load(LoadDataFromFileSystem(data_files=str(file))).map(TextGeneration(llm=llm)))

        assert llm.asked == []


def test_a_bad_row_of_one_source_keeps_the_steps_after_another_one_back(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a"}\n' * 5000 + "{\n")
    llm = Echo()
    bad = load(LoadDataFromFileSystem(data_files=f"{tmp_path}/bad.jsonl"))
    good = load([{"instruction": "q"}]).map(TextGeneration(llm=llm))

    with pytest.raises(SourceError, match="line 5001"):
        collect(GroupColumns(columns=["instruction"]).map(bad, good))

    assert llm.asked == []


def test_a_row_given_in_python_that_cant_be_kept_is_found_before_anything_is_asked(storage: Path) -> None:
    llm = Echo()
    rows: list[Row] = [*({"instruction": f"q{number}"} for number in range(300)), {"instruction": "a", "x": [object()]}]

    with pytest.raises(SourceError, match="row 300 of .*, column 'x': a value of type object can't be kept in a row"):
        collect(load(rows).map(TextGeneration(llm=llm)))

    assert llm.asked == []


def test_a_preview_reads_no_more_of_a_file_than_it_shows(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "a"}\n' * 2000 + "{\n")
    source = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl")

    @flow
    def shown() -> Any:
        return collect(load(source).map(TextGeneration(llm=Echo())))

    assert len(preview(shown, rows=2)["text_generation"]) == 2


def test_columns_of_several_types_are_told_of_once_and_before_anything_is_asked(
    storage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    rows = [(f"q{number}", number if number < 3000 else f"{number}a") for number in range(3001)]
    lines = "".join(json.dumps({"instruction": text, "id": name}) + "\n" for text, name in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.csv").write_text("instruction,id\n" + "".join(f"{text},{name}\n" for text, name in rows))

    for name, said in (("a.jsonl", "it's JSON in the dataset"), ("b.csv", "all of it is text")):
        caplog.clear()
        collect(load(LoadDataFromFileSystem(data_files=str(tmp_path / name))))

        told = [record.getMessage() for record in caplog.records if "column 'id' holds" in record.getMessage()]
        assert len(told) == 1
        assert said in told[0]


def test_a_row_has_all_columns_of_its_file_wherever_they_begin(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"value": 1}\n' * 1200 + '{"value": 1, "late": "x"}\n')
    llm = Echo()
    source = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl")

    made = collect(load(source).map(Show(llm=llm, column="late")))

    assert sorted(llm.asked) == ['"x"', *["null"] * 1200]
    assert made["late"][:] == [*[None] * 1200, "x"]
