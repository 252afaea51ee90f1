"""A solo worker's memory: at most 50 MB, by the kernel's own mark, and nothing loaded that it does not need."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from callboard.actors.settings import LimitSettings

LIMIT_MB = 50
NEVER_LOADED = ("sqlalchemy", "alembic", "mako", "rich", "pygments", "multiprocessing", "email", "unittest", "pydantic")
EXTENSIONS = ("greenlet", "sqlalchemy", "markupsafe", "_multiprocessing")
"""Parts of libraries that show in a process's memory map when they are loaded, whoever loads them and when."""


def peak_mb(worker: Any) -> float:
    """The most it has ever had resident."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def loaded_extensions(worker: Any) -> set[str]:
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    return {name for name in EXTENSIONS if f"/{name}" in maps}


def test_a_worker_loads_no_library_that_it_does_not_need() -> None:
    code = f"""
import sys
from callboard.config import Config
from callboard.worker import run_worker
import callboard.cli.worker, callboard.actors.supervisor.tree, callboard.actors.providers.http_client
print(sorted(name for name in {NEVER_LOADED!r} if name in sys.modules))
"""
    code = code.replace("import callboard.cli", "from callboard.actors.providers.transport import import_httpx\nimport_httpx(own_process=True)\nimport callboard.cli")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_solo_worker_stays_within_its_memory(world: Any) -> None:
    simulator = world.simulate()
    worker = world.start(world.config(simulator, profile="solo"))
    worker.wait_ready()
    world.add_chats(150)
    world.wait_all_ended()
    assert world.completed() == 150
    assert loaded_extensions(worker) == set()
    assert peak_mb(worker) <= LIMIT_MB
    assert worker.stop() == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_solo_worker_stays_within_its_memory_for_a_thousand_jobs_with_streams_retries_and_a_limit(world: Any) -> None:
    faults = [
        {"fault": "status", "status": 500, "every": 10},
        {"fault": "cut", "every": 17},
    ]
    simulator = world.simulate(tokens_per_second=2000.0, faults=faults)
    limits = LimitSettings(concurrency=8)
    worker = world.start(world.config(simulator, profile="solo", model={"limits": limits}))
    worker.wait_ready()
    settled = 0.0
    world.add_chats(1200, max_attempts=20)
    world.until(lambda: world.completed() >= 300, "a quarter is done", 300)
    settled = peak_mb(worker)
    world.wait_all_ended(500)
    assert world.completed() == 1200
    assert loaded_extensions(worker) == set()
    assert peak_mb(worker) <= LIMIT_MB
    assert peak_mb(worker) - settled <= 2, "it grows with the number of jobs done"
    assert worker.stop() == 0
    world.assert_sound()
