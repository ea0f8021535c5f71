"""Eight of distilabel's example pipelines, written anew with this project's imports, online and in batches.

Those of its repository's folder `examples`: exam_questions, finepersonas_social_ai, deepseek_prover, image_generation,
pipe_math_shepherd, pipeline_apigen, structured_generation_with_instructor and text_generation_with_image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from flows import Pipeline
from llms import OpenAIImageGeneration, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import (
    APIGenExecutionChecker,
    APIGenGenerator,
    APIGenSemanticChecker,
    CombineOutputs,
    DataSampler,
    FormatTextGenerationSFT,
    ImageGeneration,
    LoadDataFromDicts,
    MathShepherdCompleter,
    MathShepherdGenerator,
    PrepareExamples,
    Task,
    TextGeneration,
    TextGenerationWithImage,
)
from tasks.typing import Row, StepColumns
from tests.conftest import LONGEST

Models = Callable[..., OpenAILLM]


@pytest.fixture(params=["online", "in batches"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    return request.param


@pytest.fixture
def model(how: str) -> Models:
    """Makes the LLMs of an example, for the way that it's run in."""

    def make(name: str = "m", **options: Any) -> OpenAILLM:
        return OpenAILLM(model=name, use_offline_batch_generation=how == "in batches", **options)

    return make


@pytest.fixture(autouse=True)
def quick_batches(provider: LocalProvider, storage: Path, prefect: str) -> None:
    provider.set(batch_seconds=0.0)


def asked_as_wanted(provider: LocalProvider, how: str) -> bool:
    """Whether every answer came in the way that was asked for."""
    online = provider.stats.count("/chat/completions") + provider.stats.count("/images/generations")
    return (online == 0) == (how == "in batches")


# Exam questions: a schema with a class in a class, and a system prompt.


class ExamQuestion(BaseModel):
    question: str = Field(description="What is asked.")
    answer: str = Field(description="The right answer.")
    distractors: list[str] = Field(description="Wrong answers that could be right.")


class ExamQuestions(BaseModel):
    exam: list[ExamQuestion]


def test_exam_questions(provider: LocalProvider, model: Models, how: str) -> None:
    with Pipeline(name="ExamGenerator") as pipeline:
        load_dataset = LoadDataFromDicts(name="load_instructions", data=[{"instruction": "K2 is 8,611 m high."}])
        text_generation = TextGeneration(
            name="exam_generation",
            system_prompt="You write exams about documents.",
            template="Write questions about this document:\n\n{{ instruction }}",
            llm=model(structured_output={"schema": ExamQuestions.model_json_schema(), "format": "json"}),
            output_mappings={"model_name": "generation_model"},
        )
        load_dataset >> text_generation

    dataset = pipeline.run(
        parameters={text_generation.name: {"llm": {"generation_kwargs": {"max_new_tokens": 2048}}}}, use_cache=False
    )

    assert ExamQuestions.model_validate_json(dataset[0]["generation"]).exam
    assert dataset[0]["generation_model"] == "m"
    assert asked_as_wanted(provider, how)


# Social personas: a subclass that fills its own system prompt, three branches that end in a dataset each.


class SocialAI(TextGeneration):
    follower_type: Literal["supporter", "troll", "alarmist"] = "supporter"
    system_prompt: str | None = (
        "Answer as a {follower_type} would, in 200 characters at most. Such people are {traits}."
    )
    template: str = "You are this person: {{ persona }}\n\nWhat do you say to this?\n\n{{ post }}"
    columns: list[str] = ["persona", "post"]

    _traits: dict[str, str] = {"supporter": "kind", "troll": "mocking", "alarmist": "anxious"}

    def load(self) -> None:
        super().load()
        traits = self._traits[self.follower_type]
        self.system_prompt = (self.system_prompt or "").format(follower_type=self.follower_type, traits=traits)


def test_social_personas(provider: LocalProvider, model: Models, how: str) -> None:
    data = [{"post": post, "persona": who} for post in ("Tacos?", "Late again.") for who in ("A cook.", "A guide.")]
    with Pipeline(name="Social AI Personas") as pipeline:
        loader = LoadDataFromDicts(data=data, batch_size=1)
        for follower_type in ("supporter", "troll", "alarmist"):
            follower = SocialAI(
                llm=model(generation_kwargs={"temperature": 0.7, "max_new_tokens": 256}),
                follower_type=follower_type,
                name=f"{follower_type}_user",
                output_mappings={"generation": f"interaction_{follower_type}"},
            )
            format_sft = FormatTextGenerationSFT(
                name=f"format_sft_{follower_type}",
                input_mappings={"instruction": "post", "generation": f"interaction_{follower_type}"},
            )
            loader >> follower >> format_sft

    datasets = pipeline.run()

    assert set(datasets) == {"format_sft_supporter", "format_sft_troll", "format_sft_alarmist"}
    for follower_type in ("supporter", "troll", "alarmist"):
        rows = datasets[f"format_sft_{follower_type}"].to_list()
        assert [row["post"] for row in rows] == [row["post"] for row in data]
        assert all(row["messages"][-1]["content"] == row[f"interaction_{follower_type}"] for row in rows)
        prompts = [row["distilabel_metadata"][f"raw_input_{follower_type}_user"][0]["content"] for row in rows]
        assert {follower_type in prompt and "{" not in prompt for prompt in prompts} == {True}
    assert asked_as_wanted(provider, how)


