"""The events of the board, for hosts: read by cursor, followed, or delivered to a callback."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .lifecycle import JobState
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .events import Event, EventStream, Subscription


class QueueEvents(QueueConnections):
    """The part of `JobQueue` that is about events."""

    def events(
        self,
        after: int | None = None,
        *,
        types: Iterable[str] | None = None,
        states: Iterable[JobState | str] | None = None,
        job: int | None = None,
        follow: bool = False,
        timeout: float | None = None,
    ) -> "EventStream":
        """Every transition of every job after the cursor `after` (None: from the beginning of the log), in the order of their commits.

        An iterator. A reader that comes back with the cursor of the last event it has dealt with, or the iterator's own, misses nothing and
        sees nothing twice, whatever happened to it or to the board in between; only the events of deleted jobs are gone with them.
        `types`, `states` (moved to) and `job` filter. `follow`: wait for more at the end, for `timeout` seconds in all, or for ever; any
        thread may end that by the iterator's `close`. Nothing of the database is held between two events, so a slow reader disturbs nobody.
        Raises ValueError for an unknown state.
        """
        from .events import EventFilter, EventStream

        return EventStream(self, after, EventFilter(types, states, job), follow=follow, timeout=timeout)

    def on(
        self,
        callback: "Callable[[Event], object]",
        *,
        after: int | None = None,
        types: Iterable[str] | None = None,
        states: Iterable[JobState | str] | None = None,
        job: int | None = None,
    ) -> "Subscription":
        """Call `callback` for every event after the cursor `after` (None: from now on, which begins before this returns).

        On a daemon thread of the subscription's own, one event at a time, until its `stop` or this queue's `close`. What the callback raises
        is logged and neither ends the subscription nor disturbs another. The filters are those of `events`.
        """
        from .events import EventFilter, EventStream, Subscription

        wanted = EventFilter(types, states, job)
        start = self.cursor() if after is None else after
        return Subscription(self, EventStream(self, start, wanted, follow=True, timeout=None), callback)

    def cursor(self) -> int:
        """The cursor of the newest event: `events(after=queue.cursor())` begins now. 0 if there is none yet."""
        from . import events

        with self._reader() as connection:
            return events.newest(connection)

    def event_page(self, after: int, job: int | None = None) -> "list[Event]":
        """The next events (500 at most) after a cursor, unfiltered but for the job. What `events` reads by."""
        from . import events

        with self._reader() as connection:
            return events.page(connection, after, job)

    def ended_of(self, job_ids: Iterable[int]) -> list[int]:
        """Those of the jobs that have ended, or no longer exist: one look, however many are asked about."""
        from . import events

        with self._reader() as connection:
            return events.ended_of(connection, job_ids)

    @cached_property
    def watches(self) -> WeakKeyDictionary[Any, Any]:
        """What `await job` waits by on each event loop (`persistence.watch`)."""
        return WeakKeyDictionary()

    def change_mark(self) -> object:
        """A value that is equal to an earlier one only if nothing was committed in between. None: nothing can be said."""
        with self._reader() as connection:
            if connection.database.path is None:
                return None  # a single connection, whose own commits do not show
            return connection, connection.data_version(), connection.commits

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed
