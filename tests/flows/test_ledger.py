"""What a person changes at work, and what is asked again: never a question that was answered, whatever is around it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner

from flows import collect, load
from flows.cli import main
from flows.engine.errors import TooManyFailedRowsError
from llms import AsyncLLM, GenerateOutput, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import ChatGeneration, Task, TextGeneration
from tasks.base import Answer
from tasks.steps import failure_in
from tasks.typing import Ask, Row
from tests.conftest import ROOT
from tests.flows import test_batching
from tests.flows.test_batching import ending, is_right

provider = test_batching.provider

PROMPTS: list[Row] = [{"instruction": f"Tell me about number {number}.", "id": number} for number in range(25)]


@dataclass
class Asker:
    """Asks a stand-in provider, online or by batch jobs, with the answers kept in a folder or an object store."""

    provider: LocalProvider
    storage: str
    offline: bool

    def llm(self, **options: Any) -> OpenAILLM:
        return OpenAILLM(model="gpt-4o", use_offline_batch_generation=self.offline, **options)

    def collect(self, rows: Sequence[Row], task: Task | None = None, **options: Any) -> list[Row]:
        step = task or TextGeneration(llm=self.llm())
        with ending(self.provider):
            return collect(load(list(rows), shard_rows=7, storage=self.storage).map(step), **options).to_list()

    @property
    def asked(self) -> int:
        """How many questions the provider was sent so far."""
        jobs = sum(job["request_counts"]["total"] for job in self.provider.batches)
        return jobs + self.provider.stats.count("/chat/completions", 200)


@pytest.fixture(params=["online in a folder", "online in a store", "batches in a folder", "batches in a store"])
def asker(request: pytest.FixtureRequest, provider: LocalProvider, tmp_path: Path) -> Iterator[Asker]:
    storage = f"memory://{uuid.uuid4().hex}" if "store" in request.param else str(tmp_path / "storage")
    yield Asker(provider, storage, "batches" in request.param)


def are_right(rows: Sequence[Row]) -> bool:
    return all(map(is_right, rows))


NEW: Row = {"instruction": "Tell me about number 99.", "id": 99}
CHANGES: dict[str, tuple[Callable[[list[Row]], list[Row]], int]] = {
    "one put at the top": (lambda rows: [NEW, *rows], 1),
    "one put in the middle, twice": (lambda rows: [*rows[:9], NEW, NEW, *rows[9:]], 2),
    "the first removed": (lambda rows: rows[1:], 0),
    "all reversed": (lambda rows: rows[::-1], 0),
    "ids as texts": (lambda rows: [{**row, "id": str(row["id"])} for row in rows], 0),
    "another column": (lambda rows: [{**row, "unread": row["id"] * 2} for row in rows], 0),
    "a part of them": (lambda rows: rows[3:10], 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_of_changed_rows_only_the_new_questions_are_asked(asker: Asker, change: str) -> None:
    changed, new = CHANGES[change]
    asker.collect(PROMPTS)
    before = asker.asked

    rows = asker.collect(changed(PROMPTS))

    assert before == len(PROMPTS)
    assert asker.asked - before == new
    assert are_right(rows)


class Loud(TextGeneration):
    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": (output or "").upper()}


class Quiet(Loud):
    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": (output or "").lower()}


def test_a_changed_parser_mapping_name_or_form_of_the_rows_asks_nothing(asker: Asker) -> None:
    asker.collect(PROMPTS, Loud(name="loud", llm=asker.llm()))
    before = asker.asked

    quiet = asker.collect(PROMPTS, Quiet(name="loud", llm=asker.llm()))
    asker.collect(PROMPTS, Loud(name="renamed", llm=asker.llm()))
    asker.collect(PROMPTS, Loud(name="loud", llm=asker.llm(), add_raw_input=False, add_raw_output=False))
    mapped = Loud(
        name="loud",
        llm=asker.llm(timeout=9, max_retries=1),
        input_mappings={"instruction": "prompt"},
        output_mappings={"generation": "answer"},
    )
    rows = [{"prompt": row["instruction"]} for row in PROMPTS]
    answers = asker.collect(rows, mapped)

    assert asker.asked == before
    assert quiet[3]["generation"] == "all about 3."
    assert answers[3]["answer"] == "ALL ABOUT 3."


def test_what_decides_the_answer_asks_anew(asker: Asker) -> None:
    asker.collect(PROMPTS[:5])
    tasks = [
        TextGeneration(llm=asker.llm(generation_kwargs={"temperature": 0.5})),
        TextGeneration(llm=OpenAILLM(model="gpt-4o-mini", use_offline_batch_generation=asker.offline)),
        TextGeneration(llm=asker.llm(), system_prompt="Be brief."),
        TextGeneration(llm=asker.llm(), num_generations=2, group_generations=True),
    ]
    for number, task in enumerate(tasks, start=2):
        asker.collect(PROMPTS[:5], task)
        assert asker.asked == 5 * number


def test_every_shard_can_be_lost_and_nothing_is_paid(asker: Asker, provider: LocalProvider) -> None:
    second = TextGeneration(name="second", llm=asker.llm(), output_mappings={"generation": "again"})

    def run() -> list[Row]:
        with ending(provider):
            source = load(PROMPTS, shard_rows=7, storage=asker.storage)
            return collect(source.map(TextGeneration(llm=asker.llm())).map(second)).to_list()

    first, before = run(), asker.asked
    files, root = fsspec.core.url_to_fs(asker.storage)
    for path in files.find(root):
        if "ledger" not in Path(path).parts:
            files.rm_file(path)

    assert run() == first
    assert asker.asked == before


class Counting(AsyncLLM):
    """Every answer is another one."""

    @property
    def model_name(self) -> str:
        return "counting"

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:
        ASKED.append(input)
        counts = {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations}
        return {"generations": [f"Sample {len(ASKED)}."] * num_generations, "statistics": counts}


ASKED: list[Any] = []


@pytest.mark.parametrize("shard_rows", [5, 100])
def test_equal_questions_are_samples_that_stay_the_same_however_rows_come_and_go(
    storage: Path, shard_rows: int
) -> None:
    def samples(rows: Sequence[Row]) -> Counter[str]:
        made = collect(load(list(rows), shard_rows=shard_rows).map(TextGeneration(llm=Counting())))
        return Counter(row["generation"] for row in made if row["instruction"] == "Tell me a joke.")

    ASKED.clear()
    same: list[Row] = [{"instruction": "Tell me a joke.", "id": number} for number in range(20)]
    first = samples(same)
    assert (len(ASKED), len(first)) == (20, 20)

    assert samples(same[::-1]) == samples([{**row, "more": 1} for row in same]) == first
    assert samples(same[4:]) < first
    assert len(ASKED) == 20
    more = samples([*same[:9], *PROMPTS[:3], *same[9:], {"instruction": "Tell me a joke.", "id": 20}])
    assert (len(ASKED), len(more)) == (24, 21)
    assert first < more


class Constant(Task):
    """Asks the same whatever the row."""

    @property
    def inputs(self) -> list[str]:
        return ["id"]

    @property
    def outputs(self) -> list[str]:
        return ["generation", "model_name"]

    def format_input(self, input: Row) -> Any:
        return [{"role": "user", "content": "Tell me about number 7."}]

    def format_output(self, output: str | None, input: Row) -> Row:
        return {"generation": output}


def test_questions_are_equal_by_what_is_asked_not_by_what_is_read(asker: Asker) -> None:
    asker.collect(PROMPTS, Constant(llm=asker.llm()))
    assert asker.asked == len(PROMPTS)

    asker.collect([NEW, *PROMPTS[::-1]], Constant(llm=asker.llm()))
    assert asker.asked == len(PROMPTS) + 1


def test_steps_with_one_model_share_no_samples_and_their_names_and_neighbours_take_none_away(asker: Asker) -> None:
    def steps(*tasks: Task) -> list[Row]:
        rows = load(PROMPTS[:6], shard_rows=4, storage=asker.storage)
        for task in tasks:
            rows = rows.map(task)
        with ending(asker.provider):
            return collect(rows).to_list()

    def step(column: str, **options: Any) -> TextGeneration:
        return TextGeneration(name=column, llm=asker.llm(), output_mappings={"generation": column}, **options)

    class Other(TextGeneration):
        """Asks the same, by other code."""

    steps(step("a"), step("b"))
    assert asker.asked == 12
    steps(step("c"), step("d", system_prompt="Be brief."), step("e"))
    assert asker.asked == 18
    steps(step("f"), step("g"), Other(name="h", llm=asker.llm(), template="{{ instruction }}"))
    assert asker.asked == 24
    steps(step("a"), step("b"))
    assert asker.asked == 24


class Rounds(TextGeneration):
    """Asks, and asks twice more about the answer."""

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        text = (await ask([{"role": "user", "content": row["instruction"]}]))["generations"][0]
        chat: Any = [{"role": "user", "content": f"Again: {text}"}]
        again = [(await ask(chat))["generations"][0] for _ in range(2)]
        return [Answer(columns={"generation": f"{text} {again}"})]


def test_later_rounds_are_kept_with_the_row_wherever_it_stands(asker: Asker) -> None:
    rows = [*PROMPTS[:6], PROMPTS[0]]
    first = asker.collect(rows, Rounds(name="rounds", llm=asker.llm()))
    assert asker.asked == 21

    again = asker.collect([NEW, *rows[::-1]], Rounds(name="renamed", llm=asker.llm()))

    assert asker.asked == 24
    assert {row["generation"] for row in first} < {row["generation"] for row in again}


def test_a_preview_of_rows_another_flow_and_the_way_they_are_asked_use_one_ledger(asker: Asker) -> None:
    asker.collect(PROMPTS)
    before = asker.asked
    other = Asker(asker.provider, asker.storage, not asker.offline)

    rows = other.collect(PROMPTS, TextGeneration(name="other", llm=other.llm()))

    assert asker.asked == before
    assert are_right(rows)


def test_without_a_cache_a_run_asks_everything_once(asker: Asker) -> None:
    for number in (1, 2):
        rows = load(PROMPTS, shard_rows=7, storage=asker.storage, use_cache=False)
        with ending(asker.provider):
            collect(rows.map(TextGeneration(llm=asker.llm())))
        assert asker.asked == number * len(PROMPTS)


class Picky(TextGeneration):
    """Can't read some answers."""

    refused: tuple[str, ...] = ()

    def format_output(self, output: str | None, input: Row) -> Row:
        if input["instruction"].endswith(self.refused):
            raise ValueError("not that one")
        return super().format_output(output, input)


