"""Savers, to real folders, to a file system in memory, and to a Hub on loopback."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from pydantic import TypeAdapter, ValidationError

from tasks.registry import Target
from tasks.sources.loaders import LoadDataFromDisk, LoadDataFromFileSystem
from tasks.steps import GeneratorStep
from tasks.targets.argilla import TextGenerationToArgilla
from tasks.targets.places import TargetError
from tasks.targets.savers import PathSaver, PushToHub, Saver, SaveToDisk, SaveToFiles
from tasks.typing import Row
from tests.conftest import LONGEST

ROWS: list[Row] = [{"n": number, "text": f"row {number}", "tags": ["a", str(number)]} for number in range(5)]
CARD = "---\nlicense: mit\ntags:\n- synthetic\n---\n\n# Rows\n"


@pytest.fixture
def dataset() -> Dataset:
    return Dataset.from_list(ROWS)


def rows_of(loader: GeneratorStep) -> list[Row]:
    return [row for rows, _ in loader.process() for row in rows]


def names_in(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


def card_of(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text().split("---")[1])


# Folders of `save_to_disk`


def test_a_dataset_saved_to_disk_is_loaded_back_and_has_its_card(tmp_path: Path, dataset: Dataset) -> None:
    saver = SaveToDisk(path=str(tmp_path / "new" / "d"))
    saver.check()
    location = saver.save(dataset, CARD)
    assert location == str(tmp_path / "new" / "d")
    assert load_from_disk(location).to_list() == ROWS
    assert rows_of(LoadDataFromDisk(dataset_path=location)) == ROWS
    assert (tmp_path / "new" / "d" / "README.md").read_text().endswith("\n# Rows\n")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["d"]


def test_several_datasets_are_saved_in_one_folder(tmp_path: Path, dataset: Dataset) -> None:
    other = Dataset.from_dict({"score": [1.5]})
    location = SaveToDisk(path=str(tmp_path / "d")).save(DatasetDict({"step-1": dataset, "step-2": other}), CARD)
    assert rows_of(LoadDataFromDisk(dataset_path=location, split="step-2")) == [{"score": 1.5}]


def test_a_dataset_read_from_the_folder_that_it_is_saved_to_is_whole(tmp_path: Path, dataset: Dataset) -> None:
    saver = SaveToDisk(path=str(tmp_path / "d"))
    more = load_from_disk(saver.save(dataset, CARD)).add_column("more", list(range(5)))
    assert load_from_disk(saver.save(more, CARD)).to_list() == more.to_list()


# Files


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_a_file_of_any_type_is_loaded_back_as_it_was(tmp_path: Path, dataset: Dataset, name: str) -> None:
    saver = SaveToFiles(path=str(tmp_path / name))
    saver.check()
    location = saver.save(dataset, CARD)
    assert rows_of(LoadDataFromFileSystem(data_files=location)) == ROWS
    assert names_in(tmp_path) == sorted(["a.README.md", name])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_holds_lists_and_dicts_as_json(tmp_path: Path, name: str) -> None:
    rows = [{"n": 1, "text": 'two\nlines, "quoted"', "tags": ["ä"], "meta": {"x": None}}, {"n": None, "text": None}]
    location = SaveToFiles(path=str(tmp_path / name)).save(Dataset.from_list(rows), CARD)
    assert rows_of(LoadDataFromFileSystem(data_files=location)) == [
        {"n": 1, "text": 'two\nlines, "quoted"', "tags": '["ä"]', "meta": '{"x":null}'},
        {"n": None, "text": None, "tags": None, "meta": None},
    ]


@pytest.mark.parametrize("text", ["a\rb", "\r", "a\r\nb", "\n", '"', ",", " a "])
def test_a_text_is_one_cell_of_csv_whatever_is_in_it(tmp_path: Path, text: str) -> None:
    rows = [{"n": 1, f"column {text}": text}, {"n": 2, f"column {text}": "b"}]
    location = SaveToFiles(path=str(tmp_path / "a.csv")).save(Dataset.from_list(rows), CARD)
    assert rows_of(LoadDataFromFileSystem(data_files=location)) == rows


def test_json_keeps_every_digit_every_letter_and_what_it_has_no_form_for(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 1, 2, 3, 4, 5)
    row = {"f": 0.1 + 0.2, "i": 2**60, "s": "ä/\u2028", "b": b"\xff\x00", "t": day, "n": None}
    SaveToFiles(path=str(tmp_path / "a.jsonl")).save(Dataset.from_list([row]), CARD)
    written = json.loads((tmp_path / "a.jsonl").read_text())
    assert written == {**row, "b": base64.b64encode(b"\xff\x00").decode(), "t": "2026-01-02T03:04:05"}
    assert "ä/" in (tmp_path / "a.jsonl").read_text()


def test_an_empty_dataset_is_saved_with_its_columns(tmp_path: Path) -> None:
    empty = Dataset.from_dict({"n": []})
    SaveToFiles(path=str(tmp_path / "a.json")).save(empty, CARD)
    SaveToFiles(path=str(tmp_path / "a.csv")).save(empty, CARD)
    SaveToFiles(path=str(tmp_path / "a.parquet")).save(empty, CARD)
    assert json.loads((tmp_path / "a.json").read_text()) == []
    assert (tmp_path / "a.csv").read_text() == "n\n"
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["n"]


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "json", "csv"])
def test_a_folder_of_files_is_opened_by_load_dataset(tmp_path: Path, dataset: Dataset, file_format: Any) -> None:
    saver = SaveToFiles(path=str(tmp_path / "d"), file_format=file_format, rows_per_file=2)
    saver.check()
    location = saver.save(dataset, CARD)
    files = [f"data/train-0000{number}-of-00003.{file_format}" for number in range(3)]
    assert names_in(tmp_path / "d") == ["README.md", *files]
    opened = load_dataset(location, split="train", cache_dir=str(tmp_path / "cache"))
    assert opened["n"][:] == [0, 1, 2, 3, 4]
    assert [row["text"] for row in rows_of(LoadDataFromFileSystem(data_files=location))] == dataset["text"][:]


def test_datasets_with_equal_columns_are_splits_and_others_configurations(tmp_path: Path, dataset: Dataset) -> None:
    cache = str(tmp_path / "cache")
    splits = DatasetDict({"train": dataset.select([0, 1]), "hard.test": dataset.select([2])})
    location = SaveToFiles(path=str(tmp_path / "splits")).save(splits, CARD)
    assert len(load_dataset(location, split="hard.test", cache_dir=cache)) == 1
    leaves = DatasetDict({"step-1": dataset, "step-2": Dataset.from_dict({"score": [1.5]})})
    location = SaveToFiles(path=str(tmp_path / "leaves")).save(leaves, CARD)
    assert load_dataset(location, "step-2", split="train", cache_dir=cache).to_list() == [{"score": 1.5}]
    assert card_of(Path(location) / "README.md")["license"] == "mit"


def test_several_datasets_under_a_file_name_get_a_file_each(tmp_path: Path, dataset: Dataset) -> None:
    both = DatasetDict({"train": dataset.select([0]), "test": dataset.select([1])})
    location = SaveToFiles(path=str(tmp_path / "a.jsonl")).save(both, CARD)
    assert location == str(tmp_path / "a-*.jsonl")
    assert names_in(tmp_path) == ["a-test.jsonl", "a-train.jsonl", "a.README.md"]
    assert rows_of(LoadDataFromFileSystem(data_files=location)) == [ROWS[1], ROWS[0]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"path": "a.jsonl", "file_format": "csv"}, "doesn't end as file_format='csv'"),
        ({"path": "a.csv", "rows_per_file": 2}, "is one file, but rows_per_file=2"),
        ({"path": "a.parquet.gz"}, "a.parquet.gz"),
        ({"path": "a.jsonl.xz"}, "can be written"),
        ({"path": ""}, "is empty"),
        ({"path": "nosuch://bucket/a"}, "nosuch"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_the_check(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(TargetError, match=expected):
        SaveToFiles(**fields).check()


# What is there already


SAVERS: list[tuple[type[PathSaver], str]] = [(SaveToDisk, "d"), (SaveToFiles, "d"), (SaveToFiles, "a.jsonl")]


@pytest.mark.parametrize(("kind", "name"), SAVERS)
def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(
    tmp_path: Path, dataset: Dataset, kind: type[PathSaver], name: str
) -> None:
    saver = kind(path=str(tmp_path / name))
    saver.save(dataset, CARD)
    first = names_in(tmp_path)
    saver.check()
    saver.save(dataset.select([4]), CARD)
    assert names_in(tmp_path) == first
    loader = LoadDataFromDisk if kind is SaveToDisk else LoadDataFromFileSystem
    field = "dataset_path" if kind is SaveToDisk else "data_files"
    assert rows_of(loader(**{field: str(tmp_path / name)})) == [ROWS[4]]


@pytest.mark.parametrize(("kind", "name"), SAVERS)
def test_without_overwrite_a_target_that_is_there_is_refused_before_anything_is_made(
    tmp_path: Path, dataset: Dataset, kind: type[PathSaver], name: str
) -> None:
    saver = kind(path=str(tmp_path / name), overwrite=False)
    saver.check()
    saver.save(dataset, CARD)
    with pytest.raises(TargetError, match="there already and overwrite=False"):
        saver.check()
    with pytest.raises(TargetError, match="there already"):
        saver.save(dataset, CARD)


@pytest.mark.parametrize("kind", [SaveToDisk, SaveToFiles])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, dataset: Dataset, kind: type[PathSaver]) -> None:
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "work.csv").write_text("n\n1\n")
    saver = kind(path=str(tmp_path))
    for attempt in (saver.check, lambda: saver.save(dataset, CARD)):
        with pytest.raises(TargetError, match="isn't a dataset of the kind"):
            attempt()
    assert names_in(tmp_path) == ["README.md", "work.csv"]


@pytest.mark.parametrize(("kind", "name"), SAVERS)
def test_an_empty_folder_is_a_place_like_any_other(
    tmp_path: Path, dataset: Dataset, kind: type[PathSaver], name: str
) -> None:
    (tmp_path / name).mkdir()
    saver = kind(path=str(tmp_path / name), overwrite=False)
    if name == "d":
        saver.check()
        saver.save(dataset, CARD)
    else:
        with pytest.raises(TargetError, match="is a folder"):
            saver.check()


@pytest.mark.parametrize(("kind", "name"), SAVERS)
def test_a_save_that_fails_leaves_the_old_dataset_and_no_rest(
    tmp_path: Path, dataset: Dataset, kind: type[PathSaver], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = kind(path=str(tmp_path / name))
    saver.save(dataset, CARD)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "save_to_disk", full)
    monkeypatch.setattr("tasks.targets.files.json_text", full)
    monkeypatch.setattr("tasks.targets.files.write_parquet", full)
    with pytest.raises(TargetError, match="No space left on device; free some space"):
        saver.save(dataset, CARD)
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_a_path_that_cannot_be_written_is_found_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for saver in (SaveToDisk(path=f"{tmp_path}/file/d"), SaveToFiles(path=f"{tmp_path}/file/a.jsonl")):
        with pytest.raises(TargetError, match="can't write to"):
            saver.check()
    with pytest.raises(TargetError, match="isn't a dataset"):
        SaveToDisk(path=f"{tmp_path}/file").check()


@pytest.mark.parametrize(
    ("saver", "filled"),
    [
        (SaveToDisk(path="weekly/{date}"), {"path": "weekly/2026-11-30"}),
        (SaveToFiles(path="s3://b/{date}/{run}.jsonl"), {"path": "s3://b/2026-11-30/1a2b3c4d.jsonl"}),
        (SaveToFiles(path="plain"), {"path": "plain"}),
        (PushToHub(repo_id="me/weekly-{date}"), {"repo_id": "me/weekly-2026-11-30"}),
        (PushToHub(repo_id="me/d", config_name="{date}", revision="{run}"), {"config_name": "2026-11-30"}),
        (TextGenerationToArgilla(dataset_name="look-{date}"), {"dataset_name": "look-2026-11-30"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_day_and_the_run_are_filled_in_where_a_target_says_where_to(saver: Saver, filled: dict[str, str]) -> None:
    before = saver.model_dump()

    placed = saver.of_run(date="2026-11-30", run="1a2b3c4d")

    assert {name: getattr(placed, name) for name in filled} == filled
    assert saver.model_dump() == before


def test_what_cannot_be_filled_in_is_refused_with_what_can() -> None:
    with pytest.raises(
        TargetError, match=r"^\{day\} in the target of 'save_to_disk' is not known; there are \{date\} and \{run\}"
    ):
        SaveToDisk(path="weekly/{day}").of_run(date="2026-11-30", run="1a2b3c4d")


def test_a_relative_path_and_a_link_lead_where_they_point(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert SaveToDisk(path="link").save(dataset, CARD) == str(tmp_path / "real")
    assert (tmp_path / "link").is_symlink()
    assert load_from_disk("link").to_list() == ROWS


def test_an_fsspec_address_is_saved_to_and_replaced_like_a_folder(dataset: Dataset) -> None:
    memory = fsspec.filesystem("memory")
    for kind, name in SAVERS:
        address = f"memory://savers/{kind.__name__}/{name}"
        saver = kind(path=address)
        for rows in (dataset, dataset.select([1])):
            saver.check()
            location = saver.save(rows, CARD)
        loader = (
            LoadDataFromDisk(dataset_path=address) if kind is SaveToDisk else LoadDataFromFileSystem(data_files=address)
        )
        assert rows_of(loader) == [ROWS[1]]
        assert location.endswith(f"savers/{kind.__name__}/{name}")
        assert not [each for each in memory.find(f"/savers/{kind.__name__}") if "/." in each]
        with pytest.raises(TargetError, match="there already"):
            kind(path=address, overwrite=False).check()


# Fields of a flow


def test_a_target_is_read_from_a_form_by_its_kind_and_goes_back() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Target)
    target = adapter.validate_python({"kind": "disk", "path": "d", "overwrite": False})
    assert target == SaveToDisk(path="d", overwrite=False)
    assert adapter.validate_python(adapter.dump_python(target, mode="json")) == target
    with pytest.raises(ValidationError, match="disk"):
        adapter.validate_python({"kind": "disc"})


def test_a_token_is_neither_shown_nor_stored_nor_part_of_an_identity() -> None:
    saver = PushToHub(repo_id="me/rows", token="hf_secret")  # pyright: ignore[reportArgumentType]
    told = [
        saver.model_dump_json(),
        json.dumps(saver.identity()),
        repr(saver),
        json.dumps(PushToHub.model_json_schema()),
    ]
    assert not [text for text in told if "hf_secret" in text]
    assert "token" not in PushToHub.model_json_schema()["properties"]


def test_a_saver_in_a_pipeline_passes_rows_on() -> None:
    assert SaveToDisk(path="d").apply(ROWS) == ROWS


# The Hub


@dataclass
class FakeHub:
    """As much of the Hub as pushing and loading need. One user, `me`, with the token `hf_write`."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    commits: list[str] = field(default_factory=list[str])
    private: bool | None = None

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()

    def info(self) -> Row:
        siblings = [{"rfilename": name} for name in self.files]
        return {"id": "me/rows", "sha": self.sha, "siblings": siblings, "private": False, "tags": [], "downloads": 0}

    def tree(self, folder: str = "", *, recursive: bool = True) -> list[Row]:
        folders = {"/".join(name.split("/")[:depth]) for name in self.files for depth in range(1, name.count("/") + 1)}
        entries = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
        entries += [
            {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
            for name, content in self.files.items()
        ]
        start = f"{folder}/" if folder else ""
        within = [each for each in entries if each["path"].startswith(start)]
        return [each for each in within if recursive or "/" not in each["path"].removeprefix(start)]

    def commit(self, lines: list[Row]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]
            else:
                self.files.pop(value["path"], None)


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.respond(b"")

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self.respond(self.rfile.read(int(self.headers["Content-Length"] or 0)))

        def do_PUT(self) -> None:
            self.do_POST()

        def respond(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path)
            token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
            if path == "/api/whoami-v2":
                users = {"hf_write": "write", "hf_read": "read"}
                account = {"type": "user", "name": "me", "orgs": [{"name": "ours", "roleInOrg": "write"}]}
                auth = {"accessToken": {"role": users.get(token)}}
                return self.give({**account, "auth": auth}) if token in users else self.fail(401, "")
            if path == "/api/repos/create":
                hub.private = json.loads(body).get("visibility") == "private"
                hub.commits.append("initial commit")
                return self.give({"url": f"http://{self.headers['Host']}/datasets/me/rows", "name": "me/rows"})
            if path == "/api/validate-yaml":
                return self.give({"errors": [], "warnings": []})
            if path.startswith("/objects/"):
                hub.objects[path.rpartition("/")[2]] = body
                return self.give({})
            if "me/rows" not in path or not hub.commits:
                return self.fail(404, "RepoNotFound")
            return self.respond_for_repository(path, body)

        def respond_for_repository(self, path: str, body: bytes) -> None:
            base = f"http://{self.headers['Host']}"
            _, _, action = path.partition("me/rows")
            if action.endswith("/info/lfs/objects/batch"):
                wanted = json.loads(body)["objects"]
                given = [{**each, "actions": {"upload": {"href": f"{base}/objects/{each['oid']}"}}} for each in wanted]
                return self.give({"transfer": "basic", "objects": given})
            if action.startswith("/preupload/"):
                modes = {True: "lfs", False: "regular"}
                files = [
                    {
                        "path": each["path"],
                        "uploadMode": modes[each["path"].endswith(".parquet")],
                        "shouldIgnore": False,
                    }
                    for each in json.loads(body)["files"]
                ]
                return self.give({"files": files})
            if action.startswith("/commit/"):
                hub.commit([json.loads(line) for line in body.splitlines()])
                url = f"{base}/datasets/me/rows/commit/{hub.sha}"
                return self.give({"success": True, "commitOid": hub.sha, "commitUrl": url})
            if action.startswith("/tree/"):
                folder = action.split("/", 3)[3] if action.count("/") > 2 else ""
                found = hub.tree(folder, recursive="recursive=True" in self.path or "recursive=true" in self.path)
                return self.give(found) if found or not folder else self.fail(404, "EntryNotFound")
            if action.startswith("/paths-info/"):
                wanted = parse_qs(body.decode()).get("paths") if body[:1] != b"{" else json.loads(body)["paths"]
                return self.give([each for each in hub.tree() if each["path"] in (wanted or [])])
            if action.startswith("/resolve/"):
                name = action.split("/", 3)[3]
                return self.give_file(hub.files[name]) if name in hub.files else self.fail(404, "EntryNotFound")
            if action.startswith("/branch/"):
                return self.give({})
            return self.give(hub.info())

        def give(self, answer: Any) -> None:
            self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def give_file(self, content: bytes) -> None:
            tag = hashlib.sha1(content).hexdigest()
            first, _, last = (self.headers["Range"] or "").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None] if first else content
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": hub.sha, "Accept-Ranges": "bytes"}
            if first:
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            self.send(206 if first else 200, part, headers)

        def fail(self, status: int, code: str) -> None:
            self.send(status, b"", {"X-Error-Code": code})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def hub() -> Iterator[tuple[FakeHub, str]]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield hub, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run_with_hub(home: Path, address: str, code: str, **environment: str) -> list[str]:
    """Runs code in a process of its own: `huggingface_hub` reads its environment when it's imported."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "HF_HOME": str(home),
            "HF_ENDPOINT": address,
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": ".",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


PUSH = """
from datasets import Dataset, DatasetDict
from tasks.sources.loaders import LoadDataFromHub
from tasks.targets.savers import PushToHub
card = "---\\nsize_categories:\\n- n<1K\\ntags:\\n- synthetic\\n---\\n\\n# Rows\\n"
saver = PushToHub(repo_id="me/rows", private=True)
saver.check()
print(saver.save(Dataset.from_list([{"n": 1}, {"n": 2}]), card))
print(saver.save(Dataset.from_list([{"n": 3}]), card))
saver.save(DatasetDict({"step-1": Dataset.from_dict({"a": ["x"]}), "step-2": Dataset.from_dict({"b": [1]})}), card)
loader = LoadDataFromHub(repo_id="me/rows")
print(sorted(loader.columns()), next(loader.process()))
print(next(LoadDataFromHub(repo_id="me/rows", config="step-2", streaming=True).process()))
for wrong in ({"split": "dev"}, {"config": "none"}):
    try:
        next(LoadDataFromHub(repo_id="me/rows", **wrong).process())
    except ValueError as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""


