"""Savers: where a finished dataset goes: a folder, files, or the Hugging Face Hub. `argilla.py` has more."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, SecretStr, field_validator

from llms.parameters import Unasked
from tasks.sources.files import ENDINGS, FileType, ending_of
from tasks.sources.loaders import REPO_ID
from tasks.steps import Step
from tasks.targets.card_header import CARD, TAG, header_and_text, merged_cards, tagged
from tasks.targets.files import quiet, write_rows
from tasks.targets.places import Place, TargetError, full_ending, place_at
from tasks.typing import StepInput, StepOutput

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Saver(Step, ABC):
    """A step that saves a dataset. Write `check` and `save`."""

    form_last: ClassVar[tuple[str, ...]] = ("kind",)
    form_more: ClassVar[tuple[str, ...]] = ("overwrite",)
    names_place: ClassVar[tuple[str, ...]] = ()
    """The fields that say where to, in which `{date}` and `{run}` may stand."""

    # A saver takes the whole dataset as it is.
    input_batch_size: Annotated[int, Field(ge=1, exclude=True), Unasked()] = 50
    input_mappings: Annotated[dict[str, str], Field(exclude=True)] = {}
    output_mappings: Annotated[dict[str, str], Field(exclude=True)] = {}
    overwrite: Annotated[
        bool,
        Field(title="Overwrite", description="What is at the place already. Off: refuse before anything is sent."),
        Unasked(),
    ] = True

    @abstractmethod
    def check(self) -> None:
        """Find out whether `save` will succeed, before anything is made. Raises TargetError."""

    @abstractmethod
    def save(self, dataset: Dataset | DatasetDict, card: str) -> str:
        """Save all of it or nothing. Returns where it is: an absolute path or an address.

        Args:
            dataset: several, as a DatasetDict, are splits where their columns are the same,
                configurations of their own otherwise.
            card: the text of the dataset's README.md.

        Raises:
            TargetError: it can't be saved. What was there stays as it was.
        """

    def of_run(self, **values: str) -> Self:
        """The saver with `{date}` and `{run}` of a run filled in where it says where to. Raises TargetError."""

        def filled(match: re.Match[str]) -> str:
            if match[1] not in values:
                known = " and ".join(f"{{{each}}}" for each in values)
                raise TargetError(f"{match[0]} in the target of {self.name!r} is not known; there are {known}")
            return values[match[1]]

        fields = {name: getattr(self, name) for name in self.names_place}
        texts = {name: PLACEHOLDER.sub(filled, text) for name, text in fields.items() if text}
        return self.model_copy(update=texts) if texts != fields else self

    def process(self, *inputs: StepInput) -> StepOutput:
        """The rows as they are: saving is for a whole dataset."""
        yield list(chain.from_iterable(inputs))


class PathSaver(Saver, ABC):
    """A saver to a path or an fsspec address. Write `write` and `is_ours`."""

    form_first: ClassVar[tuple[str, ...]] = ("path",)
    names_place: ClassVar[tuple[str, ...]] = ("path",)

    path: Annotated[
        str,
        Field(
            title="Path",
            description="A path on this machine, or an address (s3://...). {date} and {run} are filled in:"
            " the day that the run was due, in UTC, and the beginning of its id.",
        ),
    ] = ""
    storage_options: Annotated[
        dict[str, Any] | None, Field(exclude=True, description="For the fsspec file system.")
    ] = None

    @field_validator("path", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    def check(self) -> None:
        place = self._place()
        self._check_replacing(place)
        place.check_writable()

    def _place(self) -> Place:
        if not self.path:
            raise TargetError(f"path of {self.name!r} is empty; name a folder or file to save to")
        return place_at(self.path, self.storage_options or {})

    def _check_replacing(self, place: Place) -> None:
        if not place.exists() or place.is_empty_folder():
            return
        if not self.overwrite:
            raise TargetError(
                f"{place} is there already and overwrite=False; choose another path, or set overwrite to replace it"
            )
        if not self.is_ours(place):
            raise TargetError(
                f"{place} isn't a dataset of the kind that {type(self).__name__} writes, so it isn't replaced;"
                " choose another path, or move it away"
            )

    @abstractmethod
    def is_ours(self, place: Place) -> bool:
        """Whether what is at `place` may be replaced."""


class SaveToDisk(PathSaver):
    """Saves a folder as `Dataset.save_to_disk` does, with the card in README.md.

    The new folder takes the place of an old one only when it's complete.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset, load_from_disk
        >>> from tasks import SaveToDisk
        >>> saver = SaveToDisk(path=tempfile.mkdtemp() + "/stories")
        >>> saver.check()
        >>> load_from_disk(saver.save(Dataset.from_dict({"story": ["Once."]}), "# Stories"))[0]
        {'story': 'Once.'}
    """

    form_title = "Dataset on disk"

    kind: Annotated[Literal["disk"], Field(title="Target")] = "disk"

    def save(self, dataset: Dataset | DatasetDict, card: str) -> str:
        place = self._place()
        self._check_replacing(place)
        with quiet(), place.replacing() as fresh:
            dataset.save_to_disk(fresh.url, storage_options=self.storage_options)
            fresh.child(CARD).write(tagged(card).encode())
        return place.url

    def is_ours(self, place: Place) -> bool:
        return any(place.child(name).exists() for name in ("dataset_info.json", "dataset_dict.json"))


class SaveToFiles(PathSaver):
    """Saves Parquet, JSON Lines, JSON or CSV files.

    A path that ends in .parquet, .jsonl, .json or .csv (the text ones also with .gz) is one file,
    with its card next to it, `stories.README.md` for `stories.jsonl`; of several datasets, each gets
    its own, as `stories-train.jsonl`. Any other path is a folder that `datasets.load_dataset` opens.
    In CSV, lists and dicts are written as JSON and missing values as empty cells; in CSV and JSON,
    bytes are written in base64. The new files take the place of old ones only when they are complete.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from datasets import Dataset
        >>> from tasks import SaveToFiles
        >>> saver = SaveToFiles(path=tempfile.mkdtemp() + "/stories.csv")
        >>> path = saver.save(Dataset.from_dict({"story": ["Once."], "tags": [["old", "sad"]]}), "# Stories")
        >>> print(Path(path).read_text())
        story,tags
        Once.,"[""old"",""sad""]"
        <BLANKLINE>
    """

    form_title = "Files"
    form_first = ("path", "file_format", "rows_per_file")

    kind: Annotated[Literal["files"], Field(title="Target")] = "files"
    file_format: Annotated[
        FileType | None, Field(title="File type", description="Empty: by the path's ending, or Parquet in a folder.")
    ] = None
    rows_per_file: Annotated[
        int | None, Field(ge=1, title="Rows per file", description="In a folder. Empty: one file per split.")
    ] = None

    def check(self) -> None:
        self._format()
        super().check()

    def save(self, dataset: Dataset | DatasetDict, card: str) -> str:
        place = self._place()
        if not self._is_file():
            return self._save_folder(place, dataset, card)
        parts = parts_of(dataset)
        name = place.name.removesuffix(full_ending(place.name))
        for part in parts:
            own = place if len(parts) == 1 else place.sibling(f"{name}-{part.name}{full_ending(place.name)}")
            self._check_replacing(own)
            with own.replacing() as fresh:
                write_rows(part.dataset, fresh, self._format(), compressed=own.name.endswith(".gz"))
        with place.sibling(f"{name}.{CARD}").replacing() as fresh:
            fresh.write(tagged(card).encode())
        return place.url if len(parts) == 1 else place.sibling(f"{name}-*{full_ending(place.name)}").url

    def _check_replacing(self, place: Place) -> None:
        if self._is_file() and place.is_folder():
            raise TargetError(f"{place} is a folder; name a file in it, or a folder whose name has no such ending")
        super()._check_replacing(place)

    def _save_folder(self, place: Place, dataset: Dataset | DatasetDict, card: str) -> str:
        self._check_replacing(place)
        parts = parts_of(dataset)
        with place.replacing() as fresh:
            for part in parts:
                shards = shards_of(part.dataset, self.rows_per_file)
                for number, shard in enumerate(shards):
                    name = f"{part.split}-{number:05d}-of-{len(shards):05d}.{self._format()}"
                    write_rows(shard, fresh.child(part.folder, name), self._format())
            fresh.child(CARD).write(tagged(card, configs=configs_of(parts)).encode())
        return place.url

    def is_ours(self, place: Place) -> bool:
        if self._is_file():
            return True
        readme = place.child(CARD)
        return readme.exists() and TAG in (header_and_text(readme.read().decode(errors="replace"))[0].get("tags") or [])

    def _is_file(self) -> bool:
        return ending_of(self.path) in ENDINGS

    def _format(self) -> FileType:
        """The type of the files. Raises TargetError where path and `file_format` don't fit each other."""
        if not self._is_file():
            return self.file_format or "parquet"
        by_ending = ENDINGS[ending_of(self.path)]
        if self.file_format not in {None, by_ending}:
            raise TargetError(
                f"path={self.path!r} doesn't end as file_format={self.file_format!r} does; change one of them"
            )
        if full_ending(self.path) != ending_of(self.path) and (by_ending == "parquet" or not self.path.endswith(".gz")):
            raise TargetError(
                f"path={self.path!r}: of compressed files, .jsonl.gz, .json.gz and .csv.gz can be written"
            )
        if self.rows_per_file:
            raise TargetError(f"path={self.path!r} is one file, but rows_per_file={self.rows_per_file}; name a folder")
        return by_ending


