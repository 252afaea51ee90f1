"""Opening a board: what is safe is done, what is not is refused with a sentence that helps."""

import logging
import os
import stat
import subprocess
import sys
import threading

import pytest
from sqlalchemy import bindparam, select, text

from callboard.persistence import engine, errors
from callboard.persistence.engine import has_wal_reset_bug, open_database
from callboard.persistence.schema import jobs
from callboard.persistence.statements.build import as_text, lit
from callboard.persistence.version import SCHEMA_VERSION


def test_a_new_board_is_private_and_in_wal_mode(url, path):
    database = open_database(url)
    with database.connect() as c:
        c.script("INSERT INTO llm_jobs (type) VALUES ('chat')")
        assert (c.pragma("journal_mode"), c.pragma("synchronous"), c.pragma("foreign_keys")) == ("wal", 2, 1)
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        names = {file.name for file in path.parent.iterdir()}
        assert names == {"board.db", "board.db-wal", "board.db-shm", "board.db.gate", "board.db.slot"}


def test_synchronous_normal_is_an_option(url):
    with open_database(url, synchronous="NORMAL").connect() as c:
        assert c.pragma("synchronous") == 1


@pytest.mark.parametrize(
    ("version", "bug"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 4), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_which_engines_have_the_wal_reset_bug(version, bug):
    assert has_wal_reset_bug(version) is bug


def test_an_unsafe_engine_uses_the_rollback_journal_and_says_so_once(url, caplog):
    engine._warned.clear()
    with caplog.at_level(logging.WARNING, "callboard.persistence"):
        for _ in range(2):
            with open_database(url, engine_version=(3, 40, 1)).connect() as c:
                assert c.pragma("journal_mode") == "delete"
    assert [record.getMessage() for record in caplog.records if "3.40.1" in record.getMessage()] == [caplog.messages[0]]


def test_an_unsafe_engine_does_not_join_a_wal_database_in_use(url):
    with open_database(url).connect() as c:
        c.script("SELECT * FROM llm_jobs")
        with pytest.raises(errors.UnsafeEngineError, match=r"in use by another program.*3\.40\.1"):
            open_database(url, engine_version=(3, 40, 1), busy_timeout=0.01)


def test_the_hosts_own_tables_are_left_alone(url):
    database = open_database(url)
    with database.connect() as c:
        c.script("CREATE TABLE customers (name TEXT)")
        c.script("INSERT INTO customers VALUES ('x')")
    with open_database(url).connect() as c:
        assert c.script("SELECT * FROM customers") == [("x",)]


def test_many_threads_may_create_the_same_board(url):
    barrier, faults = threading.Barrier(4), []

    def opens():
        barrier.wait(10)
        try:
            with open_database(url).connect() as c:
                assert c.script("SELECT version_num FROM llm_schema_version") == [(SCHEMA_VERSION,)]
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=opens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://u:secret@h/db",
        "nonsense",
        "mysql://x",
        "sqlite+aiosqlite:///x.db",
        "sqlite:///x.db?mode=ro",
        "sqlite://host/x",
    ],
)
def test_other_databases_are_refused_without_their_password(bad):
    with pytest.raises(errors.UnsupportedDatabaseError) as caught:
        open_database(bad)
    assert "secret" not in str(caught.value)


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(errors.DatabaseNotFoundError, match="no database at"):
        open_database(f"sqlite:///{tmp_path}/none.db", create=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.DatabaseNotFoundError, match="is not a directory"):
        open_database(f"sqlite:///{tmp_path}/no/such/board.db")
    with pytest.raises(errors.DatabaseNotFoundError, match="is a directory"):
        open_database(f"sqlite:///{tmp_path}")
    (tmp_path / "empty.db").touch()
    with pytest.raises(errors.DatabaseNotFoundError, match="has no board"):
        open_database(f"sqlite:///{tmp_path}/empty.db", create=False)


