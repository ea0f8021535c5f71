"""Math-Shepherd: solutions in steps, and each step labelled by whether solutions that begin with it come out right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field

from llms.parameters import ParameterError, short
from llms.quantities import quantity
from llms.typing import ChatItem, ChatType, FormattedInput, GenerateOutput, JSONSchema
from tasks.base import Answer, Task, UnreadableAnswerError, all_taken, failed, summed
from tasks.cells import list_in, text_in
from tasks.math.math_answers import same_answer
from tasks.math.math_solutions import (
    ANSWER_IS,
    Solution,
    final_answer,
    golden_answer,
    in_json,
    key_of,
    read_solutions,
    solution_of,
    solution_schema,
    solutions_of,
    solutions_schema,
)
from tasks.rows.formatting import Format
from tasks.templates import render
from tasks.typing import Ask, Columns, Row

TRIES = 3
"""How often completions are asked for in place of those that came to no final answer."""

ExtraRules: TypeAlias = Annotated[
    str, Field(title="Extra rules", description="Put into the prompt, such as: Write calculations as <<2*3=6>>6.")
]


class MathShepherdGenerator(Task):
    """Solves a mathematical problem in steps: once for the golden solution, or `M` times for solutions to be labelled.

    With `M` the solutions are asked for in one request. For samples that are independent of each other, as in the
    paper, leave `M` empty, set `num_generations` and `group_generations`, and write `golden_solution` to the column
    `solutions` (`output_mappings`).

    Input columns:
        instruction: the problem.

    Output columns:
        golden_solution (without `M`): the solution, a list of texts: `Step 1: ...` and so on, and `The answer is: ...`.
        solutions (with `M`): a list of `M` such solutions.
        model_name: the model that solved it.

    Source: Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations
    (https://arxiv.org/abs/2312.08935).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import MathShepherdGenerator
        >>> task = MathShepherdGenerator(llm=OpenAILLM(model="gpt-4o"))
        >>> row = {"instruction": "A crate holds 12 bottles. How many bottles are in 3 crates, if 2 are missing?"}
        >>> task.format_output('''Step 1: The crates have room for 3 * 12 = 36 bottles.
        ... Step 2: Two are missing: 36 - 2 = 34. **The answer is: 34**''', row)["golden_solution"][1:]
        ['Step 2: Two are missing: 36 - 2 = 34.', 'The answer is: 34']
    """

    form_first = ("llm", "M")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    M: Annotated[
        int | None, Field(ge=1, title="Solutions", description="How many to write. Empty: the golden solution.")
    ] = None
    extra_rules: ExtraRules = ""

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("math_shepherd/generator",)

    @property
    def inputs(self) -> Columns:
        return ["instruction"]

    @property
    def outputs(self) -> Columns:
        return ["solutions" if self.M else "golden_solution", "model_name"]

    def format_input(self, input: Row) -> ChatType:
        prompt = render(
            "math_shepherd/generator",
            instruction=text_in(input, "instruction"),
            count=self.M,
            extra_rules=self.extra_rules,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return solutions_schema(self.M) if self.M else solution_schema()

    def format_output(self, output: str | None, input: Row) -> Row:
        solutions = [solution.items() for solution in read_solutions(output or "", self.M or 1)]
        return {"solutions": solutions} if self.M else {"golden_solution": solutions[0]}

    def format_example(self, example: Row) -> str:
        structured = self.wanted_schema() is not None
        if not self.M:
            return written(solution_of(example["golden_solution"], "examples"), structured=structured)
        solutions = list(enumerate(solutions_of(example), 1))
        if structured:
            return json.dumps({key_of(number): in_json(each) for number, each in solutions}, ensure_ascii=False)
        return "\n\n".join(f"Solution {number}\n{written(each)}" for number, each in solutions)


def written(solution: Solution, *, structured: bool = False) -> str:
    """A solution as an answer that a prompt asks for."""
    return json.dumps(in_json(solution), ensure_ascii=False) if structured else "\n".join(solution.items())


def two_tags(tags: list[str]) -> list[str]:
    """Raises ValueError where the tags can't be told apart, or from a step's words."""
    if len(set(tags)) != 2 or any(not tag or tag != "".join(tag.split()) for tag in tags):
        raise ValueError(f"expected two different tags without spaces, for good and bad steps, got {tags!r}")
    return tags


Tags: TypeAlias = Annotated[
    list[str],
    AfterValidator(two_tags),
    Field(min_length=2, max_length=2, title="Tags", description="Of a good step and of a bad one."),
]

Prefix: TypeAlias = tuple[str, ...]


@dataclass
class Completions:
    """What was asked to complete the beginning of a solution, and what came of it."""

    prompt: FormattedInput
    texts: list[str | None] = field(default_factory=list[str | None])
    reached: list[bool] = field(default_factory=list[bool])
    """Of each completion with a final answer, whether it's the golden one."""
    taken: list[Answer] = field(default_factory=list[Answer])
    """What each of them took, and how it ended."""

    @property
    def chat(self) -> Any:
        return self.prompt[0] if isinstance(self.prompt, tuple) else self.prompt

    @property
    def share(self) -> float:
        """Of the completions, those that reached the golden answer."""
        return sum(self.reached) / len(self.reached) if self.reached else 0.0

    def add(self, output: GenerateOutput, golden: str) -> None:
        self.texts += output["generations"]
        answers = [final_answer(text or "") for text in output["generations"]]
        self.reached += [same_answer(answer, golden) for answer in answers if answer is not None]
        self.taken += all_taken(output)


class MathShepherdCompleter(Task):
    """Labels each step of solutions as good or bad: good, where a completion from there reaches the golden answer.

    `N` completions are asked for after each step but the last, which the solution's own answer settles. Solutions
    that begin with the same steps share their completions. A completion without a final answer is asked for again,
    twice at most, unless a step is known to be good already; then the row fails.

    Final answers are compared by their values: `1,000`, `$1000` and `1000 dollars` are the same, and so are `0.5` and
    `\\frac{1}{2}` (`tasks.math.math_answers.same_answer` has the rules). Nothing that a model wrote is run.

    Input columns:
        instruction: the problem.
        solutions: a list of solutions, each a list of steps with `The answer is: ...` in its last item; also as JSON.
        golden_solution: the right solution, in the same form; or its answer alone.

    Output columns:
        solutions: the solutions, each step with ` +` or ` -` at its end. The answer has become part of the last step.
        scores (with `soft_estimation`): per solution and step, the share of completions that reach the golden answer.
        model_name: the model that completed them.

    Few-shot `examples` have the columns instruction and golden_solution: the first step is shown, and the rest is
    the answer.

    Source: Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations
    (https://arxiv.org/abs/2312.08935): hard estimation (equation 3), and soft (equation 4).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import MathShepherdCompleter
        >>> task = MathShepherdCompleter(llm=OpenAILLM(model="gpt-4o-mini"), N=4)
        >>> row = {
        ...     "instruction": "A crate holds 12 bottles. How many bottles are in 3 crates, if 2 are missing?",
        ...     "golden_solution": ["Step 1: 3 * 12 - 2 = 34.", "The answer is: 34"],
        ...     "solutions": [["Step 1: 3 * 12 = 36.", "Step 2: 36 + 2 = 38.", "The answer is: 38"]],
        ... }
        >>> task.format_output("Step 2: Two are missing: 36 - 2 = 34. The answer is: 34 bottles", row)
        {'solutions': [['Step 1: 3 * 12 = 36. +', 'Step 2: 36 + 2 = 38. The answer is: 38 -']]}
    """

    form_first = ("llm", "N", "soft_estimation")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    N: Annotated[int, Field(ge=1, title="Completions", description="How many after each step; 8 in the paper.")] = 8
    soft_estimation: Annotated[
        bool, Field(title="Scores", description="Add each step's share of completions that reach the golden answer.")
    ] = False
    tags: Tags = ["+", "-"]
    extra_rules: ExtraRules = ""

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("math_shepherd/completer",)

    @property
    def inputs(self) -> Columns:
        return ["instruction", "solutions", "golden_solution"]

    @property
    def outputs(self) -> Columns:
        return ["solutions", *(["scores"] if self.soft_estimation else []), "model_name"]

    def format_input(self, input: Row) -> ChatType:
        """What is asked after the first step of the first solution; of an example, of its golden solution."""
        given = solutions_of(input) if "solutions" in input else [solution_of(input["golden_solution"], "examples")]
        prefixes = prefixes_of(given)
        if not prefixes:
            raise ValueError(f"solutions: none has a step before its last one, got {short(input.get('solutions'))}")
        return self.chat_after(text_in(input, "instruction"), prefixes[0])

    def chat_after(self, instruction: str, steps: Prefix) -> ChatType:
        prompt = render(
            "math_shepherd/completer",
            instruction=instruction,
            steps=steps,
            next=len(steps) + 1,
            extra_rules=self.extra_rules,
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return solution_schema()

    def format_output(self, output: str | None, input: Row) -> Row:
        """The columns, if all completions are `output`. Those of different ones are made in `converse`."""
        answer = final_answer(output or "")
        if answer is None:
            raise UnreadableAnswerError(f"expected {ANSWER_IS!r} and the answer at the end, got {short(output)}")
        solutions, golden = solutions_of(input), golden_answer(input)
        share = float(same_answer(answer, golden))
        return self.labelled(solutions, golden, dict.fromkeys(prefixes_of(solutions), share))

    def format_example(self, example: Row) -> str:
        whole = solution_of(example["golden_solution"], "examples")
        return written(Solution(whole.steps[1:], whole.answer), structured=self.wanted_schema() is not None)

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        return [await self._labelled(row, ask) for _ in range(self.num_generations)]

    async def _labelled(self, row: Row, ask: Ask) -> Answer:
        """One answer, of completions of its own."""
        solutions, golden = solutions_of(row), golden_answer(row)
        begun = self._begun(row)
        asked = (self._complete(completions, golden, ask) for completions in begun.values())
        for problem in await asyncio.gather(*asked, return_exceptions=True):
            if problem is not None:
                raise problem
        answer = replace(
            summed([taken for each in begun.values() for taken in each.taken]),
            raw_input=[each.chat for each in begun.values()],
            raw_output=[each.texts for each in begun.values()],
        )
        open_ones = [(steps, each) for steps, each in begun.items() if not self._is_settled(each)]
        if open_ones:
            steps, completions = open_ones[0]
            count, readable = len(completions.texts), len(completions.reached)
            wanted, got = quantity(self.N, "final answer"), f"{readable} of {quantity(count, 'completion')}"
            problem = f"expected {wanted} after {short(steps[-1])}, got {got}"
            return failed(answer, UnreadableAnswerError(problem))
        shares = {steps: completions.share for steps, completions in begun.items()}
        return replace(answer, columns=self.labelled(solutions, golden, shares))

    def _begun(self, row: Row) -> dict[Prefix, Completions]:
        """What there is to complete in a row, with the prompts, in the order of asking."""
        instruction = text_in(row, "instruction")
        prefixes = prefixes_of(solutions_of(row))
        return {steps: Completions(self.dressed(self.chat_after(instruction, steps))) for steps in prefixes}

    async def _complete(self, completions: Completions, golden: str, ask: Ask) -> None:
        for _ in range(TRIES):
            completions.add(await ask(completions.prompt, self.N - len(completions.reached)), golden)
            if self._is_settled(completions):
                return

    def _is_settled(self, completions: Completions) -> bool:
        enough = len(completions.reached) >= self.N
        return enough or (any(completions.reached) and not self.soft_estimation)

    def labelled(self, solutions: Sequence[Solution], golden: str, shares: Mapping[Prefix, float]) -> Row:
        """The columns, given the share of completions after each step that reached the golden answer."""
        scores = [
            [*(shares[steps] for steps in each.prefixes()), float(same_answer(each.answer, golden))]
            for each in solutions
        ]
        texts = [[*each.steps[:-1], f"{each.steps[-1]} {ANSWER_IS}{each.answer}"] for each in solutions]
        columns: Row = {
            "solutions": [
                [f"{step} {self.tags[0] if score else self.tags[1]}" for step, score in zip(steps, own, strict=True)]
                for steps, own in zip(texts, scores, strict=True)
            ]
        }
        return {**columns, "scores": scores} if self.soft_estimation else columns

    def _raw_input(self, row: Row) -> Any:
        return [each.chat for each in self._begun(self.seen(row)).values()]

    def _offline_asks(self, rows: Sequence[Row]) -> dict[int, Ask]:
        raise ParameterError(
            f"{self.name} asks in several rounds, each a batch job: that needs a flow. Use"
            " `collect(load(rows).map(task))` from `flows`, or set use_offline_batch_generation=False"
        )


def prefixes_of(solutions: Sequence[Solution]) -> list[Prefix]:
    """The beginnings of all solutions, each once."""
    return list(dict.fromkeys(steps for each in solutions for steps in each.prefixes()))


class FormatPRM(Format):
    """A labelled solution in a format that process reward models are trained on.

    `math-shepherd`: the format of the dataset of the paper, for models that read a step's score at a token of its
    own. The steps follow the problem after a space, each on a line; each ends with a space and `step_token` in
    `input`, and with a space and its tag in `label`. A row that holds the token already fails: a score would be read
    there too.

    `trl`: the stepwise supervision of TRL's `PRMTrainer`.

    Input columns:
        instruction: the problem.
        solutions: one labelled solution, a list of steps. `ExpandColumns` makes a row per solution.

    Output columns:
        input, label (math-shepherd): the solution with the token, and with the tags.
        prompt, completions, labels (trl): the problem, the steps without tags, and True for each good one.

    Source: Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations
    (https://arxiv.org/abs/2312.08935); the formats are those of https://huggingface.co/datasets/peiyi9979/Math-Shepherd
    and https://huggingface.co/docs/trl/dataset_formats#stepwise-supervision.

    Example:
        >>> from tasks import FormatPRM
        >>> row = {
        ...     "instruction": "How many bottles are in 3 crates of 12, if 2 are missing?",
        ...     "solutions": ["Step 1: 3 * 12 = 36. +", "Step 2: 36 + 2 = 38. The answer is: 38 -"],
        ... }
        >>> (made,) = next(FormatPRM().process([row]))
        >>> print(made["input"])
        How many bottles are in 3 crates of 12, if 2 are missing? Step 1: 3 * 12 = 36. ки
        Step 2: 36 + 2 = 38. The answer is: 38 ки
        >>> (made,) = next(FormatPRM(format="trl").process([row]))
        >>> made["completions"], made["labels"]
        (['Step 1: 3 * 12 = 36.', 'Step 2: 36 + 2 = 38. The answer is: 38'], [True, False])
    """

    format: Annotated[Literal["math-shepherd", "trl"], Field(title="Format")] = "math-shepherd"
    step_token: Annotated[
        str, Field(min_length=1, title="Step token", description="Of math-shepherd: where a step's score is read.")
    ] = "ки"
    tags: Tags = ["+", "-"]

    @property
    def inputs(self) -> Columns:
        return ["instruction", "solutions"]

    @property
    def outputs(self) -> Columns:
        return ["prompt", "completions", "labels"] if self.format == "trl" else ["input", "label"]

    def format_row(self, row: Row) -> Row:
        instruction, steps = text_in(row, "instruction"), self._steps(row)
        if self.format == "trl":
            return {
                "prompt": instruction,
                "completions": [text for text, _ in steps],
                "labels": [tag == self.tags[0] for _, tag in steps],
            }
        if any(self.step_token in text for text in (instruction, *(text for text, _ in steps))):
            raise ValueError(f"the problem or a step holds {self.step_token!r} itself; choose another step_token")
        return {
            "input": f"{instruction} " + "\n".join(f"{text} {self.step_token}" for text, _ in steps),
            "label": f"{instruction} " + "\n".join(f"{text} {tag}" for text, tag in steps),
        }

    def _steps(self, row: Row) -> list[tuple[str, str]]:
        """The steps, each as text and tag. Raises ValueError where one has no tag."""
        steps = list_in(row, "solutions")
        if not steps or isinstance(steps[0], list):
            hint = "; a row per solution is made by `ExpandColumns`" if steps else ""
            raise ValueError(f"solutions: expected a labelled solution, a list of steps, got {short(steps)}{hint}")
        parted = [str(step).rstrip().rpartition(" ") for step in steps]
        wrong = next((step for step, (_, _, tag) in zip(steps, parted, strict=True) if tag not in self.tags), None)
        if wrong is not None:
            raise ValueError(
                f"solutions: expected {' or '.join(map(repr, self.tags))} at each step's end, got {short(wrong)}"
            )
        return [(text.rstrip(), tag) for text, _, tag in parted]
