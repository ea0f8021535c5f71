"""Random choices that a rerun, a retry and another machine make again: from a row's digest and a seed."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from tasks.steps import METADATA, Step
from tasks.typing import Row


def read_by(step: Step, row: Row) -> Row:
    """What to draw by: the columns of a row, under the step's own names, that it reads. All, where it reads none."""
    read = {name: row[name] for name in step.inputs if name in row}
    return read if any(value is not None for value in read.values()) else row


def random_for(row: Row, seed: int, *more: Any) -> random.Random:
    """Random numbers that depend on the row's columns, the seed and `more` alone. Metadata makes no difference.

    Args:
        row: the row that something is chosen for.
        seed: of the step.
        more: what tells several choices for one row apart, such as the number of a round.
    """
    columns = {name: value for name, value in row.items() if name != METADATA}
    text = json.dumps([columns, seed, *more], sort_keys=True, ensure_ascii=False, default=str)
    return random.Random(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
