"""The host's side of the board: add jobs, read them, wait, stream, cancel. It knows nothing of the worker but the tables they share.

Every write is one short transaction on a connection of the calling thread's own (an actor in between would cost more than the write).
Importing this module loads no database library; the first use of a queue does.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from .errors import InvalidJobError, JobNotFoundError
from .job import Job
from .lifecycle import JobState
from .model import CallRecord, Chunk, JobOptions, JobRow, Transition, UsageTotals
from .new_job import NewJob, as_new_job, rows_of

if TYPE_CHECKING:
    from . import host_store as store
    from .engine import Connection, Database
else:

    class _Store:
        """The statements, imported at their first use because SQLAlchemy comes with them."""

        def __getattr__(self, name: str) -> Any:
            from . import host_store

            return getattr(host_store, name)

    store = _Store()

_KEPT_CONNECTIONS = 8


_Rows = list[JobRow]
_Sentences = list[str]  # `list` is a method below


def now_ms() -> int:
    """The wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class JobQueue:
    """A host's handle on a board. Any thread, any number of threads at once; not across a fork (open one in the child).

    `database`: a path, a URL (`sqlite:///path`), or an opened `Database`, which stays the caller's to close. It is opened at the first use, and
    created then if `create`. `synchronous`: "FULL" survives a power cut, "NORMAL" may lose the last moments before one. Every method may
    raise a `DatabaseError`.

    `clock` (epoch milliseconds), `sleep` and `monotonic` (seconds) are replaced by tests.
    """

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

    # --- adding

    def add(
        self,
        type: str,  # noqa: A002  # what every queue calls it
        data: Any = None,
        *,
        model: str | None = None,
        queue: str = "default",
        priority: int | str = 0,
        key: str | None = None,
        tag: str | None = None,
        description: str | None = None,
        delay: float | None = None,
        run_at: int | None = None,
        start_within: float | None = None,
        max_attempts: int = 3,
        options: JobOptions | Mapping[str, Any] | None = None,
    ) -> Job:
        """Add a job; it is on disk when this returns. The fields are those of `NewJob`.

        With a `key` that a job already has, that job is returned, whatever its state, and nothing is added or changed.
        Raises InvalidJobError, which names the field.
        """
        job = NewJob(
            type=type,
            data=data,
            model=model,
            queue=queue,
            priority=priority,
            key=key,
            tag=tag,
            description=description,
            delay=delay,
            run_at=run_at,
            start_within=start_within,
            max_attempts=max_attempts,
            options=options,
        )
        row, body = rows_of(job, self.clock())
        with self._writer() as connection:
            return Job(self, store.add(connection, row, body))

    def add_many(self, jobs: Iterable[NewJob | Mapping[str, Any]], *, chunk: int = 1000) -> list[int]:
        """Add many jobs, each a `NewJob` or a mapping of its fields; their ids in the order given. Keys mean what they do in `add`.

        Every `chunk` of them is one short transaction: if a job is refused (InvalidJobError, its field told as `jobs[7].data`), the chunks
        before it have been added.
        """
        ids: list[int] = []
        remaining = iter(jobs)
        while batch := list(itertools.islice(remaining, chunk)):
            now = self.clock()
            rows = []
            for place, given in enumerate(batch, len(ids)):
                try:
                    rows.append(rows_of(as_new_job(given), now))
                except InvalidJobError as error:
                    raise InvalidJobError(f"jobs[{place}].{error.field}", error.problem) from error
            with self._writer() as connection:
                ids += store.add_many(connection, rows)
        return ids

    # --- moving

    def cancel(self, job_id: int, reason: str | None = None) -> bool:
        """Cancel a job wherever it is; False if it had ended. Raises JobNotFoundError."""
        return self._move(job_id, store.cancel, reason or "cancelled by the host")

    def retry(self, job_id: int, reason: str | None = None) -> bool:
        """Send a failed or cancelled job back to waiting with its counters at zero; False if it is neither. Raises JobNotFoundError."""
        return self._move(job_id, store.retry, reason or "sent back by the host")

    def _move(self, job_id: int, move: "Callable[[Connection, int, str, int], bool]", reason: str) -> bool:
        with self._writer() as connection:
            moved = move(connection, job_id, reason, self.clock())
        if not moved:
            self.row(job_id)
        return moved

    # --- reading

    def get(self, job_id: int) -> Job:
        """The job with this id. Raises JobNotFoundError."""
        return Job(self, job_id, self.row(job_id))

    def row(self, job_id: int) -> JobRow:
        """The row of a job, read now. Raises JobNotFoundError."""
        with self._reader() as connection:
            row = store.job_row(connection, job_id)
        if row is None:
            raise JobNotFoundError(f"there is no job {job_id} on {self.name}")
        return row

    def outcome(self, job_id: int) -> tuple[Any, dict[str, Any] | None]:
        """The stored result and error of a job, each None where there is none."""
        with self._reader() as connection:
            return store.result(connection, job_id)

    def body(self, job_id: int) -> tuple[str | None, Any, dict[str, Any]]:
        """Description, data and options of a job."""
        with self._reader() as connection:
            return store.body(connection, job_id)

    def transitions(self, job_id: int) -> list[Transition]:
        """The log of a job, oldest first."""
        with self._reader() as connection:
            return store.transitions_of(connection, job_id)

    def calls(self, job: int | Job) -> list[CallRecord]:
        """The calls of a job, oldest first."""
        with self._reader() as connection:
            return store.calls_of(connection, job if isinstance(job, int) else job.id)

    def chunks(self, job_id: int) -> list[Chunk]:
        """All text of all attempts of a job, oldest first."""
        with self._reader() as connection:
            return store.all_chunks(connection, job_id)

    def chunks_after(self, job_id: int, epoch: int, seq: int) -> list[Chunk]:
        """The next chunks, 500 at most, of the newest attempt that has any, after that place. (-1, -1) is the beginning."""
        with self._reader() as connection:
            return store.chunks_after(connection, job_id, epoch, seq)

    def list(
        self,
        *,
        state: JobState | str | None = None,
        type: str | None = None,  # noqa: A002  # the column's name
        tag: str | None = None,
        queue: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> _Rows:
        """Jobs that match all that is given, newest first. The next page is `before` the last id of this one."""
        wanted = {
            "state": None if state is None else str(JobState(state)),
            "type": type,
            "tag": tag,
            "queue": queue,
            "before": before,
        }
        with self._reader() as connection:
            return store.listing(
                connection, limit, {name: value for name, value in wanted.items() if value is not None}
            )

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state, every state named."""
        totals = dict.fromkeys(JobState, 0)
        for by_state in self.counts_by_type().values():
            for state, count in by_state.items():
                totals[state] += count
        return totals

    def counts_by_type(self) -> dict[str, dict[JobState, int]]:
        """How many jobs of each type are in each state, every state named."""
        with self._reader() as connection:
            found = store.counts(connection)
        counts: dict[str, dict[JobState, int]] = {}
        for kind, state, count in found:
            counts.setdefault(kind, dict.fromkeys(JobState, 0))[state] = count
        return counts

    def usage(self, tag: str | None = None) -> UsageTotals:
        """What all calls, or those of the jobs with this tag, have used."""
        with self._reader() as connection:
            return store.usage(connection, tag)

    def why(self, job: int | Job) -> str:
        """Why a job is where it is, in a sentence. Raises JobNotFoundError."""
        row = self.row(job if isinstance(job, int) else job.id)
        reason = f": {row.reason}" if row.reason else ""
        match row.state:
            case JobState.WAITING if row.held_until is not None and row.held_until > self.clock():
                return f"held by {row.held_by or 'a limit'} until {_when(row.held_until)}{reason}"
            case JobState.WAITING if row.held_by is not None and row.held_until is None:
                return f"no worker takes it: {row.held_by}"
            case JobState.WAITING:
                with self._reader() as connection:
                    ahead = store.ahead(connection, row)
                suspect = f"; it was in flight when workers died ({row.losses} times)" if row.losses else ""
                return f"waiting for a free runner, {ahead}{' or more' if ahead >= 1000 else ''} like it ahead{suspect}"
            case JobState.DELAYED:
                return f"not before {_when(row.run_at)}{reason}"
            case JobState.ACTIVE:
                with self._reader() as connection:
                    owner, until = store.holder(connection, row.id)
                return f"being worked on by {owner} since {_when(row.started_at)}, attempt {row.attempt}, lease until {_when(until)}"
            case _:
                return f"{row.state}{reason}"

    def check(self) -> _Sentences:
        """What is wrong with the database, in sentences; empty if it is sound. Reads all of it: minutes on a large one."""
        with self._reader() as connection:
            return store.problems(connection)

    def change_mark(self) -> object:
        """A value that is equal to an earlier one only if nothing was committed in between. None: nothing can be said."""
        with self._reader() as connection:
            if connection.database.path is None:
                return None  # a single connection, whose own commits do not show
            return connection, connection.data_version(), connection.commits

    # --- connections

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
        with self._reader() as connection, self._writing, connection.write():
            yield connection

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


def _when(at: int | None) -> str:
    return "an unknown time" if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
