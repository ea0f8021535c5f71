"""What others do between two steps of the ledger: each test puts it there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import collect, load
from flows.engine.run import Run
from flows.ledger import Store
from flows.ledger.asking import Asking, Claim, Claims
from flows.ledger.jobs import find
from flows.ledger.records import KEYS as KEYS_ENDING
from flows.ledger.records import JobGoneError, JobRecord, Jobs
from flows.ledger.store import answer_line, failure_line
from flows.store.storage import Storage, StorageError
from flows.waiting.leaving import _poll
from llms import OpenAILLM
from llms.batch import JobStatus
from llms.errors import Failure, ModelNotFoundError
from llms.local_provider import LocalProvider
from tasks import TextGeneration
from tests.conftest import LONGEST, wait_for

KEYS = [f"{number:016x}{'0' * 16}" for number in range(1, 9)]
OUTPUT: Any = {"generations": ["text"], "statistics": {"input_tokens": [1], "output_tokens": [2]}}
USAGE: Any = {"input_tokens": 1, "output_tokens": 2}
FAILURE = Failure(type="InvalidResponseError", message="", retryable=True)


class Interrupted(Storage):
    """A storage whose calls others come in between.

    `before` and `after` have what happens, once each, by the call's method and the ending of its path.
    """

    before: dict[tuple[str, str], list[Callable[[], object]]]
    after: dict[tuple[str, str], list[Callable[[], object]]]

    def __init__(self, root: str) -> None:
        super().__init__(root)
        object.__setattr__(self, "before", {})
        object.__setattr__(self, "after", {})

    def _interrupt(self, among: dict[tuple[str, str], list[Callable[[], object]]], method: str, path: str) -> None:
        for (name, ending), steps in among.items():
            if name == method and path.endswith(ending) and steps:
                steps.pop(0)()

    def files(self, folder: str, ending: str) -> list[str]:
        self._interrupt(self.before, "files", folder)
        found = super().files(folder, ending)
        self._interrupt(self.after, "files", folder)
        return found

    def write(self, path: str, content: bytes) -> None:
        self._interrupt(self.before, "write", path)
        super().write(path, content)
        self._interrupt(self.after, "write", path)

    def remove(self, path: str) -> None:
        self._interrupt(self.before, "remove", path)
        super().remove(path)
        self._interrupt(self.after, "remove", path)


def nothing() -> None:
    """Happens."""


@pytest.fixture(params=["folder", "object store"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Interrupted:
    return Interrupted(str(tmp_path) if request.param == "folder" else f"memory://races-{uuid.uuid4().hex}")


@pytest.fixture
def objects() -> Interrupted:
    return Interrupted(f"memory://races-{uuid.uuid4().hex}")


def claims(storage: Storage, owner: str) -> Claims:
    return Claims(storage, "space", owner, lambda other: other == owner)


def taken(storage: Storage, owner: str) -> tuple[Claim, dict[str, str]]:
    claim, held = claims(storage, owner).take(KEYS)
    assert claim is not None
    return claim, held


def left(storage: Storage) -> list[str]:
    """The claims that somebody holds."""
    seen = claims(storage, "nobody")
    found = storage.files(storage.path("ledger", "space", "asking"), ".claim")
    return [each for each in found if seen.content_of(each) is not None]


def test_whoever_makes_a_claim_with_a_number_that_was_given_back_sees_who_came_after_it(storage: Interrupted) -> None:
    others = Storage(storage.root)
    taken(others, "earlier")[0].release()
    came: list[Claim] = []

    def meanwhile() -> None:
        given_back, _ = taken(others, "first")
        came.append(claims(others, "second").take(KEYS[:4])[0] or given_back)
        given_back.release()

    storage.after["files", "asking"] = [meanwhile]
    mine, held = taken(storage, "held up")

    assert held == dict.fromkeys(KEYS[:4], came[0].path)
    assert mine.path > came[0].path
    assert left(others) == [came[0].path, mine.path]


@pytest.mark.parametrize("content", [b"", b'{"owner": "earl'], ids=["empty", "cut"])
def test_a_claim_that_a_power_cut_has_damaged_is_nobodys(storage: Interrupted, content: bytes) -> None:
    storage.write(taken(storage, "earlier")[0].path, content)

    mine, held = taken(storage, "next")

    assert mine.is_known()
    assert held == {}


def test_who_finds_a_later_claim_by_one_who_saw_theirs_keeps_it(storage: Interrupted) -> None:
    others = Storage(storage.root)
    later: list[tuple[Claim, dict[str, str]]] = []
    storage.before["files", "asking"] = [nothing, lambda: later.extend(taken(others, name) for name in ("a", "b"))]

    mine, held = taken(storage, "first")

    assert held == {}
    assert later[0][1] == dict.fromkeys(KEYS, mine.path)
    assert set(later[1][1]) == set(KEYS)
    assert left(others) == [mine.path, *(claim.path for claim, _ in later)]


def test_the_claim_of_who_comes_to_its_end_while_it_is_made_is_given_back(storage: Interrupted) -> None:
    entered, go_on, made = threading.Event(), threading.Event(), threading.Event()

    class Slow(Claims):
        def take(self, keys: Iterable[str]) -> tuple[Claim | None, dict[str, str]]:
            entered.set()
            assert go_on.wait(LONGEST)
            try:
                return super().take(keys)
            finally:
                made.set()

    async def main() -> None:
        asking = Asking(Store(storage, "space"), Slow(storage, "space", "one", lambda _: False))
        wanted = asyncio.ensure_future(asking.is_ours(0, KEYS[0], KEYS[0]))
        assert await asyncio.to_thread(entered.wait, LONGEST)
        closing = asyncio.ensure_future(asking.close())
        await asyncio.sleep(0)
        go_on.set()
        await closing
        assert await asyncio.to_thread(made.wait, LONGEST)
        wanted.cancel()

    asyncio.run(main())
    assert left(storage) == []


def test_a_claim_that_was_given_back_while_it_was_to_be_renewed_stays_so(storage: Interrupted) -> None:
    claim, _ = taken(storage, "one")
    claim.release()

    claim.renew()

    assert left(storage) == []


def test_what_another_session_reads_into_the_store_before_it_is_claimed_is_not_asked(
    storage: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ours = Asking.is_ours

    async def answered_before(asking: Asking, row: int, root: str, key: str) -> bool:
        another = Store(asking._store.storage, asking._store.space)
        another.append([answer_line(key, OUTPUT, "another")])
        another.close()
        asking._store.refresh()
        return await is_ours(asking, row, root, key)

    monkeypatch.setattr(Asking, "is_ours", answered_before)
    with LocalProvider() as provider:
        llm = OpenAILLM(model="m", base_url=provider.base_url)
        rows = load([{"instruction": "Go on."}], storage=storage.root).map(TextGeneration(llm=llm))
        made = [row["generation"] for row in collect(rows)]
        asked = provider.stats.count("/chat/completions", 200)

    assert made == ["text"]
    assert asked == 0


def found_by_others(storage: Storage, keys: Iterable[str]) -> bool:
    store = Store(storage, "space")
    store.refresh()
    return all(store.find(key) is not None for key in keys)


def failing_once(storage: Interrupted) -> Store:
    """A store whose first answer didn't get into the object store."""

    def fail() -> None:
        raise StorageError("the store is away")

    storage.before["write", ".part"] = [fail]
    store = Store(storage, "space")
    store.append([answer_line(KEYS[0], OUTPUT, "one")])
    wait_for(lambda: store._problem is not None, what="the failure")
    return store


