"""Loaders: steps that read rows from Python, the Hugging Face Hub, files, or datasets on disk."""

# datasets, fsspec and pyarrow have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import csv
import io
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field, SkipValidation, field_validator

from llms.parameters import short
from llms.variants import Variants
from tasks.steps import GeneratorStep
from tasks.typing import Columns, GeneratorStepOutput, Row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, IterableDataset

    from tasks.generators import GeneratorTask

FileType = Literal["csv", "json", "jsonl", "parquet"]

ENDINGS: dict[str, FileType] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
ROWS_AT_ONCE = 100
"""Rows that are turned from Arrow into Python at a time."""
PEEKED_ROWS = 1000
"""Rows that are read to learn the columns of JSON."""


class SourceError(ValueError):
    """Rows that can't be had. The message says what is wrong with the source and the way out."""


class Loader(GeneratorStep, ABC):
    """A generator step that reads rows from outside. Write `rows`, `columns` and `__str__`."""

    form_last: ClassVar[tuple[str, ...]] = ("kind",)

    num_examples: Annotated[
        int | None, Field(ge=1, title="Number of rows", description="Only the first ones. Empty: all.")
    ] = None

    @property
    def outputs(self) -> Columns:
        return sorted(self.columns() or ())

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

    def rows(self, offset: int) -> Iterator[Row]:
        return islice(map(dict, self.data), offset, None)

    def columns(self) -> frozenset[str] | None:
        return frozenset(chain.from_iterable(self.data)) or None

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

    def rows(self, offset: int) -> Iterator[Row]:
        with self._explained():
            yield from rows_of_dataset(self._open(), offset)

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
    too; only a .json file that holds one list is read whole. In CSV, a column is a number or a
    boolean where every cell of it is one (the files are read once before, to know), text
    otherwise, and an empty cell is None. Cells such as 007 stay text.

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
    form_first = ("data_files", "filetype")

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

    def rows(self, offset: int) -> Iterator[Row]:
        files = self.files()
        tables = [file for file in files if file.filetype == "csv"]
        kinds = csv_kinds(tables, self.num_examples)
        for file in files:
            seen = yield from file.read(offset, kinds)
            offset -= min(offset, seen)

    def columns(self) -> frozenset[str] | None:
        """The columns of the first file, from its first rows. Raises SourceError."""
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
            yield from rows_of_dataset(dataset, offset)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self} is damaged: {error}; save it again") from error

    def columns(self) -> frozenset[str] | None:
        return frozenset(self._open().column_names)

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
                f"dataset_path={folder!r} is no dataset that `save_to_disk` wrote: {error}{looked_from(folder)}."
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
        return rows_of_dataset(self.dataset, offset)

    def columns(self) -> frozenset[str] | None:
        return frozenset(getattr(self.dataset, "column_names", None) or ()) or None

    def __str__(self) -> str:
        return f"dataset of {self.name!r}"


SOURCE_VARIANTS = Variants(
    base=("tasks.steps:GeneratorStep", "tasks.generators:GeneratorTask"),
    tag="kind",
    ours={
        "files": "tasks.loaders:LoadDataFromFileSystem",
        "hub": "tasks.loaders:LoadDataFromHub",
        "disk": "tasks.loaders:LoadDataFromDisk",
        "dicts": "tasks.loaders:LoadDataFromDicts",
        "columns": "tasks.samplers:SampleColumns",
        "personas": "tasks.samplers:SamplePersonas",
    },
    title="Source",
)

if TYPE_CHECKING:
    Source = GeneratorStep | GeneratorTask
else:
    Source = Annotated[GeneratorStep, SOURCE_VARIANTS]


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

    try:
        return Dataset.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise SourceError(f"the pandas frame can't be read: {error}; give each column values of one type") from error


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


def rows_of_dataset(dataset: Dataset | IterableDataset, offset: int) -> Iterator[Row]:
    """The rows as plain Python values, without the first `offset`."""
    from datasets import Dataset

    decode = json_decoder(dataset.features or {})
    if isinstance(dataset, Dataset):
        rest: Any = dataset.select(range(min(offset, len(dataset)), len(dataset)))
    else:
        rest = dataset.skip(offset) if offset else dataset
    return rows_of_tables(rest.with_format("arrow").iter(ROWS_AT_ONCE), decode)


def rows_of_tables(tables: Iterable[Any], decode: Callable[[Any], Any] | None) -> Iterator[Row]:
    for table in tables:
        rows: list[Row] = table.to_pylist()
        yield from map(decode, rows) if decode else rows


def without_first(offset: int, tables: Iterable[Any]) -> Iterator[Any]:
    for table in tables:
        yield table.slice(offset)
        offset -= min(offset, table.num_rows)


