"""Opening a database safely, and the thin connection everything else writes through.

Statements are SQLAlchemy's, compiled ahead of time (`sql`), and run on the driver's connection. What is guarded here, because each has cost
somebody their data:

- SQLite 3.7.0 to 3.51.2 can lose committed pages in WAL mode when two connections write and checkpoint at the same instant. A process with
  such an engine uses the rollback journal, which is safe and slower, and says so once.
- Every write is `BEGIN IMMEDIATE`: a transaction that starts as a reader and becomes a writer fails at once, whatever the timeout.
- SQLite's own waiting sleeps up to 100 ms at a time; ours retries every millisecond until the busy timeout, and stands in line (`turnstile`).
- A new file is readable by its owner only, and so are the `-wal` and `-shm` files, which take their mode from it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from . import errors
from .sql import Prepared
from .sql_text import CREATION
from .turnstile import Turnstile
from .version import SCHEMA_VERSION, VERSION_TABLE

log = logging.getLogger("callboard.persistence")

try:
    if os.environ.get("CALLBOARD_SQLITE") == "standard":  # the host's own library, where it uses that on the same file
        raise ImportError  # noqa: TRY301  # it goes the way of the platforms that have no wheel
    from pysqlite3 import dbapi2 as _pysqlite3
except ImportError:  # no wheel for this platform: the standard module, guarded by `has_wal_reset_bug`
    import sqlite3

    driver: ModuleType = sqlite3
else:
    driver = _pysqlite3

Row = tuple[Any, ...]
T = TypeVar("T")

_BUSY_CODES = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_ENGINE_WAIT_MS = 5  # what SQLite may wait by itself; the rest is ours
_RETRY_S = 0.001
_WAL_KEEP_BYTES = 64 * 1024 * 1024
_PAGE_BYTES = 4096

_creating = threading.Lock()
_warned = threading.Event()


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can corrupt a WAL database written by two connections (fixed in 3.51.3, and in 3.44.6 and 3.50.7)."""
    if version[:2] in {(3, 44), (3, 50)}:
        return version < {44: (3, 44, 6), 50: (3, 50, 7)}[version[1]]
    return (3, 7, 0) <= version < (3, 51, 3)


def open_database(
    url: str,
    *,
    create: bool = True,
    synchronous: Literal["FULL", "NORMAL"] = "FULL",
    busy_timeout: float = 30.0,
    engine_version: tuple[int, ...] = driver.sqlite_version_info,
) -> "Database":
    """Open the board at `url` (`sqlite:///path`, or `sqlite://` for one in memory), creating its tables if it has none.

    `create`: whether a missing file, or missing tables, may be created. `busy_timeout`: seconds to wait for another program's write.
    `engine_version`: the engine's, given only by tests. Any thread. Two processes may open the same empty database at once.

    Raises a `DatabaseError` that names the file: see the tree in `errors`.
    """
    path = path_of(url)
    if path is not None:
        ensure_file(path, create)
    database = Database(url, path, synchronous, busy_timeout)
    try:
        connection = database.connect()
        try:
            _check_version(connection, _version(connection))  # before anything is changed: it may be no board of ours
            if path is not None:
                _choose_journal(connection, has_wal_reset_bug(engine_version), engine_version)
            _ensure_tables(connection, create)
        finally:
            connection.close()
    except BaseException:
        database.close()
        raise
    return database


