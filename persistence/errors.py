"""What can go wrong with the board, as a tree of errors that each say what happened, where, and what to do.

    CallboardError
    ├─ DatabaseError                 the database cannot be used; its text names the file
    │  ├─ UnsupportedDatabaseError   the URL names a kind of database that is not supported
    │  ├─ DatabaseNotFoundError      the file, or the directory it should be in, does not exist
    │  ├─ DatabasePermissionError    the file or its directory may not be opened
    │  ├─ DatabaseReadOnlyError      it may be read but not written
    │  ├─ DatabaseBusyError          another program held it longer than the busy timeout
    │  ├─ DatabaseFullError          no space left on its disk
    │  ├─ DatabaseDiskError          the disk failed a read or a write; a full quota looks like that too
    │  ├─ DatabaseCorruptError       it is not a database, or a damaged one
    │  ├─ DatabaseTooOldError        its tables come from an older release
    │  ├─ DatabaseTooNewError        its tables come from a newer release
    │  ├─ UnsafeEngineError          this SQLite could corrupt it, and the safe mode is out of reach
    │  └─ DatabaseRefusedError       a constraint or trigger refused a row
    ├─ HostTransactionError          (ValueError) the connection a host gave cannot take jobs
    ├─ InvalidJobError               (ValueError) a field of a new job is not acceptable
    ├─ InvalidQueryError             (ValueError) a search cannot be read; its text shows the place
    ├─ JobNotFoundError              (LookupError) no job has this id
    ├─ ConversationNotFoundError     (LookupError) no conversation has this name
    ├─ JobNotFinishedError           a result was asked of a job that has none yet
    ├─ JobFailedError                a result was asked of a job that failed
    ├─ JobCancelledError             a result was asked of a job that was cancelled
    └─ WaitTimeoutError              (TimeoutError) a job did not finish in time

It imports nothing, so that a host can catch these without loading a database library.
"""

from typing import Any


class CallboardError(Exception):
    """The root of every error this package raises on purpose."""


class DatabaseError(CallboardError):
    """The database cannot be used."""


class UnsupportedDatabaseError(DatabaseError):
    """The URL names a kind of database, or options of one, that are not supported."""


class DatabaseNotFoundError(DatabaseError):
    """The file, or the directory it should be created in, does not exist."""


class DatabasePermissionError(DatabaseError):
    """The file or its directory may not be opened by this user."""


class DatabaseReadOnlyError(DatabaseError):
    """The database may be read but not written."""


class DatabaseBusyError(DatabaseError):
    """Another program held the database for longer than the busy timeout. Trying again later is right."""


class DatabaseFullError(DatabaseError):
    """There is no space left for the database. What was being written is rolled back."""


class DatabaseDiskError(DatabaseError):
    """The disk failed a read or a write: a full quota, a limit on file sizes, or a fault. What was being written is rolled back."""


class DatabaseCorruptError(DatabaseError):
    """The file is not a database, or a damaged one."""


class DatabaseTooOldError(DatabaseError):
    """The tables come from an older release: `callboard db upgrade` brings them up to date."""


class DatabaseTooNewError(DatabaseError):
    """The tables come from a newer release than this one."""


class UnsafeEngineError(DatabaseError):
    """This process's SQLite has the WAL-reset bug, and the database is being used in WAL mode by another program."""


class DatabaseRefusedError(DatabaseError):
    """A constraint or a trigger of the board refused what was being written."""


class HostTransactionError(CallboardError, ValueError):
    """The connection a host gave for its own transaction cannot take jobs. The message says what is wrong with it."""


class InvalidJobError(CallboardError, ValueError):
    """A field of a new job is not acceptable. `field` names it, with the path into it where the fault lies deeper."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidQueryError(CallboardError, ValueError):
    """A search cannot be read. `problem` says why; `position` and `length` are the place in `query`, which the error's text points at."""

    def __init__(self, query: str, position: int, length: int, problem: str) -> None:
        shown = "".join(character if character.isprintable() else " " for character in query)
        super().__init__(f"{problem}\n  {shown}\n  {' ' * position}{'^' * max(length, 1)}")
        self.query = query
        self.position = position
        self.length = length
        self.problem = problem


class JobNotFoundError(CallboardError, LookupError):
    """No job has this id."""


class ConversationNotFoundError(CallboardError, LookupError):
    """No conversation has this name."""


class JobNotFinishedError(CallboardError):
    """The result of a job was asked for before there is one."""


class JobFailedError(CallboardError):
    """The result of a failed job was asked for. `error` is what the worker stored of the failure."""

    def __init__(self, job_id: int, error: dict[str, Any] | None, reason: str | None) -> None:
        super().__init__(f"job {job_id} failed: {reason or (error or {}).get('message') or 'no reason was recorded'}")
        self.job_id = job_id
        self.error = error


class JobCancelledError(CallboardError):
    """The result of a cancelled job was asked for."""


class WaitTimeoutError(CallboardError, TimeoutError):
    """A job did not reach a terminal state within the time given."""