def json_decoder(feature: Any) -> Callable[[Any], Any] | None:
    """What turns the JSON text in a value of `feature` into what it stands for; None where there is none."""
    if type(feature).__name__ == "Json":
        return lambda value: orjson.loads(value) if isinstance(value, str) else value
    if isinstance(feature, dict):
        fields = cast("dict[str, Any]", feature)
        within = {name: decode for name, each in fields.items() if (decode := json_decoder(each))}
        return partial(decoded_fields, within) if within else None
    inner = json_decoder(feature.feature) if hasattr(feature, "feature") else None
    return partial(decoded_items, inner) if inner else None


def decoded_fields(decoders: dict[str, Callable[[Any], Any]], value: Row | None) -> Row | None:
    return value and {**value, **{name: decode(value[name]) for name, decode in decoders.items()}}


def decoded_items(decode: Callable[[Any], Any], value: list[Any] | None) -> list[Any] | None:
    return value and [decode(each) for each in value]


# Files


@dataclass(frozen=True)
class DataFile:
    """A file of rows."""

    filesystem: Any
    path: str
    filetype: FileType

    def read(self, offset: int, csv_kinds: dict[str, CellKind]) -> Generator[Row, None, int]:
        """Yield the rows without the first `offset`. Returns how many there are, those left out included.

        Raises:
            SourceError: the file can't be read. Rows before the one at fault are yielded first.
        """
        rows = {"csv": read_csv, "json": read_json, "jsonl": read_json_lines, "parquet": read_parquet}
        with self.explained():
            return (yield from rows[self.filetype](self, offset, csv_kinds))

    def columns(self) -> frozenset[str]:
        """The columns, as the first rows tell them. Raises SourceError."""
        with self.explained():
            if self.filetype == "parquet":
                with self.open() as file:
                    return frozenset(parquet_file(self, file).schema_arrow.names)
            if self.filetype == "csv":
                return frozenset(next(csv_records(self), (0, list[str]()))[1])
            rows = islice(self.read(0, {}), PEEKED_ROWS)
            return frozenset(chain.from_iterable(rows))

    def open(self) -> Any:
        return self.filesystem.open(self.path, "rb", compression="infer")

    def broken(self, problem: object, line: int | None = None) -> SourceError:
        """The error for a file whose content isn't what it should be."""
        where = f", line {line}" if line else ""
        return SourceError(
            f"{self}{where}: not {self.filetype} ({problem}). Mend the file, or name its real type with `filetype`"
        )

    @contextmanager
    def explained(self) -> Generator[None]:
        """Every failure of reading as a SourceError that names the file."""
        import zlib

        try:
            yield
        except SourceError:
            raise
        except UnicodeDecodeError as error:
            raise self.broken(f"{error.reason} at byte {error.start}; text must be UTF-8") from error
        except (OSError, EOFError, zlib.error, ImportError) as error:
            raise SourceError(f"{self} can't be read: {error or type(error).__name__}") from error
        except ValueError as error:
            raise self.broken(error) from error

    def __str__(self) -> str:
        return repr(self.filesystem.unstrip_protocol(self.path).removeprefix("file://"))


def find_files(pattern: str, filetype: FileType | None, storage_options: dict[str, Any]) -> list[DataFile]:
    """The files that a path, glob, folder or address stands for, by name. Raises SourceError."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(pattern, **storage_options)
        paths = matching(filesystem, path)
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"data_files={pattern!r} can't be looked up: {error}") from error
    if not paths:
        problem = "matches no file" if any(sign in path for sign in "*?[") else "is not there, or holds no data files"
        raise SourceError(f"data_files={pattern!r} {problem}{looked_from(pattern)}")
    return [DataFile(filesystem, each, filetype or filetype_of(each)) for each in paths]


def matching(filesystem: Any, path: str) -> list[str]:
    if filesystem.isdir(path):
        return sorted(each for each in filesystem.find(path) if ending_of(each) in ENDINGS)
    if filesystem.exists(path):
        return [path]
    found = filesystem.glob(path) if any(sign in path for sign in "*?[") else []
    return sorted(each for each in found if filesystem.isfile(each))


def filetype_of(path: str) -> FileType:
    ending = ending_of(path)
    if ending not in ENDINGS:
        raise SourceError(
            f"{path!r}: its type isn't known by the ending {ending!r}; set `filetype` to csv, json, jsonl or parquet"
        )
    return ENDINGS[ending]


def ending_of(path: str) -> str:
    """The ending that tells the type: .csv of table.csv.gz."""
    name = PurePosixPath(path.partition("?")[0].lower())
    return name.with_suffix("").suffix if name.suffix in COMPRESSED else name.suffix


def looked_from(path: str) -> str:
    """The working directory, for a message about a relative path."""
    return "" if "://" in path or Path(path).expanduser().is_absolute() else f" (looked from {str(Path.cwd())!r})"


def read_parquet(file: DataFile, offset: int, _: object) -> Generator[Row, None, int]:
    """Row groups before `offset` aren't read at all."""
    with file.open() as stream:
        parquet = parquet_file(file, stream)
        metadata = parquet.metadata
        decode = json_decoder(features_of(parquet.schema_arrow))
        start, groups = 0, list(range(metadata.num_row_groups))
        while groups and start + metadata.row_group(groups[0]).num_rows <= offset:
            start += metadata.row_group(groups.pop(0)).num_rows
        tables = without_first(offset - start, parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups))
        yield from rows_of_tables(tables, decode)
        return metadata.num_rows


