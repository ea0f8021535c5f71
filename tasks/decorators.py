"""`@step` and `@task`: a function as a Step or a Task."""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from string import Formatter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from llms import RuntimeParameter
from llms.parameters import argument_descriptions, has_description, short, unknown_name_message
from llms.typing import ChatItem, ChatType
from tasks.base import Task
from tasks.cells import PromptFormatter
from tasks.steps import GeneratorStep, GlobalStep, Step
from tasks.typing import Columns, GeneratorStepOutput, Row, StepInput, StepOutput, StepType

S = TypeVar("S", bound=Step)


class FunctionStep(Step):
    """A step whose `process` is a function."""

    function: ClassVar[Callable[..., StepOutput]]
    arguments: ClassVar[tuple[str, ...]] = ()
    """The function's arguments that are fields of the step."""
    input_columns: ClassVar[Columns] = []
    output_columns: ClassVar[Columns] = []

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    @property
    def inputs(self) -> Columns:
        return copy.copy(self.input_columns)

    @property
    def outputs(self) -> Columns:
        return copy.copy(self.output_columns)

    def process(self, *inputs: StepInput) -> StepOutput:
        for rows in self.function(*inputs, **arguments_of(self, self.arguments)):
            if not isinstance(rows, list):  # pyright: ignore[reportUnnecessaryIsInstance] -- a user's function
                raise TypeError(f"{type(self).__name__} must yield lists of rows, got {short(rows)}")
            yield rows


class FunctionGlobalStep(FunctionStep, GlobalStep):
    """A step that needs all rows at once, whose `process` is a function."""


class FunctionGeneratorStep(GeneratorStep):
    """A step that makes rows, whose `process` is a function."""

    function: ClassVar[Callable[..., GeneratorStepOutput]]
    arguments: ClassVar[tuple[str, ...]] = ()
    output_columns: ClassVar[Columns] = []

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    @property
    def outputs(self) -> Columns:
        return copy.copy(self.output_columns)

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        arguments = arguments_of(self, self.arguments)
        if "offset" in inspect.signature(self.function).parameters:
            yield from self.function(offset=offset, **arguments)
        else:
            yield from left_out(self.function(**arguments), offset)


class FunctionTask(Task):
    """A Task whose parser is a function, and whose prompt is in the function's docstring."""

    function: ClassVar[Callable[..., Any]]
    arguments: ClassVar[tuple[str, ...]] = ()
    input_columns: ClassVar[Columns] = []
    output_columns: ClassVar[Columns] = []
    user_message_template: ClassVar[str] = ""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    @property
    def inputs(self) -> Columns:
        return copy.copy(self.input_columns)

    @property
    def outputs(self) -> Columns:
        return list(dict.fromkeys([*self.output_columns, "model_name"]))

    def format_input(self, input: Row) -> ChatType:
        columns = self.input_columns
        optional = [name for name in columns if isinstance(columns, dict) and not columns[name]]
        cells = {**dict.fromkeys(columns), **input}
        content = PromptFormatter(optional).vformat(self.user_message_template, (), cells)
        return [ChatItem(role="user", content=content)]

    def format_output(self, output: str | None, input: Row) -> Row:
        columns = self.function(output, input, **arguments_of(self, self.arguments))
        if not isinstance(columns, Mapping):
            raise TypeError(f"{type(self).__name__} must return a dict of columns, got {short(columns)}")
        return dict(cast("Row", columns))

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "user_message_template": self.user_message_template}


Rows: TypeAlias = Callable[..., StepOutput]
GeneratedRows: TypeAlias = Callable[..., GeneratorStepOutput]


@typing.overload
def step(
    inputs: Columns | None = None, outputs: Columns | None = None, step_type: Literal["normal"] = "normal"
) -> Callable[[Rows], type[FunctionStep]]: ...


@typing.overload
def step(
    inputs: Columns | None = None, outputs: Columns | None = None, *, step_type: Literal["global"]
) -> Callable[[Rows], type[FunctionGlobalStep]]: ...


@typing.overload
def step(
    inputs: None = None, outputs: Columns | None = None, *, step_type: Literal["generator"]
) -> Callable[[GeneratedRows], type[FunctionGeneratorStep]]: ...


