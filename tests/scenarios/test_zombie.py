"""A zombie: a worker that is stopped for longer than its lease, and then goes on as if nothing had happened."""

import signal
from typing import Any

import pytest


def test_a_worker_stopped_past_its_lease_writes_nothing_to_the_job_that_was_given_to_another(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=20)
    config = world.config(simulator, runners=1, lease_ttl=1.0)
    (job_id,) = world.add_chats(1)
    zombie = world.start(config)
    world.until(lambda: world.queue.chunks(job_id), "the first text is on the board")
    zombie.signal(signal.SIGSTOP)
    # What it was sent before it stopped, and the rest of the answer, wait in its socket: it will find a finished call.
    simulator.wait_for(lambda journal: journal[0]["outcome"] == "completed")

    heir = world.start(config)
    world.until(lambda: world.completed() == 1, "the job is finished by the other worker")
    assert world.rows("SELECT losses, failures FROM llm_jobs") == [(1, 0)]
    ledger = "SELECT state FROM llm_calls ORDER BY id"
    assert world.rows(ledger) == [("unknown",), ("completed",)]
    before = everything_of(world, job_id)

    zombie.signal(signal.SIGCONT)
    # It books what it spent (or that it does not know), lets go, and is a worker like any other again: it takes the next job.
    assert heir.stop() == 0
    world.add_chats(1)
    world.until(lambda: world.completed() == 2, "the revived worker takes the next job")
    assert world.rows("SELECT state FROM llm_calls WHERE job_id = ?", job_id)[0][0] in {"superseded", "unknown"}
    assert world.rows("SELECT count(*) FROM llm_calls WHERE job_id = ?", job_id) == [(2,)]
    assert zombie.stop() == 0
    assert everything_of(world, job_id) == before
    world.assert_sound()


def everything_of(world: Any, job_id: int) -> list[Any]:
    """All that is on the board of a job, but for its calls."""
    tables = {"llm_jobs": "id", **dict.fromkeys(("llm_job_transitions", "llm_job_chunks", "llm_job_results"), "job_id")}
    return [world.rows(f"SELECT * FROM {table} WHERE {column} = ?", job_id) for table, column in tables.items()]


@pytest.mark.soak
def test_a_zombie_with_a_whole_answer_does_not_finish_the_job_under_the_worker_that_has_it_now(world: Any) -> None:
    simulator = world.simulate(tokens_per_second=12, faults=({"fault": {"kind": "barrier", "n": 9}, "after": 1},))
    config = world.config(simulator, runners=1, lease_ttl=1.0)
    (job_id,) = world.add_chats(1)
    zombie = world.start(config)
    world.until(lambda: world.queue.chunks(job_id), "the first text is on the board")
    zombie.signal(signal.SIGSTOP)
    simulator.wait_for(lambda journal: journal[0]["outcome"] == "completed")
    heir = world.start(config)
    simulator.wait_for(lambda journal: len(journal) == 2, 30.0)  # the heir's call, which is held
    before = everything_of(world, job_id)[1:]
    zombie.signal(signal.SIGCONT)
    world.add_chats(1)
    simulator.wait_for(
        lambda journal: len(journal) == 3, 30.0
    )  # the zombie is done with its past: it has taken the next job
    assert everything_of(world, job_id)[1:] == before
    assert world.rows("SELECT state, attempt, losses FROM llm_jobs WHERE id = ?", job_id) == [("active", 2, 1)]
    simulator.clear_faults()
    world.wait_all_ended()
    assert world.completed() == 2
    assert [worker.stop() for worker in (heir, zombie)] == [0, 0]
    world.assert_sound()
