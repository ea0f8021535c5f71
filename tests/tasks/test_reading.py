"""JSON objects and lists are found in what models really send, and nothing is guessed or run."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.base import UnreadableAnswerError
from tasks.reading.replies import check_opposed, list_in, object_in, tagged, texts_in, texts_schema

OBJECTS = {
    "alone": '{"score": 4}',
    "with a preface and an afterword": 'Here it is:\n{"score": 4}\nLet me know!',
    "in a fence": '```json\n{"score": 4}\n```',
    "in a fence without a language": '```\n{"score": 4}\n```',
    "after thoughts": '<think>{"score": 1}? No.</think>{"score": 4}',
    "in a list of one": '[{"score": 4}]',
    "with single quotes": "{'score': 4}",
    "with single quotes, a preface and a fence": "Sure:\n```python\n{'score': 4}\n```",
    "with a comma too many": '{"score": 4,}',
}


@pytest.mark.parametrize("reply", OBJECTS.values(), ids=OBJECTS.keys())
def test_an_object_is_found(reply: str) -> None:
    assert object_in(reply, "score") == {"score": 4}


BROKEN: dict[str, tuple[str, str]] = {
    "nothing": ("", "found none"),
    "prose": ("Four.", "found none"),
    "two": ('{"score": 4}\n{"score": 5}', "found 2"),
    "cut off": ('{"score": 4, "wh', "found none"),
    "a number": ("4", "expected a JSON object"),
    "another key": ('{"rating": 4}', "lacks ['score']"),
    "code": ("{'score': __import__('os').getpid()}", "found none"),
    "a key twice": ('{"score": 4, "score": 5}', "'score' is there twice"),
    "a key twice after a preface": ('Sure:\n{"score": 4, "score": 5}', "'score' is there twice"),
    "a key twice, inside": ('{"score": {"a": 4, "a": 5}}', "'a' is there twice"),
    "a key twice, with single quotes": ("{'score': 4, 'score': 5}", "'score' is there twice"),
    "half of a character": (r'{"score": 4, "why": "\ud83d"}', "half of a character"),
    "a character in halves, with a comma too many": (r'{"score": 4, "why": "\ud83d\ude00",}', "half of a character"),
    "an escape that Python leaves in, with a comma too many": (r'{"score": 4, "why": "1\/2",}', "found none"),
    "thoughts that are cut off": ('<think>{"score": 1}? Or', "ends in its thoughts"),
}


@pytest.mark.parametrize(("reply", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_object_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        object_in(reply, "score")
    assert problem in str(raised.value)


def test_a_character_in_two_escapes_is_whole() -> None:
    assert object_in(r'{"why": "\ud83d\ude00 1\/2"}') == {"why": "\U0001f600 1/2"}


@pytest.mark.parametrize("reply", ['["a", "b"]', '{"items": ["a", "b"]}', "['a', 'b']", 'Two:\n```json\n["a", "b"]```'])
def test_a_list_is_found_alone_or_in_an_object(reply: str) -> None:
    assert list_in(reply) == ["a", "b"]


@pytest.mark.parametrize("reply", ["a, b", '{"a": [1], "b": [2]}', '{"a": 1}', '"a"'])
def test_what_is_no_list_is_refused(reply: Any) -> None:
    with pytest.raises(UnreadableAnswerError):
        list_in(reply)


TEXTS = {
    "as asked": '{"user_query": "K2", "document": "High."}',
    "in another spelling and order": '{"Document": "High.", "User Query": " K2 "}',
    "among others": '{"id": null, "user_query": "K2", "document": "High.", "done": true}',
    "as a Python dict": "{'user_query': 'K2', 'document': 'High.', 'id': None}",
}


@pytest.mark.parametrize("reply", TEXTS.values(), ids=TEXTS.keys())
def test_texts_are_found_under_their_keys(reply: str) -> None:
    assert texts_in(reply, "user_query", "document") == {"user_query": "K2", "document": "High."}


def test_numbers_and_truth_values_are_texts_as_json_writes_them() -> None:
    texts = {"year": "1954", "score": "4.5", "first": "true"}
    assert texts_in('{"year": 1954, "score": 4.5, "first": true}', *texts) == texts
    assert texts_in("{'year': 1954, 'score': 4.5, 'first': True}", *texts) == texts


WITHOUT_TEXTS = {
    "a key left out": ('{"user_query": "K2"}', "'document' is not there"),
    "a key twice": ('{"user_query": "K2", "document": "a", "Document": "b"}', "'document' is 2 times"),
    "null": ('{"user_query": "K2", "document": null}', "document: expected a text, got None"),
    "nothing but spaces": ('{"user_query": "K2", "document": "  "}', "document: expected a text, got '  '"),
    "an object": ('{"user_query": "K2", "document": {"text": "a"}}', "document: expected a text, got {"),
}


@pytest.mark.parametrize(("reply", "problem"), WITHOUT_TEXTS.values(), ids=WITHOUT_TEXTS.keys())
def test_what_has_no_text_under_a_key_is_refused_with_the_reason(reply: str, problem: str) -> None:
    with pytest.raises(UnreadableAnswerError) as raised:
        texts_in(reply, "user_query", "document")
    assert problem in str(raised.value)


def test_texts_that_should_differ_differ_in_more_than_spaces() -> None:
    check_opposed({"positive": "a b", "negative": "A b"}, "positive", "negative")
    with pytest.raises(UnreadableAnswerError, match="positive and negative are the same text: 'a b'"):
        check_opposed({"positive": "a b", "negative": "a  b "}, "positive", "negative")


def test_the_schema_of_texts_is_closed() -> None:
    assert texts_schema(["a", "b"], "pair") == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "required": ["a", "b"],
        "additionalProperties": False,
        "title": "pair",
    }


def test_what_stands_between_tags_is_found_once_or_refused() -> None:
    assert tagged("Sure: <text>\nK2\n</text> So.", "text") == "K2"
    assert tagged("<TEXT></TEXT>", "text") == ""
    assert tagged("K2", "text") is None
    for broken in (
        *("<text>K2", "K2</text>", "<text>a</text><text>b</text>", "a</text> <text>b"),
        *("<text>a <text>b</text>", "<text>a</text> Or: <text>b", "<text>a</text> b</text>"),
    ):
        with pytest.raises(UnreadableAnswerError):
            tagged(broken, "text")
