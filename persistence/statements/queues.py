"""Queues, kept counters, and a job's place in its queue. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.queues`."""

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.sqlite import insert

from ..schema import job_counts, queues
from .build import NULL, lit

_paused = insert(queues).values(name=bindparam("name"), paused_at=bindparam("now"))
PAUSE = _paused.on_conflict_do_update(
    index_elements=["name"], set_={"paused_at": _paused.excluded.paused_at}, where=queues.c.paused_at.is_(NULL)
)
RESUME = text("UPDATE llm_queues SET paused_at = NULL WHERE name = :name AND paused_at IS NOT NULL")
PAUSED_AT = select(queues.c.paused_at).where(queues.c.name == bindparam("name"))
QUEUES = text("""
    SELECT queue, state, sum(jobs) FROM llm_job_counts GROUP BY queue, state HAVING sum(jobs) > 0
    UNION ALL SELECT name, NULL, paused_at FROM llm_queues
    ORDER BY 1, 2
    """)

COUNTS = (
    select(job_counts.c.type, job_counts.c.state, func.sum(job_counts.c.jobs))
    .group_by(job_counts.c.type, job_counts.c.state)
    .having(func.sum(job_counts.c.jobs) > lit(0))
)
# Each counter that is wrong: its place, what it says, and how many jobs there are.
MISCOUNTED = text("""
    SELECT queue, type, state, sum(kept), sum(counted) FROM (
        SELECT queue, type, state, jobs AS kept, 0 AS counted FROM llm_job_counts
        UNION ALL SELECT queue, type, state, 0, count(*) FROM llm_jobs GROUP BY queue, type, state
    ) GROUP BY queue, type, state HAVING sum(kept) <> sum(counted)
    """)
RECOUNT = text("""
    INSERT INTO llm_job_counts (queue, type, state, jobs) VALUES (:queue, :type, :state, :jobs)
    ON CONFLICT DO UPDATE SET jobs = excluded.jobs
    """)

# Of one group, if the job has one, by the order they are claimed in.
AHEAD = text("""
    SELECT count(*) FROM (
        SELECT 1 FROM llm_jobs AS job JOIN llm_jobs AS other ON other.state = 'waiting' AND other.lane = job.lane AND other.rank > job.rank
        WHERE job.id = :job_id
        UNION ALL
        SELECT 1 FROM llm_jobs AS job
        JOIN llm_jobs AS other ON other.state = 'waiting' AND other.lane = job.lane AND other.rank = job.rank AND other.id < job.id
        WHERE job.id = :job_id
        LIMIT 1000
    )
    """)
WORKED_ON = text("SELECT count(*) FROM llm_jobs WHERE state = 'active' AND group_key = :group_key")
# What the first of the lane was told also goes for those behind it, which are not all written to.
LANE_NOTE = text("""
    SELECT held_by FROM llm_jobs WHERE id = (
        SELECT first.id FROM llm_jobs AS job JOIN llm_jobs AS first ON first.state = 'waiting' AND first.lane = job.lane
        WHERE job.id = :job_id ORDER BY first.rank DESC, first.id LIMIT 1
    ) AND held_until IS NULL AND held_by LIKE 'unroutable:%'
    """)
