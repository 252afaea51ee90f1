"""How every limit key stands, from the database alone: what people and doctor look at. Reads only."""

from typing import Any

from .engine import Connection
from .json_text import loads
from .limit_rules import DIMENSIONS, NOTHING, Charge, factor_at
from .limits import holds
from .model import LimitHold
from .sql import Prepared

_KEYS = Prepared("limits.KEYS")
_USED = Prepared("limits.USED")
_DAYS_SINCE = Prepared("limits.DAYS_SINCE")
_OPEN_BY_KEY = Prepared("limits.OPEN_BY_KEY")
_HELD_JOBS = Prepared("limits.HELD_JOBS")

LINE_FRESH_MS = 10_000
"""Who stands in line leaves it after some seconds: an older description says nothing of that any more."""
TWO_DAYS_MS = 2 * 86_400_000


def overview(c: Connection, now: int) -> list[dict[str, Any]]:
    """Each key by name, JSON-ready; times in epoch milliseconds.

    `minute` and `day`: limit, used and free of each dimension. `hold`: why and until when nothing is admitted. `factor`: how far the limits are
    lowered after refusals. `waiting`: calls in line at the workers, jobs that were sent back to wait, and when the first and the last of
    these may be claimed again.
    """
    used = {key: Charge(*sums) for key, *sums in c.run(_USED, {"now": now})}
    days = {(key, day): Charge(*sums) for key, day, *sums in c.run(_DAYS_SINCE, {"since": now - TWO_DAYS_MS})}
    in_flight: dict[str, int] = dict(c.run(_OPEN_BY_KEY))
    held_jobs = {key: (jobs, first, last) for key, jobs, first, last in c.run(_HELD_JOBS, {"now": now})}
    standing = {hold.key: hold for hold in holds(c) if hold.until > now}
    found: dict[str, dict[str, Any]] = {}
    for key, factor, factor_since, _, description, _ in c.run(_KEYS):
        told = sorted(loads(description).values(), key=lambda one: one.get("at", 0))
        newest = told[-1] if told else {}
        account = newest.get("account", key.partition("/")[0])
        line = [one for one in told if now - one.get("at", 0) < LINE_FRESH_MS]
        found[key] = {
            "key": key,
            "account": account,
            "minute": _dimensions(newest.get("minute", {}), used.get(key, NOTHING)),
            "day": _day(newest.get("day") or {}, days, key, now),
            "concurrency": _against(newest.get("concurrency", {}).get("limit"), in_flight.get(key, 0)),
            "factor": factor_at(factor, factor_since, now),
            "hold": _longest([standing.get(key), standing.get(account)]),
            "waiting": _waiting(sum(one.get("waiting", 0) for one in line), held_jobs.get(key)),
        }
    for key, hold in standing.items():
        if key not in found and not any(one["account"] == key for one in found.values()):
            found[key] = {
                "key": key,
                "account": key.partition("/")[0],
                "minute": {},
                "day": {},
                "concurrency": _against(None, in_flight.get(key, 0)),
                "factor": 1.0,
                "hold": _longest([hold]),
                "waiting": _waiting(0, held_jobs.get(key)),
            }
    return [found[key] for key in sorted(found)]


def _dimensions(told: dict[str, Any], used: Charge) -> dict[str, Any]:
    limits = {name: told.get(name, {}).get("limit") for name in DIMENSIONS}
    return {
        name: _against(limit, amount)
        for (name, limit), amount in zip(limits.items(), used, strict=True)
        if limit is not None
    }


def _day(told: dict[str, Any], days: dict[tuple[str, int], Charge], key: str, now: int) -> dict[str, Any]:
    ends = told.get("ends_ms")
    if ends is None:
        return {}
    # A day that has ended since was told: nothing is used of the new one, or its workers would have said so.
    used = days.get((key, told["began_ms"]), NOTHING) if ends > now else NOTHING
    counted = {
        name: _against(told[name]["limit"], amount)
        for name, amount in zip(DIMENSIONS, used, strict=True)
        if name in told
    }
    return {**counted, "ends_ms": ends if ends > now else None}


def _against(limit: int | None, used: int) -> dict[str, Any]:
    return {"limit": limit, "used": used, "free": None if limit is None else max(0, limit - used)}


def _longest(found: list[LimitHold | None]) -> dict[str, Any] | None:
    standing = [hold for hold in found if hold is not None]
    if not standing:
        return None
    hold = max(standing, key=lambda hold: hold.until)
    return {"key": hold.key, "kind": hold.kind, "reason": hold.reason, "since_ms": hold.at, "until_ms": hold.until}


def _waiting(in_line: int, held: tuple[int, int, int] | None) -> dict[str, Any]:
    jobs, first, last = held or (0, None, None)
    return {"in_line": in_line, "jobs": jobs, "from_ms": first, "until_ms": last}
