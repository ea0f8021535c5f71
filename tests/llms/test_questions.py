"""The keys of questions are what kept answers are found by: pinned, so that nobody's answers are asked again unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.ledger import key_of, later_key, part_keys, question_of, space_of
from llms import (
    AnthropicLLM,
    AsyncLLM,
    AzureOpenAILLM,
    BedrockLLM,
    CohereEmbeddings,
    CohereLLM,
    GeminiEmbeddings,
    GeminiLLM,
    InferenceEndpointsEmbeddings,
    InferenceEndpointsImageGeneration,
    InferenceEndpointsLLM,
    LiteLLM,
    MistralEmbeddings,
    MlxLLM,
    OllamaEmbeddings,
    OpenAIEmbeddings,
    OpenAIImageGeneration,
    OpenAILLM,
    SentenceTransformerEmbeddings,
    TransformersLLM,
    VertexAILLM,
    vLLM,
)
from llms.base import LLM
from llms.typing import FormattedInput, GenerateOutput
from tests.conftest import said

TABLE = Path(__file__).with_name("questions.json")
CHAT: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What's the capital of Spain? ¡Olé!"},
]
IMAGE: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SETTINGS: dict[str, Any] = {"temperature": 0.3, "stop": ["\n"]}
GOOGLE: dict[str, Any] = {**SETTINGS, "thinking_budget": 0, "safety_settings": {"HARM_CATEGORY_HARASSMENT": "OFF"}}


VARIABLES = (
    *(
        "OPENAI_BASE_URL",
        "AZURE_OPENAI_ENDPOINT",
        "OPENAI_API_VERSION",
        "ANTHROPIC_BASE_URL",
        "CO_API_URL",
        "OLLAMA_HOST",
    ),
    *("GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "GOOGLE_CLOUD_LOCATION", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
)
"""Of the environment, that say other addresses than the providers' own."""


class OwnLLM(AsyncLLM):
    """An adapter as a user writes one."""

    voice: str = "high"

    @property
    def model_name(self) -> str:
        return "own"

    async def agenerate(self, input: Any, num_generations: int = 1, temperature: float = 1.0) -> GenerateOutput:
        counts = {"input_tokens": [1] * num_generations, "output_tokens": [1] * num_generations}
        return {"generations": [self.voice] * num_generations, "statistics": counts}


