"""Genstruct and URIAL: prompts that are bare text, and where answers to them end."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llms import LLM, LlamaCppLLM, MlxLLM, OpenAILLM, TransformersLLM, vLLM
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from tasks import URIAL, Genstruct, Magpie, Task
from tasks.base import UnreadableAnswerError
from tasks.writing.bare_prompts import cut_at, warn_of_ends
from tasks.writing.chat_templates import CHAT_TEMPLATES
from tests.conftest import said
from tests.tasks.contract import check_contract
from tests.tasks.one_reply import OneReplyLLM

DOCUMENT = {"title": "K2", "content": "K2 is 8,611 metres high."}
QUESTION, ANSWER = "Is K2 above 8,000 metres?", "Yes, by 611 metres."

# Genstruct


def test_genstruct_prompts_in_the_format_that_its_model_was_trained_on() -> None:
    prompt = Genstruct(llm=OneReplyLLM(reply="")).format_input({"title": "K2\n", "content": "8,611 {m}.\n"})

    assert prompt == (
        "[[[Title]]] K2\n[[[Content]]] 8,611 {m}.\n\n"
        "The following is an interaction between a user and an AI assistant that is related to the above text.\n\n"
        "[[[User]]] "
    )


GENSTRUCT_GOOD = {
    "as trained": f" {QUESTION}\n[[[Assistant]]] {ANSWER}",
    "no spaces": f"{QUESTION}[[[Assistant]]]{ANSWER}",
    "blank lines": f"\n\n{QUESTION}\n\n[[[Assistant]]]\n\n{ANSWER}\n\n",
    "the user's mark again": f"[[[User]]] {QUESTION}\n[[[Assistant]]] {ANSWER}",
    "another turn": f"{QUESTION}\n[[[Assistant]]] {ANSWER}\n[[[User]]] And Everest?\n[[[Assistant]]] Too.",
    "another document": f"{QUESTION}\n[[[Assistant]]] {ANSWER}\n[[[Title]]] Everest\n[[[Content]]] ...",
}
GENSTRUCT_BROKEN = {
    "nothing": None,
    "blanks": "  \n",
    "a question alone": QUESTION,
    "an empty answer": f"{QUESTION}\n[[[Assistant]]] ",
    "an empty question": f"[[[Assistant]]] {ANSWER}",
    "two answers": f"{QUESTION}\n[[[Assistant]]] {ANSWER}\n[[[Assistant]]] Or not.",
    "the end of the turn alone": "[[[User]]]",
}


@pytest.mark.parametrize("answer", GENSTRUCT_GOOD.values(), ids=GENSTRUCT_GOOD.keys())
def test_genstruct_reads_a_question_and_its_answer(answer: str) -> None:
    found = Genstruct(llm=OneReplyLLM(reply="")).format_output(answer, DOCUMENT)
    assert found == {"user": QUESTION, "assistant": ANSWER}


@pytest.mark.parametrize("answer", GENSTRUCT_BROKEN.values(), ids=GENSTRUCT_BROKEN.keys())
def test_genstruct_refuses_what_lacks_one_of_them(answer: str | None) -> None:
    with pytest.raises(UnreadableAnswerError):
        Genstruct(llm=OneReplyLLM(reply="")).format_output(answer, DOCUMENT)


def test_an_answer_of_several_lines_is_whole() -> None:
    answer = "First:\n\n1. It is.\n\n[[Note]] So it stands."
    found = Genstruct(llm=OneReplyLLM(reply="")).format_output(f"{QUESTION}\n[[[Assistant]]] {answer}", DOCUMENT)
    assert found["assistant"] == answer


@pytest.mark.parametrize("option", [{"system_prompt": "Be brief."}, {"examples": [{"user": "?", "assistant": "!"}]}])
def test_genstruct_refuses_what_its_prompt_has_no_place_for(option: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="has no place for"):
        Genstruct(llm=OneReplyLLM(reply=""), **option).load()


# URIAL


def urial(**options: Any) -> URIAL:
    return URIAL(llm=OneReplyLLM(reply=""), **options)


def test_a_base_model_is_shown_three_conversations_and_opens_the_fourth_answer() -> None:
    prompt = urial().format_input({"instruction": "How high is K2?"})

    assert prompt.count("\n# User:\n") == prompt.count("\n# Assistant:") == 4
    assert prompt.endswith("\n\n# User:\n\nHow high is K2?\n\n# Assistant:")


def test_own_examples_and_an_own_preamble_take_the_place_of_ours() -> None:
    own = {"instruction": "Why?", "generation": "Because."}
    prompt = urial(examples=[own], system_prompt="A terse assistant.").format_input({"instruction": "How?"})

    assert prompt == (
        "# Instruction\n\nA terse assistant.\n\n# User:\n\nWhy?\n\n# Assistant:\n\nBecause.\n\n"
        "# User:\n\nHow?\n\n# Assistant:"
    )
    with pytest.raises(ValueError, match="each needs 'instruction' and 'generation'"):
        urial(examples=[{"instruction": "Why?"}]).format_input({"instruction": "How?"})


def test_a_conversation_is_gone_on_with_and_its_system_message_stands_first() -> None:
    said = [("system", "Be kind."), ("user", "Hi."), ("assistant", "Hello."), ("user", "How high is K2?")]
    conversation = [{"role": role, "content": content} for role, content in said]
    prompt = urial().format_input({"conversation": conversation, "instruction": None})

    assert prompt.endswith("# User:\n\nHi.\n\n# Assistant:\n\nHello.\n\n# User:\n\nHow high is K2?\n\n# Assistant:")
    assert "\n\nBe kind.\n\n# User:" in prompt


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"instruction": "a", "conversation": [{"role": "user", "content": "a"}]},
        {"conversation": []},
        {"conversation": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversation": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"conversation": [{"role": "tool", "content": "a"}]},
    ],
)
def test_a_row_without_a_question_to_answer_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected|needs the id of its call"):
        urial().format_input(row)


URIAL_GOOD = {
    "an answer alone": "8,611 metres.",
    "a space before it": " 8,611 metres.",
    "lines around it": "\n\n8,611 metres.\n\n",
    "the next question": "\n\n8,611 metres.\n\n# User:\n\nAnd Everest?",
    "the next question after one line": "8,611 metres.\n# User:\nAnd Everest?",
    "another answer": "8,611 metres.\n\n# Assistant:\n\nOr 8,612.",
}


@pytest.mark.parametrize("answer", URIAL_GOOD.values(), ids=URIAL_GOOD.keys())
def test_an_answer_ends_at_the_next_turn(answer: str) -> None:
    assert urial().format_output(answer, {}) == {"generation": "8,611 metres."}


@pytest.mark.parametrize("answer", [None, "", " \n", "# User:\n\nAnd Everest?", "\n# Assistant:"])
def test_no_answer_before_the_next_turn_is_refused(answer: str | None) -> None:
    with pytest.raises(UnreadableAnswerError, match="empty"):
        urial().format_output(answer, {})


def test_headings_within_an_answer_stay() -> None:
    answer = "# Heights\n\nK2: 8,611 m\n\n## Users\n\nMany."
    assert urial().format_output(answer, {}) == {"generation": answer}


# Both


def test_the_first_stop_string_counts() -> None:
    assert cut_at("a b c d", ["d", "b"]) == "a "
    assert cut_at("a b", []) == "a b"


@pytest.mark.parametrize("make", [Genstruct, URIAL])
def test_an_llm_that_isnt_told_where_and_when_to_end_is_warned_of(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = make(llm=OpenAILLM(model="base", base_url="http://127.0.0.1:9/v1"))
    with caplog.at_level(logging.WARNING):
        task.load()
    about_stop, about_length = said(caplog, "tasks.writing.bare_prompts")
    assert repr(task.stop_strings) in about_stop
    assert "max_new_tokens" in about_length

    caplog.clear()
    told = {"stop": task.stop_strings, "max_new_tokens": 100}
    make(llm=OpenAILLM(model="base", base_url="http://127.0.0.1:9/v1", generation_kwargs=told)).load()
    make(llm=OneReplyLLM(reply="")).load()
    assert said(caplog, "tasks.writing.bare_prompts") == []


MODEL = "Qwen/Qwen3-0.6B"
IN_THIS_PROCESS = [
    vLLM(model=MODEL),
    TransformersLLM(model=MODEL),
    MlxLLM(model=MODEL),
    LlamaCppLLM(model_path="models/qwen3-0.6b.gguf"),
]


@pytest.mark.parametrize("llm", IN_THIS_PROCESS, ids=lambda llm: llm.provider)
def test_an_engine_in_this_process_cuts_nothing_off_early_and_isnt_warned_of(
    llm: LLM, caplog: pytest.LogCaptureFixture
) -> None:
    stops = CHAT_TEMPLATES["qwen2"].stop
    with caplog.at_level(logging.WARNING):
        warn_of_ends(Magpie(llm=llm.with_generation_kwargs({"stop": stops}), chat_template="qwen2"), stops)

    assert said(caplog, "tasks.writing.bare_prompts") == []


def told(make: type[Task]) -> Any:
    """The Task with an LLM that may write as much as it needs."""
    return lambda llm, **more: make(llm=llm.with_generation_kwargs({"max_new_tokens": 500}), **more)


def test_genstruct_keeps_to_the_contract(provider: LocalProvider) -> None:
    answer = f"{QUESTION}\n[[[Assistant]]] {ANSWER}"
    check_contract(provider, told(Genstruct), DOCUMENT, answer, {"user": QUESTION, "assistant": ANSWER})


def test_urial_keeps_to_the_contract(provider: LocalProvider) -> None:
    row = {"instruction": "How high is K2?"}
    check_contract(provider, told(URIAL), row, "8,611 metres.", {"generation": "8,611 metres."}, broken=None)
