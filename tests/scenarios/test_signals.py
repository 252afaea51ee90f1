"""Signals, and what systemd is told."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd listens to its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@BOTH
def test_a_signal_drains_running_calls_finish_and_nothing_new_begins(
    world: Any, systemd: socket.socket, number: signal.Signals
) -> None:
    simulator = world.simulate(tokens_per_second=40, faults=({"fault": {"kind": "barrier", "n": 3}},))
    world.add_chats(6)
    worker = world.start(world.config(simulator, runners=2), env={"NOTIFY_SOCKET": systemd.getsockname()})
    simulator.wait_for(lambda journal: len(journal) == 2, 30.0)
    worker.signal(number)
    while systemd.recv(100) != b"STOPPING=1":
        pass
    simulator.clear_faults()  # only now may the two calls go on
    assert worker.wait() == 0
    assert world.rows("SELECT state, count(*), sum(failures), sum(losses) FROM llm_jobs GROUP BY state") == [
        ("completed", 2, 0, 0),
        ("waiting", 4, 0, 0),
    ]
    assert [entry["outcome"] for entry in simulator.journal()] == ["completed", "completed"]
    assert list(world.directory.glob("*.lock")) == []
    world.assert_sound()


def test_at_the_deadline_unfinished_jobs_go_back_at_no_cost_and_the_next_worker_finishes_them(world: Any) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 3},))
    world.add_chats(3)
    worker = world.start(world.config(simulator, drain_timeout=0.3))
    simulator.wait_for(lambda journal: len(journal) == 3, 30.0)
    assert worker.stop() == 0
    assert world.rows("SELECT state, failures, losses, lease_owner FROM llm_jobs") == [("waiting", 0, 0, None)] * 3
    assert {entry["outcome"] for entry in simulator.journal()} == {"aborted_by_client"}
    heir = world.start(world.config(simulator), options=["--once"])
    assert heir.wait() == 0, heir.log
    assert world.rows("SELECT state, failures, losses FROM llm_jobs") == [("completed", 0, 0)] * 3
    world.assert_sound()
    world.assert_paid_once(simulator)


@BOTH
def test_a_second_signal_does_not_wait_for_the_running_calls(world: Any, number: signal.Signals) -> None:
    simulator = world.simulate(faults=({"fault": {"kind": "stall", "n": 1}, "times": 1},))
    world.add_chats(1)
    worker = world.start(world.config(simulator, drain_timeout=3600.0))
    world.until(lambda: world.queue.chunks(1), "the call is in flight")
    worker.signal(number)
    with pytest.raises(AssertionError):  # it waits for the call, which does not end
        world.until(lambda: worker.process.poll() is not None, "it has ended", 1.0)
    worker.signal(number)
    assert worker.wait(10) == 0
    assert world.rows("SELECT state, failures, losses FROM llm_jobs") == [("waiting", 0, 0)]
    world.assert_sound()


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(world: Any, systemd: socket.socket) -> None:
    worker = world.start(world.config(world.simulate()), env={"NOTIFY_SOCKET": systemd.getsockname()})
    assert systemd.recv(100) == b"READY=1"
    worker.wait_ready()
    worker.signal(signal.SIGTERM)
    assert systemd.recv(100) == b"STOPPING=1"
    assert worker.wait() == 0


MANY_SIGNALS = """
import os, subprocess, sys
from callboard.worker import _Ending
ending = _Ending()
ending.listen()
code = "import os, sys\\nfor line in sys.stdin: os.kill(int(sys.argv[1]), 15)"
sender = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], stdin=subprocess.PIPE)
for number in range(5000):
    seen = ending.signals
    sender.stdin.write(b"now\\n")
    sender.stdin.flush()
    for _ in range(number % 300):  # so that it comes just before the wait, at its beginning, or deep in it
        pass
    while ending.signals == seen:
        ending.wait(None)
sender.stdin.close()
sender.wait()
print("heard them all")
"""


def test_a_signal_is_never_slept_through(world: Any) -> None:
    assert world.run(MANY_SIGNALS).read() == ["heard them all"]
