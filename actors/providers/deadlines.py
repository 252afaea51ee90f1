"""The deadlines of a call: first token, no progress, total. Kept here because a ping resets an HTTP library's read timeout for ever.

Event-loop thread only.
"""

import asyncio
from collections.abc import Callable

from .model import Billed, CallError, ErrorClass, Timeouts


class Deadlines:
    """The three deadlines of a call behind one timer, which is only moved when it fires: progress costs an assignment."""

    def __init__(self, timeouts: Timeouts, on_expiry: Callable[[], object]) -> None:
        self.expired: str | None = None
        self.first_progress_at: float | None = None
        self._timeouts = timeouts
        self._on_expiry = on_expiry
        self._loop = asyncio.get_running_loop()
        self.started_at = self._progress_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def touch(self) -> None:
        """Note progress."""
        self._progress_at = self._loop.time()
        if self.first_progress_at is None:
            self.first_progress_at = self._progress_at
            due = self._due()
            if due is not None and (self._timer is None or due[0] < self._timer.when()):
                self._arm()  # the next deadline is earlier than the one the timer waits for

    def stop(self) -> None:
        """No deadline counts any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def elapsed_ms(self, at: float | None = None) -> int:
        """Return milliseconds from the start to `at` (loop time), or to now."""
        return round(((self._loop.time() if at is None else at) - self.started_at) * 1000)

    def _due(self) -> tuple[float, str] | None:
        limits = self._timeouts
        waiting = self.first_progress_at is None
        name, seconds = ("first_token", limits.first_token) if waiting else ("no_progress", limits.no_progress)
        due = [(self.started_at + limits.total, "total")] if limits.total is not None else []
        if seconds is not None:
            due.append((self._progress_at + seconds, name))
        return min(due, default=None)

    def _arm(self) -> None:
        self.stop()
        due = self._due()
        if due is not None:
            self._timer = self._loop.call_at(due[0], self._check)

    def _check(self) -> None:
        due = self._due()
        # A timer may fire within the clock's resolution before its time, so "now or earlier" is asked with a grain of tolerance.
        if due is not None and due[0] <= self._loop.time() + 0.001:
            self.expired = due[1]
            self.stop()
            self._on_expiry()
        else:
            self._arm()


def timed_out(expired: str, timeouts: Timeouts, *, billed: Billed, sent: bool, partial: str) -> CallError:
    """The failure of a call whose deadline of this name has passed."""
    what = {"first_token": "no piece of the answer came", "no_progress": "no further piece of the answer came"}.get(
        expired, "the answer was not complete"
    )
    return CallError(
        kind=ErrorClass.TIMEOUT,
        message=f"{what} within {getattr(timeouts, expired):g} s (deadline {expired})",
        code=expired,
        billed=billed,
        sent=sent,
        partial=partial,
    )
