"""Classes that distilabel has and this project hasn't: what a program that imports them is told."""

from __future__ import annotations

import importlib

import pytest

DISTILABELS = [
    *("vLLM", "TransformersLLM", "LlamaCppLLM", "MlxLLM", "vLLMEmbeddings", "LlamaCppEmbeddings"),
    "AnyscaleLLM",
]


@pytest.mark.parametrize("name", DISTILABELS)
def test_a_class_that_is_not_here_says_what_to_write(name: str) -> None:
    with pytest.raises(ImportError, match=f"there is no {name} here: .*coming-from-distilabel"):
        getattr(importlib.import_module("llms"), name)


def test_an_engine_is_reached_by_the_class_of_its_server() -> None:
    with pytest.raises(ImportError, match=r"ClientvLLM\(model=..., base_url='http://localhost:8000/v1'\)"):
        _ = importlib.import_module("llms").vLLM


def test_any_other_name_is_unknown_as_in_every_module() -> None:
    assert not hasattr(importlib.import_module("llms"), "Nothing")
