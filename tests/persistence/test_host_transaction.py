"""Jobs that are part of the host's own transaction, through SQLAlchemy and through the driver."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from callboard.persistence import errors
from callboard.persistence.engine import driver
from callboard.persistence.new_job import NewJob


@pytest.fixture
def engine(path, board):
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, module=driver)
    with engine.begin() as c:
        c.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, job INTEGER)"))
    yield engine
    engine.dispose()


@pytest.fixture
def raw(path, board):
    connection = driver.connect(path)
    yield connection
    connection.close()


def orders(board):
    return board.sql("SELECT id, job FROM orders")


def test_a_job_is_there_when_the_hosts_transaction_commits(board, engine):
    with engine.begin() as c:
        c.execute(text("INSERT INTO orders (id) VALUES (1)"))
        job = board.queue.add("chat", {"order": 1}, key="order-1", connection=c)
        c.execute(text("UPDATE orders SET job = :job"), {"job": job.id})
        with pytest.raises(errors.JobNotFoundError):
            job.row()
    assert orders(board) == [(1, job.id)]
    assert job.data == {"order": 1}
    (claimed,) = board.claim()
    assert claimed.id == job.id
    assert board.queue.check() == []


def test_a_job_never_was_if_the_host_rolls_back(board, engine):
    with engine.connect() as c:
        board.queue.add("chat", key="k", connection=c)
        board.queue.add_many([{"type": "chat"}] * 3, connection=c)
        c.rollback()
    with engine.connect() as c:
        c.exec_driver_sql("INSERT INTO orders (id) VALUES (1)")
        board.queue.add("chat", unique="u", connection=c)  # closed without a commit
    assert sum(board.queue.counts().values()) == 0
    for table in ("llm_job_data", "llm_job_transitions", "llm_job_counts WHERE jobs > 0"):
        assert board.sql(f"SELECT count(*) FROM {table}") == [(0,)]


def test_the_first_thing_a_host_does_may_be_to_add(board, engine):
    with engine.connect() as c:
        job = board.queue.add("chat", connection=c)
        c.commit()
    assert job.state == "waiting"


def test_a_session_lends_its_connection(board, engine):
    with Session(engine) as session:
        job = board.queue.add("chat", connection=session.connection())
        session.commit()
    assert job.state == "waiting"


def test_names_and_many_in_one_transaction(board, engine):
    there = board.add(unique="u")
    with engine.begin() as c:
        ids = board.queue.add_many(
            [
                NewJob(type="chat", unique="u"),
                NewJob(type="chat", key="k"),
                NewJob(type="chat", key="k"),
                *[{"type": "embed"}] * 5,
            ],
            chunk=3,
            connection=c,
        )
        replaced = board.queue.add("chat", {"n": 1}, debounce=("d", 5), connection=c)
        assert board.queue.add("chat", {"n": 2}, debounce=("d", 5), connection=c).id == replaced.id
    assert ids[0] == there
    assert ids[1] == ids[2]
    assert replaced.data == {"n": 2}
    assert sum(board.queue.counts().values()) == 8
    assert board.queue.check() == []


def test_a_driver_connection_of_any_kind(board, raw):
    raw.row_factory = lambda cursor, row: {"no": "tuple"}
    raw.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, job INTEGER)")
    raw.execute("INSERT INTO orders (id) VALUES (1)")
    job = board.queue.add("chat", {"a": 1}, key="k", throttle=("t", 5), connection=raw)
    many = board.queue.add_many([{"type": "chat"}] * 2, connection=raw)
    assert raw.in_transaction
    raw.rollback()
    assert sum(board.queue.counts().values()) == 0
    job = board.queue.add("chat", {"a": 1}, key="k", connection=raw)
    many = board.queue.add_many([{"type": "chat"}] * 2, connection=raw)
    raw.commit()
    assert job.data == {"a": 1}
    assert [board.queue.get(i).state for i in many] == ["waiting", "waiting"]


def test_a_connection_without_a_transaction_is_refused(board, path, raw, engine):
    raw.isolation_level = None
    with pytest.raises(errors.HostTransactionError, match=r"autocommit mode.*begin one"):
        board.queue.add("chat", connection=raw)
    raw.execute("BEGIN")
    job = board.queue.add("chat", connection=raw)
    raw.execute("COMMIT")
    assert job.state == "waiting"
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c,
        pytest.raises(errors.HostTransactionError, match="autocommit"),
    ):
        board.queue.add("chat", connection=c)


def test_another_file_is_refused_by_its_name(board, tmp_path, path):
    other = tmp_path / "other.db"
    shutil.copy(path, other)
    with driver.connect(other) as raw, pytest.raises(errors.HostTransactionError, match=r"other\.db.*board\.db"):
        board.queue.add("chat", connection=raw)
    raw.close()
    memory = driver.connect(":memory:")
    with pytest.raises(errors.HostTransactionError, match="a database in memory"):
        board.queue.add("chat", connection=memory)
    memory.close()


def test_a_link_to_the_same_file_is_the_same_file(board, tmp_path, path):
    link = tmp_path / "folder"
    link.symlink_to(tmp_path, target_is_directory=True)
    raw = driver.connect(link / "board.db")
    job = board.queue.add("chat", connection=raw)
    raw.commit()
    raw.close()
    assert job.state == "waiting"


def test_tables_of_another_version_are_refused(board, raw):
    raw.execute("UPDATE llm_schema_version SET version_num = '0001'")
    raw.commit()
    with pytest.raises(errors.HostTransactionError, match=r"version 0001.*callboard db upgrade"):
        board.queue.add("chat", connection=raw)


def test_what_is_no_connection_is_refused(board):
    class Asynchronous:
        async def exec_driver_sql(self, *_):
            await asyncio.sleep(0)

    with pytest.raises(errors.HostTransactionError, match="run_sync"):
        board.queue.add("chat", connection=Asynchronous())
    with pytest.raises(errors.HostTransactionError, match="is a str"):
        board.queue.add("chat", connection="board.db")


def test_a_busy_database_is_told_as_ours(board, path, engine):
    raw = driver.connect(path, timeout=0)
    with board.c.write(), pytest.raises(errors.DatabaseBusyError, match="in the host's transaction"):
        board.queue.add("chat", connection=raw)
    raw.close()
    with engine.connect() as c:
        c.exec_driver_sql("PRAGMA busy_timeout = 0")
        with board.c.write(), pytest.raises(errors.DatabaseBusyError, match=r"board\.db"):
            board.queue.add("chat", connection=c)


def test_a_second_library_on_the_file_is_refused(board, path):
    raw = sqlite3.connect(path)
    with pytest.raises(errors.HostTransactionError, match=r"two SQLite libraries.*sqlite_driver.*CALLBOARD_SQLITE"):
        board.queue.add("chat", connection=raw)
    raw.close()
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as c, pytest.raises(errors.HostTransactionError, match="two SQLite libraries"):
        board.queue.add("chat", connection=c)
    engine.dispose()


STANDARD = """
import sqlite3, sys
from callboard import JobQueue, sqlite_driver
from sqlalchemy import create_engine
assert sqlite_driver is sqlite3
path = sys.argv[1]
engine = create_engine(f"sqlite:///{path}")
with JobQueue(path) as queue:
    with engine.begin() as c:
        kept = queue.add("chat", {"n": 1}, key="k", throttle=("t", 9), connection=c)
        queue.add_many([{"type": "chat", "unique": "u"}, {"type": "chat"}], connection=c)
        queue.add("chat", {"n": 1}, debounce=("d", 9), connection=c)
        queue.add("chat", {"n": 2}, debounce=("d", 9), connection=c)
    with engine.connect() as c:
        queue.add("chat", connection=c)
    assert kept.data == {"n": 1} and sum(queue.counts().values()) == 4 and queue.check() == []
"""


def test_a_host_with_pythons_own_library_has_us_use_it(tmp_path):
    environment = {**os.environ, "CALLBOARD_SQLITE": "standard"}
    done = subprocess.run(
        [sys.executable, "-c", STANDARD, str(tmp_path / "app.db")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
