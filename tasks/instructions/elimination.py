"""Reading an evolution, and the rules by which one has failed.

They are those of WizardLM (https://arxiv.org/abs/2304.12244, "elimination evolving"): no gain over what it was made
from, words copied from the prompt that asked for it, no content, or an answer that is a refusal. The paper lets an LLM
judge the gain; here only a text that is the same again has none.
"""

from __future__ import annotations

import re

from llms.parameters import short
from tasks.base import UnreadableAnswerError
from tasks.reading.replies import object_in, tagged, without_thoughts
from tasks.writing.text_generation import text_of

PREFACE = re.compile(
    r"^[\W_]*(?:sure|certainly|of course|absolutely|great|ok(?:ay)?|here|below|this|that|the|my|i)\b"
    r"[^\n:]*\b(?:rewritten|new|evolved|created|improved|revised|updated)\b[^\n:]{0,40}"
    r"\b(?:prompt|instruction|response|answer|version|question)\b[^\n:]*:[*_ ]*\n+",
    re.IGNORECASE,
)
TITLE = re.compile(
    r"^[#*_\s]*(?:the\s+)?(?:new|rewritten|evolved|created|improved|revised)[ _]"
    r"(?:prompt|instruction|response|answer|version)[#*_ ]*(?::[#*_\s]*|\n+)",
    re.IGNORECASE,
)
FENCED = re.compile(r"^```(?:text|plaintext|markdown|md)?\n(?P<text>(?:(?!^```).)*)\n```$", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"^(?:\"(?P<plain>[^\"]*)\"|“(?P<curly>[^“”]*)”)$", re.DOTALL)

COPIED = re.compile(
    r"\b(?:given|rewritten|created|evolved)[ _](?:prompt|instruction|response)\b|\bnew_(?:instruction|response)\b"
    r"|</?(?:instruction|response)>",
    re.IGNORECASE,
)
SORRY = re.compile(
    r"^\W*(?:(?:i['’]?m|i am|we['’]?re)\s+(?:\w+\s+)?(?:sorry|afraid)|sorry|i apologi[sz]e|my apologies|unfortunately"
    r"|as an ai|i\s+(?:can(?:no|['’])t|cannot|won['’]t|am unable|am not able)|i['’]?d rather not)\b",
    re.IGNORECASE,
)
UNWILLING = re.compile(
    r"\b(?:can(?:no|['’])t|cannot|unable to|not able to|won['’]t|rather not|must decline)\s+(?:\w+\s+){0,2}?"
    r"(?:help|assist|rewrite|comply|fulfil|provide|create|generate|answer|evolve|complete|continue|do|write|make)",
    re.IGNORECASE,
)
FEW_WORDS = 80
"""A refusal has fewer, by the paper."""

_STOP_TEXT = (
    "a about all also am an and any are as at be been but by can could did do does for from had has have he her here "
    "his how i if in into is it its just me more most my no nor not of on or our out over own same she should so some "
    "such than that the their them then there these they this those to too under up very was we were what when where "
    "which while who whom why will with would you your"
)
WITHOUT_CONTENT = frozenset(_STOP_TEXT.split())
"""Stop words: a text that has no other says nothing."""


def rewritten_in(output: str | None, key: str) -> str:
    """The text that an answer gives under `key`: as JSON, between tags, or alone.

    Raises:
        UnreadableAnswerError: there's none, or it's cut off.
    """
    said = without_thoughts(text_of(output)).strip()
    if "<think>" in said:
        raise UnreadableAnswerError(f"the answer ends in its thoughts: {short(said)}")
    found = tagged(said, key)
    if found is None and re.search(rf"\{{\s*[\"']{key}[\"']\s*:", said):
        value = object_in(said, key)[key]
        if not isinstance(value, str):
            raise UnreadableAnswerError(f"{key}: expected a text, got {short(value)}")
        found = value
    return plain_text(said) if found is None else found.strip()


def plain_text(text: str) -> str:
    """A text without a preface, a title, a code fence or quotation marks around it."""
    text = TITLE.sub("", text if TITLE.match(text) else PREFACE.sub("", text, count=1), count=1).strip()
    fenced = FENCED.match(text)
    text = fenced["text"].strip() if fenced else text
    quoted = QUOTED.match(text)
    return (quoted["plain"] or quoted["curly"] or "").strip() if quoted else text


def check_evolution(evolved: str, before: str = "") -> None:
    """Raises UnreadableAnswerError where `evolved` is no evolution of `before`; the message says why."""
    check_content(evolved)
    if normal(evolved) == normal(before):
        raise UnreadableAnswerError(f"the evolution is the same as before: {short(evolved)}")
    known = normal(before)
    copied = next((found[0] for found in COPIED.finditer(evolved) if normal(found[0]) not in known), None)
    if copied is not None:
        raise UnreadableAnswerError(f"the evolution copies {copied!r} from its prompt: {short(evolved)}")
    if is_refusal(evolved) and not is_refusal(before):
        raise UnreadableAnswerError(f"the model refused: {short(evolved)}")


def check_answer(answer: str) -> None:
    """Raises UnreadableAnswerError where the answer to an evolved instruction shows that it can't be answered."""
    check_content(answer)
    if re.search(r"\bsorry\b", answer, re.IGNORECASE) and len(answer.split()) < FEW_WORDS:
        raise UnreadableAnswerError(f"the evolved instruction was refused: {short(answer)}")


def check_content(text: str) -> None:
    """Raises UnreadableAnswerError where a text has nothing but punctuation and stop words."""
    if all(word in WITHOUT_CONTENT for word in re.findall(r"\w+", text.lower())):
        raise UnreadableAnswerError(f"expected a text with content, got {short(text)}")


def is_refusal(text: str) -> bool:
    """Whether a text is a model's refusal: short, with an apology or the like first and unwillingness after it."""
    return SORRY.match(text) is not None and UNWILLING.search(text) is not None and len(text.split()) < FEW_WORDS


def normal(text: str) -> str:
    """A text without regard to case, spacing and punctuation at its ends."""
    return re.sub(r"^\W+|\W+$", "", " ".join(text.lower().split()))
