"""Savers to Argilla, by its own client, to a server on loopback."""

from __future__ import annotations

import json
import logging
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from pydantic import TypeAdapter

from tasks.registry import Target
from tasks.steps import METADATA
from tasks.targets.argilla import ArgillaSaver, PreferenceToArgilla, TextGenerationToArgilla
from tasks.targets.places import TargetError
from tasks.typing import Row

FAILURE = {"type": "UnreadableAnswerError", "message": "no", "retryable": False}
TEXTS: list[Row] = [{"instruction": f"Tell of tide {number}.", "generation": f"It's {number}."} for number in range(3)]
RATED: list[Row] = [
    {
        "instruction": "How high is K2?",
        "generations": ["High.", "8,611 m."],
        "ratings": [2, 5],
        "rationales": ["No number.", "Right."],
    }
]

TIMES = {"inserted_at": "2026-01-01T00:00:00", "updated_at": "2026-01-01T00:00:00"}


@dataclass
class FakeArgilla:
    """As much of Argilla as its client needs to make a dataset and to send records."""

    workspaces: list[Row] = field(default_factory=lambda: [{"id": str(uuid.uuid4()), "name": "tides", **TIMES}])
    datasets: dict[str, Row] = field(default_factory=dict[str, Row])
    fields: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    questions: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    records: dict[str, dict[str, Row]] = field(default_factory=dict[str, dict[str, Row]])
    """By dataset and external id."""
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refuse_bulk_from: int | None = None
    """The bulk request from which on the server has a fault."""

    def answer(self, method: str, path: str, body: Any, role: str) -> tuple[int, Any]:
        self.requests.append((method, path))
        parts = path.removeprefix("/api/v1/").split("/")
        if parts == ["me"]:
            return 200, {"id": str(uuid.uuid4()), "username": "ada", "role": role}
        if parts == ["me", "workspaces"]:
            return 200, {"items": self.workspaces}
        if parts[0] == "workspaces":
            return 200, next(each for each in self.workspaces if each["id"] == parts[1])
        if parts == ["me", "datasets"]:
            return 200, {"items": list(self.datasets.values())}
        if "vectors-settings" in parts or "metadata-properties" in parts:
            return 200, {"items": []}
        if parts == ["datasets"]:
            made = {**body, "id": str(uuid.uuid4()), "status": "draft"}
            self.datasets[made["id"]] = made
            self.fields[made["id"]], self.questions[made["id"]], self.records[made["id"]] = [], [], {}
            return 201, made
        return self.answer_for_dataset(method, parts[1], parts[2:], body)

    def answer_for_dataset(self, method: str, key: str, parts: list[str], body: Any) -> tuple[int, Any]:
        if key not in self.datasets:
            return 404, {"detail": "no such dataset"}
        if parts in (["fields"], ["questions"]):
            stored = (self.fields if parts == ["fields"] else self.questions)[key]
            if method == "POST":
                stored.append({**body, "id": str(uuid.uuid4()), "dataset_id": key})
                return 201, stored[-1]
            return 200, {"items": stored}
        if parts == ["records", "bulk"]:
            return self.upsert(key, body["items"])
        if method == "DELETE":
            return 200, self.datasets.pop(key)
        self.datasets[key] |= {"status": "ready"} if parts == ["publish"] else body or {}
        return 200, self.datasets[key]

    def upsert(self, key: str, items: list[Row]) -> tuple[int, Any]:
        bulks = sum(path.endswith("/bulk") for _, path in self.requests)
        if self.refuse_bulk_from is not None and bulks >= self.refuse_bulk_from:
            return 500, {"detail": "out of disk"}
        allowed = {each["name"] for each in self.fields[key]}
        ids = [each["external_id"] for each in items]
        for item in items:
            needed = {each["name"] for each in self.fields[key] if each["required"]}
            if not needed <= set(item["fields"]) <= allowed or None in item["fields"].values():
                return 422, {"detail": f"fields {sorted(item['fields'])}"}
        if len(set(ids)) < len(ids):
            return 422, {"detail": "found duplicate records IDs"}
        known = [each for each in ids if each in self.records[key]]
        self.records[key] |= dict(zip(ids, items, strict=True))
        made = [{**each, "id": str(uuid.uuid4()), "suggestions": [], "responses": []} for each in items]
        return 200, {"items": made, "updated_item_ids": [str(uuid.uuid4()) for _ in known]}

    def sent(self) -> list[Row]:
        (key,) = self.datasets
        return list(self.records[key].values())

    def suggestions(self, record: Row) -> Row:
        (key,) = self.datasets
        names = {each["id"]: each["name"] for each in self.questions[key]}
        return {names[each["question_id"]]: each["value"] for each in record["suggestions"]}


