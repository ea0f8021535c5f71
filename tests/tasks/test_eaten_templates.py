"""Templates that came through `prefect deploy`, which takes `{{ name }}` in a prefect.yaml for a value of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate
from prefect.utilities.templating import apply_values
from pydantic import BaseModel

from llms import OpenAILLM, ParameterError
from tasks import PrepareExamples, TextGeneration
from tasks.sources.sampled_columns import TemplateColumn
from tasks.templates import checked


def text_generation(template: str) -> Any:
    task = TextGeneration(llm=OpenAILLM(model="m", api_key="a-key"), template=template)
    task.load()
    return task.format_input({"instruction": "Good morning."})[0]["content"]


def column(template: str) -> Any:
    made = TemplateColumn(name="made", template=template)
    return made.template


def examples(template: str) -> Any:
    row = {"query": ["How?"], "answers": ["So."]}
    return next(PrepareExamples(template=template).process([row]))[0]["examples"]


USES: dict[str, tuple[Callable[[str], Any], str, str, type[BaseModel]]] = {
    "a task": (text_generation, "Translate into German: {{ instruction }}", "instruction", TextGeneration),
    "a column": (column, "A {{ tone }} letter on {{ topic }}.", "topic", TemplateColumn),
    "examples": (examples, "Query: {{ query }} Answers: {{ answers }}", "query", PrepareExamples),
}


def eaten(template: str) -> str:
    return apply_values({"template": template}, {})["template"]


@pytest.mark.parametrize(("use", "template", "name", "model"), USES.values(), ids=USES)
def test_a_template_without_its_variables_is_refused_with_the_way_out(
    use: Callable[[str], Any], template: str, name: str, model: type[BaseModel]
) -> None:
    with pytest.raises(ValueError, match=rf"`prefect deploy` takes .* write \{{\{{ \({name}\) \}}\}}"):
        use(eaten(template))


@pytest.mark.parametrize(("use", "template", "name", "model"), USES.values(), ids=USES)
def test_the_way_out_is_left_alone_by_prefect_and_reads_the_same(
    use: Callable[[str], Any], template: str, name: str, model: type[BaseModel]
) -> None:
    kept = template.replace("{{ ", "{{ (").replace(" }}", ") }}")

    assert eaten(kept) == kept
    assert use(kept).replace("{{ (", "{{ ").replace(") }}", " }}") == use(template)


@pytest.mark.parametrize(("use", "template", "name", "model"), USES.values(), ids=USES)
def test_the_server_refuses_a_deployment_with_it(
    use: Callable[[str], Any], template: str, name: str, model: type[BaseModel]
) -> None:
    schema = model.model_json_schema()

    (problem,) = validate({"template": eaten(template)}, schema, ignore_required=True)
    fine = validate({"template": template}, schema, ignore_required=True)

    assert "there prefect deploy takes the first for a value of its own" in problem.message
    assert fine == []


def test_a_loop_that_prints_nothing_is_refused_with_the_way_out() -> None:
    template = "Of these:{% for each in instruction %} {{ (each) }}{% endfor %}"

    with pytest.raises(ValueError, match=r"a loop of the template .* prints nothing\. .* write \{\{ \(each\) \}\}"):
        text_generation(eaten(template.replace("(each)", "each")))
    assert eaten(template) == template


@pytest.mark.parametrize(
    "template",
    [
        "{% for each in instruction %}- {{ each }}\n{% endfor %}",
        "{% for each in instruction %}{% if not loop.first %}, {% endif %}{{ each }}{% endfor %}",
        "{% for key, each in instruction.items() %}{{ key }}: {{ each }}\n{% endfor %}",
    ],
)
def test_a_loop_that_doesnt_read_what_it_goes_through_is_refused_with_the_way_out(template: str) -> None:
    with pytest.raises(ValueError, match=r"doesn't read '\w+', .* write \{\{ \(\w+\) \}\}\. If it's meant, call it _"):
        checked(eaten(template))
    assert checked(template) == template


@pytest.mark.parametrize(
    "template",
    [
        "{% if notes %}Notes: {{ notes }}{% endif %}",
        "{% if notes %}Notes: {{ notes }}. {% endif %}{{ (instruction) }}",
        "{% if other and notes %}Notes:\n{{ notes }}\n{% endif %}{{ (other) }}",
        "{{ (instruction) }}{% if notes %}: {{ notes }}{% endif %}",
        '{% if notes %}In "{{ notes }}{% endif %}',
        "{% if instruction %}{{ (instruction) }}{% elif notes %}As in ({{ notes }}{% endif %}",
    ],
)
def test_a_text_that_waits_for_a_column_that_is_looked_at_alone_is_refused_with_the_way_out(template: str) -> None:
    with pytest.raises(ValueError, match=r"there is 'notes', and reads that nowhere\. .* write \{\{ \(notes\) \}\}"):
        checked(eaten(template))
    assert checked(template) == template


@pytest.mark.parametrize(
    "template",
    [
        "{% for _ in instruction %}- \n{% endfor %}",
        "{% for key, each in instruction.items() %}{{ key }}\n{% endfor %}",
        "{% if formal %}Be formal. {% endif %}{{ instruction }}",
        '{% if formal %}Answer [] or "no" :){% endif %}{{ instruction }}',
        "{% if named %}{{ name }}: {% endif %}{{ instruction }}",
        "{% if named %}({% endif %}{{ name }}{% if named %}){% endif %}",
        "{% if formal %}A formal letter on: {% else %}A letter on: {% endif %}{{ instruction }}",
        "{% if formal %}A formal letter on{{ ':' }}{% endif %} {{ instruction }}",
    ],
)
def test_what_is_looked_at_or_counted_and_not_read_is_taken(template: str) -> None:
    assert checked(template) == template


@pytest.mark.parametrize(
    ("example", "lacks"),
    [
        ({"instruction": "{{ instruction }}", "generation": "Guten Tag."}, "'instruction'"),
        ({"instruction": "Good day.", "generation": "{{ generation }}"}, r"any of \['generation'\]"),
    ],
)
def test_an_example_that_lacks_a_column_is_refused_before_anything_is_sent(example: dict[str, str], lacks: str) -> None:
    examples = [{"instruction": "Good morning.", "generation": "Guten Morgen."}, apply_values(example, {})]
    task = TextGeneration(name="german", llm=OpenAILLM(model="m", api_key="a-key"), examples=examples)

    with pytest.raises(ParameterError, match=rf"german: examples are rows .* example 1 lacks {lacks}"):
        task.load()
