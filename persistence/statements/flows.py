"""What jobs wait on: settling edges, waking and failing who waited, repair, children, reading a tree. SQLAlchemy Core and text, compiled ahead of time into `sql_text`; the functions are in `persistence.flows` and `persistence.family`."""

from dataclasses import fields
from typing import Any

from sqlalchemy import bindparam, case, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from ..lifecycle import TERMINAL_STATES, JobState
from ..model import JobRow
from ..schema import edges, jobs
from .build import NULL, lit, one_of


def _is(column: str, *states: JobState) -> str:
    """As comparisons: SQLite builds a table for every run of an IN list."""
    return "(" + " OR ".join(f"{column} = '{state}'" for state in states) + ")"


_ENDED = _is("target.state", *sorted(TERMINAL_STATES))
_by: dict[str, Any] = {"updated_at": bindparam("now"), "changed_by": bindparam("actor")}

KNOWN = text("SELECT job.id FROM json_each(:ids) AS wanted CROSS JOIN llm_jobs AS job ON job.id = wanted.value")

EDGE = insert(edges).values(
    {name: bindparam(name) for name in ("job_id", "depends_on", "step", "name", "place", "policy")}
)

# The order of the joins is ours (CROSS): from the few that ended to those who wait on them.
OPEN_ON = text(f"""
    SELECT edge.job_id, edge.depends_on, edge.step, edge.policy, edge.name, target.state
    FROM json_each(:ids) AS ended
    CROSS JOIN llm_jobs AS target ON target.id = ended.value AND {_ENDED}
    CROSS JOIN llm_job_edges AS edge ON edge.depends_on = target.id AND edge.state = 'open'
    LIMIT :limit + 0
    """)
OPEN_OF = text(f"""
    SELECT edge.job_id, edge.depends_on, edge.step, edge.policy, edge.name, target.state
    FROM json_each(:ids) AS waiting
    CROSS JOIN llm_job_edges AS edge ON edge.job_id = waiting.value AND edge.state = 'open'
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on AND {_ENDED}
    """)

SETTLE = (
    update(edges)
    .where(
        edges.c.job_id == bindparam("waiter"),
        edges.c.depends_on == bindparam("target"),
        edges.c.step == bindparam("of_step"),
    )
    .values(state=bindparam("settled"))
)

# A drifted counter must not make the transaction of an innocent job fail: it stops at 0, and the repair corrects it.
LESS_PENDING = (
    update(jobs)
    .where(jobs.c.id == bindparam("waiter"))
    .values(pending=func.max(lit(0), jobs.c.pending - bindparam("settled")))
    .returning(jobs.c.state, jobs.c.quorum, jobs.c.pending)
)

GROUPS = text("""
    SELECT job.id, job.state, job.quorum, job.pending, edge.step, coalesce(sum(edge.state = 'open'), 0),
           coalesce(sum(edge.state = 'met'), 0), count(edge.job_id)
    FROM json_each(:ids) AS waiting
    CROSS JOIN llm_jobs AS job ON job.id = waiting.value
    LEFT JOIN llm_job_edges AS edge ON edge.job_id = job.id
    GROUP BY job.id, edge.step
    """)
FAILED_NEEDS = text("""
    SELECT edge.depends_on, edge.name, target.state FROM llm_job_edges AS edge JOIN llm_jobs AS target ON target.id = edge.depends_on
    WHERE edge.job_id = :waiter AND edge.state = 'failed' ORDER BY edge.place, edge.depends_on LIMIT 3
    """)

MOOT_STEP = (
    update(edges)
    .where(edges.c.job_id == bindparam("waiter"), edges.c.state == lit("open"), edges.c.step == bindparam("of_step"))
    .values(state=lit("moot"))
)
MOOT_ALL = (
    update(edges).where(edges.c.job_id == bindparam("waiter"), edges.c.state == lit("open")).values(state=lit("moot"))
)
SET_PENDING = update(jobs).where(jobs.c.id == bindparam("waiter")).values(pending=bindparam("open"))

READY = (
    update(jobs)
    .where(jobs.c.id == bindparam("waiter"), jobs.c.state == lit("waiting_children"))
    .values(
        state=lit("waiting"),
        pending=lit(0),
        # "Started within" counts from when it may run.
        start_by=case((jobs.c.start_by.is_not(None), jobs.c.start_by - jobs.c.created_at + bindparam("now"))),
        reason=lit("what it waited on is done"),
        **_by,
    )
)
FAIL_WAITER = (
    update(jobs)
    .where(jobs.c.id == bindparam("waiter"), jobs.c.state.in_(one_of((JobState.WAITING_CHILDREN, JobState.DELAYED))))
    .values(
        state=lit("failed"),
        pending=lit(0),
        run_at=NULL,
        finished_at=bindparam("now"),
        reason=bindparam("reason"),
        **_by,
    )
)

PARKED = text("""
    SELECT max(id), count(*) FROM (SELECT id FROM llm_jobs WHERE state = 'waiting_children' AND id > :after ORDER BY id LIMIT :limit + 0)
    """)
PARKED_WRONG = text(f"""
    SELECT id FROM (
        SELECT id, pending FROM llm_jobs WHERE state = 'waiting_children' AND id > :after ORDER BY id LIMIT :limit + 0
    ) AS parked
    WHERE pending = 0 OR pending <> (SELECT count(*) FROM llm_job_edges WHERE job_id = parked.id AND state = 'open')
       OR EXISTS (
           SELECT 1 FROM llm_job_edges AS edge CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on AND {_ENDED}
           WHERE edge.job_id = parked.id AND edge.state = 'open'
       )
    """)

