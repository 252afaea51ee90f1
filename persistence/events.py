"""What happens on the board, as a feed that can be taken up again where one left it: the transitions log behind a cursor.

The cursor is the log's own id. That is safe because SQLite has one writer at a time: an id is given while the write lock is held, and whoever
gets a higher one had to wait for the commit of the lower. So ids become visible in their order, no reader can see one and later find a lower one
new, and AUTOINCREMENT never gives one again. (Where transactions write side by side, as on other databases, this does not hold.)
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .engine import Connection
from .errors import DatabaseError
from .lifecycle import JobState
from .sql import Prepared
from .watching import looks

if TYPE_CHECKING:
    from .queue_events import QueueEvents

log = logging.getLogger("callboard.persistence")

_PAGE = Prepared("events.PAGE")
_PAGE_OF_JOB = Prepared("events.PAGE_OF_JOB")
_NEWEST = Prepared("events.NEWEST")
_ENDED = Prepared("events.ENDED")
PAGE_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One transition of one job. `cursor` rises with every event of the board; `at` in epoch milliseconds.

    `from_state` is None for a job that was added. `epoch` and `attempt` are the job's after the move; `actor` made it.
    """

    cursor: int
    job_id: int
    type: str
    from_state: JobState | None
    to_state: JobState
    at: int
    epoch: int
    attempt: int
    actor: str
    reason: str | None


def page(c: Connection, after: int, job: int | None = None, rows: int = PAGE_ROWS) -> list[Event]:
    """The next events after a cursor, of the whole board or of one job."""
    found = (
        c.run(_PAGE, {"after": after, "page": rows})
        if job is None
        else c.run(_PAGE_OF_JOB, {"after": after, "page": rows, "wanted": job})
    )
    return [
        Event(
            cursor=cursor,
            job_id=job_id,
            type=kind,
            from_state=None if before is None else JobState(before),
            to_state=JobState(state),
            at=at,
            epoch=epoch,
            attempt=attempt,
            actor=actor,
            reason=reason,
        )
        for cursor, job_id, kind, before, state, at, epoch, attempt, actor, reason in found
    ]


def newest(c: Connection) -> int:
    """The cursor of the newest event, 0 if there is none."""
    return int(c.run(_NEWEST)[0][0])


def ended_of(c: Connection, job_ids: Iterable[int]) -> list[int]:
    """Those of the jobs that have ended, or no longer exist."""
    return [job_id for (job_id,) in c.run(_ENDED, {"ids": json.dumps(list(job_ids))})]


class EventFilter:
    """What a subscriber wants to see. Raises ValueError for a state that does not exist."""

    def __init__(
        self,
        types: Iterable[str] | None = None,
        states: Iterable[JobState | str] | None = None,
        job: int | None = None,
    ) -> None:
        self.types = None if types is None else frozenset([types] if isinstance(types, str) else types)
        self.states = (
            None if states is None else frozenset(map(JobState, [states] if isinstance(states, str) else states))
        )
        self.job = job

    def wants(self, event: Event) -> bool:
        """Whether this event passes."""
        return (self.types is None or event.type in self.types) and (
            self.states is None or event.to_state in self.states
        )


class EventStream(Iterator[Event]):
    """Events in the order in which they were committed. One thread at a time; between two events nothing of the database is held.

    `cursor` is the place up to which everything was either yielded or filtered out: a later reader that begins after it misses nothing and
    sees nothing twice. Events of deleted jobs are deleted with them.
    """

    def __init__(
        self, queue: "QueueEvents", after: int | None, wanted: EventFilter, *, follow: bool, timeout: float | None
    ) -> None:
        self.cursor = after or 0
        self._queue = queue
        self._wanted = wanted
        self._follow = follow
        self._read_to = self.cursor
        self._ready: deque[Event] = deque()
        self._timeout = timeout
        self._looks = looks(queue, timeout)
        self._more = True  # the last page was full, or nothing has been read yet
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._closed:
            if self._ready:
                event = self._ready.popleft()
                self.cursor = event.cursor if self._ready else self._read_to
                return event
            if self._more:
                self._read()
            elif not self._follow or not self._wait():
                break
        raise StopIteration

    def ready(self) -> list[Event]:
        """The next events that are there already, without waiting for any; an empty list if there are none just now."""
        while not self._ready:
            self._read()
            if not self._more:
                break
        found = list(self._ready)
        self._ready.clear()
        self.cursor = self._read_to
        return found

    def close(self) -> None:
        """End the iteration, also that of a thread which waits in it, within a poll. Any thread; may be called twice."""
        self._closed = True

    def _read(self) -> None:
        found = self._queue.event_page(self._read_to, self._wanted.job)
        self._more = len(found) == PAGE_ROWS
        if found:
            self._read_to = found[-1].cursor
            self._ready.extend(event for event in found if self._wanted.wants(event))
        if not self._ready:
            self.cursor = self._read_to

    def _wait(self) -> bool:
        """Wait until there may be more; False when the time is up."""
        try:
            for quiet in self._looks:
                if self._closed:
                    return False
                if not quiet:
                    self._more = True
                    return True
        except DatabaseError:
            self._looks = looks(self._queue, self._timeout)  # what raised has ended; the caller may go on
            raise
        return False


class Subscription:
    """A callback that is called for every event, one after the other, on a daemon thread of its own. Made by `JobQueue.on`; `stop` ends it.

    What the callback raises is logged, and the next event follows. A database that cannot be read for a while is tried again. Closing the queue
    ends it too.
    """

    def __init__(self, queue: "QueueEvents", stream: EventStream, callback: Callable[[Event], object]) -> None:
        self._queue = queue
        self._stream = stream
        self._callback = callback
        self._stopped = threading.Event()
        self._cursor = stream.cursor
        self._thread = threading.Thread(target=self._run, name="callboard-events", daemon=True)
        self._thread.start()

    @property
    def cursor(self) -> int:
        """The place behind the last event whose callback has returned: where to go on after a restart."""
        return self._cursor

    @property
    def alive(self) -> bool:
        """Whether events are still delivered."""
        return self._thread.is_alive()

    def stop(self, timeout: float | None = 10.0) -> None:
        """Deliver nothing more, and wait (seconds) for a callback that is running. May be called twice, and by the callback itself."""
        self._stopped.set()
        self._stream.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._deliver()
            except DatabaseError:
                log.exception("a subscriber cannot read events now, and tries again")
                self._stopped.wait(1.0)
            except RuntimeError:
                if self._queue.closed:
                    return
                raise

    def _deliver(self) -> None:
        for event in self._stream:
            try:
                self._callback(event)
            except Exception:
                log.exception(
                    "the callback %r failed on event %s of job %s", self._callback, event.cursor, event.job_id
                )
            self._cursor = self._stream.cursor
            if self._stopped.is_set():
                return
