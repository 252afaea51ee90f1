"""Migrated tables are the same as created ones, and an upgrade keeps what was there."""

import shutil
import sqlite3

import pytest
from callboard.persistence import errors, migrate
from callboard.persistence.engine import open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.version import SCHEMA_VERSION

SECOND = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("ALTER TABLE llm_jobs ADD COLUMN colour TEXT")
    op.execute("UPDATE llm_jobs SET colour = 'red'")
    {more}
"""


def tables(url):
    with open_database(url).connect() as c:
        rows = c.script("SELECT type, name, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_auto*'")
    return {(kind, name): "".join((sql or "").replace('"', "").split()) for kind, name, sql in rows}


def test_migrated_and_created_are_the_same(tmp_path):
    created, migrated = f"sqlite:///{tmp_path}/created.db", f"sqlite:///{tmp_path}/migrated.db"
    open_database(created).close()
    assert migrate.upgrade(migrated) == (None, SCHEMA_VERSION)
    assert tables(migrated) == tables(created)
    assert migrate.current(migrated) == migrate.current(created) == SCHEMA_VERSION


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
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", "0002")
    return folder / "versions" / "0002_colour.py"


def test_an_upgrade_keeps_the_rows(url, path, revisions):
    with JobQueue(path) as queue:
        job_id = queue.add("chat", {"a": 1}, key="k").id
    revisions.write_text(SECOND.format(more="pass"))
    assert migrate.upgrade(url) == ("0001", "0002")
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
    revisions.write_text(SECOND.format(more=more))
    with pytest.raises((ZeroDivisionError, errors.DatabaseError)):
        migrate.upgrade(url)
    assert migrate.current(url) == "0001"
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
