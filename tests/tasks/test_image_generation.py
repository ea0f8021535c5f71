"""Images of prompts: in rows and in files, online, in batches, in flows."""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows import collect, flow, load
from flows.authoring.preview import preview
from flows.ledger.jobs import numbers_in
from llms import OpenAIImageGeneration, OpenAILLM
from llms.batch import BatchResult
from llms.images import image_output
from llms.local_provider import LocalProvider
from tasks import ImageGeneration, SaveImages, TargetError, TextGeneration
from tasks.steps import METADATA, failure_in
from tasks.typing import Row
from tests.flows.test_batching import ending
from tests.llms.test_images import Dots

ROWS = [{"prompt": f"Picture number {number}.", "n": number} for number in range(5)]
SVG = b64encode(b"<svg/>").decode()


@pytest.fixture
def provider(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setenv("STILLFLOW_POLL_SECONDS", "0.05")
    monkeypatch.setattr("llms.limits.FIRST_DELAY", 0.01)
    return provider


def images(*, offline: bool = False, **options: Any) -> ImageGeneration:
    model = OpenAIImageGeneration(model="gpt-image-2", max_retries=0, use_offline_batch_generation=offline)
    return ImageGeneration(image_generation_model=model, **options)


def rows_of(step: ImageGeneration | SaveImages, rows: list[Row]) -> list[Row]:
    step.load()
    return [row for some in step.process(rows) for row in some]


def images_for(prompt: str, count: int = 1) -> list[str | None]:
    """The images as the server gives them to one who asks for them alone."""
    (output,) = OpenAIImageGeneration(model="gpt-image-2").generate_outputs([prompt], num_generations=count)
    return output["generations"]


def test_every_prompt_gets_its_own_image(provider: LocalProvider) -> None:
    from PIL import Image

    rows = rows_of(images(), ROWS)

    assert [[row["image"]] for row in rows] == [images_for(row["prompt"]) for row in ROWS]
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["model_name"] for row in rows} == {"gpt-image-2"}
    assert Image.open(BytesIO(b64decode(rows[0]["image"]))).size == (16, 16)
    statistics = {"input_tokens": 5, "output_tokens": 256}
    assert rows[0][METADATA] == {"statistics_image_generation": statistics, "error_image_generation": None}