QUESTIONS: dict[str, tuple[LLM, FormattedInput, int]] = {
    "openai": (OpenAILLM(model="gpt-4o"), CHAT, 1),
    "openai, three answers": (OpenAILLM(model="gpt-4o"), CHAT, 3),
    "openai, settings": (OpenAILLM(model="gpt-4o", generation_kwargs=SETTINGS), CHAT, 1),
    "openai, a schema": (OpenAILLM(model="gpt-4o"), (CHAT, SCHEMA), 1),
    "openai, a schema of the model": (OpenAILLM(model="gpt-4o", structured_output=SCHEMA), CHAT, 1),
    "openai, an image": (OpenAILLM(model="gpt-4o"), IMAGE, 1),
    "openai, a bare prompt": (OpenAILLM(model="gpt-4o"), "Once upon a time", 1),
    "openai, a reasoning model": (OpenAILLM(model="o4-mini", generation_kwargs={"reasoning_effort": "low"}), CHAT, 1),
    "a server of one's own": (OpenAILLM(model="llama", base_url="http://127.0.0.1:8000/v1/"), CHAT, 1),
    "azure": (AzureOpenAILLM(model="mine", base_url="https://a.openai.azure.com"), CHAT, 1),
    "azure, dated": (
        AzureOpenAILLM(model="mine", base_url="https://a.openai.azure.com", api_version="2024-10-21"),
        CHAT,
        1,
    ),
    "anthropic": (AnthropicLLM(model="claude-sonnet-4-5"), CHAT, 1),
    "anthropic, settings": (AnthropicLLM(model="claude-sonnet-4-5", generation_kwargs=SETTINGS), CHAT, 2),
    "anthropic, a schema": (AnthropicLLM(model="claude-sonnet-4-5"), (CHAT, SCHEMA), 1),
    "inference endpoints": (InferenceEndpointsLLM(model_id="meta-llama/Llama-3.3-70B-Instruct"), CHAT, 1),
    "inference endpoints, settings": (InferenceEndpointsLLM(endpoint_name="mine", generation_kwargs=SETTINGS), CHAT, 1),
    "inference endpoints, a bare prompt": (InferenceEndpointsLLM(base_url="http://127.0.0.1:8080"), "Once", 1),
    "openai embeddings": (OpenAIEmbeddings(model="text-embedding-3-small"), "A text.", 1),
    "openai embeddings, settings": (
        OpenAIEmbeddings(model="text-embedding-3-small", generation_kwargs={"dimensions": 256}),
        "A text.",
        1,
    ),
    "inference endpoints embeddings": (InferenceEndpointsEmbeddings(model_id="intfloat/e5"), "A text.", 1),
    "sentence transformers": (SentenceTransformerEmbeddings(model="all-MiniLM-L6-v2"), "A text.", 1),
    "openai images": (OpenAIImageGeneration(model="gpt-image-1", generation_kwargs={"size": "1024x1024"}), "A dot.", 2),
    "inference endpoints images": (InferenceEndpointsImageGeneration(model_id="black-forest-labs/FLUX"), "A dot.", 1),
    "gemini": (GeminiLLM(model="gemini-2.5-flash"), CHAT, 1),
    "gemini, settings": (GeminiLLM(model="gemini-2.5-flash", generation_kwargs=GOOGLE), CHAT, 2),
    "gemini, a schema": (GeminiLLM(model="gemini-2.5-flash"), (CHAT, SCHEMA), 1),
    "gemini, an image": (GeminiLLM(model="gemini-2.5-flash"), IMAGE, 1),
    "vertexai": (VertexAILLM(model="gemini-2.5-flash", project="p", bucket="gs://rows"), CHAT, 1),
    "vertexai, a location": (VertexAILLM(model="gemini-2.5-flash", location="europe-west4"), CHAT, 1),
    "cohere": (CohereLLM(model="command-a-03-2025"), CHAT, 1),
    "cohere, settings": (CohereLLM(model="command-a-03-2025", generation_kwargs={**SETTINGS, "seed": 7}), CHAT, 1),
    "cohere, a schema": (CohereLLM(model="command-a-03-2025"), (CHAT, SCHEMA), 1),
    "bedrock": (BedrockLLM(model="amazon.nova-lite-v1:0", region="us-east-1", role_arn="arn"), CHAT, 1),
    "bedrock, settings": (
        BedrockLLM(model="amazon.nova-lite-v1:0", region="us-east-1", generation_kwargs=SETTINGS),
        CHAT,
        1,
    ),
    "bedrock, a schema": (BedrockLLM(model="amazon.nova-lite-v1:0", region="us-east-1"), (CHAT, SCHEMA), 1),
    "litellm": (LiteLLM(model="replicate/meta/llama-3"), CHAT, 1),
    "litellm, settings": (LiteLLM(model="replicate/meta/llama-3", generation_kwargs=SETTINGS), CHAT, 1),
    "gemini embeddings": (GeminiEmbeddings(model="gemini-embedding-001"), "A text.", 1),
    "mistral embeddings": (MistralEmbeddings(model="mistral-embed"), "A text.", 1),
    "cohere embeddings": (CohereEmbeddings(model="embed-v4.0"), "A text.", 1),
    "ollama embeddings": (OllamaEmbeddings(model="nomic-embed-text", keep_alive="5m"), "A text.", 1),
    "transformers": (TransformersLLM(model="Qwen/Qwen3-0.6B"), CHAT, 1),
    "transformers, settings": (
        TransformersLLM(model="Qwen/Qwen3-0.6B", revision="v2", dtype="float16", generation_kwargs=SETTINGS),
        CHAT,
        2,
    ),
    "transformers, a schema": (TransformersLLM(model="Qwen/Qwen3-0.6B"), (CHAT, SCHEMA), 1),
    "vllm": (vLLM(model="Qwen/Qwen3-0.6B", tensor_parallel_size=2, max_model_len=4096), CHAT, 1),
    "vllm, settings": (vLLM(model="Qwen/Qwen3-0.6B", quantization="fp8", generation_kwargs=SETTINGS), CHAT, 2),
    "mlx": (MlxLLM(model="mlx-community/Qwen3-4B-4bit", generation_kwargs=SETTINGS), CHAT, 1),
    "an own adapter": (OwnLLM(), CHAT, 1),
    "an own adapter, settings": (OwnLLM(voice="low", generation_kwargs={"temperature": 0.3}), CHAT, 2),
}


