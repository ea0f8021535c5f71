"""Many runs that wait for batch jobs: real flow runs at a server and real jobs at the provider, without processes."""

from __future__ import annotations

import asyncio
import datetime
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.states import AwaitingRetry

from flows.ledger import key_of, space_of
from flows.ledger.jobs import custom_id, metadata_of
from flows.ledger.records import JobRecord, Jobs, Wait, queue_of
from llms import OpenAILLM
from llms.batch import JobFile, JobStatus
from llms.loop import run_async

AT_ONCE = 2
HOUR = 3600.0


@dataclass
class WaitingRuns:
    """Runs that wait, each with one open job; the places are the same in all three lists."""

    jobs: Jobs
    client: PrefectClient
    llm: OpenAILLM
    flow_runs: list[str]
    job_ids: list[str]
    records: list[JobRecord]

    @classmethod
    async def make(cls, jobs: Jobs, client: PrefectClient, llm: OpenAILLM, count: int, folder: Path) -> WaitingRuns:
        name = f"waiting-{uuid.uuid4().hex[:8]}"
        deployment = await client.create_deployment(await client.create_flow_from_name(name), name)
        made = cls(jobs, client, llm, [""] * count, [""] * count, [])
        places = asyncio.Semaphore(AT_ONCE)

        async def begin(place: int) -> None:
            async with places:
                made.flow_runs[place] = await made._start(deployment)
                record, status = await made._submit(place, made.flow_runs[place], folder)
                known = record.seen(status)
                made.job_ids[place] = known.job
                made.records.append(known)
                await asyncio.to_thread(made._note, known, str(deployment))

        await asyncio.gather(*(begin(place) for place in range(count)))
        return made

    async def _start(self, deployment: UUID) -> str:
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=HOUR)
        state = AwaitingRetry(message="waiting for batches: 0 of 1 job done", scheduled_time=later)
        return str((await self.client.create_flow_run_from_deployment(deployment, state=state)).id)

    async def _submit(self, place: int, flow_run: str, folder: Path) -> tuple[JobRecord, JobStatus]:
        name = custom_id(0, key_of(str(place), 0, 0))
        prompt = [{"role": "user", "content": f"Say number {place}."}]
        line = self.llm.batch_line(self.llm.batch_request(name, prompt, 1)) + b"\n"
        file = JobFile(folder / f"{flow_run}.jsonl", "/v1/chat/completions", [name], len(line))
        await asyncio.to_thread(file.path.write_bytes, line)
        record = JobRecord(
            intent=uuid.uuid4().hex,
            run=flow_run,
            attempt=f"{flow_run}:1",
            flow_run=flow_run,
            step="text_generation",
            space=space_of(self.llm),
            llm=self.llm.model_dump(mode="json"),
            queue=queue_of(self.llm),
            requests=1,
            size=file.size,
            tokens=file.tokens,
            shards="0-0",
            sample=file.custom_ids,
            intended=time.time(),
        )
        return record, await run_async(self.llm.create_job(file, metadata_of(record, "")))

    def _note(self, record: JobRecord, deployment: str) -> None:
        self.jobs.write(record)
        wait = Wait(
            run=record.run,
            flow_run=record.flow_run,
            spaces=[record.space],
            intents=[record.intent],
            queued=0,
            since=time.time(),
            next_poll=time.time() + HOUR,
            deployment=deployment,
        )
        self.jobs.write_wait(wait)

    async def due(self, flow_runs: Iterable[str]) -> list[bool]:
        """Whether each of the runs is to start now."""
        found = await asyncio.gather(*(self.client.read_flow_run(UUID(name)) for name in flow_runs))
        times = [run.state.state_details.scheduled_time if run.state else None for run in found]
        return [each is not None and each <= datetime.datetime.now(datetime.UTC) for each in times]
