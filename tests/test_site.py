"""The site: it's built without a warning, has everything that is exported, and leads nowhere that isn't there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import flows
import llms
import tasks
from flows.cli import READY_MADE
from tests.conftest import LONGEST, ROOT

DOCS = ROOT / "docs"
CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
REFERENCE = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").rglob("*.md"))
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
WHICH_FLOW = (DOCS / "which-flow.md").read_text(encoding="utf-8")
LLMS_TXT = (DOCS / "llms.txt").read_text(encoding="utf-8")
OF_PREFECT = {"Finished in state AwaitingRetry", "database is locked"}
"""Messages that aren't ours."""


def pages_in(nav: Any) -> Iterator[str]:
    """The pages of a navigation, or of a part of it."""
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_in(each)


NAVIGATION = list(pages_in(CONFIGURATION["nav"]))


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}

    assert pages <= set(NAVIGATION)
    assert len(NAVIGATION) == len(set(NAVIGATION))


@pytest.mark.parametrize("package", [llms, tasks, flows], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference_once(package: Any) -> None:
    named = re.findall(rf"^::: {package.__name__}\.(\w+)$", REFERENCE, re.MULTILINE)

    assert sorted(named) == sorted(package.__all__)


def test_every_ready_made_flow_is_in_the_reference() -> None:
    named = re.findall(r"^::: (\w+(?:\.\w+)+)$", REFERENCE, re.MULTILINE)

    assert {entry.replace(":", ".") for entry, _ in READY_MADE.values()} <= set(named)


def test_llms_txt_lists_every_page_once() -> None:
    listed = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", LLMS_TXT, re.MULTILINE)

    assert sorted(each.rpartition(".")[0] for each in listed) == sorted(each.removesuffix(".md") for each in NAVIGATION)


def test_llms_txt_has_the_form_that_llmstxt_org_describes() -> None:
    title, _, rest = LLMS_TXT.partition("\n")
    sections = re.findall(r"^## (.+)\n\n((?:.+\n)+)", rest, re.MULTILINE)

    assert title == "# Stillflow"
    assert rest.startswith("\n> ")
    assert len(sections) == rest.count("\n## ") == 4
    assert all(re.fullmatch(r"- \[.+\]\(\S+\)(: .+)?", line) for _, part in sections for line in part.splitlines())


def texts_in_code() -> str:
    """Every text in the code, with an ellipsis for each value in it."""
    found: list[str] = []
    for package in ("llms", "tasks", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [each.value if isinstance(each, ast.Constant) else "…" for each in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_every_message_that_troubleshooting_quotes_is_one_of_the_code() -> None:
    cells = re.findall(r"^\| ([^|]+) \|", TROUBLESHOOTING, re.MULTILINE)
    quoted = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    texts = f"{texts_in_code()}\n" + "\n".join(llms.__all__)

    assert len(quoted) > 20
    assert [each for each in quoted if each not in texts and each not in OF_PREFECT] == []


ROWS = [line.strip("| ").split(" | ") for line in re.findall(r"^\|.*\|$", WHICH_FLOW, re.MULTILINE)[2:]]


def test_every_flow_that_makes_a_dataset_has_a_goal() -> None:
    looking_after_runs = {"watch_batches", "resubmit_failed_rows"}

    assert {row[1].strip("`") for row in ROWS} == set(READY_MADE) - looking_after_runs


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_flow_writes_the_columns_that_its_goal_names(row: list[str]) -> None:
    guide = re.findall(r"\((.+?)\)", row[4])[0]
    page = ROOT / "README.md" if guide == "index.md" else DOCS / guide
    header = re.search(r"^dataset: .*, columns (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert header is not None
    written = set(header[1].split(", "))

    wanted = set(re.findall(r"`(\w+)`", row[3]))
    if row[1] == "`preference`":
        wanted -= {"chosen_model", "rejected_model"}
    assert wanted <= written


class Html(HTMLParser):
    """A page's anchors, what it links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self._in_paragraph = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag in {"script", "img", "link", "iframe"}:
            self.loaded += [given[name] or "" for name in ("src", "href") if given.get(name)]
        if tag == "p":
            self._in_paragraph = True
            self.paragraphs.append("")
        if tag == "code":
            self.handle_data("`")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._in_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._in_paragraph:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Html]:
    """The pages of the site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST)

    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO ")] == []
    return {path: Html(path) for path in folder.rglob("*.html") if path.name != "404.html"}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_its_links_lead_to_pages_and_anchors_that_exist(
    site: dict[Path, Html],
) -> None:
    lost: set[str] = set()
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in site[target].anchors):
                lost.add(f"{path.name}: {link}")

    assert len(site) > 40
    assert lost == set()


@pytest.mark.slow
def test_nothing_of_the_site_is_fetched_from_elsewhere(site: dict[Path, Html]) -> None:
    assert {each for page in site.values() for each in page.loaded if urlsplit(each).scheme} == set()


@pytest.mark.slow
def test_every_public_name_has_its_place_on_the_site(site: dict[Path, Html]) -> None:
    anchors = set[str]().union(*(page.anchors for page in site.values()))

    assert {f"{package.__name__}.{name}" for package in (llms, tasks, flows) for name in package.__all__} <= anchors


@pytest.mark.slow
def test_what_a_clone_shows_as_a_list_or_a_table_is_none_of_the_text_on_the_site(site: dict[Path, Html]) -> None:
    """Python's Markdown wants an empty line before a list, and an indent of four: GitHub doesn't."""
    as_text = {
        f"{page.path.name}: {paragraph[:60]}"
        for page in site.values()
        for paragraph in page.paragraphs
        if re.search(r"^\s*(?:[-*] |\d+\. |\|)", paragraph, re.MULTILINE)
    }

    assert as_text == set()


@pytest.mark.slow
def test_what_llms_txt_leads_to_is_on_the_site(site: dict[Path, Html]) -> None:
    (home,) = [path.parent for path in site if path.name == "index.html" and (path.parent / "llms.txt").is_file()]
    listed = re.findall(r"\]\(([^)]+)\)", (home / "llms.txt").read_text(encoding="utf-8"))

    assert [each for each in listed if not (home / each).is_file()] == []
