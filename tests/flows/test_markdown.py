"""What providers, models and datasets say reaches the UI's pages as text: nothing in it is fetched, run or a link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import load
from flows.authoring.saving import finish
from flows.engine.errors import failed_state
from flows.engine.event_loops import run_anywhere
from flows.engine.failures import failed_rows
from flows.engine.report import jobs_markdown, report_markdown
from flows.ledger.records import JobRecord
from llms import BadRequestError, OpenAILLM
from tasks import SaveToDisk, TextGeneration
from tests.echoing import EchoServer, refusal
from tests.rendering import EVIL, READERS, Page, check_inert

LIVE = {"img", "iframe", "script", "style", "svg", "!--", "?"}


def test_in_the_runs_report_the_failed_rows_and_the_card(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engine.report.MOST_REASONS", 100)
    monkeypatch.setattr("tasks.targets.card.MOST_FAILURES", 100)
    # The dataset's words are the provider's as well.
    with EchoServer(lambda key, body: (400, {"error": {"message": body["messages"][-1]["content"]}})) as server:
        llm = OpenAILLM(model="m", base_url=server.url, max_retries=0)
        rows = load([{"instruction": f"Hi. {words}"} for words in EVIL]).map(TextGeneration(name="gen", llm=llm))
        target = SaveToDisk(path=str(tmp_path / "out"))
        run_anywhere(finish({"gen": rows}, {"gen": target}, max_failed_rows=100))
    run = rows.node.run
    run.problem = "\n".join(["rows failed", *(f"  1 × gen: BadRequestError: {words}" for words in EVIL)])
    run.saved.places += EVIL

    assert run.saved.looks["gen"].seen.failed == len(EVIL)
    pages = check_inert(report_markdown(run))
    reasons, _, _ = pages[1].text.partition("Distributions")
    assert reasons.count("the provider refuses the request (400)") == len(set(EVIL))
    stream = rows.node.stream
    assert stream is not None
    table, failed = failed_rows(run.storage, [rows.node], [[ref for _, ref in stream.items]])
    assert failed == len(EVIL)
    for line in table:
        for reader in READERS.values():
            for cell in (line["text"], line["message"]):
                assert not Page(reader.render(cell)).tags & LIVE
    check_inert((tmp_path / "out" / "README.md").read_text().partition("\n---\n")[2])


@pytest.mark.parametrize("words", EVIL)
def test_in_the_table_of_jobs(words: str) -> None:
    known: dict[str, Any] = {"requests": 1, "size": 1, "tokens": 1, "shards": {}, "sample": [], "intended": 0.0}
    record = JobRecord("i", "r", "a", "f", words, "folder", {}, "q", **known, job=words, status=words, message=words)

    check_inert(jobs_markdown([record]))


def test_a_jobs_own_page_stays_a_link() -> None:
    known: dict[str, Any] = {"requests": 1, "size": 1, "tokens": 1, "shards": {}, "sample": [], "intended": 0.0}
    page = "https://platform.openai.com/batches/batch_1"
    record = JobRecord("i", "r", "a", "f", "gen", "folder", {}, "q", **known, job="batch_1", page=page)

    check_inert(jobs_markdown([record]), links=(page,))


@pytest.mark.parametrize("words", EVIL)
def test_in_a_states_message_which_automations_send_on(words: str) -> None:
    message = failed_state(BadRequestError(f"refused: {words}")).message

    for reader in READERS.values():
        assert not Page(reader.render(message)).tags & LIVE


def test_long_words_are_cut_in_the_report_the_state_and_the_row(storage: Path) -> None:
    words = "word " * 20_000
    with EchoServer(refusal("{key}")) as server:
        server.reply = lambda key, body: (400, {"error": {"message": words}})
        llm = OpenAILLM(model="m", base_url=server.url, max_retries=0)
        rows = load([{"instruction": "Hi."}]).map(TextGeneration(name="gen", llm=llm))
        made = run_anywhere(finish({"gen": rows}, {}, max_failed_rows=1))["gen"]

    assert len(made[0]["distilabel_metadata"]["error_gen"]["message"]) < 2_100
    assert len(report_markdown(rows.node.run)) < 3_000
    assert len(failed_state(BadRequestError(words)).message) < 4_200
