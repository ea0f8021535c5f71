"""The ledger: what was paid is kept by what was asked. Questions in, answers out, online or by batch jobs.

It knows no rows, Tasks or Prefect. `questions` says what tells one question from another, `store` keeps the answers,
`claims` lets one process at a time submit questions to batch jobs, `asking` one run at a time ask a question online.
"""

from __future__ import annotations

from flows.ledger.claims import submitting
from flows.ledger.questions import key_of, later_key, part_keys, question_of, space_of
from flows.ledger.samples import Claims, Samples
from flows.ledger.store import Kept, Store, opened
from flows.ledger.table import KeySet

__all__ = [
    "Claims",
    "Kept",
    "KeySet",
    "Samples",
    "Store",
    "key_of",
    "later_key",
    "opened",
    "part_keys",
    "question_of",
    "space_of",
    "submitting",
]
