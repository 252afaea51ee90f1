"""The circuit breaker of a key: after failures in a row it is left alone, then tried with one call before the rest (pure).

A provider that is down is not helped by more calls, and every one of them costs a job an attempt. Failures that are an answer (a bad request, a
refused key) end the row like a success.
"""

import math
from dataclasses import dataclass

TROUBLE = frozenset({"overloaded", "server", "connect"})
"""Kinds of failure (`ErrorClass`) that count."""
SAYS_NOTHING = frozenset({"cancelled", "timeout", "truncated", "unknown_outcome"})
"""Kinds that neither count nor end the row."""
FAILURES = 5
"""In a row, until the breaker opens."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 120.0
"""Seconds; each time that the probe fails as well, the pause is twice as long."""


@dataclass(slots=True)
class Breaker:
    """Closed, open until some time, or half open: one call may try. Times are seconds on the limiter's clock."""

    failures: int = 0
    openings: int = 0
    open_until: float = -math.inf
    _opened_at: float = -math.inf

    @property
    def tripped(self) -> bool:
        """Whether it has opened and no call has succeeded since: when its pause is over, one call may try."""
        return self.openings > 0

    def failed(self, granted_at: float, now: float, retry_after: float | None = None) -> float | None:
        """Count a failure; return until when the key is to be left alone if this opened the breaker.

        What was granted before it opened says nothing new. `retry_after`: the provider's own wish, seconds.
        """
        if granted_at < self._opened_at:
            return None
        self.failures += 1
        if not self.tripped and self.failures < FAILURES:
            return None
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.openings, 32))
        if retry_after is not None and not math.isnan(retry_after):
            pause = max(pause, min(retry_after, LONGEST_PAUSE))
        self.openings += 1
        self._opened_at, self.open_until = now, now + pause
        return self.open_until

    def answered(self, granted_at: float) -> bool:
        """Note that the provider answered a call; return whether that closed the breaker."""
        if granted_at < self._opened_at:
            return False
        was_open = self.tripped
        self.failures = self.openings = 0
        self.open_until = self._opened_at = -math.inf
        return was_open
