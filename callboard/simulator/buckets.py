"""Rate limits as arithmetic: continuously refilled token buckets, and the largest sum seen in any sliding window.

Both take the time as an argument (monotonic seconds), so that a test can say what the time is. Nothing here is safe to share
between threads; the server's one event loop owns all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MINUTES_OF_A_DAY = 1440
_ROUNDING = 1e-6
"""A level this much short of what is asked for counts as enough: a client that waited exactly as told must not be turned away."""


class TokenBucket:
    """Holds at most `capacity`, starts full, and gains `capacity` every `window_seconds`, continuously."""

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, capacity: int, window_seconds: float, now: float) -> None:
        self.capacity = capacity
        self.rate = capacity / window_seconds
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        """Return what is in the bucket; negative after a debt (see `take`)."""
        return min(float(self.capacity), self._level + max(0.0, now - self._at) * self.rate)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, into debt if need be: output tokens are charged when they are produced, not when they are allowed."""
        self._level = self.level(now) - amount
        self._at = max(now, self._at)

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` can be taken without debt: 0 for now, infinity for more than the bucket ever holds."""
        missing = amount - self.level(now)
        if missing <= _ROUNDING:
            return 0.0
        return missing / self.rate if amount <= self.capacity else float("inf")

    def until_full(self, now: float) -> float:
        """Return the seconds until the bucket is full again."""
        return (self.capacity - self.level(now)) / self.rate


class DayCount:
    """Allows `capacity` in each day of `day_seconds`, begun at its multiples; nothing comes back before the next. As a `TokenBucket` else."""

    __slots__ = ("_day", "_day_seconds", "_used", "capacity")

    def __init__(self, capacity: int, day_seconds: float, now: float) -> None:
        self.capacity = capacity
        self._day_seconds = day_seconds
        self._day = now // day_seconds
        self._used = 0.0

    def level(self, now: float) -> float:
        """Return what is left of the day; negative after a debt."""
        return self.capacity - (self._used if now // self._day_seconds <= self._day else 0.0)

    def take(self, amount: float, now: float) -> None:
        """Take `amount` of the day."""
        day = now // self._day_seconds
        if day > self._day:
            self._day, self._used = day, 0.0
        self._used += amount

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` can be taken: 0, until the next day, or infinity."""
        if amount <= self.level(now):
            return 0.0
        return self.until_full(now) if amount <= self.capacity else float("inf")

    def until_full(self, now: float) -> float:
        """Return the seconds until the next day."""
        return (now // self._day_seconds + 1) * self._day_seconds - now if self.level(now) < self.capacity else 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """What a reply's headers say of one limit: its size, what is left, and the seconds until it is full again."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is over a limit: which one, its size, what was asked for, and the wait (infinite: never as it stands)."""

    dimension: str
    limit: int
    remaining: int
    requested: int
    wait_seconds: float


class Limits:
    """All limits of one (API key, model): a bucket for each dimension, and the requests that may be open at once."""

    def __init__(self, sizes: Mapping[str, int], concurrency: int | None, window_seconds: float, now: float) -> None:
        self._buckets: dict[str, TokenBucket | DayCount] = {
            name: DayCount(size, window_seconds * MINUTES_OF_A_DAY, now)
            if name.endswith("_per_day")
            else TokenBucket(size, window_seconds, now)
            for name, size in sizes.items()
        }
        self._concurrency = concurrency
        self._open = 0

    def admit(self, charges: Mapping[str, int], now: float) -> Rejection | None:
        """Charge every dimension and return None, or charge nothing and return the limit with the longest wait.

        A charge of 0 still needs a bucket that is not empty. Pair every admission with one `release`.
        """
        worst: Rejection | None = None
        if self._concurrency is not None and self._open >= self._concurrency:
            worst = Rejection("concurrency", self._concurrency, 0, 1, 0.0)
        for name, bucket in self._buckets.items():
            amount = charges.get(name, 0)
            wait = bucket.wait_for(max(amount, 1), now)
            if wait > 0 and (worst is None or wait > worst.wait_seconds):
                worst = Rejection(name, bucket.capacity, max(0, int(bucket.level(now))), amount, wait)
        if worst is None:
            self._open += 1
            for name, bucket in self._buckets.items():
                bucket.take(charges.get(name, 0), now)
        return worst

    def charge(self, dimension: str, amount: int, now: float) -> None:
        """Charge what could not be known at admission, into debt if need be. A dimension without a limit is ignored."""
        if bucket := self._buckets.get(dimension):
            bucket.take(amount, now)

    def release(self) -> None:
        """Give back the place of a request that was admitted."""
        self._open -= 1

    def levels(self, now: float) -> dict[str, Level]:
        """Return what every reply's headers report, by dimension."""
        return {
            name: Level(bucket.capacity, max(0, int(bucket.level(now) + _ROUNDING)), bucket.until_full(now))
            for name, bucket in self._buckets.items()
        }


class WindowMaximum:
    """The largest sum of amounts that any window of `window_seconds` has held. A window includes its end and excludes its start."""

    __slots__ = ("_entries", "_total", "_window", "maximum")

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0
        self.maximum = 0

    def add(self, amount: int, now: float) -> None:
        """Record an amount at a time that is not before the last one."""
        entries = self._entries
        while entries and entries[0][0] <= now - self._window:
            self._total -= entries.popleft()[1]
        entries.append((now, amount))
        self._total += amount
        self.maximum = max(self.maximum, self._total)
