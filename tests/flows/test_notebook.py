"""In a notebook: what a cell shows of our objects, and a run's display in place of its log lines."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from html import unescape
from inspect import getsource
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from datasets import Dataset
from PIL import Image
from prefect import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler

from flows import Pipeline, PipelineError, collect, flow, load, preview, show
from flows.authoring.datasets_by_name import Datasets
from flows.engine.event_loops import run_anywhere
from flows.viewing.inline import LARGEST_IMAGE, LONGEST_TEXT, MOST_ITEMS
from llms import AnthropicLLM, AsyncLLM, BadRequestError, GenerateOutput, OpenAILLM
from llms.registry import ALL_VARIANTS
from llms.variants import imported
from tasks import (
    CombineOutputs,
    LoadDataFromDicts,
    LoadDataFromHub,
    SaveToDisk,
    TextGeneration,
    UltraFeedback,
    steps,
)
from tests.conftest import LONGEST, ROOT
from tests.rendering import EVIL, Page

KEY = "sk-notebook-1234567890abcdef"
PASSWORD = "open-sesame-4711"
OURS = {
    *("div", "style", "p", "strong", "span", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"),
    *("ol", "li", "dl", "dt", "dd", "details", "summary", "progress", "q"),
}


class Oracle(AsyncLLM):
    """Says what it's asked, and refuses what is odd."""

    @property
    def model_name(self) -> str:
        return "oracle"

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
        asked = str(input[-1]["content"])
        if "odd" in asked:
            raise BadRequestError("the oracle is <b>silent</b>")
        tokens = [1] * num_generations
        return GenerateOutput(
            generations=[asked] * num_generations, statistics={"input_tokens": tokens, "output_tokens": tokens}
        )


def html_of(value: Any) -> str:
    return cast("str", value._repr_html_())


