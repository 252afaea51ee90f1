"""What to claim and how many runners to keep. Pure: no clock, no thread, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..persistence.model import LaneDepth
from .settings import CompanySettings, UnknownModelError, route

NEEDS_MODEL = frozenset({"chat"})
"""Types that cannot run without a model, so that a default is looked for when a job names none."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many more jobs of a limit key may be claimed, and until when (epoch ms) that holds; after it, any number may."""

    left: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Quotas by lane, and the lanes nobody here can run with the reason. `keys`: the limit key of each lane that has one."""

    quotas: dict[str, int]
    unroutable: dict[str, str]
    keys: dict[str, str]


def plan_claim(
    lanes: Iterable[LaneDepth],
    *,
    slots: int,
    settings: CompanySettings,
    types: frozenset[str],
    allowances: Mapping[str, Allowance],
    now_ms: int,
) -> Plan:
    """Give each lane that can be run at most `slots`, and the lanes of a limit key together at most what its limiter allows.

    A key at its limit so costs the other keys nothing: its lanes are simply not named in the claim.
    """
    quotas: dict[str, int] = {}
    unroutable: dict[str, str] = {}
    keys: dict[str, str] = {}
    left: dict[str, int] = {}
    for lane in lanes:
        if lane.type not in types:
            unroutable[lane.lane] = f"no handler for type {lane.type!r} here (known: {', '.join(sorted(types))})"
            continue
        quota = slots
        if lane.model is not None or lane.type in NEEDS_MODEL:
            try:
                key = route(settings, lane.model).limit_key
            except UnknownModelError as error:
                unroutable[lane.lane] = str(error)
                continue
            keys[lane.lane] = key
            allowance = allowances.get(key)
            if allowance is not None and allowance.until_ms > now_ms:
                quota = min(slots, left.setdefault(key, allowance.left))
                left[key] -= quota
        if quota > 0:
            quotas[lane.lane] = quota
    return Plan(quotas, unroutable, keys)


def runners_allowed(*, minimum: int, maximum: int, running: int, memory_mb: float | None, cap_mb: float) -> int:
    """How many runners there may be: up to the maximum; no more than there are near the memory cap, one fewer over it."""
    if memory_mb is None or memory_mb < 0.95 * cap_mb:
        return maximum
    if memory_mb < cap_mb:
        return max(minimum, min(maximum, running))
    return max(minimum, min(maximum, running - 1))


def surplus(
    idle_since: Mapping[str, float], *, running: int, minimum: int, allowed: int, now: float, idle_timeout: float
) -> list[str]:
    """The idle runners to stop: those above what is allowed, and those idle for too long, the longest first; never below the minimum."""
    longest_first = sorted(idle_since, key=lambda name: (idle_since[name], name))
    over = max(0, running - allowed)
    tired = [name for name in longest_first if now - idle_since[name] >= idle_timeout]
    count = min(max(over, len(tired)), running - minimum)
    return longest_first[: max(0, count)]
