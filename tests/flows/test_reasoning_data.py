"""The ready-made flow for reasoning data: what is right is kept, with its reasoning, online and in batches."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from flows import reasoning_data as module
from flows.authoring.preview import preview
from flows.reasoning_data import reasoning_data
from llms import ParameterError
from llms.extras import MissingPackageError
from llms.local_provider import LocalProvider
from tasks import LoadDataFromDicts, SaveToDisk, VerifyAnswer, VerifyCode
from tasks.sources.loaders import LoadDataFromFileSystem
from tests.conftest import DATA, LONGEST

PROBLEMS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "problems.jsonl").read_text(encoding="utf-8").splitlines()
]

ROWS: list[dict[str, Any]] = [
    {"problem": "Half of a crate of 12 bottles, and 1/2 a bottle?", "answer": "13/2", "tests": None},
    {"problem": "Write twice(x), the double of x.", "answer": None, "tests": "assert twice(4) == 8"},
    {"problem": "Where does the Seine end?", "answer": "Le Havre", "tests": None},
    {"problem": "Why is the sky blue?", "answer": None, "tests": None},
    {"problem": "How many legs have 5 cats?", "answer": "20", "tests": None},
]


def thought(solution: str) -> str:
    return f"<think>Let me see: {solution[:9]}</think>\n{solution}"


def twice(body: str) -> str:
    return f"```python\ndef twice(x):\n    return {body}\n```"


def judged(verdict: str) -> str:
    return json.dumps({"rationale": f"It is {verdict}.", "verdict": verdict})


SEINE = ("Le Havre", "in the harbour of Le Havre", "Rouen", "Rouen")
ANSWERS: list[dict[str, Any]] = [
    # The judge sees the solution as well as the problem: its rules come first.
    {"match": r"<solution>\n\\boxed\{in the harbour of Le Havre", "answer": judged("right")},
    {"match": r"<solution>\n\\boxed\{Rouen", "answer": judged("wrong")},
    {"match": r"<solution>\nScattering", "answer": judged("right")},
    {"match": r"<solution>\nPaint", "answer": judged("unsure")},
    {"match": "crate", "answer": [thought(rf"\boxed{{{each}}}") for each in ("6.5", "6", r"\frac{13}{2}", "7")]},
    {"match": "twice", "answer": [thought(twice(each)) for each in ("2 * x", "x + x", "x ** 2", "2 * x + 0")]},
    {"match": "Seine", "answer": [rf"\boxed{{{each}}}" for each in SEINE]},
    {"match": "sky", "answer": ["Scattering.", "Paint.", "Scattering.", "<think>Is it"]},
    {"match": "cats", "answer": [r"\boxed{4}", r"\boxed{5}", r"\boxed{9}", r"\boxed{10}"]},
]

KEPT = [
    ("crate", "answer", r"\boxed{6.5}", 0.5, 0),
    ("crate", "answer", r"\boxed{\frac{13}{2}}", 0.5, 0),
    ("twice", "tests", twice("2 * x"), 0.75, 0),
    ("twice", "tests", twice("x + x"), 0.75, 0),
    ("twice", "tests", twice("2 * x + 0"), 0.75, 0),
    ("Seine", "answer", r"\boxed{Le Havre}", 0.5, 0),
    ("Seine", "judge", r"\boxed{in the harbour of Le Havre}", 0.5, 0),
    ("sky", "judge", "Scattering.", 1.0, 2),
    ("sky", "judge", "Scattering.", 1.0, 2),
]


def made(target: Path, **parameters: Any) -> list[dict[str, Any]]:
    patient = {"timeout": LONGEST}
    asyncio.run(
        reasoning_data(
            source=LoadDataFromDicts(name="source", data=ROWS),
            target=SaveToDisk(name="target", path=str(target)),
            **{"verify_answer": patient, "verify_code": patient, **parameters},
        )
    )
    return load_from_disk(str(target)).to_list()


@pytest.mark.parametrize("offline", [False, True])
def test_the_right_solutions_are_kept_with_their_reasoning_and_how_hard_the_problem_is(
    provider: LocalProvider,
    storage: Path,
    prefect: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
) -> None:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    provider.set(answers=ANSWERS, batch_seconds=0.0)
    way = {"llm": {"use_offline_batch_generation": offline, "max_retries": 0}}

    rows = made(tmp_path / "first", solve_problem=way, judge_solution=way)

    columns = ("verified_by", "solution", "pass_rate", "undecided")
    problems = [next(word for word in ("crate", "twice", "Seine", "sky") if word in row["problem"]) for row in rows]
    found = [(name, *(row[each] for each in columns)) for name, row in zip(problems, rows, strict=True)]
    assert found == KEPT
    assert all(row["correct"] for row in rows)
    assert rows[0]["reasoning"] == r"Let me see: \boxed{6."
    assert rows[-1]["reasoning"] is None
    assert (rows[0]["model_name"], rows[0]["judge_model"]) == ("gpt-4o-mini", "gpt-4o")
    assert bool(provider.batches) is offline

    provider.clear()
    assert len(made(tmp_path / "second", solve_problem=way, judge_solution=way)) == len(rows)
    assert provider.requests == [], "what was answered is asked again"


def test_wrong_and_undecided_ones_are_kept_where_that_is_wanted_and_say_why(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    provider.set(answers=ANSWERS)

    rows = made(tmp_path / "all", filter_rows={"lowest": None, "keep_missing": True}, difficulty={"highest": 0.9})

    assert len(rows) == 4 * 4
    assert {row["pass_rate"] for row in rows} == {0.5, 0.75, 0.0}
    wrong = [row["verification"] for row in rows if row["correct"] is False]
    assert "the answer is '6', expected '13/2'" in wrong
    assert "test 1 of 1: assert twice(4) == 8" in wrong
    assert "It is wrong." in wrong


def test_without_a_judge_what_it_would_decide_is_undecided_and_nothing_is_asked(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path
) -> None:
    provider.set(answers=ANSWERS)

    rows = made(tmp_path / "some", ask_judge=False, filter_rows={"lowest": None, "keep_missing": True})

    assert [row["correct"] for row in rows if "Seine" in row["problem"]] == [True, None, None, None]
    assert {row["undecided"] for row in rows if "Seine" in row["problem"]} == {3}
    assert provider.stats.count("/chat/completions") == len(ROWS)
    assert "judge_model" not in rows[0]


def test_reasoning_can_be_left_out(provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path) -> None:
    provider.set(answers=ANSWERS)

    rows = made(tmp_path / "bare", solve_problem={"add_reasoning": False})

    assert len(rows) == len(KEPT)
    assert "reasoning" not in rows[0]


def test_what_is_missing_stops_the_run_before_anything_is_sent(
    provider: LocalProvider, storage: Path, prefect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParameterError, match="set group_generations=True"):
        preview(reasoning_data, {"solve_problem": {"group_generations": False}})
    find = module.VerifyAnswer.load.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "math_verify" else find(name))
    with pytest.raises(MissingPackageError, match=r"VerifyAnswer needs math_verify: .*pip install 'math-verify"):
        made(tmp_path / "none")

    assert provider.requests == []


def solution_of(name: str) -> str:
    """A solution of a problem in Python that comes with the project."""
    return f"```python\n{SOLUTIONS[name]}\n```"


SOLUTIONS = {
    "c01": """
