"""The store alone: adding, claiming and completing, beside bare `sqlite3`; and whether a claim's cost depends on what else is there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from callboard import JobQueue
from callboard.persistence import claims, job_store
from callboard.persistence.claims import FOREVER
from callboard.persistence.engine import Connection, open_database

from .floor import Floor
from .measure import Bench, Finding, Sample, Verdict, beside_floor, in_turns, timed

LANE = {"default|noop|": 1000}
JOB = {"type": "noop", "data": {"n": 1}}


def run(bench: Bench) -> Iterator[Finding]:
    for synchronous in ("FULL", "NORMAL"):
        yield from _adding(bench, synchronous)
    for synchronous in ("FULL", "NORMAL"):
        yield from _draining(bench, synchronous)
    yield from _depth(bench)


def _adding(bench: Bench, synchronous: str) -> Iterator[Finding]:
    floor = Floor(bench.fresh("floor"), synchronous)
    single, bulk = bench.size(2000, 500), bench.size(10_000, 5000)
    with JobQueue(bench.fresh("add"), synchronous=synchronous) as queue:  # type: ignore[arg-type]  # one of the two words
        queue.add("noop")
        found = in_turns(
            bench.rounds,
            {
                "floor": lambda: timed(single, lambda: _times(single, floor.add)),
                "ours": lambda: timed(single, lambda: _times(single, lambda: queue.add("noop", {"n": 1}))),
                "bulk floor": lambda: timed(bulk, lambda: floor.add_many(bulk)),
                "bulk": lambda: timed(bulk, lambda: queue.add_many([JOB] * bulk)),
            },
        )
    floor.close()
    yield beside_floor(f"add, one at a time, {synchronous}", "jobs/s", found["ours"], found["floor"], 0.6)
    yield beside_floor(f"add, {bulk:,} at once, {synchronous}", "jobs/s", found["bulk"], found["bulk floor"], 0.55)


def _draining(bench: Bench, synchronous: str) -> Iterator[Finding]:
    path = bench.fresh("claims")
    floor = Floor(bench.fresh("floor"), synchronous)
    database = open_database(f"sqlite:///{path}", synchronous=synchronous)  # type: ignore[arg-type]  # as above
    with JobQueue(path) as queue, database.connect() as connection:

        def ours(batch: int, jobs: int) -> Sample:
            queue.add_many([JOB] * jobs)
            return timed(jobs, lambda: _drain(connection, batch))

        def bare(batch: int, jobs: int) -> Sample:
            floor.add_many(jobs)
            return timed(jobs, lambda: floor.drain(batch))

        one, many = bench.size(2000, 500), bench.size(20_000, 5000)
        found = in_turns(
            bench.rounds,
            {
                "one floor": lambda: bare(1, one),
                "one": lambda: ours(1, one),
                "many floor": lambda: bare(100, many),
                "many": lambda: ours(100, many),
            },
        )
    floor.close()
    yield beside_floor(f"claim and complete, one at a time, {synchronous}", "jobs/s", found["one"], found["one floor"])
    yield beside_floor(f"claim and complete, by 100, {synchronous}", "jobs/s", found["many"], found["many floor"])


def _drain(c: Connection, batch: int) -> None:
    while True:
        with c.write():
            jobs = claims.claim(c, owner="b", slots=batch, quotas=LANE, lease_until=FOREVER, now=1, actor="bench")
        if not jobs:
            return
        with c.write():
            for job in jobs:
                job_store.complete(c, job.lease, {"n": 1}, 2, "bench")


def _depth(bench: Bench) -> Iterator[Finding]:
    depths = [1000, 10_000, 100_000] if bench.quick else [1000, 10_000, 100_000, 1_000_000]
    cases = [(f"{waiting:,} waiting", waiting, 0) for waiting in depths]
    cases.append((f"{depths[-1]:,} waiting and as many finished", depths[-1], depths[-1]))
    boards = [(what, _filled(bench.fresh("depth"), waiting, finished)) for what, waiting, finished in cases]
    costs: dict[str, list[float]] = {what: [] for what, _ in boards}
    for _ in range(bench.rounds):
        for what, connection in boards:
            costs[what].append(_look_us(connection))
    first = median(costs[boards[0][0]])
    for what, connection in boards:
        connection.close()
        cost = median(costs[what])
        ratio = cost / first
        verdict = Verdict("≤ 1.5 of that at 1,000", ratio <= 1.5)
        yield Finding(
            what=f"look and claim one, {what}", ours=cost, unit="µs", floor=first, ratio=ratio, verdict=verdict
        )


def _look_us(c: Connection) -> float:
    """One look as the company's store makes it, which claims one job; CPU µs. Undone again, so that the depth stays."""
    now = time.time_ns() // 1_000_000
    spent = []
    for _ in range(50):
        c.script("BEGIN IMMEDIATE")
        start = time.process_time_ns()
        claims.promote_due(c, now, 500)
        claims.expire_unstarted(c, now, 500)
        claims.suspects_waiting(c, now=now, lanes=LANE)
        claimed = claims.claim(c, owner="b", slots=1, quotas=LANE, lease_until=FOREVER, now=now, actor="bench")
        claims.lanes(c)
        claims.next_due(c, now)
        spent.append(time.process_time_ns() - start)
        c.script("ROLLBACK")
        if len(claimed) != 1:
            raise RuntimeError(f"a look was to claim one job and claimed {len(claimed)}")
    return median(spent) / 1000


def _filled(path: Path, waiting: int, finished: int) -> Connection:
    """A board with so many rows. The finished ones are written with the triggers away: their log is not what a claim looks at."""
    database = open_database(f"sqlite:///{path}", synchronous="NORMAL")
    c = database.connect()
    triggers = c.script("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    with c.write():
        for name, _ in triggers:
            c.script(f"DROP TRIGGER {name}")
        for state, count in (("completed", finished), ("waiting", waiting)):
            c.script(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT max(1, {count})) "
                f"INSERT INTO llm_jobs (type, state) SELECT 'noop', '{state}' FROM n WHERE {count} > 0"
            )
        for _, sql in triggers:
            c.script(sql)
    found = dict(c.script("SELECT state, count(*) FROM llm_jobs GROUP BY state"))
    if (found.get("waiting", 0), found.get("completed", 0)) != (waiting, finished):
        raise RuntimeError(f"the board was to have {waiting} waiting and {finished} finished, and has {found}")
    return c


def _times(count: int, work: Callable[[], object]) -> None:
    for _ in range(count):
        work()
