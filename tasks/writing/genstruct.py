"""Genstruct: a question about a document and its answer, by a model that was trained to write them."""

from __future__ import annotations

from llms.parameters import short
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import text_in
from tasks.typing import Columns, Row
from tasks.writing.bare_prompts import cut_at, refuse, warn_of_ends
from tasks.writing.text_generation import text_of

PROMPT = """\
[[[Title]]] {title}
[[[Content]]] {content}

The following is an interaction between a user and an AI assistant that is related to the above text.

[[[User]]] """
"""The format that NousResearch/Genstruct-7B was trained on, to the letter and with the space at its end. See its card,
https://huggingface.co/NousResearch/Genstruct-7B."""

ASSISTANT = "[[[Assistant]]]"


class Genstruct(Task):
    """Makes up a user's question about a document, and an assistant's answer, with NousResearch/Genstruct-7B.

    The prompt is the one that this model was trained on, and goes to completions as it is: serve the model with vLLM or
    another server with OpenAI's API, and tell the LLM how long an answer may be and where it ends:
    `OpenAILLM(model="NousResearch/Genstruct-7B", base_url=..., generation_kwargs={"max_new_tokens": 1024, "stop":
    ["[[[User]]]"]})`. It has no place for `system_prompt` and `examples`.

    Input columns:
        title: of the document.
        content: the document, or a part of it.

    Output columns:
        user: the question.
        assistant: the answer.
        model_name: the model that made them up.

    Source: Ada-Instruct: Adapting Instruction Generators for Complex Reasoning (https://arxiv.org/abs/2310.04484), and
    the model's card (https://huggingface.co/NousResearch/Genstruct-7B).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import Genstruct
        >>> task = Genstruct(llm=OpenAILLM(model="NousResearch/Genstruct-7B"))
        >>> row = {"title": "K2", "content": "K2 is 8,611 metres high."}
        >>> task.format_input(row).splitlines()[:2]
        ['[[[Title]]] K2', '[[[Content]]] K2 is 8,611 metres high.']
        >>> task.format_output("Is K2 above 8,000 metres?\\n[[[Assistant]]] Yes, by 611 metres.", row)
        {'user': 'Is K2 above 8,000 metres?', 'assistant': 'Yes, by 611 metres.'}
    """

    @property
    def stop_strings(self) -> list[str]:
        """Where an answer ends: the `stop` of the LLM's `generation_kwargs`. What comes after is cut off anyway."""
        return ["[[[User]]]", "[[[Title]]]"]

    @property
    def inputs(self) -> Columns:
        return ["title", "content"]

    @property
    def outputs(self) -> Columns:
        return ["user", "assistant", "model_name"]

    def load(self) -> None:
        """Raises ParameterError where it's given a system prompt or examples."""
        refuse(self, "system_prompt", "examples")
        warn_of_ends(self, self.stop_strings)
        super().load()

    def format_input(self, input: Row) -> str:
        # The card's prompt, whose text stays as it is: neither braces nor tags in a document mean anything here.
        return PROMPT.format(title=text_in(input, "title").strip(), content=text_in(input, "content").strip())

    def format_output(self, output: str | None, input: Row) -> Row:
        said = cut_at(text_of(output).lstrip().removeprefix("[[[User]]]"), self.stop_strings)
        user, found, assistant = said.partition(ASSISTANT)
        if not found or not user.strip() or not assistant.strip() or ASSISTANT in assistant:
            raise UnreadableAnswerError(f"expected a question, {ASSISTANT} and an answer, got {short(output)}")
        return {"user": user.strip(), "assistant": assistant.strip()}