def said(html: str) -> str:
    """The words of a page, its style left out, with single spaces."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)).split())


def cells(html: str) -> list[list[str]]:
    """The rows of the first table."""
    body = html.partition("<table>")[2].partition("</table>")[0]
    return [[said(each) for each in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in body.split("<tr>")[1:]]


# Objects


def test_an_llm_shows_its_provider_its_model_and_what_isnt_at_its_default() -> None:
    shown = said(html_of(OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 0.3})))

    assert shown == "OpenAILLM provider openai model gpt-4o-mini generation_kwargs temperature 0.3"


def test_no_secret_of_an_llm_is_shown_wherever_it_stands() -> None:
    llm = OpenAILLM(
        model="m",
        api_key=KEY,  # pyright: ignore[reportArgumentType]
        base_url=f"https://me:{PASSWORD}@provider.example/v1",
        default_headers={"X-Api-Key": f"{KEY}-of-a-header"},
        generation_kwargs={"extra_body": {"access_token": "short", "deep": [{"password": "brief"}]}},
    )

    for html in (html_of(llm), html_of(TextGeneration(llm=llm))):
        assert not [each for each in (KEY, PASSWORD, "short", "brief") if each in html]
        assert "https://me:***@provider.example/v1" in html
        assert "access_token" in html
    assert KEY not in html_of(Pipeline("p", f"made with {KEY}"))


@pytest.mark.parametrize("provider", ALL_VARIANTS.ours)
def test_every_llm_can_be_shown(provider: str) -> None:
    kind = imported(ALL_VARIANTS.ours[provider])
    name = next((each for each in ("model_path", "model", "model_id") if each in kind.model_fields), "")
    given: dict[str, Any] = {name: "some-model"} if name else {}
    if "llms" in kind.model_fields:
        given |= {"llms": [OpenAILLM(model="a")], "aggregator": OpenAILLM(model="b")}

    assert kind.__name__ in said(html_of(kind(**given)))


def test_a_task_shows_its_model_its_columns_and_the_settings_that_arent_at_their_defaults() -> None:
    task = TextGeneration(
        name="praise",
        llm=OpenAILLM(model="gpt-4o-mini"),
        template="Praise {{ thing }}",
        columns=["thing"],
        output_mappings={"generation": "praise"},
    )

    assert said(html_of(task)) == (
        "praise TextGeneration columns in thing, system_prompt (optional) columns out praise, model_name"
        " llm OpenAILLM provider openai model gpt-4o-mini template Praise {{ thing }} columns ['thing']"
        " output_mappings generation praise"
    )


def test_a_task_shows_the_prompts_that_it_is_made_with_folded() -> None:
    html = html_of(UltraFeedback(llm=OpenAILLM(model="m")))

    assert "<summary>ultrafeedback/request</summary><pre>Below are an instruction" in html


def test_a_source_and_a_target_are_shown_without_reading_anything() -> None:
    assert said(html_of(LoadDataFromHub(repo_id="no/such-dataset"))).endswith("repo_id no/such-dataset")
    assert "columns out a, b" in said(html_of(LoadDataFromDicts(data=[{"a": 1}, {"b": 2}])))
    assert "path data/x" in said(html_of(SaveToDisk(path="data/x")))


def test_a_pipeline_shows_its_steps_in_a_table() -> None:
    with Pipeline("poems", "Odes", use_cache=False) as pipeline:
        source = LoadDataFromDicts(name="source", data=[{"instruction": "Praise 1"}])
        (
            source
            >> TextGeneration(name="write", llm=OpenAILLM(model="gpt-4o-mini"))
            >> SaveToDisk(name="target", path="x")
        )

    html = html_of(pipeline)
    assert cells(html) == [
        ["Step", "Class", "Model", "Columns in", "Columns out"],
        ["source", "LoadDataFromDicts", "", "", "instruction"],
        ["write", "TextGeneration", "gpt-4o-mini", "instruction, system_prompt (optional)", "generation, model_name"],
        ["target", "SaveToDisk", "", "", ""],
    ]
    assert said(html).startswith("poems Odes ")
    assert said(html).endswith(" use_cache False")


def test_a_pipeline_with_branches_says_what_comes_after_what() -> None:
    with Pipeline("branches") as pipeline:
        source = LoadDataFromDicts(name="source", data=[{"instruction": "x"}])
        one = TextGeneration(name="one", llm=OpenAILLM(model="a"), output_mappings={"generation": "a"})
        two = TextGeneration(name="two", llm=AnthropicLLM(model="b"), output_mappings={"generation": "b"})
        source >> [one, two] >> CombineOutputs(name="join")

    assert [[row[0], row[-1]] for row in cells(html_of(pipeline))[1:]] == [
        *(["source", ""], ["one", "source"], ["two", "source"], ["join", "one, two"])
    ]


def test_a_pipeline_that_is_wrong_is_shown_all_the_same() -> None:
    with Pipeline("round") as pipeline:
        one, two = (TextGeneration(name=name, llm=OpenAILLM(model="m")) for name in ("one", "two"))
        one >> two >> one
    with pytest.raises(PipelineError):
        pipeline.validate()

    assert [row[0] for row in cells(html_of(pipeline))] == ["Step", "one", "two"]
    assert said(html_of(Pipeline("empty"))) == "empty No steps."


# Rows


@pytest.fixture
def dataset(storage: Path) -> Dataset:
    """Rows of a real step, of which some failed."""
    rows = [
        {
            "instruction": f"Praise the {'odd' if number % 4 == 1 else 'even'} number {number}",
            "talk": [{"role": "user", "content": f"Hello {number}"}, {"role": "assistant", "content": "Good day"}],
        }
        for number in range(12)
    ]
    return collect(load(rows).map(TextGeneration(name="ode", llm=Oracle())), max_failed_rows=12)


def test_a_dataset_shows_its_rows_counted_its_columns_chats_and_failures(dataset: Dataset) -> None:
    html = html_of(show(dataset, rows=2))

    assert said(html).startswith(
        "dataset 12 rows, 3 of them failed Columns: instruction, talk, generation, model_name, distilabel_metadata"
    )
    assert re.findall(r"Row (\d+)", said(html)) == ["0", "1"]
    assert "Failed in ode : BadRequestError: the oracle is <b>silent</b>" in said(html)
    assert 'class="message own' in html


def test_rows_of_several_datasets_stand_under_their_names(dataset: Dataset) -> None:
    both = Datasets({"good": dataset.filter(lambda row: row["generation"] is not None), "all": dataset})

    assert re.findall(r"(\w+) (\d+ rows)", said(html_of(both))) == [("good", "9 rows"), ("all", "12 rows")]


def test_a_cell_stays_small_whatever_the_rows_hold() -> None:
    row = {
        "long": "word " * LONGEST_TEXT,
        "high": "line\n" * 300,
        "talk": [{"role": "user", "content": f"message {number}"} for number in range(50)],
        "list": [f"item\n{number}" for number in range(50)],
        "vector": [0.5] * 1000,
    }

    html = html_of(show([row]))

    assert len(html) < 12_000
    assert f"{len(row['long']) - LONGEST_TEXT:,} more characters" in html
    assert html.count("line\n") < 20
    assert "message 7" in html
    assert "message 8" not in html
    assert html.count(f"{50 - MOST_ITEMS} more") == 2
    assert "1,000 numbers" in html


def test_images_are_in_the_cell_itself_unless_they_are_large() -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    large = content.getvalue() + bytes(LARGEST_IMAGE)

    page = Page(html_of(show([{"image": {"bytes": content.getvalue(), "path": None}}, {"image": large}])))

    (address,) = page.addresses
    assert address.startswith("data:image/png;base64,iVBORw0KGgo")
    assert f"{len(large):,} bytes" in page.text


def test_words_of_rows_settings_and_errors_are_text_and_load_nothing() -> None:
    everywhere = [
        {"a": text, "b": [{"role": text, "content": text}], "c": {text: text}, text: [text] * 3} for text in EVIL
    ]
    failed = {
        "a": "x",
        steps.METADATA: {"error_<img src=x>": {"type": EVIL[3], "message": EVIL[6], "retryable": False}},
    }
    with Pipeline(EVIL[3], EVIL[4]) as pipeline:
        for number, text in enumerate(EVIL):
            TextGeneration(
                name=f"step_{number}",
                llm=OpenAILLM(model=text, generation_kwargs={"extra_body": {text: text}}),
                system_prompt=text,
                input_mappings={"instruction": text},
            )

    shown = [html_of(show(everywhere, rows=len(EVIL))), html_of(show([failed])), html_of(pipeline)]
    shown += [html_of(step) for step in pipeline.steps.values()]
    for html in shown:
        page = Page(html)
        assert page.tags <= OURS
        assert page.addresses == []
    assert EVIL[3] in said(shown[0])
    assert EVIL[6] in said(shown[1])


def test_show_refuses_what_holds_no_rows_and_says_what_it_takes() -> None:
    with pytest.raises(TypeError, match=r"expected a datasets.Dataset, .* got str: 'data/x'"):
        show("data/x")
    with pytest.raises(ValueError, match="rows: expected how many rows to show, 0 or more, got -1"):
        show([], rows=-1)


def test_outside_of_a_notebook_the_same_rows_are_text(dataset: Dataset) -> None:
    text = repr(show(dataset, rows=1))

    assert text.startswith("12 rows, 3 of them failed, columns instruction, talk,")
    assert "- **assistant:** Good day" in text


# Runs


class Notebook:
    """IPython's shell as our code meets it, in a kernel: it keeps what is published."""

    def __init__(self) -> None:
        self.kernel = object()
        self.published: list[dict[str, Any]] = []
        self.by_name: dict[tuple[str, str], Callable[[Any], str]] = {}
        self.display_pub = SimpleNamespace(publish=self._publish)
        self.display_formatter = SimpleNamespace(formatters={"text/html": self})

    def _publish(self, **message: Any) -> None:
        self.published.append(message)

    def for_type_by_name(self, module: str, name: str, function: Callable[[Any], str] | None = None) -> Any:
        before = self.by_name.get((module, name))
        if function is not None:
            self.by_name[module, name] = function
        return before

    @property
    def plain(self) -> list[str]:
        return [each["data"]["text/plain"] for each in self.published]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    shell = Notebook()
    ipython = ModuleType("IPython")
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return shell


