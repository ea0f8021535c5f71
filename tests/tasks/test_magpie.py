"""Magpie: bare prompts up to a user's turn, in each family's own tokens, and what a model makes of them."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from llms.typing import ChatType
from tasks import Magpie, MagpieGenerator
from tasks.base import UnreadableAnswerError
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tasks.writing.chat_templates import CHAT_TEMPLATES, ChatTemplate
from tasks.writing.magpie import MULTI_TURN, SystemPrompt
from tests.conftest import said
from tests.tasks.contract import check_determinism, check_earlier_metadata, check_mappings
from tests.tasks.scripted import ScriptedLLM

TURNS: ChatType = [
    {"role": "user", "content": "How high is K2?"},
    {"role": "assistant", "content": "8,611 m."},
]

WRITTEN = {
    "llama3": (
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\nHow high is K2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n8,611 m.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n",
    ),
    "qwen2": (
        "<|im_start|>system\nBe brief.<|im_end|>\n",
        "<|im_start|>user\nHow high is K2?<|im_end|>\n<|im_start|>assistant\n8,611 m.<|im_end|>\n<|im_start|>user\n",
    ),
    "qwen3": (
        "<|im_start|>system\nBe brief.<|im_end|>\n",
        "<|im_start|>user\nHow high is K2?<|im_end|>\n<|im_start|>assistant\n8,611 m.<|im_end|>\n<|im_start|>user\n",
    ),
    "phi3": (
        "<|system|>\nBe brief.<|end|>\n",
        "<|user|>\nHow high is K2?<|end|>\n<|assistant|>\n8,611 m.<|end|>\n<|user|>\n",
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|>",
        "<|im_start|>user<|im_sep|>How high is K2?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>8,611 m.<|im_end|><|im_start|>user<|im_sep|>",
    ),
    "deepseek": (
        "Be brief.",
        "<｜User｜>How high is K2?<｜Assistant｜>8,611 m.<｜end▁of▁sentence｜><｜User｜>",
    ),
}
"""By family: a system prompt, and a conversation up to the second question, as its chat template writes them."""


@pytest.mark.parametrize("family", WRITTEN)
def test_a_chat_is_written_in_the_tokens_that_the_family_was_trained_on(family: Any) -> None:
    system, turns = WRITTEN[family]
    template = CHAT_TEMPLATES[family]

    assert template.opened(TURNS, "user") == turns
    assert template.opened(TURNS, "user", "Be brief.") == system + turns
    assert template.opened([], "user", "Be brief.") == system + template.user_start


def test_gemma_reads_its_system_prompt_in_the_first_turn() -> None:
    gemma = CHAT_TEMPLATES["gemma"]
    first = "<start_of_turn>user\nBe brief.\n\n"

    assert gemma.opened([], "user", "Be brief.") == first
    assert gemma.opened(TURNS, "user", "Be brief.") == (
        f"{first}How high is K2?<end_of_turn>\n<start_of_turn>model\n8,611 m.<end_of_turn>\n<start_of_turn>user\n"
    )
    assert gemma.opened(TURNS[:1], "assistant") == (
        "<start_of_turn>user\nHow high is K2?<end_of_turn>\n<start_of_turn>model\n"
    )


def test_mistral_reads_its_system_prompt_in_the_last_turn() -> None:
    mistral = CHAT_TEMPLATES["mistral"]

    assert mistral.opened([], "user", "Be brief.") == "[INST] Be brief.\n\n"
    assert mistral.opened(TURNS[:1], "assistant", "Be brief.") == "[INST] Be brief.\n\nHow high is K2?[/INST]"
    assert mistral.opened(TURNS, "user", "Be brief.") == (
        "[INST] How high is K2?[/INST] 8,611 m.</s>[INST] Be brief.\n\n"
    )


@pytest.mark.parametrize("family", CHAT_TEMPLATES)
def test_every_family_ends_its_turns_at_few_enough_strings_for_openais_api(family: Any) -> None:
    template = CHAT_TEMPLATES[family]

    assert 1 <= len(template.stop) <= 4
    for end in (template.user_end or template.assistant_start, template.assistant_end):
        assert end.strip() in template.stop


# One turn


def magpie(*replies: str | None, **options: Any) -> Magpie:
    return Magpie(
        llm=ScriptedLLM(replies=list(replies)), chat_template=options.pop("chat_template", "qwen2"), **options
    )


def rows_of(task: Any, *rows: Row) -> list[Row]:
    task.load()
    return [row for some in task.process(list(rows)) for row in some]


def test_an_instruction_and_its_response_are_two_requests_each_cut_at_its_end() -> None:
    task = magpie("How high is K2?<|im_end|>\n<|im_start|>assistant\n8,000?", " 8,611 m.<|im_end|>junk")
    (row,) = rows_of(task, {"id": 7})

    assert (row["instruction"], row["response"]) == ("How high is K2?", "8,611 m.")
    assert row["id"] == 7
    assert row["model_name"] == "scripted"
    prompts = [
        "<|im_start|>user\n",
        "<|im_start|>user\nHow high is K2?<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert task.llm.asked == row[METADATA]["raw_input_magpie"] == prompts
    assert row[METADATA]["statistics_magpie"] == {"input_tokens": 20, "output_tokens": 2}


def test_of_an_instruction_alone_nothing_is_asked_but_it() -> None:
    task = magpie("How high is K2?", only_instruction=True)
    (row,) = rows_of(task, {})

    assert task.outputs == ["instruction", "model_name"]
    assert set(row) == {"instruction", "model_name", METADATA}
    assert len(task.llm.asked) == 1


GOOD_TURNS = {
    "alone": "How high is K2?",
    "blanks around it": "\n How high is K2? \n",
    "its end": "How high is K2?<|im_end|>",
    "its end and another turn": "How high is K2?<|im_end|>\n<|im_start|>assistant\n8,611 m.",
    "the end of the text": "How high is K2?<|endoftext|>Human: Hi",
    "another turn without its end": "How high is K2?\n<|im_start|>assistant\n8,611 m.",
    "thoughts before it": "<think>\nWhat would one ask?\n</think>\n\nHow high is K2?",
    "empty thoughts": "<think>\n\n</think>\n\nHow high is K2?",
}
BROKEN_TURNS = {
    "nothing": None,
    "empty": "",
    "blanks": " \n",
    "its end at once": "<|im_end|>How high is K2?",
    "thoughts that are cut off": "<think>\nWhat would one ask?",
    "thoughts alone": "<think>\nWhat would one ask?\n</think>\n",
    "another turn at once": "<|im_start|>assistant\nHello!",
}


@pytest.mark.parametrize("text", GOOD_TURNS.values(), ids=GOOD_TURNS.keys())
def test_a_turn_is_read_up_to_its_end(text: str) -> None:
    assert magpie(only_instruction=True).format_output(text, {}) == {"instruction": "How high is K2?"}


@pytest.mark.parametrize("text", BROKEN_TURNS.values(), ids=BROKEN_TURNS.keys())
def test_an_empty_turn_is_refused(text: str | None) -> None:
    with pytest.raises(UnreadableAnswerError, match="the user's turn is empty"):
        magpie(only_instruction=True).format_output(text, {})


def test_a_row_whose_response_is_empty_fails_and_says_which_turn_it_was() -> None:
    (row,) = rows_of(magpie("How high is K2?", "<|im_end|>"), {})

    assert row["instruction"] is row["response"] is None
    assert "the assistant's turn is empty" in (failure_in(row) or {})["message"]
    assert row[METADATA]["raw_output_magpie"] == ["How high is K2?", "<|im_end|>"]


# Conversations


def test_a_conversation_has_as_many_turns_as_were_asked_for() -> None:
    task = magpie("How high is K2?", "8,611 m.", "And Everest?", "8,849 m.", n_turns=2)
    (row,) = rows_of(task, {})

    assert task.outputs == ["conversation", "model_name"]
    assert row["conversation"] == [
        *TURNS,
        {"role": "user", "content": "And Everest?"},
        {"role": "assistant", "content": "8,849 m."},
    ]
    assert all(prompt.startswith(f"<|im_start|>system\n{MULTI_TURN}<|im_end|>\n") for prompt in task.llm.asked)


def test_a_conversation_can_end_with_the_user_and_begin_with_the_system_prompt() -> None:
    task = magpie(
        "How high is K2?",
        "8,611 m.",
        "And Everest?",
        n_turns=2,
        end_with_user=True,
        include_system_prompt=True,
        system_prompt="Be brief.",
    )
    (row,) = rows_of(task, {})

    assert [turn["role"] for turn in row["conversation"]] == ["system", "user", "assistant", "user"]
    assert row["conversation"][0]["content"] == "Be brief."
    assert len(task.llm.asked) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"n_turns": 2, "only_instruction": True}, "only_instruction is for n_turns=1"),
        ({"end_with_user": True}, "end_with_user is for conversations"),
        ({"include_system_prompt": True}, "include_system_prompt is for conversations"),
        ({"examples": [{"instruction": "?"}]}, "has no place for examples"),
        ({"chat_template": "own"}, "own_template needs user_start"),
        ({"chat_template": "own", "own_template": ChatTemplate(user_start="U:")}, "own_template has no stop"),
        ({"system_prompt": "a", "system_prompts": [SystemPrompt(text="b")]}, "not both"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        magpie(**options).load()


def test_the_family_has_to_be_named_and_a_typo_is_no_template() -> None:
    with pytest.raises(ValueError, match="chat_template"):
        Magpie(llm=ScriptedLLM(replies=[]))  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="lama3"):
        magpie(chat_template="lama3")


def test_of_an_own_template_the_pre_query_text_is_enough_for_instructions() -> None:
    task = magpie(
        "How high is K2?\n\n### Response:\n8,611 m.",
        chat_template="own",
        own_template=ChatTemplate(user_start="### Instruction:\n\n", stop=["### Response"]),
        only_instruction=True,
    )
    (row,) = rows_of(task, {})

    assert task.llm.asked == ["### Instruction:\n\n"]
    assert row["instruction"] == "How high is K2?"


# System prompts


def test_a_rows_own_system_prompt_goes_before_the_tasks() -> None:
    task = magpie("Hi.", only_instruction=True, system_prompt="Be brief.")

    assert task.format_input({"system_prompt": "Be long."}).startswith("<|im_start|>system\nBe long.<|im_end|>")
    assert task.format_input({"system_prompt": None}).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert magpie().format_input({}) == "<|im_start|>user\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b"], [SystemPrompt(text="a"), SystemPrompt(text="b")]),
        ({"x": "a", "y": "b"}, [SystemPrompt(name="x", text="a"), SystemPrompt(name="y", text="b")]),
        (
            {"x": ("a", 0.9), "y": ["b", 0.1]},
            [SystemPrompt(name="x", text="a", weight=0.9), SystemPrompt(name="y", text="b", weight=0.1)],
        ),
    ],
)
def test_several_system_prompts_are_taken_in_the_forms_of_the_reference(
    given: Any, expected: list[SystemPrompt]
) -> None:
    made, merged, changed = magpie(system_prompt=given), magpie().merged({"system_prompt": given}), magpie()
    changed.set_runtime_parameters({"system_prompt": given})

    for task in (made, merged, changed):
        assert task.system_prompts == expected
        assert task.system_prompt is None
    assert made.merged({"system_prompt": ["c"]}).system_prompts == [SystemPrompt(text="c")]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"x": 1}, "expected a text, or text and weight, for 'x', got 1"),
        ({"x": ("a", 0.5, 0.5)}, "text and weight"),
        ({"x": ("a", 0)}, "greater than 0"),
        ([1], "valid string"),
        (7, "valid string"),
    ],
)
def test_a_system_prompt_that_is_none_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        magpie(system_prompt=given)


def test_system_prompts_are_drawn_by_weight_and_the_seed_decides() -> None:
    prompts = {"common": ("Be brief.", 9.0), "rare": ("Be long.", 1.0)}

    def drawn(seed: int) -> list[str]:
        llm = ScriptedLLM(replies=["Hi."])
        task = MagpieGenerator(
            llm=llm, chat_template="qwen2", num_rows=200, only_instruction=True, system_prompt=prompts, seed=seed
        )
        rows = rows_of(task, *task.seed_rows())
        for row, prompt in zip(rows, llm.asked, strict=True):
            assert prompts[row["system_prompt_key"]][0] in prompt
        return [row["system_prompt_key"] for row in rows]

    counts = Counter(drawn(0))
    assert 160 < counts["common"] < 198
    assert drawn(0) == drawn(0) != drawn(1)


def test_the_key_is_a_column_where_the_prompts_have_names() -> None:
    assert magpie(system_prompt={"x": "a"}).outputs == ["instruction", "response", "system_prompt_key", "model_name"]
    assert magpie(system_prompt=["a", "b"]).outputs == ["instruction", "response", "model_name"]
    (row,) = rows_of(magpie("Hi.", system_prompt={"x": "a"}), {"system_prompt": "Mine."})
    assert row["system_prompt_key"] is None


# The generator, generations, the contract, batches


def test_the_generator_makes_exactly_as_many_rows_as_were_asked_for() -> None:
    llm = ScriptedLLM(replies=["Hi.<|im_end|>"])
    task = MagpieGenerator(llm=llm, chat_template="qwen2", num_rows=120, only_instruction=True)
    rows = rows_of(task, *task.seed_rows())

    assert len(rows) == len(llm.asked) == 120
    assert set(rows[0]) == {"instruction", "model_name", METADATA}


def test_generations_are_conversations_of_their_own() -> None:
    task = magpie("a", "b", "A", "B", num_generations=2, group_generations=True)
    (row,) = rows_of(task, {})

    assert (row["instruction"], row["response"]) == (["a", "b"], ["A", "B"])
    assert row[METADATA]["raw_output_magpie"] == [["a", "A"], ["b", "B"]]


def through(provider: LocalProvider, **options: Any) -> Any:
    provider.set(answers={r"user\n$": "How high is K2?<|im_end|>", r"assistant\n$": "8,611 m.<|im_end|>"})
    told = {"max_new_tokens": 100, "stop": CHAT_TEMPLATES["qwen2"].stop}
    return lambda llm, **more: Magpie(llm=llm.with_generation_kwargs(told), chat_template="qwen2", **options, **more)


def test_magpie_keeps_to_the_contract(provider: LocalProvider) -> None:
    make, row = through(provider), {"system_prompt": "Be brief."}

    check_mappings(make, row, {"instruction": "How high is K2?", "response": "8,611 m."})
    check_earlier_metadata(make, row)
    check_determinism(make, row)


def test_bare_prompts_go_to_completions_with_what_the_llm_was_told(
    provider: LocalProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (row,) = rows_of(through(provider)(OpenAILLM(model="open")), {})

    assert row["instruction"] == "How high is K2?"
    assert {request.path for request in provider.requests} == {"/completions"}
    assert provider.requests[0].body["prompt"] == "<|im_start|>user\n"
    assert provider.requests[0].body["stop"] == ["<|im_end|>", "<|endoftext|>", "<|im_start|>"]
    assert said(caplog, "tasks.writing") == []


def test_in_a_flow_each_turn_of_all_rows_is_a_batch_job(
    provider: LocalProvider, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.02")
    provider.set(
        answers=[
            {"match": r"user\n$", "answer": "What next?<|im_end|>"},
            {"match": r"assistant\n$", "answer": "This.<|im_end|>"},
        ],
        batch_seconds=0.0,
    )
    llm = OpenAILLM(
        model="open",
        max_retries=0,
        use_offline_batch_generation=True,
        generation_kwargs={"max_new_tokens": 100, "stop": CHAT_TEMPLATES["qwen2"].stop},
    )
    task = MagpieGenerator(name="magpie", llm=llm, chat_template="qwen2", num_rows=4, n_turns=2, end_with_user=True)

    dataset = collect(load(task))

    assert [job["request_counts"]["total"] for job in provider.batches] == [4, 4, 4]
    assert {job["endpoint"] for job in provider.batches} == {"/v1/completions"}
    assert len(dataset) == 4
    said = [(turn["role"], turn["content"]) for turn in dataset[0]["conversation"]]
    assert said == [("user", "What next?"), ("assistant", "This."), ("user", "What next?")]
