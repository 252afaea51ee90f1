"""When the company cannot heal itself, its process ends with 70 and says why, so that whoever watches it starts a fresh one."""

import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from callboard.persistence.engine import driver

EXIT_GAVE_UP = 70
HANDLERS = """
import os, signal, threading
import callboard.actors.runner.actor

callboard.actors.runner.actor.HANDLER_GRACE = 0.2  # seconds, instead of ten: the test need not wait for them

def stuck(context):
    while True:  # hears nothing, least of all that its job has left
        threading.Event().wait(60)

def suicide(context):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def handlers(tmp_path: Path) -> dict[str, str]:
    """An environment in which the module `scenario_handlers` can be imported."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "scenario_handlers.py").write_text(HANDLERS)
    return {"PYTHONPATH": str(folder)}


def test_handlers_that_never_end_are_left_behind_until_there_are_too_many(world: Any, handlers: dict[str, str]) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 1},))
    world.add_chats(1)
    for _ in range(2):
        world.queue.add("stuck", {}, max_attempts=1, options={"job_timeout": 0.2})
    config = world.config(simulator, handlers={"stuck": "scenario_handlers:stuck"}, max_abandoned=1)
    worker = world.start(config, env=handlers)
    assert worker.wait(60) == EXIT_GAVE_UP
    assert worker.log[-1].startswith("callboard: gave up: "), worker.log
    assert "2 handlers did not end when they were interrupted (max_abandoned is 1)" in worker.log[-1]
    heir = world.start(config, env=handlers, options=["--once"])
    assert heir.wait() == 0, heir.log
    assert world.rows("SELECT type, state, failures FROM llm_jobs") == [
        ("chat", "completed", 0),
        *[("stuck", "failed", 1)] * 2,
    ]
    world.assert_sound()
    world.assert_paid_once(simulator)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_without_its_tables_it_gives_up_and_with_them_the_next_takes_over_at_once(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 1},))
    (job_id,) = world.add_chats(1)
    worker = world.start(world.config(simulator))
    world.until(lambda: world.queue.chunks(job_id), "a call is in flight")
    backup = world.directory / "backup.db"
    with closing(driver.connect(str(world.path), isolation_level=None)) as stranger:
        stranger.execute(f"VACUUM INTO '{backup}'")
        stranger.execute("DROP TABLE llm_limit_holds")
        stranger.execute("ALTER TABLE llm_jobs RENAME TO llm_jobs_of_old")
    assert worker.wait(240) == EXIT_GAVE_UP
    assert worker.log[-1].startswith("callboard: gave up: "), worker.log
    assert str(world.path) in worker.log[-1]
    assert "no such table" in worker.log[-1]
    world.queue.close()
    for path in world.directory.glob("board.db-*"):
        path.unlink()
    backup.replace(world.path)
    before = world.now_ms()
    heir = world.start(world.config(simulator))
    world.until(lambda: world.completed() == 1, "the job is completed")
    assert world.rows("SELECT losses, failures FROM llm_jobs") == [(1, 0)]
    assert world.rows("SELECT min(at) FROM llm_job_transitions WHERE to_state = 'waiting' AND at > ?", before)[0][0] < (
        heir.wait_ready() + 1000
    )
    assert heir.stop() == 0
    world.assert_sound()


def test_a_handler_that_cannot_be_loaded_is_named(world: Any, handlers: dict[str, str]) -> None:
    config = world.config(world.simulate(), handlers={"absent": "scenario_handlers:absent"})
    worker = world.start(config, env=handlers)
    assert worker.wait() == 78
    assert worker.log == ["callboard: error: handlers.absent: 'scenario_handlers' has no 'absent'"]


def test_a_job_that_kills_its_worker_is_convicted_and_takes_no_other_with_it(
    world: Any, handlers: dict[str, str]
) -> None:
    simulator = world.simulate()
    others = world.add_chats(6)
    poison = world.queue.add("suicide", {}, priority=1)
    config = world.config(simulator, handlers={"suicide": "scenario_handlers:suicide"}, runners=4)
    for _ in range(3):
        worker = world.start(config, env=handlers)
        assert worker.wait() == -signal.SIGKILL
    worker = world.start(config, options=["--once"], env=handlers)
    assert worker.wait() == 0, worker.log
    row = poison.row()
    assert (row.state, row.losses, row.failures) == ("failed", 3, 0)
    assert poison.error["class"] == "poison"
    assert {world.queue.get(job_id).state for job_id in others} == {"completed"}
    world.assert_sound()
    world.assert_paid_once(simulator)
