"""An idle worker: silent, nearly free, and awake the moment a stranger writes a row."""

import os
import random
from typing import Any

import pytest

STRANGER = """
import sqlite3, sys
board = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for prompt in sys.stdin:
    board.execute("BEGIN IMMEDIATE")
    job = board.execute("INSERT INTO llm_jobs (type) VALUES ('chat')").lastrowid
    board.execute("INSERT INTO llm_job_data (job_id, data) VALUES (?, json_object('prompt', ?))", (job, prompt.strip()))
    board.execute("COMMIT")
    print(job, flush=True)
"""
"""A program of a host that has no Callboard: plain SQL, by whatever SQLite it has."""

PICK_UP = """
    SELECT log.at - job.created_at FROM llm_jobs AS job JOIN llm_job_transitions AS log ON log.job_id = job.id AND log.to_state = 'active'
"""


def idle_for(world: Any, worker: Any, seconds: float) -> float:
    """Let it idle, during which it must say nothing; the part of a core that it used."""
    lines, ticks = len(worker.log), worker.cpu_ticks()
    with pytest.raises(AssertionError, match="not within"):
        world.until(lambda: len(worker.log) > lines, "a log line", seconds)
    return (worker.cpu_ticks() - ticks) / os.sysconf("SC_CLK_TCK") / seconds


def test_an_idle_worker_is_silent_and_takes_a_row_that_plain_sql_has_written(world: Any) -> None:
    simulator = world.simulate()
    worker = world.start(world.config(simulator))
    worker.wait_ready()
    used = idle_for(world, worker, 1.0)
    assert used <= 0.05, f"{used:.1%} of a core"
    (line,) = world.run(STRANGER, world.path, given="A row by a stranger. It says little.\n").read()
    world.until(lambda: world.completed() == 1, "the stranger's job is completed")
    assert world.rows(PICK_UP)[0][0] < 5000
    assert world.queue.get(int(line)).result["text"]
    assert worker.stop() == 0
    world.assert_sound()


@pytest.mark.soak
def test_idle_for_a_minute_then_two_hundred_rows_at_random_times(world: Any) -> None:
    chance = random.Random(12)
    simulator = world.simulate()
    worker = world.start(world.config(simulator))
    worker.wait_ready()
    used = idle_for(world, worker, 60.0)
    code = STRANGER.replace(
        "for prompt in sys.stdin:",
        "import time\nfor prompt in sys.stdin:\n    pause, prompt = prompt.split('|')\n    time.sleep(float(pause))",
    )
    given = "".join(f"{chance.uniform(0, 0.2):.3f}|Row {n}. It says little.\n" for n in range(200))
    assert len(world.run(code, world.path, given=given).read()) == 200
    world.wait_all_ended()
    waits = sorted(wait for (wait,) in world.rows(PICK_UP))
    p95 = waits[int(len(waits) * 0.95)]
    print(f"idle: {used:.2%} of a core; pick-up: median {waits[len(waits) // 2]} ms, p95 {p95} ms, max {waits[-1]} ms")
    assert used < 0.02
    assert p95 <= 200
    assert worker.stop() == 0
