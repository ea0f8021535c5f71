"""Triplets for embedding models, written by an LLM from nothing: two texts that are close, and one that is less so."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from llms.parameters import Unasked
from llms.typing import ChatItem, ChatType, JSONSchema
from tasks.reading.replies import check_opposed, texts_in, texts_schema
from tasks.retrieval.text_embedding_data import ANY, AsJSON, Language, Seed, language_for, options_for
from tasks.sources.generators import GeneratorTask
from tasks.templates import render
from tasks.typing import Columns, Row

Unit: TypeAlias = Literal["sentence", "phrase", "passage"]
Difficulty: TypeAlias = Literal["elementary school", "high school", "college"]
HighScore: TypeAlias = Literal["4", "4.5", "5"]
LowScore: TypeAlias = Literal["2.5", "3", "3.5"]
LowQuality: TypeAlias = Literal["1.5", "2", "2.5", "3", "3.5"]

TEXTS = ("S1", "S2", "S3")


class TripletGenerator(GeneratorTask):
    """A Task that writes triplets. The base of those below.

    Write `languages`, `template_names`, and the field `low_score` with what it's drawn from, `low_scores`.
    """

    low_scores: ClassVar[tuple[str, ...]]

    form_first = ("llm", "num_rows")
    use_default_structured_output: AsJSON = True
    num_rows: Annotated[int, Field(ge=1, title="Rows", description="How many triplets are asked for."), Unasked()] = 1
    unit: Annotated[Unit | None, Field(title="Unit", description="Of a text. Empty: drawn for each row.")] = None
    difficulty: Annotated[
        Difficulty | None, Field(title="Difficulty", description="The education it takes. Empty: drawn for each row.")
    ] = None
    high_score: Annotated[
        HighScore | None, Field(title="High score", description="Of S1 and S2, of 5. Empty: drawn for each row.")
    ] = None
    seed: Seed = 42

    @property
    def outputs(self) -> Columns:
        return [*TEXTS, "model_name"]

    @abstractmethod
    def languages(self, row: Row) -> dict[str, str]:
        """The languages of a triplet, under the names that the template has for them."""

    def seed_rows(self) -> Iterator[Row]:
        return ({"number": number} for number in range(self.num_rows))

    def format_input(self, input: Row) -> ChatType:
        drawn = {
            "unit": get_args(Unit),
            "difficulty": get_args(Difficulty),
            "high_score": get_args(HighScore),
            "low_score": self.low_scores,
        }
        options = options_for(self, input, self.seed, drawn)
        prompt = render(self.template_names[0], **self.languages(input), **options)
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return texts_schema(TEXTS, "triplet")

    def format_output(self, output: str | None, input: Row) -> Row:
        found = texts_in(output or "", *TEXTS)
        check_opposed(found, "S2", "S3")
        return dict(found)


class MonolingualTripletGenerator(TripletGenerator):
    """Writes three texts in one language, of which S1 is closer in meaning to S2 than to S3.

    What isn't set is drawn for each row from the paper's lists, by the row's number and `seed` alone.

    Output columns:
        S1, S2, S3: the texts.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import MonolingualTripletGenerator
        >>> task = MonolingualTripletGenerator(llm=OpenAILLM(model="gpt-4o"), language="Welsh", low_score="2.5")
        >>> seed = next(task.seed_rows())
        >>> "- S1 and S3: 2.5." in task.format_input(seed)[0]["content"]
        True
        >>> task.format_output('{"S1": "Bwrw glaw.", "S2": "Glawio.", "S3": "Bwrw eira."}', seed)
        {'S1': 'Bwrw glaw.', 'S2': 'Glawio.', 'S3': 'Bwrw eira.'}
    """

    low_scores = get_args(LowScore)

    language: Language = "English"
    low_score: Annotated[
        LowScore | None, Field(title="Low score", description="Of S1 and S3, of 5. Empty: drawn for each row.")
    ] = None

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/monolingual-triplet",)

    def languages(self, row: Row) -> dict[str, str]:
        return {"language": language_for(self.language, row, self.seed)}


class BitextRetrievalGenerator(TripletGenerator):
    """Writes a text, S1, and two translations of it: S2, which is good, and S3, which has mistakes.

    What isn't set is drawn for each row from the paper's lists, by the row's number and `seed` alone; so is the
    target language. A low score above 2.5 isn't in the paper's list, and is never drawn.

    Output columns:
        S1, S2, S3: the texts.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import BitextRetrievalGenerator
        >>> task = BitextRetrievalGenerator(llm=OpenAILLM(model="gpt-4o"), target_language="German", unit="phrase")
        >>> seed = next(task.seed_rows())
        >>> task.format_input(seed)[0]["content"].partition(", to train")[0]
        'Write a phrase in English, S1, and two translations of it into German, S2 and S3'
        >>> task.format_output('{"S1": "at four", "S2": "um vier", "S3": "um drei"}', seed)
        {'S1': 'at four', 'S2': 'um vier', 'S3': 'um drei'}
    """

    low_scores = ("1.5", "2", "2.5")

    source_language: Language = "English"
    target_language: Language = ANY
    low_score: Annotated[
        LowQuality | None, Field(title="Low score", description="Of S3, of 5. Empty: drawn for each row.")
    ] = None

    @model_validator(mode="after")
    def _check_languages(self) -> Self:
        if self.source_language == self.target_language != ANY:
            raise ValueError(f"expected two languages, got {self.source_language!r} as both source and target")
        return self

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/bitext-retrieval",)

    def languages(self, row: Row) -> dict[str, str]:
        avoid = "" if self.target_language == ANY else self.target_language
        source = language_for(self.source_language, row, self.seed, name="source_language", other_than=avoid)
        target = language_for(self.target_language, row, self.seed, name="target_language", other_than=source)
        return {"source_language": source, "target_language": target}
