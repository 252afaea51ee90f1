"""The worker needs nothing of its host: not its package, not its directory, and no socket but the provider's."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_the_worker_runs_where_nothing_of_the_host_is(world: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    simulator = world.simulate()
    world.add_chats(2)
    empty = tmp_path_factory.mktemp("elsewhere")
    worker = world.start(world.config(simulator), options=["--once"], cwd=empty, interpreter=["-I"])
    assert worker.wait() == 0, worker.log
    assert world.completed() == 2
    assert list(empty.iterdir()) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_solo_worker_connects_to_its_provider_and_to_nothing_else(world: Any, tmp_path: Path) -> None:
    simulator = world.simulate()
    world.add_chats(2)
    trace = tmp_path / "connects"
    wrapper = ["strace", "-f", "-qq", "-e", "trace=connect,bind,listen", "-o", str(trace)]
    worker = world.start(world.config(simulator, profile="solo"), options=["--once"], wrapper=wrapper)
    code = worker.wait(60)
    if code != 0 and any("ptrace" in line for line in worker.log):
        pytest.skip("strace may not trace here")
    assert code == 0, worker.log
    assert world.completed() == 2
    calls = [line for line in trace.read_text().splitlines() if re.search(r" (connect|bind|listen)\(", line)]
    port = simulator.url.rpartition(":")[2]
    assert calls, "the provider was called"
    assert [line for line in calls if f"htons({port})" not in line] == []
