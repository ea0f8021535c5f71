"""Pipelines: connecting, validating, branching, routing. Runs are Prefect flow runs against a real server."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows import Pipeline, PipelineError, routing_batch_function, sample_n_steps
from flows.authoring.parameters import merge_parameters
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from tasks import (
    CombineOutputs,
    ExpandColumns,
    GlobalStep,
    GroupColumns,
    KeepColumns,
    LoadDataFromDicts,
    LoadDataFromFileSystem,
    LoadDataFromHub,
    MergeColumns,
    SaveToDisk,
    SaveToFiles,
    StepInput,
    StepOutput,
    TextGeneration,
)
from tasks.sources.errors import SourceError
from tests.tasks import test_loaders

ROWS = [{"instruction": f"Tell me about number {number}."} for number in range(6)]


def llm(model: str = "m") -> OpenAILLM:
    return OpenAILLM(model=model)


def test_steps_are_named_after_their_class_and_number() -> None:
    with Pipeline("named"):
        steps = [TextGeneration(llm=llm()) for _ in range(3)]

    assert [step.name for step in steps] == ["text_generation_0", "text_generation_1", "text_generation_2"]


def test_a_name_that_is_no_parameter_is_refused() -> None:
    with pytest.raises(PipelineError, match="letters, digits and underscores, got 'text-generation'"), Pipeline("p"):
        TextGeneration(name="text-generation", llm=llm())


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(PipelineError, match="two steps are called 'a'"), Pipeline("p"):
        TextGeneration(name="a", llm=llm())
        TextGeneration(name="a", llm=llm())


def test_branches_whose_models_write_one_column_are_refused_before_anything_is_sent(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        one, two = TextGeneration(name="one", llm=llm("a")), TextGeneration(name="two", llm=llm("b"))
        source >> [one, two] >> CombineOutputs(name="join")

    with pytest.raises(PipelineError, match="'generation' comes from one in one and from two in another"):
        pipeline.run()
    assert provider.requests == []


def test_branches_of_different_models_are_joined_where_their_columns_differ() -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        one = TextGeneration(name="one", llm=llm("a"), output_mappings={"generation": "first"})
        two = TextGeneration(name="two", llm=llm("b"))
        keep = KeepColumns(name="keep", columns=["instruction", "generation"])
        source >> one
        source >> two >> keep
        [one, keep] >> CombineOutputs(name="join")

    pipeline.validate()


MOVING = {
    "expand": lambda **fields: ExpandColumns(name="move", columns={"lists": "taken"}, **fields),
    "group": lambda **fields: GroupColumns(name="move", columns=["lists"], output_columns=["taken"], **fields),
    "merge": lambda **fields: MergeColumns(name="move", columns=["lists"], output_column="taken", **fields),
}


def moving(step: str, *, taken: str, **fields: Any) -> Pipeline:
    """A step writes a column `taken`, which is there already: of the source, or of the step `writer`."""
    row = {"instruction": "Tell me more.", "lists": ["a", "b"]}
    with Pipeline("moving") as pipeline:
        source = LoadDataFromDicts(name="source", data=[row | ({"taken": "seed"} if taken == "source" else {})])
        written = "taken" if taken == "writer" else "generation"
        writer = TextGeneration(name="writer", llm=llm(), output_mappings={"generation": written})
        source >> writer >> MOVING[step](**fields)
    return pipeline


@pytest.mark.parametrize("step", MOVING)
def test_a_column_that_a_step_made_isnt_written_over_by_one_that_moves_columns(
    step: str, provider: LocalProvider
) -> None:
    problem = r"move .* writes its column 'taken' to 'taken', which writer made.*move\.output_mappings={'taken': '<an"
    with pytest.raises(PipelineError, match=problem):
        moving(step, taken="writer").run()
    assert provider.requests == []

    moving(step, taken="writer", output_mappings={"taken": "free"}).validate()


@pytest.mark.parametrize("step", MOVING)
def test_a_column_of_a_source_that_is_written_over_is_told_of_with_the_way_to_keep_it(
    step: str, provider: LocalProvider, storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = moving(step, taken="source")

    pipeline.preview()
    said = [each.getMessage() for each in caplog.records if "in the place of the one that source has" in each.message]
    caplog.clear()
    pipeline.preview({"source": {"output_mappings": {"taken": "seed"}}})

    assert len(said) == 1
    assert said[0].endswith("rename that one: source.output_mappings={'taken': '<another name>'}")
    assert "in the place of" not in caplog.text


def test_a_step_may_write_over_the_column_that_it_moves_and_over_the_name_of_the_model(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=[{"instruction": "Tell me more."}])
        one, two = TextGeneration(name="one", llm=llm("a")), TextGeneration(name="two", llm=llm("b"))
        group = GroupColumns(name="group", columns=["generation", "model_name"])
        judge = TextGeneration(name="judge", llm=llm(), output_mappings={"generation": "verdict"})
        names = {"grouped_generation": "generation", "grouped_model_name": "model_name"}
        again = GroupColumns(name="again", columns=["generation"], output_columns=["generation"])
        merge = MergeColumns(name="merge", columns=["generation", "verdict"], output_column="verdict")
        source >> [one, two] >> group >> judge >> ExpandColumns(name="expand", columns=names) >> again >> merge
        merge >> ExpandColumns(name="expand_again", columns=["verdict"])

    pipeline.validate()


def test_a_circle_is_named(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        one, two = TextGeneration(name="one", llm=llm()), TextGeneration(name="two", llm=llm())
        source >> one >> two >> one

    with pytest.raises(PipelineError, match="circle: .*(one >> two >> one|two >> one >> two)"):
        pipeline.run()
    assert provider.requests == []


def test_a_step_without_rows_is_named(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        TextGeneration(name="alone", llm=llm())

    with pytest.raises(PipelineError, match=r"'alone' \(TextGeneration\) has no step before it.*dataset="):
        pipeline.run()


def test_a_missing_column_is_named_before_anything_is_sent(provider: LocalProvider) -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        keep = KeepColumns(name="keep", columns=["generation"])
        second = TextGeneration(name="second", llm=llm())
        source >> TextGeneration(name="first", llm=llm()) >> keep >> second

    with pytest.raises(PipelineError, match="second .* needs the column 'instruction'; there are: generation"):
        pipeline.run()
    assert provider.requests == []


def test_an_empty_pipeline_says_how_to_fill_it() -> None:
    with pytest.raises(PipelineError, match="has no steps"):
        Pipeline("empty").run()


def test_an_unknown_step_in_the_parameters_names_the_near_one(provider: LocalProvider, storage: Path) -> None:
    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="source", data=ROWS) >> TextGeneration(name="text_generation", llm=llm())

    with pytest.raises(ParameterError, match="'text_generaton'. Did you mean 'text_generation'"):
        pipeline.run(parameters={"text_generaton": {}})
    with pytest.raises(ParameterError, match=r"text_generation\.llm\.generation_kwargs.*Did you mean 'temperature'"):
        pipeline.run(parameters={"text_generation": {"llm": {"generation_kwargs": {"temprature": 1}}}})
    assert provider.requests == []


def test_a_preview_shows_the_prompts_and_sends_nothing(provider: LocalProvider, storage: Path) -> None:
    with Pipeline("p") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        first = TextGeneration(name="first", llm=llm(), system_prompt="Be brief.")
        second = TextGeneration(name="second", llm=llm(), template="Judge: {{ generation }}", columns=["generation"])
        source >> first >> second

    prompts = pipeline.preview(rows=2)

    assert provider.requests == []
    assert [chat[-1]["content"] for chat in prompts["first"]] == [row["instruction"] for row in ROWS[:2]]
    assert prompts["first"][0][0] == {"role": "system", "content": "Be brief."}
    assert prompts["second"][0][0]["content"] == "Judge: <generation of first>"


def test_branches_end_in_a_dict_of_datasets(provider: LocalProvider, storage: Path, prefect: str) -> None:
    with Pipeline("branches") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> [TextGeneration(name="one", llm=llm("a")), TextGeneration(name="two", llm=llm("b"))]

    datasets = pipeline.run()

    assert set(datasets) == {"one", "two"}
    assert set(datasets["two"]["model_name"]) == {"b"}
    assert len(datasets["one"]) == len(ROWS)


def test_routed_shards_go_to_some_and_join_again_the_same_way_every_time(
    provider: LocalProvider, storage: Path, prefect: str
) -> None:
    def build() -> Pipeline:
        with Pipeline("routed", shard_rows=1) as pipeline:
            source = LoadDataFromDicts(name="source", data=ROWS)
            writers = [TextGeneration(name=f"writer_{place}", llm=llm(f"model-{place}")) for place in range(3)]
            group = GroupColumns(name="group", columns=["generation", "model_name"])
            source >> sample_n_steps(2) >> writers >> group
        return pipeline

    first = build().run()
    sent = len(provider.requests)
    second = build().run()

    assert sent == 2 * len(ROWS)
    assert len(provider.requests) == sent
    assert all(len(names) == 2 and len(set(names)) == 2 for names in first["grouped_model_name"])
    assert len({tuple(names) for names in first["grouped_model_name"]}) > 1
    assert first.to_list() == second.to_list()


def test_a_routing_function_of_ones_own(provider: LocalProvider, storage: Path, prefect: str) -> None:
    @routing_batch_function()
    def last_only(steps: list[str]) -> list[str]:
        return steps[-1:]

    with Pipeline("own-route") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> last_only >> [TextGeneration(name="one", llm=llm("a")), TextGeneration(name="two", llm=llm("b"))]

    datasets = pipeline.run()

    assert (len(datasets["one"]), len(datasets["two"])) == (0, len(ROWS))


@routing_batch_function()
def half(steps: list[str]) -> list[str]:
    """All of the steps, or none of them."""
    return steps if random.random() < 0.5 else []


def sent_by(pipeline: Pipeline, name: str) -> list[dict[str, Any]]:
    """The rows, one to a shard, that a step is sent."""
    return [row for place, row in enumerate(ROWS) if name in pipeline.routes[name].chosen(place)]


def test_a_single_step_after_a_routing_function_gets_the_shards_that_it_sends(storage: Path, prefect: str) -> None:
    with Pipeline("routed-to-one", shard_rows=1) as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> half >> KeepColumns(name="keep", columns=["instruction"])

    rows = pipeline.run().to_list()

    assert rows == sent_by(pipeline, "keep")
    assert 0 < len(rows) < len(ROWS)


def test_a_saver_after_a_routing_function_saves_the_rows_that_it_sends(
    storage: Path, prefect: str, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    with Pipeline("routed-to-savers", shard_rows=1) as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        savers = [SaveToDisk(name=name, path=str(tmp_path / name)) for name in ("one", "two")]
        source >> sample_n_steps(2) >> [*savers, KeepColumns(name="keep", columns=["instruction"])]
        source >> half >> SaveToDisk(name="only", path=str(tmp_path / "only"))

    datasets = pipeline.run()

    saved = {name: load_from_disk(str(tmp_path / name)).to_list() for name in ("one", "two", "only")}
    assert saved == {name: sent_by(pipeline, name) for name in saved}
    assert all(0 < len(rows) < len(ROWS) for rows in saved.values())
    assert {name: dataset.to_list() for name, dataset in datasets.items()} == {
        **saved,
        "keep": sent_by(pipeline, "keep"),
    }


def test_a_step_that_takes_all_rows_takes_those_that_a_routing_function_sends(storage: Path, prefect: str) -> None:
    class All(GlobalStep):
        def process(self, inputs: StepInput) -> StepOutput:
            yield [{"rows": list(inputs)}]

    with Pipeline("routed-to-all", shard_rows=1) as pipeline:
        LoadDataFromDicts(name="source", data=ROWS) >> half >> All(name="all")

    assert pipeline.run().to_list() == [{"rows": sent_by(pipeline, "all")}]


def test_steps_agree_on_the_route_of_a_function_that_goes_by_turns() -> None:
    turns = itertools.cycle(["one", "two"])

    @routing_batch_function()
    def by_turns(steps: list[str]) -> list[str]:
        return [next(turns)]

    with Pipeline("turns") as pipeline:
        steps = [KeepColumns(name=name, columns=["instruction"]) for name in ("one", "two")]
        LoadDataFromDicts(name="source", data=ROWS) >> by_turns >> steps

    sent = [[name for name in ("one", "two") if name in pipeline.routes[name].chosen(place)] for place in range(4)]

    assert sent == [["one"], ["two"], ["one"], ["two"]]


def test_one_routing_function_may_stand_in_several_places() -> None:
    @routing_batch_function()
    def first(steps: list[str]) -> list[str]:
        return steps[:1]

    with Pipeline("twice") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        a, b, c, d = (KeepColumns(name=name, columns=["instruction"]) for name in "abcd")
        source >> first >> [a, b]
        a >> first >> [c, d]

    assert {name: route.chosen(0) for name, route in pipeline.routes.items()} == {
        "a": ["a"],
        "b": ["a"],
        "c": ["c"],
        "d": ["c"],
    }


def test_routes_that_cant_be_gone_are_refused_when_they_are_made() -> None:
    with Pipeline("p"):
        source = LoadDataFromDicts(name="source", data=ROWS)
        one, two = (KeepColumns(name=name, columns=["instruction"]) for name in ("one", "two"))

        with pytest.raises(PipelineError, match="draws 3 steps, and has 2 steps to draw from: 'one', 'two'"):
            source >> sample_n_steps(3) >> [one, two]
        with pytest.raises(PipelineError, match="expected a step or a list of steps after a routing function, got 'o"):
            source >> half >> "one"
        with pytest.raises(PipelineError, match="expected a step or a list of steps after a routing function, got"):
            source >> half >> half
        source >> half >> one
        with pytest.raises(PipelineError, match="'one' comes after a routing function already"):
            source >> sample_n_steps(1) >> [one, two]


def test_a_dataset_given_to_run_feeds_the_first_steps(provider: LocalProvider, storage: Path, prefect: str) -> None:
    with Pipeline("given") as pipeline:
        TextGeneration(name="text_generation", llm=llm())

    dataset = pipeline.run(dataset=ROWS)

    assert dataset["instruction"][:] == [row["instruction"] for row in ROWS]


def test_a_saver_at_the_end_saves(provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path) -> None:
    from datasets import load_from_disk

    with Pipeline("saving") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> TextGeneration(name="text_generation", llm=llm()) >> SaveToDisk(path=str(tmp_path / "out"))

    dataset = pipeline.run()

    assert load_from_disk(str(tmp_path / "out")).to_list() == dataset.to_list()
    assert "text_generation" in (tmp_path / "out" / "README.md").read_text()


def test_a_dry_run_sends_a_few_rows_and_saves_nothing(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    with Pipeline("dry") as pipeline:
        source = LoadDataFromDicts(name="source", data=ROWS)
        source >> TextGeneration(name="text_generation", llm=llm()) >> SaveToDisk(path=str(tmp_path / "out"))

    dataset = pipeline.dry_run(rows=2)

    assert len(dataset) == len(provider.requests) == 2
    assert not (tmp_path / "out").exists()


def test_run_works_where_an_event_loop_is_running(provider: LocalProvider, storage: Path, prefect: str) -> None:
    import asyncio

    with Pipeline("notebook") as pipeline:
        LoadDataFromDicts(name="source", data=ROWS) >> TextGeneration(name="text_generation", llm=llm())

    async def cell() -> int:
        return len(pipeline.run())

    assert asyncio.run(cell()) == len(ROWS)


# Parameters at run time: merged before anything is checked


def reading(**fields: Any) -> Pipeline:
    with Pipeline("reading") as pipeline:
        source = LoadDataFromFileSystem(name="source", **fields)
        source >> TextGeneration(name="writer", llm=llm()) >> KeepColumns(name="keep", columns=["generation"])
    return pipeline


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A file whose columns no step reads under their own names."""
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "How high is K2?"}\n{"question": "How deep is it?"}\n')
    return file


