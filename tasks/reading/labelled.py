"""Reading replies made of labelled fields (`Rationale: ...`, `Rating: 4`), and choices among given ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from llms.parameters import short
from tasks.base import UnreadableAnswerError
from tasks.reading.replies import object_in, whole_number, without_fences, without_thoughts
from tasks.typing import Row

Fields: TypeAlias = list[tuple[str, Any]]
"""Labels (`rating`, `rationale`, `rationale_for_rating`, `type`, or empty) and what was said under them."""

LABEL = re.compile(
    r"^[\s>#*_`•+-]*+(?:\d+[.)]\s*+)?[\s*_`]*+"
    r"(?P<label>(?:\w+[ ])?types?(?:[ ]of[ ]\w+)?|(?:overall[ ]|final[ ])?(?:rating|score)"
    r"|(?:rationales?|reasons?|explanation|justification)(?:[ ]for[ ](?:the[ ])?(?:rating|type|score))?)"
    r"[*_`]*\s*(?:\([^)]*\))?[*_`]*\s*(?:(?:[:=：]|\s[–—-]\s)(?P<text>.*)|)$",
    re.IGNORECASE,
)
REASON_BESIDE_RATING = re.compile(
    r"^(?P<rating>.{1,40}?)[\s|;,.–—-]+(?P<reason>[*_]*(?:rationale|explanation|justification)\b[^:]{0,20}:.*)$",
    re.IGNORECASE,
)


def fields_in(lines: Sequence[str]) -> Fields:
    """The labelled texts of a block: label and text, which goes on until the next label."""
    fields: list[tuple[str, list[str]]] = []
    pending = list(lines)
    while pending:
        line = pending.pop(0)
        found = LABEL.match(line)
        if found is None:
            if fields:
                fields[-1][1].append(line)
            continue
        label, rest = label_of(found["label"]), found["text"] or ""
        beside = REASON_BESIDE_RATING.match(rest) if label == "rating" else None
        if beside:
            rest, pending = beside["rating"], [beside["reason"], *pending]
        fields.append((label, [rest]))
    return [(label, tidy("\n".join(parts))) for label, parts in fields]


def label_of(text: str) -> str:
    """The field that a label means, however it was written; empty for none."""
    words = re.sub(r"[^a-z]+", " ", text.lower()).strip()
    about_rating = re.search(r"\b(?:for|of) (?:the )?(?:rating|score)s?$|^rating rationale", words)
    if re.match(r"(?:rationale|reason|explanation|justification)", words) or words == "rating rationale":
        return "rationale_for_rating" if about_rating else "rationale"
    if re.fullmatch(r"(?:overall |final )?(?:rating|score)s?", words):
        return "rating"
    return "type" if re.fullmatch(r"(?:\w+ )?types?(?: of \w+)?", words) else ""


def tidy(text: str) -> str:
    """A field's text without the rules and the stray markup around it."""
    text = re.sub(r"(?:\n\s*(?:-{3,}|\*{3,}|_{3,}|={3,})\s*)+$", "", text.rstrip()).strip()
    return text.replace("**", "").strip() if text.count("**") % 2 else text


def fields_of(record: Row) -> Fields:
    return [(label_of(name), value) for name, value in record.items() if label_of(name)]


