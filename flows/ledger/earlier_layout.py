"""Storages of the layout before the ledger: answers in a journal per shard, requests named by their shard's place.

Its open jobs are read, and never submitted again; answers in journals are taken over as their questions come up, where
the step's settings are what they were. Its finished shards stay as they are. There's no other use of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flows.ledger import space_of
from flows.ledger.lines import unsealed_json
from flows.ledger.table import AnyKey, KeySet
from flows.store.digest import digest
from flows.store.storage import Storage
from llms.base import LLM

OPEN_JOBS = "jobs/open"
RUN_FOLDER = "run-"
MARK = "legacy"
"""In a space of the ledger: answers of jobs that were submitted before are in it."""


def key_of_old(step: str, name: str) -> str:
    """The key, in the ledger, of a request that was named so in a job."""
    return digest(["before the ledger", step, name])


def brought_up(record: dict[str, Any], llm: LLM) -> dict[str, Any]:
    """The record of a job of the layout before, as it's written today."""
    known = {name: value for name, value in record.items() if name not in {"folder", "shards"}}
    folders = record["folder"].split("/")
    fresh = next((name.removeprefix(RUN_FOLDER) for name in folders if name.startswith(RUN_FOLDER)), "")
    places = [int(place) for place in record["shards"]]
    return {
        **known,
        "space": space_of(llm, fresh),
        "shards": f"{min(places)}-{max(places)}",
        "before": {"folder": record["folder"], "shards": record["shards"]},
    }


def keys_of_old(storage: Storage, intent: str, step: str, before: dict[str, Any], requests: int) -> KeySet:
    """What such a job holds: its journals say it. Where they don't, it may hold anything."""
    names = [
        f"p{place}-{key}"
        for place, inputs in before["shards"].items()
        for record in records_of(storage, storage.path(before["folder"], f"{int(place):08d}", f"{inputs}.journal"))
        if record.get("j") == intent
        for key in record["ks"]
    ]
    return KeySet(key_of_old(step, name) for name in names) if len(names) == requests else AnyKey()


def records_of(storage: Storage, path: str) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal: a file, or in an object store a folder of parts."""
    parts = [path] if storage.is_local else storage.files(path, ".part")
    for content in storage.read_all(parts).values():
        for line in content.split(b"\n"):
            record = unsealed_json(line)
            if record is not None:
                yield record
