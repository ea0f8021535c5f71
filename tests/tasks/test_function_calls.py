"""Calls in JSON, and the step that runs them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import APIGenExecutionChecker
from tasks.functions.function_calls import Call, calls_in, written_calls
from tasks.functions.sandbox import SandboxError
from tasks.steps import METADATA
from tasks.typing import Row
from tests.conftest import ROOT, wait_for

LIBRARY = str(ROOT / "tests" / "tasks" / "functions_to_run.py")
ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}

FORMS = {
    "as asked for": [ADD],
    "as JSON text": json.dumps([ADD]),
    "one without a list": ADD,
    "OpenAI's": [{"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}],
    "parameters": [{"name": "add", "parameters": {"a": 1, "b": 2}}],
    "args": [{"name": "add", "args": {"a": 1, "b": 2}}],
}

NO_CALLS = {
    "None": None,
    "an empty text": "",
    "a text": "add(1, 2)",
    "a number": 3,
    "a list of None": [None],
    "no name": [{"arguments": {}}],
    "an empty name": [{"name": "", "arguments": {}}],
    "no arguments": [{"name": "add"}],
    "arguments and parameters": [{"name": "add", "arguments": {}, "parameters": {}}],
    "arguments as a list": [{"name": "add", "arguments": [1, 2]}],
    "arguments as code": [{"name": "add", "arguments": "{'a': __import__('os')}"}],
    "an argument twice": [{"name": "add", "arguments": '{"a": 1, "a": 2}'}],
    "an argument that JSON has no number for": [{"name": "add", "arguments": '{"a": NaN}'}],
    "JSON cut off": '[{"name": "add", "argu',
    "JSON too deep": "[" * 100_000,
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_calls_are_read_in_the_forms_that_models_know(value: Any) -> None:
    assert calls_in(value) == [Call("add", {"a": 1, "b": 2})]
    assert written_calls(calls_in(value)) == json.dumps([ADD])


@pytest.mark.parametrize("value", NO_CALLS.values(), ids=NO_CALLS)
def test_what_isnt_a_call_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        calls_in(value)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_calls_with_a_number_that_json_cant_write_arent_written(number: str) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        written_calls(calls_in(f'[{{"name": "add", "arguments": {{"a": {number}}}}}]'))


@pytest.fixture
def checker() -> Iterator[APIGenExecutionChecker]:
    made = APIGenExecutionChecker(libpath=LIBRARY, memory_mb=64, max_result_length=1000)
    yield made
    made.unload()


def checked(checker: APIGenExecutionChecker, *answers: Any) -> list[tuple[bool | None, list[str] | None]]:
    rows = checker.apply([{"answers": each} for each in answers])
    return [(row["keep_row_after_execution_check"], row["execution_result"]) for row in rows]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def test_a_row_is_kept_if_all_its_calls_give_a_result(checker: APIGenExecutionChecker) -> None:
    both = json.dumps([ADD, call("scaled", values=[1], factor=3)])
    one_fails = json.dumps([ADD, call("fails"), call("add", a="x"), call("nowhere")])

    kept, dropped = checked(checker, both, one_fails)

    assert kept == (True, ["3", "[3.0]"])
    assert dropped[0] is False
    assert dropped[1] is not None
    assert dropped[1][:2] == ["3", "ValueError: no such city"]
    assert dropped[1][2].startswith("TypeError: argument a: Input should be a valid integer")
    assert dropped[1][3].startswith("there is no function 'nowhere'")


@pytest.mark.parametrize("answers", [*NO_CALLS.values(), [], "[]"])
def test_a_row_without_calls_isnt_kept_and_says_why(checker: APIGenExecutionChecker, answers: Any) -> None:
    ((kept, reasons),) = checked(checker, answers)

    assert kept is False
    assert reasons is not None
    assert reasons[0] == "there are no calls" or reasons[0].startswith("answers: expected")


def test_rows_around_one_that_goes_wrong_are_as_they_would_be(checker: APIGenExecutionChecker) -> None:
    wrong = ["crashes", "kills_itself", "kills_its_parent", "ends_at_once", "prints_without_end"]
    answers = [each for name in wrong for each in (json.dumps([call(name)]), json.dumps([ADD]))]

    outcomes = checked(checker, *answers)

    assert [kept for kept, _ in outcomes] == [False, True] * len(wrong)
    assert all(results == ["3"] for _, results in outcomes[1::2])


def test_a_call_that_hangs_costs_its_own_row_alone() -> None:
    checker = APIGenExecutionChecker(libpath=LIBRARY, timeout=0.3)

    first, second = checked(checker, json.dumps([call("hangs")]), json.dumps([ADD]))

    assert first == (False, ["it took longer than 0.3 s"])
    # A slow machine may need longer for any call.
    assert second in [(True, ["3"]), first]
    wait_for(lambda: checked(checker, json.dumps([ADD])) == [(True, ["3"])], what="a call in time", pause=0.02)
    checker.unload()


def test_code_in_arguments_is_text_and_nothing_else(checker: APIGenExecutionChecker, tmp_path: Path) -> None:
    code = f"__import__('pathlib').Path({str(tmp_path / 'x')!r}).touch()"

    ((kept, results),) = checked(checker, json.dumps([call("untyped", value=code)]))

    assert kept
    assert results == [json.dumps(code)]
    assert not (tmp_path / "x").exists()


def test_more_calls_than_anyone_needs_arent_run(checker: APIGenExecutionChecker) -> None:
    assert checked(checker, json.dumps([ADD] * 101)) == [(False, ["there are 101 calls, more than 100"])]


def test_the_row_stays_as_it_is_and_a_failed_one_is_passed_over(checker: APIGenExecutionChecker) -> None:
    failure = {"type": "RateLimitError", "message": "later", "retryable": True}
    bad: Row = {"answers": None, METADATA: {"error_before": failure}}
    rows: list[Row] = [{"answers": json.dumps([ADD]), "id": 1}, bad]

    made = checker.apply(rows)

    assert rows[0] == {"answers": json.dumps([ADD]), "id": 1}
    assert made[1] == {**bad, "keep_row_after_execution_check": None, "execution_result": None}


def test_columns_can_have_other_names() -> None:
    checker = APIGenExecutionChecker(
        libpath=LIBRARY, input_mappings={"answers": "calls"}, output_mappings={"execution_result": "results"}
    )

    (made,) = checker.apply([{"calls": json.dumps([ADD])}])

    assert made == {"calls": json.dumps([ADD]), "keep_row_after_execution_check": True, "results": ["3"]}
    checker.unload()


def test_shards_at_the_same_time_get_their_own_results(checker: APIGenExecutionChecker) -> None:
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        found[number] = checked(checker, *[json.dumps([call("add", a=number, b=each)]) for each in range(5)])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: [(True, [str(number + each)]) for each in range(5)] for number in range(0, 40, 10)}


def test_functions_that_changed_give_another_cache_key(tmp_path: Path) -> None:
    path = tmp_path / "functions.py"
    path.write_text("def f(): return 1")
    by_file, by_folder = APIGenExecutionChecker(libpath=str(path)), APIGenExecutionChecker(libpath=str(tmp_path))
    before = by_file.identity(), by_folder.identity()
    again = by_file.identity(), by_folder.identity()

    path.write_text("def f(): return 2")

    assert again == before
    assert by_file.identity() != before[0]
    assert by_folder.identity() != before[1]


def test_functions_that_cant_be_loaded_are_an_error_before_any_row(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="libpath"):
        APIGenExecutionChecker(libpath=str(tmp_path / "nowhere.py")).load()
