"""What a model of a user's own gives, read as the output that it means: leniently, where nothing is lost by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol, cast, runtime_checkable

from llms.errors import KeptError, LLMError
from llms.parameters import short
from llms.quantities import quantity
from llms.reading import whole_text
from llms.typing import GenerateOutput, TokenCounts, Usage
from llms.usage import usage_of

TEXTS = (
    '{"generations": [<text>, ...], "statistics": {"input_tokens": [<count>, ...], "output_tokens": [<count>, ...]}},'
    " with an entry per generation, or the list of texts alone"
)
VECTOR = "a list of numbers for each text"


@runtime_checkable
class Array(Protocol):
    """A numpy array, or another library's."""

    def tolist(self) -> object: ...


@runtime_checkable
class Scalar(Protocol):
    """A number of numpy's, or another library's."""

    def item(self) -> object: ...


COUNTS = frozenset(TokenCounts.__annotations__)
BY_GENERATION = frozenset({"generations", "logprobs", "cut_off", "unfinished", "finish_reasons", "reasoning"})
KNOWN = frozenset(GenerateOutput.__annotations__)


def outputs_in(given: object, owner: str, count: int) -> list[object]:
    """What `generate` gave, by input.

    Args:
        given: a list, a tuple, an array, or an iterator.
        owner: who gave it, for the message: `Class.generate`.
        count: how many inputs there were.

    Raises:
        LLMError: it isn't one per input.
    """
    listed = list(cast("Iterator[object]", given)) if isinstance(given, Iterator) else _listed(given)
    if listed is None:
        raise LLMError(f"{owner} gave {short(cast('object', given))}; expected a list with an output per input")
    if len(listed) != count:
        raise LLMError(f"{owner} got {quantity(count, 'input')} and gave {quantity(len(listed), 'output')}")
    return listed


def output_in(given: object, owner: str, num_generations: int) -> GenerateOutput:
    """The output for one input, with a count per generation.

    What distilabel's models gave is taken as well: a list of texts, counts that stand for all generations together,
    none at all. So are numpy's numbers, and `None` for no answer.

    Args:
        given: what `generate` gave for an input, or `agenerate`.
        owner: who gave it, for the message: `Class.agenerate`.
        num_generations: how many texts were asked for.

    Raises:
        LLMError: it's something else. The message says what was expected.
    """
    if given is None or isinstance(given, str):
        given = [given] * (num_generations if given is None else 1)
    fields: dict[str, Any] = (
        {name: value for name, value in cast("Mapping[str, Any]", given).items() if name in KNOWN}
        if isinstance(given, Mapping)
        else {"generations": given}
    )
    if fields.get("error"):
        raise KeptError(fields["error"], fields.get("usage") or ())
    has_vectors = fields.get("embeddings") is not None
    try:
        return cast("GenerateOutput", _with_vectors(fields) if has_vectors else _with_texts(fields))
    except ValueError as error:
        expected = VECTOR if has_vectors else TEXTS
        raise LLMError(f"{owner}: {error}; expected {expected}. It gave {short(cast('object', given))}") from None


def exactly(output: GenerateOutput, wanted: int, owner: str) -> GenerateOutput:
    """The output with `wanted` generations: those beyond are left out. Raises LLMError where there are fewer."""
    got = len(output["generations"])
    if "embeddings" in output:
        return output
    if got < wanted:
        raise too_few(owner, wanted, got, usage_of(output))
    return first_generations(output, wanted)


def too_few(owner: str, wanted: int, got: int, usage: Sequence[Usage]) -> LLMError:
    """The error for fewer generations than were asked for, with what they cost."""
    return LLMError(f"{owner} was asked for {quantity(wanted, 'generation')} and gave {got}", usage=usage)


def first_generations(output: GenerateOutput, count: int) -> GenerateOutput:
    """The output without the generations beyond `count`. What a provider bills, all of them, stays in its `usage`."""
    if len(output["generations"]) <= count:
        return output
    first = {name: cast("list[Any]", output[name])[:count] for name in BY_GENERATION & set(output)}
    counts = {name: cast("list[int]", each)[:count] for name, each in output["statistics"].items()}
    return cast("GenerateOutput", {**output, **first, "statistics": counts})


def _with_texts(fields: dict[str, Any]) -> dict[str, Any]:
    texts = [_text(each) for each in _list_of(fields.get("generations"), "`generations`")]
    read = {name: value for name, value in fields.items() if value is not None}
    for name in (BY_GENERATION - {"generations"}) & set(read):
        read[name] = _list_of(read[name], f"`{name}`")
        if len(read[name]) != len(texts):
            entries = quantity(len(read[name]), "entry", "entries")
            raise ValueError(f"`{name}` has {entries} for {quantity(len(texts), 'generation')}")
    if "reasoning" in read:
        read["reasoning"] = list(map(_text, read["reasoning"]))
    return {**read, "generations": texts, "statistics": _counts(fields.get("statistics"), len(texts))}


def _with_vectors(fields: dict[str, Any]) -> dict[str, Any]:
    vectors = [_vector(each) for each in _list_of(fields["embeddings"], "`embeddings`")]
    statistics = _counts(fields.get("statistics"), len(vectors))
    return {**fields, "generations": [], "statistics": statistics, "embeddings": vectors}


def _listed(given: object) -> list[object] | None:
    if isinstance(given, list | tuple):
        return list(cast("list[object]", given))
    # An array. One of no dimensions, which is a single number, gives no list.
    listed: object = given.tolist() if isinstance(given, Array) else None
    return cast("list[object]", listed) if isinstance(listed, list) else None


def _list_of(given: object, what: str) -> list[object]:
    listed = _listed(given)
    if listed is None:
        raise ValueError(f"{what} is no list, but {short(given)}")
    return listed


def _text(given: object) -> str | None:
    if given is None:
        return given
    if isinstance(given, str):
        # Numpy has texts of its own. A model that is cut off between two halves of a character leaves one.
        return whole_text(str(given))
    raise ValueError(f"a generation is no text, but {short(given)}")


def _counts(given: object, length: int) -> dict[str, list[int]]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise ValueError(f"`statistics` is no dict, but {short(given)}")
    known = {name: value for name, value in cast("Mapping[str, Any]", given).items() if name in COUNTS}
    whole = {"input_tokens": None, "output_tokens": None, **known}
    return {name: _count_each(value, length, name) for name, value in whole.items()}


def _count_each(given: object, length: int, name: str) -> list[int]:
    """Counts by generation. One count for all of them stands at the first."""
    if given is None:
        given = []
    counts = [_number(each, name) for each in ([given] if isinstance(given, Real) else _list_of(given, f"`{name}`"))]
    if len(counts) == length:
        return counts
    if len(counts) > 1:
        raise ValueError(f"`{name}` has {len(counts)} counts for {quantity(length, 'generation')}")
    return [*counts, *[0] * (length - len(counts))][:length]


def _number(given: object, name: str) -> int:
    if given is None:
        return 0
    # Python's own counts first: asking for a protocol takes far longer.
    value: object = given if isinstance(given, int) or not isinstance(given, Scalar) else given.item()
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value) >= 0:
        return int(value)
    raise ValueError(f"`{name}` holds {short(value)}, which is no count of tokens")


def _vector(given: object) -> list[float]:
    try:
        return [float(cast("float", number)) for number in _list_of(given, "a vector")]
    except TypeError:
        raise ValueError(f"a vector holds something that is no number: {short(given)}") from None
