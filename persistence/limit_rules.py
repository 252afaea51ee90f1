"""What it means to be within a limit, for the limiter of one process and for the database that all of them share (pure).

Both hold a charge until the moment at which the provider has forgotten it, rounded up to the same slots of time, so that what a limiter
grants with nobody else about, the database grants too.
"""

import math
from typing import NamedTuple

DIMENSIONS = ("requests", "input", "output", "total")
"""What is counted. `total` is input and output together, in whatever way the provider adds them."""

SLOTS = 400
"""A window is divided into so many slots at least: what a charge is held too long by rounding is at most 1/400 of the window."""
SUM_SLOT = 2**53
"""Under this slot stands what all slots of a key add up to."""
INTENT_WITHIN_MS = 250
"""A call is charged as of its grant if its intent is on disk within this time, else as of this long before that."""

LOWER_BY = 0.8
RAISE_PER_MS = 0.02 / 60_000
LOWER_AGAIN_AFTER_MS = 10_000
LOWEST = 0.05
"""Additive increase, multiplicative decrease (reference B.4): a refusal lowers a key's limits to 80 %, once in ten seconds; they come back by 2 % of
the full limit a minute."""


class Charge(NamedTuple):
    """What a call takes from its limit key."""

    requests: int = 1
    input: int = 0
    output: int = 0
    total: int = 0

    def plus(self, other: "Charge", sign: int = 1) -> "Charge":
        """The sum, dimension by dimension; with `sign` -1 the difference."""
        return Charge(*(mine + sign * its for mine, its in zip(self, other, strict=True)))


NOTHING = Charge(0)
Ceiling = tuple[int | None, int | None, int | None, int | None]
"""A limit for each of DIMENSIONS; None: not limited."""
UNLIMITED: Ceiling = (None, None, None, None)


class Gate(NamedTuple):
    """What the transaction that records a call's intent is to check and to charge. Made by the limiter that granted the call.

    `minute`, `day`: the limits, before any lowering after refusals, which is the database's to know. `days`: the days the call may be counted
    in, as the epoch ms of their beginning. `days_end_ms`: when the last of them ends. `account`: the key's provider, which may be held whole.
    """

    key: str
    account: str
    granted_ms: int
    charge: Charge
    minute: Ceiling = UNLIMITED
    day: Ceiling = UNLIMITED
    days: tuple[int, ...] = ()
    days_end_ms: int = 0
    concurrency: int | None = None
    window_ms: int = 60_000
    delivery_ms: int = 1_000

    @property
    def counts(self) -> bool:
        """Whether what it charges is worth a row: something is limited."""
        return self.minute != UNLIMITED or self.day != UNLIMITED


class Held(NamedTuple):
    """What a call was charged in the database, by which its outcome settles it."""

    key: str
    slot: int
    days: tuple[int, ...]
    charge: Charge
    window_ms: int


def slot_seconds(window: float) -> float:
    """The length of a slot: a power of two seconds, so that dividing by it is exact, and no rounding lets a charge go early."""
    return float(2.0 ** math.floor(math.log2(window / SLOTS)))


def lapse_ms(at_ms: int, window_ms: int) -> int:
    """When a charge that was counted at `at_ms` at the latest is forgotten: a window later, rounded up to a slot."""
    slot = slot_seconds(window_ms / 1000)
    return math.ceil(math.ceil((at_ms + window_ms) / 1000 / slot) * slot * 1000)


def room(used: int, amount: int, limit: int | None) -> bool:
    """Whether `amount` may be charged. One larger than the limit may when nothing else is held."""
    return limit is None or used + min(amount, limit) <= limit


def factor_at(factor: float, since_ms: int, now_ms: int) -> float:
    """A lowered factor as it has come back up to by now."""
    return min(1.0, factor + max(0, now_ms - since_ms) * RAISE_PER_MS)


def lowered(factor: float, since_ms: int, now_ms: int) -> tuple[float, int]:
    """The factor, and since when, after one more refusal."""
    if 0 <= now_ms - since_ms < LOWER_AGAIN_AFTER_MS:
        return factor, since_ms
    return max(LOWEST, factor_at(factor, since_ms, now_ms) * LOWER_BY), now_ms


def scaled(limit: int | None, factor: float) -> int | None:
    """A limit lowered by a factor; at least 1."""
    return limit if limit is None or factor >= 1 else max(1, math.floor(limit * factor))
