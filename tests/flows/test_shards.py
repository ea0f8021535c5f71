"""Shards: what becomes of a file that isn't as it was written, and of a run that needs it."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.authoring.saving import collect
from flows.engine.graph import load
from flows.store.shards import (
    REFERENCE,
    SEAL,
    ShardError,
    find_shard,
    is_sound,
    read_shard,
    read_table,
    sealed,
    write_shard,
)
from flows.store.storage import Storage, StorageError
from llms import OpenAILLM
from llms.local_provider import LocalProvider
from tasks import GlobalStep, StepInput, StepOutput, TextGeneration

bounded = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
ROWS = [
    {"text": f"row {number}", "tags": ["a", str(number)], "nested": {"score": number / 2, "none": None}}
    for number in range(12)
]
PROMPTS = [{"instruction": f"Tell me about number {number}."} for number in range(12)]

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return Storage(str(tmp_path_factory.mktemp("storage")))


def shard(storage: Storage, place: int = 0, rows: list[dict[str, Any]] = ROWS) -> Any:
    return write_shard(storage, storage.path("steps", "one", f"{place:08d}", f"inputs-{place}.parquet"), rows)


@bounded
@given(st.data())
def test_whatever_is_changed_in_a_file_no_other_rows_are_read_from_it(kept: Storage, data: st.DataObject) -> None:
    ref = shard(kept)
    content = bytearray(kept.read(ref.uri))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    kept.write(ref.uri, bytes(content))

    found = find_shard(kept, ref.uri)

    assert found is None or (found == ref and read_shard(kept, found) == ROWS)


@bounded
@given(st.data())
def test_a_file_that_is_cut_or_goes_on_is_no_shard(kept: Storage, data: st.DataObject) -> None:
    ref = shard(kept)
    content = kept.read(ref.uri)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    more = content + data.draw(st.binary(min_size=1, max_size=20))

    for changed in (cut, more):
        kept.write(ref.uri, changed)
        assert find_shard(kept, ref.uri) is None
        with pytest.raises(ShardError, match="damaged"):
            read_table(kept, ref)


def test_no_bit_of_a_file_but_its_seals_can_change_unseen(kept: Storage) -> None:
    ref = shard(kept)
    content = kept.read(ref.uri)
    seal = content.index(SEAL)
    chance = random.Random(1)

    unseen = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << chance.randrange(8)
        unseen += [place] if is_sound(bytes(changed)) else []

    # The last bytes say where the seal is.
    assert all(seal <= place < seal + len(SEAL) or place >= len(content) - 8 for place in unseen)


def test_a_sealed_file_is_a_parquet_file_to_others(kept: Storage) -> None:
    ref = shard(kept)

    assert pq.read_table(ref.uri).to_pylist() == ROWS


def test_a_shard_of_before_there_were_seals_is_read(kept: Storage) -> None:
    ref = shard(kept)
    content = kept.read(ref.uri)
    start = content.index(SEAL)
    bare = content[:start] + content[start + len(SEAL) + 8 :]

    assert sealed(bare) == content
    # It says that it was sealed.
    kept.write(ref.uri, bare)
    assert find_shard(kept, ref.uri) is None
    table = pq.read_table(ref.uri)
    pq.write_table(table.replace_schema_metadata({REFERENCE: table.schema.metadata[REFERENCE]}), ref.uri)
    assert find_shard(kept, ref.uri) == ref
    assert read_shard(kept, ref) == ROWS


def test_the_file_of_another_shard_isnt_taken_for_this_one(kept: Storage, caplog: pytest.LogCaptureFixture) -> None:
    one, other = shard(kept), shard(kept, 1, ROWS[:3])
    shutil.copy(other.uri, one.uri)

    assert find_shard(kept, one.uri) is None
    assert f"has the rows of another one, '{other.uri}'" in caplog.text
    with pytest.raises(ShardError, match="has the rows of another one"):
        read_table(kept, one)


def test_a_storage_may_be_moved(kept: Storage, tmp_path: Path) -> None:
    ref = shard(kept)
    moved = Storage(str(tmp_path / "elsewhere"))
    shutil.copytree(kept.root, moved.root)
    there = moved.path(kept.inside(ref.uri))

    found = find_shard(moved, there)

    assert found is not None
    assert (found.uri, found.digest) == (there, ref.digest)
    assert read_shard(moved, found) == ROWS


def test_a_file_that_cant_be_read_isnt_taken_for_one_that_isnt_there(kept: Storage) -> None:
    path = kept.path("steps", "folder.parquet")
    Path(path).mkdir(parents=True)

    with pytest.raises(StorageError, match=r"can't read .*folder\.parquet"):
        find_shard(kept, path)


# In runs


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 8
    path.write_bytes(content)


def flip_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-60] ^= 8
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Its file and that of the next shard of the step change places."""
    other = sorted(path.parents[1].rglob("*.parquet"))[1]
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


