"""Answers of the layout before the ledger, taken over as their questions come up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows.ledger import Kept, Store
from flows.store.digest import digest
from llms.typing import FormattedInput

if TYPE_CHECKING:
    from flows.engine.answering import RowAsk
    from flows.engine.graph import Node
from flows.ledger.earlier_layout import MARK, OPEN_JOBS, key_of_old, records_of


@dataclass
class Legacy:
    """What the layout before has of a shard."""

    step: str
    place: int
    answers: dict[str, Kept] = field(default_factory=dict[str, Kept])
    _roots: dict[int, str] = field(default_factory=dict[int, str])
    _seen: Counter[str] = field(default_factory=Counter[str])

    def id_of(self, ask: RowAsk, prompt: FormattedInput, num_generations: int, times: int) -> str:
        """The key that a question had: by its content, and by how many equal ones of the shard stood before it."""
        content = digest([prompt, num_generations])
        root = self._roots.get(ask.place)
        if root is not None and not (times == 0 and root.startswith(content)):
            return digest([root, content, times])
        if root is None:
            root = self._roots[ask.place] = f"{content}-{self._seen[content]}"
            self._seen[content] += 1
        return root

    def key(self, old: str) -> str:
        """The key under which the ledger keeps the answer of such a job."""
        return key_of_old(self.step, f"p{self.place}-{old}")

    def find(self, store: Store, old: str) -> Kept | None:
        return store.find(self.key(old)) or self.answers.get(old)


def legacy_of(node: Node, place: int) -> Legacy | None:
    """What the layout before has of a shard; None where there's nothing of it."""
    storage = node.run.storage
    if node.has_legacy is None:
        marks = (storage.path(OPEN_JOBS), storage.path("ledger", node.space(), MARK))
        node.has_legacy = any(map(storage.exists, marks))
    answers: dict[str, Kept] = {}
    for path in storage.files(node.folder(f"{place:08d}"), ".journal"):
        for record in records_of(storage, path):
            if "o" in record:
                answers[record["k"]] = Kept(record["o"], record.get("x", ""), "before" if "b" in record else "")
            elif "k" in record and "e" not in record:
                answers.pop(record["k"], None)
    return Legacy(node.name, place, answers) if answers or node.has_legacy else None
