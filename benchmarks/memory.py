"""What a worker process keeps in memory (its peak, by the kernel's own mark), and how soon it and the package are there.

The environment has every optional library installed (rich, alembic, SQLAlchemy): none of them may be loaded by a worker.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from callboard import JobQueue

from .measure import Bench, Finding, at_most
from .provider import CHUNKS, provider
from .worker import ROOT, Worker, config, wait_until_ended

PACE = 0.01


def run(bench: Bench) -> Iterator[Finding]:
    yield from _memory(bench)
    yield from _start(bench)


def _memory(bench: Bench) -> Iterator[Finding]:
    with provider() as url:
        path = bench.fresh("solo")
        with Worker(config(path, runners=1, url=url)) as worker, JobQueue(path) as queue:
            time.sleep(1.0)  # a second of idling: the first looks, the first sweep
            yield at_most("solo, idle", worker.memory_mb(), "MB", 48)
            yield at_most("solo, idle (stretch)", worker.memory_mb(), "MB", 32)
            jobs = bench.size(1000, 200)
            queue.add_many([{"type": "chat", "data": {"prompt": "Say it."}}] * jobs)
            wait_until_ended(path, worker)
            yield at_most(f"solo, peak through {jobs:,} calls", worker.memory_mb("VmHWM"), "MB", 50)
    with provider(pace=PACE) as url:
        for width, limit in ((10, 50), (100, 55)):
            path = bench.fresh("pool")
            with Worker(config(path, runners=width, url=url)) as worker, JobQueue(path) as queue:
                queue.add_many([{"type": "chat", "data": {"prompt": "Say it."}}] * (width * 5))
                wait_until_ended(path, worker)
                peak = worker.memory_mb("VmHWM")
            yield at_most(f"pool, peak with {width} streams of {CHUNKS} chunks", peak, "MB", limit)


def _start(bench: Bench) -> Iterator[Finding]:
    bare, package, ready = [], [], []
    for _ in range(bench.rounds * 2):
        bare.append(_python("pass"))
        package.append(_python("from callboard import JobQueue"))
        with Worker(config(bench.fresh("start"), runners=1)) as worker:
            ready.append(worker.ready_after)
    floor = median(bare) * 1000
    extra = [after - before for before, after in zip(bare, package, strict=True)]
    yield at_most("python -c pass", floor, "ms", None)
    yield at_most("import of the host's side, beyond Python's own start", median(extra) * 1000, "ms", 60)
    yield at_most("worker: start of the process to ready", median(ready) * 1000, "ms", 450)


def _python(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return time.perf_counter() - start
