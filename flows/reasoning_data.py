"""Reasoning data: problems are solved several times, with the thoughts that led there, and what is right is kept."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM, ParameterError
from tasks import (
    ExpandColumns,
    FilterRows,
    JudgeSolution,
    LoadDataFromFileSystem,
    PassRate,
    SaveToDisk,
    SolveProblem,
    VerifyAnswer,
    VerifyCode,
)
from tasks.registry import Source, Target


@flow(name="reasoning-data")
async def reasoning_data(
    source: Source = LoadDataFromFileSystem(name="source", data_files="flows/data/problems.jsonl"),
    solve_problem: SolveProblem = SolveProblem(
        llm=OpenAILLM(model="gpt-4o-mini", generation_kwargs={"temperature": 1.0}),
        num_generations=4,
        group_generations=True,
        think_aloud=True,
        # The texts are in columns of their own. In the metadata of each row, they'd be those of all rows of a problem.
        add_raw_input=False,
        add_raw_output=False,
        output_mappings={"solution": "solutions"},
    ),
    verify_answer: VerifyAnswer = VerifyAnswer(input_mappings={"generation": "solutions"}),
    verify_code: VerifyCode = VerifyCode(input_mappings={"generation": "solutions"}),
    ask_judge: bool = True,
    judge_solution: JudgeSolution = JudgeSolution(
        llm=OpenAILLM(model="gpt-4o"),
        add_raw_input=False,
        input_mappings={"generation": "solutions"},
        output_mappings={"model_name": "judge_model"},
    ),
    difficulty: FilterRows = FilterRows(name="difficulty", column="pass_rate", keep_missing=True),
    filter_rows: FilterRows = FilterRows(column="correct", lowest=1),
    target: Target = SaveToDisk(name="target", path="data/reasoning-data"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make solutions with their reasoning to train a model on: each problem is solved several times, and verified.

    Args:
        source: Where the problems come from: the column problem and, to verify by, answer or tests.
        solve_problem: Who solves each problem, and how often. Grouped, so that the share of right solutions is known.
        verify_answer: How final answers are compared with the right one. It needs the extra math.
        verify_code: What solutions in Python may take in their tests. They are run on the machine that runs this flow.
        ask_judge: Have a judge decide what neither answers nor tests did.
        judge_solution: Who that is.
        difficulty: Which problems are kept, by the share of their solutions that are right.
        filter_rows: Which solutions are kept. Without a lowest value, wrong ones too, but none that is undecided.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: fresh solutions of the same problems.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Of offline batches: dollars. A run that would cost more waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    if not solve_problem.group_generations:
        raise ParameterError("solve_problem: solutions of a problem are counted together, set group_generations=True")
    # Now, and not once their turn comes: what can't verify must stop the run before anything is paid for.
    for verifier in (verify_answer, verify_code):
        verifier.load()
        verifier.unload()
    rows = load(source, use_cache=use_cache)
    rows = solve_problem.map(rows)
    rows = verify_answer.map(rows)
    rows = verify_code.map(rows)
    if ask_judge:
        rows = judge_solution.map(rows)
    rows = PassRate().map(rows)
    rows = difficulty.map(rows)
    reasoning = {"reasoning": "reasoning"} if solve_problem.add_reasoning else {}
    verdicts = {name: name for name in ("correct", "verified_by", "verification")}
    solutions = ExpandColumns(
        name="expand_solutions", columns={"solutions": "solution", **reasoning, **verdicts}, split_statistics=True
    )
    rows = solutions.map(rows)
    rows = filter_rows.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
