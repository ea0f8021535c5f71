"""Tasks that start from nothing: the roots of a pipeline whose rows a model writes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from llms.parameters import set_quietly
from tasks.base import Answer, Task
from tasks.sources.loaders import Loader
from tasks.steps import METADATA, GeneratorStep, Step
from tasks.typing import Columns, Row, StepInput, StepOutput


class GeneratorTask(Task):
    """A Task that takes no rows. It makes seeds of its own, and asks for each of them.

    Write `seed_rows`, `outputs`, `format_input` and `format_output`. In a flow, `load(task)` gives its rows; in a
    pipeline it is a root. Its requests are kept, batched and retried like those of any Task. A field that only
    says which seeds there are, and how many, is marked with `Unasked()`: another value of it then asks only for the
    seeds that are new.

    Example:
        >>> from typing import Annotated
        >>> from llms import OpenAILLM
        >>> from llms.parameters import Unasked
        >>> from tasks import GeneratorTask
        >>> class Riddles(GeneratorTask):
        ...     num_rows: Annotated[int, Unasked()] = 2
        ...
        ...     @property
        ...     def outputs(self):
        ...         return ["riddle", "model_name"]
        ...
        ...     def seed_rows(self):
        ...         return ({"number": number} for number in range(1, self.num_rows + 1))
        ...
        ...     def format_input(self, input):
        ...         return [{"role": "user", "content": f"Write riddle number {input['number']}."}]
        ...
        ...     def format_output(self, output, input):
        ...         return {"riddle": output}
        >>> riddles = Riddles(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> [riddles.prompt(seed)[0]["content"] for seed in riddles.seed_rows()]
        ['Write riddle number 1.', 'Write riddle number 2.']
    """

    input_mappings: Annotated[dict[str, str], Field(exclude=True)] = {}

    @abstractmethod
    def seed_rows(self) -> Iterator[Row]:
        """What `format_input` takes, one row per request. The same ones every time, and an end to them."""

    @property
    def inputs(self) -> Columns:
        return []

    def process(self, inputs: StepInput | None = None) -> StepOutput:
        """Make the rows now, outside of any flow.

        Args:
            inputs: seeds to make them from, in place of the Task's own.

        Yields:
            The rows with this Task's columns, `model_name` and `distilabel_metadata`.
        """
        yield from super().process(list(self.seed_rows()) if inputs is None else inputs)

    def added_columns(self, available: frozenset[str]) -> frozenset[str]:
        return super().added_columns(frozenset())

    def assemble(self, row: Row, answers: Sequence[Answer]) -> list[Row]:
        """The rows of one seed. The seed's columns have done their duty."""
        seed = {name: value for name, value in row.items() if name == METADATA}
        return super().assemble(seed, answers)


class SeedRows(Loader):
    """The seeds of a `GeneratorTask`: what stands before it in a flow.

    Output columns:
        those of the Task's seeds.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks.sources.generators import GeneratorTask, SeedRows
        >>> class Riddle(GeneratorTask):
        ...     def seed_rows(self):
        ...         yield {"number": 1}
        ...
        ...     @property
        ...     def outputs(self):
        ...         return ["riddle", "model_name"]
        ...
        ...     def format_input(self, input):
        ...         return [{"role": "user", "content": "Write a riddle."}]
        ...
        ...     def format_output(self, output, input):
        ...         return {"riddle": output}
        >>> next(SeedRows(task=Riddle(llm=OpenAILLM(model="gpt-4o-mini"))).process())
        ([{'number': 1}], True)
    """

    task: Annotated[GeneratorTask, Field(exclude=True)]

    def model_post_init(self, context: Any, /) -> None:
        # In a pipeline its Task is the step.
        set_quietly(self, "name", f"{self.task.name}-seeds")

    def rows(self, offset: int) -> Iterator[Row]:
        return islice(self.task.seed_rows(), offset, None)

    def columns(self) -> frozenset[str] | None:
        return frozenset(next(self.task.seed_rows(), ())) or None

    def __str__(self) -> str:
        return f"seed_rows of {self.task.name!r}"


def makes_rows(step: Step) -> bool:
    """Whether a step takes no rows: a root of a pipeline."""
    return isinstance(step, GeneratorStep | GeneratorTask)
