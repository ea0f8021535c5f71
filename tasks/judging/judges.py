"""Judges: an LLM picks the better of two answers in both orders, or scores an answer by several criteria."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llms.parameters import short
from llms.typing import ChatItem, FormattedInput, GenerateOutput, JSONSchema
from tasks.base import Answer, Task, UnreadableAnswerError, answered_by, summed
from tasks.cells import text_in, texts_in
from tasks.reading.labelled import LABEL, bare, letter_of, reason_and_score, reason_and_score_of, without_opening
from tasks.reading.replies import closed_object, list_in, object_in, without_fences, without_thoughts
from tasks.steps import failure_in
from tasks.templates import render
from tasks.typing import Ask, Columns, Row

Reference: TypeAlias = Annotated[
    bool, Field(title="Reference answers", description="Show the column `reference`, the answer to compare with.")
]

TIE = "tie"
OTHER = {"A": "B", "B": "A", TIE: TIE}
"""A verdict as it reads when the answers change places."""
RATINGS = {"A": [1.0, 0.0], "B": [0.0, 1.0], TIE: [0.5, 0.5]}


class PairwiseJudge(Task):
    """Picks the better of two answers, asked in both orders: only a preference that holds in both counts.

    Judges favour the answer in one place, often the first. A preference that turns around with the order is a tie.

    Input columns:
        instruction: the prompt that was answered.
        generations: two answers.
        reference (with `reference`): an answer known to be good.

    Output columns:
        preferred: `A` for the first answer, `B` for the second, or `tie`.
        verdicts: the verdict in each order, in terms of the row's own order: `["A", "B"]` is a change of mind.
        rationales: the reason for each verdict. In the second one, A and B have changed places.
        ratings: 1.0 for the preferred answer and 0.0 for the other, or 0.5 for each; as preference formats take them.
        model_name: the model that judged.

    With `swap_positions` off it asks once. With it on, prompts and raw answers in the metadata are lists of two.

    Source: Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (https://arxiv.org/abs/2306.05685), section 3.4.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import PairwiseJudge
        >>> task = PairwiseJudge(llm=OpenAILLM(model="gpt-4o-mini"), swap_positions=False)
        >>> row = {"instruction": "How high is K2?", "generations": ["High.", "8,611 m."]}
        >>> task.format_output("Rationale: Only B answers.\\nVerdict: B", row)
        {'preferred': 'B', 'verdicts': ['B'], 'rationales': ['Only B answers.'], 'ratings': [0.0, 1.0]}
    """

    form_first = ("llm", "criteria")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    criteria: Annotated[
        str, Field(min_length=1, title="Criteria", description="What makes an answer the better one.")
    ] = (
        "The better answer does what was asked, is correct, and is of more use to the person who asked."
        " Weigh also whether it goes as deep as the question deserves, and whether it is clear."
    )
    swap_positions: Annotated[
        bool, Field(title="Ask in both orders", description="Two requests per row; a verdict must hold in both.")
    ] = True
    reference: Reference = False

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("judges/pairwise",)

    @property
    def inputs(self) -> Columns:
        return ["instruction", "generations", *(["reference"] if self.reference else [])]

    @property
    def outputs(self) -> Columns:
        return ["preferred", "verdicts", "rationales", "ratings", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "judges/pairwise",
            criteria=self.criteria,
            instruction=text_in(input, "instruction"),
            reference=text_in(input, "reference") if self.reference else None,
            generations=texts_in(input, "generations", 2),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        verdict = {"type": "string", "enum": ["A", "B", TIE]}
        return closed_object({"rationale": {"type": "string"}, "verdict": verdict}, title="comparison")

    def format_output(self, output: str | None, input: Row) -> Row:
        """The columns from the verdict in one order, the row's own."""
        rationale, verdict = rationale_and_verdict(output or "")
        return {
            "preferred": verdict,
            "verdicts": [verdict],
            "rationales": [rationale],
            "ratings": list(RATINGS[verdict]),
        }

    def format_example(self, example: Row) -> str:
        """The answer that an example shows: its first rationale, and what it prefers."""
        rationale, verdict = example["rationales"][0], example["preferred"]
        if self.wanted_schema() is not None:
            return json.dumps({"rationale": rationale, "verdict": verdict}, ensure_ascii=False)
        return f"Rationale: {rationale}\nVerdict: {verdict}"

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        orders = self._orders(row)
        prompts = [self.prompt(order) for order in orders]
        outputs = await asyncio.gather(*(ask(prompt, self.num_generations) for prompt in prompts))
        read = [
            [self.read(text, order, prompt, output, place) for place, text in enumerate(output["generations"])]
            for order, prompt, output in zip(orders, prompts, outputs, strict=True)
        ]
        return [of_both_orders(answers) for answers in zip(*read, strict=True)]

    def _orders(self, row: Row) -> list[Row]:
        if not self.swap_positions:
            return [row]
        return [row, {**row, "generations": texts_in(row, "generations", 2)[::-1]}]

    def _offline_asks(self, rows: Sequence[Row]) -> dict[int, Ask]:
        # Both orders of all rows go into the same batch jobs.
        prompts: list[tuple[int, FormattedInput]] = []
        for place, row in enumerate(rows):
            # A row without a prompt fails when it's answered.
            with contextlib.suppress(Exception):
                if failure_in(row) is None:
                    prompts += [(place, self.prompt(order)) for order in self._orders(self.seen(row))]
        outputs = self.llm.generate_outputs([prompt for _, prompt in prompts], self.num_generations)
        by_row: dict[int, list[Ask]] = {}
        for (place, prompt), output in zip(prompts, outputs, strict=True):
            by_row.setdefault(place, []).append(answered_by(prompt, output))
        return {place: answered_in_turn(those) for place, those in by_row.items()}


def answered_in_turn(asks: Sequence[Ask]) -> Ask:
    """An `Ask` that has the answers to all that it will be asked, in that order."""
    left = iter(asks)

    async def ask(prompt: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return await next(left)(prompt, num_generations)

    return ask


def of_both_orders(answers: Sequence[Answer]) -> Answer:
    """One answer from those in the row's order and in the other. What isn't the same in both is a tie."""
    if len(answers) == 1:
        return answers[0]
    failure = next((answer.failure for answer in answers if answer.failure is not None), None)
    columns: Row = {}
    if failure is None:
        verdicts = [answers[0].columns["preferred"], OTHER[answers[1].columns["preferred"]]]
        preferred = verdicts[0] if verdicts[0] == verdicts[1] else TIE
        columns = {
            "preferred": preferred,
            "verdicts": verdicts,
            "rationales": [rationale for answer in answers for rationale in answer.columns["rationales"]],
            "ratings": list(RATINGS[preferred]),
        }
    return replace(
        summed(answers),
        columns=columns,
        raw_input=[answer.raw_input for answer in answers],
        raw_output=[answer.raw_output for answer in answers],
        failure=failure,
    )


VERDICT = re.compile(
    r"^[ \t>#*_`•+-]*(?:(?:my|the|final|overall)\s+)*(?:verdict|winner|decision|judge?ment|choice|preference"
    r"|(?:better|preferred)\s+(?:answer|response))[*_`]*\s*(?:[:=]|(?P<sentence>is\b))(?P<verdict>.+)$",
    re.IGNORECASE | re.MULTILINE,
)
DOUBLE_BRACKETS = re.compile(r"\[\[\s*(?P<verdict>[AB]|tie)\s*\]\]", re.IGNORECASE)
TIE_SAID = re.compile(
    r"^[\W_]*(?:(?:it(?:'s|\s+is)|a)\s+)*(?:tied?|draw|equal(?:ly\s+good)?|both\s+(?:are\s+)?equal(?:ly\s+good)?|neither)"
    r"[\s*_`)\]\"'>]*(?:$|[.,;(])",
    re.IGNORECASE,
)


def rationale_and_verdict(text: str) -> tuple[str, str]:
    """The rationale and the verdict, `A`, `B` or `tie`, in a reply as text or as JSON. Raises UnreadableAnswerError."""
    said = without_fences(without_thoughts(text))
    lines = [] if said.startswith("{") else list(VERDICT.finditer(said))
    found = [line for line in lines if not line["sentence"]] or list(DOUBLE_BRACKETS.finditer(said)) or lines
    if not found and "{" in said:
        record = object_in(said, "rationale", "verdict")
        rationale, verdict = record["rationale"], record["verdict"]
    elif len(found) == 1:
        rationale = without_opening(f"{said[: found[0].start()]}{said[found[0].end() :]}")
        verdict = found[0]["verdict"].strip()
    else:
        raise UnreadableAnswerError(f"expected one verdict, found {len(found)} in {short(text)}")
    if not isinstance(rationale, str) or not rationale:
        raise UnreadableAnswerError(f"expected a rationale beside the verdict, got {short(text)}")
    if isinstance(verdict, str) and TIE_SAID.match(verdict):
        return rationale, TIE
    return rationale, letter_of(verdict, "verdict")


class Criterion(BaseModel):
    """What an answer is scored for, and on what scale."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_-]{1,64}$",
            title="Name",
            description="The key of its score: letters, digits, `_` and `-`.",
        ),
    ]
    description: Annotated[str, Field(min_length=1, title="Description", description="What deserves a high score.")]
    lowest: Annotated[int, Field(ge=0, title="Lowest score")] = 1
    highest: Annotated[int, Field(le=100, title="Highest score")] = 5
    weight: Annotated[float, Field(gt=0, title="Weight", description="In the overall score.")] = 1.0

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"{self.name}: expected `lowest` below `highest`, got {self.lowest} and {self.highest}")
        return self


class RubricJudge(Task):
    """Scores an answer by several criteria, each on a scale of its own, with reasons, all in one request.

    Input columns:
        instruction: the prompt that was answered.
        generation: the answer.
        reference (with `reference`): an answer known to be good.

    Output columns:
        scores: a dict with a whole number for each criterion, by its name.
        rationales: a dict with the reason for each score.
        overall_score: the weighted mean of the scores, each put on a scale from 0 (its lowest) to 1 (its highest).
        model_name: the model that scored.

    Source: Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (https://arxiv.org/abs/2306.05685), on grading a
    single answer; Prometheus 2 (https://arxiv.org/abs/2405.01535), on criteria of one's own.

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import Criterion, RubricJudge
        >>> criteria = [
        ...     Criterion(name="correct", description="What it states is true.", weight=3),
        ...     Criterion(name="short", description="It wastes no words.", lowest=0, highest=10),
        ... ]
        >>> task = RubricJudge(llm=OpenAILLM(model="gpt-4o-mini"), criteria=criteria)
        >>> row = {"instruction": "How high is K2?", "generation": "It's 8,611 m high, which is a lot."}
        >>> columns = task.format_output('''{"correct": {"rationale": "It is right.", "score": 5},
        ...     "short": {"rationale": "Four words too many.", "score": 6}}''', row)
        >>> columns["scores"], columns["overall_score"]
        ({'correct': 5, 'short': 6}, 0.9)
    """

    form_first = ("llm", "criteria")
    use_default_structured_output: Annotated[
        bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
    ] = True
    criteria: Annotated[
        list[Criterion], Field(min_length=1, title="Criteria", description="What the answer is scored for.")
    ] = [
        Criterion(name="correctness", description="What it states is true, and its reasoning holds."),
        Criterion(name="completeness", description="It does all that was asked, as deep as the question deserves."),
        Criterion(name="clarity", description="It is easily followed, well arranged and without waste."),
    ]
    reference: Reference = False

    @field_validator("criteria")
    @classmethod
    def _check_names(cls, criteria: list[Criterion]) -> list[Criterion]:
        names = [criterion.name for criterion in criteria]
        if len({bare(name) for name in names}) < len(names):
            raise ValueError(f"criteria: expected names that differ in more than case and dashes, got {names!r}")
        return criteria

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("judges/rubric",)

    @property
    def inputs(self) -> Columns:
        return ["instruction", "generation", *(["reference"] if self.reference else [])]

    @property
    def outputs(self) -> Columns:
        return ["scores", "rationales", "overall_score", "model_name"]

    def format_input(self, input: Row) -> FormattedInput:
        prompt = render(
            "judges/rubric",
            criteria=self.criteria,
            instruction=text_in(input, "instruction"),
            reference=text_in(input, "reference") if self.reference else None,
            generation=text_in(input, "generation"),
            structured=self.wanted_schema() is not None,
        )
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return closed_object({each.name: criterion_schema(each) for each in self.criteria}, title="scores")

    def format_output(self, output: str | None, input: Row) -> Row:
        found = parse_criteria(output or "", self.criteria)
        return {
            "scores": {name: score for name, (_, score) in found.items()},
            "rationales": {name: rationale for name, (rationale, _) in found.items()},
            "overall_score": overall_score({name: score for name, (_, score) in found.items()}, self.criteria),
        }

    def format_example(self, example: Row) -> str:
        told = [(each.name, example["rationales"][each.name], example["scores"][each.name]) for each in self.criteria]
        if self.wanted_schema() is not None:
            return json.dumps(
                {name: {"rationale": why, "score": score} for name, why, score in told}, ensure_ascii=False
            )
        return "\n\n".join(f"Criterion: {name}\nRationale: {why}\nScore: {score}" for name, why, score in told)


def criterion_schema(criterion: Criterion) -> JSONSchema:
    score = {"type": "integer", "enum": list(range(criterion.lowest, criterion.highest + 1))}
    return closed_object({"rationale": {"type": "string"}, "score": score})


def overall_score(scores: dict[str, int], criteria: Sequence[Criterion]) -> float:
    """The weighted mean of the scores, each put on a scale from 0 to 1."""
    parts = [each.weight * (scores[each.name] - each.lowest) / (each.highest - each.lowest) for each in criteria]
    return sum(parts) / sum(each.weight for each in criteria)


def parse_criteria(text: str, criteria: Sequence[Criterion]) -> dict[str, tuple[str, int]]:
    """The reason and the score for each criterion, in a reply as text or as JSON.

    Raises:
        UnreadableAnswerError: a criterion has no score, no reason, or two of them, or a score is off its scale.
    """
    said = without_fences(without_thoughts(text))
    parts = (records_in_json(said, criteria) if re.search(r"[{\[]", said) else []) or blocks_in_text(said, criteria)
    found: dict[str, Row | str] = dict(parts)
    if len(found) < len(parts):
        raise UnreadableAnswerError(f"expected one score for each criterion, got {[name for name, _ in parts]!r}")
    missing = [each.name for each in criteria if each.name not in found]
    if missing:
        raise UnreadableAnswerError(f"expected a score for each criterion, found none for {missing!r} in {short(text)}")
    return {each.name: reason_and_score_for(found[each.name], each) for each in criteria}


def reason_and_score_for(part: Row | str, criterion: Criterion) -> tuple[str, int]:
    scale = (criterion.lowest, criterion.highest, criterion.name)
    return reason_and_score(part, *scale) if isinstance(part, str) else reason_and_score_of(part, *scale)


def blocks_in_text(text: str, criteria: Sequence[Criterion]) -> list[tuple[str, str]]:
    """The criteria's names and the lines about each. A single criterion needs no name."""
    names = {bare(each.name): each.name for each in criteria}
    written = "|".join(re.sub(r"[_-]", r"[\\s_-]", name) for name in sorted(names.values(), key=len, reverse=True))
    header = re.compile(
        rf"^[\s>#*_`•+-]*+(?:\d+[.)]\s*+)?[\s*_`]*+(?:criterion\s*#?\d*[*_`]*\s*[:.–-]?\s*)?[*_`\"']*(?P<name>{written})"
        r"[*_`\"']*\s*(?:\([^)]*\))?[*_`]*\s*(?:$|[:=–—-]+[\s*_`]*(?P<rest>.*)$)",
        re.IGNORECASE,
    )
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        found = header.match(line)
        rest = (found["rest"] or "") if found else ""
        if found and (not rest or rest[0].isdigit() or LABEL.match(rest)):
            blocks.append((names[bare(found["name"])], [f"Score: {rest}" if rest[:1].isdigit() else rest]))
        else:
            blocks[-1][1].append(line)
    if len(blocks) == len(criteria) == 1:
        return [(criteria[0].name, text)]
    return [(name, "\n".join(lines)) for name, lines in blocks if name]


def records_in_json(text: str, criteria: Sequence[Criterion]) -> list[tuple[str, Row]]:
    """The criteria's names and the objects about each, in a reply in JSON; none where it isn't one."""
    value: Any = None
    with contextlib.suppress(UnreadableAnswerError):
        value = list_in(text) if text.startswith("[") else object_in(text)
    names = {bare(each.name): each.name for each in criteria}
    if isinstance(value, dict) and not any(bare(key) in names for key in cast("Row", value)):
        value = unwrapped(cast("Row", value))
    if isinstance(value, list):
        records = [cast("Row", each) for each in cast("list[Any]", value) if isinstance(each, dict)]
        found = [(bare(str(each.get("criterion", each.get("name", "")))), each) for each in records]
    elif isinstance(value, dict):
        found = [(bare(key), cast("Row", each)) for key, each in cast("Row", value).items() if isinstance(each, dict)]
    else:
        found = []
    return [(names[name], each) for name, each in found if name in names]


def unwrapped(record: Row) -> Any:
    """What an object holds that isn't about criteria itself: a list or an object of them, or one for each column."""
    inner: list[Any] = [each for each in record.values() if isinstance(each, dict | list)]
    if len(inner) == 1:
        return inner[0]
    scores, rationales = record.get("scores"), record.get("rationales")
    if isinstance(scores, dict) and isinstance(rationales, dict):
        reasons = cast("Row", rationales)
        return {name: {"score": score, "rationale": reasons.get(name)} for name, score in cast("Row", scores).items()}
    return record
