"""Final answers of mathematical problems: where they stand in a solution, and whether two of them are the same."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

ANSWER = re.compile(
    r"(?:\b(?:so|thus|hence|therefore)\b[\s,]*)?\b(?:the|our|my)\s+(?:final\s+|correct\s+)?answer\s*(?:is|=|:)\s*:?"
    r"(?!\s*(?:not|indeed|correct|right|wrong|verified|confirmed|consistent|reasonable)\b)"
    r"|^[^\w\n]*(?:final\s+)?answer[\s*_]*[:=]|^[^\w\n]*#{4}",
    re.IGNORECASE | re.MULTILINE,
)
"""What announces a final answer: `The answer is: 18`, `**Final answer:** 18`, or GSM8K's `#### 18`.

`The answer is correct` announces nothing.
"""

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
DISPLAY = re.compile(r"\\[\[\]()]|\$\$")
SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)[.!;]\s+(?=[A-Z])")


def split_answer(text: str) -> tuple[str, str | None]:
    """A text before its final answer, and the answer as it was written; None where it has none.

    The last announcement counts. Where there's none, it's what the last `\\boxed{}` holds, and the text stays whole.
    """
    announced = list(ANSWER.finditer(text))
    if announced:
        after = DISPLAY.sub(" ", text[announced[-1].end() :])
        lines = (line.strip(" \t*_`:") for line in after.splitlines())
        found = SENTENCE_END.split(next((line for line in lines if line), ""))[0].rstrip(" .*_`")
        return text[: announced[-1].start()], found or None
    return text, boxed_in(text)


def boxed_in(text: str) -> str | None:
    """What the last `\\boxed{}` holds, or None."""
    starts = [found.end() for found in BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for place in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[starts[-1] : place].strip() or None
    return None


def same_answer(one: str, other: str) -> bool:
    """Whether two final answers say the same.

    Numbers are compared by their exact values: `1,000` and `1000`, `0.5`, `1/2`, `½` and `\\frac{1}{2}`, `1 1/2` and
    `1.5`, `3 million` and `3e6`. A currency sign, `%` and words after a number are units: they don't count, unless
    both answers have one and they are different measures (`3 hours` and `3 minutes`). A percentage is its number: `50%`
    is `50`, not `0.5`. Rounding isn't undone: `0.33` is not `1/3`. Anything else is compared as text, without spaces,
    case and LaTeX layout; of `x = 5` the right side. Nothing is computed but fractions and powers of ten.
    """
    left, right = read_answer(one), read_answer(other)
    if left.value is None or right.value is None:
        return left.value is right.value and left.text == right.text
    return left.value == right.value and (not left.unit or not right.unit or left.unit == right.unit)


@dataclass(frozen=True)
class ReadAnswer:
    """A final answer as it's compared: a number and its measure, or a text."""

    text: str
    value: Fraction | None = None
    unit: str = ""


def read_answer(written: str) -> ReadAnswer:
    text = plain(written)
    found = NUMBER.match(text) if len(text) <= LONGEST_NUMBER else None
    value = value_of(found) if found else None
    if found is None or value is None:
        return ReadAnswer(compact(text))
    words = re.findall(r"[^\W\d_]+|%", found["unit"])
    for word in words[:1]:
        value *= MAGNITUDES.get(word.lower(), 1)
    words = [word for word in words if word.lower() not in MAGNITUDES]
    unit = MEASURES.get(words[0].lower(), "") if words else ""
    return ReadAnswer("", -value if found["sign"] == "-" else value, unit or ("dollar" if in_dollars(written) else ""))


# From here on: a number as it's written. No digits may stand in what follows it, and no sign of a formula.

WORD = (
    r"(?!(?:and|or|to|plus|minus|times|over|pi|sqrt|root|mod|squared|cubed|factorial|tens|halves|thirds)\b)"
    r"(?:[^\W\d_](?:[^\W\d_]|[./'’-]){2,}|(?:mm|cm|km|ft|mi|mg|kg|oz|lb|ml|cc|sq|hr|yr|am|pm|[kmgt]b|hz|k[wv]|mv"
    r"|of|in|on|at|by|an|as|is|it|we|he)\b|[mglhsa]\b)(?:\^\{?[23]\}?)?"
)
"""A word after a number. Of two letters, only what is known for one: `3 ab` is a product."""

