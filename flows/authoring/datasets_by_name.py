"""What a pipeline with several last steps gives: their datasets by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset  # pyright: ignore[reportMissingTypeStubs]


class Datasets(dict[str, "Dataset"]):
    """The datasets of a pipeline's last steps, by the steps' names."""

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> None:
        """Upload each to the repository, as a configuration that is named after its step.

        For a card, or for one dataset alone, end the pipeline with the step `PushToHub`.

        Args:
            repo_id: `name` or `organisation/name`.
            private: whether a new repository is private. None: as the organisation has it.
            token: default: HF_TOKEN, or that of `hf auth login`.
            options: as `datasets.Dataset.push_to_hub` takes them.
        """
        for name, dataset in self.items():
            pushed: Any = dataset
            pushed.push_to_hub(repo_id, config_name=name, private=private, token=token, **options)

    def save_to_disk(self, path: str | Path) -> None:
        """Save each to a folder below `path`, which `datasets.load_from_disk` opens."""
        for name, dataset in self.items():
            saved: Any = dataset
            saved.save_to_disk(str(Path(path) / name))

    def _repr_html_(self) -> str:
        """In a notebook: the first rows of each."""
        from flows.viewing.inline import rows_html

        return rows_html(self)

    def train_test_split(
        self, train_size: float | None = None, *, shuffle: bool = True, seed: int | None = None
    ) -> Any:
        """Each as a `DatasetDict` of `train` and `test`, by the steps' names."""
        split: dict[str, Any] = dict(self)
        return {
            name: dataset.train_test_split(train_size=train_size, shuffle=shuffle, seed=seed)
            for name, dataset in split.items()
        }