def test_a_mended_parser_reads_the_kept_answers_and_only_what_it_cant_read_is_asked_again(asker: Asker) -> None:
    def picky(*refused: str) -> Picky:
        return Picky(name="picky", llm=asker.llm(), refused=tuple(f"number {each}." for each in refused))

    with pytest.raises(TooManyFailedRowsError):
        asker.collect(PROMPTS, picky("3", "4", "5"), max_failed_rows=0)
    assert asker.asked == 25

    rows = asker.collect(PROMPTS, picky("4"), max_failed_rows=1)
    assert asker.asked == 26
    assert [row["id"] for row in rows if failure_in(row)] == [4]
    rows = asker.collect(PROMPTS, picky())
    assert asker.asked == 26
    assert are_right(rows)


def test_more_tokens_ask_again_only_what_ran_out_of_them(asker: Asker, provider: LocalProvider) -> None:
    def limited(tokens: int | None) -> list[Row]:
        return asker.collect(PROMPTS[:6], TextGeneration(llm=asker.llm(generation_kwargs={"max_new_tokens": tokens})))

    long = "All about " + "a great deal of words " * 20
    provider.set(answers={r"number [0-2]\.": long, r"number (?P<number>\d+)": "All about {number}."})
    limited(20)
    assert asker.asked == 6

    limited(10)
    assert asker.asked == 6
    rows = limited(None)
    assert asker.asked == 9
    assert [len(row["generation"]) > 200 for row in rows] == [True] * 3 + [False] * 3
    limited(20)
    assert asker.asked == 9


