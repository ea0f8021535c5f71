"""A run that was stopped, and whose ledger was damaged before it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import prefect.main  # noqa: F401 -- sets logging up, which would take caplog's handler away in a test
import pytest

from flows.authoring.saving import collect
from flows.engine.graph import load
from llms import AuthenticationError, OpenAILLM
from llms.local_provider import LocalProvider
from tasks import TextGeneration

PROMPTS = [{"instruction": f"Tell me about number {number}."} for number in range(12)]
ANSWERED = 8


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"generations", len(content) // 2)] ^= 1
    path.write_bytes(content)


def flip_ends(path: Path) -> None:
    """Two lines become one."""
    content = path.read_bytes()
    end = content.index(b"\n", len(content) // 2)
    path.write_bytes(content[:end] + b" " + content[end + 1 :])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def append_garbage(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(range(256)) * 8 + b"00000000 \n")


def put_zeros(path: Path) -> None:
    """What a file system leaves that lost its last writes."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (flip, 1),
        (flip_ends, 2),
        (cut, 1),
        (append_garbage, 0),
        (put_zeros, 5),
        (empty, ANSWERED),
        (Path.unlink, ANSWERED),
    ],
)
def test_a_damaged_file_of_the_ledger_costs_its_damaged_lines_alone_and_is_said(
    provider: LocalProvider,
    storage: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    lost: int,
) -> None:
    def run() -> list[str]:
        task = TextGeneration(llm=OpenAILLM(model="m", max_concurrent_requests=1, max_retries=0))
        return collect(load(PROMPTS).map(task))["generation"][:]

    provider.set(
        answers={r"about (?P<what>number \d+)": "All about {what}."}, faults=[{"after": ANSWERED, "status": 401}]
    )
    with pytest.raises(AuthenticationError):
        run()
    (file,) = storage.glob("ledger/*/*.answers")
    damage(file)
    provider.set(faults=[])
    provider.clear()

    assert run() == [f"All about number {number}." for number in range(12)]
    asked = len(provider.requests) - (len(PROMPTS) - ANSWERED)
    assert 0 <= asked <= lost
    # Nothing is said where nothing is there.
    assert ("cut or damaged lines" in caplog.text) == (damage not in {empty, Path.unlink})
