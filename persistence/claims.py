"""Who works on what: planning by lanes, claiming, leases, and getting back the jobs of the dead.

Each function is one move, called inside the caller's write transaction (`with connection.write():`). All jobs of a lane (queue, type and
model) are alike to the dispatcher, so that a claim can leave out whole lanes that are paused, held by a limit or beyond this worker's
abilities without looking at their jobs: its cost does not grow with what is waiting.

A process death implicates every job it had in flight. Such jobs become suspects after `suspect_after` losses: they are claimed one at a
time, alone, and only a loss while alone convicts one as poison.
"""

import json
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import bindparam, func, or_, select, text, update

from . import ledger
from .engine import Connection
from .job_store import take_back
from .json_text import dumps, loads
from .lifecycle import JobState
from .model import ClaimedJob, JobOptions, LaneDepth, Lease
from .schema import job_data, jobs
from .sql import NO_OFFSET, NULL, Prepared, lit, up_to

FOREVER = 2**63 - 1

_LANES = Prepared(
    text("""
    WITH RECURSIVE lanes(lane) AS (
        SELECT (SELECT lane FROM llm_jobs WHERE state = 'waiting' ORDER BY lane LIMIT 1)
        UNION ALL
        SELECT (SELECT lane FROM llm_jobs WHERE state = 'waiting' AND lane > lanes.lane ORDER BY lane LIMIT 1)
        FROM lanes WHERE lanes.lane IS NOT NULL
    )
    SELECT lane, (SELECT count(*) FROM (SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane = lanes.lane LIMIT :cap + 0))
    FROM lanes WHERE lane IS NOT NULL
    """)
)

_OWNERS = Prepared(
    text("""
    WITH RECURSIVE owners(owner) AS (
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' ORDER BY lease_owner LIMIT 1)
        UNION ALL
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' AND lease_owner > owners.owner ORDER BY lease_owner LIMIT 1)
        FROM owners WHERE owners.owner IS NOT NULL
    )
    SELECT owner FROM owners WHERE owner IS NOT NULL
    """)
)


def _claim(*, alone: bool) -> Prepared:
    """The one statement of a claim: candidates of every lane with a quota, best first, moved to `active` and returned."""
    lane = func.json_each(bindparam("quotas")).table_valued("key", "value", name="lane")
    mine = jobs.alias("mine")
    may_run = (
        mine.c.state == lit("waiting"),
        or_(mine.c.held_until.is_(None), mine.c.held_until <= bindparam("now")),
        or_(mine.c.start_by.is_(None), mine.c.start_by > bindparam("now")),
    )
    best_first = (mine.c.priority.desc(), mine.c.id)
    if alone:
        chosen = (
            select(mine.c.id)
            # The lane as an expression, so that the index of the suspects is the only one that helps.
            .select_from(mine.join(lane, lane.c.key == mine.c.lane.concat(lit(""))))
            .where(*may_run, mine.c.losses > lit(0), mine.c.losses >= bindparam("suspect_after"), lane.c.value > lit(0))
            .order_by(*best_first)
            .limit(lit(1))
            .offset(NO_OFFSET)
        )
    else:
        # The inner limit is what keeps this cheap: per lane it reads the index for as many jobs as could be claimed, in their order.
        of_lane = (
            select(mine.c.id)
            .where(*may_run, mine.c.lane == lane.c.key, mine.c.losses < bindparam("suspect_after"))
            .order_by(*best_first)
            .limit(up_to("slots"))
            .offset(NO_OFFSET)
            .correlate(lane)
            .scalar_subquery()
        )
        job = jobs.alias("job")
        # An outer join, whose order the planner may not turn round: after an ANALYZE it would read every job to find those of the lanes. A
        # lane without candidates yields a row of NULLs, which sorts last and matches no id.
        ranked = (
            select(
                job.c.id,
                job.c.priority,
                lane.c.value.label("quota"),
                func.row_number()
                .over(partition_by=lane.c.key, order_by=(job.c.priority.desc(), job.c.id))
                .label("place"),
            )
            .select_from(lane.outerjoin(job, job.c.id.in_(of_lane)))
            .subquery("ranked")
        )
        chosen = (
            select(ranked.c.id)
            .where(ranked.c.place <= ranked.c.quota)
            .order_by(ranked.c.priority.desc(), ranked.c.id)
            .limit(up_to("slots"))
            .offset(NO_OFFSET)
        )
    return Prepared(
        update(jobs)
        .where(jobs.c.id.in_(chosen))
        .values(
            state=lit("active"),
            lease_epoch=jobs.c.lease_epoch + lit(1),
            lease_owner=bindparam("owner"),
            lease_until=bindparam("lease_until"),
            alone=lit(int(alone)),
            attempt=jobs.c.attempt + lit(1),
            held_by=NULL,
            held_until=NULL,
            progress=lit(0),
            progress_message=NULL,
            started_at=bindparam("now"),
            updated_at=bindparam("now"),
            changed_by=bindparam("actor"),
            reason=NULL,
        )
        .returning(
            jobs.c.id,
            jobs.c.lease_epoch,
            jobs.c.type,
            jobs.c.queue,
            jobs.c.model,
            jobs.c.priority,
            jobs.c.attempt,
            jobs.c.failures,
            jobs.c.losses,
            jobs.c.max_attempts,
        )
    )


