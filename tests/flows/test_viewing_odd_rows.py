"""`python -m flows view` of rows and files that are unusual: large numbers, odd texts, files that change."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset as HubDataset
from datasets import Features, Json
from starlette.testclient import TestClient

from flows.viewing.errors import ViewError
from flows.viewing.lines import PARSED_AT_ONCE, TextFile, TextTable
from flows.viewing.opening import datasets_at
from flows.viewing.pages import ROWS_PER_PAGE, Viewer, viewer_app
from flows.viewing.tables import SCANNED_AT_ONCE
from tasks import SaveToDisk, SaveToFiles
from tasks.typing import Row
from tests.conftest import LONGEST

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


@pytest.fixture(autouse=True)
def pages_wait_for_all_rows_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.viewing.pages.PATIENCE", LONGEST)


def look(*places: Path, on: Sequence[str] = ()) -> TestClient:
    viewer = Viewer([list(datasets_at(place)) for place in places], on)
    return TestClient(viewer_app(viewer), base_url="http://127.0.0.1:8420")


def lines(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def finished(client: TestClient, address: str, **parameters: str) -> str:
    """A page, once all rows were looked through."""
    while "being looked through" in (page := client.get(address, params=parameters or None).text):
        pass
    return page


def numbers_on(page: str) -> list[int]:
    return [int(each.replace(",", "")) for each in re.findall(r">Row ([\d,]+)</a>", page)]


def found(client: TestClient, **parameters: str) -> list[int]:
    return numbers_on(finished(client, "/rows", **parameters))


def counts(client: TestClient) -> dict[str, int]:
    while 'http-equiv="refresh"' in (page := client.get("/compare").text):
        pass
    return {said: int(count) for count, said in re.findall(r"<b>(\d+)</b> ([a-zA-Z ]+)</a>", page)}


def images(page: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'<img src="([^"]*)"', page)]


# Numbers


def test_every_digit_of_a_number_counts_in_the_rows_the_links_and_the_fields_of_a_page(tmp_path: Path) -> None:
    client = look(lines(tmp_path / "times.jsonl", ({"created": 1732960000 + n, "part": n / 8} for n in range(60))))

    page = finished(client, "/rows", **{"least.created": "1732960017", "least.part": "0.125"})
    following = re.search(r'<a rel="next" href="([^"]+)"', page)

    assert numbers_on(page) == list(range(17, 17 + ROWS_PER_PAGE))
    assert following and numbers_on(client.get(unescape(following[1])).text) == list(range(37, 57))
    fields = dict(re.findall(r'type="number" step="any" name="least\.(\w+)" value="([^"]*)"', page))
    assert fields == {"created": "1732960017", "part": "0.125"}


def test_two_large_numbers_that_differ_in_their_last_digit_are_two_questions(tmp_path: Path) -> None:
    client = look(lines(tmp_path / "times.jsonl", ({"created": 1732960000 + n} for n in range(60))))

    last = [found(client, **{"least.created": str(1732960000 + number)}) for number in (59, 57)]

    assert last == [[59], [57, 58, 59]]


DIGITS = [19, 20, 30, 400, 5000]


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("count", DIGITS)
def test_a_number_of_any_length_in_csv_is_shown_with_all_its_digits(tmp_path: Path, count: int, sign: str) -> None:
    number = sign + "9" * count
    path = tmp_path / "rows.csv"
    path.write_text(f"id,long\n1,{number}\n2,5\n", encoding="utf-8")

    client = look(path)

    for address in ("/rows", "/row"):
        answer = client.get(address)
        assert (answer.status_code, "9" * min(count, 500) in answer.text) == (200, True)
    assert found(client, **{"least.id": "1", "sort": "-id"}) == [1, 0]
    assert found(client, **{"most.long": "5", "least.long": "5"}) == [1]


@pytest.mark.parametrize("count", DIGITS)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_rows_with_a_number_of_any_length_in_json_are_shown(tmp_path: Path, name: str, count: int) -> None:
    number = "9" * count
    path = tmp_path / name
    row = f'{{"id": 1, "long": [{number}, -{number}]}}'
    texts = {"rows.jsonl": row, "rows.json": f"[{row}]", "rows.csv": f'id,long\n1,"[{number}, -{number}]"\n'}
    path.write_text(texts[name], encoding="utf-8")

    client = look(path)

    assert [client.get(address).status_code for address in ("/rows", "/row", "/rows?least.long=5")] == [200] * 3
    assert found(client, **{"least.id": "1", "sort": "id"}) == [0]
    assert (number if count in {19, 400, 5000} else "e+") in client.get("/row").text


# Words and labels


@pytest.mark.parametrize("words", ["café", "CAFÉ", "é", "https://", "/a, c", "example", "…", '"so"'])
@pytest.mark.parametrize("name", ["rows", "rows.parquet", "rows.jsonl"])
def test_words_are_found_in_json_however_its_writer_spelled_them(tmp_path: Path, name: str, words: str) -> None:
    texts = ["plain", 'See https://example.org/a, café… "so" tab\t.', "role"]
    rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    dataset = HubDataset.from_list(rows, features=Features({"messages": Json()}))
    path = tmp_path / name
    if name == "rows":
        dataset.save_to_disk(str(path))
    elif name == "rows.parquet":
        dataset.to_parquet(str(path))
    else:
        dataset.to_json(str(path))

    assert found(look(path), q=words) == [1]
    assert found(look(path), q="ROLE") == [2]


def test_a_label_with_a_space_around_it_finds_its_rows(tmp_path: Path) -> None:
    client = look(lines(tmp_path / "rows.jsonl", ({"label": " yes" if n % 2 else "yes"} for n in range(10))))

    assert re.findall(r'<option value="([^"]*yes)">', client.get("/rows").text) == [" yes", "yes"]
    assert [found(client, **{"is.label": label}) for label in (" yes", "yes")] == [[1, 3, 5, 7, 9], [0, 2, 4, 6, 8]]


LONE = "a cut emoji: \ud83d!"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_half_of_an_emoji_is_shown_as_a_sign_for_what_cant_be_read(tmp_path: Path, name: str) -> None:
    row = {"number": 2**70, "talk": [{"role": "user", "content": LONE, "key \udc00": [LONE, "😀"]}]}
    path = tmp_path / name
    if name == "rows.csv":
        path.write_text('talk\n"' + json.dumps(row["talk"]).replace('"', '""') + '"\n', encoding="utf-8")
    else:
        path.write_text(json.dumps([row] if name == "rows.json" else row), encoding="utf-8")

    client = look(path)

    for address in ("/rows", "/row"):
        answer = client.get(address)
        assert (answer.status_code, answer.text.count("a cut emoji: \ufffd!") >= 1) == (200, True)
    page = client.get("/row").text
    assert "key \ufffd" in page and "😀" in page
    assert found(client, q="emoji: \ufffd") == [0]


# Files


@pytest.mark.parametrize("rows", [3, 200, 300])
def test_a_file_that_was_written_anew_meanwhile_is_to_be_opened_again(tmp_path: Path, rows: int) -> None:
    path = lines(tmp_path / "rows.jsonl", ({"id": n, "text": "x" * 500} for n in range(200)))
    client = look(path)
    assert numbers_on(client.get("/rows?from=180").text) == list(range(180, 200))

    lines(path, ({"id": n, "text": "y" * 500} for n in range(rows)))
    os.utime(path, ns=(1, 1))

    for address in ("/rows?from=180", "/row?at=199", "/rows?q=x"):
        answer = client.get(address)
        assert (answer.status_code, "rows.jsonl has changed, open it again" in answer.text) == (400, True)


def test_a_file_that_shrinks_while_it_is_read_is_told_as_changed(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", ({"id": n, "text": "x" * 500} for n in range(2 * PARSED_AT_ONCE)))
    table = TextTable([TextFile(path)])
    batches = table.scan([])

    next(batches)
    os.truncate(path, 10)

    with pytest.raises(ValueError, match="has changed, open it again"):
        next(batches)


def test_a_file_that_another_took_the_place_of_is_shown_as_it_was(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "before"}])
    client = look(path)

    lines(tmp_path / "new.jsonl", [{"text": "after"}]).replace(path)

    assert "before" in client.get("/row").text


COLUMNAR = ["rows.parquet", "stream.arrow", "file.arrow"]


def written(path: Path, word: str, count: int = 3 * SCANNED_AT_ONCE) -> Path:
    """A file of rows that all say a word, written to in place where there's one."""
    rows = pa.table({"text": [f"{word} {number}" for number in range(count)], "id": range(count)})
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=SCANNED_AT_ONCE)
        return path
    new = pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file
    with new(str(path), rows.schema) as writer:
        writer.write_table(rows, max_chunksize=2 * SCANNED_AT_ONCE)
    return path


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("name", COLUMNAR)
def test_columns_whose_file_was_replaced_or_removed_are_shown_and_searched_as_they_were(
    tmp_path: Path, name: str, replaced: bool
) -> None:
    path = written(tmp_path / name, "before")
    client = look(path)

    if replaced:
        written(tmp_path / f"{path.stem}-{path.name}", "after", 5).replace(path)
    else:
        path.unlink()

    last = 3 * SCANNED_AT_ONCE - 1
    assert f"before {last}" in client.get(f"/row?at={last}").text
    assert found(client, q=f"before {last}") == [last]
    assert found(client, **{"least.id": str(last - 1)}) == [last - 1, last]
    assert found(client, q="after") == []


