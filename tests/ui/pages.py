"""The pages of both of Prefect's UIs, as far as the tests use them: V2, which opens by default, and V1."""

from __future__ import annotations

import contextlib
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Locator, Page, Response, TimeoutError

from tests.conftest import LONGEST, wait_for
from tests.integration.stack import Stack

BEFORE_ANOTHER_LOOK = 10.0
"""Seconds."""
SHOWN = """() => new Promise(done => requestIdleCallback(() => done(
    [...document.querySelectorAll("input, textarea, select, label, button, [role], [contenteditable]")].map(each => [
        each.tagName, each.className, each.value, each.checked, each.disabled, each.textContent, each.dataset.state,
        each.ariaSelected, each.ariaChecked,
    ].join(" ")).join("\\n")
), {timeout: 60000}))"""
"""What the parts of a form are and how they stand, once the page has nothing to do."""


class UI(ABC):
    """One of the two, in a page of the browser."""

    base: ClassVar[str]
    """What the addresses of its pages begin with."""

    def __init__(self, page: Page, stack: Stack) -> None:
        self.page, self.stack = page, stack

    def go(self, path: str) -> None:
        self.page.goto(f"{self.stack.ui}{self.base}{path}")

    def text(self) -> str:
        """All that the page says."""
        return self.page.locator("body").inner_text()

    @abstractmethod
    def form(self, deployment: str) -> RunForm:
        """The form that starts a run of a deployment, not yet open."""

    def open_run(self, run: str, tab: str = "Logs") -> None:
        """A run's page, on one of its tabs: Logs, Task Runs, Artifacts, Details, Parameters."""
        self.go(f"/runs/flow-run/{run}")
        self.page.get_by_text(self.stack.run(run)["name"]).first.wait_for()
        self.tab(tab).click()
        self.page.wait_for_timeout(1000)

    @abstractmethod
    def tab(self, name: str) -> Locator:
        """A tab of a run's page."""

    @abstractmethod
    def retry(self) -> None:
        """Retry the run whose page is open, and confirm."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the run whose page is open, and confirm."""

    @abstractmethod
    def resume(self) -> Locator:
        """Ask to resume the run whose page is open. Returns the dialog that shows what it asks."""

    def give(self, run: str) -> None:
        """Answer what the run asks, in the dialog that is open, with the defaults. As often as it takes: a server on
        SQLite may say 503, and a dialog may close before the run goes on, or without it."""
        self.page.set_default_timeout(1000 * BEFORE_ANOTHER_LOOK)
        try:
            while self.stack.run(run)["state"]["type"] == "PAUSED":
                with contextlib.suppress(TimeoutError):
                    if not self._dialog().count():
                        self.resume()
                    self._give()
                self.page.wait_for_timeout(3000)
        finally:
            self.page.set_default_timeout(1000 * LONGEST)

    @abstractmethod
    def _give(self) -> None:
        """Press the dialog's button."""

    @abstractmethod
    def _dialog(self) -> Locator:
        """The dialog that is open."""

    def open_runs_of(self, deployment: str) -> None:
        """A deployment's page, which lists its runs."""
        self.go(f"/deployments/deployment/{self.stack.deployment(deployment)['id']}")
        self.page.get_by_text("Runs", exact=True).last.wait_for()


class V2(UI):
    base = "/v2"

    def form(self, deployment: str) -> RunForm:
        return FormV2(self, deployment)

    def tab(self, name: str) -> Locator:
        return self.page.get_by_role("tab", name=name, exact=True)

    def retry(self) -> None:
        self._choose("Retry")
        self._dialog().get_by_role("button", name="Retry").click()

    def cancel(self) -> None:
        self._choose("Cancel")
        self._dialog().get_by_role("button", name="Cancel Flow Run").click()

    def resume(self) -> Locator:
        self._choose("Resume")
        return self._dialog()

    def _give(self) -> None:
        self._dialog().get_by_role("button", name="Resume").click()

    def _choose(self, action: str) -> None:
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name=action, exact=True).click()

    def _dialog(self) -> Locator:
        return self.page.locator("[role=dialog], [role=alertdialog]").last


class V1(UI):
    base = ""

    def form(self, deployment: str) -> RunForm:
        return FormV1(self, deployment)

    def tab(self, name: str) -> Locator:
        return self.page.locator(f"li#{name.lower().replace(' ', '-')}")

    def retry(self) -> None:
        self._press("Retry")
        self._dialog().get_by_role("button", name="Retry", exact=True).click()

    def cancel(self) -> None:
        self._press("Cancel")
        self._dialog().get_by_role("button", name="Confirm", exact=True).click()

    def resume(self) -> Locator:
        self._press("Resume")
        return self._dialog()

    def _give(self) -> None:
        self._dialog().get_by_role("button", name="Submit").click()

    def _press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).first.click()

    def _dialog(self) -> Locator:
        return self.page.locator(".p-modal")


