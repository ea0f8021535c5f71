"""Results: what a run made and where it is, for those who look at its rows later."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flows.store.storage import Storage

FOLDER = "results"


@dataclass(frozen=True)
class DatasetResult:
    """A dataset that a run made."""

    name: str
    """That of the step which made its rows."""
    rows: int
    folder: str = ""
    """Where this machine has it opened, as Arrow files; empty where it has no rows."""
    saved: str = ""
    """The path or the address that it was saved to; empty where the run has no target, or failed before."""
    prompts: Sequence[str] = ()
    """The columns that no step wrote: they came with the source."""


@dataclass(frozen=True)
class AskedModel:
    """Whom a step asked, as far as it matters for a price."""

    model: str
    url: str = ""
    """Where requests go to; empty for an engine in the process, and where it can't be found out."""
    batch_share: float | None = None
    """Of the price online, where its requests go into batch jobs."""


@dataclass(frozen=True)
class RunResult:
    """What a flow run made."""

    run: str
    """The id of the flow run."""
    name: str
    flow: str
    ended: float = field(default_factory=time.time)
    """In seconds since 1970."""
    datasets: Sequence[DatasetResult] = ()
    models: dict[str, AskedModel] = field(default_factory=dict[str, AskedModel])
    """By step."""
    saves: dict[str, str] = field(default_factory=dict[str, str])
    """What each target got of it and where, see `flows.authoring.saving`: a retry knows its own datasets by it."""


def write_result(storage: Storage, result: RunResult) -> None:
    """Keep what a run made. Datasets that it made before stay, but for those of the same names.

    Where such a one was saved stays known, until it's saved again.

    Raises:
        StorageError: it can't be written.
    """
    before = result_of(storage, result.run)
    if before is not None:
        datasets = {each.name: each for each in before.datasets}
        for each in result.datasets:
            known = datasets[each.name].saved if each.name in datasets else ""
            datasets[each.name] = dataclasses.replace(each, saved=each.saved or known)
        result = dataclasses.replace(
            result,
            datasets=list(datasets.values()),
            models={**before.models, **result.models},
            saves={**before.saves, **result.saves},
        )
    storage.write(_path(storage, result.run), orjson.dumps(dataclasses.asdict(result)))


def result_of(storage: Storage, run: str) -> RunResult | None:
    """What the run of an id made; None where that isn't known."""
    return _result_at(storage, _path(storage, run))


def results(storage: Storage) -> Iterator[RunResult]:
    """What all runs made, in no order. What can't be read is left out."""
    for path in storage.files(storage.path(FOLDER), ".json"):
        found = _result_at(storage, path)
        if found is not None:
            yield found


def mark_result_used(storage: Storage, run: str) -> None:
    """Note that somebody looked at what a run made, for `python -m flows clean`."""
    storage.mark_used(_path(storage, run))


def _path(storage: Storage, run: str) -> str:
    return storage.path(FOLDER, f"{run}.json")


def _result_at(storage: Storage, path: str) -> RunResult | None:
    try:
        return _result(orjson.loads(storage.read(path)))
    # One of a later version of this program is no reason to fail: it's for people to look at alone.
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _result(data: dict[str, Any]) -> RunResult:
    datasets = [DatasetResult(**each) for each in data["datasets"]]
    models = {name: AskedModel(**each) for name, each in data["models"].items()}
    # Earlier versions wrote no `saves`.
    return RunResult(
        data["run"], data["name"], data["flow"], data["ended"], datasets, models, dict(data.get("saves", {}))
    )
