"""The engine on graphs of rows, outside of any Prefect run: order, failures, resuming, caching, joins."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field

from flows.authoring.saving import collect
from flows.engine.errors import PipelineError, TooManyFailedRowsError
from flows.engine.graph import load
from flows.engine.window import Window
from flows.store.shards import batches_of, shard_length, shard_lengths
from llms import LLM, AuthenticationError, ChatType, ConnectionFailedError, GenerateOutput, OpenAILLM
from llms.local_provider import FaultRule, LocalProvider
from tasks import (
    FilterRows,
    GlobalStep,
    KeepColumns,
    MergeColumns,
    SourceError,
    Step,
    StepInput,
    StepOutput,
    TextGeneration,
)

PROMPTS = [{"instruction": f"Tell me about number {number}."} for number in range(20)]


def generation(**options: Any) -> TextGeneration:
    llm_options = options.pop("llm_options", {})
    return TextGeneration(llm=OpenAILLM(model="test-model", **llm_options), **options)


class Shout(Step):
    """Upper case."""

    @property
    def inputs(self) -> list[str]:
        return ["generation"]

    @property
    def outputs(self) -> list[str]:
        return ["shouted"]

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{**row, "shouted": row["generation"].upper()} for row in inputs[0]]


class Count(GlobalStep):
    """How many rows there are."""

    @property
    def outputs(self) -> list[str]:
        return ["count"]

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{**row, "count": len(inputs[0])} for row in inputs[0]]


def test_every_row_gets_its_own_answer_in_order(provider: LocalProvider, storage: Path) -> None:
    provider.set(latency=(0.0, 0.05), answers={r"number (?P<n>\d+)": "it is (n)"})
    provider.set(answers={f"number {n}\\.": f"answer {n}" for n in range(20)})

    dataset = collect(generation().map(load(PROMPTS, shard_rows=7)))

    assert dataset["instruction"][:] == [row["instruction"] for row in PROMPTS]
    assert dataset["generation"][:] == [f"answer {n}" for n in range(20)]
    assert set(dataset["model_name"]) == {"test-model"}


def test_an_unchanged_rerun_sends_nothing(provider: LocalProvider, storage: Path) -> None:
    first = collect(generation().map(load(PROMPTS, shard_rows=7)))
    provider.clear()

    second = collect(generation().map(load(PROMPTS, shard_rows=7)))

    assert provider.requests == []
    assert second.to_list() == first.to_list()


def test_a_source_that_grew_is_paid_only_for_what_is_new(provider: LocalProvider, storage: Path) -> None:
    collect(generation().map(load(PROMPTS[:10], shard_rows=7)))
    provider.clear()

    collect(generation().map(load(PROMPTS, shard_rows=7)))

    asked = [request.body["messages"][0]["content"] for request in provider.requests]
    assert sorted(asked) == sorted(row["instruction"] for row in PROMPTS[10:])


def test_without_the_cache_everything_is_asked_anew(provider: LocalProvider, storage: Path) -> None:
    collect(generation().map(load(PROMPTS)))
    provider.clear()

    collect(generation().map(load(PROMPTS, use_cache=False)))

    assert len(provider.requests) == len(PROMPTS)


def test_equal_rows_are_asked_separately_also_in_different_shards(provider: LocalProvider, storage: Path) -> None:
    same = [{"instruction": "Say something."}] * 6

    dataset = collect(generation().map(load(same, shard_rows=2)))

    assert len(provider.requests) == 6
    assert len(dataset) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"system_prompt": "Be brief."},
        {"llm_options": {"generation_kwargs": {"temperature": 0.5}}},
        {"template": "Please: {{ instruction }}"},
    ],
    ids=["system prompt", "temperature", "template"],
)
def test_a_changed_setting_asks_again(provider: LocalProvider, storage: Path, change: dict[str, Any]) -> None:
    collect(generation().map(load(PROMPTS)))
    provider.clear()

    collect(generation(**change).map(load(PROMPTS)))

    assert len(provider.requests) == len(PROMPTS)


@pytest.mark.parametrize(
    "llm_options",
    [{"max_concurrent_requests": 3}, {"max_retries": 1}, {"timeout": 5}, {"api_key": "another"}],
    ids=["concurrency", "retries", "timeout", "key"],
)
def test_what_only_says_how_fast_or_with_which_key_does_not_ask_again(
    provider: LocalProvider, storage: Path, llm_options: dict[str, Any]
) -> None:
    collect(generation().map(load(PROMPTS)))
    provider.clear()

    collect(generation(llm_options=llm_options).map(load(PROMPTS)))

    assert provider.requests == []


def test_a_changed_judge_asks_only_the_judge_again(provider: LocalProvider, storage: Path) -> None:
    def run(judge_prompt: str) -> None:
        judge = TextGeneration(
            name="judge", llm=OpenAILLM(model="judge"), template=judge_prompt, columns=["generation"]
        )
        judge = judge.merged({"output_mappings": {"generation": "verdict"}})
        collect(judge.map(generation().map(load(PROMPTS))))

    run("Is this good? {{ generation }}")
    provider.clear()
    run("Is this very good? {{ generation }}")

    assert {request.body["model"] for request in provider.requests} == {"judge"}
    assert len(provider.requests) == len(PROMPTS)


def test_a_failed_row_keeps_its_reason_and_the_others_are_answered(provider: LocalProvider, storage: Path) -> None:
    provider.set(faults=[FaultRule(match="number 3\\.", status=400, message="no numbers of this kind")])

    dataset = collect(Shout().map(generation().map(load(PROMPTS))), max_failed_rows=1)

    bad = dataset[3]
    assert bad["generation"] is None
    assert bad["shouted"] is None
    assert bad["distilabel_metadata"]["error_text_generation"]["type"] == "BadRequestError"
    assert "no numbers of this kind" in bad["distilabel_metadata"]["error_text_generation"]["message"]
    assert all(row["shouted"] == row["generation"].upper() for row in dataset if row["generation"])
    assert [row["instruction"] for row in dataset] == [row["instruction"] for row in PROMPTS]


def test_too_many_failed_rows_fail_the_run_and_a_retry_sends_only_them(provider: LocalProvider, storage: Path) -> None:
    provider.set(faults=[FaultRule(match="number [3-5]\\.", status=400, message="not these")])
    with pytest.raises(
        TooManyFailedRowsError, match=r"(?s)3 of 20 rows failed.*3 × text_generation: BadRequestError.*not these"
    ):
        collect(generation().map(load(PROMPTS, shard_rows=7)))
    provider.set(faults=[])
    provider.clear()

    dataset = collect(generation().map(load(PROMPTS, shard_rows=7)))

    assert sorted(request.body["messages"][0]["content"][-2] for request in provider.requests) == ["3", "4", "5"]
    assert None not in dataset["generation"][:]


def test_a_wrong_key_ends_the_run_with_one_error(provider: LocalProvider, storage: Path) -> None:
    provider.set(api_key="right")

    with pytest.raises(AuthenticationError, match="refuses the key"):
        collect(generation(llm_options={"api_key": "wrong"}).map(load(PROMPTS)))

    assert len(provider.requests) <= 40


def test_an_unreachable_provider_ends_the_run_with_one_error(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    with pytest.raises(ConnectionFailedError, match=r"can't reach http://127.0.0.1:9/v1"):
        collect(generation(llm_options={"max_retries": 1}).map(load(PROMPTS)))


def test_what_was_answered_before_a_fatal_error_is_not_asked_again(provider: LocalProvider, storage: Path) -> None:
    provider.set(latency=0.02, faults=[FaultRule(after=8, status=401, message="key revoked")])
    options = {"max_concurrent_requests": 2}
    with pytest.raises(AuthenticationError):
        collect(generation(llm_options=options).map(load(PROMPTS)))
    answered = {r.body["messages"][0]["content"] for r in provider.requests if r.status == 200}
    provider.set(faults=[])
    provider.clear()

    collect(generation(llm_options=options).map(load(PROMPTS)))

    asked = {request.body["messages"][0]["content"] for request in provider.requests}
    assert len(answered) >= 8
    assert not asked & answered


def test_a_missing_column_is_said_before_anything_is_sent(provider: LocalProvider, storage: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"text_generation .* needs the column 'instruction'; there are: prompt\..*input_mappings"
    ):
        collect(generation().map(load([{"prompt": "hello"}])))

    assert provider.requests == []


def test_a_column_missing_further_down_is_said_before_anything_is_sent(provider: LocalProvider, storage: Path) -> None:
    second = TextGeneration(name="second", llm=OpenAILLM(model="m"), template="{{ summary }}", columns=["summary"])

    with pytest.raises(PipelineError, match="second .* needs the column 'summary'"):
        collect(second.map(generation().map(load(PROMPTS))))

    assert provider.requests == []


def test_no_rows_is_an_error_that_names_the_source(provider: LocalProvider, storage: Path) -> None:
    with pytest.raises(SourceError, match="no rows"):
        collect(generation().map(load([])))


def test_mappings_rename_the_right_rows_with_several_generations(provider: LocalProvider, storage: Path) -> None:
    rows = [{"question": f"Q{n}", "instruction": f"kept {n}"} for n in range(3)]
    task = generation(
        input_mappings={"instruction": "question"}, output_mappings={"generation": "reply"}, num_generations=2
    )

    dataset = collect(task.map(load(rows)))

    assert dataset["question"][:] == ["Q0", "Q0", "Q1", "Q1", "Q2", "Q2"]
    assert dataset["instruction"][:] == ["kept 0", "kept 0", "kept 1", "kept 1", "kept 2", "kept 2"]
    assert all(dataset["reply"][:])
    assert "generation" not in dataset.column_names


def test_metadata_of_an_earlier_task_is_kept(provider: LocalProvider, storage: Path) -> None:
    second = TextGeneration(
        name="second", llm=OpenAILLM(model="m"), template="{{ generation }}", columns=["generation"]
    )

    metadata = collect(second.map(generation().map(load(PROMPTS[:2]))))[0]["distilabel_metadata"]

    assert {
        "raw_output_text_generation",
        "raw_output_second",
        "statistics_text_generation",
        "statistics_second",
    } <= set(metadata)
    assert metadata["raw_input_second"][0]["content"] == metadata["raw_output_text_generation"]


def test_two_uses_of_one_task_are_two_steps(provider: LocalProvider, storage: Path) -> None:
    task = generation()
    source = load(PROMPTS[:2])
    first, second = task.map(source), task.map(source)

    collect(first)
    collect(second)

    assert [rows.node.name for rows in (first, second)] == ["text_generation", "text_generation-2"]
    assert len(provider.requests) == 4


def test_a_global_step_sees_all_rows(provider: LocalProvider, storage: Path) -> None:
    dataset = collect(Count().map(load(PROMPTS, shard_rows=3)))

    assert set(dataset["count"]) == {20}


def test_two_branches_join_row_by_row(provider: LocalProvider, storage: Path) -> None:
    from tasks import GroupColumns

    source = load(PROMPTS, shard_rows=6)
    one = TextGeneration(name="one", llm=OpenAILLM(model="model-a")).map(source)
    two = TextGeneration(name="two", llm=OpenAILLM(model="model-b")).map(source)

    joined = collect(GroupColumns(columns=["generation", "model_name"]).map(one, two))

    assert [row["instruction"] for row in joined] == [row["instruction"] for row in PROMPTS]
    assert all(names == ["model-a", "model-b"] for names in joined["grouped_model_name"])


def test_shards_with_different_columns_make_one_dataset(storage: Path) -> None:
    rows = [{"a": 1}, {"a": 2, "b": {"x": 1}}, {"a": None, "b": {"y": "z"}}, {"a": 2.5, "c": []}]

    dataset = collect(load(rows, shard_rows=1))

    assert dataset["a"][:] == [1.0, 2.0, None, 2.5]
    assert dataset["b"][:] == [None, {"x": 1}, {"y": "z"}, None]


def test_a_column_that_a_whole_shard_lacks_is_none_there_as_it_is_in_a_single_row(storage: Path) -> None:
    rows = [{"a": "p", "b": "x"}, {"a": "q"}, {"a": "r"}]
    steps = [KeepColumns(columns=["b"]), MergeColumns(columns=["a", "b"]), FilterRows(column="b", keep_missing=True)]

    one_by_one = [collect(step.map(load(rows, shard_rows=1))).to_list() for step in steps]

    assert one_by_one == [collect(step.map(load(rows))).to_list() for step in steps]
    assert one_by_one[0] == [{"b": "x"}, {"b": None}, {"b": None}]


def test_a_damaged_shard_is_made_again_from_the_ledger_or_refused_never_passed_on(
    provider: LocalProvider, storage: Path
) -> None:
    collect(generation().map(load(PROMPTS)))
    (shard,) = storage.glob("steps/**/*.parquet")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(bytes(content[:-20]))

    dataset = collect(generation(system_prompt=None).map(load(PROMPTS)))

    assert len(dataset) == 20
    assert None not in dataset["generation"][:]


def test_a_key_is_nowhere_in_the_storage(provider: LocalProvider, storage: Path) -> None:
    collect(generation(llm_options={"api_key": "sk-very-secret"}).map(load(PROMPTS)))

    assert not [path for path in storage.rglob("*") if path.is_file() and b"sk-very-secret" in path.read_bytes()]


def test_the_prompts_of_a_cut_ledger_are_asked_again_and_no_others(provider: LocalProvider, storage: Path) -> None:
    provider.set(faults=[FaultRule(match="number 19\\.", status=400)])
    collect(generation().map(load(PROMPTS)), max_failed_rows=1)
    (file,) = storage.glob("ledger/*/*.answers")
    lines = [line for line in file.read_bytes().split(b"\n") if line]
    file.write_bytes(b"\n".join(lines[:5]) + b"\n" + lines[5][:40])
    kept = {line.split()[2] for line in lines[:5]}
    provider.set(faults=[])
    provider.clear()

    dataset = collect(generation().map(load(PROMPTS)))

    assert len(kept) == 5
    assert len(provider.requests) == 15
    assert None not in dataset["generation"][:]


def test_a_source_that_grows_behind_a_filter_asks_for_its_new_rows_alone(
    provider: LocalProvider, storage: Path
) -> None:
    prompts = [{"instruction": f"Write number {number}.", "wanted": number % 2} for number in range(300)]
    wanted = FilterRows(column="wanted", lowest=1)

    collect(generation().map(wanted.map(load(prompts))))

    provider.clear()
    more = [*prompts, *({"instruction": f"Write one more, {number}.", "wanted": 1} for number in range(20))]
    dataset = collect(generation().map(wanted.map(load(more))))
    assert (len(dataset), len(provider.requests)) == (170, 20)


def test_shards_begin_short_and_grow_to_the_most_rows_that_they_may_have() -> None:
    def lengths(longest: int, count: int) -> list[int]:
        return list(islice(shard_lengths(longest), count))

    assert lengths(500, 22) == [*[100] * 21, 105]
    assert [shard_length(place, 500) for place in range(22)] == lengths(500, 22)
    assert lengths(500, 60)[-1] == 500
    assert sum(lengths(500, 60)) < 60 * 400
    assert lengths(20, 40) == [20] * 40
    assert [list(map(len, batches_of([[{}] * 250], shard_lengths(500))))] == [[100, 100, 50]]


def test_a_window_lets_two_shards_out_and_more_while_they_are_small() -> None:
    async def let_out(window: Window, rows: int) -> int:
        out = 0
        while True:
            try:
                await asyncio.wait_for(window.acquire(rows), 0.05)
            except TimeoutError:
                return out
            out += 1

    async def main() -> None:
        window = Window(rows=250)
        assert await let_out(window, 100) == 3
        window.release(100)
        assert await let_out(window, 100) == 1
        window.grow(5)
        assert await let_out(window, 100) == 2
        assert await let_out(Window(rows=250), 500) == 2

    asyncio.run(main())


class Counting(Step):
    """Counts how often it was loaded."""

    loads: ClassVar[list[str]] = []

    def load(self) -> None:
        self.loads.append("load")

    def unload(self) -> None:
        self.loads.append("unload")

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


def test_a_step_is_loaded_once_for_all_its_shards_and_unloaded_at_the_end(storage: Path) -> None:
    Counting.loads.clear()

    collect(Counting().map(load(PROMPTS, shard_rows=3)))

    assert Counting.loads == ["load", "unload"]


class LocalEngine(LLM):
    """A user's engine that takes several inputs at once."""

    calls: ClassVar[list[int]] = []

    @property
    def model_name(self) -> str:
        return "local"

    def generate(self, inputs: list[ChatType], num_generations: int = 1, shout: bool = False) -> list[GenerateOutput]:
        self.calls.append(len(inputs))
        texts = [chat[-1]["content"].upper() if shout else chat[-1]["content"] for chat in inputs]
        counts = {"input_tokens": [1] * num_generations, "output_tokens": [2] * num_generations}
        return [{"generations": [text] * num_generations, "statistics": counts} for text in texts]


