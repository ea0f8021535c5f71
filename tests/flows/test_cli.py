"""The command line, as a user calls it, and what it says to every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import READY_MADE
from llms.local_provider import LocalProvider
from tests.conftest import LONGEST, ROOT
from tests.warm import WarmPython


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Say {number}."}) + "\n" for number in range(4)))
    return path


def call(python: str | Path, *arguments: str, api: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the command line: with `sys.executable` as a user does, with that of a warm Python the same, but sooner."""
    whole = {**os.environ, **({"PREFECT_API_URL": api} if api else {}), **environment}
    return subprocess.run(
        [python, "-m", "flows", *arguments], cwd=ROOT, env=whole, capture_output=True, text=True, timeout=LONGEST
    )


def test_list_names_every_ready_made_flow() -> None:
    output = call(sys.executable, "list").stdout

    assert [line.split()[0] for line in output.splitlines()] == list(READY_MADE)


def test_show_gives_dotted_names_with_types_defaults_and_bounds(warm: WarmPython) -> None:
    output = call(warm.executable, "show", "text_generation").stdout

    assert 'text_generation.llm.model: string = "gpt-4o-mini"' in output
    assert "text_generation.llm.generation_kwargs.temperature: number" in output
    assert "(at least 0, at most 2)" in output
    assert "max_failed_rows: number = 0.05" in output
    assert "text_generation.llm: one of OpenAI or compatible, Azure OpenAI, Anthropic, Hugging Face" in output


def test_show_gives_the_values_to_choose_from(warm: WarmPython) -> None:
    output = call(warm.executable, "show", "process_rewards").stdout

    assert 'format_prm.format: string = "trl"  (one of math-shepherd, trl)' in output


def test_preview_prints_prompts_without_a_provider_or_a_server(prompts: Path) -> None:
    done = call(
        sys.executable,
        "preview",
        "text_generation",
        f"source.data_files={prompts}",
        "text_generation.system_prompt=Be brief.",
    )

    assert done.returncode == 0, done.stderr
    assert "system: Be brief." in done.stdout
    assert "user: Say 2." in done.stdout


