"""No-op jobs through the whole company, in a worker process of its own, beside bare `sqlite3` doing the same moves in a loop."""

from collections.abc import Iterator

from callboard import JobQueue

from .floor import Floor
from .measure import Bench, Finding, Sample, Verdict, beside_floor, in_turns, timed
from .worker import Worker, config, span_seconds, wait_until_ended


def run(bench: Bench) -> Iterator[Finding]:
    for synchronous in ("FULL", "NORMAL"):
        solo, pool = bench.size(4000, 1500), bench.size(20_000, 5000)
        found = in_turns(
            bench.rounds,
            {
                "solo floor": lambda s=synchronous, n=solo: bare(bench, s, n, 1),
                "solo": lambda s=synchronous, n=solo: company(bench, s, n, 1),
                "pool floor": lambda s=synchronous, n=pool: bare(bench, s, n, 100),
                "pool": lambda s=synchronous, n=pool: company(bench, s, n, 100),
            },
        )
        for name, what, share, cpu in (
            ("solo", "one at a time (solo)", 0.6, 100),
            ("pool", "pool of 100, floor in batches of 100", 0.5, 40),
        ):
            yield beside_floor(f"{what}, {synchronous}", "jobs/s", found[name], found[f"{name} floor"], share)
            if synchronous == "NORMAL":
                cost = found[name].cpu_us
                yield Finding(
                    what=f"{what}: worker's CPU", ours=cost, unit="µs/job", verdict=Verdict(f"≤ {cpu} µs", cost <= cpu)
                )


def bare(bench: Bench, synchronous: str, jobs: int, batch: int) -> Sample:
    floor = Floor(bench.fresh("floor"), synchronous)
    floor.add_many(jobs)
    sample = timed(jobs, lambda: floor.drain(batch))
    floor.close()
    return sample


def company(bench: Bench, synchronous: str, jobs: int, runners: int) -> Sample:
    path = bench.fresh("drain")
    with JobQueue(path) as queue, Worker(config(path, runners=runners, synchronous=synchronous)) as worker:
        before = worker.cpu_seconds()
        queue.add_many([{"type": "noop", "data": {"n": 1}}] * jobs)
        wait_until_ended(path, worker)
        cpu = worker.cpu_seconds() - before
    return Sample(jobs, span_seconds(path), cpu)
