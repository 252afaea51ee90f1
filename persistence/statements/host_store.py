"""The host's side: adding, reading, and the few moves a host may make. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.host_store`."""

from dataclasses import fields

from sqlalchemy import Integer, TextClause, bindparam, case, exists, func, or_, select, text, update
from sqlalchemy.dialects.sqlite import insert

from ..lifecycle import TERMINAL_STATES, TRANSITIONS, JobState
from ..model import USAGE_COLUMNS, CallRecord, JobRow, Transition
from ..schema import calls, chunks, conversations, job_data, job_results, jobs, transitions
from .build import NO_OFFSET, NULL, lit, one_of, up_to

NEW_COLUMNS = (
    "key",
    "unique_key",
    "type",
    "queue",
    "model",
    "requires",
    "group_key",
    "group_limit",
    "tag",
    "state",
    "priority",
    "run_at",
    "start_by",
    "max_attempts",
    "created_at",
)
_new = insert(jobs).values(
    {
        **{name: bindparam(name) for name in NEW_COLUMNS},
        "conversation_id": select(conversations.c.id)
        .where(conversations.c.name == bindparam("conversation"))
        .scalar_subquery(),
        "updated_at": bindparam("created_at"),
        "changed_by": bindparam("changed_by"),
    }
)
ADD = _new.returning(jobs.c.id)
ADD_ONCE = _new.on_conflict_do_nothing(index_elements=[jobs.c.key], index_where=text("key IS NOT NULL")).returning(
    jobs.c.id
)
ADD_AS = _new.values(id=bindparam("id"))
ADD_DATA = insert(job_data).values({name: bindparam(name) for name in ("job_id", "description", "data", "options")})

BY_KEY = select(jobs.c.id).where(jobs.c.key == bindparam("wanted"))
BY_KEYS = select(jobs.c.key, jobs.c.id).where(
    jobs.c.key.is_not(None), jobs.c.key.in_(select(func.json_each(bindparam("keys")).table_valued("value").c.value))
)
LAST_ID = text("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'llm_jobs'), 0)")

ROW_COLUMNS = tuple(jobs.c[field.name] for field in fields(JobRow))
ROW = select(*ROW_COLUMNS).where(jobs.c.id == bindparam("job_id"))
BODY = select(job_data.c.description, job_data.c.data, job_data.c.options).where(
    job_data.c.job_id == bindparam("job_id")
)
RESULT = select(job_results.c.result, job_results.c.error).where(job_results.c.job_id == bindparam("job_id"))
LEASE = select(jobs.c.lease_owner, jobs.c.lease_until).where(jobs.c.id == bindparam("job_id"))

_LIVE = tuple(state for state in JobState if state not in TERMINAL_STATES)
_RETRYABLE = tuple(
    state for state, after in TRANSITIONS.items() if state in TERMINAL_STATES and JobState.WAITING in after
)

CANCEL = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.state.in_(one_of(_LIVE)))
    .values(
        state=lit("cancelled"),
        lease_epoch=jobs.c.lease_epoch + case((jobs.c.state == lit("active"), lit(1)), else_=lit(0)),
        lease_owner=NULL,
        lease_until=NULL,
        alone=lit(0),
        pending=lit(0),
        run_at=NULL,
        held_by=NULL,
        held_until=NULL,
        finished_at=bindparam("now"),
        updated_at=bindparam("now"),
        changed_by=lit("host"),
        reason=bindparam("reason"),
    )
)

# A name that at most one live job has (`unique`) may have passed to another since; a window's name (debounce, throttle) then stays with it.
_rival = jobs.alias("rival")
_taken = exists(
    select(lit(1))
    .select_from(_rival)
    .where(
        _rival.c.unique_key == jobs.c.unique_key,
        text(
            "(rival.state = 'waiting' OR rival.state = 'delayed' OR rival.state = 'waiting_children' OR rival.state = 'active')"
        ),
    )
    .correlate(jobs)
)
_of_window = or_(jobs.c.unique_key.op("GLOB")(lit("debounce:*")), jobs.c.unique_key.op("GLOB")(lit("throttle:*")))

RETRY = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job_id"),
        jobs.c.state.in_(one_of(_RETRYABLE)),
        or_(jobs.c.unique_key.is_(None), _of_window, ~_taken),
    )
    .values(
        unique_key=case((_taken, NULL), else_=jobs.c.unique_key),
        state=lit("waiting"),
        lease_epoch=jobs.c.lease_epoch + lit(1),
        failures=lit(0),
        losses=lit(0),
        start_by=NULL,
        progress=lit(0),
        progress_message=NULL,
        finished_at=NULL,
        updated_at=bindparam("now"),
        changed_by=lit("host"),
        reason=bindparam("reason"),
    )
)

