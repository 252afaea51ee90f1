"""A host that adds 200 jobs a second to the board of a worker flat out: what one `add` takes, and whether any is refused."""

import threading
import time
from collections.abc import Iterator

from callboard import JobQueue
from callboard.persistence.errors import DatabaseBusyError

from .measure import Bench, Finding, Verdict, at_most, percentile
from .worker import Worker, config, reader, wait_until_ended

RATE = 200
CHUNK = 2000


def run(bench: Bench) -> Iterator[Finding]:
    seconds = bench.size(15, 4)
    path = bench.fresh("contention")
    took: list[float] = []
    refused = 0
    with JobQueue(path) as queue, JobQueue(path) as feeder, Worker(config(path, runners=100)) as worker:
        over = threading.Event()
        feeding = threading.Thread(target=_keep_busy, args=(feeder, path, over))
        feeding.start()
        start = time.perf_counter()
        for number in range(seconds * RATE):
            time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
            before = time.perf_counter()
            try:
                queue.add("noop", {"n": number})
            except DatabaseBusyError:
                refused += 1
            took.append((time.perf_counter() - before) * 1000)
        over.set()
        feeding.join()
        wait_until_ended(path, worker)
        with reader(path) as connection:
            done = connection.execute("SELECT count(*) FROM llm_jobs WHERE state = 'completed'").fetchone()[0]
    span = time.perf_counter() - start
    yield at_most("add at 200/s, p50", percentile(took, 0.5), "ms", None)
    yield at_most("add at 200/s, p99", percentile(took, 0.99), "ms", 6)
    yield at_most("add at 200/s, longest", max(took), "ms", 20)
    yield Finding(what="refused as locked", ours=refused, unit="adds", verdict=Verdict("none", refused == 0))
    yield Finding(what="the worker meanwhile", ours=done / span, unit="jobs/s")


def _keep_busy(queue: JobQueue, path: object, over: threading.Event) -> None:
    """Never let the board run dry, by rare and large additions."""
    waiting = "SELECT count(*) FROM (SELECT 1 FROM llm_jobs WHERE state = 'waiting' LIMIT 2000)"
    with reader(path) as connection:  # type: ignore[arg-type]  # a Path
        while not over.is_set():
            if connection.execute(waiting).fetchone()[0] < CHUNK:
                queue.add_many([{"type": "noop", "data": {"n": 1}}] * CHUNK)
            over.wait(0.05)