def test_several_images_of_a_prompt_are_a_row_each(provider: LocalProvider) -> None:
    rows = rows_of(images(num_generations=3), ROWS[:2])

    assert [row["n"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert len({row["image"] for row in rows}) == 6
    assert len(provider.requests) == 2


@pytest.mark.parametrize("prompt", ["", "  ", None, 5])
def test_what_is_no_prompt_fails_its_row_alone_and_is_not_sent(provider: LocalProvider, prompt: Any) -> None:
    bad, good = rows_of(images(), [{"prompt": prompt}, ROWS[0]])

    assert (failure_in(bad) or {}).get("message", "").startswith("prompt: expected a text")
    assert bad["image"] is None
    assert good["image"]
    assert len(provider.requests) == 1


def test_a_refused_prompt_fails_its_row_alone(provider: LocalProvider) -> None:
    provider.set(faults=[{"match": "number 1", "status": 400, "message": "Blocked.", "code": "moderation_blocked"}])

    rows = rows_of(images(num_generations=2), ROWS[:2])

    assert [(failure_in(row) or {}).get("type") for row in rows] == [None, None, *["ContentFilterError"] * 2]


def test_columns_go_by_the_datasets_names(provider: LocalProvider) -> None:
    step = images(input_mappings={"prompt": "scene"}, output_mappings={"image": "picture"})
    (row,) = rows_of(step, [{"scene": ROWS[0]["prompt"], "prompt": "another"}])

    assert [row["picture"]] == images_for(ROWS[0]["prompt"])
    assert row["prompt"] == "another"


def test_a_model_of_ones_own_makes_them_together() -> None:
    model = Dots()
    rows = rows_of(ImageGeneration(image_generation_model=model), ROWS)

    assert len(rows) == 5
    assert model.calls == [[row["prompt"] for row in ROWS]]


def test_image_models_and_llms_are_told_apart() -> None:
    with pytest.raises(ValidationError, match="makes images, no text; give it to ImageGeneration"):
        TextGeneration(llm=OpenAIImageGeneration(model="m"))
    with pytest.raises(ValidationError):
        ImageGeneration.model_validate({"image_generation_model": OpenAILLM(model="m")})


# Files


def test_images_are_saved_once_each_under_a_name_of_their_type(provider: LocalProvider, tmp_path: Path) -> None:
    made = rows_of(images(), ROWS[:2])
    rows = rows_of(SaveImages(folder=str(tmp_path / "new" / "images")), [*made, made[0], {"image": SVG}])

    paths = [Path(row["image_path"]) for row in rows]
    assert [path.read_bytes() for path in paths] == [b64decode(row["image"]) for row in rows]
    assert [path.suffix for path in paths] == [".png", ".png", ".png", ".svg"]
    assert paths[2] == paths[0]
    assert len(list((tmp_path / "new" / "images").iterdir())) == 3
    assert all(path.is_absolute() for path in paths)
    assert all(row["image"] for row in rows)


def test_a_file_that_was_cut_is_written_again(tmp_path: Path) -> None:
    step = SaveImages(folder=str(tmp_path))
    (row,) = rows_of(step, [{"image": SVG}])
    Path(row["image_path"]).write_bytes(b"<s")

    rows_of(step, [{"image": SVG}])

    assert Path(row["image_path"]).read_bytes() == b"<svg/>"


def test_images_are_saved_at_an_address() -> None:
    import fsspec

    (row,) = rows_of(SaveImages(folder="memory://pictures/today"), [{"image": SVG}])

    assert row["image_path"].startswith("memory://")
    with fsspec.open(row["image_path"], "rb") as file:
        assert file.read() == b"<svg/>"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": None}, "image: expected an image in base64, got None"),
        ({"image": "no base64!"}, "expected an image in base64, got 'no base64!'"),
        ({"image": b64encode(b"text").decode()}, "got bytes that begin with b'text'"),
        ({}, "there's no column 'image'"),
    ],
)
def test_what_is_no_image_fails_its_row_alone(tmp_path: Path, row: Row, said: str) -> None:
    bad, good = rows_of(SaveImages(folder=str(tmp_path)), [row, {"image": SVG}])

    assert said in (failure_in(bad) or {}).get("message", "")
    assert bad["image_path"] is None
    assert good["image_path"]


def test_a_row_that_failed_before_is_passed_over(tmp_path: Path) -> None:
    failed = {"image": None, METADATA: {"error_images": {"type": "X", "message": "x", "retryable": False}}}

    (row,) = rows_of(SaveImages(folder=str(tmp_path)), [failed])

    assert row == {**failed, "image_path": None}


def test_a_folder_that_cant_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(TargetError, match="folder='.*file/images' can't be written to"):
        rows_of(SaveImages(folder=str(tmp_path / "file" / "images")), [{"image": SVG}])


# Flows


@pytest.mark.parametrize("offline", [False, True])
def test_a_flow_makes_and_saves_them_and_pays_once(
    provider: LocalProvider, storage: Path, tmp_path: Path, offline: bool
) -> None:
    provider.set(batch_manual=True)

    def run(folder: str) -> Any:
        rows = load(ROWS, shard_rows=2).map(images(offline=offline, num_generations=2))
        return collect(rows.map(SaveImages(folder=str(tmp_path / folder))))

    with ending(provider, {"shuffle": True}):
        dataset = run("one")
    again = run("another")

    assert (provider.stats.count("/images/generations"), len(provider.batches)) == ((0, 1) if offline else (5, 0))
    assert dataset["n"][:] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [row["image"] for row in dataset if row["n"] == 3] == images_for(ROWS[3]["prompt"], 2)
    for row in again:
        assert Path(row["image_path"]).parent == tmp_path / "another"
        assert Path(row["image_path"]).read_bytes() == b64decode(row["image"])


def test_a_preview_shows_the_prompts_and_sends_nothing(provider: LocalProvider, storage: Path, tmp_path: Path) -> None:
    @flow
    async def pictures(draw: ImageGeneration = images(), keep: SaveImages = SaveImages(folder=str(tmp_path))) -> Any:
        return await collect(load(ROWS).map(draw).map(keep))

    assert preview(pictures, rows=2) == {"image_generation": [row["prompt"] for row in ROWS[:2]]}
    assert provider.requests == []
    assert list(tmp_path.glob("*.png")) == []


def test_images_count_for_the_room_that_they_take() -> None:
    assert numbers_in(BatchResult("a", image_output(["x" * 3200, "y" * 3200]))) == 200
