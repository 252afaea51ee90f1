"""The limits that all workers of a database share: what each key was charged, its holds, and how far it is lowered.

The transaction that records a call's intent is the gate: in it the charge is checked against what all workers together are charged, and is
made. So two workers can never be above a limit together, whatever each of them believes. What lapses is pruned as the key is used.

Every function that writes is called inside the caller's write transaction; the readers may run anywhere.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .engine import Connection
from .json_text import clean, dumps, loads
from .limit_rules import (
    DIMENSIONS,
    INTENT_WITHIN_MS,
    NOTHING,
    SUM_SLOT,
    Charge,
    Gate,
    Held,
    factor_at,
    lapse_ms,
    lowered,
    room,
    scaled,
)
from .model import LimitHold
from .sql import Prepared

_STANDING = Prepared("limits.STANDING")
_HELD = Prepared("limits.HELD")
_IN_FLIGHT = Prepared("limits.IN_FLIGHT")
_LAPSED = Prepared("limits.LAPSED")
_ADD_UP = Prepared("limits.ADD_UP")
_SLOTS = Prepared("limits.SLOTS")
_OTHERS_SLOTS = Prepared("limits.OTHERS_SLOTS")
_ALL_SLOTS = Prepared("limits.ALL_SLOTS")
_CHARGE = Prepared("limits.CHARGE")
_CHARGE_DAY = Prepared("limits.CHARGE_DAY")
_TAKE_OFF = Prepared("limits.TAKE_OFF")
_CORRECT_SUM = Prepared("limits.CORRECT_SUM")
_CORRECT_DAY = Prepared("limits.CORRECT_DAY")
_DAY = Prepared("limits.DAY")
_DAY_BY_OWNER = Prepared("limits.DAY_BY_OWNER")
_PRUNE = Prepared("limits.PRUNE")
_PRUNE_DAYS = Prepared("limits.PRUNE_DAYS")
_GATHER = Prepared("limits.GATHER")
_GATHERED = Prepared("limits.GATHERED")
_OPEN = Prepared("limits.OPEN")
_SET_HOLD = Prepared("limits.SET_HOLD")
_CLEAR_HOLD = Prepared("limits.CLEAR_HOLD")
_HOLDS = Prepared("limits.HOLDS")
_FREE_JOBS = Prepared("limits.FREE_JOBS")
_KEY = Prepared("limits.KEY")
_FACTORS = Prepared("limits.FACTORS")
_USE_KEY = Prepared("limits.USE_KEY")
_SET_FACTOR = Prepared("limits.SET_FACTOR")
_DESCRIBE = Prepared("limits.DESCRIBE")
_DESCRIPTION = Prepared("limits.DESCRIPTION")

KEEP_DAYS_MS = 3 * 86_400_000
"""How long the counts of a day are kept after it began."""
RETRY_SLOTS_MS = 100
"""Nobody can say when a call of another worker ends: look again after this time."""
FORGET_WORKER_MS = 60_000
"""A worker's description of its limiter is dropped when it is so much older than the newest."""


class Refusal(NamedTuple):
    """Why a call may not go, in words, and when (epoch ms) it may be otherwise."""

    reason: str
    until_ms: int


class Slot(NamedTuple):
    """What lapses at one moment (epoch ms)."""

    lapse_ms: int
    charge: Charge


class Day(NamedTuple):
    """What a day (by the epoch ms of its beginning) has been charged, by this worker and by all others."""

    day_ms: int
    own: Charge
    others: Charge


class Picture(NamedTuple):
    """How a key stands by what all workers have written: what lapses when, today's counts, calls in flight, holds, and the lowering."""

    own: tuple[Slot, ...]
    others: tuple[Slot, ...]
    days: tuple[Day, ...]
    own_open: int
    others_open: int
    holds: tuple[LimitHold, ...]
    factor: float
    factor_at_ms: int
    first_used_ms: int


# --- the gate ---------------------------------------------------------------------------------------------------------------------------


def held(c: Connection, key: str, account: str, now: int) -> Refusal | None:
    """The hold that keeps every call of a key from going, None if there is none. Reads only."""
    until = c.run(_HELD, {"key": key, "account": account, "now": now})[0][0]
    if until is None:
        return None
    hold = max(_holds_of(c, key, account, now), key=lambda hold: hold.until)
    return Refusal(hold.reason, hold.until)