AT_RUN_TIME = {
    "writer": {"input_mappings": {"instruction": "question"}, "output_mappings": {"generation": "answer"}},
    "keep": {"columns": ["answer"]},
}


def test_a_source_mappings_and_columns_may_be_given_at_run_time(
    questions: Path, provider: LocalProvider, storage: Path, prefect: str
) -> None:
    dataset = reading().run(parameters={"source": {"data_files": str(questions)}, **AT_RUN_TIME})

    assert [request.body["messages"][-1]["content"] for request in provider.requests] == [
        "How high is K2?",
        "How deep is it?",
    ]
    assert set(dataset.column_names) == {"answer", "distilabel_metadata"}


def test_and_for_a_preview(questions: Path, storage: Path) -> None:
    prompts = reading().preview({"source": {"data_files": str(questions)}, **AT_RUN_TIME})

    assert [chat[-1]["content"] for chat in prompts["writer"]] == ["How high is K2?", "How deep is it?"]


hub = test_loaders.hub


def test_a_source_of_the_hub_may_be_named_at_run_time(
    hub: str, monkeypatch: pytest.MonkeyPatch, provider: LocalProvider
) -> None:
    # The environment's is read once, when it's imported.
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub)
    with Pipeline("hub") as pipeline:
        LoadDataFromHub(name="source") >> TextGeneration(name="writer", llm=llm())

    with pytest.raises(SourceError, match=r"repo_id of 'source': expected owner/name of a dataset on the Hub, got ''"):
        pipeline.run()
    with pytest.raises(SourceError, match=r"'org/questions' doesn't exist on the Hub"):
        pipeline.run(parameters={"source": {"repo_id": "org/questions"}})


