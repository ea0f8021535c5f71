"""The pairwise judge, in both orders, and the judge by criteria: prompts, and the replies that models really send."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from llms import LLM, GenerateOutput
from llms.local_provider import LocalProvider
from llms.structured_output import strict_schema
from tasks import Criterion, FormatTextGenerationDPO, PairwiseJudge, RubricJudge, UnreadableAnswerError
from tasks.judging.judges import parse_criteria, rationale_and_verdict
from tests.tasks.contract import check_contract, llm, made_offline
from tests.tasks.one_reply import OneReplyLLM, StructuredOneReplyLLM

PAIR = {"instruction": "How high is K2?", "generations": ["8,611 m.", "High."], "reference": "8,611 m."}
ANSWER = {"instruction": "How high is K2?", "generation": "8,611 m.", "reference": "K2 is 8,611 m high."}

AS_ASKED = "Rationale: Only one is exact.\nVerdict: A"

VERDICTS = {
    "the form that was asked for": AS_ASKED,
    "bold": "**Rationale:** Only one is exact.\n\n**Verdict:** **A**",
    "another order": "Verdict: A\nRationale: Only one is exact.",
    "no label on the rationale": "Only one is exact.\n\nFinal verdict: Answer A",
    "a heading": "## Comparison: Only one is exact.\n### Winner: (A)",
    "the brackets of MT-Bench": "Only one is exact. [[A]]",
    "a sentence": "Only one is exact.\nThe better answer is A.",
    "a letter that is explained": "Rationale: Only one is exact.\nVerdict: A is clearly better",
    "thoughts": f"<think>Verdict: B?</think>{AS_ASKED}",
    "a fence": f"```\n{AS_ASKED}\n```",
    "JSON": '{"rationale": "Only one is exact.", "verdict": "A"}',
    "JSON in a fence, with a preface": 'Sure:\n```json\n{"verdict": "a", "rationale": "Only one is exact."}\n```',
}


@pytest.mark.parametrize("reply", VERDICTS.values(), ids=VERDICTS.keys())
def test_a_verdict_is_read_however_it_is_dressed(reply: str) -> None:
    assert rationale_and_verdict(reply) == ("Only one is exact.", "A")


@pytest.mark.parametrize("said", ["tie", "Tie", "**tie**", "a tie", "It's a tie.", "draw", "Equal", "neither"])
def test_a_tie_is_read_however_it_is_said(said: str) -> None:
    assert rationale_and_verdict(f"Rationale: Both are exact.\nVerdict: {said}")[1] == "tie"


NO_VERDICTS = {
    "nothing": ("", "found 0"),
    "a refusal": ("I'd rather not.", "found 0"),
    "no verdict": ("Rationale: Only one is exact.", "found 0"),
    "no rationale": ("Verdict: A", "expected a rationale"),
    "both": (AS_ASKED.replace("Verdict: A", "Verdict: A or B"), "expected A or B"),
    "a third": (AS_ASKED.replace("Verdict: A", "Verdict: C"), "expected A or B"),
    "a number": (AS_ASKED.replace("Verdict: A", "Verdict: 1"), "expected A or B"),
    "the worse one": (AS_ASKED + " is worse", "expected A or B"),
    "a denial": (AS_ASKED + " is not better", "expected A or B"),
    "two verdicts": (AS_ASKED + "\nVerdict: B", "found 2"),
    "two in brackets": ("[[A]] at first, but then [[B]]", "found 2"),
    "cut off": ("Rationale: Only one is exact.\nVerd", "found 0"),
    "JSON that is cut off": ('{"rationale": "Only one', "found none"),
    "JSON with a line in its text that is like a verdict": (
        '{"rationale": "x\nVerdict: A\ny", "verdict": "B"}',
        "found none",
    ),
    "JSON without a verdict": ('{"rationale": "Only one is exact."}', "lacks ['verdict']"),
    "JSON with null": ('{"rationale": "Only one is exact.", "verdict": null}', "expected A or B"),
}


@pytest.mark.parametrize(("reply", "problem"), NO_VERDICTS.values(), ids=NO_VERDICTS.keys())
def test_a_verdict_that_isnt_certain_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        rationale_and_verdict(reply)
    assert problem in str(raised.value)


class Judge(LLM):
    """Prefers what it's told to: a text wherever it stands, or a place."""

    text: str = ""
    place: str = ""
    broken_at: int = -1
    asked: list[Any] = []

    @property
    def model_name(self) -> str:
        return "judge"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        counts = [10] * num_generations
        statistics = {"input_tokens": counts, "output_tokens": counts}
        return [{"generations": [self.reply(each)] * num_generations, "statistics": statistics} for each in inputs]

    def reply(self, chat: Any) -> str:
        self.asked.append(chat)
        if len(self.asked) - 1 == self.broken_at:
            return "I can't say."
        prompt = chat[-1]["content"]
        at_a = prompt.index('<answer name="A">') < prompt.index(f"\n{self.text}\n") < prompt.index('<answer name="B">')
        return f"Rationale: So it is.\nVerdict: {self.place or ('A' if at_a else 'B')}"


