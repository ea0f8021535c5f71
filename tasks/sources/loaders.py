"""Loaders: steps that read rows from Python, the Hugging Face Hub, files, or datasets on disk."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, PrivateAttr, SkipValidation, field_validator

from llms.extras import opened_with
from llms.parameters import short
from tasks.arrow import array_of, known_type, shape_of, unkeepable
from tasks.sources.errors import SourceError
from tasks.sources.files import DataFile, FileType, ReadBefore, csv_read_before, find_files, looked_from
from tasks.sources.tables import joined_types, rows_of_dataset, types_of_dataset, types_of_rows
from tasks.steps import GeneratorStep, SourceTypes
from tasks.typing import Columns, GeneratorStepOutput, Row

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset


REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class Loader(GeneratorStep, ABC):
    """A generator step that reads rows from outside. Write `rows`, `columns` and `__str__`."""

    form_last: ClassVar[tuple[str, ...]] = ("kind",)

    num_examples: Annotated[
        int | None, Field(ge=1, title="Number of rows", description="Only the first ones. Empty: all.")
    ] = None

    @property
    def outputs(self) -> Columns:
        return sorted(self.columns() or ())

    def columns_written(self) -> dict[str, bool]:
        """None: they are known by reading alone."""
        return {}

    @abstractmethod
    def rows(self, offset: int) -> Iterator[Row]:
        """The rows one by one, without the first `offset`. Raises SourceError."""

    @abstractmethod
    def __str__(self) -> str:
        """The source, as a message names it."""

    def process(self, offset: int = 0) -> GeneratorStepOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield `(rows, last)`, leaving out the first `offset` rows.

        Raises:
            SourceError: the source can't be read, or has no rows.
        """
        rest = None if self.num_examples is None else max(0, self.num_examples - offset)
        rows = islice(self.rows(offset), rest)
        batch = list(islice(rows, self.batch_size))
        if not batch and offset == 0:
            raise SourceError(f"{self} has no rows; a source needs at least one")
        while True:
            following = list(islice(rows, self.batch_size))
            yield batch, not following
            if not following:
                return
            batch = following

    def limit(self, rows: int | None) -> int | None:
        """How many rows there are at most, where only the first `rows` matter."""
        limits = [each for each in (self.num_examples, rows) if each is not None]
        return min(limits, default=None)


class LoadDataFromDicts(Loader):
    """Rows given in Python.

    Output columns:
        those of the rows.

    Example:
        >>> from tasks import LoadDataFromDicts
        >>> loader = LoadDataFromDicts(data=[{"instruction": "Say hi."}, {"instruction": "Say bye."}], batch_size=1)
        >>> list(loader.process())
        [([{'instruction': 'Say hi.'}], False), ([{'instruction': 'Say bye.'}], True)]
    """

    form_title = "Rows in Python"

    kind: Annotated[Literal["dicts"], Field(title="Source")] = "dicts"
    data: Annotated[SkipValidation[list[Row]], Field(exclude=True, description="The rows, as dicts.")] = []

    @field_validator("data", mode="before")
    @classmethod
    def _check_data(cls, value: Any) -> Any:
        return checked_rows(value)

    def __iter__(self) -> Generator[tuple[str, Any]]:
        # Prefect looks through parameters for blocks and futures: in rows it finds none, and what only looks like one.
        return ((name, value) for name, value in super().__iter__() if name != "data")

    def rows(self, offset: int) -> Iterator[Row]:
        return islice(map(dict, self.data), offset, None)

    def columns(self) -> frozenset[str] | None:
        return frozenset(chain.from_iterable(self.data)) or None

    def columns_written(self) -> dict[str, bool]:
        names = dict.fromkeys(chain.from_iterable(self.data))
        return dict.fromkeys((self.output_mappings.get(name, name) for name in names), True)

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        """The types of the rows' columns. Raises SourceError for a row that can't be kept."""
        data = self.data[: self.limit(rows)]
        for position, row in enumerate(data):
            if unkeepable(row):
                name, problem = next((name, said) for name, each in row.items() if (said := unkeepable({name: each})))
                raise SourceError(f"row {position} of {self}, column {name!r}: {problem}")
        return types_of_rows(data)

    def __str__(self) -> str:
        return f"`data` of {self.name!r}"