@pytest.mark.parametrize("content", [b"This is not a database. " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database(path, url, content):
    path.write_bytes(content)
    with pytest.raises(errors.DatabaseCorruptError, match=str(path)):
        open_database(url)
    assert path.read_bytes() == content


def test_a_damaged_board(path, url):
    open_database(url).close()
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(errors.DatabaseCorruptError, match="damaged"), open_database(url).connect() as c:
        c.script("SELECT * FROM llm_jobs JOIN llm_calls")


@pytest.mark.parametrize(
    ("version", "error", "advice"),
    [
        ("0000", errors.DatabaseTooOldError, "callboard db upgrade"),
        ("9000", errors.DatabaseTooNewError, "upgrade callboard"),
        ("f00d", errors.DatabaseTooNewError, "upgrade callboard"),
    ],
)
def test_tables_of_another_version(url, version, error, advice):
    with open_database(url).connect() as c:
        c.script(f"UPDATE llm_schema_version SET version_num = '{version}'")
    with pytest.raises(error, match=advice):
        open_database(url)


def test_tables_without_a_version(url):
    with open_database(url).connect() as c:
        c.script("DROP TABLE llm_schema_version")
    with pytest.raises(errors.DatabaseCorruptError, match="no version"):
        open_database(url)


def test_a_locked_database_is_retried_then_named(url):
    holder = open_database(url).connect()
    other = open_database(url, busy_timeout=0.05).connect()
    with holder.write(), pytest.raises(errors.DatabaseBusyError, match=r"locked by another program for 0.05 s"):
        other._begin()
    with other.write():
        other.script("INSERT INTO llm_jobs (type) VALUES ('chat')")


def test_it_waits_for_a_writer_that_comes_to_an_end(url):
    holder, other = open_database(url).connect(), open_database(url).connect()
    holder._turnstile = None  # a stranger, who does not stand in line
    begun, ended = threading.Event(), threading.Event()

    def holds():
        with holder.write():
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=holds)
    thread.start()
    assert begun.wait(10)
    # The first refusal is what ends the other transaction, so that the retry is what succeeds.
    refused = other._again

    def again(error, attempt):
        ended.set()
        return refused(error, attempt)

    other._again = again
    with other.write():
        other.script("INSERT INTO llm_jobs (type) VALUES ('chat')")
    thread.join(10)
    assert other.script("SELECT count(*) FROM llm_jobs") == [(1,)]


def test_a_full_disk_rolls_back_and_can_be_retried(board):
    board.sql(f"PRAGMA max_page_count = {board.c.pragma('page_count') + 2}")
    board.sql("INSERT INTO llm_jobs (type) VALUES ('first')")

    def fills(c):
        for _ in range(2000):
            c.script("INSERT INTO llm_jobs (type) VALUES ('chat')")

    with pytest.raises(errors.DatabaseFullError, match="free disk space"):
        board.move(fills)
    assert board.sql("SELECT type FROM llm_jobs") == [("first",)]
    board.sql("PRAGMA max_page_count = 1000000")
    board.move(fills)


def test_a_write_to_a_read_only_connection(board):
    board.sql("PRAGMA query_only = ON")
    with pytest.raises(errors.DatabaseReadOnlyError, match="cannot be written"):
        board.sql("INSERT INTO llm_jobs (type) VALUES ('chat')")


READS = """
import os, sys
from callboard.persistence.engine import open_database
if os.getuid() == 0:
    os.setuid(65534)
try:
    open_database(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o444, "DatabaseReadOnlyError"), (0o000, "DatabasePermissionError")],
    ids=["read-only", "unreadable"],
)
def test_without_permission(tmp_path_factory, mode, expected):
    folder = tmp_path_factory.mktemp("perm")
    path = folder / "board.db"
    open_database(f"sqlite:///{path}").close()
    path.chmod(mode)
    for parent in (folder, *folder.parents):
        if (
            parent.stat().st_uid == os.getuid()
            and parent != parent.parent
            and str(parent).startswith(("/tmp/", "/dev/shm/"))
        ):
            parent.chmod(0o755)
    run = subprocess.run(
        [sys.executable, "-c", READS, f"sqlite:///{path}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.startswith(expected), run
    assert str(path) in run.stdout


def test_writes_do_not_nest(board):
    with board.c.write(), pytest.raises(RuntimeError, match="do not nest"), board.c.write():
        pass


def test_prepared_refuses_what_would_be_slow_or_unbound():
    with pytest.raises(ValueError, match="must be literals"):
        _ = as_text(select(jobs.c.id).where(jobs.c.state == "waiting"))
    with pytest.raises(ValueError, match="planned anew"):
        _ = as_text(text("SELECT 1 LIMIT :limit"))
    assert as_text(select(jobs.c.id).where(jobs.c.state == lit("it's"), jobs.c.id == bindparam("x"))).endswith(":x")
