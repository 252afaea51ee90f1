"""What a supervisor is told about a child, and about how much trouble to put up with. Plain values, checked when made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..kernel.actor import Actor


class Restart(Enum):
    """When a child that ended is started again (OTP's terms)."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """Unless it ended normally or was stopped."""
    TEMPORARY = "temporary"
    """Never, not even when a sibling's end takes it down."""


class Strategy(Enum):
    """Which children are started again when one ends."""

    ONE_FOR_ONE = "one_for_one"
    """That one only."""
    REST_FOR_ONE = "rest_for_one"
    """That one, and those started after it, which may depend on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before restart number n in a row: `min(cap, base * 2**n)` seconds, times a random factor of 0.5 to 1.

    The count starts again at 0 after the child has been up for `min_uptime` seconds.
    """

    base: float = 0.5
    cap: float = 30.0
    min_uptime: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.base <= self.cap or self.min_uptime < 0:
            raise ValueError(f"backoff needs 0 <= base <= cap and min_uptime >= 0, got {self!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """How much trouble makes a supervisor give up.

    Two limits, because backoff stretches the window: a child that crashes at every start, waiting 30 s in between, would never
    reach 10 restarts in 60 s. More than `max_restarts` restarts of all children within `within` seconds is a storm; more than
    `max_consecutive` failures in a row of one child, with never `min_uptime` of health in between, is a child that cannot live.
    """

    max_restarts: int = 10
    within: float = 60.0
    max_consecutive: int = 8

    def __post_init__(self) -> None:
        if self.max_restarts < 0 or self.max_consecutive < 0 or self.within <= 0:
            raise ValueError(f"intensity needs counts of at least 0 and a positive period, got {self!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One child: its name, how to build it, and how to treat it. Durations in seconds.

    `id` is the actor's name, unique in the whole actor system. `start` is a factory that runs on the supervisor's thread at every
    start, so that each life begins with fresh state; it only constructs. `start_timeout` runs until the child says that
    it is ready, `stop_timeout` from the order to stop until it has ended. `hang_after` is how long it may be busy with one
    message (None: for ever). When a `significant` child ends for good, its supervisor ends too.
    """

    id: str
    start: Callable[[], Actor]
    restart: Restart = Restart.PERMANENT
    start_timeout: float = 10.0
    stop_timeout: float = 5.0
    hang_after: float | None = None
    backoff: Backoff = Backoff()
    significant: bool = False

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a child needs an id: it is the name that messages are sent to")
        if self.start_timeout <= 0 or self.stop_timeout <= 0 or (self.hang_after is not None and self.hang_after <= 0):
            raise ValueError(f"the timeouts of child {self.id!r} must be positive")
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(f"child {self.id!r} is permanent, so it never ends for good and cannot be significant")
