"""Embedding tasks: an LLM thinks of what an embedding model could be trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import Field, model_validator

from llms.parameters import Unasked, short
from llms.quantities import quantity
from llms.typing import ChatItem, ChatType, JSONSchema
from tasks.base import Answer, UnreadableAnswerError
from tasks.cells import list_in as list_column
from tasks.random_choices import random_for
from tasks.reading.replies import list_in, object_in, texts_schema, without_thoughts
from tasks.retrieval.text_embedding_data import AsJSON, Seed
from tasks.rows.columns import share
from tasks.sources.generators import GeneratorTask
from tasks.templates import render
from tasks.typing import Columns, Row

Category: TypeAlias = Literal["text-retrieval", "text-matching-short", "text-matching-long", "text-classification"]

KINDS: dict[Category, str] = {
    "text-retrieval": "text retrieval",
    "text-matching-short": "text matching",
    "text-matching-long": "text matching",
    "text-classification": "text classification",
}

DESCRIPTIONS: dict[Category, str] = {
    "text-retrieval": "In such a task there is a search query, and a document has to be found that serves whoever made"
    " it. Say what the query is, and what kind of document is looked for.",
    "text-matching-short": "In such a task two very short texts belong together, each of them a phrase, or a sentence"
    " or two.",
    "text-matching-long": "In such a task two long documents belong together.",
    "text-classification": "In such a task a text gets one of a few labels. Say what kind of text it is, and what the"
    " labels tell of it.",
}

EXAMPLES: dict[Category, list[str]] = {
    "text-retrieval": [
        "Given the symptoms that a car owner describes, find the passage of a repair manual that covers the fault.",
        "Given a clause of a contract, find court rulings that interpret a clause like it.",
        "Given a half-remembered plot, find the summary of the novel that it belongs to.",
        "Given a question about a tax form, find the official guidance that answers it.",
        "Given a dish and an ingredient to avoid, find recipes that suit both.",
        "Given the text of an error message, find forum posts that resolve the error.",
        "Given a hobby and a budget, find reviews of equipment that a beginner can afford.",
        "Given a historical event, find letters and diaries of people who lived through it.",
    ],
    "text-matching-short": [
        "Match a riddle to its answer.",
        "Match a film's title to its tagline.",
        "Match a tool to the trade that uses it.",
        "Match a chemical formula to the everyday name of the substance.",
        "Match a proverb to one of another culture that says the same.",
        "Match a customer's complaint to the department that handles it.",
        "Match a stage direction to the mood that it sets.",
        "Match the first line of a poem to its subject.",
    ],
    "text-matching-long": [
        "Match a patient's history to a published report on another case of the same disease.",
        "Match a short story to another one with the same conflict.",
        "Match a proposal for a research grant to the final report of a project like it.",
        "Match a travel diary to the chapter of a guidebook on the same region.",
        "Match a technical specification to the manual that was written for its users.",
        "Match a newspaper's account of a trial to an essay that draws lessons from it.",
        "Match the minutes of a council's meeting to the by-law that came of it.",
        "Match a detailed review of a product to one that comes to the same verdict for other reasons.",
    ],
    "text-classification": [
        "Tell from a job advertisement how much experience it asks for.",
        "Tell whether a review of a restaurant is about the food, the service or the price.",
        "Tell from a message in which stage a negotiation is.",
        "Tell whether a message to a help desk can wait, should be answered today, or is an emergency.",
        "Tell from its language the century in which a diary entry was written.",
        "Tell which school subject an exam question belongs to.",
        "Tell whether a poem praises, mourns or mocks its subject.",
        "Tell whether the author of a forum post asks, answers or complains.",
    ],
}
EXAMPLES_SHOWN = 3

NUMBERED = re.compile(r"^[ \t]*[*_]*(?P<number>\d+)[.)][*_]*[ \t]+(?P<text>\S.*)$", re.MULTILINE)


class EmbeddingTaskGenerator(GeneratorTask):
    """Thinks of tasks that an embedding model could be trained on, `num_tasks` in a request.

    Each request shows other examples of what is meant, so that several of them give different tasks.

    Output columns:
        tasks: a list of `num_tasks` sentences; or
        task (`flatten_tasks`): one of them. There's a row for each, and the tokens of the answer are shared out among
            them, so that their sum stays.
        model_name: the model that thought of them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import EmbeddingTaskGenerator
        >>> task = EmbeddingTaskGenerator(llm=OpenAILLM(model="gpt-4o"), category="text-matching-short", num_tasks=2)
        >>> seed = next(task.seed_rows())
        >>> task.format_output('["Match a riddle to its answer.", "Match a tool to the trade that uses it."]', seed)
        {'tasks': ['Match a riddle to its answer.', 'Match a tool to the trade that uses it.']}
    """

    form_first = ("llm", "category", "num_rows")
    use_default_structured_output: AsJSON = True
    category: Annotated[Category, Field(title="Category", description="Of the tasks.")] = "text-retrieval"
    num_rows: Annotated[
        int, Field(ge=1, title="Requests", description="How many lists of tasks are asked for."), Unasked()
    ] = 1
    num_tasks: Annotated[int, Field(ge=1, le=100, title="Tasks per request")] = 20
    flatten_tasks: Annotated[
        bool, Field(title="Flatten", description="A row per task, in place of a row with a list of them.")
    ] = False
    seed: Seed = 42

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        if self.flatten_tasks and self.group_generations:
            raise ValueError("flatten_tasks makes a row per task and group_generations one row of all: choose one")
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/tasks",)

    @property
    def outputs(self) -> Columns:
        return ["task" if self.flatten_tasks else "tasks", "model_name"]

    def seed_rows(self) -> Iterator[Row]:
        return ({"number": number} for number in range(self.num_rows))

    def format_input(self, input: Row) -> ChatType:
        examples = random_for(input, self.seed, "examples").sample(EXAMPLES[self.category], EXAMPLES_SHOWN)
        prompt = render(
            "text_embedding_data/tasks",
            kind=KINDS[self.category],
            description=DESCRIPTIONS[self.category],
            examples=examples,
            count=self.num_tasks,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        """The schema of an answer: each task has a key of its own, so that none can be left out."""
        return texts_schema([key_of(number) for number in range(1, self.num_tasks + 1)], "tasks")

    def format_output(self, output: str | None, input: Row) -> Row:
        """The list of tasks; `assemble` makes rows of it where they are to be flattened."""
        return {"tasks": tasks_in(output or "", self.num_tasks)}

    def format_example(self, example: Row) -> str:
        tasks = list_column(example, "tasks")
        keyed = {key_of(number): task for number, task in enumerate(tasks, 1)}
        return json.dumps(tasks if self.wanted_schema() is None else keyed, ensure_ascii=False)

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        parts = [part for answer in answers for part in flattened(answer)] if self.flatten_tasks else answers
        return super().assemble(row, parts)


def key_of(number: int) -> str:
    """The key of a task in an answer in JSON."""
    return f"task_{number}"


def flattened(answer: Answer) -> list[Answer]:
    """An answer as one for each of its tasks, which share its tokens. A failed one stays one."""
    tasks = cast("list[str]", answer.columns.get("tasks", []))
    parts = [
        replace(
            answer,
            columns={"task": task},
            input_tokens=share(answer.input_tokens, place, len(tasks)),
            output_tokens=share(answer.output_tokens, place, len(tasks)),
            token_parts=share(answer.token_parts, place, len(tasks)),
        )
        for place, task in enumerate(tasks)
    ]
    return parts or [answer]


def tasks_in(output: str, count: int) -> list[str]:
    """The first `count` tasks in an answer: of a JSON list, of an object with a key for each, or of numbered lines.

    Raises:
        UnreadableAnswerError: there are none, or fewer in lines, or what there is isn't text.
    """
    lines = numbered_lines(output)
    if len(lines) >= count and goes_on(output):
        wanted = quantity(count, "task")
        raise UnreadableAnswerError(f"expected {wanted} of a line each, one goes on below it: {short(output)}")
    items = lines if len(lines) >= count else items_in(output)
    tasks = {task.casefold(): task for task in map(task_of, items)}
    # Of lines the last one may be cut off; a whole JSON value says that no more were to come.
    if not tasks or (lines and len(tasks) < count):
        raise UnreadableAnswerError(
            f"expected {quantity(count, 'different task')}, found {len(tasks)} in {short(output)}"
        )
    return list(tasks.values())[:count]


def numbered_lines(output: str) -> list[str]:
    """The texts of lines that are numbered from 1; none where the numbers aren't whole."""
    found = list(NUMBERED.finditer(without_thoughts(output)))
    numbers = [int(each["number"]) for each in found]
    return [each["text"].replace("**", "") for each in found] if numbers == list(range(1, len(found) + 1)) else []


