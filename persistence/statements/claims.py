"""Claims, leases and what time brings. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.claims`."""

from sqlalchemy import Executable, bindparam, func, or_, select, text, update

from ..schema import job_data, jobs
from .build import NO_OFFSET, NULL, lit, up_to

LANES = text("""
    WITH RECURSIVE lanes(lane) AS (
        SELECT (SELECT lane FROM llm_jobs WHERE state = 'waiting' ORDER BY lane LIMIT 1)
        UNION ALL
        SELECT (SELECT lane FROM llm_jobs WHERE state = 'waiting' AND lane > lanes.lane ORDER BY lane LIMIT 1)
        FROM lanes WHERE lanes.lane IS NOT NULL
    )
    SELECT lane, (SELECT count(*) FROM (SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane = lanes.lane LIMIT :cap + 0))
    FROM lanes WHERE lane IS NOT NULL
    """)

OWNERS = text("""
    WITH RECURSIVE owners(owner) AS (
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' ORDER BY lease_owner LIMIT 1)
        UNION ALL
        SELECT (SELECT lease_owner FROM llm_jobs WHERE state = 'active' AND lease_owner > owners.owner ORDER BY lease_owner LIMIT 1)
        FROM owners WHERE owners.owner IS NOT NULL
    )
    SELECT owner FROM owners WHERE owner IS NOT NULL
    """)


def _claim(*, alone: bool) -> Executable:
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
    return (
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


CLAIM = _claim(alone=False)
CLAIM_ALONE = _claim(alone=True)

_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
BODIES = select(job_data.c.job_id, job_data.c.data, job_data.c.options).where(job_data.c.job_id.in_(_ids))

SUSPECTS = (
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

HOLD_LANE = (
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

PROMOTE = (
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

EXPIRE = (
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

DUE = text("""
    SELECT min(due) FROM (
        SELECT (SELECT min(run_at) FROM llm_jobs WHERE state = 'delayed') AS due
        UNION ALL SELECT (SELECT min(start_by) FROM llm_jobs WHERE state = 'waiting' AND start_by IS NOT NULL)
        UNION ALL SELECT (SELECT min(held_until) FROM llm_jobs WHERE state = 'waiting' AND held_until IS NOT NULL AND held_until > :now)
    )
    """)

RENEW = (
    update(jobs)
    .where(jobs.c.state == lit("active"), jobs.c.lease_owner == bindparam("owner"))
    .values(lease_until=bindparam("until"))
)

LOST = text("""
    SELECT json_extract(held.value, '$[0]'), json_extract(held.value, '$[1]') FROM json_each(:leases) AS held
    WHERE NOT EXISTS (
        SELECT 1 FROM llm_jobs WHERE id = json_extract(held.value, '$[0]') AND lease_epoch = json_extract(held.value, '$[1]') AND state = 'active'
    )
    """)

OWNED = (
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
