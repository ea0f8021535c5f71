"""What tells one model's files from another's: kept answers are found by it, wherever the files lie."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

HEAD_BYTES = 2**20
"""Of a large file: its metadata, vocabulary and first weights."""
SAMPLES, SAMPLE_BYTES = 64, 2**16
"""Of a large file, spread evenly from its beginning to its end: a model that was trained further, or quantized anew,
often has the same size and the same head."""
WHOLE_BYTES = 2**25
"""A file up to this size is read whole."""
OF_A_MODEL = frozenset(
    {
        *(".safetensors", ".bin", ".gguf", ".npz"),
        # Settings and the tokenizer, chat templates, and code that comes with the model.
        *(".json", ".model", ".txt", ".jinja", ".py"),
    }
)
"""How the files of a folder end that decide what its model answers."""


def fingerprint(path: Path, *, nested: bool = False) -> str:
    """A digest of a file, or of the files of a model that lie in a folder.

    Of large files it's made of samples. A file that hasn't changed since is read once in a process.

    Args:
        nested: whether what lies in folders of the folder is of the model as well.

    Raises:
        OSError: it isn't there, or can't be read.
    """
    if not path.is_dir():
        return _of_file(path)
    digest = hashlib.blake2b(digest_size=16)
    every = path.rglob("*") if nested else path.iterdir()
    for file in sorted(each for each in every if each.suffix in OF_A_MODEL and each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_of_file(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _of_file(path: Path) -> str:
    found = path.stat()
    return _digest(path.absolute(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int) -> str:
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(file.read(HEAD_BYTES))
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
