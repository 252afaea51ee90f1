"""The statements of the host's side: adding jobs, reading them, and the few moves a host may make.

Functions over a connection, like the worker's, so that `JobQueue` is only about connections, threads and waiting. Loaded at the first use of
a queue, because SQLAlchemy comes with it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import bindparam, case, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from .engine import Connection
from .json_text import loads
from .lifecycle import TERMINAL_STATES, TRANSITIONS, JobState
from .model import CallRecord, Chunk, JobRow, Transition, UsageTotals
from .schema import calls, chunks, job_data, job_results, jobs, transitions
from .sql import NULL, Prepared, lit, one_of, up_to

_NEW_COLUMNS = (
    "key",
    "type",
    "queue",
    "model",
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
        **{name: bindparam(name) for name in _NEW_COLUMNS},
        "updated_at": bindparam("created_at"),
        "changed_by": lit("host"),
    }
)
_ADD = Prepared(_new.returning(jobs.c.id))
_ADD_ONCE = Prepared(
    _new.on_conflict_do_nothing(index_elements=[jobs.c.key], index_where=text("key IS NOT NULL")).returning(jobs.c.id)
)
_ADD_AS = Prepared(_new.values(id=bindparam("id")))
_ADD_DATA = Prepared(
    insert(job_data).values({name: bindparam(name) for name in ("job_id", "description", "data", "options")})
)

_BY_KEY = Prepared(select(jobs.c.id).where(jobs.c.key == bindparam("wanted")))
_BY_KEYS = Prepared(
    select(jobs.c.key, jobs.c.id).where(
        jobs.c.key.is_not(None), jobs.c.key.in_(select(func.json_each(bindparam("keys")).table_valued("value").c.value))
    )
)
_LAST_ID = Prepared(text("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'llm_jobs'), 0)"))

_ROW_COLUMNS = tuple(jobs.c[field.name] for field in fields(JobRow))
_STATE_AT = [field.name for field in fields(JobRow)].index("state")
_ROW = Prepared(select(*_ROW_COLUMNS).where(jobs.c.id == bindparam("job_id")))
_BODY = Prepared(
    select(job_data.c.description, job_data.c.data, job_data.c.options).where(job_data.c.job_id == bindparam("job_id"))
)
_RESULT = Prepared(select(job_results.c.result, job_results.c.error).where(job_results.c.job_id == bindparam("job_id")))
_LEASE = Prepared(select(jobs.c.lease_owner, jobs.c.lease_until).where(jobs.c.id == bindparam("job_id")))

_LIVE = tuple(state for state in JobState if state not in TERMINAL_STATES)
_RETRYABLE = tuple(
    state for state, after in TRANSITIONS.items() if state in TERMINAL_STATES and JobState.WAITING in after
)

_CANCEL = Prepared(
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.state.in_(one_of(_LIVE)))
    .values(
        state=lit("cancelled"),
        lease_epoch=jobs.c.lease_epoch + case((jobs.c.state == lit("active"), lit(1)), else_=lit(0)),
        lease_owner=NULL,
        lease_until=NULL,
        alone=lit(0),
        run_at=NULL,
        held_by=NULL,
        held_until=NULL,
        finished_at=bindparam("now"),
        updated_at=bindparam("now"),
        changed_by=lit("host"),
        reason=bindparam("reason"),
    )
)

_RETRY = Prepared(
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.state.in_(one_of(_RETRYABLE)))
    .values(
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

_TRANSITIONS = Prepared(
    select(*(transitions.c[field.name] for field in fields(Transition)))
    .where(transitions.c.job_id == bindparam("wanted"))
    .order_by(transitions.c.id)
)
_CALLS = Prepared(
    select(*(calls.c[field.name] for field in fields(CallRecord)))
    .where(calls.c.job_id == bindparam("wanted"))
    .order_by(calls.c.id)
)

# Only the newest epoch that has text: what earlier ones streamed is void.
_CHUNKS = Prepared(
    text("""
    SELECT epoch, seq, step, text, at FROM llm_job_chunks
    WHERE job_id = :job_id AND epoch = (SELECT max(epoch) FROM llm_job_chunks WHERE job_id = :job_id)
      AND (epoch > :epoch OR (epoch = :epoch AND seq > :seq))
    ORDER BY seq LIMIT 500
    """)
)
_ALL_CHUNKS = Prepared(
    select(chunks.c.epoch, chunks.c.seq, chunks.c.step, chunks.c.text, chunks.c.at)
    .where(chunks.c.job_id == bindparam("wanted"))
    .order_by(chunks.c.epoch, chunks.c.seq)
)

_COUNTS = Prepared(select(jobs.c.type, jobs.c.state, func.count()).group_by(jobs.c.type, jobs.c.state))

_TOTALS = """
    SELECT count(*), sum(input_uncached), sum(cache_read), sum(cache_write), sum(output_visible), sum(output_reasoning), sum(cost),
           sum(cost IS NULL AND llm_calls.state IN ('completed', 'superseded'))
    FROM llm_calls
