"""How soon a worker sees a row that another process's plain `sqlite3` has committed, and what its watching costs while nothing comes."""

import json
import random
import time
from collections.abc import Iterator

from callboard import JobQueue

from .measure import Bench, Finding, Verdict, at_most, percentile
from .worker import Worker, config, reader, wait_until_ended


def run(bench: Bench) -> Iterator[Finding]:
    path = bench.fresh("pickup")
    chance = random.Random(7)
    jobs, idle = bench.size(200, 40), bench.size(10, 3)
    with JobQueue(path) as queue, Worker(config(path, runners=1)) as worker:
        job = queue.add("moment")
        job.wait(timeout=30)
        sent = {}
        with reader(path) as stranger:
            for _ in range(jobs):
                time.sleep(chance.uniform(0.02, 0.2))
                at = time.time_ns()
                number = stranger.execute("INSERT INTO llm_jobs (type) VALUES ('moment')").lastrowid
                sent[number] = at
            wait_until_ended(path, worker)
            results = stranger.execute("SELECT job_id, result FROM llm_job_results").fetchall()
        waits = [(json.loads(found)["at"] - sent[number]) / 1e6 for number, found in results if number in sent]
        time.sleep(1.0)  # what follows a burst is no idling
        before, start = worker.cpu_of_threads(), time.perf_counter()
        time.sleep(idle)
        share = (worker.cpu_of_threads() - before) / (time.perf_counter() - start) * 100
    for name, part, limit in (("p50", 0.5, None), ("p95", 0.95, 150), ("p99", 0.99, None)):
        yield at_most(f"row committed elsewhere → handler runs, {name}", percentile(waits, part), "ms", limit)
    yield Finding(
        what=f"idle worker over {idle} s", ours=share, unit="% of a core", verdict=Verdict("≤ 0.1 %", share <= 0.1)
    )
