"""The command line as a person uses it: names in part, variants shown, JSON, completion, `check`, and Ctrl+C."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import flow
from flows.checks import Check, check_all, without_user
from flows.cli import READY_MADE, flow_named, given_parameters, main
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from llms.parameters import ParameterError
from tasks import TextGeneration
from tests.conftest import LONGEST, ROOT, wait_for

KEY = "sk-terminal-1234567890abcdef"


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=dict(environment))


# Names in part

GIVEN = {
    "llm.temperature=1": "text_generation.llm.generation_kwargs.temperature",
    "temperature=1": "text_generation.llm.generation_kwargs.temperature",
    "text_generation.temperature=1": "text_generation.llm.generation_kwargs.temperature",
    "llm.model=x": "text_generation.llm.model",
    "data_files=x": "source.data_files",
    "num_generations=2": "text_generation.num_generations",
}


def paths_in(value: Any, before: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [before]
    return [path for name, each in value.items() for path in paths_in(each, f"{before}.{name}" if before else name)]


@pytest.mark.parametrize("argument", GIVEN)
def test_a_name_in_part_is_the_one_parameter_that_it_can_be_and_that_is_said(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = given_parameters(None, [argument], flow_named("text_generation"))

    assert paths_in(given) == [GIVEN[argument]]
    assert f"{argument.partition('=')[0]} is {GIVEN[argument]}" in capsys.readouterr().err


WHOLE = [
    "text_generation.llm.generation_kwargs.temperature=1",
    "text_generation.input_mappings.instruction=prompt",
    "text_generation.structured_output.schema=x",
    "text_generation.llm.api_key=x",
    "use_cache=false",
    "no_such_thing=1",
]


@pytest.mark.parametrize("argument", WHOLE)
def test_a_whole_name_and_one_that_nothing_has_stay_as_they_are(
    argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = given_parameters(None, [argument], flow_named("text_generation"))

    assert paths_in(given) == [argument.partition("=")[0]]
    assert capsys.readouterr().err == ""


@flow
def heated(temperature: float = 0.5, task: TextGeneration = TextGeneration(llm=OpenAILLM(model="m"))) -> None:
    """A flow with a parameter that is named as one within another."""


def test_a_whole_name_is_never_taken_for_one_within_another() -> None:
    given = given_parameters(None, ["temperature=1", "task.temperature=2"], heated)

    assert paths_in(given) == ["temperature", "task.llm.generation_kwargs.temperature"]


def test_a_name_that_could_be_several_is_refused_with_all_of_them() -> None:
    with pytest.raises(ParameterError) as raised:
        given_parameters(None, ["llm.temperature=1"], flow_named("preference"))

    assert str(raised.value) == (
        "llm.temperature could be text_generation.llm.generation_kwargs.temperature or"
        " ultrafeedback.llm.generation_kwargs.temperature: write which"
    )


def test_a_misspelt_name_in_part_is_refused_with_what_is_near() -> None:
    with pytest.raises(ParameterError, match="Did you mean text_generation.llm.generation_kwargs.temperature"):
        given_parameters(None, ["llm.temperatur=1"], flow_named("text_generation"))


def test_names_are_those_of_the_variant_that_is_chosen_wherever_it_stands() -> None:
    given = given_parameters(
        None, ["llm.thinking_budget=2000", "llm.provider=anthropic"], flow_named("text_generation")
    )

    assert paths_in(given) == [
        "text_generation.llm.generation_kwargs.thinking_budget",
        "text_generation.llm.provider",
    ]


def test_a_name_in_part_works_for_a_pipeline_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from flows import Pipeline\nfrom llms import OpenAILLM\nfrom tasks import LoadDataFromDicts, TextGeneration\n"
        "with Pipeline('mine') as pipeline:\n"
        "    rows = LoadDataFromDicts(name='rows', data=[{'instruction': 'Hi'}])\n"
        "    rows >> TextGeneration(name='gen', llm=OpenAILLM(model='m'))\n"
    )

    given = given_parameters(None, ["llm.temperature=1"], flow_named(f"{tmp_path / 'mine.py'}:pipeline.flow"))

    assert paths_in(given) == ["gen.llm.generation_kwargs.temperature"]


# show


@pytest.mark.parametrize(
    ("argument", "field", "first"),
    [
        ("llm.provider=anthropic", "text_generation.llm.anthropic_version: string", "one of Anthropic, "),
        # One without a tab of its own.
        ("llm.provider=ollama", "text_generation.llm.keep_alive", "one of Ollama, "),
        ("source.kind=hub", "source.repo_id: string", "one of Hugging Face Hub, "),
    ],
)
def test_show_has_the_fields_of_the_variant_that_is_chosen(argument: str, field: str, first: str) -> None:
    done = invoke("show", "text_generation", argument)

    assert done.exit_code == 0, done.output
    assert field in done.stdout
    assert first in done.stdout


def test_show_says_what_a_variant_needs_and_shows_what_is_given() -> None:
    needing = invoke("show", "text_generation", "llm.provider=anthropic")
    given = invoke("show", "text_generation", "llm.provider=anthropic", "llm.model=claude-sonnet-4-5")

    assert "text_generation.llm.model: string, required" in needing.stdout
    assert 'text_generation.llm.model: string = "claude-sonnet-4-5"' in given.stdout


def test_show_refuses_a_variant_that_there_isnt() -> None:
    done = invoke("show", "text_generation", "llm.provider=nobody")

    assert done.exit_code == 1
    assert "There are: anthropic" in done.stderr


# JSON


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list"], lambda found: [each["name"] for each in found] == list(READY_MADE)),
        (
            ["show", "text_generation"],
            lambda found: (
                {"name": "use_cache", "type": "boolean", "default": True}.items()
                <= next(each for each in found["parameters"] if each["name"] == "use_cache").items()
            ),
        ),
        (
            ["preview", "text_generation", "--rows", "1", "system_prompt=Be brief."],
            lambda found: found["prompts"]["text_generation"][0][0] == {"role": "system", "content": "Be brief."},
        ),
        (["ledger"], lambda found: found == []),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_printed_is_json_and_nothing_else(arguments: list[str], expected: Any, storage: Path) -> None:
    done = invoke(*arguments, "--json")

    assert done.exit_code == 0, done.output
    assert expected(json.loads(done.stdout))


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


def test_a_runs_result_and_what_is_kept_of_it_are_json(
    provider: LocalProvider, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"instruction": "Say one."}\n{"instruction": "Say two."}\n')
    arguments = [f"data_files={tmp_path / 'prompts.jsonl'}", f"target.path={tmp_path / 'out'}"]

    done = call("run", "text_generation", *arguments, "--json", PREFECT_API_URL=prefect_api)
    kept = call("ledger", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["datasets"][0]["rows"], found["runs"][0]["requests_sent"]) == (2, 2)
    assert found["runs"][0]["saved"] == [str(tmp_path / "out")]
    assert found["runs"][0]["dollars"] is None
    assert [(each["model"], each["answers"]) for each in json.loads(kept.stdout)] == [("gpt-4o-mini", 2)]


# What all rows would take


def estimates_of(*arguments: str) -> dict[str, dict[str, Any]]:
    done = invoke("preview", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return {each["step"]: each for each in json.loads(done.stdout)["estimates"]}


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    path = tmp_path / "thousand.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"{number:04d}" * 100}) + "\n" for number in range(1000)))
    return path


def test_preview_tells_all_rows_requests_tokens_and_dollars_of_each_way_to_ask(thousand: Path) -> None:
    found = estimates_of(
        "text_generation", f"data_files={thousand}", "llm.model=gpt-5-mini", "llm.max_new_tokens=1000"
    )["text_generation"]

    # gpt-5-mini: $0.25 and $2.00 for a million tokens, half of that at its flex tier and in batches.
    assert (found["requests"], found["input_tokens"], found["output_tokens"]) == (1000, 100_000, 1_000_000)
    assert found["online"] == pytest.approx(0.025 + 2.0)
    assert found["flex"] == found["batch"] == pytest.approx((0.025 + 2.0) / 2)
    assert not found["uncounted"]


def test_preview_of_a_pipeline_tells_all_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seven_rows.py").write_text(
        "from flows import Pipeline\nfrom llms import OpenAILLM\nfrom tasks import LoadDataFromDicts, TextGeneration\n"
        "with Pipeline(name='seven') as pipeline:\n"
        "    rows = LoadDataFromDicts(name='rows', data=[{'instruction': str(number)} for number in range(7)])\n"
        "    rows >> TextGeneration(name='answers', llm=OpenAILLM(model='gpt-4o-mini'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert estimates_of("seven_rows:pipeline.flow")["answers"]["requests"] == 7


def test_preview_says_where_there_is_no_such_way_or_price(thousand: Path) -> None:
    openai = estimates_of("text_generation", f"data_files={thousand}")["text_generation"]
    own = estimates_of("text_generation", f"data_files={thousand}", "llm.base_url=http://127.0.0.1:9/v1")

    assert openai["flex"] is None
    assert openai["online"] > openai["batch"] > 0
    assert [own["text_generation"][way] for way in ("online", "flex", "batch")] == [None] * 3


def test_preview_counts_the_answers_before_it_into_a_steps_prompts(thousand: Path) -> None:
    of = {
        tokens: estimates_of("preference", f"data_files={thousand}", f"text_generation.llm.max_new_tokens={tokens}")
        for tokens in (100, 600)
    }

    # Two answers per row, each as long as it may be.
    more = of[600]["ultrafeedback"]["input_tokens"] - of[100]["ultrafeedback"]["input_tokens"]
    assert more == pytest.approx(1000 * 2 * 500)


def test_preview_says_that_rows_which_depend_on_answers_arent_counted() -> None:
    found = estimates_of("instruction_data")

    assert not found["self_instruct"]["uncounted"]
    assert found["text_generation"]["uncounted"]


def test_preview_shows_the_ways_side_by_side_with_their_sum(thousand: Path) -> None:
    done = invoke("preview", "preference", f"data_files={thousand}", "--rows", "1")

    header, *rows = [line.split() for line in done.stdout[done.stdout.index("All rows") :].splitlines()]
    assert header[-3:] == ["Online", "Flex", "Batch"]
    assert [row[0] for row in rows[:3]] == ["text_generation", "ultrafeedback", "all"]
    assert done.stdout.count("text_generation, row ") == 1


# Help, version, completion


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_examples_that_it_takes_in_its_help(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parameters.yaml").touch()

    done = invoke(command, "--help")

    shown = re.findall(r'^ +(?:eval "\$\()?python -m flows (.*?)(?:\)")?$', done.stdout, re.MULTILINE)
    assert shown, done.stdout
    for line in shown:
        name, *arguments = shlex.split(line)
        assert name == command
        main.commands[name].make_context(name, arguments)


def test_the_version_is_that_of_the_project() -> None:
    assert invoke("--version").stdout == "stillflow 0.1.0\n"


WORDS = {
    "stillflow sh": ["show"],
    "stillflow run text": ["text_generation"],
    "stillflow run text_generation --loc": ["--local-model"],
    "stillflow run text_generation text_generation.llm.generation_kwargs.temp": [
        "text_generation.llm.generation_kwargs.temperature="
    ],
    # As Bash cuts it.
    "stillflow show text_generation llm.provider = anthropic text_generation.llm.generation_kwargs.think": [
        "text_generation.llm.generation_kwargs.thinking=",
        "text_generation.llm.generation_kwargs.thinking_budget=",
    ],
    "stillflow run text_generation text_generation.llm.model =": [],
}


@pytest.mark.parametrize("words", WORDS)
def test_bash_completes_commands_options_flows_and_their_parameters(words: str) -> None:
    script = (
        f'eval "$({sys.executable} -m flows completion bash)"\ncompopt() {{ :; }}\n'
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        '_stillflow_completion stillflow\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )

    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST)

    assert done.stdout.split() == WORDS[words], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_every_shell_asks_this_python(shell: str) -> None:
    script = invoke("completion", shell).stdout

    assert f"{shell}_complete" in script
    assert script.count(f"{sys.executable} -m flows") == 2


# check


def found_about(about: str) -> Check:
    return next(each for each in check_all() if each.about == about)


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL")) or name in {"HF_TOKEN", "OLLAMA_HOST"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("STILLFLOW_STORAGE", str(tmp_path / "storage"))
    return tmp_path


def test_check_says_what_to_do_about_whatever_is_missing(nothing_set: Path) -> None:
    found = check_all()

    assert [each.about for each in found if each.state != "ok" and not each.to_do] == []
    assert next(each.state for each in found if each.about == "key: openai") == "missing"
    assert not (nothing_set / "storage").exists()


def test_check_asks_only_which_models_there_are_and_shows_no_key(
    nothing_set: Path, monkeypatch: pytest.MonkeyPatch, provider: LocalProvider
) -> None:
    provider.set(api_key=KEY)

    done = invoke("check", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=provider.base_url)

    assert "OPENAI_API_KEY is set" in done.stdout
    assert set(provider.stats.paths) <= {"/models"}
    assert KEY not in done.output


def test_check_says_that_a_key_is_refused_and_ends_with_1(nothing_set: Path, provider: LocalProvider) -> None:
    provider.set(api_key="another")

    done = invoke("check", "--json", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=provider.base_url)

    found = next(each for each in json.loads(done.stdout) if each["about"] == "models: openai")
    assert done.exit_code == 1
    assert found["state"] == "wrong"
    assert KEY not in done.output


def test_check_says_that_a_server_is_there_or_isnt(prefect_api: str) -> None:
    there = call("check", "--json", PREFECT_API_URL=prefect_api)
    away = call("check", "--json", PREFECT_API_URL="http://me:hunter22@127.0.0.1:9/api")

    found = [
        next(each for each in json.loads(done.stdout) if each["about"] == "Prefect's server") for done in (there, away)
    ]
    assert [each["state"] for each in found] == ["ok", "wrong"]
    assert "can't be reached" in found[1]["found"]
    assert "hunter22" not in away.stdout + away.stderr


def test_check_says_that_a_storage_cant_be_used(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nothing_set / "file").write_text("")
    monkeypatch.setenv("STILLFLOW_STORAGE", str(nothing_set / "file" / "storage"))

    assert found_about("storage").state == "wrong"


def test_an_address_is_shown_without_its_user() -> None:
    assert without_user("https://me:secret@host:8000/v1?key=1") == "https://host:8000/v1"


# Ctrl+C


def test_ctrl_c_says_what_is_kept_and_the_same_command_asks_only_the_rest(
    provider: LocalProvider, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"instruction": f"Say {number}."}) + "\n" for number in range(8)))
    command = [
        *("run", "text_generation", f"data_files={prompts}", f"target.path={tmp_path / 'out'}"),
        "llm.max_concurrent_requests=1",
    ]
    provider.set(latency=2.0)
    run = subprocess.Popen(
        [sys.executable, "-m", "flows", *command],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": prefect_api},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: provider.stats.count("/chat/completions", 200) >= 2, what="two answers")
    provider.set(latency=LONGEST)
    # With one at a time, the next is sent when an answer is kept.
    wait_for(lambda: len(provider.requests) >= 3, what="a third request")

    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=LONGEST)
    answered = provider.stats.count("/chat/completions", 200)
    provider.set(latency=0.0)
    again = call(*command, "--json", PREFECT_API_URL=prefect_api)

    assert run.returncode == 130
    assert "Traceback" not in stderr
    assert f"answers of this run are kept in {storage}" in stderr
    assert "give the same command again" in stderr
    assert again.returncode == 0, again.stderr
    # What was under way when it was stopped may have been answered, and not heard.
    assert 8 - answered <= json.loads(again.stdout)["runs"][0]["requests_sent"] <= 8 - 2
