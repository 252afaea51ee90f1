"""The log as a feed. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.events`."""

from sqlalchemy import bindparam, func, select

from ..schema import jobs, transitions
from .build import NO_OFFSET, lit, up_to

_log = (
    select(
        transitions.c.id,
        transitions.c.job_id,
        jobs.c.type,
        transitions.c.from_state,
        transitions.c.to_state,
        transitions.c.at,
        transitions.c.epoch,
        transitions.c.attempt,
        transitions.c.actor,
        transitions.c.reason,
    )
    .join(jobs, jobs.c.id == transitions.c.job_id)
    .where(transitions.c.id > bindparam("after"))
    .order_by(transitions.c.id)
    .limit(up_to("page"))
    .offset(NO_OFFSET)
)
PAGE = _log
PAGE_OF_JOB = _log.where(transitions.c.job_id == bindparam("wanted"))
NEWEST = select(func.coalesce(func.max(transitions.c.id), lit(0)))