def judged(judge: LLM, **options: Any) -> dict[str, Any]:
    (row,) = next(PairwiseJudge(llm=judge, **options).process([PAIR]))
    return row


@pytest.mark.parametrize(("text", "preferred", "ratings"), [("8,611 m.", "A", [1.0, 0.0]), ("High.", "B", [0.0, 1.0])])
def test_a_preference_that_holds_in_both_orders_counts(text: str, preferred: str, ratings: list[float]) -> None:
    row = judged(Judge(text=text))
    assert (row["preferred"], row["verdicts"], row["ratings"]) == (preferred, [preferred] * 2, ratings)
    assert row["rationales"] == ["So it is.", "So it is."]


@pytest.mark.parametrize(("place", "verdicts"), [("A", ["A", "B"]), ("B", ["B", "A"]), ("tie", ["tie", "tie"])])
def test_a_preference_for_a_place_is_a_tie(place: str, verdicts: list[str]) -> None:
    row = judged(Judge(text="High.", place=place))
    assert (row["preferred"], row["verdicts"], row["ratings"]) == ("tie", verdicts, [0.5, 0.5])


def test_both_orders_are_asked_with_the_answers_swapped_and_their_tokens_are_added_up() -> None:
    judge = Judge(text="High.")
    row = judged(judge)
    first, second = (chat[0]["content"] for chat in judge.asked)
    assert first != second
    swapped = first.replace("8,611 m.", "@").replace("High.", "8,611 m.").replace("@", "High.")
    assert second == swapped
    metadata = row["distilabel_metadata"]
    assert metadata["statistics_pairwise_judge"] == {"input_tokens": 20, "output_tokens": 20}
    assert metadata["raw_input_pairwise_judge"] == judge.asked
    assert len(metadata["raw_output_pairwise_judge"]) == 2


@pytest.mark.parametrize("broken_at", [0, 1])
def test_a_row_with_an_unreadable_verdict_in_one_order_fails_and_keeps_both_replies(broken_at: int) -> None:
    row = judged(Judge(text="High.", broken_at=broken_at))
    metadata = row["distilabel_metadata"]
    assert (row["preferred"], row["ratings"]) == (None, None)
    assert metadata["error_pairwise_judge"]["type"] == "UnreadableAnswerError"
    assert metadata["raw_output_pairwise_judge"][broken_at] == "I can't say."


def test_several_verdicts_are_each_held_against_their_own_in_the_other_order() -> None:
    rows = next(PairwiseJudge(llm=Judge(text="High."), num_generations=2).process([PAIR]))
    assert [row["preferred"] for row in rows] == ["B", "B"]
    grouped = judged(Judge(text="High."), num_generations=2, group_generations=True)
    assert grouped["ratings"] == [[0.0, 1.0], [0.0, 1.0]]