def test_a_pushed_dataset_is_loaded_back_with_its_card(tmp_path: Path, hub: tuple[FakeHub, str]) -> None:
    there, address = hub
    lines = run_with_hub(tmp_path, address, PUSH, HF_TOKEN="hf_write")
    assert lines[:2] == [f"{address}/datasets/me/rows"] * 2
    assert lines[2:4] == ["['n'] ([{'n': 3}], True)", "([{'b': 1}], True)"]
    assert lines[4].startswith("SourceError dataset 'me/rows' of the Hub can't be read with split='dev'")
    assert "['train']" in lines[4]
    assert "step-1" in lines[5]
    assert there.private is True
    readme = there.files["README.md"].decode()
    assert readme.endswith("\n# Rows\n")
    header = yaml.safe_load(readme.split("---")[1])
    assert header["tags"] == ["synthetic", "stillflow"]
    assert {each["config_name"] for each in header["configs"]} == {"default", "step-1", "step-2"}
    assert {each["config_name"] for each in header["dataset_info"]} == {"default", "step-1", "step-2"}


REFUSE = """
from tasks.targets.savers import PushToHub, TargetError
import os
for fields in ({"repo_id": "me/rows"}, {"repo_id": "ours/rows"}, {"repo_id": "me/rows", "overwrite": False},
               {"repo_id": "other/rows"}, {"repo_id": "me/rows", "token": "hf_read"},
               {"repo_id": "me/rows", "token": "hf_wrong"}, {"repo_id": "a b"}, {"repo_id": "me/rows", "split": "a-b"}):
    try:
        PushToHub(**fields).check()
        print("may push")
    except TargetError as error:
        print(error)
del os.environ["HF_TOKEN"]
try:
    PushToHub(repo_id="me/rows").check()
except TargetError as error:
    print(error)
"""


