"""Calls of a model that takes 200 ms: through the whole company, through the call engine alone, and by bare httpx, against the ideal.

Every side asks for a streamed answer, as the company does, from a provider process that costs next to nothing; its text comes in one event
(the second part has 50). "Whole" is a job's life from
claim to commit, with its intent and outcome in the ledger, its text in chunks, and its transitions.
"""

import asyncio
import threading
from collections.abc import Iterator

import httpx

from callboard import JobQueue
from callboard.actors.providers.call import Failed, Finished
from callboard.actors.providers.engine import CallEngine, CallEvent
from callboard.actors.providers.model import Message, Request, Timeouts
from callboard.actors.providers.settings import ProviderSettings

from .measure import Bench, Finding, Sample, Typical, Verdict, in_turns, share_of_ideal, timed
from .provider import CHUNKS, provider
from .worker import Worker, config, span_seconds, wait_until_ended

LATENCY = 0.2
PACE = 0.01
STREAMS = 100
FEW = 300
"""Bare httpx is given few calls: at 100 in flight its pool makes it fifty times slower than the ideal."""
SHARES = {100: 0.95, 500: 0.7}
"""By calls in flight: the share of the ideal rate the whole is to reach."""
BODY = {"model": "m", "messages": [{"role": "user", "content": "Say it."}], "stream": True}


def run(bench: Bench) -> Iterator[Finding]:
    rounds = 1 if bench.quick else 3
    with provider(latency=LATENCY) as url:
        for width in (10, 50, 100, 500):
            calls = width * bench.size(10, 4)
            found = in_turns(
                rounds,
                {
                    "whole": lambda w=width, n=calls: whole(bench, url, n, w),
                    "engine": lambda w=width, n=calls: engine(url, n, w),
                    "httpx": lambda w=width: bare(url, max(w, FEW), w),
                },
            )
            yield from _compared(f"{width} in flight", found, width / LATENCY, SHARES.get(width))
            if width == 100:
                wall = (width / LATENCY) / found["whole"].rate
                yield Finding(
                    what="100 in flight: whole, wall time",
                    ours=wall,
                    unit="of ideal",
                    verdict=Verdict("≤ 1.25 of ideal", wall <= 1.25),
                )
                cost = found["whole"].cpu_us / 1000
                yield Finding(
                    what="100 in flight: whole CPU per job",
                    ours=cost,
                    unit="ms",
                    verdict=Verdict("≤ 0.6 ms", cost <= 0.6),
                )
    with provider(pace=PACE) as url:
        streams = STREAMS * bench.size(6, 3)
        found = in_turns(rounds, {"whole": lambda: whole(bench, url, streams, STREAMS)})
        ideal = STREAMS / (PACE * (CHUNKS + 1))
        yield from _compared(f"{STREAMS} streams of {CHUNKS} chunks in 0.5 s", found, ideal, 0.9)
        cost = found["whole"].cpu_us / 1000
        yield Finding(what="streams: whole CPU per stream", ours=cost, unit="ms", verdict=Verdict("≤ 4 ms", cost <= 4))


def _compared(what: str, found: dict[str, Typical], ideal: float, share: float | None) -> Iterator[Finding]:
    for side, typical in found.items():
        yield share_of_ideal(f"{what}: {side}", "calls/s", typical, ideal, share if side == "whole" else None)


def whole(bench: Bench, url: str, calls: int, width: int) -> Sample:
    path = bench.fresh("calls")
    with JobQueue(path) as queue, Worker(config(path, runners=width, url=url)) as worker:
        before = worker.cpu_seconds()
        queue.add_many([{"type": "chat", "data": {"prompt": "Say it."}}] * calls)
        wait_until_ended(path, worker, every=0.05)
        cpu = worker.cpu_seconds() - before
        if (done := queue.counts().get("completed")) != calls:
            raise RuntimeError(f"{done} of {calls} jobs completed: {queue.counts()}")
    return Sample(calls, span_seconds(path), cpu)


def engine(url: str, calls: int, width: int) -> Sample:
    """The next call starts when one ends: `width` are always open."""
    settings = ProviderSettings(name="bench", wire="openai-chat", base_url=f"{url}/v1", max_in_flight=width)
    request = Request(model="m", messages=(Message("user", "Say it."),))
    calling = CallEngine(settings)
    calling.start()
    ended = threading.Semaphore(0)
    failures: list[CallEvent] = []

    def heard(event: CallEvent) -> None:
        if isinstance(event, Failed):
            failures.append(event)
        if isinstance(event, Failed | Finished):
            ended.release()

    def work() -> None:
        for number in range(calls):
            calling.submit(number, request, Timeouts(first_token=60, no_progress=60, total=60), heard)
        for _ in range(calls):
            ended.acquire()

    try:
        sample = timed(calls, work)
    finally:
        calling.stop()
    if failures:
        raise RuntimeError(f"{len(failures)} of {calls} calls failed: {failures[0]}")
    return sample


def bare(url: str, calls: int, width: int) -> Sample:
    """One `AsyncClient`, `width` tasks, the body read and not looked at."""

    async def work() -> None:
        left = iter(range(calls))
        limits = httpx.Limits(max_connections=width, max_keepalive_connections=width)
        async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

            async def caller() -> None:
                for _ in left:
                    (await client.post(f"{url}/v1/chat/completions", json=BODY)).raise_for_status()

            await asyncio.gather(*(caller() for _ in range(width)))

    return timed(calls, lambda: asyncio.run(work()))
