"""The restart decision: a pure function, with no clock, no thread and no randomness of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..kernel.messages import ExitReason, Normal, Shutdown, explain
from .spec import Backoff, ChildSpec, Intensity, Restart


@dataclass(frozen=True, slots=True)
class History:
    """What a decision rests on. Times are monotonic seconds.

    `recent`: when children of this supervisor were last restarted, oldest first. `consecutive`: how often this child has been restarted
    without `min_uptime` of health in between. `ready_at`: since when the life that ended had been ready, None if it never was.
    """

    recent: tuple[float, ...] = ()
    consecutive: int = 0
    ready_at: float | None = None


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start the child again in `delay` seconds."""

    delay: float
    history: History


@dataclass(frozen=True, slots=True)
class Remove:
    """The child has ended for good."""


@dataclass(frozen=True, slots=True)
class Escalate:
    """There is no point in going on: the supervisor gives up."""

    reason: str


Decision: TypeAlias = RestartAfter | Remove | Escalate


def wants_restart(restart: Restart, reason: ExitReason) -> bool:
    """Return whether a child of this kind that ended for this reason is to be started again."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return not isinstance(reason, Normal | Shutdown)
        case Restart.TEMPORARY:
            return False


def backoff_delay(backoff: Backoff, consecutive: int, random_value: float) -> float:
    """Return the seconds to wait before restart number `consecutive` in a row; `random_value` is uniform in [0, 1).

    The jitter lies within the cap, so the cap holds. The exponent is bounded, because 2.0**1024 would raise.
    """
    full = min(backoff.cap, backoff.base * 2.0 ** min(consecutive, 1000))
    return full * (0.5 + random_value / 2)


def decide(
    spec: ChildSpec, intensity: Intensity, history: History, reason: ExitReason, now: float, random_value: float
) -> Decision:
    """Decide what follows from the end of a child. `now` is monotonic seconds, `random_value` uniform in [0, 1)."""
    if not wants_restart(spec.restart, reason):
        return Remove()
    healthy = history.ready_at is not None and now - history.ready_at >= spec.backoff.min_uptime
    consecutive = 0 if healthy else history.consecutive
    if consecutive >= intensity.max_consecutive:
        return Escalate(
            f"{spec.id!r} {explain(reason)}, after {consecutive} restarts in a row none of which lasted "
            f"{spec.backoff.min_uptime:g} s (limit {intensity.max_consecutive})"
        )
    recent = tuple(at for at in history.recent if now - at < intensity.within)
    if len(recent) >= intensity.max_restarts:
        return Escalate(
            f"{spec.id!r} {explain(reason)}, after {len(recent)} restarts of children within {intensity.within:g} s "
            f"(limit {intensity.max_restarts})"
        )
    delay = backoff_delay(spec.backoff, consecutive, random_value)
    return RestartAfter(delay, History((*recent, now), consecutive + 1))
