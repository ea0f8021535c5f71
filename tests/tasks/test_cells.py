"""Cells are checked before they become prompts: what is no text fails its row, alone and with a reason, unsent."""

from __future__ import annotations

import datetime
import inspect
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from datasets import Dataset
from pydantic import PrivateAttr

import tasks
from llms import AsyncLLM, Embeddings
from llms.images import ImageGenerationModel
from llms.typing import GenerateOutput
from tasks import (
    APIGenGenerator,
    APIGenSemanticChecker,
    ArgillaLabeller,
    ChatGeneration,
    EmbeddingGeneration,
    GenerateEmbeddings,
    GenerateSentencePair,
    ImageGeneration,
    Label,
    Magpie,
    PairwiseJudge,
    PrometheusEval,
    RubricJudge,
    Task,
    TextClassification,
    TextGeneration,
    TextGenerationWithImage,
    task,
)
from tasks.base import ModelStep
from tasks.judging.judges import Criterion
from tasks.sources.generators import GeneratorTask
from tasks.steps import failure_in
from tasks.typing import Row


class Asked(AsyncLLM):
    """Notes what it's asked, and answers something."""

    _asked: list[Any] = PrivateAttr(default_factory=list[Any])

    @property
    def model_name(self) -> str:
        return "asked"

    async def agenerate(self, input: Any, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:
        self._asked.append(input)
        return {
            "generations": ["fine"] * num_generations,
            "statistics": {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations},
        }

    def get_last_hidden_state(self, inputs: list[Any]) -> list[Any]:
        self._asked += inputs
        return [[[1.0]] for _ in inputs]


class AskedForVectors(Embeddings):
    _asked: list[Any] = PrivateAttr(default_factory=list[Any])

    @property
    def model_name(self) -> str:
        return "vectors"

    def encode(self, inputs: list[str], **kwargs: Any) -> list[list[float]]:
        self._asked += inputs
        return [[1.0] for _ in inputs]


class AskedForImages(ImageGenerationModel):
    _asked: list[Any] = PrivateAttr(default_factory=list[Any])

    @property
    def model_name(self) -> str:
        return "images"

    def generate_images(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[list[bytes]]:
        self._asked += inputs
        return [[b"<svg/>"] * num_generations for _ in inputs]


NAN = float("nan")
HALF = "half a character: \ud83d"
TEXTS: dict[str, Any] = {
    "None": None,
    "NaN": NAN,
    "number": 7,
    "decimal": 2.5,
    "bool": True,
    "list": ["a text"],
    "dict": {"text": "a text"},
    "bytes": b"a text",
    "empty": "",
    "blank": " \n\t ",
    "half": HALF,
}
"""What no cell may hold that a prompt takes a text from."""
LISTS: dict[str, Any] = {
    "None": None,
    "NaN": NAN,
    "text": "a text",
    "number": 7,
    "no items": [],
    "None among them": ["a text", None],
    "NaN among them": ["a text", NAN],
    "number among them": ["a text", 7],
    "list among them": ["a text", ["another"]],
    "empty among them": ["a text", ""],
    "blank among them": ["a text", " "],
    "half among them": ["a text", HALF],
}
CHATS: dict[str, Any] = {
    "None": None,
    "NaN": NAN,
    "text": "a text",
    "no messages": [],
    "no message": [None],
    "a text": ["a text"],
    "no role": [{"content": "a text"}],
    "unknown role": [{"role": "robot", "content": "a text"}],
    "no content": [{"role": "user"}],
    "None content": [{"role": "user", "content": None}],
    "NaN content": [{"role": "user", "content": NAN}],
    "number": [{"role": "user", "content": 7}],
    "empty": [{"role": "user", "content": ""}],
    "blank": [{"role": "user", "content": " "}],
    "half": [{"role": "user", "content": HALF}],
    "no parts": [{"role": "user", "content": []}],
    "half in a part": [{"role": "user", "content": [{"type": "text", "text": HALF}]}],
    "no text in a part": [{"role": "user", "content": [{"type": "text", "text": None}]}],
    "blank in a part": [{"role": "user", "content": [{"type": "text", "text": " "}, {"type": "image_url"}]}],
    "empty calls": [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "user", "content": "a text"}],
    **{
        f"calls that are {calls!r}": [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ]
        for calls in ("[]", 5, ["c"], [None], {"id": "c"})
    },
    "half in a call": [
        {"role": "assistant", "content": None, "tool_calls": [{"id": HALF}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "a result of no call": [{"role": "tool", "content": "sunny"}],
}
JSONS: dict[str, Any] = {name: TEXTS[name] for name in ("NaN", "number", "decimal", "bool", "blank", "half")}
"""What no cell may hold that a prompt takes JSON from, as text or as it is."""
OPTIONAL = {"None", "empty"}
"""What the cell of a column holds that isn't there: the Task does without."""
NUMBERS = {"number", "decimal", "bool"}
"""Written as they are, in a template of one's own."""

MESSAGE = {"role": "user", "content": "How high is K2?"}
RECORD: Row = {"fields": {"text": "A good day."}}
QUESTION = {"name": "mood", "settings": {"type": "label_selection", "options": [{"value": "good"}, {"value": "bad"}]}}
GOOD = ["a text", "another text"]
Cells = dict[str, tuple[Any, dict[str, Any], set[str]]]
"""By column: a good cell, bad ones, and the names of those that the Task does send, as its docstring says."""


def text(good: Any = "a text", sent: set[str] | None = None) -> tuple[Any, dict[str, Any], set[str]]:
    return good, TEXTS, sent or set()


def texts(good: Any = GOOD) -> tuple[Any, dict[str, Any], set[str]]:
    return good, LISTS, set()


ALL: dict[str, tuple[Callable[[], Any], Cells]] = {
    "APIGenGenerator": (
        lambda: APIGenGenerator(llm=Asked()),
        {
            "examples": text(sent={"empty", "blank"}),
            "func_name": text(),
            "func_desc": text(),
            "tools": ('[{"name": "area"}]', JSONS, {"blank"}),
        },
    ),
    "APIGenSemanticChecker": (
        lambda: APIGenSemanticChecker(llm=Asked()),
        {
            "func_desc": text(),
            "query": text(),
            "answers": ('[{"name": "area", "arguments": {}}]', {**JSONS, "None": None, "empty": ""}, set()),
            # A function may give an empty text.
            "execution_result": (["20"], {**TEXTS, "None among them": ["20", None]}, {"list", "empty", "blank"}),
            "tools": ('[{"name": "area"}]', JSONS, {"blank"}),
        },
    ),
    "ArgillaLabeller": (
        lambda: ArgillaLabeller(llm=Asked(), question=QUESTION),
        {
            "record": (
                RECORD,
                {
                    **{name: {"fields": {"text": TEXTS[name]}} for name in ("None", "NaN", "empty", "blank", "half")},
                    "no record": None,
                    "text": "a text",
                    "message without words": {"fields": {"text": [{"role": "user", "content": None}]}},
                },
                set(),
            ),
            "guidelines": text(sent=OPTIONAL),
        },
    ),
    "CLAIR": (lambda: tasks.CLAIR(llm=Asked()), {"task": text(), "student_solution": text()}),
    "ChatGeneration": (lambda: ChatGeneration(llm=Asked()), {"messages": ([MESSAGE], CHATS, set())}),
    "ComplexityScorer": (lambda: tasks.ComplexityScorer(llm=Asked()), {"instructions": texts()}),
    "EmbeddingGeneration": (lambda: EmbeddingGeneration(embeddings=AskedForVectors()), {"text": text()}),
    "EvolComplexity": (lambda: tasks.EvolComplexity(llm=Asked()), {"instruction": text()}),
    "EvolInstruct": (lambda: tasks.EvolInstruct(llm=Asked()), {"instruction": text()}),
    "EvolQuality": (lambda: tasks.EvolQuality(llm=Asked()), {"instruction": text(), "response": text()}),
    "GenerateEmbeddings": (
        lambda: GenerateEmbeddings(llm=Asked()),
        {"text": ("a text", {**TEXTS, **{f"a chat, {name}": each for name, each in CHATS.items()}}, {"a chat, text"})},
    ),
    "GenerateLongTextMatchingData": (lambda: tasks.GenerateLongTextMatchingData(llm=Asked()), {"task": text()}),
    "GenerateSentencePair": (
        lambda: GenerateSentencePair(llm=Asked(), action="paraphrase"),
        {"anchor": text()},
    ),
    "GenerateShortTextMatchingData": (lambda: tasks.GenerateShortTextMatchingData(llm=Asked()), {"task": text()}),
    "GenerateTextClassificationData": (lambda: tasks.GenerateTextClassificationData(llm=Asked()), {"task": text()}),
    "GenerateTextRetrievalData": (lambda: tasks.GenerateTextRetrievalData(llm=Asked()), {"task": text()}),
    "Genstruct": (lambda: tasks.Genstruct(llm=Asked()), {"title": text(), "content": text()}),
    "ImageGeneration": (lambda: ImageGeneration(image_generation_model=AskedForImages()), {"prompt": text()}),
    "InstructionBacktranslation": (
        lambda: tasks.InstructionBacktranslation(llm=Asked()),
        {"instruction": text(), "generation": text()},
    ),
    "Magpie": (lambda: Magpie(llm=Asked(), chat_template="llama3"), {"system_prompt": text(sent=OPTIONAL)}),
    "MathShepherdCompleter": (
        lambda: tasks.MathShepherdCompleter(llm=Asked()),
        {
            "instruction": text(),
            "solutions": (
                [["Step 1: 2 + 2 is 4.", "The answer is: 4"]],
                {
                    **{name: LISTS[name] for name in ("None", "NaN", "text", "number", "no items")},
                    "number among them": [["a step", 7]],
                    "half among them": [["a step", HALF, "The answer is: 4"]],
                },
                set(),
            ),
            # Only an answer's form counts: it's compared, and never sent.
            "golden_solution": (
                ["Step 1: 2 + 2 is 4.", "The answer is: 4"],
                {"None": None, "NaN": NAN, "number": 7},
                set(),
            ),
        },
    ),
    "MathShepherdGenerator": (lambda: tasks.MathShepherdGenerator(llm=Asked()), {"instruction": text()}),
    "PairwiseJudge": (
        lambda: PairwiseJudge(llm=Asked(), reference=True),
        {"instruction": text(), "generations": texts(), "reference": text()},
    ),
    "PrometheusEval": (
        lambda: PrometheusEval(llm=Asked(), mode="relative", rubric="factual-validity", reference=True),
        {"instruction": text(), "generations": texts(), "reference": text()},
    ),
    "QualityScorer": (lambda: tasks.QualityScorer(llm=Asked()), {"instruction": text(), "responses": texts()}),
    "RubricJudge": (
        lambda: RubricJudge(llm=Asked(), criteria=[Criterion(name="clear", description="Is it?")], reference=True),
        {"instruction": text(), "generation": text(), "reference": text()},
    ),
    "JudgeSolution": (
        lambda: tasks.JudgeSolution(llm=Asked()),
        {"problem": text(), "generation": ("It's 4.", {}, OPTIONAL)},
    ),
    "SolveProblem": (lambda: tasks.SolveProblem(llm=Asked()), {"problem": text()}),
    "SelfInstruct": (lambda: tasks.SelfInstruct(llm=Asked()), {"input": text()}),
    "StructuredGeneration": (
        lambda: tasks.StructuredGeneration(llm=Asked()),
        {
            "instruction": text(),
            "structured_output": ('{"type": "object", "properties": {}}', {**JSONS, "None": None, "empty": ""}, set()),
            "system_prompt": text(sent=OPTIONAL),
        },
    ),
    "TextClassification": (
        lambda: TextClassification(llm=Asked(), available_labels=[Label(name="a"), Label(name="b")]),
        {"text": text()},
    ),
    "TextClustering": (lambda: tasks.TextClustering(llm=Asked()), {"texts": texts()}),
    "TextGeneration": (
        lambda: TextGeneration(llm=Asked()),
        {"instruction": text(), "system_prompt": text(sent=OPTIONAL)},
    ),
    "TextGeneration with a template": (
        lambda: TextGeneration(llm=Asked(), template="Of {{ a }} and {{ b }}.", columns=["a", "b"]),
        {"a": text(sent=NUMBERS), "b": text(sent=NUMBERS)},
    ),
    "TextGenerationWithImage": (
        lambda: TextGenerationWithImage(llm=Asked()),
        {"instruction": text(), "image": text("https://example.org/k2.png"), "system_prompt": text(sent=OPTIONAL)},
    ),
    "URIAL": (lambda: tasks.URIAL(llm=Asked()), {"instruction": text()}),
    "URIAL with a conversation": (lambda: tasks.URIAL(llm=Asked()), {"conversation": ([MESSAGE], CHATS, set())}),
    "UltraFeedback": (lambda: tasks.UltraFeedback(llm=Asked()), {"instruction": text(), "generations": texts()}),
}
CASES = [
    pytest.param(name, column, bad, id=f"{name}, {column}: {bad}")
    for name, (_, cells) in ALL.items()
    for column, (_, many, _) in cells.items()
    for bad in many
]


def rows_of(step: Any, rows: list[Row]) -> list[Row]:
    return [row for some in step.process(rows) for row in some]


def asked_by(step: Any) -> list[Any]:
    model = step.answerer if isinstance(step, ModelStep) else step.llm
    return model._asked


@pytest.mark.parametrize(("name", "column", "bad"), CASES)
def test_a_cell_that_is_no_text_fails_its_row_and_nothing_is_sent(name: str, column: str, bad: str) -> None:
    make, cells = ALL[name]
    good = {each: cell for each, (cell, _, _) in cells.items()}
    step, other = make(), make()
    rows_of(other, [good])

    made = rows_of(step, [{**good, column: cells[column][1][bad]}, good])

    sent = bad in cells[column][2]
    times = 2 if sent else 1
    assert len(asked_by(step)) == len(asked_by(other)) * times, asked_by(step)
    for word in ("None", "nan", "NaN"):
        # Some prompts have it in their own words.
        assert json.dumps(asked_by(step)).count(word) == json.dumps(asked_by(other)).count(word) * times
    if not sent:
        failure = failure_in(made[0])
        assert failure is not None
        assert failure["type"] == "ValueError" or "Error" in failure["type"]
        assert column in failure["message"] or "record" in failure["message"], failure
    assert failure_in(made[-1]) == failure_in(rows_of(other, [good])[-1])


def test_the_table_has_every_task_and_every_column_that_it_reads() -> None:
    exported = [getattr(tasks, name) for name in tasks.__all__]
    asking = {
        each.__name__: each
        for each in exported
        if isinstance(each, type)
        and issubclass(each, ModelStep)
        and not issubclass(each, GeneratorTask)
        and not inspect.isabstract(each)
    }

    tabled: dict[str, set[str]] = {}
    for name, (_, cells) in ALL.items():
        tabled.setdefault(name.partition(" ")[0], set()).update(cells)
    assert set(asking) <= set(tabled)
    # Lists of settings, checked by their own types.
    apart = {
        "ArgillaLabeller": {"fields", "question", "example_records"},
        "PrometheusEval": {"generation"},
        # What can't be judged stays undecided, and fails no row.
        "JudgeSolution": {"answer", "correct", "verified_by", "verification"},
        # Verified by, and never sent.
        "SolveProblem": {"answer", "tests"},
    }
    of_examples = ("TextRetrievalData", "ShortTextMatchingData", "LongTextMatchingData", "TextClassificationData")
    marks = {
        "APIGenSemanticChecker": {"keep_row_after_execution_check"},
        **{f"Generate{name}": {"number"} for name in of_examples},
    }
    for name, (make, _) in ALL.items():
        short = name.partition(" ")[0]
        columns = set(make().inputs) - apart.get(short, set()) - marks.get(short, set())
        assert columns <= tabled[short], name


@pytest.mark.parametrize(
    "name", [name for name, (make, _) in ALL.items() if not isinstance(make(), GenerateEmbeddings)]
)
def test_a_missing_column_fails_the_row_as_well(name: str) -> None:
    make, cells = ALL[name]
    for column, (_, _, sent) in cells.items():
        step = make()
        row = {each: cell for each, (cell, _, _) in cells.items() if each != column}
        if sent >= OPTIONAL or column == "tools":
            continue
        made = rows_of(step, [row])
        assert failure_in(made[0]) is not None, column
        assert asked_by(step) == [], column


# Templates


def written(template: str, **cells: Any) -> Any:
    """What a template of these cells is sent as, or why it isn't."""
    step = TextGeneration(llm=Asked(), template=template, columns=list(cells))
    (row,) = rows_of(step, [cells])
    failure = failure_in(row)
    return failure["message"] if failure else asked_by(step)[0][0]["content"]


@pytest.mark.parametrize(
    ("template", "cells", "prompt"),
    [
        ("{{ a }}!", {"a": "text"}, "text!"),
        ("{{ a }} {{ b }}", {"a": 3, "b": 2.5}, "3 2.5"),
        ("{{ a }}!", {"a": Decimal("1.50")}, "1.50!"),
        ("{{ a }}!", {"a": datetime.date(2026, 1, 2)}, "2026-01-02!"),
        ("{{ a | join(', ') }}!", {"a": ["x", "y"]}, "x, y!"),
        ("{% for each in a %}{{ each }};{% endfor %}", {"a": ["x", 1]}, "x;1;"),
        ("{{ a.name }} is {{ a['height'] }}", {"a": {"name": "K2", "height": 8611}}, "K2 is 8611"),
        ("q{% if a %} ({{ a }}){% endif %}", {"a": None}, "q"),
        ("q{% if a %} ({{ a }}){% endif %}", {"a": ""}, "q"),
        ("q{% if a %} ({{ a }}){% endif %}", {"a": []}, "q"),
        ("q {{ a or 'nothing' }}", {"a": None}, "q nothing"),
        ("q {{ a or 'nothing' }}", {"a": ""}, "q nothing"),
        ("q{{ '' if a else 'x' }}", {"a": "y"}, "q"),
        ("{{ a | default('nothing', true) }}", {"a": None}, "nothing"),
        ("{{ a | tojson }}", {"a": {"k": [None, 1]}}, '{"k": [null, 1]}'),
        ("{% set b = a | length %}{{ b }} items", {"a": [1, 2]}, "2 items"),
        ("{{ (a) }}", {"a": "plain"}, "plain"),
    ],
)
def test_a_template_says_how_cells_are_put_into_words(template: str, cells: Row, prompt: str) -> None:
    assert written(template, **cells) == prompt


@pytest.mark.parametrize(
    ("template", "cells", "said"),
    [
        ("{{ a }}!", {"a": None}, "a: expected a text, got None"),
        ("{{ a }}!", {"a": NAN}, "a: expected a text, got nan"),
        ("{{ a }}!", {"a": math.inf}, "a: expected a text, got inf"),
        ("{{ a }}!", {"a": Decimal("NaN")}, "a: expected a text, got Decimal('NaN')"),
        (
            "{{ a }}!",
            {"a": ["x", "y"]},
            "a: expected a text, got ['x', 'y']; a template puts a list into words by a loop",
        ),
        ("{{ a }}!", {"a": {"x": 1}}, "a: expected a text, got {'x': 1}"),
        ("{{ a }}!", {"a": b"x"}, "a: expected a text, got b'x'"),
        ("{{ a }}!", {"a": ""}, "a: expected a text that isn't empty, got ''"),
        ("q {{ a }}!", {"a": "  "}, "a: expected a text that isn't empty, got '  '"),
        ("{% for each in a %}{{ each }};{% endfor %}", {"a": ["x", None]}, "the template: expected a text, got None"),
        ("{{ a.name }}", {"a": {"name": None}}, "the template: expected a text, got None"),
        ("{{ a }}", {"a": 7}, "a: expected a text, got 7"),
        ("{% if a %}x{% endif %}", {"a": None}, "the prompt: expected a text that isn't empty, got ''"),
        ("{{ a }}!", {"a": HALF}, "a: expected whole characters, got half of one at character 18"),
        ("{% if a %}x{% endif %}", {"a": [HALF]}, "a: expected whole characters, got half of one"),
    ],
)
def test_what_a_template_would_print_without_words_fails_the_row(template: str, cells: Row, said: str) -> None:
    assert written(template, **cells).startswith(said)


@task(inputs={"a": True, "b": False}, outputs=["answer"])
def about(output: str, input: Row) -> Row:
    """Ask.

    ---
    user_message_template: "Of {a}, and {b}."
    ---
    """
    return {"answer": output}


@pytest.mark.parametrize(("bad", "value"), TEXTS.items())
def test_a_function_made_into_a_task_checks_its_cells_too(bad: str, value: Any) -> None:
    step = about(llm=Asked())

    made = rows_of(step, [{"a": value, "b": "y"}, {"a": "x", "b": value}, {"a": "x", "b": "y"}])

    prompts = [chat[-1]["content"] for chat in asked_by(step)]
    assert ("Of x, and ." in prompts) == (bad in OPTIONAL)
    assert (f"Of x, and {value}." in prompts) == (bad in NUMBERS | {"empty"})
    assert prompts[-1] == "Of x, and y."
    failed = [failure_in(row) is not None for row in made]
    assert failed == [bad not in NUMBERS, bad not in NUMBERS | OPTIONAL, False]


# Tasks of a user's own


class Careless(Task):
    """A Task of a user's own that puts a cell into a message without a look at it."""

    @property
    def inputs(self) -> list[str]:
        return ["cell"]

    @property
    def outputs(self) -> list[str]:
        return ["answer"]

    def format_input(self, input: Row) -> Any:
        return input["cell"] if input.get("bare") else [{"role": "user", "content": input["cell"]}]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"answer": output}


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("value", [None, NAN, 7, {"a": 1}, [{"type": "text", "text": HALF}], [{"n": NAN}], HALF])
def test_what_cant_be_sent_as_it_is_meant_isnt_sent_by_any_task(value: Any, bare: bool) -> None:
    step = Careless(llm=Asked())

    made = rows_of(step, [{"cell": value, "bare": bare}, {"cell": "fine"}])

    failure = failure_in(made[0])
    assert failure is not None
    assert failure["message"].startswith("the prompt")
    assert asked_by(step) == [[{"role": "user", "content": "fine"}]]


def rows_with_half() -> Iterator[Row]:
    yield from ({"instruction": HALF if number == 1 else f"q{number}"} for number in range(4))


def test_half_a_character_fails_its_row_alone() -> None:
    step = TextGeneration(llm=Asked())

    made = rows_of(step, list(rows_with_half()))

    assert [row["generation"] for row in made] == ["fine", None, "fine", "fine"]
    failure = failure_in(made[1])
    assert failure is not None
    assert "instruction: expected whole characters, got half of one at character 18" in failure["message"]


def test_what_a_table_adds_to_chats_isnt_sent() -> None:
    call: Row = {"id": "c", "type": "function", "function": {"name": "w", "arguments": "{}"}}
    parts = [{"type": "text", "text": "Which?"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
    chats: list[Any] = [
        [{"role": "user", "content": parts}],
        [
            {"role": "user", "content": "Sunny?"},
            {"role": "assistant", "content": None, "tool_calls": [call, {**call, "index": 1}]},
            *({"role": "tool", "content": "yes", "tool_call_id": "c"} for _ in range(2)),
        ],
        [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"arguments": {"x": None}}}]},
            {"role": "tool", "content": "yes", "tool_call_id": "c"},
        ],
    ]
    step = ChatGeneration(llm=Asked())
    # The table of each chat has the keys of its messages in all of them.
    padded = [Dataset.from_list([{"messages": chat}])[0] for chat in chats[:2]]
    assert '"image_url": null' in json.dumps(padded[0])
    assert '"index": null' in json.dumps(padded[1])
    empty = [{**each, "tool_calls": each.get("tool_calls", [])} for each in chats[1]]
    unpadded = {"messages": chats[2]}

    rows_of(step, [*padded, {"messages": empty}, unpadded])

    assert asked_by(step) == [*chats[:2], chats[1], chats[2]]
