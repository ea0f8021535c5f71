"""What tells one question from another: digests of what goes to the provider, the same in every process and version.

A change of what is digested here, or of `LLM.addressee` and `LLM.question`, asks everybody's answers again:
tests/llms/questions.json pins it.
"""

from __future__ import annotations

import hashlib

from flows.store.digest import digest
from llms.base import LLM
from llms.typing import FormattedInput

RUN_SUFFIX = "-run-"
"""In the name of a space that one run has for itself, which used no cache."""


def space_of(llm: LLM, run: str = "") -> str:
    """The name of the part of the ledger that holds the questions to this model with these parameters.

    Args:
        run: the id of a run that has a ledger of its own.
    """
    return digest(llm.addressee()) + (f"{RUN_SUFFIX}{run}" if run else "")


def question_of(llm: LLM, given: FormattedInput, num_generations: int) -> str:
    """What is asked, as 32 hexadecimal digits. Raises LLMError where it can't be asked in any form."""
    return digest(llm.question(given, num_generations))


def key_of(question: str, lane: int, number: int) -> str:
    """The key of one of equal questions.

    Args:
        lane: which of the steps of a run that ask alike.
        number: which of the step's equal questions.
    """
    return _digest(f"{question} {lane} {number}")


def later_key(root: str, question: str, number: int) -> str:
    """The key of a further question of a row, whose first one has the key `root`; `number` tells equal ones apart."""
    return _digest(f"{root} {question} {number}")


def part_keys(key: str, parts: int) -> list[str]:
    """The keys of the requests that a question is sent as."""
    return [key] if parts == 1 else [_digest(f"{key} part {part}") for part in range(parts)]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
