"""What the engine and others do to a run at the same time, in the orders that do harm."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import uuid
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import State, flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import Pause
from prefect.settings import PREFECT_UI_URL, temporary_settings
from prefect.states import Crashed, Running

from flows.engine import execution, ownership
from flows.engine.ownership import while_held
from flows.engine.prefect_pages import in_default_ui
from flows.engine.run import FlowRunFacts, Run
from flows.ledger.records import Jobs
from flows.store.storage import Storage
from flows.waiting.leaving import note
from tests.conftest import LONGEST


def run_of(flow_run: UUID, run_count: int = 1) -> Run:
    facts = FlowRunFacts(id=str(flow_run), run_count=run_count, deployed=True)
    return Run(str(flow_run), f"{flow_run}:{run_count}", Storage("memory://held"), flow_run=facts)


def around_set(
    monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], Awaitable[Any]], after: Callable[[], Awaitable[Any]]
) -> None:
    """Do something else right before and after the process says that it's alive."""
    set_state = PrefectClient.set_flow_run_state

    async def surrounded(self: PrefectClient, flow_run_id: UUID, state: State[Any], force: bool = False) -> Any:
        alive = "was alive" in (state.message or "")
        if alive:
            await before()
        answer = await set_state(self, flow_run_id, state, force)
        if alive:
            await after()
        return answer

    monkeypatch.setattr(PrefectClient, "set_flow_run_state", surrounded)


def as_in_another_process(module: ModuleType) -> Any:
    """A module with a state of its own."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None and spec.loader is not None
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    return other


async def nothing() -> None:
    pass


async def several(looks: list[UUID]) -> str:
    """Wait until there were some more."""
    before = len(looks)
    while len(looks) < before + 4:
        await asyncio.sleep(0.01)
    return "done"


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("order", ["started before it is taken back", "started after it was taken back"])
def test_of_two_processes_that_take_a_run_for_theirs_exactly_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, looks: list[UUID], order: str
) -> None:
    elsewhere = as_in_another_process(ownership)
    for each in (ownership, elsewhere):
        monkeypatch.setattr(each, "POLL_SECONDS", 0.05)

    async def main() -> list[bool]:
        async with get_client() as client:
            made = await client.create_flow_run(flow(lambda: None, name="held"), state=Running())
            finished, taken_back = asyncio.Event(), asyncio.Event()
            held: list[asyncio.Task[Any]] = []
            others: list[Run] = []

            async def start() -> None:
                """Another process starts the run, and is told so by the server before anything else happens."""
                await client.set_flow_run_state(made.id, Running(message="elsewhere"), force=True)
                started = (await client.read_flow_run(made.id)).run_count
                others.append(run_of(made.id, started))

            async def go_on() -> None:
                taken_back.set()

            async def start_and_go_on() -> None:
                await start()
                taken_back.set()

            first, then = (start, go_on) if order == "started before it is taken back" else (nothing, start_and_go_on)
            around_set(monkeypatch, before=first, after=then)
            await client.set_flow_run_state(made.id, Crashed(), force=True)
            held.append(asyncio.create_task(while_held(run_of(made.id), finished.wait())))
            # The other one looks for the first time only then.
            await taken_back.wait()
            held.append(asyncio.create_task(elsewhere.while_held(others[0], finished.wait())))
            done, _ = await asyncio.wait(held, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1, "both work on it"
            # The one that stays does so however often it looks.
            await several(looks)
            finished.set()
            outcomes = await asyncio.gather(*held, return_exceptions=True)
            return [isinstance(each, Pause) for each in outcomes]

    left = asyncio.run(main())

    assert sorted(left) == [False, True]


@pytest.mark.usefixtures("prefect")
def test_a_run_that_was_taken_back_is_held_in_its_next_step_too_though_an_answer_was_lost(
    monkeypatch: pytest.MonkeyPatch, looks: list[UUID]
) -> None:
    monkeypatch.setattr(ownership, "POLL_SECONDS", 0.05)

    async def lose() -> None:
        raise OSError("the answer is lost")

    around_set(monkeypatch, before=nothing, after=lose)

    async def main() -> list[str]:
        async with get_client() as client:
            made = await client.create_flow_run(flow(lambda: None, name="held"), state=Running())
            run = run_of(made.id)
            await client.set_flow_run_state(made.id, Crashed(), force=True)
            done = [await while_held(run, several(looks)), await while_held(run, several(looks))]
            # Where it leaves to wait now, its next start is known for the same attempt.
            await note(run, leaving=True)
            left = Jobs(run.storage).note_of(run.flow_run.id)
            assert left is not None and left.run_count == (await client.read_flow_run(made.id)).run_count == 2
            return done

    assert asyncio.run(main()) == ["done", "done"]


def shown(monkeypatch: pytest.MonkeyPatch, publish: Callable[[Run, str], Awaitable[None]]) -> asyncio.Task[None]:
    """A run's page that is brought up to date all the time."""
    monkeypatch.setattr(execution, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(execution, "publish_progress", publish)
    return asyncio.create_task(execution._show(run_of(uuid.uuid4())))  # pyright: ignore[reportPrivateUsage]


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_what_is_on_its_way_to_a_runs_page_comes_before_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        page, began, answer = list[str](), asyncio.Event(), asyncio.Event()

        async def publish(_: Run, status: str) -> None:
            began.set()
            await answer.wait()
            page.append(status.partition(" ")[0])

        showing = shown(monkeypatch, publish)
        await began.wait()
        asyncio.get_running_loop().call_soon(answer.set)
        await end(showing)
        return [*page, "Done"]

    assert asyncio.run(main()) == ["Running", "Done"]


@pytest.mark.parametrize("hangs", [True, False])
def test_a_page_that_cant_be_brought_up_to_date_holds_up_no_end(monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    monkeypatch.setattr(execution, "LONGEST_PUBLISHING", 0.01 if hangs else LONGEST)

    async def main() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def publish(_: Run, status: str) -> None:
            began.set()
            if hangs:
                await asyncio.Event().wait()
            await cancelled.wait()
            raise OSError("it's away")

        showing = shown(monkeypatch, publish)
        await began.wait()
        asyncio.get_running_loop().call_soon(cancelled.set)
        await end(showing)
        assert showing.cancelled()

    asyncio.run(main())


def test_a_server_that_didnt_say_which_ui_it_opens_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ui = f"http://127.0.0.1/{uuid.uuid4().hex}"
    request = httpx.Request("GET", ui)
    answers: list[Any] = [
        httpx.ReadTimeout("slow"),
        httpx.Response(503, request=request),
        httpx.Response(200, json={"default_ui": "v2"}, request=request),
    ]

    def get(url: str, **_: Any) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(httpx, "get", get)

    with temporary_settings({PREFECT_UI_URL: ui}):
        pages = [in_default_ui(f"{ui}/runs/1").removeprefix(ui) for _ in range(4)]

    assert pages == ["/runs/1", "/runs/1", "/v2/runs/1", "/v2/runs/1"]
