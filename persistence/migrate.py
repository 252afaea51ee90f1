"""Bringing a board's tables up to date: `callboard db upgrade`. The only place that loads Alembic, so the worker never does.

An upgrade is one transaction: it happens whole or not at all, and readers see the old tables until it is done. Workers should be stopped
first: one that runs holds tables of the old version in its statements, and one that starts refuses a version it does not know.
"""

from pathlib import Path
from typing import Any

from . import errors
from .engine import Connection, Database, driver, ensure_file, path_of, translate
from .version import SCHEMA_VERSION, VERSION_TABLE

_FOLDER = Path(__file__).parent / "migrations"


def current(url: str) -> str | None:
    """The version of the tables at `url`, None if it has none. Raises a `DatabaseError`, also if there is no such file."""
    database = _open(url, create=False)
    try:
        with database.connect() as connection:
            return _stamped(connection)
    finally:
        database.close()


def upgrade(url: str) -> tuple[str | None, str]:
    """Create the database or its tables, or bring them up to date: the versions before and after. Doing it again changes nothing.

    Raises a `DatabaseError`: DatabaseTooNewError if the tables come from a newer release.
    """
    database = _open(url, create=True)
    try:
        with database.connect() as connection:
            before = _stamped(connection)
            if before is not None and (not before.isdigit() or before > SCHEMA_VERSION):
                raise errors.DatabaseTooNewError(
                    f"{database.name} has tables of version {before}, this release knows up to {SCHEMA_VERSION}: upgrade callboard"
                )
            if before != SCHEMA_VERSION:
                _run(database)
            return before, SCHEMA_VERSION
    finally:
        database.close()


def _open(url: str, *, create: bool) -> Database:
    path = path_of(url)
    if path is None:
        raise errors.UnsupportedDatabaseError("a database in memory has nothing to upgrade: give the path of a file")
    ensure_file(path, create)
    return Database(url, path, "FULL", 30.0)


def _stamped(connection: Connection) -> str | None:
    found = connection.script(f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{VERSION_TABLE}'")
    rows = connection.script(f"SELECT version_num FROM {VERSION_TABLE}") if found else []
    return str(rows[0][0]) if rows else None


def _run(database: Database) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["version_table"] = VERSION_TABLE
    engine = create_engine("sqlite://", module=driver, creator=database.open_driver, poolclass=NullPool)
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        # Foreign keys are unchecked meanwhile, because a table that is rebuilt is absent for a moment.
        raw.execute("PRAGMA foreign_keys = OFF")
        try:
            # SQLAlchemy opens no transaction on a driver in autocommit mode, but must know of ours, or Alembic commits in between.
            with connection.begin():
                raw.execute("BEGIN IMMEDIATE")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                _check_references(raw, database.name)
        except DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            raise translate(cause, database.name) from error
        except driver.Error as error:
            raise translate(error, database.name) from error
        finally:
            raw.execute("PRAGMA foreign_keys = ON")


def _check_references(raw: Any, name: str) -> None:
    broken = raw.execute("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise errors.DatabaseCorruptError(
            f"{name} would lose references by the upgrade ({broken[0]}): nothing was changed"
        )