class LoadDataFromHub(Loader):
    """Rows of a dataset on the Hugging Face Hub.

    A private or gated dataset needs HF_TOKEN in the environment. Images and sounds come as
    `{"bytes", "path"}`.

    Output columns:
        those of the dataset.

    Example:
        >>> from tasks import LoadDataFromHub
        >>> loader = LoadDataFromHub(repo_id="openai/gsm8k", config="main", split="test", num_examples=100)
        >>> print(loader)
        dataset 'openai/gsm8k' (config 'main') of the Hub
    """

    form_title = "Hugging Face Hub"
    form_first = ("repo_id", "split", "config")

    kind: Annotated[Literal["hub"], Field(title="Source")] = "hub"
    repo_id: Annotated[str, Field(title="Dataset", description="On the Hugging Face Hub, as owner/name.")] = ""
    split: Annotated[str, Field(title="Split", description="Such as train, test or train[:10%].")] = "train"
    config: Annotated[str | None, Field(title="Configuration", description="Of a dataset that has several.")] = None
    revision: Annotated[str | None, Field(title="Revision", description="A branch, tag or commit.")] = None
    streaming: Annotated[
        bool, Field(title="Stream", description="Read over the network while running. Off: download it all first.")
    ] = False

    _opened: Any = PrivateAttr(default=None)

    def rows(self, offset: int) -> Iterator[Row]:
        with self._explained():
            opened, self._opened = self._opened, None
            yield from rows_of_dataset(self._open() if opened is None else opened, offset, source=str(self))

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        """The dataset's own types. It's downloaded first, unless it's streamed. Raises SourceError."""
        with self._explained():
            self._opened = self._open()
            return types_of_dataset(self._opened, str(self), self.limit(rows))

    def columns(self) -> frozenset[str] | None:
        """The columns as the dataset's description tells them; None where it doesn't. Raises SourceError."""
        from datasets import load_dataset_builder

        with self._explained():
            features = load_dataset_builder(self._repo(), self.config, revision=self.revision).info.features
        return frozenset(features) if features else None

    def __str__(self) -> str:
        config = f" (config {self.config!r})" if self.config else ""
        return f"dataset {self.repo_id!r}{config} of the Hub"

    def _repo(self) -> str:
        if not REPO_ID.fullmatch(self.repo_id):
            raise SourceError(
                f"repo_id of {self.name!r}: expected owner/name of a dataset on the Hub, got {self.repo_id!r}."
                " A folder or file is read by LoadDataFromDisk or LoadDataFromFileSystem"
            )
        if Path(self.repo_id).exists():
            raise SourceError(
                f"repo_id={self.repo_id!r} is also a folder in {str(Path.cwd())!r}, which would be read instead;"
                " run elsewhere, or read the folder by LoadDataFromDisk or LoadDataFromFileSystem"
            )
        return self.repo_id

    def _open(self) -> Dataset | IterableDataset:
        from datasets import load_dataset

        found: Any = load_dataset(
            self._repo(), self.config, split=self.split, revision=self.revision, streaming=self.streaming
        )
        return found

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Every failure of the Hub as a SourceError."""
        import pyarrow as pa
        from datasets.exceptions import DatasetNotFoundError, DatasetsError
        from huggingface_hub.errors import RepositoryNotFoundError
        from huggingface_hub.utils import httpx

        try:
            yield
        except SourceError:
            raise
        except (DatasetNotFoundError, RepositoryNotFoundError) as error:
            raise SourceError(
                f"{self}: {error} Check the name; if it's private or gated, ask for access on its page"
                " and set HF_TOKEN to a token that may read it"
            ) from error
        except (ConnectionError, httpx.HTTPError) as error:
            raise SourceError(
                f"{self} can't be reached: {error}. Check the network, HF_ENDPOINT and HF_HUB_OFFLINE;"
                " a dataset downloaded before is read from the cache with HF_HUB_OFFLINE=1"
            ) from error
        except (DatasetsError, OSError, ValueError, RuntimeError, pa.ArrowInvalid) as error:
            asked = f"split={self.split!r}, config={self.config!r}, revision={self.revision!r}"
            raise SourceError(f"{self} can't be read with {asked}: {error}") from error


class LoadDataFromFileSystem(Loader):
    """Rows of CSV, JSON, JSON Lines or Parquet files, on this machine or at an fsspec address.

    Files are read in order, one batch in memory at a time, compressed ones (.gz, .bz2, .xz, .zst)
    too; only a .json file that holds one list is read whole. A flow reads CSV and JSON once before it
    asks anything, to know the types and to find what can't be used: two columns of one name, a number
    too large for any type, half of a character. It's refused with its file and line.

    Parquet files tell their types; a map comes as a dict. In CSV, a column is of whole
    numbers, of floats or of booleans where every cell of it is one, written as Python writes it; text
    otherwise. So a prompt has the cell's own text, whatever stands in other rows: 1.50, 007 and true
    stay as they are. An empty cell is None. In JSON, values of several types may stand in one column,
    and dicts with different keys: it's a column of JSON then, and each value stays as it is.

    Output columns:
        those of the files.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tasks import LoadDataFromFileSystem
        >>> file = Path(tempfile.mkdtemp()) / "questions.csv"
        >>> _ = file.write_text("question,points\\nHow high is K2?,3\\n")
        >>> next(LoadDataFromFileSystem(data_files=str(file)).process())
        ([{'question': 'How high is K2?', 'points': 3}], True)
    """

    form_title = "Files"
    form_first = ("data_files",)
    form_more = ("filetype",)

    kind: Annotated[Literal["files"], Field(title="Source")] = "files"
    data_files: Annotated[
        str | list[str],
        Field(title="Files", description="A path, glob (data/*.jsonl), folder or address (s3://...); or several."),
    ] = ""
    filetype: Annotated[FileType | None, Field(title="File type", description="Empty: by the file's ending.")] = None
    storage_options: Annotated[
        dict[str, Any] | None, Field(exclude=True, description="For the fsspec file system.")
    ] = None

    @field_validator("data_files", mode="before")
    @classmethod
    def _paths_as_text(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [str(each) if isinstance(each, Path) else each for each in cast("list[Any]", value)]
        return str(value) if isinstance(value, Path) else value

    def files(self) -> list[DataFile]:
        """The files, in the order in which they are read: as given, and by name within a glob.

        Raises:
            SourceError: there are none, or their type isn't known.
        """
        patterns = [self.data_files] if isinstance(self.data_files, str) else self.data_files
        if not any(patterns):
            raise SourceError(f"data_files of {self.name!r} is empty: {self.data_files!r}; name a file, glob or folder")
        return [file for pattern in patterns for file in find_files(pattern, self.filetype, self.storage_options or {})]

    _read_before: ReadBefore | None = PrivateAttr(default=None)

    def rows(self, offset: int) -> Iterator[Row]:
        files = self.files()
        before = self._read_before or csv_read_before(files, self.num_examples)
        for file in files:
            seen = yield from file.read(offset, before)
            offset -= min(offset, seen)

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        """The types of Parquet files as they are, those of other files by reading all of them. Raises SourceError."""
        files = self.files()
        before = self._read_before = csv_read_before(files, self.num_examples)
        left = self.limit(rows)
        found: list[SourceTypes] = []
        for file in files:
            seen, types = file.read_types(left, before)
            found.append(types)
            if left is not None:
                left -= seen
                if left <= 0:
                    break
        return joined_types(found)

    def columns(self) -> frozenset[str] | None:
        """The columns of the first file; None where that is JSON, and long. Raises SourceError."""
        return self.files()[0].columns()

    def __str__(self) -> str:
        return f"data_files={self.data_files!r}"


class LoadDataFromDisk(Loader):
    """Rows of a dataset that `Dataset.save_to_disk` wrote, on this machine or at an fsspec address.

    Output columns:
        those of the dataset.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> from tasks import LoadDataFromDisk
        >>> folder = tempfile.mkdtemp()
        >>> Dataset.from_dict({"instruction": ["Say hi."]}).save_to_disk(folder)
        >>> next(LoadDataFromDisk(dataset_path=folder).process())
        ([{'instruction': 'Say hi.'}], True)
    """

    form_title = "Dataset on disk"
    form_first = ("dataset_path", "split")

    kind: Annotated[Literal["disk"], Field(title="Source")] = "disk"
    dataset_path: Annotated[str, Field(title="Folder", description="A path or an address (s3://...).")] = ""
    split: Annotated[str | None, Field(title="Split", description="Of a dataset that has several.")] = None
    is_distiset: Annotated[bool, Field(title="Distiset", description="Whether distilabel saved it.")] = False
    config: Annotated[
        str | None, Field(title="Configuration", description="Of a Distiset that has several. Empty: default.")
    ] = None
    storage_options: Annotated[
        dict[str, Any] | None, Field(exclude=True, description="For the fsspec file system.")
    ] = None

    @field_validator("dataset_path", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    def rows(self, offset: int) -> Iterator[Row]:
        dataset = self._open()
        try:
            yield from rows_of_dataset(dataset, offset, source=str(self))
        except SourceError:
            raise
        except (OSError, ValueError) as error:
            raise SourceError(f"{self} is damaged: {error}; save it again") from error

    def columns(self) -> frozenset[str] | None:
        return frozenset(self._open().column_names)

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        return types_of_dataset(self._open(), str(self), self.limit(rows))

    def __str__(self) -> str:
        return f"dataset_path={self.dataset_path!r}"

    def _open(self) -> Dataset:
        from datasets import DatasetDict, load_from_disk

        if not self.dataset_path:
            raise SourceError(f"dataset_path of {self.name!r} is empty; name a folder that `save_to_disk` wrote")
        folder = self.dataset_path
        if self.is_distiset:
            folder = f"{folder.rstrip('/')}/{self.config or 'default'}"
        try:
            found = load_from_disk(folder, storage_options=self.storage_options)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise SourceError(
                f"dataset_path={folder!r} is no dataset that `save_to_disk` wrote: {error}{opened_with(error)}"
                f"{looked_from(folder)}."
                " Files such as .jsonl or .parquet are read by LoadDataFromFileSystem"
            ) from error
        return self._split_of(found) if isinstance(found, DatasetDict) else found

    def _split_of(self, found: DatasetDict) -> Dataset:
        splits = list(map(str, found))
        wanted = splits[0] if self.split is None and len(splits) == 1 else self.split
        if wanted not in splits:
            raise SourceError(f"{self} has no split {self.split!r}; choose `split` from {splits}")
        return found[wanted]


class LoadDataFromDataset(Loader):
    """Rows of a `datasets` object in memory; `make_generator_step` makes it.

    Output columns:
        those of the dataset.

    Example:
        >>> from datasets import Dataset
        >>> from tasks import make_generator_step
        >>> next(make_generator_step(Dataset.from_dict({"n": [1, 2, 3]})).process(offset=1))
        ([{'n': 2}, {'n': 3}], True)
    """

    kind: Annotated[Literal["dataset"], Field(title="Source")] = "dataset"
    dataset: Annotated[Any, Field(exclude=True, description="A Dataset or an IterableDataset.")] = None

    def rows(self, offset: int) -> Iterator[Row]:
        if self.dataset is None:
            raise SourceError(f"dataset of {self.name!r} is missing: it isn't stored with the step; give it again")
        return rows_of_dataset(self.dataset, offset, source=str(self))

    def columns(self) -> frozenset[str] | None:
        return frozenset(getattr(self.dataset, "column_names", None) or ()) or None

    def columns_written(self) -> dict[str, bool]:
        names: Sequence[str] = getattr(self.dataset, "column_names", None) or ()
        return dict.fromkeys((self.output_mappings.get(name, name) for name in names), True)

    def read_types(self, rows: int | None = None) -> SourceTypes | None:
        return types_of_dataset(self.dataset, str(self), self.limit(rows))

    def __str__(self) -> str:
        return f"dataset of {self.name!r}"


def make_generator_step(dataset: Any, **settings: Any) -> GeneratorStep:
    """A loader of rows that are there already.

    Args:
        dataset: a list of dicts, a `datasets.Dataset` or `IterableDataset`, or a pandas frame.
        settings: fields of the loader, such as `name`, `batch_size` and `output_mappings`.

    Raises:
        SourceError: it's none of them, or a row isn't a dict.

    Example:
        >>> from tasks import make_generator_step
        >>> make_generator_step([{"n": 1}], name="numbers").columns()
        frozenset({'n'})
    """
    if isinstance(dataset, list | tuple):
        return LoadDataFromDicts(data=checked_rows(cast("Any", dataset)), **settings)
    # None of these can be given where its library isn't loaded.
    if (pandas := sys.modules.get("pandas")) and isinstance(dataset, pandas.DataFrame):
        return LoadDataFromDataset(dataset=dataset_of_frame(dataset), **settings)
    if datasets := sys.modules.get("datasets"):
        if isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
            return LoadDataFromDataset(dataset=dataset, **settings)
        if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
            splits = list(cast("dict[str, Any]", dataset))
            raise SourceError(f"a {type(dataset).__name__} has several splits; give one of {splits}")
    raise SourceError(f"expected a list of dicts, a datasets.Dataset or a pandas.DataFrame, got {short(dataset)}")


def dataset_of_frame(frame: Any) -> Dataset:
    """A pandas frame as a dataset, without its index."""
    import pyarrow as pa
    from datasets import Dataset

    names = list(frame.columns)
    twice = sorted(name for name, count in Counter(map(str, names)).items() if count > 1)
    if twice:
        raise SourceError(
            f"the pandas frame has the columns {twice} more than once, as texts; give each a name of its own"
        )
    columns = {str(name): array_of_series(frame[name]) for name in names}
    return Dataset(pa.table(columns))


def array_of_series(series: Any) -> Any:
    """A column of a pandas frame, each value as it is: dicts with different keys, and values of several types, as JSON.

    Raises:
        SourceError: there's something in it that can't be kept.
    """
    import pyarrow as pa

    try:
        if str(series.dtype) != "object":
            array = pa.array(series, from_pandas=True)
            return array.cast(known_type(array.type))
        values = [None if is_missing(value) else value for value in series]
        if problem := unkeepable(values):
            raise ValueError(problem)
        shape = shape_of(values)
        return array_of(values, shape.type if shape.exact else pa.json_())
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise SourceError(f"column {str(series.name)!r} of the pandas frame can't be read: {error}") from error


def is_missing(value: Any) -> bool:
    """Whether pandas means that there's nothing: NaN, NaT or NA."""
    return (isinstance(value, float) and value != value) or type(value).__name__ in {"NoneType", "NAType", "NaTType"}


def checked_rows(value: Any) -> list[Row]:
    """`value`, which must be a list of dicts with text for keys. Raises SourceError."""
    if not isinstance(value, list | tuple):
        raise SourceError(f"expected a list of dicts, got {short(value)}")
    rows = list(cast("list[Any]", value))
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise SourceError(f"row {position} is no dict, got {short(row)}; every row is a dict of column to value")
        for name in cast("dict[Any, Any]", row):
            if not isinstance(name, str):
                raise SourceError(f"row {position} has the column {name!r}; a column's name is text")
    return rows


# Datasets and Arrow


# Files


# CSV
