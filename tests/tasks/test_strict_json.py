"""JSON: what a quick reader would lose in silence is read in full, or refused."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.sources.strict_json import UnusableError, exact_json, line_at_fault, read_strictly, strict_json

bounded = settings(max_examples=300, deadline=None, derandomize=True)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=10,
)


@bounded
@given(values, st.sampled_from([None, 1]), st.booleans())
def test_every_value_is_read_as_it_was_written(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    assert repr(strict_json(text.encode())) == repr(exact_json(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "an object has the key 'a' twice"),
        ('{"a": 1, "a" : 2}', "an object has the key 'a' twice"),
        ('[{"q": "x", "m": {"a": 1, "a"\t\n: 2}}]', "an object has the key 'a' twice"),
        ('{"a": [{"b": 1, "c": 2, "b": 3}], "d": "\\":"}', "an object has the key 'b' twice"),
        ('{"a": "half \\ud83d"}', "got half of one in 'half"),
        ('{"\\udc00": 1}', "half of one"),
        ('{"a": 1e400}', "the number 1e400 is larger than any"),
        ("[" * 300 + "]" * 300, "at most 200 levels"),
        ("[" * 5000 + "]" * 5000, "at most 200 levels"),
    ],
)
def test_what_would_be_lost_is_refused(text: str, said: str) -> None:
    with pytest.raises(UnusableError, match=said):
        strict_json(text.encode())


@pytest.mark.parametrize("text", ["{", "", "{'a': 1}", '{"a": }', "nope"])
def test_what_is_no_json_is_another_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1 column \d") as caught:
        strict_json(text.encode())
    assert not isinstance(caught.value, UnusableError)


def test_numbers_that_python_writes_and_json_lacks_are_read() -> None:
    value = strict_json(b'{"a": [NaN, Infinity, -Infinity, 1e308]}')

    assert math.isnan(value["a"][0])
    assert value["a"][1:] == [math.inf, -math.inf, 1e308]


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ('{"a": 1, "b": "x"}', True),
        ('{"a": [1.5, 2.5], "b": {"c": null}}', True),
        # Seldom, and no harm: it's only looked at again.
        ('{"a" : 1}', False),
        ('{"a": "\\":"}', False),
        ('{"a": NaN}', False),
        ('{"a": 9223372036854775808}', True),
        ('{"a": 18446744073709551616}', False),
        ('{"a": [0.5, -9223372036854775809]}', False),
    ],
)
def test_a_text_is_plain_where_a_quick_reader_takes_it_for_the_same(text: str, is_plain: bool) -> None:
    value, plain = read_strictly(text.encode())

    assert plain is is_plain
    assert repr(value) == repr(json.loads(text))
    if plain:
        assert repr(value) == repr(orjson.loads(text))


@pytest.mark.parametrize("bad", ['{"a": 1, "a": 2}', '{"b": "\\ud83d"}', '{"c": 1e999}'])
def test_the_line_of_the_first_bad_item_of_a_list_is_found(bad: str) -> None:
    text = f'[{{"a": 1}},\n\n  {{"b": [1,\n2]}} ,\n {bad},\n{{"c": 3}}]'

    assert line_at_fault(text.encode()) == 5
