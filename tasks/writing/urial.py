"""URIAL: answers of a base model, which only has examples to go by."""

from __future__ import annotations

from llms.parameters import short
from llms.typing import ChatItem, ChatType
from tasks.base import Task
from tasks.cells import optional_text_in, prompt_chat_in, whole_text
from tasks.templates import render
from tasks.typing import Columns, Row
from tasks.writing.bare_prompts import cut_at, warn_of_ends
from tasks.writing.text_generation import text_of


class URIAL(Task):
    """The next answer in a conversation, by a base model, which hasn't been trained to follow instructions.

    The model is shown a few conversations and goes on with the next: the prompt is bare text, and goes to completions.
    Tell the LLM how long an answer may be, and that it ends at the next turn:
    `generation_kwargs={"max_new_tokens": 1024, "stop": ["\\n# User:", "\\n# Assistant:"]}`.

    `examples`, rows with `instruction` and `generation`, take the place of the three that come with the Task, and
    `system_prompt` that of the text before them.

    Input columns:
        instruction: what is to be answered; or
        conversation: a list of `{"role", "content"}` whose last message is the user's.

    Output columns:
        generation: the answer.
        model_name: the model that gave it.

    Source: The Unlocking Spell on Base LLMs: Rethinking Alignment via In-Context Learning
    (https://arxiv.org/abs/2312.01552).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import URIAL
        >>> task = URIAL(llm=OpenAILLM(model="meta-llama/Llama-3.1-8B"))
        >>> task.format_input({"instruction": "How high is K2?"}).splitlines()[-5:]
        ['# User:', '', 'How high is K2?', '', '# Assistant:']
        >>> task.format_output(" It is 8,611 metres high.\\n\\n# User:\\n\\nAnd Everest?", {})
        {'generation': 'It is 8,611 metres high.'}
    """

    @property
    def stop_strings(self) -> list[str]:
        """Where an answer ends: the `stop` of the LLM's `generation_kwargs`. What comes after is cut off anyway."""
        return ["\n# User:", "\n# Assistant:"]

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("urial/prompt", "urial/preamble", "urial/examples")

    @property
    def inputs(self) -> Columns:
        return {"instruction": False, "conversation": False}

    @property
    def outputs(self) -> Columns:
        return ["generation", "model_name"]

    def load(self) -> None:
        warn_of_ends(self, self.stop_strings)
        super().load()

    def format_input(self, input: Row) -> str:
        preamble = self.system_prompt or render("urial/preamble")
        examples = "\n\n".join(map(shown, self.examples)) or render("urial/examples")
        turns = conversation_in(input)
        if turns[0]["role"] == "system":
            preamble, turns = f"{preamble}\n\n{turns[0]['content']}", turns[1:]
        return render("urial/prompt", preamble=preamble, examples=examples, turns=turns).strip()

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": text_of(cut_at(f"\n{text_of(output)}", self.stop_strings)).strip()}


def conversation_in(row: Row) -> ChatType:
    """The row's conversation, or its instruction as one. Raises ValueError."""
    instruction, conversation = optional_text_in(row, "instruction"), row.get("conversation")
    if (instruction is None) == (conversation is None):
        raise ValueError(
            f"expected an instruction or a conversation, got instruction={short(instruction)} and"
            f" conversation={short(conversation)}"
        )
    if instruction is not None:
        return [ChatItem(role="user", content=instruction)]
    turns = prompt_chat_in(row, "conversation")
    roles = [turn["role"] for turn in turns]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if not talk or talk != [("user", "assistant")[place % 2] for place in range(len(talk))] or talk[-1] != "user":
        raise ValueError(f"conversation: expected user and assistant in turn, the user last, got {short(roles)}")
    return [ChatItem(role=turn["role"], content=whole_text(turn["content"], "conversation")) for turn in turns]


def shown(example: Row) -> str:
    """An example as the prompt shows it. Raises ValueError."""
    if not {"instruction", "generation"} <= set(example):
        raise ValueError(f"examples: each needs 'instruction' and 'generation', got {short(example)}")
    return f"# User:\n\n{example['instruction']}\n\n# Assistant:\n\n{example['generation']}"
