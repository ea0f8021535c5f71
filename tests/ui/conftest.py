"""A headless Chromium, and where its screenshots go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import LONGEST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

    from tests.integration.stack import Stack
    from tests.ui.pages import UI

SHELL, WHOLE = Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium")
CHROMIUM = Path(os.environ.get("STILLFLOW_CHROMIUM", SHELL if SHELL.exists() else WHOLE))
"""Rather the one without windows: the other draws them where nobody sees them, for a fifth of these tests' time."""
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
WINDOW: ViewportSize = {"width": 1300, "height": 1000}
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


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests: it keeps the UI's scripts as they were compiled."""
    made = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
    made.set_default_timeout(1000 * LONGEST)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A fresh page, of a browser in which nothing is stored."""
    page = context.new_page()
    yield page
    with contextlib.suppress(Exception):  # a page without an address has no storage
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
    context.clear_cookies()
    for each in context.pages:
        each.close()


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
def screenshot(request: pytest.FixtureRequest, page: Page) -> Callable[[str], None]:
    """`screenshot(name)` keeps the whole page as STILLFLOW_SCREENSHOTS/v2-name.png, where that is set."""
    version = request.node.callspec.params["ui"].lower()
    folder = os.environ.get("STILLFLOW_SCREENSHOTS")

    def take(name: str) -> None:
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        # The UI scrolls inside of the page: only a window of the whole height shows all of it.
        height = page.evaluate("Math.max(...[...document.querySelectorAll('*')].map(each => each.scrollHeight))")
        page.set_viewport_size({**WINDOW, "height": max(WINDOW["height"], min(height + 50, TALLEST))})
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"{version}-{name}.png")
        page.set_viewport_size(WINDOW)

    return take