def check(c: Connection, gate: Gate, now: int) -> Refusal | None:
    """Whether a call may go by what all workers have done, but for holds; None if it may. Writes nothing but what has lapsed away."""
    if gate.concurrency is not None:
        in_flight = c.run(_IN_FLIGHT, {"key": gate.key})[0][0]
        if in_flight >= gate.concurrency:
            return Refusal(
                f"{in_flight} of {gate.concurrency} calls of all workers are in flight", now + RETRY_SLOTS_MS
            )
    if not gate.counts:
        return None
    *used, first, latest, factor, factor_since = c.run(_STANDING, {"key": gate.key})[0]
    if first is not None and first <= now:
        used = _prune(c, gate.key, used, now)
    if latest is not None and latest > (horizon := lapse_ms(now + gate.delivery_ms, gate.window_ms)) + gate.delivery_ms:
        c.change(_GATHER, {"key": gate.key, "horizon": horizon})
        c.change(_GATHERED, {"key": gate.key, "horizon": horizon})
    lowering = 1.0 if factor is None else factor_at(factor, factor_since, now)
    for place, limit in enumerate(gate.minute):
        most = scaled(limit, lowering)
        if most is not None and not room(used[place] or 0, gate.charge[place], most):
            reason = f"{used[place]} of {most} {_named(place)} per minute are used by all workers"
            return Refusal(reason, _fits_at(c, gate, place, most, now))
    return _check_days(c, gate)


def charge(c: Connection, owner: str, gate: Gate, now: int) -> Held | None:
    """Charge a call that is about to leave; None if nothing of its key is limited."""
    if not gate.counts:
        return None
    at = min(now, max(gate.granted_ms, now - INTENT_WITHIN_MS)) + gate.delivery_ms
    slot = lapse_ms(at, gate.window_ms)
    params = {"key": gate.key, "owner": owner, **gate.charge._asdict()}
    c.change(_CHARGE, {**params, "slot": slot})
    c.change(_CHARGE, {**params, "slot": SUM_SLOT, "owner": ""})
    for day in gate.days:
        c.change(_CHARGE_DAY, {**params, "day": day})
    return Held(gate.key, slot, gate.days, gate.charge, gate.window_ms)


def settle(c: Connection, owner: str, held: Held, used: Charge | None, now: int) -> None:
    """Replace a charge by what the call really used; None: it is not known, the charge stands.

    Once per call. From now on it is held for a window, since the provider has counted it by now; what goes beyond the charge is held
    from now in any case, because nobody can say when it was counted.
    """
    real = held.charge if used is None else used
    counted_now = lapse_ms(now, held.window_ms)
    excess = Charge(*(max(0, mine - its) for mine, its in zip(real, held.charge, strict=True)))
    within = real.plus(excess, -1)
    slot = min(held.slot, counted_now)
    if held.slot <= now:  # it has lapsed
        within, counts = NOTHING, excess
    else:
        counts = real.plus(held.charge, -1)
        if slot != held.slot or within != held.charge:
            c.change(_TAKE_OFF, {"key": held.key, "owner": owner, "slot": held.slot, **held.charge._asdict()})
            _add(c, held.key, owner, slot, within)
    _add(c, held.key, owner, counted_now, excess)
    if counts != NOTHING:
        c.change(_CORRECT_SUM, {"key": held.key, **counts._asdict()})
    difference = real.plus(held.charge, -1)
    if difference != NOTHING:
        for day in held.days:
            c.change(_CORRECT_DAY, {"key": held.key, "owner": owner, "day": day, **difference._asdict()})


def _add(c: Connection, key: str, owner: str, slot: int, amount: Charge) -> None:
    if amount != NOTHING:
        c.change(_CHARGE, {"key": key, "owner": owner, "slot": slot, **amount._asdict()})


def _prune(c: Connection, key: str, used: list[Any], now: int) -> list[Any]:
    lapsed = Charge(*(amount or 0 for amount in c.run(_LAPSED, {"key": key, "now": now})[0]))
    c.change(_PRUNE, {"key": key, "now": now})
    c.change(_CORRECT_SUM, {"key": key, **NOTHING.plus(lapsed, -1)._asdict()})
    return [(amount or 0) - gone for amount, gone in zip(used, lapsed, strict=True)]


def _check_days(c: Connection, gate: Gate) -> Refusal | None:
    for day in gate.days:
        rows = c.run(_DAY, {"key": gate.key, "day": day})
        for place, limit in enumerate(gate.day):
            used = rows[0][place] or 0
            if limit is not None and not room(used, gate.charge[place], limit):
                reason = f"{used} of {limit} {_named(place)} per day are used by all workers"
                return Refusal(reason, gate.days_end_ms)
    return None


def _fits_at(c: Connection, gate: Gate, place: int, limit: int, now: int) -> int:
    rows = c.run(_ALL_SLOTS, {"key": gate.key, "now": now})
    held = sum(row[1 + place] for row in rows)
    for row in rows:
        held -= row[1 + place]
        if room(held, gate.charge[place], limit):
            return int(row[0])
    return now + gate.window_ms


