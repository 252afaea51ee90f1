"""Who works on what: planning by lanes, claiming, leases, and getting back the jobs of the dead.

Each function is one move, called inside the caller's write transaction (`with connection.write():`). All jobs of a lane (queue, type,
model and capabilities) are alike to the dispatcher, so that a claim can leave out whole lanes that are paused, held by a limit or beyond
this worker's abilities without looking at their jobs: its cost does not grow with what is waiting. Within a lane, jobs that share a group
stand together, so that a group at its limit is passed over at the cost of one step, and the groups take turns.

A process death implicates every job it had in flight. Such jobs become suspects after `suspect_after` losses: they are claimed one at a
time, alone, and only a loss while alone convicts one as poison.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import conversations, flows, ledger
from .engine import Connection
from .job_store import take_back
from .json_text import dumps, loads
from .lifecycle import JobState
from .model import ClaimedJob, JobOptions, LaneDepth, Lease
from .sql import Prepared

_LANES = Prepared("claims.LANES")
_OWNERS = Prepared("claims.OWNERS")
_CLAIM = Prepared("claims.CLAIM")
_SPREAD_END = Prepared("claims.SPREAD_END")
_CLAIM_ALONE = Prepared("claims.CLAIM_ALONE")
_BODIES = Prepared("claims.BODIES")
_SUSPECTS = Prepared("claims.SUSPECTS")
_HOLD_LANE = Prepared("claims.HOLD_LANE")
_FREE_LANE = Prepared("claims.FREE_LANE")
_AGE = Prepared("claims.AGE")
_PROMOTE = Prepared("claims.PROMOTE")
_EXPIRE = Prepared("claims.EXPIRE")
_DUE = Prepared("claims.DUE")
_RENEW = Prepared("claims.RENEW")
_LOST = Prepared("claims.LOST")
_OWNED = Prepared("claims.OWNED")

FOREVER = 2**63 - 1
PARTS = 500
"""How many groups a claim looks at; up to here their order is exact."""


def lanes(c: Connection, *, cap: int = 64) -> list[LaneDepth]:
    """The lanes that have waiting jobs, each with its depth counted up to `cap`. Costs a few index steps per lane, not per job."""
    return [
        LaneDepth(lane, queue, kind, model, waiting, _names(requires), bool(paused), bool(noted))
        for lane, queue, kind, model, waiting, requires, paused, noted in c.run(_LANES, {"cap": cap})
    ]


def _names(requires: str | None) -> tuple[str, ...]:
    return tuple(requires.split(",")) if requires else ()


def claim(
    c: Connection,
    *,
    owner: str,
    slots: int,
    quotas: Mapping[str, int],
    lease_until: int,
    now: int,
    actor: str,
    alone: bool = False,
    suspect_after: int = 2,
    shared: Mapping[str, str] | None = None,
    start: str = "",
    parts: int = PARTS,
) -> list[ClaimedJob]:
    """Claim up to `slots` waiting jobs, at most `quotas[lane]` of each lane and none of a lane not named.

    Lanes with the same value in `shared` have their quota (the same number) together. Highest priority first (with what ageing has added),
    then by the turns of their groups, then oldest: the first of each group goes before the second of any, and jobs that are being worked
    on, by any worker, count as turns their group has had. A job without a group is always the first of its own. Of a group no more than
    its `group_limit` are ever active; where its jobs differ in it, each waits until fewer
    than its own are, and those behind it with it.

    With more than `parts` groups waiting it looks at that many of them, from the group `start` on; let that move (`next_start`), and each
    has its turn.

    Jobs that are held, past their `start_by`, suspects or in a paused queue are passed over; with `alone` exactly one suspect is claimed,
    and nothing else.
    Each comes with what it needs to start, and with its memo if it was claimed before. Times in epoch milliseconds.
    """
    params = {
        "owner": owner,
        "quotas": _quotas(quotas, shared),
        "lease_until": lease_until,
        "now": now,
        "actor": actor,
        "suspect_after": suspect_after,
    }
    if alone:
        rows = c.run(_CLAIM_ALONE, params)
    else:
        rows = c.run(_CLAIM, {**params, "slots": slots, "start": start, "parts": parts})
        if not rows and start:  # nothing from there to the end
            rows = c.run(_CLAIM, {**params, "slots": slots, "start": "", "parts": parts})
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[6], row[0]))
    bodies = {
        job_id: (data, options)
        for job_id, data, options in c.run(_BODIES, {"ids": json.dumps([row[0] for row in rows])})
    }
    again = [row[0] for row in rows if row[1] > 1]  # by the epoch: what a group adopted was never claimed
    memos = ledger.memo(c, again) if again else {}
    inputs = flows.inputs(c, bodies)
    histories = conversations.histories(c, (row[0] for row in rows))
    return [
        ClaimedJob(
            lease=Lease(job_id, epoch),
            type=kind,
            queue=queue,
            model=model,
            priority=priority,
            attempt=attempt,
            failures=failures,
            losses=losses,
            max_attempts=max_attempts,
            alone=alone,
            data=loads(bodies[job_id][0]) if job_id in bodies else {},
            options=read_options(bodies[job_id][1]) if job_id in bodies else JobOptions(),
            requires=_names(requires),
            group=group,
            memo=memos.get(job_id),
            waited_on=tuple(inputs.get(job_id, ())),
            history=histories.get(job_id),
        )
        for job_id, epoch, kind, queue, model, priority, _, requires, group, attempt, failures, losses, max_attempts in rows
    ]


def _quotas(quotas: Mapping[str, int], shared: Mapping[str, str] | None) -> str:
    return json.dumps({lane: (quota, (shared or {}).get(lane, lane)) for lane, quota in quotas.items() if quota > 0})


def next_start(c: Connection, lanes: Iterable[str], start: str, *, parts: int = PARTS) -> str:
    """The group at which claims should begin after they have begun at `start` for a while: further on if they could not see all from there."""
    params = {"quotas": _quotas(dict.fromkeys(lanes, 1), None), "start": start, "parts": parts}
    return c.run(_SPREAD_END, params)[0][0] or ""


_LONGEST = 1e9
"""Seconds, or dollars: three decades, and less than `threading.TIMEOUT_MAX`."""


def read_options(stored: str) -> JobOptions:
    """A row's options. The table's CHECK has seen to the types; keys of a later release are passed over.

    What plain SQL wrote may be beyond all bounds (9e999 is valid JSON): it counts as the largest that timers and columns hold.
    """
    if stored == "{}":
        return JobOptions()
    known: dict[str, Any] = {
        name: value if isinstance(value, str) else _bounded(name, value)
        for name, value in loads(stored).items()
        if name in JobOptions.__dataclass_fields__ and value is not None
    }
    return JobOptions(**known)


def _bounded(name: str, value: float) -> float:
    if name == "deadline":
        return int(max(0, min(value, 1 << 53)))
    return max(-_LONGEST, min(value, _LONGEST))


def suspects_waiting(c: Connection, *, lanes: Iterable[str], now: int = FOREVER, suspect_after: int = 2) -> bool:
    """Whether jobs wait in these lanes that may only be claimed alone (and are not held beyond `now`).

    A suspect that nobody here can run now, because of its lane, its queue or its group's limit, must not keep the others waiting.
    """
    return bool(c.run(_SUSPECTS, {"suspect_after": suspect_after, "now": now, "lanes": json.dumps(list(lanes))}))


def hold_lane(c: Connection, lane: str, reason: str, now: int, *, limit: int = 1000) -> int:
    """Note on the waiting jobs of a lane why nobody runs them; they stay waiting. Returns how many were noted, `limit` at most."""
    return c.change(_HOLD_LANE, {"lane": lane, "reason": reason, "now": now, "limit": limit})


def free_lane(c: Connection, lane: str, now: int, *, limit: int = 1000) -> int:
    """Take the notes that nobody could run them off the waiting jobs of a lane. Returns how many had one, `limit` at most."""
    return c.change(_FREE_LANE, {"lane": lane, "now": now, "limit": limit})


def age(c: Connection, now: int, *, after: int, step: int, every: int, most: int, limit: int) -> int:
    """Raise what has waited: by `step` once it has for `after`, and again for every `every` more, up to `most`. `limit` jobs at most.

    Times in milliseconds. Waiting begins anew when a job comes back to waiting; what it was raised by, it keeps. Missed intervals are made up
    for. Returns how many were raised; with `limit` of them, there may be more.
    """
    return c.change(_AGE, {"now": now, "after": after, "step": step, "every": every, "most": most, "limit": limit})


def promote_due(c: Connection, now: int, limit: int, *, actor: str = "store") -> int:
    """Send delayed jobs whose time has come to waiting, `limit` at most. Returns how many."""
    return c.change(_PROMOTE, {"now": now, "limit": limit, "actor": actor})


def expire_unstarted(c: Connection, now: int, limit: int, *, actor: str = "store") -> int:
    """Fail waiting jobs that nobody started by their `start_by`, `limit` at most. Returns how many."""
    expired = c.run(_EXPIRE, {"now": now, "limit": limit, "actor": actor})
    error = dumps({"class": "expired", "message": "not started by its deadline"})
    c.change_many(ledger.STORE_RESULT, [{"job_id": job_id, "result": None, "error": error} for (job_id,) in expired])
    flows.settle_dependents(c, [job_id for (job_id,) in expired], now, actor)
    return len(expired)


def next_due(c: Connection, now: int = 0) -> int | None:
    """When the board next changes by time alone: the earliest `run_at` or `start_by`, or hold that ends after `now`."""
    due: int | None = c.run(_DUE, {"now": now})[0][0]
    return due


def renew(c: Connection, owner: str, lease_until: int) -> int:
    """Extend every lease of an owner. Returns how many it has."""
    return c.change(_RENEW, {"owner": owner, "until": lease_until})


def lost(c: Connection, leases: Iterable[Lease]) -> list[Lease]:
    """Which of these leases no longer stand."""
    return [Lease(*row) for row in c.run(_LOST, {"leases": json.dumps(list(leases))})]


def rescue(
    c: Connection,
    *,
    now: int,
    is_dead: Callable[[str], bool | None],
    my_owner: str,
    limit: int,
    actor: str = "rescue",
) -> list[tuple[int, JobState]]:
    """Take back the jobs of other processes that died: at once where `is_dead` is certain, else when their lease has passed.

    At most `limit` jobs a call. Own jobs are never touched: a process that runs this is alive. Returns each job and where it went: waiting,
    or failed if it is convicted as poison or parked for review of an unknown call.
    """
    back: list[tuple[int, JobState]] = []
    for (owner,) in c.run(_OWNERS):
        if owner == my_owner:
            continue
        dead = is_dead(owner) is True
        room = limit - len(back)
        for job_id, epoch, _ in c.run(_OWNED, {"owner": owner, "expired_by": FOREVER if dead else now, "limit": room}):
            reason = f"the process that ran it died ({owner})" if dead else f"its lease expired ({owner})"
            state = take_back(c, Lease(job_id, epoch), cause="loss", reason=reason, now=now, actor=actor)
            if state is not None:
                back.append((job_id, state))
        if len(back) >= limit:
            break
    return back


def owners(c: Connection) -> list[str]:
    """Every process that holds a job now."""
    return [owner for (owner,) in c.run(_OWNERS)]


def sweep_orphans(
    c: Connection,
    owner: str,
    keep: set[Lease] | frozenset[Lease],
    claimed_before: int,
    now: int,
    *,
    actor: str = "store",
) -> list[Lease]:
    """Hand back jobs this process holds but nobody in it works on: those not in `keep`, claimed before `claimed_before`."""
    swept = []
    for job_id, epoch, started_at in c.run(_OWNED, {"owner": owner, "expired_by": FOREVER, "limit": FOREVER}):
        lease = Lease(job_id, epoch)
        if lease in keep or started_at >= claimed_before:
            continue
        take_back(c, lease, cause="handback", reason="nobody was working on it", now=now, actor=actor)
        swept.append(lease)
    return swept
