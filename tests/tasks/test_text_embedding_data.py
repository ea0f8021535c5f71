"""Examples of embedding tasks: what is drawn for a row, and the answers that models really send."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import (
    GenerateLongTextMatchingData,
    GenerateShortTextMatchingData,
    GenerateTextClassificationData,
    GenerateTextRetrievalData,
    UnreadableAnswerError,
)
from tasks.retrieval.text_embedding_data import LANGUAGES, EmbeddingExample
from tasks.steps import METADATA
from tests.tasks.contract import check_contract
from tests.tasks.dangerous import dangerous_values
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"task": "Given a question about a mountain, find articles that answer it."}
KINDS: list[type[EmbeddingExample]] = [
    GenerateTextRetrievalData,
    GenerateShortTextMatchingData,
    GenerateLongTextMatchingData,
    GenerateTextClassificationData,
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def task_of(kind: type[EmbeddingExample], **options: Any) -> EmbeddingExample:
    return kind(llm=OneReplyLLM(reply=""), **options)


def prompt_of(kind: type[EmbeddingExample], row: dict[str, Any] = ROW, **options: Any) -> str:
    return task_of(kind, **options).format_input(row)[0]["content"]


def columns_of(kind: type[EmbeddingExample]) -> dict[str, str]:
    return {name: f'The {name}, "quoted"; it\'s\nof two lines: é.' for name in kind.texts}


@every_kind
def test_it_keeps_to_the_contract(provider: LocalProvider, kind: type[EmbeddingExample]) -> None:
    check_contract(provider, kind, ROW, json.dumps(columns_of(kind)), columns_of(kind))


DRESSES: dict[str, Callable[[dict[str, str]], str]] = {
    "JSON": json.dumps,
    "JSON with a preface and an afterword": lambda texts: f"Here you go:\n{json.dumps(texts)}\nShall I go on?",
    "a fence": lambda texts: f"```json\n{json.dumps(texts, indent=2)}\n```",
    "a fence without a language": lambda texts: f"```\n{json.dumps(texts)}\n```",
    "after thoughts": lambda texts: f'<think>{{"{next(iter(texts))}": "?"}}</think>\n{json.dumps(texts)}',
    "a Python dict": str,
    "a Python dict in a fence": lambda texts: f"```python\n{texts}\n```",
    "another order": lambda texts: json.dumps(dict(reversed(texts.items()))),
    "other spelling of the keys": lambda texts: json.dumps({_title(name): text for name, text in texts.items()}),
    "more keys, null and true": lambda texts: json.dumps({**texts, "remark": None, "hard": True}),
    "in a list of one": lambda texts: json.dumps([texts]),
    "spaces around": lambda texts: json.dumps({name: f" {text}\n" for name, text in texts.items()}),
    "a comma too many": lambda texts: json.dumps(texts)[:-1] + ",}",
    "letters that aren't escaped": lambda texts: json.dumps(texts, ensure_ascii=False),
}


def _title(name: str) -> str:
    return name.replace("_", " ").title()


@every_kind
@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES.keys())
def test_an_example_is_read_however_it_is_dressed(
    kind: type[EmbeddingExample], dress: Callable[[dict[str, str]], str]
) -> None:
    assert task_of(kind).format_output(dress(columns_of(kind)), ROW) == columns_of(kind)


def without(texts: dict[str, str], name: str) -> dict[str, str]:
    return {each: text for each, text in texts.items() if each != name}


BREAKS: dict[str, tuple[Callable[[dict[str, str]], str], str]] = {
    "nothing": (lambda texts: "", "found none"),
    "a refusal": (lambda texts: "I can't write that.", "found none"),
    "a text left out": (lambda texts: json.dumps(without(texts, next(iter(texts)))), "is not there"),
    "a text that is null": (lambda texts: json.dumps({**texts, next(iter(texts)): None}), "expected a text, got None"),
    "an empty text": (lambda texts: json.dumps({**texts, next(iter(texts)): " "}), "expected a text, got ' '"),
    "a list in place of a text": (lambda texts: json.dumps({**texts, next(iter(texts)): ["a"]}), "expected a text"),
    "a key in two spellings": (
        lambda texts: json.dumps({**texts, next(iter(texts)).upper(): "another"}),
        "is 2 times",
    ),
    "two examples": (lambda texts: f"{json.dumps(texts)}\n{json.dumps(texts)}", "found 2"),
    "a list of two examples": (lambda texts: json.dumps([texts, texts]), "expected a JSON object"),
    "cut off": (lambda texts: json.dumps(texts)[:-12], "found none"),
    "a list of texts": (lambda texts: json.dumps(list(texts.values())), "expected a JSON object"),
}


@every_kind
@pytest.mark.parametrize(("reply", "problem"), BREAKS.values(), ids=BREAKS.keys())
def test_an_example_that_isnt_certain_is_refused_with_the_reason(
    kind: type[EmbeddingExample], reply: Callable[[dict[str, str]], str], problem: str
) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        task_of(kind).format_output(reply(columns_of(kind)), ROW)
    assert problem in str(raised.value)


@pytest.mark.parametrize("kind", [GenerateTextRetrievalData, GenerateTextClassificationData])
def test_a_negative_that_is_the_positive_is_refused(kind: type[EmbeddingExample]) -> None:
    positive, negative = kind.opposed or ("", "")
    same = {**columns_of(kind), positive: "The  same", negative: "The same"}
    with pytest.raises(UnreadableAnswerError, match=f"{positive} and {negative} are the same"):
        task_of(kind).format_output(json.dumps(same), ROW)


@every_kind
def test_nothing_that_a_model_writes_is_run(kind: type[EmbeddingExample], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    task, texts = task_of(kind), columns_of(kind)
    first = next(iter(texts))
    for value in dangerous_values(marker):
        written = ", ".join(f"{name!r}: {value if name == first else repr(text)}" for name, text in texts.items())
        for reply in (f"{{{written}}}", f"```python\n{{{written}}}\n```", value):
            with pytest.raises(UnreadableAnswerError):
                task.format_output(reply, ROW)
        assert task.format_output(json.dumps({**texts, first: value}), ROW)[first] == value
    assert not marker.exists()


def test_a_label_that_is_a_number_or_a_truth_value_becomes_text() -> None:
    reply = '{"input_text": "Never again.", "label": 1, "misleading_label": true}'
    columns = task_of(GenerateTextClassificationData).format_output(reply, ROW)
    assert columns == {"input_text": "Never again.", "label": "1", "misleading_label": "true"}


@every_kind
def test_what_is_drawn_depends_on_the_row_and_the_seed_alone(kind: type[EmbeddingExample]) -> None:
    rows = [{"task": f"Task {number}."} for number in range(12)]
    prompts = [prompt_of(kind, row, language="any") for row in rows]

    assert prompts == [prompt_of(kind, {**row, METADATA: {"a": 1}}, language="any") for row in rows]
    drawn = {prompt.replace(row["task"], "") for prompt, row in zip(prompts, rows, strict=True)}
    assert len(drawn) > 8
    assert prompts != [prompt_of(kind, row, language="any", seed=1) for row in rows]


@every_kind
def test_an_option_that_is_set_leaves_the_others_as_they_were_drawn(kind: type[EmbeddingExample]) -> None:
    drawn = {"language": LANGUAGES, **kind.drawn}
    for name, choices in drawn.items():
        for value in choices[:3]:
            options = {"language": "any", name: value}
            prompts = [prompt_of(kind, **options), prompt_of(kind, language=options["language"])]
            differing = [
                (one, other)
                for one, other in zip(*(prompt.splitlines() for prompt in prompts), strict=True)
                if one != other
            ]
            assert str(value) in prompts[0]
            assert len(differing) <= 1


def test_every_value_of_the_papers_lists_is_drawn_and_taken() -> None:
    for kind in KINDS:
        for name, choices in kind.drawn.items():
            prompts = "\n".join(prompt_of(kind, {"task": f"Task {number}."}) for number in range(120))
            assert all(re.search(rf"\b{re.escape(str(value))}[ .,]", prompts) for value in choices)
            assert all(task_of(kind, **{name: value}) for value in choices)
            with pytest.raises(ValueError, match=name):
                task_of(kind, **{name: "something else"})


def test_any_language_is_one_of_those_of_xlm_r() -> None:
    assert len(set(LANGUAGES)) == 93
    prompts = [prompt_of(GenerateShortTextMatchingData, {"task": str(n)}, language="any") for n in range(300)]
    named = {language for language in LANGUAGES if any(f"Both texts are in {language}." in each for each in prompts)}
    assert len(named) > 80
    assert "in any." not in " ".join(prompts)


@every_kind
def test_the_prompt_holds_the_task_and_names_the_keys(kind: type[EmbeddingExample]) -> None:
    prompt = prompt_of(kind, {"task": "Find {{ braces }} & <tags>."}, language="Welsh")
    assert "<task>\nFind {{ braces }} & <tags>.\n</task>" in prompt
    assert all(f'"{name}": ' in prompt for name in kind.texts)
    assert "in Welsh" in prompt


@every_kind
def test_the_schema_fits_strict_mode_and_is_sent_where_it_is_taken(kind: type[EmbeddingExample]) -> None:
    schema = task_of(kind).get_structured_output()
    jsonschema.Draft202012Validator.check_schema(schema or {})
    assert strict_schema(schema or {}) == schema
    llm = StructuredOneReplyLLM(reply=json.dumps(columns_of(kind)))
    (row,) = next(kind(llm=llm).process([ROW]))
    assert {name: row[name] for name in kind.texts} == columns_of(kind)
    assert llm.schemas == [schema]


@every_kind
@pytest.mark.parametrize("task", [None, ["a", "b"], 3])
def test_a_row_without_a_task_fails_and_costs_nothing(kind: type[EmbeddingExample], task: Any) -> None:
    llm = OneReplyLLM(reply=json.dumps(columns_of(kind)))
    (row,) = next(kind(llm=llm).process([{"task": task}]))
    (error,) = [value for name, value in row[METADATA].items() if name.startswith("error_")]
    assert error["message"].startswith("task: expected a text, got")
    assert llm.asked == []


@every_kind
def test_few_shot_examples_can_be_read_back(kind: type[EmbeddingExample]) -> None:
    task = task_of(kind, examples=[{**ROW, **columns_of(kind)}])
    prompt = task.prompt({"task": "Another."})
    assert task.format_output(prompt[1]["content"], ROW) == columns_of(kind)


def test_a_number_of_words_may_be_text_as_a_command_line_gives_it() -> None:
    task = task_of(GenerateTextRetrievalData, num_words="200")

    assert "at least 200 words" in task.format_input(ROW)[0]["content"]
    with pytest.raises(ValueError, match="50, 100, 200, 300, 400 or 500"):
        task_of(GenerateTextRetrievalData, num_words="201")
