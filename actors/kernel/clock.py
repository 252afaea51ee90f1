"""Time as a parameter: the two clocks every actor reads, and the real ones.

Nothing in the company calls `time` directly, so that the simulation can move time by hand. Wall time is for what is written
down (database rows, messages); monotonic time is for durations and deadlines, because a wall clock may jump.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a part that needs the time is given. Both methods may be called from any thread."""

    def now_ms(self) -> int:
        """Return the wall clock, in milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return the wall clock, in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return `time.monotonic()`: seconds that never run backwards."""
        return time.monotonic()