# The prover: three Tasks of one's own, whose columns are attributes of their classes.

LEAN = re.compile(r"```lean4(.*?)```", re.DOTALL)


def lean_in(output: str | None) -> str | None:
    found = LEAN.search(output or "")
    return found[1].strip() if found else None


class AutoFormalization(Task):
    inputs: StepColumns = ["informal_statement"]
    outputs: StepColumns = ["formal_statement", "model_name"]
    system_prompt: str | None = "Translate the problem to Lean 4."

    def format_input(self, input: Row) -> Any:
        return [
            {"role": "system", "content": self.system_prompt},
            {"role": "user", "content": f"Problem: {input[self.inputs[0]]}"},
        ]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"formal_statement": lean_in(output)}


class ProverScorer(Task):
    inputs: StepColumns = ["informal_statement", "formal_statement"]
    outputs: StepColumns = ["natural_language", "analysis", "assessment"]

    def format_input(self, input: Row) -> Any:
        said, formal = (input[name] for name in self.inputs)
        return [{"role": "user", "content": f"Assess it.\n{said}\n{formal}"}]

    def format_output(self, output: str | None, input: Row) -> Row:
        parts = re.split(r"Natural language:|Analysis:|Assessment:", output or "")
        return dict(zip(self.outputs, [part.strip() for part in parts[1:]] or [None] * 3, strict=True))


class ProverSolver(Task):
    inputs: StepColumns = ["formal_statement"]
    outputs: StepColumns = ["proof"]
    system_prompt: str | None = "Prove the theorem."

    def format_input(self, input: Row) -> Any:
        return [{"role": "user", "content": f"Prove:\n```lean4\n{input['formal_statement']}\n```"}]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"proof": lean_in(output)}


def test_the_prover(provider: LocalProvider, model: Models, how: str) -> None:
    provider.set(
        answers=[
            {"match": "^Problem", "answer": "Here: ```lean4\ntheorem t : 1 + 1 = 2 :=\n```"},
            {"match": "^Assess", "answer": "Natural language: One and one.\nAnalysis: Easy.\nAssessment: fair"},
            {"match": "^Prove", "answer": "```lean4\nrfl\n```"},
        ]
    )
    with Pipeline(name="prover") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"informal_statement": "One plus one is two."}])
        auto_formalization = AutoFormalization(name="auto_formalization", llm=model())
        prover_scorer = ProverScorer(name="prover_scorer", llm=model())
        proof_generator = ProverSolver(name="proof_generator", llm=model())
        load >> auto_formalization >> prover_scorer >> proof_generator

    row = pipeline.run()[0]

    assert (row["formal_statement"], row["proof"]) == ("theorem t : 1 + 1 = 2 :=", "rfl")
    assert (row["natural_language"], row["analysis"], row["assessment"]) == ("One and one.", "Easy.", "fair")
    assert "inputs" not in AutoFormalization.model_fields
    assert asked_as_wanted(provider, how)


# Images.


def test_image_generation(provider: LocalProvider, how: str) -> None:
    images = OpenAIImageGeneration(model="gpt-image-2", use_offline_batch_generation=how == "in batches")
    with Pipeline(name="image_generation_pipeline") as pipeline:
        loader = LoadDataFromDicts(name="loader", data=[{"prompt": "A white crow."}, {"prompt": "A blue fox."}])
        loader >> ImageGeneration(name="image_generation", image_generation_model=images)

    dataset = pipeline.run()

    assert [row["prompt"] for row in dataset.to_list()] == ["A white crow.", "A blue fox."]
    assert len(set(dataset["image"])) == 2
    assert asked_as_wanted(provider, how)


# Math-Shepherd: two generators whose columns meet in CombineOutputs, given to `run` as a dataset.

CRATES = "A crate holds 12 bottles. How many are in 3 crates, if 2 are missing?"


def solution(answer: str, *steps: str) -> dict[str, Any]:
    return {"steps": list(steps), "answer": answer}


@pytest.mark.parametrize("golden", ["m", "larger"])
def test_math_shepherd(provider: LocalProvider, model: Models, how: str, golden: str) -> None:
    right, wrong = solution("34", "3 * 12 = 36.", "36 - 2 = 34."), solution("42", "12 + 2 = 14.", "14 * 3 = 42.")
    rules: list[tuple[str, Any]] = [
        (r"Carry it on[\s\S]*36\.", solution("34", "36 - 2 = 34.")),
        (r"Carry it on[\s\S]*14\.", solution("42", "14 * 3 = 42.")),
        (r"Write 2 solutions", {"solution_1": right, "solution_2": wrong}),
        (r"crate", right),
    ]
    provider.set(answers=[{"match": match, "answer": json.dumps(answer)} for match, answer in rules])
    with Pipeline(name="Math-Shepherd") as pipeline:
        generator_golden = MathShepherdGenerator(name="golden_generator", llm=model(golden))
        generator = MathShepherdGenerator(name="generator", llm=model(), M=2)
        completer = MathShepherdCompleter(name="completer", llm=model(), N=2)
        combine = CombineOutputs()
        [generator_golden, generator] >> combine >> completer

    row = pipeline.run(use_cache=False, dataset=[{"instruction": CRATES}])[0]

    assert [[step[-1] for step in each] for each in row["solutions"]] == [["+", "+"], ["-", "-"]]
    assert row["golden_solution"][-1] == "The answer is: 34"
    assert row["distilabel_metadata"].get("model_names") == (None if golden == "m" else [golden, "m"])
    assert asked_as_wanted(provider, how)


