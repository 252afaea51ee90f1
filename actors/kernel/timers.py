"""Timers: a message, later. One heap, one thread.

Pykka has none. A timer is only ever a message to a name, so it fires into a mailbox and the actor handles it in its turn; nothing
runs in the timer thread but the delivery.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from itertools import count

from .clock import Clock

logger = logging.getLogger(__name__)

LONGEST_WAIT = 3600.0
"""Seconds. Bounds a single wait, whatever the timer: `Condition.wait` refuses very large values."""

COMPACT_ABOVE = 64
"""Cancelled entries the heap may hold before it is rebuilt (and then only when they are the larger half)."""


class TimerToken:
    """A timer that was set; hand it to `cancel`. The fields belong to the timer service."""

    __slots__ = ("action", "cancelled", "due", "fired")

    def __init__(self, due: float, action: Callable[[TimerToken], None]) -> None:
        self.due = due
        self.action = action
        self.cancelled = False
        self.fired = False


class WatchToken(TimerToken):
    """Marks the watch of a name, so that its `Down` can be recalled while it waits. Never in a heap."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(0.0, _never)
        self.name = name


def _never(_token: TimerToken) -> None:
    """Do nothing: a watch does not fire by time."""


class TimerQueue:
    """The heap alone: no thread, no clock. Not safe for several threads by itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerToken]] = []
        self._sequence = count()
        self._cancelled = 0

    def add(self, token: TimerToken) -> None:
        """Add a timer; of two with the same due time the one added first fires first."""
        heapq.heappush(self._heap, (token.due, next(self._sequence), token))

    def cancel(self, token: TimerToken) -> None:
        """Forget a timer. Cancelling one that fired, or was cancelled, only marks it."""
        if token.cancelled:
            return
        token.cancelled = True
        if token.fired:
            return
        self._cancelled += 1
        # Deadlines are mostly cancelled long before they are due: without this the heap would hold every one of them till then.
        if self._cancelled > COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_due(self) -> float | None:
        """Return when the next timer is due (monotonic seconds), or None when there is none."""
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> TimerToken | None:
        """Take the earliest timer that is due, or None."""
        due = self.next_due()
        if due is None or due > now:
            return None
        token = heapq.heappop(self._heap)[2]
        token.fired = True
        return token

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled


class TimerThread:
    """The timers of real actors: one daemon thread, started by the first timer. Any thread may call any method."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._queue = TimerQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, token: TimerToken) -> None:
        """Start a timer. After `close` it will never fire."""
        with self._condition:
            if self._closed:
                return
            earliest = self._queue.next_due()
            self._queue.add(token)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="callboard-timers", daemon=True)
                self._thread.start()
            elif earliest is None or token.due < earliest:
                self._condition.notify()

    def cancel(self, token: TimerToken) -> None:
        """Cancel a timer: its message will not be delivered, nor handled if it waits in a mailbox already."""
        with self._condition:
            self._queue.cancel(token)

    def close(self, timeout: float | None = None) -> None:
        """Drop all timers and end the thread, waiting for it at most `timeout` seconds."""
        with self._condition:
            self._closed = True
            self._queue = TimerQueue()
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def __len__(self) -> int:
        with self._condition:
            return len(self._queue)

    def _run(self) -> None:
        while (token := self._wait()) is not None:
            try:
                token.action(token)
            except Exception:
                # A delivery does not raise. If one ever does, the other timers must still fire.
                logger.exception("a timer could not be delivered; the timer service goes on")

    def _wait(self) -> TimerToken | None:
        with self._condition:
            while not self._closed:
                now = self._clock.monotonic()
                token = self._queue.pop_due(now)
                if token is not None:
                    return token
                due = self._queue.next_due()
                self._condition.wait(None if due is None else min(due - now, LONGEST_WAIT))
            return None
