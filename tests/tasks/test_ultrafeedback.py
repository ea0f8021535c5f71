"""UltraFeedback: the prompt, the two forms of a reply, and the replies that models really send."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from llms.structured_output import strict_schema
from tasks.base import UnreadableAnswerError
from tasks.judging.ultrafeedback import QUALITIES, WITH_TYPES, Evaluation, UltraFeedback, parse_evaluations
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

ROW = {"instruction": "How high is K2?", "generations": ["8,611 m.", "I can't know."]}


AS_ASKED = """Answer 1
Rationale: Right.
Rating: 5

Answer 2
Rationale: Evasive.
Rating: 3"""

GOOD_ANSWERS = {
    "the form that was asked for": AS_ASKED,
    "a preface, Markdown headings and bold labels": """Here are my evaluations of the two answers:

### Answer 1
**Rationale:** Right.
**Rating:** 5

### Answer 2
**Rationale:** Evasive.
**Rating:** 3""",
    "colons outside the bold, stars around numbers": """**Answer 1:**
**Rationale**: Right.
**Rating**: **5**

**Answer 2:**
**Rationale**: Evasive.
**Rating**: **3**""",
    "no numbers, in the order of the answers": "Rationale: Right.\nRating: 5\n\nRationale: Evasive.\nRating: 3",
    "a code fence": f"```text\n{AS_ASKED}\n```",
    "thoughts before the reply": f"<think>\nAnswer 1\nRating: 1? No: it's right.\n</think>\n\n{AS_ASKED}",
    "scales and decimals": AS_ASKED.replace("Rating: 5", "Rating: 5/5").replace("Rating: 3", "Rating: 3.0"),
    "out of five, and a word in brackets": AS_ASKED.replace("5", "5 (Excellent)").replace("3", "3 out of 5"),
    "a word after a dash": AS_ASKED.replace("5", "5 - excellent").replace("3", "3 \u2013 fair"),
    "answers in another order": """Answer 2
Rationale: Evasive.
Rating: 3

Answer 1
Rationale: Right.
Rating: 5""",
    "the rating before its rationale": """Answer 1
Rating: 5
Rationale: Right.

Answer 2
Rating: 3
Rationale: Evasive.""",
    "the headers of distilabel's prompt": """#### Output for Text 1
Rating: 5
Rationale: Right.

#### Output for Text 2
Rating: 3
Rationale: Evasive.""",
    "outputs, rules between blocks and odd spacing": """Output 1:


Rationale :   Right.
Rating :5
---
Output 2:
Rationale: Evasive.

Rating:    3
---""",
    "all in one line per answer": """Answer 1: Rating: 5, Rationale: Right.
Answer 2: Rating: 3 | Rationale: Evasive.""",
    "the tags of the prompt": """<answer number="1">
Rationale: Right.
Rating: 5
</answer>

<answer number="2">
Rating: 3
Rationale: Evasive.
</answer>""",
    "numbers with a sign": AS_ASKED.replace("Answer 1", "Answer #1").replace("Answer 2", "## Rating of Answer no. 2:"),
    "bullets": """- **Answer 1**
  - Rationale: Right.
  - Rating: 5
- **Answer 2**
  - Rationale: Evasive.
  - Rating: 3""",
    "labels as headings, values below": """## Answer 1
### Rationale
Right.
### Rating
5

## Answer 2
### Rationale
Evasive.
### Rating
3""",
    "an afterword": AS_ASKED + "\n\nOverall, Answer 1 is better than Answer 2, by 2 points.",
    "Windows line ends": AS_ASKED.replace("\n", "\r\n"),
    "JSON of the schema": json.dumps(
        {
            "evaluations": [
                {"answer": 2, "rationale": "Evasive.", "rating": 3},
                {"answer": 1, "rationale": "Right.", "rating": 5},
            ]
        }
    ),
    "a fenced JSON list with a preface": """Sure:
```json
[
  {"Answer": "Answer 1", "Rating": "5/5", "Rationale": "Right."},
  {"Answer": "Answer 2", "Rating": 3.0, "Rationale": "Evasive."}
]
```""",
    "JSON with a list per column": '{"ratings": [5, 3], "rationales": ["Right.", "Evasive."]}',
    "JSON with a key per answer": json.dumps(
        {"Answer 2": {"rating": 3, "rationale": "Evasive."}, "Answer 1": {"rating": 5, "rationale": "Right."}}
    ),
    "a JSON object per line": '{"rating": 5, "rationale": "Right."}\n{"rating": 3, "rationale": "Evasive."}',
}


@pytest.mark.parametrize("reply", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_a_reply_is_read_however_it_is_dressed(reply: str) -> None:
    assert parse_evaluations(reply, 2) == [Evaluation(5, "Right."), Evaluation(3, "Evasive.")]


BROKEN_ANSWERS = {
    "nothing": ("", "found none"),
    "a refusal": ("I'm sorry, I can't rate these.", "found none"),
    "a missing block": ("Answer 1\nRationale: Right.\nRating: 5", "answer 2 not rated"),
    "a doubled block": (AS_ASKED + "\n\nAnswer 2\nRationale: Or not.\nRating: 1", "2 rated more than once"),
    "a block too many": (AS_ASKED + "\n\nAnswer 3\nRationale: ?\nRating: 1", "3 not among them"),
    "counted from zero": (AS_ASKED.replace("Answer 1", "Answer 0").replace("Answer 2", "Answer 1"), "0 not among them"),
    "too few without numbers": ("Rationale: Right.\nRating: 5", "some have none"),
    "a rating of six": (AS_ASKED.replace("5", "6"), "answer 1: rating: expected 1 to 5, got '6'"),
    "a rating of zero": (AS_ASKED.replace("3", "0"), "answer 2: rating: expected 1 to 5, got '0'"),
    "a negative rating": (AS_ASKED.replace("3", "-3"), "got '-3'"),
    "not available": (AS_ASKED.replace("3", "N/A"), "answer 2: rating: expected a whole number from 1 to 5, got 'N/A'"),
    "a rating in words": (AS_ASKED.replace("3", "three"), "got 'three'"),
    "half a point": (AS_ASKED.replace("3", "3.5"), "got '3.5'"),
    "a range": (AS_ASKED.replace("3", "3-4"), "got '3-4'"),
    "an alternative": (AS_ASKED.replace("3", "3 or 4"), "got '3 or 4'"),
    "an alternative in brackets": (AS_ASKED.replace("3", "3 (or maybe 4)"), "got '3 (or maybe 4)'"),
    "another scale": (AS_ASKED.replace("Rating: 3", "Rating: 3/10"), "out of 5, got '3/10'"),
    "two ratings of one answer": (AS_ASKED + "\nRating: 4", "answer 2: 2 times a rating"),
    "no rationale": (AS_ASKED.replace("Rationale: Evasive.\n", ""), "answer 2: no rationale"),
    "an empty rationale": (AS_ASKED.replace("Evasive.", ""), "answer 2: no rationale"),
    "cut off": (AS_ASKED[: AS_ASKED.rindex("Rating")], "answer 2: no rating"),
    "JSON that is cut off": ('{"evaluations": [{"answer": 1, "ratio', "cut off or not valid"),
    "JSON with one answer too few": ('[{"rating": 5, "rationale": "Right."}]', "answer 2 not rated"),
    "JSON with one number missing": (
        '[{"answer": 1, "rating": 5, "rationale": "a"}, {"rating": 3, "rationale": "b"}]',
        "some have none",
    ),
    "JSON with lists of different lengths": ('{"ratings": [5, 3], "rationales": ["Right."]}', "different lengths"),
    "JSON with true as a rating": (
        '[{"rating": true, "rationale": "a"}, {"rating": 3, "rationale": "b"}]',
        "answer 1: rating",
    ),
    "JSON with null as a rating": ('{"ratings": [5, null], "rationales": ["a", "b"]}', "answer 2: no rating"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN_ANSWERS.values(), ids=BROKEN_ANSWERS.keys())
def test_a_reply_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        parse_evaluations(reply, 2)
    assert problem in str(raised.value)


def test_a_rationale_keeps_its_blank_lines_and_its_mentions_of_other_answers() -> None:
    rationale = "Right, and short.\n\nAnswer 2 is evasive; this one isn't. Its rating: deserved.\n\n- It is exact."
    reply = f"Answer 1\nRationale: {rationale}\nRating: 5\n\nAnswer 2\nRationale: Evasive.\nRating: 3"
    assert parse_evaluations(reply, 2) == [Evaluation(5, rationale), Evaluation(3, "Evasive.")]


def test_a_single_answer_needs_no_number() -> None:
    assert parse_evaluations("Rating: 4\nRationale: Fine.", 1) == [Evaluation(4, "Fine.")]


WITH_TYPES_GOOD = {
    "as asked": """Answer 1
Type: None
Rationale: Nothing is made up.
Rationale for rating: Clean.
Rating: 5

Answer 2
Type: 2
Rationale: It adds to the text.
Rationale for rating: A reader is misled.
Rating: 2""",
    "the paper's order, with two labels alike": """#### Output for Text 1
Type: N/A
Rationale: Nothing is made up.
Rating: 5
Rationale: Clean.

#### Output for Text 2
Type: 2 (against the instruction)
Rationale: It adds to the text.
Rating: 2/5
Rationale: A reader is misled.""",
    "dressed up": """**Answer 1**
**Hallucination type:** None found
**Rationale:** Nothing is made up.
**Rationale for the rating:** Clean.
**Rating:** 5

**Answer 2**
**Hallucination type:** Type 2
**Rationale:** It adds to the text.
**Rationale for the rating:** A reader is misled.
**Rating:** 2""",
    "JSON with a list per column": json.dumps(
        {
            "types": [None, 2],
            "rationales": ["Nothing is made up.", "It adds to the text."],
            "ratings": [5, 2],
            "rationales-for-ratings": ["Clean.", "A reader is misled."],
        }
    ),
    "JSON of the schema": json.dumps(
        [
            {"answer": n, "type": kind, "rationale": why, "rationale_for_rating": reason, "rating": rating}
            for n, kind, why, reason, rating in [
                (1, 0, "Nothing is made up.", "Clean.", 5),
                (2, 2, "It adds to the text.", "A reader is misled.", 2),
            ]
        ]
    ),
}


@pytest.mark.parametrize("reply", WITH_TYPES_GOOD.values(), ids=WITH_TYPES_GOOD.keys())
def test_types_and_both_rationales_are_read(reply: str) -> None:
    assert parse_evaluations(reply, 2, types=True) == [
        Evaluation(5, "Nothing is made up.", None, "Clean."),
        Evaluation(2, "It adds to the text.", 2, "A reader is misled."),
    ]


@pytest.mark.parametrize("kind", ["4", "1, 3", "facts"])
def test_a_type_that_isnt_one_of_the_three_is_refused(kind: str) -> None:
    reply = WITH_TYPES_GOOD["as asked"].replace("Type: 2", f"Type: {kind}")
    with pytest.raises(UnreadableAnswerError, match="answer 2: type"):
        parse_evaluations(reply, 2, types=True)


@pytest.mark.parametrize("aspect", QUALITIES)
def test_text_and_json_replies_give_the_same_columns(aspect: Any) -> None:
    columns: dict[str, Any] = {"ratings": [4, 2], "rationales": ["Good.", "Poor."]}
    if aspect in WITH_TYPES:
        columns |= {"types": [1, None], "rationales-for-ratings": ["Fine.", "Weak."]}
    for llm in (OneReplyLLM(reply=""), StructuredOneReplyLLM(reply="")):
        task = UltraFeedback(llm=llm, aspect=aspect)
        llm.reply = task.format_example({**ROW, **columns})
        (row,) = next(task.process([ROW]))
        assert {name: row[name] for name in columns} == columns
        assert set(task.outputs) == {*columns, "model_name"}


def test_an_llm_that_takes_schemas_is_asked_for_json_and_another_for_text() -> None:
    plain, structured = OneReplyLLM(reply=AS_ASKED), StructuredOneReplyLLM(reply=AS_ASKED)
    for llm in (plain, structured):
        task = UltraFeedback(llm=llm)
        (row,) = next(task.process([ROW]))
        assert row["ratings"] == [5, 3]
    assert "JSON" not in plain.asked[0][0]["content"]
    assert "Answer 2\nRationale: <" in plain.asked[0][0]["content"]
    assert '"answer_1", "answer_2":' in structured.asked[0][0]["content"]
    assert structured.schemas == [UltraFeedback(llm=structured).get_structured_output()]


def test_structured_output_can_be_turned_off() -> None:
    llm = StructuredOneReplyLLM(reply=AS_ASKED)
    next(UltraFeedback(llm=llm, use_default_structured_output=False).process([ROW]))
    assert llm.schemas == [None]


@pytest.mark.parametrize("aspect", QUALITIES)
def test_the_schema_fits_strict_mode_as_it_is(aspect: Any) -> None:
    task = UltraFeedback(llm=OneReplyLLM(reply=""), aspect=aspect)
    schema = task.get_structured_output()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema


@pytest.mark.parametrize("aspect", QUALITIES)
def test_every_aspect_has_a_prompt_of_its_own_that_holds_the_answers(aspect: Any) -> None:
    task = UltraFeedback(llm=OneReplyLLM(reply=""), aspect=aspect)
    prompt = task.format_input(ROW)[0]["content"]
    assert QUALITIES[aspect] in prompt
    assert '<answer number="2">\nI can\'t know.\n</answer>' in prompt
    assert all(f"\n{number}. " in prompt for number in range(1, 6))


def test_an_unreadable_reply_fails_its_row_and_keeps_what_the_model_said() -> None:
    (row,) = next(UltraFeedback(llm=OneReplyLLM(reply="Both are fine.")).process([ROW]))
    assert row["ratings"] is None
    assert row["distilabel_metadata"]["raw_output_ultra_feedback"] == "Both are fine."
    assert row["distilabel_metadata"]["error_ultra_feedback"]["type"] == "UnreadableAnswerError"


@pytest.mark.parametrize("generations", [None, [], ["a", None], "text"])
def test_a_row_without_texts_to_rate_fails_and_costs_nothing(generations: Any) -> None:
    llm = OneReplyLLM(reply=AS_ASKED)
    (row,) = next(UltraFeedback(llm=llm).process([{**ROW, "generations": generations}]))
    assert "expected a list of texts" in row["distilabel_metadata"]["error_ultra_feedback"]["message"]
    assert llm.asked == []


def test_an_example_that_lacks_a_column_says_which() -> None:
    task = UltraFeedback(llm=OneReplyLLM(reply=AS_ASKED), examples=[{**ROW, "ratings": [5, 3]}])
    (row,) = next(task.process([ROW]))
    assert "lacks ['rationales']" in row["distilabel_metadata"]["error_ultra_feedback"]["message"]


def test_few_shot_examples_are_shown_in_the_form_that_is_asked_for() -> None:
    example = {**ROW, "ratings": [5, 3], "rationales": ["Right.", "Evasive."]}
    llm = OneReplyLLM(reply=AS_ASKED)
    next(UltraFeedback(llm=llm, examples=[example]).process([ROW]))
    assert llm.asked[0][1] == {"role": "assistant", "content": AS_ASKED}


def test_each_answer_has_a_key_of_its_own_in_the_schema_and_is_joined_by_it() -> None:
    task = UltraFeedback(llm=StructuredOneReplyLLM(reply=""))
    row = {**ROW, "generations": ["a", "b", "c"]}

    _, schema = task.format_input(row)
    columns = task.format_output(
        '{"answer_3": {"rationale": "z", "rating": 1}, "answer_1": {"rationale": "x", "rating": 5},'
        ' "answer_2": {"rationale": "y", "rating": 3}}',
        row,
    )

    assert schema["required"] == ["answer_1", "answer_2", "answer_3"]
    assert columns == {"ratings": [5, 3, 1], "rationales": ["x", "y", "z"]}