def test_what_cannot_be_pushed_is_refused_by_the_check(tmp_path: Path, hub: tuple[FakeHub, str]) -> None:
    there, address = hub
    there.commits.append("there already")
    expected: list[Callable[[str], bool]] = [
        lambda line: line == "may push",
        lambda line: line == "may push",
        lambda line: "overwrite=False" in line,
        lambda line: "'me' can't write there; choose one of me/rows, ours/rows" in line,
        lambda line: "may only read" in line,
        lambda line: "the token is refused; set HF_TOKEN" in line,
        lambda line: "expected owner/name" in line and "'a b'" in line,
        lambda line: "expected a name such as train, got 'a-b'" in line,
        lambda line: "no token; set HF_TOKEN" in line,
    ]
    lines = run_with_hub(tmp_path, address, REFUSE, HF_TOKEN="hf_write")
    assert [line for line, fits in zip(lines, expected, strict=True) if not fits(line)] == []
    assert there.files == {}


def test_a_hub_that_cannot_be_reached_is_found_by_the_check(tmp_path: Path) -> None:
    code = "from tasks.targets.savers import PushToHub, TargetError\ntry:\n    PushToHub(repo_id='me/rows').check()\n"
    code += "except TargetError as error:\n    print(error)\n"
    (line,) = run_with_hub(tmp_path, "http://127.0.0.1:9", code, HF_TOKEN="hf_write")
    assert "dataset 'me/rows' of the Hub can't be reached" in line
