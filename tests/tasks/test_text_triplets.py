"""Triplets from nothing: what is drawn for each, and the answers that models really send."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows import collect, load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import BitextRetrievalGenerator, MonolingualTripletGenerator, UnreadableAnswerError
from tasks.retrieval.text_embedding_data import LANGUAGES
from tasks.retrieval.text_triplets import TripletGenerator
from tasks.steps import METADATA
from tests.tasks.contract import made_offline
from tests.tasks.dangerous import dangerous_values
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

TEXTS = {"S1": "It's raining.", "S2": 'Rain "falls".', "S3": "It's snowing."}
KINDS: list[type[TripletGenerator]] = [MonolingualTripletGenerator, BitextRetrievalGenerator]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def task_of(kind: type[TripletGenerator], **options: Any) -> TripletGenerator:
    return kind(**{"llm": OneReplyLLM(reply=json.dumps(TEXTS)), **options})


def rows_of(task: TripletGenerator) -> list[dict[str, Any]]:
    return [row for rows in task.process(list(task.seed_rows())) for row in rows]


def prompts_of(kind: type[TripletGenerator], rows: int = 1, **options: Any) -> list[str]:
    task = task_of(kind, num_rows=rows, **options)
    return [task.format_input(seed)[0]["content"] for seed in task.seed_rows()]


GOOD_ANSWERS = {
    "JSON": json.dumps(TEXTS),
    "a preface and an afterword": f"Here:\n{json.dumps(TEXTS)}\nThe scores are 4.5 and 2.5.",
    "a fence": f"```json\n{json.dumps(TEXTS, indent=2)}\n```",
    "a fence without a language": f"```\n{json.dumps(TEXTS)}\n```",
    "a Python dict": str(TEXTS),
    "after thoughts": f'<think>{{"S1": "a", "S2": "b", "S3": "c"}}? No.</think>{json.dumps(TEXTS)}',
    "small letters and another order": json.dumps({name.lower(): TEXTS[name] for name in ("S3", "S1", "S2")}),
    "more keys, null and true": json.dumps({**TEXTS, "note": None, "ok": True}),
    "in a list of one": json.dumps([TEXTS]),
    "a comma too many": json.dumps(TEXTS)[:-1] + ",}",
}


@every_kind
@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_triplet_is_read_however_it_is_dressed(kind: type[TripletGenerator], reply: str) -> None:
    assert task_of(kind).format_output(reply, {}) == TEXTS


BROKEN_ANSWERS = {
    "nothing": ("", "found none"),
    "prose": ("It's raining. Rain falls. It's snowing.", "found none"),
    "a text left out": ('{"S1": "a", "S2": "b"}', "'S3' is not there"),
    "null": ('{"S1": "a", "S2": "b", "S3": null}', "S3: expected a text, got None"),
    "a list of texts": ('["a", "b", "c"]', "expected a JSON object"),
    "two triplets": (f"{json.dumps(TEXTS)} {json.dumps(TEXTS)}", "found 2"),
    "cut off": (json.dumps(TEXTS)[:-5], "found none"),
    "S3 like S2": ('{"S1": "a", "S2": "b c", "S3": "b  c"}', "S2 and S3 are the same"),
}


@every_kind
@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_triplet_that_isnt_certain_is_refused(kind: type[TripletGenerator], reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        task_of(kind).format_output(reply, {})
    assert problem in str(raised.value)


@every_kind
def test_nothing_that_a_model_writes_is_run(kind: type[TripletGenerator], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for value in dangerous_values(marker):
        with pytest.raises(UnreadableAnswerError):
            task_of(kind).format_output(f"{{'S1': {value}, 'S2': 'b', 'S3': 'c'}}", {})
        assert task_of(kind).format_output(json.dumps({**TEXTS, "S1": value}), {})["S1"] == value
    assert not marker.exists()


@every_kind
def test_it_makes_as_many_rows_as_are_asked_for(kind: type[TripletGenerator], provider: LocalProvider) -> None:
    provider.set(answers={"": json.dumps(TEXTS)})
    task = task_of(kind, llm=OpenAILLM(model="m"), num_rows=3, num_generations=2)
    rows = rows_of(task)
    assert [{name: row[name] for name in TEXTS} for row in rows] == [TEXTS] * 6
    assert all(set(row) == {*TEXTS, "model_name", METADATA} for row in rows)
    assert rows[0][METADATA][f"raw_output_{task.name}"] == json.dumps(TEXTS)
    assert rows[0][METADATA][f"statistics_{task.name}"]["output_tokens"] > 0


@every_kind
def test_an_unreadable_answer_fails_its_row(kind: type[TripletGenerator]) -> None:
    task = task_of(kind, llm=OneReplyLLM(reply="No."), group_generations=True, num_generations=2)
    (row,) = rows_of(task)
    assert [row[name] for name in TEXTS] == [None, None, None]
    assert row[METADATA][f"error_{task.name}"]["type"] == "UnreadableAnswerError"


@every_kind
def test_what_is_drawn_depends_on_the_number_and_the_seed_alone(kind: type[TripletGenerator]) -> None:
    prompts = prompts_of(kind, 20)
    assert prompts == prompts_of(kind, 30)[:20]
    assert len(set(prompts)) > 10
    assert prompts != prompts_of(kind, 20, seed=1)


@every_kind
def test_every_value_of_the_papers_lists_is_drawn_and_no_other(kind: type[TripletGenerator]) -> None:
    text = "\n".join(prompts_of(kind, 200))
    low = {"2.5", "3", "3.5"} if kind is MonolingualTripletGenerator else {"1.5", "2", "2.5"}
    assert set(re.findall(r"^- (?:S1 and )?S2: ([\d.]+)\.$", text, re.MULTILINE)) == {"4", "4.5", "5"}
    assert set(re.findall(r"^- (?:S1 and )?S3: ([\d.]+)\.(?:$| It)", text, re.MULTILINE)) == low
    assert set(re.findall(r"takes (.*) education", text)) == {"elementary school", "high school", "college"}
    assert set(re.findall(r"(?:Each is|Write) a (\w+)", text)) == {"sentence", "phrase", "passage"}


@every_kind
def test_an_option_that_is_set_is_in_every_prompt(kind: type[TripletGenerator]) -> None:
    options = {"unit": "phrase", "difficulty": "college", "high_score": "4.5", "low_score": "2.5"}
    assert len(set(prompts_of(kind, 5, **options))) == (1 if kind is MonolingualTripletGenerator else 5)
    assert all("college education" in prompt and "S3: 2.5." in prompt for prompt in prompts_of(kind, 5, **options))
    with pytest.raises(ValueError, match="high_score"):
        task_of(kind, high_score="3")


def test_languages_are_as_given_or_drawn_and_never_the_same_twice() -> None:
    (given,) = prompts_of(BitextRetrievalGenerator, source_language="Welsh", target_language="Irish")
    assert "in Welsh, S1, and two translations of it into Irish" in given
    drawn = re.findall(
        r"in ([\w ]+), S1, and two translations of it into ([\w ]+), S2",
        "\n".join(prompts_of(BitextRetrievalGenerator, 400, source_language="any")),
    )
    assert len(drawn) == 400
    assert all(source != target and {source, target} <= set(LANGUAGES) for source, target in drawn)
    towards = "\n".join(prompts_of(BitextRetrievalGenerator, 400, source_language="any", target_language="Irish"))
    assert "in Irish, S1" not in towards
    with pytest.raises(ValueError, match="expected two languages, got 'Irish'"):
        task_of(BitextRetrievalGenerator, source_language="Irish", target_language="Irish")
    assert "in Welsh, S1, S2 and S3" in prompts_of(MonolingualTripletGenerator, language="Welsh")[0]


@every_kind
def test_the_schema_fits_strict_mode_and_is_sent_where_it_is_taken(kind: type[TripletGenerator]) -> None:
    llm = StructuredOneReplyLLM(reply=json.dumps(TEXTS))
    schema = task_of(kind).get_structured_output()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    rows_of(task_of(kind, llm=llm))
    assert llm.schemas == [schema]


@every_kind
def test_online_and_offline_batch_give_the_same_rows(
    kind: type[TripletGenerator], provider: LocalProvider, storage: Path
) -> None:
    provider.set(answers={"": json.dumps(TEXTS)}, batch_seconds=0.0)
    dataset = collect(load(task_of(kind, llm=OpenAILLM(model="m"), num_rows=2)))
    assert [{name: row[name] for name in TEXTS} for row in dataset] == [TEXTS, TEXTS]
    task = task_of(kind, llm=OpenAILLM(model="m", use_offline_batch_generation=True))
    made = made_offline(task, next(task.seed_rows()))
    assert {name: made[name] for name in TEXTS} == TEXTS
    assert provider.batches