def test_a_synchronous_llm_gets_its_inputs_in_batches(storage: Path) -> None:
    LocalEngine.calls.clear()
    task = TextGeneration(llm=LocalEngine(input_batch_size=6, generation_kwargs={"shout": "true"}))

    dataset = collect(task.map(load(PROMPTS)))

    assert LocalEngine.calls == [6, 6, 6, 2]
    assert dataset["generation"][:] == [row["instruction"].upper() for row in PROMPTS]


def test_structured_output_fits_its_schema_in_a_flow(provider: LocalProvider, storage: Path) -> None:
    class Review(BaseModel):
        stars: Annotated[int, Field(ge=1, le=5)]
        text: str

    task = generation(llm_options={"structured_output": Review})

    dataset = collect(task.map(load(PROMPTS[:3])))

    assert all(Review.model_validate_json(text) for text in dataset["generation"])


def test_an_unreadable_answer_is_kept_and_asked_again_by_the_next_run_alone(
    provider: LocalProvider, storage: Path
) -> None:
    class Number(TextGeneration):
        def format_output(self, output: str | None, input: dict[str, Any]) -> dict[str, Any]:
            return {"generation": str(int(output or ""))}

    def run() -> Any:
        return collect(Number(name="number", llm=OpenAILLM(model="m")).map(load(PROMPTS)), max_failed_rows=1)

    provider.set(answers={"number 7\\.": "seven", "number (?P<n>\\d+)": "12"})
    bad = run()[7]["distilabel_metadata"]
    provider.set(answers={"number": "7"})
    provider.clear()
    again = run()

    assert bad["raw_output_number"] == "seven"
    assert bad["error_number"]["type"] == "ValueError"
    assert bad["statistics_number"]["output_tokens"] > 0
    assert [request.body["messages"][0]["content"] for request in provider.requests] == ["Tell me about number 7."]
    assert again["generation"][:] == ["12"] * 7 + ["7"] + ["12"] * 12


def test_log_probabilities_are_kept_with_the_row(provider: LocalProvider, storage: Path) -> None:
    options = {"generation_kwargs": {"logprobs": True, "top_logprobs": 2}}

    metadata = collect(generation(llm_options=options).map(load(PROMPTS[:2])))[0]["distilabel_metadata"]

    assert len(metadata["logprobs_text_generation"][0]) == 2
    assert set(metadata["logprobs_text_generation"][0][0]) == {"token", "logprob"}
