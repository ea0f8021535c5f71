"""`python -m flows view`: what its pages show of datasets that our targets wrote, and what hostile rows can't do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from datasets import Dataset as HubDataset
from datasets import DatasetDict
from starlette.testclient import TestClient

from flows import load
from flows.authoring.saving import finish
from flows.cli import main
from flows.engine.event_loops import run_anywhere
from flows.store.results import AskedModel, DatasetResult, RunResult, results, write_result
from flows.store.storage import Storage, storage_at
from flows.viewing.batches import METADATA, Batch, RowBatch
from flows.viewing.errors import ViewError
from flows.viewing.opening import Dataset, opened
from flows.viewing.pages import ROWS_PER_PAGE, Viewer, viewer_app
from flows.viewing.tables import Table
from llms import AsyncLLM, BadRequestError, GenerateOutput
from tasks import SaveToDisk, SaveToFiles, TextGeneration, steps
from tasks.typing import Row
from tests.conftest import LONGEST, ROOT, wait_for

COUNT = 45
FORMATS = ["disk", "parquet", "rows.parquet", "rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "jsonl"]
"""Paths of targets: those without an ending are folders, `disk` one of `save_to_disk`."""


@pytest.fixture(autouse=True)
def pages_wait_for_all_rows_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.viewing.pages.PATIENCE", LONGEST)


class Poet(AsyncLLM):
    """Answers in verse, and refuses every eleventh prompt."""

    @property
    def model_name(self) -> str:
        return "poet"

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
        number = int(input[-1]["content"].split()[-1])
        if number % 11 == 3:
            raise BadRequestError("the muse is out")
        count = [10 + number] * num_generations
        return GenerateOutput(
            generations=[f"Ode to {number}:\nO Größe!"] * num_generations,
            statistics={"input_tokens": count, "output_tokens": count},
        )


def source_row(number: int) -> Row:
    return {
        "id": f"r{number:02}",
        "instruction": f"Praise the number {number}",
        "kind": ["even", "odd"][number % 2],
        "score": number / 2 if number % 5 else None,
        "ratings": [number, number + 1],
        "talk": [{"role": "user", "content": f"Hello {number}"}, {"role": "assistant", "content": "Good day"}],
    }


def is_failed(number: int) -> bool:
    return number % 11 == 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HubDataset:
    """Rows of a real step, of which some failed."""
    storage = tmp_path_factory.mktemp("storage")
    rows = load([source_row(number) for number in range(COUNT)], storage=str(storage))
    return run_anywhere(finish({"ode": rows.map(TextGeneration(name="ode", llm=Poet()))}, {}, max_failed_rows=COUNT))[
        "ode"
    ]


@pytest.fixture(scope="module")
def places(made: HubDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same rows, by each target."""
    folder = tmp_path_factory.mktemp("targets")
    found: dict[str, str] = {}
    for name in FORMATS:
        path = str(folder / name)
        if name == "disk":
            target: SaveToDisk | SaveToFiles = SaveToDisk(path=path)
        else:
            folder_of = name if "." not in name else None
            target = SaveToFiles(path=path, file_format=folder_of, rows_per_file=20 if folder_of else None)
        found[name] = target.save(made, "# Odes")
    return found


@pytest.fixture
def look(storage: Path) -> Callable[..., TestClient]:
    def at(*places: str | Path, on: Sequence[str] = ()) -> TestClient:
        sides = [opened(str(place), storage_at()) for place in places]
        return TestClient(viewer_app(Viewer(sides, on)), base_url="http://127.0.0.1:8420")

    return at


def numbers_on(page: str) -> list[int]:
    return [int(each.replace(",", "")) for each in re.findall(r"<h2><a [^>]*>Row ([\d,]+)</a>", page)]


def all_numbers(client: TestClient, address: str) -> list[int]:
    """The places of the rows on a page and all that its "Next" leads to, once all rows were looked through."""
    found: list[int] = []
    following: str | None = address
    while following:
        page = client.get(following).text
        if "are being looked through" in page:
            continue
        found += numbers_on(page)
        match = re.search(r'<a rel="next" href="([^"]+)"', page)
        following = match[1].replace("&amp;", "&") if match else None
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_all_rows_of_every_target_are_paged_through_with_their_whole_texts(
    name: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places[name])

    assert all_numbers(client, "/rows") == list(range(COUNT))
    for number in (0, ROWS_PER_PAGE + 1, COUNT - 1):
        page = client.get(f"/row?at={number}").text
        assert f"r{number:02}" in page
        assert f"Praise the number {number}" in page
        assert is_failed(number) or f"Ode to {number}:\nO Größe!" in page
        assert f"Hello {number}" in page


