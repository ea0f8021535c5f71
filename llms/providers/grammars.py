"""Answers held to a schema, a regular expression, a choice or a grammar, token by token, by the library llguidance."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from llms.errors import BadRequestError
from llms.extras import package
from llms.parameters import short
from llms.providers.engines import Constraint
from llms.reading import object_in, text_in

JSON_OPTIONS = {"whitespace_pattern": r"[ \n]{0,24}", "coerce_one_of": True}
"""Small models lose themselves in white space. Alternatives of a `oneOf` are told apart by what is in them."""

SCHEMAS = frozenset({"items", "prefixItems", "anyOf", "oneOf"})
DEFINITIONS = frozenset({"$defs", "definitions"})
SCHEMAS_BY_NAME = frozenset({"properties", "dependentSchemas", *DEFINITIONS})
ALTERNATIVES = frozenset({"anyOf", "oneOf"})
BESIDE = frozenset({"allOf", "$ref", "if", "then", "else", "dependentSchemas", *ALTERNATIVES})
"""What an object has to fit too: each of the schemas sees all of its properties, also those that another names."""


class Grammars:
    """The grammars of a model's tokens."""

    def __init__(self, tokenizer: Any, size: int, ends: Sequence[int], extra: str, user: str) -> None:
        """
        Args:
            tokenizer: Transformers' own, a fast one.
            size: of the vocabulary: how many tokens the model has a score for.
            ends: the tokens that end an answer.
            extra: that installs llguidance.
            user: who needs it, for the error's message.

        Raises:
            MissingPackageError: llguidance isn't installed.
            BadRequestError: the tokenizer is a slow one.
        """
        self._library = package("llguidance", extra, user)
        try:
            self._tokens = package("llguidance.hf", extra, user).from_tokenizer(tokenizer, size, list(ends))
        except ValueError as error:
            raise BadRequestError(
                f"the tokenizer {type(tokenizer).__name__} holds no answer to a form: {error}"
            ) from None

    def check(self, constraint: Constraint) -> None:
        """Raises BadRequestError for a constraint that can't be held."""
        problem = self._library.LLMatcher.validate_grammar(self._grammar(constraint), self._tokens)
        if problem:
            raise BadRequestError(f"{constraint.kind} can't be held, got {short(constraint.value)}: {problem}")

    def matcher(self, constraint: Constraint) -> Any:
        """What goes along with one answer: it takes its tokens, and says which may follow."""
        return self._library.LLMatcher(self._tokens, self._grammar(constraint))

    def _grammar(self, constraint: Constraint) -> str:
        kinds, value = self._library.LLMatcher, constraint.value
        try:
            match constraint.kind:
                case "structured_output":
                    return kinds.grammar_from_json_schema(json.dumps(closed(value)), overrides=JSON_OPTIONS)
                case "regex":
                    return kinds.grammar_from_regex(value)
                case "choice":
                    return kinds.grammar_from_lark(f"start: {' | '.join(map(json.dumps, value))}")
                case "grammar":
                    return kinds.grammar_from_lark(value)
        except ValueError as error:
            raise BadRequestError(f"{constraint.kind} can't be held, got {short(value)}: {error}") from None


def closed(node: Any) -> Any:
    """A schema whose objects have no properties but those that it names: a small model would invent others.

    An object that several schemas together say the properties of stays open, and so do these: what one of them names,
    another would forbid.
    """
    return _closed(node, _shared_definitions(node), is_shared=False)


def _closed(node: Any, shared: Collection[str], *, is_shared: bool) -> Any:
    """`node`, closed.

    Args:
        shared: names of definitions that stay open.
        is_shared: whether another schema says properties of the same object.
    """
    if isinstance(node, list):
        return [_closed(each, shared, is_shared=is_shared) for each in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = dict(cast("dict[str, Any]", node))
    is_open = is_shared or _is_shared(schema)
    for name in SCHEMAS & set(schema):
        schema[name] = _closed(schema[name], shared, is_shared=is_open and name in ALTERNATIVES)
    for name in SCHEMAS_BY_NAME & set(schema):
        schema[name] = {
            key: _closed(each, shared, is_shared=name == "dependentSchemas" or (name in DEFINITIONS and key in shared))
            for key, each in schema[name].items()
        }
    if "properties" in schema and not is_open:
        schema.setdefault("additionalProperties", False)
    return schema


def _is_shared(schema: Mapping[str, Any]) -> bool:
    """Whether several schemas say properties of one object: that one and others, or those in its `allOf`."""
    return ("properties" in schema and not BESIDE.isdisjoint(schema)) or len(schema.get("allOf", ())) > 1


def _shared_definitions(root: Any) -> set[str]:
    """The names of the definitions that say some of an object's properties, beside another schema."""
    definitions: dict[str, list[Any]] = {}
    wanted: set[str] = set()
    for schema in _objects_in(root):
        for name in DEFINITIONS & set(schema):
            for key, each in object_in(schema[name]).items():
                definitions.setdefault(key, []).append(each)
        if _is_shared(schema):
            wanted |= _named_beside(schema)
    found: set[str] = set()
    while wanted:
        found |= wanted
        wanted = {
            name for known in wanted for each in definitions.get(known, ()) for name in _named_beside(each)
        } - found
    return found


def _objects_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield cast("dict[str, Any]", node)
        node = list(cast("dict[str, Any]", node).values())
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            yield from _objects_in(each)


def _named_beside(node: Any) -> set[str]:
    """The names of the definitions that the same object has to fit, or may."""
    if isinstance(node, list):
        return {name for each in cast("list[Any]", node) for name in _named_beside(each)}
    schema = object_in(node)
    found = {text_in(schema.get("$ref")).rpartition("/")[2]} - {""}
    for name in BESIDE & set(schema) - {"$ref"}:
        inner = schema[name]
        found |= _named_beside(list(object_in(inner).values()) if name == "dependentSchemas" else inner)
    return found
