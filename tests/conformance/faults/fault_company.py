"""A whole company performs one job for each fault of a part (a wire's chats, its embeddings, …), all at once, and what became of each is told."""

import contextlib
import time
from dataclasses import dataclass, replace
from typing import Any

import fault_kinds
from fault_kinds import End, Fault
from fault_own import Misbehaving
from fault_parts import Part
from fault_server import FaultServer

from callboard import Config, JobQueue, Supervisor
from callboard.actors.batch_settings import EmbeddingSettings
from callboard.actors.providers import background, call, direct, http_client, ndjson, network, own, sse
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, PriceSettings, RetrySettings, RunnerSettings
from callboard.persistence.engine import (
    driver,
)  # one SQLite library in a process: the locks of two do not know of each other

KEY = "sk-planted-0123456789abcdef"
PATIENCE = 60.0
NAMES = {
    "localhost": ["127.0.0.1"],
    "metadata.example.org": ["169.254.169.254"],
    "inside.example.org": ["10.1.2.3"],
}


@dataclass(frozen=True)
class Seen:
    """What became of one job."""

    end: End
    hold_seconds: float
    error: dict[str, Any] | None


def make_smaller(patch, trusted):
    """Let caps and the deadline for connecting be small, the authorities ours, and names resolve as `NAMES` says."""
    import socket
    import ssl

    async def resolve(host, port):
        if host not in NAMES:
            raise socket.gaierror(-2, "Name or service not known")
        return NAMES[host]

    patch.setattr(network, "_resolve", resolve)
    patch.setattr(http_client, "shared_tls_context", lambda: ssl.create_default_context(cafile=trusted))
    patch.setitem(direct.TIMEOUTS, "connect", 1.0)
    patch.setattr(call, "MAX_BODY_BYTES", fault_kinds.MAX_BODY)
    patch.setattr(own, "MAX_ANSWER_CHARS", fault_kinds.MAX_BODY)
    patch.setattr(background, "FIRST_WAIT", 0.001)
    patch.setattr(own, "TIDY_SECONDS", 0.2)
    for module, decoder in ((sse, "SSEDecoder"), (ndjson, "NDJSONDecoder")):
        made = getattr(module, decoder).__init__
        patch.setitem(made.__kwdefaults__, "max_bytes", fault_kinds.MAX_EVENT)


def play(part: Part, faults: list[Fault], path, certificates) -> dict[str, Seen]:
    """Perform the jobs; what became of them, by the names of their faults."""

    def acting(fault):
        async def act(peer):
            await (part.good if fault.once and peer.number > 1 else fault.act)(peer, part.wire)

        return act

    if part.wire == "own":
        classes = {fault.name: Misbehaving(fault, part.good) for fault in faults}
        return _perform(part, faults, path, None, classes)
    server = FaultServer({fault.name: acting(fault) for fault in faults if fault.act is not None}, certificates)
    try:
        return _perform(part, faults, path, server, {})
    finally:
        server.close()


def _perform(part, faults, path, server, classes):
    providers, models = {}, {}
    for fault in faults:
        models[fault.name] = ModelSettings(
            provider=fault.name, model="m", price=PriceSettings(input=1.0, output=1.0), max_output=100
        )
        if fault.name in classes:
            continue
        scheme, port = fault.where
        host = "localhost" if scheme == "https" else "127.0.0.1"
        url = fault.url or f"{scheme}://{host}:{server.ports[port]}"
        providers[fault.name] = ProviderSettings(
            name=fault.name,
            wire=part.wire,
            base_url=f"{url}/{fault.name}{part.base}",
            key_env="FAULTS_KEY",
            background=part.background,
        )
    file = path / f"{part.name}.db"
    config = Config(
        database=f"sqlite:///{file}",
        providers=providers,
        models=models,
        runners=RunnerSettings(min=len(faults), max=len(faults)),
        retries=RetrySettings(base=0.001, cap=0.002),
        poll_interval=0.02,
        park_after=0.2,
        synchronous="NORMAL",
        embeddings=EmbeddingSettings(group=False),
    )
    with JobQueue(config.database, synchronous="NORMAL", poll_interval=0.01) as board:
        jobs = {
            fault.name: board.add(
                fault.job or part.job,
                dict(fault.data) if fault.job else {**part.data, **fault.data},
                model=fault.name,
                max_attempts=fault.attempts,
                options=dict(fault.options),
            )
            for fault in faults
        }
        supervisor = Supervisor(config, providers=classes)
        supervisor.start()
        try:
            deadline = time.monotonic() + PATIENCE
            while left := _unsettled(file, jobs, faults):
                assert time.monotonic() < deadline, f"{part.name}: no end of {left}"
                time.sleep(0.02)  # paces the looks; what ends the wait is what is seen
        finally:
            supervisor.stop(0.0)
        holds = _holds(file)
        requests = {name: made.calls for name, made in classes.items()} if server is None else dict(server.seen)
        seen = {}
        for fault in faults:
            kinds = {} if server is None else server.kinds[fault.name]
            # Whether a call that is given up is still to be ended at its provider when all is over, nobody can say.
            whole = requests.get(fault.name, 0) - kinds.get("cancel", 0)
            one = _seen(jobs[fault.name], part, fault, holds, whole)
            seen[fault.name] = replace(one, end=replace(one.end, made=kinds.get("make", 0)))
        return seen


def _unsettled(file, jobs, faults):
    """The faults whose jobs have neither ended nor been left waiting for a key that was refused."""
    with contextlib.closing(driver.connect(str(file))) as connection:
        states = dict(connection.execute("SELECT id, state FROM llm_jobs").fetchall())
        failed = {job for (job,) in connection.execute("SELECT job_id FROM llm_calls WHERE state <> 'open'")}
    holds = {hold[0].partition("/")[0] for hold in _holds(file)}
    return [
        fault.name
        for fault in faults
        if states[jobs[fault.name].id] not in ("completed", "failed")
        and (fault.once or jobs[fault.name].id not in failed or fault.name not in holds)
    ]


def _holds(path):
    with contextlib.closing(driver.connect(str(path))) as connection:
        return connection.execute("SELECT key, kind, until, at FROM llm_limit_holds").fetchall()


def _hold(holds, name):
    """The hold of a provider's account or of its model."""
    return next((hold for hold in holds if hold[0] in (name, f"{name}/m")), None)


def _seen(job, part, fault, holds, requests):
    row, calls = job.row(), job.calls()
    last, hold = calls[-1], _hold(holds, fault.name)
    told = last.error or {}
    if row.state == "completed":
        full = part.whole(job.result, fault.says)
        return Seen(
            End(
                "completed", last.finish or "", requests, row.failures, usage=last.output_visible is not None, text=full
            ),
            0.0,
            None,
        )
    error = job.error if row.state == "failed" else last.error
    end = End(
        "failed" if row.state == "failed" else "waiting",
        error["class"],
        requests,
        row.failures,
        told.get("billed", ""),
        told.get("scope", ""),
        hold[1] if hold else "",
    )
    return Seen(end, (hold[2] - hold[3]) / 1000 if hold else 0.0, told)
