"""What to claim and how many runners to keep. Pure: no clock, no thread, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..persistence.batches import DRIVERS
from ..persistence.model import LaneDepth
from .roster import DRIVER_TYPES, RunnerGroup, runner_groups
from .settings import CompanySettings, UnknownModelError, covers, route

NEEDS_MODEL = frozenset({"chat"})
"""Types that cannot run without a model, so that a default is looked for when a job names none."""
SET_OUT_TOGETHER = 8
LOOKS_TO_FILL = 12
"""Of one limit key a look takes `SET_OUT_TOGETHER` jobs at most, or in a large pool what fills it in so many looks. Calls that set out together
come back together, and then each waits at every step for all the others; taken by few, the first is on its way while the next are taken."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many more jobs of a limit key may be claimed, and until when (epoch ms) that holds; after it, any number may.

    `kind`: what holds a key of which none may (`LimitHold.kind`).
    """

    left: int
    until_ms: int
    kind: str = "rate"

    def less_one(self) -> "Allowance":
        """What remains when a job has been claimed. One that was asked for before the key was held changes nothing of why it is."""
        return replace(self, left=max(0, self.left - 1))


@dataclass(frozen=True, slots=True)
class Plan:
    """Quotas by lane, and the lanes nobody here can run with the reason.

    `keys`: the limit key of each lane that has one; lanes of one key have their quota, the same number, together. `groups`: the runner groups
    that can run each lane with a quota. `paused`, `elsewhere`: lanes left alone because their queue is paused, or because this worker is
    configured not to claim them.
    """

    quotas: dict[str, int]
    unroutable: dict[str, str]
    keys: dict[str, str]
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()
    elsewhere: frozenset[str] = frozenset()

    @property
    def most(self) -> int:
        """How many jobs may be claimed by it, where lanes of one key have their quota together."""
        return sum({self.keys.get(lane) or f"lane {lane}": quota for lane, quota in self.quotas.items()}.values())

    @property
    def refused(self) -> frozenset[str]:
        """The lanes this worker does not claim from, now or ever, but for limits and pauses."""
        return self.elsewhere.union(self.unroutable)


def plan_claim(
    lanes: Iterable[LaneDepth],
    *,
    slots: int,
    settings: CompanySettings,
    types: frozenset[str],
    allowances: Mapping[str, Allowance],
    now_ms: int,
    groups: tuple[RunnerGroup, ...] = (),
) -> Plan:
    """Give each lane that can be run at most `slots`, and the lanes of a limit key together at most what its limiter allows, and few at a time.

    A key at its limit so costs the other keys nothing: its lanes are simply not named in the claim. Without `groups`, those of the settings.
    """
    groups = groups or runner_groups(settings)
    quotas: dict[str, int] = {}
    unroutable: dict[str, str] = {}
    keys: dict[str, str] = {}
    capable: dict[str, frozenset[str]] = {}
    paused, elsewhere = set(), set()
    for lane in lanes:
        if lane.type not in DRIVER_TYPES and not _meant_for(settings, lane):
            elsewhere.add(lane.lane)
            continue
        if (obstacle := _obstacle(lane, types, groups)) is not None:
            unroutable[lane.lane] = obstacle
            continue
        quota = slots
        if lane.model is not None or lane.type in NEEDS_MODEL:
            try:
                key = _key_of(lane, settings, allowances, now_ms)
            except UnknownModelError as error:
                unroutable[lane.lane] = str(error)
                continue
            if lane.type == DRIVERS["batch"]:
                key = ""  # what a batch asks of its provider is not what limits and holds are about
            else:
                keys[lane.lane] = key
                quota = min(slots, max(SET_OUT_TOGETHER, settings.runners.max // LOOKS_TO_FILL))
            allowance = allowances.get(key)
            if allowance is not None and allowance.until_ms > now_ms:
                quota = min(quota, allowance.left)
        if lane.paused:
            paused.add(lane.lane)
        elif quota > 0:
            quotas[lane.lane] = quota
            capable[lane.lane] = frozenset(group.name for group in groups if group.can_run(lane))
    return Plan(quotas, unroutable, keys, capable, frozenset(paused), frozenset(elsewhere))


def _key_of(lane: LaneDepth, settings: CompanySettings, allowances: Mapping[str, Allowance], now_ms: int) -> str:
    """The limit key that the jobs of a lane will be admitted by: of its model, or of the first in its chain that it may go on to and that is not held.

    Raises UnknownModelError.
    """
    where = route(settings, lane.model)
    held, key = allowances.get(where.limit_key), where.limit_key
    for name in where.fallback:
        if held is None or held.left > 0 or held.until_ms <= now_ms or not covers(where.fallback_on, held.kind):
            break
        key = route(settings, name).limit_key
        held = allowances.get(key)
    return key


def _meant_for(settings: CompanySettings, lane: LaneDepth) -> bool:
    claims = settings.claims
    return (claims.types is None or lane.type in claims.types) and (
        claims.queues is None or lane.queue in claims.queues
    )


def _obstacle(lane: LaneDepth, types: frozenset[str], groups: tuple[RunnerGroup, ...]) -> str | None:
    """Why no runner here can run the jobs of a lane, whatever its model; None if one can."""
    if lane.type not in types:
        return f"no handler for type {lane.type!r} here (known: {', '.join(sorted(types - DRIVER_TYPES))})"
    if any(group.can_run(lane) for group in groups):
        return None
    taking = [group for group in groups if group.takes(lane)]
    if not taking:
        return f"no runner group here takes type {lane.type!r} in queue {lane.queue!r} (groups: {', '.join(group.name for group in groups)})"
    missing = min((sorted(set(lane.requires) - group.tags) for group in taking), key=len)
    has = sorted(frozenset().union(*(group.tags for group in taking)))
    return f"no runner here has {' and '.join(map(repr, missing))} (tags here: {', '.join(has) or 'none'})"


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