PROGRAM = """
import json
from flows import collect, load
from llms import OpenAILLM
from tasks import TextGeneration

rows = [{"instruction": f"Tell me about number {number}."} for number in range(5)]
print(json.dumps(collect(load(rows).map(TextGeneration(llm=OpenAILLM(model="gpt-4o")))).to_list()))
"""


def moved_clone(folder: Path) -> Path:
    """A later version of the project: a module renamed, and an unused field added to its class."""
    for package in ("llms", "tasks", "flows"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "llms" / "providers" / "openai.py"
    module.rename(folder / "llms" / "providers" / "moved.py")
    for path in folder.rglob("*.py"):
        source = path.read_text()
        moved = re.sub(r"\bllms\.providers\.openai\b(?!_)", "llms.providers.moved", source)
        moved = (
            moved.replace("    form_first = (", "    unused: int = 1\n    form_first = (")
            if path.stem == "moved"
            else moved
        )
        if moved != source:
            path.write_text(moved)
    return folder


def printed_by(program: str, clone: Path) -> Any:
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=clone, check=False, text=True)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_a_version_whose_modules_are_renamed_and_whose_classes_have_another_field_asks_nothing(
    provider: LocalProvider, storage: Path
) -> None:
    first = printed_by(PROGRAM, ROOT)
    assert provider.stats.count("/chat/completions", 200) == 5

    again = printed_by(PROGRAM, moved_clone(storage.parent / "clone"))

    assert [row["generation"] for row in again] == [row["generation"] for row in first]
    assert provider.stats.count("/chat/completions", 200) == 5


