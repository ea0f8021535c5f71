"""What needs a package of an extra says how to install it, with a command that works in a clone."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cluster.clusters import RayCluster, dask_client
from flows.engine.errors import SpreadError
from flows.store.storage import Storage, StorageError
from llms import AzureOpenAILLM, InferenceEndpointsImageGeneration, LLMError, SentenceTransformerEmbeddings
from llms.extras import MissingPackageError, how_to_install, opened_with, package
from tasks import (
    DBSCAN,
    UMAP,
    FaissNearestNeighbour,
    LoadDataFromFileSystem,
    MinHashDedup,
    PairRM,
    PreferenceToArgilla,
    SaveToFiles,
    TruncateTextColumn,
    VerifyAnswer,
)
from tasks.sources.errors import SourceError
from tasks.targets.places import TargetError
from tests.conftest import ROOT

EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


NEEDS: dict[str, tuple[Callable[[], Any], str, str, type[Exception]]] = {
    "MinHashDedup": (MinHashDedup().load, "datasketch", "dedup", MissingPackageError),
    "VerifyAnswer": (VerifyAnswer().load, "math_verify", "math", MissingPackageError),
    "FaissNearestNeighbour": (FaissNearestNeighbour().load, "faiss", "vectors", MissingPackageError),
    "UMAP": (UMAP().load, "umap", "clustering", MissingPackageError),
    "DBSCAN": (DBSCAN().load, "sklearn", "clustering", MissingPackageError),
    "TruncateTextColumn": (TruncateTextColumn(tokenizer="a/b").load, "tokenizers", "truncation", MissingPackageError),
    "PairRM": (PairRM().load, "torch", "local", MissingPackageError),
    "embeddings": (SentenceTransformerEmbeddings(model="a/b").load, "sentence_transformers", "local", Exception),
    "images": (InferenceEndpointsImageGeneration(model_id="a/b").load, "PIL", "images", LLMError),
    "Argilla": (PreferenceToArgilla(dataset_name="a").check, "argilla", "argilla", TargetError),
    "Azure": (AzureOpenAILLM(model="a", base_url="http://127.0.0.1:9").load, "azure.identity", "azure", LLMError),
    "storage": (lambda: Storage("s3://bucket").filesystem, "s3fs", "s3", StorageError),
    "source": (lambda: list(LoadDataFromFileSystem(data_files="s3://b/x.jsonl").process()), "s3fs", "s3", SourceError),
    "target": (lambda: SaveToFiles(path="s3://bucket/x.jsonl").check(), "s3fs", "s3", TargetError),
    "Dask": (lambda: dask_client(None), "distributed", "dask", SpreadError),
    "Ray": (lambda: RayCluster(None), "ray", "ray", SpreadError),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_misses_its_package_names_the_command_that_installs_it_for_this_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    needs, missing, extra, error = NEEDS[name]
    monkeypatch.chdir(tmp_path)
    for variable in ("AZURE_OPENAI_API_KEY", "ARGILLA_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for module in [each for each in sys.modules if each == missing or each.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    # What fsspec has opened once, in another test, it opens without an import.
    known = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, "s3", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == missing else find(name))

    with pytest.raises(error) as raised:
        needs()

    assert shlex.join([sys.executable, "-m", "pip", "install", *EXTRAS[extra]]) in str(raised.value)


def test_the_command_is_short_where_the_environment_is_inside_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))

    assert how_to_install("dedup") == shlex.join([".venv/bin/python", "-m", "pip", "install", *EXTRAS["dedup"]])


def test_a_command_is_one_that_the_shell_finds_and_pip_takes() -> None:
    python, *words = shlex.split(how_to_install("dedup"))

    assert shutil.which(python)
    assert words[:3] == ["-m", "pip", "install"]
    assert importlib.util.find_spec("pip")


def test_an_address_of_another_store_names_the_package_that_fsspec_asks_for() -> None:
    asked = ImportError("Please install gcsfs to access Google Storage")

    assert shlex.split(opened_with(asked).strip(" ()"))[1:] == ["-m", "pip", "install", "gcsfs"]
    assert opened_with(ValueError("install nothingfs")) == ""


def test_a_package_that_is_there_but_broken_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import not_there_either")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ModuleNotFoundError, match="not_there_either") as raised:
        package("broken_package", "x", "This")
    assert not isinstance(raised.value, MissingPackageError)
