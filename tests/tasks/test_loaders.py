"""Loaders, on real files, and on a Hub on loopback that knows no dataset."""

from __future__ import annotations

import csv
import gc
import gzip
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Json, List, Value
from pydantic import TypeAdapter, ValidationError

from tasks.registry import Source
from tasks.sources.errors import SourceError
from tasks.sources.loaders import (
    LoadDataFromDicts,
    LoadDataFromDisk,
    LoadDataFromFileSystem,
    LoadDataFromHub,
    make_generator_step,
)
from tasks.steps import GeneratorStep
from tasks.typing import Row
from tests.conftest import LONGEST

ROWS: list[Row] = [{"n": number, "text": f"row {number}"} for number in range(7)]


def rows_of(loader: GeneratorStep, offset: int = 0) -> list[Row]:
    return [row for rows, _ in loader.process(offset) for row in rows]


def error_of(loader: GeneratorStep) -> str:
    with pytest.raises(SourceError) as raised:
        rows_of(loader)
    return str(raised.value)


def write(path: Path, rows: list[Row]) -> str:
    """`rows` as a file of the type that its name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=max(3, len(rows) // 10))
        return str(path)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w", newline="") as file:
        if name.endswith(".csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif name.endswith(".json"):
            json.dump(rows, file, indent=2)
        else:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


FILE_NAMES = ["a.parquet", "a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.csv.gz"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_file_type_gives_the_same_rows_in_batches_with_the_last_one_marked(tmp_path: Path, name: str) -> None:
    loader = LoadDataFromFileSystem(data_files=write(tmp_path / name, ROWS), batch_size=3)
    assert list(loader.process()) == [(ROWS[:3], False), (ROWS[3:6], False), (ROWS[6:], True)]
    assert loader.columns() == {"n", "text"}
    assert loader.outputs == ["n", "text"]


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("offset", [1, 3, 6, 8, 13])
def test_an_offset_leaves_out_as_many_rows_across_files(tmp_path: Path, name: str, offset: int) -> None:
    write(tmp_path / name, ROWS)
    write(tmp_path / f"b{name[1:]}", ROWS)
    loader = LoadDataFromFileSystem(data_files=str(tmp_path / f"*{name[1:]}"), batch_size=2)
    assert rows_of(loader, offset) == (ROWS + ROWS)[offset:]


def test_an_offset_at_the_end_gives_no_rows_and_no_error(tmp_path: Path) -> None:
    loader = LoadDataFromFileSystem(data_files=write(tmp_path / "a.jsonl", ROWS))
    assert list(loader.process(7)) == [([], True)]
    assert list(LoadDataFromDicts(data=ROWS).process(7)) == [([], True)]


@pytest.mark.parametrize(("offset", "left"), [(0, ROWS[:4]), (3, ROWS[3:4]), (4, [])])
def test_num_examples_counts_from_the_start_whatever_the_offset(tmp_path: Path, offset: int, left: list[Row]) -> None:
    loader = LoadDataFromFileSystem(data_files=write(tmp_path / "a.parquet", ROWS), num_examples=4, batch_size=2)
    assert rows_of(loader, offset) == left


def test_num_examples_reads_no_further_than_it_must(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"n": 1}\n{"n": 2}\nbroken\n')
    assert rows_of(LoadDataFromFileSystem(data_files=str(file), num_examples=2)) == [{"n": 1}, {"n": 2}]


def test_files_of_a_glob_are_read_by_name_and_those_of_a_list_as_given(tmp_path: Path) -> None:
    paths = {name: write(tmp_path / f"{name}.jsonl", [{"from": name}]) for name in "cab"}
    assert [row["from"] for row in rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/*.jsonl"))] == ["a", "b", "c"]
    given = LoadDataFromFileSystem(data_files=[paths["c"], Path(paths["a"])])  # pyright: ignore[reportArgumentType]
    assert [row["from"] for row in rows_of(given)] == ["c", "a"]


def test_a_folder_is_read_with_all_data_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-0.parquet", ROWS)
    (tmp_path / "README.md").write_text("# Not data")
    assert rows_of(LoadDataFromFileSystem(data_files=str(tmp_path))) == ROWS


def test_a_name_with_glob_signs_in_it_is_a_name_first(tmp_path: Path) -> None:
    assert rows_of(LoadDataFromFileSystem(data_files=write(tmp_path / "a[1].jsonl", ROWS))) == ROWS


def test_an_fsspec_address_is_read_like_a_path() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/loaders/a.jsonl", b'{"n": 1}\n')
    memory.pipe_file("/loaders/b.jsonl", b'{"n": 2}\n')
    assert rows_of(LoadDataFromFileSystem(data_files="memory://loaders/*.jsonl")) == [{"n": 1}, {"n": 2}]


def test_csv_cells_become_numbers_only_where_the_whole_column_is_of_them(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "id,code,score,yes,late,long,empty\n"
        "1,007,1.5,True,1,12345678901234567890,\n"
        ",7,2.0,False,2,1,\n" + "3,8,,True,x,2,\n"
    )
    assert rows_of(LoadDataFromFileSystem(data_files=str(file), batch_size=1)) == [
        {"id": 1, "code": "007", "score": 1.5, "yes": True, "late": "1", "long": "12345678901234567890", "empty": None},
        {"id": None, "code": "7", "score": 2.0, "yes": False, "late": "2", "long": "1", "empty": None},
        {"id": 3, "code": "8", "score": None, "yes": True, "late": "x", "long": "2", "empty": None},
    ]


def test_a_csv_column_has_one_type_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    (tmp_path / "b.csv").write_text("v\nx\n")
    assert rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/*.csv")) == [{"v": "1"}, {"v": "x"}]


def test_csv_keeps_line_breaks_long_cells_and_a_byte_order_mark(tmp_path: Path) -> None:
    long = "word " * 50_000
    (tmp_path / "a.csv").write_bytes(f'\ufefftext,more\n"one\ntwo, ""three""","{long}"\n'.encode())
    assert rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv")) == [
        {"text": 'one\ntwo, "three"', "more": long}
    ]


