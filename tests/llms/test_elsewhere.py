"""Classes that distilabel has and this project hasn't: what a program that imports them is told."""

from __future__ import annotations

import pytest

import llms

DISTILABELS = ["vLLMEmbeddings", "LlamaCppEmbeddings", "AnyscaleLLM"]


@pytest.mark.parametrize("name", DISTILABELS)
def test_a_class_that_is_not_here_says_what_to_write(name: str) -> None:
    with pytest.raises(ImportError, match=f"there is no {name} here: .*coming-from-distilabel"):
        getattr(llms, name)


def test_any_other_name_is_unknown_as_in_every_module() -> None:
    assert not hasattr(llms, "Nothing")
