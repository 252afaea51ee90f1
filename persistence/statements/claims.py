"""Claims, leases and what time brings. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.claims`."""

from sqlalchemy import Executable, bindparam, case, func, select, text, update

from ..schema import job_data, jobs
from .build import NO_OFFSET, NULL, lit, up_to

# A lane, as claims are planned by, is what `llm_jobs.lane` begins with: all but the group's key. So it is a range of that column, from `lane|`
# to below `lane}`, the character after '|'; within it the jobs of each group stand together, each group's in the order they are claimed.
LANES = text("""
    WITH RECURSIVE lanes(lane, queue, type, model, requires, held_by) AS (
        SELECT queue || '|' || type || '|' || coalesce(model, '') || '|' || coalesce(requires, ''), queue, type, model, requires, held_by
        FROM llm_jobs WHERE id = (SELECT id FROM llm_jobs WHERE state = 'waiting' ORDER BY lane, rank DESC, id LIMIT 1)
        UNION ALL
        SELECT job.queue || '|' || job.type || '|' || coalesce(job.model, '') || '|' || coalesce(job.requires, ''),
            job.queue, job.type, job.model, job.requires, job.held_by
        FROM lanes CROSS JOIN llm_jobs AS job ON job.id = (
            SELECT id FROM llm_jobs WHERE state = 'waiting' AND lane >= lanes.lane || '}' ORDER BY lane, rank DESC, id LIMIT 1
        )
    )
    SELECT lane, queue, type, model,
        (SELECT count(*) FROM (
            SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane >= lanes.lane || '|' AND lane < lanes.lane || '}' LIMIT :cap + 0
        )),
        requires, EXISTS (SELECT 1 FROM llm_queues WHERE name = lanes.queue AND paused_at IS NOT NULL), coalesce(held_by LIKE 'unroutable:%', 0)
    FROM lanes
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


_MAY_RUN = "(mine.held_until IS NULL OR mine.held_until <= :now) AND (mine.start_by IS NULL OR mine.start_by > :now)"
_LANE = "mine.queue || '|' || mine.type || '|' || coalesce(mine.model, '') || '|' || coalesce(mine.requires, '')"
_PAUSED = "EXISTS (SELECT 1 FROM llm_queues WHERE name = {queue} AND paused_at IS NOT NULL)"
_WORKED_ON = "(SELECT count(*) FROM llm_jobs AS other WHERE other.state = 'active' AND other.group_key = {group})"
_IN_LANE = f"mine.state = 'waiting' AND mine.lane = {{lane}} AND {_MAY_RUN} AND mine.losses < :suspect_after ORDER BY mine.rank DESC, mine.id"
_NTH = "row_number() OVER (PARTITION BY job.group_key ORDER BY job.rank DESC, job.id) AS nth"
_TURN = "CASE WHEN group_key IS NULL THEN 1 ELSE worked_on + nth END"
_SUSPECT = f"""mine.state = 'waiting' AND mine.losses > 0 AND mine.losses >= :suspect_after
        AND (mine.group_limit IS NULL OR mine.group_limit > {_WORKED_ON.format(group="mine.group_key")})
        AND NOT {_PAUSED.format(queue="mine.queue")}"""

# `quotas`: lane → [how many, what it shares that number with]. Step by step:
#   spread  every group of every lane asked for that has waiting jobs (jobs without a group are one such), by skipping through the index:
#           `parts` of them at most, from the key `start`, so that ten thousand groups do not make a claim slow
#   heads   the best job of each of them, and whose turn it would be: among equal ranks the first of each group goes before any second,
#           and what is being worked on of a group counts as turns it has had
#   best    no more of them than could be claimed, so that a thousand groups are not read deeper than their heads
#   turned  as many jobs of each of those as could be claimed, and their turns
#   placed  those within their group's limit, numbered within their quota
# The joins are outer joins, whose order the planner may not turn round: after an ANALYZE it would read every job to find those of a lane.
# What finds no job yields a row of NULLs, which is left out.
_SPREAD = f"""
    WITH RECURSIVE spread(lane, quota, shared, part) AS (
        SELECT wanted.key, json_extract(wanted.value, '$[0]'), json_extract(wanted.value, '$[1]'), (
            SELECT lane FROM llm_jobs
            WHERE state = 'waiting' AND lane >= wanted.key || '|' || :start AND lane < wanted.key || '}}' ORDER BY lane LIMIT 1
        )
        FROM json_each(:quotas) AS wanted
        WHERE NOT {_PAUSED.format(queue="substr(wanted.key, 1, instr(wanted.key, '|') - 1)")}
        UNION ALL
        SELECT spread.lane, quota, shared,
            (SELECT lane FROM llm_jobs WHERE state = 'waiting' AND lane > spread.part AND lane < spread.lane || '}}' ORDER BY lane LIMIT 1)
        FROM spread WHERE spread.part IS NOT NULL
        LIMIT :parts + 0
    )"""
_BEST_FIRST = f"""{_SPREAD},
    heads AS (
        SELECT spread.part, spread.quota, spread.shared, job.id, job.rank, job.group_key, job.group_limit,
            {_WORKED_ON.format(group="job.group_key")} AS worked_on, {_NTH}
        FROM spread LEFT JOIN llm_jobs AS job
            ON job.id = (SELECT mine.id FROM llm_jobs AS mine WHERE {_IN_LANE.format(lane="spread.part")} LIMIT 1)
    ),
    best AS (
        SELECT part, quota, shared, worked_on FROM (
            SELECT *, row_number() OVER (PARTITION BY shared ORDER BY rank DESC, {_TURN}, id) AS place
            FROM heads WHERE id IS NOT NULL AND (group_limit IS NULL OR {_TURN} <= group_limit)
        ) WHERE place <= :slots
    ),
    turned AS (
        SELECT best.quota, best.shared, best.worked_on, job.id, job.rank, job.group_key, job.group_limit, {_NTH}
        FROM best LEFT JOIN llm_jobs AS job
            ON job.id IN (SELECT mine.id FROM llm_jobs AS mine WHERE {_IN_LANE.format(lane="best.part")} LIMIT :slots + 0)
    ),
    placed AS (
        SELECT id, rank, {_TURN} AS turn, quota, row_number() OVER (PARTITION BY shared ORDER BY rank DESC, {_TURN}, id) AS place
        FROM turned WHERE id IS NOT NULL AND (group_limit IS NULL OR {_TURN} <= group_limit)
    )
    SELECT id FROM placed WHERE place <= quota ORDER BY rank DESC, turn, id LIMIT :slots + 0
    """
# Where the next window of groups begins: at the last one of this window, of the lane that has come the least far. NULL: none was cut short.
SPREAD_END = text(f"""{_SPREAD}
    SELECT min(substr(last, length(lane) + 2)) FROM (SELECT lane, max(part) AS last FROM spread GROUP BY lane HAVING count(*) = count(part))
    """)

_BEST_SUSPECT = f"""
    SELECT mine.id FROM llm_jobs AS mine JOIN json_each(:quotas) AS wanted ON wanted.key = {_LANE}
    WHERE {_SUSPECT} AND {_MAY_RUN} AND json_extract(wanted.value, '$[0]') > 0
    ORDER BY mine.rank DESC, mine.id LIMIT 1
    """


def _claim(*, alone: bool) -> Executable:
    """The one statement of a claim: the best jobs of the lanes asked for, moved to `active` and returned."""
    chosen = text(_BEST_SUSPECT if alone else _BEST_FIRST).columns(jobs.c.id)
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
            jobs.c.rank,
            jobs.c.requires,
            jobs.c.group_key,
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

SUSPECTS = text(f"""
    SELECT 1 FROM llm_jobs AS mine
    WHERE {_SUSPECT} AND (mine.held_until IS NULL OR mine.held_until <= :now) AND {_LANE} IN (SELECT value FROM json_each(:lanes)) LIMIT 1
    """)

# Looks at no more jobs than it may note ten times over: a note is a courtesy, and a long lane must not hold up the others' writes.
HOLD_LANE = text("""
    UPDATE llm_jobs SET held_by = :reason, updated_at = :now WHERE id IN (
        SELECT id FROM (
            SELECT id, held_by FROM llm_jobs WHERE state = 'waiting' AND lane >= :lane || '|' AND lane < :lane || '}'
            ORDER BY lane, rank DESC, id LIMIT 10 * :limit
        ) WHERE held_by IS NULL LIMIT :limit + 0
    )
    """)
FREE_LANE = text("""
    UPDATE llm_jobs SET held_by = NULL, updated_at = :now WHERE id IN (
        SELECT id FROM (
            SELECT id, held_by, held_until FROM llm_jobs WHERE state = 'waiting' AND lane >= :lane || '|' AND lane < :lane || '}'
            ORDER BY lane, rank DESC, id LIMIT 10 * :limit
        ) WHERE held_until IS NULL AND held_by LIKE 'unroutable:%' LIMIT :limit + 0
    )
    """)

# By the time since a job came to wait or was last raised, the highest first: when there are more than one pass can raise, the oldest still get
# to the top, and there they need no more passes.
AGE = text("""
    WITH RECURSIVE levels(boost) AS (
        SELECT (SELECT boost FROM llm_jobs WHERE state = 'waiting' AND boost < :most ORDER BY boost DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT boost FROM llm_jobs WHERE state = 'waiting' AND boost < levels.boost ORDER BY boost DESC LIMIT 1)
        FROM levels WHERE levels.boost IS NOT NULL
    )
    UPDATE llm_jobs SET updated_at = :now,
        boost = min(:most, boost + :step * (1 + (:now - updated_at - CASE boost WHEN 0 THEN :after ELSE :every END) / :every))
    WHERE id IN (
        SELECT job.id FROM levels CROSS JOIN llm_jobs AS job
        WHERE job.state = 'waiting' AND job.boost = levels.boost
            AND job.updated_at <= :now - CASE levels.boost WHEN 0 THEN :after ELSE :every END
        LIMIT :limit + 0
    )
    """)

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
        # Its time has come, but perhaps not yet what it waits on.
        state=case((jobs.c.pending > lit(0), lit("waiting_children")), else_=lit("waiting")),
        run_at=NULL,
        updated_at=bindparam("now"),
        changed_by=bindparam("actor"),
        reason=lit("due"),
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
        UNION ALL SELECT (SELECT min(next_at) FROM llm_schedules WHERE paused_at IS NULL)
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
