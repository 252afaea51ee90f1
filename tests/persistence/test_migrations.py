"""Migrated tables are the same as created ones, and an upgrade keeps what was there."""

import importlib.util
import shutil
import sqlite3

import pytest

from callboard.persistence import errors, migrate
from callboard.persistence.engine import open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.version import SCHEMA_VERSION, VERSION_TABLE

NEXT = """
from alembic import op

revision = "9998"
down_revision = "{before}"


def upgrade():
    op.execute("ALTER TABLE llm_jobs ADD COLUMN colour TEXT")
    op.execute("UPDATE llm_jobs SET colour = 'red'")
    {more}
"""
KEPT = "id, key, type, queue, model, tag, state, priority, run_at, lease_epoch, lease_owner, lease_until, attempt, failures, reason"


def tables(url):
    with open_database(url).connect() as c:
        rows = c.script("SELECT type, name, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_auto*'")
    return {(kind, name): definition(kind, (sql or "").replace('"', "")) for kind, name, sql in rows}


def definition(kind, sql):
    """What a statement of the schema says. Of a table: what is within its parentheses in any order, since a column that is added comes last."""
    if kind != "table":
        return "".join(sql.split())
    start, end = sql.index("("), sql.rindex(")")
    parts, depth = [""], 0
    for char in sql[start + 1 : end]:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return sorted("".join(part.split()) for part in parts), "".join(sql[end + 1 :].split())