@pytest.mark.parametrize("count", [5, 3 * SCANNED_AT_ONCE, 4 * SCANNED_AT_ONCE])
@pytest.mark.parametrize("name", COLUMNAR)
def test_columns_whose_file_was_written_to_meanwhile_are_to_be_opened_again(
    tmp_path: Path, name: str, count: int
) -> None:
    path = written(tmp_path / name, "before")
    client = look(path)
    assert client.get("/rows").status_code == 200

    written(path, "after", count)
    os.utime(path, ns=(1, 1))

    for address in ("/rows", f"/rows?from={2 * SCANNED_AT_ONCE}", "/row?at=7", "/rows?q=before", "/rows?sort=-id"):
        answer = client.get(address)
        assert (answer.status_code, f"{name} has changed, open it again" in answer.text) == (400, True)
        assert "before 7" not in answer.text and "after 7" not in answer.text


@pytest.mark.parametrize("name", COLUMNAR)
def test_columns_whose_file_shrinks_while_it_is_looked_through_are_told_as_changed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "before")
    (dataset,) = datasets_at(path)
    batches = dataset.table.scan(["text"])

    first = next(batches)
    os.truncate(path, 10)

    # What was read before is whole.
    assert first.values("text")[-1].startswith("before ")
    with pytest.raises(ViewError, match=f"{name} has changed, open it again"):
        next(batches)


