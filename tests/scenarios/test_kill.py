"""`kill -9` of the supervisor process at random moments under load, restarted each time: nothing lost, nothing done twice, and soon again at work."""

import random
import statistics
from typing import Any

import pytest

MOMENTS = ("at once", "ready", "requests", "requests", "requests", "completions", "completions")
"""When a life ends: before it is ready, as soon as it is, or after so many requests or completions. Load is when most of it happens."""


def storm(world: Any, *, kills: int, jobs: int, seed: int) -> None:
    chance = random.Random(seed)
    simulator = world.simulate(latency=0.05)
    config = world.config(simulator, lease_ttl=30.0)
    world.add_chats(jobs)
    recoveries = []
    in_flight: set[int] = set()
    for _ in range(kills):
        worker = world.start(config)
        ready = live_until_moment(world, simulator, worker, chance)
        worker.kill()
        recoveries += recovery(world, in_flight, ready)
        in_flight = {job_id for (job_id,) in world.rows("SELECT id FROM llm_jobs WHERE state = 'active'")}
    last = world.start(config)
    ready = last.wait_ready()
    world.wait_all_ended(120)
    assert last.stop() == 0
    recoveries += recovery(world, in_flight, ready)

    convicted = world.rows("SELECT id, losses, reason FROM llm_jobs WHERE state <> 'completed'")
    for job_id, losses, reason in convicted:  # a job that died in company twice, and then once alone
        assert losses >= 3, (job_id, losses, reason)
        assert reason.startswith("poison: "), reason
    assert world.rows("SELECT count(*) FROM llm_jobs") == [(jobs,)]
    assert world.rows("SELECT count(*) FROM llm_jobs WHERE failures > 0 AND state = 'completed'") == [(0,)]
    losses = world.rows("SELECT sum(losses) FROM llm_jobs")[0][0]
    assert losses > kills / 2, "the kills hit nothing: this was no load"
    world.assert_sound()
    world.assert_paid_once(simulator)

    for (
        job_id,
        _,
        _,
    ) in convicted:  # innocent, as we know: sent back, it completes, and pays for no call that had completed
        world.queue.retry(job_id)
    again = world.start(config, options=["--once"])
    assert again.wait(120) == 0, again.log
    assert world.completed() == jobs
    world.assert_sound()
    world.assert_paid_once(simulator)
    requests = len(simulator.journal())
    print(
        f"{kills} kills, {jobs} jobs, {losses} losses, {len(convicted)} convicted, {requests} requests;"
        f" from ready to the first job running again: median {statistics.median(recoveries)} ms, max {max(recoveries)} ms"
    )
    assert max(recoveries) < 1000


def live_until_moment(world: Any, simulator: Any, worker: Any, chance: random.Random) -> int | None:
    """Wait for the moment of a life's end; when it was ready, if it was."""
    moment = chance.choice(MOMENTS)
    if moment == "at once":
        return None
    ready = worker.wait_ready()
    count = chance.randint(1, 40)
    if moment == "requests":
        seen = len(simulator.journal())
        simulator.wait_for(lambda journal: len(journal) >= seen + count, 30.0)
    elif moment == "completions":
        before = world.completed()
        world.until(lambda: world.completed() >= before + count, f"{count} more jobs completed")
    return ready


def recovery(world: Any, in_flight: set[int], ready: int | None) -> list[int]:
    """Milliseconds from a worker's readiness to the first job of the dead that runs again, if both happened."""
    if ready is None or not in_flight:
        return []
    claimed = world.rows(
        "SELECT job_id, at FROM llm_job_transitions WHERE to_state = 'active' AND at >= ?", ready - 1000
    )
    again = [at for job_id, at in claimed if job_id in in_flight]
    return [max(0, min(again) - ready)] if again else []


def test_every_job_ends_once_whenever_the_supervisor_is_killed(world: Any) -> None:
    storm(world, kills=8, jobs=250, seed=20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_fifty_kills_under_load(world: Any) -> None:
    storm(world, kills=50, jobs=2000, seed=50)
