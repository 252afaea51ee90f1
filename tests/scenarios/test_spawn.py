"""`spawn`: a host launches its worker as a child process; the child ends with its host, unless it was detached."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from callboard import spawn

HOST = """
import os, sys
from callboard import spawn
from callboard.config import config_from_json
worker = spawn(config_from_json(sys.stdin.readline()), detach=sys.argv[1] == "detach")
print(worker.pid, flush=True)
order = sys.stdin.readline().strip()
if order == "crash":
    os._exit(3)
worker.stop()
"""


class Host:
    """A host application in a process of its own, which spawns a worker and then waits for an order on stdin."""

    def __init__(self, config: Any, mode: str = "attached") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(config.to_json().encode() + b"\n")
        self.process.stdin.flush()
        self.worker = int(self.process.stdout.readline())

    def order(self, text: str) -> None:
        self.process.communicate(text.encode() + b"\n", timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_spawned_worker_is_a_child_process_in_a_session_of_its_own(world: Any) -> None:
    simulator = world.simulate()
    world.add_chats(3)
    with spawn(world.config(simulator, log_level="error")) as worker:
        assert worker.pid != os.getpid()
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert f"PPid:\t{os.getpid()}\n" in status
        assert os.getsid(worker.pid) == worker.pid
        assert worker.returncode is None
        assert world.config(simulator).providers["sim"].base_url not in Path(f"/proc/{worker.pid}/cmdline").read_text()
        world.until(lambda: world.completed() == 3, "the jobs are completed")
    assert worker.returncode == 0
    with spawn(world.config(simulator, log_level="error"), once=True) as worker:
        assert worker.wait(30) == 0


@pytest.mark.parametrize("end", ["SIGKILL", pytest.param("os._exit", marks=pytest.mark.soak)])
def test_when_the_host_dies_its_worker_ends_and_another_finishes_its_jobs(world: Any, end: str) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 2},))
    world.add_chats(2)
    host = Host(world.config(simulator))
    try:
        world.until(lambda: len(world.rows("SELECT DISTINCT job_id FROM llm_job_chunks")) == 2, "both calls have begun")
        if end == "SIGKILL":
            host.kill()
        else:
            host.order("crash")
        died = time.monotonic()
        world.until(lambda: not is_alive(host.worker), "the worker has ended")
        took = time.monotonic() - died
        assert took < 2.0
    finally:
        host.kill()
    assert world.rows("SELECT state, failures, losses FROM llm_jobs") == [("waiting", 0, 0)] * 2
    assert list(world.directory.glob("*.lock")) == []
    heir = world.start(world.config(simulator), options=["--once"])
    assert heir.wait() == 0, heir.log
    assert world.completed() == 2
    world.assert_sound()
    world.assert_paid_once(simulator)


def test_a_detached_worker_outlives_its_host(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "barrier", "n": 2}},))
    world.add_chats(1)
    host = Host(world.config(simulator), "detach")
    try:
        simulator.wait_for(lambda journal: len(journal) == 1, 30.0)
        host.kill()
        simulator.clear_faults()  # the call goes on only after the host's death
        world.until(lambda: world.completed() == 1, "the job is completed without a host")
        assert is_alive(host.worker)
    finally:
        host.kill()
        if is_alive(host.worker):
            os.kill(host.worker, signal.SIGTERM)
    world.until(lambda: not is_alive(host.worker), "the worker has stopped in order")
    assert list(world.directory.glob("*.lock")) == []


def test_a_worker_killed_under_its_host_leaves_the_host_alive_and_its_jobs_to_the_next(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 1},))
    world.add_chats(1)
    with spawn(world.config(simulator, log_level="error")) as worker:
        simulator.wait_for(lambda journal: len(journal) == 1, 30.0)
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait(10) == -signal.SIGKILL
    with spawn(world.config(simulator, log_level="error")):
        world.until(lambda: world.completed() == 1, "the job is completed")
    assert world.rows("SELECT losses, failures FROM llm_jobs") == [(1, 0)]
    world.assert_paid_once(simulator)