@pytest.mark.parametrize("name", ["rows", "rows.parquet", "folder-of-parquet", "rows.jsonl"])
def test_a_run_that_saves_again_leaves_what_is_looked_at_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    target = (
        SaveToDisk(path=str(path), overwrite=True) if name == "rows" else SaveToFiles(path=str(path), overwrite=True)
    )
    target.save(HubDataset.from_list([{"text": f"before {number}"} for number in range(50)]), "# Before")
    client = look(path)

    target.save(HubDataset.from_list([{"text": f"after {number}"} for number in range(30)]), "# After")

    assert found(client, q="before 4") == [4, *range(40, 50)]
    assert found(client, q="after") == []
    assert "before 49" in client.get("/row?at=49").text
    assert found(look(path), q="after 2") == [2, *range(20, 30)]


def test_columns_of_texts_as_views_are_looked_through_whatever_they_are_in(tmp_path: Path) -> None:
    texts = [f"row {number}" for number in range(3)]
    text, listed = pa.array(texts, pa.string_view()), pa.array([[each] for each in texts], pa.list_(pa.string_view()))
    noted = pa.StructArray.from_arrays(
        [pa.array([each.encode() for each in texts], pa.binary_view()), text], ["b", "t"]
    )
    for name, column in {"text": text, "list": listed, "fields": noted, "code": text.dictionary_encode()}.items():
        path = tmp_path / f"{name}.arrow"
        table = pa.table({name: column})
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)

        client = look(path)

        assert found(client, q="ROW 1") == [1]
        assert "row 2" in client.get("/row?at=2").text


def test_an_unpacked_file_doesnt_depend_on_the_packed_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    client = look(path)

    path.write_bytes(b"")

    assert "packed" in client.get("/row").text


def test_rows_larger_than_what_is_read_at_once_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.viewing.lines.BYTES_AT_ONCE", 64)
    rows: list[Row] = [{"text": "x" * (n * 13 % 200), "n": n} for n in range(50)]
    table = TextTable([TextFile(lines(tmp_path / "rows.jsonl", rows))])

    assert [row for batch in table.scan([]) for row in batch.rows()] == rows
    assert table.take([49, 7]) == [rows[49], rows[7]]


def test_a_cell_of_csv_may_be_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'a,b\n1,"{"long " * 40_000}end"\n2,short\n', encoding="utf-8")

    client = look(path)

    assert "long end" in client.get("/row?at=0").text
    assert found(client, q="long end") == [0]


def test_files_whose_names_differ_behind_a_dot_are_datasets_of_their_own(tmp_path: Path) -> None:
    for name in ("train.en.jsonl", "train.de.jsonl.gz", "test.0.jsonl", "test.1.jsonl", "other-00000-of-00001.jsonl"):
        (tmp_path / name).write_bytes(gzip.compress(b"{}\n") if name.endswith(".gz") else b'{"a": 1}\n')

    names = {each.name: [file.name for file in each.files] for each in datasets_at(tmp_path)}

    assert names == {
        "other": ["other-00000-of-00001.jsonl"],
        "test": ["test.0.jsonl", "test.1.jsonl"],
        "train.de": ["train.de.jsonl.gz"],
        "train.en": ["train.en.jsonl"],
    }