def test_run_saves_and_tells_rows_counts_tokens_time_and_place(
    provider: LocalProvider, storage: Path, prefect_api: str, prompts: Path, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    done = call(
        sys.executable,
        "run",
        "text_generation",
        f"source.data_files={prompts}",
        f"target.path={tmp_path / 'out'}",
        "text_generation.llm.generation_kwargs.temperature=0.3",
        api=prefect_api,
    )

    assert done.returncode == 0, done.stderr
    assert provider.requests[0].body["temperature"] == 0.3
    assert len(load_from_disk(str(tmp_path / "out"))) == 4
    assert "4 rows, columns instruction, generation" in done.stdout
    assert "4 requests sent" in done.stdout
    assert f"saved to {tmp_path / 'out'}" in done.stdout


def test_the_first_command_of_the_overnight_guide_shows_a_batch_also_after_a_rehearsal(
    warm: WarmPython, storage: Path, prefect_api: str, prompts: Path, tmp_path: Path
) -> None:
    guide = (ROOT / "docs" / "guides" / "overnight-batch.md").read_text()
    variable, *command = shlex.split(re.findall(r"```bash\n(.*?)```", guide, re.DOTALL)[0].replace("\\\n", " "))
    name, _, seconds = variable.partition("=")
    assert (name, command[:4]) == ("STILLFLOW_POLL_SECONDS", ["python", "-m", "flows", "run"])
    here = [f"source.data_files={prompts}", f"target.path={tmp_path / 'out'}"]

    rehearsed = call(warm.executable, "run", "text_generation", "--rehearse", *here, api=prefect_api)
    done = call(warm.executable, *command[3:], *here, api=prefect_api, **{name: seconds})

    assert rehearsed.returncode == done.returncode == 0, done.stderr
    assert re.search(r"submitted 4 requests as job batch_\w+", done.stderr)
    assert "StillWaiting('0 of 1 job done, 0 of 4 requests" in done.stderr
    assert re.search(r"job batch_\w+ completed, 4 of 4 requests answered", done.stderr)


def test_run_takes_a_pipeline_of_ones_own(
    warm: WarmPython, provider: LocalProvider, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from flows import Pipeline\nfrom llms import OpenAILLM\nfrom tasks import LoadDataFromDicts, TextGeneration\n"
        "with Pipeline('mine') as pipeline:\n"
        "    rows = LoadDataFromDicts(name='rows', data=[{'instruction': 'Hi'}])\n"
        "    rows >> TextGeneration(name='gen', llm=OpenAILLM(model='m'))\n"
    )

    done = call(
        warm.executable, "run", f"{tmp_path / 'mine.py'}:pipeline.flow", "gen.num_generations=2", api=prefect_api
    )

    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout


BAD = {
    "unknown flow": (["run", "text_generaton"], "Did you mean 'text_generation'"),
    "unknown parameter": (
        ["run", "text_generation", "text_generation.num_generation=2"],
        "Did you mean 'num_generations'",
    ),
    "wrong type": (["run", "text_generation", "text_generation.num_generations=many"], "valid integer.*got 'many'"),
    "no value": (["run", "text_generation", "source.data_files"], "expected step.name=value"),
    "missing file": (["run", "text_generation", "source.data_files=nowhere.jsonl"], "nowhere.jsonl"),
    "unreadable file": (["run", "text_generation", "source.data_files={tmp}/broken.jsonl"], "broken.jsonl.*line 2"),
    "empty file": (["run", "text_generation", "source.data_files={tmp}/empty.jsonl"], "no rows|empty"),
    "missing column": (
        [
            "run",
            "text_generation",
            "source.data_files={tmp}/prompts.jsonl",
            'text_generation.columns=["question"]',
            "text_generation.template={{ question }}",
        ],
        "needs the column 'question'; there are: instruction.*input_mappings",
    ),
    "template and columns": (
        ["run", "text_generation", "text_generation.template=Write about {{ topic }}"],
        "reads .*topic.* that aren't in `columns`",
    ),
    "no key": (["run", "text_generation", "source.data_files={tmp}/prompts.jsonl"], "has no key: set OPENAI_API_KEY"),
    "unreachable host": (
        [
            "run",
            "text_generation",
            "source.data_files={tmp}/prompts.jsonl",
            "text_generation.llm.base_url=http://127.0.0.1:9/v1",
            "text_generation.llm.max_retries=1",
        ],
        "can't reach http://127.0.0.1:9/v1.*check the address",
    ),
    "unknown credentials": (
        ["run", "text_generation", "source.data_files={tmp}/prompts.jsonl", "text_generation.llm.credentials=nobody"],
        "no block of type .* named 'nobody'",
    ),
    "target in use": (
        [
            "run",
            "text_generation",
            "source.data_files={tmp}/prompts.jsonl",
            "target.path={tmp}/taken",
            "target.overwrite=false",
        ],
        "taken",
    ),
    "broken config": (["run", "text_generation", "--config", "{tmp}/broken.yaml"], "neither JSON nor YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_clear_message_and_writes_nothing(
    case: str, warm: WarmPython, prompts: Path, storage: Path, prefect_api: str, tmp_path: Path
) -> None:
    import re

    (tmp_path / "broken.jsonl").write_text('{"instruction": "fine"}\n{"instruction": \n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    arguments, said = BAD[case]
    target = (
        []
        if any("target." in each for each in arguments) or case == "unknown flow"
        else [f"target.path={tmp_path}/out"]
    )

    key = {} if case == "no key" else {"OPENAI_API_KEY": "sk-test"}
    given = [each.replace("{tmp}", str(tmp_path)) for each in [*arguments, *target]]
    done = call(warm.executable, *given, api=prefect_api, **key)

    # Prefect may say something about its own end after it.
    error = done.stderr[done.stderr.find("\nError: ") + 1 :].partition("| ERROR ")[0]
    assert done.returncode != 0
    assert re.search(said, error, re.DOTALL), done.stderr
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    assert not list(storage.glob("steps/**/*.parquet"))


def test_a_wrong_key_ends_in_one_clear_message(
    warm: WarmPython, provider: LocalProvider, storage: Path, prefect_api: str, prompts: Path, tmp_path: Path
) -> None:
    provider.set(api_key="right")

    done = call(
        warm.executable, "run", "text_generation", f"source.data_files={prompts}", f"target.path={tmp_path / 'out'}",
        api=prefect_api, OPENAI_API_KEY="sk-wrong-key-1234567890",
    )  # fmt: skip

    assert done.returncode == 1
    assert "Error: the provider refuses the key (401)" in done.stderr
    assert "sk-wrong-key-1234567890" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()