def test_json_lines_may_hold_blank_lines_nan_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"n": 1}\n\n{"n": NaN}\n'.encode())
    first, second = rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl"))
    assert (first["n"], str(second["n"])) == (1, "nan")


def test_a_json_file_may_hold_an_object_per_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"n": 1}\n{"n": 2}\n')
    assert rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.json"), 1) == [{"n": 2}]


def test_the_columns_of_json_lines_are_those_of_many_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert LoadDataFromFileSystem(data_files=f"{tmp_path}/a.jsonl").columns() == {"a", "b"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    rows = [{"n": number, "text": "x" * 200} for number in range(20_000)]
    loader = LoadDataFromFileSystem(data_files=write(tmp_path / name, rows))
    del rows
    rows_of(LoadDataFromFileSystem(data_files=str(tmp_path / name), num_examples=1))
    gc.collect()  # nothing of other tests is collected meanwhile
    tracemalloc.start()
    try:
        count = sum(len(some) for some, _ in loader.process())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000  # the rows are 7 MB


# Bad files


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"n": 1}\n{"n": \n', ["a.jsonl', line 2", "not jsonl", "got '{\"n\":'"]),
        ("a.jsonl", "[1, 2]\n", ["line 1", "expected an object, got [1, 2]"]),
        ("a.jsonl", '{"n": 1}\n{"n": "\udcff"}\n', ["a.jsonl', line 2"]),
        ("a.json", '[{"n": 1},\n {"n": }]', ["a.json', line 2", "not json"]),
        ("a.json", '[{"n": 1}, 5]', ["item 1 is no object, got 5"]),
        ("a.csv", "a,b\n1,2\n1,2,3\n", ["a.csv', line 3", "3 cells, the header has 2", "['1', '2', '3']"]),
        ("a.csv", 'a,b\n1,2\n1,"open\n', ["line 3", "unexpected end of data"]),
        ("a.csv", "a,a\n1,2\n", ["['a'] more than once"]),
        ("a.csv", 'a\n"b\nc"\nd \udcff\n', ["a.csv', line 4", "must be UTF-8"]),
        ("a.jsonl", '{"n": 1}\n{"n": "\\ud83d"}\n', ["a.jsonl', line 2: expected whole characters, got half of one"]),
        ("a.jsonl", '\n{"n": 1, "m": 2, "n": 3}\n', ["a.jsonl', line 2: an object has the key 'n' twice"]),
        ("a.jsonl", '{"n": [1e400]}\n', ["a.jsonl', line 1: the number 1e400 is larger than any"]),
        ("a.json", '[{"n": 1},\n {"n": 1, "n": 2}]', ["a.json', line 2: an object has the key 'n' twice"]),
        ("a.json", '[{"n": 1},\n {"n": "\\ud83d"}]', ["a.json', line 2: expected whole characters"]),
        ("a.parquet", "PAR1 no PAR1", ["a.parquet'", "not parquet"]),
        ("a.jsonl.gz", "no gzip", ["a.jsonl.gz' can't be read", "gzip"]),
        ("a.txt", "hi", ["ending '.txt'", "set `filetype`"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    message = error_of(LoadDataFromFileSystem(data_files=str(tmp_path / name)))
    assert [part for part in expected if part not in message] == [], message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 21896172073636085760001])
def test_whole_numbers_of_any_length_are_read_with_every_digit(tmp_path: Path, name: str, number: int) -> None:
    rows = [{"n": 1, "deep": [{"m": number}]}, {"n": number, "deep": None}]
    assert rows_of(LoadDataFromFileSystem(data_files=write(tmp_path / name, rows))) == rows


def test_cells_of_csv_that_no_number_holds_stay_text(tmp_path: Path) -> None:
    cells = ["1e999", "0.12345678901234567890", "1e-999", "123456789012345678"]
    for cell in cells:
        (tmp_path / "a.csv").write_text(f"v\n{cell}\n")
        (row,) = rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv"))
        assert str(row["v"]) == cell
    (tmp_path / "a.csv").write_text("v\n0.1234567890123456\n-2.5\n0.0\n-0.0\n")
    values = [row["v"] for row in rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv"))]
    assert values == [0.1234567890123456, -2.5, 0.0, 0.0]


COLUMNS = [["1", "2"], ["1.5", "1e-05"], ["1.50", "2.00"], ["True", "False"], ["true", "FALSE"], ["-0", "1.5e3"]]


@pytest.mark.parametrize("cells", COLUMNS)
@pytest.mark.parametrize("beside", ["", "2.5", "3", "1.10", "N/A", "True", "maybe", "007", "nan", "inf"])
def test_a_cell_of_csv_reads_the_same_in_a_prompt_whatever_cells_stand_beside_it(
    tmp_path: Path, cells: list[str], beside: str
) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["v,w", *(f"{cell},x" for cell in [*cells, beside])]) + "\n")

    rows = rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv"))

    assert [str(row["v"]) for row in rows] == [*cells, beside or "None"]


