"""The connections of a host's queue: opened at the first use, one per thread that is in a call, kept for the next.

The host's methods are in several classes over this one, by what they are about; `JobQueue` is all of them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from .engine import Connection, Database

_KEPT_CONNECTIONS = 8


def now_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class QueueConnections:
    """What every part of `JobQueue` works with; its parameters are described there."""

    def __init__(
        self,
        database: "str | Path | Database",
        *,
        create: bool = True,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        busy_timeout: float = 30.0,
        poll_interval: float = 0.02,
        clock: Callable[[], int] = now_ms,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.poll_interval = poll_interval
        self.clock = clock
        self.sleep = sleep
        self.monotonic = monotonic
        self._given = database
        self._create = create
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._database: Database | None = None
        self._owned = False
        self._closed = False
        self._idle: list[Connection] = []
        self._state = threading.Lock()
        # Threads of one process take turns here rather than by SQLite's retries, which are not fair.
        self._writing = threading.Lock()

    @property
    def name(self) -> str:
        """The database, as errors call it."""
        return self._opened().name

    def _opened(self) -> "Database":
        with self._state:
            if self._closed:
                raise RuntimeError("this JobQueue is closed")
            if self._database is None:
                if isinstance(self._given, str | Path):
                    from .engine import open_database

                    text = str(self._given)
                    url = text if "://" in text else f"sqlite:///{text}"
                    self._database = open_database(
                        url, create=self._create, synchronous=self._synchronous, busy_timeout=self._busy_timeout
                    )
                    self._owned = True
                else:
                    self._database = self._given
            return self._database

    @contextmanager
    def _reader(self) -> "Iterator[Connection]":
        database = self._opened()
        with self._state:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = database.connect()
        try:
            yield connection
        finally:
            with self._state:
                keep = not self._closed and len(self._idle) < _KEPT_CONNECTIONS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    @contextmanager
    def _writer(self) -> "Iterator[Connection]":
        with self._reader() as connection, self._writing:
            with connection.write():
                yield connection
            if connection.unsettled:
                self._settle_more(connection)

    def _settle_more(self, connection: "Connection") -> None:
        """A move of ours ended jobs that very many wait on, directly or not: tell the rest of them, in short transactions."""
        from .errors import DatabaseError
        from .flows import settle_more

        try:
            while connection.unsettled:
                with connection.write():
                    settle_more(connection, self.clock(), "host")
        except DatabaseError:
            connection.unsettled.clear()  # the move itself is done; a worker's repair finds what is left

    @contextmanager
    def _writer_in(self, given: object) -> "Iterator[Connection]":
        """A transaction of our own, or the host's where it gives its connection."""
        if given is None:
            with self._writer() as connection:
                yield connection
            return
        from .host_transaction import borrow

        yield borrow(self._opened(), given)

    def close(self) -> None:
        """Let go of the database. A thread that is still in a call finishes it first. May be called twice."""
        with self._state:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._owned and self._database is not None:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