def step(
    inputs: Columns | None = None, outputs: Columns | None = None, step_type: StepType = "normal"
) -> Callable[[Callable[..., Any]], type[Any]]:
    """Make a Step of a function that takes rows and yields lists of rows.

    The function's arguments with a default, those after a `*`, and those annotated with
    `RuntimeParameter[...]` become fields of the step: its parameters. They are described by the
    `Args:` of the docstring. The other arguments take rows, one per step before it. The class and,
    in snake case, its steps are named after the function.

    Args:
        inputs: the columns that the step reads.
        outputs: the columns that it adds.
        step_type: `normal`; `global`, to get all rows at once; or `generator`, to make rows: it yields pairs of
            rows and whether they are the last. A generator that takes `offset` leaves out that many rows itself.

    Raises:
        TypeError: the function's arguments don't fit the type of step.

    Example:
        >>> from tasks import step
        >>> @step(inputs=["text"], outputs=["text"])
        ... def cut(rows, length: int = 10):
        ...     '''Cut texts.
        ...
        ...     Args:
        ...         length: the most characters to keep.
        ...     '''
        ...     yield [{**row, "text": row["text"][:length]} for row in rows]
        >>> next(cut(length=4).process([{"text": "high tide"}]))
        [{'text': 'high'}]
    """
    if callable(inputs):
        raise TypeError("write `@step(inputs=[...], outputs=[...])`, with parentheses")
    if step_type not in BASES:
        raise TypeError(f"step_type: expected one of {', '.join(BASES)}, got {step_type!r}")
    if step_type == "generator" and inputs:
        raise TypeError(f"a generator reads no columns, got inputs={inputs!r}")

    def decorate(function: Callable[..., Any]) -> type[Any]:
        columns = {} if step_type == "generator" else {"input_columns": inputs or []}
        made = class_of(function, BASES[step_type], {**columns, "output_columns": outputs or []})
        taken = row_arguments(function, made.arguments)
        if step_type == "generator" and taken:
            raise TypeError(f"{function.__name__}: a generator gets no rows, so {taken[0]!r} needs a default")
        if step_type != "generator" and not taken:
            raise TypeError(f"{function.__name__}: it needs an argument that takes the rows")
        return made

    return decorate


BASES: dict[str, type[FunctionStep | FunctionGeneratorStep]] = {
    "normal": FunctionStep,
    "global": FunctionGlobalStep,
    "generator": FunctionGeneratorStep,
}


def task(
    inputs: Columns | None = None, outputs: Columns | None = None
) -> Callable[[Callable[..., Any]], type[FunctionTask]]:
    """Make a Task of a function that takes a generation and its row, and returns a dict of columns.

    The prompt stands in the docstring, between two lines `---`, as YAML: `user_message_template`, with
    the columns in braces, and, if wanted, `system_prompt`. Further arguments of the function
    become fields, as with `@step`. An exception in the function fails the row, with its message.

    Args:
        inputs: the columns that the prompt and the function read.
        outputs: the columns that the function returns.

    Raises:
        TypeError: the function doesn't take a generation and a row.
        ValueError: the docstring holds no prompt, or the prompt reads columns that aren't in `inputs`.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import task
        >>> @task(inputs=["topic"], outputs=["lines"])
        ... def poem(output, row):
        ...     '''
        ...     ---
        ...     system_prompt: You are a poet.
        ...     user_message_template: Write two lines about {topic}.
        ...     ---
        ...     '''
        ...     return {"lines": output.splitlines()}
        >>> poem(llm=OpenAILLM(model="gpt-4o-mini")).prompt({"topic": "tides"})[1]
        {'role': 'user', 'content': 'Write two lines about tides.'}
    """
    if callable(inputs):
        raise TypeError("write `@task(inputs=[...], outputs=[...])`, with parentheses")
    columns = {"input_columns": inputs or [], "output_columns": outputs or []}

    def decorate(function: Callable[..., Any]) -> type[FunctionTask]:
        prompt = prompt_in(function)
        template = prompt["user_message_template"]
        check_template(function.__name__, template, inputs or [])
        system_prompt = copy.copy(Task.model_fields["system_prompt"])
        system_prompt.default = prompt.get("system_prompt")
        made = class_of(
            function,
            FunctionTask,
            {**columns, "user_message_template": template},
            {"system_prompt": (system_prompt.annotation, system_prompt)},
        )
        taken = row_arguments(function, made.arguments)
        if len(taken) != 2:
            raise TypeError(f"{function.__name__}: expected two arguments, for a generation and its row, got {taken!r}")
        return made

    return decorate


def class_of(
    function: Callable[..., Any],
    base: type[S],
    attributes: Mapping[str, Any],
    more_fields: Mapping[str, Any] | None = None,
) -> type[S]:
    """The class named after a function, with the function's own fields. Raises TypeError."""
    fields = fields_of(function, base)
    made = create_model(
        function.__name__,
        __base__=base,
        __module__=function.__module__,
        __doc__=function.__doc__,
        **cast("dict[str, Any]", {**fields, **(more_fields or {})}),
    )
    # So that it's found, and pickled, where the function's name points to.
    made.__qualname__ = function.__qualname__
    for name, value in {"function": staticmethod(function), "arguments": tuple(fields), **attributes}.items():
        setattr(made, name, value)
    return made


