"""Solutions of mathematical problems: a list of steps and a final answer, read from models' replies and from rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from llms.parameters import short
from llms.typing import JSONSchema
from tasks.base import UnreadableAnswerError
from tasks.cells import whole_text
from tasks.math.math_answers import same_answer, split_answer
from tasks.reading.replies import closed_object, json_in, without_fences, without_thoughts
from tasks.typing import Row

ANSWER_IS = "The answer is: "


@dataclass(frozen=True)
class Solution:
    """The steps of a solution, each with its number in front, and its final answer."""

    steps: tuple[str, ...]
    answer: str

    def items(self) -> list[str]:
        """The solution as rows hold it: its steps, and `The answer is: ...` as the last item."""
        return [*self.steps, f"{ANSWER_IS}{self.answer}"]

    def prefixes(self) -> list[tuple[str, ...]]:
        """The beginnings that can be completed: up to each step but the last, which the answer settles."""
        return [self.steps[:count] for count in range(1, len(self.steps))]


def solution_schema() -> JSONSchema:
    steps = {"type": "array", "items": {"type": "string"}}
    return closed_object({"steps": steps, "answer": {"type": "string"}}, title="solution")


def solutions_schema(count: int) -> JSONSchema:
    """The schema of several solutions, each under a key of its own, so that none can be left out."""
    return closed_object({key_of(number): solution_schema() for number in range(1, count + 1)}, title="solutions")


def key_of(number: int) -> str:
    return f"solution_{number}"


def in_json(solution: Solution) -> Row:
    """A solution in the form of its schema."""
    return {"steps": [LABEL.sub("", step) for step in solution.steps], "answer": solution.answer}


# Reading a reply: JSON or text, whatever was asked for.

LABEL = re.compile(r"^[\s>#*_`-]*step\s*#?\d+[\s*_`]*[:.)–—-]?[\s*_`]*", re.IGNORECASE)
STEP = re.compile(
    r"^[ \t>#*_`-]*step\s*#?(?P<number>\d+)[*_` \t]*(?:[:.)–—-]|(?=\()|$)[*_` \t]*(?P<text>.*)$", re.IGNORECASE
)
NUMBERED = re.compile(r"^[ \t>#*_`]*\(?(?P<number>\d+)[.)][*_`]*[ \t]+(?P<text>\S.*)$")
STEP_IN_LINE = re.compile(r"(?<=\S)[ \t]+(?=Step \d+:)")
BETWEEN = re.compile(
    r"^\s*+(?:-{3,}|\*{3,}|_{3,}|={3,}|[#*_\s]*+(?:(?:alternative|example|possible)\s+)?solution\s*#?\d*[\s:*_]*)$",
    re.IGNORECASE,
)


def read_solutions(text: str, count: int) -> list[Solution]:
    """The solutions in a reply, in JSON or in text, with what models put around and into them.

    Raises:
        UnreadableAnswerError: there aren't `count` of them, or one lacks steps or a final answer, or skips a number.
    """
    said = without_fences(without_thoughts(text))
    found = list(solutions_in_json(said) or solutions_in_text(said))
    if len(found) != count:
        wanted = "one solution" if count == 1 else f"{count} solutions"
        hint = "" if found else " (steps begin with `Step 1:`)"
        raise UnreadableAnswerError(f"expected {wanted}, got {len(found)}{hint}: {short(text)}")
    return found


def final_answer(text: str) -> str | None:
    """The final answer in a reply that may hold other things than a whole solution; None where it has none."""
    try:
        said = without_fences(without_thoughts(text))
    except UnreadableAnswerError:
        return None
    value = json_with_latex(said) if "{" in said else None
    if isinstance(value, dict) and (said.startswith("{") or {"steps", "answer"} & set(cast("Row", value))):
        return answer_in_json(value)
    # Of JSON that can't be read, nothing is read.
    return None if said.startswith("{") or re.search(r'"answer"\s*:', said) else split_answer(said)[1]


def answer_in_json(value: Any) -> str | None:
    """The final answer in a JSON value: under `answer`, or at the end of the last text in it."""
    if isinstance(value, dict):
        fields = cast("Row", value)
        return answer_of(fields["answer"]) if "answer" in fields else answer_in_json(list(fields.values())[-1:])
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return answer_in_json(items[-1]) if items else None
    return split_answer(value)[1] if isinstance(value, str) else None


def solutions_in_text(said: str) -> Iterator[Solution]:
    """The solutions of a reply in text: each begins with step 1, and ends with its answer."""
    lines = [line for line in STEP_IN_LINE.sub("\n", said).splitlines() if not BETWEEN.match(line)]
    pattern = STEP if any(map(STEP.match, lines)) else NUMBERED
    solutions: list[list[list[str]]] = []
    for line in lines:
        step = pattern.match(line)
        if step is None:
            if solutions:
                solutions[-1][-1].append(line)
            continue
        number = int(step["number"])
        if number == 1:
            solutions.append([])
        elif not solutions or number != len(solutions[-1]) + 1:
            raise UnreadableAnswerError(
                f"expected step {len(solutions[-1]) + 1 if solutions else 1}, got step {number}: {short(said)}"
            )
        solutions[-1].append([step["text"]])
    for steps in solutions:
        yield solution_of_texts(["\n".join(parts) for parts in steps])


def solution_of_texts(texts: Sequence[str]) -> Solution:
    """A solution of its steps' texts, the last of which holds the answer. Raises UnreadableAnswerError."""
    rest, answer = split_answer(texts[-1]) if texts else ("", None)
    before, said_before = split_answer(rest)
    if answer and said_before and same_answer(answer, said_before):
        rest = before
    if answer is None:
        raise UnreadableAnswerError(
            f"expected a final answer ({ANSWER_IS}...) after the last step, got {short(list(texts))}"
        )
    steps = [tidy(text) for text in [*texts[:-1], rest]]
    if not steps[-1]:
        steps.pop()
    if not steps or not all(steps):
        raise UnreadableAnswerError(f"expected steps before the answer, got {short(list(texts))}")
    return Solution(tuple(f"Step {number}: {text}" for number, text in enumerate(steps, 1)), answer)


