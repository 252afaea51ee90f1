"""Mail that reached nobody: counted, remembered briefly, logged seldom.

A dead letter is not an error by itself (an actor may end while mail is on its way), but a growing count is the first sign of a
wrong name or a lost part. Messages are not kept, only their kind: they may be large, and may hold what must not be logged.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from .clock import Clock
from .inbox import FULL

logger = logging.getLogger(__name__)

LOG_EVERY = 60.0
"""Seconds between two log lines about the same kind of message."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One undelivered message: whom it was for, the name of its type, why it was not delivered, and when (epoch ms)."""

    to: str
    kind: str
    why: str
    at_ms: int


class DeadLetters:
    """The record of undelivered mail of one actor system. Any thread may use it."""

    def __init__(
        self, clock: Clock, on_dead_letter: Callable[[DeadLetter], None] | None = None, keep: int = 100
    ) -> None:
        self._clock = clock
        self._on_dead_letter = on_dead_letter
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._recent: deque[DeadLetter] = deque(maxlen=keep)
        self._logged: dict[tuple[str, str], float] = {}

    def record(self, to: str, message: object, why: str) -> None:
        """Count a message that was not delivered, and log it unless its kind was logged within the last minute."""
        kind = type(message).__name__
        letter = DeadLetter(to, kind, why, self._clock.now_ms())
        now = self._clock.monotonic()
        with self._lock:
            self._counts[kind] += 1
            total = self._counts[kind]
            self._recent.append(letter)
            last = self._logged.get((kind, why))
            log = last is None or now - last >= LOG_EVERY
            if log:
                self._logged[kind, why] = now
        if log:
            # A full mailbox means a part sends without being asked to, and work is being lost: loud. The rest is seldom news.
            level = logging.ERROR if why == FULL else logging.WARNING
            logger.log(level, "%s to actor %r was not delivered: %s (%d of this kind so far)", kind, to, why, total)
        if self._on_dead_letter is not None:
            self._on_dead_letter(letter)

    def counts(self) -> dict[str, int]:
        """Return how many messages of each kind were not delivered."""
        with self._lock:
            return dict(self._counts)

    def total(self) -> int:
        """Return how many messages were not delivered."""
        with self._lock:
            return self._counts.total()

    def recent(self) -> list[DeadLetter]:
        """Return the latest dead letters, oldest first."""
        with self._lock:
            return list(self._recent)
