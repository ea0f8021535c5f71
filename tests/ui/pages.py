"""The pages of Prefect's UI, as far as the tests use them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from tests.integration.stack import Stack

PROPERTY = "contains(concat(' ',normalize-space(@class),' '),' schema-form-property ')"
LABEL = ".schema-form-property__label"


class RunForm:
    """The form that starts a run of a deployment."""

    def __init__(self, page: Page, stack: Stack, deployment: str) -> None:
        self.page, self.stack, self.deployment = page, stack, deployment
        self.schema = stack.deployment(deployment)["parameter_openapi_schema"]

    def open(self) -> None:
        self.page.goto(f"{self.stack.ui}/deployments/deployment/{self.stack.deployment(self.deployment)['id']}/run")
        self.page.get_by_role("button", name="Submit").wait_for()
        # The defaults are filled in a moment later, from the top down.
        self.page.wait_for_timeout(1000)

    def labels(self) -> list[str]:
        return [text.removesuffix(" (Optional)") for text in self.page.locator(LABEL).all_inner_texts()]

    def field(self, *path: str) -> Locator:
        """The block of the field with a label, inside of that with the label before it, and so on."""
        found: Locator | None = None
        for label in path:
            own = f".//*[contains(@class,'schema-form-property__label') and normalize-space()='{label} (Optional)']"
            inner = f"*[{PROPERTY}][{own}][not(.//*[{PROPERTY}][{own}])]"
            found = self.page.locator(f"xpath=//{inner}") if found is None else found.locator(f"xpath=.//{inner}")
        assert found is not None
        return found

    def fill(self, value: str, *path: str) -> None:
        self.field(*path).locator("input, textarea").first.fill(value)

    def value(self, *path: str) -> str:
        return self.field(*path).locator("input, textarea").first.input_value()

    def tabs(self, *path: str) -> list[str]:
        """The names of a field's own tabs."""
        texts = self.field(*path).locator(".p-button-group").first.get_by_role("button").all_inner_texts()
        return [text.strip() for text in texts]

    def choose_tab(self, name: str, *path: str) -> None:
        self.field(*path).locator(".p-button-group").first.get_by_role("button", name=name, exact=True).click()
        self.page.wait_for_timeout(500)

    def submit(self) -> str:
        """Submit the form. Returns the run's id. On SQLite an answer may be 503, which the user repeats."""
        before = {run["id"] for run in self.stack.runs(self.deployment)}
        for _ in range(12):
            self.page.get_by_role("button", name="Submit").click()
            end = time.monotonic() + 5
            while time.monotonic() < end:
                new = [run["id"] for run in self.stack.runs(self.deployment) if run["id"] not in before]
                if new:
                    return new[0]
                self.page.wait_for_timeout(200)
        said = self.page.locator("main, body").last.inner_text()
        pytest.fail(f"the form wasn't submitted; the page says:\n{said}")


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


def open_run(page: Page, stack: Stack, run: str, tab: str = "logs") -> None:
    """A run's page, on one of its tabs: logs, task-runs, artifacts, details, parameters."""
    page.goto(f"{stack.ui}/runs/flow-run/{run}")
    page.get_by_text(stack.run(run)["name"]).first.wait_for()
    page.locator(f"li#{tab}").click()
    page.wait_for_timeout(1000)


def retry(page: Page) -> None:
    """Press the run's Retry button, and confirm."""
    page.get_by_role("button", name="Retry", exact=True).first.click()
    page.locator(".p-modal").get_by_role("button", name="Retry", exact=True).click()


def cancel(page: Page) -> None:
    """Press the run's Cancel button, and confirm."""
    page.get_by_role("button", name="Cancel", exact=True).first.click()
    page.locator(".p-modal").get_by_role("button", name="Confirm", exact=True).click()
