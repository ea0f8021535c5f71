"""A pipeline as a file and as a picture; and the other ways of distilabel to make and connect steps."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from flows import Pipeline, PipelineError, routing_batch_function, sample_n_steps
from llms import OpenAILLM
from tasks import CLAIR, CombineOutputs, LoadDataFromDicts, Step, StepInput, StepOutput, TextGeneration
from tests.conftest import said

ROWS = [{"instruction": "How high is K2?"}, {"instruction": "Who climbed it first?"}]


class Shout(Step):
    """A step of one's own."""

    @property
    def inputs(self) -> list[str]:
        return ["instruction"]

    @property
    def outputs(self) -> list[str]:
        return ["shout"]

    def process(self, inputs: StepInput) -> StepOutput:
        self._logger.info("%d rows", len(inputs))
        yield [{**row, "shout": row["instruction"].upper()} for row in inputs]


def two_branches() -> Pipeline:
    with Pipeline("two-branches", "Two models.", use_cache=False, shard_rows=10) as pipeline:
        load = LoadDataFromDicts(name="load", data=ROWS)
        small = TextGeneration(
            name="small",
            llm=OpenAILLM(model="small", generation_kwargs={"temperature": 0.3}),
            output_mappings={"generation": "short"},
        )
        large = TextGeneration(name="large", llm=OpenAILLM(model="large"), system_prompt="Be brief.")
        load >> [small, large] >> CombineOutputs(name="join")
    return pipeline


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_a_pipeline_comes_back_from_a_file_as_it_was(tmp_path: Path, ending: str) -> None:
    pipeline = two_branches()
    pipeline.save(tmp_path / f"pipeline.{ending}")

    again = Pipeline.from_yaml(tmp_path / f"pipeline.{ending}")

    assert again.options() == pipeline.options()
    assert again.edges == pipeline.edges
    assert {name: step.identity() for name, step in again.steps.items()} == {
        name: step.identity() for name, step in pipeline.steps.items()
    }
    assert again.dump() == pipeline.dump()


def test_a_pipeline_from_a_file_makes_the_same_dataset(provider: Any, storage: Path, prefect: str) -> None:
    dataset = two_branches().run()
    sent = len(provider.requests)

    again = Pipeline.from_dict(json.loads(json.dumps(two_branches().dump()))).run()

    assert sent == 2 * len(ROWS)
    assert again.column_names == dataset.column_names
    assert [row["instruction"] for row in again.to_list()] == [row["instruction"] for row in ROWS]


def test_a_file_never_holds_a_key_that_was_given_in_code() -> None:
    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="load", data=ROWS) >> TextGeneration(
            name="t", llm=OpenAILLM(model="m", api_key="sk-123")
        )

    assert "sk-123" not in json.dumps(pipeline.dump())
    Pipeline.from_dict(pipeline.dump()).validate()


def test_routes_that_draw_are_kept_in_a_file_and_functions_refused() -> None:
    @routing_batch_function()
    def first_only(steps: list[str]) -> list[str]:
        return steps[:1]

    with Pipeline("drawn") as drawn:
        load = LoadDataFromDicts(name="load", data=ROWS)
        load >> sample_n_steps(1) >> [Shout(name="one"), Shout(name="two")]
    with Pipeline("own") as own:
        load = LoadDataFromDicts(name="load", data=ROWS)
        load >> first_only >> [Shout(name="one"), Shout(name="two")]

    again = Pipeline.from_dict(drawn.dump())

    assert again.routes.keys() == {"one", "two"}
    assert [again.routes["one"].chosen(place) for place in range(5)] == [
        drawn.routes["one"].chosen(place) for place in range(5)
    ]
    with pytest.raises(PipelineError, match="a routing function of one's own is code"):
        own.dump()


def test_a_step_that_comes_after_a_routing_function_and_after_another_step_keeps_both_in_their_order() -> None:
    with Pipeline("both") as pipeline:
        load = LoadDataFromDicts(name="load", data=ROWS)
        other, one, two = Shout(name="other"), Shout(name="one"), Shout(name="two")
        load >> other >> one
        load >> sample_n_steps(1) >> [one, two]

    again = Pipeline.from_dict(json.loads(json.dumps(pipeline.dump())))

    assert again.edges == pipeline.edges == {"load": [], "other": ["load"], "one": ["other", "load"], "two": ["load"]}
    assert again.routes.keys() == {"one", "two"}
    assert "other --> one" in again.draw()
    assert "load -. routed .-> one" in again.draw()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"text_generation": {"llm": {}}}, "expected a pipeline as `Pipeline.save` writes it"),
        ({"steps": {"a": {"class": "os:environ"}}}, "class='os:environ' is no Step"),
        ({"steps": {"a": {"class": "tasks:Nothing"}}}, "steps.a: class='tasks:Nothing' can't be imported"),
        ({"steps": {}, "connections": {"a": ["b"]}}, "there's no step 'b'"),
        ({"steps": {}, "pipeline": {"title": "x"}}, "there's no option 'title'"),
    ],
)
def test_what_is_no_pipeline_is_refused_with_what_is_wrong(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(PipelineError, match=problem):
        Pipeline.from_dict(values)


def test_a_step_of_a_class_that_no_module_has_is_refused() -> None:
    class Local(Shout):
        pass

    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="load", data=ROWS) >> Local(name="local")

    with pytest.raises(PipelineError, match="'local': a file names classes by their module"):
        pipeline.dump()