"""
_USAGE = Prepared(text(_TOTALS))
_USAGE_OF_TAG = Prepared(text(_TOTALS + " JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id WHERE llm_jobs.tag = :tag"))

_AHEAD = Prepared(
    text("""
    SELECT count(*) FROM (
        SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane = :lane AND priority > :priority
        UNION ALL SELECT 1 FROM llm_jobs WHERE state = 'waiting' AND lane = :lane AND priority = :priority AND id < :job_id
        LIMIT 1000
    )
    """)
)


def add(c: Connection, row: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Add one job; the id of the one that already has its key, if there is one."""
    if row["key"] is None:
        job_id: int = c.run(_ADD, row)[0][0]
    else:
        added = c.run(_ADD_ONCE, row)
        if not added:
            return int(c.run(_BY_KEY, {"wanted": row["key"]})[0][0])
        job_id = added[0][0]
    c.change(_ADD_DATA, {"job_id": job_id, **data})
    return job_id


def add_many(c: Connection, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Add many, their ids reserved ahead so that each table takes one statement run many times. Ids in the order given."""
    keys = [row["key"] for row, _ in rows if row["key"] is not None]
    known: dict[str, int] = dict(c.run(_BY_KEYS, {"keys": json.dumps(keys)})) if keys else {}
    next_id = c.run(_LAST_ID)[0][0] + 1
    ids: list[int] = []
    new_rows, new_data = [], []
    for row, data in rows:
        key = row["key"]
        if key is not None and key in known:
            ids.append(known[key])
            continue
        if key is not None:
            known[key] = next_id
        new_rows.append({**row, "id": next_id})
        new_data.append({**data, "job_id": next_id})
        ids.append(next_id)
        next_id += 1
    if new_rows:
        c.change_many(_ADD_AS, new_rows)
        c.change_many(_ADD_DATA, new_data)
    return ids


def _job_row(row: Sequence[Any]) -> JobRow:
    values = list(row)
    values[_STATE_AT] = JobState(values[_STATE_AT])
    return JobRow(**dict(zip(JobRow.__dataclass_fields__, values, strict=True)))


def job_row(c: Connection, job_id: int) -> JobRow | None:
    """The job, or None."""
    rows = c.run(_ROW, {"job_id": job_id})
    return _job_row(rows[0]) if rows else None


def body(c: Connection, job_id: int) -> tuple[str | None, Any, dict[str, Any]]:
    """Description, data and options of a job."""
    rows = c.run(_BODY, {"job_id": job_id})
    return (rows[0][0], loads(rows[0][1]), loads(rows[0][2])) if rows else (None, {}, {})


def result(c: Connection, job_id: int) -> tuple[Any, dict[str, Any] | None]:
    """Result and error of a job, each None where there is none."""
    rows = c.run(_RESULT, {"job_id": job_id})
    if not rows:
        return None, None
    found, error = rows[0]
    return (None if found is None else loads(found)), (None if error is None else loads(error))


def holder(c: Connection, job_id: int) -> tuple[str | None, int | None]:
    """Who holds the job's lease, and until when."""
    rows = c.run(_LEASE, {"job_id": job_id})
    return (rows[0][0], rows[0][1]) if rows else (None, None)


def ahead(c: Connection, row: JobRow) -> int:
    """How many jobs of the same lane are before this one, counted to 1000."""
    lane = f"{row.queue}|{row.type}|{row.model or ''}"
    return int(c.run(_AHEAD, {"lane": lane, "priority": row.priority, "job_id": row.id})[0][0])


def cancel(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Cancel a job that has not ended; whoever works on it has lost its lease. False if it had ended."""
    return c.change(_CANCEL, {"job_id": job_id, "reason": reason, "now": now}) == 1


def retry(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Send a failed or cancelled job back to waiting, its counters at zero; what its steps completed stays paid for."""
    return c.change(_RETRY, {"job_id": job_id, "reason": reason, "now": now}) == 1


def transitions_of(c: Connection, job_id: int) -> list[Transition]:
    """A job's log, oldest first."""
    names = tuple(Transition.__dataclass_fields__)
    found = (dict(zip(names, row, strict=True)) for row in c.run(_TRANSITIONS, {"wanted": job_id}))
    return [
        Transition(
            **{
                **t,
                "from_state": None if t["from_state"] is None else JobState(t["from_state"]),
                "to_state": JobState(t["to_state"]),
            }
        )
        for t in found
    ]


def calls_of(c: Connection, job_id: int) -> list[CallRecord]:
    """A job's calls, oldest first."""
    names = tuple(CallRecord.__dataclass_fields__)
    found = (dict(zip(names, row, strict=True)) for row in c.run(_CALLS, {"wanted": job_id}))
    return [CallRecord(**{**call, "error": None if call["error"] is None else loads(call["error"])}) for call in found]


def chunks_after(c: Connection, job_id: int, epoch: int, seq: int) -> list[Chunk]:
    """The next chunks (500 at most) of the newest epoch that has any, after that place."""
    return [
        Chunk(epoch=e, seq=s, step=step, text=piece, at=at)
        for e, s, step, piece, at in c.run(_CHUNKS, {"job_id": job_id, "epoch": epoch, "seq": seq})
    ]


def all_chunks(c: Connection, job_id: int) -> list[Chunk]:
    """Every chunk of every epoch, oldest first."""
    return [
        Chunk(epoch=e, seq=s, step=step, text=piece, at=at)
        for e, s, step, piece, at in c.run(_ALL_CHUNKS, {"wanted": job_id})
    ]


@cache
def _listing(names: frozenset[str]) -> Prepared:
    statement = select(*_ROW_COLUMNS)
    for name in sorted(names - {"before"}):
        statement = statement.where(jobs.c[name] == bindparam(f"{name}_wanted"))
    if "before" in names:
        statement = statement.where(jobs.c.id < bindparam("before_wanted"))
    return Prepared(statement.order_by(jobs.c.id.desc()).limit(up_to("limit")).offset(lit(0)))


def listing(c: Connection, limit: int, wanted: Mapping[str, Any]) -> list[JobRow]:
    """Jobs by equal `state`, `type`, `tag`, `queue` and `before` an id, newest first."""
    params = {f"{name}_wanted": value for name, value in wanted.items()}
    return [_job_row(row) for row in c.run(_listing(frozenset(wanted)), {**params, "limit": limit})]


def counts(c: Connection) -> list[tuple[str, JobState, int]]:
    """How many jobs of each type are in each state."""
    return [(kind, JobState(state), count) for kind, state, count in c.run(_COUNTS)]


def usage(c: Connection, tag: str | None) -> UsageTotals:
    """What calls have used, of everything or of the jobs of one tag."""
    row = (c.run(_USAGE) if tag is None else c.run(_USAGE_OF_TAG, {"tag": tag}))[0]
    return UsageTotals(*row[:1], *(value or 0 for value in row[1:6]), row[6], row[7] or 0)  # type: ignore[call-arg]  # eight values


def problems(c: Connection) -> list[str]:
    """What is wrong with the board, in sentences; an empty list is a healthy one. Reads everything."""
    found = [f"quick_check: {line}" for (line,) in c.script("PRAGMA quick_check") if line != "ok"]
    found += [
        f"{table} row {rowid} belongs to a row of {parent} that does not exist"
        for table, rowid, parent, _ in c.script("PRAGMA foreign_key_check")
    ]
    for sentence, sql in _CHECKS:
        found += [sentence.format(*row) for row in c.script(sql)]
    return found


_CHECKS = (
    (
        "job {} is {}, but its log ends in {}",
        """SELECT id, state, last FROM (SELECT id, state, (SELECT to_state FROM llm_job_transitions WHERE job_id = llm_jobs.id ORDER BY id DESC LIMIT 1)
        AS last FROM llm_jobs) WHERE last IS NOT state LIMIT 100""",
    ),
    (
        "job {} is completed without a result",
        """SELECT id FROM llm_jobs WHERE state = 'completed' AND NOT EXISTS
        (SELECT 1 FROM llm_job_results WHERE job_id = llm_jobs.id AND result IS NOT NULL) LIMIT 100""",
    ),
    (
        "call {} of job {} is open, but the job is {}",
        """SELECT llm_calls.id, llm_jobs.id, llm_jobs.state FROM llm_calls JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id
        WHERE llm_calls.state = 'open' AND llm_jobs.state <> 'active' LIMIT 100""",
    ),
    (
        "call {} of job {} completed, but its completion is missing",
        """SELECT id, job_id FROM llm_calls WHERE state = 'completed' AND NOT EXISTS
        (SELECT 1 FROM llm_call_completions WHERE call_id = llm_calls.id) LIMIT 100""",
    ),
)
