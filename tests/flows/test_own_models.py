"""Models of a user's own, wherever a model of ours can stand: in a Pipeline, as a flow's default, by import path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate
from pydantic import ConfigDict, Field, SecretStr

from flows import Pipeline, PipelineError, flow
from flows.authoring.preview import checked
from llms import LLM, ParameterError
from tasks import EmbeddingGeneration, ImageGeneration, LoadDataFromDicts, SaveToDisk, Step, TextGeneration
from tests.conftest import LONGEST, ROOT
from tests.flows.own_models import CustomAsyncLLM, CustomEmbeddings, CustomImages, CustomLLM

ROWS = [{"instruction": "Hello", "text": "ebb", "prompt": "A dot."}]
HERE = "tests.flows.own_models"


def steps() -> list[Any]:
    return [
        TextGeneration(name="step", llm=CustomLLM()),
        TextGeneration(name="step", llm=CustomAsyncLLM()),
        EmbeddingGeneration(name="step", embeddings=CustomEmbeddings()),
        ImageGeneration(name="step", image_generation_model=CustomImages()),
    ]


def kinds(step: Any) -> str:
    return type(step.answerer).__name__


def model_field(step: Any) -> str:
    return {"TextGeneration": "llm", "EmbeddingGeneration": "embeddings"}.get(
        type(step).__name__, "image_generation_model"
    )


@pytest.mark.parametrize("step", steps(), ids=kinds)
def test_a_pipeline_runs_with_it_and_the_rows_and_the_card_name_it(
    step: Any, storage: Path, prefect: str, tmp_path: Path
) -> None:
    with Pipeline("own") as pipeline:
        mine = type(step)(name="mine", **{model_field(step): step.answerer})
        LoadDataFromDicts(name="load", data=ROWS) >> mine >> SaveToDisk(name="keep", path=str(tmp_path / "out"))

    (row,) = pipeline.run().to_list()

    assert row["model_name"] == "my-model"
    assert row["distilabel_metadata"]["error_mine"] is None
    card = (tmp_path / "out" / "README.md").read_text()
    assert "my-model" in card
    assert type(step.answerer).__name__ in card


@pytest.mark.parametrize("step", steps(), ids=kinds)
def test_as_a_flows_default_it_is_the_first_tab_and_the_server_takes_what_the_form_starts_with(step: Any) -> None:
    @flow
    def own(step: Step = step) -> Any:
        return step

    schema = own.parameters.model_dump()
    shown = schema["properties"]["step"]["default"]
    title = type(step.answerer).__name__
    tabs = schema["definitions"][f"{type(step).__name__}_step"]["properties"][model_field(step)]["anyOf"]

    assert schema["definitions"][tabs[0]["$ref"].rpartition("/")[2]]["title"] == title
    assert shown[model_field(step)]["provider"] == f"{HERE}:{title}"
    assert validate({"step": shown}, schema) == []
    assert checked(own, {"step": shown})["step"].answerer == step.answerer


@pytest.mark.parametrize("step", steps(), ids=kinds)
def test_it_is_taken_by_its_import_path_in_place_of_one_of_ours(step: Any) -> None:
    from llms import OpenAIEmbeddings, OpenAIImageGeneration, OpenAILLM

    ours = {"llm": OpenAILLM, "embeddings": OpenAIEmbeddings, "image_generation_model": OpenAIImageGeneration}
    default = type(step)(**{model_field(step): ours[model_field(step)](model="m")})

    @flow
    def own(step: Step = default) -> Any:
        return step

    given = {"step": {model_field(step): {"provider": f"{HERE}:{type(step.answerer).__name__}"}}}

    assert validate(given, own.parameters.model_dump(), ignore_required=True) == []
    assert checked(own, given)["step"].answerer == step.answerer


PROGRAM = """
import json
import sys

from flows import Pipeline
from flows.authoring.preview import checked
from llms import LLM
from tasks import LoadDataFromDicts, TextGeneration

print("the program runs", file=sys.stderr)


class CustomLLM(LLM):
    @property
    def model_name(self):
        return "my-model"

    def generate(self, inputs, num_generations=1, **kwargs):
        counts = {"input_tokens": [1], "output_tokens": [1]}
        return [{"generations": [f"{chat[-1]['content']} {kwargs}"], "statistics": counts} for chat in inputs]


