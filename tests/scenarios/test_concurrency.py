"""How many at once: many held open together, or strictly one after another."""

import itertools
import random
from typing import Any

import pytest


@pytest.mark.parametrize(("at_once", "runners"), [(10, None), (50, 50), (200, 200)])
def test_requests_are_open_at_the_same_time(world: Any, at_once: int, runners: int | None) -> None:
    """The provider answers nobody before that many requests are open: with one fewer at once, nothing would ever finish."""
    simulator = world.simulate(faults=({"fault": {"kind": "barrier", "n": at_once}},))
    world.add_chats(at_once)
    config = world.config(simulator) if runners is None else world.config(simulator, runners=runners)
    if runners is None:
        assert config.runners.max == 16  # the default pool
    worker = world.start(config)
    world.until(lambda: world.completed() == at_once, "all are completed", 60.0)
    assert simulator.stats()["in_flight_max"] == at_once
    assert worker.stop() == 0
    assert len(simulator.journal()) == at_once
    assert world.rows("SELECT max(attempt), sum(failures), sum(losses) FROM llm_jobs") == [(1, 0, 0)]


def test_a_solo_worker_does_one_job_after_the_other_the_most_urgent_first(world: Any) -> None:
    chance = random.Random(5)
    simulator = world.simulate()
    priorities = [chance.randint(-5, 5) for _ in range(100)]
    ids = world.queue.add_many(
        {"type": "chat", "data": {"prompt": world.prompt_of(n)}, "priority": priority}
        for n, priority in enumerate(priorities)
    )
    worker = world.start(world.config(simulator, profile="solo"), options=["--once"])
    assert worker.wait(60) == 0, worker.log
    assert simulator.stats()["in_flight_max"] == 1
    finished = [
        job_id
        for (job_id,) in world.rows("SELECT job_id FROM llm_job_transitions WHERE to_state = 'completed' ORDER BY id")
    ]
    assert finished == [job_id for _, job_id in sorted(zip([-p for p in priorities], ids, strict=True))]
    intervals = [(entry["at"], entry["ended_at"]) for entry in simulator.journal()]
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(intervals))
