"""Pages that are asked for while their rows are still looked through, or just given up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from flows.cli import main
from flows.viewing.opening import Dataset
from flows.viewing.pages import Viewer, viewer_app
from flows.viewing.queries import query_in
from flows.viewing.scans import MOST_SCANS
from tests.conftest import wait_for
from tests.flows.test_viewing import Gated


@pytest.fixture
def table() -> Iterator[Gated]:
    made = Gated()
    yield made
    made.gate.set()


@pytest.fixture
def viewer(table: Gated) -> Viewer:
    dataset = Dataset("rows", [], "rows")
    dataset.table = table
    return Viewer([[dataset]])


def test_a_scan_that_is_given_up_for_others_says_never_that_it_found_all(table: Gated, viewer: Viewer) -> None:
    first = viewer.matches(0, query_in([("q", "row 4")]))
    for number in range(MOST_SCANS):
        viewer.matches(0, query_in([("q", f"row {number + 10}")]))
    table.gate.set()
    wait_for(lambda: not first._thread.is_alive(), what="the end of the first scan", pause=0.01)

    page = TestClient(viewer_app(viewer), base_url="http://localhost").get("/rows?q=row 4").text

    assert not first.ended
    again = viewer.matches(0, query_in([("q", "row 4")]))
    again.wait(600.0)
    assert again is not first and again.ended and len(again) == 11
    assert "11 rows found" in page


def test_a_row_whose_neighbours_are_not_all_looked_through_says_so_and_looks_again(
    table: Gated, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = TestClient(viewer_app(viewer), base_url="http://localhost")

    def page_of_the_first_50() -> str | None:
        page = client.get("/row?at=41&q=row 4").text
        return page if " found" in page else None

    monkeypatch.setattr("flows.viewing.pages.PATIENCE", 0.0)
    # Their rows are there as soon as the scan has begun.
    within = wait_for(page_of_the_first_50, what="the row among the first that were found", pause=0.01)
    last = client.get("/row?at=49&q=row 4").text
    table.gate.set()
    monkeypatch.setattr("flows.viewing.pages.PATIENCE", 600.0)
    whole = client.get("/row?at=49&q=row 4").text

    assert "the 3. of 11 found so far" in within and 'http-equiv="refresh"' not in within
    assert "the 11. of 11 found so far" in last and 'http-equiv="refresh"' in last
    assert re.search(r"the 11\. of 11 found\s*<", whole) and 'http-equiv="refresh"' not in whole


def test_ctrl_c_right_after_the_address_ends_it_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.viewing.serving.has_browser", pressed)
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')

    result = CliRunner().invoke(main, ["view", str(tmp_path / "rows.jsonl")])

    assert (result.exit_code, result.stderr) == (0, "Ctrl+C ends it.\n")
