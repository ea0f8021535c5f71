"""Text from an instruction, a chat, or an instruction with an image."""

from __future__ import annotations

import base64
import io
import re
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator

from llms.parameters import ParameterError, short
from llms.typing import ChatItem, ChatType
from tasks.base import Task, UnreadableAnswerError
from tasks.cells import cells_for, optional_text_in, prompt_chat_in, text_in, whole_text
from tasks.templates import HAS_VARIABLES, checked, taken_by_deploy, template_from, variables_of
from tasks.typing import Columns, Row

ONE_CELL = re.compile(r"\s*\{\{-?\s*\(?\s*\w+\s*\)?\s*-?\}\}\s*")
"""A template that is one cell as it is."""


class TextGeneration(Task):
    """Text from an instruction, or from any columns put into a template.

    A template prints texts, numbers and dates. A cell that is empty, None, NaN or a list fails its row where it's
    printed; `{% if notes %}` may leave it out, and `{{ tags | join(", ") }}` put a list into words.

    Input columns:
        instruction: the prompt; or the columns of `columns`.
        system_prompt (optional): goes before the Task's own.

    Output columns:
        generation: the answer.
        model_name: the model that gave it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import TextGeneration
        >>> task = TextGeneration(
        ...     llm=OpenAILLM(model="gpt-4o-mini"),
        ...     template="Write about {{ topic }} for {{ reader }}.",
        ...     columns=["topic", "reader"],
        ... )
        >>> task.format_input({"topic": "tides", "reader": "a child"})
        [{'role': 'user', 'content': 'Write about tides for a child.'}]
    """

    template: Annotated[
        str,
        Field(
            title="Template",
            description="Jinja2, with the columns as variables.",
            json_schema_extra={"pattern": HAS_VARIABLES},
        ),
    ] = "{{ instruction }}"
    form_first = ("llm", "system_prompt")
    # A template of other columns needs both.
    form_more = ("template", "columns")

    columns: Annotated[
        list[str], Field(min_length=1, title="Columns", description="The columns that the template reads.")
    ] = ["instruction"]

    @field_validator("columns", mode="before")
    @classmethod
    def _list_columns(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        return checked(value)

    @property
    def inputs(self) -> Columns:
        return {**dict.fromkeys(self.columns, True), "system_prompt": False}

    @property
    def outputs(self) -> Columns:
        return ["generation", "model_name"]

    def load(self) -> None:
        """Raises ParameterError where `template` and `columns` don't fit each other."""
        used = variables_of(self.template)
        unused, missing = sorted(set(self.columns) - used), sorted(used - set(self.columns))
        if unused or missing:
            problem = f"reads {missing} that aren't in `columns`" if missing else f"doesn't read {unused} of `columns`"
            raise ParameterError(
                f"{self.name}: the template {self.template!r} {problem} {self.columns!r}."
                f" {taken_by_deploy((unused or self.columns)[0])}"
            )
        super().load()

    def format_input(self, input: Row) -> ChatType:
        return [*system_message(input), ChatItem(role="user", content=self._written(input))]

    def _written(self, row: Row) -> str:
        """The template with the row's cells. Raises ValueError where it would print what is no text."""
        if ONE_CELL.fullmatch(self.template):
            return text_in(row, self.columns[0])
        return whole_text(template_from(self.template).render(cells_for(row, self.columns)), "the prompt")

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": text_of(output)}


class ChatGeneration(Task):
    """The next message of a chat.

    Messages are sent with all that they have: tool calls, their ids, names. What a provider can't take fails its row.

    Input columns:
        messages: a list of `{"role", "content"}`; the last one is the user's, or a tool's.

    Output columns:
        generation: the assistant's next message.
        model_name: the model that gave it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import ChatGeneration
        >>> task = ChatGeneration(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> task.format_input({"messages": [{"role": "user", "content": "How high is K2?"}]})
        [{'role': 'user', 'content': 'How high is K2?'}]
    """

    @property
    def inputs(self) -> Columns:
        return ["messages"]

    @property
    def outputs(self) -> Columns:
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> ChatType:
        messages = prompt_chat_in(input)
        if messages[-1]["role"] not in {"user", "tool", "function"}:
            raise ValueError(f"the last of `messages` must be the user's or a tool's, got {short(messages[-1])}")
        return messages

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": text_of(output)}


class TextGenerationWithImage(TextGeneration):
    """Text from an instruction and an image.

    Input columns:
        instruction: the prompt; or the columns of `columns`.
        image: an address, the image's bytes in base64, or a PIL image, as `image_type` says.
        system_prompt (optional): goes before the Task's own.

    Output columns:
        generation: the answer.
        model_name: the model that gave it.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import TextGenerationWithImage
        >>> task = TextGenerationWithImage(llm=OpenAILLM(model="gpt-4o-mini"), image_type="url")
        >>> chat = task.format_input({"instruction": "What is this?", "image": "https://example.org/cat.png"})
        >>> chat[0]["content"][1]
        {'type': 'image_url', 'image_url': {'url': 'https://example.org/cat.png'}}
    """

    image_type: Annotated[
        Literal["url", "base64", "PIL"], Field(title="Image type", description="What the column `image` holds.")
    ] = "url"

    @property
    def inputs(self) -> Columns:
        return {**cast("dict[str, bool]", super().inputs), "image": True}

    def format_input(self, input: Row) -> ChatType:
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": self._written(input)},
            {"type": "image_url", "image_url": {"url": image_url(input["image"], self.image_type)}},
        ]
        return [*system_message(input), ChatItem(role="user", content=parts)]


def image_url(image: Any, image_type: Literal["url", "base64", "PIL"]) -> str:
    """The address of an image, with the image inside where it has no other. Raises ValueError."""
    if image_type == "PIL" and hasattr(image, "save"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return data_url(base64.b64encode(buffer.getvalue()).decode())
    if image_type == "PIL" and isinstance(image, dict) and cast("Row", image).get("bytes"):
        return data_url(base64.b64encode(cast("Row", image)["bytes"]).decode())
    if image_type != "PIL" and isinstance(image, str):
        whole = whole_text(image, "image").strip()
        return whole if image_type == "url" else data_url(whole)
    raise ValueError(f"image: expected {image_type}, got {short(cast('object', image))}")


def data_url(encoded: str) -> str:
    """The address of an image given in base64; its type is read off its first bytes."""
    kinds = {"iVBOR": "png", "/9j/": "jpeg", "R0lGO": "gif", "UklGR": "webp"}
    kind = next((kind for start, kind in kinds.items() if encoded.startswith(start)), "png")
    return f"data:image/{kind};base64,{encoded}"


def system_message(row: Row) -> ChatType:
    """The row's own system prompt, if it has one."""
    text = optional_text_in(row, "system_prompt")
    return [] if text is None else [ChatItem(role="system", content=text)]


def text_of(output: str | None) -> str:
    """The text of an answer. Raises UnreadableAnswerError where there is none."""
    if output is None or not output.strip():
        raise UnreadableAnswerError(f"the model's answer is empty, got {output!r}")
    return output