def test_what_doesnt_fit_after_the_parameters_is_refused_before_anything_is_sent(
    questions: Path, provider: LocalProvider
) -> None:
    files = {"source": {"data_files": str(questions)}}

    with pytest.raises(PipelineError, match="writer .* needs the column 'instruction'; there are: question"):
        reading().run(parameters=files)
    with pytest.raises(ParameterError, match=r"writer\.input_maping.*Did you mean 'input_mappings'"):
        reading().run(parameters={**files, "writer": {"input_maping": {}}})
    with pytest.raises(ParameterError, match=r"source\.data_files.*got 3"):
        reading().run(parameters={"source": {"data_files": 3}})
    assert provider.requests == []


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's, in which a worker would find a pipeline."""
    made = ModuleType("my_pipelines")
    monkeypatch.setitem(sys.modules, "my_pipelines", made)
    return made


def test_a_deployment_may_leave_to_each_run_what_it_reads_and_says_so(
    questions: Path, module: ModuleType, prefect: str, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    pipeline = reading()
    module.pipeline = pipeline
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="of-pipelines", type="process"))
        identifier = pipeline.deploy("mine", "of-pipelines", parameters=AT_RUN_TIME)
        deployment = client.read_deployment(identifier)

    assert deployment.parameters == AT_RUN_TIME
    assert deployment.entrypoint == "my_pipelines:pipeline.flow"
    assert "pipeline 'reading' needs parameters at each run: as it stands, data_files of 'source' is empty" in (
        caplog.text
    )
    given = {"source": {"data_files": str(questions)}}
    merged = merge_parameters(pipeline.flow.fn, deployment.parameters, given)
    # As the server does it: what a run gives stands in place of the deployment's parameter of that name.
    pipeline.validate({**deployment.parameters, **merged})