QUERIES: dict[str, Callable[[int], bool]] = {
    "state=failed": is_failed,
    "state=failed&step=ode": is_failed,
    "state=failed&step=other": lambda number: False,
    "state=fine": lambda number: not is_failed(number),
    "step=ode": lambda number: True,
    "least.score=3&most.score=10": lambda number: number % 5 != 0 and 3 <= number / 2 <= 10,
    "least.ratings=44": lambda number: number + 1 >= 44,
    "is.kind=odd": lambda number: number % 2 == 1,
    "q=NUMBER 4": lambda number: str(number).startswith("4"),
    "q=hello 12": lambda number: number == 12,
    "q=ode to 1": lambda number: str(number).startswith("1") and not is_failed(number),
    "q=O GRÖSSE": lambda number: False,
    "q=o größe": lambda number: not is_failed(number),
    "q=ASSISTANT": lambda number: True,
    "q=.*": lambda number: False,
    "is.kind=even&state=fine&q=praise&most.score=9": lambda number: (
        number % 2 == 0 and not is_failed(number) and number % 5 != 0 and number / 2 <= 9
    ),
}


@pytest.mark.parametrize("name", ["disk", "parquet", "rows.jsonl", "rows.csv"])
def test_filters_and_words_find_the_same_rows_in_every_kind_of_file(
    name: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places[name])

    found = {query: all_numbers(client, f"/rows?{query}") for query in QUERIES}

    assert found == {query: [number for number in range(COUNT) if wanted(number)] for query, wanted in QUERIES.items()}


@pytest.mark.parametrize("name", ["disk", "parquet", "rows.jsonl"])
def test_rows_are_ordered_by_a_number_with_those_without_one_last(
    name: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places[name])
    scored = [number for number in range(COUNT) if number % 5]
    without = [number for number in range(COUNT) if not number % 5]

    assert all_numbers(client, "/rows?sort=score") == scored + without
    assert all_numbers(client, "/rows?sort=-score") == scored[::-1] + without


