"""Pacing a wait on the database: look at once, then after every pause, and look for real only when somebody has committed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .queue_events import QueueEvents

UNCHANGED_LOOKS = 50
"""After so many quiet looks, look for real: a lost hint costs a second, never the answer."""


def looks(queue: "QueueEvents", timeout: float | None) -> Iterator[bool]:
    """Yield at once and then after every pause, True where nobody has changed the database since the last look.

    Ends after `timeout` seconds, with a last look that comes after them. Sleeps in the caller's thread.
    """
    deadline = None if timeout is None else queue.monotonic() + timeout
    mark: object = None
    unchanged = 0
    while True:
        before, mark = mark, queue.change_mark()
        unchanged = unchanged + 1 if mark is not None and mark == before else 0
        yield unchanged % UNCHANGED_LOOKS != 0
        if deadline is not None and queue.monotonic() >= deadline:
            return
        queue.sleep(queue.poll_interval)