def test_a_write_that_failed_is_told_once_and_then_tried_again(objects: Interrupted) -> None:
    store = failing_once(objects)

    with pytest.raises(StorageError, match="the store is away"):
        store.append([answer_line(KEYS[1], OUTPUT, "one")])
    store.append([answer_line(KEYS[2], OUTPUT, "one")])

    wait_for(lambda: found_by_others(objects, KEYS[:3]), what="what was appended")
    store.close()


def test_who_looks_for_answers_after_a_failed_write_finds_them(objects: Interrupted) -> None:
    store = failing_once(objects)

    store.refresh()

    assert store.find(KEYS[0]) is not None
    assert found_by_others(objects, KEYS[:1])
    store.append([answer_line(KEYS[1], OUTPUT, "one")])
    store.close()


def test_who_cant_write_any_more_reads_what_others_wrote(objects: Interrupted) -> None:
    others = Store(Storage(objects.root), "space")
    store = failing_once(objects)
    others.append([answer_line(KEYS[1], OUTPUT, "one")])
    others.flush()
    objects.before["write", ".part"] = [lambda: (_ for _ in ()).throw(StorageError("the store is away"))] * 2

    store.refresh()

    assert store.find(KEYS[1]) is not None
    with pytest.raises(StorageError, match="the store is away"):
        store.append([answer_line(KEYS[2], OUTPUT, "one")])
    objects.before.clear()
    store.close()
    others.close()
    assert found_by_others(objects, KEYS[:3])


