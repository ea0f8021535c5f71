"""Functions as Steps and Tasks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cloudpickle
import pytest
from pydantic import Field, ValidationError

from llms import LLM, GenerateOutput, RuntimeParameter
from llms.code import code_digest
from llms.parameters import ParameterError
from tasks.base import Task
from tasks.decorators import step, task
from tasks.steps import GeneratorStep, GlobalStep, Step, failure_in

if TYPE_CHECKING:
    from tasks.typing import GeneratorStepOutput, StepInput, StepOutput

ROOT = Path(__file__).parents[2]


class Echo(LLM):
    """Repeats the last message, and keeps the prompts."""

    asked: list[Any] = []

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        self.asked.extend(inputs)
        counts = [1] * num_generations
        return [
            {
                "generations": [chat[-1]["content"]] * num_generations,
                "statistics": {"input_tokens": counts, "output_tokens": counts},
            }
            for chat in inputs
        ]


@step(inputs=["text"], outputs=["text", "length"])
def cut(
    inputs: StepInput, suffix: RuntimeParameter[str], most: RuntimeParameter[int] = 4, *, upper: bool = False
) -> StepOutput:
    """Cut texts.

    Args:
        inputs: the rows.
        suffix: put after a text.
        most: the most characters
            to keep.
    """
    for row in inputs:
        text = row["text"][:most] + (suffix or "")
        yield [{**row, "text": text.upper() if upper else text, "length": len(text)}]


@step(outputs=["number"], step_type="generator")
def count(up_to: int = 5, by: Annotated[int, Field(ge=1, description="Rows at a time.")] = 2) -> GeneratorStepOutput:
    for start in range(0, up_to, by):
        yield [{"number": number} for number in range(start, min(start + by, up_to))], start + by >= up_to


@step(outputs=["number"], step_type="generator")
def count_on(offset: int = 0, up_to: int = 5) -> GeneratorStepOutput:
    yield [{"number": number} for number in range(offset, up_to)], True


@step(inputs=["number"], outputs=["share"], step_type="global")
def shares(inputs: StepInput) -> StepOutput:
    total = sum(row["number"] for row in inputs)
    yield [{**row, "share": row["number"] / total} for row in inputs]


@step(outputs=["both"])
def pairs(*inputs: StepInput) -> StepOutput:
    yield [{"both": [row["a"] for row in rows]} for rows in zip(*inputs, strict=True)]


@task(inputs={"topic": True, "tone": False}, outputs=["lines"])
def poem(output: str, input: dict[str, Any], most: int = 3) -> dict[str, Any]:
    """Write a poem.

    ---
    system_prompt: |
        You are a poet.
    user_message_template: |
        Write about {topic}. {tone}
        As JSON: {{"lines": []}}
    ---

    Args:
        most: lines to keep.
    """
    if "nothing" in output:
        raise ValueError("nothing to write about")
    return {"lines": output.splitlines()[:most]}


def test_a_function_becomes_a_step_with_its_name_columns_and_documentation() -> None:
    made = cut()
    assert issubclass(cut, Step)
    assert cut.__name__ == "cut" and cut.__module__ == __name__
    assert (made.name, made.inputs, made.outputs) == ("cut", ["text"], ["text", "length"])
    assert (cut.__doc__ or "").startswith("Cut texts.")


def test_arguments_are_parameters_with_their_descriptions() -> None:
    described = {entry["name"]: entry for entry in cut().get_runtime_parameters_info()}
    assert described["suffix"]["description"] == "put after a text."
    assert described["most"]["description"] == "the most characters to keep."
    assert all(described[name]["optional"] for name in ("suffix", "most", "upper"))
    assert "inputs" not in described
    properties = count.model_json_schema()["properties"]
    assert (properties["by"]["description"][:15], properties["by"]["minimum"]) == ("Rows at a time.", 1)


def test_parameters_reach_the_function_coerced_and_checked() -> None:
    assert cut().apply([{"text": "high tide"}]) == [{"text": "high", "length": 4}]
    changed = cut(suffix="!").merged({"most": "2", "upper": "true"})
    assert changed.apply([{"text": "high tide"}]) == [{"text": "HI!", "length": 3}]
    with pytest.raises(ParameterError, match="Did you mean 'suffix'"):
        cut().merged({"sufix": "!"})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        count(by=0)


def test_columns_can_be_mapped() -> None:
    made = cut(input_mappings={"text": "story"}, output_mappings={"length": "size"})
    assert made.apply([{"story": "high tide"}]) == [{"story": "high", "size": 4}]


def test_a_generator_makes_its_rows_and_leaves_out_those_already_made() -> None:
    assert issubclass(count, GeneratorStep)
    assert list(count().process()) == [
        ([{"number": 0}, {"number": 1}], False),
        ([{"number": 2}, {"number": 3}], False),
        ([{"number": 4}], True),
    ]
    assert list(count().process(offset=3)) == [([{"number": 3}], False), ([{"number": 4}], True)]
    assert list(count().process(offset=5)) == [([], True)]
    assert count().columns() == {"number"}


def test_a_generator_that_takes_an_offset_gets_it() -> None:
    assert list(count_on(up_to=4).process(offset=2)) == [([{"number": 2}, {"number": 3}], True)]
    assert "offset" not in count_on.model_fields


def test_a_global_step_gets_all_rows_at_once() -> None:
    assert issubclass(shares, GlobalStep)
    rows = shares(input_batch_size=2).apply([{"number": n} for n in (1, 1, 1, 1)])
    assert [row["share"] for row in rows] == [0.25] * 4


def test_a_step_can_take_the_rows_of_several() -> None:
    assert pairs().apply([{"a": 1}], [{"a": 2}]) == [{"both": [1, 2]}]


def test_a_function_that_returns_rows_in_place_of_yielding_them_says_so() -> None:
    with pytest.raises(TypeError, match=r"must yield lists of rows, got \{'a': 1\}"):
        step()(lambda rows: rows)().apply([{"a": 1}])


def test_a_task_asks_with_the_prompt_in_its_docstring_and_reads_with_its_function() -> None:
    llm = Echo()
    made = poem(llm=llm, most=1)
    assert issubclass(poem, Task)
    (row,) = next(made.process([{"topic": "tides"}]))
    assert llm.asked == [
        [
            {"role": "system", "content": "You are a poet."},
            {"role": "user", "content": 'Write about tides. \nAs JSON: {"lines": []}'},
        ]
    ]
    assert (row["lines"], row["model_name"]) == (["Write about tides. "], "echo")
    assert made.outputs == ["lines", "model_name"]
    assert made.required_columns() == ["topic"]


def test_the_system_prompt_of_a_task_can_be_changed_like_any_parameter() -> None:
    llm = Echo()
    next(poem(llm=llm).merged({"system_prompt": "You are terse."}).process([{"topic": "tides"}]))
    assert llm.asked[0][0]["content"] == "You are terse."


def test_an_exception_in_a_tasks_function_fails_its_row_alone() -> None:
    bad, good = next(poem(llm=Echo()).process([{"topic": "nothing"}, {"topic": "tides"}]))
    reason = {"type": "ValueError", "message": "nothing to write about", "retryable": False}
    assert failure_in(bad) == {"step": "poem", **reason}
    assert good["lines"]


def test_a_task_whose_function_returns_no_dict_fails_the_row() -> None:
    @task(inputs=["topic"], outputs=["x"])
    def wrong(output, row):  # pyright: ignore
        """
        ---
        user_message_template: "{topic}"
        ---
        """
        return output

    (row,) = next(wrong(llm=Echo()).process([{"topic": "tides"}]))
    assert "must return a dict" in row["distilabel_metadata"]["error_wrong"]["message"]


@pytest.mark.parametrize(
    ("docstring", "problem"),
    [
        ("No prompt.", "between two lines"),
        ("---\nsystem_prompt: x\n---", "has no `user_message_template`"),
        ("---\nuser_mesage_template: x\n---", "Did you mean 'user_message_template'"),
        ("---\nuser_message_template: 5\n---", "must be a text, got 5"),
        ("---\nuser_message_template: 'a\n---", "isn't YAML"),
        ("---\nuser_message_template: 'a {subject}'\n---", r"reads \['subject'\], which isn't among its inputs"),
        ("---\nuser_message_template: 'a {}'\n---", "A brace that is text is written twice"),
        ("---\nuser_message_template: 'a {'\n---", "A brace that is text is written twice"),
    ],
)
def test_a_docstring_without_a_right_prompt_is_refused_where_the_task_is_made(docstring: str, problem: str) -> None:
    def wrong(output: str, input: dict[str, Any]) -> dict[str, Any]:
        return {}

    wrong.__doc__ = docstring
    with pytest.raises(ValueError, match=problem):
        task(inputs=["topic"], outputs=["x"])(wrong)


def test_functions_whose_arguments_dont_fit_are_refused_where_the_step_is_made() -> None:
    with pytest.raises(TypeError, match="a step has a 'name' of its own"):
        step()(lambda inputs, name="x": (inputs, name))
    with pytest.raises(TypeError, match="a step has a 'outputs' of its own"):
        step()(lambda inputs, outputs="x": (inputs, outputs))
    with pytest.raises(TypeError, match="'rows' needs a default"):
        step(step_type="generator")(lambda rows: rows)
    with pytest.raises(TypeError, match="an argument that takes the rows"):
        step()(lambda: iter([]))
    with pytest.raises(TypeError, match="with parentheses"):
        step(lambda inputs: inputs)  # pyright: ignore
    with pytest.raises(TypeError, match="expected one of normal, global, generator, got 'glob'"):
        step(step_type="glob")  # pyright: ignore
    with pytest.raises(TypeError, match="reads no columns"):
        step(inputs=["a"], step_type="generator")  # pyright: ignore


def test_what_decides_the_rows_is_the_code_the_parameters_and_the_prompt() -> None:
    assert code_digest(cut) and code_digest(cut) != code_digest(count)
    assert cut().identity() == cut().identity()
    assert cut().identity() != cut(most=5).identity()
    assert "Write about {topic}" in poem(llm=Echo()).identity()["user_message_template"]
    assert poem(llm=Echo()).identity() != poem(llm=Echo(), system_prompt="x").identity()


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_step_of_a_module_is_pickled_by_its_name(pickler: Any) -> None:
    copied = pickler.loads(pickler.dumps(cut(suffix="!")))
    assert type(copied) is cut
    assert copied.apply([{"text": "high tide"}]) == [{"text": "high!", "length": 5}]


SCRIPT = '''
import sys
import cloudpickle
from llms import LLM
from tasks.decorators import step, task

class Echo(LLM):
    @property
    def model_name(self):
        return "echo"
    def generate(self, inputs, num_generations=1):
        counts = {"input_tokens": [1], "output_tokens": [1]}
        return [{"generations": [chat[-1]["content"]], "statistics": counts} for chat in inputs]

@step(inputs=["n"], outputs=["n"])
def add(rows, by: int = 1):
    yield [{**row, "n": row["n"] + by} for row in rows]

@task(inputs=["n"], outputs=["said"])
def say(output, row):
    """
    ---
    user_message_template: Say {n}
    ---
    """
    return {"said": output}

if __name__ == "__main__":
    sys.stdout.buffer.write(cloudpickle.dumps([add(by=2), say(llm=Echo())]))
'''

READER = """
import pickle, sys
add, say = pickle.load(sys.stdin.buffer)
(row,) = say.apply(add.apply([{"n": 1}]))
print(row["said"])
"""


def test_steps_of_a_script_are_pickled_whole_and_run_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "pipeline.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    pickled = subprocess.run([sys.executable, script], env=environment, capture_output=True, check=True).stdout
    reader = [sys.executable, "-c", READER]
    said = subprocess.run(reader, env=environment, input=pickled, capture_output=True, check=False)
    assert said.stdout.decode().strip() == "Say 3", said.stderr.decode()
