"""Tasks that start from nothing, in flows and pipelines: roots, caching, batches, previews, forms, the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate

from flows import Pipeline, PipelineError, Source, TooManyFailedRowsError, collect, flow, load, save
from flows.authoring.preview import checked, dry_run, preview
from flows.authoring.saving import finish
from flows.engine.failures import failed_rows
from flows.engine.graph import Rows
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from tasks import KeepColumns, LoadDataFromDicts, SaveToDisk, SourceError, TextGeneration
from tests.flows.test_batching import ending
from tests.flows.test_cli import call
from tests.tasks.own_generators import Riddles, SolvedRiddles
from tests.warm import WarmPython

EVERY = {r"riddle number (?P<number>\d+)": "What is {number}?"}
OWN = "tests.tasks.own_generators:Riddles"


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    provider.set(answers=EVERY)
    return provider


def riddles(**options: Any) -> Riddles:
    return Riddles(llm=OpenAILLM(model="m", max_retries=0, **options.pop("llm_options", {})), **options)


def written(count: int) -> list[str]:
    return [f"What is {number}?" for number in range(count)]


def judged() -> TextGeneration:
    return TextGeneration(name="judge", llm=OpenAILLM(model="j"), template="Judge: {{ riddle }}", columns=["riddle"])


# Rows


def test_load_gives_its_rows(provider: LocalProvider, storage: Path) -> None:
    dataset = collect(load(riddles(), shard_rows=3))

    assert dataset["riddle"][:] == written(4)
    assert set(dataset.column_names) == {"riddle", "model_name", "distilabel_metadata"}


def test_steps_go_on_with_them(provider: LocalProvider, storage: Path) -> None:
    dataset = collect(judged().map(load(riddles(), shard_rows=3)))

    assert dataset["riddle"][:] == written(4)
    asked = [request.body["messages"][-1]["content"] for request in provider.requests]
    assert sorted(asked)[:4] == [f"Judge: {riddle}" for riddle in written(4)]


def test_it_cant_be_mapped_over_rows() -> None:
    with pytest.raises(TypeError, match=r"'riddles' makes rows and takes none; use load\(riddles\)"):
        riddles().map(load([{"number": 1}]))


def test_the_same_task_twice_gives_two_sets_of_rows(provider: LocalProvider, storage: Path, prefect: str) -> None:
    @flow
    async def twice() -> Any:
        rows = {"one": load(riddles()), "other": load(riddles(thing="fog"))}
        assert [each.node.name for each in rows.values()] == ["riddles", "riddles-2"]
        return await finish(rows, {})

    datasets = asyncio.run(twice())

    assert [len(each) for each in datasets.values()] == [4, 4]
    assert len(provider.requests) == 8


def test_a_rerun_sends_nothing_and_more_rows_reuse_the_first_ones(provider: LocalProvider, storage: Path) -> None:
    collect(load(riddles(num_rows=5), shard_rows=3))
    collect(load(riddles(num_rows=5), shard_rows=3))
    assert len(provider.requests) == 5
    provider.clear()

    dataset = collect(load(riddles(num_rows=8), shard_rows=3))

    assert dataset["riddle"][:] == written(8)
    asked = sorted(request.body["messages"][0]["content"] for request in provider.requests)
    assert asked == [f"Write riddle number {number} about the sea." for number in (5, 6, 7)]


def test_another_option_asks_again(provider: LocalProvider, storage: Path) -> None:
    collect(load(riddles()))

    collect(load(riddles(thing="fog")))

    assert len(provider.requests) == 8


def test_a_retry_asks_only_what_is_missing(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers={"number 2 ": "Sorry.", **EVERY})
    with pytest.raises(TooManyFailedRowsError, match=r"1 of 6 rows failed[\s\S]*expected a riddle, got 'Sorry.'"):
        collect(load(riddles(num_rows=6)), max_failed_rows=0)
    provider.set(answers=EVERY)
    provider.clear()

    dataset = collect(load(riddles(num_rows=6)), max_failed_rows=0)

    assert dataset["riddle"][:] == written(6)
    assert len(provider.requests) == 1


def test_a_round_that_was_answered_is_not_asked_again(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers=EVERY, faults=[{"match": "Solve", "status": 400, "times": 1}])
    task = SolvedRiddles(llm=OpenAILLM(model="m", max_retries=0), num_rows=3)
    collect(load(task), max_failed_rows=1)
    assert len(provider.requests) == 6
    provider.clear()

    dataset = collect(load(task), max_failed_rows=0)

    assert dataset["riddle"][:] == written(3)
    assert len(provider.requests) == 1


def test_a_failed_row_is_told_by_its_prompt(provider: LocalProvider, storage: Path) -> None:
    provider.set(answers={"number 2 ": "Sorry.", **EVERY})
    rows = load(riddles())
    collect(rows, max_failed_rows=1)

    (line,), total = failed_rows(rows.node.run.storage, [rows.node], [[ref for _, ref in rows.node.stream.items]])

    assert total == 1
    assert (line["step"], line["row"]) == ("riddles", 2)
    assert line["text"] == "Write riddle number 2 about the sea."


def test_a_task_without_seeds_is_named(storage: Path, provider: LocalProvider) -> None:
    with pytest.raises(SourceError, match="seed_rows of 'riddles' has no rows"):
        collect(load(riddles(num_rows=0)))


def test_offline_all_shards_go_into_one_job(provider: LocalProvider, storage: Path) -> None:
    provider.set(batch_manual=True)
    with ending(provider, {"shuffle": True}):
        dataset = collect(load(riddles(llm_options={"use_offline_batch_generation": True}), shard_rows=3))

    assert dataset["riddle"][:] == written(4)
    assert [job["request_counts"]["total"] for job in provider.batches] == [4]
    assert provider.stats.count("/chat/completions") == 0


def test_offline_each_round_is_a_job(provider: LocalProvider, storage: Path) -> None:
    provider.set(batch_manual=True, answers={r"Solve this riddle: What is (?P<number>\d)": "It is {number}.", **EVERY})
    llm = OpenAILLM(model="m", use_offline_batch_generation=True)
    with ending(provider):
        dataset = collect(load(SolvedRiddles(llm=llm, num_rows=3)))

    assert dataset["answer"][:] == ["It is 0.", "It is 1.", "It is 2."]
    assert [job["request_counts"]["total"] for job in provider.batches] == [3, 3]


# Pipelines


def pipeline_of(**options: Any) -> Pipeline:
    with Pipeline("riddles", shard_rows=3) as pipeline:
        riddles(name="write", **options) >> judged()
    return pipeline


def test_it_is_a_root_of_a_pipeline_and_takes_its_parameters(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    parameters = {"write": {"num_rows": "5", "thing": "fog", "llm": {"generation_kwargs": {"temperature": 0.2}}}}

    dataset = pipeline_of().run(parameters=parameters)

    assert dataset["riddle"][:] == written(5)
    first = [each.body for each in provider.requests if "riddle number" in each.body["messages"][0]["content"]]
    assert {body["temperature"] for body in first} == {0.2}
    assert all("about fog" in body["messages"][0]["content"] for body in first)
    with pytest.raises(ParameterError, match="Did you mean 'num_rows'"):
        pipeline_of().run(parameters={"write": {"num_row": 5}})


def test_two_roots_join(provider: LocalProvider, storage: Path, prefect: str) -> None:
    from tasks import CombineOutputs

    with Pipeline("joined") as pipeline:
        topics = LoadDataFromDicts(name="topics", data=[{"topic": str(number)} for number in range(4)])
        [riddles(name="write"), topics] >> CombineOutputs(name="both")

    dataset = pipeline.run()

    assert dataset["riddle"][:] == written(4)
    assert dataset["topic"][:] == ["0", "1", "2", "3"]


def test_a_step_before_it_is_refused(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="source", data=[{"number": 1}]) >> riddles(name="write")

    with pytest.raises(PipelineError, match=r"'write' makes rows and takes none, but comes after \['source'\]"):
        pipeline.run()
    assert provider.requests == []


def test_a_missing_column_is_named_before_anything_is_sent(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        riddles(name="write") >> KeepColumns(name="keep", columns=["number"])

    with pytest.raises(PipelineError, match="keep .* needs the column 'number'; there are: model_name, riddle"):
        pipeline.run()
    assert provider.requests == []


def test_a_preview_shows_its_prompts_and_sends_nothing(provider: LocalProvider, storage: Path) -> None:
    pipeline = pipeline_of()

    prompts = pipeline.preview({"write": {"thing": "fog"}}, rows=2)

    assert provider.requests == []
    assert [chat[0]["content"] for chat in prompts["write"]] == [f"Write riddle number {n} about fog." for n in (0, 1)]
    assert prompts["judge"][0][0]["content"] == "Judge: <riddle of write>"


def test_its_seeds_are_no_step_of_a_pipeline(provider: LocalProvider) -> None:
    with Pipeline("open") as pipeline:
        riddles(name="write") >> judged()
        pipeline.validate()

    assert list(pipeline.steps) == ["write", "judge"]


def test_a_dry_run_asks_for_a_few_rows(provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path) -> None:
    with Pipeline("dry") as pipeline:
        riddles(name="write") >> SaveToDisk(path=str(tmp_path / "out"))

    dataset = pipeline.dry_run(rows=2)

    assert dataset["riddle"][:] == written(2)
    assert len(provider.requests) == 2
    assert not (tmp_path / "out").exists()


def test_the_card_and_the_report_tell_of_it(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    from flows.engine.event_loops import setting
    from flows.engine.report import report_markdown
    from flows.engine.run import Run, run_started

    runs: list[Run] = []
    with Pipeline("told") as pipeline:
        riddles(name="write", num_rows=3) >> SaveToDisk(name="target", path=str(tmp_path / "out"))
    with setting(run_started, runs.append):
        pipeline.run()

    card = (tmp_path / "out" / "README.md").read_text()
    assert "type: tasks.sources.generators:SeedRows\n  task: write" in card
    assert "num_rows: 3" in card
    assert "| `write` | Riddles | `m` | 1 | 3 | 3 | 0 | 3 |" in card
    report = report_markdown(runs[-1])
    assert "| write-seeds | 3 | – |" in report
    assert "| write | 3 | – | 3 (3) |" in report


# Parameters


@flow
async def riddle_flow(source: Riddles = Riddles(llm=OpenAILLM(model="m"), num_rows=2), use_cache: bool = True) -> Any:
    """Riddles.

    Args:
        source: Who writes them.
        use_cache: Take answers of earlier runs.
    """
    return await collect(load(source, use_cache=use_cache))


@flow
async def any_source(source: Source = Riddles(llm=OpenAILLM(model="m"), num_rows=2)) -> Any:
    """Rows of any source, riddles if nothing is said.

    Args:
        source: Where the rows come from.
    """
    return await collect(load(source))


@pytest.mark.parametrize("of", [riddle_flow, any_source], ids=["a class", "any source"])
def test_a_form_shows_its_section_with_its_defaults(of: Any) -> None:
    schema = of.parameters.model_dump()

    section = schema["definitions"]["Riddles_source"]["properties"]
    assert section["num_rows"]["default"] == 2
    assert "input_mappings" not in section
    assert schema["definitions"]["OpenAILLM_source"]["properties"]["model"]["default"] == "m"
    assert validate({"source": {"num_rows": 3}}, schema, ignore_required=True) == []
    assert validate({"source": {"num_rows": "three"}}, schema, ignore_required=True) != []


@pytest.mark.parametrize("of", [riddle_flow, any_source], ids=["a class", "any source"])
def test_a_flow_takes_a_part_of_it(of: Any, provider: LocalProvider, storage: Path, prefect: str) -> None:
    assert len(asyncio.run(of(source={"num_rows": 3}))) == 3
    assert len(dry_run(of, {"source": {"num_rows": 9}}, rows=2)) == 2
    assert len(preview(of, {"source": {"num_rows": 9}}, rows=2)["riddles"]) == 2
    assert len(provider.requests) == 3


def test_any_source_can_become_another_one_and_back() -> None:
    llm = {"provider": "openai", "model": "other"}
    loader = checked(any_source, {"source": {"kind": "files", "data_files": "x.jsonl"}})["source"]
    task = checked(any_source, {"source": {"kind": OWN, "llm": llm, "num_rows": 7}})["source"]

    assert loader.data_files == "x.jsonl"
    assert isinstance(task, Riddles)
    assert (task.num_rows, task.llm.model_name) == (7, "other")
    with pytest.raises(ParameterError, match="is no kind of GeneratorStep or GeneratorTask"):
        checked(any_source, {"source": {"kind": "tasks.writing.text_generation:TextGeneration"}})


OWN_FLOW = """
from flows import collect, flow, load
from llms import OpenAILLM
from tests.warm import WarmPython
from tests.tasks.own_generators import Riddles