# Somebody has looked at what is unknown of these calls: the job may make them again.
REVIEWED = (
    update(calls)
    .where(calls.c.job_id == bindparam("wanted"), calls.c.state == lit("unknown"))
    .values(error_class=lit("reviewed"))
)

# A batch is looked at now: its driving job waits for its next look only by its own word.
PROMOTE = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job_id"),
        (jobs.c.state == lit("delayed"))
        | ((jobs.c.state == lit("waiting")) & jobs.c.held_until.is_not(None) & (jobs.c.type == lit("@batch"))),
    )
    .values(
        state=case((jobs.c.pending > lit(0), lit("waiting_children")), else_=lit("waiting")),
        run_at=NULL,
        held_by=NULL,
        held_until=NULL,
        updated_at=bindparam("now"),
        changed_by=lit("host"),
        reason=bindparam("reason"),
    )
)

_COPIED = ("type", "queue", "model", "requires", "group_key", "group_limit", "tag", "priority", "max_attempts")
DUPLICATE = (
    insert(jobs)
    .from_select(
        [*_COPIED, "created_at", "updated_at", "changed_by", "reason"],
        select(
            *(jobs.c[name] for name in _COPIED),
            bindparam("now", type_=Integer),
            bindparam("now", type_=Integer),
            lit("host"),
            lit("a duplicate of job ").concat(jobs.c.id),
        ).where(jobs.c.id == bindparam("job_id")),
    )
    .returning(jobs.c.id)
)
DUPLICATE_DATA = insert(job_data).from_select(
    ["job_id", "description", "data", "options"],
    select(bindparam("job_id", type_=Integer), job_data.c.description, job_data.c.data, job_data.c.options).where(
        job_data.c.job_id == bindparam("wanted")
    ),
)

_undecided = (
    func.json_extract(job_results.c.error, lit("$.class")) == lit("unknown_outcome"),
    func.json_extract(job_results.c.error, lit("$.reviewed_at")).is_(None),
)
PARKED = (
    select(*ROW_COLUMNS)
    .join(job_results, job_results.c.job_id == jobs.c.id)
    .where(jobs.c.state == lit("failed"), *_undecided)
    .order_by(jobs.c.id.desc())
    .limit(up_to("limit"))
    .offset(NO_OFFSET)
)
IS_PARKED = (
    select(jobs.c.id)
    .join(job_results, job_results.c.job_id == jobs.c.id)
    .where(jobs.c.id == bindparam("wanted"), jobs.c.state == lit("failed"), *_undecided)
)
DISMISS = (
    update(job_results)
    .where(
        job_results.c.job_id == bindparam("wanted"),
        *_undecided,
        exists(select(lit(1)).where(jobs.c.id == job_results.c.job_id, jobs.c.state == lit("failed"))),
    )
    .values(error=func.json_set(job_results.c.error, lit("$.reviewed_at"), bindparam("now")))
)

JOB_LOG = (
    select(*(transitions.c[field.name] for field in fields(Transition)))
    .where(transitions.c.job_id == bindparam("wanted"))
    .order_by(transitions.c.id)
)
CALLS = (
    select(*(calls.c[field.name] for field in fields(CallRecord)))
    .where(calls.c.job_id == bindparam("wanted"))
    .order_by(calls.c.id)
)

# Only the newest epoch that has text: what earlier ones streamed is void.
CHUNKS = text("""
    SELECT epoch, seq, step, text, at FROM llm_job_chunks
    WHERE job_id = :job_id AND epoch = (SELECT max(epoch) FROM llm_job_chunks WHERE job_id = :job_id)
      AND (epoch > :epoch OR (epoch = :epoch AND seq > :seq))
    ORDER BY seq LIMIT 500
    """)
ALL_CHUNKS = (
    select(chunks.c.epoch, chunks.c.seq, chunks.c.step, chunks.c.text, chunks.c.at)
    .where(chunks.c.job_id == bindparam("wanted"))
    .order_by(chunks.c.epoch, chunks.c.seq)
)

_ALL = (*USAGE_COLUMNS, "cost")
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _ALL)


def _usage(of_calls: str, of_deleted: str) -> TextClause:
    """What the calls there are used, and those of jobs that are deleted."""
    return text(f"""
    SELECT sum(calls), {", ".join(f"sum({name})" for name in _ALL)}, sum(unpriced) FROM (
        SELECT count(*) AS calls, {_SUMS}, sum(cost IS NULL AND llm_calls.state IN ('completed', 'superseded')) AS unpriced
        FROM llm_calls {of_calls}
        UNION ALL SELECT sum(calls), {_SUMS}, sum(unpriced) FROM llm_usage_deleted {of_deleted}
    )
    """)


USAGE = _usage("", "")
USAGE_OF_TAG = _usage("JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id WHERE llm_jobs.tag = :tag", "WHERE tag = :tag")