SCORE_IN_LINE = re.compile(
    r"(?<=[.!?)])[^\S\n]+(?=[*_]*(?:(?:final|overall)[ ])?(?:score|rating)[*_]*\s*[:=])", re.IGNORECASE
)
OPENING = re.compile(
    r"^[\s#*_>]*(?:rationale|reason(?:ing|s)?|explanation|justification|feedback|analysis|evaluation|assessment|critique"
    r"|comparison|comments?)[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)


def reason_and_score(text: str, lowest: int, highest: int, name: str = "score") -> tuple[str, int]:
    """The reason and the score in a reply: labelled lines in any order, a reason without a label, or a JSON object.

    Args:
        text: the reply, or the part of it that is about one thing.
        lowest: the lowest score.
        highest: the highest score.
        name: what is scored, for the error message.

    Raises:
        UnreadableAnswerError: there's no score or more than one, it isn't a whole number in the range, or there's
            no reason.
    """
    said = SCORE_IN_LINE.sub("\n", without_fences(without_thoughts(text)))
    fields = fields_in(said.splitlines())
    if said.startswith("{") or ("{" in said and not any(label == "rating" for label, _ in fields)):
        return reason_and_score_of(object_in(said), lowest, highest, name)
    if not any(label.startswith("rationale") and value for label, value in fields):
        fields.append(("rationale", unlabelled_reason(said, fields)))
    return only_reason_and_score(fields, lowest, highest, name)


def reason_and_score_of(record: Row, lowest: int, highest: int, name: str = "score") -> tuple[str, int]:
    """The reason and the score in an object of a reply. Raises UnreadableAnswerError, as `reason_and_score` does."""
    return only_reason_and_score(fields_of(record), lowest, highest, name)


def only_reason_and_score(fields: Fields, lowest: int, highest: int, name: str) -> tuple[str, int]:
    scores = [value for label, value in fields if label == "rating"]
    if len(scores) != 1:
        raise UnreadableAnswerError(f"{name}: expected one score from {lowest} to {highest}, found {len(scores)}")
    reasons = [value for label, value in fields if label.startswith("rationale") and value]
    if not reasons or not all(isinstance(reason, str) for reason in reasons):
        raise UnreadableAnswerError(f"{name}: expected a reason beside the score, got {short(reasons)}")
    return "\n".join(reasons), whole_number(scores[0], lowest, highest, name)


def unlabelled_reason(text: str, fields: Fields) -> str:
    """What stands before the first label or, where nothing does, below the score."""
    lines = text.splitlines()
    first = next((place for place, line in enumerate(lines) if LABEL.match(line)), len(lines))
    before = without_opening("\n".join(lines[:first]))
    below = next((str(value).partition("\n")[2] for label, value in fields if label == "rating"), "")
    return tidy(before) or tidy(below)


def without_opening(text: str) -> str:
    """A reason without the word that introduces it, such as `Feedback:`."""
    return OPENING.sub("", text.strip()).strip()


def one_of(said: Any, choices: Sequence[str], name: str) -> str:
    """The one of `choices` that was said, whatever its case and the quotes and markup around it.

    Raises:
        UnreadableAnswerError: it's none of them, or it could be two.
    """
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    alike = [choice for choice in choices if bare(choice) == bare(text)]
    if text in choices:
        return text
    if len(alike) != 1:
        raise UnreadableAnswerError(f"{name}: expected one of {short(list(choices))}, got {short(said)}")
    return alike[0]


def bare(text: str) -> str:
    """A text without what is of no weight in a label: case, markup, quotes, spacing, `_` or `-` for a space."""
    return re.sub(r"[\s_-]+", " ", text.strip(" \t\r\n*_`\"'“”‘’.,;:!<>[]")).casefold()


LETTER = re.compile(
    r"^[\W_]*+(?:(?:the\s+)?(?:response|answer|assistant|option|generation|output|candidate)\s*+)?[\W_]*+(?P<letter>[AB])"
    r"(?:[\s*_`)\]\"'>]*$"
    r"|[*_`)\]\"'>]*\s*(?:[.,;:(–—-]|wins\b"
    r"|is\s+(?:(?!(?:not?|never|hardly|barely|scarcely|less|least|neither|from)\b)\w+\s+){0,2}"
    r"(?:better|best|preferred|stronger)\b)"
    r"(?P<rest>.*)$)",
    re.IGNORECASE,
)
OTHER_LETTER = re.compile(
    r"^\W*+(?:or|and|vs\.?)?\W*+[AB]\b|^\W*+(?:tied?|draw|equal)\b"
    r"|\b[AB][*_`)\]\"']*\s*(?:[:=]|wins\b|is\s+(?:\w+\s+){0,2}(?:better|best|preferred|stronger)\b)"
)
"""What takes back that a letter was chosen."""


def letter_of(said: Any, name: str) -> str:
    """`A` or `B`, whichever was said: `A`, `(B)`, `Response A`, `B is better`. Raises UnreadableAnswerError."""
    found = LETTER.match(said.strip().partition("\n")[0]) if isinstance(said, str) else None
    if found is None or not (found["letter"].isupper() or said.strip() in {"a", "b"}):
        raise UnreadableAnswerError(f"{name}: expected A or B, got {short(said)}")
    if found["rest"] and OTHER_LETTER.search(found["rest"]):
        raise UnreadableAnswerError(f"{name}: expected A or B, got more in {short(said)}")
    return found["letter"].upper()