def parquet_file(file: DataFile, stream: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(stream, pre_buffer=False, page_checksum_verification=True)
    except pa.ArrowInvalid as error:
        raise file.broken(error) from error


def features_of(schema: pa.Schema) -> Any:
    """What `datasets` noted about the columns, if it wrote the file."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    return Features.from_arrow_schema(schema)


def read_json_lines(file: DataFile, offset: int, _: object) -> Generator[Row, None, int]:
    """Lines before `offset` aren't parsed."""
    seen = 0
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            seen += 1
            if seen > offset:
                yield json_row(file, line, number)
    return seen


def json_row(file: DataFile, line: bytes, number: int) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        # Python writes NaN and Infinity, which orjson refuses.
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise file.broken(f"{error}, got {short(line.decode(errors='replace').strip())}", number) from None
    if not isinstance(row, dict):
        raise file.broken(f"expected an object, got {short(row)}", number)
    return cast("Row", row)


def read_json(file: DataFile, offset: int, _: object) -> Generator[Row, None, int]:
    """A list of objects, read whole, or an object per line."""
    with file.open() as stream:
        start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start.startswith(b"["):
            return (yield from read_json_lines(file, offset, None))
        text = (start + stream.read()).decode()
    try:
        rows = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise file.broken(error.msg, error.lineno) from None
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise file.broken(f"item {position} is no object, got {short(row)}")
    yield from rows[offset:]
    return len(rows)


# CSV

CellKind = Literal["int", "float", "bool", "text"]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_TRUTHS = {"True": True, "true": True, "False": False, "false": False}
_CONVERSIONS: dict[CellKind, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": _TRUTHS.__getitem__,
    "text": str,
}


def read_csv(file: DataFile, offset: int, kinds: dict[str, CellKind]) -> Generator[Row, None, int]:
    seen = 0
    records = csv_records(file)
    names = next(records, (0, list[str]()))[1]
    conversions = [_CONVERSIONS[kinds.get(name, "text")] for name in names]
    for _, record in records:
        seen += 1
        if seen > offset:
            cells = zip(names, conversions, record, strict=True)
            yield {name: convert(cell) if cell else None for name, convert, cell in cells}
    return seen


def csv_records(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """The line and cells of each record, all of the header's length; the header first. Raises SourceError."""
    csv.field_size_limit(sys.maxsize)
    with file.open() as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        names: list[str] = []
        line = 1
        try:
            for record in reader:
                if record and not names:
                    names = csv_header(file, record, line)
                    yield line, names
                elif record:
                    if len(record) != len(names):
                        raise file.broken(f"{len(record)} cells, the header has {len(names)}: {short(record)}", line)
                    yield line, record
                line = reader.line_num + 1
        except csv.Error as error:
            raise file.broken(f"{error} in the record that starts here", line) from error


def csv_header(file: DataFile, record: list[str], line: int) -> list[str]:
    names = [name or f"Unnamed: {position}" for position, name in enumerate(record)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise file.broken(f"the header has {twice} more than once", line)
    return names


def csv_kinds(files: list[DataFile], rows: int | None) -> dict[str, CellKind]:
    """What each column holds, in all of the files, or in their first `rows`. Raises SourceError."""
    kinds: dict[str, CellKind] = {}
    for file in files:
        with file.explained():
            records = csv_records(file)
            names = next(records, (0, list[str]()))[1]
            undecided = [(place, name) for place, name in enumerate(names) if kinds.get(name) != "text"]
            for _, record in islice(records, rows):
                for place, name in undecided:
                    if record[place]:
                        kinds[name] = common_kind(kinds.get(name), cell_kind(record[place]))
                if any(kinds.get(name) == "text" for _, name in undecided):
                    undecided = [(place, name) for place, name in undecided if kinds.get(name) != "text"]
    return kinds


def cell_kind(cell: str) -> CellKind:
    if _INTEGER.fullmatch(cell):
        return "int"
    if cell in _TRUTHS:
        return "bool"
    # A number of so many digits is a name of something: a float would lose its end.
    return "float" if _NUMBER.fullmatch(cell) and not cell.lstrip("-").isdigit() else "text"


def common_kind(one: CellKind | None, other: CellKind) -> CellKind:
    if one is None or one == other:
        return other
    return "float" if {one, other} == {"int", "float"} else "text"