@flow
async def riddle_flow(source: Riddles = Riddles(llm=OpenAILLM(model="m"), num_rows=2)):
    return await collect(load(source))
"""


def test_the_command_line_previews_and_runs_it(
    warm: WarmPython, provider: LocalProvider, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(OWN_FLOW)
    here = f"{tmp_path / 'mine.py'}:riddle_flow"

    shown = call(warm.executable, "preview", here, "source.thing=fog", "--rows", "2")
    assert shown.returncode == 0, shown.stderr
    assert "riddles, row 1\n  user: Write riddle number 1 about fog." in shown.stdout
    assert provider.requests == []

    few = call(warm.executable, "run", here, "source.num_rows=9", "--rows", "3", api=prefect_api)
    assert few.returncode == 0, few.stderr
    assert "dataset: 3 rows, columns riddle, model_name" in few.stdout
    assert len(provider.requests) == 3


def test_a_ready_made_flow_takes_one_by_its_import_path(
    warm: WarmPython, provider: LocalProvider, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    done = call(
        warm.executable,
        "run",
        "text_generation",
        f"source.kind={OWN}",
        "source.llm.provider=openai",
        "source.llm.model=m",
        'text_generation.input_mappings={"instruction": "riddle"}',
        f"target.path={tmp_path / 'out'}",
        api=prefect_api,
    )

    assert done.returncode == 0, done.stderr
    assert "4 rows, columns riddle, model_name" in done.stdout


def test_rows_of_it_are_saved(provider: LocalProvider, storage: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk

    rows: Rows = load(riddles())
    save(rows, SaveToDisk(path=str(tmp_path / "out")))

    assert load_from_disk(str(tmp_path / "out"))["riddle"][:] == written(4)
