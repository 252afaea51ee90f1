"""The floor of the store: the same moves by bare `sqlite3`, with the same durability and an audit row for every change of state.

Four tables as ours (the hot row, the body, the result, the log), one partial index, one connection, no checks, no triggers, no leases: what
SQLite and Python's driver alone can do.
"""

from pathlib import Path
from typing import Any

from callboard.persistence.engine import driver

SCHEMA = """
CREATE TABLE jobs (id INTEGER PRIMARY KEY, type TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL, attempt INTEGER NOT NULL, updated_at INTEGER NOT NULL);
CREATE TABLE bodies (job_id INTEGER PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE results (job_id INTEGER PRIMARY KEY, result TEXT NOT NULL);
CREATE TABLE log (id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, from_state TEXT, to_state TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX waiting ON jobs (priority DESC, id) WHERE state = 'waiting';
"""
ADD = "INSERT INTO jobs (type, state, priority, attempt, updated_at) VALUES ('noop', 'waiting', 0, 0, ?)"
ADD_BODY = "INSERT INTO bodies VALUES (?, ?)"
LOG = "INSERT INTO log (job_id, from_state, to_state, at) VALUES (?, ?, ?, ?)"
CLAIM = """UPDATE jobs SET state = 'active', attempt = attempt + 1, updated_at = ? WHERE id IN
    (SELECT id FROM jobs WHERE state = 'waiting' ORDER BY priority DESC, id LIMIT ?) RETURNING id"""
BODIES = "SELECT job_id, data FROM bodies WHERE job_id BETWEEN ? AND ?"
COMPLETE = "UPDATE jobs SET state = 'completed', updated_at = ? WHERE id = ? AND state = 'active'"
RESULT = "INSERT INTO results VALUES (?, ?)"
DATA = '{"n":1}'


class Floor:
    """A bare queue in one file."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.connection: Any = driver.connect(str(path), isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(f"PRAGMA synchronous = {synchronous}")
        self.connection.executescript(SCHEMA)

    def add(self) -> None:
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        job = execute(ADD, (1,)).lastrowid
        execute(ADD_BODY, (job, DATA))
        execute(LOG, (job, None, "waiting", 1))
        execute("COMMIT")

    def add_many(self, count: int) -> None:
        c = self.connection
        c.execute("BEGIN IMMEDIATE")
        first = c.execute("SELECT coalesce(max(id), 0) + 1 FROM jobs").fetchone()[0]
        c.executemany(ADD, [(1,)] * count)
        c.executemany(ADD_BODY, [(job, DATA) for job in range(first, first + count)])
        c.executemany(LOG, [(job, None, "waiting", 1) for job in range(first, first + count)])
        c.execute("COMMIT")

    def drain(self, batch: int) -> int:
        """Claim and complete until nothing waits, a transaction for each batch claimed and one for it completed."""
        c = self.connection
        done = 0
        while True:
            c.execute("BEGIN IMMEDIATE")
            jobs = [job for (job,) in c.execute(CLAIM, (2, batch)).fetchall()]
            c.executemany(LOG, [(job, "waiting", "active", 2) for job in jobs])
            if jobs:
                c.execute(BODIES, (min(jobs), max(jobs))).fetchall()
            c.execute("COMMIT")
            if not jobs:
                return done
            c.execute("BEGIN IMMEDIATE")
            c.executemany(COMPLETE, [(3, job) for job in jobs])
            c.executemany(RESULT, [(job, DATA) for job in jobs])
            c.executemany(LOG, [(job, "active", "completed", 3) for job in jobs])
            c.execute("COMMIT")
            done += len(jobs)

    def close(self) -> None:
        self.connection.close()