def test_the_orders_are_asked_in_the_same_order_every_time() -> None:
    task, asked = PairwiseJudge(llm=Judge(text="High.")), list[list[Any]]()

    async def ask(prompt: Any, num_generations: int = 1) -> GenerateOutput:
        asked[-1].append(prompt)
        await asyncio.sleep(0.001 if len(asked[-1]) == 1 else 0)
        return {"generations": [AS_ASKED], "statistics": {"input_tokens": [1], "output_tokens": [1]}}

    for _ in range(2):
        asked.append([])
        asyncio.run(task.converse(copy.deepcopy(PAIR), ask))
    assert asked[0] == asked[1]


def test_the_row_that_was_given_stays_as_it_is_and_mappings_are_kept_to() -> None:
    row = {"prompt": "How high is K2?", "answers": ["8,611 m.", "High."]}
    before = copy.deepcopy(row)
    task = PairwiseJudge(
        llm=Judge(text="High."),
        input_mappings={"instruction": "prompt", "generations": "answers"},
        output_mappings={"preferred": "winner"},
    )
    (made,) = next(task.process([row]))
    assert row == before
    assert made["winner"] == "B"
    assert {"prompt", "answers", "verdicts"} < set(made)


def test_its_ratings_make_preference_rows() -> None:
    (made,) = next(FormatTextGenerationDPO().process([judged(Judge(text="8,611 m."))]))
    (tie,) = next(FormatTextGenerationDPO(drop_ties=False).process([judged(Judge(text="High.", place="A"))]))
    assert made["chosen"][-1]["content"] == "8,611 m."
    assert tie["chosen"] is None


def test_both_orders_go_into_one_batch_job(provider: LocalProvider) -> None:
    provider.set(
        answers=[
            {"match": 'name="A">\n8,611', "answer": json.dumps({"rationale": "Exact.", "verdict": "A"})},
            {"match": "", "answer": json.dumps({"rationale": "Exact again.", "verdict": "B"})},
        ]
    )
    provider.set(batch_seconds=0.0, batch_manual=False)
    made = made_offline(PairwiseJudge(llm=llm(use_offline_batch_generation=True)), PAIR)
    assert (made["preferred"], made["rationales"]) == ("A", ["Exact.", "Exact again."])
    assert len(provider.batches) == 1


def test_asked_once_the_pairwise_judge_keeps_to_the_contract(provider: LocalProvider) -> None:
    def once(**more: Any) -> PairwiseJudge:
        return PairwiseJudge(swap_positions=False, reference=True, **more)

    answer = json.dumps({"rationale": "Exact.", "verdict": "B"})
    columns = {"preferred": "B", "verdicts": ["B"], "rationales": ["Exact."], "ratings": [0.0, 1.0]}
    check_contract(provider, once, PAIR, answer, columns)


@pytest.mark.parametrize("generations", [None, [], ["one"], ["one", "two", "three"], ["one", None], "text"])
def test_a_row_without_two_texts_fails_and_costs_nothing(generations: Any) -> None:
    judge = Judge()
    (row,) = next(PairwiseJudge(llm=judge).process([{**PAIR, "generations": generations}]))
    assert "expected a list of 2 texts" in row["distilabel_metadata"]["error_pairwise_judge"]["message"]
    assert judge.asked == []


def test_the_pairwise_prompt_holds_the_criteria_and_the_reference_and_fits_strict_mode() -> None:
    task = PairwiseJudge(llm=StructuredOneReplyLLM(reply=""), criteria="The shorter one is better.", reference=True)
    chat, schema = task.prompt(PAIR)
    assert "The shorter one is better." in chat[0]["content"]
    assert "<reference>\n8,611 m.\n</reference>" in chat[0]["content"]
    assert strict_schema(schema) == schema
    assert "<reference>" not in PairwiseJudge(llm=OneReplyLLM(reply="")).prompt(PAIR)[0]["content"]


def test_a_pairwise_example_is_shown_in_the_form_that_is_asked_for() -> None:
    example = {**PAIR, "preferred": "A", "rationales": ["Only one is exact.", "The same."]}
    plain = PairwiseJudge(llm=OneReplyLLM(reply=""), examples=[example]).prompt(PAIR)
    chat, _ = PairwiseJudge(llm=StructuredOneReplyLLM(reply=""), examples=[example]).prompt(PAIR)
    assert plain[1] == {"role": "assistant", "content": AS_ASKED}
    assert json.loads(chat[1]["content"]) == {"rationale": "Only one is exact.", "verdict": "A"}


