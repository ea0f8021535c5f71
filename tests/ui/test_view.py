"""`python -m flows view` in a browser: rows are found, read and compared, and hostile ones do nothing."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.viewing import viewed

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = [
    "<script>document.title = 'taken'</script>",
    "<img src=http://evil.example/x.png onerror=\"document.title = 'taken'\">",
    "</style></title></textarea><svg onload=alert(1)><link rel=stylesheet href=http://evil.example/x.css>",
    '<meta http-equiv="refresh" content="0;url=http://evil.example/">',
    "[x](javascript:alert(1)) ![y](http://evil.example/y.png)",
]


def rows(words: str) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Explain the number {number}. {EVIL[number % len(EVIL)]}",
            "generation": f"It comes after {number - 1}. {words} {EVIL[(number + 1) % len(EVIL)]}" + " Again." * 40,
            "score": number % 5,
            "distilabel_metadata": {"error_gen": {"type": EVIL[0], "message": EVIL[1]} if number % 7 == 3 else None},
        }
        for number in range(30)
    ]


def write(path: Path, words: str) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(words)), encoding="utf-8")
    return str(path)


def test_rows_are_found_read_and_compared_and_whatever_they_say_runs_and_loads_nothing(
    page: Page, tmp_path: Path
) -> None:
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    folder = Path(os.environ.get("STILLFLOW_SCREENSHOTS") or tmp_path)
    with viewed(write(tmp_path / "one.jsonl", "Once."), write(tmp_path / "other.jsonl", "Twice.")) as address:
        page.goto(f"{address}/rows")
        page.get_by_label("Words in any text").fill("number 1")
        page.get_by_text("Choose by").click()
        page.get_by_label("State").select_option("not failed")
        page.get_by_label("score, at least").fill("1")
        page.get_by_label("Order").select_option("score, highest first")
        page.get_by_role("button", name="Look").click()
        assert page.get_by_role("status").inner_text() == "8 rows found."
        first = page.get_by_role("heading", name="Row").all_inner_texts()
        page.screenshot(path=folder / "view-rows.png")
        again = page.context.new_page()
        again.goto(page.url)
        assert again.get_by_role("heading", name="Row").all_inner_texts() == first
        page.get_by_role("link", name=first[0]).click()
        page.get_by_role("link", name="Next").click()
        assert "the 2. of 8 found" in page.get_by_role("heading", level=1).inner_text()
        assert any(words in page.content().replace("&gt;", ">").replace("&lt;", "<") for words in EVIL)
        page.get_by_role("link", name="Side by side").click()
        page.get_by_role("heading", name="Row 0").first.wait_for()
        assert page.locator("del").first.inner_text().strip() == "Once"
        page.screenshot(path=folder / "view-compare.png")
        for path in ("/rows?state=failed", "/row?at=3", "/compare"):
            page.set_viewport_size({"width": 390, "height": 844})
            page.goto(f"{address}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("document.querySelectorAll('script, svg, iframe, main img').length") == 0
            assert page.title() != "taken"

    assert dialogs == []
    assert [each for each in asked if not each.startswith(address)] == []


def png(width: int) -> bytes:
    """A picture of a colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(b"\0" * (width + 1))),
            chunk(b"IEND", b""),
        ]
    )


def test_an_image_is_shown_and_the_pages_follow_the_browsers_wish_for_dark_ones(page: Page, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"picture": {"bytes": png(37), "path": None}}]), tmp_path / "one.parquet")
    with viewed(str(tmp_path / "one.parquet")) as address:
        papers: list[str] = []
        schemes: list[Literal["light", "dark"]] = ["light", "dark"]
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            page.goto(f"{address}/row")
            papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))

        image = page.locator("main img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 37
        assert papers[0] != papers[1]