def odes(count: int) -> Any:
    rows = [{"instruction": f"Praise {'odd' if number % 4 == 1 else 'even'} {number}"} for number in range(count)]
    return load(rows, shard_rows=4).map(TextGeneration(name="ode", llm=Oracle()))


def test_a_run_is_one_display_that_is_kept_up_to_date_and_ends_with_what_came_of_it(
    notebook: Notebook, storage: Path
) -> None:
    collect(odes(12), max_failed_rows=12)

    assert len({each["transient"]["display_id"] for each in notebook.published}) == 1
    assert [each["update"] for each in notebook.published] == [False, *[True] * (len(notebook.published) - 1)]
    first, last = notebook.plain[0], notebook.plain[-1].splitlines()
    assert first == "Starting"
    assert re.fullmatch(r"Done in (\d+\.\d s|\d+ min)", last[0])
    assert last[1:3] == ["load_data_from_dicts: 12 rows", "ode: 12 of 12 rows, 3 failed"]
    assert last[4:] == ["failed: 3 × ode: BadRequestError: the oracle is <b>silent</b>"]
    page = Page(notebook.published[-1]["data"]["text/html"])
    assert page.tags <= OURS
    assert "<b>silent</b>" in page.text


def test_a_run_that_fails_says_so(notebook: Notebook, storage: Path) -> None:
    with pytest.raises(Exception, match="3 of 12 rows failed"):
        collect(odes(12), max_failed_rows=0)

    assert notebook.plain[-1].startswith("Ended after ")


def test_prompts_are_previewed_without_a_display(notebook: Notebook, storage: Path) -> None:
    @flow
    def previewed() -> Any:
        return collect(odes(3))

    assert len(preview(previewed)["ode"]) == 3
    assert notebook.published == []


