"""A provider's limit, judged by the provider's own count of what it was asked."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from callboard.actors.kernel.ask import ask
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import DISPATCHER, ROOT, Drain
from callboard.actors.providers.engine import CallEngine
from callboard.actors.runner.handlers import HandlerRegistry
from callboard.actors.settings import LimitSettings
from callboard.actors.supervisor.tree import CompanyParts, start_company
from callboard.persistence.board import WorkerBoard


@contextmanager
def company(config: Any, window: float) -> Iterator[None]:
    """The company in this process, for which a minute is `window` seconds."""
    board = WorkerBoard.open(config.database, owner="limits")
    system = ActorSystem()
    handlers = HandlerRegistry()
    parts = CompanyParts(
        settings=config,
        board=board,
        handlers=handlers,
        make_engine=lambda name: CallEngine(config.providers[name]),
        limit_window=window,
    )
    start_company(system, parts)
    try:
        assert system.wait_ready(ROOT, 30)
        yield
        ask(system, DISPATCHER, lambda reply: Drain(10.0, reply), 20.0)
    finally:
        assert system.close(10.0)
        handlers.loop.close()
        board.close()


def utilisation(simulator: Any, limit: int, window: float) -> float:
    """What part of the limit was used, from the first request to the last: the ideal sends `limit` at once, and again each window."""
    at = [entry["at"] for entry in simulator.journal()]
    full_windows = (len(at) - 1) // limit
    return full_windows * window * 1000 / (at[-1] - at[0])


def test_a_limit_is_used_to_the_full_and_never_exceeded(world: Any) -> None:
    simulator = world.simulate(rpm=20, window_seconds=1.5)
    world.add_chats(61)
    config = world.config(simulator, model={"limits": LimitSettings(requests_per_minute=20)}, park_after=0.5)
    with company(config, 1.5):
        world.wait_all_ended()
    stats = simulator.stats()
    assert world.completed() == 61
    assert stats["rejected"] == 0
    assert stats["max_requests_in_window"] <= 20
    assert stats["requests"] == 61
    used = utilisation(simulator, 20, 1.5)
    deferrals = world.rows("SELECT sum(deferrals), max(attempt), sum(failures), sum(losses) FROM llm_jobs")
    print(f"utilisation {used:.1%}; deferrals, most attempts, failures, losses: {deferrals}")
    assert used > 0.9
    assert world.rows("SELECT sum(failures), sum(losses) FROM llm_jobs") == [(0, 0)]
    world.assert_sound()
    world.assert_paid_once(simulator)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_sixty_a_minute_through_a_kill(world: Any) -> None:
    chance = random.Random(60)
    simulator = world.simulate(rpm=60)
    world.add_chats(150)
    config = world.config(simulator, model={"limits": LimitSettings(requests_per_minute=60)})
    worker = world.start(config)
    moment = chance.randint(65, 110)
    begun = time.monotonic()
    simulator.wait_for(lambda journal: len(journal) >= moment, 180.0)
    worker.kill()
    heir = world.start(config)
    world.wait_all_ended(240)
    took = time.monotonic() - begun
    assert heir.stop() == 0
    stats = simulator.stats()
    used = utilisation(simulator, 60, 60.0)
    print(f"killed after {moment} of {stats['requests']} requests; {took:.0f} s in all; utilisation {used:.1%}")
    assert world.completed() == 150
    assert stats["rejected"] == 0
    assert stats["max_requests_in_window"] <= 60
    assert used >= 0.95
    world.assert_sound()
    world.assert_paid_once(simulator)