def fields_of(function: Callable[..., Any], base: type[Step]) -> dict[str, tuple[Any, FieldInfo]]:
    """The arguments of a function that are parameters, as pydantic's fields. Raises TypeError."""
    descriptions = argument_descriptions(function)
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    for name, argument in inspect.signature(function).parameters.items():
        hint = hint_of(function, name)
        if not is_field(argument, hint) or (name == "offset" and issubclass(base, GeneratorStep)):
            continue
        if name.startswith("_") or hasattr(base, name) or name in base.model_fields:
            raise TypeError(f"{function.__name__}: a step has a {name!r} of its own; give the argument another name")
        fields[name] = field_of(argument, hint, descriptions.get(name))
    return fields


def is_field(argument: inspect.Parameter, hint: Any) -> bool:
    """Whether an argument is a parameter of the step, and takes no rows."""
    if argument.kind in {argument.VAR_KEYWORD, argument.VAR_POSITIONAL}:
        return False
    has_default = argument.default is not argument.empty
    return has_default or argument.kind is argument.KEYWORD_ONLY or is_runtime_parameter(hint)


def field_of(argument: inspect.Parameter, hint: Any, description: str | None) -> tuple[Any, FieldInfo]:
    """The annotation and the field of an argument."""
    default: Any = ... if argument.default is argument.empty else argument.default
    if is_runtime_parameter(hint):
        hint = get_args(hint)[0] | None
        default = None if default is ... else default
    if isinstance(default, FieldInfo):
        return hint, default
    if description is None or has_description(hint):
        return hint, cast("FieldInfo", Field(default=default))
    return hint, cast("FieldInfo", Field(default=default, description=description))


def row_arguments(function: Callable[..., Any], fields: tuple[str, ...]) -> list[str]:
    """The arguments that take rows, not parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [
        each.name
        for each in parameters
        if each.name not in {*fields, "offset"} and each.kind is not inspect.Parameter.VAR_KEYWORD
    ]


def hint_of(function: Callable[..., Any], name: str) -> Any:
    """The annotation of an argument, or Any where it has none or one whose names aren't there at run time."""
    target = inspect.unwrap(function)
    alone = SimpleNamespace(__annotations__={name: target.__annotations__.get(name, Any)})
    try:
        return typing.get_type_hints(alone, target.__globals__, include_extras=True)[name]
    except (NameError, TypeError, AttributeError):
        return Any


def is_runtime_parameter(hint: Any) -> bool:
    """Whether an annotation is `RuntimeParameter[...]`."""
    if get_origin(hint) is RuntimeParameter:
        return True
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(mark, FieldInfo) and not mark.is_required() for mark in marks)


def arguments_of(step: Step, names: tuple[str, ...]) -> dict[str, Any]:
    """The function's arguments, as the step's fields have them."""
    return {name: getattr(step, name) for name in names}


def left_out(batches: GeneratorStepOutput, offset: int) -> GeneratorStepOutput:
    """The batches without their first `offset` rows."""
    for rows, last in batches:
        kept = rows[offset:]
        offset = max(offset - len(rows), 0)
        if kept or last:
            yield kept, last


def prompt_in(function: Callable[..., Any]) -> dict[str, str]:
    """The prompt in a function's docstring. Raises ValueError."""
    name = function.__name__
    found = re.search(r"^---[ \t]*\n(.*?)^---[ \t]*$", inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(
            f"{name}: its docstring needs the prompt between two lines `---`, as YAML:"
            " `user_message_template` and, if wanted, `system_prompt`"
        )
    try:
        given: object = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: the prompt in its docstring isn't YAML: {error}") from None
    texts = cast("dict[str, object]", given) if isinstance(given, dict) else {}
    known = {"user_message_template", "system_prompt"}
    for key, text in texts.items():
        if key not in known:
            raise ValueError(f"{name}'s docstring: {unknown_name_message(str(key), known, 'a prompt')}")
        if not isinstance(text, str):
            raise ValueError(f"{name}'s docstring: {key} must be a text, got {short(text)}")
    if "user_message_template" not in texts:
        raise ValueError(f"{name}: the prompt in its docstring has no `user_message_template`")
    return {key: str(text).strip() for key, text in texts.items()}


def check_template(name: str, template: str, columns: Columns) -> None:
    """Raises ValueError where a template isn't one, or reads what isn't among the columns."""
    try:
        used = {re.split(r"[.\[]", field)[0] for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{name}: user_message_template: {error}. A brace that is text is written twice") from None
    unknown = sorted(used - set(columns))
    if unknown:
        raise ValueError(
            f"{name}: user_message_template reads {unknown!r}, which isn't among its inputs {list(columns)!r}."
            " A brace that is text is written twice"
        )
