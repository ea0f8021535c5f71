"""The type of `distilabel_metadata`: that of the steps, whatever the values."""

# pyarrow has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest

from tasks.metadata import merged_metadata, metadata_shape, metadata_type
from tasks.typing import Row

KEYS = ["raw_input_a", "raw_output_a", "finish_reason_a", "cut_off_a", "statistics_a", "error_a"]
ERROR = {"type": "LLMError", "message": "no", "retryable": False}
COUNTS = {"input_tokens": 1, "output_tokens": 2}
CHAT = [{"role": "user", "content": "x"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]

ROWS: list[Row | None] = [
    {"raw_input_a": CHAT, "raw_output_a": "x", "statistics_a": COUNTS, "error_a": None},
    {"raw_input_a": PARTS, "raw_output_a": "x", "statistics_a": {**COUNTS, "reasoning_tokens": 3}, "error_a": None},
    {"raw_input_a": "bare", "raw_output_a": None, "cut_off_a": True, "statistics_a": COUNTS, "error_a": ERROR},
    {"statistics_a": COUNTS, "error_a": ERROR, "finish_reason_a": "stop"},
    {"raw_input_a": None},
    {},
    None,
]


def whole(shards: list[list[Row | None]]) -> Any:
    kind = metadata_shape(shards[0]).type
    for rows in shards[1:]:
        kind = merged_metadata(kind, metadata_shape(rows).type)
    return metadata_type(kind, KEYS)


def test_its_type_is_the_same_for_any_rows_in_any_shards() -> None:
    expected = whole([ROWS])

    for number in range(1, 4):
        for some in itertools.combinations(ROWS, number):
            assert whole([list(some)]) == whole([[row] for row in some]) == expected


def test_of_several_answers_in_one_row_it_has_lists() -> None:
    found = whole([[{"raw_input_a": CHAT, "raw_output_a": [None, None], "statistics_a": [COUNTS, None]}]])

    assert found == whole([[{"raw_output_a": ["x"], "statistics_a": [{**COUNTS, "cached_tokens": 1}]}]])
    assert found.field("raw_output_a").type == pa.list_(pa.string())


@pytest.mark.parametrize("other", ["text", [1], 5])
def test_what_it_doesnt_expect_is_json(other: Any) -> None:
    found = whole([[{"statistics_a": COUNTS, "error_a": other}, {"statistics_a": other, "error_a": ERROR}]])

    assert found.field("statistics_a").type == found.field("error_a").type == pa.json_()


def test_keys_of_others_come_first_and_as_they_are() -> None:
    found = whole([[{"mine": {"x": 1}, "error_a": None}, {"mine": {"y": 1}}]])

    assert [each.name for each in found] == ["mine", *KEYS]
    assert found.field("mine").type == pa.json_()