from itertools import groupby
def encode(text):
    runs = [(letter, len(list(run))) for letter, run in groupby(text)]
    return "".join(letter + (str(count) if count > 1 else "") for letter, count in runs)
""",
    "c02": """
VALUES = dict(M=1000, CM=900, D=500, CD=400, C=100, XC=90, L=50, XL=40, X=10, IX=9, V=5, IV=4, I=1)
def to_roman(number):
    written = ""
    for letters, value in VALUES.items():
        written += letters * (number // value)
        number %= value
    return written
""",
    "c03": """
input()
longest = length = 0
last = None
for number in map(int, input().split()):
    length = length + 1 if last is not None and number >= last else 1
    longest, last = max(longest, length), number
print(longest)
""",
    "c04": """
import sys
for line in sys.stdin.read().split():
    while (shorter := line.replace("()", "").replace("[]", "").replace("{}", "")) != line:
        line = shorter
    print("no" if line else "yes")
""",
    "c05": """
def merged(intervals):
    made = []
    for start, end in sorted(intervals):
        if made and start <= made[-1][1]:
            made[-1][1] = max(made[-1][1], end)
        else:
            made.append([start, end])
    return made
""",
    "c06": """
rows, columns = map(int, input().split())
free = {(r, c) for r in range(rows) for c, sign in enumerate(input()) if sign == "."}
reached, steps, here = set(), 0, {(0, 0)} & free
while here and (rows - 1, columns - 1) not in here:
    reached |= here
    here = {(r + y, c + x) for r, c in here for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))} & free - reached
    steps += 1
print(steps if here else -1)
""",
}


def test_the_problems_that_come_with_the_project_are_all_different_and_of_every_kind() -> None:
    assert len({each["problem"] for each in PROBLEMS}) == len({each["id"] for each in PROBLEMS}) == len(PROBLEMS) >= 20
    assert {each["id"] for each in PROBLEMS if "tests" in each} == set(SOLUTIONS)
    assert [each for each in PROBLEMS if "answer" not in each and "tests" not in each]
    loaded = next(LoadDataFromFileSystem(data_files=str(DATA / "problems.jsonl")).process())[0]
    assert [each["problem"] for each in loaded] == [each["problem"] for each in PROBLEMS]


def test_their_tests_take_a_right_solution_and_no_other() -> None:
    verifier = VerifyCode(timeout=LONGEST)
    rows = [each for each in PROBLEMS if "tests" in each]
    others = {"c01": "c02", "c02": "c01", "c03": "c04", "c04": "c03", "c05": "c01", "c06": "c03"}

    verified = verifier.apply(
        [{**row, "generation": [solution_of(row["id"]), solution_of(others[row["id"]])]} for row in rows]
    )

    assert {row["id"]: row["correct"] for row in verified} == {row["id"]: [True, False] for row in rows}, verified
    verifier.unload()


def test_their_answers_are_decided_without_a_judge_unless_they_are_words() -> None:
    verifier = VerifyAnswer(timeout=LONGEST)
    rows = [each for each in PROBLEMS if "answer" in each]

    verified = verifier.apply([{**row, "generation": [rf"\boxed{{{row['answer']}}}", r"\boxed{77}"]} for row in rows])

    words = {"m14", "o01"}
    assert {row["id"]: row["correct"] for row in verified} == {
        row["id"]: [True, None if row["id"] in words else False] for row in rows
    }
    verifier.unload()
