"""A host that writes into the worker's own file, all the time: neither keeps the other out."""

import json
import time
from typing import Any

import pytest

RATE = 50

# The host's transactions are its own, on a table of its own, by plain SQL with an ordinary busy timeout.
HOST = """
import json, sys, time
from contextlib import closing
from callboard.persistence.engine import driver
path, seconds, rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
took, errors = [], []
with closing(driver.connect(path, timeout=5, isolation_level=None)) as db:
    db.execute("CREATE TABLE app_orders (id INTEGER PRIMARY KEY, note TEXT)")
    print("ready", flush=True)
    start = time.perf_counter()
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        began = time.perf_counter()
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO app_orders (note) VALUES (?)", (f"order {number}",))
            db.execute("UPDATE app_orders SET note = note || '.' WHERE id = (SELECT max(id) FROM app_orders)")
            db.execute("COMMIT")
        except driver.Error as error:
            errors.append(repr(error))
        took.append((time.perf_counter() - began) * 1000)
took.sort()
print(json.dumps({"errors": errors, "writes": len(took), "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1]}))
"""


def write_beside_a_worker(world: Any, seconds: float) -> dict[str, Any]:
    """Both at their rates for so long; what the host met, after all that must hold has been seen to hold."""
    simulator = world.simulate()
    worker = world.start(world.config(simulator))
    worker.wait_ready()
    host = world.run(HOST, world.path, seconds, RATE)
    assert host.read(1) == ["ready\n"]
    start = time.perf_counter()
    jobs = int(seconds * RATE)
    for number in range(jobs):
        time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        world.queue.add("chat", {"prompt": world.prompt_of(number)})
    met: dict[str, Any] = json.loads(host.read()[-1])
    world.wait_all_ended(60)
    assert met["errors"] == []
    assert met["writes"] == jobs
    assert world.completed() == jobs
    assert world.rows("SELECT count(*) FROM app_orders WHERE note LIKE '%.'") == [(jobs,)]
    assert worker.stop() == 0
    complaints = [
        line for line in worker.log if "locked" in line or "busy" in line.lower() or '"level": "error"' in line
    ]
    assert complaints == []
    assert world.rows("SELECT max(attempt), sum(failures), sum(losses) FROM llm_jobs") == [(1, 0, 0)]
    world.assert_sound()
    return met


def test_a_host_writes_into_the_same_file_while_a_worker_works(world: Any) -> None:
    write_beside_a_worker(world, 1.5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_host_writes_for_two_minutes_while_a_worker_runs_fifty_jobs_a_second(world: Any) -> None:
    met = write_beside_a_worker(world, 120)
    print(met)  # shown with -s: p50, p99 and max of the host's transactions in milliseconds
