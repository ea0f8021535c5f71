"""Two threads, two event loops or two processes that meet at the worst moment, which each test brings about."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import PrivateAttr

from llms import LLM, InferenceEndpointsLLM, LLMError, OpenAILLM, secrets
from llms.base import _Worker
from llms.batch import JobStatus
from llms.concurrency import FIRST_ALLOWED
from llms.typing import GenerateOutput
from tests.conftest import LONGEST

CHAT: Any = [{"role": "user", "content": "Hi."}]


class Lock:
    """A lock that says when one has to wait for it."""

    def __init__(self, waited_for: threading.Event) -> None:
        self.lock, self.waited_for = threading.Lock(), waited_for

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.waited_for.set()
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


class Inputs(list[Any]):
    """What waits: `before` is called before an input is added, `after` after it, `counted` where they are counted."""

    def __init__(self, **hooks: Callable[[], None]) -> None:
        super().__init__()
        self.hooks = hooks

    def append(self, each: Any) -> None:
        self.call("before")
        super().append(each)
        self.call("after")

    def __len__(self) -> int:
        self.call("counted")
        return super().__len__()

    def call(self, name: str) -> None:
        self.hooks.get(name, lambda: None)()


class Echo(LLM):
    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: list[Any], num_generations: int = 1) -> list[GenerateOutput]:
        counts: Any = {"input_tokens": [1], "output_tokens": [1]}
        return [GenerateOutput(generations=[text], statistics=counts) for text in inputs]


class Asking(threading.Thread):
    """Asks in a loop of its own."""

    def __init__(self, llm: LLM, prompt: str) -> None:
        super().__init__(daemon=True)
        self.llm, self.prompt = llm, prompt
        self.answer: list[str | None] | None = None

    def run(self) -> None:
        with contextlib.suppress(TimeoutError):
            self.answer = asyncio.run(asyncio.wait_for(self.llm.answer(self.prompt), LONGEST))["generations"]


def test_inputs_of_two_event_loops_that_come_at_once_are_answered_both() -> None:
    """The second one is there before the first one has looked whether it is the first."""
    llm, is_there = Echo(), threading.Event()
    first, second = Asking(llm, "one"), Asking(llm, "two")

    def counted() -> None:
        if threading.current_thread() is first and not second.ident:
            second.start()
            assert is_there.wait(LONGEST)

    def after() -> None:
        if threading.current_thread() is second:
            is_there.set()

    llm._worker.lock = Lock(is_there)
    llm._pending = Inputs(counted=counted, after=after)
    first.start()
    first.join()
    second.join()

    assert (first.answer, second.answer) == (["one"], ["two"])


def test_an_input_that_comes_while_another_event_loop_hands_over_what_waits_is_answered() -> None:
    """The first one's are handed over when the second one is just about to be added to them."""
    is_there, goes_on = threading.Event(), threading.Event()

    class HandedOver(Echo):
        def _flush(self) -> None:
            if threading.current_thread() is first:
                second.start()
                assert is_there.wait(LONGEST)
            super()._flush()
            goes_on.set()

    def before() -> None:
        if threading.current_thread() is second:
            is_there.set()
            assert goes_on.wait(LONGEST)

    llm = HandedOver()
    first, second = Asking(llm, "one"), Asking(llm, "two")
    llm._worker.lock = Lock(goes_on)
    llm._pending = Inputs(before=before)
    first.start()
    first.join()
    second.join()

    assert (first.answer, second.answer) == (["one"], ["two"])


def test_a_local_engine_has_one_thread_whoever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, is_there = _Worker(), threading.Event()
    threads: list[ThreadPoolExecutor] = []
    first, second = (threading.Thread(target=lambda: threads.append(worker.thread()), daemon=True) for _ in range(2))

    def made(**options: Any) -> ThreadPoolExecutor:
        if threading.current_thread() is first:
            second.start()
            assert is_there.wait(LONGEST)
        else:
            is_there.set()
        return ThreadPoolExecutor(**options)

    worker.lock = Lock(is_there)
    monkeypatch.setattr("llms.base.ThreadPoolExecutor", made)
    first.start()
    first.join()
    second.join()

    assert threads[0] is threads[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what a fork leaves locked is tested, and Windows has no fork")
def test_a_process_forked_while_a_secret_is_made_known_can_make_others_known() -> None:
    with secrets._lock:
        child = os.fork()
        if not child:
            masks = False
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(LONGEST))
                secrets.know("known-in-the-child-alone")
                masks = secrets.masked("a known-in-the-child-alone") == "a ***"
            finally:
                os._exit(0 if masks else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_what_two_have_made_known_is_secret_until_both_have_forgotten_it() -> None:
    address = "https://store.example/file?signed-by=both-of-them"
    for _ in range(2):
        secrets.know(address)

    secrets.forget(address)
    assert secrets.masked(address) == secrets.MASK
    secrets.forget(address)
    assert secrets.masked(address) == address


def test_a_look_at_jobs_that_fails_ends_the_looks_at_the_others() -> None:
    class Batches(OpenAILLM):
        async def job_status(self, job_id: str) -> JobStatus:
            looked_at.append(job_id)
            if len(looked_at) == 3:
                raise LLMError("no status")
            await asyncio.Event().wait()
            raise AssertionError("unreachable: nothing sets the event")

    async def looks_left() -> int:
        """How many go on after the call."""
        with pytest.raises(LLMError, match="no status"):
            await llm._ends_when_allowed(["one", "two", "three"])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return sum(not task.cancelling() for task in others)

    looked_at: list[str] = []
    llm = Batches(
        model="m",
        base_url="http://nobody.invalid",
        api_key="none",
        use_offline_batch_generation=True,
    )

    assert asyncio.run(looks_left()) == 0
    assert sorted(looked_at) == ["one", "three", "two"]


class Endpoint(InferenceEndpointsLLM):
    """Its loads take until all that ask for it have asked."""

    _asked: list[Any] = PrivateAttr(default_factory=list)
    _loads: list[str] = PrivateAttr(default_factory=list)
    _all_have_asked: threading.Event = PrivateAttr(default_factory=threading.Event)

    def load(self) -> None:
        self._loads.append("a load")
        assert self._all_have_asked.wait(LONGEST)
        raise LLMError("no place for it")

    async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._asked.append(input)
        if len(self._asked) == REQUESTS:
            # Once this one has begun to wait as well.
            asyncio.get_running_loop().call_soon(self._all_have_asked.set)
        return await super().agenerate(input, num_generations)


REQUESTS = 20
assert REQUESTS < FIRST_ALLOWED


def test_requests_that_come_at_once_wait_for_one_load_and_the_next_one_loads_anew() -> None:
    llm = Endpoint(base_url="http://nobody.invalid", max_retries=0)
    outputs = llm.generate_outputs([CHAT] * REQUESTS)

    assert {output["error"]["message"] for output in outputs} == {"no place for it"}
    assert len(llm._loads) == 1

    llm.generate_outputs([CHAT])
    assert len(llm._loads) == 2