_CLAIM = _claim(alone=False)
_CLAIM_ALONE = _claim(alone=True)

_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
_BODIES = Prepared(select(job_data.c.job_id, job_data.c.data, job_data.c.options).where(job_data.c.job_id.in_(_ids)))

_SUSPECTS = Prepared(
    select(lit(1))
    .select_from(jobs)
    .where(
        jobs.c.state == lit("waiting"),
        jobs.c.losses > lit(0),
        jobs.c.losses >= bindparam("suspect_after"),
        or_(jobs.c.held_until.is_(None), jobs.c.held_until <= bindparam("now")),
        # As an expression, so that the index of the suspects is the only one that helps.
        jobs.c.lane.concat(lit("")).in_(select(func.json_each(bindparam("lanes")).table_valued("value").c.value)),
    )
    .limit(lit(1))
    .offset(NO_OFFSET)
)

_HOLD_LANE = Prepared(
    update(jobs)
    .where(
        jobs.c.id.in_(
            select(jobs.c.id)
            .where(jobs.c.state == lit("waiting"), jobs.c.lane == bindparam("lane"), jobs.c.held_by.is_(None))
            .limit(up_to("limit"))
            .offset(NO_OFFSET)
            .correlate(None)
        )
    )
    .values(held_by=bindparam("reason"), updated_at=bindparam("now"))
)

_PROMOTE = Prepared(
    update(jobs)
    .where(
        jobs.c.id.in_(
            select(jobs.c.id)
            .where(jobs.c.state == lit("delayed"), jobs.c.run_at <= bindparam("now"))
            .order_by(jobs.c.run_at)
            .limit(up_to("limit"))
            .offset(NO_OFFSET)
            .correlate(None)
        )
    )
    .values(
        state=lit("waiting"), run_at=NULL, updated_at=bindparam("now"), changed_by=bindparam("actor"), reason=lit("due")
    )
)

_EXPIRE = Prepared(
    update(jobs)
    .where(
        jobs.c.id.in_(
            select(jobs.c.id)
            .where(jobs.c.state == lit("waiting"), jobs.c.start_by.is_not(None), jobs.c.start_by <= bindparam("now"))
            .order_by(jobs.c.start_by)
            .limit(up_to("limit"))
            .offset(NO_OFFSET)
            .correlate(None)
        )
    )
    .values(
        state=lit("failed"),
        held_by=NULL,
        held_until=NULL,
        finished_at=bindparam("now"),
        updated_at=bindparam("now"),
        changed_by=bindparam("actor"),
        reason=lit("not started by its deadline"),
    )
    .returning(jobs.c.id)
)

_DUE = Prepared(
    text("""
    SELECT min(due) FROM (
        SELECT (SELECT min(run_at) FROM llm_jobs WHERE state = 'delayed') AS due
        UNION ALL SELECT (SELECT min(start_by) FROM llm_jobs WHERE state = 'waiting' AND start_by IS NOT NULL)
        UNION ALL SELECT (SELECT min(held_until) FROM llm_jobs WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now)
    )
    """)
)

_RENEW = Prepared(
    update(jobs)
    .where(jobs.c.state == lit("active"), jobs.c.lease_owner == bindparam("owner"))
    .values(lease_until=bindparam("until"))
)

