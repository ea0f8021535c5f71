"""Embeddings from embedding models, and from an LLM's hidden states."""

from __future__ import annotations

from typing import Any

import pytest

from llms import LLM, ChatType, Embeddings, OfflineBatchGenerationNotFinishedError, OpenAIEmbeddings
from llms.local_provider import LocalProvider
from llms.typing import HiddenState
from tasks import TextGeneration
from tasks.rows.embeddings import EmbeddingGeneration, GenerateEmbeddings
from tasks.steps import METADATA, failure_in


class Words(LLM):
    """A token per word of the last message: its length and its place. Keeps what it was called for."""

    calls: list[Any] = []

    @property
    def model_name(self) -> str:
        return "words"

    def load(self) -> None:
        self.calls.append("load")

    def unload(self) -> None:
        self.calls.append("unload")

    def get_last_hidden_state(self, inputs: list[ChatType]) -> list[HiddenState]:
        self.calls.append(inputs)
        words = [str(chat[-1]["content"]).split() for chat in inputs]
        return [[[len(word), place] for place, word in enumerate(each)] for each in words]


class WithoutStates(LLM):
    @property
    def model_name(self) -> str:
        return "none"


CHAT = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Good morning"}]


def test_the_embedding_is_the_last_tokens_of_a_text_or_of_a_chat() -> None:
    rows = next(GenerateEmbeddings(llm=Words()).process([{"text": "high tide now"}, {"text": CHAT}]))
    assert [row["embedding"] for row in rows] == [[3.0, 2.0], [7.0, 1.0]]
    assert all(isinstance(number, float) for row in rows for number in row["embedding"])
    assert [row["model_name"] for row in rows] == ["words", "words"]


def test_all_texts_of_a_batch_go_to_the_model_together() -> None:
    llm = Words()
    GenerateEmbeddings(llm=llm, input_batch_size=2).apply([{"text": "a"}, {"text": "b"}, {"text": "c"}])
    assert [len(call) for call in llm.calls] == [2, 1]


def test_the_model_is_loaded_and_unloaded_with_the_step() -> None:
    llm = Words()
    step = GenerateEmbeddings(llm=llm)
    step.load()
    step.unload()
    assert llm.calls == ["load", "unload"]


@pytest.mark.parametrize("text", [None, "", 5, [], [{"text": "x"}], "   "])
def test_a_row_without_a_text_fails_alone(text: Any) -> None:
    bad, good = next(GenerateEmbeddings(llm=Words()).process([{"text": text}, {"text": "tide"}]))
    assert bad["embedding"] is None and failure_in(bad) is not None
    assert good["embedding"] == [4.0, 0.0]


def test_a_row_that_failed_before_isnt_shown_to_the_model() -> None:
    llm = Words()
    metadata = {"error_x": {"type": "LLMError", "message": "no", "retryable": False}}
    (row,) = next(GenerateEmbeddings(llm=llm).process([{"text": "a", METADATA: metadata}]))
    assert row["embedding"] is None and row[METADATA] == metadata
    assert llm.calls == []


def test_an_llm_without_hidden_states_says_so() -> None:
    with pytest.raises(NotImplementedError, match="WithoutStates gives no hidden states"):
        next(GenerateEmbeddings(llm=WithoutStates()).process([{"text": "a"}]))


# Embedding models


class Lengths(Embeddings):
    @property
    def model_name(self) -> str:
        return "lengths"

    def encode(self, inputs: list[str], **kwargs: Any) -> list[list[float]]:
        return [[len(text), 1] for text in inputs]


class Silent(Lengths):
    def encode(self, inputs: list[str], **kwargs: Any) -> list[list[float]]:
        return [[] for _ in inputs]


def test_an_embedding_model_of_ones_own_embeds_texts() -> None:
    rows = next(EmbeddingGeneration(embeddings=Lengths()).process([{"text": "ebb"}, {"text": "high tide"}]))

    assert [(row["embedding"], row["model_name"]) for row in rows] == [([3.0, 1.0], "lengths"), ([9.0, 1.0], "lengths")]


@pytest.mark.parametrize("text", [None, "", 5, CHAT])
def test_a_row_without_a_text_to_embed_fails_alone(text: Any) -> None:
    bad, good = next(EmbeddingGeneration(embeddings=Lengths()).process([{"text": text}, {"text": "tide"}]))

    failure = failure_in(bad)
    assert failure is not None
    assert "expected a text" in failure["message"]
    assert (bad["embedding"], good["embedding"]) == (None, [4.0, 1.0])


def test_an_empty_vector_is_a_failure() -> None:
    (row,) = next(EmbeddingGeneration(embeddings=Silent()).process([{"text": "ebb"}]))

    failure = failure_in(row)
    assert failure is not None
    assert failure["message"] == "lengths gave no embedding"


def test_batches_without_a_flow_pass_by_the_rows_without_a_text(provider: LocalProvider) -> None:
    provider.set(batch_manual=True)
    model = OpenAIEmbeddings(model="m", use_offline_batch_generation=True, generation_kwargs={"dimensions": 4})
    step = EmbeddingGeneration(embeddings=model)
    rows = [{"text": "ebb"}, {"text": ""}, {"text": "tide " * 10_000}, {"text": "flood"}]
    with pytest.raises(OfflineBatchGenerationNotFinishedError) as raised:
        next(step.process(rows))
    provider.end_batch(raised.value.jobs_ids[0], shuffle=True)
    made = next(step.process(rows))

    online = OpenAIEmbeddings(model="m").encode(["ebb", "flood"], dimensions=4)
    assert [row["embedding"] for row in made] == [online[0], None, None, online[1]]
    assert [failure and failure["type"] for failure in map(failure_in, made)] == [
        None,
        "ValueError",
        "ContextLengthError",
        None,
    ]


def test_a_task_refuses_an_embedding_model_for_its_llm() -> None:
    with pytest.raises(ValueError, match="Lengths gives vectors, no text; give it to EmbeddingGeneration"):
        TextGeneration(llm=Lengths())


def test_embedding_generation_refuses_an_llm() -> None:
    with pytest.raises(ValueError, match="embeddings"):
        EmbeddingGeneration(embeddings=Words())  # pyright: ignore[reportArgumentType]
