"""Pipelines: connecting, validating, branching, routing. Runs are Prefect flow runs against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import Pipeline, PipelineError, routing_batch_function, sample_n_steps
from llms import OpenAILLM, ParameterError
from llms.local_provider import LocalProvider
from tasks import GroupColumns, KeepColumns, LoadDataFromDicts, SaveToDisk, TextGeneration

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