class PushToHub(Saver):
    """Pushes to a dataset repository of the Hugging Face Hub, which is made if it isn't there.

    The key comes from HF_TOKEN or from `hf auth login`. The card becomes the README; what the
    repository's metadata had besides, such as a license, stays.

    Example:
        >>> from tasks import PushToHub
        >>> PushToHub(repo_id="my-name/stories", private=True).model_dump(exclude_defaults=True)
        {'repo_id': 'my-name/stories', 'private': True}
    """

    form_title = "Hugging Face Hub"
    form_first = ("repo_id", "private")
    names_place = ("repo_id", "config_name", "revision")

    kind: Annotated[Literal["hub"], Field(title="Target")] = "hub"
    repo_id: Annotated[str, Field(title="Dataset", description="On the Hugging Face Hub, as owner/name.")] = ""
    split: Annotated[str, Field(title="Split", description="Of a dataset without splits of its own.")] = "train"
    config_name: Annotated[str, Field(title="Configuration")] = "default"
    private: Annotated[
        bool | None,
        Field(title="Private", description="Where the repository is new. Empty: as the owner's settings say."),
    ] = None
    revision: Annotated[str | None, Field(title="Branch", description="Empty: main.")] = None
    commit_message: Annotated[str | None, Field(title="Commit message")] = None
    token: Annotated[
        SecretStr | None, Field(exclude=True, description="The key itself; better by the environment."), Unasked()
    ] = None

    def check(self) -> None:
        """Ask the Hub whether the key may write there. Raises TargetError."""
        if not REPO_ID.fullmatch(self.repo_id):
            raise TargetError(f"repo_id of {self.name!r}: expected owner/name of a dataset, got {self.repo_id!r}")
        if not SPLIT_NAME.fullmatch(self.split):
            raise TargetError(f"split of {self.name!r}: expected a name such as train, got {self.split!r}")
        if self.config_name == "data" or re.search(r"[<>:/\\|?*]", self.config_name) or not self.config_name:
            raise TargetError(f"config_name of {self.name!r} can't be {self.config_name!r}; choose a plain name")
        with self._explained():
            account = self._api().whoami()
            self._check_rights(account)
            if not self.overwrite and self._api().repo_exists(self.repo_id, repo_type="dataset"):
                raise TargetError(
                    f"{self} is there already and overwrite=False; choose another repo_id,"
                    " or set overwrite to replace its files"
                )

    def save(self, dataset: Dataset | DatasetDict, card: str) -> str:
        """Push each split or configuration in a commit of its own, then the card."""
        with quiet(), self._explained():
            for part in parts_of(dataset, self.config_name, self.split):
                part.dataset.push_to_hub(
                    self.repo_id,
                    config_name=part.config,
                    split=part.split,
                    private=self.private,
                    token=self._key(),
                    revision=self.revision,
                    commit_message=self.commit_message or "Upload the dataset",
                )
            return self._push_card(card)

    def _push_card(self, card: str) -> str:
        api = self._api()
        repo_id: str = api.repo_info(self.repo_id, repo_type="dataset").id
        there = api.hf_hub_download(repo_id, CARD, repo_type="dataset", revision=self.revision)
        text = merged_cards(Path(there).read_text(encoding="utf-8"), tagged(card))
        api.upload_file(
            path_or_fileobj=text.encode(),
            path_in_repo=CARD,
            repo_id=repo_id,
            repo_type="dataset",
            revision=self.revision,
            commit_message=self.commit_message or "Upload the card",
        )
        branch = f"/tree/{self.revision}" if self.revision else ""
        return f"{api.endpoint}/datasets/{repo_id}{branch}"

    def _check_rights(self, account: dict[str, Any]) -> None:
        """Raises TargetError where the key may only read, or the owner is somebody else."""
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise TargetError(
                f"{self}: the token may only read; make one that may write at https://huggingface.co/settings/tokens"
            )
        owner, _, name = self.repo_id.rpartition("/")
        writable = [
            account["name"],
            *(each["name"] for each in account.get("orgs", []) if each.get("roleInOrg") != "read"),
        ]
        if owner and owner not in writable:
            choices = ", ".join(f"{each}/{name}" for each in writable)
            raise TargetError(f"{self}: {account['name']!r} can't write there; choose one of {choices}")

    def _key(self) -> str:
        from huggingface_hub import get_token

        key = self.token.get_secret_value() if self.token else get_token()
        if not key:
            raise TargetError(f"{self}: no token; set HF_TOKEN to one that may write, or run `hf auth login`")
        return key

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(token=self._key(), library_name=TAG)

    def __str__(self) -> str:
        return f"dataset {self.repo_id!r} of the Hub"

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Every failure of the Hub as a TargetError."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
        from huggingface_hub.utils import httpx

        try:
            yield
        except TargetError:
            raise
        except HfHubHTTPError as error:
            wrong = {
                401: "the token is refused; set HF_TOKEN to a valid one that may write",
                403: "the token may not write there; make one that may at https://huggingface.co/settings/tokens",
            }
            raise TargetError(f"{self}: {wrong.get(error.response.status_code, error)}") from error
        except (httpx.HTTPError, ConnectionError, OfflineModeIsEnabled) as error:
            raise TargetError(
                f"{self} can't be reached: {error}. Check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from error
        except (HFValidationError, OSError, ValueError) as error:
            raise TargetError(f"{self} can't be saved: {error}") from error


# What there is to save


@dataclass(frozen=True)
class Part:
    """One split of one configuration."""

    config: str
    split: str
    dataset: Dataset
    name: str = ""
    """Its name among the datasets given."""

    @property
    def folder(self) -> str:
        return "data" if self.config == "default" else self.config


def parts_of(dataset: Dataset | DatasetDict, config: str = "default", split: str = "train") -> list[Part]:
    """Splits where the columns are the same, configurations of their own otherwise."""
    if not isinstance(dataset, dict):
        return [Part(config, split, dataset, split)]
    named = {str(name): each for name, each in cast("dict[Any, Dataset]", dataset).items()}
    features = [each.features for each in named.values()]
    if all(SPLIT_NAME.fullmatch(name) for name in named) and all(each == features[0] for each in features):
        return [Part(config, name, each, name) for name, each in named.items()]
    return [Part(name, split, each, name) for name, each in named.items()]


def shards_of(dataset: Dataset, rows: int | None) -> list[Dataset]:
    if not rows or len(dataset) <= rows:
        return [dataset]
    return [dataset.select(range(start, min(start + rows, len(dataset)))) for start in range(0, len(dataset), rows)]


def configs_of(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """The configurations, as the metadata of a card tell them to `datasets.load_dataset`."""
    configs: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        files = {"split": part.split, "path": f"{part.folder}/{part.split}-*"}
        configs.setdefault(part.config, []).append(files)
    return [{"config_name": name, "data_files": files} for name, files in configs.items()]


# Cards


# Places
