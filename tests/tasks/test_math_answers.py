"""Final answers: where they stand, and which of them are the same."""

from __future__ import annotations

import pytest

from tasks.math.math_answers import same_answer, split_answer

SAME = [
    ("18", "18.00"),
    ("1,000", "1000"),
    ("1 000", "1000"),
    ("1,234.50", "1234.5"),
    ("$1{,}200$", "1200"),
    ("1\\,000", "1000"),
    ("$18", "18 dollars"),
    ("$18$", "18"),
    ("-$5", "-5"),
    ("\\$18.50", "18.5"),
    ("€18", "18"),
    ("−5", "-5"),
    (".5", "0.5"),
    ("\\boxed{18}", "18"),
    ("$\\boxed{\\frac{1}{2}}$", "0.5"),
    ("\\frac12", "1/2"),
    ("\\dfrac{-1}{2}", "-0.5"),
    ("½", "0.5"),
    ("1½", "1 1/2"),
    ("1\\frac{1}{2}", "1.5"),
    ("50%", "50"),
    ("50\\%", "50 percent"),
    ("18 eggs", "18"),
    ("18 ice-cream cones", "18"),
    ("60 km/h", "60"),
    ("5 cm^2", "5"),
    ("12kg", "12 kilograms"),
    ("18 \\text{ dollars}", "18"),
    ("90^\\circ", "90°"),
    ("about 3.5 hours", "3.5"),
    ("3 million", "3,000,000"),
    ("2 hundred", "200"),
    ("3e6", "3 million dollars"),
    ("1.5\\times 10^{3}", "1500"),
    ("2 dozen eggs", "24"),
    ("x = 5", "5"),
    ("9 * 2 = 18", "18"),
    ("<<9*2=18>>18", "18"),
    ("18 (that is 9 * 2)", "18"),
    ("18 eggs, since she sells all", "18"),
    ("**18**", "18"),
    ("(B)", "b"),
    ("Monday", "\\text{monday}"),
    ("(1, 2)", "(1,2)"),
    ("x^{2} + 1", "x^2+1"),
    ("x²", "x^2"),
    ("2\\pi", "2π"),
    ("y = 2x + 3", "2x+3"),
    ("\\left(\\frac{1}{2}, 3\\right)", "(1/2, 3)"),
    ("2^{10}", "2^10"),
    ("\\frac{x}{y}", "x/y"),
    ("5xy", "5 xy"),
    ("5 GB", "5"),
    ("3 of them", "3"),
]

DIFFERENT = [
    ("18", "19"),
    ("-5", "5"),
    ("0.33", "1/3"),
    ("0.5", "50%"),
    ("3 hours", "3 minutes"),
    ("3 pm", "3 am"),
    ("$18", "18 cents"),
    ("1,2", "12"),
    ("10,00", "1000"),
    ("(1,200)", "1200"),
    ("(1, 2)", "(2, 1)"),
    ("3x", "3"),
    ("2xy", "2"),
    ("2 pi", "2"),
    ("5!", "5"),
    ("18 or 20", "18"),
    ("5 squared", "5"),
    ("5 cubed", "5"),
    ("5 factorial", "5"),
    ("5 halves", "5"),
    ("5 thirds", "5"),
    ("5 tens", "5"),
    ("x >= 5", "5"),
    ("3 ab", "3 cd"),
    ("\\frac{1}{2x}", "\\frac{1}{2}x"),
    ("\\frac{a}{bc}", "\\frac{a}{b}c"),
    ("\\sqrt{2x}", "\\sqrt{2}x"),
    ("e^{2x}", "e^{2}x"),
    ("x = 1, y = 2", "2"),
    ("2 1/2", "2"),
    ("1/0", "0"),
    ("2**3", "23"),
    ("A", "B"),
    ("5 million", "5"),
    ("1e999", "1e998"),
    ("9" * 5000, "9" * 5001),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_answers_that_say_the_same_are_the_same(one: str, other: str) -> None:
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_answers_that_say_something_else_are_different(one: str, other: str) -> None:
    assert not same_answer(one, other)
    assert not same_answer(other, one)


@pytest.mark.parametrize("code", ["__import__('os').system('x')", "10**10**10", "9" * 100_000])
def test_an_answer_is_never_computed(code: str) -> None:
    assert same_answer(code, code)
    assert not same_answer(code, "1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Step 1: 9 * 2.\nThe answer is: 18", "18"),
        ("So the answer is $\\boxed{59}$. The answer is: 59", "59"),
        ("She sells 72 clips.\n#### 72", "72"),
        ("**The answer is: 18**", "18"),
        ("**Final Answer:** 18.", "18"),
        ("The answer is:\n\\[\n\\boxed{18}\n\\]", "\\boxed{18}"),
        ("The answer is 18. So Janet makes $18 a day.", "18"),
        ("We get $x = \\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("The final answer is **3.5**.", "3.5"),
        ("So $\\boxed{34}$. I checked that the answer is correct.", "34"),
        ("The answer is: Mr. Brown. He has 3.", "Mr. Brown"),
        ("The answer is: St. Louis", "St. Louis"),
        ("She makes 18 dollars.", None),
        ("The answer is:", None),
        ("\\boxed{1", None),
    ],
)
def test_the_final_answer_is_found_where_models_put_it(text: str, answer: str | None) -> None:
    assert split_answer(text)[1] == answer