def test_a_terminal_of_ipython_is_no_notebook(notebook: Notebook, storage: Path) -> None:
    notebook.kernel = None  # pyright: ignore[reportAttributeAccessIssue]

    collect(odes(1))

    assert notebook.published == []


def test_after_a_run_a_notebook_shows_the_rows_of_datasets_unless_it_was_told_another_way(
    notebook: Notebook, storage: Path
) -> None:
    name = ("datasets.arrow_dataset", "Dataset")
    made = collect(odes(1))
    assert said(notebook.by_name[name](made)).startswith("dataset 1 row Columns: instruction,")

    own = notebook.by_name[name] = lambda dataset: "my own way"
    collect(odes(1))

    assert notebook.by_name[name] is own


@pytest.fixture
def console() -> Iterator[io.StringIO]:
    """What Prefect's handler for a console writes."""
    written = io.StringIO()
    handler = PrefectConsoleHandler(stream=written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("prefect")
def test_a_flow_has_its_own_lines_and_warnings_on_the_console_and_none_of_prefects_and_ours(
    notebook: Notebook, console: io.StringIO, storage: Path
) -> None:
    @flow(log_prints=True)
    def praising(count: int) -> Any:
        get_run_logger().info("logged by me")
        print("printed by me")  # noqa: T201 -- what a flow prints is what `log_prints` is about
        get_run_logger().warning("careful")
        return collect(odes(count), max_failed_rows=count)

    assert len(praising(6)) == 6

    lines = console.getvalue().splitlines()
    assert lines == ["INFO logged by me", "INFO printed by me", "WARNING careful"]
    assert len({each["transient"]["display_id"] for each in notebook.published}) == 1
    assert "ode: 6 of 6 rows, 2 failed" in notebook.plain[-1]
    assert not any(each.filters for each in logging.getLogger().handlers if isinstance(each, PrefectConsoleHandler))


@pytest.mark.usefixtures("prefect")
def test_an_async_flow_is_shown_while_it_is_awaited(notebook: Notebook, console: io.StringIO, storage: Path) -> None:
    @flow
    async def praising() -> Any:
        return await cast("Awaitable[Any]", collect(odes(2), max_failed_rows=2))

    assert len(asyncio.run(praising())) == 2

    assert console.getvalue() == ""
    assert notebook.plain[0] == "Starting"
    assert "ode: 2 of 2 rows, 1 failed" in notebook.plain[-1]
    assert "In Prefect" in notebook.published[-1]["data"]["text/html"]


@pytest.mark.usefixtures("prefect")
def test_a_level_that_was_set_by_hand_is_kept_to(
    notebook: Notebook, console: io.StringIO, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings

    @flow
    def praising() -> Any:
        return collect(odes(1))

    with temporary_settings({PREFECT_LOGGING_LEVEL: "INFO"}):
        praising()

    assert "Beginning flow run" in console.getvalue()


def test_who_interrupts_a_notebook_stops_the_run_in_its_thread() -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(LONGEST)
        finally:
            ended.set()

    async def cell() -> None:
        def interrupt() -> None:
            began.wait(LONGEST)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run_anywhere(work())

    # As a kernel has it while a cell runs; asyncio.run would have a handler of its own.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(cell())
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)

    # Nobody waits for a thread whose start was interrupted; it's stopped all the same.
    assert ended.wait(LONGEST)


IMPORTS = """
import sys
sys.path.insert(0, {root!r})
from typing import Any
from flows import collect, load
from llms import AsyncLLM, BadRequestError, GenerateOutput, OpenAILLM
from tasks import TextGeneration
"""
"""What the sources of `Oracle` and `odes` need in a kernel: this module is for pytest, and has settings of its own."""
CELLS = [
    "\n".join([IMPORTS.format(root=str(ROOT)), getsource(Oracle), getsource(odes)]),
    'OpenAILLM(model="gpt-4o-mini")',
    "await collect(odes(6), max_failed_rows=6)",
]


@pytest.mark.slow
def test_a_real_notebook_shows_a_run_once_and_its_rows_and_nothing_else(storage: Path) -> None:
    pytest.importorskip("ipykernel", reason="a kernel is no dependency of the project")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in CELLS])

    nbclient.NotebookClient(page, timeout=int(LONGEST), startup_timeout=int(LONGEST), kernel_name="python3").execute()

    (llm,) = page.cells[1].outputs
    assert "gpt-4o-mini" in llm.data["text/html"]
    display, result = page.cells[2].outputs
    assert (display.output_type, result.output_type) == ("display_data", "execute_result")
    assert "ode: 6 of 6 rows, 2 failed" in display.data["text/plain"]
    assert said(result.data["text/html"]).startswith("dataset 6 rows, 2 of them failed")
