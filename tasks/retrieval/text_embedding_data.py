"""Training data for embedding models: an LLM writes examples of a task, in the languages and styles that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field

from llms.typing import ChatItem, ChatType, JSONSchema
from tasks.base import Task
from tasks.cells import text_in
from tasks.random_choices import random_for, read_by
from tasks.reading.replies import check_opposed, texts_in, texts_schema
from tasks.templates import render
from tasks.typing import Columns, Row

QueryType: TypeAlias = Literal["extremely long-tail", "long-tail", "common"]
QueryLength: TypeAlias = Literal["less than 5 words", "5 to 15 words", "at least 10 words"]
Difficulty: TypeAlias = Literal["high school", "college", "PhD"]
Clarity: TypeAlias = Literal["clear", "understandable with some effort", "ambiguous"]
DocumentWords: TypeAlias = Literal[50, 100, 200, 300, 400, 500]
TextWords: TypeAlias = Literal["less than 10", "at least 10", "at least 50", "at least 100", "at least 200"]


def number_of(value: Any) -> Any:
    """A number that a command line gives as text: pydantic makes none of it where only some numbers are allowed."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


ANY = "any"
"""In place of a language: one that is drawn for each row."""

LANGUAGES = (
    *("Afrikaans", "Albanian", "Amharic", "Arabic", "Armenian", "Assamese", "Azerbaijani", "Basque"),
    *("Belarusian", "Bengali", "Bosnian", "Breton", "Bulgarian", "Burmese", "Catalan", "Chinese", "Croatian"),
    *("Czech", "Danish", "Dutch", "English", "Esperanto", "Estonian", "Filipino", "Finnish", "French"),
    *("Galician", "Georgian", "German", "Greek", "Gujarati", "Hausa", "Hebrew", "Hindi", "Hungarian"),
    *("Icelandic", "Indonesian", "Irish", "Italian", "Japanese", "Javanese", "Kannada", "Kazakh", "Khmer"),
    *("Korean", "Kurdish", "Kyrgyz", "Lao", "Latin", "Latvian", "Lithuanian", "Macedonian", "Malagasy"),
    *("Malay", "Malayalam", "Marathi", "Mongolian", "Nepali", "Norwegian", "Oriya", "Oromo", "Pashto"),
    *("Persian", "Polish", "Portuguese", "Punjabi", "Romanian", "Russian", "Sanskrit", "Scottish Gaelic"),
    *("Serbian", "Sindhi", "Sinhala", "Slovak", "Slovenian", "Somali", "Spanish", "Sundanese", "Swahili"),
    *("Swedish", "Tamil", "Telugu", "Thai", "Turkish", "Ukrainian", "Urdu", "Uyghur", "Uzbek", "Vietnamese"),
    *("Welsh", "Western Frisian", "Xhosa", "Yiddish"),
)
"""The languages of XLM-R (https://aclanthology.org/2020.acl-main.747, appendix A)."""

Seed: TypeAlias = Annotated[int, Field(title="Seed", description="Of what is drawn for each row.")]
Language: TypeAlias = Annotated[
    str, Field(min_length=1, title="Language", description="By its English name. `any`: one is drawn for each row.")
]
AsJSON: TypeAlias = Annotated[
    bool, Field(title="Answer as JSON", description="Ask for it, where the provider can make sure of it.")
]


class EmbeddingExample(Task):
    """A Task that writes an example of an embedding task: texts, in a JSON object. The base of those below.

    Write `texts`, `template_names` and, for what may be drawn for each row, `drawn`.
    """

    texts: ClassVar[tuple[str, ...]]
    """The keys of the object, which are the output columns."""
    opposed: ClassVar[tuple[str, str] | None] = None
    """The two of them that must differ."""
    drawn: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """The options that may be unset, and what is drawn from then."""

    form_first = ("llm", "language")
    use_default_structured_output: AsJSON = True
    language: Language = "English"
    seed: Seed = 42

    @property
    def inputs(self) -> Columns:
        return {"task": True, "number": False}

    @property
    def outputs(self) -> Columns:
        return [*self.texts, "model_name"]

    def format_input(self, input: Row) -> ChatType:
        read = read_by(self, input)
        options = options_for(self, read, self.seed, self.drawn)
        language = language_for(self.language, read, self.seed)
        prompt = render(self.template_names[0], task=text_in(input, "task"), language=language, **options)
        return [ChatItem(role="user", content=prompt.strip())]

    def get_structured_output(self) -> JSONSchema:
        return texts_schema(self.texts, "example")

    def format_output(self, output: str | None, input: Row) -> Row:
        found = texts_in(output or "", *self.texts)
        if self.opposed:
            check_opposed(found, *self.opposed)
        return dict(found)