def goes_on(output: str) -> bool:
    """Whether there are other lines between the numbered ones, or right below the last of them."""
    lines = without_thoughts(output).splitlines()
    places = [place for place, line in enumerate(lines) if NUMBERED.match(line)]
    below = lines[places[0] : places[-1] + 2]
    return any(line.strip() and not NUMBERED.match(line) and not line.startswith("```") for line in below)


def items_in(output: str) -> list[Any]:
    """The values of a JSON list, or of an object whose keys end in the numbers from 1. Raises UnreadableAnswerError."""
    try:
        found = object_in(output)
    except UnreadableAnswerError:
        return list_in(output)
    numbered = {int(match[0]): found[key] for key in found if (match := re.search(r"\d+$", str(key)))}
    if sorted(numbered) == list(range(1, len(found) + 1)):
        return [numbered[number] for number in sorted(numbered)]
    return list_in(output)


def task_of(item: Any) -> str:
    """The text of an item: itself, or the only one in an object. Raises UnreadableAnswerError."""
    texts = list(cast("Row", item).values()) if isinstance(item, dict) else [item]
    text: Any = texts[0] if len(texts) == 1 else None
    if not isinstance(text, str) or not text.strip():
        raise UnreadableAnswerError(f"expected each task as a text, got {short(text or texts)}")
    return re.sub(r"^\s*\d+[.)]\s+", "", text).strip()