def tidy(text: str) -> str:
    """A step's text on one line, without Markdown's bold: in the formats for training, a line is a step."""
    return " ".join(re.sub(r"(?<!\w)\*\*|\*\*(?!\w)", "", text).split())


def solutions_in_json(said: str) -> list[Solution]:
    """The solutions of a reply in JSON, in the shape that was asked for or another plain one; none of any other."""
    value = json_with_latex(said)
    if isinstance(value, dict) and {"steps", "solution", "solutions", key_of(1)} & set(cast("Row", value)):
        found = cast("Row", value)
        values: list[Any] = [found] if "steps" in found else list(found.values())
    elif isinstance(value, list) and said.startswith("["):
        values = [value]
    else:
        return []
    if len(values) == 1 and isinstance(values[0], list):
        inner = cast("list[Any]", values[0])
        # A list of texts is one solution's steps.
        values = values if all(isinstance(each, str) for each in inner) else inner
    return [solution_in_json(each) for each in values]


def solution_in_json(value: Any) -> Solution:
    """A solution in JSON: its object, its steps, or its whole text. Raises UnreadableAnswerError."""
    if isinstance(value, dict):
        fields = cast("Row", value)
        if "steps" not in fields:
            return solution_in_json(next(iter(fields.values()), None))
        steps, answer = fields["steps"], answer_of(fields.get("answer"))
        last = [f"{ANSWER_IS}{answer}"] if answer else []
        value = [*cast("list[Any]", steps), *last] if isinstance(steps, list) else "\n".join([str(steps), *last])
    if isinstance(value, str):
        return read_solutions(value, 1)[0]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in cast("list[Any]", value)):
        raise UnreadableAnswerError(f"expected a solution's steps as texts, got {short(cast('object', value))}")
    texts = [LABEL.sub("", each) for each in cast("list[str]", value)]
    return solution_of_texts([*texts[:-2], "\n".join(texts[-2:])])


