"""A large board: a million finished and a hundred thousand waiting jobs. What a claim, a count, a list and a search take on it, and what a host's
`add` takes while a worker works it off flat out.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median

from callboard import JobQueue
from callboard.persistence import claims
from callboard.persistence.engine import Connection, open_database

from .measure import Bench, Finding, at_most, percentile
from .worker import Worker, config

# What each search may take, in milliseconds: an index leads to the first ones, the last read every job.
SEARCHES = {
    "state:failed": 20,
    "state:failed type:rare": 100,
    "state:waiting": 20,
    "tag:run-7": 20,
    "tag:run-7 state:failed": 20,
    "key:k-5": 5,
    "type:noop data.customer:42": 200,
    "created:<1h": 20,
    "type:rare": 1000,
    "data.customer:-1": 5000,
    "no such words": 5000,
}


def run(bench: Bench) -> Iterator[Finding]:
    finished, waiting = bench.size(1_000_000, 20_000), bench.size(100_000, 2_000)
    small, large = bench.fresh("small"), bench.fresh("large")
    _fill(small, finished // 1000, waiting // 100)
    yield Finding(what=f"filling it: {finished + waiting:,} jobs", ours=_fill(large, finished, waiting), unit="s")
    base, full = _claim_ms(small), _claim_ms(large)
    yield at_most(f"claim of 10, {waiting:,} waiting, beside {waiting // 100:,}", full, "ms", 1.5 * base, floor=base)
    with JobQueue(large) as queue:
        yield at_most("counts()", _ms(queue.counts), "ms", 5)
        yield at_most("list(limit=50)", _ms(lambda: queue.list(limit=50)), "ms", 5)
        yield at_most("list(limit=50), an old page", _ms(lambda: queue.list(limit=50, before=finished // 2)), "ms", 5)
        for query, limit in SEARCHES.items():
            found = queue.search(query, limit=50)
            what = f"search `{query}`, {len(found)} found{', reads the jobs' if found.scanned else ''}"
            yield at_most(what, _ms(lambda query=query: queue.search(query, limit=50), times=5), "ms", limit)
        yield at_most("count('state:failed')", _ms(lambda: queue.count("state:failed"), times=3), "ms", 100)
        yield from _bulk(queue)
    yield from _add_beside_a_worker(large, bench.size(15, 3))


def _fill(path: Path, finished: int, waiting: int) -> float:
    """Seconds taken. The log is left out: nothing that is measured here reads it."""
    began = time.perf_counter()
    database = open_database(f"sqlite:///{path}", synchronous="NORMAL")
    with database.connect() as c:
        c.pragma("synchronous", "OFF")
        triggers = c.script("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'llm_jobs'")
        now = time.time_ns() // 1_000_000
        with c.write():
            for name, _ in triggers:
                c.script(f"DROP TRIGGER {name}")
            c.script(f"""
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {finished + waiting})
                INSERT INTO llm_jobs (type, state, tag, "key", created_at, started_at, finished_at, reason)
                SELECT CASE WHEN i % 50000 = 7 THEN 'rare' ELSE 'noop' END,
                    CASE WHEN i > {finished} THEN 'waiting' WHEN i % 1000 = 7 THEN 'failed' ELSE 'completed' END,
                    CASE WHEN i % 10 = 0 THEN 'run-' || (i / 10 % 1000) END, CASE WHEN i % 100 = 5 THEN 'k-' || i END,
                    {now} - ({finished + waiting} - i) * 100, CASE WHEN i <= {finished} THEN {now} END,
                    CASE WHEN i <= {finished} THEN {now} END, CASE WHEN i % 1000 = 7 AND i <= {finished} THEN 'it broke' END
                FROM n
            """)
            c.script("""
                INSERT INTO llm_job_data (job_id, description, data)
                SELECT id, 'a job', json_object('customer', id % 1000, 'name', 'customer ' || id) FROM llm_jobs
            """)
            c.script("""INSERT INTO llm_job_counts (queue, type, state, jobs)
                SELECT queue, type, state, count(*) FROM llm_jobs GROUP BY queue, type, state""")
            for _, sql in triggers:
                c.script(sql)
        c.script("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return time.perf_counter() - began


def _ms(call: Callable[[], object], times: int = 20) -> float:
    """Median milliseconds, after one that warms the cache."""
    call()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return median(took)


class _Undo(Exception):  # noqa: N818  # it is no error
    """Ends a transaction without a trace."""


def _claim_ms(path: Path) -> float:
    database = open_database(f"sqlite:///{path}", create=False)
    with database.connect() as c:
        result = _ms(lambda: _claim(c), times=200)
    database.close()
    return result


def _claim(c: Connection) -> None:
    with suppress(_Undo), c.write():
        quotas = {lane.lane: 10 for lane in claims.lanes(c)}
        claims.claim(c, owner="bench", slots=10, quotas=quotas, lease_until=2**50, now=2**50, actor="bench")
        raise _Undo


def _bulk(queue: JobQueue) -> Iterator[Finding]:
    for verb, query in (
        ("retry_where", "state:failed type:noop"),
        ("cancel_where", "state:waiting reason:host"),
        ("delete_where", "state:cancelled"),
    ):
        steps = [time.perf_counter()]
        moved = getattr(queue, verb)(query, progress=lambda *_, steps=steps: steps.append(time.perf_counter()))
        longest = max(after - before for before, after in itertools.pairwise(steps))
        yield Finding(what=f"{verb}, {moved:,} jobs", ours=moved / (steps[-1] - steps[0]), unit="jobs/s")
        yield at_most(f"{verb}, longest step", longest * 1000, "ms", 100)


def _add_beside_a_worker(path: Path, seconds: int, rate: int = 100) -> Iterator[Finding]:
    took: list[float] = []
    over = threading.Event()  # never set: it paces
    with JobQueue(path) as queue, Worker(config(path, runners=100)):
        before = queue.counts()["completed"]
        while queue.counts()["completed"] == before:
            over.wait(0.01)
        begun, before = time.perf_counter(), queue.counts()["completed"]
        for number in range(seconds * rate):
            over.wait(max(0.0, begun + number / rate - time.perf_counter()))
            start = time.perf_counter()
            queue.add("noop", {"n": number})
            took.append((time.perf_counter() - start) * 1000)
        done = (queue.counts()["completed"] - before) / (time.perf_counter() - begun)
    yield at_most(f"add at {rate}/s beside a worker flat out, p50", percentile(took, 0.5), "ms", None)
    yield at_most(f"add at {rate}/s beside a worker flat out, p99", percentile(took, 0.99), "ms", 25)
    yield Finding(what="the worker meanwhile", ours=done, unit="jobs/s")