with Pipeline(name="own") as pipeline:
    LoadDataFromDicts(name="load", data=[{"instruction": "Hello"}]) >> TextGeneration(name="answers", llm=CustomLLM())

if __name__ == "__main__":
    given = {"provider": "own_program:CustomLLM", "generation_kwargs": {"beams": 4}}
    (row,) = pipeline.run(parameters={"answers": {"llm": given}}).to_list()
    again = checked(pipeline.flow, {"answers": {"llm": {"provider": "openai", "model": "m"}}})["answers"]
    back = again.merged({"llm": given}).llm
    print(json.dumps([row["generation"], back.provider, type(back) is CustomLLM]))
"""


def test_a_class_of_a_program_goes_by_the_files_name_and_the_program_runs_once(
    tmp_path: Path, storage: Path, prefect: str
) -> None:
    script = tmp_path / "own_program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": prefect, "PREFECT_HOME": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LONGEST
    )

    assert done.returncode == 0, done.stderr
    said, provider, is_the_same = json.loads(done.stdout.splitlines()[-1])
    assert said == "Hello {'beams': 4}"
    assert provider == "own_program:CustomLLM"
    assert is_the_same
    assert done.stderr.count("the program runs") == 1


def test_a_class_made_in_a_function_works_in_its_process_and_elsewhere_the_message_says_why_not(
    storage: Path, prefect: str
) -> None:
    class Inside(CustomLLM):
        pass

    with Pipeline("inside") as pipeline:
        mine = TextGeneration(name="mine", llm=Inside())
        LoadDataFromDicts(name="load", data=ROWS) >> mine

    (row,) = pipeline.run(parameters={"mine": {"llm": {"generation_kwargs": {"beams": 4}}}}).to_list()

    assert row["generation"] == "Hello {'beams': 4}"
    with pytest.raises(ParameterError, match="made inside a function is found nowhere else: define it at the top"):
        mine.merged({"llm": {"provider": "openai", "model": "m"}}).merged({"llm": {"provider": mine.llm.provider}})


def test_a_pipeline_of_a_notebook_is_no_deployment_and_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from types import ModuleType

    with Pipeline("cell") as pipeline:
        LoadDataFromDicts(name="load", data=ROWS) >> TextGeneration(name="mine", llm=CustomLLM())
    notebook = ModuleType("__main__")
    notebook.__dict__["pipeline"] = pipeline
    monkeypatch.setitem(sys.modules, "__main__", notebook)

    with pytest.raises(PipelineError, match="defined in a notebook or at a prompt.*put it into a file"):
        pipeline.deploy("mine", "a-pool")


def test_a_secret_of_ones_own_model_is_in_no_form_and_in_no_cache_key() -> None:
    class WithSecret(CustomLLM):
        passphrase: SecretStr = SecretStr("sk-very-secret")

    step = TextGeneration(llm=WithSecret())

    @flow
    def own(step: TextGeneration = step) -> Any:
        return step

    schema = own.parameters.model_dump()
    assert "passphrase" not in json.dumps(schema)
    assert checked(own, {"step": schema["properties"]["step"]["default"]})["step"].llm == step.llm
    assert "passphrase" not in step.llm.identity()


class Connection:
    pass


def test_what_cannot_be_written_down_is_named_with_the_way_out() -> None:
    class Connected(CustomLLM):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        connection: Connection = Field(default_factory=Connection)

    def own(step: TextGeneration = TextGeneration(llm=Connected())) -> Any:
        return step

    with pytest.raises(ParameterError, match=r"Connected\.connection is .*make it a PrivateAttr that `load` fills"):
        flow(own)


def test_a_field_that_is_not_written_down_is_no_obstacle(storage: Path, prefect: str) -> None:
    class Connected(LLM):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        connection: Connection = Field(default_factory=Connection, exclude=True)

        @property
        def model_name(self) -> str:
            return "connected"

        def generate(self, inputs: Any, num_generations: int = 1) -> Any:
            return CustomLLM().generate(inputs, num_generations)

    with Pipeline("connected") as pipeline:
        LoadDataFromDicts(name="load", data=ROWS) >> TextGeneration(name="mine", llm=Connected())

    assert pipeline.run()["generation"][:] == ["Hello {}"]