PARTS = {
    "part-00001.jsonl part-00002.jsonl": ["part"],
    "train-00000-of-00002.jsonl train-00001-of-00002.jsonl": ["train"],
    "0000.jsonl 0001.jsonl": ["folder"],
    "rows1.jsonl rows2.jsonl": ["rows"],
    "v1.jsonl v2.jsonl": ["v1", "v2"],
    "rows-v1.jsonl rows_V2.jsonl": ["rows-v1", "rows_V2"],
    "v1.0.jsonl v1.1.jsonl": ["v1.0", "v1.1"],
    "v1-00000.jsonl v1-00001.jsonl v2-00000.jsonl": ["v1", "v2"],
    "conv1.jsonl conv2.jsonl": ["conv"],
}


@pytest.mark.parametrize("names", PARTS)
def test_files_that_are_numbered_are_parts_of_one_dataset_and_versions_are_not(tmp_path: Path, names: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, name in enumerate(names.split()):
        lines(folder / name, [{"number": number}])

    assert [each.name for each in datasets_at(folder)] == PARTS[names]
    assert sum(len(each.table) for each in datasets_at(folder)) == len(names.split())


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, ""),
        (3, ", 3 files: part-0.jsonl, part-1.jsonl, part-2.jsonl"),
        (9, ", 9 files: part-0.jsonl to part-8.jsonl"),
    ],
)
def test_a_page_names_the_files_that_its_rows_are_from(tmp_path: Path, count: int, said: str) -> None:
    for number in range(count):
        lines(tmp_path / f"part-{number}.jsonl", [{"number": number}])

    assert f", {tmp_path}{said}</p>" in look(tmp_path).get("/rows").text
    assert f"1 row, {tmp_path}/part-0.jsonl</p>" in look(tmp_path / "part-0.jsonl").get("/rows").text


# What a row has


def nested(depth: int, opening: str, closing: str) -> str:
    """A text in so many lists or objects, as JSON."""
    return opening * depth + r'"\"}]{[ a word"' + closing * depth


def row_in(path: Path, nested: str) -> Path:
    """A file of one row with some JSON in it, twice."""
    cell, row = f"[{nested}, {nested}]", f'{{"id": "first", "x": [{nested}, {nested}]}}'
    if path.suffix == ".parquet":
        column = pa.ExtensionArray.from_storage(pa.json_(), pa.array([cell]))
        pq.write_table(pa.table({"id": ["first"], "x": column}), path)
        return path
    quoted = cell.replace('"', '""')
    texts = {".jsonl": row, ".json": f"[{row}]", ".csv": f'id,x\nfirst,"{quoted}"\n'}
    path.write_text(texts[path.suffix], encoding="utf-8")
    return path