@pytest.mark.parametrize("method", ["deploy", "serve"])
def test_a_wrong_parameter_of_a_deployment_is_refused_by_name(method: str, module: ModuleType) -> None:
    pipeline = reading()
    module.pipeline = pipeline
    pool = ["of-pipelines"] if method == "deploy" else []

    with pytest.raises(ParameterError, match=r"writer\.llm\.modle.*Did you mean 'model'"):
        getattr(pipeline, method)("mine", *pool, parameters={"writer": {"llm": {"modle": "x"}}})
    with pytest.raises(ParameterError, match="'writr'. Did you mean 'writer'"):
        getattr(pipeline, method)("mine", *pool, parameters={"writr": {}})


def test_a_column_of_another_name_is_told_with_the_mapping_at_its_source_that_works_for_all_steps() -> None:
    with Pipeline(name="renamed") as pipeline:
        rows = LoadDataFromDicts(name="rows", data=[{"question": "How high is K2?"}])
        first = TextGeneration(name="first", llm=OpenAILLM(model="m"), output_mappings={"model_name": "first_model"})
        second = TextGeneration(
            name="second", llm=OpenAILLM(model="m"), output_mappings={"generation": "again", "model_name": "other"}
        )
        rows >> first >> second

    with pytest.raises(PipelineError) as raised:
        pipeline.preview()
    assert "rows.output_mappings={'question': 'instruction'} for all steps" in str(raised.value)
    assert "or input_mappings={'instruction': 'question'} for this one" in str(raised.value)

    prompts = pipeline.preview({"rows": {"output_mappings": {"question": "instruction"}}})

    assert [prompts[name][0][-1]["content"] for name in ("first", "second")] == ["How high is K2?"] * 2