def handler_of(argilla: FakeArgilla) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            role = {"owner-key": "owner", "annotator-key": "annotator"}.get(self.headers["X-Argilla-Api-Key"] or "")
            status, answer = 401, {"detail": "unauthorized"}
            if role:
                status, answer = argilla.answer(self.command, self.path, json.loads(body) if body else None, role)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def argilla(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeArgilla]:
    running = FakeArgilla()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(running))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("ARGILLA_API_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("ARGILLA_API_KEY", "owner-key")
    yield running
    server.shutdown()


def saved(saver: ArgillaSaver, rows: list[Row]) -> str:
    saver.check()
    return saver.save(Dataset.from_list(rows), "# Card")


def texts(**options: Any) -> TextGenerationToArgilla:
    return TextGenerationToArgilla(dataset_name="stories", **options)


def test_texts_become_records_of_a_dataset_that_is_made_for_them(argilla: FakeArgilla) -> None:
    address = saved(texts(), TEXTS)
    ((key, dataset),) = argilla.datasets.items()
    assert address.endswith(f"/dataset/{key}/annotation-mode") and "//dataset" not in address
    assert (dataset["name"], dataset["status"]) == ("stories", "ready")
    assert dataset["workspace_id"] == argilla.workspaces[0]["id"]
    assert [each["name"] for each in argilla.fields[key]] == ["instruction", "generation"]
    (question,) = argilla.questions[key]
    assert [each["value"] for each in question["settings"]["options"]] == ["bad", "good"]
    assert [record["fields"] for record in argilla.sent()] == TEXTS


def test_a_row_that_cant_be_shown_is_left_out_and_told_of(
    argilla: FakeArgilla, caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[Row] = [
        {"instruction": "a", "generation": None, METADATA: None},
        {"instruction": "b", "generation": " "},
        {"instruction": None, "generation": "c"},
        {"instruction": "d", "generation": "d", METADATA: {"error_text_generation": FAILURE}},
    ]
    with caplog.at_level(logging.WARNING, "tasks.targets.argilla"):
        saved(texts(), [*bad[:2], *TEXTS, *bad[2:]])
    assert [record["fields"] for record in argilla.sent()] == TEXTS
    assert "left out 4 of 7 rows: 2 without a generation; 1 without instruction; 1 failed in text_generation" in (
        caplog.text
    )


def test_several_generations_of_a_row_are_a_record_each_and_none_twice(argilla: FakeArgilla) -> None:
    saved(
        texts(), [{"instruction": "a", "generation": ["x", None, "y", "x"]}, {"instruction": "a", "generation": ["y"]}]
    )
    assert [record["fields"]["generation"] for record in argilla.sent()] == ["x", "y"]


def test_rows_sent_again_are_updated_and_new_ones_added(argilla: FakeArgilla) -> None:
    first = saved(texts(), TEXTS[:2])
    second = saved(texts(), TEXTS)
    assert first == second
    assert [record["fields"] for record in argilla.sent()] == TEXTS
    assert len(argilla.datasets) == 1


def test_many_rows_go_in_several_requests(argilla: FakeArgilla, capfd: pytest.CaptureFixture[str]) -> None:
    saved(texts(), [{"instruction": f"i{number}", "generation": "g"} for number in range(601)])
    assert len(argilla.sent()) == 601
    assert sum(path.endswith("/bulk") for _, path in argilla.requests) == 3
    assert "Sending records" not in capfd.readouterr().err


def test_a_dataset_made_for_rows_that_cant_be_sent_is_taken_away(argilla: FakeArgilla) -> None:
    argilla.refuse_bulk_from = 2
    rows = [{"instruction": f"i{number}", "generation": "g"} for number in range(400)]
    with pytest.raises(TargetError, match="dataset 'stories' of Argilla .* can't be saved: .*out of disk"):
        saved(texts(), rows)
    assert argilla.datasets == {}


def test_a_dataset_that_was_there_stays_when_more_rows_cant_be_sent(argilla: FakeArgilla) -> None:
    saved(texts(), TEXTS[:1])
    argilla.refuse_bulk_from = 1
    with pytest.raises(TargetError, match="out of disk"):
        saved(texts(), TEXTS)
    assert [record["fields"] for record in argilla.sent()] == TEXTS[:1]


def test_without_a_row_to_show_nothing_is_made(argilla: FakeArgilla) -> None:
    with pytest.raises(TargetError, match="none of 1 row can be shown: 1 without a generation"):
        saved(texts(), [{"instruction": "a", "generation": None}])
    with pytest.raises(TargetError, match="none of 0 rows"):
        texts().save(Dataset.from_dict({"instruction": [], "generation": []}), "")
    assert argilla.datasets == {}


def test_splits_become_datasets_of_their_own(argilla: FakeArgilla) -> None:
    splits = DatasetDict({"train": Dataset.from_list(TEXTS[:2]), "test": Dataset.from_list(TEXTS[2:])})
    assert texts().save(splits, "").count("/annotation-mode") == 2
    assert [each["name"] for each in argilla.datasets.values()] == ["stories-train", "stories-test"]


def test_columns_may_have_other_names(argilla: FakeArgilla) -> None:
    rows = [{"prompt": each["instruction"], "generation": each["generation"]} for each in TEXTS]
    saved(texts(input_mappings={"instruction": "prompt"}), rows)
    assert [record["fields"] for record in argilla.sent()] == TEXTS


# Preferences


def test_answers_are_rated_with_suggestions_of_the_judge(argilla: FakeArgilla) -> None:
    saved(PreferenceToArgilla(dataset_name="answers"), RATED)
    (record,) = argilla.sent()
    assert record["fields"] == {
        "instruction": "How high is K2?",
        "generations-0": "High.",
        "generations-1": "8,611 m.",
    }
    assert argilla.suggestions(record) == {
        "generations-0-rating": 2,
        "generations-0-rationale": "No number.",
        "generations-1-rating": 5,
        "generations-1-rationale": "Right.",
    }


def test_ratings_that_are_none_or_out_of_scale_are_no_suggestions(argilla: FakeArgilla) -> None:
    row = {**RATED[0], "ratings": [None, 9], "rationales": None}
    saved(PreferenceToArgilla(dataset_name="answers"), [row])
    assert argilla.suggestions(argilla.sent()[0]) == {}


def test_a_generation_that_is_none_is_left_out_with_its_rating(argilla: FakeArgilla) -> None:
    row = {**RATED[0], "generations": [None, "8,611 m."]}
    saved(PreferenceToArgilla(dataset_name="answers"), [row])
    (record,) = argilla.sent()
    assert record["fields"] == {"instruction": "How high is K2?", "generations-0": "8,611 m."}
    assert argilla.suggestions(record) == {"generations-0-rating": 5, "generations-0-rationale": "Right."}


@pytest.mark.parametrize(
    ("generations", "reason"),
    [
        (None, "without a generation"),
        ([None, None], "without a generation"),
        ("text", "generations: expected a list, got 'text'"),
        (["a", "b", "c"], "with more generations than num_generations=2"),
    ],
)
def test_a_row_without_fitting_generations_is_left_out(generations: Any, reason: str) -> None:
    saver = PreferenceToArgilla(dataset_name="answers", num_generations=2)
    with pytest.raises(ValueError, match=reason):
        saver.records({**RATED[0], "generations": generations})


# What can't be saved


@pytest.mark.parametrize(
    ("options", "environment", "problem"),
    [
        ({"dataset_name": ""}, {}, "dataset_name of .* is empty"),
        ({}, {"ARGILLA_API_KEY": ""}, "no key; set ARGILLA_API_KEY"),
        ({}, {"ARGILLA_API_KEY": "wrong"}, "the key is refused"),
        ({"api_key": "annotator-key"}, {}, "'ada' may only answer questions there"),
        ({"dataset_workspace": "none"}, {}, r"there's no workspace 'none'; there are \['tides'\]"),
        ({"api_url": "http://127.0.0.1:9"}, {}, "can't be reached"),
        ({"api_url": "nonsense"}, {}, "can't be reached"),
    ],
)
def test_what_cant_be_saved_is_refused_by_the_check(
    argilla: FakeArgilla,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    environment: dict[str, str],
    problem: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TargetError, match=problem):
        TextGenerationToArgilla(**{"dataset_name": "stories", **options}).check()
    assert argilla.datasets == {}


def test_without_overwrite_a_dataset_that_is_there_is_refused(argilla: FakeArgilla) -> None:
    saved(texts(), TEXTS)
    with pytest.raises(TargetError, match="is there already and overwrite=False"):
        texts(overwrite=False).check()


def test_a_dataset_of_another_kind_isnt_written_to(argilla: FakeArgilla) -> None:
    saved(texts(), TEXTS)
    with pytest.raises(TargetError, match=r"the fields \['generation', 'instruction'\]; PreferenceToArgilla writes"):
        PreferenceToArgilla(dataset_name="stories").check()


def test_without_the_package_the_check_says_what_to_install(
    argilla: FakeArgilla, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "argilla"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "argilla", None)
    with pytest.raises(TargetError, match=r"TextGenerationToArgilla needs argilla: .* -m pip install 'argilla>="):
        texts().check()


def test_a_key_is_neither_shown_nor_stored() -> None:
    saver = texts(api_key="secret-key")
    told = [saver.model_dump_json(), json.dumps(saver.identity()), repr(saver), str(saver)]
    assert not [text for text in told if "secret-key" in text]
    assert "api_key" not in TextGenerationToArgilla.model_json_schema()["properties"]


@pytest.mark.parametrize("kind", ["argilla-text-generation", "argilla-preference"])
def test_a_form_may_choose_it_as_a_target(kind: str) -> None:
    target = TypeAdapter[Any](Target).validate_python({"kind": kind, "dataset_name": "stories"})
    assert isinstance(target, ArgillaSaver) and target.kind == kind
