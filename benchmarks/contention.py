"""A host that adds 200 jobs a second to the board of a worker flat out: what one `add` takes, and whether any is refused."""

import time
from collections.abc import Iterator

from callboard import JobQueue
from callboard.persistence.errors import DatabaseBusyError

from .measure import Bench, Finding, Verdict, at_most, percentile
from .worker import Worker, config, reader

RATE = 200
FLAT_OUT = 6_000
"""Jobs laid out ahead for each second, more than a worker does: it must not run dry, and bulk additions meanwhile would be what is measured."""


def run(bench: Bench) -> Iterator[Finding]:
    seconds = bench.size(15, 4)
    path = bench.fresh("contention")
    took: list[float] = []
    refused = 0
    with JobQueue(path) as queue:
        queue.add_many({"type": "noop", "data": {"n": 1}} for _ in range(seconds * FLAT_OUT))
        with Worker(config(path, runners=100)), reader(path) as connection:
            start = time.perf_counter()
            for number in range(seconds * RATE):
                time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
                before = time.perf_counter()
                try:
                    queue.add("noop", {"n": number})
                except DatabaseBusyError:
                    refused += 1
                took.append((time.perf_counter() - before) * 1000)
            span = time.perf_counter() - start
            done, left = connection.execute(
                "SELECT (SELECT count(*) FROM llm_jobs WHERE state = 'completed'), (SELECT count(*) FROM llm_jobs WHERE state = 'waiting')"
            ).fetchone()
            if not left:
                raise RuntimeError("the worker ran dry, so it was not flat out: raise FLAT_OUT")
    yield at_most("add at 200/s, p50", percentile(took, 0.5), "ms", None)
    yield at_most("add at 200/s, p99", percentile(took, 0.99), "ms", 6)
    yield at_most("add at 200/s, longest", max(took), "ms", 20)
    yield Finding(what="refused as locked", ours=refused, unit="adds", verdict=Verdict("none", refused == 0))
    yield Finding(what="the worker meanwhile", ours=done / span, unit="jobs/s")
