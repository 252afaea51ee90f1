"""A solo worker's memory: at most 50 MB, by the kernel's own mark, and nothing loaded that it does not need."""

from pathlib import Path
from typing import Any

import pytest

from callboard.actors.settings import LimitSettings

LIMIT_MB = 50
NEVER_LOADED = (
    "sqlalchemy",
    "alembic",
    "mako",
    "rich",
    "pygments",
    "multiprocessing",
    "unittest",
    "pydantic",
    "jsonschema",
)


def peak_mb(worker: Any) -> float:
    """The most it has ever had resident."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_a_worker_imports_no_library_that_it_does_not_need(world: Any) -> None:
    simulator = world.simulate()
    worker = world.start(world.config(simulator, profile="solo"), interpreter=("-X", "importtime"))
    world.add_chats(1)
    world.wait_all_ended()
    assert worker.stop() == 0
    imported = {line.rpartition("|")[2].strip() for line in worker.log if line.startswith("import time:")}
    assert {"pykka", "httpx", "callboard.actors.store"} <= imported, "the list is not whole"
    assert imported & {"sqlite3", "pysqlite3"}
    assert {name for name in imported if name.partition(".")[0] in NEVER_LOADED} == set()


def test_what_a_worker_starts_with_is_left_out_of_its_collections(world: Any, tmp_path: Path) -> None:
    """A collection that goes through all modules and libraries holds up every call that is under way."""
    (tmp_path / "counting.py").write_text("import gc\n\ndef frozen(context):\n    return gc.get_freeze_count()\n")
    config = world.config(world.simulate(), profile="solo", handlers={"frozen": "counting:frozen"})
    world.start(config, env={"PYTHONPATH": str(tmp_path)})
    assert world.queue.add("frozen", {}).wait(30).result > 20_000


def test_a_job_leaves_nothing_for_the_collector(world: Any, tmp_path: Path) -> None:
    """What knows itself is freed only when Python looks for it, and until then an answer of a megabyte stays."""
    (tmp_path / "counting.py").write_text(
        "import gc\n\n"
        "def hold(context):\n    gc.collect()\n    gc.disable()\n\n"
        "def found(context):\n"
        "    gc.set_debug(gc.DEBUG_SAVEALL)\n    gc.collect()\n    gc.set_debug(0)\n    gc.enable()\n"
        "    return sorted({type(one).__name__ for one in gc.garbage if type(one).__module__.startswith('callboard')})\n"
    )
    config = world.config(
        world.simulate(), profile="solo", handlers={"hold": "counting:hold", "found": "counting:found"}
    )
    world.start(config, env={"PYTHONPATH": str(tmp_path)})
    world.add_chats(1)  # the first loads what the others find there
    world.wait_all_ended()
    world.queue.add("hold", {}).wait(30)
    world.add_chats(20)
    world.wait_all_ended()
    assert world.queue.add("found", {}).wait(30).result == []


def test_a_solo_worker_stays_within_its_memory(world: Any) -> None:
    simulator = world.simulate()
    worker = world.start(world.config(simulator, profile="solo"))
    worker.wait_ready()
    world.add_chats(150)
    world.wait_all_ended()
    assert world.completed() == 150
    assert peak_mb(worker) <= LIMIT_MB
    assert worker.stop() == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_solo_worker_stays_within_its_memory_for_a_thousand_jobs_with_streams_retries_and_a_limit(world: Any) -> None:
    # One failure for each of these, and others between them: many in a row would open the breaker, which is not what this is about.
    faults = [
        {"match": {"contains": f"item {n:05d}. It"}, "times": 1, "fault": fault}
        for last, fault in ((3, {"kind": "status", "status": 500}), (7, {"kind": "cut", "n": 3}))
        for n in range(last, 1200, 10)
    ]
    simulator = world.simulate(tokens_per_second=2000.0, faults=faults)
    limits = LimitSettings(concurrency=8)
    worker = world.start(world.config(simulator, profile="solo", model={"limits": limits}))
    worker.wait_ready()
    world.add_chats(1200, max_attempts=1000)
    world.until(lambda: world.completed() >= 300, "a quarter is done", 300)
    settled = peak_mb(worker)
    world.wait_all_ended(500)
    assert world.completed() == 1200
    assert peak_mb(worker) <= LIMIT_MB
    assert peak_mb(worker) - settled <= 2, "it grows with the number of jobs done"
    assert worker.stop() == 0
    world.assert_sound()