class GenerateTextRetrievalData(EmbeddingExample):
    """Writes an example of a retrieval task: a query, a document that serves it, and one that only seems to.

    What isn't set is drawn for each row from the paper's lists, by what the Task reads of it and `seed` alone.

    Input columns:
        task: what is to be retrieved, and by which queries; see EmbeddingTaskGenerator.
        number (optional): tells rows of one task apart, which draw the same without it.

    Output columns:
        user_query: the query.
        positive_document: a document that it should find.
        hard_negative_document: a document that it shouldn't.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import GenerateTextRetrievalData
        >>> task = GenerateTextRetrievalData(llm=OpenAILLM(model="gpt-4o-mini"), query_length="less than 5 words")
        >>> row = {"task": "Given a question about a mountain, find articles that answer it."}
        >>> "It has less than 5 words" in task.format_input(row)[0]["content"]
        True
        >>> task.format_output('''{"user_query": "height of K2", "positive_document": "K2 rises to 8,611 m.",
        ... "hard_negative_document": "K2 was first climbed in 1954."}''', row)
        {'user_query': 'height of K2',
         'positive_document': 'K2 rises to 8,611 m.',
         'hard_negative_document': 'K2 was first climbed in 1954.'}
    """

    texts = ("user_query", "positive_document", "hard_negative_document")
    opposed = ("positive_document", "hard_negative_document")
    drawn = {
        "query_type": get_args(QueryType),
        "query_length": get_args(QueryLength),
        "difficulty": get_args(Difficulty),
        "clarity": get_args(Clarity),
        "num_words": get_args(DocumentWords),
    }

    query_type: Annotated[QueryType | None, Field(title="Query type", description="Empty: drawn for each row.")] = None
    query_length: Annotated[
        QueryLength | None, Field(title="Query length", description="Empty: drawn for each row.")
    ] = None
    difficulty: Annotated[
        Difficulty | None, Field(title="Difficulty", description="The education it takes. Empty: drawn for each row.")
    ] = None
    clarity: Annotated[
        Clarity | None, Field(title="Clarity", description="Of the query. Empty: drawn for each row.")
    ] = None
    num_words: Annotated[
        DocumentWords | None,
        BeforeValidator(number_of),
        Field(title="Words", description="The least that a document has. Empty: drawn for each row."),
    ] = None

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/text-retrieval",)


class GenerateShortTextMatchingData(EmbeddingExample):
    """Writes an example of a task that matches short texts: phrases or sentences that belong together.

    Input columns:
        task: what is matched to what; see EmbeddingTaskGenerator.
        number (optional): tells rows of one task apart, which draw the same without it.

    Output columns:
        input: one text.
        positive_document: the text that belongs to it.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import GenerateShortTextMatchingData
        >>> task = GenerateShortTextMatchingData(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"task": "Match a tool to the trade that uses it."}
        >>> task.format_output('{"input": "spirit level", "positive_document": "bricklaying"}', row)
        {'input': 'spirit level', 'positive_document': 'bricklaying'}
    """

    texts = ("input", "positive_document")

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/text-matching-short",)


class GenerateLongTextMatchingData(EmbeddingExample):
    """Writes an example of a task that matches long texts: documents of 300 words and more that belong together.

    Input columns:
        task: what is matched to what; see EmbeddingTaskGenerator.
        number (optional): tells rows of one task apart, which draw the same without it.

    Output columns:
        input: one document.
        positive_document: the document that belongs to it.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import GenerateLongTextMatchingData
        >>> task = GenerateLongTextMatchingData(llm=OpenAILLM(model="gpt-4o-mini"), language="Welsh")
        >>> "Both texts are in Welsh." in task.format_input({"task": "Match two diaries."})[0]["content"]
        True
    """

    texts = ("input", "positive_document")

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/text-matching-long",)


class GenerateTextClassificationData(EmbeddingExample):
    """Writes an example of a classification task: a text, its label, and a label that only seems to fit.

    What isn't set is drawn for each row from the paper's lists, by what the Task reads of it and `seed` alone.

    Input columns:
        task: what is classified, and by what; see EmbeddingTaskGenerator.
        number (optional): tells rows of one task apart, which draw the same without it.

    Output columns:
        input_text: the text.
        label: its label.
        misleading_label: another label of the task, which is wrong here.
        model_name: the model that wrote them.

    Source: Improving Text Embeddings with Large Language Models (https://arxiv.org/abs/2401.00368).

    Example:
        >>> from llms import OpenAILLM
        >>> from tasks import GenerateTextClassificationData
        >>> task = GenerateTextClassificationData(llm=OpenAILLM(model="gpt-4o-mini"))
        >>> row = {"task": "Tell whether a message to a help desk can wait."}
        >>> task.format_output('{"input_text": "It burns!", "label": "emergency", "misleading_label": "can wait"}', row)
        {'input_text': 'It burns!', 'label': 'emergency', 'misleading_label': 'can wait'}
    """

    texts = ("input_text", "label", "misleading_label")
    opposed = ("label", "misleading_label")
    drawn = {
        "difficulty": get_args(Difficulty),
        "clarity": get_args(Clarity),
        "num_words": get_args(TextWords),
    }

    difficulty: Annotated[
        Difficulty | None, Field(title="Difficulty", description="The education it takes. Empty: drawn for each row.")
    ] = None
    clarity: Annotated[
        Clarity | None, Field(title="Clarity", description="Of the text. Empty: drawn for each row.")
    ] = None
    num_words: Annotated[
        TextWords | None, Field(title="Words", description="Of the text. Empty: drawn for each row.")
    ] = None

    @property
    def template_names(self) -> tuple[str, ...]:
        return ("text_embedding_data/text-classification",)


def options_for(task: Task, row: Row, seed: int, drawn: Mapping[str, Sequence[Any]]) -> Row:
    """The options of `task` that `drawn` names: as they are set, or else drawn for the row, each for itself."""
    given = {name: getattr(task, name) for name in drawn}
    return {
        name: random_for(row, seed, name).choice(drawn[name]) if value is None else value
        for name, value in given.items()
    }


def language_for(language: str, row: Row, seed: int, *, name: str = "language", other_than: str = "") -> str:
    """The language, or one drawn for the row in place of ANY: for the option `name`, and not `other_than`."""
    if language != ANY:
        return language
    return random_for(row, seed, name).choice([each for each in LANGUAGES if each != other_than])
