"""Kept answers of a model whose files are here belong to what these files hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from flows.ledger import space_of
from llms import LlamaCppLLM, MlxLLM, SentenceTransformerEmbeddings, TransformersLLM, vLLM
from tasks import EmbeddingGeneration

SIZE = 40 * 2**20
"""Of a file that isn't read whole."""


def written(path: Path, content: bytes, *, size: int = 0, at: int = 0) -> Path:
    """A file of zeros with `content` somewhere in it; it takes no room for the zeros."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(content)
    return path


def test_two_files_of_one_size_and_one_head_are_two_models(tmp_path: Path) -> None:
    places = (0, SIZE // 2, SIZE - 8)
    files = [written(tmp_path / f"{at}" / "m.gguf", b"weights!" * 2**17, size=SIZE, at=at) for at in places[:2]]
    files.append(written(tmp_path / "end" / "m.gguf", b"weights!", size=SIZE, at=places[2]))
    files.append(written(tmp_path / "none" / "m.gguf", b"", size=SIZE))

    assert {file.stat().st_size for file in files} == {SIZE}
    assert len({space_of(LlamaCppLLM(model_path=str(file))) for file in files}) == len(files)


def test_a_file_is_the_same_model_wherever_it_lies(tmp_path: Path) -> None:
    here, there = (written(tmp_path / name / "m.gguf", b"GGUF weights", size=SIZE) for name in ("here", "there"))

    assert space_of(LlamaCppLLM(model_path=str(here))) == space_of(LlamaCppLLM(model_path=str(there)))


@pytest.mark.parametrize("kind", [TransformersLLM, vLLM, MlxLLM, SentenceTransformerEmbeddings])
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "config.json", "tokenizer.json"])
def test_a_model_that_was_trained_anew_into_its_folder_is_another_one(kind: Any, name: str, tmp_path: Path) -> None:
    written(tmp_path / "config.json", b"{}")
    before = space_of(kind(model=str(tmp_path)))
    written(tmp_path / name, b"others")
    after = space_of(kind(model=str(tmp_path)))

    assert after != before


@pytest.mark.parametrize("kind", [TransformersLLM, SentenceTransformerEmbeddings])
def test_what_else_lies_in_a_models_folder_changes_nothing(kind: Any, tmp_path: Path) -> None:
    written(tmp_path / "model.safetensors", b"weights")
    before = space_of(kind(model=str(tmp_path)))
    written(tmp_path / "README.md", b"read me")
    written(tmp_path / "events.out", b"a log")

    assert space_of(kind(model=str(tmp_path))) == before


def test_modules_of_sentence_transformers_count_in_folders_of_their_own(tmp_path: Path) -> None:
    def spaces() -> tuple[str, str]:
        model = str(tmp_path)
        return space_of(SentenceTransformerEmbeddings(model=model)), space_of(TransformersLLM(model=model))

    written(tmp_path / "model.safetensors", b"weights")
    written(tmp_path / "2_Dense" / "model.safetensors", b"one")
    before, elsewhere = spaces()
    written(tmp_path / "2_Dense" / "model.safetensors", b"another")
    after, still = spaces()

    assert after != before
    assert still == elsewhere


class OfItsWeights(SentenceTransformerEmbeddings):
    """A model whose vectors are the bytes of its weights."""

    def load(self) -> None:
        """There's nothing to load."""

    def encode(self, inputs: list[str]) -> list[list[float]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [list(map(float, (Path(self.model) / "model.safetensors").read_bytes()))] * len(inputs)


@pytest.mark.usefixtures("storage")
def test_rows_that_are_kept_were_made_with_the_weights_that_are_there(tmp_path: Path) -> None:
    def vectors() -> list[list[float]]:
        step = EmbeddingGeneration(embeddings=OfItsWeights(model=str(tmp_path / "model")))
        return [row["embedding"] for row in collect(load([{"text": "ebb"}, {"text": "flood"}]).map(step))]

    for weights in (b"\x01", b"\x02"):
        written(tmp_path / "model" / "model.safetensors", weights)
        assert vectors() == [[float(weights[0])]] * 2


def test_an_adapter_and_a_tokenizer_of_this_machine_count_by_what_they_hold(tmp_path: Path) -> None:
    def spaces() -> tuple[str, str]:
        adapted = MlxLLM(model="org/model", adapter_path=str(tmp_path))
        return space_of(adapted), space_of(TransformersLLM(model="org/model", tokenizer=str(tmp_path)))

    written(tmp_path / "adapters.safetensors", b"one")
    before = spaces()
    written(tmp_path / "adapters.safetensors", b"another")

    assert all(new != old for new, old in zip(spaces(), before, strict=True))


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path) -> None:
    file = written(tmp_path / "m.gguf", b"one")
    before, times = space_of(LlamaCppLLM(model_path=str(file))), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert space_of(LlamaCppLLM(model_path=str(file))) == before

    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert space_of(LlamaCppLLM(model_path=str(file))) != before