# APIGen: drawn examples and functions meet in CombineOutputs; calls are run and judged.

LIBRARY = '''
def final_velocity(initial: float, acceleration: float, time: float) -> float:
    """The velocity after some time."""
    return initial + acceleration * time


def get_tools() -> dict:
    return {}
'''
VELOCITY = {"name": "final_velocity", "arguments": {"initial": 0, "acceleration": 9.8, "time": 2}}
TOOL = {"name": "final_velocity", "description": "Velocity.", "parameters": {"type": "object", "properties": {}}}


def test_apigen(provider: LocalProvider, model: Models, how: str, tmp_path: Path) -> None:
    library = tmp_path / "lib_apigen.py"
    library.write_text(LIBRARY)
    written = {
        "query": "How fast is a stone after 2 s?",
        "call_1": {"name": VELOCITY["name"], "arguments": json.dumps(VELOCITY["arguments"])},
    }
    provider.set(
        answers=[
            {"match": '<function name="final_velocity">', "answer": json.dumps(written)},
            {"match": "How fast", "answer": json.dumps({"thought": "Right.", "passes": "yes"})},
        ]
    )
    data = [
        {"func_name": "final_velocity", "func_desc": "The velocity after some time.", "tools": json.dumps([TOOL])}
        for _ in range(2)
    ]
    seeds = [{"query": f"Query {number}", "answers": json.dumps([VELOCITY])} for number in range(4)]
    with Pipeline(name="APIGenPipeline") as pipeline:
        loader_seeds = LoadDataFromDicts(data=data)
        sampler = DataSampler(data=seeds, size=2, samples=len(data), batch_size=8)
        prep_examples = PrepareExamples()
        apigen = APIGenGenerator(llm=model(), use_default_structured_output=True, number=1)
        combine_steps = CombineOutputs()
        execution_checker = APIGenExecutionChecker(libpath=str(library), timeout=LONGEST)
        semantic_checker = APIGenSemanticChecker(llm=model())
        sampler >> prep_examples
        [loader_seeds, prep_examples] >> combine_steps >> apigen >> execution_checker >> semantic_checker

    rows = pipeline.run().to_list()

    assert len(rows) == 2
    assert {row["execution_result"][0] for row in rows} == {"19.6"}
    assert all(row["keep_row_after_semantic_check"] for row in rows)
    assert all("Query" in row["examples"] for row in rows)
    assert asked_as_wanted(provider, how)


# A knowledge graph: classes in a class, given as a class.


class Node(BaseModel):
    id: int
    label: str


class Edge(BaseModel):
    source: int
    target: int
    label: str


class KnowledgeGraph(BaseModel):
    nodes: list[Node] = Field(default_factory=list[Node])
    edges: list[Edge] = Field(default_factory=list[Edge])


def test_structured_generation(provider: LocalProvider, model: Models, how: str) -> None:
    with Pipeline(name="Knowledge-Graphs", description="Graphs of questions.") as pipeline:
        load = LoadDataFromDicts(
            name="load_instructions",
            data=[{"system_prompt": "You make knowledge graphs.", "instruction": "Teach me about tides."}],
        )
        text_generation = TextGeneration(
            name="knowledge_graph_generation",
            llm=model(structured_output={"schema": KnowledgeGraph}),
            output_mappings={"model_name": "generation_model"},
        )
        load >> text_generation

    dataset = pipeline.run(parameters={text_generation.name: {"llm": {"generation_kwargs": {"max_new_tokens": 2048}}}})

    assert KnowledgeGraph.model_validate_json(dataset[0]["generation"])
    assert asked_as_wanted(provider, how)


# An image in the prompt.


def test_text_generation_with_image(provider: LocalProvider, model: Models, how: str) -> None:
    with Pipeline(name="vision_generation_pipeline") as pipeline:
        loader = LoadDataFromDicts(
            data=[{"instruction": "What's in this image?", "image": "https://example.org/boardwalk.jpg"}]
        )
        vision = TextGenerationWithImage(name="vision_gen", llm=model(), image_type="url")
        loader >> vision

    row = pipeline.run()[0]

    assert row["generation"]
    (prompt,) = row["distilabel_metadata"]["raw_input_vision_gen"]
    assert "https://example.org/boardwalk.jpg" in json.dumps(prompt)
    assert asked_as_wanted(provider, how)