def statements_of(revision):
    """The DDL of a revision, as it is written in its file."""
    (file,) = (migrate._FOLDER / "versions").glob(f"{revision}_*.py")
    spec = importlib.util.spec_from_file_location(f"revision_{revision}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.STATEMENTS


@pytest.fixture
def first_board(path):
    """A board of the first release with a little of everything on it; its rows by table."""
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA foreign_keys = ON")
    for statement in statements_of("0001"):
        raw.execute(statement)
    raw.execute(
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    raw.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('0001')")
    raw.executescript("""
        INSERT INTO llm_jobs (id, key, type, model, tag, priority) VALUES (1, 'k', 'chat', 'm', 't', 5);
        INSERT INTO llm_jobs (id, type, queue, state, run_at) VALUES (2, 'chat', 'slow', 'delayed', 99);
        INSERT INTO llm_jobs (id, type) VALUES (3, 'chat');
        INSERT INTO llm_jobs (id, type) VALUES (4, 'embed');
        INSERT INTO llm_jobs (id, type) VALUES (5, 'embed');
        INSERT INTO llm_jobs (id, type) VALUES (900, 'chat');
        DELETE FROM llm_jobs WHERE id = 900;
        INSERT INTO llm_job_data (job_id, data, options) VALUES (1, '{"a":1}', '{"on_unknown":"park"}'), (3, '{}', '{}');
        UPDATE llm_jobs SET state = 'active', lease_owner = 'w', lease_until = 50, lease_epoch = 1, attempt = 1 WHERE id IN (3, 4, 5);
        INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at)
          VALUES (3, 1, 1, 'main', 'f', 'p', 'm', 'p/m', 'completed', 7, 1), (5, 1, 1, 'main', 'f', 'p', 'm', 'p/m', 'open', 7, 1);
        INSERT INTO llm_call_completions VALUES (1, '{"text":"hi"}');
        INSERT INTO llm_steps VALUES (3, 'plan', '[1]', 1);
        INSERT INTO llm_job_chunks VALUES (3, 1, 1, 'main', 'hi', 1);
        UPDATE llm_jobs SET state = 'completed', lease_owner = NULL, lease_until = NULL, finished_at = 2 WHERE id = 3;
        INSERT INTO llm_job_results VALUES (3, '"hi"', NULL);
        UPDATE llm_jobs SET state = 'failed', lease_owner = NULL, lease_until = NULL, failures = 3, finished_at = 3, reason = 'r' WHERE id = 4;
        INSERT INTO llm_limit_holds VALUES ('p/m', 5, 'r', 1);
    """)
    raw.commit()
    names = [
        name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'llm_*'")
    ]
    found = {
        name: raw.execute(f"SELECT {KEPT if name == 'llm_jobs' else '*'} FROM {name}").fetchall() for name in names
    }
    raw.close()
    del found[VERSION_TABLE]
    return found


def test_migrated_and_created_are_the_same(tmp_path):
    created, migrated = f"sqlite:///{tmp_path}/created.db", f"sqlite:///{tmp_path}/migrated.db"
    open_database(created).close()
    assert migrate.upgrade(migrated) == (None, SCHEMA_VERSION)
    assert tables(migrated) == tables(created)
    assert migrate.current(migrated) == migrate.current(created) == SCHEMA_VERSION


def test_a_board_of_the_first_release_is_upgraded_with_everything_on_it(url, path, tmp_path, first_board):
    with pytest.raises(errors.DatabaseTooOldError, match="callboard db upgrade"):
        open_database(url)
    assert migrate.upgrade(url) == ("0001", SCHEMA_VERSION)
    created = f"sqlite:///{tmp_path}/created.db"
    open_database(created).close()
    assert tables(url) == tables(created)
    raw = sqlite3.connect(path)
    assert {
        name: [
            row[: len(before[0])] for row in raw.execute(f"SELECT {KEPT if name == 'llm_jobs' else '*'} FROM {name}")
        ]
        for name, before in first_board.items()
        if before
    } == {name: before for name, before in first_board.items() if before}
    assert set(raw.execute("SELECT queue, type, state, jobs FROM llm_job_counts")) == {
        ("default", "chat", "waiting", 1),
        ("slow", "chat", "delayed", 1),
        ("default", "chat", "completed", 1),
        ("default", "embed", "failed", 1),
        ("default", "embed", "active", 1),
    }
    raw.close()
    with JobQueue(path) as queue:
        assert queue.check() == []
        assert queue.add("chat", key="k").id == 1
        assert queue.add("chat").id > 900, "an id was given again"
        queue.cancel(5)
        assert [call.state for call in queue.calls(5)] == ["unknown"], "the triggers are in place"
        assert [t.to_state for t in queue.transitions(5)] == ["waiting", "active", "cancelled"]


def test_a_second_upgrade_changes_nothing(url):
    migrate.upgrade(url)
    before = tables(url)
    assert migrate.upgrade(url) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert tables(url) == before


@pytest.fixture
def revisions(tmp_path, monkeypatch):
    """The migrations of a later release: ours and one more."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate._FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "_FOLDER", folder)
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", "9998")
    return folder / "versions" / "9998_colour.py"


def test_an_upgrade_keeps_the_rows(url, path, revisions):
    with JobQueue(path) as queue:
        job_id = queue.add("chat", {"a": 1}, key="k").id
    revisions.write_text(NEXT.format(before=SCHEMA_VERSION, more="pass"))
    assert migrate.upgrade(url) == (SCHEMA_VERSION, "9998")
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT id, key, colour FROM llm_jobs").fetchall() == [(job_id, "k", "red")]
    assert raw.execute("SELECT data FROM llm_job_data").fetchall() == [('{"a":1}',)]
    raw.close()
    with pytest.raises(errors.DatabaseTooNewError):
        open_database(url)


@pytest.mark.parametrize(
    "more", ["raise ZeroDivisionError", "op.execute('DELETE FROM no_such_table')", "op.execute('DELETE FROM llm_jobs')"]
)
def test_an_upgrade_that_fails_changes_nothing(url, path, revisions, more):
    with JobQueue(path) as queue:
        queue.add("chat")
    before = tables(url)
    revisions.write_text(NEXT.format(before=SCHEMA_VERSION, more=more))
    with pytest.raises((ZeroDivisionError, errors.DatabaseError)):
        migrate.upgrade(url)
    assert migrate.current(url) == SCHEMA_VERSION
    assert tables(url) == before
    with JobQueue(path) as queue:
        assert queue.counts()["waiting"] == 1


def test_what_cannot_be_upgraded_is_refused(url, tmp_path):
    with open_database(url).connect() as c:
        c.script("UPDATE llm_schema_version SET version_num = '9999'")
    with pytest.raises(errors.DatabaseTooNewError):
        migrate.upgrade(url)
    with pytest.raises(errors.UnsupportedDatabaseError, match="in memory"):
        migrate.upgrade("sqlite://")
    with pytest.raises(errors.DatabaseNotFoundError):
        migrate.current(f"sqlite:///{tmp_path}/none.db")