@pytest.mark.parametrize("cells", [["1", "2.5"], ["1.50"], ["true"], ["1", "x"]])
def test_a_column_of_csv_that_stays_text_for_some_of_its_cells_is_told_of(tmp_path: Path, cells: list[str]) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["v,w", *(f"{cell},x" for cell in cells)]) + "\n")

    types = LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv").read_types()

    assert types is not None
    (note,) = types.notes
    assert note.startswith("column 'v' holds cells of several kinds, or such as 1.50 and true")


def test_cells_of_csv_that_may_be_names_with_an_e_stay_text_and_written_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,number\n12e5,1e-05\n3E7,1500.0\n,2e+20\n")

    rows = rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv"))

    assert [row["name"] for row in rows] == ["12e5", "3E7", None]
    assert [row["number"] for row in rows] == [1e-05, 1500.0, 2e20]


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, [{"deep": {None: 1, "null": 2}}], {True: 1, "true": 2}])
def test_keys_that_are_one_key_in_json_are_refused_before_one_of_their_values_is_lost(value: Any) -> None:
    source = LoadDataFromDicts(name="rows", data=[{"x": 1}, {"x": value}])

    with pytest.raises(SourceError, match="row 1 .*column 'x': expected keys that differ as texts, got '.*' more than"):
        source.read_types()
    assert LoadDataFromDicts(data=[{"x": {1: "a", 2: "b"}}]).read_types() is not None


def test_two_columns_of_one_name_are_refused_with_their_places(tmp_path: Path) -> None:
    values = [pa.array([1]), pa.array([2]), pa.array([3])]
    pq.write_table(pa.table(values, names=["a", "b", "a"]), tmp_path / "columns.parquet")
    twin = pa.StructArray.from_arrays([values[0], values[1]], ["x", "x"])
    pq.write_table(pa.table([pa.ListArray.from_arrays([0, 1], twin)], names=["s"]), tmp_path / "fields.parquet")

    for name, said in (
        ("columns", "2 columns with the name 'a' (columns 1 and 3)"),
        ("fields", "2 fields with the name 'x' (fields 1 and 2 of 's')"),
    ):
        loader = LoadDataFromFileSystem(data_files=f"{tmp_path}/{name}.parquet")
        assert said in error_of(loader)
        assert f"{name}.parquet'" in error_of(loader)
    for columns, twice in ((["a", "a"], "a"), ([1, "1"], "1")):
        frame = pd.DataFrame([[1, 2]], columns=columns)
        with pytest.raises(SourceError, match=rf"has the columns \['{twice}'\] more than once"):
            make_generator_step(frame)


