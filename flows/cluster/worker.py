"""The other side of `flows.cluster.dispatch`: a shard's work, in the process that a cluster chose for it."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flows.cluster.messages import ShardMade, ShardOrder, decisive, portable
from flows.credentials import find_credentials
from flows.engine.answering import Missing, questions_of
from flows.engine.errors import SpreadError
from flows.engine.execution import shard_at
from flows.engine.graph import Node
from flows.engine.run import Run
from flows.store.digest import digest
from flows.store.storage import Storage
from llms.credentials import use_credentials_store
from llms.secrets import without_secrets
from tasks.steps import Step

STEPS_HELD = 8
"""Steps that stay loaded for the next shard."""
SECONDS_PER_POLL = 0.5


def make_shard(order: ShardOrder) -> ShardMade | Exception:
    """Make a shard in this process, with its own requests and connections. Returns what it raised."""
    try:
        return asyncio.run(_make_while_wanted(order, wanted_by_dask()))
    except Exception as error:  # noqa: BLE001 -- told to whoever ordered it
        return portable(without_secrets(error))


async def _make_while_wanted(order: ShardOrder, is_wanted: Callable[[], bool]) -> ShardMade:
    """Make it, and stop as soon as nobody wants it: a run that was cancelled, or that goes on elsewhere."""
    making = asyncio.create_task(_make(order))
    try:
        while not making.done():
            # All shards at the same moments: one that stops alone leaves its places to the next, which would ask more.
            await asyncio.wait({making}, timeout=SECONDS_PER_POLL - time.time() % SECONDS_PER_POLL)
            if not making.done() and not is_wanted():
                raise SpreadError(f"{order.name}: nobody waits for shard {order.place} any more")
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    return making.result()


async def _make(order: ShardOrder) -> ShardMade:
    use_credentials_store(find_credentials)
    run = Run(id=order.run, attempt=order.attempt, storage=Storage(order.storage))
    with _held(order) as held:
        node = Node(run, order.name, held.step, use_cache=order.use_cache, shard_rows=order.shard_rows, lane=order.lane)
        await asyncio.to_thread(held.load)
        node.loaded = True
        if not order.path:
            questions, missing = await questions_of(node, order.place, order.inputs, estimated=order.estimated)
            return ShardMade(questions=tuple(questions), missing=missing)
        ref, reused = await shard_at(node, order.path, order.place, order.inputs, order.before)
    progress = run.progress_of(node.name, node.step)
    counted = (progress.answered, progress.failed, progress.work, dict(progress.reasons))
    return ShardMade(ref, reused, (), Missing(), *counted)


def wanted_by_dask() -> Callable[[], bool]:
    """Says whether Dask still wants what it called this function for. Always, where it was something else."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return lambda: True
    try:
        worker = distributed.get_worker()
    except ValueError:
        return lambda: True
    key = worker.get_current_task()

    def is_wanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is not None and state.state not in {"cancelled", "released", "forgotten"}

    return is_wanted


@dataclass(eq=False)
class _Held:
    """A step that shards of a run are made with, loaded once per process."""

    step: Step
    users: int = 0
    loaded: bool = False
    _loading: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        with self._loading:
            if not self.loaded:
                self.step.load()
            self.loaded = True


_steps: dict[str, _Held] = {}
_lock = threading.Lock()


@contextmanager
def _held(order: ShardOrder) -> Generator[_Held]:
    """The step of an order. Those that aren't in use are let go of, the oldest first."""
    key = digest([order.step, order.attempt])
    with _lock:
        held = _steps.pop(key, None) or _Held(unpacked(order))
        _steps[key] = held
        held.users += 1
        idle = [each for each, one in _steps.items() if not one.users][: max(0, len(_steps) - STEPS_HELD)]
        gone = [_steps.pop(each) for each in idle]
    for each in gone:
        if each.loaded:
            each.step.unload()
    try:
        yield held
    finally:
        with _lock:
            held.users -= 1


def unpacked(order: ShardOrder) -> Step:
    """The step of an order. Raises SpreadError where this process has other code than the one that sent it."""
    step: Step = pickle.loads(order.step)
    if order.decides and decisive(order.name, step) != order.decides:
        raise SpreadError(
            f"{order.name}: what decides the rows of {type(step).__name__} is different at this worker than in the"
            " flow's process: give both the same version of the project, and the same address of the provider"
            " (OPENAI_BASE_URL and the like)"
        )
    return step