def _named(place: int) -> str:
    return DIMENSIONS[place] if place == 0 else "tokens" if place == 3 else f"{DIMENSIONS[place]} tokens"


# --- the picture ------------------------------------------------------------------------------------------------------------------------


def picture(c: Connection, owner: str, key: str, account: str, days: Sequence[int], now: int) -> Picture:
    """How a key stands. `days`: the days that matter, by the epoch ms of their beginning."""
    params = {"key": key, "owner": owner, "now": now}
    counted = []
    for day in days:
        by_owner = {bool(mine): Charge(*sums) for mine, *sums in c.run(_DAY_BY_OWNER, {**params, "day": day})}
        counted.append(Day(day, by_owner.get(True, NOTHING), by_owner.get(False, NOTHING)))
    rows = c.run(_KEY, {"key": key})
    factor, factor_since, first_used = rows[0] if rows else (1.0, 0, now)
    own_open, others_open = c.run(_OPEN, {"key": key, "owner": owner})[0]
    return Picture(
        own=tuple(Slot(slot, Charge(*sums)) for slot, *sums in c.run(_SLOTS, params)),
        others=tuple(Slot(slot, Charge(*sums)) for slot, *sums in c.run(_OTHERS_SLOTS, params)),
        days=tuple(counted),
        own_open=own_open or 0,
        others_open=others_open or 0,
        holds=tuple(_holds_of(c, key, account, now)),
        factor=factor,
        factor_at_ms=factor_since,
        first_used_ms=first_used,
    )


def use_key(c: Connection, key: str, now: int) -> None:
    """Note that a key is in use from now on, if it was not before; and add up anew what its slots hold."""
    c.change(_USE_KEY, {"key": key, "now": now})
    c.change(_ADD_UP, {"key": key})


# --- holds and lowering -----------------------------------------------------------------------------------------------------------------


def set_hold(c: Connection, key: str, until: int, reason: str, now: int, kind: str = "rate") -> LimitHold:
    """Admit nothing for a key (or for all keys of an account) before `until`, in all workers and through restarts. Never shortens a hold.

    Returns the hold that stands.
    """
    c.change(_SET_HOLD, {"key": key, "until": until, "reason": clean(reason), "kind": kind, "now": now})
    return next(hold for hold in holds(c) if hold.key == key)


def clear_hold(c: Connection, key: str) -> bool:
    """The key is no longer held; whether it was."""
    return c.change(_CLEAR_HOLD, {"key": key}) > 0


def resume(c: Connection, key: str, now: int) -> int:
    """Lift the hold of a key, and let the jobs that wait for it be claimed again; how many of them there were, -1 if there was no hold."""
    return free_jobs(c, key, now) if clear_hold(c, key) else -1


def free_jobs(c: Connection, key: str, now: int) -> int:
    """Let the jobs that wait for the hold of a key, or of its account, be claimed again; how many there were."""
    return c.change(_FREE_JOBS, {"key": key, "now": now})


def holds(c: Connection) -> list[LimitHold]:
    """Every hold on record, also those that have passed."""
    return [LimitHold(*row) for row in c.run(_HOLDS)]


def factors(c: Connection) -> dict[str, tuple[float, int]]:
    """The keys that were lowered: by which factor, and when."""
    return {key: (factor, since) for key, factor, since in c.run(_FACTORS)}


def lower(c: Connection, key: str, now: int) -> tuple[float, int]:
    """Lower the limits of a key after a refusal, unless that was done a moment ago; the factor, and since when."""
    rows = c.run(_KEY, {"key": key})
    factor, since = (rows[0][0], rows[0][1]) if rows else (1.0, 0)
    after = lowered(factor, since, now)
    if after != (factor, since):
        c.change(_SET_FACTOR, {"key": key, "factor": after[0], "factor_at": after[1], "now": now})
    return after


def describe(c: Connection, owner: str, key: str, description: dict[str, Any], now: int) -> None:
    """Keep how the limiter of a worker stands, for people to look at."""
    rows = c.run(_DESCRIPTION, {"key": key})
    known = loads(rows[0][0]) if rows else {}
    fresh = {name: told for name, told in known.items() if now - told.get("at", 0) < FORGET_WORKER_MS}
    fresh[owner] = {**description, "at": now}
    c.change(_DESCRIBE, {"key": key, "description": dumps(fresh), "now": now})
    c.change(_PRUNE_DAYS, {"key": key, "before": now - KEEP_DAYS_MS})


def _holds_of(c: Connection, key: str, account: str, now: int) -> list[LimitHold]:
    return [hold for hold in holds(c) if hold.key in (key, account) and hold.until > now]