def test_a_row_leads_to_those_beside_it_among_the_ones_that_were_found(
    places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    page = look(places["disk"]).get("/row?at=14&state=failed").text
    links = {
        rel: parse_qs(urlsplit(url.replace("&amp;", "&")).query)
        for rel, url in re.findall(r'<a rel="(prev|next)" href="([^"]+)"', page)
    }

    assert links == {"prev": {"at": ["3"], "state": ["failed"]}, "next": {"at": ["25"], "state": ["failed"]}}
    assert "the 2. of 4 found" in page


@pytest.mark.parametrize("name", ["disk", "rows.jsonl", "rows.csv"])
def test_a_row_shows_the_prompt_that_was_sent_the_raw_answer_its_tokens_and_why_it_failed(
    name: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places[name])
    good, bad = (client.get(f"/row?at={number}").text.partition("How it was made")[2] for number in (4, 14))

    assert '<span class="role">user</span>' in good and "Praise the number 4" in good
    assert "Answer as it came" in good and "Ode to 4:" in good
    assert "14 in, 14 out" in good
    assert "Failed</strong> in <code>ode</code>: BadRequestError" in client.get("/row?at=14").text
    assert "the muse is out" in client.get("/rows?state=failed").text
    assert "No answer was kept" in bad


def test_a_row_says_what_it_cost_where_it_is_known_whom_its_steps_asked(
    made: HubDataset, places: dict[str, str], storage: Path, look: Callable[..., TestClient]
) -> None:
    asked = AskedModel("gpt-4o-mini", "https://api.openai.com/v1")
    of_run = DatasetResult("ode", COUNT, saved=places["disk"], prompts=["id", "instruction"])
    write_result(storage_at(), RunResult("1f" * 16, "odes", "odes", datasets=[of_run], models={"ode": asked}))

    page = look(places["disk"]).get("/row?at=40").text

    # 50 tokens in and 50 out, at $0.15 and $0.60 a million.
    assert "$0.000037" in page or "$0.000038" in page
    assert "$" not in look(places["rows.jsonl"]).get("/row?at=40").text.partition("How it was made")[2]


# Hostile rows

EVIL = [
    "<script>fetch('http://evil.example/')</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</textarea></style><iframe src=//evil.example></iframe>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
]


class Tags(HTMLParser):
    """The tags on a page, and what leads elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names = set[str]()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action", "content"}]
        assert not [name for name, _ in attrs if name.startswith(("on", "style"))]


def evil_rows(words: Sequence[str]) -> list[Row]:
    failure = {"type": "Error", "message": words[0], "retryable": False}
    return [
        {
            words[0]: words[1],
            "prompt": words[2],
            "label": words[3],
            "chosen": [{"role": words[4], "content": words[5]}],
            "rejected": [{"role": "user", "content": words[6]}],
            "fields": {words[1]: {words[2]: words[3]}, "list": list(words)},
            "distilabel_metadata": {
                f"error_{words[1]}": failure,
                f"raw_input_{words[1]}": [{"role": words[2], "content": words[0]}],
                f"raw_output_{words[1]}": words[0],
                f"finish_reason_{words[1]}": words[3],
                f"statistics_{words[1]}": {"input_tokens": 1, "output_tokens": 1},
            },
        }
        for _ in range(3)
    ]


def test_a_hostile_row_is_text_on_every_page(tmp_path: Path, look: Callable[..., TestClient]) -> None:
    pages: dict[str, list[str]] = {}
    for name, words in (("evil", EVIL), ("harmless", [f"word {number}" for number in range(len(EVIL))])):
        for side in ("one", "other"):
            rows = evil_rows(words)
            rows[0]["label"] = f"{words[1]} {side}"
            SaveToFiles(path=str(tmp_path / f"{name}-{side}.jsonl")).save(HubDataset.from_list(rows), "# Rows")
        client = look(tmp_path / f"{name}-one.jsonl", tmp_path / f"{name}-other.jsonl", on=["prompt"])
        client.get("/compare")
        searched = f"/rows?q={escape(words[2]).replace('&', '%26').replace('#', '%23').replace(';', '%3B')}"
        pages[name] = [client.get(each).text for each in ("/rows", "/row", "/compare", "/compare?show=equal", searched)]

    for evil, harmless in zip(pages["evil"][:4], pages["harmless"][:4], strict=True):
        assert Tags(evil).names == Tags(harmless).names
        assert not [each for each in Tags(evil).addresses if each and not each.startswith(("/", "#", "width", "light"))]
    assert not Tags(pages["evil"][4]).names & {"script", "img", "svg", "iframe", "b"}
    for words in EVIL:
        assert escape(words, quote=False) in pages["evil"][1].replace("&#34;", '"').replace("&#39;", "'")


def test_pages_may_load_nothing_but_our_own_style_and_images(
    places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places["disk"])
    for address in ("/rows", "/row?at=1", "/row?at=999", "/style.css", "/nothing-here"):
        headers = client.get(address).headers

        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert {policy[each] for each in ("style-src", "img-src", "form-action")} == {"'self'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "0.0.0.0:8420", ""])
def test_a_request_by_another_name_than_this_machines_own_gets_nothing(
    host: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    client = look(places["disk"])

    answer = client.get("/rows", headers={"host": host})

    assert answer.status_code == 400
    assert "Praise" not in answer.text
    assert client.get("/rows", headers={"host": "localhost:8420"}).status_code == 200


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


def test_images_are_shown_and_other_bytes_are_never_served(tmp_path: Path, look: Callable[..., TestClient]) -> None:
    rows = [{"a.picture": {"bytes": PNG, "path": None}, "drawing": SVG, "several": [PNG, SVG], "page": b"<html>"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet")
    client = look(tmp_path / "images.parquet")
    page = client.get("/row").text
    shown = [each.replace("&amp;", "&") for each in re.findall(r'<img src="([^"]+)"', page)]

    assert len(shown) == 2
    for address in shown:
        image = client.get(address)
        assert (image.headers["content-type"], image.content) == ("image/png", PNG)
    for path in ("drawing", "several.1", "page", "a.picture", "nothing", "several.9", "a.picture.bytes.0"):
        assert client.get(f"/image?path={path}").status_code == 404


# Two side by side


def write_lines(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ONE = [
    {"instruction": "A", "generation": "The tide comes twice a day.", "model_name": "m1", "score": 3},
    {"instruction": "B", "generation": "Same.", "model_name": "m1", "score": 4},
    {"instruction": "C", "generation": "First.", "model_name": "m1", "score": 1},
    {"instruction": "C", "generation": "Second.", "model_name": "m1", "score": 1},
    {"instruction": "only here", "generation": "x", "model_name": "m1", "score": 1},
]
OTHER = [
    {"instruction": "C", "generation": "First.", "model_name": "m2", "score": 1},
    {"instruction": "B", "generation": "Same.", "model_name": "m2", "score": 4},
    {"instruction": "A", "generation": "The tide comes once a day.", "model_name": "m2", "score": 5},
    {"instruction": "C", "generation": "Another.", "model_name": "m2", "score": 1},
    {"instruction": "only there", "generation": "y", "model_name": "m2", "score": 1},
    {"instruction": "C", "generation": "Third.", "model_name": "m2", "score": 1},
]


def whole_page(client: TestClient, address: str) -> str:
    """A page, once everything on it is known."""
    while 'http-equiv="refresh"' in (page := client.get(address).text):
        pass
    return page


def test_rows_of_the_same_prompts_are_paired_whatever_their_order_and_what_changed_is_marked(
    tmp_path: Path, look: Callable[..., TestClient]
) -> None:
    client = look(write_lines(tmp_path / "one.jsonl", ONE), write_lines(tmp_path / "other.jsonl", OTHER))

    page = whole_page(client, "/compare")

    assert re.findall(r"<b>(\d+)</b> ([a-zA-Z ]+)</a>", page) == [
        ("2", "changed"),
        ("2", "the same"),
        ("1", "only in A"),
        ("2", "only in B"),
    ]
    changes = re.findall(r"<(del|ins)>(.*?)</\1>", page)
    assert changes[:2] == [("del", "twice "), ("ins", "once ")]
    assert ("del", "3") in changes and ("ins", "5") in changes
    assert ("del", "Second") in changes and ("ins", "Another") in changes
    assert ("del", "First") not in changes
    assert "only here" in whole_page(client, "/compare?show=only_in_one")
    assert re.findall(r"Row (\d+)</a>", whole_page(client, "/compare?show=only_in_other")) == ["4", "5"]
    assert re.findall(r"Row (\d+)</a>", whole_page(client, "/compare?show=equal")) == ["1", "1", "2", "0"]


def test_two_are_compared_by_what_is_asked_for_or_by_what_the_run_says_came_with_its_source(
    tmp_path: Path, storage: Path, look: Callable[..., TestClient]
) -> None:
    rows = [{"number": n, "generation": f"Text {n}"} for n in range(3)]
    one, other = (write_lines(tmp_path / f"{name}.jsonl", rows) for name in ("one", "other"))

    with pytest.raises(ViewError, match="name one or more with --on. Both have number, generation"):
        look(one, other)
    with pytest.raises(ViewError, match="expected columns that both datasets have, got 'text'"):
        look(one, other, on=["text"])
    assert "Rows of the same number." in whole_page(look(one, other, on=["number"]), "/compare")
    made = DatasetResult("gen", 3, saved=str(one), prompts=["number"])
    write_result(storage_at(), RunResult("2f" * 16, "numbers", "numbers", datasets=[made]))
    assert "Rows of the same number." in whole_page(look(one, other), "/compare")


# What is looked at


def test_a_folder_of_several_datasets_has_a_tab_for_each(tmp_path: Path, look: Callable[..., TestClient]) -> None:
    train, test = (HubDataset.from_list([{"text": f"{name} {n}"} for n in range(3)]) for name in ("train", "test"))
    pairs = HubDataset.from_list([{"chosen": "a", "rejected": "b"}])
    SaveToDisk(path=str(tmp_path / "disk")).save(DatasetDict({"train": train, "test": test}), "# Rows")
    SaveToFiles(path=str(tmp_path / "files"), rows_per_file=2).save(
        DatasetDict({"texts": train, "pairs": pairs}), "# R"
    )

    names = {
        folder: [(each.name, len(each.table)) for each in opened(str(tmp_path / folder), storage_at())]
        for folder in ("disk", "files")
    }

    assert names == {"disk": [("test", 3), ("train", 3)], "files": [("pairs", 1), ("texts", 3)]}
    client = look(tmp_path / "files")
    assert re.findall(r'<a href="([^"]+)" title', client.get("/rows").text) == ["/rows", "/rows?data=1"]
    assert "train 2" in client.get("/row?data=1&at=2").text


def test_files_of_others_are_read_too(tmp_path: Path, look: Callable[..., TestClient]) -> None:
    table = pa.table({"text": [f"Row {n}" for n in range(5000)], "n": range(5000)})
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=700)
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=1300)
    (tmp_path / "marked.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "Row 0"}\r\n\r\n{"text": "Row 1", "more": {}}')
    (tmp_path / "quoted.csv").write_text('text,n\n"Two\nlines, ""quoted""",007\n\nRow 1,4\n', encoding="utf-8")

    for name in ("file.arrow", "groups.parquet"):
        client = look(tmp_path / name)
        for number in (0, 2999, 1300, 699, 4999):
            assert f"Row {number}<" in client.get(f"/row?at={number}").text
        assert all_numbers(client, "/rows?least.n=1299&most.n=1301&q=row") == [1299, 1300, 1301]
    assert all_numbers(look(tmp_path / "marked.jsonl"), "/rows") == [0, 1]
    page = look(tmp_path / "quoted.csv").get("/row").text
    assert "Two\nlines, &#34;quoted&#34;" in page and ">007<" in page.replace("</span> ", "</span>").replace(
        " 007", ">007"
    )
    assert "Row 1" in look(tmp_path / "quoted.csv").get("/row?at=1").text


def test_a_run_is_found_by_its_name_and_the_beginning_of_its_id_and_the_last_of_a_name_is_meant(
    made: HubDataset, places: dict[str, str], storage: Path
) -> None:
    kept = str(Path(made.cache_files[0]["filename"]).parent)
    for run, ended, folder, saved in (("aa11bb", 1.0, kept, ""), ("bb22cc", 2.0, "/gone", places["parquet"])):
        result = DatasetResult("ode", COUNT, folder=folder, saved=saved)
        write_result(storage_at(), RunResult(run * 5, "odes, 45 rows", "odes", ended=ended, datasets=[result]))

    by_name, by_id = opened("odes, 45 rows", storage_at())[0], opened("aa11bb", storage_at())[0]

    assert (by_name.origin, len(by_name.table)) == ("odes, 45 rows (bb22ccbb)", COUNT)
    assert (by_id.origin, len(by_id.table)) == ("odes, 45 rows (aa11bbaa)", COUNT)
    assert by_id.files[0].suffix == ".arrow"
    with pytest.raises(ViewError, match=r"no file or folder 'odd'.* Its last runs: 'odes, 45 rows' \(bb22ccbb\);"):
        opened("odd", storage_at())


def test_a_runs_datasets_are_kept_together_and_those_of_its_retry_take_their_place(storage: Path) -> None:
    for name, rows in (("a", 1), ("b", 2), ("a", 3)):
        write_result(storage_at(), RunResult("run", "n", "f", datasets=[DatasetResult(name, rows)]))

    found = json.loads((storage / "results" / "run.json").read_text())["datasets"]

    assert [(each["name"], each["rows"]) for each in found] == [("a", 3), ("b", 2)]


WRONG = {
    "/row?at=45": (404, "there&#39;s no row 45: disk has 45, counted from 0"),
    "/row?at=-1": (400, "expected a whole number as &#39;at&#39;, got &#39;-1&#39;"),
    "/rows?data=3": (404, "there&#39;s no dataset 3"),
    "/rows?state=odd": (400, "expected one of failed, fine, cut_off, unfinished, asked as the state"),
    "/rows?least.score=x": (400, "expected a number as &#39;least.score&#39;, got &#39;x&#39;"),
    "/compare": (404, "give two to compare them"),
    "/nothing-here": (404, "/nothing-here: Not Found"),
}


@pytest.mark.parametrize("address", WRONG)
def test_a_wrong_address_is_told_what_is_wrong_with_it(
    address: str, places: dict[str, str], look: Callable[..., TestClient]
) -> None:
    answer = look(places["disk"]).get(address)

    assert (answer.status_code, WRONG[address][1] in answer.text) == (WRONG[address][0], True)
    assert '<a href="/rows"' in answer.text


class Broken(Table):
    """Rows of which none can be looked through."""

    columns = ("text",)

    def __len__(self) -> int:
        return 1

    def take(self, places: Sequence[int]) -> list[Row]:
        return [{"text": "There"} for _ in places]

    def scan(self, columns: Sequence[str]) -> Iterator[Batch]:
        raise RuntimeError("the <disk> is gone")


def test_a_search_that_fails_is_told_on_a_page_with_the_ways_out() -> None:
    dataset = Dataset("rows", [], "rows")
    dataset.table = Broken()
    app = viewer_app(Viewer([[dataset]]))
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)

    answer = client.get("/rows?q=there")

    assert (answer.status_code, "RuntimeError: the &lt;disk&gt; is gone" in answer.text) == (500, True)
    assert '<a href="/rows"' in answer.text and '<a href="/">' in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.get("/rows").status_code == 200


