"""`distilabel_metadata`: what steps note about a row. Its type depends on the steps, never on the values.

So the datasets of two runs can be concatenated, whether rows failed or not, and whatever the prompts were.
"""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from llms.typing import PARTS_OF_TOKENS
from tasks.arrow import Shape, merged, shape_of
from tasks.typing import Row

WITH_FIELDS = ("statistics_", "error_", "earlier_error_")
"""How keys begin whose values are dicts that may lack some fields."""


def usual_types() -> dict[str, Any]:
    """The types of keys, by how they begin. The rest of a key is the step's name."""
    import pyarrow as pa

    failure = pa.struct([("type", pa.string()), ("message", pa.string()), ("retryable", pa.bool_())])
    logprob = pa.struct([("token", pa.string()), ("logprob", pa.float64())])
    return {
        # A chat, of texts or of parts; a bare prompt; or a list of these.
        "raw_input_": pa.json_(),
        "raw_output_": pa.string(),
        "statistics_": pa.struct([(name, pa.int64()) for name in ("input_tokens", "output_tokens", *PARTS_OF_TOKENS)]),
        "finish_reason_": pa.string(),
        "cut_off_": pa.bool_(),
        "unfinished_": pa.bool_(),
        "logprobs_": pa.list_(pa.list_(logprob)),
        "error_": failure,
        "earlier_error_": failure,
    }


def metadata_shape(values: Sequence[Row | None]) -> Shape:
    """The type that the metadata of rows has: all keys that are in any of them."""
    there = [value for value in values if value]
    return Shape(_open_struct(there, _type_of_key), False)


def _type_of_key(key: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    if key.startswith("raw_input_"):
        return pa.json_()
    return _open_type(values) if key.startswith(WITH_FIELDS) else shape_of(values).type


def _open_type(values: Sequence[Any]) -> Any:
    """The type of dicts, or of lists of them, as a struct of all fields that are in any of them."""
    import pyarrow as pa

    there = [value for value in values if value is not None]
    if there and all(isinstance(value, dict) for value in there):
        return _open_struct(there, _type_of_field)
    if there and all(isinstance(value, list) for value in there):
        return pa.list_(_open_type(list(chain.from_iterable(there))))
    return shape_of(values).type


def _type_of_field(_: str, values: Sequence[Any]) -> Any:
    return shape_of(values).type


def _open_struct(dicts: Sequence[Row], type_of: Callable[[str, Sequence[Any]], Any]) -> Any:
    import pyarrow as pa

    names = dict.fromkeys(chain.from_iterable(dicts))
    return pa.struct([(name, type_of(name, [each.get(name) for each in dicts])) for name in names])


def merged_metadata(one: Any, other: Any) -> Any:
    """The type of metadata of which some has one type and some has another."""
    return _merged_open(one, other, lambda key: _merged_fields if key.startswith(WITH_FIELDS) else merged)


def _merged_fields(one: Any, other: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merged_open(one, other, lambda _: merged)
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_merged_fields(one.value_type, other.value_type))
    return merged(one, other)


def _merged_open(one: Any, other: Any, merge_for: Callable[[str], Callable[[Any, Any], Any]]) -> Any:
    import pyarrow as pa

    fields = {each.name: each.type for each in one}
    for each in other:
        known = fields.get(each.name)
        fields[each.name] = each.type if known is None else merge_for(each.name)(known, each.type)
    return pa.struct(list(fields.items()))


def metadata_type(found: Any, keys: Sequence[str]) -> Any:
    """The type of a dataset's metadata.

    Args:
        found: what the rows' metadata has.
        keys: those of the steps, whether any row has them or not.
    """
    import pyarrow as pa

    known = usual_types()
    fields = {each.name: each.type for each in found}
    order = [*(key for key in fields if key not in keys), *keys]
    whole: list[tuple[str, Any]] = []
    for key in order:
        usual = next((known[start] for start in known if key.startswith(start)), pa.null())
        whole.append((key, filled(fields.get(key, pa.null()), usual)))
    return pa.struct(whole)


def filled(kind: Any, usual: Any) -> Any:
    """The type with the usual one where there were no values to tell."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return usual
    if pa.types.is_list(kind):
        return pa.list_(filled(kind.value_type, usual.value_type if pa.types.is_list(usual) else usual))
    if pa.types.is_struct(kind) and pa.types.is_struct(usual):
        fields = {each.name: each.type for each in usual}
        fields |= {each.name: filled(each.type, fields.get(each.name, pa.null())) for each in kind}
        return pa.struct(list(fields.items()))
    return kind
