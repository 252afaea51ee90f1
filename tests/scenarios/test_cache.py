"""One request for all who ask the same, in several processes; and the one that makes it dies."""

from typing import Any

CACHE = {"cache": 3600}


def ask(world: Any, count: int) -> list[int]:
    job = {"type": "chat", "data": {"prompt": world.prompt_of(0)}, "options": CACHE}
    return list(world.queue.add_many([job] * count))


def test_two_workers_pay_once_and_the_next_takes_over_from_one_that_was_killed(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 0}, "times": 1},))
    config = world.config(simulator, runners=1)
    first = world.start(config)
    (leader,) = ask(world, 1)
    world.until(lambda: len(simulator.journal()) == 1, "the call that will never be answered")
    second = world.start(world.config(simulator, runners=8))
    waiting = ask(world, 8)
    world.until(
        lambda: world.rows("SELECT count(*) FROM llm_jobs WHERE state = 'active'") == [(9,)], "all of them in hand"
    )
    assert len(simulator.journal()) == 1, "they wait for the other worker's call"
    first.kill()
    world.wait_all_ended()
    assert len(simulator.journal()) == 2
    assert {world.queue.get(job_id).state for job_id in [leader, *waiting]} == {"completed"}
    assert world.rows("SELECT state, origin, count(*) FROM llm_calls GROUP BY 1, 2 ORDER BY 1, 2") == [
        ("completed", None, 1),
        ("completed", "cache", 8),
        ("unknown", None, 1),
    ]
    assert second.stop() == 0
    world.assert_sound()
