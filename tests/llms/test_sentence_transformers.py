"""Embeddings by Sentence Transformers, with a tiny model that is made here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from llms import AnyEmbeddings, ModelNotFoundError, ParameterError, SentenceTransformerEmbeddings
from llms.extras import MissingPackageError
from tasks import EmbeddingGeneration

TEXTS = ["ebb tide", "flood", "high tide now"]


def test_without_the_package_loading_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        MissingPackageError, match=r"needs sentence_transformers: .* -m pip install 'sentence-transformers>="
    ):
        SentenceTransformerEmbeddings(model="some/model").load()


def test_a_form_may_choose_it() -> None:
    given = {"provider": "sentence-transformers", "model": "m", "normalize_embeddings": False}
    made = TypeAdapter[Any](AnyEmbeddings).validate_python(given)
    assert isinstance(made, SentenceTransformerEmbeddings) and not made.normalize_embeddings


def test_a_key_and_where_it_runs_make_no_other_cache_key_and_the_key_isnt_shown() -> None:
    plain = SentenceTransformerEmbeddings(model="m")
    made = SentenceTransformerEmbeddings(model="m", device="cuda:1", token="hf_secret", input_batch_size=2)  # pyright: ignore[reportArgumentType]
    assert made.identity() == plain.identity()
    assert "hf_secret" not in made.model_dump_json() + repr(made)
    assert SentenceTransformerEmbeddings(model="m", truncate_dim=2).identity() != plain.identity()


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ParameterError, match="prompt_name"):
        SentenceTransformerEmbeddings(model="m").with_generation_kwargs({"prompt_nam": "query"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer with random weights."""
    pytest.importorskip("torch", reason="needs the extra `local`, which tests don't install: torch is large")
    library = pytest.importorskip("sentence_transformers", reason="needs the extra `local`")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ebb", "flood", "high", "tide", "now", "query", ":"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    # Of a model without a pooling of its own, the mean of the tokens is taken.
    library.SentenceTransformer(str(folder / "bert"), device="cpu").save(str(folder / "whole"))
    return folder / "whole"


def model(folder: Path, **fields: Any) -> SentenceTransformerEmbeddings:
    return SentenceTransformerEmbeddings(model=str(folder), device="cpu", **fields)


def test_texts_get_vectors_of_length_one_in_their_order(folder: Path) -> None:
    vectors = model(folder).encode(TEXTS)
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert [sum(number**2 for number in vector) for vector in vectors] == [pytest.approx(1, abs=1e-5)] * 3
    alone = [model(folder, input_batch_size=1).encode([text])[0] for text in TEXTS]
    assert vectors == [pytest.approx(vector, abs=1e-5) for vector in alone]


def test_vectors_may_keep_their_length_be_shorter_or_be_bits(folder: Path) -> None:
    raw = model(folder, normalize_embeddings=False).encode(TEXTS)
    assert sum(number**2 for number in raw[0]) != pytest.approx(1, abs=1e-2)
    assert [len(vector) for vector in model(folder, truncate_dim=3).encode(TEXTS)] == [3, 3, 3]
    assert all(
        len(vector) == 1 and vector[0] == int(vector[0]) for vector in model(folder, precision="ubinary").encode(TEXTS)
    )


def test_a_prompt_is_put_before_the_texts(folder: Path) -> None:
    (said,) = model(folder).encode(["query : flood"])
    prompts = {"query": "query : ", "none": ""}
    (default,) = model(folder, prompts=prompts, default_prompt_name="query").encode(["flood"])
    (plain,) = model(folder).encode(["flood"])
    assert default == pytest.approx(said, abs=1e-5)
    named = model(folder, prompts=prompts, generation_kwargs={"prompt_name": "query"}).generate_outputs(["flood"])
    assert named[0].get("embeddings") == [pytest.approx(said, abs=1e-5)]
    assert plain != pytest.approx(said, abs=1e-3)


def test_a_step_embeds_with_it(folder: Path) -> None:
    step = EmbeddingGeneration(embeddings=model(folder))
    step.load()
    rows = next(step.process([{"text": text} for text in TEXTS]))
    step.unload()
    assert [row["embedding"] for row in rows] == [pytest.approx(each, abs=1e-5) for each in model(folder).encode(TEXTS)]
    assert {row["model_name"] for row in rows} == {str(folder)}


def test_a_model_that_isnt_there_is_told(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="can't be loaded"):
        SentenceTransformerEmbeddings(model=str(folder / "nothing"), device="cpu").load()
