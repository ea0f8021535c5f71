"""Images: from an image model, and saved as files."""

# fsspec has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import Field

from llms import LLM, AnyImageModel
from llms.extras import opened_with
from llms.images import image_bytes, image_type
from llms.parameters import short
from tasks.base import Answer, ModelStep, UnreadableAnswerError, all_taken, failed
from tasks.cells import whole_text
from tasks.rows.columns import value_in, with_failure
from tasks.steps import Step, failure_in
from tasks.targets.places import TargetError
from tasks.typing import Ask, Columns, Row, StepInput, StepOutput


class ImageGeneration(ModelStep):
    """An image of what a prompt says, by an image model: of a service, online or in batch jobs, or of one's own.

    `SaveImages` after it makes files of them. Rows hold whole images, so small shards suit them:
    `load(source, shard_rows=50)`.

    Input columns:
        prompt: a text that isn't empty.

    Output columns:
        image: the image's file, in base64.
        model_name: the model that made it.

    Example:
        >>> from llms import ImageGenerationModel
        >>> from tasks import ImageGeneration
        >>> class Dots(ImageGenerationModel):
        ...     @property
        ...     def model_name(self):
        ...         return "dots"
        ...
        ...     def generate_images(self, inputs, num_generations=1):
        ...         return [[b"<svg><circle r='9'/></svg>"] * num_generations for _ in inputs]
        >>> row = next(ImageGeneration(image_generation_model=Dots()).process([{"prompt": "A dot."}]))[0]
        >>> row["image"], row["model_name"]
        ('PHN2Zz48Y2lyY2xlIHI9JzknLz48L3N2Zz4=', 'dots')
    """

    form_first = ("image_generation_model",)

    image_generation_model: Annotated[AnyImageModel, Field(title="Image model", description="Who makes the images.")]
    num_generations: Annotated[int, Field(ge=1, title="Images per prompt", description="A row for each.")] = 1

    @property
    def inputs(self) -> Columns:
        return ["prompt"]

    @property
    def outputs(self) -> Columns:
        return ["image", "model_name"]

    @property
    def answerer(self) -> LLM:
        return self.image_generation_model

    @property
    def answers_per_row(self) -> int:
        return self.num_generations

    def prompt(self, row: Row) -> str:
        return whole_text(value_in(row, "prompt"), "prompt")

    async def converse(self, row: Row, ask: Ask) -> list[Answer]:
        output = await ask(self.prompt(row), self.num_generations)
        known = zip(output["generations"], all_taken(output), strict=True)
        return [answer_with(image, taken) for image, taken in known]


class SaveImages(Step):
    """Images in base64 as files in a folder. A file is named after what is in it, so no image is there twice.

    Input columns:
        image: an image's file, in base64.

    Output columns:
        image_path: where its file is.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tasks import SaveImages
        >>> step = SaveImages(folder=tempfile.mkdtemp())
        >>> row = next(step.process([{"image": "PHN2Zz48Y2lyY2xlIHI9JzknLz48L3N2Zz4="}]))[0]
        >>> Path(row["image_path"]).read_text()
        "<svg><circle r='9'/></svg>"
    """

    fails_rows = True
    takes_failed_rows = True

    form_first = ("folder",)

    folder: Annotated[str, Field(min_length=1, title="Folder", description="A path, or an address (s3://...).")]
    storage_options: Annotated[
        dict[str, Any] | None, Field(exclude=True, description="For the fsspec file system.")
    ] = None

    @property
    def inputs(self) -> Columns:
        return ["image"]

    @property
    def outputs(self) -> Columns:
        return ["image_path"]

    def process(self, inputs: StepInput) -> StepOutput:
        """Save the images of rows.

        Raises:
            TargetError: the folder can't be written to.
        """
        yield [self._saved(row) for row in inputs]

    def _saved(self, row: Row) -> Row:
        made: Row = {**row, "image_path": None}
        if failure_in(row) is not None:
            return made
        try:
            data = image_bytes(text_in(row))
        except ValueError as error:
            return with_failure(made, self.name, error)
        name = f"{blake2b(data, digest_size=16).hexdigest()}.{image_type(data)}"
        return {**made, "image_path": self._write(name, data)}

    def _write(self, name: str, data: bytes) -> str:
        """The path or address of the file. Raises TargetError."""
        import fsspec

        try:
            filesystem, folder = fsspec.core.url_to_fs(self.folder, **(self.storage_options or {}))
            path = f"{folder.rstrip('/')}/{name}"
            filesystem.makedirs(folder, exist_ok=True)
            # Also where it's there: a crash may have cut it.
            filesystem.pipe_file(path, data)
        except (OSError, ValueError, ImportError) as error:
            raise TargetError(f"folder={self.folder!r} can't be written to: {error}{opened_with(error)}") from error
        return str(filesystem.unstrip_protocol(path)).removeprefix("file://")


def answer_with(image: str | None, taken: Answer) -> Answer:
    answer = replace(taken, columns={"image": image})
    return answer if image else failed(answer, UnreadableAnswerError("the model made no image"))


def text_in(row: Row) -> str:
    """The image of a row. Raises ValueError."""
    image = value_in(row, "image")
    if not isinstance(image, str):
        raise ValueError(f"image: expected an image in base64, got {short(image)}")
    return image
