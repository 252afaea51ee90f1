"""A large board: a million finished and a hundred thousand waiting jobs. What a claim, a count, a list and a search take on it, and what a host's
`add` takes while a worker works it off flat out.

By itself: `python -m benchmarks.board` (`--small` for a look). `run` gives the same as rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from callboard.actors.settings import RunnerSettings
from callboard.persistence import claims
from callboard.persistence.engine import Connection, open_database

from callboard import Config, JobQueue

ROOT = Path(__file__).parents[1]
FINISHED, WAITING = 1_000_000, 100_000
SMALL = 50  # how many times smaller a look is


class Row(NamedTuple):
    """One figure. `target`: the most it may be, None where it is only told."""

    name: str
    value: float
    unit: str
    target: float | None


def noop(_: Any) -> Generator[Any, Any, int]:
    """The job of the worker: nothing."""
    yield from ()
    return 1


def run(directory: Path, *, finished: int = FINISHED, waiting: int = WAITING) -> Iterator[Row]:
    """Fill a board in `directory` and measure; about three minutes at full size, most of them for the filling."""
    small, large = directory / "small.db", directory / "large.db"
    _fill(small, finished // 1000, waiting // 100)
    yield Row("filling it", _fill(large, finished, waiting), "s", None)
    with JobQueue(large) as queue:
        base, full = _claim_ms(small), _claim_ms(large)
        yield Row(f"claim of 10, {waiting // 100:,} waiting", base, "ms", None)
        yield Row(f"claim of 10, {waiting:,} waiting", full, "ms", None)
        yield Row("the second by the first", full / base, "times", 1.5)
        yield Row("counts()", _ms(queue.counts), "ms", 5)
        yield Row("list(limit=50)", _ms(lambda: queue.list(limit=50)), "ms", 5)
        yield Row("list(limit=50), an old page", _ms(lambda: queue.list(limit=50, before=finished // 2)), "ms", 5)
        for query, target in (
            ("state:failed", 20),
            ("state:failed type:rare", 100),
            ("state:waiting", 20),
            ("tag:run-7", 20),
            ("tag:run-7 state:failed", 20),
            ("key:k-5", 5),
            ("type:noop data.customer:42", 100),
            ("created:<1h", 20),
            ("type:rare", 1000),
            ("data.customer:-1", 5000),
            ("no such words", 5000),
        ):
            found = queue.search(query, limit=50)
            said = f"search '{query}', {len(found)} of 50{', reads jobs one by one' if found.scanned else ''}"
            yield Row(said, _ms(lambda query=query: queue.search(query, limit=50), times=5), "ms", target)
        yield Row("count('state:failed')", _ms(lambda: queue.count("state:failed"), times=3), "ms", 100)
        yield from _bulk(queue)
    yield from _add_beside_a_worker(large, seconds=15 if waiting >= WAITING else 3)


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


def _bulk(queue: JobQueue) -> Iterator[Row]:
    longest, last = 0.0, time.perf_counter()

    def step(_: int, __: int) -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now

    began = time.perf_counter()
    moved = queue.retry_where("state:failed type:noop", progress=step)
    yield Row(f"retry_where of {moved:,}", time.perf_counter() - began, "s", None)
    yield Row("its longest step", longest * 1000, "ms", 250)
    began = last = time.perf_counter()
    longest = 0.0
    moved = queue.cancel_where("state:waiting reason:host", progress=step)
    yield Row(f"cancel_where of {moved:,}", time.perf_counter() - began, "s", None)
    began = last = time.perf_counter()
    longest = 0.0
    moved = queue.delete_where("state:cancelled", progress=step)
    yield Row(f"delete_where of {moved:,}", time.perf_counter() - began, "s", None)
    yield Row("its longest step", longest * 1000, "ms", 250)


def _add_beside_a_worker(path: Path, seconds: float, rate: int = 100) -> Iterator[Row]:
    config = Config(
        database=f"sqlite:///{path}",
        providers={},
        models={},
        default_model=None,
        runners=RunnerSettings(max=50),
        handlers={"noop": "benchmarks.board:noop"},
        log_level="warning",
    )
    took: list[float] = []
    with JobQueue(path) as queue:
        done_before = queue.counts()["completed"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "callboard", "worker", "--config", "-"], cwd=ROOT, stdin=subprocess.PIPE, text=True
        )
        assert worker.stdin is not None
        with worker.stdin as stdin:
            stdin.write(config.to_json() + "\n")
        over = threading.Event()
        try:
            while queue.counts()["completed"] == done_before:
                over.wait(0.05)
            begun, done_before = time.perf_counter(), queue.counts()["completed"]
            for number in range(round(seconds * rate)):
                over.wait(max(0.0, begun + number / rate - time.perf_counter()))
                before = time.perf_counter()
                queue.add("noop", {"n": number})
                took.append((time.perf_counter() - before) * 1000)
            done = queue.counts()["completed"] - done_before
            span = time.perf_counter() - begun
        finally:
            worker.terminate()
            worker.wait(60)
    took.sort()
    yield Row("add beside a worker flat out, p50", took[len(took) // 2], "ms", None)
    yield Row("add beside a worker flat out, p99", took[len(took) * 99 // 100], "ms", 25)
    yield Row("the worker meanwhile", done / span, "jobs/s", None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board", description=__doc__)
    parser.add_argument(
        "--small", action="store_true", help=f"a board {SMALL} times smaller: a look, not a measurement"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array a line")
    options = parser.parse_args()
    scale = SMALL if options.small else 1
    with tempfile.TemporaryDirectory(prefix="callboard-bench-board-") as directory:
        for row in run(Path(directory), finished=FINISHED // scale, waiting=WAITING // scale):
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            verdict = (
                "" if row.target is None else f"  (≤ {row.target:g}: {'met' if row.value <= row.target else 'MISSED'})"
            )
            print(f"{row.name:<60} {row.value:>12,.2f} {row.unit}{verdict}", flush=True)


if __name__ == "__main__":
    main()
