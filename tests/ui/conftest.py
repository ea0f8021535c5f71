"""A headless Chromium, and where its screenshots go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import LONGEST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.integration.stack import Stack
    from tests.ui.pages import UI

CHROMIUM = Path(os.environ.get("STILLFLOW_CHROMIUM", "/usr/bin/chromium"))
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TALLEST = 12_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of this folder. Skips where it isn't installed.

    Not for the whole session: as long as Playwright runs, an event loop runs in the thread of the tests, and what
    follows in the same process couldn't start one.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package 'playwright' isn't installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}; install it, or name another one in STILLFLOW_CHROMIUM")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(1000 * LONGEST)
    yield context.new_page()
    context.close()


IN_BOTH = pytest.mark.parametrize("ui", ["V2", "V1"], indirect=True)
"""For what is walked in the UI of before by every run of the tests: one form, from its first field to the run."""
# What a journey of test_journeys.py walks in V2.
V1_ALONE_AT_NIGHT = pytest.mark.parametrize("ui", [pytest.param("V1", marks=pytest.mark.full)], indirect=True)


@pytest.fixture(params=["V2", pytest.param("V1", marks=pytest.mark.full)])
def ui(request: pytest.FixtureRequest, page: Page, stack: Stack) -> UI:
    """Prefect's UI, first the one that opens by default."""
    from tests.ui import pages

    made: type[UI] = getattr(pages, request.param)
    return made(page, stack)


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Callable[[str], None]:
    """`screenshot(name)` keeps the whole page as STILLFLOW_SCREENSHOTS/v2-name.png, however far it scrolls."""
    version = request.node.callspec.params["ui"].lower()
    folder = Path(os.environ.get("STILLFLOW_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        # The UI scrolls inside of the page: only a window of the whole height shows all of it.
        height = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(each => each.scrollHeight))")
        page.set_viewport_size({"width": 1300, "height": max(1000, min(height + 50, TALLEST))})
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{version}-{name}.png")
        page.set_viewport_size({"width": 1300, "height": 1000})

    return take