def test_a_map_of_parquet_comes_as_a_dict_and_a_time_that_python_lacks_is_refused(tmp_path: Path) -> None:
    tags = pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"tags": tags}), tmp_path / "maps.parquet")
    assert rows_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/maps.parquet")) == [{"tags": {"k": 1}}, {"tags": {}}]
    pq.write_table(pa.table({"at": pa.array([1001], pa.time64("ns"))}), tmp_path / "times.parquet")
    assert "times.parquet'" in error_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/times.parquet"))
    late = pa.array([2**50], pa.timestamp("s"))
    pq.write_table(pa.table({"at": late}), tmp_path / "late.parquet")
    assert "late.parquet'" in error_of(LoadDataFromFileSystem(data_files=f"{tmp_path}/late.parquet"))


def test_a_pandas_frame_gives_each_value_as_it_is(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "mixed": [1, "x", None],
            "dicts": [{"a": 1}, {"b": 2}, None],
            "numbers": [1.5, None, 2.0],
            "kinds": pd.Categorical(["a", "b", "a"]),
        }
    )
    assert rows_of(make_generator_step(frame)) == [
        {"mixed": 1, "dicts": {"a": 1}, "numbers": 1.5, "kinds": "a"},
        {"mixed": "x", "dicts": {"b": 2}, "numbers": None, "kinds": "b"},
        {"mixed": None, "dicts": None, "numbers": 2.0, "kinds": "a"},
    ]


def types_in(loader: Any, rows: int | None = None) -> dict[str, Any]:
    found = loader.read_types(rows)
    assert found is not None
    return found.features


def test_a_source_tells_the_types_of_all_its_columns(tmp_path: Path) -> None:
    typed = pa.table({"a": pa.array([1], pa.uint8()), "b": pa.array([0.5], pa.float32())})
    pq.write_table(typed, tmp_path / "a.parquet")
    pq.write_table(typed.select(["a"]).append_column("c", pa.array(["x"])), tmp_path / "b.parquet")
    expected = {"a": Value("uint8"), "b": Value("float32"), "c": Value("string")}
    assert types_in(LoadDataFromFileSystem(data_files=f"{tmp_path}/*.parquet")) == expected
    rows: list[Row] = [{"a": 1, "b": [1]}, {"a": 2.5, "b": ["x"], "c": {"d": None}}]
    expected = {"a": Value("float64"), "b": List(Json()), "c": {"d": Value("null")}}
    for loader in (LoadDataFromFileSystem(data_files=write(tmp_path / "a.jsonl", rows)), LoadDataFromDicts(data=rows)):
        assert types_in(loader) == expected
        assert types_in(loader, 1) == {"a": Value("int64"), "b": List(Value("int64"))}
    (tmp_path / "a.csv").write_text("a,b,c\n1,x,\n2,1.5,\n")
    expected = {"a": Value("int64"), "b": Value("string"), "c": Value("string")}
    assert types_in(LoadDataFromFileSystem(data_files=f"{tmp_path}/a.csv")) == expected


def test_a_cut_parquet_file_ends_in_an_error_that_names_it(tmp_path: Path) -> None:
    file = Path(write(tmp_path / "a.parquet", ROWS))
    content = bytearray(file.read_bytes())
    content[10:60] = b"\0" * 50
    file.write_bytes(content)
    assert "a.parquet'" in error_of(LoadDataFromFileSystem(data_files=str(file)))


def test_a_wrong_filetype_is_an_error_that_tells_the_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    message = error_of(LoadDataFromFileSystem(data_files=path, filetype="parquet"))
    assert "not parquet" in message
    assert "`filetype`" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("content", ["", "a,b\n"])
def test_a_source_without_rows_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content if name == "a.csv" else "")
    assert "has no rows" in error_of(LoadDataFromFileSystem(data_files=str(tmp_path / name)))
    assert "has no rows" in error_of(LoadDataFromDicts(data=[]))