def test_what_cant_be_looked_at_ends_in_one_clear_message(tmp_path: Path, storage: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a":\n')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    (tmp_path / "picture.png").write_bytes(b"")
    for name, said in {
        "empty": "holds no Parquet, Arrow, JSON Lines, JSON or CSV files",
        "nothing": "there's no file or folder",
        "broken.jsonl": "row 1 isn't JSON",
        "broken.parquet": "can't be read",
        "picture.png": "is no .parquet, .arrow, .jsonl, .json or .csv file",
    }.items():
        done = CliRunner().invoke(main, ["view", str(tmp_path / name)])

        assert (done.exit_code, said in done.output) == (1, True), done.output
        assert len(done.output.splitlines()) == 1


class Gated(Table):
    """Rows of which a scan gives some, and the others when it may."""

    columns = ("text",)

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __len__(self) -> int:
        return 100

    def take(self, places: Sequence[int]) -> list[Row]:
        return [{"text": f"Row {place}"} for place in places]

    def scan(self, columns: Sequence[str]) -> Iterator[Batch]:
        yield RowBatch(0, self.take(range(50)))
        self.gate.wait()
        yield RowBatch(50, self.take(range(50, 100)))


def test_what_steps_note_is_looked_for_where_they_note_it() -> None:
    assert METADATA == steps.METADATA


def test_the_pages_need_no_package_that_takes_long_to_import() -> None:
    code = "import sys, flows.cli, flows.viewing.pages, flows.viewing.serving; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert {"prefect", "datasets", "tasks", "openai", "pandas", "fsspec"} & set(done.stdout.split()) == set()


def test_what_was_found_so_far_is_shown_while_the_other_rows_are_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Gated()
    dataset = Dataset("rows", [], "rows")
    dataset.table = table
    client = TestClient(viewer_app(Viewer([[dataset]])), base_url="http://localhost")

    def page_of_the_first_50() -> str | None:
        page = client.get("/rows?q=row 4").text
        return page if "in the first 50 rows" in page else None

    with monkeypatch.context() as patch:
        patch.setattr("flows.viewing.pages.PATIENCE", 0.05)
        few = wait_for(page_of_the_first_50, what="what the first rows have", pause=0.02)
    many = client.get("/rows?q=row").text

    assert numbers_on(few) == [4, *range(40, 50)]
    assert few.count("<mark>Row 4</mark>") == 11
    assert "11 found in the first 50 rows" in few and 'http-equiv="refresh"' in few
    assert len(numbers_on(many)) == ROWS_PER_PAGE and 'http-equiv="refresh"' not in many
    table.gate.set()
    assert "11 rows found" in whole_page(client, "/rows?q=row 4")


def test_what_a_run_made_is_read_back_as_it_was_written(storage: Path) -> None:
    asked = {"step": AskedModel("m", "https://api.openai.com/v1", 0.5)}
    result = RunResult("r", "n", "f", 1.0, [DatasetResult("d", 1, "/folder", "/saved", ["p"])], asked)

    write_result(Storage(str(storage)), result)

    assert list(results(Storage(str(storage)))) == [result]
