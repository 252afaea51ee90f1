"""docs/sql-contract.md from Node: a host in JavaScript that knows nothing but the document (host.mjs)."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from callboard.persistence.job_queue import JobQueue

HOST = Path(__file__).with_name("host.mjs")
KEY = "it's 'mine'; DROP TABLE llm_jobs"


@pytest.fixture(scope="module")
def node():
    """Node with one of the two libraries."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no Node here: apt install nodejs")
    for library in ("import('node:sqlite')", "new (require('better-sqlite3'))(':memory:')"):
        look = subprocess.run(
            [found, "--input-type=commonjs", "-e", f"Promise.resolve({library}).catch(() => process.exit(1))"],
            cwd=HOST.parent,
            capture_output=True,
            check=False,
        )
        if look.returncode == 0:
            return found
    pytest.skip("Node is older than 22.5, and `make contract-node` has not installed better-sqlite3")


def test_a_host_in_javascript_needs_nothing_but_the_document(board, document, node):
    host = subprocess.Popen(
        [node, "--no-warnings", str(HOST), str(board.path), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        host.stdin.write(json.dumps(document))
        host.stdin.close()
        assert host.stdout.readline() == "added\n", host.stderr.read()
        board.work()
        told, complaint = host.stdout.read(), host.stderr.read()
        assert host.wait(60) == 0, complaint
    finally:
        host.kill()
        host.stdout.close()
        host.stderr.close()
    found = json.loads(told)
    assert (found["id"], found["state"]) == (1, "completed")
    assert found["text"] == found["result"]["text"] == "It's said."
    assert "illegal transition" in found["refused"]
    with JobQueue(board.path) as queue:
        events = [[e.cursor, e.job_id, e.to_state] for e in queue.events()]
        assert [1, 1, "waiting"] in found["seen"]
        assert found["seen"] == events[: len(found["seen"])]  # the other job may have ended after the host looked
        assert [row.state for row in queue.list()] == ["cancelled", "completed", "completed"]
        assert queue.row(1).key == KEY
        assert queue.check() == []