def path_of(url: str) -> Path | None:
    """The file a URL names, None for one in memory. Raises UnsupportedDatabaseError."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise errors.UnsupportedDatabaseError(f"not a database URL: {url!r}; write sqlite:///path/to/board.db")
    shown = f"{scheme}://{rest.rpartition('@')[2]}"  # without user and password
    if scheme != "sqlite" or (rest and not rest.startswith("/")) or "?" in rest:
        raise errors.UnsupportedDatabaseError(
            f"unsupported database: {shown}; only sqlite:///path/to/board.db is, without options"
        )
    name = rest[1:]
    return None if name in {"", ":memory:"} else Path(name).absolute()


def ensure_file(path: Path, create: bool) -> None:
    """Make sure the file exists and may be written, or raise the DatabaseError that says why not."""
    try:
        if not path.exists():
            if not path.parent.is_dir():
                raise errors.DatabaseNotFoundError(
                    f"{path.parent} is not a directory: create it, or correct the database's path"
                )
            if not create:
                raise errors.DatabaseNotFoundError(
                    f"there is no database at {path}: correct its path, or run `callboard db upgrade`"
                )
            with _creating:
                # A raw descriptor is only ever opened on a file that did not exist: closing one on a database that this process
                # has open would drop SQLite's locks on it.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            return
    except FileExistsError:
        return  # another process was first
    except PermissionError as error:
        raise errors.DatabasePermissionError(f"no permission to create or see {path}: {error.strerror}") from error
    except OSError as error:
        raise errors.DatabaseError(f"cannot create {path}: {error.strerror}") from error
    if path.is_dir():
        raise errors.DatabaseNotFoundError(f"{path} is a directory, not a database: correct the database's path")
    if not os.access(path, os.R_OK):
        raise errors.DatabasePermissionError(f"no permission to read {path}: give this user read and write access")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise errors.DatabaseReadOnlyError(
            f"{path} or its directory may not be written by this user: give it write access to both (SQLite keeps files beside it)"
        )


def _choose_journal(connection: "Connection", unsafe: bool, version: tuple[int, ...]) -> None:
    wanted = "delete" if unsafe else "wal"
    if unsafe and not _warned.is_set():
        _warned.set()
        log.warning(
            "SQLite %s can corrupt WAL databases: using the slower rollback journal for %s. Install pysqlite3, or a Python with SQLite 3.51.3 or later.",
            ".".join(map(str, version)),
            connection.database.name,
        )
    if connection.pragma("journal_mode") == wanted:
        return
    try:
        connection.pragma("journal_mode", wanted.upper())
    except errors.DatabaseBusyError as error:
        if not unsafe:
            raise
        raise errors.UnsafeEngineError(
            f"{connection.database.name} is in WAL mode and in use by another program, and this process's SQLite "
            f"{'.'.join(map(str, version))} could corrupt it: install pysqlite3, or a Python with SQLite 3.51.3 or later"
        ) from error


def _ensure_tables(connection: "Connection", create: bool) -> None:
    """Tables of exactly our version exist afterwards. Looks first without a lock, which is all an up-to-date board needs."""
    if _version(connection) is None:
        if not create:
            raise errors.DatabaseNotFoundError(
                f"{connection.database.name} has no board: run `callboard db upgrade`, or open it with create=True"
            )
        with connection.write():
            if _version(connection) is None:  # nobody was faster
                for statement in creation_statements():
                    connection.script(statement)
    _check_version(connection, _version(connection))


def _check_version(connection: "Connection", found: str | None) -> None:
    """The tables, if there are any, are of our version."""
    if found is None or found == SCHEMA_VERSION:
        return
    if found.isdigit() and found < SCHEMA_VERSION:
        raise errors.DatabaseTooOldError(
            f"{connection.database.name} has tables of version {found}, this release needs {SCHEMA_VERSION}: stop the workers and run `callboard db upgrade`"
        )
    raise errors.DatabaseTooNewError(
        f"{connection.database.name} has tables of version {found}, this release knows up to {SCHEMA_VERSION}: upgrade callboard"
    )


def _version(connection: "Connection") -> str | None:
    """The version the tables are stamped with, None if there are none."""
    tables = {
        name
        for (name,) in connection.script("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'llm_*'")
    }
    if VERSION_TABLE in tables:
        rows = connection.script(f"SELECT version_num FROM {VERSION_TABLE}")
        if rows:
            return str(rows[0][0])
    if "llm_jobs" in tables:
        raise errors.DatabaseCorruptError(
            f"{connection.database.name} has a table llm_jobs but no version in {VERSION_TABLE}: it is not a board, or a damaged one"
        )
    return None


def creation_statements() -> list[str]:
    """What makes an empty database a board, stamped with the current version."""
    return [
        *CREATION,
        f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))",
        f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{SCHEMA_VERSION}')",
    ]


class Database:
    """An opened board. `connect` may be called from any thread; each connection is used by one thread at a time.

    In memory there is a single connection, which every `connect` shares: for tests and simulations on one thread.
    """

    def __init__(self, url: str, path: Path | None, synchronous: str, busy_timeout: float) -> None:
        self.url = url
        self.path = path
        self.name = str(path) if path is not None else "the database in memory"
        self.busy_timeout = busy_timeout
        self._synchronous = synchronous
        self._shared: Any = None

    def open_driver(self) -> Any:
        """A connection of the driver's, as it should be set up. Raises the driver's errors."""
        target = ":memory:" if self.path is None else f"file:{quote(str(self.path))}?mode=rw"
        connection = driver.connect(
            target,
            uri=True,
            timeout=_ENGINE_WAIT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        # Setting synchronous and foreign_keys takes no lock; journal_size_limit only bounds what a checkpoint leaves behind. The automatic
        # checkpoint is a net for a board without a worker: it would hold up a commit, and whoever stands in line behind it, for tens of
        # milliseconds; a worker checkpoints apart from its commits.
        for pragma in (
            f"synchronous = {self._synchronous}",
            "foreign_keys = ON",
            f"journal_size_limit = {_WAL_KEEP_BYTES}",
            f"wal_autocheckpoint = {_WAL_KEEP_BYTES // _PAGE_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def connect(self) -> "Connection":
        """A connection of its own for the caller, who closes it."""
        try:
            return Connection(self, self._driver_connection())
        except driver.Error as error:  # busy while another process creates it or changes its journal mode
            return Connection(self, self.again(error, self._driver_connection))

    def _driver_connection(self) -> Any:
        if self.path is not None:
            return self.open_driver()
        if self._shared is None:
            self._shared = self.open_driver()
        return self._shared

    def again(self, error: Exception, attempt: Callable[[], T]) -> T:
        """Retry what was refused because the database is busy, until the busy timeout; anything else is raised as ours."""
        deadline = time.monotonic() + self.busy_timeout
        while is_busy(error):
            if time.monotonic() >= deadline:
                raise errors.DatabaseBusyError(
                    f"{self.name} has been locked by another program for {self.busy_timeout:g} s: find what holds a "
                    f"transaction open on it ({error})"
                ) from error
            time.sleep(_RETRY_S)
            try:
                return attempt()
            except driver.Error as next_error:
                error = next_error
        raise translate(error, self.name) from error

    def close(self) -> None:
        """Let go of the database in memory. Connections to files are closed by those who made them."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None