def test_missing_files_are_named_with_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"'no.jsonl' is not there, or holds no data files (looked from '{tmp_path}')" in error_of(
        LoadDataFromFileSystem(data_files="no.jsonl")
    )
    assert "matches no file" in error_of(LoadDataFromFileSystem(data_files="data/*.jsonl"))
    assert "is empty" in error_of(LoadDataFromFileSystem(name="load"))


@pytest.mark.parametrize("address", ["nosuch://bucket/a.jsonl", "memory://none/a.jsonl"])
def test_an_address_that_leads_nowhere_is_a_source_error(address: str) -> None:
    assert address in error_of(LoadDataFromFileSystem(data_files=address))


# Datasets


def test_a_saved_dataset_is_read_from_disk(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "d"))
    loader = LoadDataFromDisk(dataset_path=str(tmp_path / "d"), num_examples=5)
    assert loader.columns() == {"n", "text"}
    assert rows_of(loader, 2) == ROWS[2:5]


def test_a_split_is_chosen_by_name_and_an_unknown_one_lists_those_there_are(tmp_path: Path) -> None:
    splits = DatasetDict({"train": Dataset.from_list(ROWS[:2]), "test": Dataset.from_list(ROWS[2:])})
    splits.save_to_disk(str(tmp_path / "d"))
    assert rows_of(LoadDataFromDisk(dataset_path=str(tmp_path / "d"), split="test")) == ROWS[2:]
    for split in (None, "dev"):
        assert "['train', 'test']" in error_of(LoadDataFromDisk(dataset_path=str(tmp_path / "d"), split=split))


def test_a_distiset_is_read_by_its_configuration(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d" / "default"))
    assert rows_of(LoadDataFromDisk(dataset_path=str(tmp_path / "d"), is_distiset=True)) == ROWS
    message = error_of(LoadDataFromDisk(dataset_path=str(tmp_path / "d"), is_distiset=True, config="other"))
    assert "/d/other' is no dataset" in message


def test_a_folder_that_save_to_disk_did_not_write_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS)
    for path in (tmp_path, tmp_path / "none"):
        message = error_of(LoadDataFromDisk(dataset_path=str(path)))
        assert f"'{path}' is no dataset that `save_to_disk` wrote" in message
        assert "LoadDataFromFileSystem" in message
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    assert "is no dataset" in error_of(LoadDataFromDisk(dataset_path=str(tmp_path)))


def test_images_are_rows_of_bytes_that_can_be_stored() -> None:
    from PIL import Image as Pillow

    features = Features({"picture": Image(), "text": Value("string")})
    dataset = Dataset.from_dict({"picture": [Pillow.new("RGB", (2, 2))], "text": ["red"]}, features=features)
    for given in (dataset, dataset.to_iterable_dataset()):
        (row,) = rows_of(make_generator_step(given))
        assert row["picture"]["bytes"].startswith(b"\x89PNG")
        assert row["text"] == "red"


def test_values_of_mixed_types_come_as_they_were_given(tmp_path: Path) -> None:
    rows: list[Row] = [{"v": {"x": 1}}, {"v": [1, 2]}, {"v": None}]
    dataset = Dataset.from_list(rows, on_mixed_types="use_json")
    assert rows_of(make_generator_step(dataset)) == rows
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    assert rows_of(LoadDataFromFileSystem(data_files=str(tmp_path / "a.parquet"))) == rows


@pytest.mark.parametrize("given", ["list", "dataset", "iterable", "frame"])
def test_a_generator_step_is_made_from_rows_in_memory(given: str) -> None:
    made: dict[str, Any] = {
        "list": ROWS,
        "dataset": Dataset.from_list(ROWS),
        "iterable": Dataset.from_list(ROWS).to_iterable_dataset(),
        "frame": pd.DataFrame(ROWS)[::1],
    }
    step = make_generator_step(made[given], batch_size=4, name="load")
    assert [(len(rows), last) for rows, last in step.process()] == [(4, False), (3, True)]
    assert rows_of(step, 2) == ROWS[2:]
    assert step.columns() == {"n", "text"}
    assert step.batch_size == 4
    assert step.model_dump(exclude_defaults=True) == {}


def test_a_dataset_of_selected_rows_gives_only_these() -> None:
    dataset = Dataset.from_list(ROWS).shuffle(seed=1).select([5, 0, 3])
    assert rows_of(make_generator_step(dataset), 1) == dataset.to_list()[1:]


