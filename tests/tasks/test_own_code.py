"""What decides the rows of a user's own step: its class, and all of the user's code and constants that this needs."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import AsyncLLM
from llms.typing import FormattedInput
from tasks.base import Task
from tasks.own_code import own_code

MODULE = '''
import re
from functools import lru_cache, partial
from tasks import Task, step
import my_prompts

PROMPT = "Say {q}"
WORDS = {"quiet": ["a", {"b"}], "loud": ("c", re.compile("d", re.I))}
ASKED = []
COUNTS = {"rows": 0}
NUMBER = 0

def inner(text): return text.strip()
def parsed(text): return inner(text)
@lru_cache
def kept(text): return text.title()
cut = partial(kept, text="x")
def keyed(text):
    """Not read."""
    return {"a": parsed, "b": lambda each: each}["a"](text)  # Nor this.

class Mixin:
    ending = PROMPT[-1]
    def end(self, text): return text + "."

class Base(Mixin, Task):
    @property
    def inputs(self): return ["q"]
    @property
    def outputs(self): return ["a", "model_name"]
    @staticmethod
    def asked(input): return PROMPT.format(q=input["q"]) + my_prompts.ENDING

class Own(Base):
    def format_input(self, input):
        global NUMBER
        NUMBER += 1
        COUNTS["rows"] += 1
        ASKED.append(input["q"])
        return [{"role": "user", "content": self.asked(input)}]
    def format_output(self, output, input):
        return {"a": keyed(self.end(output)) + str(WORDS) + cut() + str((ASKED, COUNTS, NUMBER))}

def keeping(most):
    @step(inputs=["q"], outputs=["q"])
    def few(rows): yield rows[:most]
    return few
'''

Made = Callable[..., Any]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Makes the modules, with a piece of text replaced by another."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(old: str = "", new: str = "", ending: str = "!") -> Any:
        assert old in MODULE
        (tmp_path / "my_prompts.py").write_text(f"ENDING = {ending!r}\n")
        (tmp_path / "my_steps.py").write_text(MODULE.replace(old, new))
        for name in ("my_prompts", "my_steps"):
            sys.modules.pop(name, None)
        linecache.clearcache()
        importlib.invalidate_caches()
        return importlib.import_module("my_steps")

    yield make
    for name in ("my_prompts", "my_steps"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('PROMPT = "Say {q}"', 'PROMPT = "Shout {q}"'),
        ('["a", {"b"}]', '["a", {"B"}]'),
        ('re.compile("d", re.I)', 're.compile("d")'),
        ("text.strip()", "text.lstrip()"),
        ("text.title()", "text.lower()"),
        ('text="x"', 'text="y"'),
        ('text + "."', 'text + "?"'),
        ('return ["q"]', "return ['q', 'r']"),
        ("my_prompts.ENDING", "my_prompts.ENDING * 2"),
        ("lambda each: each", "lambda each: None"),
    ],
)
def test_a_change_of_what_an_own_class_needs_makes_it_another(made: Made, old: str, new: str) -> None:
    before = own_code(made().Own)

    assert own_code(made(old, new).Own) != before
    assert own_code(made().Own) == before


def test_a_change_in_another_module_of_the_users_counts_too(made: Made) -> None:
    assert own_code(made(ending="?").Own) != own_code(made(ending="!").Own)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ASKED = []", 'ASKED = ["a"]'),
        ("NUMBER = 0", "NUMBER = 5"),
        ('COUNTS = {"rows": 0}', 'COUNTS = {"rows": 7}'),
        ('    """Not read."""\n', ""),
        ("# Nor this.", ""),
        ("def keeping", "UNREAD = 1\ndef keeping"),
    ],
)
def test_what_the_code_changes_itself_or_does_not_read_makes_no_difference(made: Made, old: str, new: str) -> None:
    assert own_code(made(old, new).Own) == own_code(made().Own)


def test_what_a_function_closes_over_counts(made: Made) -> None:
    module = made()

    assert module.keeping(3)().identity() == module.keeping(3)().identity()
    assert module.keeping(3)().identity() != module.keeping(5)().identity()


class Alone(Task):
    """Needs nothing."""

    @property
    def inputs(self) -> list[str]:
        return ["q"]

    @property
    def outputs(self) -> list[str]:
        return ["a"]

    def format_input(self, input: dict[str, Any]) -> FormattedInput:
        return input["q"]

    def format_output(self, output: str | None, input: dict[str, Any]) -> dict[str, Any]:
        return {"a": output}


def test_a_class_that_needs_nothing_more_has_the_digest_of_its_own_source() -> None:
    from llms.code import code_digest

    assert own_code(Alone) == {"code": code_digest(Alone)}


class Echo(AsyncLLM):
    """Gives a prompt back, and keeps count."""

    @property
    def model_name(self) -> str:
        return "echo"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> Any:
        SENT.append(input)
        return [f" {input[-1]['content']} "] * num_generations  # pyright: ignore


SENT: list[Any] = []


def test_a_changed_prompt_is_asked_and_a_mended_parser_reads_what_is_kept(storage: Path, made: Made) -> None:
    def rows_with(*change: str) -> str:
        SENT.clear()
        return collect(load([{"q": "x"}]).map(made(*change).Own(llm=Echo())))["a"][0]

    assert rows_with().startswith("Say x! .")
    assert len(SENT) == 1
    assert rows_with("text.strip()", "text.strip().upper()").startswith("SAY X! .")
    assert SENT == []
    assert rows_with("Say {q}", "Shout {q}").startswith("Shout x! .")
    assert len(SENT) == 1
