"""Steps that need a package of an extra say how to install it, when they are loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llms.extras import MissingPackageError, package
from tasks import DBSCAN, UMAP, FaissNearestNeighbour, MinHashDedup, Step, TruncateTextColumn

NEEDS = [
    (MinHashDedup(), "datasketch", "dedup"),
    (FaissNearestNeighbour(), "faiss", "vectors"),
    (UMAP(), "umap", "clustering"),
    (DBSCAN(), "sklearn", "clustering"),
    (TruncateTextColumn(tokenizer="some/model"), "tokenizers", "truncation"),
]


@pytest.mark.parametrize(("step", "missing", "extra"), NEEDS, ids=[each[1] for each in NEEDS])
def test_a_step_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, step: Step, missing: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(
        MissingPackageError, match=rf"{type(step).__name__}.* needs {missing}: pip install .*\[{extra}\]"
    ):
        step.load()


def test_a_package_that_is_there_but_broken_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import not_there_either")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ModuleNotFoundError, match="not_there_either") as raised:
        package("broken_package", "x", "This")
    assert not isinstance(raised.value, MissingPackageError)
