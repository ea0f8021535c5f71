"""What becomes of answers that the limit of tokens cut off."""

from __future__ import annotations

from typing import Any

from llms import LLM, GenerateOutput
from tasks import ComplexityScorer, EvolInstruct, PairwiseJudge, Task, TextGeneration
from tasks.typing import Row

METADATA = "distilabel_metadata"


class CuttingLLM(LLM):
    """Says the same every time. The limit of tokens ends the replies whose place is in `cut`."""

    reply: str
    cut: list[int] = [0]
    asked: int = 0

    @property
    def model_name(self) -> str:
        return "cutting"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        ones = [1] * num_generations
        outputs: list[GenerateOutput] = []
        for _ in inputs:
            marks = [self.asked + place in self.cut for place in range(num_generations)]
            self.asked += num_generations
            statistics = {"input_tokens": ones, "output_tokens": ones}
            outputs.append({"generations": [self.reply] * num_generations, "statistics": statistics, "cut_off": marks})
        return outputs


def rows_of(task: Task, row: Row) -> list[Row]:
    task.load()
    return next(task.process([row]))


def test_a_cut_text_keeps_its_row_and_marks_it() -> None:
    task = TextGeneration(llm=CuttingLLM(reply="The sea is", cut=[1]), num_generations=2)

    whole, cut = rows_of(task, {"instruction": "Tell me about the sea."})

    assert cut["generation"] == "The sea is"
    assert cut[METADATA]["cut_off_text_generation"] is True
    assert "cut_off_text_generation" not in whole[METADATA]


def test_generations_in_one_row_are_marked_in_their_order() -> None:
    task = TextGeneration(llm=CuttingLLM(reply="Yes", cut=[1]), num_generations=2, group_generations=True)

    (row,) = rows_of(task, {"instruction": "Tell me about the sea."})

    assert row[METADATA]["cut_off_text_generation"] == [None, True]


def test_an_answer_that_cant_be_read_as_it_was_cut_off_says_so() -> None:
    given = {"instructions": ["a", "b"]}

    (cut,) = rows_of(ComplexityScorer(llm=CuttingLLM(reply="[1] Score: 3")), given)
    (whole,) = rows_of(ComplexityScorer(llm=CuttingLLM(reply="[1] Score: 3", cut=[])), given)

    assert "give more `max_new_tokens`" in cut[METADATA]["error_complexity_scorer"]["message"]
    assert "max_new_tokens" not in whole[METADATA]["error_complexity_scorer"]["message"]


def test_a_cut_round_marks_what_is_made_of_it() -> None:
    task = EvolInstruct(llm=CuttingLLM(reply="Why is the sea salty?", cut=[0]), num_evolutions=2)

    (row,) = rows_of(task, {"instruction": "Tell me about the sea."})

    assert row[METADATA]["cut_off_evol_instruct"] is True


def test_a_cut_verdict_in_either_order_marks_both() -> None:
    task = PairwiseJudge(llm=CuttingLLM(reply="Rationale: clear.\nVerdict: A", cut=[1]))

    (row,) = rows_of(task, {"instruction": "Tell me about the sea.", "generations": ["Salt.", "Water."]})

    assert row["preferred"] == "tie"
    assert row[METADATA]["cut_off_pairwise_judge"] is True