def found() -> dict[str, dict[str, str]]:
    questions = {
        name: {"space": space_of(llm), "question": question_of(llm, given, times)}
        for name, (llm, given, times) in QUESTIONS.items()
    }
    root = key_of("0" * 32, 1, 2)
    keys = {"first": root, "later": later_key(root, "1" * 32, 3), "part": part_keys(root, 2)[1]}
    return {**questions, "keys": keys}


@pytest.mark.parametrize("name", [*QUESTIONS, "keys"])
def test_a_change_of_this_table_asks_everybodys_answers_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)

    assert found()[name] == json.loads(TABLE.read_text())[name], (
        "kept answers are found by these keys: with others, everybody pays for theirs again. Where that is meant, write"
        f" the table anew (python -m {__name__}), and say it in CHANGELOG.md"
    )


def test_questions_differ_where_something_else_is_sent_and_nowhere_else() -> None:
    table = json.loads(TABLE.read_text())
    keys = [(each["space"], each["question"]) for name, each in table.items() if name != "keys"]

    assert len(set(keys)) == len(keys) - 1
    assert table["openai, a schema"] == table["openai, a schema of the model"]


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout": 9.0},
        {"max_retries": 1, "max_concurrent_requests": 3},
        {"api_key": "sk-other", "organization": "org"},
        {"use_offline_batch_generation": True, "batch_tries": 1},
        {"generation_kwargs": {"max_new_tokens": 7}},
    ],
)
def test_what_says_only_how_fast_or_how_long_changes_no_question(changes: dict[str, Any]) -> None:
    one, other = OpenAILLM(model="gpt-4o"), OpenAILLM(model="gpt-4o", **changes)

    assert (space_of(one), question_of(one, CHAT, 1)) == (space_of(other), question_of(other, CHAT, 1))


def test_what_a_server_refused_and_the_adapter_learned_changes_no_question() -> None:
    learned = OpenAILLM(model="gpt-4o", generation_kwargs={"max_new_tokens": 9})
    before = question_of(learned, CHAT, 3)
    learned._tokens_parameter = "max_completion_tokens"  # pyright: ignore[reportPrivateUsage] -- as after a refusal
    learned._repeats = True  # pyright: ignore[reportPrivateUsage]

    assert question_of(learned, CHAT, 3) == before


def test_what_a_claude_doesnt_take_and_what_it_was_found_not_to_take_changes_no_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learned = AnthropicLLM(model="claude-of-tomorrow-9", generation_kwargs={"temperature": 0.3, "top_k": 5})
    before = question_of(learned, CHAT, 2)
    learned._refused.add("temperature")  # pyright: ignore[reportPrivateUsage] -- as after a refusal
    known = AnthropicLLM(model="claude-opus-4-7", generation_kwargs={"temperature": 0.3})

    assert question_of(learned, CHAT, 2) == before
    assert question_of(known, CHAT, 1) != question_of(AnthropicLLM(model="claude-opus-4-7"), CHAT, 1)
    assert said(caplog, "llms.providers.anthropic") == []


def test_an_own_adapter_asks_anew_where_its_code_or_a_field_changes() -> None:
    class Changed(OwnLLM):
        async def agenerate(self, input: Any, num_generations: int = 1, temperature: float = 2.0) -> GenerateOutput:
            return await super().agenerate(input, num_generations)

    Changed.__name__ = OwnLLM.__name__

    assert len({space_of(OwnLLM()), space_of(OwnLLM(voice="low")), space_of(Changed())}) == 3


def test_an_adapter_of_ours_asks_the_same_under_a_users_subclass_that_answers_as_it_does() -> None:
    class Timed(OpenAILLM):
        def load(self) -> None:
            super().load()

    class Mine(OpenAILLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
            return await super().agenerate(input, num_generations, temperature=0.0)

    assert space_of(Timed(model="gpt-4o")) == space_of(OpenAILLM(model="gpt-4o")) != space_of(Mine(model="gpt-4o"))


if __name__ == "__main__":
    TABLE.write_text(json.dumps(found(), indent=2) + "\n")
