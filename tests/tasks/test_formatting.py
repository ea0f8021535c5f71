"""The formats for fine-tuning and preference tuning."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest

from tasks import ChatGeneration
from tasks.rows.formatting import (
    ConversationTemplate,
    FormatChatGenerationDPO,
    FormatChatGenerationSFT,
    FormatTextGenerationDPO,
    FormatTextGenerationSFT,
)
from tasks.steps import METADATA, Step, failure_in
from tests.tasks.one_reply import OneReplyLLM

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "How high is K2?"},
]
RATED: dict[str, Any] = {
    "instruction": "How high is K2?",
    "messages": CHAT,
    "generations": ["High.", "8,611 m.", "Low."],
    "ratings": [3, 5, 1],
    "generation_models": ["a", "b", "c"],
}


def one(step: Step, row: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(row)
    (made,) = step.apply([row])
    assert row == before
    return made


def test_sft_of_an_instruction_is_a_chat_with_an_id_of_its_prompt() -> None:
    row = one(FormatTextGenerationSFT(), {"instruction": "Hé?", "generation": "Ja.", "system_prompt": "Be brief."})
    assert row["prompt"] == "Hé?"
    assert row["prompt_id"] == hashlib.sha256("Hé?".encode()).hexdigest()
    assert [(each["role"], each["content"]) for each in row["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hé?"),
        ("assistant", "Ja."),
    ]


def test_sft_of_a_chat_ends_with_the_answer_and_is_named_by_the_first_question() -> None:
    row = one(FormatChatGenerationSFT(), {"messages": CHAT, "generation": "8,611 m."})
    assert row["prompt"] == "Hi."
    assert row["messages"] == [*CHAT, {"role": "assistant", "content": "8,611 m."}]


def test_a_call_of_a_tool_stays_in_the_chat_and_the_keys_that_a_table_adds_dont() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "height", "arguments": "{}"}}]
    called: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": calls}
    answered: dict[str, Any] = {"role": "tool", "content": "8611", "tool_call_id": "c1"}
    table = [{**dict.fromkeys(["tool_calls", "tool_call_id"]), **each} for each in (CHAT[1], called, answered)]
    row = one(FormatChatGenerationSFT(), {"messages": table, "generation": "8,611 m."})
    assert row["messages"][:-1] == [CHAT[1], called, answered]


def test_the_prompt_of_a_message_with_an_image_is_its_text() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    row = one(FormatChatGenerationSFT(), {"messages": [{"role": "user", "content": parts}], "generation": "A cat."})
    assert row["prompt"] == "What is this?"


@pytest.mark.parametrize("step", [FormatTextGenerationDPO(), FormatChatGenerationDPO()], ids=["text", "chat"])
def test_dpo_takes_the_best_and_the_worst_with_rating_and_model(step: Step) -> None:
    row = one(step, RATED)
    assert (row["chosen"][-1]["content"], row["chosen_rating"], row["chosen_model"]) == ("8,611 m.", 5, "b")
    assert (row["rejected"][-1]["content"], row["rejected_rating"], row["rejected_model"]) == ("Low.", 1, "c")
    assert row["chosen"][:-1] == row["rejected"][:-1]


def test_dpo_of_a_chat_keeps_the_whole_chat() -> None:
    assert one(FormatChatGenerationDPO(), RATED)["chosen"][:-1] == CHAT


def test_among_equal_ratings_the_first_generation_counts() -> None:
    row = one(FormatTextGenerationDPO(), {**RATED, "ratings": [5, 5, 1]})
    assert row["chosen_model"] == "a"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_generation_without_a_rating_is_left_out_of_the_comparison(missing: Any) -> None:
    row = one(FormatTextGenerationDPO(), {**RATED, "ratings": [3, missing, 1]})
    assert (row["chosen_model"], row["rejected_model"]) == ("a", "c")


@pytest.mark.parametrize(
    ("generations", "ratings"),
    [(["a", "b"], [4, 4]), (["a"], [5]), (["a", "b"], [5, None]), ([], []), (["a", None], [5, 1])],
)
def test_a_row_without_a_preference_holds_none_or_is_left_out(generations: list[Any], ratings: list[Any]) -> None:
    row = {"instruction": "x", "generations": generations, "ratings": ratings}
    kept = one(FormatTextGenerationDPO(), row)
    assert kept["prompt"] == "x"
    assert kept["chosen"] is None and kept["rejected"] is None and kept["chosen_rating"] is None
    assert failure_in(kept) is None
    assert FormatTextGenerationDPO(drop_ties=True).apply([row]) == []


def test_models_are_none_where_they_arent_known() -> None:
    row = {name: value for name, value in RATED.items() if name != "generation_models"}
    assert one(FormatTextGenerationDPO(), row)["chosen_model"] is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ratings": [1]}, "3 generations, 1 ratings"),
        ({"generation_models": ["a"]}, "1 generation_models"),
        ({"ratings": ["5", "1", "2"]}, "expected numbers"),
        ({"ratings": None}, "ratings: expected a list, got None"),
        ({"instruction": None}, "instruction: expected a text, got None"),
        ({"generations": ["a", ["b"], "c"]}, "generations: expected texts"),
        ({"system_prompt": float("nan")}, "system_prompt: expected a text, got nan"),
    ],
)
def test_a_row_whose_columns_dont_fit_fails_alone_even_where_ties_are_dropped(change: Any, problem: str) -> None:
    bad, good = FormatTextGenerationDPO(drop_ties=True).apply([{**RATED, **change}, RATED])
    failure = failure_in(bad)
    assert failure is not None and problem in failure["message"]
    assert bad["chosen"] is None and good["chosen"] is not None


def test_a_row_that_failed_before_goes_through_with_its_failure_alone() -> None:
    metadata = {"error_ultra_feedback": {"type": "LLMError", "message": "no", "retryable": False}}
    row = one(FormatTextGenerationDPO(drop_ties=True), {**RATED, "ratings": None, METADATA: metadata})
    assert row["chosen"] is None
    assert row[METADATA] == metadata


def test_a_row_that_failed_keeps_the_chat_that_the_step_would_have_written_over() -> None:
    metadata = {"error_text_generation": {"type": "LLMError", "message": "no", "retryable": False}}
    row = one(FormatChatGenerationSFT(), {"messages": CHAT, "generation": None, METADATA: metadata})
    assert row["messages"] == CHAT and row["prompt"] is None and row[METADATA] == metadata
    assert one(FormatChatGenerationSFT(), {"messages": CHAT, "generation": None})["messages"] == CHAT


def test_a_list_of_generations_where_one_is_expected_names_the_way_out() -> None:
    failure = failure_in(one(FormatTextGenerationSFT(), {"instruction": "x", "generation": ["a", "b"]}))
    assert failure is not None and "ExpandColumns" in failure["message"]


@pytest.mark.parametrize(
    "messages",
    [
        *([{"role": "system", "content": "x"}], [{"text": "x"}], "x", [{"role": "user", "content": ["x"]}]),
        *([{"role": "user", "content": 5}], [{"role": "user", "content": None}], [{"role": None, "content": "x"}]),
    ],
)
def test_a_chat_that_isnt_one_fails_its_row(messages: Any) -> None:
    assert failure_in(one(FormatChatGenerationSFT(), {"messages": messages, "generation": "a"})) is not None


def test_a_conversation_is_made_of_an_instruction_and_its_response() -> None:
    assert one(ConversationTemplate(), {"instruction": "Hi.", "response": "Hello."})["conversation"] == [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
    ]


def test_columns_can_have_other_names_in_the_dataset() -> None:
    step = FormatTextGenerationSFT(input_mappings={"generation": "answer"}, output_mappings={"messages": "chat"})
    row = one(step, {"instruction": "x", "answer": "y"})
    assert set(row) == {"instruction", "answer", "prompt", "prompt_id", "chat"}
    assert step.added_columns(frozenset({"instruction", "answer"})) == set(row)


CALLS = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Madrid"}'}}]
TOOL_CHAT = [
    {"role": "user", "name": "Ada", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]


def test_chats_keep_tool_calls_ids_and_names() -> None:
    row = {"messages": TOOL_CHAT, "generation": "It's sunny.", "generations": ["It's sunny.", "No."], "ratings": [5, 1]}
    answer = [{"role": "assistant", "content": "It's sunny."}]

    (supervised,) = next(FormatChatGenerationSFT().process([row]))
    (preference,) = next(FormatChatGenerationDPO().process([row]))

    assert supervised["messages"] == [*TOOL_CHAT, *answer]
    assert preference["chosen"] == [*TOOL_CHAT, *answer]


def test_a_chat_with_calls_is_sent_whole() -> None:
    task = ChatGeneration(llm=OneReplyLLM(reply="fine"))
    # A table adds empty keys to messages that lack what others have.
    padded = [{"name": None, "tool_calls": None, "tool_call_id": None, **message} for message in TOOL_CHAT]

    assert task.format_input({"messages": TOOL_CHAT}) == TOOL_CHAT
    assert task.format_input({"messages": padded}) == TOOL_CHAT