@pytest.mark.parametrize("depth", [90, 300, 1_100, 5_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k]": ', "}"), ('[{"k": ', "}]")])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_a_row_with_json_nested_however_deep_is_shown_and_what_is_deepest_as_it_stands(
    tmp_path: Path, name: str, opening: str, closing: str, depth: int
) -> None:
    client = look(row_in(tmp_path / name, nested(depth // len(closing), opening, closing)))

    for address in ("/rows", "/row", "/rows?q=word", "/row?q=word"):
        answer = client.get(address)
        assert (answer.status_code, "first" in answer.text) == (200, True)
    assert found(client, q="}]{[ a word") == [0]
    page = client.get("/row").text
    assert page.count("a word") >= 2
    assert ("nested more than 100 deep, as it stands in the JSON" in page) == (depth > 100)


def test_json_that_is_nested_without_an_end_is_told_as_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": ' + "[" * 100_000, encoding="utf-8")

    with pytest.raises(ValueError, match="row 0 isn't JSON"):
        look(path)


def test_rows_that_differ_only_in_what_is_nested_deep_count_as_changed(tmp_path: Path) -> None:
    for name, word in (("one", "this"), ("other", "that")):
        deep = nested(5_000, "[", "]").replace("word", word)
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "p", "x": {deep}}}', encoding="utf-8")

    client = look(tmp_path / "one.jsonl", tmp_path / "other.jsonl")

    assert counts(client)["changed"] == 1
    assert client.get("/compare").status_code == 200


@pytest.mark.parametrize("statistics", [{"input_tokens": None, "output_tokens": 5}, {"output_tokens": 5}, {}])
def test_a_step_that_noted_no_tokens_took_none(tmp_path: Path, statistics: dict[str, Any]) -> None:
    notes = {"statistics_s": [statistics, {"input_tokens": 2, "output_tokens": 1}], "raw_output_s": "x"}
    client = look(lines(tmp_path / "rows.jsonl", [{"prompt": "q", "distilabel_metadata": notes}]))

    answer = client.get("/row")

    assert answer.status_code == 200
    assert f"2 in, {statistics.get('output_tokens', 0) + 1} out" in answer.text.partition("How it was made")[2]


@pytest.mark.parametrize("statistics", [{"input_tokens": "many", "output_tokens": 5}, "many", 5, [None, True]])
def test_statistics_that_are_no_numbers_took_nothing(tmp_path: Path, statistics: Any) -> None:
    notes = {"statistics_s": statistics, "raw_output_s": "x"}
    answer = look(lines(tmp_path / "rows.jsonl", [{"prompt": "q", "distilabel_metadata": notes}])).get("/row")

    assert (answer.status_code, "How it was made" in answer.text) == (200, True)
    assert ("0 in, 5 out" in answer.text) == isinstance(statistics, dict)


FAILURES = {
    "TimeoutError: too slow": {"type": "TimeoutError", "message": "too slow", "retryable": True},
    "the muse is out": "the muse is out",
    "only this": {"message": "only this"},
    "the second of two": [None, {"type": "Error", "message": "the second of two"}],
    "true": True,
    "</code>: 429": 429,
}


@pytest.mark.parametrize("said", FAILURES)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_whatever_a_step_noted_as_its_error_is_shown(tmp_path: Path, name: str, said: str) -> None:
    path = tmp_path / name
    notes = {"error_s": FAILURES[said], "earlier_error_s": FAILURES[said]}
    if path.suffix == ".csv":
        quoted = json.dumps(notes).replace('"', '""')
        path.write_text(f'prompt,distilabel_metadata\nq,"{quoted}"\n', encoding="utf-8")
    else:
        lines(path, [{"prompt": "q", "distilabel_metadata": notes}])
    client = look(path)

    for address in ("/rows", "/row", "/rows?state=failed", "/row?state=failed"):
        answer = client.get(address)
        failure = answer.text.partition("<strong>Failed</strong>")[2].partition("</p>")[0]
        assert (answer.status_code, said in failure) == (200, True)
    assert (
        said.removeprefix("</code>: ") in client.get("/row").text.partition("Failed before: ")[2].partition("</p>")[0]
    )


def test_whole_numbers_are_the_same_with_and_without_a_point(tmp_path: Path) -> None:
    one = [{"prompt": n, "score": n, "most": 10**17, "parts": {"a": [n, 0.5]}} for n in range(4)]
    other = [{"prompt": float(n), "score": float(n), "most": 1e17, "parts": {"a": [float(n), 0.5]}} for n in range(4)]
    other[3]["score"] = 3.25

    client = look(lines(tmp_path / "one.jsonl", one), lines(tmp_path / "other.jsonl", other))

    assert counts(client) == {"changed": 1, "the same": 3, "only in A": 0, "only in B": 0}


def test_a_row_that_counts_as_changed_says_what_changed(tmp_path: Path) -> None:
    one, other = ([{"prompt": "p", "good": good, "all": [good]}] for good in (True, 1))
    client = look(lines(tmp_path / "one.jsonl", one), lines(tmp_path / "other.jsonl", other))

    assert counts(client)["changed"] == 1
    page = client.get("/compare").text
    assert "<del>true</del>" in page and "<ins>1</ins>" in page and "The same" not in page


def test_images_in_chats_and_in_prompts_that_were_sent_are_shown(tmp_path: Path) -> None:
    picture = {"type": "image", "image": {"bytes": PNG, "path": None}, "text": None}
    words = {"type": "text", "image": None, "text": "What is it?"}
    chat = [{"role": "user", "content": [words, picture]}]
    rows = [{"messages": chat, "chosen": [{"role": "user", "content": [{"type": "x", "raw": PNG}]}], "rejected": chat}]
    notes = {"raw_input_s": chat, "raw_output_s": [None, {"image": PNG}], "statistics_s": {"input_tokens": 1}}
    pq.write_table(pa.Table.from_pylist([{**rows[0], "distilabel_metadata": notes}]), tmp_path / "rows.parquet")
    client = look(tmp_path / "rows.parquet")

    shown = images(client.get("/row").text)

    assert len(shown) == len(set(shown)) == 5
    for address in shown:
        assert (client.get(address).status_code, client.get(address).content) == (200, PNG)
