"""The automations of the guide on notifications, against a real server: each calls the webhook when it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

from tests.conftest import ROOT, wait_for
from tests.integration.stack import Stack

TEXT_GENERATION = "text-generation/text-generation"
GUIDE = (ROOT / "docs" / "guides" / "notifications.md").read_text(encoding="utf-8")
ADDRESS = "https://hooks.example.com/services/stillflow"
NOBODY = "00000000-0000-0000-0000-000000000000"
PRICED = """
from llms import OpenAILLM, PriceSource


class PricedLLM(OpenAILLM):
    def price_source(self):
        return PriceSource("https://api.openai.com/v1", "gpt-4o")
"""
"""A model whose price is known, although it's asked here."""


@pytest.fixture
def told(stack: Stack) -> Iterator[list[str]]:
    """What the guide's automations send to the address of the guide's block, which is a server here."""
    texts: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    file = stack.folder / "make_block.py"
    assert ADDRESS in program
    file.write_text(program.replace(ADDRESS, f"http://127.0.0.1:{server.server_port}"))
    block = stack.command([stack.python, str(file)]).strip().removeprefix("block_document_id: ")
    (automations,) = re.findall(r"```yaml\n(automations:\n.*?)```", GUIDE, re.DOTALL)
    path = stack.folder / "notifications.yaml"
    path.write_text(automations.replace(NOBODY, block))
    stack.prefect("automation", "create", "--from-file", str(path))
    try:
        yield texts
    finally:
        for each in yaml.safe_load(automations)["automations"]:
            stack.prefect("automation", "delete", each["name"])
        stack.call("DELETE", f"/block_documents/{block}")
        server.shutdown()
        server.server_close()


def test_a_failure_a_budget_an_approval_and_a_run_that_is_done_at_its_second_start_are_told(
    stack: Stack, told: list[str]
) -> None:
    rows = [{"instruction": 'Say "tides" and no more.'}]
    file = stack.source("told", rows)
    late = file.with_name("late.jsonl")
    (stack.clone / "priced.py").write_text(PRICED)
    priced = {"provider": "priced:PricedLLM", "model": "gpt-4o", "use_offline_batch_generation": True}
    parameters = {"source": {"data_files": str(file)}, "target": {"path": str(stack.folder / "told" / "{run}")}}

    fails = stack.start(TEXT_GENERATION, {**parameters, "source": {"data_files": str(late)}})
    spends = stack.start(TEXT_GENERATION, {**parameters, "text_generation": {"llm": priced}, "max_cost": 1e-9})
    asks = stack.start(TEXT_GENERATION, {**parameters, "approve_cost_above": 1e-9})
    failed, spent, asked = stack.wait(fails, "FAILED"), stack.wait(spends, "FAILED"), stack.wait(asks, "PAUSED")
    # An automation reads the run when it tells of it: the failed one still has to be as it failed.
    wait_for(lambda: len(told) >= 3, what="what is told of the first attempts")
    late.write_bytes(file.read_bytes())
    stack.call("POST", f"/flow_runs/{fails}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    done = stack.wait(fails, past=failed["state"]["id"])
    stack.call("POST", f"/flow_runs/{asks}/set_state", {"state": {"type": "CANCELLED"}})

    assert spent["state"]["message"].startswith("CostLimitError: ")
    wanted = {
        f"{failed['name']} failed: {failed['state']['message']}",
        f"{spent['name']} reached its budget: {spent['state']['message']}",
        f"{done['name']}: {done['state']['message']}",
    }
    approval = f"{asked['name']} waits for approval: "
    said = wait_for(lambda: len(told) >= 4 and list(told), what="what the automations tell")
    assert {each for each in said if not each.startswith(approval)} == wanted
    assert sum(each.startswith(approval) and each.endswith(asks) for each in said) == 1
    assert len(said) == 4