CRITERIA = [
    Criterion(name="correct", description="What it states is true.", weight=3),
    Criterion(name="to_the_point", description="It wastes no words.", lowest=0, highest=10),
]

BLOCKS = """Criterion: correct
Rationale: It is right.
Score: 5

Criterion: to_the_point
Rationale: A word too many.
Score: 8"""

SCORES = {
    "the form that was asked for": BLOCKS,
    "a preface and an afterword": f"Here are my scores:\n\n{BLOCKS}\n\nAll in all, a good answer.",
    "headings and bold": """### correct
**Rationale:** It is right.
**Score:** 5/5

### To the point
**Rationale:** A word too many.
**Score:** 8/10""",
    "another order": """to_the_point:
Score: 8
Rationale: A word too many.

correct:
Score: 5
Rationale: It is right.""",
    "numbers and colons": """1. **Correct**:
- Rationale: It is right.
- Score: 5

2. **To-the-point**:
- Rationale: A word too many.
- Score: 8""",
    "the score beside the name": """correct: 5/5
Rationale: It is right.

to_the_point: 8/10
Rationale: A word too many.""",
    "no label on the reasons": """Criterion 1: correct
It is right.
Score: 5

Criterion 2: to the point
A word too many.
Score: 8""",
    "thoughts": f"<think>correct\nScore: 1?</think>{BLOCKS}",
    "a fence": f"```text\n{BLOCKS}\n```",
    "JSON": json.dumps(
        {
            "to_the_point": {"rationale": "A word too many.", "score": 8},
            "correct": {"rationale": "It is right.", "score": 5},
        }
    ),
    "JSON with other keys, fenced": """Sure:
```json
{"Correct": {"reason": "It is right.", "score": "5/5"}, "To the point": {"reason": "A word too many.", "score": 8.0}}
```""",
    "JSON by column": """{
  "scores": {"correct": 5, "to_the_point": 8},
  "rationales": {"correct": "It is right.", "to_the_point": "A word too many."}
}""",
    "a JSON list": json.dumps(
        [
            {"criterion": "correct", "rationale": "It is right.", "score": 5},
            {"criterion": "to_the_point", "rationale": "A word too many.", "score": 8},
        ]
    ),
    "a list under a key": json.dumps(
        {
            "criteria": [
                {"name": "correct", "rationale": "It is right.", "score": 5},
                {"name": "to_the_point", "rationale": "A word too many.", "score": 8},
            ]
        }
    ),
}


@pytest.mark.parametrize("reply", SCORES.values(), ids=SCORES.keys())
def test_scores_are_read_by_the_names_of_the_criteria(reply: str) -> None:
    read = parse_criteria(reply, CRITERIA)
    assert read["correct"] == ("It is right.", 5)
    assert read["to_the_point"][1] == 8
    assert read["to_the_point"][0].startswith("A word too many.")


NO_SCORES = {
    "nothing": ("", "found none for ['correct', 'to_the_point']"),
    "a refusal": ("I'd rather not.", "found none for ['correct', 'to_the_point']"),
    "a missing criterion": (BLOCKS.partition("\n\n")[0], "found none for ['to_the_point']"),
    "a doubled one": (BLOCKS + "\n\nCriterion: correct\nRationale: Or not.\nScore: 1", "expected one score"),
    "off its scale": (BLOCKS.replace("Score: 5", "Score: 6"), "correct: expected 1 to 5, got '6'"),
    "the scale of another": (BLOCKS.replace("Score: 8", "Score: 8/5"), "out of 10"),
    "half a point": (BLOCKS.replace("Score: 5", "Score: 4.5"), "got '4.5'"),
    "no rationale": (BLOCKS.replace("Rationale: It is right.\n", ""), "correct: expected a reason"),
    "no score": (BLOCKS.replace("Score: 5\n", ""), "correct: expected one score from 1 to 5, found 0"),
    "two scores": (BLOCKS + "\nScore: 7", "to_the_point: expected one score from 0 to 10, found 2"),
    "cut off": (BLOCKS[: BLOCKS.rindex("Score")], "to_the_point: expected one score"),
    "JSON that is cut off": (SCORES["JSON"][:80], "found none for"),
    "JSON with one too few": ('{"correct": {"rationale": "a", "score": 5}}', "found none for ['to_the_point']"),
    "JSON without reasons": ('{"correct": 5, "to_the_point": 8}', "found none for"),
}