class Connection:
    """The driver's connection with our errors, our patience and our transactions. One thread at a time; not for sharing.

    Every method raises a `DatabaseError`; a busy database is retried until the database's busy timeout, then `DatabaseBusyError`.
    """

    def __init__(self, database: Database, driver_connection: Any) -> None:
        self.database = database
        self.commits = 0
        # Jobs that ended, and whose dependents are still to be told: `persistence.flows`.
        self.unsettled: list[int] = []
        self._driver = driver_connection
        self._execute = self._driver.execute
        self._turnstile = None if database.path is None else Turnstile(database.path)
        self._write = _Write(self)

    def run(self, prepared: Prepared, params: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a statement."""
        try:
            rows: list[Row] = self._execute(prepared.sql, params or ()).fetchall()
        except driver.Error as error:
            return self._again(error, lambda: self._execute(prepared.sql, params or ()).fetchall())
        return rows

    def change(self, prepared: Prepared, params: Mapping[str, Any] | None = None) -> int:
        """How many rows a statement changed."""
        try:
            changed: int = self._execute(prepared.sql, params or ()).rowcount
        except driver.Error as error:
            return self._again(error, lambda: int(self._execute(prepared.sql, params or ()).rowcount))
        return changed

    def change_many(self, prepared: Prepared, rows: Iterable[Mapping[str, Any]]) -> int:
        """How many rows a statement changed, run once per row of parameters, inside a write."""
        try:
            return int(self._driver.executemany(prepared.sql, rows).rowcount)
        except driver.Error as error:
            raise translate(error, self.database.name) from error

    def script(self, sql: str) -> list[Row]:
        """One statement of plain SQL that is not worth preparing: DDL and pragmas."""
        try:
            rows: list[Row] = self._execute(sql).fetchall()
        except driver.Error as error:
            return self._again(error, lambda: self._execute(sql).fetchall())
        return rows

    def pragma(self, name: str, value: str | None = None) -> Any:
        """A pragma's value, after setting it if one is given."""
        rows = self.script(f"PRAGMA {name}" if value is None else f"PRAGMA {name} = {value}")
        return rows[0][0] if rows else None

    def data_version(self) -> int:
        """A number that changes when another connection, of any process, has committed. Own commits do not change it."""
        return int(self.pragma("data_version"))

    def checkpoint(self) -> None:
        """Move what has been committed from the log into the database file, as far as readers allow. Holds up no writer."""
        self.script("PRAGMA wal_checkpoint(PASSIVE)")

    def write(self) -> "_Write":
        """`with connection.write():` one immediate transaction: committed at the end, rolled back whole on any exception."""
        return self._write

    @property
    def writing(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._driver.in_transaction)

    def close(self) -> None:
        """Close it; an open transaction is rolled back. The one connection of a database in memory stays."""
        if self._driver.in_transaction:
            self._execute("ROLLBACK")
        if self._turnstile is not None:
            self._turnstile.close()
            self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        if self._turnstile is not None:
            self._turnstile.enter(self.database.busy_timeout)
        try:
            self._execute("BEGIN IMMEDIATE")
        except driver.Error as error:
            try:
                self._again(error, lambda: self._execute("BEGIN IMMEDIATE"))
            except BaseException:
                self._leave()
                raise

    def _commit(self) -> None:
        try:
            self._execute("COMMIT")
        except driver.Error as error:
            try:
                # In rollback-journal mode readers can keep a commit waiting; the transaction is still whole.
                self._again(error, lambda: self._execute("COMMIT"))
            except BaseException:
                self._rollback()
                raise
        self._leave()
        self.commits += 1

    def _rollback(self) -> None:
        try:
            if self._driver.in_transaction:  # SQLite ends it by itself on a full disk
                self._execute("ROLLBACK")
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._turnstile is not None:
            self._turnstile.leave()

    def _again(self, error: Exception, attempt: Callable[[], T]) -> T:
        return self.database.again(error, attempt)


class _Write:
    """The transaction of one connection; it keeps no state of its own, so one object serves them all."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        if self._connection.writing:
            raise RuntimeError("this connection is already in a transaction: writes do not nest")
        self._connection._begin()  # noqa: SLF001  # the two classes are one thing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection._commit()  # noqa: SLF001  # as above
        else:
            self._connection._rollback()  # noqa: SLF001  # as above


def is_busy(error: Exception) -> bool:
    """Whether the driver refused because someone else holds the database."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _BUSY_CODES


def translate(error: Exception, name: str) -> errors.DatabaseError:
    """The driver's error as ours, naming the database and what to do."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    match code:
        case 5 | 6:
            return errors.DatabaseBusyError(f"{name} is locked by another program: {error}")
        case 3 | 23:
            return errors.DatabasePermissionError(f"no permission to use {name}: {error}")
        case 8:
            return errors.DatabaseReadOnlyError(
                f"{name} cannot be written: {error}; give this user write access to it and its directory"
            )
        case 10:  # also what a full quota or a limit on file sizes looks like: only a disk without space has a code of its own
            return errors.DatabaseDiskError(
                f"{name} cannot be read or written: {error}; check the disk, and whether it or a quota is full"
            )
        case 14:
            return errors.DatabaseError(
                f"{name} cannot be opened, read or written: {error}; check the disk, and that its directory exists and is writable"
            )
        case 11 | 26:
            return errors.DatabaseCorruptError(
                f"{name} is not a database or is damaged: {error}; check the path, then restore a backup or run `sqlite3 … .recover`"
            )
        case 13:
            return errors.DatabaseFullError(f"no space left for {name}: {error}; free disk space, nothing was written")
        case 19:
            return errors.DatabaseRefusedError(f"{name} refused a row: {error}")
    return errors.DatabaseError(f"{name}: {error}")
