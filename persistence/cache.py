"""Answers that may be given again to exactly the same request, and calls whose answers others wait for.

The key says what is the same (`actors.runner.caching.key_of`); nothing here knows what is in it. An answer that is found is booked at once as a
call of its own that made no request, so that its step is memoised like any other.

**Calls under way** (`llm_cache_flights`) are led by a lease: whoever asks for the same meanwhile waits, and takes the lead as soon as that lease
is void, whatever became of its holder. So nobody waits for a dead process longer than its job does.

Functions that write are called inside the caller's write transaction.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from .engine import Connection
from .json_text import dumps, loads
from .model import CallIntent, Lease
from .sql import Prepared

_FIND = Prepared("cache.FIND")
_USED = Prepared("cache.USED")
_KEEP = Prepared("cache.KEEP")
_HIT = Prepared("cache.HIT")
_COMPLETION = Prepared("ledger.COMPLETION")
_LEAD = Prepared("cache.LEAD")
_LAND = Prepared("cache.LAND")
_FORGET_FLIGHTS = Prepared("cache.FORGET_FLIGHTS")
_SIZE = Prepared("cache.SIZE")
_OVERVIEW = Prepared("cache.OVERVIEW")
_SAVED = Prepared("cache.SAVED")
_OLDEST = Prepared("cache.OLDEST")
_DROP = Prepared("cache.DROP")

STEP = 500
"""Answers dropped in one transaction, at most."""


@dataclass(frozen=True, slots=True)
class Flight:
    """The call of a lease (its number there) that asks what `key` names."""

    key: str
    lease: Lease
    number: int

    def params(self) -> dict[str, Any]:
        """As its statements take it."""
        return {"key": self.key, "job_id": self.lease.job_id, "epoch": self.lease.epoch, "number": self.number}


class CacheStatus(NamedTuple):
    """What is kept. `bytes` of answers as JSON, `hits` of what is kept now, `oldest` and `newest` in epoch milliseconds.

    `given`: answers from the cache in the ledger, and `saved` what they had cost when they were first given, nano-dollars (None: nothing known).
    """

    entries: int
    bytes: int
    hits: int
    oldest: int | None
    newest: int | None
    given: int
    saved: int | None


def give(c: Connection, key: str, lease: Lease, intent: CallIntent, max_age_ms: int, now: int) -> dict[str, Any] | None:
    """Book a kept answer that is young enough for this step, and return it (JSON form); None if there is none, or the lease is void."""
    found = c.run(_FIND, {"key": key, "oldest": now - max_age_ms})
    if not found:
        return None
    text, cost = found[0]
    completion: dict[str, Any] = loads(text)
    rows = c.run(
        _HIT,
        {
            "job_id": lease.job_id,
            "epoch": lease.epoch,
            "step": intent.step,
            "fingerprint": intent.fingerprint,
            "provider": intent.provider,
            "model": intent.model,
            "limit_key": intent.limit_key,
            "finish": completion.get("finish"),
            "saved": cost,
            "now": now,
        },
    )
    if not rows:
        return None
    c.change(_COMPLETION, {"call_id": rows[0][0], "completion": text})
    c.change(_USED, {"key": key, "now": now})
    return completion


def lead(c: Connection, flight: Flight, now: int) -> bool:
    """Whether this call is the one to be made; False: another one is under way, or this lease is void (`ledger.lease_stands`)."""
    return c.change(_LEAD, {**flight.params(), "now": now}) == 1


def land(c: Connection, flight: Flight) -> None:
    """The call has ended, or will not be made: nobody need wait for it."""
    c.change(_LAND, flight.params())


def keep(c: Connection, key: str, completion: dict[str, Any], cost: int | None, now: int) -> None:
    """Keep an answer (JSON form) and what it cost, in place of what was there."""
    text = dumps(completion)
    c.change(_KEEP, {"key": key, "completion": text, "cost": cost, "bytes": len(text), "now": now})


def prune(c: Connection, max_entries: int, max_bytes: int) -> int:
    """Drop those answers that were least recently used until what is left is within both, but at most `STEP` of them. Returns how many."""
    entries, size = c.run(_SIZE, {})[0]
    if entries <= max_entries and size <= max_bytes:
        return 0
    dropped = 0
    for key, length in c.run(_OLDEST, {"limit": STEP}):
        if entries <= max_entries and size <= max_bytes:
            break
        c.change(_DROP, {"key": key})
        entries, size, dropped = entries - 1, size - length, dropped + 1
    return dropped


def forget_flights(c: Connection) -> int:
    """Drop what is left of calls whose lease is void. Returns how many."""
    return c.change(_FORGET_FLIGHTS, {})


def clear(c: Connection) -> int:
    """Drop some of what is kept, few enough for one transaction: to be called until it returns 0, each time in a transaction of its own."""
    return prune(c, 0, 0)


def status(c: Connection) -> CacheStatus:
    """What is kept, and what it has saved. Reads only."""
    return CacheStatus(*c.run(_OVERVIEW, {})[0], *c.run(_SAVED, {})[0])
