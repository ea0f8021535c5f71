"""APIGen: requests with the function calls that answer them, and a judgement of whether they do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, cast

from pydantic import Field, field_validator, model_validator

from llms.parameters import Configurable, check_whole, short
from llms.quantities import quantity
from llms.typing import ChatItem, ChatType, FormattedInput, JSONSchema
from tasks.base import Answer, Task, UnreadableAnswerError
from tasks.cells import any_text_in, text_in, whole_text
from tasks.functions.function_calls import Call, calls_in, written_calls
from tasks.random_choices import random_for, read_by
from tasks.reading.replies import closed_object, object_in, without_fences, without_thoughts
from tasks.rows.formatting import Format
from tasks.templates import HAS_VARIABLES, checked, render, taken_by_deploy, template_from, variables_of
from tasks.typing import Ask, Columns, Row


class WeightedNumber(Configurable):
    """A number of calls, and how often it's drawn in proportion to the others."""

    number: Annotated[int, Field(ge=1, title="Calls")]
    weight: Annotated[float, Field(gt=0, title="Weight")] = 1.0


class APIGenGenerator(Task):
    """Writes a user's request for a function, and the calls that answer it.

    `number` is how many calls the request takes: one, or several at once. Given as a list (`[1, 2, 3]`) or with
    weights (`{1: 0.5, 2: 0.5}`), it's drawn for each row, the same one in every run. An answer with another number
    of calls, with a call of an unknown function, or without one of the row's function fails its row.

    Input columns:
        examples: requests with calls for other functions, as text (`PrepareExamples` makes it), or an empty text.
        func_name: the name of the function.
        func_desc: what it does, with its parameters and their types.
        tools (optional): the functions that may be called, `func_name` among them; as JSON text, a list of objects with
            `name`.

    Output columns:
        query: the request.
        answers: the calls, `[{"name": ..., "arguments": {...}}]` as JSON text.
        model_name: the model that wrote them.

    Source: APIGen: Automated Pipeline for Generating Verifiable and Diverse Function-Calling Datasets
    (https://arxiv.org/abs/2406.18518).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import APIGenGenerator
        >>> task = APIGenGenerator(llm=OpenAILLM(model="gpt-4o"))
        >>> row = {"examples": "", "func_name": "area", "func_desc": "The area of a rectangle of width and height."}
        >>> task.format_output('''```json
        ... {"query": "How big is a room of 4 by 5 metres?",
        ...  "answers": [{"name": "area", "arguments": {"width": 4, "height": 5}}]}
        ... ```''', row)["answers"]
        '[{"name": "area", "arguments": {"width": 4, "height": 5}}]'
    """

    form_first = ("llm", "number", "numbers")
    form_more = ("seed",)
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    number: Annotated[int, Field(ge=1, title="Calls", description="How many a request takes.")] = 1
    numbers: Annotated[
        list[WeightedNumber],
        Field(
            title="Calls, drawn", description="Numbers with weights: one is drawn for each row, in place of `Calls`."
        ),
    ] = []
    seed: Annotated[int, Field(title="Seed", description="Of the numbers that are drawn.")] = 0
    use_tools: Annotated[
        bool, Field(title="Show tools", description="Put the column `tools` into the prompt, where a row has it.")
    ] = True

    @model_validator(mode="before")
    @classmethod
    def _several_numbers(cls, data: Any) -> Any:
        """`number` as a list, or as a dict to weights."""
        if not isinstance(data, Mapping):
            return data
        given = dict(cast("Mapping[str, Any]", data))
        if isinstance(given.get("number"), dict | list | tuple):
            given["numbers"] = weighted(given.pop("number"))
        return given

    def merged(self, overrides: Mapping[str, Any]) -> Self:
        drawn_no_more = overrides.get("number") is not None and "numbers" not in overrides
        return super().merged({**overrides, "numbers": []} if drawn_no_more else overrides)

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("apigen/generator",)

    @property
    def inputs(self) -> Columns:
        return {"examples": True, "func_name": True, "func_desc": True, "tools": False}

    @property
    def outputs(self) -> Columns:
        return ["query", "answers", "model_name"]

    def number_for(self, row: Row) -> int:
        """How many calls the row's request takes."""
        if not self.numbers:
            return self.number
        weights = [each.weight for each in self.numbers]
        return random_for(read_by(self, row), self.seed, "number").choices(self.numbers, weights)[0].number

    def format_input(self, input: Row) -> FormattedInput:
        number, tools = self.number_for(input), self._tools(input)
        structured = self.wanted_schema() is not None
        prompt = render(
            "apigen/generator",
            func_name=text_in(input, "func_name"),
            func_desc=text_in(input, "func_desc"),
            examples=any_text_in(input, "examples").strip(),
            tools=written_tools(tools),
            number=number,
            structured=structured,
        )
        chat = [ChatItem(role="user", content=prompt.strip())]
        if not structured:
            return chat
        names = [names_in(tools) or [input["func_name"]]] * number
        # One call is of the row's function, not always the first.
        names[random_for(read_by(self, input), self.seed, "place").randrange(number)] = [input["func_name"]]
        return chat, pair_schema(names)

    def get_structured_output(self) -> JSONSchema:
        """The schema for one call of any function; a prompt's own has as many as the row's number."""
        return pair_schema([[]])

    def format_output(self, output: str | None, input: Row) -> Row:
        query, calls = read_pair(output or "")
        name, number = input["func_name"], self.number_for(input)
        if len(calls) != number:
            raise UnreadableAnswerError(f"expected {quantity(number, 'call')}, got {len(calls)}: {short(output)}")
        known = names_in(self._tools(input)) or [name]
        unknown = [call.name for call in calls if call.name not in {*known, name}]
        if unknown:
            raise UnreadableAnswerError(f"expected calls of {', '.join(known)}, got one of {unknown[0]!r}")
        if name not in {call.name for call in calls}:
            raise UnreadableAnswerError(f"expected a call of {name!r}, got {[call.name for call in calls]!r}")
        return {"query": query, "answers": written_calls(calls)}

    def format_example(self, example: Row) -> str:
        calls = calls_in(example["answers"])
        if self.wanted_schema() is None:
            return json.dumps(
                {"query": example["query"], "answers": json.loads(written_calls(calls))}, ensure_ascii=False
            )
        keyed = {
            key_of(place): {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
            for place, call in enumerate(calls, 1)
        }
        return json.dumps({"query": example["query"], **keyed}, ensure_ascii=False)

    def _tools(self, row: Row) -> Any:
        return row.get("tools") or None if self.use_tools else None


def weighted(number: Any) -> list[Row]:
    """Numbers, given as a list or as a dict to their weights, in the form of the field. Raises ValueError."""
    if not number:
        raise ValueError(f"number: expected at least one number, got {number!r}")
    if isinstance(number, dict):
        return [{"number": each, "weight": weight} for each, weight in cast("dict[Any, Any]", number).items()]
    return [{"number": each} for each in cast("Sequence[Any]", number)]


def key_of(place: int) -> str:
    """The key of a call in a reply in JSON."""
    return f"call_{place}"


def pair_schema(names: Sequence[Sequence[str]]) -> JSONSchema:
    """The schema of a request with calls, each of a function among its `names`; of any where there are none.

    Arguments are JSON as text: a schema that is closed, as strict modes want it, can't have keys that depend on the
    function. Each call has a key of its own, so that none can be left out.
    """
    arguments: JSONSchema = {"type": "string", "description": "A JSON object: the arguments by their names."}
    calls = {
        key_of(place): closed_object({"name": {"type": "string", **_only(each)}, "arguments": arguments})
        for place, each in enumerate(names, 1)
    }
    return closed_object({"query": {"type": "string"}, **calls}, title="query_and_calls")


def _only(names: Sequence[str]) -> JSONSchema:
    return {"enum": list(names)} if names else {}


def written_tools(tools: Any) -> str:
    """The functions that may be called, as they stand in a prompt; an empty text for none. Raises ValueError."""
    if tools is None or isinstance(tools, str):
        return whole_text(tools or "", "tools", blank=True).strip()
    if not isinstance(tools, list | dict):
        raise ValueError(f"tools: expected a list of functions, got {short(cast('object', tools))}")
    check_whole(tools, "tools")
    return json.dumps(tools, ensure_ascii=False) if tools else ""


def names_in(tools: Any) -> list[str]:
    """The names of the functions in `tools`; none where they aren't in a form that has names."""
    try:
        value: Any = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError:
        return []
    items = cast("list[Any]", value) if isinstance(value, list) else []
    plain = [cast("Row", item).get("function", item) for item in items if isinstance(item, dict)]
    names = [cast("Row", item).get("name") for item in plain if isinstance(item, dict)]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


# Reading a reply: a request and its calls.

CALL_KEY = re.compile(r"call_\d+")
LABELLED = re.compile(
    r"^[ \t>#*_-]*query[ \t*_]*:(?P<query>.*?)^[ \t>#*_-]*answers?[ \t*_]*:(?P<answers>.*)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


def read_pair(output: str) -> tuple[str, list[Call]]:
    """The request in a reply, and its calls. It takes JSON, fenced or not, and `Query: ... Answers: [...]`.

    Raises:
        UnreadableAnswerError: there's no request, or a call isn't one.
    """
    said = without_fences(without_thoughts(output))
    labelled = None if said.startswith("{") else LABELLED.search(said)
    if labelled:
        found: Row = {name: text.strip(" *_`\n") for name, text in labelled.groupdict().items()}
    else:
        found = {name.lower(): value for name, value in within(object_in(said)).items()}
    query = found.pop("query", None)
    if not isinstance(query, str) or not query.strip():
        raise UnreadableAnswerError(f"expected an object with 'query' and 'answers', got {short(output)}")
    if all(map(CALL_KEY.fullmatch, found)):
        found = {key: found[key] for key in sorted(found, key=lambda key: int(key.removeprefix("call_")))}
    given = found.get("answers", found.get("answer", found.get("calls", list(found.values()))))
    try:
        return query.strip(), calls_in(given)
    except ValueError as error:
        raise UnreadableAnswerError(f"answers: {error}") from None


def within(found: Row) -> Row:
    """The object in an object that holds nothing else, and any other as it is."""
    values = list(found.values())
    return object_in(json.dumps(values[0])) if len(values) == 1 and isinstance(values[0], dict | list) else found


class APIGenSemanticChecker(Task):
    """Judges whether function calls, with their results, do what the request asks for.

    Rows that `APIGenExecutionChecker` didn't keep aren't asked for: they aren't kept here either, without a thought.
    Switch `exclude_failed_execution` off to have all judged. Rows are marked, not dropped.

    Input columns:
        func_desc: the functions, described.
        query: the request.
        answers: the calls, as JSON text.
        execution_result: their results, a list of texts or a text.
        keep_row_after_execution_check (optional): whether the calls worked.
        tools (optional): all functions that could be called, as `APIGenGenerator` takes them.

    Output columns:
        thought: what decided it.
        keep_row_after_semantic_check: whether it passed.
        model_name: the model that judged.

    Source: APIGen: Automated Pipeline for Generating Verifiable and Diverse Function-Calling Datasets
    (https://arxiv.org/abs/2406.18518).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import APIGenSemanticChecker
        >>> task = APIGenSemanticChecker(llm=OpenAILLM(model="gpt-4o"))
        >>> task.format_output('''Thought: The room is 4 by 5 metres, and so are the arguments.
        ... Passes: yes''', {})
        {'thought': 'The room is 4 by 5 metres, and so are the arguments.', 'keep_row_after_semantic_check': True}
    """

    form_first = ("llm", "exclude_failed_execution")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    exclude_failed_execution: Annotated[
        bool,
        Field(title="Pass over failed calls", description="Don't ask for rows that the execution check didn't keep."),
    ] = True

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("apigen/semantic_checker",)

    @property
    def inputs(self) -> Columns:
        required = dict.fromkeys(("func_desc", "query", "answers", "execution_result"), True)
        return {**required, "keep_row_after_execution_check": False, "tools": False}

    @property
    def outputs(self) -> Columns:
        return ["thought", "keep_row_after_semantic_check", "model_name"]

    def format_input(self, input: Row) -> ChatType:
        if self._passes_over(input):
            raise ValueError("the execution check didn't keep this row, so it isn't asked for")
        results = several(input, "execution_result")
        prompt = render(
            "apigen/semantic_checker",
            func_desc=text_in(input, "func_desc"),
            query=text_in(input, "query"),
            answers=written_calls(calls_of(input)),
            execution_result="\n".join(whole_text(each, "execution_result", blank=True) for each in results),
            tools=written_tools(input.get("tools")),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        passes = {"type": "string", "enum": ["yes", "no"]}
        return closed_object({"thought": {"type": "string"}, "passes": passes}, title="judgement")

    def format_output(self, output: str | None, input: Row) -> Row:
        thought, passes = read_judgement(output or "")
        return {"thought": thought, "keep_row_after_semantic_check": passes}

    def format_example(self, example: Row) -> str:
        passes = "yes" if example["keep_row_after_semantic_check"] else "no"
        if self.wanted_schema() is None:
            return f"Thought: {example['thought']}\nPasses: {passes}"
        return json.dumps({"thought": example["thought"], "passes": passes}, ensure_ascii=False)

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        if self._passes_over(row):
            return [Answer({"thought": None, "keep_row_after_semantic_check": False})] * self.num_generations
        return await super().converse(row, ask)

    def _passes_over(self, row: Row) -> bool:
        return self.exclude_failed_execution and row.get("keep_row_after_execution_check") is False


THOUGHT = re.compile(
    r"^[ \t>#*_`-]*(?:thoughts?|reason(?:ing)?|rationale)[\s*_`]*:(?P<text>.*)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
PASSES = re.compile(r"^[ \t>#*_`-]*pass(?:es|ed)?[\s*_`]*[:=?](?P<text>[^\n]*)", re.IGNORECASE | re.MULTILINE)
VERDICT = re.compile(r"^\W*(?:(?P<yes>yes|true|pass(?:es|ed)?)|no|false|fail(?:s|ed)?)\b(?P<rest>.*)$", re.IGNORECASE)


def read_judgement(output: str) -> tuple[str, bool]:
    """The thought in a reply, and whether it passes. It takes JSON and the form with labels.

    Raises:
        UnreadableAnswerError: it doesn't say yes or no once.
    """
    said = without_fences(without_thoughts(output))
    labels = [] if said.startswith("{") else list(PASSES.finditer(said))
    if len(labels) == 1:
        rest = said[: labels[0].start()].strip() or said[labels[0].end() :].strip()
        labelled = THOUGHT.search(rest)
        return (labelled["text"] if labelled else rest).strip(" *_`\n"), verdict_in(labels[0]["text"])
    found = {name.lower(): value for name, value in object_in(said).items()}
    keys = [name for name in ("passes", "pass", "passed") if name in found]
    if len(keys) != 1:
        raise UnreadableAnswerError(f"expected 'thought' and 'passes', got {short(output)}")
    return str(found.get("thought") or "").strip(), verdict_in(found[keys[0]])


def verdict_in(value: Any) -> bool:
    """Whether a value says yes. Raises UnreadableAnswerError where it says neither yes nor no, or both."""
    found = VERDICT.match(str(value).strip())
    if found is None or re.match(r"\W*(?:/|(?:or|and)\s+(?:yes|no)\b|or\b)", found["rest"], re.IGNORECASE):
        raise UnreadableAnswerError(f"passes: expected yes or no, got {short(value)}")
    return found["yes"] is not None


class PrepareExamples(Format):
    """Writes requests with their calls as one text of examples, for `APIGenGenerator`.

    Input columns:
        query: a request, or a list of them.
        answers: the calls of the request as text, or a list of such texts.

    Output columns:
        examples: all of them, one after another.

    Source: APIGen: Automated Pipeline for Generating Verifiable and Diverse Function-Calling Datasets
    (https://arxiv.org/abs/2406.18518).

    Example:
        >>> from tasks import PrepareExamples
        >>> row = {"query": ["How big is a room of 4 by 5?"], "answers": ['[{"name": "area", "arguments": {}}]']}
        >>> (made,) = next(PrepareExamples().process([row]))
        >>> print(made["examples"])
        Query: How big is a room of 4 by 5?
        Answers: [{"name": "area", "arguments": {}}]
    """

    template: Annotated[
        str,
        Field(
            title="Template",
            description="Jinja2, for one example: `query` and `answers` are its variables.",
            json_schema_extra={"pattern": HAS_VARIABLES},
        ),
    ] = "Query: {{ query }}\nAnswers: {{ answers }}"

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        read = variables_of(checked(value))
        if not read:
            raise ValueError(f"{value!r} reads neither `query` nor `answers`. {taken_by_deploy('query')}")
        if unknown := read - {"query", "answers"}:
            raise ValueError(f"the template has `query` and `answers` alone, it reads {sorted(unknown)!r}")
        return value

    @property
    def inputs(self) -> Columns:
        return ["query", "answers"]

    @property
    def outputs(self) -> Columns:
        return ["examples"]

    def format_row(self, row: Row) -> Row:
        queries, answers = (several(row, column) for column in self.inputs)
        if len(queries) != len(answers):
            raise ValueError(f"expected as many answers as queries, got {len(queries)} queries, {len(answers)} answers")
        template = template_from(self.template)
        texts = [template.render(query=query, answers=each) for query, each in zip(queries, answers, strict=True)]
        return {"examples": "\n\n".join(texts)}


def several(row: Row, column: str) -> list[Any]:
    """The list in a column as it is, and one value as a list. Raises ValueError for none."""
    value = row.get(column)
    if value is None:
        raise ValueError(f"{column}: expected a text or a list of texts, got None")
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def calls_of(row: Row) -> list[Call]:
    """The calls in the row's `answers`. Raises ValueError."""
    try:
        calls = calls_in(row.get("answers"))
    except ValueError as error:
        raise ValueError(f"answers: {error}") from None
    check_whole([call.arguments for call in calls], "answers")
    return calls
