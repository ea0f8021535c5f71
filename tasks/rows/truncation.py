"""Texts cut to a length."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from llms.extras import package
from llms.parameters import short
from tasks.rows.columns import value_in, with_failure
from tasks.steps import Step
from tasks.typing import Columns, Row, StepInput, StepOutput


class TruncateTextColumn(Step):
    """Cuts the texts of a column to a number of characters, or of a tokenizer's tokens.

    What is left is the beginning of the text as it was written, also where a tokenizer would write it otherwise.
    A text that is short enough stays as it is.

    The tokenizer needs the extra `truncation`. Special tokens, such as one for the beginning, aren't counted.

    Input columns:
        that of `column`: a text.

    Output columns:
        the same.

    Example:
        >>> from tasks import TruncateTextColumn
        >>> next(TruncateTextColumn(max_length=9).process([{"text": "High tide comes twice a day."}]))
        [{'text': 'High tide'}]
    """

    fails_rows = True

    column: Annotated[str, Field(min_length=1, title="Column", description="Whose texts are cut.")] = "text"
    max_length: Annotated[
        int, Field(ge=0, title="Length", description="At most: in tokens, or without a tokenizer in characters.")
    ] = 8192
    tokenizer: Annotated[
        str | None,
        Field(title="Tokenizer", description="A model of the Hugging Face Hub, or the path of a tokenizer.json."),
    ] = None

    _loaded: Any = PrivateAttr(default=None)

    @property
    def inputs(self) -> Columns:
        return [self.column]

    @property
    def outputs(self) -> Columns:
        return [self.column]

    def load(self) -> None:
        if self.tokenizer is not None and self._loaded is None:
            self._loaded = tokenizer_named(self.tokenizer)

    def unload(self) -> None:
        self._loaded = None

    def process(self, inputs: StepInput) -> StepOutput:
        self.load()
        yield [self._cut(row) for row in inputs]

    def _cut(self, row: Row) -> Row:
        text = value_in(row, self.column)
        if not isinstance(text, str):
            return with_failure(row, self.name, ValueError(f"{self.column}: expected a text, got {short(text)}"))
        end = self.max_length if self._loaded is None else end_of_tokens(self._loaded, text, self.max_length)
        return {**row, self.column: text[:end]}


def tokenizer_named(name: str) -> Any:
    """The tokenizer of a path or of a model on the Hub. Raises MissingPackageError or ValueError."""
    kind = package("tokenizers", "truncation", "TruncateTextColumn(tokenizer=...)").Tokenizer
    path = Path(name).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        found = kind.from_file(str(file)) if file.is_file() else kind.from_pretrained(name)
    except Exception as error:  # the package raises no narrower one
        raise ValueError(
            f"tokenizer={name!r} can't be loaded: {error}. Expected the name of a model on the Hugging Face Hub"
            " that has a tokenizer.json, or the path of such a file"
        ) from error
    # A file may say that texts are to be cut or filled up for its model.
    found.no_truncation()
    found.no_padding()
    return found


def end_of_tokens(tokenizer: Any, text: str, count: int) -> int:
    """Where the first `count` tokens of a text end, in characters. A character of several tokens isn't cut."""
    offsets: list[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= count:
        return len(text)
    # Some tokens hold a part of a character, and some begin with the space before them.
    return min(offsets[count][0], offsets[count - 1][1] if count else 0)