@pytest.mark.parametrize(("reply", "problem"), NO_SCORES.values(), ids=NO_SCORES.keys())
def test_scores_that_arent_certain_are_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        parse_criteria(reply, CRITERIA)
    assert problem in str(raised.value)


def test_a_single_criterion_needs_no_name() -> None:
    assert parse_criteria("Rationale: It is right.\nScore: 5", CRITERIA[:1]) == {"correct": ("It is right.", 5)}


def test_the_overall_score_weighs_scores_on_one_scale() -> None:
    columns = RubricJudge(llm=OneReplyLLM(reply=""), criteria=CRITERIA).format_output(BLOCKS, ANSWER)
    assert columns["scores"] == {"correct": 5, "to_the_point": 8}
    assert columns["overall_score"] == pytest.approx((3 * 1.0 + 1 * 0.8) / 4)
    assert list(columns["rationales"]) == ["correct", "to_the_point"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"criteria": []}, "at least 1 item"),
        ({"criteria": [CRITERIA[0], {"name": "Correct", "description": "x"}]}, "differ in more than case"),
        ({"criteria": [{"name": "a b", "description": "x"}]}, "pattern"),
        ({"criteria": [{"name": "a", "description": "x", "lowest": 5}]}, "`lowest` below `highest`"),
        ({"criteria": [{"name": "a", "description": "x", "weight": 0}]}, "greater than 0"),
    ],
)
def test_criteria_that_cant_work_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RubricJudge(llm=OneReplyLLM(reply=""), **options)


def test_the_schema_has_a_key_for_each_criterion_with_its_own_scale() -> None:
    task = RubricJudge(llm=StructuredOneReplyLLM(reply=""), criteria=CRITERIA, reference=True)
    chat, schema = task.prompt(ANSWER)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert strict_schema(schema) == schema
    assert schema["properties"]["to_the_point"]["properties"]["score"]["enum"] == list(range(11))
    assert "- to_the_point, from 0 (worst) to 10 (best): It wastes no words." in chat[0]["content"]
    assert "<reference>\nK2 is 8,611 m high.\n</reference>" in chat[0]["content"]


def test_a_rubric_example_is_shown_in_the_form_that_is_asked_for() -> None:
    reasons = {"correct": "It is right.", "to_the_point": "A word too many."}
    example = {**ANSWER, "scores": {"correct": 5, "to_the_point": 8}, "rationales": reasons}
    plain = RubricJudge(llm=OneReplyLLM(reply=""), criteria=CRITERIA, examples=[example]).prompt(ANSWER)
    chat, _ = RubricJudge(llm=StructuredOneReplyLLM(reply=""), criteria=CRITERIA, examples=[example]).prompt(ANSWER)
    assert plain[1] == {"role": "assistant", "content": BLOCKS}
    assert json.loads(chat[1]["content"])["correct"] == {"rationale": "It is right.", "score": 5}


def test_the_rubric_judge_keeps_to_the_contract(provider: LocalProvider) -> None:
    def by_criteria(**more: Any) -> RubricJudge:
        return RubricJudge(criteria=CRITERIA, **more)

    row = {name: ANSWER[name] for name in ("instruction", "generation")}
    columns = {
        "scores": {"correct": 5, "to_the_point": 8},
        "rationales": {"correct": "It is right.", "to_the_point": "A word too many."},
        "overall_score": 0.95,
    }
    check_contract(provider, by_criteria, row, SCORES["JSON"], columns)
