"""Who a job is. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.identity`."""

from sqlalchemy import bindparam, select, text, update

from ..schema import job_data, jobs
from .build import NO_OFFSET, NULL, lit
from .host_store import NEW_COLUMNS

# Repeated literally from the index, or it is not used.
_LIVE = text("(state = 'waiting' OR state = 'delayed' OR state = 'waiting_children' OR state = 'active')")

LIVE = select(jobs.c.id, jobs.c.state, jobs.c.lease_epoch).where(jobs.c.unique_key == bindparam("unique_key"), _LIVE)

NEWEST = (
    select(jobs.c.id, jobs.c.created_at)
    .where(jobs.c.unique_key == bindparam("unique_key"))
    .order_by(jobs.c.id.desc())
    .limit(lit(1))
    .offset(NO_OFFSET)
)

PASS_ON = update(jobs).where(jobs.c.unique_key == bindparam("held_key"), _LIVE).values(unique_key=NULL)

# What a job is part of stays; what is to be done is replaced.
_KEPT = {"key", "unique_key", "state", "created_at", "conversation_id", "parent_id", "pending", "quorum"}
REPLACE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"))
    .values(
        {
            **{name: bindparam(name) for name in NEW_COLUMNS if name not in _KEPT},
            "updated_at": bindparam("created_at"),
            "changed_by": lit("host"),
            "reason": lit("debounced"),
        }
    )
)
REPLACE_DATA = (
    update(job_data)
    .where(job_data.c.job_id == bindparam("of_job"))
    .values(description=bindparam("description"), data=bindparam("data"), options=bindparam("options"))
)
