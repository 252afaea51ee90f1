"""What becomes of a claimed job. Every one of them is fenced. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.job_store`."""

from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, exists, func, text, update

from ..schema import edges, jobs
from .build import NULL, lit

_fence = (jobs.c.id == bindparam("job_id"), jobs.c.lease_epoch == bindparam("epoch"), jobs.c.state == lit("active"))
_by: dict[str, Any] = {"updated_at": bindparam("now"), "changed_by": bindparam("actor")}
_unleased: dict[str, Any] = {"lease_owner": NULL, "lease_until": NULL, "alone": lit(0)}
# Going back to be claimed again, a job takes a new epoch at once. One that ends keeps it, so that its log and chunks read as one attempt.
_next_epoch = jobs.c.lease_epoch + lit(1)

COMPLETE = (
    update(jobs)
    .where(*_fence)
    .values(state=lit("completed"), progress=lit(100), finished_at=bindparam("now"), reason=NULL, **_by, **_unleased)
    .returning(exists().where(edges.c.depends_on == bindparam("job_id"), edges.c.state == lit("open")))
)

FAIL = (
    update(jobs)
    .where(*_fence)
    .values(
        state=lit("failed"),
        failures=jobs.c.failures + bindparam("failed"),
        losses=jobs.c.losses + bindparam("lost"),
        finished_at=bindparam("now"),
        reason=bindparam("reason"),
        **_by,
        **_unleased,
    )
)

_most: ColumnElement[int] = func.coalesce(bindparam("most"), jobs.c.max_attempts)
_spent = jobs.c.failures + lit(1) >= _most

RETRY = (
    update(jobs)
    .where(*_fence)
    .values(
        state=case((_spent, lit("failed")), else_=lit("delayed")),
        lease_epoch=case((_spent, jobs.c.lease_epoch), else_=_next_epoch),
        failures=jobs.c.failures + lit(1),
        max_attempts=_most,
        run_at=case((_spent, NULL), else_=bindparam("run_at")),
        finished_at=case((_spent, bindparam("now"))),
        reason=bindparam("reason"),
        **_by,
        **_unleased,
    )
    .returning(jobs.c.state)
)

BACK = (
    update(jobs)
    .where(*_fence)
    .values(
        state=lit("waiting"),
        lease_epoch=_next_epoch,
        losses=jobs.c.losses + bindparam("lost"),
        deferrals=jobs.c.deferrals + bindparam("deferred"),
        held_by=bindparam("held_by"),
        held_until=bindparam("held_until"),
        reason=bindparam("reason"),
        **_by,
        **_unleased,
    )
)

STANDING = text("""
    SELECT alone, EXISTS (
        SELECT 1 FROM llm_calls JOIN llm_job_data ON llm_job_data.job_id = llm_calls.job_id
        WHERE llm_calls.job_id = :job_id AND llm_calls.state = 'open' AND origin IS NOT 'batch' AND handle IS NULL
            AND json_extract(options, '$.on_unknown') = 'park'
    )
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    """)

CHUNK = text("""
    INSERT INTO llm_job_chunks (job_id, epoch, seq, step, text, at)
    SELECT id, lease_epoch, :seq, :step, :text, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO NOTHING
    """)

PROGRESS = (
    update(jobs)
    .where(*_fence)
    .values(
        progress=func.max(jobs.c.progress, bindparam("percent")),
        progress_message=func.coalesce(bindparam("message"), jobs.c.progress_message),
        updated_at=bindparam("now"),
    )
)
