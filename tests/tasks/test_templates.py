"""Templates of one's own: what is refused before it is sent."""

from __future__ import annotations

import pytest

from llms import OpenAILLM
from tasks import TextGeneration
from tasks.templates import checked

OTHER_SYNTAXES = {"{query}": "Rewrite {query}.", "${query}": "{{ tone }}: ${query}", "%(query)s": "Rewrite %(query)s."}
MEANT = [
    "Rewrite {{ query }}.",
    'Rewrite {{query}} as JSON, such as {"name": 1}.',
    r"\\frac{abc}{def} is {{ query }}, and x_{min} too.",
    "{% if query %}{{ query }}{% endif %}",
    "Write {{ '{query}' }} where the query is to stand.",
    "A set {a, b} and a body { return 1 }: {{ query }}",
]


@pytest.mark.parametrize("written", OTHER_SYNTAXES)
def test_a_variable_in_another_syntax_is_refused_with_the_right_one(written: str) -> None:
    with pytest.raises(ValueError, match=r"would be sent as it stands: .* \{\{ query \}\}") as raised:
        TextGeneration(llm=OpenAILLM(model="m"), template=OTHER_SYNTAXES[written], columns=["query"])

    assert repr(written) in str(raised.value)


@pytest.mark.parametrize("template", MEANT)
def test_braces_that_are_no_variable_are_taken(template: str) -> None:
    assert checked(template) == template