_LOST = Prepared(
    text("""
    SELECT json_extract(held.value, '$[0]'), json_extract(held.value, '$[1]') FROM json_each(:leases) AS held
    WHERE NOT EXISTS (
        SELECT 1 FROM llm_jobs WHERE id = json_extract(held.value, '$[0]') AND lease_epoch = json_extract(held.value, '$[1]') AND state = 'active'
    )
    """)
)

_OWNED = Prepared(
    select(jobs.c.id, jobs.c.lease_epoch, jobs.c.started_at)
    .where(
        jobs.c.state == lit("active"),
        jobs.c.lease_owner == bindparam("owner"),
        jobs.c.lease_until <= bindparam("expired_by"),
    )
    .order_by(jobs.c.lease_until, jobs.c.id)
    .limit(up_to("limit"))
    .offset(NO_OFFSET)
)


def lanes(c: Connection, *, cap: int = 64) -> list[LaneDepth]:
    """The lanes that have waiting jobs, each with its depth counted up to `cap`. Costs a few index steps per lane, not per job."""
    found = []
    for lane, waiting in c.run(_LANES, {"cap": cap}):
        queue, kind, model = lane.split("|", 2)
        found.append(LaneDepth(lane, queue, kind, model or None, waiting))
    return found


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
) -> list[ClaimedJob]:
    """Claim up to `slots` waiting jobs, at most `quotas[lane]` of each lane and none of a lane not named; highest priority first, then oldest.

    Jobs that are held, past their `start_by`, or suspects are passed over; with `alone` exactly one suspect is claimed, and nothing else.
    Each comes with what it needs to start, and with its memo if it was claimed before. Times in epoch milliseconds.
    """
    params = {
        "owner": owner,
        "quotas": json.dumps(quotas),
        "lease_until": lease_until,
        "now": now,
        "actor": actor,
        "suspect_after": suspect_after,
    }
    rows = c.run(_CLAIM_ALONE, params) if alone else c.run(_CLAIM, {**params, "slots": slots})
    if not rows:
        return []
    rows.sort(key=lambda row: (-row[5], row[0]))
    bodies = {
        job_id: (data, options)
        for job_id, data, options in c.run(_BODIES, {"ids": json.dumps([row[0] for row in rows])})
    }
    again = [row[0] for row in rows if row[6] > 1]
    memos = ledger.memo(c, again) if again else {}
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
            memo=memos.get(job_id),
        )
        for job_id, epoch, kind, queue, model, priority, attempt, failures, losses, max_attempts in rows
    ]


def read_options(stored: str) -> JobOptions:
    """A row's options. The table's CHECK has seen to the types; keys of a later release are passed over."""
    if stored == "{}":
        return JobOptions()
    known = {
        name: value
        for name, value in loads(stored).items()
        if name in JobOptions.__dataclass_fields__ and value is not None
    }
    return JobOptions(**known)


def suspects_waiting(c: Connection, *, lanes: Iterable[str], now: int = FOREVER, suspect_after: int = 2) -> bool:
    """Whether jobs wait in these lanes that may only be claimed alone (and are not held beyond `now`).

    A suspect in a lane that nobody here can run now must not keep the others waiting.
    """
    return bool(c.run(_SUSPECTS, {"suspect_after": suspect_after, "now": now, "lanes": json.dumps(list(lanes))}))


def hold_lane(c: Connection, lane: str, reason: str, now: int, *, limit: int = 1000) -> int:
    """Note on the waiting jobs of a lane why nobody runs them; they stay waiting. Returns how many were noted, `limit` at most."""
    return c.change(_HOLD_LANE, {"lane": lane, "reason": reason, "now": now, "limit": limit})


def promote_due(c: Connection, now: int, limit: int, *, actor: str = "store") -> int:
    """Send delayed jobs whose time has come to waiting, `limit` at most. Returns how many."""
    return c.change(_PROMOTE, {"now": now, "limit": limit, "actor": actor})


def expire_unstarted(c: Connection, now: int, limit: int, *, actor: str = "store") -> int:
    """Fail waiting jobs that nobody started by their `start_by`, `limit` at most. Returns how many."""
    expired = c.run(_EXPIRE, {"now": now, "limit": limit, "actor": actor})
    error = dumps({"class": "expired", "message": "not started by its deadline"})
    c.change_many(ledger.STORE_RESULT, [{"job_id": job_id, "result": None, "error": error} for (job_id,) in expired])
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