DAMAGES = [flip, flip_end, cut, empty, swap, Path.unlink]


class Count(GlobalStep):
    """How many rows there are."""

    @property
    def outputs(self) -> list[str]:
        return ["count"]

    def process(self, *inputs: StepInput) -> StepOutput:
        yield [{**row, "count": len(inputs[0])} for row in inputs[0]]


def made() -> list[dict[str, Any]]:
    first = TextGeneration(name="first", llm=OpenAILLM(model="first"))
    second = TextGeneration(
        name="second",
        llm=OpenAILLM(model="second"),
        template="Shorten: {{ generation }}",
        columns=["generation"],
        output_mappings={"generation": "short"},
    )
    return collect(load(PROMPTS, shard_rows=4).map(first).map(second).map(Count(name="count"))).to_list()


@pytest.fixture
def before(provider: LocalProvider, storage: Path) -> list[dict[str, Any]]:
    """The rows of an undisturbed run; what it asked is forgotten, and its dataset is deleted."""
    provider.set(
        answers={r"Shorten: (?P<what>.*)": "Short: {what}", r"about (?P<what>number \d+)": "All about {what}."}
    )
    rows = made()
    provider.clear()
    shutil.rmtree(storage / "datasets")
    return rows


def files(storage: Path, *parts: str) -> list[Path]:
    found = sorted(storage.joinpath(*parts).rglob("*.parquet"))
    assert len(found) == 3
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("step", ["first", "second"])
def test_a_damaged_shard_of_answers_is_said_and_made_again_for_nothing_and_nothing_wrong_is_passed_on(
    provider: LocalProvider,
    storage: Path,
    before: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    step: str,
    damage: Damage,
) -> None:
    damage(files(storage, "steps", step)[0])

    again = made()

    assert again == before
    damaged = 2 if damage is swap else 1
    assert provider.requests == []
    said = [record for record in caplog.records if "It's made anew" in record.getMessage()]
    assert len(said) == (0 if damage is Path.unlink else damaged)
    assert all(record.levelno == logging.WARNING for record in said)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("where", ["sources", "steps/count"])
def test_a_damaged_shard_that_no_one_was_asked_for_is_made_again(
    provider: LocalProvider, storage: Path, before: list[dict[str, Any]], where: str, damage: Damage
) -> None:
    damage(files(storage, *where.split("/"))[0])

    assert made() == before
    assert provider.requests == []


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_list_of_a_steps_shards_is_made_again(
    provider: LocalProvider, storage: Path, before: list[dict[str, Any]], damage: Damage
) -> None:
    (listing,) = storage.glob("steps/count/*/all/*.json")
    damage(listing)

    assert made() == before
    assert provider.requests == []


def test_a_list_of_other_shards_isnt_taken_for_this_ones(storage: Path) -> None:
    def counts(rows: int) -> list[int]:
        return collect(load(PROMPTS[:rows], shard_rows=4).map(Count(name="count")))["count"][:]

    assert (counts(4), counts(12)) == ([4] * 4, [12] * 12)
    one, other = storage.glob("steps/count/*/all/*.json")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)

    assert (counts(4), counts(12)) == ([4] * 4, [12] * 12)


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_file_of_a_dataset_is_made_again_from_its_shards(
    provider: LocalProvider,
    storage: Path,
    before: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    damage: Damage,
) -> None:
    assert made() == before
    (file,) = storage.glob("datasets/*/*.arrow")
    damage(file)

    assert made() == before
    assert "is damaged: it's made anew from its shards" in caplog.text
    assert provider.requests == []
    assert len(list((storage / "datasets").iterdir())) == 1


def test_a_shard_that_is_damaged_while_a_run_needs_it_stops_the_run_and_the_next_one_heals_it(
    provider: LocalProvider, storage: Path, before: list[dict[str, Any]]
) -> None:
    class Spoil(Count):
        """Counts, and spoils a shard that is read once more, for the dataset."""

        def process(self, *inputs: StepInput) -> StepOutput:
            if spoils:
                flip(files(storage, "steps", "first")[0])
            yield from super().process(*inputs)

    def run() -> int:
        first = load(PROMPTS, shard_rows=4).map(TextGeneration(name="first", llm=OpenAILLM(model="first")))
        spoiled = first.map(Spoil(name="spoil"))
        return len(collect(spoiled)) + len(collect(first))

    spoils = True
    with pytest.raises(ShardError, match="first.*is damaged"):
        run()
    spoils = False
    assert run() == 24
    assert provider.requests == []


def test_a_dataset_whose_files_cant_take_their_place_is_no_empty_one(
    provider: LocalProvider, storage: Path, before: list[dict[str, Any]]
) -> None:
    assert made() == before
    (folder,) = (storage / "datasets").iterdir()
    shutil.rmtree(folder)
    folder.write_text("not a folder")

    with pytest.raises(StorageError, match="isn't the folder with its files that was written. Move away what is there"):
        made()
    folder.unlink()
    assert made() == before