@pytest.mark.parametrize("given", [5, "rows", {"n": [1]}, None])
def test_what_holds_no_rows_makes_no_generator_step(given: Any) -> None:
    with pytest.raises(SourceError, match="expected a list of dicts"):
        make_generator_step(given)


def test_a_dataset_dict_asks_which_split() -> None:
    with pytest.raises(SourceError, match=r"\['train'\]"):
        make_generator_step(DatasetDict({"train": Dataset.from_list(ROWS)}))


def test_a_row_that_is_no_dict_is_named() -> None:
    with pytest.raises(SourceError, match="row 1 is no dict, got 'two'"):
        make_generator_step([{"n": 1}, "two"])
    with pytest.raises(ValidationError, match="row 1 is no dict, got 'two'"):
        LoadDataFromDicts(data=[{"n": 1}, "two"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="row 0 has the column 1"):
        LoadDataFromDicts(data=[{1: "n"}])  # pyright: ignore[reportArgumentType]


def test_rows_given_in_python_are_not_changed_by_those_who_get_them() -> None:
    loader = LoadDataFromDicts(data=[{"n": 1}])
    rows_of(loader)[0]["n"] = 2
    assert loader.data == [{"n": 1}]


# Fields of a flow


def test_a_source_is_read_from_a_form_by_its_kind_and_goes_back() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Source)
    source = adapter.validate_python({"kind": "files", "data_files": "a.jsonl", "num_examples": 5})
    assert isinstance(source, LoadDataFromFileSystem)
    dumped = adapter.dump_python(source, mode="json")
    assert dumped["kind"] == "files"
    assert adapter.validate_python(dumped) == source
    with pytest.raises(ValidationError, match="files"):
        adapter.validate_python({"kind": "file"})


def test_a_form_shows_neither_rows_nor_secrets() -> None:
    schema = json.dumps(TypeAdapter(Source).json_schema())
    assert '"data_files"' in schema
    assert '"data"' not in schema
    assert "storage_options" not in schema
    dumped = LoadDataFromDicts(data=ROWS).model_dump()
    assert "data" not in dumped


# The Hub


class NoDatasets(BaseHTTPRequestHandler):
    """A Hub that has no dataset but a gated one."""

    def answer(self) -> None:
        gated = "secret/answers" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NoDatasets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


LOAD = """
import sys
from tasks.sources.loaders import LoadDataFromHub, SourceError
for repo in sys.argv[1:]:
    loader = LoadDataFromHub(repo_id=repo)
    for read in (lambda: next(loader.process()), loader.columns):
        try:
            print("no error", read())
        except SourceError as error:
            print(str(error).replace("\\n", " "))
"""


def load_in_a_process(home: Path, *repos: str, **environment: str) -> list[str]:
    """What loading says, with an environment that `huggingface_hub` reads when it's imported."""
    process = subprocess.run(
        [sys.executable, "-c", LOAD, *repos],
        env={**os.environ, "HF_HOME": str(home), "PYTHONPATH": ".", **environment},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_a_missing_and_a_gated_repository_are_told_apart(hub: str, tmp_path: Path) -> None:
    lines = load_in_a_process(tmp_path, "nobody/none", "secret/answers", HF_ENDPOINT=hub)
    assert len(lines) == 4
    assert all("'nobody/none' doesn't exist on the Hub" in line and "HF_TOKEN" in line for line in lines[:2]), lines
    assert all("gated" in line and "ask for access" in line for line in lines[2:]), lines


def test_a_hub_that_cannot_be_reached_is_a_source_error(tmp_path: Path) -> None:
    (line, other) = load_in_a_process(tmp_path, "nobody/none", HF_HUB_OFFLINE="1")
    assert "dataset 'nobody/none' of the Hub can't be reached" in line
    assert "Check the network" in line
    assert line.partition(":")[0] == other.partition(":")[0]


@pytest.mark.parametrize("repo", ["", "./data", "a/b/c", "https://huggingface.co/datasets/a/b"])
def test_what_is_no_name_of_a_repository_is_an_error(repo: str) -> None:
    assert "expected owner/name" in error_of(LoadDataFromHub(repo_id=repo))


def test_a_folder_in_place_of_a_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "stories").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "is also a folder" in error_of(LoadDataFromHub(repo_id="me/stories"))
