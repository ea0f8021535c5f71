"""Magpie: instructions and answers that an aligned model makes up from the opening of a user's turn alone."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flows.authoring.parameters import flow
from flows.authoring.saving import MAX_FAILED_ROWS, save
from flows.engine.graph import load
from llms import OpenAILLM
from tasks import MagpieGenerator, MinHashDedup, SaveToDisk
from tasks.registry import Target
from tasks.writing.chat_templates import CHAT_TEMPLATES
from tasks.writing.magpie import SystemPrompt

SYSTEM_PROMPTS = [
    SystemPrompt(name="general", weight=3.0, text="You are a helpful assistant. People ask you whatever they need."),
    SystemPrompt(
        name="coding",
        text="You are a programmer's assistant. You write, explain and mend code, and say why it is right.",
    ),
    SystemPrompt(
        name="math", text="You are a teacher of mathematics. You solve problems step by step, and check the result."
    ),
    SystemPrompt(
        name="writing", text="You are a writer's assistant. You draft, shorten and edit texts of any kind and tone."
    ),
    SystemPrompt(
        name="data", text="You are an analyst. You read tables and figures, and explain what they show and what not."
    ),
    SystemPrompt(
        name="advice",
        text="You are an adviser in everyday matters. You weigh choices, and say what speaks for each.",
    ),
]


@flow(name="magpie")
async def magpie(
    magpie_generator: MagpieGenerator = MagpieGenerator(
        llm=OpenAILLM(
            model="meta-llama/Llama-3.1-8B-Instruct",
            generation_kwargs={
                "temperature": 1.0,
                "max_new_tokens": 2048,
                "stop": CHAT_TEMPLATES["llama3"].stop,
                "extra_body": {"skip_special_tokens": False},
            },
        ),
        chat_template="llama3",
        num_rows=100,
        system_prompts=SYSTEM_PROMPTS,
    ),
    deduplicate: bool = True,
    min_hash_dedup: MinHashDedup = MinHashDedup(
        threshold=0.8, drop_duplicates=True, input_mappings={"text": "instruction"}
    ),
    target: Target = SaveToDisk(name="target", path="data/magpie"),
    use_cache: bool = True,
    max_failed_rows: Annotated[float, Field(ge=0)] = MAX_FAILED_ROWS,
    approve_cost_above: Annotated[float | None, Field(ge=0)] = None,
    finish_online_below: Annotated[int, Field(ge=0)] = 0,
    max_cost: Annotated[float | None, Field(ge=0)] = None,
) -> Any:
    """Make instructions and answers to tune a model on, from nothing: an open model makes up both.

    Args:
        magpie_generator: Who makes them up, how many. The LLM is an open model on a server with OpenAI's completions,
            such as vLLM: its address is base_url, or OPENAI_BASE_URL. For one of another family, set chat_template and
            the LLM's stop with the model.
        deduplicate: Drop rows whose instruction is nearly the same as one before. On: it needs the extra dedup. Off for
            conversations (more turns than one).
        min_hash_dedup: When two instructions are nearly the same.
        target: Where the dataset goes.
        use_cache: Take answers of earlier runs with the same requests. Off: fresh instructions.
        max_failed_rows: How many rows may fail before the run does: below 1 a share, else a count.
        approve_cost_above: Dollars. A run that would cost more, online or in batches, waits for your approval first.
        finish_online_below: Of offline batches: fewer requests than this are sent online, in place of a job.
        max_cost: Dollars. The run fails before it spends more; what was answered is kept for one with a higher limit.
    """
    rows = load(magpie_generator, use_cache=use_cache)
    if deduplicate:
        # Now, and not once its turn comes: a package that is missing must stop the run before anything is paid for.
        min_hash_dedup.load()
        rows = min_hash_dedup.map(rows)
    return await save(
        rows,
        target,
        max_failed_rows=max_failed_rows,
        approve_cost_above=approve_cost_above,
        finish_online_below=finish_online_below,
        max_cost=max_cost,
    )
