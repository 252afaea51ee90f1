"""A host's own transaction as a place to add jobs: they exist when it commits, and never were if it rolls back.

The host's connection may be SQLAlchemy's or the driver's, with whatever settings the host likes. Nothing is begun, committed, retried or
closed on it here. Statements go through SQLAlchemy where the host uses it, so that its `commit` knows of them.

It must come from the same SQLite library as the queue's own connections. Two libraries in one process do not see each other's locks on a file,
and either drops the other's when it closes one, so that both may write at once (<https://www.sqlite.org/howtocorrupt.html>, section 2.2.1).
The host can take ours (`create_engine(url, module=callboard.sqlite_driver)`), or have us take Python's (`CALLBOARD_SQLITE=standard`).
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .engine import Connection, Database, Row, driver, translate
from .errors import HostTransactionError
from .sql import Prepared
from .version import SCHEMA_VERSION, VERSION_TABLE

sqlite_driver = driver
"""The module of the SQLite library that this process's boards are opened with: for a host that opens the same file itself."""

_Execute = Callable[[str, Any], Any]
T = TypeVar("T")


class HostTransaction(Connection):
    """A host's connection as the functions that add jobs know one. For one thread, as the host's is."""

    def __init__(self, database: Database, execute: _Execute, execute_many: _Execute) -> None:
        self.database = database
        self.unsettled = []  # what is left there, a worker's repair finds
        self._run = execute
        self._run_many = execute_many

    def run(self, prepared: Prepared, params: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a statement."""
        return self._guarded(lambda: [tuple(row) for row in self._run(prepared.sql, dict(params or {})).fetchall()])

    def change(self, prepared: Prepared, params: Mapping[str, Any] | None = None) -> int:
        """How many rows a statement changed."""
        return self._guarded(lambda: int(self._run(prepared.sql, dict(params or {})).rowcount))

    def change_many(self, prepared: Prepared, rows: Iterable[Mapping[str, Any]]) -> int:
        """How many rows a statement changed, run once per row of parameters."""
        return self._guarded(lambda: int(self._run_many(prepared.sql, [dict(row) for row in rows]).rowcount))

    def script(self, sql: str) -> list[Row]:
        """One statement of plain SQL."""
        return self._guarded(lambda: [tuple(row) for row in self._run(sql, {}).fetchall()])

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (
            Exception
        ) as error:  # the host's driver and library are its own: what they raise is told by what it carries
            cause = getattr(error, "orig", None) or error
            if not hasattr(cause, "sqlite_errorcode"):
                raise
            raise translate(cause, f"{self.database.name}, in the host's transaction,") from error


def borrow(database: Database, given: Any) -> HostTransaction:
    """The host's connection, after a look at whether it can take jobs. Raises HostTransactionError, which says what is wrong with it."""
    if hasattr(given, "exec_driver_sql"):
        if inspect.iscoroutinefunction(given.exec_driver_sql):
            _refuse("is asynchronous: use `await connection.run_sync(lambda c: queue.add(..., connection=c))`")
        raw = given.connection.driver_connection
        _check_library(raw)
        borrowed = HostTransaction(database, given.exec_driver_sql, given.exec_driver_sql)
        _check_board(database, borrowed)  # with its first statement SQLAlchemy begins a transaction
    elif hasattr(given, "cursor") and hasattr(given, "in_transaction"):
        raw = given
        _check_library(raw)
        borrowed = HostTransaction(
            database,
            lambda sql, params: _plain_cursor(raw).execute(sql, params),
            lambda sql, rows: _plain_cursor(raw).executemany(sql, rows),
        )
        _check_board(database, borrowed)
    else:
        _refuse(
            f"is a {type(given).__name__}: give a Connection of SQLAlchemy (of a Session: session.connection()) or of the driver"
        )
    if not raw.in_transaction and (raw.isolation_level is None or getattr(raw, "autocommit", False) is True):
        _refuse("is in autocommit mode and no transaction is open on it: begin one")
    return borrowed


def _plain_cursor(raw: Any) -> Any:
    """A cursor that gives tuples, whatever the host has its connection give."""
    cursor = raw.cursor()
    cursor.row_factory = None
    return cursor


def _check_library(raw: Any) -> None:
    if not isinstance(raw, sqlite_driver.Connection):
        _refuse(
            f"is of {type(raw).__module__}, and this process's queue uses {sqlite_driver.Connection.__module__}: two SQLite libraries on one "
            "file corrupt it. Use create_engine(url, module=callboard.sqlite_driver), or set CALLBOARD_SQLITE=standard"
        )


def _check_board(database: Database, borrowed: HostTransaction) -> None:
    file = next((path for _, name, path in borrowed.script("PRAGMA database_list") if name == "main"), "")
    if database.path is None or not file or not _same(Path(file), database.path):
        _refuse(f"is to {file or 'a database in memory'}, and the queue is on {database.name}: they must be one file")
    tables = borrowed.script(f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{VERSION_TABLE}'")
    found = borrowed.script(f"SELECT version_num FROM {VERSION_TABLE}") if tables else []
    if not found or found[0][0] != SCHEMA_VERSION:
        what = f"tables of version {found[0][0]}" if found else "no tables of a board"
        _refuse(
            f"sees {what} in {file}, and this release needs version {SCHEMA_VERSION}: run `callboard db upgrade` first"
        )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _refuse(problem: str) -> NoReturn:
    raise HostTransactionError(f"the host's connection {problem}")
