"""`Source` and `Target`: fields for any loader and any saver, ours by their `kind`, others by import path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from llms.variants import Variants
from tasks.steps import GeneratorStep
from tasks.targets.savers import Saver

if TYPE_CHECKING:
    from tasks.sources.generators import GeneratorTask

SOURCE_VARIANTS = Variants(
    base=("tasks.steps:GeneratorStep", "tasks.sources.generators:GeneratorTask"),
    tag="kind",
    ours={
        "files": "tasks.sources.loaders:LoadDataFromFileSystem",
        "hub": "tasks.sources.loaders:LoadDataFromHub",
        "disk": "tasks.sources.loaders:LoadDataFromDisk",
        "dicts": "tasks.sources.loaders:LoadDataFromDicts",
        "columns": "tasks.sources.samplers:SampleColumns",
        "personas": "tasks.sources.samplers:SamplePersonas",
    },
    title="Source",
)


TARGET_VARIANTS = Variants(
    base="tasks.targets.savers:Saver",
    tag="kind",
    ours={
        "files": "tasks.targets.savers:SaveToFiles",
        "disk": "tasks.targets.savers:SaveToDisk",
        "hub": "tasks.targets.savers:PushToHub",
        "argilla-text-generation": "tasks.targets.argilla:TextGenerationToArgilla",
        "argilla-preference": "tasks.targets.argilla:PreferenceToArgilla",
    },
    title="Target",
)

if TYPE_CHECKING:
    Source = GeneratorStep | GeneratorTask
    Target = Saver
else:
    Source = Annotated[GeneratorStep, SOURCE_VARIANTS]
    Target = Annotated[Saver, TARGET_VARIANTS]
