"""A whole company with two jobs in a batch for each fault of a batch API, all at once, and what became of each pair."""

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import fault_bodies as wires
from fault_batches import KINDS, WIRES, good
from fault_company import PATIENCE
from fault_server import FaultServer

from callboard import Config, JobQueue, Supervisor
from callboard.actors.batch_settings import BatchSettings
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, PriceSettings, RetrySettings, RunnerSettings
from callboard.persistence.engine import driver

JOBS = 2


@dataclass(frozen=True)
class BatchEnd:
    """What becomes of the two jobs, and what it took.

    `create`, `poll`, `fetch`, `find`, `alone`: requests of each kind. `maybe`: calls whose outcome nobody will know, so that they may be paid for
    twice. `error`: the class of what failed jobs failed of. `waits`: the kind of request that is repeated while the jobs wait.
    """

    completed: int = JOBS
    failed: int = 0
    error: str = ""
    create: int = 1
    poll: int = 1
    fetch: int = 1
    find: int = 0
    alone: int = 0
    maybe: int = 0
    upload: int = 1
    """Where a file of requests is sent apart."""
    waits: str = ""


@dataclass(frozen=True)
class BatchFault:
    """One row."""

    name: str
    group: str
    does: str
    end: BatchEnd
    act: Any = good
    where: str = "http"
    url: str = ""
    only: tuple[str, ...] = tuple(WIRES)
    but: dict[str, BatchEnd] = field(default_factory=dict)

    def end_at(self, part: str) -> BatchEnd:
        return self.but.get(part, self.end)


def play(
    part: str, faults: list[BatchFault], path: Any, certificates: Any
) -> dict[str, tuple[dict[str, Any], list[Any]]]:
    """Perform the jobs; what became of them, by the names of their faults, and the errors on the board."""
    wire = WIRES[part]

    def acting(fault):
        async def act(peer):
            await fault.act(peer, wire)

        return act

    server = FaultServer({fault.name: acting(fault) for fault in faults}, certificates)
    try:
        return _perform(part, wire, faults, path, server)
    finally:
        server.close()


def _perform(part, wire, faults, path, server):
    base = wires.WIRES[wire].BASE if wire == "openai-chat" else ""
    providers, models = {}, {}
    for fault in faults:
        url = fault.url or f"http://127.0.0.1:{server.ports[fault.where]}"
        providers[fault.name] = ProviderSettings(
            name=fault.name, wire=wire, base_url=f"{url}/{fault.name}{base}", key_env="FAULTS_KEY"
        )
        models[fault.name] = ModelSettings(
            provider=fault.name, model="m", price=PriceSettings(input=1.0, output=1.0), max_output=100
        )
    file = path / f"{part}.db"
    config = Config(
        database=f"sqlite:///{file}",
        providers=providers,
        models=models,
        runners=RunnerSettings(min=len(faults), max=len(faults)),
        retries=RetrySettings(base=0.001, cap=0.002),
        batch=BatchSettings(max_requests=JOBS, max_age=0.5, poll=0.02, poll_cap=0.1, find_after=0.2),
        poll_interval=0.02,
        sweep_interval=0.1,
        park_after=0.2,
        synchronous="NORMAL",
    )
    with JobQueue(config.database, synchronous="NORMAL", poll_interval=0.01) as board:
        jobs = {
            fault.name: [
                board.add(
                    "chat", {"prompt": f"Say {n}."}, model=fault.name, max_attempts=2, options={"latency": "batch"}
                )
                for n in range(JOBS)
            ]
            for fault in faults
        }
        supervisor = Supervisor(config)
        supervisor.start()
        try:
            deadline = time.monotonic() + PATIENCE
            while left := _unsettled(file, part, jobs, faults, server):
                assert time.monotonic() < deadline, f"{part}: no end of {left}"
                time.sleep(0.02)  # paces the looks; what ends the wait is what is seen
        finally:
            supervisor.stop(0.0)
        return {fault.name: _seen(file, part, fault, jobs[fault.name], server.kinds[fault.name]) for fault in faults}


def _unsettled(file, part, jobs, faults, server):
    """The faults of which a job, or the job that drives a batch, has not ended, and that nothing is repeated for either."""
    with contextlib.closing(driver.connect(str(file))) as connection:
        open_jobs = connection.execute(
            "SELECT model FROM llm_jobs WHERE state NOT IN ('completed', 'failed', 'cancelled')"
        ).fetchall()
        told = {row[0] for row in connection.execute("SELECT provider FROM llm_batches WHERE polls >= 2").fetchall()}
    left = {model for (model,) in open_jobs}  # a batch's driver has the model of those in it
    waiting = {fault.name for fault in faults if fault.end_at(part).waits}
    return [
        fault.name
        for fault in faults
        if fault.name in left
        and not (
            fault.name in waiting and (server.kinds[fault.name][fault.end_at(part).waits] >= 2 or fault.name in told)
        )
    ]


def _seen(file, part, fault, jobs, kinds):
    expected = fault.end_at(part)
    rows = [job.row() for job in jobs]
    states = Counter(str(row.state) for row in rows)
    errors = [job.error for job, row in zip(jobs, rows, strict=True) if row.state == "failed"]
    said = all(
        job.result["text"] == wires.TEXT for job, row in zip(jobs, rows, strict=True) if row.state == "completed"
    )
    with contextlib.closing(driver.connect(str(file))) as connection:
        calls = connection.execute("SELECT state, error FROM llm_calls WHERE provider = ?", (fault.name,)).fetchall()
        held = connection.execute("SELECT state, error FROM llm_batches WHERE provider = ?", (fault.name,)).fetchall()
    found = {
        "completed": states["completed"] if said else -1,
        "failed": states["failed"],
        "error": "/".join(sorted({error["class"] for error in errors})),
        **{kind: kinds[kind] for kind in KINDS},
        "maybe": sum(state == "unknown" for state, _ in calls),
        "upload": kinds["upload"] if part == "openai-batches" else expected.upload,
        "waits": expected.waits if states["completed"] + states["failed"] < JOBS else "",
    }
    if expected.waits:  # how often, nobody can say
        found[expected.waits] = getattr(expected, expected.waits)
    return found, [*errors, *held, *calls]