def answer_of(value: Any) -> str | None:
    """A final answer given in JSON: a number or a text, in which it may be announced once more; None for nothing."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return (split_answer(text)[1] or text).strip() or None


def json_with_latex(text: str) -> Any:
    """The JSON value in a text, or None. Backslashes of LaTeX that should have been doubled are put right."""
    start = re.search(r"[{\[]", text)
    if start is None:
        return None
    doubled = re.sub(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|)', lambda found: found[0] if found[1] else r"\\", text)
    for each in (text, doubled):
        with suppress(UnreadableAnswerError):
            return restored(json_in(each)[1])
    return None


LATEX_ESCAPES = (
    (r"\x08", r"\\b"),
    (r"\x0c", r"\\f"),
    (r"\t(?=imes|ext|an|heta|frac|o\b)", r"\\t"),
    (r"\r(?=ight|ho|angle)", r"\\r"),
)
"""What JSON makes of `\\boxed`, `\\frac`, `\\times` and `\\right` with single backslashes."""


def restored(value: Any) -> Any:
    """A JSON value in whose texts LaTeX has its backslashes again."""
    if isinstance(value, str):
        for pattern, replacement in LATEX_ESCAPES:
            value = re.sub(pattern, replacement, value)
        return value
    if isinstance(value, list):
        return [restored(each) for each in cast("list[Any]", value)]
    return {name: restored(each) for name, each in cast("Row", value).items()} if isinstance(value, dict) else value


# Reading a row.


def solutions_of(row: Row) -> list[Solution]:
    """The solutions in a row, those that are None left out. Raises ValueError where one can't be read."""
    value = decoded(row["solutions"])
    given = [each for each in cast("list[Any]", value) if each is not None] if isinstance(value, list) else []
    if not given:
        raise ValueError(
            f"solutions: expected a list of solutions, each a list of steps, got {short(row['solutions'])}"
        )
    return [solution_of(each, f"solutions: number {number}") for number, each in enumerate(given, 1)]


def solution_of(value: Any, name: str) -> Solution:
    """A solution as a row holds it: its steps as they are, and the final answer in the last item. Raises ValueError."""
    items = texts_of(value, name)
    rest, answer = split_answer(items[-1])
    steps = [*items[:-1], *([rest.strip()] if rest.strip() else [])]
    if answer is None or not steps:
        raise ValueError(f"{name}: expected steps and, at the end, {ANSWER_IS!r} with the answer, got {short(value)}")
    return Solution(tuple(steps), answer)


def golden_answer(row: Row) -> str:
    """The final answer of the row's `golden_solution`: of its last item, or all of it where it's one line.

    Raises:
        ValueError: it has none.
    """
    items = texts_of(decoded(row["golden_solution"]), "golden_solution")
    answer = split_answer(items[-1])[1]
    if answer is None and (len(items) > 1 or "\n" in items[0].strip()):
        raise ValueError(f"golden_solution: expected {ANSWER_IS!r} in its last item, got {short(items[-1])}")
    return answer or items[0].strip()


def texts_of(value: Any, name: str) -> list[str]:
    """A text, or a list of texts, as a list without empty ones. Raises ValueError."""
    given = [value] if isinstance(value, str) else cast("list[Any]", value) if isinstance(value, list) else []
    texts = [each.strip() if isinstance(each, str) else each for each in given]
    if not any(texts) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: expected a list of texts, the steps, got {short(cast('object', value))}")
    return [whole_text(text, name) for text in texts if text]


def decoded(value: Any) -> Any:
    """A column's value; of JSON text, the list of texts or of lists in it. `[1, 2]` is an answer, no such list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            found: list[Any] = json.loads(value)
            return found if all(each is None or isinstance(each, str | list) for each in found) else value
    return value