class RunForm(ABC):
    """The form that starts a run of a deployment."""

    LABELS: ClassVar[str]
    BLOCK: ClassVar[str]
    """XPath of the block of a field with its label, description and value, from the label."""
    TABS: ClassVar[str]

    def __init__(self, ui: UI, deployment: str) -> None:
        self.ui, self.page, self.stack, self.deployment = ui, ui.page, ui.stack, deployment
        self.schema = self.stack.deployment(deployment)["parameter_openapi_schema"]

    def open(self) -> None:
        self.ui.go(f"/deployments/deployment/{self.stack.deployment(self.deployment)['id']}/run")
        self.wait_until_filled()

    def wait_until_filled(self) -> None:
        self.page.get_by_role("button", name="Submit").wait_for()
        last = list(self.schema["properties"])[-1]
        optional = "" if last in self.schema.get("required", ()) else " (Optional)"
        self.page.get_by_text(f"{last}{optional}", exact=True).first.wait_for()
        self.wait_until_still()

    def wait_until_still(self) -> None:
        """Until the form stays as it is: its parts and their defaults come one after another, from the top down."""
        latest: list[str] = []

        def is_still() -> bool:
            latest[:] = [*latest[-2:], self.page.evaluate(SHOWN)]
            return len(latest) == 3 and len(set(latest)) == 1

        wait_for(is_still, what="a form that stays as it is", pause=0.3)

    @abstractmethod
    def parameters(self) -> Locator:
        """The part of the page with the flow's parameters."""

    def height(self) -> int:
        """The pixels from the first to the last parameter."""
        box = self.parameters().bounding_box()
        assert box is not None
        return round(box["height"])

    def labels(self) -> list[str]:
        return [text.removesuffix(" (Optional)") for text in self.parameters().locator(self.LABELS).all_inner_texts()]

    def field(self, *path: str) -> Locator:
        """The block of the field with a label, inside of that with the label before it, and so on."""
        found = self.parameters()
        for label in path:
            found = found.locator(self.LABELS, has_text=exactly(f"{label} (Optional)")).locator(self.BLOCK)
        return found

    def fill(self, value: str, *path: str) -> None:
        self.field(*path).locator("input, textarea").first.fill(value)

    def value(self, *path: str) -> str:
        return self.field(*path).locator("input, textarea").first.input_value()

    def tabs(self, *path: str) -> list[str]:
        """The names of a field's own tabs."""
        return self.names_in(self.field(*path).locator(self.TABS).first)

    def all_tabs(self) -> list[list[str]]:
        """The names of the tabs of every field that has some."""
        return [self.names_in(each) for each in self.parameters().locator(self.TABS).all()]

    @abstractmethod
    def names_in(self, tabs: Locator) -> list[str]:
        """The names of a row of tabs."""

    def choose_tab(self, name: str, *path: str) -> None:
        self.field(*path).locator(self.TABS).first.get_by_text(name, exact=True).click()
        self.wait_until_still()

    def submit(self) -> str:
        """Submit the form. Returns the run's id.

        On SQLite an answer is 503 where somebody else wrote while the server looked at the parameters: a user repeats
        it, not in step with a worker that asks for runs.
        """
        before = {run["id"] for run in self.stack.runs(self.deployment)}
        refused: list[Response] = []
        self.page.on("response", lambda answer: refused.append(answer) if answer.status >= 400 else None)
        last = time.monotonic() + LONGEST
        while time.monotonic() < last:
            seen = len(refused)
            self.page.get_by_role("button", name="Submit").click()
            end = time.monotonic() + 20
            while time.monotonic() < end and not any(answer.status == 503 for answer in refused[seen:]):
                new = [run["id"] for run in self.stack.runs(self.deployment) if run["id"] not in before]
                if new:
                    return new[0]
                self.page.wait_for_timeout(500)
            self.page.wait_for_timeout(random.uniform(0, 3000))
        answers = "\n".join(f"{each.status} {each.url}: {each.text()}" for each in refused)
        pytest.fail(f"the form wasn't submitted; the server says:\n{answers}\nthe page says:\n{self.ui.text()}")


class FormV2(RunForm):
    LABELS = "label[data-slot=label]"
    BLOCK = "xpath=./ancestor::div[contains(concat(' ',normalize-space(@class),' '),' group ')][1]"
    TABS = "[role=tablist]"

    def parameters(self) -> Locator:
        return self.page.locator("xpath=//h3[normalize-space()='Parameters']/following-sibling::div[1]")

    def names_in(self, tabs: Locator) -> list[str]:
        return [text.strip() for text in tabs.get_by_role("tab").all_inner_texts()]


class FormV1(RunForm):
    LABELS = ".schema-form-property__label"
    BLOCK = "xpath=./ancestor::*[contains(concat(' ',normalize-space(@class),' '),' schema-form-property ')][1]"
    TABS = ".p-button-group"

    def parameters(self) -> Locator:
        return self.page.locator("body")

    def names_in(self, tabs: Locator) -> list[str]:
        return [text.strip() for text in tabs.get_by_role("button").all_inner_texts()]


def exactly(text: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*{re.escape(text)}\s*$")


def shown_fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and description of every field that a form shows at first, from the top down."""
    definitions: Mapping[str, Any] = schema.get("definitions") or {}

    def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = node.get("$ref")
        return {**definitions[reference.rpartition("/")[2]], **node} if reference else node

    def fields(properties: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, node in sorted(properties.items(), key=lambda item: item[1]["position"]):
            whole = resolved(node)
            yield whole.get("title") or name, whole.get("description") or ""
            first = resolved(whole["anyOf"][0]) if "anyOf" in whole else whole
            yield from fields(first.get("properties") or {})

    yield from fields(schema["properties"])