def test_every_saver_after_a_step_saves_its_rows(storage: Path, prefect: str, tmp_path: Path) -> None:
    from datasets import load_from_disk

    with Pipeline("saving-twice") as pipeline:
        keep = KeepColumns(name="keep", columns=["instruction"])
        savers = [SaveToDisk(path=str(tmp_path / "disk")), SaveToFiles(path=str(tmp_path / "rows.jsonl"))]
        LoadDataFromDicts(name="source", data=ROWS) >> keep >> savers

    dataset = pipeline.run()

    assert load_from_disk(str(tmp_path / "disk")).to_list() == dataset.to_list()
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == dataset["instruction"][:]


def test_a_saver_of_several_steps_or_before_a_step_is_refused_with_the_way_out() -> None:
    with Pipeline("p"):
        one, two = KeepColumns(name="one", columns=["a"]), KeepColumns(name="two", columns=["a"])
        saver = SaveToDisk(name="saver", path="out")
        LoadDataFromDicts(name="source", data=[{"a": 1}]) >> [one, two]
        one >> saver
        with pytest.raises(PipelineError, match="'saver' saves the rows of one step, and 'one' is before it already"):
            two >> saver
        with pytest.raises(PipelineError, match=r"passes none on: connect 'two' to .* `step >> \[saver, two\]`"):
            saver >> two
