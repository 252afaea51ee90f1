"""The log as a feed. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.events`."""

from sqlalchemy import bindparam, func, or_, select

from ..lifecycle import TERMINAL_STATES
from ..schema import jobs, transitions
from .build import NO_OFFSET, lit, one_of, up_to

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

_wanted = func.json_each(bindparam("ids")).table_valued("value", name="wanted")
# A deleted job counts as ended: whoever waits for it is to find out.
ENDED = (
    select(_wanted.c.value)
    .select_from(_wanted.outerjoin(jobs, jobs.c.id == _wanted.c.value))
    .where(or_(jobs.c.id.is_(None), jobs.c.state.in_(one_of(TERMINAL_STATES))))
)