def test_a_pipeline_is_drawn_as_a_flowchart(tmp_path: Path) -> None:
    chart = two_branches().draw(tmp_path / "chart.mmd")

    assert (tmp_path / "chart.mmd").read_text() == chart
    assert chart.splitlines()[0] == "flowchart TD"
    assert '    small["small<br>TextGeneration"]' in chart
    assert {"    load --> small", "    load --> large", "    small --> join", "    large --> join"} <= set(
        chart.splitlines()
    )


def test_steps_are_connected_by_connect_and_made_in_a_pipeline_that_is_given() -> None:
    pipeline = Pipeline("p")
    load = LoadDataFromDicts(name="load", data=ROWS, pipeline=pipeline)
    one, two = Shout(name="one", pipeline=pipeline), Shout(name="two", pipeline=pipeline)
    join = CombineOutputs(name="join", pipeline=pipeline)
    load.connect(one, two)
    one.connect(join)
    two.connect(join)

    assert pipeline.edges == {"load": [], "one": ["load"], "two": ["load"], "join": ["one", "two"]}
    assert pipeline.name == "p"


def test_steps_are_routed_by_connect() -> None:
    with Pipeline() as pipeline:
        load = LoadDataFromDicts(name="load", data=ROWS)
        one, two = Shout(name="one"), Shout(name="two")
        load.connect(one, two, routing_batch_function=sample_n_steps(1))

    assert set(pipeline.routes) == {"one", "two"}


def test_a_pipeline_without_a_name_is_named_after_its_steps() -> None:
    with Pipeline() as pipeline:
        LoadDataFromDicts(name="load_rows", data=ROWS) >> Shout(name="shout")

    assert pipeline.name == "pipeline-load-rows-shout"
    assert pipeline.flow.name == pipeline.name


def test_a_parameter_that_is_called_pipeline_is_none() -> None:
    with pytest.raises(ValueError, match="Shout has no parameter 'pipeline'"):
        Shout.model_validate({"pipeline": "p"})


def test_a_step_of_ones_own_has_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    step = Shout(name="shout")
    logger = step._logger.name  # pyright: ignore[reportPrivateUsage] -- as steps of distilabel's have it
    with caplog.at_level(logging.INFO, logger):
        step.apply(ROWS)

    assert said(caplog, logger) == ["2 rows"]


def test_the_datasets_of_several_last_steps_are_saved_together(provider: Any, storage: Path, prefect: str) -> None:
    from datasets import load_from_disk

    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="load", data=ROWS) >> [Shout(name="one"), Shout(name="two")]

    datasets = pipeline.run()
    datasets.save_to_disk(storage / "saved")

    assert set(datasets) == {"one", "two"}
    assert load_from_disk(str(storage / "saved" / "two"))["shout"][0] == "HOW HIGH IS K2?"
    assert datasets.train_test_split(0.5, seed=1)["one"]["test"].num_rows == 1


def test_a_prompt_that_was_taken_out_is_still_out_when_it_is_read_again(tmp_path: Path) -> None:
    with Pipeline("without") as pipeline:
        rows = LoadDataFromDicts(name="rows", data=[{"task": "t", "student_solution": "s"}])
        rows >> CLAIR(name="clair", llm=OpenAILLM(model="m"), system_prompt=None)
    pipeline.save(tmp_path / "pipeline.yaml")

    assert Pipeline.from_yaml(tmp_path / "pipeline.yaml").steps["clair"].system_prompt is None


@pytest.mark.parametrize("ending", ["yaml", "json"])
@pytest.mark.parametrize(
    "value",
    [1e-05, 1e22, float("nan"), "1e5", "one\x85two", "one\u2028two", "one\x7ftwo", "one\r\ntwo", "one\ttwo", "中文 🙂"],
    ids=repr,
)
def test_a_rows_numbers_and_texts_come_back_from_a_file_as_they_were(tmp_path: Path, ending: str, value: Any) -> None:
    with Pipeline("p") as pipeline:
        LoadDataFromDicts(name="load", data=[{"value": value}])
    pipeline.save(tmp_path / f"p.{ending}")

    again = Pipeline.from_yaml(tmp_path / f"p.{ending}")

    assert repr(again.dump()["steps"]["load"]["data"]) == repr([{"value": value}])


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_file_that_cant_be_read_is_named_with_the_place_that_is_wrong(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p.{ending}"
    path.write_text('{"steps": [1, 2}')

    with pytest.raises(PipelineError, match=rf"(?s)can't read a pipeline from '{path}': .*line 1,? column 16"):
        Pipeline.from_yaml(path)
