"""Words of others in Markdown, rendered by a reader that isn't ours: they are shown as they are, and do nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llms.secrets import know
from tasks.markdown import block, code, inert, link, plain, plain_lines, table
from tasks.targets.card import RunRecord, StepRecord, dataset_card
from tests.rendering import EVIL, READERS, Page, check_inert


@pytest.mark.parametrize("words", EVIL)
def test_words_of_others_are_text_in_a_line_a_cell_and_a_list(words: str) -> None:
    for markdown in (plain(words), f"**Ended:** {plain(words)}", plain_lines(words)):
        check_inert(markdown)
    check_inert(f"- {plain(words)}\n- {code(words)}\n")
    check_inert(code(words))
    (_, with_tables, _) = check_inert(table(["a", "b"], [[plain(words), code(words)], ["one", "more"]]))
    assert {"table", "td"} <= with_tables.tags


@pytest.mark.parametrize("words", EVIL)
def test_a_block_holds_whatever_is_in_it(words: str) -> None:
    for page in check_inert(f"{block(words, 'json')}\n\nafter"):
        assert page.text.strip() == "after"


def shown(page: Page) -> str:
    return re.sub(r"\s", "", page.text + page.code)


@given(st.text(alphabet=st.sampled_from("ab1 \\`*_[](){}<>!|~#$&;:/.@-+=\"'\n\tw"), max_size=60))
@example("![a](http://b.example)")
@example("a`b`http://w.b`a`")
@example("1. - # `")
def test_any_text_is_shown_as_it_is(words: str) -> None:
    for markdown in (plain(words), table(["a"], [[plain(words)]])):
        for page in check_inert(markdown)[1:]:
            # The marks of code aren't shown, and text and code are told apart.
            wanted = sorted(re.sub(r"[\s`]", "", words))
            found = sorted(re.sub(r"[\s`]", "", shown(page).removeprefix("a") if "table" in page.tags else shown(page)))
            assert found == wanted


@given(st.text(max_size=200))
def test_no_text_at_all_comes_alive(words: str) -> None:
    check_inert(plain(words))
    check_inert(code(words))
    check_inert(block(words, "yaml"))


def test_what_is_long_is_cut_and_says_so() -> None:
    assert plain("x " * 5000, 10) == "x x x x x … (9,989 more characters)"
    assert len(plain("word " * 100_000)) < 700
    assert len(inert("word " * 100_000)) < 700
    # Not in the middle of an escape, or of code.
    for length in range(1, 40):
        check_inert(plain("![x](http://example.invalid/cut.png) `code` <img src=x>", length))


def test_secrets_are_masked_before_anything_is_cut_or_escaped() -> None:
    know("sk_secret_with_marks*1234")

    for words in ("key sk_secret_with_marks*1234", "x" * 590 + "sk_secret_with_marks*1234"):
        for markdown in (plain(words), code(words), inert(words), block(words, "json"), plain_lines(words)):
            assert "secret" not in markdown


def test_our_own_links_lead_to_the_web_alone() -> None:
    page = "https://platform.openai.com/batches/batch_1"
    check_inert(link("batch_1|`]", page), links=(page,))
    for address in ("javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "file:///etc/passwd", "//a.example", ""):
        check_inert(link("batch_1", address))
    for words in (") ![x](http://example.invalid/)", " 'x'<img src=x>\n\n# h", "|`"):
        for reader in READERS.values():
            made = Page(reader.render(link("batch_1", f"https://a.example/{words}")))
            assert made.tags == {"p", "a", "code"}
            assert [each.startswith("https://a.example/") for each in made.addresses] == [True]


@pytest.mark.parametrize("words", EVIL)
def test_in_a_code_span_they_are_dead_as_well_for_who_knows_none(words: str) -> None:
    for reader in READERS.values():
        page = Page(reader.render(code(f"x {words}").replace("`", "")))
        assert not page.tags & {"img", "iframe", "script", "style", "svg"}
        assert not [each for each in page.addresses if each.startswith(("javascript", "data"))]


@pytest.mark.parametrize("words", EVIL)
def test_in_plain_text_they_are_dead_as_well_for_who_takes_it_for_markdown(words: str) -> None:
    for reader in READERS.values():
        page = Page(reader.render(inert(f"x {words}")))
        assert not page.tags & {"img", "iframe", "script", "style", "svg", "!--", "?"}
        assert not [each for each in page.addresses if each.startswith(("javascript", "data"))]


def card_of(words: str) -> str:
    record: Any = RunRecord(
        flow=words,
        run_id=words,
        run_url="",
        started="2026-01-01 08:00:00 UTC",
        seconds=75.0,
        source={"type": "tasks.sources.loaders:LoadDataFromDicts", "data_files": words},
        steps=[
            StepRecord(
                words, words, words, {"system_prompt": words}, words, {words: words}, 1, 1, 1, 1, 1, 1, dollars=1
            )
        ],
        failures=[(words, words, words, 1)],
        columns={words: words},
        rows=1200,
        software={"datasets": "5.2.0"},
    )
    return dataset_card(record, {"generation": words, words: [words, {"x": words}]})


@pytest.mark.parametrize("words", EVIL)
def test_a_card_shows_what_rows_models_and_providers_say_and_does_nothing(words: str) -> None:
    card = card_of(words).partition("\n---\n")[2]

    check_inert(card)
    # Nor for a reader that doesn't know what a fence is, such as a search for images.
    example = card[card.index("```json") : card.index("## How it was made")]
    assert not re.search(r"!\[[^\]]*\]\(|<img|<script|<iframe|<svg", example, re.I)
