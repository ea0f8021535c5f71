"""Prefect's pages, in the UI that its server opens by default."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

LONGEST = 30.0
"""Seconds that a server has to say which UI it opens. A busy one takes its time, but connects at once."""
LONGEST_CONNECT = 5.0


def in_default_ui(page: str) -> str:
    """The address of a page in the UI that opens by default. Prefect's `url_for` leads to the old one.

    Args:
        page: what `url_for` gives, which may be empty.
    """
    from prefect.settings import PREFECT_UI_URL

    ui: str = (PREFECT_UI_URL.value() or "").rstrip("/")
    return f"{ui}/v2{page.removeprefix(ui)}" if ui and page.startswith(f"{ui}/") and _opens_new(ui) else page


def _opens_new(ui: str) -> bool:
    import httpx

    try:
        return _says_new(ui)
    except httpx.HTTPError:
        return False


@cache
def _says_new(ui: str) -> bool:
    """Raises httpx.HTTPError where the server is away, which says nothing for later."""
    import httpx

    answer = httpx.get(f"{ui}/ui-settings", timeout=httpx.Timeout(LONGEST, connect=LONGEST_CONNECT))
    if answer.status_code >= 500:
        answer.raise_for_status()
    # Prefect Cloud has no such page.
    try:
        said: Any = answer.json() if answer.is_success else None
    except ValueError:
        return False
    return isinstance(said, dict) and cast("dict[str, Any]", said).get("default_ui") == "v2"
