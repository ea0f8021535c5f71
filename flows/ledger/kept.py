"""What the ledger keeps: whose answers, how many, what they cost, and when they were last used."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import TypeAdapter

from flows.ledger.prompts import KnownPrompts
from flows.ledger.store import ABOUT, FOLDER, USED, Store
from flows.store.storage import Storage
from llms import LLMError
from llms.base import LLM
from llms.prices import price_of
from llms.registry import AnyModel
from llms.usage import usage_of

SECONDS_PER_DAY = 86_400
_ANY_LLM: TypeAdapter[LLM] = TypeAdapter(AnyModel)


@dataclass(frozen=True)
class KeptSpace:
    """The answers of one model at one address with the same parameters."""

    space: str
    about: dict[str, Any]
    flows: dict[str, float]
    """The flows that asked there, and when they last did, in seconds since 1970."""
    answers: int = 0
    batched: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = None
    """At the list price; None where that isn't known."""

    @property
    def model(self) -> str:
        return str(self.about.get("model") or "")

    @property
    def address(self) -> str:
        return str(self.about.get("url") or self.about.get("llm", {}).get("provider") or "")

    @property
    def days(self) -> float:
        """Since it was used."""
        return (time.time() - max(self.flows.values(), default=0.0)) / SECONDS_PER_DAY


def known_spaces(storage: Storage) -> Iterator[KeptSpace]:
    """What the ledger has, without a look at the answers."""
    for folder in storage.folders(storage.path(FOLDER)):
        about = storage.read_all([f"{folder}/{ABOUT}"])
        used = storage.read_all(storage.files(f"{folder}/{USED}", ".json"))
        notes = [orjson.loads(each) for each in used.values()]
        space = storage.inside(folder).partition("/")[2]
        known: dict[str, Any] = orjson.loads(next(iter(about.values()), b"{}"))
        yield KeptSpace(
            space,
            known,
            {str(note["flow"]): float(note["used"]) for note in notes},
        )


def counted_spaces(storage: Storage) -> Iterator[KeptSpace]:
    """What the ledger has, with all that its answers took."""
    for known in known_spaces(storage):
        llm = _llm_of(known.about)
        counted, prices = known, list[float | None]()
        for answer in answers_in(storage, known.space):
            usage = usage_of(answer["output"])
            counted = replace(
                counted,
                answers=counted.answers + 1,
                batched=counted.batched + answer["batch"],
                input_tokens=counted.input_tokens + sum(each["input_tokens"] for each in usage),
                output_tokens=counted.output_tokens + sum(each["output_tokens"] for each in usage),
            )
            found = [price_of(llm, each, batch=answer["batch"]) for each in usage] if llm is not None else [None]
            prices += [price and price.dollars for price in found]
        known_prices = [each for each in prices if each is not None]
        yield replace(counted, dollars=sum(known_prices) if len(known_prices) == len(prices) else None)


def _llm_of(about: dict[str, Any]) -> LLM | None:
    """The adapter that was asked; None where it can't be made here: a class of one's own, perhaps."""
    address = {"base_url": about["url"]} if about.get("url") else {}
    try:
        return _ANY_LLM.validate_python({**about.get("llm", {}), **address})
    except (ValueError, LLMError):
        return None


def answers_in(storage: Storage, space: str) -> Iterator[dict[str, Any]]:
    """Every answer of a space once, the latest of each question."""
    store = Store(storage, space)
    try:
        for is_latest, letter, key, record in store.lines():
            # An answer in parts is told by these.
            if letter == "o" and is_latest and "w" not in record:
                yield {
                    "key": key,
                    "output": record["o"],
                    "attempt": record["x"],
                    "time": record["t"],
                    "batch": bool(record.get("b")),
                }
    finally:
        store.close()


def exported(storage: Storage, spaces: Iterable[KeptSpace]) -> Iterator[bytes]:
    """Lines of JSON, one for each answer, with its prompt where that is known."""
    for each in spaces:
        prompts = KnownPrompts(storage, storage.path(FOLDER, each.space))
        try:
            for answer in answers_in(storage, each.space):
                about = {"model": each.model, "address": each.address, "space": each.space}
                yield orjson.dumps({**about, "prompt": prompts.find(answer["key"]), **answer})
        finally:
            prompts.close()