def test_what_is_read_as_soon_as_it_is_written_counts_once(objects: Interrupted) -> None:
    store = Store(objects, "space")
    store.refresh()
    objects.after["write", ".part"] = [store.refresh]

    store.append([failure_line(KEYS[0], FAILURE, "one", [USAGE])])
    store.flush()

    assert len(store.spent(KEYS[0])) == 1
    store.close()


def test_a_store_can_be_closed_while_a_timer_of_it_begins(
    objects: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(objects, "space")
    start = threading.Timer.start

    def closed_before(timer: threading.Timer) -> None:
        store.close()
        start(timer)

    monkeypatch.setattr(threading.Timer, "start", closed_before)
    store.append([answer_line(KEYS[0], OUTPUT, "one")])
    monkeypatch.undo()
    store.close()

    assert found_by_others(objects, KEYS[:1])


RECORD = JobRecord(
    intent="intent",
    run="run",
    attempt="run:1",
    flow_run="",
    step="text_generation",
    space="space",
    llm={},
    queue="queue",
    requests=2,
    size=1,
    tokens=1,
    shards="0-0",
    sample=[],
    intended=0.0,
)


def submitted(storage: Storage, job: str = "job") -> JobRecord:
    record = replace(RECORD, job=job)
    Jobs(storage).intend(record, KEYS[:2])
    return record


def left_of_open_jobs(storage: Storage) -> list[str]:
    folder = storage.path("jobs", "submitted")
    return [*storage.files_below(folder, ".json"), *storage.files_below(folder, KEYS_ENDING)]


@pytest.mark.parametrize("over", [Jobs.end, Jobs.void])
def test_a_job_that_is_over_while_its_record_is_written_anew_stays_over(
    storage: Interrupted, over: Callable[[Jobs, JobRecord], None]
) -> None:
    record = submitted(storage)
    storage.before["write", "submitted/space/intent.json"] = [lambda: over(Jobs(Storage(storage.root)), record)]

    Jobs(storage).update(replace(record, answered=1))

    assert left_of_open_jobs(storage) == []
    assert len(Jobs(storage).ended_of("run")) == (over is Jobs.end)


@pytest.mark.parametrize("over", [Jobs.end, Jobs.void])
def test_a_record_that_is_written_anew_while_its_job_is_forgotten_stays_forgotten(
    storage: Interrupted, over: Callable[[Jobs, JobRecord], None]
) -> None:
    record = submitted(storage)
    # By `update`, which found it there and finds its keys there now.
    storage.before["remove", KEYS_ENDING] = [lambda: Jobs(Storage(storage.root)).write(record)]

    over(Jobs(storage), record)

    assert left_of_open_jobs(storage) == []


def test_the_id_of_a_job_that_is_created_while_it_is_looked_for_is_kept(storage: Interrupted) -> None:
    class CreatedMeanwhile(OpenAILLM):
        async def find_job(self, mark: str, since: float, file: Any) -> JobStatus | None:
            Jobs(storage).write(replace(record, job="job"))

    record = submitted(storage, job="")
    llm = CreatedMeanwhile(model="m", base_url="http://127.0.0.1:9/v1")

    found = asyncio.run(find(Jobs(storage), record, llm))

    assert found.job == "job"
    assert [each.job for each in Jobs(storage).open_of("space")] == ["job"]


@pytest.mark.parametrize("ending", [".json", KEYS_ENDING])
def test_a_job_that_is_created_while_its_intent_is_forgotten_stays(storage: Interrupted, ending: str) -> None:
    intent = submitted(storage, job="")
    storage.after["remove", ending] = [lambda: Jobs(Storage(storage.root)).write(replace(intent, job="job"))]

    Jobs(storage).void(intent)

    assert [each.job for each in Jobs(storage).open_of("space")] == ["job"]


def test_a_job_that_was_created_since_its_intent_was_read_isnt_forgotten(storage: Interrupted) -> None:
    intent = submitted(storage, job="")
    created = replace(intent, job="job")
    Jobs(storage).write(created)

    Jobs(storage).void(intent)

    assert Jobs(storage).open_of("space") == [created]
    assert Jobs(storage).keys_in(created) == KEYS[:2]


def test_the_record_of_a_job_that_was_created_since_an_intent_was_looked_for_in_vain_is_the_one(
    storage: Interrupted,
) -> None:
    class CreatedMeanwhile(OpenAILLM):
        async def find_job(self, mark: str, since: float, file: Any) -> JobStatus | None:
            Jobs(storage).write(replace(record, job="job"))

    record = replace(submitted(storage, job=""), polled=1.0)
    Jobs(storage).write(record)

    found = asyncio.run(find(Jobs(storage), record, CreatedMeanwhile(model="m", base_url="http://127.0.0.1:9/v1")))

    assert found.job == "job"


@pytest.mark.parametrize("over", [Jobs.end, Jobs.void])
def test_what_a_job_holds_that_is_over_since_it_was_read_is_known(
    storage: Interrupted, over: Callable[[Jobs, JobRecord], None], caplog: pytest.LogCaptureFixture
) -> None:
    record = submitted(storage)
    over(Jobs(storage), record)

    keys = Jobs(storage).keys_of(record)

    assert [key in keys for key in KEYS[:3]] == [over is Jobs.end, over is Jobs.end, False]
    assert "can't be read any more" not in caplog.text


def test_a_job_that_an_intent_had_become_and_that_is_gone_is_given_up_by_the_retry(storage: Interrupted) -> None:
    class Gone(OpenAILLM):
        async def find_job(self, mark: str, since: float, file: Any) -> JobStatus | None:
            return JobStatus(id="job", state="ended", status="completed", total=2)

        async def job_status(self, job: str) -> JobStatus:
            raise ModelNotFoundError("there's no such job")

    jobs, llm = Jobs(storage), Gone(model="m", base_url="http://127.0.0.1:9/v1")
    submitted(storage, job="")
    for attempt in ("run:1", "run:2"):
        run = Run("run", attempt, storage)
        (record,) = jobs.open_of("space")
        with contextlib.suppress(JobGoneError):
            asyncio.run(_poll(run, replace(record, job=""), llm, strict=True))
        if attempt == "run:1":
            assert [(each.job, each.lost) for each in jobs.open_of("space")] == [("job", "run:1")]

    assert left_of_open_jobs(storage) == []
    assert [(each.job, each.state) for each in jobs.ended_of("run")] == [("job", "failed")]


def test_a_job_that_came_of_an_intent_beside_one_that_ended_is_open_on(storage: Interrupted) -> None:
    jobs = Jobs(storage)
    first = submitted(storage, job="first")
    second = replace(first, job="second")
    jobs.write(second)

    jobs.end(first)
    jobs.update(replace(second, answered=1))

    assert [(each.job, each.answered) for each in jobs.open_of("space")] == [("second", 1)]
