"""Where shards can be worked on: the workers of a Dask scheduler, the nodes of a Ray cluster."""

# distributed and ray have no types, or not all.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from flows.cluster.messages import ShardOrder
from flows.engine.errors import SpreadError
from llms.extras import how_to_install
from llms.quantities import quantity

RUNNER_VARIABLE = "STILLFLOW_RUNNER"
ADDRESS_VARIABLE = "STILLFLOW_RUNNER_ADDRESS"
LOCAL = "local"


class Cluster(Protocol):
    """Where shards are worked on."""

    name: str

    def places(self) -> int:
        """How many shards can be worked on at once."""
        ...

    async def make(self, order: ShardOrder) -> Any:
        """What `flows.cluster.worker.make_shard` says to the order, wherever it's called."""
        ...

    def close(self) -> None: ...


def flows_task_runner() -> Any:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.task_runner if context else None


def chosen_cluster(task_runner: Any) -> Callable[[], Cluster] | None:
    """What connects to the cluster that STILLFLOW_RUNNER names; or to that of a flow's own task runner, if it has one.

    Raises:
        SpreadError: the name is none.
    """
    named = os.environ.get(RUNNER_VARIABLE, "")
    address = os.environ.get(ADDRESS_VARIABLE) or None
    packages = {base.__module__.partition(".")[0] for base in type(task_runner).__mro__}
    if named and named not in {LOCAL, "dask", "ray"}:
        raise SpreadError(f"{RUNNER_VARIABLE}={named!r}: expected 'dask', 'ray' or '{LOCAL}'")
    if named == "dask":
        return lambda: DaskCluster(dask_client(address), own=True)
    if named == "ray":
        return lambda: RayCluster(address)
    if not named and "prefect_dask" in packages:
        return lambda: DaskCluster(task_runner.client, own=False)
    if not named and "prefect_ray" in packages:
        return lambda: RayCluster(None)
    return None


def dask_client(address: str | None) -> Any:
    """A connection to a Dask scheduler; to one started now, with workers on this machine, where none is named."""
    try:
        from distributed import Client
    except ImportError:
        raise SpreadError(f"{RUNNER_VARIABLE}=dask needs Dask: {how_to_install('dask')}") from None
    try:
        # A cluster of its own needs no page of its own, which might find its port taken.
        more: dict[str, Any] = {} if address else {"dashboard_address": None}
        return Client(address, set_as_default=False, **more)
    except (OSError, TimeoutError, ValueError) as error:
        raise SpreadError(
            f"no Dask scheduler answers at {address!r}: {error}. Start one (`dask scheduler`), and name its address in"
            f" {ADDRESS_VARIABLE}"
        ) from error


class DaskCluster:
    """The workers of a Dask scheduler. One that dies has its shards worked on by another."""

    name = "Dask"

    def __init__(self, client: Any, *, own: bool) -> None:
        self._client = client
        self._own = own
        """Whether the connection was made for this run."""

    def places(self) -> int:
        return sum(self._client.nthreads().values())

    async def make(self, order: ShardOrder) -> Any:
        from flows.cluster.worker import make_shard

        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(_: object) -> None:
            loop.call_soon_threadsafe(done.set)

        # Dask shows the part before the last dash as the kind of work.
        future = self._client.submit(make_shard, order, key=f"{order.name}-{uuid.uuid4().hex}", pure=False)
        try:
            future.add_done_callback(tell)
            await done.wait()
            return await asyncio.to_thread(future.result)
        # Nothing is swallowed: Dask's errors share no base, and unpickling a user's class may raise anything. All get
        # the same clear message. What the work itself raised comes as a value.
        except Exception as error:
            raise lost(self.name, order, error) from error
        finally:
            # Where it isn't done yet, nobody wants it any more: its worker sees that, and stops asking.
            future.release()

    def close(self) -> None:
        if self._own:
            self._client.close()


class RayCluster:
    """The nodes of a Ray cluster: the one that Ray is connected to, or the one at an address."""

    name = "Ray"

    def __init__(self, address: str | None) -> None:
        try:
            import ray
        except ImportError:
            raise SpreadError(f"{RUNNER_VARIABLE}=ray needs Ray: {how_to_install('ray')}") from None
        from flows.cluster.worker import make_shard

        self._ray: Any = ray
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address, log_to_driver=False)
            except (ConnectionError, OSError, ValueError) as error:
                raise SpreadError(
                    f"no Ray cluster answers at {address!r}: {error}. Start one (`ray start --head`), and name its"
                    f" address in {ADDRESS_VARIABLE}"
                ) from error
        options = remote_options()
        self._make: Any = ray.remote(**options)(make_shard) if options else ray.remote(make_shard)

    def places(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    async def make(self, order: ShardOrder) -> Any:
        made = self._make.options(name=order.name).remote(order)
        try:
            return await asyncio.wrap_future(made.future())
        except asyncio.CancelledError:
            self._ray.cancel(made)
            raise
        # As with Dask: nothing is swallowed, and what the work itself raised comes as a value.
        except Exception as error:
            raise lost(self.name, order, error) from error

    def close(self) -> None:
        if self._own:
            self._ray.shutdown()


def remote_options() -> dict[str, Any]:
    """The options that a flow set with `prefect_ray.remote_options`, if it did."""
    if "prefect_ray" not in sys.modules:
        return {}
    from prefect_ray.context import RemoteOptionsContext

    return dict(RemoteOptionsContext.get().current_remote_options or {})


def lost(kind: str, order: ShardOrder, error: BaseException) -> SpreadError:
    return SpreadError(
        f"{order.name}: {kind} couldn't get shard {order.place} made: {type(error).__name__}: {error}. What was"
        " answered is kept: retry the run. Its workers need this project, at the same version and on their path, and"
        f" memory for {quantity(order.shard_rows, 'row')} at a time"
    )