def test_the_ledger_says_what_it_keeps_and_exports_it(provider: LocalProvider, storage: Path) -> None:
    provider.set(batch_manual=False)
    asker = Asker(provider, str(storage), offline=False)
    asker.collect(PROMPTS)
    asker.collect(PROMPTS[:3], TextGeneration(llm=OpenAILLM(model="gpt-4o-mini")))

    said = CliRunner().invoke(main, ["ledger"])
    file = storage.parent / "answers.jsonl"
    exported = CliRunner().invoke(main, ["ledger", "--export", str(file)])

    assert said.exit_code == exported.exit_code == 0
    assert f"gpt-4o at {provider.base_url}" in said.output
    assert "25 answers" in said.output and "3 answers" in said.output and "28 answers in" in said.output
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert Counter(each["model"] for each in answers) == {"gpt-4o": 25, "gpt-4o-mini": 3}
    assert {each["output"]["generations"][0] for each in answers} == {f"All about {n}." for n in range(25)}
    assert all(_is_about_its_prompt(each) for each in answers)


def test_answers_of_batch_jobs_are_exported_with_their_prompts_and_images_only_named(
    provider: LocalProvider, storage: Path
) -> None:
    asker = Asker(provider, str(storage), offline=True)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 9000}"}}
    asker.collect(PROMPTS[:5], TextGeneration(llm=asker.llm(), num_generations=2, system_prompt="Be brief."))
    chat = [{"role": "user", "content": [{"type": "text", "text": "Tell me about number 7."}, image]}]
    asker.collect([{"messages": chat}], ChatGeneration(llm=asker.llm()))

    file = storage.parent / "answers.jsonl"
    assert CliRunner().invoke(main, ["ledger", "--export", str(file)]).exit_code == 0

    answers = [json.loads(line) for line in file.read_text().splitlines()]
    briefly = [each for each in answers if each["prompt"][0] == {"role": "system", "content": "Be brief."}]
    assert sum(len(each["output"]["generations"]) for each in briefly) == 10
    assert all(_is_about_its_prompt(each) for each in briefly)
    (seen,) = [each["prompt"][0]["content"] for each in answers if len(each["prompt"]) == 1]
    assert seen[1]["image_url"]["url"] == "data:image/png;base64,... (9,022 characters)"


def _is_about_its_prompt(answer: dict[str, Any]) -> bool:
    said = answer["output"]["generations"][0]
    return said == f"All about {answer['prompt'][-1]['content'].split()[-1]}"
