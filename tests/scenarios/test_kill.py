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
    storm(world, kills=4, jobs=120, seed=20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_fifty_kills_under_load(world: Any) -> None:
    storm(world, kills=50, jobs=2000, seed=50)


def test_a_worker_that_lives_takes_over_from_one_that_was_killed(world: Any) -> None:
    """No restart is needed: the lock file beside the database tells the others, within a sweep."""
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 4},))
    world.add_chats(4)
    config = world.config(simulator)
    victim = world.start(config)
    simulator.wait_for(lambda journal: len(journal) == 4, 30.0)
    heir = world.start(config)
    heir.wait_ready()
    killed = victim.kill()
    world.until(lambda: world.completed() == 4, "the other has done them")
    (again,) = world.rows("SELECT min(at) FROM llm_job_transitions WHERE to_state = 'active' AND at >= ?", killed)[0]
    print(f"from the kill to the first job running elsewhere: {again - killed} ms")
    assert again - killed < 1000
    assert world.rows("SELECT sum(losses), sum(failures) FROM llm_jobs") == [(4, 0)]
    assert heir.stop() == 0
    assert list(world.directory.glob("*.lock")) == []
    assert world.rows("SELECT name FROM sqlite_master WHERE name LIKE '%worker%'") == []  # the pool lives in memory
    world.assert_sound()
    world.assert_paid_once(simulator)


STEPS = """
def three_steps(context):
    return [context.complete(f"Step {n}. It is a step of the job.").text for n in (1, 2, 3)]
"""


def test_a_step_that_was_paid_for_is_not_paid_for_again_wherever_its_job_is_killed(world: Any) -> None:
    (world.directory / "scenario_steps.py").write_text(STEPS)
    simulator = world.simulate(
        faults=tuple(
            {"match": {"contains": f"Step {n}"}, "fault": {"kind": "stall", "n": 1}, "times": 1} for n in (1, 2, 3)
        )
    )
    job = world.queue.add("three_steps", {})
    config = world.config(simulator, handlers={"three_steps": "scenario_steps:three_steps"})
    # Killed in each of its steps: the third kill finds it alone. Only what was being answered is asked again.
    for asked, convicted in ((1, False), (3, False), (5, True)):
        worker = world.start(config, env={"PYTHONPATH": str(world.directory)})
        simulator.wait_for(lambda journal, asked=asked: len(journal) == asked, 30.0)
        worker.kill()
        if convicted:
            world.start(config, env={"PYTHONPATH": str(world.directory)}, options=["--once"]).wait()
            assert job.error["class"] == "poison"
            assert job.retry()
    last = world.start(config, options=["--once"], env={"PYTHONPATH": str(world.directory)})
    assert last.wait() == 0, last.log
    assert len(job.result) == 3
    prompts = [entry["body"]["messages"][-1]["content"][:6] for entry in simulator.journal()]
    assert prompts == ["Step 1", "Step 1", "Step 2", "Step 2", "Step 3", "Step 3"]
    assert [call.state for call in job.calls()] == ["unknown", "completed"] * 3
    world.assert_sound()
