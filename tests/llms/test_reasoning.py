"""What a model thought before its answer stands beside it, by whichever name the provider has for it."""

from __future__ import annotations

from typing import Any

import pytest

from llms.base import combined
from llms.outputs import first_generations
from llms.providers.openai import CHAT, parse_answer
from tests.scripted import completion

PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Waves, "}, {"type": "text", "text": "tides."}]},
    {"type": "text", "text": "The sea."},
]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_beside_the_answer_are_kept(name: str) -> None:
    output = parse_answer(completion("The sea.", message={name: "Waves, tides."}), CHAT)

    assert (output["generations"], output.get("reasoning")) == (["The sea."], ["Waves, tides."])


def test_thoughts_that_are_parts_of_the_answer_are_kept_beside_it() -> None:
    reply = completion()
    reply["choices"][0]["message"]["content"] = PARTS

    output = parse_answer(reply, CHAT)

    assert (output["generations"], output.get("reasoning")) == (["The sea."], ["Waves, tides."])


@pytest.mark.parametrize("message", [{}, {"reasoning": None}, {"reasoning": ""}, {"reasoning": {"odd": 1}}])
def test_an_answer_without_thoughts_has_no_place_for_them(message: dict[str, Any]) -> None:
    assert "reasoning" not in parse_answer(completion("The sea.", message=message), CHAT)


def test_thoughts_stay_with_their_answer_among_several() -> None:
    with_thoughts = parse_answer(completion("a", message={"reasoning": "why"}), CHAT)
    several = combined([parse_answer(completion("b"), CHAT), with_thoughts])

    assert several.get("reasoning") == [None, "why"]
    assert first_generations(several, 1).get("reasoning") == [None]