WHOLE = r"\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+"
DECIMAL = rf"(?:(?:{WHOLE})(?:\.\d*)?|\.\d+)"
NUMBER = re.compile(
    rf"^(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s+(?=\d+\s*/))?(?P<value>{DECIMAL})"
    rf"(?:\s*/\s*(?P<below>{DECIMAL})|\s*(?:e|\*\s*10\s*\^)\s*\{{?(?P<power>[+-]?\d{{1,3}})\}}?(?!\d))?"
    rf"(?P<unit>\s*%?|(?:\s+{WORD})+|\s*(?:kg|km|cm|mm|mg|ml|lbs?|oz|ft|min|hrs?|am|pm|mph)\b(?:\s+{WORD})*)"
    r"(?:\s*\(.*|\s*,\s*(?:which|since|because|as|so)\b\D*)?$",
    re.IGNORECASE,
)

LONGEST_NUMBER = 200
"""In characters, with its unit. Anything longer is compared as text."""

MAGNITUDES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

MEASURES = {
    word: names.split()[0]
    for names in (
        "second seconds sec secs s",
        "minute minutes min mins",
        "hour hours hr hrs h",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "millimetre millimetres millimeter millimeters mm",
        "centimetre centimetres centimeter centimeters cm",
        "metre metres meter meters m",
        "kilometre kilometres kilometer kilometers km",
        "inch inches",
        "foot feet ft",
        "yard yards",
        "mile miles",
        "milligram milligrams mg",
        "gram grams g",
        "kilogram kilograms kg",
        "ounce ounces oz",
        "pound pounds lb lbs",
        "millilitre millilitres milliliter milliliters ml",
        "litre litres liter liters l",
        "cent cents",
        "dollar dollars",
        "percent %",
        "degree degrees",
        "am",
        "pm",
    )
    for word in names.split()
}
"""The measures that are told apart, by each way to write them."""


def value_of(found: re.Match[str]) -> Fraction | None:
    """The number without its sign; None where it's none (`1/0`, `2 0.5`)."""
    value = fraction_of(found["value"])
    if found["whole"]:
        proper = found["below"] and "." not in found["value"] + found["below"]
        return int(found["whole"]) + value / int(found["below"]) if proper and int(found["below"]) else None
    if found["below"]:
        below = fraction_of(found["below"])
        return value / below if below else None
    return value * Fraction(10) ** int(found["power"]) if found["power"] else value


def fraction_of(digits: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", digits).removesuffix("."))


def in_dollars(written: str) -> bool:
    """Whether a dollar sign is one of money: escaped, or without another that would make a formula of it."""
    return "\\$" in written or written.count("$") % 2 == 1


# From here on: the layout that is taken off, of LaTeX, Markdown and Unicode.

LAYOUT = (
    (r"<<[^<>]*>>", ""),
    (r"\\(?:left|right|displaystyle|limits)\b|\\[!,;: ]|\\?[$€£¥]|\{,\}(?!\d{3})|(?<!\w)\*\*|\*\*(?!\w)", ""),
    (r"\{,\}", ","),
    (r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\[dtc]frac\b", r"\\frac"),
    (r"(\d)\s*(?=\\frac)", r"\1 "),
    (r"\\frac\s*\{\s*(-?[\w.]+)\s*\}\s*\{\s*([\d.]+|\w)\s*\}", r"\1/\2"),
    (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
    (r"\\frac\s*(\d)\s*(\d)", r"\1/\2"),
    (r"\^\s*\{?\s*\\circ\s*\}?|°", " degrees"),
    (r"\\%", "%"),
    (r"\\(?:cdot|times)\b|×|·", "*"),
    (r"\\pi\b|π", "pi"),
    (r"[−–]", "-"),
    (r"²", "^2"),
    (r"³", "^3"),
    (r"(?<=\d)(?=[¼½¾⅐-⅞])", " "),
)

ABOUT = re.compile(r"^(?:(?:about|approximately|roughly|around|exactly|only)\b|≈|~|\\approx)\s*", re.IGNORECASE)


def plain(written: str) -> str:
    """An answer without its layout, on one line."""
    text = boxed_in(written) or written
    for pattern, replacement in LAYOUT:
        text = re.sub(pattern, replacement, text)
    text = " ".join(unicodedata.normalize("NFKC", text).replace("\u2044", "/").split()).strip(" *_`'\"")
    text = ABOUT.sub("", text)
    sides = re.fullmatch(r"[^=,]*[^=,<>!:]\s*=\s*([^=]+)", text)
    return (sides[1] if sides else text).rstrip(" .;:")


def compact(text: str) -> str:
    """A text as it's compared: without spaces, case, braces around a sign or number, and brackets around a letter."""
    text = re.sub(r"\{(\d+|\w)\}", r"\1", re.sub(r"[\s\\]", "", text)).lower()
    return re.sub(r"^\((\w)\)$", r"\1", text)
