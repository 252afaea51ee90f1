"""A limit of requests per minute, judged by the count of the provider that sets it: how full it is used, and whether ever exceeded."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from callboard import Config, JobQueue
from callboard.actors.kernel.ask import ask
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import DISPATCHER, ROOT, Drain
from callboard.actors.providers.engine import CallEngine
from callboard.actors.runner.handlers import HandlerRegistry
from callboard.actors.settings import LimitSettings
from callboard.actors.supervisor.tree import CompanyParts, start_company
from callboard.persistence import limits
from callboard.persistence.board import WorkerBoard
from callboard.persistence.engine import open_database
from callboard.persistence.limit_rules import Charge, Gate
from callboard.simulator import Simulator, SimulatorConfig

from .measure import Bench, Finding, Verdict
from .worker import PATIENCE, config


def run(bench: Bench) -> Iterator[Finding]:
    limit, window = (100, 10.0) if bench.quick else (600, 60.0)
    jobs = 2 * limit + 1  # the ideal: `limit` at once, as many a window later, and one more after another
    path = bench.fresh("limiter")
    with Simulator(SimulatorConfig(rpm=limit, window_seconds=window)) as simulator, JobQueue(path) as queue:
        settings = config(path, runners=50, url=simulator.url, limits=LimitSettings(requests_per_minute=limit))
        queue.add_many([{"type": "chat", "data": {"prompt": f"Item {n}. It is plain."}} for n in range(jobs)])
        with company(settings, window):
            simulator.wait_for(lambda journal: sum(e["outcome"] is not None for e in journal) >= jobs, PATIENCE)
        stats = simulator.stats()
        at = [entry["at"] for entry in simulator.journal()]
    used = 2 * window * 1000 / (at[-1] - at[0]) * 100
    what = f"{limit} requests per {window:g} s, two windows and one more"
    yield Finding(what=f"{what}: used", ours=used, unit="%", verdict=Verdict("≥ 97 %", used >= 97))
    most = stats["max_requests_in_window"]
    yield Finding(
        what="most requests in any window", ours=most, unit="requests", verdict=Verdict(f"≤ {limit}", most <= limit)
    )
    rejected = stats["rejected"]
    yield Finding(
        what="turned away by the provider", ours=rejected, unit="requests", verdict=Verdict("none", rejected == 0)
    )
    cost = gate_cost(bench)
    yield Finding(
        what="SQL of an intent's check and charge, at 20 ms between calls and all dimensions limited",
        ours=cost,
        unit="µs CPU",
        verdict=Verdict("≤ 60 µs", cost <= 60),
    )


def gate_cost(bench: Bench, calls: int = 5000) -> float:
    """What sharing a limit costs each call: CPU microseconds of its part of a transaction, the median of ten rounds."""
    path = bench.fresh("gate")
    JobQueue(path).close()
    database = open_database(f"sqlite:///{path}")
    most, now, took = 10**9, time.time_ns() // 1_000_000, []
    with database.connect() as connection, connection.write():
        for _ in range(10):
            began = time.process_time()
            for _ in range(calls // 10):
                now += 20
                gate = Gate("acme/m", "acme", now, Charge(1, 100, 50, 150), minute=(most, most, most, most))
                if (
                    limits.held(connection, gate.key, gate.account, now) or limits.check(connection, gate, now)
                ) is not None:
                    raise RuntimeError("a call was refused far below its limit")
                limits.charge(connection, "bench", gate, now)
            took.append((time.process_time() - began) / (calls // 10) * 1e6)
    database.close()
    return statistics.median(took)


@contextmanager
def company(settings: Config, window: float) -> Iterator[None]:
    """The company in this process, for which a minute is `window` seconds."""
    board = WorkerBoard.open(settings.database, owner="bench")
    system = ActorSystem()
    handlers = HandlerRegistry()
    parts = CompanyParts(
        settings=settings,
        board=board,
        handlers=handlers,
        make_engine=lambda name: CallEngine(settings.providers[name]),
        limit_window=window,
    )
    start_company(system, parts)
    try:
        if not system.wait_ready(ROOT, 30):
            raise RuntimeError("the company did not become ready")
        yield
        ask(system, DISPATCHER, lambda reply: Drain(10.0, reply), 20.0)
    finally:
        system.close(10.0)
        handlers.loop.close()
        board.close()