# A person sends a job back in spite of what failed: that counts as done from now on. What is live again is waited for again, but for the
# turn before it in a conversation, whose place is given anew by a trigger.
REOPEN = text(f"""
    UPDATE llm_job_edges SET state = CASE
        WHEN step = '@turn' OR EXISTS (SELECT 1 FROM llm_jobs AS target WHERE target.id = llm_job_edges.depends_on AND {_ENDED}) THEN 'met' ELSE 'open' END
    WHERE job_id = :waiter AND (state = 'failed' OR state = 'moot')
    """)
WAIT_AGAIN = (
    update(jobs)
    .where(jobs.c.id == bindparam("waiter"), jobs.c.state.in_(one_of((JobState.WAITING, JobState.WAITING_CHILDREN))))
    .values(
        state=lit("waiting_children"), pending=bindparam("open"), reason=lit("what it waits on is live again"), **_by
    )
)
OPEN_COUNT = (
    select(func.count()).select_from(edges).where(edges.c.job_id == bindparam("waiter"), edges.c.state == lit("open"))
)

SPAWN = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.lease_epoch == bindparam("epoch"), jobs.c.state == lit("active"))
    .values(
        state=lit("waiting_children"),
        lease_epoch=jobs.c.lease_epoch + lit(1),
        lease_owner=NULL,
        lease_until=NULL,
        alone=lit(0),
        start_by=NULL,
        pending=bindparam("children"),
        quorum=bindparam("needed"),
        reason=bindparam("reason"),
        **_by,
    )
)
# A new job takes its place in a flow, and in the tree of those who created it.
_above = jobs.alias("above")
_root = select(func.coalesce(_above.c.root_id, _above.c.id)).where(_above.c.id == bindparam("parent")).scalar_subquery()
ENROL = (
    update(jobs)
    .where(jobs.c.id == bindparam("new_id"))
    .values(
        parent_id=bindparam("parent"),
        root_id=_root,
        pending=jobs.c.pending + bindparam("open"),
        quorum=bindparam("needed"),
        changed_by=bindparam("actor"),
    )
)
PARENT = text("""
    SELECT queue, model, priority, tag FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    """)

# What was given to a job: in the order of its needs. The result of one that did not count (moot) is left out, so that every attempt sees the same.
INPUTS = text("""
    SELECT edge.job_id, edge.step, edge.depends_on, edge.name, edge.policy, edge.state, target.state,
           CASE WHEN edge.state = 'met' AND target.state = 'completed' THEN result.result END,
           CASE WHEN edge.state <> 'moot' AND target.state <> 'completed' THEN result.error END,
           target.reason
    FROM json_each(:ids) AS claimed
    CROSS JOIN llm_job_edges AS edge ON edge.job_id = claimed.value
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on
    LEFT JOIN llm_job_results AS result ON result.job_id = target.id
    ORDER BY edge.job_id, edge.place, edge.depends_on
    """)

_COLUMNS = tuple(jobs.c[field.name] for field in fields(JobRow))
CHILDREN = select(*_COLUMNS).where(jobs.c.parent_id == bindparam("wanted")).order_by(jobs.c.id)
DEPENDENCIES = (
    select(*_COLUMNS)
    .join(edges, edges.c.depends_on == jobs.c.id)
    .where(edges.c.job_id == bindparam("wanted"))
    .order_by(edges.c.place, edges.c.depends_on)
)
DEPENDENTS = (
    select(*_COLUMNS)
    .join(edges, edges.c.job_id == jobs.c.id)
    .where(edges.c.depends_on == bindparam("wanted"))
    .order_by(jobs.c.id)
)
WAITS_ON = text("""
    SELECT edge.step, edge.depends_on, edge.name, target.state, target.type FROM llm_job_edges AS edge
    JOIN llm_jobs AS target ON target.id = edge.depends_on
    WHERE edge.job_id = :wanted AND edge.state = 'open' ORDER BY edge.place, edge.depends_on LIMIT :limit + 0
    """)
EDGE_COUNTS = text("SELECT step, state, count(*) FROM llm_job_edges WHERE job_id = :wanted GROUP BY step, state")

BELOW = text("""
    SELECT child.parent_id, child.id, child.state FROM json_each(:ids) AS above CROSS JOIN llm_jobs AS child ON child.parent_id = above.value
    ORDER BY child.id
    """)
NEEDS_OF = text("""
    SELECT edge.job_id, edge.depends_on, edge.step, edge.name, edge.policy, edge.state, target.state
    FROM json_each(:ids) AS waiting CROSS JOIN llm_job_edges AS edge ON edge.job_id = waiting.value
    CROSS JOIN llm_jobs AS target ON target.id = edge.depends_on
    ORDER BY edge.job_id, edge.place, edge.depends_on
    """)
WAITERS_OF = text("""
    SELECT edge.depends_on, edge.job_id, waiter.state FROM json_each(:ids) AS target
    CROSS JOIN llm_job_edges AS edge ON edge.depends_on = target.value AND edge.state = 'open'
    CROSS JOIN llm_jobs AS waiter ON waiter.id = edge.job_id
    """)
_NAMES = ", ".join(f'job."{column.name}"' for column in _COLUMNS)
ROWS = text(f"SELECT {_NAMES} FROM json_each(:ids) AS wanted CROSS JOIN llm_jobs AS job ON job.id = wanted.value")
